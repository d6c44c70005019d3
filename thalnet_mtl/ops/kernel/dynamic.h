// Dynamic readings, which are computed at every step, and their gradients.
#pragma once

#include "net.h"

// Copy the positions of the center that a dynamic reading may read; absent modules read as 0.
template <class T>
void Net<T>::gather_visible(const Module<T>& module, const T* row, T* to) const {
    for (int k = 0; k < module.visible; k++)
        to[k] = module.center_index[k] < 0 ? T(0) : row[module.center_index[k]];
}

// Replace the logits of a row by exp(logit - largest); return 1 / Σ |gate| exp(logit - largest).
template <class T>
T Net<T>::exponentiate(const Module<T>& module, T* row) const {
    const Vec<T> minus_infinity = splat(T(-INFINITY));
    Vec<T> largest = minus_infinity, sums{};
    each<T>(module.visible, [&](int i, int n) {
        Vec<T> x = fill_tail(get(row + i, n), n, T(-INFINITY));
        if (module.gates) x = get(module.gates + i, n) != T(0) ? x : minus_infinity;
        largest = x > largest ? x : largest;
    });
    T maximum = -INFINITY;
    for (int i = 0; i < W<T>; i++) maximum = std::max(maximum, largest[i]);
    each<T>(module.visible, [&](int i, int n) {
        const Vec<T> e = exp(get(row + i, n) - maximum);
        put(row + i, e, n);
        sums += fill_tail(module.gates ? absolute(get(module.gates + i, n)) * e : e, n, T(0));
    });
    return 1 / sum<T>(sums);
}

// Row j of R of a softmax reading, for some rows of the batch, up to one factor for each of them.
template <class T>
void Net<T>::softmax(const Module<T>& module, int j, int t, int from, int rows, T* to,
                     T* factors) const {
    product<T>(rows, module.visible, module.features,
               {before(t, from) + module.slot, center, 1}, module.logits[j].right(), to,
               module.visible, BIAS, module.scale + (long)j * module.visible);
    for (int r = 0; r < rows; r++)
        factors[r] = exponentiate(module, to + (long)r * module.visible);
}

template <class T>
void Net<T>::read_dynamically(const Module<T>& module, int t, int from, int rows) {
    const int visible = module.visible, c = module.context;
    T* a = act(t, from);
    Buffer<T> values((long)rows * visible), weights, factors(rows);
    for (int r = 0; r < rows; r++) {  // times the gates: both scale a column
        T* x = &values[(long)r * visible];
        gather_visible(module, before(t, from + r), x);
        each<T>(module.gates ? visible : 0, [&](int i, int n) {
            put(x + i, get(x + i, n) * get(module.gates + i, n), n);
        });
    }
    if (module.kind == SOFTMAX) {
        weights.resize((long)rows * visible);
        for (int j = 0; j < c; j++) {
            softmax(module, j, t, from, rows, weights.data(), factors.data());
            for (int r = 0; r < rows; r++) {
                const T *w = &weights[(long)r * visible], *x = &values[(long)r * visible];
                Vec<T> sums{};
                each<T>(visible, [&](int i, int n) { sums += get(w + i, n) * get(x + i, n); });
                a[(long)r * columns + module.column + j] = sum<T>(sums) * factors[r];
            }
        }
        return;
    }
    const Left<T> features{before(t, from) + module.slot, center, 1};
    product<T>(rows, c, module.features, features, module.mean.right(), a + module.mean_column(),
               columns, BIAS, module.scale);
    product<T>(rows, c, module.features, features, module.spread.right(),
               a + module.variance_column(), columns, BIAS, module.variance_bias);
    for (int r = 0; r < rows; r++, a += columns) {
        T* v = a + module.variance_column();
        each<T>(c, [&](int i, int n) {
            put(v + i, softplus(get(v + i, n)) + T(MIN_VARIANCE), n);
        });
        const T* x = &values[(long)r * visible];
        for (int j = 0; j < c; j++) {
            const T mean = a[module.mean_column() + j], factor = T(-0.5) / v[j];
            Vec<T> sums{};
            each<T>(visible, [&](int i, int n) {
                const Vec<T> distance = get(module.positions + i, n) - mean;
                sums += exp(distance * distance * factor) * get(x + i, n);
            });
            a[module.column + j] = sum<T>(sums) / std::sqrt(T(2 * M_PI) * v[j]);
        }
    }
}

template <class T>
void Net<T>::backward_dynamic(const Module<T>& module, int t, int from, int rows, T* g,
                              Buffer<T>& dc_dynamic, Buffer<T>& sums) const {
    const int visible = module.visible, c = module.context, F = module.features;
    const long size = (long)rows * visible;
    const Rows phi{before(t, from) + module.slot, center, 0};
    Buffer<T> values(size), grad_visible(size), grad_features((long)rows * F), p(size);
    Buffer<T> factors(rows);
    for (int r = 0; r < rows; r++)
        gather_visible(module, before(t, from + r), &values[(long)r * visible]);
    T* grad_gates = needs_weight_grads && module.gates ? &sums[module.private_gates] : nullptr;
    for (int j = 0; j < c; j++) {
        if (module.kind == SOFTMAX)
            softmax(module, j, t, from, rows, p.data(), factors.data());
        for (int r = 0; r < rows; r++) {
            const T *a = act(t, from + r), *x = &values[(long)r * visible];
            T *gr = g + (long)r * columns, *d = &grad_visible[(long)r * visible];
            const T grad = gr[module.column + j], read = a[module.column + j];
            auto gate = [&](int i, int n) {
                return module.gates ? get(module.gates + i, n) : splat(T(1));
            };
            auto add = [](T* to, Vec<T> x, int n) { put(to, get(to, n) + x, n); };
            if (module.kind == SOFTMAX) {
                T *q = &p[(long)r * visible], factor = factors[r] * grad;
                each<T>(visible, [&](int i, int n) {
                    const Vec<T> value = get(x + i, n), ungated = factor * get(q + i, n);
                    const Vec<T> g = gate(i, n);
                    add(d + i, ungated * g, n);
                    put(q + i, ungated * (value * g - absolute(g) * read), n);
                    if (grad_gates)
                        add(grad_gates + i, ungated * (value - sign(g) * read), n);
                });
                continue;
            }
            const T mean = a[module.mean_column() + j], v = a[module.variance_column() + j];
            const T factor = T(-0.5) / v, height = grad / std::sqrt(T(2 * M_PI) * v);
            // Sums over positions of their contribution times distance^0, distance^1, distance^2.
            Vec<T> moment0{}, moment1{}, moment2{};
            each<T>(visible, [&](int i, int n) {
                const Vec<T> distance = get(module.positions + i, n) - mean;
                const Vec<T> square = distance * distance, value = get(x + i, n);
                const Vec<T> ungated = exp(square * factor) * height;
                const Vec<T> g = ungated * gate(i, n), part = value * g;
                add(d + i, g, n);
                moment0 += part, moment1 += part * distance, moment2 += part * square;
                if (grad_gates) add(grad_gates + i, value * ungated, n);
            });
            gr[module.mean_column() + j] = sum<T>(moment1) / v;
            const T grad_variance = (sum<T>(moment2) / v - sum<T>(moment0)) / (2 * v);
            gr[module.variance_column() + j] =
                grad_variance *
                (v - T(MIN_VARIANCE) > 20 ? T(1) : 1 - std::exp(T(MIN_VARIANCE) - v));
        }
        if (module.kind == GAUSSIAN) continue;
        const long at = (long)j * visible;
        product<T>(rows, F, visible, {p.data(), visible, 1}, {module.weight + at * F, F},
                   grad_features.data(), F, ADD);
        if (!needs_weight_grads) continue;
        product<T>(visible, F, rows, {p.data(), 1, visible}, {phi.data, phi.row},
                   &sums[module.private_weight + at * F], F, ADD);
        T* grad_bias = &sums[module.private_bias + at];
        for (int r = 0; r < rows; r++)
            each<T>(visible, [&](int i, int n) {
                put(grad_bias + i, get(grad_bias + i, n) + get(&p[(long)r * visible] + i, n), n);
            });
    }
    if (module.kind == GAUSSIAN) {
        product<T>(rows, F, c, {g + module.mean_column(), columns, 1}, {module.weight, F},
                   grad_features.data(), F);
        product<T>(rows, F, c, {g + module.variance_column(), columns, 1},
                   {module.variance_weight, F}, grad_features.data(), F, ADD);
    }
    for (int r = 0; r < rows; r++) {
        T* to = &dc_dynamic[(long)r * center];
        for (int k = 0; k < F; k++) to[module.slot + k] += grad_features[(long)r * F + k];
        for (int k = 0; k < visible; k++)
            if (module.center_index[k] >= 0)
                to[module.center_index[k]] += grad_visible[(long)r * visible + k];
    }
}

// Readings that are made anew at every step, and their derivatives.
#pragma once

#include "net.h"

// What a dynamic reading may see: a whole row of the center, or some of it, 0 where nothing is.
template <class T>
void Net<T>::seen(const Module<T>& module, const T* row, T* to) const {
    for (int k = 0; k < module.own; k++)
        to[k] = module.places[k] < 0 ? T(0) : row[module.places[k]];
}

// exp(logits - largest) in place of the logits of a row; returns 1 / (their sum, times |gate|).
template <class T>
T Net<T>::soften(const Module<T>& module, T* row) const {
    const Vec<T> nothing = splat(T(-INFINITY));
    Vec<T> largest = nothing, sums{};
    each<T>(module.own, [&](int i, int n) {
        Vec<T> x = behind(get(row + i, n), n, T(-INFINITY));
        if (module.gates) x = get(module.gates + i, n) != T(0) ? x : nothing;
        largest = x > largest ? x : largest;
    });
    T most = -INFINITY;
    for (int i = 0; i < W<T>; i++) most = std::max(most, largest[i]);
    each<T>(module.own, [&](int i, int n) {
        const Vec<T> e = exp(get(row + i, n) - most);
        put(row + i, e, n);
        sums += behind(module.gates ? absolute(get(module.gates + i, n)) * e : e, n, T(0));
    });
    return 1 / sum<T>(sums);
}

// Row j of a softmax for some rows, but for a factor that is put behind each.
template <class T>
void Net<T>::softmax(const Module<T>& module, int j, int t, int from, int rows, T* to,
                     T* factors) const {
    product<T>(rows, module.own, module.features,
               {before(t, from) + module.slot, center, 1}, module.logits[j].right(), to,
               module.own, BIAS, module.scale + (long)j * module.own);
    for (int r = 0; r < rows; r++) factors[r] = soften(module, to + (long)r * module.own);
}

template <class T>
void Net<T>::read_dynamically(const Module<T>& module, int t, int from, int rows) {
    const int own = module.own, c = module.context;
    T* a = act(t, from);
    Buffer<T> see((long)rows * own), weights, factors(rows);
    for (int r = 0; r < rows; r++) {  // with the gates, as both only scale a column
        T* x = &see[(long)r * own];
        seen(module, before(t, from + r), x);
        each<T>(module.gates ? own : 0, [&](int i, int n) {
            put(x + i, get(x + i, n) * get(module.gates + i, n), n);
        });
    }
    if (module.kind == SOFTMAX) {
        weights.resize((long)rows * own);
        for (int j = 0; j < c; j++) {
            softmax(module, j, t, from, rows, weights.data(), factors.data());
            for (int r = 0; r < rows; r++) {
                const T *w = &weights[(long)r * own], *x = &see[(long)r * own];
                Vec<T> sums{};
                each<T>(own, [&](int i, int n) { sums += get(w + i, n) * get(x + i, n); });
                a[(long)r * columns + module.at + j] = sum<T>(sums) * factors[r];
            }
        }
        return;
    }
    const Left<T> features{before(t, from) + module.slot, center, 1};
    product<T>(rows, c, module.features, features, module.mean.right(), a + module.mean_at(),
               columns, BIAS, module.scale);
    product<T>(rows, c, module.features, features, module.spread.right(),
               a + module.variance_at(), columns, BIAS, module.most);
    for (int r = 0; r < rows; r++, a += columns) {
        T* v = a + module.variance_at();
        each<T>(c, [&](int i, int n) {
            put(v + i, softplus(get(v + i, n)) + T(LEAST_VARIANCE), n);
        });
        const T* x = &see[(long)r * own];
        for (int j = 0; j < c; j++) {
            const T mean = a[module.mean_at() + j], factor = T(-0.5) / v[j];
            Vec<T> sums{};
            each<T>(own, [&](int i, int n) {
                const Vec<T> far = get(module.positions + i, n) - mean;
                sums += exp(far * far * factor) * get(x + i, n);
            });
            a[module.at + j] = sum<T>(sums) / std::sqrt(T(2 * M_PI) * v[j]);
        }
    }
}

template <class T>
void Net<T>::back_dynamic(const Module<T>& module, int t, int from, int rows, T* g,
                  Buffer<T>& more, Buffer<T>& sums) const {
    const int own = module.own, c = module.context, F = module.features;
    const long size = (long)rows * own;
    const Rows phi{before(t, from) + module.slot, center, 0};
    Buffer<T> see(size), by_seen(size), by_features((long)rows * F), p(size), factors(rows);
    for (int r = 0; r < rows; r++) seen(module, before(t, from + r), &see[(long)r * own]);
    T* by_gates = learns && module.gates ? &sums[module.private_gates] : nullptr;
    for (int j = 0; j < c; j++) {
        if (module.kind == SOFTMAX)
            softmax(module, j, t, from, rows, p.data(), factors.data());
        for (int r = 0; r < rows; r++) {
            const T *a = act(t, from + r), *x = &see[(long)r * own];
            T *gr = g + (long)r * columns, *d = &by_seen[(long)r * own];
            const T by = gr[module.at + j], read = a[module.at + j];
            auto gate = [&](int i, int n) {
                return module.gates ? get(module.gates + i, n) : splat(T(1));
            };
            auto add = [](T* to, Vec<T> x, int n) { put(to, get(to, n) + x, n); };
            if (module.kind == SOFTMAX) {
                T *q = &p[(long)r * own], factor = factors[r] * by;
                each<T>(own, [&](int i, int n) {
                    const Vec<T> see = get(x + i, n), open = factor * get(q + i, n);
                    const Vec<T> g = gate(i, n);
                    add(d + i, open * g, n);
                    put(q + i, open * (see * g - absolute(g) * read), n);
                    if (by_gates) add(by_gates + i, open * (see - sign(g) * read), n);
                });
                continue;
            }
            const T mean = a[module.mean_at() + j], v = a[module.variance_at() + j];
            const T factor = T(-0.5) / v, height = by / std::sqrt(T(2 * M_PI) * v);
            Vec<T> all{}, first{}, second{};  // sums of what is read times far^0, far^1, far^2
            each<T>(own, [&](int i, int n) {
                const Vec<T> far = get(module.positions + i, n) - mean, square = far * far;
                const Vec<T> open = exp(square * factor) * height, g = open * gate(i, n);
                const Vec<T> see = get(x + i, n), part = see * g;
                add(d + i, g, n);
                all += part, first += part * far, second += part * square;
                if (by_gates) add(by_gates + i, see * open, n);
            });
            gr[module.mean_at() + j] = sum<T>(first) / v;
            const T by_variance = (sum<T>(second) / v - sum<T>(all)) / (2 * v);
            gr[module.variance_at() + j] =
                by_variance *
                (v - T(LEAST_VARIANCE) > 20 ? T(1) : 1 - std::exp(T(LEAST_VARIANCE) - v));
        }
        if (module.kind == GAUSSIAN) continue;
        const long at = (long)j * own;
        product<T>(rows, F, own, {p.data(), own, 1}, {module.weight + at * F, F},
                   by_features.data(), F, ADD);
        if (!learns) continue;
        product<T>(own, F, rows, {p.data(), 1, own}, {phi.data, phi.row},
                   &sums[module.private_weight + at * F], F, ADD);
        T* by_bias = &sums[module.private_bias + at];
        for (int r = 0; r < rows; r++)
            each<T>(own, [&](int i, int n) {
                put(by_bias + i, get(by_bias + i, n) + get(&p[(long)r * own] + i, n), n);
            });
    }
    if (module.kind == GAUSSIAN) {
        product<T>(rows, F, c, {g + module.mean_at(), columns, 1}, {module.weight, F},
                   by_features.data(), F);
        product<T>(rows, F, c, {g + module.variance_at(), columns, 1}, {module.more, F},
                   by_features.data(), F, ADD);
    }
    for (int r = 0; r < rows; r++) {
        T* to = &more[(long)r * center];
        for (int k = 0; k < F; k++) to[module.slot + k] += by_features[(long)r * F + k];
        for (int k = 0; k < own; k++)
            if (module.places[k] >= 0) to[module.places[k]] += by_seen[(long)r * own + k];
    }
}

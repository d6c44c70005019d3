// Readings that are made anew at every step, and their derivatives.
#pragma once

#include "net.h"

// What a dynamic reading may see: a whole row of the center, or some of it, 0 where nothing is.
template <class T>
void Net<T>::seen(const Module<T>& module, const T* row, T* to) const {
    for (int k = 0; k < module.own; k++)
        to[k] = module.places[k] < 0 ? T(0) : row[module.places[k]];
}

// exp(logits - largest) / sum of |gate| exp(logits - largest), in place of the logits of a row.
template <class T>
void Net<T>::soften(const Module<T>& module, T* row) const {
    T largest = -INFINITY, total = 0;
    for (int k = 0; k < module.own; k++)
        if (module.gate(k) != 0) largest = std::max(largest, row[k]);
    Vec<T> sums{};
    each<T>(module.own, [&](int i, int n) {
        const Vec<T> e = exp(get(row + i, n) - largest);
        put(row + i, e, n);
        Vec<T> g = module.gates ? get(module.gates + i, n) : splat(T(1));
        g = (g < T(0) ? -g : g) * e;
        if (n < W<T>) {  // what is behind the end is not part of the sum
            alignas(BYTES) T part[W<T>] = {};
            store(part, g, n);
            g = load(part);
        }
        sums += g;
    });
    total = sum<T>(sums);
    each<T>(module.own, [&](int i, int n) { put(row + i, get(row + i, n) / total, n); });
}

template <class T>
void Net<T>::softmax(const Module<T>& module, int j, int t, int from, int rows, T* to) const {
    product<T>(rows, module.own, module.features,
               {before(t, from) + module.slot, center, 1}, module.logits[j].right(), to,
               module.own, BIAS, module.scale + (long)j * module.own);
    for (int r = 0; r < rows; r++) soften(module, to + (long)r * module.own);
}

template <class T>
void Net<T>::read_dynamically(const Module<T>& module, int t, int from, int rows) {
    const int own = module.own, c = module.context;
    T* a = act(t, from);
    Buffer<T> see((long)rows * own), weights;
    for (int r = 0; r < rows; r++) seen(module, before(t, from + r), &see[(long)r * own]);
    if (module.kind == SOFTMAX) {
        weights.resize((long)rows * own);
        for (int j = 0; j < c; j++) {
            softmax(module, j, t, from, rows, weights.data());
            for (int r = 0; r < rows; r++) {
                const T *w = &weights[(long)r * own], *x = &see[(long)r * own];
                Vec<T> sums{};
                each<T>(own, [&](int i, int n) {
                    const Vec<T> p = get(w + i, n) * get(x + i, n);
                    sums += module.gates ? p * get(module.gates + i, n) : p;
                });
                a[(long)r * columns + module.at + j] = sum<T>(sums);
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
                const Vec<T> p = exp(far * far * factor) * get(x + i, n);
                sums += module.gates ? p * get(module.gates + i, n) : p;
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
    Buffer<T> see(size), by_seen(size), by_features((long)rows * F), p(size);
    for (int r = 0; r < rows; r++) seen(module, before(t, from + r), &see[(long)r * own]);
    T* by_gates = learns ? &sums[module.private_gates] : nullptr;
    for (int j = 0; j < c; j++) {
        if (module.kind == SOFTMAX) softmax(module, j, t, from, rows, p.data());
        for (int r = 0; r < rows; r++) {
            const T *a = act(t, from + r), *x = &see[(long)r * own];
            T *gr = g + (long)r * columns, *d = &by_seen[(long)r * own];
            T* q = &p[(long)r * own];
            const T by = gr[module.at + j], read = a[module.at + j];
            const bool gauss = module.kind == GAUSSIAN;
            const T mean = gauss ? a[module.mean_at() + j] : 0;
            const T v = gauss ? a[module.variance_at() + j] : 1;
            const T factor = T(-0.5) / v, height = 1 / std::sqrt(T(2 * M_PI) * v);
            Vec<T> by_mean{}, by_variance{};
            each<T>(own, [&](int i, int n) {
                const Vec<T> see = get(x + i, n);
                const Vec<T> gate = module.gates ? get(module.gates + i, n) : splat(T(1));
                const Vec<T> far = gauss ? get(module.positions + i, n) - mean : Vec<T>{};
                const Vec<T> open = gauss ? exp(far * far * factor) * height : get(q + i, n);
                const Vec<T> size = gate < T(0) ? -gate : gate;
                const Vec<T> up = gate > T(0) ? splat(T(1)) : Vec<T>{};
                const Vec<T> sign = gate < T(0) ? splat(T(-1)) : up;
                put(d + i, get(d + i, n) + by * gate * open, n);
                if (gauss) {
                    const Vec<T> part = by * see * gate * open;
                    by_mean += part * far / v;
                    by_variance += part * (far * far / v - 1) * (T(0.5) / v);
                } else put(q + i, by * open * (see * gate - size * read), n);
                if (by_gates && module.gates) {
                    const Vec<T> change = gauss ? by * see * open
                                                : by * open * (see - sign * read);
                    put(by_gates + i, get(by_gates + i, n) + change, n);
                }
            });
            if (gauss) {
                gr[module.mean_at() + j] = sum<T>(by_mean);
                gr[module.variance_at() + j] =
                    sum<T>(by_variance) *
                    (v - T(LEAST_VARIANCE) > 20 ? T(1) : 1 - std::exp(T(LEAST_VARIANCE) - v));
            }
        }
        if (module.kind == GAUSSIAN) continue;
        const long at = (long)j * own;
        product<T>(rows, F, own, {p.data(), own, 1}, {module.weight + at * F, F},
                   by_features.data(), F, ADD);
        if (!learns) continue;
        product<T>(own, F, rows, {p.data(), 1, own}, {phi.data, phi.row},
                   &sums[module.private_weight + at * F], F, ADD);
        for (int r = 0; r < rows; r++)
            for (int k = 0; k < own; k++)
                sums[module.private_bias + at + k] += p[(long)r * own + k];
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

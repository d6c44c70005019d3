// The Gaussian reading, whose matrix R is computed for every row at every step, and its gradients.
//
// R_jk = h exp2(p (k - m)^2), with mean m, power p = -log2(e) / 2v and height h = 1 / sqrt(2 pi v).
// R is never stored; the backward pass computes it again. Every element of a vector is a row of the
// batch, and neighboring densities follow from each other by multiplication.
#pragma once

#include "net.h"

constexpr int STRETCH = 16;             // densities that follow from the one in their middle
constexpr double NARROWEST = -LOG2_E / 16;  // power of the narrowest Gaussian that is computed so
constexpr double WIDE = 100;  // variance in elements of a vector that have no row

// Call f(side, k, k - mean, exp2(power (k - mean)^2)) for all positions; `side` is 0 or 1, so that
// sums can have two parts. `even`: positions are consecutive numbers.
//
// With d = k - mean, exp2(p (d + 1)^2) = exp2(p d^2) exp2(p (2d + 1)), and the last factor shrinks
// by exp2(2p) from step to step. What is too narrow for that is computed one by one, for each row
// for itself, so that a row has the same result in every batch; SOME_NARROW: there may be such rows.
template <bool SOME_NARROW, class T, class F>
inline void each_density(Vec<T> mean, Vec<T> power, const T* positions, int count, bool even, F f) {
    const Vec<T> shrink = exp2(power + power), limit = splat(T(20));
    auto exact = [&](Vec<T> distance) { return exp2(power * distance * distance); };
    int k = 0;
    for (; even && k + STRETCH <= count; k += STRETCH) {
        const int middle = k + STRETCH / 2;
        const Vec<T> distance = positions[middle] - mean, exponent = power * distance * distance;
        const Vec<T> slope = power * (distance + distance);
        Vec<T> right = power + slope, left = power - slope;
        // The limit is exceeded only where the density is 0.
        right = exp2(right > limit ? limit : right), left = exp2(left > limit ? limit : left);
        Vec<T> up = exponent < T(-125) ? Vec<T>{} : exp2(exponent), down = up;
        auto call = [&](int side, int i, Vec<T> density) {
            const Vec<T> d = distance + T(i);
            if (SOME_NARROW) density = power >= T(NARROWEST) ? density : exact(d);
            f(side, middle + i, d, density);
        };
        call(0, 0, up);
#pragma GCC unroll 8
        for (int i = 1; i <= STRETCH / 2; i++) {
            down *= left, left *= shrink;
            call(1, -i, down);
            if (i == STRETCH / 2) break;
            up *= right, right *= shrink;
            call(0, i, up);
        }
    }
    for (; k < count; k++) {
        const Vec<T> distance = positions[k] - mean;
        f(0, k, distance, exact(distance));
    }
}
template <class T, class F>
inline void each_density(Vec<T> mean, Vec<T> power, const T* positions, int count, bool even, F f) {
    if (minimum<T>(power) >= T(NARROWEST))
        each_density<false, T>(mean, power, positions, count, even, f);
    else each_density<true, T>(mean, power, positions, count, even, f);
}

template <class T>
inline Vec<T> power_of(Vec<T> variance) { return T(-0.5 * LOG2_E) / variance; }
template <class T>
inline Vec<T> height_of(Vec<T> variance) { return 1 / root(T(2 * M_PI) * variance); }

// Copy what a module reads of a transposed center, times the gates.
template <class T>
void Net<T>::gather_transposed(const Module<T>& module, const T* center_t, T* to) const {
    for (int k = 0; k < module.visible; k++, to += W<T>) {
        const int64_t place = module.center_index[k];
        const Vec<T> x = place < 0 ? Vec<T>{} : load(center_t + place * W<T>);
        store(to, module.gates ? x * module.gates[k] : x);
    }
}

template <class T>
void Net<T>::read_gaussian(const Module<T>& module, int t, int from, int rows,
                           Scratch<T>& scratch) {
    const int c = module.context;
    const Left<T> features{before(t, from) + module.slot, center, 1};
    T* a = act(t, from);
    product<T>(rows, c, module.features, features, module.mean.right(), a + module.mean_column(),
               columns, BIAS, module.scale);
    product<T>(rows, c, module.features, features, module.spread.right(),
               a + module.variance_column(), columns, BIAS, module.variance_bias);
    T* values = scratch.space((long)(module.visible + 3 * c) * W<T>);
    T *means = values + module.visible * W<T>, *variances = means + c * W<T>;
    T* contexts = variances + c * W<T>;
    for (int r = 0; r < rows; r += W<T>, a += W<T> * columns) {
        const int n = std::min(W<T>, rows - r);
        gather_transposed(module, scratch.center(r, center), values);
        transpose(a + module.mean_column(), columns, n, c, means);
        transpose(a + module.variance_column(), columns, n, c, variances, WIDE);
        for (int j = 0; j < c; j++) {
            const Vec<T> v = softplus(load(variances + j * W<T>)) + T(MIN_VARIANCE);
            store(variances + j * W<T>, v);
            Vec<T> sums[2]{};
            each_density<T>(load(means + j * W<T>), power_of<T>(v), module.positions,
                            module.visible, module.even,
                            [&](int side, int k, Vec<T>, Vec<T> density) {
                                sums[side] = fused(density, load(values + k * W<T>), sums[side]);
                            });
            store(contexts + j * W<T>, (sums[0] + sums[1]) * height_of<T>(v));
        }
        transpose_back(variances, n, c, a + module.variance_column(), columns);
        transpose_back(contexts, n, c, a + module.column, columns);
    }
}

template <class T>
void Net<T>::backward_gaussian(const Module<T>& module, int t, int from, int rows, T* g,
                               Buffer<T>& sums, Scratch<T>& scratch) const {
    const int c = module.context, visible = module.visible, F = module.features;
    T* values = scratch.space((long)(2 * visible + 4 * c) * W<T> + (long)rows * F);
    T *grad_values = values + visible * W<T>, *means = grad_values + visible * W<T>;
    T *variances = means + c * W<T>, *contexts = variances + c * W<T>, *grads = contexts + c * W<T>;
    T* grad_gates = needs_weight_grads && module.gates ? &sums[module.private_gates] : nullptr;
    for (int r = 0; r < rows; r += W<T>) {
        const int n = std::min(W<T>, rows - r);
        const T* a = act(t, from + r);
        T *row = g + (long)r * columns, *grad_center = scratch.gradient(r, center);
        gather_transposed(module, scratch.center(r, center), values);
        std::fill_n(grad_values, visible * W<T>, T(0));
        transpose(a + module.mean_column(), columns, n, c, means);
        transpose(a + module.variance_column(), columns, n, c, variances, WIDE);
        transpose(a + module.column, columns, n, c, contexts);
        transpose(row + module.column, columns, n, c, grads);
        for (int j = 0; j < c; j++) {
            const Vec<T> v = load(variances + j * W<T>), grad = load(grads + j * W<T>);
            const Vec<T> weight = grad * height_of<T>(v);
            Vec<T> first[2]{}, second[2]{};  // sums of what is read times R times distance^1, ^2
            each_density<T>(load(means + j * W<T>), power_of<T>(v), module.positions, visible,
                            module.even, [&](int side, int k, Vec<T> distance, Vec<T> density) {
                                T* to = grad_values + k * W<T>;
                                store(to, fused(density, weight, load(to)));
                                const Vec<T> x = load(values + k * W<T>);
                                const Vec<T> part = density * x * distance;
                                first[side] += part;
                                second[side] = fused(part, distance, second[side]);
                            });
            const Vec<T> excess = v - T(MIN_VARIANCE), total = grad * load(contexts + j * W<T>);
            const Vec<T> slope = 1 - exp2(excess * T(-LOG2_E));  // of softplus
            const Vec<T> spread = ((second[0] + second[1]) * weight / v - total) / (v + v);
            store(means + j * W<T>, (first[0] + first[1]) * weight / v);
            store(variances + j * W<T>, spread * (excess > 20 ? splat(T(1)) : slope));
        }
        for (int k = 0; k < visible; k++) {
            const int64_t place = module.center_index[k];
            const Vec<T> grad = load(grad_values + k * W<T>);
            if (place < 0) continue;
            T* to = grad_center + place * W<T>;
            store(to, load(to) + (module.gates ? grad * module.gates[k] : grad));
            if (grad_gates)
                grad_gates[k] += sum<T>(grad * load(scratch.center(r, center) + place * W<T>));
        }
        transpose_back(means, n, c, row + module.mean_column(), columns);
        transpose_back(variances, n, c, row + module.variance_column(), columns);
    }
    T* grad_features = grads + c * W<T>;
    product<T>(rows, F, c, {g + module.mean_column(), columns, 1}, {module.weight, F},
               grad_features, F);
    product<T>(rows, F, c, {g + module.variance_column(), columns, 1}, {module.variance_weight, F},
               grad_features, F, ADD);
    for (int r = 0; r < rows; r++) {
        T* to = scratch.gradient(r, center) + module.slot * W<T> + r % W<T>;
        for (int k = 0; k < F; k++) to[k * W<T>] += grad_features[(long)r * F + k];
    }
}

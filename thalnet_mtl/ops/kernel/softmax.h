// The softmax reading, whose matrix R is computed for every row at every step, and its gradients.
//
// R is never stored: one of its rows is computed for some rows of the batch, used and overwritten.
// The backward pass computes it again. Rows are padded to whole vectors, with logits whose
// exponential is negligible.
#pragma once

#include "net.h"

// Replace the logits x of a row by exp(x - largest), and return 1 / sum |gate| exp(x - largest).
// Positions whose gate is 0 do not count; their exponentials are bounded.
template <class T>
template <bool GATED>
T Net<T>::exponentiate(const Module<T>& module, T* x) const {
    const int width = module.padded();
    Vec<T> largest = load(x), sums{};
    if constexpr (GATED) largest = splat(T(2 * CLOSED));
    for (int i = 0; i < width; i += W<T>) {
        Vec<T> logits = load(x + i);
        if constexpr (GATED) logits += load(module.closed.data() + i);
        largest = logits > largest ? logits : largest;
    }
    const Vec<T> scale = splat(T(LOG2_E)), shift = splat(T(-LOG2_E) * maximum<T>(largest));
    for (int i = 0; i < width; i += W<T>) {
        Vec<T> y = fused(load(x + i), scale, shift);
        if constexpr (GATED) y = y > splat(T(120)) ? splat(T(120)) : y;
        const Vec<T> power = exp2(y);
        store(x + i, power);
        sums += GATED ? absolute(load(module.padded_gates.data() + i)) * power : power;
    }
    return 1 / sum<T>(sums);
}

// Row j of R for some rows of the batch, each up to a factor.
template <class T>
void Net<T>::softmax(const Module<T>& module, int j, int t, int from, int rows, T* to,
                     T* factors) const {
    const int width = module.padded();
    product<T>(rows, width, module.features, {before(t, from) + module.slot, center, 1},
               module.logits[j].right(), to, width, BIAS, &module.logit_bias[(long)j * width]);
    for (int r = 0; r < rows; r++)
        factors[r] = module.gates ? exponentiate<true>(module, to + (long)r * width)
                                  : exponentiate<false>(module, to + (long)r * width);
}

// Copy the positions of the center that a module may read; absent modules read as 0.
template <class T>
void Net<T>::gather_visible(const Module<T>& module, const T* row, T* to) const {
    for (int k = 0; k < module.visible; k++)
        to[k] = module.center_index[k] < 0 ? T(0) : row[module.center_index[k]];
    for (int k = module.visible; k < module.padded(); k++) to[k] = T(0);
}

template <class T>
void Net<T>::read_softmax(const Module<T>& module, int t, int from, int rows, Scratch<T>& scratch) {
    const int width = module.padded();
    const long size = (long)rows * width;
    T *values = scratch.space(2 * size + rows), *weights = values + size, *factors = weights + size;
    for (int r = 0; r < rows; r++) {
        T* x = values + (long)r * width;
        gather_visible(module, before(t, from + r), x);
        for (int i = 0; module.gates && i < width; i += W<T>)  // gates scale a column of R
            store(x + i, load(x + i) * load(&module.padded_gates[i]));
    }
    for (int j = 0; j < module.context; j++) {
        softmax(module, j, t, from, rows, weights, factors);
        for (int r = 0; r < rows; r++) {
            const T *w = weights + (long)r * width, *x = values + (long)r * width;
            Vec<T> sums{};
            for (int i = 0; i < width; i += W<T>) sums = fused(load(w + i), load(x + i), sums);
            act(t, from + r)[module.column + j] = sum<T>(sums) * factors[r];
        }
    }
}

// From the gradient w.r.t. a context: replace exponentials of a row by the gradients w.r.t. their
// logits, and add to those w.r.t. what is read and w.r.t. the gates. `factor` is that gradient
// times the factor of the exponentials.
template <class T>
template <bool GATED>
void Net<T>::softmax_gradients(const Module<T>& module, T factor, T read, const T* values,
                               T* powers, T* grad_values, T* grad_gates) const {
    const Vec<T> f = splat(factor), all = splat(read);
    for (int i = 0; i < module.padded(); i += W<T>) {
        const Vec<T> p = load(powers + i) * f, x = load(values + i);
        if constexpr (!GATED) {
            store(grad_values + i, load(grad_values + i) + p);
            store(powers + i, p * (x - all));
        } else {
            const Vec<T> gate = load(&module.padded_gates[i]);
            store(grad_values + i, fused(p, gate, load(grad_values + i)));
            store(powers + i, p * (x * gate - absolute(gate) * all));
            if (grad_gates)
                store(grad_gates + i, fused(p, x - sign(gate) * all, load(grad_gates + i)));
        }
    }
}

template <class T>
void Net<T>::backward_softmax(const Module<T>& module, int t, int from, int rows, const T* g,
                              Buffer<T>& sums, Scratch<T>& scratch) const {
    const int visible = module.visible, width = module.padded(), F = module.features;
    const long size = (long)rows * width, dense = (long)rows * F;
    T *values = scratch.space(3 * size + dense + rows), *grad_values = values + size, *p = grad_values + size;
    T *grad_features = p + size, *factors = grad_features + dense;
    std::fill_n(grad_values, size, T(0)), std::fill_n(grad_features, dense, T(0));
    for (int r = 0; r < rows; r++)
        gather_visible(module, before(t, from + r), values + (long)r * width);
    T* grad_gates = needs_weight_grads && module.gates ? &sums[module.private_gates] : nullptr;
    const Rows phi{before(t, from) + module.slot, center, 0};
    for (int j = 0; j < module.context; j++) {
        softmax(module, j, t, from, rows, p, factors);
        for (int r = 0; r < rows; r++) {
            const long row = (long)r * width;
            const T read = act(t, from + r)[module.column + j];
            const T factor = factors[r] * g[(long)r * columns + module.column + j];
            if (module.gates)
                softmax_gradients<true>(module, factor, read, values + row, p + row,
                                        grad_values + row, grad_gates);
            else
                softmax_gradients<false>(module, factor, read, values + row, p + row,
                                         grad_values + row, nullptr);
        }
        const long at = (long)j * visible;
        product<T>(rows, F, visible, {p, width, 1}, {module.weight + at * F, F}, grad_features, F,
                   ADD);
        if (!needs_weight_grads) continue;
        product<T>(visible, F, rows, {p, 1, width}, {phi.data, phi.row},
                   &sums[module.private_weight + at * F], F, ADD);
        T* grad_bias = &sums[module.private_bias + (long)j * width];
        for (int i = 0; i < width; i += W<T>) {
            Vec<T> total = load(grad_bias + i);
            for (int r = 0; r < rows; r++) total += load(p + (long)r * width + i);
            store(grad_bias + i, total);
        }
    }
    for (int r = 0; r < rows; r++) {
        T* to = &scratch.rows[(long)r * center];
        for (int k = 0; k < F; k++) to[module.slot + k] += grad_features[(long)r * F + k];
        for (int k = 0; k < visible; k++)
            if (module.center_index[k] >= 0)
                to[module.center_index[k]] += grad_values[(long)r * width + k];
    }
}

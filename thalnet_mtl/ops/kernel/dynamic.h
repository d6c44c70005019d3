// What the dynamic readings share; each has its own file.
#pragma once

#include "gaussian.h"
#include "softmax.h"

template <class T>
void Net<T>::pack_dynamic(Module<T>& module) {
    const T* w = module.weight;
    const long F = module.features, visible = module.visible, width = module.padded();
    auto pad = [&](Buffer<T>& padded, const T* from, T fill) {
        padded.assign(width, fill);
        std::copy_n(from, visible, padded.data());
    };
    if (module.gates) pad(module.padded_gates, module.gates, T(0));
    auto fill_transposed = [F](Panels<T>& panels, int width, const T* from) {
        panels.fill(F, width, [=](int k, int n) { return from[n * F + k]; });
    };
    if (module.kind == GAUSSIAN) {
        module.even = true;
        for (long k = 1; k < visible; k++)
            module.even &= module.positions[k] == module.positions[0] + T(k);
        fill_transposed(module.mean, module.context, w);
        fill_transposed(module.spread, module.context, module.variance_weight);
        return;
    }
    if (module.gates) {
        module.closed.resize(width);
        for (long k = 0; k < width; k++)
            module.closed[k] = module.padded_gates[k] == 0 ? T(CLOSED) : T(0);
    }
    module.logits.resize(module.context);
    module.logit_bias.assign(module.context * width, T(CLOSED));
    for (int j = 0; j < module.context; j++) {
        fill_transposed(module.logits[j], visible, w + j * visible * F);
        std::copy_n(module.scale + j * visible, visible, &module.logit_bias[j * width]);
    }
}

// Prepare the dynamic readings of a step, for some rows of the batch.
template <class T>
void Net<T>::begin_reading(int t, int from, int rows, Scratch<T>& scratch) const {
    const int vectors = (rows + W<T> - 1) / W<T>;
    if (gaussian) scratch.centers.resize((long)vectors * center * W<T>);
    for (int r = 0; gaussian && r < rows; r += W<T>)
        transpose(before(t, from + r), center, std::min(W<T>, rows - r), center,
                  scratch.center(r, center));
}

template <class T>
void Net<T>::read_dynamically(const Module<T>& module, int t, int from, int rows,
                              Scratch<T>& scratch) {
    if (module.kind == SOFTMAX) read_softmax(module, t, from, rows, scratch);
    else read_gaussian(module, t, from, rows, scratch);
}

template <class T>
void Net<T>::begin_backward_reading(int t, int from, int rows, Scratch<T>& scratch) const {
    begin_reading(t, from, rows, scratch);
    scratch.gradients.assign(scratch.centers.size(), T(0));
    if (softmax_modules) scratch.rows.assign((long)rows * center, T(0));
}

template <class T>
void Net<T>::backward_dynamic(const Module<T>& module, int t, int from, int rows, T* g,
                              Buffer<T>& sums, Scratch<T>& scratch) const {
    if (module.kind == SOFTMAX) backward_softmax(module, t, from, rows, g, sums, scratch);
    else backward_gaussian(module, t, from, rows, g, sums, scratch);
}

// Add the gradients w.r.t. the center that come from dynamic readings.
template <class T>
void Net<T>::end_backward_reading(int rows, Scratch<T>& scratch, T* dc) const {
    for (long i = 0; softmax_modules && i < (long)rows * center; i++) dc[i] += scratch.rows[i];
    for (int r = 0; gaussian && r < rows; r += W<T>)
        transpose_back<true>(scratch.gradient(r, center), std::min(W<T>, rows - r), center,
                             dc + (long)r * center, center);
}

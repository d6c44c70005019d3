// The last part of the backward pass: gradients of the parameters from the sums of all threads.
#pragma once

#include "net.h"

template <class T>
void Net<T>::finish(Module<T>& module, T* sums) {
    const T* total = sums + sum_count - columns;
    for (auto& layer : module.layers) {
        const int H = layer.out;
        const long all = layer.in + layer.inputs;
        T* w = sums + layer.private_w;
        if (layer.composed) {  // d(W R) R^T
            const T* grad = sums + (long)module.column * center;
            Buffer<T> transposed((long)center * module.context);
            for (int j = 0; j < module.context; j++)
                for (int k = 0; k < center; k++)
                    transposed[(long)k * module.context + j] = module.matrix[(long)j * center + k];
            product<T>(H, module.context, center, {grad, center, 1},
                       {transposed.data(), module.context}, w, all);
        }
        if (layer.dw) std::copy_n(w, layer.gates() * all, layer.dw);
        if (layer.du) std::copy_n(sums + layer.private_u, 3L * H * H, layer.du);
        const T* sum = total + layer.column;
        if (!layer.gru && layer.db) std::copy_n(sum, H, layer.db);
        if (layer.gru && layer.db) {
            std::copy_n(sum + H, 2 * H, layer.db);
            std::copy_n(sum, H, layer.db + 2 * H);
        }
        if (layer.gru && layer.dd) std::copy_n(sum + H, 3 * H, layer.dd);
    }
    if (!module.dynamic()) return finish_reading(module, sums);
    const long c = module.context, size = c * module.visible, dense = c * module.features;
    const T *weight = sums + module.private_weight, *bias = sums + module.private_bias;
    auto copy = [](const T* from, long count, T* to) {
        if (to) std::copy_n(from, count, to);
    };
    const bool softmax = module.kind == SOFTMAX;
    copy(weight, softmax ? size * module.features : dense, module.dweight);
    if (!softmax) copy(total + module.mean_column(), c, module.dscale);
    for (int j = 0; softmax && module.dscale && j < c; j++)
        std::copy_n(bias + j * module.padded(), module.visible,
                    module.dscale + (long)j * module.visible);
    copy(weight + dense, dense, module.dvariance_weight);
    copy(total + module.variance_column(), c, module.dvariance_bias);
    copy(sums + module.private_gates, module.visible, module.dgates);
}

template <class T>
void Net<T>::finish_reading(Module<T>& module, const T* sums) {
    const T* grad = sums + (long)module.column * center;
    Buffer<T> composed;
    if (module.composed) {  // W^T d(W R)
        const Layer<T>& layer = module.layers[0];
        composed.resize((long)module.context * center);
        product<T>(module.context, center, layer.out, {layer.w, 1, layer.in + layer.inputs},
                   {grad, center}, composed.data(), center);
        grad = composed.data();
    }
    const int visible = module.visible;
    auto at = [&](int j, int k) {
        return module.center_index[k] < 0 ? T(0) : grad[(long)j * center + module.center_index[k]];
    };
    // R = s W / |W|: dW = s/|W| (dR - (dR . W) W / |W|^2), ds = dR . W / |W|
    for (int j = 0; j < module.context;) {
        const int to = module.kind == NORM ? module.context : j + 1;
        double inner = 0, square = 0;
        if (module.kind != LINEAR)
            for (int i = j; i < to; i++)
                for (int k = 0; k < visible; k++) {
                    const double w = module.weight[(long)i * visible + k];
                    inner += w * at(i, k), square += w * w;
                }
        const double norm = std::sqrt(square);
        const T s = module.kind == LINEAR ? T(1) : T(module.scale[module.kind == NORM ? 0 : j]);
        const T f = module.kind == LINEAR ? T(1) : T(s / norm);
        const T along = module.kind == LINEAR ? T(0) : T(s * inner / (norm * square));
        if (module.dweight)
            for (int i = j; i < to; i++)
                for (int k = 0; k < visible; k++)
                    module.dweight[(long)i * visible + k] =
                        f * at(i, k) - along * module.weight[(long)i * visible + k];
        if (module.dscale && module.kind != LINEAR)
            module.dscale[module.kind == NORM ? 0 : j] = T(inner / norm);
        j = to;
    }
}

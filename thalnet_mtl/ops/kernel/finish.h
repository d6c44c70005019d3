// From the sums of all threads to the gradients of the parameters.
#pragma once

#include "net.h"

// From the sums of all threads to the gradients of the parameters.
template <class T>
void Net<T>::finish(Module<T>& module, T* sums) {
    const T* total = sums + kept - columns;
    for (auto& layer : module.layers) {
        const int H = layer.out;
        const long all = layer.in + layer.inputs;
        T* w = sums + layer.private_w;
        if (layer.composed) {  // d(W R) R^T
            const T* by = sums + (long)module.at * center;
            Buffer<T> turned((long)center * module.context);
            for (int j = 0; j < module.context; j++)
                for (int k = 0; k < center; k++)
                    turned[(long)k * module.context + j] = module.matrix[(long)j * center + k];
            product<T>(H, module.context, center, {by, center, 1},
                       {turned.data(), module.context}, w, all);
        }
        if (layer.dw) std::copy_n(w, layer.gates() * all, layer.dw);
        if (layer.du) std::copy_n(sums + layer.private_u, 3L * H * H, layer.du);
        const T* sum = total + layer.at;
        if (!layer.gru && layer.db) std::copy_n(sum, H, layer.db);
        if (layer.gru && layer.db) {
            std::copy_n(sum + H, 2 * H, layer.db);
            std::copy_n(sum, H, layer.db + 2 * H);
        }
        if (layer.gru && layer.dd) std::copy_n(sum + H, 3 * H, layer.dd);
    }
    if (!module.dynamic()) return finish_reading(module, sums);
    const long c = module.context, size = c * module.own, dense = c * module.features;
    const T *weight = sums + module.private_weight, *bias = sums + module.private_bias;
    auto give = [](const T* from, long count, T* to) {
        if (to) std::copy_n(from, count, to);
    };
    const bool softmax = module.kind == SOFTMAX;
    give(weight, softmax ? size * module.features : dense, module.dweight);
    give(softmax ? bias : total + module.mean_at(), softmax ? size : c, module.dscale);
    give(weight + dense, dense, module.dmore);
    give(total + module.variance_at(), c, module.dmost);
    give(sums + module.private_gates, module.own, module.dgates);
}

template <class T>
void Net<T>::finish_reading(Module<T>& module, const T* sums) {
    const T* by = sums + (long)module.at * center;
    Buffer<T> composed;
    if (module.composed) {  // W^T d(W R)
        const Layer<T>& layer = module.layers[0];
        composed.resize((long)module.context * center);
        product<T>(module.context, center, layer.out, {layer.w, 1, layer.in + layer.inputs},
                   {by, center}, composed.data(), center);
        by = composed.data();
    }
    const int own = module.own;
    auto at = [&](int j, int k) {
        return module.places[k] < 0 ? T(0) : by[(long)j * center + module.places[k]];
    };
    // R = s W / |W|: dW = s/|W| (dR - (dR . W) W / |W|^2), ds = dR . W / |W|
    for (int j = 0; j < module.context;) {
        const int to = module.kind == NORM ? module.context : j + 1;
        double along = 0, square = 0;
        if (module.kind != LINEAR)
            for (int i = j; i < to; i++)
                for (int k = 0; k < own; k++) {
                    const double w = module.weight[(long)i * own + k];
                    along += w * at(i, k), square += w * w;
                }
        const double norm = std::sqrt(square);
        const T s = module.kind == LINEAR ? T(1) : T(module.scale[module.kind == NORM ? 0 : j]);
        const T f = module.kind == LINEAR ? T(1) : T(s / norm);
        const T back = module.kind == LINEAR ? T(0) : T(s * along / (norm * square));
        if (module.dweight)
            for (int i = j; i < to; i++)
                for (int k = 0; k < own; k++)
                    module.dweight[(long)i * own + k] =
                        f * at(i, k) - back * module.weight[(long)i * own + k];
        if (module.dscale && module.kind != LINEAR)
            module.dscale[module.kind == NORM ? 0 : j] = T(along / norm);
        j = to;
    }
}

// Work that is done once a sequence: normalize readings, compose them, pack weights as panels.
#pragma once

#include "net.h"

template <class T>
void Net<T>::begin() {
    rows.assign((long)read * center, T(0));
    read_bias.assign(read, T(0));
    if (order.empty()) return;
    center_rows.resize((long)batch * center), memory_rows.resize((long)batch * memory);
    for (int r = 0; r < batch; r++) {
        std::copy_n(center0 + place(r) * center, center, &center_rows[(long)r * center]);
        std::copy_n(memory0 + place(r) * memory, memory, memory_rows.data() + (long)r * memory);
    }
    center0 = center_rows.data(), memory0 = memory_rows.data();
}

// Copy the real steps of a task input, the longest rows first.
template <class T>
void Net<T>::sort_input(Module<T>& module, bool backward) {
    const long row = (long)time * module.inputs;
    if (order.empty() || !module.x) return;
    module.x_rows.resize(batch * row);
    for (int r = 0; r < batch; r++)
        std::copy_n(module.x + place(r) * row, (long)length(r) * module.inputs,
                    module.x_rows.data() + r * row);
    module.x = module.x_rows.data();
    if (backward && module.dx) module.dx_rows.resize(batch * row);
}

template <class T>
void Net<T>::prepare(Module<T>& module, bool backward) {
    sort_input(module, backward);
    if (module.dynamic()) pack_dynamic(module);
    else read_weights(module);
    for (auto& layer : module.layers) pack(layer, backward);
    if (module.composed)
        std::copy_n(module.layers[0].b, module.layers[0].out, &read_bias[module.column]);
}

// Pack the readings of all modules; called after all of them are prepared.
template <class T>
void Net<T>::read_panels(bool backward) {
    const T* r = rows.data();
    const long c = center;
    if (backward) reading_t.fill(read, center, [=](int k, int n) { return r[k * c + n]; });
    else reading.fill(center, read, [=](int k, int n) { return r[n * c + k]; });
}

template <class T>
T Net<T>::factor(const Module<T>& module, int row) const {  // scale / norm of a row
    if (module.kind == LINEAR) return T(1);
    const bool one_norm = module.kind == NORM;
    const T* from = module.weight + (one_norm ? 0 : (long)row * module.visible);
    double sum = 0;
    for (long i = 0; i < (one_norm ? module.context : 1L) * module.visible; i++)
        sum += (double)from[i] * from[i];
    return T(module.scale[one_norm ? 0 : row] / std::sqrt(sum));
}

template <class T>
void Net<T>::read_weights(Module<T>& module) {
    module.matrix.assign((long)module.context * center, T(0));
    T f = 0;
    for (int j = 0; j < module.context; j++) {
        if (j == 0 || module.kind == NORM_ROWS) f = factor(module, j);
        for (int k = 0; k < module.visible; k++)
            if (module.center_index[k] >= 0)
                module.matrix[(long)j * center + module.center_index[k]] =
                    module.weight[(long)j * module.visible + k] * f;
    }
    T* to = &rows[(long)module.column * center];
    if (!module.composed) {
        std::copy(module.matrix.begin(), module.matrix.end(), to);
        return;
    }
    const Layer<T>& layer = module.layers[0];
    product<T>(layer.out, center, module.context, {layer.w, layer.in + layer.inputs, 1},
               {module.matrix.data(), center}, to, center);
}

template <class T>
void Net<T>::pack(Layer<T>& layer, bool backward) {
    const T *w = layer.w, *u = layer.u;
    const int all = layer.in + layer.inputs, in = layer.in, out = layer.out;
    const int gates = layer.gates();
    if (backward) {
        auto row = [&](int k) { return (long)layer.torch_row(k) * all; };
        if (!layer.composed)
            layer.weight_t.fill(gates, in, [&](int k, int n) { return w[row(k) + n]; });
        layer.task_t.fill(gates, layer.inputs,
                          [&](int k, int n) { return w[row(k) + in + n]; });
        if (layer.gru)
            layer.state_t.fill(gates, out, [&](int k, int n) { return u[(long)k * out + n]; });
        return;
    }
    auto row = [&](int n) { return (long)layer.torch_row(n) * all; };
    if (!layer.composed)
        layer.weight.fill(in, gates, [&](int k, int n) { return w[row(n) + k]; });
    layer.task.fill(layer.inputs, gates, [&](int k, int n) { return w[row(n) + in + k]; });
    if (!layer.gru) {
        layer.bias.assign(layer.b, layer.b + out);
        return;
    }
    layer.state.fill(out, gates, [&](int k, int n) { return u[(long)n * out + k]; });
    layer.bias.resize(4 * out);
    for (int j = 0; j < out; j++) {
        layer.bias[j] = layer.b[2 * out + j];
        layer.bias[out + j] = layer.b[j] + layer.d[j];
        layer.bias[2 * out + j] = layer.b[out + j] + layer.d[out + j];
        layer.bias[3 * out + j] = layer.d[2 * out + j];
    }
}

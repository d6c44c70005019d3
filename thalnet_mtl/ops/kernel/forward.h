// The forward pass of some rows of the batch through all steps.
#pragma once

#include "net.h"

template <class T>
void Net<T>::forward(int from, int to) {
    Scratch<T> scratch;
    for (int t = 0; t < time; t++) {
        const int end = running(t, from, to);
        T* a = act(t, from);
        product<T>(end - from, read, center, {before(t, from), center, 1}, reading.right(), a,
                   columns, BIAS, read_bias.data());
        begin_reading(t, from, end - from, scratch);
        for (auto& module : modules) {
            if (module.dynamic()) read_dynamically(module, t, from, end - from, scratch);
            for (int l = 0; l < (int)module.layers.size(); l++)
                if (module.layers[l].gru) gru(module, l, t, from, end);
                else dense(module, l, t, from, end);
        }
        write_outputs(t, from, end);
        if (lengths || t == time - 1) end_rows(t, from, end);
    }
}

template <class T>
void Net<T>::write_outputs(int t, int from, int to) {
    for (int r = from; r < to; r++) {
        const T* now = before(t + 1, r);
        T* y = ys + (place(r) * time + t) * outputs_width;
        for (const int64_t* slot = outputs; slot < outputs_end; y += slot[1], slot += 2)
            std::copy_n(now + slot[0], slot[1], y);
    }
}

// Store the state of rows that end with step t, and outputs of zero past the end.
template <class T>
void Net<T>::end_rows(int t, int from, int to) {
    for (int r = from; r < to; r++) {
        if (t != length(r) - 1) continue;
        std::fill_n(ys + (place(r) * time + t + 1) * outputs_width, (time - t - 1) * outputs_width,
                    T(0));
        std::copy_n(before(t + 1, r), center, center_end + place(r) * center);
        for (auto& module : modules)
            for (auto& layer : module.layers)
                if (layer.gru)
                    std::copy_n(output_of(module, layer, t, r).data, layer.out,
                                memory_end + place(r) * memory + layer.memory_column);
    }
}

template <class T>
void Net<T>::dense(const Module<T>& module, int l, int t, int from, int to) {
    const Layer<T>& layer = module.layers[l];
    T* a = act(t, from) + layer.column;
    if (!layer.composed) {
        const Rows x = input_of(module, l, t, from);
        product<T>(to - from, layer.out, layer.in, {x.data, x.row, 1}, layer.weight.right(), a,
                   columns, BIAS, layer.bias.data());
    }
    if (layer.inputs)
        product<T>(to - from, layer.out, layer.inputs, task(module, t, from),
                   layer.task.right(), a, columns, ADD);
    const Rows y = output_of(module, layer, t, from);
    for (int r = 0; r < to - from; r++, a += columns) {
        T* out = const_cast<T*>(y.data) + r * y.row;
        each<T>(layer.out, [&](int i, int n) {
            put(out + i, tanh(get(a + i, n)), n);
            prefetch_to_write(a + i + (long)batch * columns), prefetch_to_write(out + i + y.step);
        });
    }
}

template <class T>
void Net<T>::gru(const Module<T>& module, int l, int t, int from, int to) {
    const Layer<T>& layer = module.layers[l];
    const int rows = to - from, H = layer.out;
    T* a = act(t, from) + layer.column;
    for (int r = 0; r < rows; r++) std::copy_n(layer.bias.data(), 4 * H, a + (long)r * columns);
    const Rows x = input_of(module, l, t, from), h = state_of(module, layer, t, from);
    product<T>(rows, 3 * H, layer.in, {x.data, x.row, 1}, layer.weight.right(), a, columns,
               ADD);
    if (layer.inputs)
        product<T>(rows, 3 * H, layer.inputs, task(module, t, from), layer.task.right(), a,
                   columns, ADD);
    product<T>(rows, 3 * H, H, {h.data, h.row, 1}, layer.state.right(), a + H, columns, ADD);
    const Rows y = output_of(module, layer, t, from);
    for (int r = 0; r < rows; r++, a += columns) {
        const T* old = h.data + r * h.row;
        T* out = const_cast<T*>(y.data) + r * y.row;
        each<T>(H, [&](int i, int n) {
            const Vec<T> reset = sigmoid(get(a + H + i, n));
            const Vec<T> update = sigmoid(get(a + 2 * H + i, n));
            const Vec<T> candidate = tanh(get(a + i, n) + reset * get(a + 3 * H + i, n));
            put(a + i, candidate, n), put(a + H + i, reset, n), put(a + 2 * H + i, update, n);
            for (int k = 0; k < 4; k++) prefetch_to_write(a + k * H + i + (long)batch * columns);
            put(out + i, candidate + update * (get(old + i, n) - candidate), n);
        });
    }
}

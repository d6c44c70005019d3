// The backward pass of some rows of the batch through all steps.
#pragma once

#include "net.h"

template <class T>
void Net<T>::backward(int from, int to, Buffer<T>& sums) const {
    const int rows = to - from, steps = std::clamp(GRADIENT_ROWS / std::max(1, rows), 1, time);
    const long jump = (long)rows * columns;  // from step to step in the gradients
    Buffer<T> g(steps * jump), dc((long)rows * center);
    Buffer<T> dm((long)rows * memory);
    int widest = 1;
    for (auto& module : modules)
        for (auto& layer : module.layers) widest = std::max({widest, layer.in, layer.out});
    Buffer<T> d((long)rows * widest), up((long)rows * widest);
    Scratch<T> scratch;
    auto running_rows = [&](int t) { return running(t, from, to) - from; };
    for (int end = rows ? length(from) : time; end > 0;) {
        const int begin = std::max(0, end - steps);
        for (int t = end - 1; t >= begin; t--) {
            T* gt = g.data() + (t - begin) * jump;
            const int n = running_rows(t);
            for (int r = 0; r < n; r++) {
                const long row = place(from + r);
                const bool ends = length(from + r) == t + 1;
                if (ends && grad_center)
                    std::copy_n(grad_center + row * center, center, &dc[(long)r * center]);
                if (ends && dlast)
                    std::copy_n(dlast + row * memory, memory, &dm[(long)r * memory]);
                if (!grad_outputs) continue;
                const T* grad = grad_outputs + t * grad_step + row * grad_row;
                for (const int64_t* slot = outputs; slot < outputs_end; slot += 2) {
                    T* sum = &dc[(long)r * center + slot[0]];
                    each<T>(slot[1], [&](int i, int n) {
                        put(sum + i, get(sum + i, n) + get(grad + i, n), n);
                    });
                    grad += slot[1];
                }
            }
            begin_backward_reading(t, from, n, scratch);
            for (auto& module : modules) {
                backward_module(module, t, from, n, gt, dc, dm, d, up);
                if (module.dynamic())
                    backward_dynamic(module, t, from, n, gt, sums, scratch);
            }
            product<T>(n, center, read, {gt, columns, 1}, reading_t.right(), dc.data(),
                       center);
            end_backward_reading(n, scratch, dc.data());
        }
        // Steps of the same rows together, but step 0 reads the initial center, stored elsewhere.
        for (int stop = end; needs_weight_grads && stop > begin;) {
            const int n = running_rows(stop - 1);
            int t = stop - 1;
            while (t > std::max(1, begin) && running_rows(t - 1) == n) t--;
            add_weight_gradients(t, stop, from, n, &g[(t - begin) * jump], jump, sums.data());
            stop = t;
        }
        end = begin;
    }
    for (int r = 0; r < rows; r++) {
        const long row = place(from + r);
        if (dcenter0) std::copy_n(dc.data() + (long)r * center, center, dcenter0 + row * center);
        if (dmemory0) std::copy_n(dm.data() + (long)r * memory, memory, dmemory0 + row * memory);
    }
}

// Write the gradients w.r.t. task inputs to the rows of the caller's batch.
template <class T>
void Net<T>::return_inputs() {
    for (auto& module : modules) {
        const long row = (long)time * module.inputs;
        for (int r = 0; !module.dx_rows.empty() && r < batch; r++)
            std::copy_n(&module.dx_rows[r * row], (long)length(r) * module.inputs,
                        module.dx + place(r) * row);
    }
}

template <class T>
void Net<T>::backward_module(const Module<T>& module, int t, int from, int rows, T* g,
                             const Buffer<T>& dc, Buffer<T>& dm, Buffer<T>& d,
                             Buffer<T>& up) const {
    const T* dy = dc.data() + module.slot;  // w.r.t. the output of a layer
    long dy_row = center;
    for (int l = (int)module.layers.size() - 1; l >= 0; l--) {
        const Layer<T>& layer = module.layers[l];
        T* gl = g + layer.column;
        if (layer.gru) backward_gru(module, layer, t, from, rows, gl, dy, dy_row, dm);
        else {
            const Rows y = output_of(module, layer, t, from);
            for (int r = 0; r < rows; r++) {
                const T *out = y.data + r * y.row, *grad = dy + r * dy_row;
                T* to = gl + (long)r * columns;
                each<T>(layer.out, [&](int i, int n) {
                    const Vec<T> v = get(out + i, n);
                    put(to + i, get(grad + i, n) * (1 - v * v), n);
                    prefetch(out + i - y.step);
                });
            }
        }
        if (layer.inputs && module.dx) {
            T* dx = module.dx_rows.empty() ? module.dx : const_cast<T*>(module.dx_rows.data());
            dx += ((long)from * time + t) * module.inputs;
            product<T>(rows, layer.inputs, layer.gates(), {gl, columns, 1},
                       layer.task_t.right(), dx, (long)time * module.inputs);
        }
        if (layer.composed) continue;
        T* to = l ? up.data() : g + module.column;
        const long ld = l ? layer.in : columns;
        product<T>(rows, layer.in, layer.gates(), {gl, columns, 1}, layer.weight_t.right(), to,
                   ld);
        std::swap(d, up);
        dy = d.data(), dy_row = layer.in;
    }
}

template <class T>
void Net<T>::backward_gru(const Module<T>& module, const Layer<T>& layer, int t, int from, int rows,
                          T* g, const T* dy, long dy_row, Buffer<T>& dm) const {
    const int H = layer.out;
    const Rows h = state_of(module, layer, t, from);
    T* dh = dm.data() + layer.memory_column;
    for (int r = 0; r < rows; r++) {
        const T *a = act(t, from + r) + layer.column, *old = h.data + r * h.row;
        const T* grad = dy + r * dy_row;
        T *to = g + (long)r * columns, *grad_carried = dh + (long)r * memory;
        each<T>(H, [&](int i, int n) {
            const Vec<T> candidate = get(a + i, n), reset = get(a + H + i, n);
            const Vec<T> update = get(a + 2 * H + i, n), inner = get(a + 3 * H + i, n);
            const Vec<T> grad_state = get(grad + i, n) + get(grad_carried + i, n);
            const Vec<T> grad_candidate = grad_state * (1 - update) * (1 - candidate * candidate);
            put(to + i, grad_candidate, n);
            put(to + H + i, grad_candidate * inner * reset * (1 - reset), n);
            put(to + 2 * H + i,
                grad_state * (get(old + i, n) - candidate) * update * (1 - update), n);
            put(to + 3 * H + i, grad_candidate * reset, n);
            put(grad_carried + i, grad_state * update, n);
            for (int k = 0; k < 4; k++) prefetch(a + k * H + i - (long)batch * columns);
        });
    }
    product<T>(rows, H, 3 * H, {g + H, columns, 1}, layer.state_t.right(), dh, memory, ADD);
}

// Add the gradients w.r.t. weights of steps begin .. end: sums over rows and steps of the gradient
// w.r.t. a pre-activation times the input of that layer.
template <class T>
void Net<T>::add_weight_gradients(int begin, int end, int from, int rows, const T* g, long jump,
                                  T* sums) const {
    const int steps = end - begin;
    auto add = [&](int out, int in, int column, Rows x, T* to, long ld) {
        product<T>(out, in, rows, {g + column, 1, columns, steps, jump},
                   {x.data, x.row, false, x.step}, to, ld, ADD);
    };
    add(read, center, 0, {before(begin, from), center, (long)batch * center}, sums, center);
    for (auto& module : modules) {
        if (module.kind == GAUSSIAN) {
            const int c = module.context, F = module.features;
            const Rows phi{before(begin, from) + module.slot, center, (long)batch * center};
            T* to = sums + module.private_weight;
            add(c, F, module.mean_column(), phi, to, F);
            add(c, F, module.variance_column(), phi, to + (long)c * F, F);
        }
        for (int l = 0; l < (int)module.layers.size(); l++) {
            const Layer<T>& layer = module.layers[l];
            const int H = layer.out, all = layer.in + layer.inputs;
            T* to = sums + layer.private_w;
            auto add_input_weight = [&](Rows x, int in, T* out) {
                if (!layer.gru) return add(H, in, layer.column, x, out, all);
                add(2 * H, in, layer.column + H, x, out, all);
                add(H, in, layer.column, x, out + 2L * H * all, all);
            };
            if (!layer.composed) add_input_weight(input_of(module, l, begin, from), layer.in, to);
            if (layer.inputs) {
                const Left<T> x = task(module, begin, from);
                add_input_weight({x.data, x.row, module.inputs}, layer.inputs, to + layer.in);
            }
            if (layer.gru)
                add(3 * H, H, layer.column + H, state_of(module, layer, begin, from),
                    sums + layer.private_u, H);
        }
    }
    T* total = sums + sum_count - columns;
    for (int t = 0; t < steps; t++)
        for (int r = 0; r < rows; r++)
            each<T>(columns, [&](int i, int n) {
                const T* row = g + t * jump + (long)r * columns;
                put(total + i, get(total + i, n) + get(row + i, n), n);
            });
}

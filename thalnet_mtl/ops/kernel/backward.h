// Some rows back through all steps.
#pragma once

#include "net.h"

template <class T>
void Net<T>::backward(int from, int to, Buffer<T>& sums) const {
    const int rows = to - from, steps = std::clamp(FLUSH / std::max(1, rows), 1, time);
    Buffer<T> g((long)steps * rows * columns), dc((long)rows * center);
    Buffer<T> dm((long)rows * memory), carry;
    int widest = 1;
    for (auto& module : modules)
        for (auto& layer : module.layers) widest = std::max({widest, layer.in, layer.out});
    Buffer<T> d((long)rows * widest), up((long)rows * widest), more;
    if (by_center) std::copy_n(by_center + (long)from * center, (long)rows * center, dc.data());
    for (int r = 0; r < rows; r++)
        if (dlast) std::copy_n(dlast + (long)(from + r) * memory, memory, &dm[(long)r * memory]);
    for (int end = time; end > 0;) {
        const int begin = std::max(0, end - steps);
        for (int t = end - 1; t >= begin; t--) {
            T* gt = g.data() + (long)(t - begin) * rows * columns;
            for (int r = 0; r < rows && by_outputs; r++) {
                const T* more = by_outputs + t * by_step + (from + r) * by_row;
                for (const int64_t* slot = outputs; slot < outputs_end; slot += 2) {
                    T* sum = &dc[(long)r * center + slot[0]];
                    each<T>(slot[1], [&](int i, int n) {
                        put(sum + i, get(sum + i, n) + get(more + i, n), n);
                    });
                    more += slot[1];
                }
            }
            if (dynamic) more.assign((long)rows * center, T(0));
            for (auto& module : modules) {
                back(module, t, from, rows, gt, dc, dm, d, up);
                if (module.dynamic()) back_dynamic(module, t, from, rows, gt, more, sums);
            }
            product<T>(rows, center, read, {gt, columns, 1}, reading_t.right(), dc.data(),
                       center);
            for (long i = 0; i < (long)more.size(); i++) dc[i] += more[i];
        }
        if (learns) {
            if (begin == 0 && end > 1) {  // step 0 sees what was given, not what was computed
                flush(1, end, from, rows, g.data() + (long)rows * columns, sums.data());
                flush(0, 1, from, rows, g.data(), sums.data());
            } else flush(begin, end, from, rows, g.data(), sums.data());
        }
        end = begin;
    }
    if (dcenter0) std::copy(dc.begin(), dc.end(), dcenter0 + (long)from * center);
    if (dmemory0) std::copy(dm.begin(), dm.end(), dmemory0 + (long)from * memory);
}

template <class T>
void Net<T>::back(const Module<T>& module, int t, int from, int rows, T* g, const Buffer<T>& dc,
          Buffer<T>& dm, Buffer<T>& d, Buffer<T>& up) const {
    const T* dy = dc.data() + module.slot;  // by the output of a layer
    long dy_row = center;
    for (int l = (int)module.layers.size() - 1; l >= 0; l--) {
        const Layer<T>& layer = module.layers[l];
        T* gl = g + layer.at;
        if (layer.gru) gates(module, layer, t, from, rows, gl, dy, dy_row, dm);
        else {
            const Rows y = output_of(module, layer, t, from);
            for (int r = 0; r < rows; r++) {
                const T *out = y.data + r * y.row, *by = dy + r * dy_row;
                T* to = gl + (long)r * columns;
                each<T>(layer.out, [&](int i, int n) {
                    const Vec<T> v = get(out + i, n);
                    put(to + i, get(by + i, n) * (1 - v * v), n);
                });
            }
        }
        if (layer.inputs && module.dx) {
            T* dx = module.dx + ((long)from * time + t) * module.inputs;
            product<T>(rows, layer.inputs, layer.gates(), {gl, columns, 1},
                       layer.task_t.right(), dx, (long)time * module.inputs);
        }
        if (layer.composed) continue;
        T* to = l ? up.data() : g + module.at;
        const long ld = l ? layer.in : columns;
        product<T>(rows, layer.in, layer.gates(), {gl, columns, 1}, layer.weight_t.right(), to,
                   ld);
        std::swap(d, up);
        dy = d.data(), dy_row = layer.in;
    }
}

template <class T>
void Net<T>::gates(const Module<T>& module, const Layer<T>& layer, int t, int from, int rows, T* g,
           const T* dy, long dy_row, Buffer<T>& dm) const {
    const int H = layer.out;
    const Rows h = state_of(module, layer, t, from);
    T* dh = dm.data() + layer.keep;
    for (int r = 0; r < rows; r++) {
        const T *a = act(t, from + r) + layer.at, *old = h.data + r * h.row;
        const T* by = dy + r * dy_row;
        T *to = g + (long)r * columns, *kept_by = dh + (long)r * memory;
        each<T>(H, [&](int i, int n) {
            const Vec<T> fresh = get(a + i, n), reset = get(a + H + i, n);
            const Vec<T> update = get(a + 2 * H + i, n), inner = get(a + 3 * H + i, n);
            const Vec<T> by_state = get(by + i, n) + get(kept_by + i, n);
            const Vec<T> by_fresh = by_state * (1 - update) * (1 - fresh * fresh);
            put(to + i, by_fresh, n);
            put(to + H + i, by_fresh * inner * reset * (1 - reset), n);
            put(to + 2 * H + i,
                by_state * (get(old + i, n) - fresh) * update * (1 - update), n);
            put(to + 3 * H + i, by_fresh * reset, n);
            put(kept_by + i, by_state * update, n);
        });
    }
    product<T>(rows, H, 3 * H, {g + H, columns, 1}, layer.state_t.right(), dh, memory, ADD);
}

// Gradients by weights, of steps begin .. end: sums over rows and steps of g times what it met.
template <class T>
void Net<T>::flush(int begin, int end, int from, int rows, const T* g, T* sums) const {
    const int steps = end - begin;
    auto add = [&](int out, int in, int column, Rows x, T* to, long ld) {
        const long jump = (long)rows * columns;
        product<T>(out, in, rows, {g + column, 1, columns, steps, jump},
                   {x.data, x.row, false, x.step}, to, ld, ADD);
    };
    add(read, center, 0, {before(begin, from), center, (long)batch * center}, sums, center);
    for (auto& module : modules) {
        if (module.kind == GAUSSIAN) {
            const int c = module.context, F = module.features;
            const Rows phi{before(begin, from) + module.slot, center, (long)batch * center};
            T* to = sums + module.private_weight;
            add(c, F, module.mean_at(), phi, to, F);
            add(c, F, module.variance_at(), phi, to + (long)c * F, F);
        }
        for (int l = 0; l < (int)module.layers.size(); l++) {
            const Layer<T>& layer = module.layers[l];
            const int H = layer.out, all = layer.in + layer.inputs;
            T* to = sums + layer.private_w;
            auto by_input = [&](Rows x, int in, T* out) {
                if (!layer.gru) return add(H, in, layer.at, x, out, all);
                add(2 * H, in, layer.at + H, x, out, all);
                add(H, in, layer.at, x, out + 2L * H * all, all);
            };
            if (!layer.composed) by_input(input_of(module, l, begin, from), layer.in, to);
            if (layer.inputs) {
                const Left<T> x = task(module, begin, from);
                by_input({x.data, x.row, module.inputs}, layer.inputs, to + layer.in);
            }
            if (layer.gru)
                add(3 * H, H, layer.at + H, state_of(module, layer, begin, from),
                    sums + layer.private_u, H);
        }
    }
    T* total = sums + kept - columns;
    for (long r = 0; r < (long)steps * rows; r++)
        each<T>(columns, [&](int i, int n) {
            put(total + i, get(total + i, n) + get(g + r * columns + i, n), n);
        });
}

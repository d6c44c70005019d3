// A net in memory: what the caller gave, where everything lies, who needs what.
#pragma once

#include "products.h"

constexpr int FLUSH = 128;  // rows of gradients that are kept before they are multiplied
constexpr int BLOCK = 48;   // rows that go through all steps together
constexpr int LEAST = 8;    // rows for which a thread is worth its while
constexpr double LEAST_VARIANCE = 1e-3;  // as in readings.py

enum Reading { LINEAR, NORM, NORM_ROWS, SOFTMAX, GAUSSIAN };

template <class T>
struct Layer {
    bool gru;
    int in, inputs, out, at, keep;  // at: column of the activations; keep: of the memory
    bool first, last, composed;
    const T *w, *u, *b, *d;  // (gates, in + inputs), (gates, out), biases; as in torch
    T *dw, *du, *db, *dd;
    long private_w, private_u;  // where a thread sums their gradients
    Buffer<T> bias;
    Panels<T> weight, state, task, weight_t, state_t, task_t;

    int gates() const { return gru ? 3 * out : out; }
    int state_at() const { return at + 4 * out; }  // of a GRU that is not the last layer
    int natural(int gate) const {  // row of the weights for the input, of a column [n | r | z]
        return !gru ? gate : gate < out ? gate + 2 * out : gate - out;
    }
};

template <class T>
struct Module {
    int slot, features, context, inputs, own, at;
    bool composed;
    Reading kind;
    const int64_t* places;  // of the columns of the reading in the center, -1 for absent ones
    const T *x, *weight, *scale, *more, *most, *gates, *positions;
    T *dx, *dweight, *dscale, *dmore, *dmost, *dgates;
    std::vector<Layer<T>> layers;
    Buffer<T> matrix;  // R over the center, of a static reading
    std::vector<Panels<T>> logits;  // of a softmax, for each of its rows
    Panels<T> mean, spread;         // of a Gaussian
    long private_weight, private_bias, private_gates;  // where a thread sums their gradients

    bool dynamic() const { return kind >= SOFTMAX; }
    T gate(int k) const { return gates ? gates[k] : T(1); }
    int mean_at() const { return at + context; }  // columns of a Gaussian, behind what it reads
    int variance_at() const { return at + 2 * context; }
    int width() const { return composed ? layers[0].out : context; }  // of what is read
};

struct Cursor {
    const int64_t* numbers;
    void* const* pointers;
    void* const* gradients;
    int64_t number() { return *numbers++; }
};

template <class T>
struct Net {
    int replica, time, batch, center, memory, saved;
    int read = 0, columns = 0;  // columns of the static readings; of all activations
    long by_row, by_step;       // between gradients by outputs
    long kept = 0;              // numbers that a thread sums: gradients by weights
    bool learns = false, dynamic = false;
    const T *center0, *memory0;
    T *centers, *last, *acts;
    const int64_t *outputs, *outputs_end;  // slots that were returned: from, width
    const T *by_outputs, *by_center, *dlast;
    T *dcenter0, *dmemory0;
    std::vector<Module<T>> modules;
    Buffer<T> rows, read_bias;  // (read, center): all that is read, composed or not
    Panels<T> reading, reading_t;

    // `pointers` are of tensors with a leading axis of replicas.
    const T* next(Cursor& c, long size, T** gradient = nullptr) {
        const T* p = static_cast<const T*>(*c.pointers++);
        if (gradient) {
            T* g = c.gradients ? static_cast<T*>(*c.gradients++) : nullptr;
            *gradient = g ? g + replica * size : nullptr;
            learns |= g != nullptr;
        }
        return p ? p + replica * size : nullptr;
    }

    void describe(Cursor c, int which) {
        replica = which;
        time = c.number(), batch = c.number(), center = c.number(), memory = c.number();
        saved = c.number(), by_row = c.number(), by_step = c.number();
        const int some = c.number();
        outputs = c.numbers;
        c.numbers += 2 * some;
        outputs_end = c.numbers;
        const int count = c.number();
        T* unused;
        center0 = next(c, (long)batch * center, &dcenter0);
        memory0 = next(c, (long)batch * memory, &dmemory0);
        learns = false;
        int keep = 0;
        for (int m = 0; m < count; m++) {
            modules.emplace_back();
            Module<T>& module = modules.back();
            module.slot = c.number(), module.features = c.number(), module.context = c.number();
            module.inputs = c.number(), module.composed = c.number();
            module.kind = Reading(c.number()), module.own = c.number();
            const int layers = c.number();
            module.places = c.numbers + 2 * layers;
            const bool learned = learns;
            module.x = next(c, (long)batch * time * module.inputs, &module.dx);
            learns = learned;  // only weights do
            const long size = (long)module.context * module.own;
            const long dense = (long)module.context * module.features;
            const int k = module.kind;
            module.weight = next(
                c, k == SOFTMAX ? size * module.features : k == GAUSSIAN ? dense : size,
                &module.dweight);
            module.scale = next(c, k == NORM ? 1 : k == SOFTMAX ? size : module.context,
                                &module.dscale);
            module.more = next(c, dense, &module.dmore);
            module.most = next(c, module.context, &module.dmost);
            module.gates = next(c, module.own, &module.dgates);
            T* fixed;
            module.positions = next(c, module.own, &fixed);
            dynamic |= module.dynamic();
            int in = module.context, inputs = module.inputs;
            for (int l = 0; l < layers; l++) {
                module.layers.emplace_back();
                Layer<T>& layer = module.layers.back();
                layer.gru = c.number(), layer.out = c.number();
                layer.in = in, layer.inputs = inputs;
                layer.first = l == 0, layer.last = l == layers - 1;
                layer.composed = layer.first && module.composed;
                const long g = layer.gates();
                layer.w = next(c, g * (in + inputs), &layer.dw);
                layer.u = next(c, g * layer.out, &layer.du);
                layer.b = next(c, g, &layer.db);
                layer.d = next(c, g, &layer.dd);
                if (layer.gru) layer.keep = keep, keep += layer.out;
                in = layer.out, inputs = 0;
            }
            c.numbers += module.own;
        }
        centers = const_cast<T*>(next(c, (long)time * batch * center, &unused));
        last = const_cast<T*>(next(c, (long)batch * memory, &unused));
        lay_out();
        acts = const_cast<T*>(next(c, (long)saved * batch * columns, &unused));
        by_outputs = next(c, batch * by_row, &unused);
        by_center = next(c, (long)batch * center, &unused);
        dlast = next(c, (long)batch * memory, &unused);
    }

    static long even(long count) { return (count + 15) / 16 * 16; }  // whole cache lines

    void lay_out() {
        for (auto& module : modules)
            if (!module.dynamic()) module.at = read, read += module.width();
        columns = even(read);
        kept = even((long)read * center);
        auto take = [&](int width) {
            const int at = columns;
            columns += even(width);
            return at;
        };
        for (auto& module : modules) {
            const long own = module.own, size = module.context * own, features = module.features;
            if (module.dynamic()) {
                const bool softmax = module.kind == SOFTMAX;
                module.at = take(module.context * (softmax ? 1 : 3));
                module.private_weight = kept;
                kept += even(softmax ? size * features : 2 * module.context * features);
                module.private_bias = kept, kept += softmax ? even(size) : 0;
                module.private_gates = kept, kept += even(own);
            }
            for (auto& layer : module.layers) {
                layer.at = layer.composed ? module.at
                                          : take(!layer.gru ? layer.out
                                                            : layer.out * (layer.last ? 4 : 5));
                layer.private_w = kept, kept += even((long)layer.gates() * (layer.in + layer.inputs));
                layer.private_u = kept, kept += layer.gru ? even((long)layer.gates() * layer.out) : 0;
            }
        }
        kept += columns;  // sums of all gradients, for the biases
    }

    // What a layer is given at step t, in row r: its input, and the state of a GRU.
    const T* act(int t, int r) const { return acts + ((long)(t % saved) * batch + r) * columns; }
    T* act(int t, int r) { return acts + ((long)(t % saved) * batch + r) * columns; }
    const T* before(int t, int r) const {  // the center that step t sees
        return t ? centers + ((long)(t - 1) * batch + r) * center : center0 + (long)r * center;
    }
    struct Rows {
        const T* data;
        long row, step;  // numbers from one row to the next, from one step to the next
    };
    Rows state_of(const Module<T>& module, const Layer<T>& layer, int t, int r) const {
        if (t == 0) return {memory0 + (long)r * memory + layer.keep, memory, 0};
        if (layer.last) return {before(t, r) + module.slot, center, (long)batch * center};
        return {act(t - 1, r) + layer.state_at(), columns, (long)batch * columns};
    }
    Rows output_of(const Module<T>& module, const Layer<T>& layer, int t, int r) const {
        if (layer.last) return {before(t + 1, r) + module.slot, center, (long)batch * center};
        const int at = layer.gru ? layer.state_at() : layer.at;
        return {act(t, r) + at, columns, (long)batch * columns};
    }
    Rows input_of(const Module<T>& module, int l, int t, int r) const {
        if (l) return output_of(module, module.layers[l - 1], t, r);
        return {act(t, r) + module.at, columns, (long)batch * columns};
    }
    Left<T> task(const Module<T>& module, int t, int r) const {
        return {module.x + ((long)r * time + t) * module.inputs, (long)time * module.inputs, 1};
    }

    // Defined in prepare.h, dynamic.h, forward.h, backward.h and finish.h.
    void begin();
    void prepare(Module<T>& module, bool backward);
    void read_panels(bool backward);
    T factor(const Module<T>& module, int row) const;
    void read_weights(Module<T>& module);
    void pack_dynamic(Module<T>& module);
    void pack(Layer<T>& layer, bool backward);
    void forward(int from, int to);
    void seen(const Module<T>& module, const T* row, T* to) const;
    T soften(const Module<T>& module, T* row) const;
    void softmax(const Module<T>& module, int j, int t, int from, int rows, T* to,
                 T* factors) const;
    void read_dynamically(const Module<T>& module, int t, int from, int rows);
    void dense(const Module<T>& module, int l, int t, int from, int to);
    void gru(const Module<T>& module, int l, int t, int from, int to);
    void backward(int from, int to, Buffer<T>& sums) const;
    void back(const Module<T>& module, int t, int from, int rows, T* g, const Buffer<T>& dc,
              Buffer<T>& dm, Buffer<T>& d, Buffer<T>& up) const;
    void back_dynamic(const Module<T>& module, int t, int from, int rows, T* g,
                      Buffer<T>& more, Buffer<T>& sums) const;
    void gates(const Module<T>& module, const Layer<T>& layer, int t, int from, int rows, T* g,
               const T* dy, long dy_row, Buffer<T>& dm) const;
    void flush(int begin, int end, int from, int rows, const T* g, T* sums) const;
    void finish(Module<T>& module, T* sums);
    void finish_reading(Module<T>& module, const T* sums);
};

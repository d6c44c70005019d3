// A network in memory: sizes and tensors from the caller, and the layout of all buffers.
#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include "products.h"
#include "transpose.h"

constexpr int GRADIENT_ROWS = 128;  // rows of gradients that are collected before a product
constexpr int BLOCK_ROWS = 48;      // rows of the batch that run through all steps together
constexpr int MIN_ROWS = 8;         // rows of the batch for which a further thread pays off
constexpr double MIN_VARIANCE = 1e-3;  // MINIMUM_VARIANCE in models/readings/fast_gaussian.py
constexpr double LOG2_E = 1.4426950408889634;
constexpr double CLOSED = -1e30;  // a logit whose exponential is negligible

// Numbers of the kernels in READINGS of cpp.py.
enum Reading { LINEAR, NORM, NORM_ROWS, SOFTMAX, GAUSSIAN };

template <class T>
struct Layer {
    bool gru;
    int in, inputs, out;
    int column, memory_column;  // first one, of the activations and of the memory
    bool first, last, composed;
    const T *w, *u, *b, *d;  // (gates, in + inputs), (gates, out), two biases; as in PyTorch
    T *dw, *du, *db, *dd;
    long private_w, private_u;  // where a thread sums the gradients of w and u
    Buffer<T> bias;
    Panels<T> weight, state, task, weight_t, state_t, task_t;

    int gates() const { return gru ? 3 * out : out; }
    int state_column() const { return column + 4 * out; }  // state of an inner GRU
    int torch_row(int gate) const {  // row of w for a column of [n | r | z]
        return !gru ? gate : gate < out ? gate + 2 * out : gate - out;
    }
};

template <class T>
struct Module {
    int slot, features, context, inputs;
    int visible;  // columns of the reading
    int column;   // first one of the activations
    bool composed;
    Reading kind;
    const int64_t* center_index;  // for every column of the reading its position, -1 if absent
    const T* x;
    // Tensors of the reading. `scale` is the bias of the logits of a softmax and of the mean of a
    // Gaussian; `weight` is then their weight.
    const T *weight, *scale, *variance_weight, *variance_bias, *gates, *positions;
    T *dx, *dweight, *dscale, *dvariance_weight, *dvariance_bias, *dgates;
    std::vector<Layer<T>> layers;
    Buffer<T> x_rows, dx_rows;      // x and dx with the longest rows first, if they are not so
    Buffer<T> matrix;               // R of a static reading, (context, center)
    std::vector<Panels<T>> logits;  // weights of a softmax, for each row of R
    Panels<T> mean, spread;         // weights of a Gaussian for mean and variance
    bool even = false;              // positions of a Gaussian are consecutive numbers
    // Of a softmax, padded to whole vectors: gates, CLOSED where a gate is 0, biases.
    Buffer<T> padded_gates, closed, logit_bias;
    long private_weight, private_bias, private_gates;  // where a thread sums the gradients

    bool dynamic() const { return kind >= SOFTMAX; }
    int padded() const { return (visible + W<T> - 1) / W<T> * W<T>; }
    int mean_column() const { return column + context; }  // of a Gaussian
    int variance_column() const { return column + 2 * context; }
    int width() const { return composed ? layers[0].out : context; }  // columns in `rows`
};

// Working memory of a thread for dynamic readings.
template <class T>
struct Scratch {
    Buffer<T> memory, rows;         // of one module; gradients w.r.t. the center, row by row
    Buffer<T> centers, gradients;   // the center and its gradients, transposed: rows are elements

    T* space(long size) {
        if ((long)memory.size() < size) memory.resize(size);
        return memory.data();
    }
    T* center(int r, int width) { return &centers[(long)r / W<T> * W<T> * width]; }
    T* gradient(int r, int width) { return &gradients[(long)r / W<T> * W<T> * width]; }
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
    long grad_row, grad_step;   // strides of grad_outputs
    long sum_count = 0;         // size of the buffer in which a thread sums weight gradients
    bool needs_weight_grads = false;
    bool softmax_modules = false, gaussian = false;  // whether a module reads so
    const int64_t* lengths;  // steps of every row of the batch, longest first; null: all steps
    std::vector<int64_t> sorted_lengths;
    std::vector<int> order;  // place of every row in the caller's batch; empty: the same
    const T *center0, *memory0;
    T *centers, *center_end, *memory_end, *ys, *acts;
    Buffer<T> center_rows, memory_rows;  // center0 and memory0 in this order
    long outputs_width = 0;
    const int64_t *outputs, *outputs_end;  // start and width of every returned slot
    const T *grad_outputs, *grad_center, *dlast;
    T *dcenter0, *dmemory0;
    std::vector<Module<T>> modules;
    Buffer<T> rows, read_bias;  // rows: all readings, composed or not, (read, center)
    Panels<T> reading, reading_t;

    // The next tensor of this replica; all tensors have a leading axis of replicas.
    const T* next(Cursor& c, long size, T** gradient = nullptr) {
        const T* p = static_cast<const T*>(*c.pointers++);
        if (gradient) {
            T* g = c.gradients ? static_cast<T*>(*c.gradients++) : nullptr;
            *gradient = g ? g + replica * size : nullptr;
            needs_weight_grads |= g != nullptr;
        }
        return p ? p + replica * size : nullptr;
    }

    void describe(Cursor c, int index) {
        replica = index;
        time = c.number(), batch = c.number(), center = c.number(), memory = c.number();
        saved = c.number(), grad_row = c.number(), grad_step = c.number();
        const int output_count = c.number();
        outputs = c.numbers;
        c.numbers += 2 * output_count;
        outputs_end = c.numbers;
        for (const int64_t* slot = outputs; slot < outputs_end; slot += 2) outputs_width += slot[1];
        const int module_count = c.number();
        T* unused;
        lengths = static_cast<const int64_t*>(*c.pointers++);
        if (lengths) sort_rows(lengths + (long)replica * batch);
        if (c.gradients) c.gradients++;
        center0 = next(c, (long)batch * center, &dcenter0);
        memory0 = next(c, (long)batch * memory, &dmemory0);
        needs_weight_grads = false;
        int memory_column = 0;
        for (int m = 0; m < module_count; m++) {
            modules.emplace_back();
            Module<T>& module = modules.back();
            module.slot = c.number(), module.features = c.number(), module.context = c.number();
            module.inputs = c.number(), module.composed = c.number();
            module.kind = Reading(c.number()), module.visible = c.number();
            const int layers = c.number();
            module.center_index = c.numbers + 2 * layers;
            const bool others_need = needs_weight_grads;
            module.x = next(c, (long)batch * time * module.inputs, &module.dx);
            needs_weight_grads = others_need;  // x is no weight
            const long size = (long)module.context * module.visible;
            const long dense = (long)module.context * module.features;
            const int k = module.kind;
            module.weight = next(
                c, k == SOFTMAX ? size * module.features : k == GAUSSIAN ? dense : size,
                &module.dweight);
            module.scale = next(c, k == NORM ? 1 : k == SOFTMAX ? size : module.context,
                                &module.dscale);
            module.variance_weight = next(c, dense, &module.dvariance_weight);
            module.variance_bias = next(c, module.context, &module.dvariance_bias);
            module.gates = next(c, module.visible, &module.dgates);
            T* fixed;
            module.positions = next(c, module.visible, &fixed);
            softmax_modules |= module.kind == SOFTMAX, gaussian |= module.kind == GAUSSIAN;
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
                if (layer.gru) layer.memory_column = memory_column, memory_column += layer.out;
                in = layer.out, inputs = 0;
            }
            c.numbers += module.visible;
        }
        centers = const_cast<T*>(next(c, (long)time * batch * center, &unused));
        center_end = const_cast<T*>(next(c, (long)batch * center, &unused));
        memory_end = const_cast<T*>(next(c, (long)batch * memory, &unused));
        ys = const_cast<T*>(next(c, (long)batch * time * outputs_width, &unused));
        lay_out();
        acts = const_cast<T*>(next(c, (long)saved * batch * columns, &unused));
        grad_outputs = next(c, batch * grad_row, &unused);
        grad_center = next(c, (long)batch * center, &unused);
        dlast = next(c, (long)batch * memory, &unused);
    }

    void sort_rows(const int64_t* given) {
        lengths = given;
        if (std::is_sorted(given, given + batch, std::greater<>())) return;
        order.resize(batch);
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(),
                         [=](int a, int b) { return given[a] > given[b]; });
        for (int row : order) sorted_lengths.push_back(given[row]);
        lengths = sorted_lengths.data();
    }

    static long align(long count) { return (count + 15) / 16 * 16; }  // whole cache lines

    void lay_out() {
        for (auto& module : modules)
            if (!module.dynamic()) module.column = read, read += module.width();
        columns = align(read);
        sum_count = align((long)read * center);
        auto allocate = [&](int width) {
            const int at = columns;
            columns += align(width);
            return at;
        };
        for (auto& module : modules) {
            const long visible = module.visible, features = module.features;
            const long size = module.context * visible;
            if (module.dynamic()) {
                const long padded = module.padded();
                const bool softmax = module.kind == SOFTMAX;
                module.column = allocate(module.context * (softmax ? 1 : 3));
                module.private_weight = sum_count;
                sum_count += align(softmax ? size * features : 2 * module.context * features);
                module.private_bias = sum_count, sum_count += softmax ? align(module.context * padded) : 0;
                module.private_gates = sum_count, sum_count += align(padded);
            }
            for (auto& layer : module.layers) {
                const long gates = layer.gates(), out = layer.out;
                if (layer.composed) layer.column = module.column;
                else layer.column = allocate(!layer.gru ? out : out * (layer.last ? 4 : 5));
                layer.private_w = sum_count;
                sum_count += align(gates * (layer.in + layer.inputs));
                layer.private_u = sum_count, sum_count += layer.gru ? align(gates * out) : 0;
            }
        }
        sum_count += columns;  // sums of gradients w.r.t. pre-activations: those of the biases
    }

    long place(int r) const { return order.empty() ? r : order[r]; }  // in the caller's batch
    int length(int r) const { return lengths ? (int)lengths[r] : time; }
    // The end of the rows that have not ended before step t: as the longest come first, all steps
    // are computed for the first rows of a range.
    int running(int t, int from, int to) const {
        while (to > from && length(to - 1) <= t) to--;
        return to;
    }
    // The first row of a slice of the batch, when all slices have the same number of steps.
    int first_row(int slice, int slices) const {
        if (!lengths) return batch * slice / slices;
        const int64_t total = std::accumulate(lengths, lengths + batch, int64_t(0));
        int row = 0;
        for (int64_t steps = 0; row < batch && steps < total * slice / slices; row++)
            steps += lengths[row];
        return row;
    }

    // Row r at step t: activations, and below the state, output and input of a layer.
    const T* act(int t, int r) const { return acts + ((long)(t % saved) * batch + r) * columns; }
    T* act(int t, int r) { return acts + ((long)(t % saved) * batch + r) * columns; }
    const T* before(int t, int r) const {  // the center that step t reads
        return t ? centers + ((long)(t - 1) * batch + r) * center : center0 + (long)r * center;
    }
    struct Rows {
        const T* data;
        long row, step;  // strides
    };
    Rows state_of(const Module<T>& module, const Layer<T>& layer, int t, int r) const {
        if (t == 0) return {memory0 + (long)r * memory + layer.memory_column, memory, 0};
        if (layer.last) return {before(t, r) + module.slot, center, (long)batch * center};
        return {act(t - 1, r) + layer.state_column(), columns, (long)batch * columns};
    }
    Rows output_of(const Module<T>& module, const Layer<T>& layer, int t, int r) const {
        if (layer.last) return {before(t + 1, r) + module.slot, center, (long)batch * center};
        const int at = layer.gru ? layer.state_column() : layer.column;
        return {act(t, r) + at, columns, (long)batch * columns};
    }
    Rows input_of(const Module<T>& module, int l, int t, int r) const {
        if (l) return output_of(module, module.layers[l - 1], t, r);
        return {act(t, r) + module.column, columns, (long)batch * columns};
    }
    Left<T> task(const Module<T>& module, int t, int r) const {
        return {module.x + ((long)r * time + t) * module.inputs, (long)time * module.inputs, 1};
    }

    // Defined in prepare.h, dynamic.h, softmax.h, gaussian.h, forward.h, backward.h and finish.h.
    void begin();
    void prepare(Module<T>& module, bool backward);
    void sort_input(Module<T>& module, bool backward);
    void read_panels(bool backward);
    T factor(const Module<T>& module, int row) const;
    void read_weights(Module<T>& module);
    void pack_dynamic(Module<T>& module);
    void pack(Layer<T>& layer, bool backward);
    void forward(int from, int to);
    void write_outputs(int t, int from, int to);
    void end_rows(int t, int from, int to);
    void return_inputs();
    void gather_visible(const Module<T>& module, const T* row, T* to) const;
    void begin_reading(int t, int from, int rows, Scratch<T>& scratch) const;
    void read_dynamically(const Module<T>& module, int t, int from, int rows, Scratch<T>& scratch);
    template <bool GATED>
    T exponentiate(const Module<T>& module, T* x) const;
    void softmax(const Module<T>& module, int j, int t, int from, int rows, T* to,
                 T* factors) const;
    void read_softmax(const Module<T>& module, int t, int from, int rows, Scratch<T>& scratch);
    void gather_transposed(const Module<T>& module, const T* center_t, T* to) const;
    void read_gaussian(const Module<T>& module, int t, int from, int rows, Scratch<T>& scratch);
    void dense(const Module<T>& module, int l, int t, int from, int to);
    void gru(const Module<T>& module, int l, int t, int from, int to);
    void backward(int from, int to, Buffer<T>& sums) const;
    void backward_module(const Module<T>& module, int t, int from, int rows, T* g,
                         const Buffer<T>& dc, Buffer<T>& dm, Buffer<T>& d, Buffer<T>& up) const;
    void begin_backward_reading(int t, int from, int rows, Scratch<T>& scratch) const;
    void backward_dynamic(const Module<T>& module, int t, int from, int rows, T* g,
                          Buffer<T>& sums, Scratch<T>& scratch) const;
    template <bool GATED>
    void softmax_gradients(const Module<T>& module, T factor, T read, const T* values, T* powers,
                           T* grad_values, T* grad_gates) const;
    void backward_softmax(const Module<T>& module, int t, int from, int rows, const T* g,
                          Buffer<T>& sums, Scratch<T>& scratch) const;
    void backward_gaussian(const Module<T>& module, int t, int from, int rows, T* g,
                           Buffer<T>& sums, Scratch<T>& scratch) const;
    void end_backward_reading(int rows, Scratch<T>& scratch, T* dc) const;
    void backward_gru(const Module<T>& module, const Layer<T>& layer, int t, int from, int rows,
                      T* g, const T* dy, long dy_row, Buffer<T>& dm) const;
    void add_weight_gradients(int begin, int end, int from, int rows, const T* g, long jump,
                              T* sums) const;
    void finish(Module<T>& module, T* sums);
    void finish_reading(Module<T>& module, const T* sums);
};

// The sequence of a ThalNet and its derivatives on a CPU; `cpp.py` builds, loads and calls this.
//
// Rows of the batch never meet, so every thread owns a slice of the batch for all steps, and no
// thread waits for another. All that a step computes for a row lies in one row of activations:
//
//     [ what all static readings read | per further layer its outputs, or the gates of a GRU ]
//
// A static reading is composed with the dense layer behind it where that is less work. The gates
// of a GRU of H units lie as [n | r | z | n_h]: the product with the input adds to the first three
// blocks, that with the state to the last three. Gradients by pre-activations have the same layout;
// a few steps of them are kept, then multiplied with the activations that they belong to.
//
// Each number is summed in an order that depends on nothing but the shapes of the net, so that a
// row has the same result to the bit in whatever batch and on however many threads it is computed.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace {

#ifdef __AVX512F__
constexpr int BYTES = 64, ROWS = 12;  // of a register; of a tile, so that two vectors a row fit
#elif defined(__AVX2__)
constexpr int BYTES = 32, ROWS = 6;
#else
constexpr int BYTES = 16, ROWS = 6;
#endif
constexpr int FLUSH = 128;            // rows of gradients that are kept before they are multiplied
constexpr int BLOCK = 48;             // rows that go through all steps together
constexpr double LEAST_VARIANCE = 1e-3;  // as in readings.py

// ---- Vectors -----------------------------------------------------------------------------------

template <class T>
struct Simd {
    static constexpr int width = BYTES / sizeof(T);
    typedef T vector __attribute__((vector_size(BYTES)));
    typedef T loose __attribute__((vector_size(BYTES), aligned(sizeof(T)), may_alias));
};
template <class T>
using Vec = typename Simd<T>::vector;
template <class T>
constexpr int W = Simd<T>::width;

template <class T>
inline Vec<T> load(const T* p) {
    return *reinterpret_cast<const typename Simd<T>::loose*>(p);
}
template <class T>
inline void store(T* p, Vec<T> x) {
    *reinterpret_cast<typename Simd<T>::loose*>(p) = x;
}
template <class T>
inline Vec<T> splat(T x) {
    return x - Vec<T>{};
}

// The first n < width numbers, the others zero, and back.
template <class T>
inline Vec<T> load(const T* p, int n) {
    alignas(BYTES) T whole[W<T>] = {};
    for (int i = 0; i < n; i++) whole[i] = p[i];
    return load(whole);
}
template <class T>
inline void store(T* p, Vec<T> x, int n) {
    for (int i = 0; i < n; i++) p[i] = x[i];
}
#ifdef __AVX512F__
inline Vec<float> load(const float* p, int n) {
    return (Vec<float>)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
}
inline void store(float* p, Vec<float> x, int n) {
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)x);
}
#elif defined(__AVX2__)
inline __m256i first(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline Vec<float> load(const float* p, int n) {
    return (Vec<float>)_mm256_maskload_ps(p, first(n));
}
inline void store(float* p, Vec<float> x, int n) { _mm256_maskstore_ps(p, first(n), (__m256)x); }
#endif

// exp(x) - 1 = 2^k (exp(r) - 1) + 2^k - 1 with |r| <= ln 2 / 2; accurate near 0 as well.
struct Power {
    Vec<float> scale, minus_one;
};
inline Power power(Vec<float> x, float most) {
    typedef int32_t Ints __attribute__((vector_size(BYTES)));
    const Vec<float> magic = splat(12582912.0f), limit = splat(most);
    x = x > limit ? limit : x;
    x = x < -limit ? -limit : x;
    Vec<float> shifted = x * 1.44269504f + magic, k = shifted - magic;
    Vec<float> r = (x - k * 0.693359375f) + k * 2.12194440e-4f;
    Vec<float> p = r * (1.0f / 5040) + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * (r * r) + r;
    Vec<float> scale = (Vec<float>)(((Ints)shifted - (Ints)magic + 127) << 23);
    return {scale, p};
}
inline Vec<float> tanh(Vec<float> x) {
    Power e = power(x + x, 30.0f);
    Vec<float> m = e.scale * e.minus_one + (e.scale - 1.0f);
    return m / (m + 2.0f);
}
inline Vec<float> sigmoid(Vec<float> x) {
    Power e = power(-x, 80.0f);
    return 1.0f / (e.scale * e.minus_one + e.scale + 1.0f);
}
inline Vec<float> exp(Vec<float> x) {
    Power e = power(x, 80.0f);
    return e.scale * e.minus_one + e.scale;
}
// log(1 + exp(x)) = max(x, 0) + 2 artanh(y / (2 + y)) with y = exp(-|x|)
inline Vec<float> softplus(Vec<float> x) {
    const Vec<float> y = exp(x < 0.0f ? x : -x), s = y / (y + 2.0f), q = s * s;
    Vec<float> p = q * (1.0f / 13) + 1.0f / 11;
    p = p * q + 1.0f / 9;
    p = p * q + 1.0f / 7;
    p = p * q + 1.0f / 5;
    p = p * q + 1.0f / 3;
    p = p * q + 1.0f;
    return (x < 0.0f ? x * 0.0f : x) + 2.0f * s * p;
}
inline Vec<double> softplus(Vec<double> x) {
    for (int i = 0; i < W<double>; i++)
        x[i] = std::max(x[i], 0.0) + std::log1p(std::exp(-std::abs(x[i])));
    return x;
}
inline Vec<double> tanh(Vec<double> x) {
    for (int i = 0; i < W<double>; i++) x[i] = std::tanh(x[i]);
    return x;
}
inline Vec<double> exp(Vec<double> x) {
    for (int i = 0; i < W<double>; i++) x[i] = std::exp(x[i]);
    return x;
}
inline Vec<double> sigmoid(Vec<double> x) { return 1.0 / (1.0 + exp(-x)); }

// f(i, n) for every vector of `count` numbers: where it begins and how many of its places are used.
template <class T, class F>
inline void each(int count, F f) {
    int i = 0;
    for (; i + W<T> <= count; i += W<T>) f(i, W<T>);
    if (i < count) f(i, count - i);
}
template <class T>
inline T sum(Vec<T> x) {
    T all = 0;
    for (int i = 0; i < W<T>; i++) all += x[i];
    return all;
}
template <class T>
inline Vec<T> get(const T* p, int n) {
    return n == W<T> ? load(p) : load(p, n);
}
template <class T>
inline void put(T* p, Vec<T> x, int n) {
    if (n == W<T>) store(p, x);
    else store(p, x, n);
}

// ---- Products ----------------------------------------------------------------------------------

enum Begin { ZERO, ADD, BIAS };  // what a product is added to

template <class T>
struct Left {  // A(i, k) = data[i * row + k * column], `times` such blocks of k, `jump` apart
    const T* data;
    long row, column;
    int times = 1;
    long jump = 0;
};
template <class T>
struct Right {  // B(k, j) = data[k * row + j]; or panels of two vectors' width, one after another
    const T* data;
    long row;
    bool panels = false;
    long jump = 0;
};

template <class T, int M, int V, bool TAIL>
void tile(Left<T> a, Right<T> b, int K, T* c, long ldc, int n, Begin begin, const T* bias) {
    constexpr int w = W<T>;
    const int tail = n - (V - 1) * w;  // used places of the last vector
    Vec<T> sum[M][V];
    for (int i = 0; i < M; i++)
        for (int j = 0; j < V; j++) {
            const T* from = begin == BIAS ? bias + j * w : c + i * ldc + j * w;
            if (begin == ZERO) sum[i][j] = Vec<T>{};
            else sum[i][j] = TAIL && j == V - 1 ? load(from, tail) : load(from);
        }
    for (int t = 0; t < a.times; t++) {
        const T *pa = a.data + t * a.jump, *pb = b.data + t * b.jump;
        for (int k = 0; k < K; k++, pa += a.column, pb += b.row) {
            Vec<T> x[V];
            for (int j = 0; j < V; j++)
                x[j] = TAIL && j == V - 1 ? load(pb + j * w, tail) : load(pb + j * w);
            for (int i = 0; i < M; i++)
                for (int j = 0; j < V; j++) sum[i][j] += pa[i * a.row] * x[j];
        }
    }
    for (int i = 0; i < M; i++)
        for (int j = 0; j < V; j++) {
            if (TAIL && j == V - 1) store(c + i * ldc + j * w, sum[i][j], tail);
            else store(c + i * ldc + j * w, sum[i][j]);
        }
}

template <class T, int M, int V>
void tile(Left<T> a, Right<T> b, int K, T* c, long ldc, int n, Begin begin, const T* bias) {
    if (n == V * W<T>) tile<T, M, V, false>(a, b, K, c, ldc, n, begin, bias);
    else tile<T, M, V, true>(a, b, K, c, ldc, n, begin, bias);
}

template <class T, int V, int M = ROWS>
void tiles(int rows, Left<T> a, Right<T> b, int K, T* c, long ldc, int n, Begin begin,
           const T* bias) {
    if (rows == M) return tile<T, M, V>(a, b, K, c, ldc, n, begin, bias);
    if constexpr (M > 1) tiles<T, V, M - 1>(rows, a, b, K, c, ldc, n, begin, bias);
}

// C (M, N) = begin + A B.
template <class T>
void product(int M, int N, int K, Left<T> a, Right<T> b, T* c, long ldc, Begin begin = ZERO,
             const T* bias = nullptr) {
    const int blocks = (M + ROWS - 1) / ROWS;
    for (int n = 0; n < N;) {
        const int vectors = N - n > W<T> ? 2 : 1, width = std::min(N - n, vectors * W<T>);
        Right<T> part = b;
        part.data += b.panels ? (long)n * K : n;
        if (b.panels) part.row = vectors * W<T>;
        for (int k = 0; k < blocks; k++) {
            const int from = M * k / blocks, rows = M * (k + 1) / blocks - from;
            Left<T> left = a;
            left.data += from * a.row;
            T* out = c + from * ldc + n;
            if (vectors == 2)
                tiles<T, 2>(rows, left, part, K, out, ldc, width, begin, bias ? bias + n : bias);
            else tiles<T, 1>(rows, left, part, K, out, ldc, width, begin, bias ? bias + n : bias);
        }
        n += width;
    }
}

// B (K, N) as panels, zeros behind the last column. B(k, n) = at(k, n).
template <class T>
struct Panels {
    int K = 0, N = 0;
    std::vector<T> data;

    template <class F>
    void fill(int k_count, int n_count, F at) {
        K = k_count, N = n_count;
        data.assign((long)K * ((N + W<T> - 1) / W<T>)*W<T>, T(0));
        T* out = data.data();
        for (int n = 0; n < N;) {
            const int width = N - n > W<T> ? 2 * W<T> : W<T>, used = std::min(N - n, width);
            for (int k = 0; k < K; k++, out += width)
                for (int j = 0; j < used; j++) out[j] = at(k, n + j);
            n += used;
        }
    }
    Right<T> right() const { return {data.data(), 0, true}; }
};

// ---- The net -----------------------------------------------------------------------------------

enum Reading { LINEAR, NORM, NORM_ROWS, SOFTMAX, GAUSSIAN };

template <class T>
struct Layer {
    bool gru;
    int in, inputs, out, at, keep;  // at: column of the activations; keep: of the memory
    bool first, last, composed;
    const T *w, *u, *b, *d;  // (gates, in + inputs), (gates, out), biases; as in torch
    T *dw, *du, *db, *dd;
    long private_w, private_u;  // where a thread sums their gradients
    std::vector<T> bias;
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
    std::vector<T> matrix;  // R over the center, of a static reading
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
    long kept = 0;              // numbers that a thread sums: gradients by weights
    bool learns = false, dynamic = false;
    const T *center0, *memory0;
    T *centers, *last, *acts;
    const T *dcenters, *dlast;
    T *dcenter0, *dmemory0;
    std::vector<Module<T>> modules;
    std::vector<T> rows, read_bias;  // (read, center): all that is read, composed or not
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
        saved = c.number();
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
        dcenters = next(c, (long)time * batch * center, &unused);
        dlast = next(c, (long)batch * memory, &unused);
    }

    void lay_out() {
        for (auto& module : modules)
            if (!module.dynamic()) module.at = read, read += module.width();
        columns = (read + 15) / 16 * 16;
        kept = (long)read * center;
        auto take = [&](int width) {
            const int at = columns;
            columns += (width + 15) / 16 * 16;
            return at;
        };
        for (auto& module : modules) {
            const long own = module.own, size = module.context * own, features = module.features;
            if (module.dynamic()) {
                const bool softmax = module.kind == SOFTMAX;
                module.at = take(module.context * (softmax ? 1 : 3));
                module.private_weight = kept;
                kept += softmax ? size * features : 2 * module.context * features;
                module.private_bias = kept, kept += softmax ? size : 0;
                module.private_gates = kept, kept += own;
            }
            for (auto& layer : module.layers) {
                layer.at = layer.composed ? module.at
                                          : take(!layer.gru ? layer.out
                                                            : layer.out * (layer.last ? 4 : 5));
                layer.private_w = kept, kept += (long)layer.gates() * (layer.in + layer.inputs);
                layer.private_u = kept, kept += layer.gru ? (long)layer.gates() * layer.out : 0;
            }
        }
        kept += columns;  // sums of all gradients, for the biases
    }

    // Norms, composition, panels: once a sequence.
    void prepare(bool backward) {
        rows.assign((long)read * center, T(0));
        read_bias.assign(read, T(0));
        for (auto& module : modules) {
            if (!module.dynamic()) read_weights(module);
            else pack_dynamic(module);
            for (auto& layer : module.layers) pack(layer, backward);
            if (module.composed)
                std::copy_n(module.layers[0].b, module.layers[0].out, &read_bias[module.at]);
        }
        const T* r = rows.data();
        const long c = center;
        if (backward)
            reading_t.fill(read, center, [=](int k, int n) { return r[k * c + n]; });
        else reading.fill(center, read, [=](int k, int n) { return r[n * c + k]; });
    }

    T factor(const Module<T>& module, int row) const {  // of a row of the weights
        if (module.kind == LINEAR) return T(1);
        const bool whole = module.kind == NORM;
        const T* from = module.weight + (whole ? 0 : (long)row * module.own);
        double sum = 0;
        for (long i = 0; i < (whole ? module.context : 1L) * module.own; i++)
            sum += (double)from[i] * from[i];
        return T(module.scale[whole ? 0 : row] / std::sqrt(sum));
    }

    void read_weights(Module<T>& module) {
        module.matrix.assign((long)module.context * center, T(0));
        T f = 0;
        for (int j = 0; j < module.context; j++) {
            if (j == 0 || module.kind == NORM_ROWS) f = factor(module, j);
            for (int k = 0; k < module.own; k++)
                if (module.places[k] >= 0)
                    module.matrix[(long)j * center + module.places[k]] =
                        module.weight[(long)j * module.own + k] * f;
        }
        T* to = &rows[(long)module.at * center];
        if (!module.composed) {
            std::copy(module.matrix.begin(), module.matrix.end(), to);
            return;
        }
        const Layer<T>& layer = module.layers[0];
        product<T>(layer.out, center, module.context, {layer.w, layer.in + layer.inputs, 1},
                   {module.matrix.data(), center}, to, center);
    }

    void pack_dynamic(Module<T>& module) {
        const T* w = module.weight;
        const long F = module.features, own = module.own;
        auto turned = [F](Panels<T>& panels, int width, const T* from) {
            panels.fill(F, width, [=](int k, int n) { return from[n * F + k]; });
        };
        if (module.kind == GAUSSIAN) {
            turned(module.mean, module.context, w);
            turned(module.spread, module.context, module.more);
            return;
        }
        module.logits.resize(module.context);
        for (int j = 0; j < module.context; j++) turned(module.logits[j], own, w + j * own * F);
    }

    void pack(Layer<T>& layer, bool backward) {
        const T *w = layer.w, *u = layer.u;
        const int all = layer.in + layer.inputs, in = layer.in, out = layer.out;
        const int gates = layer.gates();
        if (backward) {
            auto row = [&](int k) { return (long)layer.natural(k) * all; };
            if (!layer.composed)
                layer.weight_t.fill(gates, in, [&](int k, int n) { return w[row(k) + n]; });
            layer.task_t.fill(gates, layer.inputs,
                              [&](int k, int n) { return w[row(k) + in + n]; });
            if (layer.gru)
                layer.state_t.fill(gates, out, [&](int k, int n) { return u[(long)k * out + n]; });
            return;
        }
        auto row = [&](int n) { return (long)layer.natural(n) * all; };
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

    // ---- Forward: rows from .. to of all steps -------------------------------------------------

    void forward(int from, int to) {
        for (int t = 0; t < time; t++) {
            T* a = act(t, from);
            product<T>(to - from, read, center, {before(t, from), center, 1}, reading.right(), a,
                       columns, BIAS, read_bias.data());
            for (auto& module : modules) {
                if (module.dynamic()) read_dynamically(module, t, from, to - from);
                for (int l = 0; l < (int)module.layers.size(); l++)
                    if (module.layers[l].gru) gru(module, l, t, from, to);
                    else dense(module, l, t, from, to);
            }
        }
        for (auto& module : modules)
            for (auto& layer : module.layers)
                if (layer.gru) {
                    const Rows h = output_of(module, layer, time - 1, from);
                    for (int r = from; r < to; r++)
                        std::copy_n(h.data + (r - from) * h.row, layer.out,
                                    last + (long)r * memory + layer.keep);
                }
    }

    // What a dynamic reading may see: a whole row of the center, or some of it, 0 where nothing is.
    void seen(const Module<T>& module, const T* row, T* to) const {
        for (int k = 0; k < module.own; k++)
            to[k] = module.places[k] < 0 ? T(0) : row[module.places[k]];
    }

    // exp(logits - largest) / sum of |gate| exp(logits - largest), in place of the logits of a row.
    void soften(const Module<T>& module, T* row) const {
        T largest = -INFINITY, total = 0;
        for (int k = 0; k < module.own; k++)
            if (module.gate(k) != 0) largest = std::max(largest, row[k]);
        Vec<T> sums{};
        each<T>(module.own, [&](int i, int n) {
            const Vec<T> e = exp(get(row + i, n) - largest);
            put(row + i, e, n);
            Vec<T> g = module.gates ? get(module.gates + i, n) : splat(T(1));
            g = (g < T(0) ? -g : g) * e;
            if (n < W<T>) {  // what is behind the end is not part of the sum
                alignas(BYTES) T part[W<T>] = {};
                store(part, g, n);
                g = load(part);
            }
            sums += g;
        });
        total = sum<T>(sums);
        each<T>(module.own, [&](int i, int n) { put(row + i, get(row + i, n) / total, n); });
    }

    void softmax(const Module<T>& module, int j, int t, int from, int rows, T* to) const {
        product<T>(rows, module.own, module.features,
                   {before(t, from) + module.slot, center, 1}, module.logits[j].right(), to,
                   module.own, BIAS, module.scale + (long)j * module.own);
        for (int r = 0; r < rows; r++) soften(module, to + (long)r * module.own);
    }

    void read_dynamically(const Module<T>& module, int t, int from, int rows) {
        const int own = module.own, c = module.context;
        T* a = act(t, from);
        std::vector<T> see((long)rows * own), weights;
        for (int r = 0; r < rows; r++) seen(module, before(t, from + r), &see[(long)r * own]);
        if (module.kind == SOFTMAX) {
            weights.resize((long)rows * own);
            for (int j = 0; j < c; j++) {
                softmax(module, j, t, from, rows, weights.data());
                for (int r = 0; r < rows; r++) {
                    const T *w = &weights[(long)r * own], *x = &see[(long)r * own];
                    Vec<T> sums{};
                    each<T>(own, [&](int i, int n) {
                        const Vec<T> p = get(w + i, n) * get(x + i, n);
                        sums += module.gates ? p * get(module.gates + i, n) : p;
                    });
                    a[(long)r * columns + module.at + j] = sum<T>(sums);
                }
            }
            return;
        }
        const Left<T> features{before(t, from) + module.slot, center, 1};
        product<T>(rows, c, module.features, features, module.mean.right(), a + module.mean_at(),
                   columns, BIAS, module.scale);
        product<T>(rows, c, module.features, features, module.spread.right(),
                   a + module.variance_at(), columns, BIAS, module.most);
        for (int r = 0; r < rows; r++, a += columns) {
            T* v = a + module.variance_at();
            each<T>(c, [&](int i, int n) {
                put(v + i, softplus(get(v + i, n)) + T(LEAST_VARIANCE), n);
            });
            const T* x = &see[(long)r * own];
            for (int j = 0; j < c; j++) {
                const T mean = a[module.mean_at() + j], factor = T(-0.5) / v[j];
                Vec<T> sums{};
                each<T>(own, [&](int i, int n) {
                    const Vec<T> far = get(module.positions + i, n) - mean;
                    const Vec<T> p = exp(far * far * factor) * get(x + i, n);
                    sums += module.gates ? p * get(module.gates + i, n) : p;
                });
                a[module.at + j] = sum<T>(sums) / std::sqrt(T(2 * M_PI) * v[j]);
            }
        }
    }

    void dense(const Module<T>& module, int l, int t, int from, int to) {
        const Layer<T>& layer = module.layers[l];
        T* a = act(t, from) + layer.at;
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
            each<T>(layer.out, [&](int i, int n) { put(out + i, tanh(get(a + i, n)), n); });
        }
    }

    void gru(const Module<T>& module, int l, int t, int from, int to) {
        const Layer<T>& layer = module.layers[l];
        const int rows = to - from, H = layer.out;
        T* a = act(t, from) + layer.at;
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
                const Vec<T> fresh = tanh(get(a + i, n) + reset * get(a + 3 * H + i, n));
                put(a + i, fresh, n), put(a + H + i, reset, n), put(a + 2 * H + i, update, n);
                put(out + i, fresh + update * (get(old + i, n) - fresh), n);
            });
        }
    }

    // ---- Backward: rows from .. to of all steps, weights' gradients summed into `sums` -------------

    void backward(int from, int to, std::vector<T>& sums) const {
        const int rows = to - from, steps = std::clamp(FLUSH / rows, 1, time);
        std::vector<T> g((long)steps * rows * columns), dc((long)rows * center);
        std::vector<T> dm((long)rows * memory), carry;
        int widest = 1;
        for (auto& module : modules)
            for (auto& layer : module.layers) widest = std::max({widest, layer.in, layer.out});
        std::vector<T> d((long)rows * widest), up((long)rows * widest), more;
        for (int r = 0; r < rows; r++)
            if (dlast) std::copy_n(dlast + (long)(from + r) * memory, memory, &dm[(long)r * memory]);
        for (int end = time; end > 0;) {
            const int begin = std::max(0, end - steps);
            for (int t = end - 1; t >= begin; t--) {
                T* gt = g.data() + (long)(t - begin) * rows * columns;
                if (dcenters)
                    for (int r = 0; r < rows; r++) {
                        const T* more = dcenters + ((long)t * batch + from + r) * center;
                        T* sum = &dc[(long)r * center];
                        each<T>(center, [&](int i, int n) {
                            put(sum + i, get(sum + i, n) + get(more + i, n), n);
                        });
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

    void back(const Module<T>& module, int t, int from, int rows, T* g, const std::vector<T>& dc,
              std::vector<T>& dm, std::vector<T>& d, std::vector<T>& up) const {
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

    void back_dynamic(const Module<T>& module, int t, int from, int rows, T* g,
                      std::vector<T>& more, std::vector<T>& sums) const {
        const int own = module.own, c = module.context, F = module.features;
        const long size = (long)rows * own;
        const Rows phi{before(t, from) + module.slot, center, 0};
        std::vector<T> see(size), by_seen(size), by_features((long)rows * F), p(size);
        for (int r = 0; r < rows; r++) seen(module, before(t, from + r), &see[(long)r * own]);
        T* by_gates = learns ? &sums[module.private_gates] : nullptr;
        for (int j = 0; j < c; j++) {
            if (module.kind == SOFTMAX) softmax(module, j, t, from, rows, p.data());
            for (int r = 0; r < rows; r++) {
                const T *a = act(t, from + r), *x = &see[(long)r * own];
                T *gr = g + (long)r * columns, *d = &by_seen[(long)r * own];
                T* q = &p[(long)r * own];
                const T by = gr[module.at + j], read = a[module.at + j];
                const bool gauss = module.kind == GAUSSIAN;
                const T mean = gauss ? a[module.mean_at() + j] : 0;
                const T v = gauss ? a[module.variance_at() + j] : 1;
                const T factor = T(-0.5) / v, height = 1 / std::sqrt(T(2 * M_PI) * v);
                Vec<T> by_mean{}, by_variance{};
                each<T>(own, [&](int i, int n) {
                    const Vec<T> see = get(x + i, n);
                    const Vec<T> gate = module.gates ? get(module.gates + i, n) : splat(T(1));
                    const Vec<T> far = gauss ? get(module.positions + i, n) - mean : Vec<T>{};
                    const Vec<T> open = gauss ? exp(far * far * factor) * height : get(q + i, n);
                    const Vec<T> size = gate < T(0) ? -gate : gate;
                    const Vec<T> up = gate > T(0) ? splat(T(1)) : Vec<T>{};
                    const Vec<T> sign = gate < T(0) ? splat(T(-1)) : up;
                    put(d + i, get(d + i, n) + by * gate * open, n);
                    if (gauss) {
                        const Vec<T> part = by * see * gate * open;
                        by_mean += part * far / v;
                        by_variance += part * (far * far / v - 1) * (T(0.5) / v);
                    } else put(q + i, by * open * (see * gate - size * read), n);
                    if (by_gates && module.gates) {
                        const Vec<T> change = gauss ? by * see * open
                                                    : by * open * (see - sign * read);
                        put(by_gates + i, get(by_gates + i, n) + change, n);
                    }
                });
                if (gauss) {
                    gr[module.mean_at() + j] = sum<T>(by_mean);
                    gr[module.variance_at() + j] =
                        sum<T>(by_variance) * (1 - std::exp(T(LEAST_VARIANCE) - v));
                }
            }
            if (module.kind == GAUSSIAN) continue;
            const long at = (long)j * own;
            product<T>(rows, F, own, {p.data(), own, 1}, {module.weight + at * F, F},
                       by_features.data(), F, ADD);
            if (!learns) continue;
            product<T>(own, F, rows, {p.data(), 1, own}, {phi.data, phi.row},
                       &sums[module.private_weight + at * F], F, ADD);
            for (int r = 0; r < rows; r++)
                for (int k = 0; k < own; k++)
                    sums[module.private_bias + at + k] += p[(long)r * own + k];
        }
        if (module.kind == GAUSSIAN) {
            product<T>(rows, F, c, {g + module.mean_at(), columns, 1}, {module.weight, F},
                       by_features.data(), F);
            product<T>(rows, F, c, {g + module.variance_at(), columns, 1}, {module.more, F},
                       by_features.data(), F, ADD);
        }
        for (int r = 0; r < rows; r++) {
            T* to = &more[(long)r * center];
            for (int k = 0; k < F; k++) to[module.slot + k] += by_features[(long)r * F + k];
            for (int k = 0; k < own; k++)
                if (module.places[k] >= 0) to[module.places[k]] += by_seen[(long)r * own + k];
        }
    }

    void gates(const Module<T>& module, const Layer<T>& layer, int t, int from, int rows, T* g,
               const T* dy, long dy_row, std::vector<T>& dm) const {
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
    void flush(int begin, int end, int from, int rows, const T* g, T* sums) const {
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

    // From the sums of all threads to the gradients of the parameters.
    void finish(Module<T>& module, T* sums) {
        const T* total = sums + kept - columns;
        for (auto& layer : module.layers) {
            const int H = layer.out;
            const long all = layer.in + layer.inputs;
            T* w = sums + layer.private_w;
            if (layer.composed) {  // d(W R) R^T
                const T* by = sums + (long)module.at * center;
                std::vector<T> turned((long)center * module.context);
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

    void finish_reading(Module<T>& module, const T* sums) {
        const T* by = sums + (long)module.at * center;
        std::vector<T> composed;
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
};

// PyTorch's own threads where both use the same OpenMP: they are awake already.
template <class F>
void parallel(int jobs, int threads, F work) {
#pragma omp parallel for num_threads(std::min(jobs, threads)) schedule(static, 1)
    for (int job = 0; job < jobs; job++) work(job);
}

template <class T>
int64_t run(const int64_t* numbers, void* const* pointers, void* const* gradients, bool backward) {
    Cursor cursor{numbers, pointers, gradients};
    const int replicas = cursor.number(), threads = cursor.number();
    std::vector<Net<T>> nets(replicas);
    for (int k = 0; k < replicas; k++) nets[k].describe(cursor, k);
    if (!backward && !pointers[0]) return nets[0].columns;  // only asked for the width of a row
    const int batch = nets[0].batch;
    const int slices = std::min(batch, std::max(1, threads / replicas));
    const int jobs = replicas * slices;
    parallel(replicas, threads, [&](int k) { nets[k].prepare(backward); });
    std::vector<std::vector<T>> sums(jobs);
    parallel(jobs, threads, [&](int job) {
        Net<T>& net = nets[job / slices];
        const int slice = job % slices;
        const int from = batch * slice / slices, to = batch * (slice + 1) / slices;
        if (backward) sums[job].assign(net.learns ? net.kept : 0, T(0));
        const int parts = std::max(1, (to - from + BLOCK / 2) / BLOCK);
        for (int k = 0; k < parts; k++) {
            const int a = from + (to - from) * k / parts, b = from + (to - from) * (k + 1) / parts;
            if (backward) net.backward(a, b, sums[job]);
            else net.forward(a, b);
        }
    });
    if (!backward || !nets[0].learns) return 0;
    parallel(replicas, threads, [&](int k) {
        std::vector<T>& sum = sums[k * slices];
        for (int s = 1; s < slices; s++)
            for (long i = 0; i < (long)sum.size(); i++) sum[i] += sums[k * slices + s][i];
        for (auto& module : nets[k].modules) nets[k].finish(module, sum.data());
    });
    return 0;
}

}  // namespace

extern "C" {
int64_t forward_float(const int64_t* n, void* const* p) {
    return run<float>(n, p, nullptr, false);
}
int64_t forward_double(const int64_t* n, void* const* p) {
    return run<double>(n, p, nullptr, false);
}
int64_t backward_float(const int64_t* n, void* const* p, void* const* g) {
    return run<float>(n, p, g, true);
}
int64_t backward_double(const int64_t* n, void* const* p, void* const* g) {
    return run<double>(n, p, g, true);
}
}

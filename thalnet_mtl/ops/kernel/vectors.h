// SIMD vectors, partly filled vectors, and elementwise functions.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

#ifdef __AVX512F__
constexpr int BYTES = 64, ROWS = 12;  // of a register; of a tile with two vectors a row
#elif defined(__AVX2__)
constexpr int BYTES = 32, ROWS = 6;
#else
constexpr int BYTES = 16, ROWS = 6;
#endif

// Allocates memory aligned to 64 bytes: an unaligned load can touch two cache lines.
template <class T>
struct Aligned {
    using value_type = T;
    Aligned() = default;
    template <class U>
    Aligned(const Aligned<U>&) {}
    T* allocate(size_t n) {
        return static_cast<T*>(::operator new(n * sizeof(T), std::align_val_t(64)));
    }
    void deallocate(T* p, size_t) { ::operator delete(p, std::align_val_t(64)); }
    template <class U>
    bool operator==(const Aligned<U>&) const { return true; }
    template <class U>
    bool operator!=(const Aligned<U>&) const { return false; }
};
template <class T>
using Buffer = std::vector<T, Aligned<T>>;

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

// a b + c, rounded once where the processor can. A compiler on its own does so inconsistently.
template <class V>
inline V fused(V a, V b, V c) { return a * b + c; }
#ifdef __AVX512F__
inline Vec<float> fused(Vec<float> a, Vec<float> b, Vec<float> c) {
    return (Vec<float>)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
inline Vec<double> fused(Vec<double> a, Vec<double> b, Vec<double> c) {
    return (Vec<double>)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
}
#elif defined(__AVX2__) && defined(__FMA__)
inline Vec<float> fused(Vec<float> a, Vec<float> b, Vec<float> c) {
    return (Vec<float>)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
inline Vec<double> fused(Vec<double> a, Vec<double> b, Vec<double> c) {
    return (Vec<double>)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
}
#endif

// Load the first n < width elements, the rest zero; store the first n.
template <class T>
inline Vec<T> load(const T* p, int n) {
    alignas(BYTES) T values[W<T>] = {};
    for (int i = 0; i < n; i++) values[i] = p[i];
    return load(values);
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

// exp(x) - 1 = 2^k (exp(r) - 1) + 2^k - 1 with |r| <= ln 2 / 2; accurate near 0, too.
struct Power {
    Vec<float> scale, minus_one;
};
inline Power power(Vec<float> x, float bound) {
    typedef int32_t Ints __attribute__((vector_size(BYTES)));
    const Vec<float> magic = splat(12582912.0f), limit = splat(bound);
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
// 2^x for x <= 126, as 2^n 2^r with integer n and |r| <= 1/2: relative error 1.6e-7. The polynomial
// has the least relative error of its degree among those that are 1 at 0.
inline Vec<float> exp2_fraction(Vec<float> r) {
    Vec<float> p = fused(splat(0.00132647269f), r, splat(0.00967151266f));
    p = fused(p, r, splat(0.0555073374f));
    p = fused(p, r, splat(0.240222421f));
    p = fused(p, r, splat(0.693146978f));
    return fused(p, r, splat(1.0f));
}
#ifdef __AVX512F__
inline Vec<float> exp2(Vec<float> x) {
    const __m512 n = _mm512_roundscale_ps((__m512)x, 0);
    return (Vec<float>)_mm512_scalef_ps((__m512)exp2_fraction(x - (Vec<float>)n), n);
}
#else
inline Vec<float> exp2(Vec<float> x) {
    typedef int32_t Ints __attribute__((vector_size(BYTES)));
    const Vec<float> magic = splat(12582912.0f + 127), least = splat(-126.0f);
    x = x < least ? least : x;
    const Vec<float> shifted = x + magic;  // its last bits are n plus the bias of an exponent
    return exp2_fraction(x - (shifted - magic)) * (Vec<float>)((Ints)shifted << 23);
}
#endif
inline Vec<float> exp(Vec<float> x) { return exp2(x * 1.44269504f); }
// As in PyTorch, x above 20. log(1 + exp(x)) = max(x, 0) + 2 artanh(y / (2 + y)) with y = exp(-|x|)
inline Vec<float> softplus(Vec<float> x) {
    const Vec<float> y = exp(x < 0.0f ? x : -x), s = y / (y + 2.0f), q = s * s;
    Vec<float> p = q * (1.0f / 13) + 1.0f / 11;
    p = p * q + 1.0f / 9;
    p = p * q + 1.0f / 7;
    p = p * q + 1.0f / 5;
    p = p * q + 1.0f / 3;
    p = p * q + 1.0f;
    return x > 20.0f ? x : (x < 0.0f ? x * 0.0f : x) + 2.0f * s * p;
}
inline Vec<double> softplus(Vec<double> x) {
    for (int i = 0; i < W<double>; i++)
        x[i] = x[i] > 20 ? x[i] : std::max(x[i], 0.0) + std::log1p(std::exp(-std::abs(x[i])));
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
inline Vec<double> exp2(Vec<double> x) {
    for (int i = 0; i < W<double>; i++) x[i] = std::exp2(x[i]);
    return x;
}
inline Vec<double> sigmoid(Vec<double> x) { return 1.0 / (1.0 + exp(-x)); }

// Call f(i, n) for every vector of `count` numbers: i is its first index, n its used elements.
template <class T, class F>
inline void each(int count, F f) {
    int i = 0;
    for (; i + W<T> <= count; i += W<T>) f(i, W<T>);
    if (i < count) f(i, count - i);
}
// The sum and the largest of the elements of a vector.
template <class T>
inline T sum(Vec<T> x) {
    T all = 0;
    for (int i = 0; i < W<T>; i++) all += x[i];
    return all;
}
template <class T>
inline T maximum(Vec<T> x) {
    T largest = x[0];
    for (int i = 1; i < W<T>; i++) largest = x[i] > largest ? x[i] : largest;
    return largest;
}
#ifdef __AVX512F__
template <>
inline float sum<float>(Vec<float> x) { return _mm512_reduce_add_ps((__m512)x); }
template <>
inline float maximum<float>(Vec<float> x) { return _mm512_reduce_max_ps((__m512)x); }
#elif defined(__AVX2__)
template <>
inline float sum<float>(Vec<float> x) {
    const __m128 a = _mm_add_ps(_mm256_castps256_ps128((__m256)x),
                                _mm256_extractf128_ps((__m256)x, 1));
    const __m128 b = _mm_add_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}
template <>
inline float maximum<float>(Vec<float> x) {
    const __m128 a = _mm_max_ps(_mm256_castps256_ps128((__m256)x),
                                _mm256_extractf128_ps((__m256)x, 1));
    const __m128 b = _mm_max_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}
#endif
template <class T>
inline Vec<T> get(const T* p, int n) {
    return n == W<T> ? load(p) : load(p, n);
}
template <class T>
inline void put(T* p, Vec<T> x, int n) {
    if (n == W<T>) store(p, x);
    else store(p, x, n);
}
// Fetch a cache line of the step that comes next, so that it need not wait for it. The address may
// lie outside of the buffer.
template <class T>
inline void prefetch(const T* p) { __builtin_prefetch(p); }
template <class T>
inline void prefetch_to_write(const T* p) { __builtin_prefetch(p, 1); }
// The first n elements of x, then `fill`.
template <class T>
inline Vec<T> fill_tail(Vec<T> x, int n, T fill) {
    for (int i = n; i < W<T>; i++) x[i] = fill;
    return x;
}
template <class V>
inline V absolute(V x) { return x < 0 ? -x : x; }
template <class V>
inline V sign(V x) { return (x > 0 ? V{} + 1 : V{}) - (x < 0 ? V{} + 1 : V{}); }
template <class T>
inline T minimum(Vec<T> x) { return -maximum<T>(-x); }
// The square root.
inline Vec<float> root(Vec<float> x) {
#ifdef __AVX512F__
    return (Vec<float>)_mm512_sqrt_ps((__m512)x);
#elif defined(__AVX2__)
    return (Vec<float>)_mm256_sqrt_ps((__m256)x);
#else
    for (int i = 0; i < W<float>; i++) x[i] = std::sqrt(x[i]);
    return x;
#endif
}
inline Vec<double> root(Vec<double> x) {
    for (int i = 0; i < W<double>; i++) x[i] = std::sqrt(x[i]);
    return x;
}

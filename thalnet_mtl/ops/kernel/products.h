// Products of small matrices, computed in tiles that fit the registers.
#pragma once

#include <algorithm>
#include <vector>

#include "vectors.h"

enum Begin { ZERO, ADD, BIAS };  // what a product is added to: 0, the old result or a bias

template <class T>
struct Left {  // A(i, k) = data[i * row + k * column], for `times` blocks of k, `jump` apart
    const T* data;
    long row, column;
    int times = 1;
    long jump = 0;
};
template <class T>
struct Right {  // B(k, j) = data[k * row + j], or panels as wide as two vectors
    const T* data;
    long row;
    bool panels = false;
    long jump = 0;
};

template <class T, int M, int V, bool TAIL>
void tile(Left<T> a, Right<T> b, int K, T* c, long ldc, int n, Begin begin, const T* bias) {
    constexpr int w = W<T>;
    const int tail = n - (V - 1) * w;  // used elements of the last vector
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
                for (int j = 0; j < V; j++)
                    sum[i][j] = fused(splat(pa[i * a.row]), x[j], sum[i][j]);
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

// B (K, N) as panels, padded with zero columns. B(k, n) = at(k, n).
template <class T>
struct Panels {
    int K = 0, N = 0;
    Buffer<T> data;

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

// Rows of the batch as elements of vectors, and back.
#pragma once

#include "vectors.h"

#ifdef __AVX2__
// Transpose 8 x 8 numbers: row k of the result has element k of every row.
inline void transpose_8x8(const float* from, long row, __m256 (&to)[8]) {
    __m256 x[8], y[8];
    for (int i = 0; i < 8; i++) x[i] = _mm256_loadu_ps(from + i * row);
    for (int i = 0; i < 8; i += 2) {
        y[i] = _mm256_unpacklo_ps(x[i], x[i + 1]);
        y[i + 1] = _mm256_unpackhi_ps(x[i], x[i + 1]);
    }
    for (int i = 0; i < 8; i += 4)
        for (int k = 0; k < 2; k++) {
            x[i + 2 * k] = _mm256_shuffle_ps(y[i + k], y[i + 2 + k], 0x44);
            x[i + 2 * k + 1] = _mm256_shuffle_ps(y[i + k], y[i + 2 + k], 0xee);
        }
    for (int i = 0; i < 4; i++) {
        to[i] = _mm256_permute2f128_ps(x[i], x[i + 4], 0x20);
        to[i + 4] = _mm256_permute2f128_ps(x[i], x[i + 4], 0x31);
    }
}
#endif

// to[k W + r] = from[r row + k] for `rows` <= W rows and `count` numbers of each, then `fill`.
template <class T>
inline void transpose(const T* from, long row, int rows, int count, T* to, double fill = 0) {
    int r = 0;
#ifdef __AVX2__
    if constexpr (sizeof(T) == sizeof(float))
        for (; r + 8 <= rows; r += 8) {
            int k = 0;
            for (; k + 8 <= count; k += 8) {
                __m256 block[8];
                transpose_8x8(from + r * row + k, row, block);
                for (int i = 0; i < 8; i++) _mm256_storeu_ps(to + (k + i) * W<T> + r, block[i]);
            }
            for (; k < count; k++)
                for (int i = 0; i < 8; i++) to[k * W<T> + r + i] = from[(r + i) * row + k];
        }
#endif
    for (int k = 0; k < count; k++)
        for (int i = r; i < W<T>; i++)
            to[k * W<T> + i] = i < rows ? from[i * row + k] : T(fill);
}

// The inverse; with ADD the numbers are added to those that are there.
template <bool ADD = false, class T>
inline void transpose_back(const T* from, int rows, int count, T* to, long row) {
    int r = 0;
#ifdef __AVX2__
    if constexpr (sizeof(T) == sizeof(float))
        for (; r + 8 <= rows; r += 8) {
            int k = 0;
            for (; k + 8 <= count; k += 8) {
                __m256 block[8];
                transpose_8x8(from + k * W<T> + r, W<T>, block);
                for (int i = 0; i < 8; i++) {
                    float* out = to + (r + i) * row + k;
                    if (ADD) block[i] = _mm256_add_ps(block[i], _mm256_loadu_ps(out));
                    _mm256_storeu_ps(out, block[i]);
                }
            }
            for (; k < count; k++)
                for (int i = r; i < r + 8; i++) {
                    T* out = to + i * row + k;
                    *out = (ADD ? *out : T(0)) + from[k * W<T> + i];
                }
        }
#endif
    for (; r < rows; r++)
        for (int k = 0; k < count; k++) {
            T* out = to + r * row + k;
            *out = (ADD ? *out : T(0)) + from[k * W<T> + r];
        }
}

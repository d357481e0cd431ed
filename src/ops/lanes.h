/* lanes: vectors as wide as the instruction set's registers, over f32 or bf16 storage (GCC's vector types):
 * for what `omp simd` cannot say, many sums at once that must stay in registers.
 *
 *     vector sum = {0};
 *     for (i64 j = 0; j + LANES <= n; j += LANES) sum += load_values(x, DT_BF16, j);
 *     float total = sum_of(sum);
 */
#pragma once
#include "ops/op.h"

#if defined ISA_v4
#include <immintrin.h>
enum { LANES = 16 };
#elif defined ISA_v3
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif
#define INLINE static inline __attribute__((always_inline))
typedef float vector __attribute__((vector_size(4 * LANES), may_alias));
typedef float loose __attribute__((vector_size(4 * LANES), may_alias, aligned(4))); // in memory, anywhere
typedef float four __attribute__((vector_size(16), may_alias, aligned(4)));
typedef u32 words __attribute__((vector_size(4 * LANES), may_alias));
typedef u16 halves __attribute__((vector_size(2 * LANES), may_alias, aligned(2)));

/* LANES stored values from index j on, as f32. */
INLINE vector load_values(const void *p, dtype type, i64 j)
{
    if (type == DT_F32) return *(const loose *)((const float *)p + j);
#ifdef ISA_v4
    __m256i x = _mm256_loadu_si256((const __m256i *)((const bf16 *)p + j));
    return (vector)_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16);
#else
    return (vector)(__builtin_convertvector(*(const halves *)((const bf16 *)p + j), words) << 16);
#endif
}
INLINE float load_value(const void *p, dtype type, i64 j)
{
    return type == DT_F32 ? ((const float *)p)[j] : bf16_to_f32(((const bf16 *)p)[j]);
}
#ifdef ISA_v4
INLINE void store_bf16(bf16 *p, vector x) // the instruction flushes subnormals, which no sum here can tell
{
    _mm256_storeu_si256((__m256i *)p, (__m256i)_mm512_cvtneps_pbh((__m512)x));
}
#else
INLINE void store_bf16(bf16 *p, vector x) // to nearest even; NaN stays
{
    words u = (words)x, nan = (words)((u & 0x7FFFFFFF) > 0x7F800000);
    u = (((u + 0x7FFF + (u >> 16 & 1)) & ~nan) | ((u | 0x400000) & nan)) >> 16;
    *(halves *)p = __builtin_convertvector(u, halves);
}
#endif
INLINE float sum_of(vector x)
{
    union {
        vector v;
        float f[LANES / 4][4];
    } u = {.v = x};
    float sum[4] = {0};
    for (int i = 0; i < LANES / 4; i++)
        for (int j = 0; j < 4; j++) sum[j] += u.f[i][j];
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

/* Element i: the sum of x[i]. */
INLINE four sums_of(const vector x[4])
{
    four part[4];
    for (int i = 0; i < 4; i++) {
        union {
            vector v;
            four part[LANES / 4];
        } u = {.v = x[i]};
        part[i] = u.part[0];
#pragma GCC unroll 3
        for (int j = 1; j < LANES / 4; j++) part[i] += u.part[j];
    }
    four a = __builtin_shufflevector(part[0], part[1], 0, 4, 1, 5) +
             __builtin_shufflevector(part[0], part[1], 2, 6, 3, 7);
    four b = __builtin_shufflevector(part[2], part[3], 0, 4, 1, 5) +
             __builtin_shufflevector(part[2], part[3], 2, 6, 3, 7);
    return __builtin_shufflevector(a, b, 0, 1, 4, 5) + __builtin_shufflevector(a, b, 2, 3, 6, 7);
}
/* x . y, both stored as TYPE. */
INLINE float dot_values(const void *x, const void *y, dtype type, i64 n)
{
    vector sum = {0};
    i64 j = 0;
    for (; j + LANES <= n; j += LANES) sum += load_values(x, type, j) * load_values(y, type, j);
    float rest = 0;
    for (; j < n; j++) rest += load_value(x, type, j) * load_value(y, type, j);
    return sum_of(sum) + rest;
}
/* Writes n f32 values times FACTOR as TYPE. */
INLINE void store_row(void *to, dtype type, const float *from, float factor, i64 n)
{
    i64 j = 0;
    for (; j + LANES <= n; j += LANES) {
        vector x = *(const loose *)(from + j) * factor;
        if (type == DT_F32)
            *(loose *)((float *)to + j) = x;
        else
            store_bf16((bf16 *)to + j, x);
    }
    for (; j < n; j++) {
        if (type == DT_F32)
            ((float *)to)[j] = from[j] * factor;
        else
            ((bf16 *)to)[j] = f32_to_bf16(from[j] * factor);
    }
}
/* Asks for the lines of ROWS rows of BYTES, long before they are needed: the columns of one head in a fused
 * buffer are lines far apart, which the processor does not foresee. The empty asm counts as an effect: gcc 12
 * takes a function that only prefetches for one that does nothing and drops the calls. */
INLINE void prefetch_rows(const char *row, i64 bytes, i64 stride, i64 rows, bool to_write)
{
    __asm__ volatile("");
    for (i64 r = 0; r < rows; r++, row += stride)
        for (i64 j = 0; j < bytes; j += 64) {
            if (to_write)
                __builtin_prefetch(row + j, 1, 2);
            else
                __builtin_prefetch(row + j, 0, 2);
        }
}

/* norm_rows: one row of the joint and of the norms, in f32, shared by the ops themselves and by the fused
 * ones, so that a fused row has the bits of its sequence.
 *
 *     row_join(h, x, b, 1, 1, n);
 *     s[r] = row_rms(y, h, gain, eps, native, n);
 *
 * noinline: inlined into different loops, the compiler might contract products differently. */
#pragma once
#include "ops/norm_ops.h"
#include <math.h>

#define ROW static __attribute__((noinline, unused))

/* y = a x + c b; y may be x. */
ROW void row_join(float *y, const float *x, const float *b, float a, float c, i64 n)
{
    if (a == 1 && c == 1) {
#pragma omp simd
        for (i64 j = 0; j < n; j++) y[j] = x[j] + b[j];
    } else {
#pragma omp simd
        for (i64 j = 0; j < n; j++) y[j] = a * x[j] + c * b[j];
    }
}

/* y = gain x s; returns s = (mean x^2 + eps)^(-1/2), rounded to bf16 if NATIVE. GAIN may be NULL. */
ROW float row_rms(float *restrict y, const float *restrict x, const float *restrict gain, float eps,
                  bool native, i64 n)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (i64 j = 0; j < n; j++) sum += x[j] * x[j];
    float s = kept(1 / sqrtf(kept(sum / (float)n, native) + eps), native);
    if (gain)
        for (i64 j = 0; j < n; j++) y[j] = x[j] * s * gain[j];
    else
        for (i64 j = 0; j < n; j++) y[j] = x[j] * s;
    return s;
}

/* y = gain (x - m) s + bias; GAIN, BIAS may be NULL. REST is what rounding left in m. */
ROW void row_affine(float *restrict y, const float *restrict x, const float *restrict gain,
                    const float *restrict bias, float m, float rest, float s, i64 n)
{
    if (gain && bias)
        for (i64 j = 0; j < n; j++) y[j] = ((x[j] - m) - rest) * s * gain[j] + bias[j];
    else if (gain)
        for (i64 j = 0; j < n; j++) y[j] = ((x[j] - m) - rest) * s * gain[j];
    else if (bias)
        for (i64 j = 0; j < n; j++) y[j] = ((x[j] - m) - rest) * s + bias[j];
    else
        for (i64 j = 0; j < n; j++) y[j] = ((x[j] - m) - rest) * s;
}

/* The layer norm of a row: *mean and *s are saved. The second pass also measures what rounding left in the
 * first one's mean. */
ROW void row_layer(float *restrict y, const float *restrict x, const float *restrict gain,
                   const float *restrict bias, float eps, bool native, i64 n, float *mean, float *s)
{
    float sum = 0, rest = 0, square = 0;
#pragma omp simd reduction(+ : sum)
    for (i64 j = 0; j < n; j++) sum += x[j];
    float m = sum / (float)n;
#pragma omp simd reduction(+ : rest, square)
    for (i64 j = 0; j < n; j++) {
        float t = x[j] - m;
        rest += t;
        square += t * t;
    }
    rest /= (float)n;
    float variance = square / (float)n - rest * rest;
    *mean = kept(m + rest, native);
    *s = kept(1 / sqrtf((variance > 0 ? variance : variance * 0) + eps), native); // NaN stays
    if (native) m = *mean, rest = 0;
    row_affine(y, x, gain, bias, m, rest, *s, n);
}

/* to = d + add, D first rounded to bf16 if ROUNDED, as if it had been stored; TO may be ADD. */
ROW void row_add(float *to, const float *d, const float *add, bool rounded, i64 n)
{
    if (rounded) {
#pragma omp simd
        for (i64 j = 0; j < n; j++) to[j] = bf16_to_f32(f32_to_bf16(d[j])) + add[j];
    } else {
#pragma omp simd
        for (i64 j = 0; j < n; j++) to[j] = d[j] + add[j];
    }
}

/* vec: exp, sigmoid, tanh and friends in plain C that the compiler vectorises inside `omp simd` loops.
 *
 *     #pragma omp simd
 *     for (i64 j = 0; j < n; j++) y[j] = x[j] * vec_sigmoid(x[j]);
 *
 * No branch, no table, no call: range reduction by a rounding constant (-ffast-math would delete it: never
 * use it), a minimax polynomial (Remez exchange; the coefficients are our own), and 2^n added to the
 * exponent's bits. Too large gives infinity, a result below 2^-126 gives 0, NaN gives NaN.
 *
 * Error in units in the last place over all f32 values with a normal result, bounded by tests/test_vec.c at
 * each instruction set (without fused multiply-add, where it differs):
 *
 *     exp 1.2 (1.5)   exp2 1.1 (1.4)   log 0.9   sigmoid 2.5   tanh 1.7   expm1 4.5 (5.5)
 *     normal: cdf 9 (1 + x^2), pdf 3 (1 + x^2): x^2 / 2 rounds in an exponent
 *
 * Speed, in cache, one Zen 5 core, ns a value (v4, v3, plain): exp 0.11 0.21 0.78, silu 0.14 0.31 1.0. The
 * same in AVX-512 intrinsics (vreduceps, vscalefps) took 0.07 and 0.10: not enough to write everything twice.
 */
#pragma once
#include "base/base.h"

static inline float vec_from_bits(u32 u)
{
    union {
        u32 u;
        float f;
    } v = {.u = u};
    return v.f;
}
static inline u32 vec_bits(float f)
{
    union {
        float f;
        u32 u;
    } v = {.f = f};
    return v.u;
}
#define VEC_ROUND 0x1.8p23f // added, it leaves the nearest integer in the low bits
/* p 2^n, the integer n being T - VEC_ROUND: n goes straight into the exponent of p, which is within sqrt(2)
 * of 1. Where X is outside (LOW, HIGH) those bits mean nothing: 0, infinity or NaN replaces them. */
static inline float vec_scale(float p, float t, float x, float low, float high)
{
    float y = vec_from_bits(vec_bits(p) + (vec_bits(t) << 23));
    y = x < high ? y : x + __builtin_inff();
    return x < low ? 0 : y;
}

static inline float vec_exp2(float x)
{
    float t = x + VEC_ROUND, f = x - (t - VEC_ROUND);
    float q = 1.5595489660e-4f;
    q = q * f + 1.3406950844e-3f;
    q = q * f + 9.6176892870e-3f;
    q = q * f + 5.5503097058e-2f;
    q = q * f + 2.4022652809e-1f;
    q = q * f + 6.9314721540e-1f;
    return vec_scale(q * f + 1, t, x, -126, 128);
}

/* (e^r - 1) / r for |r| <= ln(2) / 2 */
static inline float vec_exp_core(float r)
{
    float q = 1.4061972646e-3f;
    q = q * r + 8.3792029956e-3f;
    q = q * r + 4.1664761321e-2f;
    q = q * r + 1.6666362903e-1f;
    q = q * r + 5.0000004399e-1f;
    return q * r + 1;
}

static inline float vec_exp(float x)
{
    float t = x * 1.44269504f + VEC_ROUND, n = t - VEC_ROUND;
    float r = x - n * 0x1.62e4p-1f - n * 1.42860677e-6f; // ln 2 in two parts: the first product is exact
    return vec_scale(vec_exp_core(r) * r + 1, t, x, -87.3365448f, 88.7228394f);
}

static inline float vec_sigmoid(float x) { return 1 / (1 + vec_exp(-x)); }

static inline float vec_tanh(float x)
{
    float z = x * x, q = -6.2742384850e-3f; // near 0: odd polynomial; farther: 1 - 2 / (e^2|x| + 1)
    q = q * z + 2.1071678236e-2f;
    q = q * z - 5.3852309715e-2f;
    q = q * z + 1.3332586138e-1f;
    q = q * z - 3.3333317560e-1f;
    float near = q * z * x + x, a = x < 0 ? -x : x;
    float far = 1 - 2 / (vec_exp(2 * a) + 1);
    far = x < 0 ? -far : far;
    return a < 0.55f ? near : far;
}

/* e^x - 1 without the loss near 0: the polynomial inside, exp outside. */
static inline float vec_expm1(float x)
{
    float far = vec_exp(x) - 1, near = vec_exp_core(x) * x;
    return x > -0.3465f && x < 0.3465f ? near : far;
}

/* The normal distribution: *cdf = P(N < x), *pdf = its density. Exact GELU is x cdf, its slope cdf + x pdf.
 * The tail is pdf times a polynomial in u = 1 / (1 + 0.3 |x|) (Abramowitz and Stegun 7.1.26, eight terms):
 * small values of cdf keep their relative accuracy, which (1 + erf) / 2 loses. */
static inline void vec_normal(float x, float *cdf, float *pdf)
{
    float a = x < 0 ? -x : x, e = vec_exp(-0.5f * x * x), u = 1 / (1 + 0.3f * a);
    float q = 3.593179145e-2f;
    q = q * u - 1.582762259e-1f;
    q = q * u + 2.082069768e-1f;
    q = q * u - 5.539416974e-2f;
    q = q * u + 1.294693605e-1f;
    q = q * u + 9.963744814e-2f;
    q = q * u + 1.207983650e-1f;
    q = q * u + 1.196263893e-1f;
    float tail = q * u * e;
    *cdf = x > 0 ? 1 - tail : tail;
    *pdf = 0.398942280f * e;
}
/* log x: -infinity at 0, NaN below. */
static inline float vec_log(float x)
{
    bool small = x < 0x1p-126f;
    float scaled = small ? x * 0x1p25f : x;
    u32 u = vec_bits(scaled) - 0x3F3504F3u; // so that the mantissa runs from sqrt(1/2) to sqrt(2)
    float e = (float)((i32)u >> 23) - (small ? 25.0f : 0.0f);
    float f = vec_from_bits((u & 0x7FFFFF) + 0x3F3504F3u) - 1, z = f * f;
    float q = -7.6346510896e-2f;
    q = q * f + 1.2761647974e-1f;
    q = q * f - 1.3160153412e-1f;
    q = q * f + 1.4201744167e-1f;
    q = q * f - 1.6623359037e-1f;
    q = q * f + 2.0001227723e-1f;
    q = q * f - 2.5000820810e-1f;
    q = q * f + 3.3333331692e-1f;
    float y = e * 1.42860677e-6f + q * z * f - 0.5f * z + f + e * 0x1.62e4p-1f;
    y = x > 0 ? y : -__builtin_inff();
    y = x < 0 ? __builtin_nanf("") : y;
    return x < __builtin_inff() ? y : x; // infinity, NaN
}

/* frac: what the forward and backward operations of Frac-Connections share (equations: ops/frac.c). Both have
 * h, read, carry, beta, weight, scale, gain as their first inputs.
 *
 *     frac_shape s = frac_shape_of(c);
 *     frac_scratch w = frac_lay_out(c, s);       // once a call, before the threads
 *     frac_coefficients(w.fixed, u, scale, s.m, C);
 */
#pragma once
#include "ops/lanes.h"
#include "ops/vec.h"
#include <math.h>
#include <string.h>

enum { MOST_FRACTIONS = 16, MOST_COEFFICIENTS = MOST_FRACTIONS * (2 * MOST_FRACTIONS + 1) };
enum { FRAC_H, FRAC_READ, FRAC_CARRY, FRAC_BETA, FRAC_WEIGHT, FRAC_SCALE, FRAC_GAIN }; // inputs

/* The definition's coefficient of a row: C[j][k] from U, in double. */
static inline double frac_coefficient64(const op_call64 *c, const double *u, i64 m, i64 j, i64 k)
{
    const double *read = c->in[1], *carry = c->in[2], *beta = c->in[3], *scale = c->in[5];
    double fixed = k == 0 ? (beta ? beta[j] : 0) : k <= m ? read[j * m + k - 1] : carry[j * m + k - 1 - m];
    return u ? fixed + scale[k > 0] * tanh(u[j * (2 * m + 1) + k]) : fixed;
}

/* ---- kernels */

typedef struct frac_shape {
    i64 m, n, K, padded; // padded: K up to whole vectors
} frac_shape;

static inline frac_shape frac_shape_of(const op_call *c)
{
    i64 m = c->in[1].n, K = 2 * m + 1;
    return (frac_shape){m, c->in[0].n / m, K, round_up(K, LANES)};
}

INLINE vector get(const float *p, i64 left)
{
    if (left >= LANES) return *(const loose *)p;
    vector x = {0};
    memcpy(&x, p, (size_t)left * sizeof *p);
    return x;
}
INLINE void put(float *p, vector x, i64 left)
{
    if (left >= LANES)
        *(loose *)p = x;
    else
        memcpy(p, &x, (size_t)left * sizeof *p);
}

/* C[j][k] = fixed[j][k] + scale tanh u[j][k]; FIXED has beta, read and carry side by side. */
static inline void frac_coefficients(const float *fixed, const float *u, const float *scale, i64 m, float *to)
{
    i64 K = 2 * m + 1;
#pragma omp simd
    for (i64 a = 0; a < m * K; a++) to[a] = scale[1] * vec_tanh(u[a]);
    for (i64 j = 0; j < m; j++) to[j * K] = scale[0] * vec_tanh(u[j * K]);
#pragma omp simd
    for (i64 a = 0; a < m * K; a++) to[a] += fixed[a];
}

static inline void frac_fixed(const op_call *c, i64 m, float *to)
{
    const float *read = c->in[1].p, *carry = c->in[2].p, *beta = c->in[3].p;
    for (i64 j = 0; j < m; j++, to += 2 * m + 1) {
        to[0] = beta ? beta[j] : 0;
        memcpy(to + 1, read + j * m, (size_t)m * sizeof *to);
        memcpy(to + 1 + m, carry + j * m, (size_t)m * sizeof *to);
    }
}

/* A call's scratch, before the threads: gain x weight transposed [n][padded] for the sums and as it is
 * [K][n], both NULL where nothing is dynamic; beta, read and carry side by side [m][K]. */
typedef struct frac_scratch {
    float *fixed, *transposed, *scaled, *rest;
} frac_scratch;

static inline size_t frac_shared_floats(frac_shape s, bool dynamic)
{
    return (size_t)round_up(s.m * s.K, 16) + (dynamic ? (size_t)round_up(s.n * (s.padded + s.K), 16) : 0);
}

static inline frac_scratch frac_lay_out(const op_call *c, frac_shape s)
{
    const float *weight = c->in[FRAC_WEIGHT].p, *gain = c->in[FRAC_GAIN].p;
    frac_scratch to = {.fixed = (float *)call_scratch(c)};
    to.rest = to.fixed + frac_shared_floats(s, weight != NULL);
    frac_fixed(c, s.m, to.fixed);
    if (!weight) return to;
    to.transposed = to.fixed + round_up(s.m * s.K, 16);
    to.scaled = to.transposed + s.n * s.padded;
    for (i64 e = 0; e < s.n; e++)
        for (i64 k = 0; k < s.padded; k++) {
            float x = k < s.K ? weight[k * s.n + e] * (gain ? gain[e] : 1) : 0;
            to.transposed[e * s.padded + k] = x;
            if (k < s.K) to.scaled[k * s.n + e] = x;
        }
    return to;
}

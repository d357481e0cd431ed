/* hyper: what the operations of Hyper- and Frac-Connections share, and the rows of their kernels (equations:
 * ops/hyper.c). The first seven inputs of hyper_open, hyper_join and hyper_open_grad are the same.
 *
 *     hyper_call w = hyper_lay_out(c);             // once a call, before the threads
 *     hyper_form(w.s)->open(&w, h, &row);          // a row
 *
 * A row's function is made once for every usual number of streams, so that its sums stay in registers, and is
 * never inlined: the fused operations have the bits of their sequences. */
#pragma once
#include "ops/lanes.h"
#include "ops/vec.h"
#include <math.h>
#include <string.h>

enum { MOST_STREAMS = 16, MOST_COEFFICIENTS = MOST_STREAMS * (2 * MOST_STREAMS + 1) };
enum { HYPER_H, HYPER_READ, HYPER_CARRY, HYPER_BETA, HYPER_WEIGHT, HYPER_SCALE, HYPER_GAIN }; // inputs
#define HYPER_ROW static __attribute__((noinline, unused))

/* m streams of n values; the branch reads (and writes) q of them: 1 or m; K = 1 + q + m coefficients each */
typedef struct hyper_shape {
    i64 m, q, n, K;
} hyper_shape;

static inline hyper_shape hyper_shape_of(const tensor *h, const tensor *read, const tensor *carry)
{
    i64 m = cols(carry), q = cols(read);
    return (hyper_shape){m, q, cols(h) / m, 1 + q + m};
}

/* What infer holds the first seven inputs against. */
static inline status hyper_need(op_build *b)
{
    tensor **in = b->n->in;
    const tensor *weight = in[HYPER_WEIGHT], *gain = in[HYPER_GAIN];
    i64 m = cols(in[HYPER_CARRY]), q = cols(in[HYPER_READ]), d = cols(in[HYPER_H]);
    TRY(need(b, m >= 1 && m <= MOST_STREAMS, "%lld streams; from 1 to %d", (long long)m, MOST_STREAMS));
    TRY(need(b, d % m == 0, "rows of %lld do not divide into %lld streams", (long long)d, (long long)m));
    TRY(need(b, (q == 1 || q == m) && count(in[HYPER_READ]) == m * q && count(in[HYPER_CARRY]) == m * m,
             "carry must be [%lld, %lld], and read too or [%lld, 1]", (long long)m, (long long)m,
             (long long)m));
    TRY(need(b, !weight == !in[HYPER_BETA] && !weight == !in[HYPER_SCALE] && (weight || !gain),
             "beta, weight and scale come together (dynamic) or not at all; gain only with them"));
    if (!weight) return OK;
    hyper_shape s = hyper_shape_of(in[HYPER_H], in[HYPER_READ], in[HYPER_CARRY]);
    TRY(need(b, count(weight) == s.K * s.n && cols(weight) == s.n, "weight must be [%lld, %lld]",
             (long long)s.K, (long long)s.n));
    TRY(need(b, count(in[HYPER_BETA]) == m && count(in[HYPER_SCALE]) == 2, "beta must be [%lld], scale [2]",
             (long long)m));
    return need(b, !gain || count(gain) == s.n, "gain must be [%lld]", (long long)s.n);
}

/* ---- definition */

/* The fixed part of coefficient C[j][k], in double: B, then Y, then A. */
static inline double hyper_fixed64(const op_call64 *c, hyper_shape s, i64 j, i64 k)
{
    const double *read = c->in[HYPER_READ], *carry = c->in[HYPER_CARRY], *beta = c->in[HYPER_BETA];
    if (k == 0) return beta ? beta[j] : 0;
    return k <= s.q ? read[j * s.q + k - 1] : carry[j * s.m + k - 1 - s.q];
}
static inline double hyper_coefficient64(const op_call64 *c, hyper_shape s, const double *u, i64 j, i64 k)
{
    double fixed = hyper_fixed64(c, s, j, k);
    return u ? fixed + c->in[HYPER_SCALE][k > 0] * tanh(u[j * s.K + k]) : fixed;
}
/* Outputs OUT.. of the open of row R, which is H: x, carried, b, u, s. */
static inline void hyper_open64(const op_call64 *c, hyper_shape s, i64 r, const double *h, int out)
{
    const double *weight = c->in[HYPER_WEIGHT], *gain = c->in[HYPER_GAIN];
    double *u = weight ? c->out[out + 3] + r * s.m * s.K : NULL, N = (double)s.n;
    for (i64 j = 0; u && j < s.m; j++) {
        double mean = 0, square = 0;
        for (i64 e = 0; attr(c->node, "centred") > 0 && e < s.n; e++) mean += h[j * s.n + e] / N;
        for (i64 e = 0; e < s.n; e++) square += pow(h[j * s.n + e] - mean, 2);
        double norm = c->out[out + 4][r * s.m + j] = 1 / sqrt(square / N + attr(c->node, "eps"));
        for (i64 k = 0; k < s.K; k++) {
            u[j * s.K + k] = 0;
            for (i64 e = 0; e < s.n; e++)
                u[j * s.K + k] += (h[j * s.n + e] - mean) * norm * (gain ? gain[e] : 1) * weight[k * s.n + e];
        }
        c->out[out + 2][r * s.m + j] = hyper_coefficient64(c, s, u, j, 0);
    }
    for (i64 k = 1; k < s.K; k++) // x, then carried
        for (i64 e = 0; e < s.n; e++) {
            double sum = 0;
            for (i64 j = 0; j < s.m; j++) sum += hyper_coefficient64(c, s, u, j, k) * h[j * s.n + e];
            if (k <= s.q)
                c->out[out][(r * s.q + k - 1) * s.n + e] = sum;
            else
                c->out[out + 1][(r * s.m + k - 1 - s.q) * s.n + e] = sum;
        }
}

/* ---- kernels */

typedef struct hyper_call { // what the rows of a call share
    hyper_shape s;
    const float *fixed;          // [m][K]: beta, read and carry side by side
    const float *scaled, *total; // gain x weight [K][n] and its rows' sums [K]; NULL: static
    const float *scale;
    float *rest; // scratch behind
    float eps;
    bool centred;
} hyper_call;

static inline size_t hyper_shared_floats(hyper_shape s)
{
    return (size_t)(round_up(s.m * s.K, 16) + round_up(s.K, 16) + round_up(s.K * s.n, 16));
}

static inline hyper_call hyper_lay_out(const op_call *c)
{
    const node *op = c->node;
    hyper_shape s = hyper_shape_of(op->in[HYPER_H], op->in[HYPER_READ], op->in[HYPER_CARRY]);
    const float *read = c->in[HYPER_READ].p, *carry = c->in[HYPER_CARRY].p, *beta = c->in[HYPER_BETA].p;
    const float *weight = c->in[HYPER_WEIGHT].p, *gain = c->in[HYPER_GAIN].p;
    float *fixed = (float *)call_scratch(c), *total = fixed + round_up(s.m * s.K, 16);
    float *scaled = total + round_up(s.K, 16);
    for (i64 j = 0; j < s.m; j++) {
        fixed[j * s.K] = beta ? beta[j] : 0;
        memcpy(fixed + j * s.K + 1, read + j * s.q, (size_t)s.q * sizeof *fixed);
        memcpy(fixed + j * s.K + 1 + s.q, carry + j * s.m, (size_t)s.m * sizeof *fixed);
    }
    for (i64 k = 0; weight && k < s.K; k++) {
        total[k] = 0;
        for (i64 e = 0; e < s.n; e++)
            total[k] += scaled[k * s.n + e] = weight[k * s.n + e] * (gain ? gain[e] : 1);
    }
    return (hyper_call){.s = s,
                        .fixed = fixed,
                        .scaled = weight ? scaled : NULL,
                        .total = total,
                        .scale = c->in[HYPER_SCALE].p,
                        .rest = scaled + round_up(s.K * s.n, 16),
                        .eps = (float)attr(op, "eps"),
                        .centred = attr(op, "centred") > 0};
}

/* Rounds a row into place. */
static inline void hyper_done(const op_call *c, int i, i64 r, const float *row)
{
    const view *v = &c->out[i];
    if (v->dtype == DT_BF16) store_row((bf16 *)v->p + r * v->stride, DT_BF16, row, 1, v->n);
}
/* The same, and ROW as a later reader would find it. */
static inline void hyper_settled(const op_call *c, int i, i64 r, float *row)
{
    const view *v = &c->out[i];
    hyper_done(c, i, r, row);
    if (v->dtype == DT_BF16) widen(row, (const bf16 *)v->p + r * v->stride, v->n);
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
/* TO[a] = the sum of X[a]'s lanes. */
INLINE void put_sums(float *to, const vector *x, i64 n)
{
    i64 whole = n & ~(i64)3;
    for (i64 a = 0; a < whole; a += 4) *(four *)(to + a) = sums_of(x + a);
    for (i64 a = whole; a < n; a++) to[a] = sum_of(x[a]);
}

/* C[j][k] = fixed[j][k] + scale tanh u[j][k] */
static inline void hyper_coefficients(const hyper_call *w, const float *u, i64 m, i64 K, float *C)
{
#pragma omp simd
    for (i64 a = 0; a < m * K; a++) C[a] = w->scale[1] * vec_tanh(u[a]);
    for (i64 j = 0; j < m; j++) C[j * K] = w->scale[0] * vec_tanh(u[j * K]);
#pragma omp simd
    for (i64 a = 0; a < m * K; a++) C[a] += w->fixed[a];
}

/* The mean of a stream. */
INLINE float hyper_mean(const float *x, i64 n)
{
    vector sum = {0};
    i64 e = 0;
    for (; e + LANES <= n; e += LANES) sum += *(const loose *)(x + e);
    float rest = 0;
    for (; e < n; e++) rest += x[e];
    return (sum_of(sum) + rest) / (float)n;
}

typedef struct hyper_row { // what the open of a row writes
    float *x, *carried;
    float *b, *u, *s; // NULL: static
} hyper_row;

/* TO[k][j] = H_j . W_k for KB rows k of W: m x KB sums at a time. */
INLINE void project(const float *h, const float *w, i64 m, i64 n, i64 kb, float *to)
{
    vector sum[3 * MOST_STREAMS];
    for (i64 a = 0; a < kb * m; a++) sum[a] = (vector){0};
    i64 e = 0;
    for (; e + LANES <= n; e += LANES)
        for (i64 k = 0; k < kb; k++) {
            vector x = *(const loose *)(w + k * n + e);
            for (i64 j = 0; j < m; j++) sum[k * m + j] += x * *(const loose *)(h + j * n + e);
        }
    for (i64 k = 0; e < n && k < kb; k++)
        for (i64 j = 0; j < m; j++) sum[k * m + j] += get(w + k * n + e, n - e) * get(h + j * n + e, n - e);
    put_sums(to, sum, kb * m);
}

/* u and s of a row. */
INLINE void arguments(const hyper_call *w, const float *h, i64 m, i64 q, float *u, float *s)
{
    i64 n = w->s.n, K = 1 + q + m, whole = K / 3 * 3;
    float sums[MOST_COEFFICIENTS];
    for (i64 k = 0; k < whole; k += 3) project(h, w->scaled + k * n, m, n, 3, sums + k * m);
    for (i64 k = whole; k < K; k++) project(h, w->scaled + k * n, m, n, 1, sums + k * m);
    for (i64 j = 0; j < m; j++) {
        float mean = w->centred ? hyper_mean(h + j * n, n) : 0;
        vector square = {0}, middle = (vector){0} + mean;
        i64 e = 0;
        for (; e + LANES <= n; e += LANES) {
            vector x = *(const loose *)(h + j * n + e) - middle;
            square += x * x;
        }
        float sum = sum_of(square);
        for (; e < n; e++) sum += (h[j * n + e] - mean) * (h[j * n + e] - mean);
        s[j] = 1 / sqrtf(sum / (float)n + w->eps);
        for (i64 k = 0; k < K; k++) u[j * K + k] = s[j] * (sums[k * m + j] - mean * w->total[k]);
    }
}

/* LEFT >= LANES values from E on of every part of X and H' (fewer at a stream's end). */
INLINE void mix_lanes(const float *h, const float *C, i64 m, i64 q, i64 n, i64 e, i64 left,
                      const hyper_row *to)
{
    vector H[MOST_STREAMS];
    i64 K = 1 + q + m;
    for (i64 j = 0; j < m; j++) H[j] = get(h + j * n + e, left);
    for (i64 k = 1; k < K; k++) {
        vector sum = H[0] * C[k];
        for (i64 j = 1; j < m; j++) sum += H[j] * C[j * K + k];
        put((k <= q ? to->x + (k - 1) * n : to->carried + (k - 1 - q) * n) + e, sum, left);
    }
}

INLINE void open_row(const hyper_call *w, i64 m, i64 q, const float *h, const hyper_row *to)
{
    i64 n = w->s.n, K = 1 + q + m, e = 0;
    float own[MOST_COEFFICIENTS];
    const float *C = w->fixed;
    if (w->scaled) {
        arguments(w, h, m, q, to->u, to->s);
        hyper_coefficients(w, to->u, m, K, own);
        for (i64 j = 0; j < m; j++) to->b[j] = own[j * K];
        C = own;
    }
    for (; e + LANES <= n; e += LANES) mix_lanes(h, C, m, q, n, e, LANES, to);
    if (e < n) mix_lanes(h, C, m, q, n, e, n - e, to);
}

/* H^_i = b_i y_i + H'_i; H may be CARRIED. */
INLINE void close_row(i64 m, i64 q, i64 n, const float *b, const float *carried, const float *y, float *h)
{
    for (i64 i = 0; i < m; i++) {
        float bi = b[i];
        const float *part = y + (q == 1 ? 0 : i * n), *from = carried + i * n;
        float *to = h + i * n;
#pragma omp simd
        for (i64 e = 0; e < n; e++) to[e] = bi * part[e] + from[e];
    }
}

INLINE void close_grad_lanes(i64 m, i64 q, i64 n, i64 e, i64 left, const float *b, const float *y,
                             const float *G, float *dy, vector *sum)
{
    vector shared = {0};
    for (i64 i = 0; i < m; i++) {
        vector g = get(G + i * n + e, left), x = get(y + (q == 1 ? 0 : i * n) + e, left);
        sum[i] += x * g;
        shared = q == 1 && i ? shared + g * b[i] : g * b[i];
        if (q > 1) put(dy + i * n + e, shared, left);
    }
    if (q == 1) put(dy + e, shared, left);
}
/* dy_i = b_i G_i (their sum if all streams share y), DB[i] = y_i . G_i */
INLINE void close_grad_row(i64 m, i64 q, i64 n, const float *b, const float *y, const float *G, float *dy,
                           float *db)
{
    vector sum[MOST_STREAMS];
    i64 e = 0;
    for (i64 i = 0; i < m; i++) sum[i] = (vector){0};
    for (; e + LANES <= n; e += LANES) close_grad_lanes(m, q, n, e, LANES, b, y, G, dy, sum);
    if (e < n) close_grad_lanes(m, q, n, e, n - e, b, y, G, dy, sum);
    put_sums(db, sum, m);
}

/* What infer has made sure of, for the compiler. */
INLINE hyper_shape sane(hyper_shape s)
{
    if (s.m < 1 || s.m > MOST_STREAMS || s.q < 1 || s.q > s.m || s.n < 0 || s.n > INT32_MAX)
        __builtin_unreachable();
    return s;
}

/* ---- the forms: (streams, parts of x) known to the compiler; the last one is for all others */
typedef struct hyper_form {
    void (*open)(const hyper_call *w, const float *h, const hyper_row *to);
    void (*close)(hyper_shape s, const float *b, const float *carried, const float *y, float *h);
    void (*close_grad)(hyper_shape s, const float *b, const float *y, const float *G, float *dy, float *db);
} hyper_form;

#define HYPER_FORMS(F) F(4_1, 4, 1) F(4_4, 4, 4) F(2_1, 2, 1) F(2_2, 2, 2) F(any, s.m, s.q)
#define HYPER_FORM(name, m, q)                                                                               \
    HYPER_ROW void open_##name(const hyper_call *w, const float *h, const hyper_row *to)                     \
    {                                                                                                        \
        hyper_shape s = sane(w->s);                                                                          \
        (void)s;                                                                                             \
        open_row(w, m, q, h, to);                                                                            \
    }                                                                                                        \
    HYPER_ROW void close_##name(hyper_shape s, const float *b, const float *carried, const float *y,         \
                                float *h)                                                                    \
    {                                                                                                        \
        s = sane(s);                                                                                         \
        close_row(m, q, s.n, b, carried, y, h);                                                              \
    }                                                                                                        \
    HYPER_ROW void close_grad_##name(hyper_shape s, const float *b, const float *y, const float *G,          \
                                     float *dy, float *db)                                                   \
    {                                                                                                        \
        s = sane(s);                                                                                         \
        close_grad_row(m, q, s.n, b, y, G, dy, db);                                                          \
    }                                                                                                        \
    static const hyper_form form_##name                                                                      \
        __attribute__((unused)) = {open_##name, close_##name, close_grad_##name};
HYPER_FORMS(HYPER_FORM)
#undef HYPER_FORM

static inline const hyper_form *hyper_form_of(hyper_shape s)
{
    if (s.m == 4) return s.q == 1 ? &form_4_1 : &form_4_4;
    if (s.m == 2) return s.q == 1 ? &form_2_1 : &form_2_2;
    return &form_any;
}

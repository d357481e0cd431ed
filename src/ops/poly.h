/* poly: what poly_norm and poly_relu share: the order, the coefficients, and the sum of their gradient.
 *
 *     TRY(poly_check(b, in[1], in[2]));                  // weight [order], bias [1]
 *     float a[POLY_MOST];  poly_read(c, a);              // a[p - 1] multiplies the power p; 0 beyond the
 * order
 *
 * The gradient of the coefficients is a sum over all rows: threads take fixed ranges of rows, add theirs in
 * double, and the threads' sums are added in their order, so that equal runs give equal bits. */
#pragma once
#include "ops/op.h"
#include <string.h>

enum {
    POLY_MOST = 4,
    POLY_SUMS = 8
}; // the largest order; doubles a thread sums in: [POLY_MOST] is the bias's

static inline status poly_check(op_build *b, const tensor *weight, const tensor *bias)
{
    i64 order = (i64)attr(b->n, "order");
    TRY(need(b, count(weight) == order, "weight holds %lld coefficients; order is %lld",
             (long long)count(weight), (long long)order));
    return need(b, !bias || count(bias) == 1, "bias must be [1]");
}

static inline void poly_read(const op_call *c, float a[POLY_MOST])
{
    i64 order = (i64)attr(c->node, "order");
    for (i64 p = 0; p < POLY_MOST; p++) a[p] = p < order ? ((const float *)c->in[1].p)[p] : 0;
}

static inline status poly_prepare(op_call *c)
{
    return want_scratch(c, (size_t)c->threads * POLY_SUMS * sizeof(double));
}

/* Outputs 1 (dweight) and 2 (dbias) from the sums of TEAM threads. */
static inline void poly_finish(const op_call *c, const double *sums, int team)
{
    i64 order = (i64)attr(c->node, "order");
    for (i64 p = 0; p <= order; p++) {
        int out = p < order ? 1 : 2;
        float *to = (float *)c->out[out].p + (p < order ? p : 0);
        double sum = accumulates(c, out) ? *to : 0;
        for (int t = 0; t < team; t++) sum += sums[t * POLY_SUMS + (p < order ? p : POLY_MOST)];
        *to = (float)sum;
    }
}

#define POLY_ORDER                                                                                           \
    {                                                                                                        \
        "order", 3, 1, POLY_MOST, "the highest power"                                                        \
    }

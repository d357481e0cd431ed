/* moe: what the operations of a mixture of experts share: the names of the routers and the reading of counts
 * and offsets that may come from a file.
 *
 *     enum moe_router kind = (enum moe_router)attr(n, "router");
 *     segment s = segment_of(offsets, e, rows);            // rows of expert e: first .. first + rows
 */
#pragma once
#include "ops/op.h"
#include "ops/vec.h"
#include <math.h>

enum moe_router { MOE_SOFTMAX_RENORM, MOE_SOFTMAX_RAW, MOE_SIGMOID };
#define MOE_ROUTER_ATTR                                                                                      \
    {                                                                                                        \
        "router", 0, 0, 2, "0: softmax over the selected; 1: softmax over all; 2: sigmoid, renormalised"     \
    }

typedef struct segment {
    i64 first, rows;
} segment;

/* Rows of expert E, held within the rows there are and after those of expert E - 1. */
static inline segment segment_of(const i32 *offsets, i64 e, i64 rows)
{
    i64 first = offsets[e] < 0 ? 0 : MIN(offsets[e], rows), end = MIN(offsets[e + 1], rows);
    return (segment){first, MAX(end - first, 0)};
}
static inline segment segment_of64(const double *offsets, i64 e, i64 rows)
{
    i64 first = offsets[e] < 0 ? 0 : MIN((i64)offsets[e], rows), end = MIN((i64)offsets[e + 1], rows);
    return (segment){first, MAX(end - first, 0)};
}

/* p = softmax z (or sigmoid z) of a row of N, *lse = log sum exp z. */
static inline float moe_softmax(const float *z, i64 n, float *restrict p)
{
    float top = z[0], sum = 0;
    for (i64 i = 1; i < n; i++) top = z[i] > top ? z[i] : top;
#pragma omp simd
    for (i64 i = 0; i < n; i++) p[i] = vec_exp(z[i] - top);
    for (i64 i = 0; i < n; i++) sum += p[i];
    for (i64 i = 0; i < n; i++) p[i] /= sum;
    return top + logf(sum);
}
static inline double moe_softmax64(const double *z, i64 n, double *p)
{
    double top = z[0], sum = 0;
    for (i64 i = 1; i < n; i++) top = fmax(top, z[i]);
    for (i64 i = 0; i < n; i++) sum += exp(z[i] - top);
    for (i64 i = 0; p && i < n; i++) p[i] = exp(z[i] - top) / sum;
    return top + log(sum);
}

/* moe: what the operations of a mixture of experts share: the names of the routers and the reading of counts
 * and offsets that may come from a file.
 *
 *     enum moe_router kind = (enum moe_router)attr(n, "router");
 *     i64 done = 0;
 *     for (e ...) segment s = segment_next(offsets[e], offsets[e + 1], rows, &done); // first .. first + rows
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

/* Rows of expert E, asked in ascending order of E; *DONE, 0 at first, is where the one before ended. Held
 * within the rows there are and behind that end, whatever OFFSETS say: no two experts share a row. */
static inline segment segment_next(i64 first, i64 end, i64 rows, i64 *done)
{
    segment s = {.first = first < *done ? *done : MIN(first, rows)};
    s.rows = MAX(MIN(end, rows) - s.first, 0);
    *done = s.first + s.rows;
    return s;
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

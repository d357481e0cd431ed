/* norm_ops: what the norms of whole rows share: their shapes, the storage of their output, statistics in the
 * precision of the storage, and gradients of what all rows share (gains, scalars).
 *
 *     static status infer(op_build *b) { return norm_infer(b, 1); }          // x, gain -> y, s [rows, 1]
 *     int team = sum_rows(c, n, grad_row);          // each thread sums its rows in its own SUMS [n]
 *     sums_into(c, 1, n, 0, n, team);               // output 1: the first n of them, in the threads' order
 *
 * as_x: a norm of the stream itself keeps the stream's storage, f32 beside bf16 activations; elsewhere y is
 * an activation. native: statistics are rounded to bf16 where x is stored so (what autocast code without an
 * upcast computes); the definition in double rounds nothing. */
#pragma once
#include "ops/op.h"
#include <string.h>

#define AS_X_ATTR                                                                                            \
    {                                                                                                        \
        "as_x", 0, 0, 1, "1: y is stored as x is, 0: as activations are"                                     \
    }
#define NATIVE_ATTR                                                                                          \
    {                                                                                                        \
        "native", 0, 0, 1, "1: statistics are rounded to the storage of x"                                   \
    }

/* Output I: y, like x in shape. */
__attribute__((unused)) static status norm_y(op_build *b, int i, const tensor *x)
{
    return attr(b->n, "as_x") != 0 ? out_like(b, i, x) : out_act(b, i, x);
}

/* x [rows, n], gain [n] or none, perhaps a scalar [1]; then y and STATISTICS outputs of [rows, 1]. */
__attribute__((unused)) static status norm_infer(op_build *b, int statistics)
{
    const tensor *x = b->n->in[0], *gain = b->n->in[1], *scalar = b->n->in[2];
    TRY(need(b, !gain || (gain->ndim == 1 && gain->dim[0] == cols(x)), "gain must be [%lld]",
             (long long)cols(x)));
    TRY(need(b, !scalar || count(scalar) == 1, "the scalar must be [1]"));
    TRY(norm_y(b, 0, x));
    for (int k = 0; k < statistics; k++) TRY(out_shape(b, 1 + k, DT_F32, 2, (i64[]){rows_of(x), 1}));
    return OK;
}

/* The gradient's: dx like x; dgain and the scalar's where those are; dy is input DY. */
__attribute__((unused)) static status norm_grad_infer(op_build *b, int dy)
{
    TRY(need(b, same_shape(b->n->in[0], b->n->in[dy]), "dy must have the shape of x"));
    TRY(out_like(b, 0, b->n->in[0]));
    if (b->n->in[1]) TRY(out_shape(b, 1, DT_F32, 1, b->n->in[1]->dim));
    return OK;
}

/* A statistic as it is kept. */
static inline bool is_native(const op_call *c)
{
    return c->in[0].dtype == DT_BF16 && attr(c->node, "native") != 0;
}
static inline float kept(float statistic, bool native)
{
    return native ? bf16_to_f32(f32_to_bf16(statistic)) : statistic;
}

/* ---- sums over the rows: FLOATS a thread */
__attribute__((unused)) static status sums_prepare(op_call *c, i64 floats)
{
    return want_scratch(c, (size_t)c->threads * (size_t)round_up(floats, 16) * sizeof(float));
}

/* Runs ROW over all rows; returns how many threads have sums. */
__attribute__((unused)) static int sum_rows(const op_call *c, i64 floats,
                                            void (*row)(const op_call *c, i64 r, float *sums))
{
    float *all = (float *)call_scratch(c);
    int team = 1;
#pragma omp parallel num_threads(c->threads)
    {
        i64 first, last;
        float *sums = all + thread_index() * round_up(floats, 16);
        if (floats) memset(sums, 0, (size_t)floats * sizeof *sums);
        if (thread_index() == 0) team = omp_get_num_threads();
        part(c->in[0].rows, thread_index(), omp_get_num_threads(), &first, &last);
        for (i64 r = first; r < last; r++) row(c, r, sums);
    }
    return team;
}

/* Output O (if it is there) becomes, or grows by, the sums [at, at + n). */
__attribute__((unused)) static void sums_into(const op_call *c, int o, i64 floats, i64 at, i64 n, int team)
{
    const float *all = (const float *)call_scratch(c) + at;
    float *to = c->out[o].p;
    for (i64 j = 0; to && j < n; j++) {
        float sum = accumulates(c, o) ? to[j] : 0;
        for (int t = 0; t < team; t++) sum += all[t * round_up(floats, 16) + j];
        to[j] = sum;
    }
}

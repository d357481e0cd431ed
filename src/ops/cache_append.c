/* cache_append: put the new rows of every sequence behind what its cache holds.
 *
 *   cache[b, past[b] + t, :] = x[b, t, :]        cache [B, capacity, n] a state; x [B, T, n]; past [B]
 *
 * A commit: it runs after everything that reads the cache has run. Rows beyond the capacity are dropped (the
 * caller never asks for them; this keeps a wrong count from writing elsewhere).
 */
#include "ops/op.h"
#include <string.h>

static status infer(op_build *b)
{
    tensor *cache = b->n->in[0], *x = b->n->in[1], *past = b->n->in[2];
    TRY(need(b, cache->ndim == 3 && x->ndim == 3 && cache->dim[0] == x->dim[0] && cache->dim[2] == x->dim[2],
             "cache and x must be [B, capacity, n] and [B, T, n]"));
    TRY(need(b, count(past) == x->dim[0], "past must be [B]"));
    TRY(need(b, cache->dtype == x->dtype, "cache and x must have one dtype"));
    b->n->out[0] = cache;
    b->n->n_out = 1;
    return OK;
}

static void reference(const op_call64 *c)
{
    const tensor *cache = c->node->in[0], *x = c->node->in[1];
    i64 n = cols(x), capacity = cache->dim[1], t_new = x->dim[1];
    for (i64 b = 0; b < x->dim[0]; b++)
        for (i64 t = 0; t < t_new; t++) {
            i64 at = (i64)c->in[2][b] + t;
            if (at < 0 || at >= capacity) continue;
            memcpy(c->out[0] + (b * capacity + at) * n, c->in[1] + (b * t_new + t) * n,
                   sizeof(double) * (size_t)n);
        }
}

static void cpu(const op_call *c)
{
    const tensor *cache = c->node->in[0], *x = c->node->in[1];
    const i32 *past = c->in[2].p;
    i64 capacity = cache->dim[1], t_new = x->dim[1], size = dtype_bytes(x->dtype);
    for (i64 r = 0; r < c->in[1].rows; r++) {
        i64 b = r / t_new, at = past[b] + r % t_new;
        if (at < 0 || at >= capacity) continue;
        memcpy((char *)c->out[0].p + (b * capacity + at) * c->out[0].stride * size,
               (const char *)c->in[1].p + r * c->in[1].stride * size, (size_t)(c->in[1].n * size));
    }
}

static const op_case cases[] = {
    {"two sequences", "cache=2x9x16 x=2x3x16 past=2 fill.past=below:6 f32 bf16 tol=0"},
    {"beyond capacity", "cache=3x4x8 x=3x3x8 past=3 fill.past=below:9 f32 tol=0"},
    {0},
};

OP_DEF(cache_append) = {
    .name = "cache_append",
    .brief = "cache[b, past[b] + t] = x[b, t]",
    .in = {{"cache", "[B, capacity, n]"}, {"x", "[B, T, n]"}, {"past", "[B]", ARG_I32, .range = "any"}},
    .out = {{"cache", "[B, capacity, n]"}},
    .flags = OP_COMMIT,
    .infer = infer,
    .reference = reference,
    .cpu = cpu,
    .cases = cases,
};

/* cache_append: put the new rows of every sequence behind what its cache holds.
 *
 *   cache[b, past[b] + t, :] = x[b, t, :]        cache [B, capacity, n] a state; x [B, K T, n]; past [B]
 *
 * With K = copies > 1 (ops/repeat.c) only the first T rows of a sequence, its tokens, are kept. Of their
 * copies a ring keeps those of the last R tokens:
 *
 * ring_append: ring[b, (p mod R) (K - 1) + i, :] = x[b, T + t (K - 1) + i, :],   p = past[b] + t,
 *              for the last R of the first fresh[b] tokens; ring [B, R (K - 1), n] a state
 *
 * Both are commits: they run after everything that reads the cache has run. Rows beyond the capacity are
 * dropped (the caller never asks for them; this keeps a wrong count from writing elsewhere).
 */
#include "ops/op.h"
#include <string.h>

static status infer(op_build *b)
{
    tensor *cache = b->n->in[0], *x = b->n->in[1], *past = b->n->in[2];
    TRY(need(b, cache->ndim == 3 && x->ndim == 3 && cache->dim[0] == x->dim[0] && cache->dim[2] == x->dim[2],
             "cache and x must be [B, capacity, n] and [B, T, n]"));
    TRY(need(b, x->dim[1] % (i64)attr(b->n, "copies") == 0, "%lld rows are not %lld copies of every token",
             (long long)x->dim[1], (long long)attr(b->n, "copies")));
    TRY(need(b, count(past) == x->dim[0], "past must be [B]"));
    TRY(need(b, cache->dtype == x->dtype, "cache and x must have one dtype"));
    b->n->out[0] = cache;
    b->n->n_out = 1;
    return OK;
}

static void reference(const op_call64 *c)
{
    const tensor *cache = c->node->in[0], *x = c->node->in[1];
    i64 n = cols(x), capacity = cache->dim[1], rows = x->dim[1], t_new = rows / (i64)attr(c->node, "copies");
    for (i64 b = 0; b < x->dim[0]; b++)
        for (i64 t = 0; t < t_new; t++) {
            i64 at = (i64)c->in[2][b] + t;
            if (at < 0 || at >= capacity) continue;
            memcpy(c->out[0] + (b * capacity + at) * n, c->in[1] + (b * rows + t) * n,
                   sizeof(double) * (size_t)n);
        }
}

static void cpu(const op_call *c)
{
    const tensor *cache = c->node->in[0], *x = c->node->in[1];
    const i32 *past = c->in[2].p;
    i64 capacity = cache->dim[1], rows = x->dim[1], t_new = rows / (i64)attr(c->node, "copies");
    i64 size = dtype_bytes(x->dtype);
    for (i64 r = 0; r < c->in[1].rows; r++) {
        i64 b = r / rows, at = past[b] + r % rows;
        if (r % rows >= t_new || at < 0 || at >= capacity) continue;
        memcpy((char *)c->out[0].p + (b * capacity + at) * c->out[0].stride * size,
               (const char *)c->in[1].p + r * c->in[1].stride * size, (size_t)(c->in[1].n * size));
    }
}

static const op_case cases[] = {
    {"two sequences", "cache=2x9x16 x=2x3x16 past=2 fill.past=below:6 f32 bf16 tol=0"},
    {"beyond capacity", "cache=3x4x8 x=3x3x8 past=3 fill.past=below:9 f32 tol=0"},
    {"copies", "cache=2x9x16 x=2x9x16 past=2 copies=3 fill.past=below:9 f32 bf16 tol=0"},
    {0},
};

OP_DEF(cache_append) = {
    .name = "cache_append",
    .brief = "cache[b, past[b] + t] = x[b, t]",
    .in = {{"cache", "[B, capacity, n]"}, {"x", "[B, T, n]"}, {"past", "[B]", ARG_I32, .range = "any"}},
    .out = {{"cache", "[B, capacity, n]"}},
    .attrs = {{"copies", 1, 1, 4096, "of every token in x: only the first is kept"}},
    .flags = OP_COMMIT,
    .infer = infer,
    .reference = reference,
    .cpu = cpu,
    .cases = cases,
};

/* ---- ring_append */

static status ring_infer(op_build *b)
{
    tensor *ring = b->n->in[0], *x = b->n->in[1];
    i64 k = (i64)attr(b->n, "copies");
    TRY(need(b,
             ring->ndim == 3 && x->ndim == 3 && ring->dim[0] == x->dim[0] && ring->dim[2] == x->dim[2] &&
                 ring->dim[1] > 0 && ring->dim[1] % (k - 1) == 0 && x->dim[1] % k == 0,
             "ring and x must be [B, R (K - 1), n] and [B, K T, n], K = %lld", (long long)k));
    TRY(need(b, count(b->n->in[2]) == x->dim[0] && count(b->n->in[3]) == x->dim[0],
             "past and fresh must be [B]"));
    TRY(need(b, ring->dtype == x->dtype, "ring and x must have one dtype"));
    b->n->out[0] = ring;
    b->n->n_out = 1;
    return OK;
}

static void ring_reference(const op_call64 *c)
{
    const tensor *ring = c->node->in[0], *x = c->node->in[1];
    i64 n = cols(x), k = (i64)attr(c->node, "copies"), held = ring->dim[1], T = x->dim[1] / k;
    for (i64 b = 0; b < x->dim[0]; b++)
        for (i64 t = 0; t < T; t++) { // later tokens overwrite earlier ones
            i64 p = (i64)c->in[2][b] + t;
            if (t >= (i64)c->in[3][b] || p < 0) continue;
            memcpy(c->out[0] + (b * held + p * (k - 1) % held) * n,
                   c->in[1] + (b * k * T + T + t * (k - 1)) * n, sizeof(double) * (size_t)(n * (k - 1)));
        }
}

static void ring_cpu(const op_call *c)
{
    const tensor *x = c->node->in[1];
    const i32 *past = c->in[2].p, *fresh = c->in[3].p;
    const view *from = &c->in[1], *to = &c->out[0];
    i64 per_token = (i64)attr(c->node, "copies") - 1, tokens = c->node->in[0]->dim[1] / per_token;
    i64 T = x->dim[1] / (per_token + 1), size = dtype_bytes(x->dtype);
    for (i64 b = 0; b < x->dim[0]; b++) {
        i64 end = MIN((i64)fresh[b], T);
        for (i64 t = MAX(0, end - tokens); t < end; t++)
            for (i64 i = 0; i < per_token && past[b] + t >= 0; i++) {
                i64 row = (b * tokens + (past[b] + t) % tokens) * per_token + i;
                i64 at = b * x->dim[1] + T + t * per_token + i;
                memcpy((char *)to->p + row * to->stride * size,
                       (const char *)from->p + at * from->stride * size, (size_t)(from->n * size));
            }
    }
}

static const op_case ring_cases[] = {
    {"one token",
     "ring=2x3x16 x=2x2x16 past=2 fresh=2 copies=2 fill.past=below:9 fill.fresh=below:2 f32 bf16 tol=0"},
    {"more than it holds",
     "ring=3x6x8 x=3x15x8 past=3 fresh=3 copies=3 fill.past=below:90 fill.fresh=below:6 f32 bf16 tol=0"},
    {"less than it holds",
     "ring=3x18x8 x=3x12x8 past=3 fresh=3 copies=3 fill.past=below:90 fill.fresh=below:6 f32 tol=0"},
    {0},
};

OP_DEF(ring_append) = {
    .name = "ring_append",
    .brief = "ring[b, (past[b] + t) mod R] = copies 2..K of x[b, t], t < fresh[b]",
    .source = "PHD-Transformer, arXiv:2504.14992",
    .in = {{"ring", "[B, entries, n]"},
           {"x", "[B, rows, n]"},
           {"past", "[B]", ARG_I32, .range = "any"},
           {"fresh", "[B]", ARG_I32, .range = "any"}},
    .out = {{"ring", "[B, entries, n]"}},
    .attrs = {{"copies", 2, 2, 4096, "of every token in x"}},
    .flags = OP_COMMIT,
    .infer = ring_infer,
    .reference = ring_reference,
    .cpu = ring_cpu,
    .cases = ring_cases,
};

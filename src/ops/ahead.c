/* ahead: what stands some places further in the same row (prediction of several tokens).
 *
 *   ahead           y[b,t] = x[b,t+k], 0 where t + k is outside the row        x, y [B, T, n]; k may be
 * negative ahead_targets   y[b,t] = targets[b,t+k]; -1 unless targets[b,t..t+k] are all there and t+1..t+k
 * lie in t's document targets [B, T], -1 where there is none; start [B, T] the document's first position
 *
 * dx of ahead is ahead of dy by -k. Targets already are one ahead: with k = 1 they are x_{t+2}.
 * Source: multi-token prediction, DeepSeek-V3, arXiv:2412.19437, section 2.2.
 */
#include "ops/op.h"
#include <math.h>
#include <string.h>

enum { FAR = 64 };

/* ---- ahead */
static status infer(op_build *b)
{
    TRY(need(b, b->n->in[0]->ndim == 3, "x must be [B, T, n]"));
    return out_like(b, 0, b->n->in[0]);
}

static void vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    din[0] = g_out(g_node(g, OP_ahead, IN(dout[0]), WITH({"by", -attr(op, "by")})), 0);
}

static void reference(const op_call64 *c)
{
    const tensor *x = c->node->in[0];
    i64 T = x->dim[1], n = x->dim[2], by = (i64)attr(c->node, "by");
    for (i64 i = 0; i < count(x); i++) {
        i64 t = i / n % T;
        c->out[0][i] = t + by >= 0 && t + by < T ? c->in[0][i + by * n] : 0;
    }
}

static void cpu(const op_call *c)
{
    const view *x = &c->in[0], *y = &c->out[0];
    i64 T = c->node->in[0]->dim[1], by = (i64)attr(c->node, "by"), size = dtype_bytes(y->dtype);
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < y->rows; r++) {
        char *to = (char *)y->p + r * y->stride * size;
        if (r % T + by >= 0 && r % T + by < T)
            memcpy(to, (const char *)x->p + (r + by) * x->stride * size, (size_t)(y->n * size));
        else
            memset(to, 0, (size_t)(y->n * size));
    }
}

static const op_case cases[] = {
    {"one", "x=3x11x16 by=1 f32 bf16 tol=0"},   {"three", "x=2x7x33 by=3 f32 bf16 tol=0"},
    {"back", "x=2x7x33 by=-2 f32 bf16 tol=0"},  {"beyond", "x=2x3x5 by=4 f32 bf16 tol=0"},
    {"nothing", "x=2x3x5 by=0 f32 bf16 tol=0"}, {0},
};
/* There and back again, all but the first row of each sequence is as it was, and that is 0. */
static double returns(law *l)
{
    double worst = 0, *x = law_in(l, "x"), first[5 * 4 * 3];
    memcpy(first, x, sizeof first);
    memcpy(x, law_run(l, 0), sizeof first); // t + 1
    for (int b = 0; b < 5; b++)
        for (int t = 0; t < 4; t++)
            for (int j = 0; j < 3; j++) {
                double want = t < 3 ? first[(b * 4 + t + 1) * 3 + j] : 0;
                worst = fmax(worst, fabs(x[(b * 4 + t) * 3 + j] - want));
            }
    return worst;
}
static const op_law laws[] = {{"places move by one", "x=5x4x3 by=1", returns, 0}, {0}};

OP_DEF(ahead) = {
    .name = "ahead",
    .brief = "y[t] = x[t + by], 0 outside",
    .source = "arXiv:2412.19437",
    .in = {{"x", "[B, T, n]"}},
    .out = {{"y", "[B, T, n]"}},
    .attrs = {{"by", 1, -FAR, FAR, "places"}},
    .flags = OP_CHEAP,
    .infer = infer,
    .vjp = vjp,
    .reference = reference,
    .cpu = cpu,
    .cases = cases,
    .laws = laws,
};

/* ---- ahead_targets */
static status targets_infer(op_build *b)
{
    const tensor *x = b->n->in[0], *start = b->n->in[1];
    TRY(need(b, x->ndim == 2 && same_shape(x, start), "targets and start must be [B, T]"));
    return out_like(b, 0, x);
}

static void targets_reference(const op_call64 *c)
{
    const tensor *x = c->node->in[0];
    i64 T = x->dim[1], by = (i64)attr(c->node, "by");
    for (i64 i = 0; i < count(x); i++) {
        bool whole = i % T + by < T;
        for (i64 j = 0; whole && j <= by; j++) whole = c->in[0][i + j] >= 0 && c->in[1][i + j] == c->in[1][i];
        c->out[0][i] = whole ? c->in[0][i + by] : -1;
    }
}

static void targets_cpu(const op_call *c)
{
    const view *x = &c->in[0], *start = &c->in[1], *y = &c->out[0];
    i64 by = (i64)attr(c->node, "by");
    for (i64 b = 0; b < y->rows; b++) {
        const i32 *from = (const i32 *)x->p + b * x->stride,
                  *document = (const i32 *)start->p + b * start->stride;
        i32 *to = (i32 *)y->p + b * y->stride;
        i64 run = 0; // targets in a row that are there and of one document, up to t + by
        for (i64 s = 0; s < y->n; s++) {
            bool goes_on = s > 0 && document[s] == document[s - 1];
            run = from[s] < 0 ? 0 : goes_on ? run + 1 : 1;
            if (s >= by) to[s - by] = run > by ? from[s] : -1;
        }
        for (i64 t = MAX(y->n - by, 0); t < y->n; t++) to[t] = -1;
    }
}

static const op_case targets_cases[] = {
    {"one", "targets=3x29 start=3x29 by=1 fill.targets=targets:50 fill.start=starts:6 f32"},
    {"three", "targets=5x29 start=5x29 by=3 fill.targets=below:50 fill.start=starts:9 f32"},
    {"nothing", "targets=2x9 start=2x9 by=0 fill.targets=targets:50 fill.start=zero f32"},
    {"beyond", "targets=2x3 start=2x3 by=7 fill.targets=below:50 fill.start=zero f32"},
    {0},
};

OP_DEF(ahead_targets) = {
    .name = "ahead_targets",
    .brief = "y[t] = targets[t + by], -1 where a target between is missing or of another document",
    .source = "arXiv:2412.19437",
    .in = {{"targets", "[B, T]", ARG_I32, .range = "any"}, {"start", "[B, T]", ARG_I32, .range = "any"}},
    .out = {{"y", "[B, T]", ARG_I32}},
    .attrs = {{"by", 1, 0, FAR, "places"}},
    .infer = targets_infer,
    .reference = targets_reference,
    .cpu = targets_cpu,
    .cases = targets_cases,
};

/* moe_combine: what a token's experts answered, weighted and added (see moe_plan).
 *
 *   y[t] = shared[t] + sum_j w[t, j] e[slot[t, j]]      e [n, d], w and slot [rows, k], shared [rows, d] or
 * none de[p] = w[order[p]] dy[order[p] / k]  (0 where order[p] < 0),  dw[t, j] = dy[t] . e[slot[t, j]],
 *   dshared = dy                                         terms of slots < 0 (dropped) are 0
 *
 * Every sum runs over a token's choices in their order; both directions gather: no atomics, the same bits.
 */
#include "ops/op.h"
#include <string.h>

enum { E, W, SLOT, ORDER, SHARED };

static status check(op_build *b)
{
    const tensor *e = b->n->in[E], *w = b->n->in[W], *slot = b->n->in[SLOT], *order = b->n->in[ORDER];
    return need(b, same_shape(w, slot) && count(order) == count(slot) && rows_of(e) == count(slot),
                "w and slot must be [rows, k], order [%lld] and e [%lld, d]", (long long)count(slot),
                (long long)count(slot));
}

static status infer(op_build *b)
{
    const tensor *w = b->n->in[W], *shared = b->n->in[SHARED];
    i64 dim[MAX_DIMS], d = cols(b->n->in[E]);
    TRY(check(b));
    TRY(need(b, !shared || (rows_of(shared) == rows_of(w) && cols(shared) == d),
             "shared must be [%lld, %lld]", (long long)rows_of(w), (long long)d));
    memcpy(dim, w->dim, sizeof dim);
    dim[w->ndim - 1] = d;
    return out_shape(b, 0, b->n->in[E]->dtype, w->ndim, dim);
}

static void vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    if (!dout[0]) return;
    node *d = g_node(g, OP_moe_combine_grad, IN(op->in[E], op->in[W], op->in[SLOT], op->in[ORDER], dout[0]),
                     NO_ATTRS);
    din[E] = g_out(d, 0);
    din[W] = g_out(d, 1);
    din[SHARED] = op->in[SHARED] ? dout[0] : NULL;
}

static void reference(const op_call64 *c)
{
    i64 d = cols(c->node->in[E]), k = cols(c->node->in[W]);
    for (i64 t = 0; t < rows_of(c->node->in[W]); t++)
        for (i64 i = 0; i < d; i++) {
            double y = c->in[SHARED] ? c->in[SHARED][t * d + i] : 0;
            for (i64 j = 0; j < k; j++)
                if (c->in[SLOT][t * k + j] >= 0)
                    y += c->in[W][t * k + j] * c->in[E][(i64)c->in[SLOT][t * k + j] * d + i];
            c->out[0][t * d + i] = y;
        }
}

static void cpu(const op_call *c)
{
    i64 k = c->in[W].n, d = c->out[0].n;
#pragma omp parallel for schedule(static)
    for (i64 t = 0; t < c->out[0].rows; t++) {
        const i32 *slot = (const i32 *)c->in[SLOT].p + t * c->in[SLOT].stride;
        const float *w = row_in(c, W, t);
        float *restrict y = row_out(c, 0, t);
        if (c->in[SHARED].p)
            memcpy(y, row_in(c, SHARED, t), (size_t)d * sizeof *y);
        else
            memset(y, 0, (size_t)d * sizeof *y);
        for (i64 j = 0; j < k; j++) {
            if (slot[j] < 0) continue;
            const float *restrict e = row_in(c, E, slot[j]), by = w[j];
#pragma omp simd
            for (i64 i = 0; i < d; i++) y[i] += by * e[i];
        }
        row_done(c, 0, t, y);
    }
}

static op_cost cost(const node *op) { return (op_cost){2.0 * (double)count(op->in[E]), traffic(op)}; }

#define BACK " fill.order=reverse fill.slot=reverse"
static const op_case cases[] = {
    {"two choices", "e=36x16 w=2x9x2 slot=2x9x2 order=36 f32 bf16" BACK},
    {"shared", "e=27x33 w=9x3 slot=9x3 order=27 shared=9x33 f32 bf16" BACK},
    {"some dropped", "e=27x33 w=9x3 slot=9x3 order=27 fill.slot=targets:27 fill.order=zero f32 bf16 grad=0"},
    {"one of all", "e=1x1 w=1x1 slot=1x1 order=1 f32 bf16" BACK},
    {"exact", "e=27x16 w=9x3 slot=9x3 order=27 shared=9x16 fill=ints f32 bf16 tol=0" BACK},
    {"135m", "e=4096x576 w=2048x2 slot=2048x2 order=4096 bf16 bench" BACK},
    {0},
};

OP_DEF(moe_combine) = {
    .name = "moe_combine",
    .brief = "y[t] = shared[t] + sum_j w[t, j] e[slot[t, j]]",
    .source = "Shazeer et al., arXiv:1701.06538; shared: DeepSeekMoE, arXiv:2401.06066",
    .in = {{"e", "[n, d]"},
           {"w", "[rows, k]", ARG_F32},
           {"slot", "[rows, k]", ARG_I32, .range = "-1:e.0"},
           {"order", "[n]", ARG_I32, .range = "-1:e.0"},
           {"shared", "[rows, d]", .optional = true}},
    .out = {{"y", "[rows, d]"}},
    .infer = infer,
    .vjp = vjp,
    .reference = reference,
    .cpu = cpu,
    .cost = cost,
    .cases = cases,
};

/* ---- the gradient */
enum { DY = 4 };

static status grad_infer(op_build *b)
{
    const tensor *e = b->n->in[E], *w = b->n->in[W], *dy = b->n->in[DY];
    TRY(check(b));
    TRY(need(b, rows_of(dy) == rows_of(w) && cols(dy) == cols(e), "dy must be [%lld, %lld]",
             (long long)rows_of(w), (long long)cols(e)));
    TRY(out_like(b, 0, e));
    return out_like(b, 1, w);
}

static void grad_reference(const op_call64 *c)
{
    i64 d = cols(c->node->in[E]), k = cols(c->node->in[W]), n = count(c->node->in[W]);
    for (i64 a = 0; a < n; a++) {
        i64 p = (i64)c->in[SLOT][a], from = (i64)c->in[ORDER][a];
        c->out[1][a] = 0;
        for (i64 i = 0; i < d; i++) {
            if (p >= 0) c->out[1][a] += c->in[DY][a / k * d + i] * c->in[E][p * d + i];
            c->out[0][a * d + i] = from < 0 ? 0 : c->in[W][from] * c->in[DY][from / k * d + i];
        }
    }
}

/* Row P of de. */
static void place_gradient(const op_call *c, i64 p)
{
    i64 k = c->in[W].n, d = c->out[0].n, from = ((const i32 *)c->in[ORDER].p)[p];
    float *restrict de = row_out(c, 0, p);
    memset(de, 0, (size_t)d * sizeof *de);
    if (from >= 0) {
        const float *restrict dy = row_in(c, DY, from / k);
        float by = ((const float *)c->in[W].p)[from / k * c->in[W].stride + from % k];
#pragma omp simd
        for (i64 i = 0; i < d; i++) de[i] = by * dy[i];
    }
    row_done(c, 0, p, de);
}

static void weight_gradients(const op_call *c, i64 t)
{
    const i32 *slot = (const i32 *)c->in[SLOT].p + t * c->in[SLOT].stride;
    const float *restrict dy = row_in(c, DY, t);
    float *dw = row_out(c, 1, t);
    for (i64 j = 0; j < c->in[W].n; j++) {
        float sum = 0;
        if (slot[j] >= 0) {
            const float *restrict e = row_in(c, E, slot[j]);
#pragma omp simd reduction(+ : sum)
            for (i64 i = 0; i < c->in[E].n; i++) sum += dy[i] * e[i];
        }
        dw[j] = sum;
    }
}

static void grad_cpu(const op_call *c)
{
#pragma omp parallel
    {
#pragma omp for schedule(static) nowait
        for (i64 p = 0; p < c->out[0].rows; p++) place_gradient(c, p);
#pragma omp for schedule(static)
        for (i64 t = 0; t < c->in[DY].rows; t++) weight_gradients(c, t);
    }
}

static op_cost grad_cost(const node *op) { return (op_cost){3.0 * (double)count(op->in[E]), traffic(op)}; }

static const op_case grad_cases[] = {
    {"two choices", "e=36x16 w=2x9x2 slot=2x9x2 order=36 dy=2x9x16 f32 bf16" BACK},
    {"some dropped",
     "e=27x33 w=9x3 slot=9x3 order=27 dy=9x33 fill.slot=targets:27 fill.order=targets:27 f32 bf16"},
    {"one of all", "e=1x1 w=1x1 slot=1x1 order=1 dy=1x1 f32 bf16" BACK},
    {"exact", "e=27x16 w=9x3 slot=9x3 order=27 dy=9x16 fill=ints f32 bf16 tol=0" BACK},
    {"135m", "e=4096x576 w=2048x2 slot=2048x2 order=4096 dy=2048x576 bf16 bench" BACK},
    {0},
};

OP_DEF(moe_combine_grad) = {
    .name = "moe_combine_grad",
    .brief = "de[p] = w[order[p]] dy[order[p] / k], dw[t, j] = dy[t] . e[slot[t, j]]",
    .in = {{"e", "[n, d]"},
           {"w", "[rows, k]", ARG_F32},
           {"slot", "[rows, k]", ARG_I32, .range = "-1:e.0"},
           {"order", "[n]", ARG_I32, .range = "-1:e.0"},
           {"dy", "[rows, d]"}},
    .out = {{"de", "[n, d]"}, {"dw", "[rows, k]", ARG_F32}},
    .infer = grad_infer,
    .reference = grad_reference,
    .cpu = grad_cpu,
    .cost = grad_cost,
    .cases = grad_cases,
};

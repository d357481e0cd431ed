/* moe_gather: the rows of tokens, put where their experts take them (see moe_plan).
 *
 *   y[p] = x[order[p] / k]  (0 where order[p] < 0)         x [rows, d], order [n], n = rows k, y [n, d]
 *   dx[t] = sum_j dy[slot[t, j]]  (over slots >= 0)        slot [rows, k]: the inverse of order
 *
 * Both directions gather, so that no two threads write one row and sums are in the order of the choices.
 */
#include "ops/op.h"
#include <string.h>

enum { X, ORDER, SLOT };

static status infer(op_build *b)
{
    const tensor *x = b->n->in[X], *order = b->n->in[ORDER], *slot = b->n->in[SLOT];
    TRY(need(b, rows_of(slot) == rows_of(x) && count(order) == count(slot),
             "slot must be [%lld, k] and order [%lld k]", (long long)rows_of(x), (long long)rows_of(x)));
    return out_shape(b, 0, x->dtype, 2, (i64[]){count(order), cols(x)});
}

static void vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    if (dout[0]) din[X] = g_out(g_node(g, OP_moe_gather_grad, IN(op->in[SLOT], dout[0]), NO_ATTRS), 0);
}

static void reference(const op_call64 *c)
{
    i64 d = cols(c->node->in[X]), k = cols(c->node->in[SLOT]);
    for (i64 p = 0; p < count(c->node->in[ORDER]); p++)
        for (i64 j = 0; j < d; j++)
            c->out[0][p * d + j] = c->in[ORDER][p] < 0 ? 0 : c->in[X][(i64)c->in[ORDER][p] / k * d + j];
}

static void cpu(const op_call *c)
{
    const view *x = &c->in[X], *y = &c->out[0];
    const i32 *order = c->in[ORDER].p;
    i64 k = c->in[SLOT].n, size = dtype_bytes(x->dtype);
    size_t bytes = (size_t)(x->n * size);
#pragma omp parallel for schedule(static)
    for (i64 p = 0; p < y->rows; p++) {
        char *to = (char *)y->p + p * y->stride * size;
        if (order[p] < 0)
            memset(to, 0, bytes);
        else
            memcpy(to, (const char *)x->p + order[p] / k * x->stride * size, bytes);
    }
}

static op_cost cost(const node *op) { return (op_cost){0, traffic(op)}; }

static const op_case cases[] = {
    {"two choices", "x=2x9x16 order=36 slot=2x9x2 fill.order=reverse fill.slot=reverse f32 bf16 tol=0"},
    {"one choice", "x=5x33 order=5 slot=5x1 fill.order=reverse fill.slot=reverse f32 bf16 tol=0"},
    {"some dropped", "x=9x16 order=18 slot=9x2 fill.order=targets:18 fill.slot=zero f32 bf16 tol=0 grad=0"},
    {"135m", "x=2048x576 order=4096 slot=2048x2 fill.order=reverse fill.slot=reverse bf16 bench"},
    {0},
};

OP_DEF(moe_gather) = {
    .name = "moe_gather",
    .brief = "y[p] = x[order[p] / k]: rows of tokens in the order of their experts",
    .in = {{"x", "[rows, d]"},
           {"order", "[n]", ARG_I32, .range = "-1:order.0"},
           {"slot", "[rows, k]", ARG_I32, .range = "-1:order.0"}},
    .out = {{"y", "[n, d]"}},
    .flags = OP_CHEAP,
    .infer = infer,
    .vjp = vjp,
    .reference = reference,
    .cpu = cpu,
    .cost = cost,
    .cases = cases,
};

/* ---- the gradient */

static status grad_infer(op_build *b)
{
    const tensor *slot = b->n->in[0], *dy = b->n->in[1];
    i64 dim[MAX_DIMS];
    TRY(need(b, rows_of(dy) == count(slot), "dy must be [%lld, d]", (long long)count(slot)));
    memcpy(dim, slot->dim, sizeof dim);
    dim[slot->ndim - 1] = cols(dy);
    return out_shape(b, 0, dy->dtype, slot->ndim, dim);
}

static void grad_reference(const op_call64 *c)
{
    i64 d = cols(c->node->in[1]), k = cols(c->node->in[0]);
    for (i64 t = 0; t < rows_of(c->node->in[0]); t++)
        for (i64 i = 0; i < d; i++) {
            c->out[0][t * d + i] = 0;
            for (i64 j = 0; j < k; j++)
                if (c->in[0][t * k + j] >= 0)
                    c->out[0][t * d + i] += c->in[1][(i64)c->in[0][t * k + j] * d + i];
        }
}

static void grad_cpu(const op_call *c)
{
    i64 k = c->in[0].n, d = c->out[0].n;
#pragma omp parallel for schedule(static)
    for (i64 t = 0; t < c->out[0].rows; t++) {
        const i32 *slot = (const i32 *)c->in[0].p + t * c->in[0].stride;
        float *restrict dx = row_out(c, 0, t);
        memset(dx, 0, (size_t)d * sizeof *dx);
        for (i64 j = 0; j < k; j++) {
            if (slot[j] < 0) continue;
            const float *restrict dy = row_in(c, 1, slot[j]);
#pragma omp simd
            for (i64 i = 0; i < d; i++) dx[i] += dy[i];
        }
        row_done(c, 0, t, dx);
    }
}

static const op_case grad_cases[] = {
    {"two choices", "slot=2x9x2 dy=36x16 fill.slot=reverse f32 bf16"},
    {"some dropped", "slot=9x3 dy=27x33 fill.slot=targets:27 f32 bf16"},
    {"exact", "slot=9x3 dy=27x33 fill.slot=targets:27 fill.dy=ints f32 bf16 tol=0"},
    {"135m", "slot=2048x2 dy=4096x576 fill.slot=reverse bf16 bench"},
    {0},
};

OP_DEF(moe_gather_grad) = {
    .name = "moe_gather_grad",
    .brief = "dx[t] = sum_j dy[slot[t, j]]",
    .in = {{"slot", "[rows, k]", ARG_I32, .range = "-1:dy.0"}, {"dy", "[n, d]"}},
    .out = {{"dx", "[rows, d]"}},
    .infer = grad_infer,
    .reference = grad_reference,
    .cpu = grad_cpu,
    .cost = cost,
    .cases = grad_cases,
};

/* cast: the same numbers in another storage.
 *
 *   y = x as f32 (to = 0) or bf16 (to = 1, rounded to nearest even; NaN stays NaN);   dx = dy as x is stored
 */
#include "ops/op.h"
#include <string.h>

static status infer(op_build *b)
{
    return out_shape(b, 0, attr(b->n, "to") == DT_BF16 ? DT_BF16 : DT_F32, b->n->in[0]->ndim,
                     b->n->in[0]->dim);
}

static void vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    din[0] = g_out(g_node(g, OP_cast, IN(dout[0]), WITH({"to", op->in[0]->dtype})), 0);
}

static void reference(const op_call64 *c)
{
    memcpy(c->out[0], c->in[0], sizeof(double) * (size_t)count(c->node->in[0]));
}

static void cpu(const op_call *c)
{
    const view *x = &c->in[0], *y = &c->out[0];
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < x->rows; r++) {
        const char *from = (const char *)x->p + r * x->stride * dtype_bytes(x->dtype);
        char *to = (char *)y->p + r * y->stride * dtype_bytes(y->dtype);
        if (x->dtype == y->dtype)
            memcpy(to, from, (size_t)(x->n * dtype_bytes(x->dtype)));
        else if (x->dtype == DT_F32)
            narrow((bf16 *)to, (const float *)from, x->n);
        else
            widen((float *)to, (const bf16 *)from, x->n);
    }
}

static op_cost cost(const node *op) { return (op_cost){0, traffic(op)}; }

static const op_case cases[] = {
    {"widen", "x=33x129 to=0 f32 bf16 tol=0"},
    {"narrow", "x=33x129 to=1 f32 tol=0.00390625"}, // 2^-8: f32 values rounded to 8 bits
    {"narrow what is bf16 already", "x=33x129 to=1 bf16 tol=0"},
    {"one value", "x=3x1 to=1 f32 bf16 fill=pow2 tol=0"},
    {"exact", "x=1x17 to=1 f32 bf16 fill=ints tol=0"},
    {0},
};

OP_DEF(cast) = {
    .name = "cast",
    .brief = "y = x, stored as f32 or bf16",
    .in = {{"x", "[rows, n]"}},
    .out = {{"y", "[rows, n]"}},
    .attrs = {{"to", DT_F32, DT_F32, DT_BF16, "0 f32, 1 bf16"}},
    .flags = OP_CHEAP,
    .infer = infer,
    .vjp = vjp,
    .reference = reference,
    .cpu = cpu,
    .cost = cost,
    .cases = cases,
};

/* moe_logits: how well each expert suits a token, in f32 whatever the storage of activations.
 *
 *   z[t, e] = x[t] . w[e]                               x [rows, d], w [E, d] f32, z [rows, E] f32
 *   dx[t] = sum_e dz[t, e] w[e],  dw[e] = sum_t dz[t, e] x[t]
 *
 * Source:   Shazeer et al., arXiv:1701.06538; kept in f32 as in Switch (Fedus et al., arXiv:2101.03961):
 *           which expert a token goes to must not turn on the rounding of a logit.
 * Numerics: the master of w, not its bf16 copy; the gradient runs over columns, so a sum over tokens is in
 *           their order whatever the number of threads.
 */
#include "ops/op.h"
#include <string.h>

static status infer(op_build *b)
{
    const tensor *x = b->n->in[0], *w = b->n->in[1];
    i64 dim[MAX_DIMS];
    TRY(need(b, w->ndim == 2 && cols(w) == cols(x), "w must be [experts, %lld]", (long long)cols(x)));
    memcpy(dim, x->dim, sizeof dim);
    dim[x->ndim - 1] = w->dim[0];
    return out_shape(b, 0, DT_F32, x->ndim, dim);
}

static void vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    node *d = g_node(g, OP_moe_logits_grad, IN(op->in[0], op->in[1], dout[0]), NO_ATTRS);
    din[0] = g_out(d, 0);
    din[1] = g_out(d, 1);
}

static void reference(const op_call64 *c)
{
    i64 rows = rows_of(c->node->in[0]), d = cols(c->node->in[0]), n = c->node->in[1]->dim[0];
    for (i64 t = 0; t < rows; t++)
        for (i64 e = 0; e < n; e++) {
            double z = 0;
            for (i64 j = 0; j < d; j++) z += c->in[0][t * d + j] * c->in[1][e * d + j];
            c->out[0][t * n + e] = z;
        }
}

static float dot(const float *restrict a, const float *restrict b, i64 n)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (i64 j = 0; j < n; j++) sum += a[j] * b[j];
    return sum;
}

static void cpu(const op_call *c)
{
    const view *w = &c->in[1];
#pragma omp parallel for schedule(static)
    for (i64 t = 0; t < c->in[0].rows; t++) {
        const float *x = row_in(c, 0, t);
        float *z = row_out(c, 0, t);
        for (i64 e = 0; e < w->rows; e++) z[e] = dot(x, (const float *)w->p + e * w->stride, w->n);
    }
}

static op_cost cost(const node *op)
{
    return (op_cost){2.0 * (double)count(op->out[0]) * (double)cols(op->in[0]), traffic(op)};
}

static const op_case cases[] = {
    {"typical", "x=2x33x64 w=8x64 f32 bf16"},  {"one expert", "x=5x33 w=1x33 f32 bf16"},
    {"one of all", "x=1x1 w=1x1 f32 bf16"},    {"exact", "x=9x24 w=5x24 fill=ints f32 bf16 tol=0"},
    {"135m", "x=2048x576 w=8x576 bf16 bench"}, {0},
};

OP_DEF(moe_logits) = {
    .name = "moe_logits",
    .brief = "z[t, e] = x[t] . w[e], in f32",
    .source = "Shazeer et al., arXiv:1701.06538",
    .in = {{"x", "[rows, d]"}, {"w", "[experts, d]", ARG_F32}},
    .out = {{"z", "[rows, experts]", ARG_F32}},
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
    const tensor *x = b->n->in[0], *w = b->n->in[1], *dz = b->n->in[2];
    TRY(need(b, w->ndim == 2 && cols(w) == cols(x), "w must be [experts, %lld]", (long long)cols(x)));
    TRY(need(b, rows_of(dz) == rows_of(x) && cols(dz) == w->dim[0], "dz must be [rows, %lld]",
             (long long)w->dim[0]));
    TRY(out_like(b, 0, x));
    return out_shape(b, 1, DT_F32, 2, w->dim);
}

static void grad_reference(const op_call64 *c)
{
    i64 rows = rows_of(c->node->in[0]), d = cols(c->node->in[0]), n = c->node->in[1]->dim[0];
    memset(c->out[0], 0, sizeof(double) * (size_t)(rows * d));
    memset(c->out[1], 0, sizeof(double) * (size_t)(n * d));
    for (i64 t = 0; t < rows; t++)
        for (i64 e = 0; e < n; e++)
            for (i64 j = 0; j < d; j++) {
                c->out[0][t * d + j] += c->in[2][t * n + e] * c->in[1][e * d + j];
                c->out[1][e * d + j] += c->in[2][t * n + e] * c->in[0][t * d + j];
            }
}

static void *at(const view *v, i64 row, i64 column)
{
    return (char *)v->p + (row * v->stride + column) * dtype_bytes(v->dtype);
}

/* Columns [first, last) of dx and dw. X and SUM are this thread's rows of last - first numbers. */
static void grad_columns(const op_call *c, i64 first, i64 last)
{
    const view *w = &c->in[1], *dw = &c->out[1];
    i64 n = last - first;
    float *wide = row_slot(c, 0), *sum = row_slot(c, 3);
    for (i64 e = 0; e < w->rows && !accumulates(c, 1); e++) memset(at(dw, e, first), 0, (size_t)n * 4);
    for (i64 t = 0; t < c->in[0].rows; t++) {
        const float *x = at(&c->in[0], t, first), *dz = at(&c->in[2], t, 0);
        bool bf = c->in[0].dtype == DT_BF16;
        float *restrict dx = bf ? sum : at(&c->out[0], t, first);
        if (bf) widen(wide, at(&c->in[0], t, first), n), x = wide;
        memset(dx, 0, (size_t)n * 4);
        for (i64 e = 0; e < w->rows; e++) {
            const float *restrict we = at(w, e, first);
            float *restrict de = at(dw, e, first), g = dz[e];
#pragma omp simd
            for (i64 j = 0; j < n; j++) {
                dx[j] += g * we[j];
                de[j] += g * x[j];
            }
        }
        if (bf) narrow(at(&c->out[0], t, first), dx, n);
    }
}

static void grad_cpu(const op_call *c)
{
    enum { LINE = 16 };
    i64 lines = (c->in[0].n + LINE - 1) / LINE;
#pragma omp parallel
    {
        i64 first, last;
        part(lines, thread_index(), omp_get_num_threads(), &first, &last);
        if (first < last) grad_columns(c, first * LINE, MIN(last * LINE, c->in[0].n));
    }
}

static op_cost grad_cost(const node *op)
{
    return (op_cost){4.0 * (double)count(op->in[2]) * (double)cols(op->in[0]), traffic(op)};
}

static const op_case grad_cases[] = {
    {"typical", "x=2x33x64 w=8x64 dz=2x33x8 f32 bf16"},
    {"one expert", "x=5x33 w=1x33 dz=5x1 f32 bf16"},
    {"many rows", "x=700x17 w=3x17 dz=700x3 f32 bf16"},
    {"one of all", "x=1x1 w=1x1 dz=1x1 f32 bf16"},
    {"exact", "x=9x24 w=5x24 dz=9x5 fill=ints f32 bf16 tol=0"},
    {"135m", "x=2048x576 w=8x576 dz=2048x8 bf16 bench"},
    {0},
};

OP_DEF(moe_logits_grad) = {
    .name = "moe_logits_grad",
    .brief = "dx[t] = sum_e dz[t, e] w[e], dw[e] = sum_t dz[t, e] x[t]",
    .in = {{"x", "[rows, d]"}, {"w", "[experts, d]", ARG_F32}, {"dz", "[rows, experts]", ARG_F32}},
    .out = {{"dx", "[rows, d]"}, {"dw", "[experts, d]", ARG_F32}},
    .flags = OP_ACCUMULATES,
    .infer = grad_infer,
    .reference = grad_reference,
    .cpu = grad_cpu,
    .cost = grad_cost,
    .cases = grad_cases,
};

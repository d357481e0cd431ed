/* hyper_ends: where the streams of Hyper-Connections begin and end.
 *
 *   stream_copy   y = [x, x, .., x], n copies side by side   x [rows, d], y [rows, n d]    dx = sum of dy's
 * parts stream_sum    y = sum_i x_i over the n parts of a row    x [rows, n d], y [rows, d]    dx = n copies
 * of dy
 *
 * Each is the other's gradient. Source: Hyper-Connections, arXiv:2409.19606, section 2 (H_0 and the end).
 * Numerics: sums in f32, in order, rounded once.
 */
#include "ops/op.h"
#include <math.h>
#include <string.h>

static status wide(op_build *b, i64 columns)
{
    const tensor *x = b->n->in[0];
    i64 dim[MAX_DIMS];
    memcpy(dim, x->dim, sizeof dim);
    dim[x->ndim - 1] = columns;
    return out_shape(b, 0, x->dtype, x->ndim, dim);
}

#define STREAMS                                                                                              \
    {                                                                                                        \
        {                                                                                                    \
            "n", 4, 1, 64, "streams"                                                                         \
        }                                                                                                    \
    }

/* ---- copy */
static status copy_infer(op_build *b) { return wide(b, cols(b->n->in[0]) * (i64)attr(b->n, "n")); }
static void copy_vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    din[0] = g_out(g_node_from(g, OP_stream_sum, IN(dout[0]), op), 0);
}
static void copy_reference(const op_call64 *c)
{
    i64 d = cols(c->node->in[0]), n = (i64)attr(c->node, "n");
    for (i64 i = 0; i < count(c->node->out[0]); i++) c->out[0][i] = c->in[0][i / (n * d) * d + i % d];
}
static void copy_cpu(const op_call *c)
{
    const view *x = &c->in[0], *y = &c->out[0];
    size_t bytes = (size_t)(x->n * dtype_bytes(x->dtype));
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < x->rows; r++) {
        const char *from = (const char *)x->p + r * x->stride * dtype_bytes(x->dtype);
        char *to = (char *)y->p + r * y->stride * dtype_bytes(y->dtype);
        for (i64 i = 0; i < y->n; i += x->n, to += bytes) memcpy(to, from, bytes);
    }
}
static op_cost copy_cost(const node *op) { return (op_cost){0, traffic(op)}; }
static const op_case copy_cases[] = {
    {"four", "x=7x64 f32 bf16 tol=0"},
    {"one", "x=7x65 n=1 f32 bf16 tol=0"},
    {"three", "x=5x17 n=3 f32 bf16 tol=0"},
    {"one value", "x=1x1 n=16 f32 tol=0"},
    {0},
};
OP_DEF(stream_copy) = {
    .name = "stream_copy",
    .brief = "y = n copies of x side by side",
    .source = "Hyper-Connections, arXiv:2409.19606",
    .in = {{"x", "[rows, d]"}},
    .out = {{"y", "[rows, n d]"}},
    .attrs = STREAMS,
    .flags = OP_CHEAP,
    .infer = copy_infer,
    .vjp = copy_vjp,
    .reference = copy_reference,
    .cpu = copy_cpu,
    .cost = copy_cost,
    .cases = copy_cases,
};

/* ---- sum */
static status sum_infer(op_build *b)
{
    i64 n = (i64)attr(b->n, "n"), d = cols(b->n->in[0]);
    TRY(need(b, d % n == 0, "rows of %lld do not divide into %lld streams", (long long)d, (long long)n));
    return wide(b, d / n);
}
static void sum_vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    din[0] = g_out(g_node_from(g, OP_stream_copy, IN(dout[0]), op), 0);
}
static void sum_reference(const op_call64 *c)
{
    i64 d = cols(c->node->out[0]), n = (i64)attr(c->node, "n");
    memset(c->out[0], 0, sizeof(double) * (size_t)count(c->node->out[0]));
    for (i64 i = 0; i < count(c->node->in[0]); i++) c->out[0][i / (n * d) * d + i % d] += c->in[0][i];
}
static void sum_cpu(const op_call *c)
{
    i64 d = c->out[0].n;
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < c->in[0].rows; r++) {
        const float *x = row_in(c, 0, r);
        float *y = row_out(c, 0, r);
        memcpy(y, x, (size_t)d * sizeof *y);
        for (i64 i = d; i < c->in[0].n; i += d)
            for (i64 j = 0; j < d; j++) y[j] += x[i + j];
        row_done(c, 0, r, y);
    }
}
static op_cost sum_cost(const node *op) { return (op_cost){(double)count(op->in[0]), traffic(op)}; }
static const op_case sum_cases[] = {
    {"four", "x=7x256 f32 bf16"},
    {"one", "x=7x65 n=1 f32 bf16 tol=0"},
    {"three", "x=5x51 n=3 f32 bf16"},
    {"exact", "x=5x64 n=4 fill=ints f32 bf16 tol=0"},
    {0},
};
/* Exchanging two streams changes nothing. */
static double order_free(law *l)
{
    double first[3 * 5], *x = law_in(l, "x");
    memcpy(first, law_run(l, 0), sizeof first);
    for (i64 r = 0; r < 3; r++)
        for (i64 j = 0; j < 5; j++) {
            double t = x[r * 20 + j];
            x[r * 20 + j] = x[r * 20 + 10 + j];
            x[r * 20 + 10 + j] = t;
        }
    double worst = 0;
    for (i64 i = 0; i < 15; i++) worst = fmax(worst, fabs(law_run(l, 0)[i] - first[i]));
    return worst;
}
static const op_law sum_laws[] = {{"order of streams", "x=3x20", order_free, 1e-15}, {0}};
OP_DEF(stream_sum) = {
    .name = "stream_sum",
    .brief = "y = sum of the n parts of a row",
    .source = "Hyper-Connections, arXiv:2409.19606",
    .in = {{"x", "[rows, n d]"}},
    .out = {{"y", "[rows, d]"}},
    .attrs = STREAMS,
    .flags = OP_CHEAP,
    .infer = sum_infer,
    .vjp = sum_vjp,
    .reference = sum_reference,
    .cpu = sum_cpu,
    .cost = sum_cost,
    .cases = sum_cases,
    .laws = sum_laws,
};

/* affine: a learned scale and a learned shift of every value of a row.
 *
 *   y  = a x + b                                        x, y [rows, n];  a, b [n/heads], shared by the heads
 *   dx = a dy,   da = sum over rows and heads of dy x,   db = sum over rows and heads of dy
 *
 * Serves biases of norms that have none of their own, PreAffine (arXiv:2601.22966: a before the statistics)
 * and, with heads = n, a single learned scalar. Either of a and b may be absent. Numerics: f32, rounded once.
 */
#include "ops/norm_ops.h"

static status checked(op_build *b)
{
    i64 heads = (i64)attr(b->n, "heads"), n = cols(b->n->in[0]);
    TRY(need(b, n % heads == 0, "rows of %lld do not divide into %lld heads", (long long)n,
             (long long)heads));
    for (int i = 1; i < 3; i++) {
        const tensor *t = b->n->in[i];
        TRY(need(b, !t || (t->ndim == 1 && t->dim[0] == n / heads), "%s must be [%lld]", i == 1 ? "a" : "b",
                 (long long)(n / heads)));
    }
    return OK;
}
static status infer(op_build *b)
{
    TRY(checked(b));
    return out_like(b, 0, b->n->in[0]);
}

static void vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    node *d = g_node_from(g, OP_affine_grad, IN(op->in[0], op->in[1], op->in[2], dout[0]), op);
    for (int i = 0; i < 3; i++) din[i] = g_out(d, i);
}

static void reference(const op_call64 *c)
{
    i64 n = cols(c->node->in[0]) / (i64)attr(c->node, "heads");
    for (i64 k = 0; k < count(c->node->in[0]); k++)
        c->out[0][k] = (c->in[1] ? c->in[1][k % n] : 1) * c->in[0][k] + (c->in[2] ? c->in[2][k % n] : 0);
}

static void cpu(const op_call *c)
{
    i64 heads = (i64)attr(c->node, "heads"), n = c->in[0].n / heads;
    const float *a = c->in[1].p, *b = c->in[2].p;
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < c->in[0].rows; r++) {
        const float *x = row_in(c, 0, r);
        float *y = row_out(c, 0, r);
        for (i64 h = 0; h < heads * n; h += n)
#pragma omp simd
            for (i64 j = 0; j < n; j++) y[h + j] = (a ? a[j] : 1) * x[h + j] + (b ? b[j] : 0);
        row_done(c, 0, r, y);
    }
}

static op_cost cost(const node *op) { return (op_cost){2.0 * (double)count(op->in[0]), traffic(op)}; }

static const op_case cases[] = {
    {"typical", "x=64x768 a=768 b=768 f32 bf16"},
    {"scale", "x=33x129 a=129 f32 bf16"},
    {"shift", "x=33x129 b=129 f32 bf16"},
    {"heads", "x=33x256 a=64 b=64 heads=4 f32 bf16"},
    {"one scalar", "x=5x66 a=1 heads=66 f32 bf16"},
    {"neither", "x=5x66 f32 bf16 tol=0"},
    {"exact", "x=5x66 a=66 b=66 fill=ints f32 bf16 tol=0"},
    {0},
};
static double worked(law *l)
{
    memcpy(law_in(l, "x"), (const double[]){1, 2, 3, 4}, 4 * sizeof(double));
    memcpy(law_in(l, "a"), (const double[]){10, 100}, 2 * sizeof(double));
    memcpy(law_in(l, "b"), (const double[]){0, 1}, 2 * sizeof(double));
    const double *y = law_run(l, 0), want[] = {10, 201, 30, 401};
    return memcmp(y, want, sizeof want) ? 1 : 0;
}
static const op_law laws[] = {{"worked values", "x=1x4 a=2 b=2 heads=2", worked, 0}, {0}};

#define HEADS                                                                                                \
    {                                                                                                        \
        {                                                                                                    \
            "heads", 1, 1, 65536, "groups of a row that share a and b"                                       \
        }                                                                                                    \
    }

OP_DEF(affine) = {
    .name = "affine",
    .brief = "y = a x + b",
    .source = "PreAffine: arXiv:2601.22966",
    .in = {{"x", "[rows, n]"},
           {"a", "[n/heads]", ARG_F32, .optional = true, .fill = "around1"},
           {"b", "[n/heads]", ARG_F32, .optional = true}},
    .out = {{"y", "[rows, n]"}},
    .attrs = HEADS,
    .flags = OP_CHEAP,
    .inplace = 1,
    .infer = infer,
    .vjp = vjp,
    .reference = reference,
    .cpu = cpu,
    .cost = cost,
    .cases = cases,
    .laws = laws,
};

/* ---- the gradient; b comes in only to say that its gradient is wanted */
static status grad_infer(op_build *b)
{
    TRY(checked(b));
    TRY(need(b, same_shape(b->n->in[0], b->n->in[3]), "dy must have the shape of x"));
    TRY(out_like(b, 0, b->n->in[0]));
    for (int i = 1; i < 3; i++)
        if (b->n->in[i]) TRY(out_shape(b, i, DT_F32, 1, b->n->in[i]->dim));
    return OK;
}

static void grad_reference(const op_call64 *c)
{
    i64 n = cols(c->node->in[0]) / (i64)attr(c->node, "heads");
    for (int i = 1; i < 3; i++)
        if (c->out[i]) memset(c->out[i], 0, sizeof(double) * (size_t)n);
    for (i64 k = 0; k < count(c->node->in[0]); k++) {
        c->out[0][k] = (c->in[1] ? c->in[1][k % n] : 1) * c->in[3][k];
        if (c->out[1]) c->out[1][k % n] += c->in[3][k] * c->in[0][k];
        if (c->out[2]) c->out[2][k % n] += c->in[3][k];
    }
}

/* SUMS: da [n], db [n]. */
static void grad_row(const op_call *c, i64 r, float *restrict sums)
{
    i64 heads = (i64)attr(c->node, "heads"), n = c->in[0].n / heads;
    const float *x = row_in(c, 0, r), *dy = row_in(c, 3, r), *a = c->in[1].p;
    float *dx = row_out(c, 0, r);
    for (i64 h = 0; h < heads * n; h += n) {
#pragma omp simd
        for (i64 j = 0; j < n; j++) sums[j] += dy[h + j] * x[h + j];
#pragma omp simd
        for (i64 j = 0; j < n; j++) sums[n + j] += dy[h + j];
#pragma omp simd
        for (i64 j = 0; j < n; j++) dx[h + j] = (a ? a[j] : 1) * dy[h + j];
    }
    row_done(c, 0, r, dx);
}
static i64 group(const op_call *c) { return c->in[0].n / (i64)attr(c->node, "heads"); }
static status grad_prepare(op_call *c) { return sums_prepare(c, 2 * group(c)); }
static void grad_cpu(const op_call *c)
{
    i64 n = group(c);
    int team = sum_rows(c, 2 * n, grad_row);
    sums_into(c, 1, 2 * n, 0, n, team);
    sums_into(c, 2, 2 * n, n, n, team);
}

static op_cost grad_cost(const node *op) { return (op_cost){4.0 * (double)count(op->in[0]), traffic(op)}; }

static const op_case grad_cases[] = {
    {"typical", "x=64x768 a=768 b=768 dy=64x768 f32 bf16"},
    {"scale", "x=33x129 a=129 dy=33x129 f32 bf16"},
    {"shift", "x=33x129 b=129 dy=33x129 f32 bf16"},
    {"heads", "x=33x256 a=64 b=64 dy=33x256 heads=4 f32 bf16"},
    {"one scalar", "x=5x66 a=1 dy=5x66 heads=66 f32 bf16"},
    {0},
};

OP_DEF(affine_grad) = {
    .name = "affine_grad",
    .brief = "dx = a dy, da = sum dy x, db = sum dy",
    .in = {{"x", "[rows, n]"},
           {"a", "[n/heads]", ARG_F32, .optional = true, .fill = "around1"},
           {"b", "[n/heads]", ARG_F32, .optional = true},
           {"dy", "[rows, n]"}},
    .out = {{"dx", "[rows, n]"},
            {"da", "[n/heads]", ARG_F32, .optional = true},
            {"db", "[n/heads]", ARG_F32, .optional = true}},
    .attrs = HEADS,
    .flags = OP_ACCUMULATES,
    .infer = grad_infer,
    .reference = grad_reference,
    .cpu = grad_cpu,
    .prepare = grad_prepare,
    .cost = grad_cost,
    .cases = grad_cases,
};

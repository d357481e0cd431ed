/* joint: where a branch joins the residual stream; and scale.
 *
 *   joint   y = a x + c b      x [rows, n] the stream, whose storage rules y's; b [rows, n] the branch's
 * output dx = a dy, db = c dy: dy itself passes where the factor is 1, cast where the storages differ scale
 * y = a x,  dx = a dy
 *
 * Sources:  a, c: DeepNorm, arXiv:2203.00555 (a = alpha), and the fixed weights of other placements.
 * Numerics: f32, rounded once.
 */
#include "ops/norm_rows.h"
#include "ops/op.h"
#include <math.h>
#include <string.h>

static tensor *scaled(graph *g, tensor *x, double by)
{
    return by == 1 ? x : g_out(g_node(g, OP_scale, IN(x), WITH({"a", by})), 0);
}

/* ---- joint */
static status joint_infer(op_build *b)
{
    TRY(need(b, same_shape(b->n->in[0], b->n->in[1]), "stream and branch differ in shape"));
    return out_like(b, 0, b->n->in[0]);
}

static void joint_vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    dtype branch = op->in[1]->dtype;
    din[0] = scaled(g, dout[0], attr(op, "a"));
    din[1] = scaled(g, dout[0], attr(op, "c"));
    if (g->failed || din[1]->dtype == branch) return;
    din[1] = g_out(g_node(g, OP_cast, IN(din[1]), WITH({"to", branch})), 0);
}

static void joint_reference(const op_call64 *c)
{
    for (i64 j = 0; j < count(c->node->in[0]); j++)
        c->out[0][j] = attr(c->node, "a") * c->in[0][j] + attr(c->node, "c") * c->in[1][j];
}

static void joint_cpu(const op_call *c)
{
    float a = (float)attr(c->node, "a"), k = (float)attr(c->node, "c");
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < c->in[0].rows; r++) {
        float *y = row_out(c, 0, r);
        row_join(y, row_in(c, 0, r), row_in(c, 1, r), a, k, c->in[0].n);
        row_done(c, 0, r, y);
    }
}

static op_cost joint_cost(const node *op) { return (op_cost){3.0 * (double)count(op->in[0]), traffic(op)}; }

static const op_case joint_cases[] = {
    {"typical", "x=64x768 b=64x768 f32 bf16"},
    {"weighted", "x=33x129 b=33x129 a=0.8 c=-1.7 f32 bf16"},
    {"branch only", "x=3x65 b=3x65 a=0 f32 bf16"},
    {"one value", "x=3x1 b=3x1 f32 bf16"},
    {"one row", "x=1x17 b=1x17 f32 bf16"},
    {"exact", "x=5x65 b=5x65 fill=ints f32 bf16 tol=0"},
    {"exact weighted", "x=5x65 b=5x65 a=2 c=-3 fill=ints f32 bf16 tol=0"},
    {"bench", "x=2048x768 b=2048x768 bf16 bench"},
    {0},
};
/* Exchanging x and b exchanges a and c: with a = c nothing changes. */
static double symmetric(law *l)
{
    double first[4 * 16], worst = 0, *x = law_in(l, "x"), *b = law_in(l, "b");
    memcpy(first, law_run(l, 0), sizeof first);
    for (int i = 0; i < 4 * 16; i++) {
        double t = x[i];
        x[i] = b[i];
        b[i] = t;
    }
    const double *y = law_run(l, 0);
    for (int i = 0; i < 4 * 16; i++) worst = fmax(worst, fabs(y[i] - first[i]));
    return worst;
}
static const op_law joint_laws[] = {{"symmetric", "x=4x16 b=4x16 a=0.7 c=0.7", symmetric, 0}, {0}};

OP_DEF(joint) = {
    .name = "joint",
    .brief = "y = a x + c b: branch b joins stream x",
    .source = "a, c: DeepNorm, arXiv:2203.00555",
    .in = {{"x", "[rows, n]"}, {"b", "[rows, n]"}},
    .out = {{"y", "[rows, n]"}},
    .attrs = {{"a", 1, -1e9, 1e9, "factor of the stream"}, {"c", 1, -1e9, 1e9, "factor of the branch"}},
    // Not OP_CHEAP: computing the stream again would keep every branch instead and repeat the whole stream.
    .inplace = 1,
    .infer = joint_infer,
    .vjp = joint_vjp,
    .reference = joint_reference,
    .cpu = joint_cpu,
    .cost = joint_cost,
    .cases = joint_cases,
    .laws = joint_laws,
};

/* ---- scale */
static status scale_infer(op_build *b) { return out_like(b, 0, b->n->in[0]); }

static void scale_vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    din[0] = scaled(g, dout[0], attr(op, "a"));
}

static void scale_reference(const op_call64 *c)
{
    for (i64 j = 0; j < count(c->node->in[0]); j++) c->out[0][j] = attr(c->node, "a") * c->in[0][j];
}

static void scale_cpu(const op_call *c)
{
    i64 n = c->in[0].n;
    float a = (float)attr(c->node, "a");
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < c->in[0].rows; r++) {
        const float *x = row_in(c, 0, r);
        float *y = row_out(c, 0, r);
#pragma omp simd
        for (i64 j = 0; j < n; j++) y[j] = a * x[j];
        row_done(c, 0, r, y);
    }
}

static op_cost scale_cost(const node *op) { return (op_cost){(double)count(op->in[0]), traffic(op)}; }

static const op_case scale_cases[] = {
    {"typical", "x=64x768 a=0.3 f32 bf16"},    {"identity", "x=5x65 f32 bf16 tol=0"},
    {"one value", "x=3x1 a=-2 f32 bf16"},      {"zero", "x=3x17 a=0 f32 bf16 tol=0"},
    {"exact", "x=5x65 a=-0.5 f32 bf16 tol=0"}, {0},
};

OP_DEF(scale) = {
    .name = "scale",
    .brief = "y = a x",
    .in = {{"x", "[rows, n]"}},
    .out = {{"y", "[rows, n]"}},
    .attrs = {{"a", 1, -1e9, 1e9, "the factor"}},
    .flags = OP_CHEAP,
    .inplace = 1,
    .infer = scale_infer,
    .vjp = scale_vjp,
    .reference = scale_reference,
    .cpu = scale_cpu,
    .cost = scale_cost,
    .cases = scale_cases,
};

/* joint_norm: the joint and the norm that reads it, in one pass over the rows.
 *
 *   joint_rms_norm     h = a x + c b,  y, s = rms_norm(h, gain)                  x, b, h, y [rows, n]
 *   joint_layer_norm   h = a x + c b,  y, mean, s = layer_norm(h, gain, bias)
 *
 * Fused ops: the rewrites (graph/rewrite.h) put them in place of their sequences after autodiff, so they need
 * no gradient. Bytes of a row: x, b in, h, y out, 4 n against 5 n of the sequence, which writes h and reads
 * it again. Equations and sources: joint.c, rms_norm.c, layer_norm.c. Numerics: the norm reads h rounded to
 * its storage, so that the bits are those of the sequence.
 */
#include "ops/norm_rows.h"
#include "ops/op.h"
#include <math.h>

/* Row R of h: joined, put into place, and as a later reader would find it. */
static const float *joined(const op_call *c, i64 r)
{
    float *h = row_out(c, 0, r);
    row_join(h, row_in(c, 0, r), row_in(c, 1, r), (float)attr(c->node, "a"), (float)attr(c->node, "c"),
             c->in[0].n);
    row_done(c, 0, r, h);
    const view *v = &c->out[0];
    if (v->dtype == DT_BF16) widen(h, (const bf16 *)v->p + r * v->stride, v->n);
    return h;
}

static void joined64(const op_call64 *c)
{
    for (i64 j = 0; j < count(c->node->in[0]); j++)
        c->out[0][j] = attr(c->node, "a") * c->in[0][j] + attr(c->node, "c") * c->in[1][j];
}

static status infer_joined(op_build *b)
{
    TRY(need(b, same_shape(b->n->in[0], b->n->in[1]), "stream and branch differ in shape"));
    TRY(out_like(b, 0, b->n->in[0]));
    return norm_y(b, 1, b->n->in[0]);
}

/* ---- joint_rms_norm */
static status rms_infer(op_build *b)
{
    const tensor *x = b->n->in[0], *gain = b->n->in[2];
    i64 heads = (i64)attr(b->n, "heads"), n = cols(x);
    TRY(need(b, n % heads == 0, "rows of %lld do not divide into %lld heads", (long long)n,
             (long long)heads));
    TRY(need(b, !gain || (gain->ndim == 1 && gain->dim[0] == n / heads), "gain must be [%lld]",
             (long long)(n / heads)));
    TRY(infer_joined(b));
    return out_shape(b, 2, DT_F32, 2, (i64[]){rows_of(x), heads});
}

static void rms_reference(const op_call64 *c)
{
    i64 heads = (i64)attr(c->node, "heads"), n = cols(c->node->in[0]) / heads;
    const double *h = c->out[0], *gain = c->in[2];
    joined64(c);
    for (i64 group = 0; group < rows_of(c->node->in[0]) * heads; group++) {
        double square = 0;
        for (i64 j = group * n; j < (group + 1) * n; j++) square += h[j] * h[j];
        c->out[2][group] = pow(square / (double)n + attr(c->node, "eps"), -0.5);
        for (i64 j = group * n; j < (group + 1) * n; j++)
            c->out[1][j] = (gain ? gain[j % n] : 1) * h[j] * c->out[2][group];
    }
}

static void rms_cpu(const op_call *c)
{
    i64 heads = (i64)attr(c->node, "heads"), n = c->in[0].n / heads;
    float eps = (float)attr(c->node, "eps");
    bool native = is_native(c);
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < c->in[0].rows; r++) {
        const float *h = joined(c, r);
        float *y = row_out(c, 1, r), *s = (float *)c->out[2].p + r * heads;
        for (i64 k = 0; k < heads; k++) s[k] = row_rms(y + k * n, h + k * n, c->in[2].p, eps, native, n);
        row_done(c, 1, r, y);
    }
}

static op_cost rms_cost(const node *op) { return (op_cost){7.0 * (double)count(op->in[0]), traffic(op)}; }

static const op_case rms_cases[] = {
    {"typical", "x=64x768 b=64x768 gain=768 f32 bf16 tol.bf16=0.0078"},
    {"no gain", "x=33x129 b=33x129 f32 bf16 tol.bf16=0.0078"},
    {"weighted", "x=33x129 b=33x129 gain=129 a=0.8 c=-1.7 f32 bf16 tol.bf16=0.0078"},
    {"heads", "x=33x256 b=33x256 gain=64 heads=4 f32 bf16 tol.bf16=0.0078"},
    {"native statistics", "x=33x129 b=33x129 gain=129 native=1 bf16 tol.bf16=0.0156"},
    {"one value", "x=3x1 b=3x1 gain=1 f32"},
    {"zero rows", "x=4x64 b=4x64 gain=64 fill.x=zero fill.b=zero f32 bf16"},
    {"exact", "x=4x64 b=4x64 eps=0 fill.x=pm2 fill.b=zero f32 bf16 tol=0"}, // |h| = 2, so y = +-1
    {"bench", "x=2048x768 b=2048x768 gain=768 bf16 bench"},
    {0},
};

OP_DEF(joint_rms_norm) = {
    .name = "joint_rms_norm",
    .brief = "h = a x + c b, y = gain h s, s = (mean h^2 + eps)^(-1/2)",
    .in = {{"x", "[rows, n]"},
           {"b", "[rows, n]"},
           {"gain", "[n/heads]", ARG_F32, .optional = true, .fill = "around1"}},
    .out = {{"h", "[rows, n]"}, {"y", "[rows, n]"}, {"s", "[rows, heads]", ARG_F32, .fixed = true}},
    .attrs = {{"a", 1, -1e9, 1e9, "factor of the stream"},
              {"c", 1, -1e9, 1e9, "factor of the branch"},
              {"eps", 1e-5, 0, 1, "added to the mean square"},
              {"heads", 1, 1, 65536, "groups a row is normalised in"},
              AS_X_ATTR,
              NATIVE_ATTR},
    .replaces = {"h = joint(x, b); y, s = rms_norm(h, gain)"},
    .inplace = 1,
    .infer = rms_infer,
    .reference = rms_reference,
    .cpu = rms_cpu,
    .cost = rms_cost,
    .cases = rms_cases,
};

/* ---- joint_layer_norm */
static status layer_infer(op_build *b)
{
    const tensor *x = b->n->in[0];
    i64 heads = (i64)attr(b->n, "heads"), n = cols(x);
    TRY(need(b, n % heads == 0, "rows of %lld do not divide into %lld heads", (long long)n,
             (long long)heads));
    for (int i = 2; i < 4; i++) {
        const tensor *t = b->n->in[i];
        TRY(need(b, !t || (t->ndim == 1 && t->dim[0] == n / heads), "%s must be [%lld]",
                 i == 2 ? "gain" : "bias", (long long)(n / heads)));
    }
    TRY(infer_joined(b));
    TRY(out_shape(b, 2, DT_F32, 2, (i64[]){rows_of(x), heads}));
    return out_shape(b, 3, DT_F32, 2, (i64[]){rows_of(x), heads});
}

static void layer_reference(const op_call64 *c)
{
    i64 heads = (i64)attr(c->node, "heads"), n = cols(c->node->in[0]) / heads;
    const double *gain = c->in[2], *bias = c->in[3];
    joined64(c);
    for (i64 r = 0; r < rows_of(c->node->in[0]) * heads; r++) {
        const double *h = c->out[0] + r * n;
        double mean = 0, variance = 0;
        for (i64 j = 0; j < n; j++) mean += h[j];
        mean /= (double)n;
        for (i64 j = 0; j < n; j++) variance += pow(h[j] - mean, 2);
        c->out[2][r] = mean;
        c->out[3][r] = pow(variance / (double)n + attr(c->node, "eps"), -0.5);
        for (i64 j = 0; j < n; j++)
            c->out[1][r * n + j] = (h[j] - mean) * c->out[3][r] * (gain ? gain[j] : 1) + (bias ? bias[j] : 0);
    }
}

static void layer_cpu(const op_call *c)
{
    i64 heads = (i64)attr(c->node, "heads"), n = c->in[0].n / heads;
    float eps = (float)attr(c->node, "eps");
    bool native = is_native(c);
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < c->in[0].rows; r++) {
        const float *h = joined(c, r);
        float *y = row_out(c, 1, r);
        float *m = (float *)c->out[2].p + r * heads, *s = (float *)c->out[3].p + r * heads;
        for (i64 k = 0; k < heads; k++)
            row_layer(y + k * n, h + k * n, c->in[2].p, c->in[3].p, eps, native, n, m + k, s + k);
        row_done(c, 1, r, y);
    }
}

static op_cost layer_cost(const node *op) { return (op_cost){11.0 * (double)count(op->in[0]), traffic(op)}; }

static const op_case layer_cases[] = {
    {"typical", "x=64x768 b=64x768 gain=768 bias=768 f32 bf16 tol.bf16=0.0078"},
    {"no bias", "x=33x129 b=33x129 gain=129 f32 bf16 tol.bf16=0.0078"},
    {"no gain", "x=33x256 b=33x256 bias=256 f32 bf16 tol.bf16=0.0078"},
    {"bare", "x=9x96 b=9x96 f32 bf16 tol.bf16=0.0078"},
    {"weighted", "x=33x129 b=33x129 gain=129 bias=129 a=0.8 c=-1.7 f32 bf16 tol.bf16=0.0078"},
    {"heads", "x=33x256 b=33x256 gain=64 bias=64 heads=4 f32 bf16 tol.bf16=0.0078"},
    {"native statistics", "x=33x129 b=33x129 gain=129 bias=129 native=1 bf16 tol.bf16=0.0156"},
    {"one value", "x=3x1 b=3x1 gain=1 bias=1 f32"},
    {"exact", "x=4x64 b=4x64 gain=64 bias=64 eps=0.25 fill.x=one fill.b=one fill.gain=ints fill.bias=ints "
              "f32 bf16 tol=0"},
    {"bench", "x=2048x768 b=2048x768 gain=768 bias=768 bf16 bench"},
    {0},
};

OP_DEF(joint_layer_norm) = {
    .name = "joint_layer_norm",
    .brief = "h = a x + c b, y = gain (h - m) s + bias, m = mean h, s = (mean (h - m)^2 + eps)^(-1/2)",
    .in = {{"x", "[rows, n]"},
           {"b", "[rows, n]"},
           {"gain", "[n/heads]", ARG_F32, .optional = true, .fill = "around1"},
           {"bias", "[n/heads]", ARG_F32, .optional = true}},
    .out = {{"h", "[rows, n]"},
            {"y", "[rows, n]"},
            {"mean", "[rows, heads]", ARG_F32, .fixed = true},
            {"s", "[rows, heads]", ARG_F32, .fixed = true}},
    .attrs = {{"a", 1, -1e9, 1e9, "factor of the stream"},
              {"c", 1, -1e9, 1e9, "factor of the branch"},
              {"eps", 1e-5, 0, 1, "added to the variance"},
              {"heads", 1, 1, 65536, "groups a row is normalised in"},
              AS_X_ATTR,
              NATIVE_ATTR},
    .replaces = {"h = joint(x, b); y, mean, s = layer_norm(h, gain, bias)"},
    .inplace = 1,
    .infer = layer_infer,
    .reference = layer_reference,
    .cpu = layer_cpu,
    .cost = layer_cost,
    .cases = layer_cases,
};

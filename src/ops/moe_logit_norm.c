/* moe_logit_norm: the logits of a token brought to mean 0 and deviation SCALE before the scores are taken, so
 * that how sharp a router chooses is not left to the size of its weights.
 *
 *   c = z - mean z,  s = sqrt(mean c^2),  y = scale c / (s + 1e-6)                  over the experts of a row
 *   dz = scale / (s + 1e-6) (dy - mean dy - c sum(dy c) / (E s (s + 1e-6))),        the last term 0 if s = 0
 *
 * Source:   Skywork-MoE, arXiv:2406.06563 (lambda there). It does not say which deviation; Keel takes the
 *           population's, and adds 1e-6 to it.
 * Law:      y(a z + b) = y(z) for a > 0, up to what 1e-6 does.
 */
#include "ops/op.h"
#include <math.h>
#include <string.h>

static const double EPS = 1e-6;

static status infer(op_build *b) { return out_like(b, 0, b->n->in[0]); }

static void vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    din[0] = g_out(g_node_from(g, OP_moe_logit_norm_grad, IN(op->in[0], dout[0]), op), 0);
}

static double mean64(const double *x, i64 n)
{
    double sum = 0;
    for (i64 i = 0; i < n; i++) sum += x[i];
    return sum / (double)n;
}

static double deviation64(const double *z, i64 n)
{
    double m = mean64(z, n), sum = 0;
    for (i64 i = 0; i < n; i++) sum += (z[i] - m) * (z[i] - m);
    return sqrt(sum / (double)n);
}

static void reference(const op_call64 *c)
{
    i64 n = cols(c->node->in[0]);
    for (i64 r = 0; r < rows_of(c->node->in[0]); r++) {
        const double *z = c->in[0] + r * n;
        double m = mean64(z, n), s = deviation64(z, n);
        for (i64 i = 0; i < n; i++) c->out[0][r * n + i] = attr(c->node, "scale") * (z[i] - m) / (s + EPS);
    }
}

/* Mean and deviation of a row. */
static void moments(const float *z, i64 n, float *mean, float *s)
{
    float sum = 0, squares = 0;
    for (i64 i = 0; i < n; i++) sum += z[i];
    *mean = sum / (float)n;
    for (i64 i = 0; i < n; i++) squares += (z[i] - *mean) * (z[i] - *mean);
    *s = sqrtf(squares / (float)n);
}

static void cpu(const op_call *c)
{
    float scale = (float)attr(c->node, "scale");
    i64 n = c->in[0].n;
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < c->in[0].rows; r++) {
        const float *z = row_in(c, 0, r);
        float *y = row_out(c, 0, r), mean, s;
        moments(z, n, &mean, &s);
        for (i64 i = 0; i < n; i++) y[i] = scale * (z[i] - mean) / (s + (float)EPS);
    }
}

static op_cost cost(const node *op) { return (op_cost){6.0 * (double)count(op->out[0]), traffic(op)}; }

static const op_case cases[] = {
    {"typical", "z=33x8 f32"},
    {"three", "z=3x5x3 scale=2 f32"},
    {"one expert", "z=4x1 f32 grad=0"},
    {"wide", "z=9x257 scale=0.5 f32"},
    {"all alike", "z=3x8 fill=one f32 grad=0"},
    {0},
};

static double free_of_scale(law *l)
{
    double first[12], worst = 0, *z = law_in(l, "z");
    memcpy(first, law_run(l, 0), sizeof first);
    for (int i = 0; i < 12; i++) z[i] = 3 * z[i] + 0.7;
    const double *y = law_run(l, 0);
    for (int i = 0; i < 12; i++) worst = fmax(worst, fabs(y[i] - first[i]));
    return worst;
}
/* z = (2, 1, 0) gives (1.224745, 0, -1.224745). */
static double worked(law *l)
{
    memcpy(law_in(l, "z"), (const double[]){2, 1, 0}, 3 * sizeof(double));
    const double *y = law_run(l, 0);
    return fmax(fabs(y[0] - 1.224745), fmax(fabs(y[1]), fabs(y[2] + 1.224745)));
}
static const op_law laws[] = {
    {"free of scale and shift", "z=3x4", free_of_scale, 1e-4}, {"worked values", "z=1x3", worked, 2e-6}, {0}};

#define ATTRS                                                                                                \
    {                                                                                                        \
        {                                                                                                    \
            "scale", 1, 1e-6, 1e6, "deviation of the result"                                                 \
        }                                                                                                    \
    }

OP_DEF(moe_logit_norm) = {
    .name = "moe_logit_norm",
    .brief = "y = scale (z - mean z) / (deviation of z + 1e-6)",
    .source = "Skywork-MoE, arXiv:2406.06563",
    .in = {{"z", "[rows, experts]", ARG_F32}},
    .out = {{"y", "[rows, experts]", ARG_F32}},
    .attrs = ATTRS,
    .infer = infer,
    .vjp = vjp,
    .reference = reference,
    .cpu = cpu,
    .cost = cost,
    .cases = cases,
    .laws = laws,
};

/* ---- the gradient */

static status grad_infer(op_build *b)
{
    TRY(need(b, same_shape(b->n->in[0], b->n->in[1]), "dy must have the shape of z"));
    return out_like(b, 0, b->n->in[0]);
}

static void grad_reference(const op_call64 *c)
{
    i64 n = cols(c->node->in[0]);
    for (i64 r = 0; r < rows_of(c->node->in[0]); r++) {
        const double *z = c->in[0] + r * n, *dy = c->in[1] + r * n;
        double m = mean64(z, n), s = deviation64(z, n), along = 0, scale = attr(c->node, "scale");
        for (i64 i = 0; i < n; i++) along += dy[i] * (z[i] - m);
        for (i64 i = 0; i < n; i++) {
            double curve = s > 0 ? (z[i] - m) * along / ((double)n * s * (s + EPS)) : 0;
            c->out[0][r * n + i] = scale / (s + EPS) * (dy[i] - mean64(dy, n) - curve);
        }
    }
}

static void grad_cpu(const op_call *c)
{
    float scale = (float)attr(c->node, "scale"), eps = (float)EPS;
    i64 n = c->in[0].n;
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < c->in[0].rows; r++) {
        const float *z = row_in(c, 0, r), *dy = row_in(c, 1, r);
        float *dz = row_out(c, 0, r), mean, s, sum = 0, along = 0;
        moments(z, n, &mean, &s);
        for (i64 i = 0; i < n; i++) sum += dy[i], along += dy[i] * (z[i] - mean);
        float curve = s > 0 ? along / ((float)n * s * (s + eps)) : 0;
        for (i64 i = 0; i < n; i++)
            dz[i] = scale / (s + eps) * (dy[i] - sum / (float)n - curve * (z[i] - mean));
    }
}

static op_cost grad_cost(const node *op) { return (op_cost){10.0 * (double)count(op->out[0]), traffic(op)}; }

static const op_case grad_cases[] = {
    {"typical", "z=33x8 dy=33x8 f32"},
    {"three", "z=3x5x3 dy=3x5x3 scale=2 f32 tol=1e-4"},
    {"one expert", "z=4x1 dy=4x1 f32"},
    {"all alike", "z=3x8 dy=3x8 fill.z=one f32"},
    {0},
};

OP_DEF(moe_logit_norm_grad) = {
    .name = "moe_logit_norm_grad",
    .brief = "dz = scale / (s + 1e-6) (dy - mean dy - c sum(dy c) / (E s (s + 1e-6))), c = z - mean z",
    .in = {{"z", "[rows, experts]", ARG_F32}, {"dy", "[rows, experts]", ARG_F32}},
    .out = {{"dz", "[rows, experts]", ARG_F32}},
    .attrs = ATTRS,
    .infer = grad_infer,
    .reference = grad_reference,
    .cpu = grad_cpu,
    .cost = grad_cost,
    .cases = grad_cases,
};

/* dyt: Dynamic Tanh, in the place of a norm: no statistics, a squash whose slope is learned.
 *
 *   y  = gain t,   t = tanh(alpha x)                         x, y [rows, n];  alpha [1], one scalar a site
 *   dx = alpha u,  u = gain dy (1 - t^2)
 *   dalpha = sum of u x,   dgain = sum over rows of dy t
 *
 * Not free of scale: alpha sets how much of x lies on the straight part of tanh.
 *
 * Source:   Zhu et al., arXiv:2503.10622 (its bias is op affine).
 * Numerics: f32; t is computed again in the gradient, where (1 - t)(1 + t) keeps its relative accuracy.
 */
#include "ops/norm_ops.h"
#include "ops/vec.h"
#include <math.h>

static status infer(op_build *b) { return norm_infer(b, 0); }

static void vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    node *d = g_node_from(g, OP_dyt_grad, IN(op->in[0], op->in[1], op->in[2], dout[0]), op);
    for (int i = 0; i < 3; i++) din[i] = g_out(d, i);
}

static void reference(const op_call64 *c)
{
    i64 n = cols(c->node->in[0]);
    for (i64 k = 0; k < count(c->node->in[0]); k++)
        c->out[0][k] = (c->in[1] ? c->in[1][k % n] : 1) * tanh(c->in[2][0] * c->in[0][k]);
}

static void cpu(const op_call *c)
{
    const float *restrict gain = c->in[1].p, alpha = *(const float *)c->in[2].p;
    i64 n = c->in[0].n;
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < c->in[0].rows; r++) {
        const float *restrict x = row_in(c, 0, r);
        float *restrict y = row_out(c, 0, r);
        if (gain) {
#pragma omp simd
            for (i64 j = 0; j < n; j++) y[j] = gain[j] * vec_tanh(alpha * x[j]);
        } else {
#pragma omp simd
            for (i64 j = 0; j < n; j++) y[j] = vec_tanh(alpha * x[j]);
        }
        row_done(c, 0, r, y);
    }
}

static op_cost cost(const node *op) { return (op_cost){25.0 * (double)count(op->in[0]), traffic(op)}; }

static const op_case cases[] = {
    {"typical", "x=64x768 gain=768 alpha=1 f32 bf16"},
    {"no gain", "x=33x129 alpha=1 f32 bf16"},
    {"one value", "x=3x1 gain=1 alpha=1 f32 bf16"},
    {"far", "x=5x66 gain=66 alpha=1 fill.x=big f32 bf16 grad=0"},
    {"as the stream", "x=9x64 gain=64 alpha=1 as_x=1 f32 bf16"},
    {"zero", "x=4x64 gain=64 alpha=1 fill.x=zero f32 bf16 tol=0"},
    {"bench", "x=2048x768 gain=768 alpha=1 bf16 bench"},
    {0},
};
static double odd_and_bounded(law *l)
{
    double worst = 0, first[8 * 16], *x = law_in(l, "x"), *gain = law_in(l, "gain");
    memcpy(first, law_run(l, 0), sizeof first);
    for (int k = 0; k < 8 * 16; k++) worst = fmax(worst, fabs(first[k]) - fabs(gain[k % 16])), x[k] = -x[k];
    const double *y = law_run(l, 0);
    for (int k = 0; k < 8 * 16; k++) worst = fmax(worst, fabs(y[k] + first[k]));
    return worst;
}
/* alpha 0.5, x = 1, -2: tanh(0.5), -tanh(1). */
static double worked(law *l)
{
    memcpy(law_in(l, "x"), (const double[]){1, -2}, 2 * sizeof(double));
    *law_in(l, "alpha") = 0.5;
    const double *y = law_run(l, 0);
    return fmax(fabs(y[0] - 0.46211715726), fabs(y[1] + 0.76159415596));
}
static const op_law laws[] = {{"odd, bounded by the gain", "x=8x16 gain=16 alpha=1", odd_and_bounded, 0},
                              {"worked values", "x=1x2 alpha=1", worked, 1e-11},
                              {0}};

OP_DEF(dyt) = {
    .name = "dyt",
    .brief = "y = gain tanh(alpha x)",
    .source = "Zhu et al., arXiv:2503.10622",
    .in = {{"x", "[rows, n]"},
           {"gain", "[n]", ARG_F32, .optional = true, .fill = "around1"},
           {"alpha", "[1]", ARG_F32, .fill = "around1"}},
    .out = {{"y", "[rows, n]"}},
    .attrs = {AS_X_ATTR},
    .flags = OP_CHEAP,
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
    TRY(norm_grad_infer(b, 3));
    return out_shape(b, 2, DT_F32, 1, (i64[]){1});
}

static void grad_reference(const op_call64 *c)
{
    i64 n = cols(c->node->in[0]);
    const double *x = c->in[0], *gain = c->in[1], alpha = c->in[2][0], *dy = c->in[3];
    if (gain) memset(c->out[1], 0, sizeof(double) * (size_t)n);
    c->out[2][0] = 0;
    for (i64 k = 0; k < count(c->node->in[0]); k++) {
        double t = tanh(alpha * x[k]), u = (gain ? gain[k % n] : 1) * dy[k] * (1 - t * t);
        c->out[0][k] = alpha * u;
        c->out[2][0] += u * x[k];
        if (gain) c->out[1][k % n] += dy[k] * t;
    }
}

/* SUMS: dgain [n], then dalpha. */
static void grad_row(const op_call *c, i64 r, float *restrict sums)
{
    const float *restrict x = row_in(c, 0, r), *restrict dy = row_in(c, 3, r), *restrict gain = c->in[1].p;
    float *restrict dx = row_out(c, 0, r), alpha = *(const float *)c->in[2].p, dalpha = 0;
    i64 n = c->in[0].n;
    if (gain) {
#pragma omp simd reduction(+ : dalpha)
        for (i64 j = 0; j < n; j++) {
            float t = vec_tanh(alpha * x[j]), u = gain[j] * dy[j] * ((1 - t) * (1 + t));
            sums[j] += dy[j] * t;
            dalpha += u * x[j];
            dx[j] = alpha * u;
        }
    } else {
#pragma omp simd reduction(+ : dalpha)
        for (i64 j = 0; j < n; j++) {
            float t = vec_tanh(alpha * x[j]), u = dy[j] * ((1 - t) * (1 + t));
            dalpha += u * x[j];
            dx[j] = alpha * u;
        }
    }
    sums[c->in[1].n] += dalpha;
    row_done(c, 0, r, dx);
}
static status grad_prepare(op_call *c) { return sums_prepare(c, c->in[1].n + 1); }
static void grad_cpu(const op_call *c)
{
    i64 gains = c->in[1].n;
    int team = sum_rows(c, gains + 1, grad_row);
    sums_into(c, 1, gains + 1, 0, gains, team);
    sums_into(c, 2, gains + 1, gains, 1, team);
}

static op_cost grad_cost(const node *op) { return (op_cost){32.0 * (double)count(op->in[0]), traffic(op)}; }

static const op_case grad_cases[] = {
    {"typical", "x=64x768 gain=768 alpha=1 dy=64x768 f32 bf16"},
    {"no gain", "x=9x129 alpha=1 dy=9x129 f32 bf16"},
    {"one value", "x=3x1 gain=1 alpha=1 dy=3x1 f32"},
    {"bench", "x=2048x768 gain=768 alpha=1 dy=2048x768 bf16 bench"},
    {0},
};

OP_DEF(dyt_grad) = {
    .name = "dyt_grad",
    .brief = "dx = alpha u, dalpha = sum u x, dgain = sum dy t; u = gain dy (1 - t^2), t = tanh(alpha x)",
    .in = {{"x", "[rows, n]"},
           {"gain", "[n]", ARG_F32, .optional = true, .fill = "around1"},
           {"alpha", "[1]", ARG_F32, .fill = "around1"},
           {"dy", "[rows, n]"}},
    .out = {{"dx", "[rows, n]"}, {"dgain", "[n]", ARG_F32, .optional = true}, {"dalpha", "[1]", ARG_F32}},
    .flags = OP_ACCUMULATES,
    .infer = grad_infer,
    .reference = grad_reference,
    .cpu = grad_cpu,
    .prepare = grad_prepare,
    .cost = grad_cost,
    .cases = grad_cases,
};

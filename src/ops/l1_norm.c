/* l1_norm: rows divided by their mean absolute deviation: no square, no root.
 *
 *   y  = gain z,   z = (x - c) s,   s = 1 / (mean_j |x_j - c| + eps)     x, y [rows, n];  c = mean x, or 0
 * with center = 0 dx = s (g - mean g - (t - mean t) mean(g z)),  t = sign(x - c),  g = gain dy; the means of
 * g and t only with center dgain = sum over rows of dy z
 *
 * Source:   the normalization of ShiftQuant, arXiv:2411.10948 (with the gain; a bias is op affine).
 * Departs:  the paper's constant and placement are not known to us; for normal x the output is sqrt(pi/2) =
 *           1.2533 times LayerNorm's, which the gain can take up.
 * Numerics: statistics in f32, saved as mean and s [rows, 1]. The slope of |x| at 0 is taken as 0.
 */
#include "ops/norm_ops.h"
#include <math.h>

static status infer(op_build *b) { return norm_infer(b, 2); }

static void vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    node *d = g_node_from(g, OP_l1_norm_grad, IN(op->in[0], op->in[1], op->out[1], op->out[2], dout[0]), op);
    din[0] = g_out(d, 0);
    din[1] = g_out(d, 1);
}

static void reference(const op_call64 *c)
{
    i64 n = cols(c->node->in[0]);
    for (i64 r = 0; r < rows_of(c->node->in[0]); r++) {
        const double *x = c->in[0] + r * n;
        double mean = 0, size = 0;
        for (i64 j = 0; j < n && attr(c->node, "center") != 0; j++) mean += x[j] / (double)n;
        for (i64 j = 0; j < n; j++) size += fabs(x[j] - mean) / (double)n;
        c->out[1][r] = mean;
        c->out[2][r] = 1 / (size + attr(c->node, "eps"));
        for (i64 j = 0; j < n; j++)
            c->out[0][r * n + j] = (c->in[1] ? c->in[1][j] : 1) * (x[j] - mean) * c->out[2][r];
    }
}

static void row_norm(const op_call *c, i64 r, float eps, bool center, bool native)
{
    const float *restrict x = row_in(c, 0, r), *restrict gain = c->in[1].p;
    float *restrict y = row_out(c, 0, r), mean = 0, size = 0;
    i64 n = c->in[0].n;
    if (center) {
#pragma omp simd reduction(+ : mean)
        for (i64 j = 0; j < n; j++) mean += x[j];
    }
    mean = kept(mean / (float)n, native);
#pragma omp simd reduction(+ : size)
    for (i64 j = 0; j < n; j++) size += fabsf(x[j] - mean);
    float s = kept(1 / (size / (float)n + eps), native);
    if (gain)
        for (i64 j = 0; j < n; j++) y[j] = (x[j] - mean) * s * gain[j];
    else
        for (i64 j = 0; j < n; j++) y[j] = (x[j] - mean) * s;
    ((float *)c->out[1].p)[r] = mean;
    ((float *)c->out[2].p)[r] = s;
    row_done(c, 0, r, y);
}

static void cpu(const op_call *c)
{
    float eps = (float)attr(c->node, "eps");
    bool center = attr(c->node, "center") != 0, native = is_native(c);
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < c->in[0].rows; r++) row_norm(c, r, eps, center, native);
}

static op_cost cost(const node *op) { return (op_cost){6.0 * (double)count(op->in[0]), traffic(op)}; }

static const op_case cases[] = {
    {"typical", "x=64x768 gain=768 f32 bf16 grad=0"}, // many values: some lie within a difference of the kink
    {"slopes", "x=9x32 gain=32 f32 bf16"},
    {"no gain", "x=33x129 f32 bf16"},
    {"not centred", "x=33x129 gain=129 center=0 f32 bf16"},
    {"one value", "x=3x1 gain=1 f32 grad=0"},
    {"large eps", "x=7x64 gain=64 eps=0.01 f32"},
    {"zero rows", "x=4x64 gain=64 fill.x=zero f32 bf16 grad=0"},
    {"native statistics", "x=33x129 gain=129 native=1 bf16 tol.bf16=0.0117"},
    {"as the stream", "x=9x64 gain=64 as_x=1 f32 bf16"},
    {"exact", "x=4x64 eps=0 center=0 fill.x=pm2 f32 bf16 tol=0"}, // |x| = 2, so y = +-1
    {"bench", "x=2048x768 gain=768 bf16 bench"},
    {0},
};

static double change_after(law *l, double factor, double shift)
{
    i64 n = law_count(l, "x");
    double worst = 0, first[64 * 8], *x = law_in(l, "x");
    memcpy(first, law_run(l, 0), sizeof(double) * (size_t)n);
    for (i64 i = 0; i < n; i++) x[i] = factor * x[i] + shift;
    const double *again = law_run(l, 0);
    for (i64 i = 0; i < n; i++) worst = fmax(worst, fabs(again[i] - first[i]));
    return worst;
}
static double scale_freedom(law *l) { return change_after(l, 37.5, 0); }
static double shift_freedom(law *l) { return change_after(l, 1, 1234.5); }
/* x = (3, -1, 1, 1): mean 1, mean deviation 1; and not centred: mean |x| = 1.5. */
static double worked(law *l)
{
    memcpy(law_in(l, "x"), (const double[]){3, -1, 1, 1}, 4 * sizeof(double));
    const double *y = law_run(l, 0);
    return fabs(y[0] - 2) + fabs(y[1] + 2) + fabs(y[2]) + fabs(y[3]);
}
static double worked_rms_form(law *l)
{
    memcpy(law_in(l, "x"), (const double[]){3, -1, 1, 1}, 4 * sizeof(double));
    const double *y = law_run(l, 0);
    return fabs(y[0] - 2) + fabs(y[1] + 2. / 3) + fabs(y[2] - 2. / 3);
}
static const op_law laws[] = {{"scale freedom", "x=8x64 eps=1e-13", scale_freedom, 1e-10},
                              {"shift freedom", "x=8x64", shift_freedom, 1e-10},
                              {"worked values", "x=1x4 eps=0", worked, 1e-14},
                              {"worked values, not centred", "x=1x4 eps=0 center=0", worked_rms_form, 1e-14},
                              {0}};

OP_DEF(l1_norm) = {
    .name = "l1_norm",
    .brief = "y = gain (x - m) s, m = mean x, s = 1 / (mean |x - m| + eps)",
    .source = "ShiftQuant, arXiv:2411.10948",
    .in = {{"x", "[rows, n]"}, {"gain", "[n]", ARG_F32, .optional = true, .fill = "around1"}},
    .out = {{"y", "[rows, n]"},
            {"mean", "[rows, 1]", ARG_F32, .fixed = true},
            {"s", "[rows, 1]", ARG_F32, .fixed = true}},
    .attrs = {{"eps", 1e-5, 0, 1, "added to the mean deviation"},
              {"center", 1, 0, 1, "1: around the mean, 0: around 0"},
              AS_X_ATTR,
              NATIVE_ATTR},
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
static status grad_infer(op_build *b) { return norm_grad_infer(b, 4); }

static double sign64(double x) { return (x > 0) - (x < 0); }

static void grad_reference(const op_call64 *c)
{
    i64 n = cols(c->node->in[0]);
    const double *gain = c->in[1], center = attr(c->node, "center");
    if (gain) memset(c->out[1], 0, sizeof(double) * (size_t)n);
    for (i64 r = 0; r < rows_of(c->node->in[0]); r++) {
        const double *x = c->in[0] + r * n, *dy = c->in[4] + r * n;
        double m = c->in[2][r], s = c->in[3][r], mean_g = 0, mean_t = 0, mean_gz = 0;
        for (i64 j = 0; j < n; j++) {
            double g = (gain ? gain[j] : 1) * dy[j];
            mean_g += center * g / (double)n;
            mean_t += center * sign64(x[j] - m) / (double)n;
            mean_gz += g * (x[j] - m) * s / (double)n;
            if (gain) c->out[1][j] += dy[j] * (x[j] - m) * s;
        }
        for (i64 j = 0; j < n; j++)
            c->out[0][r * n + j] =
                s * ((gain ? gain[j] : 1) * dy[j] - mean_g - (sign64(x[j] - m) - mean_t) * mean_gz);
    }
}

static inline float sign32(float x) { return (x > 0 ? 1.0f : 0.0f) - (x < 0 ? 1.0f : 0.0f); }

static void grad_row(const op_call *c, i64 r, float *restrict sums)
{
    const float *restrict x = row_in(c, 0, r), *restrict dy = row_in(c, 4, r), *restrict gain = c->in[1].p;
    float m = ((const float *)c->in[2].p)[r], s = ((const float *)c->in[3].p)[r];
    float *restrict dx = row_out(c, 0, r), sum = 0, signs = 0, dot = 0;
    i64 n = c->in[0].n;
    bool center = attr(c->node, "center") != 0;
    if (gain) {
#pragma omp simd reduction(+ : sum, signs, dot)
        for (i64 j = 0; j < n; j++) {
            float t = dy[j] * (x[j] - m) * s;
            sum += gain[j] * dy[j];
            signs += sign32(x[j] - m);
            dot += t * gain[j];
            sums[j] += t;
        }
    } else {
#pragma omp simd reduction(+ : sum, signs, dot)
        for (i64 j = 0; j < n; j++) sum += dy[j], signs += sign32(x[j] - m), dot += dy[j] * (x[j] - m) * s;
    }
    float by_n = 1 / (float)n, k = dot * by_n;
    float shift = center ? (sum * by_n) - k * (signs * by_n) : 0;
    for (i64 j = 0; j < n; j++) dx[j] = s * ((gain ? gain[j] : 1) * dy[j] - shift - k * sign32(x[j] - m));
    row_done(c, 0, r, dx);
}
static status grad_prepare(op_call *c) { return sums_prepare(c, c->in[1].n); }
static void grad_cpu(const op_call *c)
{
    sums_into(c, 1, c->in[1].n, 0, c->in[1].n, sum_rows(c, c->in[1].n, grad_row));
}

static op_cost grad_cost(const node *op) { return (op_cost){14.0 * (double)count(op->in[0]), traffic(op)}; }

static const op_case grad_cases[] = {
    {"typical", "x=64x768 gain=768 mean=64x1 s=64x1 dy=64x768 fill.s=positive f32 bf16"},
    {"no gain", "x=9x129 mean=9x1 s=9x1 dy=9x129 fill.s=positive f32 bf16"},
    {"not centred",
     "x=9x129 gain=129 mean=9x1 s=9x1 dy=9x129 center=0 fill.mean=zero fill.s=positive f32 bf16"},
    {"one value", "x=3x1 gain=1 mean=3x1 s=3x1 dy=3x1 center=0 fill.s=positive f32"},
    {"bench", "x=2048x768 gain=768 mean=2048x1 s=2048x1 dy=2048x768 bf16 bench"},
    {0},
};

OP_DEF(l1_norm_grad) = {
    .name = "l1_norm_grad",
    .brief = "dx = s (g - mean g - (t - mean t) mean(g z)), dgain = sum dy z; g = gain dy, t = sign(x - m)",
    .in = {{"x", "[rows, n]"},
           {"gain", "[n]", ARG_F32, .optional = true, .fill = "around1"},
           {"mean", "[rows, 1]", ARG_F32},
           {"s", "[rows, 1]", ARG_F32},
           {"dy", "[rows, n]"}},
    .out = {{"dx", "[rows, n]"}, {"dgain", "[n]", ARG_F32, .optional = true}},
    .attrs = {{"center", 1, 0, 1, "1: around the mean, 0: around 0"}},
    .flags = OP_ACCUMULATES,
    .infer = grad_infer,
    .reference = grad_reference,
    .cpu = grad_cpu,
    .prepare = grad_prepare,
    .cost = grad_cost,
    .cases = grad_cases,
};

/* crms_norm: RMSNorm of a zero-mean vector of which only the first n of n + 1 values are kept.
 *
 *   y  = gain x s,   s = ((sum_j x_j^2 + S^2) / (n + 1) + eps)^(-1/2),   S = sum_j x_j        x, y [rows, n]
 *   dx = s (g - (x + S) s^2 sum_j(g_j x_j) / (n + 1)),  g = gain dy     the dropped value is x_n = -S
 *   dgain = sum over rows of dy x s
 *
 * A Pre-LayerNorm model whose stream has been centred (every map that writes to it has columns of mean 0) has
 * such a stream: LayerNorm of n + 1 values, RMSNorm of them and this are then the same function.
 *
 * Source:   Pre-CRMSNorm: Jiang et al., arXiv:2305.14858. The mean counts the dropped value: over n + 1.
 * Numerics: statistics in f32, saved as s [rows, 1]; S is computed again.
 */
#include "ops/norm_ops.h"
#include <math.h>

static status infer(op_build *b) { return norm_infer(b, 1); }

static void vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    node *d = g_node_from(g, OP_crms_norm_grad, IN(op->in[0], op->in[1], op->out[1], dout[0]), op);
    din[0] = g_out(d, 0);
    din[1] = g_out(d, 1);
}

static void reference(const op_call64 *c)
{
    i64 n = cols(c->node->in[0]);
    for (i64 r = 0; r < rows_of(c->node->in[0]); r++) {
        const double *x = c->in[0] + r * n;
        double last = 0, square = 0;
        for (i64 j = 0; j < n; j++) last -= x[j], square += x[j] * x[j];
        double s = pow((square + last * last) / (double)(n + 1) + attr(c->node, "eps"), -0.5);
        for (i64 j = 0; j < n; j++) c->out[0][r * n + j] = (c->in[1] ? c->in[1][j] : 1) * x[j] * s;
        c->out[1][r] = s;
    }
}

static float row_norm(float *restrict y, const float *restrict x, const float *restrict gain, float eps,
                      bool native, i64 n)
{
    float sum = 0, square = 0;
#pragma omp simd reduction(+ : sum, square)
    for (i64 j = 0; j < n; j++) sum += x[j], square += x[j] * x[j];
    float s = kept(1 / sqrtf((square + sum * sum) / (float)(n + 1) + eps), native);
    if (gain)
        for (i64 j = 0; j < n; j++) y[j] = x[j] * s * gain[j];
    else
        for (i64 j = 0; j < n; j++) y[j] = x[j] * s;
    return s;
}

static void cpu(const op_call *c)
{
    float eps = (float)attr(c->node, "eps");
    bool native = is_native(c);
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < c->in[0].rows; r++) {
        float *y = row_out(c, 0, r);
        ((float *)c->out[1].p)[r] = row_norm(y, row_in(c, 0, r), c->in[1].p, eps, native, c->in[0].n);
        row_done(c, 0, r, y);
    }
}

static op_cost cost(const node *op) { return (op_cost){5.0 * (double)count(op->in[0]), traffic(op)}; }

static const op_case cases[] = {
    {"typical", "x=64x767 gain=767 f32 bf16"},
    {"no gain", "x=33x129 f32 bf16"},
    {"one value", "x=3x1 gain=1 f32"},
    {"large eps", "x=7x64 gain=64 eps=0.01 f32"},
    {"zero rows", "x=4x64 gain=64 fill.x=zero f32 bf16"},
    {"native statistics", "x=33x129 gain=129 native=1 bf16 tol.bf16=0.0117"},
    {"as the stream", "x=9x64 gain=64 as_x=1 f32 bf16"},
    {"exact", "x=4x3 eps=0 fill.x=pm2 f32 tol=1e-6"},
    {"bench", "x=2048x767 gain=767 bf16 bench"},
    {0},
};

/* LayerNorm of the whole vector of n + 1 values, whose last is -S, without that last one: mean 0, so the
 * variance is the mean square. */
static double is_layer_norm(law *l)
{
    enum { N = 16, ROWS = 4 };
    const double *x = law_in(l, "x"), *y = law_run(l, 0);
    double worst = 0;
    for (int r = 0; r < ROWS; r++) {
        double full[N + 1] = {0}, mean = 0, variance = 0;
        for (int j = 0; j < N; j++) full[j] = x[r * N + j], full[N] -= x[r * N + j];
        for (int j = 0; j <= N; j++) mean += full[j] / (N + 1);
        for (int j = 0; j <= N; j++) variance += pow(full[j] - mean, 2) / (N + 1);
        for (int j = 0; j < N; j++)
            worst = fmax(worst, fabs(y[r * N + j] - (full[j] - mean) / sqrt(variance + 1e-5)));
    }
    return worst;
}
/* x = (1, -1): S = 0, mean square 2/3; x = (1, 2): S = 3, mean square 14/3. */
static double worked(law *l)
{
    memcpy(law_in(l, "x"), (const double[]){1, -1, 1, 2}, 4 * sizeof(double));
    const double *y = law_run(l, 0);
    double want[] = {sqrt(1.5), -sqrt(1.5), sqrt(3.0 / 14), 2 * sqrt(3.0 / 14)}, worst = 0;
    for (int j = 0; j < 4; j++) worst = fmax(worst, fabs(y[j] - want[j]));
    return worst;
}
static const op_law laws[] = {{"layer norm of the whole vector", "x=4x16 eps=1e-5", is_layer_norm, 1e-13},
                              {"worked values", "x=2x2 eps=0", worked, 1e-14},
                              {0}};

OP_DEF(crms_norm) = {
    .name = "crms_norm",
    .brief = "y = gain x s, s = ((sum x^2 + (sum x)^2) / (n + 1) + eps)^(-1/2)",
    .source = "Jiang et al., arXiv:2305.14858",
    .in = {{"x", "[rows, n]"}, {"gain", "[n]", ARG_F32, .optional = true, .fill = "around1"}},
    .out = {{"y", "[rows, n]"}, {"s", "[rows, 1]", ARG_F32, .fixed = true}},
    .attrs = {{"eps", 1e-5, 0, 1, "added to the mean square"}, AS_X_ATTR, NATIVE_ATTR},
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
static status grad_infer(op_build *b) { return norm_grad_infer(b, 3); }

static void grad_reference(const op_call64 *c)
{
    i64 n = cols(c->node->in[0]);
    const double *gain = c->in[1];
    if (gain) memset(c->out[1], 0, sizeof(double) * (size_t)n);
    for (i64 r = 0; r < rows_of(c->node->in[0]); r++) {
        const double *x = c->in[0] + r * n, *dy = c->in[3] + r * n;
        double s = c->in[2][r], sum = 0, dot = 0;
        for (i64 j = 0; j < n; j++) sum += x[j], dot += (gain ? gain[j] : 1) * dy[j] * x[j];
        for (i64 j = 0; j < n; j++) {
            double g = (gain ? gain[j] : 1) * dy[j];
            c->out[0][r * n + j] = s * g - s * s * s * (x[j] + sum) * dot / (double)(n + 1);
            if (gain) c->out[1][j] += dy[j] * x[j] * s;
        }
    }
}

static void grad_row(const op_call *c, i64 r, float *restrict sums)
{
    const float *restrict x = row_in(c, 0, r), *restrict dy = row_in(c, 3, r), *restrict gain = c->in[1].p;
    float *restrict dx = row_out(c, 0, r), s = ((const float *)c->in[2].p)[r], sum = 0, dot = 0;
    i64 n = c->in[0].n;
    if (gain) {
#pragma omp simd reduction(+ : sum, dot)
        for (i64 j = 0; j < n; j++) {
            float t = dy[j] * x[j];
            sum += x[j];
            dot += t * gain[j];
            sums[j] += t * s;
        }
    } else {
#pragma omp simd reduction(+ : sum, dot)
        for (i64 j = 0; j < n; j++) sum += x[j], dot += dy[j] * x[j];
    }
    float k = s * s * s * dot / (float)(n + 1);
    if (gain)
        for (i64 j = 0; j < n; j++) dx[j] = s * gain[j] * dy[j] - k * (x[j] + sum);
    else
        for (i64 j = 0; j < n; j++) dx[j] = s * dy[j] - k * (x[j] + sum);
    row_done(c, 0, r, dx);
}
static status grad_prepare(op_call *c) { return sums_prepare(c, c->in[1].n); }
static void grad_cpu(const op_call *c)
{
    sums_into(c, 1, c->in[1].n, 0, c->in[1].n, sum_rows(c, c->in[1].n, grad_row));
}

static op_cost grad_cost(const node *op) { return (op_cost){10.0 * (double)count(op->in[0]), traffic(op)}; }

static const op_case grad_cases[] = {
    {"typical", "x=64x767 gain=767 s=64x1 dy=64x767 fill.s=positive f32 bf16"},
    {"no gain", "x=9x129 s=9x1 dy=9x129 fill.s=positive f32 bf16"},
    {"one value", "x=3x1 gain=1 s=3x1 dy=3x1 fill.s=positive f32"},
    {"bench", "x=2048x767 gain=767 s=2048x1 dy=2048x767 bf16 bench"},
    {0},
};

OP_DEF(crms_norm_grad) = {
    .name = "crms_norm_grad",
    .brief = "dx = s (g - (x + S) s^2 sum(g x) / (n + 1)), dgain = sum dy x s; g = gain dy, S = sum x",
    .in = {{"x", "[rows, n]"},
           {"gain", "[n]", ARG_F32, .optional = true, .fill = "around1"},
           {"s", "[rows, 1]", ARG_F32},
           {"dy", "[rows, n]"}},
    .out = {{"dx", "[rows, n]"}, {"dgain", "[n]", ARG_F32, .optional = true}},
    .flags = OP_ACCUMULATES,
    .infer = grad_infer,
    .reference = grad_reference,
    .cpu = grad_cpu,
    .prepare = grad_prepare,
    .cost = grad_cost,
    .cases = grad_cases,
};

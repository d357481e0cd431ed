/* norm_gated: a gated activation of a normed projection, z = RMSNorm(x) and f(z_gate) z_up in one pass.
 *
 *   x = [x1 | x2],  z = gain x s,  y = f(z1) z2            x [rows, 2n], gain [2n], y [rows, n]; f by kind
 *   s = (mean x^2 + eps)^(-1/2): over the whole row (parts = 1), or of each half (parts = 2)   s [rows,
 * parts] dz1 = dy z2 f'(z1),  dz2 = dy f(z1),  dgain = sum over rows of dz x s dx  = s (gain dz - x s^2
 * mean_j(gain_j dz_j x_j)), the mean over what s is of
 *
 * Keeps x and s: z, as wide as x, is never stored. In bytes of a row it costs what `gated` alone does (4 n
 * in, 2 n out for the two passes together), where rms_norm and gated cost 9 n more.
 *
 * Sources:  SDD, arXiv:2502.15499 (its released code norms gate and up together, its mixture of experts each
 *           by itself); gated: Shazeer, arXiv:2002.05202.
 * Numerics: f32, rounded once; in bf16 z is not rounded between, as it would be by rms_norm, then gated.
 */
#include "ops/norm_ops.h"
#include "ops/activations.h"

static status infer(op_build *b)
{
    const tensor *x = b->n->in[0], *gain = b->n->in[1];
    i64 dim[MAX_DIMS], parts = (i64)attr(b->n, "parts");
    TRY(need(b, cols(x) % 2 == 0, "rows of %lld do not halve into gate and up", (long long)cols(x)));
    TRY(need(b, !gain || (gain->ndim == 1 && gain->dim[0] == cols(x)), "gain must be [%lld]",
             (long long)cols(x)));
    memcpy(dim, x->dim, sizeof dim);
    dim[x->ndim - 1] /= 2;
    TRY(out_shape(b, 0, x->dtype, x->ndim, dim));
    return out_shape(b, 1, DT_F32, 2, (i64[]){rows_of(x), parts});
}

static void vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    node *d = g_node_from(g, OP_norm_gated_grad, IN(op->in[0], op->in[1], op->out[1], dout[0]), op);
    din[0] = g_out(d, 0);
    din[1] = g_out(d, 1);
}

static void reference(const op_call64 *c)
{
    i64 n = cols(c->node->in[0]) / 2, parts = (i64)attr(c->node, "parts"), group = 2 * n / parts;
    for (i64 r = 0; r < rows_of(c->node->in[0]); r++) {
        const double *x = c->in[0] + 2 * n * r, *gain = c->in[1];
        double *s = c->out[1] + r * parts;
        for (i64 p = 0; p < parts; p++) {
            double square = 0;
            for (i64 j = p * group; j < (p + 1) * group; j++) square += x[j] * x[j] / (double)group;
            s[p] = 1 / sqrt(square + attr(c->node, "eps"));
        }
        for (i64 j = 0; j < n; j++) {
            double gate = (gain ? gain[j] : 1) * x[j] * s[0];
            double up = (gain ? gain[n + j] : 1) * x[n + j] * s[parts - 1];
            c->out[0][r * n + j] = activation64((int)attr(c->node, "kind"), gate) * up;
        }
    }
}

/* A: gate, B: up; a, b: their s. */
#define ACT(index, name, ...)                                                                                \
    static void row_##name(float *restrict y, const float *restrict x, const float *restrict gain, float a,  \
                           float b, i64 n)                                                                   \
    {                                                                                                        \
        if (gain) {                                                                                          \
            _Pragma("omp simd") for (i64 j = 0; j < n; j++) y[j] =                                           \
                act_##name(x[j] * a * gain[j]) * (x[n + j] * b * gain[n + j]);                               \
        } else {                                                                                             \
            _Pragma("omp simd") for (i64 j = 0; j < n; j++) y[j] = act_##name(x[j] * a) * (x[n + j] * b);    \
        }                                                                                                    \
    }                                                                                                        \
    /* dx becomes gain dz; sums grow by dgain; dots[0], [1]: the sums of gain dz x of gate and up */         \
    static void grad_row_##name(float *restrict dx, const float *restrict x, const float *restrict dy,       \
                                const float *restrict gain, float *restrict sums, float a, float b,          \
                                float *dots, i64 n)                                                          \
    {                                                                                                        \
        float d0 = 0, d1 = 0;                                                                                \
        if (gain) {                                                                                          \
            _Pragma("omp simd reduction(+ : d0, d1)") for (i64 j = 0; j < n; j++)                            \
            {                                                                                                \
                float xa = x[j] * a, xb = x[n + j] * b, z = xa * gain[j];                                    \
                float value = act_##name(z), slope = slope_##name(z);                                        \
                float dg = dy[j] * (xb * gain[n + j]) * slope, du = dy[j] * value;                           \
                sums[j] += dg * xa;                                                                          \
                sums[n + j] += du * xb;                                                                      \
                dx[j] = dg * gain[j];                                                                        \
                dx[n + j] = du * gain[n + j];                                                                \
                d0 += dx[j] * x[j];                                                                          \
                d1 += dx[n + j] * x[n + j];                                                                  \
            }                                                                                                \
        } else {                                                                                             \
            _Pragma("omp simd reduction(+ : d0, d1)") for (i64 j = 0; j < n; j++)                            \
            {                                                                                                \
                float z = x[j] * a, value = act_##name(z), slope = slope_##name(z);                          \
                dx[j] = dy[j] * (x[n + j] * b) * slope;                                                      \
                dx[n + j] = dy[j] * value;                                                                   \
                d0 += dx[j] * x[j];                                                                          \
                d1 += dx[n + j] * x[n + j];                                                                  \
            }                                                                                                \
        }                                                                                                    \
        dots[0] = d0;                                                                                        \
        dots[1] = d1;                                                                                        \
    }
ACTIVATION_LIST(ACT)
#undef ACT
static const struct {
    void (*value)(float *restrict y, const float *restrict x, const float *restrict gain, float a, float b,
                  i64 n);
    void (*grad)(float *restrict dx, const float *restrict x, const float *restrict dy,
                 const float *restrict gain, float *restrict sums, float a, float b, float *dots, i64 n);
} rows[] = {
#define ACT(index, name, ...) [index] = {row_##name, grad_row_##name},
    ACTIVATION_LIST(ACT)
#undef ACT
};

static float root(const float *restrict x, float eps, bool native, i64 n)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (i64 j = 0; j < n; j++) sum += x[j] * x[j];
    return kept(1 / sqrtf(kept(sum / (float)n, native) + eps), native);
}

static void cpu(const op_call *c)
{
    i64 parts = (i64)attr(c->node, "parts"), n = c->out[0].n;
    float eps = (float)attr(c->node, "eps");
    int kind = (int)attr(c->node, "kind");
    bool native = is_native(c);
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < c->in[0].rows; r++) {
        const float *x = row_in(c, 0, r);
        float *y = row_out(c, 0, r), *s = (float *)c->out[1].p + r * c->out[1].stride;
        s[0] = root(x, eps, native, 2 * n / parts);
        if (parts == 2) s[1] = root(x + n, eps, native, n);
        rows[kind].value(y, x, c->in[1].p, s[0], s[parts - 1], n);
        row_done(c, 0, r, y);
    }
}

static op_cost cost(const node *op) { return (op_cost){23.0 * (double)count(op->out[0]), traffic(op)}; }

static const op_case cases[] = {
#define ACT(index, name, ...) {#name, "x=33x130 gain=130 kind=" #index " eps=0.01 f32 bf16"},
    ACTIVATION_LIST(ACT)
#undef ACT
        {"typical", "x=64x3072 gain=3072 f32 bf16"},
    {"split", "x=33x130 gain=130 parts=2 f32 bf16"},
    {"no gain", "x=33x130 f32 bf16"},
    {"no gain, split", "x=9x66 parts=2 f32 bf16"},
    {"one value", "x=3x2 gain=2 eps=0.01 f32 bf16"},
    {"zero rows", "x=4x64 gain=64 fill.x=zero f32 bf16 grad=0"},
    {"outlier", "x=4x64 gain=64 fill.x=big f32 bf16 grad=0"},
    {"native statistics", "x=33x130 gain=130 native=1 bf16 tol.bf16=0.0156"},
    {"exact bilinear", "x=4x64 eps=0 kind=5 fill.x=pm2 f32 bf16 tol=0"}, // z = +-1
    {"bench", "x=2048x3072 gain=3072 bf16 bench"},
    {0},
};

static double scale_freedom(law *l)
{
    double worst = 0, first[8 * 16], *x = law_in(l, "x");
    memcpy(first, law_run(l, 0), sizeof first);
    for (int k = 0; k < 8 * 32; k++) x[k] *= 37.5;
    const double *y = law_run(l, 0);
    for (int k = 0; k < 8 * 16; k++) worst = fmax(worst, fabs(y[k] - first[k]));
    return worst;
}
/* Split: gate and up may be scaled each by itself. */
static double scale_freedom_of_each(law *l)
{
    double worst = 0, first[8 * 16], *x = law_in(l, "x");
    memcpy(first, law_run(l, 0), sizeof first);
    for (int k = 0; k < 8 * 32; k++) x[k] *= k % 32 < 16 ? 37.5 : 0.2;
    const double *y = law_run(l, 0);
    for (int k = 0; k < 8 * 16; k++) worst = fmax(worst, fabs(y[k] - first[k]));
    return worst;
}
/* x = (3, 4): fused z = x / sqrt(12.5), split z = 1, 1; SwiGLU. */
static double worked(law *l)
{
    memcpy(law_in(l, "x"), (const double[]){3, 4}, 2 * sizeof(double));
    double s = 1 / sqrt(12.5), z = 3 * s;
    return fabs(law_run(l, 0)[0] - z / (1 + exp(-z)) * 4 * s);
}
static double worked_split(law *l)
{
    memcpy(law_in(l, "x"), (const double[]){3, 4}, 2 * sizeof(double));
    return fabs(law_run(l, 0)[0] - 0.7310585786300049);
}
static const op_law laws[] = {
    {"scale freedom", "x=8x32 gain=32 eps=1e-13", scale_freedom, 1e-11},
    {"each half's", "x=8x32 gain=32 parts=2 eps=1e-13", scale_freedom_of_each, 1e-10},
    {"worked values", "x=1x2 eps=0", worked, 1e-14},
    {"worked values, split", "x=1x2 eps=0 parts=2", worked_split, 1e-14},
    {0}};

#define KIND_ATTR                                                                                            \
    {                                                                                                        \
        "kind", 0, 0, ACTIVATION_COUNT - 1, ACTIVATION_LIST(ACTIVATION_HELP)                                 \
    }
#define PARTS_ATTR                                                                                           \
    {                                                                                                        \
        "parts", 1, 1, 2, "1: one norm over gate and up, 2: each by itself"                                  \
    }

OP_DEF(norm_gated) = {
    .name = "norm_gated",
    .brief = "y = f(z1) z2, z = gain x s, s = (mean x^2 + eps)^(-1/2), z = [z1 | z2], f by kind",
    .source = "SDD, arXiv:2502.15499",
    .in = {{"x", "[rows, 2n]"}, {"gain", "[2n]", ARG_F32, .optional = true, .fill = "around1"}},
    .out = {{"y", "[rows, n]"}, {"s", "[rows, parts]", ARG_F32, .fixed = true}},
    .attrs = {KIND_ATTR, PARTS_ATTR, {"eps", 1e-5, 0, 1, "added to the mean square"}, NATIVE_ATTR},
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
    const tensor *x = b->n->in[0], *dy = b->n->in[3];
    TRY(need(b, 2 * cols(dy) == cols(x) && rows_of(dy) == rows_of(x), "dy must have half the columns of x"));
    TRY(out_like(b, 0, x));
    return b->n->in[1] ? out_shape(b, 1, DT_F32, 1, b->n->in[1]->dim) : OK;
}

static void grad_reference(const op_call64 *c)
{
    i64 n = cols(c->node->in[3]), parts = (i64)attr(c->node, "parts"), group = 2 * n / parts;
    const double *gain = c->in[1];
    int kind = (int)attr(c->node, "kind");
    if (gain) memset(c->out[1], 0, sizeof(double) * (size_t)(2 * n));
    for (i64 r = 0; r < rows_of(c->node->in[3]); r++) {
        const double *x = c->in[0] + 2 * n * r, *s = c->in[2] + r * parts, *dy = c->in[3] + r * n;
        double *dx = c->out[0] + 2 * n * r, dot[2] = {0};
        for (i64 j = 0; j < 2 * n; j++) { // dx holds gain dz
            double z1 = (gain ? gain[j % n] : 1) * x[j % n] * s[0];
            double z2 = (gain ? gain[n + j % n] : 1) * x[n + j % n] * s[parts - 1];
            double dz =
                j < n ? dy[j] * z2 * activation_slope64(kind, z1) : dy[j - n] * activation64(kind, z1);
            dx[j] = (gain ? gain[j] : 1) * dz;
            dot[j / group] += dx[j] * x[j];
            if (gain) c->out[1][j] += dz * x[j] * s[j / group];
        }
        for (i64 j = 0; j < 2 * n; j++) {
            double root = s[j / group];
            dx[j] = root * (dx[j] - x[j] * root * root * dot[j / group] / (double)group);
        }
    }
}

static void finish(float *restrict dx, const float *restrict x, float s, float k, i64 n)
{
#pragma omp simd
    for (i64 j = 0; j < n; j++) dx[j] = s * dx[j] - k * x[j];
}

static void grad_row(const op_call *c, i64 r, float *restrict sums)
{
    i64 n = c->in[3].n, parts = c->in[2].n;
    const float *x = row_in(c, 0, r), *s = (const float *)c->in[2].p + r * c->in[2].stride;
    float *dx = row_out(c, 0, r), a = s[0], b = s[parts - 1], dots[2];
    rows[(int)c->node->attr[0]].grad(dx, x, row_in(c, 3, r), c->in[1].p, sums, a, b, dots, n);
    if (parts == 1) {
        finish(dx, x, a, a * a * a * (dots[0] + dots[1]) / (float)(2 * n), 2 * n);
    } else {
        finish(dx, x, a, a * a * a * dots[0] / (float)n, n);
        finish(dx + n, x + n, b, b * b * b * dots[1] / (float)n, n);
    }
    row_done(c, 0, r, dx);
}
static status grad_prepare(op_call *c) { return sums_prepare(c, c->in[1].n); }
static void grad_cpu(const op_call *c)
{
    sums_into(c, 1, c->in[1].n, 0, c->in[1].n, sum_rows(c, c->in[1].n, grad_row));
}

static op_cost grad_cost(const node *op) { return (op_cost){46.0 * (double)count(op->in[3]), traffic(op)}; }

static const op_case grad_cases[] = {
#define ACT(index, name, ...)                                                                                \
    {#name, "x=33x130 gain=130 s=33x1 dy=33x65 kind=" #index " fill.s=positive f32 bf16"},
    ACTIVATION_LIST(ACT)
#undef ACT
        {"typical", "x=64x3072 gain=3072 s=64x1 dy=64x1536 fill.s=positive f32 bf16"},
    {"split", "x=33x130 gain=130 s=33x2 dy=33x65 parts=2 fill.s=positive f32 bf16"},
    {"no gain", "x=9x66 s=9x1 dy=9x33 fill.s=positive f32 bf16"},
    {"no gain, split", "x=9x66 s=9x2 dy=9x33 parts=2 fill.s=positive f32 bf16"},
    {"one value", "x=3x2 gain=2 s=3x1 dy=3x1 fill.s=positive f32"},
    {"bench", "x=2048x3072 gain=3072 s=2048x1 dy=2048x1536 bf16 bench"},
    {0},
};

OP_DEF(norm_gated_grad) = {
    .name = "norm_gated_grad",
    .brief = "dz = [dy z2 f'(z1) | dy f(z1)], dx = s (gain dz - x s^2 mean(gain dz x)), dgain = sum dz x s",
    .in = {{"x", "[rows, 2n]"},
           {"gain", "[2n]", ARG_F32, .optional = true, .fill = "around1"},
           {"s", "[rows, parts]", ARG_F32},
           {"dy", "[rows, n]"}},
    .out = {{"dx", "[rows, 2n]"}, {"dgain", "[2n]", ARG_F32, .optional = true}},
    .attrs = {KIND_ATTR, PARTS_ATTR},
    .flags = OP_ACCUMULATES,
    .infer = grad_infer,
    .reference = grad_reference,
    .cpu = grad_cpu,
    .prepare = grad_prepare,
    .cost = grad_cost,
    .cases = grad_cases,
};

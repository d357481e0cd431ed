/* poly_norm: a polynomial of normed powers, an activation of a whole row (PolyCom).
 *
 *   y_i  = a_0 + sum_p a_p x_i^p s_p,   s_p = (mean_j x_j^2p + eps)^(-1/2)        p = 1 .. r; x, y [rows, n]
 *   dx_i = sum_p p a_p (x_i^(p-1) s_p g_i - x_i^(2p-1) s_p^3 S_p / n),  S_p = sum_j g_j x_j^p,  g = dy
 *   da_p = sum over rows of s_p S_p,  da_0 = sum of g                weight = (a_1, .. a_r) [r], bias = a_0
 * [1]
 *
 * Powers are element by element; the means run over the row. Only x and s [rows, r] are kept.
 *
 * Source:   Zhuo et al., arXiv:2411.03884 (ICLR 2025), and its released code.
 * Departs:  as the code does, divides by the root mean square (the paper's equation: by the L2 norm); the
 * code computes in the activations' type, here f32. The code holds (a_r, .., a_1), here a_1 comes first.
 * Numerics: forward, one pass for the sums, one to write, over a row in cache; backward the same. Where the
 *           largest power of a row overflows, its sums are taken again of x s_1. Backward works on u = x s_1
 *           and t_p = s_p / s_1^p, which are of order one whatever the size of x: s_p^3 underflows at |x| =
 * 1e4.
 */
#include "ops/op.h"
#include "ops/poly.h"
#include <math.h>

#define INLINE static inline __attribute__((always_inline))

/* ---- forward */
static status infer(op_build *b)
{
    const tensor *x = b->n->in[0];
    TRY(poly_check(b, b->n->in[1], b->n->in[2]));
    TRY(out_like(b, 0, x));
    return out_shape(b, 1, DT_F32, 2, (i64[]){rows_of(x), (i64)attr(b->n, "order")});
}

static void vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    node *d = g_node_from(g, OP_poly_norm_grad, IN(op->in[0], op->in[1], op->out[1], dout[0]), op);
    for (int i = 0; i < 3; i++) din[i] = g_out(d, i);
}

static void reference(const op_call64 *c)
{
    i64 n = cols(c->node->in[0]), order = (i64)attr(c->node, "order");
    const double *x = c->in[0];
    double *y = c->out[0], *s = c->out[1], eps = attr(c->node, "eps");
    for (i64 r = 0; r < rows_of(c->node->in[0]); r++, x += n, y += n, s += order) {
        for (i64 j = 0; j < n; j++) y[j] = c->in[2][0];
        for (i64 p = 1; p <= order; p++) {
            double mean = 0;
            for (i64 j = 0; j < n; j++) mean += pow(x[j], (double)(2 * p)) / (double)n;
            s[p - 1] = 1 / sqrt(mean + eps);
            for (i64 j = 0; j < n; j++) y[j] += c->in[1][p - 1] * pow(x[j], (double)p) * s[p - 1];
        }
    }
}

/* sum[p - 1] = sum of (x scale)^2p */
INLINE void even_sums(const float *restrict x, float scale, int order, i64 n, float sum[POLY_MOST])
{
    float s1 = 0, s2 = 0, s3 = 0, s4 = 0;
#pragma omp simd reduction(+ : s1, s2, s3, s4)
    for (i64 j = 0; j < n; j++) {
        float u = x[j] * scale, z = u * u;
        s1 += z;
        if (order > 1) s2 += z * z;
        if (order > 2) s3 += z * z * z;
        if (order > 3) s4 += (z * z) * (z * z);
    }
    memcpy(sum, (float[]){s1, s2, s3, s4}, POLY_MOST * sizeof *sum);
}

INLINE void row(float *restrict y, const float *restrict x, const float *a, float bias, float eps, float *s,
                int order, i64 n)
{
    float sum[POLY_MOST], k[POLY_MOST] = {0}, scale = 1;
    even_sums(x, 1, order, n, sum);
    if (!isfinite(sum[order - 1]) && isfinite(sum[0])) {
        scale = 1 / sqrtf(sum[0] / (float)n + eps);
        even_sums(x, scale, order, n, sum);
    }
    double back = 1; // (1 / scale)^2p
    for (int p = 0; p < order; p++) {
        back /= (double)scale * scale;
        s[p] = (float)(1 / sqrt(sum[p] / (double)n * back + (double)eps));
        k[p] = a[p] * s[p];
    }
#pragma omp simd
    for (i64 j = 0; j < n; j++) {
        float v = k[order - 1];
        if (order > 3) v = v * x[j] + k[2];
        if (order > 2) v = v * x[j] + k[1];
        if (order > 1) v = v * x[j] + k[0];
        y[j] = v * x[j] + bias;
    }
}

#define ORDERS(DO) DO(1) DO(2) DO(3) DO(4)
#define ROW(order)                                                                                           \
    static void row_##order(float *y, const float *x, const float *a, float bias, float eps, float *s,       \
                            i64 n)                                                                           \
    {                                                                                                        \
        row(y, x, a, bias, eps, s, order, n);                                                                \
    }
ORDERS(ROW)
static void (*const row_of[])(float *y, const float *x, const float *a, float bias, float eps, float *s,
                              i64 n) = {row_1, row_2, row_3, row_4};

static void cpu(const op_call *c)
{
    i64 order = (i64)attr(c->node, "order");
    float a[POLY_MOST], bias = *(const float *)c->in[2].p, eps = (float)attr(c->node, "eps");
    poly_read(c, a);
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < c->in[0].rows; r++) {
        float *y = row_out(c, 0, r);
        row_of[order - 1](y, row_in(c, 0, r), a, bias, eps, (float *)c->out[1].p + r * order, c->in[0].n);
        row_done(c, 0, r, y);
    }
}

static op_cost cost(const node *op)
{
    return (op_cost){(5 * attr(op, "order")) * (double)count(op->in[0]), traffic(op)};
}

static const op_case cases[] = {
    {"typical", "x=64x2304 weight=3 bias=1 f32 bf16"},
    {"order 1", "x=33x129 weight=1 bias=1 order=1 f32 bf16"},
    {"order 2", "x=33x129 weight=2 bias=1 order=2 f32 bf16"},
    {"order 4", "x=33x129 weight=4 bias=1 order=4 f32 bf16"},
    {"one value", "x=3x1 weight=3 bias=1 f32"},
    {"one row", "x=1x17 weight=3 bias=1 f32 bf16"},
    {"large eps", "x=7x65 weight=3 bias=1 eps=0.01 f32 bf16"},
    {"zero rows", "x=4x64 weight=3 bias=1 fill.x=zero f32 bf16"},
    {"far", "x=4x64 weight=4 bias=1 order=4 fill.x=big f32 bf16 grad=0"},
    // |x| = 2 everywhere: every normed power is +-1 to the bit
    {"exact",
     "x=4x64 weight=4 bias=1 order=4 eps=0 fill.x=pm2 fill.weight=ints fill.bias=ints f32 bf16 tol=0"},
    {"bench", "x=2048x2304 weight=3 bias=1 bf16 bench"},
    {0},
};

/* ---- laws */
static void set(law *l, const double *x, int n, const double *weight, int order, double bias)
{
    memcpy(law_in(l, "x"), x, sizeof *x * (size_t)n);
    memcpy(law_in(l, "weight"), weight, sizeof *weight * (size_t)order);
    *law_in(l, "bias") = bias;
}
static double worst_of(const double *y, const double *want, int n)
{
    double worst = 0;
    for (int i = 0; i < n; i++) worst = fmax(worst, fabs(y[i] - want[i]));
    return worst;
}
static const double third[] = {1 / 3.0, 1 / 3.0, 1 / 3.0};
static double by_hand(law *l)
{
    set(l, (double[]){1, 2}, 2, third, 3, 0);
    double worst = worst_of(law_run(l, 0), (double[]){0.38362144, 1.34673086}, 2);
    worst = fmax(worst, worst_of(law_run(l, 1), (double[]){0.63245553, 0.34299717, 0.17541160}, 3));
    set(l, (double[]){1, -2}, 2, third, 3, 0);
    worst = fmax(worst, worst_of(law_run(l, 0), (double[]){0.38362144, -0.43207174}, 2));
    set(l, (double[]){3, 6}, 2, third, 3, 0);
    worst = fmax(worst, worst_of(law_run(l, 0), (double[]){0.38362144, 1.34673086}, 2));
    set(l, (double[]){-1, -2}, 2, third, 3, 0);
    return fmax(worst, worst_of(law_run(l, 0), (double[]){-0.15495666, -0.43207174}, 2));
}
static double by_hand_four(law *l)
{
    set(l, (double[]){1, 2, -1, 0.5}, 4, third, 3, 0);
    return worst_of(law_run(l, 0), (double[]){0.5055806, 1.8171943, -0.1918551, 0.1828054}, 4);
}
static double scale_freedom(law *l)
{
    double first[8 * 64], *x = law_in(l, "x");
    memcpy(first, law_run(l, 0), sizeof first);
    for (int i = 0; i < COUNT(first); i++) x[i] *= 37.5;
    return worst_of(law_run(l, 0), first, COUNT(first));
}
/* x and a_1, a_3 with the other sign: the same y. */
static double odd_flip(law *l)
{
    double first[8 * 64], *x = law_in(l, "x"), *weight = law_in(l, "weight");
    memcpy(first, law_run(l, 0), sizeof first);
    for (int i = 0; i < COUNT(first); i++) x[i] *= -1;
    for (int p = 0; p < 4; p += 2) weight[p] *= -1; // a_1, a_3
    return worst_of(law_run(l, 0), first, COUNT(first));
}
/* RMS(y) <= |a_1| + .. + |a_r| + |a_0| of every row, whatever its size. */
static double bounded(law *l)
{
    double bound = fabs(*law_in(l, "bias")), worst = 0;
    for (int p = 0; p < 4; p++) bound += fabs(law_in(l, "weight")[p]);
    const double *y = law_run(l, 0);
    for (int r = 0; r < 8; r++, y += 64) {
        double sum = 0;
        for (int j = 0; j < 64; j++) sum += y[j] * y[j];
        worst = fmax(worst, sqrt(sum / 64) - bound);
    }
    return worst;
}
/* a = (1, 0, 0), a_0 = 0: RMSNorm without a gain. */
static double is_rms_norm(law *l)
{
    double worst = 0;
    const double *x = law_in(l, "x");
    memcpy(law_in(l, "weight"), (double[]){1, 0, 0}, 3 * sizeof(double));
    *law_in(l, "bias") = 0;
    const double *y = law_run(l, 0);
    for (int r = 0; r < 8; r++, x += 64, y += 64) {
        double sum = 0;
        for (int j = 0; j < 64; j++) sum += x[j] * x[j];
        for (int j = 0; j < 64; j++) worst = fmax(worst, fabs(y[j] - x[j] / sqrt(sum / 64 + 1e-6)));
    }
    return worst;
}
static const op_law laws[] = {
    {"by hand", "x=1x2 weight=3 bias=1 eps=0", by_hand, 6e-9},
    {"by hand, four units", "x=1x4 weight=3 bias=1 eps=1e-6", by_hand_four, 6e-8},
    {"scale freedom", "x=8x64 weight=4 bias=1 order=4 eps=0", scale_freedom, 1e-12},
    {"odd powers flip", "x=8x64 weight=4 bias=1 order=4 eps=0", odd_flip, 1e-13},
    {"bounded", "x=8x64 weight=4 bias=1 order=4 fill.x=big", bounded, 1e-12},
    {"first power is RMSNorm", "x=8x64 weight=3 bias=1", is_rms_norm, 1e-13},
    {0},
};

#define POLY_NORM_ATTRS                                                                                      \
    {                                                                                                        \
        POLY_ORDER, { "eps", 1e-6, 0, 1, "added to the mean square of each power" }                          \
    }

OP_DEF(poly_norm) = {
    .name = "poly_norm",
    .brief = "y = a0 + sum_p a_p x^p s_p, s_p = (mean x^2p + eps)^(-1/2)",
    .source = "Zhuo et al., arXiv:2411.03884",
    .in = {{"x", "[rows, n]"}, {"weight", "[order]", ARG_F32, .fill = "around1"}, {"bias", "[1]", ARG_F32}},
    .out = {{"y", "[rows, n]"}, {"s", "[rows, order]", ARG_F32, .fixed = true}},
    .attrs = POLY_NORM_ATTRS,
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
    const tensor *x = b->n->in[0], *s = b->n->in[2];
    i64 order = (i64)attr(b->n, "order");
    TRY(poly_check(b, b->n->in[1], NULL));
    TRY(need(b, rows_of(s) == rows_of(x) && cols(s) == order, "s must be [%lld, %lld]", (long long)rows_of(x),
             (long long)order));
    TRY(need(b, same_shape(x, b->n->in[3]), "dy must have the shape of x"));
    TRY(out_like(b, 0, x));
    TRY(out_shape(b, 1, DT_F32, 1, &order));
    return out_shape(b, 2, DT_F32, 1, (i64[]){1});
}

static void grad_reference(const op_call64 *c)
{
    i64 n = cols(c->node->in[0]), order = (i64)attr(c->node, "order");
    const double *x = c->in[0], *a = c->in[1], *s = c->in[2], *g = c->in[3];
    double *dx = c->out[0], *da = c->out[1], *da0 = c->out[2];
    memset(da, 0, sizeof *da * (size_t)order);
    *da0 = 0;
    for (i64 r = 0; r < rows_of(c->node->in[0]); r++, x += n, g += n, dx += n, s += order) {
        memset(dx, 0, sizeof *dx * (size_t)n);
        for (i64 j = 0; j < n; j++) *da0 += g[j];
        for (i64 i = 0; i < order; i++) {
            double p = (double)i + 1, sum = 0;
            for (i64 j = 0; j < n; j++) sum += g[j] * pow(x[j], p);
            da[i] += s[i] * sum;
            for (i64 j = 0; j < n; j++)
                dx[j] +=
                    a[i] * p *
                    (pow(x[j], p - 1) * s[i] * g[j] - pow(x[j], 2 * p - 1) * pow(s[i], 3) * sum / (double)n);
        }
    }
}

/* sum[p - 1] = sum of g (x s)^p; the sum of g is returned. */
INLINE float gradient_sums(const float *restrict x, const float *restrict g, float s, int order, i64 n,
                           float sum[POLY_MOST])
{
    float s0 = 0, s1 = 0, s2 = 0, s3 = 0, s4 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3, s4)
    for (i64 j = 0; j < n; j++) {
        float u = x[j] * s, v = g[j] * u;
        s0 += g[j];
        s1 += v;
        if (order > 1) s2 += v * u;
        if (order > 2) s3 += v * (u * u);
        if (order > 3) s4 += v * u * (u * u);
    }
    memcpy(sum, (float[]){s1, s2, s3, s4}, POLY_MOST * sizeof *sum);
    return s0;
}

/* dx = s_1 (sum_p A_p u^(p-1) g - B_p u^(2p-1)),  A_p = p a_p t_p,  B_p = A_p t_p^2 sum(g u^p) / n */
INLINE void grad_row(float *restrict dx, const float *restrict x, const float *restrict g, const float *a,
                     const float *s, double *sums, int order, i64 n)
{
    float sum[POLY_MOST], k[POLY_MOST] = {0}, m[POLY_MOST] = {0}, s1 = s[0];
    sums[POLY_MOST] += (double)gradient_sums(x, g, s1, order, n, sum);
    double power = 1;
    for (int p = 0; p < order; p++) {
        power *= (double)s1;
        double t = s1 > 0 ? s[p] / power : 0; // s_1 = 0: the row is beyond f32
        sums[p] += t * (double)sum[p];
        k[p] = (float)((p + 1) * (double)a[p] * t * (double)s1);
        m[p] = (float)((p + 1) * (double)a[p] * t * t * t * (double)sum[p] / (double)n * (double)s1);
    }
#pragma omp simd
    for (i64 j = 0; j < n; j++) {
        float u = x[j] * s1, z = u * u, v = k[order - 1], w = m[order - 1];
        if (order > 3) v = v * u + k[2], w = w * z + m[2];
        if (order > 2) v = v * u + k[1], w = w * z + m[1];
        if (order > 1) v = v * u + k[0], w = w * z + m[0];
        dx[j] = v * g[j] - w * u;
    }
}

#define GRAD_ROW(order)                                                                                      \
    static void grad_row_##order(float *dx, const float *x, const float *g, const float *a, const float *s,  \
                                 double *sums, i64 n)                                                        \
    {                                                                                                        \
        grad_row(dx, x, g, a, s, sums, order, n);                                                            \
    }
ORDERS(GRAD_ROW)
static void (*const grad_row_of[])(float *dx, const float *x, const float *g, const float *a, const float *s,
                                   double *sums, i64 n) = {grad_row_1, grad_row_2, grad_row_3, grad_row_4};

static void grad_cpu(const op_call *c)
{
    i64 order = (i64)attr(c->node, "order");
    float a[POLY_MOST];
    double *partial = (double *)call_scratch(c);
    int team = 1;
    poly_read(c, a);
#pragma omp parallel
    {
        i64 first, last;
        double sums[POLY_SUMS] = {0};
        if (thread_index() == 0) team = omp_get_num_threads();
        part(c->in[0].rows, thread_index(), omp_get_num_threads(), &first, &last);
        for (i64 r = first; r < last; r++) {
            float *dx = row_out(c, 0, r);
            grad_row_of[order - 1](dx, row_in(c, 0, r), row_in(c, 3, r), a,
                                   (const float *)c->in[2].p + r * order, sums, c->in[0].n);
            row_done(c, 0, r, dx);
        }
        memcpy(partial + thread_index() * POLY_SUMS, sums, sizeof sums);
    }
    poly_finish(c, partial, team);
}

static op_cost grad_cost(const node *op)
{
    return (op_cost){(9 * attr(op, "order") + 2) * (double)count(op->in[0]), traffic(op)};
}

static const op_case grad_cases[] = {
    {"typical", "x=64x2304 weight=3 s=64x3 dy=64x2304 fill.s=positive f32 bf16"},
    {"order 1", "x=33x129 weight=1 s=33x1 dy=33x129 order=1 fill.s=positive f32 bf16"},
    {"order 2", "x=33x129 weight=2 s=33x2 dy=33x129 order=2 fill.s=positive f32 bf16"},
    {"order 4", "x=33x129 weight=4 s=33x4 dy=33x129 order=4 fill.s=positive f32 bf16"},
    {"one value", "x=3x1 weight=3 s=3x3 dy=3x1 fill.s=positive f32"},
    {"one row", "x=1x17 weight=3 s=1x3 dy=1x17 fill.s=positive f32 bf16"},
    {"zero rows", "x=4x64 weight=3 s=4x3 dy=4x64 fill.x=zero fill.s=positive f32 bf16"},
    {"bench", "x=2048x2304 weight=3 s=2048x3 dy=2048x2304 bf16 bench"},
    {0},
};

/* x . dx = 0 of every row where s is that of the row (eps = 0). */
static double orthogonal(law *l)
{
    const double *x = law_in(l, "x");
    double *s = law_in(l, "s"), worst = 0;
    for (int r = 0; r < 8; r++)
        for (int p = 1; p <= 4; p++) {
            double mean = 0;
            for (int j = 0; j < 64; j++) mean += pow(x[r * 64 + j], 2 * p) / 64;
            s[r * 4 + p - 1] = 1 / sqrt(mean);
        }
    const double *dx = law_run(l, 0);
    for (int r = 0; r < 8; r++) {
        double dot = 0, size = 0;
        for (int j = 0; j < 64; j++) {
            dot += x[r * 64 + j] * dx[r * 64 + j];
            size += fabs(x[r * 64 + j] * dx[r * 64 + j]);
        }
        worst = fmax(worst, fabs(dot) / size);
    }
    return worst;
}
static double slopes_by_hand(law *l)
{
    static const double rho[] = {0.6324555320336759, 0.34299717028501764, 0.17541160386140586};
    static const double g[2][2] = {{1, 0}, {1, -1}},
                        dx[2][2] = {{0.55658168, -0.27829084}, {0.71630169, -0.35815084}};
    static const double da[2][3] = {{0.63245553, 0.34299717, 0.17541160},
                                    {-0.63245553, -1.02899151, -1.22788123}};
    double worst = 0;
    memcpy(law_in(l, "x"), (double[]){1, 2}, 2 * sizeof(double));
    memcpy(law_in(l, "weight"), third, sizeof third);
    memcpy(law_in(l, "s"), rho, sizeof rho);
    for (int i = 0; i < 2; i++) {
        memcpy(law_in(l, "dy"), g[i], sizeof g[i]);
        worst = fmax(worst, worst_of(law_run(l, 0), dx[i], 2));
        worst = fmax(worst, worst_of(law_run(l, 1), da[i], 3));
        worst = fmax(worst, fabs(*law_run(l, 2) - (g[i][0] + g[i][1])));
    }
    return worst;
}
static const op_law grad_laws[] = {
    {"dx is orthogonal to x", "x=8x64 weight=4 s=8x4 dy=8x64 order=4", orthogonal, 1e-13},
    {"by hand", "x=1x2 weight=3 s=1x3 dy=1x2", slopes_by_hand, 6e-9},
    {0},
};

OP_DEF(poly_norm_grad) = {
    .name = "poly_norm_grad",
    .brief = "dx, da, da0 of poly_norm from x and s",
    .source = "Zhuo et al., arXiv:2411.03884",
    .in = {{"x", "[rows, n]"},
           {"weight", "[order]", ARG_F32, .fill = "around1"},
           {"s", "[rows, order]", ARG_F32},
           {"dy", "[rows, n]"}},
    .out = {{"dx", "[rows, n]"}, {"dweight", "[order]", ARG_F32}, {"dbias", "[1]", ARG_F32}},
    .attrs = POLY_NORM_ATTRS,
    .flags = OP_ACCUMULATES,
    .infer = grad_infer,
    .reference = grad_reference,
    .cpu = grad_cpu,
    .prepare = poly_prepare,
    .cost = grad_cost,
    .cases = grad_cases,
    .laws = grad_laws,
};

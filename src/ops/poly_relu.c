/* poly_relu: a polynomial of ReLU (PolyCom).
 *
 *   y  = a_0 + sum_p a_p u^p,  u = max(x, 0)                    p = 1 .. r; x, y [rows, n]
 *   dx = dy sum_p p a_p u^(p-1) where x > 0, else 0             weight = (a_1, .. a_r) [r], bias = a_0 [1]
 *   da_p = sum dy u^p,  da_0 = sum dy                           only x is kept
 *
 * Source:   Zhuo et al., arXiv:2411.03884 (ICLR 2025). The released code holds (a_r, .., a_1), here a_1 comes
 * first. Numerics: f32; a row's sums in f32, rows and threads in double.
 */
#include "ops/op.h"
#include "ops/poly.h"
#include <math.h>

#define INLINE static inline __attribute__((always_inline))

/* ---- forward */
static status infer(op_build *b)
{
    TRY(poly_check(b, b->n->in[1], b->n->in[2]));
    return out_like(b, 0, b->n->in[0]);
}

static void vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    node *d = g_node_from(g, OP_poly_relu_grad, IN(op->in[0], op->in[1], dout[0]), op);
    for (int i = 0; i < 3; i++) din[i] = g_out(d, i);
}

static void reference(const op_call64 *c)
{
    for (i64 j = 0; j < count(c->node->in[0]); j++) {
        double u = c->in[0][j] < 0 ? 0 : c->in[0][j], y = c->in[2][0];
        for (i64 p = 1; p <= (i64)attr(c->node, "order"); p++) y += c->in[1][p - 1] * pow(u, (double)p);
        c->out[0][j] = y;
    }
}

INLINE void row(float *restrict y, const float *restrict x, const float *a, float bias, int order, i64 n)
{
#pragma omp simd
    for (i64 j = 0; j < n; j++) {
        float u = x[j] < 0 ? 0 : x[j], v = a[order - 1];
        if (order > 3) v = v * u + a[2];
        if (order > 2) v = v * u + a[1];
        if (order > 1) v = v * u + a[0];
        y[j] = v * u + bias;
    }
}

#define ORDERS(DO) DO(1) DO(2) DO(3) DO(4)
#define ROW(order)                                                                                           \
    static void row_##order(float *y, const float *x, const float *a, float bias, i64 n)                     \
    {                                                                                                        \
        row(y, x, a, bias, order, n);                                                                        \
    }
ORDERS(ROW)
static void (*const row_of[])(float *y, const float *x, const float *a, float bias, i64 n) = {row_1, row_2,
                                                                                              row_3, row_4};

static void cpu(const op_call *c)
{
    i64 order = (i64)attr(c->node, "order");
    float a[POLY_MOST], bias = *(const float *)c->in[2].p;
    poly_read(c, a);
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < c->in[0].rows; r++) {
        float *y = row_out(c, 0, r);
        row_of[order - 1](y, row_in(c, 0, r), a, bias, c->in[0].n);
        row_done(c, 0, r, y);
    }
}

static op_cost cost(const node *op)
{
    return (op_cost){(2 * attr(op, "order") + 1) * (double)count(op->in[0]), traffic(op)};
}

static const op_case cases[] = {
    {"typical", "x=64x2304 weight=3 bias=1 f32 bf16 grad=0"}, // some x within a difference of the kink
    {"order 1", "x=33x129 weight=1 bias=1 order=1 f32 bf16"},
    {"order 2", "x=33x129 weight=2 bias=1 order=2 f32 bf16"},
    {"order 4", "x=33x129 weight=4 bias=1 order=4 f32 bf16 grad=0"},
    {"order 4, beside the kink", "x=33x129 weight=4 bias=1 order=4 fill.x=pm2 f32 bf16"},
    {"one value", "x=3x1 weight=3 bias=1 f32 bf16"},
    {"one row", "x=1x17 weight=3 bias=1 f32 bf16"},
    {"zero rows", "x=4x64 weight=3 bias=1 fill.x=zero f32 bf16 grad=0"}, // the kink
    {"far", "x=4x64 weight=4 bias=1 order=4 fill.x=big f32 bf16 grad=0"},
    {"exact", "x=5x65 weight=3 bias=1 fill=ints f32 bf16 tol=0 grad=0"},
    {"bench", "x=2048x2304 weight=3 bias=1 bf16 bench"},
    {0},
};

static double worst_of(const double *y, const double *want, int n)
{
    double worst = 0;
    for (int i = 0; i < n; i++) worst = fmax(worst, fabs(y[i] - want[i]));
    return worst;
}
static const double at[] = {1, 2, -1, 0.5}, third[] = {1 / 3.0, 1 / 3.0, 1 / 3.0};
static double by_hand(law *l)
{
    memcpy(law_in(l, "x"), at, sizeof at);
    memcpy(law_in(l, "weight"), third, sizeof third);
    *law_in(l, "bias") = 0;
    return worst_of(law_run(l, 0), (double[]){1, 14 / 3.0, 0, 0.875 / 3}, 4);
}
/* Only the first coefficient: ReLU; only the second: its square. */
static double relu_and_square(law *l)
{
    double worst = 0, *weight = law_in(l, "weight");
    const double *x = law_in(l, "x");
    *law_in(l, "bias") = 0;
    for (int p = 0; p < 2; p++) {
        for (int i = 0; i < 3; i++) weight[i] = i == p;
        const double *y = law_run(l, 0);
        for (int j = 0; j < 64; j++) worst = fmax(worst, fabs(y[j] - pow(fmax(x[j], 0), p + 1)));
    }
    return worst;
}
static const op_law laws[] = {
    {"by hand", "x=1x4 weight=3 bias=1", by_hand, 1e-15},
    {"ReLU and its square", "x=1x64 weight=3 bias=1", relu_and_square, 1e-15},
    {0},
};

OP_DEF(poly_relu) = {
    .name = "poly_relu",
    .brief = "y = a0 + sum_p a_p max(x, 0)^p",
    .source = "Zhuo et al., arXiv:2411.03884",
    .in = {{"x", "[rows, n]"}, {"weight", "[order]", ARG_F32, .fill = "around1"}, {"bias", "[1]", ARG_F32}},
    .out = {{"y", "[rows, n]"}},
    .attrs = {POLY_ORDER},
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

/* ---- the gradient */
static status grad_infer(op_build *b)
{
    i64 order = (i64)attr(b->n, "order");
    TRY(poly_check(b, b->n->in[1], NULL));
    TRY(need(b, same_shape(b->n->in[0], b->n->in[2]), "dy must have the shape of x"));
    TRY(out_like(b, 0, b->n->in[0]));
    TRY(out_shape(b, 1, DT_F32, 1, &order));
    return out_shape(b, 2, DT_F32, 1, (i64[]){1});
}

static void grad_reference(const op_call64 *c)
{
    i64 order = (i64)attr(c->node, "order");
    memset(c->out[1], 0, sizeof(double) * (size_t)order);
    *c->out[2] = 0;
    for (i64 j = 0; j < count(c->node->in[0]); j++) {
        double x = c->in[0][j], g = c->in[2][j], u = x < 0 ? 0 : x, slope = 0;
        for (i64 i = 0; i < order; i++) {
            double p = (double)i + 1;
            slope += p * c->in[1][i] * pow(u, p - 1);
            c->out[1][i] += g * pow(u, p);
        }
        c->out[0][j] = x > 0 ? g * slope : 0;
        *c->out[2] += g;
    }
}

/* dx may be dy. K: p a_p. */
INLINE void grad_row(float *dx, const float *x, const float *dy, const float *k, double *sums, int order,
                     i64 n)
{
    float s0 = 0, s1 = 0, s2 = 0, s3 = 0, s4 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3, s4)
    for (i64 j = 0; j < n; j++) {
        float g = dy[j], u = x[j] < 0 ? 0 : x[j], v = g * u, slope = k[order - 1];
        s0 += g;
        s1 += v;
        if (order > 1) s2 += v * u, slope = slope * u + k[order - 2];
        if (order > 2) s3 += v * (u * u), slope = slope * u + k[order - 3];
        if (order > 3) s4 += v * u * (u * u), slope = slope * u + k[order - 4];
        dx[j] = x[j] > 0 ? slope * g : 0;
    }
    const float sum[] = {s1, s2, s3, s4};
    for (int p = 0; p < order; p++) sums[p] += (double)sum[p];
    sums[POLY_MOST] += (double)s0;
}

#define GRAD_ROW(order)                                                                                      \
    static void grad_row_##order(float *dx, const float *x, const float *dy, const float *k, double *sums,   \
                                 i64 n)                                                                      \
    {                                                                                                        \
        grad_row(dx, x, dy, k, sums, order, n);                                                              \
    }
ORDERS(GRAD_ROW)
static void (*const grad_row_of[])(float *dx, const float *x, const float *dy, const float *k, double *sums,
                                   i64 n) = {grad_row_1, grad_row_2, grad_row_3, grad_row_4};

static void grad_cpu(const op_call *c)
{
    i64 order = (i64)attr(c->node, "order");
    float k[POLY_MOST];
    double *partial = (double *)call_scratch(c);
    int team = 1;
    poly_read(c, k);
    for (int p = 0; p < POLY_MOST; p++) k[p] *= (float)(p + 1);
#pragma omp parallel
    {
        i64 first, last;
        double sums[POLY_SUMS] = {0};
        if (thread_index() == 0) team = omp_get_num_threads();
        part(c->in[0].rows, thread_index(), omp_get_num_threads(), &first, &last);
        for (i64 r = first; r < last; r++) {
            float *dx = row_out(c, 0, r);
            grad_row_of[order - 1](dx, row_in(c, 0, r), row_in(c, 2, r), k, sums, c->in[0].n);
            row_done(c, 0, r, dx);
        }
        memcpy(partial + thread_index() * POLY_SUMS, sums, sizeof sums);
    }
    poly_finish(c, partial, team);
}

static op_cost grad_cost(const node *op)
{
    return (op_cost){(4 * attr(op, "order") + 2) * (double)count(op->in[0]), traffic(op)};
}

static const op_case grad_cases[] = {
    {"typical", "x=64x2304 weight=3 dy=64x2304 f32 bf16"},
    {"order 1", "x=33x129 weight=1 dy=33x129 order=1 f32 bf16"},
    {"order 2", "x=33x129 weight=2 dy=33x129 order=2 f32 bf16"},
    {"order 4", "x=33x129 weight=4 dy=33x129 order=4 f32 bf16"},
    {"one value", "x=3x1 weight=3 dy=3x1 f32 bf16"},
    {"one row", "x=1x17 weight=3 dy=1x17 f32 bf16"},
    {"zero rows", "x=4x64 weight=3 dy=4x64 fill.x=zero f32 bf16"},
    {"exact", "x=5x65 weight=3 dy=5x65 fill=ints f32 bf16 tol=0"},
    {"bench", "x=2048x2304 weight=3 dy=2048x2304 bf16 bench"},
    {0},
};

static double slopes_by_hand(law *l)
{
    memcpy(law_in(l, "x"), at, sizeof at);
    memcpy(law_in(l, "weight"), third, sizeof third);
    for (int i = 0; i < 4; i++) law_in(l, "dy")[i] = 1;
    double worst = worst_of(law_run(l, 0), (double[]){2, 17 / 3.0, 0, 2.75 / 3}, 4);
    worst = fmax(worst, worst_of(law_run(l, 1), (double[]){3.5, 5.25, 9.125}, 3));
    return fmax(worst, fabs(*law_run(l, 2) - 4));
}
static const op_law grad_laws[] = {
    {"by hand", "x=1x4 weight=3 dy=1x4", slopes_by_hand, 1e-15},
    {0},
};

OP_DEF(poly_relu_grad) = {
    .name = "poly_relu_grad",
    .brief = "dx, da, da0 of poly_relu from x",
    .source = "Zhuo et al., arXiv:2411.03884",
    .in = {{"x", "[rows, n]"}, {"weight", "[order]", ARG_F32, .fill = "around1"}, {"dy", "[rows, n]"}},
    .out = {{"dx", "[rows, n]"}, {"dweight", "[order]", ARG_F32}, {"dbias", "[1]", ARG_F32}},
    .attrs = {POLY_ORDER},
    .flags = OP_ACCUMULATES,
    .inplace = 3, // dx over dy
    .infer = grad_infer,
    .reference = grad_reference,
    .cpu = grad_cpu,
    .prepare = poly_prepare,
    .cost = grad_cost,
    .cases = grad_cases,
    .laws = grad_laws,
};

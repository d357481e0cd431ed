/* gated: the middle of a gated feed-forward layer (SwiGLU, GEGLU, ReGLU, GLU), from one wide projection.
 *
 *   x = [g | u],  y = f(g) u                   x [rows, 2 n], y [rows, n]; f by kind: see activations.h
 *   dg = dy u f'(g),  du = dy f(g)             dx = [dg | du]; only x is kept
 *   both: y = f(g) f(u), dg = dy f(u) f'(g), du = dy f(g) f'(u)
 *
 * Source:   Shazeer, arXiv:2002.05202. Both, with relu: dReLU, Song et al., arXiv:2406.05955.
 * Numerics: f32, rounded once; f and f' share their exponential in the gradient's one loop.
 */
#include "ops/op.h"
#include "ops/activations.h"

/* ---- forward */
static status infer(op_build *b)
{
    const tensor *x = b->n->in[0];
    i64 dim[MAX_DIMS];
    TRY(need(b, cols(x) % 2 == 0, "rows of %lld do not halve into gate and up", (long long)cols(x)));
    memcpy(dim, x->dim, sizeof dim);
    dim[x->ndim - 1] /= 2;
    return out_shape(b, 0, x->dtype, x->ndim, dim);
}

static void vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    din[0] = g_out(g_node_from(g, OP_gated_grad, IN(op->in[0], dout[0]), op), 0);
}

static void reference(const op_call64 *c)
{
    i64 n = cols(c->node->out[0]);
    int kind = (int)attr(c->node, "kind");
    bool both = attr(c->node, "both") > 0;
    for (i64 r = 0; r < rows_of(c->node->out[0]); r++)
        for (i64 j = 0; j < n; j++) {
            double g = c->in[0][2 * r * n + j], u = c->in[0][2 * r * n + n + j];
            c->out[0][r * n + j] = activation64(kind, g) * (both ? activation64(kind, u) : u);
        }
}

#define ACT(index, name, ...)                                                                                \
    static void row_##name(float *restrict y, const float *restrict x, i64 n)                                \
    {                                                                                                        \
        _Pragma("omp simd") for (i64 j = 0; j < n; j++) y[j] = act_##name(x[j]) * x[n + j];                  \
    }                                                                                                        \
    static void both_##name(float *restrict y, const float *restrict x, i64 n)                               \
    {                                                                                                        \
        _Pragma("omp simd") for (i64 j = 0; j < n; j++) y[j] = act_##name(x[j]) * act_##name(x[n + j]);      \
    }                                                                                                        \
    static void grad_row_##name(float *restrict dx, const float *restrict x, const float *restrict dy,       \
                                i64 n)                                                                       \
    {                                                                                                        \
        _Pragma("omp simd") for (i64 j = 0; j < n; j++)                                                      \
        {                                                                                                    \
            float g = x[j], value = act_##name(g), slope = slope_##name(g);                                  \
            dx[j] = dy[j] * x[n + j] * slope;                                                                \
            dx[n + j] = dy[j] * value;                                                                       \
        }                                                                                                    \
    }                                                                                                        \
    static void grad_both_##name(float *restrict dx, const float *restrict x, const float *restrict dy,      \
                                 i64 n)                                                                      \
    {                                                                                                        \
        _Pragma("omp simd") for (i64 j = 0; j < n; j++)                                                      \
        {                                                                                                    \
            float g = x[j], u = x[n + j];                                                                    \
            dx[j] = dy[j] * act_##name(u) * slope_##name(g);                                                 \
            dx[n + j] = dy[j] * act_##name(g) * slope_##name(u);                                             \
        }                                                                                                    \
    }
ACTIVATION_LIST(ACT)
#undef ACT
typedef struct row_functions {
    void (*value)(float *restrict y, const float *restrict x, i64 n);
    void (*grad)(float *restrict dx, const float *restrict x, const float *restrict dy, i64 n);
} row_functions;
static const row_functions rows[2][ACTIVATION_COUNT] = {
#define ACT(index, name, ...) [0][index] = {row_##name, grad_row_##name},
    ACTIVATION_LIST(ACT)
#undef ACT
#define ACT(index, name, ...) [1][index] = {both_##name, grad_both_##name},
        ACTIVATION_LIST(ACT)
#undef ACT
};
static const row_functions *rows_of_kind(const node *n)
{
    return &rows[attr(n, "both") > 0][(int)attr(n, "kind")];
}

static void cpu(const op_call *c)
{
    const row_functions *kind = rows_of_kind(c->node);
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < c->in[0].rows; r++) {
        float *y = row_out(c, 0, r);
        kind->value(y, row_in(c, 0, r), c->out[0].n);
        row_done(c, 0, r, y);
    }
}

static op_cost cost(const node *op) { return (op_cost){17.0 * (double)count(op->out[0]), traffic(op)}; }

static const op_case cases[] = {
#define ACT(index, name, ...)                                                                                \
    {#name, "x=33x130 kind=" #index " f32 bf16"}, {#name ", both", "x=33x66 kind=" #index " both=1 f32 bf16"},
    ACTIVATION_LIST(ACT)
#undef ACT
        {"typical", "x=64x3072 f32 bf16"},
    {"bench", "x=2048x3072 bf16 bench"},
    {"one value", "x=3x2 f32 bf16"},
    {"far", "x=5x66 fill=big f32 bf16 grad=0"},
    {"exact relu", "x=5x66 kind=3 fill=ints f32 bf16 tol=0 grad=0"},
    {"exact dReLU", "x=5x66 kind=3 both=1 fill=ints f32 bf16 tol=0 grad=0"},
    {"exact bilinear", "x=5x66 kind=5 fill=ints f32 bf16 tol=0"},
    {0},
};

/* Linear in the upper half: doubling u doubles y. */
static double linear_in_up(law *l)
{
    double first[8 * 32], worst = 0, *x = law_in(l, "x");
    memcpy(first, law_run(l, 0), sizeof first);
    for (int i = 0; i < 8 * 64; i++)
        if (i % 64 >= 32) x[i] *= 2;
    const double *y = law_run(l, 0);
    for (int i = 0; i < 8 * 32; i++) worst = fmax(worst, fabs(y[i] - 2 * first[i]));
    return worst;
}
/* SwiGLU of g = 1, u = 2 and of g = -2, u = 3. */
static double worked(law *l)
{
    memcpy(law_in(l, "x"), (const double[]){1, -2, 2, 3}, 4 * sizeof(double));
    const double *y = law_run(l, 0);
    return fmax(fabs(y[0] - 2 * 0.7310585786), fabs(y[1] + 3 * 0.2384058440));
}
static const op_law laws[] = {
    {"linear in up", "x=8x64 kind=0", linear_in_up, 0}, {"worked values", "x=1x4", worked, 1e-9}, {0}};

OP_DEF(gated) = {
    .name = "gated",
    .brief = "y = f(gate) up, x = [gate | up], f by kind; both: f(gate) f(up)",
    .source = "Shazeer, arXiv:2002.05202",
    .in = {{"x", "[rows, 2n]"}},
    .out = {{"y", "[rows, n]"}},
    .attrs = {ACTIVATION_ATTR, {"both", 0, 0, 1, "1: f of both halves"}},
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
    const tensor *x = b->n->in[0], *dy = b->n->in[1];
    TRY(need(b, 2 * cols(dy) == cols(x) && rows_of(dy) == rows_of(x), "dy must have half the columns of x"));
    return out_like(b, 0, x);
}

static void grad_reference(const op_call64 *c)
{
    int kind = (int)attr(c->node, "kind");
    bool both = attr(c->node, "both") > 0;
    i64 n = cols(c->node->in[1]);
    const double *g = c->in[0], *dy = c->in[1];
    double *dg = c->out[0];
    for (i64 r = 0; r < rows_of(c->node->in[1]); r++, g += 2 * n, dg += 2 * n, dy += n)
        for (i64 j = 0; j < n; j++) {
            double u = g[n + j];
            dg[j] = dy[j] * (both ? activation64(kind, u) : u) * activation_slope64(kind, g[j]);
            dg[n + j] = dy[j] * activation64(kind, g[j]) * (both ? activation_slope64(kind, u) : 1);
        }
}

static void grad_cpu(const op_call *c)
{
    const row_functions *kind = rows_of_kind(c->node);
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < c->in[0].rows; r++) {
        float *dx = row_out(c, 0, r);
        kind->grad(dx, row_in(c, 0, r), row_in(c, 1, r), c->in[1].n);
        row_done(c, 0, r, dx);
    }
}

static op_cost grad_cost(const node *op) { return (op_cost){24.0 * (double)count(op->in[1]), traffic(op)}; }

static const op_case grad_cases[] = {
#define ACT(index, name, ...)                                                                                \
    {#name, "x=33x130 dy=33x65 kind=" #index " f32 bf16"},                                                   \
        {#name ", both", "x=33x66 dy=33x33 kind=" #index " both=1 f32 bf16"},
    ACTIVATION_LIST(ACT)
#undef ACT
        {"typical", "x=64x3072 dy=64x1536 f32 bf16"},
    {"bench", "x=2048x3072 dy=2048x1536 bf16 bench"},
    {"one value", "x=3x2 dy=3x1 f32 bf16"},
    {"exact relu", "x=5x66 dy=5x33 kind=3 fill=ints f32 bf16 tol=0"},
    {0},
};

OP_DEF(gated_grad) = {
    .name = "gated_grad",
    .brief = "dx = [dy up f'(gate) | dy f(gate)], f by kind; both: of f(gate) f(up)",
    .in = {{"x", "[rows, 2n]"}, {"dy", "[rows, n]"}},
    .out = {{"dx", "[rows, 2n]"}},
    .attrs = {ACTIVATION_ATTR, {"both", 0, 0, 1, "1: f of both halves"}},
    .infer = grad_infer,
    .reference = grad_reference,
    .cpu = grad_cpu,
    .cost = grad_cost,
    .cases = grad_cases,
};

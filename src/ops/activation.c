/* activation: a scalar function of every element; which one is the attribute `kind`, an index in
 * activations.h.
 *
 *   y = f(x),   dx = f'(x) dy          x, y [rows, n]; only x is kept, f' is computed again from it
 *
 * Numerics: f32; the errors are those of vec.h, a few units in the last place of the larger factor. Rows are
 * widened into a buffer and narrowed from it: reading and writing bf16 inside the one loop was slower (silu,
 * 3,072 columns, in cache, v4: 0.27 against 0.19 ns a value; v3: 0.69 against 0.47).
 */
#include "ops/op.h"
#include "ops/activations.h"

/* ---- forward */
static status infer(op_build *b) { return out_like(b, 0, b->n->in[0]); }

static void vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    din[0] = g_out(g_node_from(g, OP_activation_grad, IN(op->in[0], dout[0]), op), 0);
}

static void reference(const op_call64 *c)
{
    for (i64 j = 0; j < count(c->node->in[0]); j++)
        c->out[0][j] = activation64((int)attr(c->node, "kind"), c->in[0][j]);
}

/* Y may be X, and DX may be DY. */
#define ACT(index, name, ...)                                                                                \
    static void row_##name(float *y, const float *x, i64 n)                                                  \
    {                                                                                                        \
        _Pragma("omp simd") for (i64 j = 0; j < n; j++) y[j] = act_##name(x[j]);                             \
    }                                                                                                        \
    static void grad_row_##name(float *dx, const float *x, const float *dy, i64 n)                           \
    {                                                                                                        \
        _Pragma("omp simd") for (i64 j = 0; j < n; j++) dx[j] = slope_##name(x[j]) * dy[j];                  \
    }
ACTIVATION_LIST(ACT)
#undef ACT
static const struct {
    void (*value)(float *y, const float *x, i64 n);
    void (*grad)(float *dx, const float *x, const float *dy, i64 n);
} rows[] = {
#define ACT(index, name, ...) [index] = {row_##name, grad_row_##name},
    ACTIVATION_LIST(ACT)
#undef ACT
};

static void cpu(const op_call *c)
{
    int kind = (int)attr(c->node, "kind");
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < c->in[0].rows; r++) {
        float *y = row_out(c, 0, r);
        rows[kind].value(y, row_in(c, 0, r), c->in[0].n);
        row_done(c, 0, r, y);
    }
}

static op_cost cost(const node *op) { return (op_cost){16.0 * (double)count(op->in[0]), traffic(op)}; }

static const op_case cases[] = {
#define ACT(index, name, ...)                                                                                \
    {#name, "x=33x129 kind=" #index " f32 bf16"},                                                            \
        {#name ", far", "x=5x33 kind=" #index " fill=big f32 bf16 grad=0"},                                  \
        {#name ", one value", "x=3x1 kind=" #index " f32 bf16"},
    ACTIVATION_LIST(ACT)
#undef ACT
        {"typical", "x=64x3072 kind=1 f32 bf16"},
    {"bench", "x=2048x3072 kind=1 bf16 bench"},
    {"one row", "x=1x17 f32 bf16"},
    {"exact relu",
     "x=5x65 kind=3 fill=ints f32 bf16 tol=0 grad=0"}, // 0 among them: no differences at the kink
    {"exact relu2", "x=5x65 kind=4 fill=ints f32 bf16 tol=0 grad=0"},
    {"exact identity", "x=5x65 kind=5 f32 bf16 tol=0"},
    {0},
};

/* Values worked out elsewhere, at x = -2, -1, -1/2, 1/2, 1, 2. */
#define WORKED(WORK)                                                                                         \
    WORK(silu, -0.2384058, -0.2689414, -0.1887703, 0.3112297, 0.7310586, 1.7615942)                          \
    WORK(gelu, -0.0455003, -0.1586553, -0.1542688, 0.3457312, 0.8413447, 1.9544997)                          \
    WORK(gelu_tanh, -0.0454023, -0.1588080, -0.1542860, 0.3457140, 0.8411920, 1.9545977)                     \
    WORK(relu, 0, 0, 0, 0.5, 1, 2)                                                                           \
    WORK(relu2, 0, 0, 0, 0.25, 1, 4)                                                                         \
    WORK(identity, -2, -1, -0.5, 0.5, 1, 2)                                                                  \
    WORK(sigmoid, 0.1192029, 0.2689414, 0.3775407, 0.6224593, 0.7310586, 0.8807971)                          \
    WORK(tanh, -0.9640276, -0.7615942, -0.4621172, 0.4621172, 0.7615942, 0.9640276)                          \
    WORK(elu, -0.8646647, -0.6321206, -0.3934693, 0.5, 1, 2)                                                 \
    WORK(selu, -1.5201665, -1.1113307, -0.6917582, 0.5253505, 1.0507010, 2.1014020)
static double worked_values(law *l, const double *expected)
{
    static const double at[6] = {-2, -1, -0.5, 0.5, 1, 2};
    double worst = 0;
    memcpy(law_in(l, "x"), at, sizeof at);
    const double *y = law_run(l, 0);
    for (int i = 0; i < 6; i++) worst = fmax(worst, fabs(y[i] - expected[i]));
    return worst;
}
#define WORK(name, ...)                                                                                      \
    static double worked_##name(law *l) { return worked_values(l, (const double[]){__VA_ARGS__}); }
WORKED(WORK)
#undef WORK
static const op_law laws[] = {
#define ACT(index, name, ...) {#name ", worked values", "x=1x6 kind=" #index, worked_##name, 6e-8},
    ACTIVATION_LIST(ACT)
#undef ACT
        {0},
};

OP_DEF(activation) = {
    .name = "activation",
    .brief = "y = f(x), f by kind",
    .source = "ops/activations.h",
    .in = {{"x", "[rows, n]"}},
    .out = {{"y", "[rows, n]"}},
    .attrs = {ACTIVATION_ATTR},
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
    TRY(need(b, same_shape(b->n->in[0], b->n->in[1]), "x and dy differ in shape"));
    return out_like(b, 0, b->n->in[0]);
}

static void grad_reference(const op_call64 *c)
{
    for (i64 j = 0; j < count(c->node->in[0]); j++)
        c->out[0][j] = activation_slope64((int)attr(c->node, "kind"), c->in[0][j]) * c->in[1][j];
}

static void grad_cpu(const op_call *c)
{
    int kind = (int)attr(c->node, "kind");
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < c->in[0].rows; r++) {
        float *dx = row_out(c, 0, r);
        rows[kind].grad(dx, row_in(c, 0, r), row_in(c, 1, r), c->in[0].n);
        row_done(c, 0, r, dx);
    }
}

static op_cost grad_cost(const node *op) { return (op_cost){20.0 * (double)count(op->in[0]), traffic(op)}; }

static const op_case grad_cases[] = {
#define ACT(index, name, ...)                                                                                \
    {#name, "x=33x129 dy=33x129 kind=" #index " f32 bf16"},                                                  \
        {#name ", far", "x=5x33 dy=5x33 kind=" #index " fill.x=big f32 bf16"},
    ACTIVATION_LIST(ACT)
#undef ACT
        {"typical", "x=64x3072 dy=64x3072 kind=1 f32 bf16"},
    {"bench", "x=2048x3072 dy=2048x3072 kind=1 bf16 bench"},
    {"one value", "x=3x1 dy=3x1 f32 bf16"},
    {"exact relu", "x=5x65 dy=5x65 kind=3 fill=ints f32 bf16 tol=0"},
    {"exact relu2", "x=5x65 dy=5x65 kind=4 fill=ints f32 bf16 tol=0"},
    {0},
};

OP_DEF(activation_grad) = {
    .name = "activation_grad",
    .brief = "dx = f'(x) dy, f by kind",
    .in = {{"x", "[rows, n]"}, {"dy", "[rows, n]"}},
    .out = {{"dx", "[rows, n]"}},
    .attrs = {ACTIVATION_ATTR},
    .inplace = 2,
    .infer = grad_infer,
    .reference = grad_reference,
    .cpu = grad_cpu,
    .cost = grad_cost,
    .cases = grad_cases,
};

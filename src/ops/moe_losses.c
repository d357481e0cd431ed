/* moe_balance, moe_z_loss: what keeps a router from sending all tokens to a few experts, and its logits
 * small. Terms of the objective: like every loss here, weight x (sum over tokens with a target) x inv_n,
 * inv_n one over the targets of the whole step, so that micro-batches add up to what one batch gives.
 *
 *   balance   weight inv_n E sum_t sum_e f[e] p[t, e],  f = counts / sum counts: 1 where all is even
 *             dz[t, e] = weight inv_n E p[t, e] (f[e] - sum_j f[j] p[t, j])                      softmax
 *             p = s / S, S = sum s: dz[t, e] = weight inv_n E s_e (1 - s_e) / S (f[e] - sum_j f[j] p[t, j])
 *                                                                                                sigmoid
 *   z         weight inv_n sum_t lse[t]^2,  lse = log sum_e exp z[t, e];   dz = 2 weight inv_n lse p
 *
 * f is a constant of the gradient. Whose counts they are is the caller's choice: those of the micro-batch, or
 * of the step so far (global balance: with f of the whole batch, the mean of the micro-batches' losses is the
 * loss of the whole batch, because the loss is linear in p).
 *
 * Source:   balance: Shazeer et al., arXiv:1701.06538, in the form of Switch, arXiv:2101.03961; global f:
 *           arXiv:2501.11873; z: ST-MoE, arXiv:2202.08906.
 */
#include "ops/moe.h"
#include <string.h>

enum { BALANCE_Z, BALANCE_COUNTS, BALANCE_TARGETS, BALANCE_INV_N };
enum { Z_Z, Z_TARGETS, Z_INV_N };

static status losses_infer(op_build *b, const tensor *z, const tensor *targets)
{
    TRY(need(b, count(targets) == rows_of(z), "targets must be [%lld]", (long long)rows_of(z)));
    TRY(out_shape(b, 0, DT_F32, 1, (i64[]){1}));
    return out_like(b, 1, z);
}
static void vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    (void)g, (void)dout; // a loss is a root: its slope is 1, and the forward pass has computed the rest
    din[0] = op->out[1];
}

/* Room for a number a row, then a row's scores for every thread. */
static i64 room(i64 rows) { return round_up(rows, 16); }
static status prepare(op_call *c)
{
    return want_scratch(c, (size_t)(room(c->in[0].rows) + c->threads * round_up(c->in[0].n, 16)) *
                               sizeof(float));
}
static float *row_room(const op_call *c)
{
    return (float *)call_scratch(c) + room(c->in[0].rows) + thread_index() * round_up(c->in[0].n, 16);
}
/* The rows' terms, added in their order. */
static void finish(const op_call *c, double by)
{
    const float *term = (const float *)call_scratch(c);
    double sum = 0;
    for (i64 t = 0; t < c->in[0].rows; t++) sum += (double)term[t];
    *(float *)c->out[0].p = (float)(sum * by);
}

/* ---- balance */
static status balance_infer(op_build *b)
{
    const tensor *z = b->n->in[BALANCE_Z];
    TRY(need(b, count(b->n->in[BALANCE_COUNTS]) == cols(z), "counts must be [%lld]", (long long)cols(z)));
    return losses_infer(b, z, b->n->in[BALANCE_TARGETS]);
}

static void balance_reference(const op_call64 *c)
{
    i64 n = cols(c->node->in[BALANCE_Z]), rows = rows_of(c->node->in[BALANCE_Z]);
    bool sigmoid = attr(c->node, "router") == MOE_SIGMOID;
    double all = 0, by = attr(c->node, "weight") * *c->in[BALANCE_INV_N] * (double)n;
    for (i64 e = 0; e < n; e++) all += c->in[BALANCE_COUNTS][e];
    *c->out[0] = 0;
    memset(c->out[1], 0, sizeof(double) * (size_t)(rows * n));
    for (i64 t = 0; t < rows; t++) {
        const double *z = c->in[BALANCE_Z] + t * n;
        double *dz = c->out[1] + t * n, lse = moe_softmax64(z, n, NULL), sum = 0, mean = 0;
        if (c->in[BALANCE_TARGETS][t] < 0 || !(all > 0)) continue;
        for (i64 e = 0; e < n; e++) sum += sigmoid ? 1 / (1 + exp(-z[e])) : exp(z[e] - lse);
        for (i64 e = 0; e < n; e++)
            mean += c->in[BALANCE_COUNTS][e] / all * (sigmoid ? 1 / (1 + exp(-z[e])) : exp(z[e] - lse)) / sum;
        *c->out[0] += by * mean;
        for (i64 e = 0; e < n; e++) {
            double s = sigmoid ? 1 / (1 + exp(-z[e])) : exp(z[e] - lse);
            dz[e] = by * s / sum * (sigmoid ? 1 - s : 1) * (c->in[BALANCE_COUNTS][e] / all - mean);
        }
    }
}

/* One token: its term, before the factor BY, and its gradient. */
static float balance_row(const float *z, const float *counts, float all, bool sigmoid, i64 n, float by,
                         float *restrict p, float *restrict dz)
{
    float sum = 0, mean = 0;
    if (sigmoid)
#pragma omp simd
        for (i64 e = 0; e < n; e++) p[e] = vec_sigmoid(z[e]);
    else
        moe_softmax(z, n, p);
    for (i64 e = 0; e < n; e++) sum += p[e], mean += counts[e] / all * p[e];
    mean /= sum;
    for (i64 e = 0; e < n; e++) dz[e] = by * p[e] / sum * (sigmoid ? 1 - p[e] : 1) * (counts[e] / all - mean);
    return mean;
}

static void balance_cpu(const op_call *c)
{
    i64 n = c->in[BALANCE_Z].n;
    const float *counts = c->in[BALANCE_COUNTS].p;
    const i32 *target = c->in[BALANCE_TARGETS].p;
    bool sigmoid = attr(c->node, "router") == MOE_SIGMOID;
    double all = 0, by = attr(c->node, "weight") * (double)*(const float *)c->in[BALANCE_INV_N].p * (double)n;
    float *term = (float *)call_scratch(c);
    for (i64 e = 0; e < n; e++) all += (double)counts[e];
#pragma omp parallel for schedule(static)
    for (i64 t = 0; t < c->in[BALANCE_Z].rows; t++) {
        float *dz = row_out(c, 1, t);
        memset(dz, 0, (size_t)n * sizeof *dz);
        term[t] = 0;
        if (target[t] >= 0 && all > 0)
            term[t] = balance_row(row_in(c, BALANCE_Z, t), counts, (float)all, sigmoid, n, (float)by,
                                  row_room(c), dz);
    }
    finish(c, by);
}

static op_cost balance_cost(const node *op)
{
    return (op_cost){16.0 * (double)count(op->in[0]), traffic(op)};
}

static const op_case balance_cases[] = {
    {"softmax", "z=2x17x8 counts=8 targets=34 inv_n=1 weight=0.01 fill.targets=targets:9 f32"},
    {"sigmoid", "z=33x8 counts=8 targets=33 inv_n=1 router=2 weight=0.01 fill.targets=targets:9 f32"},
    {"one expert", "z=5x1 counts=1 targets=5 inv_n=1 fill.targets=targets:9 f32 grad=0"},
    {"no token yet", "z=5x4 counts=4 targets=5 inv_n=1 fill.targets=targets:9 fill.counts=zero f32"},
    {"no target", "z=5x4 counts=4 targets=5 inv_n=1 fill.targets=targets:0 f32 grad=0"},
    {"many", "z=9x130 counts=130 targets=9 inv_n=1 fill.targets=targets:9 f32"},
    {0},
};

#define EXAMPLE ((const double[]){2, 1, 0, 0, 1, .5, 1, -1, 0, .2, .1, .3})
/* The worked example: counts (3, 2, 3), loss 1.017952, gradient of token 0 (.015263, -.017328, .002066). */
static double balance_worked(law *l)
{
    memcpy(law_in(l, "z"), EXAMPLE, sizeof(double) * 12);
    memcpy(law_in(l, "counts"), (const double[]){3, 2, 3}, sizeof(double) * 3);
    *law_in(l, "inv_n") = 0.25;
    double worst = fabs(*law_run(l, 0) - 1.017952);
    const double *dz = law_run(l, 1), want[] = {.015263, -.017328, .002066};
    for (int e = 0; e < 3; e++) worst = fmax(worst, fabs(dz[e] - want[e]));
    return worst;
}
/* Even counts: exactly weight x tokens x inv_n, whatever the scores. */
static double balance_even(law *l)
{
    for (int e = 0; e < 8; e++) law_in(l, "counts")[e] = 5;
    *law_in(l, "inv_n") = 1 / 9.0;
    return fabs(*law_run(l, 0) - 1);
}
static const op_law balance_laws[] = {
    {"worked values", "z=4x3 counts=3 targets=4 inv_n=1 fill.targets=zero", balance_worked, 1e-6},
    {"even", "z=9x8 counts=8 targets=9 inv_n=1 fill.targets=zero", balance_even, 1e-12},
    {"even, sigmoid", "z=9x8 counts=8 targets=9 inv_n=1 router=2 fill.targets=zero", balance_even, 1e-12},
    {0}};

OP_DEF(moe_balance) = {
    .name = "moe_balance",
    .brief = "loss = weight inv_n E sum_t sum_e f[e] p[t, e], f = counts / sum counts, and its gradient",
    .source = "arXiv:1701.06538, arXiv:2101.03961; global f: arXiv:2501.11873",
    .in = {{"z", "[rows, experts]", ARG_F32},
           {"counts", "[experts]", ARG_F32, .fixed = true, .fill = "positive"},
           {"targets", "[rows]", ARG_I32, .range = "any"},
           {"inv_n", "[1]", ARG_F32, .fixed = true, .fill = "positive"}},
    .out = {{"loss", "[1]", ARG_F32}, {"dz", "[rows, experts]", ARG_F32}},
    .attrs = {{"weight", 1, 0, 1e6, "of this loss in the whole"}, MOE_ROUTER_ATTR},
    .flags = OP_LOSS,
    .infer = balance_infer,
    .vjp = vjp,
    .reference = balance_reference,
    .cpu = balance_cpu,
    .prepare = prepare,
    .cost = balance_cost,
    .cases = balance_cases,
    .laws = balance_laws,
};

/* ---- z */
static status z_infer(op_build *b) { return losses_infer(b, b->n->in[Z_Z], b->n->in[Z_TARGETS]); }

static void z_reference(const op_call64 *c)
{
    i64 n = cols(c->node->in[Z_Z]), rows = rows_of(c->node->in[Z_Z]);
    double by = attr(c->node, "weight") * *c->in[Z_INV_N];
    *c->out[0] = 0;
    for (i64 t = 0; t < rows; t++) {
        const double *z = c->in[Z_Z] + t * n;
        double lse = moe_softmax64(z, n, c->out[1] + t * n), counted = c->in[Z_TARGETS][t] >= 0 ? by : 0;
        *c->out[0] += counted * lse * lse;
        for (i64 e = 0; e < n; e++) c->out[1][t * n + e] *= 2 * counted * lse;
    }
}

static void z_cpu(const op_call *c)
{
    i64 n = c->in[Z_Z].n;
    const i32 *target = c->in[Z_TARGETS].p;
    double by = attr(c->node, "weight") * (double)*(const float *)c->in[Z_INV_N].p;
    float *term = (float *)call_scratch(c);
#pragma omp parallel for schedule(static)
    for (i64 t = 0; t < c->in[Z_Z].rows; t++) {
        float *dz = row_out(c, 1, t), lse = moe_softmax(row_in(c, Z_Z, t), n, dz);
        float slope = target[t] >= 0 ? 2 * (float)by * lse : 0;
        term[t] = target[t] >= 0 ? lse * lse : 0;
        for (i64 e = 0; e < n; e++) dz[e] *= slope;
    }
    finish(c, by);
}

static op_cost z_cost(const node *op) { return (op_cost){10.0 * (double)count(op->in[0]), traffic(op)}; }

static const op_case z_cases[] = {
    {"typical", "z=2x17x8 targets=34 inv_n=1 weight=0.001 fill.targets=targets:9 f32"},
    {"one expert", "z=5x1 targets=5 inv_n=1 fill.targets=targets:9 f32"},
    {"no target", "z=5x4 targets=5 inv_n=1 fill.targets=targets:0 f32 grad=0"},
    {"many", "z=9x130 targets=9 inv_n=1 fill.targets=targets:9 f32"},
    {0},
};

/* The worked example: 3.074071, gradient of token 0 (.800819, .294605, .108379). */
static double z_worked(law *l)
{
    memcpy(law_in(l, "z"), EXAMPLE, sizeof(double) * 12);
    *law_in(l, "inv_n") = 0.25;
    double worst = fabs(*law_run(l, 0) - 3.074071);
    const double *dz = law_run(l, 1), want[] = {.800819, .294605, .108379};
    for (int e = 0; e < 3; e++) worst = fmax(worst, fabs(dz[e] - want[e]));
    return worst;
}
static const op_law z_laws[] = {
    {"worked values", "z=4x3 targets=4 inv_n=1 fill.targets=zero", z_worked, 1e-6}, {0}};

OP_DEF(moe_z_loss) = {
    .name = "moe_z_loss",
    .brief = "loss = weight inv_n sum_t lse[t]^2, lse = log sum_e exp z[t, e], and its gradient",
    .source = "ST-MoE, arXiv:2202.08906",
    .in = {{"z", "[rows, experts]", ARG_F32},
           {"targets", "[rows]", ARG_I32, .range = "any"},
           {"inv_n", "[1]", ARG_F32, .fixed = true, .fill = "positive"}},
    .out = {{"loss", "[1]", ARG_F32}, {"dz", "[rows, experts]", ARG_F32}},
    .attrs = {{"weight", 1, 0, 1e6, "of this loss in the whole"}},
    .flags = OP_LOSS,
    .infer = z_infer,
    .vjp = vjp,
    .reference = z_reference,
    .cpu = z_cpu,
    .prepare = prepare,
    .cost = z_cost,
    .cases = z_cases,
    .laws = z_laws,
};

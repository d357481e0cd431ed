/* expert_gain: rows sorted by expert, each times its expert's gain.
 *
 *   y[r] = gain[e] x[r]  for offsets[e] <= r < offsets[e + 1];  0 for rows of no expert   x, y [rows, n],
 * gain [E, n] dx[r] = gain[e] dy[r],   dgain[e] = sum over e's rows of dy x
 *
 * After a norm without a gain it makes the norms of a mixture of experts: one gain an expert, before the
 * routing weight (after it, the norm would take the weight out again).
 *
 * Source:   the mixture of experts of SDD, arXiv:2502.15499; there the product goes through a matrix of ones
 * and is divided by the number of experts, which scales it by width/E: here the gain is the gain. Numerics:
 * f32, rounded once; an expert's sum is taken by one thread, in the order of its rows.
 */
#include "ops/norm_ops.h"
#include <math.h>

/* Rows [first, last) of expert E, within the tensor whatever the offsets say. */
static void rows_of_expert(const i32 *offsets, i64 e, i64 rows, i64 *first, i64 *last)
{
    *first = MIN(MAX(offsets[e], 0), rows);
    *last = MAX(*first, MIN(offsets[e + 1], rows));
}

static status checked(op_build *b, const tensor *offsets)
{
    const tensor *x = b->n->in[0], *gain = b->n->in[1];
    TRY(need(b, gain->ndim == 2 && cols(gain) == cols(x), "gain must be [E, %lld]", (long long)cols(x)));
    return need(b, count(offsets) == gain->dim[0] + 1, "%lld experts need %lld offsets",
                (long long)gain->dim[0], (long long)gain->dim[0] + 1);
}
static status infer(op_build *b)
{
    TRY(checked(b, b->n->in[2]));
    return out_like(b, 0, b->n->in[0]);
}

static void vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    node *d = g_node_from(g, OP_expert_gain_grad, IN(op->in[0], op->in[1], op->in[2], dout[0]), op);
    din[0] = g_out(d, 0);
    din[1] = g_out(d, 1);
}

static void reference(const op_call64 *c)
{
    i64 n = cols(c->node->in[0]), rows = rows_of(c->node->in[0]), experts = c->node->in[1]->dim[0];
    memset(c->out[0], 0, sizeof(double) * (size_t)(rows * n));
    for (i64 r = 0; r < rows; r++)
        for (i64 e = 0; e < experts; e++)
            for (i64 j = 0; j < n && c->in[2][e] <= (double)r && (double)r < c->in[2][e + 1]; j++)
                c->out[0][r * n + j] = c->in[1][e * n + j] * c->in[0][r * n + j];
}

static void zero_row(const op_call *c, i64 r)
{
    float *y = row_out(c, 0, r);
    memset(y, 0, (size_t)c->out[0].n * sizeof *y);
    row_done(c, 0, r, y);
}

static void cpu(const op_call *c)
{
    i64 n = c->in[0].n, rows = c->in[0].rows, experts = c->in[1].rows, end = 0;
    const i32 *offsets = c->in[2].p;
#pragma omp parallel for schedule(dynamic)
    for (i64 e = 0; e < experts; e++) {
        const float *restrict gain = (const float *)c->in[1].p + e * c->in[1].stride;
        i64 first, last;
        rows_of_expert(offsets, e, rows, &first, &last);
        for (i64 r = first; r < last; r++) {
            const float *restrict x = row_in(c, 0, r);
            float *restrict y = row_out(c, 0, r);
#pragma omp simd
            for (i64 j = 0; j < n; j++) y[j] = gain[j] * x[j];
            row_done(c, 0, r, y);
        }
    }
    for (i64 e = 0, first, last; e < experts; e++, end = MAX(end, last))
        rows_of_expert(offsets, e, rows, &first, &last);
    for (i64 r = end; r < rows; r++) zero_row(c, r);
}

static op_cost cost(const node *op) { return (op_cost){(double)count(op->in[0]), traffic(op)}; }

static const op_case cases[] = {
    {"typical", "x=33x129 gain=8x129 offsets=9 fill.offsets=iota f32 bf16"},
    {"one expert", "x=9x64 gain=1x64 offsets=2 fill.offsets=iota f32 bf16"},
    {"rows of no expert", "x=9x5 gain=3x5 offsets=4 fill.offsets=zero f32 bf16 tol=0 grad=0"},
    {"exact", "x=9x66 gain=6x66 offsets=7 fill=ints fill.offsets=iota f32 bf16 tol=0"},
    {0},
};
/* Experts of 2, 0 and 3 rows, and one row of none. */
static double worked(law *l)
{
    double worst = 0, *x = law_in(l, "x"), *gain = law_in(l, "gain");
    memcpy(law_in(l, "offsets"), (const double[]){0, 2, 2, 5}, 4 * sizeof(double));
    for (int r = 0; r < 6; r++) x[r] = r + 1;
    for (int e = 0; e < 3; e++) gain[e] = pow(10, e);
    const double *y = law_run(l, 0), want[] = {1, 2, 300, 400, 500, 0};
    for (int r = 0; r < 6; r++) worst = fmax(worst, fabs(y[r] - want[r]));
    return worst;
}
static const op_law laws[] = {{"worked values", "x=6x1 gain=3x1 offsets=4 fill.offsets=zero", worked, 0},
                              {0}};

OP_DEF(expert_gain) = {
    .name = "expert_gain",
    .brief = "y[r] = gain[e] x[r], offsets[e] <= r < offsets[e + 1]",
    .source = "SDD, arXiv:2502.15499",
    .in = {{"x", "[rows, n]"},
           {"gain", "[E, n]", ARG_F32, .fill = "around1"},
           {"offsets", "[E + 1]", ARG_I32, .range = "any"}},
    .out = {{"y", "[rows, n]"}},
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
    TRY(checked(b, b->n->in[2]));
    TRY(need(b, same_shape(b->n->in[0], b->n->in[3]), "dy must have the shape of x"));
    TRY(out_like(b, 0, b->n->in[0]));
    return out_shape(b, 1, DT_F32, 2, b->n->in[1]->dim);
}

static void grad_reference(const op_call64 *c)
{
    i64 n = cols(c->node->in[0]), rows = rows_of(c->node->in[0]), experts = c->node->in[1]->dim[0];
    memset(c->out[0], 0, sizeof(double) * (size_t)(rows * n));
    memset(c->out[1], 0, sizeof(double) * (size_t)(experts * n));
    for (i64 r = 0; r < rows; r++)
        for (i64 e = 0; e < experts; e++)
            for (i64 j = 0; j < n && c->in[2][e] <= (double)r && (double)r < c->in[2][e + 1]; j++) {
                c->out[0][r * n + j] = c->in[1][e * n + j] * c->in[3][r * n + j];
                c->out[1][e * n + j] += c->in[3][r * n + j] * c->in[0][r * n + j];
            }
}

static void grad_cpu(const op_call *c)
{
    i64 n = c->in[0].n, rows = c->in[0].rows, experts = c->in[1].rows, end = 0;
    const i32 *offsets = c->in[2].p;
#pragma omp parallel for schedule(dynamic)
    for (i64 e = 0; e < experts; e++) {
        const float *restrict gain = (const float *)c->in[1].p + e * c->in[1].stride;
        float *restrict dgain = (float *)c->out[1].p + e * c->out[1].stride;
        i64 first, last;
        rows_of_expert(offsets, e, rows, &first, &last);
        if (!accumulates(c, 1)) memset(dgain, 0, (size_t)n * sizeof *dgain);
        for (i64 r = first; r < last; r++) {
            const float *restrict x = row_in(c, 0, r), *restrict dy = row_in(c, 3, r);
            float *restrict dx = row_out(c, 0, r);
#pragma omp simd
            for (i64 j = 0; j < n; j++) {
                dgain[j] += dy[j] * x[j];
                dx[j] = gain[j] * dy[j];
            }
            row_done(c, 0, r, dx);
        }
    }
    for (i64 e = 0, first, last; e < experts; e++, end = MAX(end, last))
        rows_of_expert(offsets, e, rows, &first, &last);
    for (i64 r = end; r < rows; r++) zero_row(c, r);
}

static op_cost grad_cost(const node *op) { return (op_cost){3.0 * (double)count(op->in[0]), traffic(op)}; }

static const op_case grad_cases[] = {
    {"typical", "x=33x129 gain=8x129 offsets=9 dy=33x129 fill.offsets=iota f32 bf16"},
    {"one expert", "x=9x64 gain=1x64 offsets=2 dy=9x64 fill.offsets=iota f32 bf16"},
    {"rows of no expert", "x=9x5 gain=3x5 offsets=4 dy=9x5 fill.offsets=zero f32 bf16 tol=0"},
    {0},
};

OP_DEF(expert_gain_grad) = {
    .name = "expert_gain_grad",
    .brief = "dx[r] = gain[e] dy[r], dgain[e] = sum over e's rows of dy x",
    .in = {{"x", "[rows, n]"},
           {"gain", "[E, n]", ARG_F32, .fill = "around1"},
           {"offsets", "[E + 1]", ARG_I32, .range = "any"},
           {"dy", "[rows, n]"}},
    .out = {{"dx", "[rows, n]"}, {"dgain", "[E, n]", ARG_F32}},
    .flags = OP_ACCUMULATES,
    .infer = grad_infer,
    .reference = grad_reference,
    .cpu = grad_cpu,
    .cost = grad_cost,
    .cases = grad_cases,
};

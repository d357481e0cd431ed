/* memory_match: scores of selected values, each times how its own pre-value fits the token (UltraMemV2).
 *
 *   g_a = <table[row_a], z>,  t^(c)_a = s^(c)_a g_a               a one-hidden-unit expert of each slot,
 * linear ds^(c)_a = dt^(c)_a g_a,  dg_a = sum_c dt^(c)_a s^(c)_a,  dz = sum_a dg_a table[row_a],  drow_a =
 * dg_a z
 *
 *   table [V, n]; index [tokens, k]; s, t [tokens, k cores], the cores of a selection side by side; z
 * [tokens, n]
 *
 * Row of an address: ops/memory_place.h. The gradient of the table stays a list of rows: ids [tokens k] (-1:
 * no such address, g = 0), rows [tokens k, n].
 *
 * Source:   UltraMemV2, arXiv:2508.18756, from the paper's equations; no activation: on either factor it
 * hurt. Numerics: sums in f32; rows of the gradient in f32.
 */
#include "ops/memory_place.h"
#include <string.h>

enum { TABLE, INDEX, S, Z, DT };

typedef struct shape {
    i64 tokens, k, cores, n;
    placing at;
} shape;

static shape shape_of(const node *op)
{
    const tensor *table = op->in[TABLE], *index = op->in[INDEX];
    shape s = {.tokens = rows_of(index), .k = cols(index), .n = cols(table), .at = placing_of(op, table)};
    s.cores = cols(op->in[S]) / s.k;
    return s;
}

static status check(op_build *b)
{
    const tensor *table = b->n->in[TABLE], *index = b->n->in[INDEX], *s = b->n->in[S], *z = b->n->in[Z];
    TRY(place_need(b, table));
    TRY(need(b, rows_of(s) == rows_of(index) && cols(s) % cols(index) == 0 && s->dtype == DT_F32,
             "s must be f32, [%lld, %lld x cores]", (long long)rows_of(index), (long long)cols(index)));
    return need(b, rows_of(z) == rows_of(index) && cols(z) == cols(table), "z must be [%lld, %lld]",
                (long long)rows_of(index), (long long)cols(table));
}

static status infer(op_build *b)
{
    TRY(check(b));
    return out_like(b, 0, b->n->in[S]);
}

static void vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    node *d = g_node_from(g, OP_memory_match_grad,
                          IN(op->in[TABLE], op->in[INDEX], op->in[S], op->in[Z], dout[0]), op);
    din[S] = g_out(d, 2);
    din[Z] = g_out(d, 3);
    din[TABLE] =
        g_out(g_node(g, OP_embedding_grad, IN(g_out(d, 0), g_out(d, 1), op->in[TABLE]), NO_ATTRS), 0);
}

static double fit64(const op_call64 *c, const shape *s, i64 a, i64 row)
{
    double sum = 0;
    for (i64 j = 0; j < s->n && row >= 0; j++)
        sum += c->in[TABLE][row * s->n + j] * c->in[Z][a / s->k * s->n + j];
    return sum;
}

static void reference(const op_call64 *c)
{
    shape s = shape_of(c->node);
    for (i64 a = 0; a < s.tokens * s.k; a++) {
        double g = fit64(c, &s, a, place_of(&s.at, (i64)c->in[INDEX][a]).row);
        for (i64 e = a * s.cores; e < (a + 1) * s.cores; e++) c->out[0][e] = c->in[S][e] * g;
    }
}

/* Row of the table as f32 in TO. */
static void read_row(const view *table, i64 row, float *to)
{
    if (table->dtype == DT_BF16)
        widen(to, (const bf16 *)table->p + row * table->stride, table->n);
    else
        memcpy(to, (const float *)table->p + row * table->stride, (size_t)table->n * sizeof *to);
}

static float dot(const float *restrict x, const float *restrict y, i64 n)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (i64 j = 0; j < n; j++) sum += x[j] * y[j];
    return sum;
}

/* Of a thread: the rows of a token's selection, then their numbers. */
static size_t workspace_bytes(const shape *s)
{
    return (size_t)(round_up(s->n, 16) * 4 + round_up(s->k * (i64)sizeof(i64), 64));
}
static status prepare(op_call *c)
{
    shape s = shape_of(c->node);
    return want_scratch(c, (size_t)c->threads * workspace_bytes(&s));
}

/* The numbers of a token's rows; they are asked for at once, since each is a miss. */
static i64 *find(const op_call *c, const shape *s, i64 token, float **row)
{
    char *own = call_scratch(c) + (size_t)thread_index() * workspace_bytes(s);
    const i32 *index = (const i32 *)c->in[INDEX].p + token * c->in[INDEX].stride;
    const view *table = &c->in[TABLE];
    i64 *at = (i64 *)(own + round_up(s->n, 16) * 4), bytes = dtype_bytes(table->dtype);
    *row = (float *)own;
    for (i64 a = 0; a < s->k; a++) {
        at[a] = place_of(&s->at, index[a]).row;
        const char *from = (const char *)table->p + MAX(at[a], 0) * table->stride * bytes;
        for (i64 byte = 0; byte < s->n * bytes; byte += 64) __builtin_prefetch(from + byte);
    }
    return at;
}

static void cpu(const op_call *c)
{
    shape s = shape_of(c->node);
#pragma omp parallel for schedule(static)
    for (i64 token = 0; token < s.tokens; token++) {
        float *row, *t = (float *)c->out[0].p + token * c->out[0].stride;
        const float *z = row_in(c, Z, token), *score = (const float *)c->in[S].p + token * c->in[S].stride;
        const i64 *at = find(c, &s, token, &row);
        for (i64 a = 0; a < s.k; a++) {
            float g = 0;
            if (at[a] >= 0) {
                read_row(&c->in[TABLE], at[a], row);
                g = dot(row, z, s.n);
            }
            for (i64 e = a * s.cores; e < (a + 1) * s.cores; e++) t[e] = score[e] * g;
        }
    }
}

static op_cost cost(const node *op)
{
    shape s = shape_of(op);
    double values = (double)(s.tokens * s.k * s.n);
    return (op_cost){2 * values, values * (double)dtype_bytes(op->in[TABLE]->dtype) +
                                     (double)count(op->in[Z]) * (double)dtype_bytes(op->in[Z]->dtype)};
}

static const op_case cases[] = {
    {"typical", "table=64x24 index=3x5x10 s=3x5x20 z=3x5x24 keys=16 expansion=4 shuffle=3 "
                "fill.index=below:256 f32 bf16"},
    {"plain", "table=49x17 index=9x4 s=9x4 z=9x17 keys=7 fill.index=below:49 f32 bf16"},
    {"a ring", "table=81x16 index=7x5 s=7x15 z=7x16 keys=8 shuffle=2 shift=70 fill.index=below:64 f32 bf16"},
    {"one of one", "table=1x1 index=2x1 s=2x1 z=2x1 fill.index=zero f32 bf16"},
    {"out of range", "table=9x8 index=4x5 s=4x5 z=4x8 keys=3 fill.index=targets:14 f32 bf16"},
    {"exact", "table=16x20 index=6x5 s=6x10 z=6x20 keys=4 fill=ints fill.index=below:16 f32 bf16 tol=0"},
    {0},
};

OP_DEF(memory_match) = {
    .name = "memory_match",
    .brief = "t_a = s_a <table[row(index_a)], z>",
    .source = "UltraMemV2, arXiv:2508.18756",
    .in = {{"table", "[V, n]", ARG_WEIGHT},
           {"index", "[tokens, k]", ARG_I32, .range = "any"},
           {"s", "[tokens, k cores]", ARG_F32},
           {"z", "[tokens, n]"}},
    .out = {{"t", "[tokens, k cores]"}},
    .attrs = {PLACE_ATTRS},
    .infer = infer,
    .vjp = vjp,
    .reference = reference,
    .cpu = cpu,
    .prepare = prepare,
    .cost = cost,
    .cases = cases,
};

/* ---- the gradient */
static status grad_infer(op_build *b)
{
    TRY(check(b));
    i64 k = count(b->n->in[INDEX]);
    TRY(need(b, same_shape(b->n->in[DT], b->n->in[S]), "dt must have the shape of s"));
    TRY(out_shape(b, 0, DT_I32, 1, &k));
    TRY(out_shape(b, 1, DT_F32, 2, (i64[]){k, cols(b->n->in[TABLE])}));
    TRY(out_like(b, 2, b->n->in[S]));
    return out_like(b, 3, b->n->in[Z]);
}

static void grad_reference(const op_call64 *c)
{
    shape s = shape_of(c->node);
    memset(c->out[3], 0, sizeof(double) * (size_t)count(c->node->in[Z]));
    for (i64 a = 0; a < s.tokens * s.k; a++) {
        i64 row = place_of(&s.at, (i64)c->in[INDEX][a]).row;
        double g = fit64(c, &s, a, row), dg = 0;
        const double *z = c->in[Z] + a / s.k * s.n;
        for (i64 e = a * s.cores; e < (a + 1) * s.cores; e++) {
            c->out[2][e] = c->in[DT][e] * g;
            dg += row >= 0 ? c->in[DT][e] * c->in[S][e] : 0;
        }
        c->out[0][a] = (double)row;
        for (i64 j = 0; j < s.n; j++) {
            c->out[1][a * s.n + j] = dg * z[j];
            c->out[3][a / s.k * s.n + j] += row >= 0 ? dg * c->in[TABLE][row * s.n + j] : 0;
        }
    }
}

static void grad_cpu(const op_call *c)
{
    shape s = shape_of(c->node);
#pragma omp parallel for schedule(static)
    for (i64 token = 0; token < s.tokens; token++) {
        float *row, *dz = row_out(c, 3, token), *ds = (float *)c->out[2].p + token * c->out[2].stride;
        const float *z = row_in(c, Z, token), *score = (const float *)c->in[S].p + token * c->in[S].stride;
        const float *dt = (const float *)c->in[DT].p + token * c->in[DT].stride;
        const i64 *at = find(c, &s, token, &row);
        memset(dz, 0, sizeof *dz * (size_t)s.n);
        for (i64 a = 0; a < s.k; a++) {
            float *drow = (float *)c->out[1].p + (token * s.k + a) * c->out[1].stride, g = 0, dg = 0;
            ((i32 *)c->out[0].p)[token * s.k + a] = (i32)at[a];
            if (at[a] >= 0) {
                read_row(&c->in[TABLE], at[a], row);
                g = dot(row, z, s.n);
                for (i64 e = a * s.cores; e < (a + 1) * s.cores; e++) dg += dt[e] * score[e];
#pragma omp simd
                for (i64 j = 0; j < s.n; j++) dz[j] += dg * row[j];
            }
#pragma omp simd
            for (i64 j = 0; j < s.n; j++) drow[j] = dg * z[j];
            for (i64 e = a * s.cores; e < (a + 1) * s.cores; e++) ds[e] = dt[e] * g;
        }
        row_done(c, 3, token, dz);
    }
}

static const op_case grad_cases[] = {
    {"typical", "table=64x24 index=3x5x10 s=3x5x20 z=3x5x24 dt=3x5x20 keys=16 expansion=4 shuffle=3 "
                "fill.index=below:256 f32 bf16"},
    {"a ring",
     "table=81x16 index=7x5 s=7x15 z=7x16 dt=7x15 keys=8 shuffle=2 shift=70 fill.index=below:64 f32 bf16"},
    {"out of range", "table=9x8 index=4x5 s=4x5 z=4x8 dt=4x5 keys=3 fill.index=targets:14 f32 bf16"},
    {0},
};

OP_DEF(memory_match_grad) = {
    .name = "memory_match_grad",
    .brief = "ids and rows of the table's gradient, a selection each; ds = dt <row, z>; dz",
    .source = "UltraMemV2, arXiv:2508.18756",
    .in = {{"table", "[V, n]", ARG_WEIGHT},
           {"index", "[tokens, k]", ARG_I32, .range = "any"},
           {"s", "[tokens, k cores]", ARG_F32},
           {"z", "[tokens, n]"},
           {"dt", "[tokens, k cores]", ARG_F32}},
    .out = {{"ids", "[tokens k]", ARG_I32},
            {"rows", "[tokens k, n]"},
            {"ds", "[tokens, k cores]"},
            {"dz", "[tokens, n]"}},
    .attrs = {PLACE_ATTRS},
    .infer = grad_infer,
    .reference = grad_reference,
    .cpu = grad_cpu,
    .prepare = prepare,
    .cases = grad_cases,
};

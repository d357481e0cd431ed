/* memory_read: weighted sums of rows of a table of values, at addresses that a search of keys selected.
 *
 *   y_p (part c) = sum over selected a with group p of s^(c)_a table[row_a] (part c)       y = [y_0, ..,
 * y_{E-1}] ds^(c)_a = <dy_p (part c), table[row_a] (part c)>,  drow_a (part c) = s^(c)_a dy_p (part c)
 *
 *   table [V, n], cut into `cores` equal parts; index [tokens, k]; s [tokens, k cores], the cores of a
 *   selection side by side; y [tokens, E n], or [tokens, n], all groups added (sum = 1)
 *
 * Row and group of an address: ops/memory_place.h (implicit value expansion: with W = [W_0; ..; W_{E-1}],
 * y W is the sum over E virtual tables table W_p, which are never made). The gradient of the table stays a
 * list of rows: ids [tokens k] (-1: no such address, read as zeros), rows [tokens k, n].
 *
 * Source:   UltraMem, arXiv:2411.12364 (IVE, MCS); with one group and one core, product-key memory.
 * Numerics: sums in f32, in the order of the selection; rows of the gradient in f32.
 */
#include "ops/memory_place.h"
#include <math.h>
#include <string.h>

enum { TABLE, INDEX, S, DY };

typedef struct shape {
    i64 tokens, k, cores, n, part, groups;
    placing at;
} shape;

static shape shape_of(const node *op)
{
    const tensor *table = op->in[TABLE], *index = op->in[INDEX];
    shape s = {.tokens = rows_of(index), .k = cols(index), .n = cols(table), .at = placing_of(op, table)};
    s.cores = cols(op->in[S]) / s.k;
    s.part = s.n / s.cores;
    s.groups = attr(op, "sum") != 0 ? 1 : (i64)attr(op, "expansion");
    return s;
}

static status check(op_build *b)
{
    const tensor *table = b->n->in[TABLE], *index = b->n->in[INDEX], *s = b->n->in[S];
    TRY(place_need(b, table));
    TRY(need(b, rows_of(s) == rows_of(index) && cols(s) % cols(index) == 0 && s->dtype == DT_F32,
             "s must be f32, [%lld, %lld x cores]", (long long)rows_of(index), (long long)cols(index)));
    return need(b, cols(table) % (cols(s) / cols(index)) == 0, "rows of %lld do not divide into %lld parts",
                (long long)cols(table), (long long)(cols(s) / cols(index)));
}

static status infer(op_build *b)
{
    TRY(check(b));
    shape s = shape_of(b->n);
    const tensor *index = b->n->in[INDEX];
    i64 dim[MAX_DIMS];
    memcpy(dim, index->dim, sizeof dim);
    dim[index->ndim - 1] = s.groups * s.n;
    return out_shape(b, 0, b->g->options.act, index->ndim, dim);
}

static void vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    node *d = g_node_from(g, OP_memory_read_grad, IN(op->in[TABLE], op->in[INDEX], op->in[S], dout[0]), op);
    din[S] = g_out(d, 2);
    din[TABLE] =
        g_out(g_node(g, OP_embedding_grad, IN(g_out(d, 0), g_out(d, 1), op->in[TABLE]), NO_ATTRS), 0);
}

static void reference(const op_call64 *c)
{
    shape s = shape_of(c->node);
    memset(c->out[0], 0, sizeof(double) * (size_t)count(c->node->out[0]));
    for (i64 a = 0; a < s.tokens * s.k; a++) {
        value_place p = place_of(&s.at, (i64)c->in[INDEX][a]);
        double *y = c->out[0] + (a / s.k * s.groups + (s.groups > 1 ? p.group : 0)) * s.n;
        for (i64 j = 0; j < s.n && p.row >= 0; j++)
            y[j] += c->in[S][a * s.cores + j / s.part] * c->in[TABLE][p.row * s.n + j];
    }
}

static void add_scaled(float *restrict y, const float *restrict x, float by, i64 n)
{
#pragma omp simd
    for (i64 j = 0; j < n; j++) y[j] += by * x[j];
}
static void add_scaled_bf16(float *restrict y, const bf16 *restrict x, float by, i64 n)
{
#pragma omp simd
    for (i64 j = 0; j < n; j++) y[j] += by * bf16_to_f32(x[j]);
}

/* The places of a token's selection; their rows are asked for at once, since each is a miss. */
static void find(const op_call *c, const shape *s, i64 token, value_place *to)
{
    const i32 *index = (const i32 *)c->in[INDEX].p + token * c->in[INDEX].stride;
    const view *table = &c->in[TABLE];
    for (i64 a = 0; a < s->k; a++) {
        to[a] = place_of(&s->at, index[a]);
        const char *row =
            (const char *)table->p + MAX(to[a].row, 0) * table->stride * dtype_bytes(table->dtype);
        for (i64 byte = 0; byte < s->n * dtype_bytes(table->dtype); byte += 64)
            __builtin_prefetch(row + byte);
    }
}

static size_t places_bytes(const shape *s) { return (size_t)round_up(s->k * (i64)sizeof(value_place), 64); }
static status prepare(op_call *c)
{
    shape s = shape_of(c->node);
    return want_scratch(c, (size_t)c->threads * places_bytes(&s));
}

static void cpu(const op_call *c)
{
    shape s = shape_of(c->node);
    const view *table = &c->in[TABLE];
#pragma omp parallel for schedule(static)
    for (i64 token = 0; token < s.tokens; token++) {
        value_place *at = (value_place *)(call_scratch(c) + (size_t)thread_index() * places_bytes(&s));
        const float *score = (const float *)c->in[S].p + token * c->in[S].stride;
        float *y = row_out(c, 0, token);
        find(c, &s, token, at);
        memset(y, 0, sizeof *y * (size_t)(s.groups * s.n));
        for (i64 a = 0; a < s.k * s.cores; a++) {
            value_place p = at[a / s.cores];
            if (p.row < 0) continue;
            i64 first = a % s.cores * s.part, from = p.row * table->stride + first;
            float *to = y + (s.groups > 1 ? p.group : 0) * s.n + first;
            if (table->dtype == DT_BF16)
                add_scaled_bf16(to, (const bf16 *)table->p + from, score[a], s.part);
            else
                add_scaled(to, (const float *)table->p + from, score[a], s.part);
        }
        row_done(c, 0, token, y);
    }
}

static op_cost cost(const node *op) // the table is read where it is looked up
{
    shape s = shape_of(op);
    double values = (double)(s.tokens * s.k * s.n), y = (double)count(op->out[0]);
    return (op_cost){2 * values, values * (double)dtype_bytes(op->in[TABLE]->dtype) +
                                     y * (double)dtype_bytes(op->out[0]->dtype) +
                                     (double)(s.tokens * s.k * (4 + 4 * s.cores))};
}

static const op_case cases[] = {
    {"typical",
     "table=64x24 index=3x5x10 s=3x5x20 keys=16 expansion=4 shuffle=3 fill.index=below:256 f32 bf16"},
    {"plain", "table=49x17 index=9x4 s=9x4 keys=7 fill.index=below:49 f32 bf16"},
    {"three cores", "table=36x33 index=5x6 s=5x18 keys=6 shuffle=1 fill.index=below:36 f32 bf16"},
    {"groups added",
     "table=64x24 index=7x10 s=7x20 keys=16 expansion=4 shuffle=3 sum=1 fill.index=below:256 f32 bf16"},
    {"a ring", "table=81x16 index=7x5 s=7x5 keys=8 shuffle=2 shift=70 fill.index=below:64 f32 bf16"},
    {"one of one", "table=1x1 index=2x1 s=2x1 fill.index=zero f32 bf16"},
    {"out of range", "table=9x8 index=4x5 s=4x5 keys=3 fill.index=targets:14 f32 bf16"},
    {"exact", "table=16x20 index=6x5 s=6x10 keys=4 fill=ints fill.index=below:16 f32 bf16 tol=0"},
    {"bench", "table=4096x128 index=2048x16 s=2048x32 keys=128 expansion=4 shuffle=1 fill.index=below:16384 "
              "bf16 bench"},
    {"bench, a million values", "table=1048576x128 index=2048x16 s=2048x32 keys=2048 expansion=4 shuffle=1 "
                                "fill.index=below:4194304 bf16 bench"},
    {0},
};

/* The sum over all groups is what the same op gives with sum = 1; here: permuting addresses loses nothing.
 * Every address read once with weight 1: each row is read once a group. */
static double every_address_once(law *l)
{
    enum { N = 16, W = 3, E = 4, KEYS = 8 };
    double worst = 0, sum[W] = {0}, *table = law_in(l, "table"), *s = law_in(l, "s");
    for (i64 i = 0; i < law_count(l, "s"); i++) s[i] = 1;
    for (i64 i = 0; i < N * W; i++) sum[i % W] += table[i];
    const double *y = law_run(l, 0);
    for (i64 j = 0; j < E * W; j++) worst = fmax(worst, fabs(y[j] - sum[j % W]));
    return worst;
}
/* Scores 0: y is 0. */
static double nothing(law *l)
{
    double worst = 0, *s = law_in(l, "s");
    for (i64 i = 0; i < law_count(l, "s"); i++) s[i] = 0;
    const double *y = law_run(l, 0);
    for (i64 i = 0; i < 2 * 4 * 3; i++) worst = fmax(worst, fabs(y[i]));
    return worst;
}
static const op_law laws[] = {
    {"each row once in each group",
     "table=16x3 index=1x64 s=1x64 keys=8 expansion=4 shuffle=5 fill.index=iota", every_address_once, 1e-14},
    {"scores of zero read nothing",
     "table=16x3 index=2x9 s=2x9 keys=8 expansion=4 shuffle=5 fill.index=below:64", nothing, 0},
    {0},
};

#define READ_ATTRS                                                                                           \
    {                                                                                                        \
        PLACE_ATTRS, { "sum", 0, 0, 1, "1: the groups are added" }                                           \
    }

OP_DEF(memory_read) = {
    .name = "memory_read",
    .brief = "y_p = sum of s_a table[row(index_a)] over the selected of group p, each core its part",
    .source = "UltraMem, arXiv:2411.12364",
    .in = {{"table", "[V, n]", ARG_WEIGHT},
           {"index", "[tokens, k]", ARG_I32, .range = "any"},
           {"s", "[tokens, k cores]", ARG_F32}},
    .out = {{"y", "[tokens, groups n]"}},
    .attrs = READ_ATTRS,
    .infer = infer,
    .vjp = vjp,
    .reference = reference,
    .cpu = cpu,
    .prepare = prepare,
    .cost = cost,
    .cases = cases,
    .laws = laws,
};

/* ---- the gradient */
static status grad_infer(op_build *b)
{
    TRY(check(b));
    shape s = shape_of(b->n);
    i64 k = s.tokens * s.k;
    TRY(need(b, rows_of(b->n->in[DY]) == s.tokens && cols(b->n->in[DY]) == s.groups * s.n,
             "dy must be [%lld, %lld]", (long long)s.tokens, (long long)(s.groups * s.n)));
    TRY(out_shape(b, 0, DT_I32, 1, &k));
    TRY(out_shape(b, 1, DT_F32, 2, (i64[]){k, s.n}));
    return out_like(b, 2, b->n->in[S]);
}

static void grad_reference(const op_call64 *c)
{
    shape s = shape_of(c->node);
    for (i64 a = 0; a < s.tokens * s.k; a++) {
        value_place p = place_of(&s.at, (i64)c->in[INDEX][a]);
        const double *dy = c->in[DY] + (a / s.k * s.groups + (s.groups > 1 ? p.group : 0)) * s.n;
        c->out[0][a] = (double)p.row;
        for (i64 e = 0; e < s.cores; e++) c->out[2][a * s.cores + e] = 0;
        for (i64 j = 0; j < s.n; j++) {
            double *ds = &c->out[2][a * s.cores + j / s.part];
            c->out[1][a * s.n + j] = p.row < 0 ? 0 : c->in[S][a * s.cores + j / s.part] * dy[j];
            *ds += p.row < 0 ? 0 : dy[j] * c->in[TABLE][p.row * s.n + j];
        }
    }
}

/* row = by dy; returns <dy, x>. */
static float grad_part(float *restrict row, const float *restrict dy, const view *table, i64 from, float by,
                       i64 n)
{
    float sum = 0;
    if (table->dtype == DT_BF16) {
        const bf16 *x = (const bf16 *)table->p + from;
#pragma omp simd reduction(+ : sum)
        for (i64 j = 0; j < n; j++) row[j] = by * dy[j], sum += dy[j] * bf16_to_f32(x[j]);
    } else {
        const float *x = (const float *)table->p + from;
#pragma omp simd reduction(+ : sum)
        for (i64 j = 0; j < n; j++) row[j] = by * dy[j], sum += dy[j] * x[j];
    }
    return sum;
}

static void grad_cpu(const op_call *c)
{
    shape s = shape_of(c->node);
#pragma omp parallel for schedule(static)
    for (i64 token = 0; token < s.tokens; token++) {
        value_place *at = (value_place *)(call_scratch(c) + (size_t)thread_index() * places_bytes(&s));
        const float *score = (const float *)c->in[S].p + token * c->in[S].stride, *dy = row_in(c, DY, token);
        float *ds = (float *)c->out[2].p + token * c->out[2].stride;
        i32 *id = (i32 *)c->out[0].p + token * s.k;
        find(c, &s, token, at);
        for (i64 a = 0; a < s.k; a++) {
            float *row = (float *)c->out[1].p + (token * s.k + a) * c->out[1].stride;
            const float *from = dy + (s.groups > 1 ? at[a].group : 0) * s.n;
            id[a] = (i32)at[a].row;
            if (at[a].row < 0) memset(row, 0, sizeof *row * (size_t)s.n);
            for (i64 e = 0; e < s.cores; e++)
                ds[a * s.cores + e] = at[a].row < 0
                                          ? 0
                                          : grad_part(row + e * s.part, from + e * s.part, &c->in[TABLE],
                                                      at[a].row * c->in[TABLE].stride + e * s.part,
                                                      score[a * s.cores + e], s.part);
        }
    }
}

static op_cost grad_cost(const node *op)
{
    shape s = shape_of(op);
    double values = (double)(s.tokens * s.k * s.n);
    return (op_cost){3 * values, values * (double)(dtype_bytes(op->in[TABLE]->dtype) + 4) +
                                     (double)count(op->in[DY]) * (double)dtype_bytes(op->in[DY]->dtype)};
}

static const op_case grad_cases[] = {
    {"typical", "table=64x24 index=3x5x10 s=3x5x20 dy=3x5x96 keys=16 expansion=4 shuffle=3 "
                "fill.index=below:256 f32 bf16"},
    {"groups added", "table=64x24 index=7x10 s=7x20 dy=7x24 keys=16 expansion=4 shuffle=3 sum=1 "
                     "fill.index=below:256 f32 bf16"},
    {"a ring", "table=81x16 index=7x5 s=7x5 dy=7x16 keys=8 shuffle=2 shift=70 fill.index=below:64 f32 bf16"},
    {"out of range", "table=9x8 index=4x5 s=4x5 dy=4x8 keys=3 fill.index=targets:14 f32 bf16"},
    {"bench", "table=4096x128 index=2048x16 s=2048x32 dy=2048x512 keys=128 expansion=4 shuffle=1 "
              "fill.index=below:16384 bf16 bench"},
    {0},
};

OP_DEF(memory_read_grad) = {
    .name = "memory_read_grad",
    .brief = "ids and rows of the table's gradient, a selection each; ds = <dy, row> by core",
    .source = "UltraMem, arXiv:2411.12364",
    .in = {{"table", "[V, n]", ARG_WEIGHT},
           {"index", "[tokens, k]", ARG_I32, .range = "any"},
           {"s", "[tokens, k cores]", ARG_F32},
           {"dy", "[tokens, groups n]"}},
    .out = {{"ids", "[tokens k]", ARG_I32}, {"rows", "[tokens k, n]"}, {"ds", "[tokens, k cores]"}},
    .attrs = READ_ATTRS,
    .infer = grad_infer,
    .reference = grad_reference,
    .cpu = grad_cpu,
    .prepare = prepare,
    .cost = grad_cost,
    .cases = grad_cases,
};

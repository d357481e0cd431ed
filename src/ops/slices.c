/* slices: several rows of one table a token, side by side: what one product turns into sum_a E_a[r_a] W_a.
 *
 *   slices        y[t] = [table[ids[t,0]], ..., table[ids[t,A-1]]]     table [R, s] f32, ids [..., A], y
 * [..., A s] slices_grad   dtable[r] = sum of the slices of dy whose id is r    dtable [R, s] f32
 *
 * The table is read as f32, however large: a step then touches the rows it looks up and nothing else (a bf16
 * copy would be a second table to keep). slices_grad is the dense form; for a parameter whose gradient may
 * stay rows autodiff keeps (ids, dy) instead. An id outside [0, R) reads zeros and adds nowhere. Numerics:
 * every row's sum is taken by one thread, in the order of the ids.
 */
#include "ops/op.h"
#include <math.h>
#include <string.h>

static inline i64 id_at(const view *ids, i64 k)
{
    return ((const i32 *)ids->p)[k / ids->n * ids->stride + k % ids->n];
}

/* ---- slices */
static status infer(op_build *b)
{
    const tensor *table = b->n->in[0], *ids = b->n->in[1];
    i64 dim[MAX_DIMS] = {0};
    TRY(need(b, table->ndim == 2, "the table must be [R, s]"));
    memcpy(dim, ids->dim, sizeof *dim * (size_t)ids->ndim);
    TRY(mul_i64(cols(ids), cols(table), &dim[ids->ndim - 1]));
    return out_shape(b, 0, b->g->options.act, ids->ndim, dim);
}

static void vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    din[0] = g_out(g_node(g, OP_slices_grad, IN(op->in[1], dout[0], op->in[0]), NO_ATTRS), 0);
}

static void reference(const op_call64 *c)
{
    i64 s = cols(c->node->in[0]), R = rows_of(c->node->in[0]);
    for (i64 k = 0; k < count(c->node->in[1]); k++)
        for (i64 j = 0; j < s; j++) {
            double id = c->in[1][k];
            c->out[0][k * s + j] = id >= 0 && id < (double)R ? c->in[0][(i64)id * s + j] : 0;
        }
}

static void cpu(const op_call *c)
{
    const view *table = &c->in[0], *ids = &c->in[1], *y = &c->out[0];
    i64 s = table->n;
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < y->rows; r++)
        for (i64 a = 0; a < ids->n; a++) {
            i64 id = id_at(ids, r * ids->n + a), at = r * y->stride + a * s;
            bool there = id >= 0 && id < table->rows;
            const float *from = (const float *)table->p + (there ? id : 0) * table->stride;
            if (!there)
                memset((char *)y->p + at * dtype_bytes(y->dtype), 0, (size_t)(s * dtype_bytes(y->dtype)));
            else if (y->dtype == DT_BF16)
                narrow((bf16 *)y->p + at, from, s);
            else
                memcpy((float *)y->p + at, from, (size_t)s * sizeof *from);
        }
}

static op_cost cost(const node *op) // the table is read where it is looked up
{
    const tensor *y = op->out[0];
    return (op_cost){0, (double)count(y) * (4.0 + (double)dtype_bytes(y->dtype)) +
                            4.0 * (double)count(op->in[1])};
}

static const op_case cases[] = {
    {"typical", "table=997x16 ids=3x33x4 fill.ids=below:997 f32 bf16"},
    {"one slice", "table=97x129 ids=4x33x1 fill.ids=below:97 f32 bf16"},
    {"repeated", "table=7x65 ids=64x3 fill.ids=below:5 f32 bf16"},
    {"one column", "table=9x1 ids=2x3x5 fill.ids=below:9 f32 bf16"},
    {"one of each", "table=1x1 ids=1 fill.ids=zero f32 bf16"},
    {"exact", "table=31x17 ids=4x9x2 fill.table=ints fill.ids=below:31 f32 bf16 tol=0"},
    {"out of range", "table=5x17 ids=4x9x2 fill.table=ints fill.ids=targets:8 f32 bf16 tol=0"},
    {"bench", "table=400000x144 ids=2x1024x4 fill.ids=below:400000 bf16 bench"},
    {0},
};
/* ids 0, 1, 2, ...: the table itself, wherever its rows are cut. */
static double is_the_table(law *l)
{
    double worst = 0, *table = law_in(l, "table");
    for (i64 k = 0; k < 16; k++) law_in(l, "ids")[k] = (double)k;
    const double *y = law_run(l, 0);
    for (i64 i = 0; i < law_count(l, "table"); i++) worst = fmax(worst, fabs(y[i] - table[i]));
    return worst;
}
static const op_law laws[] = {
    {"ids 0, 1, 2, ... give the table", "table=16x8 ids=4x4 fill.ids=zero", is_the_table, 0}, {0}};

OP_DEF(slices) = {
    .name = "slices",
    .brief = "y = the rows of the table at ids, side by side",
    .in = {{"table", "[R, s]", ARG_F32}, {"ids", "[..., A]", ARG_I32, .range = "any"}},
    .out = {{"y", "[..., A s]"}},
    .flags = OP_CHEAP,
    .infer = infer,
    .vjp = vjp,
    .reference = reference,
    .cpu = cpu,
    .cost = cost,
    .cases = cases,
    .laws = laws,
};

/* ---- slices_grad; the table comes in for its shape */
static status grad_infer(op_build *b)
{
    const tensor *ids = b->n->in[0], *dy = b->n->in[1], *table = b->n->in[2];
    i64 width;
    TRY(need(b, table->ndim == 2, "the table must be [R, s]"));
    TRY(mul_i64(cols(ids), cols(table), &width));
    TRY(need(b, cols(dy) == width && rows_of(dy) == rows_of(ids), "dy must have %lld rows of %lld",
             (long long)rows_of(ids), (long long)width));
    return out_shape(b, 0, DT_F32, 2, table->dim);
}

static void grad_reference(const op_call64 *c)
{
    i64 s = cols(c->node->in[2]), R = rows_of(c->node->in[2]);
    memset(c->out[0], 0, sizeof(double) * (size_t)(R * s));
    for (i64 k = 0; k < count(c->node->in[0]); k++) {
        i64 id = (i64)c->in[0][k];
        for (i64 j = 0; j < s && id >= 0 && id < R; j++) c->out[0][id * s + j] += c->in[1][k * s + j];
    }
}

static void add_f32(float *restrict to, const float *restrict x, i64 n)
{
#pragma omp simd
    for (i64 j = 0; j < n; j++) to[j] += x[j];
}
static void add_bf16(float *restrict to, const bf16 *restrict x, i64 n)
{
#pragma omp simd
    for (i64 j = 0; j < n; j++) to[j] += bf16_to_f32(x[j]);
}

/* Thread t takes the ids that are t modulo the number of threads: no two write one row. */
static void grad_cpu(const op_call *c)
{
    const view *ids = &c->in[0], *dy = &c->in[1], *d = &c->out[0];
#pragma omp parallel num_threads(c->threads)
    {
        i64 first, last, threads = omp_get_num_threads();
        part(d->rows, thread_index(), (int)threads, &first, &last);
        for (i64 r = first; r < last && !accumulates(c, 0); r++)
            memset((float *)d->p + r * d->stride, 0, (size_t)d->n * sizeof(float));
#pragma omp barrier
        for (i64 k = 0; k < dy->rows * ids->n; k++) {
            i64 id = id_at(ids, k), at = k / ids->n * dy->stride + k % ids->n * d->n;
            if (id < 0 || id >= d->rows || id % threads != thread_index()) continue;
            if (dy->dtype == DT_BF16)
                add_bf16((float *)d->p + id * d->stride, (const bf16 *)dy->p + at, d->n);
            else
                add_f32((float *)d->p + id * d->stride, (const float *)dy->p + at, d->n);
        }
    }
}

static op_cost grad_cost(const node *op) // adding; where it does not add, it zeroes the table first
{
    const tensor *dy = op->in[1];
    double bytes = (double)count(dy) * (double)(dtype_bytes(dy->dtype) + 8) + (double)count(op->in[0]) * 4;
    return (op_cost){(double)count(dy), bytes + (op->accumulate ? 0 : 4.0 * (double)count(op->out[0]))};
}

static const op_case grad_cases[] = {
    {"typical", "ids=3x33x4 dy=3x33x64 table=97x16 fill.ids=below:97 f32 bf16"},
    {"repeated", "ids=64x3 dy=64x99 table=7x33 fill.ids=below:3 f32 bf16"},
    {"one of each", "ids=1 dy=1 table=1x1 fill.ids=zero f32 bf16 tol=0"},
    {"out of range", "ids=4x9x2 dy=4x9x34 table=5x17 fill.ids=targets:8 fill.dy=ints f32 bf16 tol=0"},
    {"exact", "ids=2x25x2 dy=2x25x66 table=11x33 fill.ids=below:11 fill.dy=ints f32 bf16 tol=0"},
    {"bench", "ids=2x1024x4 dy=2x1024x576 table=50257x144 fill.ids=below:50257 bf16 bench"},
    {0},
};
static double keeps_the_sum(law *l)
{
    double sum = 0, *dy = law_in(l, "dy");
    const double *d = law_run(l, 0);
    for (i64 i = 0; i < law_count(l, "dy"); i++) sum += dy[i];
    for (i64 i = 0; i < law_count(l, "table"); i++) sum -= d[i];
    return fabs(sum);
}
static const op_law grad_laws[] = {
    {"nothing is lost", "ids=25x2 dy=25x16 table=9x8 fill.ids=below:9", keeps_the_sum, 1e-12}, {0}};

OP_DEF(slices_grad) = {
    .name = "slices_grad",
    .brief = "dtable[r] = sum of the slices of dy whose id is r",
    .in = {{"ids", "[..., A]", ARG_I32, .range = "any"}, {"dy", "[..., A s]"}, {"table", "[R, s]", ARG_F32}},
    .out = {{"dtable", "[R, s]", ARG_F32}},
    .flags = OP_ACCUMULATES | OP_ROWS,
    .infer = grad_infer,
    .reference = grad_reference,
    .cpu = grad_cpu,
    .cost = grad_cost,
    .cases = grad_cases,
    .laws = grad_laws,
};

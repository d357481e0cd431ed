/* embedding: look up rows of a table; their gradient, dense and as a list of rows.
 *
 *   embedding        y[k] = table[ids[k]]                             ids [...], table [V, n], y [..., n]
 *   embedding_grad   dtable[v] = sum of dy[k] over ids[k] = v         dtable [V, n]
 *   rows_merge       a list of (id, row), equal ids added: unique[u] < unique[u+1], sums[u], u < count
 *
 * The rows form serves tables too large for a dense gradient: time and memory go with the look-ups, not with
 * V. An id outside [0, V) reads zeros and adds nowhere (callers check ids first; a kernel must not write
 * beyond). Numerics: every row's sum is taken by one thread, in the order of the ids: its bits depend on
 * neither the number of threads nor their schedule.
 */
#include "ops/op.h"
#include <math.h>
#include <string.h>

/* Id K of ids stored as rows: the axes are flattened. */
static inline i64 id_at(const view *ids, i64 k)
{
    return ((const i32 *)ids->p)[k / ids->n * ids->stride + k % ids->n];
}

/* ---- embedding */
static status infer(op_build *b)
{
    const tensor *table = b->n->in[0], *ids = b->n->in[1];
    i64 dim[MAX_DIMS] = {0};
    TRY(need(b, table->ndim == 2, "the table must be [V, n]"));
    TRY(need(b, ids->ndim < MAX_DIMS, "ids have %d axes; at most %d", ids->ndim, MAX_DIMS - 1));
    memcpy(dim, ids->dim, sizeof *dim * (size_t)ids->ndim);
    dim[ids->ndim] = cols(table);
    return out_shape(b, 0, b->g->options.stream, ids->ndim + 1, dim);
}

static void vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    din[0] = g_out(g_node(g, OP_embedding_grad, IN(op->in[1], dout[0], op->in[0]), NO_ATTRS), 0);
}

static void reference(const op_call64 *c)
{
    i64 n = cols(c->node->in[0]), V = rows_of(c->node->in[0]);
    for (i64 k = 0; k < count(c->node->in[1]); k++)
        for (i64 j = 0; j < n; j++) {
            double id = c->in[1][k];
            c->out[0][k * n + j] = id >= 0 && id < (double)V ? c->in[0][(i64)id * n + j] : 0;
        }
}

static void cpu(const op_call *c)
{
    const view *table = &c->in[0], *y = &c->out[0];
    bool same = table->dtype == y->dtype;
    size_t bytes = (size_t)(y->n * dtype_bytes(y->dtype));
#pragma omp parallel for schedule(static)
    for (i64 k = 0; k < y->rows; k++) {
        i64 id = id_at(&c->in[1], k);
        char *to = (char *)y->p + k * y->stride * dtype_bytes(y->dtype);
        if (id < 0 || id >= table->rows)
            memset(to, 0, bytes);
        else if (same)
            memcpy(to, (const char *)table->p + id * table->stride * dtype_bytes(table->dtype), bytes);
        else {
            float *row = row_out(c, 0, k);
            const float *from = row_in(c, 0, id);
            memcpy(row, from, (size_t)y->n * sizeof *row);
            row_done(c, 0, k, row);
        }
    }
}

static op_cost cost(const node *op) // the table is read where it is looked up
{
    const tensor *y = op->out[0];
    return (op_cost){0, (double)(count(y) * 2 * dtype_bytes(y->dtype) + count(op->in[1]) * 4)};
}

static const op_case cases[] = {
    {"typical", "table=997x64 ids=4x33 fill.ids=below:997 f32 bf16 tol=0"},
    {"repeated", "table=7x129 ids=64 fill.ids=below:5 f32 bf16 tol=0"},
    {"one of each", "table=1x1 ids=1 fill.ids=zero f32 bf16 tol=0"},
    {"one column", "table=9x1 ids=2x3x5 fill.ids=below:9 f32 bf16 tol=0"},
    {"out of range", "table=5x17 ids=4x9 fill.ids=targets:8 f32 bf16 tol=0"}, // -1, and 5 to 7
    {"bench", "table=50257x768 ids=2x1024 fill.ids=below:50257 bf16 bench"},
    {0},
};
/* ids 0, 1, 2, ...: the table itself. */
static double is_the_table(law *l)
{
    double worst = 0, *table = law_in(l, "table");
    const double *y = law_run(l, 0);
    for (i64 i = 0; i < law_count(l, "table"); i++) worst = fmax(worst, fabs(y[i] - table[i]));
    return worst;
}
static const op_law laws[] = {
    {"ids 0, 1, 2, ... give the table", "table=16x8 ids=16 fill.ids=iota", is_the_table, 0}, {0}};

OP_DEF(embedding) = {
    .name = "embedding",
    .brief = "y = rows of the table",
    .in = {{"table", "[V, n]", ARG_WEIGHT}, {"ids", "[...]", ARG_I32, .range = "any"}},
    .out = {{"y", "[..., n]"}},
    .flags = OP_CHEAP,
    .infer = infer,
    .vjp = vjp,
    .reference = reference,
    .cpu = cpu,
    .cost = cost,
    .cases = cases,
    .laws = laws,
};

/* ---- embedding_grad; the table comes in for its shape */
static status grad_infer(op_build *b)
{
    const tensor *ids = b->n->in[0], *dy = b->n->in[1], *table = b->n->in[2];
    TRY(need(b, table->ndim == 2 && cols(dy) == cols(table), "dy must have rows of %lld",
             (long long)cols(table)));
    TRY(need(b, rows_of(dy) == count(ids), "%lld ids for %lld rows", (long long)count(ids),
             (long long)rows_of(dy)));
    return out_shape(b, 0, DT_F32, 2, table->dim);
}

static void grad_reference(const op_call64 *c)
{
    i64 n = cols(c->node->in[2]), V = rows_of(c->node->in[2]);
    memset(c->out[0], 0, sizeof(double) * (size_t)(V * n));
    for (i64 k = 0; k < count(c->node->in[0]); k++) {
        i64 id = (i64)c->in[0][k];
        for (i64 j = 0; j < n && id >= 0 && id < V; j++) c->out[0][id * n + j] += c->in[1][k * n + j];
    }
}

static void add_row(float *restrict to, const float *restrict x, i64 n)
{
#pragma omp simd
    for (i64 j = 0; j < n; j++) to[j] += x[j];
}

/* Thread t takes the ids that are t modulo the number of threads: no two write one row. */
static void grad_cpu(const op_call *c)
{
    const view *dtable = &c->out[0];
    i64 looked_up = c->in[1].rows;
#pragma omp parallel num_threads(c->threads)
    {
        i64 first, last, threads = omp_get_num_threads();
        part(dtable->rows, thread_index(), (int)threads, &first, &last);
        for (i64 v = first; v < last && !accumulates(c, 0); v++)
            memset((float *)dtable->p + v * dtable->stride, 0, (size_t)dtable->n * sizeof(float));
#pragma omp barrier
        for (i64 k = 0; k < looked_up; k++) {
            i64 id = id_at(&c->in[0], k);
            if (id < 0 || id >= dtable->rows || id % threads != thread_index()) continue;
            add_row((float *)dtable->p + id * dtable->stride, row_in(c, 1, k), dtable->n);
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
    {"typical", "ids=4x33 dy=4x33x64 table=97x64 fill.ids=below:97 f32 bf16"},
    {"repeated", "ids=64 dy=64x129 table=7x129 fill.ids=below:3 f32 bf16"},
    {"one of each", "ids=1 dy=1x1 table=1x1 fill.ids=zero f32 bf16 tol=0"},
    {"out of range", "ids=4x9 dy=36x17 table=5x17 fill.ids=targets:8 fill.dy=ints f32 bf16 tol=0"},
    {"exact", "ids=2x50 dy=2x50x33 table=11x33 fill.ids=below:11 fill.dy=ints f32 bf16 tol=0"},
    {"bench", "ids=2x1024 dy=2x1024x768 table=50257x768 fill.ids=below:50257 bf16 bench"},
    {0},
};
static double keeps_the_sum(law *l)
{
    double sum = 0, *dy = law_in(l, "dy");
    const double *dtable = law_run(l, 0);
    for (i64 i = 0; i < law_count(l, "dy"); i++) sum += dy[i];
    for (i64 i = 0; i < law_count(l, "table"); i++) sum -= dtable[i];
    return fabs(sum);
}
static const op_law grad_laws[] = {
    {"nothing is lost", "ids=50 dy=50x8 table=9x8 fill.ids=below:9", keeps_the_sum, 1e-12}, {0}};

OP_DEF(embedding_grad) = {
    .name = "embedding_grad",
    .brief = "dtable[v] = sum of dy[k] over ids[k] = v",
    .in = {{"ids", "[...]", ARG_I32, .range = "any"}, {"dy", "[..., n]"}, {"table", "[V, n]", ARG_WEIGHT}},
    .out = {{"dtable", "[V, n]", ARG_F32}},
    .flags = OP_ACCUMULATES | OP_ROWS,
    .infer = grad_infer,
    .reference = grad_reference,
    .cpu = grad_cpu,
    .cost = grad_cost,
    .cases = grad_cases,
    .laws = grad_laws,
};

/* ---- rows_merge */
static status merge_infer(op_build *b)
{
    const tensor *ids = b->n->in[0], *values = b->n->in[1];
    i64 k = count(ids);
    TRY(need(b, rows_of(values) == k, "%lld ids for %lld rows", (long long)k, (long long)rows_of(values)));
    TRY(need(b, k < INT32_MAX, "%lld ids; at most %d", (long long)k, INT32_MAX));
    TRY(out_shape(b, 0, DT_I32, 1, (i64[]){k}));
    TRY(out_shape(b, 1, DT_F32, 2, (i64[]){k, cols(values)}));
    return out_shape(b, 2, DT_I32, 1, (i64[]){1});
}

/* By the definition: the next unique id is the smallest above the last one. */
static void merge_reference(const op_call64 *c)
{
    i64 looked_up = count(c->node->in[0]), n = cols(c->node->in[1]), found = 0;
    double last = -1;
    memset(c->out[1], 0, sizeof(double) * (size_t)(looked_up * n));
    for (i64 u = 0; u < looked_up; u++) {
        double next = INFINITY;
        for (i64 k = 0; k < looked_up; k++)
            if (c->in[0][k] > last) next = fmin(next, c->in[0][k]);
        c->out[0][u] = isfinite(next) ? next : -1;
        if (!isfinite(next)) continue;
        for (i64 k = 0; k < looked_up; k++)
            for (i64 j = 0; j < n && c->in[0][k] == next; j++) c->out[1][u * n + j] += c->in[1][k * n + j];
        last = next;
        found++;
    }
    c->out[2][0] = (double)found;
}

typedef struct look_up {
    u32 id, at;
} look_up;

/* Stable, by id: eight bits at a time, from the lowest (the order of equal ids is that of the list). A digit
 * that all share is skipped. Returns which of A, B holds the result. */
static look_up *sort_look_ups(look_up *a, look_up *b, i64 n)
{
    for (int shift = 0; shift < 32; shift += 8) {
        i64 start[257] = {0};
        for (i64 i = 0; i < n; i++) start[(a[i].id >> shift & 255) + 1]++;
        if (n && start[(a[0].id >> shift & 255) + 1] == n) continue;
        for (int d = 0; d < 256; d++) start[d + 1] += start[d];
        for (i64 i = 0; i < n; i++) b[start[a[i].id >> shift & 255]++] = a[i];
        look_up *t = a;
        a = b;
        b = t;
    }
    return a;
}

static status merge_prepare(op_call *c)
{
    return want_scratch(c, (size_t)c->in[1].rows * 2 * sizeof(look_up) +
                               (size_t)(c->in[1].rows + 1) * sizeof(i64));
}

static void merge_cpu(const op_call *c)
{
    i64 looked_up = c->in[1].rows, n = c->in[1].n, kept = 0, found = 0;
    i64 *start = (i64 *)call_scratch(c);
    look_up *list = (look_up *)(start + looked_up + 1);
    i32 *unique = c->out[0].p;
    for (i64 k = 0; k < looked_up; k++)
        if (id_at(&c->in[0], k) >= 0) list[kept++] = (look_up){(u32)id_at(&c->in[0], k), (u32)k};
    list = sort_look_ups(list, list + looked_up, kept);
    for (i64 i = 0; i < kept; i++)
        if (!i || list[i].id != list[i - 1].id) {
            start[found] = i;
            unique[found++] = (i32)list[i].id;
        }
    start[found] = kept;
    for (i64 u = found; u < looked_up; u++) unique[u] = -1;
    *(i32 *)c->out[2].p = (i32)found;
#pragma omp parallel for schedule(static)
    for (i64 u = 0; u < looked_up; u++) {
        float *sum = row_out(c, 1, u);
        memset(sum, 0, (size_t)n * sizeof *sum);
        for (i64 i = u < found ? start[u] : 0; u < found && i < start[u + 1]; i++)
            add_row(sum, row_in(c, 1, list[i].at), n);
    }
}

static op_cost merge_cost(const node *op) { return (op_cost){(double)count(op->in[1]), traffic(op)}; }

static const op_case merge_cases[] = {
    {"typical", "ids=132 values=132x64 fill.ids=below:97 f32 bf16"},
    {"all the same", "ids=64 values=64x129 fill.ids=zero f32 bf16"},
    {"all different", "ids=64 values=64x17 fill.ids=iota f32 bf16 tol=0"},
    {"four digits", "ids=4x9 values=4x9x3 fill.ids=below:2000000000 f32 bf16 tol=0"},
    {"some absent", "ids=40 values=40x5 fill.ids=targets:9 fill.values=ints f32 bf16 tol=0"},
    {"one", "ids=1 values=1x1 fill.ids=below:5 f32 bf16 tol=0"},
    {"exact", "ids=100 values=100x33 fill.ids=below:11 fill.values=ints f32 bf16 tol=0"},
    {"bench", "ids=8192 values=8192x256 fill.ids=below:1000000 bf16 bench"},
    {0},
};
/* Merging what is merged already changes nothing. */
static double idempotent(law *l)
{
    enum { K = 30, N = 4 };
    double ids[K], sums[K * N], worst = 0;
    memcpy(sums, law_run(l, 1), sizeof sums);
    memcpy(ids, law_run(l, 0), sizeof ids);
    memcpy(law_in(l, "ids"), ids, sizeof ids);
    memcpy(law_in(l, "values"), sums, sizeof sums);
    for (int i = 0; i < K; i++) worst = fmax(worst, fabs(law_run(l, 0)[i] - ids[i]));
    for (int i = 0; i < K * N; i++) worst = fmax(worst, fabs(law_run(l, 1)[i] - sums[i]));
    return worst;
}
static const op_law merge_laws[] = {{"idempotent", "ids=30 values=30x4 fill.ids=targets:9", idempotent, 0},
                                    {0}};

OP_DEF(rows_merge) = {
    .name = "rows_merge",
    .brief = "equal ids of a list of rows added: unique ids (then -1), sums (then 0), their count",
    .in = {{"ids", "[k]", ARG_I32, .range = "any"}, {"values", "[k, n]"}},
    .out = {{"unique", "[k]", ARG_I32}, {"sums", "[k, n]", ARG_F32}, {"count", "[1]", ARG_I32}},
    .infer = merge_infer,
    .reference = merge_reference,
    .cpu = merge_cpu,
    .prepare = merge_prepare,
    .cost = merge_cost,
    .cases = merge_cases,
    .laws = merge_laws,
};

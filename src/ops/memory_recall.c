/* memory_recall: how much of what a search of the whole grid would find memory_search found.
 *
 *   recall = mean over heads and sampled tokens of |index of the token and head  intersected with
 *            top_m over all (i, j) of S_row^T C S_col| / m                         equal scores: the lower
 * index
 *
 * `sample` tokens, evenly spread (all, if there are fewer): a cell costs 2 r flops and there are keys^2 of
 * them. A figure of health for evaluations; it has no gradient. The search misses cells that two negative
 * coarse scores make large.
 */
#include "ops/memory_core.h"
#include "ops/memory_top.h"
#include "ops/op.h"
#include <string.h>

typedef struct sampling {
    i64 tokens, samples, heads, cores, r, keys, m;
} sampling;

static sampling shape_of(const node *n)
{
    const tensor *rows = n->in[0], *core = n->in[2];
    sampling s = {.tokens = rows_of(rows), .heads = (i64)attr(n, "heads")};
    while (s.r < CORE_MOST && s.r * s.r < cols(core)) s.r++;
    s.samples = MIN(s.tokens, (i64)attr(n, "sample"));
    s.cores = rows_of(core) / s.heads;
    s.keys = cols(rows) / (s.heads * s.r);
    s.m = cols(n->in[3]) / s.heads;
    return s;
}

static status infer(op_build *b)
{
    const tensor *rows = b->n->in[0], *core = b->n->in[2], *index = b->n->in[3];
    i64 heads = (i64)attr(b->n, "heads");
    TRY(need(b, core->ndim == 2 && rows_of(core) % heads == 0, "the core must be [heads x cores, r r]"));
    sampling s = shape_of(b->n);
    TRY(need(b, s.r * s.r == cols(core), "a core of %lld numbers is no square of side 1 to %d",
             (long long)cols(core), CORE_MOST));
    TRY(need(b, same_shape(rows, b->n->in[1]) && rows->dtype == DT_F32,
             "rows and cols must be f32 and alike"));
    TRY(need(b, s.keys * s.heads * s.r == cols(rows) && s.keys <= 46340,
             "rows of %lld do not divide into %lld heads of rank %lld", (long long)cols(rows),
             (long long)heads, (long long)s.r));
    TRY(need(b,
             rows_of(index) == s.tokens && s.m * heads == cols(index) && s.m >= 1 && s.m <= s.keys * s.keys,
             "index must be [%lld, heads m]", (long long)s.tokens));
    return out_shape(b, 0, DT_F32, 1, (i64[]){1});
}

/* A cell was to be found if fewer than m cells come before it. */
static void reference(const op_call64 *c)
{
    sampling s = shape_of(c->node);
    i64 cells = s.keys * s.keys, size = s.r * s.r, found = 0;
    double *grid = NULL;
    status failed = mem_alloc(sizeof *grid * (size_t)cells, "definition", &grid);
    if (failed) {
        status_drop(failed);
        return;
    }
    for (i64 e = 0; e < s.samples * s.heads; e++) {
        i64 at = e / s.heads * s.tokens / s.samples * s.heads + e % s.heads;
        const double *row = c->in[0] + at * s.r * s.keys, *col = c->in[1] + at * s.r * s.keys;
        for (i64 k = 0; k < cells; k++) {
            grid[k] = 0;
            for (i64 p = 0; p < s.cores * size; p++)
                grid[k] += row[p % size / s.r * s.keys + k / s.keys] *
                           c->in[2][e % s.heads * s.cores * size + p] * col[p % s.r * s.keys + k % s.keys];
        }
        for (i64 a = 0; a < s.m; a++) {
            i64 cell = (i64)c->in[3][at * s.m + a], before = 0;
            for (i64 k = 0; k < cells && cell >= 0 && cell < cells; k++)
                before += grid[k] > grid[cell] || (grid[k] == grid[cell] && k < cell);
            found += cell >= 0 && cell < cells && before < s.m;
        }
    }
    c->out[0][0] = (double)found / (double)(s.samples * s.heads * s.m);
    mem_free(grid);
}

static size_t workspace_bytes(const sampling *s)
{
    return (size_t)(round_up(s->keys, 16) + 2 * round_up(s->m, 16)) * 4;
}
static status prepare(op_call *c)
{
    sampling s = shape_of(c->node);
    return want_scratch(c, (size_t)c->threads * workspace_bytes(&s) + (size_t)(s.samples * s.heads) * 4);
}

static i32 count_found(const sampling *s, const float *row, const float *col, const float *core,
                       const i32 *index, float *line)
{
    float C[CORE_MOST * CORE_MOST] = {0}, *value = line + round_up(s->keys, 16);
    top_list t = {value, (i32 *)(value + round_up(s->m, 16)), s->m, 0};
    i32 found = 0;
    for (i64 k = 0; k < s->cores * s->r * s->r; k++) C[k % (s->r * s->r)] += core[k];
    for (i64 i = 0; i < s->keys; i++) {
        for (i64 q = 0; q < s->r; q++) {
            float left = 0;
            for (i64 p = 0; p < s->r; p++) left += row[p * s->keys + i] * C[p * s->r + q];
#pragma omp simd
            for (i64 j = 0; j < s->keys; j++) line[j] = (q ? line[j] : 0) + left * col[q * s->keys + j];
        }
        top_scan(&t, line, s->keys, (i32)(i * s->keys));
    }
    for (i64 a = 0; a < s->m; a++)
        for (i64 k = 0; k < t.n; k++) found += t.id[k] == index[a];
    return found;
}

static void cpu(const op_call *c)
{
    sampling s = shape_of(c->node);
    i32 *found = (i32 *)(call_scratch(c) + (size_t)c->threads * workspace_bytes(&s));
    i64 wide = s.r * s.keys, total = 0;
#pragma omp parallel for schedule(static)
    for (i64 e = 0; e < s.samples * s.heads; e++) {
        i64 token = e / s.heads * s.tokens / s.samples, head = e % s.heads;
        found[e] = count_found(&s, (const float *)c->in[0].p + token * c->in[0].stride + head * wide,
                               (const float *)c->in[1].p + token * c->in[1].stride + head * wide,
                               (const float *)c->in[2].p + head * s.cores * s.r * s.r,
                               (const i32 *)c->in[3].p + token * c->in[3].stride + head * s.m,
                               (float *)(call_scratch(c) + (size_t)thread_index() * workspace_bytes(&s)));
    }
    for (i64 e = 0; e < s.samples * s.heads; e++) total += found[e];
    *(float *)c->out[0].p = (float)((double)total / (double)(s.samples * s.heads * s.m));
}

static op_cost cost(const node *op)
{
    sampling s = shape_of(op);
    return (op_cost){2.0 * (double)(s.samples * s.heads * s.r) * (double)(s.keys * s.keys),
                     8.0 * (double)(s.samples * s.heads * s.r * s.keys)};
}

static const op_case cases[] = {
    {"typical", "rows=3x5x128 cols=3x5x128 core=4x4 index=3x5x10 heads=2 sample=4 fill.index=below:1024 f32"},
    {"all tokens", "rows=7x12 cols=7x12 core=2x4 index=7x9 heads=1 sample=64 fill.index=below:36 f32"},
    {"one of one", "rows=2x1 cols=2x1 core=1x1 index=2x1 heads=1 fill.index=zero f32"},
    {"ties", "rows=9x14 cols=9x14 core=2x4 index=9x12 heads=1 sample=9 fill=ints fill.index=iota f32"},
    {"out of range", "rows=7x12 cols=7x12 core=2x4 index=7x9 heads=1 sample=7 fill.index=targets:50 f32"},
    {0},
};

OP_DEF(memory_recall) = {
    .name = "memory_recall",
    .brief = "share of the whole grid's top m that index holds, over sampled tokens",
    .source = "UltraMem, arXiv:2411.12364",
    .in = {{"rows", "[tokens, n]", ARG_F32, .fixed = true},
           {"cols", "[tokens, n]", ARG_F32, .fixed = true},
           {"core", "[k, r2]", ARG_F32, .fixed = true},
           {"index", "[tokens, heads m]", ARG_I32, .range = "any"}},
    .out = {{"recall", "[1]", .fixed = true}},
    .attrs = {{"heads", 1, 1, 64, "sets of keys"}, {"sample", 4, 1, 1e9, "tokens looked at"}},
    .infer = infer,
    .reference = reference,
    .cpu = cpu,
    .prepare = prepare,
    .cost = cost,
    .cases = cases,
};

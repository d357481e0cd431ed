/* product_keys: the best of keys^2 values by additive scores of two halves (product-key memory), by head.
 *
 *   grid(i, j) = rows[i] + cols[j]                       rows, cols [tokens, heads keys]
 *   (i, j)_a = top_m of the grid, in descending order;   index i keys + j, [tokens, heads m]
 *   p = softmax over a of grid((i, j)_a)                 [tokens, heads m]
 *   ds = p (dp - sum_a p dp);  drows[i] += ds, dcols[j] += ds             indices are constants
 *
 * The top m rows and columns hold the top m cells (a cell outside has m better ones), so that the search is
 * exact in O(keys + m^2). Equal scores: the lower index first, among rows, columns and cells.
 *
 * Source:   Lample et al., "Large memory layers with product keys", arXiv:1907.05242.
 * Numerics: f32; exponentials of differences to the largest score.
 */
#include "ops/memory_top.h"
#include "ops/op.h"
#include <string.h>

typedef struct search {
    i64 tokens, heads, keys, m;
} search;
static search shape_of(const node *n)
{
    search s = {.tokens = rows_of(n->in[0]), .heads = (i64)attr(n, "heads"), .m = (i64)attr(n, "m")};
    s.keys = cols(n->in[0]) / s.heads;
    return s;
}

static status check(op_build *b)
{
    const tensor *rows = b->n->in[0], *columns = b->n->in[1];
    search s = shape_of(b->n);
    TRY(need(b, same_shape(rows, columns) && rows->dtype == DT_F32 && columns->dtype == DT_F32,
             "the scores of rows and columns must be f32 and of one shape"));
    TRY(need(b, s.keys * s.heads == cols(rows), "rows of %lld do not divide into %lld heads",
             (long long)cols(rows), (long long)s.heads));
    TRY(need(b, s.keys <= 46340, "%lld keys a side; at most 46340", (long long)s.keys));
    return need(b, s.m >= 1 && s.m <= s.keys, "the top %lld of %lld keys", (long long)s.m, (long long)s.keys);
}

static status infer(op_build *b)
{
    TRY(check(b));
    search s = shape_of(b->n);
    const tensor *rows = b->n->in[0];
    i64 dim[MAX_DIMS];
    memcpy(dim, rows->dim, sizeof dim);
    dim[rows->ndim - 1] = s.heads * s.m;
    TRY(out_shape(b, 0, DT_I32, rows->ndim, dim));
    return out_shape(b, 1, DT_F32, rows->ndim, dim);
}

static void vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    if (!dout[1]) return;
    node *d = g_node_from(g, OP_product_keys_grad, IN(op->in[0], op->out[0], op->out[1], dout[1]), op);
    din[0] = g_out(d, 0);
    din[1] = g_out(d, 1);
}

/* Over the whole grid, cell by cell. */
static void reference(const op_call64 *c)
{
    search s = shape_of(c->node);
    for (i64 k = 0; k < s.tokens * s.heads; k++) {
        const double *row = c->in[0] + k * s.keys, *col = c->in[1] + k * s.keys;
        double *index = c->out[0] + k * s.m, *p = c->out[1] + k * s.m, sum = 0;
        for (i64 a = 0; a < s.m; a++) {
            double best = -INFINITY;
            i64 at = c->held[0] ? (i64)c->held[0][k * s.m + a] : 0;
            for (i64 i = 0; i < s.keys * s.keys && !c->held[0]; i++) {
                bool taken = false;
                for (i64 e = 0; e < a; e++) taken |= (i64)index[e] == i;
                double score = row[i / s.keys] + col[i % s.keys];
                if (!taken && score > best) best = score, at = i;
            }
            index[a] = (double)at;
            p[a] = exp(row[at / s.keys] + col[at % s.keys]);
            sum += p[a];
        }
        for (i64 a = 0; a < s.m; a++) p[a] /= sum;
    }
}

/* Of a thread: two lists of m, then room for m more of each. */
static size_t workspace_bytes(const search *s) { return (size_t)round_up(s->m, 16) * 4 * 6; }
static status prepare(op_call *c)
{
    search s = shape_of(c->node);
    return want_scratch(c, (size_t)c->threads * workspace_bytes(&s));
}

static void softmax(float *x, i64 n)
{
    float top = x[0], sum = 0;
    for (i64 i = 0; i < n; i++) x[i] = expf(x[i] - top), sum += x[i];
    for (i64 i = 0; i < n; i++) x[i] /= sum;
}

static void search_one(const search *s, const float *row, const float *col, char *work, i32 *index, float *p)
{
    i64 m = round_up(s->m, 16);
    float *value = (float *)work;
    i32 *id = (i32 *)(value + 3 * m);
    top_list rows = {value, id, s->m, 0}, cells = {value + 2 * m, id + 2 * m, s->m, 0};
    top_list columns = {value + m, id + m, s->m, 0};
    top_scan(&rows, row, s->keys, 0);
    top_scan(&columns, col, s->keys, 0);
    for (i64 a = 0; a < s->m; a++)
        for (i64 b = 0; b < s->m; b++) {
            float x = rows.value[a] + columns.value[b];
            if (cells.n == cells.most && x < top_threshold(&cells)) break; // the rest of the row is lower
            top_offer(&cells, x, rows.id[a] * (i32)s->keys + columns.id[b]);
        }
    memcpy(index, cells.id, sizeof *index * (size_t)s->m);
    memcpy(p, cells.value, sizeof *p * (size_t)s->m);
    softmax(p, s->m);
}

static void cpu(const op_call *c)
{
    search s = shape_of(c->node);
#pragma omp parallel for schedule(static)
    for (i64 token = 0; token < s.tokens; token++)
        for (i64 head = 0; head < s.heads; head++)
            search_one(&s, (const float *)c->in[0].p + token * c->in[0].stride + head * s.keys,
                       (const float *)c->in[1].p + token * c->in[1].stride + head * s.keys,
                       call_scratch(c) + (size_t)thread_index() * workspace_bytes(&s),
                       (i32 *)c->out[0].p + token * c->out[0].stride + head * s.m,
                       (float *)c->out[1].p + token * c->out[1].stride + head * s.m);
}

static op_cost cost(const node *op)
{
    search s = shape_of(op);
    return (op_cost){(double)(s.tokens * s.heads) * (double)(2 * s.keys + s.m * s.m), traffic(op)};
}

static const op_case cases[] = {
    {"typical", "rows=3x5x66 cols=3x5x66 heads=2 m=5 f32"},
    {"all keys", "rows=4x6 cols=4x6 heads=1 m=6 f32"},
    {"one of one", "rows=3x2 cols=3x2 heads=2 m=1 f32"},
    {"ties", "rows=9x40 cols=9x40 heads=1 m=7 fill=ints f32"},
    {"large scores", "rows=5x20 cols=5x20 heads=1 m=4 fill=pow2 f32"},
    {"bench", "rows=2048x256 cols=2048x256 heads=2 m=8 f32 bench"},
    {0},
};

/* A number added to all rows' scores changes nothing. */
static double shift_freedom(law *l)
{
    double index[30], p[30], worst = 0, *row = law_in(l, "rows");
    memcpy(index, law_run(l, 0), sizeof index);
    memcpy(p, law_run(l, 1), sizeof p);
    for (i64 i = 0; i < law_count(l, "rows"); i++) row[i] += 4;
    for (int i = 0; i < 30; i++) {
        worst = fmax(worst, fabs(law_run(l, 0)[i] - index[i]));
        worst = fmax(worst, fabs(law_run(l, 1)[i] - p[i]));
    }
    return worst;
}
/* The runner-up shares a row or a column with the winner: the weak point of additive scores. */
static double neighbours(law *l)
{
    const double *index = law_run(l, 0);
    for (int t = 0; t < 5; t++, index += 3) {
        int first = (int)index[0], second = (int)index[1];
        if (first / 11 != second / 11 && first % 11 != second % 11) return 1;
    }
    return 0;
}
static const op_law laws[] = {
    {"freedom of shift", "rows=5x22 cols=5x22 heads=2 m=3", shift_freedom, 1e-14},
    {"winner and runner-up share a row or a column", "rows=5x11 cols=5x11 heads=1 m=3", neighbours, 0},
    {0},
};

#define KEYS_ATTRS                                                                                           \
    {                                                                                                        \
        {"heads", 1, 1, 64, "sets of keys, each with its selection"}, { "m", 1, 1, 512, "selected a head" }  \
    }

OP_DEF(product_keys) = {
    .name = "product_keys",
    .brief = "index = top m of rows[i] + cols[j]; p = softmax of those scores",
    .source = "Lample et al., arXiv:1907.05242",
    .in = {{"rows", "[tokens, n]", ARG_F32}, {"cols", "[tokens, n]", ARG_F32}},
    .out = {{"index", "[tokens, heads m]", ARG_I32}, {"p", "[tokens, heads m]"}},
    .attrs = KEYS_ATTRS,
    .flags = OP_SELECTS,
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
    const tensor *rows = b->n->in[0];
    search s = shape_of(b->n);
    TRY(need(b, s.keys * s.heads == cols(rows), "rows of %lld do not divide into %lld heads",
             (long long)cols(rows), (long long)s.heads));
    for (int k = 1; k < 4; k++)
        TRY(need(b, count(b->n->in[k]) == s.tokens * s.heads * s.m, "input %d must be [%lld, %lld]", k,
                 (long long)s.tokens, (long long)(s.heads * s.m)));
    TRY(out_shape(b, 0, DT_F32, rows->ndim, rows->dim));
    return out_shape(b, 1, DT_F32, rows->ndim, rows->dim);
}

static void grad_reference(const op_call64 *c)
{
    search s = shape_of(c->node);
    memset(c->out[0], 0, sizeof(double) * (size_t)count(c->node->in[0]));
    memset(c->out[1], 0, sizeof(double) * (size_t)count(c->node->in[0]));
    for (i64 k = 0; k < s.tokens * s.heads; k++)
        for (i64 a = 0; a < s.m; a++) {
            const double *p = c->in[2] + k * s.m, *dp = c->in[3] + k * s.m;
            i64 at = (i64)c->in[1][k * s.m + a];
            if (at < 0 || at >= s.keys * s.keys) continue;
            for (i64 e = 0; e < s.m; e++) {
                double ds = dp[e] * p[e] * ((e == a) - p[a]);
                c->out[0][k * s.keys + at / s.keys] += ds;
                c->out[1][k * s.keys + at % s.keys] += ds;
            }
        }
}

static void grad_cpu(const op_call *c)
{
    search s = shape_of(c->node);
#pragma omp parallel for schedule(static)
    for (i64 token = 0; token < s.tokens; token++) {
        float *drow = (float *)c->out[0].p + token * c->out[0].stride;
        float *dcol = (float *)c->out[1].p + token * c->out[1].stride;
        const i32 *index = (const i32 *)c->in[1].p + token * c->in[1].stride;
        const float *p = (const float *)c->in[2].p + token * c->in[2].stride;
        const float *dp = (const float *)c->in[3].p + token * c->in[3].stride;
        memset(drow, 0, sizeof *drow * (size_t)(s.heads * s.keys));
        memset(dcol, 0, sizeof *dcol * (size_t)(s.heads * s.keys));
        for (i64 head = 0; head < s.heads; head++, index += s.m, p += s.m, dp += s.m) {
            float mean = 0;
            for (i64 a = 0; a < s.m; a++) mean += p[a] * dp[a];
            for (i64 a = 0; a < s.m; a++) {
                float ds = p[a] * (dp[a] - mean);
                if (index[a] < 0 || index[a] >= s.keys * s.keys) continue;
                drow[head * s.keys + index[a] / s.keys] += ds;
                dcol[head * s.keys + index[a] % s.keys] += ds;
            }
        }
    }
}

static const op_case grad_cases[] = {
    {"typical",
     "rows=3x5x66 index=3x5x10 p=3x5x10 dp=3x5x10 heads=2 m=5 fill.index=below:1089 fill.p=positive f32"},
    {"one", "rows=2x1 index=2x1 p=2x1 dp=2x1 heads=1 m=1 fill.index=zero f32"},
    {"out of range", "rows=4x4 index=4x4 p=4x4 dp=4x4 heads=1 m=4 fill.index=targets:20 f32"},
    {0},
};

OP_DEF(product_keys_grad) = {
    .name = "product_keys_grad",
    .brief = "ds = p (dp - sum p dp), added to its row and its column",
    .source = "Lample et al., arXiv:1907.05242",
    .in = {{"rows", "[tokens, n]", ARG_F32},
           {"index", "[tokens, heads m]", ARG_I32, .range = "any"},
           {"p", "[tokens, heads m]", ARG_F32},
           {"dp", "[tokens, heads m]", ARG_F32}},
    .out = {{"drows", "[tokens, n]"}, {"dcols", "[tokens, n]"}},
    .attrs = KEYS_ATTRS,
    .infer = grad_infer,
    .reference = grad_reference,
    .cpu = grad_cpu,
    .cases = grad_cases,
};

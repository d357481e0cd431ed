/* memory_search: Tucker-decomposed query-key retrieval with multi-core scores (UltraMem), a head at a time.
 *
 *   grid(i, j) = sum_{p,q} S_row[p, i] C[p, q] S_col[q, j],   C = sum_c C^(c)            i, j in [0, keys)
 *   rows = top_m(u^T S_row), cols = top_m(t^T S_col)          coarse, C ~ sigma u t^T
 *   (i, j)_a = top_m of the grid on rows x cols               exact, in descending order; index i keys + j
 *   s^(c)_a  = S_row[:, i]^T C^(c) S_col[:, j]                the score of core c
 *
 *   rows, cols [tokens, heads r keys], core [heads cores, r r], pair (u, t) [heads, 2 r];
 *   index [tokens, heads m], s [tokens, heads m cores]
 *   dS_row[:, i] += sum_c ds^(c) C^(c) S_col[:, j],  dS_col[:, j] += sum_c ds^(c) C^(c)^T S_row[:, i],
 *   dC^(c) += ds^(c) S_row[:, i] S_col[:, j]^T               indices and (u, t) are constants
 *
 * Equal scores: the lower index comes first, in all three selections. Time: O(r keys + m^2 r) a token and
 * head, where all values are keys^2 / expansion. The coarse stage may miss cells that two negative coarse
 * scores make large: memory_recall counts how many.
 *
 * Source:   UltraMem, arXiv:2411.12364, sections on TDQKR and MCS.
 * Numerics: scores, their comparison and all sums in f32 (dC: f32 sums of each thread's tokens).
 */
#include "ops/memory_core.h"
#include "ops/memory_top.h"
#include "ops/op.h"
#include <string.h>

typedef struct search {
    i64 tokens, heads, cores, r, keys, m;
} search;

static search shape_of(const node *n)
{
    const tensor *rows = n->in[0], *core = n->in[2];
    search s = {.tokens = rows_of(rows), .heads = (i64)attr(n, "heads"), .m = (i64)attr(n, "m")};
    while (s.r < CORE_MOST && s.r * s.r < cols(core)) s.r++;
    s.cores = rows_of(core) / s.heads;
    s.keys = cols(rows) / (s.heads * s.r);
    return s;
}

static status check(op_build *b)
{
    const tensor *rows = b->n->in[0], *columns = b->n->in[1], *core = b->n->in[2];
    i64 heads = (i64)attr(b->n, "heads");
    TRY(need(b, core->ndim == 2 && rows_of(core) % heads == 0, "the core must be [heads x cores, r r]"));
    search s = shape_of(b->n);
    TRY(need(b, s.r * s.r == cols(core), "a core of %lld numbers is no square of side 1 to %d",
             (long long)cols(core), CORE_MOST));
    TRY(need(b, same_shape(rows, columns) && rows->dtype == DT_F32 && columns->dtype == DT_F32,
             "the scores of rows and columns must be f32 and of one shape"));
    TRY(need(b, s.keys * s.heads * s.r == cols(rows),
             "rows of %lld do not divide into %lld heads of rank %lld", (long long)cols(rows),
             (long long)s.heads, (long long)s.r));
    TRY(need(b, s.keys <= 46340, "%lld keys a side; at most 46340", (long long)s.keys));
    return need(b, s.m >= 1 && s.m <= s.keys, "the top %lld of %lld keys", (long long)s.m, (long long)s.keys);
}

static status infer(op_build *b)
{
    TRY(check(b));
    search s = shape_of(b->n);
    const tensor *rows = b->n->in[0], *pair = b->n->in[3];
    i64 dim[MAX_DIMS];
    TRY(need(b, rows_of(pair) == s.heads && cols(pair) == 2 * s.r, "the pair must be [%lld, %lld]",
             (long long)s.heads, (long long)(2 * s.r)));
    memcpy(dim, rows->dim, sizeof dim);
    dim[rows->ndim - 1] = s.heads * s.m;
    TRY(out_shape(b, 0, DT_I32, rows->ndim, dim));
    dim[rows->ndim - 1] = s.heads * s.m * s.cores;
    return out_shape(b, 1, DT_F32, rows->ndim, dim);
}

static void vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    if (!dout[1]) return;
    node *d =
        g_node_from(g, OP_memory_search_grad, IN(op->in[0], op->in[1], op->in[2], op->out[0], dout[1]), op);
    for (int k = 0; k < 3; k++) din[k] = g_out(d, k);
}

/* ---- definition */

/* The place of the M largest of X[0..N) in TO; a NULL id stands for the position. */
static void largest(const double *x, const double *id, i64 n, i64 m, double *to)
{
    for (i64 a = 0; a < m; a++) {
        i64 best = -1;
        for (i64 i = 0; i < n; i++) {
            bool taken = false;
            for (i64 k = 0; k < a; k++) taken |= to[k] == (id ? id[i] : (double)i);
            if (taken) continue;
            if (best < 0 || x[i] > x[best] || (x[i] == x[best] && id && id[i] < id[best])) best = i;
        }
        to[a] = id ? id[best] : (double)best;
    }
}

/* sum_{p,q} row[p, i] C[p, q] col[q, j] with the core at C. */
static double cell(const search *s, const double *row, const double *col, const double *C, i64 i, i64 j)
{
    double sum = 0;
    for (i64 p = 0; p < s->r; p++)
        for (i64 q = 0; q < s->r; q++) sum += row[p * s->keys + i] * C[p * s->r + q] * col[q * s->keys + j];
    return sum;
}

typedef struct selecting { // room for one token's selection
    double *coarse, *rows, *cols, *grid, *id, C[CORE_MOST * CORE_MOST];
} selecting;

static void select64(const search *s, const double *row, const double *col, const double *pair, selecting *w,
                     double *index)
{
    for (int side = 0; side < 2; side++) {
        for (i64 i = 0; i < s->keys; i++) {
            w->coarse[i] = 0;
            for (i64 p = 0; p < s->r; p++)
                w->coarse[i] += pair[side * s->r + p] * (side ? col : row)[p * s->keys + i];
        }
        largest(w->coarse, NULL, s->keys, s->m, side ? w->cols : w->rows);
    }
    for (i64 k = 0; k < s->m * s->m; k++) {
        double i = w->rows[k / s->m], j = w->cols[k % s->m];
        w->id[k] = i * (double)s->keys + j;
        w->grid[k] = cell(s, row, col, w->C, (i64)i, (i64)j);
    }
    largest(w->grid, w->id, s->m * s->m, s->m, index);
}

static void reference(const op_call64 *c)
{
    search s = shape_of(c->node);
    i64 size = s.r * s.r;
    double *room = NULL;
    status failed =
        mem_alloc(sizeof(double) * (size_t)(s.keys + 2 * s.m + 2 * s.m * s.m), "definition", &room);
    if (failed) {
        status_drop(failed);
        return;
    }
    selecting w = {.coarse = room, .rows = room + s.keys};
    w.cols = w.rows + s.m;
    w.grid = w.cols + s.m;
    w.id = w.grid + s.m * s.m;
    for (i64 k = 0; k < s.tokens * s.heads; k++) {
        i64 head = k % s.heads;
        const double *row = c->in[0] + k * s.r * s.keys, *col = c->in[1] + k * s.r * s.keys;
        const double *core = c->in[2] + head * s.cores * size;
        double *index = c->out[0] + k * s.m, *score = c->out[1] + k * s.m * s.cores;
        memset(w.C, 0, sizeof w.C);
        for (i64 i = 0; i < s.cores * size; i++) w.C[i % size] += core[i];
        if (c->held[0])
            memcpy(index, c->held[0] + k * s.m, sizeof *index * (size_t)s.m);
        else
            select64(&s, row, col, c->in[3] + head * 2 * s.r, &w, index);
        for (i64 a = 0; a < s.m * s.cores; a++) {
            i64 at = (i64)index[a / s.cores];
            score[a] = cell(&s, row, col, core + a % s.cores * size, at / s.keys, at % s.keys);
        }
    }
    mem_free(room);
}

/* ---- kernel */

typedef struct workspace { // of a thread
    float *coarse, *values, *line, *picked[2];
    i32 *rows, *cols;
    float *grid_value;
    i32 *grid_id;
} workspace;

static size_t workspace_bytes(const search *s)
{
    i64 floats = round_up(s->keys, 16) + 3 * round_up(s->m, 16) + 2 * round_up(s->m * s->r, 16);
    return (size_t)(floats + 3 * round_up(s->m, 16)) * 4;
}

static workspace workspace_at(const search *s, char *p)
{
    i64 m = round_up(s->m, 16), picked = round_up(s->m * s->r, 16);
    float *f = (float *)p;
    workspace w = {.coarse = f};
    w.values = w.coarse + round_up(s->keys, 16);
    w.line = w.values + m;
    w.grid_value = w.line + m;
    w.picked[0] = w.grid_value + m;
    w.picked[1] = w.picked[0] + picked;
    w.rows = (i32 *)(w.picked[1] + picked);
    w.cols = w.rows + m;
    w.grid_id = w.cols + m;
    return w;
}

static status prepare(op_call *c)
{
    search s = shape_of(c->node);
    return want_scratch(c, (size_t)c->threads * workspace_bytes(&s));
}

/* The top m of one side by u^T S, and their raw scores side by side, [r, m]. */
static void coarse(const search *s, const float *scores, const float *u, const workspace *w, i32 *ids,
                   float *picked)
{
    float *x = w->coarse;
    for (i64 i = 0; i < s->keys; i++) x[i] = u[0] * scores[i];
    for (i64 p = 1; p < s->r; p++) {
        const float *y = scores + p * s->keys;
#pragma omp simd
        for (i64 i = 0; i < s->keys; i++) x[i] += u[p] * y[i];
    }
    top_list t = {w->values, ids, s->m, 0};
    top_scan(&t, x, s->keys, 0);
    for (i64 p = 0; p < s->r; p++)
        for (i64 a = 0; a < s->m; a++) picked[p * s->m + a] = scores[p * s->keys + ids[a]];
}

/* left[q] = sum_p x[p at] C[p, q], x of stride STRIDE. */
static void times_core(const float *x, i64 stride, const float *C, i64 r, float *left)
{
    for (i64 q = 0; q < r; q++) {
        left[q] = 0;
        for (i64 p = 0; p < r; p++) left[q] += x[p * stride] * C[p * r + q];
    }
}

static void grid(const search *s, const float *C, const workspace *w, i32 *index)
{
    top_list t = {w->grid_value, index, s->m, 0};
    for (i64 a = 0; a < s->m; a++) {
        float left[CORE_MOST], best = -INFINITY;
        times_core(w->picked[0] + a, s->m, C, s->r, left);
        for (i64 b = 0; b < s->m; b++) w->line[b] = left[0] * w->picked[1][b];
        for (i64 q = 1; q < s->r; q++)
#pragma omp simd
            for (i64 b = 0; b < s->m; b++) w->line[b] += left[q] * w->picked[1][q * s->m + b];
#pragma omp simd reduction(max : best)
        for (i64 b = 0; b < s->m; b++) best = best > w->line[b] ? best : w->line[b];
        if (t.n == t.most && best < top_threshold(&t)) continue;
        for (i64 b = 0; b < s->m; b++) top_offer(&t, w->line[b], w->rows[a] * (i32)s->keys + w->cols[b]);
    }
}

static void core_scores(const search *s, const float *row, const float *col, const float *core,
                        const i32 *index, float *score)
{
    for (i64 a = 0; a < s->m; a++) {
        i64 i = index[a] / s->keys, j = index[a] % s->keys;
        for (i64 k = 0; k < s->cores; k++) {
            float left[CORE_MOST], sum = 0;
            times_core(row + i, s->keys, core + k * s->r * s->r, s->r, left);
            for (i64 q = 0; q < s->r; q++) sum += left[q] * col[q * s->keys + j];
            score[a * s->cores + k] = sum;
        }
    }
}

static void cpu(const op_call *c)
{
    search s = shape_of(c->node);
    i64 size = s.r * s.r;
#pragma omp parallel for schedule(static)
    for (i64 token = 0; token < s.tokens; token++) {
        workspace w = workspace_at(&s, call_scratch(c) + (size_t)thread_index() * workspace_bytes(&s));
        for (i64 head = 0; head < s.heads; head++) {
            const float *row = (const float *)c->in[0].p + token * c->in[0].stride + head * s.r * s.keys;
            const float *col = (const float *)c->in[1].p + token * c->in[1].stride + head * s.r * s.keys;
            const float *core = (const float *)c->in[2].p + head * s.cores * size;
            const float *pair = (const float *)c->in[3].p + head * 2 * s.r;
            i32 *index = (i32 *)c->out[0].p + token * c->out[0].stride + head * s.m;
            float *score = (float *)c->out[1].p + token * c->out[1].stride + head * s.m * s.cores;
            float C[CORE_MOST * CORE_MOST] = {0};
            for (i64 k = 0; k < s.cores * size; k++) C[k % size] += core[k];
            coarse(&s, row, pair, &w, w.rows, w.picked[0]);
            coarse(&s, col, pair + s.r, &w, w.cols, w.picked[1]);
            grid(&s, C, &w, w.grid_id);
            memcpy(index, w.grid_id, sizeof *index * (size_t)s.m);
            core_scores(&s, row, col, core, index, score);
        }
    }
}

static op_cost cost(const node *op)
{
    search s = shape_of(op);
    double a_head = (double)(4 * s.keys * s.r + s.m * s.m * (2 * s.r + 1) + 2 * s.m * s.cores * s.r * s.r);
    return (op_cost){(double)(s.tokens * s.heads) * a_head, traffic(op)};
}

static const op_case cases[] = {
    {"typical", "rows=3x5x128 cols=3x5x128 core=4x4 pair=2x4 heads=2 m=5 f32"},
    {"one core", "rows=7x33 cols=7x33 core=1x1 pair=1x2 heads=1 m=4 f32"},
    {"all keys", "rows=4x12 cols=4x12 core=2x4 pair=1x4 heads=1 m=6 f32"},
    {"one of one", "rows=3x1 cols=3x1 core=1x1 pair=1x2 heads=1 m=1 f32"},
    {"rank three", "rows=5x198 cols=5x198 core=6x9 pair=2x6 heads=2 m=9 f32"},
    {"ties", "rows=9x80 cols=9x80 core=2x4 pair=1x4 heads=1 m=7 fill=ints f32 tol=0"},
    {"bench, 4 Ki values", "rows=2048x512 cols=2048x512 core=4x4 pair=2x4 heads=2 m=8 f32 bench"},
    {"bench, 64 Ki values", "rows=2048x2048 cols=2048x2048 core=4x4 pair=2x4 heads=2 m=8 f32 bench"},
    {"bench, 1 Mi values", "rows=2048x8192 cols=2048x8192 core=4x4 pair=2x4 heads=2 m=8 f32 bench"},
    {0},
};

/* Rank one, scores and core positive: nothing of the whole grid is above what was found, and every score is
 * the product of its row's and its column's. */
static double exact_when_positive(law *l)
{
    enum { N = 17, M = 4 };
    double *row = law_in(l, "rows"), *col = law_in(l, "cols"), worst = 0;
    for (i64 i = 0; i < law_count(l, "rows"); i++) row[i] = fabs(row[i]), col[i] = fabs(col[i]);
    *law_in(l, "core") = 1;
    law_in(l, "pair")[0] = law_in(l, "pair")[1] = 1;
    const double *index = law_run(l, 0), *s = law_run(l, 1);
    for (i64 t = 0; t < 6; t++, row += N, col += N, index += M, s += M)
        for (i64 i = 0; i < N * N; i++) {
            bool found = false;
            for (i64 a = 0; a < M; a++) {
                found |= (i64)index[a] == i;
                worst = fmax(worst, fabs(s[a] - row[(i64)index[a] / N] * col[(i64)index[a] % N]));
            }
            if (!found) worst = fmax(worst, row[i / N] * col[i % N] - s[M - 1]);
        }
    return worst;
}
/* A score is linear in the rows' scores: twice these, twice that, the same indices. */
static double linear_in_rows(law *l)
{
    double first[2][60], worst = 0, *row = law_in(l, "rows");
    memcpy(first[0], law_run(l, 0), sizeof(double) * 30);
    memcpy(first[1], law_run(l, 1), sizeof(double) * 60);
    for (i64 i = 0; i < law_count(l, "rows"); i++) row[i] *= 2;
    for (int i = 0; i < 30; i++) worst = fmax(worst, fabs(law_run(l, 0)[i] - first[0][i]));
    for (int i = 0; i < 60; i++) worst = fmax(worst, fabs(law_run(l, 1)[i] - 2 * first[1][i]));
    return worst;
}
static const op_law laws[] = {
    {"exact where nothing is negative", "rows=6x17 cols=6x17 core=1x1 pair=1x2 heads=1 m=4",
     exact_when_positive, 0},
    {"linear in the rows' scores", "rows=5x44 cols=5x44 core=4x4 pair=2x4 heads=2 m=3", linear_in_rows, 0},
    {0},
};

#define SEARCH_ATTRS                                                                                         \
    {                                                                                                        \
        {"heads", 1, 1, 64, "sets of keys, each with its selection"}, { "m", 1, 1, 512, "selected a head" }  \
    }

OP_DEF(memory_search) = {
    .name = "memory_search",
    .brief = "index = top m of S_row^T C S_col on the top m rows and columns by u, t; s = each core's score",
    .source = "UltraMem, arXiv:2411.12364",
    .in = {{"rows", "[tokens, n]", ARG_F32},
           {"cols", "[tokens, n]", ARG_F32},
           {"core", "[k, r2]", ARG_F32},
           {"pair", "[heads, 2r]", ARG_F32, .fixed = true}},
    .out = {{"index", "[tokens, heads m]", ARG_I32}, {"s", "[tokens, heads m cores]"}},
    .attrs = SEARCH_ATTRS,
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
    TRY(check(b));
    search s = shape_of(b->n);
    TRY(need(b, count(b->n->in[3]) == s.tokens * s.heads * s.m, "index must be [%lld, %lld]",
             (long long)s.tokens, (long long)(s.heads * s.m)));
    TRY(need(b, count(b->n->in[4]) == s.tokens * s.heads * s.m * s.cores && b->n->in[4]->dtype == DT_F32,
             "ds must be f32, [%lld, %lld]", (long long)s.tokens, (long long)(s.heads * s.m * s.cores)));
    TRY(out_like(b, 0, b->n->in[0]));
    TRY(out_like(b, 1, b->n->in[1]));
    return out_shape(b, 2, DT_F32, 2, b->n->in[2]->dim);
}

static void grad_reference(const op_call64 *c)
{
    search s = shape_of(c->node);
    i64 r = s.r, size = r * r, n = s.keys;
    memset(c->out[0], 0, sizeof(double) * (size_t)count(c->node->in[0]));
    memset(c->out[1], 0, sizeof(double) * (size_t)count(c->node->in[1]));
    memset(c->out[2], 0, sizeof(double) * (size_t)count(c->node->in[2]));
    for (i64 k = 0; k < s.tokens * s.heads; k++)
        for (i64 e = 0; e < s.m * s.cores; e++) {
            i64 at = (i64)c->in[3][k * s.m + e / s.cores], i = at / n, j = at % n;
            i64 core = (k % s.heads * s.cores + e % s.cores) * size, from = k * r * n;
            double ds = c->in[4][k * s.m * s.cores + e];
            if (at < 0 || i >= n) continue;
            for (i64 p = 0; p < r; p++)
                for (i64 q = 0; q < r; q++) {
                    double C = c->in[2][core + p * r + q], row = c->in[0][from + p * n + i],
                           col = c->in[1][from + q * n + j];
                    c->out[0][from + p * n + i] += ds * C * col;
                    c->out[1][from + q * n + j] += ds * C * row;
                    c->out[2][core + p * r + q] += ds * row * col;
                }
        }
}

/* One selected cell of one core. */
static void grad_cell(i64 r, i64 n, float ds, const float *row, const float *col, const float *C, float *drow,
                      float *dcol, float *dC)
{
    for (i64 p = 0; p < r; p++) {
        float by = 0, x = row[p * n];
        for (i64 q = 0; q < r; q++) {
            float y = col[q * n];
            by += C[p * r + q] * y;
            dcol[q * n] += ds * C[p * r + q] * x;
            dC[p * r + q] += ds * x * y;
        }
        drow[p * n] += ds * by;
    }
}

static void grad_token(const op_call *c, const search *s, i64 token, float *dcore)
{
    i64 r = s->r, n = s->keys, wide = s->heads * r * n, size = r * r;
    float *drow = (float *)c->out[0].p + token * c->out[0].stride;
    float *dcol = (float *)c->out[1].p + token * c->out[1].stride;
    const float *row = (const float *)c->in[0].p + token * c->in[0].stride;
    const float *col = (const float *)c->in[1].p + token * c->in[1].stride;
    const i32 *index = (const i32 *)c->in[3].p + token * c->in[3].stride;
    const float *ds = (const float *)c->in[4].p + token * c->in[4].stride;
    memset(drow, 0, sizeof *drow * (size_t)wide);
    memset(dcol, 0, sizeof *dcol * (size_t)wide);
    for (i64 a = 0; a < s->heads * s->m; a++) {
        i64 head = a / s->m, at = index[a], i = at / n, j = at % n, from = head * r * n;
        if (at < 0 || i >= n) continue;
        for (i64 k = 0; k < s->cores; k++) {
            i64 core = (head * s->cores + k) * size;
            grad_cell(r, n, ds[a * s->cores + k], row + from + i, col + from + j,
                      (const float *)c->in[2].p + core, drow + from + i, dcol + from + j, dcore + core);
        }
    }
}

static i64 core_floats(const op_call *c) { return round_up(count(c->node->in[2]), 16); }
static status grad_prepare(op_call *c)
{
    return want_scratch(c, (size_t)c->threads * (size_t)core_floats(c) * sizeof(float));
}

static void grad_cpu(const op_call *c)
{
    search s = shape_of(c->node);
    i64 numbers = count(c->node->in[2]), padded = core_floats(c);
    float *partial = (float *)call_scratch(c), *dcore = c->out[2].p;
    int team = 1;
#pragma omp parallel
    {
        i64 first, last;
        float *own = partial + thread_index() * padded;
        memset(own, 0, sizeof *own * (size_t)numbers);
        if (thread_index() == 0) team = omp_get_num_threads();
        part(s.tokens, thread_index(), omp_get_num_threads(), &first, &last);
        for (i64 t = first; t < last; t++) grad_token(c, &s, t, own);
    }
    for (i64 k = 0; k < numbers; k++) {
        float sum = accumulates(c, 2) ? dcore[k] : 0;
        for (int t = 0; t < team; t++) sum += partial[t * padded + k];
        dcore[k] = sum;
    }
}

static op_cost grad_cost(const node *op)
{
    search s = shape_of(op);
    return (op_cost){(double)(s.tokens * s.heads * s.m * s.cores * s.r * s.r * 6), traffic(op)};
}

static const op_case grad_cases[] = {
    {"typical",
     "rows=3x5x128 cols=3x5x128 core=4x4 index=3x5x10 ds=3x5x20 heads=2 m=5 fill.index=below:1024 f32"},
    {"one", "rows=2x1 cols=2x1 core=1x1 index=2x1 ds=2x1 heads=1 m=1 fill.index=zero f32"},
    {"rank three", "rows=5x198 cols=5x198 core=6x9 index=5x18 ds=5x54 heads=2 m=9 fill.index=below:1089 f32"},
    {"exact",
     "rows=9x16 cols=9x16 core=2x4 index=9x7 ds=9x14 heads=1 m=7 fill=ints fill.index=below:64 f32 tol=0"},
    {"out of range", "rows=4x8 cols=4x8 core=2x4 index=4x4 ds=4x8 heads=1 m=4 fill.index=targets:40 f32"},
    {"bench", "rows=2048x512 cols=2048x512 core=4x4 index=2048x16 ds=2048x32 heads=2 m=8 "
              "fill.index=below:16384 f32 bench"},
    {0},
};

OP_DEF(memory_search_grad) = {
    .name = "memory_search_grad",
    .brief = "gradients of the selected scores: dS_row, dS_col, dC",
    .source = "UltraMem, arXiv:2411.12364",
    .in = {{"rows", "[tokens, n]", ARG_F32},
           {"cols", "[tokens, n]", ARG_F32},
           {"core", "[k, r2]", ARG_F32},
           {"index", "[tokens, heads m]", ARG_I32, .range = "any"},
           {"ds", "[tokens, heads m cores]", ARG_F32}},
    .out = {{"drows", "[tokens, n]"}, {"dcols", "[tokens, n]"}, {"dcore", "[k, r2]", ARG_F32}},
    .attrs = SEARCH_ATTRS,
    .flags = OP_ACCUMULATES,
    .infer = grad_infer,
    .reference = grad_reference,
    .cpu = grad_cpu,
    .prepare = grad_prepare,
    .cost = grad_cost,
    .cases = grad_cases,
};

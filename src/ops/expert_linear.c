/* expert_linear: up to three linear maps, each expert with its own, over rows sorted by expert (see
 * moe_plan); outputs side by side (gate, up; or one).
 *
 *   y[p] = [x[p] W0[e]^T + b0[e], x[p] W1[e]^T + b1[e], ...],  e the expert of place p
 *                                    x [n, in], W_i [E, n_i, in], b_i [E, n_i], offsets [E + 1], y [n, sum
 * n_i] dx[p] = sum_i dy_i[p] W_i[e],  dW_i[e] = sum over places p of e of dy_i[p]^T x[p],  db_i[e] = sum
 * dy_i[p]
 *
 * Rows of no expert (behind offsets[E], where assignments were dropped) are 0 in y and dx.
 *
 * No padding, no capacity: the work is that of n rows however they are spread (MegaBlocks, arXiv:2211.15841).
 * It is cut into tasks, a block of one expert's rows (y, dx) or of one weight's (dW, whose sums are as long
 * as the expert has rows), each a product on one thread; threads take the next task when they are done, so
 * that neither an expert with most rows nor many with few keep anybody waiting. What a task computes does not
 * depend on who runs it. dW accumulates in f32 into the gradient buffers; of several weights dx is summed in
 * f32 and rounded once. One thread a product is also the faster way: 905 GFLOP/s of processor time against
 * 800 for products that share all threads, at 512x768x576 in bf16 on two cores; dW 860 against 755.
 */
#include "device/gemm.h"
#include "ops/moe.h"
#include <string.h>

enum { X, OFFSETS, W, B = W + 3, WEIGHTS = 3 }; // inputs of expert_linear: x, offsets, w.., b..
enum {
    DY = W + WEIGHTS,
    DX = 0,
    DW = 1,
    DB = 4
}; // of expert_linear_grad: x, offsets, w.., dy; dx, dw.., db..

static int n_weights(const node *n)
{
    int k = 0;
    while (k < WEIGHTS && n->in[W + k]) k++;
    return k;
}

static status check_weights(op_build *b, i64 *total)
{
    const tensor *x = b->n->in[X];
    i64 experts = count(b->n->in[OFFSETS]) - 1;
    *total = 0;
    TRY(need(b, experts >= 1, "offsets must be [experts + 1]"));
    TRY(need(b, b->n->in[W + 1] || !b->n->in[W + 2], "w2 without w1"));
    for (int i = 0; i < n_weights(b->n); i++) {
        const tensor *w = b->n->in[W + i];
        TRY(need(b, w->ndim == 3 && w->dim[0] == experts && cols(w) == cols(x),
                 "weight %d must be [%lld, n, %lld]", i, (long long)experts, (long long)cols(x)));
        TRY(need(b, w->dtype == x->dtype, "weight %d is %s, x is %s; they must agree", i,
                 dtype_name(w->dtype), dtype_name(x->dtype)));
        *total += w->dim[1];
    }
    return OK;
}

static status infer(op_build *b)
{
    i64 n;
    TRY(check_weights(b, &n));
    for (int i = 0; i < WEIGHTS; i++) {
        const tensor *w = b->n->in[W + i], *bias = b->n->in[B + i];
        TRY(need(b, !bias || (w && bias->ndim == 2 && bias->dim[0] == w->dim[0] && bias->dim[1] == w->dim[1]),
                 "bias %d must be [experts, n] like its weight", i));
    }
    return out_shape(b, 0, b->n->in[X]->dtype, 2, (i64[]){rows_of(b->n->in[X]), n});
}

static void vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    int biases = 0;
    for (int i = 0; i < WEIGHTS; i++) biases |= op->in[B + i] ? 1 << i : 0;
    node *d = g_node(g, OP_expert_linear_grad,
                     IN(op->in[X], op->in[OFFSETS], op->in[W], op->in[W + 1], op->in[W + 2], dout[0]),
                     WITH({"biases", biases}));
    din[X] = g_out(d, DX);
    for (int i = 0; i < WEIGHTS; i++) {
        din[W + i] = g_out(d, DW + i);
        din[B + i] = g_out(d, DB + i);
    }
}

static segment segment64(const op_call64 *c, i64 e, i64 rows, i64 *done)
{
    return segment_next((i64)c->in[OFFSETS][e], (i64)c->in[OFFSETS][e + 1], rows, done);
}

static void reference(const op_call64 *c)
{
    const node *op = c->node;
    i64 rows = rows_of(op->in[X]), in = cols(op->in[X]), n = cols(op->out[0]), column = 0;
    memset(c->out[0], 0, sizeof(double) * (size_t)(rows * n));
    for (int i = 0; i < n_weights(op); column += op->in[W + i]->dim[1], i++)
        for (i64 e = 0, done = 0; e + 1 < count(op->in[OFFSETS]); e++) {
            segment s = segment64(c, e, rows, &done);
            for (i64 p = s.first; p < s.first + s.rows; p++)
                for (i64 j = 0, m = op->in [W + i]->dim[1]; j < m; j++) {
                    double y = c->in[B + i] ? c->in[B + i][e * m + j] : 0;
                    for (i64 k = 0; k < in; k++)
                        y += c->in[X][p * in + k] * c->in[W + i][(e * m + j) * in + k];
                    c->out[0][p * n + column + j] = y;
                }
        }
}

/* ---- what both kernels share */

static gemm_type storage(dtype t) { return t == DT_BF16 ? GEMM_BF16 : GEMM_F32; }
static void *cell(const view *v, i64 row, i64 column)
{
    return (char *)v->p + (row * v->stride + column) * dtype_bytes(v->dtype);
}
static i64 outputs(const op_call *c, int i) { return c->node->in[W + i]->dim[1]; }

static void zero_rows(const view *v, i64 first, i64 end)
{
    for (i64 r = first; r < end; r++) memset(cell(v, r, 0), 0, (size_t)(v->n * dtype_bytes(v->dtype)));
}

/* ---- tasks */

enum { LEAST_ROWS = 64, MOST_ROWS = 256, MOST_OUTPUTS = 384, TASKS_A_THREAD = 4 };

typedef struct block { // of one expert's rows
    i32 expert, first, rows;
} block;

/* Rows of a block: fewer where there are many threads, so that each has some tasks. */
static i64 block_rows(const op_call *c)
{
    i64 share = c->in[X].rows / ((i64)c->threads * TASKS_A_THREAD);
    return MIN(MOST_ROWS, MAX(LEAST_ROWS, round_up(share, 32)));
}
static i64 most_blocks(const op_call *c)
{
    return c->in[X].rows / block_rows(c) + count(c->node->in[OFFSETS]);
}

/* In scratch: the experts' rows, then the blocks, then a part for every thread. */
static i64 segments_bytes(const op_call *c)
{
    return round_up(count(c->node->in[OFFSETS]) * (i64)sizeof(segment), 64);
}
static i64 blocks_bytes(const op_call *c) { return round_up(most_blocks(c) * (i64)sizeof(block), 64); }
static segment *segments_of(const op_call *c) { return (segment *)call_scratch(c); }
static block *blocks_of(const op_call *c) { return (block *)(call_scratch(c) + segments_bytes(c)); }
static char *thread_scratch(const op_call *c, i64 bytes)
{
    return call_scratch(c) + segments_bytes(c) + blocks_bytes(c) + thread_index() * bytes;
}
static status want_parts(op_call *c, i64 bytes)
{
    return want_scratch(c, (size_t)(segments_bytes(c) + blocks_bytes(c) + c->threads * bytes));
}

/* Writes the experts' rows and their blocks, and 0 into rows of V that no expert has; returns how many
 * blocks.
 */
static i64 cut(const op_call *c, const view *v)
{
    const i32 *offsets = c->in[OFFSETS].p;
    block *to = blocks_of(c);
    i64 n = 0, done = 0, most = block_rows(c);
    for (i64 e = 0; e + 1 < count(c->node->in[OFFSETS]); e++) {
        i64 before = done;
        segment s = segments_of(c)[e] = segment_next(offsets[e], offsets[e + 1], v->rows, &done);
        zero_rows(v, before, s.first);
        for (i64 at = 0; at < s.rows; at += most)
            to[n++] = (block){(i32)e, (i32)(s.first + at), (i32)MIN(most, s.rows - at)};
    }
    zero_rows(v, done, v->rows);
    return n;
}

/* A plan for a block, and one for a single row: what decoding has, and much faster at it. One thread each. */
typedef struct ragged {
    const gemm_plan *many, *one;
} ragged;

static status plan_ragged(const op_call *c, gemm_spec s, ragged *out, i64 *most)
{
    s.serial = true;
    s.m = block_rows(c);
    s.ragged = true;
    TRY(gemm_plan_get(c->device, &s, &out->many));
    s.m = 1;
    s.ragged = false;
    TRY(gemm_plan_get(c->device, &s, &out->one));
    *most = MAX(*most, MAX(gemm_scratch_bytes(out->many), gemm_scratch_bytes(out->one)));
    return OK;
}

static void run_ragged(const ragged *p, i64 rows, const void *a, const void *b, void *y, const void *bias,
                       void *scratch)
{
    if (rows == 1)
        gemm_run(p->one, a, b, y, bias, scratch);
    else
        gemm_run_rows(p->many, rows, a, b, y, bias, scratch);
}

/* ---- forward */

typedef struct forward_plan {
    ragged y[WEIGHTS];
    i64 scratch; // of a thread
} forward_plan;

static status prepare(op_call *c)
{
    forward_plan *p = c->plan = arena_new(c->arena, forward_plan);
    i64 most = 0;
    for (int i = 0; i < n_weights(c->node); i++) {
        gemm_spec s = {.n = outputs(c, i), .k = c->in[X].n, .ab = storage(c->in[X].dtype), .b_trans = true};
        s.c = storage(c->out[0].dtype);
        s.lda = c->in[X].stride;
        s.ldb = c->in[W + i].stride;
        s.ldc = c->out[0].stride;
        s.bias = c->node->in[B + i] ? GEMM_BIAS_F32 : GEMM_NO_BIAS;
        TRY(plan_ragged(c, s, &p->y[i], &most));
    }
    p->scratch = round_up(most, 64);
    return want_parts(c, p->scratch);
}

/* Columns of weight I of block K. */
static void forward_task(const op_call *c, const block *k, int i)
{
    const forward_plan *p = c->plan;
    const float *bias = c->in[B + i].p;
    i64 column = 0, n = outputs(c, i);
    for (int j = 0; j < i; j++) column += outputs(c, j);
    run_ragged(&p->y[i], k->rows, cell(&c->in[X], k->first, 0), cell(&c->in[W + i], k->expert * n, 0),
               cell(&c->out[0], k->first, column), bias ? bias + k->expert * n : NULL,
               thread_scratch(c, p->scratch));
}

static void cpu(const op_call *c)
{
    int weights = n_weights(c->node);
    i64 tasks = cut(c, &c->out[0]) * weights;
#pragma omp parallel for schedule(dynamic, 1)
    for (i64 t = 0; t < tasks; t++) forward_task(c, &blocks_of(c)[t / weights], (int)(t % weights));
}

static op_cost cost(const node *op)
{
    return (op_cost){2.0 * (double)count(op->out[0]) * (double)cols(op->in[X]), traffic(op)};
}

static const op_case cases[] = {
    {"one", "x=33x24 offsets=5 w=4x17x24 fill.offsets=cuts:33 f32 bf16"},
    {"gate and up", "x=64x32 offsets=9 w=8x16x32 w1=8x16x32 fill.offsets=cuts:64 f32 bf16"},
    {"three with biases", "x=33x24 offsets=4 w=3x8x24 w1=3x5x24 w2=3x9x24 b=3x8 b1=3x5 b2=3x9 "
                          "fill.offsets=cuts:33 f32 bf16"},
    {"some biases", "x=33x24 offsets=4 w=3x8x24 w1=3x5x24 b1=3x5 fill.offsets=cuts:33 f32 bf16"},
    {"some dropped", "x=33x24 offsets=5 w=4x17x24 fill.offsets=cuts:20 f32 bf16"},
    {"all dropped", "x=7x24 offsets=5 w=4x17x24 fill.offsets=zero f32 bf16"},
    {"a row each", "x=9x40 offsets=10 w=9x16x40 fill.offsets=iota f32 bf16"},
    {"one expert", "x=9x40 offsets=2 w=1x16x40 b=1x16 fill.offsets=cuts:9 f32 bf16"},
    {"offsets that lie", "x=9x24 offsets=6 w=5x8x24 fill.offsets=below:20 f32 bf16 grad=0"},
    {"several blocks", "x=300x16 offsets=3 w=2x8x16 w1=2x8x16 fill.offsets=cuts:300 f32 bf16"},
    {"one of all", "x=1x1 offsets=2 w=1x1x1 fill.offsets=iota f32 bf16"},
    {"exact", "x=33x16 offsets=5 w=4x17x16 b=4x17 fill=ints fill.offsets=cuts:33 f32 bf16 tol=0"},
    {"135m up", "x=4096x576 offsets=9 w=8x768x576 w1=8x768x576 fill.offsets=cuts:4096 bf16 bench"},
    {"135m down", "x=4096x768 offsets=9 w=8x576x768 fill.offsets=cuts:4096 bf16 bench"},
    {0},
};

/* With one expert it is a linear map: row p is x[p] W^T. */
static double one_expert(law *l)
{
    const double *y = law_run(l, 0), *x = law_in(l, "x"), *w = law_in(l, "w");
    double worst = 0;
    for (int p = 0; p < 9; p++)
        for (int j = 0; j < 7; j++) {
            double sum = 0;
            for (int k = 0; k < 5; k++) sum += x[p * 5 + k] * w[j * 5 + k];
            worst = fmax(worst, fabs(y[p * 7 + j] - sum));
        }
    return worst;
}
static const op_law laws[] = {
    {"one expert is a linear map", "x=9x5 offsets=2 w=1x7x5 fill.offsets=cuts:9", one_expert, 1e-12}, {0}};

OP_DEF(expert_linear) = {
    .name = "expert_linear",
    .brief = "y[p] = [x[p] W0[e]^T + b0[e], ...], e the expert of row p",
    .source = "MegaBlocks, arXiv:2211.15841",
    .in = {{"x", "[n, in]"},
           {"offsets", "[experts + 1]", ARG_I32, .range = "any"}, // held within the rows there are
           {"w", "[experts, o, in]", ARG_WEIGHT},
           {"w1", "[experts, o1, in]", ARG_WEIGHT, .optional = true},
           {"w2", "[experts, o2, in]", ARG_WEIGHT, .optional = true},
           {"b", "[experts, o]", ARG_F32, .optional = true},
           {"b1", "[experts, o1]", ARG_F32, .optional = true},
           {"b2", "[experts, o2]", ARG_F32, .optional = true}},
    .out = {{"y", "[n, o + o1 + o2]"}},
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
    const tensor *x = b->n->in[X], *dy = b->n->in[DY];
    int biases = (int)attr(b->n, "biases");
    i64 n;
    TRY(check_weights(b, &n));
    TRY(need(b, cols(dy) == n && rows_of(dy) == rows_of(x) && dy->dtype == x->dtype,
             "dy must be [%lld, %lld] of %s", (long long)rows_of(x), (long long)n, dtype_name(x->dtype)));
    TRY(need(b, !(biases >> n_weights(b->n)), "biases is %d for %d weights", biases, n_weights(b->n)));
    TRY(out_like(b, DX, x));
    for (int i = 0; i < n_weights(b->n); i++) {
        TRY(out_shape(b, DW + i, DT_F32, 3, b->n->in[W + i]->dim));
        if (biases >> i & 1) TRY(out_shape(b, DB + i, DT_F32, 2, b->n->in[W + i]->dim));
    }
    return OK;
}

/* What expert E's rows S give to dx, dW_i and db_i. */
static void expert_gradient64(const op_call64 *c, int i, i64 e, segment s, i64 column)
{
    i64 in = cols(c->node->in[X]), n = cols(c->node->in[DY]), m = c->node->in[W + i]->dim[1];
    for (i64 j = 0; j < m; j++)
        for (i64 p = s.first; p < s.first + s.rows; p++) {
            double dy = c->in[DY][p * n + column + j];
            if (c->out[DB + i]) c->out[DB + i][e * m + j] += dy;
            for (i64 k = 0; k < in; k++) {
                c->out[DX][p * in + k] += dy * c->in[W + i][(e * m + j) * in + k];
                c->out[DW + i][(e * m + j) * in + k] += dy * c->in[X][p * in + k];
            }
        }
}

static void grad_reference(const op_call64 *c)
{
    const node *op = c->node;
    i64 column = 0;
    for (int k = 0; k < op->n_out; k++)
        if (op->out[k]) memset(c->out[k], 0, sizeof(double) * (size_t)count(op->out[k]));
    for (int i = 0; i < n_weights(op); column += op->in[W + i]->dim[1], i++)
        for (i64 e = 0, done = 0; e + 1 < count(op->in[OFFSETS]); e++)
            expert_gradient64(c, i, e, segment64(c, e, rows_of(op->in[X]), &done), column);
}

typedef struct weight_tasks { // dW_i of an expert in pieces of its rows
    const gemm_plan *piece, *last;
    i64 rows, n;
} weight_tasks;

typedef struct backward_plan {
    ragged dx[WEIGHTS];
    weight_tasks dw[WEIGHTS];
    bool sum;             // dx is summed in f32 in scratch
    i64 gemm_at, scratch; // of a thread: the sum, then what a product needs
} backward_plan;

static status plan_dx(op_call *c, backward_plan *p, i64 *most)
{
    const view *x = &c->in[X], *dx = &c->out[DX];
    for (int i = 0; i < n_weights(c->node); i++) {
        gemm_spec s = {.n = x->n, .k = outputs(c, i), .ab = storage(x->dtype), .accumulate = i > 0};
        s.c = p->sum ? GEMM_F32 : storage(dx->dtype);
        s.lda = c->in[DY].stride;
        s.ldb = c->in[W + i].stride;
        s.ldc = p->sum ? x->n : dx->stride;
        TRY(plan_ragged(c, s, &p->dx[i], most));
    }
    return OK;
}

static status plan_dw(op_call *c, backward_plan *p, i64 *most)
{
    i64 experts = count(c->node->in[OFFSETS]) - 1;
    for (int i = 0; i < n_weights(c->node); i++) {
        weight_tasks *w = &p->dw[i];
        i64 n = outputs(c, i), share = experts * n / ((i64)c->threads * TASKS_A_THREAD);
        i64 most_rows = MIN(MOST_OUTPUTS, MAX(LEAST_ROWS, share)), pieces = (n + most_rows - 1) / most_rows;
        w->rows = MIN(n, round_up((n + pieces - 1) / pieces, 16));
        w->n = (n + w->rows - 1) / w->rows;
        gemm_spec s = {.n = c->in[X].n, .k = c->in[X].rows, .ab = storage(c->in[X].dtype), .a_trans = true};
        s.ragged_depth = s.serial = true;
        s.lda = c->in[DY].stride;
        s.ldb = c->in[X].stride;
        s.ldc = c->out[DW + i].stride;
        s.accumulate = accumulates(c, DW + i);
        s.m = w->rows;
        TRY(gemm_plan_get(c->device, &s, &w->piece));
        s.m = n - (w->n - 1) * w->rows;
        TRY(gemm_plan_get(c->device, &s, &w->last));
        *most = MAX(*most, MAX(gemm_scratch_bytes(w->piece), gemm_scratch_bytes(w->last)));
    }
    return OK;
}

static status grad_prepare(op_call *c)
{
    backward_plan *p = c->plan = arena_new(c->arena, backward_plan);
    i64 most = 0;
    p->sum = n_weights(c->node) > 1 && c->out[DX].dtype == DT_BF16;
    TRY(plan_dx(c, p, &most));
    TRY(plan_dw(c, p, &most));
    p->gemm_at = p->sum ? round_up(block_rows(c) * c->in[X].n * (i64)sizeof(float), 64) : 0;
    p->scratch = p->gemm_at + round_up(most, 64);
    return want_parts(c, p->scratch);
}

static void dx_task(const op_call *c, const block *k)
{
    const backward_plan *p = c->plan;
    const view *dx = &c->out[DX];
    char *scratch = thread_scratch(c, p->scratch);
    void *to = p->sum ? scratch : cell(dx, k->first, 0);
    i64 column = 0;
    for (int i = 0; i < n_weights(c->node); column += outputs(c, i), i++)
        run_ragged(&p->dx[i], k->rows, cell(&c->in[DY], k->first, column),
                   cell(&c->in[W + i], k->expert * outputs(c, i), 0), to, NULL, scratch + p->gemm_at);
    for (i64 r = 0; p->sum && r < k->rows; r++)
        narrow(cell(dx, k->first + r, 0), (const float *)scratch + r * dx->n, dx->n);
}

static void bias_gradient(const op_call *c, int i, i64 e, segment s, i64 column)
{
    i64 n = outputs(c, i);
    float *restrict db = (float *)c->out[DB + i].p + e * n;
    if (!accumulates(c, DB + i)) memset(db, 0, (size_t)n * sizeof *db);
    for (i64 p = s.first; p < s.first + s.rows; p++) {
        const float *restrict row = row_in(c, DY, p) + column;
        for (i64 j = 0; j < n; j++) db[j] += row[j];
    }
}

/* Piece PIECE of all pieces of expert E's weights; the first of a weight sums its bias too. */
static void dw_task(const op_call *c, i64 e, i64 piece)
{
    const backward_plan *p = c->plan;
    segment s = segments_of(c)[e];
    i64 column = 0;
    int i = 0;
    for (; piece >= p->dw[i].n; i++) piece -= p->dw[i].n, column += outputs(c, i);
    const weight_tasks *w = &p->dw[i];
    i64 at = piece * w->rows;
    gemm_run_depth(piece == w->n - 1 ? w->last : w->piece, s.rows, cell(&c->in[DY], s.first, column + at),
                   cell(&c->in[X], s.first, 0), cell(&c->out[DW + i], e * outputs(c, i) + at, 0),
                   thread_scratch(c, p->scratch) + p->gemm_at);
    if (!piece && c->out[DB + i].p) bias_gradient(c, i, e, s, column);
}

static void grad_cpu(const op_call *c)
{
    const backward_plan *p = c->plan;
    i64 n = cut(c, &c->out[DX]), pieces = 0;
    for (int i = 0; i < n_weights(c->node); i++) pieces += p->dw[i].n;
    i64 tasks = pieces * (count(c->node->in[OFFSETS]) - 1);
#pragma omp parallel for schedule(dynamic, 1)
    for (i64 t = 0; t < tasks + n; t++)
        if (t < tasks)
            dw_task(c, t / pieces, t % pieces);
        else
            dx_task(c, &blocks_of(c)[t - tasks]);
}

static op_cost grad_cost(const node *op)
{
    return (op_cost){4.0 * (double)count(op->in[DY]) * (double)cols(op->in[X]), traffic(op)};
}

static const op_case grad_cases[] = {
    {"one", "x=33x24 offsets=5 w=4x17x24 dy=33x17 fill.offsets=cuts:33 f32 bf16"},
    {"gate and up", "x=64x32 offsets=9 w=8x16x32 w1=8x16x32 dy=64x32 fill.offsets=cuts:64 f32 bf16"},
    {"three with biases", "x=33x24 offsets=4 w=3x8x24 w1=3x5x24 w2=3x9x24 dy=33x22 biases=7 "
                          "fill.offsets=cuts:33 f32 bf16"},
    {"some biases", "x=33x24 offsets=4 w=3x8x24 w1=3x5x24 dy=33x13 biases=2 fill.offsets=cuts:33 f32 bf16"},
    {"some dropped", "x=33x24 offsets=5 w=4x17x24 dy=33x17 biases=1 fill.offsets=cuts:20 f32 bf16"},
    {"all dropped", "x=7x24 offsets=5 w=4x17x24 dy=7x17 biases=1 fill.offsets=zero f32 bf16"},
    {"a row each", "x=9x40 offsets=10 w=9x16x40 dy=9x16 fill.offsets=iota f32 bf16"},
    {"offsets that lie", "x=9x24 offsets=6 w=5x8x24 dy=9x8 fill.offsets=below:20 biases=1 f32 bf16"},
    {"several blocks", "x=300x16 offsets=3 w=2x8x16 w1=2x8x16 dy=300x16 fill.offsets=cuts:300 f32 bf16"},
    {"several pieces", "x=33x16 offsets=3 w=2x500x16 dy=33x500 biases=1 fill.offsets=cuts:33 f32 bf16"},
    {"one of all", "x=1x1 offsets=2 w=1x1x1 dy=1x1 fill.offsets=iota f32 bf16"},
    {"exact", "x=33x16 offsets=5 w=4x17x16 dy=33x17 biases=1 fill=ints fill.offsets=cuts:33 f32 tol=0"},
    {"135m up",
     "x=4096x576 offsets=9 w=8x768x576 w1=8x768x576 dy=4096x1536 fill.offsets=cuts:4096 bf16 bench"},
    {"135m down", "x=4096x768 offsets=9 w=8x576x768 dy=4096x576 fill.offsets=cuts:4096 bf16 bench"},
    {0},
};

OP_DEF(expert_linear_grad) = {
    .name = "expert_linear_grad",
    .brief = "dx[p] = sum_i dy_i[p] W_i[e], dW_i[e] = sum over rows of e of dy_i^T x, db_i[e] = sum of dy_i",
    .in = {{"x", "[n, in]"},
           {"offsets", "[experts + 1]", ARG_I32, .range = "any"},
           {"w", "[experts, o, in]", ARG_WEIGHT},
           {"w1", "[experts, o1, in]", ARG_WEIGHT, .optional = true},
           {"w2", "[experts, o2, in]", ARG_WEIGHT, .optional = true},
           {"dy", "[n, o + o1 + o2]"}},
    .out = {{"dx", "[n, in]"},
            {"dw", "[experts, o, in]", ARG_F32},
            {"dw1", "[experts, o1, in]", ARG_F32, .optional = true},
            {"dw2", "[experts, o2, in]", ARG_F32, .optional = true},
            {"db", "[experts, o]", ARG_F32, .optional = true},
            {"db1", "[experts, o1]", ARG_F32, .optional = true},
            {"db2", "[experts, o2]", ARG_F32, .optional = true}},
    .attrs = {{"biases", 0, 0, 7, "which weights have a bias: 1 + 2 + 4"}},
    .flags = OP_ACCUMULATES,
    .infer = grad_infer,
    .reference = grad_reference,
    .cpu = grad_cpu,
    .prepare = grad_prepare,
    .cost = grad_cost,
    .cases = grad_cases,
};

/* linear: up to three linear maps of the same input, their outputs side by side (q, k, v; gate, up; or one).
 *
 *   y  = [x W0^T + b0, x W1^T + b1, x W2^T + b2]         x [rows, in], W_i [n_i, in], b_i [n_i], y [rows, n]
 *   dx = sum_i dy_i W_i,  dW_i = dy_i^T x,  db_i = sum over rows of dy_i               dy_i = columns of dy
 *
 * Weights that lie side by side in memory (declared one after the other, no padding between them) are one
 * matrix to the GEMM: one call for y, one for dx, and dW accumulates in f32 straight into the gradient
 * buffers. Weights that lie apart take a call each, into columns of y; dx is then summed in f32.
 *
 * Numerics: products and sums in f32, rounded once on storing. `f32 = 1` keeps y in f32 whatever the storage
 * of activations (logits for sampling); its gradient is rounded to the storage of x first.
 */
#include "device/gemm.h"
#include "ops/op.h"
#include <assert.h>
#include <string.h>

enum { X, W, B = W + 3, WEIGHTS = 3 };       // inputs of linear: x, w, w1, w2, b, b1, b2
enum { DY = W + 3, DX = 0, DW = 1, DB = 4 }; // of linear_grad: x, w, w1, w2, dy; outputs dx, dw.., db..

static int n_weights(const node *n)
{
    int k = 0;
    while (k < WEIGHTS && n->in[W + k]) k++;
    return k;
}

static status check_weights(op_build *b, i64 *total)
{
    const tensor *x = b->n->in[X];
    *total = 0;
    TRY(need(b, b->n->in[W + 1] || !b->n->in[W + 2], "w2 without w1"));
    for (int i = 0; i < n_weights(b->n); i++) {
        const tensor *w = b->n->in[W + i];
        TRY(need(b, w->ndim == 2 && cols(w) == cols(x), "weight %d must be [n, %lld]", i,
                 (long long)cols(x)));
        TRY(need(b, w->dtype == x->dtype, "weight %d is %s, x is %s; they must agree", i,
                 dtype_name(w->dtype), dtype_name(x->dtype)));
        *total += w->dim[0];
    }
    return OK;
}

static status infer(op_build *b)
{
    const tensor *x = b->n->in[X];
    i64 dim[MAX_DIMS], n;
    TRY(check_weights(b, &n));
    for (int i = 0; i < WEIGHTS; i++) {
        const tensor *w = b->n->in[W + i], *bias = b->n->in[B + i];
        TRY(need(b, !bias || w, "bias %d without its weight", i));
        TRY(need(b, !bias || (bias->ndim == 1 && bias->dim[0] == w->dim[0]), "bias %d must be [%lld]", i,
                 (long long)(w ? w->dim[0] : 0)));
    }
    memcpy(dim, x->dim, sizeof dim);
    dim[x->ndim - 1] = n;
    return out_shape(b, 0, attr(b->n, "f32") != 0 ? DT_F32 : b->g->options.act, x->ndim, dim);
}

static void vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    int biases = 0;
    for (int i = 0; i < WEIGHTS; i++) biases |= op->in[B + i] ? 1 << i : 0;
    node *d = g_node(g, OP_linear_grad, IN(op->in[X], op->in[W], op->in[W + 1], op->in[W + 2], dout[0]),
                     WITH({"biases", biases}));
    din[X] = g_out(d, DX);
    for (int i = 0; i < WEIGHTS; i++) {
        din[W + i] = g_out(d, DW + i);
        din[B + i] = g_out(d, DB + i);
    }
}

static void reference(const op_call64 *c)
{
    const node *op = c->node;
    i64 rows = rows_of(op->in[X]), in = cols(op->in[X]), n = cols(op->out[0]);
    for (i64 r = 0; r < rows; r++) {
        double *y = c->out[0] + r * n;
        for (int i = 0; i < n_weights(op); i++)
            for (i64 j = 0; j < op->in[W + i]->dim[0]; j++, y++) {
                *y = c->in[B + i] ? c->in[B + i][j] : 0;
                for (i64 k = 0; k < in; k++) *y += c->in[X][r * in + k] * c->in[W + i][j * in + k];
            }
    }
}

/* ---- what both kernels share: weights grouped by what lies side by side */

typedef struct group {
    int first;        // its first weight
    i64 rows, column; // rows of the stacked matrix; first column of it in y
    const gemm_plan *plan;
} group;

/* Views V[0..N) stacked along rows wherever one ends exactly where the next begins and their bits in KIND
 * agree; returns how many stacks. */
static int group_adjacent(const view *v, int n, unsigned kind, group *g)
{
    int k = 0;
    i64 column = 0;
    for (int i = 0; i < n; column += v[i].rows, i++) {
        const char *end = i && v[i - 1].p ? (char *)v[i - 1].p +
                                                v[i - 1].rows * v[i - 1].stride * dtype_bytes(v[i - 1].dtype)
                                          : NULL;
        bool alike = i && v[i].stride == v[i - 1].stride && (kind >> i & 1) == (kind >> (i - 1) & 1);
        if (end && end == v[i].p && alike)
            g[k - 1].rows += v[i].rows;
        else
            g[k++] = (group){.first = i, .rows = v[i].rows, .column = column};
    }
    return k;
}

static gemm_type storage(dtype t) { return t == DT_BF16 ? GEMM_BF16 : GEMM_F32; }
static void *at_column(const view *v, i64 column) { return (char *)v->p + column * dtype_bytes(v->dtype); }

typedef struct forward_plan {
    group y[WEIGHTS];
    int n_groups;
    bool gather; // biases are put side by side in scratch
    size_t gemm_at;
} forward_plan;

static bool has_bias(const node *n) { return n->in[B] || n->in[B + 1] || n->in[B + 2]; }

static status prepare(op_call *c)
{
    forward_plan *p = c->plan = arena_new(c->arena, forward_plan);
    const view *x = &c->in[X], *y = &c->out[0];
    i64 most = 0;
    p->n_groups = group_adjacent(&c->in[W], n_weights(c->node), 0, p->y);
    p->gather = has_bias(c->node) && n_weights(c->node) > 1;
    p->gemm_at = p->gather ? (size_t)round_up(y->n * (i64)sizeof(float), 64) : 0;
    for (int k = 0; k < p->n_groups; k++) {
        group *g = &p->y[k];
        TRY(gemm_plan_get(c->device,
                          &(gemm_spec){.m = x->rows,
                                       .n = g->rows,
                                       .k = x->n,
                                       .ab = storage(x->dtype),
                                       .c = storage(y->dtype),
                                       .b_trans = true,
                                       .lda = x->stride,
                                       .ldb = c->in[W + g->first].stride,
                                       .ldc = y->stride,
                                       .bias = has_bias(c->node) ? GEMM_BIAS_F32 : GEMM_NO_BIAS},
                          &g->plan));
        most = MAX(most, gemm_scratch_bytes(g->plan));
    }
    return want_scratch(c, p->gemm_at + (size_t)most);
}

/* [b0, b1, b2] with zeros where one is absent. */
static const float *side_by_side(const op_call *c, float *all)
{
    float *to = all;
    for (int i = 0; i < n_weights(c->node); to += c->in[W + i].rows, i++)
        if (c->in[B + i].p)
            memcpy(to, c->in[B + i].p, (size_t)c->in[W + i].rows * sizeof *to);
        else
            memset(to, 0, (size_t)c->in[W + i].rows * sizeof *to);
    return all;
}

static void cpu(const op_call *c)
{
    const forward_plan *p = c->plan;
    char *scratch = call_scratch(c);
    const float *bias = p->gather ? side_by_side(c, (float *)scratch) : c->in[B].p;
    for (int k = 0; k < p->n_groups; k++) {
        const group *g = &p->y[k];
        gemm_run(g->plan, c->in[X].p, c->in[W + g->first].p, at_column(&c->out[0], g->column),
                 bias ? bias + g->column : NULL, scratch + p->gemm_at);
    }
}

static op_cost cost(const node *op)
{
    return (op_cost){2.0 * (double)count(op->out[0]) * (double)cols(op->in[X]), traffic(op)};
}

static const op_case cases[] = {
    {"one", "x=33x64 w=96x64 f32 bf16"},
    {"bias", "x=33x64 w=96x64 b=96 f32 bf16"},
    {"three", "x=33x64 w=64x64 w1=32x64 w2=32x64 f32 bf16"},
    {"three with biases", "x=2x17x48 w=64x48 w1=16x48 w2=16x48 b=64 b1=16 b2=16 f32 bf16"},
    {"some biases", "x=5x40 w=24x40 w1=9x40 w2=8x40 b1=9 f32 bf16"},
    {"odd", "x=7x33 w=65x33 w1=3x33 b=65 b1=3 f32 bf16"},
    {"one of all", "x=1x1 w=1x1 f32 bf16"},
    {"one row", "x=1x256 w=130x256 f32 bf16"},
    {"wide output", "x=9x64 w=300x64 f32=1 f32 bf16"},
    {"exact", "x=9x16 w=33x16 w1=8x16 b=33 fill=ints f32 bf16 tol=0"},
    {"qkv 768", "x=2048x768 w=768x768 w1=768x768 w2=768x768 bf16 bench"},
    {"up 768", "x=2048x768 w=3072x768 b=3072 bf16 bench"},
    {"down 768", "x=2048x3072 w=768x3072 b=768 bf16 bench"},
    {"gate up 256", "x=8192x256 w=704x256 w1=704x256 bf16 bench"},
    {0},
};

/* Without biases y(2 x) = 2 y(x), to the bit. */
static double scaling(law *l)
{
    i64 n = law_count(l, "x"), m = 33 * 24;
    double worst = 0, first[33 * 24], *x = law_in(l, "x");
    memcpy(first, law_run(l, 0), sizeof first);
    for (i64 i = 0; i < n; i++) x[i] *= 2;
    const double *again = law_run(l, 0);
    for (i64 i = 0; i < m; i++) {
        double d = again[i] - 2 * first[i];
        worst = d > worst ? d : -d > worst ? -d : worst;
    }
    return worst;
}
static const op_law laws[] = {{"scaling", "x=33x8 w=16x8 w1=8x8", scaling, 0}, {0}};

OP_DEF(linear) = {
    .name = "linear",
    .brief = "y = [x W0^T + b0, x W1^T + b1, x W2^T + b2]",
    .in = {{"x", "[rows, in]"},
           {"w", "[n, in]", ARG_WEIGHT},
           {"w1", "[n1, in]", ARG_WEIGHT, .optional = true},
           {"w2", "[n2, in]", ARG_WEIGHT, .optional = true},
           {"b", "[n]", ARG_F32, .optional = true},
           {"b1", "[n1]", ARG_F32, .optional = true},
           {"b2", "[n2]", ARG_F32, .optional = true}},
    .out = {{"y", "[rows, n + n1 + n2]"}},
    .attrs = {{"f32", 0, 0, 1, "1: y is stored in f32"}},
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
    i64 n;
    int biases = (int)attr(b->n, "biases");
    TRY(check_weights(b, &n));
    TRY(need(b, cols(b->n->in[DY]) == n && rows_of(b->n->in[DY]) == rows_of(b->n->in[X]),
             "dy must be [%lld, %lld]", (long long)rows_of(b->n->in[X]), (long long)n));
    TRY(need(b, !(biases >> n_weights(b->n)), "biases is %d for %d weights", biases, n_weights(b->n)));
    TRY(out_like(b, DX, b->n->in[X]));
    for (int i = 0; i < n_weights(b->n); i++) {
        TRY(out_shape(b, DW + i, DT_F32, 2, b->n->in[W + i]->dim));
        if (biases >> i & 1) TRY(out_shape(b, DB + i, DT_F32, 1, b->n->in[W + i]->dim));
    }
    return OK;
}

static void grad_reference(const op_call64 *c)
{
    const node *op = c->node;
    i64 rows = rows_of(op->in[X]), in = cols(op->in[X]), n = cols(op->in[DY]), column = 0;
    memset(c->out[DX], 0, sizeof(double) * (size_t)(rows * in));
    for (int i = 0; i < n_weights(op); column += op->in[W + i]->dim[0], i++)
        for (i64 j = 0; j < op->in[W + i]->dim[0]; j++) {
            const double *w = c->in[W + i] + j * in;
            double *dw = c->out[DW + i] + j * in, db = 0;
            memset(dw, 0, sizeof(double) * (size_t)in);
            for (i64 r = 0; r < rows; r++) {
                double dy = c->in[DY][r * n + column + j];
                db += dy;
                for (i64 k = 0; k < in; k++) {
                    c->out[DX][r * in + k] += dy * w[k];
                    dw[k] += dy * c->in[X][r * in + k];
                }
            }
            if (c->out[DB + i]) c->out[DB + i][j] = db;
        }
}

typedef struct backward_plan {
    group dx[WEIGHTS], dw[WEIGHTS];
    int n_dx, n_dw;
    bool round_dy, sum_dx;                 // dy is rounded to x's storage; dx is summed in f32
    size_t dy_at, dx_at, sums_at, gemm_at; // scratch
    i64 dy_stride;
} backward_plan;

static status plan_dx(op_call *c, backward_plan *p, size_t *most)
{
    const view *x = &c->in[X], *dx = &c->out[DX];
    for (int k = 0; k < p->n_dx; k++) {
        gemm_spec s = {.m = x->rows, .n = x->n, .k = p->dx[k].rows, .ab = storage(x->dtype)};
        s.c = p->sum_dx ? GEMM_F32 : storage(dx->dtype);
        s.lda = p->dy_stride;
        s.ldb = c->in[W + p->dx[k].first].stride;
        s.ldc = p->sum_dx ? x->n : dx->stride;
        s.accumulate = k > 0;
        TRY(gemm_plan_get(c->device, &s, &p->dx[k].plan));
        *most = MAX(*most, (size_t)gemm_scratch_bytes(p->dx[k].plan));
    }
    return OK;
}

static status plan_dw(op_call *c, backward_plan *p, size_t *most)
{
    const view *x = &c->in[X];
    for (int k = 0; k < p->n_dw; k++) {
        gemm_spec s = {.m = p->dw[k].rows, .n = x->n, .k = x->rows, .ab = storage(x->dtype), .a_trans = true};
        s.lda = p->dy_stride;
        s.ldb = x->stride;
        s.ldc = c->out[DW + p->dw[k].first].stride;
        s.accumulate = accumulates(c, DW + p->dw[k].first);
        TRY(gemm_plan_get(c->device, &s, &p->dw[k].plan));
        *most = MAX(*most, (size_t)gemm_scratch_bytes(p->dw[k].plan));
    }
    return OK;
}

static status grad_prepare(op_call *c)
{
    backward_plan *p = c->plan = arena_new(c->arena, backward_plan);
    const view *x = &c->in[X], *dy = &c->in[DY];
    int n = n_weights(c->node);
    size_t most = 0;
    p->n_dx = group_adjacent(&c->in[W], n, 0, p->dx);
    p->n_dw = group_adjacent(&c->out[DW], n, c->accumulate >> DW, p->dw);
    p->round_dy = dy->dtype != x->dtype;
    p->sum_dx = p->n_dx > 1 && c->out[DX].dtype == DT_BF16;
    p->dy_stride = p->round_dy ? dy->n : dy->stride;
    TRY(plan_dx(c, p, &most));
    TRY(plan_dw(c, p, &most));

    size_t padded = (size_t)round_up(dy->n, 16) * sizeof(float);
    p->dx_at = p->round_dy ? (size_t)round_up(dy->rows * dy->n * 2, 64) : 0;
    p->sums_at = p->dx_at + (p->sum_dx ? (size_t)round_up(x->rows * x->n * 4, 64) : 0);
    p->gemm_at = p->sums_at + (size_t)c->threads * padded;
    return want_scratch(c, p->gemm_at + most);
}

/* Adds rows [first, last) of columns of V into SUMS. */
static void sum_rows(const view *v, i64 first, i64 last, float *restrict sums)
{
    for (i64 r = first; r < last; r++)
        if (v->dtype == DT_F32) {
            const float *y = (const float *)v->p + r * v->stride;
            for (i64 j = 0; j < v->n; j++) sums[j] += y[j];
        } else {
            const bf16 *y = (const bf16 *)v->p + r * v->stride;
            for (i64 j = 0; j < v->n; j++) sums[j] += bf16_to_f32(y[j]);
        }
}

/* Each thread sums its fixed share of the rows; the shares are added in order. */
static void bias_gradients(const op_call *c, float *shares)
{
    const view *dy = &c->in[DY];
    i64 padded = round_up(dy->n, 16), column = 0;
    int used = 1;
#pragma omp parallel
    {
        i64 first, last;
        float *sums = shares + thread_index() * padded;
        memset(sums, 0, (size_t)dy->n * sizeof *sums);
        part(dy->rows, thread_index(), omp_get_num_threads(), &first, &last);
        sum_rows(dy, first, last, sums);
#pragma omp single
        used = omp_get_num_threads();
    }
    for (int i = 0; i < n_weights(c->node); column += c->in[W + i].rows, i++) {
        float *db = c->out[DB + i].p;
        for (i64 j = 0; db && j < c->in[W + i].rows; j++) {
            float sum = accumulates(c, DB + i) ? db[j] : 0;
            for (int t = 0; t < used; t++) sum += shares[t * padded + column + j];
            db[j] = sum;
        }
    }
}

/* A dense copy of FROM rounded to bf16, or of f32 rows rounded into the rows of TO. */
static void narrow_rows(const float *from, i64 from_stride, bf16 *to, i64 to_stride, i64 rows, i64 n)
{
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < rows; r++) narrow(to + r * to_stride, from + r * from_stride, n);
}

static void grad_cpu(const op_call *c)
{
    const backward_plan *p = c->plan;
    char *scratch = call_scratch(c);
    const view *x = &c->in[X], *dx = &c->out[DX];
    view dy = c->in[DY];
    if (c->out[DB].p || c->out[DB + 1].p || c->out[DB + 2].p)
        bias_gradients(c, (float *)(scratch + p->sums_at));
    if (p->round_dy) {
        narrow_rows(dy.p, dy.stride, (bf16 *)scratch, dy.n, dy.rows, dy.n);
        dy = (view){scratch, DT_BF16, dy.rows, dy.n, dy.n};
    }
    void *sum = p->sum_dx ? scratch + p->dx_at : dx->p;
    for (int k = 0; k < p->n_dx; k++)
        gemm_run(p->dx[k].plan, at_column(&dy, p->dx[k].column), c->in[W + p->dx[k].first].p, sum, NULL,
                 scratch + p->gemm_at);
    if (p->sum_dx) narrow_rows(sum, x->n, dx->p, dx->stride, dx->rows, dx->n);
    for (int k = 0; k < p->n_dw; k++)
        gemm_run(p->dw[k].plan, at_column(&dy, p->dw[k].column), x->p, c->out[DW + p->dw[k].first].p, NULL,
                 scratch + p->gemm_at);
}

static op_cost grad_cost(const node *op)
{
    return (op_cost){4.0 * (double)count(op->in[DY]) * (double)cols(op->in[X]), traffic(op)};
}

static const op_case grad_cases[] = {
    {"one", "x=33x64 w=96x64 dy=33x96 f32 bf16"},
    {"bias", "x=33x64 w=96x64 dy=33x96 biases=1 f32 bf16"},
    {"three with biases", "x=2x17x48 w=64x48 w1=16x48 w2=16x48 dy=2x17x96 biases=7 f32 bf16"},
    {"some biases", "x=5x40 w=24x40 w1=9x40 w2=8x40 dy=5x41 biases=2 f32 bf16"},
    {"odd", "x=7x33 w=65x33 w1=3x33 dy=7x68 biases=3 f32 bf16"},
    {"one of all", "x=1x1 w=1x1 dy=1x1 biases=1 f32 bf16"},
    {"many rows", "x=700x16 w=8x16 dy=700x8 biases=1 f32 bf16"},
    {"exact", "x=9x16 w=33x16 w1=8x16 dy=9x41 biases=3 fill=ints f32 tol=0"},
    {"qkv 768", "x=2048x768 w=768x768 w1=768x768 w2=768x768 dy=2048x2304 bf16 bench"},
    {"up 768", "x=2048x768 w=3072x768 dy=2048x3072 biases=1 bf16 bench"},
    {"down 768", "x=2048x3072 w=768x3072 dy=2048x768 biases=1 bf16 bench"},
    {"gate up 256", "x=8192x256 w=704x256 w1=704x256 dy=8192x1408 bf16 bench"},
    {0},
};

OP_DEF(linear_grad) = {
    .name = "linear_grad",
    .brief = "dx = sum_i dy_i W_i, dW_i = dy_i^T x, db_i = sum over rows of dy_i",
    .in = {{"x", "[rows, in]"},
           {"w", "[n, in]", ARG_WEIGHT},
           {"w1", "[n1, in]", ARG_WEIGHT, .optional = true},
           {"w2", "[n2, in]", ARG_WEIGHT, .optional = true},
           {"dy", "[rows, n + n1 + n2]"}},
    .out = {{"dx", "[rows, in]"},
            {"dw", "[n, in]", ARG_F32},
            {"dw1", "[n1, in]", ARG_F32, .optional = true},
            {"dw2", "[n2, in]", ARG_F32, .optional = true},
            {"db", "[n]", ARG_F32, .optional = true},
            {"db1", "[n1]", ARG_F32, .optional = true},
            {"db2", "[n2]", ARG_F32, .optional = true}},
    .attrs = {{"biases", 0, 0, 7, "which weights have a bias: 1 + 2 + 4"}},
    .flags = OP_ACCUMULATES,
    .infer = grad_infer,
    .reference = grad_reference,
    .cpu = grad_cpu,
    .prepare = grad_prepare,
    .cost = grad_cost,
    .cases = grad_cases,
};

/* repeat: every token K times over, and back: what stands around the blocks of a PHD-Transformer.
 *
 *   repeat          y[t] = x[t];  y[T + t (K - 1) + i] = x[t], i < K - 1      x [B, T, n], y [B, K T, n]
 *   repeat_grad     dx[t] = the sum of dy over the K rows of token t
 *   repeat_index    of positions p [B, T]: copy s = 1..K gets p, or with times > 1 times p + s - 1
 *   last_copy       y[t] = x's row of copy K of token t                       x [B, K T, n], y [B, T, n]
 *   last_copy_grad  dx = dy in the rows of copy K, 0 elsewhere
 *
 * The rows of a sequence: the T tokens first (copy 1, the originals), then copies 2..K of token 0, of token
 * 1, ... So attention finds the originals as they lie in a plain model. With K = 1 nothing changes.
 *
 * Source: PHD-Transformer, arXiv:2504.14992. Numerics: copying is exact; the sum is in f32, rounded once.
 */
#include "ops/op.h"
#include <string.h>

static i64 copies_of(const node *n) { return (i64)attr(n, "copies"); }

/* Row of copy COPY (from 1) of token T, of K copies of TOKENS tokens. */
static inline i64 row_of(i64 t, i64 copy, i64 k, i64 tokens)
{
    return copy == 1 ? t : tokens + t * (k - 1) + copy - 2;
}

/* Shape of T with TIMES / OVER as many rows a sequence. */
static status out_times(op_build *b, const tensor *t, i64 times, i64 over)
{
    i64 dim[MAX_DIMS];
    memcpy(dim, t->dim, sizeof dim);
    dim[1] = dim[1] * times / over;
    return out_shape(b, 0, t->dtype, t->ndim, dim);
}

static status whole(op_build *b, const tensor *t)
{
    TRY(need(b, t->ndim == 3, "x must be [B, rows, n]"));
    return need(b, t->dim[1] % copies_of(b->n) == 0, "%lld rows are not %lld copies of every token",
                (long long)t->dim[1], (long long)copies_of(b->n));
}

#define COPIES                                                                                               \
    {                                                                                                        \
        "copies", 1, 1, 4096, "of every token, itself included"                                              \
    }

/* ---- repeat */
static status repeat_infer(op_build *b)
{
    TRY(need(b, b->n->in[0]->ndim == 3, "x must be [B, T, n]"));
    return out_times(b, b->n->in[0], copies_of(b->n), 1);
}
static void repeat_vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    din[0] = g_out(g_node_from(g, OP_repeat_grad, IN(dout[0]), op), 0);
}
static void repeat_reference(const op_call64 *c)
{
    const tensor *x = c->node->in[0];
    i64 k = copies_of(c->node), T = x->dim[1], n = cols(x);
    for (i64 b = 0; b < x->dim[0]; b++)
        for (i64 t = 0; t < T; t++)
            for (i64 copy = 1; copy <= k; copy++)
                memcpy(c->out[0] + (b * k * T + row_of(t, copy, k, T)) * n, c->in[0] + (b * T + t) * n,
                       sizeof(double) * (size_t)n);
}
/* Copies a row between views of one dtype. */
static void copy_row(const view *from, i64 r, const view *to, i64 row)
{
    i64 size = dtype_bytes(from->dtype);
    memcpy((char *)to->p + row * to->stride * size, (const char *)from->p + r * from->stride * size,
           (size_t)(from->n * size));
}
static void repeat_cpu(const op_call *c)
{
    i64 k = copies_of(c->node), T = c->node->in[0]->dim[1];
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < c->in[0].rows; r++)
        for (i64 copy = 1; copy <= k; copy++)
            copy_row(&c->in[0], r, &c->out[0], r / T * k * T + row_of(r % T, copy, k, T));
}
static const op_case repeat_cases[] = {
    {"two", "x=3x7x33 copies=2 f32 bf16 tol=0"},
    {"five", "x=2x4x16 copies=5 f32 bf16 tol=0"},
    {"one", "x=2x4x16 f32 bf16 tol=0"},
    {0},
};
OP_DEF(repeat) = {
    .name = "repeat",
    .brief = "every token K times: the tokens, then copies 2..K token by token",
    .source = "arXiv:2504.14992",
    .in = {{"x", "[B, T, n]"}},
    .out = {{"y", "[B, K T, n]"}},
    .attrs = {COPIES},
    .flags = OP_CHEAP,
    .infer = repeat_infer,
    .vjp = repeat_vjp,
    .reference = repeat_reference,
    .cpu = repeat_cpu,
    .cases = repeat_cases,
};

/* ---- repeat_grad */
static status repeat_grad_infer(op_build *b)
{
    TRY(whole(b, b->n->in[0]));
    return out_times(b, b->n->in[0], 1, copies_of(b->n));
}
static void repeat_grad_reference(const op_call64 *c)
{
    const tensor *dx = c->node->out[0];
    i64 k = copies_of(c->node), T = dx->dim[1], n = cols(dx);
    for (i64 r = 0; r < rows_of(dx); r++)
        for (i64 j = 0; j < n; j++) {
            double sum = 0;
            for (i64 copy = 1; copy <= k; copy++)
                sum += c->in[0][(r / T * k * T + row_of(r % T, copy, k, T)) * n + j];
            c->out[0][r * n + j] = sum;
        }
}
static void repeat_grad_cpu(const op_call *c)
{
    i64 k = copies_of(c->node), T = c->node->out[0]->dim[1], n = c->out[0].n;
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < c->out[0].rows; r++) {
        float *dx = row_out(c, 0, r);
        for (i64 copy = 1; copy <= k; copy++) {
            const float *dy = row_in(c, 0, r / T * k * T + row_of(r % T, copy, k, T));
#pragma omp simd
            for (i64 j = 0; j < n; j++) dx[j] = (copy > 1 ? dx[j] : 0) + dy[j];
        }
        row_done(c, 0, r, dx);
    }
}
static op_cost repeat_grad_cost(const node *op) { return (op_cost){(double)count(op->in[0]), traffic(op)}; }
static const op_case repeat_grad_cases[] = {
    {"two", "dy=3x14x33 copies=2 f32 bf16"},
    {"five", "dy=2x20x16 copies=5 f32 bf16"},
    {"exact", "dy=2x12x16 copies=3 fill=ints f32 bf16 tol=0"},
    {0},
};
OP_DEF(repeat_grad) = {
    .name = "repeat_grad",
    .brief = "dx = the sum of dy over a token's copies",
    .in = {{"dy", "[B, K T, n]"}},
    .out = {{"dx", "[B, T, n]"}},
    .attrs = {COPIES},
    .infer = repeat_grad_infer,
    .reference = repeat_grad_reference,
    .cpu = repeat_grad_cpu,
    .cost = repeat_grad_cost,
    .cases = repeat_grad_cases,
};

/* ---- repeat_index */
static status index_infer(op_build *b)
{
    TRY(need(b, b->n->in[0]->ndim == 2, "index must be [B, T]"));
    return out_times(b, b->n->in[0], copies_of(b->n), 1);
}
static void index_reference(const op_call64 *c)
{
    i64 k = copies_of(c->node), B = c->node->in[0]->dim[0], T = c->node->in[0]->dim[1];
    double times = attr(c->node, "times");
    for (i64 b = 0; b < B; b++)
        for (i64 t = 0; t < T; t++)
            for (i64 copy = 1; copy <= k; copy++) {
                double p = c->in[0][b * T + t];
                c->out[0][b * k * T + row_of(t, copy, k, T)] = times > 1 ? times * p + (double)copy - 1 : p;
            }
}
static void index_cpu(const op_call *c)
{
    i64 k = copies_of(c->node), T = c->in[0].n;
    i64 times = (i64)attr(c->node, "times"), step = times > 1;
    for (i64 b = 0; b < c->in[0].rows; b++) {
        const i32 *p = (const i32 *)c->in[0].p + b * c->in[0].stride;
        i32 *y = (i32 *)c->out[0].p + b * c->out[0].stride;
        for (i64 t = 0; t < T; t++)
            for (i64 copy = 1; copy <= k; copy++)
                y[row_of(t, copy, k, T)] = (i32)(p[t] * times + step * (copy - 1));
    }
}
static const op_case index_cases[] = {
    {"shared", "index=3x7 copies=3 fill.index=below:99 f32"},
    {"expanded", "index=3x7 copies=3 times=3 fill.index=below:99 f32"},
    {"originals", "index=2x5 times=4 fill.index=below:99 f32"},
    {0},
};
OP_DEF(repeat_index) = {
    .name = "repeat_index",
    .brief = "positions of a token's copies",
    .in = {{"index", "[B, T]", ARG_I32, .range = "any"}},
    .out = {{"y", "[B, K T]", ARG_I32}},
    .attrs = {COPIES, {"times", 1, 1, 4096, "more than 1: copy s of position p stands at times p + s - 1"}},
    .infer = index_infer,
    .reference = index_reference,
    .cpu = index_cpu,
    .cases = index_cases,
};

/* ---- last_copy */
static status last_infer(op_build *b)
{
    TRY(whole(b, b->n->in[0]));
    return out_times(b, b->n->in[0], 1, copies_of(b->n));
}
static void last_vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    din[0] = g_out(g_node_from(g, OP_last_copy_grad, IN(dout[0]), op), 0);
}
static void last_reference(const op_call64 *c)
{
    const tensor *y = c->node->out[0];
    i64 k = copies_of(c->node), T = y->dim[1], n = cols(y);
    for (i64 r = 0; r < rows_of(y); r++)
        memcpy(c->out[0] + r * n, c->in[0] + (r / T * k * T + row_of(r % T, k, k, T)) * n,
               sizeof(double) * (size_t)n);
}
static void last_cpu(const op_call *c)
{
    i64 k = copies_of(c->node), T = c->node->out[0]->dim[1];
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < c->out[0].rows; r++)
        copy_row(&c->in[0], r / T * k * T + row_of(r % T, k, k, T), &c->out[0], r);
}
static const op_case last_cases[] = {
    {"two", "x=3x14x33 copies=2 f32 bf16 tol=0"},
    {"five", "x=2x20x16 copies=5 f32 bf16 tol=0"},
    {"one", "x=2x4x16 f32 bf16 tol=0"},
    {0},
};
OP_DEF(last_copy) = {
    .name = "last_copy",
    .brief = "copy K of every token",
    .source = "arXiv:2504.14992",
    .in = {{"x", "[B, K T, n]"}},
    .out = {{"y", "[B, T, n]"}},
    .attrs = {COPIES},
    .flags = OP_CHEAP,
    .infer = last_infer,
    .vjp = last_vjp,
    .reference = last_reference,
    .cpu = last_cpu,
    .cases = last_cases,
};

/* ---- last_copy_grad */
static status last_grad_infer(op_build *b)
{
    TRY(need(b, b->n->in[0]->ndim == 3, "dy must be [B, T, n]"));
    return out_times(b, b->n->in[0], copies_of(b->n), 1);
}
static void last_grad_reference(const op_call64 *c)
{
    const tensor *dy = c->node->in[0];
    i64 k = copies_of(c->node), T = dy->dim[1], n = cols(dy);
    memset(c->out[0], 0, sizeof(double) * (size_t)count(c->node->out[0]));
    for (i64 r = 0; r < rows_of(dy); r++)
        memcpy(c->out[0] + (r / T * k * T + row_of(r % T, k, k, T)) * n, c->in[0] + r * n,
               sizeof(double) * (size_t)n);
}
static void last_grad_cpu(const op_call *c)
{
    i64 k = copies_of(c->node), T = c->node->in[0]->dim[1];
    const view *dx = &c->out[0];
    i64 size = dtype_bytes(dx->dtype);
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < c->in[0].rows; r++) {
        for (i64 copy = 1; copy < k; copy++) {
            i64 row = r / T * k * T + row_of(r % T, copy, k, T);
            memset((char *)dx->p + row * dx->stride * size, 0, (size_t)(dx->n * size));
        }
        copy_row(&c->in[0], r, dx, r / T * k * T + row_of(r % T, k, k, T));
    }
}
static const op_case last_grad_cases[] = {
    {"two", "dy=3x7x33 copies=2 f32 bf16 tol=0"},
    {"five", "dy=2x4x16 copies=5 f32 bf16 tol=0"},
    {"one", "dy=2x4x16 f32 bf16 tol=0"},
    {0},
};
OP_DEF(last_copy_grad) = {
    .name = "last_copy_grad",
    .brief = "dx = dy in the rows of copy K, 0 elsewhere",
    .in = {{"dy", "[B, T, n]"}},
    .out = {{"dx", "[B, K T, n]"}},
    .attrs = {COPIES},
    .infer = last_grad_infer,
    .reference = last_grad_reference,
    .cpu = last_grad_cpu,
    .cases = last_grad_cases,
};

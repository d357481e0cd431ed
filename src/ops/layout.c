/* layout: ops that only place or add tensors: sum, accumulate, split, concat.
 *
 *   sum          y = a + b (+ c + d)                   gradients meeting at a tensor
 *   accumulate   into += x                             a gradient that no kernel accumulated by itself
 *   split        y_i = columns [o_i, o_i + n_i) of x   free: the planner makes the outputs views
 *   concat       y = [x_0, x_1, ...] along columns     free where the planner can place the inputs in y
 */
#include "ops/op.h"
#include <string.h>

/* ---- sum */
static status sum_infer(op_build *b)
{
    for (int i = 1; i < b->n->n_in; i++) {
        TRY(need(b, b->n->in[i], "input %d is missing before a later one", i));
        TRY(need(b, same_shape(b->n->in[0], b->n->in[i]), "input %d has another shape", i));
    }
    return out_like(b, 0, b->n->in[0]);
}
static void sum_vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    (void)g;
    for (int i = 0; i < op->n_in; i++) din[i] = dout[0];
}
static void sum_reference(const op_call64 *c)
{
    for (i64 j = 0; j < count(c->node->in[0]); j++) {
        double y = 0;
        for (int i = 0; i < c->node->n_in; i++) y += c->in[i][j];
        c->out[0][j] = y;
    }
}
static void sum_cpu(const op_call *c)
{
    i64 n = c->out[0].n;
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < c->out[0].rows; r++) {
        float *y = row_out(c, 0, r);
        const float *a = row_in(c, 0, r), *b = c->node->n_in > 1 ? row_in(c, 1, r) : NULL;
        if (b)
            for (i64 j = 0; j < n; j++) y[j] = a[j] + b[j];
        else
            memmove(y, a, (size_t)n * sizeof *y);
        for (int i = 2; i < c->node->n_in; i++) {
            const float *x = row_in(c, i, r);
            for (i64 j = 0; j < n; j++) y[j] += x[j];
        }
        row_done(c, 0, r, y);
    }
}
static op_cost sum_cost(const node *op)
{
    return (op_cost){(double)(op->n_in - 1) * (double)count(op->in[0]), traffic(op)};
}
static const op_case sum_cases[] = {
    {"two", "a=33x129 b=33x129 f32 bf16"},
    {"four", "a=5x64 b=5x64 c=5x64 d=5x64 f32 bf16"},
    {"exact", "a=5x64 b=5x64 fill=ints f32 bf16 tol=0"},
    {0},
};
OP_DEF(sum) = {
    .name = "sum",
    .brief = "y = a + b + ...",
    .in = {{"a", "[rows, n]"},
           {"b", "[rows, n]", .optional = true},
           {"c", "[rows, n]", .optional = true},
           {"d", "[rows, n]", .optional = true}},
    .out = {{"y", "[rows, n]"}},
    .inplace = 1,
    .infer = sum_infer,
    .vjp = sum_vjp,
    .reference = sum_reference,
    .cpu = sum_cpu,
    .cost = sum_cost,
    .cases = sum_cases,
};

/* ---- accumulate */
static status accumulate_infer(op_build *b)
{
    return out_shape(b, 0, DT_F32, b->n->in[0]->ndim, b->n->in[0]->dim);
}
static void accumulate_reference(const op_call64 *c)
{
    memcpy(c->out[0], c->in[0], sizeof(double) * (size_t)count(c->node->in[0]));
}
static void accumulate_cpu(const op_call *c)
{
    i64 n = c->out[0].n;
    bool add = accumulates(c, 0);
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < c->out[0].rows; r++) {
        const float *x = row_in(c, 0, r);
        float *y = row_out(c, 0, r);
        if (add)
            for (i64 j = 0; j < n; j++) y[j] += x[j];
        else
            memmove(y, x, (size_t)n * sizeof *y);
    }
}
static const op_case accumulate_cases[] = {{"exact", "x=5x64 f32 bf16 tol=0"}, {0}};
OP_DEF(accumulate) = {
    .name = "accumulate",
    .brief = "into += x, in f32",
    .in = {{"x", "[rows, n]"}},
    .out = {{"into", "[rows, n]", ARG_F32}},
    .flags = OP_ACCUMULATES,
    .infer = accumulate_infer,
    .reference = accumulate_reference,
    .cpu = accumulate_cpu,
    .cases = accumulate_cases,
};

/* ---- split: up to four ranges of widths n0, n1, n2, n3 (0: absent) */
static const char *const width_name[4] = {"n0", "n1", "n2", "n3"};
static status split_infer(op_build *b)
{
    const tensor *x = b->n->in[0];
    i64 total = 0, dim[MAX_DIMS];
    memcpy(dim, x->dim, sizeof dim);
    for (int i = 0; i < 4; i++) {
        i64 n = (i64)attr(b->n, width_name[i]);
        if (!n) break;
        total += dim[x->ndim - 1] = n;
        TRY(out_shape(b, i, x->dtype, x->ndim, dim));
    }
    return need(b, total == cols(x), "ranges of %lld in all do not fill rows of %lld", (long long)total,
                (long long)cols(x));
}
static void split_vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    // A range that nothing used contributes zeros; the model builder never makes one.
    for (int i = 0; i < op->n_out; i++)
        if (!dout[i]) return g_fail(g, fail(ERR_CHECK, "%s: output %d of split is unused", op->path, i));
    din[0] = g_out(g_node(g, OP_concat, dout, op->n_out, NO_ATTRS), 0);
}
static void split_reference(const op_call64 *c)
{
    i64 n = cols(c->node->in[0]), offset = 0;
    for (int i = 0; i < c->node->n_out; i++) {
        i64 w = cols(c->node->out[i]);
        for (i64 r = 0; r < rows_of(c->node->in[0]); r++)
            memcpy(c->out[i] + r * w, c->in[0] + r * n + offset, sizeof(double) * (size_t)w);
        offset += w;
    }
}
/* Copies rows between views of one dtype; a view that already lies in place is skipped. */
static void copy_view(const view *from, const view *to)
{
    size_t size = (size_t)dtype_bytes(from->dtype);
    if (from->p == to->p) return;
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < from->rows; r++)
        memmove((char *)to->p + (size_t)(r * to->stride) * size,
                (const char *)from->p + (size_t)(r * from->stride) * size, (size_t)from->n * size);
}
static view columns(const view *v, i64 first, i64 n)
{
    view part_of = *v;
    part_of.p = (char *)v->p + first * dtype_bytes(v->dtype);
    part_of.n = n;
    return part_of;
}
static void split_cpu(const op_call *c)
{
    for (i64 i = 0, offset = 0; i < c->node->n_out; offset += c->out[i].n, i++) {
        view from = columns(&c->in[0], offset, c->out[i].n);
        copy_view(&from, &c->out[i]);
    }
}
static const op_case split_cases[] = {
    {"three", "x=7x96 n0=64 n1=16 n2=16 f32 bf16 tol=0"}, {"one", "x=7x33 n0=33 f32 bf16 tol=0"}, {0}};
OP_DEF(split) = {
    .name = "split",
    .brief = "y_i = columns of x",
    .in = {{"x", "[rows, n]"}},
    .out = {{"y0", "[rows, n0]"}, {"y1", "[rows, n1]"}, {"y2", "[rows, n2]"}, {"y3", "[rows, n3]"}},
    .attrs = {{"n0", 0, 1, 1e9, "columns of y0"},
              {"n1", 0, 0, 1e9, "columns of y1"},
              {"n2", 0, 0, 1e9, "columns of y2"},
              {"n3", 0, 0, 1e9, "columns of y3"}},
    .flags = OP_SPLIT | OP_CHEAP,
    .infer = split_infer,
    .vjp = split_vjp,
    .reference = split_reference,
    .cpu = split_cpu,
    .cases = split_cases,
};

/* ---- concat */
static status concat_infer(op_build *b)
{
    const tensor *x = b->n->in[0];
    i64 dim[MAX_DIMS], total = 0;
    memcpy(dim, x->dim, sizeof dim);
    for (int i = 0; i < b->n->n_in; i++) {
        TRY(need(b, b->n->in[i], "input %d is missing before a later one", i));
        TRY(need(b, rows_of(b->n->in[i]) == rows_of(x), "input %d has other rows", i));
        TRY(need(b, b->n->in[i]->dtype == x->dtype, "input %d has another dtype", i));
        total += cols(b->n->in[i]);
    }
    dim[x->ndim - 1] = total;
    return out_shape(b, 0, x->dtype, x->ndim, dim);
}
static void concat_vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    op_set widths[5] = {0};
    for (int i = 0; i < op->n_in; i++) widths[i] = (op_set){width_name[i], (double)cols(op->in[i])};
    node *d = g_node(g, OP_split, IN(dout[0]), widths);
    for (int i = 0; i < op->n_in; i++) din[i] = g_out(d, i);
}
static void concat_reference(const op_call64 *c)
{
    i64 n = cols(c->node->out[0]), offset = 0;
    for (int i = 0; i < c->node->n_in; i++) {
        i64 w = cols(c->node->in[i]);
        for (i64 r = 0; r < rows_of(c->node->out[0]); r++)
            memcpy(c->out[0] + r * n + offset, c->in[i] + r * w, sizeof(double) * (size_t)w);
        offset += w;
    }
}
static void concat_cpu(const op_call *c)
{
    for (i64 i = 0, offset = 0; i < c->node->n_in; offset += c->in[i].n, i++) {
        view to = columns(&c->out[0], offset, c->in[i].n);
        copy_view(&c->in[i], &to);
    }
}
static const op_case concat_cases[] = {{"three", "a=7x64 b=7x16 c=7x16 f32 bf16 tol=0"}, {0}};
OP_DEF(concat) = {
    .name = "concat",
    .brief = "y = [a, b, ...] along columns",
    .in = {{"a", "[rows, na]"},
           {"b", "[rows, nb]", .optional = true},
           {"c", "[rows, nc]", .optional = true},
           {"d", "[rows, nd]", .optional = true}},
    .out = {{"y", "[rows, na + nb + nc + nd]"}},
    .flags = OP_CONCAT,
    .infer = concat_infer,
    .vjp = concat_vjp,
    .reference = concat_reference,
    .cpu = concat_cpu,
    .cases = concat_cases,
};

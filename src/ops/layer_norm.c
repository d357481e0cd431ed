/* layer_norm: give every row mean 0 and variance 1, then a gain and a bias.
 *
 *   y  = gain z + bias,   z = (x - m) s,   m = mean x,   s = (mean (x - m)^2 + eps)^(-1/2)     x, y [rows,
 * n]; means over groups of n/heads, whose gain and bias the heads share dx = s (g - mean g - z mean(g z)),  g
 * = gain dy       dm/dx_j = 1/n, ds/dx_j = -s^3 (x_j - m) / n dgain = sum over rows of dy z,  dbias = sum
 * over rows of dy dx += add, the gradient that comes along the skip path, where the rewrites put it
 * (graph/rewrite.h)
 *
 * Source:   Ba, Kiros and Hinton, arXiv:1607.06450; eps inside the root and variance over n (not n - 1), as
 * usual. Numerics: f32. Two passes over the row, since mean x^2 - m^2 cancels for a stream with a large mean.
 * The second pass also measures what rounding left in the first one's mean, and takes it off again. mean and
 * s are saved, z is recomputed. With add, dx is rounded to its storage before the addition, so that the bits
 * are those of layer_norm_grad, then sum.
 */
#include "ops/norm_rows.h"
#include "ops/op.h"
#include <math.h>
#include <string.h>

static status infer(op_build *b)
{
    const tensor *x = b->n->in[0];
    i64 heads = (i64)attr(b->n, "heads"), n = cols(x);
    TRY(need(b, n % heads == 0, "rows of %lld do not divide into %lld heads", (long long)n,
             (long long)heads));
    for (int i = 1; i < 3; i++) {
        const tensor *t = b->n->in[i];
        TRY(need(b, !t || (t->ndim == 1 && t->dim[0] == n / heads), "%s must be [%lld]",
                 i == 1 ? "gain" : "bias", (long long)(n / heads)));
    }
    TRY(norm_y(b, 0, x));
    TRY(out_shape(b, 1, DT_F32, 2, (i64[]){rows_of(x), heads}));
    return out_shape(b, 2, DT_F32, 2, (i64[]){rows_of(x), heads});
}

static void vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    node *d = g_node_from(g, OP_layer_norm_grad,
                          IN(op->in[0], op->in[1], op->in[2], op->out[1], op->out[2], dout[0]), op);
    for (int i = 0; i < 3; i++) din[i] = g_out(d, i);
}

static void reference(const op_call64 *c)
{
    i64 heads = (i64)attr(c->node, "heads"), n = cols(c->node->in[0]) / heads;
    const double *x = c->in[0], *gain = c->in[1], *bias = c->in[2];
    for (i64 r = 0; r < rows_of(c->node->in[0]) * heads; r++, x += n) {
        double m = 0, variance = 0, s;
        for (i64 j = 0; j < n; j++) m += x[j] / (double)n;
        for (i64 j = 0; j < n; j++) variance += (x[j] - m) * (x[j] - m) / (double)n;
        s = 1 / sqrt(variance + attr(c->node, "eps"));
        for (i64 j = 0; j < n; j++)
            c->out[0][r * n + j] = (gain ? gain[j] : 1) * (x[j] - m) * s + (bias ? bias[j] : 0);
        c->out[1][r] = m;
        c->out[2][r] = s;
    }
}

static void cpu(const op_call *c)
{
    i64 heads = (i64)attr(c->node, "heads"), n = c->in[0].n / heads;
    float eps = (float)attr(c->node, "eps");
    bool native = is_native(c);
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < c->in[0].rows; r++) {
        const float *x = row_in(c, 0, r);
        float *y = row_out(c, 0, r);
        float *m = (float *)c->out[1].p + r * c->out[1].stride;
        float *s = (float *)c->out[2].p + r * c->out[2].stride;
        for (i64 h = 0; h < heads; h++)
            row_layer(y + h * n, x + h * n, c->in[1].p, c->in[2].p, eps, native, n, m + h, s + h);
        row_done(c, 0, r, y);
    }
}

static op_cost cost(const node *op) { return (op_cost){8.0 * (double)count(op->in[0]), traffic(op)}; }

static const op_case cases[] = {
    {"typical", "x=64x768 gain=768 bias=768 f32 bf16"},
    {"no bias", "x=64x768 gain=768 f32 bf16"},
    {"no gain", "x=33x256 bias=256 f32 bf16"},
    {"bare", "x=64x96 f32 bf16"},
    {"one row", "x=1x17 gain=17 bias=17 f32 bf16"},
    {"one value", "x=3x1 gain=1 bias=1 f32"},
    {"vector tail", "x=5x129 gain=129 bias=129 f32 bf16"},
    {"heads", "x=33x256 gain=64 bias=64 heads=4 f32 bf16"},
    {"native statistics", "x=33x129 gain=129 bias=129 native=1 bf16 tol.bf16=0.0117"},
    {"as the stream", "x=9x64 gain=64 as_x=1 f32 bf16"},
    {"large eps", "x=7x64 gain=64 bias=64 eps=0.01 f32"},
    {"outlier", "x=4x64 gain=64 bias=64 fill.x=big f32 bf16 grad=0"},
    {"bench", "x=2048x768 gain=768 bias=768 bf16 bench"},
    {"exact", "x=4x64 gain=64 bias=64 eps=0.25 fill.x=one fill.gain=ints fill.bias=ints f32 bf16 tol=0"},
    {0},
};

static double change_after(law *l, double factor, double shift)
{
    i64 n = law_count(l, "x");
    double worst = 0, first[64 * 8], *x = law_in(l, "x");
    memcpy(first, law_run(l, 0), sizeof(double) * (size_t)n);
    for (i64 i = 0; i < n; i++) x[i] = factor * x[i] + shift;
    const double *again = law_run(l, 0);
    for (i64 i = 0; i < n; i++) worst = fmax(worst, fabs(again[i] - first[i]));
    return worst;
}
static double shift_freedom(law *l) { return change_after(l, 1, 1234.5); }
static double scale_freedom(law *l) { return change_after(l, 37.5, 0); }
/* Without a gain every row of y has the bias's mean, and y - bias the variance 1. */
static double moments(law *l)
{
    i64 n = law_count(l, "bias");
    double worst = 0, mean = 0;
    const double *bias = law_in(l, "bias"), *y = law_run(l, 0);
    for (i64 j = 0; j < n; j++) mean += bias[j];
    for (i64 r = 0; r < law_count(l, "x") / n; r++, y += n) {
        double sum = 0, square = 0;
        for (i64 j = 0; j < n; j++) sum += y[j], square += (y[j] - bias[j]) * (y[j] - bias[j]);
        worst = fmax(worst, fmax(fabs(sum - mean), fabs(square - (double)n)) / (double)n);
    }
    return worst;
}
static const op_law laws[] = {
    {"shift freedom", "x=8x64 gain=64 bias=64", shift_freedom, 1e-11},
    {"scale freedom", "x=8x64 gain=64 bias=64 eps=1e-13", scale_freedom, 1e-11},
    {"mean of the bias, variance 1", "x=8x64 bias=64 eps=0", moments, 1e-13},
    {0},
};

#define HEADS_ATTR                                                                                           \
    {                                                                                                        \
        "heads", 1, 1, 65536, "groups a row is normalised in"                                                \
    }

OP_DEF(layer_norm) = {
    .name = "layer_norm",
    .brief = "y = gain (x - m) s + bias, m = mean x, s = (mean (x - m)^2 + eps)^(-1/2)",
    .source = "Ba, Kiros and Hinton, arXiv:1607.06450",
    .in = {{"x", "[rows, n]"},
           {"gain", "[n/heads]", ARG_F32, .optional = true, .fill = "around1"},
           {"bias", "[n/heads]", ARG_F32, .optional = true}},
    .out = {{"y", "[rows, n]"},
            {"mean", "[rows, heads]", ARG_F32, .fixed = true},
            {"s", "[rows, heads]", ARG_F32, .fixed = true}},
    .attrs = {{"eps", 1e-5, 0, 1, "added to the variance"}, HEADS_ATTR, AS_X_ATTR, NATIVE_ATTR},
    .flags = OP_CHEAP,
    .infer = infer,
    .vjp = vjp,
    .reference = reference,
    .cpu = cpu,
    .cost = cost,
    .cases = cases,
    .laws = laws,
};

enum { SHARES = 3 };
/* ---- the gradient; the bias comes in only to say that its gradient is wanted */

static status grad_infer(op_build *b)
{
    const tensor *x = b->n->in[0], *add = b->n->in[6];
    TRY(need(b, cols(x) % (i64)attr(b->n, "heads") == 0, "rows do not divide into heads"));
    TRY(need(b, !add || same_shape(x, add), "add must have the shape of x"));
    TRY(out_like(b, 0, x));
    for (int i = 1; i < 3; i++)
        if (b->n->in[i]) TRY(out_shape(b, i, DT_F32, 1, b->n->in[i]->dim));
    return OK;
}

static void grad_reference(const op_call64 *c)
{
    i64 heads = (i64)attr(c->node, "heads"), n = cols(c->node->in[0]) / heads;
    const double *x = c->in[0], *gain = c->in[1], *m = c->in[3], *s = c->in[4], *dy = c->in[5];
    const double *add = c->in[6];
    double *dx = c->out[0], *dgain = c->out[1], *dbias = c->out[2];
    if (dgain) memset(dgain, 0, sizeof(double) * (size_t)n);
    if (dbias) memset(dbias, 0, sizeof(double) * (size_t)n);
    for (i64 r = 0; r < rows_of(c->node->in[0]) * heads; r++, x += n, dy += n, dx += n) {
        double mean_g = 0, mean_gz = 0;
        for (i64 j = 0; j < n; j++) {
            double z = (x[j] - m[r]) * s[r], g = (gain ? gain[j] : 1) * dy[j];
            mean_g += g / (double)n;
            mean_gz += g * z / (double)n;
            if (dgain) dgain[j] += dy[j] * z;
            if (dbias) dbias[j] += dy[j];
        }
        for (i64 j = 0; j < n; j++)
            dx[j] = s[r] * ((gain ? gain[j] : 1) * dy[j] - mean_g - (x[j] - m[r]) * s[r] * mean_gz) +
                    (add ? add[r * n + j] : 0);
    }
}

/* One row: dgain [n] and dbias [n] are added to (NULL: not wanted). */
static void grad_row(float *restrict dx, const float *restrict x, const float *restrict dy,
                     const float *restrict gain, float *restrict dgain, float *restrict dbias, float m,
                     float s, i64 n)
{
    float sum = 0, dot = 0;
    if (gain) {
#pragma omp simd reduction(+ : sum, dot)
        for (i64 j = 0; j < n; j++) {
            float z = (x[j] - m) * s, g = gain[j] * dy[j];
            sum += g;
            dot += g * z;
            dgain[j] += dy[j] * z;
        }
    } else {
#pragma omp simd reduction(+ : sum, dot)
        for (i64 j = 0; j < n; j++) sum += dy[j], dot += dy[j] * ((x[j] - m) * s);
    }
    if (dbias)
        for (i64 j = 0; j < n; j++) dbias[j] += dy[j];
    float shift = s * sum / (float)n, k = s * s * dot / (float)n;
    if (gain)
        for (i64 j = 0; j < n; j++) dx[j] = s * gain[j] * dy[j] - shift - k * (x[j] - m);
    else
        for (i64 j = 0; j < n; j++) dx[j] = s * dy[j] - shift - k * (x[j] - m);
}

/* Floats of a thread: its shares of dgain and dbias, then a row of dx, which may be add itself. */
static i64 padded(const op_call *c) { return round_up(c->in[0].n, 16); }
static status grad_prepare(op_call *c)
{
    return want_scratch(c, (size_t)c->threads * SHARES * (size_t)padded(c) * sizeof(float));
}

/* to = or += the sum of one row of PARTIAL per thread, in the order of the threads */
static void gather(const op_call *c, int output, const float *partial, int threads)
{
    float *to = c->out[output].p;
    if (!to) return;
    for (i64 j = 0; j < c->out[output].n; j++) {
        float sum = accumulates(c, output) ? to[j] : 0;
        for (int t = 0; t < threads; t++) sum += partial[t * SHARES * padded(c) + j];
        to[j] = sum;
    }
}

static void grad_cpu(const op_call *c)
{
    i64 heads = (i64)attr(c->node, "heads"), n = c->in[0].n / heads;
    float *partial = (float *)call_scratch(c);
    int threads = 1;
#pragma omp parallel num_threads(c->threads)
    {
        i64 first, last;
        float *dgain = partial + thread_index() * SHARES * padded(c), *dbias = dgain + padded(c);
        float *own = dbias + padded(c);
        memset(dgain, 0, 2 * (size_t)padded(c) * sizeof *dgain);
#pragma omp master
        threads = omp_get_num_threads();
        part(c->in[0].rows, thread_index(), omp_get_num_threads(), &first, &last);
        for (i64 r = first; r < last; r++) {
            float *dx = row_out(c, 0, r), *row = c->in[6].p ? own : dx;
            const float *x = row_in(c, 0, r), *dy = row_in(c, 5, r);
            const float *mean = (const float *)c->in[3].p + r * c->in[3].stride;
            const float *s = (const float *)c->in[4].p + r * c->in[4].stride;
            for (i64 h = 0; h < heads; h++)
                grad_row(row + h * n, x + h * n, dy + h * n, c->in[1].p, dgain, c->out[2].p ? dbias : NULL,
                         mean[h], s[h], n);
            if (row == own) row_add(dx, own, row_in(c, 6, r), c->out[0].dtype == DT_BF16, heads * n);
            row_done(c, 0, r, dx);
        }
    }
    gather(c, 1, partial, threads);
    gather(c, 2, partial + padded(c), threads);
}

static op_cost grad_cost(const node *op) { return (op_cost){14.0 * (double)count(op->in[0]), traffic(op)}; }

static const op_case grad_cases[] = {
    {"typical", "x=64x768 gain=768 bias=768 mean=64x1 s=64x1 dy=64x768 f32 bf16"},
    {"bench", "x=2048x768 gain=768 bias=768 mean=2048x1 s=2048x1 dy=2048x768 bf16 bench"},
    {"no bias", "x=9x129 gain=129 mean=9x1 s=9x1 dy=9x129 f32 bf16"},
    {"no gain", "x=9x129 bias=129 mean=9x1 s=9x1 dy=9x129 f32 bf16"},
    {"bare", "x=33x64 mean=33x1 s=33x1 dy=33x64 f32 bf16"},
    {"heads", "x=33x256 gain=64 bias=64 mean=33x4 s=33x4 dy=33x256 heads=4 f32 bf16"},
    {"one value", "x=3x1 gain=1 bias=1 mean=3x1 s=3x1 dy=3x1 f32"},
    {"add", "x=64x768 gain=768 bias=768 mean=64x1 s=64x1 dy=64x768 add=64x768 f32 bf16 tol.bf16=0.0078"},
    {"add, bare", "x=33x129 mean=33x1 s=33x1 dy=33x129 add=33x129 f32 bf16 tol.bf16=0.0078"},
    {"bench add", "x=2048x768 gain=768 bias=768 mean=2048x1 s=2048x1 dy=2048x768 add=2048x768 bf16 bench"},
    {0},
};

OP_DEF(layer_norm_grad) = {
    .name = "layer_norm_grad",
    .brief = "dx = s (g - mean g - z mean(g z)) + add, dgain = sum dy z, dbias = sum dy; g = gain dy, z = (x "
             "- m) s",
    .replaces = {"d, dgain, dbias = layer_norm_grad(x, gain, bias, mean, s, dy); dx = sum(add, d)",
                 "d, dgain, dbias = layer_norm_grad(x, gain, bias, mean, s, dy); dx = sum(d, add)"},
    .in = {{"x", "[rows, n]"},
           {"gain", "[n/heads]", ARG_F32, .optional = true, .fill = "around1"},
           {"bias", "[n/heads]", ARG_F32, .optional = true},
           {"mean", "[rows, heads]", ARG_F32},
           {"s", "[rows, heads]", ARG_F32, .fill = "positive"},
           {"dy", "[rows, n]"},
           {"add", "[rows, n]", .optional = true}},
    .out = {{"dx", "[rows, n]"},
            {"dgain", "[n/heads]", ARG_F32, .optional = true},
            {"dbias", "[n/heads]", ARG_F32, .optional = true}},
    .attrs = {HEADS_ATTR},
    .flags = OP_ACCUMULATES,
    .inplace = 7, // dx over add
    .infer = grad_infer,
    .reference = grad_reference,
    .cpu = grad_cpu,
    .prepare = grad_prepare,
    .cost = grad_cost,
    .cases = grad_cases,
};

/* rms_norm: scale every row, or every head of a row, to a root mean square of 1, then by a gain.
 *
 *   y  = gain x s,   s = (mean_j x_j^2 + eps)^(-1/2)          x, y [rows, n]; means over groups of n/heads
 *   dx = s (g - z mean_j(g_j z_j)),  g = gain dy, z = x s     since ds/dx_j = -s^3 x_j / (n/heads)
 *   dgain = sum over rows and heads of dy z                   gain [n/heads], shared by the heads
 *   dx += add, the gradient that comes along the skip path    where the rewrites put it (graph/rewrite.h)
 *
 * Source:   Zhang and Sennrich, arXiv:1910.07467; per head: HybridNorm, arXiv:2503.04598, section 3.
 * Departs:  eps inside the root (the paper has none).
 * Numerics: statistics in f32, saved as s [rows, heads]; z is recomputed from x. With add, dx is rounded to
 * its storage before the addition, so that the bits are those of rms_norm_grad, then sum.
 */
#include "ops/norm_rows.h"
#include "ops/op.h"
#include <math.h>
#include <string.h>

static status infer(op_build *b)
{
    const tensor *x = b->n->in[0], *gain = b->n->in[1];
    i64 heads = (i64)attr(b->n, "heads"), n = cols(x);
    TRY(need(b, n % heads == 0, "rows of %lld do not divide into %lld heads", (long long)n,
             (long long)heads));
    TRY(need(b, !gain || (gain->ndim == 1 && gain->dim[0] == n / heads), "gain must be [%lld]",
             (long long)(n / heads)));
    TRY(norm_y(b, 0, x));
    return out_shape(b, 1, DT_F32, 2, (i64[]){rows_of(x), heads});
}

static void vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    node *d = g_node_from(g, OP_rms_norm_grad, IN(op->in[0], op->in[1], op->out[1], dout[0]), op);
    din[0] = g_out(d, 0);
    din[1] = g_out(d, 1);
}

static void reference(const op_call64 *c)
{
    i64 heads = (i64)attr(c->node, "heads"), n = cols(c->node->in[0]) / heads;
    i64 groups = rows_of(c->node->in[0]) * heads;
    double eps = attr(c->node, "eps");
    const double *x = c->in[0], *gain = c->in[1];
    for (i64 r = 0; r < groups; r++) {
        double sum = 0;
        for (i64 j = 0; j < n; j++) sum += x[r * n + j] * x[r * n + j];
        double s = 1 / sqrt(sum / (double)n + eps);
        c->out[1][r] = s;
        for (i64 j = 0; j < n; j++) c->out[0][r * n + j] = x[r * n + j] * s * (gain ? gain[j] : 1);
    }
}

static void cpu(const op_call *c)
{
    i64 heads = (i64)attr(c->node, "heads"), n = c->in[0].n / heads;
    float eps = (float)attr(c->node, "eps");
    const float *gain = c->in[1].p;
    bool native = is_native(c);
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < c->in[0].rows; r++) {
        const float *x = row_in(c, 0, r);
        float *y = row_out(c, 0, r), *s = (float *)c->out[1].p + r * c->out[1].stride;
        for (i64 h = 0; h < heads; h++) s[h] = row_rms(y + h * n, x + h * n, gain, eps, native, n);
        row_done(c, 0, r, y);
    }
}

static op_cost cost(const node *op) { return (op_cost){4.0 * (double)count(op->in[0]), traffic(op)}; }

static const op_case cases[] = {
    {"typical", "x=64x768 gain=768 f32 bf16"},
    {"no gain", "x=64x768 f32 bf16"},
    {"heads", "x=33x256 gain=64 heads=4 f32 bf16"},
    {"one value", "x=3x1 gain=1 f32"},
    {"vector tail", "x=5x129 gain=129 f32 bf16"},
    {"large eps", "x=7x64 gain=64 eps=0.01 f32"},
    {"zero rows", "x=4x64 gain=64 fill.x=zero f32 bf16"},
    {"outlier", "x=4x64 gain=64 fill.x=big f32 bf16 grad=0"},
    {"native statistics", "x=33x256 gain=64 heads=4 native=1 bf16 tol.bf16=0.0117"},
    {"as the stream", "x=9x64 gain=64 as_x=1 f32 bf16"},
    {"exact, native", "x=4x64 eps=0 native=1 fill.x=pm2 bf16 tol=0"},
    {"exact", "x=4x64 eps=0 fill.x=pm2 f32 bf16 tol=0"}, // |x| = 2 everywhere, so y = +-1 to the bit
    {0},
};

/* Scaling the input by c > 0 changes nothing once eps is negligible. */
static double scale_freedom(law *l)
{
    i64 n = law_count(l, "x");
    double worst = 0, first[64 * 8], *x = law_in(l, "x");
    memcpy(first, law_run(l, 0), sizeof(double) * (size_t)n);
    for (i64 i = 0; i < n; i++) x[i] *= 37.5;
    const double *again = law_run(l, 0);
    for (i64 i = 0; i < n; i++) worst = fmax(worst, fabs(again[i] - first[i]));
    return worst;
}
static double unit_rms(law *l)
{
    i64 n = law_count(l, "x");
    double sum = 0;
    const double *y = law_run(l, 0);
    for (i64 i = 0; i < n; i++) sum += y[i] * y[i];
    return fabs(sum / (double)n - 1);
}
static const op_law laws[] = {
    {"scale freedom", "x=8x64 eps=1e-13", scale_freedom, 1e-11},
    {"unit root mean square", "x=8x64 eps=0", unit_rms, 1e-13},
    {0},
};

OP_DEF(rms_norm) = {
    .name = "rms_norm",
    .brief = "y = gain x s, s = (mean x^2 + eps)^(-1/2), over rows or heads",
    .source = "Zhang and Sennrich, arXiv:1910.07467",
    .in = {{"x", "[rows, n]"}, {"gain", "[n/heads]", ARG_F32, .optional = true, .fill = "around1"}},
    .out = {{"y", "[rows, n]"}, {"s", "[rows, heads]", ARG_F32, .fixed = true}},
    .attrs = {{"eps", 1e-5, 0, 1, "added to the mean square"},
              {"heads", 1, 1, 65536, "groups a row is normalised in"},
              AS_X_ATTR,
              NATIVE_ATTR},
    .flags = OP_CHEAP,
    .infer = infer,
    .vjp = vjp,
    .reference = reference,
    .cpu = cpu,
    .cost = cost,
    .cases = cases,
    .laws = laws,
};

/* ---- the gradient */

static status grad_infer(op_build *b)
{
    const tensor *x = b->n->in[0], *gain = b->n->in[1], *s = b->n->in[2];
    i64 heads = (i64)attr(b->n, "heads"), n = cols(x);
    TRY(need(b, n % heads == 0, "rows of %lld do not divide into %lld heads", (long long)n,
             (long long)heads));
    TRY(need(b, !gain || (gain->ndim == 1 && gain->dim[0] == n / heads), "gain must be [%lld]",
             (long long)(n / heads)));
    TRY(need(b, cols(s) == heads && rows_of(s) == rows_of(x), "s must be [%lld, %lld]", (long long)rows_of(x),
             (long long)heads));
    TRY(need(b, same_shape(x, b->n->in[3]), "dy must have the shape of x"));
    TRY(need(b, !b->n->in[4] || same_shape(x, b->n->in[4]), "add must have the shape of x"));
    TRY(out_like(b, 0, b->n->in[0]));
    return b->n->in[1] ? out_shape(b, 1, DT_F32, 1, b->n->in[1]->dim) : OK;
}

static void grad_reference(const op_call64 *c)
{
    i64 heads = (i64)attr(c->node, "heads"), n = cols(c->node->in[0]) / heads;
    i64 groups = rows_of(c->node->in[0]) * heads;
    const double *x = c->in[0], *gain = c->in[1], *s = c->in[2], *dy = c->in[3], *add = c->in[4];
    if (gain) memset(c->out[1], 0, sizeof(double) * (size_t)n);
    for (i64 r = 0; r < groups; r++, x += n, dy += n) {
        double dot = 0;
        for (i64 j = 0; j < n; j++) dot += (gain ? gain[j] : 1) * dy[j] * x[j] * s[r];
        for (i64 j = 0; j < n; j++) {
            c->out[0][r * n + j] = s[r] * ((gain ? gain[j] : 1) * dy[j] - x[j] * s[r] * dot / (double)n);
            if (add) c->out[0][r * n + j] += add[r * n + j];
            if (gain) c->out[1][j] += dy[j] * x[j] * s[r];
        }
    }
}

/* sum dy x gain; dgain's share of the group is added to SUMS [n]. GAIN may be NULL. */
static float grad_dot(const float *restrict x, const float *restrict dy, const float *restrict gain, float s,
                      float *restrict sums, i64 n)
{
    float dot = 0;
    if (!gain) {
#pragma omp simd reduction(+ : dot)
        for (i64 j = 0; j < n; j++) dot += dy[j] * x[j];
        return dot;
    }
#pragma omp simd reduction(+ : dot)
    for (i64 j = 0; j < n; j++) {
        float t = dy[j] * x[j];
        dot += t * gain[j];
        sums[j] += t * s;
    }
    return dot;
}

/* dx = s gain dy - k x, element by element: dx may lie over what row_add then reads. */
static void grad_group(float *dx, const float *x, const float *dy, const float *gain, float s, float k, i64 n)
{
    if (gain) {
#pragma omp simd
        for (i64 j = 0; j < n; j++) dx[j] = s * gain[j] * dy[j] - k * x[j];
    } else {
#pragma omp simd
        for (i64 j = 0; j < n; j++) dx[j] = s * dy[j] - k * x[j];
    }
}

/* The rows of one thread; its share of dgain goes to SUMS [n]. With add, a group is made in OWN [n] first:
 * dx may be add itself. */
static void grad_rows(const op_call *c, i64 first, i64 last, float *restrict sums, float *own)
{
    i64 heads = (i64)attr(c->node, "heads"), n = c->in[0].n / heads;
    const float *gain = c->in[1].p;
    bool rounded = c->out[0].dtype == DT_BF16;
    for (i64 r = first; r < last; r++) {
        const float *x = row_in(c, 0, r), *dy = row_in(c, 3, r),
                    *s = (const float *)c->in[2].p + r * c->in[2].stride;
        const float *add = c->in[4].p ? row_in(c, 4, r) : NULL;
        float *dx = row_out(c, 0, r);
        for (i64 h = 0; h < heads; h++, x += n, dy += n, dx += n) {
            float k = s[h] * s[h] * s[h] * grad_dot(x, dy, gain, s[h], sums, n) / (float)n;
            grad_group(add ? own : dx, x, dy, gain, s[h], k, n);
            if (add) row_add(dx, own, add + h * n, rounded, n);
        }
        row_done(c, 0, r, dx - heads * n);
    }
}

/* Floats a thread needs: its share of dgain, then one group of dx. */
static i64 own_floats(const op_call *c)
{
    i64 heads = (i64)attr(c->node, "heads");
    return round_up(c->in[1].n, 16) + (c->node->in[4] ? round_up(c->in[0].n / heads, 16) : 0);
}
static status grad_prepare(op_call *c)
{
    return want_scratch(c, (size_t)c->threads * (size_t)own_floats(c) * sizeof(float));
}

static void grad_cpu(const op_call *c)
{
    i64 n = c->in[1].n, padded = own_floats(c);
    float *partial = (float *)call_scratch(c), *dgain = c->out[1].p;
    int team = 1;
#pragma omp parallel
    {
        i64 first, last;
        float *sums = partial + thread_index() * padded;
        if (n) memset(sums, 0, (size_t)n * sizeof *sums); // without a gain there is no scratch at all
        if (thread_index() == 0) team = omp_get_num_threads();
        part(c->in[0].rows, thread_index(), omp_get_num_threads(), &first, &last);
        grad_rows(c, first, last, sums, sums + round_up(n, 16));
    }
    if (!dgain) return;
    for (i64 j = 0; j < n; j++) {
        float sum = accumulates(c, 1) ? dgain[j] : 0;
        for (int t = 0; t < team; t++) sum += partial[t * padded + j];
        dgain[j] = sum;
    }
}

static op_cost grad_cost(const node *op) { return (op_cost){9.0 * (double)count(op->in[0]), traffic(op)}; }

static const op_case grad_cases[] = {
    {"typical", "x=64x768 gain=768 s=64x1 dy=64x768 fill.s=positive f32 bf16"},
    {"no gain", "x=9x129 s=9x1 dy=9x129 fill.s=positive f32 bf16"},
    {"heads", "x=33x256 gain=64 s=33x4 dy=33x256 heads=4 fill.s=positive f32 bf16"},
    {"one value", "x=3x1 gain=1 s=3x1 dy=3x1 fill.s=positive f32"},
    {"add", "x=64x768 gain=768 s=64x1 dy=64x768 add=64x768 fill.s=positive f32 bf16 tol.bf16=0.0078"},
    {"add, no gain", "x=9x129 s=9x1 dy=9x129 add=9x129 fill.s=positive f32 bf16 tol.bf16=0.0078"},
    {"add, heads",
     "x=33x260 gain=65 s=33x4 dy=33x260 add=33x260 heads=4 fill.s=positive f32 bf16 tol.bf16=0.0078"},
    {"bench", "x=2048x768 gain=768 s=2048x1 dy=2048x768 bf16 bench"},
    {"bench add", "x=2048x768 gain=768 s=2048x1 dy=2048x768 add=2048x768 bf16 bench"},
    {0},
};

OP_DEF(rms_norm_grad) = {
    .name = "rms_norm_grad",
    .brief = "dx = s (g - z mean(g z)) + add, dgain = sum dy z; g = gain dy, z = x s",
    .replaces = {"d, dgain = rms_norm_grad(x, gain, s, dy); dx = sum(add, d)",
                 "d, dgain = rms_norm_grad(x, gain, s, dy); dx = sum(d, add)"},
    .in = {{"x", "[rows, n]"},
           {"gain", "[n/heads]", ARG_F32, .optional = true, .fill = "around1"},
           {"s", "[rows, heads]", ARG_F32},
           {"dy", "[rows, n]"},
           {"add", "[rows, n]", .optional = true}},
    .out = {{"dx", "[rows, n]"}, {"dgain", "[n/heads]", ARG_F32, .optional = true}},
    .attrs = {{"heads", 1, 1, 65536, "groups a row is normalised in"}},
    .flags = OP_ACCUMULATES,
    .inplace = 5, // dx over add
    .infer = grad_infer,
    .reference = grad_reference,
    .cpu = grad_cpu,
    .prepare = grad_prepare,
    .cost = grad_cost,
    .cases = grad_cases,
};

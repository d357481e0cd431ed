/* alpha_dropout: dropout that keeps mean 0 and variance 1, for what comes out of selu.
 *
 *   v_e = x_e if word(e) >= p 2^32, else alpha';  y = a v + b             alpha' = selu(-infinity) =
 * -1.758099 a = (q + alpha'^2 q p)^(-1/2),  b = -a p alpha',  q = 1 - p           e, word: as in dropout.c dx
 * = a dy where kept, else 0: the same op with slope = 1, which draws the mask again
 *
 * With repeat = k, a token has k rows (experts), so that micro-batches still draw different numbers.
 *
 * Source:   Klambauer et al., arXiv:1706.02515, section "New dropout technique".
 * Numerics: p is exact to 2^-32; f32, rounded once. A dropped NaN or infinity leaves nothing behind.
 */
#include "ops/activations.h"
#include "ops/op.h"
#include "base/random.h"
#include "ops/philox_rows.h"
#include <math.h>
#include <string.h>

typedef struct affine {
    double scale, shift, dropped; // kept: scale x + shift; dropped: that
} affine;

static affine constants(const node *n)
{
    double p = attr(n, "p"), least = -SELU_SCALE * SELU_ALPHA;
    double a = 1 / sqrt((1 - p) + least * least * (1 - p) * p), b = -a * p * least;
    return attr(n, "slope") > 0 ? (affine){a, 0, 0} : (affine){a, b, a * least + b};
}

static status infer(op_build *b) { return out_like(b, 0, b->n->in[0]); }

static void vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    node *d = g_node(g, OP_alpha_dropout, IN(dout[0]),
                     WITH({"p", attr(op, "p")}, {"slope", 1}, {"repeat", attr(op, "repeat")}));
    din[0] = g_out(d, 0);
}

static u64 first_element(const node *n, const step_info *step)
{
    return (u64)(step->row_offset * (i64)attr(n, "repeat") * cols(n->in[0]));
}

static void reference(const op_call64 *c)
{
    double p = attr(c->node, "p"), q = 1 - p, low = activation64(ACTIVATION_selu, -INFINITY);
    double a = pow(q + low * low * q * (1 - q), -0.5), b = -a * (1 - q) * low;
    bool slope = attr(c->node, "slope") > 0;
    u64 key = random_key(c->step->seed, c->node->stream);
    for (i64 j = 0; j < count(c->node->in[0]); j++) {
        u64 e = first_element(c->node, c->step) + (u64)j;
        bool kept = philox4x32(key, e / 4, c->step->step).v[e % 4] >= p * 0x1p32;
        double v = kept ? c->in[0][j] : slope ? 0 : low;
        c->out[0][j] = slope ? a * v : a * v + b;
    }
}

static void cpu(const op_call *c)
{
    i64 n = c->in[0].n;
    u64 key = random_key(c->step->seed, c->node->stream), step = c->step->step;
    u64 start = first_element(c->node, c->step);
    u32 least = (u32)ceil(attr(c->node, "p") * 0x1p32); // p <= 0.99
    affine k = constants(c->node);
    float scale = (float)k.scale, shift = (float)k.shift, dropped = (float)k.dropped;
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < c->in[0].rows; r++) {
        const float *x = row_in(c, 0, r);
        float *y = row_out(c, 0, r);
        u64 e = start + (u64)(r * n);
        for (i64 j = 0, size; j < n; j += size, e += (u64)size) {
            u32 buffer[4 * PHILOX_BLOCKS], *word = buffer + e % 4;
            size = MIN(n - j, 4 * PHILOX_BLOCKS - (i64)(e % 4));
            philox_draw(buffer, key, e / 4, step, ((i64)(e % 4) + size + 3) / 4);
#pragma omp simd
            for (i64 i = 0; i < size; i++) y[j + i] = word[i] >= least ? x[j + i] * scale + shift : dropped;
        }
        row_done(c, 0, r, y);
    }
}

static op_cost cost(const node *op) { return (op_cost){21.0 * (double)count(op->in[0]), traffic(op)}; }

static const op_case cases[] = {
    {"typical", "x=64x768 p=0.1 f32 bf16"},
    {"vector tail", "x=33x129 p=0.3 f32 bf16"},
    {"long rows", "x=3x1025 p=0.9 f32 bf16"},
    {"one value", "x=7x1 p=0.5 f32 bf16"},
    {"one row", "x=1x17 p=0.25 f32 bf16"},
    {"slope", "x=33x129 p=0.3 slope=1 f32 bf16"},
    {"two rows a token", "x=34x129 p=0.3 repeat=2 f32 bf16"},
    {"off", "x=5x65 p=0 f32 bf16 tol=0"},
    {"bench", "x=2048x768 p=0.1 bf16 bench"},
    {0},
};

/* Of normal numbers the mean stays 0 and the variance 1, within four standard deviations. */
static double fixed_point(law *l)
{
    double sum = 0, square = 0, n = (double)law_count(l, "x");
    double *x = law_in(l, "x");
    for (i64 i = 0; i < law_count(l, "x"); i++) sum += x[i], square += x[i] * x[i];
    double mean = sum / n, deviation = sqrt(square / n - mean * mean);
    for (i64 i = 0; i < law_count(l, "x"); i++) x[i] = (x[i] - mean) / deviation;
    const double *y = law_run(l, 0);
    sum = square = 0;
    for (i64 i = 0; i < law_count(l, "x"); i++) sum += y[i], square += y[i] * y[i];
    return fmax(fabs(sum / n), fabs(square / n - 1)) / (4 * sqrt(2 / n));
}
/* q = 0.9: a = 0.92128, b = 0.16197; what is dropped becomes a alpha' + b. */
static double by_hand(law *l)
{
    double worst = 0;
    const double *x = law_in(l, "x"), *y = law_run(l, 0);
    for (i64 i = 0; i < law_count(l, "x"); i++) {
        double kept = fabs(y[i] - (0.92128 * x[i] + 0.16197));
        worst = fmax(worst, fmin(kept, fabs(y[i] - (0.92128 * -1.7580993408473766 + 0.16197))));
    }
    return worst;
}
static const op_law laws[] = {
    {"fixed point", "x=256x256 p=0.1", fixed_point, 1},
    {"by hand", "x=64x64 p=0.1", by_hand, 3e-5},
    {0},
};

OP_DEF(alpha_dropout) = {
    .name = "alpha_dropout",
    .brief = "y = a v + b, v = x with probability 1 - p, else selu(-infinity); mean 0 and variance 1 stay",
    .source = "Klambauer et al., arXiv:1706.02515",
    .in = {{"x", "[rows, n]"}},
    .out = {{"y", "[rows, n]"}},
    .attrs = {{"p", 0, 0, 0.99, "probability of being dropped"},
              {"slope", 0, 0, 1, "1: the gradient: a where kept, else 0"},
              {"repeat", 1, 1, 65536, "rows a token has"}},
    .flags = OP_RANDOM | OP_CHEAP,
    .inplace = 1,
    .infer = infer,
    .vjp = vjp,
    .reference = reference,
    .cpu = cpu,
    .cost = cost,
    .cases = cases,
    .laws = laws,
};

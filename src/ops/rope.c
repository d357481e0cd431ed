/* rope: rotary positions: every pair of a head's values is turned by an angle that grows with the position.
 *
 *   y_i       = x_i cos a - x_{i+w/2} sin a        a = sign position base^(-2i/w),  i < w/2
 *   y_{i+w/2} = x_i sin a + x_{i+w/2} cos a        x, y [rows, heads w]; position [rows]
 *
 * The gradient turns back (sign = -1), so one op serves both directions; it works in place.
 *
 * Source:   Su et al., arXiv:2104.09864; pairs (i, i + w/2) as in Llama (the paper pairs neighbours: the same
 *           up to a permutation of q's and k's rows).
 * Numerics: the angle in double (a position of 1e6 keeps 9 digits), reduced to one turn; sine and cosine of
 *           half of it by polynomials in f32, once a row for all heads.
 */
#include "ops/op.h"
#include <math.h>
#include <string.h>

static status infer(op_build *b)
{
    i64 n = cols(b->n->in[0]), heads = (i64)attr(b->n, "heads");
    TRY(need(b, n % heads == 0 && n / heads % 2 == 0, "rows of %lld are not %lld heads of an even width",
             (long long)n, (long long)heads));
    TRY(need(b, count(b->n->in[1]) == rows_of(b->n->in[0]), "one position a row is needed"));
    return out_like(b, 0, b->n->in[0]);
}

static void vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    din[0] = g_out(
        g_node(g, OP_rope, IN(dout[0], op->in[1]),
               WITH({"heads", attr(op, "heads")}, {"base", attr(op, "base")}, {"sign", -attr(op, "sign")})),
        0);
}

static void reference(const op_call64 *c)
{
    i64 heads = (i64)attr(c->node, "heads"), w = cols(c->node->in[0]) / heads;
    for (i64 g = 0; g < rows_of(c->node->in[0]) * heads; g++)
        for (i64 i = 0; i < w / 2; i++) {
            double a = attr(c->node, "sign") * c->in[1][g / heads] *
                       pow(attr(c->node, "base"), -2.0 * (double)i / (double)w);
            double x0 = c->in[0][g * w + i], x1 = c->in[0][g * w + i + w / 2];
            c->out[0][g * w + i] = x0 * cos(a) - x1 * sin(a);
            c->out[0][g * w + i + w / 2] = x0 * sin(a) + x1 * cos(a);
        }
}

/* The frequencies; and room for the sines and cosines of one position, per thread. */
static status prepare(op_call *c)
{
    i64 w = c->in[0].n / (i64)attr(c->node, "heads");
    double *frequency = arena_array(c->arena, double, w / 2);
    for (i64 i = 0; i < w / 2; i++)
        frequency[i] = attr(c->node, "sign") * pow(attr(c->node, "base"), -2.0 * (double)i / (double)w);
    c->plan = frequency;
    return want_scratch(c, (size_t)(c->threads * round_up(w * (i64)sizeof(float), 64)));
}

/* With h half the angle left after whole turns, |h| <= pi/2:  sin = 2 sin h cos h,  cos = 1 - 2 sin^2 h.
 * Taylor series to h^11 and h^12 (6e-8 at the end). Adding and taking away 1.5 x 2^52 rounds to a whole
 * number. */
static void sines(const double *restrict frequency, double position, float *restrict cosine,
                  float *restrict sine, i64 n)
{
    const double turns = 0.15915494309189535, turn_high = 6.283185307179586, turn_low = 2.449293598294706e-16;
    const double round = 6755399441055744.0;
#pragma omp simd
    for (i64 i = 0; i < n; i++) {
        double a = frequency[i] * position, k = (a * turns + round) - round;
        float h = (float)(((a - k * turn_high) - k * turn_low) * 0.5), z = h * h;
        float s =
            h * (1 + z * (-1.f / 6 +
                          z * (1.f / 120 + z * (-1.f / 5040 + z * (1.f / 362880 - z * (1.f / 39916800))))));
        float c =
            1 + z * (-0.5f + z * (1.f / 24 + z * (-1.f / 720 +
                                                  z * (1.f / 40320 + z * (-1.f / 3628800 + z / 479001600)))));
        sine[i] = 2 * s * c;
        cosine[i] = 1 - 2 * s * s;
    }
}

static void turn(const float *x, float *y, const float *restrict cosine, const float *restrict sine, i64 half)
{
#pragma omp simd
    for (i64 i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        y[i] = a * cosine[i] - b * sine[i];
        y[i + half] = a * sine[i] + b * cosine[i];
    }
}

static void cpu(const op_call *c)
{
    i64 heads = (i64)attr(c->node, "heads"), w = c->in[0].n / heads, half = w / 2;
    const double *frequency = c->plan;
    const i32 *position = c->in[1].p;
#pragma omp parallel
    {
        float *cosine = (float *)(call_scratch(c) + thread_index() * round_up(w * (i64)sizeof(float), 64));
        float *sine = cosine + half;
        i64 known = INT64_MIN; // the position whose sines are at hand
#pragma omp for schedule(static)
        for (i64 r = 0; r < c->in[0].rows; r++) {
            const float *x = row_in(c, 0, r);
            float *y = row_out(c, 0, r);
            if (known != position[r]) sines(frequency, position[r], cosine, sine, half);
            known = position[r];
            for (i64 h = 0; h < heads; h++) turn(x + h * w, y + h * w, cosine, sine, half);
            row_done(c, 0, r, y);
        }
    }
}

static op_cost cost(const node *op) { return (op_cost){3.0 * (double)count(op->in[0]), traffic(op)}; }

static const op_case cases[] = {
    {"typical", "x=64x256 position=64 heads=4 fill.position=below:1024 f32 bf16"},
    {"far", "x=9x64 position=9 heads=1 fill.position=below:1000000 f32"},
    {"position 0 is exact", "x=5x32 position=5 heads=2 fill.position=zero f32 bf16 tol=0"},
    {"narrow", "x=7x6 position=7 heads=3 fill.position=below:50 base=100 f32 bf16"},
    {"back", "x=16x128 position=16 heads=2 sign=-1 fill.position=below:300 f32 bf16"},
    {"gpt2-sized", "x=2048x768 position=2048 heads=12 fill.position=below:1024 bf16 bench"},
    {0},
};

/* Scores depend on the difference of positions only: turning q and k (rows 0 and 1) further by 7 changes
 * nothing. */
static double relative_positions(law *l)
{
    enum { W = 32 };
    double *at = law_in(l, "position"), dot[2];
    for (int k = 0; k < 2; k++) {
        at[0] = 5 + 7 * k, at[1] = 2 + 7 * k;
        const double *y = law_run(l, 0);
        dot[k] = 0;
        for (int j = 0; j < W; j++) dot[k] += y[j] * y[W + j];
    }
    return fabs(dot[0] - dot[1]);
}
static const op_law laws[] = {
    {"relative positions", "x=2x32 position=2 heads=1 fill.position=below:9", relative_positions, 1e-12},
    {0},
};

OP_DEF(rope) = {
    .name = "rope",
    .brief = "pairs of x turned by sign position base^(-2i/w)",
    .source = "Su et al., arXiv:2104.09864",
    .in = {{"x", "[rows, heads w]"}, {"position", "[rows]", ARG_I32, .range = "any"}},
    .out = {{"y", "[rows, heads w]"}},
    .attrs = {{"heads", 1, 1, 4096, "in a row"},
              {"base", 1e4, 1, 1e12, "of the wavelengths"},
              {"sign", 1, -1, 1, "1 forward, -1 the gradient"}},
    .inplace = 1,
    .infer = infer,
    .vjp = vjp,
    .reference = reference,
    .cpu = cpu,
    .prepare = prepare,
    .cost = cost,
    .cases = cases,
    .laws = laws,
};

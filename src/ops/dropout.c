/* dropout: drop each element with probability p, scale the others up.
 *
 *   y_e = x_e / (1 - p) if word(e) >= p 2^32, else 0        e = (repeat row_offset + row) n + column
 *   word(e) = word e mod 4 of Philox block e / 4, keyed by seed, stream and step
 *   dx = the same of dy: the mask is drawn again, not kept
 *
 * The stream is the hash of the node's path, which gradient and recomputed clones carry on; row_offset counts
 * the tokens of the step's earlier micro-batches, each of which has `repeat` rows here. So masks depend on
 * neither threads nor micro-batch size.
 *
 * Source:   Srivastava et al., JMLR 15 (2014) 1929; scaled in training ("inverted"), so that evaluation
 * leaves it out. Numerics: p is exact to 2^-32; f32, rounded once. A dropped NaN or infinity is 0. The
 * definition draws by base/random.c, the kernel by philox_rows.h.
 */
#include "ops/op.h"
#include "base/random.h"
#include "ops/philox_rows.h"
#include <math.h>
#include <string.h>

static status infer(op_build *b) { return out_like(b, 0, b->n->in[0]); }

static void vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    din[0] = g_out(g_node_from(g, OP_dropout, IN(dout[0]), op), 0);
}

static void reference(const op_call64 *c)
{
    double p = attr(c->node, "p");
    i64 n = cols(c->node->in[0]);
    u64 key = random_key(c->step->seed, c->node->stream);
    for (i64 j = 0; j < count(c->node->in[0]); j++) {
        u64 e = (u64)(c->step->row_offset * (i64)attr(c->node, "repeat") * n + j);
        u32 word = philox4x32(key, e / 4, c->step->step).v[e % 4];
        c->out[0][j] = word >= p * 0x1p32 ? c->in[0][j] / (1 - p) : 0;
    }
}

static void cpu(const op_call *c)
{
    double p = attr(c->node, "p");
    i64 n = c->in[0].n;
    u64 key = random_key(c->step->seed, c->node->stream), step = c->step->step;
    i64 offset = c->step->row_offset * (i64)attr(c->node, "repeat");
    u32 least = (u32)ceil(p * 0x1p32); // p <= 0.99
    float scale = (float)(1 / (1 - p));
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < c->in[0].rows; r++) {
        const float *x = row_in(c, 0, r);
        float *y = row_out(c, 0, r);
        u64 e = (u64)((offset + r) * n);
        for (i64 j = 0, size; j < n; j += size, e += (u64)size) {
            u32 buffer[4 * PHILOX_BLOCKS], *word = buffer + e % 4;
            size = MIN(n - j, 4 * PHILOX_BLOCKS - (i64)(e % 4));
            philox_draw(buffer, key, e / 4, step, ((i64)(e % 4) + size + 3) / 4);
#pragma omp simd
            for (i64 i = 0; i < size; i++) y[j + i] = word[i] >= least ? x[j + i] * scale : 0;
        }
        row_done(c, 0, r, y);
    }
}

static op_cost cost(const node *op) { return (op_cost){20.0 * (double)count(op->in[0]), traffic(op)}; }

static const op_case cases[] = {
    {"typical", "x=64x768 p=0.1 f32 bf16"},
    {"vector tail", "x=33x129 p=0.3 f32 bf16"},
    {"long rows", "x=3x1025 p=0.9 f32 bf16"},
    {"one value", "x=7x1 p=0.5 f32 bf16 tol=0"},
    {"one row", "x=1x17 p=0.25 f32 bf16"},
    {"exact", "x=5x65 p=0.5 fill=ints f32 bf16 tol=0"},
    {"off", "x=5x65 p=0 f32 bf16 tol=0"},
    {"bench", "x=2048x768 p=0.1 bf16 bench"},
    {0},
};

/* Of ones, a share 1 - p stays within four standard deviations, and what stays is 1 / (1 - p). */
static double share(law *l)
{
    double sum = 0, worst = 0, n = (double)law_count(l, "x");
    const double *y = law_run(l, 0);
    for (i64 i = 0; i < law_count(l, "x"); i++) {
        sum += y[i];
        if (y[i] != 0) worst = fmax(worst, fabs(y[i] - 1 / 0.8));
    }
    return fmax(worst, fabs(sum / n - 1) / sqrt(0.2 / 0.8 / n) / 4);
}
/* Neighbours are dropped independently: both stay in a share (1 - p)^2, along rows and down columns. */
static double independent(law *l)
{
    double along = 0, down = 0;
    const double *y = law_run(l, 0);
    for (i64 i = 0; i + 256 < 256 * 256; i++) {
        along += y[i] != 0 && y[i + 1] != 0;
        down += y[i] != 0 && y[i + 256] != 0;
    }
    double n = 255 * 256,
           deviation = sqrt(0.64 * 0.36 / n) * 2; // pairs overlap: twice that of free ones bounds it
    return fmax(fabs(along / n - 0.64), fabs(down / n - 0.64)) / deviation / 4;
}
static const op_law laws[] = {
    {"share", "x=256x256 p=0.2 fill=one", share, 1},
    {"independent", "x=256x256 p=0.2 fill=one", independent, 1},
    {0},
};

OP_DEF(dropout) = {
    .name = "dropout",
    .brief = "y = x / (1 - p) with probability 1 - p, else 0",
    .source = "Srivastava et al., JMLR 15 (2014) 1929",
    .in = {{"x", "[rows, n]"}},
    .out = {{"y", "[rows, n]"}},
    .attrs = {{"p", 0, 0, 0.99, "probability of 0"}, {"repeat", 1, 1, 4096, "rows a token has"}},
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

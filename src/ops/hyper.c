/* hyper: Hyper-Connections and Frac-Connections. A token's stream is m rows H_1 .. H_m of n values; a branch
 * reads mixtures of them, its output is added to each with a weight, and they are carried past the branch
 * through an m x m matrix (row: source, column: destination):
 *
 *   hyper_open    X_i  = sum_j Y[j,i] H_j          what the branch reads, i = 1 .. q (its norm comes after)
 *                 H'_i = sum_j A[j,i] H_j          what is carried past it
 *   hyper_close   H^_i = B_i y_i + H'_i            y: the branch's output
 *
 *   hyper, q = 1  m streams as wide as the model: X and y are one row, y_i = y; Y = A_m [m, 1], A = A_r
 *   frac,  q = m  no wider than the model: m fractions of its width, and X and y are cut alike
 *
 *   static        Y = read, A = carry, B = beta    parameters [m, q], [m, m], [m]
 *   dynamic       Z_j = gain s_j (H_j - c_j),  s_j = (mean (H_j - c_j)^2 + eps)^(-1/2),  c_j = 0, or the mean
 *                 u[j,k] = Z_j . weight_k          of H_j if centred; k = 0 | 1 .. q | q+1 .. q+m
 *                 B_j    = beta_j     + scale_0 tanh u[j,0]
 *                 Y[j,i] = read[j,i]  + scale_1 tanh u[j,i]
 *                 A[j,i] = carry[j,i] + scale_1 tanh u[j,q+i]
 *
 * Gradients, with R = dX, G = dH' (which is dH^ itself), C[j] = (B_j, Y[j,:], A[j,:]) and a^ = a less its
 * mean over n if centred, a itself if not:
 *
 *   dy_i = B_i G_i (q = 1: their sum)   dB_i = y_i . G_i   dY[j,i] = H_j . R_i   dA[j,i] = H_j . G_i
 *   dH_j = sum_i (Y[j,i] R_i + A[j,i] G_i) + s_j (gain sum_k du[j,k] weight_k)^
 *          - s_j^2/n (sum_k du[j,k] u[j,k]) H_j^
 *   du   = scale (1 - tanh^2 u) dC,  dscale = sum tanh u dC,  dweight_k = sum du[j,k] Z_j,
 *   dgain = sum_k weight_k sum du[j,k] s_j H_j^
 *
 * One row is read once: norm, coefficients and both mixtures are one op, and so are their gradients. A stream
 * that starts with Y one-hot or I, A = I, B = 1, weight = 0 is h + y to the bit.
 *
 * Source:   Hyper-Connections, arXiv:2409.19606; Frac-Connections, arXiv:2503.14125.
 * Departs:  frac: B multiplies fraction i of y (the pseudo-code; the paper's text writes a product with B^T),
 * and the norm is an RMSNorm with n gains, as the paper's formula of its parameters counts; its text says
 * LayerNorm. hyper: a centred norm has a gain but no bias. Numerics: f32 inside; X and H' are rounded once to
 * the stream's storage.
 */
#include "ops/hyper.h"

/* ---- definition */

/* Outputs OUT.. of an open. */
static status infer_open(op_build *b, int out)
{
    tensor **in = b->n->in;
    hyper_shape s = hyper_shape_of(in[HYPER_H], in[HYPER_READ], in[HYPER_CARRY]);
    i64 dim[MAX_DIMS], rows = rows_of(in[HYPER_H]);
    memcpy(dim, in[HYPER_H]->dim, sizeof dim);
    dim[in[HYPER_H]->ndim - 1] = s.q * s.n;
    TRY(out_shape(b, out, in[HYPER_H]->dtype, in[HYPER_H]->ndim, dim));
    TRY(out_like(b, out + 1, in[HYPER_H]));
    if (!in[HYPER_WEIGHT]) return OK;
    TRY(out_shape(b, out + 2, DT_F32, 2, (i64[]){rows, s.m}));
    TRY(out_shape(b, out + 3, DT_F32, 2, (i64[]){rows, s.m * s.K}));
    return out_shape(b, out + 4, DT_F32, 2, (i64[]){rows, s.m});
}

static status infer(op_build *b)
{
    TRY(hyper_need(b));
    return infer_open(b, 0);
}

static void vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    node *d = g_node_from(g, OP_hyper_open_grad,
                          IN(op->in[0], op->in[1], op->in[2], op->in[3], op->in[4], op->in[5], op->in[6],
                             op->out[3], op->out[4], dout[0], dout[1], dout[2]),
                          op);
    for (int i = 0; i < 7; i++) din[i] = g_out(d, i);
}

static void reference(const op_call64 *c)
{
    const tensor *h = c->node->in[HYPER_H];
    hyper_shape s = hyper_shape_of(h, c->node->in[HYPER_READ], c->node->in[HYPER_CARRY]);
    for (i64 r = 0; r < rows_of(h); r++) hyper_open64(c, s, r, c->in[HYPER_H] + r * s.m * s.n, 0);
}

/* ---- kernel */

static status prepare(op_call *c)
{
    const node *op = c->node;
    hyper_shape s = hyper_shape_of(op->in[HYPER_H], op->in[HYPER_READ], op->in[HYPER_CARRY]);
    return want_scratch(c, hyper_shared_floats(s) * sizeof(float));
}

/* Where row R of the outputs from OUT on goes. */
static hyper_row row_of(const op_call *c, hyper_shape s, i64 r, int out)
{
    hyper_row to = {.x = row_out(c, out, r), .carried = row_out(c, out + 1, r)};
    if (!c->in[HYPER_WEIGHT].p) return to;
    to.b = (float *)c->out[out + 2].p + r * s.m;
    to.u = (float *)c->out[out + 3].p + r * s.m * s.K;
    to.s = (float *)c->out[out + 4].p + r * s.m;
    return to;
}

static void cpu(const op_call *c)
{
    hyper_call w = hyper_lay_out(c);
    const hyper_form *form = hyper_form_of(w.s);
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < c->in[HYPER_H].rows; r++) {
        hyper_row to = row_of(c, w.s, r, 0);
        form->open(&w, row_in(c, HYPER_H, r), &to);
        hyper_done(c, 0, r, to.x);
        hyper_done(c, 1, r, to.carried);
    }
}

static op_cost cost(const node *op)
{
    hyper_shape s = hyper_shape_of(op->in[HYPER_H], op->in[HYPER_READ], op->in[HYPER_CARRY]);
    double each = 2.0 * (double)(s.q + s.m) + (op->in[HYPER_WEIGHT] ? 2.0 * (double)s.K + 2 : 0);
    return (op_cost){each * (double)count(op->in[0]), traffic(op)};
}

static const op_case cases[] = {
    {"typical", "h=64x768 read=4x4 carry=4x4 beta=4 weight=9x192 scale=2 gain=192 f32 bf16"},
    {"static", "h=33x256 read=4x4 carry=4x4 f32 bf16"},
    {"no gain", "h=9x24 read=4x4 carry=4x4 beta=4 weight=9x6 scale=2 f32 bf16"},
    {"two", "h=17x90 read=2x2 carry=2x2 beta=2 weight=5x45 scale=2 gain=45 f32 bf16"},
    {"one fraction", "h=5x37 read=1x1 carry=1x1 beta=1 weight=3x37 scale=2 gain=37 f32 bf16"},
    {"three, tail", "h=7x51 read=3x3 carry=3x3 beta=3 weight=7x17 scale=2 gain=17 f32 bf16"},
    {"eight", "h=6x264 read=8x8 carry=8x8 beta=8 weight=17x33 scale=2 gain=33 f32 bf16"},
    {"sixteen", "h=3x64 read=16x16 carry=16x16 beta=16 weight=33x4 scale=2 gain=4 f32"},
    {"one value each", "h=3x4 read=4x4 carry=4x4 beta=4 weight=9x1 scale=2 gain=1 eps=0.1 f32"},
    {"zero rows", "h=3x32 read=4x4 carry=4x4 beta=4 weight=9x8 scale=2 gain=8 eps=0.01 fill.h=zero f32 bf16"},
    {"exact", "h=5x96 read=4x4 carry=4x4 fill=ints f32 bf16 tol=0"},
    {"exact, weight 0",
     "h=5x96 read=4x4 carry=4x4 beta=4 weight=9x24 scale=2 fill=ints fill.weight=zero f32 tol=1e-7"},
    {"hyper", "h=33x768 read=4x1 carry=4x4 beta=4 weight=6x192 scale=2 gain=192 f32 bf16"},
    {"hyper, static", "h=9x260 read=4x1 carry=4x4 f32 bf16"},
    {"hyper, centred", "h=17x260 read=4x1 carry=4x4 beta=4 weight=6x65 scale=2 gain=65 centred=1 f32 bf16"},
    {"hyper, two", "h=17x90 read=2x1 carry=2x2 beta=2 weight=4x45 scale=2 gain=45 f32 bf16"},
    {"hyper, three", "h=5x51 read=3x1 carry=3x3 beta=3 weight=5x17 scale=2 centred=1 f32 bf16"},
    {"hyper, sixteen", "h=3x64 read=16x1 carry=16x16 beta=16 weight=18x4 scale=2 gain=4 f32"},
    {"hyper, exact", "h=5x96 read=4x1 carry=4x4 fill=ints f32 bf16 tol=0"},
    {"bench", "h=4096x576 read=4x4 carry=4x4 beta=4 weight=9x144 scale=2 gain=144 bf16 bench"},
    {"bench static", "h=4096x576 read=4x4 carry=4x4 bf16 bench"},
    {"bench hyper", "h=2048x2304 read=4x1 carry=4x4 beta=4 weight=6x576 scale=2 gain=576 bf16 bench"},
    {"bench hyper static", "h=2048x2304 read=4x1 carry=4x4 bf16 bench"},
    {0},
};

/* ---- laws */

static void identity(double *x, i64 m)
{
    for (i64 i = 0; i < m * m; i++) x[i] = i / m == i % m;
}

/* With read = carry = I, beta = 1 and weight = 0 the op hands h on, to the bit, and B is 1: whatever the
 * scales. */
static double starts_as_identity(law *l)
{
    double worst = 0;
    const double *h = law_in(l, "h");
    identity(law_in(l, "read"), 4);
    identity(law_in(l, "carry"), 4);
    for (i64 i = 0; i < 4; i++) law_in(l, "beta")[i] = 1;
    memset(law_in(l, "weight"), 0, sizeof(double) * (size_t)law_count(l, "weight"));
    for (int out = 0; out < 2; out++)
        for (i64 i = 0; i < law_count(l, "h"); i++) worst = fmax(worst, fabs(law_run(l, out)[i] - h[i]));
    for (i64 i = 0; i < law_count(l, "h") / 96 * 4; i++) worst = fmax(worst, fabs(law_run(l, 2)[i] - 1));
    return worst;
}

enum { P = 3 }; // fractions of the next law
static const int to[P] = {2, 0, 1};

static void permute(double *x, i64 blocks, i64 n) // [blocks][P][n]: item i of each goes to place to[i]
{
    double copy[P * 64];
    for (i64 b = 0; b < blocks; b++, x += P * n) {
        memcpy(copy, x, sizeof *x * (size_t)(P * n));
        for (i64 i = 0; i < P; i++) memcpy(x + to[i] * n, copy + i * n, sizeof *x * (size_t)n);
    }
}

/* Streams, and with them rows and columns of every matrix, in another order: the same results in that
 * order. */
static double order_of_fractions(law *l)
{
    enum { ROWS = 4, N = 7, D = P * N };
    double first[2][ROWS * D], worst = 0;
    for (int out = 0; out < 2; out++) {
        memcpy(first[out], law_run(l, out), sizeof first[out]);
        permute(first[out], ROWS, N);
    }
    permute(law_in(l, "h"), ROWS, N);
    permute(law_in(l, "beta"), 1, 1);
    for (int k = 0; k < 2; k++) {
        double *matrix = law_in(l, k ? "carry" : "read");
        permute(matrix, 1, P);
        permute(matrix, P, 1);
        permute(law_in(l, "weight") + (1 + k * P) * N, 1, N);
    }
    for (int out = 0; out < 2; out++)
        for (i64 i = 0; i < ROWS * D; i++) worst = fmax(worst, fabs(law_run(l, out)[i] - first[out][i]));
    return worst;
}

static const op_law laws[] = {
    {"starts as the identity", "h=5x96 read=4x4 carry=4x4 beta=4 weight=9x24 scale=2 gain=24",
     starts_as_identity, 0},
    {"order of fractions", "h=4x21 read=3x3 carry=3x3 beta=3 weight=7x7 scale=2 gain=7", order_of_fractions,
     1e-13},
    {0},
};

#define HYPER_ATTRS                                                                                          \
    {                                                                                                        \
        {"eps", 1e-5, 0, 1, "added to a stream's mean square"},                                              \
        {                                                                                                    \
            "centred", 0, 0, 1, "1: the norm of a stream subtracts its mean"                                 \
        }                                                                                                    \
    }

OP_DEF(hyper_open) = {
    .name = "hyper_open",
    .brief = "x = Y^T H, carried = A^T H over the m streams of h; dynamic (weight given): Y, A, b = fixed + "
             "scale tanh(u)",
    .source = "Hyper-Connections, arXiv:2409.19606; Frac-Connections, arXiv:2503.14125",
    .in = {{"h", "[rows, m n]"},
           {"read", "[m, q]", ARG_F32},
           {"carry", "[m, m]", ARG_F32},
           {"beta", "[m]", ARG_F32, .optional = true},
           {"weight", "[1+q+m, n]", ARG_F32, .optional = true},
           {"scale", "[2]", ARG_F32, .optional = true},
           {"gain", "[n]", ARG_F32, .optional = true, .fill = "around1"}},
    .out = {{"x", "[rows, q n]"},
            {"carried", "[rows, m n]"},
            {"b", "[rows, m]", ARG_F32, .optional = true},
            {"u", "[rows, m(1+q+m)]", ARG_F32, .optional = true, .fixed = true},
            {"s", "[rows, m]", ARG_F32, .optional = true, .fixed = true}},
    .attrs = HYPER_ATTRS,
    .flags = OP_CHEAP,
    .infer = infer,
    .vjp = vjp,
    .reference = reference,
    .cpu = cpu,
    .prepare = prepare,
    .cost = cost,
    .cases = cases,
    .laws = laws,
};

/* ---- close */

static status close_need(op_build *b, const tensor *carried, const tensor *y, const tensor *beta)
{
    i64 m = cols(beta), rows = rows_of(beta);
    TRY(need(b, m >= 1 && m <= MOST_STREAMS && cols(carried) % m == 0,
             "rows of %lld do not divide into %lld streams (at most %d)", (long long)cols(carried),
             (long long)m, MOST_STREAMS));
    TRY(need(b, rows_of(y) == rows_of(carried) && (cols(y) == cols(carried) || cols(y) * m == cols(carried)),
             "y must have the shape of carried, or the rows of one stream"));
    return need(b, rows == 1 || rows == rows_of(y), "b has %lld rows; it must have 1 or %lld",
                (long long)rows, (long long)rows_of(y));
}

static status close_infer(op_build *b)
{
    tensor **in = b->n->in;
    TRY(close_need(b, in[0], in[1], in[2]));
    return out_like(b, 0, in[0]);
}

static void close_vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    node *d = g_node(g, OP_hyper_close_grad, IN(op->in[1], op->in[2], dout[0]), NO_ATTRS);
    din[0] = dout[0];
    din[1] = g_out(d, 0);
    din[2] = g_out(d, 1);
}

/* H^ of row R. */
static void close64(hyper_shape s, i64 r, const double *carried, const double *y, const double *b, double *h)
{
    for (i64 i = 0; i < s.m; i++)
        for (i64 e = 0; e < s.n; e++)
            h[(r * s.m + i) * s.n + e] =
                b[i] * y[(r * s.q + (s.q > 1 ? i : 0)) * s.n + e] + carried[(r * s.m + i) * s.n + e];
}

static hyper_shape close_shape(const tensor *carried, const tensor *y, const tensor *b)
{
    i64 m = cols(b), n = cols(carried) / m;
    return (hyper_shape){.m = m, .q = m == 1 ? 1 : cols(y) / MAX(n, 1), .n = n};
}
/* Elements of b from one row to the next: 0 where all share it. */
static i64 step_of(const tensor *b) { return rows_of(b) == 1 ? 0 : cols(b); }

static void close_reference(const op_call64 *c)
{
    tensor *const *in = c->node->in;
    hyper_shape s = close_shape(in[0], in[1], in[2]);
    for (i64 r = 0; r < rows_of(in[0]); r++)
        close64(s, r, c->in[0], c->in[1], c->in[2] + r * step_of(in[2]), c->out[0]);
}

static void close_cpu(const op_call *c)
{
    tensor *const *in = c->node->in;
    hyper_shape s = close_shape(in[0], in[1], in[2]);
    const hyper_form *form = hyper_form_of(s);
    i64 step = step_of(in[2]);
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < c->in[0].rows; r++) {
        float *h = row_out(c, 0, r);
        form->close(s, (const float *)c->in[2].p + r * step, row_in(c, 0, r), row_in(c, 1, r), h);
        hyper_done(c, 0, r, h);
    }
}

static op_cost close_cost(const node *op) { return (op_cost){2.0 * (double)count(op->in[0]), traffic(op)}; }

static const op_case close_cases[] = {
    {"typical", "carried=64x768 y=64x768 b=64x4 f32 bf16"},
    {"static", "carried=33x256 y=33x256 b=4 f32 bf16"},
    {"three, tail", "carried=7x51 y=7x51 b=7x3 f32 bf16"},
    {"one row", "carried=1x6 y=1x6 b=1x2 f32 bf16"},
    {"one value each", "carried=3x4 y=3x4 b=4 f32"},
    {"exact", "carried=5x96 y=5x96 b=5x4 fill=ints f32 bf16 tol=0"},
    {"exact, static", "carried=5x96 y=5x96 b=2 fill=ints f32 bf16 tol=0"},
    {"hyper", "carried=17x260 y=17x65 b=17x4 f32 bf16"},
    {"hyper, static", "carried=7x51 y=7x17 b=3 f32 bf16"},
    {"hyper, one stream", "carried=7x17 y=7x17 b=7x1 f32 bf16"},
    {"hyper, exact", "carried=5x96 y=5x24 b=5x4 fill=ints f32 bf16 tol=0"},
    {"bench", "carried=4096x576 y=4096x576 b=4096x4 bf16 bench"},
    {"bench hyper", "carried=2048x2304 y=2048x576 b=2048x4 bf16 bench"},
    {0},
};

OP_DEF(hyper_close) = {
    .name = "hyper_close",
    .brief = "h_i = b_i y_i + carried_i, stream by stream; b of each row, or one for all",
    .source = "Hyper-Connections, arXiv:2409.19606; Frac-Connections, arXiv:2503.14125",
    .in = {{"carried", "[rows, m n]"}, {"y", "[rows, q n]"}, {"b", "[..., m]", ARG_F32}},
    .out = {{"h", "[rows, m n]"}},
    .inplace = 1,
    .infer = close_infer,
    .vjp = close_vjp,
    .reference = close_reference,
    .cpu = close_cpu,
    .cost = close_cost,
    .cases = close_cases,
};

/* ---- join: the close of a branch and the open of the next in one pass. A fused op: the rewrites
 * (graph/rewrite.h) put it in place of the two after autodiff. Its inputs are those of the open, the stream
 * carried so far in place of h, then y and b of the close. The open reads h as rounded to its storage, so
 * that the bits are those of the sequence. */
enum { JOIN_Y = 7, JOIN_B };

static status join_infer(op_build *b)
{
    tensor **in = b->n->in;
    TRY(hyper_need(b));
    hyper_shape s = hyper_shape_of(in[HYPER_H], in[HYPER_READ], in[HYPER_CARRY]);
    TRY(close_need(b, in[HYPER_H], in[JOIN_Y], in[JOIN_B]));
    TRY(need(b, cols(in[JOIN_B]) == s.m && cols(in[JOIN_Y]) == s.q * s.n,
             "y must have %lld columns and b %lld: both branches have equal streams", (long long)(s.q * s.n),
             (long long)s.m));
    TRY(out_like(b, 0, in[HYPER_H]));
    return infer_open(b, 1);
}

static void join_reference(const op_call64 *c)
{
    tensor *const *in = c->node->in;
    hyper_shape s = hyper_shape_of(in[HYPER_H], in[HYPER_READ], in[HYPER_CARRY]);
    for (i64 r = 0; r < rows_of(in[HYPER_H]); r++) {
        close64(s, r, c->in[HYPER_H], c->in[JOIN_Y], c->in[JOIN_B] + r * step_of(in[JOIN_B]), c->out[0]);
        hyper_open64(c, s, r, c->out[0] + r * s.m * s.n, 1);
    }
}

static void join_cpu(const op_call *c)
{
    hyper_call w = hyper_lay_out(c);
    const hyper_form *form = hyper_form_of(w.s);
    i64 step = step_of(c->node->in[JOIN_B]);
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < c->in[HYPER_H].rows; r++) {
        const float *b = (const float *)c->in[JOIN_B].p + r * step;
        float *h = row_out(c, 0, r);
        hyper_row to = row_of(c, w.s, r, 1);
        form->close(w.s, b, row_in(c, HYPER_H, r), row_in(c, JOIN_Y, r), h);
        hyper_settled(c, 0, r, h);
        form->open(&w, h, &to);
        hyper_done(c, 1, r, to.x);
        hyper_done(c, 2, r, to.carried);
    }
}

static op_cost join_cost(const node *op)
{
    return (op_cost){cost(op).flops + 2.0 * (double)count(op->in[0]), traffic(op)};
}

// In bf16 h is rounded before the sums over n that make u.
static const op_case join_cases[] = {
    {"typical",
     "carried=33x768 read=4x1 carry=4x4 beta=4 weight=6x192 scale=2 gain=192 y=33x192 b=33x4 f32 bf16 "
     "tol.bf16=0.06"},
    {"static", "carried=9x260 read=4x1 carry=4x4 y=9x65 b=4 f32 bf16 tol.bf16=0.0078"},
    {"centred",
     "carried=17x90 read=2x1 carry=2x2 beta=2 weight=4x45 scale=2 gain=45 y=17x45 b=17x2 centred=1 "
     "f32 bf16 tol.bf16=0.06"},
    {"three", "carried=7x51 read=3x1 carry=3x3 beta=3 weight=5x17 scale=2 y=7x17 b=3 f32 bf16 tol.bf16=0.06"},
    {"frac", "carried=33x256 read=4x4 carry=4x4 beta=4 weight=9x64 scale=2 gain=64 y=33x256 b=33x4 f32 bf16 "
             "tol.bf16=0.06"},
    {"frac, static", "carried=5x96 read=2x2 carry=2x2 y=5x96 b=2 f32 bf16 tol.bf16=0.0078"},
    {"one stream", "carried=5x37 read=1x1 carry=1x1 beta=1 weight=3x37 scale=2 gain=37 y=5x37 b=5x1 f32 bf16 "
                   "tol.bf16=0.06"},
    {"exact", "carried=5x96 read=4x1 carry=4x4 y=5x24 b=5x4 fill=ints f32 tol=0"},
    {"bench", "carried=2048x2304 read=4x1 carry=4x4 beta=4 weight=6x576 scale=2 gain=576 y=2048x576 b=2048x4 "
              "bf16 bench"},
    {"bench frac", "carried=2048x576 read=4x4 carry=4x4 beta=4 weight=9x144 scale=2 gain=144 y=2048x576 "
                   "b=2048x4 bf16 bench"},
    {0},
};

OP_DEF(hyper_join) = {
    .name = "hyper_join",
    .brief = "h = hyper_close(carried, y, b), then hyper_open of it, in one pass",
    .source = "Hyper-Connections, arXiv:2409.19606; Frac-Connections, arXiv:2503.14125",
    .replaces =
        {"h = hyper_close(carried, y, b); x, next, bn, u, s = hyper_open(h, read, carry, beta, weight, "
         "scale, gain)"},
    .in = {{"carried", "[rows, m n]"},
           {"read", "[m, q]", ARG_F32},
           {"carry", "[m, m]", ARG_F32},
           {"beta", "[m]", ARG_F32, .optional = true},
           {"weight", "[1+q+m, n]", ARG_F32, .optional = true},
           {"scale", "[2]", ARG_F32, .optional = true},
           {"gain", "[n]", ARG_F32, .optional = true, .fill = "around1"},
           {"y", "[rows, q n]"},
           {"b", "[..., m]", ARG_F32}},
    .out = {{"h", "[rows, m n]"},
            {"x", "[rows, q n]"},
            {"next", "[rows, m n]"},
            {"bn", "[rows, m]", ARG_F32, .optional = true},
            {"u", "[rows, m(1+q+m)]", ARG_F32, .optional = true, .fixed = true},
            {"s", "[rows, m]", ARG_F32, .optional = true, .fixed = true}},
    .attrs = HYPER_ATTRS,
    .inplace = 1,
    .infer = join_infer,
    .reference = join_reference,
    .cpu = join_cpu,
    .prepare = prepare,
    .cost = join_cost,
    .cases = join_cases,
};

/* frac: Frac-Connections. The stream's row h [d] is cut into m fractions H_1 .. H_m of n = d/m channels;
 * every branch reads them, and they are carried past it, through m x m matrices (row: source, column:
 * destination):
 *
 *   frac_open    X_i  = sum_j Y[j,i] H_j           what the branch reads (its norm comes after)
 *                H'_i = sum_j A[j,i] H_j           what is carried past it
 *   frac_close   H^_i = B_i y_i + H'_i             y: the branch's output, cut alike
 *
 *   static       Y = read, A = carry, B = beta     parameters [m, m], [m, m], [m]
 *   dynamic      Z_j = gain r_j H_j,  r_j = (mean H_j^2 + eps)^(-1/2)
 *                u[j,k] = Z_j . weight_k           k = 0 | 1 .. m | m+1 .. 2m, shared by all fractions
 *                B_j    = beta_j     + scale_0 tanh u[j,0]
 *                Y[j,i] = read[j,i]  + scale_1 tanh u[j,1+i]
 *                A[j,i] = carry[j,i] + scale_1 tanh u[j,1+m+i]
 *
 * Gradients, with R = dX, G = dH' (which is dH^ itself) and C[j] = (B_j, Y[j,:], A[j,:]):
 *
 *   dy_i = B_i G_i       dB_i = y_i . G_i       dY[j,i] = H_j . R_i       dA[j,i] = H_j . G_i
 *   dH_j = sum_i (Y[j,i] R_i + A[j,i] G_i) + r_j gain sum_k du[j,k] weight_k - r_j^2/n (sum_k du[j,k] u[j,k])
 * H_j du   = scale (1 - tanh^2 u) dC,  dscale = sum tanh u dC,  dweight_k = sum du[j,k] Z_j, dgain = sum_k
 * weight_k sum du[j,k] r_j H_j
 *
 * One row is read once: norm, coefficients and both mixtures are one op, and so are their gradients. A stream
 * that starts with Y = A = I, B = 1, weight = 0 is h + y to the bit.
 *
 * Source:   Frac-Connections, arXiv:2503.14125.
 * Departs:  B multiplies fraction i of y (the pseudo-code; the paper's text writes a product with B^T). The
 * norm is an RMSNorm with d/m gains, as the paper's formula of its parameters counts; its text says
 * LayerNorm. Numerics: f32 inside; X and H' are rounded once to the stream's storage.
 */
#include "ops/frac.h"

/* ---- definition */

static status infer(op_build *b)
{
    enum { H, READ, CARRY, BETA, WEIGHT, SCALE, GAIN };
    tensor **in = b->n->in;
    i64 d = cols(in[H]), m = cols(in[READ]), k = 2 * m + 1;
    TRY(need(b, m <= MOST_FRACTIONS, "%lld fractions; at most %d", (long long)m, MOST_FRACTIONS));
    TRY(need(b, d % m == 0, "rows of %lld do not divide into %lld fractions", (long long)d, (long long)m));
    TRY(need(b, count(in[READ]) == m * m && same_shape(in[READ], in[CARRY]),
             "read and carry must be [%lld, %lld]", (long long)m, (long long)m));
    TRY(need(b, !in[WEIGHT] == !in[BETA] && !in[WEIGHT] == !in[SCALE] && (in[WEIGHT] || !in[GAIN]),
             "beta, weight and scale come together (dynamic) or not at all; gain only with them"));
    TRY(out_like(b, 0, in[H]));
    TRY(out_like(b, 1, in[H]));
    if (!in[WEIGHT]) return OK;
    TRY(need(b, count(in[WEIGHT]) == k * (d / m) && cols(in[WEIGHT]) == d / m, "weight must be [%lld, %lld]",
             (long long)k, (long long)(d / m)));
    TRY(need(b, count(in[BETA]) == m && count(in[SCALE]) == 2, "beta must be [%lld], scale [2]",
             (long long)m));
    TRY(need(b, !in[GAIN] || count(in[GAIN]) == d / m, "gain must be [%lld]", (long long)(d / m)));
    i64 rows = rows_of(in[H]);
    TRY(out_shape(b, 2, DT_F32, 2, (i64[]){rows, m}));
    TRY(out_shape(b, 3, DT_F32, 2, (i64[]){rows, m * k}));
    return out_shape(b, 4, DT_F32, 2, (i64[]){rows, m});
}

static void vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    node *d = g_node_from(g, OP_frac_open_grad,
                          IN(op->in[0], op->in[1], op->in[2], op->in[3], op->in[4], op->in[5], op->in[6],
                             op->out[3], op->out[4], dout[0], dout[1], dout[2]),
                          op);
    for (int i = 0; i < 7; i++) din[i] = g_out(d, i);
}

static void reference(const op_call64 *c)
{
    const tensor *in = c->node->in[0];
    i64 d = cols(in), m = cols(c->node->in[1]), n = d / m, K = 2 * m + 1;
    double eps = attr(c->node, "eps");
    const double *weight = c->in[4], *gain = c->in[6];
    for (i64 r = 0; r < rows_of(in); r++) {
        const double *h = c->in[0] + r * d;
        double *u = weight ? c->out[3] + r * m * K : NULL;
        for (i64 j = 0; u && j < m; j++) {
            double square = 0;
            for (i64 e = 0; e < n; e++) square += h[j * n + e] * h[j * n + e];
            double s = c->out[4][r * m + j] = 1 / sqrt(square / (double)n + eps);
            for (i64 k = 0; k < K; k++) {
                u[j * K + k] = 0;
                for (i64 e = 0; e < n; e++)
                    u[j * K + k] += h[j * n + e] * s * (gain ? gain[e] : 1) * weight[k * n + e];
            }
            c->out[2][r * m + j] = frac_coefficient64(c, u, m, j, 0);
        }
        for (i64 i = 0; i < m; i++)
            for (i64 e = 0; e < n; e++) {
                double x = 0, carried = 0;
                for (i64 j = 0; j < m; j++) {
                    x += frac_coefficient64(c, u, m, j, 1 + i) * h[j * n + e];
                    carried += frac_coefficient64(c, u, m, j, 1 + m + i) * h[j * n + e];
                }
                c->out[0][r * d + i * n + e] = x;
                c->out[1][r * d + i * n + e] = carried;
            }
    }
}

/* ---- kernel */

/* Sums of a row: TO[j][k] = H_j . T[:, k], T [n][padded] the transposed gain x weight: a vector holds LANES
 * of the 2m + 1 sums, so nothing is summed across lanes. */
INLINE void project(const float *h, const float *t, i64 m, i64 n, i64 padded, float *to)
{
    for (i64 k = 0; k < padded; k += LANES) {
        vector even[MOST_FRACTIONS], odd[MOST_FRACTIONS];
        for (i64 j = 0; j < m; j++) even[j] = odd[j] = (vector){0};
        i64 e = 0;
        for (; e + 2 <= n; e += 2) {
            vector a = *(const loose *)(t + e * padded + k), b = *(const loose *)(t + (e + 1) * padded + k);
            for (i64 j = 0; j < m; j++) {
                even[j] += a * h[j * n + e];
                odd[j] += b * h[j * n + e + 1];
            }
        }
        for (i64 j = 0; e < n && j < m; j++) even[j] += *(const loose *)(t + e * padded + k) * h[j * n + e];
        for (i64 j = 0; j < m; j++) *(loose *)(to + j * padded + k) = even[j] + odd[j];
    }
}

static float sum_of_squares(const float *x, i64 n)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (i64 j = 0; j < n; j++) sum += x[j] * x[j];
    return sum;
}

/* LEFT >= LANES values from E on of every fraction of X and H' (fewer at a fraction's end). */
INLINE void mix_lanes(const float *h, const float *C, i64 m, i64 n, i64 e, i64 left, float *x, float *carried)
{
    vector H[MOST_FRACTIONS];
    i64 K = 2 * m + 1;
    for (i64 j = 0; j < m; j++) H[j] = get(h + j * n + e, left);
    for (i64 i = 0; i < m; i++) {
        vector a = H[0] * C[1 + i], b = H[0] * C[1 + m + i];
        for (i64 j = 1; j < m; j++) {
            a += H[j] * C[j * K + 1 + i];
            b += H[j] * C[j * K + 1 + m + i];
        }
        put(x + i * n + e, a, left);
        put(carried + i * n + e, b, left);
    }
}

/* The rows of one thread. M is the number of fractions: where the compiler knows it, sums stay in registers.
 */
INLINE void open_rows(const op_call *c, i64 m, i64 first, i64 last, const frac_scratch *w)
{
    i64 n = c->in[0].n / m, K = 2 * m + 1, padded = round_up(K, LANES);
    float C[MOST_COEFFICIENTS], sums[MOST_FRACTIONS * 48], eps = (float)attr(c->node, "eps");
    memcpy(C, w->fixed, (size_t)(m * K) * sizeof *C);
    for (i64 r = first; r < last; r++) {
        const float *h = row_in(c, 0, r);
        float *x = row_out(c, 0, r), *carried = row_out(c, 1, r);
        if (w->transposed) {
            float *u = (float *)c->out[3].p + r * m * K, *s = (float *)c->out[4].p + r * m;
            project(h, w->transposed, m, n, padded, sums);
            for (i64 j = 0; j < m; j++) {
                s[j] = 1 / sqrtf(sum_of_squares(h + j * n, n) / (float)n + eps);
                for (i64 k = 0; k < K; k++) u[j * K + k] = s[j] * sums[j * padded + k];
            }
            frac_coefficients(w->fixed, u, c->in[FRAC_SCALE].p, m, C);
            for (i64 j = 0; j < m; j++) ((float *)c->out[2].p)[r * m + j] = C[j * K];
        }
        i64 e = 0;
        for (; e + LANES <= n; e += LANES) mix_lanes(h, C, m, n, e, LANES, x, carried);
        if (e < n) mix_lanes(h, C, m, n, e, n - e, x, carried);
        row_done(c, 0, r, x);
        row_done(c, 1, r, carried);
    }
}

static status prepare(op_call *c)
{
    return want_scratch(c, frac_shared_floats(frac_shape_of(c), c->in[FRAC_WEIGHT].n > 0) * sizeof(float));
}

static void cpu(const op_call *c)
{
    frac_shape s = frac_shape_of(c);
    frac_scratch w = frac_lay_out(c, s);
#pragma omp parallel
    {
        i64 first, last;
        part(c->in[0].rows, thread_index(), omp_get_num_threads(), &first, &last);
        if (s.m == 4)
            open_rows(c, 4, first, last, &w);
        else if (s.m == 2)
            open_rows(c, 2, first, last, &w);
        else
            open_rows(c, s.m, first, last, &w);
    }
}

static op_cost cost(const node *op)
{
    double m = (double)cols(op->in[1]), each = 4 * m + (op->in[FRAC_WEIGHT] ? 4 * m + 4 : 0);
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
    {"bench", "h=4096x576 read=4x4 carry=4x4 beta=4 weight=9x144 scale=2 gain=144 bf16 bench"},
    {"bench static", "h=4096x576 read=4x4 carry=4x4 bf16 bench"},
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

/* Fractions, and with them rows and columns of every matrix, in another order: the same results in that
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

OP_DEF(frac_open) = {
    .name = "frac_open",
    .brief = "x = Y^T H, carried = A^T H over m fractions of h; dynamic (weight given): Y, A, b = fixed + "
             "scale tanh(u)",
    .source = "Frac-Connections, arXiv:2503.14125",
    .in = {{"h", "[rows, d]"},
           {"read", "[m, m]", ARG_F32},
           {"carry", "[m, m]", ARG_F32},
           {"beta", "[m]", ARG_F32, .optional = true},
           {"weight", "[2m+1, d/m]", ARG_F32, .optional = true},
           {"scale", "[2]", ARG_F32, .optional = true},
           {"gain", "[d/m]", ARG_F32, .optional = true, .fill = "around1"}},
    .out = {{"x", "[rows, d]"},
            {"carried", "[rows, d]"},
            {"b", "[rows, m]", ARG_F32, .optional = true},
            {"u", "[rows, m(2m+1)]", ARG_F32, .optional = true, .fixed = true},
            {"s", "[rows, m]", ARG_F32, .optional = true, .fixed = true}},
    .attrs = {{"eps", 1e-5, 0, 1, "added to a fraction's mean square"}},
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

static status close_infer(op_build *b)
{
    const tensor *carried = b->n->in[0], *y = b->n->in[1], *beta = b->n->in[2];
    i64 m = cols(beta), rows = rows_of(beta);
    TRY(need(b, same_shape(carried, y), "carried and y differ in shape"));
    TRY(need(b, m <= MOST_FRACTIONS && cols(y) % m == 0,
             "rows of %lld do not divide into %lld fractions (at most %d)", (long long)cols(y), (long long)m,
             MOST_FRACTIONS));
    TRY(need(b, rows == 1 || rows == rows_of(y), "b has %lld rows; it must have 1 or %lld", (long long)rows,
             (long long)rows_of(y)));
    return out_like(b, 0, carried);
}

static void close_vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    node *d = g_node(g, OP_frac_close_grad, IN(op->in[1], op->in[2], dout[0]), NO_ATTRS);
    din[0] = dout[0];
    din[1] = g_out(d, 0);
    din[2] = g_out(d, 1);
}

static void close_reference(const op_call64 *c)
{
    i64 d = cols(c->node->in[1]), m = cols(c->node->in[2]), rows = rows_of(c->node->in[1]);
    bool shared = rows_of(c->node->in[2]) == 1;
    for (i64 r = 0; r < rows; r++)
        for (i64 e = 0; e < d; e++) {
            double b = c->in[2][(shared ? 0 : r) * m + e / (d / m)];
            c->out[0][r * d + e] = b * c->in[1][r * d + e] + c->in[0][r * d + e];
        }
}

static void close_cpu(const op_call *c)
{
    i64 m = c->in[2].n, n = c->in[1].n / m;
    bool shared = c->in[2].rows == 1;
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < c->in[1].rows; r++) {
        const float *carried = row_in(c, 0, r), *y = row_in(c, 1, r);
        const float *b = (const float *)c->in[2].p + (shared ? 0 : r * m);
        float *h = row_out(c, 0, r);
        for (i64 i = 0; i < m; i++) {
            float bi = b[i];
#pragma omp simd
            for (i64 e = i * n; e < i * n + n; e++) h[e] = bi * y[e] + carried[e];
        }
        row_done(c, 0, r, h);
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
    {"bench", "carried=4096x576 y=4096x576 b=4096x4 bf16 bench"},
    {0},
};

OP_DEF(frac_close) = {
    .name = "frac_close",
    .brief = "h_i = b_i y_i + carried_i, fraction by fraction; b of each row, or one for all",
    .source = "Frac-Connections, arXiv:2503.14125",
    .in = {{"carried", "[rows, d]"}, {"y", "[rows, d]"}, {"b", "[..., m]", ARG_F32}},
    .out = {{"h", "[rows, d]"}},
    .inplace = 1,
    .infer = close_infer,
    .vjp = close_vjp,
    .reference = close_reference,
    .cpu = close_cpu,
    .cost = close_cost,
    .cases = close_cases,
};

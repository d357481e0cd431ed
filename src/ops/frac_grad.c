/* frac_grad: the gradients of Frac-Connections; the equations are those of ops/frac.c.
 *
 * One pass over the rows: a row's gradient of coefficients comes first (dots of fractions), then everything
 * that is as wide as the row in one loop. The sums over rows that make dweight and dgain share one array per
 * thread, S_k = sum over rows and j of du[j,k] s_j H_j: dweight_k = gain S_k, dgain = sum_k weight_k S_k. */
#include "ops/frac.h"

enum { U = 7, S, DX, DCARRIED, DB }; // inputs after those of frac_open
enum { OUT_H, OUT_READ, OUT_CARRY, OUT_BETA, OUT_WEIGHT, OUT_SCALE, OUT_GAIN };

/* ---- definition */

static status infer(op_build *b)
{
    tensor **in = b->n->in;
    const tensor *h = in[FRAC_H], *weight = in[FRAC_WEIGHT];
    i64 d = cols(h), m = cols(in[FRAC_READ]), rows = rows_of(h), n = d / MAX(m, 1), K = 2 * m + 1;
    TRY(need(b, m <= MOST_FRACTIONS && d % m == 0,
             "rows of %lld do not divide into %lld fractions (at most %d)", (long long)d, (long long)m,
             MOST_FRACTIONS));
    TRY(need(b, count(in[FRAC_READ]) == m * m && same_shape(in[FRAC_READ], in[FRAC_CARRY]),
             "read and carry must be [%lld, %lld]", (long long)m, (long long)m));
    TRY(need(
        b, !weight == !in[FRAC_BETA] && !weight == !in[FRAC_SCALE] && !weight == !in[U] && !weight == !in[S],
        "beta, weight, scale, u and s come together (dynamic) or not at all"));
    TRY(need(b, weight || (!in[FRAC_GAIN] && !in[DB]), "gain and db belong to dynamic connections"));
    TRY(need(b, !in[DX] || same_shape(h, in[DX]), "dx must have the shape of h"));
    TRY(need(b, !in[DCARRIED] || same_shape(h, in[DCARRIED]), "dcarried must have the shape of h"));
    TRY(out_like(b, OUT_H, h));
    TRY(out_shape(b, OUT_READ, DT_F32, 2, (i64[]){m, m}));
    TRY(out_shape(b, OUT_CARRY, DT_F32, 2, (i64[]){m, m}));
    if (!weight) return OK;
    TRY(need(b, count(weight) == K * n && cols(weight) == n, "weight must be [%lld, %lld]", (long long)K,
             (long long)n));
    TRY(need(b, count(in[FRAC_BETA]) == m && count(in[FRAC_SCALE]) == 2, "beta must be [%lld], scale [2]",
             (long long)m));
    TRY(need(b, !in[FRAC_GAIN] || count(in[FRAC_GAIN]) == n, "gain must be [%lld]", (long long)n));
    TRY(need(b, cols(in[U]) == m * K && rows_of(in[U]) == rows, "u must be [%lld, %lld]", (long long)rows,
             (long long)(m * K)));
    TRY(need(b, cols(in[S]) == m && rows_of(in[S]) == rows, "s must be [%lld, %lld]", (long long)rows,
             (long long)m));
    TRY(need(b, !in[DB] || same_shape(in[S], in[DB]), "db must have the shape of s"));
    TRY(out_shape(b, OUT_BETA, DT_F32, 1, &m));
    TRY(out_shape(b, OUT_WEIGHT, DT_F32, 2, (i64[]){K, n}));
    TRY(out_shape(b, OUT_SCALE, DT_F32, 1, (i64[]){2}));
    return in[FRAC_GAIN] ? out_shape(b, OUT_GAIN, DT_F32, 1, &n) : OK;
}

static void clear(const op_call64 *c)
{
    for (int i = 0; i < c->node->n_out; i++)
        if (c->out[i]) memset(c->out[i], 0, sizeof(double) * (size_t)count(c->node->out[i]));
}

/* The gradient that arrives at coefficient C[j][k] of row R. */
static double arrives(const op_call64 *c, i64 r, i64 j, i64 k, i64 m, i64 n)
{
    const double *from = k <= m ? c->in[DX] : c->in[DCARRIED];
    double sum = 0;
    if (k == 0) return c->in[DB] ? c->in[DB][r * m + j] : 0;
    i64 i = (k - 1) % m;
    for (i64 e = 0; from && e < n; e++) sum += c->in[0][(r * m + j) * n + e] * from[(r * m + i) * n + e];
    return sum;
}

static void dynamic_row(const op_call64 *c, i64 r, i64 j, i64 m, i64 n)
{
    i64 K = 2 * m + 1;
    const double *u = c->in[U] + (r * m + j) * K, *h = c->in[0] + (r * m + j) * n;
    double s = c->in[S][r * m + j];
    const double *weight = c->in[FRAC_WEIGHT], *gain = c->in[FRAC_GAIN];
    double *dh = c->out[OUT_H] + (r * m + j) * n, along = 0;
    for (i64 k = 0; k < K; k++) {
        double dC = arrives(c, r, j, k, m, n), t = tanh(u[k]);
        double du = c->in[FRAC_SCALE][k > 0] * (1 - t * t) * dC;
        along += du * u[k];
        c->out[OUT_SCALE][k > 0] += t * dC;
        for (i64 e = 0; e < n; e++) {
            dh[e] += s * (gain ? gain[e] : 1) * du * weight[k * n + e];
            c->out[OUT_WEIGHT][k * n + e] += du * (gain ? gain[e] : 1) * s * h[e];
            if (gain) c->out[OUT_GAIN][e] += weight[k * n + e] * du * s * h[e];
        }
    }
    for (i64 e = 0; e < n; e++) dh[e] -= s * s / (double)n * along * h[e];
}

static void reference(const op_call64 *c)
{
    i64 d = cols(c->node->in[0]), m = cols(c->node->in[1]), n = d / m, K = 2 * m + 1;
    clear(c);
    for (i64 r = 0; r < rows_of(c->node->in[0]); r++)
        for (i64 j = 0; j < m; j++) {
            const double *u = c->in[U] ? c->in[U] + r * m * K : NULL;
            for (i64 k = 1; k < K; k++) {
                const double *from = k <= m ? c->in[DX] : c->in[DCARRIED];
                i64 i = (k - 1) % m;
                c->out[k <= m ? OUT_READ : OUT_CARRY][j * m + i] += arrives(c, r, j, k, m, n);
                for (i64 e = 0; from && e < n; e++)
                    c->out[OUT_H][(r * m + j) * n + e] +=
                        frac_coefficient64(c, u, m, j, k) * from[(r * m + i) * n + e];
            }
            if (!u) continue;
            c->out[OUT_BETA][j] += arrives(c, r, j, 0, m, n);
            dynamic_row(c, r, j, m, n);
        }
}

/* ---- kernel */

/* TO[j][offset + i] = H_j . R_i */
INLINE void dots(const float *h, const float *R, i64 m, i64 n, i64 offset, float *to)
{
    vector sum[MOST_FRACTIONS * MOST_FRACTIONS];
    i64 K = 2 * m + 1, e = 0;
    for (i64 a = 0; a < m * m; a++) sum[a] = (vector){0};
    for (; e < n; e += LANES) {
        vector r[MOST_FRACTIONS];
        for (i64 i = 0; i < m; i++) r[i] = get(R + i * n + e, n - e);
        for (i64 j = 0; j < m; j++) {
            vector x = get(h + j * n + e, n - e);
            for (i64 i = 0; i < m; i++) sum[j * m + i] += x * r[i];
        }
    }
    for (i64 j = 0; j < m; j++)
        for (i64 i = 0; i < m; i++) to[j * K + offset + i] = sum_of(sum[j * m + i]);
}

typedef struct row_grad { // what the loop over a row's lanes reads
    const float *h, *dx, *dcarried, *scaled;
    const float *C, *p, *f; // coefficients; du s [m][K]; s^2/n sum du u [m]
    float *dh, *sums;       // S [K][n]
} row_grad;

INLINE void grad_lanes(const row_grad *g, i64 m, i64 n, i64 e, i64 left)
{
    i64 K = 2 * m + 1;
    vector R[MOST_FRACTIONS], G[MOST_FRACTIONS], H[MOST_FRACTIONS], D[MOST_FRACTIONS];
    for (i64 i = 0; i < m; i++) {
        R[i] = get(g->dx + i * n + e, left);
        G[i] = get(g->dcarried + i * n + e, left);
    }
    for (i64 j = 0; j < m; j++) {
        D[j] = R[0] * g->C[j * K + 1] + G[0] * g->C[j * K + 1 + m];
        for (i64 i = 1; i < m; i++) D[j] += R[i] * g->C[j * K + 1 + i] + G[i] * g->C[j * K + 1 + m + i];
    }
    if (g->scaled) {
        for (i64 j = 0; j < m; j++) {
            H[j] = get(g->h + j * n + e, left);
            D[j] -= H[j] * g->f[j];
        }
        for (i64 k = 0; k < K; k++) {
            vector w = get(g->scaled + k * n + e, left), s = get(g->sums + k * n + e, left);
            for (i64 j = 0; j < m; j++) {
                D[j] += w * g->p[j * K + k];
                s += H[j] * g->p[j * K + k];
            }
            put(g->sums + k * n + e, s, left);
        }
    }
    for (i64 j = 0; j < m; j++) put(g->dh + j * n + e, D[j], left);
}

/* From dC and u: p = du s and f, and the sums of scale's gradient; C is overwritten with the row's
 * coefficients. */
static void dynamic_part(const op_call *c, const frac_scratch *w, i64 m, i64 n, i64 r, const float *dC,
                         float *C, float *p, float *f, float *dscale)
{
    i64 K = 2 * m + 1;
    const float *u = (const float *)c->in[U].p + r * m * K, *s = (const float *)c->in[S].p + r * m;
    const float *scale = c->in[FRAC_SCALE].p;
    float t[MOST_COEFFICIENTS];
#pragma omp simd
    for (i64 a = 0; a < m * K; a++) t[a] = vec_tanh(u[a]);
    for (i64 j = 0; j < m; j++) {
        float along = 0, rest = 0;
        for (i64 k = 0; k < K; k++) {
            i64 a = j * K + k;
            float by = scale[k > 0], du = by * (1 - t[a] * t[a]) * dC[a];
            C[a] = w->fixed[a] + by * t[a];
            p[a] = du * s[j];
            along += du * u[a];
            rest += k ? t[a] * dC[a] : 0;
        }
        f[j] = s[j] * s[j] / (float)n * along;
        dscale[0] += t[j * K] * dC[j * K];
        dscale[1] += rest;
    }
}

/* A thread's sums: dC over rows [m K], dscale [2], S [K n]. */
static i64 partial_floats(frac_shape s, bool dynamic)
{
    return round_up(s.m * s.K + 2, 16) + (dynamic ? round_up(s.K * s.n, 16) : 0);
}

INLINE void grad_rows(const op_call *c, i64 m, i64 first, i64 last, const frac_scratch *w, const float *zero,
                      float *partial)
{
    i64 n = c->in[0].n / m, K = 2 * m + 1;
    float C[MOST_COEFFICIENTS], dC[MOST_COEFFICIENTS] = {0}, p[MOST_COEFFICIENTS], f[MOST_FRACTIONS];
    float *sums = partial + round_up(m * K + 2, 16);
    memcpy(C, w->fixed, (size_t)(m * K) * sizeof *C);
    for (i64 r = first; r < last; r++) {
        row_grad g = {row_in(c, 0, r), zero, zero, w->scaled, C, p, f, row_out(c, OUT_H, r), sums};
        if (c->in[DX].p) g.dx = row_in(c, DX, r);
        if (c->in[DCARRIED].p) g.dcarried = row_in(c, DCARRIED, r);
        dots(g.h, g.dx, m, n, 1, dC);
        dots(g.h, g.dcarried, m, n, 1 + m, dC);
        if (c->in[DB].p)
            for (i64 j = 0; j < m; j++) dC[j * K] = ((const float *)c->in[DB].p)[r * m + j];
        for (i64 a = 0; a < m * K; a++) partial[a] += dC[a];
        if (w->scaled) dynamic_part(c, w, m, n, r, dC, C, p, f, partial + m * K);
        i64 e = 0;
        for (; e + LANES <= n; e += LANES) grad_lanes(&g, m, n, e, LANES);
        if (e < n) grad_lanes(&g, m, n, e, n - e);
        row_done(c, OUT_H, r, g.dh);
    }
}

static status prepare(op_call *c)
{
    frac_shape s = frac_shape_of(c);
    bool dynamic = c->in[FRAC_WEIGHT].n > 0;
    i64 floats = round_up(s.m * s.n, 16) + c->threads * partial_floats(s, dynamic);
    return want_scratch(c, (frac_shared_floats(s, dynamic) + (size_t)floats) * sizeof(float));
}

static void add(const op_call *c, int out, i64 at, float x)
{
    float *to = (float *)c->out[out].p + at;
    *to = accumulates(c, out) ? *to + x : x;
}

/* The threads' sums, in order, into the outputs. */
static void finish(const op_call *c, frac_shape s, float *partial, i64 each, int team)
{
    const float *weight = c->in[FRAC_WEIGHT].p, *gain = c->in[FRAC_GAIN].p;
    for (int t = 1; t < team; t++)
        for (i64 a = 0; a < each; a++) partial[a] += partial[t * each + a];
    for (i64 j = 0; j < s.m; j++)
        for (i64 i = 0; i < s.m; i++) {
            add(c, OUT_READ, j * s.m + i, partial[j * s.K + 1 + i]);
            add(c, OUT_CARRY, j * s.m + i, partial[j * s.K + 1 + s.m + i]);
        }
    if (!weight) return;
    const float *sums = partial + round_up(s.m * s.K + 2, 16);
    for (i64 j = 0; j < s.m; j++) add(c, OUT_BETA, j, partial[j * s.K]);
    for (i64 k = 0; k < 2; k++) add(c, OUT_SCALE, k, partial[s.m * s.K + k]);
    for (i64 e = 0; e < s.n; e++) {
        float dgain = 0;
        for (i64 k = 0; k < s.K; k++) {
            add(c, OUT_WEIGHT, k * s.n + e, sums[k * s.n + e] * (gain ? gain[e] : 1));
            dgain += weight[k * s.n + e] * sums[k * s.n + e];
        }
        if (gain) add(c, OUT_GAIN, e, dgain);
    }
}

static void cpu(const op_call *c)
{
    frac_shape s = frac_shape_of(c);
    frac_scratch w = frac_lay_out(c, s);
    float *zero = w.rest, *partial = zero + round_up(s.m * s.n, 16);
    i64 each = partial_floats(s, w.scaled != NULL);
    int team = 1;
    memset(zero, 0, (size_t)(s.m * s.n) * sizeof *zero);
#pragma omp parallel
    {
        i64 first, last;
        float *mine = partial + thread_index() * each;
        memset(mine, 0, (size_t)each * sizeof *mine);
        if (thread_index() == 0) team = omp_get_num_threads();
        part(c->in[0].rows, thread_index(), omp_get_num_threads(), &first, &last);
        if (s.m == 4)
            grad_rows(c, 4, first, last, &w, zero, mine);
        else if (s.m == 2)
            grad_rows(c, 2, first, last, &w, zero, mine);
        else
            grad_rows(c, s.m, first, last, &w, zero, mine);
    }
    finish(c, s, partial, each, team);
}

static op_cost cost(const node *op)
{
    double m = (double)cols(op->in[1]), each = 8 * m + (op->in[FRAC_WEIGHT] ? 8 * m + 6 : 0);
    return (op_cost){each * (double)count(op->in[0]), traffic(op)};
}

#define DYNAMIC(rows, d, m, k, mk, n)                                                                        \
    "h=" rows "x" d " read=" m "x" m " carry=" m "x" m " beta=" m " weight=" k "x" n " scale=2 gain=" n      \
    " u=" rows "x" mk " s=" rows "x" m " dx=" rows "x" d " dcarried=" rows "x" d " db=" rows "x" m
static const op_case cases[] = {
    {"typical", DYNAMIC("64", "768", "4", "9", "36", "192") " f32 bf16"},
    {"static", "h=33x256 read=4x4 carry=4x4 dx=33x256 dcarried=33x256 f32 bf16"},
    {"two", DYNAMIC("17", "90", "2", "5", "10", "45") " f32 bf16"},
    {"one fraction", DYNAMIC("5", "37", "1", "3", "3", "37") " f32 bf16"},
    {"three, tail", DYNAMIC("7", "51", "3", "7", "21", "17") " f32 bf16"},
    {"eight", DYNAMIC("6", "264", "8", "17", "136", "33") " f32 bf16"},
    {"nothing of x", "h=9x64 read=4x4 carry=4x4 dcarried=9x64 f32 bf16"},
    {"nothing carried", "h=9x64 read=4x4 carry=4x4 dx=9x64 f32 bf16"},
    {"only b, no gain", "h=9x64 read=4x4 carry=4x4 beta=4 weight=9x16 scale=2 u=9x36 s=9x4 db=9x4 f32 bf16"},
    {"exact", "h=5x96 read=4x4 carry=4x4 dx=5x96 dcarried=5x96 fill=ints f32 tol=0"},
    {"bench", DYNAMIC("4096", "576", "4", "9", "36", "144") " bf16 bench"},
    {"bench static", "h=4096x576 read=4x4 carry=4x4 dx=4096x576 dcarried=4096x576 bf16 bench"},
    {0},
};

OP_DEF(frac_open_grad) = {
    .name = "frac_open_grad",
    .brief = "gradients of frac_open; du = scale (1 - tanh^2 u) dC, C the coefficients (ops/frac.c)",
    .in = {{"h", "[rows, d]"},
           {"read", "[m, m]", ARG_F32},
           {"carry", "[m, m]", ARG_F32},
           {"beta", "[m]", ARG_F32, .optional = true},
           {"weight", "[2m+1, d/m]", ARG_F32, .optional = true},
           {"scale", "[2]", ARG_F32, .optional = true},
           {"gain", "[d/m]", ARG_F32, .optional = true, .fill = "around1"},
           {"u", "[rows, m(2m+1)]", ARG_F32, .optional = true},
           {"s", "[rows, m]", ARG_F32, .optional = true, .fill = "positive"},
           {"dx", "[rows, d]", .optional = true},
           {"dcarried", "[rows, d]", .optional = true},
           {"db", "[rows, m]", ARG_F32, .optional = true}},
    .out = {{"dh", "[rows, d]"},
            {"dread", "[m, m]", ARG_F32},
            {"dcarry", "[m, m]", ARG_F32},
            {"dbeta", "[m]", ARG_F32, .optional = true},
            {"dweight", "[2m+1, d/m]", ARG_F32, .optional = true},
            {"dscale", "[2]", ARG_F32, .optional = true},
            {"dgain", "[d/m]", ARG_F32, .optional = true}},
    .flags = OP_ACCUMULATES,
    .infer = infer,
    .reference = reference,
    .cpu = cpu,
    .prepare = prepare,
    .cost = cost,
    .cases = cases,
};

/* ---- close */

static status close_infer(op_build *b)
{
    const tensor *y = b->n->in[0], *beta = b->n->in[1];
    i64 m = cols(beta), rows = rows_of(beta);
    TRY(need(b, m <= MOST_FRACTIONS && cols(y) % m == 0,
             "rows of %lld do not divide into %lld fractions (at most %d)", (long long)cols(y), (long long)m,
             MOST_FRACTIONS));
    TRY(need(b, rows == 1 || rows == rows_of(y), "b has %lld rows; it must have 1 or %lld", (long long)rows,
             (long long)rows_of(y)));
    TRY(need(b, same_shape(y, b->n->in[2]), "dh must have the shape of y"));
    TRY(out_like(b, 0, y));
    return out_like(b, 1, beta);
}

static void close_reference(const op_call64 *c)
{
    i64 d = cols(c->node->in[0]), m = cols(c->node->in[1]), rows = rows_of(c->node->in[0]);
    bool shared = rows_of(c->node->in[1]) == 1;
    clear(c);
    for (i64 r = 0; r < rows; r++)
        for (i64 e = 0; e < d; e++) {
            i64 at = (shared ? 0 : r) * m + e / (d / m);
            c->out[0][r * d + e] = c->in[1][at] * c->in[2][r * d + e];
            c->out[1][at] += c->in[0][r * d + e] * c->in[2][r * d + e];
        }
}

static void close_rows(const op_call *c, i64 first, i64 last, float *mine)
{
    i64 m = c->in[1].n, n = c->in[0].n / m;
    bool shared = c->in[1].rows == 1;
    for (i64 r = first; r < last; r++) {
        const float *y = row_in(c, 0, r), *dh = row_in(c, 2, r);
        const float *b = (const float *)c->in[1].p + (shared ? 0 : r * m);
        float *dy = row_out(c, 0, r);
        for (i64 i = 0; i < m; i++) {
            float bi = b[i], sum = 0;
#pragma omp simd reduction(+ : sum)
            for (i64 e = i * n; e < i * n + n; e++) {
                sum += y[e] * dh[e];
                dy[e] = bi * dh[e];
            }
            if (shared)
                mine[i] += sum;
            else
                add(c, 1, r * m + i, sum);
        }
        row_done(c, 0, r, dy);
    }
}

static status close_prepare(op_call *c)
{
    return want_scratch(c, (size_t)c->threads * MOST_FRACTIONS * sizeof(float));
}

static void close_cpu(const op_call *c)
{
    float *partial = (float *)call_scratch(c);
    int team = 1;
#pragma omp parallel
    {
        i64 first, last;
        float *mine = partial + thread_index() * MOST_FRACTIONS;
        memset(mine, 0, MOST_FRACTIONS * sizeof *mine);
        if (thread_index() == 0) team = omp_get_num_threads();
        part(c->in[0].rows, thread_index(), omp_get_num_threads(), &first, &last);
        close_rows(c, first, last, mine);
    }
    if (c->in[1].rows != 1) return;
    for (i64 i = 0; i < c->in[1].n; i++) {
        float sum = 0;
        for (int t = 0; t < team; t++) sum += partial[t * MOST_FRACTIONS + i];
        add(c, 1, i, sum);
    }
}

static op_cost close_cost(const node *op) { return (op_cost){3.0 * (double)count(op->in[0]), traffic(op)}; }

static const op_case close_cases[] = {
    {"typical", "y=64x768 b=64x4 dh=64x768 f32 bf16"},
    {"static", "y=33x256 b=4 dh=33x256 f32 bf16"},
    {"three, tail", "y=7x51 b=7x3 dh=7x51 f32 bf16"},
    {"one row", "y=1x6 b=1x2 dh=1x6 f32 bf16"},
    {"exact", "y=5x48 b=5x4 dh=5x48 fill=ints f32 bf16 tol=0"},
    {"bench", "y=4096x576 b=4096x4 dh=4096x576 bf16 bench"},
    {0},
};

OP_DEF(frac_close_grad) = {
    .name = "frac_close_grad",
    .brief = "dy_i = b_i dh_i, db_i = y_i . dh_i (summed over the rows that share b)",
    .in = {{"y", "[rows, d]"}, {"b", "[..., m]", ARG_F32}, {"dh", "[rows, d]"}},
    .out = {{"dy", "[rows, d]"}, {"db", "[..., m]", ARG_F32}},
    .flags = OP_ACCUMULATES,
    .infer = close_infer,
    .reference = close_reference,
    .cpu = close_cpu,
    .prepare = close_prepare,
    .cost = close_cost,
    .cases = close_cases,
};

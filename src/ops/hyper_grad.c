/* hyper_grad: the gradients of Hyper- and Frac-Connections; the equations are those of ops/hyper.c.
 *
 * One pass over the rows: a row's gradient of coefficients comes first (dots of streams), then everything
 * that is as wide as the row in one loop. The sums over rows that make dweight and dgain share one array per
 * thread, S_k = sum over rows and j of du[j,k] s_j H_j^: dweight_k = gain S_k, dgain = sum_k weight_k S_k.
 *
 * With y and b, the close of the branch before (whose H^ is the h of this open) is in the same pass: the
 * rewrites put it there (graph/rewrite.h), and dh, its gradient, is not read again. */
#include "ops/hyper.h"

enum { U = 7, S, DX, DCARRIED, DB, Y, B }; // inputs after those of hyper_open
enum { OUT_H, OUT_READ, OUT_CARRY, OUT_BETA, OUT_WEIGHT, OUT_SCALE, OUT_GAIN, OUT_Y, OUT_B };

static hyper_shape shape_of(const node *op)
{
    return hyper_shape_of(op->in[HYPER_H], op->in[HYPER_READ], op->in[HYPER_CARRY]);
}

/* ---- definition */

static status infer_close(op_build *b)
{
    tensor **in = b->n->in;
    hyper_shape s = shape_of(b->n);
    i64 rows = rows_of(in[HYPER_H]);
    TRY(need(b, cols(in[B]) == s.m && (rows_of(in[B]) == 1 || rows_of(in[B]) == rows),
             "b must be [%lld] or [%lld, %lld]", (long long)s.m, (long long)rows, (long long)s.m));
    TRY(need(b, rows_of(in[Y]) == rows && cols(in[Y]) == s.q * s.n, "y must be [%lld, %lld]", (long long)rows,
             (long long)(s.q * s.n)));
    TRY(out_like(b, OUT_Y, in[Y]));
    return out_like(b, OUT_B, in[B]);
}

static status infer(op_build *b)
{
    tensor **in = b->n->in;
    const tensor *h = in[HYPER_H], *weight = in[HYPER_WEIGHT];
    TRY(hyper_need(b));
    hyper_shape s = shape_of(b->n);
    i64 rows = rows_of(h);
    TRY(need(b, !weight == !in[U] && !weight == !in[S] && (weight || !in[DB]),
             "u and s belong to dynamic connections, and db only to them"));
    TRY(need(b, !in[DX] || (rows_of(in[DX]) == rows && cols(in[DX]) == s.q * s.n), "dx must be [%lld, %lld]",
             (long long)rows, (long long)(s.q * s.n)));
    TRY(need(b, !in[DCARRIED] || same_shape(h, in[DCARRIED]), "dcarried must have the shape of h"));
    TRY(need(b, !in[Y] == !in[B], "y and b come together"));
    TRY(out_like(b, OUT_H, h));
    TRY(out_shape(b, OUT_READ, DT_F32, 2, (i64[]){s.m, s.q}));
    TRY(out_shape(b, OUT_CARRY, DT_F32, 2, (i64[]){s.m, s.m}));
    if (in[Y]) TRY(infer_close(b));
    if (!weight) return OK;
    TRY(need(b, cols(in[U]) == s.m * s.K && rows_of(in[U]) == rows, "u must be [%lld, %lld]", (long long)rows,
             (long long)(s.m * s.K)));
    TRY(need(b, cols(in[S]) == s.m && rows_of(in[S]) == rows, "s must be [%lld, %lld]", (long long)rows,
             (long long)s.m));
    TRY(need(b, !in[DB] || same_shape(in[S], in[DB]), "db must have the shape of s"));
    TRY(out_shape(b, OUT_BETA, DT_F32, 1, &s.m));
    TRY(out_shape(b, OUT_WEIGHT, DT_F32, 2, (i64[]){s.K, s.n}));
    TRY(out_shape(b, OUT_SCALE, DT_F32, 1, (i64[]){2}));
    return in[HYPER_GAIN] ? out_shape(b, OUT_GAIN, DT_F32, 1, &s.n) : OK;
}

static void clear(const op_call64 *c)
{
    for (int i = 0; i < c->node->n_out; i++)
        if (c->out[i]) memset(c->out[i], 0, sizeof(double) * (size_t)count(c->node->out[i]));
}

/* The gradient of mixture k (X, then H') of row R, or NULL: none arrives. */
static const double *arriving(const op_call64 *c, hyper_shape s, i64 r, i64 k)
{
    if (k <= s.q) return c->in[DX] ? c->in[DX] + (r * s.q + k - 1) * s.n : NULL;
    return c->in[DCARRIED] ? c->in[DCARRIED] + (r * s.m + k - 1 - s.q) * s.n : NULL;
}

/* The gradient that arrives at coefficient C[j][k] of row R. */
static double arrives(const op_call64 *c, hyper_shape s, i64 r, i64 j, i64 k)
{
    if (k == 0) return c->in[DB] ? c->in[DB][r * s.m + j] : 0;
    const double *from = arriving(c, s, r, k);
    double sum = 0;
    for (i64 e = 0; from && e < s.n; e++) sum += c->in[HYPER_H][(r * s.m + j) * s.n + e] * from[e];
    return sum;
}

static void dynamic_row(const op_call64 *c, hyper_shape s, i64 r, i64 j)
{
    const double *u = c->in[U] + (r * s.m + j) * s.K, *h = c->in[HYPER_H] + (r * s.m + j) * s.n;
    const double *weight = c->in[HYPER_WEIGHT], *gain = c->in[HYPER_GAIN], N = (double)s.n;
    double *dh = c->out[OUT_H] + (r * s.m + j) * s.n, along = 0, mean = 0, norm = c->in[S][r * s.m + j];
    bool centred = attr(c->node, "centred") > 0;
    for (i64 e = 0; centred && e < s.n; e++) mean += h[e] / N;
    for (i64 k = 0; k < s.K; k++) {
        double dC = arrives(c, s, r, j, k), t = tanh(u[k]), middle = 0;
        double du = c->in[HYPER_SCALE][k > 0] * (1 - t * t) * dC;
        along += du * u[k];
        c->out[OUT_SCALE][k > 0] += t * dC;
        for (i64 e = 0; centred && e < s.n; e++) middle += (gain ? gain[e] : 1) * weight[k * s.n + e] / N;
        for (i64 e = 0; e < s.n; e++) {
            double g = gain ? gain[e] : 1, z = norm * (h[e] - mean);
            dh[e] += norm * du * (g * weight[k * s.n + e] - middle);
            c->out[OUT_WEIGHT][k * s.n + e] += du * g * z;
            if (gain) c->out[OUT_GAIN][e] += weight[k * s.n + e] * du * z;
        }
    }
    for (i64 e = 0; e < s.n; e++) dh[e] -= norm * norm / N * along * (h[e] - mean);
}

/* The close of the branch before, from dh. */
static void close_row64(const op_call64 *c, hyper_shape s, i64 r, const double *dh, int y, int b, int out)
{
    i64 at = rows_of(c->node->in[b]) == 1 ? 0 : r * s.m;
    for (i64 i = 0; i < s.m; i++)
        for (i64 e = 0; e < s.n; e++) {
            double g = dh[(r * s.m + i) * s.n + e];
            i64 j = (r * s.q + (s.q > 1 ? i : 0)) * s.n + e;
            c->out[out][j] += c->in[b][at + i] * g;
            c->out[out + 1][at + i] += c->in[y][j] * g;
        }
}

static void reference(const op_call64 *c)
{
    hyper_shape s = shape_of(c->node);
    clear(c);
    for (i64 r = 0; r < rows_of(c->node->in[HYPER_H]); r++) {
        const double *u = c->in[U] ? c->in[U] + r * s.m * s.K : NULL;
        for (i64 j = 0; j < s.m; j++) {
            for (i64 k = 1; k < s.K; k++) {
                const double *from = arriving(c, s, r, k);
                i64 at = k <= s.q ? j * s.q + k - 1 : j * s.m + k - 1 - s.q;
                c->out[k <= s.q ? OUT_READ : OUT_CARRY][at] += arrives(c, s, r, j, k);
                for (i64 e = 0; from && e < s.n; e++)
                    c->out[OUT_H][(r * s.m + j) * s.n + e] += hyper_coefficient64(c, s, u, j, k) * from[e];
            }
            if (!u) continue;
            c->out[OUT_BETA][j] += arrives(c, s, r, j, 0);
            dynamic_row(c, s, r, j);
        }
        if (c->in[Y]) close_row64(c, s, r, c->out[OUT_H], Y, B, OUT_Y);
    }
}

/* ---- kernel */

/* LEFT >= LANES products from E on (fewer at a stream's end), added to SUM[j][i]. */
INLINE void dot_lanes(const float *h, const float *R, i64 m, i64 q, i64 n, i64 e, i64 left, vector *sum)
{
    vector r[MOST_STREAMS];
    for (i64 i = 0; i < q; i++) r[i] = get(R + i * n + e, left);
    for (i64 j = 0; j < m; j++) {
        vector x = get(h + j * n + e, left);
        for (i64 i = 0; i < q; i++) sum[j * q + i] += x * r[i];
    }
}

/* TO[j][offset + i] = H_j . R_i for the Q rows of R */
INLINE void dots(const float *h, const float *R, i64 m, i64 q, i64 n, i64 K, i64 offset, float *to)
{
    vector sum[MOST_STREAMS * MOST_STREAMS];
    float sums[MOST_STREAMS * MOST_STREAMS];
    i64 e = 0;
    for (i64 a = 0; a < m * q; a++) sum[a] = (vector){0};
    for (; e + LANES <= n; e += LANES) dot_lanes(h, R, m, q, n, e, LANES, sum);
    if (e < n) dot_lanes(h, R, m, q, n, e, n - e, sum);
    put_sums(sums, sum, m * q);
    for (i64 j = 0; j < m; j++)
        for (i64 i = 0; i < q; i++) to[j * K + offset + i] = sums[j * q + i];
}

typedef struct row_grad { // what the loop over a row's lanes reads
    const float *h, *dx, *dcarried, *scaled;
    const float *C, *p, *f, *add; // coefficients; du s [m][K]; s^2/n sum du u [m]; what centring adds [m]
    float *dh, *sums;             // S [K][n]
} row_grad;

INLINE void grad_lanes(const row_grad *g, i64 m, i64 q, i64 n, i64 e, i64 left)
{
    i64 K = 1 + q + m;
    vector R[MOST_STREAMS], G[MOST_STREAMS], H[MOST_STREAMS], D[MOST_STREAMS];
    for (i64 i = 0; i < q; i++) R[i] = get(g->dx + i * n + e, left);
    for (i64 i = 0; i < m; i++) G[i] = get(g->dcarried + i * n + e, left);
    for (i64 j = 0; j < m; j++) {
        const float *C = g->C + j * K;
        D[j] = R[0] * C[1];
        for (i64 i = 1; i < q; i++) D[j] += R[i] * C[1 + i];
        for (i64 i = 0; i < m; i++) D[j] += G[i] * C[1 + q + i];
    }
    if (g->scaled) {
        for (i64 j = 0; j < m; j++) {
            H[j] = get(g->h + j * n + e, left);
            D[j] += g->add[j] - H[j] * g->f[j];
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

/* A thread's sums over its rows. */
typedef struct partial {
    float *dC;     // [m][K]
    float *dscale; // [2]
    float *mean;   // [K]: sum of du s mean, which S lacks
    float *db;     // [m] of the close
    float *sums;   // S [K][n]
} partial;

static i64 partial_floats(hyper_shape s)
{
    return round_up(s.m * s.K + 2 + s.K + s.m, 16) + round_up(s.K * s.n, 16);
}
static partial partial_at(hyper_shape s, float *p)
{
    float *dscale = p + s.m * s.K, *mean = dscale + 2, *db = mean + s.K;
    return (partial){p, dscale, mean, db, p + round_up(s.m * s.K + 2 + s.K + s.m, 16)};
}

/* From dC and u: p = du s, f and add, and the sums that are no rows; C becomes the row's coefficients. */
static void dynamic_part(const hyper_call *w, const float *h, const float *u, const float *s, const float *dC,
                         float *C, float *p, float *f, float *add, const partial *to)
{
    i64 m = w->s.m, K = w->s.K, n = w->s.n;
    float t[MOST_COEFFICIENTS];
#pragma omp simd
    for (i64 a = 0; a < m * K; a++) t[a] = vec_tanh(u[a]);
    for (i64 j = 0; j < m; j++) {
        float along = 0, rest = 0, over = 0, mean = w->centred ? hyper_mean(h + j * n, n) : 0;
        for (i64 k = 0; k < K; k++) {
            i64 a = j * K + k;
            float by = w->scale[k > 0], du = by * (1 - t[a] * t[a]) * dC[a];
            C[a] = w->fixed[a] + by * t[a];
            p[a] = du * s[j];
            along += du * u[a];
            over += p[a] * w->total[k];
            rest += k ? t[a] * dC[a] : 0;
            to->mean[k] += p[a] * mean;
        }
        f[j] = s[j] * s[j] / (float)n * along;
        add[j] = w->centred ? f[j] * mean - over / (float)n : 0;
        to->dscale[0] += t[j * K] * dC[j * K];
        to->dscale[1] += rest;
    }
}

/* One row: G is complete but for what this finds out. */
INLINE void grad_row(const hyper_call *w, i64 m, i64 q, row_grad *g, const float *db, const float *u,
                     const float *s, const partial *to)
{
    i64 n = w->s.n, K = 1 + q + m, e = 0;
    float C[MOST_COEFFICIENTS], dC[MOST_COEFFICIENTS], p[MOST_COEFFICIENTS], f[MOST_STREAMS],
        add[MOST_STREAMS];
    dots(g->h, g->dx, m, q, n, K, 1, dC);
    dots(g->h, g->dcarried, m, m, n, K, 1 + q, dC);
    for (i64 j = 0; j < m; j++) dC[j * K] = db ? db[j] : 0;
    for (i64 a = 0; a < m * K; a++) to->dC[a] += dC[a];
    g->C = w->fixed, g->p = p, g->f = f, g->add = add;
    if (w->scaled) {
        dynamic_part(w, g->h, u, s, dC, C, p, f, add, to);
        g->C = C;
    }
    row_grad own = *g; // so that what is stored does not make its pointers be read again
    for (; e + LANES <= n; e += LANES) grad_lanes(&own, m, q, n, e, LANES);
    if (e < n) grad_lanes(&own, m, q, n, e, n - e);
}

#define GRAD_FORM(name, m, q)                                                                                \
    HYPER_ROW void grad_##name(const hyper_call *w, row_grad *g, const float *db, const float *u,            \
                               const float *norm, const partial *to)                                         \
    {                                                                                                        \
        hyper_shape s = sane(w->s);                                                                          \
        (void)s;                                                                                             \
        grad_row(w, m, q, g, db, u, norm, to);                                                               \
    }
HYPER_FORMS(GRAD_FORM)
typedef void grad_form(const hyper_call *w, row_grad *g, const float *db, const float *u, const float *norm,
                       const partial *to);
static grad_form *grad_form_of(hyper_shape s)
{
    if (s.m == 4) return s.q == 1 ? grad_4_1 : grad_4_4;
    if (s.m == 2) return s.q == 1 ? grad_2_1 : grad_2_2;
    return grad_any;
}

static status prepare(op_call *c)
{
    hyper_shape s = shape_of(c->node);
    i64 floats = round_up(s.m * s.n, 16) + c->threads * partial_floats(s);
    return want_scratch(c, (hyper_shared_floats(s) + (size_t)floats) * sizeof(float));
}

static void add(const op_call *c, int out, i64 at, float x)
{
    float *to = (float *)c->out[out].p + at;
    *to = accumulates(c, out) ? *to + x : x;
}

/* Row R of the close before: dh is in place, and G as a later reader finds it. */
static void close_before(const op_call *c, hyper_shape s, i64 r, const float *G, int y, int b, int out,
                         float *sums)
{
    bool shared = c->in[b].rows == 1;
    float *dy = row_out(c, out, r), db[MOST_STREAMS];
    const float *by = (const float *)c->in[b].p + (shared ? 0 : r * s.m);
    hyper_form_of(s)->close_grad(s, by, row_in(c, y, r), G, dy, db);
    for (i64 i = 0; i < s.m; i++) {
        if (shared)
            sums[i] += db[i];
        else
            add(c, out + 1, r * s.m + i, db[i]);
    }
    hyper_done(c, out, r, dy);
}

/* The rows of one thread. */
static void rows(const op_call *c, const hyper_call *w, i64 first, i64 last, const float *zero,
                 const partial *to)
{
    hyper_shape s = w->s;
    grad_form *form = grad_form_of(s);
    for (i64 r = first; r < last; r++) {
        row_grad g = {.h = row_in(c, HYPER_H, r),
                      .dx = zero,
                      .dcarried = zero,
                      .scaled = w->scaled,
                      .dh = row_out(c, OUT_H, r),
                      .sums = to->sums};
        const float *db = c->in[DB].p ? (const float *)c->in[DB].p + r * s.m : NULL;
        if (c->in[DX].p) g.dx = row_in(c, DX, r);
        if (c->in[DCARRIED].p) g.dcarried = row_in(c, DCARRIED, r);
        form(w, &g, db, w->scaled ? (const float *)c->in[U].p + r * s.m * s.K : NULL,
             w->scaled ? (const float *)c->in[S].p + r * s.m : NULL, to);
        if (!c->in[Y].p) {
            hyper_done(c, OUT_H, r, g.dh);
            continue;
        }
        hyper_settled(c, OUT_H, r, g.dh);
        close_before(c, s, r, g.dh, Y, B, OUT_Y, to->db);
    }
}

/* The threads' sums of db, in order. */
static void finish_close(const op_call *c, int b, int out, i64 m, const float *sums, i64 each, int team)
{
    if (c->in[b].rows != 1) return;
    for (i64 i = 0; i < m; i++) {
        float sum = 0;
        for (int t = 0; t < team; t++) sum += sums[t * each + i];
        add(c, out, i, sum);
    }
}

/* The threads' sums, in order, into the outputs. */
static void finish(const op_call *c, hyper_shape s, float *first, i64 each, int team)
{
    const float *weight = c->in[HYPER_WEIGHT].p, *gain = c->in[HYPER_GAIN].p;
    partial p = partial_at(s, first);
    if (c->in[Y].p) finish_close(c, B, OUT_B, s.m, p.db, each, team);
    for (int t = 1; t < team; t++)
        for (i64 a = 0; a < each; a++) first[a] += first[t * each + a];
    for (i64 j = 0; j < s.m; j++) {
        for (i64 i = 0; i < s.q; i++) add(c, OUT_READ, j * s.q + i, p.dC[j * s.K + 1 + i]);
        for (i64 i = 0; i < s.m; i++) add(c, OUT_CARRY, j * s.m + i, p.dC[j * s.K + 1 + s.q + i]);
    }
    if (!weight) return;
    for (i64 j = 0; j < s.m; j++) add(c, OUT_BETA, j, p.dC[j * s.K]);
    for (i64 k = 0; k < 2; k++) add(c, OUT_SCALE, k, p.dscale[k]);
    for (i64 e = 0; e < s.n; e++) {
        float dgain = 0;
        for (i64 k = 0; k < s.K; k++) {
            float sum = p.sums[k * s.n + e] - p.mean[k];
            add(c, OUT_WEIGHT, k * s.n + e, sum * (gain ? gain[e] : 1));
            dgain += weight[k * s.n + e] * sum;
        }
        if (gain) add(c, OUT_GAIN, e, dgain);
    }
}

static void cpu(const op_call *c)
{
    hyper_call w = hyper_lay_out(c);
    hyper_shape s = w.s;
    float *zero = w.rest, *sums = zero + round_up(s.m * s.n, 16);
    i64 each = partial_floats(s);
    int team = 1;
    memset(zero, 0, (size_t)(s.m * s.n) * sizeof *zero);
#pragma omp parallel
    {
        i64 first, last;
        float *mine = sums + thread_index() * each;
        partial to = partial_at(s, mine);
        memset(mine, 0, (size_t)each * sizeof *mine);
        if (thread_index() == 0) team = omp_get_num_threads();
        part(c->in[HYPER_H].rows, thread_index(), omp_get_num_threads(), &first, &last);
        rows(c, &w, first, last, zero, &to);
    }
    finish(c, s, sums, each, team);
}

static op_cost cost(const node *op)
{
    hyper_shape s = shape_of(op);
    double each =
        4.0 * (double)(s.q + s.m) + (op->in[HYPER_WEIGHT] ? 4.0 * (double)s.K + 2 : 0) + (op->in[Y] ? 4 : 0);
    return (op_cost){each * (double)count(op->in[0]), traffic(op)};
}

#define HYPER_DYNAMIC(rows, d, m, q, k, mk, n, x)                                                            \
    "h=" rows "x" d " read=" m "x" q " carry=" m "x" m " beta=" m " weight=" k "x" n " scale=2 gain=" n      \
    " u=" rows "x" mk " s=" rows "x" m " dx=" rows "x" x " dcarried=" rows "x" d " db=" rows "x" m
#define DYNAMIC(rows, d, m, k, mk, n) HYPER_DYNAMIC(rows, d, m, m, k, mk, n, d)
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
    {"hyper", HYPER_DYNAMIC("33", "768", "4", "1", "6", "24", "192", "192") " f32 bf16"},
    {"hyper, centred", HYPER_DYNAMIC("17", "260", "4", "1", "6", "24", "65", "65") " centred=1 f32 bf16"},
    {"hyper, two", HYPER_DYNAMIC("9", "90", "2", "1", "4", "8", "45", "45") " f32 bf16"},
    {"hyper, three", HYPER_DYNAMIC("7", "51", "3", "1", "5", "15", "17", "17") " centred=1 f32 bf16"},
    {"hyper, static", "h=9x260 read=4x1 carry=4x4 dx=9x65 dcarried=9x260 f32 bf16"},
    {"hyper, nothing of x", "h=9x64 read=4x1 carry=4x4 dcarried=9x64 f32 bf16"},
    {"close", DYNAMIC("64", "768", "4", "9", "36", "192") " y=64x768 b=64x4 f32 bf16 tol.bf16=0.0078"},
    {"close, static",
     "h=33x256 read=4x4 carry=4x4 dx=33x256 dcarried=33x256 y=33x256 b=4 f32 bf16 tol.bf16=0.0078"},
    {"hyper, close",
     HYPER_DYNAMIC("33", "768", "4", "1", "6", "24", "192", "192") " y=33x192 b=33x4 f32 bf16 "
                                                                   "tol.bf16=0.0078"},
    {"hyper, close, three",
     HYPER_DYNAMIC("7", "51", "3", "1", "5", "15", "17", "17") " y=7x17 b=7x3 f32 bf16 "
                                                               "tol.bf16=0.0078"},
    {"hyper, close, static",
     "h=9x260 read=4x1 carry=4x4 dx=9x65 dcarried=9x260 y=9x65 b=4 f32 bf16 tol.bf16=0.0078"},
    {"bench", DYNAMIC("4096", "576", "4", "9", "36", "144") " bf16 bench"},
    {"bench static", "h=4096x576 read=4x4 carry=4x4 dx=4096x576 dcarried=4096x576 bf16 bench"},
    {"bench hyper", HYPER_DYNAMIC("2048", "2304", "4", "1", "6", "24", "576", "576") " bf16 bench"},
    {"bench hyper close",
     HYPER_DYNAMIC("2048", "2304", "4", "1", "6", "24", "576", "576") " y=2048x576 b=2048x4 bf16 bench"},
    {0},
};

OP_DEF(hyper_open_grad) = {
    .name = "hyper_open_grad",
    .brief =
        "gradients of hyper_open; du = scale (1 - tanh^2 u) dC, C the coefficients (ops/hyper.c); with y, "
        "b: of the close before it too",
    .replaces = {"dh, dread, dcarry, dbeta, dweight, dscale, dgain = hyper_open_grad(h, read, carry, beta, "
                 "weight, scale, gain, u, s, dx, dcarried, db); dy, dby = hyper_close_grad(y, b, dh)"},
    .in = {{"h", "[rows, m n]"},
           {"read", "[m, q]", ARG_F32},
           {"carry", "[m, m]", ARG_F32},
           {"beta", "[m]", ARG_F32, .optional = true},
           {"weight", "[1+q+m, n]", ARG_F32, .optional = true},
           {"scale", "[2]", ARG_F32, .optional = true},
           {"gain", "[n]", ARG_F32, .optional = true, .fill = "around1"},
           {"u", "[rows, m(1+q+m)]", ARG_F32, .optional = true},
           {"s", "[rows, m]", ARG_F32, .optional = true, .fill = "positive"},
           {"dx", "[rows, q n]", .optional = true},
           {"dcarried", "[rows, m n]", .optional = true},
           {"db", "[rows, m]", ARG_F32, .optional = true},
           {"y", "[rows, q n]", .optional = true},
           {"b", "[..., m]", ARG_F32, .optional = true}},
    .out = {{"dh", "[rows, m n]"},
            {"dread", "[m, q]", ARG_F32},
            {"dcarry", "[m, m]", ARG_F32},
            {"dbeta", "[m]", ARG_F32, .optional = true},
            {"dweight", "[1+q+m, n]", ARG_F32, .optional = true},
            {"dscale", "[2]", ARG_F32, .optional = true},
            {"dgain", "[n]", ARG_F32, .optional = true},
            {"dy", "[rows, q n]", .optional = true},
            {"dby", "[..., m]", ARG_F32, .optional = true}},
    .attrs = {{"eps", 1e-5, 0, 1, "of the forward pass; s holds it"},
              {"centred", 0, 0, 1, "1: the norm of a stream subtracts its mean"}},
    .flags = OP_ACCUMULATES,
    .inplace = 1 + DCARRIED, // dh over dcarried
    .infer = infer,
    .reference = reference,
    .cpu = cpu,
    .prepare = prepare,
    .cost = cost,
    .cases = cases,
};

/* ---- close */

enum { CLOSE_Y, CLOSE_B, CLOSE_DH };

static hyper_shape close_shape(const node *op)
{
    i64 m = cols(op->in[CLOSE_B]), n = cols(op->in[CLOSE_DH]) / m;
    return (hyper_shape){.m = m, .q = m == 1 ? 1 : cols(op->in[CLOSE_Y]) / MAX(n, 1), .n = n};
}

static status close_infer(op_build *b)
{
    const tensor *y = b->n->in[CLOSE_Y], *beta = b->n->in[CLOSE_B], *dh = b->n->in[CLOSE_DH];
    i64 m = cols(beta), rows = rows_of(beta);
    TRY(need(b, m >= 1 && m <= MOST_STREAMS && cols(dh) % m == 0,
             "rows of %lld do not divide into %lld streams (at most %d)", (long long)cols(dh), (long long)m,
             MOST_STREAMS));
    TRY(need(b, rows == 1 || rows == rows_of(y), "b has %lld rows; it must have 1 or %lld", (long long)rows,
             (long long)rows_of(y)));
    TRY(need(b, rows_of(dh) == rows_of(y) && (cols(dh) == cols(y) || cols(dh) == m * cols(y)),
             "dh must have the shape of y, or of %lld times its width", (long long)m));
    TRY(out_like(b, 0, y));
    return out_like(b, 1, beta);
}

static void close_reference(const op_call64 *c)
{
    clear(c);
    for (i64 r = 0; r < rows_of(c->node->in[CLOSE_Y]); r++)
        close_row64(c, close_shape(c->node), r, c->in[CLOSE_DH], CLOSE_Y, CLOSE_B, 0);
}

static status close_prepare(op_call *c)
{
    return want_scratch(c, (size_t)c->threads * MOST_STREAMS * sizeof(float));
}

static void close_cpu(const op_call *c)
{
    hyper_shape s = close_shape(c->node);
    float *sums = (float *)call_scratch(c);
    int team = 1;
#pragma omp parallel
    {
        i64 first, last;
        float *mine = sums + thread_index() * MOST_STREAMS;
        memset(mine, 0, MOST_STREAMS * sizeof *mine);
        if (thread_index() == 0) team = omp_get_num_threads();
        part(c->in[CLOSE_Y].rows, thread_index(), omp_get_num_threads(), &first, &last);
        for (i64 r = first; r < last; r++)
            close_before(c, s, r, row_in(c, CLOSE_DH, r), CLOSE_Y, CLOSE_B, 0, mine);
    }
    finish_close(c, CLOSE_B, 1, s.m, sums, MOST_STREAMS, team);
}

static op_cost close_cost(const node *op)
{
    return (op_cost){4.0 * (double)count(op->in[CLOSE_DH]), traffic(op)};
}

static const op_case close_cases[] = {
    {"typical", "y=64x768 b=64x4 dh=64x768 f32 bf16"},
    {"static", "y=33x256 b=4 dh=33x256 f32 bf16"},
    {"three, tail", "y=7x51 b=7x3 dh=7x51 f32 bf16"},
    {"one row", "y=1x6 b=1x2 dh=1x6 f32 bf16"},
    {"exact", "y=5x48 b=5x4 dh=5x48 fill=ints f32 bf16 tol=0"},
    {"hyper", "y=17x65 b=17x4 dh=17x260 f32 bf16"},
    {"hyper, static", "y=7x17 b=3 dh=7x51 f32 bf16"},
    {"hyper, exact", "y=5x24 b=5x4 dh=5x96 fill=ints f32 bf16 tol=0"},
    {"bench", "y=4096x576 b=4096x4 dh=4096x576 bf16 bench"},
    {"bench hyper", "y=2048x576 b=2048x4 dh=2048x2304 bf16 bench"},
    {0},
};

OP_DEF(hyper_close_grad) = {
    .name = "hyper_close_grad",
    .brief =
        "dy_i = b_i dh_i (summed where the streams share y), dby_i = y_i . dh_i (summed over the rows that "
        "share b)",
    .in = {{"y", "[rows, q n]"}, {"b", "[..., m]", ARG_F32}, {"dh", "[rows, m n]"}},
    .out = {{"dy", "[rows, q n]"}, {"dby", "[..., m]", ARG_F32}},
    .flags = OP_ACCUMULATES,
    .infer = close_infer,
    .reference = close_reference,
    .cpu = close_cpu,
    .prepare = close_prepare,
    .cost = close_cost,
    .cases = close_cases,
};

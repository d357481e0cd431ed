/* moe_route: which experts a token goes to, and with what weights.
 *
 *   S_t = the k experts of largest z[t, e] (with a bias: of s[t, e] + b[e]); ties: the lower index; best
 * first router 0, softmax over the selected:  w_j = p_j / sum_S p,  p = softmax z   (= softmax of the
 * selected z) 1, softmax raw:                w_j = p_j 2, sigmoid:                    w_j = s_j / (sum_S s +
 * 1e-20),  s = sigmoid z
 *
 *   dz, with a_j = dw_j:   0:  dz_j = w_j (a_j - sum_S w a)                            0 elsewhere
 *                          1:  dz_i = p_i (a_i [i in S] - sum_S p a)                   for all i
 *                          2:  dz_j = s_j (1 - s_j) / (sum_S s + 1e-20) (a_j - sum_S w a)
 *
 * The selection is held fixed by gradients. The bias (of balancing without a loss) only selects: the weights
 * come from the scores without it, and it has no gradient.
 *
 * Source:   Shazeer et al., arXiv:1701.06538; bias: Wang et al., arXiv:2408.15664; sigmoid: DeepSeek-V3,
 *           arXiv:2412.19437 (its routed scaling factor is 1 here).
 * Numerics: f32. Without a bias the logits themselves are compared: scores are monotone in them, and rounding
 *           a score must not make a tie.
 */
#include "ops/moe.h"
#include <string.h>

enum { Z, BIAS };

static status infer(op_build *b)
{
    const tensor *z = b->n->in[Z], *bias = b->n->in[BIAS];
    i64 k = (i64)attr(b->n, "k"), dim[MAX_DIMS];
    TRY(need(b, k <= cols(z), "%lld experts of %lld cannot be chosen", (long long)k, (long long)cols(z)));
    TRY(need(b, !bias || count(bias) == cols(z), "bias must be [%lld]", (long long)cols(z)));
    memcpy(dim, z->dim, sizeof dim);
    dim[z->ndim - 1] = k;
    TRY(out_shape(b, 0, DT_F32, z->ndim, dim));
    return out_shape(b, 1, DT_I32, z->ndim, dim);
}

static void vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    if (!dout[0]) return;
    din[Z] = g_out(g_node_from(g, OP_moe_route_grad, IN(op->in[Z], op->out[1], dout[0]), op), 0);
}

static double score64(enum moe_router kind, const double *z, i64 n, i64 i)
{
    return kind == MOE_SIGMOID ? 1 / (1 + exp(-z[i])) : exp(z[i] - moe_softmax64(z, n, NULL));
}

/* The best expert not yet among IDS[0..j). */
static i64 best64(const op_call64 *c, enum moe_router kind, const double *z, i64 n, const double *ids, i64 j)
{
    i64 best = -1;
    double most = 0;
    for (i64 i = 0; i < n; i++) {
        bool taken = false;
        for (i64 m = 0; m < j; m++) taken |= (i64)ids[m] == i;
        double key = c->in[BIAS] ? score64(kind, z, n, i) + c->in[BIAS][i] : z[i];
        if (!taken && (best < 0 || key > most)) best = i, most = key;
    }
    return best;
}

static void reference(const op_call64 *c)
{
    i64 n = cols(c->node->in[Z]), k = cols(c->node->out[0]);
    enum moe_router kind = (enum moe_router)attr(c->node, "router");
    for (i64 t = 0; t < rows_of(c->node->in[Z]); t++) {
        const double *z = c->in[Z] + t * n;
        double *w = c->out[0] + t * k, *ids = c->out[1] + t * k, sum = 0;
        for (i64 j = 0; j < k; j++) {
            ids[j] = c->held[1] ? c->held[1][t * k + j] : (double)best64(c, kind, z, n, ids, j);
            sum += w[j] = score64(kind, z, n, (i64)ids[j]);
        }
        for (i64 j = 0; j < k; j++)
            if (kind != MOE_SOFTMAX_RAW) w[j] /= kind == MOE_SIGMOID ? sum + 1e-20 : sum;
    }
}

/* Room of a thread: keys [n], scores [n], taken [n]. */
static i64 room(i64 n) { return round_up(3 * n, 16); }

static status prepare(op_call *c)
{
    return want_scratch(c, (size_t)(c->threads * room(c->in[Z].n)) * sizeof(float));
}

static void scores(enum moe_router kind, const float *z, i64 n, float *restrict p)
{
    if (kind == MOE_SIGMOID)
#pragma omp simd
        for (i64 i = 0; i < n; i++) p[i] = vec_sigmoid(z[i]);
    else
        moe_softmax(z, n, p);
}

static void choose(const float *key, float *taken, i64 n, i32 *ids, i64 k)
{
    memset(taken, 0, (size_t)n * sizeof *taken);
    for (i64 j = 0; j < k; j++) {
        i64 best = -1;
        for (i64 i = 0; i < n; i++) // a NaN is never larger, so that there is always somebody to choose
            if (taken[i] == 0 && (best < 0 || key[i] > key[best])) best = i;
        taken[best] = 1;
        ids[j] = (i32)best;
    }
}

static void cpu(const op_call *c)
{
    enum moe_router kind = (enum moe_router)attr(c->node, "router");
    i64 n = c->in[Z].n, k = c->out[0].n;
    const float *bias = c->in[BIAS].p;
#pragma omp parallel for schedule(static)
    for (i64 t = 0; t < c->in[Z].rows; t++) {
        float *key = (float *)call_scratch(c) + thread_index() * room(n), *p = key + n, sum = 0;
        const float *z = row_in(c, Z, t);
        float *w = row_out(c, 0, t);
        i32 *ids = (i32 *)c->out[1].p + t * c->out[1].stride;
        scores(kind, z, n, p);
        for (i64 i = 0; i < n; i++) key[i] = bias ? p[i] + bias[i] : z[i];
        choose(key, key + 2 * n, n, ids, k);
        for (i64 j = 0; j < k; j++) sum += w[j] = p[ids[j]];
        for (i64 j = 0; j < k && kind != MOE_SOFTMAX_RAW; j++)
            w[j] /= sum + (kind == MOE_SIGMOID ? 1e-20f : 0);
    }
}

static op_cost cost(const node *op)
{
    return (op_cost){(8.0 + attr(op, "k")) * (double)count(op->in[Z]), traffic(op)};
}

static const op_case cases[] = {
    {"renormalised", "z=33x8 k=2 f32"},
    {"raw", "z=2x17x8 k=3 router=1 f32"},
    {"sigmoid", "z=33x8 k=2 router=2 f32"},
    {"biased", "z=33x8 bias=8 k=2 router=2 f32"},
    {"biased softmax", "z=33x16 bias=16 k=4 f32"},
    {"all of them", "z=9x4 k=4 f32"},
    {"all of them raw", "z=9x4 k=4 router=1 f32"},
    {"one", "z=9x5 k=1 router=1 f32"},
    {"one of one", "z=3x1 k=1 router=2 f32"},
    {"many", "z=7x130 k=9 f32"},
    {"ties", "z=33x8 k=3 fill=ints router=1 f32"},
    {"far apart", "z=9x8 k=2 fill=big f32 grad=0"},
    {0},
};

/* Token 0 of the worked example: z = (2, 1, 0), k = 2: experts 0 and 1 with .731059 and .268941. */
static double worked(law *l)
{
    memcpy(law_in(l, "z"), (const double[]){2, 1, 0}, 3 * sizeof(double));
    const double *w = law_run(l, 0), *ids = law_run(l, 1);
    if (ids[0] != 0 || ids[1] != 1) return 1;
    return fmax(fabs(w[0] - 0.731059), fabs(w[1] - 0.268941));
}
/* Renormalised softmax is the softmax of the selected logits, and sums to one. */
static double softmax_of_selected(law *l)
{
    double worst = 0;
    const double *w = law_run(l, 0), *ids = law_run(l, 1), *z = law_in(l, "z");
    for (int t = 0; t < 9; t++) {
        double sum = 0;
        for (int j = 0; j < 3; j++) sum += exp(z[8 * t + (int)ids[3 * t + j]]);
        for (int j = 0; j < 3; j++)
            worst = fmax(worst, fabs(w[3 * t + j] - exp(z[8 * t + (int)ids[3 * t + j]]) / sum));
    }
    return worst;
}
/* A constant added to every bias changes nothing. */
static double bias_of_all(law *l)
{
    double first[27], worst = 0;
    memcpy(first, law_run(l, 1), sizeof first);
    for (int i = 0; i < 8; i++) law_in(l, "bias")[i] += 0.75;
    const double *ids = law_run(l, 1);
    for (int i = 0; i < 27; i++) worst = fmax(worst, fabs(ids[i] - first[i]));
    return worst;
}
/* Equal logits: the lower index first. */
static double lower_first(law *l)
{
    const double *ids = law_run(l, 1);
    for (int i = 0; i < 27; i++)
        if (ids[i] != i % 3) return 1;
    return 0;
}
static const op_law laws[] = {{"worked values", "z=1x3 k=2", worked, 1e-6},
                              {"softmax of the selected", "z=9x8 k=3", softmax_of_selected, 1e-12},
                              {"one bias for all", "z=9x8 bias=8 k=3 router=2", bias_of_all, 0},
                              {"ties", "z=9x8 k=3 fill=one", lower_first, 0},
                              {0}};

OP_DEF(moe_route) = {
    .name = "moe_route",
    .brief = "ids = the k experts of largest z (or score + bias), w = their scores, renormalised or raw",
    .source = "arXiv:1701.06538; bias: arXiv:2408.15664; sigmoid: arXiv:2412.19437",
    .in = {{"z", "[rows, experts]", ARG_F32},
           {"bias", "[experts]", ARG_F32, .optional = true, .fixed = true}},
    .out = {{"w", "[rows, k]", ARG_F32}, {"ids", "[rows, k]", ARG_I32}},
    .attrs = {{"k", 1, 1, 4096, "experts of a token"}, MOE_ROUTER_ATTR},
    .flags = OP_SELECTS,
    .infer = infer,
    .vjp = vjp,
    .reference = reference,
    .cpu = cpu,
    .prepare = prepare,
    .cost = cost,
    .cases = cases,
    .laws = laws,
};

/* ---- the gradient */

static status grad_infer(op_build *b)
{
    const tensor *z = b->n->in[0], *ids = b->n->in[1], *dw = b->n->in[2];
    TRY(need(b, rows_of(ids) == rows_of(z) && rows_of(dw) == rows_of(z) && cols(dw) == cols(ids),
             "ids and dw must be [%lld, k]", (long long)rows_of(z)));
    return out_like(b, 0, z);
}

static void grad_reference(const op_call64 *c)
{
    i64 n = cols(c->node->in[0]), k = cols(c->node->in[1]);
    enum moe_router kind = (enum moe_router)attr(c->node, "router");
    for (i64 t = 0; t < rows_of(c->node->in[0]); t++) {
        const double *z = c->in[0] + t * n, *ids = c->in[1] + t * k, *a = c->in[2] + t * k;
        double *dz = c->out[0] + t * n, sum = kind == MOE_SIGMOID ? 1e-20 : 0, along = 0;
        memset(dz, 0, sizeof(double) * (size_t)n);
        for (i64 j = 0; j < k; j++) sum += score64(kind, z, n, (i64)ids[j]);
        if (kind == MOE_SOFTMAX_RAW) sum = 1;
        for (i64 j = 0; j < k; j++) along += score64(kind, z, n, (i64)ids[j]) / sum * a[j];
        for (i64 j = 0; j < k; j++) {
            double s = score64(kind, z, n, (i64)ids[j]);
            dz[(i64)ids[j]] += kind == MOE_SOFTMAX_RENORM ? s / sum * (a[j] - along)
                               : kind == MOE_SOFTMAX_RAW  ? s * a[j]
                                                          : s * (1 - s) / sum * (a[j] - along);
        }
        for (i64 i = 0; i < n && kind == MOE_SOFTMAX_RAW; i++) dz[i] -= score64(kind, z, n, i) * along;
    }
}

static status grad_prepare(op_call *c)
{
    return want_scratch(c, (size_t)(c->threads * room(c->in[0].n)) * sizeof(float));
}

static void grad_cpu(const op_call *c)
{
    enum moe_router kind = (enum moe_router)attr(c->node, "router");
    i64 n = c->in[0].n, k = c->in[1].n;
#pragma omp parallel for schedule(static)
    for (i64 t = 0; t < c->in[0].rows; t++) {
        float *p = (float *)call_scratch(c) + thread_index() * room(n), sum = 0, along = 0;
        const float *a = row_in(c, 2, t);
        const i32 *ids = (const i32 *)c->in[1].p + t * c->in[1].stride;
        float *dz = row_out(c, 0, t);
        scores(kind, row_in(c, 0, t), n, p);
        for (i64 j = 0; j < k; j++) sum += p[ids[j]], along += p[ids[j]] * a[j];
        if (kind == MOE_SOFTMAX_RAW) {
            for (i64 i = 0; i < n; i++) dz[i] = -p[i] * along;
            for (i64 j = 0; j < k; j++) dz[ids[j]] += p[ids[j]] * a[j];
            continue;
        }
        memset(dz, 0, (size_t)n * sizeof *dz);
        if (kind == MOE_SIGMOID) sum += 1e-20f;
        for (i64 j = 0; j < k; j++) {
            float slope = kind == MOE_SIGMOID ? p[ids[j]] * (1 - p[ids[j]]) : p[ids[j]];
            dz[ids[j]] += slope / sum * (a[j] - along / sum);
        }
    }
}

static op_cost grad_cost(const node *op) { return (op_cost){8.0 * (double)count(op->in[0]), traffic(op)}; }

static const op_case grad_cases[] = {
    {"renormalised", "z=33x8 ids=33x2 dw=33x2 fill.ids=below:8 f32"},
    {"raw", "z=2x17x8 ids=2x17x3 dw=2x17x3 fill.ids=below:8 router=1 f32"},
    {"sigmoid", "z=33x8 ids=33x2 dw=33x2 fill.ids=below:8 router=2 f32"},
    {"many", "z=7x130 ids=7x9 dw=7x9 fill.ids=below:130 f32"},
    {"one of one", "z=3x1 ids=3x1 dw=3x1 fill.ids=zero router=1 f32"},
    {0},
};

OP_DEF(moe_route_grad) = {
    .name = "moe_route_grad",
    .brief = "the gradient of the weights w with respect to the logits z, the selection held",
    .in = {{"z", "[rows, experts]", ARG_F32},
           {"ids", "[rows, k]", ARG_I32, .range = "0:z.-1"},
           {"dw", "[rows, k]", ARG_F32}},
    .out = {{"dz", "[rows, experts]", ARG_F32}},
    .attrs = {MOE_ROUTER_ATTR},
    .infer = grad_infer,
    .reference = grad_reference,
    .cpu = grad_cpu,
    .prepare = grad_prepare,
    .cost = grad_cost,
    .cases = grad_cases,
};

/* attention: causal softmax attention with grouped heads, documents and a window, over new tokens and a
 * cache.
 *
 *   p_ts = exp(scale q_t . k_s) / sum over visible s,   o_t = sum_s p_ts v_s
 *   visible to t:  max(start_t, t - window + 1) <= s <= t          query head h reads key head h / (H / Hkv)
 *   lse_t = log2 sum exp(scale q_t . k_s)
 *   ds = p (dp - D),  dp_ts = do_t . v_s,  D_t = do_t . o_t
 *   dv_s = sum_t p_ts do_t,  dq_t = scale sum_s ds_ts k_s,  dk_s = scale sum_t ds_ts q_t
 *
 * q [B, T, H w], k and v [B, T, Hkv w]. With a cache [B, capacity, Hkv w] the new tokens stand behind its
 * first past[b] entries, and t counts from the cache's beginning; no gradient then.
 *
 * Source:   Vaswani et al., arXiv:1706.03762; blocks with a running maximum: Dao et al., arXiv:2205.14135;
 * grouped heads: Ainslie et al., arXiv:2305.13245. Numerics: scores, softmax and sums in f32; the bf16 kernel
 * rounds p and ds to bf16 between its products.
 */
#include "ops/attention.h"
#include <math.h>
#include <string.h>

enum { Q, K, V, START, CACHE_K, CACHE_V, PAST };
enum { G_Q, G_K, G_V, G_START, G_O, G_LSE, G_DO };

static i64 number(const node *n, const char *name) { return (i64)attr(n, name); }

static status check_heads(op_build *b)
{
    const node *n = b->n;
    i64 heads = number(n, "heads"), kv = number(n, "kv_heads");
    TRY(need(b, n->in[Q]->ndim == 3 && n->in[K]->ndim == 3 && n->in[V]->ndim == 3,
             "q, k, v must be [B, T, n]"));
    TRY(need(b, heads % kv == 0, "%lld heads cannot share %lld key-value heads evenly", (long long)heads,
             (long long)kv));
    TRY(need(b, cols(n->in[Q]) % heads == 0, "q rows of %lld do not divide into %lld heads",
             (long long)cols(n->in[Q]), (long long)heads));
    TRY(need(b, cols(n->in[K]) == cols(n->in[Q]) / heads * kv, "k must have rows of %lld",
             (long long)(cols(n->in[Q]) / heads * kv)));
    TRY(need(b, same_shape(n->in[K], n->in[V]), "k and v must have one shape"));
    TRY(need(b, n->in[K]->dtype == n->in[Q]->dtype && n->in[V]->dtype == n->in[Q]->dtype,
             "q, k and v must have one dtype"));
    return need(b, n->in[Q]->dim[0] == n->in[K]->dim[0] && n->in[Q]->dim[1] == n->in[K]->dim[1],
                "q and k must have the same sequences");
}

static status infer(op_build *b)
{
    const node *n = b->n;
    const tensor *q = n->in[Q], *cache = n->in[CACHE_K];
    TRY(check_heads(b));
    TRY(need(b, !n->in[START] || count(n->in[START]) == rows_of(q), "doc_start must be [B, T]"));
    TRY(need(b, !cache == !n->in[CACHE_V] && !cache == !n->in[PAST],
             "cache_k, cache_v and past come together"));
    TRY(need(
        b, !cache || (cache->ndim == 3 && cols(cache) == cols(n->in[K]) && same_shape(cache, n->in[CACHE_V])),
        "caches must be [B, capacity, %lld]", (long long)cols(n->in[K])));
    TRY(need(b, !cache || (cache->dtype == q->dtype && n->in[CACHE_V]->dtype == q->dtype),
             "the caches must have the dtype of q"));
    TRY(need(b, !cache || count(n->in[PAST]) == q->dim[0], "past must be [B]"));
    TRY(out_like(b, 0, q));
    return out_shape(b, 1, DT_F32, 3, (i64[]){q->dim[0], number(n, "heads"), q->dim[1]});
}

static void vjp(graph *g, const node *op, tensor *const *dout, tensor **din)
{
    if (op->in[CACHE_K])
        return g_fail(g, fail(ERR_CHECK, "%s: attention over a cache has no gradient", op->path));
    node *d =
        g_node_from(g, OP_attention_grad,
                    IN(op->in[Q], op->in[K], op->in[V], op->in[START], op->out[0], op->out[1], dout[0]), op);
    for (int i = 0; i < 3; i++) din[i] = g_out(d, i);
}

/* ---- the definition */

typedef struct sizes {
    i64 batch, tokens, heads, group, kv, width, window;
    double scale;
} sizes;

static sizes sizes_of(const node *n)
{
    i64 heads = number(n, "heads"), kv = number(n, "kv_heads");
    return (sizes){n->in[Q]->dim[0],       n->in[Q]->dim[1],    heads,           heads / kv, kv,
                   cols(n->in[Q]) / heads, number(n, "window"), attr(n, "scale")};
}

static i64 first_visible(const sizes *z, const double *start, i64 row, i64 t)
{
    i64 first = start ? (i64)start[row] : 0;
    return z->window > 0 ? MAX(first, t - z->window + 1) : first;
}

/* Row S of the keys (or values) that sequence B sees: in the cache, or new. */
static const double *key_row(const op_call64 *c, const sizes *z, int fresh, int cache, i64 b, i64 s, i64 past)
{
    i64 n = z->kv * z->width;
    return s < past ? c->in[cache] + (b * c->node->in[cache]->dim[1] + s) * n
                    : c->in[fresh] + (b * z->tokens + s - past) * n;
}

static double dot(const double *a, const double *b, i64 n)
{
    double sum = 0;
    for (i64 j = 0; j < n; j++) sum += a[j] * b[j];
    return sum;
}

static void attend_one(const op_call64 *c, const sizes *z, i64 b, i64 t, i64 h)
{
    i64 past = c->in[PAST] ? (i64)c->in[PAST][b] : 0, row = b * z->tokens + t, kv = h / z->group * z->width;
    i64 at = past + t, first = first_visible(z, c->in[START], row, at);
    const double *q = c->in[Q] + (row * z->heads + h) * z->width;
    double *o = c->out[0] + (row * z->heads + h) * z->width, top = -INFINITY, sum = 0;
    for (i64 s = first; s <= at; s++)
        top = fmax(top, z->scale * dot(q, key_row(c, z, K, CACHE_K, b, s, past) + kv, z->width));
    memset(o, 0, sizeof(double) * (size_t)z->width);
    for (i64 s = first; s <= at; s++) {
        double p = exp(z->scale * dot(q, key_row(c, z, K, CACHE_K, b, s, past) + kv, z->width) - top);
        const double *v = key_row(c, z, V, CACHE_V, b, s, past) + kv;
        sum += p;
        for (i64 j = 0; j < z->width; j++) o[j] += p * v[j];
    }
    for (i64 j = 0; j < z->width; j++) o[j] /= sum;
    c->out[1][(b * z->heads + h) * z->tokens + t] = (top + log(sum)) / log(2);
}

static void reference(const op_call64 *c)
{
    sizes z = sizes_of(c->node);
    for (i64 b = 0; b < z.batch; b++)
        for (i64 t = 0; t < z.tokens; t++)
            for (i64 h = 0; h < z.heads; h++) attend_one(c, &z, b, t, h);
}

/* ---- the kernel */

static attention_args arguments(const op_call *c)
{
    const node *n = c->node;
    sizes z = sizes_of(n);
    return (attention_args){.batch = z.batch,
                            .tokens = z.tokens,
                            .heads = z.heads,
                            .kv_heads = z.kv,
                            .width = z.width,
                            .type = n->in[Q]->dtype,
                            .q = c->in[Q].p,
                            .k = c->in[K].p,
                            .v = c->in[V].p,
                            .q_stride = c->in[Q].stride,
                            .k_stride = c->in[K].stride,
                            .v_stride = c->in[V].stride,
                            .start = c->in[START].p,
                            .window = z.window,
                            .scale = (float)z.scale,
                            .threads = c->threads,
                            .scratch = call_scratch(c)};
}

static attention_args forward_arguments(const op_call *c)
{
    attention_args a = arguments(c);
    a.k_cache = c->in[CACHE_K].p;
    a.v_cache = c->in[CACHE_V].p;
    a.past = c->in[PAST].p;
    a.capacity = c->node->in[CACHE_K] ? c->node->in[CACHE_K]->dim[1] : 0;
    a.o = c->out[0].p;
    a.o_stride = c->out[0].stride;
    a.lse = c->out[1].p;
    return a;
}

static status prepare(op_call *c)
{
    attention_args a = forward_arguments(c);
    return want_scratch(c, (size_t)OP_JOIN(attention_, scratch, ISA)(&a, false));
}

static void cpu(const op_call *c)
{
    attention_args a = forward_arguments(c);
    OP_JOIN(attention_, forward, ISA)(&a);
}

/* Visible pairs of query and key, documents not counted: the cost of one head and sequence. */
static double pairs(const node *n)
{
    double t = (double)n->in[Q]->dim[1], w = attr(n, "window");
    return w > 0 && w < t ? t * w - w * (w - 1) / 2 : t * (t + 1) / 2;
}
static op_cost cost(const node *n)
{
    return (op_cost){4 * pairs(n) * (double)n->in[Q]->dim[0] * (double)cols(n->in[Q]), traffic(n)};
}

#define ATTRS                                                                                                \
    {                                                                                                        \
        {"heads", 1, 1, 4096, "of queries"}, {"kv_heads", 1, 1, 4096, "of keys and values"},                 \
            {"window", 0, 0, 1e9, "keys a query sees, itself included; 0: all"},                             \
        {                                                                                                    \
            "scale", 1, 1e-9, 1e3, "of the scores"                                                           \
        }                                                                                                    \
    }

static const op_case cases[] = {
    {"one head", "q=1x9x16 k=1x9x16 v=1x9x16 scale=0.25 f32 bf16 tol.bf16=0.015"},
    {"heads", "q=2x33x64 k=2x33x64 v=2x33x64 heads=4 kv_heads=4 scale=0.25 f32 bf16 tol.bf16=0.015"},
    {"grouped", "q=2x65x128 k=2x65x64 v=2x65x64 heads=4 kv_heads=2 scale=0.176 f32 bf16 tol.bf16=0.015"},
    {"documents", "q=2x130x64 k=2x130x32 v=2x130x32 doc_start=2x130 heads=2 kv_heads=1 scale=0.176 f32 bf16 "
                  "tol.bf16=0.015"},
    {"window",
     "q=1x70x64 k=1x70x64 v=1x70x64 heads=2 kv_heads=2 window=16 scale=0.176 f32 bf16 tol.bf16=0.015"},
    {"one token", "q=3x1x64 k=3x1x64 v=3x1x64 heads=1 scale=0.125 f32 bf16 tol.bf16=0.015"},
    {"wide scores", "q=1x40x64 k=1x40x64 v=1x40x64 heads=1 scale=20 f32 grad=0 tol=3e-5"},
    {"cache",
     "q=2x3x64 k=2x3x32 v=2x3x32 cache_k=2x40x32 cache_v=2x40x32 past=2 heads=4 kv_heads=2 scale=0.25 "
     "fill.past=below:37 f32 bf16 tol.bf16=0.015 grad=0"},
    {"cache, one token",
     "q=2x1x64 k=2x1x64 v=2x1x64 cache_k=2x90x64 cache_v=2x90x64 past=2 heads=2 kv_heads=2 "
     "scale=0.176 fill.past=below:89 f32 bf16 tol.bf16=0.015 grad=0"},
    {"odd width", "q=1x70x14 k=1x70x7 v=1x70x7 heads=2 kv_heads=1 scale=0.4 f32 bf16 tol.bf16=0.015"},
    {"documents and window",
     "q=1x140x32 k=1x140x32 v=1x140x32 doc_start=1x140 fill.doc_start=starts:90 heads=1 "
     "window=50 scale=0.176 f32 bf16 tol.bf16=0.015"},
    {"several blocks", "q=1x600x64 k=1x600x64 v=1x600x64 heads=1 scale=0.125 f32 bf16 tol.bf16=0.015 grad=0"},
    {"prefill",
     "q=2x30x64 k=2x30x64 v=2x30x64 cache_k=2x70x64 cache_v=2x70x64 past=2 fill.past=below:41 heads=2 "
     "kv_heads=2 window=60 scale=0.176 f32 bf16 tol.bf16=0.015 grad=0"},
    {"gpt2", "q=2x1024x768 k=2x1024x768 v=2x1024x768 heads=12 kv_heads=12 scale=0.125 bf16 bench"},
    {"llama-10m", "q=32x256x256 k=32x256x128 v=32x256x128 heads=4 kv_heads=2 scale=0.125 bf16 bench"},
    {0},
};

/* Values that are all one: whatever the weights, they sum to one. */
static double weights_sum_to_one(law *l)
{
    double *v = law_in(l, "v"), worst = 0;
    for (i64 i = 0; i < law_count(l, "v"); i++) v[i] = 1;
    const double *o = law_run(l, 0);
    for (i64 i = 0; i < law_count(l, "q"); i++) worst = fmax(worst, fabs(o[i] - 1));
    return worst;
}
/* Changing the last token changes no earlier output. */
static double causality(law *l)
{
    enum { N = 1 * 12 * 32, LAST = 11 * 32 };
    double before[N], worst = 0, *k = law_in(l, "k"), *v = law_in(l, "v");
    memcpy(before, law_run(l, 0), sizeof before);
    for (i64 j = LAST; j < N; j++) k[j] += 3, v[j] -= 5;
    const double *o = law_run(l, 0);
    for (i64 j = 0; j < LAST; j++) worst = fmax(worst, fabs(o[j] - before[j]));
    return worst;
}
/* A key with a constant added shifts all scores of a query alike: nothing changes. */
static double shift_of_keys(law *l)
{
    enum { N = 1 * 12 * 32 };
    double before[N], worst = 0, *k = law_in(l, "k");
    memcpy(before, law_run(l, 0), sizeof before);
    for (i64 j = 0; j < N; j++) k[j] += (double)(j % 32);
    const double *o = law_run(l, 0);
    for (i64 j = 0; j < N; j++) worst = fmax(worst, fabs(o[j] - before[j]));
    return worst;
}
static const op_law laws[] = {
    {"weights sum to one", "q=2x9x32 k=2x9x32 v=2x9x32 heads=2 kv_heads=2 scale=0.3", weights_sum_to_one,
     1e-14},
    {"causality", "q=1x12x32 k=1x12x32 v=1x12x32 heads=2 kv_heads=2 scale=0.3", causality, 0},
    {"shift of keys", "q=1x12x32 k=1x12x32 v=1x12x32 heads=1 scale=0.1", shift_of_keys, 1e-12},
    {0},
};

OP_DEF(attention) = {
    .name = "attention",
    .brief = "o_t = sum_s softmax_s(scale q_t . k_s) v_s over visible s",
    .source = "arXiv:1706.03762, arXiv:2205.14135",
    .in = {{"q", "[B, T, n]"},
           {"k", "[B, T, m]"},
           {"v", "[B, T, m]"},
           {"doc_start", "[B, T]", ARG_I32, .optional = true, .fill = "starts:20", .range = "0:column"},
           {"cache_k", "[B, capacity, m]", .optional = true, .fixed = true},
           {"cache_v", "[B, capacity, m]", .optional = true, .fixed = true},
           {"past", "[B]", ARG_I32, .optional = true, .range = "0:cache_k.1"}},
    .out = {{"o", "[B, T, n]"}, {"lse", "[B, heads, T]", ARG_F32, .fixed = true}},
    .attrs = ATTRS,
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
    const node *n = b->n;
    TRY(check_heads(b));
    for (int i = G_O; i <= G_DO; i += G_DO - G_O)
        TRY(need(b, same_shape(n->in[i], n->in[Q]) && n->in[i]->dtype == n->in[Q]->dtype, "%s must be like q",
                 i == G_O ? "o" : "do"));
    TRY(need(b, count(n->in[G_LSE]) == rows_of(n->in[Q]) * number(n, "heads"), "lse must be [B, heads, T]"));
    for (int i = 0; i < 3; i++) TRY(out_like(b, i, b->n->in[i]));
    return OK;
}

static void grad_one(const op_call64 *c, const sizes *z, i64 b, i64 t, i64 h)
{
    i64 row = b * z->tokens + t, head = (row * z->heads + h) * z->width, kv = h / z->group * z->width;
    const double *q = c->in[G_Q] + head, *d_o = c->in[G_DO] + head;
    double lse = c->in[G_LSE][(b * z->heads + h) * z->tokens + t],
           delta = dot(d_o, c->in[G_O] + head, z->width);
    for (i64 s = first_visible(z, c->in[G_START], row, t); s <= t; s++) {
        i64 at = (b * z->tokens + s) * z->kv * z->width + kv;
        const double *k = c->in[G_K] + at, *v = c->in[G_V] + at;
        double p = exp2(z->scale * dot(q, k, z->width) / log(2) - lse);
        double ds = p * (dot(d_o, v, z->width) - delta) * z->scale;
        for (i64 j = 0; j < z->width; j++) {
            c->out[0][head + j] += ds * k[j];
            c->out[1][at + j] += ds * q[j];
            c->out[2][at + j] += p * d_o[j];
        }
    }
}

static void grad_reference(const op_call64 *c)
{
    sizes z = sizes_of(c->node);
    for (int i = 0; i < 3; i++) memset(c->out[i], 0, sizeof(double) * (size_t)count(c->node->out[i]));
    for (i64 b = 0; b < z.batch; b++)
        for (i64 t = 0; t < z.tokens; t++)
            for (i64 h = 0; h < z.heads; h++) grad_one(c, &z, b, t, h);
}

static attention_args grad_arguments(const op_call *c)
{
    attention_args a = arguments(c);
    a.o = c->in[G_O].p;
    a.o_stride = c->in[G_O].stride;
    a.lse = c->in[G_LSE].p;
    a.d_o = c->in[G_DO].p;
    a.d_o_stride = c->in[G_DO].stride;
    a.d_q = c->out[0].p, a.d_q_stride = c->out[0].stride;
    a.d_k = c->out[1].p, a.d_k_stride = c->out[1].stride;
    a.d_v = c->out[2].p, a.d_v_stride = c->out[2].stride;
    return a;
}

static status grad_prepare(op_call *c)
{
    attention_args a = grad_arguments(c);
    return want_scratch(c, (size_t)OP_JOIN(attention_, scratch, ISA)(&a, true));
}

static void grad_cpu(const op_call *c)
{
    attention_args a = grad_arguments(c);
    OP_JOIN(attention_, backward, ISA)(&a);
}

static op_cost grad_cost(const node *n)
{
    return (op_cost){10 * pairs(n) * (double)n->in[Q]->dim[0] * (double)cols(n->in[Q]), traffic(n)};
}

static const op_case grad_cases[] = {
    {"one head", "q=1x9x16 k=1x9x16 v=1x9x16 o=1x9x16 lse=1x1x9 do=1x9x16 scale=0.25 fill.lse=positive f32 "
                 "bf16 tol.bf16=0.015"},
    {"grouped",
     "q=2x65x128 k=2x65x64 v=2x65x64 o=2x65x128 lse=2x4x65 do=2x65x128 heads=4 kv_heads=2 scale=0.1 "
     "fill.lse=positive f32 bf16 tol.bf16=0.015"},
    {"documents",
     "q=2x130x64 k=2x130x32 v=2x130x32 doc_start=2x130 o=2x130x64 lse=2x2x130 do=2x130x64 heads=2 "
     "kv_heads=1 scale=0.1 fill.lse=positive f32 bf16 tol.bf16=0.015"},
    {"window",
     "q=1x70x64 k=1x70x64 v=1x70x64 o=1x70x64 lse=1x2x70 do=1x70x64 heads=2 kv_heads=2 window=16 scale=0.1 "
     "fill.lse=positive f32 bf16 tol.bf16=0.015"},
    {"gpt2",
     "q=2x1024x768 k=2x1024x768 v=2x1024x768 o=2x1024x768 lse=2x12x1024 do=2x1024x768 heads=12 kv_heads=12 "
     "scale=0.125 bf16 bench"},
    {"llama-10m",
     "q=32x256x256 k=32x256x128 v=32x256x128 o=32x256x256 lse=32x4x256 do=32x256x256 heads=4 kv_heads=2 "
     "scale=0.125 bf16 bench"},
    {0},
};

OP_DEF(attention_grad) = {
    .name = "attention_grad",
    .brief = "dq, dk, dv of attention, from o and lse",
    .in = {{"q", "[B, T, n]"},
           {"k", "[B, T, m]"},
           {"v", "[B, T, m]"},
           {"doc_start", "[B, T]", ARG_I32, .optional = true, .fill = "starts:20", .range = "0:column"},
           {"o", "[B, T, n]"},
           {"lse", "[B, heads, T]", ARG_F32},
           {"do", "[B, T, n]"}},
    .out = {{"dq", "[B, T, n]"}, {"dk", "[B, T, m]"}, {"dv", "[B, T, m]"}},
    .attrs = ATTRS,
    .infer = grad_infer,
    .reference = grad_reference,
    .cpu = grad_cpu,
    .prepare = grad_prepare,
    .cost = grad_cost,
    .cases = grad_cases,
};

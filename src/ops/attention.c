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
 * Copies (PHD-Transformer): with copies = K > 1 the rows [B, K T] are the T tokens, copy 1 of each, then
 * copies 2..K of token 0, of token 1, ... Query (t, j) sees key (s, i), where t sees s as above, if
 *
 *   i = 1                      originals see what they always see, and copies see the same
 *   i, j >= 2 and s = t        i <= j
 *   i, j >= 2 and s < t        t - s < copy_window, and s is in the chunk of t: (s - start_t) / chunk =
 *                              (t - start_t) / chunk, rounded down
 *
 * by rule, as two runs of keys a query: nothing is T x T. The cache holds copy 1 only; a ring holds copies
 * 2..K of the last `ring` tokens, those of token s in entries (s mod ring) (K - 1) + i - 2.
 *
 * Source:   Vaswani et al., arXiv:1706.03762; blocks with a running maximum: Dao et al., arXiv:2205.14135;
 *           grouped heads: Ainslie et al., arXiv:2305.13245; copies: PHD-Transformer, arXiv:2504.14992 (its
 *           windows may count hidden tokens; here positions, with all copies of each).
 * Numerics: scores, softmax and sums in f32; the bf16 kernel rounds p and ds to bf16 between its products.
 */
#include "ops/attention.h"
#include <math.h>
#include <string.h>

enum { Q, K, V, START, CACHE_K, CACHE_V, PAST, RING_K, RING_V };
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
    TRY(need(b, n->in[Q]->dim[0] == n->in[K]->dim[0] && n->in[Q]->dim[1] == n->in[K]->dim[1],
             "q and k must have the same sequences"));
    TRY(need(b, n->in[Q]->dim[1] % number(n, "copies") == 0, "%lld rows are not %lld copies of every token",
             (long long)n->in[Q]->dim[1], (long long)number(n, "copies")));
    return need(b, !n->in[START] || count(n->in[START]) * number(n, "copies") == rows_of(n->in[Q]),
                "doc_start must be [B, T]");
}

static status check_ring(op_build *b)
{
    const node *n = b->n;
    const tensor *ring = n->in[RING_K];
    i64 per_token = number(n, "copies") - 1, window = number(n, "copy_window");
    TRY(need(b, !ring == !n->in[RING_V], "ring_k and ring_v come together"));
    if (!ring)
        return need(
            b, !n->in[CACHE_K] || per_token == 0 || window <= 1,
            "a cache and a copy_window of %lld need the copies of %lld earlier tokens: ring_k, ring_v",
            (long long)window, (long long)window - 1);
    TRY(need(b, n->in[CACHE_K] && per_token > 0, "a ring goes with a cache and copies"));
    TRY(need(b,
             ring->ndim == 3 && cols(ring) == cols(n->in[K]) && same_shape(ring, n->in[RING_V]) &&
                 ring->dim[0] == n->in[Q]->dim[0] && ring->dim[1] > 0 && ring->dim[1] % per_token == 0 &&
                 ring->dim[1] / per_token >= window - 1,
             "rings must be [B, %lld or more tokens of %lld copies, %lld]", (long long)MAX(window - 1, 1),
             (long long)per_token, (long long)cols(n->in[K])));
    return need(b, ring->dtype == n->in[Q]->dtype && n->in[RING_V]->dtype == n->in[Q]->dtype,
                "the rings must have the dtype of q");
}

static status infer(op_build *b)
{
    const node *n = b->n;
    const tensor *q = n->in[Q], *cache = n->in[CACHE_K];
    TRY(check_heads(b));
    TRY(need(b, !cache == !n->in[CACHE_V] && !cache == !n->in[PAST],
             "cache_k, cache_v and past come together"));
    TRY(need(
        b, !cache || (cache->ndim == 3 && cols(cache) == cols(n->in[K]) && same_shape(cache, n->in[CACHE_V])),
        "caches must be [B, capacity, %lld]", (long long)cols(n->in[K])));
    TRY(need(b, !cache || (cache->dtype == q->dtype && n->in[CACHE_V]->dtype == q->dtype),
             "the caches must have the dtype of q"));
    TRY(need(b, !cache || count(n->in[PAST]) == q->dim[0], "past must be [B]"));
    TRY(check_ring(b));
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
    i64 batch, tokens, copies, heads, group, kv, width, window, copy_window, chunk;
    double scale;
} sizes;
typedef struct place { // of a row: position of its token, and which copy, from 1
    i64 at, copy;
} place;

static sizes sizes_of(const node *n)
{
    i64 heads = number(n, "heads"), kv = number(n, "kv_heads"), copies = number(n, "copies");
    return (sizes){.batch = n->in[Q]->dim[0],
                   .tokens = n->in[Q]->dim[1] / copies,
                   .copies = copies,
                   .heads = heads,
                   .group = heads / kv,
                   .kv = kv,
                   .width = cols(n->in[Q]) / heads,
                   .window = number(n, "window"),
                   .copy_window = number(n, "copy_window"),
                   .chunk = number(n, "chunk"),
                   .scale = attr(n, "scale")};
}

/* Row R of a sequence that begins at position PAST. */
static place place_of(const sizes *z, i64 past, i64 r)
{
    if (r < z->tokens) return (place){past + r, 1};
    return (place){past + (r - z->tokens) / (z->copies - 1), 2 + (r - z->tokens) % (z->copies - 1)};
}

/* Does query Q, whose document starts at START, see key K? */
static bool sees(const sizes *z, i64 start, place q, place k)
{
    if (k.at > q.at || k.at < start || (z->window > 0 && q.at - k.at >= z->window)) return false;
    if (k.copy == 1) return true;
    if (q.copy == 1) return false;
    if (k.at == q.at) return k.copy <= q.copy;
    return q.at - k.at < z->copy_window &&
           (!z->chunk || (k.at - start) / z->chunk == (q.at - start) / z->chunk);
}

/* Keys that a query may see, one after the other: from the highest place down. */
static bool previous(const sizes *z, place *k)
{
    if (k->copy > 1)
        k->copy--;
    else
        k->at--, k->copy = z->copies;
    return k->at >= 0;
}

/* The row of K or V, of the cache or of the ring, that holds place K. */
static const double *key_row(const op_call64 *c, const sizes *z, int fresh, i64 b, i64 past, place k)
{
    i64 n = z->kv * z->width, i = k.copy - 2, per_token = z->copies - 1, t = k.at - past;
    if (k.at >= past) {
        i64 row = k.copy == 1 ? t : z->tokens + t * per_token + i;
        return c->in[fresh] + (b * z->tokens * z->copies + row) * n;
    }
    int old = fresh - K + (k.copy == 1 ? CACHE_K : RING_K);
    i64 held = c->node->in[old]->dim[1];
    return c->in[old] + (b * held + (k.copy == 1 ? k.at : k.at * per_token % held + i)) * n;
}

static double dot(const double *a, const double *b, i64 n)
{
    double sum = 0;
    for (i64 j = 0; j < n; j++) sum += a[j] * b[j];
    return sum;
}

static void attend_one(const op_call64 *c, const sizes *z, i64 b, i64 r, i64 h)
{
    i64 past = c->in[PAST] ? (i64)c->in[PAST][b] : 0, rows = z->tokens * z->copies,
        kv = h / z->group * z->width;
    place at = place_of(z, past, r), last = {at.at, z->copies + 1};
    i64 start = c->in[START] ? (i64)c->in[START][b * z->tokens + at.at - past] : 0;
    const double *q = c->in[Q] + ((b * rows + r) * z->heads + h) * z->width;
    double *o = c->out[0] + ((b * rows + r) * z->heads + h) * z->width, top = -INFINITY, sum = 0;
    memset(o, 0, sizeof(double) * (size_t)z->width);
    for (int pass = 0; pass < 2; pass++)
        for (place k = last; previous(z, &k);) {
            if (!sees(z, start, at, k)) continue;
            double score = z->scale * dot(q, key_row(c, z, K, b, past, k) + kv, z->width);
            const double *v = key_row(c, z, V, b, past, k) + kv, p = pass ? exp(score - top) : 0;
            top = pass ? top : fmax(top, score);
            sum += p;
            for (i64 j = 0; j < z->width; j++) o[j] += p * v[j];
        }
    for (i64 j = 0; j < z->width; j++) o[j] /= sum;
    c->out[1][(b * z->heads + h) * rows + r] = (top + log(sum)) / log(2);
}

static void reference(const op_call64 *c)
{
    sizes z = sizes_of(c->node);
    for (i64 b = 0; b < z.batch; b++)
        for (i64 r = 0; r < z.tokens * z.copies; r++)
            for (i64 h = 0; h < z.heads; h++) attend_one(c, &z, b, r, h);
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
                            .copies = z.copies,
                            .copy_window = z.copy_window,
                            .chunk = z.chunk,
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
    a.k_ring = c->in[RING_K].p;
    a.v_ring = c->in[RING_V].p;
    a.ring = c->node->in[RING_K] ? c->node->in[RING_K]->dim[1] / (a.copies - 1) : 0;
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

/* Visible pairs of query and key, documents and cache not counted: the cost of one head and sequence. */
static double pairs(const node *n)
{
    sizes z = sizes_of(n);
    double t = (double)z.tokens, w = (double)z.window, k = (double)z.copies, sum;
    i64 shorter = MIN(MAX(z.copy_window, 1), z.chunk ? MIN(z.chunk, z.tokens) : z.tokens);
    double near = (double)(z.window ? MIN(shorter, z.window) : shorter);
    double chunk = z.chunk ? fmin((double)z.chunk, t) : t;
    sum = k * (w > 0 && w < t ? t * w - w * (w - 1) / 2 : t * (t + 1) / 2); // all copies see originals
    sum += t * k * (k - 1) / 2;                                             // copies 2..j of the own token
    return sum + (k - 1) * (k - 1) * t / chunk * (near - 1) * (chunk - near / 2); // of earlier tokens
}
static op_cost cost(const node *n)
{
    return (op_cost){4 * pairs(n) * (double)n->in[Q]->dim[0] * (double)cols(n->in[Q]), traffic(n)};
}

#define ATTRS                                                                                                \
    {                                                                                                        \
        {"heads", 1, 1, 4096, "of queries"}, {"kv_heads", 1, 1, 4096, "of keys and values"},                 \
            {"window", 0, 0, 1e9, "keys a query sees, itself included; 0: all"},                             \
            {"copies", 1, 1, 4096, "of every token, itself included: rows are K T"},                         \
            {"copy_window", 1, 1, 1e9, "tokens whose copies a copy sees, its own included"},                 \
            {"chunk", 0, 0, 1e9, "tokens in which copies see each other; 0: any"},                           \
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
    {"copies", "q=2x22x16 k=2x22x8 v=2x22x8 copies=2 heads=2 kv_heads=1 scale=0.4 f32 bf16 tol.bf16=0.015"},
    {"copies, window and chunks",
     "q=1x390x32 k=1x390x32 v=1x390x32 copies=3 copy_window=5 chunk=32 heads=1 scale=0.176 f32 bf16 "
     "tol.bf16=0.015 grad=0"},
    {"copies, documents", "q=2x140x16 k=2x140x8 v=2x140x8 doc_start=2x35 copies=4 copy_window=7 chunk=6 "
                          "heads=2 kv_heads=1 scale=0.3 "
                          "f32 bf16 tol.bf16=0.015 grad=0"},
    {"copies, all windows", "q=1x36x8 k=1x36x8 v=1x36x8 doc_start=1x12 fill.doc_start=starts:5 copies=3 "
                            "copy_window=4 chunk=5 window=3 "
                            "scale=0.4 f32 bf16 tol.bf16=0.015"},
    {"copies, several blocks",
     "q=1x640x16 k=1x640x16 v=1x640x16 copies=2 copy_window=100 scale=0.25 f32 bf16 tol.bf16=0.015 grad=0"},
    {"copies, cache", "q=2x3x64 k=2x3x32 v=2x3x32 cache_k=2x90x32 cache_v=2x90x32 past=2 copies=3 heads=4 "
                      "kv_heads=2 scale=0.25 "
                      "fill.past=below:89 f32 bf16 tol.bf16=0.015 grad=0"},
    {"copies, ring", "q=3x3x16 k=3x3x16 v=3x3x16 cache_k=3x40x16 cache_v=3x40x16 past=3 ring_k=3x10x16 "
                     "ring_v=3x10x16 "
                     "copies=3 copy_window=6 chunk=4 scale=0.25 fill.past=below:37 f32 "
                     "bf16 tol.bf16=0.015 "
                     "grad=0"},
    {"copies, prefill",
     "q=2x60x32 k=2x60x32 v=2x60x32 cache_k=2x90x32 cache_v=2x90x32 past=2 ring_k=2x9x32 ring_v=2x9x32 "
     " "
     "copies=2 copy_window=10 window=70 scale=0.176 fill.past=below:60 f32 bf16 "
     "tol.bf16=0.015 grad=0"},
    {"gpt2", "q=2x1024x768 k=2x1024x768 v=2x1024x768 heads=12 kv_heads=12 scale=0.125 bf16 bench"},
    {"gpt2, copies", "q=2x2048x768 k=2x2048x768 v=2x2048x768 copies=2 copy_window=16 chunk=32 heads=12 "
                     "kv_heads=12 scale=0.125 "
                     "bf16 bench"},
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
           {"doc_start", "[B, T/copies]", ARG_I32, .optional = true, .fill = "starts:20",
            .range = "0:column"},
           {"cache_k", "[B, capacity, m]", .optional = true, .fixed = true},
           {"cache_v", "[B, capacity, m]", .optional = true, .fixed = true},
           {"past", "[B]", ARG_I32, .optional = true, .range = "0:cache_k.1"},
           {"ring_k", "[B, entries, m]", .optional = true, .fixed = true},
           {"ring_v", "[B, entries, m]", .optional = true, .fixed = true}},
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

static void grad_one(const op_call64 *c, const sizes *z, i64 b, i64 r, i64 h)
{
    i64 rows = z->tokens * z->copies, head = ((b * rows + r) * z->heads + h) * z->width, n = z->kv * z->width;
    const double *q = c->in[G_Q] + head, *d_o = c->in[G_DO] + head;
    double lse = c->in[G_LSE][(b * z->heads + h) * rows + r], delta = dot(d_o, c->in[G_O] + head, z->width);
    place at = place_of(z, 0, r);
    i64 start = c->in[G_START] ? (i64)c->in[G_START][b * z->tokens + at.at] : 0;
    for (i64 s = 0; s < rows; s++) {
        if (!sees(z, start, at, place_of(z, 0, s))) continue;
        i64 key = (b * rows + s) * n + h / z->group * z->width;
        const double *k = c->in[G_K] + key, *v = c->in[G_V] + key;
        double p = exp2(z->scale * dot(q, k, z->width) / log(2) - lse);
        double ds = p * (dot(d_o, v, z->width) - delta) * z->scale;
        for (i64 j = 0; j < z->width; j++) {
            c->out[0][head + j] += ds * k[j];
            c->out[1][key + j] += ds * q[j];
            c->out[2][key + j] += p * d_o[j];
        }
    }
}

static void grad_reference(const op_call64 *c)
{
    sizes z = sizes_of(c->node);
    for (int i = 0; i < 3; i++) memset(c->out[i], 0, sizeof(double) * (size_t)count(c->node->out[i]));
    for (i64 b = 0; b < z.batch; b++)
        for (i64 r = 0; r < z.tokens * z.copies; r++)
            for (i64 h = 0; h < z.heads; h++) grad_one(c, &z, b, r, h);
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
    {"copies",
     "q=1x27x16 k=1x27x8 v=1x27x8 o=1x27x16 lse=1x2x27 do=1x27x16 copies=3 heads=2 kv_heads=1 scale=0.25 "
     "fill.lse=positive f32 bf16 tol.bf16=0.015"},
    {"copies, window and chunks", "q=2x390x32 k=2x390x16 v=2x390x16 doc_start=2x130 fill.doc_start=starts:70 "
                                  "o=2x390x32 lse=2x2x390 do=2x390x32 "
                                  "copies=3 copy_window=5 chunk=16 heads=2 kv_heads=1 scale=0.2 "
                                  "fill.lse=positive f32 bf16 tol.bf16=0.015"},
    {"copies, wide",
     "q=1x500x16 k=1x500x16 v=1x500x16 o=1x500x16 lse=1x1x500 do=1x500x16 copies=2 copy_window=90 window=150 "
     "scale=0.125 fill.lse=positive f32 bf16 tol.bf16=0.015"},
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
           {"doc_start", "[B, T/copies]", ARG_I32, .optional = true, .fill = "starts:20",
            .range = "0:column"},
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

/* Interpolated Kneser-Ney bigrams.
 *
 *   P(w | v) = (c(vw) - D)+ / c(v)      + D  N1+(v .) / c(v)     * Q(w)
 *   Q(w)     = (N1+(. w) - E)+ / N1+(..) + E  |{w: N1+(. w) > 0}| / N1+(..) * 1 / V
 *
 * c counts pairs, c(v) = sum_w c(vw); N1+(v .) is the number of distinct followers of v, N1+(. w) of distinct
 * predecessors of w, N1+(..) of distinct pairs. P( | v) = Q for a v that was never a context. Discounts
 * D = n1 / (n1 + 2 n2) from the pairs seen once and twice, E likewise from the predecessor counts; 3/4 where
 * n1 or n2 is 0 (a corpus of a few lines), for then the estimate is 0, 1 or undefined.
 *
 * Source:  Kneser and Ney, "Improved backing-off for m-gram language modeling", ICASSP 1995; the interpolated
 * form and D: Chen and Goodman, "An empirical study of smoothing techniques", 1999, section 3. Departs: Q is
 * interpolated with the uniform distribution, so that no token of the vocabulary has probability 0.
 *
 * Pairs are counted in an open-addressing table (key: context << 32 | target) and sorted at the end; a row of
 * the sorted pairs is one context.
 */
#include "data/ngram.h"
#include "data/loader.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>

typedef struct pair {
    u64 key; // context << 32 | target
    u32 count;
} pair;

struct bigram {
    i64 vocab, pairs, distinct, capacity; // of the table: a power of two
    pair *pair;                           // table (count 0: free), then sorted by key
    i64 *row;                             // [V + 1] where a context's pairs begin
    i64 *total;                           // [V] c(v)
    i64 *before;                          // [V] N1+(. w)
    i64 seen;                             // tokens with a predecessor
    double d, e;
};

status bigram_open(i64 vocab, bigram **out)
{
    if (vocab < 1 || vocab > INT32_MAX)
        return fail(ERR_CONFIG, "vocabulary of %lld ids; it must be from 1 to 2^31 - 1", (long long)vocab);
    bigram *g;
    TRY(mem_alloc(sizeof *g, "bigrams", &g));
    g->vocab = vocab, g->capacity = 1 << 12;
    status s = mem_alloc((size_t)g->capacity * sizeof(pair), "bigrams", &g->pair);
    if (s)
        bigram_close(g);
    else
        *out = g;
    return s;
}

void bigram_close(bigram *g)
{
    if (!g) return;
    mem_free(g->pair);
    mem_free(g->row);
    mem_free(g->total);
    mem_free(g->before);
    mem_free(g);
}

static u64 slot_of(u64 key, i64 capacity) // Fibonacci hashing of a mixed key
{
    key = (key ^ key >> 32) * 0x9e3779b97f4a7c15u;
    return (key ^ key >> 29) & (u64)(capacity - 1);
}

static pair *find(pair *table, i64 capacity, u64 key)
{
    u64 i = slot_of(key, capacity);
    while (table[i].count && table[i].key != key) i = (i + 1) & (u64)(capacity - 1);
    return &table[i];
}

static status grow(bigram *g)
{
    pair *bigger;
    TRY(mem_alloc((size_t)g->capacity * 2 * sizeof(pair), "bigrams", &bigger));
    for (i64 i = 0; i < g->capacity; i++)
        if (g->pair[i].count) *find(bigger, g->capacity * 2, g->pair[i].key) = g->pair[i];
    mem_free(g->pair);
    g->pair = bigger, g->capacity *= 2;
    return OK;
}

status bigram_count(bigram *g, const i32 *tokens, const i32 *targets, i64 n)
{
    assert(!g->row && "count before bigram_finish");
    for (i64 i = 0; i < n; i++) {
        if (targets[i] < 0) continue;
        assert(tokens[i] >= 0 && tokens[i] < g->vocab && targets[i] < g->vocab);
        if (g->distinct * 4 >= g->capacity * 3) TRY(grow(g));
        u64 key = (u64)tokens[i] << 32 | (u64)targets[i];
        pair *p = find(g->pair, g->capacity, key);
        g->distinct += !p->count;
        p->key = key;
        p->count += p->count < UINT32_MAX;
        g->pairs++;
    }
    return OK;
}

static int by_key(const void *a, const void *b)
{
    u64 x = ((const pair *)a)->key, y = ((const pair *)b)->key;
    return (x > y) - (x < y);
}

static double discount(i64 once, i64 twice)
{
    return once && twice ? (double)once / (double)(once + 2 * twice) : 0.75;
}

status bigram_finish(bigram *g)
{
    if (!g->pairs) return fail(ERR_INPUT, "no pairs of tokens to count; give more text");
    TRY(mem_alloc((size_t)(g->vocab + 1) * sizeof(i64), "bigrams", &g->row));
    TRY(mem_alloc((size_t)g->vocab * sizeof(i64), "bigrams", &g->total));
    TRY(mem_alloc((size_t)g->vocab * sizeof(i64), "bigrams", &g->before));
    i64 n = 0, pairs_of[3] = {0}, before_of[3] = {0};
    for (i64 i = 0; i < g->capacity; i++)
        if (g->pair[i].count) g->pair[n++] = g->pair[i];
    qsort(g->pair, (size_t)n, sizeof(pair), by_key);
    for (i64 i = 0; i < n; i++) {
        const pair *p = &g->pair[i];
        g->row[(p->key >> 32) + 1]++;
        g->total[p->key >> 32] += p->count;
        g->before[(u32)p->key]++;
        if (p->count <= 2) pairs_of[p->count]++;
    }
    for (i64 v = 0; v < g->vocab; v++) {
        g->row[v + 1] += g->row[v];
        g->seen += g->before[v] > 0;
        if (g->before[v] <= 2) before_of[g->before[v]]++;
    }
    g->d = discount(pairs_of[1], pairs_of[2]);
    g->e = discount(before_of[1], before_of[2]);
    return OK;
}

i64 bigram_pairs(const bigram *g) { return g->pairs; }
i64 bigram_distinct(const bigram *g) { return g->distinct; }

static double lower(const bigram *g, i32 w)
{
    const double all = (double)g->distinct;
    return (fmax((double)g->before[w] - g->e, 0) + g->e * (double)g->seen / (double)g->vocab) / all;
}

double bigram_probability(const bigram *g, i32 context, i32 target)
{
    assert(g->row && context >= 0 && context < g->vocab && target >= 0 && target < g->vocab);
    const i64 total = g->total[context];
    const double q = lower(g, target);
    if (!total) return q;
    const u64 key = (u64)context << 32 | (u64)target;
    i64 low = g->row[context], high = g->row[context + 1];
    const i64 followers = high - low, end = high;
    while (low < high) {
        i64 middle = low + (high - low) / 2;
        if (g->pair[middle].key >= key)
            high = middle;
        else
            low = middle + 1;
    }
    const double count = low < end && g->pair[low].key == key ? (double)g->pair[low].count : 0;
    return (fmax(count - g->d, 0) + g->d * (double)followers * q) / (double)total;
}

/* ---- the baseline */

/* A loader with one row a call and its arrays. */
typedef struct reader {
    loader *l;
    batch b;
} reader;

static status reader_open(const dataset *d, data_split split, loader_options o, reader *out)
{
    *out = (reader){0};
    TRY(loader_open(d, split, &o, &out->l));
    status s = mem_alloc((size_t)(o.rows * o.context) * sizeof(i32), "a batch", &out->b.tokens);
    if (!s) s = mem_alloc((size_t)(o.rows * o.context) * sizeof(i32), "a batch", &out->b.targets);
    return s;
}

static void reader_close(reader *r)
{
    loader_close(r->l);
    mem_free(r->b.tokens);
    mem_free(r->b.targets);
}

static status count_train(const dataset *d, const bigram_options *o, bigram *g, bigram_report *out)
{
    reader r;
    const i64 T = o->context;
    status s = reader_open(
        d, DATA_TRAIN,
        (loader_options){.context = T, .rows = 1, .seed = o->seed, .shuffle = o->tokens > 0, .once = true},
        &r);
    i64 samples = s               ? 0
                  : o->tokens > 0 ? MIN(loader_samples(r.l), (o->tokens + T - 1) / T)
                                  : loader_samples(r.l);
    for (i64 i = 0; !s && i < samples; i++) {
        loader_next(r.l, &r.b);
        s = bigram_count(g, r.b.tokens, r.b.targets, T);
    }
    out->train_tokens = samples * T;
    reader_close(&r);
    if (!s) s = bigram_finish(g);
    out->pairs = g->pairs, out->distinct = g->distinct;
    return s;
}

static status score(const dataset *d, const bigram_options *o, const bigram *g, bigram_report *out)
{
    reader r;
    const loader_options options = {.context = o->context,
                                    .rows = 1,
                                    .once = true,
                                    .document_mask = true,
                                    .mask_boundary_loss = !o->boundaries};
    status s = reader_open(d, DATA_VALIDATION, options, &r);
    double nats = 0;
    for (i64 i = 0; !s && i < loader_samples(r.l); i++) {
        loader_next(r.l, &r.b);
        for (i64 t = 0; t < o->context; t++)
            if (r.b.targets[t] >= 0) nats -= log(bigram_probability(g, r.b.tokens[t], r.b.targets[t]));
        out->targets += r.b.n_valid, out->bytes += r.b.bytes;
    }
    reader_close(&r);
    if (s) return s;
    out->nats_per_token = out->targets ? nats / (double)out->targets : 0;
    out->bits_per_byte = out->bytes ? nats / ((double)out->bytes * M_LN2) : 0;
    return OK;
}

status bigram_baseline(const dataset *d, const bigram_options *o, bigram_report *out)
{
    *out = (bigram_report){0};
    if (o->tokens < 0)
        return fail(ERR_CONFIG, "tokens is %lld; it must be 0 (all) or more", (long long)o->tokens);
    bigram *g;
    TRY(bigram_open(dataset_vocab(d), &g));
    status s = count_train(d, o, g, out);
    if (!s) s = score(d, o, g, out);
    bigram_close(g);
    return s;
}

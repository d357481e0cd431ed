/* attention_decode: a few new queries against a long cache, at the speed of reading the cache once.
 *
 * Keys and values are read where they lie, each row once for all the query heads that share it. A thread
 * takes one key head of one row of the batch. Keys go in blocks of 64: scores, running maximum and sum, o
 * rescaled, as in attention_forward.c; arithmetic in f32 whatever the storage. */
#include "ops/attention_blocks.h"
#include <math.h>
#include <string.h>

enum { FOUR = 4 }; // keys per pass over a query: hides the latency of the sums, saves loads

typedef struct memory {
    float *q, *o, *s, *max, *sum;
    void *zero;
    i64 bytes;
} memory;

static memory lay_out(const attention_args *a, char *base)
{
    carver c = {base, 0};
    i64 rows = a->heads / a->kv_heads * a->tokens, columns = columns_of(a->width);
    memory m = {0};
    m.q = carve(&c, rows * columns * 4);
    m.o = carve(&c, rows * columns * 4);
    m.s = carve(&c, rows * BLOCK * 4);
    m.max = carve(&c, rows * 4);
    m.sum = carve(&c, rows * 4);
    m.zero = carve(&c, columns * 4);
    m.bytes = c.used;
    return m;
}

/* s[i] = q . k[i] */
INLINE void four_dots(float *s, const float *q, const void *const *k, dtype type, i64 n)
{
    vector sum[FOUR] = {0};
    float rest[FOUR] = {0};
    i64 j = 0;
    for (; j + LANES <= n; j += LANES) {
        vector x = *(const loose *)(q + j);
        for (int i = 0; i < FOUR; i++) sum[i] += x * load_values(k[i], type, j);
    }
    for (; j < n; j++)
        for (int i = 0; i < FOUR; i++) rest[i] += q[j] * load_value(k[i], type, j);
    for (int i = 0; i < FOUR; i++) s[i] = sum_of(sum[i]) + rest[i];
}
/* o += sum_i p[i] v[i] */
INLINE void four_sums(float *o, const float *p, const void *const *v, dtype type, i64 n)
{
    i64 j = 0;
    for (; j + LANES <= n; j += LANES) {
        vector sum = *(loose *)(o + j);
        for (int i = 0; i < FOUR; i++) sum += p[i] * load_values(v[i], type, j);
        *(loose *)(o + j) = sum;
    }
    for (; j < n; j++)
        for (int i = 0; i < FOUR; i++) o[j] += p[i] * load_value(v[i], type, j);
}

/* The scores of one row become probabilities; visible columns [begin, end), the rest 0. */
static void probabilities(const memory *m, i64 r, i64 begin, i64 end, i64 columns, i64 width)
{
    float *s = m->s + r * BLOCK, *o = m->o + r * columns, max = m->max[r], sum = 0;
    for (i64 j = begin; j < end; j++) max = s[j] > max ? s[j] : max;
    for (i64 j = 0; j < BLOCK; j++) {
        s[j] = begin <= j && j < end ? exp2f(s[j] - max) : 0;
        sum += s[j];
    }
    if (max != m->max[r]) {
        float alpha = exp2f(m->max[r] - max);
        m->sum[r] *= alpha;
        for (i64 j = 0; j < width; j++) o[j] *= alpha;
        m->max[r] = max;
    }
    m->sum[r] += sum;
}

/* Where key POSITION of batch row B and its value lie. */
static void key_rows(const attention_args *a, i64 b, i64 kv, i64 past, i64 position, const void **k,
                     const void **v)
{
    i64 row = b * a->tokens + position - past,
        cached = ((b * a->capacity + position) * a->kv_heads + kv) * a->width;
    bool old = position < past;
    *k = old ? element(a->k_cache, a->type, cached)
             : element(a->k, a->type, row * a->k_stride + kv * a->width);
    *v = old ? element(a->v_cache, a->type, cached)
             : element(a->v, a->type, row * a->v_stride + kv * a->width);
}

INLINE void key_head(const attention_args *a, const memory *m, i64 b, i64 kv, dtype type)
{
    i64 group = a->heads / a->kv_heads, rows = group * a->tokens, columns = columns_of(a->width),
        n = a->width;
    i64 past = a->past ? a->past[b] : 0, lowest = past, end = past + a->tokens;
    float factor = a->scale * (float)M_LOG2E;
    for (i64 r = 0; r < rows; r++) { // row r: token r / group, head r % group of the group
        i64 t = r / group, row = b * a->tokens + t, h = kv * group + r % group;
        const void *q = element(a->q, type, row * a->q_stride + h * n);
        for (i64 j = 0; j < n; j++) m->q[r * columns + j] = load_value(q, type, j) * factor;
        m->max[r] = -1e30f;
        m->sum[r] = 0;
        lowest = MIN(lowest, first_key(a, b, t, past + t));
    }
    memset(m->o, 0, (size_t)(rows * columns) * sizeof *m->o);
    for (i64 at = lowest / BLOCK * BLOCK; at < end; at += BLOCK) {
        const void *k[BLOCK], *v[BLOCK];
        i64 keys = round_up(MIN(BLOCK, end - at), FOUR);
        for (i64 j = 0; j < keys; j++) {
            k[j] = v[j] = m->zero;
            if (at + j >= lowest && at + j < end) key_rows(a, b, kv, past, at + j, &k[j], &v[j]);
        }
        for (i64 j = 0; j < keys; j += FOUR)
            for (i64 r = 0; r < rows; r++)
                four_dots(m->s + r * BLOCK + j, m->q + r * columns, k + j, type, n);
        for (i64 r = 0; r < rows; r++) {
            i64 t = r / group, first = first_key(a, b, t, past + t) - at;
            probabilities(m, r, MAX(first, 0), MIN(past + t + 1 - at, BLOCK), columns, n);
        }
        for (i64 j = 0; j < keys; j += FOUR)
            for (i64 r = 0; r < rows; r++)
                four_sums(m->o + r * columns, m->s + r * BLOCK + j, v + j, type, n);
    }
    for (i64 r = 0; r < rows; r++) {
        i64 t = r / group, h = kv * group + r % group, row = b * a->tokens + t;
        store_row(element(a->o, type, row * a->o_stride + h * n), type, m->o + r * columns, 1 / m->sum[r], n);
        a->lse[(b * a->heads + h) * a->tokens + t] = m->max[r] + log2f(m->sum[r]);
    }
}

void OP_JOIN(attention_, decode, ISA)(const attention_args *a)
{
    i64 share = lay_out(a, NULL).bytes;
#pragma omp parallel num_threads(a->threads)
    {
        memory m = lay_out(a, a->scratch + thread_index() * share);
        memset(m.zero, 0, (size_t)columns_of(a->width) * 4);
#pragma omp for schedule(dynamic)
        for (i64 i = 0; i < a->batch * a->kv_heads; i++) {
            if (a->type == DT_F32)
                key_head(a, &m, i / a->kv_heads, i % a->kv_heads, DT_F32);
            else
                key_head(a, &m, i / a->kv_heads, i % a->kv_heads, DT_BF16);
        }
    }
}

i64 OP_JOIN(attention_, decode_scratch, ISA)(const attention_args *a) { return lay_out(a, NULL).bytes; }

/* attention_decode: a few new queries against a long cache, at the speed of reading the cache once.
 *
 * The cache is walked in the order of memory, all heads of an entry together: the columns of one head alone
 * are short pieces far apart (measured: a sixth of the speed). So the work is cut along the keys: a task is a
 * run of keys of one row of the batch, for all heads, and leaves its own maximum, sum and unnormalised o (as
 * in LeanAttention, arXiv:2405.10480); they are merged in the order of the runs. The runs do not depend on
 * the number of threads, and neither do the bits. Arithmetic in f32 whatever the storage. */
#include "ops/attention_blocks.h"
#include "ops/vec.h"
#include <math.h>
#include <string.h>

enum { FOUR = 4, RUN = 512 }; // keys of a pass over a query (hides latency, saves loads); keys of a task

/* What a task leaves, by row: the queries that share a key head follow each other, (kv T + t) group + g. */
typedef struct partial {
    float *o, *max, *sum; // [rows][columns], [rows], [rows]
} partial;
typedef struct memory {
    float *q, *s; // of a thread: the row's queries, scaled; scores of a block [rows][BLOCK]
} memory;

static i64 runs_of(const attention_args *a) { return (a->capacity + a->tokens + RUN - 1) / RUN; }

static memory lay_out(const attention_args *a, carver *c)
{
    i64 rows = a->heads * a->tokens, columns = columns_of(a->width);
    memory m = {.q = carve(c, rows * columns * 4)};
    m.s = carve(c, rows * BLOCK * 4);
    return m;
}
static partial lay_out_partial(const attention_args *a, carver *c)
{
    i64 rows = a->heads * a->tokens;
    partial p = {.o = carve(c, rows * columns_of(a->width) * 4)};
    p.max = carve(c, rows * 4);
    p.sum = carve(c, rows * 4);
    return p;
}
static i64 thread_bytes(const attention_args *a)
{
    carver c = {NULL, 0};
    lay_out(a, &c);
    return c.used;
}
static i64 partial_bytes(const attention_args *a)
{
    carver c = {NULL, 0};
    lay_out_partial(a, &c);
    return c.used;
}
static partial partial_at(const attention_args *a, i64 b, i64 run)
{
    char *base = a->scratch + a->threads * thread_bytes(a) + (b * runs_of(a) + run) * partial_bytes(a);
    return lay_out_partial(a, &(carver){base, 0});
}

/* Token and head of a row. */
static inline i64 token_of(const attention_args *a, i64 r)
{
    i64 group = a->heads / a->kv_heads;
    return r / group % a->tokens;
}
static inline i64 head_of(const attention_args *a, i64 r)
{
    i64 group = a->heads / a->kv_heads;
    return r / group / a->tokens * group + r % group;
}

/* s[m][i] = q[m] . k[i] for ROWS queries (a constant) and four keys, from column COLUMN of the keys on. */
INLINE void some_dots(int rows, float *s, const float *q, i64 ld, const void *const *k, i64 column,
                      dtype type, i64 n)
{
    vector sum[FOUR][FOUR] = {0};
    i64 j = 0;
    for (; j + LANES <= n; j += LANES) {
        vector x[FOUR];
#pragma GCC unroll 4
        for (int i = 0; i < FOUR; i++) x[i] = load_values(k[i], type, column + j);
#pragma GCC unroll 4
        for (int m = 0; m < rows; m++)
#pragma GCC unroll 4
            for (int i = 0; i < FOUR; i++) sum[m][i] += *(const vector *)(q + m * ld + j) * x[i];
    }
#pragma GCC unroll 4
    for (int m = 0; m < rows; m++) {
        four dots = sums_of(sum[m]);
        for (i64 l = j; l < n; l++)
            for (int i = 0; i < FOUR; i++) dots[i] += q[m * ld + l] * load_value(k[i], type, column + l);
        *(four *)(s + m * BLOCK) = dots;
    }
}
INLINE void four_dots(i64 rows, float *s, const float *q, i64 ld, const void *const *k, i64 column,
                      dtype type, i64 n)
{
    i64 m = 0;
    for (; m + 4 <= rows; m += 4) some_dots(4, s + m * BLOCK, q + m * ld, ld, k, column, type, n);
    for (; m + 2 <= rows; m += 2) some_dots(2, s + m * BLOCK, q + m * ld, ld, k, column, type, n);
    for (; m < rows; m++) some_dots(1, s + m * BLOCK, q + m * ld, ld, k, column, type, n);
}
/* o[m] += sum_i p[m][i] v[i] */
INLINE void four_sums(i64 rows, float *o, i64 ld, const float *p, const void *const *v, i64 column,
                      dtype type, i64 n)
{
    i64 j = 0;
    for (; j + LANES <= n; j += LANES) {
        vector x[FOUR];
#pragma GCC unroll 4
        for (int i = 0; i < FOUR; i++) x[i] = load_values(v[i], type, column + j);
        for (i64 m = 0; m < rows; m++) {
            vector sum = *(vector *)(o + m * ld + j);
#pragma GCC unroll 4
            for (int i = 0; i < FOUR; i++) sum += p[m * BLOCK + i] * x[i];
            *(vector *)(o + m * ld + j) = sum;
        }
    }
    for (; j < n; j++)
        for (i64 m = 0; m < rows; m++)
            for (int i = 0; i < FOUR; i++)
                o[m * ld + j] += p[m * BLOCK + i] * load_value(v[i], type, column + j);
}

/* The scores of one row become probabilities; visible columns [begin, end), the rest 0. */
static void probabilities(float *s, float *o, float *max, float *sum, i64 begin, i64 end, i64 width)
{
    float most = *max, total = 0;
    for (i64 j = 0; j < begin; j++) s[j] = 0;
    for (i64 j = MAX(end, 0); j < BLOCK; j++) s[j] = 0;
    if (begin >= end) return;
#pragma omp simd reduction(max : most)
    for (i64 j = begin; j < end; j++) most = s[j] > most ? s[j] : most;
#pragma omp simd reduction(+ : total)
    for (i64 j = begin; j < end; j++) {
        s[j] = vec_exp2(s[j] - most);
        total += s[j];
    }
    float alpha = vec_exp2(*max - most);
    for (i64 j = 0; j < width && alpha != 1; j++) o[j] *= alpha;
    *sum = *sum * alpha + total;
    *max = most;
}

/* Where entry POSITION of batch row B and its values lie: all key heads. */
static void entry(const attention_args *a, i64 b, i64 past, i64 position, const void **k, const void **v)
{
    i64 row = b * a->tokens + position - past, cached = (b * a->capacity + position) * a->kv_heads * a->width;
    bool old = position < past;
    *k = old ? element(a->k_cache, a->type, cached) : element(a->k, a->type, row * a->k_stride);
    *v = old ? element(a->v_cache, a->type, cached) : element(a->v, a->type, row * a->v_stride);
}

/* Keys [at, at + BLOCK) of batch row B, of which those below END and from LOWEST on exist. */
INLINE void block(const attention_args *a, const memory *m, const partial *p, i64 b, i64 at, i64 lowest,
                  i64 end, dtype type)
{
    i64 past = past_of(a, b), columns = columns_of(a->width), same = a->heads / a->kv_heads * a->tokens;
    i64 keys = round_up(MIN(BLOCK, end - at), FOUR), n = a->width, rows = a->tokens * a->heads;
    const void *k[BLOCK], *v[BLOCK];
    for (i64 j = 0; j < keys; j++) { // an entry that does not exist: any that does; its probability is 0
        i64 position = MIN(MAX(at + j, lowest), end - 1);
        entry(a, b, past, position, &k[j], &v[j]);
    }
    for (i64 j = 0; j < keys; j += FOUR)
        for (i64 r = 0; r < rows; r += same)
            four_dots(same, m->s + r * BLOCK + j, m->q + r * columns, columns, k + j, r / same * n, type, n);
    for (i64 r = 0; r < rows; r++) {
        i64 t = token_of(a, r), first = first_key(a, b, t, past + t) - at;
        probabilities(m->s + r * BLOCK, p->o + r * columns, &p->max[r], &p->sum[r], MIN(MAX(first, 0), BLOCK),
                      MIN(past + t + 1 - at, BLOCK), n);
    }
    for (i64 j = 0; j < keys; j += FOUR)
        for (i64 r = 0; r < rows; r += same)
            four_sums(same, p->o + r * columns, columns, m->s + r * BLOCK + j, v + j, r / same * n, type, n);
}

/* One task: the keys [run RUN, (run + 1) RUN) of batch row B. */
INLINE void one_run(const attention_args *a, const memory *m, i64 b, i64 run, dtype type)
{
    i64 past = past_of(a, b), rows = a->tokens * a->heads, columns = columns_of(a->width);
    i64 lowest = past, end = past + a->tokens, n = a->width;
    partial p = partial_at(a, b, run);
    for (i64 t = 0; t < a->tokens; t++) lowest = MIN(lowest, first_key(a, b, t, past + t));
    for (i64 r = 0; r < rows; r++) {
        i64 index = (b * a->tokens + token_of(a, r)) * a->q_stride + head_of(a, r) * n;
        const void *q = element(a->q, type, index);
        for (i64 j = 0; j < n; j++)
            m->q[r * columns + j] = load_value(q, type, j) * (a->scale * (float)M_LOG2E);
        p.max[r] = -1e30f;
        p.sum[r] = 0;
    }
    memset(p.o, 0, (size_t)(rows * columns) * sizeof *p.o);
    for (i64 at = MAX(run * RUN, lowest / BLOCK * BLOCK); at < MIN(end, (run + 1) * RUN); at += BLOCK)
        block(a, m, &p, b, at, lowest, end, type);
}

/* Row r of batch row B from what the runs left. A run without a visible key has sum 0 and counts for nothing.
 */
static void merge(const attention_args *a, i64 b, i64 r)
{
    i64 past = past_of(a, b), runs = (past + a->tokens + RUN - 1) / RUN, columns = columns_of(a->width);
    i64 t = token_of(a, r), h = head_of(a, r), row = b * a->tokens + t;
    partial total = partial_at(a, b, 0);
    float *o = total.o + r * columns, max = total.max[r], sum = 0;
    for (i64 i = 1; i < runs; i++) max = MAX(max, partial_at(a, b, i).max[r]);
    for (i64 i = 0; i < runs; i++) {
        partial p = partial_at(a, b, i);
        float alpha = vec_exp2(p.max[r] - max), *from = p.o + r * columns;
        sum += p.sum[r] * alpha;
        for (i64 j = 0; j < a->width; j++) o[j] = (i ? o[j] : 0) + from[j] * alpha;
    }
    store_row(element(a->o, a->type, row * a->o_stride + h * a->width), a->type, o, 1 / sum, a->width);
    a->lse[(b * a->heads + h) * a->tokens + t] = max + vec_log(sum) * (float)M_LOG2E;
}

void OP_JOIN(attention_, decode, ISA)(const attention_args *a)
{
    i64 share = thread_bytes(a), most = runs_of(a), rows = a->tokens * a->heads;
#pragma omp parallel num_threads(a->threads)
    {
        memory m = lay_out(a, &(carver){a->scratch + thread_index() * share, 0});
#pragma omp for schedule(dynamic) collapse(2)
        for (i64 b = 0; b < a->batch; b++)
            for (i64 run = 0; run < most; run++) {
                if (run * RUN >= past_of(a, b) + a->tokens) continue;
                if (a->type == DT_F32)
                    one_run(a, &m, b, run, DT_F32);
                else
                    one_run(a, &m, b, run, DT_BF16);
            }
#pragma omp for schedule(static) collapse(2)
        for (i64 b = 0; b < a->batch; b++)
            for (i64 r = 0; r < rows; r++) merge(a, b, r);
    }
}

i64 OP_JOIN(attention_, decode_scratch, ISA)(const attention_args *a)
{
    return a->threads * thread_bytes(a) + a->batch * runs_of(a) * partial_bytes(a);
}

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

/* What a task leaves, by row: the queries that share a key head follow each other, (kv K T + t) group + g. */
typedef struct partial {
    float *o, *max, *sum; // [rows][columns], [rows], [rows]
} partial;
typedef struct memory {
    float *q, *s; // of a thread: the row's queries, scaled; scores of a block [rows][BLOCK]
} memory;

/* The runs of a side, at most; those of the copies come behind. */
static i64 runs_of(const attention_args *a, side which) { return (most_keys(a, which) + RUN - 1) / RUN; }
static i64 all_runs(const attention_args *a) { return runs_of(a, ORIGINALS) + runs_of(a, COPIES); }
static i64 queries_of(const attention_args *a) { return sequence_of(a) * a->heads; }

static memory lay_out(const attention_args *a, carver *c)
{
    i64 rows = queries_of(a), columns = columns_of(a->width);
    memory m = {.q = carve(c, rows * columns * 4)};
    m.s = carve(c, rows * BLOCK * 4);
    return m;
}
static partial lay_out_partial(const attention_args *a, carver *c)
{
    i64 rows = queries_of(a);
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
    char *base = a->scratch + a->threads * thread_bytes(a) + (b * all_runs(a) + run) * partial_bytes(a);
    return lay_out_partial(a, &(carver){base, 0});
}

/* Row of the sequence, and head, of a query. */
static inline i64 row_of(const attention_args *a, i64 r)
{
    i64 group = a->heads / a->kv_heads;
    return r / group % sequence_of(a);
}
static inline i64 head_of(const attention_args *a, i64 r)
{
    i64 group = a->heads / a->kv_heads;
    return r / group / sequence_of(a) * group + r % group;
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

/* A part of the work: the keys [run RUN, (run + 1) RUN) of a side of batch row B. */
typedef struct task {
    i64 b, run;
    side which;
} task;

/* The task's keys [at, at + BLOCK), of which those below END and from LOWEST on exist. */
INLINE void block(const attention_args *a, const memory *m, const partial *p, const task *t, i64 at,
                  i64 lowest, i64 end, dtype type)
{
    i64 columns = columns_of(a->width), same = a->heads / a->kv_heads * sequence_of(a);
    i64 keys = round_up(MIN(BLOCK, end - at), FOUR), n = a->width, rows = queries_of(a);
    const void *k[BLOCK], *v[BLOCK];
    for (i64 j = 0; j < keys; j++) // a key that does not exist: any that does; its probability is 0
        key_of(a, t->b, t->which, MIN(MAX(at + j, lowest), end - 1), &k[j], &v[j]);
    for (i64 j = 0; j < keys; j += FOUR)
        for (i64 r = 0; r < rows; r += same)
            four_dots(same, m->s + r * BLOCK + j, m->q + r * columns, columns, k + j, r / same * n, type, n);
    for (i64 r = 0; r < rows; r++) {
        span seen = span_of(a, t->b, t->which, row_of(a, r));
        probabilities(m->s + r * BLOCK, p->o + r * columns, &p->max[r], &p->sum[r],
                      MIN(MAX(seen.first - at, 0), BLOCK), MIN(seen.last + 1 - at, BLOCK), n);
    }
    for (i64 j = 0; j < keys; j += FOUR)
        for (i64 r = 0; r < rows; r += same)
            four_sums(same, p->o + r * columns, columns, m->s + r * BLOCK + j, v + j, r / same * n, type, n);
}

INLINE void one_run(const attention_args *a, const memory *m, const task *t, dtype type)
{
    i64 rows = queries_of(a), columns = columns_of(a->width), n = a->width;
    i64 end = keys_of(a, t->b, t->which), lowest = end, begin = t->run * RUN;
    partial p = partial_at(a, t->b, t->run + (t->which == COPIES ? runs_of(a, ORIGINALS) : 0));
    for (i64 row = 0; row < sequence_of(a); row++) {
        span seen = span_of(a, t->b, t->which, row);
        if (seen.first <= seen.last) lowest = MIN(lowest, seen.first);
    }
    for (i64 r = 0; r < rows; r++) {
        i64 index = (t->b * sequence_of(a) + row_of(a, r)) * a->q_stride + head_of(a, r) * n;
        const void *q = element(a->q, type, index);
        for (i64 j = 0; j < n; j++)
            m->q[r * columns + j] = load_value(q, type, j) * (a->scale * (float)M_LOG2E);
        p.max[r] = -1e30f;
        p.sum[r] = 0;
    }
    memset(p.o, 0, (size_t)(rows * columns) * sizeof *p.o);
    for (i64 at = MAX(begin, lowest / BLOCK * BLOCK); at < MIN(end, begin + RUN); at += BLOCK)
        block(a, m, &p, t, at, lowest, end, type);
}

/* Query r of batch row B from what the runs left. A run without a visible key has sum 0 and counts for
 * nothing.
 */
static void merge(const attention_args *a, i64 b, i64 r)
{
    i64 columns = columns_of(a->width), row = row_of(a, r), h = head_of(a, r), begin[SIDES], runs[SIDES];
    for (side i = ORIGINALS; i < SIDES; i++) {
        begin[i] = i == COPIES ? runs_of(a, ORIGINALS) : 0;
        runs[i] = (keys_of(a, b, i) + RUN - 1) / RUN;
    }
    partial total = partial_at(a, b, 0);
    float *o = total.o + r * columns, max = total.max[r], sum = 0;
    for (side i = ORIGINALS; i < SIDES; i++)
        for (i64 k = 0; k < runs[i]; k++) max = MAX(max, partial_at(a, b, begin[i] + k).max[r]);
    for (side i = ORIGINALS; i < SIDES; i++)
        for (i64 k = 0; k < runs[i]; k++) {
            partial p = partial_at(a, b, begin[i] + k);
            float alpha = vec_exp2(p.max[r] - max), *from = p.o + r * columns;
            sum += p.sum[r] * alpha;
            for (i64 j = 0; j < a->width; j++) o[j] = (begin[i] + k ? o[j] : 0) + from[j] * alpha;
        }
    i64 to = (b * sequence_of(a) + row) * a->o_stride + h * a->width;
    store_row(element(a->o, a->type, to), a->type, o, 1 / sum, a->width);
    a->lse[(b * a->heads + h) * sequence_of(a) + row] = max + vec_log(sum) * (float)M_LOG2E;
}

void OP_JOIN(attention_, decode, ISA)(const attention_args *a)
{
    i64 share = thread_bytes(a), runs = all_runs(a), originals = runs_of(a, ORIGINALS), rows = queries_of(a);
#pragma omp parallel num_threads(a->threads)
    {
        memory m = lay_out(a, &(carver){a->scratch + thread_index() * share, 0});
#pragma omp for schedule(dynamic) collapse(2)
        for (i64 b = 0; b < a->batch; b++)
            for (i64 run = 0; run < runs; run++) {
                side which = run < originals ? ORIGINALS : COPIES;
                task t = {b, which == ORIGINALS ? run : run - originals, which};
                if (t.run * RUN >= keys_of(a, b, which)) continue;
                if (a->type == DT_F32)
                    one_run(a, &m, &t, DT_F32);
                else
                    one_run(a, &m, &t, DT_BF16);
            }
#pragma omp for schedule(static) collapse(2)
        for (i64 b = 0; b < a->batch; b++)
            for (i64 r = 0; r < rows; r++) merge(a, b, r);
    }
}

i64 OP_JOIN(attention_, decode_scratch, ISA)(const attention_args *a)
{
    return a->threads * thread_bytes(a) + a->batch * all_runs(a) * partial_bytes(a);
}

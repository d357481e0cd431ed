/* attention_forward: o = softmax(scale q k^T) v over the visible keys, block by block; memory linear in T.
 *
 * Idea: FlashAttention (Dao et al., arXiv:2205.14135; Dao, arXiv:2307.08691). A thread takes one key head of
 * one row of the batch, packs its keys and values once, and walks over 64 queries x 256 keys: scores, running
 * maximum and sum of each query, unnormalised probabilities, o rescaled when the maximum moves.
 *
 * Blocks of keys begin at multiples of 256 counted from the row's first token, and a key that a query does
 * not see contributes an exact zero, so the bits of a document depend on nothing but that document and its
 * place. Departs: log2 and exp2 throughout, with log2(e) folded into the scale; lse is in base 2. */
#include "ops/attention_blocks.h"
#include "ops/vec.h"
#include <math.h>
#include <string.h>

typedef struct memory {
    void *zero; // a row of zeros: stands for rows beyond the end
    u32 *k, *v, *q, *p;
    float *s, *o, *max, *sum, *work;
    i32 *first, *last;
    i64 bytes;
} memory;

static memory lay_out(const attention_args *a, const attention_blocks *op, char *base)
{
    carver c = {base, 0};
    i64 columns = columns_of(a->width), words = words_of(a->width, op->pair);
    i64 keys = round_up(a->capacity + a->tokens, BLOCK);
    memory m = {0};
    m.zero = carve(&c, a->width * 4);
    m.k = carve(&c, keys * words * 4);
    m.v = carve(&c, keys / op->pair * columns * 4);
    m.q = carve(&c, (BLOCK + SLACK) * columns * 4);
    m.s = carve(&c, (BLOCK + SLACK) * WIDE * 4);
    m.p = carve(&c, (BLOCK + SLACK) * WIDE / op->pair * 4);
    m.o = carve(&c, (BLOCK + SLACK) * columns * 4);
    m.max = carve(&c, BLOCK * 4);
    m.sum = carve(&c, BLOCK * 4);
    m.first = carve(&c, BLOCK * 4);
    m.last = carve(&c, BLOCK * 4);
    m.work = carve(&c, BLOCK * columns * 4);
    m.bytes = c.used;
    return m;
}

/* One thread's work: queries [begin, end) of heads [head, head_end), which share key head KV, in batch row B.
 */
typedef struct task {
    const attention_args *a;
    const attention_blocks *op;
    memory m;
    i64 b, kv, head, head_end, begin, end, past;
    i64 next_b, next_head; // probably this thread's next task; -1: none
} task;

/* Packs the keys and values that the task's queries may see; panel i stands at i * BLOCK from position 0. */
static void pack_keys(const task *t)
{
    const attention_args *a = t->a;
    i64 columns = columns_of(a->width), words = words_of(a->width, t->op->pair), pair = t->op->pair;
    i64 first = t->past + t->begin, end = t->past + t->end;
    for (i64 i = t->begin; i < t->end; i++) first = MIN(first, first_key(a, t->b, i, t->past + i));
    for (i64 at = first / BLOCK * BLOCK; at < end; at += BLOCK) {
        const void *k[BLOCK], *v[BLOCK];
        if (at + BLOCK >= t->past) {
            i64 next = at + BLOCK - t->past;
            prefetch_head(a, a->k, a->k_stride, t->b, t->kv * a->width, next, BLOCK, false);
            prefetch_head(a, a->v, a->v_stride, t->b, t->kv * a->width, next, BLOCK, false);
        }
        for (i64 r = 0; r < BLOCK; r++) {
            i64 s = at + r, row = t->b * a->tokens + s - t->past;
            i64 cached = ((t->b * a->capacity + s) * a->kv_heads + t->kv) * a->width;
            k[r] = v[r] = t->m.zero;
            if (s >= end) continue;
            k[r] = s < t->past ? element(a->k_cache, a->type, cached)
                               : element(a->k, a->type, row * a->k_stride + t->kv * a->width);
            v[r] = s < t->past ? element(a->v_cache, a->type, cached)
                               : element(a->v, a->type, row * a->v_stride + t->kv * a->width);
        }
        t->op->pack_panel(t->m.k + at * words, k, a->type, a->width, t->m.work);
        t->op->pack_pairs(t->m.v + at / pair * columns, columns, v, a->type, a->width, t->m.work);
    }
}

/* Scores, probabilities and o for the block's queries (the first at position AT) and the keys [from, to). */
static void step(const task *t, i64 rows, i64 at, i64 from, i64 to, const i32 *first, bool fresh)
{
    const attention_args *a = t->a;
    const memory *m = &t->m;
    i64 columns = columns_of(a->width), pair = t->op->pair, words = words_of(a->width, pair);
    for (i64 panel = from; panel < to; panel += BLOCK)
        t->op->multiply(&(product){.M = rows,
                                   .N = MIN(to - panel, BLOCK),
                                   .K = words,
                                   .a = m->q,
                                   .am = round_up(words, 16),
                                   .ak = 1,
                                   .b = m->k + panel * words,
                                   .ldb = BLOCK,
                                   .c = m->s + (panel - from),
                                   .ldc = WIDE,
                                   .trim = TRIM_COLUMNS,
                                   .diagonal = at - panel});
    i32 begin[BLOCK], last[BLOCK];
    for (i64 r = 0; r < rows; r++) {
        begin[r] = (i32)(first[r] - from);
        last[r] = (i32)(at + r - from);
    }
    t->op->softmax(&(softmax_block){.rows = rows,
                                    .columns = to - from,
                                    .s = m->s,
                                    .p = m->p,
                                    .first = begin,
                                    .last = last,
                                    .factor = a->scale * (float)M_LOG2E,
                                    .max = m->max,
                                    .sum = m->sum,
                                    .o = m->o,
                                    .ldo = columns,
                                    .fresh = fresh});
    t->op->multiply(&(product){.M = rows,
                               .N = columns,
                               .K = (to - from + pair - 1) / pair,
                               .a = m->p,
                               .am = WIDE / pair,
                               .ak = 1,
                               .b = m->v + from / pair * columns,
                               .ldb = columns,
                               .c = m->o,
                               .ldc = columns,
                               .add = !fresh,
                               .trim = TRIM_END,
                               .diagonal = at - from});
}

/* What is written after block q0 of head H, what is packed after it; while the last head of the task runs,
 * the keys and values of the next task. */
static void prefetch_next(const task *t, i64 h, i64 q0)
{
    const attention_args *a = t->a;
    i64 w = a->width, b = t->b, next = h, from = q0 + BLOCK;
    prefetch_head(a, a->o, a->o_stride, b, h * w, q0, BLOCK, true);
    if (from >= t->end) from = t->begin, next++;
    if (h + 1 == t->head_end && t->next_b >= 0) {
        i64 kv = t->next_head / (a->heads / a->kv_heads);
        prefetch_head(a, a->k, a->k_stride, t->next_b, kv * w, q0, BLOCK, false);
        prefetch_head(a, a->v, a->v_stride, t->next_b, kv * w, q0, BLOCK, false);
    }
    if (next == t->head_end) b = t->next_b, next = t->next_head, from = 0;
    if (b >= 0) prefetch_head(a, a->q, a->q_stride, b, next * w, from, BLOCK, false);
}

static void query_block(const task *t, i64 h, i64 q0)
{
    prefetch_next(t, h, q0);
    const attention_args *a = t->a;
    const memory *m = &t->m;
    i64 rows = MIN(BLOCK, t->end - q0), at = t->past + q0, columns = columns_of(a->width), lowest = at;
    const void *row[BLOCK];
    for (i64 r = 0; r < BLOCK; r++) {
        i64 index = (t->b * a->tokens + q0 + r) * a->q_stride + h * a->width;
        row[r] = r < rows ? element(a->q, a->type, index) : m->zero;
        if (r >= rows) continue;
        i64 first = first_key(a, t->b, q0 + r, at + r);
        m->first[r] = (i32)first;
        lowest = MIN(lowest, first);
        m->max[r] = -1e30f; // not infinity: the difference of two of them must be 0
        m->sum[r] = 0;
    }
    t->op->pack_rows(m->q, round_up(words_of(a->width, t->op->pair), 16), row, a->type, a->width, m->work);
    bool fresh = true;
    for (i64 wide = lowest / WIDE * WIDE; wide < at + rows; wide += WIDE) {
        step(t, rows, at, MAX(wide, lowest / BLOCK * BLOCK), MIN(wide + WIDE, at + rows), m->first, fresh);
        fresh = false;
    }
    float *lse = a->lse + (t->b * a->heads + h) * a->tokens + q0, factor = a->scale * (float)M_LOG2E;
    for (i64 r = 0; r < rows; r++) {
        i64 index = (t->b * a->tokens + q0 + r) * a->o_stride + h * a->width;
        store_row(element(a->o, a->type, index), a->type, m->o + r * columns, 1 / m->sum[r], a->width);
    }
#pragma omp simd
    for (i64 r = 0; r < rows; r++) lse[r] = m->max[r] * factor + vec_log(m->sum[r]) * (float)M_LOG2E;
}

void OP_JOIN(attention_, forward, ISA)(const attention_args *a)
{
    if (attention_is_short(a)) {
        OP_JOIN(attention_, decode, ISA)(a);
        return;
    }
    const attention_blocks *op = blocks_for(a->type);
    i64 share = lay_out(a, op, NULL).bytes, group = a->heads / a->kv_heads;
    i64 per_task = a->batch * a->kv_heads >= 2 * a->threads ? group : 1; // heads that share one packing
    i64 chunk = round_up(a->tokens, BLOCK), tasks = a->batch * a->heads / per_task;
    while (tasks * ((a->tokens + chunk - 1) / chunk) < 2 * a->threads && chunk >= 8 * BLOCK)
        chunk = round_up(chunk / 2, BLOCK);
    i64 chunks = (a->tokens + chunk - 1) / chunk;
#pragma omp parallel num_threads(a->threads)
    {
        task t = {.a = a, .op = op, .m = lay_out(a, op, a->scratch + thread_index() * share)};
        memset(t.m.zero, 0, (size_t)a->width * 4);
#pragma omp for schedule(dynamic)
        for (i64 i = 0; i < tasks * chunks; i++) {
            i64 head = i % tasks * per_task;
            t.b = head / a->heads;
            t.head = head % a->heads;
            t.head_end = t.head + per_task;
            t.kv = t.head / group;
            i64 next = i + a->threads < tasks && chunks == 1 ? head + a->threads * per_task : -1;
            t.next_b = next < 0 ? -1 : next / a->heads;
            t.next_head = next < 0 ? -1 : next % a->heads;
            t.begin = (chunks - 1 - i / tasks) * chunk; // long rows of scores first
            t.end = MIN(t.begin + chunk, a->tokens);
            t.past = past_of(a, t.b);
            pack_keys(&t);
            for (i64 h = t.head; h < t.head_end; h++)
                for (i64 q0 = t.begin; q0 < t.end; q0 += BLOCK) query_block(&t, h, q0);
        }
    }
}

i64 OP_JOIN(attention_, forward_scratch, ISA)(const attention_args *a)
{
    if (attention_is_short(a)) return OP_JOIN(attention_, decode_scratch, ISA)(a);
    return a->threads * lay_out(a, blocks_for(a->type), NULL).bytes;
}

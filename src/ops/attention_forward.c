/* attention_forward: o = softmax(scale q k^T) v over the visible keys, block by block; memory linear in T.
 *
 * Idea: FlashAttention (Dao et al., arXiv:2205.14135; Dao, arXiv:2307.08691). A thread takes one key head of
 * one row of the batch, packs its keys and values once, and walks over 64 queries x 256 keys: scores, running
 * maximum and sum of each query, unnormalised probabilities, o rescaled when the maximum moves.
 *
 * Copies of tokens (attention.h) are queries of a second pass over the same packed originals, and then see
 * their own side of the keys; the running maximum and sum merge the two sides.
 *
 * Blocks of keys begin at multiples of 256 counted from a side's first key, and a key that a query does
 * not see contributes an exact zero, so the bits of a document depend on nothing but that document and its
 * place. Departs: log2 and exp2 throughout, with log2(e) folded into the scale; lse is in base 2. */
#include "ops/attention_blocks.h"
#include "ops/vec.h"
#include <math.h>
#include <string.h>

typedef struct panels { // of one side
    u32 *k, *v;
} panels;
typedef struct memory {
    void *zero; // a row of zeros: stands for rows beyond the end
    panels side[SIDES];
    u32 *q, *p;
    float *s, *o, *max, *sum, *work;
    span *span[SIDES];
    i64 bytes;
} memory;

static memory lay_out(const attention_args *a, const attention_blocks *op, char *base)
{
    carver c = {base, 0};
    i64 columns = columns_of(a->width), words = words_of(a->width, op->pair);
    memory m = {0};
    m.zero = carve(&c, a->width * 4);
    for (side i = 0; i < SIDES; i++) {
        i64 keys = round_up(most_keys(a, i), BLOCK);
        m.side[i].k = carve(&c, keys * words * 4);
        m.side[i].v = carve(&c, keys / op->pair * columns * 4);
        m.span[i] = carve(&c, BLOCK * (i64)sizeof(span));
    }
    m.q = carve(&c, (BLOCK + SLACK) * columns * 4);
    m.s = carve(&c, (BLOCK + SLACK) * WIDE * 4);
    m.p = carve(&c, (BLOCK + SLACK) * WIDE / op->pair * 4);
    m.o = carve(&c, (BLOCK + SLACK) * columns * 4);
    m.max = carve(&c, BLOCK * 4);
    m.sum = carve(&c, BLOCK * 4);
    m.work = carve(&c, BLOCK * columns * 4);
    m.bytes = c.used;
    return m;
}

/* One thread's work: the tokens [begin, end) and their copies, of heads [head, head_end), which share key
 * head KV, in batch row B. */
typedef struct task {
    const attention_args *a;
    const attention_blocks *op;
    memory m;
    i64 b, kv, head, head_end, begin, end;
    i64 next_b, next_head; // probably this thread's next task; -1: none
} task;

/* The task's rows of a side: [first, end) of the sequence. */
static i64 first_row(const task *t, side which)
{
    return which == ORIGINALS ? t->begin : t->a->tokens + t->begin * (t->a->copies - 1);
}
static i64 end_row(const task *t, side which)
{
    if (which == ORIGINALS) return t->end;
    return copies_of(t->a) > 1 ? t->a->tokens + t->end * (t->a->copies - 1) : 0;
}

/* Packs the keys and values of a side that the task's queries may see; panel i stands at i * BLOCK from its
 * first key. */
static void pack_keys(const task *t, side which)
{
    const attention_args *a = t->a;
    const panels *to = &t->m.side[which];
    i64 columns = columns_of(a->width), words = words_of(a->width, t->op->pair), pair = t->op->pair;
    i64 column = t->kv * a->width, begin = first_row(t, which), rows = end_row(t, which);
    if (begin >= rows) return;
    i64 end = span_of(a, t->b, which, rows - 1).last + 1, first = end, fresh = end - rows;
    for (i64 row = begin; row < rows; row++) first = MIN(first, span_of(a, t->b, which, row).first);
    for (i64 at = first / BLOCK * BLOCK; at < end; at += BLOCK) {
        const void *k[BLOCK], *v[BLOCK];
        if (at + BLOCK >= fresh) {
            prefetch_head(a, a->k, a->k_stride, t->b, column, at + BLOCK - fresh, BLOCK, false);
            prefetch_head(a, a->v, a->v_stride, t->b, column, at + BLOCK - fresh, BLOCK, false);
        }
        for (i64 r = 0; r < BLOCK; r++) {
            k[r] = v[r] = t->m.zero;
            if (at + r >= end) continue;
            key_of(a, t->b, which, at + r, &k[r], &v[r]);
            k[r] = element(k[r], a->type, column);
            v[r] = element(v[r], a->type, column);
        }
        t->op->pack_panel(to->k + at * words, k, a->type, a->width, t->m.work);
        t->op->pack_pairs(to->v + at / pair * columns, columns, v, a->type, a->width, t->m.work);
    }
}

/* Scores, probabilities and o for the block's queries and the keys [from, to) of a side. No row r sees a key
 * beyond last + r, LAST what row 0 sees last: what the products need not compute. */
static void step(const task *t, i64 rows, side which, i64 from, i64 to, bool fresh)
{
    const attention_args *a = t->a;
    const memory *m = &t->m;
    const panels *keys = &m->side[which];
    const span *seen = m->span[which];
    i64 columns = columns_of(a->width), pair = t->op->pair, words = words_of(a->width, pair);
    i64 last = seen[0].last;
    for (i64 panel = from; panel < to; panel += BLOCK)
        t->op->multiply(&(product){.M = rows,
                                   .N = MIN(to - panel, BLOCK),
                                   .K = words,
                                   .a = m->q,
                                   .am = round_up(words, 16),
                                   .ak = 1,
                                   .b = keys->k + panel * words,
                                   .ldb = BLOCK,
                                   .c = m->s + (panel - from),
                                   .ldc = WIDE,
                                   .trim = TRIM_COLUMNS,
                                   .diagonal = last - panel});
    i32 begin[BLOCK], end[BLOCK];
    for (i64 r = 0; r < rows; r++) {
        begin[r] = (i32)(seen[r].first - from);
        end[r] = (i32)(seen[r].last - from);
    }
    i64 lag = last + rows - 1 - seen[rows - 1].last; // of what rows see behind last + r
    t->op->softmax(&(softmax_block){.rows = rows,
                                    .columns = to - from,
                                    .slack = SLACK + lag,
                                    .s = m->s,
                                    .p = m->p,
                                    .first = begin,
                                    .last = end,
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
                               .b = keys->v + from / pair * columns,
                               .ldb = columns,
                               .c = m->o,
                               .ldc = columns,
                               .add = !fresh,
                               .trim = TRIM_END,
                               .diagonal = last - from});
}

/* What is written after the block at ROW of head H, what is packed after it; while the last head of the task
 * runs, the keys and values of the next task. */
static void prefetch_next(const task *t, side which, i64 h, i64 row)
{
    const attention_args *a = t->a;
    i64 w = a->width, b = t->b, next = h, from = row + BLOCK;
    prefetch_head(a, a->o, a->o_stride, b, h * w, row, BLOCK, true);
    if (from >= end_row(t, which)) {
        from = which == ORIGINALS && copies_of(a) > 1 ? first_row(t, COPIES) : t->begin;
        next = h + (from == t->begin);
    }
    if (h + 1 == t->head_end && t->next_b >= 0) {
        i64 kv = t->next_head / (a->heads / a->kv_heads);
        prefetch_head(a, a->k, a->k_stride, t->next_b, kv * w, row, BLOCK, false);
        prefetch_head(a, a->v, a->v_stride, t->next_b, kv * w, row, BLOCK, false);
    }
    if (next == t->head_end) b = t->next_b, next = t->next_head, from = 0;
    if (b >= 0) prefetch_head(a, a->q, a->q_stride, b, next * w, from, BLOCK, false);
}

/* The block's keys of a side, in steps. */
static void all_steps(const task *t, i64 rows, side which, bool fresh)
{
    const span *seen = t->m.span[which];
    i64 lowest = seen[0].first, end = seen[rows - 1].last + 1;
    for (i64 r = 1; r < rows; r++) lowest = MIN(lowest, seen[r].first);
    for (i64 wide = lowest / WIDE * WIDE; wide < end; wide += WIDE) {
        step(t, rows, which, MAX(wide, lowest / BLOCK * BLOCK), MIN(wide + WIDE, end), fresh);
        fresh = false;
    }
}

/* Queries of head H from row ROW on, originals or copies; copies see both sides. */
static void query_block(const task *t, side which, i64 h, i64 row0)
{
    prefetch_next(t, which, h, row0);
    const attention_args *a = t->a;
    const memory *m = &t->m;
    i64 rows = MIN(BLOCK, end_row(t, which) - row0), columns = columns_of(a->width);
    const void *row[BLOCK];
    for (i64 r = 0; r < BLOCK; r++) {
        i64 index = (t->b * sequence_of(a) + row0 + r) * a->q_stride + h * a->width;
        row[r] = r < rows ? element(a->q, a->type, index) : m->zero;
        if (r >= rows) continue;
        for (side i = ORIGINALS; i <= which; i++) m->span[i][r] = span_of(a, t->b, i, row0 + r);
        m->max[r] = -1e30f; // not infinity: the difference of two of them must be 0
        m->sum[r] = 0;
    }
    t->op->pack_rows(m->q, round_up(words_of(a->width, t->op->pair), 16), row, a->type, a->width, m->work);
    for (side i = ORIGINALS; i <= which; i++) all_steps(t, rows, i, i == ORIGINALS);
    float *lse = a->lse + (t->b * a->heads + h) * sequence_of(a) + row0, factor = a->scale * (float)M_LOG2E;
    for (i64 r = 0; r < rows; r++) {
        i64 index = (t->b * sequence_of(a) + row0 + r) * a->o_stride + h * a->width;
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
            for (side which = ORIGINALS; which < SIDES; which++) pack_keys(&t, which);
            for (i64 h = t.head; h < t.head_end; h++)
                for (side which = ORIGINALS; which < SIDES; which++)
                    for (i64 row = first_row(&t, which); row < end_row(&t, which); row += BLOCK)
                        query_block(&t, which, h, row);
        }
    }
}

i64 OP_JOIN(attention_, forward_scratch, ISA)(const attention_args *a)
{
    if (attention_is_short(a)) return OP_JOIN(attention_, decode_scratch, ISA)(a);
    return a->threads * lay_out(a, blocks_for(a->type), NULL).bytes;
}

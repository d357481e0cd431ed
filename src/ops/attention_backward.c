/* attention_backward: gradients of q, k and v, the probabilities recomputed block by block from lse.
 *
 *   p_ij = exp(scale q_i.k_j - lse_i)    dv_j = sum_i p_ij do_i      delta_i = do_i.o_i
 *   ds_ij = p_ij (do_i.v_j - delta_i)    dq_i = scale sum_j ds_ij k_j     dk_j = scale sum_i ds_ij q_i
 *
 * Idea: FlashAttention-2 (Dao, arXiv:2307.08691): keys outside, queries inside. A thread takes one key head
 * of one row of the batch; its query heads follow each other, so the sums of dk and dv over them have one
 * order. dq of the current head is kept in f32, dk and dv of the block (of the row, when heads share keys)
 * too.
 *
 * Copies of tokens (attention.h) are rows behind the tokens, padded apart so that no block holds both: the
 * keys of an original get gradients from originals and copies, those of a copy from copies. */
#include "ops/attention_blocks.h"
#include <math.h>
#include <string.h>

typedef struct memory {
    void *zero;
    u32 *q, *q_pairs, *d_o, *d_o_pairs; // of the head: [rows], [rows / pair]
    u32 *k_panel, *v_panel, *k_pairs;   // of the block
    u32 *p, *ds_pairs, *ds_rows;
    float *d_q, *d_k, *d_v, *lse, *delta, *work;
    // By side of the keys: what the rows see; of each block of rows the lowest and highest first key, and the
    // lowest and highest last key.
    struct {
        i32 *first, *last;
        span *firsts, *lasts;
    } seen[SIDES];
    i64 bytes;
} memory;

/* Rows of a side, and where they begin in memory. */
static i64 rows_on(const attention_args *a, side which)
{
    return which == ORIGINALS ? a->tokens : (copies_of(a) - 1) * a->tokens;
}
static i64 padded_from(const attention_args *a, side which)
{
    return which == ORIGINALS ? 0 : round_up(a->tokens, BLOCK);
}
static i64 padded(const attention_args *a)
{
    return padded_from(a, COPIES) + round_up(rows_on(a, COPIES), BLOCK);
}
/* The row of the sequence that stands at I of a side, -1 beyond the end. */
static i64 row_at(const attention_args *a, side which, i64 i)
{
    return i >= rows_on(a, which) ? -1 : which == ORIGINALS ? i : a->tokens + i;
}

static memory lay_out(const attention_args *a, const attention_blocks *op, char *base)
{
    carver c = {base, 0};
    i64 columns = columns_of(a->width), words = words_of(a->width, op->pair), ld = round_up(words, 16);
    i64 rows = padded(a), kept = a->heads > a->kv_heads ? rows : BLOCK;
    memory m = {0};
    m.zero = carve(&c, a->width * 4);
    m.q = carve(&c, (rows + SLACK) * ld * 4);
    m.d_o = carve(&c, (rows + SLACK) * ld * 4);
    m.q_pairs = op->pair == 1 ? m.q : carve(&c, rows / op->pair * columns * 4);
    m.d_o_pairs = op->pair == 1 ? m.d_o : carve(&c, rows / op->pair * columns * 4);
    m.k_panel = carve(&c, BLOCK * words * 4);
    m.v_panel = carve(&c, BLOCK * words * 4);
    m.k_pairs = carve(&c, BLOCK / op->pair * columns * 4);
    m.p = carve(&c, (BLOCK + SLACK) * BLOCK / op->pair * 4);
    m.ds_pairs = carve(&c, (BLOCK + SLACK) * BLOCK / op->pair * 4);
    m.ds_rows = op->pair == 1 ? m.ds_pairs : carve(&c, (BLOCK + SLACK) * BLOCK / op->pair * 4);
    m.d_q = carve(&c, (rows + SLACK) * columns * 4);
    m.d_k = carve(&c, (kept + SLACK) * columns * 4);
    m.d_v = carve(&c, (kept + SLACK) * columns * 4);
    m.lse = carve(&c, rows * 4);
    m.delta = carve(&c, rows * 4);
    for (side i = ORIGINALS; i < SIDES; i++) {
        m.seen[i].first = carve(&c, rows * 4);
        m.seen[i].last = carve(&c, rows * 4);
        m.seen[i].firsts = carve(&c, rows / BLOCK * (i64)sizeof(span));
        m.seen[i].lasts = carve(&c, rows / BLOCK * (i64)sizeof(span));
    }
    m.work = carve(&c, BLOCK * MAX(columns, 2 * BLOCK) * 4);
    m.bytes = c.used;
    return m;
}

typedef struct task {
    const attention_args *a;
    const attention_blocks *op;
    memory m;
    i64 b, kv;
    i64 next_b, next_kv; // probably this thread's next task; -1: none
} task;

/* Which keys of a side the row's queries see. Rows beyond the end see what the last one sees: their lse is
 * huge, so p is 0. */
static void find_masks(const task *t, side keys, side queries)
{
    const attention_args *a = t->a;
    i64 rows = rows_on(a, queries), at = padded_from(a, queries);
    i32 *first = t->m.seen[keys].first + at, *last = t->m.seen[keys].last + at;
    for (i64 i = 0; i < round_up(rows, BLOCK); i++) {
        span s = span_of(a, t->b, keys, row_at(a, queries, MIN(i, rows - 1)));
        span *firsts = &t->m.seen[keys].firsts[(at + i) / BLOCK],
             *lasts = &t->m.seen[keys].lasts[(at + i) / BLOCK];
        first[i] = (i32)s.first;
        last[i] = (i32)s.last;
        if (i % BLOCK == 0) *firsts = (span){s.first, s.first}, *lasts = (span){s.last, s.last};
        *firsts = (span){MIN(firsts->first, s.first), MAX(firsts->last, s.first)};
        *lasts = (span){MIN(lasts->first, s.last), MAX(lasts->last, s.last)};
    }
}

/* Packs q and do of a side of head H; lse and delta of its rows; dq = 0. */
static void begin_head(const task *t, side which, i64 h)
{
    const attention_args *a = t->a;
    const memory *m = &t->m;
    i64 columns = columns_of(a->width), pair = t->op->pair, ld = round_up(words_of(a->width, pair), 16);
    i64 from = padded_from(a, which), rows = round_up(rows_on(a, which), BLOCK);
    const float *lse = a->lse + (t->b * a->heads + h) * sequence_of(a);
    for (i64 q0 = 0; q0 < rows; q0 += BLOCK) {
        const void *q[BLOCK], *d_o[BLOCK];
        i64 to = from + q0;
        for (i64 r = 0; r < BLOCK; r++) {
            i64 at = row_at(a, which, q0 + r), row = t->b * sequence_of(a) + at;
            bool real = at >= 0;
            q[r] = real ? element(a->q, a->type, row * a->q_stride + h * a->width) : m->zero;
            d_o[r] = real ? element(a->d_o, a->type, row * a->d_o_stride + h * a->width) : m->zero;
            m->lse[to + r] = real ? lse[at] : 1e30f;
            const void *o = real ? element(a->o, a->type, row * a->o_stride + h * a->width) : m->zero;
            m->delta[to + r] = dot_values(d_o[r], o, a->type, a->width);
        }
        t->op->pack_rows(m->q + to * ld, ld, q, a->type, a->width, m->work);
        t->op->pack_rows(m->d_o + to * ld, ld, d_o, a->type, a->width, m->work);
        if (pair == 1) continue;
        t->op->pack_pairs(m->q_pairs + to / pair * columns, columns, q, a->type, a->width, m->work);
        t->op->pack_pairs(m->d_o_pairs + to / pair * columns, columns, d_o, a->type, a->width, m->work);
    }
    memset(m->d_q + from * columns, 0, (size_t)(rows * columns) * sizeof *m->d_q);
}

/* A block of keys of a side, from k0; its sums stand at d_k and d_v, and are added to once there are any. */
typedef struct key_block {
    side which;
    i64 k0, keys;
    float *d_k, *d_v;
    bool add;
} key_block;

/* The block of queries from q0 of a side against the block of keys. */
static void pair_of_blocks(const task *t, side queries_on, i64 q0, const key_block *k)
{
    const attention_args *a = t->a;
    const memory *m = &t->m;
    i64 columns = columns_of(a->width), pair = t->op->pair, words = words_of(a->width, pair);
    i64 ld = round_up(words, 16), queries = MIN(BLOCK, round_up(rows_on(a, queries_on) - q0, 4));
    i64 keys = k->keys, at = padded_from(a, queries_on) + q0;
    span first_key = m->seen[k->which].firsts[at / BLOCK], last_key = m->seen[k->which].lasts[at / BLOCK];
    // Row r sees the keys up to k0 + r: what the products need not compute is a triangle.
    bool diagonal =
        last_key.first == k->k0 && last_key.last == k->k0 + MIN(BLOCK, rows_on(a, queries_on) - q0) - 1;
    i32 first[BLOCK], last[BLOCK];
    for (i64 r = 0; r < BLOCK; r++) {
        first[r] = m->seen[k->which].first[at + r] - (i32)k->k0;
        last[r] = m->seen[k->which].last[at + r] - (i32)k->k0;
    }
    t->op->scores(&(score_block){.queries = queries,
                                 .keys = keys,
                                 .words = words,
                                 .q = m->q + at * ld,
                                 .d_o = m->d_o + at * ld,
                                 .ld = ld,
                                 .k_panel = m->k_panel,
                                 .v_panel = m->v_panel,
                                 .lse = m->lse + at,
                                 .delta = m->delta + at,
                                 .first = first,
                                 .last = last,
                                 .masked = last_key.first < k->k0 + BLOCK - 1 || first_key.last > k->k0,
                                 .factor = a->scale * (float)M_LOG2E,
                                 .p = m->p,
                                 .ds_pairs = m->ds_pairs,
                                 .ds_rows = m->ds_rows,
                                 .work = m->work});
    product sum = {.M = keys,
                   .N = columns,
                   .K = (queries + pair - 1) / pair,
                   .a = m->p,
                   .am = 1,
                   .ak = BLOCK,
                   .b = m->d_o_pairs + at / pair * columns,
                   .ldb = columns,
                   .c = k->d_v,
                   .ldc = columns,
                   .add = k->add,
                   .trim = diagonal ? TRIM_BEGIN : TRIM_NONE};
    t->op->multiply(&sum);
    sum.a = m->ds_pairs, sum.b = m->q_pairs + at / pair * columns, sum.c = k->d_k;
    t->op->multiply(&sum);
    t->op->multiply(&(product){.M = queries,
                               .N = columns,
                               .K = (keys + pair - 1) / pair,
                               .a = m->ds_rows,
                               .am = BLOCK / pair,
                               .ak = 1,
                               .b = m->k_pairs,
                               .ldb = columns,
                               .c = m->d_q + at * columns,
                               .ldc = columns,
                               .add = true,
                               .trim = diagonal ? TRIM_END : TRIM_NONE});
}

/* Rows [first, first + rows) of what is written after head H and of what the next head will read. */
static void prefetch_next(const task *t, i64 h, i64 first, i64 rows)
{
    const attention_args *a = t->a;
    i64 w = a->width, b = t->b, next = h + 1, group = a->heads / a->kv_heads;
    prefetch_head(a, a->d_q, a->d_q_stride, b, h * w, first, rows, true);
    if (next % group == 0) {
        prefetch_head(a, a->d_k, a->d_k_stride, b, t->kv * w, first, rows, true);
        prefetch_head(a, a->d_v, a->d_v_stride, b, t->kv * w, first, rows, true);
        if (t->next_b < 0) return;
        b = t->next_b, next = t->next_kv * group;
        prefetch_head(a, a->k, a->k_stride, b, t->next_kv * w, first, rows, false);
        prefetch_head(a, a->v, a->v_stride, b, t->next_kv * w, first, rows, false);
    }
    prefetch_head(a, a->q, a->q_stride, b, next * w, first, rows, false);
    prefetch_head(a, a->d_o, a->d_o_stride, b, next * w, first, rows, false);
    prefetch_head(a, a->o, a->o_stride, b, next * w, first, rows, false);
}

/* All queries of a side of head H against the block of keys. Originals see no copies. */
static void all_queries(const task *t, i64 h, side queries_on, key_block *k)
{
    const attention_args *a = t->a;
    i64 done = 0, rows = rows_on(a, queries_on), begin = k->k0;
    if (queries_on < k->which) return;
    if (queries_on > k->which) begin = k->k0 * (copies_of(a) - 1) / BLOCK * BLOCK; // copies of token k0
    for (i64 q0 = begin; q0 < rows; q0 += BLOCK) {
        i64 block = (padded_from(a, queries_on) + q0) / BLOCK;
        if (queries_on == k->which) { // while its own block is computed, the next head's rows of it come
            i64 share = BLOCK * (q0 + BLOCK - begin) / round_up(rows - begin, BLOCK);
            prefetch_next(t, h, row_at(a, k->which, begin) + done, share - done);
            done = share;
        }
        if (t->m.seen[k->which].firsts[block].first >= k->k0 + BLOCK) continue; // other documents, a window
        pair_of_blocks(t, queries_on, q0, k);
        k->add = true;
    }
}

/* The keys of a side from k0: gradients of head H. */
static void one_key_block(const task *t, i64 h, side which, i64 k0)
{
    const attention_args *a = t->a;
    const memory *m = &t->m;
    i64 columns = columns_of(a->width), keys = MIN(BLOCK, rows_on(a, which) - k0),
        group = a->heads / a->kv_heads;
    i64 first = t->b * sequence_of(a) + row_at(a, which, k0), at = t->kv * a->width;
    const void *k[BLOCK], *v[BLOCK];
    for (i64 r = 0; r < BLOCK; r++) {
        k[r] = r < keys ? element(a->k, a->type, (first + r) * a->k_stride + at) : m->zero;
        v[r] = r < keys ? element(a->v, a->type, (first + r) * a->v_stride + at) : m->zero;
    }
    t->op->pack_panel(m->k_panel, k, a->type, a->width, m->work);
    t->op->pack_panel(m->v_panel, v, a->type, a->width, m->work);
    t->op->pack_pairs(m->k_pairs, columns, k, a->type, a->width, m->work);
    i64 kept = group > 1 ? padded_from(a, which) + k0 : 0;
    key_block block = {.which = which,
                       .k0 = k0,
                       .keys = keys,
                       .d_k = m->d_k + kept * columns,
                       .d_v = m->d_v + kept * columns,
                       .add = h % group != 0}; // to the sums of the group's earlier heads
    for (side i = ORIGINALS; i < SIDES; i++) all_queries(t, h, i, &block);
    for (i64 r = 0; r < keys && h % group == group - 1; r++) {
        void *to_k = element(a->d_k, a->type, (first + r) * a->d_k_stride + at);
        void *to_v = element(a->d_v, a->type, (first + r) * a->d_v_stride + at);
        store_row(to_k, a->type, block.d_k + r * columns, a->scale, a->width);
        store_row(to_v, a->type, block.d_v + r * columns, 1, a->width);
    }
}

static void one_head(const task *t, i64 h)
{
    const attention_args *a = t->a;
    i64 columns = columns_of(a->width);
    for (side i = ORIGINALS; i < SIDES; i++) begin_head(t, i, h);
    for (side i = ORIGINALS; i < SIDES; i++)
        for (i64 k0 = 0; k0 < rows_on(a, i); k0 += BLOCK) one_key_block(t, h, i, k0);
    for (side i = ORIGINALS; i < SIDES; i++)
        for (i64 q = 0; q < rows_on(a, i); q++) {
            i64 index = (t->b * sequence_of(a) + row_at(a, i, q)) * a->d_q_stride + h * a->width;
            store_row(element(a->d_q, a->type, index), a->type, t->m.d_q + (padded_from(a, i) + q) * columns,
                      a->scale, a->width);
        }
}

void OP_JOIN(attention_, backward, ISA)(const attention_args *a)
{
    const attention_blocks *op = blocks_for(a->type);
    i64 share = lay_out(a, op, NULL).bytes, group = a->heads / a->kv_heads;
#pragma omp parallel num_threads(a->threads)
    {
        task t = {.a = a, .op = op, .m = lay_out(a, op, a->scratch + thread_index() * share)};
        memset(t.m.zero, 0, (size_t)a->width * 4);
#pragma omp for schedule(dynamic)
        for (i64 i = 0; i < a->batch * a->kv_heads; i++) {
            t.b = i / a->kv_heads;
            t.kv = i % a->kv_heads;
            bool more = i + a->threads < a->batch * a->kv_heads;
            t.next_b = more ? (i + a->threads) / a->kv_heads : -1;
            t.next_kv = (i + a->threads) % a->kv_heads;
            find_masks(&t, ORIGINALS, ORIGINALS);
            find_masks(&t, ORIGINALS, COPIES);
            find_masks(&t, COPIES, COPIES);
            for (i64 g = 0; g < group; g++) one_head(&t, t.kv * group + g);
        }
    }
}

i64 OP_JOIN(attention_, scratch, ISA)(const attention_args *a, bool backward)
{
    if (!backward) return OP_JOIN(attention_, forward_scratch, ISA)(a);
    return a->threads * lay_out(a, blocks_for(a->type), NULL).bytes;
}

/* attention_backward: gradients of q, k and v, the probabilities recomputed block by block from lse.
 *
 *   p_ij = exp(scale q_i.k_j - lse_i)    dv_j = sum_i p_ij do_i      delta_i = do_i.o_i
 *   ds_ij = p_ij (do_i.v_j - delta_i)    dq_i = scale sum_j ds_ij k_j     dk_j = scale sum_i ds_ij q_i
 *
 * Idea: FlashAttention-2 (Dao, arXiv:2307.08691): keys outside, queries inside. A thread takes one key head
 * of one row of the batch; its query heads follow each other, so the sums of dk and dv over them have one
 * order. dq of the current head is kept in f32, dk and dv of the block (of the row, when heads share keys)
 * too. */
#include "ops/attention_blocks.h"
#include <math.h>
#include <string.h>

typedef struct memory {
    void *zero;
    u32 *q, *q_pairs, *d_o, *d_o_pairs; // of the head: [T] rows, [T / pair] pairs
    u32 *k_panel, *v_panel, *k_pairs;   // of the block
    u32 *p, *ds_pairs, *ds_rows;
    float *d_q, *d_k, *d_v, *lse, *delta, *work;
    i32 *first, *lowest, *highest; // visible from here; the extremes of each block of queries
    i64 bytes;
} memory;

static memory lay_out(const attention_args *a, const attention_blocks *op, char *base)
{
    carver c = {base, 0};
    i64 columns = columns_of(a->width), words = words_of(a->width, op->pair), ld = round_up(words, 16);
    i64 rows = round_up(a->tokens, BLOCK), kept = a->heads > a->kv_heads ? rows : BLOCK;
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
    m.first = carve(&c, rows * 4);
    m.lowest = carve(&c, rows / BLOCK * 4);
    m.highest = carve(&c, rows / BLOCK * 4);
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

/* Which keys the row's queries see. Rows beyond the end see nothing: lse is huge, so p is 0. */
static void find_masks(const task *t)
{
    const memory *m = &t->m;
    for (i64 q = 0; q < t->a->tokens; q++) {
        i32 first = m->first[q] = (i32)first_key(t->a, t->b, q, q);
        i32 *low = &m->lowest[q / BLOCK], *high = &m->highest[q / BLOCK];
        *low = q % BLOCK ? MIN(*low, first) : first;
        *high = q % BLOCK ? MAX(*high, first) : first;
    }
    for (i64 q = t->a->tokens; q < round_up(t->a->tokens, BLOCK); q++)
        m->first[q] = m->first[t->a->tokens - 1];
}

/* Packs q and do of head H; lse and delta of its rows; dq = 0. */
static void begin_head(const task *t, i64 h)
{
    const attention_args *a = t->a;
    const memory *m = &t->m;
    i64 columns = columns_of(a->width), pair = t->op->pair, ld = round_up(words_of(a->width, pair), 16);
    i64 rows = round_up(a->tokens, BLOCK);
    const float *lse = a->lse + (t->b * a->heads + h) * a->tokens;
    for (i64 q0 = 0; q0 < rows; q0 += BLOCK) {
        const void *q[BLOCK], *d_o[BLOCK];
        for (i64 r = 0; r < BLOCK; r++) {
            i64 at = q0 + r, row = t->b * a->tokens + at;
            bool real = at < a->tokens;
            q[r] = real ? element(a->q, a->type, row * a->q_stride + h * a->width) : m->zero;
            d_o[r] = real ? element(a->d_o, a->type, row * a->d_o_stride + h * a->width) : m->zero;
            m->lse[at] = real ? lse[at] : 1e30f;
            const void *o = real ? element(a->o, a->type, row * a->o_stride + h * a->width) : m->zero;
            m->delta[at] = dot_values(d_o[r], o, a->type, a->width);
        }
        t->op->pack_rows(m->q + q0 * ld, ld, q, a->type, a->width, m->work);
        t->op->pack_rows(m->d_o + q0 * ld, ld, d_o, a->type, a->width, m->work);
        if (pair == 1) continue;
        t->op->pack_pairs(m->q_pairs + q0 / pair * columns, columns, q, a->type, a->width, m->work);
        t->op->pack_pairs(m->d_o_pairs + q0 / pair * columns, columns, d_o, a->type, a->width, m->work);
    }
    memset(m->d_q, 0, (size_t)(rows * columns) * sizeof *m->d_q);
}

/* The block of queries from q0 against the block of keys from k0, whose sums stand at d_k and d_v. */
static void pair_of_blocks(const task *t, i64 q0, i64 k0, float *d_k, float *d_v, bool add)
{
    const attention_args *a = t->a;
    const memory *m = &t->m;
    i64 columns = columns_of(a->width), pair = t->op->pair, words = words_of(a->width, pair);
    i64 ld = round_up(words, 16), queries = MIN(BLOCK, round_up(a->tokens - q0, 4)),
        keys = MIN(BLOCK, a->tokens - k0);
    bool diagonal = q0 == k0;
    i32 first[BLOCK], last[BLOCK];
    for (i64 r = 0; r < BLOCK; r++) {
        first[r] = m->first[q0 + r] - (i32)k0;
        last[r] = (i32)(q0 + r - k0);
    }
    t->op->scores(&(score_block){.queries = queries,
                                 .keys = keys,
                                 .words = words,
                                 .q = m->q + q0 * ld,
                                 .d_o = m->d_o + q0 * ld,
                                 .ld = ld,
                                 .k_panel = m->k_panel,
                                 .v_panel = m->v_panel,
                                 .lse = m->lse + q0,
                                 .delta = m->delta + q0,
                                 .first = first,
                                 .last = last,
                                 .masked = diagonal || m->highest[q0 / BLOCK] > k0,
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
                   .b = m->d_o_pairs + q0 / pair * columns,
                   .ldb = columns,
                   .c = d_v,
                   .ldc = columns,
                   .add = add,
                   .trim = diagonal ? TRIM_BEGIN : TRIM_NONE};
    t->op->multiply(&sum);
    sum.a = m->ds_pairs, sum.b = m->q_pairs + q0 / pair * columns, sum.c = d_k;
    t->op->multiply(&sum);
    t->op->multiply(&(product){.M = queries,
                               .N = columns,
                               .K = (keys + pair - 1) / pair,
                               .a = m->ds_rows,
                               .am = BLOCK / pair,
                               .ak = 1,
                               .b = m->k_pairs,
                               .ldb = columns,
                               .c = m->d_q + q0 * columns,
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

/* All queries of head H against the keys from k0. */
static void key_block(const task *t, i64 h, i64 k0)
{
    const attention_args *a = t->a;
    const memory *m = &t->m;
    i64 columns = columns_of(a->width), keys = MIN(BLOCK, a->tokens - k0), group = a->heads / a->kv_heads;
    const void *k[BLOCK], *v[BLOCK];
    for (i64 r = 0; r < BLOCK; r++) {
        i64 row = t->b * a->tokens + k0 + r;
        k[r] = r < keys ? element(a->k, a->type, row * a->k_stride + t->kv * a->width) : m->zero;
        v[r] = r < keys ? element(a->v, a->type, row * a->v_stride + t->kv * a->width) : m->zero;
    }
    t->op->pack_panel(m->k_panel, k, a->type, a->width, m->work);
    t->op->pack_panel(m->v_panel, v, a->type, a->width, m->work);
    t->op->pack_pairs(m->k_pairs, columns, k, a->type, a->width, m->work);
    i64 kept = group > 1 ? k0 : 0, done = 0;
    float *d_k = m->d_k + kept * columns, *d_v = m->d_v + kept * columns;
    bool add = h % group != 0; // to the sums of the group's earlier heads
    for (i64 q0 = k0; q0 < a->tokens; q0 += BLOCK) {
        i64 share = BLOCK * (q0 + BLOCK - k0) / round_up(a->tokens - k0, BLOCK);
        prefetch_next(t, h, k0 + done, share - done);
        done = share;
        if (m->lowest[q0 / BLOCK] >= k0 + BLOCK) continue; // other documents, or beyond the window
        pair_of_blocks(t, q0, k0, d_k, d_v, add);
        add = true;
    }
    for (i64 r = 0; r < keys && h % group == group - 1; r++) {
        i64 row = t->b * a->tokens + k0 + r, at = t->kv * a->width;
        void *to_k = element(a->d_k, a->type, row * a->d_k_stride + at);
        void *to_v = element(a->d_v, a->type, row * a->d_v_stride + at);
        store_row(to_k, a->type, d_k + r * columns, a->scale, a->width);
        store_row(to_v, a->type, d_v + r * columns, 1, a->width);
    }
}

void OP_JOIN(attention_, backward, ISA)(const attention_args *a)
{
    const attention_blocks *op = blocks_for(a->type);
    i64 share = lay_out(a, op, NULL).bytes, group = a->heads / a->kv_heads, columns = columns_of(a->width);
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
            find_masks(&t);
            for (i64 g = 0; g < group; g++) {
                i64 h = t.kv * group + g;
                begin_head(&t, h);
                for (i64 k0 = 0; k0 < a->tokens; k0 += BLOCK) key_block(&t, h, k0);
                for (i64 q = 0; q < a->tokens; q++) {
                    i64 index = (t.b * a->tokens + q) * a->d_q_stride + h * a->width;
                    store_row(element(a->d_q, a->type, index), a->type, t.m.d_q + q * columns, a->scale,
                              a->width);
                }
            }
        }
    }
}

i64 OP_JOIN(attention_, scratch, ISA)(const attention_args *a, bool backward)
{
    if (!backward) return OP_JOIN(attention_, forward_scratch, ISA)(a);
    return a->threads * lay_out(a, blocks_for(a->type), NULL).bytes;
}

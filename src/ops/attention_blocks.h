/* attention_blocks: what the attention kernels do to one block, for each way of multiplying.
 *
 * The drivers (attention_forward.c, attention_backward.c) walk over blocks of 64 queries and 64 keys and know
 * masks, documents, windows and heads; a table of these functions does the arithmetic. Two tables exist:
 *   attention_f32.c    any instruction set, any storage: operands widened to f32, vectorised by the compiler
 *   attention_bf16.c   AVX512-BF16: pairs of bf16 multiplied by vdpbf16ps, sums in f32
 * Operands are arrays of 32-bit words: a word holds `pair` values that are neighbours along the summed axis
 * (one f32, or two bf16), so that both tables share the layouts, with K counted in words: rows    [row][width
 * / pair]        left operand: a word is broadcast panel   [width / pair][64]         right operand,
 * transposed: column j is row j of what was packed pairs   [rows / pair][columns]     right operand as it
 * stands, `pair` rows interleaved
 */
#pragma once
#include "ops/attention.h"
#include "ops/lanes.h"

enum { BLOCK = 64, WIDE = 256, SLACK = 8 }; // queries and keys of a block, keys of a forward step, spare rows

/* C [M, N] (+)= A [M, K] B [K, N]: element (m, k) of A at a[m am + k ak], row k of B at b + k ldb.
 * Row m of a causal product needs less: with first = diagonal + m and last = diagonal + m + 1
 *   TRIM_COLUMNS  only columns < last         (C may stay untouched from there on)
 *   TRIM_END      only values k < last of the summed axis, TRIM_BEGIN: only k >= first
 * The kernels work in small tiles of rows, and use the limit of the tile. Up to SLACK - 1 rows beyond M of A
 * are read and of C written; columns of C up to the next multiple of 16 are written. */
typedef enum trim { TRIM_NONE, TRIM_COLUMNS, TRIM_END, TRIM_BEGIN } trim;
typedef struct product {
    i64 M, N, K; // K in words
    const u32 *a;
    i64 am, ak;
    const u32 *b;
    i64 ldb;
    float *c;
    i64 ldc;
    bool add;
    trim trim;
    i64 diagonal;
} product;

/* Scores to probabilities for one block: s [rows][WIDE] holds q.k, p [rows][WIDE / pair] receives
 * exp2(factor (s - max)), zero where not visible. Row r sees columns first[r] <= j <= last[r], and the
 * product with the values reads up to `slack` columns behind them. Updates max and sum of each row and
 * multiplies its row of o [rows][ldo] by exp2(factor (old max - new max)) unless `fresh`. */
typedef struct softmax_block {
    i64 rows, columns, slack;
    const float *s;
    u32 *p;
    const i32 *first, *last;
    float factor; // scale log2(e)
    float *max, *sum, *o;
    i64 ldo;
    bool fresh;
} softmax_block;

/* Backward, one block of queries and keys: p = exp2(factor q.k - lse), ds = p (do.v - delta), zero where not
 * visible. p and ds_pairs are left operands of products over queries: [queries / pair][BLOCK];
 * ds_rows is one over keys: [queries][BLOCK / pair] (the same memory as ds_pairs where pair is 1). */
typedef struct score_block {
    i64 queries, keys; // filled sizes, <= BLOCK; sizes are rounded up to 4 and 32
    i64 words;         // of a row of q and do, = K of the products
    const u32 *q, *d_o;
    i64 ld;
    const u32 *k_panel, *v_panel;
    const float *lse, *delta;
    const i32 *first, *last; // visible columns of each query
    bool masked;             // false: all are
    float factor;
    u32 *p, *ds_pairs, *ds_rows;
    float *work; // 2 BLOCK BLOCK
} score_block;

typedef struct attention_blocks {
    int pair;
    void (*multiply)(const product *p);
    void (*softmax)(const softmax_block *s);
    void (*scores)(const score_block *s);
    /* row[0 .. BLOCK) point at WIDTH stored values each; WORK holds BLOCK x columns floats. */
    void (*pack_rows)(u32 *to, i64 ld, const void *const *row, dtype type, i64 width, float *work);
    void (*pack_panel)(u32 *to, const void *const *row, dtype type, i64 width, float *work);
    void (*pack_pairs)(u32 *to, i64 ld, const void *const *row, dtype type, i64 width, float *work);
} attention_blocks;

extern const attention_blocks OP_JOIN(attention_, f32_blocks, ISA);
/* NULL where the instruction set has no bf16 products. */
extern const attention_blocks *const OP_JOIN(attention_, bf16_blocks, ISA);

static inline const attention_blocks *blocks_for(dtype type)
{
    const attention_blocks *fast = OP_JOIN(attention_, bf16_blocks, ISA);
    return type == DT_BF16 && fast ? fast : &OP_JOIN(attention_, f32_blocks, ISA);
}

/* ---- parts of attention.h's functions, a file each */
i64 OP_JOIN(attention_, forward_scratch, ISA)(const attention_args *a);
i64 OP_JOIN(attention_, decode_scratch, ISA)(const attention_args *a);
void OP_JOIN(attention_, decode, ISA)(const attention_args *a);
static inline i64 copies_of(const attention_args *a) { return MAX(a->copies, 1); }
/* Too few queries to pay for packing the cache: keys are read where they lie. */
static inline bool attention_is_short(const attention_args *a)
{
    return a->capacity > 0 && a->tokens <= 4 && a->tokens * copies_of(a) <= 8;
}

/* ---- sizes and rows that the drivers use */
static inline i64 columns_of(i64 width) { return round_up(width, 16); }
static inline i64 words_of(i64 width, int pair) { return (width + pair - 1) / pair; }
/* Hands out parts of a thread's scratch, 64-byte aligned; with base NULL it only counts. */
typedef struct carver {
    char *base;
    i64 used;
} carver;
static inline void *carve(carver *c, i64 bytes)
{
    void *p = c->base ? c->base + c->used : NULL;
    c->used += round_up(bytes, 64);
    return p;
}
static inline char *element(const void *p, dtype type, i64 index)
{
    return (char *)p + index * dtype_bytes(type);
}
/* Rows of a sequence: tokens and all their copies. */
static inline i64 sequence_of(const attention_args *a) { return copies_of(a) * a->tokens; }
/* Prefetches the columns from COLUMN on, one head wide, of ROWS rows from row FIRST of batch row B, cut to
 * the end. */
static inline void prefetch_head(const attention_args *a, const void *p, i64 stride, i64 b, i64 column,
                                 i64 first, i64 rows, bool to_write)
{
    i64 size = dtype_bytes(a->type), from = (b * sequence_of(a) + first) * stride + column;
    rows = MIN(rows, sequence_of(a) - first);
    prefetch_rows((const char *)p + from * size, a->width * size, stride * size, rows, to_write);
}
/* Entries of the cache before the new tokens of batch row b; never outside the cache. */
static inline i64 past_of(const attention_args *a, i64 b)
{
    return a->past ? MAX(0, MIN((i64)a->past[b], a->capacity)) : 0;
}
/* First position that query t of batch row b sees; never beyond `at`, its own. */
static inline i64 first_key(const attention_args *a, i64 b, i64 t, i64 at)
{
    i64 first = a->start ? a->start[b * a->tokens + t] : 0;
    if (a->window > 0 && at - a->window + 1 > first) first = at - a->window + 1;
    return first < 0 ? 0 : first > at ? at : first;
}

/* ---- the two sides of the keys: originals, by position, and copies, token by token from the first one that
 * the ring holds. What a row sees of a side is one run of keys. */
typedef enum side { ORIGINALS, COPIES, SIDES } side;
typedef struct span {
    i64 first, last; // last < first: nothing
} span;
/* The position of the first token that has keys on the side of the copies. */
static inline i64 copies_from(const attention_args *a, i64 b) { return MAX(0, past_of(a, b) - a->ring); }
/* Keys of a side, those of the cache or ring included. */
static inline i64 keys_of(const attention_args *a, i64 b, side which)
{
    i64 end = past_of(a, b) + a->tokens;
    return which == ORIGINALS ? end : (end - copies_from(a, b)) * (copies_of(a) - 1);
}
/* The same, at most. */
static inline i64 most_keys(const attention_args *a, side which)
{
    return which == ORIGINALS ? a->capacity + a->tokens : (a->ring + a->tokens) * (copies_of(a) - 1);
}
/* The token of row ROW of a sequence. */
static inline i64 token_of_row(const attention_args *a, i64 row)
{
    return row < a->tokens ? row : (row - a->tokens) / (a->copies - 1);
}
/* First position whose copies a copy of token t at position `at` sees. */
static inline i64 first_copy(const attention_args *a, i64 b, i64 t, i64 at)
{
    i64 first = MAX(first_key(a, b, t, at), at - MAX(a->copy_window, 1) + 1);
    if (a->chunk > 0) {
        i64 start = a->start ? MAX(0, MIN((i64)a->start[b * a->tokens + t], at)) : 0;
        first = MAX(first, start + (at - start) / a->chunk * a->chunk);
    }
    return MIN(MAX(first, copies_from(a, b)), at);
}
/* What row ROW of batch row B sees of a side. */
static inline span span_of(const attention_args *a, i64 b, side which, i64 row)
{
    i64 t = token_of_row(a, row), at = past_of(a, b) + t, k = a->copies - 1, from = copies_from(a, b);
    if (which == ORIGINALS) return (span){first_key(a, b, t, at), at};
    if (row < a->tokens) return (span){0, -1};
    return (span){(first_copy(a, b, t, at) - from) * k, (at - from) * k + (row - a->tokens) % k};
}
/* Where key INDEX of a side lies, all heads: its key and its value. */
static inline void key_of(const attention_args *a, i64 b, side which, i64 index, const void **k,
                          const void **v)
{
    i64 past = past_of(a, b), per_token = a->copies - 1, row = index - past, n = a->kv_heads * a->width;
    const void *old_k = a->k_cache, *old_v = a->v_cache;
    i64 old = b * a->capacity + index;
    if (which == COPIES) {
        i64 token = copies_from(a, b) + index / per_token, copy = index % per_token;
        row = token < past ? -1 : a->tokens + (token - past) * per_token + copy;
        old = a->ring ? (b * a->ring + token % a->ring) * per_token + copy : 0;
        old_k = a->k_ring, old_v = a->v_ring;
    }
    i64 fresh = b * sequence_of(a) + row;
    *k = row < 0 ? element(old_k, a->type, old * n) : element(a->k, a->type, fresh * a->k_stride);
    *v = row < 0 ? element(old_v, a->type, old * n) : element(a->v, a->type, fresh * a->v_stride);
}

/* attention_f32: the blocks of attention in f32, for every instruction set and either storage.
 *
 * Operands are widened to f32 when packed, so one set of products serves both. Vectors are GCC's vector
 * types, as wide as the instruction set's registers; a tile is 6 rows x 4 vectors with 32 registers, 6 x 2
 * with 16. Numerics: f32 throughout; exp2 to 1.4 units in the last place (vec.h). */
#include "ops/attention_tiles.h"
#include "ops/vec.h"

#if defined ISA_v4
enum { MOST = 4 }; // vectors of a tile
#else
enum { MOST = 2 };
#endif

/* ---- products */

INLINE void tile_of(int mr, int nv, const float *a, i64 am, i64 ak, const float *b, i64 ldb, float *c,
                    i64 ldc, i64 K, bool add)
{
    vector sum[6][MOST];
#pragma GCC unroll 6
    for (int m = 0; m < mr; m++)
#pragma GCC unroll 4
        for (int n = 0; n < nv; n++)
            sum[m][n] = add ? *(const vector *)(c + m * ldc + n * LANES) : (vector){0};
    for (i64 k = 0; k < K; k++, a += ak, b += ldb) {
        vector right[MOST];
#pragma GCC unroll 4
        for (int n = 0; n < nv; n++) right[n] = *(const vector *)(b + n * LANES);
#pragma GCC unroll 6
        for (int m = 0; m < mr; m++) {
            float left = a[m * am];
#pragma GCC unroll 4
            for (int n = 0; n < nv; n++) sum[m][n] += left * right[n];
        }
    }
#pragma GCC unroll 6
    for (int m = 0; m < mr; m++)
#pragma GCC unroll 4
        for (int n = 0; n < nv; n++) *(vector *)(c + m * ldc + n * LANES) = sum[m][n];
}

/* The shapes as constants: rows by vectors, for a left operand that lies by rows (ak = 1) or by columns. */
#define SHAPE(mr, nv, am, ak)                                                                                \
    case nv:                                                                                                 \
        tile_of(mr, MIN(nv, MOST), (const float *)a, am, ak, (const float *)b, p->ldb, c, p->ldc, K,         \
                p->add);                                                                                     \
        break;
#define SHAPES(mr, am, ak)                                                                                   \
    switch (nv) {                                                                                            \
        SHAPE(mr, 1, am, ak)                                                                                 \
        SHAPE(mr, 2, am, ak)                                                                                 \
        SHAPE(mr, 3, am, ak)                                                                                 \
        SHAPE(mr, 4, am, ak)                                                                                 \
    }
static void tile_by_rows(int mr, int nv, const product *p, const u32 *a, const u32 *b, float *c, i64 K)
{
    if (mr == 6)
        SHAPES(6, p->am, 1)
    else
        SHAPES(4, p->am, 1)
}
static void tile_by_columns(int mr, int nv, const product *p, const u32 *a, const u32 *b, float *c, i64 K)
{
    if (mr == 6)
        SHAPES(6, 1, p->ak)
    else
        SHAPES(4, 1, p->ak)
}
static void multiply(const product *p)
{
    for_tiles(p, 1, LANES, MOST, p->ak == 1 ? tile_by_rows : tile_by_columns);
}

/* ---- softmax */

/* Three passes over the rows: within a row, maximum, exponentials and sum wait for each other. */
static void softmax(const softmax_block *b)
{
    float alpha[BLOCK];
    const float factor = b->factor;
    for (i64 r = 0; r < b->rows; r++) {
        const float *s = b->s + r * WIDE;
        float max = b->max[r];
        i64 begin = MAX(b->first[r], 0), end = MIN(b->last[r] + 1, b->columns);
#pragma omp simd reduction(max : max)
        for (i64 j = begin; j < end; j++) max = s[j] > max ? s[j] : max;
        alpha[r] = vec_exp2((b->max[r] - max) * factor);
        b->max[r] = max;
    }
    for (i64 r = 0; r < b->rows; r++) {
        const float *s = b->s + r * WIDE, shift = b->max[r] * factor;
        float *p = (float *)b->p + r * WIDE, sum = 0;
        i64 begin = MAX(b->first[r], 0), end = MIN(b->last[r] + 1, b->columns);
        i64 cover = MAX(MIN(end + b->slack, b->columns), 0); // what a tile may read
        for (i64 j = 0; j < MIN(begin, cover); j++) p[j] = 0;
        for (i64 j = MAX(end, 0); j < cover; j++) p[j] = 0;
#pragma omp simd reduction(+ : sum)
        for (i64 j = begin; j < end; j++) {
            float y = vec_exp2(s[j] * factor - shift);
            p[j] = y;
            sum += y;
        }
        b->sum[r] = b->sum[r] * alpha[r] + sum;
    }
    for (i64 r = 0; r < b->rows && !b->fresh; r++) {
        float *o = b->o + r * b->ldo;
        for (i64 j = 0; j < b->ldo && alpha[r] != 1; j += LANES) *(loose *)(o + j) *= alpha[r];
    }
}

/* ---- backward: p and ds of a block */
static void scores(const score_block *b)
{
    float *s = b->work, *dp = s + BLOCK * BLOCK;
    trim trim = b->masked ? TRIM_COLUMNS : TRIM_NONE;
    multiply(&(product){b->queries, b->keys, b->words, b->q, b->ld, 1, b->k_panel, BLOCK, s, BLOCK, false,
                        trim, b->last[0]});
    multiply(&(product){b->queries, b->keys, b->words, b->d_o, b->ld, 1, b->v_panel, BLOCK, dp, BLOCK, false,
                        trim, b->last[0]});
    for (i64 r = 0; r < b->queries; r++, s += BLOCK, dp += BLOCK) {
        float *p = (float *)b->p + r * BLOCK, *ds = (float *)b->ds_pairs + r * BLOCK;
        i64 begin = b->masked ? MIN(MAX(b->first[r], 0), BLOCK) : 0;
        i64 end = b->masked ? MAX(MIN(b->last[r] + 1, BLOCK), begin) : BLOCK;
        const float factor = b->factor, lse = b->lse[r], delta = b->delta[r];
        for (i64 j = 0; j < begin; j++) p[j] = ds[j] = 0;
#pragma omp simd
        for (i64 j = begin; j < end; j++) {
            p[j] = vec_exp2(s[j] * factor - lse);
            ds[j] = p[j] * (dp[j] - delta);
        }
        for (i64 j = end; j < BLOCK; j++) p[j] = ds[j] = 0;
    }
}

/* ---- packing */

INLINE void widen_row(float *to, const void *from, dtype type, i64 width, i64 padded)
{
    i64 j = 0;
    for (; j + LANES <= width; j += LANES) *(loose *)(to + j) = load_values(from, type, j);
    for (; j < width; j++) to[j] = load_value(from, type, j);
    for (; j < padded; j++) to[j] = 0;
}
/* A word is one value: rows and pairs are the same layout. */
static void pack_rows(u32 *to, i64 ld, const void *const *row, dtype type, i64 width, float *work)
{
    (void)work;
    for (i64 r = 0; r < BLOCK; r++) widen_row((float *)to + r * ld, row[r], type, width, ld);
}
static void pack_panel(u32 *to, const void *const *row, dtype type, i64 width, float *work)
{
    i64 padded = round_up(width, 4);
    for (i64 r = 0; r < BLOCK; r++) widen_row(work + r * padded, row[r], type, width, padded);
    for (i64 j = 0; j < width; j += 4)
        for (i64 r = 0; r < BLOCK; r += 4) { // 4 x 4 transposed
            const float *x = work + r * padded + j;
            four a = *(const four *)x, b = *(const four *)(x + padded);
            four c = *(const four *)(x + 2 * padded), d = *(const four *)(x + 3 * padded);
            four ab = __builtin_shufflevector(a, b, 0, 4, 1, 5),
                 AB = __builtin_shufflevector(a, b, 2, 6, 3, 7);
            four cd = __builtin_shufflevector(c, d, 0, 4, 1, 5),
                 CD = __builtin_shufflevector(c, d, 2, 6, 3, 7);
            four y[4] = {
                __builtin_shufflevector(ab, cd, 0, 1, 4, 5), __builtin_shufflevector(ab, cd, 2, 3, 6, 7),
                __builtin_shufflevector(AB, CD, 0, 1, 4, 5), __builtin_shufflevector(AB, CD, 2, 3, 6, 7)};
            for (int i = 0; i < 4; i++)
                if (j + i < width) *(four *)((float *)to + (j + i) * BLOCK + r) = y[i];
        }
}

const attention_blocks OP_JOIN(attention_, f32_blocks, ISA) = {1,         multiply,   softmax,  scores,
                                                               pack_rows, pack_panel, pack_rows};

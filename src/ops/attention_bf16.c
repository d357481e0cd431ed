/* attention_bf16: the blocks of attention with AVX512-BF16 (vdpbf16ps: two bf16 products added to an f32).
 *
 * Tiles of 6 rows x 4 vectors: 24 sums, 4 right operands and a broadcast pair fill the 32 registers, 10 loads
 * feed 24 multiplications. The backward tile of 4 queries x 32 keys keeps q.k and do.v in registers through
 * the exponential and writes p and ds as the left operands of the products that follow. Numerics: sums in f32
 * (subnormals flushed by the instruction), p and ds rounded to bf16. */
#include "ops/attention_tiles.h"

#ifdef ISA_v4
/* ---- products */

INLINE void tile_of(int mr, int nv, const u32 *a, i64 am, i64 ak, const u32 *b, i64 ldb, float *c, i64 ldc,
                    i64 K, bool add)
{
    __m512 sum[6][4];
#pragma GCC unroll 6
    for (int m = 0; m < mr; m++)
#pragma GCC unroll 4
        for (int n = 0; n < nv; n++)
            sum[m][n] = add ? _mm512_load_ps(c + m * ldc + n * 16) : _mm512_setzero_ps();
    for (i64 k = 0; k < K; k++, a += ak, b += ldb) {
        __m512i right[4];
#pragma GCC unroll 4
        for (int n = 0; n < nv; n++) right[n] = _mm512_load_si512(b + n * 16);
#pragma GCC unroll 6
        for (int m = 0; m < mr; m++) {
            __m512i left = _mm512_set1_epi32((int)a[m * am]);
#pragma GCC unroll 4
            for (int n = 0; n < nv; n++)
                sum[m][n] = _mm512_dpbf16_ps(sum[m][n], (__m512bh)left, (__m512bh)right[n]);
        }
    }
#pragma GCC unroll 6
    for (int m = 0; m < mr; m++)
#pragma GCC unroll 4
        for (int n = 0; n < nv; n++) _mm512_store_ps(c + m * ldc + n * 16, sum[m][n]);
}

/* The shapes as constants: rows by vectors, for a left operand that lies by rows (ak = 1) or by columns. */
#define SHAPE(mr, nv, am, ak)                                                                                \
    case nv:                                                                                                 \
        tile_of(mr, nv, a, am, ak, b, p->ldb, c, p->ldc, K, p->add);                                         \
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
    for_tiles(p, 2, 16, 4, p->ak == 1 ? tile_by_rows : tile_by_columns);
}

/* ---- softmax */

/* 2^x to 3e-6: polynomial on the fraction, exponent by vscalef (which takes the floor). 0 far below, NaN
 * stays. */
INLINE __m512 exp2_vector(__m512 x)
{
    __m512 f = _mm512_reduce_ps(x, 1);
    __m512 y = _mm512_fmadd_ps(_mm512_set1_ps(1.353416791e-02f), f, _mm512_set1_ps(5.201146062e-02f));
    y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(2.414427569e-01f));
    y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(6.930038345e-01f));
    y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(1.000002593e+00f));
    return _mm512_scalef_ps(y, x);
}
/* Lanes j .. j + 15 of the columns [begin, end). */
INLINE __mmask16 lanes(i64 j, i64 begin, i64 end)
{
    u32 below = end - j >= 16 ? 0xFFFF : end > j ? (1u << (end - j)) - 1 : 0;
    u32 under = begin - j >= 16 ? 0xFFFF : begin > j ? (1u << (begin - j)) - 1 : 0;
    return (__mmask16)(below & ~under);
}
INLINE __m512i round_two(__m512 low, __m512 high) { return (__m512i)_mm512_cvtne2ps_pbh(high, low); }

/* Probabilities of a row; returns their sum in lanes. */
INLINE __m512 exponentials(const float *s, u32 *p, i64 begin, i64 end, i64 cover, float factor, float shift)
{
    __m512 f = _mm512_set1_ps(factor), mean = _mm512_set1_ps(shift), sum = _mm512_setzero_ps();
    i64 j = 0;
    for (; begin <= j && j + 32 <= end; j += 32) {
        __m512 low = exp2_vector(_mm512_fmsub_ps(_mm512_load_ps(s + j), f, mean));
        __m512 high = exp2_vector(_mm512_fmsub_ps(_mm512_load_ps(s + j + 16), f, mean));
        sum = _mm512_add_ps(sum, _mm512_add_ps(low, high));
        _mm512_store_si512(p + j / 2, round_two(low, high));
    }
    for (; j < cover; j += 32) {
        __mmask16 mask[2] = {lanes(j, begin, end), lanes(j + 16, begin, end)};
        __m512 low = exp2_vector(_mm512_fmsub_ps(_mm512_maskz_load_ps(mask[0], s + j), f, mean));
        __m512 high = exp2_vector(_mm512_fmsub_ps(_mm512_maskz_load_ps(mask[1], s + j + 16), f, mean));
        low = _mm512_maskz_mov_ps(mask[0], low), high = _mm512_maskz_mov_ps(mask[1], high);
        sum = _mm512_add_ps(sum, _mm512_add_ps(low, high));
        _mm512_store_si512(p + j / 2, round_two(low, high));
    }
    return sum;
}
/* The largest of START and the visible scores. */
INLINE float largest(const float *s, i64 begin, i64 end, float start)
{
    __m512 max = _mm512_set1_ps(start);
    i64 j = 0;
    for (; begin <= j && j + 16 <= end; j += 16) max = _mm512_max_ps(_mm512_load_ps(s + j), max);
    for (; j < end; j += 16) {
        __mmask16 mask = lanes(j, begin, end);
        max = _mm512_mask_max_ps(max, mask, _mm512_maskz_load_ps(mask, s + j), max);
    }
    return _mm512_reduce_max_ps(max);
}
/* Three passes over the rows: within a row, maximum, exponentials and sum wait for each other. */
static void softmax(const softmax_block *b)
{
    float alpha[BLOCK];
    for (i64 r = 0; r < b->rows; r++) {
        float max = largest(b->s + r * WIDE, MAX(b->first[r], 0), MIN(b->last[r] + 1, b->columns), b->max[r]);
        alpha[r] = (b->max[r] - max) * b->factor;
        b->max[r] = max;
    }
    for (i64 r = 0; r < b->rows; r += 16) {
        __m512 x = _mm512_loadu_ps(alpha + r), one = _mm512_set1_ps(1); // exactly 1 where the maximum stayed
        __m512 a =
            _mm512_mask_mov_ps(exp2_vector(x), _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_EQ_OQ), one);
        _mm512_storeu_ps(alpha + r, a);
        _mm512_store_ps(b->sum + r, _mm512_mul_ps(_mm512_load_ps(b->sum + r), a));
    }
    for (i64 r = 0; r < b->rows; r++) {
        i64 begin = MAX(b->first[r], 0), end = MIN(b->last[r] + 1, b->columns);
        i64 cover = MIN(round_up(MAX(MIN(end + b->slack, b->columns), 0), 32), WIDE); // what a tile may read
        __m512 sum = exponentials(b->s + r * WIDE, b->p + r * (WIDE / 2), begin, end, cover, b->factor,
                                  b->max[r] * b->factor);
        b->sum[r] += _mm512_reduce_add_ps(sum);
    }
    for (i64 r = 0; r < b->rows && !b->fresh; r++) {
        float *o = b->o + r * b->ldo;
        for (i64 j = 0; j < b->ldo && alpha[r] != 1; j += 16)
            _mm512_store_ps(o + j, _mm512_mul_ps(_mm512_load_ps(o + j), _mm512_set1_ps(alpha[r])));
    }
}

/* ---- backward: p and ds of a block */

INLINE void store_pairs(u32 *to, __m512 even, __m512 odd)
{
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23,
                                           7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    _mm512_store_si512(to, _mm512_permutexvar_epi16(order, round_two(even, odd)));
}
/* 4 queries from r, 32 keys from j. */
INLINE void score_tile(const score_block *b, i64 r, i64 j, bool masked)
{
    __m512 s[4][2], dp[4][2];
    const u32 *q = b->q + r * b->ld, *d_o = b->d_o + r * b->ld, *k = b->k_panel + j, *v = b->v_panel + j;
#pragma GCC unroll 4
    for (int m = 0; m < 4; m++)
        for (int n = 0; n < 2; n++) s[m][n] = dp[m][n] = _mm512_setzero_ps();
    for (i64 w = 0; w < b->words; w++, k += BLOCK, v += BLOCK) {
        __m512bh k0 = (__m512bh)_mm512_load_si512(k), k1 = (__m512bh)_mm512_load_si512(k + 16);
        __m512bh v0 = (__m512bh)_mm512_load_si512(v), v1 = (__m512bh)_mm512_load_si512(v + 16);
#pragma GCC unroll 4
        for (int m = 0; m < 4; m++) {
            __m512bh left = (__m512bh)_mm512_set1_epi32((int)q[m * b->ld + w]);
            __m512bh side = (__m512bh)_mm512_set1_epi32((int)d_o[m * b->ld + w]);
            s[m][0] = _mm512_dpbf16_ps(s[m][0], left, k0);
            s[m][1] = _mm512_dpbf16_ps(s[m][1], left, k1);
            dp[m][0] = _mm512_dpbf16_ps(dp[m][0], side, v0);
            dp[m][1] = _mm512_dpbf16_ps(dp[m][1], side, v1);
        }
    }
    __m512 factor = _mm512_set1_ps(b->factor);
#pragma GCC unroll 4
    for (int m = 0; m < 4; m++) {
        __m512 lse = _mm512_set1_ps(b->lse[r + m]), delta = _mm512_set1_ps(b->delta[r + m]);
#pragma GCC unroll 2
        for (int n = 0; n < 2; n++) {
            __m512 p = exp2_vector(_mm512_fmsub_ps(s[m][n], factor, lse));
            __m512 ds = _mm512_mul_ps(p, _mm512_sub_ps(dp[m][n], delta));
            __mmask16 mask = masked ? lanes(j + 16 * n, b->first[r + m], b->last[r + m] + 1) : 0xFFFF;
            s[m][n] = masked ? _mm512_maskz_mov_ps(mask, p) : p;
            dp[m][n] = masked ? _mm512_maskz_mov_ps(mask, ds) : ds;
        }
        _mm512_store_si512(b->ds_rows + (r + m) * (BLOCK / 2) + j / 2, round_two(dp[m][0], dp[m][1]));
    }
#pragma GCC unroll 2
    for (int m = 0; m < 4; m += 2)
#pragma GCC unroll 2
        for (int n = 0; n < 2; n++) {
            i64 at = (r + m) / 2 * BLOCK + j + 16 * n;
            store_pairs(b->p + at, s[m][n], s[m + 1][n]);
            store_pairs(b->ds_pairs + at, dp[m][n], dp[m + 1][n]);
        }
}
static void zero_tile(const score_block *b, i64 r, i64 j)
{
    const __m512i zero = _mm512_setzero_si512();
    for (i64 m = 0; m < 4; m++) _mm512_store_si512(b->ds_rows + (r + m) * (BLOCK / 2) + j / 2, zero);
    for (i64 m = 0; m < 4; m += 2)
        for (i64 n = 0; n < 32; n += 16) {
            _mm512_store_si512(b->p + (r + m) / 2 * BLOCK + j + n, zero);
            _mm512_store_si512(b->ds_pairs + (r + m) / 2 * BLOCK + j + n, zero);
        }
}
static void scores(const score_block *b)
{
    for (i64 j = 0; j < b->keys; j += 32)
        for (i64 r = 0; r < b->queries; r += 4) {
            bool seen = false, whole = true;
            for (i64 m = r; m < r + 4 && b->masked; m++) {
                seen |= b->first[m] < j + 32 && b->last[m] >= j;
                whole &= b->first[m] <= j && b->last[m] >= j + 31;
            }
            if (!b->masked || whole)
                score_tile(b, r, j, false);
            else if (seen)
                score_tile(b, r, j, true);
            else
                zero_tile(b, r, j);
        }
}

/* ---- packing */

/* 32 values, or what is LEFT and then zeros. */
INLINE __m512i load_32(const bf16 *p, i64 left)
{
    if (left >= 32) return _mm512_loadu_si512(p);
    return _mm512_maskz_loadu_epi16((1u << left) - 1, p);
}
static void pack_rows(u32 *to, i64 ld, const void *const *row, dtype type, i64 width, float *work)
{
    (void)type, (void)work;
    for (i64 r = 0; r < BLOCK; r++)
        for (i64 j = 0; j < width; j += 32)
            _mm512_store_si512(to + r * ld + j / 2, load_32((const bf16 *)row[r] + j, width - j));
}
/* 16 rows of 16 words in place, transposed. */
INLINE void transpose(__m512i x[16])
{
    __m512i y[16];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        y[2 * i] = _mm512_unpacklo_epi32(x[2 * i], x[2 * i + 1]);
        y[2 * i + 1] = _mm512_unpackhi_epi32(x[2 * i], x[2 * i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        x[4 * i] = _mm512_unpacklo_epi64(y[4 * i], y[4 * i + 2]);
        x[4 * i + 1] = _mm512_unpackhi_epi64(y[4 * i], y[4 * i + 2]);
        x[4 * i + 2] = _mm512_unpacklo_epi64(y[4 * i + 1], y[4 * i + 3]);
        x[4 * i + 3] = _mm512_unpackhi_epi64(y[4 * i + 1], y[4 * i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) { // x[4 g + i]: rows 4 g .. of words i, 4 + i, 8 + i, 12 + i
        __m512i a = _mm512_shuffle_i32x4(x[i], x[4 + i], 0x88),
                b = _mm512_shuffle_i32x4(x[8 + i], x[12 + i], 0x88);
        __m512i c = _mm512_shuffle_i32x4(x[i], x[4 + i], 0xDD),
                d = _mm512_shuffle_i32x4(x[8 + i], x[12 + i], 0xDD);
        y[i] = _mm512_shuffle_i32x4(a, b, 0x88);
        y[8 + i] = _mm512_shuffle_i32x4(a, b, 0xDD);
        y[4 + i] = _mm512_shuffle_i32x4(c, d, 0x88);
        y[12 + i] = _mm512_shuffle_i32x4(c, d, 0xDD);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) x[i] = y[i];
}
static void pack_panel(u32 *to, const void *const *row, dtype type, i64 width, float *work)
{
    (void)type, (void)work;
    for (i64 j = 0; j < width; j += 32) {
        i64 words = MIN((width - j + 1) / 2, 16);
        for (i64 r = 0; r < BLOCK; r += 16) {
            __m512i x[16];
#pragma GCC unroll 16
            for (int i = 0; i < 16; i++) x[i] = load_32((const bf16 *)row[r + i] + j, width - j);
            transpose(x);
#pragma GCC unroll 16
            for (int i = 0; i < 16; i++)
                if (i < words) _mm512_store_si512(to + (j / 2 + i) * BLOCK + r, x[i]);
        }
    }
}
static void pack_pairs(u32 *to, i64 ld, const void *const *row, dtype type, i64 width, float *work)
{
    (void)type, (void)work;
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7,
                                         38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    for (i64 r = 0; r < BLOCK; r += 2)
        for (i64 j = 0; j < ld; j += 32) {
            __m512i a = load_32((const bf16 *)row[r] + j, width - j);
            __m512i b = load_32((const bf16 *)row[r + 1] + j, width - j);
            u32 *at = to + r / 2 * ld + j;
            _mm512_store_si512(at, _mm512_permutex2var_epi16(a, low, b));
            if (j + 16 < ld) _mm512_store_si512(at + 16, _mm512_permutex2var_epi16(a, high, b));
        }
}

static const attention_blocks blocks = {2, multiply, softmax, scores, pack_rows, pack_panel, pack_pairs};
const attention_blocks *const attention_bf16_blocks_v4 = &blocks;
#else
const attention_blocks *const OP_JOIN(attention_, bf16_blocks, ISA) = NULL;
#endif

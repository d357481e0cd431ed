/* gemm_widen: see gemm_widen.h. Stored rows are widened whole and dense, so the f32 plan keeps the
 * transposes. */
#include "device/gemm_widen.h"
#include <string.h>

static float widened(u16 h)
{
    u32 bits = (u32)h << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static u16 rounded(float x) // to nearest, ties to even; NaN stays NaN
{
    u32 bits;
    memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7fffffff) > 0x7f800000) return (u16)(bits >> 16 | 0x40);
    return (u16)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

void gemm_widen_layout(const gemm_spec *s, gemm_widen *w)
{
    *w = (gemm_widen){0};
    w->a = (gemm_block){s->a_trans ? s->k : s->m, s->a_trans ? s->m : s->k, 0};
    w->b = (gemm_block){s->b_trans ? s->n : s->k, s->b_trans ? s->k : s->n, 0};
    if (s->c == GEMM_BF16) w->c = (gemm_block){s->m, s->n, 0};
    if (s->bias == GEMM_BIAS_BF16) w->bias = (gemm_block){1, s->n, 0};
    gemm_block *const all[] = {&w->a, &w->b, &w->c, &w->bias};
    for (i64 i = 0; i < COUNT(all); i++) {
        all[i]->at = w->bytes;
        w->bytes = round_up(w->bytes + 4 * all[i]->rows * all[i]->cols, 64);
    }
}

static void widen_row(float *to, const u16 *from, i64 n)
{
    for (i64 j = 0; j < n; j++) to[j] = widened(from[j]);
}

static void round_row(u16 *to, const float *from, i64 n)
{
    for (i64 j = 0; j < n; j++) to[j] = rounded(from[j]);
}

/* Serial plans run inside a region already: there no team may be opened, not even one switched off by `if`.
 */
static float *widen(const gemm_block *to, i64 rows, i64 cols, const u16 *from, i64 ld, bool serial,
                    void *scratch)
{
    float *out = (float *)((char *)scratch + to->at);
    if (serial) {
        for (i64 r = 0; r < rows; r++) widen_row(out + r * to->cols, from + r * ld, cols);
        return out;
    }
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < rows; r++) widen_row(out + r * to->cols, from + r * ld, cols);
    return out;
}

gemm_widened gemm_widen_in(const gemm_widen *w, const gemm_spec *s, i64 rows, const void *a, const void *b,
                           const void *c, const void *bias, void *scratch)
{
    gemm_widened out = {.c = (void *)c, .bias = bias};
    i64 a_rows = s->a_trans ? s->k : rows, a_cols = s->a_trans ? rows : s->k;
    i64 b_rows = s->b_trans ? s->n : s->k,
        b_cols = s->b_trans ? s->k : s->n; // S.k may be less than W was laid for
    out.a = widen(&w->a, a_rows, a_cols, a, s->lda, s->serial, scratch);
    out.b = widen(&w->b, b_rows, b_cols, b, s->ldb, s->serial, scratch);
    if (s->bias == GEMM_BIAS_BF16) out.bias = widen(&w->bias, 1, s->n, bias, s->n, true, scratch);
    if (s->c == GEMM_F32) return out;
    out.c = (char *)scratch + w->c.at;
    if (s->accumulate) widen(&w->c, rows, s->n, c, s->ldc, s->serial, scratch);
    return out;
}

void gemm_widen_out(const gemm_spec *s, i64 rows, const gemm_widened *w, void *c)
{
    if (s->c == GEMM_F32) return;
    const float *from = w->c;
    u16 *to = c;
    if (s->serial) {
        for (i64 r = 0; r < rows; r++) round_row(to + r * s->ldc, from + r * s->n, s->n);
        return;
    }
#pragma omp parallel for schedule(static)
    for (i64 r = 0; r < rows; r++) round_row(to + r * s->ldc, from + r * s->n, s->n);
}

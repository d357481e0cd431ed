/* attention_tiles: the loop over register tiles that both kinds of product share. Included by the block
 * files.
 *
 * A tile is 6 (or, at the end, 4) rows by up to `most` vectors of `lanes` columns; TILE computes one:
 *     c [mr, nv lanes] (+)= a [mr, K] b [K, nv lanes] */
#pragma once
#include "ops/attention_blocks.h"

typedef void tile_function(int mr, int nv, const product *p, const u32 *a, const u32 *b, float *c, i64 K);

static inline __attribute__((always_inline)) void for_tiles(const product *p, int pair, int lanes, int most,
                                                            tile_function *tile)
{
    i64 vectors = (p->N + lanes - 1) / lanes, chunks = (vectors + most - 1) / most;
    for (i64 chunk = 0; chunk < chunks; chunk++) {
        i64 v0 = vectors * chunk / chunks,
            v1 = vectors * (chunk + 1) / chunks; // even chunks: 5 is 2 + 3, not 4 + 1
        for (i64 m = 0; m < p->M;) {
            int mr = p->M - m > 4 ? 6 : 4;
            i64 k0 = 0, k1 = p->K, nv = v1 - v0, limit = p->diagonal + m + mr;
            if (p->trim == TRIM_COLUMNS) {
                i64 seen = (MAX(limit, 0) + lanes - 1) / lanes - v0;
                nv = MIN(nv, seen);
            } else if (p->trim == TRIM_END) {
                k1 = MIN(k1, (MAX(limit, 0) + pair - 1) / pair);
            } else if (p->trim == TRIM_BEGIN) {
                k0 = MIN(k1, MAX(p->diagonal + m, 0) / pair);
            }
            if (nv > 0)
                tile(mr, (int)nv, p, p->a + m * p->am + k0 * p->ak, p->b + k0 * p->ldb + v0 * lanes,
                     p->c + m * p->ldc + v0 * lanes, k1 - k0);
            m += mr;
        }
    }
}

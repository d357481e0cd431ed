/* philox_rows: random words for the elements of a row, many blocks at a time.
 *
 *     u32 buffer[4 * PHILOX_BLOCKS];                     // of elements e, e + 1, ..: word e mod 4 of block e
 * / 4 philox_draw(buffer, random_key(seed, stream), e / 4, step, blocks);
 *
 * Plain C over 64 counters at a time, which the compiler vectorises; base/random.c, which definitions call,
 * draws the same words one block at a time. */
#pragma once
#include "base/base.h"

enum { PHILOX_BLOCKS = 64 }; // blocks drawn at a time: 256 words

/* Blocks FIRST ... of Philox 4x32-10 under KEY in step STEP, N at most PHILOX_BLOCKS. */
static inline void philox_draw(u32 *restrict word, u64 key, u64 first, u64 step, i64 n)
{
#pragma omp simd
    for (i64 i = 0; i < n; i++) {
        u64 low = first + (u64)i;
        u32 a = (u32)low, b = (u32)(low >> 32), c = (u32)step, d = (u32)(step >> 32);
        u32 k0 = (u32)key, k1 = (u32)(key >> 32);
#pragma GCC unroll 10
        for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
            u64 p = (u64)a * 0xD2511F53u, q = (u64)c * 0xCD9E8D57u;
            a = (u32)(q >> 32) ^ b ^ k0;
            c = (u32)(p >> 32) ^ d ^ k1;
            b = (u32)q;
            d = (u32)p;
        }
        word[4 * i] = a;
        word[4 * i + 1] = b;
        word[4 * i + 2] = c;
        word[4 * i + 3] = d;
    }
}

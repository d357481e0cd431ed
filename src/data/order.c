/* The order of samples: a keyed permutation of [0, n).
 *
 * A balanced Feistel network over 2h bits, the smallest even number with 2^(2h) >= n, permutes [0, 4^h):
 *
 *     (L, R) -> (R, L xor F(R)),  F = h bits of Philox keyed by (seed, epoch, round)       ROUNDS times
 *
 * and cycle-walking (apply it again until the result is below n) turns that into a permutation of [0, n), in
 * fewer than 4 applications on average, because 4^h < 4n.
 *
 * Source:  Luby and Rackoff, "How to construct pseudorandom permutations", 1988 (four rounds suffice for
 *          pseudo-randomness; eight are used because h is small); cycle-walking: Black and Rogaway,
 *          "Ciphers with arbitrary finite domains", CT-RSA 2002.
 */
#include "data/order.h"
#include "base/random.h"
#include <assert.h>

enum { ROUNDS = 8 };

i64 order_at(u64 seed, i64 epoch, i64 n, i64 i)
{
    assert(n >= 1 && n < (i64)1 << 62 && i >= 0 && i < n && epoch >= 0);
    if (n == 1) return 0;
    int h = 1;
    while ((i64)1 << (2 * h) < n) h++;
    const u64 mask = ((u64)1 << h) - 1, stream = random_stream("data/order");
    u64 x = (u64)i;
    do {
        u64 left = x >> h, right = x & mask;
        for (u64 round = 0; round < ROUNDS; round++) {
            u64 f = random_bits(seed, stream, (u64)epoch * ROUNDS + round, right) & mask;
            u64 was = right;
            right = left ^ f;
            left = was;
        }
        x = left << h | right;
    } while (x >= (u64)n);
    return (i64)x;
}

/* order: the shuffled order of an epoch, computed and never stored.
 *
 *     for (i64 i = 0; i < n; i++)
 *         visit(order_at(seed, epoch, n, i));      // every sample of [0, n) once, another order each epoch
 */
#pragma once
#include "base/base.h"

/* Where index I of [0, n) stands in the order of EPOCH (>= 0): a bijection of [0, n) for every (seed, epoch).
 * 1 <= n < 2^62. A microsecond; depends on its arguments only. */
i64 order_at(u64 seed, i64 epoch, i64 n, i64 i);

/* random: counter-based random numbers (Philox 4x32-10; Salmon et al., "Parallel random numbers: as easy as
 * 1, 2, 3", SC 2011). A number depends on (seed, stream, step, index) only, never on the order of calls.
 *
 *     u64 stream = random_stream("dropout/blocks.3.attention");   // hash of purpose and path
 *     float u = random_uniform(seed, stream, step, i);            // in [0, 1)
 */
#pragma once
#include "base/base.h"

typedef struct philox {
    u32 v[4];
} philox;
philox philox4x32(u64 key, u64 counter_low, u64 counter_high);
u64 random_stream(const char *name);  // 64-bit FNV-1a, finalised
u64 random_key(u64 seed, u64 stream); // for philox4x32(key, index, step), four 32-bit numbers at once
u64 random_bits(u64 seed, u64 stream, u64 step, u64 index);
double random_uniform(u64 seed, u64 stream, u64 step, u64 index); // [0, 1), 53 bits
double random_normal(u64 seed, u64 stream, u64 step, u64 index);  // N(0, 1), Box-Muller in double
/* N(0, 1) conditioned on |x| <= bound (bound > 0); rejection over successive sub-counters. */
double random_truncated_normal(u64 seed, u64 stream, u64 step, u64 index, double bound);

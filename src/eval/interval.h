/* interval: how far a figure that was measured on a sample may be off.
 *
 *     interval p = wilson(29, 100);                      // [0.2099, 0.3852], of a share of 0.29
 *     ratio r = bootstrap_ratio(nats, bytes, windows);   // r.value = sum nats / sum bytes, r.error, r.range
 *
 * Both ranges are for 95 %. They say what another sample of the same kind of text or question would give;
 * nothing of another seed of training, which often moves more. */
#pragma once
#include "base/base.h"

typedef struct interval {
    double low, high;
} interval;

/* Of the share HITS / N (N >= 1): never outside of 0 ... 1, and sensible for no hit and for all, where the
 * standard error is 0 (Wilson, J. Am. Stat. Assoc. 22, 1927). */
interval wilson(i64 hits, i64 n);

typedef struct ratio {
    double value, error; // error: standard deviation over resamples; NaN where N < 2
    interval range;      // percentiles 2.5 and 97.5 of the resamples
} ratio;
/* Sum x / sum w over N blocks, resampled with replacement 1,000 times (Efron, Ann. Stat. 7, 1979). Neighbours
 * are taken together where there are more than 1,000 blocks: what lies side by side in a text is alike, and
 * resampling its smallest parts would make the error too small. The draws are always the same. */
ratio bootstrap_ratio(const double *x, const double *w, i64 n);

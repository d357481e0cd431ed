/* Turns of the sources of a mixture: see quota.h. All in whole numbers, so that every machine takes the same
 * turns. */
#include "data/quota.h"
#include <math.h>
#include <string.h>

status quota_open(const double *weight, i64 n, quota *out)
{
    *out = (quota){.n = n};
    if (n < 1 || n > QUOTA_SOURCES)
        return fail(ERR_CONFIG, "a mixture of %lld sources; it must have 1 to %d", (long long)n,
                    QUOTA_SOURCES);
    double sum = 0;
    for (i64 j = 0; j < n; j++) sum += weight[j];
    i64 left = QUOTA_UNITS, largest = 0;
    for (i64 j = 0; j < n; j++) {
        if (!(weight[j] > 0) || !(sum < INFINITY) || !(weight[j] / sum * QUOTA_UNITS >= 0.5))
            return fail(ERR_CONFIG,
                        "weight %lld of the mixture is %g of %g in all; it must be at least a millionth",
                        (long long)j + 1, weight[j], sum);
        out->unit[j] = llround(weight[j] / sum * QUOTA_UNITS);
        left -= out->unit[j];
        if (out->unit[j] > out->unit[largest]) largest = j;
    }
    out->unit[largest] += left; // what rounding lost or found, at most half a unit a source
    return OK;
}

/* Whose turn it is now. In units of 1 / (QUOTA_UNITS (2k - 2)): numbers stay below 2^63 for 64 sources. */
static i64 turn(const quota *q)
{
    if (q->n == 1) return 0;
    const i64 scale = 2 * q->n - 2;
    i64 best = -1, best_gap = 0;
    for (i64 j = 0; j < q->n; j++) {
        const i64 due = (q->unit[j] * (q->index + 1) - q->used[j] * QUOTA_UNITS) * scale;
        if (due < QUOTA_UNITS) continue;
        const i64 gap = QUOTA_UNITS * (scale - 1) - due;
        if (best < 0 || (__int128)gap * q->unit[best] < (__int128)best_gap * q->unit[j])
            best = j, best_gap = gap;
    }
    return best;
}

void quota_at(quota *q, i64 index, i64 *source, i64 *nth)
{
    const i64 rounds = index / QUOTA_UNITS, at = index % QUOTA_UNITS; // a round is a million turns
    if (at < q->index) {
        memset(q->used, 0, sizeof q->used);
        q->index = 0;
    }
    for (; q->index < at; q->index++) q->used[turn(q)]++;
    *source = turn(q);
    *nth = rounds * q->unit[*source] + q->used[*source];
}

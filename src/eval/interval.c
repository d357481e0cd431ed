/* interval: see interval.h. */
#include "eval/interval.h"
#include "base/random.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double Z = 1.959963984540054; // the normal distribution's 97.5 % point
enum { RESAMPLES = 1000, MOST_BLOCKS = 1000 };

interval wilson(i64 hits, i64 n)
{
    double p = (double)hits / (double)n, z2 = Z * Z / (double)n;
    double middle = (p + z2 / 2) / (1 + z2);
    double half = Z / (1 + z2) * sqrt(p * (1 - p) / (double)n + z2 / (4 * (double)n));
    // the ends are 0 and 1 exactly where nothing, or all, was hit
    return (interval){hits ? middle - half : 0, hits < n ? middle + half : 1};
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Adds the N of X up into COUNT groups of neighbours. */
static void group(const double *x, i64 n, double *out, i64 count)
{
    memset(out, 0, sizeof *out * (size_t)count);
    for (i64 i = 0; i < n; i++) out[i * count / n] += x[i];
}

ratio bootstrap_ratio(const double *x, const double *w, i64 n)
{
    double top[MOST_BLOCKS], bottom[MOST_BLOCKS], found[RESAMPLES], mean = 0, squares = 0, xs = 0, ws = 0;
    const i64 blocks = MIN(n, MOST_BLOCKS);
    const u64 stream = random_stream("bootstrap");
    for (i64 i = 0; i < n; i++) xs += x[i], ws += w[i];
    if (blocks < 2) return (ratio){xs / ws, NAN, {NAN, NAN}};
    group(x, n, top, blocks);
    group(w, n, bottom, blocks);
    for (i64 r = 0; r < RESAMPLES; r++) {
        double a = 0, b = 0;
        for (i64 i = 0; i < blocks; i++) {
            i64 k = (i64)(random_uniform(0, stream, (u64)r, (u64)i) * (double)blocks);
            a += top[k], b += bottom[k];
        }
        found[r] = a / b;
        mean += found[r] / RESAMPLES;
    }
    for (i64 r = 0; r < RESAMPLES; r++) squares += (found[r] - mean) * (found[r] - mean);
    qsort(found, RESAMPLES, sizeof *found, by_value);
    return (ratio){xs / ws, sqrt(squares / (RESAMPLES - 1)), {found[24], found[974]}};
}

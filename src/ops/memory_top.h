/* memory_top: the M largest of a row of scores, in descending order, ties to the lower index; shared by the
 * kernels that search product keys.
 *
 *     top_list t = {values, ids, m, 0};
 *     top_scan(&t, scores, n, 0);                 // scores[i] has the index i
 *
 * Whatever the scores hold (NaN too), the indices are m different ones of [0, n). */
#pragma once
#include "ops/op.h"
#include <math.h>

typedef struct top_list {
    float *value;
    i32 *id;
    i64 most, n; // n: entries so far
} top_list;

static inline float top_threshold(const top_list *t)
{
    return t->n < t->most ? -INFINITY : t->value[t->most - 1];
}

static inline void top_offer(top_list *t, float x, i32 id)
{
    i64 k = t->n;
    if (k == t->most) {
        bool enters = x > t->value[k - 1] || (x == t->value[k - 1] && id < t->id[k - 1]);
        if (!enters) return;
        k--;
    } else
        t->n++;
    for (; k > 0 && (x > t->value[k - 1] || (x == t->value[k - 1] && id < t->id[k - 1])); k--) {
        t->value[k] = t->value[k - 1];
        t->id[k] = t->id[k - 1];
    }
    t->value[k] = x;
    t->id[k] = id;
}

/* Offers x[i] as index FIRST + i. Blocks that hold nothing above the threshold are passed over at once (their
 * ties lose to the lower indices already there). */
static inline void top_scan(top_list *t, const float *x, i64 n, i32 first)
{
    enum { BLOCK = 16 };
    for (i64 at = 0; at < n; at += BLOCK) {
        i64 end = MIN(at + BLOCK, n);
        float best = -INFINITY;
#pragma omp simd reduction(max : best)
        for (i64 i = at; i < end; i++) best = best > x[i] ? best : x[i];
        if (t->n == t->most && !(best > top_threshold(t))) continue;
        for (i64 i = at; i < end; i++) top_offer(t, x[i], first + (i32)i);
    }
}

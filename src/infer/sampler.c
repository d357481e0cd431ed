/* Drawing a token: see sampler.h. */
#include "infer/sampler.h"
#include "base/random.h"
#include <math.h>
#include <stdlib.h>

status sampler_check(const sampler *s)
{
    if (!(s->temperature >= 0 && s->temperature <= 100))
        return fail(ERR_USAGE, "temperature is %g; it must be between 0 and 100", s->temperature);
    if (!(s->top_p >= 0 && s->top_p <= 1))
        return fail(ERR_USAGE, "top-p is %g; it must be between 0 and 1", s->top_p);
    if (!(s->min_p >= 0 && s->min_p <= 1))
        return fail(ERR_USAGE, "min-p is %g; it must be between 0 and 1", s->min_p);
    if (s->top_k < 0)
        return fail(ERR_USAGE, "top-k is %lld; it must be at least 0 (0: all)", (long long)s->top_k);
    return OK;
}

static int likelier_first(const void *a, const void *b)
{
    const scored *x = a, *y = b;
    if (x->logit != y->logit) return (x->logit < y->logit) - (x->logit > y->logit);
    return (x->id > y->id) - (x->id < y->id);
}

static i32 likeliest(const float *logits, i64 vocab)
{
    i32 best = 0;
    for (i64 i = 1; i < vocab; i++)
        if (logits[i] > logits[best]) best = (i32)i;
    return best;
}

i32 sampler_draw(const sampler *s, const float *logits, i64 vocab, i64 index, scored *sorted)
{
    if (s->temperature == 0 || s->top_k == 1) return likeliest(logits, vocab);
    double total = 0, kept = 0, before = 0;
    i64 n = 0;
    for (i64 i = 0; i < vocab; i++) sorted[i] = (scored){logits[i], (i32)i};
    qsort(sorted, (size_t)vocab, sizeof *sorted, likelier_first);
    i64 most = s->top_k > 0 ? MIN(s->top_k, vocab) : vocab;
    for (i64 i = 0; i < most; i++) total += exp((sorted[i].logit - sorted[0].logit) / s->temperature);
    for (; n < most; n++) {
        double p = exp((sorted[n].logit - sorted[0].logit) / s->temperature);
        if (n && ((s->top_p > 0 && s->top_p < 1 && before >= s->top_p * total) || p < s->min_p)) break;
        before += p;
        kept += p;
    }
    double u = random_uniform(s->seed, random_stream("sampler"), 0, (u64)index) * kept;
    for (i64 i = 0; i < n; i++) {
        u -= exp((sorted[i].logit - sorted[0].logit) / s->temperature);
        if (u < 0) return sorted[i].id;
    }
    return sorted[n - 1].id;
}

/* The batch-size ramp (optimization spec 1.5): from b0 = ramp.start to b1 = batch_tokens in (b1 -
 * b0)/increment levels, each ramp.tokens/levels long. Schedules go by tokens: a step of half the batch moves
 * them half as far. */
#include "train/ramp.h"
#include <math.h>

static status whole_rows(const config *c, const char *key, i64 context, i64 micro, i64 *rows)
{
    i64 tokens = config_count(c, key);
    if (tokens % (context * micro))
        return config_refuse(c, key, "is %lld tokens; it must be a multiple of a micro-batch (%lld x %lld)",
                             (long long)tokens, (long long)micro, (long long)context);
    *rows = tokens / context;
    return OK;
}

status ramp_from(const config *c, i64 rows, i64 micro, i64 context, ramp *out)
{
    ramp r = {.rows = rows, .context = context};
    *out = r;
    if (config_count(c, "train.ramp.start") < 0) return OK;
    TRY(whole_rows(c, "train.ramp.start", context, micro, &r.start));
    if (config_count(c, "train.ramp.increment") < 0)
        r.increment = rows - r.start;
    else
        TRY(whole_rows(c, "train.ramp.increment", context, micro, &r.increment));
    if (r.start >= rows)
        return config_refuse(c, "train.ramp.start",
                             "is %lld tokens; it must be below train.batch_tokens (%lld)",
                             (long long)(r.start * context), (long long)(rows * context));
    if (config_count(c, "train.ramp.tokens") < 0)
        return config_refuse(c, "train.ramp.tokens", "is none; say over how many tokens the batch grows");
    if ((rows - r.start) % r.increment)
        return config_refuse(
            c, "train.ramp.increment", "is %lld tokens; from %lld to %lld is no whole number of increments",
            (long long)(r.increment * context), (long long)(r.start * context), (long long)(rows * context));
    r.levels = (rows - r.start) / r.increment;
    r.level_tokens = MAX(1, config_count(c, "train.ramp.tokens") / r.levels);
    *out = r;
    return OK;
}

static i64 level_rows(const ramp *r, i64 level) { return r->start + level * r->increment; }
static i64 level_steps(const ramp *r, i64 level)
{
    i64 tokens = level_rows(r, level) * r->context;
    return (r->level_tokens + tokens - 1) / tokens;
}

i64 ramp_rows(const ramp *r, i64 step)
{
    for (i64 k = 0; k < r->levels; k++) {
        if (step < level_steps(r, k)) return level_rows(r, k);
        step -= level_steps(r, k);
    }
    return r->rows;
}

i64 ramp_tokens(const ramp *r, i64 step)
{
    i64 rows = 0;
    for (i64 k = 0; k < r->levels && step > 0; k++) {
        i64 here = MIN(step, level_steps(r, k));
        rows += here * level_rows(r, k);
        step -= here;
    }
    return (rows + step * r->rows) * r->context;
}

i64 ramp_steps(const ramp *r, double tokens)
{
    i64 steps = 0;
    for (i64 k = 0; k < r->levels; k++) {
        double here = (double)(level_rows(r, k) * r->context);
        if (tokens <= here * (double)level_steps(r, k)) return MAX(1, steps + (i64)round(tokens / here));
        tokens -= here * (double)level_steps(r, k);
        steps += level_steps(r, k);
    }
    return MAX(1, steps + (i64)round(tokens / (double)(r->rows * r->context)));
}

i64 ramp_progress(const ramp *r, i64 step) { return ramp_tokens(r, step) / (r->rows * r->context); }

i64 ramp_unit(const ramp *r)
{
    i64 a = r->rows, b = r->levels ? r->increment : 0;
    if (r->levels)
        for (i64 x = r->start;;) { // gcd of start and increment divides every level
            if (!b) {
                a = x;
                break;
            }
            i64 rest = x % b;
            x = b, b = rest;
        }
    return a;
}

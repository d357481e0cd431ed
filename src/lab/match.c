/* Arms of equal size or compute, and how long a run will take: see plan.h.
 *
 * What is matched rises with the key's value (a width, a number of tokens), so its value is found by
 * bisection over the multiples of match.multiple; what is left over is reported, never hidden. */
#include "lab/plan_parts.h"
#include "base/random.h"
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static const char *const matched_what[] = {"", "parameters", "flops a token", "compute"};

/* What is matched, for ARM with the key at VALUE (0: as the settings say). */
static status measure(lab_plan *p, i64 arm, i64 value, double *out)
{
    const experiment *e = p->e;
    config *c;
    model_figures f;
    i64 steps;
    double flops = 0, seconds;
    p->matched[arm] = value ? arena_printf(p->arena, "%lld", (long long)value) : NULL;
    status s = plan_config(p, arm, NULL, 0, &c, NULL, NULL, NULL);
    p->matched[arm] = NULL;
    TRY(s);
    s = plan_figures(p, c, &f);
    if (!s && e->match == MATCH_COMPUTE) s = plan_size(p, c, &steps, &flops, &seconds);
    config_close(c);
    if (s) return wrap(s, "arm '%s'", e->arms[arm].name);
    *out = e->match == MATCH_PARAMETERS        ? (double)f.parameters
           : e->match == MATCH_FLOPS_PER_TOKEN ? f.flops_per_token
                                               : flops;
    return OK;
}

static status match_arm(lab_plan *p, i64 arm, double target)
{
    const experiment *e = p->e;
    double now, low_value, high_value;
    TRY(measure(p, arm, 0, &now));
    if (now == target) {
        p->match_ratio[arm] = 1;
        return OK;
    }
    i64 unit = e->match_multiple, low = 1, high = 2;
    TRY(measure(p, arm, low * unit, &low_value));
    double first = low_value;
    for (;; high *= 2) { // up to the first multiple that is too large
        TRY(measure(p, arm, high * unit, &high_value));
        if (high_value >= target || high > 1 << 24) break;
        low = high, low_value = high_value;
    }
    if (high_value == first)
        return fail(ERR_CONFIG, "%s does not change the %s of arm '%s'; name a key that does", e->match_key,
                    matched_what[e->match], e->arms[arm].name);
    while (high - low > 1) {
        i64 middle = low + (high - low) / 2;
        double value;
        TRY(measure(p, arm, middle * unit, &value));
        if (value >= target)
            high = middle, high_value = value;
        else
            low = middle, low_value = value;
    }
    bool take_low = fabs(low_value - target) <= fabs(high_value - target);
    p->match_ratio[arm] = (take_low ? low_value : high_value) / target;
    p->matched[arm] = arena_printf(p->arena, "%lld", (long long)((take_low ? low : high) * unit));
    return OK;
}

status plan_match(lab_plan *p)
{
    const experiment *e = p->e;
    if (e->match == MATCH_NONE) return OK;
    for (i64 i = 0; i < e->n_arms; i++) {
        double target;
        if (e->arms[i].baseline == i) continue;
        TRY(measure(p, e->arms[i].baseline, 0, &target));
        TRY(wrap(match_arm(p, i, target), "match"));
        if (fabs(p->match_ratio[i] - 1) > 0.01)
            plan_say(p, "warning: arm '%s' has %.1f %% of the baseline's %s, the nearest %s allows",
                     e->arms[i].name, 100 * p->match_ratio[i], matched_what[e->match], e->match_key);
        if (p->matched[i])
            plan_say(p, "match: arm '%s': %s=%s, %.2f %% of the baseline's %s", e->arms[i].name, e->match_key,
                     p->matched[i], 100 * p->match_ratio[i], matched_what[e->match]);
    }
    return OK;
}

/* ---- how long */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static status fill_batch(const session *s, i64 vocab, i32 **memory, step_batch *b)
{
    i64 n = s->batch_rows * s->context;
    TRY(mem_alloc((size_t)n * 4 * sizeof(i32), "a batch", memory));
    i32 *tokens = *memory, *targets = tokens + n, *start = targets + n, *position = start + n;
    for (i64 i = 0; i < n; i++) {
        tokens[i] = (i32)(i * 7919 % vocab);
        targets[i] = (i32)((i + 1) * 7919 % vocab);
        start[i] = 0;
        position[i] = (i32)(i % s->context);
    }
    *b = (step_batch){tokens, targets, start, position, s->batch_rows, n};
    return OK;
}

/* Seconds of a step: the least of three after one to warm up. */
static status time_session(lab_plan *p, config *c, double *seconds, double *flops)
{
    session *s;
    i32 *memory = NULL;
    step_batch b;
    double nats, norm;
    TRY(session_open(c, p->o.device, &(session_options){.isa = p->o.isa}, &s));
    session_start(s);
    status e = fill_batch(s, config_count(c, "model.vocab"), &memory, &b);
    *seconds = INFINITY;
    for (i64 step = 0; step < 4 && !e; step++) {
        double from = now();
        session_forward_backward(s, &b, step, &nats);
        session_update(s, step, 1e-4, 1e-4, &norm);
        if (step) *seconds = fmin(*seconds, now() - from);
    }
    *flops = s->figures.flops_per_token * (double)(s->batch_rows * s->context);
    mem_free(memory);
    session_close(s);
    return e;
}

status lab_plan_seconds(lab_plan *p, double *seconds)
{
    i64 all, known, counted = 0;
    double flops = 0, fixed = 0, step, step_flops;
    config *c;
    lab_plan_count(p, &all, &known);
    for (i64 i = 0; i < p->n_jobs; i++)
        if (!p->jobs[i].result.status) flops += p->jobs[i].flops, fixed += p->jobs[i].seconds, counted++;
    *seconds = 0;
    if (all == known) return OK;
    if (p->seconds_per_flop <= 0) {
        TRY(plan_config(p, 0, NULL, 0, &c, NULL, NULL, NULL));
        status s = time_session(p, c, &step, &step_flops);
        config_close(c);
        TRY(s);
        p->seconds_per_flop = step / step_flops;
    }
    if (!counted) { // only stages to come: like what has been run
        for (i64 i = 0; i < p->n_jobs; i++) flops += p->jobs[i].flops, fixed += p->jobs[i].seconds, counted++;
    }
    double rest = (double)(all - known) / (double)MAX(counted, (i64)1);
    *seconds = rest * (flops * p->seconds_per_flop + fixed) / (double)MAX(p->o.jobs, (i64)1);
    return OK;
}

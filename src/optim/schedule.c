/* Learning-rate schedules (optimization spec, parts 0 and 1). With W warm-up steps, T steps in all,
 * x = (t - W)/(T - W) and c(x) = (1 + cos pi x)/2:
 *
 *   warm-up    peak (start + (1 - start)(t + offset)/W)         t < W
 *   constant   peak
 *   linear     end + (peak - end)(1 - x)
 *   cosine     end + (peak - end) c(x)
 *   uba        end_k + (peak_k - end_k) f_phi(x_k) in phase k   f = cos^2/(cos^2 + (phi/2) sin^2) of pi x/2
 *
 * Source:  UBA, "Stepsize anything", arXiv:2505.24452; phi = 2 is cosine, phi = 0 constant.
 * Departs: x runs over the steps of a phase (the paper may mean Chebyshev nodes (2i-1)/2n; the two agree to
 *          O(1/n)).
 */
#include "optim/schedule.h"
#include <math.h>
#include <string.h>

static const double PI = 3.14159265358979323846;

double uba_curve(double phi, double x)
{
    double c = cos(PI * x / 2), s = sin(PI * x / 2);
    return phi == 0 ? 1 : c * c / (c * c + phi / 2 * s * s);
}

static status read_phases(const config *c, schedule *s, i64 tokens_per_step)
{
    static const char *const path = "train.schedule.phases";
    double phi = config_number(c, "train.schedule.phi"), peak = config_number(c, "train.optimizer.lr");
    i64 n = config_items(c, path), previous = s->warmup;
    if (n > MAX_PHASES) return config_refuse(c, path, "has %lld items; at most %d", (long long)n, MAX_PHASES);
    for (i64 i = 0; i < n; i++) {
        schedule_phase *p = &s->phase[s->n_phases++];
        double end = config_item_number(c, path, i, "end"), own = config_item_number(c, path, i, "phi");
        p->until = span_steps(config_item(c, path, i, "until"), s->steps, tokens_per_step);
        p->peak = peak * config_item_number(c, path, i, "peak");
        p->end = isnan(end) ? s->end : peak * end;
        p->phi = isnan(own) ? phi : own;
        if (p->until <= previous)
            return config_refuse(c, path,
                                 "item %lld ends at step %lld, but the one before (or the warm-up) at %lld",
                                 (long long)i + 1, (long long)p->until, (long long)previous);
        previous = p->until;
    }
    if (n && previous != s->steps)
        return config_refuse(c, path, "end at step %lld of %lld; let the last one be until 100%%",
                             (long long)previous, (long long)s->steps);
    if (!n) s->phase[s->n_phases++] = (schedule_phase){s->steps, peak, s->end, phi};
    return OK;
}

status schedule_from(const config *c, i64 steps, i64 tokens_per_step, schedule *out)
{
    schedule s = {.kind = (schedule_kind)config_choice(c, "train.schedule.kind"),
                  .peak = config_number(c, "train.optimizer.lr"),
                  .steps = steps,
                  .warmup = config_span(c, "train.schedule.warmup", steps, tokens_per_step),
                  .warmup_start = config_number(c, "train.schedule.warmup_start"),
                  .warmup_offset = config_count(c, "train.schedule.warmup_offset")};
    bool floor_applies = s.kind != SCHEDULE_CONSTANT;
    s.end = floor_applies ? s.peak * config_number(c, "train.schedule.floor") : s.peak;
    if (s.warmup > steps)
        return config_refuse(c, "train.schedule.warmup", "is %lld steps, longer than the run (%lld steps)",
                             (long long)s.warmup, (long long)steps);
    if (s.kind == SCHEDULE_UBA) TRY(read_phases(c, &s, tokens_per_step));
    *out = s;
    return OK;
}

static double uba_at(const schedule *s, i64 t)
{
    i64 start = s->warmup;
    int k = 0;
    while (k < s->n_phases - 1 && t >= s->phase[k].until) start = s->phase[k++].until;
    const schedule_phase *p = &s->phase[k];
    double x = (double)(t - start) / (double)(p->until - start);
    return p->end + (p->peak - p->end) * uba_curve(p->phi, x);
}

double schedule_at(const schedule *s, i64 t)
{
    if (t < s->warmup) {
        double done = (double)(t + s->warmup_offset) / (double)s->warmup;
        return s->peak * (s->warmup_start + (1 - s->warmup_start) * done);
    }
    double x = (double)(t - s->warmup) / (double)MAX(s->steps - s->warmup, 1), fall = s->peak - s->end;
    switch (s->kind) {
    case SCHEDULE_CONSTANT:
        return s->peak;
    case SCHEDULE_LINEAR:
        return s->end + fall * (1 - x);
    case SCHEDULE_COSINE:
        return s->end + fall * (1 + cos(PI * x)) / 2;
    case SCHEDULE_UBA:
        return uba_at(s, t);
    }
    return s->peak;
}

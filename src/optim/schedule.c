/* Learning-rate schedules (optimization spec, parts 0 and 1). W warm-up steps, T steps in all,
 * x = (t - W)/(T - W), c(x) = (1 + cos pi x)/2; "floor" forms are lr = end + (peak - end) f(x):
 *
 *   warm-up      peak (start + (1 - start)(t + offset)/W)              t < W
 *   constant     peak
 *   linear       f = 1 - x                  cosine       f = c(x)
 *   poly         f = (1 - x)^power          exponential  f = exp(-rate x)
 *   rex          f = (1 - x)/(1 - x/2)
 *   uba          end_k + (peak_k - end_k) f_phi(x_k) in phase k        f = cos^2/(cos^2 + (phi/2) sin^2) of
 * pi x/2 wsd          peak, then over the last `decay` steps peak g(u)      g: schedule.shape, rho = floor
 *   inv_sqrt     peak sqrt(W/(t + 1))
 *   step         peak gamma^(milestones passed)
 *   onecycle     peak/div to peak over the share `up` of the run, then to peak/final_div, both by cosine
 *   cyclic       a triangle between end and peak, half of it `period` steps
 *   cosine_cycles  cosine restarted after `period` steps, each period `growth` times longer, each peak gamma
 * lower cosine_then_const  cosine to end at `until`, then end infinite     cooldown by cosine to `constant`
 * at `until`, constant, and over the last `decay` steps constant (end/constant)^u jagged       cosine of the
 * whole run, times a warm-up of `rewarm` steps after every `period` piecewise    phases, each a curve from
 * its peak to its end table        linear interpolation of (step, lr) points
 *
 * Sources: UBA, "Stepsize anything", arXiv:2505.24452 (phi = 2 is cosine, phi = 0 constant); wsd: MiniCPM,
 *          arXiv:2404.06395, shapes: arXiv:2405.18392; infinite: arXiv:2403.08763; jagged: ReLoRA,
 *          arXiv:2307.05695; rex: arXiv:2107.04197; cosine_cycles: SGDR, arXiv:1608.03983.
 * Departs: in uba x runs over the steps of a phase (the paper may mean Chebyshev nodes, (2i - 1)/2n, which
 *          schedule.grid chooses; the two agree to O(1/n)); onecycle and cyclic have a rise of their own and
 *          take no warm-up, and leave the optimizer's momentum alone; the points of a table stand in the
 *          configuration, so that the resolved file repeats the run. */
#include "optim/schedule.h"
#include <math.h>
#include <string.h>

#define KIND "train.schedule.kind="
#define FLOORED                                                                                              \
    KIND "cosine linear uba wsd poly exponential rex cyclic cosine_cycles cosine_then_const infinite jagged" \
         " piecewise"
const config_key schedule_keys[] = {
    {"train.schedule.kind", KEY_CHOICE, "cosine",
     "cosine constant linear wsd uba inv_sqrt poly exponential step onecycle cyclic rex cosine_cycles "
     "cosine_then_const infinite jagged piecewise table",
     .help = "the learning rate after warm-up",
     .source = "cosine: arXiv:1608.03983; uba: arXiv:2505.24452; wsd: arXiv:2404.06395; rex: "
               "arXiv:2107.04197; infinite: arXiv:2403.08763; jagged: arXiv:2307.05695"},
    {"train.schedule.floor", KEY_NUMBER, "0.1", .max = 1, .unit = "share of lr",
     .help = "where the schedule ends", .only = FLOORED},
    {"train.schedule.warmup", KEY_SPAN, "1%",
     .help = "linear warm-up from warmup_start to the peak; onecycle and cyclic have a rise of their own"},
    {"train.schedule.warmup_start", KEY_NUMBER, "0", .max = 1, .unit = "share of lr",
     .help = "where warm-up starts"},
    {"train.schedule.warmup_offset", KEY_COUNT, "1", .max = 1, .unit = "steps",
     .help = "1: step 0 already has 1/warmup of the peak; 0: it has warmup_start"},
    {"train.schedule.phi", KEY_NUMBER, "0.5", .max = 1e6,
     .help = "shape of uba: 0 is constant, 2 is cosine, larger drops earlier", .source = "arXiv:2505.24452",
     .only = KIND "uba piecewise"},
    {"train.schedule.phases", KEY_LIST, "[]",
     .help = "uba in several phases: items of {until, peak, end, phi}; piecewise: of {until, curve, peak, "
             "end, phi, power}",
     .source = "arXiv:2505.24452", .only = KIND "uba piecewise"},
    {"train.schedule.phases[].until", KEY_SPAN, "100%", .help = "where the phase ends, counted from step 0"},
    {"train.schedule.phases[].curve", KEY_CHOICE, "linear",
     "linear constant cosine uba poly rex one_minus_sqrt square", .help = "piecewise: how it falls"},
    {"train.schedule.phases[].peak", KEY_NUMBER, "1", .max = 100, .unit = "share of lr",
     .help = "learning rate at the phase's start"},
    {"train.schedule.phases[].end", KEY_NUMBER, "auto", "auto", .max = 100, .unit = "share of lr",
     .help = "learning rate at the phase's end; auto: schedule.floor"},
    {"train.schedule.phases[].phi", KEY_NUMBER, "auto", "auto", .max = 1e6, .help = "auto: schedule.phi"},
    {"train.schedule.phases[].power", KEY_NUMBER, "2", .max = 100, .help = "of the curve poly"},
    {"train.schedule.grid", KEY_CHOICE, "uniform", "uniform chebyshev",
     .help = "where uba's curve is read in a phase of n steps: at i/n, or at the nodes (2i + 1)/2n",
     .source = "arXiv:2505.24452", .only = KIND "uba"},
    {"train.schedule.decay", KEY_SPAN, "20%", .help = "the last part of the run, in which the rate falls",
     .source = "arXiv:2405.18392", .only = KIND "wsd infinite"},
    {"train.schedule.shape", KEY_CHOICE, "linear",
     "linear one_minus_sqrt square cosine mirror_cosine exp halflife inverse", .help = "how wsd falls",
     .source = "arXiv:2405.18392; halflife: arXiv:2404.06395", .only = KIND "wsd"},
    {"train.schedule.half_life", KEY_SPAN, "2%",
     .help = "shape halflife: the rate halves every so many steps", .only = "train.schedule.shape=halflife"},
    {"train.schedule.power", KEY_NUMBER, "2", .max = 100, .help = "exponent of poly; 1 is linear",
     .only = KIND "poly"},
    {"train.schedule.rate", KEY_NUMBER, "2.302585092994046", .max = 100,
     .help = "exponential: f = exp(-rate x)", .only = KIND "exponential"},
    {"train.schedule.milestones", KEY_LIST, "[]", .help = "step: where the rate drops, as [50%, 75%]",
     .only = KIND "step"},
    {"train.schedule.milestones[].at", KEY_SPAN, "100%", .help = "when"},
    {"train.schedule.gamma", KEY_NUMBER, "auto", "auto", .max = 1,
     .help = "factor of a drop (step; auto 0.1) or of each cycle's peak (cosine_cycles; auto 1)",
     .only = KIND "step cosine_cycles"},
    {"train.schedule.period", KEY_SPAN, "25%",
     .help = "a cycle (cosine_cycles), half a triangle (cyclic), between resets (jagged)",
     .only = KIND "cosine_cycles cyclic jagged"},
    {"train.schedule.growth", KEY_NUMBER, "1", .min = 1, .max = 16, .help = "each cycle is so much longer",
     .only = KIND "cosine_cycles"},
    {"train.schedule.rewarm", KEY_SPAN, "1%", .help = "jagged: linear warm-up after each reset",
     .only = KIND "jagged"},
    {"train.schedule.up", KEY_NUMBER, "0.3", .max = 1, .unit = "share of the run",
     .help = "onecycle: the rise", .only = KIND "onecycle"},
    {"train.schedule.div", KEY_NUMBER, "25", .min = 1, .max = 1e6, .help = "onecycle starts at lr / div",
     .only = KIND "onecycle"},
    {"train.schedule.final_div", KEY_NUMBER, "10000", .min = 1, .max = 1e9,
     .help = "onecycle ends at lr / final_div", .only = KIND "onecycle"},
    {"train.schedule.until", KEY_SPAN, "50%",
     .help = "where the cosine ends (cosine_then_const) or the cooldown to the constant (infinite)",
     .only = KIND "cosine_then_const infinite"},
    {"train.schedule.constant", KEY_NUMBER, "0.5", .max = 1, .unit = "share of lr",
     .help = "infinite: the rate that can go on for ever", .only = KIND "infinite"},
    {"train.schedule.points", KEY_LIST, "[]",
     .help = "table: items of {at, lr}, lr a share of optimizer.lr; straight lines between them",
     .only = KIND "table"},
    {"train.schedule.points[].at", KEY_SPAN, "0%", .help = "when"},
    {"train.schedule.points[].lr", KEY_NUMBER, "1", .max = 100, .unit = "share of lr",
     .help = "the rate there"},
    {0},
};

static const double PI = 3.14159265358979323846;

/* ---- curves from 1 to 0 */
double uba_curve(double phi, double x)
{
    double c = cos(PI * x / 2), s = sin(PI * x / 2);
    return phi == 0 ? 1 : c * c / (c * c + phi / 2 * s * s);
}
static double cosine_curve(double x) { return (1 + cos(PI * x)) / 2; }
static double rex_curve(double x) { return (1 - x) / (1 - x / 2); }

enum {
    CURVE_LINEAR,
    CURVE_CONSTANT,
    CURVE_COSINE,
    CURVE_UBA,
    CURVE_POLY,
    CURVE_REX,
    CURVE_ROOT,
    CURVE_SQUARE
};
static double curve(const schedule_phase *p, double x)
{
    switch (p->curve) {
    case CURVE_CONSTANT:
        return 1;
    case CURVE_COSINE:
        return cosine_curve(x);
    case CURVE_UBA:
        return uba_curve(p->phi, x);
    case CURVE_POLY:
        return pow(1 - x, p->power);
    case CURVE_REX:
        return rex_curve(x);
    case CURVE_ROOT:
        return 1 - sqrt(x);
    case CURVE_SQUARE:
        return 1 - x * x;
    default:
        return 1 - x;
    }
}

/* ---- kinds. X: progress after the warm-up, 0 <= x < 1. */
typedef struct schedule_kind {
    double (*at)(const schedule *s, i64 t, double x);
    bool own_rise; // takes no warm-up
} schedule_kind;

static double floored(const schedule *s, double f) { return s->end + (s->peak - s->end) * f; }

static double constant_at(const schedule *s, i64 t, double x)
{
    (void)t, (void)x;
    return s->peak;
}
static double linear_at(const schedule *s, i64 t, double x)
{
    (void)t;
    return floored(s, 1 - x);
}
static double cosine_at(const schedule *s, i64 t, double x)
{
    (void)t;
    return floored(s, cosine_curve(x));
}
static double poly_at(const schedule *s, i64 t, double x)
{
    (void)t;
    return floored(s, pow(1 - x, s->power));
}
static double exponential_at(const schedule *s, i64 t, double x)
{
    (void)t;
    return floored(s, exp(-s->rate * x));
}
static double rex_at(const schedule *s, i64 t, double x)
{
    (void)t;
    return floored(s, rex_curve(x));
}

static double phases_at(const schedule *s, i64 t, double x)
{
    i64 start = s->warmup;
    int k = 0;
    (void)x;
    while (k < s->n_phases - 1 && t >= s->phase[k].until) start = s->phase[k++].until;
    const schedule_phase *p = &s->phase[k];
    double steps = (double)(p->until - start);
    return p->end + (p->peak - p->end) * curve(p, ((double)(t - start) + (s->chebyshev ? 0.5 : 0)) / steps);
}

/* The cooldown of wsd at progress U; AFTER steps into it. */
static double cooldown(const schedule *s, double u, double after)
{
    double rho = s->peak > 0 ? s->end / s->peak : 0, cosine = cosine_curve(u);
    switch (s->shape) {
    case 1:
        return rho + (1 - rho) * (1 - sqrt(u));
    case 2:
        return rho + (1 - rho) * (1 - u * u);
    case 3:
        return rho + (1 - rho) * cosine;
    case 4:
        return rho + (1 - rho) * (2 * (1 - u) - cosine);
    case 5:
        return pow(rho, u);
    case 6:
        return pow(0.5, after / s->half_life);
    case 7:
        return 1 / (1 + (1 / rho - 1) * u);
    default:
        return rho + (1 - rho) * (1 - u);
    }
}
static double wsd_at(const schedule *s, i64 t, double x)
{
    i64 hold = s->steps - s->decay;
    (void)x;
    if (t < hold) return s->peak;
    return s->peak * cooldown(s, (double)(t - hold) / (double)s->decay, (double)(t - hold));
}

static double inv_sqrt_at(const schedule *s, i64 t, double x)
{
    (void)x;
    return s->peak * sqrt((double)MAX(s->warmup, 1) / (double)(t + 1));
}
static double step_at(const schedule *s, i64 t, double x)
{
    double lr = s->peak;
    (void)x;
    for (int i = 0; i < s->n_points; i++)
        if (s->point[i].at <= t) lr *= s->gamma;
    return lr;
}
static double onecycle_at(const schedule *s, i64 t, double x)
{
    double low = s->peak / s->div, last = s->peak / s->final_div;
    (void)t;
    if (x < s->up) return low + (s->peak - low) * (1 - cosine_curve(x / s->up));
    return last + (s->peak - last) * cosine_curve((x - s->up) / (1 - s->up));
}
static double cyclic_at(const schedule *s, i64 t, double x)
{
    double at = fmod((double)t / (double)s->period, 2);
    (void)x;
    return floored(s, at < 1 ? at : 2 - at);
}
static double cosine_cycles_at(const schedule *s, i64 t, double x)
{
    double at = (double)(t - s->warmup), length = (double)s->period, top = s->peak;
    (void)x;
    for (; at >= length; at -= length, length *= s->growth) top *= s->gamma;
    double end = fmin(s->end, top);
    return end + (top - end) * cosine_curve(at / length);
}
static double cosine_then_const_at(const schedule *s, i64 t, double x)
{
    (void)x;
    double u = (double)(t - s->warmup) / (double)MAX(s->until - s->warmup, 1);
    return floored(s, u < 1 ? cosine_curve(u) : 0);
}
static double infinite_at(const schedule *s, i64 t, double x)
{
    i64 anneal = s->steps - s->decay;
    double held = s->constant;
    (void)x;
    if (t >= anneal) return held * pow(s->end / held, (double)(t - anneal) / (double)s->decay);
    double u = (double)(t - s->warmup) / (double)MAX(s->until - s->warmup, 1);
    return u < 1 ? held + (s->peak - held) * cosine_curve(u) : held;
}
static double jagged_at(const schedule *s, i64 t, double x)
{
    i64 since = t % s->period;
    double rise = t >= s->period && since < s->rewarm ? (double)(since + 1) / (double)s->rewarm : 1;
    return floored(s, cosine_curve(x)) * rise;
}
static double table_at(const schedule *s, i64 t, double x)
{
    const schedule_point *p = s->point;
    int k = 0;
    (void)x;
    while (k < s->n_points && p[k].at <= t) k++;
    if (k == 0) return p[0].lr;
    if (k == s->n_points) return p[k - 1].lr;
    double u = (double)(t - p[k - 1].at) / (double)(p[k].at - p[k - 1].at);
    return p[k - 1].lr + (p[k].lr - p[k - 1].lr) * u;
}

/* In the order of the choices of train.schedule.kind. */
static const schedule_kind kinds[] = {
    {.at = cosine_at},
    {.at = constant_at},
    {.at = linear_at},
    {.at = wsd_at},
    {.at = phases_at}, // uba
    {.at = inv_sqrt_at},
    {.at = poly_at},
    {.at = exponential_at},
    {.at = step_at},
    {.at = onecycle_at, .own_rise = true},
    {.at = cyclic_at, .own_rise = true},
    {.at = rex_at},
    {.at = cosine_cycles_at},
    {.at = cosine_then_const_at},
    {.at = infinite_at},
    {.at = jagged_at},
    {.at = phases_at}, // piecewise
    {.at = table_at},
};

double schedule_at(const schedule *s, i64 t)
{
    if (t < s->warmup) {
        double done = (double)(t + s->warmup_offset) / (double)s->warmup;
        return s->peak * (s->warmup_start + (1 - s->warmup_start) * done);
    }
    return s->kind->at(s, t, (double)(t - s->warmup) / (double)MAX(s->steps - s->warmup, 1));
}

double schedule_sum(const schedule *s, i64 step, int power)
{
    double sum = 0;
    for (i64 t = 0; t <= step; t++) sum += pow(schedule_at(s, t), power);
    return sum;
}

schedule schedule_constant(double lr, i64 steps)
{
    return (schedule){.kind = &kinds[1], .peak = lr, .end = lr, .steps = steps};
}

/* ---- reading */
static status read_phases(const config *c, schedule *s, i64 tokens_per_step)
{
    static const char *const path = "train.schedule.phases";
    bool piecewise = config_is(c, "train.schedule.kind", "piecewise");
    double phi = config_number(c, "train.schedule.phi");
    i64 n = config_items(c, path), previous = s->warmup;
    if (n > MAX_PHASES) return config_refuse(c, path, "has %lld items; at most %d", (long long)n, MAX_PHASES);
    for (i64 i = 0; i < n; i++) {
        schedule_phase *p = &s->phase[s->n_phases++];
        double end = config_item_number(c, path, i, "end"), own = config_item_number(c, path, i, "phi");
        p->until = span_steps(config_item(c, path, i, "until"), s->steps, tokens_per_step);
        p->peak = s->peak * config_item_number(c, path, i, "peak");
        p->end = isnan(end) ? s->end : s->peak * end;
        p->phi = isnan(own) ? phi : own;
        p->power = config_item_number(c, path, i, "power");
        p->curve = piecewise ? (int)config_item_choice(c, path, i, "curve") : CURVE_UBA;
        if (p->until <= previous)
            return config_refuse(c, path,
                                 "item %lld ends at step %lld, but the one before (or the warm-up) at %lld",
                                 (long long)i + 1, (long long)p->until, (long long)previous);
        previous = p->until;
    }
    if (n && previous != s->steps)
        return config_refuse(c, path, "end at step %lld of %lld; let the last one be until 100%%",
                             (long long)previous, (long long)s->steps);
    if (!n && piecewise) return config_refuse(c, path, "is empty; kind piecewise is made of its items");
    if (!n) s->phase[s->n_phases++] = (schedule_phase){s->steps, s->peak, s->end, phi, 0, CURVE_UBA};
    return OK;
}

/* The steps of a list's items, which must ascend. */
static status read_points(const config *c, schedule *s, const char *path, bool rates, i64 tokens_per_step)
{
    i64 n = config_items(c, path);
    if (n > MAX_POINTS) return config_refuse(c, path, "has %lld items; at most %d", (long long)n, MAX_POINTS);
    if (!n) return config_refuse(c, path, "is empty; this kind of schedule needs it");
    for (i64 i = 0; i < n; i++) {
        schedule_point *p = &s->point[s->n_points++];
        p->at = span_steps(config_item(c, path, i, "at"), s->steps, tokens_per_step);
        p->lr = rates ? s->peak * config_item_number(c, path, i, "lr") : 0;
        if (i && p->at <= p[-1].at)
            return config_refuse(c, path, "item %lld is at step %lld, not after the one before it (%lld)",
                                 (long long)i + 1, (long long)p->at, (long long)p[-1].at);
    }
    return OK;
}

static double number_or(const config *c, const char *path, double otherwise)
{
    double x = config_applies(c, path) ? config_number(c, path) : NAN;
    return isnan(x) ? otherwise : x;
}
static i64 span_of(const config *c, const char *path, const schedule *s, i64 tokens_per_step)
{
    return config_applies(c, path) ? config_span(c, path, s->steps, tokens_per_step) : 0;
}

/* Positive spans that fit behind the warm-up, and shapes that have a value everywhere. */
static status check(const config *c, const schedule *s)
{
    static const char *const k = "train.schedule.kind";
    if (config_applies(c, "train.schedule.decay") && (s->decay < 1 || s->decay > s->steps - s->warmup))
        return config_refuse(c, "train.schedule.decay",
                             "is %lld steps; it must be from 1 to the %lld after the warm-up",
                             (long long)s->decay, (long long)(s->steps - s->warmup));
    if (config_applies(c, "train.schedule.period") && s->period < 1)
        return config_refuse(c, "train.schedule.period", "is no step long");
    if (config_applies(c, "train.schedule.until") && (s->until <= s->warmup || s->until > s->steps))
        return config_refuse(c, "train.schedule.until", "is step %lld; it must lie after the warm-up (%lld)",
                             (long long)s->until, (long long)s->warmup);
    if (config_is(c, k, "infinite") && s->until > s->steps - s->decay)
        return config_refuse(c, "train.schedule.until", "is step %lld, after the last fall begins (%lld)",
                             (long long)s->until, (long long)(s->steps - s->decay));
    if (config_is(c, k, "infinite") && !(s->end > 0 && s->constant > 0))
        return config_refuse(c, "train.schedule.floor",
                             "is 0: the last fall, constant (floor/constant)^u, has no value then");
    if (config_is(c, k, "onecycle") && !(s->up < 1))
        return config_refuse(c, "train.schedule.up", "is 1: there is nothing left to fall in");
    if (config_is(c, k, "wsd") && (s->shape == 5 || s->shape == 7) && !(s->end > 0))
        return config_refuse(c, "train.schedule.floor",
                             "is 0: the shape %s (%s) never gets there; take linear, or a floor above 0",
                             s->shape == 5 ? "exp" : "inverse",
                             s->shape == 5 ? "floor^u" : "1/(1 + (1/floor - 1) u)");
    return OK;
}

status schedule_from(const config *c, i64 steps, i64 tokens_per_step, schedule *out)
{
    i64 kind = config_choice(c, "train.schedule.kind");
    schedule s = {.kind = &kinds[kind], .peak = config_number(c, "train.optimizer.lr"), .steps = steps};
    if (!s.kind->own_rise) s.warmup = config_span(c, "train.schedule.warmup", steps, tokens_per_step);
    s.warmup_start = config_number(c, "train.schedule.warmup_start");
    s.warmup_offset = config_count(c, "train.schedule.warmup_offset");
    s.end = s.peak * number_or(c, "train.schedule.floor", 1);
    s.decay = span_of(c, "train.schedule.decay", &s, tokens_per_step);
    s.period = span_of(c, "train.schedule.period", &s, tokens_per_step);
    s.until = span_of(c, "train.schedule.until", &s, tokens_per_step);
    s.rewarm = span_of(c, "train.schedule.rewarm", &s, tokens_per_step);
    s.half_life = (double)span_of(c, "train.schedule.half_life", &s, tokens_per_step);
    s.power = number_or(c, "train.schedule.power", 1);
    s.rate = number_or(c, "train.schedule.rate", 1);
    s.gamma = number_or(c, "train.schedule.gamma", config_is(c, "train.schedule.kind", "step") ? 0.1 : 1);
    s.growth = number_or(c, "train.schedule.growth", 1);
    s.up = number_or(c, "train.schedule.up", 0);
    s.div = number_or(c, "train.schedule.div", 1);
    s.final_div = number_or(c, "train.schedule.final_div", 1);
    s.constant = s.peak * number_or(c, "train.schedule.constant", 1);
    if (config_applies(c, "train.schedule.shape")) s.shape = (int)config_choice(c, "train.schedule.shape");
    s.chebyshev =
        config_applies(c, "train.schedule.grid") && config_is(c, "train.schedule.grid", "chebyshev");
    if (s.warmup > steps)
        return config_refuse(c, "train.schedule.warmup", "is %lld steps, longer than the run (%lld steps)",
                             (long long)s.warmup, (long long)steps);
    TRY(check(c, &s));
    if (s.kind->at == phases_at) TRY(read_phases(c, &s, tokens_per_step));
    if (s.kind->at == step_at) TRY(read_points(c, &s, "train.schedule.milestones", false, tokens_per_step));
    if (s.kind->at == table_at) TRY(read_points(c, &s, "train.schedule.points", true, tokens_per_step));
    *out = s;
    return OK;
}

/* What a fitted law says elsewhere, and where compute buys the most. See fit.h. */
#include "base/random.h"
#include "lab/fit.h"
#include <math.h>
#include <string.h>

const char *fit_beyond(const fit *f, const double *x)
{
    text t = {0};
    for (int k = 0; k < f->law->inputs; k++) {
        bool below = x[k]<f->least[k] * (1 - 1e-9), above = x[k]> f->most[k] * (1 + 1e-9);
        if (!below && !above) continue;
        double edge = below ? f->least[k] : f->most[k];
        text_add(&t, "%s%s is %.3g, %.3g times the %s fitted (%.3g)", t.bytes ? "; " : "",
                 f->law->input[k].name, x[k], x[k] / edge, below ? "least" : "most", edge);
    }
    const char *out = t.bytes ? arena_strdup(f->arena, t.data) : NULL;
    text_free(&t);
    return out;
}

void fit_predict(const fit *f, const double *x, fit_prediction *out)
{
    double tail = (1 - f->options.level) / 2, *v = arena_array(f->arena, double, f->replicas + 1);
    u64 stream = random_stream("fit/run");
    *out = (fit_prediction){.value = law_value(f->law, f->theta, x), .beyond = fit_beyond(f, x)};
    memcpy(out->x, x, sizeof(double) * (size_t)f->law->inputs);
    for (i64 i = 0; i < f->replicas; i++) v[i] = law_value(f->law, f->replica[i], x);
    out->low = fit_quantile(v, f->replicas, tail), out->high = fit_quantile(v, f->replicas, 1 - tail);
    for (i64 i = 0; i < f->replicas; i++) { // one more run lies off the law as one of the points does
        i64 at = (i64)(random_uniform(f->options.seed, stream, 0, (u64)i) * (double)f->points->n);
        double r = fit_residual(f->law, f->theta, f->points->x[at], f->points->y[at]);
        double said = law_value(f->law, f->replica[i], x);
        v[i] = f->law->absolute ? said - r : said * exp(-r);
    }
    out->run_low = fit_quantile(v, f->replicas, tail), out->run_high = fit_quantile(v, f->replicas, 1 - tail);
}

/* ---- the optimum: tokens follow from compute and sizes, sizes from a search, one inside of the other, over
 * the logarithm: a scan for the lowest valley, then golden section. Laws that are right between the points
 * can fall without end far from them, so only valleys count, and only as far from the points as the compute
 * is, and 10^4. */

typedef struct search {
    const law *law;
    const double *theta, *fixed;
    double compute, x[LAW_INPUTS], from[LAW_INPUTS], to[LAW_INPUTS]; // bounds: logarithms
    bool at_end;
} search;

static double least_from(search *s, int input);

static double value_with(search *s, int input, double log_size)
{
    s->x[input] = exp(log_size);
    return least_from(s, input + 1);
}

static double finish(search *s)
{
    double size = 0;
    int tokens = s->law->sizes;
    for (int k = 0; k < tokens; k++) size += s->x[k];
    double d = s->compute / 6 / size;
    if (isnan(s->fixed[tokens]))
        s->x[tokens] = d;
    else
        s->x[tokens] = s->fixed[tokens];
    double v = law_value(s->law, s->theta, s->x);
    return isnan(v) ? INFINITY : v;
}

static double least_from(search *s, int input)
{
    enum { SCAN = 48 };
    static const double golden = 0.6180339887498949;
    if (input == s->law->sizes) return finish(s);
    if (!isnan(s->fixed[input])) return s->x[input] = s->fixed[input], least_from(s, input + 1);
    double from = s->from[input], step = (s->to[input] - from) / SCAN, v[SCAN + 1], best = INFINITY;
    int at = 0;
    for (int k = 0; k <= SCAN; k++) v[k] = value_with(s, input, from + k * step);
    for (int k = 1; k < SCAN; k++)
        if (v[k] < best && v[k] <= v[k - 1] && v[k] <= v[k + 1]) best = v[k], at = k;
    bool ended = !at;
    if (ended) at = v[0] < v[SCAN] ? 1 : SCAN - 1;
    double a = from + (at - 1) * step, b = from + (at + 1) * step;
    double c = b - golden * (b - a), d = a + golden * (b - a);
    double at_c = value_with(s, input, c), at_d = value_with(s, input, d);
    for (int k = 0; k < 44; k++)
        if (at_c < at_d) {
            b = d, d = c, at_d = at_c, c = b - golden * (b - a), at_c = value_with(s, input, c);
        } else {
            a = c, c = d, at_c = at_d, d = a + golden * (b - a), at_d = value_with(s, input, d);
        }
    s->at_end = false; // what inner searches met on the way does not count
    best = value_with(s, input, (a + b) / 2);
    s->at_end |= ended;
    return best;
}

/* The least for THETA into X. False: it lies at an end of the search. */
static bool optimum_of(const fit *f, const double *theta, double compute, const double *fixed, double *x)
{
    search s = {.law = f->law, .theta = theta, .fixed = fixed, .compute = compute};
    double about = 0; // logarithm of the compute in the middle of the points
    for (int k = 0; k <= f->law->sizes; k++)
        if (k == 0 || k == f->law->sizes) about += (log(f->least[k]) + log(f->most[k])) / 2;
    double beyond = log(1e4) + fabs(log(compute / 6) - about);
    for (int k = 0; k < f->law->sizes; k++)
        s.from[k] = log(f->least[k]) - beyond, s.to[k] = log(f->most[k]) + beyond;
    for (int k = f->law->sizes + 1; k < f->law->inputs; k++) s.x[k] = fixed[k];
    double v = least_from(&s, 0);
    memcpy(x, s.x, sizeof s.x);
    return isfinite(v) && !s.at_end;
}

static status check_optimum(const law *l, double compute, const double *fixed)
{
    int held = 0;
    if (!l->sizes)
        return fail(ERR_INPUT,
                    "the law %s has no compute-optimal point: it does not say what parameters and tokens buy",
                    l->name);
    if (!(compute > 0) || !isfinite(compute))
        return fail(ERR_INPUT, "a compute of %g flops; it must be above 0", compute);
    for (int k = 0; k < l->sizes; k++) held += !isnan(fixed[k]);
    if (held == l->sizes || !isnan(fixed[l->sizes]))
        return fail(ERR_INPUT, "with %s held there is nothing to choose at %.3g flops",
                    held == l->sizes ? l->input[0].name : l->input[l->sizes].name, compute);
    for (int k = l->sizes + 1; k < l->inputs; k++)
        if (isnan(fixed[k]))
            return fail(ERR_INPUT, "the optimum depends on %s (%s): give it with --fix %s=VALUE",
                        l->input[k].name, l->input[k].help, l->input[k].name);
    return OK;
}

status fit_optimum(const fit *f, double compute, const double *fixed, fit_optimum_point *out)
{
    const law *l = f->law;
    double x[LAW_INPUTS] = {0}, tail = (1 - f->options.level) / 2;
    i64 n = 0;
    TRY(check_optimum(l, compute, fixed));
    *out = (fit_optimum_point){.compute = compute};
    if (!optimum_of(f, f->theta, compute, fixed, x))
        return fail(
            ERR_NUMERIC,
            "the fit has no optimum at %.3g flops: the law has no valley between more parameters and more "
            "tokens",
            compute);
    fit_predict(f, x, &out->at);
    double *all = arena_array(f->arena, double, f->replicas *LAW_INPUTS + 1);
    for (i64 i = 0; i < f->replicas; i++) {
        double at[LAW_INPUTS];
        if (!optimum_of(f, f->replica[i], compute, fixed, at)) continue;
        for (int k = 0; k < LAW_INPUTS; k++) all[k * f->replicas + n] = at[k];
        n++;
    }
    out->found = f->replicas ? (double)n / (double)f->replicas : NAN;
    for (int k = 0; k < l->inputs; k++) {
        out->low[k] = fit_quantile(all + k * f->replicas, n, tail);
        out->high[k] = fit_quantile(all + k * f->replicas, n, 1 - tail);
    }
    return OK;
}

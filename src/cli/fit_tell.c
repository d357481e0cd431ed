/* keel fit: the result as text and as JSON. */
#include "cli/fit_parts.h"
#include <jansson.h>
#include <math.h>
#include <stdio.h>

const char *fit_point_text(const law *l, const double *x, char out[160])
{
    int at = 0;
    for (int k = 0; k < l->inputs && at < 130; k++)
        at += snprintf(out + at, (size_t)(160 - at), "%s%s=%.4g", k ? ", " : "", l->input[k].name, x[k]);
    return out;
}

const char *fit_error_text(const law *l, double error, char out[32])
{
    snprintf(out, 32, l->absolute ? "%.2g" : "%.2g%%", l->absolute ? error : 100 * error);
    return out;
}

static void tell_points(const fit_told *t)
{
    const law *l = t->f.law;
    printf("%-12s%s: %s\n", "law", l->name, l->formula);
    printf("%-12s%lld of %lld rows of %s (", "points", (long long)t->f.points->n,
           (long long)t->from->considered, t->table->source);
    for (int k = 0; k <= l->inputs; k++)
        printf("%s%s: %s", k ? ", " : "", k < l->inputs ? l->input[k].name : l->target, t->from->column[k]);
    printf(")\n");
    if (*t->from->left_out) printf("%-12s%s\n", "left out", t->from->left_out);
    if (t->from->grouped)
        printf("%-12s%lld, by %s\n", "groups", (long long)t->f.points->groups, t->from->grouped);
}

static void tell_quality(const fit *f)
{
    const law *l = f->law;
    char a[32], b[32];
    printf("%-12sR^2 %.5f, median error %s, root mean square %s, AIC %.1f\n", "goodness", f->r2,
           fit_error_text(l, f->median_error, a), fit_error_text(l, f->rms, b), f->aic);
    printf("%-12s%lld of %lld starts end here; condition %.2g; %s and %s correlate %.4f\n", "certainty",
           (long long)f->agreeing, (long long)f->starts, f->condition, l->param[f->twin[0]].name,
           l->param[f->twin[1]].name, f->correlation);
    if (f->held)
        printf("%-12sthe %lld largest, predicted from the other %lld: off by %s (median), %s at most\n",
               "held out", (long long)f->held, (long long)f->held_from, fit_error_text(l, f->held_median, a),
               fit_error_text(l, f->held_worst, b));
    else
        printf("%-12snothing: the other points would not determine the law\n", "held out");
}

static void tell_range(const char *before, double low, double high)
{
    if (isfinite(low)) printf("%s%.4g to %.4g", before, low, high);
}

static void tell_answers(const fit_told *t)
{
    const law *l = t->f.law;
    char at[160];
    for (i64 i = 0; i < t->n_predicted; i++) {
        const fit_prediction *p = &t->predicted[i];
        printf("%-12s%s: %s %.5g", "predicted", fit_point_text(l, p->x, at), l->target, p->value);
        tell_range("; the law ", p->low, p->high);
        tell_range("; one run ", p->run_low, p->run_high);
        puts("");
        if (p->beyond) fprintf(stderr, "warning: extrapolated: %s\n", p->beyond);
    }
    for (i64 i = 0; i < t->n_optimum; i++) {
        const fit_optimum_point *o = &t->optimum[i];
        printf("%-12s%.4g flops: %s %.5g at", "optimal", o->compute, l->target, o->at.value);
        for (int k = 0; k < l->inputs; k++) {
            printf("%s %s %.4g", k ? "," : "", l->input[k].name, o->at.x[k]);
            if (o->low[k] < o->high[k]) printf(" (%.4g to %.4g)", o->low[k], o->high[k]);
        }
        if (l->sizes == 1)
            printf("; %s/%s %.3g", l->input[1].name, l->input[0].name, o->at.x[1] / o->at.x[0]);
        puts("");
        if (o->at.beyond) fprintf(stderr, "warning: extrapolated: %s\n", o->at.beyond);
    }
}

void fit_tell_text(const fit_told *t)
{
    const fit *f = &t->f;
    tell_points(t);
    for (int k = 0; k < f->law->params; k++) {
        bool none = f->law->param[k].floor && f->value[k] < 1e-9; // its logarithm wandered off
        printf("%-12s%-12.5g", f->law->param[k].name, none ? 0 : f->value[k]);
        if (isfinite(f->low[k])) {
            printf(" %g%%: ", 100 * f->options.level);
            tell_range("", f->low[k], f->high[k]);
        }
        puts("");
    }
    tell_quality(f);
    for (i64 i = 0; i < f->warnings; i++) fprintf(stderr, "warning: %s\n", f->warning[i]);
    tell_answers(t);
}

/* ---- JSON */

static json_t *real(double x) { return isfinite(x) ? json_real(x) : json_null(); }
static json_t *range(double low, double high)
{
    json_t *a = json_array();
    json_array_append_new(a, real(low));
    json_array_append_new(a, real(high));
    return a;
}
static void set(json_t *o, const char *key, json_t *v) { json_object_set_new(o, key, v); }
static void set_text(json_t *o, const char *key, const char *s)
{
    set(o, key, s ? json_string(s) : json_null());
}

static json_t *json_prediction(const law *l, const fit_prediction *p)
{
    json_t *o = json_object(), *at = json_object();
    for (int k = 0; k < l->inputs; k++) set(at, l->input[k].name, real(p->x[k]));
    set(o, "at", at);
    set(o, "value", real(p->value));
    set(o, "interval", range(p->low, p->high));
    set(o, "run_interval", range(p->run_low, p->run_high));
    set_text(o, "extrapolated", p->beyond);
    return o;
}

static json_t *json_points(const fit_told *t)
{
    const law *l = t->f.law;
    json_t *o = json_object(), *columns = json_object();
    set_text(o, "source", t->table->source);
    for (int k = 0; k <= l->inputs; k++)
        set_text(columns, k < l->inputs ? l->input[k].name : l->target, t->from->column[k]);
    set(o, "columns", columns);
    set(o, "rows", json_integer(t->from->considered));
    set(o, "fitted", json_integer(t->f.points->n));
    set(o, "diverged", json_integer(t->from->diverged));
    set(o, "unfinished", json_integer(t->from->unfinished));
    set(o, "incomplete", json_integer(t->from->incomplete));
    set_text(o, "left_out", t->from->left_out);
    set_text(o, "grouped_by", t->from->grouped);
    set(o, "groups", t->from->grouped ? json_integer(t->f.points->groups) : json_null());
    return o;
}

static json_t *json_quality(const fit *f)
{
    json_t *o = json_object(), *held = f->held ? json_object() : json_null(), *twins = json_array();
    set(o, "r2", real(f->r2));
    set(o, f->law->absolute ? "median_error" : "median_relative_error", real(f->median_error));
    set(o, "rms", real(f->rms));
    set(o, "cost", real(f->cost));
    set(o, "aic", real(f->aic));
    set(o, "starts", json_integer(f->starts));
    set(o, "starts_agreeing", json_integer(f->agreeing));
    set(o, "condition", real(f->condition));
    for (int k = 0; k < 2; k++) json_array_append_new(twins, json_string(f->law->param[f->twin[k]].name));
    set(o, "most_correlated", twins);
    set(o, "correlation", real(f->correlation));
    set(o, "resamples", json_integer(f->replicas));
    set(o, "resamples_redrawn", json_integer(f->redrawn));
    if (f->held) {
        set(held, "points", json_integer(f->held));
        set(held, "median_error", real(f->held_median));
        set(held, "worst_error", real(f->held_worst));
    }
    set(o, "held_out", held);
    return o;
}

status fit_tell_json(const fit_told *t)
{
    const fit *f = &t->f;
    json_t *o = json_object(), *params = json_object(), *warnings = json_array(), *predicted = json_array();
    json_t *optimum = json_array();
    set_text(o, "law", f->law->name);
    set_text(o, "formula", f->law->formula);
    set(o, "points", json_points(t));
    for (int k = 0; k < f->law->params; k++) {
        json_t *p = json_object();
        set(p, "value", real(f->value[k]));
        set(p, "interval", range(f->low[k], f->high[k]));
        set(p, "least_squares", real(f->squares[k]));
        set(params, f->law->param[k].name, p);
    }
    set(o, "parameters", params);
    set(o, "huber", real(f->options.huber));
    set(o, "level", real(f->options.level));
    set(o, "quality", json_quality(f));
    for (i64 i = 0; i < f->warnings; i++) json_array_append_new(warnings, json_string(f->warning[i]));
    set(o, "warnings", warnings);
    for (i64 i = 0; i < t->n_predicted; i++)
        json_array_append_new(predicted, json_prediction(f->law, &t->predicted[i]));
    set(o, "predicted", predicted);
    for (i64 i = 0; i < t->n_optimum; i++) {
        json_t *p = json_prediction(f->law, &t->optimum[i].at), *ranges = json_object();
        set(p, "flops", real(t->optimum[i].compute));
        for (int k = 0; k < f->law->inputs; k++)
            set(ranges, f->law->input[k].name, range(t->optimum[i].low[k], t->optimum[i].high[k]));
        set(p, "at_interval", ranges);
        json_array_append_new(optimum, p);
    }
    set(o, "optimal", optimum);
    bool good = !json_dumpf(o, stdout, JSON_COMPACT | JSON_REAL_PRECISION(10));
    puts("");
    json_decref(o);
    return good ? OK : fail(ERR_MEMORY, "keel fit: cannot build the JSON object");
}

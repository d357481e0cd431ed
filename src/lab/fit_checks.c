/* How far a fit can be trusted: intervals by bootstrap, points held out, condition, warnings. See fit.h. */
#include "base/random.h"
#include "lab/fit.h"
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- bootstrap: rows, or whole groups of rows, drawn with replacement; each resample descends from the fit.
 * A resample with fewer different rows than parameters determines nothing and is drawn again. */

typedef struct draw {
    u64 seed, stream;
    i64 count, redrawn;
} draw;

static i64 groups_of(const law_points *p) { return p->group ? p->groups : p->n; }

/* WEIGHT[n]: how often each row was drawn. False: too few different rows after many tries. */
static bool resample(const fit *f, draw *d, i64 *times, double *weight)
{
    const law_points *p = f->points;
    i64 groups = groups_of(p);
    for (int attempt = 0; attempt < 200; attempt++) {
        i64 rows = 0;
        memset(times, 0, sizeof *times * (size_t)groups);
        for (i64 k = 0; k < groups; k++)
            times[(i64)(random_uniform(d->seed, d->stream, (u64)d->count, (u64)k) * (double)groups)]++;
        d->count++;
        for (i64 i = 0; i < p->n; i++) {
            weight[i] = (double)times[p->group ? p->group[i] : i];
            rows += weight[i] > 0;
        }
        if (rows >= f->law->params) return true;
        d->redrawn++;
    }
    return false;
}

static void set_intervals(fit *f)
{
    double natural[LAW_PARAMS], *values = arena_array(f->arena, double, f->replicas + 1);
    double tail = (1 - f->options.level) / 2;
    for (int k = 0; k < f->law->params; k++) {
        for (i64 i = 0; i < f->replicas; i++) {
            law_natural(f->law, f->replica[i], natural);
            values[i] = natural[k];
        }
        f->low[k] = fit_quantile(values, f->replicas, tail);
        f->high[k] = fit_quantile(values, f->replicas, 1 - tail);
    }
}

status fit_bootstrap(fit *f, fit_space *s)
{
    draw d = {f->options.seed, random_stream("fit/bootstrap"), 0, 0};
    i64 *times = arena_array(f->arena, i64, groups_of(f->points));
    double *weight = arena_array(f->arena, double, f->points->n);
    f->replica = arena_alloc(f->arena, sizeof *f->replica * (size_t)f->options.bootstrap);
    for (i64 b = 0; b < f->options.bootstrap; b++) {
        double theta[LAW_PARAMS];
        memcpy(theta, f->theta, sizeof theta);
        if (!resample(f, &d, times, weight)) break;
        if (isfinite(fit_descend(s, weight, theta))) memcpy(f->replica[f->replicas++], theta, sizeof theta);
    }
    f->redrawn = d.redrawn;
    set_intervals(f);
    return OK;
}

/* ---- held out: the fifth of the points that is largest by compute (else by the first input) */

typedef struct ranked {
    double size;
    i64 at;
} ranked;

static int by_size(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    return x->size != y->size ? (x->size > y->size) - (x->size < y->size) : (x->at > y->at) - (x->at < y->at);
}

static double size_of(const law *l, const double *x)
{
    double sum = 0;
    for (int k = 0; k < l->sizes; k++) sum += x[k];
    return l->sizes ? sum * x[l->sizes] : x[0];
}

status fit_hold_out(fit *f)
{
    const law_points *p = f->points;
    i64 held = MAX(1, p->n / 5), kept = p->n - held;
    if (kept < f->law->params) return OK;
    ranked *rank = arena_array(f->arena, ranked, p->n);
    double(*x)[LAW_INPUTS] = arena_alloc(f->arena, sizeof *x * (size_t)kept);
    double *y = arena_array(f->arena, double, p->n);
    for (i64 i = 0; i < p->n; i++) rank[i] = (ranked){size_of(f->law, p->x[i]), i};
    qsort(rank, (size_t)p->n, sizeof *rank, by_size);
    for (i64 i = 0; i < kept; i++) {
        memcpy(x[i], p->x[rank[i].at], sizeof *x);
        y[i] = p->y[rank[i].at];
    }
    law_points rest = {.n = kept, .x = x, .y = y};
    fit_options o = {.huber = f->options.huber, .no_checks = true};
    fit part;
    status e = fit_law(f->law, &rest, &o, f->arena, &part);
    if (e) return status_drop(e), OK; // too little is left to determine it: held stays 0
    for (i64 i = 0; i < held; i++) {
        i64 at = rank[kept + i].at;
        double said = law_value(f->law, part.theta, p->x[at]);
        y[i] = fabs(f->law->absolute ? said - p->y[at] : said / p->y[at] - 1);
        f->held_worst = fmax(f->held_worst, y[i]);
    }
    f->held = held, f->held_from = kept;
    f->held_median = fit_quantile(y, held, 0.5);
    return OK;
}

/* ---- condition: eigenvalues of J'J with columns of length 1, by Jacobi's rotations */

static void rotate(double m[LAW_PARAMS][LAW_PARAMS], double v[LAW_PARAMS][LAW_PARAMS], int n, int p, int q)
{
    if (m[p][q] == 0) return;
    double angle = (m[q][q] - m[p][p]) / (2 * m[p][q]);
    double t = (angle < 0 ? -1 : 1) / (fabs(angle) + sqrt(angle * angle + 1)), c = 1 / sqrt(t * t + 1),
           s = t * c;
    for (int k = 0; k < n; k++) {
        double a = m[k][p], b = m[k][q];
        m[k][p] = c * a - s * b, m[k][q] = s * a + c * b;
    }
    for (int k = 0; k < n; k++) {
        double a = m[p][k], b = m[q][k], x = v[k][p], y = v[k][q];
        m[p][k] = c * a - s * b, m[q][k] = s * a + c * b;
        v[k][p] = c * x - s * y, v[k][q] = s * x + c * y;
    }
}

/* The pair whose covariance, the inverse of J'J, is nearest to 1 or -1. */
static void find_twins(fit *f, double m[LAW_PARAMS][LAW_PARAMS], double v[LAW_PARAMS][LAW_PARAMS], int n)
{
    double inverse[LAW_PARAMS][LAW_PARAMS] = {0};
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++)
            for (int k = 0; k < n; k++) inverse[i][j] += v[i][k] * v[j][k] / fmax(m[k][k], 1e-300);
    f->correlation = 0;
    for (int i = 0; i < n; i++)
        for (int j = i + 1; j < n; j++) {
            double c = inverse[i][j] / sqrt(inverse[i][i] * inverse[j][j]);
            if (!(fabs(c) > fabs(f->correlation))) continue;
            f->correlation = fmax(-1, fmin(1, c)), f->twin[0] = i, f->twin[1] = j;
        }
}

void fit_condition(fit *f, fit_space *s)
{
    double m[LAW_PARAMS][LAW_PARAMS] = {0}, v[LAW_PARAMS][LAW_PARAMS] = {0}, length[LAW_PARAMS] = {0};
    int n = f->law->params;
    double *j = arena_array(f->arena, double, f->points->n *n);
    fit_jacobian(s, f->theta, j);
    for (i64 i = 0; i < f->points->n; i++)
        for (int a = 0; a < n; a++) length[a] += j[i * n + a] * j[i * n + a];
    for (i64 i = 0; i < f->points->n; i++)
        for (int a = 0; a < n; a++)
            for (int b = 0; b < n; b++)
                m[a][b] += length[a] > 0 && length[b] > 0
                               ? j[i * n + a] / sqrt(length[a]) * (j[i * n + b] / sqrt(length[b]))
                               : 0;
    for (int a = 0; a < n; a++) v[a][a] = 1;
    for (int sweep = 0; sweep < 40; sweep++)
        for (int a = 0; a < n; a++)
            for (int b = a + 1; b < n; b++) rotate(m, v, n, a, b);
    double low = INFINITY, high = 0;
    for (int a = 0; a < n; a++) low = fmin(low, m[a][a]), high = fmax(high, m[a][a]);
    f->condition = low > high * 1e-15 ? sqrt(high / low) : INFINITY;
    find_twins(f, m, v, n);
}

/* ---- warnings */

void fit_warn(fit *f, const char *format, ...)
{
    char line[512];
    va_list args;
    if (f->warnings == COUNT(f->warning)) return;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    f->warning[f->warnings++] = arena_strdup(f->arena, line);
}

/* Is an irreducible part as good as 0? */
static bool at_floor(const fit *f, double value)
{
    double least = f->points->y[0];
    for (i64 i = 0; i < f->points->n; i++) least = fmin(least, f->points->y[i]);
    return value < 0.02 * least;
}

static void judge_bounds(fit *f)
{
    for (int k = 0; k < f->law->params; k++) {
        const law_param *p = &f->law->param[k];
        if (p->floor && at_floor(f, f->value[k]))
            fit_warn(f,
                     "%s is at its bound, 0: the points do not show where the loss ends; do not extrapolate",
                     p->name);
        else if (p->floor && f->replicas && at_floor(f, f->low[k]))
            fit_warn(f, "the interval of %s reaches 0: the points hardly show where the loss ends", p->name);
        if (p->exponent && !(f->value[k] > 0.01))
            fit_warn(f, "%s is %.3g: the term it belongs to hardly changes over the points", p->name,
                     f->value[k]);
        if (p->exponent && f->value[k] > 3)
            fit_warn(f, "%s is %.3g: only the smallest of the points determine its term", p->name,
                     f->value[k]);
    }
}

static void judge_losses(fit *f)
{
    if (!f->replicas) return;
    for (int k = 0; k < f->law->params; k++) {
        if (f->squares[k] >= f->low[k] && f->squares[k] <= f->high[k]) continue;
        if (fabs(f->squares[k] - f->value[k]) <= 1e-4 * fabs(f->value[k])) continue;
        if (f->law->param[k].floor && at_floor(f, f->squares[k]) && at_floor(f, f->value[k])) continue;
        fit_warn(f,
                 "least squares puts %s at %.4g, outside of the interval: outliers, or points that do not "
                 "determine it",
                 f->law->param[k].name, f->squares[k]);
    }
}

void fit_judge(fit *f)
{
    const law *l = f->law;
    if (f->points->n < 3 * l->params)
        fit_warn(f, "%lld points for %d parameters: fewer than three each; intervals are too narrow",
                 (long long)f->points->n, l->params);
    if (f->points->group && f->points->groups < 3 * l->params)
        fit_warn(f, "%lld groups of rows for %d parameters: fewer than three each; intervals are too narrow",
                 (long long)f->points->groups, l->params);
    if (f->options.bootstrap > f->replicas)
        fit_warn(f, "%lld of %lld resamples gave no fit: the intervals lack them",
                 (long long)(f->options.bootstrap - f->replicas), (long long)f->options.bootstrap);
    if (f->replicas && (double)f->replicas * (1 - f->options.level) < 2)
        fit_warn(f, "%lld resamples are too few for intervals of %g%%: at least %.0f", (long long)f->replicas,
                 100 * f->options.level, ceil(2 / (1 - f->options.level) - 1e-6));
    judge_bounds(f);
    if (f->condition > 5e3)
        fit_warn(f, "ill-conditioned (%.1e): %s and %s move together (correlation %.4f)", f->condition,
                 l->param[f->twin[0]].name, l->param[f->twin[1]].name, f->correlation);
    judge_losses(f);
    if (f->held && f->held_median > 5 * fmax(f->median_error, 1e-6))
        fit_warn(
            f, "the largest points, predicted from the rest, are off by %.2g, the points of the fit by %.2g",
            f->held_median, f->median_error);
}

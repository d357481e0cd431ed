/* The solver and the whole of a fit: see fit.h.
 *
 * Levenberg-Marquardt (MINPACK's lmder, by cminpack: BSD, reentrant; GSL's GPL would bind Keel's users, NLopt
 * has no least squares) on f_i = sign(r) sqrt(2 rho(r)), rho Huber's loss: sum f^2 / 2 is the sum of Huber's
 * losses, and f has a continuous derivative. Derivatives by a step of 1e-200 i: exact (Squire and Trapp,
 * 1998).
 *
 * Starts: over the grid of the parameters that are not linear; the linear ones from weighted least squares
 * (the law's basis), those that came out negative from a small share. */
#include "lab/fit.h"
#include <cminpack.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct fit_space {
    const law *law;
    const law_points *p;
    double huber;
    const double *weight;
    double *f, *jacobian, *columns, *wanted, *work;
};

status fit_space_open(const law *l, const law_points *p, double huber, fit_space **out)
{
    fit_space *s;
    size_t n = (size_t)p->n, m = (size_t)l->params;
    size_t doubles = n * (1 + m + m + 1 + 1) + 8;
    TRY(mem_alloc(sizeof *s + 64 + doubles * sizeof(double), "fit", &s));
    double *at = (double *)((char *)s + (sizeof *s + 63) / 64 * 64);
    *s = (fit_space){.law = l, .p = p, .huber = huber};
    s->f = at, s->jacobian = s->f + n, s->columns = s->jacobian + n * m, s->wanted = s->columns + n * m;
    s->work = s->wanted + n;
    *out = s;
    return OK;
}

void fit_space_close(fit_space *s) { mem_free(s); }

static law_number residual(const law *l, const law_number *t, const double *x, double y)
{
    law_number v = l->predict(t, x);
    if (l->absolute) return v - y;
    if (!(creal(v) > 0)) return NAN;
    return clog(v) - log(y);
}

double fit_residual(const law *l, const double *theta, const double *x, double y)
{
    law_number t[LAW_PARAMS];
    for (int k = 0; k < l->params; k++) t[k] = theta[k];
    return creal(residual(l, t, x, y));
}

/* f of r, and its derivative by r. */
static double robust(double r, double huber, double *slope)
{
    *slope = 1;
    if (fabs(r) <= huber) return r;
    double f = sqrt(huber * (2 * fabs(r) - huber));
    *slope = huber / f;
    return r < 0 ? -f : f;
}

static double weight_of(const fit_space *s, int i) { return s->weight ? sqrt(s->weight[i]) : 1; }

static int evaluate(void *context, int n, int m, const double *theta, double *f, double *j, int rows,
                    int what)
{
    static const double step = 1e-200;
    fit_space *s = context;
    double slope;
    for (int i = 0; i < n; i++) {
        double w = weight_of(s, i);
        law_number t[LAW_PARAMS];
        for (int k = 0; k < m; k++) t[k] = theta[k];
        if (what == 1) {
            f[i] =
                w > 0 ? w * robust(creal(residual(s->law, t, s->p->x[i], s->p->y[i])), s->huber, &slope) : 0;
            continue;
        }
        for (int k = 0; k < m; k++) {
            j[k * rows + i] = 0;
            if (!(w > 0)) continue;
            t[k] = theta[k] + step * I;
            law_number r = residual(s->law, t, s->p->x[i], s->p->y[i]);
            t[k] = theta[k];
            robust(creal(r), s->huber, &slope);
            j[k * rows + i] = w * slope * cimag(r) / step;
        }
    }
    return 0;
}

void fit_jacobian(fit_space *s, const double *theta, double *j)
{
    int n = (int)s->p->n, m = s->law->params;
    evaluate(s, n, m, theta, s->f, s->jacobian, n, 2);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < m; k++) j[i * m + k] = s->jacobian[k * n + i];
}

static double cost_at(fit_space *s, const double *theta)
{
    double sum = 0;
    int n = (int)s->p->n;
    evaluate(s, n, s->law->params, theta, s->f, NULL, n, 1);
    for (int i = 0; i < n; i++) sum += s->f[i] * s->f[i] / 2;
    return sum;
}

double fit_descend(fit_space *s, const double *weight, double *theta)
{
    enum { ROUNDS = 30, CALLS = 200 };
    double diag[LAW_PARAMS], qtf[LAW_PARAMS], a[LAW_PARAMS], b[LAW_PARAMS], c[LAW_PARAMS], last;
    int pivot[LAW_PARAMS], calls, slopes, n = (int)s->p->n, m = s->law->params;
    s->weight = weight;
    double cost = cost_at(s, theta);
    for (int k = 0; k < ROUNDS && isfinite(cost) && cost > 0; k++) {
        double t[LAW_PARAMS];
        memcpy(t, theta, sizeof t);
        lmder(evaluate, s, n, m, t, s->f, s->jacobian, n, 1e-15, 1e-13, 0, CALLS, diag, 1, k ? 1 : 100, 0,
              &calls, &slopes, pivot, qtf, a, b, c, s->work);
        last = cost, cost = cost_at(s, t);
        if (!(cost <= last)) return last;
        memcpy(theta, t, sizeof t);
        if (last - cost <= 1e-10 * last) break;
    }
    return cost;
}

/* The linear parameters of THETA, those without a grid, from the points. False: they cannot be told apart. */
static bool solve_linear(fit_space *s, double *theta)
{
    const law *l = s->law;
    double row[LAW_PARAMS], c[LAW_PARAMS];
    int n = 0, at = 0;
    for (int k = 0; k < l->params; k++) n += !l->param[k].n_grid;
    if (!n) return true;
    for (i64 i = 0; i < s->p->n; i++) {
        double left = l->basis(theta, s->p->x[i], row), y = s->p->y[i];
        double w = l->basis_of_log || l->absolute ? 1 : 1 / y; // an error of y / y is one of ln y
        for (int k = 0; k < n; k++) s->columns[i * n + k] = w * row[k];
        s->wanted[i] = w * ((l->basis_of_log ? log(y) : y) - left);
    }
    if (!law_solve(s->columns, s->wanted, s->p->n, n, c)) return false;
    for (int k = 0; k < l->params; k++) {
        if (l->param[k].n_grid) continue;
        if (!l->basis_of_log && l->param[k].kind == LAW_POSITIVE) {
            double column = 0, y = 0;
            for (i64 i = 0; i < s->p->n; i++) column += fabs(s->columns[i * n + at]), y += fabs(s->wanted[i]);
            theta[k] = log(c[at] > 0 ? c[at] : 0.02 * y / column);
        } else
            theta[k] = c[at];
        at++;
    }
    return true;
}

/* The K-th combination of the grid into THETA; false: there are fewer. */
static bool combination(const law *l, i64 k, double *theta)
{
    for (int i = 0; i < l->params; i++) {
        int n = l->param[i].n_grid;
        theta[i] = n ? l->param[i].grid[k % n] : 0;
        if (n) k /= n;
    }
    return !k;
}

double fit_search(fit_space *s, double *theta, i64 *tried, i64 *agreeing)
{
    static double none[1];
    double(*from)[LAW_PARAMS], *ends = none, best = NAN;
    i64 n = 0, same = 0;
    s->weight = NULL;
    status e = mem_alloc(LAW_STARTS * (sizeof *from + sizeof(double)), "starts", &from);
    if (e) return status_drop(e), NAN;
    ends = (double *)(from + LAW_STARTS);
    if (s->law->starts)
        n = s->law->starts(s->p, from, LAW_STARTS);
    else
        for (i64 k = 0; n < LAW_STARTS && combination(s->law, k, from[n]); k++) n += solve_linear(s, from[n]);
    for (i64 i = 0; i < n; i++) {
        ends[i] = fit_descend(s, NULL, from[i]);
        if (!(ends[i] < best) && !(isfinite(ends[i]) && !isfinite(best))) continue;
        best = ends[i];
        memcpy(theta, from[i], sizeof *from);
    }
    for (i64 i = 0; i < n; i++) same += ends[i] <= best * 1.001 + 1e-18 * (double)s->p->n;
    mem_free(from);
    if (tried) *tried = n;
    if (agreeing) *agreeing = same;
    return best;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double fit_quantile(double *v, i64 n, double share) // Hyndman and Fan's type 7
{
    if (!n) return NAN;
    qsort(v, (size_t)n, sizeof *v, ascending);
    double at = share * (double)(n - 1);
    i64 i = MIN((i64)at, n - 2 < 0 ? 0 : n - 2), j = MIN(i + 1, n - 1);
    return v[i] + (v[j] - v[i]) * (at - (double)i);
}

/* ---- what may be fitted at all */

static i64 different(const law_points *p, int input, i64 n, double *seen)
{
    i64 count = 0;
    for (i64 i = 0; i < p->n; i++) {
        i64 k = 0;
        while (k < count && seen[k] != p->x[i][input]) k++;
        if (k == count && count < n) seen[count++] = p->x[i][input];
    }
    return count;
}

static status check_values(const law *l, const law_points *p)
{
    double seen[64];
    for (int k = 0; k < l->inputs; k++) {
        const law_input *in = &l->input[k];
        i64 n = different(p, k, in->least, seen);
        if (n == 1)
            return fail(
                ERR_INPUT,
                "%s is %g in all of the %lld points: the law %s asks how %s depends on it; add runs with "
                "other values",
                in->name, seen[0], (long long)p->n, l->name, l->target);
        if (n < in->least)
            return fail(
                ERR_INPUT,
                "%s has %lld different values in the points; the law %s is determined by at least %d: add "
                "runs with other values",
                in->name, (long long)n, l->name, in->least);
    }
    if (!l->per_value) return OK;
    i64 sizes = different(p, 0, COUNT(seen), seen), good = 0;
    for (i64 i = 0; i < sizes; i++) {
        double other[LAW_PARAMS];
        i64 count = 0;
        for (i64 r = 0; r < p->n; r++) {
            i64 k = 0;
            if (p->x[r][0] != seen[i]) continue;
            while (k < count && other[k] != p->x[r][1]) k++;
            if (k == count && count < l->per_value) other[count++] = p->x[r][1];
        }
        good += count == l->per_value;
    }
    if (good >= l->input[0].least) return OK;
    return fail(
        ERR_INPUT,
        "%lld values of %s have at least %d values of %s each; the law %s is determined by at least %d: "
        "add runs, or fit chinchilla",
        (long long)good, l->input[0].name, l->per_value, l->input[1].name, l->name, l->input[0].least);
}

static status check_points(const law *l, const law_points *p)
{
    if (p->n < l->params)
        return fail(ERR_INPUT,
                    "%lld points for the %d parameters of the law %s; add runs: at least %d, better %d",
                    (long long)p->n, l->params, l->name, l->params, 3 * l->params);
    for (i64 i = 0; i < p->n; i++) {
        if (!isfinite(p->y[i]) || (!l->absolute && !(p->y[i] > 0)))
            return fail(ERR_INPUT, "point %lld: %s is %g; it must be %s", (long long)i + 1, l->target,
                        p->y[i], l->absolute ? "finite" : "above 0");
        for (int k = 0; k < l->inputs; k++)
            if (!(p->x[i][k] > l->input[k].above) || !isfinite(p->x[i][k]))
                return fail(ERR_INPUT, "point %lld: %s is %g; it must be above %g", (long long)i + 1,
                            l->input[k].name, p->x[i][k], l->input[k].above);
    }
    return check_values(l, p);
}

/* ---- the whole */

static void measure(fit *f)
{
    const law_points *p = f->points;
    double mean = 0, left = 0, all = 0, *error = arena_array(f->arena, double, p->n);
    for (i64 i = 0; i < p->n; i++) mean += (f->law->absolute ? p->y[i] : log(p->y[i])) / (double)p->n;
    for (i64 i = 0; i < p->n; i++) {
        double r = fit_residual(f->law, f->theta, p->x[i], p->y[i]);
        left += r * r;
        all += pow((f->law->absolute ? p->y[i] : log(p->y[i])) - mean, 2);
        error[i] = f->law->absolute ? fabs(r) : fabs(expm1(r));
    }
    f->r2 = all > 0 ? 1 - left / all : NAN;
    f->rms = sqrt(left / (double)p->n);
    f->aic = (double)p->n * log(fmax(left, 1e-300) / (double)p->n) + 2 * f->law->params;
    f->median_error = fit_quantile(error, p->n, 0.5);
    for (int k = 0; k < f->law->inputs; k++) {
        f->least[k] = f->most[k] = p->x[0][k];
        for (i64 i = 1; i < p->n; i++)
            f->least[k] = fmin(f->least[k], p->x[i][k]), f->most[k] = fmax(f->most[k], p->x[i][k]);
    }
}

static status with_least_squares(fit *f)
{
    fit_space *s;
    double theta[LAW_PARAMS] = {0}, other[LAW_PARAMS];
    memcpy(other, f->theta, sizeof other);
    TRY(fit_space_open(f->law, f->points, INFINITY, &s));
    double a = fit_search(s, theta, NULL, NULL), b = fit_descend(s, NULL, other);
    fit_space_close(s);
    law_natural(f->law, b <= a ? other : theta, f->squares);
    return OK;
}

static status fit_within(fit *f, fit_space *s)
{
    f->cost = fit_search(s, f->theta, &f->starts, &f->agreeing);
    if (!isfinite(f->cost))
        return fail(
            ERR_NUMERIC,
            "the law %s: none of %lld starts led to a fit; do the columns hold what they are named for?",
            f->law->name, (long long)f->starts);
    law_natural(f->law, f->theta, f->value);
    measure(f);
    fit_condition(f, s);
    for (int k = 0; k < f->law->params; k++) f->low[k] = f->high[k] = f->squares[k] = NAN;
    if (f->options.bootstrap > 0) TRY(fit_bootstrap(f, s));
    if (f->options.no_checks) return OK;
    TRY(with_least_squares(f));
    TRY(fit_hold_out(f));
    fit_judge(f);
    return OK;
}

status fit_law(const law *l, const law_points *p, const fit_options *o, arena *a, fit *out)
{
    fit_space *s;
    *out = (fit){.law = l, .points = p, .options = *o, .arena = a};
    TRY(check_points(l, p));
    TRY(fit_space_open(l, p, o->huber, &s));
    status e = fit_within(out, s);
    fit_space_close(s);
    return e;
}

/* keel fit --html: parameters, the law through the points, its residuals, what it says elsewhere. */
#include "cli/fit_parts.h"
#include "format/report.h"
#include <math.h>
#include <string.h>

enum { CURVES = 6, STEPS = 60 };

static i64 different(const law_points *p, int input)
{
    i64 n = 0;
    for (i64 i = 0; i < p->n; i++) {
        i64 k = 0;
        while (k < i && p->x[k][input] != p->x[i][input]) k++;
        n += k == i;
    }
    return n;
}

/* Do rows I and K differ in no input but ACROSS? */
static bool alike(const fit *f, i64 i, i64 k, int across)
{
    for (int j = 0; j < f->law->inputs; j++)
        if (j != across && f->points->x[i][j] != f->points->x[k][j]) return false;
    return true;
}

/* The law as a faint curve and the points on it that share all other inputs with row I. */
static void draw_curve(const fit *f, arena *a, i64 i, int across, report_line *out)
{
    const law_points *p = f->points;
    double *x = arena_array(a, double, STEPS), *y = arena_array(a, double, STEPS), at[LAW_INPUTS];
    double *px = arena_array(a, double, p->n), *py = arena_array(a, double, p->n);
    text label = {0};
    i64 n = 0;
    memcpy(at, p->x[i], sizeof at);
    for (i64 k = 0; k < p->n; k++)
        if (alike(f, i, k, across)) px[n] = log10(p->x[k][across]), py[n++] = p->y[k];
    for (int k = 0; k < STEPS; k++) {
        double low = log10(f->least[across]), high = log10(f->most[across]);
        x[k] = low + (high - low) * k / (STEPS - 1);
        at[across] = pow(10, x[k]);
        y[k] = law_value(f->law, f->theta, at);
    }
    for (int j = 0; j < f->law->inputs; j++)
        if (j != across)
            text_add(&label, "%s%s = %.3g", label.bytes ? ", " : "", f->law->input[j].name, p->x[i][j]);
    out[0] = (report_line){.style = REPORT_FAINT, .x = x, .y = y, .n = STEPS};
    out[1] = (report_line){.label = arena_strdup(a, label.bytes ? label.data : "points; the law behind them"),
                           .style = REPORT_DOTS,
                           .x = px,
                           .y = py,
                           .n = n};
    text_free(&label);
}

/* Up to CURVES groups of points that differ in one input only, spread over all such groups. */
static i64 draw_curves(const fit *f, arena *a, int across, report_line *line)
{
    const law_points *p = f->points;
    i64 *first = arena_array(a, i64, p->n), groups = 0, shown;
    for (i64 i = 0; i < p->n; i++) {
        i64 k = 0;
        while (k < i && !alike(f, i, k, across)) k++;
        if (k == i) first[groups++] = i;
    }
    shown = MIN(groups, CURVES);
    for (i64 g = 0; g < shown; g++)
        draw_curve(f, a, first[shown > 1 ? g * (groups - 1) / (shown - 1) : 0], across, line + 2 * g);
    return 2 * shown;
}

static report_line draw_residuals(const fit *f, arena *a)
{
    const law_points *p = f->points;
    double *x = arena_array(a, double, p->n), *y = arena_array(a, double, p->n);
    for (i64 i = 0; i < p->n; i++) {
        x[i] = law_value(f->law, f->theta, p->x[i]);
        y[i] = f->law->absolute ? p->y[i] - x[i] : 100 * (p->y[i] / x[i] - 1);
    }
    return (report_line){.style = REPORT_DOTS, .x = x, .y = y, .n = p->n};
}

static const char *with_range(arena *a, double value, double low, double high)
{
    return isfinite(low) ? arena_printf(a, "%.5g (%.4g to %.4g)", value, low, high)
                         : arena_printf(a, "%.5g", value);
}

static i64 put_parameters(const fit *f, arena *a, const char **cell)
{
    i64 at = 0;
    cell[at++] = "parameter", cell[at++] = "value", cell[at++] = "interval", cell[at++] = "by least squares";
    for (int k = 0; k < f->law->params; k++) {
        cell[at++] = arena_printf(a, "%s: %s", f->law->param[k].name, f->law->param[k].help);
        cell[at++] = arena_printf(a, "%.5g", f->value[k]);
        cell[at++] = isfinite(f->low[k]) ? arena_printf(a, "%.4g to %.4g", f->low[k], f->high[k]) : "-";
        cell[at++] = arena_printf(a, "%.5g", f->squares[k]);
    }
    return f->law->params + 1;
}

static i64 put_answers(const fit_told *t, arena *a, const char **cell)
{
    char at[160];
    const law *l = t->f.law;
    i64 n = 0;
    cell[n++] = "where", cell[n++] = l->target, cell[n++] = "one run", cell[n++] = "extrapolated";
    for (i64 i = 0; i < t->n_predicted + t->n_optimum; i++) {
        const fit_optimum_point *o = i < t->n_predicted ? NULL : &t->optimum[i - t->n_predicted];
        const fit_prediction *p = o ? &o->at : &t->predicted[i];
        fit_point_text(l, p->x, at);
        cell[n++] = o ? arena_printf(a, "best for %.3g flops: %s", o->compute, at) : arena_strdup(a, at);
        cell[n++] = with_range(a, p->value, p->low, p->high);
        cell[n++] = isfinite(p->run_low) ? arena_printf(a, "%.4g to %.4g", p->run_low, p->run_high) : "-";
        cell[n++] = p->beyond ? p->beyond : "no";
    }
    return n / 4;
}

static i64 put_facts(const fit_told *t, arena *a, report_row *row)
{
    const fit *f = &t->f;
    i64 n = 0;
    row[n++] = (report_row){"table", t->table->source};
    for (int k = 0; k <= f->law->inputs; k++)
        row[n++] =
            (report_row){k < f->law->inputs ? f->law->input[k].name : f->law->target, t->from->column[k]};
    if (*t->from->left_out) row[n++] = (report_row){"left out", t->from->left_out};
    row[n++] = (report_row){"starts", arena_printf(a, "%lld of %lld end in this minimum",
                                                   (long long)f->agreeing, (long long)f->starts)};
    row[n++] = (report_row){"condition", arena_printf(a, "%.3g", f->condition)};
    row[n++] = (report_row){"resamples", arena_printf(a, "%lld", (long long)f->replicas)};
    row[n++] = (report_row){"source of the law", f->law->source};
    for (i64 i = 0; i < f->warnings; i++) row[n++] = (report_row){"warning", f->warning[i]};
    return n;
}

status fit_tell_page(const fit_told *t, const char *path, arena *a)
{
    const fit *f = &t->f;
    const law *l = f->law;
    char error[32], held[32];
    const char *answers[4 * (2 * MOST_ASKED + 1)], *params[4 * (LAW_PARAMS + 1)];
    report_line line[2 * CURVES], residuals = draw_residuals(f, a);
    report_row fact[48];
    int across = 0;
    for (int k = 1; k < l->inputs; k++)
        if (different(f->points, k) > different(f->points, across)) across = k;
    report_figure figure[] = {
        {"points", arena_printf(a, "%lld", (long long)f->points->n),
         *t->from->left_out ? t->from->left_out : "none left out"},
        {"R\xc2\xb2", arena_printf(a, "%.5f", f->r2), l->absolute ? "of the values" : "of their logarithms"},
        {"median error", fit_error_text(l, f->median_error, error), "of the points"},
        {"held out", f->held ? fit_error_text(l, f->held_median, held) : "-",
         "median error of the largest points"}};
    report_chart chart[] = {{.title = l->formula,
                             .x_label = arena_printf(a, "log10 %s", l->input[across].name),
                             .y_label = l->target,
                             .x_free = true,
                             .lines = line,
                             .n_lines = draw_curves(f, a, across, line)},
                            {.title = "What the law leaves",
                             .x_label = arena_printf(a, "%s, as the law has it", l->target),
                             .y_label = l->absolute ? "measured less that" : "measured less that, %",
                             .x_free = true,
                             .from_zero = true,
                             .lines = &residuals,
                             .n_lines = 1}};
    report_grid grid[] = {{"Parameters", params, put_parameters(f, a, params), 4},
                          {"What it says", answers, put_answers(t, a, answers), 4}};
    return report_write(&(report_page){.title = l->title,
                                       .subtitle = t->table->source,
                                       .figures = figure,
                                       .n_figures = COUNT(figure),
                                       .charts = chart,
                                       .n_charts = COUNT(chart),
                                       .grids = grid,
                                       .n_grids = t->n_predicted + t->n_optimum ? 2 : 1,
                                       .facts = fact,
                                       .n_facts = put_facts(t, a, fact)},
                        path);
}

/* Runs side by side: see run_compare.h. */
#include "train/run_compare.h"
#include "base/text.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

run_figures run_figures_of(const run_files *r)
{
    const metrics_series *loss = metrics_find(&r->metrics, "loss"),
                         *val_loss = metrics_find(&r->metrics, "val_loss"),
                         *bits = metrics_find(&r->metrics, "val_bits_per_byte");
    run_figures f = {.steps = run_files_number(r, "steps"),
                     .tokens = run_files_number(r, "tokens"),
                     .parameters = run_files_number(r, "parameters"),
                     .loss = series_tail(loss),
                     .val_loss = run_files_number(r, "loss"),
                     .best_val_loss = series_lowest(val_loss),
                     .val_bits_per_byte = run_files_number(r, "val_bits_per_byte"),
                     .best_val_bits_per_byte = series_lowest(bits),
                     .tokens_per_s = series_tail(metrics_find(&r->metrics, "tokens_per_s")),
                     .seconds = run_files_number(r, "seconds")};
    if (!isfinite(f.steps) && loss && loss->n) f.steps = loss->step[loss->n - 1];
    if (!isfinite(f.val_loss)) f.val_loss = series_last(val_loss);
    if (!isfinite(f.val_bits_per_byte)) f.val_bits_per_byte = series_last(bits);
    return f;
}

static const char *show_figure(arena *a, double x, const char *form)
{
    char shown[32];
    if (!isfinite(x)) return "-";
    return arena_strdup(a, !strcmp(form, "count")  ? show_count(x, shown)
                           : !strcmp(form, "%.0f") ? arena_printf(a, "%.0f", x)
                           : !strcmp(form, "%.1f") ? arena_printf(a, "%.1f", x)
                                                   : arena_printf(a, "%.4f", x));
}

/* A table [most, 1 + n] with its head. */
static const char **cells_with_head(arena *a, const run_files *runs, i64 n, i64 most)
{
    const char **cells = arena_array(a, const char *, (most + 1) * (n + 1));
    const char *const *labels = run_labels(a, runs, n);
    cells[0] = "";
    for (i64 i = 0; i < n; i++) cells[i + 1] = labels[i];
    return cells;
}

const char *const *run_figure_cells(arena *a, const run_files *runs, i64 n, i64 *rows)
{
    enum { MOST = sizeof(run_figures) / sizeof(double) };
    const char **cells = cells_with_head(a, runs, n, MOST + 1);
    cells[n + 1] = "status";
    for (i64 i = 0; i < n; i++) {
        const char *how = json_string_value(json_object_get(runs[i].summary, "status"));
        cells[n + 2 + i] = how ? how : "-";
    }
    *rows = 2;
#define FIGURE(name, label, form)                                                                            \
    {                                                                                                        \
        bool any = false;                                                                                    \
        const char **row = cells + *rows * (n + 1);                                                          \
        row[0] = label;                                                                                      \
        for (i64 i = 0; i < n; i++) {                                                                        \
            double x = run_figures_of(&runs[i]).name;                                                        \
            any |= isfinite(x);                                                                              \
            row[i + 1] = show_figure(a, x, form);                                                            \
        }                                                                                                    \
        *rows += any;                                                                                        \
    }
    RUN_FIGURES(FIGURE)
#undef FIGURE
    return cells;
}

typedef struct setting {
    const char *key, *value;
    i64 run;
} setting;

static int by_key(const void *a, const void *b)
{
    const setting *x = a, *y = b;
    int order = strcmp(x->key, y->key);
    return order ? order : (x->run > y->run) - (x->run < y->run);
}

void run_differences(arena *a, const run_files *runs, i64 n, run_difference **out, i64 *n_out)
{
    i64 total = 0, at = 0;
    for (i64 i = 0; i < n; i++) total += runs[i].n_config;
    setting *all = arena_array(a, setting, total);
    for (i64 i = 0; i < n; i++)
        for (i64 k = 0; k < runs[i].n_config; k++)
            all[at++] = (setting){runs[i].config[k].key, runs[i].config[k].value, i};
    if (total) qsort(all, (size_t)total, sizeof *all, by_key);
    *out = arena_array(a, run_difference, total);
    *n_out = 0;
    for (i64 i = 0, end; i < total; i = end) {
        bool same = true;
        const char **values = arena_array(a, const char *, n);
        for (end = i; end < total && !strcmp(all[end].key, all[i].key); end++)
            values[all[end].run] = all[end].value;
        for (i64 k = 0; k < n; k++) same = same && values[k] && values[0] && !strcmp(values[k], values[0]);
        if (!same) (*out)[(*n_out)++] = (run_difference){all[i].key, values};
    }
}

const char *const *run_difference_cells(arena *a, const run_files *runs, i64 n, i64 *rows)
{
    run_difference *d;
    i64 n_d;
    run_differences(a, runs, n, &d, &n_d);
    const char **cells = cells_with_head(a, runs, n, n_d);
    for (i64 r = 0; r < n_d; r++) {
        const char **row = cells + (r + 1) * (n + 1);
        row[0] = d[r].key;
        for (i64 i = 0; i < n; i++) row[i + 1] = d[r].value[i] ? d[r].value[i] : "-";
    }
    *rows = n_d + 1;
    return cells;
}

const char *const *run_labels(arena *a, const run_files *runs, i64 n)
{
    const char **labels = arena_array(a, const char *, n);
    for (i64 i = 0; i < n; i++) {
        labels[i] = runs[i].label;
        for (i64 k = 0; k < n; k++)
            if (k != i && !strcmp(runs[k].label, runs[i].label)) labels[i] = runs[i].folder;
    }
    return labels;
}

/* The page of several runs: see run_pages.h. */
#include "train/run_pages.h"
#include "base/file.h"
#include "train/run_compare.h"
#include <string.h>

enum { CHARTS = 6 };

/* One chart a metric, a line a run that has it. Losses of steps are smoothed, or the lines hide each other.
 */
static i64 make_charts(arena *a, const run_files *runs, i64 n, report_chart charts[CHARTS])
{
    static const struct {
        const char *name, *title, *unit;
        bool smooth, points, from_zero;
    } kinds[CHARTS] = {
        {"loss", "Training loss, smoothed", "nats a token", true, false, false},
        {"val_loss", "Validation loss", "nats a token", false, true, false},
        {"val_bits_per_byte", "Validation, bits per byte", "bits a byte", false, true, false},
        {"lr", "Learning rate", "learning rate", false, false, true},
        {"grad_norm", "Gradient norm, smoothed", "norm", true, false, true},
        {"tokens_per_s", "Speed, smoothed", "tokens a second", true, false, true},
    };
    const char *const *labels = run_labels(a, runs, n);
    i64 n_charts = 0;
    for (i64 k = 0; k < CHARTS; k++) {
        report_line *lines = arena_array(a, report_line, n);
        i64 n_lines = 0;
        for (i64 i = 0; i < n; i++) {
            const metrics_series *s = metrics_find(&runs[i].metrics, kinds[k].name);
            // a run without the metric keeps its colour by an empty line
            lines[n_lines++] = (report_line){.label = labels[i],
                                             .style = kinds[k].points ? REPORT_POINTS : REPORT_LINE,
                                             .x = s ? s->step : NULL,
                                             .y = !s                ? NULL
                                                  : kinds[k].smooth ? series_smoothed(a, s)
                                                                    : s->value,
                                             .n = s ? s->n : 0};
        }
        bool any = false;
        for (i64 i = 0; i < n; i++) any |= lines[i].n > 0;
        if (!any) continue;
        charts[n_charts++] = (report_chart){.title = kinds[k].title,
                                            .x_label = "step",
                                            .y_label = kinds[k].unit,
                                            .robust = kinds[k].smooth,
                                            .from_zero = kinds[k].from_zero,
                                            .lines = lines,
                                            .n_lines = n_lines};
    }
    return n_charts;
}

static void lay_out(arena *a, const run_files *runs, i64 n, i64 refresh, text *out)
{
    report_chart charts[CHARTS];
    report_grid grids[2] = {{.title = "Figures", .columns = n + 1},
                            {.title = "Where the configurations differ", .columns = n + 1}};
    grids[0].cells = run_figure_cells(a, runs, n, &grids[0].rows);
    grids[1].cells = run_difference_cells(a, runs, n, &grids[1].rows);
    report_page page = {.title = arena_printf(a, "%lld runs", (long long)n),
                        .subtitle = grids[1].rows > 1 ? "Training runs compared"
                                                      : "Training runs compared; their configurations do not "
                                                        "differ",
                        .refresh = refresh,
                        .charts = charts,
                        .n_charts = make_charts(a, runs, n, charts),
                        .grids = grids,
                        .n_grids = grids[1].rows > 1 ? 2 : 1};
    report_html(out, &page);
}

status run_pages_html(const char *const *folders, i64 n, const char *samples, i64 refresh, text *out)
{
    arena *a;
    if (n == 1) return run_page_html(folders[0], samples, refresh, out);
    TRY(arena_open(&a));
    run_files *runs = arena_array(a, run_files, n);
    status s = OK;
    for (i64 i = 0; !s && i < n; i++) s = run_files_load(a, folders[i], &runs[i]);
    if (!s) lay_out(a, runs, n, refresh, out);
    for (i64 i = 0; i < n; i++) run_files_free(&runs[i]);
    arena_close(a);
    return s;
}

status run_pages_write(const char *const *folders, i64 n, const char *path, const char *samples)
{
    text page = {0};
    status s = run_pages_html(folders, n, samples, 0, &page);
    if (!s) s = file_replace(path, page.data, page.bytes);
    text_free(&page);
    return s;
}

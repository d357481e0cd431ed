/* From a run's files to the structs of a report: see run_page.h. */
#include "train/run_page.h"
#include "base/file.h"
#include "train/probe_charts.h"
#include "train/run_files.h"
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FIGURES = 16, MAX_LEVELS = 8 };

typedef struct page_parts {
    arena *a;
    run_files run;
    report_figure figures[MAX_FIGURES];
    report_level levels[MAX_LEVELS];
    report_chart *charts;
    report_row *facts;
    report_sample *samples;
    i64 n_figures, n_levels, n_charts, n_facts, n_samples;
} page_parts;

static status load_samples(page_parts *p, const char *path)
{
    char *data;
    size_t bytes;
    if (!path) {
        path = arena_printf(p->a, "%s/samples.jsonl", p->run.folder);
        if (!path_exists(path)) return OK;
    }
    TRY(file_read(path, &data, &bytes));
    p->samples = arena_array(p->a, report_sample, bytes / 2 + 1);
    status s = OK;
    i64 line = 0;
    for (char *at = data, *end; !s && at < data + bytes; at = end + 1) {
        end = memchr(at, '\n', (size_t)(data + bytes - at));
        if (!end) end = data + bytes;
        line++;
        if (end == at) continue;
        json_t *o = json_loadb(at, (size_t)(end - at), 0, NULL);
        const char *prompt = json_string_value(json_object_get(o, "prompt")),
                   *completion = json_string_value(json_object_get(o, "completion"));
        if (!completion)
            s = fail(ERR_FORMAT,
                     "%s:%lld: no sample; a line is {\"prompt\": \"...\", \"completion\": \"...\"}", path,
                     (long long)line);
        else
            p->samples[p->n_samples++] =
                (report_sample){arena_strdup(p->a, prompt ? prompt : ""), arena_strdup(p->a, completion)};
        json_decref(o);
    }
    free(data);
    return s;
}

/* ---- figures */

static void add_figure(page_parts *p, const char *label, const char *value, const char *note)
{
    if (p->n_figures < MAX_FIGURES) p->figures[p->n_figures++] = (report_figure){label, value, note};
}

/* Two numbers' worth of "12.3 M" or of a plain figure. */
static void add_number(page_parts *p, const char *label, double x, const char *format, const char *note)
{
    char shown[32];
    if (!isfinite(x)) return;
    add_figure(p, label, format ? arena_printf(p->a, format, x) : arena_strdup(p->a, show_count(x, shown)),
               note);
}

static void add_figures(page_parts *p)
{
    const metrics_series *loss = metrics_find(&p->run.metrics, "loss"),
                         *bits = metrics_find(&p->run.metrics, "val_bits_per_byte");
    const metrics_series *rate = metrics_find(&p->run.metrics, "tokens_per_s");
    double final_bits = run_files_number(&p->run, "val_bits_per_byte"),
           final_loss = run_files_number(&p->run, "loss");
    double seconds = run_files_number(&p->run, "seconds"), steps = run_files_number(&p->run, "steps"),
           best = series_lowest(bits);
    char shown[32];
    if (!isfinite(final_bits)) final_bits = series_last(bits);
    if (!isfinite(steps) && loss && loss->n) steps = loss->step[loss->n - 1];
    const char *best_note = best < final_bits ? arena_printf(p->a, "best %.4f", best) : NULL;
    add_number(p, "validation bits per byte", final_bits, "%.4f", best_note);
    add_number(p, "validation loss", final_loss, "%.4f", "nats a token, at the end");
    add_number(p, "training loss", series_tail(loss), "%.4f", "nats a token, mean of the last 5 %");
    for (i64 i = 0; i < p->n_levels; i++)
        add_number(p, p->levels[i].label, p->levels[i].y, "%.4f", "bits per byte");
    add_number(p, "parameters", run_files_number(&p->run, "parameters"), NULL, NULL);
    add_number(p, "tokens", run_files_number(&p->run, "tokens"), NULL, NULL);
    add_number(p, "steps", steps, "%.0f", NULL);
    add_number(p, "tokens per second", series_tail(rate), NULL, "mean of the last 5 %");
    if (isfinite(seconds)) add_figure(p, "time", arena_strdup(p->a, show_seconds(seconds, shown)), NULL);
}

static void read_levels(page_parts *p)
{
    const char *name;
    json_t *value;
    json_object_foreach(json_object_get(p->run.summary, "baselines"), name,
                        value) if (json_is_number(value) && p->n_levels < MAX_LEVELS)
        p->levels[p->n_levels++] = (report_level){arena_strdup(p->a, name), json_number_value(value)};
}

/* What the summary says and no figure shows. */
static void add_facts(page_parts *p)
{
    const char *key;
    json_t *value;
    p->facts = arena_array(p->a, report_row, json_object_size(p->run.summary) + 2);
    json_object_foreach(p->run.summary, key, value)
    {
        const char *shown = json_is_string(value) ? arena_strdup(p->a, json_string_value(value))
                            : json_is_integer(value)
                                ? arena_printf(p->a, "%lld", (long long)json_integer_value(value))
                            : json_is_real(value) ? arena_printf(p->a, "%.6g", json_real_value(value))
                                                  : NULL;
        if (shown) p->facts[p->n_facts++] = (report_row){arena_strdup(p->a, key), shown};
    }
    if (p->run.metrics.bad_lines)
        p->facts[p->n_facts++] =
            (report_row){"unreadable lines of metrics.jsonl",
                         arena_printf(p->a, "%lld", (long long)p->run.metrics.bad_lines)};
}

/* ---- curves */

static report_line *two_lines(arena *a, const metrics_series *s, const char *label)
{
    report_line *lines = arena_array(a, report_line, 2);
    lines[0] =
        (report_line){.label = "each step", .style = REPORT_FAINT, .x = s->step, .y = s->value, .n = s->n};
    lines[1] = (report_line){.label = label, .x = s->step, .y = series_smoothed(a, s), .n = s->n};
    return lines;
}

static void add_charts(page_parts *p)
{
    static const struct {
        const char *name, *title, *unit, *label;
        bool smooth, points, robust, from_zero, levels;
    } kinds[] = {
        {"loss", "Training loss", "nats a token", "smoothed", true, false, true, false, false},
        {"val_bits_per_byte", "Validation", "bits a byte", "validation", false, true, false, false, true},
        {"lr", "Learning rate", "learning rate", NULL, false, false, false, true, false},
        {"grad_norm", "Gradient norm", "norm", "smoothed", true, false, true, true, false},
        {"tokens_per_s", "Speed", "tokens a second", "smoothed", true, false, false, true, false},
    };
    report_chart *by_layer;
    i64 n_by_layer = probe_charts(p->a, &p->run.metrics, &by_layer);
    p->charts = arena_array(p->a, report_chart, COUNT(kinds) + n_by_layer);
    for (i64 i = 0; i < COUNT(kinds); i++) {
        const metrics_series *s = metrics_find(&p->run.metrics, kinds[i].name);
        if (!s) continue;
        report_line *lines = two_lines(p->a, s, kinds[i].label);
        if (!kinds[i].smooth)
            lines[0] = (report_line){.label = kinds[i].label,
                                     .style = kinds[i].points ? REPORT_POINTS : REPORT_LINE,
                                     .x = s->step,
                                     .y = s->value,
                                     .n = s->n};
        p->charts[p->n_charts++] = (report_chart){.title = kinds[i].title,
                                                  .x_label = "step",
                                                  .y_label = kinds[i].unit,
                                                  .robust = kinds[i].robust,
                                                  .from_zero = kinds[i].from_zero,
                                                  .lines = lines,
                                                  .n_lines = kinds[i].smooth ? 2 : 1,
                                                  .levels = p->levels,
                                                  .n_levels = kinds[i].levels ? p->n_levels : 0};
    }
    for (i64 i = 0; i < n_by_layer; i++) p->charts[p->n_charts++] = by_layer[i];
}

/* ---- the page */

static void lay_out(page_parts *p, i64 refresh, text *out)
{
    read_levels(p);
    add_figures(p);
    add_charts(p);
    add_facts(p);
    const char *run_status = json_string_value(json_object_get(p->run.summary, "status"));
    report_page page = {.title = p->run.label,
                        .subtitle = run_status ? arena_printf(p->a, "A training run, %s", run_status)
                                               : "A training run",
                        .refresh = refresh,
                        .figures = p->figures,
                        .n_figures = p->n_figures,
                        .charts = p->charts,
                        .n_charts = p->n_charts,
                        .samples = p->samples,
                        .n_samples = p->n_samples,
                        .facts = p->facts,
                        .n_facts = p->n_facts,
                        .config = p->run.config,
                        .n_config = p->run.n_config};
    report_html(out, &page);
}

status run_page_html(const char *folder, const char *samples, i64 refresh, text *out)
{
    page_parts p = {0};
    TRY(arena_open(&p.a));
    status s = run_files_load(p.a, folder, &p.run);
    if (!s) s = load_samples(&p, samples);
    if (!s) lay_out(&p, refresh, out);
    run_files_free(&p.run);
    arena_close(p.a);
    return s;
}

status run_page_write(const char *folder, const char *out, const char *samples)
{
    text page = {0};
    status s = run_page_html(folder, samples, 0, &page);
    if (!s) s = file_replace(out, page.data, page.bytes);
    text_free(&page);
    return s;
}

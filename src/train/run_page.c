/* From a run's files to the structs of a report: see run_page.h. */
#include "train/run_page.h"
#include "base/file.h"
#include "base/text.h"
#include "format/report.h"
#include "train/metrics.h"
#include <jansson.h>
#include <libfyaml.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FIGURES = 16, MAX_LEVELS = 8 };

typedef struct page_parts {
    arena *a;
    const char *folder;
    metrics_data metrics;
    json_t *summary; // NULL when there is none
    report_figure figures[MAX_FIGURES];
    report_level levels[MAX_LEVELS];
    report_chart *charts;
    report_row *facts, *config;
    report_sample *samples;
    i64 n_figures, n_levels, n_charts, n_facts, n_config, n_samples;
} page_parts;

/* ---- reading the folder */

static status load_json(arena *a, const char *folder, const char *name, json_t **out)
{
    json_error_t e;
    const char *path = arena_printf(a, "%s/%s", folder, name);
    *out = NULL;
    if (!path_exists(path)) return OK;
    json_t *o = json_load_file(path, 0, &e);
    if (!o) return fail(ERR_FORMAT, "%s: line %d: %s", path, e.line, e.text);
    if (!json_is_object(o)) {
        json_decref(o);
        return fail(ERR_FORMAT, "%s: not a JSON object", path);
    }
    *out = o;
    return OK;
}

/* Configuration as rows "model.norm.kind" = "rms"; lists stay as they are written, on one line. */
static void add_config(page_parts *p, struct fy_node *node, const char *prefix)
{
    void *at = NULL;
    struct fy_node_pair *pair;
    if (!fy_node_is_mapping(node)) {
        char *value = fy_node_is_scalar(node) ? NULL : fy_emit_node_to_string(node, FYECF_MODE_FLOW_ONELINE);
        const char *scalar = value ? value : fy_node_get_scalar0(node);
        p->config[p->n_config++] = (report_row){prefix, arena_strdup(p->a, scalar ? scalar : "")};
        free(value);
        return;
    }
    while ((pair = fy_node_mapping_iterate(node, &at))) {
        const char *key = fy_node_get_scalar0(fy_node_pair_key(pair));
        add_config(p, fy_node_pair_value(pair),
                   arena_printf(p->a, "%s%s%s", prefix, *prefix ? "." : "", key ? key : "?"));
    }
}

static status load_config(page_parts *p)
{
    char *data;
    size_t bytes;
    const char *path = arena_printf(p->a, "%s/config.yaml", p->folder);
    if (!path_exists(path)) return OK;
    TRY(file_read(path, &data, &bytes));
    struct fy_parse_cfg cfg = {.flags = FYPCF_QUIET | FYPCF_DEFAULT_DOC};
    struct fy_document *document = fy_document_build_from_string(&cfg, data, bytes);
    status s = document ? OK : fail(ERR_FORMAT, "%s: not valid YAML", path);
    if (document && fy_document_root(document)) {
        p->config =
            arena_array(p->a, report_row, bytes + 1); // a row takes a byte at least; pages come when touched
        add_config(p, fy_document_root(document), "");
    }
    fy_document_destroy(document);
    free(data);
    return s;
}

static status load_samples(page_parts *p, const char *path)
{
    char *data;
    size_t bytes;
    if (!path) {
        path = arena_printf(p->a, "%s/samples.jsonl", p->folder);
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

static double summary_number(const page_parts *p, const char *key)
{
    json_t *value = json_object_get(p->summary, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static double last_value(const metrics_series *s)
{
    for (i64 i = s ? s->n : 0; i-- > 0;)
        if (isfinite(s->value[i])) return s->value[i];
    return NAN;
}

/* The mean over the last twentieth of a series' finite values: one batch's loss alone says little. */
static double tail_mean(const metrics_series *s)
{
    double sum = 0;
    i64 n = 0, wanted = s ? (s->n + 19) / 20 : 0;
    for (i64 i = s ? s->n : 0; i-- > 0 && n < wanted;)
        if (isfinite(s->value[i])) sum += s->value[i], n++;
    return n ? sum / (double)n : NAN;
}

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
    const metrics_series *loss = metrics_find(&p->metrics, "loss"),
                         *bits = metrics_find(&p->metrics, "val_bits_per_byte");
    const metrics_series *rate = metrics_find(&p->metrics, "tokens_per_s");
    double final_bits = summary_number(p, "val_bits_per_byte"), final_loss = summary_number(p, "loss");
    double seconds = summary_number(p, "seconds"), steps = summary_number(p, "steps"), best = NAN;
    char shown[32];
    for (i64 i = 0; i < (bits ? bits->n : 0); i++)
        if (isfinite(bits->value[i]) && !(bits->value[i] >= best)) best = bits->value[i];
    if (!isfinite(final_bits)) final_bits = last_value(bits);
    if (!isfinite(steps) && loss && loss->n) steps = loss->step[loss->n - 1];
    const char *best_note = best < final_bits ? arena_printf(p->a, "best %.4f", best) : NULL;
    add_number(p, "validation bits per byte", final_bits, "%.4f", best_note);
    add_number(p, "validation loss", final_loss, "%.4f", "nats a token, at the end");
    add_number(p, "training loss", tail_mean(loss), "%.4f", "nats a token, mean of the last 5 %");
    for (i64 i = 0; i < p->n_levels; i++)
        add_number(p, p->levels[i].label, p->levels[i].y, "%.4f", "bits per byte");
    add_number(p, "parameters", summary_number(p, "parameters"), NULL, NULL);
    add_number(p, "tokens", summary_number(p, "tokens"), NULL, NULL);
    add_number(p, "steps", steps, "%.0f", NULL);
    add_number(p, "tokens per second", tail_mean(rate), NULL, "mean of the last 5 %");
    if (isfinite(seconds)) add_figure(p, "time", arena_strdup(p->a, show_seconds(seconds, shown)), NULL);
}

static void read_levels(page_parts *p)
{
    const char *name;
    json_t *value;
    json_object_foreach(json_object_get(p->summary, "baselines"), name,
                        value) if (json_is_number(value) && p->n_levels < MAX_LEVELS)
        p->levels[p->n_levels++] = (report_level){arena_strdup(p->a, name), json_number_value(value)};
}

/* What the summary says and no figure shows. */
static void add_facts(page_parts *p)
{
    const char *key;
    json_t *value;
    p->facts = arena_array(p->a, report_row, json_object_size(p->summary) + 2);
    json_object_foreach(p->summary, key, value)
    {
        const char *shown = json_is_string(value) ? arena_strdup(p->a, json_string_value(value))
                            : json_is_integer(value)
                                ? arena_printf(p->a, "%lld", (long long)json_integer_value(value))
                            : json_is_real(value) ? arena_printf(p->a, "%.6g", json_real_value(value))
                                                  : NULL;
        if (shown) p->facts[p->n_facts++] = (report_row){arena_strdup(p->a, key), shown};
    }
    if (p->metrics.bad_lines)
        p->facts[p->n_facts++] = (report_row){"unreadable lines of metrics.jsonl",
                                              arena_printf(p->a, "%lld", (long long)p->metrics.bad_lines)};
}

/* ---- curves */

/* An exponential moving average over about a fiftieth of the run, taken from both ends so that it lags behind
 * neither, and without the bias of its start. Few values are left as they are. */
static const double *smoothed(arena *a, const metrics_series *s)
{
    double *y = arena_array(a, double, s->n), keep = s->n > 50 ? exp(-50.0 / (double)s->n) : 0;
    for (int pass = 0; pass < 2; pass++) {
        double sum = 0, weight = 0;
        for (i64 k = 0; k < s->n; k++) {
            i64 i = pass ? s->n - 1 - k : k;
            if (isfinite(s->value[i])) sum = keep * sum + s->value[i], weight = keep * weight + 1;
            y[i] += isfinite(s->value[i]) ? sum / weight / 2 : NAN;
        }
    }
    return y;
}

static report_line *two_lines(arena *a, const metrics_series *s, const char *label)
{
    report_line *lines = arena_array(a, report_line, 2);
    lines[0] = (report_line){"each step", REPORT_FAINT, s->step, s->value, s->n};
    lines[1] = (report_line){label, REPORT_LINE, s->step, smoothed(a, s), s->n};
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
    p->charts = arena_array(p->a, report_chart, COUNT(kinds));
    for (i64 i = 0; i < COUNT(kinds); i++) {
        const metrics_series *s = metrics_find(&p->metrics, kinds[i].name);
        if (!s) continue;
        report_line *lines = two_lines(p->a, s, kinds[i].label);
        if (!kinds[i].smooth)
            lines[0] = (report_line){kinds[i].label, kinds[i].points ? REPORT_POINTS : REPORT_LINE, s->step,
                                     s->value, s->n};
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
}

/* ---- the page */

static status write_page(page_parts *p, const char *out, const char *samples)
{
    TRY(metrics_load(arena_printf(p->a, "%s/metrics.jsonl", p->folder), &p->metrics));
    TRY(load_json(p->a, p->folder, "summary.json", &p->summary));
    TRY(load_config(p));
    TRY(load_samples(p, samples));
    read_levels(p);
    add_figures(p);
    add_charts(p);
    add_facts(p);
    const char *name = json_string_value(json_object_get(p->summary, "name"));
    const char *run_status = json_string_value(json_object_get(p->summary, "status"));
    const char *base = strrchr(p->folder, '/');
    report_page page = {.title = name              ? name
                                 : base && base[1] ? base + 1
                                                   : p->folder,
                        .subtitle = run_status ? arena_printf(p->a, "A training run, %s", run_status)
                                               : "A training run",
                        .figures = p->figures,
                        .n_figures = p->n_figures,
                        .charts = p->charts,
                        .n_charts = p->n_charts,
                        .samples = p->samples,
                        .n_samples = p->n_samples,
                        .facts = p->facts,
                        .n_facts = p->n_facts,
                        .config = p->config,
                        .n_config = p->n_config};
    return report_write(&page, out);
}

status run_page_write(const char *folder, const char *out, const char *samples)
{
    page_parts p = {.folder = folder};
    if (!path_is_dir(folder)) return fail(ERR_INPUT, "%s: no such folder; give the folder of a run", folder);
    TRY(arena_open(&p.a));
    status s = write_page(&p, out, samples);
    metrics_free(&p.metrics);
    json_decref(p.summary);
    arena_close(p.a);
    return s;
}

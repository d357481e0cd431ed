/* A run's folder in memory: see run_files.h. */
#include "train/run_files.h"
#include "base/file.h"
#include "base/text.h"
#include <libfyaml.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

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
static void add_config(arena *a, run_files *r, struct fy_node *node, const char *prefix)
{
    void *at = NULL;
    struct fy_node_pair *pair;
    if (!fy_node_is_mapping(node)) {
        char *value = fy_node_is_scalar(node) ? NULL : fy_emit_node_to_string(node, FYECF_MODE_FLOW_ONELINE);
        const char *scalar = value ? value : fy_node_get_scalar0(node);
        r->config[r->n_config++] = (report_row){prefix, arena_strdup(a, scalar ? scalar : "")};
        free(value);
        return;
    }
    while ((pair = fy_node_mapping_iterate(node, &at))) {
        const char *key = fy_node_get_scalar0(fy_node_pair_key(pair));
        add_config(a, r, fy_node_pair_value(pair),
                   arena_printf(a, "%s%s%s", prefix, *prefix ? "." : "", key ? key : "?"));
    }
}

static status load_config(arena *a, run_files *r)
{
    char *data;
    size_t bytes;
    const char *path = arena_printf(a, "%s/config.yaml", r->folder);
    if (!path_exists(path)) return OK;
    TRY(file_read(path, &data, &bytes));
    struct fy_parse_cfg cfg = {.flags = FYPCF_QUIET | FYPCF_DEFAULT_DOC};
    struct fy_document *document = fy_document_build_from_string(&cfg, data, bytes);
    status s = document ? OK : fail(ERR_FORMAT, "%s: not valid YAML", path);
    if (document && fy_document_root(document)) {
        r->config =
            arena_array(a, report_row, bytes + 1); // a row takes a byte at least; pages come when touched
        add_config(a, r, fy_document_root(document), "");
    }
    fy_document_destroy(document);
    free(data);
    return s;
}

static const char *label_of(arena *a, const run_files *r)
{
    const char *name = json_string_value(json_object_get(r->summary, "name"));
    if (name && *name) return name;
    size_t end = strlen(r->folder);
    while (end > 1 && r->folder[end - 1] == '/') end--;
    size_t begin = end;
    while (begin && r->folder[begin - 1] != '/') begin--;
    return begin == end ? r->folder : arena_printf(a, "%.*s", (int)(end - begin), r->folder + begin);
}

status run_files_load(arena *a, const char *folder, run_files *out)
{
    *out = (run_files){.folder = arena_strdup(a, folder)};
    if (!path_is_dir(folder)) return fail(ERR_INPUT, "%s: no such folder; give the folder of a run", folder);
    TRY(metrics_load(arena_printf(a, "%s/metrics.jsonl", folder), &out->metrics));
    status s = load_json(a, folder, "summary.json", &out->summary);
    if (!s) s = load_config(a, out);
    if (s)
        run_files_free(out);
    else
        out->label = label_of(a, out);
    return s;
}

void run_files_free(run_files *r)
{
    metrics_free(&r->metrics);
    json_decref(r->summary);
    r->summary = NULL;
}

double run_files_number(const run_files *r, const char *key)
{
    json_t *value = json_object_get(r->summary, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

/* ---- series */

double series_last(const metrics_series *s)
{
    for (i64 i = s ? s->n : 0; i-- > 0;)
        if (isfinite(s->value[i])) return s->value[i];
    return NAN;
}

double series_lowest(const metrics_series *s)
{
    double best = NAN;
    for (i64 i = 0; i < (s ? s->n : 0); i++)
        if (isfinite(s->value[i]) && !(s->value[i] >= best)) best = s->value[i];
    return best;
}

double series_tail(const metrics_series *s)
{
    double sum = 0;
    i64 n = 0, wanted = s ? (s->n + 19) / 20 : 0;
    for (i64 i = s ? s->n : 0; i-- > 0 && n < wanted;)
        if (isfinite(s->value[i])) sum += s->value[i], n++;
    return n ? sum / (double)n : NAN;
}

const double *series_smoothed(arena *a, const metrics_series *s)
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

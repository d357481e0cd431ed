/* Results of runs as JSON lines: see result.h. */
#include "lab/result.h"
#include "base/file.h"
#include "train/run_files.h"
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* FIELD(name): in the file under the same name. */
#define TEXTS(FIELD)                                                                                         \
    FIELD(experiment)                                                                                        \
    FIELD(scale)                                                                                             \
    FIELD(arm)                                                                                               \
    FIELD(value)                                                                                             \
    FIELD(status) FIELD(message) FIELD(identity) FIELD(code) FIELD(isa) FIELD(host) FIELD(run) FIELD(settings)
#define WHOLES(FIELD)                                                                                        \
    FIELD(seed)                                                                                              \
    FIELD(threads) FIELD(steps) FIELD(tokens) FIELD(parameters) FIELD(active_parameters) FIELD(session)
#define REALS(FIELD)                                                                                         \
    FIELD(seconds)                                                                                           \
    FIELD(tokens_per_s)                                                                                      \
    FIELD(memory) FIELD(flops_per_token) FIELD(loss) FIELD(bits_per_byte) FIELD(processor_share)

static json_t *number(double x) { return isfinite(x) ? json_real(x) : json_null(); }

static json_t *numbers(const double *x, i64 n)
{
    json_t *list = json_array();
    for (i64 i = 0; list && i < n; i++)
        if (json_array_append_new(list, number(x[i]))) {
            json_decref(list);
            return NULL;
        }
    return list;
}

static json_t *as_json(const lab_result *r)
{
    json_t *j = json_object();
    bool good = j != NULL;
#define FIELD(name) good = good && !json_object_set_new(j, #name, json_string(r->name ? r->name : ""));
    TEXTS(FIELD)
#undef FIELD
#define FIELD(name) good = good && !json_object_set_new(j, #name, json_integer(r->name));
    WHOLES(FIELD)
#undef FIELD
#define FIELD(name) good = good && !json_object_set_new(j, #name, number(r->name));
    REALS(FIELD)
#undef FIELD
    if (r->n_curve)
        good = good && !json_object_set_new(j, "curve_tokens", numbers(r->curve_tokens, r->n_curve)) &&
               !json_object_set_new(j, "curve_bits", numbers(r->curve_bits, r->n_curve));
    if (r->n_layers) good = good && !json_object_set_new(j, "layers", numbers(r->layers, r->n_layers));
    if (good) return j;
    json_decref(j);
    return NULL;
}

status results_write(const char *path, const lab_result *const *results, i64 n)
{
    file_writer *w;
    TRY(file_create(path, &w));
    status s = OK;
    for (i64 i = 0; i < n && !s; i++) {
        json_t *j = as_json(results[i]);
        char *line = j ? json_dumps(j, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
        s = line ? file_printf(w, "%s\n", line)
                 : fail(ERR_INPUT, "%s: a name of arm %s is not valid UTF-8, which JSON cannot hold", path,
                        results[i]->arm);
        free(line);
        json_decref(j);
    }
    if (!s) return file_commit(w);
    file_abandon(w);
    return s;
}

/* ---- reading */

typedef struct line_reader {
    arena *a;
    const char *path;
    i64 line;
    const json_t *j;
} line_reader;

static status bad(const line_reader *r, const char *name, const char *wanted)
{
    return fail(ERR_FORMAT, "%s:%lld: \"%s\" is no %s; is it a results.jsonl of keel lab run?", r->path,
                (long long)r->line, name, wanted);
}
static status take_text(const line_reader *r, const char *name, const char **out)
{
    const json_t *x = json_object_get(r->j, name);
    if (!json_is_string(x)) return bad(r, name, "text");
    *out = arena_strdup(r->a, json_string_value(x));
    return OK;
}
static status take_whole(const line_reader *r, const char *name, i64 *out)
{
    const json_t *x = json_object_get(r->j, name);
    if (!json_is_integer(x) || json_integer_value(x) < 0) return bad(r, name, "whole number");
    *out = json_integer_value(x);
    return OK;
}
static status take_real(const line_reader *r, const char *name, double *out)
{
    const json_t *x = json_object_get(r->j, name);
    if (!x || (!json_is_number(x) && !json_is_null(x))) return bad(r, name, "number");
    *out = json_is_null(x) ? NAN : json_number_value(x);
    return OK;
}
static status take_reals(const line_reader *r, const char *name, double **out, i64 *n)
{
    const json_t *list = json_object_get(r->j, name);
    *n = 0;
    if (!list) return OK;
    if (!json_is_array(list) || json_array_size(list) > 1 << 20) return bad(r, name, "list of numbers");
    *out = arena_array(r->a, double, json_array_size(list) + 1);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *x = json_array_get(list, i);
        if (!json_is_number(x) && !json_is_null(x)) return bad(r, name, "list of numbers");
        (*out)[(*n)++] = json_is_null(x) ? NAN : json_number_value(x);
    }
    return OK;
}

static status take_all(const line_reader *r, lab_result *out)
{
    i64 points;
#define FIELD(name) TRY(take_text(r, #name, &out->name));
    TEXTS(FIELD)
#undef FIELD
#define FIELD(name) TRY(take_whole(r, #name, &out->name));
    WHOLES(FIELD)
#undef FIELD
#define FIELD(name) TRY(take_real(r, #name, &out->name));
    REALS(FIELD)
#undef FIELD
    TRY(take_reals(r, "curve_tokens", &out->curve_tokens, &points));
    TRY(take_reals(r, "curve_bits", &out->curve_bits, &out->n_curve));
    if (points != out->n_curve) return bad(r, "curve_bits", "list as long as curve_tokens");
    return take_reals(r, "layers", &out->layers, &out->n_layers);
}

static status take_line(arena *a, const char *path, i64 number, const char *line, size_t bytes,
                        lab_result *out)
{
    json_error_t e;
    json_t *j = json_loadb(line, bytes, JSON_REJECT_DUPLICATES, &e);
    if (!j) return fail(ERR_FORMAT, "%s:%lld: not JSON: %s", path, (long long)number, e.text);
    status s = take_all(&(line_reader){a, path, number, j}, out);
    json_decref(j);
    return s;
}

status results_read(arena *a, const char *path, lab_results *out)
{
    char *data;
    size_t bytes;
    i64 lines = 1, number = 0;
    TRY(file_read(path, &data, &bytes));
    for (size_t i = 0; i < bytes; i++) lines += data[i] == '\n';
    *out = (lab_results){.item = arena_array(a, lab_result, lines)};
    status s = OK;
    for (const char *p = data, *end = data + bytes; p < end && !s;) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));
        size_t n = (size_t)((stop ? stop : end) - p);
        number++;
        if (n) s = take_line(a, path, number, p, n, &out->item[out->n++]);
        p += n + 1;
    }
    mem_free(data);
    return s;
}

/* ---- from a run's folder */

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(arena *a, const metrics_series *s)
{
    if (!s || !s->n) return NAN;
    double *x = arena_array(a, double, s->n);
    i64 n = 0;
    for (i64 i = 0; i < s->n; i++)
        if (isfinite(s->value[i])) x[n++] = s->value[i];
    qsort(x, (size_t)n, sizeof *x, ascending);
    return !n ? NAN : n % 2 ? x[n / 2] : 0.5 * (x[n / 2 - 1] + x[n / 2]);
}

static const char *word_of(arena *a, const run_files *f, const char *key)
{
    const char *s = f->summary ? json_string_value(json_object_get(f->summary, key)) : NULL;
    return arena_strdup(a, s ? s : "");
}
static i64 whole_of(const run_files *f, const char *key)
{
    double x = run_files_number(f, key);
    return isfinite(x) && x >= 0 && x < 9e18 ? (i64)x : 0;
}

status result_of_run(arena *a, const char *folder, lab_result *r)
{
    run_files f;
    TRY(run_files_load(a, folder, &f));
    r->status = word_of(a, &f, "status");
    r->code = word_of(a, &f, "code");
    r->isa = word_of(a, &f, "isa");
    r->host = word_of(a, &f, "host");
    r->run = word_of(a, &f, "run");
    r->threads = whole_of(&f, "threads");
    r->steps = whole_of(&f, "steps");
    r->tokens = whole_of(&f, "tokens");
    r->parameters = whole_of(&f, "parameters");
    r->active_parameters = whole_of(&f, "active_parameters");
    r->seconds = run_files_number(&f, "seconds");
    r->memory = run_files_number(&f, "memory");
    r->flops_per_token = run_files_number(&f, "flops_per_token");
    r->processor_share = run_files_number(&f, "processor_share");
    r->loss = run_files_number(&f, "loss");
    r->bits_per_byte = run_files_number(&f, "val_bits_per_byte");
    r->tokens_per_s = median(a, metrics_find(&f.metrics, "tokens_per_s"));
    const metrics_series *bits = metrics_find(&f.metrics, "val_bits_per_byte");
    r->n_curve = bits ? bits->n : 0;
    r->curve_tokens = arena_array(a, double, r->n_curve + 1);
    r->curve_bits = arena_array(a, double, r->n_curve + 1);
    double step = r->steps ? (double)r->tokens / (double)r->steps : 0;
    for (i64 i = 0; i < r->n_curve; i++) {
        r->curve_tokens[i] = bits->step[i] * step;
        r->curve_bits[i] = bits->value[i];
    }
    run_files_free(&f);
    return OK;
}

/* The metrics log: see metrics.h. */
#include "train/metrics.h"
#include "base/file.h"
#include "base/text.h"
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct metrics_log {
    int fd;
    char *path;
    i64 offset;
};

/* Where to go on: OFFSET if the file's line ends there, else the end of the last whole line before it. */
static status find_end(metrics_log *log, i64 offset)
{
    char block[4096];
    off_t end = lseek(log->fd, 0, SEEK_END);
    if (end < 0) return fail(ERR_IO, "%s: cannot seek: %s", log->path, strerror(errno));
    i64 at = MIN((i64)end, MAX(offset, 0));
    while (at) {
        i64 n = MIN(at, (i64)sizeof block);
        if (pread(log->fd, block, (size_t)n, at - n) != n)
            return fail(ERR_IO, "%s: cannot read: %s", log->path, strerror(errno));
        while (n && block[n - 1] != '\n') n--, at--;
        if (n) break;
    }
    log->offset = at;
    if (at < end && ftruncate(log->fd, at))
        return fail(ERR_IO, "%s: cannot cut: %s", log->path, strerror(errno));
    return OK;
}

status metrics_open(const char *path, i64 offset, metrics_log **out)
{
    metrics_log *log = calloc(1, sizeof *log);
    if (!log) return fail(ERR_MEMORY, "%s: out of memory", path);
    log->path = strdup(path);
    log->fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    status s = OK;
    if (!log->path)
        s = fail(ERR_MEMORY, "%s: out of memory", path);
    else if (log->fd < 0)
        s = fail(ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    else
        s = find_end(log, offset);
    if (s)
        metrics_close(log);
    else
        *out = log;
    return s;
}

static void check_name(const char *name)
{
    for (const char *p = name; *p; p++) assert(isalnum((u8)*p) || strchr("._-/", *p));
}

static void add_value(text *t, const metric *m)
{
    char number[32];
    check_name(m->name);
    if (!isfinite(m->value)) {
        text_add(t, ",\"%s\":null,\"%s_is\":\"%s\"", m->name, m->name,
                 isnan(m->value) ? "nan"
                 : m->value > 0  ? "inf"
                                 : "-inf");
        return;
    }
    snprintf(number, sizeof number, "%.9g", m->value); // as short as a float needs, or all of a double
    if (strtod(number, NULL) != m->value) snprintf(number, sizeof number, "%.17g", m->value);
    text_add(t, ",\"%s\":%s", m->name, number);
}

/* Writes the line and frees it. */
static status put_line(metrics_log *log, text *t)
{
    text_add(t, "}\n");
    status s = fd_write_all(log->fd, t->data, t->bytes, log->path);
    if (!s)
        log->offset += (i64)t->bytes;
    else if (ftruncate(log->fd, log->offset)) // no half line before the next one
        s = wrap(s, "%s: cannot cut a half-written line: %s", log->path, strerror(errno));
    text_free(t);
    return s;
}

status metrics_append(metrics_log *log, i64 step, const metric *values, i64 n)
{
    text t = {0};
    text_add(&t, "{\"step\":%lld", (long long)step);
    for (i64 i = 0; i < n; i++) add_value(&t, &values[i]);
    return put_line(log, &t);
}

status metrics_append_arrays(metrics_log *log, i64 step, const metric_array *arrays, i64 n)
{
    text t = {0};
    char number[32];
    text_add(&t, "{\"step\":%lld", (long long)step);
    for (i64 i = 0; i < n; i++) {
        check_name(arrays[i].name);
        text_add(&t, ",\"%s\":[", arrays[i].name);
        for (i64 k = 0; k < arrays[i].n; k++) {
            snprintf(number, sizeof number, "%.9g", arrays[i].value[k]);
            text_add(&t, "%s%s", k ? "," : "", isfinite(arrays[i].value[k]) ? number : "null");
        }
        text_add(&t, "]");
    }
    return put_line(log, &t);
}

i64 metrics_offset(const metrics_log *log) { return log->offset; }
status metrics_sync(metrics_log *log) { return fd_sync(log->fd, log->path); }

void metrics_close(metrics_log *log)
{
    if (!log) return;
    if (log->fd >= 0) close(log->fd);
    free(log->path);
    free(log);
}

/* ---- reading */

static status series_add(metrics_data *d, const char *name, double step, double value)
{
    metrics_series *s = (metrics_series *)metrics_find(d, name);
    if (!s) {
        s = realloc(d->series, (size_t)(d->n + 1) * sizeof *s);
        if (!s) return fail(ERR_MEMORY, "out of memory for metrics");
        d->series = s;
        s += d->n;
        *s = (metrics_series){.name = strdup(name)};
        if (!s->name) return fail(ERR_MEMORY, "out of memory for metrics");
        d->n++;
    }
    if (s->n == s->capacity) {
        i64 capacity = 2 * s->capacity + 256;
        double *steps = realloc(s->step, (size_t)capacity * sizeof(double));
        if (steps) s->step = steps;
        double *values = realloc(s->value, (size_t)capacity * sizeof(double));
        if (values) s->value = values;
        if (!steps || !values) return fail(ERR_MEMORY, "out of memory for metrics");
        s->capacity = capacity;
    }
    s->step[s->n] = step;
    s->value[s->n++] = value;
    return OK;
}

static status add_array(metrics_data *d, const char *name, double step, const json_t *array)
{
    const json_t *value;
    size_t k;
    status s = OK;
    json_array_foreach(array, k, value)
    {
        char element[256];
        if (s || (!json_is_number(value) && !json_is_null(value))) continue;
        snprintf(element, sizeof element, "%s/%zu", name, k);
        s = series_add(d, element, step, json_is_null(value) ? NAN : json_number_value(value));
    }
    return s;
}

static status add_line(metrics_data *d, const char *line, size_t bytes)
{
    json_t *o = json_loadb(line, bytes, 0, NULL), *step = json_object_get(o, "step"), *value;
    const char *name;
    status s = OK;
    d->lines++;
    if (!json_is_number(step)) d->bad_lines++;
    if (json_is_number(step)) json_object_foreach(o, name, value)
        {
            bool shown = (json_is_number(value) || json_is_null(value)) && strcmp(name, "step");
            if (!s && json_is_array(value)) s = add_array(d, name, json_number_value(step), value);
            if (s || !shown) continue;
            s = series_add(d, name, json_number_value(step),
                           json_is_null(value) ? NAN : json_number_value(value));
        }
    json_decref(o);
    return s;
}

status metrics_load(const char *path, metrics_data *out)
{
    char *data;
    size_t bytes;
    TRY(file_read(path, &data, &bytes));
    *out = (metrics_data){0};
    status s = OK;
    for (char *p = data, *end; !s && p < data + bytes; p = end + 1) {
        end = memchr(p, '\n', (size_t)(data + bytes - p));
        if (!end) end = data + bytes;
        if (end > p) s = add_line(out, p, (size_t)(end - p));
    }
    free(data);
    if (s) metrics_free(out);
    return wrap(s, "%s", path);
}

const metrics_series *metrics_find(const metrics_data *d, const char *name)
{
    for (i64 i = 0; i < d->n; i++)
        if (!strcmp(d->series[i].name, name)) return &d->series[i];
    return NULL;
}

void metrics_free(metrics_data *d)
{
    for (i64 i = 0; i < d->n; i++) {
        free(d->series[i].name);
        free(d->series[i].step);
        free(d->series[i].value);
    }
    free(d->series);
    *d = (metrics_data){0};
}

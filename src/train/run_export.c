/* A run's metrics for other programs: see run_export.h. The log becomes a table of steps by names first. */
#include "train/run_export.h"
#include "format/event_file.h"
#include "train/metrics.h"
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct table {
    const metrics_data *d;
    double *step; // rising
    i64 rows;
    double *cell; // [rows, names]
    u8 *there;    // [rows, names]: is there a value?
} table;

static int rising(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static status find_steps(table *t, const char *path)
{
    i64 n = 0;
    for (i64 i = 0; i < t->d->n; i++) n += t->d->series[i].n;
    TRY(mem_alloc(sizeof(double) * (size_t)MAX(n, 1), "steps", &t->step));
    n = 0;
    for (i64 i = 0; i < t->d->n; i++) {
        const metrics_series *s = &t->d->series[i];
        for (i64 k = 0; k < s->n; k++) {
            if (!(s->step[k] >= 0 && s->step[k] <= 0x1p53) || s->step[k] != floor(s->step[k]))
                return fail(ERR_FORMAT, "%s: step %.17g is no whole number from 0 to 2^53", path, s->step[k]);
            t->step[n++] = s->step[k];
        }
    }
    qsort(t->step, (size_t)n, sizeof *t->step, rising);
    for (i64 i = 0; i < n; i++)
        if (!i || t->step[i] != t->step[t->rows - 1]) t->step[t->rows++] = t->step[i];
    return OK;
}

static status fill(table *t)
{
    i64 cells, bytes;
    TRY(mul_i64(t->rows, t->d->n, &cells));
    TRY(mul_i64(MAX(cells, 1), sizeof(double), &bytes));
    TRY(mem_alloc((size_t)bytes, "a table of metrics", &t->cell));
    TRY(mem_alloc((size_t)MAX(cells, 1), "a table of metrics", &t->there));
    for (i64 i = 0; i < t->d->n; i++) {
        const metrics_series *s = &t->d->series[i];
        for (i64 k = 0; k < s->n; k++) {
            double *row = bsearch(&s->step[k], t->step, (size_t)t->rows, sizeof *t->step, rising);
            i64 at = (row - t->step) * t->d->n + i;
            t->cell[at] = s->value[k], t->there[at] = 1;
        }
    }
    return OK;
}

/* As short as a float needs, or all of a double. */
static void put_number(text *out, double x)
{
    char number[32];
    snprintf(number, sizeof number, "%.9g", x);
    if (strtod(number, NULL) != x) snprintf(number, sizeof number, "%.17g", x);
    text_add(out, "%s", number);
}

static void put_field(text *out, const char *s)
{
    bool plain = !s[strcspn(s, ",\"\r\n")];
    if (!plain) text_add(out, "\"");
    for (const char *p = s; *p; p++) {
        if (*p == '"') text_add(out, "\"");
        text_add_bytes(out, p, 1);
    }
    if (!plain) text_add(out, "\"");
}

static void put_csv(const table *t, text *out)
{
    text_add(out, "step");
    for (i64 i = 0; i < t->d->n; i++) {
        text_add(out, ",");
        put_field(out, t->d->series[i].name);
    }
    text_add(out, "\n");
    for (i64 r = 0; r < t->rows; r++) {
        text_add(out, "%.0f", t->step[r]);
        for (i64 i = 0; i < t->d->n; i++) {
            i64 at = r * t->d->n + i;
            text_add(out, ",");
            if (t->there[at] && isnan(t->cell[at])) text_add(out, "nan");
            if (t->there[at] && !isnan(t->cell[at])) put_number(out, t->cell[at]);
        }
        text_add(out, "\n");
    }
}

static status put_jsonl(const table *t, text *out)
{
    for (i64 r = 0; r < t->rows; r++) {
        text_add(out, "{\"step\":%.0f", t->step[r]);
        for (i64 i = 0; i < t->d->n; i++) {
            i64 at = r * t->d->n + i;
            if (!t->there[at]) continue;
            json_t *o = json_string(t->d->series[i].name);
            char *name = json_dumps(o, JSON_ENCODE_ANY);
            json_decref(o);
            if (!name) return fail(ERR_MEMORY, "out of memory");
            text_add(out, ",%s:", name);
            free(name);
            if (isnan(t->cell[at]))
                text_add(out, "null");
            else
                put_number(out, t->cell[at]);
        }
        text_add(out, "}\n");
    }
    return OK;
}

static status put_events(const table *t, double wall_time, text *out)
{
    event_scalar *values;
    TRY(mem_alloc(sizeof *values * (size_t)MAX(t->d->n, 1), "events", &values));
    event_file_begin(out, wall_time);
    for (i64 r = 0; r < t->rows; r++) {
        i64 n = 0;
        for (i64 i = 0; i < t->d->n; i++) {
            i64 at = r * t->d->n + i;
            if (t->there[at]) values[n++] = (event_scalar){t->d->series[i].name, (float)t->cell[at]};
        }
        event_file_add(out, wall_time, (i64)t->step[r], values, n);
    }
    mem_free(values);
    return OK;
}

status run_export(const char *path, export_form form, double wall_time, text *out)
{
    metrics_data d;
    TRY(metrics_load(path, &d));
    table t = {.d = &d};
    status s = find_steps(&t, path);
    if (!s) s = wrap(fill(&t), "%s", path);
    if (!s && form == EXPORT_CSV) put_csv(&t, out);
    if (!s && form == EXPORT_JSONL) s = put_jsonl(&t, out);
    if (!s && form == EXPORT_EVENTS) s = put_events(&t, wall_time, out);
    mem_free(t.step);
    mem_free(t.cell);
    mem_free(t.there);
    metrics_free(&d);
    return s;
}

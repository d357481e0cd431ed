/* Tables from CSV, JSON and JSON lines: see run_table.h. */
#include "lab/run_table.h"
#include "base/file.h"
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_COLUMNS = 512, MOST_ROWS = 20000 };

/* ---- CSV */

typedef struct csv {
    const char *source, *at;
    i64 line;
    char separator;
    arena *a;
} csv;

/* The next field of the row, unquoted; *last: the row ends behind it. */
static status next_field(csv *c, const char **out, bool *last)
{
    text t = {0};
    i64 began = c->line;
    while (*c->at == ' ') c->at++;
    bool quoted = *c->at == '"';
    if (quoted) {
        for (c->at++;; c->at++) {
            if (!*c->at) {
                text_free(&t);
                return fail(ERR_FORMAT, "%s:%lld: a quote is opened and never closed", c->source,
                            (long long)began);
            }
            if (*c->at == '"' && *++c->at != '"') break;
            c->line += *c->at == '\n';
            text_add_bytes(&t, c->at, 1);
        }
    }
    while (*c->at && *c->at != c->separator && *c->at != '\n') text_add_bytes(&t, c->at++, 1);
    *last = *c->at != c->separator;
    if (*c->at) {
        c->line += *c->at == '\n';
        c->at++;
    }
    char *s = arena_strdup(c->a, t.bytes ? t.data : "");
    text_free(&t);
    while (*s == ' ' || *s == '\t') s++;
    for (size_t n = strlen(s); n && strchr(" \t\r", s[n - 1]); n--) s[n - 1] = 0;
    *out = s;
    return OK;
}

static bool blank_line(csv *c)
{
    const char *p = c->at;
    while (*p == ' ' || *p == '\r') p++;
    if (*p != '\n' && *p) return false;
    if (*p) p++, c->line++;
    c->at = p;
    return true;
}

static char separator_of(const char *head)
{
    i64 count[3] = {0};
    static const char which[] = ",;\t";
    for (; *head && *head != '\n'; head++)
        for (int k = 0; k < 3; k++) count[k] += *head == which[k];
    return which[count[1] > count[0] ? 1 : count[2] > count[0] ? 2 : 0];
}

static status read_head(csv *c, run_table *t)
{
    const char *name[MOST_COLUMNS];
    for (bool last = false; !last; t->columns++) {
        if (t->columns == MOST_COLUMNS)
            return fail(ERR_FORMAT, "%s:1: more than %d columns", c->source, MOST_COLUMNS);
        TRY(next_field(c, &name[t->columns], &last));
        for (i64 k = 0; k < t->columns; k++)
            if (!strcmp(name[k], name[t->columns]))
                return fail(ERR_FORMAT, "%s:1: two columns are named '%s'; rename one", c->source, name[k]);
    }
    t->name = arena_copy(c->a, name, sizeof *name * (size_t)t->columns);
    return OK;
}

static void grow(arena *a, run_table *t, i64 *capacity)
{
    if (t->rows < *capacity) return;
    i64 more = 2 * *capacity + 64;
    const char **cell = arena_array(a, const char *, more * t->columns),
               **label = arena_array(a, const char *, more);
    if (t->rows) {
        memcpy(cell, t->cell, sizeof *cell * (size_t)(t->rows * t->columns));
        memcpy(label, t->label, sizeof *label * (size_t)t->rows);
    }
    t->cell = cell, t->label = label, *capacity = more;
}

static status too_long(const run_table *t)
{
    return fail(ERR_FORMAT, "%s: more than %d rows; a row is a run, not a step of one", t->source, MOST_ROWS);
}

static status parse_csv(csv *c, run_table *t)
{
    i64 capacity = 0;
    while (blank_line(c) && *c->at) continue;
    if (!*c->at)
        return fail(ERR_FORMAT, "%s: empty; expected a table: CSV with a head, JSON or JSON lines",
                    c->source);
    c->separator = separator_of(c->at);
    TRY(read_head(c, t));
    while (*c->at) {
        i64 line = c->line, k = 0;
        if (blank_line(c)) continue;
        grow(c->a, t, &capacity);
        const char **row = t->cell + t->rows * t->columns;
        for (bool last = false; !last; k++) {
            const char *field;
            TRY(next_field(c, &field, &last));
            if (k < t->columns) row[k] = *field ? field : NULL;
        }
        if (k != t->columns)
            return fail(ERR_FORMAT, "%s:%lld: %lld fields; the head has %lld", c->source, (long long)line,
                        (long long)k, (long long)t->columns);
        t->label[t->rows++] = arena_printf(c->a, "line %lld", (long long)line);
        if (t->rows > MOST_ROWS) return too_long(t);
    }
    return OK;
}

/* ---- JSON */

static const char *cell_of(arena *a, const json_t *v)
{
    if (json_is_string(v)) return *json_string_value(v) ? arena_strdup(a, json_string_value(v)) : NULL;
    if (json_is_integer(v)) return arena_printf(a, "%lld", (long long)json_integer_value(v));
    if (json_is_real(v)) return arena_printf(a, "%.17g", json_real_value(v));
    if (json_is_boolean(v)) return json_is_true(v) ? "true" : "false";
    return NULL; // null; lists and objects are no cells
}

static status add_columns(arena *a, run_table *t, const char **name, const json_t *object)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value)
    {
        i64 k = 0;
        while (k < t->columns && strcmp(name[k], key) != 0) k++;
        if (k < t->columns) continue;
        if (t->columns == MOST_COLUMNS)
            return fail(ERR_FORMAT, "%s: more than %d columns", t->source, MOST_COLUMNS);
        name[t->columns++] = arena_strdup(a, key);
    }
    return OK;
}

/* Rows are objects; the columns are all keys there are. */
static status from_objects(arena *a, run_table *t, const json_t *rows, const char *unit)
{
    const char *name[MOST_COLUMNS];
    size_t n = json_array_size(rows);
    if (n > MOST_ROWS) return too_long(t);
    for (size_t i = 0; i < n; i++) {
        const json_t *o = json_array_get(rows, i);
        if (!json_is_object(o))
            return fail(ERR_FORMAT, "%s: %s %zu is no object; expected {\"params\": 1e9, ...}", t->source,
                        unit, i + 1);
        TRY(add_columns(a, t, name, o));
    }
    t->rows = (i64)n;
    t->name = arena_copy(a, name, sizeof *name * (size_t)t->columns);
    t->cell = arena_array(a, const char *, t->rows * t->columns + 1);
    t->label = arena_array(a, const char *, t->rows + 1);
    for (i64 r = 0; r < t->rows; r++) {
        const json_t *o = json_array_get(rows, (size_t)r);
        for (i64 k = 0; k < t->columns; k++) {
            const json_t *v = json_object_get(o, t->name[k]);
            t->cell[r * t->columns + k] = v ? cell_of(a, v) : NULL;
            /* what the metrics of a run write for a value that JSON cannot hold */
            const json_t *is =
                json_is_null(v) ? json_object_get(o, arena_printf(a, "%s_is", t->name[k])) : NULL;
            if (json_is_string(is)) t->cell[r * t->columns + k] = arena_strdup(a, json_string_value(is));
        }
        t->label[r] = arena_printf(a, "%s %lld", unit, (long long)r + 1);
    }
    return OK;
}

static status bad_json(const char *source, i64 line, const json_error_t *e)
{
    return fail(ERR_FORMAT, "%s:%lld: no JSON: %s", source, (long long)line + e->line - 1, e->text);
}

static status parse_json(const char *data, size_t bytes, arena *a, run_table *t)
{
    json_error_t e;
    json_t *rows = json_loadb(data, bytes, JSON_REJECT_DUPLICATES, &e);
    if (!rows) return bad_json(t->source, 1, &e);
    status s = from_objects(a, t, rows, "object");
    json_decref(rows);
    return s;
}

static status parse_lines(const char *data, size_t bytes, arena *a, run_table *t)
{
    json_t *rows = json_array();
    status s = rows ? OK : fail(ERR_MEMORY, "%s: out of memory", t->source);
    i64 line = 1;
    for (const char *at = data, *end = data + bytes, *stop; !s && at < end; at = stop + 1, line++) {
        json_error_t e;
        stop = memchr(at, '\n', (size_t)(end - at));
        if (!stop) stop = end;
        if (strspn(at, " \t\r") >= (size_t)(stop - at)) {
            s = fail(ERR_FORMAT, "%s:%lld: an empty line among JSON lines; remove it", t->source,
                     (long long)line);
            if (stop >= end - 1) status_drop(s), s = OK; // the last
            continue;
        }
        json_t *row = json_loadb(at, (size_t)(stop - at), JSON_REJECT_DUPLICATES, &e);
        if (!row)
            s = bad_json(t->source, line, &e);
        else
            json_array_append_new(rows, row);
    }
    if (!s) s = from_objects(a, t, rows, "line");
    json_decref(rows);
    return s;
}

status run_table_parse(const char *source, const char *data, size_t bytes, arena *a, run_table *out)
{
    *out = (run_table){.source = arena_strdup(a, source)};
    if (bytes >= 3 && !memcmp(data, "\xef\xbb\xbf", 3)) data += 3, bytes -= 3; // a byte-order mark
    if (memchr(data, 0, bytes)) return fail(ERR_FORMAT, "%s: it has zero bytes: not a text file", source);
    size_t at = strspn(data, " \t\r\n");
    if (data[at] == '[') return parse_json(data, bytes, a, out);
    if (data[at] == '{') return parse_lines(data, bytes, a, out);
    csv c = {.source = out->source, .at = data, .line = 1, .a = a};
    return parse_csv(&c, out);
}

status run_table_read(const char *path, arena *a, run_table *out)
{
    char *data;
    size_t bytes;
    TRY(file_read(path, &data, &bytes));
    status s = run_table_parse(strcmp(path, "-") ? path : "standard input", data, bytes, a, out);
    mem_free(data);
    return s;
}

/* A line of JSONL: see jsonl.h. */
#include "data/jsonl.h"
#include "base/text.h"
#include "text/utf8.h"
#include <jansson.h>
#include <string.h>

bool jsonl_is_blank(const u8 *line, i64 n)
{
    while (n && (line[n - 1] == ' ' || line[n - 1] == '\t' || line[n - 1] == '\r' || line[n - 1] == '\n'))
        n--;
    return !n;
}

/* The value of "a.b.c": a key as it is, or a way through objects. */
static json_t *find(json_t *object, const char *field)
{
    json_t *whole = json_object_get(object, field);
    const char *dot = strchr(field, '.');
    if (whole || !dot || dot - field > 200) return whole;
    char key[201];
    memcpy(key, field, (size_t)(dot - field));
    key[dot - field] = 0;
    json_t *inner = json_object_get(object, key);
    return json_is_object(inner) ? find(inner, dot + 1) : NULL;
}

static status no_field(json_t *object, const char *field)
{
    text names = {0};
    const char *key;
    json_t *value;
    i64 n = 0;
    json_object_foreach(object, key, value)
    {
        if (n < 8) text_add(&names, "%s%.40s", n ? ", " : "", key);
        n++;
    }
    status s = fail(ERR_INPUT, "no field '%s' (there are: %s%s); name the one with the text by data.field",
                    field, n ? names.data : "none", n > 8 ? ", ..." : "");
    text_free(&names);
    return s;
}

static const char *type_name(const json_t *v)
{
    static const char *const names[] = {"an object", "a list", "a string", "a number",
                                        "a number",  "true",   "false",    "null"};
    return names[json_typeof(v)];
}

status jsonl_text(const u8 *line, i64 n, const char *field, u8 *out, i64 *bytes)
{
    size_t valid = utf8_valid(line, (size_t)n);
    if (valid < (size_t)n)
        return fail(ERR_INPUT, "invalid UTF-8 at byte %zu of the line (0x%02X)", valid + 1, line[valid]);
    json_error_t e;
    json_t *object = json_loadb((const char *)line, (size_t)n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &e);
    if (!object) return fail(ERR_INPUT, "column %d: no JSON: %s", e.column, e.text);
    status s = OK;
    json_t *v = json_is_object(object) ? find(object, field) : NULL;
    if (!json_is_object(object))
        s = fail(ERR_INPUT, "%s, not an object with a field '%s'", type_name(object), field);
    else if (!v)
        s = no_field(object, field);
    else if (!json_is_string(v))
        s = fail(ERR_INPUT, "the field '%s' is %s; it must be a string", field, type_name(v));
    if (!s) {
        *bytes = (i64)json_string_length(v);
        if (*bytes) memcpy(out, json_string_value(v), (size_t)*bytes);
    }
    json_decref(object);
    return s;
}

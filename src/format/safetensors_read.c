/* Reads safetensors files, trusting nothing in them: see safetensors.h.
 *
 * The rules are the format's own: bytes 0-7 the header's length n <= 100,000,000, bytes 8 to 8+n a JSON
 * object that begins with '{' (spaces may follow it), {"name": {"dtype", "shape", "data_offsets": [begin,
 * end]}} with offsets counted from byte 8+n, and an optional "__metadata__" of strings. Sorted by begin, the
 * arrays must cover the rest of the file exactly, so no byte can hide and none can be shared. */
#include "format/safetensors.h"
#include "base/file.h"
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct st_file {
    arena *arena;
    file_map map; // data NULL when the memory is borrowed
    const char *path;
    const u8 *data; // the first array's first byte
    i64 data_bytes;
    st_entry *entries;       // by begin
    const st_entry **sorted; // by name
    i64 n, n_metadata;
    st_pair *metadata;
};

static const char *const dtype_name[] = {
#define ST(name, bytes) #name,
    ST_DTYPES(ST)
#undef ST
};
static const i64 dtype_bytes[] = {
#define ST(name, bytes) bytes,
    ST_DTYPES(ST)
#undef ST
};

const char *st_dtype_name(st_dtype t) { return dtype_name[t]; }
i64 st_dtype_bytes(st_dtype t) { return dtype_bytes[t]; }

/* A foreign string for a message: at most 80 bytes, control characters (terminals obey them) replaced. */
static const char *shown(const char *s, char out[96])
{
    size_t n = 0;
    for (; s[n] && n < 80; n++) out[n] = (u8)s[n] < 32 || s[n] == 127 ? '?' : s[n];
    strcpy(out + n, s[n] ? "..." : "");
    return out;
}

static status bad(const st_file *f, const char *name, const char *format, ...) PRINTF(3, 4) MUST;
static status bad(const st_file *f, const char *name, const char *format, ...)
{
    char what[256], shown_name[96];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    if (!name) return fail(ERR_FORMAT, "%s: %s", f->path, what);
    return fail(ERR_FORMAT, "%s: array '%s': %s; the file is damaged or forged", f->path,
                shown(name, shown_name), what);
}

static status read_dtype(const st_file *f, st_entry *e, json_t *value)
{
    const char *s = json_string_value(value);
    char buffer[96];
    if (!s) return bad(f, e->name, "\"dtype\" is missing or not a string");
    for (int t = 0; t < ST_DTYPE_COUNT; t++)
        if (!strcmp(s, dtype_name[t])) {
            e->dtype = (st_dtype)t;
            return OK;
        }
    return bad(f, e->name, "unknown dtype '%s'", shown(s, buffer));
}

/* Sets dims and the number of bytes they and the type ask for. */
static status read_shape(const st_file *f, st_entry *e, json_t *value)
{
    if (!json_is_array(value)) return bad(f, e->name, "\"shape\" is missing or not a list");
    size_t n = json_array_size(value);
    if (n > ST_MAX_DIMS) return bad(f, e->name, "%zu dimensions; at most %d", n, ST_MAX_DIMS);
    e->n_dims = (int)n;
    i64 count = dtype_bytes[e->dtype];
    bool empty = false;
    for (size_t i = 0; i < n; i++) {
        json_t *dim = json_array_get(value, i);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0)
            return bad(f, e->name, "dimension %zu is not an integer >= 0", i);
        e->dims[i] = json_integer_value(dim);
        empty |= e->dims[i] == 0;
        /* Even an array without elements may not announce dimensions whose product overflows: sizes computed
         * from a part of them (a row, say) would. */
        status overflow = mul_i64(count, e->dims[i], &count);
        status_drop(overflow);
        if (overflow) return bad(f, e->name, "the dimensions' product overflows");
    }
    e->bytes = empty ? 0 : count;
    return OK;
}

static status read_entry(st_file *f, const char *name, json_t *value, st_entry *e)
{
    e->name = arena_strdup(f->arena, name);
    if (!json_is_object(value)) return bad(f, name, "its description is not a JSON object");
    TRY(read_dtype(f, e, json_object_get(value, "dtype")));
    TRY(read_shape(f, e, json_object_get(value, "shape")));
    json_t *offsets = json_object_get(value, "data_offsets");
    json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end))
        return bad(f, name, "\"data_offsets\" is not a list of two integers");
    i64 from = json_integer_value(begin), to = json_integer_value(end);
    if (from < 0 || to < from || to > f->data_bytes)
        return bad(f, name, "data_offsets [%lld, %lld] are not within the %lld bytes of data",
                   (long long)from, (long long)to, (long long)f->data_bytes);
    if (to - from != e->bytes)
        return bad(f, name, "%lld bytes of data, but its shape and dtype need %lld", (long long)(to - from),
                   (long long)e->bytes);
    e->data = f->data + from;
    return OK;
}

static status read_metadata(st_file *f, json_t *map)
{
    if (!json_is_object(map)) return bad(f, NULL, "\"__metadata__\" is not a map of strings");
    f->metadata = arena_array(f->arena, st_pair, json_object_size(map));
    const char *key;
    json_t *value;
    char buffer[96];
    json_object_foreach(map, key, value)
    {
        if (!json_is_string(value))
            return bad(f, NULL, "the value of \"__metadata__\" key '%s' is not a string", shown(key, buffer));
        f->metadata[f->n_metadata++] =
            (st_pair){arena_strdup(f->arena, key), arena_strdup(f->arena, json_string_value(value))};
    }
    return OK;
}

static int by_place(const void *a, const void *b)
{
    const st_entry *x = a, *y = b;
    const u8 *p = x->data, *q = y->data;
    if (p != q) return p < q ? -1 : 1;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const st_entry *const *)a)->name, (*(const st_entry *const *)b)->name);
}

/* The arrays must follow each other without a gap, from the first byte of data to the last. */
static status check_cover(const st_file *f)
{
    i64 at = 0;
    for (i64 i = 0; i < f->n; i++) {
        i64 begin = (const u8 *)f->entries[i].data - f->data;
        if (begin != at)
            return bad(f, f->entries[i].name, "its data begin at %lld, %s the end of the array before, %lld",
                       (long long)begin, begin > at ? "leaving a hole after" : "overlapping", (long long)at);
        at += f->entries[i].bytes;
    }
    if (at != f->data_bytes)
        return bad(f, NULL,
                   "%lld bytes of data, but the arrays cover %lld; the file is truncated or has bytes added",
                   (long long)f->data_bytes, (long long)at);
    return OK;
}

static status read_header(st_file *f, json_t *header)
{
    const char *key;
    json_t *value;
    f->entries = arena_array(f->arena, st_entry, json_object_size(header));
    json_object_foreach(header, key, value)
    {
        if (!strcmp(key, "__metadata__"))
            TRY(read_metadata(f, value));
        else
            TRY(read_entry(f, key, value, &f->entries[f->n++]));
    }
    qsort(f->entries, (size_t)f->n, sizeof *f->entries, by_place);
    f->sorted = arena_array(f->arena, const st_entry *, f->n);
    for (i64 i = 0; i < f->n; i++) f->sorted[i] = &f->entries[i];
    qsort(f->sorted, (size_t)f->n, sizeof *f->sorted, by_name);
    return check_cover(f);
}

static status parse(st_file *f, const u8 *p, size_t bytes)
{
    u64 n = 0;
    if (bytes < 8) return bad(f, NULL, "%zu bytes; a safetensors file has at least 10", bytes);
    for (int i = 7; i >= 0; i--) n = n << 8 | p[i];
    if (n > ST_HEADER_LIMIT)
        return bad(f, NULL,
                   "a header of %llu bytes, over the format's limit of %d; is it a safetensors file?",
                   (unsigned long long)n, ST_HEADER_LIMIT);
    if (n > bytes - 8)
        return bad(f, NULL, "a header of %llu bytes in a file of %zu; the file is truncated",
                   (unsigned long long)n, bytes);
    if (!n || p[8] != '{')
        return bad(f, NULL, "the header does not begin with '{'; is it a safetensors file?");
    f->data = p + 8 + n, f->data_bytes = (i64)(bytes - 8 - n);
    json_error_t error;
    char buffer[96];
    json_t *header = json_loadb((const char *)p + 8, n, JSON_REJECT_DUPLICATES, &error);
    if (!header)
        return bad(f, NULL, "the header is not valid JSON at its byte %d: %s", error.position,
                   shown(error.text, buffer));
    status s = read_header(f, header);
    json_decref(header);
    return s;
}

static status open_over(const char *name, file_map map, const void *data, size_t bytes, st_file **out)
{
    arena *a;
    TRY(arena_open(&a));
    st_file *f = arena_new(a, st_file);
    *f = (st_file){.arena = a, .map = map, .path = arena_strdup(a, name)};
    status s = parse(f, data, bytes);
    if (s) {
        arena_close(a);
        return s;
    }
    *out = f;
    return OK;
}

status st_open_memory(const char *name, const void *data, size_t bytes, st_file **out)
{
    return open_over(name, (file_map){0}, data, bytes, out);
}

status st_open(const char *path, st_file **out)
{
    file_map map;
    TRY(file_map_open(path, &map));
    status s = open_over(path, map, map.data, map.bytes, out);
    if (s) file_map_close(&map);
    return s;
}

void st_close(st_file *f)
{
    if (!f) return;
    file_map map = f->map;
    arena_close(f->arena);
    file_map_close(&map);
}

i64 st_count(const st_file *f) { return f->n; }
const st_entry *st_at(const st_file *f, i64 i) { return &f->entries[i]; }
i64 st_metadata_count(const st_file *f) { return f->n_metadata; }
st_pair st_metadata_at(const st_file *f, i64 i) { return f->metadata[i]; }

const st_entry *st_find(const st_file *f, const char *name)
{
    i64 low = 0, high = f->n;
    while (low < high) {
        i64 middle = (low + high) / 2;
        int order = strcmp(name, f->sorted[middle]->name);
        if (!order) return f->sorted[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

const char *st_metadata(const st_file *f, const char *key)
{
    for (i64 i = 0; i < f->n_metadata; i++)
        if (!strcmp(f->metadata[i].key, key)) return f->metadata[i].value;
    return NULL;
}

/* Reads GGUF files, trusting nothing in them: see gguf.h.
 *
 *   "GGUF"  u32 version  u64 tensors  u64 keys
 *   keys x    { string key; u32 kind; value }
 *   tensors x { string name; u32 n_dims; u64 dims[n_dims]; u32 type; u64 offset }
 *   zeros up to the alignment; then the tensors' data, each padded with zeros to the alignment
 *
 * Every count is bounded by the bytes that are left before anything is allocated for it, every size is
 * computed with checked arithmetic, and the tensors must follow each other in the order of the list, as the
 * reference loader demands, so that no byte can hide and none can be shared. */
#include "base/file.h"
#include "format/gguf.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A key takes 14 bytes at least (length, one byte, kind, a value of one byte), a tensor 25. */
enum { LEAST_KEY = 14, LEAST_TENSOR = 25, MAX_ALIGNMENT = 1 << 16, DEFAULT_ALIGNMENT = 32 };

struct gguf_file {
    arena *arena;
    file_map map; // data NULL when the memory is borrowed
    const char *path;
    const u8 *start, *at, *end;
    i64 n, n_pairs, alignment;
    gguf_pair *pairs;
    gguf_tensor *tensors;
    u64 *offset;                // [n], as the file says
    const gguf_pair **by_key;   // sorted
    const gguf_tensor **sorted; // by name
};

static const struct {
    gguf_type type;
    const char *name;
    i64 elements, bytes;
} types[] = {
#define TYPE(name, number, elements, bytes) {GGUF_##name, #name, elements, bytes},
    GGUF_TYPES(TYPE)
#undef TYPE
};
static const u8 kind_bytes[KIND_COUNT] = {
    [KIND_U8] = 1,  [KIND_I8] = 1,   [KIND_U16] = 2, [KIND_I16] = 2, [KIND_U32] = 4, [KIND_I32] = 4,
    [KIND_F32] = 4, [KIND_BOOL] = 1, [KIND_U64] = 8, [KIND_I64] = 8, [KIND_F64] = 8,
};

const char *gguf_type_name(gguf_type t)
{
    for (i64 i = 0; i < COUNT(types); i++)
        if (types[i].type == t) return types[i].name;
    return "?";
}

i64 gguf_block_elements(gguf_type t)
{
    for (i64 i = 0; i < COUNT(types); i++)
        if (types[i].type == t) return types[i].elements;
    return 0;
}

i64 gguf_block_bytes(gguf_type t)
{
    for (i64 i = 0; i < COUNT(types); i++)
        if (types[i].type == t) return types[i].bytes;
    return 0;
}

status gguf_tensor_bytes(const gguf_tensor *t, i64 *out)
{
    i64 columns = t->n_dims ? t->dims[0] : 1, block = gguf_block_elements(t->type), bytes;
    if (!block) return fail(ERR_FORMAT, "unknown type %d", (int)t->type);
    if (columns % block)
        return fail(ERR_FORMAT, "rows of %lld are no whole blocks of %lld, which %s needs",
                    (long long)columns, (long long)block, gguf_type_name(t->type));
    TRY(mul_i64(columns / block, gguf_block_bytes(t->type), &bytes));
    for (int i = 1; i < t->n_dims; i++) TRY(mul_i64(bytes, t->dims[i], &bytes));
    *out = bytes;
    return OK;
}

/* ---- pieces */

static i64 left(const gguf_file *f) { return f->end - f->at; }

static u64 little(const u8 *p, int bytes)
{
    u64 x = 0;
    for (int i = bytes - 1; i >= 0; i--) x = x << 8 | p[i];
    return x;
}

static status take(gguf_file *f, i64 bytes, const char *what, const u8 **out)
{
    *out = f->at;
    if (bytes > left(f))
        return fail(ERR_FORMAT,
                    "%s: %s needs %lld bytes at %lld, but the file ends after %lld; it is truncated", f->path,
                    what, (long long)bytes, (long long)(f->at - f->start), (long long)left(f));
    f->at += bytes;
    return OK;
}

static status take_number(gguf_file *f, int bytes, const char *what, u64 *out)
{
    const u8 *p;
    TRY(take(f, bytes, what, &p));
    *out = little(p, bytes);
    return OK;
}

/* "a length of 2^63 in a file of 100 bytes" is refused before it is used. */
static status take_string(gguf_file *f, const char *what, gguf_string *out)
{
    const u8 *p;
    u64 n = 0;
    TRY(take_number(f, 8, what, &n));
    if (n > GGUF_LENGTH_LIMIT || n > (u64)left(f))
        return fail(ERR_FORMAT, "%s: %s announces %llu bytes at %lld, but %lld are left; the file is damaged",
                    f->path, what, (unsigned long long)n, (long long)(f->at - f->start), (long long)left(f));
    TRY(take(f, (i64)n, what, &p));
    *out = (gguf_string){(const char *)p, (i64)n};
    return OK;
}

/* Names are shown in messages and compared: printable ASCII without blanks, as every writer's are. */
static status take_name(gguf_file *f, const char *what, i64 most, const char **out)
{
    gguf_string s = {0};
    TRY(take_string(f, what, &s));
    if (!s.bytes || s.bytes > most)
        return fail(ERR_FORMAT, "%s: %s has %lld bytes; 1 to %lld are allowed", f->path, what,
                    (long long)s.bytes, (long long)most);
    for (i64 i = 0; i < s.bytes; i++)
        if (s.data[i] <= ' ' || s.data[i] >= 127)
            return fail(ERR_FORMAT, "%s: %s holds the byte %d; printable ASCII is allowed", f->path, what,
                        (u8)s.data[i]);
    char *name = arena_alloc(f->arena, (size_t)s.bytes + 1);
    memcpy(name, s.data, (size_t)s.bytes);
    *out = name;
    return OK;
}

static status take_array(gguf_file *f, const char *what, gguf_value *v)
{
    u64 kind, n;
    gguf_string s;
    TRY(take_number(f, 4, what, &kind));
    TRY(take_number(f, 8, what, &n));
    if (kind >= KIND_COUNT || kind == KIND_ARRAY)
        return fail(ERR_FORMAT, "%s: %s is an array of kind %llu; expected 0 to 12, and not 9, an array",
                    f->path, what, (unsigned long long)kind);
    i64 each = kind == KIND_STRING ? 8 : kind_bytes[kind];
    if (n > GGUF_LENGTH_LIMIT || n > (u64)(left(f) / each))
        return fail(ERR_FORMAT,
                    "%s: %s announces %llu elements, but %lld bytes are left; the file is damaged", f->path,
                    what, (unsigned long long)n, (long long)left(f));
    v->element = (gguf_kind)kind, v->count = (i64)n, v->data = f->at;
    if (kind != KIND_STRING) f->at += each * (i64)n;
    for (i64 i = 0; kind == KIND_STRING && i < v->count; i++) TRY(take_string(f, what, &s));
    return OK;
}

static status take_value(gguf_file *f, const char *what, gguf_value *v)
{
    u64 kind;
    TRY(take_number(f, 4, what, &kind));
    if (kind >= KIND_COUNT)
        return fail(ERR_FORMAT, "%s: %s is of kind %llu; expected 0 to 12", f->path, what,
                    (unsigned long long)kind);
    v->kind = (gguf_kind)kind;
    if (v->kind == KIND_STRING) return take_string(f, what, &v->string);
    if (v->kind == KIND_ARRAY) return take_array(f, what, v);
    int bytes = kind_bytes[kind];
    TRY(take_number(f, bytes, what, &v->bits));
    if (v->kind == KIND_BOOL && v->bits > 1)
        return fail(ERR_FORMAT, "%s: %s is a bool of %llu; expected 0 or 1", f->path, what,
                    (unsigned long long)v->bits);
    if (v->kind == KIND_I8 || v->kind == KIND_I16 || v->kind == KIND_I32) // extend the sign
        v->bits = (u64)((i64)(v->bits << (64 - 8 * bytes)) >> (64 - 8 * bytes));
    float narrow;
    if (v->kind == KIND_F32) memcpy(&narrow, f->at - 4, 4), v->number = narrow;
    if (v->kind == KIND_F64) memcpy(&v->number, f->at - 8, 8);
    return OK;
}

/* ---- the two lists */

static int by_key(const void *a, const void *b)
{
    return strcmp((*(const gguf_pair *const *)a)->key, (*(const gguf_pair *const *)b)->key);
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const gguf_tensor *const *)a)->name, (*(const gguf_tensor *const *)b)->name);
}

static status read_keys(gguf_file *f)
{
    f->pairs = arena_array(f->arena, gguf_pair, f->n_pairs);
    f->by_key = arena_array(f->arena, const gguf_pair *, f->n_pairs);
    for (i64 i = 0; i < f->n_pairs; i++) {
        char what[48];
        snprintf(what, sizeof what, "key %lld", (long long)i);
        TRY(take_name(f, what, 65535, &f->pairs[i].key));
        snprintf(what, sizeof what, "'%.40s'", f->pairs[i].key);
        TRY(take_value(f, what, &f->pairs[i].value));
        f->by_key[i] = &f->pairs[i];
    }
    qsort(f->by_key, (size_t)f->n_pairs, sizeof *f->by_key, by_key);
    for (i64 i = 1; i < f->n_pairs; i++)
        if (!strcmp(f->by_key[i - 1]->key, f->by_key[i]->key))
            return fail(ERR_FORMAT, "%s: two keys are '%.80s'", f->path, f->by_key[i]->key);
    return OK;
}

static status read_alignment(gguf_file *f)
{
    const gguf_value *v = gguf_key(f, "general.alignment");
    f->alignment = DEFAULT_ALIGNMENT;
    if (!v) return OK;
    if (v->kind != KIND_U32) return fail(ERR_FORMAT, "%s: general.alignment is no u32", f->path);
    f->alignment = (i64)v->bits;
    if (f->alignment < 1 || f->alignment > MAX_ALIGNMENT || f->alignment & (f->alignment - 1))
        return fail(ERR_FORMAT, "%s: general.alignment is %lld; expected a power of two up to %d", f->path,
                    (long long)f->alignment, MAX_ALIGNMENT);
    return OK;
}

static status read_tensor(gguf_file *f, i64 i)
{
    char what[48];
    u64 n_dims, dim, type;
    gguf_tensor *t = &f->tensors[i];
    snprintf(what, sizeof what, "tensor %lld", (long long)i);
    TRY(take_name(f, what, GGUF_NAME_LIMIT, &t->name));
    TRY(take_number(f, 4, t->name, &n_dims));
    if (n_dims > GGUF_MAX_DIMS)
        return fail(ERR_FORMAT, "%s: %s has %llu dimensions; at most %d", f->path, t->name,
                    (unsigned long long)n_dims, GGUF_MAX_DIMS);
    t->n_dims = (int)n_dims;
    for (int k = 0; k < t->n_dims; k++) {
        TRY(take_number(f, 8, t->name, &dim));
        if (dim > INT64_MAX)
            return fail(ERR_FORMAT, "%s: %s: dimension %d is %llu; the file is damaged", f->path, t->name, k,
                        (unsigned long long)dim);
        t->dims[k] = (i64)dim;
    }
    TRY(take_number(f, 4, t->name, &type));
    if (type > INT32_MAX || !gguf_block_elements((gguf_type)type))
        return fail(ERR_FORMAT, "%s: %s is of type %llu, which Keel does not know", f->path, t->name,
                    (unsigned long long)type);
    t->type = (gguf_type)type;
    TRY(take_number(f, 8, t->name, &f->offset[i]));
    i64 elements = 1; // of which a part may be multiplied elsewhere: the whole must not overflow
    for (int k = 0; k < t->n_dims; k++)
        TRY(wrap(mul_i64(elements, MAX(t->dims[k], 1), &elements), "%s: %s", f->path, t->name));
    return wrap(gguf_tensor_bytes(t, &t->bytes), "%s: %s", f->path, t->name);
}

/* Where each tensor must begin, and that the file ends with the last one, padded or not. */
static status place(gguf_file *f)
{
    i64 header = f->at - f->start, start, at = 0, end = 0, sum;
    TRY(pad_i64(header, f->alignment, &start));
    for (i64 i = 0; i < f->n; i++) {
        gguf_tensor *t = &f->tensors[i];
        if (f->offset[i] != (u64)at)
            return fail(ERR_FORMAT,
                        "%s: %s begins at %llu of the data; expected %lld, behind the tensor before", f->path,
                        t->name, (unsigned long long)f->offset[i], (long long)at);
        TRY(wrap(add_i64(at, t->bytes, &end), "%s: %s", f->path, t->name));
        TRY(wrap(add_i64(start, end, &sum), "%s: %s", f->path, t->name));
        if (sum > f->end - f->start)
            return fail(ERR_FORMAT, "%s: %s ends at byte %lld of a file of %lld; it is truncated", f->path,
                        t->name, (long long)sum, (long long)(f->end - f->start));
        t->data = f->start + start + at;
        TRY(wrap(pad_i64(end, f->alignment, &at), "%s: %s", f->path, t->name));
    }
    i64 rest = f->end - f->start - (f->n ? start + end : header);
    if (rest < f->alignment) return OK;
    return fail(ERR_FORMAT, "%s: %lld bytes behind the last tensor; the file is damaged", f->path,
                (long long)rest);
}

static status read_tensors(gguf_file *f)
{
    f->tensors = arena_array(f->arena, gguf_tensor, f->n);
    f->offset = arena_array(f->arena, u64, f->n);
    f->sorted = arena_array(f->arena, const gguf_tensor *, f->n);
    for (i64 i = 0; i < f->n; i++) {
        TRY(read_tensor(f, i));
        f->sorted[i] = &f->tensors[i];
    }
    qsort(f->sorted, (size_t)f->n, sizeof *f->sorted, by_name);
    for (i64 i = 1; i < f->n; i++)
        if (!strcmp(f->sorted[i - 1]->name, f->sorted[i]->name))
            return fail(ERR_FORMAT, "%s: two tensors are '%s'", f->path, f->sorted[i]->name);
    return place(f);
}

static status check_count(const gguf_file *f, const char *what, u64 n, i64 least, i64 *out)
{
    if (n > GGUF_COUNT_LIMIT)
        return fail(ERR_FORMAT, "%s: %llu %s announced; at most %d", f->path, (unsigned long long)n, what,
                    GGUF_COUNT_LIMIT);
    if (n > (u64)(left(f) / least))
        return fail(ERR_FORMAT, "%s: %llu %s announced, but %lld bytes are left; the file is damaged",
                    f->path, (unsigned long long)n, what, (long long)left(f));
    *out = (i64)n;
    return OK;
}

static status parse(gguf_file *f)
{
    const u8 *magic;
    u64 version, tensors, keys;
    TRY(take(f, 4, "a GGUF file", &magic));
    if (memcmp(magic, "GGUF", 4)) return fail(ERR_FORMAT, "%s: does not begin with 'GGUF'", f->path);
    TRY(take_number(f, 4, "the version", &version));
    if (version && !(version & 0xffff))
        return fail(ERR_FORMAT, "%s: a big-endian GGUF file; convert it to little-endian", f->path);
    if (version != 2 && version != 3)
        return fail(ERR_FORMAT, "%s: version %llu of GGUF; Keel reads 2 and 3", f->path,
                    (unsigned long long)version);
    TRY(take_number(f, 8, "the number of tensors", &tensors));
    TRY(take_number(f, 8, "the number of keys", &keys));
    TRY(check_count(f, "keys", keys, LEAST_KEY, &f->n_pairs));
    TRY(check_count(f, "tensors", tensors, LEAST_TENSOR, &f->n));
    TRY(read_keys(f));
    TRY(read_alignment(f));
    TRY(check_count(f, "tensors", tensors, LEAST_TENSOR, &f->n));
    return read_tensors(f);
}

static status open_bytes(const char *name, const void *data, size_t bytes, file_map map, gguf_file **out)
{
    arena *a;
    TRY(arena_open(&a));
    gguf_file *f = arena_new(a, gguf_file);
    f->arena = a, f->path = arena_strdup(a, name);
    f->start = f->at = data, f->end = f->start + bytes;
    status s = parse(f);
    if (s) {
        arena_close(a);
        return s;
    }
    f->map = map;
    *out = f;
    return OK;
}

status gguf_open_memory(const char *name, const void *data, size_t bytes, gguf_file **out)
{
    return open_bytes(name, data, bytes, (file_map){0}, out);
}

status gguf_open(const char *path, gguf_file **out)
{
    file_map map;
    TRY(file_map_open(path, &map));
    status s = open_bytes(path, map.data, map.bytes, map, out);
    if (s) file_map_close(&map);
    return s;
}

void gguf_close(gguf_file *f)
{
    if (!f) return;
    if (f->map.data) file_map_close(&f->map);
    arena_close(f->arena); // F lies in it
}

bool gguf_is(const char *path)
{
    char start[4];
    FILE *f = fopen(path, "r");
    bool is = f && fread(start, 1, 4, f) == 4 && !memcmp(start, "GGUF", 4);
    if (f) fclose(f);
    return is;
}

/* ---- asking */

i64 gguf_count(const gguf_file *f) { return f->n; }
const gguf_tensor *gguf_at(const gguf_file *f, i64 i) { return &f->tensors[i]; }
i64 gguf_key_count(const gguf_file *f) { return f->n_pairs; }
const gguf_pair *gguf_key_at(const gguf_file *f, i64 i) { return &f->pairs[i]; }

const gguf_tensor *gguf_find(const gguf_file *f, const char *name)
{
    const gguf_tensor wanted = {.name = name}, *key = &wanted;
    const gguf_tensor **at = f->n ? bsearch(&key, f->sorted, (size_t)f->n, sizeof *f->sorted, by_name) : NULL;
    return at ? *at : NULL;
}

const gguf_value *gguf_key(const gguf_file *f, const char *key)
{
    const gguf_pair wanted = {.key = key}, *p = &wanted;
    const gguf_pair **at =
        f->n_pairs ? bsearch(&p, f->by_key, (size_t)f->n_pairs, sizeof *f->by_key, by_key) : NULL;
    return at ? &(*at)->value : NULL;
}

bool gguf_integer(const gguf_value *v, i64 *out)
{
    if (!v || v->kind == KIND_F32 || v->kind == KIND_F64 || v->kind == KIND_BOOL || v->kind == KIND_STRING ||
        v->kind == KIND_ARRAY || (v->kind == KIND_U64 && v->bits > INT64_MAX))
        return false;
    *out = (i64)v->bits;
    return true;
}

bool gguf_number(const gguf_value *v, double *out)
{
    if (!v || (v->kind != KIND_F32 && v->kind != KIND_F64)) return false;
    *out = v->number;
    return true;
}

bool gguf_flag(const gguf_value *v, bool *out)
{
    if (!v || v->kind != KIND_BOOL) return false;
    *out = v->bits;
    return true;
}

bool gguf_text(const gguf_value *v, gguf_string *out)
{
    if (!v || v->kind != KIND_STRING) return false;
    *out = v->string;
    return true;
}

bool gguf_is_text(const gguf_value *v, const char *s)
{
    gguf_string x;
    return gguf_text(v, &x) && x.bytes == (i64)strlen(s) && !memcmp(x.data, s, (size_t)x.bytes);
}

gguf_string gguf_next(const gguf_value *v, const u8 **cursor)
{
    const u8 *p = *cursor ? *cursor : v->data;
    gguf_string s = {(const char *)p + 8, (i64)little(p, 8)};
    *cursor = p + 8 + s.bytes;
    return s;
}

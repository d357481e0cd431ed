/* Writes GGUF files: see gguf.h; the layout stands in gguf_read.c. */
#include "base/file.h"
#include "base/text.h"
#include "format/gguf.h"
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 32 };

struct gguf_writer {
    file_writer *file;
    char *path;
    i64 *bytes; // of each tensor
    i64 n, next;
};

static void put(text *t, u64 x, int bytes)
{
    u8 p[8];
    for (int i = 0; i < bytes; i++) p[i] = (u8)(x >> 8 * i);
    text_add_bytes(t, (const char *)p, (size_t)bytes);
}

static void put_string(text *t, const char *s, i64 n)
{
    put(t, (u64)n, 8);
    text_add_bytes(t, s, (size_t)n);
}

static void put_value(text *t, const gguf_value *v)
{
    static const u8 bytes[KIND_COUNT] = {
        [KIND_U8] = 1,  [KIND_I8] = 1,   [KIND_U16] = 2, [KIND_I16] = 2, [KIND_U32] = 4, [KIND_I32] = 4,
        [KIND_F32] = 4, [KIND_BOOL] = 1, [KIND_U64] = 8, [KIND_I64] = 8, [KIND_F64] = 8,
    };
    float narrow = (float)v->number;
    put(t, v->kind, 4);
    if (v->kind == KIND_STRING)
        put_string(t, v->string.data, v->string.bytes);
    else if (v->kind == KIND_F32)
        text_add_bytes(t, (const char *)&narrow, 4);
    else if (v->kind == KIND_F64)
        text_add_bytes(t, (const char *)&v->number, 8);
    else if (v->kind != KIND_ARRAY)
        put(t, v->bits, bytes[v->kind]);
    else {
        const gguf_string *s = v->data;
        put(t, v->element, 4);
        put(t, (u64)v->count, 8);
        if (v->element != KIND_STRING) text_add_bytes(t, v->data, (size_t)(v->count * bytes[v->element]));
        for (i64 i = 0; v->element == KIND_STRING && i < v->count; i++) put_string(t, s[i].data, s[i].bytes);
    }
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Names the reader would refuse are refused here. */
static status check_names(const char *path, const char *what, const char **names, i64 n, size_t most)
{
    for (i64 i = 0; i < n; i++)
        if (!*names[i] || strlen(names[i]) > most)
            return fail(ERR_FORMAT, "%s: the %s '%s' is empty or longer than %zu bytes", path, what, names[i],
                        most);
    qsort(names, (size_t)n, sizeof *names, by_text);
    for (i64 i = 1; i < n; i++)
        if (!strcmp(names[i - 1], names[i]))
            return fail(ERR_FORMAT, "%s: two %ss are '%s'", path, what, names[i]);
    return OK;
}

static status check_all_names(const char *path, const gguf_pair *pairs, i64 n_pairs,
                              const gguf_tensor *tensors, i64 n)
{
    const char **names = calloc((size_t)MAX(MAX(n, n_pairs), 1), sizeof *names);
    if (!names) return fail(ERR_MEMORY, "%s: out of memory", path);
    for (i64 i = 0; i < n_pairs; i++) names[i] = pairs[i].key;
    status s = check_names(path, "key", names, n_pairs, 65535);
    for (i64 i = 0; i < n; i++) names[i] = tensors[i].name;
    if (!s) s = check_names(path, "tensor", names, n, GGUF_NAME_LIMIT);
    free(names);
    return s;
}

static status make_header(const char *path, const gguf_pair *pairs, i64 n_pairs, const gguf_tensor *tensors,
                          i64 n, i64 *bytes, text *t)
{
    i64 at = 0;
    text_add_bytes(t, "GGUF", 4);
    put(t, 3, 4);
    put(t, (u64)n, 8);
    put(t, (u64)n_pairs, 8);
    for (i64 i = 0; i < n_pairs; i++) {
        put_string(t, pairs[i].key, (i64)strlen(pairs[i].key));
        put_value(t, &pairs[i].value);
    }
    for (i64 i = 0; i < n; i++) {
        const gguf_tensor *x = &tensors[i];
        TRY(wrap(gguf_tensor_bytes(x, &bytes[i]), "%s: %s", path, x->name));
        put_string(t, x->name, (i64)strlen(x->name));
        put(t, (u64)x->n_dims, 4);
        for (int k = 0; k < x->n_dims; k++) put(t, (u64)x->dims[k], 8);
        put(t, x->type, 4);
        put(t, (u64)at, 8);
        TRY(wrap(add_i64(at, bytes[i], &at), "%s: %s", path, x->name));
        TRY(wrap(pad_i64(at, ALIGNMENT, &at), "%s: %s", path, x->name));
    }
    while (n && t->bytes % ALIGNMENT) text_add_bytes(t, "", 1);
    return OK;
}

static void release(gguf_writer *w)
{
    free(w->path);
    free(w->bytes);
    free(w);
}

void gguf_abandon(gguf_writer *w)
{
    if (!w) return;
    file_abandon(w->file);
    release(w);
}

status gguf_create(const char *path, const gguf_pair *pairs, i64 n_pairs, const gguf_tensor *tensors, i64 n,
                   gguf_writer **out)
{
    TRY(check_all_names(path, pairs, n_pairs, tensors, n));
    gguf_writer *w = calloc(1, sizeof *w);
    if (w) w->path = strdup(path), w->bytes = calloc((size_t)MAX(n, 1), sizeof *w->bytes), w->n = n;
    if (!w || !w->path || !w->bytes) {
        gguf_abandon(w);
        return fail(ERR_MEMORY, "%s: out of memory", path);
    }
    text header = {0};
    status s = make_header(path, pairs, n_pairs, tensors, n, w->bytes, &header);
    if (!s) s = file_create(path, &w->file);
    if (!s && (s = file_write(w->file, header.data, header.bytes))) w->file = NULL; // gone
    text_free(&header);
    if (s)
        gguf_abandon(w);
    else
        *out = w;
    return s;
}

/* A failed file_write has removed the file. */
static status lost(gguf_writer *w, status s)
{
    release(w);
    return s;
}

status gguf_write(gguf_writer *w, const void *data, i64 bytes)
{
    static const u8 zeros[ALIGNMENT];
    if (w->next == w->n || bytes != w->bytes[w->next]) {
        i64 wanted = w->next == w->n ? 0 : w->bytes[w->next];
        status s = fail(ERR_FORMAT, "%s: %lld bytes for tensor %lld of %lld, which takes %lld", w->path,
                        (long long)bytes, (long long)w->next, (long long)w->n, (long long)wanted);
        gguf_abandon(w);
        return s;
    }
    w->next++;
    status s = file_write(w->file, data, (size_t)bytes);
    if (s) return lost(w, s);
    i64 padding = round_up(bytes, ALIGNMENT) - bytes;
    s = padding ? file_write(w->file, zeros, (size_t)padding) : OK;
    return s ? lost(w, s) : OK;
}

status gguf_commit(gguf_writer *w)
{
    if (w->next < w->n) {
        status s = fail(ERR_FORMAT, "%s: the data of %lld tensors of %lld were written", w->path,
                        (long long)w->next, (long long)w->n);
        gguf_abandon(w);
        return s;
    }
    return lost(w, file_commit(w->file));
}

/* Writes safetensors files, hashing on the way: see safetensors.h.
 *
 * The header's length is known before the first byte of data, so arrays stream from wherever they live to the
 * page cache; each chunk is hashed just before it is written, while the write still finds it in the cache. */
#define _GNU_SOURCE // asprintf
#include "format/safetensors.h"
#include "base/file.h"
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

enum { CHUNK_BYTES = 1 << 20 };

struct st_writer {
    int fd;
    bool own_fd;
    char *path, *temporary; // temporary NULL when attached
    i64 expected, written;  // bytes of data
    i64 header_bytes;
    XXH3_state_t *hash;
};

static void writer_free(st_writer *w)
{
    if (w->own_fd && w->fd >= 0) close(w->fd);
    if (w->hash) XXH3_freeState(w->hash);
    free(w->path);
    free(w->temporary);
    free(w);
}

void st_abandon(st_writer *w)
{
    if (!w) return;
    if (w->temporary && w->fd >= 0) unlink(w->temporary);
    writer_free(w);
}

i64 st_entry_bytes(const st_entry *e)
{
    i64 bytes = st_dtype_bytes(e->dtype);
    for (int d = 0; d < e->n_dims; d++) bytes *= e->dims[d];
    return bytes;
}

/* Adds an entry to HEADER; *at is where its data begin, and then where they end. */
static status describe(const char *path, const st_entry *e, json_t *header, i64 *at)
{
    i64 bytes = st_dtype_bytes(e->dtype), begin = *at;
    json_t *shape = json_array(), *about = NULL;
    status s = OK;
    if (!strcmp(e->name, "__metadata__"))
        s = fail(ERR_FORMAT, "%s: an array cannot be named '__metadata__': the format reserves that", path);
    else if (json_object_get(header, e->name))
        s = fail(ERR_FORMAT, "%s: two arrays are named '%s'", path, e->name);
    if (!s && (e->n_dims < 0 || e->n_dims > ST_MAX_DIMS))
        s = fail(ERR_FORMAT, "%s: array '%s': %d dimensions; 0 to %d", path, e->name, e->n_dims, ST_MAX_DIMS);
    for (int i = 0; !s && i < e->n_dims; i++) {
        s = wrap(mul_i64(bytes, e->dims[i], &bytes), "%s: array '%s'", path, e->name);
        if (!s && json_array_append_new(shape, json_integer(e->dims[i])))
            s = fail(ERR_MEMORY, "%s: out of memory", path);
    }
    if (!s) s = wrap(add_i64(*at, bytes, at), "%s: array '%s'", path, e->name);
    if (s) {
        json_decref(shape);
        return s;
    }
    about = json_pack("{s:s, s:o, s:[I, I]}", "dtype", st_dtype_name(e->dtype), "shape", shape,
                      "data_offsets", (json_int_t)begin, (json_int_t)*at);
    if (json_object_set_new(header, e->name, about))
        return fail(ERR_FORMAT, "%s: the name of array '%s' is not UTF-8", path, e->name);
    return OK;
}

/* The header as text, padded with spaces so that data begin at a multiple of 8; released with free. */
static status make_header(const char *path, const st_entry *entries, i64 n, const st_pair *metadata,
                          i64 n_metadata, char **out, i64 *out_bytes, i64 *data_bytes)
{
    json_t *header = json_object(), *map = json_object();
    status s = OK;
    for (i64 i = 0; !s && i < n_metadata; i++)
        if (json_object_set_new(map, metadata[i].key, json_string(metadata[i].value)))
            s = fail(ERR_FORMAT, "%s: metadata '%s' is not UTF-8", path, metadata[i].key);
    if (!s && n_metadata) json_object_set(header, "__metadata__", map);
    *data_bytes = 0;
    for (i64 i = 0; !s && i < n; i++) s = describe(path, &entries[i], header, data_bytes);
    char *text = s ? NULL : json_dumps(header, JSON_COMPACT | JSON_PRESERVE_ORDER);
    json_decref(header);
    json_decref(map);
    if (s) return s;
    size_t bytes = text ? strlen(text) : 0, padded = (bytes + 7) / 8 * 8;
    char *grown = text ? realloc(text, padded + 1) : NULL;
    if (!grown || padded > ST_HEADER_LIMIT) {
        free(grown ? grown : text);
        return grown ? fail(ERR_FORMAT, "%s: the header takes %zu bytes; the format allows %d", path, padded,
                            ST_HEADER_LIMIT)
                     : fail(ERR_MEMORY, "%s: out of memory", path);
    }
    memset(grown + bytes, ' ', padded - bytes);
    *out = grown, *out_bytes = (i64)padded;
    return OK;
}

static status put(st_writer *w, const u8 *p, size_t bytes)
{
    while (bytes) {
        size_t n = MIN(bytes, (size_t)CHUNK_BYTES);
        XXH3_128bits_update(w->hash, p, n);
        TRY(fd_write_all(w->fd, p, n, w->path));
        p += n, bytes -= n;
    }
    return OK;
}

static status start(st_writer *w, const st_entry *entries, i64 n, const st_pair *metadata, i64 n_metadata)
{
    char *header = NULL;
    u8 length[8];
    TRY(make_header(w->path, entries, n, metadata, n_metadata, &header, &w->header_bytes, &w->expected));
    for (int i = 0; i < 8; i++) length[i] = (u8)((u64)w->header_bytes >> 8 * i);
    status s = OK;
    if (w->temporary) {
        w->fd = open(w->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        if (w->fd < 0) s = fail(ERR_IO, "%s: cannot create: %s", w->path, strerror(errno));
    }
    if (!s) s = put(w, length, sizeof length);
    if (!s) s = put(w, (const u8 *)header, (size_t)w->header_bytes);
    free(header);
    return s;
}

static status begin(int fd, const char *path, const st_entry *entries, i64 n, const st_pair *metadata,
                    i64 n_metadata, st_writer **out)
{
    if (fd < 0) TRY(path_replaceable(path));
    st_writer *w = calloc(1, sizeof *w);
    if (!w) return fail(ERR_MEMORY, "%s: out of memory", path);
    w->fd = fd, w->own_fd = fd < 0;
    w->path = strdup(path);
    w->hash = XXH3_createState();
    bool complete = w->path && w->hash;
    if (complete && fd < 0 && asprintf(&w->temporary, "%s.tmp-%ld", path, (long)getpid()) < 0)
        w->temporary = NULL, complete = false;
    status s = complete ? OK : fail(ERR_MEMORY, "%s: out of memory", path);
    if (!s) {
        XXH3_128bits_reset(w->hash);
        s = start(w, entries, n, metadata, n_metadata);
    }
    if (s)
        st_abandon(w);
    else
        *out = w;
    return s;
}

status st_create(const char *path, const st_entry *entries, i64 n, const st_pair *metadata, i64 n_metadata,
                 st_writer **out)
{
    return begin(-1, path, entries, n, metadata, n_metadata, out);
}

status st_attach(int fd, const char *path, const st_entry *entries, i64 n, const st_pair *metadata,
                 i64 n_metadata, st_writer **out)
{
    return begin(fd, path, entries, n, metadata, n_metadata, out);
}

status st_write(st_writer *w, const void *data, size_t bytes)
{
    status s = OK;
    if ((i64)bytes > w->expected - w->written)
        s = fail(ERR_FORMAT, "%s: %lld bytes of data offered, but its arrays take %lld", w->path,
                 (long long)w->written + (long long)bytes, (long long)w->expected);
    if (!s) s = put(w, data, bytes);
    w->written += (i64)bytes;
    if (s) st_abandon(w);
    return s;
}

static status check_complete(st_writer *w, digest *sum)
{
    if (w->written != w->expected)
        return fail(ERR_FORMAT, "%s: %lld of %lld bytes of data were written", w->path, (long long)w->written,
                    (long long)w->expected);
    XXH128_hash_t h = XXH3_128bits_digest(w->hash);
    if (sum) *sum = (digest){8 + w->header_bytes + w->expected, h.high64, h.low64};
    return OK;
}

status st_end(st_writer *w, digest *sum)
{
    status s = check_complete(w, sum);
    writer_free(w);
    return s;
}

status st_commit(st_writer *w, digest *sum)
{
    char *slash;
    status s = check_complete(w, sum);
    if (!s) s = fd_sync(w->fd, w->path);
    if (!s) s = path_rename(w->temporary, w->path);
    if (s) {
        st_abandon(w);
        return s;
    }
    slash = strrchr(w->path, '/');
    if (slash) slash[slash == w->path] = 0;
    s = dir_sync(slash ? w->path : ".");
    writer_free(w);
    return s;
}

status st_save(const char *path, const st_entry *entries, i64 n, const st_pair *metadata, i64 n_metadata,
               digest *sum)
{
    st_writer *w;
    TRY(st_create(path, entries, n, metadata, n_metadata, &w));
    for (i64 i = 0; i < n; i++) TRY(st_write(w, entries[i].data, (size_t)st_entry_bytes(&entries[i])));
    return st_commit(w, sum);
}

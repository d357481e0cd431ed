/* safetensors: named arrays in one file (github.com/huggingface/safetensors): an 8-byte little-endian header
 * length, a JSON header, then the arrays' bytes, little-endian, row-major, without holes.
 *
 *     st_file *f;
 *     TRY(st_open("model.safetensors", &f));
 *     const st_entry *e = st_find(f, "lm_head.weight");            // NULL when there is none
 *     if (e && e->dtype == ST_F32) use((const float *)e->data, e->dims[0], e->dims[1]);
 *     st_close(f);
 *
 *     st_entry entries[] = {{.name = "w", .dtype = ST_F32, .n_dims = 2, .dims = {rows, columns}}};
 *     TRY(st_create("model.safetensors", entries, 1, NULL, 0, &w)); // then the data, in the entries' order
 *     TRY(st_write(w, values, bytes));
 *     TRY(st_commit(w, NULL));
 *
 * Equal calls give files equal to the byte: nothing about time, host or path goes in. Little-endian hosts. */
#pragma once
#include "format/digest.h"

/* ST(dtype, bytes of an element) */
#define ST_DTYPES(ST)                                                                                        \
    ST(F64, 8)                                                                                               \
    ST(F32, 4)                                                                                               \
    ST(F16, 2)                                                                                               \
    ST(BF16, 2)                                                                                              \
    ST(I64, 8)                                                                                               \
    ST(I32, 4)                                                                                               \
    ST(I16, 2)                                                                                               \
    ST(I8, 1)                                                                                                \
    ST(U64, 8)                                                                                               \
    ST(U32, 4)                                                                                               \
    ST(U16, 2)                                                                                               \
    ST(U8, 1)                                                                                                \
    ST(F8_E5M2, 1)                                                                                           \
    ST(F8_E4M3, 1)                                                                                           \
    ST(BOOL, 1)
typedef enum st_dtype {
#define ST(name, bytes) ST_##name,
    ST_DTYPES(ST)
#undef ST
        ST_DTYPE_COUNT
} st_dtype;
enum { ST_MAX_DIMS = 8, ST_HEADER_LIMIT = 100000000 };

const char *st_dtype_name(st_dtype t); // "BF16", as in the header
i64 st_dtype_bytes(st_dtype t);        // of one element

/* An array. To write, fill in name, dtype, n_dims, dims (and data for st_save); bytes is the reader's. */
typedef struct st_entry {
    const char *name; // UTF-8, unique in a file, not "__metadata__"
    st_dtype dtype;
    int n_dims; // 0: one element, a scalar; a dimension may be 0: no elements
    i64 dims[ST_MAX_DIMS];
    i64 bytes;
    const void *data; // aligned to its element only if the file's writer cared (st_aligned); never NULL
} st_entry;

typedef struct st_pair {
    const char *key, *value;
} st_pair;

/* ---- reading */
typedef struct st_file st_file;
/* Maps PATH and checks all of it: header at most 100 MB and within the file, a JSON object without duplicate
 * keys, known types, sizes without overflow, data without holes, overlaps or left-over bytes.
 * ERR_FORMAT names the file, the array and the value; *out is then untouched. */
status st_open(const char *path, st_file **out) MUST;
/* The same over BYTES bytes in memory, borrowed until st_close; NAME is for messages. */
status st_open_memory(const char *name, const void *data, size_t bytes, st_file **out) MUST;
void st_close(st_file *f); // NULL allowed; entries, names and data die with it
i64 st_count(const st_file *f);
const st_entry *st_at(const st_file *f, i64 i);              // in the order of the data
const st_entry *st_find(const st_file *f, const char *name); // NULL when there is none
i64 st_metadata_count(const st_file *f);
st_pair st_metadata_at(const st_file *f, i64 i);            // in the order of the header
const char *st_metadata(const st_file *f, const char *key); // NULL when there is none
static inline bool st_aligned(const st_entry *e)
{
    return !((uintptr_t)e->data % (size_t)st_dtype_bytes(e->dtype));
}

/* The bytes its type and dimensions ask for; the caller knows that they do not overflow. */
i64 st_entry_bytes(const st_entry *e);

/* ---- writing. A failed call gives the writer up: do not touch it again. */
typedef struct st_writer st_writer;
/* Starts PATH (as PATH.tmp-PID until committed) with the header for N entries, whose data then follow in this
 * order. ERR_FORMAT for names twice, not UTF-8 or reserved, negative sizes, a header over 100 MB. */
status st_create(const char *path, const st_entry *entries, i64 n, const st_pair *metadata, i64 n_metadata,
                 st_writer **out) MUST;
/* The same into FD, which stays the caller's (open, and to be synced by it); PATH is for messages. */
status st_attach(int fd, const char *path, const st_entry *entries, i64 n, const st_pair *metadata,
                 i64 n_metadata, st_writer **out) MUST;
/* The next BYTES bytes of data; an entry may come in pieces. ERR_FORMAT beyond what the entries announce. */
status st_write(st_writer *w, const void *data, size_t bytes) MUST;
/* Ends a file started by st_create: fsync, rename, fsync of the folder. *sum (NULL allowed): size and
 * checksum of the whole file, computed while it was written. ERR_FORMAT when data are missing; PATH is then
 * as before. */
status st_commit(st_writer *w, digest *sum) MUST;
/* Ends one started by st_attach: checks that all data came; nothing is synced. */
status st_end(st_writer *w, digest *sum) MUST;
void st_abandon(st_writer *w); // NULL allowed; removes the temporary file of st_create

/* Writes arrays that lie in memory: entries[i].data holds each. */
status st_save(const char *path, const st_entry *entries, i64 n, const st_pair *metadata, i64 n_metadata,
               digest *sum) MUST;

/* gguf: llama.cpp's container of a model: keys with values, then named tensors, in one file, version 3
 * (github.com/ggml-org/ggml, docs/gguf.md).
 *
 *     gguf_file *f;
 *     TRY(gguf_open("model.gguf", &f));
 *     i64 layers;
 *     if (!gguf_integer(gguf_key(f, "llama.block_count"), &layers)) ...         // none, or no whole number
 *     const gguf_tensor *t = gguf_find(f, "token_embd.weight");                 // NULL when there is none
 *     gguf_close(f);
 *
 *     gguf_pair pairs[] = {{"general.architecture", GGUF_TEXT("llama")}, {"llama.block_count",
 * GGUF_NUMBER(2)}}; TRY(gguf_create("model.gguf", pairs, 2, tensors, n, &w));                 // then the
 * data, in their order TRY(gguf_write(w, data, bytes)); TRY(gguf_commit(w));
 *
 * Equal calls give files equal to the byte. Little-endian hosts. */
#pragma once
#include "base/base.h"

/* TYPE(name, number in a file, elements of a block, bytes of a block): all whose layout is settled. */
#define GGUF_TYPES(TYPE)                                                                                     \
    TYPE(F32, 0, 1, 4)                                                                                       \
    TYPE(F16, 1, 1, 2)                                                                                       \
    TYPE(Q4_0, 2, 32, 18)                                                                                    \
    TYPE(Q4_1, 3, 32, 20)                                                                                    \
    TYPE(Q5_0, 6, 32, 22)                                                                                    \
    TYPE(Q5_1, 7, 32, 24)                                                                                    \
    TYPE(Q8_0, 8, 32, 34)                                                                                    \
    TYPE(Q2_K, 10, 256, 84)                                                                                  \
    TYPE(Q3_K, 11, 256, 110)                                                                                 \
    TYPE(Q4_K, 12, 256, 144)                                                                                 \
    TYPE(Q5_K, 13, 256, 176)                                                                                 \
    TYPE(Q6_K, 14, 256, 210)                                                                                 \
    TYPE(Q8_K, 15, 256, 292)                                                                                 \
    TYPE(I8, 24, 1, 1)                                                                                       \
    TYPE(I16, 25, 1, 2)                                                                                      \
    TYPE(I32, 26, 1, 4)                                                                                      \
    TYPE(I64, 27, 1, 8)                                                                                      \
    TYPE(F64, 28, 1, 8)                                                                                      \
    TYPE(BF16, 30, 1, 2)
typedef enum gguf_type {
#define TYPE(name, number, elements, bytes) GGUF_##name = number,
    GGUF_TYPES(TYPE)
#undef TYPE
} gguf_type;
const char *gguf_type_name(gguf_type t); // "Q8_0"; "?" for a number that is none
i64 gguf_block_elements(gguf_type t);    // 32 for Q8_0, 0 for a number that is none
i64 gguf_block_bytes(gguf_type t);

enum {
    GGUF_MAX_DIMS = 4,
    GGUF_NAME_LIMIT = 63,       // bytes of a tensor's name
    GGUF_COUNT_LIMIT = 1 << 20, // keys; tensors
    GGUF_LENGTH_LIMIT = 1 << 30 // bytes of a string, elements of an array
};

/* The kinds of values, numbered as in a file. */
typedef enum gguf_kind {
    KIND_U8,
    KIND_I8,
    KIND_U16,
    KIND_I16,
    KIND_U32,
    KIND_I32,
    KIND_F32,
    KIND_BOOL,
    KIND_STRING,
    KIND_ARRAY,
    KIND_U64,
    KIND_I64,
    KIND_F64,
    KIND_COUNT
} gguf_kind;

/* Bytes that are not zero-terminated; in a file a u64 length stands before them. */
typedef struct gguf_string {
    const char *data;
    i64 bytes;
} gguf_string;

typedef struct gguf_value {
    gguf_kind kind, element; // element: of an array
    u64 bits;                // a whole number (two's complement) or a bool
    double number;           // F32, F64
    gguf_string string;
    i64 count;        // elements of an array
    const void *data; // of an array: its elements as they lie in the file, unaligned; to write strings of an
                      // array: gguf_string[count]
} gguf_value;
#define GGUF_TEXT(s) ((gguf_value){.kind = KIND_STRING, .string = {(s), (i64)strlen(s)}})
#define GGUF_NUMBER(n) ((gguf_value){.kind = KIND_U32, .bits = (u64)(n)})
#define GGUF_REAL(x) ((gguf_value){.kind = KIND_F32, .number = (x)})
#define GGUF_FLAG(b) ((gguf_value){.kind = KIND_BOOL, .bits = (b)})

typedef struct gguf_pair {
    const char *key;
    gguf_value value;
} gguf_pair;

/* dims[0] is the contiguous one: a row-major matrix [rows, columns] has dims {columns, rows}. */
typedef struct gguf_tensor {
    const char *name;
    gguf_type type;
    int n_dims; // 0: one element
    i64 dims[GGUF_MAX_DIMS];
    i64 bytes;        // the reader's
    const void *data; // the reader's; aligned as the file says, in a mapped file
} gguf_tensor;

/* ---- reading */
typedef struct gguf_file gguf_file;
/* Maps PATH and checks all of it: counts and lengths against the bytes there are, sizes without overflow,
 * keys and names without duplicates, an alignment that is a power of two, data without holes or left-over
 * bytes. ERR_FORMAT names the file, the key or tensor, and the value; *out is then untouched. */
status gguf_open(const char *path, gguf_file **out) MUST;
/* The same over BYTES bytes in memory, borrowed until gguf_close; NAME is for messages. */
status gguf_open_memory(const char *name, const void *data, size_t bytes, gguf_file **out) MUST;
void gguf_close(gguf_file *f);  // NULL allowed; values, names and data die with it
bool gguf_is(const char *path); // does the file begin with GGUF's four bytes?
i64 gguf_count(const gguf_file *f);
const gguf_tensor *gguf_at(const gguf_file *f, i64 i); // in the file's order
const gguf_tensor *gguf_find(const gguf_file *f, const char *name);
i64 gguf_key_count(const gguf_file *f);
const gguf_pair *gguf_key_at(const gguf_file *f, i64 i);
const gguf_value *gguf_key(const gguf_file *f, const char *key); // NULL when there is none
/* The value as a whole number, a number, a flag, a string: false when V is NULL or of another kind. */
bool gguf_integer(const gguf_value *v, i64 *out);
bool gguf_number(const gguf_value *v, double *out);
bool gguf_flag(const gguf_value *v, bool *out);
bool gguf_text(const gguf_value *v, gguf_string *out);
bool gguf_is_text(const gguf_value *v, const char *s); // is it the string S?
/* Walks an array of strings: start with *cursor = NULL, count times. */
gguf_string gguf_next(const gguf_value *v, const u8 **cursor);

/* ---- writing. A failed call gives the writer up: do not touch it again. */
typedef struct gguf_writer gguf_writer;
/* Starts PATH (under another name until committed) with N_PAIRS keys, to which it adds none of its own, and
 * N tensors, aligned to 32 bytes. ERR_FORMAT: a name twice, too long or empty, rows that are no whole
 * blocks. */
status gguf_create(const char *path, const gguf_pair *pairs, i64 n_pairs, const gguf_tensor *tensors, i64 n,
                   gguf_writer **out) MUST;
/* All data of the next tensor. ERR_FORMAT: not as many bytes as it takes. */
status gguf_write(gguf_writer *w, const void *data, i64 bytes) MUST;
status gguf_commit(gguf_writer *w) MUST; // ERR_FORMAT when data are missing
void gguf_abandon(gguf_writer *w);       // NULL allowed
/* The bytes a tensor takes. ERR_FORMAT: overflow, a dimension below 0, rows that are no whole blocks. */
status gguf_tensor_bytes(const gguf_tensor *t, i64 *out) MUST;

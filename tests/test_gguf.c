/* gguf: the reader against every way a file can lie, with the whole message; the writer against exact bytes;
 * blocks against vectors computed by hand and by another encoder; every write, fsync and rename failing. */
#include "base/file.h"
#include "base/text.h"
#include "check.h"
#include "format/gguf.h"
#include "infer/values.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- files made by hand */

static void put(text *t, u64 x, int bytes)
{
    for (int i = 0; i < bytes; i++, x >>= 8) text_add_bytes(t, (const char[]){(char)x}, 1);
}

static void put_string(text *t, const char *s)
{
    put(t, strlen(s), 8);
    text_add_bytes(t, s, strlen(s));
}

static void put_start(text *t, u64 tensors, u64 keys)
{
    text_add_bytes(t, "GGUF", 4);
    put(t, 3, 4);
    put(t, tensors, 8);
    put(t, keys, 8);
}

static void put_alignment(text *t, u32 alignment)
{
    put_string(t, "general.alignment");
    put(t, KIND_U32, 4);
    put(t, alignment, 4);
}

static void put_tensor(text *t, const char *name, int n_dims, const u64 *dims, u32 type, u64 offset)
{
    put_string(t, name);
    put(t, (u64)n_dims, 4);
    for (int k = 0; k < n_dims; k++) put(t, dims[k], 8);
    put(t, type, 4);
    put(t, offset, 8);
}
#define DIMS(...)                                                                                            \
    (const u64[]) { __VA_ARGS__ }

static void pad(text *t, size_t to)
{
    while (t->bytes % to) put(t, 0, 1);
}

/* Opens T, in a block of exactly its size so that ASan sees overruns, expects MESSAGE, and frees T. */
static void refuse(text *t, const char *message)
{
    char wanted[300];
    gguf_file *f = (gguf_file *)&f;
    u8 *block = malloc(t->bytes ? t->bytes : 1);
    if (t->bytes) memcpy(block, t->data, t->bytes);
    snprintf(wanted, sizeof wanted, "x.gguf: %s", message);
    assert_fails(gguf_open_memory("x.gguf", block, t->bytes, &f), ERR_FORMAT, wanted);
    assert_ptr_equal(f, &f);
    free(block);
    text_free(t);
    *t = (text){0};
}

/* ---- the named ways to lie */

static void test_no_gguf(void **state)
{
    (void)state;
    text t = {0};
    refuse(&t, "a GGUF file needs 4 bytes at 0, but the file ends after 0; it is truncated");
    text_add(&t, "GGML");
    refuse(&t, "does not begin with 'GGUF'");
    text_add(&t, "GGUF");
    refuse(&t, "the version needs 4 bytes at 4, but the file ends after 0; it is truncated");
    text_add(&t, "GGUF");
    put(&t, 1, 4);
    refuse(&t, "version 1 of GGUF; Keel reads 2 and 3");
    text_add(&t, "GGUF");
    put(&t, 3u << 24, 4);
    refuse(&t, "a big-endian GGUF file; convert it to little-endian");
    text_add(&t, "GGUF");
    put(&t, 3, 4);
    put(&t, 0, 7);
    refuse(&t, "the number of tensors needs 8 bytes at 8, but the file ends after 7; it is truncated");
}

/* CVE-2025-53630, CVE-2026-27940: counts times the size of a record wrap, and little is allocated. */
static void test_counts_beyond_the_file(void **state)
{
    (void)state;
    text t = {0};
    put_start(&t, 0, 1);
    refuse(&t, "1 keys announced, but 0 bytes are left; the file is damaged");
    put_start(&t, 1, 0);
    refuse(&t, "1 tensors announced, but 0 bytes are left; the file is damaged");
    put_start(&t, 0, UINT64_MAX);
    refuse(&t, "18446744073709551615 keys announced; at most 1048576");
    put_start(&t, (u64)1 << 63, 0);
    refuse(&t, "9223372036854775808 tensors announced; at most 1048576");
    put_start(&t, UINT64_MAX / 64 + 1, 0); // x 64 wraps to 0
    refuse(&t, "288230376151711744 tensors announced; at most 1048576");
    put_start(&t, 2, 1); // the keys leave room for one tensor only
    put_alignment(&t, 32);
    put_tensor(&t, "a", 0, NULL, GGUF_F32, 0);
    refuse(&t, "2 tensors announced, but 25 bytes are left; the file is damaged");
}

static void test_lying_lengths(void **state)
{
    (void)state;
    static const struct {
        u64 length;
        const char *message;
    } cases[] = {
        {100, "key 0 announces 100 bytes at 32, but 20 are left; the file is damaged"},
        {UINT64_MAX,
         "key 0 announces 18446744073709551615 bytes at 32, but 20 are left; the file is damaged"},
        {(u64)1 << 63,
         "key 0 announces 9223372036854775808 bytes at 32, but 20 are left; the file is damaged"},
        {(1u << 30) + 1, "key 0 announces 1073741825 bytes at 32, but 20 are left; the file is damaged"},
        {0, "key 0 has 0 bytes; 1 to 65535 are allowed"},
    };
    text t = {0};
    for (i64 i = 0; i < COUNT(cases); i++) {
        put_start(&t, 0, 1);
        put(&t, cases[i].length, 8);
        for (int k = 0; k < 20; k++) put(&t, 'k', 1);
        refuse(&t, cases[i].message);
    }
    for (int array = 0; array < 2; array++) { // a string; an array of strings
        put_start(&t, 0, 1);
        put_string(&t, "key");
        put(&t, array ? KIND_ARRAY : KIND_STRING, 4);
        if (array) put(&t, KIND_STRING, 4), put(&t, 1, 8);
        put(&t, (u64)1 << 40, 8);
        refuse(&t, array ? "'key' announces 1099511627776 bytes at 59, but 0 are left; the "
                           "file is damaged"
                         : "'key' announces 1099511627776 bytes at 47, but 0 are left; the "
                           "file is damaged");
    }
    put_start(&t, 0, 1);
    put(&t, 4, 8);
    text_add_bytes(&t, "a\0b\n", 4);
    put(&t, 0, 5);
    refuse(&t, "key 0 holds the byte 0; printable ASCII is allowed");
}

static void test_lying_arrays(void **state)
{
    (void)state;
    static const struct {
        u32 kind;
        u64 n;
        const char *message;
    } cases[] = {
        {KIND_U64, UINT64_MAX / 8 + 1, // x 8 wraps to 0
         "'key' announces 2305843009213693952 elements, but 8 bytes are left; the file is damaged"},
        {KIND_U64, 2, "'key' announces 2 elements, but 8 bytes are left; the file is damaged"},
        {KIND_U8, UINT64_MAX,
         "'key' announces 18446744073709551615 elements, but 8 bytes are left; the file is "
         "damaged"},
        {KIND_STRING, 2, "'key' announces 2 elements, but 8 bytes are left; the file is damaged"},
        {KIND_ARRAY, 1, "'key' is an array of kind 9; expected 0 to 12, and not 9, an array"},
        {13, 1, "'key' is an array of kind 13; expected 0 to 12, and not 9, an array"},
    };
    text t = {0};
    for (i64 i = 0; i < COUNT(cases); i++) {
        put_start(&t, 0, 1);
        put_string(&t, "key");
        put(&t, KIND_ARRAY, 4);
        put(&t, cases[i].kind, 4);
        put(&t, cases[i].n, 8);
        put(&t, 0, 8);
        refuse(&t, cases[i].message);
    }
}

static void test_odd_values(void **state)
{
    (void)state;
    text t = {0};
    put_start(&t, 0, 1);
    put_string(&t, "key");
    put(&t, 13, 4);
    refuse(&t, "'key' is of kind 13; expected 0 to 12");
    put_start(&t, 0, 1);
    put_string(&t, "key");
    put(&t, KIND_BOOL, 4);
    put(&t, 2, 1);
    refuse(&t, "'key' is a bool of 2; expected 0 or 1");
    put_start(&t, 0, 1);
    put_string(&t, "key");
    put(&t, KIND_U64, 4);
    put(&t, 2, 7);
    refuse(&t, "'key' needs 8 bytes at 39, but the file ends after 7; it is truncated");
}

static void test_duplicate_names(void **state)
{
    (void)state;
    text t = {0};
    put_start(&t, 0, 2);
    put_alignment(&t, 32);
    put_alignment(&t, 64);
    refuse(&t, "two keys are 'general.alignment'");
    put_start(&t, 2, 0);
    put_tensor(&t, "a", 0, NULL, GGUF_F32, 0);
    put_tensor(&t, "a", 0, NULL, GGUF_F32, 32);
    refuse(&t, "two tensors are 'a'");
}

/* llama.cpp PR #24997: an alignment without a bound; PR #24759: padding that wraps before it is checked. */
static void test_alignment(void **state)
{
    (void)state;
    static const struct {
        u32 alignment;
        const char *message;
    } cases[] = {
        {0, "general.alignment is 0; expected a power of two up to 65536"},
        {3, "general.alignment is 3; expected a power of two up to 65536"},
        {48, "general.alignment is 48; expected a power of two up to 65536"},
        {1 << 17, "general.alignment is 131072; expected a power of two up to 65536"},
        {1u << 31, "general.alignment is 2147483648; expected a power of two up to 65536"},
        {UINT32_MAX, "general.alignment is 4294967295; expected a power of two up to 65536"},
    };
    text t = {0};
    for (i64 i = 0; i < COUNT(cases); i++) {
        put_start(&t, 0, 1);
        put_alignment(&t, cases[i].alignment);
        refuse(&t, cases[i].message);
    }
    put_start(&t, 0, 1);
    put_string(&t, "general.alignment");
    put(&t, KIND_U64, 4);
    put(&t, 32, 8);
    refuse(&t, "general.alignment is no u32");
}

/* CVE-2026-33298: elements times the size of a type wrap; and products of dimensions that do. */
static void test_overflowing_dimensions(void **state)
{
    (void)state;
    static const struct {
        int n_dims;
        u64 dims[4];
        u32 type;
        const char *message;
    } cases[] = {
        {2, {(u64)1 << 40, (u64)1 << 40}, GGUF_F32, "a: size overflow: 1099511627776 x 1099511627776"},
        {4, {1u << 16, 1u << 16, 1u << 16, 1u << 16}, GGUF_F32, "a: size overflow: 281474976710656 x 65536"},
        {1, {(u64)1 << 62}, GGUF_F32, "a: size overflow: 4611686018427387904 x 4"}, // x 4 wraps to 0
        {1, {((u64)1 << 62) + 1}, GGUF_F32, "a: size overflow: 4611686018427387905 x 4"},
        {2, {32, (u64)1 << 58}, GGUF_Q8_0, "a: size overflow: 32 x 288230376151711744"},
        {3, {0, (u64)1 << 40, (u64)1 << 40}, GGUF_F32, "a: size overflow: 1099511627776 x 1099511627776"},
        {1, {(u64)1 << 63}, GGUF_F32, "a: dimension 0 is 9223372036854775808; the file is damaged"},
        {2, {32, UINT64_MAX}, GGUF_F32, "a: dimension 1 is 18446744073709551615; the file is damaged"},
        {5, {1, 1, 1, 1}, GGUF_F32, "a has 5 dimensions; at most 4"},
        {1, {33}, GGUF_Q8_0, "a: rows of 33 are no whole blocks of 32, which Q8_0 needs"},
        {1, {1}, 4, "a is of type 4, which Keel does not know"},
        {1, {1}, UINT32_MAX, "a is of type 4294967295, which Keel does not know"},
        {1, {9}, GGUF_F32, "a ends at byte 100 of a file of 96; it is truncated"},
    };
    text t = {0};
    for (i64 i = 0; i < COUNT(cases); i++) {
        put_start(&t, 1, 0);
        put_tensor(&t, "a", cases[i].n_dims, cases[i].dims, cases[i].type, 0);
        pad(&t, 32);
        for (int k = 0; k < 32; k++) put(&t, 0, 1);
        refuse(&t, cases[i].message);
    }
}

/* CVE-2025-53630: the sum of the tensors' sizes wraps, although each of them does not. */
static void test_sums_that_wrap(void **state)
{
    (void)state;
    text t = {0};
    put_start(&t, 2, 0);
    put_tensor(&t, "a", 1, DIMS((u64)1 << 60), GGUF_F32, 0);
    put_tensor(&t, "b", 1, DIMS((u64)1 << 60), GGUF_F32, (u64)1 << 62);
    refuse(&t, "a ends at byte 4611686018427388000 of a file of 90; it is truncated");
    put_start(&t, 1, 0);
    put_tensor(&t, "a", 1, DIMS(INT64_MAX), GGUF_I8, 0);
    refuse(&t, "a: size overflow: 64 + 9223372036854775807");
}

static void test_offsets(void **state)
{
    (void)state;
    static const u64 wrong[] = {0, 4, 64, UINT64_MAX, (u64)1 << 63};
    text t = {0};
    for (i64 i = 0; i < COUNT(wrong); i++) { // overlap, unaligned, hole, wrapping
        char message[200];
        put_start(&t, 2, 0);
        put_tensor(&t, "a", 1, DIMS(1), GGUF_F32, 0);
        put_tensor(&t, "b", 1, DIMS(1), GGUF_F32, wrong[i]);
        pad(&t, 32);
        put(&t, 0, 8), pad(&t, 32);
        put(&t, 0, 8), pad(&t, 32);
        snprintf(message, sizeof message,
                 "b begins at %llu of the data; expected 32, behind the tensor before",
                 (unsigned long long)wrong[i]);
        refuse(&t, message);
    }
    put_start(&t, 1, 0);
    put_tensor(&t, "a", 1, DIMS(1), GGUF_F32, 0);
    pad(&t, 32);
    put(&t, 0, 4 + 4);
    pad(&t, 32);
    for (int i = 0; i < 32; i++) put(&t, 0, 1);
    refuse(&t, "60 bytes behind the last tensor; the file is damaged");
    put_start(&t, 1, 0);
    put_string(&t, "0123456789012345678901234567890123456789012345678901234567890123");
    put(&t, 0, 16);
    refuse(&t, "tensor 0 has 64 bytes; 1 to 63 are allowed");
}

/* ---- exact bytes */

static u32 fnv(const u8 *p, size_t n)
{
    u32 h = 2166136261u;
    for (size_t i = 0; i < n; i++) h = (h ^ p[i]) * 16777619u;
    return h;
}

static void golden_values(float *x, i64 n)
{
    for (i64 i = 0; i < n; i++) x[i] = (float)(i * 37 % 101 - 50) / 32;
}

static char folder[] = "/tmp/keel-gguf-XXXXXX";

static const char *in_folder(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static const gguf_pair golden_keys[] = {
    {"general.architecture", {.kind = KIND_STRING, .string = {"llama", 5}}},
    {"llama.block_count", {.kind = KIND_U32, .bits = 1}}};
static const gguf_tensor golden_tensors[] = {{.name = "a", .type = GGUF_F32, .n_dims = 2, .dims = {3, 2}},
                                             {.name = "b", .type = GGUF_Q8_0, .n_dims = 1, .dims = {32}}};

static status write_golden(const char *path)
{
    gguf_writer *w;
    float x[32];
    u8 block[34];
    const float a[6] = {0, 1, 2, 3, 4, 5};
    golden_values(x, 32);
    TRY(values_encode(GGUF_Q8_0, x, 32, block));
    TRY(gguf_create(path, golden_keys, 2, golden_tensors, 2, &w));
    TRY(gguf_write(w, a, sizeof a));
    TRY(gguf_write(w, block, sizeof block));
    return gguf_commit(w);
}

static void test_golden_file(void **state)
{
    (void)state;
    static const char start[] = "474755460300000002000000000000000200000000000000140000000000000067656e657261"
                                "6c2e617263686974656374757265"
                                "0800000005000000000000006c6c616d6111000000000000006c6c616d612e626c6f636b5f63"
                                "6f756e7404000000010000000100"
                                "0000000000006102000000030000000000000002000000000000000000000000000000000000"
                                "00010000000000000062010000"
                                "00200000000000000008000000200000000000000000000000000000000000000000000000";
    char *data;
    size_t n;
    gguf_file *f;
    i64 blocks;
    assert_ok(write_golden(in_folder("golden.gguf")));
    assert_ok(file_read(in_folder("golden.gguf"), &data, &n));
    assert_int_equal(n, 288);
    assert_int_equal(fnv((const u8 *)data, n), 0xa8d6091b);
    for (size_t i = 0; i < sizeof start / 2; i++) {
        char hex[3];
        snprintf(hex, sizeof hex, "%02x", (u8)data[i]);
        assert_memory_equal(hex, start + 2 * i, 2);
    }
    mem_free(data);
    assert_true(gguf_is(in_folder("golden.gguf")));
    assert_ok(gguf_open(in_folder("golden.gguf"), &f));
    assert_int_equal(gguf_count(f), 2);
    assert_true(gguf_is_text(gguf_key(f, "general.architecture"), "llama"));
    assert_true(gguf_integer(gguf_key(f, "llama.block_count"), &blocks) && blocks == 1);
    assert_null(gguf_key(f, "llama.block"));
    const gguf_tensor *a = gguf_find(f, "a");
    assert_true(a && a->n_dims == 2 && a->dims[0] == 3 && a->dims[1] == 2 && a->bytes == 24);
    assert_true(((const float *)a->data)[5] == 5);
    assert_null(gguf_find(f, "c"));
    gguf_close(f);
}

static void test_values_of_every_kind(void **state)
{
    (void)state;
    static const i32 numbers[] = {-1, 2};
    static const gguf_string words[] = {{"ab", 2}, {"", 0}, {"c\0d", 3}};
    const gguf_pair pairs[] = {
        {"u8", {.kind = KIND_U8, .bits = 255}},
        {"i8", {.kind = KIND_I8, .bits = (u64)-3}},
        {"i16", {.kind = KIND_I16, .bits = (u64)-300}},
        {"u32", GGUF_NUMBER(4000000000u)},
        {"i32", {.kind = KIND_I32, .bits = (u64)-70000}},
        {"u64", {.kind = KIND_U64, .bits = UINT64_MAX}},
        {"i64", {.kind = KIND_I64, .bits = (u64)INT64_MIN}},
        {"f32", GGUF_REAL(0.5)},
        {"f64", {.kind = KIND_F64, .number = 1e-300}},
        {"bool", GGUF_FLAG(true)},
        {"numbers", {.kind = KIND_ARRAY, .element = KIND_I32, .count = 2, .data = numbers}},
        {"words", {.kind = KIND_ARRAY, .element = KIND_STRING, .count = 3, .data = words}},
    };
    static const struct {
        const char *key;
        i64 value;
    } whole[] = {{"u8", 255},         {"i8", -3},      {"i16", -300},
                 {"u32", 4000000000}, {"i32", -70000}, {"i64", INT64_MIN}};
    gguf_writer *w;
    gguf_file *f;
    i64 n;
    double x;
    bool b;
    assert_ok(gguf_create(in_folder("kinds.gguf"), pairs, COUNT(pairs), NULL, 0, &w));
    assert_ok(gguf_commit(w));
    assert_ok(gguf_open(in_folder("kinds.gguf"), &f));
    for (i64 i = 0; i < COUNT(whole); i++)
        assert_true(gguf_integer(gguf_key(f, whole[i].key), &n) && n == whole[i].value);
    assert_false(gguf_integer(gguf_key(f, "u64"), &n)); // beyond i64
    assert_false(gguf_integer(gguf_key(f, "f32"), &n) || gguf_integer(NULL, &n));
    assert_true(gguf_number(gguf_key(f, "f32"), &x) && x == 0.5);
    assert_true(gguf_number(gguf_key(f, "f64"), &x) && x == 1e-300);
    assert_true(gguf_flag(gguf_key(f, "bool"), &b) && b);
    const gguf_value *v = gguf_key(f, "words");
    const u8 *cursor = NULL;
    for (i64 i = 0; i < 3; i++) {
        gguf_string s = gguf_next(v, &cursor);
        assert_int_equal(s.bytes, words[i].bytes);
        assert_memory_equal(s.data, words[i].data, (size_t)s.bytes);
    }
    assert_memory_equal(gguf_key(f, "numbers")->data, numbers, sizeof numbers);
    gguf_close(f);
}

static void test_writer_refuses(void **state)
{
    (void)state;
    gguf_writer *w;
    const gguf_tensor odd = {.name = "a", .type = GGUF_Q4_0, .n_dims = 1, .dims = {31}};
    const gguf_tensor twice[] = {golden_tensors[0], golden_tensors[0]};
    char path[300], wanted[400];
    snprintf(path, sizeof path, "%s", in_folder("w.gguf"));
    snprintf(wanted, sizeof wanted, "%s: a: rows of 31 are no whole blocks of 32, which Q4_0 needs", path);
    assert_fails(gguf_create(path, NULL, 0, &odd, 1, &w), ERR_FORMAT, wanted);
    snprintf(wanted, sizeof wanted, "%s: two tensors are 'a'", path);
    assert_fails(gguf_create(path, NULL, 0, twice, 2, &w), ERR_FORMAT, wanted);
    assert_ok(gguf_create(path, NULL, 0, golden_tensors, 2, &w));
    snprintf(wanted, sizeof wanted, "%s: the data of 0 tensors of 2 were written", path);
    assert_fails(gguf_commit(w), ERR_FORMAT, wanted);
    assert_ok(gguf_create(path, NULL, 0, golden_tensors, 2, &w));
    snprintf(wanted, sizeof wanted, "%s: 23 bytes for tensor 0 of 2, which takes 24", path);
    assert_fails(gguf_write(w, "", 23), ERR_FORMAT, wanted);
    assert_false(path_exists(path));
}

/* Whatever fails, there is no file, or the whole one. */
static void test_every_fault(void **state)
{
    (void)state;
    static const fault_kind kinds[] = {FAULT_WRITE, FAULT_FSYNC, FAULT_RENAME, FAULT_ALLOC};
    char path[300];
    snprintf(path, sizeof path, "%s", in_folder("fault.gguf"));
    for (i64 kind = 0; kind < COUNT(kinds); kind++)
        for (i64 k = 1; k < 100; k++) {
            fault_set(kinds[kind], k);
            status s = write_golden(path);
            bool done = !s;
            fault_set(kinds[kind], 0);
            status_drop(s);
            gguf_file *f;
            if (path_exists(path)) {
                assert_ok(gguf_open(path, &f));
                gguf_close(f);
                assert_ok(tree_remove(path));
            } else
                assert_false(done);
            if (done) break;
            assert_true(k < 99);
        }
}

/* A flipped bit, or a file cut short: refused or read within its bytes, whichever it is. */
static void test_flip_every_bit_and_cut_everywhere(void **state)
{
    (void)state;
    char *data;
    size_t n;
    assert_ok(write_golden(in_folder("flip.gguf")));
    assert_ok(file_read(in_folder("flip.gguf"), &data, &n));
    for (size_t i = 0; i < 9 * n; i++) {
        const size_t bytes = i < 8 * n ? n : i - 8 * n;
        u8 *block = malloc(bytes ? bytes : 1); // of its size, so that ASan sees overruns
        memcpy(block, data, bytes);
        if (i < 8 * n) block[i / 8] ^= (u8)(1 << i % 8);
        gguf_file *f;
        status s = gguf_open_memory("x", block, bytes, &f);
        for (i64 k = 0; !s && k < gguf_count(f); k++) {
            const gguf_tensor *t = gguf_at(f, k);
            assert_true((const u8 *)t->data >= block && (const u8 *)t->data + t->bytes <= block + bytes);
        }
        if (!s) gguf_close(f);
        assert_true(s || bytes == n || bytes >= 224 + 34); // only the padding behind the last tensor may lack
        status_drop(s);
        free(block);
    }
    mem_free(data);
}

/* ---- numbers */

static void test_f16(void **state)
{
    (void)state;
    static const struct {
        float x;
        u16 h;
    } cases[] = {{0, 0},
                 {-0.0f, 0x8000},
                 {1, 0x3C00},
                 {-2, 0xC000},
                 {65504, 0x7BFF},
                 {65519, 0x7BFF},
                 {65520, 0x7C00},
                 {1e30f, 0x7C00},
                 {0x1p-14f, 0x400},
                 {0x1p-24f, 1},
                 {0x1p-25f, 0},
                 {0x1.8p-24f, 2},
                 {0x1.004p0f, 0x3C01},
                 {0x1.002p0f, 0x3C00},
                 {0x1.006p0f, 0x3C02},
                 {0x1.ff8p-15f, 0x3FF},
                 {0x1.ffcp-15f, 0x400},
                 {-INFINITY, 0xFC00}};
    for (i64 i = 0; i < COUNT(cases); i++) assert_int_equal(f32_to_f16(cases[i].x), cases[i].h);
    assert_int_equal(f32_to_f16(NAN) & 0x7FFF, 0x7E00);
    for (u32 h = 0; h < 0x10000; h++) // each one is the f32 it stands for
        if ((h & 0x7C00) != 0x7C00 || !(h & 0x3FF)) assert_int_equal(f32_to_f16(f16_to_f32((u16)h)), h);
    assert_true(isnan(f16_to_f32(0x7C01)));
}

static void assert_hex(const u8 *p, const char *hex)
{
    for (size_t i = 0; i < strlen(hex) / 2; i++) {
        char two[3];
        snprintf(two, sizeof two, "%02x", p[i]);
        assert_memory_equal(two, hex + 2 * i, 2);
    }
}

/* Vectors that two other encoders agree on, and their mean squared error. */
static void test_blocks_against_others(void **state)
{
    (void)state;
    static const struct {
        gguf_type type;
        const char *block;
        i64 bytes;
        u32 hash;
        double error;
    } cases[] = {
        {GGUF_Q8_0, "4d2281df3d9af856b41270cd2b89e745a2005ebb1977d53390ee4caa0866c3217fdc", 272, 0xb216297e,
         1.240598e-05},
        {GGUF_Q4_0, "4032e046acf258bd1379df358be046acf268", 144, 0x3e71df3e, 3.682017e-03},
    };
    float x[256], y[256];
    u8 out[272];
    golden_values(x, 256);
    for (i64 i = 0; i < COUNT(cases); i++) {
        double sum = 0;
        assert_ok(values_encode(cases[i].type, x, 256, out));
        assert_hex(out, cases[i].block);
        assert_int_equal(fnv(out, (size_t)cases[i].bytes), cases[i].hash);
        values_decode(cases[i].type, out, 256, y);
        for (int k = 0; k < 256; k++) sum += ((double)x[k] - y[k]) * ((double)x[k] - y[k]);
        assert_true(fabs(sum / 256 - cases[i].error) < 1e-6 * cases[i].error);
    }
}

/* By hand. q8_0: the largest magnitude is 127, so d = 1, codes are the values rounded half away from zero.
 * q4_0: the largest is -8, so d = 1, code = floor(x + 8.5): 7.5 and 8 are clipped to code 15, that is 7. */
static void test_blocks_by_hand(void **state)
{
    (void)state;
    float x[32] = {-127, 0.5f, -0.5f, 1.5f, 126.4f, 2.49f}, y[32];
    u8 out[34];
    assert_ok(values_encode(GGUF_Q8_0, x, 32, out));
    assert_hex(out, "003c8101ff027e020000");
    values_decode(GGUF_Q8_0, out, 32, y);
    assert_true(y[0] == -127 && y[1] == 1 && y[2] == -1 && y[3] == 2 && y[4] == 126 && y[5] == 2 &&
                y[6] == 0);

    float z[32] = {-8, 7.5f, 0.4f, 0.5f, -0.5f, -0.6f, [16] = 8, 3, -3};
    assert_ok(values_encode(GGUF_Q4_0, z, 32, out));
    assert_hex(out, "003cf0bf5889888788");
    values_decode(GGUF_Q4_0, out, 32, y);
    assert_true(y[0] == -8 && y[1] == 7 && y[2] == 0 && y[3] == 1 && y[4] == 0 && y[5] == -1 && y[16] == 7);
    assert_true(y[17] == 3 && y[18] == -3 && y[31] == 0);

    memset(x, 0, sizeof x); // all zero: no division by it
    assert_ok(values_encode(GGUF_Q8_0, x, 32, out));
    assert_hex(out, "00000000000000");
    assert_ok(values_encode(GGUF_Q4_0, x, 32, out));
    assert_hex(out, "00808888"); // d = 0 / -8
    x[3] = 1e-40f;               // too small for a scale
    assert_ok(values_encode(GGUF_Q8_0, x, 32, out));
    assert_hex(out, "00000000000000");
}

static void test_values_no_type_holds(void **state)
{
    (void)state;
    float x[32] = {[7] = 65520};
    u8 out[34];
    assert_fails(values_encode(GGUF_F16, x, 32, out), ERR_NUMERIC,
                 "value 7 is 65520, which f16 cannot hold; bf16 and f32 can");
    x[7] = 8.4e6f;
    assert_fails(values_encode(GGUF_Q8_0, x, 32, out), ERR_NUMERIC,
                 "value 7 is 8.4e+06, which q8_0 cannot hold; bf16 and f32 can");
    x[7] = NAN;
    assert_fails(values_encode(GGUF_Q4_0, x, 32, out), ERR_NUMERIC,
                 "value 7 is nan, which q4_0 cannot hold; bf16 and f32 can");
    assert_fails(values_encode(GGUF_Q6_K, x, 32, out), ERR_USAGE, "Keel does not write Q6_K");
}

static int set_up(void **state)
{
    (void)state;
    return !mkdtemp(folder);
}

static int tear_down(void **state)
{
    (void)state;
    status_drop(tree_remove(folder));
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_gguf),
        cmocka_unit_test(test_counts_beyond_the_file),
        cmocka_unit_test(test_lying_lengths),
        cmocka_unit_test(test_lying_arrays),
        cmocka_unit_test(test_odd_values),
        cmocka_unit_test(test_duplicate_names),
        cmocka_unit_test(test_alignment),
        cmocka_unit_test(test_overflowing_dimensions),
        cmocka_unit_test(test_sums_that_wrap),
        cmocka_unit_test(test_offsets),
        cmocka_unit_test(test_golden_file),
        cmocka_unit_test(test_values_of_every_kind),
        cmocka_unit_test(test_writer_refuses),
        cmocka_unit_test(test_every_fault),
        cmocka_unit_test(test_flip_every_bit_and_cut_everywhere),
        cmocka_unit_test(test_f16),
        cmocka_unit_test(test_blocks_against_others),
        cmocka_unit_test(test_blocks_by_hand),
        cmocka_unit_test(test_values_no_type_holds),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

/* What data is read from: packed files, JSONL, shards of tokens; every way they lie or break, with the whole
 * message. */
#include "data/dedup.h"
#include "data/inspect.h"
#include "data/jsonl.h"
#include "data/pipe.h"
#include "data/stream.h"
#include "data/token_file.h"
#include "base/text.h"
#include "toy_data.h"
#include <math.h>
#include <zlib.h>
#include <zstd.h>

static int setup(void **state) { return (void)state, toy_open(), 0; }
static int teardown(void **state) { return (void)state, toy_close(), 0; }

static const char *message(const char *format, const char *a)
{
    static char s[1024];
    snprintf(s, sizeof s, format, a);
    return s;
}

/* ---- packing */

static size_t gzip(const void *from, size_t n, u8 *to, size_t room)
{
    z_stream z = {
        .next_in = (Bytef *)(uintptr_t)from, .avail_in = (uInt)n, .next_out = to, .avail_out = (uInt)room};
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 16 + 15, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    size_t bytes = z.total_out;
    deflateEnd(&z);
    return bytes;
}

static size_t pack(packing kind, const void *from, size_t n, u8 *to, size_t room)
{
    if (kind == PACKED_GZIP) return gzip(from, n, to, room);
    size_t bytes = ZSTD_compress(to, room, from, n, 3);
    assert_false(ZSTD_isError(bytes));
    return bytes;
}

/* The whole stream of PATH; on failure the message into *failed. */
static text drain(const char *path, size_t room, char *failed)
{
    byte_stream *s;
    text all = {0};
    u8 *buffer = malloc(room);
    size_t got = 0;
    *failed = 0;
    status e = stream_open(path, &s);
    bool open = !e;
    do {
        if (!e) e = stream_read(s, buffer, room, &got);
        if (!e) text_add_bytes(&all, (char *)buffer, got);
    } while (!e && got);
    if (e) snprintf(failed, 1024, "%s", e->message);
    if (open && !e) assert_int_equal(stream_position(s) > 0, all.bytes > 0);
    status_drop(e);
    if (open) stream_close(s);
    free(buffer);
    return all;
}

static void test_packed(void **state)
{
    (void)state;
    char in[5000], failed[1024];
    u8 out[12000];
    for (size_t i = 0; i < sizeof in; i++) in[i] = (char)('a' + i * i % 23);
    for (packing kind = PACKED_GZIP; kind <= PACKED_ZSTD; kind++) {
        const char *name = kind == PACKED_GZIP ? "x.gz" : "x.zst";
        size_t n = pack(kind, in, sizeof in, out, sizeof out), both;
        for (size_t room = 1; room < 10000; room = room * 7 + 1) { // any size of reads
            text t = drain(toy_file(name, out, n), room, failed);
            assert_string_equal(failed, "");
            assert_int_equal(t.bytes, sizeof in);
            assert_memory_equal(t.data, in, sizeof in);
            text_free(&t);
        }
        both = n + pack(kind, "tail", 4, out + n, sizeof out - n); // one part behind another
        text t = drain(toy_file(name, out, both), 4096, failed);
        assert_int_equal(t.bytes, sizeof in + 4);
        text_free(&t);
        for (size_t cut = 0; cut < n; cut++) { // cut short anywhere: never taken for whole
            t = drain(toy_file(name, out, cut), 4096, failed);
            if (cut)
                assert_string_equal(
                    strstr(failed, ": truncated: it ends within its data, after ") ? "t" : failed, "t");
            text_free(&t);
        }
        for (size_t i = 0; i < n; i++) { // any byte changed: an error, or other text, but an end
            out[i] ^= 0x55;
            t = drain(toy_file(name, out, n), 4096, failed);
            text_free(&t);
            out[i] ^= 0x55;
        }
        memcpy(out + n, "garbage behind it", 17);
        t = drain(toy_file(name, out, n + 17), 4096, failed);
        assert_non_null(
            strstr(failed, kind == PACKED_GZIP ? ": no gzip data at byte " : ": no zstd data at byte "));
        text_free(&t);
        t = drain(toy_text(name, "plain text, whatever its name says\n"), 4096, failed);
        assert_true(*failed);
        text_free(&t);
    }
    text t = drain(toy_text("x.gz", "plain text"), 4096, failed);
    assert_string_equal(failed,
                        message("%s: no gzip data at byte 2 of the file, or damaged: incorrect header check",
                                toy_path("x.gz")));
    text_free(&t);
    t = drain(toy_text("x.zst", "plain text"), 4096, failed);
    assert_string_equal(
        failed, message("%s: no zstd data at byte 0 of the file, or damaged: Unknown frame descriptor",
                        toy_path("x.zst")));
    text_free(&t);
    assert_int_equal(packing_of(".gz"), PACKED_NOT); // a name, not an ending
    assert_int_equal(packing_name("a.jsonl.zst"), 7);
}

static void test_bomb(void **state)
{
    (void)state;
    const size_t n = (size_t)80 << 20;
    char *in = malloc(n), failed[1024], wanted[1024];
    memset(in, 'a', n);
    u8 *out = malloc(1 << 20);
    for (packing kind = PACKED_GZIP; kind <= PACKED_ZSTD; kind++) {
        size_t packed = pack(kind, in, n, out, 1 << 20);
        const char *path = toy_file(kind == PACKED_GZIP ? "b.gz" : "b.zst", out, packed);
        text t = drain(path, 1 << 20, failed);
        const char *out_of = strstr(failed, "out of ");
        assert_non_null(out_of);
        snprintf(wanted, sizeof wanted,
                 "%s: over 64 MiB out of %d bytes, over 500 times as much: a decompression bomb? unpack it "
                 "yourself "
                 "if it is text",
                 path, atoi(out_of + 7));
        assert_string_equal(failed, wanted);
        text_free(&t);
    }
    free(in);
    free(out);
}

/* ---- JSONL */

static void test_jsonl(void **state)
{
    (void)state;
    static const struct {
        const char *line, *field, *text, *message;
    } row[] = {
        {"{\"text\": \"a\\n\\u00e9\\u0041\"}", "text",
         "a\n\xC3\xA9"
         "A",
         NULL},
        {"  {\"id\":1,\"text\":\"\"}\r", "text", "", NULL},
        {"{\"a\":{\"b.c\":{\"d\":\"deep\"}}}", "a.b", NULL,
         "no field 'a.b' (there are: a); name the one with the text by data.field"},
        {"{\"a\":{\"b\":{\"d\":\"deep\"}}}", "a.b.d", "deep", NULL},
        {"{\"a.b\":\"whole\",\"a\":{\"b\":\"way\"}}", "a.b", "whole", NULL},
        {"{\"text\":\"\\u0000\"}", "text", "", NULL}, // one zero byte: checked below
        {"{}", "text", NULL, "no field 'text' (there are: none); name the one with the text by data.field"},
        {"{\"a\":1,\"b\":1,\"c\":1,\"d\":1,\"e\":1,\"f\":1,\"g\":1,\"h\":1,\"i\":1}", "text", NULL,
         "no field 'text' (there are: a, b, c, d, e, f, g, h, ...); name the one with the text by "
         "data.field"},
        {"{\"text\":7}", "text", NULL, "the field 'text' is a number; it must be a string"},
        {"{\"text\":null}", "text", NULL, "the field 'text' is null; it must be a string"},
        {"[\"text\"]", "text", NULL, "a list, not an object with a field 'text'"},
        {"{\"text\":\"a\"", "text", NULL, "column 11: no JSON: '}' expected near end of file"},
        {"{\"text\":\"a\"} x", "text", NULL, "column 14: no JSON: end of file expected near 'x'"},
        {"{\"text\":\"a\",\"text\":\"b\"}", "text", NULL,
         "column 18: no JSON: duplicate object key near '\"text\"'"},
        {"{\"text\":\"\\ud800\"}", "text", NULL,
         "column 16: no JSON: invalid Unicode '\\uD800' near '\"\\ud800\"'"},
        {"{\"text\":\"a\xFF\"}", "text", NULL, "invalid UTF-8 at byte 11 of the line (0xFF)"},
        {"{\"text\":\"\xED\xA0\x80\"}", "text", NULL, "invalid UTF-8 at byte 10 of the line (0xED)"},
    };
    for (i64 i = 0; i < COUNT(row); i++) {
        u8 line[200];
        i64 n = (i64)strlen(row[i].line), bytes;
        memcpy(line, row[i].line, (size_t)n);
        status s = jsonl_text(line, n, row[i].field, line, &bytes);
        if (row[i].message) {
            assert_fails(s, ERR_INPUT, row[i].message);
            continue;
        }
        assert_ok(s);
        if (i == 5) assert_true(bytes == 1 && !line[0]);
        assert_true(bytes >= (i64)strlen(row[i].text));
        assert_memory_equal(line, row[i].text, strlen(row[i].text));
    }
    text deep = {0}; // nested beyond any sense
    for (int i = 0; i < 100000; i++) text_add(&deep, "[");
    i64 bytes;
    status s = jsonl_text((u8 *)deep.data, (i64)deep.bytes, "text", (u8 *)deep.data, &bytes);
    assert_non_null(s);
    assert_non_null(strstr(s->message, "maximum parsing depth"));
    status_drop(s);
    text_free(&deep);
    assert_true(jsonl_is_blank((const u8 *)" \t\r", 3) && jsonl_is_blank(NULL, 0) &&
                !jsonl_is_blank((const u8 *)" x", 2));
}

static void build_fails(const char *path, const token_source *t, err_code code, const char *wanted)
{
    char out[512];
    snprintf(out, sizeof out, "%s", toy_path("out"));
    assert_fails(
        dataset_build(&(build_options){.train = &path, .train_count = 1, .validation = "0", .out = out}, t,
                      NULL),
        code, wanted);
    assert_false(path_exists(out));
}

/* A file of JSONL: records are documents; a mistake is named by its line, blank lines counted. */
static void test_jsonl_file(void **state)
{
    (void)state;
    static const char good[] =
        "\xEF\xBB\xBF{\"text\":\"one\"}\n\n{\"text\":\"\"}\r\n{\"text\":\"two\\n\\nthe\"}";
    dataset *d = toy_dataset("set", toy_text("a.jsonl", good), "blank_line", "0", 0);
    assert_int_equal(dataset_documents(d, DATA_TRAIN), 2); // no rule cuts a record
    assert_int_equal(dataset_bytes(d, DATA_TRAIN), 3 + 8);
    i32 ids[11];
    assert_int_equal(dataset_tokens(d, DATA_TRAIN), 4 + 7);
    dataset_read(d, DATA_TRAIN, 0, 11, ids);
    assert_int_equal(ids[9], TOY_THE);
    dataset_close(d);
    u8 packed[1000];
    size_t n = gzip(good, sizeof good - 1, packed, sizeof packed);
    dataset *z = toy_dataset("zipped", toy_file("a.jsonl.gz", packed, n), "auto", "0", 0);
    assert_int_equal(dataset_tokens(z, DATA_TRAIN), 11);
    dataset_close(z);

    token_source t = toy_tokens();
    const char *path =
        toy_text("b.ndjson", "{\"text\":\"one\"}\n\n{\"text\":\"two\"\n{\"text\":\"three\"}\n");
    build_fails(path, &t, ERR_INPUT,
                message("%s:3: column 13: no JSON: '}' expected near end of file", path));
    path = toy_text("c.jsonl", "{\"text\":\"one\"}\n{\"content\":\"two\"}\n");
    build_fails(
        path, &t, ERR_INPUT,
        message("%s:2: no field 'text' (there are: content); name the one with the text by data.field",
                path));
    path = toy_text("d.jsonl", "{\"text\":\"one\xC3\"}\n");
    build_fails(path, &t, ERR_INPUT, message("%s:1: invalid UTF-8 at byte 13 of the line (0xC3)", path));
    path = toy_text("e.jsonl", "\n \n{\"text\":\"\"}\n");
    build_fails(
        path, &t, ERR_INPUT,
        message("%s: no document in 1 files; with data.document = auto there is nothing but blank text",
                path));
}

/* Text in any packing gives the documents it gives unpacked, at any size, and by every rule. */
static void test_packed_text(void **state)
{
    (void)state;
    const i64 sizes[] = {10, CUT_AUTO_BYTES, CUT_AUTO_BYTES + 1, 5 << 20};
    static const char *const rules[] = {"auto", "file", "blank_line", "the"};
    char *in = malloc(6 << 20);
    u8 *out = malloc(8 << 20);
    for (i64 i = 0; i < 6 << 20; i++)
        in[i] = i % 97 < 2 ? '\n' : i % 97 == 2 && i % 3 ? ' ' : (char)('a' + i * i % 19);
    for (i64 i = 0; i < COUNT(sizes); i++)
        for (i64 r = 0; r < COUNT(rules); r++) {
            char name[3][32];
            u64 hash[3];
            for (int k = 0; k < 3; k++) {
                size_t n = (size_t)sizes[i];
                const void *data = in;
                snprintf(name[k], sizeof name[k], "p%d-%d%s", (int)i, (int)r,
                         k == 0   ? ""
                         : k == 1 ? ".gz"
                                  : ".zst");
                if (k) n = pack(k == 1 ? PACKED_GZIP : PACKED_ZSTD, in, n, out, 8 << 20), data = out;
                const char *path = toy_file(name[k], data, n);
                char folder[64];
                snprintf(folder, sizeof folder, "set%d-%d-%d", (int)i, (int)r, k);
                dataset *d = toy_dataset(folder, path, rules[r], "0", 0);
                hash[k] = dataset_hash(d);
                dataset_close(d);
            }
            assert_true(hash[0] == hash[1] && hash[0] == hash[2]);
        }
    free(in);
    free(out);
}

static void test_patterns(void **state)
{
    (void)state;
    sources s = {0};
    assert_ok(dir_make(toy_path("in")));
    toy_text("in/b.txt", "b");
    toy_text("in/a.txt", "a");
    toy_text("in/c.md", "c");
    toy_text("in/[x].txt", "x"); // a name that is there is a name, not a pattern
    assert_ok(sources_find(&s, toy_path("in/[ab].txt"), false));
    assert_int_equal(s.count, 2);
    assert_string_equal(s.file[0].path, toy_path("in/a.txt"));
    assert_ok(sources_find(&s, toy_path("in/[x].txt"), false));
    assert_int_equal(s.count, 3);
    assert_fails(sources_find(&s, toy_path("in/*.gz"), false), ERR_INPUT,
                 message("%s: nothing matches this pattern; check the path", toy_path("in/*.gz")));
    sources_free(&s);
}

/* ---- shards of tokens */

static size_t put(u8 *to, size_t at, u64 x, int bytes)
{
    for (int i = 0; i < bytes; i++) to[at + (size_t)i] = (u8)(x >> 8 * i);
    return at + (size_t)bytes;
}

/* llm.c: EOS the cat EOS EOS sat. */
static size_t llmc(u8 *out, bool wide)
{
    static const u32 ids[] = {TOY_EOS, TOY_THE, 'c', 'a', 't', TOY_EOS, TOY_EOS, 's', 'a', 't'};
    memset(out, 0, 1024);
    put(out, 0, wide ? 20240801 : 20240520, 4);
    put(out, 4, wide ? 7 : 1, 4);
    put(out, 8, COUNT(ids), 4);
    size_t at = 1024;
    for (i64 i = 0; i < COUNT(ids); i++) at = put(out, at, ids[i], wide ? 4 : 2);
    return at;
}

static void assert_cat_sat(const char *path)
{
    static const i32 wanted[] = {TOY_THE, 'c', 'a', 't', TOY_EOS, 's', 'a', 't', TOY_EOS};
    i32 ids[9];
    dataset *d = toy_dataset("tokens", path, "auto", "0", 0);
    assert_int_equal(dataset_documents(d, DATA_TRAIN), 2);
    assert_int_equal(dataset_tokens(d, DATA_TRAIN), COUNT(wanted));
    assert_int_equal(dataset_bytes(d, DATA_TRAIN), 9); // "thecat", "sat"
    dataset_read(d, DATA_TRAIN, 0, COUNT(wanted), ids);
    assert_memory_equal(ids, wanted, sizeof wanted);
    dataset_close(d);
    assert_ok(tree_remove(toy_path("tokens")));
}

static void test_llmc(void **state)
{
    (void)state;
    u8 file[2048];
    char wanted[1024];
    token_source t = toy_tokens();
    for (int wide = 0; wide < 2; wide++) {
        size_t n = llmc(file, wide);
        assert_cat_sat(toy_file("t.bin", file, n));
        const char *path = toy_file("t.bin", file, n - 1);
        snprintf(wanted, sizeof wanted,
                 "%s: %d bytes long, but its header counts 10 tokens of %d bytes: truncated", path,
                 (int)n - 1, wide ? 4 : 2);
        build_fails(path, &t, ERR_FORMAT, wanted);
        path = toy_file("t.bin", file, n + 2);
        snprintf(wanted, sizeof wanted,
                 "%s: %d bytes long, but its header counts 10 tokens of %d bytes: something was appended",
                 path, (int)n + 2, wide ? 4 : 2);
        build_fails(path, &t, ERR_FORMAT, wanted);
        put(file, 8, UINT32_MAX, 4); // a count far beyond the file
        path = toy_file("t.bin", file, n);
        snprintf(wanted, sizeof wanted,
                 "%s: %d bytes long, but its header counts 4294967295 tokens of %d bytes: truncated", path,
                 (int)n, wide ? 4 : 2);
        build_fails(path, &t, ERR_FORMAT, wanted);
        put(file, 8, 10, 4);
        put(file, 4, 9, 4);
        path = toy_file("t.bin", file, n);
        snprintf(wanted, sizeof wanted, "%s: version 9 of llm.c's format %d; Keel reads version %d", path,
                 wide ? 20240801 : 20240520, wide ? 7 : 1);
        build_fails(path, &t, ERR_FORMAT, wanted);
        put(file, 4, wide ? 7 : 1, 4);
        put(file, 1024 + (wide ? 4 : 2), wide ? 0xFFFFFFFF : 9999, wide ? 4 : 2);
        path = toy_file("t.bin", file, n);
        snprintf(wanted, sizeof wanted,
                 "%s: document at token 1: id %d at its token 0, but the tokenizer has 258: were they made "
                 "by another?",
                 path, wide ? -1 : 9999);
        build_fails(path, &t, ERR_INPUT, wanted);
    }
    const char *path = toy_file("t.bin", file, 100);
    build_fails(path, &t, ERR_FORMAT,
                message("%s: 100 bytes, shorter than llm.c's header (1024): truncated?", path));
    size_t n = llmc(file, false);
    path = toy_file("t.bin", file, n);
    inspection r;
    assert_fails(
        data_inspect(&(inspect_options){.path = &path, .paths = 1}, &r), ERR_INPUT,
        message("%s: it holds tokens, not text; name the tokenizer that made them (--tokenizer)", path));
}

enum { IDX_TYPE = 17, IDX_SEQUENCES = 18, IDX_DOCUMENTS = 26, IDX_LENGTH = 34 };

/* Megatron: three sequences in two documents: [the c] [a t EOS] | [s a t]. */
static size_t megatron(u8 *bin, u8 *idx, int width, size_t *index_bytes)
{
    static const u32 ids[] = {TOY_THE, 'c', 'a', 't', TOY_EOS, 's', 'a', 't'};
    static const u32 length[] = {2, 3, 3}, document[] = {0, 2, 3};
    size_t n = 0, at = IDX_LENGTH, place = 0;
    for (i64 i = 0; i < COUNT(ids); i++) n = put(bin, n, ids[i], width);
    memcpy(idx, "MMIDIDX\0\0", 9);
    put(idx, 9, 1, 8);
    idx[IDX_TYPE] = width == 2 ? 8 : width == 4 ? 4 : 5;
    put(idx, IDX_SEQUENCES, 3, 8);
    put(idx, IDX_DOCUMENTS, 3, 8);
    for (int i = 0; i < 3; i++) at = put(idx, at, length[i], 4);
    for (int i = 0; i < 3; i++) at = put(idx, at, place, 8), place += length[i] * (size_t)width;
    for (int i = 0; i < 3; i++) at = put(idx, at, document[i], 8);
    *index_bytes = at;
    return n;
}

static void test_megatron(void **state)
{
    (void)state;
    u8 bin[64], idx[256], bad[256];
    size_t m;
    for (int width = 2; width <= 8; width *= 2) {
        size_t n = megatron(bin, idx, width, &m);
        const char *index = toy_file("m.idx", idx, m), *tokens = toy_file("m.bin", bin, n);
        assert_cat_sat(tokens);
        assert_cat_sat(index); // either name
    }
    size_t n = megatron(bin, idx, 2, &m);
    char tokens[512], index[512]; // toy_path keeps the last eight alone
    snprintf(tokens, sizeof tokens, "%s", toy_file("m.bin", bin, n));
    snprintf(index, sizeof index, "%s", toy_path("m.idx"));
    const struct {
        size_t at;
        u64 value;
        int bytes, cut; // cut: bytes less, or more
        const char *message;
    } row[] = {
        {9, 2, 8, 0, "%s: version 2; Keel reads version 1"},
        {IDX_TYPE, 7, 1, 0, "%s: its tokens are floating-point numbers (type 7)"},
        {IDX_TYPE, 9, 1, 0, "%s: unknown type 9 of tokens; 1 to 5 and 8 are"},
        {IDX_SEQUENCES, UINT64_MAX, 8, 0, "%s: impossible counts (-1 sequences, 3 entries of documents)"},
        {IDX_DOCUMENTS, 0, 8, 0, "%s: impossible counts (3 sequences, 0 entries of documents)"},
        {IDX_SEQUENCES, (u64)1 << 61, 8, 0, "%s: size overflow: 2305843009213693952 x 4"},
        {IDX_SEQUENCES, 4, 8, 0, "%s: 94 bytes long, but its counts ask for 106: truncated"},
        {0, 'M', 1, 1, "%s: 93 bytes long, but its counts ask for 94: truncated"},
        {0, 'M', 1, -1, "%s: 95 bytes long, but its counts ask for 94: something was appended"},
        {IDX_LENGTH, 9, 4, 0,
         "%s: sequence 0 (9 tokens at byte 0) does not lie behind the one before it and within the 8 tokens "
         "of "},
        {IDX_LENGTH, 0xFFFFFFFF, 4, 0,
         "%s: sequence 0 (-1 tokens at byte 0) does not lie behind the one before it and within the 8 tokens "
         "of "},
        {IDX_LENGTH + 12 + 8, 6, 8, 0,
         "%s: sequence 1 (3 tokens at byte 6) does not lie behind the one before it and within the 8 tokens "
         "of "},
        {IDX_LENGTH + 8, 2, 4, 0, "%s: its sequences hold 7 tokens, "},
        {IDX_LENGTH + 36, 1, 8, 0, "%s: entry 0 of its documents is sequence 1; they must rise from 0 to 3"},
        {IDX_LENGTH + 44, 4, 8, 0, "%s: entry 1 of its documents is sequence 4; they must rise from 0 to 3"},
        {IDX_LENGTH + 52, 2, 8, 0, "%s: entry 2 of its documents is sequence 2; they must rise from 0 to 3"},
    };
    for (i64 i = 0; i < COUNT(row); i++) {
        memcpy(bad, idx, sizeof bad);
        put(bad, row[i].at, row[i].value, row[i].bytes);
        toy_file("m.idx", bad, (size_t)((i64)m - row[i].cut));
        token_file *f = NULL;
        status s = token_file_open(tokens, &f);
        if (!s) fail_msg("row %d was accepted", (int)i);
        const char *wanted = message(row[i].message, index);
        bool prefix = wanted[strlen(wanted) - 1] == ' '; // ends with the other path
        if (prefix ? strncmp(s->message, wanted, strlen(wanted)) : strcmp(s->message, wanted))
            fail_msg("row %d: %s", (int)i, s->message);
        status_drop(s);
    }
    toy_file("m.idx", idx, 20);
    token_file *f;
    assert_fails(token_file_open(tokens, &f), ERR_FORMAT,
                 message("%s: 20 bytes, shorter than its header (34): truncated?", index));
    toy_file("m.idx", idx, m);
    toy_file("m.bin", bin, n - 1);
    assert_fails(token_file_open(tokens, &f), ERR_FORMAT,
                 message("%s: 15 bytes are no whole number of tokens of 2 bytes", tokens));
    toy_file("m.bin", bin, n - 2);
    status s = token_file_open(tokens, &f);
    assert_non_null(s);
    status_drop(s);
    assert_int_equal(token_file_kind(toy_path("m.bin")), TOKENS_MEGATRON);
    assert_int_equal(token_file_kind(toy_path("m.idx")), TOKENS_INDEX);
}

/* Any byte of either file changed: a status or documents, never a crash. */
static void test_token_damage(void **state)
{
    (void)state;
    u8 bin[64], idx[256];
    size_t m, n = megatron(bin, idx, 2, &m);
    const i32 ends[] = {TOY_EOS};
    const char *tokens = toy_file("m.bin", bin, n);
    for (size_t i = 0; i < m; i++)
        for (int bit = 0; bit < 8; bit++) {
            token_file *f;
            i64 at, count, seen = 0;
            idx[i] ^= (u8)(1 << bit);
            toy_file("m.idx", idx, m);
            idx[i] ^= (u8)(1 << bit);
            status s = token_file_open(tokens, &f);
            if (!s) {
                i32 ids[64];
                for (; token_file_next(f, ends, 1, &at, &count); seen += count) {
                    assert_true(at >= 0 && count > 0 && at + count <= token_file_tokens(f));
                    token_file_read(f, at, count, ids);
                }
                assert_true(seen <= token_file_tokens(f));
                token_file_close(f);
            }
            status_drop(s);
        }
}

/* ---- duplicates */

static void assert_dropped(const char *kind, const char *const *text, i64 n, const char *wanted)
{
    deduper *d;
    u8 *drop;
    char got[64];
    assert_ok(deduper_open(kind, 1, &d));
    for (i64 i = 0; i < n; i++) {
        assert_ok(deduper_look(d, 0, i, (const u8 *)text[i], (i64)strlen(text[i]), false));
        assert_ok(deduper_keep(d, i));
    }
    assert_ok(deduper_finish(d, &drop));
    for (i64 i = 0; i < n; i++) got[i] = drop[i] ? 'x' : '.';
    got[n] = 0;
    assert_string_equal(got, wanted);
    mem_free(drop);
    deduper_close(d);
}

static void test_dedup(void **state)
{
    (void)state;
    static const char *const exact[] = {"a  b",
                                        "a b\n",
                                        "a B",
                                        "ab",
                                        " a\tb ",
                                        "a\xE3\x80\x80"
                                        "b",
                                        "",
                                        " \n"};
    assert_dropped("exact", exact, COUNT(exact), ".x..xx.x");
    static const char *const near[] = {"The quick brown fox jumps over the lazy dog, and the dog sleeps on.",
                                       "the QUICK brown fox jumps over the lazy dog and the dog sleeps on",
                                       "An entirely different text about the tide, the wind and a keel.",
                                       "The quick brown fox jumps over the lazy dog; and the dog: sleeps on!",
                                       "short",
                                       "Short.",
                                       "--",
                                       "..",
                                       "--"};
    assert_dropped("minhash", near, COUNT(near), ".x.x.x..x");
    deduper *d;
    assert_fails(deduper_open("fuzzy", 1, &d), ERR_CONFIG,
                 "dedup is 'fuzzy'; it must be none, exact or minhash");
    assert_ok(deduper_open("none", 1, &d));
    assert_null(d);
}

/* N distinct words from FIRST on. */
static void add_words(text *t, i64 first, i64 n)
{
    for (i64 i = first; i < first + n; i++) text_add(t, "w%lld ", (long long)i);
}

/* The share of equal places estimates the Jaccard similarity: within three standard deviations, and bands
 * meet with probability 1 - (1 - s^8)^14. */
static void test_minhash_estimate(void **state)
{
    (void)state;
    enum { PAIRS = 60, WORDS = 400 };
    static const double wanted[] = {0.5, 0.8, 0.95};
    dedup_scratch scratch = {0};
    for (i64 w = 0; w < COUNT(wanted); w++) {
        double equal = 0, exact = 0;
        i64 meets = 0;
        for (i64 pair = 0; pair < PAIRS; pair++) {
            const i64 shared = (i64)(wanted[w] * 2 * WORDS / (1 + wanted[w])); // of WORDS words in each
            const i64 base = pair * 10000;
            text a = {0}, b = {0};
            add_words(&a, base, WORDS);
            add_words(&b, base, shared);
            add_words(&b, base + 5000, WORDS - shared);
            u64 x[DEDUP_HASHES], y[DEDUP_HASHES];
            assert_ok(minhash_of((u8 *)a.data, (i64)a.bytes, false, &scratch, x));
            assert_ok(minhash_of((u8 *)b.data, (i64)b.bytes, false, &scratch, y));
            bool meet = false;
            for (int band = 0; band < DEDUP_BANDS; band++)
                meet = meet || !memcmp(x + band * DEDUP_ROWS, y + band * DEDUP_ROWS, DEDUP_ROWS * sizeof *x);
            for (int i = 0; i < DEDUP_HASHES; i++) equal += x[i] == y[i];
            const double runs = WORDS - DEDUP_WORDS + 1, common = (double)(shared - DEDUP_WORDS + 1);
            exact += common / (2 * runs - common);
            meets += meet;
            text_free(&a);
            text_free(&b);
        }
        const double n = PAIRS * DEDUP_HASHES, s = exact / PAIRS;
        assert_true(fabs(equal / n - s) < 3 * sqrt(s * (1 - s) / n));
        const double p = 1 - pow(1 - pow(s, DEDUP_ROWS), DEDUP_BANDS);
        assert_true(fabs((double)meets / PAIRS - p) < 3 * sqrt(p * (1 - p) / PAIRS) + 0.02);
    }
    dedup_scratch_free(&scratch);
}

static void test_dedup_build(void **state)
{
    (void)state;
    token_source t = toy_tokens();
    const char *path = toy_text("in", "one\n\ntwo\n\none\n\nthree\n\ntwo \n");
    char out[512];
    build_result r;
    snprintf(out, sizeof out, "%s", toy_path("out"));
    assert_ok(dataset_build(&(build_options){.train = &path,
                                             .train_count = 1,
                                             .validation = "0",
                                             .document = "blank_line",
                                             .dedup = "exact",
                                             .out = out},
                            &t, &r));
    assert_int_equal(r.duplicates, 2);
    assert_int_equal(r.documents[DATA_TRAIN], 3);
    assert_int_equal(r.bytes[DATA_TRAIN], 4 + 4 + 6);
}

/* ---- inspection */

static void test_inspect(void **state)
{
    (void)state;
    token_source t = toy_tokens();
    const char *path = toy_text(
        "a.jsonl", "{\"text\":\"the cat\"}\n{\"text\":\"\"}\n{\"text\":\"a\"}\n{\"text\":\"the  cat\"}\n");
    inspection r;
    assert_ok(data_inspect(&(inspect_options){.path = &path, .paths = 1, .tokens = &t, .samples = 2}, &r));
    assert_int_equal(r.documents, 3);
    assert_int_equal(r.blank, 1);
    assert_int_equal(r.bytes, 7 + 1 + 8);
    assert_int_equal(r.tokens, 5 + 1 + 6);
    assert_int_equal(r.duplicates, 1);
    assert_int_equal(r.quantile[0], 1);
    assert_int_equal(r.quantile[4], 8);
    assert_int_equal(r.longest_tokens, 6);
    assert_string_equal(r.longest_where, message("%s:4", path));
    assert_int_equal(r.samples, 2);
    assert_true(r.sample[0].key <= r.sample[1].key);
    inspection_free(&r);
    dataset *d = toy_dataset("set", path, "auto", "0", 0);
    dataset_close(d);
    const char *set = toy_path("set");
    assert_ok(data_inspect(&(inspect_options){.path = &set, .paths = 1}, &r));
    assert_int_equal(r.documents, 3);
    assert_int_equal(r.tokens, 12);
    assert_int_equal(r.duplicates, -1);
    assert_string_equal(r.longest_where, "train document 2");
    inspection_free(&r);
    assert_fails(data_inspect(&(inspect_options){.path = &set, .paths = 1, .samples = -1}, &r), ERR_CONFIG,
                 "samples is -1; it must be from 0 to 1000");
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {CASE(test_packed),
                                       CASE(test_bomb),
                                       CASE(test_jsonl),
                                       CASE(test_jsonl_file),
                                       CASE(test_packed_text),
                                       CASE(test_patterns),
                                       CASE(test_llmc),
                                       CASE(test_megatron),
                                       CASE(test_token_damage),
                                       CASE(test_dedup),
                                       CASE(test_minhash_estimate),
                                       CASE(test_dedup_build),
                                       CASE(test_inspect)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

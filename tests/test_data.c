/* data: finding files, cutting documents, building shards, and what is refused (with the whole message). */
#include "data/document.h"
#include "data/shard.h"
#include "toy_data.h"
#include <sys/stat.h>

static int setup(void **state) { return (void)state, toy_open(), 0; }
static int teardown(void **state) { return (void)state, toy_close(), 0; }

static const char *message(const char *format, const char *a)
{
    static char s[1024];
    snprintf(s, sizeof s, format, a);
    return s;
}

/* ---- documents */

/* The documents of TEXT, joined by '|', in a block of its own so that ASan sees overruns. */
static const char *cut(const char *rule, const char *text, i64 bytes)
{
    static char out[4096];
    cut_rule r;
    assert_ok(cut_rule_parse(rule, &r));
    u8 *copy = malloc((size_t)MAX(bytes, 1));
    memcpy(copy, text, (size_t)bytes);
    i64 at = 0, start = 0, end = 0;
    size_t n = 0;
    while (document_next(r, copy, bytes, &at, &start, &end)) {
        assert_true(start < end && end <= bytes);
        n += (size_t)snprintf(out + n, sizeof out - n, "%s%.*s", n ? "|" : "", (int)(end - start),
                              (char *)copy + start);
    }
    out[n] = 0;
    free(copy);
    return out;
}

static void test_cut(void **state)
{
    (void)state;
    static const struct {
        const char *rule, *text, *documents;
    } cases[] = {
        {"auto", "a\n\nb\n", "a\n\nb\n"}, // small: one document
        {"file", "a\n\nb\n", "a\n\nb\n"},
        {"file", "", ""},
        {"blank_line", "a\nb\n\nc", "a\nb\n|c"},
        {"blank_line", "\n \n\ta\n\n\n\r\n b\n\n", "\ta\n| b\n"},
        {"blank_line", "\n \n\t", ""},
        {"blank_line", "", ""},
        {"blank_line", "a", "a"},
        {"--", "a--b\n----c", "a|b\n|c"},
        {"--", "--", ""},
        {"--", "-", "-"},
        {"\n", "a\nb", "a|b"},
    };
    for (i64 i = 0; i < COUNT(cases); i++)
        assert_string_equal(cut(cases[i].rule, cases[i].text, (i64)strlen(cases[i].text)),
                            cases[i].documents);
    cut_rule r;
    assert_fails(cut_rule_parse("", &r), ERR_CONFIG,
                 "data.document is empty; it must be auto, file, blank_line or the string between documents");
}

/* Over 1 MiB, auto cuts at unindented lines behind a blank one, and there only. */
static void test_cut_auto(void **state)
{
    (void)state;
    static const char tail[] = "\n\n  indented\n\n\tand this\nno blank before\n\nnew\r\n \t\r\nnewer\n\n\n";
    const i64 bytes = CUT_AUTO_BYTES + (i64)sizeof tail;
    u8 *text = malloc((size_t)bytes);
    memset(text, 'x', (size_t)bytes);
    memcpy(text + bytes - sizeof tail + 1, tail, sizeof tail - 1);
    const i64 ends[] = {bytes - (i64)strlen("\nnew\r\n \t\r\nnewer\n\n\n"),
                        bytes - (i64)strlen(" \t\r\nnewer\n\n\n"), bytes - 2};
    i64 at = 0, start, end, n = 0;
    const cut_rule rule = {.kind = CUT_AUTO};
    while (document_next(rule, text, bytes, &at, &start, &end)) {
        assert_true(n < COUNT(ends));
        assert_int_equal(end, ends[n]);
        n++;
    }
    assert_int_equal(n, 3);
    at = 0; // a byte less than the limit allows: one document
    assert_true(document_next(rule, text + bytes - CUT_AUTO_BYTES, CUT_AUTO_BYTES, &at, &start, &end));
    assert_int_equal(end, CUT_AUTO_BYTES);
    assert_false(document_next(rule, text + bytes - CUT_AUTO_BYTES, CUT_AUTO_BYTES, &at, &start, &end));
    free(text);
}

static void test_binary(void **state)
{
    (void)state;
    assert_false(looks_binary((const u8 *)"", 0));
    assert_false(looks_binary((const u8 *)"plain", 5));
    assert_false(looks_binary((const u8 *)"\x80\xff\xfe\x01\x02 latin", 11)); // no NUL
    assert_false(looks_binary((const u8 *)"twenty bytes and NUL\0", 21));     // 1 of 21: under 5 %
    assert_true(looks_binary((const u8 *)"eighteen bytes, a\0", 18));         // 1 of 18: over
    assert_true(looks_binary((const u8 *)"h\0e\0l\0l\0o\0", 10));             // UTF-16
    assert_true(looks_binary((const u8 *)"\x7f"
                                         "ELF\2\1\1\0\0\0\0",
                             11));
    // A character cut by the end of the sample is no sign: 65,535 bytes of text with a NUL, then U+00E9
    // across it.
    u8 *big = malloc(70000);
    memset(big, 'a', 70000);
    big[0] = 0, big[65535] = 0xc3, big[65536] = 0xa9;
    assert_false(looks_binary(big, 70000));
    free(big);
}

static void test_sources(void **state)
{
    (void)state;
    assert_ok(dir_make(toy_path("in/sub/deep")));
    assert_ok(dir_make(toy_path("in/.git")));
    toy_text("in/b.txt", "b");
    toy_text("in/a.md", "a");
    toy_text("in/sub/c", "c");
    toy_text("in/sub/deep/d.txt", "d");
    toy_text("in/.hidden", "h");
    toy_text("in/.git/x", "x");
    toy_text("in/empty", "");
    toy_file("in/program", "\0\0\0\0\1\2", 6);
    assert_int_equal(symlink(toy_path("in"), toy_path("in/sub/loop")), 0);
    assert_int_equal(symlink("nowhere", toy_path("in/sub/dangling")), 0);
    assert_int_equal(symlink(toy_path("in/b.txt"), toy_path("in/sub/z-link")), 0);
    sources s = {0};
    assert_ok(sources_find(&s, toy_path("in"), false));
    static const char *const names[] = {"in/a.md", "in/b.txt", "in/sub/c", "in/sub/deep/d.txt",
                                        "in/sub/z-link"};
    assert_int_equal(s.count, COUNT(names));
    for (i64 i = 0; i < COUNT(names); i++) assert_string_equal(s.file[i].path, toy_path(names[i]));
    assert_int_equal(s.bytes, 5);
    assert_int_equal(s.empty, 1);
    assert_int_equal(s.binary, 1);
    assert_int_equal(s.hidden, 2);
    sources_free(&s);

    assert_ok(sources_find(&s, toy_path("in/.hidden"), true)); // named itself
    assert_true(s.count == 1 && s.file[0].validation);
    sources_free(&s);
    assert_fails(sources_find(&s, toy_path("in/none"), false), ERR_INPUT,
                 message("%s: no such file or folder; check the path", toy_path("in/none")));
    assert_fails(sources_find(&s, "", false), ERR_INPUT,
                 "the path of the corpus is empty; name a file or a folder of text");
    assert_fails(sources_find(&s, toy_path("in/empty"), false), ERR_INPUT,
                 message("%s: the file is empty; name a file with text", toy_path("in/empty")));
    assert_fails(sources_find(&s, toy_path("in/program"), false), ERR_INPUT,
                 message("%s: a binary file (NUL bytes, over 5 %% of its bytes are no text); unpack it or "
                         "convert it to UTF-8 text first",
                         toy_path("in/program")));
    assert_fails(sources_find(&s, "/dev/null", false), ERR_INPUT,
                 "/dev/null: neither a file nor a folder; save its text to a file first");
    assert_ok(dir_make(toy_path("bare")));
    toy_text("bare/nothing", "");
    assert_fails(
        sources_find(&s, toy_path("bare"), false), ERR_INPUT,
        message(
            "%s: no text in this folder (1 files empty, 0 binary, 0 hidden); name a folder with text files",
            toy_path("bare")));
    sources_free(&s);
}

/* ---- building */

static void make_corpus(void)
{
    char text[64];
    assert_ok(dir_make(toy_path("corpus")));
    for (int i = 0; i < 40; i++) {
        char name[64];
        snprintf(name, sizeof name, "corpus/%02d.txt", i);
        int n = snprintf(text, sizeof text, "%d the %.*s\n", i, i,
                         "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrst");
        toy_file(name, text, (size_t)n);
    }
}

static void test_build(void **state)
{
    (void)state;
    assert_ok(dir_make(toy_path("in")));
    toy_text("in/1", "the cat\n");
    static const char odd[] = "a NUL \0 and \xff\xfe are bytes; the rest of it is of no interest at all";
    const i64 n = sizeof odd - 1;
    toy_file("in/2", odd, (size_t)n);
    dataset *d = toy_dataset("out", toy_path("in"), "auto", "0", 0);
    assert_int_equal(dataset_documents(d, DATA_TRAIN), 2);
    assert_int_equal(dataset_documents(d, DATA_VALIDATION), 0);
    assert_int_equal(dataset_tokens(d, DATA_TRAIN), (8 - 2 + 1) + (n - 2 + 1));
    assert_int_equal(dataset_bytes(d, DATA_TRAIN), 8 + n);
    assert_int_equal(dataset_vocab(d), TOY_VOCAB);
    assert_int_equal(dataset_eos(d), TOY_EOS);
    i32 ids[128];
    dataset_read(d, DATA_TRAIN, 0, 7 + n - 1, ids);
    static const i32 first[] = {TOY_THE, ' ', 'c', 'a', 't', '\n', TOY_EOS, 'a', ' ', 'N'};
    assert_memory_equal(ids, first, sizeof first);
    assert_int_equal(ids[7 + 6], 0);
    assert_int_equal(ids[7 + 12], 0xff);
    assert_int_equal(ids[7 + n - 2], TOY_EOS);
    assert_int_equal(dataset_document_after(d, DATA_TRAIN, 0), 7);
    assert_int_equal(dataset_document_after(d, DATA_TRAIN, 6), 7);
    assert_int_equal(dataset_document_after(d, DATA_TRAIN, 7), 7 + n - 1);
    assert_int_equal(dataset_document_after(d, DATA_VALIDATION, 0), 0);
    i64 start, tokens, bytes;
    dataset_document(d, DATA_TRAIN, 1, &start, &tokens, &bytes);
    assert_true(start == 7 && tokens == n - 1 && bytes == n);
    assert_ok(dataset_check_tokenizer(d, 0x1234abcd5678ef00, "t"));
    char wanted[1024];
    snprintf(wanted, sizeof wanted,
             "%s: its tokens were made by tokenizer 1234abcd5678ef00, but other.json is 0000000000000001; "
             "use %s/tokenizer.json, or build the data again",
             toy_path("out"), toy_path("out"));
    assert_fails(dataset_check_tokenizer(d, 1, "other.json"), ERR_INPUT, wanted);
    dataset_close(d);
}

/* Small shards, one or many threads: the same stream; the files are equal byte for byte. */
static void test_threads(void **state)
{
    (void)state;
    make_corpus();
    token_source t = toy_tokens();
    const char *corpus = toy_path("corpus");
    char in[512], names[3][512];
    strcpy(in, corpus);
    corpus = in;
    for (int i = 0; i < 3; i++) {
        snprintf(names[i], sizeof names[i], "%s", toy_path((const char *[]){"one", "two", "five"}[i]));
        assert_ok(dataset_build(&(build_options){.train = &corpus,
                                                 .train_count = 1,
                                                 .validation = "20%",
                                                 .out = names[i],
                                                 .threads = (int[]){1, 2, 5}[i],
                                                 .shard_tokens = 100},
                                &t, NULL));
    }
    char command[4096];
    snprintf(command, sizeof command, "diff -r %s %s && diff -r %s %s", names[0], names[1], names[0],
             names[2]);
    assert_int_equal(system(command), 0);
    dataset *d;
    assert_ok(dataset_open(names[0], &d));
    assert_true(dataset_shards(d, DATA_TRAIN) > 5);
    assert_int_equal(dataset_documents(d, DATA_TRAIN) + dataset_documents(d, DATA_VALIDATION), 40);
    assert_true(dataset_documents(d, DATA_VALIDATION) >= 2 && dataset_documents(d, DATA_VALIDATION) <= 16);
    // Across shards: read in one piece and token by token, and walk the documents.
    for (int k = 0; k < DATA_SPLITS; k++) {
        i64 n = dataset_tokens(d, k), seen = 0, eos = 0;
        i32 *all = malloc((size_t)n * 4), one;
        dataset_read(d, k, 0, n, all);
        for (i64 i = 0; i < n; i++) {
            dataset_read(d, k, i, 1, &one);
            assert_int_equal(one, all[i]);
            eos += one == TOY_EOS;
        }
        for (i64 i = 0, at = -1; i < dataset_documents(d, k); i++) {
            i64 start, tokens, bytes;
            at = dataset_document_after(d, k, at);
            dataset_document(d, k, i, &start, &tokens, &bytes);
            assert_int_equal(start, at);
            assert_int_equal(all[start + tokens - 1], TOY_EOS);
            assert_int_equal(bytes, tokens - 1 + 2); // each holds one "the"
            seen += tokens;
        }
        assert_int_equal(seen, n);
        assert_int_equal(eos, dataset_documents(d, k));
        free(all);
    }
    dataset_close(d);
}

/* More data moves no document between the splits; a path is taken as validation whole. */
static void test_validation(void **state)
{
    (void)state;
    make_corpus();
    dataset *d = toy_dataset("a", toy_path("corpus"), "auto", "20%", 0);
    i64 before = dataset_documents(d, DATA_VALIDATION);
    dataset_close(d);
    toy_text("corpus/99", "an extra document that may go anywhere");
    d = toy_dataset("b", toy_path("corpus"), "auto", "20%", 0);
    assert_in_range(dataset_documents(d, DATA_VALIDATION), before, before + 1);
    dataset_close(d);

    char held_out[512];
    strcpy(held_out, toy_text("held-out", "held out"));
    d = toy_dataset("c", toy_path("corpus"), "auto", held_out, 0);
    assert_int_equal(dataset_documents(d, DATA_TRAIN), 41);
    assert_int_equal(dataset_bytes(d, DATA_VALIDATION), 8);
    dataset_close(d);

    // One small file: its tail is held out, from a line's beginning on.
    char text[2001];
    for (int i = 0; i < 100; i++) sprintf(text + 20 * i, "line %3d of this on\n", i);
    d = toy_dataset("d", toy_file("single", text, 2000), "auto", "2%", 0);
    assert_int_equal(dataset_bytes(d, DATA_TRAIN), 1960);
    assert_int_equal(dataset_bytes(d, DATA_VALIDATION), 40);
    dataset_close(d);
    d = toy_dataset("e", toy_text("byte", "x"), "auto", "2%", 0); // nothing to hold out
    assert_int_equal(dataset_bytes(d, DATA_TRAIN), 1);
    assert_int_equal(dataset_tokens(d, DATA_VALIDATION), 0);
    dataset_close(d);

    token_source t = toy_tokens();
    const char *in = held_out;
    assert_fails(
        dataset_build(
            &(build_options){.train = &in, .train_count = 1, .validation = "51%", .out = toy_path("f")}, &t,
            NULL),
        ERR_CONFIG, "data.validation is 51%; it must be from 0% to 50% (usual: 1%), or a path");
    assert_fails(
        dataset_build(
            &(build_options){.train = &in, .train_count = 1, .validation = "no/such", .out = toy_path("f")},
            &t, NULL),
        ERR_INPUT, "data.validation: no/such: no such file or folder; check the path");
    assert_false(path_exists(toy_path("f")));
}

static void test_reuse(void **state)
{
    (void)state;
    token_source t = toy_tokens();
    char in[512], out[512], wanted[1024];
    strcpy(in, toy_text("text", "some text to build from\n"));
    strcpy(out, toy_path("out"));
    const char *train = in;
    build_options o = {.train = &train, .train_count = 1, .validation = "0", .out = out};
    build_result r;
    assert_ok(dir_make(out)); // an empty folder is no obstacle
    assert_ok(dataset_build(&o, &t, &r));
    assert_false(r.reused);
    assert_int_equal(r.tokens[DATA_TRAIN], 25);
    o.threads = 3;
    assert_ok(dataset_build(&o, &t, &r));
    assert_true(r.reused);
    assert_int_equal(r.tokens[DATA_TRAIN], 25);
    dataset *d;
    assert_ok(dataset_open(out, &d));
    u64 first = dataset_hash(d);
    dataset_close(d);

    toy_text("out/train-00000.bin", "damage"); // is noticed and made good
    assert_ok(dataset_build(&o, &t, &r));
    assert_false(r.reused);
    assert_ok(dataset_open(out, &d));
    assert_true(dataset_hash(d) == first);
    dataset_close(d);

    toy_text("text", "now some other text\n");
    snprintf(wanted, sizeof wanted,
             "%s: already holds data built from other files or in another way; name another folder, or "
             "replace it with --force",
             out);
    assert_fails(dataset_build(&o, &t, &r), ERR_INPUT, wanted);
    o.replace = true;
    assert_ok(dataset_build(&o, &t, &r));
    assert_ok(dataset_open(out, &d));
    assert_true(dataset_hash(d) != first);
    assert_int_equal(dataset_tokens(d, DATA_TRAIN), 20 - 2 + 1); // "other" holds a "the"
    dataset_close(d);

    const char *shards = out;
    snprintf(wanted, sizeof wanted,
             "%s: a folder of shards, not of text; use it as it is, or name the text it was built from", out);
    assert_fails(
        dataset_build(&(build_options){.train = &shards, .train_count = 1, .out = toy_path("x")}, &t, NULL),
        ERR_INPUT, wanted);
    o.out = in;
    assert_fails(dataset_build(&o, &t, NULL), ERR_INPUT,
                 message("%s: in the way: a file, not a folder; name another folder for the data", in));
    assert_ok(dir_make(toy_path("mine")));
    toy_text("mine/letter", "dear");
    o.out = toy_path("mine");
    assert_fails(dataset_build(&o, &t, NULL), ERR_INPUT,
                 message("%s: in the way: a folder with other things in it; name a new folder for the data",
                         toy_path("mine")));
    assert_true(path_exists(toy_path("mine/letter")));
}

static void test_build_refusals(void **state)
{
    (void)state;
    token_source t = toy_tokens();
    char in[512];
    strcpy(in, toy_text("blank", "\n\n \n"));
    const char *train = in;
    build_options o = {.train = &train, .train_count = 1, .document = "blank_line", .out = toy_path("out")};
    char wanted[1024];
    snprintf(wanted, sizeof wanted,
             "%s: no document in 1 files; with data.document = blank_line there is nothing but blank text",
             in);
    assert_fails(dataset_build(&o, &t, NULL), ERR_INPUT, wanted);
    o.train_count = 0;
    assert_fails(dataset_build(&o, &t, NULL), ERR_INPUT, "no corpus; name files or folders of text");
    o.train_count = 1;
    o.document = "";
    assert_fails(dataset_build(&o, &t, NULL), ERR_CONFIG,
                 "data.document is empty; it must be auto, file, blank_line or the string between documents");
    o.document = "file";
    t.vocab = 250; // ids of bytes are beyond
    t.eos = 3;
    toy_file("blank", "ok\xfb\n", 4);
    snprintf(wanted, sizeof wanted, "%s: document at byte 0: the tokenizer gave id 251, but it has 250", in);
    o.validation = "0";
    assert_fails(dataset_build(&o, &t, NULL), ERR_INPUT, wanted);
    t.eos = 250;
    assert_fails(dataset_build(&o, &t, NULL), ERR_INPUT,
                 "the tokenizer has 250 ids and end of text 250; it must have 2 ids or more and an end of "
                 "text among them");
    assert_false(path_exists(toy_path("out")));
}

/* Every write, fsync, rename and allocation fails in turn: OUT is then not there, and nothing else is left.
 */
static void test_faults(void **state)
{
    (void)state;
    make_corpus();
    assert_ok(dir_make(toy_path("place")));
    token_source t = toy_tokens();
    char in[512];
    strcpy(in, toy_path("corpus"));
    const char *train = in;
    build_options o = {
        .train = &train, .train_count = 1, .out = toy_path("place/out"), .threads = 1, .shard_tokens = 400};
    char out[512];
    strcpy(out, o.out);
    o.out = out;
    for (int kind = 0; kind <= FAULT_RENAME; kind++) {
        bool done = false;
        for (i64 k = 1; !done; k++) {
            fault_set((fault_kind)kind, k);
            status s = dataset_build(&o, &t, NULL);
            fault_set((fault_kind)kind, 0);
            done = !s;
            if (s &&
                path_exists(out)) { // only the very last fsync, of the parent, may fail behind the rename
                assert_int_equal(kind, FAULT_FSYNC);
                dataset *d;
                assert_ok(dataset_open(out, &d));
                dataset_close(d);
                assert_ok(tree_remove(out));
            }
            status_drop(s);
            if (done) break;
            assert_int_equal(rmdir(toy_path("place")), 0); // nothing is left there
            assert_ok(dir_make(toy_path("place")));
        }
        assert_ok(tree_remove(out));
    }
}

/* Another process builds the same while we do: its folder stays, ours goes, and that is no error. */
typedef struct rival {
    const char *in, *out;
    bool done;
} rival;

static bool build_meanwhile(void *p, const build_progress *now)
{
    rival *r = p;
    if (strcmp(now->phase, "encoding") || r->done) return true;
    r->done = true;
    token_source t = toy_tokens();
    char built[512];
    snprintf(built, sizeof built, "%s-rival", r->out);
    assert_ok(dataset_build(
        &(build_options){.train = &r->in, .train_count = 1, .out = built, .validation = "0"}, &t, NULL));
    assert_int_equal(rename(built, r->out), 0);
    return true;
}

static void test_rival(void **state)
{
    (void)state;
    token_source t = toy_tokens();
    char in[512], out[512];
    strcpy(in, toy_text("text", "some text to build from\n"));
    strcpy(out, toy_path("out"));
    rival r = {in, out, false};
    build_options o = {.train = &r.in,
                       .train_count = 1,
                       .out = out,
                       .validation = "0",
                       .progress = build_meanwhile,
                       .progress_context = &r};
    assert_ok(dataset_build(&o, &t, NULL));
    assert_true(r.done);
    dataset *d;
    assert_ok(dataset_open(out, &d));
    dataset_close(d);
    assert_int_equal(system(message("ls -d %s.* 2>/dev/null", out)) != 0, 1); // nothing else is left
}

static bool stop_at_once(void *count, const build_progress *p)
{
    assert_true(p->bytes_done <= p->bytes_total);
    return ++*(int *)count < 2; // all files are one batch, read, then encoded
}

static void test_stop(void **state)
{
    (void)state;
    make_corpus();
    token_source t = toy_tokens();
    char in[512], out[512], wanted[1024];
    strcpy(in, toy_path("corpus"));
    strcpy(out, toy_path("out"));
    const char *train = in;
    int count = 0;
    build_options o = {
        .train = &train, .train_count = 1, .out = out, .progress = stop_at_once, .progress_context = &count};
    snprintf(wanted, sizeof wanted, "stopped; %s is as it was before", out);
    assert_fails(dataset_build(&o, &t, NULL), ERR_STOPPED, wanted);
    assert_false(path_exists(out));
}

/* ---- damage */

static void test_flip_every_byte(void **state)
{
    (void)state;
    toy_text("text", "the quick brown fox\n\nthe lazy dog\n\nthe end\n");
    dataset *d = toy_dataset("out", toy_path("text"), "blank_line", "40%", 0);
    dataset_close(d);
    static const char *const names[] = {"out/manifest.json", "out/tokenizer.json", "out/token-bytes.bin",
                                        "out/train-00000.bin", "out/validation-00000.bin"};
    for (i64 f = 0; f < COUNT(names); f++) {
        char *data, *path = strdup(toy_path(names[f]));
        size_t bytes;
        assert_ok(file_read(path, &data, &bytes));
        assert_true(bytes > 0);
        for (size_t i = 0; i < bytes; i++) {
            data[i] ^= 1 << i % 8;
            toy_file(names[f], data, bytes);
            status s = dataset_open(toy_path("out"), &d);
            if (!s) fail_msg("%s: byte %zu flipped, and it was opened", path, i);
            if (strncmp(s->message, path, strlen(path)))
                fail_msg("byte %zu: '%s' does not name %s", i, s->message, path);
            status_drop(s);
            data[i] ^= 1 << i % 8;
        }
        for (size_t n = 0; n <= bytes + 1;
             n += n + 1 < bytes ? bytes / 3 : 1) { // truncated, or something appended
            char *other = calloc(1, bytes + 1);
            memcpy(other, data, bytes);
            toy_file(names[f], other, n);
            free(other);
            status s = dataset_open(toy_path("out"), &d);
            assert_true(n == bytes || (s && !strncmp(s->message, path, strlen(path))));
            if (!s) dataset_close(d);
            status_drop(s);
        }
        toy_file(names[f], data, bytes);
        mem_free(data);
        free(path);
    }
    assert_ok(dataset_open(toy_path("out"), &d));
    dataset_close(d);
}

static void test_open_refusals(void **state)
{
    (void)state;
    toy_text("text", "the quick brown fox");
    dataset *d = toy_dataset("out", toy_path("text"), "file", "0", 0);
    dataset_close(d);
    char path[512], wanted[1024];
    assert_fails(
        dataset_open(toy_path("none"), &d), ERR_INPUT,
        message("%s: no such folder; check the path, or make it with 'keel data build'", toy_path("none")));
    assert_ok(dir_make(toy_path("plain")));
    assert_fails(dataset_open(toy_path("plain"), &d), ERR_INPUT,
                 message("%s: no folder of shards (it has no manifest.json); make one with 'keel data build'",
                         toy_path("plain")));
    strcpy(path, toy_path("out/train-00000.bin"));
    struct stat st;
    assert_int_equal(stat(path, &st), 0); // 64 + 18 tokens of 2 bytes, padded, + index of 2 + bytes of 1
    assert_int_equal(st.st_size, 64 + 40 + 16 + 8);
    assert_int_equal(truncate(path, 100), 0);
    snprintf(wanted, sizeof wanted,
             "%s: 100 bytes long, but its header asks for 128: truncated; build the data again", path);
    assert_fails(dataset_open(toy_path("out"), &d), ERR_FORMAT, wanted);
    assert_int_equal(truncate(path, 10), 0);
    snprintf(wanted, sizeof wanted,
             "%s: 10 bytes long, shorter than a header (64): truncated; build the data again", path);
    assert_fails(dataset_open(toy_path("out"), &d), ERR_FORMAT, wanted);
    assert_int_equal(unlink(path), 0);
    snprintf(wanted, sizeof wanted, "%s: cannot open: No such file or directory", path);
    assert_fails(dataset_open(toy_path("out"), &d), ERR_IO, wanted);
}

/* Lying headers and ids, with checksums that fit: sizes that wrap, ids beyond the vocabulary, a bad index. */
static void test_shard_lies(void **state)
{
    (void)state;
    const shard_info info = {7, 300, 299};
    shard_builder *b;
    assert_ok(shard_builder_open(2, &b));
    char path[512], wanted[1024];
    strcpy(path, toy_path("s.bin"));
    u64 hash;
    shard s;
    assert_ok(shard_add(b, (i32[]){1, 2, 65000}, 3, 299, 5));
    assert_ok(shard_write(b, path, info, &hash));
    snprintf(wanted, sizeof wanted,
             "%s: token id 65000, but the vocabulary has 300 ids: tokenizer and shards do not fit; build the "
             "data again",
             path);
    assert_fails(shard_open(path, info, hash, &s), ERR_FORMAT, wanted);
    assert_ok(shard_add(b, (i32[]){1, 2}, 2, 298, 5));
    assert_ok(shard_write(b, path, info, &hash));
    snprintf(wanted, sizeof wanted, "%s: its index of documents is inconsistent; build the data again", path);
    assert_fails(shard_open(path, info, hash, &s), ERR_FORMAT, wanted);
    assert_ok(shard_add(b, (i32[]){1, 2}, 2, 299, 5));
    assert_ok(shard_write(b, path, info, &hash));
    snprintf(wanted, sizeof wanted,
             "%s: made by tokenizer 0000000000000007 (300 ids, end of text 299), the manifest says "
             "0000000000000008 (300 ids, 299): files of two builds are mixed; build the data again",
             path);
    assert_fails(shard_open(path, (shard_info){8, 300, 299}, hash, &s), ERR_FORMAT, wanted);
    char *data;
    size_t bytes;
    assert_ok(file_read(path, &data, &bytes));
    static const u64 lies[] = {0x7fffffffffffffff, 0x8000000000000000, 0x2000000000000000, 0xffffffffffffffff,
                               1000};
    for (int field = 16; field <= 24; field += 8)
        for (i64 i = 0; i < COUNT(lies); i++) {
            char was[8];
            memcpy(was, data + field, 8);
            memcpy(data + field, &lies[i], 8);
            toy_file("s.bin", data, bytes);
            status failed = shard_open(path, info, 0, &s);
            assert_non_null(failed);
            assert_int_equal(failed->code, ERR_FORMAT);
            assert_memory_equal(failed->message, path, strlen(path));
            status_drop(failed);
            memcpy(data + field, was, 8);
        }
    mem_free(data);
    shard_builder_close(b);
    // Four bytes a token.
    assert_ok(shard_builder_open(4, &b));
    assert_ok(shard_add(b, (i32[]){70000, 2, 3}, 3, 99999, 5));
    assert_ok(shard_add(b, NULL, 0, 99999, 0));
    assert_ok(shard_write(b, path, (shard_info){7, 100000, 99999}, &hash));
    assert_ok(shard_open(path, (shard_info){7, 100000, 99999}, hash, &s));
    i32 ids[5];
    shard_read(&s, 0, 5, ids);
    assert_memory_equal(ids, ((i32[]){70000, 2, 3, 99999, 99999}), sizeof ids);
    shard_close(&s);
    shard_builder_close(b);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_cut),
        T(test_cut_auto),
        T(test_binary),
        T(test_sources),
        T(test_build),
        T(test_threads),
        T(test_validation),
        T(test_reuse),
        T(test_build_refusals),
        T(test_faults),
        T(test_rival),
        T(test_stop),
        T(test_flip_every_byte),
        T(test_open_refusals),
        T(test_shard_lies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* data_prepare: a folder of text becomes an open data set, once; a tokenizer as the builder's source of
 * tokens. */
#include "data/prepare.h"
#include "data/tokens.h"
#include "text/train_bpe.h"
#include "base/text.h"
#include "toy_data.h"
#include <glob.h>
#include <sys/stat.h>

static int setup(void **state) { return (void)state, toy_open(), 0; }
static int teardown(void **state) { return (void)state, toy_close(), 0; }

static int count_of(const char *pattern)
{
    glob_t g;
    int n = glob(toy_path(pattern), 0, NULL, &g) ? 0 : (int)g.gl_pathc;
    globfree(&g);
    return n;
}

static void make_corpus(const char *word)
{
    assert_ok(dir_make(toy_path("corpus")));
    for (int i = 0; i < 20; i++) {
        char name[64];
        text t = {0};
        snprintf(name, sizeof name, "corpus/%02d.txt", i);
        for (int k = 0; k < 30; k++)
            text_add(&t, "%s %d sails the sea %s\n", word, (i * k) % 17, k % 3 ? "again" : "never");
        toy_file(name, t.data, t.bytes);
        text_free(&t);
    }
}

static void test_folder_of_text(void **state)
{
    (void)state;
    make_corpus("ship");
    char corpus[512], cache[512];
    strcpy(corpus, toy_path("corpus"));
    strcpy(cache, toy_path("cache"));
    const char *train = corpus;
    prepare_options o = {.build = {.train = &train, .train_count = 1, .out = cache, .validation = "10%"},
                         .vocab = 290};
    dataset *d;
    assert_ok(data_prepare(&o, &d));
    assert_int_equal(dataset_vocab(d), 290);
    assert_int_equal(dataset_documents(d, DATA_TRAIN) + dataset_documents(d, DATA_VALIDATION), 20);
    u64 first = dataset_hash(d);
    struct stat before, after;
    assert_int_equal(stat(dataset_tokenizer_path(d), &before), 0);
    dataset_close(d);

    assert_ok(data_prepare(&o, &d)); // only opened
    assert_true(dataset_hash(d) == first);
    assert_int_equal(stat(dataset_tokenizer_path(d), &after), 0);
    assert_int_equal(after.st_ino, before.st_ino);

    // The folder of shards itself, with its tokenizer or another.
    char shards[512], own[600], wanted[2048];
    strcpy(shards, dataset_folder(d));
    strcpy(own, dataset_tokenizer_path(d));
    dataset_close(d);
    const char *made = shards;
    prepare_options direct = {.build = {.train = &made, .train_count = 1, .out = cache}, .tokenizer = own};
    assert_ok(data_prepare(&direct, &d));
    u64 tokenizer_is = dataset_tokenizer_hash(d);
    dataset_close(d);
    o.vocab = 280;
    assert_ok(data_prepare(&o, &d));
    char other[600];
    strcpy(other, dataset_tokenizer_path(d));
    direct.tokenizer = other;
    snprintf(
        wanted, sizeof wanted,
        "%s: its tokens were made by tokenizer %016llx, but %s is %016llx; use %s, or build the data again",
        shards, (unsigned long long)tokenizer_is, other, (unsigned long long)dataset_tokenizer_hash(d), own);
    dataset_close(d);
    dataset *none;
    assert_fails(data_prepare(&direct, &none), ERR_INPUT, wanted);
    assert_int_equal(count_of("cache/shards-*"), 2);

    // Changed text: built again, in the same place.
    o.vocab = 290;
    make_corpus("boat");
    assert_ok(data_prepare(&o, &d));
    assert_true(dataset_hash(d) != first);
    assert_string_equal(dataset_folder(d), shards);
    dataset_close(d);
    assert_int_equal(count_of("cache/shards-*"), 2);
    assert_int_equal(count_of("cache/*.tmp-*") + count_of("cache/*.old-*"), 0);

    // A given tokenizer; and nothing there.
    o.tokenizer = other;
    assert_ok(data_prepare(&o, &d));
    assert_int_equal(dataset_vocab(d), 280);
    dataset_close(d);
    train = "no/such/folder";
    assert_fails(data_prepare(&o, &d), ERR_INPUT, "no/such/folder: no such file or folder; check the path");
}

/* The source's lengths are what its tokens decode to, EOS apart; special strings obey the mode. */
static void test_token_source(void **state)
{
    (void)state;
    tokenizer *t;
    bpe_trainer *b;
    token_source s;
    void *e;
    const i32 *ids;
    i64 n, bytes = 0;
    static const char *const others[] = {"<|other|>"}; // lives until the trainer is finished
    static const char text_of[] = "the ship and <|endoftext|> the ship \xff";
    assert_ok(bpe_trainer_open(&(bpe_options){.vocab = 270, .min_frequency = 1, .threads = 1}, &b));
    assert_ok(bpe_trainer_add(b, text_of, sizeof text_of - 1));
    assert_ok(bpe_trainer_finish(b, &t, NULL));
    bpe_trainer_close(b);
    assert_ok(token_source_open(t, "t", SPECIAL_PLAIN, &s));
    assert_ok(s.open(s.context, &e));
    assert_ok(s.encode(e, (const u8 *)text_of, sizeof text_of - 1, &ids, &n));
    for (i64 i = 0; i < n; i++) bytes += s.token_bytes[ids[i]], assert_int_not_equal(ids[i], s.eos);
    assert_int_equal(bytes, sizeof text_of - 1);
    assert_int_equal(s.token_bytes[s.eos], 0);
    s.close(e);
    token_source_close(&s);
    assert_ok(token_source_open(t, "t", SPECIAL_ALLOWED, &s));
    assert_ok(s.open(s.context, &e));
    assert_ok(s.encode(e, (const u8 *)"<|endoftext|>", 13, &ids, &n));
    assert_true(n == 1 && ids[0] == s.eos);
    s.close(e);
    token_source_close(&s);
    tokenizer_close(t);

    assert_ok(bpe_trainer_open(
        &(bpe_options){.vocab = 257, .specials = others, .special_count = 1, .threads = 1}, &b));
    assert_ok(bpe_trainer_add(b, "x", 1));
    assert_ok(bpe_trainer_finish(b, &t, NULL));
    bpe_trainer_close(b);
    assert_fails(token_source_open(t, "other.json", SPECIAL_PLAIN, &s), ERR_INPUT,
                 "other.json: it has no end of text (<|endoftext|>, <|end_of_text|>, </s> or <eos>); "
                 "documents need one: add it to added_tokens");
    tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_folder_of_text, setup, teardown),
        cmocka_unit_test(test_token_source),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

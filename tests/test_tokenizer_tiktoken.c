/* .tiktoken files: ranks to merges, families, refusals with their whole message; chat layouts. */
#include "base/file.h"
#include "text/byte_alphabet.h"
#include "text/chat.h"
#include "text/compare.h"
#include "text_case.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const tiktoken_options small = {"gpt2", (const char *const[]){"<s>", "</s>"}, 2};

/* a b c ab bc abc, and " a": ranks with a hole. */
static const char ranks[] = "YQ== 0\nYg== 1\nYw== 2\nIA== 9\r\n\nYWI= 4\nYmM= 3\nYWJj 6\nIGE= 7";

static void assert_ids(const tokenizer *t, const char *text, const char *wanted)
{
    token_list ids = {0};
    char got[200] = "";
    assert_ok(tokenizer_encode(t, text, strlen(text), SPECIAL_ALLOWED, &ids));
    for (i64 i = 0; i < ids.count; i++) sprintf(got + strlen(got), "%d ", (int)ids.id[i]);
    assert_string_equal(got, wanted);
    token_list_free(&ids);
}

static void test_ranks(void **state)
{
    (void)state;
    tokenizer *t, *again;
    char path[] = "/tmp/keel-tiktoken-XXXXXX";
    assert_ok(tokenizer_parse_tiktoken(ranks, sizeof ranks - 1, "r", &small, &t));
    assert_int_equal(tokenizer_vocab(t), 12); // 0 ... 9, and two specials behind them
    assert_int_equal(tokenizer_special(t, "</s>"), 11);
    assert_int_equal(tokenizer_merges(t), 5); // bc, ab, abc twice, " a"
    assert_ids(t, "abc ab", "6 9 4 ");        // a whole piece; ab (4) before " a" (7)
    assert_ids(t, "abcb", "6 1 ");            // bc (3), then a bc (6)
    tokenizer_close(t);
    assert_int_equal(close(mkstemp(path)), 0);
    assert_ok(tokenizer_parse_tiktoken(ranks, sizeof ranks - 1, "r", &small, &t));
    assert_ok(tokenizer_save(t, path));
    assert_ok(tokenizer_open(path, &again));
    assert_true(tokenizer_hash(t) == tokenizer_hash(again));
    assert_ids(again, "abc ab", "6 9 4 ");
    tokenizer_close(again);
    tokenizer_close(t);
    assert_int_equal(unlink(path), 0);
}

/* A family is told by its number of ranks: here 50,256 of them made up. */
static char *made_up(i64 n, size_t *bytes)
{
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    text t = {0};
    for (i64 i = 0; i < n; i++)
        text_add(&t, "%c%c%c%c %lld\n", digit[i >> 18 & 63], digit[i >> 12 & 63], digit[i >> 6 & 63],
                 digit[i & 63], (long long)i);
    *bytes = t.bytes;
    return t.data;
}

static void test_families(void **state)
{
    (void)state;
    static const struct {
        i64 ranks, vocab;
        const char *pattern, *special;
        i32 id;
        bool nfc;
    } family[] = {{50256, 50257, "gpt2", "<|endoftext|>", 50256, false},
                  {100256, 100277, "cl100k", "<|endofprompt|>", 100276, false},
                  {199998, 200019, "o200k", "<|endoftext|>", 199999, false},
                  {128000, 128256, "llama3", "<|eot_id|>", 128009, false},
                  {128000, 128256, "llama3", "<|reserved_special_token_4|>", 128008, false},
                  {128000, 128256, "llama3", "<|reserved_special_token_250|>", 128255, false},
                  {151643, 151646, "qwen2", "<|im_end|>", 151645, true}};
    for (i64 i = 0; i < COUNT(family); i++) {
        size_t n;
        char *data = made_up(family[i].ranks, &n);
        tokenizer *t;
        assert_true(tokenizer_is_tiktoken(data, n));
        assert_ok(tokenizer_parse_tiktoken(data, n, "f", &(tiktoken_options){0}, &t));
        assert_int_equal(tokenizer_vocab(t), family[i].vocab);
        assert_string_equal(tokenizer_pattern(t), family[i].pattern);
        assert_int_equal(tokenizer_special(t, family[i].special), family[i].id);
        assert_int_equal(tokenizer_nfc(t), family[i].nfc);
        tokenizer_close(t);
        text_free(&(text){data, n, n});
    }
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *data, *message;
    } row[] = {
        {"", "r: no line \"base64 rank\" in it"},
        {"\n\n", "r: no line \"base64 rank\" in it"},
        {"YQ== 0\nYg==\n", "r:2: 'Yg==' is no \"base64 rank\""},
        {"YQ== 0\n 1\n", "r:2: ' 1' is no \"base64 rank\""},
        {"YQ== x\n", "r:1: 'YQ== x' is no \"base64 rank\""},
        {"YQ== 0 1\n", "r:1: 'YQ== 0 1' is no \"base64 rank\""},
        {"YQ== 99999999999999999999\n", "r:1: 'YQ== 99999999999999999999' is no \"base64 rank\""},
        {"YQ== -1\n", "r:1: the rank -1; ranks are 0 to 16777215"},
        {"YQ== 16777216\n", "r:1: the rank 16777216; ranks are 0 to 16777215"},
        {"YQ= 0\n", "r:1: 'YQ=' is no base64"},
        {"Y*== 0\n", "r:1: 'Y*==' is no base64"},
        {"YR== 0\n", "r:1: 'YR==' is no base64"}, // bits left over
        {"==== 0\n", "r:1: '====' is no base64"},
        {"YQ== 0\nYg== 0\n", "r: two tokens have the rank 0"},
        {"YQ== 0\nYQ== 1\n", "r: the ranks 0 and 1 are of one token"},
        {"YQ== 16777214\n", "r: more than 16777216 ids with the special tokens"},
    };
    tokenizer *t;
    for (i64 i = 0; i < COUNT(row); i++)
        assert_fails(tokenizer_parse_tiktoken(row[i].data, strlen(row[i].data), "r", &small, &t), ERR_FORMAT,
                     row[i].message);
    assert_fails(
        tokenizer_parse_tiktoken("YQ== 0\n", 7, "r", &(tiktoken_options){0}, &t), ERR_FORMAT,
        "r: 1 ranks are no family Keel knows (r50k 50256, p50k 50280, cl100k 100256, o200k 199998, Llama 3 "
        "128000, Qwen 151643): make a tokenizer.json with 'keel tokenizer convert --pattern NAME --special "
        "TOKEN'");
    assert_fails(tokenizer_parse_tiktoken("YQ== 0\n", 7, "r",
                                          &(tiktoken_options){"gpt2", (const char *const[]){"<s>", "<s>"}, 2},
                                          &t),
                 ERR_CONFIG, "special token '<s>' is given twice");
    size_t n;
    char *data = made_up(50255, &n); // one short of r50k, and rank 50256 taken: the special token's
    text more = {0};
    text_add(&more, "%sAAAAAAAA 50256\n", data);
    assert_fails(tokenizer_parse_tiktoken(more.data, more.bytes, "r", &(tiktoken_options){0}, &t), ERR_FORMAT,
                 "r: the rank 50256 is that of the special token <|endoftext|>");
    text_free(&(text){data, n, n});
    more.bytes = 0;
    for (int i = 0; i < 400; i++) text_add(&more, "YWFh");
    text_add(&more, " 0\n");
    assert_fails(tokenizer_parse_tiktoken(more.data, more.bytes, "r", &small, &t), ERR_FORMAT,
                 "r:1: a token of 1200 bytes; at most 1024");
    text_free(&more);
    assert_false(tokenizer_is_tiktoken("{\"a\": 1}", 8));
    assert_false(tokenizer_is_tiktoken("", 0));
    assert_false(tokenizer_is_tiktoken("word word", 9));
    assert_false(tokenizer_is_tiktoken("YQ== ", 5));
}

/* ---- chat */

static tokenizer *chat_tokenizer(const char *const *specials, i64 n)
{
    return train_with(
        (bpe_options){.vocab = 256 + n, .specials = specials, .special_count = n, .min_frequency = 1}, "x", 1,
        NULL);
}

/* The ids as text again. */
static void assert_chat(const tokenizer *t, const chat_message *m, i64 n, bool answer, const char *wanted,
                        i64 specials)
{
    encoder *e;
    token_list ids = {0};
    i64 got = 0;
    assert_ok(encoder_open(t, &e));
    assert_ok(chat_encode(chat_layout_of(t), e, m, n, answer, &ids));
    assert_decodes(t, &ids, wanted, strlen(wanted));
    for (i64 i = 0; i < ids.count; i++)
        for (i64 k = 0; k < tokenizer_added(t); k++) got += tokenizer_added_at(t, k)->id == ids.id[i];
    assert_int_equal(got, specials);
    token_list_free(&ids);
    encoder_close(e);
}

static void test_chat(void **state)
{
    (void)state;
    static const char *const chatml[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
    static const char *const llama3[] = {"<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
                                         "<|eot_id|>"};
    chat_message m[] = {{"system", 6, "be brief", 8}, {"user", 4, " <|im_end|> Hi \n", 16}};
    tokenizer *t = chat_tokenizer(chatml, 3);
    assert_string_equal(chat_layout_of(t)->name, "chatml");
    assert_chat(t, m, 2, true,
                "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\n <|im_end|> Hi \n<|im_end|>\n"
                "<|im_start|>assistant\n",
                5); // what the user wrote is no special token
    encoder *e;
    token_list ids = {0};
    assert_ok(encoder_open(t, &e));
    m[1].role_bytes = 0;
    const char *role =
        "the role of a message is no word of 1 to 64 letters: system, user and assistant are usual";
    assert_fails(chat_encode(chat_layout_of(t), e, m, 2, false, &ids), ERR_INPUT, role);
    m[1].role = "a\nb", m[1].role_bytes = 3;
    assert_fails(chat_encode(chat_layout_of(t), e, m, 2, false, &ids), ERR_INPUT, role);
    assert_int_equal(ids.count, 0);
    token_list_free(&ids);
    encoder_close(e);
    tokenizer_close(t);

    t = chat_tokenizer(llama3, 4);
    m[1] = (chat_message){"user", 4, " \n Hi \xE3\x80\x80\n", 10};
    assert_string_equal(chat_layout_of(t)->name, "llama3");
    assert_chat(t, m, 2, true,
                "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nbe brief<|eot_id|>"
                "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_"
                "header_id|>\n\n",
                9);
    m[1] = (chat_message){"user", 4, " \n ", 3};
    assert_chat(t, m + 1, 1, false, "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n<|eot_id|>",
                4);
    tokenizer_close(t);
    t = chat_tokenizer(llama3, 3);
    assert_null(chat_layout_of(t));
    tokenizer_close(t);
}

/* ---- compare */

static void test_fertility(void **state)
{
    (void)state;
    tokenizer *t = train_on(
        "low low low low low lower lower newest newest newest newest newest newest widest widest widest", 1,
        271);
    encoder *e;
    fertility f = {0};
    i64 shared;
    u8 used[271] = {0};
    const char text[] = "low low  newest\xC3\xA9 \xE3\x80\x80widest\n";
    assert_ok(encoder_open(t, &e));
    assert_ok(fertility_add(&f, e, t, text, sizeof text - 1, used));
    assert_int_equal(f.bytes, sizeof text - 1);
    assert_int_equal(f.words, 4);
    assert_int_equal(f.characters, 25);
    assert_int_equal(f.whole, 3); // all but newest + e acute, the longest token being newest
    i64 ids = 0;
    for (int i = 0; i < 271; i++) ids += used[i];
    assert_true(ids > 5 && ids <= f.tokens);
    assert_ok(tokenizer_shared(t, t, &shared));
    assert_int_equal(shared, tokenizer_vocab(t));
    encoder_close(e);
    tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_ranks), cmocka_unit_test(test_families),
                                       cmocka_unit_test(test_refusals), cmocka_unit_test(test_chat),
                                       cmocka_unit_test(test_fertility)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

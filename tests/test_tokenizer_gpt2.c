/* GPT-2's own tokenizer, where its tokenizer.json is at hand: KEEL_GPT2_TOKENIZER=FILE. Skipped (77)
 * otherwise. */
#include "text/tokenizer.h"
#include "base/text.h"
#include "check.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct vector {
    const char *text;
    i32 ids[24]; // ended by -1
} vectors[] = {
    {"hello world", {31373, 995, -1}},
    {"0", {15, -1}},
    {"00", {405, -1}},
    {"000", {830, -1}},
    {"0000", {2388, -1}},
    {"00000", {20483, -1}},
    {"000000", {10535, -1}},
    {"0000000", {24598, -1}},
    {"00000000", {8269, -1}},
    {"000000000", {10535, 830, -1}},
    {"0000000000", {8269, 405, -1}},
    {"0000000000000000", {25645, -1}},
    {"00000000000000000", {8269, 10535, 830, -1}},
    {"", {-1}},
    {"Hello, world!", {15496, 11, 995, 0, -1}},
    {"Hello", {15496, -1}},
    {" Hello", {18435, -1}},
    {" ", {220, -1}},
    {"  ", {220, 220, -1}},
    {"\n", {198, -1}},
    {"\n\n", {628, -1}},
    {"\n\n\n", {628, 198, -1}},
    {"\t", {197, -1}},
    {"\r\n", {201, 198, -1}},
    {"a\n b", {64, 198, 275, -1}},
    {"a  b", {64, 220, 275, -1}},
    {"I'm don't you'll we've they're he'd it's",
     {40, 1101, 836, 470, 345, 1183, 356, 1053, 484, 821, 339, 1549, 340, 338, -1}},
    {"I'M DON'T", {40, 6, 44, 23917, 6, 51, -1}},
    {"3.14159", {18, 13, 1415, 19707, -1}},
    {"2024-01-31", {1238, 1731, 12, 486, 12, 3132, -1}},
    {"1234567", {10163, 2231, 3134, -1}},
    {"def f(x):\n    return x*x\n", {4299, 277, 7, 87, 2599, 198, 220, 220, 220, 1441, 2124, 9, 87, 198, -1}},
    {"café", {66, 1878, 2634, -1}},
    {"naïve", {2616, 38776, -1}},
    {"中文", {40792, 23877, 229, -1}},
    {"日本語", {33768, 98, 17312, 105, 45739, 252, -1}},
    {"한국어", {47991, 250, 166, 113, 255, 168, 244, 112, -1}},
    {"русский", {21169, 35072, 21727, 21727, 31583, 18849, 140, 117, -1}},
    {"👍", {41840, 235, -1}},
    {"🚀 (normal) 😶‍🌫️",
     {8582, 248, 222, 357, 11265, 8, 30325, 114, 447, 235, 8582, 234, 104, 37929, -1}},
    {"\xC2\xA0", {1849, -1}},
    {"\xE3\x80\x80", {5099, 222, -1}},
    {"\xC2\x85", {126, 227, -1}},
    {"\xEF\xBF\xBD", {4210, -1}},
    {" \xC2\x85"
     "0",
     {220, 126, 227, 15, -1}},
    {"The quick brown fox jumps over the lazy dog.",
     {464, 2068, 7586, 21831, 18045, 625, 262, 16931, 3290, 13, -1}},
    {"Once upon a time", {7454, 2402, 257, 640, -1}},
    {"antidisestablishmentarianism", {415, 29207, 44390, 3699, 1042, -1}},
    {"''''''", {39115, 7061, -1}},
    {"<|endoftext|>", {27, 91, 437, 1659, 5239, 91, 29, -1}},
};

static void assert_ids(tokenizer *t, const char *text, special_mode mode, const i32 *wanted)
{
    token_list ids = {0};
    i64 n = 0;
    while (wanted[n] >= 0) n++;
    assert_ok(tokenizer_encode(t, text, strlen(text), mode, &ids));
    if (ids.count != n || (n && memcmp(ids.id, wanted, (size_t)n * sizeof(i32)))) fail_msg("'%s'", text);
    token_list_free(&ids);
}

static void test_vectors(void **state)
{
    tokenizer *t = *state;
    assert_int_equal(tokenizer_vocab(t), 50257);
    assert_int_equal(tokenizer_special(t, "<|endoftext|>"), 50256);
    for (i64 i = 0; i < COUNT(vectors); i++) assert_ids(t, vectors[i].text, SPECIAL_PLAIN, vectors[i].ids);
    assert_ids(t, "hello <|endoftext|>", SPECIAL_ALLOWED, (i32[]){31373, 220, 50256, -1});
}

/* Written and read again it is the same tokenizer. */
static void test_rewritten(void **state)
{
    char path[] = "/tmp/keel-gpt2-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    tokenizer *t = *state, *again;
    assert_ok(tokenizer_save(t, path));
    assert_ok(tokenizer_open(path, &again));
    remove(path);
    assert_int_equal(tokenizer_hash(again), tokenizer_hash(t));
    for (i64 i = 0; i < COUNT(vectors); i++)
        assert_ids(again, vectors[i].text, SPECIAL_PLAIN, vectors[i].ids);
    tokenizer_close(again);
}

/* Its ranks as a .tiktoken file: the family is found, and the ids are the same though merges are made of
 * ranks. */
static void test_tiktoken(void **state)
{
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    tokenizer *t = *state, *again;
    text file = {0};
    for (i32 id = 0; id < 50256; id++) {
        token_bytes b = tokenizer_decode(t, id);
        for (size_t i = 0; i < b.bytes; i += 3) {
            u32 bits = 0;
            const size_t n = MIN(b.bytes - i, (size_t)3);
            for (size_t k = 0; k < 3; k++) bits = bits << 8 | (k < n ? (u8)b.data[i + k] : 0);
            for (size_t k = 0; k < 4; k++)
                text_add(&file, "%c", k <= n ? digit[bits >> (18 - 6 * k) & 63] : '=');
        }
        text_add(&file, " %d\n", (int)id);
    }
    assert_ok(
        tokenizer_parse_tiktoken(file.data, file.bytes, "gpt2.tiktoken", &(tiktoken_options){0}, &again));
    assert_int_equal(tokenizer_vocab(again), 50257);
    for (i64 i = 0; i < COUNT(vectors); i++)
        assert_ids(again, vectors[i].text, SPECIAL_PLAIN, vectors[i].ids);
    token_list a = {0}, b = {0}; // and on a longer text: the file itself
    assert_ok(tokenizer_encode(t, file.data, file.bytes, SPECIAL_PLAIN, &a));
    assert_ok(tokenizer_encode(again, file.data, file.bytes, SPECIAL_PLAIN, &b));
    assert_int_equal(a.count, b.count);
    assert_memory_equal(a.id, b.id, (size_t)a.count * sizeof(i32));
    token_list_free(&a);
    token_list_free(&b);
    text_free(&file);
    tokenizer_close(again);
}

static int open_it(void **state)
{
    return tokenizer_open(getenv("KEEL_GPT2_TOKENIZER"), (tokenizer **)state) ? -1 : 0;
}

static int close_it(void **state)
{
    tokenizer_close(*state);
    return 0;
}

int main(void)
{
    if (!getenv("KEEL_GPT2_TOKENIZER")) {
        fprintf(stderr, "skipped: set KEEL_GPT2_TOKENIZER to GPT-2's tokenizer.json to run this test\n");
        return 77;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_vectors), cmocka_unit_test(test_rewritten),
                                       cmocka_unit_test(test_tiktoken)};
    return cmocka_run_group_tests(tests, open_it, close_it);
}

/* tokenizer.json: written and read back; foreign and damaged files, each refused with its whole message. */
#include "base/file.h"
#include "text/tokenizer_impl.h"
#include "text_case.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char folder[] = "/tmp/keel-tokenizer-XXXXXX";

static const char *at(const char *name)
{
    static char path[300];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void assert_same(const tokenizer *a, const tokenizer *b)
{
    assert_int_equal(tokenizer_hash(a), tokenizer_hash(b));
    assert_int_equal(a->vocab, b->vocab);
    assert_int_equal(a->merges, b->merges);
    assert_int_equal(a->added_count, b->added_count);
    assert_int_equal(a->whole_piece, b->whole_piece);
    assert_memory_equal(a->merge, b->merge, (size_t)a->merges * sizeof *a->merge);
    assert_memory_equal(a->spelled, b->spelled, (size_t)a->vocab);
    for (i64 i = 0; i < a->vocab; i++) {
        assert_int_equal(a->token[i].bytes, b->token[i].bytes);
        if (a->token[i].data) assert_memory_equal(a->token[i].data, b->token[i].data, a->token[i].bytes);
    }
    for (i64 i = 0; i < a->added_count; i++) {
        assert_int_equal(a->added[i].id, b->added[i].id);
        assert_int_equal(a->added[i].special, b->added[i].special);
        assert_int_equal(a->added[i].normalized, b->added[i].normalized);
        assert_string_equal(a->added[i].content, b->added[i].content);
    }
    assert_true(json_equal(a->shell, b->shell));
}

static void test_write_and_read(void **state)
{
    (void)state;
    static char text[1 << 20];
    static const char *const specials[] = {"<|endoftext|>", "<\"\\\n>", "\xC3\xA9 x"};
    random_text(1, text, sizeof text);
    for (i64 i = 0; i < pattern_count(); i++) {
        tokenizer *t = train_with((bpe_options){.vocab = 900,
                                                .pattern = pattern_at(i)->name,
                                                .specials = specials,
                                                .special_count = 3},
                                  text, sizeof text, NULL),
                  *again;
        assert_ok(tokenizer_save(t, at("a.json")));
        assert_ok(tokenizer_open(at("a.json"), &again));
        assert_string_equal(tokenizer_pattern(again), pattern_at(i)->name);
        assert_same(t, again);
        token_list a = {0}, b = {0};
        assert_ok(tokenizer_encode(t, text, sizeof text, SPECIAL_ALLOWED, &a));
        assert_ok(tokenizer_encode(again, text, sizeof text, SPECIAL_ALLOWED, &b));
        assert_int_equal(a.count, b.count);
        assert_memory_equal(a.id, b.id, (size_t)a.count * sizeof(i32));
        token_list_free(&a);
        token_list_free(&b);
        tokenizer_close(t);
        tokenizer_close(again);
    }
}

/* A file of a few tokens, in which a test replaces one part. Bytes but a, b and blank are missing. */
static const char around[] =
    "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,"
    "\"added_tokens\":[{\"id\":9,\"content\":\"<s>\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"
    "\"normalized\":false,\"special\":true},{\"id\":7,\"content\":\"  "
    "\",\"special\":false,\"normalized\":true}],"
    "\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":"
    "true},"
    "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[]},\"decoder\":{\"type\":\"ByteLevel\"},"
    "\"model\":{\"type\":\"BPE\",\"unk_token\":null,\"ignore_merges\":false,"
    "\"vocab\":{\"a\":0,\"b\":1,\"\xC4\xA0\":2,\"ab\":3,\"abb\":4},\"merges\":[\"a b\",\"ab b\"]}}";

static status parse_with(const char *from, const char *to, tokenizer **out)
{
    static char json[4096];
    const char *place = strstr(around, from);
    assert_non_null(place);
    snprintf(json, sizeof json, "%.*s%s%s", (int)(place - around), around, to, place + strlen(from));
    return tokenizer_parse(json, strlen(json), "t.json", out);
}

static void encode_into(const tokenizer *t, const char *text, special_mode mode, token_list *ids)
{
    ids->count = 0;
    assert_ok(tokenizer_encode(t, text, strlen(text), mode, ids));
}

static void test_small_file(void **state)
{
    (void)state;
    tokenizer *t, *again;
    token_list ids = {0};
    assert_ok(parse_with("", "", &t));
    assert_int_equal(tokenizer_vocab(t), 10); // ids may be sparse, and lie behind the vocabulary
    assert_null(tokenizer_decode(t, 5).data);
    assert_int_equal(tokenizer_special(t, "<s>"), 9);
    encode_into(t, "abb  a<s>", SPECIAL_ALLOWED, &ids);
    static const i32 wanted[] = {4, 7, 0, 9};
    assert_int_equal(ids.count, 4);
    assert_memory_equal(ids.id, wanted, sizeof wanted);
    encode_into(t, "b  ", SPECIAL_PLAIN, &ids); // added but not special: found in plain text too
    assert_int_equal(ids.count, 2);
    assert_int_equal(ids.id[1], 7);
    assert_fails(tokenizer_encode(t, "abc", 3, SPECIAL_PLAIN, &ids), ERR_INPUT,
                 "the vocabulary has no token for the byte 0x63: use a tokenizer with all 256 bytes");
    assert_int_equal(ids.count, 2);
    assert_fails(tokenizer_encode(t, "ab abc", 6, SPECIAL_PLAIN, &ids), ERR_INPUT,
                 "the vocabulary has no token for the byte 0x63: use a tokenizer with all 256 bytes");
    assert_int_equal(ids.count, 2); // the piece before it is taken back
    assert_ok(tokenizer_save(t, at("small.json")));
    assert_ok(tokenizer_open(at("small.json"), &again));
    assert_same(t, again);
    tokenizer_close(again);

    assert_ok(
        parse_with("[\"a b\",\"ab b\"]", "[[\"a\",\"b\"],[\"ab\",\"b\"]]", &again)); // the other spelling
    assert_same(t, again);
    tokenizer_close(again);
    tokenizer_close(t);

    assert_ok(parse_with("\"merges\":[\"a b\",\"ab b\"]", "\"merges\":[]", &t));
    encode_into(t, "abb", SPECIAL_PLAIN, &ids);
    assert_int_equal(ids.count, 3);
    u64 hash = tokenizer_hash(t);
    tokenizer_close(t);
    assert_ok(parse_with(
        "\"ignore_merges\":false,\"vocab\":{\"a\":0,\"b\":1,\"\xC4\xA0\":2,\"ab\":3,\"abb\":4},\"merges\":["
        "\"a b\",\"ab b\"]",
        "\"ignore_merges\":true,\"vocab\":{\"a\":0,\"b\":1,\"\xC4\xA0\":2,\"ab\":3,\"abb\":4},\"merges\":[]",
        &t));
    encode_into(t, "abb", SPECIAL_PLAIN, &ids); // a piece that is a token needs no merges
    assert_int_equal(ids.count, 1);
    assert_int_equal(ids.id[0], 4);
    assert_true(hash != tokenizer_hash(t));
    tokenizer_close(t);
    static char json[4096]; // the same with 'abb' as a special token: plain text does not become one
    const char *id = strstr(around, "9,\"content\":\"<s>\""), *model = strstr(around, "\"ignore_merges\"");
    snprintf(json, sizeof json, "%.*s4,\"content\":\"abb\"%.*s\"ignore_merges\":true,%s", (int)(id - around),
             around, (int)(model - id - 17), id + 17, strstr(model, "\"vocab\""));
    char *merges = strstr(json, "\"a b\",\"ab b\"");
    memset(merges, ' ', 12);
    assert_ok(tokenizer_parse(json, strlen(json), "t.json", &t));
    encode_into(t, "abb", SPECIAL_PLAIN, &ids);
    assert_int_equal(ids.count, 3);
    encode_into(t, "abb", SPECIAL_ALLOWED, &ids);
    assert_int_equal(ids.count, 1);
    tokenizer_close(t);
    token_list_free(&ids);
}

/* The ids, as digits, of TEXT by the file AROUND with one part replaced. */
static void encodes(const char *from, const char *to, const char *text, const char *wanted)
{
    tokenizer *t;
    token_list ids = {0};
    char got[200] = "";
    assert_ok(parse_with(from, to, &t));
    encode_into(t, text, SPECIAL_ALLOWED, &ids);
    for (i64 i = 0; i < ids.count; i++) sprintf(got + strlen(got), "%d ", (int)ids.id[i]);
    if (strcmp(got, wanted)) fail_msg("%s: '%s' gives %s", to, text, got);
    token_list_free(&ids);
    tokenizer_close(t);
}

/* Pre-tokenizers one behind the other: each cuts the pieces of the one before. */
static void test_stages(void **state)
{
    (void)state;
    static const char from[] = "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}";
    static const char none[] = "{\"type\":\"ByteLevel\",\"use_regex\":false}";
    static const struct {
        const char *list, *text, *ids;
    } row[] = {
        {"", "abbab", "4 3 "},
        {"{\"type\":\"Split\",\"pattern\":{\"Regex\":\"bb\"},\"behavior\":\"Isolated\"},", "abbab",
         "0 1 1 3 "},
        {"{\"type\":\"Split\",\"pattern\":{\"String\":\"bb\"},\"behavior\":\"Isolated\"},"
         "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a(?=b)\"},\"behavior\":\"Isolated\"},",
         "abbab", "0 1 1 0 1 "}, // the look-ahead of the second sees one piece: "a", then "ab"
        {"{\"type\":\"Split\",\"pattern\":{\"String\":\".b\"},\"behavior\":\"Isolated\"},", "abbab", "4 3 "},
    };
    for (i64 i = 0; i < COUNT(row); i++) {
        char to[600];
        snprintf(to, sizeof to, "{\"type\":\"Sequence\",\"pretokenizers\":[%s%s]}", row[i].list, none);
        encodes(from, to, row[i].text, row[i].ids);
    }
    encodes("\"use_regex\":true", "\"use_regex\":false", "a ba",
            "0 2 1 0 "); // one piece: the blank is its own token
}

/* Flags of added tokens, checked against the reference (HF tokenizers 0.23) on the same file. */
static void test_added_flags(void **state)
{
    (void)state;
    encodes("\"lstrip\":false", "\"lstrip\":true", "a \t\n<s> b", "0 9 2 1 ");
    encodes("\"rstrip\":false", "\"rstrip\":true", "a <s> \xE2\x80\x83 b", "0 2 9 1 ");
    encodes("\"rstrip\":false", "\"rstrip\":true", "<s>   b", "9 1 ");
    encodes("\"rstrip\":false,\"normalized\":false,\"special\":true},{\"id\":7,\"content\":\"  "
            "\",\"special\":false,\"normalized\":true}",
            "\"rstrip\":true,\"normalized\":false,\"special\":true},{\"id\":7,\"content\":\"  "
            "\",\"special\":false,\"normalized\":false}",
            "<s>   b", "9 7 2 1 "); // the reference's way: a token in swallowed white space is found again
    encodes("\"single_word\":false", "\"single_word\":true", "a <s> b", "0 2 9 2 1 ");
    encodes("\"content\":\"<s>\",\"single_word\":false", "\"content\":\"aa\",\"single_word\":true",
            "aab aa aaa", "0 3 2 9 2 0 0 0 ");
}

static const char nfc_file[] =
    "{\"version\":\"1.0\",\"added_tokens\":[{\"id\":5,\"content\":\"A\xCC\x8A\",\"normalized\":true},{\"id\":"
    "6,"
    "\"content\":\"B\xCC\x8A\",\"normalized\":false}],\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":{"
    "\"type\":"
    "\"ByteLevel\",\"add_prefix_space\":false},\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":"
    "\"BPE\","
    "\"vocab\":{\"\xC3\x83\":0,\"\xC2\xA9\":1,\"\xC3\x83\xC2\xA9\":2,\"e\":3,\"x\":4},\"merges\":[\"\xC3\x83 "
    "\xC2\xA9\"]}}";

static void test_nfc(void **state)
{
    (void)state;
    tokenizer *t, *again;
    token_list ids = {0};
    assert_ok(tokenizer_parse(nfc_file, sizeof nfc_file - 1, "n.json", &t));
    assert_true(tokenizer_nfc(t));
    // e + acute, precomposed; the Angstrom sign and A + ring: one token, normalized; B + ring as it is
    encode_into(t,
                "e\xCC\x81x\xC3\xA9\xE2\x84\xAB"
                "A\xCC\x8A"
                "B\xCC\x8A",
                SPECIAL_PLAIN, &ids);
    static const i32 wanted[] = {2, 4, 2, 5, 5, 6};
    assert_int_equal(ids.count, COUNT(wanted));
    assert_memory_equal(ids.id, wanted, sizeof wanted);
    assert_ok(tokenizer_save(t, at("nfc.json")));
    assert_ok(tokenizer_open(at("nfc.json"), &again));
    assert_same(t, again);
    token_list_free(&ids);
    tokenizer_close(t);
    tokenizer_close(again);
}

/* Two contents that differ anywhere have two hashes. */
static void test_hash(void **state)
{
    (void)state;
    static const char *const change[][2] = {{"", ""},
                                            {"\"ab b\"", "\"a bb\""},
                                            {"\"id\":9", "\"id\":8"},
                                            {"<s>", "<t>"},
                                            {"[\"a b\",\"ab b\"]", "[\"ab b\",\"a b\"]"},
                                            {"\"special\":true", "\"special\":false"},
                                            {"\"abb\":4", "\"abb\":5"},
                                            {"\"ignore_merges\":false", "\"ignore_merges\":true"},
                                            {"\"normalizer\":null", "\"normalizer\":{\"type\":\"NFC\"}"},
                                            {"\"lstrip\":false", "\"lstrip\":true"},
                                            {"\"rstrip\":false", "\"rstrip\":true"},
                                            {"\"single_word\":false", "\"single_word\":true"},
                                            {"\"use_regex\":true", "\"use_regex\":false"}};
    u64 hash[COUNT(change)];
    for (i64 i = 0; i < COUNT(change); i++) {
        tokenizer *t;
        const char *from = change[i][0], *to = change[i][1];
        if (i == 1)
            from = "\"abb\":4},\"merges\":[\"a b\",\"ab b\"]",
            to = "\"abb\":4,\"bb\":5},\"merges\":[\"a b\",\"a bb\"]";
        assert_ok(parse_with(from, to, &t));
        hash[i] = tokenizer_hash(t);
        for (i64 j = 0; j < i; j++) assert_true(hash[i] != hash[j]);
        tokenizer_close(t);
    }
}

static const struct refusal {
    const char *from, *to, *message; // the message behind "t.json: "
} refusals[] = {
    {"\"BPE\"", "\"Unigram\"", "model.type 'Unigram' is not supported; byte-level BPE is"},
    {"\"BPE\"", "\"WordPiece\"", "model.type 'WordPiece' is not supported; byte-level BPE is"},
    {"\"BPE\"", "7", "model.type '(none)' is not supported; byte-level BPE is"},
    {"\"unk_token\":null", "\"byte_fallback\":true", "model.byte_fallback is set, which is not supported"},
    {"\"unk_token\":null", "\"dropout\":0.1", "model.dropout is set, which is not supported"},
    {"\"unk_token\":null", "\"end_of_word_suffix\":\"</w>\"",
     "model.end_of_word_suffix is set, which is not supported"},
    {"\"unk_token\":null", "\"continuing_subword_prefix\":\"##\"",
     "model.continuing_subword_prefix is set, which is not supported"},
    {"\"unk_token\":null", "\"unk_token\":\"<s>\"",
     "model.unk_token '<s>' is not supported in a vocabulary that lacks bytes (0x00)"},
    {"\"unk_token\":null", "\"magic\":1", "model has the field 'magic', which Keel does not know"},
    {"\"version\":\"1.0\"", "\"version\":\"2.0\"", "version is '2.0'; Keel reads 1.0"},
    {"\"version\":\"1.0\"", "\"spare\":1", "the file has the field 'spare', which Keel does not know"},
    {"\"truncation\":null", "\"truncation\":{\"max_length\":5}", "truncation is set, which is not supported"},
    {"\"padding\":null", "\"padding\":{}", "padding is set, which is not supported"},
    {"\"normalizer\":null", "\"normalizer\":{\"type\":\"NFD\"}",
     "normalizer.type 'NFD' is not supported; NFC and null are"},
    {"\"normalizer\":null",
     "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":\"Lowercase\"}]}",
     "normalizer.normalizers[1].type 'Lowercase' is not supported; NFC is"},
    {"\"decoder\":{\"type\":\"ByteLevel\"}", "\"decoder\":{\"type\":\"Metaspace\"}",
     "decoder.type 'Metaspace' is not supported; ByteLevel is"},
    {"TemplateProcessing", "BertProcessing",
     "post_processor.type 'BertProcessing' is not supported; ByteLevel, TemplateProcessing and null are"},
    {"\"add_prefix_space\":false", "\"add_prefix_space\":true",
     "pre_tokenizer.add_prefix_space is true, which is not supported"},
    {"\"pre_tokenizer\":{\"type\":\"ByteLevel\"", "\"pre_tokenizer\":{\"type\":\"Metaspace\"",
     "pre_tokenizer.type 'Metaspace' is not supported; ByteLevel, and a Sequence of Split, Digits, "
     "Punctuation "
     "and ByteLevel are"},
    {"{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}",
     "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Metaspace\"},{\"type\":\"ByteLevel\",\"use_"
     "regex\":false}]}",
     "pre_tokenizer.pretokenizers[0].type 'Metaspace' is not supported; ByteLevel, and a Sequence of Split, "
     "Digits, Punctuation and ByteLevel are"},
    {"{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}",
     "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"^x+\"},"
     "\"behavior\":\"Isolated\"},{\"type\":\"ByteLevel\",\"use_regex\":false}]}",
     "pre_tokenizer: pattern '^x+': '^' does not mean the same in every engine: refused"},
    {"{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}",
     "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"x(?<=y)\"},"
     "\"behavior\":\"Isolated\"},{\"type\":\"ByteLevel\",\"use_regex\":false}]}",
     "pre_tokenizer: pattern 'x(?<=y)': '(?<' does not mean the same in every engine: refused"},
    {"{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}",
     "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\h+\"},"
     "\"behavior\":\"Isolated\"},{\"type\":\"ByteLevel\",\"use_regex\":false}]}",
     "pre_tokenizer: pattern '\\h+': '\\h' does not mean the same in every engine: refused"},
    {"{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}",
     "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"x(\"},"
     "\"behavior\":\"Isolated\"},{\"type\":\"ByteLevel\",\"use_regex\":false}]}",
     "pre_tokenizer: pattern 'x(': missing closing parenthesis (near '')"},
    {"{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}",
     "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\"},"
     "\"behavior\":\"Isolated\"},{\"type\":\"ByteLevel\",\"use_regex\":false}]}",
     "pre_tokenizer.pretokenizers[0].pattern has neither a Regex nor a String"},
    {"{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}",
     "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"String\":\"x\"},"
     "\"behavior\":\"Removed\"},{\"type\":\"ByteLevel\",\"use_regex\":false}]}",
     "pre_tokenizer.pretokenizers[0].behavior is not 'Isolated', the one supported"},
    {"{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}",
     "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"String\":\"x\"},"
     "\"behavior\":\"Isolated\",\"invert\":true},{\"type\":\"ByteLevel\",\"use_regex\":false}]}",
     "pre_tokenizer.pretokenizers[0].invert is set, which is not supported"},
    {"{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}",
     "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Punctuation\",\"behavior\":\"Removed\"},{"
     "\"type\":\"ByteLevel\",\"use_regex\":false}]}",
     "pre_tokenizer.pretokenizers[0].behavior is 'Removed'; Isolated and Contiguous are supported"},
    {"{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}",
     "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\",\"use_regex\":false},{\"type\":"
     "\"Digits\"},{\"type\":\"ByteLevel\",\"use_regex\":false}]}",
     "pre_tokenizer.pretokenizers[0] is ByteLevel before the end, which is not supported"},
    {"{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}",
     "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\"}]}",
     "pre_tokenizer.pretokenizers does not end with ByteLevel"},
    {"{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}",
     "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\"},{\"type\":\"Digits\"},{\"type\":"
     "\"Digits\"},{\"type\":\"Digits\"},{\"type\":\"Digits\"},{\"type\":\"Digits\"},{\"type\":\"Digits\"},{"
     "\"type\":\"Digits\"},{\"type\":\"Digits\"},{\"type\":\"ByteLevel\",\"use_regex\":false}]}",
     "pre_tokenizer cuts text more than 8 times, which is not supported"},
    {"\"vocab\":{\"a\":0,", "\"vocab\":{\"a\":-1,", "the id of the token 'a' is -1; ids are 0 to 16777215"},
    {"\"vocab\":{\"a\":0,", "\"vocab\":{\"a\":16777216,",
     "the id of the token 'a' is 16777216; ids are 0 to 16777215"},
    {"\"vocab\":{\"a\":0,", "\"vocab\":{\"a\":0.5,", "the id of the token 'a' is no whole number"},
    {"\"vocab\":{\"a\":0,", "\"vocab\":{\"a\":\"0\",", "the id of the token 'a' is no whole number"},
    {"\"vocab\":{\"a\":0,", "\"vocab\":{\"a\":1,",
     "model.vocab gives the id 1 to two tokens, the second is 'b'"},
    {"\"vocab\":{\"a\":0,", "\"vocab\":{\"\":8,\"a\":0,", "model.vocab has an empty token (id 8)"},
    {"\"a b\",", "\"a c\",", "model.merges[0] ('a' and 'c'): 'c' is no token of model.vocab"},
    {"\"a b\",", "\"b a\",", "model.merges[0] ('b' and 'a'): 'ba' is no token of model.vocab"},
    {"\"a b\",", "\"ab\",", "model.merges[0] is neither \"a b\" nor [\"a\", \"b\"]"},
    {"\"a b\",", "\"a b b\",", "model.merges[0] is neither \"a b\" nor [\"a\", \"b\"]"},
    {"\"a b\",", "[\"a\"],", "model.merges[0] is neither \"a b\" nor [\"a\", \"b\"]"},
    {"\"a b\",", "[\"a\",5],", "model.merges[0] is neither \"a b\" nor [\"a\", \"b\"]"},
    {"\"a b\",", "\"a b\",\"a b\",", "model.merges[1] repeats an earlier merge: remove it"},
    {"\"merges\":[\"a b\",\"ab b\"]", "\"merges\":5", "model.merges is missing or no list"},
    {"\"id\":9", "\"id\":-9", "the id of the added token '<s>' is -9; ids are 0 to 16777215"},
    {"\"id\":9", "\"id\":1e3", "the id of the added token '<s>' is no whole number"},
    {"\"id\":9", "\"id\":7", "added_tokens gives the id 7 twice"},
    {"\"id\":9", "\"id\":3",
     "added_tokens[0] '<s>' has the id 3, but model.vocab gives that to another token"},
    {"\"<s>\"", "\"abb\"", "added_tokens[0] 'abb' has the id 9, but model.vocab gives it another"},
    {"\"<s>\"", "\"  \"", "added_tokens[1] repeats the content '  '"},
    {"\"<s>\"", "\"\"", "added_tokens[0].content is missing or empty"},
    {"\"lstrip\":false", "\"lstrip\":0", "added_tokens[0].lstrip is neither true nor false"},
    {"\"single_word\":false", "\"single_word\":null",
     "added_tokens[0].single_word is neither true nor false"},
    {"\"special\":true", "\"special\":1", "added_tokens[0].special is neither true nor false"},
    {"\"special\":true", "\"spacial\":true",
     "added_tokens[0] has the field 'spacial', which Keel does not know"},
    {"\"model\":{", "\"model\":[],\"spare\":{", "model is no object; expected an object"},
};

static void test_refusals(void **state)
{
    (void)state;
    for (i64 i = 0; i < COUNT(refusals); i++) {
        char wanted[400];
        tokenizer *t;
        status s = parse_with(refusals[i].from, refusals[i].to, &t);
        snprintf(wanted, sizeof wanted, "t.json: %s", refusals[i].message);
        if (!s) fail_msg("accepted: %s", refusals[i].to);
        assert_string_equal(s->message, wanted);
        assert_int_equal(s->code, ERR_FORMAT);
        status_drop(s);
    }
    tokenizer *t;
    assert_fails(tokenizer_parse("{\"a\":", 5, "t.json", &t), ERR_FORMAT,
                 "t.json:1:5: not a tokenizer.json: unexpected token near end of file");
    assert_fails(tokenizer_parse("", 0, "t.json", &t), ERR_FORMAT,
                 "t.json:1:0: not a tokenizer.json: '[' or '{' expected near end of file");
    assert_fails(tokenizer_parse("[]", 2, "t.json", &t), ERR_FORMAT,
                 "t.json: the file is no object; expected an object");
    assert_fails(tokenizer_parse("{\"a\":1,\"a\":2}", 13, "t.json", &t), ERR_FORMAT,
                 "t.json:1:10: not a tokenizer.json: duplicate object key near '\"a\"'");
    char wanted[400];
    snprintf(wanted, sizeof wanted, "%s: cannot open: No such file or directory", at("none.json"));
    assert_fails(tokenizer_open(at("none.json"), &t), ERR_IO, wanted);
}

/* Cut short anywhere, or with any byte changed: a status or a tokenizer that works, never a crash. */
static void test_damage(void **state)
{
    (void)state;
    char json[sizeof around];
    i64 accepted = 0;
    for (size_t n = 0; n < sizeof around - 1; n++) {
        tokenizer *t;
        status s = tokenizer_parse(around, n, "t.json", &t);
        assert_non_null(s);
        status_drop(s);
        for (const char *byte = "0\"}]9 \xFF,:"; *byte; byte++) {
            memcpy(json, around, sizeof json);
            json[n] = *byte;
            s = tokenizer_parse(json, sizeof json - 1, "t.json", &t);
            if (!s) {
                token_list ids = {0};
                accepted++;
                status_drop(tokenizer_encode(t, "abb  <s>b", 9, SPECIAL_ALLOWED, &ids));
                token_list_free(&ids);
                tokenizer_close(t);
            }
            status_drop(s);
        }
    }
    assert_true(accepted > 0);
}

/* Every write, fsync, rename and allocation of save and open made to fail: the old file stays. */
static void test_faults(void **state)
{
    (void)state;
    tokenizer *t, *again;
    assert_ok(parse_with("", "", &t));
    assert_ok(tokenizer_save(t, at("f.json")));
    static const fault_kind kinds[] = {FAULT_WRITE, FAULT_FSYNC, FAULT_RENAME, FAULT_ALLOC};
    for (i64 i = 0; i < COUNT(kinds); i++) {
        i64 failures = 0;
        for (i64 k = 1;; k++) {
            fault_set(kinds[i], k);
            status s = tokenizer_save(t, at("f.json"));
            again = NULL;
            if (!s) s = tokenizer_open(at("f.json"), &again);
            fault_set(kinds[i], 0);
            if (again) tokenizer_close(again);
            if (!s) break;
            failures++;
            status_drop(s);
            assert_ok(tokenizer_open(at("f.json"), &again));
            tokenizer_close(again);
        }
        assert_true(failures > 0);
    }
    tokenizer_close(t);
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    status_drop(tree_remove(folder));
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_write_and_read),
                                       cmocka_unit_test(test_small_file),
                                       cmocka_unit_test(test_stages),
                                       cmocka_unit_test(test_added_flags),
                                       cmocka_unit_test(test_nfc),
                                       cmocka_unit_test(test_hash),
                                       cmocka_unit_test(test_refusals),
                                       cmocka_unit_test(test_damage),
                                       cmocka_unit_test(test_faults)};
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}

/* gguf_import and the tokenizer of a GGUF file: files whose container is sound and whose keys lie, with the
 * whole message; every pattern's pre-tokenizer there and back; what GGUF cannot say of a tokenizer. */
#include "base/file.h"
#include "base/text.h"
#include "check.h"
#include "infer/gguf_parts.h"
#include "text/tokenizer_impl.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[] = "/tmp/keel-gguf-import-XXXXXX";

static const char *in_folder(const char *name)
{
    static char path[2][256];
    static int turn;
    turn = !turn;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
    return path[turn];
}

/* ---- a llama of one block, 8 wide, with six tokens */

static const gguf_string words[] = {{"<|endoftext|>", 13}, {"a", 1},     {"b", 1}, {"ab", 2},
                                    {"\xc4\xa0", 2},       {"[PAD5]", 6}};
static const gguf_string merges[] = {{"a b", 3}};
static const i32 types[] = {3, 1, 1, 1, 1, 5};
#define STRINGS(list, n)                                                                                     \
    ((gguf_value){.kind = KIND_ARRAY, .element = KIND_STRING, .count = (n), .data = (list)})
#define INTEGERS(list, n)                                                                                    \
    ((gguf_value){.kind = KIND_ARRAY, .element = KIND_I32, .count = (n), .data = (list)})

static const gguf_pair keys[] = {
    {"general.architecture", GGUF_TEXT("llama")},
    {"llama.block_count", GGUF_NUMBER(1)},
    {"llama.context_length", GGUF_NUMBER(16)},
    {"llama.embedding_length", GGUF_NUMBER(8)},
    {"llama.feed_forward_length", GGUF_NUMBER(12)},
    {"llama.attention.head_count", GGUF_NUMBER(2)},
    {"llama.attention.head_count_kv", GGUF_NUMBER(1)},
    {"llama.attention.layer_norm_rms_epsilon", GGUF_REAL(1e-6)},
    {"llama.rope.dimension_count", GGUF_NUMBER(4)},
    {"tokenizer.ggml.model", GGUF_TEXT("gpt2")},
    {"tokenizer.ggml.pre", GGUF_TEXT("gpt-2")},
    {"tokenizer.ggml.tokens", STRINGS(words, 6)},
    {"tokenizer.ggml.token_type", INTEGERS(types, 6)},
    {"tokenizer.ggml.merges", STRINGS(merges, 1)},
};
#define MATRIX(n, columns, rows)                                                                             \
    {                                                                                                        \
        .name = n, .type = GGUF_F32, .n_dims = 2, .dims = { columns, rows }                                  \
    }
#define VECTOR(n, count)                                                                                     \
    {                                                                                                        \
        .name = n, .type = GGUF_F32, .n_dims = 1, .dims = { count }                                          \
    }
static const gguf_tensor tensors[] = {
    MATRIX("token_embd.weight", 8, 6),        VECTOR("output_norm.weight", 8),
    VECTOR("blk.0.attn_norm.weight", 8),      MATRIX("blk.0.attn_q.weight", 8, 8),
    MATRIX("blk.0.attn_k.weight", 8, 4),      MATRIX("blk.0.attn_v.weight", 8, 4),
    MATRIX("blk.0.attn_output.weight", 8, 8), VECTOR("blk.0.ffn_norm.weight", 8),
    MATRIX("blk.0.ffn_gate.weight", 8, 12),   MATRIX("blk.0.ffn_up.weight", 8, 12),
    MATRIX("blk.0.ffn_down.weight", 12, 8),
};

/* x.gguf with KEY as VALUE instead, or without it (NULL), and tensor T (its name: the one it replaces)
 * instead or beside. */
static void write_file(const char *key, const gguf_value *value, const gguf_tensor *t)
{
    gguf_pair pairs[COUNT(keys) + 1];
    gguf_tensor all[COUNT(tensors) + 1];
    gguf_writer *w;
    i64 n = 0, m = 0;
    bool replaced = false;
    for (i64 i = 0; i < COUNT(keys); i++)
        if (!key || strcmp(keys[i].key, key)) pairs[n++] = keys[i];
    if (value) pairs[n++] = (gguf_pair){key, *value};
    for (i64 i = 0; i < COUNT(tensors); i++, m++) {
        bool this = t && !strcmp(t->name, tensors[i].name);
        all[m] = this ? *t : tensors[i];
        replaced = replaced || this;
    }
    if (t && !replaced) all[m++] = *t;
    assert_ok(gguf_create(in_folder("x.gguf"), pairs, n, all, m, &w));
    for (i64 i = 0; i < m; i++) {
        i64 bytes;
        void *zero;
        assert_ok(gguf_tensor_bytes(&all[i], &bytes));
        assert_ok(mem_alloc((size_t)bytes, "zeros", &zero));
        assert_ok(gguf_write(w, zero, bytes));
        mem_free(zero);
    }
    assert_ok(gguf_commit(w));
}

static void refuse(err_code code, const char *message)
{
    char wanted[500];
    snprintf(wanted, sizeof wanted, "%s: %s", in_folder("x.gguf"), message);
    assert_fails(gguf_import(in_folder("x.gguf"), in_folder("run")), code, wanted);
    assert_false(path_exists(in_folder("run")));
}

static void test_sound(void **state)
{
    (void)state;
    write_file(NULL, NULL, NULL);
    assert_ok(gguf_import(in_folder("x.gguf"), in_folder("sound")));
    model_files f;
    assert_ok(model_files_open(in_folder("sound"), NULL, NULL, &f));
    assert_int_equal(tokenizer_vocab(f.tokenizer), 5);
    assert_int_equal(config_count(f.config, "model.vocab"), 6);
    assert_string_equal(tokenizer_pattern(f.tokenizer), "gpt2");
    assert_int_equal(tokenizer_end(f.tokenizer), 0);
    model_files_close(&f);
}

/* Numbers no model has: block_count > 512 wrote behind an array of llama.cpp's (PR #25821). */
static void test_numbers_out_of_range(void **state)
{
    (void)state;
#define WHOLE " is not a whole number from 1"
    static const struct {
        const char *key;
        gguf_value value;
        err_code code;
        const char *message;
    } cases[] = {
        {"llama.block_count", GGUF_NUMBER(513), ERR_FORMAT, "there is no tensor blk.1.attn_norm.weight"},
        {"llama.block_count", GGUF_NUMBER(0), ERR_FORMAT, "num_hidden_layers" WHOLE},
        {"llama.block_count", {.kind = KIND_I32, .bits = (u64)-1}, ERR_FORMAT, "num_hidden_layers" WHOLE},
        {"llama.block_count",
         {.kind = KIND_U64, .bits = UINT64_MAX},
         ERR_FORMAT,
         "llama.block_count is no whole number"},
        {"llama.block_count", GGUF_REAL(1), ERR_FORMAT, "llama.block_count is no whole number"},
        {"llama.block_count", INTEGERS(types, 1), ERR_FORMAT, "llama.block_count is no whole number"},
        {"llama.attention.head_count", GGUF_NUMBER(0), ERR_FORMAT, "num_attention_heads" WHOLE},
        {"llama.context_length", GGUF_NUMBER(UINT32_MAX), ERR_FORMAT,
         "a context of 4294967295 tokens; Keel holds at most 1048576"},
        {"llama.attention.layer_norm_rms_epsilon", GGUF_NUMBER(1), ERR_FORMAT,
         "llama.attention.layer_norm_rms_epsilon is no real number"},
        {"llama.attention.key_length", GGUF_NUMBER(8), ERR_FORMAT,
         "llama.rope.dimension_count is not 8, the width of a head; Keel computes no other"},
        {"llama.attention.value_length", GGUF_NUMBER(8), ERR_FORMAT,
         "llama.attention.value_length is not 4, the width of a head; Keel computes no other"},
        {"llama.vocab_size", GGUF_NUMBER(7), ERR_FORMAT, "vocab_size is 7, but token_embd.weight has 6 rows"},
    };
    for (i64 i = 0; i < COUNT(cases); i++) {
        write_file(cases[i].key, &cases[i].value, NULL);
        refuse(cases[i].code, cases[i].message);
    }
}

/* Layers beyond what a configuration holds are refused before anything is built. */
static void test_sizes_beyond_limits(void **state)
{
    (void)state;
    static const char *const big[] = {"llama.block_count", "llama.embedding_length",
                                      "llama.feed_forward_length", "llama.attention.head_count",
                                      "llama.attention.head_count_kv"};
    for (i64 i = 0; i < COUNT(big); i++) {
        const u64 values[] = {UINT32_MAX, INT64_MAX};
        for (i64 k = 0; k < COUNT(values); k++) {
            const gguf_value v = {.kind = KIND_U64, .bits = values[k]};
            write_file(big[i], &v, NULL);
            status s = gguf_import(in_folder("x.gguf"), in_folder("run"));
            assert_non_null(s);
            assert_true(s->code == ERR_FORMAT || s->code == ERR_CONFIG);
            status_drop(s);
            assert_false(path_exists(in_folder("run")));
        }
    }
}

static void test_other_computations(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        gguf_value value;
        const char *message;
    } cases[] = {
        {"general.architecture", GGUF_NUMBER(1), "there is no string general.architecture"},
        {"general.architecture", GGUF_TEXT("mamba"),
         "general.architecture is mamba; there are gpt2, llama, qwen2, qwen3, olmo2"},
        {"general.type", GGUF_TEXT("adapter"), "general.type is not \"model\"; Keel imports whole models"},
        {"split.count",
         {.kind = KIND_U16, .bits = 3},
         "one of 3 parts of a model; merge them first (llama-gguf-split --merge)"},
        {"llama.expert_count", GGUF_NUMBER(8),
         "llama.expert_count is 8: experts, which Keel does not compute"},
        {"llama.logit_scale", GGUF_REAL(0.5),
         "llama.logit_scale is 0.5: scaled logits, which Keel does not compute"},
        {"llama.rope.scaling.type", GGUF_TEXT("yarn"),
         "llama.rope.scaling.type is yarn: scaled rotary positions, which Keel does not compute"},
        {"llama.rope.scaling.factor", GGUF_REAL(4),
         "llama.rope.scaling.factor is 4: scaled rotary positions, which Keel does not compute"},
        {"llama.attention.sliding_window",
         {.kind = KIND_I32, .bits = (u64)-5},
         "llama.attention.sliding_window is no whole number from 0"},
    };
    for (i64 i = 0; i < COUNT(cases); i++) {
        write_file(cases[i].key, &cases[i].value, NULL);
        refuse(ERR_FORMAT, cases[i].message);
    }
    write_file("llama.attention.head_count", NULL, NULL);
    refuse(ERR_FORMAT, "there is no key llama.attention.head_count");
}

static void test_lying_tensors(void **state)
{
    (void)state;
    static const struct {
        gguf_tensor t;
        const char *message;
    } cases[] = {
        {MATRIX("blk.0.attn_q.weight", 8, 9),
         "blk.0.attn_q.weight has another shape than the keys say: expected {8, 8}"},
        {MATRIX("blk.0.ffn_norm.weight", 8, 8),
         "blk.0.ffn_norm.weight has another shape than the keys say: expected {8}"},
        {{.name = "blk.0.ffn_up.weight", .type = GGUF_F64, .n_dims = 2, .dims = {8, 12}},
         "blk.0.ffn_up.weight is F64; expected F32, F16, BF16, Q8_0 or Q4_0"},
        {VECTOR("token_embd.weight", 48), "there is no matrix token_embd.weight"},
        {VECTOR("rope_freqs.weight", 2),
         "rope_freqs.weight scales rotary positions, which Keel does not compute"},
        {VECTOR("blk.0.attn_q.bias", 8), "blk.0.attn_q.bias is no tensor of a llama of these keys"},
        {VECTOR("blk.1.attn_norm.weight", 8), "blk.1.attn_norm.weight is no tensor of a llama of these keys"},
    };
    for (i64 i = 0; i < COUNT(cases); i++) {
        write_file(NULL, NULL, &cases[i].t);
        refuse(ERR_FORMAT, cases[i].message);
    }
}

static void test_lying_tokens(void **state)
{
    (void)state;
    static const i32 bytes[] = {3, 1, 1, 1, 1, 6}, odd[] = {3, 1, 1, 1, 1, -1};
    static const gguf_string seven[7] = {{"a", 1}, {"b", 1}, {"c", 1}, {"d", 1},
                                         {"e", 1}, {"f", 1}, {"g", 1}};
    static const gguf_string twice[] = {
        {"<|endoftext|>", 13}, {"a", 1}, {"a", 1}, {"ab", 2}, {"x", 1}, {"", 0}};
    static const gguf_string no_text[] = {
        {"<|endoftext|>", 13}, {"a", 1}, {"\xff", 1}, {"ab", 2}, {"x", 1}, {"", 0}};
    static const gguf_string zero[] = {
        {"<|endoftext|>", 13}, {"a\0b", 3}, {"b", 1}, {"ab", 2}, {"x", 1}, {"", 0}};
    static const gguf_string loose[] = {{"a c", 3}}, single[] = {{"ab", 2}};
    static const struct {
        const char *key;
        gguf_value value;
        err_code code;
        const char *message;
    } cases[] = {
        {"tokenizer.ggml.model", GGUF_TEXT("llama"), ERR_FORMAT,
         "tokenizer.ggml.model is llama; Keel reads gpt2, byte-level BPE"},
        {"tokenizer.ggml.model", GGUF_NUMBER(1), ERR_FORMAT, "tokenizer.ggml.model is no string"},
        {"tokenizer.ggml.pre", GGUF_TEXT("default"), ERR_FORMAT,
         "tokenizer.ggml.pre is default, a pre-tokenizer that Keel does not know"},
        {"tokenizer.ggml.tokens", STRINGS(seven, 7), ERR_FORMAT,
         "7 tokens and 6 types for an embedding of 6 rows"},
        {"tokenizer.ggml.tokens", INTEGERS(types, 6), ERR_FORMAT,
         "tokenizer.ggml.tokens is no array of strings"},
        {"tokenizer.ggml.tokens", STRINGS(twice, 6), ERR_FORMAT, "token 2 is spelled as another one: 'a'"},
        {"tokenizer.ggml.tokens", STRINGS(no_text, 6), ERR_FORMAT,
         "token 2 is not UTF-8, or holds a zero byte"},
        {"tokenizer.ggml.tokens", STRINGS(zero, 6), ERR_FORMAT, "token 1 is not UTF-8, or holds a zero byte"},
        {"tokenizer.ggml.token_type", INTEGERS(types, 5), ERR_FORMAT,
         "6 tokens and 5 types for an embedding of 6 rows"},
        {"tokenizer.ggml.token_type", INTEGERS(bytes, 6), ERR_FORMAT,
         "token 5 is of type 6; expected 1 to 5"},
        {"tokenizer.ggml.token_type", INTEGERS(odd, 6), ERR_FORMAT, "token 5 is of type -1; expected 1 to 5"},
        {"tokenizer.ggml.merges", STRINGS(loose, 1), ERR_FORMAT,
         "model.merges[0] ('a' and 'c'): 'c' is no token of model.vocab"},
        {"tokenizer.ggml.merges", STRINGS(single, 1), ERR_FORMAT,
         "model.merges[0] is neither \"a b\" nor [\"a\", \"b\"]"},
    };
    for (i64 i = 0; i < COUNT(cases); i++) {
        write_file(cases[i].key, &cases[i].value, NULL);
        refuse(cases[i].code, cases[i].message);
    }
    write_file("tokenizer.ggml.merges", NULL, NULL);
    refuse(ERR_FORMAT, "there is no key tokenizer.ggml.merges");
    write_file("tokenizer.ggml.pre", NULL, NULL);
    refuse(ERR_FORMAT, "there is no string tokenizer.ggml.pre: how its tokenizer cuts text is not known");
}

/* ---- tokenizers there and back */

static char *last_line;
static void hear(void *context, const char *line)
{
    (void)context;
    free(last_line);
    last_line = strdup(line);
}

/* A tokenizer of the bytes and " a"; WHOLE: with "xyz", which no merge reaches, and ignore_merges. */
static tokenizer *make(const char *pattern, bool digits, bool whole, bool unreached, bool nfc)
{
    tokenizer *t;
    assert_ok(tokenizer_new(256 + 3, 1, 1, &t));
    for (int i = 0; i < 256; i++) {
        char byte = (char)i;
        t->token[i] = (token_bytes){arena_copy(t->a, &byte, 1), 1}, t->spelled[i] = SPELLED_ALPHABET;
    }
    t->token[256] = (token_bytes){" a", 2}, t->spelled[256] = SPELLED_ALPHABET;
    t->merge[0] = (merge_rule){' ', 'a', 256};
    if (unreached) t->token[257] = (token_bytes){"xyz", 3}, t->spelled[257] = SPELLED_ALPHABET;
    t->token[258] = (token_bytes){"<|endoftext|>", 13};
    t->added[0] = (added_token){.id = 258, .special = true, .content = "<|endoftext|>", .bytes = 13};
    t->whole_piece = whole, t->nfc = nfc;
    if (digits) assert_ok(tokenizer_add_stage(t, NULL, "\\p{N}"));
    if (pattern_named(pattern))
        assert_ok(tokenizer_add_stage(t, pattern, NULL));
    else
        assert_ok(tokenizer_add_stage(t, NULL, pattern));
    assert_ok(tokenizer_make_shell(t));
    assert_ok(tokenizer_finish(t, "made here"));
    return t;
}

/* T's keys as a file; OK: *back is the tokenizer that comes back. */
static status there_and_back(const tokenizer *t, char pre[32], tokenizer **back)
{
    static const gguf_options o = {.type = GGUF_F32, .talk = hear};
    arena *a;
    gguf_pair pairs[GGUF_MOST_PAIRS];
    gguf_writer *w;
    gguf_file *f;
    gguf_string s;
    char *json;
    i64 n = 0;
    free(last_line);
    last_line = NULL;
    assert_ok(arena_open(&a));
    status failed = gguf_tokens_of(a, t, 300, &o, pairs, &n);
    if (failed) return arena_close(a), failed;
    assert_ok(gguf_create(in_folder("t.gguf"), pairs, n, NULL, 0, &w));
    assert_ok(gguf_commit(w));
    arena_close(a);
    assert_ok(gguf_open(in_folder("t.gguf"), &f));
    assert_true(gguf_text(gguf_key(f, "tokenizer.ggml.pre"), &s));
    snprintf(pre, 32, "%.*s", (int)s.bytes, s.data);
    assert_ok(gguf_read_tokens(f, "t.gguf", 300, &json));
    assert_ok(tokenizer_parse(json, strlen(json), "t.gguf", back));
    free(json);
    gguf_close(f);
    return OK;
}

static void test_patterns(void **state)
{
    (void)state;
    static const struct {
        const char *pattern;
        bool digits, whole, unreached, nfc;
        const char *pre, *back, *line;
    } cases[] = {
        {"gpt2", false, false, false, false, "gpt-2", "gpt2", NULL},
        {"gpt2", false, true, false, false, "gpt-2", "gpt2", NULL}, // merging reaches all: nothing is lost
        {"gpt2", true, false, false, false, "smollm", "custom", NULL},
        {"llama3", false, true, true, false, "llama-bpe", "llama3", NULL},
        {"llama3", false, false, false, false, "dbrx", "llama3", NULL},
        {"qwen2", false, false, false, true, "qwen2", "qwen2",
         "the tokenizer brings text to NFC first, which llama.cpp leaves to whoever asks it"},
        {"qwen2", false, false, false, false, "qwen2", "qwen2", NULL},
        {"o200k", false, false, false, false, "gpt-4o", "o200k", NULL},
        {"cl100k", false, true, true, false, "llama-bpe", "llama3",
         "the pattern cl100k has no name in GGUF: llama3's is written, which cuts white space at the very "
         "end of a "
         "text elsewhere"},
    };
    for (i64 i = 0; i < COUNT(cases); i++) {
        char pre[32];
        tokenizer *back,
            *t = make(cases[i].pattern, cases[i].digits, cases[i].whole, cases[i].unreached, cases[i].nfc);
        assert_ok(there_and_back(t, pre, &back));
        assert_string_equal(pre, cases[i].pre);
        assert_string_equal(tokenizer_pattern(back), cases[i].back);
        assert_int_equal(tokenizer_nfc(back), cases[i].nfc);
        assert_int_equal(tokenizer_special(back, "<|endoftext|>"), 258);
        if (cases[i].line) assert_string_equal(last_line ? last_line : "silence", cases[i].line);
        static const char text[] = "A banana at 1234 caf\xc3\xa9s, xyz;  <|endoftext|>\n";
        token_list x = {0}, y = {0};
        assert_ok(tokenizer_encode(t, text, sizeof text - 1, SPECIAL_ALLOWED, &x));
        assert_ok(tokenizer_encode(back, text, sizeof text - 1, SPECIAL_ALLOWED, &y));
        assert_int_equal(x.count, y.count);
        assert_memory_equal(x.id, y.id, (size_t)x.count * sizeof *x.id);
        token_list_free(&x);
        token_list_free(&y);
        tokenizer_close(t);
        tokenizer_close(back);
    }
}

static void test_tokenizers_gguf_cannot_hold(void **state)
{
    (void)state;
    char pre[32];
    tokenizer *back, *t = make("gpt2", false, true, true, false);
    assert_fails(
        there_and_back(t, pre, &back), ERR_CONFIG,
        "the tokenizer's pieces that are tokens are never merged (ignore_merges), which GGUF can say of the "
        "pattern llama3 only");
    tokenizer_close(t);
    t = make("[a-z]+", false, false, false, false);
    assert_fails(
        there_and_back(t, pre, &back), ERR_CONFIG,
        "the tokenizer's pattern is custom, which llama.cpp has no name for; there are gpt2 (also behind "
        "single digits), llama3, qwen2, o200k, and cl100k nearly");
    tokenizer_close(t);
    t = make("gpt2", false, false, false, false);
    t->added[0].content = "[PAD299]", t->added[0].bytes = 8;
    assert_fails(there_and_back(t, pre, &back), ERR_CONFIG,
                 "the tokens 258 and 299 are both spelled '[PAD299]', which GGUF cannot hold");
    tokenizer_close(t);
}

static int set_up(void **state)
{
    (void)state;
    return !mkdtemp(folder);
}

static int tear_down(void **state)
{
    (void)state;
    free(last_line);
    status_drop(tree_remove(folder));
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sound),
        cmocka_unit_test(test_numbers_out_of_range),
        cmocka_unit_test(test_sizes_beyond_limits),
        cmocka_unit_test(test_other_computations),
        cmocka_unit_test(test_lying_tensors),
        cmocka_unit_test(test_lying_tokens),
        cmocka_unit_test(test_patterns),
        cmocka_unit_test(test_tokenizers_gguf_cannot_hold),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

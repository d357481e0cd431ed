/* The tokenizer of a GGUF file: see gguf_parts.h. Byte-level BPE is kind "gpt2": the tokens spelled in the
 * byte alphabet, added ones as they are; merges "left right"; and the name of a pre-tokenizer, which in
 * llama.cpp stands for a pattern and for what "ignore_merges" says of it (src/llama-vocab.cpp). Reading makes
 * a tokenizer.json of the keys, so that tokenizer_parse is the one place that trusts nothing. */
#include "base/text.h"
#include "infer/gguf_parts.h"
#include "text/byte_alphabet.h"
#include "text/chat.h"
#include "text/tokenizer_impl.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The first row of a pattern is the one that is written. */
static const struct pre_row {
    const char *name, *pattern;
    bool digits, whole; // each digit is cut off first; a piece that is a token is not merged
} pre_rows[] = {
    {"gpt-2", "gpt2", false, false},      {"olmo", "gpt2", false, false},
    {"mpt", "gpt2", false, false},        {"phi-2", "gpt2", false, false},
    {"jais", "gpt2", false, false},       {"exaone4", "gpt2", false, false},
    {"smollm", "gpt2", true, false},      {"starcoder", "gpt2", true, false},
    {"refact", "gpt2", true, false},      {"command-r", "gpt2", true, false},
    {"codeshell", "gpt2", true, false},   {"exaone", "gpt2", true, false},
    {"llama-bpe", "llama3", false, true}, {"llama3", "llama3", false, true},
    {"llama-v3", "llama3", false, true},  {"falcon3", "llama3", false, true},
    {"dbrx", "llama3", false, false},     {"smaug-bpe", "llama3", false, false},
    {"qwen2", "qwen2", false, false},     {"deepseek-r1-qwen", "qwen2", false, false},
    {"megrez", "qwen2", false, false},    {"stablelm2", "qwen2", false, false},
    {"gpt-4o", "o200k", false, false},    {"llama4", "o200k", false, false},
};
static const char digit[] = "\\p{N}";

/* token_type */
enum { TYPE_NORMAL = 1, TYPE_UNKNOWN, TYPE_CONTROL, TYPE_USER, TYPE_UNUSED, TYPE_BYTE };

/* ---- out */

static void say(const gguf_options *o, const char *line)
{
    if (o->talk) o->talk(o->context, line);
}

/* Is a piece that is a token merged into that token anyway? Then "ignore_merges" says nothing. */
static status reaches_all(const tokenizer *t, bool *out)
{
    bpe_scratch scratch = {0};
    i32 *ids = NULL;
    size_t most = 1;
    for (i64 i = 0; i < t->vocab; i++) most = MAX(most, t->token[i].bytes);
    TRY(mem_alloc(most * sizeof *ids, "the bytes of a token", &ids));
    status s = OK;
    *out = true;
    for (i64 i = 0; !s && *out && i < t->vocab; i++) {
        i64 n;
        if (t->spelled[i] != SPELLED_ALPHABET || !t->token[i].bytes) continue;
        s = bpe_encode(&t->bpe, &scratch, (const u8 *)t->token[i].data, t->token[i].bytes, ids, &n);
        *out = !s && n == 1 && ids[0] == i;
    }
    bpe_scratch_free(&scratch);
    mem_free(ids);
    return s;
}

static const char *named(const char *pattern, bool digits, bool whole)
{
    for (i64 i = 0; i < COUNT(pre_rows); i++)
        if (!strcmp(pre_rows[i].pattern, pattern) && pre_rows[i].digits == digits &&
            pre_rows[i].whole == whole)
            return pre_rows[i].name;
    return NULL;
}

static status choose_pre(const tokenizer *t, const gguf_options *o, const char **out)
{
    const split_stage *last = t->stages ? &t->stage[t->stages - 1] : NULL;
    const bool digits = t->stages == 2 && !strcmp(t->stage[0].regex, digit);
    const char *pattern = last && last->row && (t->stages == 1 || digits) ? last->row->name : "";
    bool all = false;
    if (!strcmp(pattern, "cl100k")) {
        pattern = "llama3";
        say(o, "the pattern cl100k has no name in GGUF: llama3's is written, which cuts white space at the "
               "very end of a text elsewhere");
    }
    *out = named(pattern, digits, t->whole_piece);
    if (*out) return OK;
    *out = named(pattern, digits, false);
    if (!*out)
        return fail(
            ERR_CONFIG,
            "the tokenizer's pattern is %s, which llama.cpp has no name for; there are gpt2 (also behind "
            "single digits), llama3, qwen2, o200k, and cl100k nearly",
            tokenizer_pattern(t));
    TRY(reaches_all(t, &all));
    if (all) return OK;
    return fail(ERR_CONFIG, "the tokenizer's pieces that are tokens are never merged (ignore_merges), which "
                            "GGUF can say of the pattern llama3 only");
}

static int by_spelling(const void *a, const void *b)
{
    const gguf_string *x = *(const gguf_string *const *)a, *y = *(const gguf_string *const *)b;
    int order = memcmp(x->data, y->data, (size_t)MIN(x->bytes, y->bytes));
    return order ? order : (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static status check_unique(const gguf_string *token, i64 n)
{
    const gguf_string **sorted;
    status s = OK;
    TRY(mem_alloc((size_t)n * sizeof *sorted, "tokens by spelling", &sorted));
    for (i64 i = 0; i < n; i++) sorted[i] = &token[i];
    qsort(sorted, (size_t)n, sizeof *sorted, by_spelling);
    for (i64 i = 1; !s && i < n; i++)
        if (!by_spelling(&sorted[i - 1], &sorted[i]))
            s = fail(ERR_CONFIG, "the tokens %lld and %lld are both spelled '%.*s', which GGUF cannot hold",
                     (long long)(sorted[i - 1] - token), (long long)(sorted[i] - token),
                     (int)MIN(sorted[i]->bytes, 60), sorted[i]->data);
    mem_free(sorted);
    return s;
}

static gguf_string spelling(arena *a, const tokenizer *t, i64 id)
{
    text mapped = {0};
    token_bytes b = t->token[id];
    if (t->spelled[id] != SPELLED_ALPHABET) return (gguf_string){b.data, (i64)b.bytes};
    alphabet_encode(b.data, b.bytes, &mapped);
    gguf_string s = {arena_copy(a, mapped.data, mapped.bytes), (i64)mapped.bytes};
    text_free(&mapped);
    return s;
}

/* Spellings and kinds of all rows of the embedding; those without a token are named [PAD7]. */
static status list_tokens(arena *a, const tokenizer *t, i64 vocab, gguf_pair *out, i64 *n)
{
    gguf_string *token = arena_array(a, gguf_string, vocab);
    i32 *type = arena_array(a, i32, vocab);
    if (t->vocab > vocab)
        return fail(ERR_CONFIG, "the tokenizer has %lld tokens, the model %lld", (long long)t->vocab,
                    (long long)vocab);
    for (i64 i = 0; i < vocab; i++) {
        type[i] = TYPE_NORMAL;
        if (i < t->vocab && t->token[i].data)
            token[i] = spelling(a, t, i);
        else {
            char *name = arena_printf(a, "[PAD%lld]", (long long)i);
            token[i] = (gguf_string){name, (i64)strlen(name)}, type[i] = TYPE_UNUSED;
        }
    }
    for (i64 i = 0; i < t->added_count; i++) {
        const added_token *x = &t->added[i];
        token[x->id] = (gguf_string){x->content, (i64)x->bytes};
        type[x->id] = x->special ? TYPE_CONTROL : TYPE_USER;
    }
    TRY(check_unique(token, vocab));
    out[(*n)++] = (gguf_pair){"tokenizer.ggml.tokens",
                              {.kind = KIND_ARRAY, .element = KIND_STRING, .count = vocab, .data = token}};
    out[(*n)++] = (gguf_pair){"tokenizer.ggml.token_type",
                              {.kind = KIND_ARRAY, .element = KIND_I32, .count = vocab, .data = type}};
    return OK;
}

static status list_merges(arena *a, const tokenizer *t, gguf_pair *out, i64 *n)
{
    gguf_string *merge = arena_array(a, gguf_string, t->merges + 1);
    for (i64 i = 0; i < t->merges; i++) {
        gguf_string x = spelling(a, t, t->merge[i].left), y = spelling(a, t, t->merge[i].right);
        if (memchr(x.data, ' ', (size_t)x.bytes) || memchr(y.data, ' ', (size_t)y.bytes))
            return fail(ERR_CONFIG,
                        "merge %lld of the tokenizer is of tokens with a blank, which GGUF cannot hold",
                        (long long)i);
        char *both = arena_alloc(a, (size_t)(x.bytes + y.bytes + 1));
        memcpy(both, x.data, (size_t)x.bytes);
        both[x.bytes] = ' ';
        memcpy(both + x.bytes + 1, y.data, (size_t)y.bytes);
        merge[i] = (gguf_string){both, x.bytes + y.bytes + 1};
    }
    out[(*n)++] =
        (gguf_pair){"tokenizer.ggml.merges",
                    {.kind = KIND_ARRAY, .element = KIND_STRING, .count = t->merges, .data = merge}};
    return OK;
}

/* Readers take token 11 for the end where no key names one, so both are always written. */
static void list_specials(const tokenizer *t, const gguf_options *o, gguf_pair *out, i64 *n)
{
    i32 first = tokenizer_start(t), end = tokenizer_end(t);
    if (end < 0)
        say(o, "the tokenizer has no end of text (" TOKENIZER_ENDS "); llama.cpp will take token 11 for it");
    else {
        out[(*n)++] = (gguf_pair){"tokenizer.ggml.bos_token_id", GGUF_NUMBER(first < 0 ? end : first)};
        out[(*n)++] = (gguf_pair){"tokenizer.ggml.eos_token_id", GGUF_NUMBER(end)};
    }
    out[(*n)++] = (gguf_pair){"tokenizer.ggml.add_bos_token", GGUF_FLAG(false)};
}

status gguf_tokens_of(arena *a, const tokenizer *t, i64 vocab, const gguf_options *o, gguf_pair *out, i64 *n)
{
    const char *pre = NULL;
    if (!t) return out[(*n)++] = (gguf_pair){"tokenizer.ggml.model", GGUF_TEXT("no_vocab")}, OK;
    TRY(choose_pre(t, o, &pre));
    out[(*n)++] = (gguf_pair){"tokenizer.ggml.model", GGUF_TEXT("gpt2")};
    out[(*n)++] = (gguf_pair){"tokenizer.ggml.pre", GGUF_TEXT(pre)};
    TRY(list_tokens(a, t, vocab, out, n));
    TRY(list_merges(a, t, out, n));
    list_specials(t, o, out, n);
    if (t->nfc) say(o, "the tokenizer brings text to NFC first, which llama.cpp leaves to whoever asks it");
    if (t->nfc || !strcmp(pre, "qwen2")) out[(*n)++] = (gguf_pair){"keel.tokenizer.nfc", GGUF_FLAG(t->nfc)};
    const chat_layout *c = chat_layout_of(t);
    if (c) out[(*n)++] = (gguf_pair){"tokenizer.chat_template", GGUF_TEXT(c->jinja)};
    return OK;
}

/* ---- in */

static status need_array(const gguf_file *f, const char *path, const char *key, gguf_kind element,
                         const gguf_value **out)
{
    *out = gguf_key(f, key);
    if (!*out) return fail(ERR_FORMAT, "%s: there is no key %s", path, key);
    if ((*out)->kind != KIND_ARRAY || (*out)->element != element)
        return fail(ERR_FORMAT, "%s: %s is no array of %s", path, key,
                    element == KIND_STRING ? "strings" : "i32");
    return OK;
}

/* A string of the file as one of JSON. */
static status as_json(const char *path, const char *what, i64 i, gguf_string s, json_t **out)
{
    *out = memchr(s.data, 0, (size_t)s.bytes) ? NULL : json_stringn(s.data, (size_t)s.bytes);
    if (*out) return OK;
    return fail(ERR_FORMAT, "%s: %s %lld is not UTF-8, or holds a zero byte", path, what, (long long)i);
}

static status read_vocabulary(const gguf_file *f, const char *path, i64 most, json_t *vocab, json_t *added)
{
    const gguf_value *tokens, *types = gguf_key(f, "tokenizer.ggml.token_type");
    const u8 *cursor = NULL;
    TRY(need_array(f, path, "tokenizer.ggml.tokens", KIND_STRING, &tokens));
    if (types) TRY(need_array(f, path, "tokenizer.ggml.token_type", KIND_I32, &types));
    if (tokens->count > most || (types && types->count != tokens->count))
        return fail(ERR_FORMAT, "%s: %lld tokens and %lld types for an embedding of %lld rows", path,
                    (long long)tokens->count, (long long)(types ? types->count : tokens->count),
                    (long long)most);
    for (i64 i = 0; i < tokens->count; i++) {
        gguf_string s = gguf_next(tokens, &cursor);
        i32 type = TYPE_NORMAL;
        json_t *name;
        if (types) memcpy(&type, (const u8 *)types->data + 4 * i, 4);
        if (type == TYPE_UNUSED) continue;
        if (type < TYPE_NORMAL || type >= TYPE_BYTE)
            return fail(ERR_FORMAT, "%s: token %lld is of type %d; expected 1 to 5", path, (long long)i,
                        type);
        TRY(as_json(path, "token", i, s, &name));
        bool twice = json_object_get(vocab, json_string_value(name));
        if (type == TYPE_NORMAL) {
            json_object_set_new(vocab, json_string_value(name), json_integer(i));
            json_decref(name);
        } else
            json_array_append_new(added, json_pack("{s:I, s:o, s:b, s:b, s:b, s:b, s:b}", "id", (json_int_t)i,
                                                   "content", name, "single_word", 0, "lstrip", 0, "rstrip",
                                                   0, "normalized", 0, "special", type != TYPE_USER));
        if (twice)
            return fail(ERR_FORMAT, "%s: token %lld is spelled as another one: '%.*s'", path, (long long)i,
                        (int)MIN(s.bytes, 60), s.data);
    }
    return OK;
}

static status read_merges(const gguf_file *f, const char *path, json_t *merges)
{
    const gguf_value *v;
    const u8 *cursor = NULL;
    TRY(need_array(f, path, "tokenizer.ggml.merges", KIND_STRING, &v));
    for (i64 i = 0; i < v->count; i++) {
        json_t *pair;
        TRY(as_json(path, "merge", i, gguf_next(v, &cursor), &pair));
        json_array_append_new(merges, pair);
    }
    return OK;
}

static status read_pre(const gguf_file *f, const char *path, const struct pre_row **out)
{
    const gguf_value *v = gguf_key(f, "tokenizer.ggml.pre");
    gguf_string s;
    if (!gguf_text(v, &s))
        return fail(ERR_FORMAT,
                    "%s: there is no string tokenizer.ggml.pre: how its tokenizer cuts text is not known",
                    path);
    for (i64 i = 0; i < COUNT(pre_rows); i++)
        if (gguf_is_text(v, pre_rows[i].name)) return *out = &pre_rows[i], OK;
    return fail(ERR_FORMAT, "%s: tokenizer.ggml.pre is %.*s, a pre-tokenizer that Keel does not know", path,
                (int)MIN(s.bytes, 60), s.data);
}

/* The parts around vocabulary and merges, by a tokenizer that has nothing else. */
static status make_shell(const gguf_file *f, const struct pre_row *pre, json_t **out)
{
    tokenizer *t;
    TRY(tokenizer_new(0, 0, 0, &t));
    t->whole_piece = pre->whole;
    t->nfc = !strcmp(pre->name, "qwen2");
    gguf_flag(gguf_key(f, "keel.tokenizer.nfc"), &t->nfc);
    status s = pre->digits ? tokenizer_add_stage(t, NULL, digit) : OK;
    if (!s) s = tokenizer_add_stage(t, pre->pattern, NULL);
    if (!s) s = tokenizer_make_shell(t);
    if (!s) *out = json_incref(t->shell);
    tokenizer_close(t);
    return s;
}

status gguf_read_tokens(const gguf_file *f, const char *path, i64 vocab, char **out)
{
    const gguf_value *model = gguf_key(f, "tokenizer.ggml.model");
    const struct pre_row *pre = NULL;
    gguf_string kind;
    json_t *shell;
    tokenizer *t;
    *out = NULL;
    if (!model || gguf_is_text(model, "no_vocab")) return OK;
    if (!gguf_text(model, &kind)) return fail(ERR_FORMAT, "%s: tokenizer.ggml.model is no string", path);
    if (!gguf_is_text(model, "gpt2"))
        return fail(ERR_FORMAT, "%s: tokenizer.ggml.model is %.*s; Keel reads gpt2, byte-level BPE", path,
                    (int)MIN(kind.bytes, 40), kind.data);
    TRY(read_pre(f, path, &pre));
    TRY(make_shell(f, pre, &shell));
    json_t *words = json_object(), *merges = json_array();
    status s = read_vocabulary(f, path, vocab, words, json_object_get(shell, "added_tokens"));
    if (!s) s = read_merges(f, path, merges);
    json_object_set_new(json_object_get(shell, "model"), "vocab", words);
    json_object_set_new(json_object_get(shell, "model"), "merges", merges);
    if (!s && !(*out = json_dumps(shell, JSON_INDENT(1)))) s = fail(ERR_MEMORY, "%s: out of memory", path);
    json_decref(shell);
    if (!s) s = tokenizer_parse(*out, strlen(*out), path, &t);
    if (!s) return tokenizer_close(t), OK;
    free(*out);
    *out = NULL;
    return s;
}

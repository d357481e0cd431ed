/* Reading tokenizer.json: see tokenizer.h.
 *
 * The file may come from anywhere, so every number is ranged, every string checked, and a field that Keel
 * does not know or does not implement is refused by name: a tokenizer that silently does something else than
 * its author meant costs a training run. What has no influence on Keel's ids (post_processor: special tokens
 * around a text, which Keel leaves to the caller; trim_offsets) is kept and written back. */
#include "base/file.h"
#include "text/byte_alphabet.h"
#include "text/tokenizer.h"
#include "text/tokenizer_impl.h"
#include <ctype.h>
#include <stdio.h>
#include <string.h>

typedef struct reader {
    const char *name; // for messages
    json_t *root, *model, *vocab, *merges, *added;
    struct {
        const char *name, *regex; // one of the two, borrowed
    } stage[MAX_STAGES];
    int stages;
    json_t *quoted; // an array of the regexes made here
    bool nfc;
    tokenizer *t;
} reader;

/* Refuses keys of OBJECT that are not in KNOWN (blank-separated, with blanks at both ends). */
static status only_keys(const reader *r, json_t *object, const char *where, const char *known)
{
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value)
    {
        char spaced[64];
        if (snprintf(spaced, sizeof spaced, " %s ", key) >= (int)sizeof spaced || !strstr(known, spaced))
            return fail(ERR_FORMAT, "%s: %s has the field '%.60s', which Keel does not know", r->name, where,
                        key);
    }
    return OK;
}

/* A field that must be absent, null, false, "" or zero, because Keel does not implement it. */
static status must_be_off(const reader *r, json_t *object, const char *where, const char *key)
{
    const json_t *v = json_object_get(object, key);
    bool off = !v || json_is_null(v) || json_is_false(v) || (json_is_string(v) && !json_string_length(v)) ||
               (json_is_number(v) && json_number_value(v) == 0);
    if (off) return OK;
    return fail(ERR_FORMAT, "%s: %s%s%s is set, which is not supported", r->name, where, *where ? "." : "",
                key);
}

static status want_object(const reader *r, json_t *v, const char *where)
{
    if (json_is_object(v)) return OK;
    return fail(ERR_FORMAT, "%s: %s is %s; expected an object", r->name, where, v ? "no object" : "missing");
}

static const char *type_of(json_t *object)
{
    const char *type = json_string_value(json_object_get(object, "type"));
    return type ? type : "(none)";
}

static status add_stage(reader *r, const char *name, const char *regex)
{
    if (r->stages == MAX_STAGES)
        return fail(ERR_FORMAT, "%s: pre_tokenizer cuts text more than %d times, which is not supported",
                    r->name, MAX_STAGES);
    r->stage[r->stages].name = name, r->stage[r->stages++].regex = regex;
    return OK;
}

static status read_byte_level(reader *r, json_t *v, const char *where)
{
    TRY(only_keys(r, v, where, " type add_prefix_space trim_offsets use_regex "));
    if (json_is_true(json_object_get(v, "add_prefix_space")))
        return fail(ERR_FORMAT, "%s: %s.add_prefix_space is true, which is not supported", r->name, where);
    return json_is_false(json_object_get(v, "use_regex")) ? OK
                                                          : add_stage(r, "gpt2", NULL); // absent means true
}

/* A regex that matches STRING itself, kept in KEEP so that it outlives this call. */
static const char *quote(json_t *keep, const char *string)
{
    text t = {0};
    for (; *string; string++)
        text_add(&t, (*string & 0x80) || isalnum((unsigned char)*string) ? "%c" : "\\%c", *string);
    json_array_append_new(keep, json_string(t.data));
    text_free(&t);
    return json_string_value(json_array_get(keep, json_array_size(keep) - 1));
}

static status read_split(reader *r, json_t *v, const char *where)
{
    TRY(only_keys(r, v, where, " type pattern behavior invert "));
    json_t *pattern = json_object_get(v, "pattern");
    const char *regex = json_string_value(json_object_get(pattern, "Regex"));
    const char *string = json_string_value(json_object_get(pattern, "String"));
    const char *behavior = json_string_value(json_object_get(v, "behavior"));
    if (string && *string) regex = quote(r->quoted, string);
    if (!regex || !*regex)
        return fail(ERR_FORMAT, "%s: %s.pattern has neither a Regex nor a String", r->name, where);
    if (!behavior || strcmp(behavior, "Isolated"))
        return fail(ERR_FORMAT, "%s: %s.behavior is not 'Isolated', the one supported", r->name, where);
    TRY(must_be_off(r, v, where, "invert"));
    return add_stage(r, NULL, regex);
}

static status read_punctuation(reader *r, json_t *v, const char *where)
{
    TRY(only_keys(r, v, where, " type behavior "));
    const char *behavior = json_string_value(json_object_get(v, "behavior"));
    bool run = behavior && !strcmp(behavior, "Contiguous");
    if (behavior && !run && strcmp(behavior, "Isolated"))
        return fail(ERR_FORMAT, "%s: %s.behavior is '%.40s'; Isolated and Contiguous are supported", r->name,
                    where, behavior);
    return add_stage(r, NULL, run ? "[\\p{P}$+<=>\\^`|~]+" : "[\\p{P}$+<=>\\^`|~]");
}

static status read_one_pre_tokenizer(reader *r, json_t *v, const char *where)
{
    const char *type = type_of(v);
    if (!strcmp(type, "ByteLevel")) return read_byte_level(r, v, where);
    if (!strcmp(type, "Split")) return read_split(r, v, where);
    if (!strcmp(type, "Punctuation")) return read_punctuation(r, v, where);
    if (!strcmp(type, "Digits")) {
        TRY(only_keys(r, v, where, " type individual_digits "));
        return add_stage(r, NULL,
                         json_is_true(json_object_get(v, "individual_digits")) ? "\\p{N}" : "\\p{N}+");
    }
    return fail(
        ERR_FORMAT,
        "%s: %s.type '%.60s' is not supported; ByteLevel, and a Sequence of Split, Digits, Punctuation and "
        "ByteLevel are",
        r->name, where, type);
}

static status read_pre_tokenizer(reader *r)
{
    json_t *v = json_object_get(r->root, "pre_tokenizer"), *part;
    size_t i;
    TRY(want_object(r, v, "pre_tokenizer"));
    if (!strcmp(type_of(v), "ByteLevel")) return read_byte_level(r, v, "pre_tokenizer");
    if (strcmp(type_of(v), "Sequence")) // one without ByteLevel would not be byte-level BPE
        return fail(
            ERR_FORMAT,
            "%s: pre_tokenizer.type '%.60s' is not supported; ByteLevel, and a Sequence of Split, Digits, "
            "Punctuation and ByteLevel are",
            r->name, type_of(v));
    TRY(only_keys(r, v, "pre_tokenizer", " type pretokenizers "));
    json_t *list = json_object_get(v, "pretokenizers");
    size_t n = json_array_size(list);
    if (!n || strcmp(type_of(json_array_get(list, n - 1)), "ByteLevel"))
        return fail(ERR_FORMAT, "%s: pre_tokenizer.pretokenizers does not end with ByteLevel", r->name);
    json_array_foreach(list, i, part)
    {
        char where[64];
        snprintf(where, sizeof where, "pre_tokenizer.pretokenizers[%zu]", i);
        if (i + 1 < n && !strcmp(type_of(part), "ByteLevel"))
            return fail(ERR_FORMAT, "%s: %s is ByteLevel before the end, which is not supported", r->name,
                        where);
        TRY(read_one_pre_tokenizer(r, part, where));
    }
    return OK;
}

/* NFC, alone or in a Sequence. */
static status read_normalizer(reader *r, json_t *v)
{
    size_t i;
    json_t *part;
    if (!v || json_is_null(v)) return OK;
    if (!strcmp(type_of(v), "NFC")) return r->nfc = true, OK;
    if (strcmp(type_of(v), "Sequence"))
        return fail(ERR_FORMAT, "%s: normalizer.type '%.60s' is not supported; NFC and null are", r->name,
                    type_of(v));
    json_array_foreach(json_object_get(v, "normalizers"), i, part)
    {
        if (strcmp(type_of(part), "NFC"))
            return fail(ERR_FORMAT, "%s: normalizer.normalizers[%zu].type '%.60s' is not supported; NFC is",
                        r->name, i, type_of(part));
        r->nfc = true;
    }
    return OK;
}

static status read_post_processor(const reader *r, json_t *v)
{
    if (!v || json_is_null(v)) return OK;
    const char *type = type_of(v);
    size_t i;
    json_t *part;
    if (!strcmp(type, "Sequence")) {
        json_array_foreach(json_object_get(v, "processors"), i, part)
        {
            if (!strcmp(type_of(part), "Sequence"))
                return fail(ERR_FORMAT,
                            "%s: post_processor holds a Sequence in a Sequence, which is not supported",
                            r->name);
            TRY(read_post_processor(r, part));
        }
        return OK;
    }
    if (!strcmp(type, "ByteLevel") || !strcmp(type, "TemplateProcessing")) return OK;
    return fail(
        ERR_FORMAT,
        "%s: post_processor.type '%.60s' is not supported; ByteLevel, TemplateProcessing and null are",
        r->name, type);
}

static status read_around(reader *r)
{
    TRY(only_keys(
        r, r->root, "the file",
        " version truncation padding added_tokens normalizer pre_tokenizer post_processor decoder model "));
    const char *version = json_string_value(json_object_get(r->root, "version"));
    if (version && strcmp(version, "1.0"))
        return fail(ERR_FORMAT, "%s: version is '%.20s'; Keel reads 1.0", r->name, version);
    TRY(must_be_off(r, r->root, "", "truncation"));
    TRY(must_be_off(r, r->root, "", "padding"));
    TRY(read_normalizer(r, json_object_get(r->root, "normalizer")));
    json_t *decoder = json_object_get(r->root, "decoder");
    if (!json_is_object(decoder) || strcmp(type_of(decoder), "ByteLevel"))
        return fail(ERR_FORMAT, "%s: decoder.type '%.60s' is not supported; ByteLevel is", r->name,
                    type_of(decoder));
    TRY(read_post_processor(r, json_object_get(r->root, "post_processor")));
    return read_pre_tokenizer(r);
}

static status read_model(reader *r)
{
    TRY(want_object(r, r->model = json_object_get(r->root, "model"), "model"));
    json_t *type = json_object_get(r->model, "type"); // early GPT-2 files have none
    if (type && strcmp(type_of(r->model), "BPE"))
        return fail(ERR_FORMAT, "%s: model.type '%.60s' is not supported; byte-level BPE is", r->name,
                    type_of(r->model));
    TRY(only_keys(
        r, r->model, "model",
        " type dropout unk_token continuing_subword_prefix end_of_word_suffix fuse_unk byte_fallback "
        "ignore_merges vocab merges "));
    TRY(must_be_off(r, r->model, "model", "dropout"));
    TRY(must_be_off(r, r->model, "model", "continuing_subword_prefix"));
    TRY(must_be_off(r, r->model, "model", "end_of_word_suffix"));
    TRY(must_be_off(r, r->model, "model", "byte_fallback"));
    TRY(want_object(r, r->vocab = json_object_get(r->model, "vocab"), "model.vocab"));
    r->merges = json_object_get(r->model, "merges");
    if (!json_is_array(r->merges)) return fail(ERR_FORMAT, "%s: model.merges is missing or no list", r->name);
    r->added = json_object_get(r->root, "added_tokens");
    if (r->added && !json_is_null(r->added) && !json_is_array(r->added))
        return fail(ERR_FORMAT, "%s: added_tokens is no list", r->name);
    return OK;
}

static status read_id(const reader *r, const json_t *v, const char *what, const char *content, i32 *id)
{
    if (!json_is_integer(v))
        return fail(ERR_FORMAT, "%s: the id of %s '%.60s' is no whole number", r->name, what, content);
    i64 x = json_integer_value(v);
    if (x < 0 || x >= MAX_VOCAB)
        return fail(ERR_FORMAT, "%s: the id of %s '%.60s' is %lld; ids are 0 to %d", r->name, what, content,
                    (long long)x, MAX_VOCAB - 1);
    *id = (i32)x;
    return OK;
}

/* The largest id of the file, so that tables can be made; every id is in range afterwards. */
static status largest_id(const reader *r, i64 *largest)
{
    const char *key;
    json_t *v;
    size_t i;
    i32 id = 0;
    *largest = -1;
    json_object_foreach(r->vocab, key, v)
    {
        TRY(read_id(r, v, "the token", key, &id));
        *largest = MAX(*largest, id);
    }
    json_array_foreach(r->added, i, v)
    {
        if (!json_string_length(json_object_get(v, "content")))
            return fail(ERR_FORMAT, "%s: added_tokens[%zu].content is missing or empty", r->name, i);
        TRY(read_id(r, json_object_get(v, "id"), "the added token",
                    json_string_value(json_object_get(v, "content")), &id));
        *largest = MAX(*largest, id);
    }
    return OK;
}

static status read_vocab(const reader *r)
{
    const char *key;
    json_t *v;
    json_object_foreach(r->vocab, key, v)
    {
        i64 id = json_integer_value(v);
        size_t n = strlen(key);
        if (!n)
            return fail(ERR_FORMAT, "%s: model.vocab has an empty token (id %lld)", r->name, (long long)id);
        if (r->t->token[id].data)
            return fail(ERR_FORMAT, "%s: model.vocab gives the id %lld to two tokens, the second is '%.60s'",
                        r->name, (long long)id, key);
        u8 *bytes = arena_alloc(r->t->a, n + 1);
        i64 count = alphabet_decode(key, n, bytes);
        r->t->spelled[id] = count < 0 ? SPELLED_RAW : SPELLED_ALPHABET;
        if (count < 0) { // not of the alphabet: no bytes of a text become it; decoded, it is its own spelling
            memcpy(bytes, key, n);
            count = (i64)n;
        }
        r->t->token[id] = (token_bytes){(char *)bytes, (size_t)count};
    }
    return OK;
}

static status read_flag(const reader *r, json_t *object, size_t i, const char *key, bool otherwise, bool *out)
{
    const json_t *v = json_object_get(object, key);
    if (v && !json_is_boolean(v))
        return fail(ERR_FORMAT, "%s: added_tokens[%zu].%s is neither true nor false", r->name, i, key);
    *out = v ? json_is_true(v) : otherwise;
    return OK;
}

/* One added token, checked against the vocabulary; SEEN holds the contents and TAKEN the ids so far. */
static status read_added_token(const reader *r, size_t i, json_t *v, json_t *seen, u8 *taken)
{
    tokenizer *t = r->t;
    char where[48];
    snprintf(where, sizeof where, "added_tokens[%zu]", i);
    TRY(only_keys(r, v, where, " id content single_word lstrip rstrip normalized special "));
    const char *content = json_string_value(json_object_get(v, "content"));
    i32 id = (i32)json_integer_value(json_object_get(v, "id"));
    const json_t *known = json_object_get(r->vocab, content);
    if (known ? json_integer_value(known) != id : t->spelled[id] != SPELLED_NOT)
        return fail(ERR_FORMAT, "%s: %s '%.60s' has the id %d, but model.vocab gives %s", r->name, where,
                    content, (int)id, known ? "it another" : "that to another token");
    if (taken[id]++) return fail(ERR_FORMAT, "%s: added_tokens gives the id %d twice", r->name, (int)id);
    if (json_object_get(seen, content))
        return fail(ERR_FORMAT, "%s: %s repeats the content '%.60s'", r->name, where, content);
    if (json_object_set_new(seen, content, json_true()))
        return fail(ERR_MEMORY, "%s: out of memory", r->name);
    added_token *a = &t->added[i];
    a->id = id, a->bytes = strlen(content);
    a->content = arena_strdup(t->a, content);
    TRY(read_flag(r, v, i, "special", false, &a->special));
    TRY(read_flag(r, v, i, "normalized", !a->special, &a->normalized));
    TRY(read_flag(r, v, i, "single_word", false, &a->single_word));
    TRY(read_flag(r, v, i, "lstrip", false, &a->lstrip));
    TRY(read_flag(r, v, i, "rstrip", false, &a->rstrip));
    token_bytes *token = &t->token[id];
    if (known && (token->bytes != a->bytes || memcmp(token->data, content, a->bytes)))
        t->spelled[id] = SPELLED_RAW;
    *token = (token_bytes){a->content, a->bytes};
    return OK;
}

static status read_added(const reader *r)
{
    size_t i;
    json_t *v, *seen = json_object();
    u8 *taken = arena_alloc(r->t->a, (size_t)r->t->vocab);
    status s = seen ? OK : fail(ERR_MEMORY, "%s: out of memory", r->name);
    json_array_foreach(r->added, i, v)
    {
        if (s) break;
        s = read_added_token(r, i, v, seen, taken);
    }
    json_decref(seen);
    return s;
}

/* The two halves of a merge: "a b", or ["a", "b"]. LEFT points into a copy in SCRATCH. */
static bool halves(const json_t *v, text *scratch, const char **left, const char **right)
{
    scratch->bytes = 0;
    if (json_is_string(v)) {
        text_add_bytes(scratch, json_string_value(v), json_string_length(v));
        char *space = strchr(scratch->data, ' ');
        if (!space || strchr(space + 1, ' ')) return false;
        *space = 0;
        *left = scratch->data, *right = space + 1;
        return true;
    }
    *left = json_string_value(json_array_get(v, 0));
    *right = json_string_value(json_array_get(v, 1));
    return json_array_size(v) == 2 && *left && *right;
}

static status read_merges(const reader *r)
{
    text split = {0}, joined = {0};
    size_t i;
    json_t *v;
    status s = OK;
    json_array_foreach(r->merges, i, v)
    {
        const char *left, *right;
        if (!halves(v, &split, &left, &right)) {
            s = fail(ERR_FORMAT, "%s: model.merges[%zu] is neither \"a b\" nor [\"a\", \"b\"]", r->name, i);
            break;
        }
        joined.bytes = 0;
        text_add(&joined, "%s%s", left, right);
        const char *name[3] = {left, right, joined.data};
        const json_t *id[3];
        for (int k = 0; k < 3 && !s; k++)
            if (!(id[k] = json_object_get(r->vocab, name[k])))
                s = fail(ERR_FORMAT,
                         "%s: model.merges[%zu] ('%.60s' and '%.60s'): '%.120s' is no token of model.vocab",
                         r->name, i, left, right, name[k]);
        if (s) break;
        r->t->merge[i] = (merge_rule){(i32)json_integer_value(id[0]), (i32)json_integer_value(id[1]),
                                      (i32)json_integer_value(id[2])};
    }
    text_free(&split);
    text_free(&joined);
    return s;
}

/* unk_token stands for bytes without a token; where every byte has one it can never occur, and may be named.
 */
static status check_unknown(const reader *r)
{
    const char *unknown = json_string_value(json_object_get(r->model, "unk_token"));
    for (int byte = 0; unknown && byte < 256; byte++)
        if (r->t->bpe.byte_id[byte] < 0)
            return fail(
                ERR_FORMAT,
                "%s: model.unk_token '%.60s' is not supported in a vocabulary that lacks bytes (0x%02X)",
                r->name, unknown, byte);
    return OK;
}

static status read_parts(reader *r)
{
    i64 largest;
    TRY(read_model(r));
    TRY(read_around(r));
    TRY(largest_id(r, &largest));
    TRY(tokenizer_new(largest + 1, (i64)json_array_size(r->merges), (i64)json_array_size(r->added), &r->t));
    for (int i = 0; i < r->stages; i++)
        TRY(wrap(tokenizer_add_stage(r->t, r->stage[i].name, r->stage[i].regex), "%s: pre_tokenizer",
                 r->name));
    r->t->nfc = r->nfc;
    r->t->whole_piece = json_is_true(json_object_get(r->model, "ignore_merges"));
    TRY(read_vocab(r));
    TRY(read_added(r));
    TRY(read_merges(r));
    TRY(tokenizer_finish(r->t, r->name));
    return check_unknown(r);
}

status tokenizer_parse(const char *json, size_t n, const char *name, tokenizer **out)
{
    json_error_t e;
    reader r = {.name = name};
    r.root = json_loadb(json, n, JSON_REJECT_DUPLICATES, &e);
    if (!r.root)
        return fail(ERR_FORMAT, "%s:%d:%d: not a tokenizer.json: %s", name, e.line, e.column, e.text);
    status s = want_object(&r, r.root, "the file");
    r.quoted = json_array();
    if (!s) s = r.quoted ? read_parts(&r) : fail(ERR_MEMORY, "%s: out of memory", name);
    json_decref(r.quoted);
    if (s) {
        tokenizer_close(r.t);
        json_decref(r.root);
        return s;
    }
    json_object_del(r.model, "vocab");
    json_object_del(r.model, "merges");
    r.t->shell = r.root;
    *out = r.t;
    return OK;
}

status tokenizer_open(const char *path, tokenizer **out)
{
    char *data;
    size_t bytes;
    TRY(file_read(path, &data, &bytes));
    status s = tokenizer_is_tiktoken(data, bytes)
                   ? tokenizer_parse_tiktoken(data, bytes, path, &(tiktoken_options){0}, out)
                   : tokenizer_parse(data, bytes, path, out);
    mem_free(data);
    return s;
}

/* Writing tokenizer.json: see tokenizer.h. What was read comes back, the vocabulary in order of ids, one
 * entry a line, merges as "a b", which every reader of the format takes, or, where a token holds a blank,
 * ["a", "b"]. */
#include "base/file.h"
#include "text/byte_alphabet.h"
#include "text/tokenizer.h"
#include "text/tokenizer_impl.h"
#include <stdlib.h>
#include <string.h>

/* Appends S as the inside of a JSON string. */
static void add_escaped(text *out, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        u8 c = (u8)s[i];
        if (c == '"' || c == '\\')
            text_add(out, "\\%c", c);
        else if (c < 0x20)
            text_add(out, "\\u%04x", c);
        else
            text_add_bytes(out, s + i, 1);
    }
}

/* The spelling of ID in the vocabulary, as the inside of a JSON string. */
static void add_spelling(const tokenizer *t, i32 id, text *out)
{
    token_bytes b = t->token[id];
    text mapped = {0};
    if (t->spelled[id] == SPELLED_ALPHABET)
        alphabet_encode(b.data, b.bytes, &mapped);
    else
        text_add_bytes(&mapped, b.data, b.bytes);
    add_escaped(out, mapped.data, mapped.bytes);
    text_free(&mapped);
}

static bool has_blank(const tokenizer *t, i32 id)
{
    return t->spelled[id] == SPELLED_RAW && memchr(t->token[id].data, ' ', t->token[id].bytes);
}

static void add_vocab(const tokenizer *t, text *out)
{
    const char *comma = "";
    text_add(out, "{");
    for (i64 id = 0; id < t->vocab; id++) {
        if (t->spelled[id] == SPELLED_NOT) continue;
        text_add(out, "%s\n      \"", comma);
        add_spelling(t, (i32)id, out);
        text_add(out, "\": %lld", (long long)id);
        comma = ",";
    }
    text_add(out, "\n    }");
}

static void add_merges(const tokenizer *t, text *out)
{
    bool pairs = false;
    for (i64 i = 0; i < t->merges; i++)
        pairs = pairs || has_blank(t, t->merge[i].left) || has_blank(t, t->merge[i].right);
    text_add(out, "[");
    for (i64 i = 0; i < t->merges; i++) {
        text_add(out, "%s\n      %s", i ? "," : "", pairs ? "[\"" : "\"");
        add_spelling(t, t->merge[i].left, out);
        text_add(out, pairs ? "\", \"" : " ");
        add_spelling(t, t->merge[i].right, out);
        text_add(out, pairs ? "\"]" : "\"");
    }
    text_add(out, "\n    ]");
}

/* "key": value for each field of OBJECT but "model"; the comma stands behind each. */
static status add_fields(json_t *object, const char *indent, text *out)
{
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value)
    {
        if (!strcmp(key, "model")) continue;
        char *dumped = json_dumps(value, JSON_ENCODE_ANY);
        if (!dumped) return fail(ERR_MEMORY, "writing the field '%s': out of memory", key);
        text_add(out, "%s\"%s\": %s,\n", indent, key, dumped);
        free(dumped);
    }
    return OK;
}

status tokenizer_save(const tokenizer *t, const char *path)
{
    text out = {0};
    text_add(&out, "{\n");
    status s = add_fields(t->shell, "  ", &out);
    text_add(&out, "  \"model\": {\n");
    if (!s) s = add_fields(json_object_get(t->shell, "model"), "    ", &out);
    file_writer *w;
    if (!s) s = file_create(path, &w);
    if (!s) {
        text_add(&out, "    \"vocab\": ");
        add_vocab(t, &out);
        text_add(&out, ",\n    \"merges\": ");
        add_merges(t, &out);
        text_add(&out, "\n  }\n}\n");
        s = file_write(w, out.data, out.bytes);
        if (!s) s = file_commit(w);
    }
    text_free(&out);
    return s;
}

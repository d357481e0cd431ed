/* Text to tokens and back. See handle.h and keel/keel.h. */
#include "library/handle.h"
#include <stdlib.h>
#include <string.h>

static status check_text(const char *text, size_t bytes)
{
    return text || !bytes ? OK : fail(ERR_USAGE, "a text of %zu bytes at NULL", bytes);
}

status tokens_of(keel_model *m, const char *text, size_t bytes, token_list *list)
{
    TRY(check_text(text, bytes));
    TRY(need_tokenizer(m));
    const i32 end = tokenizer_end(m->tokenizer);
    if (end >= 0) {
        TRY(mem_alloc(sizeof(i32), "tokens", &list->id));
        list->id[0] = end;
        list->count = 1;
        list->capacity = 1;
    }
    return tokenizer_encode(m->tokenizer, text ? text : "", bytes, SPECIAL_PLAIN, list);
}

static status tokenize(keel_model *m, const char *text, size_t bytes, int32_t **ids, size_t *count)
{
    token_list list = {0};
    if (!ids || !count) return fail(ERR_USAGE, "no place for the tokens");
    TRY(check_text(text, bytes));
    TRY(need_tokenizer(m));
    status s = tokenizer_encode(m->tokenizer, text ? text : "", bytes, SPECIAL_PLAIN, &list);
    if (!s && !list.id) s = mem_alloc(sizeof(i32), "tokens", &list.id); // none: still something to release
    if (s) {
        token_list_free(&list);
        return s;
    }
    *ids = list.id, *count = (size_t)list.count;
    return OK;
}

keel_status keel_tokenize(keel_model *m, const char *text, size_t bytes, int32_t **ids, size_t *count)
{
    if (!handle_enter(m)) return KEEL_ERROR_USAGE;
    return handle_leave(m, tokenize(m, text, bytes, ids, count));
}

static status detokenize(keel_model *m, const int32_t *ids, size_t n, char **text, size_t *bytes)
{
    size_t length = 0;
    if (!text || !bytes || (!ids && n)) return fail(ERR_USAGE, "no tokens, or no place for their text");
    TRY(need_tokenizer(m));
    for (size_t i = 0; i < n; i++) {
        token_bytes b = tokenizer_decode(m->tokenizer, ids[i]);
        if (!b.data)
            return fail(ERR_INPUT, "token %zu of %zu is %d, which the tokenizer does not have", i + 1, n,
                        ids[i]);
        length += b.bytes;
    }
    char *out;
    TRY(mem_alloc(length + 1, "text", &out));
    char *at = out;
    for (size_t i = 0; i < n; i++) {
        token_bytes b = tokenizer_decode(m->tokenizer, ids[i]);
        memcpy(at, b.data, b.bytes);
        at += b.bytes;
    }
    *text = out, *bytes = length;
    return OK;
}

keel_status keel_detokenize(keel_model *m, const int32_t *ids, size_t n, char **text, size_t *bytes)
{
    if (!handle_enter(m)) return KEEL_ERROR_USAGE;
    return handle_leave(m, detokenize(m, ids, n, text, bytes));
}

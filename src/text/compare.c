/* Compression and fertility of a tokenizer: see compare.h. */
#include "text/compare.h"
#include "text/word_break.h"
#include "text/word_count.h"
#include <string.h>
#include <time.h>

static double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* A place in the tokens of a text that moves on with the text. */
typedef struct walk {
    const tokenizer *t;
    const token_list *ids;
    i64 next;  // token
    size_t at; // where it starts in the text
} walk;

/* Is the word from FROM to TO a token, alone or with one byte in front, the blank? */
static bool word_is_token(walk *w, size_t from, size_t to)
{
    while (w->next < w->ids->count && w->at < from) {
        size_t end = w->at + tokenizer_decode(w->t, w->ids->id[w->next]).bytes;
        if (end >= to) break;
        w->at = end, w->next++;
    }
    if (w->next == w->ids->count) return false;
    size_t end = w->at + tokenizer_decode(w->t, w->ids->id[w->next]).bytes;
    return end == to && (w->at == from || w->at + 1 == from);
}

static void count_words(fertility *f, walk *w, const u8 *p, size_t n)
{
    for (size_t at = 0, from, bytes; at < n;) {
        for (; at < n && (bytes = text_is_blank(p + at, n - at)); at += bytes) f->characters++;
        from = at;
        for (; at < n && !text_is_blank(p + at, n - at); at += bytes, f->characters++)
            utf8_decode(p + at, n - at, &bytes);
        if (at == from) break;
        f->words++;
        f->whole += word_is_token(w, from, at);
    }
}

status fertility_add(fertility *f, encoder *e, const tokenizer *t, const char *text, size_t n, u8 *used)
{
    token_list ids = {0};
    double start = seconds_now();
    status s = encoder_run(e, text, n, SPECIAL_PLAIN, &ids);
    f->seconds += seconds_now() - start;
    if (!s) {
        walk w = {t, &ids, 0, 0};
        f->bytes += (i64)n, f->tokens += ids.count;
        count_words(f, &w, (const u8 *)text, n);
        for (i64 i = 0; used && i < ids.count; i++) used[ids.id[i]] = 1;
    }
    token_list_free(&ids);
    return s;
}

status tokenizer_shared(const tokenizer *a, const tokenizer *b, i64 *shared)
{
    word_table table = {0};
    status s = OK;
    *shared = 0;
    for (i64 id = 0; !s && id < tokenizer_vocab(b); id++) {
        token_bytes x = tokenizer_decode(b, (i32)id);
        const u8 *bytes = (const u8 *)x.data;
        if (bytes) s = word_table_add(&table, word_hash(bytes, x.bytes), bytes, x.bytes, 1);
    }
    for (i64 id = 0; !s && id < tokenizer_vocab(a); id++) {
        token_bytes x = tokenizer_decode(a, (i32)id);
        const u8 *bytes = (const u8 *)x.data;
        *shared += bytes && word_table_find(&table, word_hash(bytes, x.bytes), bytes, x.bytes);
    }
    word_table_free(&table);
    return s;
}

/* Encoding: see tokenizer.h.
 *
 * A text is cut at the added tokens that count (leftmost, longest first), the rest into the pattern's pieces,
 * a piece into tokens by bpe.c. English repeats its words, so a direct-mapped cache of one cache line a word
 * answers most pieces; it changes no result. */
#define XXH_INLINE_ALL
#include "text/grow.h"
#include "text/tokenizer.h"
#include "text/tokenizer_impl.h"
#include <string.h>
#include <xxhash.h>

enum { CACHE_LINES = 1 << 15, CACHED_BYTES = 30, CACHED_IDS = 8 };

typedef struct cache_line { // 64 bytes
    u8 bytes, count;        // bytes = 0: empty
    char piece[CACHED_BYTES];
    i32 id[CACHED_IDS];
} cache_line;

struct encoder {
    const tokenizer *t;
    splitter *splitter;
    cache_line *cache;
    bpe_scratch scratch;
};

status encoder_open(const tokenizer *t, encoder **out)
{
    encoder *e;
    TRY(mem_alloc(sizeof *e, "encoder", &e));
    e->t = t;
    status s = splitter_open(t->pattern, &e->splitter);
    if (!s) s = mem_alloc(CACHE_LINES * sizeof(cache_line), "encoder's cache", &e->cache);
    if (s)
        encoder_close(e);
    else
        *out = e;
    return s;
}

void encoder_close(encoder *e)
{
    if (!e) return;
    splitter_close(e->splitter);
    mem_free(e->cache);
    bpe_scratch_free(&e->scratch);
    mem_free(e);
}

static status merge_piece(encoder *e, const u8 *piece, size_t n, i32 *ids, i64 *count)
{
    i32 whole = e->t->whole_piece ? tokenizer_whole(e->t, piece, n) : -1;
    if (whole < 0) return bpe_encode(&e->t->bpe, &e->scratch, piece, n, ids, count);
    ids[0] = whole;
    *count = 1;
    return OK;
}

static status encode_piece(encoder *e, const u8 *piece, size_t n, token_list *out)
{
    if (out->capacity - (size_t)out->count < MAX(n, (size_t)CACHED_IDS))
        TRY(grow(&out->id, &out->capacity, (size_t)out->count + MAX(n, (size_t)CACHED_IDS), sizeof(i32),
                 "tokens"));
    i32 *ids = out->id + out->count;
    i64 count;
    cache_line *line = &e->cache[XXH3_64bits(piece, n) & (CACHE_LINES - 1)];
    if (line->bytes == n && !memcmp(line->piece, piece, n)) {
        memcpy(ids, line->id, sizeof line->id);
        out->count += line->count;
        return OK;
    }
    TRY(merge_piece(e, piece, n, ids, &count));
    if (n <= CACHED_BYTES && count <= CACHED_IDS) {
        line->bytes = (u8)n, line->count = (u8)count;
        memcpy(line->piece, piece, n);
        memcpy(line->id, ids, (size_t)count * sizeof *ids);
    }
    out->count += count;
    return OK;
}

static status encode_ordinary(encoder *e, const char *text, size_t n, token_list *out)
{
    splitter_start(e->splitter, text, n);
    for (;;) {
        const u8 *piece;
        size_t bytes;
        TRY(splitter_next(e->splitter, &piece, &bytes));
        if (!bytes) return OK;
        TRY(encode_piece(e, piece, bytes, out));
    }
}

/* The longest added token that TEXT begins with, or NULL; with PLAIN those that are not special only. */
static const added_token *token_here(const tokenizer *t, const trie *trie, const char *text, size_t n,
                                     bool plain)
{
    const added_token *found = NULL;
    i32 at = 0;
    for (size_t i = 0; i < n; i++) {
        for (at = trie->node[at].child; at >= 0 && trie->node[at].byte != (u8)text[i];)
            at = trie->node[at].sibling;
        if (at < 0) break;
        i32 added = trie->node[at].added;
        if (added >= 0 && !(plain && t->added[added].special)) found = &t->added[added];
    }
    return found;
}

/* Encodes a stretch of the text that starts at BASE, cutting at the added tokens of trie PASS, then of the
 * next. */
static status encode_cut(encoder *e, int pass, const char *base, const char *text, size_t n,
                         special_mode mode, token_list *out)
{
    if (pass == 2) return encode_ordinary(e, text, n, out);
    const trie *trie = &e->t->trie[pass];
    size_t start = 0;
    for (size_t i = 0; i < n;) {
        const added_token *token = NULL;
        if (trie->first[(u8)text[i]]) token = token_here(e->t, trie, text + i, n - i, mode == SPECIAL_PLAIN);
        if (!token) {
            i++;
            continue;
        }
        if (token->special && mode == SPECIAL_FORBID)
            return fail(
                ERR_INPUT,
                "the text holds the special token '%s' at byte %zu: allow special tokens, or take them as "
                "plain text",
                token->content, (size_t)(text - base) + i);
        if (i > start) TRY(encode_cut(e, pass + 1, base, text + start, i - start, mode, out));
        TRY(grow(&out->id, &out->capacity, (size_t)out->count + 1, sizeof(i32), "tokens"));
        out->id[out->count++] = token->id;
        start = i += token->bytes;
    }
    return start < n ? encode_cut(e, pass + 1, base, text + start, n - start, mode, out) : OK;
}

status encoder_run(encoder *e, const char *text, size_t n, special_mode mode, token_list *out)
{
    i64 before = out->count;
    bool cut = mode == SPECIAL_PLAIN ? e->t->any_plain : e->t->added_count > 0;
    status s = cut ? encode_cut(e, 0, text, text, n, mode, out) : encode_ordinary(e, text, n, out);
    if (s) out->count = before;
    return s;
}

status tokenizer_encode(const tokenizer *t, const char *text, size_t n, special_mode mode, token_list *out)
{
    encoder *e;
    TRY(encoder_open(t, &e));
    status s = encoder_run(e, text, n, mode, out);
    encoder_close(e);
    return s;
}

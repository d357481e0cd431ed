/* Encoding: see tokenizer.h.
 *
 * A text is cut at the added tokens that count (leftmost, longest first), the rest into the pattern's pieces,
 * a piece into tokens by bpe.c. English repeats its words, so a direct-mapped cache of one cache line a word
 * answers most pieces; it changes no result. */
#define XXH_INLINE_ALL
#include "base/text.h"
#include "text/grow.h"
#include "text/nfc.h"
#include "text/tokenizer.h"
#include "text/tokenizer_impl.h"
#include "text/word_break.h"
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
    splitter *splitter[MAX_STAGES];
    cache_line *cache;
    bpe_scratch scratch;
    text normal; // a stretch in NFC, while it is encoded
};

status encoder_open(const tokenizer *t, encoder **out)
{
    encoder *e;
    TRY(mem_alloc(sizeof *e, "encoder", &e));
    e->t = t;
    status s = OK;
    for (int i = 0; i < t->stages && !s; i++) s = splitter_open(t->stage[i].pattern, &e->splitter[i]);
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
    for (int i = 0; i < MAX_STAGES; i++) splitter_close(e->splitter[i]);
    text_free(&e->normal);
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

/* Cuts by the patterns of STAGE and the later ones, each piece of one being the whole text of the next. */
static status encode_ordinary(encoder *e, int stage, const char *text, size_t n, token_list *out)
{
    if (stage == e->t->stages) return n ? encode_piece(e, (const u8 *)text, n, out) : OK;
    splitter *s = e->splitter[stage];
    splitter_start(s, text, n);
    for (;;) {
        const u8 *piece;
        size_t bytes;
        TRY(splitter_next(s, &piece, &bytes));
        if (!bytes) return OK;
        if (stage + 1 == e->t->stages)
            TRY(encode_piece(e, piece, bytes, out));
        else
            TRY(encode_ordinary(e, stage + 1, (const char *)piece, bytes, out));
    }
}

/* The longest added token that TEXT begins with, *bytes of it, or NULL; with PLAIN those that are not special
 * only. */
static const added_token *token_here(const tokenizer *t, const trie *trie, const char *text, size_t n,
                                     bool plain, size_t *bytes)
{
    const added_token *found = NULL;
    i32 at = 0;
    for (size_t i = 0; i < n; i++) {
        for (at = trie->node[at].child; at >= 0 && trie->node[at].byte != (u8)text[i];)
            at = trie->node[at].sibling;
        if (at < 0) break;
        i32 added = trie->node[at].added;
        if (added >= 0 && !(plain && t->added[added].special)) found = &t->added[added], *bytes = i + 1;
    }
    return found;
}

/* Is the place between A and B, which holds a found token, no part of a word on either side? */
static bool stands_alone(const char *text, size_t n, size_t from, size_t to)
{
    size_t before = from;
    while (before && from - before < 4 && ((u8)text[--before] & 0xC0) == 0x80) {}
    return !(from && text_is_word((const u8 *)text + before, from - before)) &&
           !(to < n && text_is_word((const u8 *)text + to, n - to));
}

/* What lstrip and rstrip swallow: the white space that ends at AT, not beyond LEAST; that starts at AT. */
static size_t blank_before(const char *text, size_t least, size_t at)
{
    for (size_t from = at; from > least; at = from) {
        do from--;
        while (from > least && ((u8)text[from] & 0xC0) == 0x80);
        if (text_is_blank((const u8 *)text + from, at - from) != at - from) break;
    }
    return at;
}

static size_t blank_behind(const char *text, size_t n, size_t at)
{
    for (size_t bytes; at < n && (bytes = text_is_blank((const u8 *)text + at, n - at)); at += bytes) {}
    return at;
}

static status forbidden(const added_token *token, size_t at)
{
    return fail(
        ERR_INPUT,
        "the text holds the special token '%s' at byte %zu: allow special tokens, or take them as plain text",
        token->content, at);
}

/* Encodes a stretch, OFFSET bytes into the text, cutting at the added tokens of trie PASS, then of the next;
 * those of the second are looked for in normalized text. */
static status encode_cut(encoder *e, int pass, size_t offset, const char *text, size_t n, special_mode mode,
                         token_list *out)
{
    if (pass == 1 && e->t->nfc) TRY(nfc_normalize(&text, &n, &e->normal));
    if (pass == 2) return encode_ordinary(e, 0, text, n, out);
    const trie *trie = &e->t->trie[pass];
    size_t start = 0;
    for (size_t i = 0; i < n;) {
        const added_token *token = NULL;
        size_t bytes = 0;
        if (trie->first[(u8)text[i]])
            token = token_here(e->t, trie, text + i, n - i, mode == SPECIAL_PLAIN, &bytes);
        if (!token) {
            i++;
            continue;
        }
        size_t end = i + bytes;
        if (token->single_word && !stands_alone(text, n, i, end)) {
            i = end;
            continue;
        }
        if (token->special && mode == SPECIAL_FORBID) return forbidden(token, offset + i);
        size_t from = token->lstrip ? blank_before(text, start, i) : i;
        if (from > start) TRY(encode_cut(e, pass + 1, offset + start, text + start, from - start, mode, out));
        TRY(grow(&out->id, &out->capacity, (size_t)out->count + 1, sizeof(i32), "tokens"));
        out->id[out->count++] = token->id;
        // The search goes on behind the token itself: as in the reference, a token within swallowed white
        // space is still found, and what is left of that white space behind it is text again.
        start = token->rstrip ? blank_behind(text, n, end) : end;
        i = end;
    }
    return start < n ? encode_cut(e, pass + 1, offset + start, text + start, n - start, mode, out) : OK;
}

status encoder_run(encoder *e, const char *text, size_t n, special_mode mode, token_list *out)
{
    i64 before = out->count;
    bool cut = e->t->nfc || (mode == SPECIAL_PLAIN ? e->t->any_plain : e->t->added_count > 0);
    status s = cut ? encode_cut(e, 0, 0, text, n, mode, out) : encode_ordinary(e, 0, text, n, out);
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

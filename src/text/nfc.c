/* Normalization form C: see nfc.h.
 *
 * utf8proc does the work; what it is spared is most of every text. A character is plain when it is a starter,
 * is its own NFC, and never composes with what stands before it (Unicode's Quick_Check = Yes and combining
 * class 0); so text of plain characters is normalized, and a text may be cut before any plain character. Only
 * the stretches from the last plain character before another one to the next plain one are given to utf8proc.
 * The ranges cover the common scripts, not all plain characters; tests/test_tokenizer_nfc.c proves each of
 * them.
 *
 * Source: Unicode Standard Annex 15, sections 9 and 13. */
#include "text/nfc.h"
#include "text/grow.h"
#include "text/utf8.h"
#include "text/word_break.h"
#include <utf8proc.h>

enum { LONGEST_RUN = 64 << 10 };

bool nfc_plain(u32 c)
{
    static const u32 range[][2] = {{0x0000, 0x02FF}, {0x0370, 0x0373}, {0x0388, 0x0482},  {0x048A, 0x0590},
                                   {0x05D0, 0x060F}, {0x0620, 0x064A}, {0x0660, 0x066F},  {0x0671, 0x06D5},
                                   {0x0904, 0x093B}, {0x0E01, 0x0E37}, {0x0E3F, 0x0E47},  {0x10A0, 0x10FF},
                                   {0x1200, 0x135C}, {0x1E00, 0x1EFF}, {0x2010, 0x20CF},  {0x2190, 0x2328},
                                   {0x232B, 0x2ADB}, {0x2E80, 0x3029}, {0x3030, 0x3098},  {0x309B, 0xA66E},
                                   {0xAC00, 0xD7A3}, {0xFF00, 0xFFFD}, {0x1F000, 0x1FAFF}};
    if (c < 0x300) return true;
    for (i64 i = 1; i < COUNT(range) && c >= range[i][0]; i++)
        if (c <= range[i][1]) return true;
    return false;
}

/* An ill-formed byte counts as a plain character of one byte: it is U+FFFD here. */
static bool plain_here(const u8 *p, size_t left, size_t *bytes)
{
    return nfc_plain(utf8_decode(p, left, bytes));
}

typedef struct composer {
    i32 *code;
    size_t capacity;
} composer;

static status compose(composer *w, const u8 *p, size_t n, text *out)
{
    const utf8proc_option_t form = UTF8PROC_STABLE | UTF8PROC_COMPOSE;
    utf8proc_ssize_t codes = utf8proc_decompose(p, (utf8proc_ssize_t)n, NULL, 0, form);
    if (codes >= 0) {
        TRY(grow(&w->code, &w->capacity, (size_t)codes + 1, sizeof *w->code, "normalizing"));
        codes = utf8proc_decompose(p, (utf8proc_ssize_t)n, w->code, codes, form);
    }
    utf8proc_ssize_t bytes = codes < 0 ? codes : utf8proc_reencode(w->code, codes, form);
    if (bytes < 0) return fail(ERR_INPUT, "normalizing %zu bytes: %s", n, utf8proc_errmsg(bytes));
    text_add_bytes(out, (const char *)w->code, (size_t)bytes);
    return OK;
}

/* The first character from AT on that is not plain; *plain_before: where the last plain one before it starts,
 * or AT. N when there is none. */
static size_t next_odd(const u8 *p, size_t n, size_t at, size_t *plain_before)
{
    *plain_before = at;
    for (size_t bytes = 1; at < n; *plain_before = at, at += bytes, bytes = 1)
        if (p[at] >= 0x80 && !plain_here(p + at, n - at, &bytes)) return at;
    return n;
}

static size_t run_end(const u8 *p, size_t n, size_t at)
{
    const size_t start = at;
    for (size_t bytes; at < n && at - start < LONGEST_RUN; at += bytes)
        if (plain_here(p + at, n - at, &bytes)) break;
    return at;
}

status nfc_normalize(const char **text_in, size_t *length, text *room)
{
    const u8 *p = (const u8 *)*text_in;
    const size_t n = *length;
    size_t from, odd = next_odd(p, n, 0, &from), done = 0;
    if (odd == n) return OK;
    composer w = {0};
    status s = OK;
    room->bytes = 0;
    text_add_bytes(room, "", 0);
    for (; !s && odd < n; odd = next_odd(p, n, done, &from)) {
        size_t end = run_end(p, n, odd);
        if (utf8_character(p + from, n - from) == 0) from++; // an ill-formed byte composes with nothing
        text_add_bytes(room, (const char *)p + done, from - done);
        s = compose(&w, p + from, end - from, room);
        done = end;
    }
    text_add_bytes(room, (const char *)p + done, n - done);
    mem_free(w.code);
    *text_in = room->data, *length = room->bytes;
    return s;
}

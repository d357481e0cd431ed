/* pattern: cutting text into the pieces that byte-pair merges never cross ("pre-tokenization").
 *
 *     pattern *p;
 *     TRY(pattern_open("gpt2", &p));
 *     splitter *s;                                     // one a thread; P must outlive it
 *     TRY(splitter_open(p, &s));
 *     splitter_start(s, bytes, n);
 *     const u8 *piece;
 *     size_t length;
 *     while (!(st = splitter_next(s, &piece, &length)) && length) ...
 *
 * The pieces, in order, are the text: nothing is lost. Text is cut at maximal stretches of well-formed UTF-8;
 * a run of bytes outside them is a piece of its own, and what no alternative of the pattern matches is one
 * too. */
#pragma once
#include "base/base.h"

typedef struct pattern pattern;
typedef struct splitter splitter;

/* The patterns Keel knows: a name, and the regular expression as tokenizer files spell it. */
typedef struct pattern_row {
    const char *name, *regex;
    const char *fast; // an equivalent form that is matched instead; NULL: regex itself
} pattern_row;
i64 pattern_count(void);
const pattern_row *pattern_at(i64 i);
const pattern_row *pattern_named(const char *name);     // NULL when there is none
const pattern_row *pattern_of_regex(const char *regex); // NULL when no row is spelled so

/* ERR_CONFIG for a name that is not in the table; the message lists the names. Shareable between threads. */
status pattern_open(const char *name, pattern **out) MUST;
/* Compiles any regular expression: \s is Unicode's 25 white-space code points, $ the end of the text.
 * ERR_FORMAT with the place of a mistake. */
status pattern_compile(const char *regex, pattern **out) MUST;
/* Does REGEX, of a tokenizer file written for another engine, mean the same here? ERR_FORMAT with the first
 * part that may not: anchors, look-behinds, back-references, escapes beyond \s \S \d \w \p \P \r \n \t. */
status pattern_portable(const char *regex) MUST;
void pattern_close(pattern *p); // NULL allowed
/* "14.0.0": the Unicode version behind \p{L} and \p{N}. */
void pattern_unicode_version(char out[32]);

status splitter_open(const pattern *p, splitter **out) MUST;
void splitter_close(splitter *s);                                 // NULL allowed
void splitter_start(splitter *s, const void *text, size_t bytes); // borrows TEXT until the last piece
/* The next piece; *bytes = 0 behind the last. ERR_MEMORY when matching needs more than there is. */
status splitter_next(splitter *s, const u8 **piece, size_t *bytes) MUST;

/* compare: what a tokenizer makes of a text, so that two can be compared on it.
 *
 *     fertility f = {0};
 *     TRY(fertility_add(&f, encoder, text, n, used));  // as often as there are texts
 *     printf("%.3f bytes a token, %.3f tokens a word\n", (double)f.bytes / f.tokens, (double)f.tokens /
 * f.words);
 *
 * Compression is bytes a token, fertility tokens a word: a word is a run without white space (Unicode's), as
 * in Rust et al., arXiv:2012.15613, section 3.2, which counts subwords a word. */
#pragma once
#include "text/tokenizer.h"

typedef struct fertility {
    i64 bytes, tokens, words, characters;
    i64 whole; // words that are one token: alone, or with the blank before them
    double seconds;
} fertility;

/* USED [vocab], may be NULL: set to 1 for every id that occurs. ERR_INPUT, ERR_MEMORY as encoder_run. */
status fertility_add(fertility *f, encoder *e, const tokenizer *t, const char *text, size_t n, u8 *used) MUST;
/* How many ids of A have bytes that are a token of B too. ERR_MEMORY. */
status tokenizer_shared(const tokenizer *a, const tokenizer *b, i64 *shared) MUST;

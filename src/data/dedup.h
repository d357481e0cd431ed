/* dedup: which documents of a corpus repeat earlier ones.
 *
 *     deduper *d;
 *     TRY(deduper_open("minhash", threads, &d));       // NULL for "none"
 *     TRY(deduper_look(d, thread, slot, text, n, false));   // each document, on any thread
 *     TRY(deduper_keep(d, slot));                      // in order
 *     TRY(deduper_finish(d, &drop));                   // drop[i]: document I repeats one before it
 *     deduper_close(d);
 *
 * exact    equal but for the amount of white space (XXH3-128 of the text with each run of it as one blank)
 * minhash  nearly equal: of the words (lower case, without punctuation) all runs of five are a set, and two
 * documents with a Jaccard similarity s of these sets meet with probability 1 - (1 - s^8)^14: 92 % at 0.8, 36
 * % at 0.6. Documents that meet, also by way of others, are one cluster, of which the first is kept.
 *
 * Source: Broder, "On the resemblance and containment of documents", SEQUENCES 1997; 14 bands of 8 and
 * 5-grams are datatrove's defaults. The result depends on the documents and their order alone. */
#pragma once
#include "base/base.h"

enum { DEDUP_BANDS = 14, DEDUP_ROWS = 8, DEDUP_WORDS = 5, DEDUP_HASHES = DEDUP_BANDS * DEDUP_ROWS };

typedef struct deduper deduper;
status deduper_open(const char *kind, int threads, deduper **out) MUST; // ERR_CONFIG: no such kind
void deduper_close(deduper *d);                                         // NULL allowed
/* SLOT below PIPE_DOCUMENTS, kept until deduper_keep. TOKENS: the text is i32 ids, each a word. */
status deduper_look(deduper *d, int thread, i64 slot, const u8 *text, i64 bytes, bool tokens) MUST;
status deduper_keep(deduper *d, i64 slot) MUST;
status deduper_finish(deduper *d, u8 **drop) MUST; // one byte a document, in order; release with mem_free

/* The signature itself: OUT[DEDUP_HASHES], equal values in a share of places that estimates the similarity.
 * SCRATCH is kept between calls; release with dedup_scratch_free. */
typedef struct dedup_scratch {
    u64 *word;
    size_t capacity;
    u8 *text;
    size_t text_capacity;
} dedup_scratch;
status minhash_of(const u8 *text, i64 bytes, bool tokens, dedup_scratch *scratch, u64 out[DEDUP_HASHES]) MUST;
void dedup_scratch_free(dedup_scratch *scratch);

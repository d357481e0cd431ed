/* merge_learner: byte-pair merges from counted words.
 *
 *     learner_options o = {.vocab = 32768, .first_id = 257, .byte_id = {...}, .min_frequency = 2, ...};
 *     learned l;
 *     TRY(merges_learn(tables, table_count, &o, &l));     // l.merge[0 ... l.merges - 1] in order of rank
 *     learned_free(&l);
 */
#pragma once
#include "text/word_count.h"

typedef struct learner_options {
    i64 vocab;    // stop when the next id would be this
    i32 first_id; // id of the first merge
    i32 byte_id[256];
    u64 min_frequency;          // pairs rarer than this are not merged; >= 1
    u64 memory_bytes;           // ERR_MEMORY beyond
    const word_table *reserved; // byte strings that must not become tokens (spelled like special tokens)
    void (*progress)(void *context, const char *stage, i64 done, i64 total); // may be NULL
    void *context;
} learner_options;

typedef struct learned_merge {
    i32 left, right, id; // a new id, or an older one when its bytes were a token already
} learned_merge;

typedef struct learned {
    learned_merge *merge;
    i64 merges;
    i64 ids;        // new ids: first_id ... first_id + ids - 1
    u64 tokens;     // that all occurrences of all words make in the end
    u64 peak_bytes; // working memory at its largest
} learned;

/* Learns from all words of the N tables, which it empties once it has copied them (its memory is the larger).
 * The result depends on the counts alone. ERR_MEMORY beyond memory_bytes or 2^31 bytes of distinct words. */
status merges_learn(word_table *tables, i64 n, const learner_options *o, learned *out) MUST;
void learned_free(learned *l);

/* train_bpe: trains a byte-level BPE tokenizer on documents.
 *
 *     bpe_trainer *b;
 *     TRY(bpe_trainer_open(&(bpe_options){.vocab = 32768}, &b));
 *     for (each document) TRY(bpe_trainer_add(b, document, bytes));    // or close B and pass the error on
 *     s = bpe_trainer_finish(b, &tokenizer, &stats);
 *     bpe_trainer_close(b);
 *
 * Ids: special tokens, then the 256 bytes in order of the byte alphabet, then merges. The result depends on
 * the documents, their order where memory is short, and the options; never on the number of threads. */
#pragma once
#include "text/tokenizer.h"

typedef struct bpe_options {
    i64 vocab;                   // entries in all, specials and bytes included; 0: 16Ki
    const char *const *specials; // spelled as they are to be found; NULL: one, <|endoftext|>
    i64 special_count;
    const char *pattern; // a name of pattern.h; NULL: gpt2
    int threads;         // 0: as many as OpenMP gives
    i64 memory_bytes;    // cap on working memory, at least 16 MiB; 0: 2 GiB
    i64 min_frequency;   // pairs rarer than this are not merged; 0: 2
    void (*progress)(void *context, const char *stage, i64 done, i64 total); // NULL; stages counting, merging
    void *context;
} bpe_options;

typedef struct bpe_stats {
    u64 documents, bytes, pieces; // read
    u64 words;                    // distinct pieces that were kept
    u64 words_dropped,
        pieces_dropped;        // rare words forgotten to stay within memory_bytes (0: all were counted)
    u64 counted_bytes, tokens; // of the pieces that were kept: counted_bytes / tokens is the compression
    i64 vocab, merges;         // got; fewer than asked when no pair was frequent enough
    u64 working_bytes;         // peak of tables, without the text and the finished tokenizer
    double count_seconds, merge_seconds;
} bpe_stats;

typedef struct bpe_trainer bpe_trainer;
/* ERR_CONFIG for an option out of range, by name. The strings of O must live until finish. */
status bpe_trainer_open(const bpe_options *o, bpe_trainer **out) MUST;
void bpe_trainer_close(bpe_trainer *b); // NULL allowed
/* Counts the pieces of one document: any bytes. TEXT is free again on return. ERR_MEMORY. */
status bpe_trainer_add(bpe_trainer *b, const char *text, size_t n) MUST;
/* Learns the merges; B can only be closed afterwards. STATS may be NULL. */
status bpe_trainer_finish(bpe_trainer *b, tokenizer **out, bpe_stats *stats) MUST;

/* The first place at or behind FROM where TEXT can be cut in two without changing its pieces under any
 * pattern of the table; N when there is none. */
size_t bpe_safe_cut(const char *text, size_t n, size_t from);

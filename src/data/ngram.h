/* ngram: the bigram baseline, interpolated Kneser-Ney over tokens: what counting alone predicts.
 *
 *     bigram *g;
 *     TRY(bigram_open(vocab, &g));
 *     TRY(bigram_count(g, tokens, targets, n));      // as often as needed
 *     TRY(bigram_finish(g));
 *     double p = bigram_probability(g, context, target);        // sums to 1 over targets, never 0
 *
 * A model that does not beat it on the same data has learned nothing but pairs. */
#pragma once
#include "base/base.h"
#include "data/dataset.h"

typedef struct bigram bigram;
status bigram_open(i64 vocab, bigram **out) MUST; // ERR_CONFIG: vocab < 1
void bigram_close(bigram *g);                     // NULL allowed
/* Counts the pairs (tokens[i], targets[i]), i < n; targets below 0 are no pairs. Ids must be in [0, vocab).
 * Before bigram_finish. ERR_MEMORY. */
status bigram_count(bigram *g, const i32 *tokens, const i32 *targets, i64 n) MUST;
status bigram_finish(bigram *g) MUST; // ERR_INPUT: nothing was counted
i64 bigram_pairs(const bigram *g);    // counted, with repetition
i64 bigram_distinct(const bigram *g);
double bigram_probability(const bigram *g, i32 context, i32 target); // after bigram_finish; thread safe

/* ---- the baseline of a data set */
typedef struct bigram_options {
    i64 tokens;  // train on the first so many tokens in the loader's order (whole samples; at most an epoch);
                 // 0: all of the train split
    u64 seed;    // of that order
    i64 context; // T of the model compared with: the validation positions are its positions
    bool boundaries; // also score the first token of a document after EOS (data.mask_boundary_loss: false)
} bigram_options;

typedef struct bigram_report {
    i64 train_tokens, pairs, distinct;
    i64 targets, bytes; // scored on validation: tokens, and bytes of text they stand for
    double nats_per_token, bits_per_byte;
} bigram_report;

/* Counts on train (document starts after EOS are legal contexts there), scores validation from its first
 * sample to its last, once. ERR_INPUT: a split is too small. */
status bigram_baseline(const dataset *d, const bigram_options *o, bigram_report *out) MUST;

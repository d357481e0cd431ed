/* score: the log-likelihood of the last tokens of a sequence, given those before them.
 *
 *     scorer *s;
 *     TRY(scorer_open(config, &(scorer_options){.device = d, .isa = level, .weights = path}, &s));
 *     score_request r = {.ids = ids, .count = 7, .targets = 2};      // the first five are the context
 *     score x;
 *     TRY(scorer_run(s, &r, 1, &x));                                 // x.nats = -log p(last two | first
 * five) scorer_close(s);
 *
 * Every request runs alone, as one row padded to a length that its own number of tokens decides, so its bits
 * do not depend on what is scored beside it, nor in what order: batches exist only so that requests of one
 * length share a program. */
#pragma once
#include "config/config.h"
#include "device/device.h"
#include "graph/store.h"

typedef struct scorer scorer;
typedef struct scorer_options {
    device *device;
    isa isa;
    const char *weights; // model.safetensors; NULL: zeros, to be set through scorer_store
    bool greedy;         // fill score.greedy too, for which all logits of a row are kept
} scorer_options;

typedef struct score_request {
    const i32 *ids;     // [count], borrowed
    i64 count, targets; // 1 <= targets < count <= context + 1: the last TARGETS are scored
} score_request;

typedef struct score {
    double nats; // -sum of the log-probabilities of the targets
    bool greedy; // every target is the likeliest token (of equal ones the first); false unless asked for
} score;

/* Precision is train.precision's of C, which must outlive the scorer. ERR_MEMORY: weights beyond this
 * machine's memory. */
status scorer_open(const config *c, const scorer_options *o, scorer **out) MUST;
void scorer_close(scorer *s); // NULL allowed
/* Scores N requests into OUT[0 ... n). ERR_INPUT: a request of a wrong size, or an id beyond the vocabulary;
 * ERR_NUMERIC: a score that is not finite; ERR_MEMORY: logits of a row beyond memory. */
status scorer_run(scorer *s, const score_request *r, i64 n, score *out) MUST;
i64 scorer_context(const scorer *s); // tokens a row can hold: model.context
store *scorer_store(scorer *s);      // its weights: tests set them directly

/* loader: training rows from a data set, in an order that is computed, so that a position is one number.
 *
 *     loader *l;
 *     TRY(loader_open(d, DATA_TRAIN, &(loader_options){.context = 512, .rows = 8, .shuffle = true,
 *                                                      .document_mask = true, .mask_boundary_loss = true},
 * &l)); batch b = {.tokens = tokens, .targets = targets, .doc_start = starts, .position = positions};
 *     loader_next(l, &b);                          // a prefetch thread has it ready
 *     i64 at = loader_tell(l);                     // save this one number; loader_seek(l, at) resumes
 * exactly
 *
 * A sample is T + 1 consecutive tokens of the split's stream (document EOS document EOS ...): T tokens and,
 * one further, their T targets. Sample i starts at token i T; the last piece shorter than T + 1 is dropped.
 * Global index g stands for epoch g / samples and the (g mod samples)-th sample of that epoch's order.
 *
 * With best_fit a sample is a row of whole documents, as many as fit (data/pack.h), each with its EOS, the
 * rest EOS without loss. In a mixture the turns of the sources are computed too (data/quota.h); each has its
 * own order and its own epochs, and `samples` is that of all together.
 *
 * A call takes rows x ranks consecutive indices; rank r gets the r-th part of `rows` of them. So the batch of
 * a step is the same set of samples for every number of ranks (and of calls a step), and a position is
 * independent of both.
 */
#pragma once
#include "data/dataset.h"

typedef struct loader_options {
    i64 context;             // T
    i64 rows;                // a call and rank
    u64 seed;                // of the order
    bool shuffle;            // false: the stream's order (validation)
    bool once;               // one epoch only: after its end a batch has 0 rows (evaluation)
    bool document_mask;      // doc_start, position count within documents
    bool mask_boundary_loss; // with document_mask: no target that is the first token of the next document
    int ranks, rank;         // 0 ranks: 1
    bool best_fit;           // rows of whole documents; the train split alone
    const double *weight;    // of a mixture, a number a source of the data set; NULL: its stream as it is
    i64 weights;             // how many; 0: no mixture
} loader_options;

/* One call's rows; the caller owns the arrays, [rows * T] each. doc_start and position may be NULL. */
typedef struct batch {
    i32 *tokens;
    i32 *targets;   // -1: no loss here
    i32 *doc_start; // index in the row of the first token of the token's document: attention sees [doc_start,
                    // t]
    i32 *position;  // t - doc_start
    i64 rows;       // filled rows; fewer than asked only at the end with `once` (the rest: EOS, targets -1)
    i64 index;      // global index of row 0
    i64 n_valid;    // targets >= 0
    i64 bytes;      // of text that the valid targets stand for: bits per byte = nats / (bytes ln 2)
} batch;

/* Arrays of rows x context i32 that a loader and its caller's batch hold between them. */
enum { LOADER_SLOTS = 2, LOADER_ARRAYS = (LOADER_SLOTS + 1) * 4 };

typedef struct loader loader;
/* D must outlive it. ERR_CONFIG: context, rows, ranks or weights out of range; ERR_INPUT: the split, or a
 * source of the mixture, has no whole sample; ERR_MEMORY. Starts the prefetch thread, which never enters a
 * parallel region. */
status loader_open(const dataset *d, data_split split, const loader_options *o, loader **out) MUST;
void loader_close(loader *l);        // NULL allowed
i64 loader_samples(const loader *l); // an epoch
void loader_next(loader *l, batch *b);
/* Global index of the next call's first sample (of rank 0): the position, to be saved. */
i64 loader_tell(const loader *l);
i64 loader_epoch(const loader *l);             // loader_tell / loader_samples
status loader_seek(loader *l, i64 index) MUST; // ERR_INPUT: negative
/* Epochs of source I that the first N samples take: N times its share of them, over its own samples. */
double loader_source_epochs(const loader *l, i64 i, i64 n);

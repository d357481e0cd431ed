/* model: a configuration becomes a graph. A transformer block is made of slots; a method fills a slot, in
 * that slot's file; no `kind` is compared anywhere else.
 *
 *     model m;
 *     TRY(model_build(arena, config, &(model_shape){.rows = 8, .tokens = 256, .mode = MODE_TRAIN,
 *                                                   .act = DT_BF16, .stream = DT_BF16}, &m));
 *     TRY(graph_backward(m.g, NULL, NULL, 0));              // m.loss starts it
 *
 * Parameters are called blocks.3.attention.q.weight, norm_final.gain, embedding.weight, head.weight ... */
#pragma once
#include "config/config.h"
#include "graph/graph.h"

enum { DROP_ATTENTION = 1, DROP_FFN = 2 };
typedef struct model_shape {
    i64 rows, tokens; // of one run: sequences, and tokens of each (decode: new tokens)
    mode mode;
    dtype act, stream;
    i64 capacity;         // MODE_DECODE: tokens a cache holds
    bool originals;       // MODE_DECODE: only what the caches of a prompt need: no copies, no logits
    bool logits;          // keep the logits of every position (decode always does)
    bool no_loss;         // no targets, no loss
    const u8 *dropped;    // [layers], MODE_EVALUATE: DROP_ATTENTION, DROP_FFN: that branch of the block joins
                          // not; NULL: none
    bool dense_gradients; // look-ups' gradients too (dumps and checks read every gradient whole)
} model_shape;

/* A figure of health that an evaluation reports beside the loss, the mean over its runs and over gauges of
 * one name. */
typedef struct model_gauge {
    const char *name; // "memory_recall"
    tensor *value;    // [1] f32, kept
} model_gauge;
enum { MOST_GAUGES = 64 };

typedef struct model {
    graph *g;
    tensor *tokens, *position;   // [rows, tokens] i32
    tensor *doc_start, *targets; // the same; not in decode
    tensor *inverse_count;       // [1] f32: 1 / targets of the whole step
    tensor *past;                // decode: [rows] i32, tokens already in the caches
    tensor *fresh;     // decode, where copies see those of earlier tokens (model.repeat), else NULL:
                       // [rows] i32: the first so many new tokens are real, the rest is padding
    tensor *loss;      // [rows * tokens] f32: nats of each target, 0 where there is none
    tensor *objective; // [1] f32: what is minimised: inverse_count x (sum of loss + extra terms)
    tensor *logits;    // [rows, tokens, vocab]
    model_gauge gauge[MOST_GAUGES]; // MODE_EVALUATE
    i64 n_gauges;
} model;

/* ERR_CONFIG names file, line, key and the rule that the configuration breaks. */
status model_build(arena *a, const config *c, const model_shape *shape, model *out) MUST;
/* Does train.transfer change what C computes with its weights (not only where they start and how fast they
 * learn)? */
bool model_transferred(const config *c);
/* Copies of every token (model.repeat), itself included. */
i64 model_copies(const config *c);
/* The first token whose copies must have been computed, without a gap from there on, so that the logits
 * behind LENGTH tokens, and what the caches hold then, are exact: layers (window - 1) before the last, but
 * within its chunk. 0 without copies. */
i64 model_copied_from(const config *c, i64 length);
i64 model_copies_reach(const config *c); // how many tokens that are, at most; 0 without copies
/* Numbers about a built model. */
typedef struct model_figures {
    i64 parameters;         // all
    i64 active_parameters;  // those that a token passes through: of experts, the routed ones
    i64 matmul_parameters;  // active ones in matrix products: a tied head once; no look-ups, positions, gains
    double flops_per_token; // 6 N + 6 L T width: training, recomputation not counted; with K copies of every
                            // token 6 (K in blocks + the rest of N) + 6 K L T width
} model_figures;
void model_about(const model *m, const config *c, i64 tokens, model_figures *out);

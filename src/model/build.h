/* build: what the slots of a model share while its graph is being built. Only src/model includes this.
 *
 *     static tensor *gated(model_builder *b, tensor *x) { ... linear_in(b, ...) ... }
 */
#pragma once
#include "model/model.h"
#include "ops/op.h"

typedef struct model_builder {
    const config *c;
    const model_shape *shape;
    model *m;
    graph *g;
    i64 layer; // of the block under way; -1 outside. Getters below honour model.override for it
    i64 layers, width, vocab;
    i64 copies;       // rows of a token in the stream (repeat.c)
    tensor *position; // of the stream's rows
    tensor *extra;    // sum of the terms that model_add_loss added; NULL: none
    tensor *embedded; // embedding.c: a token's vector, before positions, dropout and norm
    tensor *stream;   // block.c: what the last block left, before the last norm
    bool out_normed;  // the branch under way has had its out norm: norm_expert_out
} model_builder;

static inline i64 of_count(const model_builder *b, const char *key)
{
    return config_count_at(b->c, b->layer, key);
}
static inline double of_number(const model_builder *b, const char *key)
{
    return config_number_at(b->c, b->layer, key);
}
static inline bool of_flag(const model_builder *b, const char *key)
{
    return config_flag_at(b->c, b->layer, key);
}
static inline i64 of_choice(const model_builder *b, const char *key)
{
    return config_choice_at(b->c, b->layer, key);
}
static inline bool of_is(const model_builder *b, const char *key, const char *value)
{
    return config_is_at(b->c, b->layer, key, value);
}
static inline bool of_has(const model_builder *b, const char *key, const char *choice)
{
    return config_has_choice_at(b->c, b->layer, key, choice);
}
/* Refuses the configuration at KEY, as the layer under way has it; the graph's sticky error holds it. */
#define refuse(b, key, ...) g_fail((b)->g, config_refuse_at((b)->c, (b)->layer, (key), __VA_ARGS__))

/* Adds TERM, [1] f32, output 0 of an OP_LOSS node and already weighted, to what is minimised. The node's own
 * gradients start there; TERM only enters the objective that is reported. Only in MODE_TRAIN. */
void model_add_loss(model_builder *b, tensor *term); // block.c
/* One more block, as the last one is configured, in the scope under way, on a stream that starts as X; a
 * token has one row there (model.repeat or not). */
tensor *model_extra_block(model_builder *b, tensor *x); // block.c
/* predict.c: losses of tokens further ahead; Z the last norm's output, W the head's matrix. */
void predict_ahead(model_builder *b, tensor *z, tensor *w);
/* Reports VALUE, [1] f32, as NAME at every evaluation (no effect in other modes, nor beyond MOST_GAUGES). */
void model_gauge_add(model_builder *b, const char *name, tensor *value); // block.c

/* ---- init.c: what a matrix starts from */
typedef enum matrix_part {
    PART_IN,
    PART_ATTENTION_OUT,
    PART_FFN_OUT,
    PART_EMBEDDING,
    PART_HEAD,
    PART_HELPER, // of a norm's gate and the like: starts as PART_IN, dense whatever linear.kind says
} matrix_part;
param_info init_matrix(const model_builder *b, matrix_part part, i64 inputs);
struct linear_map;
param_info init_linear(const model_builder *b, const struct linear_map *map, int i, i64 inputs); // its map I
param_info init_gain(void);
param_info init_bias(void);
param_info init_linear_bias(const model_builder *b); // of a map of the layer under way
void init_check(model_builder *b);                   // refuses what init.kind has no meaning with

/* ---- linear.c: y = x [W0; W1; W2]^T + biases, outputs side by side; names: "q", "k", "v" */
typedef struct linear_map {
    int n;
    const char *name[3];
    i64 outputs[3];
    matrix_part part;
    bool bias;
} linear_map;
tensor *linear_slot(model_builder *b, const linear_map *map, tensor *x);
/* What follows the product Y of MAP by linear.kind; of rows sorted by expert, OFFSETS [E + 1] (else NULL). */
tensor *linear_after(model_builder *b, const linear_map *map, i64 experts, tensor *offsets, tensor *y);
bool linear_norms(const model_builder *b, const char *name); // does linear.kind norm the output of map NAME?

/* ---- norm.c: the sites. Each returns X itself where the site has no norm. */
typedef enum norm_site { NORM_STREAM, NORM_PRE, NORM_OUT, NORM_POST } norm_site;
typedef enum branch { BRANCH_ATTENTION, BRANCH_FFN } branch;
tensor *norm_around(model_builder *b, branch which, norm_site site, tensor *x);
typedef enum inner_site { INNER_Q, INNER_K, INNER_V, INNER_CONTEXT } inner_site;
tensor *norm_inner(model_builder *b, inner_site site, i64 heads, tensor *x);
tensor *norm_hidden(model_builder *b, bool paired, tensor *h); // ffn; paired: H is [gate | up]
/* The same of rows sorted by expert (OFFSETS [E + 1], see ops/moe_plan.c): gate and up each by itself, one
 * gain an expert. norm_expert_out, where both norm.ffn_hidden and the feed-forward's out norm are asked for:
 * the out norm of each expert, before its routing weight (a norm after it would take the weight out again),
 * in place of the branch's; OFFSETS NULL: of the shared experts. */
tensor *norm_expert_hidden(model_builder *b, i64 experts, tensor *offsets, bool paired, tensor *h);
tensor *norm_expert_out(model_builder *b, i64 experts, tensor *offsets, tensor *y);
/* The norm of H = [gate | up] and f(gate) up as one op, f an activation_kind; NULL: there is no such norm. */
tensor *norm_gated(model_builder *b, double kind, tensor *h);
tensor *norm_beside_ffn(model_builder *b, tensor *x); // for what reads the ffn's input: X if it is normed
/* The key of a norm that reads the output of map NAME ("q" .. "down") of this layer, or of each of its
 * experts; NULL: none does. */
const char *norm_after(const model_builder *b, const char *name, bool experts);
/* The key of the first norm that is on in this layer, or outside (layer -1); NULL: there is none. */
const char *norm_any(const model_builder *b);
double norm_out_gain(const model_builder *b); // where the gains of what goes back to the stream start
tensor *norm_embedding(model_builder *b, tensor *x);
tensor *norm_final(model_builder *b, tensor *x);

/* ---- repeat.c: copies of the tokens, around the blocks and in attention */
void repeat_begin(model_builder *b);                // sets copies and position
i64 repeat_times(const model_builder *b);           // positions of a token: 1, or one a copy
tensor *repeat_tokens(model_builder *b, tensor *x); // [B, T, n] to the stream's rows
tensor *repeat_end(model_builder *b, tensor *x);    // back, what the head reads
typedef struct repeat_view {                        // what attention's attributes of these names say
    i64 copies, window, chunk;
} repeat_view;
repeat_view repeat_sight(const model_builder *b);

/* ---- residual.c: the slot that owns the stream. A block sees only open and close. */
typedef struct residual {
    const struct residual_kind *kind;
    tensor *stream;
    tensor *own[4]; // what open leaves for close
    i64 site;       // counts branches from 1
} residual;
void residual_start(model_builder *b, residual *r, tensor *embedding);
tensor *residual_open(model_builder *b, residual *r, branch which);          // the branch's input
void residual_close(model_builder *b, residual *r, branch which, tensor *y); // takes its output
tensor *residual_end(model_builder *b, residual *r);
double residual_out_factor(const model_builder *b); // of the initial deviation of maps back to the stream
/* Adds Y to the stream between two blocks: no norm, and every stream of several takes it, as a branch whose
 * connections are plain. */
void residual_add(model_builder *b, residual *r, tensor *y);

/* ---- memory.c: layers read in one block and added after another */
typedef struct memory_span {
    i64 read, add;
    tensor *found; // what was read, on its way
} memory_span;
typedef struct memory {
    memory_span *span;
    i64 n;
} memory;
void memory_start(model_builder *b, memory *m);
/* At the end of a block; X is what its feed-forward read. */
void memory_slot(model_builder *b, memory *m, residual *r, tensor *x);

/* ---- transfer.c: what train.transfer (muP) changes by width; without it nothing, to the bit */
double transfer_base(const model_builder *b);                  // the base model's width; 1: form absolute
double transfer_ratio(const model_builder *b);                 // width / base; 1 without it
double transfer_head_width(const model_builder *b, i64 width); // of the base model, where it is WIDTH here
bool transfer_by_inputs(const model_builder *b);               // first values are those of the absolute form
void transfer_matrix(const model_builder *b, matrix_part part, bool by_inputs, i64 inputs, param_info *info);
double transfer_depth(const model_builder *b);        // factor of what a branch adds to the stream
tensor *transfer_branch(model_builder *b, tensor *y); // Y times that
tensor *transfer_logits(model_builder *b, tensor *h); // what the head of the next token reads
void transfer_rates(model_builder *b);                // at the end: learning rates and decay by class

tensor *position_rotate(model_builder *b, tensor *x, i64 heads);       // position.c: q and k
tensor *position_embed(model_builder *b, tensor *x);                   // position.c: the embedding
tensor *attention_slot(model_builder *b, tensor *x);                   // attention.c
tensor *ffn_slot(model_builder *b, tensor *x);                         // ffn.c: its dropout included
tensor *moe_slot(model_builder *b, tensor *x);                         // moe.c: kind moe of the feed-forward
i64 ffn_width(const model_builder *b, bool gated);                     // ffn.c: of a dense layer
tensor *ffn_activate(model_builder *b, bool gated, tensor *h);         // ffn.c: what stands between the maps
tensor *ffn_dense(model_builder *b, bool gated, i64 width, tensor *x); // ffn.c: maps, activation, map
tensor *embedding_slot(model_builder *b);                              // embedding.c
void head_slot(model_builder *b, tensor *h);                           // head.c
tensor *embedding_table(model_builder *b);                             // embedding.c: the tied matrix
tensor *dropout(model_builder *b, tensor *x);                          // block.c

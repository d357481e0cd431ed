/* session: everything a run computes with, made from a configuration: graphs, programs, store, optimizer.
 * Training, `keel plan memory`, `keel bench train` and tests use the same one.
 *
 *     session *s;
 *     TRY(session_open(config, device, &(session_options){.isa = ISA_V4}, &s));
 *     double loss; // nats a target, mean over the step
 *     session_forward_backward(s, &batch, step, &loss);
 *     session_update(s, step, lr, &norm);
 *     session_close(s);
 */
#pragma once
#include "config/config.h"
#include "graph/program.h"
#include "model/model.h"
#include "optim/optimizer.h"
#include "optim/schedule.h"
#include "train/row_gradients.h"

typedef struct session_options {
    isa isa;
    bool no_fuse;         // leave the graph without rewrites
    bool no_update;       // evaluation only: no gradients, no optimizer state
    bool plan_only;       // sizes only: take no memory
    bool dense_gradients; // look-ups' gradients too (tests hold the two forms against each other)
} session_options;

typedef struct session_memory { // bytes
    i64 parameters, gradients, optimizer, activations, evaluation, batches, total;
    i64 row_gradients; // part of gradients: lists of rows and what merges them
    i64 tables; // weights and moments of parameters whose gradient is rows: part of parameters and optimizer
    const char *tables_key; // the key that sizes the largest of them, or NULL
    i64 activations_lower_bound;
} session_memory;

/* One step's rows: batch_rows x context each, as data/loader.h fills them. */
typedef struct step_batch {
    const i32 *tokens, *targets, *doc_start, *position;
    i64 rows, n_valid;
} step_batch;

typedef struct session {
    arena *arena;
    const config *c;
    device *device;
    session_options options;
    dtype act, stream;
    i64 context, batch_rows, micro_rows; // tokens a row; rows a step; rows a program run
    model train, evaluate;
    store *store;
    program *train_program, *evaluate_program;
    row_gradients *rows; // NULL without update
    optimizer optimizer;
    model_figures figures;
    session_memory memory;
    i64 rewrites;
    double gauge[MOST_GAUGES]; // sums of evaluate.gauge since session_gauges_clear
    i64 gauge_runs;
} session;

/* C must say model.vocab. ERR_CONFIG: shapes that do not fit; ERR_MEMORY: what does not fit, and by how much.
 */
status session_open(config *c, device *d, const session_options *options, session **out) MUST;
double session_memory_there(void); // bytes: the machine's memory, or less where a container may use less
/* ERR_MEMORY unless the plan fits into this machine (or its container); ERR_CONFIG where tables alone are too
 * large. */
status session_fits(const session *s) MUST;
dtype session_dtype(const config *c, const device *d); // of activations: train.precision
void session_close(session *s);                        // NULL allowed; not the device
void session_start(session *s); // initial weights by train.seed.init, moments and gradients zero

/* Runs forward and backward of all micro-batches of B (at most batch_rows); gradients lie in the store,
 * divided by the targets of the whole step. *nats: the sum over targets. */
void session_forward_backward(session *s, const step_batch *b, i64 step, double *nats);
/* Clips, updates, zeroes the gradients, commits states. *norm: of the gradient before clipping; nothing is
 * updated if it is not finite. */
void session_update(session *s, i64 step, double lr, double peak, double *norm);
/* Instead of an update: the gradients are dropped, nothing is committed. */
void session_drop(session *s);
/* Sum of nats over B's targets by the evaluation program; B may have up to micro_rows rows. */
double session_evaluate(session *s, const step_batch *b);
/* Means of the model's gauges over the evaluations since they were cleared: fills NAME and VALUE, MOST_GAUGES
 * each at most, gauges of one name as one; returns how many. */
void session_gauges_clear(session *s);
i64 session_gauges(const session *s, const char **name, double *value);
/* After a step that was not finite: ERR_NUMERIC naming op, layer and micro-batch. */
status session_blame(session *s, const step_batch *b, i64 step) MUST;

/* save: a session's states as a checkpoint and back. */
#pragma once
#include "train/average.h"
#include "train/checkpoint.h"
#include "train/guard.h"
#include "train/session.h"

typedef struct run_state { // state.json: all that is not a tensor
    i64 step;              // steps done
    i64 position;          // the loader's
    i64 tokens_seen, bytes_seen;
    i64 metrics_offset;
    double seconds;              // of training so far
    char identity[17], data[17]; // train/identity.h; dataset_hash
    char run[48];                // in the registry; empty: never entered
    char code[64], isa[16];
    i64 threads;
    guard_state guard;
} run_state;

/* Writes model.safetensors (f32 masters and states), optimizer.safetensors, state.json, config.yaml, GIVEN
 * (the configuration as it was given) as given.yaml, a copy of TOKENIZER and MEAN's file (train/average.h;
 * NULL allowed; END: at the run's end); hands the rest to the checkpoint's thread. ERR_NUMERIC, and nothing
 * is saved, when a parameter holds NaN or infinity. */
status save_session(checkpoint_store *store, const session *s, const run_state *state, const text *given,
                    const char *tokenizer, average *mean, bool end) MUST;
/* Reads PATH (a whole checkpoint) into S. OPTIMIZER false: the weights only. ERR_FORMAT names what does not
 * fit. */
status load_session(session *s, const char *path, bool optimizer, run_state *state) MUST;
status load_weights(store *s, const char *path_model) MUST; // model.safetensors

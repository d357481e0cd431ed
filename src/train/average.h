/* average: a mean of the weights beside the weights (optimization spec 1.6). Training never reads it.
 *
 *     average *a;                                       // NULL where train.average.kind is none
 *     TRY(average_open(config, store, folder, steps, tokens_per_step, &a));
 *     TRY(average_step(a, store, step));                // after the update of step - 1
 *     TRY(average_enter(a, store, &there));             // the store now holds the mean: evaluate it
 *     average_leave(a, store);                          // and the weights again, to the bit
 *
 * ema   S <- b S + (1 - b) W every `every` steps, b = min(decay^every, (1 + t)/(10 + t))
 * sma   mean of the last `last` snapshots;  wma: with weights 1, 2, ... n
 * Snapshots are FOLDER/snapshots/step_N.safetensors: the last ones, and those that the mean of the last two
 * checkpoints would need, should the run go on from there. The mean is formed while they are read, each step
 * of it in double and kept in f32, so it takes the memory of one model. */
#pragma once
#include "config/config.h"
#include "graph/store.h"
#include "train/checkpoint.h"

typedef struct average average;
status average_open(const config *c, const store *s, const char *folder, i64 steps, i64 tokens_per_step,
                    average **out) MUST;
void average_close(average *a); // NULL allowed, as everywhere here
/* STEP steps are done. Takes in the weights if it is time. */
status average_step(average *a, const store *s, i64 step) MUST;
/* Exchanges the store's weights and the mean; *THERE false (and nothing exchanged) while there is none yet.
 */
status average_enter(average *a, store *s, bool *there) MUST;
void average_leave(average *a, store *s);
/* Adds average.safetensors to a checkpoint: always for ema (resuming needs it), for the others at the END. */
status average_save(average *a, const store *s, checkpoint *c, i64 step, bool end) MUST;
/* Resuming at STEP from the checkpoint in PATH: the mean as it was; snapshots of later steps are removed.
 * PATH NULL, STEP 0: a run starts afresh. */
status average_load(average *a, const store *s, const char *path, i64 step) MUST;
/* The last checkpoint is on disk: no other's snapshots are needed any more. */
status average_end(average *a) MUST;
/* The mean of N model.safetensors into OUT, which has the layout of the store's masters; WEIGHT NULL: equal
 * ones. ERR_FORMAT: a file that does not fit. */
status average_files(const store *s, const char *const *path, const double *weight, i64 n, float *out) MUST;

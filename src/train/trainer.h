/* trainer: the loop. Trains a configuration on a data set into a run folder, resumes it, and ends with a
 * result.
 *
 *     train_options o = {.out = "runs/a", .device = d, .isa = level, .talk = print_line};
 *     train_result r;
 *     TRY(train_run(config, dataset, &o, &r));
 *
 * The folder: config.yaml (resolved) and given.yaml (before the length of the run was), metrics.jsonl,
 * summary.json (train/run_page.h), step_N/ (train/checkpoint.h). A crash at any moment costs at most the
 * steps since the last checkpoint; what is resumed has the bits of what was not interrupted. */
#pragma once
#include "config/config.h"
#include "data/dataset.h"
#include "train/session.h"
#include <signal.h>

typedef struct train_progress {
    bool timing;                // a step timed before step 0: only step and steps (at most so many) are set
    i64 step, steps, tokens;    // tokens: seen so far
    double loss, bits_per_byte; // of the step just done
    double validation;          // bits per byte at the last evaluation; NaN before the first
    double lr, norm, tokens_per_s, share_of_peak, seconds_left;
} train_progress;

typedef struct train_options {
    const char *out;
    bool resume;
    device *device;
    isa isa;
    bool no_fuse, profile;
    bool no_peak;                      // progress without share_of_peak: the peak is not measured
    bool unregistered;                 // the run does not enter the registry
    const char *name;                  // of the run, for the registry; NULL: the folder's last part
    const volatile sig_atomic_t *stop; // not 0: save and leave
    void (*talk)(void *context, const char *line);                   // one line of news, no newline
    void (*progress)(void *context, const train_progress *progress); // after every step
    void *context;
} train_options;

typedef struct train_result {
    i64 step, tokens_seen;
    double loss, bits_per_byte, perplexity; // validation, at the end; NaN without validation data
    double seconds;
    char id[48]; // in the registry
} train_result;

/* Trains C, whose model.vocab is a number, on D. Resuming asks for the configuration and data of the run (or
 * its config.yaml) and names the first key that differs. ERR_STOPPED after a stop (the state is saved);
 * ERR_NUMERIC when the loss or gradient is not finite (the last good checkpoint stands); ERR_CONFIG,
 * ERR_INPUT, ERR_IO, ERR_MEMORY as they say. C is resolved on the way. */
status train_run(config *c, const dataset *d, const train_options *o, train_result *result) MUST;

/* ERR_INPUT when OUT holds a run and RESUME was not asked for: to be asked before preparing data there. */
status train_folder_check(const char *out, bool resume) MUST;

typedef struct evaluation {
    i64 tokens, bytes, rows;
    double nats; // sum
} evaluation;
/* Validation loss over at most TOKENS tokens (0: all). ERR_STOPPED once *STOP (NULL: never) is not 0;
 * ERR_INPUT: the split holds no whole sample. */
status train_evaluate(session *s, const dataset *d, data_split split, i64 tokens,
                      const volatile sig_atomic_t *stop, evaluation *out) MUST;
typedef void evaluation_part(void *context, const evaluation *part);
/* The same, and TAKE is given each micro-batch by itself, in order. */
status train_evaluate_parts(session *s, const dataset *d, data_split split, i64 tokens,
                            const volatile sig_atomic_t *stop, evaluation_part *take, void *context,
                            evaluation *out) MUST;

/* run: what the files of the trainer share. Only src/train includes it. */
#pragma once
#include "base/text.h"
#include "data/loader.h"
#include "train/checkpoint.h"
#include "train/metrics.h"
#include "train/probes.h"
#include "train/ramp.h"
#include "train/registry.h"
#include "train/save.h"
#include "train/trainer.h"

typedef struct trainer {
    config *c;
    const dataset *data;
    const train_options *o;
    train_result *result;
    session *s;
    loader *loader;
    batch batch;
    schedule schedule;
    ramp ramp;
    guard guard;
    average *average;
    probes *probes; // NULL: none
    run_state state;
    text given; // the configuration as it was given: what --resume compares
    checkpoint_store *checkpoints;
    metrics_log *log;
    registry *registry;
    double peak_gflops, tokens_per_s;
    i64 steps, save_every, evaluate_every; // every 0: never
    i64 milestones[64], n_milestones;
    i64 saved_at; // step of the newest checkpoint; -1: none yet
    bool can_evaluate, resumed;
    double began, cpu_before; // seconds: the clock, and this process's processor time, when the run began
} trainer;

double clock_seconds(void);
void say(const trainer *t, const char *format, ...) PRINTF(2, 3);
void warn(const trainer *t, status s); // a failure that must not stop a run: said, then dropped
bool stopping(const trainer *t);
status batch_open(i64 rows, i64 context, batch *b) MUST;
void batch_close(batch *b);
loader_options loader_for(const config *c, i64 rows, bool train);
status time_steps(trainer *t, double budget, double *seconds_a_step) MUST;
/* Back to the newest checkpoint, or (MERGE) to the mean of the weights of the newest three with the newest
 * one's optimizer state; the data go on from where they are. LOSS is for the message. */
status roll_back(trainer *t, double loss, bool merge) MUST;
status train_loop(trainer *t) MUST;
/* Enters the run into the registry and summary.json, HOW: running, done, stopped, diverged, failed. */
void record(trainer *t, const char *how);

/* queue: runs the runs of a plan, each in a process of its own, so that one that crashes takes nothing with
 * it.
 *
 *     lab_queue_options q = {.binary = "/proc/self/exe", .threads = 1, .stop = stop_on_signals()};
 *     TRY(lab_queue_run(plan, &q));                 // ERR_STOPPED: the same command goes on
 *
 * A run is `keel train` with the words of its job, into its folder, with --resume: what an interruption left
 * is gone on with. With several at a time each has processors of its own. */
#pragma once
#include "lab/plan.h"
#include <signal.h>

typedef struct lab_queue_options {
    const char *binary; // of keel
    i64 threads;        // of a run
    const volatile sig_atomic_t *stop;
    void (*live)(void *context,
                 const char *line); // what is going on, about twice a second; NULL: nobody asks
    void *context;
} lab_queue_options;

/* Runs everything, all stages; results.jsonl is written after every run. A run that fails is a result, and
 * said; only what keeps the queue itself from going on is an error. */
status lab_queue_run(lab_plan *p, const lab_queue_options *o) MUST;

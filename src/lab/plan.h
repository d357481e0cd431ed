/* plan: an experiment as runs: which configurations, on which shards, how much compute, what is known
 * already.
 *
 *     lab_plan *p;
 *     TRY(lab_plan_open(e, &(lab_options){.device = d, .isa = level, .root = "runs/lab"}, &p));
 *     printf("%lld runs, %.0f s\n", p->n_jobs, lab_plan_seconds(p));
 *     TRY(lab_queue_run(p, 2, NULL));                       // lab/queue.h
 *     lab_plan_close(p);
 *
 * With tuning the runs that depend on its outcome are not known at first: lab_plan_extend adds them. */
#pragma once
#include "data/dataset.h"
#include "device/device.h"
#include "lab/experiment.h"
#include "lab/result.h"

typedef struct lab_options {
    device *device;
    isa isa;
    const char *root; // runs and shards go below it
    bool again;       // forget what is known
    i64 jobs;         // runs at a time
    void (*talk)(void *context, const char *line);
    void *context;
} lab_options;

typedef struct lab_job {
    i64 arm, value, seed; // indices into the experiment's lists; value -1: nothing is tuned
    const char **words;   // "key=value"
    i64 n_words;
    const char *label;  // "sdd, lr=3e-3, seed 2"
    const char *folder; // of the run
    double flops;       // of the run; 0: the budget is a time
    double seconds;     // that budget
    lab_result result;  // result.status NULL: not run yet
    bool known;         // known from before
} lab_job;

typedef struct lab_plan {
    arena *arena;
    const experiment *e;
    lab_options o;
    const char *folder; // root/NAME[-SCALE]
    lab_job *jobs;
    i64 n_jobs, room;
    i64 *chosen;             // [arms] index of the tuned value; -1: not known yet, or nothing is tuned
    const char **matched;    // [arms] the value that `match` found; NULL: as it is
    double *match_ratio;     // [arms] what is matched, as a share of the baseline's; NAN: nothing is matched
    double most_memory;      // bytes that the largest run plans to take
    double seconds_per_flop; // of one run beside the others; 0: not measured
    i64 session;             // this call: seconds since 1970
    bool extended;           // the runs at the tuned values are among the jobs
    lab_results before;      // what results.jsonl said when it began
    struct lab_shards *shards;
} lab_plan;

/* Prepares the data, matches, and looks up what has been run (in the folder, in the registry; not with
 * AGAIN). ERR_CONFIG: an arm is refused, two arms are the same, a warm-up is as long as its run. */
status lab_plan_open(const experiment *e, const lab_options *o, lab_plan **out) MUST;
void lab_plan_close(lab_plan *p); // NULL allowed
/* Once all runs known are done: chooses the tuned values, adds the runs at them. *added: how many. */
status lab_plan_extend(lab_plan *p, i64 *added) MUST;
/* How many runs there will be in the end, those of later tuning stages included; and how many are known. */
void lab_plan_count(const lab_plan *p, i64 *all, i64 *known);
/* Predicted time of what is left, all stages; measures a step of the first arm once. */
status lab_plan_seconds(lab_plan *p, double *seconds) MUST;
/* Fewer runs at a time where so many do not fit into memory together: sets the plan's jobs, and says so. */
void lab_plan_fit(lab_plan *p);
/* All results there are, in the experiment's order, into results.jsonl in the plan's folder. */
status lab_plan_save(const lab_plan *p) MUST;
const char *lab_results_path(const lab_plan *p);

/* result: what one run of an experiment came to; a line of results.jsonl, from which reports are made.
 *
 *     lab_results all;
 *     TRY(results_read(a, "docs/results/sdd.jsonl", &all));
 *     for (i64 i = 0; i < all.n; i++) printf("%s %lld %g\n", all.item[i].arm, ...);
 *
 * Numbers that are not known, or not finite, are NAN, and null in the file. No machine's paths are kept. */
#pragma once
#include "base/text.h"

typedef struct lab_result {
    const char *experiment, *scale, *arm, *value; // value: of what is tuned; "" without
    const char *status;                           // done, diverged, failed, missing
    const char *message;                          // why it failed; ""
    const char *identity, *code, *isa, *host, *run, *settings;
    i64 seed, threads, steps, tokens, parameters, active_parameters;
    double seconds, tokens_per_s; // tokens_per_s: the median over steps
    double memory;                // bytes, as planned (and taken)
    double flops_per_token, loss, bits_per_byte;
    double processor_share; // of its threads' time that the run got: train/record.c
    i64 session; // of keel lab run that ran it: seconds since 1970 when that began; 0: another experiment's
    double *curve_tokens, *curve_bits; // [n_curve]: bits per byte of validation
    i64 n_curve;
    double *layers; // [n_layers]: nats a token that dropping layer i costs
    i64 n_layers;
} lab_result;

typedef struct lab_results {
    lab_result *item;
    i64 n;
} lab_results;

/* Strings live in A. ERR_IO; ERR_FORMAT names the line and what is wrong with it. */
status results_read(arena *a, const char *path, lab_results *out) MUST;
/* Replaces PATH by the N results, a line each. */
status results_write(const char *path, const lab_result *const *results, i64 n) MUST;
/* What the run in FOLDER (summary.json, metrics.jsonl) came to, into the fields that a run has; those of the
 * experiment stay as they are. */
status result_of_run(arena *a, const char *folder, lab_result *r) MUST;
static inline bool result_is(const lab_result *r, const char *status_name);

#include <string.h>
static inline bool result_is(const lab_result *r, const char *status_name)
{
    return r && !strcmp(r->status, status_name);
}

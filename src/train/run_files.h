/* run_files: what a run's folder says about the run, for pages, tables and comparisons.
 *
 *     run_files r;
 *     TRY(run_files_load(a, "runs/a", &r));
 *     double best = series_lowest(metrics_find(&r.metrics, "val_loss"));
 *     run_files_free(&r);
 *
 * Reads metrics.jsonl (must be there), config.yaml and summary.json (run_page.h says what is in them). */
#pragma once
#include "format/report.h"
#include "train/metrics.h"
#include <jansson.h>

typedef struct run_files {
    const char *folder, *label; // label: the run's name, else the folder's
    metrics_data metrics;
    json_t *summary;    // NULL when there is none: the run has not ended
    report_row *config; // "model.norm.kind" = "rms"; lists as they are written, on one line
    i64 n_config;
} run_files;

/* Strings live in A. ERR_INPUT without a folder, ERR_IO or ERR_FORMAT names the file and what is wrong with
 * it; then there is nothing to free. */
status run_files_load(arena *a, const char *folder, run_files *out) MUST;
void run_files_free(run_files *r);                            // zeroed allowed
double run_files_number(const run_files *r, const char *key); // of summary.json; NAN when there is none

/* Of a series, NULL allowed except in smoothed; NAN when it has no finite value. */
double series_last(const metrics_series *s);
double series_lowest(const metrics_series *s);
/* The mean over the last twentieth of the finite values: one batch's loss alone says little. */
double series_tail(const metrics_series *s);
/* An exponential moving average over about a fiftieth of the run, taken from both ends so that it lags behind
 * neither, and without the bias of its start. Up to 50 values are left as they are. [s->n], in A. */
const double *series_smoothed(arena *a, const metrics_series *s);

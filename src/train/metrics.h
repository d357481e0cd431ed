/* metrics: a run's numbers over its steps, as lines of JSON (metrics.jsonl in the run's folder).
 *
 *     metrics_log *log;
 *     TRY(metrics_open("runs/a/metrics.jsonl", offset, &log));   // 0: from the start; resuming: the saved
 * offset TRY(metrics_append(log, step, (metric[]){{"loss", 3.25}, {"lr", 1e-3}}, 2)); i64 offset =
 * metrics_offset(log);                          // goes into the checkpoint's state metrics_close(log);
 *
 * One flat object a line: {"step":10,"loss":3.25,"lr":0.001}. A value that is not finite is null with a flag
 * beside it, "loss_is":"nan" (or "inf", "-inf"), since JSON has no such numbers. A step may have several
 * lines (training, validation). Names the report draws: loss, lr, grad_norm, tokens_per_s, val_bits_per_byte;
 * val_loss is shown. Models with experts log expert_load and expert_drop (train/expert_load.h). */
#pragma once
#include "base/base.h"

typedef struct metric {
    const char *name; // letters, digits, . _ - / only
    double value;
} metric;

typedef struct metrics_log metrics_log;
/* Opens PATH for appending after its first OFFSET bytes; what follows them (steps that a resumed run does
 * again, a torn line) is cut off. A file shorter than that (a power cut) goes on after its last whole line.
 */
status metrics_open(const char *path, i64 offset, metrics_log **out) MUST;
/* Adds a line. On failure (disk full) the log is as before and may be used on. */
status metrics_append(metrics_log *log, i64 step, const metric *values, i64 n) MUST;
typedef struct metric_array {
    const char *name;
    const double *value; // [n]
    i64 n;
} metric_array;
/* Adds a line of arrays: {"step":10,"probe/stream_variance":[1.5,2.25,null]}; null: not finite. metrics_load
 * gives element K the name "probe/stream_variance/K". */
status metrics_append_arrays(metrics_log *log, i64 step, const metric_array *arrays, i64 n) MUST;
i64 metrics_offset(const metrics_log *log); // bytes
status metrics_sync(metrics_log *log) MUST; // fsync, before a checkpoint that holds the offset
void metrics_close(metrics_log *log);       // NULL allowed

/* What a log holds: for every name its values by step, in the file's order. */
typedef struct metrics_series {
    char *name;
    i64 n, capacity;
    double *step, *value; // value NaN where it was not finite
} metrics_series;
typedef struct metrics_data {
    metrics_series *series;
    i64 n, lines, bad_lines; // bad_lines: no such objects, skipped (one, torn, is usual at the end)
} metrics_data;
/* Reads PATH. ERR_IO when it cannot be read. Release with metrics_free. */
status metrics_load(const char *path, metrics_data *out) MUST;
const metrics_series *metrics_find(const metrics_data *d, const char *name); // NULL when there is none
void metrics_free(metrics_data *d);

/* run_export: a run's metrics in the forms that other programs read.
 *
 *     text t = {0};
 *     TRY(run_export("runs/a/metrics.jsonl", EXPORT_CSV, 0, &t));
 *     fwrite(t.data, 1, t.bytes, stdout);
 *     text_free(&t);
 *
 * One row a step, steps rising; where metrics.jsonl has a name twice at a step, the later value counts. */
#pragma once
#include "base/text.h"

typedef enum export_form {
    EXPORT_CSV,   // "step,loss,...": RFC 4180 with line feeds; no value: empty; not finite: nan
    EXPORT_JSONL, // {"step":1,"loss":2.5}: no value: left out; not finite: null
    EXPORT_EVENTS // TensorBoard's; the log holds no times: every event has WALL_TIME
} export_form;

/* Appends the log at PATH in FORM to OUT. ERR_IO when it cannot be read, ERR_FORMAT when it holds a step that
 * is no whole number from 0 to 2^53. */
status run_export(const char *path, export_form form, double wall_time, text *out) MUST;

/* What the files of `keel runs` share. */
#pragma once
#include "train/registry.h"
#include <jansson.h>

enum { MOST_RUNS = 64 };
typedef struct runs_args {
    const char *verb, *what[MOST_RUNS], *registry, *out, *samples, *tensorboard;
    i64 n_what;
    bool json, csv, jsonl, yes;
} runs_args;

status runs_compare(const runs_args *args, arena *a) MUST;
status runs_export(const runs_args *args, arena *a) MUST;
status runs_gc(const runs_args *args, arena *a) MUST;

/* The run WHAT, an id or a folder. A folder that the registry does not know is a run with no id. */
status runs_place(const runs_args *args, arena *a, const char *what, registry_run *run) MUST;
/* Its status, or "killed" where the process of a running one is gone. */
const char *runs_status_now(const registry_run *run);
/* Text on a terminal: control characters, which terminals obey, become '?'. */
void runs_put_text(const char *s);
/* CELLS [rows, columns] aligned; the first LEFT columns to the left. LOOSE: the last column is not padded. */
void runs_put_table(const char *const *cells, i64 rows, i64 columns, i64 left, bool loose);
json_t *runs_real(double x);   // null where it is not finite
void runs_put_json(json_t *o); // to standard output; releases O

/* run_compare: several runs side by side: how they ended, and where their configurations differ.
 *
 *     run_figures f = run_figures_of(&runs[0]);
 *     run_difference *rows;
 *     i64 n;
 *     run_differences(a, runs, n_runs, &rows, &n);      // rows[0].key, rows[0].value[run]
 *     const char *const *labels = run_labels(a, runs, n_runs);
 */
#pragma once
#include "train/run_files.h"

/* FIGURE(name, what it is, printf form; "count": "12.3 M"). NAN is unknown. */
#define RUN_FIGURES(FIGURE)                                                                                  \
    FIGURE(steps, "steps", "%.0f")                                                                           \
    FIGURE(tokens, "tokens", "count")                                                                        \
    FIGURE(parameters, "parameters", "count")                                                                \
    FIGURE(loss, "training loss, last 5 %", "%.4f")                                                          \
    FIGURE(val_loss, "validation loss", "%.4f")                                                              \
    FIGURE(best_val_loss, "validation loss, best", "%.4f")                                                   \
    FIGURE(val_bits_per_byte, "bits per byte", "%.4f")                                                       \
    FIGURE(best_val_bits_per_byte, "bits per byte, best", "%.4f")                                            \
    FIGURE(tokens_per_s, "tokens/s, last 5 %", "count")                                                      \
    FIGURE(seconds, "seconds", "%.1f")
typedef struct run_figures {
#define FIGURE(name, label, form) double name;
    RUN_FIGURES(FIGURE)
#undef FIGURE
} run_figures;
run_figures run_figures_of(const run_files *r);

/* The figures as a table [rows, 1 + n]: row 0 the labels, then those that any run has; "-" where unknown. */
const char *const *run_figure_cells(arena *a, const run_files *runs, i64 n, i64 *rows);

typedef struct run_difference {
    const char *key, **value; // [n]; NULL where a run has no such key
} run_difference;
/* The configuration keys whose values are not the same in all N runs, by name. */
void run_differences(arena *a, const run_files *runs, i64 n, run_difference **out, i64 *n_out);
/* The same as a table [rows, 1 + n], row 0 the labels. */
const char *const *run_difference_cells(arena *a, const run_files *runs, i64 n, i64 *rows);

/* A name for each: its label, or its folder where two labels are the same. [n] */
const char *const *run_labels(arena *a, const run_files *runs, i64 n);

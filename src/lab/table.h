/* table: what the results of an experiment say: means with standard errors, differences paired by seed with
 * 95 % intervals, and a verdict in words.
 *
 *     lab_table t;
 *     lab_table_make(a, e, results, n, &t);
 *     puts(t.rows[1].verdict);       // "better by 0.0210 ± 0.0060 bits/byte at equal tokens, 9 % slower;
 * ..."
 *
 * Intervals are Student's, over seeds: a difference whose interval holds 0 is "not resolved". Runs that
 * diverged, failed or are missing are counted in every cell; a mean never stands for them. */
#pragma once
#include "lab/experiment.h"
#include "lab/result.h"

/* A mean over N values: se its standard error, half the half width of its 95 % interval; NAN where N says
 * nothing (se, half: fewer than two). */
typedef struct lab_mean {
    i64 n;
    double mean, se, half;
} lab_mean;
lab_mean lab_mean_of(const double *x, i64 n);
bool lab_resolved(const lab_mean *m); // does the interval exclude 0?

typedef struct lab_cell { // the runs of an arm at one value
    i64 wanted, done, diverged, failed, missing;
    lab_mean bits;
    const lab_result *run[MOST_SEEDS]; // by seed; NULL: missing
} lab_cell;

typedef struct lab_row {
    const lab_arm *arm;
    i64 chosen;          // index of the tuned value; -1: nothing is tuned, or none is known
    bool edge;           // it is the lowest or highest value tried: the best may lie outside
    lab_cell cell;       // at the chosen value
    lab_cell *values;    // [n_values]
    lab_mean difference; // bits per byte against the baseline, paired by seed: negative is better
    lab_mean speed;      // log of the tokens/s over the baseline's
    lab_mean equal_time; // the difference when the faster of the two has just finished
    double tokens_per_s, memory, parameters, flops_per_token, seconds; // means over seeds; NAN: unknown
    double layers[64]; // mean cost of dropping each layer, nats
    i64 n_layers;
    const char *verdict;
} lab_row;

typedef struct lab_table {
    const experiment *e;
    lab_row *rows;                  // [e->n_arms]
    const char **codes, **machines; // every version and processor among the results
    i64 n_codes, n_machines, n_results, n_wanted;
    lab_mean trend; // slope of bits per byte over log10 of the trend's key; n 0: none asked, or too few arms
    i64 trend_arms;
    const char **notes; // what a reader must know before the table
    i64 n_notes;
} lab_table;

/* Makes T, in A, of the experiment's RESULTS; of several for one run the last counts. Pointers to E and
 * RESULTS are kept. */
void lab_table_make(arena *a, const experiment *e, const lab_result *results, i64 n, lab_table *t);

/* The table, the verdicts and notes as Markdown, as one JSON object, as a page. */
void lab_markdown(const lab_table *t, text *out);
status lab_json(const lab_table *t, text *out) MUST;
status lab_page(arena *a, const lab_table *t, text *out) MUST;

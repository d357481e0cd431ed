/* run_table: a table of runs, from CSV, JSON, JSON lines or the registry, and the points a law takes from it.
 *
 *     run_table t;
 *     TRY(run_table_read("runs.csv", arena, &t));
 *     TRY(run_table_points(&t, law, &(run_choice){.map = map, .n_map = 1}, arena, &picked));
 *     TRY(fit_law(law, &picked.points, ...));
 *
 * Cells are text until a law asks for them. A run that diverged, is not finished or lacks a value is left
 * out, counted and named; a value of a kind that the law has no meaning for is refused. */
#pragma once
#include "lab/law.h"

typedef struct run_table {
    const char *source; // for messages
    i64 rows, columns;
    const char **name;  // [columns]
    const char **cell;  // [rows, columns]; NULL: none
    const char **label; // [rows]: "line 7", "object 3", a run's id
} run_table;

/* Reads PATH ("-": standard input): JSON where it begins with '[', JSON lines with '{', else CSV with a head
 * (RFC 4180; also semicolons or tabs, whichever the head has). ERR_IO; ERR_FORMAT names line and remedy. */
status run_table_read(const char *path, arena *a, run_table *out) MUST;
/* The same from memory; BYTES at DATA, zero-terminated. */
status run_table_parse(const char *source, const char *data, size_t bytes, arena *a, run_table *out) MUST;
/* The runs of the registry at PATH (NULL: the user's): id, name, status, params, params_total, params_vocab,
 * tokens, flops, steps, loss (validation where there was one), train_loss, bits_per_byte, lr, batch (tokens),
 * bits, seed, layers, width, context, vocab. params leaves out embeddings, positions and the head. */
status run_table_registry(const char *path, arena *a, run_table *out) MUST;

enum { RUN_PAIRS = 32 };
typedef struct run_pair { // NAME=VALUE of --map, NAME op VALUE of --where
    const char *name, *value;
    char op; // where: '=' '!' '<' '>'
} run_pair;

typedef struct run_choice {
    run_pair map[RUN_PAIRS], where[RUN_PAIRS];
    i64 n_map, n_where;
} run_choice;

typedef struct run_points {
    law_points points;
    const char **label;                 // of each point
    const char *column[LAW_INPUTS + 1]; // what each input, and last the target, came from
    i64 considered;                     // rows that --where left
    i64 diverged, unfinished, incomplete;
    const char *left_out; // "2 diverged (line 4, line 9), 1 without tokens (line 7)"; "" where none was
    const char *grouped;  // by what the rows are grouped; NULL: by nothing
    const char *mixed;    // "schedule": a column that should have one value and has several; NULL
} run_points;

/* The points of law L. ERR_USAGE: a map or a condition that names nothing; ERR_INPUT: a missing column (the
 * nearest is named), a value that is no number or not positive, no rows left. */
status run_table_points(const run_table *t, const law *l, const run_choice *c, arena *a, run_points *out)
    MUST;

/* row_gradients: the gradients that stay rows (tensor.grad_ids, grad_rows), collected over the micro-batches
 * of a step into one list per parameter: unique ascending ids, rows of equal ids added (stored.rows).
 *
 *     row_gradients *r;
 *     TRY(row_gradients_plan(arena, graph, store, micro_batches, &options, &r, &bytes));
 *     TRY(row_gradients_open(r, store, &options));
 *     row_gradients_clear(r);                            // at a step's start
 *     row_gradients_add(r, train_program, rows_here, micro_rows);    // after each micro-batch
 *
 * A list and the look-ups of the next micro-batch are merged by the op rows_merge into the next list, so the
 * buffers hold at most the smaller of table and step, and one micro-batch; nothing is allocated in a step. A
 * row adds its parts in the order of the look-ups: the bits are those of the dense gradient, however the step
 * is divided into micro-batches. */
#pragma once
#include "graph/program.h"

typedef struct row_gradients row_gradients;
/* For the parameters of G (after graph_backward) whose gradient is rows, in steps of at most MICRO_BATCHES
 * runs. STORE may be a plan only. *BYTES: what opening takes. ERR_CONFIG: more than 2^31 look-ups. */
status row_gradients_plan(arena *a, const graph *g, store *s, i64 micro_batches,
                          const program_options *options, row_gradients **out, i64 *bytes) MUST;
/* Takes the memory and points stored.rows of S at the lists. */
status row_gradients_open(row_gradients *r, store *s, const program_options *options) MUST;
void row_gradients_close(row_gradients *r); // NULL allowed
void row_gradients_clear(row_gradients *r);
/* Adds what the micro-batch that P just ran left; only the first ROWS of its MICRO_ROWS sequences hold data.
 */
void row_gradients_add(row_gradients *r, const program *p, i64 rows, i64 micro_rows);

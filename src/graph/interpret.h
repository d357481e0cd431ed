/* interpret: runs any graph in double through the reference functions: the oracle of op checks, of
 * whole-model gradient checks and of `keel dump`.
 *
 *     oracle *o;
 *     TRY(oracle_open(g, &o));
 *     memcpy(oracle_data(o, x), values, ...);           // leaves: inputs, parameters, states
 *     TRY(oracle_run(o, &(step_info){.seed = 1}));      // all phases; tallies start at zero
 *     const double *y = oracle_data(o, loss);
 *     oracle_close(o);
 */
#pragma once
#include "graph/graph.h"
#include "ops/op.h"

typedef struct oracle oracle;
status oracle_open(const graph *g, oracle **out) MUST; // ERR_MEMORY: 8 bytes an element of every tensor
void oracle_close(oracle *o);
double *oracle_data(oracle *o, const tensor *t); // dense, count(t) numbers
/* Runs all nodes in order, PHASE_BACKWARD nodes only if BACKWARD, and commits at the end. */
status oracle_run(oracle *o, const step_info *step, bool backward) MUST;
/* From now on ops that select reuse the indices that lie in oracle_data: those of the last run (central
 * differences need it), or a program's, put there by the caller (rounded scores may choose others). */
void oracle_hold(oracle *o, bool hold);

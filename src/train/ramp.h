/* ramp: a step's number of sequences while the batch grows, as a pure function of the step.
 *
 *     ramp r;
 *     TRY(ramp_from(config, batch_rows, context, tokens_per_step, &r));
 *     i64 rows = ramp_rows(&r, step), before = ramp_tokens(&r, step);   // of steps 0 .. step - 1
 */
#pragma once
#include "config/config.h"

typedef struct ramp {
    i64 rows, context; // of a full step
    i64 start, increment, levels;
    i64 level_tokens; // each level lasts so long, up to a whole step
} ramp;

/* Without train.ramp.start every step has ROWS rows. ERR_CONFIG: sizes that are no whole number of
 * micro-batches of MICRO rows, or do not reach the full batch in whole increments. */
status ramp_from(const config *c, i64 rows, i64 micro, i64 context, ramp *out) MUST;
i64 ramp_rows(const ramp *r, i64 step);
i64 ramp_tokens(const ramp *r, i64 step);     // of all steps before STEP
i64 ramp_steps(const ramp *r, double tokens); // the fewest steps that take TOKENS tokens, at least 1
/* Where STEP stands in a schedule that counts tokens: in full steps, rounded down. */
i64 ramp_progress(const ramp *r, i64 step);
i64 ramp_unit(const ramp *r); // rows that every step's number is a multiple of

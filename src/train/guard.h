/* guard: what a run does about a step that went wrong: a loss or gradient that is not finite, or a loss far
 * above what the last steps had.
 *
 *     guard g = {0};
 *     TRY(guard_from(config, &g));
 *     switch (guard_look(&g, loss)) { ... }       // before the update
 */
#pragma once
#include "config/config.h"

typedef enum guard_verdict {
    GUARD_GO,
    GUARD_STOP,     // with an error that names what is not finite
    GUARD_SKIP,     // drop the gradient, go on with the next batch
    GUARD_ROLLBACK, // back to the last checkpoint, on with the data that follow
    GUARD_MERGE,    // the same, to the mean of the last three checkpoints' weights
} guard_verdict;

enum { GUARD_WINDOW = 100, GUARD_FEWEST = 20, GUARD_MOST = 10 };
typedef struct guard_state { // saved with the run: a resumed run judges as the whole one
    double mean, variance;   // of the loss, exponential with window GUARD_WINDOW
    i64 seen;                // steps in them
    i64 trouble;             // step of the last intervention
    i64 interventions;       // without GUARD_FEWEST steps of peace in between
} guard_state;
typedef struct guard {
    guard_state now;
    guard_verdict nonfinite, spike;
    double sigma; // 0: spikes are not looked for
} guard;

void guard_from(const config *c, guard *out);
/* On LOSS of STEP. A good one enters the statistics. More than GUARD_MOST interventions that never get past
 * the trouble are a run that has diverged: GUARD_STOP. */
guard_verdict guard_look(guard *g, i64 step, double loss);
guard_verdict guard_nonfinite(guard *g, i64 step); // the verdict on a step that is not finite

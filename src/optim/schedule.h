/* schedule: the learning rate as a pure function of the step, so that a resumed run repeats it to the bit.
 *
 *     schedule s;
 *     TRY(schedule_from(config, total_steps, tokens_per_step, &s));
 *     double lr = schedule_at(&s, step);          // step counts from 0
 */
#pragma once
#include "config/config.h"

typedef enum schedule_kind {
    SCHEDULE_COSINE,
    SCHEDULE_CONSTANT,
    SCHEDULE_LINEAR,
    SCHEDULE_UBA
} schedule_kind;
typedef struct schedule_phase {
    i64 until;        // first step after it
    double peak, end; // learning rates
    double phi;
} schedule_phase;
enum { MAX_PHASES = 16 };
typedef struct schedule {
    schedule_kind kind;
    double peak, end;                 // learning rates
    i64 steps, warmup;                // of the run; of the warm-up
    double warmup_start;              // share of the peak
    i64 warmup_offset;                // 1: step 0 has 1/warmup of the peak
    schedule_phase phase[MAX_PHASES]; // uba: consecutive, the last one until `steps`
    int n_phases;
} schedule;

/* ERR_CONFIG: a warm-up longer than the run, phases out of order, too many. */
status schedule_from(const config *c, i64 steps, i64 tokens_per_step, schedule *out) MUST;
/* eta(t) for 0 <= t < steps, in double. */
double schedule_at(const schedule *s, i64 step);
/* f(x) = 2(1 + cos pi x) / (2 phi + (2 - phi)(1 + cos pi x)) for x in [0, 1], evaluated without cancellation.
 */
double uba_curve(double phi, double x);

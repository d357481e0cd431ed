/* schedule: the learning rate as a pure function of the step, so that a resumed run repeats it to the bit.
 *
 *     schedule s;
 *     TRY(schedule_from(config, total_steps, tokens_per_step, &s));
 *     double lr = schedule_at(&s, step);          // step counts from 0
 *     double sum = schedule_sum(&s, step, 1);     // of lr over steps 0 .. step
 */
#pragma once
#include "config/config.h"

typedef struct schedule_phase {
    i64 until;        // first step after it
    double peak, end; // learning rates
    double phi, power;
    int curve; // piecewise: which curve falls from peak to end
} schedule_phase;
enum { MAX_PHASES = 16, MAX_POINTS = 256 };
typedef struct schedule_point {
    i64 at;
    double lr;
} schedule_point;

typedef struct schedule {
    const struct schedule_kind *kind;
    double peak, end;                 // learning rates; end: where the floor lies
    i64 steps, warmup;                // of the run; of the warm-up
    double warmup_start;              // share of the peak
    i64 warmup_offset;                // 1: step 0 has 1/warmup of the peak
    i64 decay, period, until, rewarm; // spans in steps, where the kind has them
    double phi, power, rate, gamma, growth, half_life, up, div, final_div, constant;
    int shape; // of a cooldown
    bool chebyshev;
    schedule_phase phase[MAX_PHASES]; // uba, piecewise: consecutive, the last one until `steps`
    int n_phases;
    schedule_point point[MAX_POINTS]; // step, table
    int n_points;
} schedule;

/* ERR_CONFIG: a warm-up longer than the run, phases or points out of order, too many. */
status schedule_from(const config *c, i64 steps, i64 tokens_per_step, schedule *out) MUST;
/* eta(t) for 0 <= t < steps, in double; never 0 before the last step unless the floor is 0. */
double schedule_at(const schedule *s, i64 step);
/* Sum of eta(t)^power over t = 0 .. step: what laws of the loss are written in. */
double schedule_sum(const schedule *s, i64 step, int power);
/* f(x) = 2(1 + cos pi x) / (2 phi + (2 - phi)(1 + cos pi x)) for x in [0, 1], evaluated without cancellation.
 */
double uba_curve(double phi, double x);
/* A constant rate: steps that are only timed. */
schedule schedule_constant(double lr, i64 steps);

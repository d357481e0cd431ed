/* fit: a law (lab/law.h) fitted to points: robust, from many starts, with intervals, and what it then says.
 *
 *     fit f;
 *     TRY(fit_law(l, &points, &(fit_options){FIT_DEFAULTS}, arena, &f));
 *     printf("alpha %g (%g to %g)\n", f.value[2], f.low[2], f.high[2]);
 *     fit_prediction p;
 *     fit_predict(&f, (double[]){1e9, 2e10}, &p);           // p.value, p.low, p.high
 *
 * Minimised: the sum (never the mean) of Huber's loss of the residuals, on ln y unless the law is absolute.
 */
#pragma once
#include "lab/law.h"

typedef struct fit_options {
    double huber;  // residuals above it count by their size, not its square; INFINITY: least squares
    i64 bootstrap; // resamples; 0: no intervals
    double level;  // of the intervals: 0.95
    u64 seed;
    bool no_checks; // leave out the held-out part and the second loss (for fits of fits)
} fit_options;
#define FIT_DEFAULTS .huber = 1e-3, .bootstrap = 400, .level = 0.95

typedef struct fit {
    const law *law;
    const law_points *points;
    fit_options options;
    double theta[LAW_PARAMS];
    double value[LAW_PARAMS], low[LAW_PARAMS], high[LAW_PARAMS]; // as in the formula; NaN without bootstrap
    double cost;                                                 // the minimum: sum of Huber's losses
    double r2;                      // of ln y (absolute: of y); 1 less the share of its variance that is left
    double rms, median_error;       // of the residuals: relative (absolute: in units of y)
    double aic;                     // n ln(mean squared residual) + 2 parameters
    i64 starts, agreeing;           // starts tried; those that ended in this minimum
    double condition;               // of the Jacobian with columns of length 1
    int twin[2];                    // the two parameters that the points tell apart worst
    double correlation;             // theirs
    double squares[LAW_PARAMS];     // the parameters by least squares instead
    double (*replica)[LAW_PARAMS];  // theta of each resample
    i64 replicas, redrawn;          // redrawn: resamples with fewer different rows than parameters
    i64 held, held_from;            // points held out; 0: too few points. The rest fitted: held_from
    double held_median, held_worst; // their error when predicted from the rest: relative (absolute: y's)
    double least[LAW_INPUTS], most[LAW_INPUTS];
    i64 warnings;
    const char *warning[24];
    arena *arena;
} fit;

/* Fits L to P, which must stay. ERR_INPUT: fewer points than parameters, inputs that do not vary or not
 * enough, values that the law has no meaning for. ERR_NUMERIC: no start led anywhere. The result lives in A.
 */
status fit_law(const law *l, const law_points *p, const fit_options *o, arena *a, fit *out) MUST;

typedef struct fit_prediction {
    double x[LAW_INPUTS], value;
    double low, high;         // of the law there: bootstrap
    double run_low, run_high; // of one more run: that and the residuals
    const char *beyond;       // what lies outside of the points, or NULL
} fit_prediction;
void fit_predict(const fit *f, const double *x, fit_prediction *out);

/* Where COMPUTE = 6 (sizes) (tokens) buys the least; FIXED[i] that is not NaN holds input i. Bounds of x by
 * the bootstrap. ERR_INPUT: the law has no such point, or all inputs are held; ERR_NUMERIC: this fit has
 * none. */
typedef struct fit_optimum_point {
    double compute;
    fit_prediction at;
    double low[LAW_INPUTS], high[LAW_INPUTS];
    double found; // the share of resamples that have one; NaN without bootstrap
} fit_optimum_point;
status fit_optimum(const fit *f, double compute, const double *fixed, fit_optimum_point *out) MUST;

/* ---- inside */
typedef struct fit_space fit_space; // what the solver works in
status fit_space_open(const law *l, const law_points *p, double huber, fit_space **out) MUST;
void fit_space_close(fit_space *s);
/* Goes down from THETA; WEIGHT[n] counts the points (NULL: each once). The cost; NaN: nowhere. */
double fit_descend(fit_space *s, const double *weight, double *theta);
/* From every start of the law. The cost; *tried and *agreeing may be NULL. */
double fit_search(fit_space *s, double *theta, i64 *tried, i64 *agreeing);
double fit_residual(const law *l, const double *theta, const double *x, double y);
status fit_bootstrap(fit *f, fit_space *s) MUST;
status fit_hold_out(fit *f) MUST;
void fit_condition(fit *f, fit_space *s);
/* The Jacobian [n][params] of the weighted residuals at THETA, into J. */
void fit_jacobian(fit_space *s, const double *theta, double *j);
double fit_quantile(double *values, i64 n, double share); // sorts VALUES
void fit_warn(fit *f, const char *format, ...) PRINTF(2, 3);
void fit_judge(fit *f); // the warnings
/* What of X lies outside of the points, or NULL. */
const char *fit_beyond(const fit *f, const double *x);

/* law: scaling laws, each a row of one table: what it wants, how it predicts, how a fit of it starts.
 *
 *     const law *l;
 *     TRY(law_find("chinchilla", &l));                      // or the nearest name
 *     double theta[LAW_PARAMS] = {log(1.8172), log(482.01), 0.3478, log(2085.43), 0.3658};
 *     double loss = law_value(l, theta, (double[]){1e9, 2e10});
 *
 * One file a law (law_NAME.c). The fitter (lab/fit.h), the command line and docs/laws.md read the rows; a new
 * law is one file and one line in LAWS. */
#pragma once
#include "base/text.h"
#include <complex.h>

#define LAWS(LAW)                                                                                            \
    LAW(chinchilla)                                                                                          \
    LAW(chinchilla_tied)                                                                                     \
    LAW(allocation)                                                                                          \
    LAW(farseer)                                                                                             \
    LAW(overtraining)                                                                                        \
    LAW(downstream)                                                                                          \
    LAW(batch)                                                                                               \
    LAW(critical_batch)                                                                                      \
    LAW(lr)                                                                                                  \
    LAW(vocabulary)                                                                                          \
    LAW(vocabulary_growth)                                                                                   \
    LAW(over_encoding)                                                                                       \
    LAW(quantization_error)                                                                                  \
    LAW(quantization)

enum { LAW_PARAMS = 10, LAW_INPUTS = 4, LAW_GRID = 6, LAW_STARTS = 512 };

typedef double complex law_number; // complex, so that a step of 1e-200 i gives the exact derivative

typedef struct law_input {
    const char *name, *help;
    const char *also; // other names of the column, parted by spaces
    double above;     // values must be above this
    int least;        // so many different values, or the law is not determined
} law_input;

typedef enum law_kind {
    LAW_POSITIVE, // theta is its logarithm
    LAW_ANY
} law_kind;

typedef struct law_param {
    const char *name, *help;
    law_kind kind;
    double grid[LAW_GRID]; // where fits start (theta); none: the parameter is linear and solved for
    int n_grid;
    bool exponent; // near 0 the term it belongs to is a constant: said
    bool floor;    // an irreducible part: vanishing against the smallest value seen is said
} law_param;

/* Points to fit: x [n][LAW_INPUTS], y [n]; rows of one group are drawn together by the bootstrap. */
typedef struct law_points {
    i64 n;
    const double (*x)[LAW_INPUTS], *y;
    const i64 *group; // 0 .. groups - 1; NULL: every row by itself
    i64 groups;
} law_points;

typedef struct law {
    const char *name, *title, *formula, *source;
    const char *note;                               // what a user should know; NULL: nothing
    const char *target, *target_help, *target_also; // the column that is predicted
    const char *minus; // where there is no such column: column loss minus this one
    bool absolute;     // residuals are y - f, not ln y - ln f: y may be of any sign
    law_input input[LAW_INPUTS];
    int inputs;
    int sizes; // the first so many inputs are parameters, the next is tokens, compute is 6 x their product:
               // there is a compute-optimal point; 0: there is none
    int per_value; // of the second input, so many values for each value of the first
    law_param param[LAW_PARAMS];
    int params;
    law_number (*predict)(const law_number *theta, const double *x);
    /* The linearizing transformation: y (LOG: ln y) = sum of column[k] c_k + what is returned, over the
     * parameters without a grid, in order; c = the parameter itself (LOG: theta). */
    double (*basis)(const double *theta, const double *x, double *column);
    bool basis_of_log;
    /* Instead of both: up to MOST starts from the points themselves. */
    i64 (*starts)(const law_points *p, double (*theta)[LAW_PARAMS], i64 most);
    /* From theta to the parameters as the formula has them; NULL: exp of the positive ones. */
    void (*natural)(const double *theta, double *value);
} law;

#define LAW(name) extern const law law_##name;
LAWS(LAW)
#undef LAW

const law *law_at(i64 i); // NULL behind the last
/* The law NAME. ERR_USAGE names the nearest, or all. */
status law_find(const char *name, const law **out) MUST;
/* What the law says at X (inputs in the row's order). NaN outside of its domain. */
double law_value(const law *l, const double *theta, const double *x);
void law_natural(const law *l, const double *theta, double *value); // [params]
/* The table as the section of docs/laws.md. */
void law_markdown(text *out);

/* ---- for the files of laws */
/* Solves min |A c - b| (A [rows, n], row-major, n <= LAW_PARAMS) by normal equations with scaled columns;
 * good enough for a start. False when the columns do not tell the unknowns apart. */
bool law_solve(const double *a, const double *b, i64 rows, int n, double *c);

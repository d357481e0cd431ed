/* What the files of `keel fit` share. */
#pragma once
#include "lab/fit.h"
#include "lab/run_table.h"

enum { MOST_ASKED = 32 };
typedef struct fit_asked { // --predict: a value an input
    double x[LAW_INPUTS];
} fit_asked;

typedef struct fit_told { // all there is to say
    const run_table *table;
    const run_points *from;
    fit f;
    fit_prediction predicted[MOST_ASKED];
    i64 n_predicted;
    fit_optimum_point optimum[MOST_ASKED];
    i64 n_optimum;
} fit_told;

void fit_tell_text(const fit_told *t);
status fit_tell_json(const fit_told *t) MUST;
status fit_tell_page(const fit_told *t, const char *path, arena *a) MUST;
/* "N=1e+09, D=2e+10" */
const char *fit_point_text(const law *l, const double *x, char out[160]);
/* "0.21%", or of an absolute law "0.0021" */
const char *fit_error_text(const law *l, double error, char out[32]);

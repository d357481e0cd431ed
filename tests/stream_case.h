/* stream_case: what connections of every kind have in common. */
#pragma once
#include "model_case.h"

/* With weight = 0, [N] numbers of BRANCH's dynamic connections, they are the static ones whatever the scales:
 * the scales' gradient is exactly 0; weight's is not, and grows with the scale. */
static inline void check_what_moves_first(model_case m, const char *branch, int n)
{
    double first[256], off = 0, norm = 0;
    char path[96], scales[96];
    runner r;
    case_rows x;
    assert_true(n <= COUNT(first));
    snprintf(path, sizeof path, "%s.residual.weight", branch);
    snprintf(scales, sizeof scales, "%s.residual.scale", branch);
    rows_mixed(&x);
    runner_open(
        &r, m, NULL, 0,
        &(runner_options){.shape = case_shape(&x, MODE_TRAIN, DT_F32), .backward = true, .oracle = true});
    runner_rows(&r, &x);
    assert_int_equal(count(g_find(r.m.g, path)), n);
    double *weight = oracle_data(r.o, g_find(r.m.g, path)), *scale = oracle_data(r.o, g_find(r.m.g, scales));
    memset(weight, 0, sizeof *weight * (size_t)n);
    for (int again = 0; again < 2; again++) {
        scale[0] = scale[1] = again ? 0.03 : 0.01;
        runner_oracle(&r);
        const double *dweight = oracle_data(r.o, g_find(r.m.g, path)->grad);
        const double *dscale = oracle_data(r.o, g_find(r.m.g, scales)->grad);
        assert_true(dscale[0] == 0 && dscale[1] == 0);
        if (!again) memcpy(first, dweight, sizeof *first * (size_t)n);
        for (int i = 0; again && i < n; i++)
            off += pow(dweight[i] - 3 * first[i], 2), norm += pow(dweight[i], 2);
    }
    assert_true(norm > 0 && sqrt(off / norm) <= 1e-13);
    runner_close(&r);
}

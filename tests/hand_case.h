/* hand_case: one operation on numbers worked out by hand, in double.
 *
 *     trial *t = by_hand(OP_stream_sum, "x=1x4 n=2", (const double *[MAX_IN]){x});
 *     is_near(output(t, 0), (double[]){8.85, 6.85}, 2, 1e-14);
 *     trial_close(t);
 */
#pragma once
#include "check.h"
#include "graph/trial.h"
#include <math.h>

static inline void is_near(const double *x, const double *want, int n, double limit)
{
    for (int i = 0; i < n; i++)
        if (!(fabs(x[i] - want[i]) <= limit)) fail_msg("value %d is %.17g, not %.17g", i, x[i], want[i]);
}

/* LINE as a case of `keel op check`; VALUES in the order of its inputs, NULL: not given. */
static inline trial *by_hand(op_id op, const char *line, const double *const *values)
{
    trial *t;
    trial_given given = {.exact = true};
    assert_ok(case_parse(op_table(ISA_PLAIN, op), line, &given.spec));
    for (int i = 0; i < MAX_IN; i++) given.in[i] = values[i];
    assert_ok(trial_open_given(op, &given, DT_F32, &t));
    assert_ok(trial_oracle(t));
    return t;
}
static inline const double *output(const trial *t, int i) { return oracle_data(t->oracle, t->out[i]); }

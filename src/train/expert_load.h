/* expert_load: how evenly a step used the experts of its layers, from the tallies that routers keep.
 *
 *     expert_load l;
 *     if (expert_load_read(s, &l)) ... {"expert_load", l.load}, {"expert_drop", l.dropped} ...
 */
#pragma once
#include "train/session.h"

typedef struct expert_load {
    double
        load; // tokens of the busiest expert over the mean, averaged over layers: 1 is even, E is all in one
    double dropped; // share of all assignments that found their expert full
} expert_load;

/* Of the last step's forward passes (session_forward_backward). False: the model has no experts, or the step
 * counted no token. */
bool expert_load_read(const session *s, expert_load *out);

/* Guards: see guard.h. A spike is a loss above mean + sigma x standard deviation of the last hundred or so.
 */
#include "train/guard.h"
#include <math.h>

void guard_from(const config *c, guard *out)
{
    static const guard_verdict nonfinite[] = {GUARD_STOP, GUARD_SKIP, GUARD_ROLLBACK},
                               spike[] = {GUARD_SKIP, GUARD_ROLLBACK, GUARD_MERGE};
    out->nonfinite = nonfinite[config_choice(c, "train.guard.nonfinite")];
    out->spike = spike[config_choice(c, "train.guard.spike_action")];
    out->sigma = config_number(c, "train.guard.spike_sigma");
}

static guard_verdict intervene(guard *g, i64 step, guard_verdict how)
{
    g->now.trouble = MAX(step, g->now.trouble);
    return ++g->now.interventions > GUARD_MOST ? GUARD_STOP : how;
}

guard_verdict guard_nonfinite(guard *g, i64 step) { return intervene(g, step, g->nonfinite); }

guard_verdict guard_look(guard *g, i64 step, double loss)
{
    guard_state *s = &g->now;
    if (!isfinite(loss)) return guard_nonfinite(g, step);
    double off = loss - s->mean, rate = 1.0 / (double)MIN(s->seen + 1, GUARD_WINDOW);
    if (g->sigma > 0 && s->seen >= GUARD_FEWEST && off > g->sigma * sqrt(s->variance))
        return intervene(g, step, g->spike);
    s->mean += rate * off;
    s->variance = (1 - rate) * (s->variance + rate * off * off);
    s->seen++;
    if (step > s->trouble + GUARD_FEWEST) s->interventions = 0;
    return GUARD_GO;
}

/* What routers counted in a step: see expert_load.h. */
#include "train/expert_load.h"
#include <string.h>

static bool ends_in(const char *path, const char *end)
{
    size_t n = strlen(path), m = strlen(end);
    return n >= m && !strcmp(path + n - m, end);
}

bool expert_load_read(const session *s, expert_load *out)
{
    const graph *g = s->train.g;
    double layers = 0, load = 0, all = 0, dropped = 0;
    for (i64 i = 0; i < g->n_tensors; i++) {
        const tensor *t = g->tensors[i];
        if (t->role != ROLE_TALLY || !t->path) continue;
        const float *x = program_data(s->train_program, t);
        if (ends_in(t->path, ".router.dropped")) dropped += (double)*x;
        if (!ends_in(t->path, ".router.tokens")) continue;
        double sum = 0, most = 0;
        for (i64 e = 0; e < count(t); e++) sum += (double)x[e], most = MAX(most, (double)x[e]);
        all += sum;
        load += sum > 0 ? most * (double)count(t) / sum : 0;
        layers += sum > 0;
    }
    if (layers > 0) *out = (expert_load){load / layers, dropped / all};
    return layers > 0;
}

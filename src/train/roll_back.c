/* Going back to a checkpoint within a run: see guard.h and run.h. It leaves the run as if it had been killed
 * and resumed there, but for the data, which go on: what made the trouble is not read again. */
#include "base/file.h"
#include "train/run.h"
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MERGED = 3 };

/* The newest whole checkpoints of the run before NEWEST, into PATH[1] .. ; returns how many there are, with
 * PATH[0]. */
static i64 older_ones(const trainer *t, i64 newest, char path[MERGED][PATH_MAX])
{
    i64 n = 1, before = newest;
    while (n < MERGED) {
        DIR *d = opendir(t->o->out);
        i64 best = -1;
        long long at;
        char rest;
        for (struct dirent *e; d && (e = readdir(d));)
            if (sscanf(e->d_name, "step_%lld%c", &at, &rest) == 1 && at < before && at > best) best = at;
        if (d) closedir(d);
        if (best < 0) break;
        i64 step;
        snprintf(path[n], PATH_MAX, "%s/step_%lld", t->o->out, (long long)best);
        status s = checkpoint_verify(path[n], &step);
        if (!s) n++;
        status_drop(s);
        before = best;
    }
    return n;
}

static status merge_weights(trainer *t, const char *newest, i64 *merged)
{
    char(*path)[PATH_MAX];
    const char *name[MERGED];
    TRY(mem_alloc(MERGED * sizeof *path, "names of checkpoints", &path));
    snprintf(path[0], PATH_MAX, "%s", newest);
    *merged = older_ones(t, t->state.step, path);
    for (i64 k = 0; k < *merged; k++) {
        size_t length = 0;
        while (path[k][length]) length++;
        snprintf(path[k] + length, PATH_MAX - length, "/model.safetensors");
        name[k] = path[k];
    }
    status s = average_files(t->s->store, name, NULL, *merged, t->s->store->master);
    if (!s) store_sync(t->s->store);
    mem_free(path);
    return s;
}

static status cut_log(trainer *t)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/metrics.jsonl", t->o->out);
    metrics_close(t->log);
    t->log = NULL;
    return metrics_open(path, t->state.metrics_offset, &t->log);
}

status roll_back(trainer *t, double loss, bool merge)
{
    i64 from = t->state.step + 1, position = loader_tell(t->loader), step, merged = 0;
    double seconds = t->state.seconds;
    run_state was = t->state;
    char *path = NULL;
    TRY(checkpoint_wait(t->checkpoints));
    TRY(checkpoint_latest(t->o->out, NULL, NULL, &path, &step));
    if (!path)
        return fail(ERR_NUMERIC,
                    "step %lld has a loss of %g, and there is no checkpoint to go back to yet; lower "
                    "train.optimizer.lr or train.checkpoint.every",
                    (long long)from, loss);
    status s = load_session(t->s, path, true, &t->state);
    if (!s && merge) s = merge_weights(t, path, &merged);
    if (!s) s = average_load(t->average, t->s->store, path, t->state.step);
    t->state.seconds = seconds;
    t->state.threads = was.threads;
    memcpy(t->state.code, was.code, sizeof was.code); // as resume_from: who trains from here on
    memcpy(t->state.isa, was.isa, sizeof was.isa);
    if (!s) s = loader_seek(t->loader, position);
    if (!s) s = cut_log(t);
    metric m[] = {{"rolled_back_from", (double)from}};
    if (!s) s = metrics_append(t->log, t->state.step, m, COUNT(m));
    if (!s && merge)
        say(t, "step %lld: loss %.4f: back to the mean of the %lld checkpoints up to step %lld (train.guard)",
            (long long)from, loss, (long long)merged, (long long)t->state.step);
    else if (!s)
        say(t, "step %lld: loss %.4f: back to the checkpoint of step %lld (train.guard)", (long long)from,
            loss, (long long)t->state.step);
    free(path);
    return s;
}

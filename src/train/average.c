/* Averages of weights: see average.h. */
#include "train/average.h"
#include "base/file.h"
#include <dirent.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef enum average_kind { AVERAGE_NONE, AVERAGE_EMA, AVERAGE_SMA, AVERAGE_WMA } average_kind;
struct average {
    average_kind kind;
    char folder[PATH_MAX]; // of the snapshots
    double decay;
    i64 every, last, taken; // taken: means so far (ema)
    i64 saved[2]; // steps of the last two checkpoints, -1: none; the newer may still be on its way to disk
    float *mean;  // layout of the store's masters
    size_t bytes;
};
enum { MOST_SNAPSHOTS = 4096 }; // more than three times the largest `last`

status average_open(const config *c, const store *s, const char *folder, i64 steps, i64 tokens_per_step,
                    average **out)
{
    average *a;
    i64 kind = config_choice(c, "train.average.kind");
    *out = NULL;
    if (kind == AVERAGE_NONE) return OK;
    TRY(mem_alloc(sizeof *a, "average of the weights", &a));
    *a = (average){
        .kind = (average_kind)kind, .bytes = (size_t)s->elements * sizeof(float), .saved = {-1, -1}};
    snprintf(a->folder, sizeof a->folder, "%s/snapshots", folder);
    i64 every = config_span(c, "train.average.every", steps, tokens_per_step);
    a->every = every > 0 ? every : kind == AVERAGE_EMA ? 1 : MAX(1, steps / 100);
    if (kind == AVERAGE_EMA) a->decay = pow(config_number(c, "train.average.decay"), (double)a->every);
    a->last = kind == AVERAGE_EMA ? 0 : config_count(c, "train.average.last");
    status e = region_open(a->bytes, "average of the weights", (void **)&a->mean);
    if (e)
        mem_free(a);
    else
        *out = a;
    return e;
}

void average_close(average *a)
{
    if (!a) return;
    region_close(a->mean, a->bytes);
    mem_free(a);
}

/* ---- snapshots */
static int ascending(const void *a, const void *b)
{
    i64 x = *(const i64 *)a, y = *(const i64 *)b;
    return (x > y) - (x < y);
}

/* Steps of the snapshots there are, ascending. */
static i64 snapshots(const average *a, i64 step[MOST_SNAPSHOTS])
{
    DIR *d = opendir(a->folder);
    i64 n = 0;
    long long at;
    char rest[16];
    for (struct dirent *e; d && n < MOST_SNAPSHOTS && (e = readdir(d));)
        if (sscanf(e->d_name, "step_%lld%15s", &at, rest) == 2 && !strcmp(rest, ".safetensors"))
            step[n++] = at;
    if (d) closedir(d);
    qsort(step, (size_t)n, sizeof *step, ascending);
    return n;
}
static const char *snapshot_path(const average *a, i64 step, char out[PATH_MAX + 64])
{
    snprintf(out, PATH_MAX + 64, "%s/step_%lld.safetensors", a->folder, (long long)step);
    return out;
}

/* Parameters FROM there; what has no mean (states, constants) goes along as it is now. */
static i64 entries_of(const store *s, st_entry *out, const float *from)
{
    for (i64 i = 0; i < s->n; i++) {
        const stored *e = &s->entry[i];
        out[i] = (st_entry){.name = e->path, .dtype = ST_F32, .n_dims = e->ndim, .data = from + e->offset};
        if (e->role != ROLE_PARAM) {
            out[i].data = e->data;
            out[i].dtype = e->dtype == DT_I32 ? ST_I32 : e->dtype == DT_BF16 ? ST_BF16 : ST_F32;
        }
        for (int k = 0; k < e->ndim; k++) out[i].dims[k] = e->dim[k];
    }
    return s->n;
}

/* Is snapshot K of N among the last ones up to step END? */
static bool is_of(const average *a, const i64 *step, i64 n, i64 k, i64 end)
{
    while (n && step[n - 1] > end) n--;
    return k < n && k + a->last >= n;
}

/* Removes those that neither the mean of now needs nor that of a checkpoint from which the run may go on. */
static status retain(const average *a)
{
    char path[PATH_MAX + 64];
    i64 step[MOST_SNAPSHOTS], n = snapshots(a, step);
    status e = OK;
    for (i64 k = 0; !e && k < n; k++)
        if (!is_of(a, step, n, k, INT64_MAX) && !is_of(a, step, n, k, a->saved[0]) &&
            !is_of(a, step, n, k, a->saved[1]))
            e = tree_remove(snapshot_path(a, step[k], path));
    return e;
}

static status take_snapshot(const average *a, const store *s, i64 at)
{
    char path[PATH_MAX + 64];
    st_entry *entries;
    TRY(dir_make(a->folder));
    TRY(mem_alloc((size_t)MAX(s->n, 1) * sizeof *entries, "snapshot", &entries));
    i64 n = entries_of(s, entries, s->master);
    status e = st_save(snapshot_path(a, at, path), entries, n, NULL, 0, NULL);
    mem_free(entries);
    return e ? e : retain(a);
}

/* ---- the mean */
/* OUT moves towards the file's weights by SHARE of the way; 1: it becomes them. */
static status move_towards(const store *s, const char *path, double share, float *out)
{
    st_file *f;
    TRY(st_open(path, &f));
    for (i64 i = 0; i < s->n_params; i++) {
        const stored *e = &s->entry[i];
        const st_entry *x = st_find(f, e->path);
        if (!x || x->dtype != ST_F32 || x->bytes != e->count * (i64)sizeof(float)) {
            st_close(f);
            return fail(ERR_FORMAT, "%s: %s is missing, or not %lld numbers of f32", path, e->path,
                        (long long)e->count);
        }
        float *to = out + e->offset;
        const float *from = x->data;
#pragma omp parallel for schedule(static)
        for (i64 k = 0; k < e->count; k++)
            to[k] = share == 1 ? from[k] : (float)(to[k] + share * ((double)from[k] - to[k]));
    }
    st_close(f);
    return OK;
}

/* As m <- m + w_k/(w_1 + .. + w_k) (x_k - m): equal files give their own bits. */
status average_files(const store *s, const char *const *path, const double *weight, i64 n, float *out)
{
    double sum = 0;
    for (i64 k = 0; k < n; k++) {
        double w = weight ? weight[k] : 1;
        sum += w;
        TRY(move_towards(s, path[k], w / sum, out));
    }
    return OK;
}

static status mean_of_snapshots(average *a, const store *s, bool *there)
{
    i64 step[MOST_SNAPSHOTS], n = snapshots(a, step);
    i64 first = MAX(0, n - a->last);
    char(*path)[PATH_MAX + 64];
    const char *name[MOST_SNAPSHOTS];
    double weight[MOST_SNAPSHOTS];
    *there = n > 0;
    if (!n) return OK;
    TRY(mem_alloc((size_t)(n - first) * sizeof *path, "names of snapshots", &path));
    for (i64 k = first; k < n; k++) {
        name[k - first] = snapshot_path(a, step[k], path[k - first]);
        weight[k - first] = a->kind == AVERAGE_WMA ? (double)(k - first + 1) : 1;
    }
    status e = average_files(s, name, weight, n - first, a->mean);
    mem_free(path);
    return e;
}

status average_step(average *a, const store *s, i64 step)
{
    if (!a || step % a->every) return OK;
    if (a->kind != AVERAGE_EMA) return take_snapshot(a, s, step);
    double t = (double)a->taken++, b = fmin(a->decay, (1 + t) / (10 + t));
    float keep = (float)(t > 0 ? b : 0), take = (float)(t > 0 ? 1 - b : 1);
#pragma omp parallel for schedule(static)
    for (i64 k = 0; k < s->elements; k++) a->mean[k] = keep * a->mean[k] + take * s->master[k];
    return OK;
}

static void exchange(average *a, store *s)
{
#pragma omp parallel for schedule(static)
    for (i64 k = 0; k < s->elements; k++) {
        float x = s->master[k];
        s->master[k] = a->mean[k];
        a->mean[k] = x;
    }
    store_sync(s);
}

status average_enter(average *a, store *s, bool *there)
{
    *there = a && a->taken > 0;
    if (a && a->kind != AVERAGE_EMA) TRY(mean_of_snapshots(a, s, there));
    if (*there) exchange(a, s);
    return OK;
}
void average_leave(average *a, store *s) { exchange(a, s); }

status average_save(average *a, const store *s, checkpoint *c, i64 step, bool end)
{
    bool there = a && a->taken > 0;
    st_entry *entries;
    char taken[32];
    if (!a) return OK;
    a->saved[1] = a->saved[0], a->saved[0] = step;
    if (a->kind != AVERAGE_EMA && !end) return OK;
    status e = a->kind == AVERAGE_EMA ? OK : mean_of_snapshots(a, s, &there);
    if (!e && there) e = mem_alloc((size_t)MAX(s->n, 1) * sizeof *entries, "average", &entries);
    if (e) checkpoint_abandon(c);
    if (e || !there) return e;
    i64 n = entries_of(s, entries, a->mean);
    snprintf(taken, sizeof taken, "%lld", (long long)a->taken);
    e = checkpoint_arrays(c, "average.safetensors", entries, n, (st_pair[]){{"taken", taken}}, 1);
    mem_free(entries);
    return e;
}

/* What a process killed while it wrote one left behind. */
static status sweep(const average *a)
{
    char path[PATH_MAX + 300];
    status s = OK;
    DIR *d = opendir(a->folder);
    for (struct dirent *e; d && !s && (e = readdir(d));) {
        if (strncmp(e->d_name, "step_", 5) || !strstr(e->d_name, ".safetensors.tmp-")) continue;
        snprintf(path, sizeof path, "%s/%s", a->folder, e->d_name);
        s = tree_remove(path);
    }
    if (d) closedir(d);
    return s;
}

status average_load(average *a, const store *s, const char *path, i64 step)
{
    char name[PATH_MAX + 64];
    i64 at[MOST_SNAPSHOTS];
    st_file *f;
    if (!a) return OK;
    if (a->kind != AVERAGE_EMA) {
        TRY(sweep(a));
        i64 n = snapshots(a, at);
        for (i64 k = 0; k < n; k++)
            if (at[k] > step) TRY(tree_remove(snapshot_path(a, at[k], name)));
        a->saved[0] = path ? step : -1, a->saved[1] = -1;
        return OK;
    }
    a->taken = 0;
    if (!path) return OK;
    snprintf(name, sizeof name, "%s/average.safetensors", path);
    if (!path_exists(name)) return OK; // saved before the first mean
    TRY(st_open(name, &f));
    const char *taken = st_metadata(f, "taken");
    a->taken = taken ? strtoll(taken, NULL, 10) : 1;
    st_close(f);
    return average_files(s, (const char *const[]){name}, NULL, 1, a->mean);
}

status average_end(average *a)
{
    if (!a || a->kind == AVERAGE_EMA) return OK;
    a->saved[0] = a->saved[1] = -1;
    return retain(a);
}

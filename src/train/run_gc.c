/* Removing what of the runs is no longer needed: see run_gc.h. */
#define _GNU_SOURCE // asprintf
#include "train/run_gc.h"
#include "base/file.h"
#include "config/config.h"
#include "train/checkpoint_parts.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- the plan */

static void add_item(arena *a, gc_plan *plan, i64 *capacity, gc_item item)
{
    if (plan->n == *capacity) {
        gc_item *more = arena_array(a, gc_item, *capacity = 2 * *capacity + 64);
        if (plan->n) memcpy(more, plan->items, (size_t)plan->n * sizeof *more);
        plan->items = more;
    }
    plan->items[plan->n++] = item;
    plan->bytes += item.bytes;
}

/* The bytes of the files in a checkpoint's folder, which holds no folders. */
static i64 bytes_of(const char *folder)
{
    i64 sum = 0;
    DIR *dir = opendir(folder);
    struct stat st;
    if (!dir) return 0;
    for (struct dirent *e; (e = readdir(dir));)
        if (!fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) && S_ISREG(st.st_mode))
            sum += st.st_size;
    closedir(dir);
    return sum;
}

/* Gone, not merely out of reach: a folder that cannot be looked at may be there. */
static bool is_gone(const char *folder)
{
    struct stat st;
    return *folder && lstat(folder, &st) && (errno == ENOENT || errno == ENOTDIR);
}

/* Is STEP a milestone of the run of STEPS steps, by its configuration? */
static bool is_milestone(const config *c, i64 step, i64 steps)
{
    i64 context = MAX(config_count(c, "model.context"), 1), batch = config_count(c, "train.batch_tokens");
    i64 tokens = MAX(batch / context, 1) * context; // as train/run.c reads them
    for (i64 i = 0; i < config_items(c, "train.checkpoint.milestones"); i++)
        if (span_steps(config_item(c, "train.checkpoint.milestones", i, "at"), steps, tokens) == step)
            return true;
    return false;
}

static status plan_run(arena *a, const registry_run *run, gc_plan *plan, i64 *capacity)
{
    i64 *steps, n;
    config *c;
    TRY(checkpoint_steps(run->folder, &steps, &n));
    status s = n > 1 ? config_load(arena_printf(a, "%s/config.yaml", run->folder), NULL, 0, &c) : OK;
    if (!s && n > 1) {
        for (i64 i = 1; i < n; i++) {
            if (is_milestone(c, steps[i], run->steps)) continue;
            const char *folder = arena_printf(a, "%s/step_%lld", run->folder, (long long)steps[i]);
            add_item(a, plan, capacity, (gc_item){run->id, run->folder, steps[i], bytes_of(folder)});
        }
        config_close(c);
    }
    free(steps);
    return s;
}

status gc_plan_make(registry *r, arena *a, gc_plan *plan)
{
    registry_run *runs;
    i64 n, capacity = 0;
    *plan = (gc_plan){0};
    TRY(registry_list(r, a, &runs, &n));
    plan->kept = arena_array(a, const char *, n);
    for (i64 i = 0; i < n; i++) {
        bool newest = true; // of those in its folder, which come after each other in this list
        for (i64 k = 0; k < i && newest; k++) newest = strcmp(runs[k].folder, runs[i].folder) != 0;
        if (is_gone(runs[i].folder))
            add_item(a, plan, &capacity, (gc_item){runs[i].id, runs[i].folder, -1, 0});
        else if (newest && !strcmp(runs[i].status, "done")) {
            status s = plan_run(a, &runs[i], plan, &capacity);
            if (s)
                plan->kept[plan->n_kept++] =
                    arena_printf(a, "%s keeps its checkpoints: %s", runs[i].folder, s->message);
            status_drop(s);
        }
    }
    return OK;
}

/* ---- removing */

/* Removes the checkpoints of ITEMS, N of one folder, while nobody else may write there. */
static status remove_steps(const gc_item *items, i64 n, i64 *removed, i64 *bytes)
{
    checkpoint_store *store;
    i64 *steps = NULL, count, step;
    TRY(checkpoint_open(items->folder, &(checkpoint_options){0}, &store));
    status s = checkpoint_steps(items->folder, &steps, &count);
    if (!s && (!count || steps[0] <= items->step))
        s = fail(ERR_INPUT, "%s: it changed meanwhile", items->folder);
    if (!s) {
        char *newest = NULL;
        if (asprintf(&newest, "%s/step_%lld", items->folder, (long long)steps[0]) < 0)
            s = fail(ERR_MEMORY, "out of memory");
        else
            s = checkpoint_verify(newest, &step);
        free(newest);
    }
    for (i64 i = 0; !s && i < n; i++) {
        s = checkpoint_remove(items->folder, items[i].step);
        if (!s) ++*removed, *bytes += items[i].bytes;
    }
    free(steps);
    status closed = checkpoint_close(store);
    if (!s) return closed;
    status_drop(closed);
    return s;
}

status gc_remove(registry *r, const gc_plan *plan, checkpoint_talk talk, void *context, i64 *removed,
                 i64 *bytes)
{
    *removed = *bytes = 0;
    for (i64 i = 0, end; i < plan->n; i = end) {
        const gc_item *item = &plan->items[i];
        for (end = i + 1; end < plan->n && item->step >= 0 && plan->items[end].step >= 0 &&
                          !strcmp(plan->items[end].folder, item->folder);)
            end++;
        if (item->step < 0) {
            TRY(registry_remove(r, item->id));
            ++*removed;
            continue;
        }
        status s = remove_steps(item, end - i, removed, bytes);
        if (s && talk) talk(context, s->message);
        status_drop(s);
    }
    return OK;
}

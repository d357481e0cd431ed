/* keel runs gc: what of the runs is no longer needed; with --yes it is removed. */
#include "base/text.h"
#include "cli/runs_parts.h"
#include "train/run_gc.h"
#include <stdio.h>

static void say(void *context, const char *line)
{
    (void)context;
    fprintf(stderr, "keel: left alone: %s\n", line);
}

static void put_plan(const gc_plan *plan)
{
    char shown[32];
    for (i64 i = 0; i < plan->n; i++) {
        const gc_item *item = &plan->items[i];
        if (item->step < 0)
            printf("entry       %s  ", item->id);
        else
            printf("checkpoint  %s  ", show_bytes((double)item->bytes, shown));
        runs_put_text(item->folder);
        if (item->step < 0)
            printf(" (gone)\n");
        else
            printf("/step_%lld\n", (long long)item->step);
    }
}

static void put_json(const gc_plan *plan, bool done, i64 removed, i64 bytes)
{
    json_t *o = json_object(), *all = json_array();
    for (i64 i = 0; i < plan->n; i++) {
        const gc_item *item = &plan->items[i];
        json_array_append_new(all, json_pack("{s:s, s:s, s:s, s:o, s:I}", "what",
                                             item->step < 0 ? "entry" : "checkpoint", "run", item->id,
                                             "folder", item->folder, "step",
                                             item->step < 0 ? json_null() : json_integer(item->step), "bytes",
                                             (json_int_t)item->bytes));
    }
    json_object_set_new(o, "items", all);
    json_object_set_new(o, "bytes", json_integer(plan->bytes));
    json_object_set_new(o, "removed", json_integer(done ? removed : 0));
    json_object_set_new(o, "removed_bytes", json_integer(done ? bytes : 0));
    runs_put_json(o);
}

static status gc(const runs_args *args, registry *r, arena *a)
{
    gc_plan plan;
    char shown[32];
    i64 removed = 0, bytes = 0;
    TRY(gc_plan_make(r, a, &plan));
    for (i64 i = 0; i < plan.n_kept; i++) say(NULL, plan.kept[i]);
    if (args->yes) TRY(gc_remove(r, &plan, say, NULL, &removed, &bytes));
    if (args->json)
        put_json(&plan, args->yes, removed, bytes);
    else
        put_plan(&plan);
    if (!plan.n)
        fprintf(stderr, "nothing to remove\n");
    else if (args->yes)
        fprintf(stderr, "removed %lld of %lld, %s\n", (long long)removed, (long long)plan.n,
                show_bytes((double)bytes, shown));
    else
        fprintf(stderr, "%s in all; nothing was removed: 'keel runs gc --yes' does it\n",
                show_bytes((double)plan.bytes, shown));
    return OK;
}

status runs_gc(const runs_args *args, arena *a)
{
    registry *r;
    TRY(registry_open(args->registry, REGISTRY_READ, &r));
    if (r && args->yes) { // a registry that is not there is not made for this
        registry_close(r);
        TRY(registry_open(args->registry, REGISTRY_WRITE, &r));
    }
    status s = gc(args, r, a);
    registry_close(r);
    return s;
}

/* run_gc: what of the runs is no longer needed.
 *
 *     gc_plan plan;
 *     TRY(gc_plan_make(r, a, &plan));                  // looks only
 *     for (i64 i = 0; i < plan.n; i++) ... plan.items[i] ...
 *     TRY(gc_remove(r, &plan.items[i], talk, NULL));
 *
 * That is: the registry's entries whose folder is gone; and in folders of runs that are done the checkpoints
 * before the newest one, except the milestones. Runs that are running, stopped, failed or diverged keep all.
 */
#pragma once
#include "train/checkpoint.h"
#include "train/registry.h"

typedef struct gc_item {
    const char *id, *folder;
    i64 step;  // the checkpoint folder/step_N; -1: the entry ID of the registry
    i64 bytes; // on the disk; 0 of an entry
} gc_item;

typedef struct gc_plan {
    gc_item *items;
    i64 n, bytes;
    const char **kept; // lines about runs that were left alone because something of them could not be read
    i64 n_kept;
} gc_plan;

/* Strings live in A. */
status gc_plan_make(registry *r, arena *a, gc_plan *plan) MUST;
/* Removes PLAN (R opened to write). A folder that a process trains into, or whose newest checkpoint is
 * damaged, keeps its checkpoints, and TALK is told. *removed: items, *bytes: of them. */
status gc_remove(registry *r, const gc_plan *plan, checkpoint_talk talk, void *context, i64 *removed,
                 i64 *bytes) MUST;

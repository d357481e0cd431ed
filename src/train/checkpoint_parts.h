/* What the files of the checkpoint store share; for others: checkpoint.h.
 *
 *     text m = {0};
 *     checkpoint_manifest_write(&m, step, files, n);                  // the text of manifest.json
 *     i64 *steps, n;
 *     TRY(checkpoint_steps(run_dir, &steps, &n));          // of the folders step_N, newest first
 *     free(steps);
 */
#pragma once
#include "base/text.h"
#include "train/checkpoint.h"

typedef struct manifest_file {
    const char *name;
    digest sum;
} manifest_file;
/* Appends the manifest of N files to T. */
void checkpoint_manifest_write(text *t, i64 step, const manifest_file *files, i64 n);

/* The steps of all folders step_N in RUN_DIR, newest first, whole or not; released with free. None: *n = 0.
 */
status checkpoint_steps(const char *run_dir, i64 **steps, i64 *n) MUST;
/* Removes RUN_DIR/step_N so that no moment shows a part of it under that name. */
status checkpoint_remove(const char *run_dir, i64 step) MUST;
/* Removes what processes that died left in RUN_DIR, whose lock the caller holds. */
status checkpoint_sweep(const char *run_dir) MUST;

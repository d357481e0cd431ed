/* checkpoint: a run's states on disk, so that a crash at any moment costs at most the steps since the last
 * save.
 *
 *     checkpoint_store *store;
 *     TRY(checkpoint_open("runs/a", &(checkpoint_options){.keep = 3}, &store)); // locks the folder
 *     checkpoint *c;
 *     TRY(checkpoint_begin(store, step, &c));
 *     TRY(checkpoint_arrays(c, "model.safetensors", entries, n, NULL, 0));  // from where they lie
 *     TRY(checkpoint_file(c, "state.json", text, bytes));
 *     TRY(checkpoint_finish(c));              // returns at once; a thread fsyncs and renames
 *     TRY(checkpoint_wait(store));            // how that went; asked at the next save at the latest
 *
 * A checkpoint is the folder RUN/step_N: the files given, and manifest.json with the size and checksum of
 * each, written last. It is written as step_N.tmp-PID and renamed when all of it is on the disk, so a final
 * name never stands for half a checkpoint. Nothing in it depends on time, host or path. */
#pragma once
#include "format/safetensors.h"

typedef struct checkpoint_store checkpoint_store;
typedef struct checkpoint checkpoint;

/* Told one line (no newline) about something handled: a damaged checkpoint skipped, an old one not removable.
 */
typedef void (*checkpoint_talk)(void *context, const char *line);

typedef struct checkpoint_options {
    i64 keep;              // after a save, older checkpoints than the newest KEEP are removed; 0 keeps all
    const i64 *milestones; // ... but never these steps
    i64 n_milestones;
    checkpoint_talk talk; // NULL allowed
    void *talk_context;
} checkpoint_options;

/* ---- saving */
/* Makes RUN_DIR if needed, locks it (flock on RUN_DIR/lock, until closed or dead) and removes what killed
 * saves left there. ERR_IO when another process holds the lock, naming it. Options are copied. */
status checkpoint_open(const char *run_dir, const checkpoint_options *options, checkpoint_store **out) MUST;
/* Waits for the save under way, unlocks. The status is that of the save; the store is gone in either case. */
status checkpoint_close(checkpoint_store *store) MUST;
/* Never removes the checkpoints of these N steps (copied) from now on, in place of those of the options. */
status checkpoint_milestones(checkpoint_store *store, const i64 *steps, i64 n) MUST;
/* Starts saving step N. Waits for the save before and passes its failure on. */
status checkpoint_begin(checkpoint_store *store, i64 step, checkpoint **out) MUST;
/* Writes N arrays (entries[i].data) as file NAME into the page cache, hashing them on the way; they may
 * change once this returns. A failure of this or checkpoint_file removes what was written, and C is gone. */
status checkpoint_arrays(checkpoint *c, const char *name, const st_entry *entries, i64 n,
                         const st_pair *metadata, i64 n_metadata) MUST;
/* Writes BYTES bytes as file NAME (letters, digits, . _ -; state.json, config.yaml). */
status checkpoint_file(checkpoint *c, const char *name, const void *data, size_t bytes) MUST;
/* Hands C to a thread of its own, which syncs the files, writes the manifest, renames the folder, syncs again
 * and removes checkpoints no longer kept. Fails only if that thread cannot start. C is gone in either case.
 */
status checkpoint_finish(checkpoint *c) MUST;
void checkpoint_abandon(checkpoint *c); // removes what was written; NULL allowed
/* Waits for the save under way, if any: OK once it is safely on the disk, else what failed (then nothing
 * stands under its final name, unless only the last sync of the run's folder failed, and the save may be
 * tried again). */
status checkpoint_wait(checkpoint_store *store) MUST;
/* Removes all checkpoints after step N: a run rolled back to N must not resume from a future it left. */
status checkpoint_discard_after(checkpoint_store *store, i64 step) MUST;

/* ---- finding */
/* The path of the newest checkpoint of RUN_DIR that is whole, every byte verified, and its step; each damaged
 * or unfinished one on the way is named in a line to TALK. *step is -1 when there are none at all; ERR_FORMAT
 * when there are some and none is whole. *path is released with free. */
status checkpoint_latest(const char *run_dir, checkpoint_talk talk, void *talk_context, char **path,
                         i64 *step) MUST;
bool checkpoint_any(const char *run_dir); // is there a folder step_N, whole or not?
/* Verifies one checkpoint folder: manifest, sizes, checksums. ERR_FORMAT names the file and what is wrong. */
status checkpoint_verify(const char *path, i64 *step) MUST;

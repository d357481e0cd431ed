/* keel runs export: a run's metrics as CSV, as JSON lines, or for TensorBoard. */
#include "base/file.h"
#include "cli/runs_parts.h"
#include "train/run_export.h"
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* When the run began; for a folder the registry does not know, when its log was last written. */
static i64 begin_of(const registry_run *run, const char *log)
{
    struct stat st;
    if (run->started > 0) return run->started;
    return stat(log, &st) ? 0 : (i64)st.st_mtime;
}

static status put(const char *path, const text *t)
{
    if (!path)
        return fwrite(t->data ? t->data : "", 1, t->bytes, stdout), OK; // main looks at stdout's errors
    TRY(file_replace(path, t->data, t->bytes));
    fprintf(stderr, "wrote %s\n", path);
    return OK;
}

status runs_export(const runs_args *args, arena *a)
{
    registry_run run;
    text t = {0};
    if (args->csv + args->jsonl + (args->tensorboard != NULL) != 1)
        return fail(ERR_USAGE, "runs export: as what? Give one of --csv, --jsonl and --tensorboard DIR");
    if (args->tensorboard && args->out)
        return fail(ERR_USAGE, "runs export: --tensorboard names its file itself; leave --out away");
    TRY(runs_place(args, a, args->what[0], &run));
    const char *log = arena_printf(a, "%s/metrics.jsonl", run.folder), *path = args->out;
    i64 began = begin_of(&run, log);
    export_form form = args->csv ? EXPORT_CSV : args->jsonl ? EXPORT_JSONL : EXPORT_EVENTS;
    status s = run_export(log, form, (double)began, &t);
    if (!s && args->tensorboard) {
        path = arena_printf(a, "%s/events.out.tfevents.%010lld.keel", args->tensorboard, (long long)began);
        s = dir_make(args->tensorboard);
    }
    if (!s) s = put(path, &t);
    text_free(&t);
    return s;
}

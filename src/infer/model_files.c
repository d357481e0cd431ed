/* Finding a trained model on disk: see model_files.h. */
#define _GNU_SOURCE
#include "infer/model_files.h"
#include "base/file.h"
#include "train/checkpoint.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *join(const char *folder, const char *name)
{
    char *path;
    return asprintf(&path, "%s/%s", folder, name) < 0 ? NULL : path;
}

static status find_folder(const char *path, void (*talk)(void *, const char *), void *context, model_files *f)
{
    char *manifest = join(path, "manifest.json");
    bool one = manifest && path_exists(manifest);
    free(manifest);
    if (!path_is_dir(path))
        return fail(ERR_INPUT, "%s: no such folder; name a run's folder or one of its step_N", path);
    if (one) {
        f->folder = strdup(path);
        return f->folder ? checkpoint_verify(path, &f->step) : fail(ERR_MEMORY, "%s: out of memory", path);
    }
    TRY(checkpoint_latest(path, talk, context, &f->folder, &f->step));
    if (!f->folder) return fail(ERR_INPUT, "%s holds no checkpoint; train first ('keel train')", path);
    return OK;
}

static status open_parts(model_files *f, bool average)
{
    char *yaml = join(f->folder, "config.yaml"), *json = join(f->folder, "tokenizer.json");
    f->weights = join(f->folder, average ? "average.safetensors" : "model.safetensors");
    f->state = join(f->folder, "state.json");
    status s = yaml && json && f->weights && f->state ? OK : fail(ERR_MEMORY, "%s: out of memory", f->folder);
    if (!s && average && !path_exists(f->weights))
        s = fail(ERR_INPUT,
                 "%s: this checkpoint holds no average; train with train.average.kind (sma and wma: "
                 "at the end of the run)",
                 f->weights);
    if (!s) s = config_load(yaml, NULL, 0, &f->config);
    if (!s && path_exists(json)) s = tokenizer_open(json, &f->tokenizer);
    free(yaml);
    free(json);
    return s;
}

status model_files_open(const char *path, void (*talk)(void *, const char *), void *context, model_files *out)
{
    static const char suffix[] = "@average";
    size_t n = strlen(path), k = sizeof suffix - 1;
    bool average = n > k && !strcmp(path + n - k, suffix);
    char *folder = strndup(path, average ? n - k : n);
    *out = (model_files){.step = -1};
    status s = folder ? find_folder(folder, talk, context, out) : fail(ERR_MEMORY, "%s: out of memory", path);
    if (!s) s = open_parts(out, average);
    free(folder);
    if (s) model_files_close(out);
    return s;
}

void model_files_close(model_files *f)
{
    config_close(f->config);
    tokenizer_close(f->tokenizer);
    free(f->folder);
    free(f->weights);
    free(f->state);
    *f = (model_files){0};
}

/* model_files: a trained model on disk: a run's folder (its newest sound checkpoint) or one step_N/.
 *
 *     model_files f;
 *     TRY(model_files_open("runs/a", NULL, NULL, &f));
 *     ... f.config, f.weights ("runs/a/step_400/model.safetensors"), f.tokenizer ...
 *     model_files_close(&f);
 */
#pragma once
#include "config/config.h"
#include "text/tokenizer.h"

typedef struct model_files {
    char *folder, *weights, *state; // of the checkpoint
    config *config;                 // as the run resolved it
    tokenizer *tokenizer;           // NULL if the checkpoint holds none
    i64 step;
} model_files;

/* PATH may end with "@average": the averaged weights (train.average) instead. Verifies checksums. ERR_INPUT:
 * PATH holds no checkpoint; ERR_FORMAT: damaged. TALK as in train/checkpoint.h. */
status model_files_open(const char *path, void (*talk)(void *, const char *), void *context, model_files *out)
    MUST;
void model_files_close(model_files *f);

/* From the configuration's data block to a data set: see corpus.h; data/prepare.h does the work. */
#include "train/corpus.h"
#include "base/file.h"
#include "base/text.h"
#include "data/prepare.h"
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MOST_PATHS = CORPUS_SOURCES };

static status read_paths(config *c, const char **paths, i64 *n)
{
    *n = config_items(c, "data.train");
    if (!*n) return config_refuse(c, "data.train", "is empty; name a folder or file of text, or shards");
    if (*n > MOST_PATHS)
        return config_refuse(c, "data.train", "has %lld items; at most %d", (long long)*n, MOST_PATHS);
    for (i64 i = 0; i < *n; i++) {
        paths[i] = config_item(c, "data.train", i, "path");
        if (!path_exists(paths[i]) && !strpbrk(paths[i], "*?["))
            return config_refuse(c, "data.train", "names %s, which does not exist", paths[i]);
    }
    return OK;
}

status corpus_weights(const config *c, double *out, i64 *n)
{
    const i64 items = config_items(c, "data.train");
    i64 given = 0;
    *n = 0;
    for (i64 i = 0; i < MIN(items, (i64)MOST_PATHS); i++) {
        out[i] = config_item_number(c, "data.train", i, "weight");
        given += !isnan(out[i]);
    }
    if (given && given < items)
        return config_refuse(c, "data.train",
                             "gives a weight to %lld of its %lld items; give one to each, or to none",
                             (long long)given, (long long)items);
    if (given && items > 1) *n = items;
    return OK;
}

status corpus_fit(config *c, const dataset *d)
{
    i64 have = dataset_vocab(d), room = config_count(c, "model.vocab");
    char number[32];
    snprintf(number, sizeof number, "%lld", (long long)have);
    if (room < 0) return config_set(c, "model.vocab", number, "tokenizer");
    if (room < have)
        return config_refuse(
            c, "model.vocab",
            "is %lld, but the tokenizer of %s has %lld tokens; set it to at least that, or to auto",
            (long long)room, dataset_folder(d), (long long)have);
    return OK;
}

typedef struct listener {
    const corpus_options *o;
    const char *phase;
} listener;

static bool tell_phase(void *context, const build_progress *p)
{
    listener *l = context;
    if (l->o->stop && *l->o->stop) return false;
    if (!l->o->talk || (l->phase && !strcmp(l->phase, p->phase))) return true;
    char line[128];
    l->phase = p->phase;
    snprintf(line, sizeof line, "data: %s ...", p->phase);
    l->o->talk(l->o->context, line);
    return true;
}

status corpus_open(config *c, const corpus_options *options, dataset **out)
{
    char folder[PATH_MAX], line[256];
    const char *paths[MOST_PATHS];
    double weights[MOST_PATHS];
    i64 n, sources;
    listener l = {options, NULL};
    TRY(read_paths(c, paths, &n));
    TRY(corpus_weights(c, weights, &sources));
    snprintf(folder, sizeof folder, "%s/data", options->cache);
    prepare_options prepare = {.build = {.train = paths,
                                         .train_count = n,
                                         .mixture = sources > 0,
                                         .validation = config_text(c, "data.validation"),
                                         .document = config_text(c, "data.document"),
                                         .field = config_text(c, "data.field"),
                                         .special = config_text(c, "data.special"),
                                         .out = folder,
                                         .progress = tell_phase,
                                         .progress_context = &l},
                               .tokenizer = config_text(c, "data.tokenizer"),
                               .vocab = config_count(c, "data.vocab"),
                               .pattern = config_text(c, "data.pattern"),
                               .tokenizer_memory = config_count(c, "data.tokenizer_memory")};
    TRY(data_prepare(&prepare, out));
    snprintf(line, sizeof line,
             "data: %lld documents, %lld tokens to train on, %lld for validation, vocabulary %lld",
             (long long)dataset_documents(*out, DATA_TRAIN), (long long)dataset_tokens(*out, DATA_TRAIN),
             (long long)dataset_tokens(*out, DATA_VALIDATION), (long long)dataset_vocab(*out));
    if (options->talk) options->talk(options->context, line);
    status s = corpus_fit(c, *out);
    if (s) dataset_close(*out);
    return s;
}

/* prepare: from what a configuration says about data to an open data set: `keel train` takes a folder
 * directly.
 *
 *     prepare_options o = {.build = {.train = paths, .train_count = 1, .out = "cache"}, .vocab = 16384};
 *     dataset *d;
 *     TRY(data_prepare(&o, &d));                  // the first time trains a tokenizer and builds, then only
 * opens
 *
 * Kept in the cache folder: tokenizer-KEY.json (key: files with sizes and dates, cutting, vocabulary,
 * pattern) and shards-KEY (key: paths and options; built again when a file changed). */
#pragma once
#include "data/dataset.h"

typedef struct prepare_options {
    build_options build;   // .out: the cache folder; made if missing. .replace is not looked at
    const char *tokenizer; // data.tokenizer: a path; NULL or "auto": train one on the train documents
    i64 vocab;             // for auto; 0: 16Ki
    const char *pattern;   // for auto; NULL: gpt2
    i64 tokenizer_memory;  // bytes, for auto; 0: 2 GiB
} prepare_options;

/* If the only train path is a folder of shards, it is opened as it is (its own split holds; data.tokenizer,
 * if given, must be its tokenizer). Otherwise builds as dataset_build does. ERR_CONFIG, ERR_INPUT,
 * ERR_FORMAT, ERR_IO, ERR_STOPPED as there. */
status data_prepare(const prepare_options *o, dataset **out) MUST;

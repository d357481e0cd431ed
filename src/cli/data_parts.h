/* data_parts: what the files of `keel data` share. */
#pragma once
#include "data/ngram.h"
#include "data/tokens.h"

typedef struct data_args {
    build_options build;
    bigram_options bigram;
    const char *tokenizer, *folder;
    special_mode special;
    data_split split;
    i64 document;
    bool json;
    i64 samples; // of inspect
} data_args;

status data_look(data_args *a) MUST; // keel data inspect: build.train and its rules, tokenizer, samples

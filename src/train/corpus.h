/* corpus: from what the configuration says of data to a data set: shards as they are, or text, for which a
 * tokenizer is trained (data.tokenizer: auto) and shards are built, once, under CACHE/data. */
#pragma once
#include "config/config.h"
#include "data/dataset.h"

/* Sets model.vocab where it is auto. ERR_CONFIG: no data.train, or a vocabulary that the model cannot hold;
 * ERR_INPUT: the corpus. TALK hears one line a stage. */
status corpus_open(config *c, const char *cache, void (*talk)(void *context, const char *line), void *context,
                   dataset **out) MUST;

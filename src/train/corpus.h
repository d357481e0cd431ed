/* corpus: from what the configuration says of data to a data set: shards as they are, or text, for which a
 * tokenizer is trained (data.tokenizer: auto) and shards are built, once, under CACHE/data. */
#pragma once
#include "config/config.h"
#include "data/dataset.h"
#include <signal.h>

typedef struct corpus_options {
    const char *cache;                 // shards and tokenizers are kept in CACHE/data
    const volatile sig_atomic_t *stop; // not 0: ERR_STOPPED soon; NULL: never
    void (*talk)(void *context, const char *line);
    void *context;
} corpus_options;

/* Sets model.vocab where it is auto. ERR_CONFIG: no data.train, or a vocabulary that the model cannot hold;
 * ERR_INPUT: the corpus. TALK hears one line a stage. */
status corpus_open(config *c, const corpus_options *o, dataset **out) MUST;
/* Only the last of it: sets or checks C's model.vocab by D's tokenizer. */
status corpus_fit(config *c, const dataset *d) MUST;
/* data.train's weights into OUT [CORPUS_SOURCES]: *n of them, 0 without a mixture. ERR_CONFIG: some have
 * none. */
enum { CORPUS_SOURCES = 64 };
status corpus_weights(const config *c, double *out, i64 *n) MUST;

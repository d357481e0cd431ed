/* inspect: what is in a corpus, before anything is built of it, or in shards.
 *
 *     inspection r;
 *     TRY(data_inspect(&(inspect_options){.path = paths, .paths = 1, .samples = 3}, &r));
 *     printf("%lld documents, longest %s\n", (long long)r.documents, r.longest_where);
 *     inspection_free(&r);
 */
#pragma once
#include "data/dataset.h"

enum { INSPECT_SAMPLE_BYTES = 240, INSPECT_SAMPLES_MOST = 1000 };

typedef struct inspect_options {
    const char *const *path; // as for building; or one folder of shards
    i64 paths;
    const char *document, *field; // as for building
    const token_source *tokens;   // NULL: text is not encoded
    int threads;
    i64 samples; // at most INSPECT_SAMPLES_MOST
} inspect_options;

typedef struct inspect_sample {
    char *where, *text; // "FILE: document at byte N"; the beginning of the document, zero-terminated
    i64 text_bytes, bytes, tokens;
    u64 key; // samples are the documents with the lowest: chosen by content, the same every time
} inspect_sample;

typedef struct inspection {
    i64 files, documents, blank; // blank: records without text
    i64 bytes, tokens;           // tokens: -1 when not encoded; without ends of text
    i64 duplicates;  // documents that repeat an earlier one, but for white space; -1: not looked for (shards)
    i64 quantile[5]; // bytes of a document: least, a quarter, half, three quarters have fewer; most
    i64 longest_tokens;
    char *longest_where;
    inspect_sample *sample; // [samples], in order of key
    i64 samples;
} inspection;

/* ERR_INPUT, ERR_FORMAT, ERR_IO as dataset_build and dataset_open. Nothing to free on failure. */
status data_inspect(const inspect_options *o, inspection *out) MUST;
void inspection_free(inspection *r);

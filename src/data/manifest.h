/* manifest: what a data set's manifest.json says, read with suspicion.
 *
 *     manifest m;
 *     TRY(manifest_read(folder, &m));
 *     use(m.split[DATA_TRAIN].tokens);
 *     manifest_free(&m);
 *
 * The file ends in the XXH3-64 of all that stands before it, so that a flipped byte anywhere is noticed. */
#pragma once
#include "data/dataset.h"
#include "data/shard.h"
#include <jansson.h>

typedef struct manifest_shard {
    i64 tokens, documents, bytes;
    u64 hash;
    i64 source; // of a mixture: the part it belongs to; 0 without one, and never falling
} manifest_shard;

typedef struct manifest_split {
    i64 tokens, documents, bytes, count;
    manifest_shard *shard; // [count]
} manifest_split;

typedef struct manifest {
    shard_info info;
    u64 tokenizer_file, token_bytes_file; // XXH3-64 of tokenizer.json and token-bytes.bin
    manifest_split split[DATA_SPLITS];
    json_t *recipe; // everything the content depends on; equal recipes give equal data
} manifest;

/* ERR_INPUT: FOLDER is no data set; ERR_FORMAT: the manifest is damaged. On failure nothing is to be freed.
 */
status manifest_read(const char *folder, manifest *out) MUST;
status manifest_write(const char *folder, const manifest *m) MUST; // atomic
void manifest_free(manifest *m);
status manifest_add_shard(manifest *m, data_split split, manifest_shard shard) MUST; // and counts it
char *shard_path(const char *folder, data_split split, i64 i); // malloc; NULL without memory
status file_hash(const char *path, u64 *out) MUST;             // XXH3-64 of a file

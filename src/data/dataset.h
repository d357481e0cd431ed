/* dataset: a folder of token shards, built from text once, mapped and verified at every open.
 *
 *     TRY(dataset_build(&(build_options){.train = paths, .train_count = 1, .out = "shards"}, &source, NULL));
 *     dataset *d;
 *     TRY(dataset_open("shards", &d));                        // refuses any damage, naming the file
 *     dataset_read(d, DATA_TRAIN, 0, 1024, tokens);           // the stream: document EOS document EOS ...
 *     dataset_close(d);
 *
 * The folder:  manifest.json        counts, checksums, tokenizer, recipe (what it was built from and how)
 *              tokenizer.json       copy of the tokenizer
 *              token-bytes.bin      i32[vocab]: bytes of text that an id stands for (EOS: 0), for bits per
 * byte train-00000.bin ...  validation-00000.bin ...        see shard.h
 */
#pragma once
#include "base/base.h"

typedef enum data_split { DATA_TRAIN, DATA_VALIDATION, DATA_SPLITS } data_split;
extern const char *const data_split_name[DATA_SPLITS]; // "train", "validation"

/* ---- reading */
typedef struct dataset dataset;
/* True if FOLDER holds a manifest of ours, or shards (it may still be damaged). */
bool dataset_is(const char *folder);
/* Opens and verifies all of FOLDER: one parallel pass over the shards (call it from the main thread).
 * ERR_INPUT: not a data set; ERR_FORMAT: damaged, names the file. Release with dataset_close. */
status dataset_open(const char *folder, dataset **out) MUST;
void dataset_close(dataset *d); // NULL allowed

/* Counts of one split: tokens include the EOS of every document; bytes are of text. Constant cost. */
i64 dataset_tokens(const dataset *d, data_split split);
i64 dataset_documents(const dataset *d, data_split split);
i64 dataset_bytes(const dataset *d, data_split split);
i64 dataset_shards(const dataset *d, data_split split);
i64 dataset_vocab(const dataset *d);
i32 dataset_eos(const dataset *d);
u64 dataset_hash(const dataset *d); // of tokenizer and shards, not of paths or dates: a run's identity
u64 dataset_tokenizer_hash(const dataset *d);
const char *dataset_folder(const dataset *d);
const char *dataset_tokenizer_path(const dataset *d); // FOLDER/tokenizer.json; borrowed
const i32 *dataset_token_bytes(const dataset *d);     // [vocab]; borrowed
/* ERR_INPUT unless the tokens were made by the tokenizer with hash HASH; NAME is how the message calls it. */
status dataset_check_tokenizer(const dataset *d, u64 hash, const char *name) MUST;

/* Copies N tokens of the split's stream from AT on; at >= 0, at + n <= dataset_tokens. Any thread. */
void dataset_read(const dataset *d, data_split split, i64 at, i64 n, i32 *out);
/* First token of the first document that starts behind AT; dataset_tokens if none. O(log documents). */
i64 dataset_document_after(const dataset *d, data_split split, i64 at);
/* Document I: where it starts and its tokens (EOS included), bytes of its text. */
void dataset_document(const dataset *d, data_split split, i64 i, i64 *start, i64 *tokens, i64 *bytes);
/* The parts of a mixture: how many (1 without), and which tokens of the train split each holds. */
i64 dataset_sources(const dataset *d);
void dataset_source(const dataset *d, i64 i, i64 *start, i64 *tokens);

/* ---- building */
/* What the builder asks of a tokenizer (data/tokens.h makes one from a tokenizer; tests use a toy). */
typedef struct token_source {
    void *context;
    i64 vocab; // 2 ... 2^31 - 1
    i32 eos;
    u64 hash;
    const i32 *token_bytes;                          // [vocab]
    status (*save)(void *context, const char *path); // writes tokenizer.json
    status (*open)(void *context, void **encoder);   // one per thread
    // Ids of TEXT; they belong to the encoder until its next call.
    status (*encode)(void *encoder, const u8 *text, i64 bytes, const i32 **ids, i64 *count);
    void (*close)(void *encoder); // NULL allowed
    const i32 *ends;              // ids that stand between the documents of foreign shards; NULL: eos
    i64 end_count;
} token_source;

typedef struct build_progress {
    const char *phase; // "reading" (finding documents), "encoding"
    i64 bytes_done, bytes_total, documents, tokens;
} build_progress;

typedef struct build_options {
    const char *const *train; // files, folders and patterns: text, JSONL, tokens of other programs
    i64 train_count;
    const char *validation; // "1%" (default), "0" none, or a path
    const char *document;   // see document.h; default auto
    const char *field;      // of JSONL; default text
    const char *dedup;      // none (default), exact, minhash: see dedup.h
    bool mixture;           // the paths of TRAIN are the parts of a mixture: their tokens stay apart
    const char *special;    // recorded in the recipe; default plain
    const char *out;        // the folder to make
    bool replace;           // an existing data set in OUT that was built otherwise is replaced, not refused
    int threads;            // encoders; 0: OpenMP's default
    i64 shard_tokens;       // a shard is closed when it has so many; default 2^25
    bool (*progress)(void *context, const build_progress *p); // false: stop; may be NULL
    void *progress_context;
} build_options;

typedef struct build_result {
    bool reused; // OUT was already built from the same files in the same way: nothing was done
    i64 files, empty, binary, hidden; // taken; passed over in folders
    i64 blank, duplicates;            // documents passed over: records without text; by dedup
    i64 documents[DATA_SPLITS], tokens[DATA_SPLITS], bytes[DATA_SPLITS];
    bool validation_is_tail; // no document fell into validation, so the end of the longest one was held out
} build_result;

/* Builds OUT. Documents go to validation by the hash of their content, so equal documents go the same way and
 * more data moves none. The result does not depend on the number of threads. Everything is written to
 * OUT.tmp-PID and renamed at the end; on failure that is removed and OUT is what it was. RESULT may be NULL.
 * ERR_INPUT: bad corpus, OUT in the way; ERR_CONFIG: bad option; ERR_STOPPED: progress said so; ERR_IO. */
status dataset_build(const build_options *o, const token_source *t, build_result *result) MUST;

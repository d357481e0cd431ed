/* shard: one file of tokens with an index of its documents, memory-mapped and checked.
 *
 *     shard_builder *b;
 *     TRY(shard_builder_open(2, &b));
 *     TRY(shard_add(b, ids, n, eos, document_bytes));            // a document: its ids, then EOS
 *     TRY(shard_write(b, "train-00000.bin", info, &hash));       // atomic; B is empty again
 *     TRY(shard_open("train-00000.bin", info, hash, &s));        // refuses any damage
 *
 * Layout, little endian:
 *     0   "KEELTOK\n"          24  u64 documents         48  u32 vocab
 *     8   u32 version = 1      32  u64 bytes of text     52  i32 eos
 *     12  u32 token width 2|4  40  u64 tokenizer hash    56  u64 zero
 *     16  u64 tokens
 *     64  tokens: u16 or u32 each, every document followed by EOS; zeros up to a multiple of 8
 *         u64 start[documents + 1]   first token of each document, the last entry = tokens
 *         u64 bytes[documents]       bytes of text of each document
 */
#pragma once
#include "base/base.h"
#include "base/file.h"

/* What a shard must agree on with its data set. */
typedef struct shard_info {
    u64 tokenizer; // hash of the tokenizer that made the ids
    i64 vocab;     // ids are below; at most 2^31 - 1
    i32 eos;
} shard_info;

typedef struct shard {
    char *path;
    file_map map;
    i64 tokens, documents, bytes;
    int width;             // of a token in bytes: 2 or 4
    const u8 *token;       // [tokens * width], in the mapping
    const u64 *start;      // [documents + 1]
    const u64 *text_bytes; // [documents]
} shard;

int shard_width(i64 vocab); // 2 up to 65,536 ids, else 4

/* Maps PATH and checks everything: sizes by checked arithmetic, XXH3-64 of the whole file against HASH, every
 * id below the vocabulary, the index. ERR_FORMAT names PATH; *out then needs no close. One pass over the
 * file. */
status shard_open(const char *path, shard_info info, u64 hash, shard *out) MUST;
void shard_close(shard *s);
/* Copies N tokens from AT on (at + n <= tokens) into OUT. */
void shard_read(const shard *s, i64 at, i64 n, i32 *out);
/* The first document that starts behind AT, as a token index; tokens if none. */
i64 shard_document_after(const shard *s, i64 at);

typedef struct shard_builder shard_builder;
status shard_builder_open(int width, shard_builder **out) MUST;
void shard_builder_close(shard_builder *b); // NULL allowed
i64 shard_builder_tokens(const shard_builder *b);
i64 shard_builder_documents(const shard_builder *b);
i64 shard_builder_bytes(const shard_builder *b);
status shard_add(shard_builder *b, const i32 *ids, i64 n, i32 eos, i64 text_bytes) MUST;
/* Writes what was added to PATH (atomic) and empties B. *hash is the XXH3-64 of the file. */
status shard_write(shard_builder *b, const char *path, shard_info info, u64 *hash) MUST;

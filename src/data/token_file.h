/* token_file: shards of tokens that other programs made, as documents of ids.
 *
 *     token_file *f;
 *     TRY(token_file_open("fineweb_train_000001.bin", &f));
 *     while (token_file_next(f, ends, 2, room, most, &n)) ...
 *     token_file_close(f);
 *
 * llm.c's .bin (256 i32 of header: magic 20240520 and version 1 with u16 tokens, or 20240801 and 7 with u32)
 * is one stream, in which end-of-text tokens stand between documents. Megatron's .bin holds the tokens and
 * its .idx beside it the lengths, places and documents of sequences. Everything in them is checked against
 * the files' sizes. */
#pragma once
#include "base/base.h"

typedef struct token_file token_file;
typedef enum token_kind { TOKENS_NONE, TOKENS_LLMC, TOKENS_MEGATRON, TOKENS_INDEX } token_kind;
/* What PATH holds, by its first bytes: TOKENS_INDEX is an .idx, TOKENS_MEGATRON a .bin with an .idx beside
 * it. */
token_kind token_file_kind(const char *path);
/* ERR_FORMAT for what is not consistent. PATH may be the .bin or the .idx of Megatron's pair. */
status token_file_open(const char *path, token_file **out) MUST;
void token_file_close(token_file *f); // NULL allowed
/* The next document, without the end tokens (ENDS, N of them) around it: *count ids from *at on, to be got by
 * token_file_read. False when there is none. Documents without any other token are passed over. */
bool token_file_next(token_file *f, const i32 *ends, i64 n, i64 *at, i64 *count);
/* Ids that do not fit an i32 (and negative ones) come as -1. */
void token_file_read(const token_file *f, i64 at, i64 count, i32 *out);
i64 token_file_tokens(const token_file *f);
i64 token_file_position(const token_file *f); // tokens that token_file_next has gone past

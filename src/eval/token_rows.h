/* token_rows: sequences of token ids in a text file: ids separated by blanks, a sequence a line, all of one
 * length.
 *
 *     token_rows t;
 *     TRY(token_rows_read("ids.txt", &(token_limits){.vocab = 50257}, &t));
 *     ... t.id[row * t.tokens + i] ...
 *     token_rows_free(&t);
 */
#pragma once
#include "base/base.h"

typedef struct token_rows {
    i32 *id; // [rows, tokens]
    i64 rows, tokens;
} token_rows;
typedef struct token_limits {
    i64 vocab;   // ids are below it
    i64 longest; // tokens a line may hold; 0: any number
} token_limits;

/* ERR_INPUT names file and line: a word that is no id, an id beyond the vocabulary, a line that is empty or
 * of another length than the first, of one token (it has nothing to predict) or of more than LONGEST; a file
 * without lines. *out is the caller's; after a failure it holds nothing. */
status token_rows_read(const char *path, const token_limits *limits, token_rows *out) MUST;
void token_rows_free(token_rows *t);

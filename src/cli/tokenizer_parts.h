/* tokenizer_parts: what the files of `keel tokenizer` share: the arguments, and the parts that stand in a
 * file of their own. */
#pragma once
#include "text/tokenizer.h"
#include "text/train_bpe.h"

enum { MOST_SPECIALS = 1024 };

typedef struct tokenizer_args {
    const char *tokenizer, *out, *special, *chat, *field;
    char **paths;
    int path_count;
    bool lines, json, answer, template;
    bpe_options train;
    const char *specials[MOST_SPECIALS];
} tokenizer_args;

void tokenizer_print_ids(const token_list *ids, bool json);
status tokenizer_compare(tokenizer_args *a) MUST; // paths: two tokenizers, then text
status tokenizer_convert(tokenizer_args *a) MUST; // tokenizer -> out, with train.pattern and specials
status tokenizer_chat(tokenizer_args *a) MUST;    // messages on standard input

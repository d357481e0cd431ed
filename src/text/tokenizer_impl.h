/* tokenizer_impl: the insides of a tokenizer, for the files that make, read and write one.
 *
 *     tokenizer *t;
 *     TRY(tokenizer_new(vocab, merges, added, &t));           // room in T's own arena
 *     TRY(tokenizer_add_stage(t, "gpt2", NULL));              // or close T
 *     t->token[id] = ...; t->merge[i] = ...; t->added[j] = ...;
 *     s = tokenizer_finish(t);                                // tables for encoding
 */
#pragma once
#include "text/bpe.h"
#include "text/pattern.h"
#include "text/tokenizer.h"
#include <jansson.h>

enum { MAX_VOCAB = 1 << 24, MAX_STAGES = 8 };

typedef struct merge_rule {
    i32 left, right, id;
} merge_rule;

/* A token's place in model.vocab: nowhere (an added token only), in the byte alphabet, or as it is. */
typedef enum token_spelling { SPELLED_NOT, SPELLED_ALPHABET, SPELLED_RAW } token_spelling;

/* A trie over added tokens. Node 0 is the root; a node's children are its first child and that one's
 * siblings. */
typedef struct trie_node {
    u8 byte;
    i32 child, sibling; // -1: none
    i32 added;          // the added token that ends here, or -1
} trie_node;
typedef struct trie {
    trie_node *node;
    i32 count;
    bool first[256]; // bytes that some token begins with
} trie;

/* One cut of the text; the next stage cuts its pieces further. */
typedef struct split_stage {
    const pattern_row *row; // NULL: a pattern of the file's own
    const char *regex;
    pattern *pattern;
} split_stage;

struct tokenizer {
    arena *a;
    i64 vocab, merges, added_count;
    token_bytes *token; // [vocab]
    u8 *spelled;        // [vocab], a token_spelling: how the file's vocabulary writes it
    merge_rule *merge;  // [merges], in order of rank
    added_token *added; // [added_count], in order of id
    bool whole_piece;   // "ignore_merges": a piece that is a token is not merged
    bool nfc;           // text is normalized first
    split_stage stage[MAX_STAGES];
    int stages;
    json_t *shell; // the file without vocabulary and merges, for writing it back

    bpe bpe;
    trie trie[2];   // [0]: matched first, normalized = false; [1]: the others
    bool any_plain; // an added token that is not special: looked for in plain text too
    i32 *by_bytes;  // open addressing: bytes -> id, for whole_piece; -1 is free
    u64 by_bytes_mask;
};

status tokenizer_new(i64 vocab, i64 merges, i64 added, tokenizer **out) MUST;
/* Adds a cut: by the pattern NAME of pattern.h, or by REGEX (copied), which may be one of those too. */
status tokenizer_add_stage(tokenizer *t, const char *name, const char *regex) MUST;
/* Gives T, complete but for it, the parts of a tokenizer.json around vocabulary and merges. */
status tokenizer_make_shell(tokenizer *t) MUST;
/* Sorts the added tokens and builds the tables; NAME begins messages. ERR_FORMAT for a merge that appears
 * twice. T must have an id for each merge and each added token already. */
status tokenizer_finish(tokenizer *t, const char *name) MUST;
/* The token with exactly these bytes among those that merging can reach; -1. Only when whole_piece. */
i32 tokenizer_whole(const tokenizer *t, const u8 *bytes, size_t n);

/* tokenizer: text to tokens and back, by byte-level BPE as tokenizer.json and .tiktoken files describe it.
 *
 *     tokenizer *t;
 *     TRY(tokenizer_open("tokenizer.json", &t));
 *     token_list ids = {0};
 *     TRY(tokenizer_encode(t, "Hello", 5, SPECIAL_PLAIN, &ids));   // appends; or an encoder, one a thread
 *     for (i64 i = 0; i < ids.count; i++) use(tokenizer_decode(t, ids.id[i]));
 *     token_list_free(&ids);
 *     tokenizer_close(t);
 *
 * Any bytes survive: decoding what was encoded gives the same bytes, well-formed UTF-8 or not (but for a file
 * that asks for NFC, or for added tokens that swallow white space). A tokenizer never changes once open and
 * may be shared between threads. Encoding is not a prefix code: the tokens of a text need not begin with the
 * tokens of its beginning, so a stream is cut at documents. */
#pragma once
#include "base/base.h"

typedef struct tokenizer tokenizer;
typedef struct encoder encoder;

/* Ids are 0 ... 2^24 - 1. Start from {0}; grows as needed; the caller frees it. */
typedef struct token_list {
    i32 *id;
    i64 count;
    size_t capacity;
} token_list;
void token_list_free(token_list *list);

/* What the strings of special tokens mean in a text that is encoded. */
typedef enum special_mode {
    SPECIAL_PLAIN,   // text like any other
    SPECIAL_ALLOWED, // they become their ids
    SPECIAL_FORBID,  // ERR_INPUT: for text of strangers that should not hold any
} special_mode;

/* Reads a tokenizer.json, or a .tiktoken file of a family Keel knows; which it is, its content says.
 * ERR_FORMAT in one line for what is damaged and for what Keel does not implement (other models, normalizers,
 * prefixes
 * ...), by name; ERR_IO; ERR_MEMORY. Close with tokenizer_close. */
status tokenizer_open(const char *path, tokenizer **out) MUST;
/* The same from N bytes in memory; NAME stands for the path in messages. */
status tokenizer_parse(const char *json, size_t n, const char *name, tokenizer **out) MUST;
/* The lines "base64 rank" of a .tiktoken file, which names neither its pattern nor its special tokens.
 * Without PATTERN both come from the number of its ranks: r50k (GPT-2), p50k, cl100k, o200k, Llama 3 and Qwen
 * have one each; ERR_FORMAT for any other number. With PATTERN, SPECIALS get the ids behind the largest rank.
 */
typedef struct tiktoken_options {
    const char *pattern; // a name of pattern.h; NULL: by the number of ranks
    const char *const *specials;
    i64 special_count;
} tiktoken_options;
status tokenizer_parse_tiktoken(const char *data, size_t n, const char *name, const tiktoken_options *o,
                                tokenizer **out) MUST;
bool tokenizer_is_tiktoken(const char *data, size_t n); // by the first line
void tokenizer_close(tokenizer *t);                     // NULL allowed
/* Writes a tokenizer.json, whole or not at all. Reading it back gives an equal tokenizer. */
status tokenizer_save(const tokenizer *t, const char *path) MUST;

i64 tokenizer_vocab(const tokenizer *t);           // the largest id + 1: rows of an embedding
i64 tokenizer_merges(const tokenizer *t);          // merges in its list
const char *tokenizer_pattern(const tokenizer *t); // "gpt2": a name of pattern.h; else "custom", "none"
bool tokenizer_nfc(const tokenizer *t);            // is text brought to NFC first?
/* Identity: xxh3 of vocabulary, merges, pattern, rules, added tokens and the Unicode version of the pattern's
 * classes. Two files that encode and decode alike have one hash; so have runs that used them. */
u64 tokenizer_hash(const tokenizer *t);

/* The bytes of a token: a view that lives as long as T. data is NULL for an id without a token. */
typedef struct token_bytes {
    const char *data;
    size_t bytes;
} token_bytes;
token_bytes tokenizer_decode(const tokenizer *t, i32 id);

/* The id of the added token spelled CONTENT; -1 when there is none. */
i32 tokenizer_special(const tokenizer *t, const char *content);
/* The token that ends a text, and stands before the next: the first of these that T has; -1: none. */
i32 tokenizer_end(const tokenizer *t);
#define TOKENIZER_ENDS "<|endoftext|>, <|end_of_text|>, </s> or <eos>"
/* The token that begins a text in files of other programs: <|begin_of_text|>, <s> or <bos>; -1: none. */
i32 tokenizer_start(const tokenizer *t);
/* Added tokens in order of id: how many, and the I-th. */
typedef struct added_token {
    i32 id;
    bool special, normalized;         // as in the file: not special = found in plain text too
    bool single_word, lstrip, rstrip; // only between non-words; swallows white space before, behind it
    const char *content;              // zero-terminated
    size_t bytes;
} added_token;
i64 tokenizer_added(const tokenizer *t);
const added_token *tokenizer_added_at(const tokenizer *t, i64 i);

/* An encoder holds what one thread needs: scratch memory and a cache of words. T must outlive it. */
status encoder_open(const tokenizer *t, encoder **out) MUST;
void encoder_close(encoder *e); // NULL allowed
/* Appends the tokens of the N bytes at TEXT; adds no special token of its own. ERR_INPUT as special_mode says
 * or when the vocabulary lacks a byte; ERR_MEMORY. On failure OUT keeps what it had before. */
status encoder_run(encoder *e, const char *text, size_t n, special_mode mode, token_list *out) MUST;
/* For a text now and then: opens an encoder for this call. Safe from any thread. */
status tokenizer_encode(const tokenizer *t, const char *text, size_t n, special_mode mode, token_list *out)
    MUST;

/* gguf_parts: which key of a GGUF file is which key of config.json, which tensor is which parameter, and the
 * tokenizer; import and export both read these tables.
 *
 *     const hf_architecture *a;
 *     json_t *j;
 *     TRY(gguf_describe(f, path, &a, &j));              // as a config.json, for hf_config
 *     gguf_place p;
 *     TRY(gguf_place_of(&x, parameter, &p));            // where a parameter of Keel lies in the file
 */
#pragma once
#include "infer/gguf.h"
#include "infer/port.h"

/* The config.json that says what the keys of F say; J is the caller's. ERR_FORMAT: a key is missing, of the
 * wrong kind, or asks for another computation. */
status gguf_describe(const gguf_file *f, const char *path, const hf_architecture **a, json_t **out) MUST;
enum { GGUF_MOST_PAIRS = 40 };
/* The reverse: appends the architecture's keys for config.json J to OUT; strings lie in A. */
void gguf_keys_of(arena *a, const hf_architecture *h, const json_t *j, gguf_pair *out, i64 *n);
/* config.json keys that GGUF has no word for go (port.h): what port_match may choose. */
extern const port_target gguf_target;

/* Row i of a parameter [rows, columns] (columns 1: a vector) is row OFFSET + i of the tensor, but that rows
 * of heads HEAD wide alternate their halves: those of Llama's q and k, whose pairs are neighbours in a file.
 */
typedef struct gguf_place {
    char name[GGUF_NAME_LIMIT + 1];
    int n_dims;
    i64 rows, columns, offset, head; // rows of the whole tensor; head 0: as they are
} gguf_place;
status gguf_place_of(const port *x, const tensor *t, gguf_place *out)
    MUST; // ERR_CONFIG: there is no such one
i64 gguf_place_row(const gguf_place *p, i64 row);

/* Appends the keys of T (NULL: "no_vocab") for a model of VOCAB rows; strings lie in A. ERR_CONFIG: no
 * pre-tokenizer of llama.cpp cuts text as T does, or two tokens are spelled alike. */
status gguf_tokens_of(arena *a, const tokenizer *t, i64 vocab, const gguf_options *o, gguf_pair *out, i64 *n)
    MUST;
/* A tokenizer.json as F's keys describe it, checked by reading it; *out is NULL where there is none; released
 * with free. ERR_FORMAT: missing or lying keys, more tokens than VOCAB. ERR_INPUT: a kind that Keel lacks. */
status gguf_read_tokens(const gguf_file *f, const char *path, i64 vocab, char **out) MUST;

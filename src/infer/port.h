/* port: what import and export of every format share: building the model that a description asks for, writing
 * it as a run, and finding the architecture that computes a model of Keel's.
 *
 *     port x = {.a = architecture, .c = config};
 *     TRY(port_build(a, &x));                                  // x.m: every parameter asks for its tensor
 *     ... TRY(store_open(a, x.m.g, 0, &x.s)); fill x.s ...
 *     TRY(port_write_run(a, &x, tokenizer_json, bytes, "runs/a"));
 *     port_close(&x);
 */
#pragma once
#include "graph/store.h"
#include "infer/hugging_face_parts.h"
#include "model/model.h"

typedef struct port {
    const hf_architecture *a;
    config *c; // whose it is, the user knows
    model m;
    store *s;
    i64 query, wide; // rows of q; of q, k and v together
} port;

/* The model of X's configuration, in A. ERR_CONFIG as model_build. */
status port_build(arena *a, port *x) MUST;
void port_close(port *x); // the model and the store
/* Makes the run folder OUT with one checkpoint, step_0, of X's store; TOKENS, a tokenizer.json, may be NULL.
 */
status port_write_run(arena *a, const port *x, const char *tokens, size_t token_bytes, const char *out) MUST;

/* Names that parameters have elsewhere, to be sorted once and looked up for each of a file's, which may be
 * many more than there should be. */
void port_sort_names(const char **names, i64 n);
bool port_has_name(const char *const *names, i64 n, const char *name);

/* Where models go. NARROW takes from J, a config.json, what the target has no word for, so that reading it
 * back tells the difference, and is false where there is no such architecture; NULL: it says everything. */
typedef struct port_target {
    const char *name; // "architecture of Hugging Face"
    bool (*narrow)(const hf_architecture *a, json_t *j);
} port_target;

typedef struct port_match {
    const hf_architecture *a;
    config *c; // as import would read it
    json_t *j; // its config.json
} port_match;
/* The first architecture that, read back, says the same of every key of F's model, which is built as X.
 * ERR_CONFIG names the keys by which the nearest one differs, and what each would have to be. */
status port_match_open(const model_files *f, const port *x, const port_target *to, st_dtype type,
                       port_match *out) MUST;
void port_match_drop(port_match *o);

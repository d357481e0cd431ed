/* gguf: models as llama.cpp's GGUF files in and out, of GPT-2, Llama (Mistral), Qwen 2, Qwen 3 and OLMo 2,
 * with the tokenizer in them.
 *
 *     model_files f;
 *     TRY(model_files_open("runs/a", NULL, NULL, &f));
 *     TRY(gguf_export(&f, &(gguf_options){.type = GGUF_Q8_0}, "a.gguf"));
 *     TRY(gguf_import("downloads/smollm.gguf", "runs/smollm"));         // runs/smollm/step_0, of f32 weights
 */
#pragma once
#include "format/gguf.h"
#include "infer/model_files.h"

typedef struct gguf_options {
    gguf_type type; // of matrices: F32, F16, BF16, Q8_0, Q4_0
    void (*talk)(void *context,
                 const char *line); // told what another program will do otherwise; NULL allowed
    void *context;
} gguf_options;

/* Writes PATH, whole or not at all. Vectors and positions stay f32. Matrices whose rows are no whole blocks
 * are f16; under Q4_0 the output layer (the embedding, where they are tied) is Q8_0. ERR_CONFIG: names the
 * keys by which the model differs from the nearest architecture and what each would have to be, or what the
 * tokenizer does that no pre-tokenizer of llama.cpp does. ERR_NUMERIC: a weight the type cannot hold. */
status gguf_export(const model_files *f, const gguf_options *o, const char *path) MUST;
/* Makes the run folder OUT, which must not exist, with one checkpoint, step_0: blocks become the f32 values
 * of their grid. Refused as hugging_face_import refuses. */
status gguf_import(const char *path, const char *out) MUST;

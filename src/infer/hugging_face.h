/* hugging_face: folders of Hugging Face's transformers in and out: config.json, model.safetensors (one file,
 * or shards and their index), tokenizer.json, generation_config.json, of GPT-2, Llama, Qwen 2, Qwen 3, OLMo 2
 * and Mistral.
 *
 *     TRY(hugging_face_import("downloads/smollm", "runs/smollm"));      // makes runs/smollm/step_0
 *     model_files f;
 *     TRY(model_files_open("runs/a", NULL, NULL, &f));
 *     TRY(hugging_face_export(&f, &(hugging_face_options){.type = ST_BF16}, "out/a"));
 */
#pragma once
#include "format/safetensors.h"
#include "infer/model_files.h"

/* Makes the run folder OUT, which must not exist, with one checkpoint, step_0, of f32 weights; it holds no
 * optimizer's state. ERR_INPUT: no such folder, or OUT exists; ERR_FORMAT names the file, key or tensor that
 * is damaged, missing, of another shape, or asks for what Keel does not compute. */
status hugging_face_import(const char *folder, const char *out) MUST;
typedef struct hugging_face_options {
    st_dtype type;   // ST_F32, ST_F16 or ST_BF16
    i64 shard_bytes; // a file holds at most so many bytes of tensors, but one tensor at least; 0: one file
} hugging_face_options;
/* Makes the folder OUT, which must not exist. ERR_CONFIG names the keys by which the model differs from the
 * nearest architecture, and what each would have to be; ERR_NUMERIC a weight that f16 cannot hold. */
status hugging_face_export(const model_files *f, const hugging_face_options *o, const char *out) MUST;

/* hugging_face_parts: the one table of architectures and of names, which import and export both read.
 *
 *     const hf_architecture *a = hf_architecture_named("llama");
 *     config *c;
 *     TRY(hf_config(a, "config.json", json, &c));         // what the folder says, as Keel's configuration
 *     hf_place p;
 *     TRY(hf_place_of(a, parameter, &p));                 // where a parameter of Keel lies in the folder
 */
#pragma once
#include "config/config.h"
#include "graph/graph.h"
#include "infer/hugging_face.h"
#include <jansson.h>

typedef struct hf_architecture {
    const char *type, *class; // model_type, architectures[0]
    const char *settings;     // what the type alone says, parted by spaces
    const char *gguf;         // general.architecture of a GGUF file
    bool gpt2;                // keys and names of GPT-2, which the later ones replaced
    double eps;               // where config.json names none
} hf_architecture;
enum { HF_ARCHITECTURES = 6 };
extern const hf_architecture hf_architectures[HF_ARCHITECTURES];
const hf_architecture *hf_architecture_named(const char *type); // NULL: not one of them

/* The configuration that config.json J asks for; PATH is for messages. ERR_FORMAT: a key is missing, of the
 * wrong type, out of range, or asks for another computation. */
status hf_config(const hf_architecture *a, const char *path, const json_t *j, config **out) MUST;
/* The reverse: the keys of config.json that C has values for; what C has beside them is not looked at. */
json_t *hf_describe(const hf_architecture *a, const config *c, i64 ffn_width, st_dtype type);

/* Parameter T [n, m] or [n] is the tensor NAME of DIM; transposed: element (i, j) lies at [j, offset + i],
 * otherwise at [i, j]; of a vector element i lies at [offset + i]. */
typedef struct hf_place {
    char name[160];
    int n_dims;
    i64 dim[2], offset;
    bool transposed;
} hf_place;
/* ERR_CONFIG: the architecture has no such tensor. The name is without GPT-2's prefix "transformer.". WIDE:
 * rows of q, k and v together. */
status hf_place_of(const hf_architecture *a, const tensor *t, i64 wide, i64 query, hf_place *out) MUST;
/* Where value I of a parameter with rows of COLUMNS lies in that tensor. */
i64 hf_place_index(const hf_place *p, i64 columns, i64 i);

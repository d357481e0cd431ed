/* Runs as GGUF files: see gguf.h. */
#include "format/safetensors.h"
#include "infer/gguf_parts.h"
#include "infer/values.h"
#include "ops/op.h"
#include <string.h>

typedef struct job {
    arena *a;
    port x;
    const gguf_options *o;
    st_file *weights;
    gguf_tensor *tensor; // of the file, in the order of the parameters
    i64 n, largest;      // elements of the largest
    bool copy_head;      // OLMo 2 has no tied output in llama.cpp: the embedding is written twice
} job;

static const char head_name[] = "output.weight";

/* Where parameter T goes; again: as the output of a model that ties it. */
static status place_of(const job *w, const tensor *t, bool again, gguf_place *out)
{
    TRY(gguf_place_of(&w->x, t, out));
    if (again) strcpy(out->name, head_name);
    return OK;
}

static gguf_type type_of(const job *w, const gguf_place *p)
{
    const char *head =
        config_flag(w->x.c, "model.tie_head") && !w->copy_head ? "token_embd.weight" : head_name;
    gguf_type type = w->o->type;
    if (p->n_dims == 1 || !strcmp(p->name, "position_embd.weight")) return GGUF_F32;
    if (p->columns % gguf_block_elements(type)) return GGUF_F16;
    return type == GGUF_Q4_0 && !strcmp(p->name, head) ? GGUF_Q8_0 : type;
}

static status add_tensor(job *w, const tensor *t, bool again)
{
    gguf_place p;
    i64 k = 0;
    TRY(place_of(w, t, again, &p));
    const st_entry *from = st_find(w->weights, t->path);
    if (!from || from->dtype != ST_F32 || from->bytes != 4 * count(t))
        return fail(ERR_FORMAT, "%s: not as the configuration says", t->path);
    while (k < w->n && strcmp(w->tensor[k].name, p.name)) k++;
    if (k < w->n) return OK; // a part of one that is listed
    w->tensor[w->n++] = (gguf_tensor){.name = arena_strdup(w->a, p.name),
                                      .type = type_of(w, &p),
                                      .n_dims = p.n_dims,
                                      .dims = {p.n_dims > 1 ? p.columns : p.rows, p.rows}};
    w->largest = MAX(w->largest, p.rows * p.columns);
    return OK;
}

static status list_tensors(job *w)
{
    const graph *g = w->x.m.g;
    w->tensor = arena_array(w->a, gguf_tensor, g->n_tensors + 1);
    w->copy_head = !strcmp(w->x.a->type, "olmo2") && config_flag(w->x.c, "model.tie_head");
    for (i64 i = 0; i < g->n_tensors; i++)
        if (g->tensors[i]->role == ROLE_PARAM) TRY(add_tensor(w, g->tensors[i], false));
    return w->copy_head ? add_tensor(w, g_find(g, "embedding.weight"), true) : OK;
}

/* Tensor K's values, of all parameters that are parts of it. */
static status gather(const job *w, const gguf_tensor *k, float *to)
{
    const graph *g = w->x.m.g;
    for (i64 i = 0; i < g->n_tensors; i++) {
        const tensor *t = g->tensors[i];
        gguf_place p;
        bool again = w->copy_head && !strcmp(k->name, head_name);
        if (t->role != ROLE_PARAM || (again && strcmp(t->path, "embedding.weight"))) continue;
        TRY(place_of(w, t, again, &p));
        if (strcmp(p.name, k->name)) continue;
        const float *from = st_find(w->weights, t->path)->data;
        for (i64 r = 0; r < count(t) / p.columns; r++)
            memcpy(to + gguf_place_row(&p, r) * p.columns, from + r * p.columns, (size_t)p.columns * 4);
    }
    return OK;
}

static status write_tensors(const job *w, gguf_writer *out)
{
    float *values;
    void *coded = NULL;
    status s = mem_alloc((size_t)w->largest * 4, "a tensor", &values);
    if (!s) s = mem_alloc((size_t)w->largest * 4, "a tensor", &coded);
    for (i64 k = 0; !s && k < w->n; k++) {
        const gguf_tensor *t = &w->tensor[k];
        const i64 n = t->dims[0] * (t->n_dims > 1 ? t->dims[1] : 1);
        i64 bytes = 0;
        s = gather(w, t, values);
        if (!s) s = wrap(values_encode(t->type, values, n, coded), "%s", t->name);
        if (!s) s = gguf_tensor_bytes(t, &bytes);
        if (!s && (s = gguf_write(out, coded, bytes))) out = NULL; // gone
    }
    mem_free(values);
    mem_free(coded);
    if (!s) return gguf_commit(out);
    gguf_abandon(out);
    return s;
}

static i64 file_type(gguf_type t)
{
    return t == GGUF_F32 ? 0 : t == GGUF_F16 ? 1 : t == GGUF_Q4_0 ? 2 : t == GGUF_Q8_0 ? 7 : 32;
}

static status write_file(job *w, const model_files *f, const json_t *j, const char *path)
{
    gguf_pair *pairs = arena_array(w->a, gguf_pair, GGUF_MOST_PAIRS);
    gguf_writer *out;
    i64 n = 0;
    TRY(list_tensors(w));
    pairs[n++] = (gguf_pair){"general.architecture", GGUF_TEXT(w->x.a->gguf)};
    pairs[n++] = (gguf_pair){"general.type", GGUF_TEXT("model")};
    pairs[n++] = (gguf_pair){"general.file_type", GGUF_NUMBER(file_type(w->o->type))};
    if (gguf_block_elements(w->o->type) > 1)
        pairs[n++] = (gguf_pair){"general.quantization_version", GGUF_NUMBER(2)};
    gguf_keys_of(w->a, w->x.a, j, pairs, &n);
    TRY(wrap(gguf_tokens_of(w->a, f->tokenizer, config_count(f->config, "model.vocab"), w->o, pairs, &n),
             "%s", f->folder));
    TRY(gguf_create(path, pairs, n, w->tensor, w->n, &out));
    return write_tensors(w, out);
}

status gguf_export(const model_files *f, const gguf_options *o, const char *path)
{
    job w = {.o = o, .x = {.c = f->config}};
    port_match match = {0};
    if (!values_known(o->type)) return fail(ERR_USAGE, "Keel does not write %s", gguf_type_name(o->type));
    TRY(arena_open(&w.a));
    status s = port_build(w.a, &w.x);
    if (!s) s = port_match_open(f, &w.x, &gguf_target, ST_F32, &match);
    w.x.a = match.a;
    if (!s) s = st_open(f->weights, &w.weights);
    if (!s) s = write_file(&w, f, match.j, path);
    st_close(w.weights);
    port_match_drop(&match);
    port_close(&w.x);
    arena_close(w.a);
    return s;
}

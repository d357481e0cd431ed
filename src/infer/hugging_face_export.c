/* Runs as Hugging Face folders: see hugging_face.h. The first architecture is chosen that, read back, says
 * the same of every key of the model: what import reads is the one definition of what a folder can express.
 */
#include "base/file.h"
#include "infer/port.h"
#include "infer/values.h"
#include "text/chat.h"
#include <stdio.h>
#include <string.h>

static const port_target hugging_face = {"architecture of Hugging Face", NULL};

typedef struct job {
    arena *a;
    port x;
    const hugging_face_options *o;
    const char *out;
    st_file *weights;
    st_entry *entry; // of the folder, in the order of the parameters
    i64 n, largest;  // elements of the largest
} job;

/* ---- tensors */

static status place_of(const job *w, const tensor *t, hf_place *p)
{
    char plain[sizeof p->name];
    TRY(hf_place_of(w->x.a, t, w->x.wide, w->x.query, p));
    if (!w->x.a->gpt2 || !strcmp(p->name, "lm_head.weight")) return OK;
    memcpy(plain, p->name, sizeof plain);
    snprintf(p->name, sizeof p->name, "transformer.%.140s", plain);
    return OK;
}

static status list_tensors(job *w)
{
    const graph *g = w->x.m.g;
    w->entry = arena_array(w->a, st_entry, g->n_tensors + 1);
    for (i64 i = 0; i < g->n_tensors; i++) {
        const tensor *t = g->tensors[i];
        hf_place p;
        i64 k = 0;
        if (t->role != ROLE_PARAM) continue;
        TRY(place_of(w, t, &p));
        const st_entry *from = st_find(w->weights, t->path);
        if (!from || from->dtype != ST_F32 || from->bytes != 4 * count(t))
            return fail(ERR_FORMAT, "%s: not as the configuration says", t->path);
        while (k < w->n && strcmp(w->entry[k].name, p.name)) k++;
        if (k < w->n) continue; // a part of one that is listed
        st_entry *e = &w->entry[w->n++];
        *e = (st_entry){.name = arena_strdup(w->a, p.name),
                        .dtype = w->o->type,
                        .n_dims = p.n_dims,
                        .dims = {p.dim[0], p.dim[1]}};
        w->largest = MAX(w->largest, st_entry_bytes(e) / st_dtype_bytes(e->dtype));
    }
    return OK;
}

/* The values of E, of all parameters that are parts of it. */
static status gather(const job *w, const st_entry *e, float *to)
{
    const graph *g = w->x.m.g;
    for (i64 i = 0; i < g->n_tensors; i++) {
        const tensor *t = g->tensors[i];
        hf_place p;
        if (t->role != ROLE_PARAM) continue;
        TRY(place_of(w, t, &p));
        if (strcmp(p.name, e->name)) continue;
        const float *from = st_find(w->weights, t->path)->data;
        for (i64 v = 0; v < count(t); v++) to[hf_place_index(&p, cols(t), v)] = from[v];
    }
    return OK;
}

static status write_shard(const job *w, const char *name, const st_entry *entries, i64 n, float *values,
                          void *coded)
{
    static const st_pair format = {"format", "pt"};
    const gguf_type type = w->o->type == ST_F32 ? GGUF_F32 : w->o->type == ST_F16 ? GGUF_F16 : GGUF_BF16;
    char path[4096];
    st_writer *out;
    snprintf(path, sizeof path, "%s/%s", w->out, name);
    TRY(st_create(path, entries, n, &format, 1, &out));
    for (i64 k = 0; k < n; k++) {
        const i64 bytes = st_entry_bytes(&entries[k]);
        status s = gather(w, &entries[k], values);
        if (!s)
            s = wrap(values_encode(type, values, bytes / st_dtype_bytes(w->o->type), coded), "%s",
                     entries[k].name);
        if (s) {
            st_abandon(out);
            return s;
        }
        TRY(st_write(out, coded, (size_t)bytes));
    }
    return st_commit(out, NULL);
}

/* The last entry + 1 of a shard that begins with FIRST. */
static i64 shard_end(const job *w, i64 first)
{
    i64 end = first, bytes = 0;
    for (; end < w->n; end++) {
        bytes += st_entry_bytes(&w->entry[end]);
        if (end > first && w->o->shard_bytes && bytes > w->o->shard_bytes) break;
    }
    return end;
}

static status write_json(const job *w, const char *name, const json_t *j)
{
    char path[4096];
    file_writer *out;
    char *said = json_dumps(j, JSON_INDENT(2) | JSON_SORT_KEYS);
    if (!said) return fail(ERR_MEMORY, "%s: out of memory", name);
    snprintf(path, sizeof path, "%s/%s", w->out, name);
    status s = file_create(path, &out);
    if (!s) s = file_printf(out, "%s\n", said);
    if (!s) s = file_commit(out);
    free(said);
    return s;
}

static status write_shards(const job *w, float *values, void *coded)
{
    i64 shards = 0, total = 0, at = 0;
    for (i64 first = 0; first < w->n; first = shard_end(w, first)) shards++;
    if (shards == 1) return write_shard(w, "model.safetensors", w->entry, w->n, values, coded);
    json_t *map = json_object();
    status s = OK;
    for (i64 first = 0, end; !s && first < w->n; first = end) {
        char name[64];
        end = shard_end(w, first);
        snprintf(name, sizeof name, "model-%05lld-of-%05lld.safetensors", (long long)++at, (long long)shards);
        for (i64 k = first; k < end; k++) {
            json_object_set_new(map, w->entry[k].name, json_string(name));
            total += st_entry_bytes(&w->entry[k]);
        }
        s = write_shard(w, name, w->entry + first, end - first, values, coded);
    }
    json_t *index =
        json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)total, "weight_map", map);
    if (!s) s = write_json(w, "model.safetensors.index.json", index);
    json_decref(index);
    return s;
}

static status write_tensors(const job *w)
{
    float *values = NULL;
    void *coded = NULL;
    status s = mem_alloc((size_t)w->largest * sizeof *values, "a tensor", &values);
    if (!s) s = mem_alloc((size_t)w->largest * sizeof *values, "a tensor", &coded);
    if (!s) s = write_shards(w, values, coded);
    mem_free(values);
    mem_free(coded);
    return s;
}

/* ---- the words beside them */

static json_t *id_or_null(i32 id) { return id < 0 ? json_null() : json_integer(id); }

/* The token's spelling, or null. */
static json_t *spelled(const tokenizer *t, i32 id)
{
    token_bytes b = id < 0 ? (token_bytes){0} : tokenizer_decode(t, id);
    return b.data ? json_stringn(b.data, b.bytes) : json_null();
}

/* Without it, readers choose a class of tokenizers by model_type, which may cut text otherwise. */
static json_t *describe_tokenizer(const job *w, const tokenizer *t)
{
    const chat_layout *chat = chat_layout_of(t);
    json_t *j = json_pack("{s:s, s:o, s:o, s:b, s:b, s:I}", "tokenizer_class", "PreTrainedTokenizerFast",
                          "bos_token", spelled(t, tokenizer_start(t)), "eos_token",
                          spelled(t, tokenizer_end(t)), "clean_up_tokenization_spaces", 0, "add_prefix_space",
                          0, "model_max_length", (json_int_t)config_count(w->x.c, "model.context"));
    if (chat) json_object_set_new(j, "chat_template", json_string(chat->jinja));
    return j;
}

static status write_tokenizer(const job *w, const tokenizer *t)
{
    char path[4096];
    json_t *j = describe_tokenizer(w, t);
    snprintf(path, sizeof path, "%s/tokenizer.json", w->out);
    status s = tokenizer_save(t, path);
    if (!s) s = write_json(w, "tokenizer_config.json", j);
    json_decref(j);
    return s;
}

/* Both files name the special tokens, null where there is none: a class's own defaults lie in other
 * vocabularies. */
static status write_configs(const job *w, const tokenizer *t, json_t *j)
{
    json_t *generation = json_object();
    i32 start = t ? tokenizer_start(t) : -1, end = t ? tokenizer_end(t) : -1;
    json_t *const both[] = {generation, j};
    for (i64 i = 0; i < COUNT(both); i++) {
        json_object_set_new(both[i], "bos_token_id", id_or_null(start));
        json_object_set_new(both[i], "eos_token_id", id_or_null(end));
    }
    status s = write_json(w, "generation_config.json", generation);
    if (!s) s = write_json(w, "config.json", j);
    json_decref(generation);
    return s;
}

static status write_folder(job *w, const model_files *f, json_t *j)
{
    TRY(list_tensors(w)); // each has a place, or nothing is written
    TRY(dir_make(w->out));
    status s = write_tensors(w);
    if (!s) s = write_configs(w, f->tokenizer, j);
    if (!s && f->tokenizer) s = write_tokenizer(w, f->tokenizer);
    if (s) status_drop(tree_remove(w->out)); // it was made here
    return s;
}

status hugging_face_export(const model_files *f, const hugging_face_options *o, const char *out)
{
    port_match match = {0};
    job w = {.x = {.c = f->config}, .o = o, .out = out};
    if (path_exists(out)) return fail(ERR_INPUT, "%s is there already; name a new folder", out);
    TRY(arena_open(&w.a));
    status s = port_build(w.a, &w.x);
    if (!s) s = port_match_open(f, &w.x, &hugging_face, o->type, &match);
    w.x.a = match.a;
    if (!s) s = st_open(f->weights, &w.weights);
    if (!s) s = write_folder(&w, f, match.j);
    st_close(w.weights);
    port_match_drop(&match);
    port_close(&w.x);
    arena_close(w.a);
    return s;
}

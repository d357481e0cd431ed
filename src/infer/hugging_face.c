/* Hugging Face folders as runs: see hugging_face.h. The model is built from the configuration first, so that
 * each parameter asks for its tensor, and shapes are compared before anything is copied. */
#define _GNU_SOURCE
#include "base/file.h"
#include "infer/port.h"
#include "infer/values.h"
#include "ops/op.h"
#include <stdio.h>
#include <string.h>

enum { MOST_SHARDS = 1000 };

static status read_json(const char *path, json_t **out)
{
    json_error_t e;
    char *data;
    size_t bytes;
    TRY(file_read(path, &data, &bytes));
    *out = json_loadb(data, bytes, JSON_REJECT_DUPLICATES, &e);
    mem_free(data);
    if (!*out) return fail(ERR_FORMAT, "%s:%d: %s", path, e.line, e.text);
    if (json_is_object(*out)) return OK;
    json_decref(*out);
    return fail(ERR_FORMAT, "%s: not a JSON object", path);
}

/* ---- tensors of a folder */

typedef struct shards {
    st_file *file[MOST_SHARDS];
    const char *name[MOST_SHARDS]; // the index's
    i64 n;
    json_t *index; // NULL: one file
} shards;

static void shards_close(shards *x)
{
    if (!x) return;
    for (i64 i = 0; i < x->n; i++) st_close(x->file[i]);
    json_decref(x->index);
    free(x);
}

static status open_shard(const char *folder, const char *index, const char *name, shards *x)
{
    char path[4096];
    for (i64 i = 0; i < x->n; i++)
        if (!strcmp(x->name[i], name)) return OK;
    if (!*name || strchr(name, '/') || name[0] == '.')
        return fail(ERR_FORMAT, "%s: '%.80s' is no name of a file in this folder", index, name);
    if (x->n == MOST_SHARDS) return fail(ERR_FORMAT, "%s: more than %d files", index, MOST_SHARDS);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    TRY(st_open(path, &x->file[x->n]));
    x->name[x->n++] = name;
    return OK;
}

/* Each tensor lies where the index says, and the files hold no other. */
static status check_index(const char *index, const json_t *map, const shards *x)
{
    const char *tensor;
    json_t *file;
    i64 held = 0;
    json_object_foreach((json_t *)map, tensor, file)
    {
        for (i64 i = 0; i < x->n; i++)
            if (!strcmp(x->name[i], json_string_value(file)) && !st_find(x->file[i], tensor))
                return fail(ERR_FORMAT, "%s: %s has no %.100s, which weight_map puts there", index,
                            x->name[i], tensor);
    }
    for (i64 i = 0; i < x->n; i++) held += st_count(x->file[i]);
    if (held == (i64)json_object_size(map)) return OK;
    return fail(ERR_FORMAT, "%s: weight_map lists %zu tensors, its files hold %lld", index,
                json_object_size(map), (long long)held);
}

static status open_index(const char *folder, const char *index, shards *x)
{
    TRY(read_json(index, &x->index));
    json_t *map = json_object_get(x->index, "weight_map"), *file;
    const char *tensor;
    if (!json_is_object(map)) return fail(ERR_FORMAT, "%s: there is no object weight_map", index);
    json_object_foreach(map, tensor, file)
    {
        if (!json_is_string(file))
            return fail(ERR_FORMAT, "%s: weight_map.%.100s is no string", index, tensor);
        TRY(open_shard(folder, index, json_string_value(file), x));
    }
    return check_index(index, map, x);
}

static status shards_open(const char *folder, shards **out)
{
    char path[4096];
    shards *x = calloc(1, sizeof *x);
    if (!x) return fail(ERR_MEMORY, "%s: out of memory", folder);
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", folder);
    status s =
        path_exists(path) ? open_index(folder, path, x) : open_shard(folder, folder, "model.safetensors", x);
    if (s)
        shards_close(x);
    else
        *out = x;
    return s;
}

static const st_entry *shards_find(const shards *x, const char *name)
{
    char longer[200];
    const st_entry *e = NULL;
    for (i64 i = 0; !e && i < x->n; i++) e = st_find(x->file[i], name);
    snprintf(longer, sizeof longer, "transformer.%s", name); // GPT-2 with a head
    for (i64 i = 0; !e && i < x->n; i++) e = st_find(x->file[i], longer);
    return e;
}

static float value_at(const st_entry *e, i64 i)
{
    float f;
    u16 h;
    if (e->dtype == ST_F32) return memcpy(&f, (const char *)e->data + 4 * i, 4), f;
    memcpy(&h, (const char *)e->data + 2 * i, 2);
    if (e->dtype == ST_F16) return f16_to_f32(h);
    u32 bits = (u32)h << 16;
    return memcpy(&f, &bits, 4), f;
}

static status find_source(const port *x, const shards *from, const char *folder, const tensor *t, hf_place *p,
                          const st_entry **out)
{
    TRY(hf_place_of(x->a, t, x->wide, x->query, p));
    const st_entry *e = shards_find(from, p->name);
    if (!e) return fail(ERR_FORMAT, "%s: there is no tensor %s", folder, p->name);
    bool same = e->n_dims == p->n_dims;
    for (int k = 0; same && k < p->n_dims; k++) same = e->dims[k] == p->dim[k];
    if (!same && p->n_dims == 1)
        return fail(ERR_FORMAT, "%s: %s has another shape than config.json says: expected [%lld]", folder,
                    p->name, (long long)p->dim[0]);
    if (!same)
        return fail(ERR_FORMAT, "%s: %s has another shape than config.json says: expected [%lld, %lld]",
                    folder, p->name, (long long)p->dim[0], (long long)p->dim[1]);
    if (e->dtype != ST_F32 && e->dtype != ST_F16 && e->dtype != ST_BF16)
        return fail(ERR_FORMAT, "%s: %s is %s; expected F32, F16 or BF16", folder, p->name,
                    st_dtype_name(e->dtype));
    *out = e;
    return OK;
}

static bool ends(const char *s, const char *tail)
{
    size_t n = strlen(s), k = strlen(tail);
    return n >= k && !strcmp(s + n - k, tail);
}

/* A folder may hold the tied head beside the embedding; it is the same, or config.json is not to be trusted.
 */
static status check_tied(const shards *from, const char *folder, bool gpt2)
{
    const st_entry *head = shards_find(from, "lm_head.weight"),
                   *embedding = shards_find(from, gpt2 ? "wte.weight" : "model.embed_tokens.weight");
    if (!head || !embedding ||
        (head->bytes == embedding->bytes && !memcmp(head->data, embedding->data, (size_t)head->bytes)))
        return OK;
    return fail(ERR_FORMAT,
                "%s: lm_head.weight is another tensor than the embedding, which config.json ties it to",
                folder);
}

/* Every tensor of the folder must be somebody's: a bias left over is another model. */
static status check_leftovers(arena *a, const port *x, const shards *from, const char *folder)
{
    const graph *g = x->m.g;
    const char **names = arena_array(a, const char *, g->n_tensors), *first = NULL;
    const bool tied = config_flag(x->c, "model.tie_head");
    i64 n = 0, others = 0;
    if (tied) TRY(check_tied(from, folder, x->a->gpt2));
    for (i64 t = 0; t < g->n_tensors; t++) {
        hf_place p;
        if (g->tensors[t]->role != ROLE_PARAM) continue;
        TRY(hf_place_of(x->a, g->tensors[t], x->wide, x->query, &p));
        names[n++] = arena_strdup(a, p.name);
    }
    port_sort_names(names, n);
    for (i64 i = 0; i < from->n; i++)
        for (i64 k = 0; k < st_count(from->file[i]); k++) {
            const char *name = st_at(from->file[i], k)->name;
            const bool longer = !strncmp(name, "transformer.", 12);
            if (ends(name, "rotary_emb.inv_freq") || ends(name, ".attn.bias") ||
                ends(name, ".attn.masked_bias") || (tied && !strcmp(name, "lm_head.weight")) ||
                port_has_name(names, n, name) || (longer && port_has_name(names, n, name + 12)))
                continue;
            if (!others++) first = name;
        }
    if (!others) return OK;
    return fail(ERR_FORMAT, "%s: %.100s (and %lld more) is no tensor of a %s of this config.json", folder,
                first, (long long)others - 1, x->a->type);
}

static status fill(port *x, const shards *from, const char *folder)
{
    hf_place p;
    const st_entry *e;
    for (i64 i = 0; i < x->s->n; i++) {
        stored *to = &x->s->entry[i];
        if (to->role != ROLE_PARAM) continue;
        const tensor *t = g_find(x->m.g, to->path);
        TRY(find_source(x, from, folder, t, &p, &e));
        for (i64 k = 0; k < to->count; k++) to->master[k] = value_at(e, hf_place_index(&p, cols(t), k));
    }
    return OK;
}

static status import_into(arena *a, port *x, const char *folder, const char *out)
{
    char path[4096], *tokens = NULL;
    size_t bytes = 0;
    tokenizer *t;
    shards *from = NULL;
    TRY(port_build(a, x));
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    TRY(shards_open(folder, &from));
    hf_place p;
    const st_entry *e;
    status s = OK; // shapes first: a config.json that lies must not make us take memory
    for (i64 i = 0; !s && i < x->m.g->n_tensors; i++)
        if (x->m.g->tensors[i]->role == ROLE_PARAM)
            s = find_source(x, from, folder, x->m.g->tensors[i], &p, &e);
    if (!s) s = check_leftovers(a, x, from, folder);
    if (!s) s = store_open(a, x->m.g, 0, &x->s);
    if (!s) s = fill(x, from, folder);
    shards_close(from);
    if (!s && path_exists(path)) {
        s = tokenizer_open(path, &t);
        if (!s) tokenizer_close(t);
        if (!s) s = file_read(path, &tokens, &bytes);
    }
    if (!s) s = port_write_run(a, x, tokens, bytes, out);
    mem_free(tokens);
    return s;
}

static status choose(const char *path, const json_t *j, const hf_architecture **out)
{
    const json_t *type = json_object_get(j, "model_type");
    if (!json_is_string(type)) return fail(ERR_FORMAT, "%s: there is no string model_type", path);
    *out = hf_architecture_named(json_string_value(type));
    if (*out) return OK;
    return fail(ERR_FORMAT, "%s: model_type is %.40s; there are gpt2, llama, qwen2, qwen3, olmo2, mistral",
                path, json_string_value(type));
}

status hugging_face_import(const char *folder, const char *out)
{
    arena *a;
    char path[4096];
    json_t *j;
    port x = {0};
    if (!path_is_dir(folder)) return fail(ERR_INPUT, "%s: no such folder", folder);
    if (path_exists(out)) return fail(ERR_INPUT, "%s is there already; name a new folder", out);
    snprintf(path, sizeof path, "%s/config.json", folder);
    TRY(read_json(path, &j));
    status s = arena_open(&a);
    if (s) return json_decref(j), s;
    s = choose(path, j, &x.a);
    if (!s) s = hf_config(x.a, path, j, &x.c);
    if (!s) s = import_into(a, &x, folder, out);
    port_close(&x);
    config_close(x.c);
    json_decref(j);
    arena_close(a);
    return s;
}

/* Hugging Face folders, read and written: see hugging_face.h. The model is built from the configuration
 * first, so that each parameter asks for its tensor, and shapes are compared before anything is copied.
 * Export chooses the first architecture that, read back, says the same of every key of the model: what import
 * reads is the one definition of what a folder can express. */
#define _GNU_SOURCE
#include "infer/hugging_face_parts.h"
#include "base/file.h"
#include "graph/store.h"
#include "model/model.h"
#include "ops/op.h"
#include "train/checkpoint.h"
#include "train/save.h"
#include <math.h>
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

/* ---- in */

static float half_to_f32(u16 h)
{
    int exponent = h >> 10 & 31, fraction = h & 1023;
    double x = exponent == 31 ? fraction ? NAN : INFINITY
               : exponent     ? ldexp(1024 + fraction, exponent - 25)
                              : ldexp(fraction, -24);
    return (float)(h >> 15 ? -x : x);
}

static float value_at(const st_entry *e, i64 i)
{
    float f;
    u16 h;
    if (e->dtype == ST_F32) return memcpy(&f, (const char *)e->data + 4 * i, 4), f;
    memcpy(&h, (const char *)e->data + 2 * i, 2);
    if (e->dtype == ST_F16) return half_to_f32(h);
    u32 bits = (u32)h << 16;
    return memcpy(&f, &bits, 4), f;
}

typedef struct side {
    const hf_architecture *a;
    config *c;
    model m;
    store *s;
    i64 query, wide; // rows of q; of q, k and v
} side;

static status build(arena *a, side *x)
{
    TRY(model_build(a, x->c, &(model_shape){.rows = 1, .tokens = 1, .mode = MODE_EVALUATE}, &x->m));
    const tensor *q = g_find(x->m.g, "blocks.0.attention.q.weight"),
                 *k = g_find(x->m.g, "blocks.0.attention.k.weight");
    if (q) x->query = q->dim[0];
    if (q && k) x->wide = q->dim[0] + 2 * k->dim[0];
    return OK;
}

static status find_source(const side *x, const shards *from, const char *folder, const tensor *t, hf_place *p,
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

static i64 place_index(const hf_place *p, i64 columns, i64 i)
{
    if (p->n_dims == 1) return p->offset + i;
    return p->transposed ? i % columns * p->dim[1] + p->offset + i / columns : i;
}

static bool ends(const char *s, const char *tail)
{
    size_t n = strlen(s), k = strlen(tail);
    return n >= k && !strcmp(s + n - k, tail);
}

/* Every tensor of the folder must be somebody's: a bias left over is another model. */
static status check_leftovers(const side *x, const shards *from, const char *folder)
{
    i64 others = 0;
    const char *first = NULL;
    for (i64 i = 0; i < from->n; i++)
        for (i64 k = 0; k < st_count(from->file[i]); k++) {
            const char *name = st_at(from->file[i], k)->name;
            bool known = ends(name, "rotary_emb.inv_freq") || ends(name, ".attn.bias") ||
                         ends(name, ".attn.masked_bias") ||
                         (config_flag(x->c, "model.tie_head") && !strcmp(name, "lm_head.weight"));
            for (i64 t = 0; !known && t < x->m.g->n_tensors; t++) {
                hf_place p;
                if (x->m.g->tensors[t]->role != ROLE_PARAM) continue;
                status s = hf_place_of(x->a, x->m.g->tensors[t], x->wide, x->query, &p);
                known = !s && (!strcmp(p.name, name) ||
                               (!strncmp(name, "transformer.", 12) && !strcmp(p.name, name + 12)));
                status_drop(s);
            }
            others += !known;
            if (!known && !first) first = name;
        }
    return !others ? OK
                   : fail(ERR_FORMAT, "%s: %.100s (and %lld more) is no tensor of a %s of this config.json",
                          folder, first, (long long)others - 1, x->a->type);
}

static status fill(side *x, const shards *from, const char *folder)
{
    hf_place p;
    const st_entry *e;
    for (i64 i = 0; i < x->s->n; i++) {
        stored *to = &x->s->entry[i];
        if (to->role != ROLE_PARAM) continue;
        const tensor *t = g_find(x->m.g, to->path);
        TRY(find_source(x, from, folder, t, &p, &e));
        for (i64 k = 0; k < to->count; k++) to->master[k] = value_at(e, place_index(&p, cols(t), k));
    }
    return OK;
}

static const char fresh_state[] =
    "{\"step\": 0, \"position\": 0, \"tokens_seen\": 0, \"bytes_seen\": 0, \"metrics_offset\": 0, "
    "\"seconds\": 0.0,\n"
    " \"identity\": \"\", \"data\": \"\", \"run\": \"\", \"code\": \"\", \"isa\": \"\", \"threads\": 1}\n";

static status write_run(arena *a, const side *x, const char *tokens, size_t token_bytes, const char *out)
{
    checkpoint_store *folder;
    checkpoint *c;
    text yaml = {0};
    st_entry *entry = arena_array(a, st_entry, x->s->n + 1);
    i64 n = 0;
    for (i64 i = 0; i < x->s->n; i++) {
        const stored *e = &x->s->entry[i];
        if (e->role != ROLE_PARAM) continue;
        entry[n] = (st_entry){.name = e->path, .dtype = ST_F32, .n_dims = e->ndim, .data = e->master};
        for (int k = 0; k < e->ndim; k++) entry[n].dims[k] = e->dim[k];
        n++;
    }
    TRY(checkpoint_open(out, &(checkpoint_options){0}, &folder));
    config_write(x->c, &yaml);
    status s = checkpoint_begin(folder, 0, &c);
    if (!s) s = checkpoint_arrays(c, "model.safetensors", entry, n, NULL, 0);
    if (!s) s = checkpoint_file(c, "config.yaml", yaml.data, yaml.bytes);
    if (!s) s = checkpoint_file(c, "given.yaml", yaml.data, yaml.bytes);
    if (!s) s = checkpoint_file(c, "state.json", fresh_state, sizeof fresh_state - 1);
    if (!s && tokens) s = checkpoint_file(c, "tokenizer.json", tokens, token_bytes);
    if (!s) s = checkpoint_finish(c);
    text_free(&yaml);
    status closed = checkpoint_close(folder);
    if (!s) return closed;
    status_drop(closed);
    return s;
}

static status import_into(arena *a, side *x, const char *folder, const char *out)
{
    char path[4096], *tokens = NULL;
    size_t bytes = 0;
    tokenizer *t;
    shards *from = NULL;
    TRY(build(a, x));
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    TRY(shards_open(folder, &from));
    hf_place p;
    const st_entry *e;
    status s = OK; // shapes first: a config.json that lies must not make us take memory
    for (i64 i = 0; !s && i < x->m.g->n_tensors; i++)
        if (x->m.g->tensors[i]->role == ROLE_PARAM)
            s = find_source(x, from, folder, x->m.g->tensors[i], &p, &e);
    if (!s) s = check_leftovers(x, from, folder);
    if (!s) s = store_open(a, x->m.g, 0, &x->s);
    if (!s) s = fill(x, from, folder);
    shards_close(from);
    if (!s && path_exists(path)) {
        s = tokenizer_open(path, &t);
        if (!s) tokenizer_close(t);
        if (!s) s = file_read(path, &tokens, &bytes);
    }
    if (!s) s = write_run(a, x, tokens, bytes, out);
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
    side x = {0};
    if (!path_is_dir(folder)) return fail(ERR_INPUT, "%s: no such folder", folder);
    if (path_exists(out)) return fail(ERR_INPUT, "%s is there already; name a new folder", out);
    snprintf(path, sizeof path, "%s/config.json", folder);
    TRY(read_json(path, &j));
    status s = arena_open(&a);
    if (s) return json_decref(j), s;
    s = choose(path, j, &x.a);
    if (!s) s = hf_config(x.a, path, j, &x.c);
    if (!s) s = import_into(a, &x, folder, out);
    store_close(x.s);
    if (x.m.g) graph_close(x.m.g);
    config_close(x.c);
    json_decref(j);
    arena_close(a);
    return s;
}

/* ---- out */

/* Keys that say how a model is trained, not what it computes; and those compared by their effect. */
static bool compared(const config_key *k)
{
    static const char *const apart[] = {"model.preset",
                                        "model.size",
                                        "model.override",
                                        "model.dropout",
                                        "model.norm.preset",
                                        "model.norm.out_gain",
                                        "model.norm.mix_share",
                                        "model.ffn.width",
                                        "model.attention.kv_heads",
                                        "model.head.z_loss",
                                        "model.attention.head_width"};
    if (strncmp(k->path, "model.", 6) || strstr(k->path, "[]") || !strncmp(k->path, "model.init.", 11) ||
        !strncmp(k->path, "model.head.predict", 18))
        return false;
    for (i64 i = 0; i < COUNT(apart); i++)
        if (!strcmp(apart[i], k->path)) return false;
    return true;
}

static bool same_value(const config *a, const config *b, i64 layer, const config_key *k)
{
    double x = NAN, y = NAN;
    if (k->type == KEY_NUMBER)
        x = config_number_at(a, layer, k->path), y = config_number_at(b, layer, k->path);
    if (!strcmp(k->path, "model.norm.inner_eps")) {
        if (isnan(x)) x = config_number_at(a, layer, "model.norm.eps");
        if (isnan(y)) y = config_number_at(b, layer, "model.norm.eps");
    }
    if (!isnan(x) && !isnan(y)) return fabs(x - y) <= 1e-7 * fabs(x); // config.json holds what f32 would
    return !strcmp(config_text_at(a, layer, k->path), config_text_at(b, layer, k->path));
}

/* Lists what A's config would have to say to be B's; returns how many keys. */
static i64 differences(const config *a, const config *b, text *out)
{
    key_list keys;
    i64 n = 0, layers = config_count(a, "model.layers");
    config_keys(&keys);
    for (i64 i = 0; i < keys.n; i++) {
        const config_key *k = keys.rows[i];
        // a key that only A has belongs to a kind, whose own key differs
        bool asked = compared(k) || (!strcmp(k->path, "train.transfer.kind") && model_transferred(a));
        if (!asked || !config_applies(a, k->path) || !config_applies(b, k->path)) continue;
        i64 layer = -1;
        if (same_value(a, b, -1, k))
            for (layer = 0; layer < layers && same_value(a, b, layer, k); layer++) continue;
        if (layer == layers) continue;
        text_add(out, "%s%s is %s", n++ ? ", " : "", k->path, config_text_at(a, layer, k->path));
        if (layer >= 0) text_add(out, " in layer %lld", (long long)layer);
        text_add(out, " (would have to be %s)", config_text_at(b, layer, k->path));
    }
    return n;
}

typedef struct outcome {
    const hf_architecture *a;
    config *c; // as import would read it
    json_t *j;
} outcome;

static void drop(outcome *o)
{
    config_close(o->c);
    json_decref(o->j);
    *o = (outcome){0};
}

static status match(const model_files *f, i64 ffn_width, st_dtype type, outcome *out)
{
    text best = {0};
    const char *nearest = "gpt2";
    i64 least = INT64_MAX;
    for (i64 i = 0; i < HF_ARCHITECTURES; i++) {
        text said = {0};
        *out = (outcome){.a = &hf_architectures[i]};
        out->j = hf_describe(out->a, f->config, ffn_width, type);
        status s = hf_config(out->a, "config.json", out->j, &out->c);
        i64 n = s ? INT64_MAX : differences(f->config, out->c, &said);
        status_drop(s); // an activation, say, that this type has no word for
        if (!n) return text_free(&said), text_free(&best), OK;
        if (n < least) {
            text swap = best;
            best = said, said = swap, least = n, nearest = out->a->type;
        }
        text_free(&said);
        drop(out);
    }
    status s = fail(ERR_CONFIG, "%s: no architecture of Hugging Face computes this model; nearest is %s: %s",
                    f->folder, nearest, best.data ? best.data : "its activation has no name there");
    text_free(&best);
    return s;
}

/* One file of all tensors, in the order of the parameters. */
static status write_tensors(arena *a, const side *x, const st_file *weights, st_dtype type, const char *path)
{
    i64 n = 0, most = x->m.g->n_tensors;
    st_entry *entry = arena_array(a, st_entry, most + 1);
    status s = OK;
    for (i64 i = 0; !s && i < most; i++) {
        const tensor *t = x->m.g->tensors[i];
        hf_place p;
        i64 k = 0, total;
        if (t->role != ROLE_PARAM) continue;
        const st_entry *from = st_find(weights, t->path);
        s = hf_place_of(x->a, t, x->wide, x->query, &p);
        if (!s && (!from || from->dtype != ST_F32 || from->bytes != 4 * count(t)))
            s = fail(ERR_FORMAT, "%s: not as the configuration says", t->path);
        if (s) break;
        const char *name = arena_printf(
            a, "%s%s", x->a->gpt2 && strcmp(p.name, "lm_head.weight") ? "transformer." : "", p.name);
        while (k < n && strcmp(entry[k].name, name)) k++;
        total = p.dim[0] * (p.n_dims > 1 ? p.dim[1] : 1);
        if (k == n) {
            void *room;
            s = mem_alloc((size_t)(total * st_dtype_bytes(type)), name, &room);
            if (s) break;
            entry[n++] = (st_entry){
                .name = name, .dtype = type, .n_dims = p.n_dims, .dims = {p.dim[0], p.dim[1]}, .data = room};
        }
        for (i64 v = 0; v < count(t); v++) {
            i64 at = place_index(&p, cols(t), v);
            float value = value_at(from, v);
            if (type == ST_F32)
                ((float *)entry[k].data)[at] = value;
            else
                ((bf16 *)entry[k].data)[at] = f32_to_bf16(value);
        }
    }
    const st_pair format = {"format", "pt"};
    if (!s) s = st_save(path, entry, n, &format, 1, NULL);
    for (i64 k = 0; k < n; k++) mem_free((void *)entry[k].data);
    return s;
}

static status write_json(const char *folder, const char *name, const json_t *j)
{
    char path[4096];
    file_writer *w;
    char *said = json_dumps(j, JSON_INDENT(2) | JSON_SORT_KEYS);
    if (!said) return fail(ERR_MEMORY, "%s: out of memory", name);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    status s = file_create(path, &w);
    if (!s) s = file_printf(w, "%s\n", said);
    if (!s) s = file_commit(w);
    free(said);
    return s;
}

static status write_folder(arena *a, const side *x, const model_files *f, json_t *j, st_dtype type,
                           const char *out)
{
    char path[4096];
    st_file *weights;
    TRY(dir_make(out));
    TRY(st_open(f->weights, &weights));
    snprintf(path, sizeof path, "%s/model.safetensors", out);
    status s = write_tensors(a, x, weights, type, path);
    st_close(weights);
    json_t *generation = json_object();
    i32 end = f->tokenizer ? tokenizer_end(f->tokenizer) : -1;
    if (end >= 0) json_object_set_new(generation, "eos_token_id", json_integer(end));
    if (end >= 0) json_object_set_new(j, "eos_token_id", json_integer(end));
    if (!s) s = write_json(out, "generation_config.json", generation);
    if (!s) s = write_json(out, "config.json", j);
    json_decref(generation);
    snprintf(path, sizeof path, "%s/tokenizer.json", out);
    if (!s && f->tokenizer) s = tokenizer_save(f->tokenizer, path);
    return s;
}

status hugging_face_export(const model_files *f, st_dtype type, const char *out)
{
    arena *a;
    outcome o = {0};
    side x = {.c = f->config};
    if (path_exists(out)) return fail(ERR_INPUT, "%s is there already; name a new folder", out);
    TRY(arena_open(&a));
    status s = build(a, &x);
    const tensor *up = s ? NULL : g_find(x.m.g, "blocks.0.ffn.up.weight");
    if (!s) s = match(f, up && up->ndim == 2 ? up->dim[0] : 1, type, &o);
    x.a = o.a;
    for (i64 i = 0; !s && i < x.m.g->n_tensors; i++) {
        hf_place p; // each has a place, or nothing is written
        if (x.m.g->tensors[i]->role == ROLE_PARAM)
            s = hf_place_of(x.a, x.m.g->tensors[i], x.wide, x.query, &p);
    }
    if (!s) s = write_folder(a, &x, f, o.j, type, out);
    drop(&o);
    if (x.m.g) graph_close(x.m.g);
    arena_close(a);
    return s;
}

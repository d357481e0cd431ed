/* A conversion on disk: a checkpoint is read, each parameter of the new model made from it in double, and a
 * folder written that holds one checkpoint. See convert.h. */
#include "infer/convert.h"
#include "base/file.h"
#include "graph/store.h"
#include "model/model.h"
#include "train/checkpoint.h"
#include "train/save.h"
#include <stdio.h>
#include <string.h>

typedef struct side {
    config *c;
    model m;
    store *s;
} side;

static status open_side(arena *a, side *x)
{
    model_shape shape = {.rows = 1, .tokens = 1, .mode = MODE_EVALUATE};
    TRY(model_build(a, x->c, &shape, &x->m));
    return store_open(a, x->m.g, 0, &x->s);
}

static void read_master(void *context, const tensor *t, double *out)
{
    const stored *e = store_find(context, t->path);
    for (i64 k = 0; k < e->count; k++) out[k] = (double)e->master[k];
}

static status fill(const conversion *c, const side *from, side *to)
{
    for (i64 i = 0; i < to->s->n; i++) {
        stored *e = &to->s->entry[i];
        double *x;
        if (e->role != ROLE_PARAM) { // a state, such as the bias that balances experts
            const stored *same = store_find(from->s, e->path);
            if (same && same->count == e->count)
                memcpy(e->data, same->data, (size_t)(e->count * dtype_bytes(e->dtype)));
            continue;
        }
        TRY(mem_alloc(sizeof *x * (size_t)e->count, e->path, &x));
        status s = convert_parameter(c, g_find(to->m.g, e->path), x);
        for (i64 k = 0; !s && k < e->count; k++) e->master[k] = (float)x[k];
        mem_free(x);
        if (s) return s;
    }
    return OK;
}

static status copy_file(checkpoint *c, const char *folder, const char *name)
{
    char *data, path[4096];
    size_t bytes;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (!path_exists(path)) return OK;
    status s = file_read(path, &data, &bytes);
    if (s) {
        checkpoint_abandon(c);
        return s;
    }
    s = checkpoint_file(c, name, data, bytes);
    mem_free(data);
    return s;
}

static status write_arrays(arena *a, checkpoint *c, const store *s)
{
    st_entry *entry = arena_array(a, st_entry, s->n + 1);
    for (i64 i = 0; i < s->n; i++) {
        const stored *e = &s->entry[i];
        bool f32 = e->role == ROLE_PARAM || e->dtype == DT_F32;
        entry[i] = (st_entry){.name = e->path,
                              .dtype = f32                  ? ST_F32
                                       : e->dtype == DT_I32 ? ST_I32
                                                            : ST_BF16,
                              .n_dims = e->ndim,
                              .data = e->role == ROLE_PARAM ? (const void *)e->master : e->data};
        for (int k = 0; k < e->ndim; k++) entry[i].dims[k] = e->dim[k];
    }
    return checkpoint_arrays(c, "model.safetensors", entry, s->n, NULL, 0);
}

static status write_run(arena *a, const model_files *f, const side *to, const char *out)
{
    checkpoint_store *folder;
    checkpoint *c;
    text yaml = {0};
    TRY(checkpoint_open(out, &(checkpoint_options){0}, &folder));
    config_write(to->c, &yaml);
    status s = checkpoint_begin(folder, f->step, &c);
    if (!s) s = write_arrays(a, c, to->s);
    if (!s) s = checkpoint_file(c, "config.yaml", yaml.data, yaml.bytes);
    if (!s) s = checkpoint_file(c, "given.yaml", yaml.data, yaml.bytes);
    if (!s) s = copy_file(c, f->folder, "state.json");
    if (!s) s = copy_file(c, f->folder, "tokenizer.json");
    if (!s) s = checkpoint_finish(c);
    text_free(&yaml);
    status closed = checkpoint_close(folder);
    if (!s) return closed;
    status_drop(closed);
    return s;
}

static status convert_sides(arena *a, const model_files *f, norm_form form, const char *out, side *from,
                            side *to, convert_result *result)
{
    conversion c = {.to = form, .centred = config_is(from->c, "model.norm.kind", "rms"), .read = read_master};
    TRY(open_side(a, from));
    TRY(load_weights(from->s, f->weights));
    TRY(convert_config(from->c, from->m.g, form, &to->c));
    TRY(open_side(a, to));
    c.from = from->m.g;
    c.context = from->s;
    TRY(fill(&c, from, to));
    *result = (convert_result){f->step, from->s->trained, to->s->trained};
    return write_run(a, f, to, out);
}

status convert_run(const model_files *f, norm_form form, const char *out, convert_result *result)
{
    arena *a;
    side from = {.c = f->config}, to = {0};
    if (path_exists(out)) return fail(ERR_INPUT, "%s is there already; name a new folder", out);
    TRY(arena_open(&a));
    status s = convert_sides(a, f, form, out, &from, &to, result);
    store_close(from.s);
    store_close(to.s);
    if (from.m.g) graph_close(from.m.g);
    if (to.m.g) graph_close(to.m.g);
    config_close(to.c);
    arena_close(a);
    return s;
}

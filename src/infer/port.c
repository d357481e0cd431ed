/* What import and export of every format share: see port.h. */
#include "infer/port.h"
#include "train/checkpoint.h"
#include <stdlib.h>
#include <string.h>

status port_build(arena *a, port *x)
{
    TRY(model_build(a, x->c, &(model_shape){.rows = 1, .tokens = 1, .mode = MODE_EVALUATE}, &x->m));
    const tensor *q = g_find(x->m.g, "blocks.0.attention.q.weight"),
                 *k = g_find(x->m.g, "blocks.0.attention.k.weight");
    if (q) x->query = q->dim[0];
    if (q && k) x->wide = q->dim[0] + 2 * k->dim[0];
    return OK;
}

static const char fresh_state[] =
    "{\"step\": 0, \"position\": 0, \"tokens_seen\": 0, \"bytes_seen\": 0, \"metrics_offset\": 0, "
    "\"seconds\": 0.0,\n"
    " \"identity\": \"\", \"data\": \"\", \"run\": \"\", \"code\": \"\", \"isa\": \"\", \"threads\": 1}\n";

status port_write_run(arena *a, const port *x, const char *tokens, size_t token_bytes, const char *out)
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

void port_close(port *x)
{
    store_close(x->s);
    if (x->m.g) graph_close(x->m.g);
    x->s = NULL, x->m.g = NULL;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

void port_sort_names(const char **names, i64 n) { qsort(names, (size_t)n, sizeof *names, by_text); }

bool port_has_name(const char *const *names, i64 n, const char *name)
{
    return n && bsearch(&name, names, (size_t)n, sizeof *names, by_text);
}

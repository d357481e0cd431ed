/* GGUF files as runs: see gguf.h. As from a folder: the model is built from the keys first, each parameter
 * asks for its tensor, shapes are compared before anything is copied, and every tensor must be somebody's. */
#include "base/file.h"
#include "infer/gguf_parts.h"
#include "infer/values.h"
#include "ops/op.h"
#include <stdlib.h>
#include <string.h>

/* A tensor of more dimensions than wanted may end with ones. */
static bool fits(const gguf_tensor *e, const gguf_place *p)
{
    const i64 wanted[2] = {p->n_dims > 1 ? p->columns : p->rows, p->n_dims > 1 ? p->rows : 1};
    for (int k = 0; k < MAX(e->n_dims, p->n_dims); k++)
        if ((k < e->n_dims ? e->dims[k] : 1) != (k < 2 ? wanted[k] : 1)) return false;
    return true;
}

static status find_source(const gguf_file *f, const char *path, const port *x, const tensor *t, gguf_place *p,
                          const gguf_tensor **out)
{
    TRY(gguf_place_of(x, t, p));
    const gguf_tensor *e = gguf_find(f, p->name);
    if (!e) return fail(ERR_FORMAT, "%s: there is no tensor %s", path, p->name);
    if (!fits(e, p) && p->n_dims == 1)
        return fail(ERR_FORMAT, "%s: %s has another shape than the keys say: expected {%lld}", path, p->name,
                    (long long)p->rows);
    if (!fits(e, p))
        return fail(ERR_FORMAT, "%s: %s has another shape than the keys say: expected {%lld, %lld}", path,
                    p->name, (long long)p->columns, (long long)p->rows);
    if (!values_known(e->type))
        return fail(ERR_FORMAT, "%s: %s is %s; expected F32, F16, BF16, Q8_0 or Q4_0", path, p->name,
                    gguf_type_name(e->type));
    *out = e;
    return OK;
}

static status check_leftovers(arena *a, const gguf_file *f, const char *path, const port *x)
{
    const graph *g = x->m.g;
    const char **names = arena_array(a, const char *, g->n_tensors);
    i64 n = 0;
    for (i64 i = 0; i < g->n_tensors; i++) {
        gguf_place p;
        if (g->tensors[i]->role != ROLE_PARAM) continue;
        TRY(gguf_place_of(x, g->tensors[i], &p));
        names[n++] = arena_strdup(a, p.name);
    }
    port_sort_names(names, n);
    for (i64 i = 0; i < gguf_count(f); i++)
        if (!port_has_name(names, n, gguf_at(f, i)->name))
            return fail(ERR_FORMAT, "%s: %s is no tensor of a %s of these keys", path, gguf_at(f, i)->name,
                        x->a->type);
    return OK;
}

static status fill(const gguf_file *f, const char *path, port *x)
{
    for (i64 i = 0; i < x->s->n; i++) {
        stored *to = &x->s->entry[i];
        const gguf_tensor *e;
        gguf_place p;
        if (to->role != ROLE_PARAM) continue;
        TRY(find_source(f, path, x, g_find(x->m.g, to->path), &p, &e));
        const i64 n = p.columns, rows = to->count / n;
        if (n == 1) { // a vector: one row of the file
            float *all;
            TRY(mem_alloc((size_t)p.rows * sizeof *all, p.name, &all));
            values_decode(e->type, e->data, p.rows, all);
            for (i64 r = 0; r < rows; r++) to->master[r] = all[gguf_place_row(&p, r)];
            mem_free(all);
            continue;
        }
        const i64 bytes = n / gguf_block_elements(e->type) * gguf_block_bytes(e->type);
        for (i64 r = 0; r < rows; r++)
            values_decode(e->type, (const u8 *)e->data + gguf_place_row(&p, r) * bytes, n,
                          to->master + r * n);
    }
    return OK;
}

static status import_into(arena *a, const gguf_file *f, const char *path, port *x, const char *out)
{
    gguf_place p;
    const gguf_tensor *e;
    char *tokens = NULL;
    status s = port_build(a, x);
    for (i64 i = 0; !s && i < x->m.g->n_tensors; i++)
        if (x->m.g->tensors[i]->role == ROLE_PARAM) s = find_source(f, path, x, x->m.g->tensors[i], &p, &e);
    if (!s) s = check_leftovers(a, f, path, x);
    if (!s) s = gguf_read_tokens(f, path, config_count(x->c, "model.vocab"), &tokens);
    if (!s) s = store_open(a, x->m.g, 0, &x->s);
    if (!s) s = fill(f, path, x);
    if (!s) s = port_write_run(a, x, tokens, tokens ? strlen(tokens) : 0, out);
    free(tokens);
    return s;
}

status gguf_import(const char *path, const char *out)
{
    arena *a;
    gguf_file *f;
    json_t *j = NULL;
    port x = {0};
    if (path_exists(out)) return fail(ERR_INPUT, "%s is there already; name a new folder", out);
    TRY(gguf_open(path, &f));
    status s = arena_open(&a);
    if (s) return gguf_close(f), s;
    s = gguf_describe(f, path, &x.a, &j);
    if (!s) s = hf_config(x.a, path, j, &x.c);
    if (!s) s = import_into(a, f, path, &x, out);
    port_close(&x);
    config_close(x.c);
    json_decref(j);
    arena_close(a);
    gguf_close(f);
    return s;
}

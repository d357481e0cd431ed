/* A session on disk: see save.h. Tensors go out in the order of the store, from where they lie. */
#include "train/save.h"
#include "base/file.h"
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static st_entry entry_of(const stored *e, const char *name, const void *data, dtype t)
{
    st_entry x = {.name = name,
                  .dtype = t == DT_BF16  ? ST_BF16
                           : t == DT_I32 ? ST_I32
                                         : ST_F32,
                  .n_dims = e->ndim,
                  .data = data};
    for (int k = 0; k < e->ndim; k++) x.dims[k] = e->dim[k];
    return x;
}

static status save_tensors(checkpoint *c, const session *s)
{
    const store *st = s->store;
    arena *a;
    status failed = arena_open(&a);
    if (failed) {
        checkpoint_abandon(c);
        return failed;
    }
    st_entry *model = arena_array(a, st_entry, st->n + 1), *moments = arena_array(a, st_entry, 2 * st->n + 1);
    i64 n_moments = 0;
    for (i64 i = 0; i < st->n; i++) {
        const stored *e = &st->entry[i];
        bool param = e->role == ROLE_PARAM;
        model[i] = entry_of(e, e->path, param ? (void *)e->master : e->data, param ? DT_F32 : e->dtype);
        for (int k = 0; k < s->optimizer.def->moments && param && e->moment[k]; k++)
            moments[n_moments++] =
                entry_of(e, arena_printf(a, "%s.%s", e->path, k ? "second_moment" : "first_moment"),
                         e->moment[k], DT_F32);
    }
    failed = checkpoint_arrays(c, "model.safetensors", model, st->n, NULL, 0);
    if (!failed) failed = checkpoint_arrays(c, "optimizer.safetensors", moments, n_moments, NULL, 0);
    arena_close(a);
    return failed;
}

static char *state_text(const run_state *r)
{
    json_t *j = json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:f, s:s, s:s, s:s, s:s, s:s, s:I, s:{s:f, s:f, s:I, s:I, s:I}}", "step",
        (json_int_t)r->step, "position", (json_int_t)r->position, "tokens_seen", (json_int_t)r->tokens_seen,
        "bytes_seen", (json_int_t)r->bytes_seen, "metrics_offset", (json_int_t)r->metrics_offset, "seconds",
        r->seconds, "identity", r->identity, "data", r->data, "run", r->run, "code", r->code, "isa", r->isa,
        "threads", (json_int_t)r->threads, "guard", "mean", r->guard.mean, "variance", r->guard.variance,
        "seen", (json_int_t)r->guard.seen, "trouble", (json_int_t)r->guard.trouble, "interventions",
        (json_int_t)r->guard.interventions);
    char *text = j ? json_dumps(j, JSON_INDENT(1)) : NULL;
    json_decref(j);
    return text;
}

static status save_file(checkpoint *c, const char *name, const char *path)
{
    char *data;
    size_t bytes;
    status s = file_read(path, &data, &bytes);
    if (s) {
        checkpoint_abandon(c);
        return s;
    }
    s = checkpoint_file(c, name, data, bytes);
    mem_free(data);
    return s;
}

/* A loss may still be finite when the update after it was not: such a state is no good one to go back to. */
static status check_finite(const store *s, i64 step)
{
    for (i64 i = 0; i < s->n_params; i++) {
        const stored *e = &s->entry[i];
        i64 bad = 0;
#pragma omp parallel for schedule(static) reduction(+ : bad)
        for (i64 k = 0; k < e->count; k++) bad += !isfinite(e->master[k]);
        if (bad)
            return fail(ERR_NUMERIC, "step %lld: %lld of the %lld values of parameter %s are NaN or infinite",
                        (long long)step, (long long)bad, (long long)e->count, e->path);
    }
    return OK;
}

status save_session(checkpoint_store *store, const session *s, const run_state *state, const text *given,
                    const char *tokenizer, average *mean, bool end)
{
    checkpoint *c;
    text yaml = {0};
    TRY(check_finite(s->store, state->step));
    char *json = state_text(state);
    if (!json) return fail(ERR_MEMORY, "state.json: out of memory");
    config_write(s->c, &yaml);
    status failed = checkpoint_begin(store, state->step, &c);
    if (!failed) failed = save_tensors(c, s);
    if (!failed) failed = average_save(mean, s->store, c, state->step, end);
    if (!failed) failed = checkpoint_file(c, "state.json", json, strlen(json));
    if (!failed) failed = checkpoint_file(c, "config.yaml", yaml.data, yaml.bytes);
    if (!failed) failed = checkpoint_file(c, "given.yaml", given->data, given->bytes);
    if (!failed && tokenizer) failed = save_file(c, "tokenizer.json", tokenizer);
    if (!failed) failed = checkpoint_finish(c);
    free(json);
    text_free(&yaml);
    return failed;
}

/* ---- back */

static status fits(const char *path, const st_entry *x, const stored *e, st_dtype want)
{
    if (!x) return fail(ERR_FORMAT, "%s: has no %s; is it another model's checkpoint?", path, e->path);
    bool same = x->n_dims == e->ndim;
    for (int k = 0; same && k < e->ndim; k++) same = x->dims[k] == e->dim[k];
    if (!same) return fail(ERR_FORMAT, "%s: %s has another shape than the configuration says", path, x->name);
    if (x->dtype != want)
        return fail(ERR_FORMAT, "%s: %s is %s, expected %s", path, x->name, st_dtype_name(x->dtype),
                    st_dtype_name(want));
    return OK;
}

/* Weights make sense with the constants they were trained with only. */
static status check_constant(const st_file *f, const char *path, const stored *e)
{
    const st_entry *x = st_find(f, e->path);
    bool index = e->dtype == DT_I32;
    TRY(fits(path, x, e, index ? ST_I32 : ST_F32));
    for (i64 k = 0; k < e->count; k++) {
        i32 index_there, index_here = index ? ((const i32 *)e->data)[k] : 0;
        float there, here = index ? 0 : ((const float *)e->data)[k];
        memcpy(&there, (const char *)x->data + k * 4, sizeof there);
        memcpy(&index_there, (const char *)x->data + k * 4, sizeof index_there);
        if (index ? index_there != index_here : there != here)
            return fail(ERR_FORMAT,
                        "%s: value %lld of %s is %.9g, but the configuration gives %.9g; the weights were "
                        "trained with another one: use the configuration saved beside them",
                        path, (long long)k, e->path, index ? index_there : (double)there,
                        index ? index_here : (double)here);
    }
    return OK;
}

static status read_weights(store *s, const st_file *f, const char *path)
{
    for (i64 i = 0; i < s->n; i++)
        if (s->entry[i].role == ROLE_CONST) TRY(check_constant(f, path, &s->entry[i]));
    for (i64 i = 0; i < s->n; i++) {
        stored *e = &s->entry[i];
        const st_entry *x = st_find(f, e->path);
        bool param = e->role == ROLE_PARAM;
        if (e->role == ROLE_CONST || e->transient) continue;
        if (!param && !x)
            return fail(ERR_FORMAT,
                        "%s: has no %s, a state that training keeps beside the weights; without it the model "
                        "computes something else: copy it from the file these weights come from",
                        path, e->path);
        TRY(fits(path, x, e, param || e->dtype == DT_F32 ? ST_F32 : e->dtype == DT_BF16 ? ST_BF16 : ST_I32));
        memcpy(param ? (void *)e->master : e->data, x->data, (size_t)x->bytes);
    }
    store_sync(s);
    return OK;
}

status load_weights(store *s, const char *path)
{
    st_file *f;
    TRY(st_open(path, &f));
    status failed = read_weights(s, f, path);
    st_close(f);
    return failed;
}

static status read_moments(session *s, const st_file *f, const char *path)
{
    for (i64 i = 0; i < s->store->n_params; i++)
        for (int k = 0; k < s->optimizer.def->moments; k++) {
            stored *e = &s->store->entry[i];
            char name[512];
            snprintf(name, sizeof name, "%s.%s", e->path, k ? "second_moment" : "first_moment");
            const st_entry *x = st_find(f, name);
            TRY(fits(path, x, e, ST_F32));
            store_load_moment(e, k, x->data);
        }
    return OK;
}

static status read_state(const char *path, run_state *r)
{
    json_error_t e;
    json_int_t step, position, tokens, bytes, offset, threads, seen = 0, trouble = 0, interventions = 0;
    char *const to[] = {r->identity, r->data, r->run, r->code, r->isa};
    const size_t room[] = {sizeof r->identity, sizeof r->data, sizeof r->run, sizeof r->code, sizeof r->isa};
    const char *from[COUNT(to)];
    json_t *j = json_load_file(path, JSON_REJECT_DUPLICATES, &e);
    if (!j) return fail(ERR_FORMAT, "%s:%d: %s", path, e.line, e.text);
    int bad = json_unpack_ex(
        j, &e, 0, "{s:I, s:I, s:I, s:I, s:I, s:F, s:s, s:s, s:s, s:s, s:s, s:I, s?{s:F, s:F, s:I, s:I, s:I}}",
        "step", &step, "position", &position, "tokens_seen", &tokens, "bytes_seen", &bytes, "metrics_offset",
        &offset, "seconds", &r->seconds, "identity", &from[0], "data", &from[1], "run", &from[2], "code",
        &from[3], "isa", &from[4], "threads", &threads, "guard", "mean", &r->guard.mean, "variance",
        &r->guard.variance, "seen", &seen, "trouble", &trouble, "interventions", &interventions);
    status s = OK;
    if (bad || step < 0 || position < 0 || tokens < 0 || bytes < 0 || offset < 0)
        s = fail(ERR_FORMAT, "%s: %s", path, bad ? e.text : "a count is negative");
    if (!s) {
        r->step = step, r->position = position, r->tokens_seen = tokens, r->bytes_seen = bytes;
        r->metrics_offset = offset, r->threads = threads;
        r->guard.seen = seen, r->guard.trouble = trouble, r->guard.interventions = interventions;
        for (int k = 0; k < COUNT(to); k++) snprintf(to[k], room[k], "%s", from[k]);
    }
    json_decref(j);
    return s;
}

status load_session(session *s, const char *folder, bool optimizer, run_state *state)
{
    char path[4096];
    st_file *f;
    snprintf(path, sizeof path, "%s/state.json", folder);
    TRY(read_state(path, state));
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    TRY(load_weights(s->store, path));
    if (!optimizer) return OK;
    snprintf(path, sizeof path, "%s/optimizer.safetensors", folder);
    TRY(st_open(path, &f));
    status failed = read_moments(s, f, path);
    st_close(f);
    return failed;
}

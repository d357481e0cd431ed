/* The memory of a model: see store.h. Parameters lie in declaration order, each padded to 64 bytes of f32, so
 * that weights declared side by side (q, k, v; gate, up) are adjacent and one GEMM can read them as one. */
#include "graph/store.h"
#include "base/random.h"
#include "ops/op.h"
#include <string.h>

enum { PAD = 16 };

static void describe(arena *a, store *s, const tensor *t, int what)
{
    stored *e = &s->entry[s->n++];
    *e = (stored){.path = t->path, .ndim = t->ndim, .count = count(t), .role = t->role, .dtype = t->dtype};
    e->param = t->param;
    e->transient = t->transient;
    memcpy(e->dim, t->dim, sizeof e->dim);
    if (t->role == ROLE_CONST) {
        e->data = (void *)t->fixed;
        return;
    }
    if (t->role == ROLE_STATE) {
        e->offset = s->bytes_states;
        s->bytes_states += round_up(e->count * dtype_bytes(e->dtype), 64);
        return;
    }
    e->offset = s->elements;
    i64 padded = round_up(e->count, PAD);
    s->elements += padded;
    s->trained += e->count;
    s->n_params++;
    s->bytes_params += padded * 4;
    e->rows = what & STORE_GRADIENTS && t->grad_ids ? arena_new(a, row_list) : NULL;
    s->bytes_grads += what & STORE_GRADIENTS && !e->rows ? padded * 4 : 0;
    s->bytes_moments += what & STORE_MOMENTS ? padded * 8 : 0;
}

void store_plan(arena *a, const graph *g, int what, store **out)
{
    store *s = arena_new(a, store);
    s->entry = arena_array(a, stored, g->n_tensors + 1);
    for (i64 i = 0; i < g->n_tensors; i++)
        if (g->tensors[i]->role == ROLE_PARAM) describe(a, s, g->tensors[i], what);
    for (i64 i = 0; i < g->n_tensors; i++)
        if (g->tensors[i]->role == ROLE_STATE) describe(a, s, g->tensors[i], what);
    for (i64 i = 0; i < g->n_tensors; i++)
        if (g->tensors[i]->role == ROLE_CONST) describe(a, s, g->tensors[i], what);
    for (i64 i = 0; i < s->n_params; i++)
        if (s->entry[i].dtype == DT_BF16) s->bytes_copy += round_up(s->entry[i].count, PAD) * 2;
    s->bytes_params += s->bytes_copy;
    *out = s;
}

static status take(i64 bytes, const char *what, void *out_pointer)
{
    void *p = NULL;
    if (bytes) TRY(region_open((size_t)bytes, what, &p));
    memcpy(out_pointer, &p, sizeof p);
    return OK;
}

static status take_all(store *s)
{
    i64 region = s->elements * 4;
    TRY(take(region, "parameters", &s->master));
    // The copy's region has a place for every parameter too; what is read as f32 never touches its own.
    if (s->bytes_copy) TRY(take(s->elements * 2, "bf16 copy of the parameters", &s->copy));
    if (s->bytes_grads) TRY(take(region, "gradients", &s->grad));
    for (int k = 0; k < 2 && s->bytes_moments; k++) TRY(take(region, "optimizer state", &s->moment[k]));
    return take(s->bytes_states, "states", &s->states);
}

status store_open(arena *a, const graph *g, int what, store **out)
{
    store *s;
    store_plan(a, g, what, &s);
    status failed = take_all(s);
    if (failed) {
        store_close(s);
        return failed;
    }
    for (i64 i = 0; i < s->n; i++) {
        stored *e = &s->entry[i];
        if (e->role == ROLE_CONST) continue;
        if (e->role == ROLE_STATE) {
            e->data = s->states + e->offset;
            continue;
        }
        e->master = s->master + e->offset;
        e->data = e->dtype == DT_BF16 ? (void *)(s->copy + e->offset) : (void *)e->master;
        // The region has a place for every parameter; that of a list of rows is never touched, so takes no
        // page.
        e->grad = s->grad && !e->rows ? s->grad + e->offset : NULL;
        for (int k = 0; k < 2; k++) e->moment[k] = s->moment[k] ? s->moment[k] + e->offset : NULL;
        for (int k = 0; k < 2 && e->rows; k++)
            if (e->moment[k]) region_sparse(e->moment[k], (size_t)e->count * sizeof(float));
    }
    *out = s;
    return OK;
}

void store_close(store *s)
{
    if (!s) return;
    size_t region = (size_t)s->elements * 4;
    region_close(s->master, region);
    region_close(s->copy, region / 2);
    region_close(s->grad, region);
    for (int k = 0; k < 2; k++) region_close(s->moment[k], region);
    region_close(s->states, (size_t)s->bytes_states);
    s->n = s->n_params = 0;
}

stored *store_find(const store *s, const char *path)
{
    for (i64 i = 0; i < s->n; i++)
        if (!strcmp(s->entry[i].path, path)) return &s->entry[i];
    return NULL;
}

double store_start(const stored *e, i64 i)
{
    const param_info *p = &e->param;
    i64 width = e->ndim ? e->dim[e->ndim - 1] : 1;
    return p->eye > 0 ? i / width % p->eye == (i % width + p->eye_shift) % p->eye : p->constant;
}

static void initialize(const stored *e, u64 seed)
{
    u64 stream = random_stream(e->path);
    const param_info *p = &e->param;
#pragma omp parallel for schedule(static)
    for (i64 i = 0; i < e->count; i++) {
        double x = store_start(e, i);
        if (p->std > 0)
            x = p->std * (p->truncate > 0 ? random_truncated_normal(seed, stream, 0, (u64)i, p->truncate)
                                          : random_normal(seed, stream, 0, (u64)i));
        else if (p->high > p->low)
            x = p->low + (p->high - p->low) * random_uniform(seed, stream, 0, (u64)i);
        e->master[i] = (float)x;
    }
}

void store_initialize(store *s, u64 seed)
{
    for (i64 i = 0; i < s->n_params; i++) initialize(&s->entry[i], seed);
#pragma omp parallel for schedule(dynamic)
    for (i64 i = 0; i < s->n_params; i++) {
        const stored *e = &s->entry[i];
        i64 n = e->ndim > 1 ? e->dim[e->ndim - 1] : 1, rows = e->ndim > 1 ? e->dim[e->ndim - 2] : 1;
        for (i64 at = 0; e->param.orthogonal > 0 && at < e->count; at += rows * n)
            orthogonalize(e->master + at, rows, n, e->param.orthogonal);
    }
    store_sync(s);
}

void store_clear_moments(store *s)
{
    for (i64 i = 0; i < s->n_params; i++)
        for (int k = 0; k < 2; k++) {
            stored *e = &s->entry[i];
            if (e->moment[k] && e->rows)
                region_clear(e->moment[k], (size_t)e->count * sizeof(float));
            else if (e->moment[k])
                memset(e->moment[k], 0, (size_t)e->count * sizeof(float));
        }
}

void store_load_moment(stored *e, int k, const void *values)
{
    enum { BLOCK = 4096 };
    size_t bytes = (size_t)e->count * sizeof(float);
    if (!e->rows) {
        memcpy(e->moment[k], values, bytes);
        return;
    }
    static const char zero[BLOCK];
    region_clear(e->moment[k], bytes);
    for (size_t at = 0; at < bytes; at += BLOCK) {
        size_t n = MIN(BLOCK, bytes - at);
        if (memcmp((const char *)values + at, zero, n) != 0)
            memcpy((char *)e->moment[k] + at, (const char *)values + at, n);
    }
}

void store_sync(store *s)
{
    for (i64 i = 0; i < s->n_params; i++) {
        stored *e = &s->entry[i];
        if (e->dtype != DT_BF16) continue;
        const float *from = e->master;
        bf16 *to = e->data;
#pragma omp parallel for schedule(static)
        for (i64 k = 0; k < (e->count + 4095) / 4096; k++)
            narrow(to + k * 4096, from + k * 4096, MIN(4096, e->count - k * 4096));
    }
}

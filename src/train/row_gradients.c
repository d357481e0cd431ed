/* Gradients that stay rows, over a step: see row_gradients.h. For each parameter a program of one node:
 *
 *   ids, values [most + micro]   the list so far, then one micro-batch's look-ups, then ids of -1
 *   rows_merge                   -> unique, sums, count: the next list
 */
#include "train/row_gradients.h"
#include <assert.h>
#include <string.h>

typedef struct row_table {
    const tensor *param;
    i64 micro, most; // look-ups of a micro-batch; rows of the list it is merged with
    graph *g;
    tensor *ids, *values, *unique, *sums, *found;
    program *merge;
    row_list *list; // the store's
} row_table;

struct row_gradients {
    arena *arena;
    row_table *table;
    i64 n;
};

static status build(arena *a, row_table *t, i64 micro_batches)
{
    i64 before, all, width = cols(t->param);
    t->micro = count(t->param->grad_ids);
    for (int i = 0; i < t->param->n_more; i++)
        TRY(add_i64(t->micro, count(t->param->more_ids[i]), &t->micro));
    TRY(mul_i64(t->micro, micro_batches - 1, &before));
    t->most = MIN(before, rows_of(t->param));
    TRY(add_i64(t->most, t->micro, &all));
    t->g = graph_new(a, &(graph_options){.act = DT_F32, .stream = DT_F32});
    t->ids = g_input(t->g, "ids", DT_I32, 1, &all);
    t->values = g_input(t->g, "values", DT_F32, 2, (i64[]){all, width});
    node *n = g_node(t->g, OP_rows_merge, IN(t->ids, t->values), NO_ATTRS);
    TRY(wrap(graph_status(t->g), "gradient of %s", t->param->path));
    t->unique = g_out(n, 0), t->sums = g_out(n, 1), t->found = g_out(n, 2);
    t->unique->keep = t->sums->keep = t->found->keep = true;
    return graph_verify(t->g);
}

status row_gradients_plan(arena *a, const graph *g, store *s, i64 micro_batches,
                          const program_options *options, row_gradients **out, i64 *bytes)
{
    row_gradients *r = arena_new(a, row_gradients);
    *r = (row_gradients){.arena = a, .table = arena_array(a, row_table, s->n_params + 1)};
    *bytes = 0;
    for (i64 i = 0; i < g->n_tensors; i++) {
        program_sizes sizes;
        if (g->tensors[i]->role != ROLE_PARAM || !g->tensors[i]->grad_ids) continue;
        row_table *t = &r->table[r->n++];
        *t = (row_table){.param = g->tensors[i]};
        TRY(build(a, t, micro_batches));
        TRY(program_measure(t->g, NULL, options, &sizes));
        *bytes += sizes.activations + sizes.inputs + sizes.scratch;
    }
    *out = r;
    return OK;
}

status row_gradients_open(row_gradients *r, store *s, const program_options *options)
{
    for (i64 i = 0; i < r->n; i++) {
        row_table *t = &r->table[i];
        TRY(program_open(t->g, NULL, options, &t->merge));
        t->list = store_find(s, t->param->path)->rows;
        *t->list =
            (row_list){.ids = program_data(t->merge, t->unique), .values = program_data(t->merge, t->sums)};
    }
    return OK;
}

void row_gradients_close(row_gradients *r)
{
    for (i64 i = 0; r && i < r->n; i++) program_close(r->table[i].merge);
}

void row_gradients_clear(row_gradients *r)
{
    for (i64 i = 0; i < r->n; i++) r->table[i].list->count = 0;
}

/* The first N look-ups of one place in the micro-batch, behind the list of KEPT rows. An id outside the table
 * has read zeros and gets nothing: -1. */
static void copy_look_ups(const row_table *t, view ids, view rows, i64 kept, i64 n)
{
    i64 width = cols(t->param), words = rows_of(t->param);
    i32 *to_ids = (i32 *)program_data(t->merge, t->ids) + kept;
    float *to = (float *)program_data(t->merge, t->values) + kept * width;
    i64 beside = rows.n / width; // look-ups whose rows lie in one row of the gradient
#pragma omp parallel for schedule(static)
    for (i64 k = 0; k < n; k++) {
        i64 at = k / beside * rows.stride + k % beside * width;
        i32 id = ((const i32 *)ids.p)[k / ids.n * ids.stride + k % ids.n];
        to_ids[k] = id >= 0 && id < words ? id : -1;
        if (rows.dtype == DT_BF16)
            widen(to + k * width, (const bf16 *)rows.p + at, width);
        else
            memcpy(to + k * width, (const float *)rows.p + at, (size_t)width * sizeof *to);
    }
}

static void add(const row_table *t, const program *p, i64 rows, i64 micro_rows)
{
    i64 width = cols(t->param), kept = t->list->count, filled = 0;
    i32 *ids = program_data(t->merge, t->ids);
    assert(kept <= t->most && t->micro % micro_rows == 0);
    if (kept) {
        memcpy(ids, t->list->ids, (size_t)kept * sizeof *ids);
        memcpy(program_data(t->merge, t->values), t->list->values, (size_t)(kept * width) * sizeof(float));
    }
    for (int i = 0; i <= t->param->n_more; i++) {
        tensor *at = i ? t->param->more_ids[i - 1] : t->param->grad_ids;
        tensor *values = i ? t->param->more_rows[i - 1] : t->param->grad_rows;
        i64 here = count(at) / micro_rows * rows;
        copy_look_ups(t, program_view(p, at), program_view(p, values), kept + filled, here);
        filled += here;
    }
    for (i64 k = kept + filled; k < t->most + t->micro; k++) ids[k] = -1;
    program_run(t->merge, &(step_info){0}, PHASE_FORWARD);
    t->list->count = *(i32 *)program_data(t->merge, t->found);
}

void row_gradients_add(row_gradients *r, const program *p, i64 rows, i64 micro_rows)
{
    for (i64 i = 0; i < r->n; i++) add(&r->table[i], p, rows, micro_rows);
}

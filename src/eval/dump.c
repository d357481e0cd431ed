/* Logits, loss and gradients on given tokens: see dump.h. The graph is that of training; the double
 * interpreter runs it through the definitions, a program through the kernels. */
#include "eval/dump.h"
#include "base/text.h"
#include "format/safetensors.h"
#include "graph/interpret.h"
#include "graph/program.h"
#include "model/model.h"
#include "train/save.h"
#include "train/session.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct dumper {
    arena *arena;
    const token_rows *rows;
    const dump_options *o;
    model m;
    store *store; // weights; for a program gradients too
    program *program;
    oracle *oracle;
    dump_result result;
} dumper;

static i64 targets_of(const token_rows *t) { return t->rows * (t->tokens - 1); }

static status build(dumper *d, config *c)
{
    bool bf16 = d->o->act == DT_BF16, exact = !d->o->device;
    model_shape shape = {.rows = d->rows->rows,
                         .tokens = d->rows->tokens,
                         .mode = MODE_TRAIN,
                         .act = exact ? DT_F32 : d->o->act,
                         .stream = bf16 && !exact && config_is(c, "train.stream", "bf16") ? DT_BF16 : DT_F32,
                         .logits = true,
                         .dense_gradients = true};
    i64 rewrites;
    if (config_number(c, "model.dropout") > 0) TRY(config_set(c, "model.dropout", "0", "dump"));
    TRY(model_build(d->arena, c, &shape, &d->m));
    TRY(graph_backward(d->m.g, NULL, NULL, 0));
    if (!exact) TRY(graph_rewrite(d->m.g, &rewrites));
    return graph_verify(d->m.g);
}

/* ---- memory */

static double oracle_bytes(const graph *g)
{
    double sum = 0, most = 0; // of all tensors; of the one that is being added up
    for (i64 i = 0; i < g->n_tensors; i++) {
        double bytes = 8.0 * (double)count(g->tensors[i]);
        sum += bytes;
        if (g->tensors[i]->role == ROLE_TALLY) most = fmax(most, bytes);
    }
    return sum + most;
}

static status plan(dumper *d)
{
    store *s;
    program_sizes sizes;
    program_options po = {.device = d->o->device, .isa = d->o->isa};
    char size[32], line[128];
    double have = d->o->memory ? (double)d->o->memory : session_memory_there();
    store_plan(d->arena, d->m.g, po.device ? STORE_GRADIENTS : 0, &s);
    double need = (double)(s->bytes_params + s->bytes_grads + s->bytes_states);
    if (po.device) {
        TRY(program_measure(d->m.g, s, &po, &sizes));
        need += (double)(sizes.activations + sizes.inputs + sizes.scratch);
    } else
        need += oracle_bytes(d->m.g);
    if (need > have)
        return fail(ERR_MEMORY,
                    "%lld sequences of %lld tokens need %.2f GiB%s, this machine has %.2f; give fewer or "
                    "shorter sequences%s",
                    (long long)d->rows->rows, (long long)d->rows->tokens, need / (1 << 30),
                    po.device ? "" : " in double", have / (1 << 30), po.device ? "" : ", or --precision=f32");
    d->result.bytes = (i64)need;
    snprintf(line, sizeof line, "dump: %lld sequences of %lld tokens, %s", (long long)d->rows->rows,
             (long long)d->rows->tokens, show_bytes(need, size));
    if (d->o->talk) d->o->talk(d->o->context, line);
    return OK;
}

/* ---- running */

typedef struct row_inputs {
    i32 token, target, start, position;
} row_inputs;

static row_inputs input_at(const token_rows *t, i64 i)
{
    bool last = i % t->tokens == t->tokens - 1;
    return (row_inputs){t->id[i], last ? -1 : t->id[i + 1], 0, (i32)(i % t->tokens)};
}

static status run_oracle(dumper *d)
{
    const model *m = &d->m;
    TRY(oracle_open(m->g, &d->oracle));
    for (i64 i = 0; i < m->g->n_tensors; i++) {
        const tensor *t = m->g->tensors[i];
        if (t->role != ROLE_PARAM && (t->role != ROLE_STATE || t->dtype != DT_F32)) continue;
        const stored *e = store_find(d->store, t->path);
        const float *from = t->role == ROLE_PARAM ? e->master : e->data;
        for (i64 k = 0; k < e->count; k++) oracle_data(d->oracle, t)[k] = from[k];
    }
    for (i64 i = 0; i < d->rows->rows * d->rows->tokens; i++) {
        row_inputs x = input_at(d->rows, i);
        oracle_data(d->oracle, m->tokens)[i] = x.token;
        oracle_data(d->oracle, m->targets)[i] = x.target;
        oracle_data(d->oracle, m->doc_start)[i] = x.start;
        oracle_data(d->oracle, m->position)[i] = x.position;
    }
    *oracle_data(d->oracle, m->inverse_count) = 1 / (double)targets_of(d->rows);
    return oracle_run(d->oracle, &(step_info){0}, true);
}

static status run_program(dumper *d)
{
    const model *m = &d->m;
    TRY(program_open(m->g, d->store, &(program_options){.device = d->o->device, .isa = d->o->isa},
                     &d->program));
    i32 *tokens = program_data(d->program, m->tokens), *targets = program_data(d->program, m->targets),
        *start = program_data(d->program, m->doc_start), *position = program_data(d->program, m->position);
    for (i64 i = 0; i < d->rows->rows * d->rows->tokens; i++) {
        row_inputs x = input_at(d->rows, i);
        tokens[i] = x.token, targets[i] = x.target, start[i] = x.start, position[i] = x.position;
    }
    *(float *)program_data(d->program, m->inverse_count) = (float)(1 / (double)targets_of(d->rows));
    program_zero_tallies(d->program);
    program_run(d->program, &(step_info){0}, PHASE_BACKWARD);
    return OK;
}

/* ---- reading back */

static double number_at(const view *v, i64 row, i64 column)
{
    i64 at = row * v->stride + column;
    return v->dtype == DT_BF16  ? bf16_to_f32(((const bf16 *)v->p)[at])
           : v->dtype == DT_I32 ? ((const i32 *)v->p)[at]
                                : ((const float *)v->p)[at];
}

/* T dense in double, into OUT [count(t)]. */
static void read_values(const dumper *d, const tensor *t, double *out)
{
    if (d->oracle) {
        memcpy(out, oracle_data(d->oracle, t), sizeof(double) * (size_t)count(t));
        return;
    }
    view v = program_view(d->program, t);
    for (i64 r = 0; r < v.rows; r++)
        for (i64 j = 0; j < v.n; j++) *out++ = number_at(&v, r, j);
}

/* A look-up table's gradient that autodiff left as rows: they are added up here. */
static status gather_look_up(const dumper *d, const tensor *param, const tensor *grad_ids,
                             const tensor *grad_rows, double *out)
{
    i64 k = count(grad_ids), n = cols(param);
    double *ids, *rows;
    TRY(mem_alloc(sizeof(double) * (size_t)(k + k * n), "rows of a gradient", &ids));
    rows = ids + k;
    read_values(d, grad_ids, ids);
    read_values(d, grad_rows, rows);
    for (i64 i = 0; i < k; i++)
        for (i64 j = 0; j < n; j++) out[(i64)ids[i] * n + j] += rows[i * n + j];
    mem_free(ids);
    return OK;
}

static status gather_rows(const dumper *d, const tensor *param, double *out)
{
    TRY(gather_look_up(d, param, param->grad_ids, param->grad_rows, out));
    for (int i = 0; i < param->n_more; i++)
        TRY(gather_look_up(d, param, param->more_ids[i], param->more_rows[i], out));
    return OK;
}

static status write_numbers(const dumper *d, st_writer **w, double *x, i64 n)
{
    if (!d->oracle) // in place: the i-th float lies below the i-th double
        for (i64 i = 0; i < n; i++) {
            float f = (float)x[i];
            memcpy((char *)x + i * (i64)sizeof f, &f, sizeof f);
        }
    status s = st_write(*w, x, (size_t)n * (d->oracle ? sizeof(double) : sizeof(float)));
    if (s) *w = NULL; // a failed call gave it up
    return s;
}

static status write_tensor(const dumper *d, st_writer **w, const tensor *shape, const tensor *values)
{
    double *x;
    TRY(mem_alloc(sizeof(double) * (size_t)MAX(count(shape), 1), "dump", &x));
    status s = OK;
    if (values)
        read_values(d, values, x);
    else if (shape->grad_ids)
        s = gather_rows(d, shape, x); // else: nothing reaches it, zeros
    if (!s) s = write_numbers(d, w, x, count(shape));
    mem_free(x);
    return s;
}

static status read_scalars(dumper *d)
{
    i64 n = count(d->m.loss);
    double *x, sum = 0;
    TRY(mem_alloc(sizeof(double) * (size_t)n, "loss", &x));
    read_values(d, d->m.loss, x);
    for (i64 i = 0; i < n; i++) sum += x[i];
    read_values(d, d->m.objective, x);
    d->result.loss = sum / (double)targets_of(d->rows);
    d->result.objective = x[0];
    mem_free(x);
    if (isfinite(d->result.objective)) return OK;
    return fail(ERR_NUMERIC, "the loss is not finite (%g); the weights have diverged", d->result.objective);
}

static st_entry entry(const dumper *d, const char *name, const tensor *t)
{
    st_entry e = {.name = name, .dtype = d->o->device ? ST_F32 : ST_F64, .n_dims = t ? t->ndim : 0};
    for (int k = 0; k < e.n_dims; k++) e.dims[k] = t->dim[k];
    return e;
}

/* Opens OUT before anything is computed: a path that cannot be written is known at once. */
static status create_file(dumper *d, st_writer **w)
{
    const graph *g = d->m.g;
    const char *precision = d->o->device ? dtype_name(d->o->act) : "f64";
    st_entry *e = arena_array(d->arena, st_entry, g->n_tensors + 3);
    i64 n = 0;
    e[n++] = entry(d, "logits", d->m.logits);
    e[n++] = entry(d, "loss", NULL);
    e[n++] = entry(d, "objective", NULL);
    for (i64 i = 0; i < g->n_tensors; i++)
        if (g->tensors[i]->role == ROLE_PARAM)
            e[n++] = entry(d, arena_printf(d->arena, "grad.%s", g->tensors[i]->path), g->tensors[i]);
    d->result.gradients = n - 3;
    return st_create(d->o->out, e, n, &(st_pair){"precision", precision}, 1, w);
}

static status compute(dumper *d, const char *weights)
{
    TRY(store_open(d->arena, d->m.g, d->o->device ? STORE_GRADIENTS : 0, &d->store));
    TRY(load_weights(d->store, weights));
    TRY(d->o->device ? run_program(d) : run_oracle(d));
    return read_scalars(d);
}

static status write_values(dumper *d, st_writer **w)
{
    const graph *g = d->m.g;
    TRY(write_tensor(d, w, d->m.logits, d->m.logits));
    TRY(write_numbers(d, w, (double[]){d->result.loss}, 1));
    TRY(write_numbers(d, w, (double[]){d->result.objective}, 1));
    for (i64 i = 0; i < g->n_tensors; i++)
        if (g->tensors[i]->role == ROLE_PARAM) TRY(write_tensor(d, w, g->tensors[i], g->tensors[i]->grad));
    return OK;
}

static status work(dumper *d, config *c, const char *weights)
{
    st_writer *w;
    TRY(build(d, c));
    TRY(plan(d));
    TRY(create_file(d, &w));
    status s = compute(d, weights);
    if (!s) s = write_values(d, &w);
    if (!s) return st_commit(w, NULL);
    st_abandon(w);
    return s;
}

status dump_write(config *c, const char *weights, const token_rows *rows, const dump_options *o,
                  dump_result *result)
{
    dumper d = {.rows = rows, .o = o};
    TRY(arena_open(&d.arena));
    status s = work(&d, c, weights);
    if (!s) *result = d.result;
    oracle_close(d.oracle);
    program_close(d.program);
    store_close(d.store);
    if (d.m.g) graph_close(d.m.g);
    arena_close(d.arena);
    return s;
}

/* What a run computes with: see session.h. */
#include "train/session.h"
#include "base/text.h"
#include "data/loader.h"
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

dtype session_dtype(const config *c, const device *d)
{
    bool bf16 = config_is(c, "train.precision", "bf16") ||
                (config_is(c, "train.precision", "auto") && device_about(d)->bf16);
    return bf16 ? DT_BF16 : DT_F32;
}

static void choose_precision(session *s)
{
    s->act = session_dtype(s->c, s->device);
    s->stream = s->act == DT_BF16 && config_is(s->c, "train.stream", "bf16") ? DT_BF16 : DT_F32;
}

/* Rows of one run: what the configuration says, or the largest divisor of the step's rows of at most 8 Ki
 * tokens (more gains no speed: GEMMs of 2,048 tokens already run at peak). */
static status choose_batch(session *s)
{
    enum { MOST_TOKENS = 8192 };
    i64 tokens = config_count(s->c, "train.batch_tokens"), micro = config_count(s->c, "train.micro_batch");
    s->context = config_count(s->c, "model.context");
    if (tokens % s->context)
        return config_refuse(s->c, "train.batch_tokens",
                             "is %lld; it must be a multiple of model.context (%lld)", (long long)tokens,
                             (long long)s->context);
    s->batch_rows = tokens / s->context;
    if (micro > 0 && s->batch_rows % micro)
        return config_refuse(s->c, "train.micro_batch",
                             "is %lld; it must divide the %lld sequences of a step", (long long)micro,
                             (long long)s->batch_rows);
    for (i64 r = 1; micro < 0 && r <= s->batch_rows; r++)
        if (s->batch_rows % r == 0 && (r == 1 || r * s->context <= MOST_TOKENS)) s->micro_rows = r;
    if (micro > 0) s->micro_rows = micro;
    return OK;
}

static status build_train(session *s)
{
    static const recompute_policy policies[] = {RECOMPUTE_NONE, RECOMPUTE_CHEAP, RECOMPUTE_BLOCK};
    recompute_policy policy = policies[config_choice(s->c, "train.recompute")];
    model_shape shape = {.rows = s->micro_rows,
                         .tokens = s->context,
                         .mode = MODE_TRAIN,
                         .act = s->act,
                         .stream = s->stream,
                         .dense_gradients = s->options.dense_gradients};
    i64 every = policy == RECOMPUTE_BLOCK ? config_count(s->c, "train.recompute_every") : 1;
    TRY(model_build(s->arena, s->c, &shape, &s->train));
    TRY(graph_backward(s->train.g, NULL, NULL, 0));
    TRY(graph_recompute(s->train.g, policy, (int)every));
    if (!s->options.no_fuse) TRY(graph_rewrite(s->train.g, &s->rewrites));
    return graph_verify(s->train.g);
}

static status build_evaluate(session *s)
{
    model_shape shape = {.rows = s->micro_rows,
                         .tokens = s->context,
                         .mode = MODE_EVALUATE,
                         .act = s->act,
                         .stream = s->stream};
    i64 rewrites;
    TRY(model_build(s->arena, s->c, &shape, &s->evaluate));
    if (!s->options.no_fuse) TRY(graph_rewrite(s->evaluate.g, &rewrites));
    return graph_verify(s->evaluate.g);
}

static status build(session *s)
{
    model *m = s->options.no_update ? &s->evaluate : &s->train;
    choose_precision(s);
    TRY(choose_batch(s));
    if (!s->options.no_update) TRY(build_train(s));
    TRY(build_evaluate(s));
    TRY(optimizer_from(s->c, &s->optimizer));
    model_about(m, s->c, s->context, &s->figures);
    return OK;
}

/* A row that waits unlisted does not decay, and decaying it for each wait at once is another method. */
static status check_rows(const session *s, const store *plan)
{
    for (i64 i = 0; i < plan->n_params; i++) {
        const stored *e = &plan->entry[i];
        if (e->rows && s->optimizer.lazy_rows && s->optimizer.decays[e->param.kind] &&
            s->optimizer.weight_decay > 0)
            return config_refuse(
                s->c, "train.optimizer.decay",
                "names embedding, but train.optimizer.rows is lazy, which does not decay %s; set "
                "train.optimizer.rows: dense, or leave embedding out",
                e->path);
    }
    return OK;
}

static i64 bytes_of_tables(const store *plan, int what)
{
    i64 bytes = 0;
    for (i64 i = 0; i < plan->n_params; i++) {
        const stored *e = &plan->entry[i];
        if (e->rows || (!what && e->param.rows))
            bytes += e->count * (4 + (e->dtype == DT_BF16 ? 2 : 0) + (what & STORE_MOMENTS ? 8 : 0));
    }
    return bytes;
}

/* The key that sizes the largest of them; NULL: the vocabulary does. */
static const char *key_of_tables(const store *plan)
{
    const stored *most = NULL;
    for (i64 i = 0; i < plan->n_params; i++)
        if (plan->entry[i].param.rows && (!most || plan->entry[i].count > most->count))
            most = &plan->entry[i];
    return most ? most->param.size_key : NULL;
}

static i64 sum_sizes(const program_sizes *p) { return p->activations + p->inputs + p->scratch; }

static status measure(session *s, int what)
{
    store *plan;
    program_sizes train = {0}, evaluate = {0};
    program_options o = {.device = s->device, .isa = s->options.isa};
    const graph *g = s->options.no_update ? s->evaluate.g : s->train.g;
    store_plan(s->arena, g, what, &plan);
    if (!s->options.no_update) TRY(program_measure(s->train.g, plan, &o, &train));
    TRY(program_measure(s->evaluate.g, plan, &o, &evaluate));
    TRY(check_rows(s, plan));
    i64 row_bytes = 0;
    if (!s->options.no_update)
        TRY(row_gradients_plan(s->arena, g, plan, s->batch_rows / s->micro_rows, &o, &s->rows, &row_bytes));
    s->memory = (session_memory){.parameters = plan->bytes_params,
                                 .gradients = plan->bytes_grads + row_bytes,
                                 .row_gradients = row_bytes,
                                 .optimizer = plan->bytes_moments,
                                 .activations = sum_sizes(&train),
                                 .evaluation = sum_sizes(&evaluate),
                                 .tables = bytes_of_tables(plan, what),
                                 .tables_key = key_of_tables(plan),
                                 .activations_lower_bound = train.activations_lower_bound};
    i64 rows = s->options.no_update ? 0 : s->batch_rows;
    s->memory.batches = (rows + s->micro_rows) * s->context * (i64)sizeof(i32) * LOADER_ARRAYS;
    s->memory.total = s->memory.parameters + s->memory.gradients + s->memory.optimizer +
                      s->memory.activations + s->memory.evaluation + s->memory.batches;
    return OK;
}

double session_memory_there(void)
{
    double have = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    double limit = cgroup_memory(NULL);
    if (limit > 0) have = fmin(have, limit);
    return have;
}

status session_fits(const session *s)
{
    double have = session_memory_there();
    char need[32], there[32], tables[32];
    if ((double)s->memory.total <= have) return OK;
    const char *key = s->memory.tables_key;
    if (s->memory.tables > s->memory.total / 2 && key)
        return config_refuse(
            s->c, key,
            "is %s: its tables and their moments take %s of memory, the run %s, and this machine "
            "has %s; lower it",
            config_text(s->c, key), show_bytes((double)s->memory.tables, tables),
            show_bytes((double)s->memory.total, need), show_bytes(have, there));
    return fail(ERR_MEMORY,
                "the run needs %s of memory, this machine has %s; lower model.width, model.layers or "
                "train.micro_batch, or set train.recompute=block ('keel plan memory' shows the parts)",
                show_bytes((double)s->memory.total, need), show_bytes(have, there));
}

static status open_programs(session *s, int what)
{
    program_options o = {.device = s->device, .isa = s->options.isa};
    TRY(store_open(s->arena, s->options.no_update ? s->evaluate.g : s->train.g, what, &s->store));
    if (!s->options.no_update) TRY(program_open(s->train.g, s->store, &o, &s->train_program));
    if (!s->options.no_update) TRY(row_gradients_open(s->rows, s->store, &o));
    return program_open(s->evaluate.g, s->store, &o, &s->evaluate_program);
}

status session_open(config *c, device *d, const session_options *options, session **out)
{
    arena *a;
    int what = options->no_update ? 0 : STORE_GRADIENTS | STORE_MOMENTS;
    TRY(arena_open(&a));
    session *s = arena_new(a, session);
    *s = (session){.arena = a, .c = c, .device = d, .options = *options};
    status failed = build(s);
    if (!failed) failed = measure(s, what);
    if (!failed && !options->plan_only) failed = session_fits(s);
    if (!failed && !options->plan_only) failed = open_programs(s, what);
    if (failed)
        session_close(s);
    else
        *out = s;
    return failed;
}

void session_close(session *s)
{
    if (!s) return;
    program_close(s->train_program);
    program_close(s->evaluate_program);
    row_gradients_close(s->rows);
    store_close(s->store);
    graph_close(s->train.g);
    graph_close(s->evaluate.g);
    arena_close(s->arena);
}

void session_start(session *s)
{
    store_initialize(s->store, (u64)config_count(s->c, "train.seed.init"));
    for (i64 i = 0; i < s->store->n_params; i++) {
        const stored *e = &s->store->entry[i];
        if (e->grad) memset(e->grad, 0, (size_t)e->count * sizeof(float));
    }
    if (s->rows) row_gradients_clear(s->rows);
    store_clear_moments(s->store);
    if (s->store->states) memset(s->store->states, 0, (size_t)s->store->bytes_states);
}

/* ---- a step */

static void write_inputs(const session *s, const model *m, const program *p, const step_batch *b, i64 first,
                         i64 rows)
{
    size_t bytes = (size_t)(rows * s->context) * sizeof(i32),
           all = (size_t)(s->micro_rows * s->context) * sizeof(i32);
    const i32 *from[] = {b->tokens, b->targets, b->doc_start, b->position};
    tensor *const to[] = {m->tokens, m->targets, m->doc_start, m->position};
    for (int k = 0; k < 4; k++) {
        char *data = program_data(p, to[k]);
        memcpy(data, from[k] + first * s->context, bytes);
        memset(data + bytes, k == 1 ? 0xFF : 0, all - bytes); // rows that are not there: targets -1
    }
    *(float *)program_data(p, m->inverse_count) = b->n_valid ? (float)(1 / (double)b->n_valid) : 0;
}

static double sum_of_losses(const session *s, const model *m, const program *p)
{
    const float *loss = program_data(p, m->loss);
    double sum = 0;
    for (i64 i = 0; i < s->micro_rows * s->context; i++) sum += loss[i];
    return sum;
}

static step_info info_of(const session *s, i64 step, i64 first_row)
{
    return (step_info){(u64)config_count(s->c, "train.seed.init"), (u64)step, first_row * s->context};
}

void session_forward_backward(session *s, const step_batch *b, i64 step, double *nats)
{
    *nats = 0;
    row_gradients_clear(s->rows);
    program_zero_tallies(s->train_program);
    for (i64 first = 0; first < b->rows; first += s->micro_rows) {
        step_info info = info_of(s, step, first);
        write_inputs(s, &s->train, s->train_program, b, first, MIN(s->micro_rows, b->rows - first));
        program_run(s->train_program, &info, PHASE_BACKWARD);
        row_gradients_add(s->rows, s->train_program, MIN(s->micro_rows, b->rows - first), s->micro_rows);
        *nats += sum_of_losses(s, &s->train, s->train_program);
    }
}

void session_update(session *s, i64 step, double lr, double peak, double *norm)
{
    step_info info = info_of(s, step, 0);
    *norm = gradient_norm(s->store);
    if (!isfinite(*norm)) return;
    optimizer_step(&s->optimizer, s->store, step, lr, peak,
                   clip_factor(*norm, config_number(s->c, "train.clip")));
    program_commit(s->train_program, &info);
}

void session_drop(session *s)
{
    for (i64 i = 0; i < s->store->n_params; i++) {
        const stored *e = &s->store->entry[i];
        if (e->grad) memset(e->grad, 0, (size_t)e->count * sizeof(float));
    }
    row_gradients_clear(s->rows);
}

double session_evaluate(session *s, const step_batch *b)
{
    double nats = 0;
    for (i64 first = 0; first < b->rows; first += s->micro_rows) {
        step_info info = info_of(s, 0, first);
        write_inputs(s, &s->evaluate, s->evaluate_program, b, first, MIN(s->micro_rows, b->rows - first));
        program_run(s->evaluate_program, &info, PHASE_FORWARD);
        nats += sum_of_losses(s, &s->evaluate, s->evaluate_program);
        s->gauge_runs++;
        for (i64 k = 0; k < s->evaluate.n_gauges; k++)
            s->gauge[k] += *(const float *)program_data(s->evaluate_program, s->evaluate.gauge[k].value);
    }
    return nats;
}

void session_gauges_clear(session *s)
{
    memset(s->gauge, 0, sizeof s->gauge);
    s->gauge_runs = 0;
}

i64 session_gauges(const session *s, const char **name, double *value)
{
    i64 n = 0, of[MOST_GAUGES] = {0};
    for (i64 k = 0; k < s->evaluate.n_gauges && s->gauge_runs; k++) {
        i64 i = 0;
        while (i < n && strcmp(name[i], s->evaluate.gauge[k].name) != 0) i++;
        if (i == n) name[n] = s->evaluate.gauge[k].name, value[n++] = 0;
        value[i] += s->gauge[k] / (double)s->gauge_runs;
        of[i]++;
    }
    for (i64 i = 0; i < n; i++) value[i] /= (double)of[i];
    return n;
}

status session_blame(session *s, const step_batch *b, i64 step)
{
    for (i64 first = 0; first < b->rows; first += s->micro_rows) {
        step_info info = info_of(s, step, first);
        write_inputs(s, &s->train, s->train_program, b, first, MIN(s->micro_rows, b->rows - first));
        TRY(wrap(program_find_nonfinite(s->train_program, &info), "micro-batch %lld",
                 (long long)(first / s->micro_rows)));
    }
    return fail(ERR_NUMERIC,
                "the gradient's norm is not finite although every value is: it overflows in f32");
}

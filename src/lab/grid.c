/* The grid of methods: see grid.h. */
#include "lab/grid.h"
#include "base/file.h"
#include "base/random.h"
#include "graph/interpret.h"
#include "infer/decoder.h"
#include "model/model.h"
#include "train/run.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONTEXT = 16, ROWS = 8, STEPS = 30, SAVED_AT = 20, VOCAB = 61, MOST_SETTINGS = 2 * MOST_WORDS };

/* The models of the grid: 2 layers of width 32. Documents of several lengths, so that what must not cross
 * their boundaries is seen if it does. */
static const char base[] =
    "model: {layers: 2, width: 32, context: 16, vocab: 61, attention: {heads: 4, kv_heads: 2}, ffn: {width: "
    "48}}\n"
    "train: {batch_tokens: 128, micro_batch: 4, precision: f32, steps: 30, optimizer: {lr: 3e-3}}\n";

bool grid_pair(const method_row *a, const method_row *b) { return strcmp(a->slot, b->slot) != 0; }

typedef struct trial {
    arena *arena;
    const grid_options *o;
    grid_cell *cell;
    config *c;
    i32 tokens[ROWS * CONTEXT], targets[ROWS * CONTEXT], start[ROWS * CONTEXT], position[ROWS * CONTEXT];
    i64 n_valid;
} trial;

static void fill_rows(trial *t)
{
    u64 stream = random_stream("grid");
    for (i64 i = 0; i < ROWS * CONTEXT; i++) {
        i64 row = i / CONTEXT, at = i % CONTEXT, cut = 2 * row % CONTEXT; // row 0 is one document
        t->start[i] = (i32)(at >= cut ? cut : 0);
        t->position[i] = (i32)at - t->start[i];
        // Something to learn: mostly a walk through the vocabulary, now and then a jump.
        bool jump = !at || random_bits(1, stream, 0, (u64)i) % 4 == 0;
        t->tokens[i] =
            (i32)(jump ? random_bits(1, stream, 1, (u64)i) % VOCAB : (u64)(t->tokens[i - 1] * 7 + 3) % VOCAB);
    }
    t->n_valid = 0;
    for (i64 i = 0; i < ROWS * CONTEXT; i++) {
        bool ends = i % CONTEXT == CONTEXT - 1 || t->start[i + 1] != t->start[i];
        t->targets[i] = ends ? -1 : t->tokens[i + 1];
        t->n_valid += !ends;
    }
}

/* A failure of the pair itself: noted, and the trial goes no further. */
static status failed(trial *t, const char *format, ...) PRINTF(2, 3);
static status failed(trial *t, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vsnprintf(t->cell->reason, sizeof t->cell->reason, format, list);
    va_end(list);
    t->cell->outcome = GRID_FAILED;
    return fail(ERR_CHECK, "%s", t->cell->reason);
}

/* ---- slopes */
typedef struct slopes {
    model m;
    oracle *o;
    double **direction; // by tensor id; NULL: stays
} slopes;

static status objective(slopes *s, double *out)
{
    TRY(oracle_run(s->o, &(step_info){.seed = 1}, false));
    *out = *oracle_data(s->o, s->m.objective);
    return OK;
}

static void move(slopes *s, double h)
{
    for (i64 i = 0; i < s->m.g->n_tensors; i++)
        for (i64 k = 0; s->direction[i] && k < count(s->m.g->tensors[i]); k++)
            oracle_data(s->o, s->m.g->tensors[i])[k] += h * s->direction[i][k];
}

/* The slope along the direction by differences of the objective, to fourth order, H apart. */
static status central(slopes *s, double h, double *out)
{
    static const double at[] = {1, -1, 2, -2}, weight[] = {8, -8, -1, 1};
    double sum = 0, value;
    for (int k = 0; k < 4; k++) {
        move(s, at[k] * h);
        TRY(objective(s, &value));
        move(s, -at[k] * h);
        sum += weight[k] * value;
    }
    *out = sum / (12 * h);
    return OK;
}

/* |difference - slope| relative to the larger of the slope and FLOOR, by the step that suits it best: a large
 * one hides rounding, a small one steps over neither kinks (relu, |x|) nor much curvature (small weights). */
static status slope_error(slopes *s, double *const *gradient, double floor, double *worst)
{
    static const double step[] = {1e-3, 5e-5, 2e-6, 2e-7};
    double slope = 0, norm = 0, error = INFINITY;
    for (i64 i = 0; i < s->m.g->n_tensors; i++)
        for (i64 k = 0; s->direction[i] && k < count(s->m.g->tensors[i]); k++) {
            slope += gradient[i][k] * s->direction[i][k];
            norm += s->direction[i][k] * s->direction[i][k];
        }
    for (i64 k = 0; k < COUNT(step) && !(error <= 1e-6); k++) {
        double found;
        TRY(central(s, step[k] / sqrt(norm), &found));
        found = fabs(found - slope) / fmax(fabs(slope), floor);
        error = found <= error || isnan(found) ? found : error;
    }
    if (!(error <= *worst)) *worst = error;
    return OK;
}

static double length(const double *x, i64 n)
{
    double sum = 0;
    for (i64 i = 0; i < n; i++) sum += x[i] * x[i];
    return sqrt(sum);
}

/* Two random directions of everything, then two coordinates of every parameter. */
static status walk_slopes(trial *t, slopes *s, double *const *gradient, double *worst)
{
    const graph *g = s->m.g;
    double **d = s->direction;
    for (u64 seed = 0; seed < 2; seed++) {
        for (i64 i = 0; i < g->n_tensors; i++) {
            if (!gradient[i]) continue;
            if (!d[i]) d[i] = arena_array(t->arena, double, count(g->tensors[i]));
            u64 stream = random_stream(g->tensors[i]->path);
            for (i64 k = 0; k < count(g->tensors[i]); k++) d[i][k] = random_normal(seed, stream, 2, (u64)k);
        }
        TRY(slope_error(s, gradient, 0.1, worst));
    }
    memset(d, 0, sizeof *d * (size_t)g->n_tensors);
    for (i64 i = 0; i < g->n_tensors; i++) {
        if (!gradient[i]) continue;
        i64 n = count(g->tensors[i]);
        double size = length(gradient[i], n) / sqrt((double)n);
        d[i] = arena_array(t->arena, double, n);
        for (u64 k = 0; k < 2; k++) {
            memset(d[i], 0, sizeof(double) * (size_t)n);
            d[i][random_bits(k, random_stream(g->tensors[i]->path), 3, 0) % (u64)n] = 1;
            TRY(slope_error(s, gradient, fmax(0.1 * size, 1e-4), worst));
        }
        d[i] = NULL;
    }
    return OK;
}

/* Weights as training starts from, and what starts from a constant away from it, so that every term counts.
 * Connections of streams less far: mixtures of nearly equal streams could vanish, and a norm of next to
 * nothing is too crooked for differences. */
static void set_weights(trial *t, slopes *s)
{
    store *w;
    store_plan(t->arena, s->m.g, 0, &w);
    for (i64 i = 0; i < w->n_params; i++) {
        const stored *e = &w->entry[i];
        double *x = oracle_data(s->o, g_find(s->m.g, e->path)), std = e->param.std;
        u64 stream = random_stream(e->path);
        double by = std > 0 ? std : strstr(e->path, ".residual.") ? 0.05 : 0.2;
        for (i64 k = 0; k < e->count; k++)
            x[k] = (std > 0 ? 0 : store_start(e, k)) + by * random_normal(5, stream, 1, (u64)k);
    }
}

static void set_inputs(const trial *t, slopes *s, i64 rows)
{
    const tensor *leaf[] = {s->m.tokens, s->m.targets, s->m.doc_start, s->m.position};
    const i32 *from[] = {t->tokens, t->targets, t->start, t->position};
    for (int i = 0; i < 4; i++)
        for (i64 k = 0; leaf[i] && k < rows * CONTEXT; k++) oracle_data(s->o, leaf[i])[k] = from[i][k];
    *oracle_data(s->o, s->m.inverse_count) = 1.0 / (double)t->n_valid;
}

static status check_slopes(trial *t)
{
    slopes s = {0};
    double worst = 0;
    model_shape shape = {.rows = 2, .tokens = CONTEXT, .mode = MODE_TRAIN, .dense_gradients = true};
    status e = model_build(t->arena, t->c, &shape, &s.m);
    if (e) return e;
    e = graph_backward(s.m.g, NULL, NULL, 0);
    if (!e) e = graph_verify(s.m.g);
    if (!e) e = oracle_open(s.m.g, &s.o);
    if (!e) {
        double **gradient = arena_array(t->arena, double *, s.m.g->n_tensors);
        s.direction = arena_array(t->arena, double *, s.m.g->n_tensors);
        set_weights(t, &s);
        set_inputs(t, &s, 2);
        e = oracle_run(s.o, &(step_info){.seed = 1}, true);
        for (i64 i = 0; !e && i < s.m.g->n_tensors; i++) {
            const tensor *p = s.m.g->tensors[i];
            if (p->role == ROLE_PARAM && p->grad)
                gradient[i] =
                    arena_copy(t->arena, oracle_data(s.o, p->grad), sizeof(double) * (size_t)count(p));
        }
        oracle_hold(s.o, true);
        if (!e) e = walk_slopes(t, &s, gradient, &worst);
    }
    oracle_close(s.o);
    t->cell->slope = worst;
    if (!e && !(worst <= 1e-5)) e = failed(t, "the gradient is off its slopes by %.2g", worst);
    return e;
}

/* ---- training, saving, resuming */
static status steps(trial *t, session *s, i64 from, i64 to, double *first, double *last)
{
    step_batch b = {t->tokens, t->targets, t->start, t->position, ROWS, t->n_valid};
    for (i64 k = from; k < to; k++) {
        double nats, norm;
        session_forward_backward(s, &b, k, &nats);
        session_update(s, k, 3e-3, 3e-3, &norm);
        if (!isfinite(nats) || !isfinite(norm)) return failed(t, "step %lld is not finite", (long long)k);
        if (k == 0) *first = nats / (double)t->n_valid;
        *last = nats / (double)t->n_valid;
    }
    return OK;
}

static status open_session(trial *t, session **out)
{
    return session_open(t->c, t->o->device, &(session_options){.isa = t->o->isa}, out);
}

static status save(trial *t, const session *s)
{
    checkpoint_store *store;
    run_state state = {.step = SAVED_AT};
    text given = {0};
    TRY(tree_remove(t->o->folder));
    TRY(checkpoint_open(t->o->folder, &(checkpoint_options){0}, &store));
    text_add(&given, "{}\n");
    status e = save_session(store, s, &state, &given, NULL, NULL, false);
    text_free(&given);
    status closed = checkpoint_close(store);
    if (!e) return closed;
    status_drop(closed);
    return e;
}

/* The first entry of A that differs from B's, by its bits. */
static const char *difference(const store *a, const store *b)
{
    for (i64 i = 0; i < a->n; i++) {
        const stored *x = &a->entry[i], *y = store_find(b, x->path);
        const void *p = x->role == ROLE_PARAM ? (void *)x->master : x->data;
        const void *q = y && x->role == ROLE_PARAM ? (void *)y->master : y ? y->data : NULL;
        if (!y ||
            memcmp(p, q, (size_t)x->count * (x->role == ROLE_PARAM ? 4 : (size_t)dtype_bytes(x->dtype))))
            return x->path;
    }
    return NULL;
}

static status resume(trial *t, const session *whole)
{
    session *s;
    char *path = NULL;
    i64 step;
    double first = 0, last;
    run_state state;
    TRY(open_session(t, &s));
    session_start(s);
    status e = checkpoint_latest(t->o->folder, NULL, NULL, &path, &step);
    if (!e) e = load_session(s, path, true, &state);
    if (!e) e = steps(t, s, SAVED_AT, STEPS, &first, &last);
    const char *off = e ? NULL : difference(whole->store, s->store);
    if (off) e = failed(t, "%s differs after saving and resuming", off);
    free(path);
    session_close(s);
    return e;
}

/* ---- decoding */
static status compare_logits(trial *t, decoder *d, const float *full)
{
    static const i64 pieces[] = {5, 1, 4, 1, 1, 1, 1, 1, 1};
    double worst = 0, largest = 0;
    for (i64 i = 0; i < CONTEXT * VOCAB; i++) largest = fmax(largest, fabs(full[i]));
    for (i64 at = 0, i = 0; at < CONTEXT; at += pieces[i++]) {
        const float *logits;
        TRY(decoder_feed(d, t->tokens + at, pieces[i], &logits));
        for (i64 k = 0; k < VOCAB; k++) {
            double off = fabs(logits[k] - full[(at + pieces[i] - 1) * VOCAB + k]) / largest;
            if (!(off <= worst)) worst = off;
        }
    }
    t->cell->decode = worst;
    return worst <= 1e-4 ? OK : failed(t, "decoded logits are off by %.2g of the largest", worst);
}

static status whole_logits(trial *t, const store *from, const float **out)
{
    model m;
    store *s;
    program *p;
    arena *a;
    model_shape shape = {
        .rows = 1, .tokens = CONTEXT, .mode = MODE_EVALUATE, .logits = true, .no_loss = true};
    TRY(arena_open(&a));
    float *kept = arena_array(t->arena, float, CONTEXT *VOCAB);
    status e = model_build(a, t->c, &shape, &m);
    if (!e) e = store_open(a, m.g, 0, &s);
    if (!e) {
        for (i64 i = 0; i < s->n; i++) {
            const stored *x = store_find(from, s->entry[i].path);
            bool param = s->entry[i].role == ROLE_PARAM;
            if (x)
                memcpy(param ? (void *)s->entry[i].master : s->entry[i].data,
                       param ? (void *)x->master : x->data, (size_t)x->count * 4);
        }
        store_sync(s);
        e = program_open(m.g, s, &(program_options){.device = t->o->device, .isa = t->o->isa}, &p);
        if (!e) {
            const tensor *leaf[] = {m.tokens, m.doc_start, m.position};
            const i32 *values[] = {t->tokens, t->start, t->position}; // row 0: one document
            for (int i = 0; i < 3; i++)
                if (leaf[i]) memcpy(program_data(p, leaf[i]), values[i], CONTEXT * sizeof(i32));
            program_run(p, &(step_info){0}, PHASE_FORWARD);
            memcpy(kept, program_data(p, m.logits), CONTEXT * VOCAB * sizeof(float));
            program_close(p);
        }
        store_close(s);
    }
    arena_close(a);
    *out = kept;
    return e;
}

static status decode(trial *t, const session *trained)
{
    const float *full;
    decoder *d;
    char *path = NULL, weights[4096];
    i64 step;
    TRY(checkpoint_latest(t->o->folder, NULL, NULL, &path, &step));
    snprintf(weights, sizeof weights, "%s/model.safetensors", path);
    free(path);
    status e = whole_logits(t, trained->store, &full);
    if (!e) e = decoder_open(t->c, t->o->device, t->o->isa, DT_F32, weights, CONTEXT, &d);
    if (e) return e;
    e = compare_logits(t, d, full);
    decoder_close(d);
    return e;
}

static status run_through(trial *t)
{
    session *s;
    double first = 0, last = 0;
    TRY(check_slopes(t));
    TRY(open_session(t, &s));
    session_start(s);
    status e = steps(t, s, 0, SAVED_AT, &first, &last);
    if (!e) e = save(t, s);
    if (!e) e = decode(t, s);
    if (!e) e = steps(t, s, SAVED_AT, STEPS, &first, &last);
    t->cell->before = first;
    t->cell->after = last;
    if (!e && !(last < first)) e = failed(t, "%d steps raise the loss from %.4f to %.4f", STEPS, first, last);
    if (!e) e = resume(t, s);
    session_close(s);
    return e;
}

static status configure(trial *t, const method_row *a, const method_row *b)
{
    const char *word[MOST_SETTINGS];
    i64 n = 0;
    const method_row *row[] = {a, b};
    for (int i = 0; i < 2 && row[i]; i++) TRY(method_small_words(t->arena, row[i], word, &n, COUNT(word)));
    return config_parse("grid", base, sizeof base - 1, word, n, &t->c); // a method may replace what is there
}

status grid_try(const method_row *a, const method_row *b, const grid_options *o, grid_cell *out)
{
    trial *t;
    double start = clock_seconds();
    *out = (grid_cell){.a = a, .b = b};
    TRY(mem_alloc(sizeof *t, "grid", &t));
    *t = (trial){.o = o, .cell = out};
    status s = arena_open(&t->arena);
    if (!s) {
        fill_rows(t);
        s = configure(t, a, b);
        if (!s) s = run_through(t);
        config_close(t->c);
        arena_close(t->arena);
    }
    mem_free(t);
    out->seconds = clock_seconds() - start;
    if (!s || s->code == ERR_MEMORY || s->code == ERR_IO) return s;
    if (out->outcome != GRID_FAILED) {
        out->outcome = s->code == ERR_CONFIG ? GRID_REFUSED : GRID_FAILED;
        snprintf(out->reason, sizeof out->reason, "%s", s->message);
    }
    status_drop(s);
    return OK;
}

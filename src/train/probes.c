/* The probes of a run: see probes.h. What is looked at is found in the graph of one more evaluation, by layer
 * and path, so no method needs to know of them. */
#include "train/probes.h"
#include "base/text.h"
#include "train/probe_measure.h"
#include "train/run.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { RANK_TOKENS = 128, ENTROPY_TOKENS = 64, MOST_MAPS = 48, MOST_NAME = 96 };

typedef enum probe_kind { // the order of train.probes' choices
    ACTIVATION_NORM,
    STREAM_VARIANCE,
    EFFECTIVE_RANK,
    ATTENTION_ENTROPY,
    GRADIENT_NORM,
    UPDATE_RATIO,
    SINGULAR_VALUE,
    PROBES
} probe_kind;
static const char *const probe_name[PROBES] = {"activation_norm",   "stream_variance", "effective_rank",
                                               "attention_entropy", "gradient_norm",   "update_ratio",
                                               "singular_value"};

typedef struct map { // one array of singular values
    char name[MOST_NAME];
    double *value; // [layers], NaN: that layer has none
} map;

struct probes {
    arena *arena;
    bool on[PROBES];
    i64 layers, bytes;
    model m;
    program *p;
    batch b;
    tensor **stream;        // [layers + 1]
    tensor **branch[2];     // [layers]: attention, feed-forward
    const node **attention; // [layers]
    double *array;          // [layers + 1] to fill
    // the step under way
    bool pending, fresh;       // measured before its update; whole
    double *gradient, *update; // [layers + 1]: the last of all else
    float *before;             // matrices before the update, one behind the other
    map *maps;
    i64 n_maps;
    double *scratch; // of a thread
    i64 scratch_size;
    int threads;
};

/* ---- what there is to look at */

/* "blocks.3.ffn.up.weight": 3, *REST "ffn.up.weight"; -1: outside of the blocks. */
static i64 layer_of(const char *path, const char **rest)
{
    int layer = -1, skip = 0;
    if (sscanf(path, "blocks.%d.%n", &layer, &skip) != 1 || !skip) return -1;
    *rest = path + skip;
    return layer;
}

static bool is_matrix(const stored *e)
{
    return e->param.kind == PARAM_MATRIX || e->param.kind == PARAM_EXPERT;
}

static void find_branch(probes *p, const node *n)
{
    const char *rest;
    i64 layer = layer_of(n->path, &rest);
    if (layer < 0 || layer >= p->layers || (n->op != OP_joint && n->op != OP_hyper_close)) return;
    if (!strncmp(rest, "attention.", 10)) p->branch[0][layer] = n->in[1]; // the last one: experts join too
    if (!strncmp(rest, "ffn.", 4)) p->branch[1][layer] = n->in[1];
}

static void find_all(probes *p)
{
    i64 tokens = count(p->m.tokens);
    bool begun = false;
    for (i64 i = 0; i < p->m.g->n_nodes; i++) {
        const node *n = p->m.g->nodes[i];
        tensor *t = n->out[0];
        begun |= n->layer >= 0;
        find_branch(p, n);
        if (!t || t->dtype == DT_I32 || rows_of(t) < tokens) continue;
        if (!begun) p->stream[0] = t; // the last before the first block
        if (t->boundary && n->layer >= 0 && n->layer < p->layers) p->stream[n->layer + 1] = t;
        if (n->op == OP_attention && n->layer >= 0 && n->layer < p->layers) p->attention[n->layer] = n;
    }
}

static void keep(tensor *t)
{
    if (t && t->role == ROLE_VALUE) t->keep = true;
}

static void keep_all(probes *p)
{
    for (i64 l = 0; l <= p->layers; l++) {
        if (p->on[STREAM_VARIANCE] || p->on[EFFECTIVE_RANK]) keep(p->stream[l]);
        if (l == p->layers) break;
        for (int k = 0; k < 2 && p->on[ACTIVATION_NORM]; k++) keep(p->branch[k][l]);
        for (int k = 0; k < 2 && p->on[ATTENTION_ENTROPY]; k++) keep(p->attention[l]->in[k]);
    }
}

static status check(const probes *p, const config *c)
{
    if (!p->on[ATTENTION_ENTROPY]) return OK;
    for (i64 l = 0; l < p->layers; l++)
        if (!p->attention[l])
            return config_refuse(
                c, "train.probes",
                "has attention_entropy; -sum p ln p needs the weights p of softmax attention, which "
                "layer %lld has not",
                (long long)l);
    if (model_copies(c) > 1)
        return config_refuse(
            c, "train.probes",
            "has attention_entropy; -sum p ln p over what a token sees is not that of its copies "
            "(model.repeat.kind: %s)",
            config_text(c, "model.repeat.kind"));
    return OK;
}

/* ---- opening */

static status open_forward(probes *p, const session *s)
{
    model_shape shape = {
        .rows = 1, .tokens = s->context, .mode = MODE_EVALUATE, .act = s->act, .stream = s->stream};
    program_sizes sizes;
    program_options o = {.device = s->device, .isa = s->options.isa};
    p->stream = arena_array(p->arena, tensor *, p->layers + 1);
    p->branch[0] = arena_array(p->arena, tensor *, p->layers);
    p->branch[1] = arena_array(p->arena, tensor *, p->layers);
    p->attention = arena_array(p->arena, const node *, p->layers);
    TRY(model_build(p->arena, s->c, &shape, &p->m));
    find_all(p);
    TRY(check(p, s->c));
    keep_all(p);
    TRY(graph_verify(p->m.g));
    TRY(program_open(p->m.g, s->store, &o, &p->p));
    sizes = *program_about(p->p);
    p->bytes += sizes.activations + sizes.inputs + sizes.scratch;
    return OK;
}

/* The first sequence of the validation data. */
static status read_batch(probes *p, const session *s, const dataset *d)
{
    loader_options lo = loader_for(s->c, 1, false);
    loader *l;
    TRY(batch_open(1, s->context, &p->b));
    TRY(loader_open(d, DATA_VALIDATION, &lo, &l));
    loader_next(l, &p->b);
    loader_close(l);
    return OK;
}

static status add_map(probes *p, const char *rest)
{
    char name[MOST_NAME];
    size_t n = strlen(rest);
    if (n > 7 && !strcmp(rest + n - 7, ".weight")) n -= 7;
    snprintf(name, sizeof name, "probe/%s/%.*s", probe_name[SINGULAR_VALUE], (int)n, rest);
    for (i64 k = 0; k < p->n_maps; k++)
        if (!strcmp(p->maps[k].name, name)) return OK;
    if (p->n_maps == MOST_MAPS)
        return fail(ERR_CONFIG, "train.probes: more than %d kinds of matrices in a block", MOST_MAPS);
    map *m = &p->maps[p->n_maps++];
    memcpy(m->name, name, sizeof name);
    m->value = arena_array(p->arena, double, p->layers);
    return OK;
}

static status open_maps(probes *p, const session *s)
{
    p->maps = arena_array(p->arena, map, MOST_MAPS);
    for (i64 i = 0; i < s->store->n_params; i++) {
        const stored *e = &s->store->entry[i];
        const char *rest;
        if (!is_matrix(e) || layer_of(e->path, &rest) < 0) continue;
        TRY(add_map(p, rest));
        p->scratch_size = MAX(p->scratch_size, e->dim[e->ndim - 1] + e->dim[e->ndim - 2]);
    }
    p->threads = omp_get_max_threads();
    p->scratch = arena_array(p->arena, double, p->scratch_size * p->threads);
    return OK;
}

static status open_copy(probes *p, const session *s)
{
    i64 n = 0;
    for (i64 i = 0; i < s->store->n_params; i++)
        if (is_matrix(&s->store->entry[i])) n += s->store->entry[i].count;
    p->bytes += n * (i64)sizeof(float);
    return mem_alloc(sizeof(float) * (size_t)MAX(n, 1), "train.probes: a copy of the matrices", &p->before);
}

static status open_all(probes *p, const session *s, const dataset *d)
{
    p->array = arena_array(p->arena, double, p->layers + 1);
    p->gradient = arena_array(p->arena, double, p->layers + 1);
    p->update = arena_array(p->arena, double, p->layers + 1);
    if (p->on[ACTIVATION_NORM] || p->on[STREAM_VARIANCE] || p->on[EFFECTIVE_RANK] ||
        p->on[ATTENTION_ENTROPY]) {
        TRY(open_forward(p, s));
        TRY(read_batch(p, s, d));
    }
    if (p->on[SINGULAR_VALUE]) TRY(open_maps(p, s));
    return p->on[UPDATE_RATIO] ? open_copy(p, s) : OK;
}

status probes_open(session *s, const dataset *d, probes **out)
{
    arena *a;
    bool any = false;
    *out = NULL;
    for (int k = 0; k < PROBES; k++) any |= config_has_choice(s->c, "train.probes", probe_name[k]);
    if (!any) return OK;
    TRY(arena_open(&a));
    probes *p = arena_new(a, probes);
    p->arena = a;
    p->layers = config_count(s->c, "model.layers");
    for (int k = 0; k < PROBES; k++) p->on[k] = config_has_choice(s->c, "train.probes", probe_name[k]);
    status failed = open_all(p, s, d);
    if (failed)
        probes_close(p);
    else
        *out = p;
    return failed;
}

void probes_close(probes *p)
{
    if (!p) return;
    program_close(p->p);
    if (p->m.g) graph_close(p->m.g);
    batch_close(&p->b);
    mem_free(p->before);
    arena_close(p->arena);
}

i64 probes_bytes(const probes *p) { return p->bytes; }

/* ---- the step */

static double square_sum(const float *x, i64 n)
{
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (i64 i = 0; i < n; i++) sum += (double)x[i] * x[i];
    return sum;
}

static i64 bin(const probes *p, const stored *e)
{
    const char *rest;
    i64 layer = layer_of(e->path, &rest);
    return layer < 0 || layer >= p->layers ? p->layers : layer;
}

static void read_gradient(probes *p, const store *s)
{
    memset(p->gradient, 0, sizeof(double) * (size_t)(p->layers + 1));
    for (i64 i = 0; i < s->n_params; i++) {
        const stored *e = &s->entry[i];
        i64 n = e->rows ? e->rows->count * e->dim[e->ndim - 1] : e->count;
        p->gradient[bin(p, e)] += square_sum(e->rows ? e->rows->values : e->grad, n);
    }
    for (i64 l = 0; l <= p->layers; l++) p->gradient[l] = sqrt(p->gradient[l]);
}

void probes_before_update(probes *p, const session *s, bool due)
{
    if (!p) return;
    p->fresh = false;
    p->pending = due;
    if (!due) return;
    if (p->on[GRADIENT_NORM]) read_gradient(p, s->store);
    float *to = p->before;
    for (i64 i = 0; p->on[UPDATE_RATIO] && i < s->store->n_params; i++) {
        const stored *e = &s->store->entry[i];
        if (!is_matrix(e)) continue;
        memcpy(to, e->master, sizeof(float) * (size_t)e->count);
        to += e->count;
    }
}

void probes_after_update(probes *p, const session *s)
{
    if (!p || !p->pending) return;
    p->pending = false;
    p->fresh = true;
    if (!p->on[UPDATE_RATIO]) return;
    const float *before = p->before;
    double *weight = p->array;
    memset(weight, 0, sizeof(double) * (size_t)(p->layers + 1));
    memset(p->update, 0, sizeof(double) * (size_t)(p->layers + 1));
    for (i64 i = 0; i < s->store->n_params; i++) {
        const stored *e = &s->store->entry[i];
        double change = 0;
        if (!is_matrix(e)) continue;
        for (i64 k = 0; k < e->count; k++)
            change += ((double)e->master[k] - before[k]) * ((double)e->master[k] - before[k]);
        p->update[bin(p, e)] += change;
        weight[bin(p, e)] += square_sum(before, e->count);
        before += e->count;
    }
    for (i64 l = 0; l <= p->layers; l++) p->update[l] = sqrt(p->update[l] / weight[l]);
}

status probes_log_step(probes *p, metrics_log *log, i64 step)
{
    metric_array a[3];
    i64 n = 0;
    if (!p || !p->fresh) return OK;
    p->fresh = false;
    if (p->on[GRADIENT_NORM]) {
        a[n++] = (metric_array){"probe/gradient_norm", p->gradient, p->layers};
        a[n++] = (metric_array){"probe/gradient_norm/rest", p->gradient + p->layers, 1};
    }
    if (p->on[UPDATE_RATIO]) a[n++] = (metric_array){"probe/update_ratio", p->update, p->layers};
    return n ? metrics_append_arrays(log, step, a, n) : OK;
}

/* ---- the evaluation */

static void run_forward(probes *p)
{
    const i32 *from[] = {p->b.tokens, p->b.targets, p->b.doc_start, p->b.position};
    tensor *const to[] = {p->m.tokens, p->m.targets, p->m.doc_start, p->m.position};
    for (int k = 0; k < 4; k++)
        memcpy(program_data(p->p, to[k]), from[k], sizeof(i32) * (size_t)count(p->m.tokens));
    *(float *)program_data(p->p, p->m.inverse_count) = 1;
    program_run(p->p, &(step_info){0}, PHASE_FORWARD);
}

static view view_of(const probes *p, const tensor *t) { return program_view(p->p, t); }

static status log_one(probes *p, metrics_log *log, i64 step, const char *name, i64 n)
{
    return metrics_append_arrays(log, step, &(metric_array){name, p->array, n}, 1);
}

static status log_activations(probes *p, metrics_log *log, i64 step)
{
    static const char *const name[] = {"probe/activation_norm/attention", "probe/activation_norm/ffn"};
    for (int k = 0; k < 2 && p->on[ACTIVATION_NORM]; k++) {
        for (i64 l = 0; l < p->layers; l++) {
            view v = p->branch[k][l] ? view_of(p, p->branch[k][l]) : (view){0};
            p->array[l] = v.p ? measure_rms(&v) : NAN;
        }
        TRY(log_one(p, log, step, name[k], p->layers));
    }
    for (i64 l = 0; l <= p->layers && p->on[STREAM_VARIANCE]; l++) {
        view v = view_of(p, p->stream[l]);
        p->array[l] = measure_variance(&v);
    }
    if (p->on[STREAM_VARIANCE]) TRY(log_one(p, log, step, "probe/stream_variance", p->layers + 1));
    for (i64 l = 0; l < p->layers && p->on[EFFECTIVE_RANK]; l++) {
        view v = view_of(p, p->stream[l + 1]);
        TRY(measure_effective_rank(&v, RANK_TOKENS, &p->array[l]));
    }
    return p->on[EFFECTIVE_RANK] ? log_one(p, log, step, "probe/effective_rank", p->layers) : OK;
}

static status log_entropy(probes *p, metrics_log *log, i64 step)
{
    double *scratch;
    i64 tokens = count(p->m.tokens);
    TRY(mem_alloc(sizeof(double) * (size_t)tokens, "attention's entropy", &scratch));
    for (i64 l = 0; l < p->layers; l++) {
        const node *n = p->attention[l];
        attention_view a = {.q = view_of(p, n->in[0]),
                            .k = view_of(p, n->in[1]),
                            .start = p->b.doc_start,
                            .tokens = tokens,
                            .heads = (i64)attr(n, "heads"),
                            .kv_heads = (i64)attr(n, "kv_heads"),
                            .window = (i64)attr(n, "window"),
                            .scale = attr(n, "scale")};
        p->array[l] = measure_entropy(&a, 0, ENTROPY_TOKENS, scratch);
    }
    mem_free(scratch);
    return log_one(p, log, step, "probe/attention_entropy", p->layers);
}

static double top_of(const probes *p, const stored *e)
{
    i64 rows = e->dim[e->ndim - 2], n = e->dim[e->ndim - 1], stack = e->count / (rows * n);
    double top = 0;
    for (i64 k = 0; k < stack; k++) {
        double one = measure_top_singular(e->master + k * rows * n, rows, n, (u64)k + 1,
                                          p->scratch + p->scratch_size * thread_index());
        if (!(one <= top)) top = one;
    }
    return top;
}

static status log_singular(probes *p, const store *s, metrics_log *log, i64 step)
{
    metric_array a[MOST_MAPS];
    for (i64 k = 0; k < p->n_maps; k++) {
        for (i64 l = 0; l < p->layers; l++) p->maps[k].value[l] = NAN;
        a[k] = (metric_array){p->maps[k].name, p->maps[k].value, p->layers};
    }
#pragma omp parallel for schedule(dynamic) num_threads(p->threads)
    for (i64 i = 0; i < s->n_params; i++) {
        const stored *e = &s->entry[i];
        const char *rest;
        i64 layer = layer_of(e->path, &rest);
        if (!is_matrix(e) || layer < 0 || layer >= p->layers) continue;
        for (i64 k = 0; k < p->n_maps; k++) {
            const char *name = p->maps[k].name + strlen("probe/singular_value/");
            size_t length = strlen(name);
            if (strncmp(rest, name, length) || (rest[length] && strcmp(rest + length, ".weight"))) continue;
            p->maps[k].value[layer] = top_of(p, e);
        }
    }
    return p->n_maps ? metrics_append_arrays(log, step, a, p->n_maps) : OK;
}

status probes_evaluate(probes *p, const session *s, metrics_log *log, i64 step)
{
    if (!p) return OK;
    if (p->p) run_forward(p);
    TRY(log_activations(p, log, step));
    if (p->on[ATTENTION_ENTROPY]) TRY(log_entropy(p, log, step));
    return p->on[SINGULAR_VALUE] ? log_singular(p, s->store, log, step) : OK;
}

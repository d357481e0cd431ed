/* Programs: see program.h. */
#include "graph/program.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct call {
    void (*run)(const op_call *c);
    op_call c;
    phase phase;
    double seconds;
    i64 runs;
} call;

struct program {
    graph *g;
    call *call;
    i64 n_calls;
    memory_plan plan;
    void **address; // by tensor id
    program_sizes sizes;
    char *activations, *inputs, *scratch;
    step_info step; // what the calls point to
    bool profile;
};

/* ---- set-up */

static view view_of(const program *p, const tensor *t)
{
    if (!t) return (view){0};
    return (view){p->address[t->id], t->dtype, rows_of(t), cols(t), p->plan.place[t->id].stride};
}

static status find_stored(store *s, const tensor *t, bool gradient, stored **out)
{
    const char *path = gradient ? t->path + strlen("grad.") : t->path;
    stored *e = s ? store_find(s, path) : NULL;
    if (!e) return fail(ERR_CONFIG, "%s is not among the model's parameters and states", path);
    if (e->count != count(t) || (!gradient && e->dtype != t->dtype))
        return fail(ERR_CONFIG, "%s: %lld values of %s are stored, the graph needs %lld of %s", path,
                    (long long)e->count, dtype_name(e->dtype), (long long)count(t), dtype_name(t->dtype));
    *out = e;
    return OK;
}

/* Byte offsets of the leaves that the program itself holds: inputs, constants, tallies that are no gradients.
 */
static status measure_leaves(program *p, store *s, i64 *offset)
{
    for (i64 i = 0; i < p->g->n_tensors; i++) {
        const tensor *t = p->g->tensors[i];
        stored *e = NULL;
        bool gradient = t->role == ROLE_TALLY && !strncmp(t->path, "grad.", 5);
        offset[i] = -1;
        if (t->role == ROLE_VALUE) continue;
        if (t->role == ROLE_CONST) {
            p->address[i] = (void *)t->fixed; // the verifier lets no node write it
            continue;
        }
        if (t->role == ROLE_PARAM || t->role == ROLE_STATE || (gradient && s)) {
            TRY(find_stored(s, t, gradient, &e));
            p->address[i] = gradient ? (void *)e->grad : e->data;
            continue;
        }
        offset[i] = p->sizes.inputs;
        p->sizes.inputs += round_up(count(t) * dtype_bytes(t->dtype), 64);
        if (t->role == ROLE_TALLY) p->sizes.tallies += count(t) * 4;
    }
    return OK;
}

static size_t row_slot_bytes(const node *n)
{
    i64 widest = 0;
    for (int k = 0; k < n->n_in; k++)
        if (n->in[k] && n->in[k]->dtype == DT_BF16) widest = MAX(widest, cols(n->in[k]));
    for (int k = 0; k < n->n_out; k++)
        if (n->out[k] && n->out[k]->dtype == DT_BF16) widest = MAX(widest, cols(n->out[k]));
    return (size_t)round_up(widest * (i64)sizeof(float), 64);
}

static void fill_views(program *p, op_call *c)
{
    for (int k = 0; k < c->node->n_in; k++) c->in[k] = view_of(p, c->node->in[k]);
    for (int k = 0; k < c->node->n_out; k++) c->out[k] = view_of(p, c->node->out[k]);
}

static status make_call(program *p, node *n, const program_options *o)
{
    const op_def *def = op_table(o->isa, n->op);
    if (!def) return fail(ERR_CONFIG, "this binary has no kernels for instruction set %s", isa_name(o->isa));
    call *k = &p->call[p->n_calls++];
    *k = (call){.run = def->cpu, .phase = n->phase};
    k->c = (op_call){.node = n,
                     .accumulate = n->accumulate,
                     .threads = o->threads,
                     .row_slot = row_slot_bytes(n),
                     .step = &p->step,
                     .device = o->device,
                     .arena = p->g->arena};
    fill_views(p, &k->c); // strides and shapes; addresses follow once memory is taken
    TRY(want_scratch(&k->c, 0));
    if (def->prepare) TRY(wrap(def->prepare(&k->c), "%s (%s)", def->name, n->path));
    p->sizes.scratch = MAX(p->sizes.scratch, round_up((i64)k->c.scratch_bytes, 64));
    return OK;
}

static status set_up(program *p, store *s, program_options o, i64 *offset)
{
    if (!o.threads) o.threads = (int)device_about(o.device)->threads;
    TRY(plan_memory(p->g, &p->plan));
    p->sizes.activations = p->plan.bytes;
    p->sizes.scratch = 64; // never NULL: a kernel may hand its address on with a length of 0
    p->sizes.activations_lower_bound = p->plan.lower_bound;
    TRY(measure_leaves(p, s, offset));
    for (i64 i = 0; i < p->g->n_nodes; i++)
        if (!p->plan.free_of_work[i]) TRY(make_call(p, p->g->nodes[i], &o));
    return OK;
}

static status take(i64 bytes, const char *what, void *out_pointer)
{
    void *region = NULL;
    if (bytes) TRY(region_open((size_t)bytes, what, &region));
    memcpy(out_pointer, &region, sizeof region);
    return OK;
}

static status take_memory(program *p, const i64 *offset)
{
    TRY(take(p->sizes.activations, "activations", &p->activations));
    TRY(take(p->sizes.inputs, "inputs", &p->inputs));
    TRY(take(p->sizes.scratch, "scratch", &p->scratch));
    for (i64 i = 0; i < p->g->n_tensors; i++) {
        const tensor *t = p->g->tensors[i];
        place at = p->plan.place[i];
        if (offset[i] >= 0)
            p->address[i] = p->inputs + offset[i];
        else if (t->role == ROLE_VALUE && at.home >= 0) {
            const home *h = &p->plan.home[at.home];
            char *base = h->leaf >= 0 ? p->address[h->leaf] : p->activations + h->offset;
            p->address[i] = base + at.column * dtype_bytes(t->dtype);
        }
    }
    for (i64 i = 0; i < p->n_calls; i++) {
        fill_views(p, &p->call[i].c);
        p->call[i].c.scratch = p->scratch;
    }
    return OK;
}

static program *describe(graph *g)
{
    program *p = arena_new(g->arena, program);
    p->g = g;
    p->call = arena_array(g->arena, call, g->n_nodes + 1);
    p->address = arena_array(g->arena, void *, g->n_tensors + 1);
    return p;
}

status program_measure(graph *g, store *s, const program_options *options, program_sizes *out)
{
    program *p = describe(g);
    TRY(set_up(p, s, *options, arena_array(g->arena, i64, g->n_tensors + 1)));
    *out = p->sizes;
    return OK;
}

status program_open(graph *g, store *s, const program_options *options, program **out)
{
    program *p = describe(g);
    i64 *offset = arena_array(g->arena, i64, g->n_tensors + 1);
    status failed = set_up(p, s, *options, offset);
    if (!failed) failed = take_memory(p, offset);
    if (failed) {
        program_close(p);
        return failed;
    }
    *out = p;
    return OK;
}

void program_close(program *p)
{
    if (!p) return;
    region_close(p->activations, (size_t)p->sizes.activations);
    region_close(p->inputs, (size_t)p->sizes.inputs);
    region_close(p->scratch, (size_t)p->sizes.scratch);
    p->activations = p->inputs = p->scratch = NULL;
}

const program_sizes *program_about(const program *p) { return &p->sizes; }
void *program_data(const program *p, const tensor *t) { return p->address[t->id]; }
view program_view(const program *p, const tensor *t) { return view_of(p, t); }

/* ---- running */

static double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void run_profiled(call *k)
{
    double start = seconds_now();
    k->run(&k->c);
    k->seconds += seconds_now() - start;
    k->runs++;
}

void program_run(program *p, const step_info *step, phase last)
{
    p->step = *step;
    for (i64 i = 0; i < p->n_calls; i++) {
        call *k = &p->call[i];
        if (k->phase == PHASE_COMMIT || k->phase > last) continue;
        if (p->profile)
            run_profiled(k);
        else
            k->run(&k->c);
    }
}

void program_commit(program *p, const step_info *step)
{
    p->step = *step;
    for (i64 i = 0; i < p->n_calls; i++)
        if (p->call[i].phase == PHASE_COMMIT) p->call[i].run(&p->call[i].c);
}

void program_zero_tallies(program *p)
{
    for (i64 i = 0; i < p->g->n_tensors; i++) {
        const tensor *t = p->g->tensors[i];
        char *at = p->address[i];
        bool own = t->role == ROLE_TALLY && at >= p->inputs && at < p->inputs + p->sizes.inputs;
        if (own) memset(at, 0, (size_t)count(t) * 4);
    }
}

static bool finite_view(const view *v)
{
    for (i64 r = 0; r < v->rows; r++)
        for (i64 j = 0; j < v->n; j++) {
            float x = v->dtype == DT_BF16 ? bf16_to_f32(((const bf16 *)v->p)[r * v->stride + j])
                                          : ((const float *)v->p)[r * v->stride + j];
            if (!isfinite(x)) return false;
        }
    return true;
}

status program_find_nonfinite(program *p, const step_info *step)
{
    p->step = *step;
    for (i64 i = 0; i < p->n_calls; i++) {
        call *k = &p->call[i];
        const node *n = k->c.node;
        if (k->phase == PHASE_COMMIT) continue;
        for (int m = 0; m < n->n_in; m++)
            if (n->in[m] && n->in[m]->role == ROLE_PARAM && !finite_view(&k->c.in[m]))
                return fail(ERR_NUMERIC, "parameter %s holds NaN or infinity", n->in[m]->path);
        k->run(&k->c);
        for (int m = 0; m < n->n_out; m++)
            if (n->out[m] && n->out[m]->dtype != DT_I32 && !finite_view(&k->c.out[m]))
                return fail(ERR_NUMERIC, "%s of op %s (%s, layer %d) is NaN or infinite", n->def->out[m].name,
                            n->def->name, n->path, n->layer);
    }
    return OK;
}

/* ---- profile */

void program_profile(program *p, bool on)
{
    p->profile = on;
    for (i64 i = 0; i < p->n_calls; i++) p->call[i].seconds = 0, p->call[i].runs = 0;
}

static int slowest_first(const void *a, const void *b)
{
    const profile_row *x = a, *y = b;
    return (x->seconds < y->seconds) - (x->seconds > y->seconds);
}

i64 program_profile_rows(const program *p, profile_row rows[OP_COUNT])
{
    i64 n = 0;
    memset(rows, 0, sizeof *rows * OP_COUNT);
    for (i64 i = 0; i < p->n_calls; i++) {
        const call *k = &p->call[i];
        const node *op = k->c.node;
        profile_row *r = &rows[op->op];
        op_cost cost = op->def->cost ? op->def->cost(op) : (op_cost){0, traffic(op)};
        r->op = op->def->name;
        r->calls += k->runs;
        r->seconds += k->seconds;
        r->flops += cost.flops * (double)k->runs;
        r->bytes += cost.bytes * (double)k->runs;
    }
    for (int i = 0; i < OP_COUNT; i++)
        if (rows[i].calls) rows[n++] = rows[i];
    qsort(rows, (size_t)n, sizeof *rows, slowest_first);
    return n;
}

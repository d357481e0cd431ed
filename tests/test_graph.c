/* The graph engine on small graphs of rms_norm, sum, split and concat: autodiff, recomputation, memory plan,
 * programs against the double interpreter, the rules of graph_verify one by one, and allocations that fail.
 */
#include "check.h"
#include "base/text.h"
#include "graph/interpret.h"
#include "graph/program.h"
#include "graph/trial.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static const step_info step = {.seed = 1, .step = 1};

typedef struct fixture {
    device *d;
    arena *a;
    graph *g;
} fixture;

static int open_device(void **state)
{
    static fixture f;
    assert_ok(device_open(&(device_options){0}, &f.d));
    *state = &f;
    return 0;
}
static int close_device(void **state)
{
    device_close(((fixture *)*state)->d);
    return 0;
}
static int open_graph(void **state)
{
    fixture *f = *state;
    assert_ok(arena_open(&f->a));
    f->g = graph_new(f->a, &(graph_options){.act = DT_F32, .stream = DT_F32});
    return 0;
}
static int close_graph(void **state)
{
    fixture *f = *state;
    graph_close(f->g);
    arena_close(f->a);
    return 0;
}

/* ---- building */
static tensor *input(graph *g, const char *name, i64 rows, i64 n)
{
    return g_input(g, name, DT_F32, 2, (i64[]){rows, n});
}
static tensor *gain(graph *g, const char *name, i64 n)
{
    return g_param(g, name, 1, &n, &(param_info){.kind = PARAM_GAIN, .std = 0.5, .f32 = true});
}
static tensor *norm(graph *g, tensor *x, tensor *p)
{
    return g_out(g_node(g, OP_rms_norm, IN(x, p), NO_ATTRS), 0);
}
static tensor *add(graph *g, tensor *a, tensor *b) { return g_out(g_node(g, OP_sum, IN(a, b), NO_ATTRS), 0); }
static node *halves(graph *g, tensor *x, i64 n0, i64 n1)
{
    return g_node(g, OP_split, IN(x), WITH({"n0", (double)n0}, {"n1", (double)n1}));
}
static tensor *side_by_side(graph *g, tensor *a, tensor *b)
{
    return g_out(g_node(g, OP_concat, IN(a, b), NO_ATTRS), 0);
}
static tensor *keep(tensor *t)
{
    t->keep = true;
    return t;
}
/* The gradient of sum(y * seed), seed being an input. */
static void backward(graph *g, tensor *y)
{
    tensor *seed = g_input(g, "seed", DT_F32, y->ndim, y->dim);
    keep(y);
    assert_ok(graph_backward(g, &y, &seed, 1));
    assert_ok(graph_verify(g));
}
static node *find(const graph *g, const char *path)
{
    for (i64 i = 0; i < g->n_nodes; i++)
        if (!strcmp(g->nodes[i]->path, path)) return g->nodes[i];
    fail_msg("no node %s", path);
    return NULL;
}

/* ---- running */
static double leaf_value(const tensor *t, i64 i)
{
    return sin((double)(i + 1) * (1.3 + t->id)) + 0.25 * (double)(t->id % 3);
}

static void fill(fixture *f, program *p, store *s, oracle *o)
{
    for (i64 i = 0; i < f->g->n_tensors; i++) {
        const tensor *t = f->g->tensors[i];
        if (t->role != ROLE_INPUT && t->role != ROLE_PARAM) continue;
        float *to = t->role == ROLE_INPUT ? program_data(p, t) : store_find(s, t->path)->master;
        for (i64 k = 0; k < count(t); k++) oracle_data(o, t)[k] = to[k] = (float)leaf_value(t, k);
    }
}

static void equal_to_oracle(program *p, store *s, oracle *o, const tensor *t)
{
    view v = program_view(p, t);
    bool gradient = t->role == ROLE_TALLY;
    if (gradient) v = (view){store_find(s, t->path + 5)->grad, DT_F32, rows_of(t), cols(t), cols(t)};
    const double *want = oracle_data(o, t);
    for (i64 r = 0; r < v.rows; r++)
        for (i64 j = 0; j < v.n; j++) {
            double got = ((const float *)v.p)[r * v.stride + j], w = want[r * v.n + j];
            if (!(fabs(got - w) <= 2e-5 * (1 + fabs(w))))
                fail_msg("%s[%lld,%lld]: %g, oracle %g", t->path, (long long)r, (long long)j, got, w);
        }
}

/* Every kept value and every gradient, program against oracle. Runs twice: a program must not depend on what
 * its memory held. */
static void program_equals_oracle(fixture *f)
{
    store *s;
    program *p;
    oracle *o;
    assert_ok(graph_verify(f->g));
    assert_ok(store_open(f->a, f->g, STORE_GRADIENTS, &s));
    assert_ok(
        program_open(f->g, s, &(program_options){.device = f->d, .isa = device_about(f->d)->level}, &p));
    assert_ok(oracle_open(f->g, &o));
    fill(f, p, s, o);
    for (int run = 0; run < 2; run++) {
        if (s->grad) memset(s->grad, 0, (size_t)s->elements * sizeof *s->grad);
        program_zero_tallies(p);
        program_run(p, &step, PHASE_BACKWARD);
        assert_ok(oracle_run(o, &step, true));
        for (i64 i = 0; i < f->g->n_tensors; i++)
            if ((f->g->tensors[i]->keep && f->g->tensors[i]->maker) || f->g->tensors[i]->role == ROLE_TALLY)
                equal_to_oracle(p, s, o, f->g->tensors[i]);
    }
    oracle_close(o);
    program_close(p);
    store_close(s);
}

/* d sum(y seed) / d leaf along a coordinate, by differences of the oracle's forward pass. */
static double difference(oracle *o, tensor *leaf, i64 at, const tensor *y, const tensor *seed)
{
    double side[2], *x = oracle_data(o, leaf), saved = x[at], h = 1e-6;
    for (int k = 0; k < 2; k++) {
        x[at] = saved + (k ? h : -h);
        assert_ok(oracle_run(o, &step, false));
        side[k] = 0;
        for (i64 i = 0; i < count(y); i++) side[k] += oracle_data(o, y)[i] * oracle_data(o, seed)[i];
    }
    x[at] = saved;
    return (side[1] - side[0]) / (2 * h);
}

/* The gradient of every parameter against differences of the definition. */
static void gradients_equal_differences(fixture *f, const tensor *y)
{
    oracle *o;
    assert_ok(oracle_open(f->g, &o));
    for (i64 i = 0; i < f->g->n_tensors; i++) {
        tensor *t = f->g->tensors[i];
        for (i64 k = 0; (t->role == ROLE_INPUT || t->role == ROLE_PARAM) && k < count(t); k++)
            oracle_data(o, t)[k] = leaf_value(t, k);
    }
    const tensor *seed = g_find(f->g, "seed");
    int checked = 0;
    for (i64 i = 0; i < f->g->n_tensors; i++) {
        tensor *t = f->g->tensors[i];
        for (i64 k = 0; t->role == ROLE_PARAM && k < count(t); k++, checked++) {
            double want = difference(o, t, k, y, seed);
            assert_ok(oracle_run(o, &step, true));
            assert_non_null(t->grad);
            double got = oracle_data(o, t->grad)[k];
            if (!(fabs(got - want) < 1e-7 * (1 + fabs(want))))
                fail_msg("%s[%lld]: %.9g, differences %.9g", t->path, (long long)k, got, want);
        }
    }
    assert_true(checked > 0);
    oracle_close(o);
}

/* ---- the memory plan */

static void split_is_views(void **state)
{
    fixture *f = *state;
    memory_plan p;
    tensor *h = norm(f->g, input(f->g, "x", 4, 8), NULL);
    node *s = halves(f->g, h, 3, 5);
    tensor *a = norm(f->g, s->out[0], NULL), *b = norm(f->g, s->out[1], NULL);
    tensor *y = keep(side_by_side(f->g, a, b));
    assert_ok(plan_memory(f->g, &p));
    place at[2] = {p.place[s->out[0]->id], p.place[s->out[1]->id]};
    for (int k = 0; k < 2; k++) {
        assert_int_equal(at[k].home, p.place[h->id].home);
        assert_int_equal(at[k].column, k ? 3 : 0);
        assert_int_equal(at[k].stride, 8);
    }
    assert_true(p.free_of_work[s->id]);
    assert_int_equal(p.place[a->id].home, p.place[y->id].home); // and the concat's inputs lie in it
    assert_int_equal(p.place[b->id].column, 3);
    assert_true(p.free_of_work[y->maker->id]);
    assert_true(p.home[p.place[h->id].home].last >= b->maker->id); // h lives as long as its views
    program_equals_oracle(f);
}

/* A split of an input leaf is a view of the leaf; a concat of leaves, or of one value twice, must copy. */
static void leaves_and_copies(void **state)
{
    fixture *f = *state;
    memory_plan p;
    tensor *x = input(f->g, "x", 4, 8);
    node *s = halves(f->g, x, 3, 5);
    tensor *a = norm(f->g, s->out[0], NULL);
    tensor *twice = keep(side_by_side(f->g, a, a)), *back = keep(side_by_side(f->g, s->out[1], s->out[0]));
    assert_ok(plan_memory(f->g, &p));
    assert_int_equal(p.home[p.place[s->out[1]->id].home].leaf, x->id);
    assert_true(p.free_of_work[s->id]);
    assert_false(p.free_of_work[twice->maker->id]);
    assert_false(p.free_of_work[back->maker->id]);
    program_equals_oracle(f);
}

static void in_place_when_last(void **state)
{
    fixture *f = *state;
    memory_plan p;
    tensor *x = input(f->g, "x", 4, 8), *h = norm(f->g, x, NULL), *k = norm(f->g, h, NULL);
    tensor *over = add(f->g, h, k);      // h's last reader: takes its place
    tensor *beside = add(f->g, over, x); // over is read again below
    keep(add(f->g, over, beside));
    assert_ok(plan_memory(f->g, &p));
    assert_int_equal(p.place[over->id].home, p.place[h->id].home);
    assert_int_not_equal(p.place[beside->id].home, p.place[over->id].home);
    program_equals_oracle(f);
}

/* A value read twice by its last reader is not overwritten: a sum of three reads the second time after it
 * wrote. Nor is one of which the same reader reads a view. */
static void not_in_place_when_read_twice(void **state)
{
    fixture *f = *state;
    tensor *h = norm(f->g, input(f->g, "x", 4, 8), NULL), *k = norm(f->g, input(f->g, "z", 4, 8), NULL);
    keep(g_out(g_node(f->g, OP_sum, IN(h, k, h), NO_ATTRS), 0));
    tensor *base = norm(f->g, input(f->g, "w", 4, 8), NULL);
    tensor *view = g_out(g_node(f->g, OP_split, IN(base), WITH({"n0", 8})), 0);
    keep(g_out(g_node(f->g, OP_sum, IN(base, k, view), NO_ATTRS), 0));
    program_equals_oracle(f);
}

/* What is alive at once must not lie over one another even when a view outlives what it views: the last
 * reader of h is a sum whose result a concat wants, while a half of h is read afterwards. */
static void view_outlives_its_base(void **state)
{
    fixture *f = *state;
    tensor *h = norm(f->g, input(f->g, "x", 4, 8), NULL);
    node *s = halves(f->g, h, 3, 5);
    tensor *z = add(f->g, h, input(f->g, "b", 4, 8));
    tensor *late = norm(f->g, s->out[1], NULL);
    keep(side_by_side(f->g, z, late));
    program_equals_oracle(f);
}

/* The same, with the in-place candidate itself a view of a kept value. */
static void kept_base_is_not_overwritten(void **state)
{
    fixture *f = *state;
    tensor *h = keep(norm(f->g, input(f->g, "x", 4, 8), NULL));
    node *s = halves(f->g, h, 3, 5);
    keep(add(f->g, s->out[0], input(f->g, "b", 4, 3)));
    program_equals_oracle(f);
}

/* A chain needs two values and one row of statistics at a time: [4, 8] f32 is 128 bytes, [4, 1] is padded
 * to 64. */
static void best_fit(void **state)
{
    fixture *f = *state;
    memory_plan p;
    tensor *h = input(f->g, "x", 4, 8);
    for (int i = 0; i < 10; i++) h = norm(f->g, h, NULL);
    keep(h);
    assert_ok(plan_memory(f->g, &p));
    assert_int_equal(p.lower_bound, 2 * 128 + 64);
    assert_int_equal(p.bytes, p.lower_bound);
    program_equals_oracle(f);
}

static void plan_refuses_a_conflict(void **state)
{
    fixture *f = *state;
    memory_plan p;
    tensor *x = input(f->g, "x", 4, 8), *h = norm(f->g, x, NULL), *k = norm(f->g, x, NULL);
    tensor *y = keep(add(f->g, h, k));
    assert_ok(plan_memory(f->g, &p));
    i64 offset = p.home[p.place[k->id].home].offset;
    p.home[p.place[k->id].home].offset = p.home[p.place[h->id].home].offset;
    assert_fails(plan_verify(f->g, &p), ERR_CHECK,
                 "plan: rms_norm (rms_norm) overwrites output 0 of rms_norm, which is read later");
    p.home[p.place[k->id].home].offset = offset;
    assert_ok(plan_verify(f->g, &p));
    p.place[y->id] = (place){p.place[k->id].home, 1, 8}; // over an input, but shifted by one element
    assert_fails(plan_verify(f->g, &p), ERR_CHECK, "plan: output 0 of sum (sum) lies over its own input 1");
}

/* ---- autodiff */

static void sum_of_several_uses(void **state)
{
    fixture *f = *state;
    tensor *x = input(f->g, "x", 2, 3);
    x->wants_grad = true;
    tensor *a = g_out(g_node(f->g, OP_sum, IN(x, x, x, x), NO_ATTRS), 0);
    tensor *y = add(f->g, add(f->g, a, x), add(f->g, x, x));
    backward(f->g, y);
    store *s;
    program *p;
    assert_ok(store_open(f->a, f->g, 0, &s));
    assert_ok(program_open(f->g, s, &(program_options){.device = f->d}, &p));
    float *seed = program_data(p, g_find(f->g, "seed"));
    for (int i = 0; i < 6; i++) seed[i] = (float)(i - 2);
    program_run(p, &step, PHASE_BACKWARD);
    view dx = program_view(p, graph_grad(f->g, x));
    for (int i = 0; i < 6; i++) assert_true(((float *)dx.p)[i] == 7 * (float)(i - 2));
    program_close(p);
    store_close(s);
}

static void tied_parameter(void **state)
{
    fixture *f = *state;
    tensor *p = gain(f->g, "gain", 8), *x = input(f->g, "x", 4, 8);
    assert_ptr_equal(p, gain(f->g, "gain", 8));
    tensor *y = norm(f->g, add(f->g, norm(f->g, x, p), x), p);
    backward(f->g, y);
    int adding = 0;
    for (i64 i = 0; i < f->g->n_nodes; i++)
        for (int k = 0; k < f->g->nodes[i]->n_out; k++) adding += f->g->nodes[i]->out[k] == p->grad;
    assert_int_equal(adding, 2); // both kernels add into the one buffer; no node copies
    gradients_equal_differences(f, y);
    program_equals_oracle(f);
    gain(f->g, "gain", 4);
    assert_fails(graph_status(f->g), ERR_CONFIG,
                 "gain is used with two shapes or roles; tied tensors must agree");
}

/* One gradient that goes to two places: `sum` hands it on. No kernel may then keep it to itself. */
static void shared_gradient(void **state)
{
    fixture *f = *state;
    tensor *p = gain(f->g, "p", 8), *q = gain(f->g, "q", 8), *r = gain(f->g, "r", 8);
    tensor *mixed = add(f->g, p, add(f->g, q, norm(f->g, r, NULL)));
    tensor *y = norm(f->g, input(f->g, "x", 4, 8), add(f->g, mixed, p));
    backward(f->g, y);
    gradients_equal_differences(f, y);
    program_equals_oracle(f);
}

static void through_views(void **state)
{
    fixture *f = *state;
    tensor *x = input(f->g, "x", 4, 8), *h = norm(f->g, x, gain(f->g, "p", 8));
    node *s = halves(f->g, h, 3, 5);
    tensor *a = norm(f->g, s->out[0], gain(f->g, "a", 3)), *b = norm(f->g, s->out[1], gain(f->g, "b", 5));
    tensor *y = add(f->g, side_by_side(f->g, b, a), h);
    x->wants_grad = true;
    backward(f->g, y);
    gradients_equal_differences(f, y);
    program_equals_oracle(f);
}

static void no_path_no_gradient(void **state)
{
    fixture *f = *state;
    tensor *x = input(f->g, "x", 4, 8), *other = input(f->g, "other", 4, 8);
    x->wants_grad = other->wants_grad = true;
    tensor *unused = gain(f->g, "unused", 8);
    norm(f->g, other, unused); // nobody reads it
    backward(f->g, norm(f->g, x, NULL));
    assert_non_null(graph_grad(f->g, x));
    assert_null(graph_grad(f->g, other));
    assert_null(unused->grad);
    assert_int_equal(f->g->n_nodes, 2); // the norm and its gradient: the unused branch is gone
}

static void refuses_what_has_no_gradient(void **state)
{
    fixture *f = *state;
    tensor *x = input(f->g, "x", 4, 8), *s = input(f->g, "s", 4, 1), *y, *seed = input(f->g, "seed", 4, 8);
    x->wants_grad = true;
    y = g_out(g_node(f->g, OP_rms_norm_grad, IN(x, NULL, s, x), NO_ATTRS), 0);
    assert_fails(graph_backward(f->g, &y, &seed, 1), ERR_CHECK,
                 "rms_norm_grad (rms_norm_grad) has no gradient");
}

static void refuses_half_a_split(void **state)
{
    fixture *f = *state;
    tensor *x = input(f->g, "x", 4, 8), *seed = input(f->g, "seed", 4, 3);
    x->wants_grad = true;
    tensor *y = halves(f->g, x, 3, 5)->out[0];
    assert_fails(graph_backward(f->g, &y, &seed, 1), ERR_CHECK, "split: output 1 of split is unused");
}

/* ---- recomputation */

enum { BLOCKS = 4, ROWS = 6, WIDTH = 64 };
static tensor *blocks(graph *g)
{
    char name[32];
    tensor *h = norm(g, input(g, "x", ROWS, WIDTH), NULL);
    for (g->layer = 0; g->layer < BLOCKS; g->layer++) {
        const char *outer = g_push(g, "blocks.%d", g->layer);
        snprintf(name, sizeof name, "gain.%d", g->layer);
        tensor *p = gain(g, name, WIDTH), *t = h;
        h->boundary = true;
        for (int k = 0; k < 3; k++) t = norm(g, add(g, t, h), p);
        h = add(g, h, t);
        g_pop(g, outer);
    }
    g->layer = -1;
    return h;
}

/* The gradients' bits, and the bytes of activations, of the blocks under a policy. */
static i64 gradient_bits(fixture *f, recompute_policy policy, int every, float *out, i64 *clones)
{
    store *s;
    program *p;
    oracle *o;
    assert_int_equal(close_graph((void **)&f) | open_graph((void **)&f), 0);
    backward(f->g, blocks(f->g));
    assert_ok(graph_recompute(f->g, policy, every));
    assert_ok(store_open(f->a, f->g, STORE_GRADIENTS, &s));
    assert_ok(
        program_open(f->g, s, &(program_options){.device = f->d, .isa = device_about(f->d)->level}, &p));
    assert_ok(oracle_open(f->g, &o));
    fill(f, p, s, o);
    program_run(p, &step, PHASE_BACKWARD);
    memcpy(out, s->grad, BLOCKS * WIDTH * sizeof *out);
    *clones = 0;
    for (i64 i = 0; i < f->g->n_nodes; i++) *clones += !!f->g->nodes[i]->clone_of;
    i64 bytes = program_about(p)->activations;
    oracle_close(o);
    program_close(p);
    store_close(s);
    program_equals_oracle(f);
    return bytes;
}

static void recomputation_changes_no_bit(void **state)
{
    fixture *f = *state;
    float none[BLOCKS * WIDTH], other[BLOCKS * WIDTH];
    i64 clones, kept_all = gradient_bits(f, RECOMPUTE_NONE, 1, none, &clones), nonzero = 0;
    assert_int_equal(clones, 0);
    for (int i = 0; i < COUNT(none); i++) nonzero += none[i] != 0;
    assert_int_equal(nonzero, COUNT(none));
    i64 cheap = gradient_bits(f, RECOMPUTE_CHEAP, 1, other, &clones);
    assert_memory_equal(none, other, sizeof none);
    assert_true(clones > 0);
    i64 half = gradient_bits(f, RECOMPUTE_BLOCK, 2, other, &clones);
    assert_memory_equal(none, other, sizeof none);
    i64 clones_half = clones, block = gradient_bits(f, RECOMPUTE_BLOCK, 1, other, &clones);
    assert_memory_equal(none, other, sizeof none);
    assert_true(clones > clones_half && clones_half > 0);
    assert_true(block < half && half < kept_all && cheap <= kept_all);
}

/* ---- the oracle */

static void oracle_runs_the_phases(void **state)
{
    fixture *f = *state;
    oracle *o;
    tensor *p = gain(f->g, "p", 2), *y = norm(f->g, input(f->g, "x", 1, 2), p);
    backward(f->g, y);
    assert_ok(oracle_open(f->g, &o));
    memcpy(oracle_data(o, g_find(f->g, "x")), (double[]){3, 4}, 16);
    memcpy(oracle_data(o, p), (double[]){1, 2}, 16);
    memcpy(oracle_data(o, g_find(f->g, "seed")), (double[]){1, 10}, 16);
    assert_ok(oracle_run(o, &step, false));
    double s = 1 / sqrt(12.5 + 1e-5);
    assert_true(fabs(oracle_data(o, y)[1] - 8 * s) < 1e-15);
    assert_true(oracle_data(o, p->grad)[0] == 0); // no backward
    for (int run = 0; run < 2; run++) {           // tallies start at zero each time
        assert_ok(oracle_run(o, &step, true));
        assert_true(fabs(oracle_data(o, p->grad)[0] - 3 * s) < 1e-15);
        assert_true(fabs(oracle_data(o, p->grad)[1] - 40 * s) < 1e-14);
    }
    oracle_close(o);
}

/* ---- the rules of a well-formed graph, each broken once */

static void broken(fixture *f, const char *message) { assert_fails(graph_verify(f->g), ERR_CHECK, message); }

static void rules(void **state)
{
    fixture *f = *state;
    graph *g = f->g;
    tensor *p = gain(g, "p", 8), *x = input(g, "x", 4, 8), *h = norm(g, x, p), *y = add(g, h, x);
    tensor *kv = g_state(g, "cache", DT_F32, 2, (i64[]){4, 8}),
           *tally = g_tally(g, "tally", 2, (i64[]){4, 8});
    backward(g, y);
    node *n = h->maker, *m = y->maker, *d = find(g, "rms_norm.rms_norm_grad");
    assert_ok(graph_verify(g));

    g->nodes[0] = m, g->nodes[1] = n;
    broken(f, "node 0, sum (sum): reads a value that no earlier node computes");
    g->nodes[0] = n, g->nodes[1] = m;

    n->in[0] = NULL;
    broken(f, "node 0, rms_norm (rms_norm): a required input is missing");
    n->in[0] = x;

    node *second = g->nodes[1];
    g->nodes[1] = n;
    broken(f, "node 1, rms_norm (rms_norm): computes a value that another node computed");
    g->nodes[1] = second;

    h->maker = m;
    broken(f, "node 0, rms_norm (rms_norm): is not the maker its output names");
    h->maker = n;

    m->out[0] = x;
    broken(f, "node 1, sum (sum): writes a leaf");
    m->out[0] = kv;
    broken(f, "node 1, sum (sum): writes a state outside a commit");
    m->out[0] = tally;
    broken(f, "node 1, sum (sum): a tally must be added to, and only a tally");
    m->accumulate = 1;
    broken(f, "node 1, sum (sum): accumulates into an output whose kernel overwrites");
    m->accumulate = 0, m->out[0] = y;

    d->accumulate = 0;
    broken(f, "node 2, rms_norm_grad (rms_norm.rms_norm_grad): a tally must be added to, and only a tally");
    d->accumulate = 2;

    n->phase = PHASE_BACKWARD;
    broken(f, "node 1, sum (sum): a forward node reads a backward value");
    n->phase = PHASE_FORWARD;

    x->dtype = DT_I32;
    broken(f, "node 0, rms_norm (rms_norm): mixes indices and numbers");
    x->dtype = DT_F32;
    assert_ok(graph_verify(g));
}

static void prune(void **state)
{
    fixture *f = *state;
    tensor *x = input(f->g, "x", 4, 8), *dead = norm(f->g, x, NULL), *y = keep(norm(f->g, x, NULL));
    norm(f->g, dead, NULL); // a chain of two that nobody reads
    node *adds = g_node(f->g, OP_accumulate, IN(x), NO_ATTRS);
    adds->out[0] = g_tally(f->g, "tally", 2, x->dim);
    adds->accumulate = 1;
    graph_prune(f->g);
    assert_int_equal(f->g->n_nodes, 2);
    assert_ptr_equal(f->g->nodes[0], y->maker);
    assert_ptr_equal(f->g->nodes[1], adds);
    assert_int_equal(y->maker->id, 0);
    assert_int_equal(adds->id, 1);
    assert_ok(graph_verify(f->g));
}

/* The listing of a small graph and its gradient: a change of a pass shows here. */
static void listing(void **state)
{
    fixture *f = *state;
    text t = {0};
    const char *outer = g_push(f->g, "block");
    tensor *x = input(f->g, "x", 4, 8);
    tensor *y = add(f->g, norm(f->g, x, gain(f->g, "p", 8)), x);
    g_pop(f->g, outer);
    backward(f->g, y);
    graph_print(f->g, &t);
    assert_string_equal(
        t.data, "   0 F %2:f32[4,8], %3:f32[4,1] = rms_norm (x:f32[4,8], p:f32[8])  # block.rms_norm\n"
                "   1 F %4:f32[4,8] = sum (%2:f32[4,8], x:f32[4,8])  # block.sum\n"
                "   2 B %6:f32[4,8], grad.p:f32[8] += rms_norm_grad (x:f32[4,8], p:f32[8], %3:f32[4,1], "
                "seed:f32[4,8])  # block.rms_norm.rms_norm_grad\n");
    text_free(&t);
}

/* ---- refused when built: the first error wins and names the node */
static void sticky_errors(void **state)
{
    fixture *f = *state;
    tensor *x = input(f->g, "x", 4, 8);
    norm(f->g, add(f->g, x, input(f->g, "z", 4, 7)), NULL);
    g_node(f->g, OP_rms_norm, IN(x), WITH({"epsilon", 1}));
    assert_fails(graph_status(f->g), ERR_CONFIG, "sum (sum): input 1 has another shape");
    g_node(f->g, OP_rms_norm, IN(x), WITH({"epsilon", 1}));
    assert_fails(graph_status(f->g), ERR_CONFIG, "rms_norm (rms_norm): has no attribute epsilon");
    g_node(f->g, OP_rms_norm, IN(g_input(f->g, "ids", DT_I32, 1, (i64[]){3})), NO_ATTRS);
    assert_fails(graph_status(f->g), ERR_CONFIG, "rms_norm (rms_norm): input x must hold numbers");
    assert_ok(graph_status(f->g));
    assert_int_equal(f->g->n_nodes, 0);
}

/* ---- what comes from outside: index ranges and shapes against what an op documents */
static void documented_bounds(void **state)
{
    fixture *f = *state;
    tensor *x = input(f->g, "x", 4, 8), *w = input(f->g, "w", 3, 4),
           *ids = g_input(f->g, "i", DT_I32, 2, (i64[]){1, 4});
    op_def def = {.name = "look",
                  .in = {{"x", "[rows, 2n]"}, {"w", "[V, n]"}, {"ids", "[rows]", ARG_I32}},
                  .attrs = {{"limit", 2, 0, 9, ""}}};
    node n = {.def = &def, .n_in = 3, .in = {x, w, ids}, .attr = {2}};
    const double low[] = {0, -1, 2, 1}, high[] = {0, 1, 2, 3}, at[] = {0, 1, 2, 2}, late[] = {0, 2, 2, 2};
    assert_fails(index_check(&n, 2, at), ERR_CHECK,
                 "look: index input ids documents no range that can be checked (op_arg.range is missing)");
    def.in[2].range = "0:w.0";
    assert_ok(index_check(&n, 2, at));
    assert_fails(index_check(&n, 2, low), ERR_INPUT,
                 "look: value 1 of ids is -1; it must be from 0 to 2 (0:w.0)");
    assert_fails(index_check(&n, 2, high), ERR_INPUT,
                 "look: value 3 of ids is 3; it must be from 0 to 2 (0:w.0)");
    def.in[2].range = "-1:w.-1";
    assert_ok(index_check(&n, 2, low));
    def.in[2].range = "0:limit";
    assert_fails(index_check(&n, 2, at), ERR_INPUT,
                 "look: value 2 of ids is 2; it must be from 0 to 1 (0:limit)");
    def.in[2].range = "0:column";
    assert_ok(index_check(&n, 2, at));
    assert_fails(index_check(&n, 2, late), ERR_INPUT,
                 "look: value 1 of ids is 2; it must be from 0 to 1 (0:column)");
    def.in[2].range = "0:z.0";
    assert_fails(index_check(&n, 2, at), ERR_CHECK,
                 "look: index input ids documents no range that can be checked (op_arg.range is 0:z.0)");

    assert_ok(shapes_check(&n));
    n.in[1] = input(f->g, "v", 3, 5);
    assert_fails(shapes_check(&n), ERR_CONFIG,
                 "look: input w must be [V, n], but n is 5 there and must be 4");
    n.in[1] = w, n.in[2] = x;
    assert_fails(shapes_check(&n), ERR_CONFIG,
                 "look: input ids must be [rows], but rows is 32 there and must be 4");
    tensor *row = g_input(f->g, "row", DT_F32, 1, (i64[]){8});
    n.in[0] = row, n.in[2] = NULL;
    assert_ok(shapes_check(&n)); // a vector is one row
    n.in[0] = x, n.in[1] = row;
    assert_fails(shapes_check(&n), ERR_CONFIG,
                 "look: input w must be [V, n], but has 1 axes"); // but not a matrix
    n.in[1] = w;
    n.in[2] = ids, def.in[2].shape = "[a, b, c]";
    assert_fails(shapes_check(&n), ERR_CONFIG, "look: input ids must be [a, b, c], but has 2 axes");
    def.in[2].shape = "[rows/limit/limit, rows + m]"; // m belongs to an absent input
    assert_ok(shapes_check(&n));
    def.in[2].shape = "[1, (heads + 2) width]"; // not of the enforced form
    assert_ok(shapes_check(&n));
}

/* ---- every allocation fails once: a clean status, nothing left behind (the sanitizer build sees leaks) */
static status open_everything(fixture *f, arena **a)
{
    store *s = NULL;
    program *p = NULL;
    oracle *o = NULL;
    TRY(arena_open(a));
    graph *g = graph_new(*a, &(graph_options){.act = DT_BF16, .stream = DT_BF16});
    tensor *y = blocks(g), *seed = g_input(g, "seed", y->dtype, y->ndim, y->dim);
    status failed = graph_backward(g, &y, &seed, 1);
    if (!failed) failed = store_open(*a, g, STORE_GRADIENTS | STORE_MOMENTS, &s);
    if (!failed) failed = program_open(g, s, &(program_options){.device = f->d}, &p);
    if (!failed) failed = oracle_open(g, &o);
    if (!failed) {
        program_run(p, &step, PHASE_BACKWARD);
        failed = oracle_run(o, &step, true);
    }
    oracle_close(o);
    program_close(p);
    store_close(s);
    return failed;
}

static void every_allocation_fails(void **state)
{
    fixture *f = *state;
    i64 k = 0, needed;
    for (bool done = false; !done;) {
        arena *a = NULL;
        fault_set(FAULT_ALLOC, ++k);
        status s = open_everything(f, &a);
        needed = fault_count(FAULT_ALLOC);
        fault_set(FAULT_ALLOC, 0);
        done = needed < k; // the k-th never came
        if (done)
            assert_null(s);
        else {
            assert_non_null(s);
            assert_int_equal(s->code, ERR_MEMORY);
            assert_int_equal(needed, k); // nothing goes on after the failure
        }
        status_drop(s);
        arena_close(a);
    }
    assert_true(k > 10);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_graph, close_graph)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(split_is_views),
        TEST(leaves_and_copies),
        TEST(in_place_when_last),
        TEST(not_in_place_when_read_twice),
        TEST(view_outlives_its_base),
        TEST(kept_base_is_not_overwritten),
        TEST(best_fit),
        TEST(plan_refuses_a_conflict),
        TEST(sum_of_several_uses),
        TEST(tied_parameter),
        TEST(shared_gradient),
        TEST(through_views),
        TEST(no_path_no_gradient),
        TEST(refuses_what_has_no_gradient),
        TEST(refuses_half_a_split),
        TEST(recomputation_changes_no_bit),
        TEST(oracle_runs_the_phases),
        TEST(rules),
        TEST(prune),
        TEST(listing),
        TEST(sticky_errors),
        TEST(documented_bounds),
        TEST(every_allocation_fails),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}

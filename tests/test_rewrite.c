/* Rewrites. Every rule of the table (graph/rewrite.h) is proven on the cases of its fused op: the sequence is
 * built from the rule's own text, once left alone and once rewritten; both run in double (1e-12) and by the
 * kernels of every instruction set, whose bits must agree in f32 and bf16. Then where a rule must not fit,
 * sequences that are wrong, and whole models with and without rewrites. */
#include "check.h"
#include "base/random.h"
#include "config/config.h"
#include "graph/rewrite.h"
#include "graph/trial.h"
#include "model/model.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static const step_info step = {.seed = 1, .step = 1};

static int open_device(void **state)
{
    static device *d;
    assert_ok(device_open(&(device_options){0}, &d));
    *state = d;
    return 0;
}
static int close_device(void **state)
{
    device_close(*state);
    return 0;
}

/* ---- two graphs, one rewritten, on equal leaves */
typedef struct side {
    arena *a;
    graph *g;
    oracle *o;
    program *p;
    store *s;
} side;

static void side_open(side *x, dtype act, dtype stream)
{
    *x = (side){0};
    assert_ok(arena_open(&x->a));
    x->g = graph_new(x->a, &(graph_options){.act = act, .stream = stream});
}
static void side_stop(side *x) // the programs
{
    program_close(x->p);
    store_close(x->s);
    x->p = NULL;
    x->s = NULL;
}
static void side_close(side *x)
{
    side_stop(x);
    oracle_close(x->o);
    graph_close(x->g);
    arena_close(x->a);
}

/* What an index input of a model holds; others: N(0, 1), so that both sides have the same. */
static double leaf_value(const tensor *t, i64 i)
{
    if (t->dtype == DT_I32 && !strcmp(t->path, "position")) return (double)(i % cols(t));
    if (t->dtype == DT_I32 && !strcmp(t->path, "doc_start")) return 0;
    if (t->dtype == DT_I32) return (double)(random_bits(3, random_stream(t->path), 0, (u64)i) % 60);
    double z = random_normal(3, random_stream(t->path), 0, (u64)i);
    if (!strcmp(t->path, "inverse_count")) return 0.01;
    if (t->role == ROLE_PARAM) z = t->param.kind == PARAM_GAIN ? 1 + 0.1 * z : 0.1 * z;
    return bf16_to_f32(f32_to_bf16((float)z));
}

static void run_double(side *x)
{
    assert_ok(oracle_open(x->g, &x->o));
    for (i64 i = 0; i < x->g->n_tensors; i++) {
        const tensor *t = x->g->tensors[i];
        if (t->role != ROLE_INPUT && t->role != ROLE_PARAM) continue;
        for (i64 k = 0; k < count(t); k++) oracle_data(x->o, t)[k] = leaf_value(t, k);
    }
    assert_ok(oracle_run(x->o, &step, true));
}

static void put(void *to, dtype type, i64 k, double v)
{
    if (type == DT_F32) ((float *)to)[k] = (float)v;
    if (type == DT_BF16) ((bf16 *)to)[k] = f32_to_bf16((float)v);
    if (type == DT_I32) ((i32 *)to)[k] = (i32)v;
}

static void run_kernels(side *x, device *d, isa level)
{
    side_stop(x);
    assert_ok(store_open(x->a, x->g, STORE_GRADIENTS, &x->s));
    assert_ok(program_open(x->g, x->s, &(program_options){.device = d, .isa = level}, &x->p));
    for (i64 i = 0; i < x->g->n_tensors; i++) {
        const tensor *t = x->g->tensors[i];
        for (i64 k = 0; t->role == ROLE_INPUT && k < count(t); k++)
            put(program_data(x->p, t), t->dtype, k, leaf_value(t, k));
        for (i64 k = 0; t->role == ROLE_PARAM && k < count(t); k++)
            store_find(x->s, t->path)->master[k] = (float)leaf_value(t, k);
    }
    store_sync(x->s);
    program_zero_tallies(x->p);
    program_run(x->p, &step, PHASE_BACKWARD);
}

static bool compared(const tensor *t) { return t->role == ROLE_TALLY || (t->role == ROLE_VALUE && t->keep); }

/* Tensor ids of both sides are equal: they are built alike and rewriting only adds to the end. */
static void equal_in_double(const side *a, const side *b)
{
    i64 n = 0;
    for (i64 i = 0; i < a->g->n_tensors; i++) {
        const tensor *t = a->g->tensors[i];
        double square = 0;
        if (!compared(t)) continue;
        const double *x = oracle_data(a->o, t), *y = oracle_data(b->o, b->g->tensors[i]);
        for (i64 k = 0; k < count(t); k++) square += x[k] * x[k];
        double scale = sqrt(square / (double)count(t));
        for (i64 k = 0; k < count(t); k++, n++)
            if (!(fabs(x[k] - y[k]) <= 1e-12 * (fabs(x[k]) + scale + 1e-4))) // a key's bias has gradient 0
                fail_msg("%s[%lld]: %.17g rewritten, %.17g not", t->path, (long long)k, y[k], x[k]);
    }
    assert_true(n > 0);
}

static void equal_bits(const side *a, const side *b, isa level)
{
    for (i64 i = 0; i < a->g->n_tensors; i++) {
        const tensor *t = a->g->tensors[i];
        if (!compared(t)) continue;
        view v = program_view(a->p, t), w = program_view(b->p, b->g->tensors[i]);
        size_t bytes = (size_t)(v.n * dtype_bytes(v.dtype));
        for (i64 r = 0; r < v.rows; r++)
            if (memcmp((char *)v.p + r * v.stride * dtype_bytes(v.dtype),
                       (char *)w.p + r * w.stride * dtype_bytes(w.dtype), bytes))
                fail_msg("%s, row %lld, %s, %s: other bits once rewritten", t->path, (long long)r,
                         isa_name(level), dtype_name(a->g->options.act));
    }
}

static void equal_kernels(side *a, side *b, device *d)
{
    cpu_facts cpu;
    cpu_detect(&cpu);
    for (isa level = ISA_PLAIN; level <= cpu.level; level++) {
        if (!op_table(level, 0)) continue;
        run_kernels(a, d, level);
        run_kernels(b, d, level);
        equal_bits(a, b, level);
    }
}

/* ---- every rule on every case of its op */

/* The sequence of U on leaves with the shapes of SPEC. False: SPEC lacks an input that a step needs. */
static bool build_sequence(graph *g, const rewrite_rule *u, const case_spec *spec)
{
    const op_def *fused = op_table(ISA_PLAIN, u->fused);
    tensor *bound[MAX_NAMES] = {0};
    for (int i = 0; i < MAX_IN && fused->in[i].name; i++) {
        const case_input *in = &spec->in[i];
        dtype type = fused->in[i].kind == ARG_F32 ? DT_F32 : g->options.act;
        if (in->present) bound[u->in[i]] = g_input(g, fused->in[i].name, type, in->ndim, in->dim);
    }
    for (int k = 0; k < u->n_steps; k++) {
        const rewrite_step *s = &u->step[k];
        const op_def *def = op_table(ISA_PLAIN, s->op);
        tensor *in[MAX_IN] = {0};
        op_set attrs[MAX_ATTRS + 1] = {0};
        int n = 0;
        bool needed = s->op == OP_sum; // all that the rule names
        for (int i = 0; i < s->n_in; i++) {
            in[i] = bound[s->in[i]];
            if (!in[i] && (needed || !def->in[i].optional)) return false;
        }
        for (const op_set *set = spec->attrs; set->name; set++)
            for (int i = 0; i < MAX_ATTRS && def->attrs[i].name; i++)
                if (!strcmp(set->name, def->attrs[i].name)) attrs[n++] = *set;
        node *made = g_node(g, s->op, in, s->n_in, attrs);
        assert_ok(graph_status(g));
        for (int i = 0; i < s->n_out; i++) {
            tensor *t = bound[s->out[i]] = made->out[i];
            if (!t) continue;
            t->keep = !u->inner[s->out[i]];
            if (!(def->flags & OP_ACCUMULATES) || def->out[i].kind != ARG_F32) continue;
            made->out[i] = g_tally(g, def->out[i].name, t->ndim, t->dim); // as autodiff binds it
            made->accumulate |= 1u << i;
            t->keep = false;
        }
    }
    return true;
}

static bool prove(const rewrite_rule *u, const char *line, dtype act, device *d)
{
    case_spec spec;
    i64 applied;
    side a, b;
    assert_ok(case_parse(op_table(ISA_PLAIN, u->fused), line, &spec));
    if (spec.bench || (act == DT_BF16 && !spec.bf16)) return false;
    side_open(&a, act, act);
    side_open(&b, act, act);
    bool whole = build_sequence(a.g, u, &spec) && build_sequence(b.g, u, &spec);
    if (whole) {
        assert_ok(graph_verify(a.g));
        assert_ok(graph_rewrite(b.g, &applied));
        assert_int_equal(applied, 1);
        assert_int_equal(b.g->n_nodes, 1);
        assert_int_equal(b.g->nodes[0]->op, u->fused);
        run_double(&a);
        run_double(&b);
        equal_in_double(&a, &b);
        equal_kernels(&a, &b, d);
    }
    side_close(&a);
    side_close(&b);
    return whole;
}

static void every_rule_is_proven(void **state)
{
    rewrite_rule *rules;
    i64 n;
    arena *a;
    assert_ok(arena_open(&a));
    assert_ok(rewrite_rules(a, &rules, &n));
    assert_true(n >= 6);
    for (i64 i = 0; i < n; i++) {
        int proofs[2] = {0};
        for (const op_case *c = op_table(ISA_PLAIN, rules[i].fused)->cases; c && c->label; c++)
            for (dtype act = DT_F32; act <= DT_BF16; act++)
                proofs[act] += prove(&rules[i], c->line, act, *state);
        if (!proofs[DT_F32] || !proofs[DT_BF16]) fail_msg("no case proves \"%s\"", rules[i].text);
    }
    arena_close(a);
}

/* ---- where a rule must not fit */
static tensor *rows(graph *g, const char *name)
{
    return g_input(g, name, g->options.act, 2, (i64[]){5, 64});
}
static tensor *first(node *n) { return g_out(n, 0); }
static tensor *keep(tensor *t) { return t->keep = true, t; }
static tensor *norm(graph *g, tensor *x) { return first(g_node(g, OP_rms_norm, IN(x), NO_ATTRS)); }
static node *norm_grad(graph *g)
{
    tensor *s = g_input(g, "s", DT_F32, 2, (i64[]){5, 1});
    return g_node(g, OP_rms_norm_grad, IN(rows(g, "x"), NULL, s, rows(g, "dy")), NO_ATTRS);
}
static tensor *add(graph *g, tensor *a, tensor *b) { return first(g_node(g, OP_sum, IN(a, b), NO_ATTRS)); }
static tensor *join(graph *g) { return first(g_node(g, OP_joint, IN(rows(g, "x"), rows(g, "b")), NO_ATTRS)); }

static void plain(graph *g) { keep(norm(g, join(g))); }
static void two_norms(graph *g)
{
    tensor *h = join(g);
    keep(norm(g, h)), keep(norm(g, h));
}
static void kept_stream(graph *g) { keep(norm(g, keep(join(g)))); }
static void apart(graph *g)
{
    tensor *h = join(g);
    keep(add(g, h, rows(g, "c")));
    keep(norm(g, h));
}
static void backward_norm(graph *g)
{
    tensor *h = join(g);
    g->phase = PHASE_BACKWARD;
    keep(norm(g, h));
}
static void gradient(graph *g) { keep(add(g, rows(g, "c"), first(norm_grad(g)))); }
static void kept_gradient(graph *g) { keep(add(g, rows(g, "c"), keep(first(norm_grad(g))))); }
static void read_twice(graph *g)
{
    tensor *d = first(norm_grad(g));
    keep(norm(g, keep(add(g, rows(g, "c"), d)))), keep(add(g, d, rows(g, "c")));
}
static void doubled(graph *g)
{
    tensor *d = first(norm_grad(g));
    keep(add(g, d, d));
}
static void of_three(graph *g)
{
    tensor *d = first(norm_grad(g));
    keep(first(g_node(g, OP_sum, IN(rows(g, "c"), rows(g, "e"), d), NO_ATTRS)));
}
static void two_gradients(graph *g)
{
    tensor *d = first(norm_grad(g));
    keep(add(g, d, first(norm_grad(g))));
}
static void twice_added(graph *g) { keep(add(g, rows(g, "e"), add(g, rows(g, "c"), first(norm_grad(g))))); }
static void same_gradient(graph *g) { keep(add(g, rows(g, "dy"), first(norm_grad(g)))); } // dy is also add
/* add dies here and has dx's shape: dx is computed in its place */
static void in_place(graph *g)
{
    tensor *c = norm(g, rows(g, "c"));
    keep(add(g, c, first(norm_grad(g))));
}
static void in_place_of_dy(graph *g)
{
    tensor *dy = norm(g, rows(g, "c")), *s = g_input(g, "s", DT_F32, 2, (i64[]){5, 2});
    node *n = g_node(g, OP_rms_norm_grad, IN(rows(g, "x"), NULL, s, dy), WITH({"heads", 2}));
    keep(add(g, dy, first(n)));
}

static void fits_only_where_it_may(void **state)
{
    static const struct {
        const char *name;
        void (*build)(graph *g);
        i64 applied, nodes;
    } table[] = {
        {"plain", plain, 1, 1},
        {"two norms of one stream", two_norms, 1, 2},
        {"a kept stream", kept_stream, 1, 1},
        {"a node between", apart, 0, 3},
        {"two phases", backward_norm, 0, 2},
        {"gradient", gradient, 1, 1},
        {"a kept gradient", kept_gradient, 0, 2},
        {"a gradient with two readers", read_twice, 0, 4},
        {"a gradient added to itself", doubled, 0, 2},
        {"a sum of three", of_three, 0, 2},
        {"two gradients", two_gradients, 1, 2},
        {"already added", twice_added, 1, 2},
        {"add is dy", same_gradient, 1, 1},
        {"dx over add", in_place, 1, 2},
        {"dx over add and dy", in_place_of_dy, 1, 2},
    };
    for (i64 i = 0; i < COUNT(table); i++)
        for (dtype act = DT_F32; act <= DT_BF16; act++) {
            side a, b;
            i64 applied;
            side_open(&a, act, act);
            side_open(&b, act, act);
            table[i].build(a.g);
            table[i].build(b.g);
            assert_ok(graph_rewrite(b.g, &applied));
            if (applied != table[i].applied || b.g->n_nodes != table[i].nodes)
                fail_msg("%s: %lld rewrites, %lld nodes", table[i].name, (long long)applied,
                         (long long)b.g->n_nodes);
            run_double(&a);
            run_double(&b);
            equal_in_double(&a, &b);
            equal_kernels(&a, &b, *state);
            side_close(&a);
            side_close(&b);
        }
}

/* ---- sequences that are wrong */
static void wrong_sequences(void **state)
{
    static const struct {
        const char *text, *message;
    } table[] = {
        {"h = join(x, b); y, s = rms_norm(h, gain)", "op joint_rms_norm: an unknown op in the sequence it "
                                                     "replaces, at '(x, b); y, s = rms_norm(h, gain)' of "
                                                     "\"h = join(x, b); y, s = rms_norm(h, gain)\""},
        {"h = joint(x, b); y, s = rms_norm(h)",
         "op joint_rms_norm: its input gain is not in the sequence it replaces, \"h = joint(x, b); y, s = "
         "rms_norm(h)\""},
        {"h = joint(x, b); y, t = rms_norm(h, gain)",
         "op joint_rms_norm: its output s is not in the sequence it replaces, \"h = joint(x, b); y, t = "
         "rms_norm(h, gain)\""},
        {"h = joint(x, b); y, s = rms_norm(h, gains)",
         "op joint_rms_norm: its input gain is not in the sequence it replaces, \"h = joint(x, b); y, s = "
         "rms_norm(h, gains)\""},
        {"h = joint(x, b); y, s = rms_norm(h, gain); z = cast(y)",
         "op joint_rms_norm: attribute to of cast would be lost"},
        {"h = joint(x, b); y, s = rms_norm(h, gain); z = joint(y, x)",
         "op joint_rms_norm: attribute a of joint is also one of an earlier step"},
        {"h = sum(x, b); y, s = rms_norm(h, gain)",
         "op joint_rms_norm has attributes that no step of its sequence has"},
        {"h = joint(x, b); h = rms_norm(h, gain)",
         "op joint_rms_norm: a name is computed after it was used in the sequence it replaces, at '= "
         "rms_norm(h, gain)' of \"h = joint(x, b); h = rms_norm(h, gain)\""},
        {"h = joint(x, b) y",
         "op joint_rms_norm: ';' is missing in the sequence it replaces, at 'y' of \"h = joint(x, b) y\""},
        {"h = joint(x, h)",
         "op joint_rms_norm: a step reads what it computes in the sequence it replaces, at "
         "'' of \"h = joint(x, h)\""},
        {"", "op joint_rms_norm: a name is missing in the sequence it replaces, at '' of \"\""},
    };
    arena *a;
    rewrite_rule u;
    (void)state;
    assert_ok(arena_open(&a));
    for (i64 i = 0; i < COUNT(table); i++)
        assert_fails(rewrite_parse(a, OP_joint_rms_norm, table[i].text, &u), ERR_CHECK, table[i].message);
    arena_close(a);
}

/* ---- whole models */
static void build_model(side *x, const config *c, dtype act, dtype stream, recompute_policy policy,
                        bool fused, i64 *applied)
{
    model m;
    model_shape shape = {.rows = 2, .tokens = 16, .mode = MODE_TRAIN, .act = act, .stream = stream};
    *x = (side){0};
    assert_ok(arena_open(&x->a));
    assert_ok(model_build(x->a, c, &shape, &m));
    x->g = m.g;
    assert_ok(graph_backward(m.g, NULL, NULL, 0));
    assert_ok(graph_recompute(m.g, policy, 1));
    if (fused) assert_ok(graph_rewrite(m.g, applied));
    assert_true(m.loss->keep);
}

static void one_model(const char *const *keys, i64 n, recompute_policy policy, i64 wanted, device *d)
{
    static const dtype storage[][2] = {{DT_F32, DT_F32}, {DT_BF16, DT_BF16}, {DT_BF16, DT_F32}};
    config *c;
    assert_ok(config_load(NULL, keys, n, &c));
    bool one_storage =
        strstr(keys[n - 1], "post"); // its branches read the stream itself, which must be bf16 too
    for (i64 i = 0; i < COUNT(storage) - one_storage; i++) {
        side a, b;
        i64 applied = 0;
        build_model(&a, c, storage[i][0], storage[i][1], policy, false, NULL);
        build_model(&b, c, storage[i][0], storage[i][1], policy, true, &applied);
        if (applied != wanted)
            fail_msg("%s, policy %d: %lld rewrites, not %lld", keys[0], policy, (long long)applied,
                     (long long)wanted);
        assert_int_equal(b.g->n_nodes, a.g->n_nodes - applied);
        memory_plan plan;
        assert_ok(plan_memory(b.g, &plan)); // runs plan_verify
        if (!i) run_double(&a), run_double(&b), equal_in_double(&a, &b);
        equal_kernels(&a, &b, d);
        side_close(&a);
        side_close(&b);
    }
    config_close(c);
}

static void whole_models(void **state)
{
    static const char *const gpt2[] = {
        "model.preset=gpt2-124m", "model.layers=2",          "model.width=48",
        "model.vocab=61",         "model.attention.heads=4", "model.ffn.width=96",
        "model.context=16",       "model.dropout=0.1",       "train.batch_tokens=32"};
    static const char *const llama[] = {
        "model.preset=llama-10m",  "model.layers=3",     "model.width=48",   "model.vocab=61",
        "model.attention.heads=4", "model.ffn.width=80", "model.context=16", "train.batch_tokens=32"};
    static const char *const post[] = {
        "model.preset=llama-10m", "model.layers=2",          "model.width=48",
        "model.vocab=61",         "model.attention.heads=4", "model.ffn.width=80",
        "model.context=16",       "train.batch_tokens=32",   "model.norm.preset=post"};
    static const char *const hyper[] = {
        "model.preset=llama-10m", "model.layers=3",          "model.width=48",
        "model.vocab=61",         "model.attention.heads=4", "model.ffn.width=80",
        "model.context=16",       "train.batch_tokens=32",   "model.residual.kind=hyper"};
    // A joint before a norm: one a branch (gpt2 without dropout: and the embedding's). A skip: one a branch.
    // cheap: no more, since joints are not computed again (ops/joint.c says why); block: and the clone of the
    // joint inside every block.
    one_model(gpt2, COUNT(gpt2), RECOMPUTE_NONE, 8, *state);
    one_model(gpt2, COUNT(gpt2) - 2, RECOMPUTE_CHEAP, 9, *state);
    one_model(gpt2, COUNT(gpt2), RECOMPUTE_BLOCK, 10, *state);
    one_model(llama, COUNT(llama), RECOMPUTE_NONE, 12, *state);
    one_model(llama, COUNT(llama), RECOMPUTE_CHEAP, 12, *state);
    one_model(llama, COUNT(llama), RECOMPUTE_BLOCK, 15, *state);
    one_model(post, COUNT(post), RECOMPUTE_NONE, 4, *state);
    // A close before an open, and their gradients: between every two of six branches. block: not the
    // gradients where a block's clones stand between, but the clones inside each block.
    one_model(hyper, COUNT(hyper), RECOMPUTE_NONE, 10, *state);
    one_model(hyper, COUNT(hyper), RECOMPUTE_BLOCK, 11, *state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_rule_is_proven),
        cmocka_unit_test(fits_only_where_it_may),
        cmocka_unit_test(wrong_sequences),
        cmocka_unit_test(whole_models),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}

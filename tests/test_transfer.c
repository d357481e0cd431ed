/* muP (train.transfer): the table of the spec, class by class, in both forms; the base width and kind none
 * are equal to the bit through training; what grows with the width and what does not; the rule of weight
 * decay; what it is in the graph (scores, tied head, branches); what is refused. */
#include "model_case.h"
#include "optim/optimizer.h"
#include "train/session.h"

static device *cpu;
static const model_case plain = {
    .name = "plain",
    .yaml = "model: {layers: 2, width: 64, vocab: 61, context: 12, tie_head: false, attention: {heads: 4}}\n"
            "train: {batch_tokens: 36, precision: f32, transfer: {kind: mup, base_width: 32}}\n"};

typedef struct built {
    arena *arena;
    config *c;
    model m;
} built;

static built build(const char *const *with, i64 n)
{
    built x = {0};
    model_shape shape = {.rows = 1, .tokens = 4, .mode = MODE_TRAIN};
    assert_ok(arena_open(&x.arena));
    x.c = case_config(plain, with, n);
    assert_ok(model_build(x.arena, x.c, &shape, &x.m));
    return x;
}
static void drop(built *x)
{
    graph_close(x->m.g);
    config_close(x->c);
    arena_close(x->arena);
}
static const param_info *info_of(const built *x, const char *path)
{
    const tensor *t = g_find(x->m.g, path);
    if (!t) fail_msg("no %s", path);
    return &t->param;
}
static double rate(const built *x, const char *path)
{
    optimizer o = {0};
    return optimizer_lr_factor(&o, info_of(x, path), 7);
}
static void near(double x, double want) { assert_true(fabs(x - want) <= 1e-12 * fabs(want)); }

static const node *node_of(const built *x, op_id op, int layer)
{
    for (i64 i = 0; i < x->m.g->n_nodes; i++)
        if (x->m.g->nodes[i]->op == op && x->m.g->nodes[i]->layer == layer) return x->m.g->nodes[i];
    return NULL;
}

static const char *const maps[] = {"blocks.0.attention.q.weight", "blocks.1.attention.k.weight",
                                   "blocks.0.attention.o.weight", "blocks.1.ffn.gate.weight",
                                   "blocks.0.ffn.down.weight"};

/* Width 64, base 32, so w = 2; "std" is 1/sqrt(2.5 32); heads of 16, of 8 in the base model. */
static void test_relative(void **state)
{
    (void)state;
    double std = 1 / sqrt(2.5 * 32);
    built x = build(NULL, 0);
    near(info_of(&x, "embedding.weight")->std, std);
    near(rate(&x, "embedding.weight"), 1);
    for (i64 k = 0; k < COUNT(maps); k++) {
        near(info_of(&x, maps[k])->std, std / sqrt(2));
        near(rate(&x, maps[k]), 0.5);
        assert_true(info_of(&x, maps[k])->decay_factor == 0);
    }
    near(info_of(&x, "head.weight")->std, std / 2);
    near(rate(&x, "head.weight"), 0.5);
    near(rate(&x, "norm_final.gain"), 1);
    near(attr(node_of(&x, OP_attention, 1), "scale"), sqrt(8) / 16);
    assert_null(node_of(&x, OP_scale, -1));
    drop(&x);
}

static void test_absolute(void **state)
{
    (void)state;
    const char *with[] = {"train.transfer.form=absolute", "model.ffn.width=96", "model.init.std_factor=0.5"};
    config *c; // the case has a base width, which this form has not
    model_case bare = {.name = "bare",
                       .yaml = "model: {layers: 2, width: 64, vocab: 61, context: 12, tie_head: false,\n"
                               "        attention: {heads: 4}}\ntrain: {transfer: {kind: mup}}\n"};
    built x = {0};
    c = case_config(bare, with, COUNT(with));
    assert_ok(arena_open(&x.arena));
    x.c = c;
    assert_ok(model_build(x.arena, c, &(model_shape){.rows = 1, .tokens = 4, .mode = MODE_TRAIN}, &x.m));
    near(info_of(&x, "embedding.weight")->std, 0.5);
    near(rate(&x, "embedding.weight"), 1);
    near(info_of(&x, "blocks.0.attention.q.weight")->std, 0.5 / 8);
    near(rate(&x, "blocks.0.attention.q.weight"), 1.0 / 64);
    near(info_of(&x, "blocks.0.ffn.down.weight")->std, 0.5 / sqrt(96));
    near(rate(&x, "blocks.0.ffn.down.weight"), 1.0 / 96);
    near(info_of(&x, "head.weight")->std, 0.5 / 64);
    near(rate(&x, "head.weight"), 1.0 / 64);
    near(attr(node_of(&x, OP_attention, 0), "scale"), 1.0 / 16);
    drop(&x);
}

/* What each kind of start becomes, of the base model's ("std" at 32) and of the number of inputs. */
static void test_starts(void **state)
{
    (void)state;
    static const struct {
        const char *init;
        double embedding, q, down, head;
    } rows[] = {
        {"model.init.std=0.02", 0.02, 0.02 / 1.4142135623730951, 0.02 / 1.4142135623730951, 0.01},
        {"model.init.kind=lecun", 0.17677669529663687, 0.125, 0.07216878364870322, 0.08838834764831843},
        {"model.init.kind=megatron", 0.1118033988749895, 0.07905694150420949, 0.03952847075210474,
         0.08838834764831843}};
    for (i64 k = 0; k < COUNT(rows); k++) {
        built x = build((const char *[]){rows[k].init}, 1);
        near(info_of(&x, "embedding.weight")->std, rows[k].embedding);
        near(info_of(&x, "blocks.0.attention.q.weight")->std, rows[k].q);
        near(info_of(&x, "blocks.0.ffn.down.weight")->std, rows[k].down); // of 192 inputs
        near(info_of(&x, "head.weight")->std, rows[k].head);
        drop(&x);
    }
}

/* Heads of a given width are as wide in the base model; more of them change nothing. */
static void test_scores(void **state)
{
    (void)state;
    static const struct {
        const char *with[2];
        double scale;
    } rows[] = {{{"model.attention.head_width=8", "model.bias=false"}, 0.35355339059327373},
                {{"model.attention.head_width=8", "model.attention.heads=8"}, 0.35355339059327373},
                {{"model.attention.scale=inv", "model.bias=false"}, 1.0 / 16},
                {{"model.attention.scale=0.3", "model.bias=false"}, 0.15}};
    for (i64 k = 0; k < COUNT(rows); k++) {
        built x = build(rows[k].with, 2);
        near(attr(node_of(&x, OP_attention, 0), "scale"), rows[k].scale);
        drop(&x);
    }
}

static void test_decay_rule(void **state)
{
    (void)state;
    built x = build((const char *[]){"train.transfer.decay_rule=sqrt_width", "model.bias=true"}, 2);
    for (i64 k = 0; k < COUNT(maps); k++) near(info_of(&x, maps[k])->decay_factor, sqrt(2));
    assert_true(info_of(&x, "head.weight")->decay_factor == 0);
    assert_true(info_of(&x, "embedding.weight")->decay_factor == 0);
    assert_true(info_of(&x, "blocks.0.attention.q.bias")->decay_factor == 0);
    drop(&x);
}

/* What a map loses in a step with no gradient: lr/w lambda sqrt(w) of it; in `independent` lambda. */
static void test_decay_of_a_step(void **state)
{
    (void)state;
    static const struct {
        const char *with;
        double map, head;
    } rows[] = {{"train.transfer.decay_rule=sqrt_width", 0.01 / 2 * 0.3 * 1.4142135623730951, 0.01 / 2 * 0.3},
                {"train.transfer.decay_rule=none", 0.01 / 2 * 0.3, 0.01 / 2 * 0.3},
                {"train.optimizer.decay_mode=independent", 0.3, 0.3}};
    for (i64 k = 0; k < COUNT(rows); k++) {
        config *c = case_config(plain, (const char *[]){rows[k].with, "train.optimizer.weight_decay=0.3"}, 2);
        session *s;
        assert_ok(session_open(c, cpu, &(session_options){.isa = device_about(cpu)->level}, &s));
        session_start(s);
        stored *map = store_find(s->store, maps[3]), *head = store_find(s->store, "head.weight");
        double a = map->master[5], b = head->master[5];
        optimizer_step(&s->optimizer, s->store, 0, 0.01, 0.01, 1);
        assert_true(fabs(1 - map->master[5] / a - rows[k].map) < 2e-7);
        assert_true(fabs(1 - head->master[5] / b - rows[k].head) < 2e-7);
        session_close(s);
        config_close(c);
    }
}

/* ---- equal bits */

static double train(const char *const *with, i64 n, float *weight)
{
    static i32 token[36], target[36], start[36], position[36];
    config *c = case_config(plain, with, n);
    session *s;
    double nats = 0, norm;
    for (int i = 0; i < 36; i++) token[i] = i * 7 % 61, target[i] = (i * 7 + 7) % 61, position[i] = i % 12;
    step_batch b = {token, target, start, position, 3, 36};
    assert_ok(session_open(c, cpu, &(session_options){.isa = device_about(cpu)->level}, &s));
    session_start(s);
    for (i64 step = 0; step < 5; step++) {
        session_forward_backward(s, &b, step, &nats);
        session_update(s, step, 1e-2, 1e-2, &norm);
    }
    *weight = store_find(s->store, maps[2])->master[100];
    session_close(s);
    config_close(c);
    return nats;
}

/* The methods whose parts muP touches, at the base width: five steps, with the decay's rule, give the bits of
 * kind none. At another width they do not. */
static void test_base_width(void **state)
{
    (void)state;
    static const char *const method[] = {
        "model.bias=false",          "model.tie_head=true",      "model.norm.preset=sdd",
        "model.residual.kind=hyper", "model.ffn.kind=moe",       "model.norm.preset=pre_qk",
        "model.init.kind=mitchell",  "model.init.kind=megatron", "model.norm.embedding=scale"};
    for (i64 k = 0; k < COUNT(method); k++) {
        const char *none[] = {method[k], "train.transfer.kind=none"};
        const char *same[] = {method[k], "train.transfer.base_width=64",
                              "train.transfer.decay_rule=sqrt_width"};
        float a, b, other;
        assert_true(train(none, 2, &a) == train(same, 3, &b) && a == b);
        assert_true(isfinite(train(method + k, 1, &other)) && other != a);
    }
}

/* ---- in the graph */

/* A tied head of w = 2 gives half the logits; heads of given width leave the scores alone. */
static void test_tied_head(void **state)
{
    (void)state;
    const char *with[] = {"model.attention.head_width=16", "model.tie_head=true",
                          "train.transfer.base_width=32"};
    case_rows x;
    runner a, b;
    rows_mixed(&x);
    runner_options o = {.shape = case_shape(&x, MODE_TRAIN, DT_F32), .oracle = true};
    runner_open(&a, plain, with, 2, &o);
    with[2] = "train.transfer.base_width=64";
    runner_open(&b, plain, with, 3, &o);
    for (i64 i = 0; i < a.m.g->n_tensors; i++) { // the same weights
        const tensor *t = a.m.g->tensors[i];
        if (t->role == ROLE_PARAM)
            memcpy(oracle_data(b.o, g_find(b.m.g, t->path)), oracle_data(a.o, t), 8 * (size_t)count(t));
    }
    runner_rows(&a, &x);
    runner_rows(&b, &x);
    runner_oracle(&a);
    runner_oracle(&b);
    const double *half = oracle_data(a.o, a.m.logits), *whole = oracle_data(b.o, b.m.logits);
    for (i64 i = 0; i < count(a.m.logits); i++) assert_true(half[i] == whole[i] / 2);
    runner_close(&a);
    runner_close(&b);
}

/* (layers / base_layers)^(-x) on every branch: of a plain stream in the joint, of several before it. */
static void test_depth(void **state)
{
    (void)state;
    built x = build((const char *[]){"train.transfer.depth_exponent=0.5", "model.layers=8"}, 2);
    near(attr(node_of(&x, OP_joint, 3), "c"), 1 / sqrt(8));
    drop(&x);
    x = build((const char *[]){"train.transfer.depth_exponent=1", "train.transfer.base_layers=4",
                               "model.layers=8", "model.residual.branch_scale=3"},
              4);
    near(attr(node_of(&x, OP_joint, 0), "c"), 1.5);
    drop(&x);
    x = build((const char *[]){"train.transfer.depth_exponent=1", "model.residual.kind=hyper"}, 2);
    near(attr(node_of(&x, OP_scale, 1), "a"), 0.5);
    drop(&x);
}

/* A gate's map of a fixed number of inputs learns as before. */
static void test_fixed_inputs(void **state)
{
    (void)state;
    built x = build((const char *[]){"model.norm.gate_rank=4"}, 1);
    near(rate(&x, "blocks.0.attention.norm_pre.up.weight"), 1);
    near(info_of(&x, "blocks.0.attention.norm_pre.up.weight")->std, 1 / sqrt(2.5 * 32));
    near(rate(&x, "blocks.0.attention.norm_pre.down.weight"), 0.5);
    drop(&x);
}

static void refused(const char *const *with, i64 n, const char *message)
{
    arena *a;
    model m;
    config *c = case_config(plain, with, n);
    assert_ok(arena_open(&a));
    assert_fails(model_build(a, c, &(model_shape){.rows = 1, .tokens = 4, .mode = MODE_TRAIN}, &m),
                 ERR_CONFIG, message);
    graph_close(m.g);
    config_close(c);
    arena_close(a);
}

static void test_refused(void **state)
{
    (void)state;
    refused(
        (const char *[]){"model.memory.kind=pkm", "model.memory.spans=[0:1]"}, 2,
        "plain:2: train.transfer.kind is mup; its table has rates for maps of the width (eta/w) and for "
        "vectors (eta), and the keys and values of model.memory.kind: pkm are matrices whose widths do not "
        "grow with model.width");
    refused(
        (const char *[]){"train.transfer.decay_rule=sqrt_width", "train.optimizer.decay_mode=independent"}, 2,
        "command line: train.transfer.decay_rule is sqrt_width; (eta/w) lambda sqrt(w) is a decay times the "
        "learning rate, and train.optimizer.decay_mode is independent (set it to coupled)");
    refused(
        (const char *[]){"train.transfer.form=absolute", "model.init.kind=mitchell"}, 2,
        "command line: train.transfer.form is absolute; its deviations 1, inputs^(-1/2) and 1/width stand in "
        "the place of model.init.kind: mitchell (remove that key, or set form: relative)");
    refused(
        (const char *[]){"train.transfer.form=absolute", "model.init.std=0.02"}, 2,
        "command line: train.transfer.form is absolute; its deviations 1, inputs^(-1/2) and 1/width stand in "
        "the place of model.init.std (remove that key; model.init.std_factor multiplies them)");
}

/* What an export must not take for the plain model. */
static void test_transferred(void **state)
{
    (void)state;
    static const struct {
        const char *with[2];
        bool is;
    } rows[] = {{{"model.bias=false", "model.tie_head=false"}, true}, // the scores
                {{"model.attention.head_width=16", "model.tie_head=false"}, false},
                {{"model.attention.head_width=16", "model.tie_head=true"}, true},
                {{"model.attention.head_width=16", "train.transfer.depth_exponent=1"}, true},
                {{"train.transfer.kind=none", "model.tie_head=true"}, false}};
    for (i64 k = 0; k < COUNT(rows); k++) {
        config *c = case_config(plain, rows[k].with, 2);
        assert_int_equal(model_transferred(c), rows[k].is);
        config_close(c);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_relative),   cmocka_unit_test(test_absolute),
        cmocka_unit_test(test_starts),     cmocka_unit_test(test_scores),
        cmocka_unit_test(test_decay_rule), cmocka_unit_test(test_decay_of_a_step),
        cmocka_unit_test(test_base_width), cmocka_unit_test(test_tied_head),
        cmocka_unit_test(test_depth),      cmocka_unit_test(test_fixed_inputs),
        cmocka_unit_test(test_refused),    cmocka_unit_test(test_transferred),
    };
    assert_ok(device_open(&(device_options){.threads = 1}, &cpu));
    int bad = cmocka_run_group_tests(tests, NULL, NULL);
    device_close(cpu);
    return bad;
}

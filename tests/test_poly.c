/* The activations of the feed-forward branch: PolyCom (start, decay, width, what scaling its input leaves
 * alone, rows that do not depend on their neighbours), dReLU, SELU with its initialization and alpha dropout,
 * and what is refused. Values by hand and gradients are laws and cases of the ops; that programs,
 * recomputation and generation agree is shown with the other models (poly-like of model_case.h). */
#include "model_case.h"
#include "cpu_case.h"
#include "base/text.h"
#include "graph/trial.h"
#include "ops/activations.h"
#include "optim/optimizer.h"
#include "optim/schedule.h"

static const model_case bare = {.name = "bare",
                                .yaml = "model: {layers: 2, width: 32, vocab: 61, context: 12,\n"
                                        "        attention: {heads: 4, kv_heads: 2}, ffn: {kind: mlp}}\n"};

static void build(runner *r, const char *const *with, i64 n, mode mode, bool backward)
{
    static case_rows x;
    rows_mixed(&x);
    runner_open(
        r, bare, with, n,
        &(runner_options){.shape = case_shape(&x, mode, DT_F32), .backward = backward, .oracle = true});
    runner_rows(r, &x);
}

/* ---- how it starts, and who decays */

static void test_start(void **state)
{
    (void)state;
    for (int order = 1; order <= 4; order++) {
        char set[32];
        snprintf(set, sizeof set, "model.ffn.order=%d", order);
        for (int k = 0; k < 2; k++) {
            const char *with[] = {k ? "model.ffn.activation=poly_norm" : "model.ffn.activation=poly_relu",
                                  set, "train.steps=1"};
            runner r;
            build(&r, with, 3, MODE_TRAIN, false);
            store_initialize(r.s, 3);
            const stored *weight = store_find(r.s, "blocks.1.ffn.activation.weight");
            const stored *bias = store_find(r.s, "blocks.1.ffn.activation.bias");
            assert_int_equal(weight->count, order);
            for (int p = 0; p < order; p++) assert_true(weight->master[p] == 1 / (float)order);
            assert_int_equal(bias->count, 1);
            assert_true(bias->master[0] == 0);
            optimizer o;
            assert_ok(optimizer_from(r.c, &o));
            assert_false(o.decays[weight->param.kind]);
            assert_false(o.decays[bias->param.kind]);
            runner_close(&r);
        }
    }
}

/* Ungated and 3/2 as wide: the parameters of the gated model, and 2 (order + 1) more a layer. */
static void test_width(void **state)
{
    (void)state;
    static const struct {
        const char *width;
        i64 gated;
    } sizes[] = {{"model.width=2048", 5504}, {"model.width=576", 1536}, {"model.width=96", 256}};
    for (int k = 0; k < COUNT(sizes); k++)
        for (int poly = 0; poly < 2; poly++) {
            const char *with[] = {sizes[k].width, "model.layers=1",
                                  poly ? "model.ffn.activation=poly_norm" : "model.ffn.kind=gated"};
            arena *a;
            model m;
            config *c = case_config(bare, with, 3);
            assert_ok(arena_open(&a));
            assert_ok(model_build(a, c, &(model_shape){.rows = 1, .tokens = 4, .mode = MODE_TRAIN}, &m));
            const tensor *up = g_find(m.g, "blocks.0.ffn.up.weight");
            assert_int_equal(up->dim[0], poly ? sizes[k].gated * 3 / 2 : sizes[k].gated);
            i64 total = 0;
            for (i64 i = 0; i < m.g->n_tensors; i++)
                if (m.g->tensors[i]->role == ROLE_PARAM && strstr(m.g->tensors[i]->path, ".ffn."))
                    total += count(m.g->tensors[i]);
            assert_int_equal(total, 3 * cols(up) * sizes[k].gated + cols(up) + (poly ? 4 : 0)); // and a norm
            graph_close(m.g);
            config_close(c);
            arena_close(a);
        }
}

/* ---- scaling W1 changes nothing, so its gradient is orthogonal to it (eps -> 0); not so for poly_relu */

static double alignment(const char *activation)
{
    runner r;
    char set[64];
    snprintf(set, sizeof set, "model.ffn.activation=%s", activation);
    const char *with[] = {set, "model.ffn.poly_eps=1e-12"};
    build(&r, with, strcmp(activation, "poly_norm") ? 1 : 2, MODE_TRAIN, true);
    runner_oracle(&r);
    const tensor *w = g_find(r.m.g, "blocks.0.ffn.up.weight");
    const double *x = oracle_data(r.o, w), *g = oracle_data(r.o, w->grad);
    double dot = 0, xx = 0, gg = 0;
    for (i64 k = 0; k < count(w); k++) dot += x[k] * g[k], xx += x[k] * x[k], gg += g[k] * g[k];
    runner_close(&r);
    return fabs(dot) / sqrt(xx * gg);
}
static void test_scale_freedom(void **state)
{
    (void)state;
    assert_true(alignment("poly_norm") <= 1e-6);
    assert_true(alignment("poly_relu") >= 1e-3);
}

/* ---- a row's result has the same bits alone and among others, wherever it stands (what experts rely on) */

static void read_rows(trial *t, double *y, double *s)
{
    assert_ok(trial_kernel(t, cpu, device_about(cpu)->level));
    trial_read(t, t->out[0], y);
    if (s) trial_read(t, t->out[1], s);
}
static void test_rows_alone(void **state)
{
    (void)state;
    enum { ROWS = 7, N = 129 };
    static double x[ROWS * N], all[ROWS * N], one[N], s_all[ROWS * 3], s_one[3];
    const double weight[] = {0.3, -0.4, 0.5}, bias[] = {0.1};
    for (int i = 0; i < ROWS * N; i++) x[i] = (double)(float)random_normal(3, random_stream("x"), 0, (u64)i);
    for (int k = 0; k < 2; k++) {
        op_id op = k ? OP_poly_norm : OP_poly_relu;
        for (int r = -1; r < ROWS; r++) {
            trial *t;
            trial_given given = {.in = {r < 0 ? x : x + r * N, weight, bias}};
            assert_ok(case_parse(op_table(ISA_PLAIN, op),
                                 r < 0 ? "x=7x129 weight=3 bias=1" : "x=1x129 weight=3 bias=1", &given.spec));
            assert_ok(trial_open_given(op, &given, DT_F32, &t));
            read_rows(t, r < 0 ? all : one, k ? (r < 0 ? s_all : s_one) : NULL);
            if (r >= 0) assert_memory_equal(one, all + r * N, sizeof one);
            if (r >= 0 && k) assert_memory_equal(s_one, s_all + r * 3, sizeof s_one);
            trial_close(t);
        }
    }
}

/* Powers beyond f32: the row's sums are taken again of x s_1, and the result is that of any other scale. */
static void test_large_rows(void **state)
{
    (void)state;
    enum { N = 65 };
    double x[N], y[N], want[N], weight[] = {0.3, -0.4, 0.5, 0.2}, bias[] = {0.1};
    for (int large = 0; large < 2; large++) {
        trial *t;
        trial_given given = {.in = {x, weight, bias}};
        for (int i = 0; i < N; i++)
            x[i] = (double)(float)random_normal(3, random_stream("x"), 0, (u64)i) * (large ? 0x1p20 : 1);
        assert_ok(case_parse(op_table(ISA_PLAIN, OP_poly_norm), "x=1x65 weight=4 bias=1 order=4 eps=1e-12",
                             &given.spec));
        assert_ok(trial_open_given(OP_poly_norm, &given, DT_F32, &t));
        read_rows(t, large ? y : want, NULL);
        trial_close(t);
    }
    for (int i = 0; i < N; i++) assert_true(fabs(y[i] - want[i]) <= 2e-6);
}

/* ---- activations with a kink, which the walk over all models leaves out: programs against double */

static void test_programs(void **state)
{
    (void)state;
    static const char *const with[][2] = {{"model.ffn.activation=poly_relu", "model.bias=true"},
                                          {"model.ffn.activation=poly_relu", "model.ffn.order=4"},
                                          {"model.ffn.activation=poly_norm", "model.bias=true"},
                                          {"model.ffn.activation=relu2", "model.bias=false"},
                                          {"model.ffn.activation=elu", "model.bias=false"},
                                          {"model.ffn.activation=selu", "model.dropout=0.2"},
                                          {"model.ffn.activation=drelu", "model.ffn.kind=gated"}};
    case_rows x;
    rows_mixed(&x);
    for (int k = 0; k < COUNT(with); k++) {
        runner r;
        runner_open(&r, bare, with[k], 2,
                    &(runner_options){.shape = case_shape(&x, MODE_TRAIN, DT_F32),
                                      .backward = true,
                                      .fuse = true,
                                      .policy = RECOMPUTE_CHEAP,
                                      .every = 1,
                                      .device = cpu,
                                      .level = device_about(cpu)->level,
                                      .oracle = true});
        runner_rows(&r, &x);
        runner_program(&r);
        runner_oracle(&r);
        double off = 0, norm = 0;
        for (i64 i = 0; i < r.s->n_params; i++) {
            const stored *e = &r.s->entry[i];
            const double *want = oracle_data(r.o, g_find(r.m.g, e->path)->grad);
            double one = 0;
            for (i64 j = 0; j < e->count; j++) one += want[j] * want[j], off += pow(e->grad[j] - want[j], 2);
            assert_true(one > 0); // something reaches every parameter
            norm += one;
        }
        if (!(sqrt(off / norm) <= 5e-6))
            fail_msg("%s %s: off by %g", with[k][0], with[k][1], sqrt(off / norm));
        runner_close(&r);
    }
}

/* ---- dReLU: relu of both maps */

static void test_drelu(void **state)
{
    (void)state;
    const double x[] = {1, -1, 2, 3, 4, 5, -6, 7}, dy[] = {1, 1, 1, 1};
    trial *t;
    trial_given given = {.in = {x}, .seed = {dy}, .backward = true, .exact = true};
    assert_ok(case_parse(op_table(ISA_PLAIN, OP_gated), "x=1x8 kind=3 both=1", &given.spec));
    given.seed_shape[0] = (case_input){.present = true, .ndim = 2, .dim = {1, 4}};
    assert_ok(trial_open_given(OP_gated, &given, DT_F32, &t));
    assert_ok(trial_oracle(t));
    const double *y = oracle_data(t->oracle, t->out[0]), *dx = oracle_data(t->oracle, t->grad[0]);
    const double want[] = {4, 0, 0, 21}, slope[] = {4, 0, 0, 7, 1, 0, 0, 3};
    for (int i = 0; i < 4; i++) assert_true(y[i] == want[i]);
    for (int i = 0; i < 8; i++) assert_true(dx[i] == slope[i]);
    trial_close(t);
    runner r;
    build(&r, (const char *[]){"model.ffn.kind=gated", "model.ffn.activation=drelu"}, 2, MODE_TRAIN, true);
    runner_oracle(&r);
    i64 n = 0;
    for (i64 i = 0; i < r.m.g->n_nodes; i++)
        if (r.m.g->nodes[i]->op == OP_gated) {
            n++;
            assert_true(attr(r.m.g->nodes[i], "both") == 1 &&
                        attr(r.m.g->nodes[i], "kind") == ACTIVATION_relu);
        }
    assert_int_equal(n, 2);
    runner_close(&r);
}

/* ---- SELU */

static i64 nodes_of(const graph *g, op_id op, const char *under)
{
    i64 n = 0;
    for (i64 i = 0; i < g->n_nodes; i++)
        n += g->nodes[i]->op == op && strstr(g->nodes[i]->path, under) != NULL;
    return n;
}

/* Its start is lecun's, also where the shape's preset had another; dropout becomes alpha dropout in training.
 */
static void test_selu_model(void **state)
{
    (void)state;
    runner r;
    const char *with[] = {"model.ffn.activation=selu", "model.dropout=0.1"};
    for (mode m = MODE_TRAIN; m <= MODE_EVALUATE; m++) {
        build(&r, with, 2, m, false);
        i64 times = m == MODE_TRAIN;
        assert_int_equal(nodes_of(r.m.g, OP_alpha_dropout, ".ffn."), 2 * times);
        assert_int_equal(nodes_of(r.m.g, OP_dropout, ".ffn."), 0);
        assert_int_equal(nodes_of(r.m.g, OP_dropout, ".attention."), 2 * times);
        assert_true(fabs(store_find(r.s, "blocks.0.ffn.up.weight")->param.std - 1 / sqrt(32)) <= 1e-12);
        assert_true(fabs(store_find(r.s, "blocks.0.ffn.down.weight")->param.std - 1 / sqrt(192)) <= 1e-12);
        runner_close(&r);
    }
    config *c = case_config(bare, (const char *[]){"model.preset=gpt2-124m", "model.ffn.activation=selu"}, 2);
    assert_string_equal(config_text(c, "model.init.kind"), "lecun");
    config_close(c);
    c = case_config(bare, (const char *[]){"model.ffn.activation=selu", "model.init.kind=megatron"}, 2);
    assert_string_equal(config_text(c, "model.init.kind"), "megatron");
    config_close(c);
}

/* 32 layers of W x, W ~ N(0, 1/inputs), then selu (and alpha dropout): mean and variance stay. */
static void test_self_normalizing(void **state)
{
    (void)state;
    enum { ROWS = 48, N = 96, LAYERS = 32 };
    for (int dropped = 0; dropped < 2; dropped++) {
        arena *a;
        oracle *o;
        assert_ok(arena_open(&a));
        graph *g = graph_new(a, &(graph_options){MODE_TRAIN, DT_F32, DT_F32});
        tensor *x = g_input(g, "x", DT_F32, 2, (i64[]){ROWS, N}), *y = x, *w[LAYERS];
        for (int l = 0; l < LAYERS; l++) {
            const char *scope = g_push(g, "%d", l);
            w[l] = g_param(g, g_path(g, "w"), 2, (i64[]){N, N}, &(param_info){.kind = PARAM_MATRIX});
            y = g_out(g_node(g, OP_linear, IN(y, w[l]), NO_ATTRS), 0);
            y = g_out(g_node(g, OP_activation, IN(y), WITH({"kind", ACTIVATION_selu})), 0);
            if (dropped) y = g_out(g_node(g, OP_alpha_dropout, IN(y), WITH({"p", 0.05})), 0);
            g_pop(g, scope);
        }
        assert_ok(graph_status(g));
        assert_ok(oracle_open(g, &o));
        for (i64 i = 0; i < count(x); i++)
            oracle_data(o, x)[i] = random_normal(1, random_stream("x"), 0, (u64)i);
        for (int l = 0; l < LAYERS; l++)
            for (i64 i = 0; i < N * N; i++)
                oracle_data(o, w[l])[i] = random_normal(1, random_stream(w[l]->path), 0, (u64)i) / sqrt(N);
        assert_ok(oracle_run(o, &(step_info){.seed = 1}, false));
        double sum = 0, square = 0;
        for (i64 i = 0; i < count(y); i++)
            sum += oracle_data(o, y)[i], square += pow(oracle_data(o, y)[i], 2);
        double mean = sum / (double)count(y), variance = square / (double)count(y) - mean * mean;
        if (!(fabs(mean) <= 0.15 && variance >= 0.8 && variance <= 1.5))
            fail_msg("dropped %d: mean %g, variance %g", dropped, mean, variance);
        oracle_close(o);
        graph_close(g);
        arena_close(a);
    }
}

/* Masks: of evaluation none; of equal steps equal; another step, another mask. */
static void test_masks(void **state)
{
    (void)state;
    runner r;
    double loss[3];
    build(&r, (const char *[]){"model.ffn.activation=selu", "model.dropout=0.3"}, 2, MODE_TRAIN, false);
    for (int i = 0; i < 3; i++) {
        assert_ok(oracle_run(r.o, &(step_info){.seed = 1, .step = i == 2}, false));
        loss[i] = *oracle_data(r.o, r.m.objective);
    }
    assert_true(loss[0] == loss[1] && loss[0] != loss[2]);
    runner_close(&r);
}

/* ---- refusals, whole */

static void refused(const char *const *with, i64 n, const char *message)
{
    arena *a;
    config *c = NULL;
    model m = {0};
    status s = config_parse(bare.name, bare.yaml, strlen(bare.yaml), with, n, &c);
    assert_ok(arena_open(&a));
    if (!s) s = model_build(a, c, &(model_shape){.rows = 1, .tokens = 4, .mode = MODE_TRAIN}, &m);
    assert_non_null(s);
    assert_string_equal(s->message, message);
    status_drop(s);
    if (m.g) graph_close(m.g);
    if (c) config_close(c);
    arena_close(a);
}

static void test_refused(void **state)
{
    (void)state;
    refused(
        (const char *[]){"model.ffn.kind=gated", "model.ffn.activation=poly_norm"}, 2,
        "command line: model.ffn.activation is poly_norm; PolyCom is W2 act(W1 x), whose polynomial stands "
        "in place of the gate, and has no act(W1 x) * W2 x (use model.ffn.kind: mlp)");
    refused(
        (const char *[]){"model.ffn.kind=gated", "model.ffn.activation=poly_relu"}, 2,
        "command line: model.ffn.activation is poly_relu; PolyCom is W2 act(W1 x), whose polynomial stands "
        "in place of the gate, and has no act(W1 x) * W2 x (use model.ffn.kind: mlp)");
    refused(
        (const char *[]){"model.ffn.kind=moe", "model.ffn.activation=poly_norm"}, 2,
        "command line: model.ffn.activation is poly_norm; PolyCom is W2 act(W1 x), whose polynomial stands "
        "in place of the gate, and has no act(W1 x) * W2 x (use model.ffn.expert_kind: mlp)");
    refused((const char *[]){"model.ffn.activation=drelu"}, 1,
            "command line: model.ffn.activation is drelu; max(W1 x, 0) * max(W2 x, 0) needs both maps of "
            "model.ffn.kind: gated (mlp: relu)");
    refused(
        (const char *[]){"model.ffn.kind=gated", "model.ffn.activation=selu", "model.dropout=0.1"}, 3,
        "command line: model.dropout is 0.1; with selu it is alpha dropout, which sets units to "
        "selu(-infinity) = -1.7581 and keeps selu's mean 0 and variance 1: the products selu(W1 x) * W2 x "
        "have neither (use model.ffn.kind: mlp, or dropout 0)");
    refused((const char *[]){"model.ffn.activation=poly_norm", "model.ffn.order=5"}, 2,
            "command line: model.ffn.order is '5'; it must be a whole number from 1 to 4");
    refused((const char *[]){"model.ffn.activation=poly_norm", "model.ffn.poly_eps=0"}, 2,
            "command line: model.ffn.poly_eps is '0'; it must be a number from 1e-12 to 1");
    refused(
        (const char *[]){"model.ffn.activation=relu", "model.ffn.order=2"}, 2,
        "command line: model.ffn.order belongs to model.ffn.activation poly_relu or poly_norm, and that is "
        "relu; choose it or remove the key");
    refused(
        (const char *[]){"model.ffn.activation=poly_relu", "model.ffn.poly_eps=1e-5"}, 2,
        "command line: model.ffn.poly_eps belongs to model.ffn.activation poly_norm, and that is poly_relu; "
        "choose it or remove the key");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_start),
        cmocka_unit_test(test_width),
        cmocka_unit_test(test_rows_alone),
        cmocka_unit_test(test_large_rows),
        cmocka_unit_test(test_drelu),
        cmocka_unit_test(test_programs),
        cmocka_unit_test(test_scale_freedom),
        cmocka_unit_test(test_selu_model),
        cmocka_unit_test(test_self_normalizing),
        cmocka_unit_test(test_masks),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}

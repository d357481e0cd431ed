/* Frac-Connections as a filling of the residual slot: the worked example, equality with `add` at the start,
 * counts of parameters, classes of decay, what starts to move first, layers that differ, refusals. That
 * gradients, programs, recomputation and decoding agree is shown with the other models (frac-like of
 * model_case.h). */
#include "model_case.h"
#include "cpu_case.h"
#include "hand_case.h"
#include "stream_case.h"

/* ---- two fractions of two, by hand: h = (1, 2, 3, -1), Layer(x) = 2x */

static const double H[] = {1, 2, 3, -1}, READ[] = {1, 0.1, 0.2, 1}, CARRY[] = {1, 0.2, -0.1, 0.9},
                    B[] = {1, 0.5};

static void test_by_hand(void **state)
{
    (void)state;
    trial *open =
        by_hand(OP_hyper_open, "h=1x4 read=2x2 carry=2x2", (const double *[MAX_IN]){H, READ, CARRY});
    const double *x = oracle_data(open->oracle, open->out[0]),
                 *carried = oracle_data(open->oracle, open->out[1]);
    is_near(x, (double[]){1.6, 1.8, 3.1, -0.8}, 4, 1e-15);
    is_near(carried, (double[]){0.7, 2.1, 2.9, -0.5}, 4, 1e-15);
    double y[4];
    for (int i = 0; i < 4; i++) y[i] = 2 * x[i];
    trial *close = by_hand(OP_hyper_close, "carried=1x4 y=1x4 b=2", (const double *[MAX_IN]){carried, y, B});
    is_near(oracle_data(close->oracle, close->out[0]), (double[]){3.9, 5.7, 6.0, -1.3}, 4, 1e-14);
    trial_close(close);
    trial_close(open);
}

/* Dynamic, by hand. Fractions (3, 4) and (-4, 3) have mean square 12.5: with eps = 0, Z = H / sqrt(12.5).
 * weight rows: beta, read to 1, 2, carry to 1, 2. */
static void test_dynamic_by_hand(void **state)
{
    (void)state;
    static const double h[] = {3, 4, -4, 3}, one[] = {1, 0, 0, 1}, beta[] = {1, 1}, scale[] = {0.01, 0.1};
    static const double weight[] = {1, 0, 0, 1, 0, 0, 0, 0, 1, 1}, gain[] = {2, 1};
    double s = 1 / sqrt(12.5);
    double u[] = {6 * s, 4 * s, 0, 0, 10 * s, -8 * s, 3 * s, 0, 0, -5 * s};
    double y11 = 1 + 0.1 * tanh(4 * s), y21 = 0.1 * tanh(3 * s), a12 = 0.1 * tanh(10 * s);
    double a22 = 1 + 0.1 * tanh(-5 * s);
    trial *t = by_hand(OP_hyper_open, "h=1x4 read=2x2 carry=2x2 beta=2 weight=5x2 scale=2 gain=2 eps=0",
                       (const double *[MAX_IN]){h, one, one, beta, weight, scale, gain});
    is_near(oracle_data(t->oracle, t->out[3]), u, 10, 1e-15);
    is_near(oracle_data(t->oracle, t->out[0]), (double[]){3 * y11 - 4 * y21, 4 * y11 + 3 * y21, -4, 3}, 4,
            1e-14);
    is_near(oracle_data(t->oracle, t->out[1]), (double[]){3, 4, 3 * a12 - 4 * a22, 4 * a12 + 3 * a22}, 4,
            1e-14);
    is_near(oracle_data(t->oracle, t->out[2]), (double[]){1 + 0.01 * tanh(6 * s), 1 + 0.01 * tanh(-8 * s)}, 2,
            1e-15);
    trial_close(t);
}

/* ---- at the start the model is that of `add`, to the bit */

static void logits_at_start(const char *const *overrides, i64 n, dtype act, dtype stream, float *logits)
{
    runner r;
    case_rows x;
    rows_mixed(&x);
    model_shape shape = case_shape(&x, MODE_EVALUATE, act);
    shape.stream = stream;
    runner_open(&r, llama_like, overrides, n,
                &(runner_options){.shape = shape, .fuse = true, .device = cpu, .level = best()});
    store_initialize(r.s, 3); // not moved: as training starts
    runner_rows(&r, &x);
    program_run(r.p, &(step_info){.seed = 1}, PHASE_FORWARD);
    memcpy(logits, runner_logits(&r), sizeof *logits * (size_t)count(r.m.logits));
    runner_close(&r);
}

static void test_starts_as_add(void **state)
{
    (void)state;
    static float add[33 * CASE_VOCAB], frac[33 * CASE_VOCAB];
    static const char *const sites[] = {"model.norm.attn=[pre]", "model.norm.attn=[stream]",
                                        "model.norm.attn=[out]", "model.norm.attn=[post]",
                                        "model.norm.attn=[stream,pre,out,post]"};
    static const char *const streams[] = {"model.residual.streams=1", "model.residual.streams=2",
                                          "model.residual.streams=4", "model.residual.streams=8"};
    for (int site = 0; site < COUNT(sites); site++)
        for (dtype act = DT_F32; act <= DT_BF16; act++)
            for (int mixed = 0; mixed <= (act == DT_BF16);
                 mixed++) { // a bf16 model with its stream in f32 too
                dtype stream = mixed ? DT_F32 : act;
                logits_at_start((const char *[]){sites[site]}, 1, act, stream, add);
                assert_true(add[5] != 0);
                for (int k = 0; k < 2 * COUNT(streams); k++) {
                    const char *const with[] = {sites[site], "model.residual.kind=frac", streams[k / 2],
                                                k % 2 ? "model.residual.dynamic=false"
                                                      : "model.residual.dynamic=true"};
                    logits_at_start(with, 4, act, stream, frac);
                    if (memcmp(add, frac, sizeof add) != 0)
                        fail_msg("%s %s, %s: differs from add", dtype_name(act), sites[site], streams[k / 2]);
                }
            }
}

/* ---- parameters: the paper's counts at d = 2048, 16 blocks, m = 4; what decays */

static i64 parameters(const char *kind, const char *dynamic)
{
    const char *const with[] = {"model.width=2048",
                                "model.layers=16",
                                "model.attention.heads=16",
                                "model.ffn.width=64",
                                "model.norm.attn=[]",
                                kind,
                                dynamic};
    runner r = {0};
    model_figures f;
    assert_ok(arena_open(&r.arena));
    r.c = case_config(llama_like, with, dynamic ? 7 : 6);
    assert_ok(model_build(r.arena, r.c, &(model_shape){.rows = 1, .tokens = 2, .mode = MODE_TRAIN}, &r.m));
    model_about(&r.m, r.c, 2, &f);
    runner_close(&r);
    return f.parameters;
}

static void test_parameters(void **state)
{
    (void)state;
    i64 add = parameters("model.residual.kind=add", NULL);
    assert_int_equal(parameters("model.residual.kind=frac", "model.residual.dynamic=false") - add, 1152);
    assert_int_equal(parameters("model.residual.kind=frac", "model.residual.dynamic=true") - add, 165056);
}

static void test_classes(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        param_kind kind;
        double first, second; // initial values
    } want[] = {{"read", PARAM_VECTOR, 1, 0},        {"carry", PARAM_VECTOR, 1, 0},
                {"beta", PARAM_VECTOR, 1, 1},        {"weight", PARAM_MATRIX, 0, 0},
                {"scale", PARAM_VECTOR, 0.01, 0.01}, {"gain", PARAM_GAIN, 1, 1}};
    runner r;
    case_rows x;
    rows_mixed(&x);
    runner_open(&r, frac_like, NULL, 0, &(runner_options){.shape = case_shape(&x, MODE_TRAIN, DT_BF16)});
    store_initialize(r.s, 1);
    for (int k = 0; k < COUNT(want); k++)
        for (int branch = 0; branch < 2; branch++) {
            char path[96];
            snprintf(path, sizeof path, "blocks.0.%s.residual.%s", branch ? "ffn" : "attention",
                     want[k].name);
            const stored *e = store_find(r.s, path);
            if (!e) fail_msg("%s is missing", path);
            assert_int_equal(e->param.kind, want[k].kind);
            assert_int_equal(e->dtype, DT_F32); // under bf16 too
            assert_true(e->master[0] == (float)want[k].first && e->master[1] == (float)want[k].second);
        }
    assert_non_null(store_find(r.s, "blocks.1.ffn.residual.beta"));
    assert_null(store_find(r.s, "blocks.1.ffn.residual.weight")); // static there
    runner_close(&r);
}

static void test_what_moves_first(void **state)
{
    (void)state;
    check_what_moves_first(frac_like, "blocks.0.attention", 9 * 8);
}

/* ---- layers that differ, and what is refused */

static void test_layers(void **state)
{
    (void)state;
    static const char *const with[] = {"model.layers=3", "model.override=[{layers: 1, residual.kind: add}, "
                                                         "{layers: 2, residual.streams: 8}]"};
    runner r;
    case_rows x;
    rows_mixed(&x);
    runner_open(&r, frac_like, with, 2, &(runner_options){.shape = case_shape(&x, MODE_TRAIN, DT_F32)});
    assert_int_equal(store_find(r.s, "blocks.0.ffn.residual.read")->count, 16);
    assert_null(store_find(r.s, "blocks.1.ffn.residual.read"));
    assert_int_equal(store_find(r.s, "blocks.2.ffn.residual.read")->count, 64);
    runner_close(&r);
}

static void refused(const char *yaml, const char *message)
{
    arena *a;
    config *c;
    model m;
    assert_ok(arena_open(&a));
    assert_ok(config_parse("c.yaml", yaml, strlen(yaml), NULL, 0, &c));
    assert_fails(model_build(a, c, &(model_shape){.rows = 1, .tokens = 4, .mode = MODE_TRAIN}, &m),
                 ERR_CONFIG, message);
    graph_close(m.g);
    config_close(c);
    arena_close(a);
}

static void test_refusals(void **state)
{
    (void)state;
    config *c;
    static const char other[] = "model: {residual: {streams: 2}}\n";
    refused("model:\n  vocab: 61\n  residual: {kind: frac,\n    streams: 5}\n",
            "c.yaml:4: model.residual.streams is 5; h = (H_1, .., H_m) cuts model.width (384) in m equal "
            "fractions, so "
            "it must divide it");
    refused("model:\n  vocab: 61\n  residual: {kind: frac}\n  override:\n  - layers: 2\n    residual: "
            "{streams: 7}\n",
            "c.yaml:6: model.residual.streams is 7; h = (H_1, .., H_m) cuts model.width (384) in m equal "
            "fractions, so "
            "it must divide it");
    assert_fails(config_parse("c.yaml", other, strlen(other), NULL, 0, &c), ERR_CONFIG,
                 "c.yaml:1: model.residual.streams belongs to model.residual.kind frac or hyper, and that is "
                 "add; choose it or "
                 "remove the key");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_hand),       cmocka_unit_test(test_dynamic_by_hand),
        cmocka_unit_test(test_starts_as_add), cmocka_unit_test(test_parameters),
        cmocka_unit_test(test_classes),       cmocka_unit_test(test_what_moves_first),
        cmocka_unit_test(test_layers),        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}

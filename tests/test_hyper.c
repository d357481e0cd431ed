/* Hyper-Connections as a filling of the residual slot: the worked examples, invariants of the paper, equality
 * with `add` at the start, counts of parameters, classes of decay, what the streams do, refusals. That
 * gradients, programs, recomputation and decoding agree is shown with the other models (hyper-like of
 * model_case.h); Frac-Connections, which share the operations, are in test_frac.c. */
#include "model_case.h"
#include "cpu_case.h"
#include "hand_case.h"
#include "stream_case.h"

/* ---- two streams of two, by hand; Layer(x) = (x1 + x2, x1 - x2) */

static const double H[] = {1, 2, 3, -1}, READ[] = {0.5, 1}, CARRY[] = {1, 0.2, -0.1, 0.9}, B[] = {1, 0.5};

/* The layer, and the joint with what OPEN left. */
static void closed(const trial *open, const double *b, double h[4])
{
    const double *x = output(open, 0), y[] = {x[0] + x[1], x[0] - x[1]};
    trial *t =
        by_hand(OP_hyper_close, "carried=1x4 y=1x2 b=2", (const double *[MAX_IN]){output(open, 1), y, b});
    memcpy(h, output(t, 0), sizeof(double) * 4);
    trial_close(t);
}

static void test_static_by_hand(void **state)
{
    (void)state;
    double h[4];
    trial *t = by_hand(OP_hyper_open, "h=1x4 read=2x1 carry=2x2", (const double *[MAX_IN]){H, READ, CARRY});
    is_near(output(t, 0), (double[]){3.5, 0}, 2, 1e-15);
    is_near(output(t, 1), (double[]){0.7, 2.1, 2.9, -0.5}, 4, 1e-15);
    closed(t, B, h);
    is_near(h, (double[]){4.2, 5.6, 4.65, 1.25}, 4, 1e-14);
    trial_close(t);
    t = by_hand(OP_stream_sum, "x=1x4 n=2", (const double *[MAX_IN]){h});
    is_near(output(t, 0), (double[]){8.85, 6.85}, 2, 1e-14);
    trial_close(t);
}

static void test_gradients_by_hand(void **state)
{
    (void)state;
    static const double G[] = {1, 0, 0, 2}, y[] = {3.5, 3.5};
    trial *t = by_hand(OP_hyper_close_grad, "y=1x2 b=2 dh=1x4", (const double *[MAX_IN]){y, B, G});
    is_near(output(t, 0), (double[]){1, 1}, 2, 1e-15);
    is_near(output(t, 1), (double[]){3.5, 7}, 2, 1e-14);
    trial_close(t);
    static const double r[] = {2, 0}; // the layer's gradient of dy = (1, 1)
    t = by_hand(OP_hyper_open_grad, "h=1x4 read=2x1 carry=2x2 dx=1x2 dcarried=1x4",
                (const double *[MAX_IN]){H, READ, CARRY, [9] = r, G});
    is_near(output(t, 0), (double[]){2, 0.4, 1.9, 1.8}, 4, 1e-15);
    is_near(output(t, 1), (double[]){2, 6}, 2, 1e-15);
    is_near(output(t, 2), (double[]){1, 4, 3, -2}, 4, 1e-15);
    trial_close(t);
}

static void test_dynamic_by_hand(void **state)
{
    (void)state;
    static const double weight[] = {0.5, 1, 0.2, -0.3, 1, 0, 0, 1}, scale[] = {0.01, 0.01};
    double h[4];
    trial *t = by_hand(OP_hyper_open, "h=1x4 read=2x1 carry=2x2 beta=2 weight=4x2 scale=2 eps=0 centred=1",
                       (const double *[MAX_IN]){H, READ, CARRY, B, weight, scale});
    is_near(output(t, 3), (double[]){0.5, -0.5, -1, 1, -0.5, 0.5, 1, -1}, 8, 1e-15);
    is_near(output(t, 2), (double[]){1.00462117, 0.49537883}, 2, 5e-9);
    is_near(output(t, 0), (double[]){3.50924234, -0.01386351}, 2, 5e-9);
    closed(t, output(t, 2), h);
    is_near(h, (double[]){4.22676346, 5.61653891, 4.61630479, 1.26811988}, 4, 5e-9);
    trial_close(t);
}

static void test_init_by_hand(void **state)
{
    (void)state;
    static const double h[] = {1, 2, 1, 2}, read[] = {0, 1}, carry[] = {1, 0, 0, 1}, ones[] = {1, 1};
    double after[4];
    trial *t = by_hand(OP_hyper_open, "h=1x4 read=2x1 carry=2x2", (const double *[MAX_IN]){h, read, carry});
    closed(t, ones, after);
    is_near(after, (double[]){4, 1, 4, 1}, 4, 0);
    trial_close(t);
}

/* n = 2: odd sites read both streams and write the first, even sites read and write the second: the two
 * layers run side by side on s = 2 h. T1(x) = (x1 + x2, x1 - x2) stands for both. */
static void test_parallel(void **state)
{
    (void)state;
    static const double h[] = {1, 2, 1, 2}, both[] = {1, 1}, all[] = {1, 1, 1, 1}, first[] = {1, 0};
    static const double second[] = {0, 1}, identity[] = {1, 0, 0, 1};
    double odd[4], even[4];
    trial *t = by_hand(OP_hyper_open, "h=1x4 read=2x1 carry=2x2", (const double *[MAX_IN]){h, both, all});
    closed(t, first, odd);
    trial_close(t);
    t = by_hand(OP_hyper_open, "h=1x4 read=2x1 carry=2x2", (const double *[MAX_IN]){odd, second, identity});
    closed(t, second, even);
    trial_close(t);
    is_near(even, (double[]){2 + 6, 4 - 2, 2 + 6, 4 - 2}, 4, 0);
}

/* ---- at the start the model is that of `add` */

static void logits_of(const char *const *overrides, i64 n, dtype act, dtype stream, bool fuse, float *logits)
{
    runner r;
    case_rows x;
    rows_mixed(&x);
    model_shape shape = case_shape(&x, MODE_EVALUATE, act);
    shape.stream = stream;
    runner_open(&r, llama_like, overrides, n,
                &(runner_options){.shape = shape, .fuse = fuse, .device = cpu, .level = best()});
    store_initialize(r.s, 3); // not moved: as training starts
    runner_rows(&r, &x);
    program_run(r.p, &(step_info){.seed = 1}, PHASE_FORWARD);
    memcpy(logits, runner_logits(&r), sizeof *logits * (size_t)count(r.m.logits));
    runner_close(&r);
}

/* One stream, or several that are added up to a power of two and not normed: the same bits. Otherwise the
 * final norm's eps acts as eps / n^2. */
static void test_starts_as_add(void **state)
{
    (void)state;
    static float add[33 * CASE_VOCAB], hyper[33 * CASE_VOCAB];
    static const char *const sites[] = {"model.norm.attn=[pre]", "model.norm.attn=[pre,out]"};
    static const char *const streams[] = {"model.residual.streams=1", "model.residual.streams=2",
                                          "model.residual.streams=3", "model.residual.streams=4"};
    for (int k = 0; k < 2 * COUNT(sites) * COUNT(streams); k++)
        for (dtype act = DT_F32; act <= DT_BF16; act++) {
            i64 n = k / 4 + 1;
            const char *with[] = {sites[k % 2],
                                  "model.norm.final=false",
                                  "model.residual.kind=hyper",
                                  streams[k / 4],
                                  "model.residual.out_init_exponent=0",
                                  k / 2 % 2 ? "model.residual.dynamic=false" : "model.residual.dynamic=true"};
            logits_of(with, 2, act, act, true, add);
            logits_of(with, COUNT(with), act, act, true, hyper);
            assert_true(add[5] != 0);
            for (i64 i = 0; i < COUNT(add); i++)
                if (n == 3 ? !(fabsf(hyper[i] - 3 * add[i]) <= 0.05f * (fabsf(add[i]) + 1))
                           : hyper[i] != (float)n * add[i])
                    fail_msg("%s %s, %s: logit %lld is %g, of add %g", dtype_name(act), with[0],
                             streams[k / 4], (long long)i, hyper[i], add[i]);
        }
    const char *with[] = {"model.norm.eps=1e-9", "model.residual.kind=hyper",
                          "model.residual.out_init_exponent=0"};
    logits_of(with, 1, DT_F32, DT_F32, true, add);
    logits_of(with, 3, DT_F32, DT_F32, true, hyper);
    for (i64 i = 0; i < COUNT(add); i++) assert_true(fabsf(hyper[i] - add[i]) <= 1e-5f);
}

/* ---- parameters: the paper's counts at d = 2048, 16 blocks, without norm parameters; what decays */

static i64 parameters(const char *kind, const char *streams, const char *dynamic)
{
    const char *const with[] = {"model.width=2048",
                                "model.layers=16",
                                "model.attention.heads=16",
                                "model.ffn.width=64",
                                "model.norm.affine=none",
                                kind,
                                streams,
                                dynamic};
    runner r = {0};
    model_figures f;
    assert_ok(arena_open(&r.arena));
    r.c = case_config(llama_like, with, dynamic ? 8 : 6);
    assert_ok(model_build(r.arena, r.c, &(model_shape){.rows = 1, .tokens = 2, .mode = MODE_TRAIN}, &r.m));
    model_about(&r.m, r.c, 2, &f);
    runner_close(&r);
    return f.parameters;
}

static void test_parameters(void **state)
{
    (void)state;
    static const char hyper[] = "model.residual.kind=hyper", four[] = "model.residual.streams=4";
    i64 add = parameters("model.residual.kind=add", NULL, NULL);
    assert_int_equal(parameters(hyper, four, "model.residual.dynamic=false") - add, 768);
    assert_int_equal(parameters(hyper, "model.residual.streams=2", "model.residual.dynamic=true") - add,
                     262464);
    assert_int_equal(parameters(hyper, four, "model.residual.dynamic=true") - add, 394048);
}

static void test_classes(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        param_kind kind;
        double first, second, fourth; // initial values
    } want[] = {{"read", PARAM_VECTOR, 0, 1, 0},           {"carry", PARAM_VECTOR, 1, 0, 0},
                {"beta", PARAM_VECTOR, 1, 1, 1},           {"weight", PARAM_MATRIX, 0, 0, 0},
                {"scale", PARAM_VECTOR, 0.01, 0.01, 0.01}, {"gain", PARAM_GAIN, 1, 1, 1}};
    runner r;
    case_rows x;
    rows_mixed(&x);
    runner_open(&r, hyper_like, NULL, 0, &(runner_options){.shape = case_shape(&x, MODE_TRAIN, DT_BF16)});
    store_initialize(r.s, 1);
    for (int k = 0; k < COUNT(want); k++) {
        char path[96];
        snprintf(path, sizeof path, "blocks.0.attention.residual.%s", want[k].name);
        const stored *e = store_find(r.s, path);
        if (!e) fail_msg("%s is missing", path);
        assert_int_equal(e->param.kind, want[k].kind);
        assert_int_equal(e->dtype, DT_F32); // under bf16 too
        assert_true(e->master[0] == (float)want[k].first && e->master[1] == (float)want[k].second);
    }
    static const char *const site[] = {"blocks.0.attention", "blocks.0.ffn", "blocks.1.attention",
                                       "blocks.1.ffn"}; // A_m = e_(k mod 3), k = 1 .. 4
    for (int k = 0; k < 4; k++) {
        char path[96];
        snprintf(path, sizeof path, "%s.residual.read", site[k]);
        const stored *e = store_find(r.s, path);
        assert_true(e->dim[0] == 3 && e->dim[1] == 1);
        for (int i = 0; i < 3; i++) assert_true(e->master[i] == (i == (k + 1) % 3));
    }
    assert_null(store_find(r.s, "blocks.1.ffn.residual.weight")); // static there
    runner_close(&r);
}

/* The maps back to the streams start smaller by n^e. */
static void test_out_init(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        double factor;
    } table[] = {{"model.residual.streams=3", 0.57735026918962576},
                 {"model.residual.out_init_exponent=0", 1},
                 {"model.residual.out_init_exponent=1", 1.0 / 3}};
    for (int i = 0; i < COUNT(table); i++) {
        runner r;
        case_rows x;
        rows_mixed(&x);
        runner_open(&r, hyper_like, &table[i].key, 1,
                    &(runner_options){.shape = case_shape(&x, MODE_TRAIN, DT_F32)});
        double std = store_find(r.s, "blocks.0.ffn.up.weight")->param.std;
        static const char *const out[] = {"blocks.0.attention.o.weight", "blocks.1.ffn.down.weight"};
        for (int k = 0; k < 2; k++)
            assert_true(fabs(store_find(r.s, out[k])->param.std / std - table[i].factor) <= 1e-15);
        assert_true(store_find(r.s, "blocks.0.attention.q.weight")->param.std == std);
        runner_close(&r);
    }
}

static void test_what_moves_first(void **state)
{
    (void)state;
    check_what_moves_first(hyper_like, "blocks.0.ffn", 5 * 32);
}

/* ---- symmetry: what one-hot reads break */

static const model_case bare = {
    .name = "bare",
    .yaml = "model: {layers: 2, width: 32, vocab: 61, context: 12, residual: {kind: hyper, streams: 3},\n"
            "        attention: {heads: 4, kv_heads: 2}, ffn: {width: 48}}\n"};
static const char *const sites[] = {"blocks.0.attention", "blocks.0.ffn", "blocks.1.attention",
                                    "blocks.1.ffn"};

static double *of_site(runner *r, int k, const char *name, bool gradient)
{
    char path[96];
    snprintf(path, sizeof path, "%s.residual.%s", sites[k], name);
    tensor *t = g_find(r->m.g, path);
    assert_non_null(t);
    return oracle_data(r->o, gradient ? t->grad : t);
}

/* With A_m = (1/n, .., 1/n) everywhere the gradients of all streams are equal and stay so; with one-hot A_m
 * they differ at once. */
static void test_symmetry(void **state)
{
    (void)state;
    for (int one_hot = 0; one_hot < 2; one_hot++) {
        runner r;
        case_rows x;
        double apart = 0;
        rows_mixed(&x);
        runner_open(
            &r, bare, NULL, 0,
            &(runner_options){.shape = case_shape(&x, MODE_TRAIN, DT_F32), .backward = true, .oracle = true});
        runner_rows(&r, &x);
        for (int k = 0; k < 4; k++) {
            double *read = of_site(&r, k, "read", false), *carry = of_site(&r, k, "carry", false);
            memset(of_site(&r, k, "weight", false), 0, sizeof(double) * 5 * 32);
            for (int i = 0; i < 3; i++) {
                read[i] = one_hot ? i == (k + 1) % 3 : 1.0 / 3;
                of_site(&r, k, "beta", false)[i] = 1;
                for (int j = 0; j < 3; j++) carry[i * 3 + j] = i == j;
            }
        }
        runner_oracle(&r);
        for (int k = 0; k < 4; k++) {
            const double *beta = of_site(&r, k, "beta", true), *carry = of_site(&r, k, "carry", true);
            for (int i = 1; i < 3; i++)
                apart = fmax(apart, fmax(fabs(beta[i] - beta[0]), fabs(carry[i * 4] - carry[0])));
        }
        if (one_hot)
            assert_true(apart > 1e-4);
        else
            assert_true(apart <= 1e-14);
        runner_close(&r);
    }
}

/* Streams in another order, with rows and columns of every matrix: the same objective. The embedding starts
 * all alike, so their order at the start does not matter. */
static void test_order_of_streams(void **state)
{
    (void)state;
    static const int to[] = {2, 0, 1};
    runner r;
    case_rows x;
    rows_mixed(&x);
    runner_open(
        &r, bare, NULL, 0,
        &(runner_options){.shape = case_shape(&x, MODE_TRAIN, DT_F32), .backward = true, .oracle = true});
    runner_rows(&r, &x);
    double before = runner_objective(&r);
    for (int k = 0; k < 4; k++) {
        double *read = of_site(&r, k, "read", false), *beta = of_site(&r, k, "beta", false);
        double *carry = of_site(&r, k, "carry", false), *weight = of_site(&r, k, "weight", false);
        double r0[3], b0[3], c0[9], w0[3 * 32];
        memcpy(r0, read, sizeof r0), memcpy(b0, beta, sizeof b0), memcpy(c0, carry, sizeof c0);
        memcpy(w0, weight + 2 * 32, sizeof w0);
        for (int i = 0; i < 3; i++) {
            read[to[i]] = r0[i], beta[to[i]] = b0[i];
            memcpy(weight + (2 + to[i]) * 32, w0 + i * 32, sizeof(double) * 32);
            for (int j = 0; j < 3; j++) carry[to[i] * 3 + to[j]] = c0[i * 3 + j];
        }
    }
    assert_true(fabs(runner_objective(&r) - before) <= 1e-13);
    runner_close(&r);
}

/* ---- refusals */

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
    static const char *const wrong[][2] = {
        {"model: {residual: {kind: frac, out_init_exponent: 1}}\n",
         "c.yaml:1: model.residual.out_init_exponent belongs to model.residual.kind hyper, and that is frac; "
         "choose it or remove the key"},
        {"model: {residual: {kind: hyper, streams: 17}}\n",
         "c.yaml:1: model.residual.streams is '17'; it must be a whole number from 1 to 16"},
        {"model: {residual: {kind: hyper, streams: 0}}\n",
         "c.yaml:1: model.residual.streams is '0'; it must be a whole number from 1 to 16"},
        {"model: {residual: {kind: hyper, out_init_exponent: -1}}\n",
         "c.yaml:1: model.residual.out_init_exponent is '-1'; it must be a number from 0 to 4"},
    };
    for (int i = 0; i < COUNT(wrong); i++)
        assert_fails(config_parse("c.yaml", wrong[i][0], strlen(wrong[i][0]), NULL, 0, &c), ERR_CONFIG,
                     wrong[i][1]);
    refused("model:\n  vocab: 61\n  residual: {kind: hyper}\n  norm:\n    attn: [stream, pre]\n",
            "c.yaml:5: model.norm.attn has stream; in H' = B y + A_r^T H no norm acts on the streams H: with "
            "residual.kind hyper a norm may act on what the branch reads (pre) or gives (out)");
    refused("model:\n  vocab: 61\n  residual: {kind: hyper}\n  norm:\n    ffn: [post]\n",
            "c.yaml:5: model.norm.ffn has post; in H' = B y + A_r^T H no norm acts on the streams H: with "
            "residual.kind hyper a norm may act on what the branch reads (pre) or gives (out)");
    refused(
        "model:\n  vocab: 61\n  residual: {kind: hyper}\n  override:\n  - layers: 2\n    residual: "
        "{streams: 2}\n",
        "c.yaml:6: model.residual.streams is 2 in layer 2 and 4 elsewhere; H' = B y + A_r^T H carries the "
        "same n streams through all layers: set one number of streams");
    refused(
        "model:\n  vocab: 61\n  residual: {kind: hyper}\n  override:\n  - layers: 1\n    residual: "
        "{kind: add}\n",
        "c.yaml:6: model.residual.kind is add in layer 1 and hyper elsewhere; H' = B y + A_r^T H (hyper) "
        "carries n streams through all layers, from n copies of the embedding to their sum: set one kind for "
        "the whole model");
    refused(
        "model:\n  vocab: 61\n  override:\n  - layers: 0\n    residual: {kind: hyper}\n",
        "c.yaml:5: model.residual.kind is hyper in layer 0 and add elsewhere; H' = B y + A_r^T H (hyper) "
        "carries n streams through all layers, from n copies of the embedding to their sum: set one kind for "
        "the whole model");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_static_by_hand),  cmocka_unit_test(test_gradients_by_hand),
        cmocka_unit_test(test_dynamic_by_hand), cmocka_unit_test(test_init_by_hand),
        cmocka_unit_test(test_parallel),        cmocka_unit_test(test_starts_as_add),
        cmocka_unit_test(test_parameters),      cmocka_unit_test(test_classes),
        cmocka_unit_test(test_out_init),        cmocka_unit_test(test_what_moves_first),
        cmocka_unit_test(test_symmetry),        cmocka_unit_test(test_order_of_streams),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}

/* Weights and biases at the edge of chaos: the solver against worked values and closed forms, what a deep
 * stack of such layers does to variance and gradients, a model's first values, and what is refused. */
#include "base/random.h"
#include "model/edge_of_chaos.h"
#include "model_case.h"

static void near(const char *what, double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance)) fail_msg("%s: %.9g, not %.9g", what, got, want);
}

/* ---- the solver */

/* Worked values to as many digits as they are given; of E[phi(Z)^2] = (q - sb^2) / sw^2 too. */
static void test_values(void **state)
{
    (void)state;
    static const struct {
        activation_kind phi;
        double q, sw, sb, tolerance;
    } point[] = {
        {ACTIVATION_gelu, 1, 1.4811, 0.2592, 5e-5},    {ACTIVATION_silu, 1, 1.6233, 0.2499, 6e-5},
        {ACTIVATION_relu, 1, M_SQRT2, 0, 1e-12},       {ACTIVATION_identity, 3, 1, 0, 1e-12},
        {ACTIVATION_tanh, 0.1537, 1.1225, 0.05, 1e-4}, {ACTIVATION_tanh, 0.2733, 1.1934, 0.1, 1e-4},
        {ACTIVATION_tanh, 0.5121, 1.3041, 0.2, 1e-4},  {ACTIVATION_tanh, 0.7635, 1.3956, 0.3, 1e-4},
        {ACTIVATION_elu, 0.438, 1.176, 0.1, 5e-4},     {ACTIVATION_elu, 1.107, 1.229, 0.2, 5e-4},
        {ACTIVATION_elu, 2.034, 1.263, 0.3, 5e-4},
    };
    static const struct {
        activation_kind phi;
        double square;
    } gain[] = {{ACTIVATION_relu, 0.5},    {ACTIVATION_gelu, 0.4252}, {ACTIVATION_silu, 0.3558},
                {ACTIVATION_tanh, 0.3943}, {ACTIVATION_elu, 0.6449},  {ACTIVATION_relu2, 1.5}};
    double sw, sb;
    for (i64 k = 0; k < COUNT(point); k++) {
        assert_true(edge_of_chaos(point[k].phi, point[k].q, &sw, &sb));
        near(activation_name((int)point[k].phi), sw, point[k].sw, point[k].tolerance);
        near(activation_name((int)point[k].phi), sb, point[k].sb, point[k].tolerance);
    }
    for (i64 k = 0; k < COUNT(gain); k++) {
        assert_true(edge_of_chaos(gain[k].phi, 1, &sw, &sb));
        near("E[phi^2]", (1 - sb * sb) / (sw * sw), gain[k].square, 5e-5);
    }
}

/* A kink of the slope at 0: E[selu'^2] = l^2 (1/2 + a^2 e^2 P(N > 2)), E[selu^2] = 1. */
static void test_selu(void **state)
{
    (void)state;
    double sw, sb, slope = SELU_ALPHA * SELU_ALPHA * exp(2) * erfc(M_SQRT2) / 2;
    double want = 1 / (SELU_SCALE * sqrt(0.5 + slope));
    assert_true(edge_of_chaos(ACTIVATION_selu, 1, &sw, &sb));
    near("sw of selu", sw, want, 1e-12);
    near("sb of selu", sb, sqrt(1 - want * want), 1e-6);
}

/* As q -> 0: sw -> 1/|phi'(0)|, sb -> 0. */
static void test_limit(void **state)
{
    (void)state;
    static const activation_kind phi[] = {ACTIVATION_gelu, ACTIVATION_silu, ACTIVATION_tanh};
    for (i64 k = 0; k < COUNT(phi); k++) {
        double sw, sb;
        assert_true(edge_of_chaos(phi[k], 1e-8, &sw, &sb));
        near("sw", sw, 1 / fabs(activation_slope64((int)phi[k], 0)), 1e-6);
        near("sb", sb, 0, 1e-4);
    }
}

static void test_none(void **state)
{
    (void)state;
    const double q[] = {0, -1, NAN, INFINITY};
    double sw = 7, sb = 8;
    assert_false(edge_of_chaos(ACTIVATION_sigmoid, 1, &sw, &sb)); // E[phi^2] is beyond E[phi'^2]: sb^2 < 0
    for (i64 k = 0; k < COUNT(q); k++) assert_false(edge_of_chaos(ACTIVATION_gelu, q[k], &sw, &sb));
    assert_true(sw == 7 && sb == 8);
}

/* ---- stacks: y <- W phi(y) + b, and beside it a small change of the input, t <- W (phi'(y) t) */

enum { WIDTH = 1000, DEPTH = 100 };
typedef struct stack {
    double sw, sb, y[WIDTH], t[WIDTH];
    activation_kind phi;
    u64 state;
} stack;

/* Mean 0 and variance 1: ones among 64 fair bits (splitmix64), whose sum over a row is normal. */
static double drawn(u64 *state)
{
    u64 z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (__builtin_popcountll(z ^ z >> 31) - 32) / 4.;
}

static double mean_square(const double *x)
{
    double sum = 0;
    for (int i = 0; i < WIDTH; i++) sum += x[i] * x[i];
    return sum / WIDTH;
}

static void start(stack *s)
{
    u64 stream = s->state; // y is not of bits: relu has a kink at 0, where a tenth of them would lie
    for (int i = 0; i < WIDTH; i++) {
        s->y[i] = random_normal(1, stream, 0, (u64)i);
        s->t[i] = drawn(&s->state);
    }
}

/* One more layer of new weights. */
static void layer(stack *s)
{
    double h[WIDTH], slope[WIDTH], std = s->sw / sqrt(WIDTH);
    for (int j = 0; j < WIDTH; j++) {
        h[j] = activation64((int)s->phi, s->y[j]);
        slope[j] = activation_slope64((int)s->phi, s->y[j]) * s->t[j];
    }
    for (int i = 0; i < WIDTH; i++) {
        s->y[i] = s->sb * drawn(&s->state), s->t[i] = 0;
        for (int j = 0; j < WIDTH; j++) {
            double w = std * drawn(&s->state);
            s->y[i] += w * h[j];
            s->t[i] += w * slope[j];
        }
    }
}

/* Where the fixed point attracts enough, the variance stays at q = 1 through 100 layers: it wanders by about
 * 0.05 a layer, the chance of 1000 rows, and is drawn back. The change keeps its size. */
static void test_stack(void **state)
{
    (void)state;
    static const activation_kind phi[] = {ACTIVATION_selu, ACTIVATION_tanh};
    for (i64 k = 0; k < COUNT(phi); k++) {
        stack s = {.phi = phi[k], .state = 1};
        double variance = 0, growth = 0;
        assert_true(edge_of_chaos(phi[k], 1, &s.sw, &s.sb));
        start(&s);
        for (int l = 0; l < DEPTH; l++) {
            double before = mean_square(s.t);
            layer(&s);
            variance += mean_square(s.y) / DEPTH;
            growth += mean_square(s.t) / before / DEPTH;
        }
        near(activation_name((int)phi[k]), variance, 1, 0.05);
        near("growth of a change", growth, 1, 0.05);
    }
}

/* Where it attracts little or not at all, one layer still gives back the variance it was given, and the
 * change its size.
 */
static void test_layer(void **state)
{
    (void)state;
    enum { TRIALS = 30 };
    static const activation_kind phi[] = {ACTIVATION_gelu, ACTIVATION_silu, ACTIVATION_relu, ACTIVATION_elu};
    for (i64 k = 0; k < COUNT(phi); k++) {
        stack s = {.phi = phi[k], .state = 2};
        double variance = 0, growth = 0;
        assert_true(edge_of_chaos(phi[k], 1, &s.sw, &s.sb));
        for (int trial = 0; trial < TRIALS; trial++) {
            start(&s);
            double before = mean_square(s.t);
            layer(&s);
            variance += mean_square(s.y) / TRIALS;
            growth += mean_square(s.t) / before / TRIALS;
        }
        near(activation_name((int)phi[k]), variance, 1, 0.05);
        near("growth of a change", growth, 1, 0.05);
    }
}

/* ---- a model */

static const model_case bare = {
    .name = "bare",
    .yaml = "model: {layers: 2, width: 64, vocab: 61, context: 12, bias: true, tie_head: false,\n"
            "        norm: {kind: none}, init: {kind: eoc},\n"
            "        attention: {heads: 4}, ffn: {kind: mlp, activation: gelu, width: 256}}\n"};

static double deviation(const runner *r, const char *path)
{
    const stored *e = store_find(r->s, path);
    double sum = 0;
    assert_non_null(e);
    for (i64 i = 0; i < e->count; i++) sum += (double)e->master[i] * (double)e->master[i];
    return sqrt(sum / (double)e->count);
}

/* What is drawn, not what it is drawn from: truncation is made up for, however narrow. */
static void test_model(void **state)
{
    (void)state;
    static const char *const bounds[] = {"model.init.truncate=none", "model.init.truncate=3",
                                         "model.init.truncate=1"};
    for (i64 k = 0; k < COUNT(bounds); k++) {
        runner r;
        case_rows x;
        rows_mixed(&x);
        runner_open(&r, bare, &bounds[k], 1, &(runner_options){.shape = case_shape(&x, MODE_TRAIN, DT_F32)});
        store_initialize(r.s, 3);
        near("up", deviation(&r, "blocks.0.ffn.up.weight"), 1.48111 / 8, 0.02 * 1.48 / 8);
        near("down", deviation(&r, "blocks.1.ffn.down.weight"), 1.48111 / 16, 0.02 * 1.48 / 16);
        near("q", deviation(&r, "blocks.0.attention.q.weight"), 1.48111 / 8, 0.04 * 1.48 / 8);
        near("up's bias", deviation(&r, "blocks.0.ffn.up.bias"), 0.2592, 0.15 * 0.2592);
        near("head", store_find(r.s, "head.weight")->param.std, 1 / sqrt(2.5 * 64), 1e-12);
        near("embedding", store_find(r.s, "embedding.weight")->param.std, 1 / sqrt(2.5 * 64), 1e-12);
        runner_close(&r);
    }
}

/* ReLU's edge has no biases: it does without them, and where there are some they start at 0. */
static void test_relu_model(void **state)
{
    (void)state;
    for (int bias = 0; bias < 2; bias++) {
        const char *with[] = {"model.ffn.activation=relu", bias ? "model.bias=true" : "model.bias=false"};
        runner r;
        case_rows x;
        rows_mixed(&x);
        runner_open(&r, bare, with, 2, &(runner_options){.shape = case_shape(&x, MODE_TRAIN, DT_F32)});
        store_initialize(r.s, 3);
        near("up", deviation(&r, "blocks.0.ffn.up.weight"), M_SQRT2 / 8, 0.02 * M_SQRT2 / 8);
        if (bias) near("up's bias", deviation(&r, "blocks.0.ffn.up.bias"), 0, 0);
        runner_close(&r);
    }
}

/* ---- refusals, whole */

static void refused(const char *const *with, i64 n, const char *message)
{
    arena *a;
    model m = {0};
    config *c = case_config(bare, with, n);
    assert_ok(arena_open(&a));
    status s = model_build(a, c, &(model_shape){.rows = 1, .tokens = 4, .mode = MODE_TRAIN}, &m);
    assert_non_null(s);
    assert_string_equal(s->message, message);
    status_drop(s);
    graph_close(m.g);
    config_close(c);
    arena_close(a);
}

#define FIXED                                                                                                \
    "bare:2: model.init.kind is eoc; q = sb^2 + sw^2 E[phi(sqrt(q) Z)^2] is the fixed point of a stack "     \
    "without norms, and "
#define REMEDY " (set model.norm.kind: none, model.linear.kind: dense and inner norms to none)"
static void test_refused(void **state)
{
    (void)state;
    static const char *const some[] = {"model.norm.kind=rms", "model.norm.attn=[]", "model.norm.ffn=[out]",
                                       "model.norm.final=false"};
    refused(some, 1, FIXED "model.norm.final is true" REMEDY);
    refused(some, 4, FIXED "model.norm.ffn is out" REMEDY);
    refused((const char *[]){"model.norm.q=head"}, 1, FIXED "model.norm.q is head" REMEDY);
    refused((const char *[]){"model.linear.kind=sdd"}, 1, FIXED "model.linear.kind is sdd" REMEDY);
    refused((const char *[]){"model.override=[{layers: 1, norm: {kind: rms}}]"}, 1,
            FIXED "model.norm.attn is pre" REMEDY);
    refused(
        (const char *[]){"model.ffn.kind=gated"}, 1,
        "bare:2: model.init.kind is eoc; sw^2 E[phi'(sqrt(q) Z)^2] = 1 is of one function phi of one map's "
        "output, and model.ffn.kind is gated (use mlp)");
    refused((const char *[]){"model.ffn.activation=poly_norm"}, 1,
            "bare:2: model.init.kind is eoc; sw^2 E[phi'(sqrt(q) Z)^2] = 1 and sb^2 = q - sw^2 E[phi(sqrt(q) "
            "Z)^2] >= 0 give no sw and sb at q = 1 with model.ffn.activation: poly_norm (they need a fixed "
            "function of each value, like gelu, silu, elu, selu or relu)");
    refused(
        (const char *[]){"model.bias=qkv"}, 1,
        "bare:2: model.init.kind is eoc; q = sb^2 + sw^2 E[phi(sqrt(q) Z)^2] with model.ffn.activation: "
        "gelu needs biases of variance sb^2 = 0.0672, and model.bias is qkv (set it to true, or use relu: "
        "sb = 0)");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values), cmocka_unit_test(test_selu),       cmocka_unit_test(test_limit),
        cmocka_unit_test(test_none),   cmocka_unit_test(test_stack),      cmocka_unit_test(test_layer),
        cmocka_unit_test(test_model),  cmocka_unit_test(test_relu_model), cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

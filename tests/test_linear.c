/* linear and linear_xent beyond what `keel op check` covers: weights that lie side by side in a store and
 * weights that do not, gradients added into the store over micro-batches, outputs kept in f32, targets out of
 * range. */
#define _GNU_SOURCE
#include "check.h"
#include "base/random.h"
#include "graph/interpret.h"
#include "graph/program.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static device *dev;

typedef struct model {
    arena *arena;
    graph *g;
    store *store;
    program *program;
    oracle *oracle;
} model;
static const step_info step = {.seed = 1, .step = 1};

static model model_new(dtype act)
{
    model m = {0};
    assert_ok(arena_open(&m.arena));
    m.g = graph_new(m.arena, &(graph_options){.act = act, .stream = act});
    return m;
}

static void model_close(model *m)
{
    oracle_close(m->oracle);
    program_close(m->program);
    store_close(m->store);
    graph_close(m->g);
    arena_close(m->arena);
}

static float value_of(const void *p, dtype t, i64 i)
{
    return t == DT_BF16 ? bf16_to_f32(((const bf16 *)p)[i]) : ((const float *)p)[i];
}

/* Inputs: N(0, 1) unless they are indices, which the caller writes; the oracle sees what kernels read. */
static void model_fill(model *m)
{
    for (i64 i = 0; i < m->g->n_tensors; i++) {
        tensor *t = m->g->tensors[i];
        if (t->role != ROLE_INPUT || t->dtype == DT_I32) continue;
        for (i64 k = 0; k < count(t); k++) {
            float x = (float)random_normal(5, random_stream(t->path), 0, (u64)k);
            if (t->dtype == DT_BF16)
                ((bf16 *)program_data(m->program, t))[k] = f32_to_bf16(x);
            else
                ((float *)program_data(m->program, t))[k] = x;
        }
    }
}

static void model_oracle(model *m)
{
    assert_ok(oracle_open(m->g, &m->oracle));
    for (i64 i = 0; i < m->g->n_tensors; i++) {
        const tensor *t = m->g->tensors[i];
        if (t->role != ROLE_INPUT && t->role != ROLE_PARAM) continue;
        const void *p = program_data(m->program, t);
        for (i64 k = 0; k < count(t); k++)
            oracle_data(m->oracle, t)[k] =
                t->dtype == DT_I32 ? (double)((const i32 *)p)[k] : (double)value_of(p, t->dtype, k);
    }
    assert_ok(oracle_run(m->oracle, &step, true));
}

/* Worst |x - times want| / (|want| + rms(want)). */
static double error_of(const void *x, dtype type, const double *want, double times, i64 n)
{
    double sum = 0, worst = 0;
    for (i64 i = 0; i < n; i++) sum += want[i] * want[i];
    for (i64 i = 0; i < n; i++)
        worst = fmax(worst, fabs((double)value_of(x, type, i) / times - want[i]) /
                                (fabs(want[i]) + sqrt(sum / (double)n) + 1e-300));
    return worst;
}

static void expect_near(model *m, const tensor *t, const void *data, dtype type, double times, double limit)
{
    double error = error_of(data, type, oracle_data(m->oracle, t), times, count(t));
    if (!(error <= limit)) fail_msg("%s: error %.3g, limit %.3g", t->path, error, limit);
}

/* Every parameter's gradient after TIMES micro-batches of the same values. */
static void expect_gradients(model *m, double times, double limit)
{
    for (i64 i = 0; i < m->g->n_tensors; i++) {
        const tensor *t = m->g->tensors[i];
        if (t->role != ROLE_PARAM || !t->grad) continue;
        expect_near(m, t->grad, store_find(m->store, t->path)->grad, DT_F32, times, limit);
    }
}

/* ---- linear */
enum { APART = 1, BIAS = 2, KEEP_F32 = 4 };

static void prove_linear(dtype act, int form)
{
    model m = model_new(act);
    i64 widths[3] = {64, 16, 32}, in = 48;
    tensor *x = g_input(m.g, "x", act, 3, (i64[]){2, 9, in}), *w[3], *b[3] = {0};
    for (int i = 0; i < 3; i++) {
        char name[8];
        snprintf(name, sizeof name, "w%d", i);
        w[i] = g_param(m.g, name, 2, (i64[]){widths[i], in}, &(param_info){.std = 0.5});
        // A parameter of 5 values is padded: what follows it does not lie where the weight before it ends.
        snprintf(name, sizeof name, "gap%d", i);
        if (form & APART) g_param(m.g, name, 1, (i64[]){5}, &(param_info){.std = 1});
    }
    for (int i = 0; i < 3; i += 2) { // the middle one has none
        char name[8];
        snprintf(name, sizeof name, "b%d", i);
        param_info info = {.std = 1, .f32 = true};
        if (form & BIAS) b[i] = g_param(m.g, name, 1, &widths[i], &info);
    }
    const double keep = form & KEEP_F32 ? 1 : 0;
    node *n = g_node(m.g, OP_linear, IN(x, w[0], w[1], w[2], b[0], b[1], b[2]), WITH({"f32", keep}));
    tensor *y = g_out(n, 0), *seed = g_input(m.g, "seed", y->dtype, y->ndim, y->dim);
    assert_int_equal(y->dtype, keep != 0 ? DT_F32 : act);
    y->keep = x->wants_grad = true;
    assert_ok(graph_backward(m.g, &y, &seed, 1));
    assert_ok(graph_verify(m.g));
    assert_ok(store_open(m.arena, m.g, STORE_GRADIENTS, &m.store));
    store_initialize(m.store, 3);
    store_sync(m.store);
    const program_options options = {.device = dev, .isa = device_about(dev)->level};
    assert_ok(program_open(m.g, m.store, &options, &m.program));
    model_fill(&m);
    model_oracle(&m);
    for (int i = 0; i < 2; i++) program_run(m.program, &step, PHASE_BACKWARD);

    // bf16: one rounding, 2^-9; of an f32 seed two
    double limit = act == DT_BF16 ? (keep != 0 ? 2.0 : 1.0) / 256 : 1e-5;
    expect_near(&m, y, program_data(m.program, y), y->dtype, 1, keep != 0 ? 1e-5 : limit);
    expect_near(&m, x->grad, program_data(m.program, x->grad), x->grad->dtype, 1, limit);
    expect_gradients(&m, 2, limit);
    model_close(&m);
}

static void test_side_by_side_or_apart(void **state)
{
    (void)state;
    for (int form = 0; form < 8; form++) {
        prove_linear(DT_F32, form);
        prove_linear(DT_BF16, form);
    }
}

static void refused(graph *g, node *n, const char *message)
{
    (void)n;
    assert_fails(graph_status(g), ERR_CONFIG, message);
}

static void test_refusals(void **state)
{
    (void)state;
    model m = model_new(DT_BF16);
    tensor *x = g_input(m.g, "x", DT_BF16, 2, (i64[]){4, 8}),
           *f = g_input(m.g, "f", DT_F32, 2, (i64[]){3, 8});
    tensor *w = g_input(m.g, "w", DT_BF16, 2, (i64[]){5, 8}),
           *v = g_input(m.g, "v", DT_BF16, 2, (i64[]){5, 7});
    tensor *b = g_input(m.g, "b", DT_F32, 1, (i64[]){6}), *t = g_input(m.g, "t", DT_I32, 1, (i64[]){4});
    tensor *one = g_input(m.g, "one", DT_F32, 1, (i64[]){1});
    refused(m.g, g_node(m.g, OP_linear, IN(x, v), NO_ATTRS), "linear (linear): weight 0 must be [n, 8]");
    refused(m.g, g_node(m.g, OP_linear, IN(x, w, f), NO_ATTRS),
            "linear (linear): weight 1 is f32, x is bf16; they must agree");
    refused(m.g, g_node(m.g, OP_linear, IN(x, w, NULL, w), NO_ATTRS), "linear (linear): w2 without w1");
    refused(m.g, g_node(m.g, OP_linear, IN(x, w, NULL, NULL, b), NO_ATTRS),
            "linear (linear): bias 0 must be [5]");
    refused(m.g, g_node(m.g, OP_linear, IN(x, w, NULL, NULL, NULL, b), NO_ATTRS),
            "linear (linear): bias 1 without its weight");
    refused(m.g, g_node(m.g, OP_linear_grad, IN(x, w, NULL, NULL, x), NO_ATTRS),
            "linear_grad (linear_grad): dy must be [4, 5]");
    refused(m.g, g_node(m.g, OP_linear_xent, IN(x, v, t, one), NO_ATTRS),
            "linear_xent (linear_xent): w must be [words, 8]");
    refused(m.g, g_node(m.g, OP_linear_xent, IN(x, f, t, one), NO_ATTRS),
            "linear_xent (linear_xent): w is f32, h is bf16; they must agree");
    refused(m.g, g_node(m.g, OP_linear_xent, IN(w, w, t, one), NO_ATTRS),
            "linear_xent (linear_xent): 4 targets for 5 rows");
    refused(m.g, g_node(m.g, OP_linear_xent, IN(x, w, t, b), NO_ATTRS),
            "linear_xent (linear_xent): inv_n must be one number");
    model_close(&m);
}

/* ---- linear_xent */
typedef struct head {
    model m;
    tensor *h, *targets, *inv_n, *loss, *nll;
} head;
enum { ROWS = 21, WORDS = 70, WIDTH = 16 };

static head head_new(dtype act, const op_set *attrs, i32 target)
{
    head s = {.m = model_new(act)};
    graph *g = s.m.g;
    s.h = g_input(g, "h", act, 2, (i64[]){ROWS, WIDTH});
    s.targets = g_input(g, "targets", DT_I32, 1, (i64[]){ROWS});
    s.inv_n = g_input(g, "inv_n", DT_F32, 1, (i64[]){1});
    tensor *w = g_param(g, "w", 2, (i64[]){WORDS, WIDTH}, &(param_info){.kind = PARAM_HEAD, .std = 0.1});
    node *n = g_node(g, OP_linear_xent, IN(s.h, w, s.targets, s.inv_n), attrs);
    s.loss = g_out(n, 0), s.nll = g_out(n, 1);
    s.loss->keep = s.nll->keep = s.h->wants_grad = true;
    assert_ok(graph_backward(g, NULL, NULL, 0));
    assert_ok(store_open(s.m.arena, g, STORE_GRADIENTS, &s.m.store));
    store_initialize(s.m.store, 3);
    store_sync(s.m.store);
    const program_options options = {.device = dev, .isa = device_about(dev)->level};
    assert_ok(program_open(g, s.m.store, &options, &s.m.program));
    model_fill(&s.m);
    *(float *)program_data(s.m.program, s.inv_n) = 1.0f / ROWS;
    for (i64 i = 0; i < ROWS; i++)
        ((i32 *)program_data(s.m.program, s.targets))[i] = i % 4 == 1 ? target : (i32)(i * 17 % WORDS);
    return s;
}

static void test_head_in_a_graph(void **state)
{
    (void)state;
    for (dtype act = DT_F32; act <= DT_BF16; act++) {
        head s = head_new(act, WITH({"chunk", 8}, {"block", 32}, {"z_loss", 0.01}), -1);
        model_oracle(&s.m);
        for (int i = 0; i < 3; i++) program_run(s.m.program, &step, PHASE_BACKWARD);
        double limit = act == DT_BF16 ? 1.0 / 256 : 1e-5;
        expect_near(&s.m, s.loss, program_data(s.m.program, s.loss), DT_F32, 1, 1e-5);
        expect_near(&s.m, s.nll, program_data(s.m.program, s.nll), DT_F32, 1, 1e-5);
        expect_near(&s.m, s.h->grad, program_data(s.m.program, s.h->grad), act, 1, limit);
        expect_gradients(&s.m, 3, limit);
        model_close(&s.m);
    }
}

/* A target that is no word: NaN where it stands and in the loss; no gradient from it, nothing read elsewhere.
 */
static void test_targets_out_of_range(void **state)
{
    (void)state;
    const i32 bad[] = {WORDS, -2, INT32_MAX, INT32_MIN};
    for (i64 k = 0; k < COUNT(bad); k++) {
        head s = head_new(DT_BF16, NO_ATTRS, bad[k]);
        program_run(s.m.program, &step, PHASE_BACKWARD);
        const float *nll = program_data(s.m.program, s.nll);
        assert_true(isnan(*(float *)program_data(s.m.program, s.loss)));
        for (i64 i = 0; i < ROWS; i++) assert_true(i % 4 == 1 ? isnan(nll[i]) : isfinite(nll[i]));
        const float *dw = store_find(s.m.store, "w")->grad;
        for (i64 i = 0; i < WORDS * WIDTH; i++) assert_true(isfinite(dw[i]));
        model_close(&s.m);
    }
}

static void test_nothing_counted(void **state)
{
    (void)state;
    head s = head_new(DT_F32, WITH({"z_loss", 0.5}), -1);
    for (i64 i = 0; i < ROWS; i++) ((i32 *)program_data(s.m.program, s.targets))[i] = -1;
    program_run(s.m.program, &step, PHASE_BACKWARD);
    assert_true(*(float *)program_data(s.m.program, s.loss) == 0);
    for (i64 i = 0; i < WORDS * WIDTH; i++) assert_true(store_find(s.m.store, "w")->grad[i] == 0);
    for (i64 i = 0; i < ROWS * WIDTH; i++)
        assert_true(((float *)program_data(s.m.program, s.h->grad))[i] == 0);
    model_close(&s.m);
}

int main(void)
{
    status s = device_open(&(device_options){0}, &dev);
    if (s) return fprintf(stderr, "%s\n", s->message), 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_side_by_side_or_apart), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_head_in_a_graph),       cmocka_unit_test(test_targets_out_of_range),
        cmocka_unit_test(test_nothing_counted),
    };
    int bad = cmocka_run_group_tests(tests, NULL, NULL);
    device_close(dev);
    return bad;
}

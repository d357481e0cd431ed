/* Conversions of Pre-LayerNorm models: equal logits in double in all three forms, gradients that map onto
 * each other, which models and values are refused. On disk and in f32: cli_convert.sh. */
#include "model_case.h"
#include "infer/convert.h"

static const model_case gpt2 = {
    .name = "gpt2",
    .yaml = "model: {layers: 2, width: 32, vocab: 61, context: 12, bias: true, tie_head: true,\n"
            "        position: {kind: learned}, norm: {kind: layer, affine: scale_bias},\n"
            "        attention: {heads: 2}, ffn: {kind: mlp, activation: gelu_tanh}}\n"};
static const model_case llama = {.name = "llama",
                                 .yaml = "model: {layers: 2, width: 32, vocab: 61, context: 12,\n"
                                         "        norm: {preset: pre_qk, kind: layer, inner_kind: layer},\n"
                                         "        attention: {heads: 4, kv_heads: 2}, ffn: {width: 48}}\n"};
static const model_case plain = {
    .name = "plain",
    .yaml = "model: {layers: 2, width: 32, vocab: 61, context: 12, tie_head: false,\n"
            "        norm: {kind: layer, affine: none}, bias: qkv,\n"
            "        attention: {heads: 4}, ffn: {kind: mlp, activation: poly_norm},\n"
            "        residual: {branch_scale: 0.5}}\n"};
static const model_case experts = {.name = "experts",
                                   .yaml =
                                       "model: {layers: 2, width: 32, vocab: 61, context: 12,\n"
                                       "        norm: {kind: layer}, attention: {heads: 4, kv_heads: 2},\n"
                                       "        ffn: {kind: moe, experts: 3, shared: 1}}\n"};

typedef struct side {
    arena *arena;
    config *c;
    model m;
    oracle *o;
} side;

static void open_side(side *x, config *c, const case_rows *rows)
{
    model_shape shape = case_shape(rows, MODE_TRAIN, DT_F32);
    x->c = c;
    assert_ok(arena_open(&x->arena));
    assert_ok(model_build(x->arena, c, &shape, &x->m));
    assert_ok(graph_backward(x->m.g, NULL, NULL, 0));
    assert_ok(oracle_open(x->m.g, &x->o));
    for (i64 i = 0; i < rows->rows * rows->tokens; i++) {
        oracle_data(x->o, x->m.tokens)[i] = rows->token[i];
        oracle_data(x->o, x->m.position)[i] = rows->position[i];
        oracle_data(x->o, x->m.doc_start)[i] = rows->start[i];
        oracle_data(x->o, x->m.targets)[i] = rows->target[i];
    }
    *oracle_data(x->o, x->m.inverse_count) = 1 / (double)rows->n_valid;
}
static void close_side(side *x)
{
    oracle_close(x->o);
    graph_close(x->m.g);
    config_close(x->c);
    arena_close(x->arena);
}

/* Every parameter away from where it starts, so that gains and biases count. */
static void random_weights(side *x)
{
    for (i64 i = 0; i < x->m.g->n_tensors; i++) {
        const tensor *t = x->m.g->tensors[i];
        if (t->role != ROLE_PARAM) continue;
        bool gain = strstr(t->path, ".gain") || strstr(t->path, "activation.weight");
        for (i64 k = 0; k < count(t); k++)
            oracle_data(x->o, t)[k] =
                (gain ? 1 : 0) + 0.2 * random_normal(3, random_stream(t->path), 0, (u64)k);
    }
}

static void read_oracle(void *context, const tensor *t, double *out)
{
    side *x = context;
    memcpy(out, oracle_data(x->o, g_find(x->m.g, t->path)), sizeof *out * (size_t)count(t));
}
static status converted(side *from, norm_form form, side *to, const case_rows *rows)
{
    config *c;
    conversion k = {from->m.g, form, config_is(from->c, "model.norm.kind", "rms"), read_oracle, from};
    *to = (side){0};
    TRY(convert_config(from->c, from->m.g, form, &c));
    open_side(to, c, rows);
    for (i64 i = 0; i < to->m.g->n_tensors; i++) {
        const tensor *t = to->m.g->tensors[i];
        if (t->role == ROLE_PARAM) TRY(convert_parameter(&k, t, oracle_data(to->o, t)));
    }
    return OK;
}

static void run(side *x) { assert_ok(oracle_run(x->o, &(step_info){.seed = 1}, true)); }
static void same_logits(side *a, side *b, const char *what)
{
    const double *x = oracle_data(a->o, a->m.logits), *y = oracle_data(b->o, b->m.logits);
    double worst = 0, size = 0;
    for (i64 k = 0; k < count(a->m.logits); k++)
        worst = fmax(worst, fabs(x[k] - y[k])), size = fmax(size, fabs(x[k]));
    if (!(size > 0.1 && worst <= 1e-12 * size)) fail_msg("%s: logits differ by %g of %g", what, worst, size);
}

static void zero_final_bias(side *x)
{
    const tensor *t = g_find(x->m.g, "norm_final.bias");
    for (i64 k = 0; t && k < count(t); k++) oracle_data(x->o, t)[k] = 0;
}

/* layer = rms = crms, and crms from rms. */
static void test_equal(void **state)
{
    (void)state;
    static const model_case cases[] = {gpt2, llama, plain, experts};
    case_rows rows;
    rows_mixed(&rows);
    for (i64 k = 0; k < COUNT(cases); k++) {
        side layer = {0}, rms, crms, again;
        open_side(&layer, case_config(cases[k], NULL, 0), &rows);
        random_weights(&layer);
        run(&layer);
        assert_ok(converted(&layer, FORM_RMS, &rms, &rows));
        run(&rms);
        same_logits(&layer, &rms, cases[k].name);
        zero_final_bias(&layer);
        zero_final_bias(&rms);
        run(&layer);
        assert_ok(converted(&layer, FORM_CRMS, &crms, &rows));
        run(&crms);
        same_logits(&layer, &crms, cases[k].name);
        assert_int_equal(config_count(crms.c, "model.width"), 31);
        assert_int_equal(cols(g_find(crms.m.g, "embedding.weight")), 31);
        assert_ok(converted(&rms, FORM_CRMS, &again, &rows));
        run(&again);
        same_logits(&layer, &again, cases[k].name);
        close_side(&again);
        close_side(&crms);
        close_side(&rms);
        close_side(&layer);
    }
}

/* The loss is a function of C W: the gradient of W is C times that of the map made from it; of the norms it
 * is equal. */
static void test_gradients(void **state)
{
    (void)state;
    side layer = {0}, rms;
    case_rows rows;
    rows_mixed(&rows);
    open_side(&layer, case_config(gpt2, NULL, 0), &rows);
    random_weights(&layer);
    assert_ok(converted(&layer, FORM_RMS, &rms, &rows));
    run(&layer);
    run(&rms);
    static const char *const paths[] = {"blocks.0.attention.o.weight", "blocks.1.ffn.down.weight",
                                        "blocks.0.attention.norm_pre.gain", "blocks.1.ffn.up.weight"};
    for (int p = 0; p < COUNT(paths); p++) {
        const tensor *a = g_find(layer.m.g, paths[p]), *b = g_find(rms.m.g, paths[p]);
        const double *x = oracle_data(layer.o, a->grad), *y = oracle_data(rms.o, b->grad);
        i64 n = cols(a), d = rows_of(a);
        double off = 0, size = 0;
        for (i64 j = 0; j < n; j++) {
            double mean = 0;
            for (i64 r = 0; p < 2 && r < d; r++) mean += y[r * n + j] / (double)d;
            for (i64 r = 0; r < d; r++) off = fmax(off, fabs(x[r * n + j] - (y[r * n + j] - mean)));
            for (i64 r = 0; r < d; r++) size = fmax(size, fabs(x[r * n + j]));
        }
        if (!(size > 1e-6 && off <= 1e-12 * fmax(size, 1)))
            fail_msg("%s: off by %g of %g", paths[p], off, size);
    }
    close_side(&rms);
    close_side(&layer);
}

/* A stored width of one less: attention and the inner width stay as they were, a bias appears where one is
 * folded. */
static void test_config(void **state)
{
    (void)state;
    side layer = {0}, crms;
    case_rows rows;
    rows_mixed(&rows);
    open_side(&layer, case_config(gpt2, (const char *[]){"model.bias=false", "model.ffn.kind=gated"}, 2),
              &rows);
    random_weights(&layer);
    zero_final_bias(&layer);
    assert_ok(converted(&layer, FORM_CRMS, &crms, &rows));
    run(&layer);
    run(&crms);
    same_logits(&layer, &crms, "without biases");
    assert_int_equal(config_count(crms.c, "model.attention.head_width"), 16);
    assert_int_equal(config_count(crms.c, "model.ffn.width"), 128);
    assert_true(config_is(crms.c, "model.bias", "true"));
    assert_false(config_flag(crms.c, "model.tie_head"));
    assert_non_null(g_find(crms.m.g, "head.weight"));
    close_side(&crms);
    close_side(&layer);
}

/* ---- refusals, whole */
static void refused(model_case m, const char *set, norm_form form, const char *message)
{
    side from = {0}, to = {0};
    case_rows rows;
    rows_mixed(&rows);
    open_side(&from, case_config(m, &set, set != NULL), &rows);
    random_weights(&from);
    status s = converted(&from, form, &to, &rows);
    assert_non_null(s);
    assert_string_equal(s->message, message);
    status_drop(s);
    if (to.c) close_side(&to);
    close_side(&from);
}

static void test_refused(void **state)
{
    (void)state;
    refused(gpt2, "model.norm.kind=rms", FORM_RMS, "command line: model.norm.kind is rms already");
    refused(llama, "model.norm.kind=l1", FORM_RMS,
            "command line: model.norm.kind is l1; the conversion to rms starts from layer");
    refused(
        llama, "model.norm.kind=l1", FORM_CRMS,
        "command line: model.norm.kind is l1; the conversion to crms starts from layer, or from rms with a "
        "centred stream");
    refused(llama, "model.norm.attn=[pre,post]", FORM_RMS,
            "command line: model.norm.attn is pre post, not pre; every branch must read LN(x), and nothing "
            "else norms "
            "or reads the stream x: LN(x) = RMS(C x) does not carry over");
    refused(
        llama, "model.norm.final=false", FORM_RMS,
        "command line: model.norm.final is false, not true; the head would read x itself, not LN(x): LN(x) = "
        "RMS(C x) does not carry over");
    refused(llama, "model.residual.kind=frac", FORM_RMS,
            "command line: model.residual.kind is frac, not add; fractions of C x do not have mean 0: LN(x) "
            "= RMS(C "
            "x) does not carry over");
    refused(llama, "model.override=[{layers: 1, norm.kind: rms}]", FORM_CRMS,
            "command line: model.norm.kind differs from the model's; one form for all layers");
    refused(
        plain, "model.linear.kind=sdd", FORM_RMS,
        "command line: model.linear.kind is sdd; gain * N(W x) writes blocks.0.attention.o.gain's map to the "
        "stream, and C (gain * N(W x)) is not of that form");
    refused(gpt2, NULL, FORM_CRMS,
            "norm_final.bias has a part along the gain that adds one number to each token's logit; the head "
            "has no "
            "bias to hold it without the stream's last value (use --to=rms)");
}

/* A model of rms norms whose stream is not centred is another function. */
static void test_not_centred(void **state)
{
    (void)state;
    side from = {0}, to = {0};
    case_rows rows;
    rows_mixed(&rows);
    open_side(&from, case_config(llama, (const char *[]){"model.norm.kind=rms"}, 1), &rows);
    random_weights(&from);
    status s = converted(&from, FORM_CRMS, &to, &rows);
    assert_non_null(s);
    assert_non_null(strstr(s->message, "embedding.weight writes a mean of "));
    assert_non_null(strstr(s->message,
                           " to the stream; RMS(x) = RMS(C x) only where it is 0, as in a model that "
                           "'keel convert --to=rms' made"));
    status_drop(s);
    close_side(&to);
    close_side(&from);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal),   cmocka_unit_test(test_gradients),   cmocka_unit_test(test_config),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_not_centred),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

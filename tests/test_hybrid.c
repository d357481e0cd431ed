/* HybridNorm and HybridNorm* as rows of norm.c: the table of placements, the presets' exception of the first
 * block beside one's own, equivalences of placements, counts of parameters, freedom of scale. That gradients,
 * programs, recomputation and generation agree is shown with the other models (hybrid-like of model_case.h).
 */
#include "model_case.h"
#include "base/text.h"

static const model_case bare = {.name = "bare",
                                .yaml = "model: {layers: 3, width: 32, vocab: 61, context: 12,\n"
                                        "        attention: {heads: 4, kv_heads: 2}, ffn: {width: 48}}\n"};

/* ---- the table: preset -> its keys, and the resolved file loads as the same */

static void has(const config *c, i64 layer, const char *key, const char *value)
{
    if (strcmp(config_text_at(c, layer, key), value) != 0)
        fail_msg("layer %lld: %s is '%s', not '%s'", (long long)layer, key, config_text_at(c, layer, key),
                 value);
}

static void loads_again(const config *c)
{
    text written = {0}, again = {0};
    config *second;
    config_write(c, &written);
    assert_ok(config_parse("again", written.data, written.bytes, NULL, 0, &second));
    config_write(second, &again);
    assert_string_equal(written.data, again.data);
    config_close(second);
    text_free(&written);
    text_free(&again);
}

static void test_table(void **state)
{
    (void)state;
    static const char *const presets[] = {"model.norm.preset=hybrid", "model.norm.preset=hybrid_star"};
    for (int star = 0; star < 2; star++) {
        config *c = case_config(bare, &presets[star], 1);
        for (i64 layer = 0; layer < 3; layer++) {
            bool exception = star && layer == 0;
            has(c, layer, "model.norm.attn", exception ? "pre" : "");
            has(c, layer, "model.norm.ffn", exception ? "pre" : "stream");
            has(c, layer, "model.norm.q", "head");
            has(c, layer, "model.norm.k", "head");
            has(c, layer, "model.norm.v", "head");
            has(c, layer, "model.norm.context", "none");
        }
        has(c, -1, "model.norm.embedding", "false");
        has(c, -1, "model.norm.final", "true");
        has(c, -1, "model.init.kind", "megatron");
        has(c, -1, "train.optimizer.decay", "matrix head gain");
        loads_again(c);
        config_close(c);
    }
    config *c = case_config(bare, (const char *[]){"model.norm.preset=pre"}, 1);
    has(c, 0, "model.norm.v", "none");
    has(c, 0, "train.optimizer.decay", "matrix head");
    config_close(c);
}

/* One's own exception stands beside the preset's, and wins over it; an empty list drops both. */
static void test_exceptions(void **state)
{
    (void)state;
    static const char *const star = "model.norm.preset=hybrid_star";
    config *c = case_config(bare, (const char *[]){star, "model.override=[{layers: 2, norm.eps: 0.5}]"}, 2);
    has(c, 0, "model.norm.attn", "pre");
    has(c, 2, "model.norm.eps", "0.5");
    has(c, 1, "model.norm.eps", "1e-5");
    assert_string_equal(config_where_at(c, 0, "model.norm.attn"), "preset hybrid_star: model.norm.attn");
    assert_int_equal(config_items(c, "model.override"), 2);
    loads_again(c);
    config_close(c);
    c = case_config(bare, (const char *[]){star, "model.override=[{layers: 0, norm.attn: [out]}]"}, 2);
    has(c, 0, "model.norm.attn", "out");
    has(c, 0, "model.norm.ffn", "pre");
    loads_again(c);
    config_close(c);
    c = case_config(bare, (const char *[]){star, "model.override=[]"}, 2);
    has(c, 0, "model.norm.attn", "");
    loads_again(c);
    config_close(c);
}

/* ---- equivalent placements (in double) */

static void open_double(runner *r, const char *const *with, i64 n, const case_rows *x)
{
    runner_open(
        r, bare, with, n,
        &(runner_options){.shape = case_shape(x, MODE_TRAIN, DT_F32), .backward = true, .oracle = true});
    runner_rows(r, x);
}

static void copy_param(runner *to, const char *to_path, const runner *from, const char *from_path,
                       bool gradient)
{
    const tensor *a = g_find(to->m.g, to_path), *b = g_find(from->m.g, from_path);
    if (!a || !b || count(a) != count(b)) fail_msg("%s and %s are not one parameter", to_path, from_path);
    double off = 0, norm = 0;
    for (i64 k = 0; k < count(a); k++) {
        if (!gradient) {
            oracle_data(to->o, a)[k] = oracle_data(from->o, b)[k];
            continue;
        }
        double want = oracle_data(from->o, b->grad)[k];
        off += pow(oracle_data(to->o, a->grad)[k] - want, 2), norm += want * want;
    }
    if (gradient && !(norm > 0 && sqrt(off / norm) <= 1e-12))
        fail_msg("gradient of %s: off by %g", to_path, off);
}

static void same_logits(runner *a, runner *b, double limit)
{
    const double *x = oracle_data(a->o, a->m.logits), *y = oracle_data(b->o, b->m.logits);
    double worst = 0;
    for (i64 k = 0; k < count(a->m.logits); k++) worst = fmax(worst, fabs(x[k] - y[k]));
    if (!(worst <= limit)) fail_msg("logits differ by %g", worst);
}

/* post everywhere and no final norm = stream everywhere but at the very first branch, and a final norm: the
 * gains move one branch on. */
static void pass_gains(runner *stream, const runner *post, bool gradient)
{
    char to[64], from[64];
    for (int site = 1; site <= 6; site++) { // the norm between branch site - 1 and branch site
        snprintf(from, sizeof from, "blocks.%d.%s.norm_post.gain", (site - 1) / 2,
                 (site - 1) % 2 ? "ffn" : "attention");
        snprintf(to, sizeof to, "blocks.%d.%s.norm_stream.gain", site / 2, site % 2 ? "ffn" : "attention");
        copy_param(stream, site == 6 ? "norm_final.gain" : to, post, from, gradient);
    }
}

static void test_post_is_stream(void **state)
{
    (void)state;
    static const char *const as_post[] = {"model.norm.preset=post"};
    static const char *const as_stream[] = {"model.norm.attn=[stream]", "model.norm.ffn=[stream]",
                                            "model.override=[{layers: 0, norm.attn: []}]"};
    runner post, stream;
    case_rows x;
    rows_mixed(&x);
    open_double(&post, as_post, 1, &x);
    open_double(&stream, as_stream, 3, &x);
    pass_gains(&stream, &post, false);
    runner_oracle(&post);
    runner_oracle(&stream);
    same_logits(&post, &stream, 1e-13);
    pass_gains(&stream, &post, true);
    copy_param(&stream, "blocks.1.attention.q.weight", &post, "blocks.1.attention.q.weight", true);
    copy_param(&stream, "embedding.weight", &post, "embedding.weight", true);
    runner_close(&post);
    runner_close(&stream);
}

/* Without its exception HybridNorm* is HybridNorm; with it, layer 0 differs. */
static void test_star(void **state)
{
    (void)state;
    static const char *const with[3][2] = {{"model.norm.preset=hybrid", "model.override=[]"},
                                           {"model.norm.preset=hybrid_star", "model.override=[]"},
                                           {"model.norm.preset=hybrid_star", "model.norm.final=true"}};
    runner r[3];
    case_rows x;
    rows_mixed(&x);
    for (int k = 0; k < 3; k++) {
        open_double(&r[k], with[k], 2, &x);
        runner_oracle(&r[k]);
    }
    same_logits(&r[0], &r[1], 0);
    double off = 0;
    for (i64 k = 0; k < count(r[0].m.logits); k++)
        off += fabs(oracle_data(r[0].o, r[0].m.logits)[k] - oracle_data(r[2].o, r[2].m.logits)[k]);
    assert_true(off > 0.1);
    assert_null(g_find(r[0].m.g, "blocks.0.attention.norm_pre.gain"));
    assert_non_null(g_find(r[2].m.g, "blocks.0.attention.norm_pre.gain"));
    assert_non_null(g_find(r[2].m.g, "blocks.0.attention.norm_v.gain"));
    for (int k = 0; k < 3; k++) runner_close(&r[k]);
}

/* ---- gains: 3 d_k + d a layer, and the final norm's d; of the star's first layer d more */
static i64 gains(const char *preset)
{
    runner r;
    case_rows x;
    i64 sum = 0;
    rows_mixed(&x);
    open_double(&r, &preset, 1, &x);
    for (i64 i = 0; i < r.s->n_params; i++)
        if (r.s->entry[i].param.kind == PARAM_GAIN) sum += r.s->entry[i].count;
    runner_close(&r);
    return sum;
}

static void test_parameters(void **state)
{
    (void)state;
    enum { L = 3, D = 32, D_K = 8 };
    assert_int_equal(gains("model.norm.preset=hybrid"), L * (3 * D_K + D) + D);
    assert_int_equal(gains("model.norm.preset=hybrid_star"), L * (3 * D_K + D) + D + D);
}

/* One key head's rows of W_k, or a value head's of W_v, times 3: the logits stay (eps is small beside the
 * heads' mean squares), the gradient becomes a third. Values too: without norm.v they would not. */
static void test_scale_freedom(void **state)
{
    (void)state;
    static const char *const with[] = {"model.norm.preset=hybrid", "model.norm.eps=1e-14"};
    static const char *const path[] = {"blocks.1.attention.q.weight", "blocks.1.attention.k.weight",
                                       "blocks.1.attention.v.weight"};
    enum { HEAD = 8 * 32 };
    for (int k = 0; k < 3; k++) {
        runner r[2];
        case_rows x;
        rows_mixed(&x);
        double off = 0, norm = 0;
        for (int i = 0; i < 2; i++) {
            open_double(&r[i], with, 2, &x);
            double *w = oracle_data(r[i].o, g_find(r[i].m.g, path[k]));
            for (int j = HEAD; i && j < 2 * HEAD; j++) w[j] *= 3;
            runner_oracle(&r[i]);
        }
        same_logits(&r[0], &r[1], 1e-10);
        const double *a = oracle_data(r[0].o, g_find(r[0].m.g, path[k])->grad) + HEAD;
        const double *b = oracle_data(r[1].o, g_find(r[1].m.g, path[k])->grad) + HEAD;
        for (int j = 0; j < HEAD; j++) off += pow(3 * b[j] - a[j], 2), norm += a[j] * a[j];
        assert_true(norm > 0 && sqrt(off / norm) <= 1e-8);
        for (int i = 0; i < 2; i++) runner_close(&r[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),          cmocka_unit_test(test_exceptions),
        cmocka_unit_test(test_post_is_stream), cmocka_unit_test(test_star),
        cmocka_unit_test(test_parameters),     cmocka_unit_test(test_scale_freedom),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

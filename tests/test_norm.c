/* The norm sites: every preset against the table of placements, equivalences between placements, SDD's
 * invariants, first losses, depth scales, and what has no equation. That gradients, programs, recomputation
 * and generation agree is shown with the other models (sdd-like, norms-like, bhyt-like of model_case.h);
 * HybridNorm and post = stream have test_hybrid.c. */
#include "model_case.h"
#include "base/text.h"

static const model_case bare = {.name = "bare",
                                .yaml = "model: {layers: 3, width: 32, vocab: 61, context: 12,\n"
                                        "        attention: {heads: 4, kv_heads: 2}, ffn: {width: 48}}\n"};

/* ---- the table: preset -> its keys, and the resolved file loads as the same */
typedef struct table_row {
    const char *preset, *attn, *ffn, *q, *k, *v, *context, *hidden, *embedding, *final;
    const char *more[5]; // "model.init.kind=normal"
} table_row;
#define NO "none"
#define DECAY "train.optimizer.decay=matrix head gain"
static const table_row table[] = {
    {"pre", "pre", "pre", NO, NO, NO, NO, NO, "false", "true", {"model.init.kind=normal"}},
    {"pre_qk", "pre", "pre", "head", "head", NO, NO, NO, "false", "true", {0}},
    {"post", "post", "post", NO, NO, NO, NO, NO, "false", "false", {0}},
    {"deepnorm",
     "post",
     "post",
     NO,
     NO,
     NO,
     NO,
     NO,
     "false",
     "false",
     {"model.residual.skip_scale=deepnorm", "model.init.kind=deepnorm"}},
    {"sandwich", "pre out", "pre out", NO, NO, NO, NO, NO, "false", "true", {0}},
    {"peri", "pre out", "pre out", NO, NO, NO, NO, NO, "true", "true", {0}},
    {"olmo2",
     "out",
     "out",
     "full",
     "full",
     NO,
     NO,
     NO,
     "false",
     "true",
     {"model.init.kind=normal", "model.init.std=0.02", "model.head.z_loss=1e-5"}},
    {"mix", "pre", "pre", NO, NO, NO, NO, NO, "false", "true", {"model.norm.mix_share=0.25"}},
    {"lns",
     "pre",
     "pre",
     NO,
     NO,
     NO,
     NO,
     NO,
     "false",
     "true",
     {"model.norm.depth_scale=inv_sqrt", "model.init.kind=normal"}},
    {"hybrid",
     "",
     "stream",
     "head",
     "head",
     "head",
     NO,
     NO,
     "false",
     "true",
     {"model.init.kind=megatron", DECAY}},
    {"hybrid_star",
     "",
     "stream",
     "head",
     "head",
     "head",
     NO,
     NO,
     "false",
     "true",
     {"model.init.kind=megatron", "model.override=[{layers: 0, norm.attn: [pre], norm.ffn: [pre]}]"}},
    {"hybrid_star_7b",
     "out",
     "stream",
     "head",
     "head",
     "head",
     NO,
     NO,
     "false",
     "true",
     {"model.init.kind=megatron", "model.norm.out_gain=inv_sqrt_2L",
      "model.override=[{layers: 0, norm.attn: [pre], norm.ffn: [pre]}]"}},
    {"sdd",
     "stream out",
     "stream out",
     "head",
     "head",
     NO,
     "full",
     "fused",
     "false",
     "true",
     {"model.norm.out_gain=inv_sqrt_2L", "model.norm.inner_eps=1e-6", "model.init.std_factor=0.1",
      "model.norm.statistics=f32", DECAY}},
    {"sdd_official",
     "stream out",
     "stream out",
     "head",
     "head",
     NO,
     "full",
     "fused",
     "false",
     "true",
     {"model.norm.out_gain=inv_sqrt_2L", "model.norm.inner_eps=auto", "model.norm.eps=1e-5",
      "model.norm.statistics=native", DECAY}},
    {"sdd_paper",
     "stream out",
     "stream out",
     "full",
     "full",
     "full",
     NO,
     "split",
     "false",
     "true",
     {"model.norm.out_gain=inv_sqrt_L", "model.init.std_factor=1", "model.init.std=auto", DECAY}},
    {"sdd_pre",
     "pre out",
     "pre out",
     "head",
     "head",
     NO,
     "full",
     "fused",
     "false",
     "true",
     {"model.norm.out_gain=inv_sqrt_2L", "model.init.std_factor=0.1", DECAY}},
    {"dyt",
     "pre",
     "pre",
     NO,
     NO,
     NO,
     NO,
     NO,
     "scale",
     "true",
     {"model.norm.kind=dyt", "model.norm.alpha=0.5"}},
    {"bhyt",
     "pre",
     "pre",
     NO,
     NO,
     NO,
     NO,
     NO,
     "false",
     "true",
     {"model.norm.kind=bhyt", "model.norm.eps=1e-6", "model.norm.kappa=10", "model.norm.lambda=1"}},
};

static void has(const config *c, const char *preset, const char *key, const char *value)
{
    if (strcmp(config_text(c, key), value) != 0)
        fail_msg("%s: %s is '%s', not '%s'", preset, key, config_text(c, key), value);
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
    for (i64 i = 0; i < COUNT(table); i++) {
        const table_row *t = &table[i];
        char preset[64], key[64];
        snprintf(preset, sizeof preset, "model.norm.preset=%s", t->preset);
        config *c = case_config(bare, (const char *[]){preset}, 1);
        has(c, t->preset, "model.norm.attn", t->attn);
        has(c, t->preset, "model.norm.ffn", t->ffn);
        has(c, t->preset, "model.norm.q", t->q);
        has(c, t->preset, "model.norm.k", t->k);
        has(c, t->preset, "model.norm.v", t->v);
        has(c, t->preset, "model.norm.context", t->context);
        has(c, t->preset, "model.norm.ffn_hidden", t->hidden);
        has(c, t->preset, "model.norm.embedding", t->embedding);
        has(c, t->preset, "model.norm.final", t->final);
        for (int k = 0; k < 5 && t->more[k]; k++) {
            snprintf(key, sizeof key, "%.*s", (int)strcspn(t->more[k], "="), t->more[k]);
            has(c, t->preset, key, strchr(t->more[k], '=') + 1);
        }
        loads_again(c);
        config_close(c);
    }
    const config_key *k = config_find_key("model.norm.preset");
    i64 choices = 1;
    for (const char *p = k->choices; *p; p++) choices += *p == ' ';
    assert_int_equal(choices, COUNT(table)); // no preset without a row here
}

/* ---- models in double */
static void open_with(runner *r, model_case m, const char *const *with, i64 n, const case_rows *x,
                      bool backward)
{
    runner_open(
        r, m, with, n,
        &(runner_options){.shape = case_shape(x, MODE_TRAIN, DT_F32), .backward = backward, .oracle = true});
    runner_rows(r, x);
}
static double *weight(runner *r, const char *path)
{
    const tensor *t = g_find(r->m.g, path);
    if (!t) fail_msg("no parameter %s", path);
    return oracle_data(r->o, t);
}
static void scale_weight(runner *r, const char *path, double by)
{
    double *w = weight(r, path);
    for (i64 k = 0; k < count(g_find(r->m.g, path)); k++) w[k] *= by;
}
static double apart(runner *a, runner *b)
{
    const double *x = oracle_data(a->o, a->m.logits), *y = oracle_data(b->o, b->m.logits);
    double worst = 0;
    for (i64 k = 0; k < count(a->m.logits); k++) worst = fmax(worst, fabs(x[k] - y[k]));
    return worst;
}

/* LNS with gains g = Pre-Norm with gains g / sqrt(l). */
static void test_lns_is_pre(void **state)
{
    (void)state;
    runner lns, pre;
    case_rows x;
    char path[64];
    rows_mixed(&x);
    open_with(&lns, bare, (const char *[]){"model.norm.preset=lns"}, 1, &x, false);
    open_with(&pre, bare, NULL, 0, &x, false);
    runner_oracle(&lns);
    runner_oracle(&pre);
    assert_true(apart(&lns, &pre) > 0.01);
    for (int layer = 0; layer < 3; layer++)
        for (int k = 0; k < 2; k++) {
            snprintf(path, sizeof path, "blocks.%d.%s.norm_pre.gain", layer, k ? "ffn" : "attention");
            scale_weight(&pre, path, 1 / sqrt(layer + 1));
        }
    runner_oracle(&pre);
    assert_true(apart(&lns, &pre) <= 1e-13);
    runner_close(&lns);
    runner_close(&pre);
}

/* Two configurations that are one model: same parameters by name, same logits. */
static void same_model(const char *const *first, i64 n, const char *const *second, i64 m)
{
    runner a, b;
    case_rows x;
    rows_mixed(&x);
    open_with(&a, bare, first, n, &x, false);
    open_with(&b, bare, second, m, &x, false);
    assert_int_equal(a.s->n_params, b.s->n_params);
    runner_oracle(&a);
    runner_oracle(&b);
    if (!(apart(&a, &b) <= 1e-14))
        fail_msg("%s and %s: logits differ by %g", first[0], second[0], apart(&a, &b));
    runner_close(&a);
    runner_close(&b);
}
#define SAME(first, second) same_model(first, COUNT(first), second, COUNT(second))

static void test_equivalences(void **state)
{
    (void)state;
    static const char *const sdd_off[] = {"model.norm.preset=sdd",      "model.norm.attn=[stream]",
                                          "model.norm.ffn=[stream]",    "model.norm.q=none",
                                          "model.norm.k=none",          "model.norm.context=none",
                                          "model.norm.ffn_hidden=none", "model.norm.out_gain=1"};
    static const char *const post[] = {"model.norm.attn=[stream]", "model.norm.ffn=[stream]",
                                       "model.init.std_factor=0.1"};
    SAME(sdd_off, post); // SDD with its keys off is Post-Norm (in its stream form)
    static const char *const undamped[] = {"model.norm.preset=deepnorm", "model.residual.skip_scale=1",
                                           "model.init.kind=normal"};
    static const char *const plain_post[] = {"model.norm.preset=post"};
    SAME(undamped, plain_post); // DeepNorm with a = 1, b = 1 is Post-Norm
    static const char *const no_mix[] = {"model.norm.preset=mix", "model.norm.mix_share=0.3"};
    static const char *const pre[] = {"model.norm.preset=pre"};
    SAME(no_mix, pre); // 0.3 of 3 layers is none
    static const char *const mix[] = {"model.norm.preset=mix", "model.norm.mix_share=0.34"};
    static const char *const one[] = {"model.override=[{layers: 0, norm.attn: [post], norm.ffn: [post]}]"};
    SAME(mix, one);
    static const char *const no_star[] = {"model.norm.preset=hybrid_star_7b", "model.override=[]",
                                          "model.norm.attn=[]", "model.norm.out_gain=1"};
    static const char *const hybrid[] = {"model.norm.preset=hybrid"};
    SAME(no_star, hybrid);
}

static void initial(runner *r) // not moved away from constants, as runner_weights does
{
    store_initialize(r->s, 3);
    for (i64 i = 0; i < r->m.g->n_tensors; i++) {
        const tensor *t = r->m.g->tensors[i];
        for (i64 k = 0; t->role == ROLE_PARAM && k < count(t); k++)
            oracle_data(r->o, t)[k] = store_find(r->s, t->path)->master[k];
    }
}

/* ---- residual scales and the initial values that go with them */
static void test_deepnorm(void **state)
{
    (void)state;
    runner r;
    case_rows x;
    rows_mixed(&x);
    open_with(&r, bare, (const char *[]){"model.norm.preset=deepnorm", "model.layers=2", "model.width=64"}, 3,
              &x, false);
    double skip = 0, b = pow(8 * 2, -0.25);
    for (i64 i = 0; i < r.m.g->n_nodes; i++)
        if (r.m.g->nodes[i]->op == OP_joint) skip = attr(r.m.g->nodes[i], "a");
    assert_true(fabs(skip - sqrt(2)) <= 1e-15); // (2 L)^(1/4) = 4^(1/4)
    static const struct {
        const char *path;
        double inputs, outputs;
        bool damped;
    } maps[] = {
        {"blocks.0.attention.q.weight", 64, 64, false}, {"blocks.0.attention.k.weight", 64, 32, false},
        {"blocks.0.attention.v.weight", 64, 32, true},  {"blocks.0.attention.o.weight", 64, 64, true},
        {"blocks.1.ffn.gate.weight", 64, 48, true},     {"blocks.1.ffn.down.weight", 48, 64, true}};
    for (i64 k = 0; k < COUNT(maps); k++) {
        double want = (maps[k].damped ? b : 1) * sqrt(2 / (maps[k].inputs + maps[k].outputs));
        double std = g_find(r.m.g, maps[k].path)->param.std;
        if (!(fabs(std - want) <= 1e-15)) fail_msg("%s starts from %g, not %g", maps[k].path, std, want);
    }
    runner_close(&r);
}

/* Orthonormal rows, or columns where there are more rows, times sqrt(outputs / inputs); each expert's. */
static void check_orthogonal(const stored *e)
{
    i64 n = e->dim[e->ndim - 1], rows = e->dim[e->ndim - 2];
    for (const float *w = e->master; w < e->master + e->count; w += rows * n)
        for (i64 a = 0; a < MIN(rows, n); a++)
            for (i64 c = 0; c <= a; c++) {
                double dot = 0;
                for (i64 k = 0; k < MAX(rows, n); k++)
                    dot += rows <= n ? w[a * n + k] * w[c * n + k] : w[k * n + a] * w[k * n + c];
                double want = a == c ? (double)rows / (double)n : 0;
                if (!(fabs(dot - want) <= 1e-5)) fail_msg("%s: %g, not %g", e->path, dot, want);
            }
}
static void test_orthogonal(void **state)
{
    (void)state;
    static const char *const dense[] = {"model.init.kind=orthogonal", "model.width=96",
                                        "model.ffn.width=160"};
    static const char *const experts[] = {"model.init.kind=orthogonal", "model.ffn.kind=moe",
                                          "model.ffn.experts=3"};
    i64 checked = 0;
    for (int k = 0; k < 2; k++) {
        runner r;
        case_rows x;
        rows_mixed(&x);
        open_with(&r, bare, k ? experts : dense, 3, &x, false);
        initial(&r);
        for (i64 i = 0; i < r.s->n_params; i++)
            if (r.s->entry[i].param.orthogonal > 0) check_orthogonal(&r.s->entry[i]), checked++;
        runner_close(&r);
    }
    assert_int_equal(checked, 2 * 3 * 7);
}

static void test_convex(void **state)
{
    (void)state;
    runner r;
    case_rows x;
    rows_mixed(&x);
    open_with(&r, bare,
              (const char *[]){"model.residual.skip_scale=convex", "model.residual.branch_scale=convex"}, 2,
              &x, false);
    for (i64 i = 0; i < r.m.g->n_nodes; i++) {
        const node *n = r.m.g->nodes[i];
        if (n->op != OP_joint) continue;
        assert_true(fabs(attr(n, "a") + attr(n, "c") - 1) <= 1e-15); // x <- (1 - 1/2L) x + F(x) / 2L
        assert_true(fabs(attr(n, "c") - 1. / 6) <= 1e-15);
    }
    runner_close(&r);
}

/* ---- SDD (spec 2.7), with weights at their initial values */
static const char *const sdd[] = {"model.norm.preset=sdd", "model.norm.eps=1e-14",
                                  "model.norm.inner_eps=1e-14"};

/* Any group that a norm follows may be scaled: outputs stay, the gradient becomes 1/c of it; and the gradient
 * is orthogonal to the weights of the group. */
static void test_sdd_scale_freedom(void **state)
{
    (void)state;
    static const char *const group[][2] = {
        {"attention.q.weight"}, {"attention.k.weight"},
        {"attention.v.weight"},                                       // through the context
        {"attention.o.weight"}, {"ffn.gate.weight", "ffn.up.weight"}, // one norm over both
        {"ffn.down.weight"}};
    for (i64 k = 0; k < COUNT(group); k++) {
        runner r[2];
        case_rows x;
        rows_mixed(&x);
        double off = 0, norm = 0, along = 0, size = 0;
        for (int i = 0; i < 2; i++) {
            open_with(&r[i], bare, sdd, 3, &x, true);
            for (int j = 0; i && j < 2 && group[k][j]; j++) {
                char path[64];
                snprintf(path, sizeof path, "blocks.1.%s", group[k][j]);
                scale_weight(&r[i], path, 7);
            }
            runner_oracle(&r[i]);
        }
        if (!(apart(&r[0], &r[1]) <= 1e-8))
            fail_msg("%s x 7: logits move by %g", group[k][0], apart(&r[0], &r[1]));
        for (int j = 0; j < 2 && group[k][j]; j++) {
            char path[64];
            snprintf(path, sizeof path, "blocks.1.%s", group[k][j]);
            const tensor *a = g_find(r[0].m.g, path), *b = g_find(r[1].m.g, path);
            const double *w = oracle_data(r[0].o, a), *da = oracle_data(r[0].o, a->grad);
            const double *db = oracle_data(r[1].o, b->grad);
            for (i64 i = 0; i < count(a); i++) {
                off += pow(7 * db[i] - da[i], 2), norm += da[i] * da[i];
                along += w[i] * da[i], size += w[i] * w[i];
            }
        }
        if (!(norm > 0 && sqrt(off / norm) <= 1e-6))
            fail_msg("%s: gradient off by %g", group[k][0], sqrt(off / norm));
        if (!(fabs(along) <= 1e-7 * sqrt(norm * size)))
            fail_msg("%s: the gradient has a share %g along the weights", group[k][0],
                     along / sqrt(norm * size));
        for (int i = 0; i < 2; i++) runner_close(&r[i]);
    }
}

/* Branches of rms exactly the out gain, a stream of rms 1 after its norms, at any depth. */
static void test_sdd_rms(void **state)
{
    (void)state;
    runner r;
    case_rows x;
    char path[96];
    rows_mixed(&x);
    open_with(&r, bare, sdd, 3, &x, false);
    initial(&r);
    for (int factor = 0; factor < 2; factor++) {
        for (i64 i = 0; factor && i < r.s->n_params; i++) // 10 x every weight, the embedding too
            if (r.s->entry[i].param.kind == PARAM_MATRIX) scale_weight(&r, r.s->entry[i].path, 10);
        runner_oracle(&r);
        for (int layer = 0; layer < 3; layer++)
            for (int k = 0; k < 2; k++) {
                const char *branch = k ? "ffn" : "attention";
                int at = 0;
                for (i64 i = 0; i < r.m.g->n_nodes; i++) { // rms_norm nodes of the branch, in order
                    const node *n = r.m.g->nodes[i];
                    snprintf(path, sizeof path, "blocks.%d.%s", layer, branch);
                    if (n->op != OP_rms_norm || strncmp(n->path, path, strlen(path))) continue;
                    const tensor *gain = n->in[1];
                    bool out = strstr(gain->path, "norm_out");
                    const double *v = oracle_data(r.o, n->out[0]);
                    i64 width = count(gain), groups = count(n->out[0]) / width;
                    double want = out ? 1 / sqrt(6) : 1;
                    for (i64 g = 0; g < groups; g++) {
                        double square = 0;
                        for (i64 j = 0; j < width; j++) square += pow(v[g * width + j], 2) / (double)width;
                        if (!(fabs(sqrt(square) - want) <= 1e-5 * want))
                            fail_msg("%s: rms %.9g, not %.9g", gain->path, sqrt(square), want);
                    }
                    at++;
                }
                assert_int_equal(at, k ? 2 : 5); // stream q k context out; stream out
            }
    }
    runner_close(&r);
}

/* Out gains of 0: the layer is N_ff(N_attn(x)). With unit gains and rows of rms 1 that is N(x). */
static void test_sdd_empty_branches(void **state)
{
    (void)state;
    runner r, none;
    case_rows x;
    rows_mixed(&x);
    static const char *const zero[] = {"model.norm.preset=sdd", "model.norm.out_gain=0", "model.layers=1",
                                       "model.norm.eps=1e-14"};
    open_with(&r, bare, zero, 4, &x, false);
    open_with(&none, bare,
              (const char *[]){"model.norm.preset=sdd", "model.layers=1", "model.norm.eps=1e-14"}, 3, &x,
              false);
    initial(&r);
    initial(&none);
    runner_oracle(&r);
    runner_oracle(&none);
    const tensor *table = g_find(r.m.g, "embedding.weight");
    const double *e = oracle_data(r.o, table), *l = oracle_data(r.o, r.m.logits);
    double worst = 0;
    for (i64 row = 0; row < x.rows * x.tokens; row++) {
        const double *in = e + x.token[row] * 32;
        double square = 0;
        for (int j = 0; j < 32; j++) square += in[j] * in[j] / 32;
        for (int v = 0; v < CASE_VOCAB; v++) {
            double logit = 0;
            for (int j = 0; j < 32; j++) logit += in[j] / sqrt(square) * e[v * 32 + j];
            worst = fmax(worst, fabs(logit - l[row * CASE_VOCAB + v]));
        }
    }
    assert_true(worst <= 1e-8);
    assert_true(apart(&r, &none) > 1e-3);
    runner_close(&r);
    runner_close(&none);
}

/* Per-layer gradients of the stream at the start: within a factor of 2 over 12 layers. */
static void test_sdd_level_gradients(void **state)
{
    (void)state;
    runner r;
    case_rows x;
    rows_mixed(&x);
    open_with(&r, bare, (const char *[]){"model.norm.preset=sdd", "model.layers=12", "model.norm.eps=1e-12"},
              3, &x, true);
    initial(&r);
    runner_oracle(&r);
    double low = INFINITY, high = 0;
    for (int layer = 0; layer < 12; layer++) { // the gradient of the norm's gain sees that of its output
        char path[64];
        double sum = 0;
        snprintf(path, sizeof path, "blocks.%d.attention.o.weight", layer);
        const tensor *t = g_find(r.m.g, path);
        for (i64 k = 0; k < count(t); k++) sum += pow(oracle_data(r.o, t->grad)[k], 2);
        low = fmin(low, sqrt(sum));
        high = fmax(high, sqrt(sum));
    }
    if (!(high < 2 * low)) fail_msg("gradients of the layers range from %g to %g", low, high);
    runner_close(&r);
}

/* ---- first losses (spec 1.4): tied head behind a unit-gain norm: logits of spread sigma sqrt(d) */
static double first_loss(const char *preset, double *spread)
{
    static const model_case wide = {.name = "wide",
                                    .yaml = "model: {layers: 2, width: 256, vocab: 61, context: 12,\n"
                                            "        attention: {heads: 4}, ffn: {width: 64}}\n"};
    runner r;
    case_rows x;
    double square = 0;
    rows_mixed(&x);
    open_with(&r, wide, (const char *[]){preset, "model.norm.eps=1e-12"}, 2, &x, false);
    initial(&r);
    double loss = runner_objective(&r);
    i64 n = count(r.m.logits) / CASE_VOCAB * (CASE_VOCAB - 1);
    for (i64 k = 0; k < count(r.m.logits);
         k++) // but for the token's own, which meets itself in the tied head
        if (k % CASE_VOCAB != x.token[k / CASE_VOCAB])
            square += pow(oracle_data(r.o, r.m.logits)[k], 2) / (double)n;
    *spread = sqrt(square);
    runner_close(&r);
    return loss;
}
static void test_first_loss(void **state)
{
    (void)state;
    double spread, loss = first_loss("model.norm.preset=pre_qk", &spread);
    if (!(fabs(spread - 0.632) < 0.15 && fabs(loss - log(CASE_VOCAB) - 0.2) < 0.15))
        fail_msg("pre_qk: logits of %g, loss ln V + %g", spread, loss - log(CASE_VOCAB));
    loss = first_loss("model.norm.preset=sdd", &spread);
    if (!(fabs(spread - 0.0632) < 0.015 && fabs(loss - log(CASE_VOCAB) - 0.002) < 0.02))
        fail_msg("sdd: logits of %g, loss ln V + %g", spread, loss - log(CASE_VOCAB));
}

/* ---- placements */

/* A norm of the stream keeps the stream's storage, of whatever kind; branches read activations. */
static void test_f32_stream(void **state)
{
    (void)state;
    static const char *const kinds[] = {"rms", "layer", "crms", "l1", "dyt", "bhyt"};
    for (i64 k = 0; k < COUNT(kinds); k++) {
        runner r;
        case_rows x;
        char kind[64];
        rows_mixed(&x);
        snprintf(kind, sizeof kind, "model.norm.kind=%s", kinds[k]);
        model_shape shape = case_shape(&x, MODE_TRAIN, DT_BF16);
        shape.stream = DT_F32;
        runner_open(&r, bare,
                    (const char *[]){kind, "model.norm.attn=[stream]", "model.norm.ffn=[stream, post]",
                                     "model.norm.embedding=true", "model.norm.final=false"},
                    5, &(runner_options){.shape = shape, .backward = true, .fuse = k % 2});
        i64 joints = 0;
        for (i64 i = 0; i < r.m.g->n_nodes; i++) {
            const node *n = r.m.g->nodes[i];
            if (strncmp(n->def->name, "joint", 5) || n->phase != PHASE_FORWARD) continue;
            joints++;
            assert_int_equal(n->in[0]->dtype, DT_F32);
            assert_int_equal(n->out[0]->dtype, DT_F32);
        }
        assert_int_equal(joints, 6);
        runner_close(&r);
    }
}

/* The ablations of HybridNorm's tables are keys: a row is what its name says. */
static void test_ablations(void **state)
{
    (void)state;
    static const struct {
        const char *with[5];
        const char *there, *missing;
    } rows[] = {
        {{"model.norm.preset=hybrid", "model.norm.context=head"},
         "blocks.1.attention.norm_context.gain",
         "blocks.1.attention.norm_pre.gain"}, // QKVC-Post
        {{"model.norm.preset=hybrid", "model.norm.v=none"},
         "blocks.1.attention.norm_q.gain",
         "blocks.1.attention.norm_v.gain"}, // QK-Post
        {{"model.norm.preset=pre", "model.norm.v=head", "model.norm.attn=[]"},
         "blocks.1.ffn.norm_pre.gain",
         "blocks.1.attention.norm_pre.gain"}, // V-Pre
        {{"model.norm.preset=hybrid", "model.norm.attn=[pre]"},
         "blocks.1.attention.norm_pre.gain",
         "blocks.1.ffn.norm_pre.gain"}, // Pre-QKV-Post
        {{"model.norm.ffn=[stream]"}, "blocks.1.ffn.norm_stream.gain", "blocks.1.attention.norm_stream.gain"},
        {{"model.norm.attn=[stream]"},
         "blocks.1.attention.norm_stream.gain",
         "blocks.1.ffn.norm_stream.gain"},
        {{"model.norm.preset=hybrid", "model.override=[{layers: 0, norm.ffn: [pre]}]"},
         "blocks.0.ffn.norm_pre.gain",
         "blocks.0.ffn.norm_stream.gain"}, // First-QKV-Pre
        {{"model.norm.preset=hybrid", "model.norm.embedding=true"},
         "norm_embedding.gain",
         "blocks.0.attention.norm_pre.gain"}, // EmbedNorm
    };
    for (i64 k = 0; k < COUNT(rows); k++) {
        runner r;
        case_rows x;
        i64 n = 0;
        while (n < 5 && rows[k].with[n]) n++;
        rows_mixed(&x);
        open_with(&r, bare, rows[k].with, n, &x, false);
        assert_non_null(g_find(r.m.g, rows[k].there));
        assert_null(g_find(r.m.g, rows[k].missing));
        runner_close(&r);
    }
}

/* Experts: gate and up normed each by itself, one gain an expert, and each expert's output before its weight:
 * scaling one expert's maps changes nothing. */
static void test_experts(void **state)
{
    (void)state;
    runner r[2];
    case_rows x;
    rows_mixed(&x);
    static const char *const map[] = {"gate", "up", "down"};
    static const char *const tight[] = {"model.norm.eps=1e-14", "model.norm.inner_eps=1e-14"};
    for (int i = 0; i < 2; i++) {
        open_with(&r[i], moe_sdd_like, tight, 2, &x, false);
        for (int k = 0; i && k < 3; k++) {
            char path[64];
            snprintf(path, sizeof path, "blocks.1.ffn.experts.%s.weight", map[k]);
            double *w = weight(&r[i], path);
            i64 of_one = count(g_find(r[i].m.g, path)) / 3;
            for (i64 j = of_one; j < 2 * of_one; j++) w[j] *= 3 + k; // expert 1
        }
        runner_oracle(&r[i]);
    }
    assert_true(apart(&r[0], &r[1]) <= 1e-9);
    const tensor *hidden = g_find(r[0].m.g, "blocks.1.ffn.experts.norm_hidden.gain");
    const tensor *out = g_find(r[0].m.g, "blocks.1.ffn.experts.norm_out.gain");
    assert_true(hidden && hidden->dim[0] == 3 && hidden->dim[1] == 32 && hidden->param.constant == 1);
    assert_true(out && out->dim[0] == 3 && out->dim[1] == 32 && fabs(out->param.constant - 0.5) <= 1e-15);
    assert_non_null(g_find(r[0].m.g, "blocks.1.ffn.shared.norm_out.gain"));
    assert_null(g_find(r[0].m.g, "blocks.1.ffn.norm_out.gain")); // not a second time
    assert_non_null(g_find(r[0].m.g, "blocks.1.attention.norm_out.gain"));
    for (int i = 0; i < 2; i++) runner_close(&r[i]);
}

/* Gates of W_up = 0 halve: y sigmoid(0); a vector of ones before the statistics changes nothing. */
static void test_gate_and_pre_affine(void **state)
{
    (void)state;
    runner plain, gated;
    case_rows x;
    rows_mixed(&x);
    open_with(&plain, bare, (const char *[]){"model.layers=1"}, 1, &x, false);
    open_with(&gated, bare,
              (const char *[]){"model.layers=1", "model.norm.gate_rank=4", "model.norm.pre_affine=true"}, 3,
              &x, false);
    initial(&plain);
    initial(&gated);
    static const char *const branch[] = {"attention", "ffn"};
    for (int k = 0; k < 2; k++) {
        char path[64];
        snprintf(path, sizeof path, "blocks.0.%s.norm_pre.gain", branch[k]);
        scale_weight(&plain, path, 0.5);
        snprintf(path, sizeof path, "blocks.0.%s.norm_pre.up.weight", branch[k]);
        scale_weight(&gated, path, 0);
    }
    runner_oracle(&plain);
    runner_oracle(&gated);
    assert_true(apart(&plain, &gated) <= 1e-14);
    runner_close(&plain);
    runner_close(&gated);
}

/* ---- what has no equation */
static void refused(const char *const *with, i64 n, const char *message)
{
    arena *a;
    model m;
    case_rows x;
    rows_mixed(&x);
    model_shape shape = case_shape(&x, MODE_TRAIN, DT_F32);
    assert_ok(arena_open(&a));
    config *c = case_config(bare, with, n);
    assert_fails(model_build(a, c, &shape, &m), ERR_CONFIG, message);
    graph_close(m.g);
    config_close(c);
    arena_close(a);
}
#define REFUSED(message, ...)                                                                                \
    refused((const char *[]){__VA_ARGS__}, COUNT(((const char *[]){__VA_ARGS__})), message)

static void test_refusals(void **state)
{
    (void)state;
    REFUSED("command line: model.norm.depth_scale is inv_sqrt; h = s_l N(u) scales pre norms, and no layer "
            "has one "
            "(norm.attn, norm.ffn)",
            "model.norm.preset=post", "model.norm.depth_scale=inv_sqrt");
    REFUSED(
        "command line: model.norm.gate_rank is 4; y sigmoid(W_up silu(W_down y)) gates the output y of pre "
        "norms, and no layer has one",
        "model.norm.preset=olmo2", "model.norm.gate_rank=4");
    REFUSED("command line: model.norm.pre_affine is true; N(l * u) is a pre norm, and no layer has one",
            "model.norm.kind=none", "model.norm.pre_affine=true");
    REFUSED("command line: model.norm.out_gain is 0.5; it is where the gain of b = N(F(h)) starts, and no "
            "layer has "
            "an out norm",
            "model.norm.out_gain=0.5");
    REFUSED("preset sdd: model.norm.out_gain is inv_sqrt_2L; it is where gains start, and with "
            "model.norm.affine: "
            "none there are none",
            "model.norm.preset=sdd", "model.norm.affine=none");
    REFUSED(
        "command line: model.norm.statistics is native; y = gain tanh(alpha x) (model.norm.kind: dyt) has no "
        "statistics",
        "model.norm.kind=dyt", "model.norm.statistics=native");
    REFUSED(
        "command line: model.norm.ffn_hidden is split, which norms W_gate x and W_up x each by itself; this "
        "feed-forward has one input map (use fused)",
        "model.norm.ffn_hidden=split", "model.ffn.kind=mlp");
    config *c;
    static const char *const alpha = "model.norm.alpha=0.5";
    static const char *const skip[] = {"model.residual.kind=frac", "model.residual.skip_scale=2"};
    assert_fails(
        config_parse("x", bare.yaml, strlen(bare.yaml), &alpha, 1, &c), ERR_CONFIG,
        "command line: model.norm.alpha belongs to model.norm.kind dyt, and that is rms; choose it or "
        "remove the key");
    assert_fails(
        config_parse("x", bare.yaml, strlen(bare.yaml), skip, 2, &c), ERR_CONFIG,
        "command line: model.residual.skip_scale belongs to model.residual.kind add, and that is frac; "
        "choose it or remove the key");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_lns_is_pre),
        cmocka_unit_test(test_equivalences),
        cmocka_unit_test(test_deepnorm),
        cmocka_unit_test(test_convex),
        cmocka_unit_test(test_orthogonal),
        cmocka_unit_test(test_sdd_scale_freedom),
        cmocka_unit_test(test_sdd_rms),
        cmocka_unit_test(test_sdd_empty_branches),
        cmocka_unit_test(test_sdd_level_gradients),
        cmocka_unit_test(test_first_loss),
        cmocka_unit_test(test_f32_stream),
        cmocka_unit_test(test_ablations),
        cmocka_unit_test(test_experts),
        cmocka_unit_test(test_gate_and_pre_affine),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

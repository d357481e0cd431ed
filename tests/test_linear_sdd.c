/* SDD in its linear form (model.linear.kind: sdd): the maps that linear.at lists, equality with the norm
 * sites that read the same outputs, freedom of scale, where gains start, who decays, and what is refused.
 * Programs, recomputation and generation are shown with the other models (sdd-linear-like of model_case.h).
 */
#include "model_case.h"
#include "optim/optimizer.h"

static const model_case bare = {.name = "bare",
                                .yaml = "model: {layers: 2, width: 32, vocab: 61, context: 12,\n"
                                        "        attention: {heads: 4, kv_heads: 2}, ffn: {width: 48}}\n"};
static const char *const all[] = {"attention.q", "attention.k", "attention.v", "attention.o",
                                  "ffn.gate",    "ffn.up",      "ffn.down"};

static void open_double(runner *r, const char *const *with, i64 n, bool backward)
{
    static case_rows x;
    rows_mixed(&x);
    runner_open(
        r, bare, with, n,
        &(runner_options){.shape = case_shape(&x, MODE_TRAIN, DT_F32), .backward = backward, .oracle = true});
    runner_rows(r, &x);
}

static double *values(runner *r, const char *path)
{
    const tensor *t = g_find(r->m.g, path);
    if (!t) fail_msg("no %s", path);
    return oracle_data(r->o, t);
}
static i64 size_of(const runner *r, const char *path) { return count(g_find(r->m.g, path)); }
static void path_of(char out[64], int layer, const char *map, const char *what)
{
    snprintf(out, 64, "blocks.%d.%s.%s", layer, map, what);
}

static double logits_off(runner *a, runner *b)
{
    const double *x = oracle_data(a->o, a->m.logits), *y = oracle_data(b->o, b->m.logits);
    double worst = 0;
    for (i64 k = 0; k < count(a->m.logits); k++) worst = fmax(worst, fabs(x[k] - y[k]));
    return worst;
}

/* ---- the same model by norm sites: q, k, v over the whole width, gate and up each by itself, out norms */
static void test_is_norms(void **state)
{
    (void)state;
    static const char *const site[] = {"attention.norm_q",   "attention.norm_k", "attention.norm_v",
                                       "attention.norm_out", "ffn.norm_hidden",  "ffn.norm_hidden",
                                       "ffn.norm_out"}; // of gate and up one vector
    const char *const by_norms[] = {"model.norm.q=full",         "model.norm.k=full",
                                    "model.norm.v=full",         "model.norm.ffn_hidden=split",
                                    "model.norm.attn=[pre,out]", "model.norm.ffn=[pre,out]",
                                    "model.norm.inner_eps=1e-6"};
    runner a, b;
    open_double(&a, (const char *[]){"model.linear.kind=sdd"}, 1, true);
    open_double(&b, by_norms, COUNT(by_norms), true);
    for (int layer = 0; layer < 2; layer++)
        for (int k = 0; k < COUNT(all); k++) {
            char to[64], from[64];
            path_of(to, layer, site[k], "gain");
            path_of(from, layer, all[k], "gain");
            i64 n = size_of(&a, from), behind = k == 5 ? n : 0;
            assert_int_equal(size_of(&b, to), k == 4 || k == 5 ? 2 * n : n);
            memcpy(values(&b, to) + behind, values(&a, from), sizeof(double) * (size_t)n);
        }
    runner_oracle(&a);
    runner_oracle(&b);
    assert_true(logits_off(&a, &b) <= 1e-13);
    for (int layer = 0; layer < 2; layer++)
        for (int k = 0; k < COUNT(all); k++) {
            char path[64];
            path_of(path, layer, all[k], "weight");
            const tensor *x = g_find(a.m.g, path), *y = g_find(b.m.g, path);
            for (i64 i = 0; i < count(x); i++)
                assert_true(fabs(oracle_data(a.o, x->grad)[i] - oracle_data(b.o, y->grad)[i]) <= 1e-13);
        }
    runner_close(&a);
    runner_close(&b);
}

/* ---- which maps */
static void test_at(void **state)
{
    (void)state;
    static const struct {
        const char *at, *normed; // a letter a map of ALL
    } lists[] = {{"model.linear.at=[attention]", "yyyynnn"}, {"model.linear.at=[ffn]", "nnnnyyy"},
                 {"model.linear.at=[q,k]", "yynnnnn"},       {"model.linear.at=[v,up]", "nnynnyn"},
                 {"model.linear.at=[o,down]", "nnnynny"},    {"model.linear.at=[attention,gate]", "yyyyynn"},
                 {"model.linear.at=[]", "nnnnnnn"}};
    for (int i = 0; i < COUNT(lists); i++) {
        runner r;
        open_double(&r, (const char *[]){"model.linear.kind=sdd", lists[i].at}, 2, true);
        for (int k = 0; k < COUNT(all); k++) {
            char path[64];
            path_of(path, 1, all[k], "gain");
            assert_int_equal(g_find(r.m.g, path) != NULL, lists[i].normed[k] == 'y');
        }
        runner_oracle(&r);
        runner_close(&r);
    }
    runner r; // a norm's gate has maps of such names, and keeps them as they are
    open_double(&r, (const char *[]){"model.linear.kind=sdd", "model.norm.gate_rank=4"}, 2, true);
    assert_non_null(g_find(r.m.g, "blocks.0.ffn.norm_pre.up.weight"));
    assert_null(g_find(r.m.g, "blocks.0.ffn.norm_pre.up.gain"));
    runner_close(&r);
}

/* ---- scale: 10 times the weights of any one map changes nothing (weights so large that eps is not seen) */
static void test_scale_freedom(void **state)
{
    (void)state;
    runner first, r;
    static const char *const with[] = {"model.linear.kind=sdd", "model.init.std_factor=1000",
                                       "model.norm.eps=1e-12"};
    open_double(&first, with, 3, true);
    open_double(&r, with, 3, true);
    runner_oracle(&first);
    for (int k = 0; k < COUNT(all); k++) {
        char path[64];
        path_of(path, 1, all[k], "weight");
        double *w = values(&r, path);
        for (i64 i = 0; i < size_of(&r, path); i++) w[i] *= 10;
        runner_oracle(&r);
        if (!(logits_off(&r, &first) <= 1e-5))
            fail_msg("10 %s: logits off by %g", path, logits_off(&r, &first));
        const double *g = oracle_data(r.o, g_find(r.m.g, path)->grad),
                     *one = oracle_data(first.o, g_find(first.m.g, path)->grad);
        double dot = 0, ww = 0, gg = 0, off = 0;
        for (i64 i = 0; i < size_of(&r, path); i++) {
            dot += w[i] * g[i], ww += w[i] * w[i], gg += g[i] * g[i];
            off += pow(10 * g[i] - one[i], 2);
        }
        assert_true(fabs(dot) <= 1e-7 * sqrt(ww * gg));  // orthogonal to the weight
        assert_true(sqrt(off) <= 1e-4 * sqrt(100 * gg)); // a tenth of what it was
        for (i64 i = 0; i < size_of(&r, path); i++) w[i] /= 10;
    }
    runner_close(&r);
    runner_close(&first);
}

/* ---- the start and the decay: the code's and the paper's */
static void test_start(void **state)
{
    (void)state;
    static const struct {
        const char *set;
        double out;
    } starts[] = {{"model.norm.out_gain=1", 1},
                  {"model.norm.out_gain=inv_sqrt_L", 0.7071067811865476},
                  {"model.norm.out_gain=inv_sqrt_2L", 0.5}};
    for (int i = 0; i < COUNT(starts); i++) {
        runner r;
        optimizer o;
        open_double(&r, (const char *[]){"model.linear.kind=sdd", starts[i].set, "train.steps=1"}, 3, false);
        store_initialize(r.s, 3);
        for (int k = 0; k < COUNT(all); k++) {
            char path[64];
            path_of(path, 1, all[k], "gain");
            bool out = k == 3 || k == 6;
            for (i64 j = 0; j < store_find(r.s, path)->count; j++)
                assert_true(store_find(r.s, path)->master[j] == (float)(out ? starts[i].out : 1));
        }
        assert_ok(optimizer_from(r.c, &o));
        assert_true(o.decays[store_find(r.s, "blocks.0.ffn.up.gain")->param.kind]);
        runner_close(&r);
    }
}

/* ---- experts: their maps too, each expert with a gain of its own; gradients against double in f32 */
static void test_experts(void **state)
{
    (void)state;
    device *cpu;
    runner r;
    case_rows x;
    assert_ok(device_open(&(device_options){0}, &cpu));
    rows_mixed(&x);
    for (int k = 0; k < 3; k++) { // gated; of one input map with normed powers; with dropped assignments
        const char *const with[] = {"model.linear.kind=sdd",
                                    "model.ffn.kind=moe",
                                    "model.ffn.experts=3",
                                    "model.ffn.width=16",
                                    k ? "model.ffn.expert_kind=mlp" : "model.ffn.expert_kind=gated",
                                    k ? "model.ffn.activation=poly_norm" : "model.ffn.activation=silu",
                                    k == 2 ? "model.ffn.capacity_factor=0.5" : "model.ffn.capacity_factor=0"};
        runner_open(&r, bare, with, COUNT(with),
                    &(runner_options){.shape = case_shape(&x, MODE_TRAIN, DT_F32),
                                      .backward = true,
                                      .fuse = true,
                                      .device = cpu,
                                      .level = device_about(cpu)->level,
                                      .oracle = true});
        runner_rows(&r, &x);
        runner_program(&r);
        runner_oracle(&r);
        const tensor *up = g_find(r.m.g, "blocks.1.ffn.experts.up.gain");
        assert_true(up->ndim == 2 && up->dim[0] == 3 && up->dim[1] == 16);
        assert_int_equal(g_find(r.m.g, "blocks.1.ffn.experts.gate.gain") != NULL, !k);
        assert_non_null(g_find(r.m.g, "blocks.1.ffn.experts.down.gain"));
        for (i64 i = 0; i < r.s->n_params; i++) {
            const stored *e = &r.s->entry[i];
            const double *want = oracle_data(r.o, g_find(r.m.g, e->path)->grad);
            double off = 0, norm = 0;
            for (i64 j = 0; j < e->count; j++) off += pow(e->grad[j] - want[j], 2), norm += want[j] * want[j];
            if (!(sqrt(off) <= 1e-4 * sqrt(norm) + 1e-7))
                fail_msg("%s: off by %g of %g", e->path, sqrt(off), sqrt(norm));
        }
        runner_close(&r);
    }
    device_close(cpu);
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
#define TWICE(map, key)                                                                                      \
    "command line: model.linear.kind is sdd; gain * N(W x) norms the output of " map ", and " key            \
    " would norm it again: N(N(z)) is N(z) (choose one of them)"
static void test_refused(void **state)
{
    (void)state;
    static const char *const sdd = "model.linear.kind=sdd";
    refused((const char *[]){sdd, "model.norm.preset=sdd"}, 2, TWICE("q", "model.norm.preset (sdd)"));
    refused((const char *[]){sdd, "model.norm.preset=sdd_paper", "model.linear.at=[v]"}, 3,
            TWICE("v", "model.norm.preset (sdd_paper)"));
    refused((const char *[]){sdd, "model.norm.k=head"}, 2, TWICE("k", "model.norm.k (head)"));
    refused((const char *[]){sdd, "model.norm.v=full"}, 2, TWICE("v", "model.norm.v (full)"));
    refused((const char *[]){sdd, "model.norm.attn=[pre,out]"}, 2, TWICE("o", "model.norm.attn (pre out)"));
    refused((const char *[]){sdd, "model.norm.ffn=[out]"}, 2, TWICE("down", "model.norm.ffn (out)"));
    refused((const char *[]){sdd, "model.norm.ffn_hidden=split"}, 2,
            TWICE("gate", "model.norm.ffn_hidden (split)"));
    refused((const char *[]){"model.linear.at=[q]"}, 1,
            "command line: model.linear.at belongs to model.linear.kind sdd, and that is dense; choose it or "
            "remove the key");
    // beside a norm of another output it stands
    runner r;
    open_double(
        &r, (const char *[]){sdd, "model.linear.at=[o,ffn]", "model.norm.q=head", "model.norm.context=full"},
        4, false);
    runner_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_is_norms), cmocka_unit_test(test_at),      cmocka_unit_test(test_scale_freedom),
        cmocka_unit_test(test_start),    cmocka_unit_test(test_experts), cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

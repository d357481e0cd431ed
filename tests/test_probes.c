/* The probes of a run (train.probes): each measure against exact values and against plain code in double over
 * the double interpreter; the lines of the log; a run with probes has the bits of one without; what is
 * refused. */
#include "train/probes.h"
#include "base/random.h"
#include "data/loader.h"
#include "graph/interpret.h"
#include "toy_data.h"
#include "train/probe_charts.h"
#include "train/probe_measure.h"
#include "train/trainer.h"
#include <math.h>

static device *cpu;
static dataset *data;

static void near(double x, double want, double by)
{
    if (!(fabs(x - want) <= by * fmax(1, fabs(want)))) fail_msg("%.12g is not %.12g", x, want);
}
static view view_over(float *x, i64 rows, i64 n, i64 stride) { return (view){x, DT_F32, rows, n, stride}; }

/* ---- measures */

static void test_moments(void **state)
{
    (void)state;
    float x[] = {1, 3, 99, -2, 2, 99};
    view v = view_over(x, 2, 2, 3);
    near(measure_rms(&v), sqrt(18.0 / 4), 1e-15);
    near(measure_variance(&v), (1.0 + 4.0) / 2, 1e-15);
}

/* diag(1..5) turned by reflections; the second difference, whose eigenvalues are known; one that is zero. */
static void test_eigenvalues(void **state)
{
    (void)state;
    enum { N = 5 };
    double a[N * N] = {0}, got[N], scratch[3 * N], v[N] = {1, -2, 0.5, 3, 1};
    for (int i = 0; i < N; i++) a[i * N + i] = i + 1;
    for (int turn = 0; turn < 3; turn++) {
        double h[N * N], b[N * N], norm = 0;
        v[turn] += 1.5;
        for (int i = 0; i < N; i++) norm += v[i] * v[i];
        for (int i = 0; i < N * N; i++) h[i] = (i / N == i % N) - 2 * v[i / N] * v[i % N] / norm;
        for (int pass = 0; pass < 2; pass++) { // H (H A)^T = H A H
            for (int i = 0; i < N * N; i++) {
                b[i] = 0;
                for (int k = 0; k < N; k++) b[i] += h[i / N * N + k] * a[k * N + i % N];
            }
            for (int i = 0; i < N * N; i++) a[i % N * N + i / N] = b[i];
        }
    }
    symmetric_eigenvalues(a, N, got, scratch);
    for (int i = 0; i < N; i++) near(got[i], i + 1, 1e-13);
    memset(a, 0, sizeof a);
    for (int i = 0; i < N; i++) {
        a[i * N + i] = 2;
        if (i) a[i * N + i - 1] = a[(i - 1) * N + i] = -1;
    }
    symmetric_eigenvalues(a, N, got, scratch);
    for (int i = 0; i < N; i++) near(got[i], 2 - 2 * cos((i + 1) * M_PI / (N + 1)), 1e-13);
    memset(a, 0, sizeof a);
    symmetric_eigenvalues(a, N, got, scratch);
    for (int i = 0; i < N; i++) near(got[i], 0, 1e-15);
    a[0] = 7;
    symmetric_eigenvalues(a, 1, got, scratch);
    near(got[0], 7, 1e-14);
}

static void test_effective_rank(void **state)
{
    (void)state;
    float x[4 * 6] = {0}, same[3 * 2] = {1, 2, 1, 2, 2, 4};
    double rank;
    for (int i = 0; i < 4; i++) x[i * 6 + i] = 3; // four equal singular values
    view v = view_over(x, 4, 6, 6);
    assert_ok(measure_effective_rank(&v, 128, &rank));
    near(rank, 4, 1e-12);
    x[0] = 6, x[7] = 2, x[14] = 1, x[21] = 1; // shares 0.6 0.2 0.1 0.1
    assert_ok(measure_effective_rank(&v, 128, &rank));
    near(rank, 2.9710040966100055, 1e-12);
    assert_ok(measure_effective_rank(&v, 2, &rank)); // rows 0 and 3: 6 and 1
    near(rank, exp(-(6 / 7.0 * log(6 / 7.0) + 1 / 7.0 * log(1 / 7.0))), 1e-12);
    v = view_over(same, 3, 2, 2);
    assert_ok(measure_effective_rank(&v, 128, &rank));
    near(rank, 1, 1e-6);
    memset(x, 0, sizeof x);
    v = view_over(x, 4, 6, 6);
    assert_ok(measure_effective_rank(&v, 128, &rank));
    assert_true(isnan(rank));
}

static void test_top_singular(void **state)
{
    (void)state;
    float product[3 * 2] = {2, -4, 1, -2, 2, -4}, diagonal[3 * 3] = {0.5f, 0, 0, 0, -3, 0, 0, 0, 1},
                      w[20 * 30], zero[4] = {0};
    double scratch[64], gram[20 * 20], eigenvalue[20], more[60];
    near(measure_top_singular(product, 3, 2, 1, scratch), 3 * sqrt(5), 1e-12); // (2, 1, 2)^T (1, -2)
    near(measure_top_singular(diagonal, 3, 3, 1, scratch), 3, 1e-9);
    assert_true(isnan(measure_top_singular((float[]){NAN, 1, 1, 1}, 2, 2, 1, scratch)));
    assert_true(measure_top_singular(zero, 2, 2, 1, scratch) == 0);
    for (int i = 0; i < 600; i++) w[i] = (float)random_normal(3, 4, 0, (u64)i);
    for (int i = 0; i < 400; i++) {
        gram[i] = 0;
        for (int k = 0; k < 30; k++) gram[i] += (double)w[i / 20 * 30 + k] * w[i % 20 * 30 + k];
    }
    symmetric_eigenvalues(gram, 20, eigenvalue, more);
    near(measure_top_singular(w, 20, 30, 1, scratch), sqrt(eigenvalue[19]), 1e-4);
}

/* Two heads of width 1 on one key head. Scores of the last token: log 1, log 2, log 5, and their halves. */
static void test_entropy(void **state)
{
    (void)state;
    float q[] = {0, 0, 0, 0, 2, 1}, k[] = {0, (float)log(2), (float)log(5)};
    i32 start[] = {0, 0, 0}, own[] = {0, 0, 2};
    double scratch[3];
    attention_view a = {.q = view_over(q, 3, 2, 2),
                        .k = view_over(k, 3, 1, 1),
                        .start = start,
                        .tokens = 3,
                        .heads = 2,
                        .kv_heads = 1,
                        .scale = 0.5};
    double p[] = {1 / 8.0, 2 / 8.0, 5 / 8.0}, r[] = {1, sqrt(2), sqrt(5)}, z = 1 + sqrt(2) + sqrt(5),
           want = 0;
    for (int i = 0; i < 3; i++) want -= p[i] * log(p[i]) + r[i] / z * log(r[i] / z);
    near(measure_entropy(&a, 0, 1, scratch), want / 2, 1e-7);
    near(measure_entropy(&a, 0, 99, scratch), (0 + 2 * log(2) + want) / 6, 1e-7); // tokens 0, 1 and 2
    a.start = own;
    assert_true(measure_entropy(&a, 0, 1, scratch) == 0);
    a.start = NULL, a.window = 1;
    assert_true(measure_entropy(&a, 0, 3, scratch) == 0);
}

/* ---- a session, against the interpreter */

static const char base[] =
    "model: {layers: 2, width: 16, context: 12, vocab: 258, attention: {heads: 4, kv_heads: 2, window: 7},\n"
    "        ffn: {width: 24}}\n"
    "train: {batch_tokens: 48, precision: f32, steps: 4, optimizer: {weight_decay: 0},\n"
    "        evaluate: {every: 2 steps, tokens: 100},\n"
    "        probes: [activation_norm, stream_variance, effective_rank, attention_entropy, gradient_norm,\n"
    "                 update_ratio, singular_value]}\n";

static config *parse(const char *const *with, i64 n)
{
    config *c;
    assert_ok(config_parse("base", base, strlen(base), with, n, &c));
    return c;
}

static double logged(const metrics_data *d, const char *name, i64 at)
{
    const metrics_series *s = metrics_find(d, name);
    if (!s || s->n <= at) fail_msg("no %s", name);
    return s->value[at];
}

typedef struct reference {
    arena *arena;
    model m;
    oracle *o;
} reference;

/* The forward pass in double over the first sequence of the validation data. */
static void open_reference(reference *r, session *s)
{
    model_shape shape = {.rows = 1, .tokens = 12, .mode = MODE_EVALUATE};
    loader_options lo = {
        .context = 12, .rows = 1, .seed = 1, .once = true, .document_mask = true, .mask_boundary_loss = true};
    i32 tokens[12], targets[12], start[12], position[12];
    batch b = {.tokens = tokens, .targets = targets, .doc_start = start, .position = position};
    loader *l;
    *r = (reference){0};
    assert_ok(arena_open(&r->arena));
    assert_ok(loader_open(data, DATA_VALIDATION, &lo, &l));
    loader_next(l, &b);
    loader_close(l);
    assert_ok(model_build(r->arena, s->c, &shape, &r->m));
    assert_ok(oracle_open(r->m.g, &r->o));
    for (i64 i = 0; i < r->m.g->n_tensors; i++) {
        const tensor *t = r->m.g->tensors[i];
        for (i64 k = 0; t->role == ROLE_PARAM && k < count(t); k++)
            oracle_data(r->o, t)[k] = store_find(s->store, t->path)->master[k];
    }
    for (int i = 0; i < 12; i++) {
        oracle_data(r->o, r->m.tokens)[i] = tokens[i];
        oracle_data(r->o, r->m.targets)[i] = targets[i];
        oracle_data(r->o, r->m.doc_start)[i] = start[i];
        oracle_data(r->o, r->m.position)[i] = position[i];
    }
    *oracle_data(r->o, r->m.inverse_count) = 1;
    assert_ok(oracle_run(r->o, &(step_info){0}, false));
}
static void close_reference(reference *r)
{
    oracle_close(r->o);
    graph_close(r->m.g);
    arena_close(r->arena);
}

static const node *last_node(const reference *r, op_id op, const char *path)
{
    const node *found = NULL;
    for (i64 i = 0; i < r->m.g->n_nodes; i++)
        if (r->m.g->nodes[i]->op == op && !strncmp(r->m.g->nodes[i]->path, path, strlen(path)))
            found = r->m.g->nodes[i];
    if (!found) fail_msg("no node in %s", path);
    return found;
}

static double variance64(const double *x, i64 rows, i64 n)
{
    double all = 0;
    for (i64 r = 0; r < rows; r++, x += n) {
        double sum = 0, squares = 0;
        for (i64 j = 0; j < n; j++) sum += x[j], squares += x[j] * x[j];
        all += squares / (double)n - sum * sum / (double)(n * n);
    }
    return all / (double)rows;
}

/* One-sided Jacobi on X [12, 16]: no shared line with the measure. */
static double rank64(const double *x)
{
    double a[12 * 16], sum = 0, s[12], entropy = 0;
    memcpy(a, x, sizeof a);
    for (int sweep = 0; sweep < 60; sweep++)
        for (int p = 0; p < 12; p++)
            for (int q = p + 1; q < 12; q++) {
                double pp = 0, qq = 0, pq = 0;
                for (int j = 0; j < 16; j++)
                    pp += a[p * 16 + j] * a[p * 16 + j], qq += a[q * 16 + j] * a[q * 16 + j],
                        pq += a[p * 16 + j] * a[q * 16 + j];
                if (fabs(pq) < 1e-30) continue;
                double t = 0.5 * atan2(2 * pq, pp - qq), c = cos(t), d = sin(t);
                for (int j = 0; j < 16; j++) {
                    double u = a[p * 16 + j], v = a[q * 16 + j];
                    a[p * 16 + j] = c * u + d * v, a[q * 16 + j] = c * v - d * u;
                }
            }
    for (int p = 0; p < 12; p++) {
        s[p] = 0;
        for (int j = 0; j < 16; j++) s[p] += a[p * 16 + j] * a[p * 16 + j];
        sum += s[p] = sqrt(s[p]);
    }
    for (int p = 0; p < 12; p++)
        if (s[p] > 0) entropy -= s[p] / sum * log(s[p] / sum);
    return exp(entropy);
}

/* 4 heads of 4 on 2 key heads, a window of 7. */
static double entropy64(const reference *r, const node *n)
{
    const double *q = oracle_data(r->o, n->in[0]), *k = oracle_data(r->o, n->in[1]),
                 *start = oracle_data(r->o, r->m.doc_start);
    double all = 0;
    for (int t = 0; t < 12; t++)
        for (int h = 0; h < 4; h++) {
            double e[12], sum = 0;
            int first = t - 6 > (int)start[t] ? t - 6 : (int)start[t];
            for (int s = first; s <= t; s++) {
                double dot = 0;
                for (int j = 0; j < 4; j++) dot += q[t * 16 + h * 4 + j] * k[s * 8 + h / 2 * 4 + j];
                sum += e[s] = exp(dot / 2);
            }
            for (int s = first; s <= t; s++) all -= e[s] / sum * log(e[s] / sum);
        }
    return all / 48;
}

static void test_against_interpreter(void **state)
{
    (void)state;
    config *c = parse(NULL, 0);
    session *s;
    probes *p;
    metrics_log *log;
    metrics_data d;
    reference r;
    assert_ok(session_open(c, cpu, &(session_options){.isa = device_about(cpu)->level}, &s));
    session_start(s);
    assert_ok(probes_open(s, data, &p));
    assert_non_null(p);
    assert_ok(metrics_open(toy_path("one.jsonl"), 0, &log));
    assert_ok(probes_evaluate(p, s, log, 5));
    metrics_close(log);
    assert_ok(metrics_load(toy_path("one.jsonl"), &d));
    open_reference(&r, s);
    for (int l = 0; l < 2; l++) {
        char path[64], name[64];
        for (int k = 0; k < 2; k++) {
            const char *branch = k ? "ffn" : "attention";
            snprintf(path, sizeof path, "blocks.%d.%s.", l, branch);
            snprintf(name, sizeof name, "probe/activation_norm/%s/%d", branch, l);
            const node *n = last_node(&r, OP_joint, path);
            const double *y = oracle_data(r.o, n->in[1]);
            double sum = 0;
            for (int i = 0; i < 192; i++) sum += y[i] * y[i];
            near(logged(&d, name, 0), sqrt(sum / 192), 1e-5);
            if (!k) continue;
            snprintf(name, sizeof name, "probe/stream_variance/%d", l + 1);
            near(logged(&d, name, 0), variance64(oracle_data(r.o, n->out[0]), 12, 16), 1e-5);
            snprintf(name, sizeof name, "probe/effective_rank/%d", l);
            near(logged(&d, name, 0), rank64(oracle_data(r.o, n->out[0])), 1e-5);
        }
        snprintf(path, sizeof path, "blocks.%d.attention.", l);
        snprintf(name, sizeof name, "probe/attention_entropy/%d", l);
        near(logged(&d, name, 0), entropy64(&r, last_node(&r, OP_attention, path)), 1e-5);
        double gram[16 * 16], eigenvalue[16], scratch[48];
        snprintf(path, sizeof path, "blocks.%d.attention.o.weight", l);
        snprintf(name, sizeof name, "probe/singular_value/attention.o/%d", l);
        const float *w = store_find(s->store, path)->master;
        for (int i = 0; i < 256; i++) {
            gram[i] = 0;
            for (int k = 0; k < 16; k++) gram[i] += (double)w[i / 16 * 16 + k] * w[i % 16 * 16 + k];
        }
        symmetric_eigenvalues(gram, 16, eigenvalue, scratch);
        near(logged(&d, name, 0), sqrt(eigenvalue[15]), 1e-4);
    }
    const node *embedding = last_node(&r, OP_embedding, "embedding");
    near(logged(&d, "probe/stream_variance/0", 0), variance64(oracle_data(r.o, embedding->out[0]), 12, 16),
         1e-5);
    close_reference(&r);
    metrics_free(&d);
    probes_close(p);
    session_close(s);
    config_close(c);
}

/* AdamW's first step moves every element with a gradient by the learning rate. */
static void test_step(void **state)
{
    (void)state;
    static i32 token[48], target[48], start[48], position[48];
    for (int i = 0; i < 48; i++)
        token[i] = i * 11 % 250, target[i] = (i * 11 + 11) % 250, position[i] = i % 12;
    config *c = parse(NULL, 0);
    session *s;
    probes *p;
    metrics_log *log;
    metrics_data d;
    double nats, norm, all = 0, squares = 0;
    assert_ok(session_open(c, cpu, &(session_options){.isa = device_about(cpu)->level}, &s));
    session_start(s);
    assert_ok(probes_open(s, data, &p));
    assert_ok(metrics_open(toy_path("step.jsonl"), 0, &log));
    for (i64 i = 0, n = 0; i < s->store->n_params; i++) { // of block 1, before
        const stored *e = &s->store->entry[i];
        if (strncmp(e->path, "blocks.1.", 9) || e->param.kind != PARAM_MATRIX) continue;
        for (i64 k = 0; k < e->count; k++) squares += (double)e->master[k] * e->master[k];
        n += e->count;
        all = 1e-3 * sqrt((double)n) / sqrt(squares);
    }
    step_batch b = {token, target, start, position, 4, 48};
    for (i64 step = 0; step < 3; step++) { // due: the first and the last
        session_forward_backward(s, &b, step, &nats);
        probes_before_update(p, s, step != 1);
        session_update(s, step, 1e-3, 1e-3, &norm);
        if (step != 2) probes_after_update(p, s); // the last was dropped
        assert_ok(probes_log_step(p, log, step));
        assert_ok(probes_log_step(p, log, step)); // once is enough
        if (step) continue;
        metrics_close(log);
        assert_ok(metrics_load(toy_path("step.jsonl"), &d));
        double square = pow(logged(&d, "probe/gradient_norm/rest/0", 0), 2);
        for (int l = 0; l < 2; l++)
            square += pow(logged(&d, l ? "probe/gradient_norm/1" : "probe/gradient_norm/0", 0), 2);
        near(sqrt(square), norm, 1e-6);
        near(logged(&d, "probe/update_ratio/1", 0), all, 1e-3);
        metrics_free(&d);
        assert_ok(metrics_open(toy_path("step.jsonl"), 1 << 20, &log));
    }
    metrics_close(log);
    assert_ok(metrics_load(toy_path("step.jsonl"), &d));
    assert_int_equal(d.lines, 1);
    metrics_free(&d);
    probes_close(p);
    session_close(s);
    config_close(c);
}

/* ---- a run */

static status train_into(const char *out, const char *const *with, i64 n)
{
    train_result r;
    config *c = parse(with, n);
    train_options o = {.out = toy_path(out), .device = cpu, .isa = device_about(cpu)->level};
    status s = train_run(c, data, &o, &r);
    config_close(c);
    return s;
}

static void test_run(void **state)
{
    (void)state;
    const char *off[] = {"train.probes=[]"};
    metrics_data with, without;
    report_chart *charts;
    arena *a;
    assert_ok(train_into("with", NULL, 0));
    assert_ok(train_into("without", off, 1));
    assert_ok(metrics_load(toy_path("with/metrics.jsonl"), &with));
    assert_ok(metrics_load(toy_path("without/metrics.jsonl"), &without));
    assert_int_equal(with.bad_lines, 0);
    static const char *const same[] = {"loss", "grad_norm", "val_loss"};
    for (i64 k = 0; k < COUNT(same); k++) {
        const metrics_series *x = metrics_find(&with, same[k]), *y = metrics_find(&without, same[k]);
        assert_int_equal(x->n, y->n);
        assert_memory_equal(x->value, y->value, (size_t)x->n * sizeof(double));
    }
    assert_null(metrics_find(&without, "probe/stream_variance/0"));
    const metrics_series *v = metrics_find(&with, "probe/stream_variance/2"),
                         *g = metrics_find(&with, "probe/gradient_norm/1");
    assert_int_equal(v->n, 2);
    assert_true(v->step[0] == 2 && v->step[1] == 4 && g->n == 2 && g->step[0] == 2 && g->step[1] == 4);
    assert_ok(arena_open(&a));
    assert_int_equal(probe_charts(a, &without, &charts), 0);
    assert_int_equal(probe_charts(a, &with, &charts), 2 + 5 + 7); // branches, five figures, seven maps
    for (i64 i = 0; i < 14; i++) {
        assert_int_equal(charts[i].n_lines, 2);
        assert_string_equal(charts[i].x_label, "layer");
        assert_string_equal(charts[i].lines[1].label, "step 4");
        bool depth = !strcmp(charts[i].title, "Variance of the stream (0: embedding)");
        assert_int_equal(charts[i].lines[0].n, depth ? 3 : 2);
        if (depth) assert_true(charts[i].lines[1].y[2] == v->value[1]);
    }
    arena_close(a);
    metrics_free(&with);
    metrics_free(&without);
}

static void test_methods(void **state)
{
    (void)state;
    static const char *const with[] = {"model.residual.kind=hyper", "model.norm.preset=post",
                                       "model.ffn.kind=moe", "model.embedding.kind=over_encoding",
                                       "model.residual.kind=frac"};
    for (i64 k = 0; k < COUNT(with); k++) {
        char out[16];
        metrics_data d;
        const char *words[] = {with[k], "model.embedding.slots=31", "train.steps=2"};
        bool slots = strstr(with[k], "embedding") != NULL;
        if (!slots) words[1] = "model.bias=true";
        snprintf(out, sizeof out, "method%d", (int)k);
        assert_ok(train_into(out, words, 3));
        char path[64];
        snprintf(path, sizeof path, "%s/metrics.jsonl", out);
        assert_ok(metrics_load(toy_path(path), &d));
        static const char *const there[] = {"probe/activation_norm/attention/1",
                                            "probe/activation_norm/ffn/0", "probe/stream_variance/2",
                                            "probe/effective_rank/1", "probe/singular_value/attention.q/1"};
        for (i64 i = 0; i < COUNT(there); i++) assert_true(logged(&d, there[i], 0) > 0);
        metrics_free(&d);
    }
}

static void test_refused(void **state)
{
    (void)state;
    dataset *bare = toy_dataset("bare", toy_text("bare.txt", "no document to spare for validation"), "file",
                                "0", 1 << 20);
    const char *with[] = {"model.repeat.kind=phd"};
    assert_fails(
        train_into("phd", with, 1), ERR_CONFIG,
        "base:5: train.probes has attention_entropy; -sum p ln p over what a token sees is not that of its "
        "copies (model.repeat.kind: phd)");
    dataset *all = data;
    data = bare;
    assert_fails(
        train_into("bare_run", NULL, 0), ERR_CONFIG,
        "base:5: train.probes is [activation_norm stream_variance effective_rank attention_entropy "
        "gradient_norm update_ratio singular_value]; probes are taken where a run evaluates, and there is no "
        "validation data for it");
    data = all;
    dataset_close(bare);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_moments),        cmocka_unit_test(test_eigenvalues),
        cmocka_unit_test(test_effective_rank), cmocka_unit_test(test_top_singular),
        cmocka_unit_test(test_entropy),        cmocka_unit_test(test_against_interpreter),
        cmocka_unit_test(test_step),           cmocka_unit_test(test_run),
        cmocka_unit_test(test_methods),        cmocka_unit_test(test_refused),
    };
    static char text[16384];
    for (size_t i = 0; i + 1 < sizeof text; i++) {
        u64 draw = random_bits(1, 1, 0, i);
        text[i] = (char)(i % 97 == 96 ? '\n' : 'a' + draw % 20);
        if (i % 97 == 95) text[i] = '\n';
    }
    toy_open();
    setenv("KEEL_REGISTRY", toy_path("runs.db"), 1);
    data = toy_dataset("shards", toy_text("text", text), "blank_line", "20%", 1 << 20);
    assert_ok(device_open(&(device_options){.threads = 1}, &cpu));
    int bad = cmocka_run_group_tests(tests, NULL, NULL);
    device_close(cpu);
    dataset_close(data);
    toy_close();
    return bad;
}

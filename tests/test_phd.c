/* PHD-Transformer (model.repeat.kind phd): the masks and numbers of the worked examples, by the definition
 * and by every kernel; what must equal what; that a prompt read in parts, with copies of its last tokens
 * only, gives the logits of the whole at every length; sizes of caches and memory; refusals. That gradients,
 * programs and recomputation agree is shown with the other models (phd-like and cswa-like of model_case.h).
 */
#include "model_case.h"
#include "cpu_case.h"
#include "graph/trial.h"
#include "infer/decoder.h"

/* ---- attention by itself: q, k, v [1, rows, n], one head */

static trial *attention(const char *line, const double *const *values)
{
    trial *t;
    trial_given given = {0};
    assert_ok(case_parse(op_table(ISA_PLAIN, OP_attention), line, &given.spec));
    for (int i = 0; i < MAX_IN; i++) given.in[i] = values[i];
    assert_ok(trial_open_given(OP_attention, &given, DT_F32, &t));
    assert_ok(trial_oracle(t));
    return t;
}

/* With all scores equal and values that are the unit vectors, a row of o is 1 / n where a key is seen. MASK:
 * rows of 0 and 1, spaces apart; counted ONES. */
static void sees(const char *options, i64 rows, const char *mask, i64 ones)
{
    enum { MOST = 16 };
    static double zero[MOST * MOST], unit[MOST * MOST], o[MOST * MOST];
    char line[256];
    for (i64 i = 0; i < rows * rows; i++) unit[i] = i / rows == i % rows;
    snprintf(line, sizeof line, "q=1x%lldx%lld k=1x%lldx%lld v=1x%lldx%lld %s", (long long)rows,
             (long long)rows, (long long)rows, (long long)rows, (long long)rows, (long long)rows, options);
    trial *t = attention(line, (const double *[MAX_IN]){zero, zero, unit});
    for (int level = -1; level < ISA_COUNT; level++) { // -1: the definition
        i64 seen = 0;
        const char *want = mask;
        if (level >= 0 && (level > (int)best() || !op_table(level, 0))) continue;
        if (level >= 0) assert_ok(trial_kernel(t, cpu, level));
        if (level >= 0) trial_read(t, t->out[0], o);
        for (i64 i = 0; i < rows * rows; i++) {
            double x = level < 0 ? oracle_data(t->oracle, t->out[0])[i] : o[i];
            want += strspn(want, " ");
            if ((x > 0) != (*want == '1'))
                fail_msg("%s, level %d: row %lld, key %lld is %c", options, level, (long long)(i / rows),
                         (long long)(i % rows), x > 0 ? '1' : '0');
            seen += *want++ == '1';
        }
        assert_int_equal(seen, ones);
    }
    assert_true(t->n->def->cost(t->n).flops == 4.0 * (double)(ones * rows)); // counted by formula
    trial_close(t);
}

#define ORIGINALS "1000 0000 1100 0000 1110 0000 1111 0000 "
static void test_masks(void **state)
{
    (void)state;
    sees("copies=2", 8, ORIGINALS "1000 1000 1100 0100 1110 0010 1111 0001", 24);
    sees("copies=2 copy_window=2", 8, ORIGINALS "1000 1000 1100 1100 1110 0110 1111 0011", 27);
    sees("copies=2 copy_window=2 chunk=2", 8, ORIGINALS "1000 1000 1100 1100 1110 0010 1111 0011", 26);
    sees("copies=3", 9,
         "100 000000 110 000000 111 000000 100 100000 100 110000 110 001000 110 001100 111 000010 111 000011",
         27);
    sees("", 4, "1000 1100 1110 1111", 10);
    // A sliding window hides originals and copies alike.
    sees("copies=2 copy_window=4 window=2", 8,
         "1000 0000 1100 0000 0110 0000 0011 0000 1000 1000 1100 1100 0110 0110 0011 0011", 21);
}

/* Documents of two and three tokens: chunks of two count from each document's start. */
static void test_documents(void **state)
{
    (void)state;
    enum { T = 5, N = 10 };
    static const char want[] = "10000 00000 11000 00000 00100 00000 00110 00000 00111 00000"
                               "10000 10000 11000 11000 00100 00100 00110 00110 00111 00001";
    static double zero[N * N], unit[N * N];
    const double start[] = {0, 0, 2, 2, 2};
    for (i64 i = 0; i < N * N; i++) unit[i] = i / N == i % N;
    trial *t = attention("q=1x10x10 k=1x10x10 v=1x10x10 doc_start=1x5 copies=2 copy_window=3 chunk=2",
                         (const double *[MAX_IN]){zero, zero, unit, start});
    const char *w = want;
    for (i64 i = 0; i < N * N; i++) {
        w += strspn(w, " ");
        assert_int_equal(oracle_data(t->oracle, t->out[0])[i] > 0, *w++ == '1');
    }
    trial_close(t);
}

/* One head of width 1, q = k = v = x, x = (1, 2), two copies: the second sees keys 1, 2, 2. */
static void test_numbers(void **state)
{
    (void)state;
    const double x[] = {1, 2, 1, 2}, want[] = {1, 1.880797, 1, 1.936621};
    double o[4];
    trial *t = attention("q=1x4x1 k=1x4x1 v=1x4x1 copies=2 scale=1", (const double *[MAX_IN]){x, x, x});
    assert_ok(trial_kernel(t, cpu, best()));
    trial_read(t, t->out[0], o);
    for (int i = 0; i < 4; i++) {
        assert_true(fabs(oracle_data(t->oracle, t->out[0])[i] - want[i]) <= 5e-7);
        assert_true(fabs(o[i] - want[i]) <= 1e-6);
    }
    trial_close(t);
}

/* A gradient that arrives at copies only reaches the keys and values of originals. */
static void test_gradient_reaches_originals(void **state)
{
    (void)state;
    enum { T = 3, N = 4, ROWS = 2 * T };
    double x[3][ROWS * N], seed[ROWS * N] = {0}, d[ROWS * N];
    trial *t;
    trial_given given = {.backward = true};
    assert_ok(case_parse(op_table(ISA_PLAIN, OP_attention), "q=1x6x4 k=1x6x4 v=1x6x4 copies=2", &given.spec));
    for (int i = 0; i < 3; i++) given.in[i] = x[i];
    for (i64 i = 0; i < 3 * ROWS * N; i++)
        x[i / (ROWS * N)][i % (ROWS * N)] = random_normal(3, random_stream("phd"), 0, (u64)i);
    for (i64 i = T * N; i < ROWS * N; i++) seed[i] = 1;
    given.seed[0] = seed;
    given.seed_shape[0] = (case_input){.present = true, .ndim = 3, .dim = {1, ROWS, N}};
    assert_ok(trial_open_given(OP_attention, &given, DT_F32, &t));
    assert_ok(trial_oracle(t));
    assert_ok(trial_kernel(t, cpu, best()));
    for (int i = 1; i < 3; i++)
        for (int kernel = 0; kernel < 2; kernel++) {
            memcpy(d, oracle_data(t->oracle, t->grad[i]), sizeof d);
            if (kernel) trial_read(t, t->grad[i], d);
            for (i64 j = 0; j < T * N; j++) assert_true(fabs(d[j]) > 1e-4);
        }
    memcpy(d, oracle_data(t->oracle, t->grad[0]), sizeof d);
    for (i64 j = 0; j < T * N; j++) assert_true(d[j] == 0); // queries of originals: nothing came
    trial_close(t);
}

/* ---- models. Weights do not depend on the method: it has no parameters of its own. */

#define SHAPE "layers: 2, width: 32, vocab: 61, attention: {heads: 4, kv_heads: 2}, ffn: {width: 48}"
static const model_case plain = {.name = "plain", .yaml = "model: {context: 12, " SHAPE "}\n"};
static const model_case phd = {.name = "phd",
                               .yaml = "model: {context: 12, repeat: {kind: phd}, " SHAPE "}\n"};

typedef struct figures { // of one run of training by the kernels
    float logits[33 * CASE_VOCAB], gradient[64 * 32];
} figures;

static void train(const model_case m, const char *const *set, i64 n, figures *f)
{
    runner r;
    case_rows x;
    rows_mixed(&x);
    runner_open(
        &r, m, set, n,
        &(runner_options){
            .shape = case_shape(&x, MODE_TRAIN, DT_F32), .backward = true, .device = cpu, .level = best()});
    runner_rows(&r, &x);
    runner_program(&r);
    memcpy(f->logits, runner_logits(&r), sizeof f->logits);
    memcpy(f->gradient, runner_gradient(&r, "blocks.0.attention.k.weight"), 16 * 32 * sizeof(float));
    runner_close(&r);
}

static void same(const char *const *a, i64 n_a, const char *const *b, i64 n_b, bool equal)
{
    static figures one, other;
    train(n_a ? phd : plain, a, n_a, &one);
    train(n_b ? phd : plain, b, n_b, &other);
    bool is = !memcmp(one.logits, other.logits, sizeof one.logits) &&
              !memcmp(one.gradient, other.gradient, 16 * 32 * sizeof(float));
    if (is != equal)
        fail_msg("%s and %s are %s", n_a ? a[0] : "plain", n_b ? b[0] : "plain", is ? "equal" : "not");
}
#define LIST(...) (const char *const[]){__VA_ARGS__}, COUNT(((const char *const[]){__VA_ARGS__}))

static void test_equalities(void **state)
{
    (void)state;
    same(LIST("model.repeat.copies=1"), NULL, 0, true);
    same(LIST("model.repeat.copies=1", "model.repeat.window=5", "model.repeat.positions=expanded"), NULL, 0,
         true);
    same(LIST("model.repeat.copies=2"), NULL, 0, false);
    // W = 1 is PHD whatever the chunk, C = 1 is PHD whatever the window, C >= T is SWA.
    same(LIST("model.repeat.chunk=3"), LIST("model.repeat.window=1"), true);
    same(LIST("model.repeat.window=6", "model.repeat.chunk=1"), LIST("model.repeat.window=1"), true);
    same(LIST("model.repeat.window=6", "model.repeat.chunk=12"), LIST("model.repeat.window=6"), true);
    same(LIST("model.repeat.window=6", "model.repeat.chunk=4"), LIST("model.repeat.window=6"), false);
    same(LIST("model.repeat.window=2"), LIST("model.repeat.window=1"), false);
    same(LIST("model.repeat.positions=expanded", "model.position.kind=learned"),
         LIST("model.position.kind=learned"), false);
}

/* What the last block leaves in the stream, rows of the sequence as they stand, in double. */
static double *stream(const model_case m, const char *const *set, i64 n, runner *r)
{
    case_rows x;
    rows_mixed(&x);
    runner_open(r, m, set, n,
                &(runner_options){.shape = case_shape(&x, MODE_EVALUATE, DT_F32), .oracle = true});
    runner_rows(r, &x);
    runner_oracle(r);
    const tensor *last = NULL;
    for (i64 i = 0; i < r->m.g->n_nodes; i++) // the last joint of a block
        if (r->m.g->nodes[i]->op == OP_joint) last = r->m.g->nodes[i]->out[0];
    assert_non_null(last);
    assert_int_equal(last->dim[1], 11 * model_copies(r->c));
    return oracle_data(r->o, last);
}

/* Copy 1 is the plain model, to the bit, whatever the copies and their windows. */
static void test_originals(void **state)
{
    (void)state;
    enum { B = 3, T = 11, N = 32 };
    static const char *const sets[][3] = {
        {"model.repeat.copies=2"},
        {"model.repeat.copies=5"},
        {"model.repeat.copies=3", "model.repeat.window=4"},
        {"model.repeat.copies=2", "model.repeat.window=6", "model.repeat.chunk=4"},
    };
    runner a, b;
    const double *want = stream(plain, NULL, 0, &a);
    for (i64 i = 0; i < COUNT(sets); i++) {
        i64 n = 0, copies;
        while (n < 3 && sets[i][n]) n++;
        const double *got = stream(phd, sets[i], n, &b);
        copies = model_copies(b.c);
        for (i64 s = 0; s < B; s++)
            assert_memory_equal(got + s * T * copies * N, want + s * T * N, T * N * sizeof *want);
        assert_memory_not_equal(got + T * N, got, T * N * sizeof *want); // copies differ
        runner_close(&b);
    }
    runner_close(&a);
}

/* Changing a token changes no logits before it, nor in other documents. */
static void test_causality(void **state)
{
    (void)state;
    enum { T = 11, CHANGED = 5 };
    runner r;
    case_rows x;
    double before[3 * T * CASE_VOCAB];
    rows_mixed(&x); // row 0: documents from 0, 4 and 9
    runner_open(&r, phd, LIST("model.repeat.copies=3", "model.repeat.window=4"),
                &(runner_options){.shape = case_shape(&x, MODE_EVALUATE, DT_F32), .oracle = true});
    runner_rows(&r, &x);
    runner_oracle(&r);
    memcpy(before, oracle_data(r.o, r.m.logits), sizeof before);
    x.token[CHANGED] = (x.token[CHANGED] + 1) % CASE_VOCAB;
    runner_rows(&r, &x);
    runner_oracle(&r);
    const double *after = oracle_data(r.o, r.m.logits);
    for (i64 t = 0; t < 3 * T; t++) {
        bool equal = !memcmp(before + t * CASE_VOCAB, after + t * CASE_VOCAB, CASE_VOCAB * sizeof *after);
        assert_int_equal(equal, t < CHANGED || t >= 9);
    }
    runner_close(&r);
}

/* Dropout draws for every row of the stream; cutting a step into micro-batches changes nothing. */
static void test_dropout(void **state)
{
    (void)state;
    enum { T = 8, R = 2 };
    static const char *const set[] = {"model.dropout=0.3", "model.repeat.copies=3"};
    float whole[R * T];
    for (i64 rows = R; rows >= 1; rows--)
        for (i64 first = 0; first < R; first += rows) {
            runner r;
            case_rows x, all;
            rows_make(&all, R, T, (i32[]){0, -1, 0, -1}, 4);
            rows_make(&x, rows, T, (i32[]){0, -1, 0, -1}, 4);
            memcpy(x.token, all.token + first * T, sizeof(i32) * (size_t)(rows * T));
            memcpy(x.target, all.target + first * T, sizeof(i32) * (size_t)(rows * T));
            runner_open(&r, phd, set, 2,
                        &(runner_options){
                            .shape = case_shape(&x, MODE_TRAIN, DT_F32), .device = cpu, .level = best()});
            runner_rows(&r, &x);
            program_run(r.p, &(step_info){.seed = 1, .row_offset = first * T}, PHASE_FORWARD);
            const float *loss = program_data(r.p, r.m.loss);
            for (i64 i = 0; i < rows * T; i++)
                if (rows == R)
                    whole[i] = loss[i];
                else
                    assert_true(fabs(loss[i] - whole[first * T + i]) <= 1e-5);
            runner_close(&r);
        }
}

/* ---- decoding */

enum { LONG = 40 };
#define LONGER "model.context=40", "model.layers=2"
static const char *const kinds[][5] = {
    {LONGER, "model.repeat.copies=2"},
    {LONGER, "model.repeat.copies=4", "model.repeat.positions=expanded"},
    {LONGER, "model.repeat.copies=2", "model.repeat.window=4"},
    {LONGER, "model.repeat.copies=3", "model.repeat.window=6", "model.attention.window=9"},
    {LONGER, "model.repeat.copies=3", "model.repeat.window=4", "model.repeat.chunk=7"},
    {LONGER, "model.repeat.copies=2", "model.repeat.window=40", "model.repeat.chunk=16"},
    {LONGER, "model.repeat.copies=2", "model.repeat.window=3", "model.repeat.chunk=2"},
};
static i64 words(const char *const *set)
{
    i64 n = 0;
    while (n < 5 && set[n]) n++;
    return n;
}

static void is_near(const float *got, const float *want, const char *const *set, i64 prompt, i64 length)
{
    double off = relative_error_f32(got, want, CASE_VOCAB);
    if (!(off <= 2e-6))
        fail_msg("%s %s %s, prompt of %lld, behind token %lld: off by %g", set[2], set[3] ? set[3] : "",
                 set[3] && set[4] ? set[4] : "", (long long)prompt, (long long)length, off);
}

/* A prompt of every length, then a part of 6 tokens and then token by token, against the whole at once. */
static void test_prompts(void **state)
{
    (void)state;
    static float full[LONG * CASE_VOCAB];
    for (i64 k = 0; k < COUNT(kinds); k++) {
        runner r;
        case_rows x;
        decoder *d;
        rows_make(&x, 1, LONG, (i32[]){0, -1}, 8);
        model_shape shape = case_shape(&x, MODE_EVALUATE, DT_F32);
        shape.no_loss = true;
        runner_open(&r, phd, kinds[k], words(kinds[k]),
                    &(runner_options){.shape = shape, .device = cpu, .level = best()});
        runner_rows(&r, &x);
        runner_program(&r);
        memcpy(full, runner_logits(&r), sizeof full);
        assert_ok(decoder_open(r.c, cpu, best(), DT_F32, NULL, LONG, &d));
        runner_weights(decoder_store(d));
        for (i64 prompt = 1; prompt <= LONG; prompt++) {
            const float *logits;
            decoder_reset(d);
            assert_ok(decoder_feed(d, x.token, prompt, &logits));
            is_near(logits, full + (prompt - 1) * CASE_VOCAB, kinds[k], prompt, prompt);
            for (i64 at = prompt, n, end = prompt > 1 ? MIN(LONG, prompt + 11) : LONG; at < end; at += n) {
                n = at == prompt && at + 6 <= LONG && prompt % 2 ? 6 : 1;
                assert_ok(decoder_feed(d, x.token + at, n, &logits));
                is_near(logits, full + (at + n - 1) * CASE_VOCAB, kinds[k], prompt, at + n);
            }
        }
        decoder_close(d);
        runner_close(&r);
    }
}

/* In double, with copies computed from the first token on that model_copied_from names: nothing before it
 * matters, and what it names is not more than needed by more than a layer's window. */
static void test_reach(void **state)
{
    (void)state;
    config *c = case_config(phd, LIST("model.layers=3"));
    assert_int_equal(model_copied_from(c, 10), 9);
    assert_int_equal(model_copies_reach(c), 1);
    config_close(c);
    c = case_config(phd, LIST("model.layers=3", "model.repeat.window=4"));
    assert_int_equal(model_copies_reach(c), 3 * 3 + 1);
    assert_int_equal(model_copied_from(c, 12), 2); // the last L (W - 1) + 1 tokens
    assert_int_equal(model_copied_from(c, 5), 0);
    config_close(c);
    c = case_config(phd, LIST("model.layers=3", "model.repeat.window=4", "model.repeat.chunk=8"));
    assert_int_equal(model_copies_reach(c), 8);
    assert_int_equal(model_copied_from(c, 12), 8); // the last chunk
    assert_int_equal(model_copied_from(c, 8), 0);
    assert_int_equal(model_copied_from(c, 9), 8);
    config_close(c);
    c = case_config(plain, NULL, 0);
    assert_int_equal(model_copies_reach(c), 0);
    assert_int_equal(model_copied_from(c, 12), 0);
    config_close(c);
}

static i64 cache_bytes(model_case m, const char *const *set, i64 n)
{
    decoder *d;
    config *c = case_config(m, set, n);
    assert_ok(decoder_open(c, cpu, best(), DT_F32, NULL, LONG, &d));
    i64 bytes = decoder_cache_bytes(d);
    decoder_close(d);
    config_close(c);
    return bytes;
}

static void test_cache(void **state)
{
    (void)state;
    const i64 entry = 2 * 2 * 16 * (i64)sizeof(float),
              vanilla = LONG * entry; // layers, k and v, 2 heads of 8
    assert_int_equal(cache_bytes(plain, NULL, 0), vanilla);
    assert_int_equal(cache_bytes(phd, LIST("model.repeat.copies=2")), vanilla);
    assert_int_equal(cache_bytes(phd, LIST("model.repeat.copies=7")), vanilla);
    assert_int_equal(cache_bytes(phd, LIST("model.repeat.window=4")), vanilla + 3 * entry);
    assert_int_equal(cache_bytes(phd, LIST("model.repeat.window=4", "model.repeat.copies=3")),
                     vanilla + 3 * 2 * entry);
    assert_int_equal(cache_bytes(phd, LIST("model.repeat.window=4", "model.repeat.chunk=1")), vanilla);
    assert_int_equal(cache_bytes(phd, LIST("model.repeat.window=9", "model.repeat.chunk=3")),
                     vanilla + 2 * entry);
    assert_int_equal(cache_bytes(phd, LIST("model.repeat.window=9", "model.attention.window=5")),
                     vanilla + 4 * entry);
}

/* ---- memory and cost */

static program_sizes sizes_at(i64 tokens, const char *kind)
{
    arena *a;
    model m;
    store *s;
    program_sizes sizes;
    config *c = case_config(phd, LIST("model.context=32Ki", "model.repeat.window=16", kind));
    assert_ok(arena_open(&a));
    assert_ok(model_build(a, c, &(model_shape){.rows = 1, .tokens = tokens, .mode = MODE_TRAIN}, &m));
    assert_ok(graph_backward(m.g, NULL, NULL, 0));
    store_plan(a, m.g, STORE_GRADIENTS, &s);
    assert_ok(
        program_measure(m.g, s, &(program_options){.device = cpu, .isa = best(), .threads = 2}, &sizes));
    graph_close(m.g);
    arena_close(a);
    config_close(c);
    return sizes;
}

/* Up to 32Ki tokens with two copies: activations, and the scratch of every kernel, at most double when T
 * does. */
static void test_memory(void **state)
{
    (void)state;
    static const char *const chunks[] = {"model.repeat.chunk=none", "model.repeat.chunk=32"};
    for (int i = 0; i < 2; i++) {
        program_sizes last = sizes_at(4096, chunks[i]);
        for (i64 tokens = 8192; tokens <= 32768; tokens *= 2) {
            program_sizes now = sizes_at(tokens, chunks[i]);
            assert_true((double)now.activations <= 2.01 * (double)last.activations);
            assert_true((double)now.scratch <= 2.01 * (double)last.scratch);
            last = now;
        }
    }
}

static void test_figures(void **state)
{
    (void)state;
    const double per_block = 32 * (32 + 16 + 16 + 32) + 3 * 32 * 48, head = 61 * 32, wide = 2 * 11 * 32;
    for (int k = 1; k <= 3; k++) {
        arena *a;
        model m;
        model_figures f;
        char copies[32];
        snprintf(copies, sizeof copies, "model.repeat.copies=%d", k);
        config *c = case_config(phd, (const char *const[]){copies}, 1);
        assert_ok(arena_open(&a));
        assert_ok(model_build(a, c, &(model_shape){.rows = 1, .tokens = 11, .mode = MODE_TRAIN}, &m));
        model_about(&m, c, 11, &f);
        assert_true(f.flops_per_token == 6 * (k * 2 * per_block + head) + 6 * k * wide);
        assert_true((double)f.matmul_parameters == 2 * per_block + head);
        graph_close(m.g);
        arena_close(a);
        config_close(c);
    }
}

/* ---- what has no meaning */

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
static void not_parsed(const char *yaml, const char *message)
{
    config *c;
    assert_fails(config_parse("c.yaml", yaml, strlen(yaml), NULL, 0, &c), ERR_CONFIG, message);
}

static void test_refusals(void **state)
{
    (void)state;
    refused("model:\n  vocab: 61\n  context: 12\n  repeat: {kind: phd,\n    window: 13}\n",
            "c.yaml:5: model.repeat.window is 13; it must not be beyond model.context (12)");
    refused(
        "model:\n  vocab: 61\n  position: {kind: none}\n  repeat: {kind: phd,\n    positions: expanded}\n",
        "c.yaml:5: model.repeat.positions is expanded; with model.position.kind none there are no positions");
    not_parsed("model: {repeat: {kind: phd,\n  chunk: 0}}\n",
               "c.yaml:2: model.repeat.chunk is '0'; it must be a whole number from 1 to 1048576, or none");
    not_parsed("model: {repeat: {kind: phd,\n  copies: 0}}\n",
               "c.yaml:2: model.repeat.copies is '0'; it must be a whole number from 1 to 256");
    not_parsed("model: {repeat: {kind: phd,\n  copies: 257}}\n",
               "c.yaml:2: model.repeat.copies is '257'; it must be a whole number from 1 to 256");
    not_parsed("model: {repeat: {copies: 2}}\n", "c.yaml:1: model.repeat.copies belongs to model.repeat.kind "
                                                 "phd, and that is none; choose it or remove the key");
    trial *t;
    assert_fails(trial_open(OP_attention, "q=1x5x4 k=1x5x4 v=1x5x4 copies=2", DT_F32, 0, &t), ERR_CONFIG,
                 "attention (attention): 5 rows are not 2 copies of every token");
    assert_fails(
        trial_open(OP_attention,
                   "q=1x4x4 k=1x4x4 v=1x4x4 cache_k=1x9x4 cache_v=1x9x4 past=1 copies=2 copy_window=3",
                   DT_F32, 0, &t),
        ERR_CONFIG,
        "attention (attention): a cache and a copy_window of 3 need the copies of 2 earlier tokens: ring_k, "
        "ring_v");
    assert_fails(
        trial_open(OP_attention,
                   "q=1x4x4 k=1x4x4 v=1x4x4 cache_k=1x9x4 cache_v=1x9x4 past=1 ring_k=1x1x4 ring_v=1x1x4 "
                   "copies=2 copy_window=3",
                   DT_F32, 0, &t),
        ERR_CONFIG, "attention (attention): rings must be [B, 2 or more tokens of 1 copies, 4]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_masks),      cmocka_unit_test(test_documents),
        cmocka_unit_test(test_numbers),    cmocka_unit_test(test_gradient_reaches_originals),
        cmocka_unit_test(test_equalities), cmocka_unit_test(test_originals),
        cmocka_unit_test(test_causality),  cmocka_unit_test(test_dropout),
        cmocka_unit_test(test_prompts),    cmocka_unit_test(test_reach),
        cmocka_unit_test(test_cache),      cmocka_unit_test(test_memory),
        cmocka_unit_test(test_figures),    cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}

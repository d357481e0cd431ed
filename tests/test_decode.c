/* Decoding: reading a text in pieces of any length over caches gives the logits of reading it at once, in
 * double, by the kernels in f32 and bf16; the decoder's refusals; the sampler at its boundaries. */
#include "model_case.h"
#include "cpu_case.h"
#include "infer/decoder.h"
#include "infer/sampler.h"

static bool measure;

enum { V = CASE_VOCAB };
static const model_case windowed = {
    .name = "windowed",
    .yaml = "model: {layers: 2, width: 32, vocab: 61, context: 12, norm: {preset: pre_qk},\n"
            "        attention: {heads: 4, kv_heads: 2, window: 3}, ffn: {width: 48}}\n"};

static model_shape decode_shape(i64 rows, i64 tokens, i64 capacity)
{
    return (model_shape){
        .rows = rows, .tokens = tokens, .mode = MODE_DECODE, .capacity = capacity, .no_loss = true};
}

/* ---- in double: two sequences, each read in pieces of its own past */

enum { ROWS = 2, TOKENS = 12 };
typedef struct reader { // decodes WIDTH tokens at a time
    runner r;
    i64 width;
} reader;

static void full_in_double(model_case m, const case_rows *x, double *logits)
{
    runner r;
    model_shape shape = case_shape(x, MODE_EVALUATE, DT_F32);
    shape.no_loss = true;
    runner_open(&r, m, NULL, 0, &(runner_options){.shape = shape, .oracle = true});
    runner_rows(&r, x);
    runner_oracle(&r);
    memcpy(logits, oracle_data(r.o, r.m.logits), sizeof(double) * ROWS * TOKENS * V);
    runner_close(&r);
}

static void copy_states(const runner *from, runner *to)
{
    for (i64 i = 0; i < from->m.g->n_tensors; i++) {
        const tensor *t = from->m.g->tensors[i];
        if (t->role != ROLE_STATE) continue;
        tensor *other = g_find(to->m.g, t->path);
        assert_true(other && same_shape(t, other));
        memcpy(oracle_data(to->o, other), oracle_data(from->o, t), sizeof(double) * (size_t)count(t));
    }
}

/* Feeds D->width tokens to each row behind its PAST, and compares with the logits of the whole. */
static double feed_in_double(reader *d, const case_rows *x, const i64 *past, const double *full)
{
    double worst = 0;
    for (i64 row = 0; row < ROWS; row++) {
        oracle_data(d->r.o, d->r.m.past)[row] = (double)past[row];
        if (d->r.m.fresh) oracle_data(d->r.o, d->r.m.fresh)[row] = (double)d->width;
        for (i64 t = 0; t < d->width; t++) {
            oracle_data(d->r.o, d->r.m.tokens)[row * d->width + t] = x->token[row * TOKENS + past[row] + t];
            oracle_data(d->r.o, d->r.m.position)[row * d->width + t] = (double)(past[row] + t);
        }
    }
    assert_ok(oracle_run(d->r.o, &(step_info){0}, false));
    for (i64 row = 0; row < ROWS; row++)
        for (i64 k = 0; k < d->width * V; k++) {
            double off = fabs(oracle_data(d->r.o, d->r.m.logits)[row * d->width * V + k] -
                              full[(row * TOKENS + past[row]) * V + k]);
            if (!(off <= worst)) worst = off; // NaN too
        }
    return worst;
}

static void check_double(model_case m)
{
    static const i64 widths[] = {1, 3, 5};
    static const int order[] = {1, 0, 2, 0, 0}; // 3 + 1 + 5 + 1 + 1 tokens
    static double full[ROWS * TOKENS * V];
    reader d[3];
    case_rows x;
    i64 past[ROWS] = {0};
    double worst = 0;
    rows_make(&x, ROWS, TOKENS, (i32[]){0, -1, 0, -1}, 6);
    full_in_double(m, &x, full);
    for (int k = 0; k < 3; k++) {
        d[k].width = widths[k];
        runner_open(&d[k].r, m, NULL, 0,
                    &(runner_options){.shape = decode_shape(ROWS, widths[k], TOKENS), .oracle = true});
    }
    for (int i = 0, last = -1; i < COUNT(order); last = order[i++]) {
        if (last >= 0) copy_states(&d[last].r, &d[order[i]].r);
        worst = fmax(worst, feed_in_double(&d[order[i]], &x, past, full));
        for (i64 row = 0; row < ROWS; row++) past[row] += widths[order[i]];
        // Row 1 forgets two tokens, and lags behind from now on; a ring of copies has forgotten what was
        // there.
        if (i == 1 && !d[0].r.m.fresh) past[1] -= 2;
    }
    if (measure) printf("%-11s in double: %.1e\n", m.name, worst);
    assert_true(worst <= 1e-10);
    // One more token than the cache has room for still reads what it should; row 1 has room.
    copy_states(&d[0].r, &d[1].r);
    past[0] = TOKENS - 3;
    assert_true(d[0].r.m.fresh || feed_in_double(&d[1], &x, past, full) <= 1e-10);
    for (int k = 0; k < 3; k++) runner_close(&d[k].r);
}

static void test_double(void **state)
{
    (void)state;
    for (i64 k = 0; k < COUNT(model_cases); k++) check_double(model_cases[k]);
    check_double(windowed);
}

/* ---- by the kernels: a text longer than the decoder's chunk, in pieces */

enum { LONG = 83 };
static const char *const longer[] = {"model.context=83"};

static void full_by_program(model_case m, const case_rows *x, dtype act, dtype stream, isa level,
                            float *logits)
{
    runner r;
    model_shape shape = case_shape(x, MODE_EVALUATE, act);
    shape.no_loss = true;
    shape.stream = stream;
    runner_open(&r, m, longer, 1, &(runner_options){.shape = shape, .device = cpu, .level = level});
    runner_rows(&r, x);
    runner_program(&r);
    memcpy(logits, runner_logits(&r), sizeof(float) * LONG * V);
    runner_close(&r);
}

/* The worst difference of a logit, relative to the largest logit. */
static double decoder_error(decoder *d, const case_rows *x, const i64 *pieces, const float *full)
{
    double worst = 0, largest = 0;
    for (i64 i = 0; i < LONG * V; i++) largest = fmax(largest, fabs(full[i]));
    decoder_reset(d);
    for (i64 at = 0, i = 0; at < LONG; at += pieces[i++]) {
        const float *logits;
        assert_ok(decoder_feed(d, x->token + at, pieces[i], &logits));
        assert_int_equal(decoder_length(d), at + pieces[i]);
        for (i64 k = 0; k < V; k++) {
            double off = fabs(logits[k] - full[(at + pieces[i] - 1) * V + k]) / largest;
            if (!(off <= worst)) worst = off; // NaN too
        }
    }
    return worst;
}

static void check_decoder(model_case m, dtype act, isa level, double bound)
{
    // All at once; odd pieces that use both of the decoder's programs; token by token behind a prompt.
    static const i64 pieces[][LONG] = {
        {83}, {5, 1, 7, 13, 3, 2, 31, 21}, {64, 5, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}};
    static float full[LONG * V];
    case_rows x;
    decoder *d;
    config *c = case_config(m, longer, 1);
    rows_make(&x, 1, LONG, (i32[]){0, -1}, 8);
    full_by_program(m, &x, act, act, level, full);
    assert_ok(decoder_open(c, cpu, level, act, NULL, LONG, &d));
    runner_weights(decoder_store(d));
    for (i64 i = 0; i < COUNT(pieces); i++) {
        double off = decoder_error(d, &x, pieces[i], full);
        if (measure)
            printf("%-11s %s %-5s way %lld: %.1e\n", m.name, dtype_name(act), isa_name(level), (long long)i,
                   off);
        if (!measure && !(off <= bound))
            fail_msg("%s %s %s, way %lld: off by %g", m.name, dtype_name(act), isa_name(level), (long long)i,
                     off);
    }
    decoder_close(d);
    config_close(c);
}

static void test_decoder(void **state)
{
    (void)state;
    const model_case cases[] = {gpt2_like, llama_like, olmo2_like, windowed, phd_like, cswa_like};
    for (isa level = 0; level < ISA_COUNT; level++) {
        if (level > device_about(cpu)->level || !op_table(level, 0)) continue;
        for (i64 k = 0; k < COUNT(cases); k++) {
            check_decoder(cases[k], DT_F32, level, 1e-5);
            check_decoder(cases[k], DT_BF16, level, 2e-2);
        }
    }
}

/* ---- methods that select: rounding may choose others, so what decoding chose is held for the whole */

/* The indices that one token's program chose, as row AT of those of the whole text. */
static void take_indices(const runner *one, runner *full, i64 at)
{
    i64 taken = 0;
    for (i64 i = 0; i < one->m.g->n_nodes; i++) {
        const node *n = one->m.g->nodes[i], *same = NULL;
        if (!(n->def->flags & OP_SELECTS)) continue;
        for (i64 j = 0; j < full->m.g->n_nodes; j++)
            if (!strcmp(full->m.g->nodes[j]->path, n->path)) same = full->m.g->nodes[j];
        assert_true(same && same->op == n->op);
        for (int k = 0; k < n->n_out; k++) {
            const tensor *t = n->out[k];
            if (!t || t->dtype != DT_I32) continue;
            assert_int_equal(count(same->out[k]), LONG * count(t));
            for (i64 v = 0; v < count(t); v++, taken++)
                oracle_data(full->o, same->out[k])[at * count(t) + v] =
                    ((const i32 *)program_data(one->p, t))[v];
        }
    }
    assert_true(taken > 0);
}

/* One token at a time in bf16; LOGITS of each. The decoder, which has the same program, gives the same bits.
 */
static void read_selecting(model_case m, const case_rows *x, isa level, runner *full, float *logits)
{
    runner one;
    decoder *d;
    model_shape shape = decode_shape(1, 1, LONG);
    shape.act = shape.stream = DT_BF16;
    runner_open(
        &one, m, longer, 1,
        &(runner_options){.shape = shape, .fuse = true, .device = cpu, .level = level, .oracle = true});
    assert_ok(decoder_open(one.c, cpu, level, DT_BF16, NULL, LONG, &d));
    runner_weights(decoder_store(d));
    for (i64 t = 0; t < LONG; t++) {
        const float *same;
        *(i32 *)program_data(one.p, one.m.tokens) = x->token[t];
        *(i32 *)program_data(one.p, one.m.position) = *(i32 *)program_data(one.p, one.m.past) = (i32)t;
        program_run(one.p, &(step_info){0}, PHASE_FORWARD);
        program_commit(one.p, &(step_info){0});
        take_indices(&one, full, t);
        memcpy(logits + t * V, runner_logits(&one), V * sizeof *logits);
        assert_ok(decoder_feed(d, x->token + t, 1, &same));
        assert_memory_equal(same, logits + t * V, V * sizeof *logits);
    }
    decoder_close(d);
    runner_close(&one);
}

static void check_selecting(model_case m, isa level, double bound)
{
    static float logits[LONG * V];
    runner full;
    case_rows x;
    rows_make(&x, 1, LONG, (i32[]){0, -1}, 8);
    model_shape shape = case_shape(&x, MODE_EVALUATE, DT_F32);
    shape.no_loss = true;
    runner_open(&full, m, longer, 1, &(runner_options){.shape = shape, .oracle = true});
    runner_rows(&full, &x);
    read_selecting(m, &x, level, &full, logits);
    oracle_hold(full.o, true);
    assert_ok(oracle_run(full.o, &(step_info){0}, false));
    const double *want = oracle_data(full.o, full.m.logits);
    double worst = 0, largest = 0;
    for (i64 i = 0; i < LONG * V; i++) largest = fmax(largest, fabs(want[i]));
    for (i64 i = 0; i < LONG * V; i++)
        if (!(fabs(logits[i] - want[i]) <= worst * largest)) worst = fabs(logits[i] - want[i]) / largest;
    if (measure) printf("%-11s bf16 %-5s, what it chose held: %.1e\n", m.name, isa_name(level), worst);
    if (!measure && !(worst <= bound)) fail_msg("%s bf16 %s: off by %g", m.name, isa_name(level), worst);
    runner_close(&full);
}

static void test_selecting(void **state)
{
    (void)state;
    const model_case cases[] = {moe_like, moe_bias_like, pkm_like, ultramem_like, ultramem_v2_like};
    for (isa level = 0; level < ISA_COUNT; level++)
        for (i64 k = 0; k < COUNT(cases); k++)
            if (level <= device_about(cpu)->level && op_table(level, 0))
                check_selecting(cases[k], level, 2e-2);
}

/* Under bf16 the residual stream is stored as train.stream says, as in training: the logits of a first token
 * are nearer to those of the whole model with that stream than to those with the other. */
static void test_stream(void **state)
{
    (void)state;
    static float full[2][LONG * V]; // bf16, f32
    static const char *const set[] = {"model.context=83", "train.stream=f32"};
    const isa level = device_about(cpu)->level;
    case_rows x;
    rows_make(&x, 1, LONG, (i32[]){0, -1}, 8);
    full_by_program(llama_like, &x, DT_BF16, DT_BF16, level, full[0]);
    full_by_program(llama_like, &x, DT_BF16, DT_F32, level, full[1]);
    for (i64 k = 0; k < 2; k++) {
        decoder *d;
        const float *logits;
        double off[2] = {0};
        config *c = case_config(llama_like, set, 1 + k);
        assert_ok(decoder_open(c, cpu, level, DT_BF16, NULL, LONG, &d));
        runner_weights(decoder_store(d));
        assert_ok(decoder_feed(d, x.token, 1, &logits));
        for (i64 i = 0; i < 2 * V; i++) off[i / V] += fabs(logits[i % V] - full[i / V][i % V]);
        assert_true(off[k] < off[!k]);
        decoder_close(d);
        config_close(c);
    }
}

static void test_capacity(void **state)
{
    (void)state;
    decoder *d;
    const isa level = device_about(cpu)->level;
    config *c = case_config(gpt2_like, NULL, 0); // learned positions for 12 tokens
    assert_ok(decoder_open(c, cpu, level, DT_F32, NULL, 12, &d));
    decoder_close(d);
    assert_fails(decoder_open(c, cpu, level, DT_F32, NULL, 13, &d), ERR_INPUT,
                 "room for 13 tokens, but the model has learned positions for 12 (model.context) only");
    assert_fails(decoder_open(c, cpu, level, DT_F32, NULL, 0, &d), ERR_INPUT,
                 "room for 0 tokens; it must be from 1 to 2147483647");
    config_close(c);
    c = case_config(llama_like, NULL, 0); // rotated ones go on
    assert_ok(decoder_open(c, cpu, level, DT_F32, NULL, 13, &d));
    decoder_close(d);
    config_close(c);
}

static void test_refusals(void **state)
{
    (void)state;
    decoder *d;
    const float *logits, *again;
    float first[V];
    i32 ids[] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    config *c = case_config(llama_like, NULL, 0);
    assert_ok(decoder_open(c, cpu, device_about(cpu)->level, DT_F32, NULL, 8, &d));
    runner_weights(decoder_store(d));
    assert_int_equal(decoder_capacity(d), 8);
    assert_int_equal(decoder_vocab(d), V);
    assert_int_equal(decoder_cache_bytes(d),
                     2 * 2 * 8 * 16 * 4); // layers, k and v, tokens, 2 heads of 8, f32
    assert_fails(decoder_feed(d, ids, 0, &logits), ERR_INPUT, "0 tokens do not fit behind 0 of 8");
    assert_fails(decoder_feed(d, ids, 9, &logits), ERR_INPUT, "9 tokens do not fit behind 0 of 8");
    assert_ok(decoder_feed(d, ids, 8, &logits));
    memcpy(first, logits, sizeof first);
    assert_fails(decoder_feed(d, ids, 1, &again), ERR_INPUT, "1 tokens do not fit behind 8 of 8");
    decoder_reset(d);
    ids[3] = V;
    assert_fails(decoder_feed(d, ids, 4, &again), ERR_INPUT,
                 "token 61 is beyond the model's vocabulary of 61");
    ids[3] = -1;
    assert_fails(decoder_feed(d, ids, 4, &again), ERR_INPUT,
                 "token -1 is beyond the model's vocabulary of 61");
    assert_int_equal(decoder_length(d), 0); // nothing was fed
    ids[3] = 4;
    assert_ok(decoder_feed(d, ids, 8, &again)); // what was read before is forgotten
    assert_memory_equal(first, again, sizeof first);
    decoder_reset(d);
    decoder_store(d)->entry[0].master[0] = NAN; // weights that have diverged: no token can be drawn
    ids[0] = 0;
    store_sync(decoder_store(d));
    assert_fails(decoder_feed(d, ids, 8, &again), ERR_NUMERIC,
                 "the model's output is not finite; the weights have diverged");
    decoder_close(d);
    config_close(c);
}

/* ---- the sampler */

enum { WORDS = 6 };
static scored scratch[WORDS];

/* How often each word is drawn in DRAWS draws. */
enum { DRAWS = 20000 };
static void draw_many(const sampler *s, const float *logits, i64 n, i64 *hits)
{
    memset(hits, 0, sizeof *hits * (size_t)n);
    for (i64 i = 0; i < DRAWS; i++) hits[sampler_draw(s, logits, n, i, scratch)]++;
}

/* The words that are ever drawn, as bits. */
static unsigned reached(const sampler *s, const float *logits, i64 n)
{
    i64 hits[WORDS];
    unsigned bits = 0;
    draw_many(s, logits, n, hits);
    for (i64 i = 0; i < n; i++) bits |= hits[i] ? 1u << i : 0;
    return bits;
}

static void test_sampler_frequencies(void **state)
{
    (void)state;
    static const double p[] = {0.05, 0.4, 0.1, 0.25, 0.2};
    float logits[5];
    i64 hits[WORDS];
    for (int i = 0; i < 5; i++) logits[i] = (float)(log(p[i]) + 3);
    for (int hot = 0; hot < 2; hot++) {
        double q[5], sum = 0; // temperature 2: square roots
        for (int i = 0; i < 5; i++) sum += q[i] = hot ? sqrt(p[i]) : p[i];
        draw_many(&(sampler){.temperature = hot ? 2 : 1, .seed = 4}, logits, 5, hits);
        for (int i = 0; i < 5; i++) {
            double want = q[i] / sum * DRAWS, deviation = sqrt(want * (1 - q[i] / sum));
            if (!(fabs((double)hits[i] - want) <= 4.5 * deviation))
                fail_msg("word %d: drawn %lld times, expected %.0f +- %.0f", i, (long long)hits[i], want,
                         deviation);
        }
    }
}

static void test_sampler_boundaries(void **state)
{
    (void)state;
    static const float even[] = {1, 1, 1, 1}, steps[] = {0, 3, 1, 2}, ties[] = {2, 5, 5, 1, 5};
    const float halves[] = {0, -0.6931472f, -1.3862944f, -1.3862944f}; // 1/2 1/4 1/8 1/8
    // Temperature 0 takes the likeliest, the lowest id on ties, whatever else is set.
    assert_int_equal(sampler_draw(&(sampler){.temperature = 0, .top_k = 3, .seed = 9}, steps, 4, 5, scratch),
                     1);
    assert_int_equal(sampler_draw(&(sampler){.temperature = 0}, ties, 5, 0, scratch), 1);
    assert_int_equal(sampler_draw(&(sampler){.temperature = 0}, even, 4, 3, scratch), 0);
    // top-k: k words, the lowest ids among equals; more than there are is all.
    assert_int_equal(reached(&(sampler){.temperature = 1, .top_k = 1}, ties, 5), 1 << 1);
    assert_int_equal(reached(&(sampler){.temperature = 1, .top_k = 2}, steps, 4), 1 << 1 | 1 << 3);
    assert_int_equal(reached(&(sampler){.temperature = 1, .top_k = 2}, ties, 5), 1 << 1 | 1 << 2);
    assert_int_equal(reached(&(sampler){.temperature = 1, .top_k = 99}, steps, 4), 15);
    assert_int_equal(reached(&(sampler){.temperature = 1}, steps, 4), 15);
    // top-p: the fewest words that hold p; exactly p is enough; 0 and 1 do nothing; a tiny p leaves the
    // likeliest.
    assert_int_equal(reached(&(sampler){.temperature = 1, .top_p = 0.5}, even, 4), 3);
    assert_int_equal(reached(&(sampler){.temperature = 1, .top_p = 0.51}, even, 4), 7);
    assert_int_equal(reached(&(sampler){.temperature = 1, .top_p = 0.75}, even, 4), 7);
    assert_int_equal(reached(&(sampler){.temperature = 1, .top_p = 0.49}, halves, 4), 1);
    assert_int_equal(reached(&(sampler){.temperature = 1, .top_p = 0.51}, halves, 4), 3);
    assert_int_equal(reached(&(sampler){.temperature = 1, .top_p = 1e-9}, steps, 4), 1 << 1);
    assert_int_equal(reached(&(sampler){.temperature = 1, .top_p = 1}, steps, 4), 15);
    // After top-k, top-p is a share of what top-k left: of (1/2 1/4) the first holds 2/3.
    assert_int_equal(reached(&(sampler){.temperature = 1, .top_k = 2, .top_p = 0.66}, halves, 4), 1);
    assert_int_equal(reached(&(sampler){.temperature = 1, .top_k = 2, .top_p = 0.67}, halves, 4), 3);
    // min-p: relative to the likeliest; equal is enough.
    assert_int_equal(reached(&(sampler){.temperature = 1, .min_p = 0.51}, halves, 4), 1);
    assert_int_equal(reached(&(sampler){.temperature = 1, .min_p = 0.49}, halves, 4), 3);
    assert_int_equal(reached(&(sampler){.temperature = 1, .min_p = 0.24}, halves, 4), 15);
    assert_int_equal(reached(&(sampler){.temperature = 1, .min_p = 1}, ties, 5), 1 << 1 | 1 << 2 | 1 << 4);
    // Temperature comes first: at 2 the ratio 1/2 is 0.71.
    assert_int_equal(reached(&(sampler){.temperature = 2, .min_p = 0.7}, halves, 4), 3);
}

static void test_sampler_determinism(void **state)
{
    (void)state;
    static const float logits[] = {0.1f, 0.4f, 0.2f, 0, 0.3f, 0.5f};
    const sampler s = {.temperature = 1, .seed = 5}, other = {.temperature = 1, .seed = 6};
    i32 forward[100];
    int same = 0;
    for (i64 i = 0; i < 100; i++) forward[i] = sampler_draw(&s, logits, WORDS, i, scratch);
    for (i64 i = 99; i >= 0; i--) { // in any order, the draw belongs to (seed, index)
        assert_int_equal(sampler_draw(&s, logits, WORDS, i, scratch), forward[i]);
        same += sampler_draw(&other, logits, WORDS, i, scratch) == forward[i];
    }
    assert_in_range(same, 5, 40); // one in six by chance
}

static void test_sampler_check(void **state)
{
    (void)state;
    assert_ok(sampler_check(&(sampler){.temperature = 0.8, .top_k = 40, .top_p = 0.95, .min_p = 0.1}));
    assert_fails(sampler_check(&(sampler){.temperature = -1}), ERR_USAGE,
                 "temperature is -1; it must be between 0 and 100");
    assert_fails(sampler_check(&(sampler){.temperature = NAN}), ERR_USAGE,
                 "temperature is nan; it must be between 0 and 100");
    assert_fails(sampler_check(&(sampler){.top_p = 1.5}), ERR_USAGE,
                 "top-p is 1.5; it must be between 0 and 1");
    assert_fails(sampler_check(&(sampler){.min_p = -0.5}), ERR_USAGE,
                 "min-p is -0.5; it must be between 0 and 1");
    assert_fails(sampler_check(&(sampler){.top_k = -1}), ERR_USAGE,
                 "top-k is -1; it must be at least 0 (0: all)");
}

/* What decoding reads and weights make no sense without is what training keeps, so a checkpoint holds it. */
static void test_states(void **state)
{
    (void)state;
    i64 kept = 0, caches = 0;
    for (i64 k = 0; k < COUNT(model_cases); k++) {
        arena *a;
        model train, decode;
        config *c = case_config(model_cases[k], NULL, 0);
        model_shape shape = decode_shape(1, 1, 4);
        assert_ok(arena_open(&a));
        assert_ok(model_build(a, c, &(model_shape){.rows = 1, .tokens = 4, .mode = MODE_TRAIN}, &train));
        assert_ok(model_build(a, c, &shape, &decode));
        for (i64 i = 0; i < decode.g->n_tensors; i++) {
            const tensor *t = decode.g->tensors[i];
            if (t->role != ROLE_STATE) continue;
            if (!g_find(train.g, t->path) != t->transient)
                fail_msg("%s: %s is %s, but training has %s", model_cases[k].name, t->path,
                         t->transient ? "a cache" : "a state of the weights", t->transient ? "it" : "none");
            caches += t->transient;
            kept += !t->transient;
        }
        graph_close(train.g);
        graph_close(decode.g);
        config_close(c);
        arena_close(a);
    }
    assert_true(kept > 0 && caches > 0);
}

int main(int argc, char **argv)
{
    measure = argc > 1 && !strcmp(argv[1], "measure");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_double),
        cmocka_unit_test(test_decoder),
        cmocka_unit_test(test_selecting),
        cmocka_unit_test(test_stream),
        cmocka_unit_test(test_capacity),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_states),
        cmocka_unit_test(test_sampler_frequencies),
        cmocka_unit_test(test_sampler_boundaries),
        cmocka_unit_test(test_sampler_determinism),
        cmocka_unit_test(test_sampler_check),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}

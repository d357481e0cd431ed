/* Over-encoding, over-decoding and both: the worked example of the hash, its laws, what a step touches, the
 * forms of Adam on tables, checkpoints with other moduli, what is refused. */
#define _GNU_SOURCE // mincore
#include "format/safetensors.h"
#include "model_case.h"
#include "train/save.h"
#include "train/session.h"
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static device *cpu;
static int open_device(void **state)
{
    (void)state;
    assert_ok(device_open(&(device_options){.threads = 2}, &cpu));
    return 0;
}
static int close_device(void **state)
{
    (void)state;
    device_close(cpu);
    return 0;
}
static isa best(void) { return device_about(cpu)->level; }

static node *find_node(const graph *g, op_id op)
{
    for (i64 i = 0; i < g->n_nodes; i++)
        if (g->nodes[i]->op == op) return g->nodes[i];
    fail_msg("no node of that op");
    return NULL;
}
static double *in_double(runner *r, const char *path) { return oracle_data(r->o, g_find(r->m.g, path)); }

/* ---- the worked example: V=10, n=3, k=2, M = 7 9 11 13, d=4 */

static const model_case tiny = {
    .name = "tiny",
    .yaml = "model: {layers: 1, width: 4, vocab: 10, context: 5, tie_head: false, "
            "attention: {heads: 1}, ffn: {width: 4},\n"
            "        embedding: {kind: over_encoding, order: 3, splits: 2, slots: 7}}\n"};
static const i32 words[5] = {3, 7, 1, 3, 7};

/* A graph up to the embedding only, in double and as a program, with the example's weights. */
static void open_example(runner *r, const char *const *overrides, i64 n, tensor **e, tensor **seed)
{
    model_shape shape = {
        .rows = 1, .tokens = 5, .mode = MODE_TRAIN, .no_loss = true, .logits = true, .dense_gradients = true};
    program_options p = {.device = cpu, .isa = best()};
    *r = (runner){0};
    assert_ok(arena_open(&r->arena));
    r->c = case_config(tiny, overrides, n);
    assert_ok(model_build(r->arena, r->c, &shape, &r->m));
    for (i64 i = 0; i < r->m.g->n_nodes && r->m.g->nodes[i]->layer < 0;
         i++) // the last node before the blocks
        *e = g_out(r->m.g->nodes[i], 0);
    (*e)->keep = true;
    *seed = g_input(r->m.g, "seed", DT_F32, 3, (i64[]){1, 5, 4});
    assert_ok(graph_backward(r->m.g, e, seed, 1));
    assert_ok(store_open(r->arena, r->m.g, STORE_GRADIENTS, &r->s));
    store_initialize(r->s, 1);
    assert_ok(program_open(r->m.g, r->s, &p, &r->p));
    assert_ok(oracle_open(r->m.g, &r->o));
}

static void put(runner *r, const char *path, i64 i, double x)
{
    store_find(r->s, path)->master[i] = (float)x;
    in_double(r, path)[i] = x;
}

static void example_weights(runner *r)
{
    static const i64 moduli[] = {7, 9, 11, 13};
    for (i64 i = 0; i < 40; i++) put(r, "embedding.weight", i, i % 4 ? 0 : (double)i / 4);
    for (i64 a = 0, row = 0; a < 4; row += moduli[a++])
        for (i64 k = 0; k < moduli[a]; k++) put(r, "embedding.ngram.weight", row + k, 0.1 * (double)k);
    for (i64 i = 0; i < 16; i++) put(r, "embedding.ngram.map.weight", i, i % 5 == 0);
}

static void test_worked_example(void **state)
{
    (void)state;
    static const i32 rows[5][4] = {{3, 3, 3, 3}, {2, 1, 4, 11}, {1, 8, 8, 7}, {6, 4, 9, 11}, {2, 1, 5, 7}};
    static const i64 base[] = {0, 7, 16, 27};
    static const double want[5][4] = {{0.66, 0.06, 0.06, 0.06},
                                      {1.44, 0.02, 0.08, 0.22},
                                      {0.22, 0.16, 0.16, 0.14},
                                      {0.72, 0.08, 0.18, 0.22},
                                      {1.44, 0.02, 0.10, 0.14}};
    runner r;
    tensor *e, *seed;
    open_example(&r, NULL, 0, &e, &seed);
    example_weights(&r);
    assert_int_equal(store_find(r.s, "embedding.ngram.weight")->count, 40);
    runner_input(&r, r.m.tokens, words);
    runner_input(&r, r.m.position, (i32[]){0, 1, 2, 3, 4});
    runner_input(&r, r.m.doc_start, (i32[5]){0});
    for (i64 i = 0; i < 20; i++) {
        double g = i == 4 || i == 16;
        ((float *)program_data(r.p, seed))[i] = (float)g;
        oracle_data(r.o, seed)[i] = g;
    }
    tensor *ids = g_out(find_node(r.m.g, OP_ngram_ids), 0);
    runner_program(&r);
    runner_oracle(&r);
    for (i64 t = 0; t < 5; t++)
        for (i64 a = 0; a < 4; a++) {
            assert_true(oracle_data(r.o, ids)[t * 4 + a] == (double)(base[a] + rows[t][a]));
            assert_true(fabs(oracle_data(r.o, e)[t * 4 + a] - want[t][a]) < 1e-12);
            assert_true(fabs(((float *)program_data(r.p, e))[t * 4 + a] - want[t][a]) < 1e-6);
        }
    const double *d = oracle_data(r.o, g_find(r.m.g, "embedding.ngram.weight")->grad);
    const float *d32 = runner_gradient(&r, "embedding.ngram.weight");
    for (i64 i = 0; i < 7; i++) { // table 0
        assert_true(fabs(d[i] - (i == 2 ? 0.4 : 0)) < 1e-12);
        assert_true(fabs(d32[i] - (i == 2 ? 0.4 : 0)) < 1e-6);
    }
    runner_close(&r);
}

/* ---- the combinations, in double, as functions of the same weights */

enum { D = 4, AT = 5 };

static void example_output(const char *const *overrides, i64 n, const double *mix, bool zero_tables,
                           double out[AT * D])
{
    runner r;
    tensor *e, *seed;
    open_example(&r, overrides, n, &e, &seed);
    u64 stream = random_stream("example");
    static const char *const path[] = {"embedding.weight", "embedding.ngram.weight",
                                       "embedding.ngram.map.weight", "embedding.ngram.gate",
                                       "embedding.ngram.mix.weight"};
    for (int k = 0; k < COUNT(path); k++) {
        const stored *s = store_find(r.s, path[k]);
        for (i64 i = 0; s && i < s->count; i++)
            in_double(&r, path[k])[i] = k == 4                  ? mix[i]
                                        : k == 3                ? 1
                                        : k == 1 && zero_tables ? 0
                                                                : random_normal(2, stream, (u64)k, (u64)i);
    }
    for (i64 i = 0; i < AT; i++) oracle_data(r.o, r.m.tokens)[i] = words[i];
    assert_ok(oracle_run(r.o, &(step_info){0}, false));
    memcpy(out, oracle_data(r.o, e), sizeof(double) * AT * D);
    runner_close(&r);
}
#define OUTPUT(mix, zero, out, ...)                                                                          \
    example_output((const char *const[]){"model.layers=1", __VA_ARGS__},                                     \
                   COUNT(((const char *const[]){"model.layers=1", __VA_ARGS__})), mix, zero, out)

static void assert_near(const double *a, const double *b, double times)
{
    for (i64 i = 0; i < AT * D; i++)
        if (!(fabs(a[i] - times * b[i]) <= 1e-12 * (1 + fabs(a[i]))))
            fail_msg("value %lld is %.17g, not %.17g", (long long)i, a[i], times * b[i]);
}

static void test_combinations(void **state)
{
    (void)state;
    double mean[AT * D], other[AT * D], mix[D * 2 * D], plain[AT * D];
    u64 stream = random_stream("example");
    OUTPUT(NULL, false, mean, "model.embedding.combine=mean");
    OUTPUT(NULL, false, other, "model.embedding.combine=sum");
    assert_near(other, mean, 5);
    OUTPUT(NULL, false, other, "model.embedding.rescale=true");
    assert_near(other, mean, sqrt(5));
    OUTPUT(NULL, false, other, "model.embedding.combine=sum", "model.embedding.rescale=true");
    assert_near(other, mean, sqrt(5));
    for (i64 o = 0; o < D; o++) // U = [I; W] / (1 + A), stored as its transpose
        for (i64 i = 0; i < 2 * D; i++)
            mix[o * 2 * D + i] = (i < D ? (i == o) : random_normal(2, stream, 2, (u64)(o * D + i - D))) / 5;
    OUTPUT(mix, false, other, "model.embedding.combine=concat");
    assert_near(other, mean, 1);
    OUTPUT(NULL, true, other, "model.embedding.order=3"); // all E_a = 0
    OUTPUT(NULL, true, plain, "model.embedding.order=1");
    assert_near(other, plain, 0.2);
    OUTPUT(NULL, true, other, "model.embedding.combine=normsum"); // RMSNorm(0) = 0
    for (i64 t = 0; t < AT; t++) {
        double square = 0;
        for (i64 j = 0; j < D; j++) square += plain[t * D + j] * plain[t * D + j] / D;
        for (i64 j = 0; j < D; j++)
            assert_true(fabs(other[t * D + j] - sqrt(0.5) * plain[t * D + j] / sqrt(square + 1e-5)) < 1e-12);
    }
    OUTPUT(NULL, false, other, "model.embedding.combine=normsum");
    double square = 0;
    for (i64 i = 0; i < AT * D; i++) square += other[i] * other[i] / (AT * D);
    assert_true(square > 0.1 && square < 2); // the sum of two of unit deviation, over sqrt 2
}

/* ---- the hash */

static i64 gcd(i64 a, i64 b) { return b ? gcd(b, a % b) : a; }

typedef struct hashing {
    arena *a;
    graph *g;
    tensor *tokens, *start, *ids;
    oracle *o;
    program *p;
} hashing;

/* The op alone, on constants given as hash [A, 1 + n]. */
static void open_hashing(hashing *h, const i32 *hash, i64 A, i64 n, i64 B, i64 T)
{
    program_options o = {.device = cpu, .isa = best()};
    assert_ok(arena_open(&h->a));
    h->g = graph_new(h->a, &(graph_options){0});
    h->tokens = g_input(h->g, "tokens", DT_I32, 2, (i64[]){B, T});
    h->start = g_input(h->g, "start", DT_I32, 2, (i64[]){B, T});
    tensor *constant = g_const(h->g, "hash", DT_I32, 2, (i64[]){A, n + 1}, hash);
    h->ids = g_out(g_node(h->g, OP_ngram_ids, IN(h->tokens, constant, h->start), NO_ATTRS), 0);
    h->ids->keep = true;
    assert_ok(graph_status(h->g));
    assert_ok(oracle_open(h->g, &h->o));
    assert_ok(program_open(h->g, NULL, &o, &h->p));
}
static const i32 *run_hashing(hashing *h, const i32 *tokens, const i32 *start)
{
    for (i64 i = 0; i < count(h->tokens); i++) {
        oracle_data(h->o, h->tokens)[i] = ((i32 *)program_data(h->p, h->tokens))[i] = tokens[i];
        oracle_data(h->o, h->start)[i] = ((i32 *)program_data(h->p, h->start))[i] = start ? start[i] : 0;
    }
    assert_ok(oracle_run(h->o, &(step_info){0}, false));
    program_run(h->p, &(step_info){0}, PHASE_FORWARD);
    for (i64 i = 0; i < count(h->ids); i++)
        assert_true(oracle_data(h->o, h->ids)[i] == ((i32 *)program_data(h->p, h->ids))[i]);
    return program_data(h->p, h->ids);
}
static void close_hashing(hashing *h)
{
    oracle_close(h->o);
    program_close(h->p);
    graph_close(h->g);
    arena_close(h->a);
}

/* For a fixed token, the ten that may come before it: an exact multiple of V keeps half a bit of them. */
static void test_collisions(void **state)
{
    (void)state;
    static const i64 different[] = {2, 10};
    for (i32 m = 20; m <= 21; m++) {
        hashing h;
        bool seen[21] = {0};
        i64 rows = 0;
        open_hashing(&h, (i32[]){m, 1, 10 % m}, 1, 2, 10, 2);
        i32 tokens[20];
        for (i32 k = 0; k < 10; k++) tokens[2 * k] = k, tokens[2 * k + 1] = 4;
        const i32 *ids = run_hashing(&h, tokens, NULL);
        for (i64 k = 0; k < 10; k++) rows += !seen[ids[2 * k + 1]], seen[ids[2 * k + 1]] = true;
        assert_int_equal(rows, different[m - 20]);
        close_hashing(&h);
    }
}

static const i32 *hash_of(const char *const *overrides, i64 n, runner *r, i64 *A, i64 *columns)
{
    model_shape shape = {.rows = 1, .tokens = 5, .mode = MODE_EVALUATE, .no_loss = true};
    *r = (runner){0};
    assert_ok(arena_open(&r->arena));
    r->c = case_config(tiny, overrides, n);
    assert_ok(model_build(r->arena, r->c, &shape, &r->m));
    const tensor *t = g_find(r->m.g, "embedding.ngram.hash");
    *A = t->dim[0], *columns = t->dim[1];
    return t->fixed;
}

/* The moduli are the smallest that share no factor with V; ids are g_i mod M_a in 64 bits. */
static void test_hash(void **state)
{
    (void)state;
    static const i64 vocab[] = {10, 50280, 100278, 8192, 1};
    for (i64 k = 0; k < COUNT(vocab); k++) {
        char words_key[64], slots_key[64];
        enum { T = 37 };
        i64 A, columns, m = k == 3 ? 65536 : 12800, base[5] = {0};
        i32 tokens[T];
        runner r;
        hashing h;
        snprintf(words_key, sizeof words_key, "model.vocab=%lld", (long long)vocab[k]);
        snprintf(slots_key, sizeof slots_key, "model.embedding.slots=%lld", (long long)m);
        const i32 *hash = hash_of((const char *[]){words_key, slots_key}, 2, &r, &A, &columns);
        assert_true(A == 4 && columns == 4);
        i64 next = m;
        for (i64 a = 0; a < A; a++, next++) {
            while (gcd(next, vocab[k]) != 1) next++;
            assert_int_equal(hash[a * columns], next);
            base[a + 1] = base[a] + next;
        }
        open_hashing(&h, hash, A, columns - 1, 1, T);
        for (i64 i = 0; i < T; i++) tokens[i] = (i32)(random_bits(4, 1, (u64)k, (u64)i) % (u64)vocab[k]);
        const i32 *ids = run_hashing(&h, tokens, NULL);
        for (i64 t = 0; t < T; t++)
            for (i64 a = 0; a < A; a++) {
                u64 g = 0, power = 1;
                for (i64 j = 0; j < 2 + a / 2; j++, power *= (u64)vocab[k])
                    g += t >= j ? (u64)tokens[t - j] * power : 0;
                i64 row = ids[t * A + a] - base[a];
                assert_true(row == (i64)(g % (u64)hash[a * columns]) && row >= 0 && row < hash[a * columns]);
            }
        close_hashing(&h);
        graph_close(r.m.g);
        config_close(r.c);
        arena_close(r.arena);
    }
}

/* Ids at t depend on x[t-n+1..t] of the document, and are those of the document alone. */
static void test_window(void **state)
{
    (void)state;
    enum { N = 3, T = 16, CUT = 6 };
    static const i32 hash[] = {101, 1, 50, 0, 103, 1, 50, 28};
    i32 tokens[T], start[T], before[T * 2];
    hashing h;
    open_hashing(&h, hash, 2, N, 1, T);
    for (i64 i = 0; i < T; i++) tokens[i] = (i32)(random_bits(4, 2, 0, (u64)i) % 50);
    memcpy(before, run_hashing(&h, tokens, NULL), sizeof before);
    for (i64 i = 0; i < T; i++) {
        i32 was = tokens[i];
        tokens[i] = (was + 1) % 50;
        const i32 *now = run_hashing(&h, tokens, NULL);
        for (i64 t = 0; t < T; t++) {
            assert_true((now[2 * t] != before[2 * t]) ==
                        (t >= i && t < i + 2)); // M coprime: every change shows
            assert_true((now[2 * t + 1] != before[2 * t + 1]) == (t >= i && t < i + 3));
        }
        tokens[i] = was;
    }
    for (i64 i = 0; i < T; i++) start[i] = i < CUT ? 0 : CUT;
    i32 whole[T * 2], alone[T] = {0};
    memcpy(whole, run_hashing(&h, tokens, start), sizeof whole);
    memcpy(alone, tokens + CUT, sizeof(i32) * (T - CUT));
    assert_memory_equal(whole, before, sizeof(i32) * 2 * CUT);
    assert_memory_equal(whole + 2 * CUT, run_hashing(&h, alone, NULL), sizeof(i32) * 2 * (T - CUT));
    assert_true(memcmp(whole + 2 * CUT, before + 2 * CUT, sizeof(i32) * 4) != 0);
    close_hashing(&h);
}

/* Prompt and tokens one by one: the ids of reading it at once. Pieces of 5, 1, 1, 5. */
static void test_decoded_ids(void **state)
{
    (void)state;
    enum { T = 12, A = 4 };
    static const i64 pieces[] = {5, 1, 1, 5};
    case_rows x;
    runner full, part[2];
    rows_make(&x, 1, T, (i32[]){0, -1}, 4);
    model_shape shape = case_shape(&x, MODE_EVALUATE, DT_F32),
                decode = {.rows = 1, .mode = MODE_DECODE, .capacity = T, .no_loss = true};
    runner_open(&full, over_encoding_like, NULL, 0, &(runner_options){.shape = shape, .oracle = true});
    runner_rows(&full, &x);
    runner_oracle(&full);
    const double *want = oracle_data(full.o, g_out(find_node(full.m.g, OP_ngram_ids), 0));
    for (int k = 0; k < 2; k++) {
        decode.tokens = k ? 5 : 1;
        runner_open(&part[k], over_encoding_like, NULL, 0,
                    &(runner_options){.shape = decode, .oracle = true});
    }
    double history[T] = {0};
    for (i64 i = 0, at = 0; i < COUNT(pieces); at += pieces[i++]) {
        runner *r = &part[pieces[i] > 1];
        memcpy(in_double(r, "embedding.ngram.history"), history, sizeof history);
        for (i64 t = 0; t < pieces[i]; t++) {
            oracle_data(r->o, r->m.tokens)[t] = x.token[at + t];
            oracle_data(r->o, r->m.position)[t] = (double)(at + t);
        }
        *oracle_data(r->o, r->m.past) = (double)at;
        assert_ok(oracle_run(r->o, &(step_info){0}, false));
        memcpy(history, in_double(r, "embedding.ngram.history"), sizeof history);
        const double *ids = oracle_data(r->o, g_out(find_node(r->m.g, OP_ngram_ids), 0));
        for (i64 k = 0; k < pieces[i] * A; k++) assert_true(ids[k] == want[at * A + k]);
    }
    runner_close(&full), runner_close(&part[0]), runner_close(&part[1]);
}

/* Order 1 has no tables: the model without over-encoding, to the bit. */
static void test_order_one(void **state)
{
    (void)state;
    static const char *const one[] = {"model.embedding.order=1"}, *const none[] = {
                                                                      "model.embedding.kind=table"};
    for (dtype act = DT_F32; act <= DT_BF16; act++) {
        case_rows x;
        runner r[2];
        rows_mixed(&x);
        for (int k = 0; k < 2; k++) {
            runner_open(&r[k], over_encoding_like, k ? none : one, 1,
                        &(runner_options){.shape = case_shape(&x, MODE_TRAIN, act),
                                          .backward = true,
                                          .device = cpu,
                                          .level = best()});
            runner_rows(&r[k], &x);
            runner_program(&r[k]);
        }
        assert_int_equal(r[0].s->elements, r[1].s->elements);
        assert_memory_equal(r[0].s->grad, r[1].s->grad, sizeof(float) * (size_t)r[0].s->elements);
        assert_memory_equal(runner_logits(&r[0]), runner_logits(&r[1]),
                            sizeof(float) * (size_t)count(r[0].m.logits));
        runner_close(&r[0]), runner_close(&r[1]);
    }
}

/* ---- training on tables */

enum { ROWS = 4, CONTEXT = 32, VOCAB = 300 };
static const char base_yaml[] =
    "model: {layers: 1, width: 64, context: 32, vocab: 300, attention: {heads: 2}, ffn: {width: 64},\n"
    "        embedding: {kind: over_encoding, slots: 211}}\n"
    "train: {steps: 10, batch_tokens: 128, micro_batch: 2, precision: f32, clip: 0}\n";

typedef struct setup {
    config *c;
    session *s;
} setup;
static status try_open(setup *u, session_options o, const char *const *overrides, i64 n)
{
    o.isa = best();
    assert_ok(config_parse("c.yaml", base_yaml, strlen(base_yaml), overrides, n, &u->c));
    return session_open(u->c, cpu, &o, &u->s);
}
static setup begin_with(session_options o, const char *const *overrides, i64 n)
{
    setup u;
    assert_ok(try_open(&u, o, overrides, n));
    return u;
}
#define BEGIN(dense, ...)                                                                                    \
    begin_with((session_options){.dense_gradients = dense}, (const char *const[]){__VA_ARGS__},              \
               COUNT(((const char *const[]){__VA_ARGS__})))
static void end(setup *u)
{
    session_close(u->s);
    config_close(u->c);
}
static const stored *tables(const setup *u) { return store_find(u->s->store, "embedding.ngram.weight"); }

static void one_step(setup *u, i64 step, u64 seed)
{
    static i32 tokens[ROWS * CONTEXT], targets[ROWS * CONTEXT], start[ROWS * CONTEXT],
        position[ROWS * CONTEXT];
    double nats, norm;
    for (i64 i = 0; i < ROWS * CONTEXT; i++) {
        tokens[i] = (i32)(random_bits(seed, 1, (u64)step, (u64)i) % VOCAB);
        targets[i] = (i32)(random_bits(seed, 2, (u64)step, (u64)i) % VOCAB);
        start[i] = 0, position[i] = (i32)(i % CONTEXT);
    }
    step_batch b = {tokens, targets, start, position, ROWS, ROWS * CONTEXT};
    session_forward_backward(u->s, &b, step, &nats);
    session_update(u->s, step, 1e-2, 1e-2, &norm);
    assert_true(isfinite(nats) && isfinite(norm));
}

/* Lists of rows, several side by side in one row of the gradient: the dense gradient's update, to the bit. */
static void test_rows_are_the_gradient(void **state)
{
    (void)state;
    static const char *const precise[] = {"train.precision=f32", "train.precision=bf16"};
    for (int k = 0; k < 2; k++) {
        setup rows = BEGIN(false, "train.optimizer.rows=dense", precise[k]), dense = BEGIN(true, precise[k]);
        assert_true(tables(&rows)->rows && !tables(&rows)->grad && tables(&dense)->grad);
        session_start(rows.s), session_start(dense.s);
        for (i64 step = 0; step < 3; step++) one_step(&rows, step, 5), one_step(&dense, step, 5);
        for (i64 i = 0; i < rows.s->store->n_params; i++) {
            const stored *a = &rows.s->store->entry[i], *b = store_find(dense.s->store, a->path);
            assert_memory_equal(a->master, b->master, sizeof(float) * (size_t)a->count);
            assert_memory_equal(a->moment[1], b->moment[1], sizeof(float) * (size_t)a->count);
        }
        end(&rows), end(&dense);
    }
}

/* A row that a step did not look up: lazy Adam leaves it, dense Adam moves it by its momentum alone:
 * m = b1 m, v = b2 v, w -= lr m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps). One that was: both the same, if
 * its history is. */
static void test_lazy_and_dense(void **state)
{
    (void)state;
    enum { S = 16 };
    setup lazy = BEGIN(false, "train.optimizer.rows=lazy"),
          dense = BEGIN(false, "train.optimizer.rows=dense");
    session_start(lazy.s), session_start(dense.s);
    one_step(&lazy, 0, 6), one_step(&dense, 0, 6);
    const stored *a = tables(&lazy), *b = tables(&dense);
    size_t bytes = sizeof(float) * (size_t)a->count;
    assert_memory_equal(a->master, b->master, bytes); // from zero moments nothing moves by itself
    float *w, *m, *v;
    assert_ok(mem_alloc(bytes, "copy", &w));
    assert_ok(mem_alloc(bytes, "copy", &m));
    assert_ok(mem_alloc(bytes, "copy", &v));
    memcpy(w, a->master, bytes), memcpy(m, a->moment[0], bytes), memcpy(v, a->moment[1], bytes);
    one_step(&lazy, 1, 6), one_step(&dense, 1, 6);
    i64 waited = 0, fresh = 0;
    for (i64 row = 0; row < a->count / S; row++) {
        const float *before = w + row * S;
        bool had = false, listed = memcmp(a->moment[1] + row * S, v + row * S, S * sizeof *v) != 0;
        for (i64 j = 0; j < S; j++) had |= v[row * S + j] != 0;
        if (listed) continue;
        assert_memory_equal(a->master + row * S, before, S * sizeof *w);
        assert_memory_equal(a->moment[0] + row * S, m + row * S, S * sizeof *m);
        waited += had, fresh += !had;
        for (i64 j = 0; j < S; j++) {
            double m1 = 0.9 * m[row * S + j], v1 = 0.95 * v[row * S + j];
            double moved = 1e-2 * (m1 / (1 - 0.9 * 0.9)) / (sqrt(v1 / (1 - 0.95 * 0.95)) + 1e-8);
            assert_true(fabs(b->master[row * S + j] - (before[j] - moved)) < 1e-6);
            assert_true(!had || moved == 0 || b->master[row * S + j] != before[j]);
        }
    }
    assert_true(waited > 20 && fresh > 20);
    mem_free(w), mem_free(m), mem_free(v);
    end(&lazy), end(&dense);
}

/* ---- what a step touches */

static i64 pages_there(const void *p, i64 elements)
{
    enum { PAGE = 4096 };
    uintptr_t first = (uintptr_t)p & ~(uintptr_t)(PAGE - 1), last = (uintptr_t)p + (size_t)elements * 4;
    size_t n = (last - first + PAGE - 1) / PAGE;
    unsigned char *there;
    i64 sum = 0;
    assert_ok(mem_alloc(n, "pages", &there));
    assert_int_equal(mincore((void *)first, n * PAGE, there), 0);
    for (size_t i = 0; i < n; i++) sum += there[i] & 1;
    mem_free(there);
    return sum;
}
static i64 resident_kib(void)
{
    long long size = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%lld %lld", &size, &resident), 2);
    fclose(f);
    return resident * 4;
}

/* Without an initial fill a table is pages that nobody has touched: what is there after a step, the step
 * touched. Tables 64 times as large (8 GiB with their moments) cost no more. */
static void test_pages(void **state)
{
    (void)state;
    enum { LOOK_UPS = ROWS * CONTEXT * 4, SIZES = 2 };
    static const char *const slots[SIZES] = {"model.embedding.slots=160Ki", "model.embedding.slots=10Mi"};
    i64 pages[SIZES][3], grown[SIZES];
    for (int k = 0; k < SIZES; k++) {
        setup u = BEGIN(false, "train.optimizer.rows=lazy", slots[k], "train.precision=bf16");
        const stored *e = tables(&u);
        const float *part[] = {e->master, e->moment[0], e->moment[1]};
        assert_true(e->count > (k ? 64 : 1) * 4 * (160 << 10) * 16 - 1 && e->data == e->master && !e->grad);
        madvise((void *)((uintptr_t)e->master & ~(uintptr_t)4095), (size_t)e->count * 4, MADV_NOHUGEPAGE);
        for (int m = 1; m < 3; m++) assert_true(pages_there(part[m], e->count) <= 2); // its neighbours' share
        i64 before = resident_kib();
        one_step(&u, 0, 7);
        grown[k] = resident_kib() - before;
        for (int m = 0; m < 3; m++) {
            pages[k][m] = pages_there(part[m], e->count);
            assert_true(pages[k][m] > LOOK_UPS / 2 && pages[k][m] <= LOOK_UPS + LOOK_UPS / 8);
        }
        end(&u);
    }
    for (int m = 0; m < 3; m++)
        assert_true(labs((long)(pages[1][m] - pages[0][m])) <=
                    LOOK_UPS / 10); // some rows share a page in the small one
    assert_true(grown[1] <= grown[0] + 2048);
    // Starting again gives the moments' pages back.
    setup u = BEGIN(false, slots[0]);
    one_step(&u, 0, 7);
    const stored *e = tables(&u);
    session_start(u.s);
    assert_true(pages_there(e->moment[0], e->count) <= 2 && pages_there(e->moment[1], e->count) <= 2);
    end(&u);
}

/* ---- checkpoints */

static void test_other_moduli(void **state)
{
    (void)state;
    char path[64], want[512];
    setup u = BEGIN(false, "train.steps=5");
    session_start(u.s);
    const store *s = u.s->store;
    st_entry entry[64] = {0};
    i32 hash[4 * 4];
    assert_true(s->n <= COUNT(entry));
    for (i64 i = 0; i < s->n; i++) {
        const stored *e = &s->entry[i];
        entry[i] = (st_entry){.name = e->path,
                              .dtype = e->dtype == DT_I32 ? ST_I32 : ST_F32,
                              .n_dims = e->ndim,
                              .data = e->role == ROLE_PARAM ? (void *)e->master : e->data};
        for (int k = 0; k < e->ndim; k++) entry[i].dims[k] = e->dim[k];
        if (strcmp(e->path, "embedding.ngram.hash")) continue;
        assert_int_equal(e->role, ROLE_CONST);
        assert_int_equal(e->count, COUNT(hash));
        memcpy(hash, e->data, sizeof hash);
        entry[i].data = hash;
    }
    snprintf(path, sizeof path, "/tmp/keel_moduli_%ld.safetensors", (long)getpid());
    assert_ok(st_save(path, entry, s->n, NULL, 0, NULL));
    assert_ok(load_weights(u.s->store, path));
    hash[4] = 227;
    assert_ok(st_save(path, entry, s->n, NULL, 0, NULL));
    snprintf(want, sizeof want,
             "%s: value 4 of embedding.ngram.hash is 227, but the configuration gives 217; the weights were "
             "trained "
             "with another one: use the configuration saved beside them",
             path);
    assert_int_equal(((const i32 *)store_find(s, "embedding.ngram.hash")->data)[4],
                     217); // 213 and 216 share 3 with V
    assert_fails(load_weights(u.s->store, path), ERR_FORMAT, want);
    unlink(path);
    end(&u);
}

/* ---- what is refused */

static void check_refused(const char *setting, const char *want)
{
    setup u;
    status s = config_parse("c.yaml", base_yaml, strlen(base_yaml), &setting, 1, &u.c);
    if (!s) {
        s = session_open(u.c, cpu, &(session_options){.isa = best(), .plan_only = true}, &u.s);
        if (!s) {
            s = session_fits(u.s);
            session_close(u.s);
        }
        config_close(u.c);
    }
    assert_fails(s, ERR_CONFIG, want);
}

static void test_refusals(void **state)
{
    (void)state;
    check_refused("model.embedding.order=0",
                  "command line: model.embedding.order is '0'; it must be a whole number from 1 to 16");
    check_refused(
        "model.embedding.splits=3",
        "command line: model.embedding.splits is 3; A = splits (order - 1) = 6 tables share model.width (64) "
        "in slices of width / A, so A must divide it");
    check_refused("model.embedding.slots=none",
                  "command line: model.embedding.slots is none; over_encoding needs the rows "
                  "of a table: set it (such as 256Ki)");
    check_refused(
        "model.embedding.slots=2147483647",
        "command line: model.embedding.slots is 2147483647; 4 tables of that many rows are more than "
        "2147483647, and a row is found by 31 bits");
}

static void test_beyond_memory(void **state)
{
    (void)state;
    setup u;
    char have[32], want[512], total[32];
    static const char *const large[] = {"model.embedding.slots=500M"}, *const words[] = {"model.vocab=1001"};
    session_options o = {.isa = best(), .plan_only = true};
    assert_ok(try_open(&u, o, words, 1));
    assert_null(u.s->memory.tables_key); // the largest table is the vocabulary's own
    end(&u);
    assert_ok(try_open(&u, o, large, 1));
    snprintf(want, sizeof want,
             "command line: model.embedding.slots is 500000000: its tables and their moments take 358 GiB of "
             "memory, the run "
             "%s, and this machine has %s; lower it",
             show_bytes((double)u.s->memory.total, total), show_bytes(session_memory_there(), have));
    assert_fails(session_fits(u.s), ERR_CONFIG, want);
    end(&u);
    assert_fails(try_open(&u, (session_options){0}, large, 1), ERR_CONFIG, want); // nothing was taken
    config_close(u.c);
}

/* ---- tokens further ahead */

static void open_ahead(runner *r, model_case m, const char *const *overrides, i64 n, const case_rows *x)
{
    runner_open(
        r, m, overrides, n,
        &(runner_options){.shape = case_shape(x, MODE_TRAIN, DT_F32), .backward = true, .oracle = true});
    runner_rows(r, x);
}

/* One term each for tokens 2 and 3: what is minimised is linear in the weight; evaluation has the main head
 * only. */
static void test_objective(void **state)
{
    (void)state;
    static const model_case cases[] = {over_tokenized_like, over_decoding_like};
    static const char *const weights[] = {"model.head.predict_weight=0", "model.head.predict_weight=1",
                                          "model.head.predict_weight=0.25", "model.head.predict=1"};
    for (int k = 0; k < 2; k++) {
        double value[4], main = 0;
        case_rows x;
        rows_mixed(&x);
        for (int i = 0; i < 4; i++) {
            runner r;
            open_ahead(&r, cases[k], &weights[i], 1, &x);
            value[i] = runner_objective(&r);
            main = 0;
            for (i64 t = 0; t < x.rows * x.tokens; t++)
                main += oracle_data(r.o, r.m.loss)[t] / (double)x.n_valid;
            assert_true(fabs(main - value[0]) < 1e-12); // the loss that is reported
            runner_close(&r);
        }
        assert_true(fabs(value[0] - value[3]) < 1e-12);
        assert_true(value[1] > 1.5 * value[0]); // two more terms of about log V, over fewer tokens
        assert_true(fabs(value[2] - (0.75 * value[0] + 0.25 * value[1])) < 1e-12);
        runner e;
        model_shape evaluate = case_shape(&x, MODE_EVALUATE, DT_F32);
        runner_open(&e, cases[k], NULL, 0, &(runner_options){.shape = evaluate, .oracle = true});
        for (i64 i = 0; i < e.m.g->n_tensors; i++)
            assert_true(e.m.g->tensors[i]->role != ROLE_PARAM ||
                        strncmp(e.m.g->tensors[i]->path, "predict.", 8) != 0);
        runner_close(&e);
    }
}

/* With targets at t, t+1, t+2 only, tokens after t+2 change nothing: each prediction reads what comes before
 * it. */
static void test_no_leak(void **state)
{
    (void)state;
    enum { AT_TOKEN = 3, T = 11 };
    static const model_case cases[] = {over_tokenized_like, over_decoding_like};
    for (int k = 0; k < 2; k++) {
        case_rows x;
        runner r;
        rows_make(&x, 1, T, (i32[]){0, -1}, 8);
        for (i64 t = 0; t < T; t++)
            if (t < AT_TOKEN || t > AT_TOKEN + 2) x.target[t] = -1;
        open_ahead(&r, cases[k], NULL, 0, &x);
        double before = runner_objective(&r);
        for (i64 t = 0; t < T; t++) {
            double *token = &oracle_data(r.o, r.m.tokens)[t], was = *token;
            *token = was > 30 ? was - 7 : was + 7;
            assert_true((runner_objective(&r) == before) == (t > AT_TOKEN + 2));
            *token = was;
        }
        runner_close(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_worked_example), cmocka_unit_test(test_combinations),
        cmocka_unit_test(test_collisions),     cmocka_unit_test(test_hash),
        cmocka_unit_test(test_window),         cmocka_unit_test(test_decoded_ids),
        cmocka_unit_test(test_order_one),      cmocka_unit_test(test_rows_are_the_gradient),
        cmocka_unit_test(test_lazy_and_dense), cmocka_unit_test(test_pages),
        cmocka_unit_test(test_other_moduli),   cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_beyond_memory),  cmocka_unit_test(test_objective),
        cmocka_unit_test(test_no_leak),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}

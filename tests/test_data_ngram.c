/* bigram: interpolated Kneser-Ney against a worked example, its laws, and the baseline of a small data set.
 */
#include "data/loader.h"
#include "data/ngram.h"
#include "base/random.h"
#include "toy_data.h"
#include <math.h>

static int setup(void **state) { return (void)state, toy_open(), 0; }
static int teardown(void **state) { return (void)state, toy_close(), 0; }

static bigram *count(i64 vocab, const i32 *stream, i64 n)
{
    bigram *g;
    assert_ok(bigram_open(vocab, &g));
    assert_ok(bigram_count(g, stream, stream + 1, n - 1));
    assert_ok(bigram_finish(g));
    return g;
}

/* V = 4, stream 0 1 0 1 0 2 1 0 2. Pairs: 01 x2, 10 x3, 02 x2, 21 x1; so n1 = 1, n2 = 2, D = 1/(1+4) = 0.2.
 * Predecessors: N(.0) = 1 {1}, N(.1) = 2 {0, 2}, N(.2) = 1 {0}; n1' = 2, n2' = 1, E = 2/(2+2) = 0.5.
 * Q(0) = (0.5 + 0.5 * 3/4)/4 = 0.21875, Q(1) = (1.5 + 0.375)/4 = 0.46875, Q(2) = Q(0), Q(3) = 0.375/4 =
 * 0.09375. c(0) = 4 with 2 followers: P(1|0) = 1.8/4 + 0.2*2/4 * Q(1) = 0.496875, P(3|0) = 0.1 * 0.09375.
 * c(1) = 3 with 1: P(0|1) = 2.8/3 + 0.2/3 * Q(0). c(3) = 0: P(w|3) = Q(w). */
static void test_worked_example(void **state)
{
    (void)state;
    static const i32 stream[] = {0, 1, 0, 1, 0, 2, 1, 0, 2};
    bigram *g = count(4, stream, COUNT(stream));
    assert_int_equal(bigram_pairs(g), 8);
    assert_int_equal(bigram_distinct(g), 4);
    assert_true(fabs(bigram_probability(g, 0, 1) - 0.496875) < 1e-15);
    assert_true(fabs(bigram_probability(g, 0, 3) - 0.009375) < 1e-15);
    assert_true(fabs(bigram_probability(g, 1, 0) - (2.8 + 0.2 * 0.21875) / 3) < 1e-15);
    assert_true(fabs(bigram_probability(g, 2, 1) - (0.8 + 0.2 * 0.46875)) < 1e-15);
    assert_true(fabs(bigram_probability(g, 3, 2) - 0.21875) < 1e-15);
    assert_true(fabs(bigram_probability(g, 3, 3) - 0.09375) < 1e-15);
    bigram_close(g);
}

/* Sums to 1 over the vocabulary and is positive for every context, in tables that grew many times. */
static void test_sums_to_one(void **state)
{
    (void)state;
    enum { N = 60000, V = 500 };
    static i32 stream[N];
    for (int kind = 0; kind < 3; kind++) {
        for (i64 i = 0; i < N; i++) {
            double u = random_uniform(1, 2, (u64)kind, (u64)i); // skewed; uniform; a cycle (all counts high)
            stream[i] = kind == 0 ? (i32)(V / 2 * u * u * u) : kind == 1 ? (i32)(V * u) : (i32)(i % 100);
        }
        bigram *g = count(V, stream, N);
        assert_int_equal(bigram_pairs(g), N - 1);
        for (i32 v = 0; v < V; v += 7) {
            double sum = 0;
            for (i32 w = 0; w < V; w++) {
                double p = bigram_probability(g, v, w);
                assert_true(p > 0 && p <= 1);
                sum += p;
            }
            assert_true(fabs(sum - 1) < 1e-12);
        }
        bigram_close(g);
    }
}

static void test_masked_pairs_and_refusals(void **state)
{
    (void)state;
    bigram *g;
    assert_ok(bigram_open(3, &g));
    assert_ok(bigram_count(g, (i32[]){0, 1, 2}, (i32[]){1, -1, 0}, 3));
    assert_int_equal(bigram_pairs(g), 2);
    assert_ok(bigram_finish(g));
    bigram_close(g);
    assert_ok(bigram_open(3, &g));
    assert_ok(bigram_count(g, (i32[]){0}, (i32[]){-1}, 1));
    assert_fails(bigram_finish(g), ERR_INPUT, "no pairs of tokens to count; give more text");
    bigram_close(g);
    assert_fails(bigram_open(0, &g), ERR_CONFIG, "vocabulary of 0 ids; it must be from 1 to 2^31 - 1");
}

/* The baseline equals counting and scoring by hand over the same samples. */
static void test_baseline(void **state)
{
    (void)state;
    static char all[20001];
    for (i64 i = 0; i < 20000; i++)
        all[i] = random_bits(5, 5, 5, (u64)i) % 40 ? "abcde the"[random_bits(5, 5, 6, (u64)i) % 9] : '|';
    dataset *d = toy_dataset("shards", toy_text("text", all), "|", "20%", 2000);
    enum { T = 32 };
    for (int variant = 0; variant < 3; variant++) {
        bigram_options o = {
            .tokens = variant ? 100 * T - 5 : 0, .seed = 9, .context = T, .boundaries = variant == 2};
        bigram_report r;
        assert_ok(bigram_baseline(d, &o, &r));
        bigram *g;
        loader *l;
        i32 tokens[T], targets[T];
        batch b = {.tokens = tokens, .targets = targets};
        assert_ok(bigram_open(TOY_VOCAB, &g));
        assert_ok(loader_open(d, DATA_TRAIN,
                              &(loader_options){.context = T, .rows = 1, .seed = 9, .shuffle = variant}, &l));
        i64 samples = variant ? 100 : loader_samples(l);
        for (i64 i = 0; i < samples; i++) {
            loader_next(l, &b);
            assert_ok(bigram_count(g, tokens, targets, T));
        }
        loader_close(l);
        assert_ok(bigram_finish(g));
        assert_int_equal(r.train_tokens, samples * T);
        assert_int_equal(r.pairs, samples * T);
        i64 n = dataset_tokens(d, DATA_VALIDATION), scored = 0, bytes = 0;
        i32 *stream = malloc((size_t)n * 4);
        dataset_read(d, DATA_VALIDATION, 0, n, stream);
        double nats = 0;
        for (i64 i = 0; i < (n - 1) / T * T; i++) {
            if (stream[i] == TOY_EOS && variant != 2) continue;
            nats -= log(bigram_probability(g, stream[i], stream[i + 1]));
            scored++;
            bytes += stream[i + 1] == TOY_THE ? 3 : stream[i + 1] == TOY_EOS ? 0 : 1;
        }
        assert_int_equal(r.targets, scored);
        assert_int_equal(r.bytes, bytes);
        assert_true(fabs(r.nats_per_token - nats / (double)scored) < 1e-12);
        assert_true(fabs(r.bits_per_byte - nats / (double)bytes / log(2)) < 1e-12);
        free(stream);
        bigram_close(g);
    }
    bigram_report r;
    assert_fails(bigram_baseline(d, &(bigram_options){.tokens = -1, .context = T}, &r), ERR_CONFIG,
                 "tokens is -1; it must be 0 (all) or more");
    dataset_close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_worked_example),
        cmocka_unit_test(test_sums_to_one),
        cmocka_unit_test(test_masked_pairs_and_refusals),
        cmocka_unit_test_setup_teardown(test_baseline, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

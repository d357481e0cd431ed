/* keel eval's library: windows that score every token once; records of every layout become the strings of the
 * harness; scores are those of a naive scorer in double, and have the same bits in every batch. */
#include "model_case.h"
#include "text_case.h"
#include "eval/choice.h"
#include "eval/windows.h"
#include <stdlib.h>

/* ---- windows */

typedef struct span { // "[context|targets]": positions in t; -1 is P
    i64 first, target, last;
} span;

static void check_windows(i64 n, i64 context, i64 stride, const span *want, i64 count)
{
    window w = {0};
    i64 k = 0;
    for (; window_next(n, &(window_rule){context, stride}, &w); k++) {
        assert_true(k < count);
        assert_int_equal(w.start - 1, want[k].first);
        assert_int_equal(w.start + w.inputs - w.targets, want[k].target);
        assert_int_equal(w.start + w.inputs - 1, want[k].last);
    }
    assert_int_equal(k, count);
}

static void test_windows(void **state)
{
    (void)state; // [P|0..3], [3|4..7], [5,6,7|8,9]; with two of context [2,3|4,5,6], [5,6|7,8,9]
    check_windows(10, 4, 4, (span[]){{-1, 0, 3}, {3, 4, 7}, {5, 8, 9}}, 3);
    check_windows(10, 4, 3, (span[]){{-1, 0, 3}, {2, 4, 6}, {5, 7, 9}}, 3);
    check_windows(3, 4, 1, (span[]){{-1, 0, 2}}, 1);
    check_windows(1, 1, 1, (span[]){{-1, 0, 0}}, 1);
    check_windows(0, 4, 4, NULL, 0);
}

static void test_windows_score_once(void **state)
{
    (void)state;
    for (i64 n = 1; n < 40; n++)
        for (i64 context = 1; context < 12; context++)
            for (i64 stride = 1; stride <= context; stride++) {
                window w = {0};
                i64 next = 1; // the sequence's first target: behind P
                while (window_next(n, &(window_rule){context, stride}, &w)) {
                    assert_true(w.start >= 0 && w.inputs <= context && w.targets <= w.inputs);
                    assert_int_equal(w.start + w.inputs + 1 - w.targets, next);
                    next += w.targets;
                    assert_true(w.inputs == MIN(context, next - 1)); // as much context as there is
                }
                assert_int_equal(next, n + 1);
            }
}

static void test_words(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        i64 words;
    } cases[] = {{"", 1},
                 {"a", 1},
                 {"a b", 2},
                 {" a  b\n", 4},
                 {"\t\n ", 2},
                 {"a\xC2\xA0z", 2},
                 {"a\xE3\x80\x80", 2},
                 {"a\x80z", 1},
                 {"\xE2\x80", 1},
                 {"\xC3\xA9\x1Cz", 2}};
    for (i64 i = 0; i < COUNT(cases); i++)
        assert_int_equal(count_words(cases[i].text, strlen(cases[i].text)), cases[i].words);
}

/* ---- layouts */

typedef struct expected {
    const char *task, *record, *context, *choice[5];
    int gold;
} expected;

static const expected layouts[] = {
    {"hellaswag",
     "{\"activity_label\":\"Removing ice\",\"ctx_a\":\"A man [substeps] sits.\",\"ctx_b\":\"then HE\","
     "\"endings\":[\" gets up. \",\"is [header] cold  now\",\"x [title] y\",\"d\"],\"label\":\"2\"}",
     "Removing ice: A man sits. Then he",
     {" gets up.", " is cold now", " x. y", " d"},
     2},
    {"hellaswag",
     "{\"activity_label\":\"Tea\",\"ctx_a\":\"Boil [title] pour\",\"ctx_b\":\"\xC3\x89T\xC3\x89 is\","
     "\"endings\":[\"a\",\"b\",\"[open\",\"d\"],\"label\":0}",
     "Tea: Boil. pour \xC3\x89t\xC3\xA9 is",
     {" a", " b", " [open", " d"},
     0},
    {"arc",
     "{\"id\":\"1\",\"question\":{\"stem\":\"Why?\",\"choices\":[{\"text\":\"so\",\"label\":\"A\"},"
     "{\"text\":\"no\",\"label\":\"B\"},{\"text\":\"\xC3\xA9\",\"label\":\"C\"}]},\"answerKey\":\"C\"}",
     "Question: Why?\nAnswer:",
     {" so", " no", " \xC3\xA9"},
     2},
    {"arc",
     "{\"question\":{\"stem\":\"N\",\"choices\":[{\"text\":\"p\",\"label\":\"1\"},{\"text\":\"q\",\"label\":"
     "\"2\"}]},\"answerKey\":\"1\"}",
     "Question: N\nAnswer:",
     {" p", " q"},
     0},
    {"openbookqa",
     "{\"question\":{\"stem\":\"The sun\",\"choices\":[{\"text\":\"p\",\"label\":\"A\"},{\"text\":\"q\","
     "\"label\":\"B\"}]},\"answerKey\":\"B\"}",
     "The sun",
     {" p", " q"},
     1},
    {"openbookqa",
     "{\"question\":{\"stem\":\"A\",\"choices\":[{\"text\":\"b\",\"label\":\"A\"},{\"text\":\"c\","
     "\"label\":\"D\"}]},\"answerKey\":\"A\"}",
     "A",
     {" b", " c"},
     0},
    {"piqa",
     "{\"goal\":\"Open\",\"sol1\":\"pull\",\"sol2\":\"push\",\"label\":1}",
     "Question: Open\nAnswer:",
     {" pull", " push"},
     1},
    {"piqa",
     "{\"goal\":\"Shut\",\"sol1\":\"a\",\"sol2\":\"b\"}",
     "Question: Shut\nAnswer:",
     {" a", " b"},
     -1},
    {"sciq",
     "{\"support\":\" Rocks.\",\"question\":\"Q?\",\"correct_answer\":\"c\",\"distractor1\":\"x\","
     "\"distractor2\":\"y\",\"distractor3\":\"z\"}",
     "Rocks.\nQuestion: Q?\nAnswer:",
     {" x", " y", " z", " c"},
     3},
    {"sciq",
     "{\"support\":\"\",\"question\":\"Q\",\"correct_answer\":\"c d\",\"distractor1\":\"1\","
     "\"distractor2\":\"2\",\"distractor3\":\"3\"}",
     "\nQuestion: Q\nAnswer:",
     {" 1", " 2", " 3", " c d"},
     3},
    {"boolq",
     "{\"passage\":\"P.\",\"question\":\"is it\",\"answer\":true}",
     "P.\nQuestion: is it?\nAnswer:",
     {" no", " yes"},
     1},
    {"boolq",
     "{\"passage\":\"\",\"question\":\"q\",\"answer\":false}",
     "\nQuestion: q?\nAnswer:",
     {" no", " yes"},
     0},
    {"winogrande",
     "{\"sentence\":\"The _ is wet.\",\"option1\":\"cat\",\"option2\":\"cat\",\"answer\":\"2\"}",
     "The cat",
     {" is wet.", " is wet."},
     1},
    {"winogrande",
     "{\"sentence\":\"_ ran, _ fell\",\"option1\":\"X\",\"option2\":\"X\",\"answer\":1}",
     "X",
     {" ran, _ fell", " ran, _ fell"},
     0},
    {"blimp",
     "{\"sentence_good\":\"He is.\",\"sentence_bad\":\"He are.\",\"UID\":\"u\"}",
     "",
     {"He are.", "He is."},
     1},
    {"blimp", "{\"sentence_good\":\"g\",\"sentence_bad\":\"b\"}", "", {"b", "g"}, 1},
    {"lambada", "{\"text\":\"He saw the dog\\n\"}", "He saw the", {" dog"}, 0},
    {"lambada", "{\"text\":\"a  b\"}", "a ", {" b"}, 0},
};

static void test_layouts(void **state)
{
    (void)state;
    for (i64 i = 0; i < COUNT(layouts); i++) {
        const expected *x = &layouts[i];
        example_list list;
        assert_ok(examples_parse(task_find(x->task), x->record, strlen(x->record), "f", 0, &list));
        assert_int_equal(list.count, 1);
        const example *e = &list.example[0];
        assert_int_equal(e->gold, x->gold);
        for (int k = 0; k < e->choices; k++) {
            assert_string_equal(e->choice[k].context, x->context);
            assert_string_equal(e->choice[k].continuation, x->choice[k]);
            i64 delimiter = x->choice[k][0] == ' ';
            assert_int_equal(e->choice[k].bytes, (i64)strlen(x->choice[k]) - delimiter);
        }
        assert_null(x->choice[e->choices]);
        examples_free(&list);
    }
    example_list list; // a letter of two bytes is one character
    assert_ok(examples_parse(task_find("arc"), layouts[2].record, strlen(layouts[2].record), "f", 0, &list));
    assert_int_equal(list.example[0].choice[2].chars, 1);
    assert_int_equal(list.example[0].choice[2].bytes, 2);
    examples_free(&list);
}

static void test_winogrande_contexts(void **state)
{
    (void)state;
    static const char line[] =
        "{\"sentence\":\"A _ b\",\"option1\":\"x\",\"option2\":\"y\",\"answer\":\"1\"}";
    example_list list;
    assert_ok(examples_parse(task_find("winogrande"), line, sizeof line - 1, "f", 0, &list));
    assert_string_equal(list.example[0].choice[0].context, "A x");
    assert_string_equal(list.example[0].choice[1].context, "A y");
    examples_free(&list);
}

static void test_bad_records(void **state)
{
    (void)state;
    static const struct {
        const char *task, *text, *message;
    } bad[] = {
        {"piqa", "", "f: holds no records; a line is {goal, sol1, sol2} and label, or --labels"},
        {"piqa", "\n\n[1]", "f:3: a list, not an object {goal, sol1, sol2} and label, or --labels"},
        {"piqa", "{\"goal\":\"g\",\"sol1\":\"a\"}", "f:1: the record has no field 'sol2'"},
        {"piqa", "{\"goal\":3,\"sol1\":\"a\"}", "f:1: the field 'goal' is a number; it must be a string"},
        {"piqa", "{\"goal\":\"g\",\"sol1\":\"\",\"sol2\":\"b\"}",
         "f:1: the field 'sol1' holds an empty choice"},
        {"piqa", "{\"goal\":\"g\",\"sol1\":\"a\",\"sol2\":\"b\",\"label\":2}",
         "f:1: the field 'label' is 2; it must be from 0 to 1"},
        {"piqa", "{\"goal\":\"g\",\"sol1\":\"a\",\"sol2\":\"b\",\"label\":null}",
         "f:1: the field 'label' is null; it must be a whole number from 0 to 1"},
        {"piqa", "{\"goal\":\"g\",\"goal\":\"h\"}",
         "f:1: column 18: no JSON: duplicate object key near '\"goal\"'"},
        {"piqa", "{\"goal\":\"\xFF\"}", "f:1: invalid UTF-8 at byte 10 of the line (0xFF)"},
        {"hellaswag",
         "{\"activity_label\":\"a\",\"ctx_a\":\"b\",\"ctx_b\":\"c\",\"endings\":[\"1\",\"2\",\"3\"],"
         "\"label\":0}",
         "f:1: the field 'endings' must be a list of four strings"},
        {"hellaswag",
         "{\"activity_label\":\"a\",\"ctx_a\":\"b\",\"ctx_b\":\"c\",\"endings\":[\"1\",2,\"3\",\"4\"],"
         "\"label\":0}",
         "f:1: the field 'endings' holds a number; it must be a list of four strings"},
        {"hellaswag",
         "{\"activity_label\":\"a\",\"ctx_a\":\"b\",\"ctx_b\":\"c\",\"endings\":[\"1\",\"2\",\"3\",\"4\"],"
         "\"label\":\"x\"}",
         "f:1: the field 'label' is another string; it must be a whole number from 0 to 3"},
        {"arc", "{\"question\":\"why\"}", "f:1: the field 'question' is a string; it must be an object"},
        {"arc", "{\"question\":{\"stem\":\"s\",\"choices\":[]},\"answerKey\":\"A\"}",
         "f:1: the field 'choices' must be a list of at least two {text, label}"},
        {"arc",
         "{\"question\":{\"stem\":\"s\",\"choices\":[{\"text\":\"p\",\"label\":\"A\"},{\"text\":\"q\","
         "\"label\":\"B\"}]},\"answerKey\":\"E\"}",
         "f:1: the field 'answerKey' is 'E', which is no choice's label"},
        {"boolq", "{\"passage\":\"p\",\"question\":\"q\",\"answer\":\"yes\"}",
         "f:1: the field 'answer' is a string; it must be true or false"},
        {"winogrande", "{\"sentence\":\"no gap\",\"option1\":\"a\",\"option2\":\"b\",\"answer\":\"1\"}",
         "f:1: the field 'sentence' has no '_' where the options go"},
        {"winogrande", "{\"sentence\":\"ends _ \",\"option1\":\"a\",\"option2\":\"b\",\"answer\":\"1\"}",
         "f:1: the field 'sentence' ends with '_': nothing is left to score"},
        {"lambada", "{\"text\":\"word\"}", "f:1: the field 'text' has no last word behind a blank"},
        {"lambada", "{\"text\":\"a b\"}\n{\"text\":1}",
         "f:2: the field 'text' is a number; it must be a string"},
    };
    for (i64 i = 0; i < COUNT(bad); i++) {
        example_list list;
        assert_fails(examples_parse(task_find(bad[i].task), bad[i].text, strlen(bad[i].text), "f", 0, &list),
                     ERR_INPUT, bad[i].message);
        assert_null(list.arena);
    }
    example_list list; // what is beyond the limit is not looked at
    assert_ok(examples_parse(task_find("lambada"), "{\"text\":\"a b\"}\n\n{", 18, "f", 1, &list));
    assert_int_equal(list.count, 1);
    examples_free(&list);
}

/* ---- statistics */

static void test_estimates(void **state)
{
    (void)state;
    estimate e = estimate_of((double[]){1, 0, 1, 1}, 4);
    assert_true(e.mean == 0.75 && fabs(e.error - 0.25) < 1e-15);
    e = estimate_of((double[]){1}, 1);
    assert_true(e.mean == 1 && isnan(e.error));
    double x[100] = {0};
    for (int i = 0; i < 29; i++) x[i] = 1;
    assert_true(fabs(estimate_of(x, 100).error - sqrt(0.29 * 0.71 / 99)) < 1e-12);
}

/* Values of Wilson's interval as R's prop.test(x, n, correct = FALSE) gives them. */
static void test_wilson(void **state)
{
    (void)state;
    const struct {
        i64 hits, n;
        double low, high;
    } rows[] = {{29, 100, 0.210148, 0.385389},
                {1, 2, 0.094531, 0.905469},
                {0, 10, 0, 0.277533},
                {10, 10, 0.722467, 1},
                {1, 1, 0.206549, 1}};
    for (i64 i = 0; i < COUNT(rows); i++) {
        interval x = wilson(rows[i].hits, rows[i].n);
        if (fabs(x.low - rows[i].low) > 1e-6 || fabs(x.high - rows[i].high) > 1e-6)
            fail_msg("%lld of %lld: %.7f to %.7f", (long long)rows[i].hits, (long long)rows[i].n, x.low,
                     x.high);
    }
}

/* Of a mean, whose error is known; of equal ratios; of neighbours that are alike. */
static void test_bootstrap(void **state)
{
    (void)state;
    enum { N = 5000 };
    static double x[N], w[N];
    for (i64 i = 0; i < 400; i++) x[i] = random_normal(1, 2, 3, (u64)i), w[i] = 1;
    ratio r = bootstrap_ratio(x, w, 400);
    estimate e = estimate_of(x, 400);
    assert_true(fabs(r.value - e.mean) < 1e-12);
    assert_true(fabs(r.error / e.error - 1) < 0.1); // 1000 resamples know a deviation to 2 %
    assert_true(r.range.low < r.value - e.error && r.range.high > r.value + e.error);
    ratio again = bootstrap_ratio(x, w, 400);
    assert_memory_equal(&r, &again, sizeof r);
    for (i64 i = 0; i < N; i++) w[i] = 1 + (double)(i % 7), x[i] = 3 * w[i];
    r = bootstrap_ratio(x, w, N);
    assert_true(fabs(r.value - 3) < 1e-12 && r.error < 1e-12 && fabs(r.range.low - 3) < 1e-12);
    for (i64 i = 0; i < N; i++) w[i] = 1, x[i] = random_normal(1, 2, 3, (u64)(i / 10)); // tenfold copies
    r = bootstrap_ratio(x, w, N);
    assert_true(r.error >
                2 * estimate_of(x, N).error); // of 500 independent values: 3.2 times; by blocks of 5
    r = bootstrap_ratio(x, w, 1);
    assert_true(r.value == x[0] && isnan(r.error) && isnan(r.range.low));
}

/* ---- scores */

static device *cpu;
static tokenizer *words; // 0 = end of text, 1 ... 256 bytes, then merges
enum { CONTEXT = 80 };

static int open_all(void **state)
{
    (void)state;
    assert_ok(device_open(&(device_options){0}, &cpu));
    words = train_on("the cat sat on the mat and the cat ran to the other cat. Question: what? Answer: the",
                     1, 290);
    return 0;
}
static int close_all(void **state)
{
    (void)state;
    device_close(cpu);
    tokenizer_close(words);
    return 0;
}

static const char *const settings[] = {"model.vocab=290", "model.context=80", "train.precision=f32"};

static scorer *open_scorer(const config *c, bool greedy)
{
    scorer *s;
    assert_ok(scorer_open(
        c, &(scorer_options){.device = cpu, .isa = device_about(cpu)->level, .greedy = greedy}, &s));
    runner_weights(scorer_store(s));
    return s;
}

/* In double, without padding, from the logits. */
static score naive(model_case m, const score_request *r)
{
    runner run;
    case_rows x = {.rows = 1, .tokens = r->count - 1, .n_valid = r->count - 1};
    score out = {.greedy = true};
    for (i64 i = 0; i + 1 < r->count; i++) {
        x.token[i] = r->ids[i], x.target[i] = r->ids[i + 1];
        x.position[i] = (i32)i;
    }
    runner_options o = {.shape = case_shape(&x, MODE_EVALUATE, DT_F32), .oracle = true};
    runner_open(&run, m, settings, COUNT(settings), &o);
    runner_rows(&run, &x);
    assert_ok(oracle_run(run.o, &(step_info){0}, false));
    const double *logits = oracle_data(run.o, run.m.logits);
    for (i64 i = r->count - 1 - r->targets; i < r->count - 1; i++) {
        const double *row = logits + i * 290;
        double sum = 0;
        i64 best = 0;
        for (i64 j = 0; j < 290; j++) sum += exp(row[j]), best = row[j] > row[best] ? j : best;
        out.nats += log(sum) - row[r->ids[i + 1]];
        out.greedy &= best == r->ids[i + 1];
    }
    runner_close(&run);
    return out;
}

enum { REQUESTS = 23 };
static i32 pool[REQUESTS][CONTEXT + 1];

static void make_requests(score_request *r)
{
    for (i64 i = 0; i < REQUESTS; i++) {
        i64 n = i == 0 ? CONTEXT + 1 : i == 1 ? 2 : 2 + (i64)draw(3, (u64)i, CONTEXT);
        for (i64 k = 0; k < n; k++) pool[i][k] = (i32)draw(4, (u64)(i * 100 + k), 290);
        r[i] = (score_request){pool[i], n, 1 + (i64)draw(5, (u64)i, (u64)(n - 1))};
    }
}

static void test_naive(void **state)
{
    (void)state;
    static const model_case cases[] = {gpt2_like, llama_like,         olmo2_like,
                                       moe_like,  over_encoding_like, cswa_like};
    score_request r[REQUESTS];
    score got[REQUESTS];
    make_requests(r);
    for (i64 k = 0; k < COUNT(cases); k++) {
        config *c = case_config(cases[k], settings, COUNT(settings));
        scorer *s = open_scorer(c, true);
        i32 said[] = {5, 0}; // what the model itself says next is greedy
        assert_ok(scorer_run(s, r, 5, got));
        for (i64 i = 0; i < 5; i++) {
            score want = naive(cases[k], &r[i]);
            assert_true(fabs(got[i].nats - want.nats) < 2e-5 * want.nats + 1e-5);
            assert_int_equal(got[i].greedy, want.greedy);
        }
        i64 hits = 0;
        for (i32 id = 0; id < 290; id++) {
            said[1] = id;
            assert_ok(scorer_run(s, &(score_request){said, 2, 1}, 1, got));
            hits += got[0].greedy;
            if (got[0].greedy) assert_true(naive(cases[k], &(score_request){said, 2, 1}).greedy);
        }
        assert_int_equal(hits, 1);
        scorer_close(s);
        config_close(c);
    }
}

/* The bits of a score: alone, all together, in sevens from the end. */
static void test_batches(void **state)
{
    (void)state;
    static const model_case cases[] = {gpt2_like, llama_like, moe_like, ultramem_like};
    static const char *const bf16[] = {"model.vocab=290", "model.context=80", "train.precision=bf16"};
    score_request r[REQUESTS], back[REQUESTS];
    score all[REQUESTS], one, seven[7];
    make_requests(r);
    for (i64 i = 0; i < REQUESTS; i++) back[i] = r[REQUESTS - 1 - i];
    for (i64 k = 0; k < 2 * COUNT(cases); k++) {
        config *c = case_config(cases[k / 2], k % 2 ? bf16 : settings, COUNT(settings));
        scorer *s = open_scorer(c, false);
        assert_ok(scorer_run(s, r, REQUESTS, all));
        for (i64 i = 0; i < REQUESTS; i++) {
            assert_ok(scorer_run(s, &r[i], 1, &one));
            assert_memory_equal(&one.nats, &all[i].nats, sizeof one.nats);
        }
        for (i64 i = 0; i < REQUESTS; i += 7) {
            i64 n = MIN(7, REQUESTS - i);
            assert_ok(scorer_run(s, back + i, n, seven));
            for (i64 j = 0; j < n; j++)
                assert_memory_equal(&seven[j].nats, &all[REQUESTS - 1 - i - j].nats, sizeof one.nats);
        }
        scorer_close(s);
        config_close(c);
    }
}

static void test_score_refusals(void **state)
{
    (void)state;
    config *c = case_config(llama_like, settings, COUNT(settings));
    scorer *s = open_scorer(c, false);
    score x;
    i32 ids[CONTEXT + 2] = {0};
    assert_fails(scorer_run(s, &(score_request){ids, 3, 0}, 1, &x), ERR_INPUT,
                 "0 of 3 tokens to score; at least one, and one before them");
    assert_fails(scorer_run(s, &(score_request){ids, 3, 3}, 1, &x), ERR_INPUT,
                 "3 of 3 tokens to score; at least one, and one before them");
    assert_fails(scorer_run(s, &(score_request){ids, CONTEXT + 2, 1}, 1, &x), ERR_INPUT,
                 "81 tokens do not fit into the model's context of 80");
    ids[1] = 290;
    assert_fails(scorer_run(s, &(score_request){ids, 3, 1}, 1, &x), ERR_INPUT,
                 "token 290 is beyond the model's vocabulary of 290");
    assert_ok(scorer_run(s, NULL, 0, NULL));
    scorer_close(s);
    config_close(c);
}

/* ---- encodings and accuracies */

static void check_encoding(const char *context, const char *continuation, const char *before,
                           const char *whole)
{
    token_list got = {0}, want = {0}, head = {0};
    i64 targets;
    assert_ok(choice_encode(words, &(choice){context, continuation, 1, 1}, &got, &targets));
    assert_ok(tokenizer_encode(words, whole, strlen(whole), SPECIAL_PLAIN, &want));
    assert_ok(tokenizer_encode(words, before, strlen(before), SPECIAL_PLAIN, &head));
    i64 extra = !*before; // the end of text in front
    assert_int_equal(got.count, want.count + extra);
    assert_memory_equal(got.id + extra, want.id, (size_t)want.count * sizeof(i32));
    if (extra) assert_int_equal(got.id[0], 0);
    assert_int_equal(targets, want.count - head.count);
    token_list_free(&got);
    token_list_free(&want);
    token_list_free(&head);
}

static void test_encoding(void **state)
{
    (void)state;
    check_encoding("the cat", " sat", "the cat", "the cat sat");
    check_encoding("the cat  ", " sat", "the cat", "the cat   sat"); // trailing blanks go over
    check_encoding("", "the cat", "", "the cat");
    check_encoding(" \n", " the", "", " \n the");
}

static const char records[] =
    "{\"goal\":\"the cat\",\"sol1\":\"sat on the mat\",\"sol2\":\"ran\",\"label\":0}\n"
    "{\"goal\":\"what?\",\"sol1\":\"the other cat\",\"sol2\":\"zq \xC3\xA9\xC3\xA9\xC3\xA9\",\"label\":1}\n"
    "{\"goal\":\"a\",\"sol1\":\"b\",\"sol2\":\"c\",\"label\":1}\n"
    "{\"goal\":\"the mat\",\"sol1\":\"same\",\"sol2\":\"same\",\"label\":1}\n" // a tie: the first wins
    "{\"goal\":\"the mat and the cat and the mat and the cat, 0123456789 0123456789 0123456789 0123456789 "
    "9876543210 9876543210\","
    "\"sol1\":\"x\",\"sol2\":\"the\",\"label\":0}\n";

static void test_accuracy(void **state)
{
    (void)state;
    example_list list;
    config *c = case_config(llama_like, settings, COUNT(settings));
    scorer *s = open_scorer(c, false);
    const task *t = task_find("piqa");
    double acc[5], norm[5], bytes[5];
    choice_result one, seven;
    assert_ok(examples_parse(t, records, sizeof records - 1, "f", 0, &list));
    for (i64 i = 0; i < list.count; i++) {
        double ll[2];
        const example *e = &list.example[i];
        for (int k = 0; k < 2; k++) {
            token_list ids = {0};
            score_request r;
            assert_ok(choice_encode(words, &e->choice[k], &ids, &r.targets));
            i64 cut = MAX(ids.count - (CONTEXT + 1), 0);
            assert_int_equal(cut > 0, i == 4);
            r.ids = ids.id + cut, r.count = ids.count - cut;
            ll[k] = -naive(llama_like, &r).nats;
            token_list_free(&ids);
        }
        const choice *x = e->choice;
        acc[i] = (i != 3 && ll[1] > ll[0]) == e->gold;
        norm[i] = (i != 3 && ll[1] / (double)x[1].chars > ll[0] / (double)x[0].chars) == e->gold;
        bytes[i] = (i != 3 && ll[1] / (double)x[1].bytes > ll[0] / (double)x[0].bytes) == e->gold;
    }
    assert_true(acc[3] == 0);
    assert_ok(choice_evaluate(s, words, t, &list, &(choice_options){.batch = 1}, &one));
    assert_ok(choice_evaluate(s, words, t, &list, &(choice_options){.batch = 7}, &seven));
    assert_memory_equal(&one, &seven, sizeof one);
    assert_int_equal(one.examples, 5);
    assert_int_equal(one.requests, 10);
    assert_int_equal(one.truncated, 2);
    const double *all[] = {acc, norm, bytes};
    const estimate *got[] = {&one.acc, &one.acc_norm, &one.acc_bytes};
    for (int k = 0; k < 3; k++) {
        estimate want = estimate_of(all[k], 5);
        assert_true(got[k]->mean == want.mean && got[k]->error == want.error);
    }
    examples_free(&list);
    scorer_close(s);
    config_close(c);
}

/* A choice that leaves no room for a token before it names its record. */
static void test_long_choice(void **state)
{
    (void)state;
    char line[400], digits[201] = "";
    choice_result r;
    example_list list;
    config *c = case_config(llama_like, settings, COUNT(settings));
    scorer *s = open_scorer(c, true);
    for (int i = 0; i < 200; i++) digits[i] = "zq"[i % 2];
    snprintf(line, sizeof line, "{\"text\":\"a b\"}\n{\"text\":\"a %s\"}", digits);
    assert_ok(examples_parse(task_find("lambada"), line, strlen(line), "f", 0, &list));
    assert_fails(choice_evaluate(s, words, task_find("lambada"), &list, &(choice_options){.batch = 2}, &r),
                 ERR_INPUT,
                 "record 2: a choice of 201 tokens; the model's context has room for 80 behind one");
    list.count = 1;
    assert_ok(choice_evaluate(s, words, task_find("lambada"), &list, &(choice_options){.batch = 2}, &r));
    assert_true(r.perplexity.mean > 1 && isnan(r.perplexity.error) && isnan(r.acc.error));
    examples_free(&list);
    scorer_close(s);
    config_close(c);
}

/* ---- texts */

static void test_text(void **state)
{
    (void)state;
    static const char text[] = "the cat sat on the mat and the other cat ran. zq zq 0123456789 zq zq "
                               "what? the cat, the mat; 9876543210 qz qz qz the end of the story of cats";
    config *c = case_config(llama_like, settings, COUNT(settings));
    scorer *s = open_scorer(c, false);
    token_list ids = {.capacity = 0};
    text_loss one, seven, whole;
    score want;
    for (i64 stride = 1; stride <= 16; stride += 5) {
        window_rule rule = {16, stride};
        assert_ok(text_evaluate(s, words, text, sizeof text - 1, &rule, 1, &one));
        assert_ok(text_evaluate(s, words, text, sizeof text - 1, &rule, 7, &seven));
        assert_true(fabs(one.nats - seven.nats) == 0);
        assert_true(one.windows == 1 + (one.tokens - 16 + stride - 1) / stride);
    }
    assert_int_equal(one.words, 32);
    assert_int_equal(one.bytes, sizeof text - 1);
    assert_ok(text_evaluate(s, words, text, 40, &(window_rule){CONTEXT, 1}, 7, &whole)); // one pass
    i32 row[CONTEXT + 1] = {0};
    assert_ok(tokenizer_encode(words, text, 40, SPECIAL_PLAIN, &ids));
    memcpy(row + 1, ids.id, (size_t)ids.count * sizeof(i32));
    assert_ok(scorer_run(s, &(score_request){row, ids.count + 1, ids.count}, 1, &want));
    assert_true(whole.nats == want.nats && whole.windows == 1 && whole.tokens == ids.count);
    assert_fails(text_evaluate(s, words, "", 0, &(window_rule){8, 8}, 1, &one), ERR_INPUT,
                 "the text is empty");
    assert_fails(text_evaluate(s, words, "a", 1, &(window_rule){81, 8}, 1, &one), ERR_INPUT,
                 "windows of 81 tokens; from 1 to the model's context of 80");
    assert_fails(text_evaluate(s, words, "a", 1, &(window_rule){8, 9}, 1, &one), ERR_INPUT,
                 "a stride of 9 tokens; from 1 to the window's 8");
    token_list_free(&ids);
    scorer_close(s);
    config_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_windows),     cmocka_unit_test(test_windows_score_once),
        cmocka_unit_test(test_words),       cmocka_unit_test(test_layouts),
        cmocka_unit_test(test_bad_records), cmocka_unit_test(test_winogrande_contexts),
        cmocka_unit_test(test_estimates),   cmocka_unit_test(test_wilson),
        cmocka_unit_test(test_bootstrap),   cmocka_unit_test(test_naive),
        cmocka_unit_test(test_batches),     cmocka_unit_test(test_score_refusals),
        cmocka_unit_test(test_encoding),    cmocka_unit_test(test_accuracy),
        cmocka_unit_test(test_long_choice), cmocka_unit_test(test_text),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}

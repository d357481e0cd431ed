/* The library through its public header alone, linked against libkeel.so: a run equals the command's to the
 * bit, steps and saving, two handles in two threads, and what every wrong call answers. */
#include <keel/keel.h>

#include <locale.h>
#include <math.h>
#include <omp.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define assert_done(m, call)                                                                                 \
    do {                                                                                                     \
        keel_status got_ = (call);                                                                           \
        if (got_) fail_msg("%s: %s: %s", #call, keel_status_name(got_), keel_message(m));                    \
    } while (0)
#define assert_refused(m, call, code, message)                                                               \
    do {                                                                                                     \
        assert_int_equal((call), code);                                                                      \
        assert_string_equal(keel_message(m), message);                                                       \
        assert_int_equal(keel_last_status(m), code);                                                         \
    } while (0)

static char folder[64], self[512];

/* NAME in the test's folder; the last eight stay valid. */
static const char *in(const char *name)
{
    static char path[8][256];
    static int i;
    i = (i + 1) % 8;
    snprintf(path[i], sizeof path[i], "%s/%s", folder, name);
    return path[i];
}

static void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static char *read_file(const char *path, size_t *bytes)
{
    FILE *f = fopen(path, "rb");
    if (!f) fail_msg("%s is not there", path);
    fseek(f, 0, SEEK_END);
    *bytes = (size_t)ftell(f);
    rewind(f);
    char *data = calloc(*bytes + 1, 1);
    assert_int_equal(fread(data, 1, *bytes, f), *bytes);
    fclose(f);
    return data;
}

static void same_files(const char *a, const char *b)
{
    size_t n, k;
    char *x = read_file(a, &n), *y = read_file(b, &k);
    assert_int_equal(n, k);
    assert_memory_equal(x, y, n);
    free(x);
    free(y);
}

/* What the binary prints; it must succeed. */
static char *command(const char *arguments)
{
    char line[2048];
    static char out[65536];
    snprintf(line, sizeof line, "'%s' %s 2>'%s'", KEEL_BINARY, arguments, in("stderr"));
    FILE *f = popen(line, "r");
    assert_non_null(f);
    size_t n = fread(out, 1, sizeof out - 1, f);
    out[n] = 0;
    if (pclose(f)) {
        fail_msg("%s failed: %s", line, read_file(in("stderr"), &n));
    }
    return out;
}

static const char shape[] = "model: {layers: 1, width: 32, context: 32, attention: {heads: 2}}\n";
static char run_yaml[1024]; // shape, data and length of the run that most tests share
enum { STEPS = 12 };

static keel_model *configured(const char *yaml, const char *setting)
{
    keel_model *m = keel_new(NULL);
    assert_non_null(m);
    assert_done(m, keel_configure(m, yaml, strlen(yaml), &setting, setting ? 1 : 0));
    return m;
}
static keel_model *opened(const char *path)
{
    keel_model *m = keel_new(NULL);
    assert_done(m, keel_open(m, path));
    return m;
}

/* ---- version, names */

static void the_version_is_one(void **state)
{
    (void)state;
    char text[32], line[64];
    snprintf(text, sizeof text, "%d.%d.%d", KEEL_VERSION_MAJOR, KEEL_VERSION_MINOR, KEEL_VERSION_PATCH);
    assert_string_equal(KEEL_VERSION, text);
    assert_string_equal(keel_version(), text);
    assert_int_equal(keel_version_number(), KEEL_VERSION_NUMBER);
    snprintf(line, sizeof line, "keel %s+", text);
    assert_int_equal(strncmp(command("--version"), line, strlen(line)), 0);
    assert_string_equal(keel_status_name(KEEL_OK), "ok");
    assert_string_equal(keel_status_name(KEEL_ERROR_CHECK), "check");
    assert_string_equal(keel_status_name((keel_status)77), "unknown");
}

/* ---- a run */

typedef struct witness {
    int64_t steps, tokens, stop_at;
    int lines, timing;
    double first, last;
} witness;

static int see(void *context, const keel_progress *p)
{
    witness *w = context;
    if (p->timing) return w->timing++, 0;
    assert_int_equal(p->step, ++w->steps);
    assert_true(p->tokens > w->tokens);
    assert_true(isfinite(p->loss) && isfinite(p->gradient_norm) && p->lr > 0);
    w->tokens = p->tokens;
    w->last = p->loss;
    if (p->step == 1) w->first = p->loss;
    return p->step == w->stop_at;
}
static int hear(void *context, const char *line)
{
    assert_null(strchr(line, '\n'));
    ((witness *)context)->lines++;
    return 0;
}

static void a_run_is_the_commands_to_the_bit(void **state)
{
    (void)state;
    char line[512];
    witness w = {0};
    keel_train_result r;
    snprintf(line, sizeof line, "train %s --out %s", in("run.yaml"), in("by_command"));
    command(line);
    keel_model *m = configured(run_yaml, NULL);
    keel_train_options o = {.folder = in("by_library"), .step = see, .line = hear, .context = &w};
    assert_done(m, keel_train(m, &o, &r));
    assert_int_equal(w.steps, STEPS);
    assert_int_equal(r.step, STEPS);
    assert_int_equal(r.tokens, STEPS * 128);
    assert_int_equal(w.tokens, r.tokens);
    assert_true(w.last < w.first && w.lines > 3);
    assert_true(isfinite(r.loss) && r.bits_per_byte > 0 && r.seconds > 0);
    assert_string_equal(keel_message(m), "");
    same_files(in("by_command/step_12/model.safetensors"), in("by_library/step_12/model.safetensors"));
    same_files(in("by_command/step_12/optimizer.safetensors"),
               in("by_library/step_12/optimizer.safetensors"));
    same_files(in("by_command/step_12/config.yaml"), in("by_library/step_12/config.yaml"));
    keel_facts f; // the handle is the trained model now
    assert_done(m, keel_about(m, &f));
    assert_int_equal(f.step, STEPS);
    assert_true(f.vocab > 257 && f.vocab <= 300);
    assert_true(f.context == 32 && f.layers == 1 && f.width == 32 && f.threads >= 1);
    keel_free(m);
    assert_string_equal(command("runs list --json"), command("runs list --json"));
    assert_null(strstr(command("runs list"), "by_library")); // nobody asked for the registry
    assert_non_null(strstr(command("runs list"), "by_command"));
}

static void a_stopped_run_goes_on(void **state)
{
    (void)state;
    witness w = {.stop_at = 5}, rest = {.steps = 5, .tokens = 5 * 128};
    keel_train_result r;
    keel_model *m = configured(run_yaml, NULL);
    keel_train_options o = {.folder = in("stopped"), .step = see, .context = &w};
    assert_refused(m, keel_train(m, &o, &r), KEEL_STOPPED,
                   "stopped at step 5 of 12; the state is saved, go on with --resume");
    assert_int_equal(r.step, 5);
    keel_free(m);
    m = configured(run_yaml, NULL);
    o.context = &rest;
    assert_int_equal(keel_train(m, &o, &r), KEEL_ERROR_INPUT);
    assert_non_null(strstr(keel_message(m), "holds a run already"));
    o.resume = 1; // the same handle, after a failure
    assert_done(m, keel_train(m, &o, &r));
    assert_int_equal(rest.steps, STEPS);
    same_files(in("stopped/step_12/model.safetensors"), in("by_library/step_12/model.safetensors"));
    same_files(in("stopped/step_12/optimizer.safetensors"), in("by_library/step_12/optimizer.safetensors"));
    keel_free(m);
}

static int refuse(void *context, const char *line)
{
    (void)line;
    return ++*(int *)context; // stops at the first line, and says so again at every later one
}

/* Before there is anything to save: the handle is what it was, and trains when it is asked to. */
static void a_run_stopped_before_its_first_step(void **state)
{
    (void)state;
    int lines = 0;
    keel_train_result r;
    keel_model *m = configured(run_yaml, NULL);
    keel_train_options o = {.folder = in("unwanted"), .line = refuse, .context = &lines};
    assert_int_equal(keel_train(m, &o, &r), KEEL_STOPPED);
    assert_int_equal(r.step, 0);
    assert_true(lines > 0);
    o = (keel_train_options){.folder = in("wanted")};
    assert_done(m, keel_train(m, &o, &r));
    assert_int_equal(r.step, STEPS);
    keel_free(m);
}

/* ---- what the trained model says */

typedef struct collected {
    char text[4096];
    size_t bytes;
    int64_t tokens, stop_at;
    keel_model *meddle;
} collected;

static int collect(void *context, const keel_token *t)
{
    collected *c = context;
    assert_int_equal(t->index, c->tokens++);
    memcpy(c->text + c->bytes, t->text, t->bytes);
    c->text[c->bytes += t->bytes] = 0;
    keel_facts f;
    if (c->meddle) assert_int_equal(keel_about(c->meddle, &f), KEEL_ERROR_USAGE); // it is in a call
    return c->tokens == c->stop_at;
}

static void generating_is_the_commands(void **state)
{
    (void)state;
    char line[512];
    collected c = {0}, again = {0}, few = {.stop_at = 3};
    keel_generated r;
    keel_model *m = opened(in("by_library"));
    c.meddle = m;
    keel_generate_options o = {
        .max_tokens = 20, .temperature = 0.9, .top_p = 0.9, .seed = 7, .token = collect, .context = &c};
    assert_done(m, keel_generate(m, "the", 3, &o, &r));
    assert_true(r.tokens > 0 && r.tokens == c.tokens && r.prompt_tokens >= 1);
    snprintf(line, sizeof line, "generate %s -p the -n 20 -t 0.9 --top-p 0.9 -s 7", in("by_command"));
    strcat(c.text, "\n");
    assert_string_equal(command(line), c.text);
    o.context = &again;
    assert_done(m, keel_generate(m, "the", 3, &o, &r)); // nothing of the first call is left
    strcat(again.text, "\n");
    assert_string_equal(again.text, c.text);
    o.context = &few;
    assert_done(m, keel_generate(m, "the", 3, &o, &r));
    assert_true(r.tokens == 3 && r.finish == KEEL_FINISH_CALLBACK);
    o = (keel_generate_options){.max_tokens = 1000};
    assert_done(m, keel_generate(m, "a", 1, &o, &r));
    assert_true(r.finish == KEEL_FINISH_CONTEXT || r.finish == KEEL_FINISH_END);
    assert_done(m, keel_generate(m, "a", 1, NULL, NULL));
    keel_free(m);
}

static double number_behind(const char *json, const char *key)
{
    char quoted[64];
    snprintf(quoted, sizeof quoted, "\"%s\":", key);
    const char *at = strstr(json, quoted);
    assert_non_null(at);
    return strtod(at + strlen(quoted), NULL);
}

static void scores_are_the_commands(void **state)
{
    (void)state;
    char line[512];
    keel_score whole, text;
    keel_model *m = opened(in("by_library"));
    assert_done(m, keel_evaluate(m, NULL, 0, &whole));
    snprintf(line, sizeof line, "eval perplexity %s --json", in("by_command"));
    const char *json = command(line);
    assert_true(number_behind(json, "loss") == whole.loss);
    assert_true(number_behind(json, "bits_per_byte") == whole.bits_per_byte);
    assert_int_equal((int64_t)number_behind(json, "tokens"), whole.tokens);
    size_t bytes;
    char *words = read_file(in("words.txt"), &bytes);
    assert_done(m, keel_score_text(m, words, 700, NULL, &text));
    words[700] = 0;
    write_file(in("some.txt"), words);
    snprintf(line, sizeof line, "eval perplexity %s --text %s --json", in("by_command"), in("some.txt"));
    json = command(line);
    assert_true(number_behind(json, "loss") == text.loss);
    assert_true(number_behind(json, "bits_per_byte") == text.bits_per_byte);
    assert_int_equal(text.bytes, 700);
    assert_true(fabs(text.perplexity - exp(text.nats / (double)text.tokens)) < 1e-9);
    free(words);
    keel_free(m);
}

static void tokens_there_and_back(void **state)
{
    (void)state;
    static const char bytes[] = "the \0 end \xff\xfe of the <|endoftext|>";
    const size_t n = sizeof bytes - 1;
    int32_t *ids;
    size_t count, back_bytes;
    char *back;
    keel_facts f;
    keel_model *m = opened(in("by_library"));
    assert_done(m, keel_tokenize(m, bytes, n, &ids, &count));
    assert_done(m, keel_about(m, &f));
    assert_true(f.end >= 0);
    for (size_t i = 0; i < count; i++) assert_true(ids[i] != f.end); // text like any other
    assert_done(m, keel_detokenize(m, ids, count, &back, &back_bytes));
    assert_int_equal(back_bytes, n);
    assert_memory_equal(back, bytes, n + 1);
    keel_release(back);
    keel_release(ids);
    assert_done(m, keel_tokenize(m, NULL, 0, &ids, &count));
    assert_int_equal(count, 0);
    keel_release(ids);
    assert_done(m, keel_detokenize(m, NULL, 0, &back, &back_bytes));
    assert_string_equal(back, "");
    keel_release(back);
    assert_refused(m, keel_detokenize(m, (int32_t[]){5, 300}, 2, &back, &back_bytes), KEEL_ERROR_INPUT,
                   "token 2 of 2 is 300, which the tokenizer does not have");
    assert_refused(m, keel_detokenize(m, (int32_t[]){-1}, 1, &back, &back_bytes), KEEL_ERROR_INPUT,
                   "token 1 of 1 is -1, which the tokenizer does not have");
    keel_free(m);
}

/* ---- steps in memory */

enum { CONTEXT = 32, ROWS = 4, PLACES = ROWS * CONTEXT };
static const char bare_yaml[] =
    "model: {layers: 1, width: 32, context: 32, attention: {heads: 2}, vocab: 64}\n"
    "train: {batch_tokens: 128, steps: 20, precision: f32}\n";

/* Rows that repeat: i, i + 1, ... modulo 61. */
static keel_rows counting(int32_t tokens[PLACES], int32_t targets[PLACES], int from)
{
    for (int i = 0; i < PLACES; i++) {
        tokens[i] = (from + i) % 61;
        targets[i] = (from + i + 1) % 61;
    }
    return (keel_rows){.rows = ROWS, .tokens = tokens, .targets = targets};
}

static double counted(keel_model *m)
{
    int32_t tokens[CONTEXT + 1];
    double nats;
    for (int i = 0; i <= CONTEXT; i++) tokens[i] = (i + 7) % 61;
    assert_done(m, keel_score_tokens(m, tokens, CONTEXT + 1, CONTEXT, &nats));
    return nats;
}

static void steps_train_and_are_saved(void **state)
{
    (void)state;
    int32_t tokens[PLACES], targets[PLACES];
    keel_step_result r, other;
    keel_generated made;
    keel_generate_options o = {.max_tokens = 5};
    keel_model *m = configured(bare_yaml, NULL);
    double before = counted(m), last = 0;
    for (int k = 0; k < 10; k++) {
        keel_rows rows = counting(tokens, targets, k);
        assert_done(m, keel_step(m, &rows, &r));
        assert_int_equal(r.step, k + 1);
        if (k) assert_true(r.loss < last);
        last = r.loss;
    }
    double after = counted(m);
    assert_true(after < before); // the scorer has the session's weights, not its first ones
    assert_done(m, keel_generate_tokens(m, (int32_t[]){3, 4, 5}, 3, &o, &made));
    assert_true(made.tokens == 5 && made.prompt_tokens == 3 && made.finish == KEEL_FINISH_LENGTH);
    assert_done(m, keel_save(m, in("saved")));
    keel_model *n = opened(in("saved"));
    assert_true(counted(n) == after);
    for (int k = 10; k < 13; k++) { // what was saved goes on as what was not
        keel_rows rows = counting(tokens, targets, k);
        assert_done(m, keel_step(m, &rows, &r));
        assert_done(n, keel_step(n, &rows, &other));
        assert_true(r.step == other.step && r.lr == other.lr);
        assert_true(r.loss == other.loss && r.gradient_norm == other.gradient_norm);
    }
    assert_true(counted(n) == counted(m));
    assert_done(m, keel_save(m, in("saved")));
    keel_free(n);
    n = opened(in("saved")); // the newest
    assert_true(counted(n) == counted(m));
    keel_free(n);
    n = opened(in("saved/step_10"));
    assert_true(counted(n) == after);
    keel_free(n);
    keel_free(m);
}

static void rows_have_documents_and_rates(void **state)
{
    (void)state;
    int32_t tokens[PLACES], targets[PLACES], document[PLACES];
    keel_step_result whole, cut, none;
    keel_rows rows = counting(tokens, targets, 0);
    keel_model *m = configured(bare_yaml, NULL);
    assert_done(m, keel_step(m, &rows, &whole));
    keel_free(m);
    m = configured(bare_yaml, NULL);
    for (int i = 0; i < PLACES; i++) document[i] = i % CONTEXT / 8 * 8;
    rows.document = document;
    rows.lr = 0.01;
    assert_done(m, keel_step(m, &rows, &cut));
    assert_true(cut.lr == 0.01 && whole.lr != 0.01);
    assert_true(cut.loss != whole.loss); // attention saw less
    for (int i = 0; i < PLACES; i++) targets[i] = -1;
    assert_refused(m, keel_step(m, &rows, &none), KEEL_ERROR_INPUT, "no row has a target; -1 is no loss");
    keel_free(m);
}

/* ---- two handles, two threads */

typedef struct task {
    int from;
    double loss[6], nats, text_nats;
    char made[4096], failed[512];
} task;

static void *both(void *argument)
{
    task *t = argument;
    int32_t tokens[PLACES], targets[PLACES], ids[CONTEXT + 1];
    keel_machine machine = {.threads = 1 + t->from % 2};
    keel_model *m = keel_new(&machine), *run = keel_new(&machine);
    collected c = {0};
    keel_score score;
    keel_step_result r;
    keel_generate_options o = {
        .max_tokens = 12, .temperature = 1, .seed = 3, .token = collect, .context = &c};
    keel_status s = keel_configure(m, bare_yaml, strlen(bare_yaml), NULL, 0);
    for (int k = 0; k < 6 && !s; k++) {
        keel_rows rows = counting(tokens, targets, t->from + k);
        s = keel_step(m, &rows, &r);
        t->loss[k] = r.loss;
    }
    for (int i = 0; i <= CONTEXT; i++) ids[i] = (i + t->from) % 61;
    if (!s) s = keel_score_tokens(m, ids, CONTEXT + 1, CONTEXT, &t->nats);
    if (s) snprintf(t->failed, sizeof t->failed, "%s", keel_message(m));
    if (!s && (s = keel_open(run, in("by_library"))))
        snprintf(t->failed, sizeof t->failed, "%s", keel_message(run));
    if (!s) s = keel_score_text(run, "the one and the other", 21, NULL, &score);
    if (!s) s = keel_generate(run, "of", 2, &o, NULL);
    if (s && !*t->failed) snprintf(t->failed, sizeof t->failed, "%s", keel_message(run));
    t->text_nats = s ? 0 : score.nats;
    memcpy(t->made, c.text, c.bytes + 1);
    keel_free(m);
    keel_free(run);
    return NULL;
}

static void two_handles_in_two_threads(void **state)
{
    (void)state;
    task alone[2] = {{.from = 4}, {.from = 9}}, together[2] = {{.from = 4}, {.from = 9}};
    pthread_t thread[2];
    for (int i = 0; i < 2; i++) both(&alone[i]);
    for (int i = 0; i < 2; i++) assert_int_equal(pthread_create(&thread[i], NULL, both, &together[i]), 0);
    for (int i = 0; i < 2; i++) pthread_join(thread[i], NULL);
    for (int i = 0; i < 2; i++) {
        assert_string_equal(alone[i].failed, "");
        assert_string_equal(together[i].failed, "");
        assert_memory_equal(alone[i].loss, together[i].loss, sizeof alone[i].loss);
        assert_true(alone[i].nats == together[i].nats && alone[i].text_nats == together[i].text_nats);
        assert_string_equal(alone[i].made, together[i].made);
    }
}

/* A handle made by one thread and used by another computes with its own number of threads: the same bits. */
static void *step_elsewhere(void *argument)
{
    int32_t tokens[PLACES], targets[PLACES];
    keel_rows rows = counting(tokens, targets, 1);
    assert_done(argument, keel_step(argument, &rows, NULL));
    return NULL;
}

static void a_handle_goes_from_thread_to_thread(void **state)
{
    (void)state;
    pthread_t thread;
    keel_machine two = {.threads = 2};
    keel_model *here = keel_new(&two), *there = keel_new(&two);
    assert_done(here, keel_configure(here, bare_yaml, strlen(bare_yaml), NULL, 0));
    assert_done(there, keel_configure(there, bare_yaml, strlen(bare_yaml), NULL, 0));
    step_elsewhere(here);
    assert_int_equal(pthread_create(&thread, NULL, step_elsewhere, there), 0);
    pthread_join(thread, NULL);
    assert_true(counted(here) == counted(there));
    keel_free(here);
    keel_free(there);
}

static int threads_in_callback;
static int count_threads(void *context, const keel_token *t)
{
    (void)context, (void)t;
    threads_in_callback = omp_get_max_threads();
    return 1;
}

/* A call leaves the caller's number of threads, lets callbacks find it, and is refused where it cannot have
 * its own.
 */
static void the_callers_own_threads(void **state)
{
    (void)state;
    const int before = omp_get_max_threads();
    int32_t ids[3] = {1, 2, 3};
    keel_machine machine = {.threads = before + 2};
    keel_generate_options o = {.token = count_threads};
    keel_model *m = keel_new(&machine);
    keel_facts f;
    keel_status inside[2] = {KEEL_OK, KEEL_OK};
    assert_done(m, keel_configure(m, bare_yaml, strlen(bare_yaml), NULL, 0));
    assert_done(m, keel_generate_tokens(m, ids, 3, &o, NULL));
    assert_int_equal(omp_get_max_threads(), before);
    assert_int_equal(threads_in_callback, before);
    assert_done(m, keel_about(m, &f));
    assert_int_equal(f.threads, before + 2);
    keel_model *other = configured(bare_yaml, NULL);
#pragma omp parallel num_threads(2)
    {
        keel_facts own;
        int k = omp_get_thread_num();
        inside[k] = keel_about(k ? m : other, &own);
    }
    assert_int_equal(inside[0], KEEL_ERROR_USAGE);
    assert_int_equal(inside[1], KEEL_ERROR_USAGE);
    assert_string_equal(keel_message(m),
                        "a call inside an OpenMP parallel region; make it outside, or from a thread");
    keel_free(other);
    keel_free(m);
}

/* Two whole runs at once, into two folders. */
static void *train_elsewhere(void *argument)
{
    keel_train_options o = {.folder = argument};
    keel_model *m = keel_new(NULL);
    keel_status s = keel_configure(m, run_yaml, strlen(run_yaml), NULL, 0);
    if (!s) s = keel_train(m, &o, NULL);
    if (s) fprintf(stderr, "%s\n", keel_message(m));
    keel_free(m);
    return s ? argument : NULL;
}

static void two_runs_in_two_threads(void **state)
{
    (void)state;
    static const char *const names[] = {"left", "right"};
    pthread_t thread[2];
    char out[2][256], file[600];
    void *failed;
    for (int i = 0; i < 2; i++) {
        snprintf(out[i], sizeof out[i], "%s", in(names[i]));
        assert_int_equal(pthread_create(&thread[i], NULL, train_elsewhere, out[i]), 0);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(thread[i], &failed);
        assert_null(failed);
    }
    for (int i = 0; i < 2; i++) {
        snprintf(file, sizeof file, "%s/step_12/model.safetensors", out[i]);
        same_files(file, in("by_library/step_12/model.safetensors"));
    }
}

/* ---- a program that writes 0,5 */

static int comma(void *context, const keel_token *t)
{
    (void)t;
    snprintf(context, 8, "%.1f", 0.5);
    return 1;
}

static void another_language(void **state)
{
    (void)state;
    char line[512], number[8] = "";
    char *value;
    int32_t tokens[PLACES], targets[PLACES];
    keel_rows rows = counting(tokens, targets, 0);
    keel_generate_options o = {.token = comma, .context = number};
    snprintf(line, sizeof line, "localedef -i de_DE -f UTF-8 '%s/de_DE.UTF-8' >/dev/null 2>&1", folder);
    int made = system(line);
    setenv("LOCPATH", folder, 1);
    if (made || !setlocale(LC_ALL, "de_DE.UTF-8")) {
        unsetenv("LOCPATH");
        skip(); // no localedef, or no sources of locales (package locales)
    }
    keel_model *m = configured(bare_yaml, "train.optimizer.lr=0.0025");
    assert_done(m, keel_value(m, "train.optimizer.lr", &value));
    assert_string_equal(value, "0.0025");
    keel_release(value);
    assert_done(m, keel_step(m, &rows, NULL));
    assert_done(m, keel_save(m, in("german")));
    assert_done(m, keel_open(m, in("german")));
    assert_done(m, keel_value(m, "train.optimizer.lr", &value));
    assert_string_equal(value, "0.0025");
    keel_release(value);
    assert_done(m, keel_generate_tokens(m, tokens, 3, &o, NULL));
    keel_free(m);
    assert_string_equal(number, "0,5"); // the callback is the program's
    snprintf(number, sizeof number, "%.1f", 0.5);
    assert_string_equal(number, "0,5");
    setlocale(LC_ALL, "C");
    unsetenv("LOCPATH");
}

/* ---- what goes wrong */

static void without_a_handle(void **state)
{
    (void)state;
    keel_facts f;
    size_t n;
    int32_t *ids;
    char *text;
    double x;
    keel_score score;
    assert_int_equal(keel_configure(NULL, "", 0, NULL, 0), KEEL_ERROR_USAGE);
    assert_int_equal(keel_configure_file(NULL, "a", NULL, 0), KEEL_ERROR_USAGE);
    assert_int_equal(keel_open(NULL, "a"), KEEL_ERROR_USAGE);
    assert_int_equal(keel_about(NULL, &f), KEEL_ERROR_USAGE);
    assert_int_equal(keel_value(NULL, "model.width", &text), KEEL_ERROR_USAGE);
    assert_int_equal(keel_save(NULL, "a"), KEEL_ERROR_USAGE);
    assert_int_equal(keel_tokenize(NULL, "a", 1, &ids, &n), KEEL_ERROR_USAGE);
    assert_int_equal(keel_detokenize(NULL, NULL, 0, &text, &n), KEEL_ERROR_USAGE);
    assert_int_equal(keel_train(NULL, NULL, NULL), KEEL_ERROR_USAGE);
    assert_int_equal(keel_step(NULL, NULL, NULL), KEEL_ERROR_USAGE);
    assert_int_equal(keel_score_text(NULL, "a", 1, NULL, &score), KEEL_ERROR_USAGE);
    assert_int_equal(keel_score_tokens(NULL, NULL, 0, 0, &x), KEEL_ERROR_USAGE);
    assert_int_equal(keel_evaluate(NULL, NULL, 0, &score), KEEL_ERROR_USAGE);
    assert_int_equal(keel_generate(NULL, "a", 1, NULL, NULL), KEEL_ERROR_USAGE);
    assert_int_equal(keel_generate_tokens(NULL, NULL, 0, NULL, NULL), KEEL_ERROR_USAGE);
    assert_int_equal(keel_last_status(NULL), KEEL_ERROR_USAGE);
    assert_string_equal(keel_message(NULL), "there is no handle: keel_new gives one, or memory is out");
    keel_free(NULL);
    keel_release(NULL);
}

static void without_a_model(void **state)
{
    (void)state;
    static const char none[] = "the handle has no model yet; call keel_configure or keel_open first";
    keel_facts f;
    size_t n;
    int32_t *ids;
    char *text;
    double x;
    keel_score score;
    keel_train_options train = {.folder = in("never")};
    keel_model *m = keel_new(NULL);
    assert_int_equal(keel_last_status(m), KEEL_OK);
    assert_string_equal(keel_message(m), "");
    assert_refused(m, keel_about(m, &f), KEEL_ERROR_USAGE, none);
    assert_refused(m, keel_about(m, NULL), KEEL_ERROR_USAGE, "no place for the facts");
    assert_refused(m, keel_value(m, "model.width", &text), KEEL_ERROR_USAGE, none);
    assert_refused(m, keel_save(m, in("never")), KEEL_ERROR_USAGE, none);
    assert_refused(m, keel_tokenize(m, "a", 1, &ids, &n), KEEL_ERROR_USAGE, none);
    assert_refused(m, keel_train(m, &train, NULL), KEEL_ERROR_USAGE, none);
    assert_refused(m, keel_step(m, NULL, NULL), KEEL_ERROR_USAGE, none);
    assert_refused(m, keel_score_text(m, "a", 1, NULL, &score), KEEL_ERROR_USAGE, none);
    assert_refused(m, keel_score_tokens(m, (int32_t[]){1, 2}, 2, 1, &x), KEEL_ERROR_USAGE, none);
    assert_refused(m, keel_evaluate(m, NULL, 0, &score), KEEL_ERROR_USAGE, none);
    assert_refused(m, keel_generate(m, "a", 1, NULL, NULL), KEEL_ERROR_USAGE, none);
    assert_refused(m, keel_generate_tokens(m, (int32_t[]){1}, 1, NULL, NULL), KEEL_ERROR_USAGE, none);
    keel_free(m);
}

static void bad_configurations(void **state)
{
    (void)state;
    static const char misspelt[] = "model:\n  widht: 64\n", wrong[] = "model: {width: wide}\n",
                      torn[] = "model: {width: 64\n",
                      odd[] = "model: {width: 30, attention: {heads: 4}, vocab: 9}\n";
    const char *no_equals[] = {"train.steps=3", "train"}, *null[] = {NULL};
    keel_facts f;
    char *text, message[256];
    keel_model *m = configured(bare_yaml, NULL);
    assert_refused(m, keel_configure(m, misspelt, strlen(misspelt), NULL, 0), KEEL_ERROR_CONFIG,
                   "configuration:2: unknown key model.widht; did you mean model.width?");
    assert_int_equal(keel_configure(m, wrong, strlen(wrong), NULL, 0), KEEL_ERROR_CONFIG);
    assert_non_null(strstr(keel_message(m), "configuration:1: model.width"));
    assert_int_equal(keel_configure(m, torn, strlen(torn), NULL, 0), KEEL_ERROR_CONFIG);
    assert_non_null(strstr(keel_message(m), "not valid YAML"));
    assert_refused(m, keel_configure(m, "a\0b", 3, NULL, 0), KEEL_ERROR_CONFIG,
                   "configuration:1: a control character; remove it, or write it as an escape in \"quotes\"");
    assert_refused(m, keel_configure(m, NULL, 3, NULL, 0), KEEL_ERROR_USAGE,
                   "a configuration of 3 bytes and 0 settings at NULL");
    assert_refused(m, keel_configure(m, "", 0, NULL, 1), KEEL_ERROR_USAGE,
                   "a configuration of 0 bytes and 1 settings at NULL");
    assert_refused(m, keel_configure(m, "", 0, no_equals, 2), KEEL_ERROR_USAGE,
                   "'train' is not a setting; write key=value, like train.steps=100");
    assert_refused(m, keel_configure(m, "", 0, null, 1), KEEL_ERROR_USAGE,
                   "setting 1 of 1 is NULL; write key=value");
    snprintf(message, sizeof message, "%s: cannot open: No such file or directory", in("no.yaml"));
    assert_refused(m, keel_configure_file(m, in("no.yaml"), NULL, 0), KEEL_ERROR_IO, message);
    assert_refused(m, keel_configure_file(m, NULL, NULL, 0), KEEL_ERROR_USAGE, "no path of a configuration");
    assert_refused(m, keel_value(m, "model.widht", &text), KEEL_ERROR_USAGE,
                   "model.widht: no such key; 'keel config explain' lists the keys");
    assert_refused(m, keel_value(m, "data.train", &text), KEEL_ERROR_USAGE,
                   "data.train: a list, not one value; 'keel config explain' lists the keys");
    assert_done(m, keel_value(m, "model.width", &text)); // what was there is there
    assert_string_equal(text, "32");
    keel_release(text);
    assert_done(m, keel_about(m, &f));
    assert_int_equal(f.vocab, 64);
    assert_done(m, keel_configure(m, odd, strlen(odd), NULL, 0));
    assert_int_equal(keel_about(m, &f), KEEL_ERROR_CONFIG); // shapes: by the first call that needs them
    assert_non_null(strstr(keel_message(m), "configuration:1: model."));
    assert_done(m, keel_configure(m, shape, strlen(shape), NULL, 0));
    assert_refused(m, keel_about(m, &f), KEEL_ERROR_CONFIG,
                   "default: model.vocab is auto; set it to a number, or data.tokenizer to a file, or train "
                   "(keel_train)");
    keel_free(m);
}

static void bad_machines(void **state)
{
    (void)state;
    keel_facts f;
    keel_machine unknown = {.isa = "v9"}, long_name = {.isa = "a level that nobody has"},
                 many = {.threads = -1};
    keel_model *m = keel_new(&unknown);
    assert_done(m, keel_configure(m, bare_yaml, strlen(bare_yaml), NULL, 0));
    assert_refused(m, keel_about(m, &f), KEEL_ERROR_USAGE,
                   "no instruction-set level 'v9'; it must be plain, v3 or v4");
    keel_free(m);
    m = keel_new(&long_name);
    assert_done(m, keel_configure(m, bare_yaml, strlen(bare_yaml), NULL, 0));
    assert_refused(m, keel_about(m, &f), KEEL_ERROR_USAGE,
                   "no such instruction-set level; it must be plain, v3 or v4");
    keel_free(m);
    m = keel_new(&many);
    assert_done(m, keel_configure(m, bare_yaml, strlen(bare_yaml), NULL, 0));
    assert_refused(m, keel_about(m, &f), KEEL_ERROR_USAGE, "-1 threads; it must be 1 to 4096");
    keel_free(m);
}

static void bad_models(void **state)
{
    (void)state;
    char message[512];
    keel_facts f;
    keel_model *m = opened(in("by_library"));
    snprintf(message, sizeof message, "%s: no such folder; name a run's folder or one of its step_N",
             in("no"));
    assert_refused(m, keel_open(m, in("no")), KEEL_ERROR_INPUT, message);
    assert_refused(m, keel_open(m, NULL), KEEL_ERROR_USAGE,
                   "no path of a model; name a run's folder or one of its step_N");
    snprintf(message, sizeof message, "cp -r '%s' '%s'", in("by_library/step_12"), in("damaged"));
    assert_int_equal(system(message), 0);
    FILE *file = fopen(in("damaged/model.safetensors"), "r+b");
    assert_non_null(file);
    fseek(file, -5, SEEK_END);
    fputc(fgetc(file) ^ 1, (fseek(file, -5, SEEK_END), file));
    fclose(file);
    assert_int_equal(keel_open(m, in("damaged")), KEEL_ERROR_FORMAT);
    assert_non_null(strstr(keel_message(m), "damaged/model.safetensors"));
    assert_done(m, keel_about(m, &f)); // the model that was there
    assert_int_equal(f.step, STEPS);
    keel_train_options o = {.folder = in("elsewhere")};
    assert_int_equal(keel_train(m, &o, NULL), KEEL_ERROR_USAGE);
    assert_non_null(strstr(keel_message(m), "the model was opened from "));
    keel_free(m);
}

static void bad_training(void **state)
{
    (void)state;
    char message[512];
    keel_train_result r;
    keel_model *m = configured(bare_yaml, NULL);
    keel_train_options o = {.folder = in("never")}, unnamed = {0};
    assert_refused(m, keel_train(m, &unnamed, &r), KEEL_ERROR_USAGE,
                   "no folder for the run; set options.folder");
    assert_refused(m, keel_train(m, NULL, NULL), KEEL_ERROR_USAGE,
                   "no folder for the run; set options.folder");
    assert_refused(m, keel_train(m, &o, &r), KEEL_ERROR_CONFIG,
                   "default: data.train is empty; name a folder or file of text, or shards");
    keel_free(m);
    snprintf(message, sizeof message, "data.train=%s", in("no.txt"));
    m = configured(bare_yaml, message);
    snprintf(message, sizeof message, "command line: data.train names %s, which does not exist",
             in("no.txt"));
    assert_refused(m, keel_train(m, &o, &r), KEEL_ERROR_CONFIG, message);
    assert_int_equal(r.step, 0);
    assert_true(isnan(r.loss));
    keel_free(m);
    m = configured(run_yaml, NULL); // a file where the folder should be
    o.folder = in("words.txt");
    assert_int_equal(keel_train(m, &o, &r), KEEL_ERROR_IO);
    assert_non_null(strstr(keel_message(m), "words.txt"));
    assert_int_equal(keel_save(m, in("words.txt")), KEEL_ERROR_CONFIG); // no vocabulary yet
    keel_free(m);
    m = configured(bare_yaml, NULL);
    assert_int_equal(keel_save(m, in("words.txt")), KEEL_ERROR_IO);
    assert_refused(m, keel_save(m, ""), KEEL_ERROR_USAGE, "no folder to save into");
    keel_free(m);
}

static void bad_rows(void **state)
{
    (void)state;
    int32_t tokens[PLACES], targets[PLACES], document[PLACES] = {0};
    keel_step_result r;
    keel_model *m = configured(bare_yaml, NULL);
    keel_rows rows = counting(tokens, targets, 0), bad = rows;
    assert_done(m, keel_step(m, &rows, &r));
    double before = counted(m);
    bad.rows = 5;
    assert_refused(m, keel_step(m, &bad, &r), KEEL_ERROR_USAGE,
                   "5 rows; a step takes 1 to 4 (train.batch_tokens / model.context)");
    bad.rows = -1;
    assert_int_equal(keel_step(m, &bad, &r), KEEL_ERROR_USAGE);
    bad = rows, bad.tokens = NULL;
    assert_refused(m, keel_step(m, &bad, &r), KEEL_ERROR_USAGE, "no rows, or no tokens or targets in them");
    bad = rows, bad.lr = NAN;
    assert_int_equal(keel_step(m, &bad, &r), KEEL_ERROR_USAGE);
    tokens[35] = 64;
    assert_refused(m, keel_step(m, &rows, &r), KEEL_ERROR_INPUT,
                   "row 1, place 3: token 64, target 36; the vocabulary is 64 (a target may be -1)");
    tokens[35] = 35, targets[35] = -2;
    assert_int_equal(keel_step(m, &rows, &r), KEEL_ERROR_INPUT);
    targets[35] = 36, document[40] = 9, rows.document = document;
    assert_refused(m, keel_step(m, &rows, &r), KEEL_ERROR_INPUT,
                   "row 1, place 8: a document that begins at 9; it must lie from the one before on to 8");
    assert_true(counted(m) == before); // nothing of all that trained
    rows.document = NULL;
    keel_free(m);
    m = configured("model: {layers: 1, width: 32, context: 32, attention: {heads: 2}, vocab: 64}\n"
                   "train: {batch_tokens: 128}\n",
                   NULL);
    assert_refused(
        m, keel_step(m, &rows, &r), KEEL_ERROR_CONFIG,
        "the rows give no learning rate, and the configuration no length to schedule one over; set "
        "train.steps or train.tokens, or rows.lr");
    keel_free(m);
    m = configured(bare_yaml, "train.steps=1");
    rows = counting(tokens, targets, 0);
    assert_done(m, keel_step(m, &rows, &r));
    assert_refused(m, keel_step(m, &rows, &r), KEEL_ERROR_USAGE,
                   "all 1 steps of the schedule are done; set rows.lr to go on");
    keel_free(m);
}

/* Weights that grow without bound: the step that is not finite is refused by name, and undone. */
static void divergence(void **state)
{
    (void)state;
    int32_t tokens[PLACES], targets[PLACES];
    keel_step_result r;
    keel_status s = KEEL_OK;
    keel_model *m = configured(bare_yaml, "train.optimizer.weight_decay=10");
    keel_rows rows = counting(tokens, targets, 0);
    rows.lr = 900;
    int64_t done = 0;
    for (int k = 0; k < 60 && !s; k++) {
        s = keel_step(m, &rows, &r);
        if (!s) done = r.step;
    }
    assert_int_equal(s, KEEL_ERROR_NUMERIC);
    assert_true(r.step == done && done > 0);
    assert_non_null(strstr(keel_message(m), " is not finite (loss "));
    assert_int_equal(keel_step(m, &rows, &r), KEEL_ERROR_NUMERIC); // still the weights it was
    assert_int_equal(r.step, done);
    keel_free(m);
}

static void bad_texts(void **state)
{
    (void)state;
    static const char no_tokenizer[] =
        "the model has no tokenizer yet; set data.tokenizer to a file, or train (keel_train makes one)";
    char many[512];
    int32_t ids[40] = {0}, *out;
    size_t n;
    double nats;
    keel_score score;
    keel_model *m = configured(bare_yaml, NULL);
    assert_refused(m, keel_tokenize(m, "a", 1, &out, &n), KEEL_ERROR_USAGE, no_tokenizer);
    assert_refused(m, keel_generate(m, "a", 1, NULL, NULL), KEEL_ERROR_USAGE, no_tokenizer);
    assert_refused(m, keel_score_text(m, "a", 1, NULL, &score), KEEL_ERROR_USAGE, no_tokenizer);
    assert_refused(m, keel_score_tokens(m, ids, 40, 1, &nats), KEEL_ERROR_INPUT,
                   "39 tokens do not fit into the model's context of 32");
    assert_refused(m, keel_score_tokens(m, ids, 2, 2, &nats), KEEL_ERROR_INPUT,
                   "2 of 2 tokens to score; at least one, and one before them");
    ids[1] = 64;
    assert_refused(m, keel_score_tokens(m, ids, 3, 1, &nats), KEEL_ERROR_INPUT,
                   "token 64 is beyond the model's vocabulary of 64");
    assert_refused(m, keel_generate_tokens(m, ids, 3, NULL, NULL), KEEL_ERROR_INPUT,
                   "token 64 is beyond the model's vocabulary of 64");
    assert_refused(m, keel_generate_tokens(m, NULL, 0, NULL, NULL), KEEL_ERROR_INPUT,
                   "nothing to begin with: no token, and no end of text to stand for it");
    keel_free(m);
    m = opened(in("by_library"));
    memset(many, 'q', sizeof many);
    assert_int_equal(keel_generate(m, many, sizeof many, NULL, NULL), KEEL_ERROR_INPUT);
    assert_non_null(strstr(keel_message(m), "the model's context room for 31; shorten the prompt"));
    assert_refused(m, keel_generate(m, "a", 1, &(keel_generate_options){.temperature = -1}, NULL),
                   KEEL_ERROR_USAGE, "temperature is -1; it must be between 0 and 100");
    assert_refused(m, keel_generate(m, "a", 1, &(keel_generate_options){.max_tokens = -4}, NULL),
                   KEEL_ERROR_USAGE, "max_tokens is -4; it must be at least 1");
    assert_refused(m, keel_score_text(m, "", 0, NULL, &score), KEEL_ERROR_INPUT, "the text is empty");
    assert_refused(m, keel_score_text(m, "a", 1, &(keel_score_options){.context = 33}, &score),
                   KEEL_ERROR_INPUT, "windows of 33 tokens; from 1 to the model's context of 32");
    assert_refused(m, keel_tokenize(m, NULL, 5, &out, &n), KEEL_ERROR_USAGE, "a text of 5 bytes at NULL");
    assert_int_equal(keel_evaluate(m, in("saved"), 0, &score), KEEL_ERROR_INPUT);
    assert_refused(m, keel_evaluate(m, NULL, -7, &score), KEEL_ERROR_USAGE,
                   "-7 tokens; give a number, or 0 for all");
    assert_done(m, keel_score_text(m, "the", 3, NULL, &score)); // after all that
    keel_free(m);
}

/* ---- memory */

static void too_large_a_model(void **state)
{
    (void)state;
    int32_t ids[3] = {1, 2, 3}, row[32] = {0};
    double nats;
    keel_rows rows = {.rows = 1, .tokens = row, .targets = row};
    keel_model *m = configured("model: {layers: 120, width: 65536, context: 32, attention: {heads: 64}, "
                               "vocab: 1000}\ntrain: {steps: 1, batch_tokens: 32}\n",
                               NULL);
    assert_int_equal(keel_step(m, &rows, NULL), KEEL_ERROR_MEMORY);
    assert_non_null(strstr(keel_message(m), "the run needs "));
    assert_int_equal(keel_generate_tokens(m, ids, 3, NULL, NULL), KEEL_ERROR_MEMORY);
    assert_int_equal(keel_score_tokens(m, ids, 3, 1, &nats), KEEL_ERROR_MEMORY);
    keel_free(m);
}

/* In a process of its own: with little address space everything that reserves some is refused, and the handle
 * works once there is more. */
static int with_little_memory(void)
{
    int32_t ids[3] = {1, 2, 3};
    double nats;
    keel_facts f;
    struct rlimit all, little;
    keel_model *m = keel_new(NULL);
    getrlimit(RLIMIT_AS, &all);
    little = all;
    little.rlim_cur = (rlim_t)4 << 30;
    if (!m || setrlimit(RLIMIT_AS, &little)) return 10;
    if (keel_configure(m, bare_yaml, strlen(bare_yaml), NULL, 0) != KEEL_ERROR_MEMORY) return 11;
    if (!strstr(keel_message(m), "address space")) return 12;
    if (keel_open(m, in("by_library")) != KEEL_ERROR_MEMORY) return 13;
    setrlimit(RLIMIT_AS, &all);
    if (keel_configure(m, bare_yaml, strlen(bare_yaml), NULL, 0)) return 14;
    setrlimit(RLIMIT_AS, &little);
    if (keel_about(m, &f) != KEEL_ERROR_MEMORY) return 15;
    if (keel_score_tokens(m, ids, 3, 1, &nats) != KEEL_ERROR_MEMORY) return 16;
    if (keel_generate_tokens(m, ids, 3, NULL, NULL) != KEEL_ERROR_MEMORY) return 17;
    setrlimit(RLIMIT_AS, &all);
    if (keel_score_tokens(m, ids, 3, 1, &nats) || !(nats > 0)) return 18;
    keel_free(m);
    return 0;
}

static void little_memory(void **state)
{
    (void)state;
    char line[1024];
#ifdef __SANITIZE_ADDRESS__
    skip(); // its shadow needs more than any limit
#endif
    snprintf(line, sizeof line, "'%s' --little '%s'", self, folder);
    int got = system(line);
    assert_true(WIFEXITED(got));
    assert_int_equal(WEXITSTATUS(got), 0);
}

/* ---- the suite */

static int open_folder(void **state)
{
    (void)state;
    static const char *const words[] = {"the",  "one",  "and", "other", "of",
                                        "keel", "ship", "sea", "bears", "no"};
    strcpy(folder, "/tmp/keel-library-XXXXXX");
    if (!mkdtemp(folder)) return -1;
    setenv("KEEL_REGISTRY", in("runs.db"), 1);
    FILE *f = fopen(in("words.txt"), "w");
    if (!f) return -1;
    unsigned x = 1;
    for (int i = 0; i < 6000; i++) {
        x = x * 1103515245u + 12345u;
        fprintf(f, "%s%s", words[(x >> 16) % 10], i % 40 == 39 ? "\n\n" : i % 7 == 6 ? ".\n" : " ");
    }
    fclose(f);
    snprintf(run_yaml, sizeof run_yaml,
             "%sdata: {train: %s, vocab: 300, document: blank_line, validation: 10%%}\n"
             "train: {steps: %d, batch_tokens: 128, optimizer: {lr: 3e-3}}\n",
             shape, in("words.txt"), STEPS);
    write_file(in("run.yaml"), run_yaml);
    return 0;
}

static int close_folder(void **state)
{
    (void)state;
    char line[256];
    snprintf(line, sizeof line, "rm -rf '%s'", folder);
    return system(line);
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "--little")) {
        snprintf(folder, sizeof folder, "%s", argv[2]);
        return with_little_memory();
    }
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_version_is_one),
        cmocka_unit_test(a_run_is_the_commands_to_the_bit),
        cmocka_unit_test(a_stopped_run_goes_on),
        cmocka_unit_test(a_run_stopped_before_its_first_step),
        cmocka_unit_test(generating_is_the_commands),
        cmocka_unit_test(scores_are_the_commands),
        cmocka_unit_test(tokens_there_and_back),
        cmocka_unit_test(steps_train_and_are_saved),
        cmocka_unit_test(rows_have_documents_and_rates),
        cmocka_unit_test(two_handles_in_two_threads),
        cmocka_unit_test(a_handle_goes_from_thread_to_thread),
        cmocka_unit_test(the_callers_own_threads),
        cmocka_unit_test(two_runs_in_two_threads),
        cmocka_unit_test(another_language),
        cmocka_unit_test(without_a_handle),
        cmocka_unit_test(without_a_model),
        cmocka_unit_test(bad_configurations),
        cmocka_unit_test(bad_machines),
        cmocka_unit_test(bad_models),
        cmocka_unit_test(bad_training),
        cmocka_unit_test(bad_rows),
        cmocka_unit_test(divergence),
        cmocka_unit_test(bad_texts),
        cmocka_unit_test(too_large_a_model),
        cmocka_unit_test(little_memory),
    };
    return cmocka_run_group_tests(tests, open_folder, close_folder);
}

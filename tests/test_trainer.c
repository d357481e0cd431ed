/* The training loop as a library: accumulation, timed runs, divergence, and the plan of memory against what
 * the kernel says is resident. Resuming, kills and failing writes are tests/cli_train.sh's. */
#include "train/trainer.h"
#include "base/file.h"
#include "base/text.h"
#include "toy_data.h"
#include "train/checkpoint.h"
#include "train/metrics.h"
#include "train/registry.h"
#include <math.h>

static device *cpu;
static dataset *data;

/* What a run said last, and the most memory seen while it ran. */
typedef struct witness {
    char last[512];
    i64 peak;
    bool resume, stop_timed;    // how to run it: go on; end once steps were timed
    volatile sig_atomic_t stop; // set by hear
    int guarded;                // lines of guards heard
} witness;

static i64 resident(void) // bytes of anonymous memory
{
    char line[256];
    long long kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f) && sscanf(line, "RssAnon: %lld kB", &kib) != 1) continue;
    fclose(f);
    return kib * 1024;
}

static void hear(void *context, const char *line)
{
    witness *w = context;
    snprintf(w->last, sizeof w->last, "%s", line);
    w->guarded += strstr(line, "train.guard") != NULL;
    w->stop |= w->stop_timed && !strncmp(line, "a step takes", 12);
    w->peak = MAX(w->peak, resident());
}
static void watch(void *context, const train_progress *p)
{
    witness *w = context;
    assert_true(p->step >= 1 && p->step <= p->steps);
    w->peak = MAX(w->peak, resident());
}

static const char base[] = "model: {layers: 1, width: 32, context: 32, attention: {heads: 2}, vocab: 258}\n"
                           "train: {batch_tokens: 128, precision: f32, checkpoint: {every: none}}\n";

/* Trains into the toy folder's OUT with settings separated by '|'. */
static status train_into(const char *out, const char *settings, witness *w, train_result *r)
{
    char copy[512], *rest = copy;
    const char *given[16];
    i64 n = 0;
    config *c;
    snprintf(copy, sizeof copy, "%s", settings);
    for (char *one; (one = strsep(&rest, "|"));) given[n++] = one;
    assert_ok(config_parse("base", base, strlen(base), given, n, &c));
    train_options o = {.out = toy_path(out),
                       .resume = w->resume,
                       .stop = &w->stop,
                       .device = cpu,
                       .isa = device_about(cpu)->level,
                       .talk = hear,
                       .progress = watch,
                       .context = w};
    status s = train_run(c, data, &o, r);
    config_close(c);
    return s;
}

static double value_at(const metrics_data *m, const char *name, i64 i)
{
    const metrics_series *s = metrics_find(m, name);
    assert_non_null(s);
    assert_true(i < s->n);
    return s->value[i];
}

static void same_file(const char *a, const char *b)
{
    char *x, *y;
    size_t n, k;
    assert_ok(file_read(toy_path(a), &x, &n));
    assert_ok(file_read(toy_path(b), &y, &k));
    assert_int_equal(n, k);
    assert_memory_equal(x, y, n);
    mem_free(x);
    mem_free(y);
}

/* One row four times is four rows once: a step's gradient does not depend on how it is cut. */
static void micro_batches_add_up(void **state)
{
    (void)state;
    witness w = {0};
    train_result r;
    metrics_data one, four;
    assert_ok(train_into("one", "train.steps=6|train.micro_batch=1|train.evaluate.every=none", &w, &r));
    assert_ok(train_into("four", "train.steps=6|train.micro_batch=4|train.evaluate.every=none", &w, &r));
    assert_ok(metrics_load(toy_path("one/metrics.jsonl"), &one));
    assert_ok(metrics_load(toy_path("four/metrics.jsonl"), &four));
    for (i64 i = 0; i < 6; i++) {
        double a = value_at(&one, "loss", i), b = value_at(&four, "loss", i);
        assert_true(fabs(a - b) <= 1e-6 * fabs(b));
    }
    assert_true(fabs(value_at(&one, "grad_norm", 0) - value_at(&four, "grad_norm", 0)) <=
                1e-6 * value_at(&four, "grad_norm", 0));
    metrics_free(&one);
    metrics_free(&four);
}

/* train.time becomes train.steps, and the steps that were timed leave no trace in the weights. */
static void a_timed_run_is_a_counted_run(void **state)
{
    (void)state;
    witness w = {0};
    train_result timed, counted;
    char setting[64], path[128], a[256], b[256];
    config *c;
    assert_ok(train_into("timed", "train.time=1 s|train.evaluate.every=none", &w, &timed));
    assert_ok(config_load(toy_path("timed/config.yaml"), NULL, 0, &c));
    assert_int_equal(config_count(c, "train.steps"), timed.step);
    assert_string_equal(config_text(c, "train.time"), "none");
    config_close(c);
    snprintf(setting, sizeof setting, "train.steps=%lld|train.evaluate.every=none", (long long)timed.step);
    assert_ok(train_into("counted", setting, &w, &counted));
    assert_int_equal(counted.tokens_seen, timed.tokens_seen);
    static const char *const files[] = {"model", "optimizer"};
    for (int k = 0; k < 2; k++) {
        snprintf(path, sizeof path, "step_%lld/%s.safetensors", (long long)timed.step, files[k]);
        snprintf(a, sizeof a, "timed/%s", path);
        snprintf(b, sizeof b, "counted/%s", path);
        same_file(a, b);
    }
}

/* Weights that grow ten thousandfold a step: the run stops, says where, and what was saved is finite. */
static void divergence_is_named(void **state)
{
    (void)state;
    witness w = {0};
    train_result r;
    char *newest;
    i64 step;
    status s = train_into("diverges",
                          "train.steps=100|train.optimizer.lr=10|train.optimizer.weight_decay=10|"
                          "train.schedule.kind=constant|train.schedule.warmup=1 steps|"
                          "train.checkpoint.every=2 steps|train.evaluate.every=none",
                          &w, &r);
    assert_non_null(s);
    assert_int_equal(s->code, ERR_NUMERIC);
    assert_true(r.step >= 2 && r.step < 100);
    assert_ok(checkpoint_latest(toy_path("diverges"), hear, &w, &newest, &step));
    assert_true(step > 0 && step <= r.step);
    char left[64];
    snprintf(left, sizeof left, "step_%lld", (long long)step);
    assert_non_null(strstr(s->message, left));
    assert_non_null(strstr(s->message, "blocks.0"));
    status_drop(s);
    free(newest);
    metrics_data m; // the log's last line is the step that failed
    assert_ok(metrics_load(toy_path("diverges/metrics.jsonl"), &m));
    const metrics_series *loss = metrics_find(&m, "loss");
    assert_int_equal(loss->n, r.step + 1);
    assert_true(isnan(loss->value[r.step]));
    metrics_free(&m);
    registry *book;
    registry_run run;
    arena *a;
    assert_ok(arena_open(&a));
    assert_ok(registry_open(NULL, REGISTRY_READ, &book));
    assert_ok(registry_find(book, a, r.id, &run));
    assert_string_equal(run.status, "diverged");
    assert_int_equal(run.steps, r.step);
    registry_close(book);
    arena_close(a);
}

/* The checkpoint of step 1 in FROM as one in TO, with every value of the end of text's embedding 3e38. */
static void copy_poisoned(const char *from, const char *to)
{
    static const char *const plain[] = {"state.json", "config.yaml", "given.yaml", "tokenizer.json"};
    static const char *const arrays[] = {"model.safetensors", "optimizer.safetensors"};
    checkpoint_store *store;
    checkpoint *c;
    char path[256];
    assert_ok(checkpoint_open(toy_path(to), &(checkpoint_options){0}, &store));
    assert_ok(checkpoint_begin(store, 1, &c));
    for (int k = 0; k < COUNT(arrays); k++) {
        st_file *f;
        st_entry entry[64];
        static float table[258 * 32];
        snprintf(path, sizeof path, "%s/step_1/%s", from, arrays[k]);
        assert_ok(st_open(toy_path(path), &f));
        i64 n = st_count(f);
        assert_true(n <= COUNT(entry));
        for (i64 i = 0; i < n; i++) {
            entry[i] = *st_at(f, i);
            if (strcmp(entry[i].name, "embedding.weight") != 0) continue;
            assert_int_equal(entry[i].bytes, sizeof table);
            memcpy(table, entry[i].data, sizeof table);
            for (int j = 0; j < 32; j++) table[dataset_eos(data) * 32 + j] = 3e38f;
            entry[i].data = table;
        }
        assert_ok(checkpoint_arrays(c, arrays[k], entry, n, NULL, 0));
        st_close(f);
    }
    for (int k = 0; k < COUNT(plain); k++) {
        char *text;
        size_t bytes;
        snprintf(path, sizeof path, "%s/step_1/%s", from, plain[k]);
        assert_ok(file_read(toy_path(path), &text, &bytes));
        assert_ok(checkpoint_file(c, plain[k], text, bytes));
        mem_free(text);
    }
    assert_ok(checkpoint_finish(c));
    assert_ok(checkpoint_close(store));
}

/* Of a document's last token only the gradient is read, so the loss can be finite where the gradient is not:
 * that too is named, and is not said to be a spike. */
static void a_gradient_alone_is_named(void **state)
{
    (void)state;
    static const char settings[] = "train.steps=2|train.evaluate.every=none|model.tie_head=false|"
                                   "model.residual.skip_scale=2|train.checkpoint.every=1 steps";
    witness w = {0};
    train_result r;
    assert_ok(train_into("sound", settings, &w, &r));
    copy_poisoned("sound", "poisoned");
    w.resume = true;
    status s = train_into("poisoned", settings, &w, &r);
    assert_non_null(s);
    assert_int_equal(s->code, ERR_NUMERIC);
    if (strncmp(s->message, "step 2 is not finite (loss 5.", 29) ||
        !strstr(s->message, ", gradient norm nan; "))
        fail_msg("%s", s->message);
    status_drop(s);
}

/* Guards are for a run's steps: those timed before it are neither dropped nor gone back from. */
static void timing_has_no_guards(void **state)
{
    (void)state;
    static const char *const actions[] = {"skip", "rollback"};
    for (int k = 0; k < 2; k++) {
        char settings[256], out[16];
        witness w = {.stop_timed = true};
        train_result r;
        snprintf(out, sizeof out, "timed%d", k);
        snprintf(settings, sizeof settings,
                 "train.time=1 min|train.evaluate.every=none|train.guard.spike_sigma=0.001|"
                 "train.guard.spike_action=%s",
                 actions[k]);
        status s = train_into(out, settings, &w, &r);
        assert_non_null(s);
        if (s->code != ERR_STOPPED) fail_msg("%s", s->message);
        assert_int_equal(w.guarded, 0);
        status_drop(s);
    }
}

/* The op, the layer and the micro-batch of the first value that is not finite. */
static void blame_finds_the_place(void **state)
{
    (void)state;
    config *c;
    session *s;
    i32 tokens[128] = {0}, targets[128] = {0}, start[128] = {0}, position[128];
    for (int i = 0; i < 128; i++) position[i] = i % 32;
    step_batch b = {tokens, targets, start, position, 4, 128};
    const char *two[] = {"model.layers=2", "train.micro_batch=2"};
    assert_ok(config_parse("base", base, strlen(base), two, 2, &c));
    assert_ok(session_open(c, cpu, &(session_options){.isa = device_about(cpu)->level}, &s));
    session_start(s);
    double nats;
    stored *e = &s->store->entry[s->store->n_params / 2];
    e->master[3] = NAN;
    session_forward_backward(s, &b, 0, &nats);
    assert_false(isfinite(nats));
    status why = session_blame(s, &b, 0);
    char want[256];
    snprintf(want, sizeof want, "micro-batch 0: parameter %s holds NaN or infinity", e->path);
    assert_string_equal(why->message, want);
    status_drop(why);
    session_close(s);
    config_close(c);
}

/* Steps and evaluations allocate nothing of Keel's own: everything is taken when the session opens. */
static void a_step_allocates_nothing(void **state)
{
    (void)state;
    config *c;
    session *s;
    i32 tokens[128], targets[128], start[128] = {0}, position[128];
    for (int i = 0; i < 128; i++) tokens[i] = i % 61, targets[i] = (i + 1) % 61, position[i] = i % 32;
    step_batch b = {tokens, targets, start, position, 4, 128};
    const char *two[] = {"train.micro_batch=2", "model.tie_head=false"}; // look-ups' gradients as rows too
    assert_ok(config_parse("base", base, strlen(base), two, 2, &c));
    assert_ok(session_open(c, cpu, &(session_options){.isa = device_about(cpu)->level}, &s));
    session_start(s);
    fault_set(FAULT_ALLOC, 0); // counts from here
    for (i64 step = 0; step < 3; step++) {
        double nats, norm;
        session_forward_backward(s, &b, step, &nats);
        session_update(s, step, 1e-3, 1e-3, &norm);
        assert_true(isfinite(norm) && isfinite(session_evaluate(s, &b)));
    }
    assert_int_equal(fault_count(FAULT_ALLOC), 0);
    session_close(s);
    config_close(c);
}

/* What was planned is what the process took, within 2 % or 8 MiB. */
static void memory_is_as_planned(void **state)
{
    (void)state;
    static const char settings[] = "model.layers=4|model.width=256|model.context=256|model.attention.heads=4|"
                                   "train.batch_tokens=4096|train.steps=2|train.evaluate.every=1 steps";
    witness w = {0};
    train_result r;
    config *c;
    session *s;
    char copy[256], *rest = copy;
    const char *given[16];
    i64 n = 0;
    snprintf(copy, sizeof copy, "%s", settings);
    for (char *one; (one = strsep(&rest, "|"));) given[n++] = one;
    assert_ok(config_parse("base", base, strlen(base), given, n, &c));
    assert_ok(
        session_open(c, cpu, &(session_options){.isa = device_about(cpu)->level, .plan_only = true}, &s));
    i64 planned = s->memory.total;
    session_close(s);
    config_close(c);
    i64 before = resident();
    assert_ok(train_into("planned", settings, &w, &r));
    i64 took = w.peak - before;
    printf("planned %.1f MiB, took %.1f MiB\n", (double)planned / (1 << 20), (double)took / (1 << 20));
    assert_true(planned > 100 << 20);
    assert_true(llabs(took - planned) <= MAX(planned / 50, 8 << 20));
}

/* A text in which every document is found again; validation takes a tenth of them. */
static int open_all(void **state)
{
    (void)state;
    text t = {0};
    u32 x = 1;
    toy_open();
    setenv("KEEL_REGISTRY", toy_path("runs.db"), 1);
    for (int d = 0; d < 400; d++) {
        for (int i = 0; i < 100; i++) x = x * 1664525 + 1013904223, text_add(&t, "%c", 'a' + (x >> 24) % 20);
        text_add(&t, "\n\n");
    }
    toy_file("text.txt", t.data, t.bytes);
    text_free(&t);
    data = toy_dataset("shards", toy_path("text.txt"), "blank_line", "10%", 0);
    assert_ok(device_open(&(device_options){0}, &cpu));
    return 0;
}
static int close_all(void **state)
{
    (void)state;
    device_close(cpu);
    dataset_close(data);
    toy_close();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_as_planned), // first: what others freed, malloc would hand out again
        cmocka_unit_test(micro_batches_add_up),     cmocka_unit_test(a_timed_run_is_a_counted_run),
        cmocka_unit_test(divergence_is_named),      cmocka_unit_test(blame_finds_the_place),
        cmocka_unit_test(a_step_allocates_nothing), cmocka_unit_test(a_gradient_alone_is_named),
        cmocka_unit_test(timing_has_no_guards),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}

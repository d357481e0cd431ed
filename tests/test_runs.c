/* keel runs, as a user sees it: the table, one run, JSON, a report, and what is said when something is wrong.
 */
#include "base/file.h"
#include "base/text.h"
#include "train/checkpoint.h"
#include "train/registry.h"
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static char folder[] = "/tmp/keel-runs-XXXXXX";
static text out;

#define assert_ok(call)                                                                                      \
    do {                                                                                                     \
        status assert_status_ = (call);                                                                      \
        if (assert_status_) fail_msg("%s: %s", #call, assert_status_->message);                              \
    } while (0)

/* Runs "keel runs ARGUMENTS"; stdout and stderr go to OUT; returns the exit code. */
static int keel_runs(const char *arguments)
{
    char command[800], block[512];
    snprintf(command, sizeof command, "cd %s && %s runs %s 2>&1", folder, KEEL_BINARY, arguments);
    text_free(&out);
    text_add(&out, "%s", "");
    FILE *p = popen(command, "r");
    for (size_t n; (n = fread(block, 1, sizeof block, p));) text_add_bytes(&out, block, n);
    return WEXITSTATUS(pclose(p));
}

static void fill(void)
{
    registry *r;
    char id[REGISTRY_ID], dead[200];
    registry_run run = {.name = "base",
                        .folder = folder,
                        .identity = "00000000000000aa",
                        .config = "model: {width: 64}\n",
                        .code = "0.1.0",
                        .isa = "v4",
                        .libraries = "oneDNN 2.6.3",
                        .host = "2 cores",
                        .threads = 2,
                        .started = 1700000000,
                        .loss = NAN,
                        .bits_per_byte = NAN};
    assert_ok(registry_open(NULL, REGISTRY_WRITE, &r));
    assert_ok(registry_begin(r, &run, id));
    assert_ok(registry_metrics(r, id, 7, (metric[]){{"loss", 2.5}, {"lr", NAN}}, 2));
    assert_ok(registry_end(r, id,
                           &(registry_run){.status = "done",
                                           .ended = 1700000090,
                                           .steps = 7,
                                           .tokens = 1500000,
                                           .loss = 2.5,
                                           .bits_per_byte = 1.25}));
    snprintf(dead, sizeof dead, "%s/dead", folder); // a run whose process is no more
    assert_ok(dir_make(dead));
    run.folder = dead, run.identity = "00000000000000bb", run.started++, run.name = "\033[31mred";
    assert_ok(registry_begin(r, &run, id));
    registry_close(r);
    file_writer *w;
    snprintf(dead, sizeof dead, "%s/dead/lock", folder);
    assert_ok(file_create(dead, &w));
    assert_ok(file_printf(w, "2147483646\n"));
    assert_ok(file_commit(w));
}

static void test_none(void **state)
{
    (void)state;
    assert_int_equal(keel_runs("list"), 0);
    assert_string_equal(out.data, "no runs yet; 'keel train' adds one\n");
    assert_int_equal(keel_runs("list --json"), 0);
    assert_string_equal(out.data, "[]\n");
    assert_int_equal(keel_runs("show x"), 1);
    assert_string_equal(
        out.data, "keel: no run 'x' in the registry, by id or by folder; 'keel runs list' shows them\n");
}

static void test_list_and_show(void **state)
{
    (void)state;
    char wanted[1500];
    fill();
    assert_int_equal(keel_runs("list"), 0);
    snprintf(
        wanted, sizeof wanted,
        "ID                  STATUS  STARTED (UTC)     STEPS  TOKENS    LOSS  BITS/BYTE  NAME\n"
        "00000000000000bb-1  killed  2023-11-14 22:13      0       0       -          -  ?[31mred  %s/dead\n"
        "00000000000000aa-1  done    2023-11-14 22:13      7   1.5 M  2.5000     1.2500  base  %s\n",
        folder, folder);
    assert_string_equal(out.data, wanted);
    const char *const names[] = {"show 00000000000000aa-1", "show 00000000000000a", "show ."};
    for (i64 i = 0; i < COUNT(names); i++) {
        assert_int_equal(keel_runs(names[i]), 0);
        snprintf(
            wanted, sizeof wanted,
            "id            00000000000000aa-1\nname          base\nfolder        %s\nstatus        done\n"
            "started       2023-11-14 22:13\nended         2023-11-14 22:14\ntook          1 min 30 s\n"
            "steps         7\ntokens        1.5 M\nloss          2.5000\nbits per byte 1.2500\n"
            "identity      00000000000000aa\ncode          0.1.0\nthreads       2\nisa           v4\n"
            "libraries     oneDNN 2.6.3\nhost          2 cores\n\nlast metrics\n"
            "  loss                    2.5\n  lr                      nan\n\n"
            "configuration\nmodel: {width: 64}\n",
            folder);
        assert_string_equal(out.data, wanted);
    }
    assert_int_equal(keel_runs("list --json"), 0);
    json_t *all = json_loads(out.data, 0, NULL), *dead = json_array_get(all, 0);
    assert_int_equal(json_array_size(all), 2);
    assert_string_equal(json_string_value(json_object_get(dead, "status")), "killed");
    assert_true(json_is_null(json_object_get(dead, "loss")));
    json_decref(all);
    assert_int_equal(keel_runs("show 00000000000000aa --json"), 0);
    json_t *one = json_loads(out.data, 0, NULL), *metrics = json_object_get(one, "metrics");
    assert_true(json_real_value(json_object_get(metrics, "loss")) == 2.5);
    assert_true(json_is_null(json_object_get(metrics, "lr")));
    assert_int_equal(json_integer_value(json_object_get(one, "tokens")), 1500000);
    json_decref(one);
    assert_int_equal(keel_runs("show 0000"), 1);
    assert_string_equal(out.data,
                        "keel: '0000' begins the ids of 2 runs, 00000000000000bb-1 and 00000000000000aa-1 "
                        "among them; give more of it\n");
}

static void test_report(void **state)
{
    (void)state;
    char wanted[300];
    assert_int_equal(keel_runs("report dead"), 1);
    assert_string_equal(out.data, "keel: dead/metrics.jsonl: cannot open: No such file or directory\n");
    snprintf(wanted, sizeof wanted, "echo '{\"step\":1,\"loss\":2}' > %s/dead/metrics.jsonl", folder);
    assert_int_equal(system(wanted), 0);
    assert_int_equal(keel_runs("report dead"), 0);
    assert_string_equal(out.data, "wrote dead/report.html\n");
    assert_int_equal(keel_runs("report dead --out page.html"), 0);
    assert_string_equal(out.data, "wrote page.html\n");
    snprintf(wanted, sizeof wanted, "cmp %s/page.html %s/dead/report.html", folder, folder);
    assert_int_equal(system(wanted), 0);
}

static void put_file(const char *name, const char *content)
{
    char path[400];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_ok(file_replace(path, content, strlen(content)));
}

static void make_run(const char *name, const char *metrics, const char *summary, const char *config)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_ok(dir_make(path));
    snprintf(path, sizeof path, "%s/metrics.jsonl", name);
    put_file(path, metrics);
    snprintf(path, sizeof path, "%s/summary.json", name);
    if (summary) put_file(path, summary);
    snprintf(path, sizeof path, "%s/config.yaml", name);
    put_file(path, config);
}

static void make_two(void)
{
    make_run("one",
             "{\"step\":1,\"loss\":3,\"lr\":0.1,\"tokens_per_s\":1000}\n{\"step\":1,\"val_loss\":2.5,"
             "\"val_bits_per_byte\":1.5}\n{\"step\":2,\"loss\":2}\n{\"step\":2,\"val_loss\":2.75,"
             "\"val_bits_per_byte\":1.625}\n",
             "{\"status\":\"done\",\"steps\":2,\"tokens\":64,\"loss\":2.75,\"val_bits_per_byte\":1.625}",
             "model: {width: 64, layers: 2}\ntrain: {steps: 2}\n");
    make_run("two", "{\"step\":1,\"loss\":2.5,\"lr\":0.2,\"tokens_per_s\":2000}\n", NULL,
             "model: {width: 128, layers: 2, bias: true}\ntrain: {steps: 2}\n");
}

static void test_compare(void **state)
{
    (void)state;
    make_two();
    assert_int_equal(keel_runs("compare one two"), 0);
    assert_string_equal(out.data, "                            one     two\n"
                                  "status                     done       -\n"
                                  "steps                         2       1\n"
                                  "tokens                       64       -\n"
                                  "training loss, last 5 %  2.0000  2.5000\n"
                                  "validation loss          2.7500       -\n"
                                  "validation loss, best    2.5000       -\n"
                                  "bits per byte            1.6250       -\n"
                                  "bits per byte, best      1.5000       -\n"
                                  "tokens/s, last 5 %          1 k     2 k\n"
                                  "model.bias                    -    true\n"
                                  "model.width                  64     128\n");
    assert_int_equal(keel_runs("compare one two --json"), 0);
    json_t *o = json_loads(out.data, 0, NULL), *two = json_array_get(json_object_get(o, "runs"), 1),
           *bias = json_object_get(json_object_get(o, "configuration"), "model.bias");
    assert_string_equal(json_string_value(json_object_get(two, "run")), "two");
    assert_true(json_is_null(json_object_get(two, "best_val_loss")));
    assert_true(json_real_value(json_object_get(two, "tokens_per_s")) == 2000);
    assert_int_equal(json_object_size(json_object_get(o, "configuration")), 2);
    assert_true(json_is_null(json_array_get(bias, 0)));
    assert_string_equal(json_string_value(json_array_get(bias, 1)), "true");
    json_decref(o);
    assert_int_equal(keel_runs("compare one one/ 2>err >/dev/null; cat err"), 0);
    assert_string_equal(out.data, "the configurations do not differ\n");
    assert_int_equal(keel_runs("compare one data"), 1);
    assert_string_equal(out.data, "keel: data/metrics.jsonl: cannot open: No such file or directory\n");
    put_file("two/summary.json", "[]");
    assert_int_equal(keel_runs("compare one two"), 1);
    assert_string_equal(out.data, "keel: two/summary.json: not a JSON object\n");
    put_file("two/summary.json", "{}");
}

static void test_export(void **state)
{
    (void)state;
    char wanted[300];
    make_two();
    assert_int_equal(keel_runs("export two --csv"), 0);
    assert_string_equal(out.data, "step,loss,lr,tokens_per_s\n1,2.5,0.2,2000\n");
    assert_int_equal(keel_runs("export two --jsonl --out two.jsonl"), 0);
    assert_string_equal(out.data, "wrote two.jsonl\n");
    snprintf(wanted, sizeof wanted, "touch -d @1700000000 %s/two/metrics.jsonl", folder);
    assert_int_equal(system(wanted), 0);
    assert_int_equal(keel_runs("export two --tensorboard board/two"), 0);
    assert_string_equal(out.data, "wrote board/two/events.out.tfevents.1700000000.keel\n");
}

static void test_report_of_several(void **state)
{
    (void)state;
    char *page;
    size_t bytes;
    char path[200];
    make_two();
    assert_int_equal(keel_runs("report one two"), 0);
    assert_string_equal(out.data, "wrote report.html\n");
    snprintf(path, sizeof path, "%s/report.html", folder);
    assert_ok(file_read(path, &page, &bytes));
    static const char *const parts[] = {
        "<title>2 runs</title>",
        "<tr><th></th><th>one</th><th>two</th></tr>",
        "<tr><td>model.width</td><td>64</td><td>128</td></tr>",
        "<h3>Training loss, smoothed</h3><figcaption class=\"legend\"><span class=\"c0\"><i></i>one</span>"
        "<span class=\"c1\"><i></i>two</span>",
        "<h3>Validation, bits per byte</h3>",
        "<h3>Learning rate</h3>",
        "<h3>Speed, smoothed</h3>",
    };
    for (i64 i = 0; i < COUNT(parts); i++)
        if (!strstr(page, parts[i])) fail_msg("not on the page: %s", parts[i]);
    assert_null(strstr(page, "http-equiv=\"refresh\""));
    assert_null(strstr(page, "nan"));
    mem_free(page);
}

/* A registry of its own: a run that is gone, one done with four checkpoints and a milestone, one that
 * stopped. */
static void make_rubbish(void)
{
    static const char *const names[] = {"gone", "finished", "halted"};
    registry *r;
    char id[REGISTRY_ID], where[200];
    snprintf(where, sizeof where, "%s/gc.db", folder);
    assert_ok(registry_open(where, REGISTRY_WRITE, &r));
    for (i64 i = 0; i < COUNT(names); i++) {
        snprintf(where, sizeof where, "%s/%s", folder, names[i]);
        registry_run run = {.name = names[i],
                            .folder = where,
                            .identity = "00000000000000cc",
                            .config = "",
                            .code = "",
                            .isa = "",
                            .libraries = "",
                            .host = "",
                            .started = 5 - i,
                            .loss = NAN,
                            .bits_per_byte = NAN};
        assert_ok(registry_begin(r, &run, id));
        assert_ok(registry_metrics(r, id, 1, (metric[]){{"loss", 2}}, 1));
        assert_ok(registry_end(r, id, &(registry_run){.status = i == 2 ? "stopped" : "done", .steps = 8}));
        if (i) make_run(names[i], "", NULL, "train: {checkpoint: {milestones: [50%]}}\n");
        for (i64 step = 2; i && step <= 8; step += 2) {
            checkpoint_store *store;
            checkpoint *c;
            assert_ok(checkpoint_open(where, &(checkpoint_options){0}, &store));
            assert_ok(checkpoint_begin(store, step, &c));
            assert_ok(checkpoint_file(c, "state.json", "{}", 2));
            assert_ok(checkpoint_finish(c));
            assert_ok(checkpoint_close(store));
        }
    }
    registry_close(r);
}

static bool there(const char *name)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path_exists(path);
}

static void test_gc(void **state)
{
    (void)state;
    char wanted[1000];
    assert_int_equal(keel_runs("gc --yes --registry=none.db"), 0);
    assert_string_equal(out.data, "nothing to remove\n");
    assert_false(there("none.db"));
    make_rubbish();
    assert_int_equal(keel_runs("gc --registry=gc.db 2>/dev/null | sed 's/[0-9.]* B/SIZE/'"), 0);
    snprintf(wanted, sizeof wanted,
             "entry       00000000000000cc-1  %s/gone (gone)\n"
             "checkpoint  SIZE  %s/finished/step_6\ncheckpoint  SIZE  %s/finished/step_2\n",
             folder, folder, folder);
    assert_string_equal(out.data, wanted);
    assert_true(there("finished/step_2"));

    put_file("finished/step_8/state.json", "{?"); // the newest is damaged: nothing before it may go
    assert_int_equal(keel_runs("gc --yes --registry=gc.db 2>err >/dev/null; cat err"), 0);
    snprintf(wanted, sizeof wanted, "keel: left alone: %s/finished/step_8/state.json: ", folder);
    assert_memory_equal(out.data, wanted, strlen(wanted));
    assert_non_null(strstr(out.data, "\nremoved 1 of 3, 0 B\n"));
    assert_true(there("finished/step_2"));

    put_file("finished/step_8/state.json", "{}");
    assert_int_equal(keel_runs("gc --yes --json --registry=gc.db 2>err | cat"), 0);
    json_t *o = json_loads(out.data, 0, NULL);
    assert_int_equal(json_integer_value(json_object_get(o, "removed")), 2);
    assert_int_equal(json_array_size(json_object_get(o, "items")), 2);
    json_decref(o);
    assert_false(there("finished/step_2") || there("finished/step_6"));
    assert_true(there("finished/step_4") && there("finished/step_8")); // the milestone and the newest
    assert_true(there("halted/step_2") && there("halted/step_6"));     // not finished: all may be wanted
    assert_int_equal(keel_runs("show 00000000000000cc-1 --registry=gc.db"), 1);
    assert_int_equal(keel_runs("gc --yes --registry=gc.db"), 0);
    assert_string_equal(out.data, "nothing to remove\n");
    put_file("finished/config.yaml", "train: {chekpoint: 3}\n");
    assert_int_equal(keel_runs("gc --registry=gc.db"), 0);
    snprintf(wanted, sizeof wanted, "keel: left alone: %s/finished keeps its checkpoints: ", folder);
    assert_memory_equal(out.data, wanted, strlen(wanted));
}

static void test_usage(void **state)
{
    (void)state;
    static const struct {
        const char *arguments, *said;
    } cases[] = {
        {"lsit", "keel: runs: no 'lsit', perhaps 'list'; it is list, show, compare, export, report or gc\n"},
        {"elephant", "keel: runs: no 'elephant'; it is list, show, compare, export, report or gc\n"},
        {"list x", "keel: runs list takes no argument, but got 'x'\n"},
        {"gc x", "keel: runs gc takes no argument, but got 'x'\n"},
        {"show a b", "keel: runs show takes one run, but got 'b'\n"},
        {"show", "keel: runs show: which? Give an id of 'keel runs list' or a run's folder\n"},
        {"export", "keel: runs export: which? Give an id of 'keel runs list' or a run's folder\n"},
        {"export x", "keel: runs export: as what? Give one of --csv, --jsonl and --tensorboard DIR\n"},
        {"export x --csv --jsonl",
         "keel: runs export: as what? Give one of --csv, --jsonl and --tensorboard DIR\n"},
        {"export x --tensorboard t --out y",
         "keel: runs export: --tensorboard names its file itself; leave --out away\n"},
        {"compare x", "keel: runs compare: what with what? Give two runs at least, by id or folder\n"},
        {"report", "keel: runs report: which? Give a run's folder or id, or several\n"},
        {"report a b --samples s", "keel: runs report: --samples goes with one run, but there are 2\n"},
    };
    for (i64 i = 0; i < COUNT(cases); i++) {
        assert_int_equal(keel_runs(cases[i].arguments), 2);
        assert_string_equal(out.data, cases[i].said);
    }
    assert_int_equal(keel_runs(""), 2);
    assert_int_equal(keel_runs("a b c"), 2);
    assert_int_equal(keel_runs("export nowhere --csv"), 1);
    assert_string_equal(
        out.data,
        "keel: no run 'nowhere' in the registry, by id or by folder; 'keel runs list' shows them\n");
    assert_int_equal(keel_runs("--help"), 0);
}

static int begin(void **state)
{
    (void)state;
    if (access(KEEL_BINARY, X_OK)) {
        fprintf(stderr, "%s: not built\n", KEEL_BINARY);
        return 1;
    }
    if (!mkdtemp(folder)) return 1;
    char path[100];
    snprintf(path, sizeof path, "%s/data/runs.db", folder);
    return setenv("KEEL_REGISTRY", path, 1);
}
static int end(void **state)
{
    (void)state;
    text_free(&out);
    status_drop(tree_remove(folder));
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_none),   cmocka_unit_test(test_list_and_show),
        cmocka_unit_test(test_report), cmocka_unit_test(test_compare),
        cmocka_unit_test(test_export), cmocka_unit_test(test_report_of_several),
        cmocka_unit_test(test_gc),     cmocka_unit_test(test_usage),
    };
    return cmocka_run_group_tests(tests, begin, end);
}

/* keel runs, as a user sees it: the table, one run, JSON, a report, and what is said when something is wrong.
 */
#include "base/file.h"
#include "base/text.h"
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

static void test_usage(void **state)
{
    (void)state;
    static const struct {
        const char *arguments, *said;
    } cases[] = {
        {"lsit", "keel: runs: no 'lsit', perhaps 'list'; it is list, show or report\n"},
        {"elephant", "keel: runs: no 'elephant'; it is list, show or report\n"},
        {"list x", "keel: runs list takes no argument, but got 'x'\n"},
        {"show", "keel: runs show: which? Give an id of 'keel runs list' or a run's folder\n"},
        {"report", "keel: runs report: which? Give a run's folder\n"},
    };
    for (i64 i = 0; i < COUNT(cases); i++) {
        assert_int_equal(keel_runs(cases[i].arguments), 2);
        assert_string_equal(out.data, cases[i].said);
    }
    assert_int_equal(keel_runs(""), 2);
    assert_int_equal(keel_runs("a b c"), 2);
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
        cmocka_unit_test(test_none),
        cmocka_unit_test(test_list_and_show),
        cmocka_unit_test(test_report),
        cmocka_unit_test(test_usage),
    };
    return cmocka_run_group_tests(tests, begin, end);
}

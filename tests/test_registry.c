/* The registry of runs and the metrics log: what goes in comes out; foreign, locked, read-only and torn
 * files. */
#include "base/file.h"
#include "train/registry.h"
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static char folder[] = "/tmp/keel-registry-XXXXXX";

#define assert_ok(call)                                                                                      \
    do {                                                                                                     \
        status assert_status_ = (call);                                                                      \
        if (assert_status_) fail_msg("%s: %s", #call, assert_status_->message);                              \
    } while (0)
#define assert_fails(call, wanted_code, ...)                                                                 \
    do {                                                                                                     \
        char wanted_[600];                                                                                   \
        snprintf(wanted_, sizeof wanted_, __VA_ARGS__);                                                      \
        status assert_status_ = (call);                                                                      \
        assert_non_null(assert_status_);                                                                     \
        assert_string_equal(assert_status_->message, wanted_);                                               \
        assert_int_equal(assert_status_->code, wanted_code);                                                 \
        status_drop(assert_status_);                                                                         \
    } while (0)

static const char *at(const char *name)
{
    static char path[4][300];
    static int turn;
    char *p = path[turn = (turn + 1) % 4];
    snprintf(p, sizeof path[0], "%s/%s", folder, name);
    return p;
}

static void assert_holds(const char *path, const char *wanted)
{
    char *data;
    size_t bytes;
    assert_ok(file_read(path, &data, &bytes));
    assert_string_equal(data, wanted);
    free(data);
}

static void spoil(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0666);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static const char first_lines[] =
    "{\"step\":1,\"loss\":3.25,\"lr\":0.001}\n"
    "{\"step\":2,\"loss\":null,\"loss_is\":\"nan\",\"x/y\":null,\"x/y_is\":\"-inf\"}\n";

static void test_metrics_log(void **state)
{
    (void)state;
    const char *path = at("metrics.jsonl");
    metrics_log *log;
    assert_ok(metrics_open(path, 0, &log));
    assert_ok(metrics_append(log, 1, (metric[]){{"loss", 3.25}, {"lr", 1e-3}}, 2));
    assert_ok(metrics_append(log, 2, (metric[]){{"loss", NAN}, {"x/y", -INFINITY}}, 2));
    assert_ok(metrics_sync(log));
    i64 offset = metrics_offset(log);
    assert_int_equal(offset, sizeof first_lines - 1);
    assert_ok(metrics_append(log, 3, (metric[]){{"loss", 1.0 / 3}}, 1));
    metrics_close(log);
    assert_ok(metrics_open(path, offset + 3, &log)); // not at a line's end: back to one
    assert_int_equal(metrics_offset(log), offset);
    metrics_close(log);
    assert_holds(path, first_lines);
    spoil(path, "{\"step\":3,\"lo");
    metrics_data d;
    assert_ok(metrics_load(path, &d));
    assert_int_equal(d.lines, 3);
    assert_int_equal(d.bad_lines, 1);
    assert_int_equal(d.n, 3);
    const metrics_series *loss = metrics_find(&d, "loss");
    assert_int_equal(loss->n, 2);
    assert_true(loss->step[1] == 2 && loss->value[0] == 3.25 && isnan(loss->value[1]));
    assert_null(metrics_find(&d, "step"));
    metrics_free(&d);
    assert_ok(metrics_open(path, 1 << 20, &log)); // shorter than the offset says: after its last whole line
    assert_int_equal(metrics_offset(log), offset);
    assert_ok(metrics_append(log, 3, (metric[]){{"loss", 1.0 / 3}}, 1));
    metrics_close(log);
    char wanted[300];
    snprintf(wanted, sizeof wanted, "%s{\"step\":3,\"loss\":0.33333333333333331}\n", first_lines);
    assert_holds(path, wanted);
    assert_ok(metrics_open(path, 0, &log)); // a new run into the old file
    metrics_close(log);
    assert_holds(path, "");
    metrics_close(NULL);
    assert_fails(metrics_open("/nonexistent/m", 0, &log), ERR_IO,
                 "/nonexistent/m: cannot open: No such file or directory");
}

static void test_metrics_full_disk(void **state)
{
    (void)state;
    const char *path = at("full.jsonl");
    metrics_log *log;
    assert_ok(metrics_open(path, 0, &log));
    fault_set(FAULT_WRITE, 1);
    assert_fails(metrics_append(log, 1, (metric[]){{"loss", 1}}, 1), ERR_IO,
                 "%s: cannot write: No space left on device; free some space and run again", path);
    assert_ok(metrics_append(log, 2, (metric[]){{"loss", 2}}, 1));
    metrics_close(log);
    assert_holds(path, "{\"step\":2,\"loss\":2}\n");
}

static const registry_run sample = {.name = "first \"run\"",
                                    .folder = "/runs/a",
                                    .identity = "0123456789abcdef0123456789abcdef",
                                    .config = "model: {width: 64}\n",
                                    .code = "0.1.0",
                                    .isa = "v4",
                                    .libraries = "oneDNN 2.6.3",
                                    .host = "2 cores",
                                    .threads = 2,
                                    .started = 1700000000,
                                    .steps = 0,
                                    .loss = NAN,
                                    .bits_per_byte = NAN};

static void test_registry_round_trip(void **state)
{
    (void)state;
    const char *path = at("deep/er/runs.db");
    registry *r;
    arena *a;
    registry_run *rows, run = sample;
    char first[REGISTRY_ID], second[REGISTRY_ID];
    metric *values;
    i64 n;
    assert_ok(arena_open(&a));
    assert_ok(registry_open(path, REGISTRY_WRITE, &r));
    assert_ok(registry_begin(r, &run, first));
    assert_string_equal(first, "0123456789abcdef-1");
    run.started++, run.folder = "/runs/b";
    assert_ok(registry_begin(r, &run, second));
    assert_string_equal(second, "0123456789abcdef-2");
    for (i64 step = 1; step <= 12; step++)
        assert_ok(registry_metrics(r, first, step, (metric[]){{"loss", 10 - (double)step}, {"lr", NAN}}, 2));
    registry_run end = {
        .status = "done", .ended = 1700000100, .steps = 12, .tokens = 1200, .loss = -2, .bits_per_byte = NAN};
    assert_ok(registry_end(r, first, &end));
    registry_close(r);

    assert_ok(registry_open(path, REGISTRY_READ, &r));
    assert_ok(registry_list(r, a, &rows, &n));
    assert_int_equal(n, 2);
    assert_string_equal(rows[0].id, second);
    assert_string_equal(rows[0].status, "running");
    assert_string_equal(rows[1].name, "first \"run\"");
    assert_string_equal(rows[1].config, sample.config);
    assert_string_equal(rows[1].status, "done");
    assert_true(rows[1].threads == 2 && rows[1].tokens == 1200 && rows[1].loss == -2 &&
                isnan(rows[1].bits_per_byte));
    assert_ok(registry_last_metrics(r, a, first, &values, &n));
    assert_int_equal(n, 2);
    assert_true(!strcmp(values[0].name, "loss") && values[0].value == -2 && isnan(values[1].value));
    assert_ok(registry_find(r, a, second, &run));
    assert_ok(registry_find(r, a, "/runs/a", &run));
    assert_string_equal(run.id, first);
    assert_fails(registry_find(r, a, "0123", &run), ERR_INPUT,
                 "'0123' begins the ids of 2 runs, 0123456789abcdef-2 and 0123456789abcdef-1 among them; "
                 "give more of it");
    assert_fails(registry_find(r, a, "nope", &run), ERR_INPUT,
                 "no run 'nope' in the registry, by id or by folder; 'keel runs list' shows them");
    registry_close(r);

    /* resumed from step 5: the same id, metrics after it gone, the first start kept */
    assert_ok(registry_open(path, REGISTRY_WRITE, &r));
    run = sample;
    run.id = first, run.steps = 5, run.started = 1700009999;
    char again[REGISTRY_ID];
    assert_ok(registry_begin(r, &run, again));
    assert_string_equal(again, first);
    assert_ok(registry_last_metrics(r, a, first, &values, &n));
    assert_true(n == 2 && values[0].value == 5);
    assert_ok(registry_find(r, a, first, &run));
    assert_true(!strcmp(run.status, "running") && run.started == 1700000000 && run.ended == 0);
    registry_close(r);
    arena_close(a);
}

static void test_registry_trouble(void **state)
{
    (void)state;
    registry *r = (registry *)&r;
    char id[REGISTRY_ID];
    assert_ok(registry_open(at("none.db"), REGISTRY_READ, &r)); // none: no runs, and none is made
    assert_null(r);
    assert_false(path_exists(at("none.db")));
    assert_ok(registry_begin(NULL, &sample, id)); // without a registry all of it does nothing
    assert_string_equal(id, "0123456789abcdef-0");
    assert_ok(registry_metrics(NULL, id, 1, NULL, 0));
    assert_ok(registry_end(NULL, id, &sample));
    registry_close(NULL);
    spoil(at("foreign.db"), "this is no database, however long one looks at it, and it will not become one");
    assert_fails(
        registry_open(at("foreign.db"), REGISTRY_WRITE, &r), ERR_FORMAT,
        "%s: cannot read the registry of runs: file is not a database; move it away and a new one is made",
        at("foreign.db"));
    assert_fails(registry_open(at("foreign.db/x"), REGISTRY_WRITE, &r), ERR_IO,
                 "the registry of runs: %s: cannot create the folder: Not a directory", at("foreign.db"));
    sqlite3 *db;
    assert_int_equal(sqlite3_open(at("newer.db"), &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "PRAGMA user_version = 2", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    assert_fails(registry_open(at("newer.db"), REGISTRY_WRITE, &r), ERR_FORMAT,
                 "%s: a registry of version 2; this program knows 1: use a newer one", at("newer.db"));
}

/* Another process holds the write lock: one warning, then silence; the end is entered when it can be. */
static void test_registry_locked(void **state)
{
    (void)state;
    registry *r;
    sqlite3 *db;
    arena *a;
    registry_run run;
    char id[REGISTRY_ID];
    const char *path = at("locked.db");
    assert_ok(arena_open(&a));
    assert_ok(registry_open(path, REGISTRY_WRITE, &r));
    assert_ok(registry_begin(r, &sample, id));
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    assert_fails(registry_metrics(r, id, 1, (metric[]){{"loss", 1}}, 1), ERR_IO,
                 "%s: cannot write the registry of runs: database is locked; another process holds it", path);
    assert_ok(registry_metrics(r, id, 2, (metric[]){{"loss", 1}}, 1));
    assert_int_equal(sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    assert_ok(registry_end(r, id, &(registry_run){.status = "stopped", .steps = 2}));
    assert_ok(registry_find(r, a, id, &run));
    assert_string_equal(run.status, "stopped");
    registry_close(r);
    arena_close(a);
}

static void test_registry_path(void **state)
{
    (void)state;
    char *path;
    setenv("KEEL_REGISTRY", "/a/b.db", 1);
    setenv("XDG_DATA_HOME", "/data", 1);
    setenv("HOME", "/home/me", 1);
    static const char *const wanted[] = {"/a/b.db", "/data/keel/runs.db",
                                         "/home/me/.local/share/keel/runs.db"},
                             *const names[] = {"KEEL_REGISTRY", "XDG_DATA_HOME", "HOME"};
    for (int i = 0; i < 3; i++) {
        assert_ok(registry_path(&path));
        assert_string_equal(path, wanted[i]);
        free(path);
        unsetenv(names[i]);
    }
    assert_fails(registry_path(&path), ERR_CONFIG,
                 "no place for the registry of runs: HOME is not set; set KEEL_REGISTRY to a file's path");
}

static int begin(void **state) { return (void)state, !mkdtemp(folder); }
static int end(void **state)
{
    (void)state;
    status_drop(tree_remove(folder));
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_metrics_log),         cmocka_unit_test(test_metrics_full_disk),
        cmocka_unit_test(test_registry_round_trip), cmocka_unit_test(test_registry_trouble),
        cmocka_unit_test(test_registry_locked),     cmocka_unit_test(test_registry_path),
    };
    return cmocka_run_group_tests(tests, begin, end);
}

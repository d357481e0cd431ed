/* The checkpoint store: at every write, fsync and rename of a save that fails or is the process's last
 * moment, the run's folder still holds a whole checkpoint with the right bytes; every flipped byte is named.
 */
#include "base/file.h"
#include "base/random.h"
#include "train/checkpoint.h"
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

extern char **environ;
static char folder[] = "/tmp/keel-checkpoint-XXXXXX";
static char run[128], said[4000];

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

static void talk(void *context, const char *line)
{
    (void)context;
    snprintf(said + strlen(said), sizeof said - strlen(said), "%s\n", line);
}

static const char *at(const char *name)
{
    static char path[4][300];
    static int turn;
    char *p = path[turn = (turn + 1) % 4];
    snprintf(p, sizeof path[0], "%s/%s", run, name);
    return p;
}

static i64 entries_of(const char *dir)
{
    char command[400];
    long long n = -1;
    snprintf(command, sizeof command, "ls -A %s | wc -l", dir);
    FILE *p = popen(command, "r");
    assert_int_equal(fscanf(p, "%lld", &n), 1);
    pclose(p);
    return n;
}

/* Saves states that are a function of the step. */
static status save(checkpoint_store *store, i64 step)
{
    float w[6], m[3];
    char state[64];
    checkpoint *c;
    for (int i = 0; i < 6; i++) w[i] = (float)step + (float)i;
    for (int i = 0; i < 3; i++) m[i] = -(float)step;
    const st_entry model[] = {{.name = "a", .dtype = ST_F32, .n_dims = 2, .dims = {2, 2}, .data = w},
                              {.name = "b", .dtype = ST_F32, .n_dims = 1, .dims = {2}, .data = w + 4}},
                   optimizer[] = {{.name = "a.m", .dtype = ST_F32, .n_dims = 1, .dims = {3}, .data = m}};
    int n = snprintf(state, sizeof state, "{\"step\": %lld}\n", (long long)step);
    TRY(checkpoint_begin(store, step, &c));
    TRY(checkpoint_arrays(c, "model.safetensors", model, 2, NULL, 0));
    TRY(checkpoint_arrays(c, "optimizer.safetensors", optimizer, 1, NULL, 0));
    TRY(checkpoint_file(c, "state.json", state, (size_t)n));
    memset(w, 0xff, sizeof w); // the states may move on at once
    memset(m, 0xff, sizeof m);
    TRY(checkpoint_finish(c));
    return checkpoint_wait(store);
}

static void assert_states(const char *path, i64 step)
{
    char file[400];
    st_file *f;
    snprintf(file, sizeof file, "%s/model.safetensors", path);
    assert_ok(st_open(file, &f));
    assert_true(((const float *)st_find(f, "b")->data)[1] == (float)step + 5);
    st_close(f);
    snprintf(file, sizeof file, "%s/optimizer.safetensors", path);
    assert_ok(st_open(file, &f));
    assert_true(((const float *)st_find(f, "a.m")->data)[2] == -(float)step);
    st_close(f);
}

/* The newest whole checkpoint, its states checked. */
static i64 latest(void)
{
    char *path;
    i64 step;
    said[0] = 0;
    assert_ok(checkpoint_latest(run, talk, NULL, &path, &step));
    if (path) assert_states(path, step);
    assert_true(!path == (step < 0));
    free(path);
    return step;
}

static checkpoint_store *open_store(checkpoint_options options)
{
    checkpoint_store *store = NULL;
    options.talk = talk;
    assert_ok(checkpoint_open(run, &options, &store));
    return store;
}

static void flip(const char *path, off_t offset, u8 bits)
{
    u8 byte;
    int fd = open(path, O_RDWR);
    assert_int_equal(pread(fd, &byte, 1, offset), 1);
    byte ^= bits;
    assert_int_equal(pwrite(fd, &byte, 1, offset), 1);
    close(fd);
}

static void test_save_and_find(void **state)
{
    (void)state;
    assert_int_equal(latest(), -1); // no folder
    checkpoint_store *store = open_store((checkpoint_options){0});
    assert_int_equal(latest(), -1);
    assert_ok(save(store, 0));
    assert_int_equal(latest(), 0);
    assert_ok(save(store, 9));
    assert_ok(save(store, 10));
    assert_int_equal(latest(), 10);
    assert_int_equal(entries_of(at("step_10")), 4);
    assert_int_equal(entries_of(run), 4); // three, and the lock
    char *text;
    size_t bytes;
    assert_ok(file_read(at("step_10/manifest.json"), &text, &bytes));
    assert_non_null(
        strstr(text, "{\"version\": 1, \"step\": 10, \"files\": {\n\"model.safetensors\": {\"bytes\": "));
    free(text);
    assert_ok(checkpoint_close(store));
}

static void test_equal_runs_give_equal_bytes(void **state)
{
    (void)state;
    char command[600];
    checkpoint_store *store = open_store((checkpoint_options){0});
    assert_ok(save(store, 5));
    assert_ok(checkpoint_close(store));
    snprintf(command, sizeof command, "mv %s %s-first", run, run);
    assert_int_equal(system(command), 0);
    store = open_store((checkpoint_options){0});
    assert_ok(save(store, 5));
    assert_ok(checkpoint_close(store));
    snprintf(command, sizeof command, "diff -r %s/step_5 %s-first/step_5 && rm -r %s-first", run, run, run);
    assert_int_equal(system(command), 0);
}

static void test_keep_and_milestones(void **state)
{
    (void)state;
    const i64 milestones[] = {2, 3};
    checkpoint_store *store =
        open_store((checkpoint_options){.keep = 2, .milestones = milestones, .n_milestones = 2});
    for (i64 step = 1; step <= 6; step++) assert_ok(save(store, step));
    const bool stands[] = {false, false, true, true, false, true, true};
    for (i64 step = 1; step <= 6; step++) {
        char name[16];
        snprintf(name, sizeof name, "step_%lld", (long long)step);
        assert_int_equal(path_exists(at(name)), stands[step]);
    }
    /* after a roll-back the later ones do not count as the newest, and can be discarded */
    assert_ok(save(store, 4));
    assert_true(path_exists(at("step_3")) && path_exists(at("step_4")) && path_exists(at("step_6")));
    assert_ok(checkpoint_discard_after(store, 4));
    assert_int_equal(latest(), 4);
    assert_int_equal(entries_of(run), 4); // 2, 3, 4, lock
    assert_ok(checkpoint_close(store));
}

static void test_same_step_again(void **state)
{
    (void)state;
    checkpoint_store *store = open_store((checkpoint_options){0});
    assert_ok(save(store, 3));
    flip(at("step_3/state.json"), 0, 1);
    assert_ok(save(store, 3));
    assert_int_equal(latest(), 3);
    assert_int_equal(entries_of(run), 2);
    assert_ok(checkpoint_close(store));
}

static void test_lock(void **state)
{
    (void)state;
    checkpoint_store *store = open_store((checkpoint_options){0}), *second = NULL;
    assert_fails(checkpoint_open(run, &(checkpoint_options){0}, &second), ERR_IO,
                 "%s: process %ld is training into this folder; wait for it or choose another", run,
                 (long)getpid());
    assert_null(second);
    assert_ok(checkpoint_close(store));
    assert_ok(checkpoint_close(open_store((checkpoint_options){0})));
}

static void test_abandon_and_leftovers(void **state)
{
    (void)state;
    checkpoint_store *store = open_store((checkpoint_options){0});
    checkpoint *c;
    assert_ok(checkpoint_begin(store, 1, &c));
    assert_ok(checkpoint_file(c, "state.json", "{}", 2));
    checkpoint_abandon(c);
    checkpoint_abandon(NULL);
    assert_int_equal(entries_of(run), 1);
    assert_ok(checkpoint_close(store));
    /* What to sweep: halves of saves; files of dead processes. What to leave: a living process's, the user's
     * own. */
    assert_ok(dir_make(at("step_7.tmp-1/x")));
    assert_ok(dir_make(at("step_7.old.tmp-1")));
    assert_ok(dir_make(at("report.html.tmp-2147483647")));
    assert_ok(dir_make(at("notes.tmp-1")));
    assert_ok(dir_make(at("notes.tmp-mine")));
    store = open_store((checkpoint_options){0});
    assert_int_equal(entries_of(run), 3);
    assert_true(path_exists(at("notes.tmp-1")) && path_exists(at("notes.tmp-mine")));
    assert_ok(checkpoint_close(store));
}

static void test_damage_is_named(void **state)
{
    (void)state;
    checkpoint_store *store = open_store((checkpoint_options){0});
    for (i64 step = 1; step <= 6; step++) assert_ok(save(store, step));
    assert_ok(checkpoint_close(store));
    char wanted[2000], command[400];
    assert_ok(tree_remove(at("step_6/manifest.json")));
    assert_ok(tree_remove(at("step_5/state.json")));
    assert_int_equal(truncate(at("step_4/state.json"), 3), 0);
    flip(at("step_3/state.json"), 2, 4);
    snprintf(command, sizeof command, "cp -r %s/step_2 %s/step_33", run, run);
    assert_int_equal(system(command), 0);
    assert_int_equal(latest(), 2);
    snprintf(wanted, sizeof wanted,
             "%s/step_33: its manifest is of step 2; the folder was renamed\n"
             "%s/step_6/manifest.json: missing, so the checkpoint was never completed\n"
             "%s/step_5/state.json: missing, though the manifest lists it\n"
             "%s/step_4/state.json: 3 bytes, but the manifest says 12; the file is damaged\n"
             "%s/step_3/state.json: its checksum is ",
             run, run, run, run, run);
    said[strlen(wanted)] = 0;
    assert_string_equal(said, wanted);
    assert_ok(tree_remove(at("step_1")));
    assert_ok(tree_remove(at("step_2/manifest.json")));
    char *path;
    i64 step;
    assert_fails(checkpoint_latest(run, NULL, NULL, &path, &step), ERR_FORMAT,
                 "%s: none of its 6 checkpoints is whole; move them away to start from step 0", run);
    assert_fails(checkpoint_verify(at("step_99"), &step), ERR_FORMAT,
                 "%s/step_99: no such folder; a checkpoint is a folder RUN/step_N", run);
}

static void test_every_flipped_byte_is_named(void **state)
{
    (void)state;
    checkpoint_store *store = open_store((checkpoint_options){0});
    assert_ok(save(store, 1));
    assert_ok(checkpoint_close(store));
    static const char *const names[] = {"step_1/model.safetensors", "step_1/optimizer.safetensors",
                                        "step_1/state.json", "step_1/manifest.json"};
    i64 step, flips = 0;
    for (i64 n = 0; n < COUNT(names); n++) {
        struct stat st;
        char wanted[300];
        strcpy(wanted, at(names[n]));
        assert_int_equal(stat(wanted, &st), 0);
        for (off_t i = 0; i < st.st_size; i++, flips++) {
            const u8 bits = (u8)(1 << i % 8);
            flip(wanted, i, bits);
            status s = checkpoint_verify(at("step_1"), &step);
            if (!s) fail_msg("%s: byte %lld flipped, and not seen", wanted, (long long)i);
            s->message[strlen(wanted)] = 0;
            assert_string_equal(s->message, wanted);
            status_drop(s);
            flip(wanted, i, bits);
        }
    }
    assert_true(flips > 500);
    assert_ok(checkpoint_verify(at("step_1"), &step));
    assert_int_equal(step, 1);
}

static void test_messages(void **state)
{
    (void)state;
    checkpoint_store *store = open_store((checkpoint_options){0});
    fault_set(FAULT_WRITE, 3);
    assert_fails(save(store, 4), ERR_IO,
                 "%s/step_4.tmp-%ld/model.safetensors: cannot write: No space left on device; free some "
                 "space and run again",
                 run, (long)getpid());
    fault_set(FAULT_FSYNC, 2);
    assert_fails(
        save(store, 4), ERR_IO,
        "checkpoint of step 4: %s/step_4.tmp-%ld/optimizer.safetensors: cannot fsync: Input/output error",
        run, (long)getpid());
    fault_set(FAULT_RENAME, 1);
    assert_fails(
        save(store, 4), ERR_IO,
        "checkpoint of step 4: %s/step_4.tmp-%ld: cannot rename to its final name: Input/output error", run,
        (long)getpid());
    assert_ok(checkpoint_close(store));
}

static const fault_kind kinds[] = {FAULT_WRITE, FAULT_FSYNC, FAULT_RENAME};
static const char *const kind_names[] = {"write", "fsync", "rename"};

/* The k-th operation of a save fails: a status; the previous checkpoint is found; only the last sync comes
 * after the name is given; nothing is left over; the next save succeeds. */
static void test_every_fault_fails_cleanly(void **state)
{
    (void)state;
    i64 failures[3] = {0};
    checkpoint_store *store = open_store((checkpoint_options){.keep = 2});
    assert_ok(save(store, 1));
    i64 step = 2;
    for (i64 i = 0; i < COUNT(kinds); i++)
        for (i64 k = 1;; k++, step++) {
            said[0] = 0;
            fault_set(kinds[i], k);
            status s = save(store, step);
            fault_set(kinds[i], 0);
            bool warned = said[0];
            if (!s && !warned) {
                assert_int_equal(latest(), step++);
                break;
            }
            failures[i]++;
            if (s) {
                assert_int_equal(s->code, ERR_IO);
                bool last_sync = kinds[i] == FAULT_FSYNC && k == 6;
                assert_int_equal(latest(), last_sync ? step : step - 1);
            } else // an older checkpoint could not be removed: the new one stands all the same
                assert_int_equal(latest(), step);
            status_drop(s);
            assert_string_equal(said, "");
            assert_ok(save(store, step));
            assert_int_equal(latest(), step);
            assert_true(entries_of(run) <= 4);
        }
    assert_int_equal(failures[0], 9); // two a header, one an array (three), state, manifest
    assert_int_equal(failures[1], 6); // three files, the manifest, the folder, the run's folder
    assert_int_equal(failures[2], 2); // the new one's, and the old one's on its way out
    assert_ok(checkpoint_close(store));
}

/* This program, as a user's process: opens the run and saves step STEP. */
static int child(const char *dir, const char *step)
{
    checkpoint_store *store;
    status s = fault_from_environment();
    if (!s) s = checkpoint_open(dir, &(checkpoint_options){.keep = 2}, &store);
    if (!s) s = save(store, atoi(step));
    if (!s) s = checkpoint_close(store);
    if (s) fprintf(stderr, "%s\n", s->message);
    return s ? 1 : 0;
}

static int run_child(const char *fault, i64 step)
{
    char number[24], *arguments[] = {"test_checkpoint", "child", run, number, NULL};
    snprintf(number, sizeof number, "%lld", (long long)step);
    if (fault)
        setenv("KEEL_FAULT", fault, 1);
    else
        unsetenv("KEEL_FAULT");
    pid_t pid;
    int how;
    assert_int_equal(posix_spawn(&pid, "/proc/self/exe", NULL, NULL, arguments, environ), 0);
    assert_int_equal(waitpid(pid, &how, 0), pid);
    return how;
}

/* The process dies at the k-th operation of a save, for every k; also while it saves a step anew. */
static void test_killed_at_every_k(void **state)
{
    (void)state;
    assert_int_equal(run_child(NULL, 1), 0);
    assert_int_equal(run_child(NULL, 2), 0);
    i64 step = 3, kills = 0;
    for (i64 i = 0; i < COUNT(kinds); i++)
        for (i64 k = 1;; k++, step++) {
            char fault[40];
            snprintf(fault, sizeof fault, "%s:%lld:kill", kind_names[i], (long long)k);
            int how = run_child(fault, step);
            if (WIFEXITED(how)) {
                assert_int_equal(WEXITSTATUS(how), 0);
                assert_int_equal(latest(), step++);
                break;
            }
            assert_int_equal(WTERMSIG(how), SIGKILL);
            kills++;
            i64 found = latest();
            assert_true(found == step - 1 || found == step);
            assert_string_equal(said, "");                  // nothing damaged ever stood under a final name
            assert_int_equal(run_child(fault, found), how); // the same step again, killed again
            assert_int_equal(latest(), found);
            assert_int_equal(run_child(NULL, step), 0);
            assert_int_equal(latest(), step);
            assert_true(entries_of(run) <= 4);
        }
    assert_int_equal(kills, 9 + 7 + 2); // one fsync more: opening syncs the folder that holds the run's
}

/* Saves step after step until it is killed. */
static int save_forever(const char *dir)
{
    checkpoint_store *store;
    char *path;
    i64 step;
    status s = checkpoint_open(dir, &(checkpoint_options){.keep = 50}, &store);
    if (!s) s = checkpoint_latest(dir, NULL, NULL, &path, &step);
    while (!s) s = save(store, ++step);
    fprintf(stderr, "%s\n", s->message);
    return 1;
}

/* Killed at any moment of a save, for 60 moments: what stands is whole, what was there is not lost, and the
 * next process goes on from it. */
static void test_killed_at_any_moment(void **state)
{
    (void)state;
    char *arguments[] = {"test_checkpoint", "forever", run, NULL}, next[40];
    unsetenv("KEEL_FAULT");
    i64 before = -1;
    for (int i = 0; i < 60; i++) {
        pid_t pid;
        int how;
        assert_int_equal(posix_spawn(&pid, "/proc/self/exe", NULL, NULL, arguments, environ), 0);
        snprintf(next, sizeof next, "step_%lld", (long long)before + 1);
        for (int wait = 0; wait < 100000 && !path_exists(at(next)); wait++) usleep(100);
        usleep((useconds_t)(random_bits(1, 2, 3, (u64)i) % 3000)); // a save takes about one millisecond
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitpid(pid, &how, 0), pid);
        assert_true(WIFSIGNALED(how)); // it did not end by itself, that is, fail
        i64 found = latest();
        assert_string_equal(said, "");
        assert_true(found > before);
        before = found;
    }
}

static int set_up(void **state)
{
    (void)state;
    status_drop(tree_remove(run));
    return 0;
}
static int begin(void **state)
{
    (void)state;
    if (!mkdtemp(folder)) return 1;
    snprintf(run, sizeof run, "%s/runs/a", folder);
    return 0;
}
static int end(void **state)
{
    (void)state;
    status_drop(tree_remove(folder));
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3) return save_forever(argv[2]);
    if (argc == 4) return child(argv[2], argv[3]);
#define CASE(name) cmocka_unit_test_setup(test_##name, set_up)
    const struct CMUnitTest tests[] = {
        CASE(save_and_find),
        CASE(equal_runs_give_equal_bytes),
        CASE(keep_and_milestones),
        CASE(same_step_again),
        CASE(lock),
        CASE(abandon_and_leftovers),
        CASE(damage_is_named),
        CASE(every_flipped_byte_is_named),
        CASE(every_fault_fails_cleanly),
        CASE(killed_at_every_k),
        CASE(messages),
        CASE(killed_at_any_moment),
    };
    return cmocka_run_group_tests(tests, begin, end);
}

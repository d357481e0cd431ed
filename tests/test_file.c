/* Files are replaced whole or not at all, and nothing but a file is replaced. */
#include "check.h"
#include "base/file.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[] = "/tmp/keel-test-file-XXXXXX";

static const char *at(const char *name, char out[256])
{
    snprintf(out, 256, "%s/%s", folder, name);
    return out;
}

static void test_only_files_are_replaced(void **state)
{
    (void)state;
    char pipe[256], link[256], target[256], message[512];
    file_writer *w;
    assert_int_equal(mkfifo(at("pipe", pipe), 0600), 0);
    assert_int_equal(symlink(at("target", target), at("link", link)), 0);
    snprintf(message, sizeof message,
             "%s: is not a regular file, which must not be replaced by a file; name a file", pipe);
    assert_fails(file_create(pipe, &w), ERR_IO, message);
    snprintf(message, sizeof message,
             "%s: is a symbolic link, which must not be replaced by a file; name a file", link);
    assert_fails(file_create(link, &w), ERR_IO, message);
    snprintf(message, sizeof message, "%s: is a folder, which must not be replaced by a file; name a file",
             folder);
    assert_fails(file_create(folder, &w), ERR_IO, message);
    assert_fails(file_create("/dev/null", &w), ERR_IO,
                 "/dev/null: is not a regular file, which must not be replaced by a file; name a file");
}

/* Whichever operation fails, the name holds what it held before, and no temporary file stays. */
static void test_failures_leave_the_old(void **state)
{
    (void)state;
    static const fault_kind kinds[] = {FAULT_WRITE, FAULT_FSYNC, FAULT_RENAME};
    char path[256], command[512], *data;
    size_t bytes;
    file_writer *w;
    assert_ok(file_create(at("kept", path), &w));
    assert_ok(file_write(w, "old", 3));
    assert_ok(file_commit(w));
    for (int k = 0; k < COUNT(kinds); k++) {
        fault_set(kinds[k], 1);
        assert_ok(file_create(path, &w));
        assert_ok(file_write(w, "new!", 4));
        status s = file_commit(w);
        fault_set(kinds[k], 0);
        assert_non_null(s);
        status_drop(s);
        assert_ok(file_read(path, &data, &bytes));
        assert_int_equal(bytes, 3);
        assert_memory_equal(data, "old", 3);
        mem_free(data);
    }
    snprintf(command, sizeof command, "test -z \"$(ls %s | grep tmp-)\"", folder);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_only_files_are_replaced),
                                       cmocka_unit_test(test_failures_leave_the_old)};
    if (!mkdtemp(folder)) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    status_drop(tree_remove(folder));
    return failed;
}

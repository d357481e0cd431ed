/* Threads and levels: what the environment, the affinity mask and cgroup v2 say, and what follows. */
#define _GNU_SOURCE
#include "check.h"
#include "base/file.h"
#include "device/cpu.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char root[] = "/tmp/keel-cgroup-XXXXXX";

static void put(const char *group, const char *line)
{
    char path[256];
    snprintf(path, sizeof path, "%s%s", root, group);
    assert_ok(dir_make(path));
    snprintf(path, sizeof path, "%s%s/cpu.max", root, group);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(line, f);
    fclose(f);
}

static void expect(const char *omp, i64 affinity, const char *group, i64 threads, const char *why)
{
    cpu_budget b;
    assert_ok(cpu_count_threads(&(cpu_sources){omp, affinity, root, group}, &b));
    assert_int_equal(b.threads, threads);
    assert_int_equal(b.cpus, affinity);
    assert_string_equal(b.why, why);
}

static void test_cgroup(void **state)
{
    (void)state;
    put("/a", "250000 100000\n");
    put("/a/b", "max 100000\n");
    put("/a/b/c", "700000 100000\n");
    put("/small", "50000 100000\n");
    put("/odd", "nonsense\n");
    expect("", 8, "/none", 8, "8 CPUs in the affinity mask");
    expect("", 1, "/", 1, "1 CPU in the affinity mask");
    expect("", 8, "/a", 2, "cgroup cpu.max grants 2.50 of 8 CPUs");
    expect("", 8, "/a/b", 2, "cgroup cpu.max grants 2.50 of 8 CPUs");   // the parent's limit holds
    expect("", 8, "/a/b/c", 2, "cgroup cpu.max grants 2.50 of 8 CPUs"); // the tightest one
    expect("", 2, "/a", 2, "2 CPUs in the affinity mask");              // the mask is tighter
    expect("", 8, "/small", 1, "cgroup cpu.max grants 0.50 of 8 CPUs"); // never none
    expect("", 8, "/odd", 8, "8 CPUs in the affinity mask");
    put("", "300000 100000\n");
    expect("", 8, "/", 3, "cgroup cpu.max grants 3.00 of 8 CPUs"); // the root of a container
    expect("", 8, "/odd", 3, "cgroup cpu.max grants 3.00 of 8 CPUs");
}

static void test_omp_num_threads(void **state)
{
    (void)state;
    expect("5", 8, "/a", 5, "OMP_NUM_THREADS=5");
    expect("4,2", 8, "/a", 4, "OMP_NUM_THREADS=4");
    expect("9", 8, "/a", 9, "OMP_NUM_THREADS=9, more than the CPUs we may run on: this is slow");
    cpu_budget b;
    const char *const bad[] = {"0", "-1", "4097", "two", "2x", ",2", "99999999999999999999"};
    for (i64 i = 0; i < COUNT(bad); i++) {
        char message[160];
        snprintf(message, sizeof message, "OMP_NUM_THREADS is '%s'; it must be a number from 1 to 4096",
                 bad[i]);
        assert_fails(cpu_count_threads(&(cpu_sources){bad[i], 8, root, "/"}, &b), ERR_USAGE, message);
    }
}

static void test_this_machine(void **state)
{
    (void)state;
    cpu_facts cpu;
    cpu_budget b;
    cpu_detect(&cpu);
    assert_true(cpu.level < ISA_COUNT);
    assert_true(strlen(cpu.name) > 0);
    unsetenv("OMP_NUM_THREADS");
    assert_ok(cpu_count_threads(NULL, &b));
    assert_in_range(b.threads, 1, b.cpus);
    setenv("OMP_NUM_THREADS", "3", 1);
    assert_ok(cpu_count_threads(NULL, &b));
    assert_int_equal(b.threads, 3);
}

static void test_names(void **state)
{
    (void)state;
    isa level;
    for (int i = 0; i < ISA_COUNT; i++) {
        assert_ok(isa_parse(isa_name((isa)i), &level));
        assert_int_equal(level, i);
    }
    assert_fails(isa_parse("avx2", &level), ERR_USAGE,
                 "no instruction-set level 'avx2'; it must be plain, v3 or v4");
}

int main(void)
{
    if (!mkdtemp(root)) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cgroup),
        cmocka_unit_test(test_omp_num_threads),
        cmocka_unit_test(test_this_machine),
        cmocka_unit_test(test_names),
    };
    int bad = cmocka_run_group_tests(tests, NULL, NULL);
    status_drop(tree_remove(root));
    return bad != 0;
}

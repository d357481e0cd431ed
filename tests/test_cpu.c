/* Threads and levels: what the environment, the affinity mask and cgroups say, and what follows. */
#define _GNU_SOURCE
#include "check.h"
#include "base/file.h"
#include "device/cpu.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char root[] = "/tmp/keel-cgroup-XXXXXX";

/* ROOT/FILE holds LINE; its folder is made. */
static void put(const char *file, const char *line)
{
    char path[256];
    snprintf(path, sizeof path, "%s%s", root, file);
    *strrchr(path, '/') = 0;
    assert_ok(dir_make(path));
    path[strlen(path)] = '/';
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(line, f);
    fclose(f);
}

/* A machine whose /proc/self/cgroup holds GROUPS. */
static cgroup_source machine(const char *groups)
{
    static char path[64];
    put("/groups", groups);
    snprintf(path, sizeof path, "%s/groups", root);
    return (cgroup_source){root, path};
}

static void expect(const char *omp, i64 affinity, const char *groups, i64 threads, const char *why)
{
    cpu_budget b;
    cgroup_source from = machine(groups);
    assert_ok(cpu_count_threads(&(cpu_sources){omp, affinity, &from}, &b));
    assert_string_equal(b.why, why);
    assert_int_equal(b.threads, threads);
    assert_int_equal(b.cpus, affinity);
}

static void test_cgroup(void **state)
{
    (void)state;
    put("/a/cpu.max", "250000 100000\n");
    put("/a/b/cpu.max", "max 100000\n");
    put("/a/b/c/cpu.max", "700000 100000\n");
    put("/small/cpu.max", "50000 100000\n");
    put("/odd/cpu.max", "nonsense\n");
    const char *grants = "the cgroup grants 2.50 of 8 CPUs";
    expect("", 8, "0::/none\n", 8, "8 CPUs in the affinity mask");
    expect("", 1, "0::/\n", 1, "1 CPU in the affinity mask");
    expect("", 8, "0::/a\n", 2, grants);
    expect("", 8, "0::/a/b\n", 2, grants);                               // the parent's limit holds
    expect("", 8, "0::/a/b/c\n", 2, grants);                             // the tightest one
    expect("", 2, "0::/a\n", 2, "2 CPUs in the affinity mask");          // the mask is tighter
    expect("", 8, "0::/small\n", 1, "the cgroup grants 0.50 of 8 CPUs"); // never none
    expect("", 8, "0::/odd\n", 8, "8 CPUs in the affinity mask");
    expect("", 8, "", 8, "8 CPUs in the affinity mask"); // no such file, or nothing in it
    put("/cpu.max", "300000 100000\n");
    expect("", 8, "0::/\n", 3, "the cgroup grants 3.00 of 8 CPUs"); // the root of a container
    expect("", 8, "0::/odd\n", 3, "the cgroup grants 3.00 of 8 CPUs");
    expect("", 8, "0::/not/visible/here\n", 3, "the cgroup grants 3.00 of 8 CPUs");
}

static void test_cgroup_1(void **state)
{
    (void)state;
    put("/cpu/a/cpu.cfs_quota_us", "150000\n");
    put("/cpu/a/cpu.cfs_period_us", "100000\n");
    put("/cpu/cpu.cfs_quota_us", "-1\n"); // no limit
    put("/cpu/cpu.cfs_period_us", "100000\n");
    expect("", 4, "4:memory:/\n3:cpuset,cpu:/a\n", 1, "the cgroup grants 1.50 of 4 CPUs");
    expect("", 4, "3:cpuset:/a\n", 4, "4 CPUs in the affinity mask"); // another controller
    // both versions mounted: version 2 below "unified", and the tighter one counts
    put("/unified/cgroup.controllers", "");
    put("/unified/x/cpu.max", "320000 100000\n");
    expect("", 4, "3:cpu,cpuacct:/\n0::/x\n", 3, "the cgroup grants 3.20 of 4 CPUs");
    expect("", 4, "3:cpu,cpuacct:/a\n0::/x\n", 1, "the cgroup grants 1.50 of 4 CPUs");
}

static void test_memory(void **state)
{
    (void)state;
    cgroup_source none = machine("0::/none\n");
    assert_true(cgroup_memory(&none) == 0);
    put("/unified/m/memory.max", "max\n");
    put("/unified/m/n/memory.max", "1073741824\n");
    cgroup_source free_of_it = machine("0::/m\n"), under = machine("0::/m/n\n");
    assert_true(cgroup_memory(&under) == 0x1p30);
    put("/memory/u/memory.limit_in_bytes", "536870912\n");
    put("/memory/memory.limit_in_bytes", "9223372036854771712\n"); // version 1's "none"
    free_of_it = machine("5:memory:/\n0::/m\n");
    assert_true(cgroup_memory(&free_of_it) == 0);
    under = machine("5:memory:/u\n0::/m/n\n");
    assert_true(cgroup_memory(&under) == 0x1p29); // the tighter of the two
}

static void test_omp_num_threads(void **state)
{
    (void)state;
    put("/unified/a/cpu.max", "350000 100000\n");
    expect("5", 8, "0::/none\n", 5, "OMP_NUM_THREADS=5");
    expect("8,2", 8, "0::/none\n", 8, "OMP_NUM_THREADS=8");
    expect("9", 8, "0::/none\n", 8, "8 CPUs in the affinity mask, not OMP_NUM_THREADS=9; --threads may");
    expect("2", 8, "0::/a\n", 2, "OMP_NUM_THREADS=2");
    expect("4", 8, "0::/a\n", 3, "the cgroup grants 3.50 of 8 CPUs, not OMP_NUM_THREADS=4; --threads may");
    cpu_budget b;
    const char *const bad[] = {"0", "-1", "4097", "two", "2x", ",2", "99999999999999999999"};
    for (i64 i = 0; i < COUNT(bad); i++) {
        char message[160];
        snprintf(message, sizeof message, "OMP_NUM_THREADS is '%s'; it must be a number from 1 to 4096",
                 bad[i]);
        assert_fails(cpu_count_threads(&(cpu_sources){bad[i], 8, NULL}, &b), ERR_USAGE, message);
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
    setenv("OMP_NUM_THREADS", "1", 1);
    assert_ok(cpu_count_threads(NULL, &b));
    assert_int_equal(b.threads, 1);
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
        cmocka_unit_test(test_cgroup),       cmocka_unit_test(test_cgroup_1),
        cmocka_unit_test(test_memory),       cmocka_unit_test(test_omp_num_threads),
        cmocka_unit_test(test_this_machine), cmocka_unit_test(test_names),
    };
    int bad = cmocka_run_group_tests(tests, NULL, NULL);
    status_drop(tree_remove(root));
    return bad != 0;
}

/* The machine's facts from files of /proc and /sys, and the rules about them: each applies where it should,
 * with its whole message, and none does on a machine without fault. */
#define _GNU_SOURCE
#include "check.h"
#include "base/file.h"
#include "device/host.h"
#include "train/libraries.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char root[] = "/tmp/keel-host-XXXXXX";

static void put(const char *file, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s%s", root, file);
    *strrchr(path, '/') = 0;
    assert_ok(dir_make(path));
    path[strlen(path)] = '/';
    assert_ok(file_replace(path, text, strlen(text)));
}

static void test_facts(void **state)
{
    (void)state;
    host_facts h;
    host_detect(root, &h); // nothing there: nothing known, nothing limited
    assert_int_equal(h.processors, 0);
    assert_int_equal(h.nodes, 1);
    assert_true(h.memory == 0 && h.memory_limit == 0 && h.load == 0 && !*h.governor && !*h.huge_pages);
    put("/proc/meminfo", "MemTotal:       16384 kB\nMemFree: 1 kB\nMemAvailable:    8192 kB\n");
    put("/proc/loadavg", "3.25 2.00 1.00 1/100 4242\n");
    put("/proc/self/cgroup", "0::/job\n");
    put("/sys/fs/cgroup/job/memory.max", "4194304\n");
    put("/sys/devices/system/cpu/online", "0-3,8,10-11\n");
    put("/sys/devices/system/node/online", "0-1\n");
    put("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n");
    put("/sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n");
    host_detect(root, &h);
    assert_int_equal(h.processors, 7);
    assert_int_equal(h.nodes, 2);
    assert_true(h.memory == 0x1p24 && h.available == 0x1p23 && h.memory_limit == 0x1p22);
    assert_true(h.load == 3.25);
    assert_string_equal(h.governor, "powersave");
    assert_string_equal(h.huge_pages, "never");
    put("/sys/devices/system/cpu/online", "3-1\n"); // nonsense
    host_detect(root, &h);
    assert_int_equal(h.processors, 0);
}

static void test_disk(void **state)
{
    (void)state;
    disk_facts d, below;
    char path[256];
    assert_true(disk_measure(root, &d));
    assert_true(d.total >= d.free && d.free > 0 && d.writable);
    snprintf(path, sizeof path, "%s/not/there/yet", root);
    assert_true(disk_measure(path, &below)); // that of the folder it would be made in
    assert_true(below.total == d.total);
    assert_true(disk_measure("not-there", &d) && disk_measure("/not-there", &d));
}

static host_state sound(void)
{
    return (host_state){.cpu = {.level = ISA_V4},
                        .level = ISA_V4,
                        .budget = {.threads = 8, .cpus = 8},
                        .host = {.processors = 8,
                                 .nodes = 1,
                                 .memory = 0x1p35,
                                 .available = 0x1p34,
                                 .governor = "performance",
                                 .huge_pages = "madvise"},
                        .here = {0x1p40, 0x1p38, true},
                        .tmp = {0x1p40, 0x1p38, true},
                        .tmp_path = "/tmp"};
}

/* The rules that apply to S, without the one about a Debug or sanitized build, which this may be. */
static i64 problems(const host_state *s, problem p[MOST_PROBLEMS])
{
    i64 n = host_problems(s, p), left = 0;
    for (i64 i = 0; i < n; i++)
        if (strcmp(p[i].name, "slow_build")) p[left++] = p[i];
    return left;
}

/* The one rule that applies to S says so. */
static void one(const host_state *s, const char *name, severity severity, const char *what)
{
    problem p[MOST_PROBLEMS];
    i64 n = problems(s, p);
    if (n != 1) print_message("%s: %lld rules apply\n", name, (long long)n);
    assert_int_equal(n, 1);
    assert_string_equal(p[0].name, name);
    assert_int_equal(p[0].severity, severity);
    assert_string_equal(p[0].what, what);
    assert_true(strlen(p[0].remedy) > 8 && strlen(p[0].remedy) < sizeof p[0].remedy - 1);
}

static void test_processors(void **state)
{
    (void)state;
    host_state s = sound();
    problem p[MOST_PROBLEMS];
    assert_int_equal(problems(&s, p), 0);
    host_state idle = sound();
    idle.budget = (cpu_budget){2, 8, 2.5, "the cgroup grants 2.50 of 8 CPUs"};
    one(&idle, "idle_cores", PROBLEM_SLOW,
        "6 of the 8 CPUs we may use stay idle (the cgroup grants 2.50 of 8 CPUs)");
    host_state bound = sound();
    bound.host.processors = 64;
    one(&bound, "bound_cores", PROBLEM_NOTE, "we may run on 8 of the machine's 64 processors");
    host_state many = sound();
    many.omp = "16";
    one(&many, "too_many_threads", PROBLEM_SLOW,
        "OMP_NUM_THREADS=16, but there are CPUs for 8 threads: it is not followed");
    host_state spin = sound();
    spin.wait_policy = "ACTIVE";
    one(&spin, "spinning", PROBLEM_SLOW,
        "threads that wait spin (OMP_WAIT_POLICY=active): beside other work that costs a multiple of the "
        "time");
    spin = sound();
    spin.spins = "infinity";
    one(&spin, "spinning", PROBLEM_SLOW,
        "threads that wait spin (GOMP_SPINCOUNT): beside other work that costs a multiple of the time");
    spin.spins = "2000"; // what Keel sets
    assert_int_equal(problems(&spin, p), 0);
    host_state busy = sound();
    busy.host.load = 6.25;
    one(&busy, "busy", PROBLEM_SLOW, "others use the machine: a load of 6.2 on 8 CPUs in the last minute");
}

static void test_instructions(void **state)
{
    (void)state;
    host_state s = sound();
    s.cpu.level = s.level = ISA_V3;
    one(&s, "no_bf16", PROBLEM_SLOW, "no bfloat16 instructions: bf16 is emulated and slower than f32");
    s = sound();
    s.level = ISA_V3;
    one(&s, "lowered", PROBLEM_SLOW, "kernels of level v3, though the machine has v4");
    s = sound();
    s.cpu.level = s.level = ISA_PLAIN;
    problem p[MOST_PROBLEMS];
    assert_int_equal(problems(&s, p), 2);
    assert_string_equal(p[0].name, "old_processor");
    s = sound();
    strcpy(s.host.governor, "powersave");
    one(&s, "slow_clock", PROBLEM_SLOW, "the clock's governor is 'powersave'");
    s = sound();
    strcpy(s.host.huge_pages, "never");
    one(&s, "small_pages", PROBLEM_SLOW,
        "huge pages are switched off: large weights cost address translations");
}

static void test_memory_and_disks(void **state)
{
    (void)state;
    host_state s = sound();
    s.host.available = 0x1p30;
    one(&s, "little_memory", PROBLEM_SLOW, "only 1 GiB of memory is to be had");
    s = sound();
    s.host.memory_limit = 0x1p33;
    one(&s, "limited_memory", PROBLEM_NOTE, "a cgroup limits memory to 8 GiB of the machine's 32 GiB");
    s = sound();
    s.host.nodes = 2;
    one(&s, "many_nodes", PROBLEM_NOTE,
        "memory lies on 2 nodes: threads of one read that of the others slowly");
    s = sound();
    s.host.address_space = 0x1p33;
    one(&s, "narrow_space", PROBLEM_STOPS,
        "address space is limited to 8 GiB; arenas reserve it (it is not memory)");
    s = sound();
    s.tmp.free = 0x1p29;
    one(&s, "small_tmp", PROBLEM_SLOW, "/tmp has 512 MiB free: benchmarks and 'keel lab' keep data there");
    s = sound();
    s.here.free = 0x1p30;
    one(&s, "small_disk", PROBLEM_SLOW, "the working folder's disk has 1 GiB free: checkpoints may not fit");
    s = sound();
    s.here.writable = false;
    one(&s, "read_only", PROBLEM_SLOW, "the working folder cannot be written: runs/ is made in it");
    // what is not known is no problem
    s = sound();
    s.host = (host_facts){0};
    s.here = s.tmp = (disk_facts){0};
    problem p[MOST_PROBLEMS];
    assert_int_equal(problems(&s, p), 0);
}

static void test_libraries(void **state)
{
    (void)state;
    library all[MOST_LIBRARIES];
    char line[128];
    i64 n = libraries(all);
    assert_in_range(n, 10, MOST_LIBRARIES);
    for (i64 i = 0; i < n; i++) {
        if (!strpbrk(all[i].version, "0123456789") || strchr(all[i].version, ' '))
            fail_msg("%s: version '%s'", all[i].name, all[i].version);
        for (i64 j = 0; j < i; j++) assert_string_not_equal(all[i].name, all[j].name);
    }
    libraries_of_results(line, sizeof line);
    assert_true(!strncmp(line, "oneDNN ", 7) && strstr(line, ", glibc ") && strstr(line, ", OpenMP "));
}

int main(void)
{
    if (!mkdtemp(root)) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_facts),
        cmocka_unit_test(test_disk),
        cmocka_unit_test(test_processors),
        cmocka_unit_test(test_instructions),
        cmocka_unit_test(test_memory_and_disks),
        cmocka_unit_test(test_libraries),
    };
    int bad = cmocka_run_group_tests(tests, NULL, NULL);
    status_drop(tree_remove(root));
    return bad != 0;
}

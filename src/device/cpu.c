/* cpu: instruction sets by the compiler's CPUID tables, threads by affinity, cgroup and OMP_NUM_THREADS. */
#define _GNU_SOURCE
#include "device/cpu.h"
#include "base/text.h"
#include <assert.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const level_names[ISA_COUNT] = {"plain", "v3", "v4"};

const char *isa_name(isa level)
{
    assert(level < ISA_COUNT);
    return level_names[level];
}

status isa_parse(const char *text, isa *out)
{
    for (int i = 0; i < ISA_COUNT; i++)
        if (!strcmp(text, level_names[i])) return *out = (isa)i, OK;
    return fail(ERR_USAGE, "no instruction-set level '%s'; it must be plain, v3 or v4", text);
}

#if defined __x86_64__
static isa detect_level(void)
{
    isa level = ISA_PLAIN;
    __builtin_cpu_init();
#ifdef HAVE_ISA_V3
    if (__builtin_cpu_supports("x86-64-v3")) level = ISA_V3;
#endif
#ifdef HAVE_ISA_V4
    if (__builtin_cpu_supports("x86-64-v4") && __builtin_cpu_supports("avx512bf16")) level = ISA_V4;
#endif
    return level;
}
#else
static isa detect_level(void) { return ISA_PLAIN; }
#endif

void cpu_detect(cpu_facts *out)
{
    *out = (cpu_facts){.level = detect_level(), .name = "unknown processor"};
    FILE *f = fopen("/proc/cpuinfo", "r");
    if (!f) return;
    char line[512];
    while (fgets(line, sizeof line, f)) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) || !colon) continue;
        line[strcspn(line, "\n")] = 0;
        snprintf(out->name, sizeof out->name, "%s", colon + 1 + strspn(colon + 1, " \t"));
        break;
    }
    fclose(f);
}

static i64 affinity_count(void)
{
    // The kernel refuses a mask smaller than its own, so grow it until it fits.
    for (int cpus = 1024; cpus <= 1 << 20; cpus *= 2) {
        cpu_set_t *set = CPU_ALLOC(cpus);
        if (!set) break;
        size_t bytes = CPU_ALLOC_SIZE(cpus);
        int bad = sched_getaffinity(0, bytes, set);
        i64 n = bad ? 0 : CPU_COUNT_S(bytes, set);
        CPU_FREE(set);
        if (n > 0) return n;
    }
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? n : 1;
}

/* Our group's path in the v2 hierarchy: the line "0::PATH" of /proc/self/cgroup. False: no v2 hierarchy. */
static bool own_cgroup(char *path, size_t bytes)
{
    FILE *f = fopen("/proc/self/cgroup", "r");
    bool found = false;
    char line[4096];
    while (f && !found && fgets(line, sizeof line, f)) {
        if (strncmp(line, "0::", 3)) continue;
        line[strcspn(line, "\n")] = 0;
        found = snprintf(path, bytes, "%s", line + 3) < (int)bytes;
    }
    if (f) fclose(f);
    return found;
}

/* CPUs that "quota period" of FILE grants, or 0 when there is no limit ("max") or no such file. */
static double cgroup_quota(const char *file)
{
    FILE *f = fopen(file, "r");
    if (!f) return 0;
    double quota = 0, period = 0;
    int n = fscanf(f, "%lf %lf", &quota, &period);
    fclose(f);
    return n == 2 && quota > 0 && period > 0 ? quota / period : 0;
}

/* The tightest cpu.max from GROUP up to the root of the hierarchy; 0: none. */
static double cgroup_limit(const char *root, const char *group)
{
    char path[4096], file[8192];
    if (snprintf(path, sizeof path, "%s", group) >= (int)sizeof path) return 0;
    double least = 0;
    for (;;) {
        snprintf(file, sizeof file, "%s%s/cpu.max", root, strcmp(path, "/") ? path : "");
        double cpus = cgroup_quota(file);
        if (cpus > 0 && (!(least > 0) || cpus < least)) least = cpus;
        char *slash = strrchr(path, '/');
        if (!slash) return least;
        *slash = 0; // "/a/b" -> "/a" -> "" (the root itself) -> done
    }
}

status cpu_count_threads(const cpu_sources *from, cpu_budget *out)
{
    cpu_sources s = from ? *from : (cpu_sources){0};
    char group[4096] = "/";
    if (!s.omp_num_threads) s.omp_num_threads = getenv("OMP_NUM_THREADS");
    if (!s.affinity) s.affinity = affinity_count();
    if (!s.cgroup_root)
        s.cgroup_root = access("/sys/fs/cgroup/unified/cgroup.controllers", F_OK) ? "/sys/fs/cgroup"
                                                                                  : "/sys/fs/cgroup/unified";
    if (!s.cgroup_path && own_cgroup(group, sizeof group)) s.cgroup_path = group;

    *out = (cpu_budget){.threads = s.affinity, .cpus = s.affinity};
    if (s.omp_num_threads && *s.omp_num_threads) {
        char first[32]; // the variable may list one number a nesting level: "4,2"
        snprintf(first, sizeof first, "%.*s", (int)strcspn(s.omp_num_threads, ","), s.omp_num_threads);
        i64 n;
        if (!parse_i64(first, &n) || n < 1 || n > 4096)
            return fail(ERR_USAGE, "OMP_NUM_THREADS is '%s'; it must be a number from 1 to 4096",
                        s.omp_num_threads);
        out->threads = n;
        snprintf(out->why, sizeof out->why, "OMP_NUM_THREADS=%lld%s", (long long)n,
                 n > s.affinity ? ", more than the CPUs we may run on: this is slow" : "");
        return OK;
    }
    double limit = s.cgroup_path ? cgroup_limit(s.cgroup_root, s.cgroup_path) : 0;
    if (limit > 0 && limit < (double)s.affinity) {
        out->threads = MAX(1, (i64)limit);
        snprintf(out->why, sizeof out->why, "cgroup cpu.max grants %.2f of %lld CPUs", limit,
                 (long long)s.affinity);
        return OK;
    }
    snprintf(out->why, sizeof out->why, "%lld CPU%s in the affinity mask", (long long)s.affinity,
             s.affinity == 1 ? "" : "s");
    return OK;
}

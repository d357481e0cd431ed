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

/* The number in OMP_NUM_THREADS, 0 where it is not set. */
static status ordered(const char *omp, i64 *out)
{
    char first[32]; // the variable may list one number a nesting level: "4,2"
    *out = 0;
    if (!omp || !*omp) return OK;
    snprintf(first, sizeof first, "%.*s", (int)strcspn(omp, ","), omp);
    if (parse_i64(first, out) && *out >= 1 && *out <= 4096) return OK;
    return fail(ERR_USAGE, "OMP_NUM_THREADS is '%s'; it must be a number from 1 to 4096", omp);
}

status cpu_count_threads(const cpu_sources *from, cpu_budget *out)
{
    cpu_sources s = from ? *from : (cpu_sources){0};
    i64 order;
    if (!s.omp_num_threads) s.omp_num_threads = getenv("OMP_NUM_THREADS");
    if (!s.affinity) s.affinity = affinity_count();
    TRY(ordered(s.omp_num_threads, &order));

    *out = (cpu_budget){.threads = s.affinity, .cpus = s.affinity, .granted = cgroup_cpus(s.cgroups)};
    snprintf(out->why, sizeof out->why, "%lld CPU%s in the affinity mask", (long long)s.affinity,
             s.affinity == 1 ? "" : "s");
    if (out->granted > 0 && out->granted < (double)s.affinity) {
        out->threads = MAX(1, (i64)out->granted);
        snprintf(out->why, sizeof out->why, "the cgroup grants %.2f of %lld CPUs", out->granted,
                 (long long)s.affinity);
    }
    if (!order) return OK;
    if (order <= out->threads) {
        out->threads = order;
        snprintf(out->why, sizeof out->why, "OMP_NUM_THREADS=%lld", (long long)order);
    } else {
        size_t used = strlen(out->why);
        snprintf(out->why + used, sizeof out->why - used, ", not OMP_NUM_THREADS=%lld; --threads may",
                 (long long)order);
    }
    return OK;
}

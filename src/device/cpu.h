/* cpu: what this processor can do and how many threads we may use on it.
 *
 *     cpu_facts cpu;
 *     cpu_detect(&cpu);                            // cpu.level = ISA_V4, cpu.name = "AMD EPYC 9555"
 *     cpu_budget budget;
 *     TRY(cpu_count_threads(NULL, &budget));       // budget.threads = 8, budget.why = "the cgroup grants
 * ..."
 *
 * A level names one of the tables src/ops is compiled into; a processor with AVX-512 but without its bfloat16
 * instructions counts as v3, because the v4 kernels are built on them. */
#pragma once
#include "device/cgroup.h"

typedef enum isa {
    ISA_PLAIN, // the compiler's baseline
    ISA_V3,    // x86-64-v3: AVX2, FMA, BMI, F16C
    ISA_V4,    // x86-64-v4 (AVX-512 F, BW, CD, DQ, VL) and AVX512_BF16
    ISA_COUNT
} isa;

const char *isa_name(isa level); // "plain", "v3", "v4"
/* "plain", "v3", "v4" -> *out. ERR_USAGE names TEXT otherwise. Does not ask whether this machine has it. */
status isa_parse(const char *text, isa *out) MUST;

typedef struct cpu_facts {
    isa level;      // the highest level that the processor has and this binary was built with
    char name[128]; // as /proc/cpuinfo words it, or "unknown processor"
} cpu_facts;
void cpu_detect(cpu_facts *out);

/* Where cpu_count_threads looks; tests point it elsewhere. A NULL or 0 member means the real source. */
typedef struct cpu_sources {
    const char *omp_num_threads; // value of that variable; "" is not set
    i64 affinity;                // CPUs of the affinity mask
    const cgroup_source *cgroups;
} cpu_sources;

typedef struct cpu_budget {
    i64 threads;    // >= 1
    i64 cpus;       // in the affinity mask
    double granted; // CPUs by the cgroups; 0: no limit
    char why[200];
} cpu_budget;
/* Threads to use: the CPUs of the affinity mask, those that the cgroups grant, rounded down (a throttled
 * thread holds up every barrier), or OMP_NUM_THREADS, whichever is least. More than the CPUs only makes them
 * wait for each other, so the variable cannot ask for it (device_options.threads can). FROM may be NULL.
 * ERR_USAGE when OMP_NUM_THREADS is not a number from 1 to 4096. */
status cpu_count_threads(const cpu_sources *from, cpu_budget *out) MUST;

/* host: what the machine and its operating system have to give besides instructions: memory, disks, clocks.
 *
 *     host_facts h;
 *     host_detect(NULL, &h);                      // h.memory = 2.5e10, h.governor = "powersave"
 *     disk_facts d;
 *     if (disk_measure("runs", &d)) ...           // d.free = 7.7e10, of the file system that holds it
 *
 * and what of it usually makes training slow or impossible: host_problems, a table of rules. */
#pragma once
#include "device/cpu.h"

typedef struct host_facts {
    i64 processors;           // online in the machine, ours or not
    i64 nodes;                // of memory (NUMA); 1 where unknown
    double memory, available; // bytes; 0: unknown
    double memory_limit;      // by cgroups; 0: none
    double address_space;     // by ulimit -v; 0: no limit
    double load;              // processes that run or want to, mean of the last minute
    char governor[32];        // of processor 0's clock; "" where the kernel does not say
    char huge_pages[16];      // always, madvise or never; "" unknown
} host_facts;
/* ROOT stands before /proc and /sys; NULL: the real ones (tests point elsewhere). */
void host_detect(const char *root, host_facts *out);

typedef struct disk_facts {
    double total, free; // bytes; free: for us
    bool writable;
} disk_facts;
/* The file system of PATH, or of the nearest folder above it that exists. False: none to be asked. */
bool disk_measure(const char *path, disk_facts *out);

/* ---- what stands in the way */
typedef struct host_state { // what the rules look at
    cpu_facts cpu;
    isa level; // in force: the machine's best, or less by --isa
    cpu_budget budget;
    host_facts host;
    disk_facts here, tmp;                  // the working folder; TMPDIR
    const char *tmp_path;                  // TMPDIR, or /tmp
    const char *omp, *wait_policy, *spins; // OMP_NUM_THREADS, OMP_WAIT_POLICY, GOMP_SPINCOUNT; NULL: unset
} host_state;

typedef enum severity { PROBLEM_NOTE, PROBLEM_SLOW, PROBLEM_STOPS } severity; // stops: nothing can be trained
typedef struct problem {
    const char *name; // of the rule: "idle_cores"
    severity severity;
    char what[200], remedy[200];
} problem;
/* Those of the rules that apply, worst first. OUT has room for MOST_PROBLEMS. */
enum { MOST_PROBLEMS = 24 };
i64 host_problems(const host_state *s, problem out[MOST_PROBLEMS]);

/* What usually makes training slow or impossible, as a table: a rule looks at the facts and writes what is so
 * and what to do, or nothing. */
#include "base/text.h"
#include "device/host.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const double GIB = 0x1p30;
enum { ARENAS_GIB = 64 }; // address space a run reserves: a few arenas of 16 GiB (base/memory.c)

PRINTF(2, 3) static bool say(char to[200], const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vsnprintf(to, 200, format, list);
    va_end(list);
    return true;
}

static bool idle_cores(const host_state *s, problem *p)
{
    i64 idle = s->budget.cpus - s->budget.threads;
    if (idle < 1) return false;
    say(p->what, "%lld of the %lld CPUs we may use stay idle (%s)", (long long)idle,
        (long long)s->budget.cpus, s->budget.why);
    if (s->omp) return say(p->remedy, "unset OMP_NUM_THREADS, or give --threads=N");
    return say(p->remedy, "raise the quota of the cgroup (docker: --cpus; SLURM: --cpus-per-task)");
}

static bool bound_cores(const host_state *s, problem *p)
{
    if (!s->host.processors || s->budget.cpus >= s->host.processors) return false;
    say(p->what, "we may run on %lld of the machine's %lld processors", (long long)s->budget.cpus,
        (long long)s->host.processors);
    return say(p->remedy, "if that is not meant: taskset, cpuset or the scheduler's request sets it");
}

static bool too_many_threads(const host_state *s, problem *p)
{
    i64 n = s->omp ? strtoll(s->omp, NULL, 10) : 0;
    if (n <= s->budget.threads) return false;
    say(p->what, "OMP_NUM_THREADS=%lld, but there are CPUs for %lld threads: it is not followed",
        (long long)n, (long long)s->budget.threads);
    return say(p->remedy, "unset it; other programs would crawl with it");
}

static bool spinning(const host_state *s, problem *p)
{
    bool active = s->wait_policy && !strcasecmp(s->wait_policy, "active");
    double spins = 0;
    bool long_spins =
        s->spins && (!strncasecmp(s->spins, "inf", 3) || (parse_double(s->spins, &spins) && spins > 1e6));
    if (!active && !long_spins) return false;
    say(p->what, "threads that wait spin (%s): beside other work that costs a multiple of the time",
        active ? "OMP_WAIT_POLICY=active" : "GOMP_SPINCOUNT");
    return say(p->remedy, "unset OMP_WAIT_POLICY and GOMP_SPINCOUNT: Keel sets a short spin");
}

static bool busy(const host_state *s, problem *p)
{
    if (!(s->host.load > 0.5 * (double)s->budget.cpus)) return false;
    say(p->what, "others use the machine: a load of %.1f on %lld CPUs in the last minute", s->host.load,
        (long long)MAX(s->host.processors, s->budget.cpus));
    return say(p->remedy, "what is measured now is too low; look with 'top'");
}

static bool no_bf16(const host_state *s, problem *p)
{
    if (s->cpu.level >= ISA_V4) return false;
    say(p->what, "no bfloat16 instructions: bf16 is emulated and slower than f32");
    return say(p->remedy, "leave train.precision at auto (f32 here)");
}

static bool old_processor(const host_state *s, problem *p)
{
    if (s->cpu.level != ISA_PLAIN) return false;
    say(p->what, "the processor (or this build) has no AVX2: the kernels are the compiler's baseline");
    return say(p->remedy, "build on the machine that trains; a virtual machine may hide AVX2");
}

static bool lowered(const host_state *s, problem *p)
{
    if (s->level >= s->cpu.level) return false;
    say(p->what, "kernels of level %s, though the machine has %s", isa_name(s->level),
        isa_name(s->cpu.level));
    return say(p->remedy, "leave out --isa, and unset KEEL_ISA");
}

static bool slow_clock(const host_state *s, problem *p)
{
    static const char *const slow[] = {"powersave", "conservative", "userspace"};
    for (i64 i = 0; i < COUNT(slow); i++) {
        if (strcmp(s->host.governor, slow[i])) continue;
        say(p->what, "the clock's governor is '%s'", slow[i]);
        return say(p->remedy, "as root: cpupower frequency-set -g performance");
    }
    return false;
}

static bool small_pages(const host_state *s, problem *p)
{
    if (strcmp(s->host.huge_pages, "never")) return false;
    say(p->what, "huge pages are switched off: large weights cost address translations");
    return say(p->remedy, "as root: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled");
}

static bool many_nodes(const host_state *s, problem *p)
{
    if (s->host.nodes < 2) return false;
    say(p->what, "memory lies on %lld nodes: threads of one read that of the others slowly",
        (long long)s->host.nodes);
    return say(p->remedy, "bind a run to a node (numactl -N 0 -m 0), or spread its memory (-i all)");
}

static bool little_memory(const host_state *s, problem *p)
{
    char there[32];
    double have = s->host.available;
    if (s->host.memory_limit > 0 && (!(have > 0) || s->host.memory_limit < have)) have = s->host.memory_limit;
    if (!(have > 0) || have >= 2 * GIB) return false;
    say(p->what, "only %s of memory is to be had", show_bytes(have, there));
    return say(p->remedy, "'keel plan memory CONFIG' says what a run needs; end other programs");
}

static bool limited_memory(const host_state *s, problem *p)
{
    char limit[32], all[32];
    if (!(s->host.memory_limit > 0) || s->host.memory_limit >= s->host.memory) return false;
    say(p->what, "a cgroup limits memory to %s of the machine's %s", show_bytes(s->host.memory_limit, limit),
        show_bytes(s->host.memory, all));
    return say(p->remedy, "runs are planned within it; docker: --memory, SLURM: --mem");
}

static bool narrow_space(const host_state *s, problem *p)
{
    char limit[32];
    if (!(s->host.address_space > 0) || s->host.address_space >= ARENAS_GIB * GIB) return false;
    say(p->what, "address space is limited to %s; arenas reserve it (it is not memory)",
        show_bytes(s->host.address_space, limit));
    return say(p->remedy, "ulimit -v unlimited");
}

static bool small_tmp(const host_state *s, problem *p)
{
    char free_there[32];
    if (!(s->tmp.total > 0) || s->tmp.free >= GIB) return false;
    say(p->what, "%s has %s free: benchmarks and 'keel lab' keep data there", s->tmp_path,
        show_bytes(s->tmp.free, free_there));
    return say(p->remedy, "free some space, or set TMPDIR to a folder on a larger disk");
}

static bool small_disk(const host_state *s, problem *p)
{
    char free_here[32];
    if (!(s->here.total > 0) || s->here.free >= 2 * GIB) return false;
    say(p->what, "the working folder's disk has %s free: checkpoints may not fit",
        show_bytes(s->here.free, free_here));
    return say(p->remedy, "free some space ('keel runs gc' lists old checkpoints), or give --out elsewhere");
}

static bool read_only(const host_state *s, problem *p)
{
    if (!(s->here.total > 0) || s->here.writable) return false;
    say(p->what, "the working folder cannot be written: runs/ is made in it");
    return say(p->remedy, "change to another folder, or give --out");
}

#if defined __SANITIZE_ADDRESS__ || !defined __OPTIMIZE__
static bool slow_build(const host_state *s, problem *p)
{
    (void)s;
    say(p->what, "this program was built for finding errors (Debug, or with sanitizers): it is slow");
    return say(p->remedy, "cmake -S . -B build -DCMAKE_BUILD_TYPE=Release");
}
#else
static bool slow_build(const host_state *s, problem *p) { return (void)s, (void)p, false; }
#endif

#define RULE(name, severity)                                                                                 \
    {                                                                                                        \
#name, severity, name                                                                                \
    }
static const struct rule {
    const char *name;
    severity severity;
    bool (*applies)(const host_state *s, problem *p);
} rules[] = {
    RULE(narrow_space, PROBLEM_STOPS), RULE(idle_cores, PROBLEM_SLOW),
    RULE(spinning, PROBLEM_SLOW),      RULE(too_many_threads, PROBLEM_SLOW),
    RULE(old_processor, PROBLEM_SLOW), RULE(no_bf16, PROBLEM_SLOW),
    RULE(lowered, PROBLEM_SLOW),       RULE(slow_clock, PROBLEM_SLOW),
    RULE(small_pages, PROBLEM_SLOW),   RULE(slow_build, PROBLEM_SLOW),
    RULE(busy, PROBLEM_SLOW),          RULE(little_memory, PROBLEM_SLOW),
    RULE(small_disk, PROBLEM_SLOW),    RULE(small_tmp, PROBLEM_SLOW),
    RULE(read_only, PROBLEM_SLOW),     RULE(many_nodes, PROBLEM_NOTE),
    RULE(bound_cores, PROBLEM_NOTE),   RULE(limited_memory, PROBLEM_NOTE),
};
_Static_assert(sizeof rules / sizeof rules[0] <= MOST_PROBLEMS, "every rule may apply");

i64 host_problems(const host_state *s, problem out[MOST_PROBLEMS])
{
    i64 n = 0;
    for (i64 i = 0; i < COUNT(rules); i++) { // the table's order is worst first
        out[n] = (problem){.name = rules[i].name, .severity = rules[i].severity};
        n += rules[i].applies(s, &out[n]);
    }
    return n;
}

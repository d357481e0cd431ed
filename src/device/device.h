/* device: the processor a program runs on: its level, its threads, oneDNN's handles and the GEMM plans.
 *
 *     device *d;
 *     TRY(device_open(&(device_options){0}, &d));      // the machine's best level, all threads we may use
 *     const gemm_plan *p;
 *     TRY(gemm_plan_get(d, &spec, &p));                // device/gemm.h
 *     device_close(d);                                 // after the last program that uses its plans
 *
 * One device a process is the rule: oneDNN's level can be set once, before its first use. A device and its
 * plans are made and closed by one thread (set-up); running plans is what many threads may do. */
#pragma once
#include "base/base.h"
#include "device/cpu.h"

typedef struct device_options {
    const char *isa; // NULL: the best; "plain", "v3", "v4": at most that
    i64 threads;     // 0: cpu_count_threads decides
} device_options;

typedef struct device device;
typedef struct device_facts {
    isa level;     // the level in force: selects the table of kernels, and oneDNN is held to it
    i64 threads;   // OpenMP's team size, set at opening
    bool bf16;     // oneDNN multiplies bfloat16 itself (otherwise gemm widens to f32: right, but slow)
    char cpu[128]; // the processor's name
    char why[200]; // why that many threads
} device_facts;

/* Opens the CPU: chooses the level, sets OpenMP's number of threads, holds oneDNN to a level lower than the
 * machine's best. ERR_USAGE: level unknown, not on this machine, or oneDNN already runs with another one. */
status device_open(const device_options *options, device **out) MUST;
void device_close(device *d); // with every plan; NULL allowed
const device_facts *device_about(const device *d);

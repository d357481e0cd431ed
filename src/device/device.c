/* device: opening the processor. oneDNN's own limit is set only when a lower level than the machine's best
 * was asked for: then every GEMM of a test of the v3 kernels really is an AVX2 one. */
#include "device/device_impl.h"
#include <omp.h>
#include <stdio.h>
#include <string.h>

const char *dnnl_reason(dnnl_status_t s)
{
    switch (s) {
    case dnnl_success:
        return "success";
    case dnnl_out_of_memory:
        return "out of memory";
    case dnnl_invalid_arguments:
        return "invalid arguments";
    case dnnl_unimplemented:
        return "not implemented for this processor";
    case dnnl_runtime_error:
        return "run-time error";
    default:
        return "unknown error";
    }
}

static bool has(dnnl_cpu_isa_t set, dnnl_cpu_isa_t level)
{
    return ((unsigned)set & (unsigned)level) == level;
}

/* The level oneDNN is at. Asking freezes it. */
static isa dnnl_level(void)
{
    dnnl_cpu_isa_t now = dnnl_get_effective_cpu_isa();
    if (has(now, dnnl_cpu_isa_avx512_core_bf16)) return ISA_V4;
    return has(now, dnnl_cpu_isa_avx2) ? ISA_V3 : ISA_PLAIN;
}

static status choose_level(const char *wanted, isa best, isa *out)
{
    *out = best;
    if (!wanted) return OK;
    TRY(isa_parse(wanted, out));
    if (*out > best)
        return fail(ERR_USAGE, "level %s is not on this machine (or not in this build): it has %s", wanted,
                    isa_name(best));
    if (*out == best) return OK;
    dnnl_set_max_cpu_isa(*out == ISA_V3 ? dnnl_cpu_isa_avx2 : dnnl_cpu_isa_sse41); // refused when frozen
    return OK;
}

status device_open(const device_options *options, device **out)
{
    cpu_facts cpu;
    cpu_budget budget = {.threads = options->threads, .why = "as asked for"};
    isa level;
    cpu_detect(&cpu);
    if (!options->threads) TRY(cpu_count_threads(NULL, &budget));
    if (budget.threads < 1 || budget.threads > 4096)
        return fail(ERR_USAGE, "%lld threads; it must be 1 to 4096", (long long)budget.threads);
    TRY(choose_level(options->isa, cpu.level, &level));
    bool lowered = level < cpu.level;
    if (lowered ? dnnl_level() != level : dnnl_level() < level)
        return fail(ERR_USAGE,
                    "oneDNN runs at level %s, but %s is wanted: it can be set once a process; is "
                    "ONEDNN_MAX_CPU_ISA or DNNL_MAX_CPU_ISA set?",
                    isa_name(dnnl_level()), isa_name(level));

    arena *memory;
    TRY(arena_open(&memory));
    device *d = arena_new(memory, device);
    d->memory = memory;
    d->about = (device_facts){.level = level,
                              .threads = budget.threads,
                              .bf16 = has(dnnl_get_effective_cpu_isa(), dnnl_cpu_isa_avx512_core)};
    snprintf(d->about.cpu, sizeof d->about.cpu, "%s", cpu.name);
    snprintf(d->about.why, sizeof d->about.why, "%s", budget.why);
    d->streams = arena_array(memory, dnnl_stream_t, budget.threads);
    dnnl_status_t s = dnnl_engine_create(&d->engine, dnnl_cpu, 0);
    for (i64 i = 0; !s && i < budget.threads; i++)
        s = dnnl_stream_create(&d->streams[i], d->engine, dnnl_stream_default_flags);
    if (s) {
        device_close(d);
        return fail(ERR_MEMORY, "oneDNN cannot open the processor: %s", dnnl_reason(s));
    }
    omp_set_num_threads((int)budget.threads);
    *out = d;
    return OK;
}

void device_close(device *d)
{
    if (!d) return;
    gemm_plans_release(d);
    for (i64 i = 0; i < d->about.threads; i++)
        if (d->streams[i]) dnnl_stream_destroy(d->streams[i]);
    if (d->engine) dnnl_engine_destroy(d->engine);
    arena_close(d->memory);
}

const device_facts *device_about(const device *d) { return &d->about; }

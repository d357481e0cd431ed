/* keel bench: what the machine gives and what Keel makes of it. A measurement is one row of the table below.
 */
#include "cli/cli.h"
#include "device/device.h"
#include "device/peak.h"
#include <argp.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BENCHES(BENCH)                                                                                       \
    BENCH(peak, "the machine's own peaks: matrix products and memory")                                       \
    BENCH(train, "a training step: tokens/s and share of the machine's peak")                                \
    BENCH(method, "what a method costs: steps with it against steps without it, in pairs")
#define BENCH(name, help) status bench_##name(int argc, char **argv);
BENCHES(BENCH)
#undef BENCH

/* ---- keel bench peak */
enum { OPT_JSON = 256, OPT_ISA, OPT_THREADS, MAX_SHAPES = 32 };

typedef struct peak_args {
    bool json;
    device_options device;
    peak_shape shapes[MAX_SHAPES];
    i64 n_shapes;
} peak_args;

static const struct argp_option peak_options[] = {
    {"json", OPT_JSON, 0, 0, "Print one flat JSON object", 0},
    {"isa", OPT_ISA, "plain|v3|v4", 0, "Kernels of this level (default: the best this machine has)", 0},
    {"threads", OPT_THREADS, "N", 0, "Threads (default: the CPUs we may use)", 0},
    {0}};

static bool parse_shape(const char *s, peak_shape *out)
{
    long long m, n, k;
    char rest;
    if (sscanf(s, "%lldx%lldx%lld%c", &m, &n, &k, &rest) != 3) return false;
    *out = (peak_shape){m, n, k};
    return MIN(m, MIN(n, k)) >= 1 && MAX(m, MAX(n, k)) <= 1 << 20;
}

static error_t peak_parse(int key, char *arg, struct argp_state *state)
{
    peak_args *a = state->input;
    char *end;
    switch (key) {
    case OPT_JSON:
        a->json = true;
        return 0;
    case OPT_ISA:
        a->device.isa = arg;
        return 0;
    case OPT_THREADS:
        a->device.threads = strtol(arg, &end, 10);
        if (*end || a->device.threads < 1)
            argp_error(state, "--threads is '%s'; it must be a number >= 1", arg);
        return 0;
    case ARGP_KEY_ARG:
        if (a->n_shapes == MAX_SHAPES) argp_error(state, "at most %d shapes", MAX_SHAPES);
        if (!parse_shape(arg, &a->shapes[a->n_shapes++]))
            argp_error(state, "shape '%s' must be MxNxK, each from 1 to 1048576", arg);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp peak_argp = {peak_options,
                                      peak_parse,
                                      "[MxNxK...]",
                                      "Measures this machine's matrix-product peaks (f32 and bf16, by "
                                      "oneDNN, best over square 2048, square 4096, "
                                      "2048x3072x768 and the shapes given) and its memory bandwidth (bytes "
                                      "read plus bytes written, best pass).",
                                      NULL,
                                      NULL,
                                      NULL};

static status print_peaks(const peak_figures *f, const device_facts *about, bool as_json)
{
    if (!as_json) {
        printf("gemm f32   %10.1f GFLOP/s\ngemm bf16  %10.1f GFLOP/s\ncopy       %10.1f GB/s\n"
               "read       %10.1f GB/s\n",
               f->gemm_f32_gflops, f->gemm_bf16_gflops, f->copy_gbs, f->read_gbs);
        return OK;
    }
    json_t *o = json_pack("{s:f,s:f,s:f,s:f,s:I,s:s}", "gemm_f32_gflops", f->gemm_f32_gflops,
                          "gemm_bf16_gflops", f->gemm_bf16_gflops, "copy_gbs", f->copy_gbs, "read_gbs",
                          f->read_gbs, "threads", (json_int_t)about->threads, "isa", isa_name(about->level));
    char *text = o ? json_dumps(o, JSON_REAL_PRECISION(6)) : NULL;
    json_decref(o);
    if (!text) return fail(ERR_MEMORY, "keel bench peak: cannot build the JSON object");
    puts(text);
    free(text);
    return OK;
}

status bench_peak(int argc, char **argv)
{
    peak_args a = {0};
    device *d;
    peak_figures figures;
    TRY(cli_parse(&peak_argp, argc, argv, &a));
    TRY(device_open(&a.device, &d));
    const device_facts *about = device_about(d);
    fprintf(stderr, "%s, level %s, %lld threads (%s)%s\n", about->cpu, isa_name(about->level),
            (long long)about->threads, about->why,
            about->bf16 ? "" : "; no bfloat16 here: products widen to f32");
    status s = peak_measure(d, a.shapes, a.n_shapes, &figures);
    if (!s) s = print_peaks(&figures, about, a.json);
    device_close(d);
    return s;
}

/* ---- keel bench */
static const struct bench {
    const char *name, *help;
    status (*run)(int argc, char **argv);
} benches[] = {
#define BENCH(name, help) {#name, help, bench_##name},
    BENCHES(BENCH)
#undef BENCH
};

static void bench_usage(FILE *to)
{
    fprintf(to, "Usage: keel bench WHAT [ARGUMENTS]\n\n");
    for (i64 i = 0; i < COUNT(benches); i++) fprintf(to, "  %-8s %s\n", benches[i].name, benches[i].help);
    fprintf(to, "\n'keel bench WHAT --help' explains one.\n");
}

status verb_bench(int argc, char **argv)
{
    char program[64];
    if (argc < 2) return fail(ERR_USAGE, "bench: say what to measure; 'keel bench --help' lists it");
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-?")) return bench_usage(stdout), OK;
    for (i64 i = 0; i < COUNT(benches); i++) {
        if (strcmp(argv[1], benches[i].name)) continue;
        snprintf(program, sizeof program, "keel bench %s", benches[i].name);
        argv[1] = program;
        return benches[i].run(argc - 1, argv + 1);
    }
    return fail(ERR_USAGE, "bench: no measurement '%s'; 'keel bench --help' lists them", argv[1]);
}

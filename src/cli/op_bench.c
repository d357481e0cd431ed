/* keel op bench: the median time of operations on the cases marked `bench` (all cases of an op without such),
 * and what that is of the machine's own peaks, measured in the same run.
 *
 * FLOP and bytes come from the op's cost, every input and output counted once, so a case that fits into the
 * caches can exceed the memory's bandwidth. Only the forward kernel of the op runs; a gradient is an op of
 * its own. */
#include "cli/cli.h"
#include "cli/op.h"
#include "device/device.h"
#include "device/peak.h"
#include "graph/trial.h"
#include <argp.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { OPT_ISA = 256, OPT_JSON, MIN_RUNS = 5, MAX_RUNS = 8192 };
static const double MIN_SECONDS = 0.2, SAMPLE_SECONDS = 50e-6;
typedef enum format { FORMAT_MD, FORMAT_CSV, FORMAT_JSON } format;

typedef struct bench_args {
    const char *isa, *name, *only;
    format format;
} bench_args;

static const struct argp_option options[] = {
    {"isa", OPT_ISA, "plain|v3|v4", 0, "Kernels of this level (default: the best this machine has)", 0},
    {"output", 'o', "md|csv|json", 0, "Form of the table (default: md)", 0},
    {"json", OPT_JSON, 0, 0, "The same as --output=json", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    static const char *const formats[] = {"md", "csv", "json"};
    bench_args *a = state->input;
    int i = 0;
    switch (key) {
    case OPT_ISA:
        a->isa = arg;
        return 0;
    case OPT_JSON:
        a->format = FORMAT_JSON;
        return 0;
    case 'o':
        while (i < COUNT(formats) && strcmp(formats[i], arg)) i++;
        if (i == COUNT(formats)) argp_error(state, "-o is '%s'; it must be md, csv or json", arg);
        a->format = (format)i;
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num > 1) argp_error(state, "at most OP and CASE");
        *(state->arg_num ? &a->only : &a->name) = arg;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {options,
                                 parse,
                                 "[OP [CASE]]",
                                 "Times one operation or all: the median of at least 5 runs and 0.2 seconds. "
                                 "CASE is a label, a whole line, or a line "
                                 "of your own. Shares are of the matrix-product peak of the dtype and of the "
                                 "copy bandwidth, measured first.",
                                 NULL,
                                 NULL,
                                 NULL};

typedef struct bench {
    const bench_args *args;
    device *d;
    isa level;
    peak_figures peak;
    json_t *rows;
} bench;

typedef struct timing {
    double seconds, best;                       // the median, the fastest sample
    double gflops, gbs, gemm_share, copy_share; // from the median; shares: 1 is the peak
    i64 runs;
    bool no_work; // the planner left nothing to run
} timing;

/* ---- measuring */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static double seconds_of(trial *t, i64 times)
{
    double start = now();
    for (i64 i = 0; i < times; i++) {
        program_run(t->program, &t->step, PHASE_BACKWARD);
        program_commit(t->program, &t->step);
    }
    return (now() - start) / (double)times;
}

/* Short kernels run several times a sample, so that the clock's own cost does not count. */
static void take_time(trial *t, timing *out)
{
    double sample[MAX_RUNS], total = 0, first = MIN(seconds_of(t, 1), seconds_of(t, 1));
    i64 n = 0, times = (i64)MAX(1, MIN(1000, SAMPLE_SECONDS / MAX(first, 1e-7)));
    while (n < MAX_RUNS && (n < MIN_RUNS || total < MIN_SECONDS)) {
        sample[n] = seconds_of(t, times);
        total += sample[n++] * (double)times;
    }
    qsort(sample, (size_t)n, sizeof *sample, ascending);
    out->runs = n * times;
    out->best = sample[0];
    out->seconds = n % 2 ? sample[n / 2] : (sample[n / 2 - 1] + sample[n / 2]) / 2;
}

static bool nothing_runs(trial *t)
{
    profile_row rows[OP_COUNT];
    program_profile(t->program, true);
    program_run(t->program, &t->step, PHASE_BACKWARD);
    program_commit(t->program, &t->step);
    i64 n = program_profile_rows(t->program, rows);
    program_profile(t->program, false);
    return !n && t->n->phase != PHASE_COMMIT;
}

static status measure(const bench *b, op_id op, const char *line, dtype act, timing *out)
{
    trial *t;
    TRY(trial_open(op, line, act, 0, &t));
    status s = trial_kernel(t, b->d, b->level); // also warms up
    if (!s) {
        const op_def *def = t->n->def;
        op_cost cost = def->cost ? def->cost(t->n) : (op_cost){0, traffic(t->n)};
        double peak = act == DT_BF16 ? b->peak.gemm_bf16_gflops : b->peak.gemm_f32_gflops;
        *out = (timing){.no_work = nothing_runs(t)};
        if (!out->no_work) take_time(t, out);
        double per_second = out->seconds > 0 ? 1e-9 / out->seconds : 0;
        out->gflops = cost.flops * per_second;
        out->gbs = cost.bytes * per_second;
        out->gemm_share = out->gflops / peak;
        out->copy_share = out->gbs / b->peak.copy_gbs;
    }
    trial_close(t);
    return s;
}

/* ---- printing */

static void print_head(const bench *b)
{
    if (b->args->format == FORMAT_CSV)
        printf("operation,case,line,dtype,isa,runs,median_s,best_s,gflops,gemm_share,gbs,copy_share\n");
    if (b->args->format == FORMAT_MD)
        printf("Peaks: gemm %.0f GFLOP/s f32, %.0f bf16; copy %.1f GB/s. Kernels: %s, %lld threads.\n\n"
               "| operation | case | dtype | median us | best us | GFLOP/s | of gemm | GB/s | of copy |\n"
               "|---|---|---|--:|--:|--:|--:|--:|--:|\n",
               b->peak.gemm_f32_gflops, b->peak.gemm_bf16_gflops, b->peak.copy_gbs, isa_name(b->level),
               (long long)device_about(b->d)->threads);
}

static void print_row(const bench *b, const char *op, const op_case *k, dtype act, const timing *t)
{
    if (b->args->format == FORMAT_CSV)
        printf("%s,\"%s\",\"%s\",%s,%s,%lld,%.9g,%.9g,%.6g,%.4g,%.6g,%.4g\n", op, k->label, k->line,
               dtype_name(act), isa_name(b->level), (long long)t->runs, t->seconds, t->best, t->gflops,
               t->gemm_share, t->gbs, t->copy_share);
    else if (b->args->format == FORMAT_JSON)
        json_array_append_new(b->rows,
                              json_pack("{s:s,s:s,s:s,s:s,s:I,s:f,s:f,s:f,s:f,s:f,s:f}", "operation", op,
                                        "case", k->label, "line", k->line, "dtype", dtype_name(act), "runs",
                                        (json_int_t)t->runs, "median_s", t->seconds, "best_s", t->best,
                                        "gflops", t->gflops, "gemm_share", t->gemm_share, "gbs", t->gbs,
                                        "copy_share", t->copy_share));
    else if (t->no_work)
        printf("| %s | %s | %s | 0 | views: nothing runs | | | | |\n", op, k->label, dtype_name(act));
    else
        printf("| %s | %s | %s | %.2f | %.2f | %.2f | %.1f %% | %.2f | %.0f %% |\n", op, k->label,
               dtype_name(act), t->seconds * 1e6, t->best * 1e6, t->gflops, 100 * t->gemm_share, t->gbs,
               100 * t->copy_share);
    fflush(stdout);
}

static status print_json(const bench *b)
{
    json_t *o =
        json_pack("{s:{s:f,s:f,s:f,s:s,s:I},s:O}", "machine", "gemm_f32_gflops", b->peak.gemm_f32_gflops,
                  "gemm_bf16_gflops", b->peak.gemm_bf16_gflops, "copy_gbs", b->peak.copy_gbs, "isa",
                  isa_name(b->level), "threads", (json_int_t)device_about(b->d)->threads, "rows", b->rows);
    char *s = o ? json_dumps(o, JSON_REAL_PRECISION(6) | JSON_INDENT(1)) : NULL;
    json_decref(o);
    if (!s) return fail(ERR_MEMORY, "op bench: cannot build the JSON object");
    puts(s);
    free(s);
    return OK;
}

/* ---- choosing */

static status bench_case(const bench *b, op_id op, const op_case *k)
{
    const op_def *def = op_table(ISA_PLAIN, op);
    case_spec spec;
    timing t;
    TRY(case_parse(def, k->line, &spec));
    for (dtype act = DT_F32; act <= DT_BF16; act++) {
        if (act == DT_F32 ? !spec.f32 && spec.bf16 : !spec.bf16) continue;
        TRY(wrap(measure(b, op, k->line, act, &t), "%s, case '%s'", def->name, k->label));
        print_row(b, def->name, k, act, &t);
    }
    return OK;
}

static status bench_op(const bench *b, op_id op)
{
    const op_def *def = op_table(ISA_PLAIN, op);
    const char *only = b->args->only;
    bool marked = false, matched = false;
    case_spec spec;
    for (const op_case *k = def->cases; k && k->label; k++) {
        TRY(case_parse(def, k->line, &spec));
        marked |= spec.bench;
    }
    for (const op_case *k = def->cases; k && k->label; k++) {
        TRY(case_parse(def, k->line, &spec));
        bool chosen = only ? !strcmp(only, k->label) || !strcmp(only, k->line) : spec.bench || !marked;
        matched |= chosen;
        if (chosen) TRY(bench_case(b, op, k));
    }
    if (!only || matched) return OK;
    if (!strchr(only, '=')) return fail(ERR_USAGE, "%s has no case '%s'", def->name, only);
    return bench_case(b, op, &(op_case){"given", only});
}

status op_bench_verb(int argc, char **argv)
{
    bench_args a = {0};
    bench b = {.args = &a};
    op_id first = 0, last = OP_COUNT;
    TRY(cli_parse(&argp, argc, argv, &a));
    if (a.name) {
        TRY(op_named(a.name, &first));
        last = first + 1;
    }
    TRY(device_open(&(device_options){.isa = a.isa}, &b.d));
    b.level = device_about(b.d)->level;
    fprintf(stderr, "measuring the machine's peaks\n");
    status s = peak_measure(b.d, NULL, 0, &b.peak);
    b.rows = json_array();
    if (!s) print_head(&b);
    for (op_id i = first; !s && i < last; i++) s = bench_op(&b, i);
    if (!s && a.format == FORMAT_JSON) s = print_json(&b);
    json_decref(b.rows);
    device_close(b.d);
    return s;
}

/* keel doctor: what this machine gives to training, and what stands in the way.
 *
 *     keel doctor                 with measurements, some seconds
 *     keel doctor --quick --json
 */
#include "base/text.h"
#include "cli/cli.h"
#include "cli/machine.h"
#include "cli/terminal.h"
#include "device/host.h"
#include "device/peak.h"
#include "train/libraries.h"
#include "train/registry.h"
#include <jansson.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OPT_JSON = 256, OPT_QUICK };
typedef struct doctor_args {
    machine_args machine;
    bool json, quick;
} doctor_args;

typedef struct findings {
    host_state state;
    peak_figures peaks; // zeros: not measured
    library libraries[MOST_LIBRARIES + 1];
    i64 n_libraries;
    char *registry; // its path; NULL: none can be had
    problem problems[MOST_PROBLEMS + 4];
    i64 n_problems;
} findings;

static const struct argp_option options[] = {{"json", OPT_JSON, 0, 0, "Print one JSON object", 0},
                                             {"quick", OPT_QUICK, 0, 0, "Measure nothing", 0},
                                             {0}};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    doctor_args *a = state->input;
    (void)arg;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &a->machine;
        return 0;
    case OPT_JSON:
        a->json = true;
        return 0;
    case OPT_QUICK:
        a->quick = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* ---- looking */

/* A failure of something every run does is a problem like the others. */
static void note_failure(findings *f, const char *name, status s, const char *remedy)
{
    if (!s) return;
    problem *p = &f->problems[f->n_problems++];
    *p = (problem){.name = name, .severity = PROBLEM_STOPS};
    snprintf(p->what, sizeof p->what, "%s", s->message);
    snprintf(p->remedy, sizeof p->remedy, "%s", remedy);
    status_drop(s);
}

static void look_at_registry(findings *f)
{
    disk_facts disk;
    status s = registry_path(&f->registry);
    if (!s && disk_measure(f->registry, &disk) && !disk.writable)
        s = fail(ERR_IO, "%s cannot be written", f->registry);
    note_failure(f, "registry", s, "set KEEL_REGISTRY to a file you may write");
}

static void look(const doctor_args *a, findings *f)
{
    host_state *s = &f->state;
    arena *memory = NULL;
    device *d = NULL;
    const char *tmp = getenv("TMPDIR");
    s->tmp_path = tmp && *tmp ? tmp : "/tmp";
    s->omp = getenv("OMP_NUM_THREADS");
    s->wait_policy = getenv("OMP_WAIT_POLICY");
    s->spins = getenv("GOMP_SPINCOUNT");
    cpu_detect(&s->cpu);
    host_detect(NULL, &s->host);
    disk_measure(".", &s->here);
    disk_measure(s->tmp_path, &s->tmp);
    f->n_libraries = libraries(f->libraries);
    library *http = &f->libraries[f->n_libraries++]; // of this command only (keel board)
    *http = (library){.name = "libmicrohttpd"};
    snprintf(http->version, sizeof http->version, "%s", MHD_get_version());
    s->level = s->cpu.level;
    s->budget = (cpu_budget){.threads = 1, .cpus = 1};
    note_failure(f, "threads", cpu_count_threads(NULL, &s->budget), "unset it");
    look_at_registry(f);
    note_failure(f, "memory", arena_open(&memory), "ulimit -v unlimited");
    if (memory) {
        arena_close(memory);
        status failed = device_open(&(device_options){a->machine.isa, a->machine.threads}, &d);
        note_failure(f, "device", failed, "give what the message asks for, then look again");
    }
    if (d) s->level = device_about(d)->level;
    if (d && a->machine.threads) {
        s->budget.threads = a->machine.threads;
        snprintf(s->budget.why, sizeof s->budget.why, "--threads");
    }
    if (d && !a->quick) {
        fprintf(stderr, "measuring for some seconds (--quick leaves it out)\n");
        note_failure(f, "peak", peak_measure(d, NULL, 0, &f->peaks), "end programs that hold memory");
    }
    device_close(d);
    f->n_problems += host_problems(s, f->problems + f->n_problems);
}

/* ---- telling */

static const char *const severity_name[] = {"note", "slow", "stops"};
static const paint_color severity_color[] = {CYAN, YELLOW, RED};
static const char *const level_meaning[ISA_COUNT] = {"the compiler's baseline", "AVX2 and FMA",
                                                     "AVX-512 with bfloat16"};

/* "LABEL  TEXT", the label once. */
PRINTF(2, 3) static void row(const char *label, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    printf("%-11s ", label);
    vprintf(format, list);
    putchar('\n');
    va_end(list);
}

static void tell_machine(const host_state *s)
{
    char a[32], b[32], c[32];
    row("processor", "%s", s->cpu.name);
    row("", "%lld online, %lld for us, %lld memory node%s, load %.2f", (long long)s->host.processors,
        (long long)s->budget.cpus, (long long)s->host.nodes, s->host.nodes == 1 ? "" : "s", s->host.load);
    if (s->budget.granted > 0)
        row("", "the cgroup grants %.2f of them", s->budget.granted);
    else
        row("", "no limit by a cgroup");
    if (*s->host.governor) row("clock", "governor %s", s->host.governor);
    row("threads", "%lld (%s)", (long long)s->budget.threads, s->budget.why);
    row("kernels", "%s: %s%s", isa_name(s->level), level_meaning[s->level],
        s->level < s->cpu.level ? ", lowered by --isa" : ", the best of this build that runs here");
    row("memory", "%s, %s available, limit by a cgroup: %s", show_bytes(s->host.memory, a),
        show_bytes(s->host.available, b),
        s->host.memory_limit > 0 ? show_bytes(s->host.memory_limit, c) : "none");
    if (*s->host.huge_pages) row("", "huge pages: %s", s->host.huge_pages);
    row("disk", "%s free of %s here", show_bytes(s->here.free, a), show_bytes(s->here.total, b));
    row("", "%s free of %s in %s", show_bytes(s->tmp.free, a), show_bytes(s->tmp.total, b), s->tmp_path);
}

static void tell_libraries(const findings *f)
{
    char line[80] = "";
    bool first = true;
    for (i64 i = 0; i < f->n_libraries; i++) {
        char one[80];
        snprintf(one, sizeof one, "%s %s%s", f->libraries[i].name, f->libraries[i].version,
                 i < f->n_libraries - 1 ? "," : "");
        if (strlen(line) + strlen(one) > 66) {
            row(first ? "libraries" : "", "%s", line);
            first = false, *line = 0;
        }
        snprintf(line + strlen(line), sizeof line - strlen(line), "%s%s", *line ? " " : "", one);
    }
    row(first ? "libraries" : "", "%s", line);
}

static void tell_problems(const findings *f)
{
    if (!f->n_problems) row("problems", "none found");
    for (i64 i = 0; i < f->n_problems; i++) {
        const problem *p = &f->problems[i];
        putchar('\n');
        printf("%s%s%s: %s\n   -> %s\n", paint(stdout, severity_color[p->severity]),
               severity_name[p->severity], paint(stdout, PLAIN), p->what, p->remedy);
    }
}

static void tell(const findings *f)
{
    row("keel", "%s", code_version());
    tell_machine(&f->state);
    if (f->registry) row("registry", "%s", f->registry);
    tell_libraries(f);
    if (f->peaks.gemm_f32_gflops > 0) {
        row("gemm", "%.0f GFLOP/s f32, %.0f bf16", f->peaks.gemm_f32_gflops, f->peaks.gemm_bf16_gflops);
        row("bandwidth", "%.1f GB/s copying, %.1f reading", f->peaks.copy_gbs, f->peaks.read_gbs);
    }
    tell_problems(f);
}

static json_t *disk_json(const disk_facts *d)
{
    return json_pack("{s:f, s:f, s:b}", "total_bytes", d->total, "free_bytes", d->free, "writable",
                     d->writable);
}

static json_t *number_or_null(double x) { return x > 0 ? json_real(x) : json_null(); }

static json_t *problems_json(const findings *f)
{
    json_t *all = json_array();
    for (i64 i = 0; i < f->n_problems; i++) {
        const problem *p = &f->problems[i];
        json_array_append_new(all,
                              json_pack("{s:s, s:s, s:s, s:s}", "name", p->name, "severity",
                                        severity_name[p->severity], "what", p->what, "remedy", p->remedy));
    }
    return all;
}

static status tell_json(const findings *f)
{
    const host_state *s = &f->state;
    json_t *l = json_object();
    for (i64 i = 0; i < f->n_libraries; i++)
        json_object_set_new(l, f->libraries[i].name, json_string(f->libraries[i].version));
    json_t *o = json_pack(
        "{s:s, s:s, s:s, s:s, s:I, s:s, s:I, s:I, s:o, s:I, s:s, s:s, s:f, s:f, s:f, s:o, s:o, s:o, s:s?, "
        "s:o, s:o, s:o, s:o, s:o, s:o}",
        "version", code_version(), "processor", s->cpu.name, "isa", isa_name(s->level), "isa_best",
        isa_name(s->cpu.level), "threads", (json_int_t)s->budget.threads, "threads_why", s->budget.why,
        "processors", (json_int_t)s->host.processors, "processors_allowed", (json_int_t)s->budget.cpus,
        "processors_cgroup", number_or_null(s->budget.granted), "memory_nodes", (json_int_t)s->host.nodes,
        "governor", s->host.governor, "huge_pages", s->host.huge_pages, "load", s->host.load, "memory_bytes",
        s->host.memory, "memory_available_bytes", s->host.available, "memory_limit_bytes",
        number_or_null(s->host.memory_limit), "disk", disk_json(&s->here), "tmp", disk_json(&s->tmp),
        "registry", f->registry, "libraries", l, "gemm_f32_gflops", number_or_null(f->peaks.gemm_f32_gflops),
        "gemm_bf16_gflops", number_or_null(f->peaks.gemm_bf16_gflops), "copy_gbs",
        number_or_null(f->peaks.copy_gbs), "read_gbs", number_or_null(f->peaks.read_gbs), "problems",
        problems_json(f));
    return cli_print_json(o);
}

status verb_doctor(int argc, char **argv)
{
    static const struct argp_child children[] = {{&machine_argp, 0, "Machine:", 5}, {0}};
    static const struct argp argp = {
        options,
        parse,
        "",
        "Says what this machine gives to training: processors, instruction set and the kernels chosen, "
        "memory, "
        "disk, libraries, the peaks of matrix products and memory; and what stands in the way, with the "
        "remedy. Exits with 1 where nothing can be trained.",
        children,
        NULL,
        NULL};
    doctor_args a = {0};
    findings f = {0};
    i64 stops = 0;
    TRY(cli_parse(&argp, argc, argv, &a));
    look(&a, &f);
    status s = OK;
    if (a.json)
        s = tell_json(&f);
    else
        tell(&f);
    free(f.registry);
    for (i64 i = 0; i < f.n_problems; i++) stops += f.problems[i].severity == PROBLEM_STOPS;
    if (s || !stops) return s;
    return fail(ERR_CHECK, "doctor: %lld problem%s with which nothing can be trained", (long long)stops,
                stops == 1 ? "" : "s");
}

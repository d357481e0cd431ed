/* keel lab run, keel lab report: experiments: several configurations, seeds, error bars, a verdict.
 *
 *     keel lab run configs/lab/sdd.yaml data.train=text.txt
 *     keel lab report configs/lab/sdd.yaml --results docs/results/sdd.jsonl --html sdd.html
 */
#include "base/file.h"
#include "cli/cli.h"
#include "cli/machine.h"
#include "cli/terminal.h"
#include "lab/plan.h"
#include "lab/queue.h"
#include "lab/table.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    OPT_SCALE = 256,
    OPT_JOBS,
    OPT_AGAIN,
    OPT_DRY,
    OPT_RESULTS,
    OPT_HTML,
    OPT_MARKDOWN,
    OPT_JSON,
    MOST_FILES = 64
};

typedef struct run_args {
    machine_args machine;
    const char *files[MOST_FILES], *overrides[MOST_OVERRIDES], *scale, *out, *results, *html, *markdown,
        *json_file;
    i64 n_files, n_overrides, jobs;
    bool again, dry, json, computes; // computes: takes --isa and --threads
    int line, width;                 // the live line: how long it is, how wide the terminal
} run_args;

static const struct argp_option run_options[] = {
    {"scale", OPT_SCALE, "NAME", 0, "Which of the experiment's scales (default: its first, small)", 0},
    {"out", 'o', "DIR", 0, "Runs, shards and results go below it (default: runs/lab)", 0},
    {"jobs", OPT_JOBS, "N", 0, "Runs at a time, each on its own processors (default: a run a processor)", 0},
    {"again", OPT_AGAIN, 0, 0, "Run anew what has been run", 0},
    {"json", OPT_JSON, 0, 0, "Print the report as one JSON object, not as Markdown", 0},
    {"dry-run", OPT_DRY, 0, 0, "Print the runs and the predicted time, run nothing", 0},
    {0}};

static const struct argp_option report_options[] = {
    {"scale", OPT_SCALE, "NAME", 0, "Which of the experiment's scales (default: its first)", 0},
    {"out", 'o', "DIR", 0, "Where keel lab run put the results (default: runs/lab)", 0},
    {"results", OPT_RESULTS, "FILE", 0, "The results themselves (default: results.jsonl below DIR)", 0},
    {"markdown", OPT_MARKDOWN, "FILE", 0, "Write the report as Markdown to FILE, not to standard output", 0},
    {"html", OPT_HTML, "FILE", 0, "Also write it as one page", 0},
    {"json", OPT_JSON, "FILE", OPTION_ARG_OPTIONAL, "Write it as one JSON object (without FILE: print it)",
     0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    run_args *a = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        if (a->computes) state->child_inputs[0] = &a->machine;
        return 0;
    case OPT_SCALE:
        a->scale = arg;
        return 0;
    case 'o':
        a->out = arg;
        return 0;
    case OPT_JOBS:
        if (!parse_i64(arg, &a->jobs) || a->jobs < 1 || a->jobs > 64)
            argp_error(state, "--jobs=%s: expected a number from 1 to 64", arg);
        return 0;
    case OPT_AGAIN:
        a->again = true;
        return 0;
    case OPT_DRY:
        a->dry = true;
        return 0;
    case OPT_RESULTS:
        a->results = arg;
        return 0;
    case OPT_HTML:
        a->html = arg;
        return 0;
    case OPT_MARKDOWN:
        a->markdown = arg;
        return 0;
    case OPT_JSON:
        a->json = true;
        a->json_file = arg;
        return 0;
    case ARGP_KEY_ARG:
        if (strchr(arg, '=')) {
            if (a->n_overrides == MOST_OVERRIDES) argp_error(state, "more than %d settings", MOST_OVERRIDES);
            a->overrides[a->n_overrides++] = arg;
        } else {
            if (a->n_files == MOST_FILES) argp_error(state, "more than %d experiments", MOST_FILES);
            a->files[a->n_files++] = arg;
        }
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "which experiment? configs/lab has some");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static status load(const run_args *a, const char *file, experiment **e)
{
    TRY(experiment_load(file, a->scale, e));
    for (i64 i = 0; i < a->n_overrides; i++) {
        status s = experiment_override(*e, a->overrides[i]);
        if (!s) continue;
        experiment_close(*e);
        return s;
    }
    return OK;
}

/* ---- talking */

static void clear_line(run_args *a)
{
    if (a->line) fprintf(stderr, "\r%*s\r", a->line, "");
    a->line = 0;
}

static void talk(void *context, const char *line)
{
    clear_line(context);
    fprintf(stderr, "%s\n", line);
}

static void live(void *context, const char *line)
{
    run_args *a = context;
    int n = MIN((int)strlen(line), a->width - 1);
    while (n > 0 && (line[n] & 0xc0) == 0x80) n--; // never half a letter
    fprintf(stderr, "\r%.*s%*s", n, line, MAX(0, a->line - n), "");
    fflush(stderr);
    a->line = n;
}

/* ---- keel lab run */

static status list_runs(lab_plan *p)
{
    char time[32];
    double seconds;
    for (i64 i = 0; i < p->n_jobs; i++)
        printf("%s%s\n", p->jobs[i].label, p->jobs[i].known ? " (known)" : "");
    TRY(lab_plan_seconds(p, &seconds));
    fprintf(stderr, "about %s\n", show_seconds(seconds, time));
    return OK;
}

static status print_table(const experiment *e, const char *results, bool json)
{
    arena *a;
    lab_results r;
    lab_table t;
    text out = {0};
    TRY(arena_open(&a));
    status s = results_read(a, results, &r);
    if (!s) {
        lab_table_make(a, e, r.item, r.n, &t);
        if (json)
            s = lab_json(&t, &out);
        else
            lab_markdown(&t, &out);
        if (!s) fputs(out.data, stdout);
    }
    text_free(&out);
    arena_close(a);
    return s;
}

static status failures(const lab_plan *p)
{
    i64 n = 0;
    for (i64 i = 0; i < p->n_jobs; i++) n += result_is(&p->jobs[i].result, "failed");
    return n ? fail(ERR_CHECK, "%s: %lld of %lld runs failed; the report names them", p->e->path,
                    (long long)n, (long long)p->n_jobs)
             : OK;
}

static status run_one(run_args *a, const experiment *e, const lab_options *o, const lab_queue_options *q)
{
    lab_plan *p;
    char time[32];
    double seconds;
    i64 all, known;
    TRY(lab_plan_open(e, o, &p));
    lab_plan_fit(p);
    status s = a->dry ? list_runs(p) : lab_plan_seconds(p, &seconds);
    if (!s && !a->dry) {
        lab_plan_count(p, &all, &known);
        fprintf(stderr,
                "%s: %lld arms, %lld runs, %lld known already; about %s for the rest, %lld at a time\n",
                e->title, (long long)e->n_arms, (long long)all, (long long)known, show_seconds(seconds, time),
                (long long)p->o.jobs);
        s = lab_queue_run(p, q);
        clear_line(a);
        if (!s) s = print_table(e, lab_results_path(p), a->json);
        if (!s) s = failures(p);
        if (!s) fprintf(stderr, "results: %s\n", lab_results_path(p));
    }
    lab_plan_close(p);
    return s;
}

status lab_run(int argc, char **argv)
{
    static const struct argp_child children[] = {{&machine_argp, 0, "Machine:", 5}, {0}};
    static const struct argp argp = {run_options,
                                     parse,
                                     "EXPERIMENT... [KEY=VALUE...]",
                                     "Runs experiments: every arm with every seed, tuned and matched as the "
                                     "file says, and prints the table "
                                     "with intervals and verdicts. What has been run is not run again."
                                     "\vdocs/lab.md explains the file. KEY=VALUE applies to all arms, as "
                                     "data.train=FOLDER. A signal stops "
                                     "and saves; the same command goes on.",
                                     children,
                                     NULL,
                                     NULL};
    run_args a = {.out = "runs/lab", .width = terminal_width(), .computes = true};
    device *d;
    isa level;
    TRY(cli_parse(&argp, argc, argv, &a));
    i64 threads = a.machine.threads;
    if (!a.jobs || !threads) { // one of the two from the other: together the processors we may use
        TRY(device_open(&(device_options){a.machine.isa, 0}, &d));
        i64 have = device_about(d)->threads;
        device_close(d);
        // a run a processor: small models leave two threads waiting for each other
        if (!a.jobs) a.jobs = MAX(have / MAX(threads, (i64)1), (i64)1);
        if (!threads) threads = MAX(have / a.jobs, (i64)1);
    }
    a.machine.threads = threads;
    TRY(machine_open(&a.machine, &d, &level));
    lab_options o = {.device = d,
                     .isa = level,
                     .root = a.out,
                     .again = a.again,
                     .jobs = a.jobs,
                     .talk = talk,
                     .context = &a};
    lab_queue_options q = {.binary = "/proc/self/exe",
                           .threads = threads,
                           .stop = stop_on_signals(),
                           .live = a.width ? live : NULL,
                           .context = &a};
    status s = OK;
    for (i64 i = 0; i < a.n_files && !s; i++) {
        experiment *e;
        s = load(&a, a.files[i], &e);
        if (s) break;
        s = run_one(&a, e, &o, &q);
        experiment_close(e);
    }
    device_close(d);
    return s;
}

/* ---- keel lab report */

static status put(const char *path, const text *t)
{
    if (!path || !strcmp(path, "-")) return fputs(t->data, stdout), OK;
    return file_replace(path, t->data, t->bytes);
}

static status write_reports(const run_args *a, arena *m, const lab_table *t)
{
    text md = {0}, page = {0}, json = {0};
    status s = OK;
    if (a->markdown || !a->json) {
        lab_markdown(t, &md);
        s = put(a->markdown, &md);
    }
    if (!s && a->html) s = lab_page(m, t, &page);
    if (!s && a->html) s = put(a->html, &page);
    if (!s && a->json) s = lab_json(t, &json);
    if (!s && a->json) s = put(a->json_file, &json);
    text_free(&md);
    text_free(&page);
    text_free(&json);
    return s;
}

status lab_report(int argc, char **argv)
{
    static const struct argp argp = {report_options,
                                     parse,
                                     "EXPERIMENT [KEY=VALUE...]",
                                     "Reports an experiment that keel lab run has run, or is running.",
                                     NULL,
                                     NULL,
                                     NULL};
    run_args a = {.out = "runs/lab"};
    experiment *e;
    arena *m;
    lab_results r;
    lab_table t;
    TRY(cli_parse(&argp, argc, argv, &a));
    if (a.n_files > 1) return fail(ERR_USAGE, "lab report: one experiment at a time");
    TRY(load(&a, a.files[0], &e));
    status s = arena_open(&m);
    if (s) {
        experiment_close(e);
        return s;
    }
    if (!a.results)
        a.results = arena_printf(m, "%s/%s%s%s/results.jsonl", a.out, e->name, e->scale ? "-" : "",
                                 e->scale ? e->scale : "");
    s = path_exists(a.results)
            ? results_read(m, a.results, &r)
            : fail(ERR_INPUT, "%s does not exist; 'keel lab run %s' makes it, or say --results", a.results,
                   a.files[0]);
    if (!s) {
        lab_table_make(m, e, r.item, r.n, &t);
        s = write_reports(&a, m, &t);
    }
    arena_close(m);
    experiment_close(e);
    return s;
}

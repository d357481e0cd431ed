/* keel runs: the registry's runs as a table, one of them in full, a run's report page. */
#define _GNU_SOURCE // asprintf
#include "base/file.h"
#include "base/text.h"
#include "cli/cli.h"
#include "train/registry.h"
#include "train/run_page.h"
#include <argp.h>
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { OPT_JSON = 256, OPT_REGISTRY, OPT_OUT, OPT_SAMPLES };

typedef struct runs_args {
    const char *verb, *what, *registry, *out, *samples;
    bool json;
} runs_args;

static const struct argp_option options[] = {
    {"json", OPT_JSON, 0, 0, "Print JSON (list: an array, show: an object)", 0},
    {"registry", OPT_REGISTRY, "FILE", 0,
     "The registry (default: KEEL_REGISTRY, else ~/.local/share/keel/runs.db)", 0},
    {"out", OPT_OUT, "FILE", 0, "report: the page to write (default: FOLDER/report.html)", 0},
    {"samples", OPT_SAMPLES, "FILE", 0, "report: lines {\"prompt\": ..., \"completion\": ...} to show", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    runs_args *a = state->input;
    switch (key) {
    case OPT_JSON:
        a->json = true;
        return 0;
    case OPT_REGISTRY:
        a->registry = arg;
        return 0;
    case OPT_OUT:
        a->out = arg;
        return 0;
    case OPT_SAMPLES:
        a->samples = arg;
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num > 1) argp_error(state, "one argument too many: '%s'", arg);
        *(state->arg_num ? &a->what : &a->verb) = arg;
        return 0;
    case ARGP_KEY_END:
        if (!a->verb) argp_error(state, "list, show or report?");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* A run whose process was killed could not enter that. Its folder's lock holds the number of the process. */
static const char *status_now(const registry_run *run)
{
    char path[4096], *data = NULL;
    size_t bytes;
    if (strcmp(run->status, "running")) return run->status;
    snprintf(path, sizeof path, "%s/lock", run->folder);
    status s = path_exists(path) ? file_read(path, &data, &bytes) : OK;
    long pid = data ? strtol(data, NULL, 10) : 0;
    bool gone = pid > 0 && kill((pid_t)pid, 0) && errno == ESRCH;
    status_drop(s);
    free(data);
    return gone ? "killed" : run->status;
}

static const char *show_time(i64 seconds, char out[32])
{
    time_t t = (time_t)seconds;
    struct tm tm;
    strcpy(out, "-");
    if (seconds && gmtime_r(&t, &tm)) strftime(out, 32, "%Y-%m-%d %H:%M", &tm);
    return out;
}

static const char *show_real(double x, char out[32])
{
    snprintf(out, 32, "%.4f", x);
    return isfinite(x) ? out : "-";
}

/* Text of the registry on a terminal: control characters, which terminals obey, become '?'. */
static void put_text(const char *s)
{
    for (; *s; s++) putchar(((u8)*s < 32 && *s != '\n' && *s != '\t') || *s == 127 ? '?' : *s);
}

static json_t *json_real_or_null(double x) { return isfinite(x) ? json_real(x) : json_null(); }

static json_t *run_json(const registry_run *run)
{
    json_t *o = json_object();
#define VALUE_TEXT(x) json_string(x)
#define VALUE_INTEGER(x) json_integer(x)
#define VALUE_REAL(x) json_real_or_null(x)
#define COLUMN(kind, name) json_object_set_new(o, #name, VALUE_##kind(run->name));
    REGISTRY_COLUMNS(COLUMN)
#undef COLUMN
    json_object_set_new(o, "status", json_string(status_now(run)));
    return o;
}

static void put_json(json_t *o)
{
    json_dumpf(o, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(o);
}

/* ---- list */

enum { COLUMNS = 8 };

static void list_cells(arena *a, const registry_run *run, const char *cells[COLUMNS])
{
    char b[32];
    cells[0] = run->id;
    cells[1] = status_now(run);
    cells[2] = arena_strdup(a, show_time(run->started, b));
    cells[3] = arena_printf(a, "%lld", (long long)run->steps);
    cells[4] = arena_strdup(a, show_count((double)run->tokens, b));
    cells[5] = arena_strdup(a, show_real(run->loss, b));
    cells[6] = arena_strdup(a, show_real(run->bits_per_byte, b));
    cells[7] = *run->name ? arena_printf(a, "%s  %s", run->name, run->folder) : run->folder;
}

static void put_table(const char *(*rows)[COLUMNS], i64 n)
{
    int width[COLUMNS] = {0};
    for (i64 i = 0; i < n; i++)
        for (int c = 0; c < COLUMNS; c++) width[c] = MAX(width[c], (int)strlen(rows[i][c]));
    for (i64 i = 0; i < n; i++) {
        for (int c = 0; c < COLUMNS - 1; c++) printf("%*s  ", c >= 3 ? width[c] : -width[c], rows[i][c]);
        put_text(rows[i][COLUMNS - 1]);
        putchar('\n');
    }
}

static status list(const runs_args *args, registry *r, arena *a)
{
    static const char *const head[COLUMNS] = {"ID",     "STATUS", "STARTED (UTC)", "STEPS",
                                              "TOKENS", "LOSS",   "BITS/BYTE",     "NAME"};
    registry_run *runs;
    i64 n;
    TRY(registry_list(r, a, &runs, &n));
    if (args->json) {
        json_t *all = json_array();
        for (i64 i = 0; i < n; i++) json_array_append_new(all, run_json(&runs[i]));
        put_json(all);
        return OK;
    }
    if (!n) {
        fprintf(stderr, "no runs yet; 'keel train' adds one\n");
        return OK;
    }
    const char *(*rows)[COLUMNS] = arena_alloc(a, sizeof *rows * (size_t)(n + 1));
    memcpy(rows[0], head, sizeof head);
    for (i64 i = 0; i < n; i++) list_cells(a, &runs[i], rows[i + 1]);
    put_table(rows, n + 1);
    return OK;
}

/* ---- show */

static void put_row(const char *key, const char *value)
{
    if (!*value || !strcmp(value, "-")) return;
    printf("%-14s", key);
    put_text(value);
    putchar('\n');
}

static void put_run(const registry_run *run, const metric *values, i64 n)
{
    char b[32], number[32];
    put_row("id", run->id);
    put_row("name", run->name);
    put_row("folder", run->folder);
    put_row("status", status_now(run));
    put_row("started", show_time(run->started, b));
    put_row("ended", show_time(run->ended, b));
    if (run->ended > run->started) put_row("took", show_seconds((double)(run->ended - run->started), b));
    snprintf(number, sizeof number, "%lld", (long long)run->steps);
    put_row("steps", number);
    put_row("tokens", show_count((double)run->tokens, b));
    put_row("loss", show_real(run->loss, b));
    put_row("bits per byte", show_real(run->bits_per_byte, b));
    put_row("identity", run->identity);
    put_row("code", run->code);
    snprintf(number, sizeof number, "%lld", (long long)run->threads);
    put_row("threads", run->threads ? number : "");
    put_row("isa", run->isa);
    put_row("libraries", run->libraries);
    put_row("host", run->host);
    if (n) printf("\nlast metrics\n");
    for (i64 i = 0; i < n; i++) printf("  %-24s%.6g\n", values[i].name, values[i].value);
    if (*run->config) printf("\nconfiguration\n");
    put_text(run->config);
    if (*run->config && run->config[strlen(run->config) - 1] != '\n') putchar('\n');
}

static status show(const runs_args *args, registry *r, arena *a)
{
    registry_run run;
    metric *values;
    i64 n;
    TRY(registry_find(r, a, args->what, &run));
    TRY(registry_last_metrics(r, a, run.id, &values, &n));
    if (args->json) {
        json_t *o = run_json(&run), *metrics = json_object();
        for (i64 i = 0; i < n; i++)
            json_object_set_new(metrics, values[i].name, json_real_or_null(values[i].value));
        json_object_set_new(o, "metrics", metrics);
        put_json(o);
    } else
        put_run(&run, values, n);
    return OK;
}

/* ---- report */

static status report(const runs_args *args)
{
    char *out = NULL;
    if (!args->out && asprintf(&out, "%s/report.html", args->what) < 0)
        return fail(ERR_MEMORY, "out of memory");
    status s = run_page_write(args->what, args->out ? args->out : out, args->samples);
    if (!s) fprintf(stderr, "wrote %s\n", args->out ? args->out : out);
    free(out);
    return s;
}

status verb_runs(int argc, char **argv)
{
    static const struct argp argp = {options,
                                     parse,
                                     "list\nshow ID|FOLDER\nreport FOLDER",
                                     "Lists the runs of the registry, shows one, writes a run's report page.",
                                     0,
                                     0,
                                     0};
    static const char *const verbs[] = {"list", "show", "report"};
    runs_args args = {0};
    registry *r;
    arena *a;
    TRY(cli_parse(&argp, argc, argv, &args));
    bool is_list = !strcmp(args.verb, "list"), is_show = !strcmp(args.verb, "show"),
         is_report = !strcmp(args.verb, "report");
    const char *near = nearest_name(args.verb, verbs, COUNT(verbs));
    if (!is_list && !is_show && !is_report)
        return fail(ERR_USAGE, "runs: no '%s'%s%s%s; it is list, show or report", args.verb,
                    near ? ", perhaps '" : "", near ? near : "", near ? "'" : "");
    if (is_list && args.what) return fail(ERR_USAGE, "runs list takes no argument, but got '%s'", args.what);
    if (is_show && !args.what)
        return fail(ERR_USAGE, "runs show: which? Give an id of 'keel runs list' or a run's folder");
    if (is_report && !args.what) return fail(ERR_USAGE, "runs report: which? Give a run's folder");
    if (is_report) return report(&args);
    TRY(registry_open(args.registry, REGISTRY_READ, &r));
    status s = arena_open(&a);
    if (!s) {
        s = is_list ? list(&args, r, a) : show(&args, r, a);
        arena_close(a);
    }
    registry_close(r);
    return s;
}

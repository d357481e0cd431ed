/* keel runs: the verb; the registry's runs as a table, one of them in full, the report page. */
#define _GNU_SOURCE // asprintf
#include "base/file.h"
#include "base/text.h"
#include "cli/cli.h"
#include "cli/runs_parts.h"
#include "train/run_pages.h"
#include <argp.h>
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { OPT_JSON = 256, OPT_REGISTRY, OPT_OUT, OPT_SAMPLES, OPT_CSV, OPT_JSONL, OPT_TENSORBOARD, OPT_YES };

static const struct argp_option options[] = {
    {"json", OPT_JSON, 0, 0, "Print JSON: of list an array, else an object", 0},
    {"registry", OPT_REGISTRY, "FILE", 0,
     "The registry (default: KEEL_REGISTRY, else ~/.local/share/keel/runs.db)", 0},
    {"out", OPT_OUT, "FILE", 0,
     "report: the page to write (default: FOLDER/report.html; of several runs: report.html). export: the "
     "file to write (default: standard output)",
     0},
    {"samples", OPT_SAMPLES, "FILE", 0,
     "report of one run: lines {\"prompt\": ..., \"completion\": ...} to show", 0},
    {"csv", OPT_CSV, 0, 0, "export: comma-separated values, a row a step", 0},
    {"jsonl", OPT_JSONL, 0, 0, "export: a JSON object a step", 0},
    {"tensorboard", OPT_TENSORBOARD, "DIR", 0, "export: an event file in DIR, for TensorBoard", 0},
    {"yes", OPT_YES, 0, 0, "gc: remove it; without it gc only says what it would remove", 0},
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
    case OPT_CSV:
        a->csv = true;
        return 0;
    case OPT_JSONL:
        a->jsonl = true;
        return 0;
    case OPT_TENSORBOARD:
        a->tensorboard = arg;
        return 0;
    case OPT_YES:
        a->yes = true;
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num > MOST_RUNS)
            argp_error(state, "one argument too many: '%s'; at most %d runs", arg, MOST_RUNS);
        if (state->arg_num)
            a->what[a->n_what++] = arg;
        else
            a->verb = arg;
        return 0;
    case ARGP_KEY_END:
        if (!a->verb) argp_error(state, "list, show, compare, export, report or gc?");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* A run whose process was killed could not enter that. Its folder's lock holds the number of the process. */
const char *runs_status_now(const registry_run *run)
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
void runs_put_text(const char *s)
{
    for (; *s; s++) putchar(((u8)*s < 32 && *s != '\n' && *s != '\t') || *s == 127 ? '?' : *s);
}

json_t *runs_real(double x) { return isfinite(x) ? json_real(x) : json_null(); }

static json_t *run_json(const registry_run *run)
{
    json_t *o = json_object();
#define VALUE_TEXT(x) json_string(x)
#define VALUE_INTEGER(x) json_integer(x)
#define VALUE_REAL(x) runs_real(x)
#define COLUMN(kind, name) json_object_set_new(o, #name, VALUE_##kind(run->name));
    REGISTRY_COLUMNS(COLUMN)
#undef COLUMN
    json_object_set_new(o, "status", json_string(runs_status_now(run)));
    return o;
}

void runs_put_json(json_t *o)
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
    cells[1] = runs_status_now(run);
    cells[2] = arena_strdup(a, show_time(run->started, b));
    cells[3] = arena_printf(a, "%lld", (long long)run->steps);
    cells[4] = arena_strdup(a, show_count((double)run->tokens, b));
    cells[5] = arena_strdup(a, show_real(run->loss, b));
    cells[6] = arena_strdup(a, show_real(run->bits_per_byte, b));
    cells[7] = *run->name ? arena_printf(a, "%s  %s", run->name, run->folder) : run->folder;
}

void runs_put_table(const char *const *cells, i64 rows, i64 columns, i64 left, bool loose)
{
    for (i64 r = 0; r < rows; r++) {
        for (i64 c = 0; c < columns; c++) {
            int width = 0;
            if (c < columns - 1 || !loose)
                for (i64 k = 0; k < rows; k++) width = MAX(width, (int)strlen(cells[k * columns + c]));
            const char *cell = cells[r * columns + c];
            int room = width - (int)strlen(cell);
            if (c >= left && room > 0) printf("%*s", room, "");
            runs_put_text(cell);
            if (c < left && c < columns - 1 && room > 0) printf("%*s", room, "");
            if (c < columns - 1) printf("  ");
        }
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
        runs_put_json(all);
        return OK;
    }
    if (!n) {
        fprintf(stderr, "no runs yet; 'keel train' adds one\n");
        return OK;
    }
    const char *(*rows)[COLUMNS] = arena_alloc(a, sizeof *rows * (size_t)(n + 1));
    memcpy(rows[0], head, sizeof head);
    for (i64 i = 0; i < n; i++) list_cells(a, &runs[i], rows[i + 1]);
    runs_put_table(&rows[0][0], n + 1, COLUMNS, 3, true);
    return OK;
}

/* ---- show */

static void put_row(const char *key, const char *value)
{
    if (!*value || !strcmp(value, "-")) return;
    printf("%-14s", key);
    runs_put_text(value);
    putchar('\n');
}

static void put_run(const registry_run *run, const metric *values, i64 n)
{
    char b[32], number[32];
    put_row("id", run->id);
    put_row("name", run->name);
    put_row("folder", run->folder);
    put_row("status", runs_status_now(run));
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
    runs_put_text(run->config);
    if (*run->config && run->config[strlen(run->config) - 1] != '\n') putchar('\n');
}

static status show(const runs_args *args, registry *r, arena *a)
{
    registry_run run;
    metric *values;
    i64 n;
    TRY(registry_find(r, a, args->what[0], &run));
    TRY(registry_last_metrics(r, a, run.id, &values, &n));
    if (args->json) {
        json_t *o = run_json(&run), *metrics = json_object();
        for (i64 i = 0; i < n; i++) json_object_set_new(metrics, values[i].name, runs_real(values[i].value));
        json_object_set_new(o, "metrics", metrics);
        runs_put_json(o);
    } else
        put_run(&run, values, n);
    return OK;
}

/* ---- report */

status runs_place(const runs_args *args, arena *a, const char *what, registry_run *run)
{
    registry *r = NULL;
    *run = (registry_run){.id = "", .folder = what};
    status s = registry_open(args->registry, REGISTRY_READ, &r);
    if (!s) s = registry_find(r, a, what, run);
    registry_close(r);
    if (!s || !path_is_dir(what)) return s;
    status_drop(s); // a folder is enough: copied from elsewhere, or the registry is lost
    *run = (registry_run){.id = "", .folder = what};
    return OK;
}

static status report(const runs_args *args, arena *a)
{
    const char *folders[MOST_RUNS], *out = args->out ? args->out : "report.html";
    if (args->samples && args->n_what > 1)
        return fail(ERR_USAGE, "runs report: --samples goes with one run, but there are %lld",
                    (long long)args->n_what);
    for (i64 i = 0; i < args->n_what; i++) {
        registry_run run;
        folders[i] = args->what[i];
        if (path_is_dir(folders[i])) continue;
        TRY(runs_place(args, a, args->what[i], &run));
        folders[i] = run.folder;
    }
    if (args->n_what == 1 && !args->out) out = arena_printf(a, "%s/report.html", folders[0]);
    TRY(run_pages_write(folders, args->n_what, out, args->samples));
    if (args->json) return cli_print_json(json_pack("{s:s}", "page", out));
    fprintf(stderr, "wrote %s\n", out);
    return OK;
}

/* ---- the verb */

/* Runs WORK with the registry open. */
static status with_registry(const runs_args *args, arena *a,
                            status (*work)(const runs_args *, registry *, arena *))
{
    registry *r;
    TRY(registry_open(args->registry, REGISTRY_READ, &r));
    status s = work(args, r, a);
    registry_close(r);
    return s;
}
static status verb_list(const runs_args *args, arena *a) { return with_registry(args, a, list); }
static status verb_show(const runs_args *args, arena *a) { return with_registry(args, a, show); }

static const struct runs_verb {
    const char *name;
    status (*run)(const runs_args *args, arena *a);
    i64 least, most;     // arguments
    const char *missing; // said when there are fewer
} verbs[] = {
    {"list", verb_list, 0, 0, ""},
    {"show", verb_show, 1, 1, "which? Give an id of 'keel runs list' or a run's folder"},
    {"compare", runs_compare, 2, MOST_RUNS, "what with what? Give two runs at least, by id or folder"},
    {"export", runs_export, 1, 1, "which? Give an id of 'keel runs list' or a run's folder"},
    {"report", report, 1, MOST_RUNS, "which? Give a run's folder or id, or several"},
    {"gc", runs_gc, 0, 0, ""},
};

static status find_verb(const runs_args *args, const struct runs_verb **out)
{
    const char *names[COUNT(verbs)];
    *out = NULL;
    for (i64 i = 0; i < COUNT(verbs); i++) {
        names[i] = verbs[i].name;
        if (!strcmp(args->verb, verbs[i].name)) *out = &verbs[i];
    }
    const char *near = nearest_name(args->verb, names, COUNT(names));
    if (!*out)
        return fail(ERR_USAGE, "runs: no '%s'%s%s%s; it is list, show, compare, export, report or gc",
                    args->verb, near ? ", perhaps '" : "", near ? near : "", near ? "'" : "");
    if (args->n_what < (*out)->least) return fail(ERR_USAGE, "runs %s: %s", args->verb, (*out)->missing);
    if (args->n_what <= (*out)->most) return OK;
    return fail(ERR_USAGE, "runs %s takes %s, but got '%s'", args->verb,
                (*out)->most ? "one run" : "no argument", args->what[(*out)->most]);
}

status verb_runs(int argc, char **argv)
{
    static const struct argp argp = {
        options,
        parse,
        "list\nshow RUN\ncompare RUN RUN...\nexport RUN --csv|--jsonl|--tensorboard=DIR\nreport RUN...\ngc",
        "Lists the runs of the registry, shows one, compares several, hands metrics to other programs, "
        "writes a "
        "report page, removes what is no longer needed.\vRUN is an id of the list (or its beginning) or a "
        "run's "
        "folder. gc: entries of the registry whose folder is gone, and in folders of finished runs the "
        "checkpoints before the newest, never those of train.checkpoint.milestones.",
        0,
        0,
        0};
    const struct runs_verb *verb;
    runs_args args = {0};
    arena *a;
    TRY(cli_parse(&argp, argc, argv, &args));
    TRY(find_verb(&args, &verb));
    TRY(arena_open(&a));
    status s = verb->run(&args, a);
    arena_close(a);
    return s;
}

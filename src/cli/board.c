/* keel board: the report page of runs, live, for a browser on this machine. */

#include "base/file.h"
#include "base/text.h"
#include "cli/cli.h"
#include "cli/runs_parts.h"
#include "train/board.h"
#include <argp.h>
#include <signal.h>
#include <stdio.h>

enum { OPT_REGISTRY = 256, OPT_PORT, OPT_REFRESH, OPT_JSON };

typedef struct board_args {
    runs_args runs;
    const char *port, *refresh;
} board_args;

static const struct argp_option options[] = {
    {"port", OPT_PORT, "N", 0, "The port on 127.0.0.1 (default: 8420; 0: any free one)", 0},
    {"refresh", OPT_REFRESH, "N", 0, "Seconds after which browsers load the page again (default: 10)", 0},
    {"registry", OPT_REGISTRY, "FILE", 0,
     "The registry (default: KEEL_REGISTRY, else ~/.local/share/keel/runs.db)", 0},
    {"json", OPT_JSON, 0, 0, "Print the address as a JSON object", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    board_args *a = state->input;
    switch (key) {
    case OPT_PORT:
        a->port = arg;
        return 0;
    case OPT_REFRESH:
        a->refresh = arg;
        return 0;
    case OPT_JSON:
        a->runs.json = true;
        return 0;
    case OPT_REGISTRY:
        a->runs.registry = arg;
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num >= MOST_RUNS)
            argp_error(state, "one argument too many: '%s'; at most %d runs", arg, MOST_RUNS);
        a->runs.what[a->runs.n_what++] = arg;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static status read_number(const char *option, const char *s, i64 low, i64 high, i64 *out)
{
    if (s && (!parse_i64(s, out) || *out < low || *out > high))
        return fail(ERR_USAGE, "board: --%s is '%s'; it must be a whole number from %lld to %lld", option, s,
                    (long long)low, (long long)high);
    return OK;
}

/* The folders to show: of the runs named, else of the newest one of the registry. */
static status find_folders(const board_args *args, arena *a, const char **folders, i64 *n)
{
    registry *r = NULL;
    registry_run *runs, run;
    i64 count = 0;
    *n = args->runs.n_what;
    for (i64 i = 0; i < *n; i++) {
        folders[i] = args->runs.what[i];
        if (path_is_dir(folders[i])) continue;
        TRY(runs_place(&args->runs, a, args->runs.what[i], &run));
        folders[i] = run.folder;
    }
    if (*n) return OK;
    TRY(registry_open(args->runs.registry, REGISTRY_READ, &r));
    status s = registry_list(r, a, &runs, &count);
    registry_close(r);
    if (s) return s;
    if (!count) return fail(ERR_INPUT, "board: no runs yet; 'keel train' adds one, or give a run's folder");
    folders[0] = runs[0].folder, *n = 1;
    return OK;
}

static status serve(const char *const *folders, i64 n, i64 port, i64 refresh, bool json)
{
    board *b;
    sigset_t ends;
    int number;
    sigemptyset(&ends);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGTERM);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    TRY(board_open(folders, n, port, refresh, &b));
    printf(json ? "{\"url\":\"http://127.0.0.1:%d/\"}\n" : "http://127.0.0.1:%d/\n", board_port(b));
    status s = fflush(stdout) ? fail(ERR_IO, "standard output cannot be written") : OK;
    if (!s) {
        fprintf(stderr, "serving %lld run%s; end with Ctrl-C\n", (long long)n, n == 1 ? "" : "s");
        sigwait(&ends, &number);
    }
    board_close(b);
    return s;
}

status verb_board(int argc, char **argv)
{
    static const struct argp argp = {
        options,
        parse,
        "[RUN...]",
        "Serves the report page of one or several runs on 127.0.0.1, made anew for every look; prints its "
        "address. "
        "RUN is an id of 'keel runs list' or a folder (default: the newest run). Ctrl-C ends it.",
        0,
        0,
        0};
    board_args args = {0};
    const char *folders[MOST_RUNS];
    i64 n, port = 8420, refresh = 10;
    arena *a;
    TRY(cli_parse(&argp, argc, argv, &args));
    TRY(read_number("port", args.port, 0, 65535, &port));
    TRY(read_number("refresh", args.refresh, 1, 86400, &refresh));
    TRY(arena_open(&a));
    status s = find_folders(&args, a, folders, &n);
    if (!s) s = serve(folders, n, port, refresh, args.runs.json);
    arena_close(a);
    return s;
}

/* keel lab: experiments on methods. */
#include "base/file.h"
#include "base/text.h"
#include "cli/cli.h"
#include "cli/machine.h"
#include "lab/grid.h"
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LABS(LAB)                                                                                            \
    LAB(run, "run an experiment: a table with intervals, verdicts")                                          \
    LAB(report, "report an experiment as Markdown, JSON or a page")                                          \
    LAB(matrix, "try every pair of methods: gradient, training, resuming, decoding")                         \
    LAB(schedules, "print and draw every learning-rate schedule")
#define LAB(name, help) status lab_##name(int argc, char **argv);
LABS(LAB)
#undef LAB

/* ---- keel lab matrix */
enum { OPT_ALL = 256, OPT_ONLY, OPT_PART, OPT_MARKDOWN, OPT_JSON };

typedef struct matrix_args {
    machine_args machine;
    bool all, markdown, json;
    const char *only[2];
    i64 n_only, part, parts;
} matrix_args;

static const struct argp_option matrix_options[] = {
    {"all", OPT_ALL, 0, 0, "All methods (default: the common ones, whose pairs the tests try)", 0},
    {"only", OPT_ONLY, "METHOD", 0, "Only cells with this method; given twice: that pair", 0},
    {"part", OPT_PART, "I/N", 0, "Only every N-th cell, from the I-th (1 to N): N processes share the work",
     0},
    {"markdown", OPT_MARKDOWN, 0, 0, "Print the grid as the table in docs/methods.md", 0},
    {"json", OPT_JSON, 0, 0, "Print one JSON object a cell", 0},
    {0}};

static error_t matrix_parse(int key, char *arg, struct argp_state *state)
{
    matrix_args *a = state->input;
    char *slash;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &a->machine;
        return 0;
    case OPT_ALL:
        a->all = true;
        return 0;
    case OPT_ONLY:
        if (a->n_only == 2) argp_error(state, "--only: at most two methods");
        if (!method_find(arg))
            argp_error(state, "no method '%s'; 'keel bench method --list' names them", arg);
        a->only[a->n_only++] = arg;
        return 0;
    case OPT_PART:
        slash = strchr(arg, '/');
        if (slash) *slash = 0;
        if (!slash || !parse_i64(arg, &a->part) || !parse_i64(slash + 1, &a->parts) || a->part < 1 ||
            a->part > a->parts)
            argp_error(state, "--part: expected I/N with I from 1 to N, as 1/2");
        return 0;
    case OPT_MARKDOWN:
        a->markdown = true;
        return 0;
    case OPT_JSON:
        a->json = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const char *const outcome_name[] = {"ok", "refused", "FAIL"};

static bool asked(const matrix_args *a, const method_row *x, const method_row *y)
{
    for (i64 i = 0; i < a->n_only; i++)
        if (strcmp(x->name, a->only[i]) != 0 && (!y || strcmp(y->name, a->only[i]) != 0)) return false;
    return a->all || a->n_only || (x->common && (!y || y->common));
}

static void tell_cell(const matrix_args *a, const grid_cell *c)
{
    const char *b = c->b ? c->b->name : "";
    if (a->json) {
        json_t *j =
            json_pack("{s:s, s:s, s:s, s:s, s:f, s:f, s:f, s:f, s:f}", "a", c->a->name, "b", b, "outcome",
                      outcome_name[c->outcome], "reason", c->reason, "slope", c->slope, "nats_before",
                      c->before, "nats_after", c->after, "decode", c->decode, "seconds", c->seconds);
        if (j) json_dumpf(j, stdout, JSON_COMPACT | JSON_REAL_PRECISION(4)), puts("");
        json_decref(j);
    } else if (!a->markdown || c->outcome == GRID_FAILED) {
        FILE *to = a->markdown ? stderr : stdout;
        fprintf(to, "%-14s %-14s %-7s ", c->a->name, b, outcome_name[c->outcome]);
        if (c->outcome == GRID_OK)
            fprintf(to, "slopes %.0e, nats %.3f to %.3f, decoding %.0e, %.1f s\n", c->slope, c->before,
                    c->after, c->decode, c->seconds);
        else
            fprintf(to, "%s\n", c->reason);
    }
    fflush(stdout);
}

typedef struct grid {
    const method_row *row[MOST_METHODS];
    i64 n;
    grid_cell *cell; // [n][n]: the diagonal is a method by itself
    u8 *done;
} grid;

static bool tried(const grid *g, i64 i)
{
    for (i64 j = 0; j < g->n; j++)
        if (g->done[MIN(i, j) * g->n + MAX(i, j)]) return true;
    return false;
}

static void tell_reasons(const grid *g)
{
    i64 refused = 0;
    for (i64 at = 0; at < g->n * g->n; at++) {
        const grid_cell *c = &g->cell[at];
        if (!g->done[at] || c->outcome != GRID_REFUSED) continue;
        if (!refused) puts("");
        printf("%lld. %s with %s: %s\n", (long long)++refused, c->a->name, c->b ? c->b->name : "nothing else",
               c->reason);
    }
}

/* The table: a row and a column a method, the upper triangle filled; below it the reasons of refusals, by
 * number. */
static void tell_markdown(const grid *g)
{
    i64 refused = 0, rows = 1;
    printf("| |");
    for (i64 i = 0; i < g->n; i++)
        if (tried(g, i)) printf(" %s |", g->row[i]->name), rows++;
    printf("\n|");
    for (i64 i = 0; i < rows; i++) printf("---|");
    puts("");
    for (i64 i = 0; i < g->n; i++) {
        if (!tried(g, i)) continue;
        printf("| %s |", g->row[i]->name);
        for (i64 j = 0; j < g->n; j++) {
            const grid_cell *c = &g->cell[i * g->n + j];
            if (!tried(g, j)) continue;
            if (j < i || !g->done[i * g->n + j])
                printf(" |");
            else if (c->outcome == GRID_REFUSED)
                printf(" %lld |", (long long)++refused);
            else
                printf(" %s |", outcome_name[c->outcome]);
        }
        puts("");
    }
    tell_reasons(g);
}

static status run_cells(const matrix_args *a, const grid_options *o, grid *g)
{
    i64 number = 0, count[3] = {0};
    for (i64 i = 0; i < g->n; i++)
        for (i64 j = i; j < g->n; j++) {
            const method_row *x = g->row[i], *y = j > i ? g->row[j] : NULL;
            if (!asked(a, x, y) || (y && !grid_pair(x, y))) continue;
            if (a->n_only == 2 && !y && strcmp(a->only[0], a->only[1]) != 0) continue;
            if (a->parts && number++ % a->parts != a->part - 1) continue;
            TRY(grid_try(x, y, o, &g->cell[i * g->n + j]));
            g->done[i * g->n + j] = 1;
            count[g->cell[i * g->n + j].outcome]++;
            tell_cell(a, &g->cell[i * g->n + j]);
        }
    if (a->markdown) tell_markdown(g);
    fprintf(stderr, "%lld cells: %lld ok, %lld refused, %lld failed\n",
            (long long)(count[0] + count[1] + count[2]), (long long)count[0], (long long)count[1],
            (long long)count[2]);
    if (!count[0] && !count[1] && !count[2]) return fail(ERR_USAGE, "lab matrix: no pair is left to try");
    return count[GRID_FAILED] ? fail(ERR_CHECK, "lab matrix: %lld of the cells failed", (long long)count[2])
                              : OK;
}

status lab_matrix(int argc, char **argv)
{
    static const struct argp_child children[] = {{&machine_argp, 0, "Machine:", 5}, {0}};
    static const struct argp argp = {
        matrix_options,
        matrix_parse,
        "",
        "Builds small models with every method and every pair of methods of different slots, checks the "
        "gradient of the whole model, trains, saves, resumes and decodes; says ok, refused (why) or FAIL.",
        children,
        NULL,
        NULL};
    matrix_args a = {.machine = {.threads = 1}}; // these models are too small for two
    const char *tmp = getenv("TMPDIR");
    char folder[256];
    grid g = {0};
    device *d;
    isa level;
    TRY(cli_parse(&argp, argc, argv, &a));
    g.n = methods_all(g.row, MOST_METHODS);
    TRY(machine_open(&a.machine, &d, &level));
    snprintf(folder, sizeof folder, "%s/keel-matrix-XXXXXX", tmp ? tmp : "/tmp");
    status s = mkdtemp(folder) ? OK : fail(ERR_IO, "%s: cannot create a folder for checkpoints", folder);
    bool made = !s;
    if (!s) s = mem_alloc((size_t)(g.n * g.n) * sizeof *g.cell, "grid", &g.cell);
    if (!s) s = mem_alloc((size_t)(g.n * g.n), "grid", &g.done);
    if (!s) memset(g.done, 0, (size_t)(g.n * g.n));
    if (!s) s = run_cells(&a, &(grid_options){d, level, folder}, &g);
    mem_free(g.cell);
    mem_free(g.done);
    if (made) {
        status swept = tree_remove(folder);
        if (s)
            status_drop(swept);
        else
            s = swept;
    }
    device_close(d);
    return s;
}

/* ---- keel lab */
status lab_coord_check(int argc, char **argv); // a name with a hyphen: not in LABS
static const struct lab {
    const char *name, *help;
    status (*run)(int argc, char **argv);
} parts[] = {
#define LAB(name, help) {#name, help, lab_##name},
    LABS(LAB)
#undef LAB
        {"coord-check", "check muP: do activations change alike at every width?", lab_coord_check},
};

status verb_lab(int argc, char **argv)
{
    char program[64];
    if (argc < 2) return fail(ERR_USAGE, "lab: say what to do; 'keel lab --help' lists it");
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-?")) {
        printf("Usage: keel lab WHAT [ARGUMENTS]\n\n");
        for (i64 i = 0; i < COUNT(parts); i++) printf("  %-11s %s\n", parts[i].name, parts[i].help);
        printf("\n'keel lab WHAT --help' explains one.\n");
        return OK;
    }
    for (i64 i = 0; i < COUNT(parts); i++) {
        if (strcmp(argv[1], parts[i].name)) continue;
        snprintf(program, sizeof program, "keel lab %s", parts[i].name);
        argv[1] = program;
        return parts[i].run(argc - 1, argv + 1);
    }
    return fail(ERR_USAGE, "lab: no '%s'; 'keel lab --help' lists what there is", argv[1]);
}

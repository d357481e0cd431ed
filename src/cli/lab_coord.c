/* keel lab coord-check: the coordinate check of muP, as a table, JSON or a page of curves. */
#include "base/text.h"
#include "cli/cli.h"
#include "cli/machine.h"
#include "format/report.h"
#include "lab/coord.h"
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

status lab_coord_check(int argc, char **argv);

enum { OPT_WIDTHS = 256, OPT_STEPS, OPT_SEEDS, OPT_HTML, OPT_JSON, CURVES = 12 };

typedef struct coord_args {
    machine_args machine;
    i64 widths[COORD_WIDTHS], n_widths, steps, seeds;
    const char *html;
    bool json;
} coord_args;

static const struct argp_option options[] = {
    {"widths", OPT_WIDTHS, "LIST", 0, "Widths of the model, ascending (default 64,128,256,512)", 0},
    {"steps", OPT_STEPS, "N", 0, "Steps trained at each width (default 10)", 0},
    {"seeds", OPT_SEEDS, "N", 0, "Trainings a width, whose figures are averaged (default 2)", 0},
    {"html", OPT_HTML, "FILE", 0, "Also draw the curves on an HTML page", 0},
    {"json", OPT_JSON, 0, 0, "Print one JSON object", 0},
    {0}};

static void take_widths(coord_args *a, const char *arg, struct argp_state *state)
{
    a->n_widths = 0;
    for (const char *at = arg; *at;) {
        char one[32];
        size_t n = strcspn(at, ",");
        i64 width = 0;
        snprintf(one, sizeof one, "%.*s", (int)MIN(n, sizeof one - 1), at);
        if (a->n_widths == COORD_WIDTHS)
            argp_error(state, "--widths=%s: at most %d widths", arg, COORD_WIDTHS);
        if (!parse_i64(one, &width) || width < 1 || width > 65536)
            argp_error(state, "--widths=%s: '%s' is no width; write whole numbers like 32,64,128", arg, one);
        a->widths[a->n_widths++] = width;
        at += n + (at[n] == ',');
    }
}

static i64 whole(const char *name, const char *arg, struct argp_state *state)
{
    i64 n;
    if (!parse_i64(arg, &n) || n < 1 || n > 10000)
        argp_error(state, "--%s=%s: expected a whole number from 1 to 10000", name, arg);
    return n;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    coord_args *a = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &a->machine;
        return 0;
    case OPT_WIDTHS:
        take_widths(a, arg, state);
        return 0;
    case OPT_STEPS:
        a->steps = whole("steps", arg, state);
        return 0;
    case OPT_SEEDS:
        a->seeds = whole("seeds", arg, state);
        return 0;
    case OPT_HTML:
        a->html = arg;
        return 0;
    case OPT_JSON:
        a->json = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* ---- telling */

static const char *verdict(const coord_arm *arm)
{
    double slope = arm->kind[arm->steepest].slope;
    if (arm->flat) return "flat in the width";
    return !isfinite(slope) ? "not finite" : slope > 0 ? "grows with the width" : "shrinks with the width";
}

static void put_table(const coord_args *a, const coord_arm arm[COORD_ARMS])
{
    for (int k = 0; k < COORD_ARMS; k++) {
        const coord_arm *x = &arm[k];
        printf("%strain.transfer.kind: %s\n%-28s", k ? "\n" : "", x->transfer, "change of, at width");
        for (i64 w = 0; w < a->n_widths; w++) printf(" %9lld", (long long)a->widths[w]);
        printf("    slope   slope of mean |x|\n");
        for (i64 i = 0; i < x->n_kinds; i++) {
            printf("%-28s", x->kind[i].name);
            for (i64 w = 0; w < a->n_widths; w++) printf(" %9.3g", x->kind[i].change[w]);
            printf("   %+6.2f   %+6.2f\n", x->kind[i].slope, x->kind[i].size_slope);
        }
        printf("%s: %s (steepest: %s, %+.2f; flat is within %.2f)\n", x->transfer, verdict(x),
               x->kind[x->steepest].name, x->kind[x->steepest].slope, COORD_FLAT);
    }
}

static json_t *real_or_null(double x) { return isfinite(x) ? json_real(x) : json_null(); }

static json_t *reals(const double *x, i64 n)
{
    json_t *j = json_array();
    for (i64 i = 0; i < n; i++) json_array_append_new(j, real_or_null(x[i]));
    return j;
}

static void put_json(const coord_args *a, const coord_arm arm[COORD_ARMS])
{
    json_t *arms = json_array(), *widths = json_array();
    for (i64 w = 0; w < a->n_widths; w++) json_array_append_new(widths, json_integer(a->widths[w]));
    for (int k = 0; k < COORD_ARMS; k++) {
        const coord_arm *x = &arm[k];
        json_t *kinds = json_array();
        for (i64 i = 0; i < x->n_kinds; i++)
            json_array_append_new(kinds, json_pack("{s:s, s:o, s:o, s:o, s:o}", "kind", x->kind[i].name,
                                                   "change", reals(x->kind[i].change, a->n_widths), "slope",
                                                   real_or_null(x->kind[i].slope), "mean_abs",
                                                   reals(x->kind[i].size, a->n_widths), "mean_abs_slope",
                                                   real_or_null(x->kind[i].size_slope)));
        json_array_append_new(arms, json_pack("{s:s, s:b, s:s, s:s, s:o}", "transfer", x->transfer, "flat",
                                              x->flat, "verdict", verdict(x), "steepest",
                                              x->kind[x->steepest].name, "activations", kinds));
    }
    json_t *o = json_pack("{s:o, s:I, s:I, s:f, s:o}", "widths", widths, "steps", (json_int_t)a->steps,
                          "seeds", (json_int_t)a->seeds, "bound", COORD_FLAT, "arms", arms);
    json_dumpf(o, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
    puts("");
    json_decref(o);
}

/* log10 of the change over log2 of the width: slopes are seen as slopes. */
static status draw(const coord_args *a, const coord_arm arm[COORD_ARMS], arena *memory)
{
    report_chart chart[COORD_ARMS * 4];
    i64 n_charts = 0;
    double *x = arena_array(memory, double, a->n_widths);
    for (i64 w = 0; w < a->n_widths; w++) x[w] = log2((double)a->widths[w]);
    for (int k = 0; k < COORD_ARMS; k++)
        for (i64 first = 0; first < arm[k].n_kinds && n_charts < COUNT(chart); first += CURVES / 2) {
            i64 n = MIN(CURVES / 2, arm[k].n_kinds - first);
            report_line *line = arena_array(memory, report_line, n);
            for (i64 i = 0; i < n; i++) {
                const coord_kind *c = &arm[k].kind[first + i];
                double *y = arena_array(memory, double, a->n_widths);
                for (i64 w = 0; w < a->n_widths; w++) y[w] = log10(c->change[w]);
                line[i] =
                    (report_line){.label = c->name, .style = REPORT_POINTS, .x = x, .y = y, .n = a->n_widths};
            }
            chart[n_charts++] = (report_chart){.title = arena_printf(memory, "transfer: %s", arm[k].transfer),
                                               .x_label = "log2(width)",
                                               .y_label = "log10(change)",
                                               .lines = line,
                                               .n_lines = n};
        }
    report_figure figure[COORD_ARMS];
    for (int k = 0; k < COORD_ARMS; k++) {
        const coord_kind *c = &arm[k].kind[arm[k].steepest];
        figure[k] = (report_figure){arm[k].transfer, verdict(&arm[k]),
                                    arena_printf(memory, "steepest: %s, %+.2f", c->name, c->slope)};
    }
    return report_write(&(report_page){.title = "Coordinate check",
                                       .subtitle = "what a few steps change in the activations, by width",
                                       .figures = figure,
                                       .n_figures = COORD_ARMS,
                                       .charts = chart,
                                       .n_charts = n_charts},
                        a->html);
}

static void show_progress(void *context, i64 done, i64 of)
{
    (void)context;
    fprintf(stderr, "\r%lld of %lld trainings%s", (long long)done, (long long)of, done == of ? "\n" : "");
}

static status work(const coord_args *a, device *d, isa level, arena *memory)
{
    coord_arm arm[COORD_ARMS];
    coord_options o = {.config = a->machine.config,
                       .overrides = a->machine.overrides,
                       .n_overrides = a->machine.n_overrides,
                       .widths = a->widths,
                       .n_widths = a->n_widths,
                       .steps = a->steps,
                       .seeds = a->seeds,
                       .device = d,
                       .isa = level,
                       .progress = isatty(2) ? show_progress : NULL};
    TRY(wrap(coord_check(&o, memory, arm), "lab coord-check"));
    if (a->json)
        put_json(a, arm);
    else
        put_table(a, arm);
    return a->html ? draw(a, arm, memory) : OK;
}

status lab_coord_check(int argc, char **argv)
{
    static const struct argp_child children[] = {{&machine_argp, 0, "Machine:", 1}, {0}};
    static const struct argp argp = {
        options,
        parse,
        "[CONFIG] [KEY=VALUE...]",
        "Trains a configuration for a few steps at several widths, once as train.transfer.kind none has it "
        "and "
        "once as mup, and says how what the steps changed in each kind of activation goes with the width: "
        "flat "
        "under muP, growing without. The model's inner widths and heads of a given width go with the width; "
        "tokens are drawn, no data is read. Where CONFIG has no muP, the first width is its base.",
        children,
        NULL,
        NULL};
    coord_args a = {.machine = {.takes_config = true},
                    .widths = {64, 128, 256, 512},
                    .n_widths = 4,
                    .steps = 10,
                    .seeds = 2};
    arena *memory;
    device *d;
    isa level;
    TRY(cli_parse(&argp, argc, argv, &a));
    TRY(machine_open(&a.machine, &d, &level));
    status s = arena_open(&memory);
    if (!s) {
        s = work(&a, d, level, memory);
        arena_close(memory);
    }
    device_close(d);
    return s;
}

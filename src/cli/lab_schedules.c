/* keel lab schedules: every learning-rate schedule as a line of a table and a curve on a page. */
#include "base/text.h"
#include "cli/cli.h"
#include "cli/machine.h"
#include "format/report.h"
#include "optim/schedule.h"
#include <jansson.h>
#include <stdio.h>
#include <string.h>

enum { OPT_STEPS = 256, OPT_OUT, OPT_JSON, POINTS = 400, A_CHART = 5 };

typedef struct schedules_args {
    const char *overrides[MOST_OVERRIDES], *out;
    i64 n_overrides, steps;
    bool json;
} schedules_args;

static const struct argp_option options[] = {
    {"steps", OPT_STEPS, "N", 0, "Length of the run (default 1000)", 0},
    {"out", OPT_OUT, "FILE", 0, "Also draw them on an HTML page", 0},
    {"json", OPT_JSON, 0, 0, "Print one JSON object a schedule", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    schedules_args *a = state->input;
    switch (key) {
    case OPT_STEPS:
        if (!parse_i64(arg, &a->steps) || a->steps < 1 || a->steps > 100000000)
            argp_error(state, "--steps=%s: expected a whole number from 1 to 100000000", arg);
        return 0;
    case OPT_OUT:
        a->out = arg;
        return 0;
    case OPT_JSON:
        a->json = true;
        return 0;
    case ARGP_KEY_ARG:
        if (!strchr(arg, '=')) argp_error(state, "'%s': expected KEY=VALUE", arg);
        if (a->n_overrides == MOST_OVERRIDES - 8) argp_error(state, "too many settings");
        a->overrides[a->n_overrides++] = arg;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* What is drawn: the kinds at their defaults, lists where a kind is nothing without one. */
static const struct shown {
    const char *name, *settings[2];
} shown[] = {
    {"cosine", {"train.schedule.kind=cosine"}},
    {"linear", {"train.schedule.kind=linear"}},
    {"uba, phi 0.5", {"train.schedule.kind=uba", "train.schedule.phi=0.5"}},
    {"uba, phi 5", {"train.schedule.kind=uba", "train.schedule.phi=5"}},
    {"rex", {"train.schedule.kind=rex"}},
    {"wsd, linear", {"train.schedule.kind=wsd"}},
    {"wsd, one_minus_sqrt", {"train.schedule.kind=wsd", "train.schedule.shape=one_minus_sqrt"}},
    {"wsd, exp", {"train.schedule.kind=wsd", "train.schedule.shape=exp"}},
    {"infinite", {"train.schedule.kind=infinite"}},
    {"constant", {"train.schedule.kind=constant"}},
    {"poly", {"train.schedule.kind=poly"}},
    {"exponential", {"train.schedule.kind=exponential"}},
    {"inv_sqrt", {"train.schedule.kind=inv_sqrt"}},
    {"cosine_then_const", {"train.schedule.kind=cosine_then_const"}},
    {"step", {"train.schedule.kind=step", "train.schedule.milestones=[{at: 50%}, {at: 75%}]"}},
    {"onecycle", {"train.schedule.kind=onecycle"}},
    {"cyclic", {"train.schedule.kind=cyclic"}},
    {"cosine_cycles", {"train.schedule.kind=cosine_cycles"}},
    {"jagged", {"train.schedule.kind=jagged"}},
    {"piecewise",
     {"train.schedule.kind=piecewise",
      "train.schedule.phases=[{until: 50%, curve: constant}, {until: 100%, curve: cosine}]"}},
};

static status read_one(const schedules_args *a, const struct shown *x, schedule *out)
{
    const char *word[MOST_OVERRIDES];
    i64 n = 0;
    config *c;
    word[n++] = "train.optimizer.lr=1";
    for (int i = 0; i < 2 && x->settings[i]; i++) word[n++] = x->settings[i];
    for (i64 i = 0; i < a->n_overrides; i++) word[n++] = a->overrides[i];
    TRY(config_load(NULL, word, n, &c));
    status s = schedule_from(c, a->steps, config_count(c, "train.batch_tokens"), out);
    config_close(c);
    return wrap(s, "%s", x->name);
}

static status tell(const schedules_args *a, const char *name, const schedule *s)
{
    static const double at[] = {0, 0.1, 0.25, 0.5, 0.75, 0.9, 1};
    double mean = schedule_sum(s, a->steps - 1, 1) / (double)a->steps;
    if (!a->json) {
        printf("%-20s", name);
        for (int i = 0; i < COUNT(at); i++)
            printf(" %7.4f", schedule_at(s, MIN((i64)(at[i] * (double)a->steps), a->steps - 1)));
        printf("   %.4f\n", mean);
        return OK;
    }
    json_t *j = json_object(), *values = json_array();
    bool good = j && values && !json_object_set_new(j, "name", json_string(name)) &&
                !json_object_set_new(j, "mean", json_real(mean));
    for (int i = 0; good && i < COUNT(at); i++)
        good = !json_array_append_new(
            values, json_real(schedule_at(s, MIN((i64)(at[i] * (double)a->steps), a->steps - 1))));
    good = good && !json_object_set(j, "at", values);
    if (good) json_dumpf(j, stdout, JSON_COMPACT | JSON_REAL_PRECISION(8)), puts("");
    json_decref(j);
    json_decref(values);
    return good ? OK : fail(ERR_MEMORY, "keel lab schedules: cannot build the JSON object");
}

static status draw(const schedules_args *a, const schedule *s)
{
    enum { CHARTS = (COUNT(shown) + A_CHART - 1) / A_CHART };
    static const char *const titles[] = {"Falling all the way", "Held, then falling", "Slowly, or in steps",
                                         "More than one rise"};
    _Static_assert(CHARTS == COUNT(titles), "a title a chart");
    report_line line[COUNT(shown)];
    report_chart chart[CHARTS];
    double *x;
    TRY(mem_alloc((COUNT(shown) + 1) * POINTS * sizeof *x, "curves", &x));
    i64 n = MIN(POINTS, a->steps);
    for (i64 k = 0; k < n; k++) x[k] = (double)(n > 1 ? k * (a->steps - 1) / (n - 1) : 0);
    for (i64 i = 0; i < COUNT(shown); i++) {
        double *y = x + (i + 1) * POINTS;
        for (i64 k = 0; k < n; k++) y[k] = schedule_at(&s[i], (i64)x[k]);
        line[i] = (report_line){.label = shown[i].name, .x = x, .y = y, .n = n};
    }
    for (i64 i = 0; i < CHARTS; i++)
        chart[i] = (report_chart){.title = titles[i],
                                  .x_label = "step",
                                  .y_label = "share of the peak",
                                  .from_zero = true,
                                  .lines = line + i * A_CHART,
                                  .n_lines = MIN(A_CHART, COUNT(shown) - i * A_CHART)};
    status e = report_write(&(report_page){.title = "Learning-rate schedules",
                                           .subtitle = "as train.schedule.kind has them",
                                           .charts = chart,
                                           .n_charts = CHARTS},
                            a->out);
    mem_free(x);
    return e;
}

status lab_schedules(int argc, char **argv)
{
    static const struct argp argp = {
        options,
        parse,
        "[KEY=VALUE...]",
        "Prints every learning-rate schedule: its share of the peak at 0, 10, 25, 50, 75, 90 and 100 % of "
        "the run, and its mean (settings given apply to all).",
        NULL,
        NULL,
        NULL};
    schedules_args a = {.steps = 1000};
    schedule *s;
    TRY(cli_parse(&argp, argc, argv, &a));
    TRY(mem_alloc(COUNT(shown) * sizeof *s, "schedules", &s));
    status e = OK;
    if (!a.json)
        printf("%-20s %7s %7s %7s %7s %7s %7s %7s   mean\n", "", "0", "10%", "25%", "50%", "75%", "90%",
               "100%");
    for (i64 i = 0; i < COUNT(shown) && !e; i++) {
        e = read_one(&a, &shown[i], &s[i]);
        if (!e) e = tell(&a, shown[i].name, &s[i]);
    }
    if (!e && a.out) e = draw(&a, s);
    mem_free(s);
    return e;
}

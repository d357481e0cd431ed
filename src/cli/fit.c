/* keel fit: a scaling law fitted to a table of runs. */
#include "cli/cli.h"
#include "cli/fit_parts.h"
#include <argp.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    OPT_LIST = 256,
    OPT_MARKDOWN,
    OPT_MAP,
    OPT_WHERE,
    OPT_REGISTRY,
    OPT_JSON,
    OPT_HTML,
    OPT_PREDICT,
    OPT_OPTIMAL,
    OPT_FIX,
    OPT_BOOTSTRAP,
    OPT_SEED,
    OPT_HUBER,
    OPT_LEVEL
};

typedef struct fit_args {
    const char *law, *table, *registry, *html, *predict[MOST_ASKED], *optimal[MOST_ASKED], *fix;
    i64 n_predict, n_optimal;
    bool list, markdown, json, from_registry;
    run_choice choice;
    fit_options options;
} fit_args;

static const struct argp_option options[] = {
    {"list", OPT_LIST, 0, 0, "Print the laws there are", 0},
    {"markdown", OPT_MARKDOWN, 0, 0, "Print them as docs/laws.md has them", 0},
    {"map", OPT_MAP, "NAME=COLUMN,...", 0, "Which column holds what, as loss=val_loss,N=params", 0},
    {"where", OPT_WHERE, "COLUMN=VALUE,...", 0, "Only rows of which this holds; also !=, < and >", 0},
    {"registry", OPT_REGISTRY, "FILE", OPTION_ARG_OPTIONAL,
     "Fit to the registry's runs instead of a table (default: KEEL_REGISTRY, else "
     "~/.local/share/keel/runs.db)",
     0},
    {"predict", OPT_PREDICT, "NAME=VALUE,...", 0, "Also say what the law gives there, as N=1e9,D=2e10", 0},
    {"optimal", OPT_OPTIMAL, "FLOPS", 0, "Also say what to train for that much compute (6 N D)", 0},
    {"fix", OPT_FIX, "NAME=VALUE,...", 0, "optimal: hold these inputs", 0},
    {"bootstrap", OPT_BOOTSTRAP, "N", 0, "Resamples for the intervals (default: 400; 0: none)", 0},
    {"level", OPT_LEVEL, "SHARE", 0, "Of the intervals (default: 0.95)", 0},
    {"huber", OPT_HUBER, "SIZE", 0,
     "Residuals above it count by their size, not its square (default: 0.001; 0: least squares)", 0},
    {"seed", OPT_SEED, "N", 0, "Of the resamples (default: 1)", 0},
    {"json", OPT_JSON, 0, 0, "Print one JSON object", 0},
    {"html", OPT_HTML, "FILE", 0, "Also draw the fit on an HTML page", 0},
    {0}};

/* Cuts "NAME=VALUE,NAME=VALUE" up, in place; OPS: what may stand between. */
static void parse_pairs(struct argp_state *state, const char *option, char *arg, const char *ops,
                        run_pair *pair, i64 *n)
{
    char *rest;
    for (char *w = strtok_r(arg, ",", &rest); w; w = strtok_r(NULL, ",", &rest)) {
        char *at = strpbrk(w, ops), op = at ? *at : 0;
        bool two = op == '!' && at[1] == '=';
        if (!at || at == w || !at[1] || (op == '!' && (!two || !at[2])))
            argp_error(state, "%s: '%s': expected %s", option, w,
                       ops[1] ? "COLUMN=VALUE, COLUMN!=VALUE, COLUMN<VALUE or COLUMN>VALUE" : "NAME=VALUE");
        if (*n == RUN_PAIRS) argp_error(state, "%s: more than %d", option, RUN_PAIRS);
        *at = 0;
        pair[(*n)++] = (run_pair){w, at + 1 + two, op};
    }
}

static void parse_number(struct argp_state *state, const char *option, const char *arg, double least,
                         double most, double *out)
{
    if (!(parse_double(arg, out) || parse_count(arg, out)) || !(*out >= least && *out <= most))
        argp_error(state, "%s=%s: expected a number from %g to %g", option, arg, least, most);
}

static void ask(struct argp_state *state, const char *option, const char **list, i64 *n, char *arg)
{
    if (*n == MOST_ASKED) argp_error(state, "%s: more than %d", option, MOST_ASKED);
    list[(*n)++] = arg;
}

static error_t parse_argument(fit_args *a, char *arg, struct argp_state *state)
{
    if (!a->law)
        a->law = arg;
    else if (!a->table)
        a->table = arg;
    else
        argp_error(state, "one argument too many: '%s'", arg);
    return 0;
}

static error_t parse_numbers(fit_args *a, int key, const char *arg, struct argp_state *state)
{
    double x;
    switch (key) {
    case OPT_BOOTSTRAP:
        parse_number(state, "--bootstrap", arg, 0, 100000, &x);
        return a->options.bootstrap = (i64)x, 0;
    case OPT_SEED:
        parse_number(state, "--seed", arg, 0, 9007199254740992.0, &x);
        return a->options.seed = (u64)x, 0;
    case OPT_LEVEL:
        parse_number(state, "--level", arg, 0.01, 0.999, &x);
        return a->options.level = x, 0;
    default:
        parse_number(state, "--huber", arg, 0, 1e6, &x);
        return a->options.huber = x > 0 ? x : INFINITY, 0;
    }
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    fit_args *a = state->input;
    switch (key) {
    case OPT_LIST:
        return a->list = true, 0;
    case OPT_MARKDOWN:
        return a->markdown = true, 0;
    case OPT_MAP:
        return parse_pairs(state, "--map", arg, "=", a->choice.map, &a->choice.n_map), 0;
    case OPT_WHERE:
        return parse_pairs(state, "--where", arg, "=!<>", a->choice.where, &a->choice.n_where), 0;
    case OPT_REGISTRY:
        return a->from_registry = true, a->registry = arg, 0;
    case OPT_PREDICT:
        return ask(state, "--predict", a->predict, &a->n_predict, arg), 0;
    case OPT_OPTIMAL:
        return ask(state, "--optimal", a->optimal, &a->n_optimal, arg), 0;
    case OPT_FIX:
        return a->fix = arg, 0;
    case OPT_BOOTSTRAP:
    case OPT_SEED:
    case OPT_LEVEL:
    case OPT_HUBER:
        return parse_numbers(a, key, arg, state);
    case OPT_JSON:
        return a->json = true, 0;
    case OPT_HTML:
        return a->html = arg, 0;
    case ARGP_KEY_ARG:
        return parse_argument(a, arg, state);
    case ARGP_KEY_END:
        if (a->list || a->markdown) return 0;
        if (!a->law) argp_error(state, "which law? 'keel fit --list' names them");
        if (!a->table && !a->from_registry)
            argp_error(state, "fit to what? Give a table (CSV, JSON, JSON lines), or --registry");
        if (a->table && a->from_registry)
            argp_error(state, "both a table and --registry; for a registry's file: --registry=%s", a->table);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static void list_laws(void)
{
    const law *l;
    for (i64 i = 0; (l = law_at(i)); i++) printf("%-20s %s\n%-20s %s\n", l->name, l->title, "", l->formula);
}

/* "N=1e9,D=2e10" into X[inputs]; what is not named stays NaN. */
static status read_inputs(const law *l, const char *option, const char *asked, double *x)
{
    char copy[512], *rest;
    const char *names[LAW_INPUTS];
    for (int k = 0; k < LAW_INPUTS; k++) x[k] = NAN;
    for (int k = 0; k < l->inputs; k++) names[k] = l->input[k].name;
    if (strlen(asked) >= sizeof copy)
        return fail(ERR_USAGE, "%s: more than %zu characters", option, sizeof copy - 1);
    snprintf(copy, sizeof copy, "%s", asked);
    for (char *w = strtok_r(copy, ",", &rest); w; w = strtok_r(NULL, ",", &rest)) {
        char *value = strchr(w, '=');
        int k = 0;
        double v;
        if (!value) return fail(ERR_USAGE, "%s %s: '%s': expected NAME=VALUE", option, asked, w);
        *value++ = 0;
        while (k < l->inputs && strcmp(names[k], w) != 0) k++;
        if (k == l->inputs) {
            text all = {0};
            for (int i = 0; i < l->inputs; i++) text_add(&all, "%s%s", i ? ", " : "", names[i]);
            status s = fail(ERR_USAGE, "%s %s: the law %s has no input '%s'; it has %s", option, asked,
                            l->name, w, all.data);
            text_free(&all);
            return s;
        }
        if (!(parse_double(value, &v) || parse_count(value, &v)) || !(v > l->input[k].above))
            return fail(ERR_USAGE, "%s %s: %s is '%s'; expected a number above %g", option, asked, w, value,
                        l->input[k].above);
        x[k] = v;
    }
    return OK;
}

static status read_predictions(const fit_args *a, const law *l, fit_asked *out)
{
    for (i64 i = 0; i < a->n_predict; i++) {
        TRY(read_inputs(l, "--predict", a->predict[i], out[i].x));
        for (int k = 0; k < l->inputs; k++)
            if (isnan(out[i].x[k]))
                return fail(ERR_USAGE, "--predict %s: %s (%s) is missing", a->predict[i], l->input[k].name,
                            l->input[k].help);
    }
    return OK;
}

static status answer(const fit_args *a, const fit_asked *asked, const double *fixed, fit_told *t)
{
    for (i64 i = 0; i < a->n_predict; i++) fit_predict(&t->f, asked[i].x, &t->predicted[t->n_predicted++]);
    for (i64 i = 0; i < a->n_optimal; i++) {
        double flops;
        if (!(parse_double(a->optimal[i], &flops) || parse_count(a->optimal[i], &flops)))
            return fail(ERR_USAGE, "--optimal %s: expected a number of flops, as 1e20", a->optimal[i]);
        fit_optimum_point *o = &t->optimum[t->n_optimum];
        status s = fit_optimum(&t->f, flops, fixed, o);
        if (!s) {
            t->n_optimum++;
            if (o->found < 1)
                fit_warn(&t->f,
                         "%.3g flops: %.0f%% of the resamples have no optimum, and are not in its interval",
                         flops, 100 * (1 - o->found));
        } else if (s->code == ERR_NUMERIC) { // about this fit: the rest of it is still worth reading
            fit_warn(&t->f, "%s", s->message);
            status_drop(s);
        } else
            return s;
    }
    return OK;
}

static status work(const fit_args *a, arena *ar)
{
    const law *l;
    run_table table;
    run_points from;
    fit_asked asked[MOST_ASKED];
    double fixed[LAW_INPUTS];
    fit_told *t = arena_new(ar, fit_told);
    TRY(law_find(a->law, &l));
    TRY(read_predictions(a, l, asked));
    TRY(read_inputs(l, "--fix", a->fix ? a->fix : "", fixed));
    TRY(a->from_registry ? run_table_registry(a->registry, ar, &table)
                         : run_table_read(a->table, ar, &table));
    TRY(run_table_points(&table, l, &a->choice, ar, &from));
    TRY(fit_law(l, &from.points, &a->options, ar, &t->f));
    t->table = &table, t->from = &from;
    if (from.mixed)
        fit_warn(&t->f, "the points have several values of '%s': one law may not hold for all; use --where",
                 from.mixed);
    TRY(answer(a, asked, fixed, t));
    if (a->json)
        TRY(fit_tell_json(t));
    else
        fit_tell_text(t);
    return a->html ? fit_tell_page(t, a->html, ar) : OK;
}

status verb_fit(int argc, char **argv)
{
    static const struct argp argp = {
        options,
        parse,
        "LAW TABLE\nLAW --registry[=FILE]\n--list",
        "Fits a scaling law to a table of runs: robustly, from many starts, with intervals; says what it "
        "gives "
        "elsewhere and where compute buys the most."
        "\vTABLE is CSV with a head, a JSON array of objects or JSON lines ('-': standard input). Runs that "
        "diverged, are not finished or lack a value are left out, counted and named. Rows with one value in "
        "a "
        "column 'group', or runs that differ only in a column 'seed', are drawn together for the intervals.",
        NULL,
        NULL,
        NULL};
    fit_args *a;
    arena *ar;
    TRY(arena_open(&ar));
    a = arena_new(ar, fit_args);
    a->options = (fit_options){FIT_DEFAULTS, .seed = 1};
    status s = cli_parse(&argp, argc, argv, a);
    if (!s && a->markdown) {
        text t = {0};
        law_markdown(&t);
        fputs(t.data, stdout);
        text_free(&t);
    } else if (!s && a->list)
        list_laws();
    else if (!s)
        s = work(a, ar);
    arena_close(ar);
    return s;
}

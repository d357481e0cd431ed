/* keel plan: what a run will need, before it starts.
 *
 *     keel plan memory configs/gpt2-124m.yaml train.micro_batch=2
 */
#include "base/text.h"
#include "cli/cli.h"
#include "cli/machine.h"
#include "device/peak.h"
#include "train/dial.h"
#include "train/session.h"
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { OPT_JSON = 256 };
typedef struct plan_args {
    machine_args machine;
    const char *what;
    bool json;
} plan_args;

static const struct argp_option options[] = {{"json", OPT_JSON, 0, 0, "Print one JSON object, in bytes", 0},
                                             {0}};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    plan_args *a = state->input;
    (void)arg;
    switch (key) {
    case ARGP_KEY_INIT:
        a->machine.takes_config = true;
        state->child_inputs[0] = &a->machine;
        return 0;
    case OPT_JSON:
        a->json = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static void print_plan(const plan_args *a, const session *s)
{
    const session_memory *m = &s->memory;
    const struct {
        const char *name;
        i64 bytes;
    } rows[] = {{"parameters", m->parameters},
                {"gradients", m->gradients},
                {"optimizer", m->optimizer},
                {"activations", m->activations},
                {"evaluation", m->evaluation},
                {"batches", m->batches},
                {"total", m->total}};
    json_t *j = json_object();
    char text[32];
    for (i64 i = 0; i < COUNT(rows); i++) {
        json_object_set_new(j, rows[i].name, json_integer(rows[i].bytes));
        if (!a->json) printf("%-12s %10s\n", rows[i].name, show_bytes((double)rows[i].bytes, text));
    }
    json_object_set_new(j, "row_gradients", json_integer(m->row_gradients));
    json_object_set_new(j, "activations_lower_bound", json_integer(m->activations_lower_bound));
    json_object_set_new(j, "parameter_count", json_integer(s->figures.parameters));
    json_object_set_new(j, "active_parameter_count", json_integer(s->figures.active_parameters));
    if (a->json) {
        json_dumpf(j, stdout, JSON_COMPACT);
        puts("");
    } else {
        if (m->row_gradients)
            printf("%s of the gradients are lists of looked-up rows\n",
                   show_bytes((double)m->row_gradients, text));
        if (s->figures.active_parameters < s->figures.parameters)
            printf("%s of the parameters are active: a token passes through them\n",
                   show_count((double)s->figures.active_parameters, text));
        printf("%s parameters; %lld sequences of %lld tokens at a time, %s; no plan of the activations can "
               "be below %s\n",
               show_count((double)s->figures.parameters, text), (long long)s->micro_rows,
               (long long)s->context, dtype_name(s->act),
               show_bytes((double)m->activations_lower_bound, (char[32]){0}));
    }
    json_decref(j);
}

/* Tokens of the run, as far as the configuration says; 0: it does not (epochs, or nothing). */
static double tokens_of(const session *s, const config *c, double flops_per_s)
{
    budget b;
    double step = (double)(s->batch_rows * s->context);
    if (!config_budget_given(c)) return 0;
    status e = config_budget(c, &b);
    if (e) {
        status_drop(e);
        return 0;
    }
    switch (b.kind) {
    case BUDGET_TOKENS:
        return b.value;
    case BUDGET_STEPS:
        return b.value * step;
    case BUDGET_FLOPS:
        return b.value / s->figures.flops_per_token;
    case BUDGET_TIME:
        return b.value * flops_per_s / s->figures.flops_per_token;
    default:
        return 0;
    }
}

/* What the run computes, and how long that takes at the share of the peak that steps reach here. */
static status print_compute(const plan_args *a, const session *s, config *c, device *d)
{
    static const double share = 0.6;
    peak_probe *p;
    double best = 0;
    char n[32], t[32];
    TRY(peak_probe_open(d, s->act == DT_BF16 ? GEMM_BF16 : GEMM_F32, &p));
    for (int k = 0; k < 5; k++) best = fmax(best, peak_probe_time(p));
    peak_probe_close(p);
    double rate = share * best * 1e9, tokens = tokens_of(s, c, rate);
    double flops = tokens * s->figures.flops_per_token;
    if (a->json) {
        json_t *j =
            json_pack("{s:I, s:I, s:f, s:f, s:f, s:f, s:f}", "parameter_count",
                      (json_int_t)s->figures.parameters, "active_parameter_count",
                      (json_int_t)s->figures.active_parameters, "flops_per_token", s->figures.flops_per_token,
                      "tokens", tokens, "flops", flops, "gemm_peak_gflops", best, "seconds", flops / rate);
        if (!j) return fail(ERR_MEMORY, "keel plan compute: cannot build the JSON object");
        json_dumpf(j, stdout, JSON_COMPACT | JSON_REAL_PRECISION(8));
        puts("");
        json_decref(j);
        return OK;
    }
    printf("%-16s %s (%s of them active)\n", "parameters", show_count((double)s->figures.parameters, n),
           show_count((double)s->figures.active_parameters, t));
    printf("%-16s %s (training: 6 N + attention)\n", "flops a token",
           show_count(s->figures.flops_per_token, n));
    if (!(tokens > 0)) {
        puts("tokens           not known before the data are (give train.tokens, steps, time or flops)");
        return OK;
    }
    printf("%-16s %s\n", "tokens", show_count(tokens, n));
    printf("%-16s %.3g\n", "flops", flops);
    printf("%-16s about %s, at %.0f %% of the %.0f GFLOP/s measured now (%s)\n", "time",
           show_seconds(flops / rate, t), 100 * share, best, dtype_name(s->act));
    return OK;
}

static status plan(const plan_args *a, config *c, device *d, isa level)
{
    session *s;
    TRY(dial_apply(c, d, cli_talk, NULL));
    if (config_is(c, "model.vocab", "auto"))
        TRY(config_set(c, "model.vocab", config_text(c, "data.vocab"), "data.vocab"));
    TRY(session_open(c, d, &(session_options){.isa = level, .plan_only = true}, &s));
    bool compute = !strcmp(a->what, "compute");
    if (!compute) print_plan(a, s);
    status fits = compute ? print_compute(a, s, c, d) : session_fits(s);
    session_close(s);
    return fits;
}

status verb_plan(int argc, char **argv)
{
    static const struct argp_child children[] = {{&machine_argp, 0, "Machine:", 5}, {0}};
    static const struct argp argp = {
        options,
        parse,
        "memory|compute [CONFIG] [KEY=VALUE...]",
        "Prints the memory a run will need, planned to the byte, or what it will "
        "compute and how long that takes here."
        "\vmemory fails when this machine has less.",
        children,
        NULL,
        NULL};
    plan_args a = {0};
    config *c;
    device *d = NULL;
    isa level;
    if (argc < 2 || (strcmp(argv[1], "memory") && strcmp(argv[1], "compute") && argv[1][0] != '-'))
        return fail(ERR_USAGE, "plan what? 'keel plan memory CONFIG' or 'keel plan compute CONFIG'");
    a.what = argv[1];
    bool named = argv[1][0] != '-';
    TRY(cli_parse(&argp, argc - named, argv + named, &a));
    TRY(machine_config(&a.machine, &c));
    status s = machine_open(&a.machine, &d, &level);
    if (!s) s = plan(&a, c, d, level);
    device_close(d);
    config_close(c);
    return s;
}

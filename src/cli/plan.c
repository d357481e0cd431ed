/* keel plan: what a run will need, before it starts.
 *
 *     keel plan memory configs/gpt2-124m.yaml train.micro_batch=2
 */
#include "base/text.h"
#include "cli/cli.h"
#include "cli/machine.h"
#include "train/session.h"
#include <jansson.h>
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

static status plan(const plan_args *a, config *c, device *d, isa level)
{
    session *s;
    if (config_is(c, "model.vocab", "auto"))
        TRY(config_set(c, "model.vocab", config_text(c, "data.vocab"), "data.vocab"));
    TRY(session_open(c, d, &(session_options){.isa = level, .plan_only = true}, &s));
    print_plan(a, s);
    status fits = session_fits(s);
    session_close(s);
    return fits;
}

status verb_plan(int argc, char **argv)
{
    static const struct argp_child children[] = {{&machine_argp, 0, "Machine:", 5}, {0}};
    static const struct argp argp = {options,
                                     parse,
                                     "memory [CONFIG] [KEY=VALUE...]",
                                     "Prints the memory a run will need, planned to the byte."
                                     "\vFails when this machine has less.",
                                     children,
                                     NULL,
                                     NULL};
    plan_args a = {0};
    config *c;
    device *d = NULL;
    isa level;
    if (argc < 2 || (strcmp(argv[1], "memory") && argv[1][0] != '-'))
        return fail(ERR_USAGE, "plan what? 'keel plan memory CONFIG'");
    bool named = argv[1][0] != '-';
    TRY(cli_parse(&argp, argc - named, argv + named, &a));
    TRY(machine_config(&a.machine, &c));
    status s = machine_open(&a.machine, &d, &level);
    if (!s) s = plan(&a, c, d, level);
    device_close(d);
    config_close(c);
    return s;
}

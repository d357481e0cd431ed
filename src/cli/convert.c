/* keel convert: a trained Pre-LayerNorm model as the same function with cheaper norms.
 *
 *     keel convert runs/a --to=rms --out=runs/a-rms       Pre-RMSNorm
 *     keel convert runs/a --to=crms --out=runs/a-crms     Pre-CRMSNorm: a stream of one value less
 */
#include "cli/cli.h"
#include "infer/convert.h"
#include <argp.h>
#include <stdio.h>
#include <string.h>

typedef struct convert_args {
    const char *model, *to, *out;
    bool json;
} convert_args;

enum { OPT_JSON = 256 };
static const struct argp_option options[] = {
    {"to", 't', "rms|crms", 0, "rms: RMSNorm of a centred stream; crms: that stream without its last value",
     0},
    {"out", 'o', "FOLDER", 0, "The run folder to make", 0},
    {"json", OPT_JSON, 0, 0, "Print one JSON object", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    convert_args *a = state->input;
    switch (key) {
    case 't':
        if (strcmp(arg, "rms") && strcmp(arg, "crms"))
            argp_error(state, "--to=%s: expected rms or crms", arg);
        a->to = arg;
        return 0;
    case OPT_JSON:
        a->json = true;
        return 0;
    case 'o':
        a->out = arg;
        return 0;
    case ARGP_KEY_ARG:
        if (a->model) argp_error(state, "one model at a time: '%s' and '%s'", a->model, arg);
        a->model = arg;
        return 0;
    case ARGP_KEY_END:
        if (!a->model) argp_error(state, "which model? Name a run's folder or one of its step_N");
        if (!a->to) argp_error(state, "to which form? --to=rms or --to=crms");
        if (!a->out) argp_error(state, "where to? --out=FOLDER");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

status verb_convert(int argc, char **argv)
{
    static const struct argp argp = {
        options,
        parse,
        "MODEL --to=FORM --out=FOLDER",
        "Writes a trained Pre-LayerNorm model (model.norm.kind: layer, pre norms) as the same function with "
        "RMSNorms, "
        "or with CRMSNorms on a stream of one value less; the logits are equal up to rounding. The head is "
        "untied, so "
        "the model holds a matrix more. MODEL is a run's folder (its newest checkpoint) or a step_N. The new "
        "folder "
        "can be evaluated, converted again and generated from; it holds no optimizer's state to resume from.",
        NULL,
        NULL,
        NULL};
    convert_args a = {0};
    convert_result r;
    model_files f;
    TRY(cli_parse(&argp, argc, argv, &a));
    TRY(model_files_open(a.model, cli_talk, NULL, &f));
    char step[32] = "";
    status s = convert_run(&f, !strcmp(a.to, "crms") ? FORM_CRMS : FORM_RMS, a.out, &r);
    if (!s) snprintf(step, sizeof step, "/step_%lld", (long long)r.step);
    if (!s && a.json)
        s = cli_print_json(json_pack("{s:s+, s:s, s:I, s:I, s:I}", "checkpoint", a.out, step, "form", a.to,
                                     "step", (json_int_t)r.step, "parameters", (json_int_t)r.parameters,
                                     "parameters_before", (json_int_t)r.parameters_before));
    else if (!s)
        printf("%s%s  %s  parameters %lld (before: %lld)\n", a.out, step, a.to, (long long)r.parameters,
               (long long)r.parameters_before);
    model_files_close(&f);
    return s;
}

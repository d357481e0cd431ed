/* keel dump: logits, loss and gradients of a trained model on given tokens, for whoever wants to check them.
 *
 *     keel dump runs/a --tokens ids.txt --out g.safetensors                     in double, by the definitions
 *     keel dump runs/a --tokens ids.txt --out f.safetensors --precision bf16    by the kernels that training
 * runs
 */
#include "cli/cli.h"
#include "cli/machine.h"
#include "eval/dump.h"
#include "infer/model_files.h"
#include <stdio.h>
#include <string.h>

enum { OPT_PRECISION = 256, OPT_JSON };
typedef struct dump_args {
    machine_args machine;
    const char *model, *tokens, *out, *precision;
    bool json;
} dump_args;

static const struct argp_option options[] = {
    {"tokens", 't', "FILE", 0,
     "Token ids separated by blanks, a sequence a line, lines of one length; -: stdin", 0},
    {"out", 'o', "FILE", 0, "The safetensors file to write", 0},
    {"precision", OPT_PRECISION, "f32|bf16", 0,
     "By the kernels, with activations of that type (default: in double, by the definitions)", 0},
    {"json", OPT_JSON, 0, 0, "Print one JSON object", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    dump_args *a = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &a->machine;
        return 0;
    case 't':
        a->tokens = arg;
        return 0;
    case 'o':
        a->out = arg;
        return 0;
    case OPT_JSON:
        a->json = true;
        return 0;
    case OPT_PRECISION:
        if (strcmp(arg, "f32") && strcmp(arg, "bf16"))
            argp_error(state, "--precision=%s: expected f32 or bf16", arg);
        a->precision = arg;
        return 0;
    case ARGP_KEY_ARG:
        if (a->model) argp_error(state, "one model at a time: '%s' and '%s'", a->model, arg);
        a->model = arg;
        return 0;
    case ARGP_KEY_END:
        if (!a->model) argp_error(state, "which model? Name a run's folder or one of its step_N");
        if (!a->tokens) argp_error(state, "which tokens? --tokens=FILE");
        if (!a->out) argp_error(state, "where to? --out=FILE");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static status dump_model(const dump_args *a, const model_files *f)
{
    dump_options o = {.out = a->out, .talk = cli_talk};
    dump_result r;
    token_rows rows;
    bool learned = config_is(f->config, "model.position.kind", "learned");
    TRY(token_rows_read(a->tokens,
                        &(token_limits){.vocab = config_count(f->config, "model.vocab"),
                                        .longest = learned ? config_count(f->config, "model.context") : 0},
                        &rows));
    status s = a->precision ? machine_open(&a->machine, &o.device, &o.isa) : OK;
    if (a->precision && !strcmp(a->precision, "bf16")) o.act = DT_BF16;
    if (!s) s = dump_write(f->config, f->weights, &rows, &o, &r);
    if (!s && a->json)
        s = cli_print_json(json_pack("{s:s, s:f, s:f, s:I}", "file", a->out, "loss", r.loss, "objective",
                                     r.objective, "gradients", (json_int_t)r.gradients));
    else if (!s)
        printf("loss %.17g  objective %.17g  gradients %lld\n", r.loss, r.objective, (long long)r.gradients);
    device_close(o.device);
    token_rows_free(&rows);
    return s;
}

status verb_dump(int argc, char **argv)
{
    static const struct argp_child children[] = {{&machine_argp, 0, "Machine (with --precision):", 5}, {0}};
    static const struct argp argp = {
        options,
        parse,
        "MODEL --tokens=FILE --out=FILE",
        "Writes logits [rows, tokens, vocabulary], loss, objective and grad.PARAMETER of a model on given "
        "tokens as "
        "safetensors. Each token's target is the next one of its line. MODEL is a run's folder (its newest "
        "checkpoint) or a step_N.",
        children,
        NULL,
        NULL};
    dump_args a = {0};
    model_files f;
    TRY(cli_parse(&argp, argc, argv, &a));
    TRY(model_files_open(a.model, cli_talk, NULL, &f));
    status s = dump_model(&a, &f);
    model_files_close(&f);
    return s;
}

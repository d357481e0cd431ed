/* keel eval: how well a trained model predicts text it has not seen.
 *
 *     keel eval perplexity runs/a                      on the validation data of the run
 *     keel eval perplexity runs/a --data shards/       on that of other shards of the same tokenizer
 */
#include "base/text.h"
#include "cli/cli.h"
#include "cli/machine.h"
#include "infer/model_files.h"
#include "train/corpus.h"
#include "train/save.h"
#include "train/trainer.h"
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { OPT_JSON = 256, OPT_TOKENS, OPT_SPLIT, OPT_PRECISION, OPT_DATA };
typedef struct eval_args {
    machine_args machine;
    const char *model, *task, *data, *precision;
    data_split split;
    i64 tokens;
    bool json;
} eval_args;

static const struct argp_option options[] = {
    {"data", OPT_DATA, "DIR", 0, "Shards to evaluate on (default: those the run was trained with)", 0},
    {"split", OPT_SPLIT, "NAME", 0, "validation or train (default: validation)", 0},
    {"tokens", OPT_TOKENS, "N", 0, "At most so many tokens (default: all)", 0},
    {"precision", OPT_PRECISION, "P", 0, "f32 or bf16 (default: as in training)", 0},
    {"json", OPT_JSON, 0, 0, "Print one JSON object", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    eval_args *a = state->input;
    double n;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &a->machine;
        return 0;
    case OPT_DATA:
        a->data = arg;
        return 0;
    case OPT_JSON:
        a->json = true;
        return 0;
    case OPT_SPLIT:
        if (strcmp(arg, "validation") && strcmp(arg, "train"))
            argp_error(state, "--split=%s: expected validation or train", arg);
        a->split = *arg == 't' ? DATA_TRAIN : DATA_VALIDATION;
        return 0;
    case OPT_TOKENS:
        if (!parse_count(arg, &n) || !(n >= 1))
            argp_error(state, "--tokens=%s: expected a number such as 100k", arg);
        a->tokens = (i64)n;
        return 0;
    case OPT_PRECISION:
        if (strcmp(arg, "f32") && strcmp(arg, "bf16"))
            argp_error(state, "--precision=%s: expected f32 or bf16", arg);
        a->precision = arg;
        return 0;
    case ARGP_KEY_ARG:
        if (!a->task)
            a->task = arg;
        else if (!a->model)
            a->model = arg;
        else
            argp_error(state, "one argument too many: '%s'", arg);
        return 0;
    case ARGP_KEY_END:
        if (!a->task || strcmp(a->task, "perplexity")) argp_error(state, "which task? perplexity MODEL");
        if (!a->model) argp_error(state, "which model? Name a run's folder or one of its step_N");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static void talk(void *context, const char *line)
{
    (void)context;
    fprintf(stderr, "%s\n", line);
}

static status print_result(const eval_args *a, const evaluation *e, const run_state *state,
                           const model_files *f)
{
    if (!e->tokens) return fail(ERR_INPUT, "there is no %s data to evaluate on", data_split_name[a->split]);
    double loss = e->nats / (double)e->tokens, bits = e->nats / log(2) / (double)e->bytes;
    if (!isfinite(loss)) return fail(ERR_NUMERIC, "%s: the loss is not finite", f->folder);
    if (a->json) {
        json_t *j =
            json_pack("{s:s, s:I, s:I, s:I, s:I, s:f, s:o?, s:o?}", "model", f->folder, "step",
                      (json_int_t)state->step, "tokens_seen", (json_int_t)state->tokens_seen, "tokens",
                      (json_int_t)e->tokens, "bytes", (json_int_t)e->bytes, "loss", loss, "perplexity",
                      json_real(exp(loss)), "bits_per_byte", json_real(bits)); // null: beyond a double
        if (!j) return fail(ERR_INPUT, "the folder's name is not valid UTF-8, which JSON cannot hold");
        json_dumpf(j, stdout, JSON_COMPACT);
        puts("");
        json_decref(j);
    } else
        printf("loss %.5f  perplexity %.3f  bits per byte %.5f  (%lld %s tokens, %s)\n", loss, exp(loss),
               bits, (long long)e->tokens, data_split_name[a->split], f->folder);
    return OK;
}

static status measure(const eval_args *a, const model_files *f, device *d, isa level, const dataset *data)
{
    session *s;
    evaluation e;
    run_state state = {0};
    TRY(session_open(f->config, d, &(session_options){.isa = level, .no_update = true}, &s));
    status failed = load_session(s, f->folder, false, &state);
    if (!failed) failed = load_weights(s->store, f->weights); // those of PATH@average are others
    if (!failed) failed = train_evaluate(s, data, a->split, a->tokens, NULL, &e);
    session_close(s);
    return failed ? failed : print_result(a, &e, &state, f);
}

static status evaluate_model(const eval_args *a, const model_files *f)
{
    device *d;
    dataset *data;
    isa level;
    char cache[4096];
    snprintf(cache, sizeof cache, "%s/..", f->folder);
    if (a->precision) TRY(config_set(f->config, "train.precision", a->precision, "command line"));
    TRY(machine_open(&a->machine, &d, &level));
    status s = a->data ? dataset_open(a->data, &data)
                       : corpus_open(f->config, &(corpus_options){.cache = cache, .talk = talk}, &data);
    if (!s && f->tokenizer) s = dataset_check_tokenizer(data, tokenizer_hash(f->tokenizer), f->folder);
    if (!s) {
        s = measure(a, f, d, level, data);
        dataset_close(data);
    }
    device_close(d);
    return s;
}

status verb_eval(int argc, char **argv)
{
    static const struct argp_child children[] = {{&machine_argp, 0, "Machine:", 5}, {0}};
    static const struct argp argp = {options,
                                     parse,
                                     "perplexity MODEL",
                                     "Measures loss, perplexity and bits per byte of a trained model: a "
                                     "run's folder or a step_N (with @average "
                                     "behind it: its averaged weights).",
                                     children,
                                     NULL,
                                     NULL};
    eval_args a = {.split = DATA_VALIDATION};
    model_files f;
    TRY(cli_parse(&argp, argc, argv, &a));
    TRY(model_files_open(a.model, talk, NULL, &f));
    status s = evaluate_model(&a, &f);
    model_files_close(&f);
    return s;
}

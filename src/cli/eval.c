/* keel eval: how well a trained model predicts text it has not seen, and which of several answers it prefers.
 *
 *     keel eval perplexity runs/a                      on the validation data of the run
 *     keel eval perplexity runs/a --data shards/       on that of other shards of the same tokenizer
 *     keel eval perplexity runs/a --text wiki.txt --stride 256    on a text, by overlapping windows
 *     keel eval layers runs/a                          the loss without each block in turn
 *     keel eval choice runs/a --task hellaswag hellaswag_val.jsonl
 */
#include "base/file.h"
#include "base/text.h"
#include "cli/cli.h"
#include "cli/eval_parts.h"
#include "cli/machine.h"
#include "cli/terminal.h"
#include "eval/choice.h"
#include "eval/windows.h"
#include "infer/model_files.h"
#include "train/corpus.h"
#include "train/save.h"
#include "text/grow.h"
#include "train/trainer.h"
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    OPT_JSON = 256,
    OPT_TOKENS,
    OPT_SPLIT,
    OPT_PRECISION,
    OPT_DATA,
    OPT_TEXT,
    OPT_CONTEXT,
    OPT_STRIDE,
    OPT_TASK,
    OPT_LABELS,
    OPT_LIMIT,
    OPT_BATCH,
    OPT_BRANCHES
};
typedef struct eval_args {
    machine_args machine;
    const char *verb, *model, *data, *precision, *text, *file, *labels;
    const task *task;
    const char *shards, *windows, *choices,
        *drops; // the last option given that is for that kind of evaluation only
    data_split split;
    i64 tokens, context, stride, limit, batch;
    bool json, layers, branches;
} eval_args;

static const struct argp_option options[] = {
    {0, 0, 0, 0, "perplexity, on shards, and layers:", 1},
    {"data", OPT_DATA, "DIR", 0, "Shards to evaluate on (default: those the run was trained with)", 1},
    {"split", OPT_SPLIT, "validation|train", 0, "Which of them (default: validation)", 1},
    {"tokens", OPT_TOKENS, "N", 0, "At most so many tokens (default: all)", 1},
    {0, 0, 0, 0, "perplexity, on a text:", 2},
    {"text", OPT_TEXT, "FILE", 0, "Every byte of this file, by overlapping windows (-: standard input)", 2},
    {"context", OPT_CONTEXT, "N", 0, "Tokens of a window (default: model.context)", 2},
    {"stride", OPT_STRIDE, "N", 0, "Tokens that a window scores, each once (default: as many as it has)", 2},
    {0, 0, 0, 0, "choice:", 3},
    {"task", OPT_TASK, "NAME", 0,
     "The layout of FILE: hellaswag, arc, piqa, lambada, openbookqa, sciq, boolq, winogrande, blimp", 3},
    {"labels", OPT_LABELS, "FILE", 0, "The answers of piqa, one a line, if its records do not hold them", 3},
    {"limit", OPT_LIMIT, "N", 0, "Only the first N records", 3},
    {"batch", OPT_BATCH, "N", 0,
     "Records (windows) sorted by length together (default: 64); results do not depend on it", 4},
    {"precision", OPT_PRECISION, "f32|bf16", 0, "Storage of activations (default: as in training)", 4},
    {"branches", OPT_BRANCHES, 0, 0, "layers: also without only the attention, only the feed-forward", 4},
    {"json", OPT_JSON, 0, 0, "Print one JSON object", 4},
    {0}};

static i64 whole(struct argp_state *state, const char *name, const char *arg)
{
    double n;
    if (!parse_count(arg, &n) || !(n >= 1) || n > 1e15 || n != (double)(i64)n)
        argp_error(state, "--%s=%s: expected a whole number from 1, such as 100 or 10k", name, arg);
    return (i64)n;
}

static void take_task(eval_args *a, const char *arg, struct argp_state *state)
{
    char names[200];
    task_names(names, sizeof names);
    a->task = task_find(arg);
    if (!a->task) argp_error(state, "--task=%s: expected one of %s", arg, names);
}

static void take_split(eval_args *a, const char *arg, struct argp_state *state)
{
    if (strcmp(arg, "validation") && strcmp(arg, "train"))
        argp_error(state, "--split=%s: expected validation or train", arg);
    a->split = *arg == 't' ? DATA_TRAIN : DATA_VALIDATION;
}

static void take_argument(eval_args *a, const char *arg, struct argp_state *state)
{
    if (!a->verb)
        a->verb = arg, a->layers = !strcmp(arg, "layers");
    else if (!a->model)
        a->model = arg;
    else if (!a->file && !strcmp(a->verb, "choice"))
        a->file = arg;
    else
        argp_error(state, "one argument too many: '%s'", arg);
}

static void check(const eval_args *a, struct argp_state *state)
{
    bool choice = a->verb && !strcmp(a->verb, "choice");
    if (!a->verb || (!choice && !a->layers && strcmp(a->verb, "perplexity")))
        argp_error(state, "which task? perplexity MODEL, layers MODEL, or choice MODEL FILE");
    if (!a->model) argp_error(state, "which model? Name a run's folder or one of its step_N");
    if (choice && !a->task) argp_error(state, "which layout? --task=NAME");
    if (choice && !a->file) argp_error(state, "which records? Name a JSONL file behind the model");
    const char *stray = choice ? (a->shards ? a->shards : a->windows) : a->choices;
    if (!stray && a->layers) stray = a->windows;
    if (!stray && !a->layers) stray = a->drops;
    if (stray) argp_error(state, "--%s is not for %s", stray, a->verb);
    if (a->text && a->shards) argp_error(state, "--%s is for shards, not for --text", a->shards);
    if (!choice && !a->text && a->windows) argp_error(state, "--%s needs --text=FILE", a->windows);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    eval_args *a = state->input;
    double n;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &a->machine;
        return 0;
    case OPT_DATA:
        a->data = arg, a->shards = "data";
        return 0;
    case OPT_SPLIT:
        a->shards = "split";
        take_split(a, arg, state);
        return 0;
    case OPT_TOKENS:
        a->shards = "tokens";
        if (!parse_count(arg, &n) || !(n >= 1))
            argp_error(state, "--tokens=%s: expected a number such as 100k", arg);
        a->tokens = (i64)n;
        return 0;
    case OPT_TEXT:
        a->text = arg, a->windows = "text";
        return 0;
    case OPT_CONTEXT:
        a->context = whole(state, "context", arg), a->windows = "context";
        return 0;
    case OPT_STRIDE:
        a->stride = whole(state, "stride", arg), a->windows = "stride";
        return 0;
    case OPT_TASK:
        a->choices = "task";
        take_task(a, arg, state);
        return 0;
    case OPT_LABELS:
        a->labels = arg, a->choices = "labels";
        return 0;
    case OPT_LIMIT:
        a->limit = whole(state, "limit", arg), a->choices = "limit";
        return 0;
    case OPT_BATCH:
        a->batch = MIN(whole(state, "batch", arg), 1 << 20);
        return 0;
    case OPT_BRANCHES:
        a->branches = true, a->drops = "branches";
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
        take_argument(a, arg, state);
        return 0;
    case ARGP_KEY_END:
        check(a, state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static void show_progress(void *context, i64 done, i64 of)
{
    (void)context;
    fprintf(stderr, "\r%lld of %lld%s", (long long)done, (long long)of, done == of ? "\n" : "");
}

/* ---- how far a figure may be off */

static json_t *real_or_null(double x) { return isfinite(x) ? json_real(x) : json_null(); }

static void set_field(json_t *j, const char *name, const char *what, double x)
{
    char key[48];
    snprintf(key, sizeof key, "%s_%s", name, what);
    if (j) json_object_set_new(j, key, real_or_null(x));
}

static void set_range(json_t *j, const char *name, interval x)
{
    set_field(j, name, "low", x.low);
    set_field(j, name, "high", x.high);
}

static void set_ratio(json_t *j, const char *name, const ratio *x)
{
    set_field(j, name, "stderr", x->error);
    set_range(j, name, x->range);
}

/* A line beside a loss; nothing where there is one block only. */
static void print_ranges(const ratio *loss, const ratio *bits)
{
    if (isfinite(loss->error))
        printf("(95 %%: loss %.5f to %.5f, bits per byte %.5f to %.5f)\n", loss->range.low, loss->range.high,
               bits->range.low, bits->range.high);
}

/* ---- on shards */

typedef struct parts { // the micro-batches of an evaluation
    evaluation *part;
    i64 n;
    size_t capacity;
    status failed;
} parts;

static void keep_part(void *context, const evaluation *part)
{
    parts *p = context;
    if (!p->failed)
        p->failed = grow(&p->part, &p->capacity, (size_t)p->n + 1, sizeof *p->part, "micro-batches");
    if (!p->failed) p->part[p->n++] = *part;
}

static status resample(const parts *p, ratio *loss, ratio *bits)
{
    double *x;
    TRY(mem_alloc((size_t)(3 * p->n + 1) * sizeof *x, "micro-batches", &x));
    for (i64 i = 0; i < p->n; i++) {
        x[i] = p->part[i].nats;
        x[p->n + i] = (double)p->part[i].tokens;
        x[2 * p->n + i] = (double)p->part[i].bytes * log(2);
    }
    *loss = bootstrap_ratio(x, x + p->n, p->n);
    *bits = bootstrap_ratio(x, x + 2 * p->n, p->n);
    mem_free(x);
    return OK;
}

static status print_result(const eval_args *a, const evaluation *e, const parts *p, const run_state *state,
                           const model_files *f)
{
    ratio loss_range, bits_range;
    if (!e->tokens) return fail(ERR_INPUT, "there is no %s data to evaluate on", data_split_name[a->split]);
    double loss = e->nats / (double)e->tokens, bits = e->nats / log(2) / (double)e->bytes;
    if (!isfinite(loss)) return fail(ERR_NUMERIC, "%s: the loss is not finite", f->folder);
    TRY(resample(p, &loss_range, &bits_range));
    if (a->json) {
        json_t *j =
            json_pack("{s:s, s:I, s:I, s:I, s:I, s:f, s:o?, s:o?, s:o?}", "model", f->folder, "step",
                      (json_int_t)state->step, "tokens_seen", (json_int_t)state->tokens_seen, "tokens",
                      (json_int_t)e->tokens, "bytes", (json_int_t)e->bytes, "loss", loss, "perplexity",
                      json_real(exp(loss)), "byte_perplexity", json_real(exp2(bits)), "bits_per_byte",
                      json_real(bits)); // null: beyond a double
        set_ratio(j, "loss", &loss_range);
        set_ratio(j, "bits_per_byte", &bits_range);
        return cli_print_json(j);
    }
    printf("loss %.5f  perplexity %.3f  bits per byte %.5f  (%lld %s tokens, %s)\n", loss, exp(loss), bits,
           (long long)e->tokens, data_split_name[a->split], f->folder);
    print_ranges(&loss_range, &bits_range);
    return OK;
}

static status measure(const eval_args *a, const model_files *f, device *d, isa level, const dataset *data)
{
    session *s;
    evaluation e;
    parts p = {0};
    run_state state = {0};
    TRY(session_open(f->config, d, &(session_options){.isa = level, .no_update = true}, &s));
    status failed = load_session(s, f->folder, false, &state);
    if (!failed) failed = load_weights(s->store, f->weights); // those of PATH@average are others
    if (!failed && a->layers)
        failed = eval_layers(s, data,
                             &(drop_options){.split = a->split,
                                             .tokens = a->tokens,
                                             .branches = a->branches,
                                             .stop = stop_on_signals(),
                                             .progress = terminal_width() ? show_progress : NULL},
                             f, a->json);
    else if (!failed)
        failed = train_evaluate_parts(s, data, a->split, a->tokens, NULL, keep_part, &p, &e);
    session_close(s);
    if (!failed)
        failed = p.failed;
    else
        status_drop(p.failed);
    if (!failed && !a->layers) failed = print_result(a, &e, &p, &state, f);
    mem_free(p.part);
    return failed;
}

static status evaluate_shards(const eval_args *a, const model_files *f, device *d, isa level)
{
    dataset *data;
    char cache[4096];
    snprintf(cache, sizeof cache, "%s/..", f->folder);
    status s = a->data ? dataset_open(a->data, &data)
                       : corpus_open(f->config, &(corpus_options){.cache = cache, .talk = cli_talk}, &data);
    if (!s && f->tokenizer) s = dataset_check_tokenizer(data, tokenizer_hash(f->tokenizer), f->folder);
    if (!s) {
        s = measure(a, f, d, level, data);
        dataset_close(data);
    }
    return s;
}

/* ---- on a text */

static status print_text(const eval_args *a, const text_loss *x, const window_rule *rule,
                         const model_files *f)
{
    double loss = x->nats / (double)x->tokens, words = exp(x->nats / (double)x->words),
           bits = x->nats / log(2) / (double)x->bytes;
    if (a->json) {
        json_t *j = json_pack(
            "{s:s, s:I, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:o?, s:o?, s:o?, s:o?}", "model", f->folder,
            "step", (json_int_t)f->step, "text", a->text, "tokens", (json_int_t)x->tokens, "bytes",
            (json_int_t)x->bytes, "words", (json_int_t)x->words, "windows", (json_int_t)x->windows, "context",
            (json_int_t)rule->context, "stride", (json_int_t)rule->stride, "loss", loss, "perplexity",
            json_real(exp(loss)), "word_perplexity", json_real(words), "byte_perplexity",
            json_real(exp2(bits)), "bits_per_byte", json_real(bits)); // null: beyond a double
        set_ratio(j, "loss", &x->loss);
        set_ratio(j, "bits_per_byte", &x->bits);
        return cli_print_json(j);
    }
    printf("bits per byte %.5f  loss %.5f  perplexity %.3f a token, %.3f a word, %.4f a byte\n"
           "(%lld tokens, %lld words, %lld bytes; %lld windows of %lld, stride %lld; %s)\n",
           bits, loss, exp(loss), words, exp2(bits), (long long)x->tokens, (long long)x->words,
           (long long)x->bytes, (long long)x->windows, (long long)rule->context, (long long)rule->stride,
           f->folder);
    print_ranges(&x->loss, &x->bits);
    return OK;
}

static status evaluate_text(const eval_args *a, const model_files *f, scorer *s)
{
    window_rule rule = {.context = a->context ? a->context : scorer_context(s)};
    text_loss x;
    char *data;
    size_t bytes;
    rule.stride = a->stride ? a->stride : rule.context;
    TRY(file_read(a->text, &data, &bytes));
    status failed = wrap(text_evaluate(s, f->tokenizer, data, bytes, &rule, a->batch, &x), "%s", a->text);
    mem_free(data);
    return failed ? failed : print_text(a, &x, &rule, f);
}

/* ---- choices */

static void set_estimate(json_t *j, const char *name, estimate x)
{
    json_object_set_new(j, name, real_or_null(x.mean));
    set_field(j, name, "stderr", x.error); // one example has none
}

static status print_choice(const eval_args *a, const choice_result *r, const model_files *f)
{
    const struct {
        const char *name;
        estimate value;
        bool on;
        const interval *range; // NULL: twice the error is as good
    } rows[] = {{"acc", r->acc, true, &r->acc_range},
                {"acc_norm", r->acc_norm, !a->task->greedy, &r->acc_norm_range},
                {"acc_bytes", r->acc_bytes, !a->task->greedy, &r->acc_bytes_range},
                {"perplexity", r->perplexity, a->task->greedy, NULL},
                {"gold_bits_per_byte", r->gold_bits, true, NULL}};
    json_t *j = json_pack("{s:s, s:I, s:s, s:I, s:I, s:I}", "model", f->folder, "step", (json_int_t)f->step,
                          "task", a->task->name, "examples", (json_int_t)r->examples, "requests",
                          (json_int_t)r->requests, "truncated", (json_int_t)r->truncated);
    for (i64 i = 0; j && i < COUNT(rows); i++)
        if (rows[i].on) {
            set_estimate(j, rows[i].name, rows[i].value);
            if (rows[i].range) set_range(j, rows[i].name, *rows[i].range);
        }
    if (a->json) return cli_print_json(j);
    json_decref(j);
    for (i64 i = 0; i < COUNT(rows); i++)
        if (rows[i].on) {
            printf("%-18s %.5f", rows[i].name, rows[i].value.mean);
            if (isfinite(rows[i].value.error)) printf(" +- %.5f", rows[i].value.error);
            if (rows[i].range) printf("  (95 %%: %.5f to %.5f)", rows[i].range->low, rows[i].range->high);
            puts("");
        }
    printf("(%s, %lld records, %lld cut to fit; %s)\n", a->task->name, (long long)r->examples,
           (long long)r->truncated, f->folder);
    return OK;
}

static status evaluate_choice(const eval_args *a, const model_files *f, scorer *s, const example_list *list)
{
    choice_result r;
    choice_options o = {.batch = a->batch, .progress = terminal_width() ? show_progress : NULL};
    TRY(wrap(choice_evaluate(s, f->tokenizer, a->task, list, &o, &r), "%s", a->file));
    return print_choice(a, &r, f);
}

static status evaluate_scored(const eval_args *a, const model_files *f, device *d, isa level)
{
    scorer *s;
    example_list list = {0};
    if (!f->tokenizer) return fail(ERR_INPUT, "%s holds no tokenizer.json", f->folder);
    if (a->task) TRY(examples_read(a->task, a->file, a->labels, a->limit, &list));
    scorer_options o = {
        .device = d, .isa = level, .weights = f->weights, .greedy = a->task && a->task->greedy};
    status failed = scorer_open(f->config, &o, &s);
    if (!failed) {
        failed = a->task ? evaluate_choice(a, f, s, &list) : evaluate_text(a, f, s);
        scorer_close(s);
    }
    examples_free(&list);
    return failed;
}

static status evaluate_model(const eval_args *a, const model_files *f)
{
    device *d;
    isa level;
    if (a->precision) TRY(config_set(f->config, "train.precision", a->precision, "command line"));
    TRY(machine_open(&a->machine, &d, &level));
    status s = a->task || a->text ? evaluate_scored(a, f, d, level) : evaluate_shards(a, f, d, level);
    device_close(d);
    return s;
}

status verb_eval(int argc, char **argv)
{
    static const struct argp_child children[] = {{&machine_argp, 0, "Machine:", 5}, {0}};
    static const struct argp argp = {options,
                                     parse,
                                     "perplexity MODEL\nlayers MODEL\nchoice MODEL FILE --task=NAME",
                                     "Measures loss, perplexity and bits per byte of a trained model, what "
                                     "it loses without each of its blocks, or "
                                     "how often it prefers the right one of several answers. MODEL is a "
                                     "run's folder or a step_N (with @average behind it: its averaged "
                                     "weights); FILE holds a record of JSON a line.",
                                     children,
                                     NULL,
                                     NULL};
    eval_args a = {.split = DATA_VALIDATION, .batch = 64};
    model_files f;
    TRY(cli_parse(&argp, argc, argv, &a));
    TRY(model_files_open(a.model, cli_talk, NULL, &f));
    status s = evaluate_model(&a, &f);
    model_files_close(&f);
    return s;
}

/* keel generate: a trained model goes on with a text.
 *
 *     keel generate runs/a --prompt "The" --max-tokens 100 --temperature 0.8 --seed 1
 */
#define _GNU_SOURCE // memmem
#include "base/file.h"
#include "base/text.h"
#include "cli/cli.h"
#include "cli/machine.h"
#include "infer/decoder.h"
#include "infer/model_files.h"
#include "infer/sampler.h"
#include "text/utf8.h"
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_STOPS = 16, OPT_TOP_K = 256, OPT_TOP_P, OPT_MIN_P, OPT_STOP, OPT_ECHO, OPT_JSON, OPT_PRECISION };

typedef struct generate_args {
    machine_args machine;
    const char *model, *prompt, *prompt_file, *precision;
    const char *stop[MOST_STOPS];
    int n_stops;
    i64 max_tokens;
    sampler sampler;
    bool echo, json;
} generate_args;

static const struct argp_option options[] = {
    {"prompt", 'p', "TEXT", 0, "The text to go on with", 0},
    {"prompt-file", 'f', "FILE", 0, "The text from a file (-: standard input), every byte of it", 0},
    {"max-tokens", 'n', "N", 0, "At most so many new tokens (default: 100)", 0},
    {"temperature", 't', "X", 0, "Divides the logits; 0 takes the likeliest token (default: 0.8)", 0},
    {"top-k", OPT_TOP_K, "K", 0, "Only the K likeliest tokens (0: all)", 0},
    {"top-p", OPT_TOP_P, "P", 0, "Only the likeliest tokens that hold P of the probability", 0},
    {"min-p", OPT_MIN_P, "P", 0, "Only tokens at least P times as likely as the likeliest", 0},
    {"seed", 's', "N", 0, "Seed of the draws (default: 1)", 0},
    {"stop", OPT_STOP, "TEXT", 0, "End before this text; may be given several times", 0},
    {"echo", OPT_ECHO, 0, 0, "Print the prompt too", 0},
    {"precision", OPT_PRECISION, "f32|bf16", 0, "Storage of activations (default: as in training)", 0},
    {"json", OPT_JSON, 0, 0, "Print one JSON object", 0},
    {0}};

static double number(struct argp_state *state, const char *name, const char *arg)
{
    double x;
    if (!parse_double(arg, &x)) argp_error(state, "--%s=%s: expected a number", name, arg);
    return x;
}
static i64 whole(struct argp_state *state, const char *name, const char *arg, i64 least)
{
    i64 x;
    if (!parse_i64(arg, &x) || x < least)
        argp_error(state, "--%s=%s: expected a whole number from %lld", name, arg, (long long)least);
    return x;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    generate_args *a = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &a->machine;
        return 0;
    case 'p':
        a->prompt = arg;
        return 0;
    case 'f':
        a->prompt_file = arg;
        return 0;
    case 'n':
        a->max_tokens = whole(state, "max-tokens", arg, 1);
        return 0;
    case 't':
        a->sampler.temperature = number(state, "temperature", arg);
        return 0;
    case OPT_TOP_K:
        a->sampler.top_k = whole(state, "top-k", arg, 0);
        return 0;
    case OPT_TOP_P:
        a->sampler.top_p = number(state, "top-p", arg);
        return 0;
    case OPT_MIN_P:
        a->sampler.min_p = number(state, "min-p", arg);
        return 0;
    case 's':
        a->sampler.seed = (u64)whole(state, "seed", arg, 0);
        return 0;
    case OPT_STOP:
        if (a->n_stops == MOST_STOPS || !*arg)
            argp_error(state, "--stop: up to %d texts, none empty", MOST_STOPS);
        a->stop[a->n_stops++] = arg;
        return 0;
    case OPT_ECHO:
        a->echo = true;
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
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

typedef struct writer { // bytes generated so far, and how many are surely printed
    const generate_args *a;
    text all;
    size_t printed;
} writer;

/* Position of the first stop text in what was generated, or SIZE_MAX. */
static size_t find_stop(const writer *w)
{
    size_t first = SIZE_MAX;
    for (int i = 0; i < w->a->n_stops; i++) {
        const char *at =
            w->all.bytes ? memmem(w->all.data, w->all.bytes, w->a->stop[i], strlen(w->a->stop[i])) : NULL;
        if (at) first = MIN(first, (size_t)(at - w->all.data));
    }
    return first;
}

/* Prints what can no longer become part of a stop text; everything when DONE. */
static void flush(writer *w, bool done)
{
    size_t hold = 0;
    for (int i = 0; i < w->a->n_stops && !done; i++) hold = MAX(hold, strlen(w->a->stop[i]) - 1);
    size_t end = w->all.bytes > hold ? w->all.bytes - hold : 0;
    if (!w->a->json && end > w->printed) {
        fwrite(w->all.data + w->printed, 1, end - w->printed, stdout);
        fflush(stdout);
        w->printed = end;
    }
}

static const char *generate(const generate_args *a, decoder *d, const tokenizer *t, const float *logits,
                            scored *scratch, writer *w, i64 *made, status *failed)
{
    i32 end = tokenizer_end(t);
    while (*made < a->max_tokens) {
        i32 id = sampler_draw(&a->sampler, logits, decoder_vocab(d), decoder_length(d), scratch);
        if (id == end) return "end of text";
        token_bytes b = tokenizer_decode(t, id);
        if (b.data) text_add_bytes(&w->all, b.data, b.bytes);
        ++*made;
        size_t stop = find_stop(w);
        if (stop != SIZE_MAX) {
            w->all.bytes = stop;
            return "stop";
        }
        flush(w, false);
        if (decoder_length(d) == decoder_capacity(d)) return "context full";
        if ((*failed = decoder_feed(d, &id, 1, &logits))) return "failed";
    }
    return "length";
}

/* JSON is UTF-8: bytes that belong to no character (a text may end within one) become U+FFFD. */
static void add_utf8(text *to, const char *data, size_t bytes)
{
    const u8 *p = (const u8 *)data;
    while (bytes) {
        size_t good = utf8_valid(p, bytes), bad = utf8_invalid(p + good, bytes - good);
        text_add_bytes(to, (const char *)p, good);
        if (bad) text_add(to, "\xEF\xBF\xBD");
        p += good + bad, bytes -= good + bad;
    }
}

static status print_json(const char *prompt, size_t bytes, const writer *w, i64 prompt_tokens, i64 made,
                         const char *reason)
{
    text before = {0}, after = {0};
    add_utf8(&before, prompt, bytes);
    add_utf8(&after, w->all.data, w->all.bytes);
    json_t *j =
        json_pack("{s:s%, s:s%, s:I, s:I, s:s}", "prompt", before.data ? before.data : "", before.bytes,
                  "completion", after.data ? after.data : "", after.bytes, "prompt_tokens",
                  (json_int_t)prompt_tokens, "completion_tokens", (json_int_t)made, "finish_reason", reason);
    text_free(&before);
    text_free(&after);
    if (!j) return fail(ERR_MEMORY, "cannot build the JSON object");
    json_dumpf(j, stdout, JSON_COMPACT);
    json_decref(j);
    return OK;
}

/* The prompt's tokens, if they leave room for one more behind what was fed before. */
static status encode(const decoder *d, const tokenizer *t, const char *prompt, size_t bytes, token_list *ids)
{
    i64 taken = decoder_length(d), room = decoder_capacity(d) - taken;
    TRY(tokenizer_encode(t, prompt, bytes, SPECIAL_PLAIN, ids));
    if (!ids->count && !taken)
        return fail(ERR_INPUT,
                    "the prompt is empty, and the tokenizer has no end-of-text token to begin with");
    if (ids->count <= room) return OK;
    return fail(ERR_INPUT,
                "the prompt has %lld tokens, the model's context room for %lld; shorten the prompt",
                (long long)ids->count, (long long)room);
}

static status answer(const generate_args *a, decoder *d, const tokenizer *t, const char *prompt, size_t bytes)
{
    token_list ids = {0};
    const float *logits;
    scored *scratch = NULL;
    writer w = {.a = a};
    i64 made = 0;
    status s = OK;
    i32 start = tokenizer_end(t);
    // A text begins where the one before it ended: that is how documents met in training.
    if (start >= 0) s = decoder_feed(d, &start, 1, &logits);
    if (!s) s = encode(d, t, prompt, bytes, &ids);
    if (!s && ids.count) s = decoder_feed(d, ids.id, ids.count, &logits);
    if (!s) s = mem_alloc(sizeof *scratch * (size_t)decoder_vocab(d), "sampler", &scratch);
    if (!s && a->echo && !a->json) fwrite(prompt, 1, bytes, stdout);
    const char *reason = s ? "" : generate(a, d, t, logits, scratch, &w, &made, &s);
    if (!s) flush(&w, true);
    if (!s && a->json) s = print_json(prompt, bytes, &w, ids.count, made, reason);
    if (!s) puts("");
    mem_free(scratch);
    text_free(&w.all);
    token_list_free(&ids);
    return s;
}

static status with_model(const generate_args *a, const model_files *f, const char *prompt, size_t bytes)
{
    device *dev;
    isa level;
    decoder *d;
    TRY(machine_open(&a->machine, &dev, &level));
    const char *precision = a->precision ? a->precision : config_text(f->config, "train.precision");
    bool bf16 = !strcmp(precision, "bf16") || (!strcmp(precision, "auto") && device_about(dev)->bf16);
    status s = decoder_open(f->config, dev, level, bf16 ? DT_BF16 : DT_F32, f->weights,
                            config_count(f->config, "model.context"), &d);
    if (!s) {
        s = answer(a, d, f->tokenizer, prompt, bytes);
        decoder_close(d);
    }
    device_close(dev);
    return s;
}

status verb_generate(int argc, char **argv)
{
    static const struct argp_child children[] = {{&machine_argp, 0, "Machine:", 5}, {0}};
    static const struct argp argp = {
        options,
        parse,
        "MODEL",
        "Goes on with a text. MODEL is a run's folder (its newest checkpoint) or a step_N; with "
        "@average behind it: its averaged weights.",
        children,
        NULL,
        NULL};
    generate_args a = {.prompt = "", .max_tokens = 100, .sampler = {.temperature = 0.8, .seed = 1}};
    model_files f;
    char *data = NULL;
    size_t bytes;
    TRY(cli_parse(&argp, argc, argv, &a));
    TRY(sampler_check(&a.sampler));
    TRY(model_files_open(a.model, cli_talk, NULL, &f));
    status s = f.tokenizer ? OK : fail(ERR_INPUT, "%s holds no tokenizer.json", f.folder);
    if (!s && a.prompt_file) s = file_read(a.prompt_file, &data, &bytes);
    if (!s) s = with_model(&a, &f, data ? data : a.prompt, data ? bytes : strlen(a.prompt));
    mem_free(data);
    model_files_close(&f);
    return s;
}

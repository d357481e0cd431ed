/* keel data: text to shards of tokens, and what can be said of them before any model is trained.
 *
 *     keel data build --tokenizer tokenizer.json --out shards corpus/
 *     keel data info shards
 *     keel data show --document 3 shards
 *     keel data bigram --json shards
 */
#include "base/file.h"
#include "base/text.h"
#include "cli/cli.h"
#include "cli/data_parts.h"
#include "cli/terminal.h"
#include <argp.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    OPT_JSON = 256,
    OPT_TOKENIZER,
    OPT_OUT,
    OPT_VALIDATION,
    OPT_DOCUMENT,
    OPT_FIELD,
    OPT_DEDUP,
    OPT_SAMPLES,
    OPT_SPECIAL,
    OPT_FORCE,
    OPT_THREADS,
    OPT_SPLIT,
    OPT_TOKENS,
    OPT_SEED,
    OPT_CONTEXT,
    OPT_BOUNDARIES
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static i64 number(struct argp_state *state, const char *option, const char *value, double least)
{
    double x;
    if (!parse_count(value, &x) || !(x >= least && x < 9e18) || x != (double)(i64)x)
        argp_error(state, "%s is '%s'; it must be a whole number >= %.0f", option, value, least);
    return (i64)x;
}

static special_mode special_of(struct argp_state *state, const char *value)
{
    if (!strcmp(value, "plain")) return SPECIAL_PLAIN;
    if (!strcmp(value, "allowed")) return SPECIAL_ALLOWED;
    if (strcmp(value, "forbid"))
        argp_error(state, "--special is '%s'; it must be plain, allowed or forbid", value);
    return SPECIAL_FORBID;
}

static error_t parse_build(int key, char *arg, struct argp_state *state)
{
    data_args *a = state->input;
    build_options *o = &a->build;
    switch (key) {
    case OPT_TOKENIZER:
        a->tokenizer = arg;
        return 0;
    case OPT_OUT:
        o->out = arg;
        return 0;
    case OPT_VALIDATION:
        o->validation = arg;
        return 0;
    case OPT_DOCUMENT:
        o->document = arg;
        return 0;
    case OPT_FIELD:
        o->field = arg;
        return 0;
    case OPT_DEDUP:
        o->dedup = arg;
        return 0;
    case OPT_SPECIAL:
        a->special = special_of(state, arg), o->special = arg;
        return 0;
    case OPT_FORCE:
        o->replace = true;
        return 0;
    case OPT_THREADS:
        o->threads = (int)MIN(number(state, "--threads", arg, 1), 4096);
        return 0;
    case OPT_JSON:
        a->json = true;
        return 0;
    case ARGP_KEY_ARGS:
        o->train = (const char *const *)state->argv + state->next;
        o->train_count = state->argc - state->next;
        return 0;
    case ARGP_KEY_END:
        if (!a->tokenizer) argp_error(state, "--tokenizer is missing: which tokenizer.json?");
        if (!o->out) argp_error(state, "--out is missing: which folder shall hold the shards?");
        if (!o->train_count) argp_error(state, "no text: name files or folders");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static error_t parse_inspect(int key, char *arg, struct argp_state *state)
{
    data_args *a = state->input;
    switch (key) {
    case OPT_SAMPLES:
        a->samples = number(state, "--samples", arg, 0);
        return 0;
    case ARGP_KEY_END:
        if (!a->build.train_count)
            argp_error(state, "what shall be looked at? name files, folders, or one of shards");
        return 0;
    default:
        return key == OPT_OUT || key == OPT_FORCE ? ARGP_ERR_UNKNOWN : parse_build(key, arg, state);
    }
}

/* For what works on a folder of shards. */
static error_t parse_folder(int key, char *arg, struct argp_state *state)
{
    data_args *a = state->input;
    switch (key) {
    case OPT_JSON:
        a->json = true;
        return 0;
    case OPT_TOKENS:
        a->bigram.tokens = number(state, "--tokens", arg, 1);
        return 0;
    case OPT_SEED:
        a->bigram.seed = (u64)number(state, "--seed", arg, 0);
        return 0;
    case OPT_CONTEXT:
        a->bigram.context = number(state, "--context", arg, 1);
        return 0;
    case OPT_BOUNDARIES:
        a->bigram.boundaries = true;
        return 0;
    case OPT_DOCUMENT:
        a->document = number(state, "--document", arg, 0);
        return 0;
    case OPT_SPLIT:
        if (strcmp(arg, "train") && strcmp(arg, "validation"))
            argp_error(state, "--split is '%s'; it must be train or validation", arg);
        a->split = *arg == 't' ? DATA_TRAIN : DATA_VALIDATION;
        return 0;
    case ARGP_KEY_ARG:
        if (a->folder) argp_error(state, "one folder at a time");
        a->folder = arg;
        return 0;
    case ARGP_KEY_END:
        if (!a->folder) argp_error(state, "which folder of shards?");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static status print_json(json_t *o)
{
    char *s = o ? json_dumps(o, JSON_REAL_PRECISION(9)) : NULL;
    json_decref(o);
    if (!s) return fail(ERR_MEMORY, "cannot build the JSON object");
    puts(s);
    free(s);
    return OK;
}

/* ---- build */

static volatile sig_atomic_t stop_signal;
static void on_signal(int number_of) { stop_signal = number_of; }

static bool show_progress(void *context, const build_progress *p)
{
    double *last = context, t = now();
    if (terminal_width() && (t - *last > 0.1 || p->bytes_done == p->bytes_total)) {
        char done[32], total[32];
        *last = t;
        fprintf(stderr, "\r%s %s of %s, %lld documents\033[K", p->phase,
                show_bytes((double)p->bytes_done, done), show_bytes((double)p->bytes_total, total),
                (long long)p->documents);
    }
    return !stop_signal;
}

static json_t *counts_json(i64 documents, i64 tokens, i64 bytes)
{
    return json_pack("{s:I, s:I, s:I}", "documents", (json_int_t)documents, "tokens", (json_int_t)tokens,
                     "bytes", (json_int_t)bytes);
}

static status report_build(const data_args *a, const build_result *r, double seconds)
{
    const i64 bytes = r->bytes[DATA_TRAIN] + r->bytes[DATA_VALIDATION];
    if (a->json)
        return print_json(json_pack("{s:s, s:b, s:I, s:{s:I, s:I, s:I, s:I, s:I}, s:o, s:o, s:b, s:f}",
                                    "folder", a->build.out, "reused", r->reused, "files",
                                    (json_int_t)r->files, "passed_over", "empty", (json_int_t)r->empty,
                                    "binary", (json_int_t)r->binary, "hidden", (json_int_t)r->hidden, "blank",
                                    (json_int_t)r->blank, "duplicates", (json_int_t)r->duplicates, "train",
                                    counts_json(r->documents[0], r->tokens[0], r->bytes[0]), "validation",
                                    counts_json(r->documents[1], r->tokens[1], r->bytes[1]),
                                    "validation_is_tail", r->validation_is_tail, "seconds", seconds));
    if (r->empty || r->binary || r->hidden)
        fprintf(stderr, "passed over: %lld empty, %lld binary, %lld hidden files\n", (long long)r->empty,
                (long long)r->binary, (long long)r->hidden);
    if (r->blank) fprintf(stderr, "passed over: %lld records without text\n", (long long)r->blank);
    if (r->duplicates)
        fprintf(stderr, "dropped: %lld documents that repeat earlier ones\n", (long long)r->duplicates);
    if (r->validation_is_tail)
        fprintf(stderr,
                "too few documents to hold some out: the end of the longest one is the validation text\n");
    for (int k = 0; k < DATA_SPLITS; k++)
        printf("%-10s  %lld documents, %lld tokens, %lld bytes\n", data_split_name[k],
               (long long)r->documents[k], (long long)r->tokens[k], (long long)r->bytes[k]);
    if (r->reused)
        fprintf(stderr, "%s is up to date: built from the same files in the same way\n", a->build.out);
    else
        fprintf(stderr, "%s: %lld files in %.2f s, %.1f MB/s\n", a->build.out, (long long)r->files, seconds,
                (double)bytes / seconds / 1e6);
    return OK;
}

static status build_with(data_args *a, const tokenizer *t)
{
    token_source source;
    build_result r;
    double last = 0, start = now();
    TRY(token_source_open(t, a->tokenizer, a->special, &source));
    struct sigaction act = {.sa_handler = on_signal, .sa_flags = SA_RESETHAND | SA_RESTART}, was[2];
    sigaction(SIGINT, &act, &was[0]);
    sigaction(SIGTERM, &act, &was[1]);
    a->build.progress = show_progress, a->build.progress_context = &last;
    status s = dataset_build(&a->build, &source, &r);
    sigaction(SIGINT, &was[0], NULL);
    sigaction(SIGTERM, &was[1], NULL);
    token_source_close(&source);
    if (terminal_width()) fprintf(stderr, "\r\033[K");
    if (s && s->code == ERR_STOPPED && stop_signal) { // the shell shall see the signal
        fprintf(stderr, "keel: %s\n", s->message);
        raise(stop_signal);
    }
    return s ? s : report_build(a, &r, now() - start);
}

static status data_build(data_args *a)
{
    tokenizer *t;
    TRY(tokenizer_open(a->tokenizer, &t));
    status s = build_with(a, t);
    tokenizer_close(t);
    return s;
}

/* ---- info, show, bigram */

static status with_dataset(data_args *a, status (*use)(const data_args *, const dataset *, double))
{
    dataset *d;
    double start = now();
    TRY(dataset_open(a->folder, &d));
    status s = use(a, d, now() - start);
    dataset_close(d);
    return s;
}

static status print_info(const data_args *a, const dataset *d, double seconds)
{
    if (a->json) {
        char hash[17], tokenizer_is[17];
        snprintf(hash, sizeof hash, "%016llx", (unsigned long long)dataset_hash(d));
        snprintf(tokenizer_is, sizeof tokenizer_is, "%016llx", (unsigned long long)dataset_tokenizer_hash(d));
        json_t *split[DATA_SPLITS];
        for (int k = 0; k < DATA_SPLITS; k++) {
            split[k] = counts_json(dataset_documents(d, k), dataset_tokens(d, k), dataset_bytes(d, k));
            json_object_set_new(split[k], "shards", json_integer(dataset_shards(d, k)));
        }
        return print_json(json_pack("{s:s, s:s, s:s, s:I, s:i, s:o, s:o, s:f}", "folder", a->folder, "hash",
                                    hash, "tokenizer", tokenizer_is, "vocab", (json_int_t)dataset_vocab(d),
                                    "eos", dataset_eos(d), "train", split[0], "validation", split[1],
                                    "verify_seconds", seconds));
    }
    printf("data        %016llx\ntokenizer   %016llx, %lld ids, end of text %d\n",
           (unsigned long long)dataset_hash(d), (unsigned long long)dataset_tokenizer_hash(d),
           (long long)dataset_vocab(d), dataset_eos(d));
    for (int k = 0; k < DATA_SPLITS; k++)
        printf("%-10s  %lld documents, %lld tokens, %lld bytes, %lld shards\n", data_split_name[k],
               (long long)dataset_documents(d, k), (long long)dataset_tokens(d, k),
               (long long)dataset_bytes(d, k), (long long)dataset_shards(d, k));
    fprintf(stderr, "verified in %.3f s\n", seconds);
    return OK;
}
static status data_info(data_args *a) { return with_dataset(a, print_info); }

static status add_tokens(const dataset *d, data_split split, i64 start, i64 n, text *out)
{
    tokenizer *t;
    i32 *ids;
    TRY(tokenizer_open(dataset_tokenizer_path(d), &t));
    status s = mem_alloc((size_t)n * sizeof(i32), "a document", &ids);
    if (!s) {
        dataset_read(d, split, start, n, ids);
        for (i64 i = 0; i < n; i++) {
            token_bytes b = tokenizer_decode(t, ids[i]);
            if (b.data) text_add_bytes(out, (const char *)b.data, b.bytes);
        }
        mem_free(ids);
    }
    tokenizer_close(t);
    return s;
}

static status print_document(const data_args *a, const dataset *d, double seconds)
{
    (void)seconds;
    const i64 count = dataset_documents(d, a->split);
    if (a->document >= count)
        return fail(ERR_INPUT, "%s: no document %lld in %s; it has %lld, counted from 0", a->folder,
                    (long long)a->document, data_split_name[a->split], (long long)count);
    i64 start, tokens, bytes;
    dataset_document(d, a->split, a->document, &start, &tokens, &bytes);
    text out = {0};
    text_add(&out, "%s", "");
    status s = add_tokens(d, a->split, start, tokens - 1, &out); // without its EOS
    if (!s && a->json)
        s = print_json(json_pack("{s:s, s:I, s:I, s:I, s:I, s:s%}", "split", data_split_name[a->split],
                                 "document", (json_int_t)a->document, "documents", (json_int_t)count,
                                 "tokens", (json_int_t)tokens, "bytes", (json_int_t)bytes, "text", out.data,
                                 out.bytes));
    else if (!s) {
        fprintf(stderr, "%s document %lld of %lld: %lld tokens, %lld bytes\n", data_split_name[a->split],
                (long long)a->document, (long long)count, (long long)tokens, (long long)bytes);
        fwrite(out.data, 1, out.bytes, stdout);
    }
    text_free(&out);
    return s;
}
static status data_show(data_args *a) { return with_dataset(a, print_document); }

static status print_bigram(const data_args *a, const dataset *d, double seconds)
{
    bigram_report r;
    double start = now();
    TRY(bigram_baseline(d, &a->bigram, &r));
    seconds = now() - start;
    if (a->json)
        return print_json(json_pack(
            "{s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f}", "train_tokens", (json_int_t)r.train_tokens, "pairs",
            (json_int_t)r.pairs, "distinct_pairs", (json_int_t)r.distinct, "validation_targets",
            (json_int_t)r.targets, "validation_bytes", (json_int_t)r.bytes, "nats_per_token",
            r.nats_per_token, "bits_per_byte", r.bits_per_byte, "seconds", seconds));
    printf("bits per byte   %.4f\nnats per token  %.4f\n", r.bits_per_byte, r.nats_per_token);
    fprintf(stderr,
            "interpolated Kneser-Ney bigram: %lld tokens counted (%lld distinct pairs), %lld targets of %lld "
            "bytes scored, %.2f s\n",
            (long long)r.train_tokens, (long long)r.distinct, (long long)r.targets, (long long)r.bytes,
            seconds);
    return OK;
}
static status data_bigram(data_args *a) { return with_dataset(a, print_bigram); }

/* ---- the verb: one row a task */

#define JSON                                                                                                 \
    {                                                                                                        \
        "json", OPT_JSON, 0, 0, "Print one JSON object", 0                                                   \
    }
#define DOCUMENT                                                                                             \
    {                                                                                                        \
        "document", OPT_DOCUMENT, "RULE", 0,                                                                 \
            "How files are cut into documents: auto (default), files over 1 MiB at a blank line before "     \
            "an unindented one; file; blank_line; or the string between documents",                          \
            0                                                                                                \
    }
#define FIELD                                                                                                \
    {                                                                                                        \
        "field", OPT_FIELD, "NAME", 0, "The field of JSONL records that holds the text (default: text)", 0   \
    }
static const struct argp_option build_table[] = {
    {"tokenizer", OPT_TOKENIZER, "FILE", 0, "The tokenizer.json or .tiktoken file to encode with", 0},
    {"out", OPT_OUT, "FOLDER", 0, "The folder to make; appears when it is complete", 0},
    {"validation", OPT_VALIDATION, "SHARE|PATH", 0,
     "Documents held out: a share by hash, 0, or other text (default: 1%)", 0},
    DOCUMENT,
    FIELD,
    {"dedup", OPT_DEDUP, "none|exact|minhash", 0,
     "Drop documents that repeat earlier ones, exactly (but for white space) or nearly (default: none)", 0},
    {"special", OPT_SPECIAL, "plain|allowed|forbid", 0,
     "Strings of special tokens in the text: plain text, their ids, an error (default: plain)", 0},
    {"threads", OPT_THREADS, "N", 0,
     "Encoders (default: the CPUs we may use); the result does not depend on it", 0},
    {"force", OPT_FORCE, 0, 0, "Replace a data set in FOLDER that was built otherwise", 0},
    JSON,
    {0}};
static const struct argp_option inspect_table[] = {
    {"tokenizer", OPT_TOKENIZER, "FILE", 0, "Count tokens by this tokenizer (default: none are counted)", 0},
    {"samples", OPT_SAMPLES, "N", 0, "Show the beginnings of N documents (default: 3)", 0},
    DOCUMENT,
    FIELD,
    {"threads", OPT_THREADS, "N", 0, "Threads (default: the CPUs we may use)", 0},
    JSON,
    {0}};
static const struct argp_option info_table[] = {JSON, {0}};
static const struct argp_option show_table[] = {
    {"document", OPT_DOCUMENT, "N", 0, "Which one, counted from 0 (default: 0)", 0},
    {"split", OPT_SPLIT, "train|validation", 0, "Of these documents (default: train)", 0},
    JSON,
    {0}};
static const struct argp_option bigram_table[] = {
    {"tokens", OPT_TOKENS, "N", 0, "Count the first N train tokens in the order of training (default: all)",
     0},
    {"seed", OPT_SEED, "S", 0, "Seed of that order (default: 0)", 0},
    {"context", OPT_CONTEXT, "T", 0,
     "Context of the model compared with: fixes the positions scored (default: 512)", 0},
    {"boundaries", OPT_BOUNDARIES, 0, 0,
     "Also score the first token of a document (mask_boundary_loss: false)", 0},
    JSON,
    {0}};

static const struct task {
    const char *name, *help, *doc, *arguments;
    const struct argp_option *options;
    argp_parser_t parse;
    status (*run)(data_args *a);
} tasks[] = {
    {"build", "turn text into checksummed shards of tokens",
     "Encodes files and folders into a folder of checksummed shards: text and JSONL, also as .gz and .zst, "
     "and "
     "tokens of llm.c and Megatron-LM.",
     "PATH...", build_table, parse_build, data_build},
    {"inspect", "count documents, bytes and tokens, and show some",
     "Counts documents, bytes and tokens of what could be built, or of shards, and shows some.", "PATH...",
     inspect_table, parse_inspect, data_look},
    {"info", "verify shards and count what is in them",
     "Verifies a folder of shards and counts what is in it.", "FOLDER", info_table, parse_folder, data_info},
    {"show", "print one document as text", "Prints one document of a folder of shards as text.", "FOLDER",
     show_table, parse_folder, data_show},
    {"bigram", "score the validation text by counted pairs: the baseline to beat",
     "Scores the validation text with counted pairs of tokens (interpolated Kneser-Ney): the baseline to "
     "beat.",
     "FOLDER", bigram_table, parse_folder, data_bigram},
};

static void usage(FILE *to)
{
    fprintf(to, "Usage: keel data WHAT [ARGUMENTS]\n\n");
    for (i64 i = 0; i < COUNT(tasks); i++) fprintf(to, "  %-8s %s\n", tasks[i].name, tasks[i].help);
    fprintf(to, "\n'keel data WHAT --help' explains one.\n");
}

status verb_data(int argc, char **argv)
{
    if (argc < 2) return fail(ERR_USAGE, "data: say what to do; 'keel data --help' lists it");
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-?")) return usage(stdout), OK;
    for (i64 i = 0; i < COUNT(tasks); i++) {
        if (strcmp(argv[1], tasks[i].name)) continue;
        data_args a = {.bigram.context = 512, .special = SPECIAL_PLAIN, .samples = 3};
        const struct argp argp = {
            tasks[i].options, tasks[i].parse, tasks[i].arguments, tasks[i].doc, NULL, NULL, NULL};
        char program[64];
        snprintf(program, sizeof program, "keel data %s", tasks[i].name);
        argv[1] = program;
        TRY(cli_parse(&argp, argc - 1, argv + 1, &a));
        return tasks[i].run(&a);
    }
    return fail(ERR_USAGE, "data: no task '%s'; 'keel data --help' lists them", argv[1]);
}

/* keel tokenizer: train, use and inspect byte-level BPE tokenizers.
 *
 *     keel tokenizer train --vocab 16Ki --out tokenizer.json corpus/
 *     printf 'Hello' | keel tokenizer encode --tokenizer tokenizer.json | keel tokenizer decode --tokenizer
 * ... keel tokenizer info --json tokenizer.json
 */
#include "base/file.h"
#include "base/text.h"
#include "cli/cli.h"
#include "cli/terminal.h"
#include "cli/tokenizer_parts.h"
#include "data/pipe.h"
#include "text/tokenizer.h"
#include <argp.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

typedef tokenizer_args arguments;

/* "16Ki", "2Gi": a whole number of at least LEAST. */
static i64 count_option(struct argp_state *state, const char *name, const char *value, i64 least)
{
    double x;
    if (!parse_count(value, &x) || !(x >= (double)least) || x > 9e15 || x != (double)(i64)x)
        argp_error(state, "--%s=%s: expected a whole number from %lld, such as 16Ki", name, value,
                   (long long)least);
    return (i64)x;
}

static error_t take_train(int key, char *value, struct argp_state *state)
{
    arguments *a = state->input;
    if (key == 'v')
        a->train.vocab = count_option(state, "vocab", value, 1);
    else if (key == 'j')
        a->json = true;
    else if (key == 'o')
        a->out = value;
    else if (key == 'p')
        a->train.pattern = value;
    else if (key == 't')
        a->train.threads = (int)MIN(count_option(state, "threads", value, 1), INT32_MAX);
    else if (key == 'm')
        a->train.memory_bytes = count_option(state, "memory", value, 1);
    else if (key == 'F')
        a->field = value;
    else if (key == 'f')
        a->train.min_frequency = count_option(state, "min-frequency", value, 1);
    else if (key == 's' && a->train.special_count == MOST_SPECIALS)
        argp_error(state, "more than %d special tokens", MOST_SPECIALS);
    else if (key == 's')
        a->train.specials = a->specials, a->specials[a->train.special_count++] = value;
    else if (key == ARGP_KEY_ARGS)
        a->paths = state->argv + state->next, a->path_count = state->argc - state->next;
    else if (key == ARGP_KEY_END && !a->out)
        argp_error(state, "--out is missing: where does the tokenizer go?");
    else if (key == ARGP_KEY_END && !a->path_count)
        argp_error(state, "no text: name files or folders");
    else
        return ARGP_ERR_UNKNOWN;
    return 0;
}

static error_t take_use(int key, char *value, struct argp_state *state)
{
    arguments *a = state->input;
    if (key == 'T')
        a->tokenizer = value;
    else if (key == 'j')
        a->json = true;
    else if (key == 'l')
        a->lines = true;
    else if (key == 'S')
        a->special = value;
    else if (key == ARGP_KEY_END && !a->tokenizer)
        argp_error(state, "--tokenizer is missing: which tokenizer.json?");
    else
        return ARGP_ERR_UNKNOWN;
    return 0;
}

static error_t take_info(int key, char *value, struct argp_state *state)
{
    arguments *a = state->input;
    if (key == 'j')
        a->json = true;
    else if (key == 'T' || (key == ARGP_KEY_ARG && !a->tokenizer))
        a->tokenizer = value;
    else if (key == ARGP_KEY_END && !a->tokenizer)
        argp_error(state, "which tokenizer.json?");
    else
        return ARGP_ERR_UNKNOWN;
    return 0;
}

static error_t take_compare(int key, char *value, struct argp_state *state)
{
    arguments *a = state->input;
    (void)value;
    if (key == 'j')
        a->json = true;
    else if (key == ARGP_KEY_ARGS)
        a->paths = state->argv + state->next, a->path_count = state->argc - state->next;
    else if (key == ARGP_KEY_END && a->path_count < 3)
        argp_error(state, "which two tokenizers, and which text to compare them on?");
    else
        return ARGP_ERR_UNKNOWN;
    return 0;
}

static error_t take_convert(int key, char *value, struct argp_state *state)
{
    arguments *a = state->input;
    if (key == 'j')
        a->json = true;
    else if (key == 'o')
        a->out = value;
    else if (key == 'p')
        a->train.pattern = value;
    else if (key == 's' && a->train.special_count == MOST_SPECIALS)
        argp_error(state, "more than %d special tokens", MOST_SPECIALS);
    else if (key == 's')
        a->specials[a->train.special_count++] = value;
    else if (key == ARGP_KEY_ARG && !a->tokenizer)
        a->tokenizer = value;
    else if (key == ARGP_KEY_END && (!a->tokenizer || !a->out))
        argp_error(state,
                   !a->out ? "--out is missing: where does the tokenizer.json go?" : "which tokenizer?");
    else
        return ARGP_ERR_UNKNOWN;
    return 0;
}

static error_t take_chat(int key, char *value, struct argp_state *state)
{
    arguments *a = state->input;
    if (key == 'T')
        a->tokenizer = value;
    else if (key == 'c')
        a->chat = value;
    else if (key == 'a')
        a->answer = true;
    else if (key == 'j')
        a->json = true;
    else if (key == 'e')
        a->template = true;
    else if (key == ARGP_KEY_END && !a->tokenizer)
        argp_error(state, "--tokenizer is missing: which tokenizer.json?");
    else
        return ARGP_ERR_UNKNOWN;
    return 0;
}

/* ---- train */
static void show_progress(void *context, const char *stage, i64 done, i64 total)
{
    (void)context;
    char bytes[32];
    if (total)
        fprintf(stderr, "\r%s %" PRId64 " of %" PRId64 "\033[K", stage, done, total);
    else
        fprintf(stderr, "\r%s %s\033[K", stage, show_bytes((double)done, bytes));
}

static status add_document(void *trainer, i64 slot, const pipe_document *d)
{
    (void)slot;
    return bpe_trainer_add(trainer, (const char *)d->text, (size_t)d->bytes);
}

/* All documents of the paths, cut as `keel train` cuts them. */
static status add_paths(const arguments *a, bpe_trainer *b)
{
    sources files = {0};
    read_rules rules = {.cut = {.kind = CUT_AUTO}, .field = a->field};
    status s = OK;
    for (int i = 0; !s && i < a->path_count; i++) s = sources_find(&files, a->paths[i], false);
    for (i64 i = 0; !s && i < files.count; i++)
        if (files.file[i].kind == SOURCE_TOKENS)
            s = fail(ERR_INPUT, "%s: it holds tokens, not text; a tokenizer is trained on text",
                     files.file[i].path);
    if (!s)
        s = pipe_run(&(pipe_options){.files = &files,
                                     .rules = &rules,
                                     .threads = a->train.threads,
                                     .context = b,
                                     .take = add_document},
                     NULL);
    if (!s && files.empty + files.binary + files.hidden)
        fprintf(stderr, "passed over: %" PRId64 " empty, %" PRId64 " binary, %" PRId64 " hidden files\n",
                files.empty, files.binary, files.hidden);
    sources_free(&files);
    return s;
}

static void report(const arguments *a, const tokenizer *t, const bpe_stats *n)
{
    struct rusage used;
    char seconds[2][32], bytes[2][32], words[32], size[32];
    getrusage(RUSAGE_SELF, &used);
    double all = n->count_seconds + n->merge_seconds;
    fprintf(stderr, "read %s in %" PRIu64 " documents: %" PRIu64 " pieces, %s of them distinct\n",
            show_bytes((double)n->bytes, size), n->documents, n->pieces, show_count((double)n->words, words));
    if (n->words_dropped)
        fprintf(stderr,
                "forgot %" PRIu64
                " rare words (%.2f %% of all pieces) to stay within %s: --memory raises that\n",
                n->words_dropped, 100 * (double)n->pieces_dropped / (double)n->pieces,
                show_bytes((double)a->train.memory_bytes, bytes[0]));
    if (a->train.vocab && n->vocab < a->train.vocab)
        fprintf(stderr,
                "no pair is left that occurs often enough: the vocabulary has %" PRId64
                " entries, not %" PRId64 "\n",
                n->vocab, a->train.vocab);
    fprintf(stderr,
            "vocabulary %" PRId64 " (%" PRId64 " merges) in %s (counting %s, merging %.1f s), %.1f MB/s\n",
            n->vocab, n->merges, show_seconds(all, seconds[0]), show_seconds(n->count_seconds, seconds[1]),
            n->merge_seconds, all > 0 ? (double)n->bytes / all / 1e6 : 0);
    fprintf(stderr, "%.3f bytes a token on this text; peak memory %s, of it tables %s\n",
            n->tokens ? (double)n->counted_bytes / (double)n->tokens : 0,
            show_bytes((double)used.ru_maxrss * 1024, bytes[0]),
            show_bytes((double)n->working_bytes, bytes[1]));
    fprintf(stderr, "wrote %s, hash %016" PRIx64 "\n", a->out, tokenizer_hash(t));
}

static json_t *trained_json(const arguments *a, const tokenizer *t, const bpe_stats *n)
{
    char hash[17];
    snprintf(hash, sizeof hash, "%016" PRIx64, tokenizer_hash(t));
    return json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:f, s:f}", "file", a->out, "hash", hash, "vocab",
                     (json_int_t)n->vocab, "merges", (json_int_t)n->merges, "documents",
                     (json_int_t)n->documents, "bytes", (json_int_t)n->bytes, "words_dropped",
                     (json_int_t)n->words_dropped, "seconds", n->count_seconds + n->merge_seconds,
                     "bytes_per_token", n->tokens ? (double)n->counted_bytes / (double)n->tokens : 0);
}

static status train_on(arguments *a, bpe_trainer *b)
{
    TRY(add_paths(a, b));
    bpe_stats n;
    tokenizer *t;
    TRY(bpe_trainer_finish(b, &t, &n));
    if (a->train.progress) fprintf(stderr, "\r\033[K");
    status s = n.bytes ? tokenizer_save(t, a->out) : fail(ERR_INPUT, "%s: no text in it", a->paths[0]);
    if (!s && a->json)
        s = cli_print_json(trained_json(a, t, &n));
    else if (!s)
        report(a, t, &n);
    tokenizer_close(t);
    return s;
}

static status run_train(arguments *a)
{
    file_writer *probe; // a folder that cannot be written is better known before the work than after
    bpe_trainer *b;
    TRY(file_create(a->out, &probe));
    file_abandon(probe);
    if (terminal_width()) a->train.progress = show_progress;
    TRY(bpe_trainer_open(&a->train, &b));
    status s = train_on(a, b);
    bpe_trainer_close(b);
    return s;
}

/* ---- encode, decode */
void tokenizer_print_ids(const token_list *ids, bool json)
{
    if (json) putchar('[');
    for (i64 i = 0; i < ids->count; i++) printf("%s%d", i ? json ? "," : " " : "", (int)ids->id[i]);
    puts(json ? "]" : "");
}

static status print_encoded(encoder *e, const char *text, size_t n, special_mode mode, token_list *ids,
                            bool json)
{
    ids->count = 0;
    TRY(encoder_run(e, text, n, mode, ids));
    tokenizer_print_ids(ids, json);
    return OK;
}

static status encode_text(const arguments *a, encoder *e, const char *text, size_t n, special_mode mode)
{
    token_list ids = {0};
    status s = OK;
    if (!a->lines) s = print_encoded(e, text, n, mode, &ids, a->json);
    for (size_t at = 0, line = 1; a->lines && at < n && !s; line++) {
        const char *end = memchr(text + at, '\n', n - at);
        size_t bytes = end ? (size_t)(end - text) - at : n - at;
        s = wrap(print_encoded(e, text + at, bytes, mode, &ids, a->json), "line %zu", line);
        at += bytes + 1;
    }
    token_list_free(&ids);
    return s;
}

static status run_encode(arguments *a)
{
    static const char *const modes[] = {"plain", "allowed", "forbid"};
    int mode = 0;
    while (a->special && mode < 3 && strcmp(modes[mode], a->special)) mode++;
    if (mode == 3) return fail(ERR_USAGE, "--special=%s: one of plain, allowed, forbid", a->special);
    tokenizer *t;
    encoder *e = NULL;
    char *text = NULL;
    size_t n;
    TRY(tokenizer_open(a->tokenizer, &t));
    status s = encoder_open(t, &e);
    if (!s) s = file_read("-", &text, &n);
    if (!s) s = encode_text(a, e, text, n, (special_mode)mode);
    mem_free(text);
    encoder_close(e);
    tokenizer_close(t);
    return s;
}

static status print_decoded(const tokenizer *t, char *words)
{
    i64 place = 1, id;
    for (char *next, *word = strtok_r(words, " \t\r\n\v\f", &next); word;
         word = strtok_r(NULL, " \t\r\n\v\f", &next), place++) {
        if (!parse_i64(word, &id))
            return fail(ERR_INPUT, "standard input, word %lld: '%.40s' is no id", (long long)place, word);
        token_bytes b = id >= 0 && id < tokenizer_vocab(t) ? tokenizer_decode(t, (i32)id) : (token_bytes){0};
        if (!b.data)
            return fail(ERR_INPUT,
                        "standard input, word %lld: no token has the id %lld (the vocabulary has %lld)",
                        (long long)place, (long long)id, (long long)tokenizer_vocab(t));
        fwrite(b.data, 1, b.bytes, stdout);
    }
    return OK;
}

static status run_decode(arguments *a)
{
    tokenizer *t;
    char *text = NULL;
    size_t n;
    TRY(tokenizer_open(a->tokenizer, &t));
    status s = file_read("-", &text, &n);
    if (!s && memchr(text, 0, n))
        s = fail(ERR_INPUT, "standard input holds a zero byte: ids are written in digits");
    if (!s) s = print_decoded(t, text);
    mem_free(text);
    tokenizer_close(t);
    return s;
}

/* ---- info */
static status print_json(const tokenizer *t)
{
    char hash[17];
    snprintf(hash, sizeof hash, "%016" PRIx64, tokenizer_hash(t));
    json_t *added = json_array();
    for (i64 i = 0; i < tokenizer_added(t); i++) {
        const added_token *x = tokenizer_added_at(t, i);
        json_array_append_new(added, json_pack("{s:i, s:s, s:b}", "id", (int)x->id, "content", x->content,
                                               "special", x->special));
    }
    json_t *all = json_pack("{s:I, s:I, s:s, s:s, s:o}", "vocab", (json_int_t)tokenizer_vocab(t), "merges",
                            (json_int_t)tokenizer_merges(t), "pattern", tokenizer_pattern(t), "hash", hash,
                            "added_tokens", added);
    if (!all) return fail(ERR_MEMORY, "out of memory");
    json_dumpf(all, stdout, 0);
    putchar('\n');
    json_decref(all);
    return OK;
}

static status run_info(arguments *a)
{
    tokenizer *t;
    TRY(tokenizer_open(a->tokenizer, &t));
    if (a->json) {
        status s = print_json(t);
        tokenizer_close(t);
        return s;
    }
    printf("vocab    %" PRId64 "\nmerges   %" PRId64 "\npattern  %s\nhash     %016" PRIx64 "\n",
           tokenizer_vocab(t), tokenizer_merges(t), tokenizer_pattern(t), tokenizer_hash(t));
    for (i64 i = 0; i < tokenizer_added(t); i++) {
        const added_token *x = tokenizer_added_at(t, i);
        printf("%s  %d %s\n", x->special ? "special" : "added  ", (int)x->id, x->content);
    }
    tokenizer_close(t);
    return OK;
}

/* ---- the verb */
static const struct argp_option train_options[] = {
    {"vocab", 'v', "N", 0, "Entries in all, special tokens and bytes included (default: 16Ki)", 0},
    {"out", 'o', "FILE", 0, "The tokenizer.json to write", 0},
    {"pattern", 'p', "gpt2|cl100k|llama3|qwen2|o200k", 0, "How text is cut into pieces (default: gpt2)", 0},
    {"special", 's', "TOKEN", 0, "A special token; may be given several times (default: one, <|endoftext|>)",
     0},
    {"threads", 't', "N", 0, "Threads (default: the CPUs we may use)", 0},
    {"memory", 'm', "BYTES", 0,
     "Cap on the tables' memory; beyond it rare words are forgotten (default: 2Gi)", 0},
    {"min-frequency", 'f', "N", 0, "Pairs rarer than this are not merged (default: 2)", 0},
    {"field", 'F', "NAME", 0, "The field of JSONL records that holds the text (default: text)", 0},
    {"json", 'j', 0, 0, "Print one JSON object", 0},
    {0}};
#define OPTION_TOKENIZER                                                                                     \
    {                                                                                                        \
        "tokenizer", 'T', "FILE", 0, "The tokenizer.json or .tiktoken file", 0                               \
    }
static const struct argp_option encode_options[] = {
    OPTION_TOKENIZER,
    {"lines", 'l', 0, 0, "Encode each line, without its newline, into a line of its own", 0},
    {"special", 'S', "plain|allowed|forbid", 0,
     "Strings of special tokens are plain text, their ids, an error (default: plain)", 0},
    {"json", 'j', 0, 0, "Print a JSON array of ids (with --lines: one a line)", 0},
    {0}};
static const struct argp_option decode_options[] = {OPTION_TOKENIZER, {0}};
static const struct argp_option info_options[] = {
    OPTION_TOKENIZER, {"json", 'j', 0, 0, "Print one JSON object", 0}, {0}};

static const struct argp_option compare_options[] = {{"json", 'j', 0, 0, "Print one JSON object", 0}, {0}};
static const struct argp_option convert_options[] = {
    {"out", 'o', "FILE", 0, "The tokenizer.json to write", 0},
    {"pattern", 'p', "gpt2|cl100k|llama3|qwen2|o200k", 0,
     "For a .tiktoken file: its pattern; known families need none", 0},
    {"special", 's', "TOKEN", 0,
     "With --pattern: a special token; may be given several times; ids follow the ranks", 0},
    {"json", 'j', 0, 0, "Print one JSON object", 0},
    {0}};
static const struct argp_option chat_options[] = {
    OPTION_TOKENIZER,
    {"layout", 'c', "chatml|llama3", 0,
     "The layout (default: the one whose special tokens the tokenizer has)", 0},
    {"answer", 'a', 0, 0, "Close with the head of an assistant's message", 0},
    {"template", 'e', 0, 0, "Print the layout as a Jinja chat_template instead; reads nothing", 0},
    {"json", 'j', 0, 0, "Print a JSON array of ids", 0},
    {0}};

static const struct part {
    const char *name, *help;
    struct argp argp;
    status (*run)(arguments *a);
} parts[] = {
    {"train",
     "learn a tokenizer from text",
     {train_options, take_train, "FILE...",
      "Learns a tokenizer from files, folders and patterns: text and JSONL, also as .gz and .zst.", 0, 0, 0},
     run_train},
    {"encode",
     "text on standard input to ids",
     {encode_options, take_use, "", "Encodes standard input, every byte of it, and prints the ids.", 0, 0, 0},
     run_encode},
    {"decode",
     "ids on standard input to bytes",
     {decode_options, take_use, "", "Decodes ids on standard input and writes the bytes.", 0, 0, 0},
     run_decode},
    {"info",
     "vocabulary, pattern, special tokens, hash",
     {info_options, take_info, "FILE", "Says what a tokenizer.json holds.", 0, 0, 0},
     run_info},
    {"compare",
     "two tokenizers on one text: compression, fertility",
     {compare_options, take_compare, "A B FILE...",
      "Compares two tokenizers on text: bytes a token, tokens a word, words that are one token, ids that "
      "occur, "
      "speed on one thread.",
      0, 0, 0},
     tokenizer_compare},
    {"convert",
     "a .tiktoken file, or a tokenizer.json, to a tokenizer.json",
     {convert_options, take_convert, "FILE",
      "Reads any tokenizer that Keel reads and writes a tokenizer.json.", 0, 0, 0},
     tokenizer_convert},
    {"chat",
     "messages on standard input to ids",
     {chat_options, take_chat, "",
      "Encodes a JSON list of {\"role\", \"content\"} on standard input. Special tokens in a message are "
      "plain text.",
      0, 0, 0},
     tokenizer_chat},
};

static void print_parts(FILE *to)
{
    fprintf(to, "Usage: keel tokenizer PART [ARGUMENTS]\n\n");
    for (i64 i = 0; i < COUNT(parts); i++) fprintf(to, "  %-8s %s\n", parts[i].name, parts[i].help);
    fprintf(to, "\n'keel tokenizer PART --help' explains a part.\n");
}

status verb_tokenizer(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    if (!strcmp(name, "--help")) return print_parts(stdout), OK;
    for (i64 i = 0; i < COUNT(parts); i++) {
        if (strcmp(parts[i].name, name)) continue;
        char program[64];
        snprintf(program, sizeof program, "keel tokenizer %s", name);
        argv[1] = program;
        arguments a = {0};
        TRY(cli_parse(&parts[i].argp, argc - 1, argv + 1, &a));
        return parts[i].run(&a);
    }
    return fail(ERR_USAGE,
                "keel tokenizer%s%s: expected train, encode, decode, info, compare, convert or chat",
                *name ? " " : "", name);
}

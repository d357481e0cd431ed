/* keel bench method: what a method costs: a training step with it against the same step without it, in pairs.
 *
 *     keel bench method frac                  # llama-135m, 2 x 1024 tokens, bf16 where the machine has it
 *     keel bench method --all --json
 *
 * Both models live side by side in one process and take steps in turn, first one then the other leading, on
 * the same batches: tokens drawn by Zipf's law, new ones every step. The cost is the median over the pairs of
 * (time with the method) / (time without); --decode times single tokens behind a prompt instead, --prefill
 * whole prompts: what moves the machine's clock moves both of a pair. A row of
 * src/model/methods.h says what the method is compared with and the most it may cost. */
#include "base/random.h"
#include "base/text.h"
#include "cli/cli.h"
#include "cli/machine.h"
#include "infer/decoder.h"
#include "model/methods.h"
#include "train/run.h"
#include "train/session.h"
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    OPT_PRESET = 256,
    OPT_BATCH,
    OPT_CONTEXT,
    OPT_PRECISION,
    OPT_PAIRS,
    OPT_AGAINST,
    OPT_ALL,
    OPT_LIST,
    OPT_JSON,
    OPT_DECODE,
    OPT_PREFILL,
    WARM = 2,
    MOST_PAIRS = 1000
};

typedef struct bench_args {
    machine_args machine;
    const char *preset, *precision, *against, *name[MOST_METHODS];
    i64 n_names, batch, context, pairs;
    bool all, list, json, decode, prefill;
} bench_args;

static const struct argp_option options[] = {
    {"preset", OPT_PRESET, "NAME", 0, "The model (default: llama-135m; key=value arguments change it)", 0},
    {"batch", OPT_BATCH, "B", 0, "Sequences a step (default: 2)", 0},
    {"context", OPT_CONTEXT, "T", 0, "Tokens a sequence (default: 1024)", 0},
    {"precision", OPT_PRECISION, "f32|bf16", 0,
     "Storage of activations (default: bf16 where the machine has it)", 0},
    {"pairs", OPT_PAIRS, "N", 0, "Pairs of steps counted, after 2 to warm up (default: 10)", 0},
    {"against", OPT_AGAINST, "SETTINGS", 0,
     "What to compare with, as 'key=value key=value' (default: what the method's row says)", 0},
    {"all", OPT_ALL, 0, 0, "Every method, one after the other", 0},
    {"list", OPT_LIST, 0, 0, "Print the methods and their settings, measure nothing", 0},
    {"decode", OPT_DECODE, 0, 0, "Time single tokens behind a prompt of half the context", 0},
    {"prefill", OPT_PREFILL, 0, 0, "Time reading a prompt of half the context", 0},
    {"json", OPT_JSON, 0, 0, "Print one JSON object a method", 0},
    {0}};

static i64 whole(struct argp_state *state, const char *name, const char *arg, i64 most)
{
    i64 x;
    if (!parse_i64(arg, &x) || x < 1 || x > most)
        argp_error(state, "--%s=%s: expected a whole number from 1 to %lld", name, arg, (long long)most);
    return x;
}

static error_t parse_word(struct argp_state *state, bench_args *a, const char *arg)
{
    if (strchr(arg, '=')) {
        if (a->machine.n_overrides == MOST_OVERRIDES)
            argp_error(state, "more than %d overrides", MOST_OVERRIDES);
        a->machine.overrides[a->machine.n_overrides++] = arg;
    } else {
        if (a->n_names == MOST_METHODS) argp_error(state, "more than %d methods", MOST_METHODS);
        a->name[a->n_names++] = arg;
    }
    return 0;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    bench_args *a = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &a->machine;
        return 0;
    case ARGP_KEY_ARG:
        return parse_word(state, a, arg);
    case OPT_PRESET:
        a->preset = arg;
        return 0;
    case OPT_BATCH:
        a->batch = whole(state, "batch", arg, 1 << 16);
        return 0;
    case OPT_CONTEXT:
        a->context = whole(state, "context", arg, 1 << 20);
        return 0;
    case OPT_PRECISION:
        a->precision = arg;
        return 0;
    case OPT_PAIRS:
        a->pairs = whole(state, "pairs", arg, MOST_PAIRS);
        return 0;
    case OPT_AGAINST:
        a->against = arg;
        return 0;
    case OPT_ALL:
        a->all = true;
        return 0;
    case OPT_DECODE:
        a->decode = true;
        return 0;
    case OPT_PREFILL:
        a->prefill = true;
        return 0;
    case OPT_LIST:
        a->list = true;
        return 0;
    case OPT_JSON:
        a->json = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* ---- batches */
typedef struct draw {
    i32 *tokens, *targets, *doc_start, *position;
    i64 rows, context, vocab;
} draw;

static status draw_open(i64 rows, i64 context, i64 vocab, draw *out)
{
    i64 n = rows * context;
    *out = (draw){.rows = rows, .context = context, .vocab = vocab};
    TRY(mem_alloc(4 * (size_t)n * sizeof(i32), "tokens of a step", &out->tokens));
    out->targets = out->tokens + n;
    out->doc_start = out->targets + n;
    out->position = out->doc_start + n;
    for (i64 i = 0; i < n; i++) out->doc_start[i] = 0, out->position[i] = (i32)(i % context);
    return OK;
}

/* Rank r with probability about 1 / r: the exponential of a uniform number. */
static step_batch draw_step(draw *d, i64 step)
{
    i64 n = d->rows * d->context;
    u64 stream = random_stream("bench_method");
    for (i64 i = 0; i < n; i++) {
        double u = (double)(random_bits(1, stream, (u64)step, (u64)i) >> 11) * 0x1p-53;
        d->tokens[i] = (i32)MIN(d->vocab - 1, (i64)exp(u * log((double)d->vocab)));
        if (i) d->targets[i - 1] = d->tokens[i];
    }
    d->targets[n - 1] = 0;
    return (step_batch){d->tokens, d->targets, d->doc_start, d->position, d->rows, n};
}

/* ---- measuring */
typedef struct side {
    config *c;
    session *s;
    decoder *d; // --decode, --prefill
    double seconds[MOST_PAIRS];
} side;

static status one_step(side *x, const step_batch *b, i64 step, double *seconds)
{
    double nats, norm, start = clock_seconds();
    session_forward_backward(x->s, b, step, &nats);
    session_update(x->s, step, 1e-4, 1e-4, &norm);
    *seconds = clock_seconds() - start;
    return isfinite(nats) && isfinite(norm) ? OK : fail(ERR_NUMERIC, "the step is not finite");
}

/* One token behind a prompt (of which DONE were fed since), or the prompt anew. */
static status one_reading(const bench_args *a, side *x, const i32 *ids, i64 prompt, i64 done, double *seconds)
{
    const float *logits;
    if (a->prefill) decoder_reset(x->d);
    double start = clock_seconds();
    TRY(decoder_feed(x->d, a->prefill ? ids : ids + prompt + done, a->prefill ? prompt : 1, &logits));
    *seconds = clock_seconds() - start;
    return OK;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
/* The value that SHARE of X's values lie below; sorts X. */
static double quantile(double *x, i64 n, double share)
{
    qsort(x, (size_t)n, sizeof *x, ascending);
    double at = share * (double)(n - 1);
    i64 low = (i64)at;
    return x[low] + (at - (double)low) * (x[MIN(low + 1, n - 1)] - x[low]);
}

static status measure(const bench_args *a, side *with, side *without)
{
    draw d;
    status s = OK;
    TRY(draw_open(without->s->batch_rows, without->s->context, config_count(without->c, "model.vocab"), &d));
    session_start(with->s);
    session_start(without->s);
    for (i64 k = -WARM; k < a->pairs && !s; k++) {
        step_batch b = draw_step(&d, k + WARM);
        side *order[2] = {k % 2 ? with : without, k % 2 ? without : with};
        for (int i = 0; i < 2 && !s; i++) {
            double seconds = 0;
            s = one_step(order[i], &b, k + WARM, &seconds);
            if (k >= 0) order[i]->seconds[k] = seconds;
        }
    }
    mem_free(d.tokens);
    return s;
}

static status measure_reading(const bench_args *a, side *with, side *without)
{
    draw d;
    i64 prompt = MAX(1, a->context / 2);
    const float *logits;
    TRY(draw_open(1, prompt + a->pairs + WARM, config_count(without->c, "model.vocab"), &d));
    draw_step(&d, 0);
    store_initialize(decoder_store(with->d), 1);
    store_initialize(decoder_store(without->d), 1);
    status s = a->prefill ? OK : decoder_feed(with->d, d.tokens, prompt, &logits);
    if (!s && !a->prefill) s = decoder_feed(without->d, d.tokens, prompt, &logits);
    for (i64 k = -WARM; k < a->pairs && !s; k++) {
        side *order[2] = {k % 2 ? with : without, k % 2 ? without : with};
        for (int i = 0; i < 2 && !s; i++) {
            double seconds = 0;
            s = one_reading(a, order[i], d.tokens, prompt, k + WARM, &seconds);
            if (k >= 0) order[i]->seconds[k] = seconds;
        }
    }
    mem_free(d.tokens);
    return s;
}

typedef struct cost {
    double ratio, low, high; // median and quartiles over the pairs
    double seconds, seconds_without;
} cost;

static cost cost_of(side *with, side *without, i64 pairs)
{
    cost c;
    double ratio[MOST_PAIRS];
    for (i64 k = 0; k < pairs; k++) ratio[k] = with->seconds[k] / without->seconds[k];
    c.ratio = quantile(ratio, pairs, 0.5);
    c.low = quantile(ratio, pairs, 0.25);
    c.high = quantile(ratio, pairs, 0.75);
    c.seconds = quantile(with->seconds, pairs, 0.5);
    c.seconds_without = quantile(without->seconds, pairs, 0.5);
    return c;
}

static status tell_json(const bench_args *a, const method_row *m, const side *with, const side *without,
                        const cost *c)
{
    const session *x = with->s, *y = without->s;
    json_t *j = json_pack(
        "{s:s, s:f, s:f, s:f, s:f, s:f, s:I, s:I, s:f, s:f, s:I, s:I, s:f, s:s, s:I, s:I, s:s, s:I, s:I, "
        "s:s}",
        "method", m->name, "ratio", c->ratio, "ratio_q1", c->low, "ratio_q3", c->high, "step_s", c->seconds,
        "step_s_without", c->seconds_without, "parameters", (json_int_t)x->figures.parameters,
        "parameters_without", (json_int_t)y->figures.parameters, "flops_per_token",
        x->figures.flops_per_token, "flops_per_token_without", y->figures.flops_per_token, "activation_bytes",
        (json_int_t)x->memory.activations, "activation_bytes_without", (json_int_t)y->memory.activations,
        "limit", m->limit, "preset", a->preset, "batch", (json_int_t)x->batch_rows, "context",
        (json_int_t)x->context, "precision", dtype_name(x->act), "pairs", (json_int_t)a->pairs, "threads",
        (json_int_t)device_about(x->device)->threads, "isa", isa_name(x->options.isa));
    if (!j) return fail(ERR_MEMORY, "keel bench method: cannot build the JSON object");
    json_dumpf(j, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
    puts("");
    json_decref(j);
    return OK;
}

static status tell_reading(const bench_args *a, const method_row *m, const side *with, const side *without,
                           const cost *c)
{
    const char *what = a->prefill ? "prompt" : "token";
    if (!a->json) {
        printf("%-14s a %s %8.3f ms against %8.3f ms: %+5.1f %% (quartiles %+.1f, %+.1f); caches %.2f MiB "
               "against %.2f\n",
               m->name, what, 1e3 * c->seconds, 1e3 * c->seconds_without, 100 * (c->ratio - 1),
               100 * (c->low - 1), 100 * (c->high - 1), (double)decoder_cache_bytes(with->d) / 0x1p20,
               (double)decoder_cache_bytes(without->d) / 0x1p20);
        fflush(stdout);
        return OK;
    }
    json_t *j = json_pack("{s:s, s:s, s:f, s:f, s:f, s:f, s:f, s:I, s:I, s:I}", "method", m->name, "timed",
                          what, "ratio", c->ratio, "ratio_q1", c->low, "ratio_q3", c->high, "s", c->seconds,
                          "s_without", c->seconds_without, "cache_bytes",
                          (json_int_t)decoder_cache_bytes(with->d), "cache_bytes_without",
                          (json_int_t)decoder_cache_bytes(without->d), "pairs", (json_int_t)a->pairs);
    if (!j) return fail(ERR_MEMORY, "keel bench method: cannot build the JSON object");
    json_dumpf(j, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
    puts("");
    json_decref(j);
    return OK;
}

static status tell(const bench_args *a, const method_row *m, side *with, side *without)
{
    cost c = cost_of(with, without, a->pairs);
    if (with->d) return tell_reading(a, m, with, without, &c);
    const session *x = with->s, *y = without->s;
    if (a->json) return tell_json(a, m, with, without, &c);
    printf("%-14s step %6.3f s against %6.3f s: %+5.1f %% (quartiles %+.1f, %+.1f)", m->name, c.seconds,
           c.seconds_without, 100 * (c.ratio - 1), 100 * (c.low - 1), 100 * (c.high - 1));
    if (m->limit > 0)
        printf(", at most %+.0f %%: %s", 100 * (m->limit - 1), c.ratio <= m->limit ? "holds" : "EXCEEDED");
    printf("\n%-14s parameters %.2fM against %.2fM, %.3f GFLOP/token against %.3f, activations %.0f MiB "
           "against %.0f\n",
           "", (double)x->figures.parameters / 1e6, (double)y->figures.parameters / 1e6,
           x->figures.flops_per_token / 1e9, y->figures.flops_per_token / 1e9,
           (double)x->memory.activations / 0x1p20, (double)y->memory.activations / 0x1p20);
    fflush(stdout);
    return OK;
}

/* ---- the two models */
static status configure(const bench_args *a, arena *arena, const char *settings, config **out)
{
    const char *word[MOST_OVERRIDES + MOST_WORDS + 8];
    i64 n = 0;
    word[n++] = arena_printf(arena, "model.preset=%s", a->preset);
    word[n++] = arena_printf(arena, "model.context=%lld", (long long)a->context);
    word[n++] = arena_printf(arena, "train.batch_tokens=%lld", (long long)(a->batch * a->context));
    word[n++] = arena_printf(arena, "train.micro_batch=%lld", (long long)a->batch);
    if (a->precision) word[n++] = arena_printf(arena, "train.precision=%s", a->precision);
    TRY(method_words(arena, settings, word, &n, n + MOST_WORDS));
    for (i64 i = 0; i < a->machine.n_overrides; i++) word[n++] = a->machine.overrides[i];
    return config_load(NULL, word, n, out);
}

static status side_open(const bench_args *a, arena *arena, const char *settings, device *d, isa level,
                        side *x)
{
    TRY(configure(a, arena, settings, &x->c));
    if (a->decode || a->prefill)
        return decoder_open(x->c, d, level, session_dtype(x->c, d), NULL,
                            a->context / 2 + a->pairs + WARM + 1, &x->d);
    return session_open(x->c, d, &(session_options){.isa = level}, &x->s);
}

static status one_method(const bench_args *a, const method_row *m, device *d, isa level)
{
    arena *arena;
    side *x;
    TRY(arena_open(&arena));
    status s = mem_alloc(2 * sizeof *x, "timings", &x);
    if (!s) {
        memset(x, 0, 2 * sizeof *x);
        s = side_open(a, arena, m->settings, d, level, &x[0]);
        if (!s) s = side_open(a, arena, a->against ? a->against : m->against, d, level, &x[1]);
        if (!s) s = x[0].d ? measure_reading(a, &x[0], &x[1]) : measure(a, &x[0], &x[1]);
        if (!s) s = tell(a, m, &x[0], &x[1]);
        for (int i = 0; i < 2; i++) {
            decoder_close(x[i].d);
            session_close(x[i].s);
            config_close(x[i].c);
        }
        mem_free(x);
    }
    arena_close(arena);
    return wrap(s, "%s", m->name);
}

static status chosen(const bench_args *a, const method_row **out, i64 *n)
{
    *n = 0;
    if (a->all || a->list) {
        *n = methods_all(out, MOST_METHODS);
        return OK;
    }
    if (!a->n_names) return fail(ERR_USAGE, "bench method: name a method, or --all; --list names them");
    for (i64 i = 0; i < a->n_names; i++) {
        out[*n] = method_find(a->name[i]);
        if (!out[(*n)++])
            return fail(ERR_USAGE, "bench method: no method '%s'; 'keel bench method --list' names them",
                        a->name[i]);
    }
    return OK;
}

status bench_method(int argc, char **argv)
{
    static const struct argp_child children[] = {{&machine_argp, 0, "Machine:", 5}, {0}};
    static const struct argp argp = {
        options,
        parse,
        "[METHOD...] [KEY=VALUE...]",
        "Times training steps with a method and without it, in interleaved pairs.",
        children,
        NULL,
        NULL};
    bench_args a = {.preset = "llama-135m", .batch = 2, .context = 1024, .pairs = 10};
    const method_row *row[MOST_METHODS];
    i64 n;
    device *d = NULL;
    isa level;
    TRY(cli_parse(&argp, argc, argv, &a));
    TRY(chosen(&a, row, &n));
    for (i64 i = 0; a.list && i < n; i++)
        printf("%-16s %-12s %s%s%s\n", row[i]->name, row[i]->slot, row[i]->settings,
               row[i]->against ? "  against " : "", row[i]->against ? row[i]->against : "");
    if (a.list) return OK;
    TRY(machine_open(&a.machine, &d, &level));
    status s = OK;
    for (i64 i = 0; i < n && !s; i++) s = one_method(&a, row[i], d, level);
    device_close(d);
    return s;
}

/* keel bench train: what a training step reaches of the machine's own matrix-product peak.
 *
 *     keel bench train --preset gpt2-124m --batch 2 --context 1024 --precision bf16 --steps 10 --json
 *
 * The step is the one `keel train` runs: loader (over generated shards), forward, backward, clipping, AdamW.
 * The machine's clock moves, so the peak (best of square 2048 and 4096 and the model's own shapes, chosen
 * once) is timed again before and after every step; a step's share is its rate over the mean of its two
 * probes. A step beside a probe below 60 % of the best is repeated: the machine was throttled, which says
 * nothing of Keel.
 */
#include "base/file.h"
#include "base/text.h"
#include "cli/cli.h"
#include "cli/machine.h"
#include "data/loader.h"
#include "device/peak.h"
#include "train/corpus.h"
#include "train/profile.h"
#include "train/run.h"
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    OPT_PRESET = 256,
    OPT_BATCH,
    OPT_CONTEXT,
    OPT_PRECISION,
    OPT_STEPS,
    OPT_JSON,
    OPT_PROFILE,
    OPT_NO_FUSE,
    WARM = 3
};

typedef struct bench_args {
    machine_args machine;
    const char *preset, *precision;
    i64 batch, context, steps;
    bool json, profile, no_fuse;
} bench_args;

static const struct argp_option options[] = {
    {"preset", OPT_PRESET, "NAME", 0, "A model preset (key=value arguments change it further)", 0},
    {"batch", OPT_BATCH, "B", 0, "Sequences a step (default: 2)", 0},
    {"context", OPT_CONTEXT, "T", 0, "Tokens a sequence (default: the preset's)", 0},
    {"precision", OPT_PRECISION, "f32|bf16", 0,
     "Storage of activations (default: bf16 where the machine has it)", 0},
    {"steps", OPT_STEPS, "N", 0, "Steps counted, after 3 to warm up (default: 10)", 0},
    {"profile", OPT_PROFILE, 0, 0, "Print time, GFLOP/s and GB/s of every op on standard error", 0},
    {"no-fuse", OPT_NO_FUSE, 0, 0, "Leave the graph without rewrites", 0},
    {"json", OPT_JSON, 0, 0, "Print one flat JSON object", 0},
    {0}};

static i64 whole(struct argp_state *state, const char *name, const char *arg)
{
    i64 x;
    if (!parse_i64(arg, &x) || x < 1 || x > 1 << 20)
        argp_error(state, "--%s=%s: expected a whole number from 1", name, arg);
    return x;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    bench_args *a = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        a->machine.takes_config = true;
        state->child_inputs[0] = &a->machine;
        return 0;
    case OPT_PRESET:
        a->preset = arg;
        return 0;
    case OPT_BATCH:
        a->batch = whole(state, "batch", arg);
        return 0;
    case OPT_CONTEXT:
        a->context = whole(state, "context", arg);
        return 0;
    case OPT_STEPS:
        a->steps = whole(state, "steps", arg);
        return 0;
    case OPT_PRECISION:
        a->precision = arg;
        return 0;
    case OPT_JSON:
        a->json = true;
        return 0;
    case OPT_PROFILE:
        a->profile = true;
        return 0;
    case OPT_NO_FUSE:
        a->no_fuse = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* ---- a data set out of nothing: two random bytes are a token */
typedef struct noise {
    i64 vocab;
    i32 *ids;
    i64 capacity;
} noise;
static status noise_save(void *context, const char *path)
{
    file_writer *w;
    (void)context;
    TRY(file_create(path, &w));
    TRY(file_printf(w, "{}\n"));
    return file_commit(w);
}
static status noise_open(void *context, void **encoder)
{
    noise *n;
    TRY(mem_alloc(sizeof *n, "generated tokens", &n));
    n->vocab = *(i64 *)context;
    *encoder = n;
    return OK;
}
static void noise_close(void *encoder)
{
    noise *n = encoder;
    mem_free(n->ids);
    mem_free(n);
}
static status noise_encode(void *encoder, const u8 *text, i64 bytes, const i32 **ids, i64 *n_ids)
{
    noise *n = encoder;
    i64 k = bytes / 2;
    if (k > n->capacity) {
        mem_free(n->ids);
        n->capacity = 0;
        TRY(mem_alloc((size_t)k * sizeof(i32), "generated tokens", &n->ids));
        n->capacity = k;
    }
    for (i64 i = 0; i < k; i++) n->ids[i] = (i32)(1 + (text[2 * i] * 256 + text[2 * i + 1]) % (n->vocab - 1));
    *ids = n->ids;
    *n_ids = k;
    return OK;
}

static status write_noise(const char *path, i64 bytes)
{
    file_writer *w;
    u32 x = 2463534242u;
    TRY(file_create(path, &w));
    for (i64 i = 0; i < bytes; i++) {
        x ^= x << 13, x ^= x >> 17, x ^= x << 5;
        char c = (char)('!' + x % 90);
        TRY(file_write(w, i % 4096 == 4095 ? "\n" : &c, 1));
    }
    return file_commit(w);
}

static status generate(const char *folder, i64 vocab, i64 tokens, dataset **out)
{
    char text_path[512], shards[512];
    const char *train = text_path;
    i32 *token_bytes;
    build_result r;
    if (vocab < 2)
        return fail(ERR_USAGE, "model.vocab is %lld; generated text needs at least 2", (long long)vocab);
    snprintf(text_path, sizeof text_path, "%s/noise.txt", folder);
    snprintf(shards, sizeof shards, "%s/shards", folder);
    TRY(mem_alloc((size_t)vocab * sizeof *token_bytes, "generated tokens", &token_bytes));
    for (i64 i = 1; i < vocab; i++) token_bytes[i] = 2;
    token_source t = {.context = &vocab,
                      .vocab = vocab,
                      .hash = 1,
                      .token_bytes = token_bytes,
                      .save = noise_save,
                      .open = noise_open,
                      .encode = noise_encode,
                      .close = noise_close};
    build_options o = {
        .train = &train, .train_count = 1, .validation = "0", .document = "file", .out = shards};
    status s = write_noise(text_path, 2 * tokens);
    if (!s) s = dataset_build(&o, &t, &r);
    if (!s) s = dataset_open(shards, out);
    mem_free(token_bytes);
    return s;
}

/* ---- measuring */
typedef struct sample {
    double seconds, before, after; // GFLOP/s of the probes
} sample;

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static double median(double *x, i64 n)
{
    qsort(x, (size_t)n, sizeof *x, ascending);
    return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

static status open_probe(const session *s, device *d, peak_probe **out, double *best)
{
    i64 rows = s->micro_rows * s->context, w = config_count(s->c, "model.width");
    const peak_shape shapes[] = {
        {rows, w, w}, {rows, 3 * w, w}, {rows, 4 * w, w}, {rows, w, 4 * w}, {2048, 1536, w}};
    fprintf(stderr, "measuring the machine's peak ...\n");
    return peak_probe_best(d, s->act == DT_BF16 ? GEMM_BF16 : GEMM_F32, shapes, COUNT(shapes), out, best);
}

static status measure(const bench_args *a, session *s, loader *l, batch *b, peak_probe *probe, double *best,
                      sample *samples, i64 *discarded)
{
    double before = peak_probe_time(probe), nats, norm;
    for (i64 k = -WARM, n = 0; n < a->steps; k++) {
        double start = clock_seconds();
        loader_next(l, b);
        step_batch step = {b->tokens, b->targets, b->doc_start, b->position, b->rows, b->n_valid};
        session_forward_backward(s, &step, k + WARM, &nats);
        session_update(s, k + WARM, 1e-4, 1e-4, &norm);
        sample now = {clock_seconds() - start, before, peak_probe_time(probe)};
        before = now.after;
        *best = fmax(*best, fmax(now.before, now.after));
        if (!isfinite(nats) || !isfinite(norm)) return fail(ERR_NUMERIC, "the step is not finite");
        if (k == -1 && a->profile) program_profile(s->train_program, true);
        if (k < 0) continue;
        if (fmin(now.before, now.after) < 0.6 * *best && *discarded < 5 * a->steps)
            ++*discarded;
        else
            samples[n++] = now;
    }
    return OK;
}

static void print_line(void *context, const char *line)
{
    (void)context;
    fprintf(stderr, "%s\n", line);
}

static status report(const bench_args *a, const session *s, const sample *samples, double best, i64 discarded)
{
    double rate[1024], share[1024], tokens = (double)(s->batch_rows * s->context);
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    for (i64 i = 0; i < a->steps; i++) {
        rate[i] = tokens / samples[i].seconds;
        share[i] = rate[i] * s->figures.flops_per_token / (1e9 * (samples[i].before + samples[i].after) / 2);
    }
    double tokens_per_s = median(rate, a->steps), middle = median(share, a->steps);
    if (a->profile) profile_tell(s->train_program, best, print_line, NULL);
    fprintf(stderr, "%.1f tokens/s (median of %lld steps), %.1f%% of peak (%.1f to %.1f), %lld discarded\n",
            tokens_per_s, (long long)a->steps, 100 * middle, 100 * share[0], 100 * share[a->steps - 1],
            (long long)discarded);
    json_t *j = json_pack(
        "{s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:I, s:s, s:I, s:s, s:I, s:I, s:s}", "tokens_per_s",
        tokens_per_s, "model_flops_per_token", s->figures.flops_per_token, "gemm_peak_gflops", best,
        "share_of_peak", middle, "share_min", share[0], "share_max", share[a->steps - 1], "peak_rss_bytes",
        (json_int_t)usage.ru_maxrss * 1024, "threads", (json_int_t)device_about(s->device)->threads, "isa",
        isa_name(s->options.isa), "samples_discarded", (json_int_t)discarded, "preset",
        a->preset ? a->preset : "none", "batch", (json_int_t)s->batch_rows, "context", (json_int_t)s->context,
        "precision", dtype_name(s->act));
    if (!j) return fail(ERR_MEMORY, "keel bench train: cannot build the JSON object");
    if (a->json) {
        json_dumpf(j, stdout, JSON_COMPACT | JSON_REAL_PRECISION(8));
        puts("");
    }
    json_decref(j);
    return OK;
}

static status with_data(const bench_args *a, session *s, device *d, const dataset *data)
{
    loader_options lo = loader_for(s->c, s->batch_rows, true);
    loader *l;
    batch b = {0};
    peak_probe *probe = NULL;
    double best = 0;
    i64 discarded = 0;
    sample samples[1024];
    double weights[CORPUS_SOURCES];
    TRY(corpus_weights(s->c, weights, &lo.weights));
    lo.weight = weights;
    TRY(loader_open(data, DATA_TRAIN, &lo, &l));
    status failed = batch_open(s->batch_rows, s->context, &b);
    if (!failed) failed = open_probe(s, d, &probe, &best);
    if (!failed) {
        session_start(s);
        failed = measure(a, s, l, &b, probe, &best, samples, &discarded);
    }
    if (!failed) failed = report(a, s, samples, best, discarded);
    peak_probe_close(probe);
    batch_close(&b);
    loader_close(l);
    return failed;
}

static status run(const bench_args *a, config *c, device *d, isa level)
{
    session *s;
    dataset *data;
    char folder[256];
    const char *tmp = getenv("TMPDIR");
    TRY(session_open(c, d, &(session_options){.isa = level, .no_fuse = a->no_fuse}, &s));
    snprintf(folder, sizeof folder, "%s/keel-bench-XXXXXX", tmp ? tmp : "/tmp");
    status failed =
        mkdtemp(folder) ? OK : fail(ERR_IO, "%s: cannot create a folder for generated data", folder);
    if (!failed) {
        failed = generate(folder, config_count(c, "model.vocab"),
                          MAX(1 << 20, 4 * s->batch_rows * s->context), &data);
        if (!failed) {
            failed = with_data(a, s, d, data);
            dataset_close(data);
        }
        status swept = tree_remove(folder);
        if (failed)
            status_drop(swept);
        else
            failed = swept;
    }
    session_close(s);
    return failed;
}

static status configure(bench_args *a, config **out)
{
    char set[4][128];
    const char *given[MOST_OVERRIDES + 5]; // preset, context, precision, batch, vocabulary
    i64 n = 0;
    config *first;
    if (a->preset) snprintf(set[0], sizeof set[0], "model.preset=%s", a->preset), given[n++] = set[0];
    if (a->context)
        snprintf(set[1], sizeof set[1], "model.context=%lld", (long long)a->context), given[n++] = set[1];
    if (a->precision)
        snprintf(set[2], sizeof set[2], "train.precision=%s", a->precision), given[n++] = set[2];
    for (i64 i = 0; i < a->machine.n_overrides; i++) given[n++] = a->machine.overrides[i];
    TRY(config_load(a->machine.config, given, n, &first)); // tells the preset's context
    snprintf(set[3], sizeof set[3], "train.batch_tokens=%lld",
             (long long)(a->batch * config_count(first, "model.context")));
    bool vocab = !config_is(first, "model.vocab", "auto");
    config_close(first);
    given[n++] = set[3];
    if (!vocab) given[n++] = "model.vocab=16384";
    return config_load(a->machine.config, given, n, out);
}

status bench_train(int argc, char **argv)
{
    static const struct argp_child children[] = {{&machine_argp, 0, "Machine:", 5}, {0}};
    static const struct argp argp = {
        options,
        parse,
        "[CONFIG] [KEY=VALUE...]",
        "Times training steps and states them as a share of the machine's own peak.",
        children,
        NULL,
        NULL};
    bench_args a = {.batch = 2, .steps = 10};
    config *c;
    device *d = NULL;
    isa level;
    TRY(cli_parse(&argp, argc, argv, &a));
    if (a.steps > 1024) return fail(ERR_USAGE, "--steps=%lld: at most 1024", (long long)a.steps);
    TRY(configure(&a, &c));
    status s = machine_open(&a.machine, &d, &level);
    if (!s) s = run(&a, c, d, level);
    device_close(d);
    config_close(c);
    return s;
}

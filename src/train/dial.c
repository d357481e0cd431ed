/* The dial: see dial.h. Laws (optimization spec 4.4, 4.5):
 *
 *   tokens   D = 20 N             Chinchilla's, with the constants refitted by Besiroglu et al.,
 * arXiv:2404.10102: N and D grow alike (a = 0.51), about 20 tokens a parameter compute  C = 6 N D lr, batch
 * Step Law, fitted for N from 2.1e8 to 1.1e9 and D from 4e9 to 1e11 width / layers = 40           Keel's own
 * choice: the loss is flat in it from 20 to 100 (Kaplan et al., arXiv:2001.08361)
 *
 * Small models lie far outside what the law was fitted on: it says so, and clamps. */
#include "train/dial.h"
#include "base/file.h"
#include "base/text.h"
#include "device/peak.h"
#include "train/session.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static const double SHARE_OF_PEAK = 0.6; // of what a step reaches, to turn time into compute
static const double TOKENS_A_PARAMETER = 20, LEAST_LR = 1e-4, MOST_LR = 1e-2;

double dial_lr(double inner, double tokens) { return 1.79 * pow(inner, -0.713) * pow(tokens, 0.307); }
double dial_batch(double tokens) { return 0.58 * pow(tokens, 0.571); }

dial_shape dial_shape_for(double size, i64 vocab)
{
    dial_shape best = {0};
    double least = INFINITY;
    for (i64 width = 64; width <= 8192; width += 64)
        for (i64 layers = 2; layers <= 96; layers++) {
            double d = (double)width, f = (double)round_up((8 * width + 2) / 3, 64);
            double inner = (double)layers * (4 * d * d + 3 * d * f), all = inner + (double)vocab * d;
            double off = fabs(log(all / size)) + 0.05 * fabs(log(d / (double)layers / 40));
            if (off >= least) continue;
            least = off;
            best = (dial_shape){layers, width, width / 64, all, inner};
        }
    return best;
}

typedef struct dial {
    config *c;
    device *d;
    void (*talk)(void *context, const char *line);
    void *context;
    double gflops; // of matrix products, measured
} dial;

static void say(const dial *x, const char *format, ...) PRINTF(2, 3);
static void say(const dial *x, const char *format, ...)
{
    char line[512];
    va_list args;
    if (!x->talk) return;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    x->talk(x->context, line);
}

/* Sets KEY unless somebody did, and says why. */
static status choose(const dial *x, const char *key, const char *value, const char *why)
{
    if (config_given(x->c, key)) {
        say(x, "dial: %s = %s (given; %s)", key, config_text(x->c, key), why);
        return OK;
    }
    TRY(config_set(x->c, key, value, "model.size"));
    say(x, "dial: %s = %s (%s)", key, value, why);
    return OK;
}
static status choose_count(const dial *x, const char *key, i64 value, const char *why)
{
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)value);
    return choose(x, key, text, why);
}

static status measure(dial *x)
{
    peak_probe *p;
    if (x->gflops > 0) return OK;
    TRY(peak_probe_open(x->d, session_dtype(x->c, x->d) == DT_BF16 ? GEMM_BF16 : GEMM_F32, &p));
    for (int k = 0; k < 5; k++) x->gflops = fmax(x->gflops, peak_probe_time(p));
    peak_probe_close(p);
    return OK;
}

/* Compute that the budget pays for, in flops; 0: the budget is no time and no compute. */
static status compute_of(dial *x, const budget *b, bool given, double *flops)
{
    *flops = 0;
    if (given && b->kind == BUDGET_FLOPS) *flops = b->value;
    if (!given || b->kind != BUDGET_TIME) return OK;
    TRY(measure(x));
    *flops = b->value * SHARE_OF_PEAK * x->gflops * 1e9;
    say(x, "dial: %.3g flops (%s at %.0f %% of the %.0f GFLOP/s measured now)", *flops,
        config_text(x->c, "train.time"), 100 * SHARE_OF_PEAK, x->gflops);
    return OK;
}

static status choose_shape(const dial *x, double size, i64 vocab, dial_shape *out)
{
    char why[160], n[32];
    *out = dial_shape_for(size, vocab);
    snprintf(why, sizeof why,
             "%s parameters with %lld words; width/layers near 40, where the loss is flat "
             "(arXiv:2001.08361)",
             show_count(out->parameters, n), (long long)vocab);
    TRY(choose_count(x, "model.layers", out->layers, why));
    TRY(choose_count(x, "model.width", out->width, why));
    return choose_count(x, "model.attention.heads", out->heads, "heads of 64");
}

static const char *range_note(double inner, double tokens, char out[200])
{
    bool inside = inner >= 2.1e8 && inner <= 1.1e9 && tokens >= 4e9 && tokens <= 1e11;
    char n[32], d[32];
    snprintf(out, 200,
             inside ? "inside the range it was fitted on"
                    : "fitted for 210 M to 1.1 G parameters and 4 G to 100 G tokens: %s and %s lie outside",
             show_count(inner, n), show_count(tokens, d));
    return out;
}

/* Sequences of a step: the batch's tokens, to a power of two. */
static i64 rows_for(double batch, i64 context)
{
    i64 rows = 1;
    while ((double)(2 * rows * context) <= batch * 1.42 && rows < 1 << 16) rows *= 2;
    return rows;
}

static status choose_rates(const dial *x, const dial_shape *shape, double tokens, i64 context)
{
    char why[360], note[200], value[32];
    double law = dial_lr(shape->inner, tokens), lr = fmin(MOST_LR, fmax(LEAST_LR, law));
    range_note(shape->inner, tokens, note);
    snprintf(value, sizeof value, "%.2g", lr);
    snprintf(why, sizeof why, "Step Law, arXiv:2503.04715: 1.79 N^-0.713 D^0.307 = %.2g%s; %s", law,
             lr != law ? ", clamped to 1e-4 .. 1e-2" : "", note);
    if (config_is(x->c, "train.transfer.kind", "mup") && !config_given(x->c, "train.optimizer.lr"))
        return config_refuse(
            x->c, "train.transfer.kind",
            "is mup, which carries the learning rate of base_width to this width, and model.size "
            "chooses one for this width by Step Law; set train.optimizer.lr");
    TRY(choose(x, "train.optimizer.lr", value, why));
    double batch = dial_batch(tokens);
    snprintf(why, sizeof why, "Step Law: 0.58 D^0.571 = %.3g tokens, to a power of two of sequences; %s",
             batch, note);
    return choose_count(x, "train.batch_tokens", rows_for(batch, context) * context, why);
}

static status tell_hours(dial *x, const dial_shape *shape, double tokens)
{
    char time[32];
    TRY(measure(x));
    double seconds = 6 * shape->parameters * tokens / (SHARE_OF_PEAK * x->gflops * 1e9);
    say(x, "dial: about %s here (6 N D = %.3g flops at %.0f %% of %.0f GFLOP/s)", show_seconds(seconds, time),
        6 * shape->parameters * tokens, 100 * SHARE_OF_PEAK, x->gflops);
    return OK;
}

static i64 vocabulary(const config *c)
{
    i64 known = config_count(c, "model.vocab");
    return known > 0 ? known : config_count(c, "data.vocab");
}

/* Tokens of N steps: of the batch given, or of the one that so many tokens ask for, D = n 0.58 D^0.571. */
static double tokens_of_steps(const dial *x, double n)
{
    i64 context = config_count(x->c, "model.context");
    if (config_given(x->c, "train.batch_tokens")) return n * config_number(x->c, "train.batch_tokens");
    return n * (double)(rows_for(dial_batch(pow(0.58 * n, 1 / (1 - 0.571))), context) * context);
}

/* Tokens of the run: what the budget says, or 20 a parameter. */
static status choose_tokens(const dial *x, const budget *b, bool given, double flops, const dial_shape *shape,
                            double *tokens)
{
    char why[96];
    *tokens = TOKENS_A_PARAMETER * shape->parameters;
    if (flops > 0) *tokens = flops / (6 * shape->parameters);
    if (given && b->kind == BUDGET_TOKENS) *tokens = b->value;
    if (given && b->kind == BUDGET_STEPS) *tokens = tokens_of_steps(x, b->value);
    if (given && b->kind == BUDGET_EPOCHS) {
        say(x,
            "dial: the rates are for %.3g tokens, 20 a parameter; how many train.epochs are is not known yet",
            *tokens);
        return OK;
    }
    if (given) {
        say(x, "dial: about %.3g tokens (the budget given; 20 a parameter were %.3g)", *tokens,
            TOKENS_A_PARAMETER * shape->parameters);
        return OK;
    }
    snprintf(why, sizeof why, "20 a parameter: Chinchilla refitted, arXiv:2404.10102");
    return choose_count(x, "train.tokens", (i64)*tokens, why);
}

status dial_recall(config *c, const char *folder)
{
    static const char *const keys[] = {"model.size",         "model.layers",
                                       "model.width",        "model.attention.heads",
                                       "train.optimizer.lr", "train.batch_tokens"};
    char path[4096];
    config *was;
    snprintf(path, sizeof path, "%s/config.yaml", folder);
    if (config_is(c, "model.size", "none") || !path_exists(path)) return OK;
    TRY(config_load(path, NULL, 0, &was));
    status s = OK;
    for (i64 k = 0; k < COUNT(keys) && !s; k++)
        if (k ? !config_given(c, keys[k]) : config_is(c, keys[k], "auto"))
            s = config_set(c, keys[k], config_text(was, keys[k]), "the run resumed");
    config_close(was);
    return s;
}

status dial_apply(config *c, device *d, void (*talk)(void *context, const char *line), void *context)
{
    dial x = {.c = c, .d = d, .talk = talk, .context = context};
    budget b = {0};
    dial_shape shape;
    double flops, tokens, size;
    if (config_is(c, "model.size", "none")) return OK;
    bool given = config_budget_given(c), automatic = config_is(c, "model.size", "auto");
    if (given) TRY(config_budget(c, &b));
    TRY(compute_of(&x, &b, given, &flops));
    if (automatic && !(flops > 0))
        return config_refuse(c, "model.size",
                             "is auto, which needs a budget of compute: train.time or train.flops");
    size = automatic ? sqrt(flops / (6 * TOKENS_A_PARAMETER)) : config_number(c, "model.size");
    if (size < 1e5 || size > 1e11)
        return config_refuse(c, "model.size", "is %.3g parameters; it must be from 1e5 to 1e11%s", size,
                             automatic ? " (what the budget pays for)" : "");
    if (automatic)
        say(&x, "dial: %.3g parameters (sqrt(C/120): the size at which C pays for 20 tokens a parameter)",
            size);
    TRY(choose_shape(&x, size, vocabulary(c), &shape));
    if (automatic) { // the resolved file must not choose again
        char number[32];
        snprintf(number, sizeof number, "%.0f", size);
        TRY(config_set(c, "model.size", number, "model.size auto"));
    }
    if (fabs(log(shape.parameters / size)) > 0.3)
        return config_refuse(
            c, "model.size",
            "is %.3g parameters, but %lld words alone take most of that: the nearest shape has "
            "%.3g; set a smaller data.vocab",
            size, (long long)vocabulary(c), shape.parameters);
    TRY(choose_tokens(&x, &b, given, flops, &shape, &tokens));
    TRY(choose_rates(&x, &shape, tokens, config_count(c, "model.context")));
    return tell_hours(&x, &shape, tokens);
}

/* keel train: a configuration and text become a trained model.
 *
 *     keel train configs/llama-10m.yaml data.train=corpus/ train.time="4 min" --out runs/a
 *     keel train configs/llama-10m.yaml data.train=corpus/ train.time="4 min" --out runs/a --resume
 */
#include "base/text.h"
#include "cli/cli.h"
#include "cli/machine.h"
#include "cli/terminal.h"
#include "train/corpus.h"
#include "train/dial.h"
#include "train/trainer.h"
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct train_args {
    machine_args machine;
    train_options options;
    bool json;
    int width, line; // of the terminal (0: none), of the progress line that stands there
} train_args;

enum { OPT_JSON = 256, OPT_PROFILE, OPT_NO_FUSE };
static const struct argp_option options[] = {
    {"out", 'o', "DIR", 0, "The run's folder (default: runs/NAME of the configuration)", 0},
    {"resume", 'r', 0, 0, "Go on from the newest sound checkpoint in DIR; start afresh where there is none",
     0},
    {"name", 'n', "NAME", 0, "The run's name in the registry (default: the folder's)", 0},
    {"profile", OPT_PROFILE, 0, 0, "At the end, print time, GFLOP/s and GB/s of every op", 0},
    {"no-fuse", OPT_NO_FUSE, 0, 0, "Leave the graph without rewrites", 0},
    {"json", OPT_JSON, 0, 0, "Print the result as one JSON object", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    train_args *a = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        a->machine.takes_config = true;
        state->child_inputs[0] = &a->machine;
        return 0;
    case 'o':
        a->options.out = arg;
        return 0;
    case 'r':
        a->options.resume = true;
        return 0;
    case 'n':
        a->options.name = arg;
        return 0;
    case OPT_PROFILE:
        a->options.profile = true;
        return 0;
    case OPT_NO_FUSE:
        a->options.no_fuse = true;
        return 0;
    case OPT_JSON:
        a->json = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* ---- the progress line: rewritten in place with spaces and a carriage return alone (no colours, no escape
 * codes), cut to the terminal's width, and not there at all where stderr is no terminal. */

static void clear_line(train_args *a)
{
    if (a->line) fprintf(stderr, "\r%*s\r", a->line, "");
    a->line = 0;
}

static void talk(void *context, const char *line)
{
    clear_line(context);
    fprintf(stderr, "%s\n", line);
}

static void show_progress(void *context, const train_progress *p)
{
    train_args *a = context;
    char line[256], rate[32], left[32], share[32] = "";
    if (isfinite(p->share_of_peak)) snprintf(share, sizeof share, " | %.0f%% peak", 100 * p->share_of_peak);
    // Fits 80 columns; the validation loss has lines of its own.
    if (p->timing)
        snprintf(line, sizeof line, "step %lld of at most %lld", (long long)p->step, (long long)p->steps);
    else
        snprintf(line, sizeof line, "%lld/%lld loss %.3f | %.3f bits/byte | %s tokens/s%s | %s left",
                 (long long)p->step, (long long)p->steps, p->loss, p->bits_per_byte,
                 show_count(p->tokens_per_s, rate), share, show_seconds(p->seconds_left, left));
    int n = MIN((int)strlen(line), a->width - 1);
    fprintf(stderr, "\r%.*s%*s", n, line, MAX(0, a->line - n), "");
    fflush(stderr);
    a->line = n;
}

static status print_result(const train_args *a, const train_result *r)
{
    char seconds[32], tokens[32];
    if (a->json) {
        json_t *j =
            json_pack("{s:s, s:s, s:I, s:I, s:f}", "run", r->id, "folder", a->options.out, "step",
                      (json_int_t)r->step, "tokens_seen", (json_int_t)r->tokens_seen, "seconds", r->seconds);
        if (j && isfinite(r->loss)) {
            json_object_set_new(j, "val_loss", json_real(r->loss));
            json_object_set_new(j, "val_bits_per_byte", json_real(r->bits_per_byte));
        }
        return cli_print_json(j);
    }
    fprintf(stderr, "done: %lld steps, %s tokens in %s", (long long)r->step,
            show_count((double)r->tokens_seen, tokens), show_seconds(r->seconds, seconds));
    if (isfinite(r->loss))
        fprintf(stderr, "; validation loss %.4f, perplexity %.2f, %.4f bits per byte", r->loss, r->perplexity,
                r->bits_per_byte);
    fprintf(stderr, "\nrun %s in %s\n", r->id, a->options.out);
    return OK;
}

/* runs/NAME: the configuration's file name without its ending; runs/run where it has none (standard input).
 */
static const char *default_folder(const char *config_path, char out[256])
{
    const char *slash = config_path ? strrchr(config_path, '/') : NULL;
    const char *base = slash ? slash + 1 : config_path ? config_path : "-";
    int n = (int)strcspn(base, ".");
    snprintf(out, 256, "runs/%.*s", n && *base != '-' ? n : 3, n && *base != '-' ? base : "run");
    return out;
}

static status run(train_args *a, config *c, device *d)
{
    dataset *data;
    train_result r;
    TRY(train_folder_check(a->options.out, a->options.resume)); // before data are prepared in it
    if (a->options.resume) TRY(dial_recall(c, a->options.out));
    TRY(dial_apply(c, d, talk, a));
    TRY(corpus_open(c, &(corpus_options){a->options.out, a->options.stop, talk, a}, &data));
    a->options.device = d;
    status s = train_run(c, data, &a->options, &r);
    clear_line(a);
    dataset_close(data);
    return s ? s : print_result(a, &r);
}

status verb_train(int argc, char **argv)
{
    static const struct argp_child children[] = {{&machine_argp, 0, "Machine:", 5}, {0}};
    static const struct argp argp = {
        options,
        parse,
        "[CONFIG] [KEY=VALUE...]",
        "Trains a language model. CONFIG is a YAML file; 'keel config explain' lists the keys."
        "\vSIGINT, SIGTERM and SIGUSR1 save the state and leave; --resume goes on.",
        children,
        NULL,
        NULL};
    char folder[256];
    train_args a = {.width = terminal_width()};
    config *c;
    device *d = NULL;
    TRY(cli_parse(&argp, argc, argv, &a));
    a.options.talk = talk;
    a.options.progress = a.width ? show_progress : NULL;
    a.options.context = &a;
    a.options.stop = stop_on_signals();
    if (!a.options.out) a.options.out = default_folder(a.machine.config, folder);
    TRY(machine_config(&a.machine, &c));
    status s = machine_open(&a.machine, &d, &a.options.isa);
    if (!s) s = run(&a, c, d);
    device_close(d);
    config_close(c);
    return s;
}

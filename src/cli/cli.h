/* cli: the command line. One file a verb; this header is all they share.
 *
 * A verb is `status verb_NAME(int argc, char **argv)`; argv[0] is "keel NAME". It parses with argp, does its
 * work through the library, prints data to stdout and talk to stderr, and returns. main.c alone turns a
 * status into a message and an exit code: 0 done, 1 failed, 2 usage, 3 diverged, 75 queue again, 128+n on a
 * signal. */
#pragma once
#include "base/base.h"
#include <jansson.h>

#define VERBS(VERB)                                                                                          \
    VERB(train, "turn text and a configuration into a trained model")                                        \
    VERB(generate, "go on with a text")                                                                      \
    VERB(eval, "measure a trained model")                                                                    \
    VERB(tokenizer, "train, inspect and use byte-level BPE tokenizers")                                      \
    VERB(data, "build and inspect shards of tokens")                                                         \
    VERB(config, "explain configuration keys, print a resolved configuration")                               \
    VERB(runs, "list, show, compare, export and report runs")                                                \
    VERB(board, "show the report of runs in a browser, live")                                                \
    VERB(plan, "say what a run will need")                                                                   \
    VERB(graph, "print the graph of a training step")                                                        \
    VERB(bench, "measure the machine's peaks and a training step's share of them")                           \
    VERB(doctor, "say what this machine gives, and what stands in the way")                                  \
    VERB(lab, "try methods together")                                                                        \
    VERB(fit, "fit a scaling law to a table of runs")                                                        \
    VERB(convert, "turn LayerNorms of a trained model into RMSNorms, exactly")                               \
    VERB(dump, "write down logits, loss and gradients on given tokens")                                      \
    VERB(import, "make a run of a folder of Hugging Face's or a GGUF file")                                  \
    VERB(export, "write a trained model as a folder of Hugging Face's or a GGUF file")                       \
    VERB(op, "list, check, time and evaluate operations")                                                    \
    VERB(help, "explain a verb, or print its manual page")                                                   \
    VERB(completion, "print what makes a shell complete keel's command lines")
/* What is true of every verb, for `keel --help` and the manual pages. */
#define OPTIONS(OPTION)                                                                                      \
    OPTION("--help", "Say what there is; behind a verb: explain it")                                         \
    OPTION("--version", "Print the version: the release and a digest of the sources")                        \
    OPTION("--color=WHEN", "Before a verb: colours always, never, or on a terminal (auto)")
#define EXITS(EXIT)                                                                                          \
    EXIT("0", "done")                                                                                        \
    EXIT("1", "failed; the last line on standard error says why")                                            \
    EXIT("2", "wrong usage: nothing was done")                                                               \
    EXIT("3", "diverged: the loss or a gradient was not finite")                                             \
    EXIT("75", "stopped by SIGUSR1, state saved: run again with --resume")                                   \
    EXIT("128+n", "stopped by another signal n; a training run is saved")
#define VARIABLES(VARIABLE)                                                                                  \
    VARIABLE("KEEL_OPTION", "like --option: KEEL_THREADS=2, KEEL_NO_FUSE=1; arguments win")                  \
    VARIABLE("KEEL_REGISTRY", "the registry of runs, a file")                                                \
    VARIABLE("OMP_NUM_THREADS", "at most so many threads; never more than CPUs are granted")                 \
    VARIABLE("NO_COLOR", "no colours; TERM=dumb: nor lines that show progress")                              \
    VARIABLE("XDG_DATA_HOME", "where keel/runs.db lies (default: ~/.local/share)")                           \
    VARIABLE("TMPDIR", "where data live that are removed again (default: /tmp)")
#define VERB(name, help) status verb_##name(int argc, char **argv);
VERBS(VERB)
#undef VERB

/* What main does with {"keel", VERB, ...}; fails instead of exiting. */
status cli_run(int argc, char **argv) MUST;

/* Prints O, which is taken, on one line. ERR_INPUT where it is NULL: json_pack refuses text that is not valid
 * UTF-8, as paths may be. */
status cli_print_json(json_t *o) MUST;
/* A line of news on standard error; what the library takes as `talk`, with any context. */
void cli_talk(void *context, const char *line);
struct argp;

/* argp_parse with Keel's manners (parse.c): usage errors exit with 2, KEEL_OPTION stands for --option. */
status cli_parse(const struct argp *argp, int argc, char **argv, void *input) MUST;
/* The mark with which describe.c asks: called with {"keel VERB", cli_describe, (char *)&argp}, cli_parse
 * copies the table and fails. It is known by its address, so nothing typed can be it. */
extern char cli_describe[];

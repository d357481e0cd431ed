/* cli: the command line. One file a verb; this header is all they share.
 *
 * A verb is `status verb_NAME(int argc, char **argv)`; argv[0] is "keel NAME". It parses with argp, does its
 * work through the library, prints data to stdout and talk to stderr, and returns. main.c alone turns a
 * status into a message and an exit code: 0 done, 1 failed, 2 usage, 3 diverged, 128+n on a signal. */
#pragma once
#include "base/base.h"

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
    VERB(doctor, "say what this machine gives to training, and what stands in the way")                      \
    VERB(lab, "try methods together")                                                                        \
    VERB(convert, "turn LayerNorms of a trained model into RMSNorms, exactly")                               \
    VERB(dump, "write down logits, loss and gradients on given tokens")                                      \
    VERB(import, "make a run of a folder of Hugging Face's")                                                 \
    VERB(export, "write a trained model as a folder of Hugging Face's")                                      \
    VERB(op, "list, check, time and evaluate operations")
#define VERB(name, help) status verb_##name(int argc, char **argv);
VERBS(VERB)
#undef VERB

typedef struct argp argp_t;
/* argp_parse with Keel's manners: usage errors exit with 2, options after arguments allowed. */
status cli_parse(const struct argp *argp, int argc, char **argv, void *input) MUST;

/* keel: language models as a library: build or open one, train it, score text with it, generate.
 *
 *     keel_model *m = keel_new(NULL);
 *     if (keel_open(m, "runs/a") || keel_generate(m, "Once", 4, &options, NULL))
 *         fprintf(stderr, "%s\n", keel_message(m));
 *     keel_free(m);
 *
 * Errors. Every call that can fail returns a keel_status, 0 for success, and leaves it with a message in one
 * line in the handle. What fails changes nothing, unless its own text says so: the handle can be used on. The
 * library never ends the process, prints nothing and installs no signal handler.
 *
 * Threads. A handle is used by one thread at a time, any thread; different handles in different threads at
 * once are fine. A call on a handle that is in a call already (another thread's, or its own callback's) is
 * refused with KEEL_ERROR_USAGE and leaves no message. Calls do their work with OpenMP's threads and must not
 * be made inside a parallel region; the program's own number of threads and its locale are left, and found by
 * callbacks, as they were. Callbacks are called by the thread that made the call.
 *
 * Memory. Strings and arrays given to a call are borrowed for that call; what a call hands out through a
 * pointer to a pointer belongs to the caller, who returns it with keel_release. Options start from {0}, where
 * 0 is every option's default; a pointer to options or to a result may be NULL. Texts are bytes with a
 * length, UTF-8 or not; they need no zero at the end and may hold some. */
#ifndef KEEL_KEEL_H
#define KEEL_KEEL_H
#include <keel/version.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#if defined __GNUC__
#define KEEL_API __attribute__((visibility("default")))
#else
#define KEEL_API
#endif

/* ---- version and status */

typedef enum keel_status {
    KEEL_OK = 0,
    KEEL_ERROR_USAGE,   /* a call out of order, or with an argument out of range */
    KEEL_ERROR_CONFIG,  /* a value of the configuration */
    KEEL_ERROR_INPUT,   /* a text, token or data set */
    KEEL_ERROR_FORMAT,  /* a damaged or foreign file */
    KEEL_ERROR_IO,      /* the operating system refused: no such file, disk full */
    KEEL_ERROR_MEMORY,  /* an allocation failed, or what is asked for does not fit into this machine */
    KEEL_ERROR_NUMERIC, /* NaN, infinity, divergence */
    KEEL_STOPPED,       /* a callback asked to stop; the state is saved where there was one */
    KEEL_ERROR_CHECK    /* a check of itself failed */
} keel_status;

/* The version of the library that runs: "0.1.0". KEEL_VERSION is the one a program was built with. */
KEEL_API const char *keel_version(void);
/* The same as a number: major * 10000 + minor * 100 + patch. */
KEEL_API int keel_version_number(void);
/* A status in a word: "ok", "usage", "config", "input", "format", "io", "memory", "numeric", "stopped",
 * "check"; "unknown" for a number that is none. */
KEEL_API const char *keel_status_name(keel_status status);

/* ---- a handle */

/* A model, or the place for one: what is configured or opened, its weights, the threads it computes with. */
typedef struct keel_model keel_model;

typedef struct keel_machine {
    const char *isa; /* kernels for "plain", "v3" or "v4"; NULL: the best this machine has */
    int threads;     /* 0: OMP_NUM_THREADS, else the processors we may use (affinity, cgroup) */
} keel_machine;

/* A new handle without a model; MACHINE (NULL allowed) is copied, and looked at by the first call that
 * computes. NULL when memory is out; every other call takes such a NULL and answers KEEL_ERROR_USAGE. */
KEEL_API keel_model *keel_new(const keel_machine *machine);
/* Releases M and all it holds; NULL allowed. Not from a callback of M's. */
KEEL_API void keel_free(keel_model *m);
/* What the last call on M returned. */
KEEL_API keel_status keel_last_status(const keel_model *m);
/* The message of the last call on M: what, where, the value, the remedy; "" after a success. Valid until the
 * next call on M. */
KEEL_API const char *keel_message(const keel_model *m);
/* Returns memory that a call handed out; NULL allowed. */
KEEL_API void keel_release(void *memory);

/* ---- a model */

/* M becomes the model that the BYTES of configuration at YAML and the N settings "key=value" (which count
 * more) describe, with initial weights by train.seed.init. What was in M before is released. `keel config
 * explain` lists the keys. Shapes are checked by the first call that needs them. KEEL_ERROR_CONFIG names
 * line, key, value and remedy; KEEL_ERROR_USAGE: a setting without '='. */
KEEL_API keel_status keel_configure(keel_model *m, const char *yaml, size_t bytes,
                                    const char *const *settings, size_t n);
/* The same of the file PATH. KEEL_ERROR_IO when it cannot be read. */
KEEL_API keel_status keel_configure_file(keel_model *m, const char *path, const char *const *settings,
                                         size_t n);
/* M becomes the trained model in PATH: a run's folder (its newest whole checkpoint) or one step_N; with
 * "@average" behind it: its averaged weights. All checksums are verified. What was in M before is released.
 * KEEL_ERROR_INPUT: no such folder, or no checkpoint in it; KEEL_ERROR_FORMAT names what is damaged. */
KEEL_API keel_status keel_open(keel_model *m, const char *path);

typedef struct keel_facts {
    int64_t vocab, context, layers, width; /* vocab: ids are below it */
    int64_t parameters;
    int64_t batch_rows;     /* the most rows that a keel_step takes */
    int64_t training_bytes; /* of memory that training takes */
    int64_t step;           /* steps trained */
    int32_t end;            /* the token that ends a text; -1: none, or no tokenizer */
    int threads;
    char isa[8];
} keel_facts;
/* What M is. KEEL_ERROR_CONFIG: a shape that cannot be built; model.vocab is auto and no tokenizer says it.
 */
KEEL_API keel_status keel_about(keel_model *m, keel_facts *out);
/* The value that M's configuration has for KEY ("model.width" -> "256"), given or default, as the file would
 * say it; the caller's. KEEL_ERROR_USAGE: no such key. */
KEEL_API keel_status keel_value(keel_model *m, const char *key, char **value);
/* Writes M as a checkpoint, FOLDER/step_N, that keel_open and the command line read: weights, the optimizer's
 * moments, configuration, tokenizer. FOLDER is made if need be. The checkpoint is written beside its final
 * name and renamed when it is on the disk. KEEL_ERROR_IO; KEEL_ERROR_NUMERIC: a weight is NaN or infinite. */
KEEL_API keel_status keel_save(keel_model *m, const char *folder);

/* ---- tokens. The tokenizer is the opened model's, or the file that data.tokenizer names. */

/* The COUNT tokens of the text; special tokens in it are text like any other. KEEL_ERROR_USAGE: no tokenizer.
 */
KEEL_API keel_status keel_tokenize(keel_model *m, const char *text, size_t bytes, int32_t **ids,
                                   size_t *count);
/* The text of N tokens, with a zero behind it that BYTES does not count. KEEL_ERROR_INPUT: an id without a
 * token. */
KEEL_API keel_status keel_detokenize(keel_model *m, const int32_t *ids, size_t n, char **text, size_t *bytes);

/* ---- training */

typedef struct keel_progress {
    int64_t step, steps;      /* steps done, and of the run */
    int64_t tokens;           /* seen so far */
    double loss;              /* nats a token, of the step just done */
    double bits_per_byte;     /* the same, a byte of text */
    double validation;        /* bits per byte at the last evaluation; NaN before the first */
    double lr, gradient_norm; /* the norm before clipping */
    double tokens_per_second, seconds_left;
    int timing; /* not 0: a step timed to fix the length of a run given as time; only step and steps are set
                 */
} keel_progress;

typedef struct keel_train_options {
    const char *folder; /* the run's folder; must be given */
    const char *name;   /* of the run; NULL: the folder's last part */
    int resume;         /* not 0: go on from the newest whole checkpoint in the folder, if there is one */
    int registry;       /* not 0: enter the run into the user's registry (`keel runs list`) */
    int (*step)(void *context, const keel_progress *progress); /* after every step; not 0: save and stop */
    int (*line)(void *context, const char *line); /* a line of news without a newline; not 0: the same */
    void *context;
} keel_train_options;

typedef struct keel_train_result {
    int64_t step, tokens;
    double seconds;
    double loss, bits_per_byte; /* of the validation data at the end; NaN without */
} keel_train_result;

/* Trains M as configured (not a model that was opened; from initial weights, whatever keel_step made of them)
 * on data.train into a folder: what `keel train` does, to the same bits for the same configuration, machine
 * and number of threads. Tokenizer and shards are made on the way where the configuration asks for it.
 * Afterwards M is the trained model, opened from the folder; so it is after KEEL_STOPPED (the state is saved;
 * train again with resume), and after other failures M is what it was. KEEL_ERROR_NUMERIC: diverged, the last
 * good checkpoint stands; KEEL_ERROR_INPUT: the folder holds a run and resume is 0. RESULT says how far it
 * came in every case. One process, and one handle, a folder at a time. */
KEEL_API keel_status keel_train(keel_model *m, const keel_train_options *options, keel_train_result *result);

typedef struct keel_rows {
    int64_t rows;            /* from 1 to batch_rows of keel_about */
    const int32_t *tokens;   /* [rows, context] */
    const int32_t *targets;  /* [rows, context]: what follows each token; -1: no loss here */
    const int32_t *document; /* [rows, context]: place in the row at which the token's document begins:
                                attention sees no further back; NULL: every row is one document */
    double lr; /* learning rate; 0: train.schedule's, for a run of train.steps or train.tokens */
} keel_rows;

typedef struct keel_step_result {
    int64_t step;         /* steps trained, this one included */
    double loss;          /* nats a target, before the step */
    double gradient_norm; /* before clipping */
    double lr;
} keel_step_result;

/* One step of training on rows of the caller's, in memory: nothing is written until keel_save. The first call
 * takes the memory for training. An opened model goes on with its own optimizer's state where the checkpoint
 * has one. KEEL_ERROR_CONFIG: lr is 0 and the configuration gives no length; KEEL_ERROR_USAGE: the schedule
 * is over; KEEL_ERROR_INPUT names the token out of range; KEEL_ERROR_NUMERIC: loss or gradient is not finite,
 * and the weights are what they were. */
KEEL_API keel_status keel_step(keel_model *m, const keel_rows *rows, keel_step_result *result);

/* ---- evaluating */

typedef struct keel_score {
    int64_t tokens, bytes; /* scored; bytes of text that they stand for */
    double nats;           /* -log of the probability of all of them */
    double loss;           /* nats a token */
    double perplexity;     /* e^loss */
    double bits_per_byte;
} keel_score;

typedef struct keel_score_options {
    int64_t context; /* tokens of a window; 0: model.context */
    int64_t stride;  /* tokens that every window but the first scores; 0: context. Less is slower, and every
                        token sees at least context - stride before it */
} keel_score_options;

/* How likely M finds the text, which follows the end of another, by strided windows (as `keel eval perplexity
 * --text`). KEEL_ERROR_INPUT: an empty text, windows beyond the model's context. */
KEEL_API keel_status keel_score_text(keel_model *m, const char *text, size_t bytes,
                                     const keel_score_options *options, keel_score *out);
/* NATS of the last TARGETS of N tokens, given those before them: 1 <= targets < n <= context + 1. The result
 * does not depend on what was scored before, to the bit. */
KEEL_API keel_status keel_score_tokens(keel_model *m, const int32_t *ids, size_t n, size_t targets,
                                       double *nats);
/* The loss on the validation split of the shards in the folder DATA (NULL: of the data that the opened run
 * was trained on), over at most TOKENS tokens (0: all). KEEL_ERROR_INPUT: no shards, or of another tokenizer;
 * KEEL_ERROR_USAGE: TOKENS is below 0. */
KEEL_API keel_status keel_evaluate(keel_model *m, const char *data, int64_t tokens, keel_score *out);

/* ---- generating */

typedef struct keel_token {
    int32_t id;
    const char
        *text; /* its bytes; a character may begin in one token and end in the next. NULL: no tokenizer */
    size_t bytes;
    int64_t index; /* 0 for the first generated */
} keel_token;

typedef struct keel_generate_options {
    int64_t max_tokens; /* 0: 100 */
    double temperature; /* divides the logits, up to 100; 0: the likeliest token */
    int64_t top_k;      /* only the k likeliest; 0: all */
    double top_p;       /* only the likeliest that hold p of the probability; 0: all */
    double min_p;       /* only those at least p times as likely as the likeliest; 0: all */
    uint64_t seed;      /* of the draws: equal seeds, equal texts */
    int (*token)(void *context, const keel_token *token); /* every token as it comes; not 0: stop */
    void *context;
} keel_generate_options;

typedef enum keel_finish {
    KEEL_FINISH_LENGTH,  /* max_tokens */
    KEEL_FINISH_END,     /* the model ended the text */
    KEEL_FINISH_CONTEXT, /* model.context is full */
    KEEL_FINISH_CALLBACK /* the callback asked to stop */
} keel_finish;

typedef struct keel_generated {
    int64_t prompt_tokens, tokens;
    keel_finish finish;
} keel_generated;

/* Goes on with the text at PROMPT, which follows the end of another; the token that ends a text is not handed
 * out. Draws as `keel generate` does. KEEL_ERROR_INPUT: a prompt longer than model.context; KEEL_ERROR_USAGE:
 * an option out of range, no tokenizer. */
KEEL_API keel_status keel_generate(keel_model *m, const char *prompt, size_t bytes,
                                   const keel_generate_options *options, keel_generated *result);
/* The same behind N tokens (1 or more), to which nothing is added. */
KEEL_API keel_status keel_generate_tokens(keel_model *m, const int32_t *ids, size_t n,
                                          const keel_generate_options *options, keel_generated *result);

#ifdef __cplusplus
}
#endif
#endif

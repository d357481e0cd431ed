/* handle: what the files of the library share: a handle, entering and leaving a call, and what calls need.
 *
 *     keel_status keel_score_tokens(keel_model *m, ...)
 *     {
 *         if (!handle_enter(m)) return KEEL_ERROR_USAGE;
 *         return handle_leave(m, score_tokens(m, ...));      // a status becomes the handle's
 *     }
 *
 * A handle holds at most one of each engine: a session (training), a decoder (generating), a scorer. Each has
 * the weights in a store of its own, made when first needed. The session's are the ones that change: after a
 * step decoder and scorer are stale, and take its weights before they are used again. */
#pragma once
#include "base/text.h"
#include "eval/score.h"
#include "infer/decoder.h"
#include "infer/model_files.h"
#include "train/session.h"
#include <keel/keel.h>
#include <locale.h>
#include <signal.h>

typedef enum model_source { MODEL_NONE, MODEL_CONFIGURED, MODEL_OPENED } model_source;

typedef struct model_engine { // what is made when first needed
    decoder *decoder;
    scorer *scorer;
    session *session;
    schedule schedule; // of the session's steps, where the configuration has a length
    i64 steps;         // of that schedule; 0: none
    i64 step;          // done
    i64 tokens_seen;
    bool decoder_stale, scorer_stale;
} model_engine;

struct keel_model {
    int busy;            // a call is under way; by atomic exchange
    int threads_outside; // OpenMP's number for the thread that calls, to be given back
    locale_t locale;     // C: a number is written with a point, whatever the program's language
    locale_t locale_outside;
    status failed;        // of the last call, owned
    keel_machine machine; // isa points into isa_name
    char isa_name[8];
    bool isa_unknown; // too long a name to be one
    device *device;   // NULL until a call computes
    isa isa;
    model_source source;
    char *name, *yaml; // CONFIGURED: what messages call the text, and the text; owned
    size_t yaml_bytes;
    char **settings;
    i64 n_settings;
    config *config;       // of the model; OPENED: files.config
    model_files files;    // OPENED
    tokenizer *tokenizer; // OPENED: files.tokenizer; CONFIGURED: owned, NULL until needed
    model_engine engine;
    volatile sig_atomic_t stop; // set by callbacks of this thread only
};

/* False: no handle, or one that is in a call already; nothing is left then. */
bool handle_enter(keel_model *m);
/* Takes S over as what the call returned. */
keel_status handle_leave(keel_model *m, status s);

/* Around a callback: it finds the number of threads and the language of its own program. */
void handle_outside(keel_model *m);
void handle_inside(keel_model *m);

/* Each makes what is missing, once. */
status need_device(keel_model *m) MUST;
status need_config(keel_model *m) MUST;    // ERR_USAGE: nothing was configured or opened
status need_model(keel_model *m) MUST;     // that, a device, and a vocabulary
status need_tokenizer(keel_model *m) MUST; // ERR_USAGE: there is none
status need_session(keel_model *m) MUST;
/* The weights M stands for now into TO, a store of another engine. */
status copy_weights(keel_model *m, store *to) MUST;
/* Closes the engines. */
void engine_close(model_engine *e);
/* M becomes the checkpoint in PATH; on failure it stays what it was. */
status open_files(keel_model *m, const char *path) MUST;
/* Another configuration like the one M was given; what calls resolve in it leaves M's alone. */
status configured_again(const keel_model *m, config **out) MUST;
/* The tokens of a text behind LIST; the text goes on behind the end of another where the tokenizer has one.
 */
status tokens_of(keel_model *m, const char *text, size_t bytes, token_list *list) MUST;

/* Scoring texts, tokens and data sets. See handle.h and keel/keel.h. */
#include "eval/windows.h"
#include "library/handle.h"
#include "train/corpus.h"
#include "train/trainer.h"
#include <math.h>
#include <stdio.h>

enum { WINDOWS_TOGETHER = 64 };

static status need_scorer(keel_model *m)
{
    model_engine *e = &m->engine;
    scorer *s = e->scorer;
    TRY(need_model(m));
    if (!s) TRY(scorer_open(m->config, &(scorer_options){.device = m->device, .isa = m->isa}, &s));
    if (e->scorer && !e->scorer_stale) return OK;
    status failed = copy_weights(m, scorer_store(s));
    if (failed && !e->scorer) scorer_close(s);
    if (failed) return failed;
    e->scorer = s, e->scorer_stale = false;
    return OK;
}

static keel_score score_of(i64 tokens, i64 bytes, double nats)
{
    double loss = nats / (double)tokens;
    return (keel_score){tokens, bytes, nats, loss, exp(loss), bytes ? nats / log(2) / (double)bytes : NAN};
}

static status score_text(keel_model *m, const char *text, size_t bytes, const keel_score_options *o,
                         keel_score *out)
{
    window_rule rule;
    text_loss x;
    if (!out || (!text && bytes)) return fail(ERR_USAGE, "no text, or no place for its score");
    TRY(need_tokenizer(m));
    TRY(need_scorer(m));
    rule.context = o && o->context ? o->context : scorer_context(m->engine.scorer);
    rule.stride = o && o->stride ? o->stride : rule.context;
    TRY(text_evaluate(m->engine.scorer, m->tokenizer, text ? text : "", bytes, &rule, WINDOWS_TOGETHER, &x));
    *out = score_of(x.tokens, x.bytes, x.nats);
    return OK;
}

keel_status keel_score_text(keel_model *m, const char *text, size_t bytes, const keel_score_options *options,
                            keel_score *out)
{
    if (!handle_enter(m)) return KEEL_ERROR_USAGE;
    return handle_leave(m, score_text(m, text, bytes, options, out));
}

static status score_tokens(keel_model *m, const int32_t *ids, size_t n, size_t targets, double *nats)
{
    score x;
    if (!ids || !nats || n > INT32_MAX || targets > INT32_MAX)
        return fail(ERR_USAGE, "no tokens, too many, or no place for their score");
    TRY(need_scorer(m));
    TRY(scorer_run(m->engine.scorer, &(score_request){ids, (i64)n, (i64)targets}, 1, &x));
    *nats = x.nats;
    return OK;
}

keel_status keel_score_tokens(keel_model *m, const int32_t *ids, size_t n, size_t targets, double *nats)
{
    if (!handle_enter(m)) return KEEL_ERROR_USAGE;
    return handle_leave(m, score_tokens(m, ids, n, targets, nats));
}

/* ---- a data set */

static status measure(keel_model *m, const dataset *d, i64 tokens, evaluation *e)
{
    session *s = m->engine.session, *own = NULL;
    if (dataset_vocab(d) > config_count(m->config, "model.vocab"))
        return fail(ERR_INPUT, "%s: its tokenizer has %lld tokens, the model %lld", dataset_folder(d),
                    (long long)dataset_vocab(d), (long long)config_count(m->config, "model.vocab"));
    if (!s)
        TRY(session_open(m->config, m->device, &(session_options){.isa = m->isa, .no_update = true}, &own));
    status failed = own ? copy_weights(m, own->store) : OK;
    if (!failed) failed = train_evaluate(own ? own : s, d, DATA_VALIDATION, tokens, NULL, e);
    session_close(own);
    return failed;
}

static status open_data(keel_model *m, const char *folder, dataset **out)
{
    char cache[4096];
    if (folder) return dataset_open(folder, out);
    if (m->source != MODEL_OPENED)
        return fail(ERR_USAGE, "no data: name a folder of shards ('keel data build' makes one)");
    snprintf(cache, sizeof cache, "%s/..", m->files.folder);
    return corpus_open(m->config, &(corpus_options){.cache = cache}, out);
}

static status evaluate(keel_model *m, const char *folder, i64 tokens, keel_score *out)
{
    dataset *d;
    evaluation e;
    if (!out) return fail(ERR_USAGE, "no place for the score");
    if (tokens < 0) return fail(ERR_USAGE, "%lld tokens; give a number, or 0 for all", (long long)tokens);
    TRY(need_model(m));
    TRY(open_data(m, folder, &d));
    status s = m->tokenizer ? dataset_check_tokenizer(d, tokenizer_hash(m->tokenizer), "the model") : OK;
    if (!s) s = measure(m, d, tokens, &e);
    if (!s && !e.tokens)
        s = fail(ERR_INPUT, "%s: its validation split holds no sample of %lld tokens", dataset_folder(d),
                 (long long)config_count(m->config, "model.context"));
    if (!s && !isfinite(e.nats)) s = fail(ERR_NUMERIC, "the loss is not finite; the weights have diverged");
    if (!s) *out = score_of(e.tokens, e.bytes, e.nats);
    dataset_close(d);
    return s;
}

keel_status keel_evaluate(keel_model *m, const char *data, int64_t tokens, keel_score *out)
{
    if (!handle_enter(m)) return KEEL_ERROR_USAGE;
    return handle_leave(m, evaluate(m, data, tokens, out));
}

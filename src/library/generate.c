/* Generating, token by token. See handle.h and keel/keel.h. */
#include "infer/sampler.h"
#include "library/handle.h"

enum { USUAL_TOKENS = 100 };

static status need_decoder(keel_model *m)
{
    model_engine *e = &m->engine;
    decoder *d = e->decoder;
    TRY(need_model(m));
    if (!d)
        TRY(decoder_open(m->config, m->device, m->isa, session_dtype(m->config, m->device), NULL,
                         config_count(m->config, "model.context"), &d));
    if (e->decoder && !e->decoder_stale) return OK;
    status s = copy_weights(m, decoder_store(d));
    if (s && !e->decoder) decoder_close(d);
    if (s) return s;
    e->decoder = d, e->decoder_stale = false;
    return OK;
}

typedef struct run {
    const keel_generate_options *o;
    sampler sampler;
    scored *scratch;
    i64 most;
} run;

/* True: the callback asked to stop. */
static bool hand_out(keel_model *m, const run *r, i32 id, i64 index)
{
    token_bytes b = m->tokenizer ? tokenizer_decode(m->tokenizer, id) : (token_bytes){0};
    if (!r->o->token) return false;
    handle_outside(m);
    bool stop = r->o->token(r->o->context, &(keel_token){id, b.data, b.bytes, index});
    handle_inside(m);
    return stop;
}

static status generate(keel_model *m, const run *r, const float *logits, keel_generated *out)
{
    decoder *d = m->engine.decoder;
    const i32 end = m->tokenizer ? tokenizer_end(m->tokenizer) : -1;
    out->finish = KEEL_FINISH_LENGTH;
    while (out->tokens < r->most) {
        i32 id = sampler_draw(&r->sampler, logits, decoder_vocab(d), decoder_length(d), r->scratch);
        if (id == end) return out->finish = KEEL_FINISH_END, OK;
        if (hand_out(m, r, id, out->tokens++)) return out->finish = KEEL_FINISH_CALLBACK, OK;
        if (decoder_length(d) == decoder_capacity(d)) return out->finish = KEEL_FINISH_CONTEXT, OK;
        TRY(decoder_feed(d, &id, 1, &logits));
    }
    return OK;
}

static status begin(const keel_generate_options *o, run *r)
{
    *r = (run){.o = o, .most = o->max_tokens ? o->max_tokens : USUAL_TOKENS};
    r->sampler = (sampler){.temperature = o->temperature,
                           .top_k = o->top_k,
                           .top_p = o->top_p,
                           .min_p = o->min_p,
                           .seed = o->seed};
    if (r->most < 1) return fail(ERR_USAGE, "max_tokens is %lld; it must be at least 1", (long long)r->most);
    return sampler_check(&r->sampler);
}

/* Behind the N tokens, of which FIRST stand before the prompt. */
static status answer(keel_model *m, const i32 *ids, i64 n, i64 first, const keel_generate_options *o,
                     keel_generated *out)
{
    static const keel_generate_options usual;
    const float *logits;
    run r;
    out->prompt_tokens = n - first;
    TRY(begin(o ? o : &usual, &r));
    TRY(need_decoder(m));
    decoder *d = m->engine.decoder;
    if (!n) return fail(ERR_INPUT, "nothing to begin with: no token, and no end of text to stand for it");
    if (n > decoder_capacity(d))
        return fail(ERR_INPUT,
                    "the prompt has %lld tokens, the model's context room for %lld; shorten the prompt",
                    (long long)(n - first), (long long)(decoder_capacity(d) - first));
    TRY(mem_alloc(sizeof *r.scratch * (size_t)decoder_vocab(d), "sampler", &r.scratch));
    decoder_reset(d);
    // The token before the prompt is fed alone, as `keel generate` does: the same chunks, the same bits.
    status s = first ? decoder_feed(d, ids, first, &logits) : OK;
    if (!s && n > first) s = decoder_feed(d, ids + first, n - first, &logits);
    if (!s) s = generate(m, &r, logits, out);
    mem_free(r.scratch);
    return s;
}

static status answer_text(keel_model *m, const char *prompt, size_t bytes, const keel_generate_options *o,
                          keel_generated *out)
{
    token_list list = {0};
    status s = tokens_of(m, prompt, bytes, &list);
    if (!s) s = answer(m, list.id, list.count, tokenizer_end(m->tokenizer) >= 0, o, out);
    token_list_free(&list);
    return s;
}

keel_status keel_generate(keel_model *m, const char *prompt, size_t bytes,
                          const keel_generate_options *options, keel_generated *result)
{
    keel_generated r = {0};
    if (!handle_enter(m)) return KEEL_ERROR_USAGE;
    status s = answer_text(m, prompt, bytes, options, &r);
    if (result) *result = r;
    return handle_leave(m, s);
}

static status answer_tokens(keel_model *m, const int32_t *ids, size_t n, const keel_generate_options *o,
                            keel_generated *out)
{
    if (!ids && n) return fail(ERR_USAGE, "%zu tokens at NULL", n);
    if (n > INT32_MAX) return fail(ERR_USAGE, "%zu tokens are too many", n);
    return answer(m, ids, (i64)n, 0, o, out);
}

keel_status keel_generate_tokens(keel_model *m, const int32_t *ids, size_t n,
                                 const keel_generate_options *options, keel_generated *result)
{
    keel_generated r = {0};
    if (!handle_enter(m)) return KEEL_ERROR_USAGE;
    status s = answer_tokens(m, ids, n, options, &r);
    if (result) *result = r;
    return handle_leave(m, s);
}

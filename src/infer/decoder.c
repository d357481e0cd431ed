/* Decoding with caches: see decoder.h. */
#include "infer/decoder.h"
#include "base/text.h"
#include "graph/program.h"
#include "model/model.h"
#include "train/save.h"
#include "train/session.h"
#include <math.h>
#include <string.h>

enum { CHUNK = 64, FEW = 4 }; // tokens of a chunk; so many are read one by one

typedef struct reader { // a program that feeds WIDTH tokens at a time
    model m;
    program *p;
    i64 width;
} reader;

struct decoder {
    arena *arena;
    const config *c;
    store *store;
    reader one, chunk;
    reader silent; // a chunk of a prompt for the caches alone: neither logits nor copies of tokens
    i64 length, capacity, vocab;
};

static status build(decoder *d, reader *r, i64 width, dtype act, bool originals)
{
    model_shape shape = {.rows = 1,
                         .tokens = width,
                         .mode = MODE_DECODE,
                         .act = act,
                         .stream = config_is(d->c, "train.stream", "bf16") ? act : DT_F32,
                         .capacity = d->capacity,
                         .originals = originals,
                         .no_loss = true};
    i64 rewrites;
    r->width = width;
    TRY(model_build(d->arena, d->c, &shape, &r->m));
    TRY(graph_rewrite(r->m.g, &rewrites));
    return graph_verify(r->m.g);
}

/* Before the memory is taken: weights and caches beyond it would end the process, not the call. */
static status fits(const decoder *d)
{
    store *plan;
    char need[32], there[32];
    store_plan(d->arena, d->one.m.g, 0, &plan);
    double bytes = (double)(plan->bytes_params + plan->bytes_states), have = session_memory_there();
    if (bytes <= have) return OK;
    return fail(ERR_MEMORY, "the model and its caches need %s of memory, this machine has %s",
                show_bytes(bytes, need), show_bytes(have, there));
}

static status open_parts(decoder *d, device *dev, isa level, dtype act, const char *weights)
{
    program_options o = {.device = dev, .isa = level};
    i64 reach = model_copies_reach(d->c); // a prompt's tokens whose copies are computed: never more
    TRY(build(d, &d->one, 1, act, false));
    TRY(build(d, &d->chunk, reach ? MIN(CHUNK, MAX(reach, 2 * FEW)) : CHUNK, act, false));
    TRY(build(d, &d->silent, CHUNK, act, true));
    TRY(fits(d));
    TRY(store_open(d->arena, d->one.m.g, 0, &d->store));
    TRY(program_open(d->one.m.g, d->store, &o, &d->one.p));
    TRY(program_open(d->chunk.m.g, d->store, &o, &d->chunk.p));
    TRY(program_open(d->silent.m.g, d->store, &o, &d->silent.p));
    return weights ? load_weights(d->store, weights) : OK;
}

status decoder_open(const config *c, device *dev, isa level, dtype act, const char *weights, i64 capacity,
                    decoder **out)
{
    arena *a;
    i64 context = config_count(c, "model.context");
    if (capacity < 1 || capacity > INT32_MAX)
        return fail(ERR_INPUT, "room for %lld tokens; it must be from 1 to %d", (long long)capacity,
                    INT32_MAX);
    if (capacity > context && config_is(c, "model.position.kind", "learned"))
        return fail(ERR_INPUT,
                    "room for %lld tokens, but the model has learned positions for %lld (model.context) only",
                    (long long)capacity, (long long)context);
    TRY(arena_open(&a));
    decoder *d = arena_new(a, decoder);
    *d = (decoder){.arena = a, .c = c, .capacity = capacity, .vocab = config_count(c, "model.vocab")};
    status s = open_parts(d, dev, level, act, weights);
    if (s)
        decoder_close(d);
    else
        *out = d;
    return s;
}

void decoder_close(decoder *d)
{
    if (!d) return;
    program_close(d->one.p);
    program_close(d->chunk.p);
    program_close(d->silent.p);
    store_close(d->store);
    graph_close(d->one.m.g);
    graph_close(d->chunk.m.g);
    if (d->silent.m.g) graph_close(d->silent.m.g);
    arena_close(d->arena);
}

/* Feeds N <= width tokens; the places behind them hold token 0, which no real token sees and the next call
 * overwrites in the caches. */
static void feed(decoder *d, reader *r, const i32 *ids, i64 n)
{
    step_info step = {0};
    i32 *tokens = program_data(r->p, r->m.tokens), *position = program_data(r->p, r->m.position);
    memset(tokens, 0, (size_t)r->width * sizeof *tokens);
    memcpy(tokens, ids, (size_t)n * sizeof *tokens);
    i64 last = config_count(d->c, "model.context") - 1;
    for (i64 i = 0; i < r->width; i++) position[i] = (i32)(i < n ? d->length + i : MIN(d->length + i, last));
    *(i32 *)program_data(r->p, r->m.past) = (i32)d->length;
    if (r->m.fresh) *(i32 *)program_data(r->p, r->m.fresh) = (i32)n;
    program_run(r->p, &step, PHASE_FORWARD);
    program_commit(r->p, &step);
    d->length += n;
}

/* Feeds the first of N tokens that only the caches need: no logits, and copies of which nothing later depends
 * on. Returns how many. */
static i64 feed_silent(decoder *d, const i32 *ids, i64 n)
{
    i64 from = model_copied_from(d->c, d->length + n), fed = 0;
    i64 silent = model_copies_reach(d->c) ? from - d->length : (n - 1) / CHUNK * CHUNK;
    if (silent <= FEW) return 0;
    while (fed < silent) {
        i64 now = MIN(silent - fed, d->silent.width);
        feed(d, &d->silent, ids + fed, now);
        fed += now;
    }
    return fed;
}

status decoder_feed(decoder *d, const i32 *ids, i64 n, const float **logits)
{
    if (n < 1 || n > d->capacity - d->length)
        return fail(ERR_INPUT, "%lld tokens do not fit behind %lld of %lld", (long long)n,
                    (long long)d->length, (long long)d->capacity);
    for (i64 i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= d->vocab)
            return fail(ERR_INPUT, "token %d is beyond the model's vocabulary of %lld", ids[i],
                        (long long)d->vocab);
    i64 fed = feed_silent(d, ids, n);
    while (fed < n) {
        reader *r = n - fed > FEW ? &d->chunk : &d->one;
        i64 now = MIN(n - fed, r->width);
        feed(d, r, ids + fed, now);
        fed += now;
        *logits = (const float *)program_data(r->p, r->m.logits) + (now - 1) * d->vocab;
    }
    for (i64 i = 0; i < d->vocab; i++)
        if (!isfinite((*logits)[i]))
            return fail(ERR_NUMERIC, "the model's output is not finite; the weights have diverged");
    return OK;
}

void decoder_reset(decoder *d) { d->length = 0; }
i64 decoder_length(const decoder *d) { return d->length; }
i64 decoder_capacity(const decoder *d) { return d->capacity; }
i64 decoder_vocab(const decoder *d) { return d->vocab; }
i64 decoder_cache_bytes(const decoder *d) { return d->store->bytes_states; }
store *decoder_store(decoder *d) { return d->store; }

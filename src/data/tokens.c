/* A tokenizer seen as the builder's source of tokens: see tokens.h. */
#include "data/tokens.h"
#include <string.h>

typedef struct context {
    const tokenizer *t;
    special_mode mode;
    i32 *bytes; // [vocab]
    i32 ends[2];
} context;

typedef struct thread_encoder {
    encoder *e;
    special_mode mode;
    token_list ids;
} thread_encoder;

static status save(void *p, const char *path) { return tokenizer_save(((context *)p)->t, path); }

static status open_encoder(void *p, void **out)
{
    const context *c = p;
    thread_encoder *e;
    TRY(mem_alloc(sizeof *e, "encoder", &e));
    e->mode = c->mode;
    status s = encoder_open(c->t, &e->e);
    if (s)
        mem_free(e);
    else
        *out = e;
    return s;
}

static status encode(void *p, const u8 *text, i64 bytes, const i32 **ids, i64 *count)
{
    thread_encoder *e = p;
    e->ids.count = 0;
    TRY(encoder_run(e->e, (const char *)text, (size_t)bytes, e->mode, &e->ids));
    *ids = e->ids.id, *count = e->ids.count;
    return OK;
}

static void close_encoder(void *p)
{
    thread_encoder *e = p;
    if (!e) return;
    encoder_close(e->e);
    token_list_free(&e->ids);
    mem_free(e);
}

status token_source_open(const tokenizer *t, const char *name, special_mode mode, token_source *out)
{
    const i32 eos = tokenizer_end(t);
    if (eos < 0)
        return fail(ERR_INPUT,
                    "%s: it has no end of text (" TOKENIZER_ENDS "); documents "
                    "need one: add it to added_tokens",
                    name);
    const i64 vocab = tokenizer_vocab(t);
    context *c;
    TRY(mem_alloc(sizeof *c, "token source", &c));
    status s = mem_alloc((size_t)vocab * sizeof(i32), "lengths of tokens", &c->bytes);
    if (s) return mem_free(c), s;
    c->t = t, c->mode = mode;
    for (i64 i = 0; i < vocab; i++) c->bytes[i] = i == eos ? 0 : (i32)tokenizer_decode(t, (i32)i).bytes;
    // llm.c puts Llama 3's beginning of text between documents, and other tokenizers' end.
    const i32 begin = tokenizer_special(t, "<|begin_of_text|>");
    c->ends[0] = eos, c->ends[1] = begin;
    *out = (token_source){c,      vocab,         eos,     tokenizer_hash(t), c->bytes, save, open_encoder,
                          encode, close_encoder, c->ends, begin >= 0 ? 2 : 1};
    return OK;
}

void token_source_close(token_source *s)
{
    context *c = s->context;
    if (c) mem_free(c->bytes);
    mem_free(c);
    *s = (token_source){0};
}

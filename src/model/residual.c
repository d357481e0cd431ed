/* residual: the wiring of the stream. A filling owns the joint: open(site) gives the branch its input,
 * close(site) takes the branch's output; the block knows nothing else of streams.
 *
 *   add    open: u = Ns(x), the branch reads Np(u);  close: x = Nq(u + No(y))
 */
#include "model/build.h"

const config_key residual_keys[] = {
    {"model.residual.kind", KEY_CHOICE, "add", "add", .help = "how a branch joins the stream"},
    {0},
};

typedef struct residual_kind {
    const char *name;
    void (*start)(model_builder *b, residual *r, tensor *embedding);
    tensor *(*open)(model_builder *b, residual *r, branch which);
    void (*close)(model_builder *b, residual *r, branch which, tensor *y);
    tensor *(*end)(model_builder *b, residual *r);
} residual_kind;

/* ---- add */
static void add_start(model_builder *b, residual *r, tensor *embedding)
{
    (void)b;
    r->stream = embedding;
}
static tensor *add_open(model_builder *b, residual *r, branch which)
{
    r->stream = norm_around(b, which, NORM_STREAM, r->stream);
    return norm_around(b, which, NORM_PRE, r->stream);
}
static void add_close(model_builder *b, residual *r, branch which, tensor *y)
{
    y = norm_around(b, which, NORM_OUT, y);
    r->stream = g_out(g_node(b->g, OP_joint, IN(r->stream, y), NO_ATTRS), 0);
    r->stream = norm_around(b, which, NORM_POST, r->stream);
}
static tensor *add_end(model_builder *b, residual *r)
{
    (void)b;
    return r->stream;
}

static const residual_kind kinds[] = {
    {"add", add_start, add_open, add_close, add_end},
};

void residual_start(model_builder *b, residual *r, tensor *embedding)
{
    *r = (residual){.kind = &kinds[of_choice(b, "model.residual.kind")]};
    r->kind->start(b, r, embedding);
}
tensor *residual_open(model_builder *b, residual *r, branch which)
{
    r->site++;
    tensor *x = r->kind->open(b, r, which);
    if (b->g->failed || x->dtype == b->shape->act) return x; // a stream in f32 that no norm has rounded
    return g_out(g_node(b->g, OP_cast, IN(x), WITH({"to", b->shape->act})), 0);
}
void residual_close(model_builder *b, residual *r, branch which, tensor *y)
{
    r->kind->close(b, r, which, y);
    r->stream->boundary = which == BRANCH_FFN; // what `recompute: block` keeps
}
tensor *residual_end(model_builder *b, residual *r) { return r->kind->end(b, r); }

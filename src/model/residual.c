/* residual: the wiring of the stream. A filling owns the joint: open(site) gives the branch its input,
 * close(site) takes the branch's output; the block knows nothing else of streams.
 *
 *   add    open: u = Ns(x), the branch reads Np(u);  close: x = Nq(a u + c No(y))
 *   frac   open: u = Ns(x), the branch reads Np(Y^T u);  close: x = Nq(B No(y) + A^T u), over m fractions of
 * the width (ops/frac.c). Ns and Nq norm the whole row, before the fractions are read and after they are
 * joined again: a post norm is the next branch's stream norm, so both have a meaning.
 *
 * Add and frac share the form of the stream, so layers may differ in kind (model.override).
 */
#include "model/build.h"
#include "model/methods.h"
#include <math.h>

const config_key residual_keys[] = {
    {"model.residual.kind", KEY_CHOICE, "add", "add frac",
     .help = "how a branch joins the stream: added; frac: fractions of the stream, read and carried on "
             "through small "
             "learned matrices",
     .source = "frac: Frac-Connections, arXiv:2503.14125"},
    {"model.residual.streams", KEY_COUNT, "4", .min = 1, .max = 16, .unit = "fractions",
     .help = "fractions of the width; divides model.width", .source = "arXiv:2503.14125",
     .only = "model.residual.kind=frac"},
    {"model.residual.dynamic", KEY_BOOL, "true",
     .help = "the matrices depend on the token, not only on the layer", .source = "arXiv:2503.14125",
     .only = "model.residual.kind=frac"},
    {"model.residual.skip_scale", KEY_NUMBER, "1", "deepnorm convex", .max = 1e6,
     .help =
         "factor of the stream where a branch is added: deepnorm: (2 layers)^(1/4); convex: 1 - 1/(2 layers)",
     .source = "deepnorm: arXiv:2203.00555; convex: arXiv:2507.13338", .only = "model.residual.kind=add"},
    {"model.residual.branch_scale", KEY_NUMBER, "1", "convex", .max = 1e6,
     .help = "factor of the branch: convex: 1/(2 layers)", .source = "arXiv:2507.13338",
     .only = "model.residual.kind=add"},
    {0},
};

const method_row residual_methods[] = {
    {"frac", "residual", .common = true, .settings = "model.residual.kind=frac model.residual.streams=4",
     .limit = 1.07},
    {"frac_static", "residual",
     .settings = "model.residual.kind=frac model.residual.streams=4 model.residual.dynamic=false"},
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
/* The factors of stream and branch. */
static double scale_of(const model_builder *b, const char *key, double convex)
{
    double branches = 2 * (double)b->layers;
    if (of_is(b, key, "deepnorm")) return pow(branches, 0.25);
    return of_is(b, key, "convex") ? convex : of_number(b, key);
}
static void add_close(model_builder *b, residual *r, branch which, tensor *y)
{
    double share = 1 / (2 * (double)b->layers);
    y = norm_around(b, which, NORM_OUT, y);
    r->stream = g_out(g_node(b->g, OP_joint, IN(r->stream, y),
                             WITH({"a", scale_of(b, "model.residual.skip_scale", 1 - share)},
                                  {"c", scale_of(b, "model.residual.branch_scale", share)})),
                      0);
    r->stream = norm_around(b, which, NORM_POST, r->stream);
}
static tensor *add_end(model_builder *b, residual *r)
{
    (void)b;
    return r->stream;
}

/* ---- frac: starts as add, to the bit (read = carry = I, beta = 1, weight = 0). Weight decay, as in the
 * paper: of the dynamic weight only. */
static tensor *connection(model_builder *b, const char *name, i64 rows, i64 n, param_info info)
{
    info.f32 = true;
    return g_param(b->g, g_path(b->g, name), rows ? 2 : 1, rows ? (i64[]){rows, n} : &n, &info);
}

static tensor *frac_open(model_builder *b, residual *r, branch which)
{
    i64 m = of_count(b, "model.residual.streams"), n = b->width / m;
    tensor *weight = NULL, *scale = NULL, *gain = NULL;
    if (b->width % m) {
        refuse(b, "model.residual.streams",
               "is %lld; h = (H_1, .., H_m) cuts model.width (%lld) in m equal fractions, so "
               "it must divide it",
               (long long)m, (long long)b->width);
        return r->stream;
    }
    tensor *h = norm_around(b, which, NORM_STREAM, r->stream);
    const char *scope = g_push(b->g, "residual");
    param_info identity = {.kind = PARAM_VECTOR, .eye = m}, projection = {.kind = PARAM_MATRIX};
    tensor *read = connection(b, "read", m, m, identity), *carry = connection(b, "carry", m, m, identity);
    tensor *beta = connection(b, "beta", 0, m, (param_info){.kind = PARAM_VECTOR, .constant = 1});
    bool dynamic = of_flag(b, "model.residual.dynamic");
    if (dynamic) {
        weight = connection(b, "weight", 2 * m + 1, n, projection);
        scale = connection(b, "scale", 0, 2,
                           (param_info){.kind = PARAM_VECTOR, .constant = 0.01}); // the paper's start
        gain = connection(b, "gain", 0, n, init_gain());
    }
    node *open = g_node(b->g, OP_frac_open, IN(h, read, carry, dynamic ? beta : NULL, weight, scale, gain),
                        WITH({"eps", of_number(b, "model.norm.eps")}));
    g_pop(b->g, scope);
    r->stream = g_out(open, 1);
    r->own[0] = dynamic ? g_out(open, 2) : beta;
    return norm_around(b, which, NORM_PRE, g_out(open, 0));
}

static void frac_close(model_builder *b, residual *r, branch which, tensor *y)
{
    y = norm_around(b, which, NORM_OUT, y);
    r->stream = g_out(g_node(b->g, OP_frac_close, IN(r->stream, y, r->own[0]), NO_ATTRS), 0);
    r->stream = norm_around(b, which, NORM_POST, r->stream);
}

static const residual_kind kinds[] = {
    {"add", add_start, add_open, add_close, add_end},
    {"frac", add_start, frac_open, frac_close, add_end},
};

void residual_start(model_builder *b, residual *r, tensor *embedding)
{
    *r = (residual){.kind = &kinds[of_choice(b, "model.residual.kind")]};
    r->kind->start(b, r, embedding);
}
tensor *residual_open(model_builder *b, residual *r, branch which)
{
    r->site++;
    r->kind = &kinds[of_choice(b, "model.residual.kind")]; // of this layer
    tensor *x = r->kind->open(b, r, which);
    if (b->g->failed || x->dtype == b->shape->act) return x; // a stream in f32 that no norm has rounded
    return g_out(g_node(b->g, OP_cast, IN(x), WITH({"to", b->shape->act})), 0);
}
void residual_close(model_builder *b, residual *r, branch which, tensor *y)
{
    r->kind->close(b, r, which, y);
    r->stream->boundary = which == BRANCH_FFN; // what `recompute: block` keeps
}
void residual_add(model_builder *b, residual *r, tensor *y)
{
    bool boundary = r->stream->boundary;
    r->stream->boundary = false;
    r->stream = g_out(g_node(b->g, OP_joint, IN(r->stream, y), NO_ATTRS), 0);
    if (!b->g->failed) r->stream->boundary = boundary;
}
tensor *residual_end(model_builder *b, residual *r) { return r->kind->end(b, r); }

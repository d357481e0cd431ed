/* residual: the wiring of the stream. A filling owns the joint: open(site) gives the branch its input,
 * close(site) takes the branch's output; the block knows nothing else of streams.
 *
 *   add    open: u = Ns(x), the branch reads Np(u);  close: x = Nq(a u + c No(y))
 *   hyper  open: the branch reads Np(A_m^T H);  close: H = B No(y) + A_r^T H, over n streams of the model's
 *          width, which start as copies of the embedding and are added up at the end (ops/hyper.c)
 *   frac   open: u = Ns(x), the branch reads Np(Y^T u);  close: x = Nq(B No(y) + A^T u), over m fractions of
 *          the width (ops/hyper.c). Ns and Nq norm the whole row, before the fractions are read and after
 * they are joined again: a post norm is the next branch's stream norm, so both have a meaning.
 *
 * Add and frac share the form of the stream, so layers may differ in kind (model.override); hyper carries n
 * rows a token through all layers, on which no norm acts.
 */
#include "model/build.h"
#include "model/methods.h"
#include <math.h>

#define HYPER_SOURCE "hyper: Hyper-Connections, arXiv:2409.19606; frac: Frac-Connections, arXiv:2503.14125"
const config_key residual_keys[] = {
    {"model.residual.kind", KEY_CHOICE, "add", "add frac hyper",
     .help =
         "how a branch joins the stream: added; hyper: several streams, read, joined and carried on through "
         "small learned matrices; frac: the same with fractions of one stream",
     .source = HYPER_SOURCE},
    {"model.residual.streams", KEY_COUNT, "4", .min = 1, .max = 16, .unit = "streams or fractions",
     .help = "hyper: streams, each as wide as the model; frac: fractions of the width, which they divide",
     .source = HYPER_SOURCE, .only = "model.residual.kind=frac hyper"},
    {"model.residual.dynamic", KEY_BOOL, "true",
     .help = "the matrices depend on the token, not only on the layer", .source = HYPER_SOURCE,
     .only = "model.residual.kind=frac hyper"},
    {"model.residual.out_init_exponent", KEY_NUMBER, "0.5", .min = 0, .max = 4,
     .help = "e: the initial deviation of the maps back to the streams (attention's output, the "
             "feed-forward's) is divided by streams^e; 0: at first the function of residual.kind add",
     .source = "Hyper-Connections, arXiv:2409.19606, which gives no direction; read as a divisor",
     .only = "model.residual.kind=hyper"},
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
    {"hyper", "residual", .common = true, .settings = "model.residual.kind=hyper model.residual.streams=4",
     .limit = 1.15},
    {"hyper_static", "residual",
     .settings = "model.residual.kind=hyper model.residual.streams=4 model.residual.dynamic=false"},
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
    double share = 1 / (2 * (double)b->layers), c = scale_of(b, "model.residual.branch_scale", share);
    y = norm_around(b, which, NORM_OUT, y);
    r->stream = g_out(g_node(b->g, OP_joint, IN(r->stream, y),
                             WITH({"a", scale_of(b, "model.residual.skip_scale", 1 - share)},
                                  {"c", c * transfer_depth(b)})),
                      0);
    r->stream = norm_around(b, which, NORM_POST, r->stream);
}
static tensor *add_end(model_builder *b, residual *r)
{
    (void)b;
    return r->stream;
}

/* ---- hyper and frac: start as add, to the bit (carry = I, beta = 1, read one-hot or I, weight = 0). Weight
 * decay, as in the papers: of the dynamic weight only. */
static tensor *connection(model_builder *b, const char *name, i64 rows, i64 n, param_info info)
{
    info.f32 = true;
    return g_param(b->g, g_path(b->g, name), rows ? 2 : 1, rows ? (i64[]){rows, n} : &n, &info);
}

typedef struct joint_shape {
    i64 m, q, n;  // streams of n values, of which a branch reads q mixtures
    bool centred; // the norm of a stream subtracts its mean
    bool gain;    // and has a gain
    i64 first;    // the stream that the first mixture reads at the start
} joint_shape;

/* Opens the branch under way over H; what the branch reads, before its norm. */
static tensor *open_streams(model_builder *b, residual *r, joint_shape s, tensor *h)
{
    tensor *weight = NULL, *scale = NULL, *gain = NULL;
    const char *scope = g_push(b->g, "residual");
    param_info identity = {.kind = PARAM_VECTOR, .eye = s.m}, projection = {.kind = PARAM_MATRIX};
    tensor *carry = connection(b, "carry", s.m, s.m, identity);
    identity.eye_shift = s.first;
    tensor *read = connection(b, "read", s.m, s.q, identity);
    tensor *beta = connection(b, "beta", 0, s.m, (param_info){.kind = PARAM_VECTOR, .constant = 1});
    bool dynamic = of_flag(b, "model.residual.dynamic");
    if (dynamic) {
        weight = connection(b, "weight", 1 + s.q + s.m, s.n, projection);
        scale = connection(b, "scale", 0, 2,
                           (param_info){.kind = PARAM_VECTOR, .constant = 0.01}); // the papers' start
        if (s.gain) gain = connection(b, "gain", 0, s.n, init_gain());
    }
    node *open = g_node(b->g, OP_hyper_open, IN(h, read, carry, dynamic ? beta : NULL, weight, scale, gain),
                        WITH({"eps", of_number(b, "model.norm.eps")}, {"centred", s.centred}));
    g_pop(b->g, scope);
    r->stream = g_out(open, 1);
    r->own[0] = dynamic ? g_out(open, 2) : beta;
    return g_out(open, 0);
}

static void close_streams(model_builder *b, residual *r, tensor *y)
{
    r->stream = g_out(g_node(b->g, OP_hyper_close, IN(r->stream, y, r->own[0]), NO_ATTRS), 0);
}

/* ---- hyper */
static i64 streams(const model_builder *b) { return config_count(b->c, "model.residual.streams"); }

static void hyper_start(model_builder *b, residual *r, tensor *embedding)
{
    r->stream = g_out(g_node(b->g, OP_stream_copy, IN(embedding), WITH({"n", (double)streams(b)})), 0);
}

/* The streams are one matrix through all layers, and nothing norms them. */
static bool hyper_has_meaning(model_builder *b, branch which)
{
    const char *key = which == BRANCH_ATTENTION ? "model.norm.attn" : "model.norm.ffn";
    static const char *const site[] = {"stream", "post"};
    i64 n = of_count(b, "model.residual.streams");
    if (n != streams(b)) {
        refuse(
            b, "model.residual.streams",
            "is %lld in layer %lld and %lld elsewhere; H' = B y + A_r^T H carries the same n streams through "
            "all layers: set one number of streams",
            (long long)n, (long long)b->layer, (long long)streams(b));
        return false;
    }
    for (int i = 0; i < COUNT(site); i++)
        if (of_has(b, key, site[i])) {
            refuse(b, key,
                   "has %s; in H' = B y + A_r^T H no norm acts on the streams H: with residual.kind hyper a "
                   "norm "
                   "may act on what the branch reads (pre) or gives (out)",
                   site[i]);
            return false;
        }
    return true;
}

/* The norm before the coefficients is of the kind of the model's: centred for layer, of the root mean square
 * for all others; with a gain if the norms have one. */
static tensor *hyper_open(model_builder *b, residual *r, branch which)
{
    i64 n = streams(b);
    if (!hyper_has_meaning(b, which)) return r->stream;
    joint_shape s = {.m = n,
                     .q = 1,
                     .n = b->width,
                     .centred = of_is(b, "model.norm.kind", "layer"),
                     .gain = !of_is(b, "model.norm.affine", "none"),
                     .first = r->site % n};
    return norm_around(b, which, NORM_PRE, open_streams(b, r, s, r->stream));
}

static void hyper_close(model_builder *b, residual *r, branch which, tensor *y)
{
    close_streams(b, r, transfer_branch(b, norm_around(b, which, NORM_OUT, y)));
}

static tensor *hyper_end(model_builder *b, residual *r)
{
    return g_out(g_node(b->g, OP_stream_sum, IN(r->stream), WITH({"n", (double)streams(b)})), 0);
}

double residual_out_factor(const model_builder *b)
{
    if (!config_is(b->c, "model.residual.kind", "hyper")) return 1;
    return pow((double)streams(b), -config_number(b->c, "model.residual.out_init_exponent"));
}

/* ---- frac: the norm of a fraction is that of the paper's count of parameters, whatever the model's */
static tensor *frac_open(model_builder *b, residual *r, branch which)
{
    i64 m = of_count(b, "model.residual.streams");
    if (b->width % m) {
        refuse(b, "model.residual.streams",
               "is %lld; h = (H_1, .., H_m) cuts model.width (%lld) in m equal fractions, so "
               "it must divide it",
               (long long)m, (long long)b->width);
        return r->stream;
    }
    tensor *h = norm_around(b, which, NORM_STREAM, r->stream);
    joint_shape s = {.m = m, .q = m, .n = b->width / m, .gain = true};
    return norm_around(b, which, NORM_PRE, open_streams(b, r, s, h));
}

static void frac_close(model_builder *b, residual *r, branch which, tensor *y)
{
    close_streams(b, r, transfer_branch(b, norm_around(b, which, NORM_OUT, y)));
    r->stream = norm_around(b, which, NORM_POST, r->stream);
}

static const residual_kind kinds[] = {
    {"add", add_start, add_open, add_close, add_end},
    {"frac", add_start, frac_open, frac_close, add_end},
    {"hyper", hyper_start, hyper_open, hyper_close, hyper_end},
};

void residual_start(model_builder *b, residual *r, tensor *embedding)
{
    *r = (residual){.kind = &kinds[of_choice(b, "model.residual.kind")]};
    r->kind->start(b, r, embedding);
}
tensor *residual_open(model_builder *b, residual *r, branch which)
{
    r->site++;
    const residual_kind *before = r->kind;
    r->kind = &kinds[of_choice(b, "model.residual.kind")]; // of this layer
    if (r->kind->start != before->start) {
        refuse(
            b, "model.residual.kind",
            "is %s in layer %lld and %s elsewhere; H' = B y + A_r^T H (hyper) carries n streams through all "
            "layers, from n copies of the embedding to their sum: set one kind for the whole model",
            r->kind->name, (long long)b->layer, before->name);
        r->kind = before;
        return r->stream;
    }
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
    if (!b->g->failed && cols(r->stream) > cols(y)) // hyper: each stream takes it
        y = g_out(g_node(b->g, OP_stream_copy, IN(y), WITH({"n", (double)streams(b)})), 0);
    r->stream = g_out(g_node(b->g, OP_joint, IN(r->stream, y), NO_ATTRS), 0);
    if (!b->g->failed) r->stream->boundary = boundary;
}
tensor *residual_end(model_builder *b, residual *r) { return r->kind->end(b, r); }

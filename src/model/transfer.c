/* transfer: muP, the maximal update parametrization: starts, learning rates and scales by width, so that the
 * learning rate found at a small width is near the best at every other (optimization spec 4.1 to 4.3). With
 * w = width / base_width, eta the schedule's rate, and what the model would have at the base width in quotes:
 *
 *   class                     start, deviation          learning rate
 *   embedding, positions      "std"                     eta
 *   maps from inputs values   "std" w^(-1/2)            eta / w            (by inputs: as init.kind says)
 *   head                      "std" / w                 eta / w
 *   gains, biases, scalars    as without                eta
 *   scores of attention       "scale" "head_width" / head_width
 *   tied head                 the embedding's matrix; what it reads is divided by w, which is the same thing
 *
 * relative  as above: at the base width everything is as with kind none, to the bit. The base model is this
 *           configuration with model.width = base_width: heads of automatic width are narrower there, inner
 *           widths in proportion. Where the number of heads grows with the width, set attention.head_width.
 * absolute  the same with base_width 1 and deviations 1, inputs^(-1/2), 1/width; eta/inputs for maps.
 *
 * depth_exponent x: what a branch adds to the stream is times (layers / base_layers)^(-x), after its norms.
 * decay_rule sqrt_width: weight decay of maps times sqrt(w). Their rate falls as 1/w, so that eta lambda
 * falls as w^(-1/2), and with it the steady state's top singular value, (eta/lambda)^(1/2) w^(3/4), stays
 * where it is.
 *
 * Sources: 2404.05728 (the table; it found no transfer with trained gains of RMSNorm, nor with 1/sqrt
 * scores); Tensor Programs V, arXiv:2203.03466; sqrt_width: arXiv:2510.15262. Departs: the paper unties the
 * head.  Helpers of a fixed number of inputs (norm.gate_rank) keep eta and their deviation.
 */
#include "model/build.h"
#include "model/methods.h"
#include <math.h>
#include <string.h>

#define MUP "train.transfer.kind=mup"
const config_key transfer_keys[] = {
    {"train.transfer.kind", KEY_CHOICE, "none", "none mup",
     .help = "mup: first values, learning rates and scales by width, so that a learning rate found at "
             "base_width holds at others",
     .source = "arXiv:2203.03466, arXiv:2404.05728"},
    {"train.transfer.form", KEY_CHOICE, "relative", "relative absolute",
     .help = "relative to the model of base_width, or in absolute numbers: deviations 1, 1/sqrt(inputs), "
             "1/width, and maps learn at lr/inputs",
     .source = "arXiv:2404.05728", .only = MUP},
    {"train.transfer.base_width", KEY_COUNT, "128", .min = 1, .max = 65536, .unit = "values",
     .help = "the width at which nothing is changed, and for which train.optimizer.lr is meant",
     .source = "arXiv:2404.05728", .only = "train.transfer.form=relative"},
    {"train.transfer.depth_exponent", KEY_NUMBER, "0", .min = 0, .max = 2,
     .help = "x: what a branch adds to the stream is times (layers/base_layers)^(-x); 0, 0.5 and 1 are usual",
     .only = MUP},
    {"train.transfer.base_layers", KEY_COUNT, "1", .min = 1, .max = 1000, .unit = "blocks",
     .help = "the depth at which depth_exponent changes nothing", .only = MUP},
    {"train.transfer.decay_rule", KEY_CHOICE, "none", "none sqrt_width",
     .help = "sqrt_width: the weight decay of maps times sqrt(width/base_width)",
     .source = "arXiv:2510.15262", .only = MUP},
    {0},
};

const method_row transfer_methods[] = {
    {"mup", "transfer", .settings = MUP, .small = "train.transfer.base_width=16", .limit = 1.03},
    {0},
};

static bool is_mup(const model_builder *b) { return config_is(b->c, "train.transfer.kind", "mup"); }
static bool is_absolute(const model_builder *b) { return config_is(b->c, "train.transfer.form", "absolute"); }

double transfer_base(const model_builder *b)
{
    if (!is_mup(b)) return (double)b->width;
    return is_absolute(b) ? 1 : (double)config_count(b->c, "train.transfer.base_width");
}
double transfer_ratio(const model_builder *b) { return (double)b->width / transfer_base(b); }
bool transfer_by_inputs(const model_builder *b) { return is_mup(b) && is_absolute(b); }

double transfer_head_width(const model_builder *b, i64 width)
{
    if (!is_mup(b)) return (double)width;
    if (is_absolute(b)) return 1;
    return of_count(b, "model.attention.head_width") > 0
               ? (double)width
               : transfer_base(b) / (double)of_count(b, "model.attention.heads");
}

double transfer_depth(const model_builder *b)
{
    double x = is_mup(b) ? config_number(b->c, "train.transfer.depth_exponent") : 0;
    double base = (double)config_count(b->c, "train.transfer.base_layers");
    return x > 0 ? pow((double)b->layers / base, -x) : 1;
}

tensor *transfer_branch(model_builder *b, tensor *y)
{
    double a = transfer_depth(b);
    return a == 1 ? y : g_out(g_node(b->g, OP_scale, IN(y), WITH({"a", a})), 0);
}

tensor *transfer_logits(model_builder *b, tensor *h)
{
    double ratio = transfer_ratio(b);
    if (ratio == 1 || !of_flag(b, "model.tie_head")) return h;
    return g_out(g_node(b->g, OP_scale, IN(h), WITH({"a", 1 / ratio})), 0);
}

void transfer_matrix(const model_builder *b, matrix_part part, bool by_inputs, i64 inputs, param_info *info)
{
    double ratio = transfer_ratio(b);
    bool fixed = part == PART_HELPER && inputs != b->width;
    if (!is_mup(b)) return;
    if (part == PART_HEAD)
        info->std /= ratio;
    else if (part != PART_EMBEDDING && !by_inputs && !fixed)
        info->std /= sqrt(ratio);
    if (fixed) info->lr_factor = 1, info->lr_until = "none";
}

bool model_transferred(const config *c)
{
    model_builder b = {.c = c,
                       .layer = -1,
                       .layers = config_count(c, "model.layers"),
                       .width = config_count(c, "model.width")};
    bool scores = false;
    for (b.layer = 0; b.layer < b.layers; b.layer++) {
        i64 given = of_count(&b, "model.attention.head_width"),
            width = given > 0 ? given : b.width / of_count(&b, "model.attention.heads");
        scores |= transfer_head_width(&b, width) != (double)width;
    }
    return scores || transfer_depth(&b) != 1 || (transfer_ratio(&b) != 1 && config_flag(c, "model.tie_head"));
}

/* What has no meaning. */
static void check(model_builder *b)
{
    static const char rule[] = "train.transfer.decay_rule", kind[] = "train.transfer.kind";
    const char *optimizer = config_text(b->c, "train.optimizer.kind");
    if (!of_is(b, "model.memory.kind", "none"))
        refuse(
            b, kind,
            "is mup; its table has rates for maps of the width (eta/w) and for vectors (eta), and the keys "
            "and values of model.memory.kind: %s are matrices whose widths do not grow with model.width",
            config_text(b->c, "model.memory.kind"));
    if (strcmp(optimizer, "adamw") && strcmp(optimizer, "lion"))
        refuse(
            b, kind,
            "is mup; its eta/w is for updates whose elements are of size 1 at every width (adamw, lion), and "
            "train.optimizer.kind is %s",
            optimizer);
    if (config_is(b->c, rule, "sqrt_width") && config_is(b->c, "train.optimizer.decay_mode", "independent"))
        refuse(b, rule,
               "is sqrt_width; (eta/w) lambda sqrt(w) is a decay times the learning rate, and "
               "train.optimizer.decay_mode is independent (set it to coupled)");
    if (!transfer_by_inputs(b)) return;
    if (!of_is(b, "model.init.kind", "normal") && !of_is(b, "model.init.kind", "lecun"))
        refuse(
            b, "train.transfer.form",
            "is absolute; its deviations 1, inputs^(-1/2) and 1/width stand in the place of model.init.kind: "
            "%s (remove that key, or set form: relative)",
            config_text(b->c, "model.init.kind"));
    if (config_given(b->c, "model.init.std"))
        refuse(
            b, "train.transfer.form",
            "is absolute; its deviations 1, inputs^(-1/2) and 1/width stand in the place of model.init.std "
            "(remove that key; model.init.std_factor multiplies them)");
}

void transfer_rates(model_builder *b)
{
    if (b->g->failed || !is_mup(b)) return;
    check(b);
    double ratio = transfer_ratio(b);
    bool by_width = config_is(b->c, "train.transfer.decay_rule", "sqrt_width");
    for (i64 i = 0; i < b->g->n_tensors; i++) {
        tensor *t = b->g->tensors[i];
        param_info *info = &t->param;
        bool map = info->kind == PARAM_MATRIX || info->kind == PARAM_EXPERT;
        if (t->role != ROLE_PARAM || !(map || info->kind == PARAM_HEAD) || info->lr_factor > 0) continue;
        info->lr_factor = 1 / (is_absolute(b) ? (double)cols(t) : ratio);
        info->lr_until = "none";
        if (map && by_width) info->decay_factor = sqrt(ratio);
    }
}

/* Exact conversions of Pre-LayerNorm models; C = I - 11^T / d takes the mean out of a vector of d values.
 *
 *   rows of embedding and positions     E C                   columns of maps back to the stream   C W, C b
 *   LN(x) = gain N(C x) + bias          RMS(C x), the same gain and bias, since the stream is now C x: mean 0
 *   crms: x_d = -(x_1 + .. + x_{d-1}) is not kept: writers drop their last output; a map that reads y = gain
 * z + bias becomes W'_j = gain_j W_j - gain_d W_d (j < d), b' = b + W bias, since z_d = -sum z_j: gains
 * become 1
 *
 * All in double; the logits are equal for every eps. The head is untied: its matrix stays as it is, the
 * embedding's is centred. A final bias has no bias of the head to go to under crms: it stays one of z where
 * sum bias_j / gain_j = 0.
 *
 * Source: Jiang et al., arXiv:2305.14858, section 3 (NeurIPS 2023).
 */
#include "infer/convert.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const form_name[] = {"rms", "crms"};

/* ---- which models */
static const struct {
    const char *key, *value, *why;
} held[] = {
    {"model.norm.attn", "pre", "every branch must read LN(x), and nothing else norms or reads the stream x"},
    {"model.norm.ffn", "pre", "every branch must read LN(x), and nothing else norms or reads the stream x"},
    {"model.norm.final", "true", "the head would read x itself, not LN(x)"},
    {"model.norm.embedding", "false", "it would give the stream its mean back"},
    {"model.norm.pre_affine", "false", "LN(l * x) is not a function of C x"},
    {"model.residual.kind", "add", "fractions of C x do not have mean 0"},
    {"model.embedding.kind", "table", "only rows of one table are centred here"},
    {"model.memory.kind", "none", "what a memory writes to the stream is not centred"},
    {"model.repeat.kind", "none", "copies of tokens write to the stream too"},
    {"model.head.predict", "1", "the blocks of later tokens read the stream without a norm"},
};

static status check_layer(const config *c, i64 layer, norm_form to)
{
    bool layer_norm = config_is_at(c, layer, "model.norm.kind", "layer");
    if (!layer_norm && !(to == FORM_CRMS && config_is_at(c, layer, "model.norm.kind", "rms")))
        return config_refuse_at(c, layer, "model.norm.kind",
                                "is %s; the conversion to %s starts from layer%s",
                                config_text_at(c, layer, "model.norm.kind"), form_name[to],
                                to == FORM_CRMS ? ", or from rms with a centred stream" : "");
    for (i64 i = 0; i < COUNT(held); i++)
        if (!config_is_at(c, layer, held[i].key, held[i].value))
            return config_refuse_at(c, layer, held[i].key,
                                    "is %s, not %s; %s: LN(x) = RMS(C x) does not carry over",
                                    config_text_at(c, layer, held[i].key), held[i].value, held[i].why);
    return OK;
}

static bool biased(const config *c) { return config_is(c, "model.norm.affine", "scale_bias"); }

/* What has a meaning as rms but none without the last value. */
static status check_crms(const config *c, i64 layer)
{
    if (!config_is_at(c, layer, "model.norm.gate_rank", "0"))
        return config_refuse_at(
            c, layer, "model.norm.gate_rank",
            "is %s; y sigmoid(W_up silu(W_down y)) needs all values of y, crms keeps all but one",
            config_text_at(c, layer, "model.norm.gate_rank"));
    if (biased(c) && config_is_at(c, layer, "model.ffn.kind", "moe"))
        return config_refuse_at(
            c, layer, "model.ffn.kind",
            "is moe; the norm's bias b adds W_router b to the router's logits, which have no bias "
            "to hold it");
    if (biased(c) && !config_is_at(c, layer, "model.norm.depth_scale", "none"))
        return config_refuse_at(
            c, layer, "model.norm.depth_scale",
            "is inv_sqrt; crms folds the norm's bias into maps that would scale it again");
    return OK;
}

static status check(const config *c, const graph *g, norm_form to)
{
    i64 layers = config_count(c, "model.layers");
    if (config_is_at(c, -1, "model.norm.kind", form_name[to]))
        return config_refuse(c, "model.norm.kind", "is %s already", form_name[to]);
    for (i64 layer = -1; layer < layers; layer++) {
        TRY(check_layer(c, layer, to));
        if (to == FORM_CRMS) TRY(check_crms(c, layer));
        if (layer >= 0 &&
            strcmp(config_text_at(c, layer, "model.norm.kind"), config_text(c, "model.norm.kind")) != 0)
            return config_refuse_at(c, layer, "model.norm.kind",
                                    "differs from the model's; one form for all layers");
    }
    for (i64 i = 0; i < g->n_tensors; i++) {
        const char *path = g->tensors[i]->path;
        if (g->tensors[i]->role != ROLE_PARAM) continue;
        if (strstr(path, ".o.gain") || strstr(path, ".down.gain"))
            return config_refuse(c, "model.linear.kind",
                                 "is sdd; gain * N(W x) writes %s's map to the stream, and "
                                 "C (gain * N(W x)) is not of that form",
                                 path);
    }
    return OK;
}

/* The inner width of layers that have it from model.width: -1: none does. */
static status inner_width(const config *c, const graph *g, i64 *out)
{
    *out = -1;
    for (i64 layer = 0; layer < config_count(c, "model.layers"); layer++) {
        char dense[64], expert[64];
        snprintf(dense, sizeof dense, "blocks.%lld.ffn.up.weight", (long long)layer);
        snprintf(expert, sizeof expert, "blocks.%lld.ffn.experts.up.weight", (long long)layer);
        const tensor *w = g_find(g, dense) ? g_find(g, dense) : g_find(g, expert);
        if (!w || config_count_at(c, layer, "model.ffn.width") > 0) continue;
        i64 f = w->dim[w->ndim - 2];
        if (*out >= 0 && *out != f)
            return config_refuse_at(c, layer, "model.ffn.width",
                                    "is auto, %lld here and %lld in other layers; width - 1 needs one number",
                                    (long long)f, (long long)*out);
        *out = f;
    }
    return OK;
}

status convert_config(const config *from, const graph *g, norm_form to, config **out)
{
    char set[6][64];
    const char *word[6];
    i64 n = 0, d = config_count(from, "model.width"), heads = config_count(from, "model.attention.heads"), f;
    text yaml = {0};
    TRY(check(from, g, to));
    TRY(inner_width(from, g, &f));
    snprintf(set[n++], sizeof *set, "model.norm.kind=%s", form_name[to]);
    snprintf(set[n++], sizeof *set, "model.tie_head=false");
    if (to == FORM_CRMS) {
        if (d < 2) return config_refuse(from, "model.width", "is 1; crms would keep nothing of it");
        snprintf(set[n++], sizeof *set, "model.width=%lld", (long long)d - 1);
        if (config_count(from, "model.attention.head_width") < 0)
            snprintf(set[n++], sizeof *set, "model.attention.head_width=%lld", (long long)(d / heads));
        if (f > 0) snprintf(set[n++], sizeof *set, "model.ffn.width=%lld", (long long)f);
        if (biased(from)) snprintf(set[n++], sizeof *set, "model.bias=true");
    }
    for (i64 i = 0; i < n; i++) word[i] = set[i];
    config_write(from, &yaml);
    status s = yaml.data ? config_parse("converted", yaml.data, yaml.bytes, word, n, out)
                         : fail(ERR_MEMORY, "out of memory");
    text_free(&yaml);
    return s;
}

/* ---- parameters: who writes to the stream, who reads it */
typedef enum stream_part {
    PART_OTHER,
    PART_ROWS,        // [.., d] writes rows
    PART_WRITER,      // [.., d, n] writes W x
    PART_WRITER_BIAS, // [d]
    PART_READER,      // [.., n, d] reads the norm
    PART_READER_BIAS,
    PART_GAIN, // of such a norm
    PART_NORM_BIAS,
} stream_part;

static const struct {
    const char *end;
    stream_part part;
} parts[] = {
    {"embedding.weight", PART_ROWS},
    {"position.weight", PART_ROWS},
    {"attention.o.weight", PART_WRITER},
    {"ffn.down.weight", PART_WRITER},
    {"ffn.experts.down.weight", PART_WRITER},
    {"ffn.shared.down.weight", PART_WRITER},
    {"attention.o.bias", PART_WRITER_BIAS},
    {"ffn.down.bias", PART_WRITER_BIAS},
    {"ffn.experts.down.bias", PART_WRITER_BIAS},
    {"ffn.shared.down.bias", PART_WRITER_BIAS},
    {"attention.q.weight", PART_READER},
    {"attention.k.weight", PART_READER},
    {"attention.v.weight", PART_READER},
    {"ffn.gate.weight", PART_READER},
    {"ffn.up.weight", PART_READER},
    {"ffn.experts.gate.weight", PART_READER},
    {"ffn.experts.up.weight", PART_READER},
    {"ffn.shared.gate.weight", PART_READER},
    {"ffn.shared.up.weight", PART_READER},
    {"ffn.router.weight", PART_READER},
    {"head.weight", PART_READER},
    {"attention.q.bias", PART_READER_BIAS},
    {"attention.k.bias", PART_READER_BIAS},
    {"attention.v.bias", PART_READER_BIAS},
    {"ffn.gate.bias", PART_READER_BIAS},
    {"ffn.up.bias", PART_READER_BIAS},
    {"norm_pre.gain", PART_GAIN},
    {"norm_final.gain", PART_GAIN},
    {"norm_pre.bias", PART_NORM_BIAS},
    {"norm_final.bias", PART_NORM_BIAS},
};

static stream_part part_of(const char *path)
{
    size_t n = strlen(path);
    for (i64 i = 0; i < COUNT(parts); i++) {
        size_t k = strlen(parts[i].end);
        if (n >= k && !strcmp(path + n - k, parts[i].end) && (n == k || path[n - k - 1] == '.'))
            return parts[i].part;
    }
    return PART_OTHER;
}

/* The parameter PATH of FROM in memory of its own (mem_free); *values NULL where there is none. */
static status read_values(const conversion *c, const char *path, double **values, const tensor **out)
{
    const tensor *t = g_find(c->from, path);
    *values = NULL;
    *out = t;
    if (!t) return OK;
    TRY(mem_alloc(sizeof(double) * (size_t)count(t), path, values));
    c->read(c->context, t, *values);
    return OK;
}

/* The gain or bias of the norm that the map PATH reads; *values NULL: it has none. */
static status read_norm(const conversion *c, const char *path, const char *what, double **values)
{
    char name[128];
    const tensor *t;
    const char *branch = strstr(path, ".attention.");
    size_t n = branch ? strlen(".attention") : strlen(".ffn");
    if (!branch) branch = strstr(path, ".ffn.");
    if (branch)
        snprintf(name, sizeof name, "%.*s.norm_pre.%s", (int)(branch - path + (ptrdiff_t)n), path, what);
    else
        snprintf(name, sizeof name, "norm_final.%s", what);
    return read_values(c, name, values, &t);
}

/* out[k] = x[k] - mean x, k < KEPT of d; values lie STEP apart. From rms: x must have mean 0, to what f32
 * rounds. */
static status centre(const conversion *c, const char *path, const double *x, i64 d, i64 step, double *out,
                     i64 kept)
{
    double mean = 0, size = 0;
    for (i64 k = 0; k < d; k++) mean += x[k * step] / (double)d, size = fmax(size, fabs(x[k * step]));
    if (c->centred && !(fabs(mean) <= 1e-6 * size))
        return fail(
            ERR_CONFIG,
            "%s writes a mean of %.3g (largest value %.3g) to the stream; RMS(x) = RMS(C x) only where it is "
            "0, as in a model that 'keel convert --to=rms' made",
            path, mean, size);
    for (i64 k = 0; k < kept; k++) out[k * step] = x[k * step] - mean;
    return OK;
}

/* Rows of n values: [groups, n] to [groups, kept]. */
static status centre_rows(const conversion *c, const tensor *target, const double *x, i64 n, double *out)
{
    i64 kept = cols(target);
    for (i64 r = 0; r < rows_of(target); r++)
        TRY(centre(c, target->path, x + r * n, n, 1, out + r * kept, kept));
    return OK;
}

/* Columns: [groups, d, n] to [groups, kept, n]. */
static status centre_columns(const conversion *c, const tensor *target, const double *x, i64 d, double *out)
{
    i64 kept = target->dim[target->ndim - 2], n = cols(target), groups = count(target) / (kept * n);
    for (i64 g = 0; g < groups; g++)
        for (i64 j = 0; j < n; j++)
            TRY(centre(c, target->path, x + g * d * n + j, d, n, out + g * kept * n + j, kept));
    return OK;
}

/* W'_j = gain_j W_j - gain_d W_d: rows of d values to d - 1. */
static status fold_reader(const conversion *c, const tensor *target, const double *w, double *out)
{
    double *gain;
    i64 n = cols(target);
    TRY(read_norm(c, target->path, "gain", &gain));
    for (i64 r = 0; r < rows_of(target); r++, w += n + 1, out += n)
        for (i64 j = 0; j < n; j++) out[j] = (gain ? gain[j] : 1) * w[j] - (gain ? gain[n] : 1) * w[n];
    mem_free(gain);
    return OK;
}

/* b' = b + W bias; BIAS_PATH ends in ".bias", its map in ".weight". */
static status fold_bias(const conversion *c, const tensor *target, const double *b, double *out)
{
    char path[128];
    double *w, *beta;
    const tensor *t;
    snprintf(path, sizeof path, "%.*s.weight", (int)(strlen(target->path) - strlen(".bias")), target->path);
    TRY(read_values(c, path, &w, &t));
    status s = read_norm(c, path, "bias", &beta);
    for (i64 r = 0; !s && r < count(target); r++) {
        out[r] = b ? b[r] : 0;
        for (i64 j = 0; beta && w && j < cols(t); j++) out[r] += w[r * cols(t) + j] * beta[j];
    }
    if (!s) mem_free(beta);
    mem_free(w);
    return s;
}

/* A bias before the head that W' (z + b') holds: b'_j = bias_j / gain_j, where these have mean 0. */
static status fold_final(const conversion *c, const double *beta, double *out, i64 n)
{
    double *gain, sum = 0, size = 0;
    bool sound = true;
    TRY(read_norm(c, "norm_final", "gain", &gain));
    for (i64 j = 0; j <= n; j++) {
        double b = beta[j] == 0 ? 0 : beta[j] / (gain ? gain[j] : 1);
        if (j < n) out[j] = b;
        sum += b, size += fabs(b), sound &= isfinite(b);
    }
    mem_free(gain);
    if (sound && fabs(sum) <= 1e-12 * size) return OK;
    return fail(ERR_CONFIG,
                "norm_final.bias has a part along the gain that adds one number to each token's logit; the "
                "head has no bias to hold it without the stream's last value (use --to=rms)");
}

static status convert_one(const conversion *c, const tensor *target, const tensor *t, const double *x,
                          double *out)
{
    bool crms = c->to == FORM_CRMS;
    i64 n = count(target);
    switch (part_of(target->path)) {
    case PART_ROWS:
        return centre_rows(c, target, x, cols(t), out);
    case PART_WRITER:
        return centre_columns(c, target, x, t->dim[t->ndim - 2], out);
    case PART_WRITER_BIAS:
        if (t) return centre_rows(c, target, x, cols(t), out);
        memset(out, 0, sizeof *out * (size_t)n);
        return OK;
    case PART_READER:
        if (crms) return fold_reader(c, target, x, out);
        break;
    case PART_READER_BIAS:
        if (crms) return fold_bias(c, target, x, out);
        break;
    case PART_GAIN:
        for (i64 j = 0; crms && j < n; j++) out[j] = 1;
        if (crms) return OK;
        break;
    case PART_NORM_BIAS:
        if (crms && !strcmp(target->path, "norm_final.bias")) return fold_final(c, x, out, n);
        if (crms) memset(out, 0, sizeof *out * (size_t)n);
        if (crms) return OK;
        break;
    case PART_OTHER:
        break;
    }
    if (!t || count(t) != n)
        return fail(ERR_CONFIG, "%s: the conversion to %s does not know this parameter", target->path,
                    form_name[c->to]);
    memcpy(out, x, sizeof *out * (size_t)n);
    return OK;
}

status convert_parameter(const conversion *c, const tensor *target, double *out)
{
    double *x;
    const tensor *t;
    TRY(read_values(c, target->path, &x, &t));
    if (!t && !strcmp(target->path, "head.weight"))
        TRY(read_values(c, "embedding.weight", &x, &t)); // was tied
    stream_part p = part_of(target->path);
    status s = t || p == PART_WRITER_BIAS || p == PART_READER_BIAS
                   ? convert_one(c, target, t, x, out)
                   : fail(ERR_CONFIG, "%s: the model has no such parameter", target->path);
    mem_free(x);
    return s;
}

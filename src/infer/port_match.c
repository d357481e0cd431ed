/* Which architecture of another program computes a model: see port.h. */
#include "infer/port.h"
#include <math.h>
#include <string.h>

/* Keys that say how a model is trained, not what it computes; and those compared by their effect. */
static bool compared(const config_key *k)
{
    static const char *const apart[] = {"model.preset",
                                        "model.size",
                                        "model.override",
                                        "model.dropout",
                                        "model.norm.preset",
                                        "model.norm.out_gain",
                                        "model.norm.mix_share",
                                        "model.ffn.width",
                                        "model.attention.kv_heads",
                                        "model.head.z_loss",
                                        "model.attention.head_width"};
    if (strncmp(k->path, "model.", 6) || strstr(k->path, "[]") || !strncmp(k->path, "model.init.", 11) ||
        !strncmp(k->path, "model.head.predict", 18))
        return false;
    for (i64 i = 0; i < COUNT(apart); i++)
        if (!strcmp(apart[i], k->path)) return false;
    return true;
}

static bool same_value(const config *a, const config *b, i64 layer, const config_key *k)
{
    double x = NAN, y = NAN;
    if (k->type == KEY_NUMBER)
        x = config_number_at(a, layer, k->path), y = config_number_at(b, layer, k->path);
    if (!strcmp(k->path, "model.norm.inner_eps")) {
        if (isnan(x)) x = config_number_at(a, layer, "model.norm.eps");
        if (isnan(y)) y = config_number_at(b, layer, "model.norm.eps");
    }
    if (!isnan(x) && !isnan(y)) return fabs(x - y) <= 1e-7 * fabs(x); // config.json holds what f32 would
    return !strcmp(config_text_at(a, layer, k->path), config_text_at(b, layer, k->path));
}

/* Lists what A's config would have to say to be B's; returns how many keys. */
static i64 differences(const config *a, const config *b, text *out)
{
    key_list keys;
    i64 n = 0, layers = config_count(a, "model.layers");
    config_keys(&keys);
    for (i64 i = 0; i < keys.n; i++) {
        const config_key *k = keys.rows[i];
        // a key that only A has belongs to a kind, whose own key differs
        bool asked = compared(k) || (!strcmp(k->path, "train.transfer.kind") && model_transferred(a));
        if (!asked || !config_applies(a, k->path) || !config_applies(b, k->path)) continue;
        i64 layer = -1;
        if (same_value(a, b, -1, k))
            for (layer = 0; layer < layers && same_value(a, b, layer, k); layer++) continue;
        if (layer == layers) continue;
        text_add(out, "%s%s is %s", n++ ? ", " : "", k->path, config_text_at(a, layer, k->path));
        if (layer >= 0) text_add(out, " in layer %lld", (long long)layer);
        text_add(out, " (would have to be %s)", config_text_at(b, layer, k->path));
    }
    return n;
}

static void add_shape(text *out, const tensor *t)
{
    for (int k = 0; k < t->ndim; k++)
        text_add(out, "%s%lld%s", k ? ", " : "[", (long long)t->dim[k], k + 1 < t->ndim ? "" : "]");
}

/* The widths that are not compared as keys, by their effect: parameters of G that import would expect in
 * another shape, as where one layer has its own, or heads a width that the type has no key for. */
static status other_shapes(const graph *g, config *theirs, text *out, i64 *n)
{
    port y = {.c = theirs};
    arena *a;
    TRY(arena_open(&a));
    status s = port_build(a, &y);
    for (i64 i = 0; !s && i < g->n_tensors; i++) {
        const tensor *t = g->tensors[i], *other = g_find(y.m.g, t->path);
        if (t->role != ROLE_PARAM || (other && same_shape(t, other)) || (*n)++) continue;
        text_add(out, "%s is ", t->path);
        add_shape(out, t);
        text_add(out, " (would have to be ");
        if (other) add_shape(out, other);
        text_add(out, other ? ")" : "absent)");
    }
    if (*n > 1) text_add(out, ", and %lld more", (long long)*n - 1);
    *n = MIN(*n, 1); // one difference, however many parameters it shapes
    port_close(&y);
    arena_close(a);
    return s;
}

void port_match_drop(port_match *o)
{
    config_close(o->c);
    json_decref(o->j);
    *o = (port_match){0};
}

status port_match_open(const model_files *f, const port *x, const port_target *to, st_dtype type,
                       port_match *out)
{
    text best = {0};
    const char *nearest = "gpt2";
    i64 least = INT64_MAX;
    const tensor *up = g_find(x->m.g, "blocks.0.ffn.up.weight");
    const i64 ffn_width = up && up->ndim == 2 ? up->dim[0] : 1;
    for (i64 i = 0; i < HF_ARCHITECTURES; i++) {
        text said = {0};
        *out = (port_match){.a = &hf_architectures[i]};
        out->j = hf_describe(out->a, f->config, ffn_width, type);
        if (to->narrow && !to->narrow(out->a, out->j)) {
            port_match_drop(out);
            continue;
        }
        status s = hf_config(out->a, "config.json", out->j, &out->c);
        i64 n = s ? INT64_MAX : differences(f->config, out->c, &said);
        if (!n) s = other_shapes(x->m.g, out->c, &said, &n);
        if (s) n = INT64_MAX;
        status_drop(s); // an activation, say, that this type has no word for
        if (!n) return text_free(&said), text_free(&best), OK;
        if (n < least) {
            text swap = best;
            best = said, said = swap, least = n, nearest = out->a->type;
        }
        text_free(&said);
        port_match_drop(out);
    }
    status s = fail(ERR_CONFIG, "%s: no %s computes this model; nearest is %s: %s", f->folder, to->name,
                    nearest, best.data ? best.data : "its activation has no name there");
    text_free(&best);
    return s;
}

/* GGUF's keys and tensors as tables: see gguf_parts.h. Names: llama.cpp's gguf-py/gguf/constants.py. A file
 * of architecture "llama" pairs neighbouring values of a head in its rotary positions, Keel and Hugging Face
 * the halves: rows of q and k change places (Llama and Mistral; the other architectures pair halves in both).
 */
#include "infer/gguf_parts.h"
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

/* ---- keys */

enum { NEEDED = 1, REAL = 2 };
static const struct key_row {
    const char *gguf, *json, *gpt2; // behind "llama."; of config.json
    int what;
} key_rows[] = {
    {"block_count", "num_hidden_layers", "n_layer", NEEDED},
    {"context_length", "max_position_embeddings", "n_positions", NEEDED},
    {"embedding_length", "hidden_size", "n_embd", NEEDED},
    {"feed_forward_length", "intermediate_size", "n_inner", NEEDED},
    {"attention.head_count", "num_attention_heads", "n_head", NEEDED},
    {"attention.head_count_kv", "num_key_value_heads", NULL, 0},
    {"attention.key_length", "head_dim", NULL, 0},
    {"attention.layer_norm_rms_epsilon", "rms_norm_eps", NULL, NEEDED | REAL},
    {"attention.layer_norm_epsilon", NULL, "layer_norm_epsilon", NEEDED | REAL},
    {"rope.freq_base", "rope_theta", NULL, REAL},
    {"vocab_size", "vocab_size", "vocab_size", 0},
};

/* Keys that ask for another computation, but for one value. */
static const struct demand {
    const char *key;
    double wanted;
    const char *what;
} demands[] = {
    {"expert_count", 0, "experts"},
    {"attention.clamp_kqv", 0, "clamped queries and keys"},
    {"attention.max_alibi_bias", 0, "ALiBi positions"},
    {"attention.scale", 0, "a scale of its own in attention"},
    {"logit_scale", 0, "scaled logits"},
    {"embedding_scale", 0, "a scaled embedding"},
    {"residual_scale", 0, "a scaled residual"},
    {"rope.scaling.factor", 0, "scaled rotary positions"},
    {"attention.causal", 1, "attention to what follows"},
};

static const gguf_value *of(const gguf_file *f, const char *arch, const char *key)
{
    char full[160];
    snprintf(full, sizeof full, "%s.%s", arch, key);
    return gguf_key(f, full);
}

/* The shortest decimal that is X as f32: 1e-05, not 9.99999975e-06. */
static double shortest(double x)
{
    char digits[40];
    for (int n = 1; n < 9; n++) {
        snprintf(digits, sizeof digits, "%.*g", n, x);
        if (strtof(digits, NULL) == (float)x) return strtod(digits, NULL);
    }
    return x;
}

static status check_demands(const gguf_file *f, const char *path, const char *arch)
{
    for (i64 i = 0; i < COUNT(demands); i++) {
        const gguf_value *v = of(f, arch, demands[i].key);
        double x;
        i64 n;
        bool b;
        if (!v) continue;
        if (gguf_integer(v, &n))
            x = (double)n;
        else if (gguf_flag(v, &b))
            x = b;
        else if (!gguf_number(v, &x))
            return fail(ERR_FORMAT, "%s: %s.%s is no number", path, arch, demands[i].key);
        if (x != demands[i].wanted && !(x == 1 && !demands[i].wanted && strstr(demands[i].key, "scal")))
            return fail(ERR_FORMAT, "%s: %s.%s is %g: %s, which Keel does not compute", path, arch,
                        demands[i].key, x, demands[i].what);
    }
    const gguf_value *kind = of(f, arch, "rope.scaling.type");
    gguf_string s;
    if (gguf_find(f, "rope_freqs.weight"))
        return fail(ERR_FORMAT, "%s: rope_freqs.weight scales rotary positions, which Keel does not compute",
                    path);
    if (!kind || gguf_is_text(kind, "none")) return OK;
    if (!gguf_text(kind, &s)) return fail(ERR_FORMAT, "%s: %s.rope.scaling.type is no string", path, arch);
    return fail(ERR_FORMAT,
                "%s: %s.rope.scaling.type is %.*s: scaled rotary positions, which Keel does not compute",
                path, arch, (int)MIN(s.bytes, 40), s.data);
}

static status read_key(const gguf_file *f, const char *path, const hf_architecture *a,
                       const struct key_row *row, json_t *j)
{
    const char *name = a->gpt2 ? row->gpt2 : row->json;
    const gguf_value *v = of(f, a->gguf, row->gguf);
    i64 n;
    double x;
    if (!name) return OK;
    if (!v && row->what & NEEDED)
        return fail(ERR_FORMAT, "%s: there is no key %s.%s", path, a->gguf, row->gguf);
    if (!v) return OK;
    if (row->what & REAL ? !gguf_number(v, &x) : !gguf_integer(v, &n))
        return fail(ERR_FORMAT, "%s: %s.%s is no %s", path, a->gguf, row->gguf,
                    row->what & REAL ? "real number" : "whole number");
    json_object_set_new(j, name, row->what & REAL ? json_real(shortest(x)) : json_integer(n));
    return OK;
}

/* What must agree with what was read: rotary positions turn whole heads, values are as wide as keys. */
static status check_widths(const gguf_file *f, const char *path, const hf_architecture *a, json_t *j)
{
    static const char *const same[] = {"attention.value_length", "rope.dimension_count"};
    i64 heads = json_integer_value(json_object_get(j, "num_attention_heads")), n;
    i64 width = json_integer_value(json_object_get(j, "head_dim"));
    if (a->gpt2 || heads < 1) return OK;
    if (!width) width = json_integer_value(json_object_get(j, "hidden_size")) / heads;
    for (i64 i = 0; i < COUNT(same); i++) {
        const gguf_value *v = of(f, a->gguf, same[i]);
        if (v && (!gguf_integer(v, &n) || n != width))
            return fail(ERR_FORMAT, "%s: %s.%s is not %lld, the width of a head; Keel computes no other",
                        path, a->gguf, same[i], (long long)width);
    }
    return OK;
}

/* A window that the context does not exceed is none. Llama's is Mistral's. */
static status read_window(const gguf_file *f, const char *path, const hf_architecture **a, json_t *j)
{
    const gguf_value *v = of(f, (*a)->gguf, "attention.sliding_window");
    i64 n = 0, context = json_integer_value(json_object_get(j, "max_position_embeddings"));
    if (v && (!gguf_integer(v, &n) || n < 0))
        return fail(ERR_FORMAT, "%s: %s.attention.sliding_window is no whole number from 0", path,
                    (*a)->gguf);
    if (!n || n >= context) return OK;
    if (strcmp((*a)->type, "llama"))
        return fail(ERR_FORMAT,
                    "%s: %s.attention.sliding_window is %lld, less than the context; Keel imports "
                    "windows of Mistral's only",
                    path, (*a)->gguf, (long long)n);
    *a = hf_architecture_named("mistral");
    json_object_set_new(j, "sliding_window", json_integer(n));
    return OK;
}

/* Rows of the embedding: the vocabulary; the key vocab_size may lack. */
static status read_vocab(const gguf_file *f, const char *path, const char *key, json_t *j)
{
    const gguf_tensor *t = gguf_find(f, "token_embd.weight");
    if (!t || t->n_dims != 2) return fail(ERR_FORMAT, "%s: there is no matrix token_embd.weight", path);
    const json_t *said = json_object_get(j, key);
    if (said && json_integer_value(said) != t->dims[1])
        return fail(ERR_FORMAT, "%s: vocab_size is %lld, but token_embd.weight has %lld rows", path,
                    (long long)json_integer_value(said), (long long)t->dims[1]);
    json_object_set_new(j, key, json_integer(t->dims[1]));
    json_object_set_new(j, "tie_word_embeddings", json_boolean(!gguf_find(f, "output.weight")));
    return OK;
}

static status choose(const gguf_file *f, const char *path, const hf_architecture **out)
{
    const gguf_value *v = gguf_key(f, "general.architecture"), *kind = gguf_key(f, "general.type");
    gguf_string s;
    i64 parts;
    if (!gguf_text(v, &s)) return fail(ERR_FORMAT, "%s: there is no string general.architecture", path);
    if (kind && !gguf_is_text(kind, "model"))
        return fail(ERR_FORMAT, "%s: general.type is not \"model\"; Keel imports whole models", path);
    if (gguf_integer(gguf_key(f, "split.count"), &parts) && parts > 1)
        return fail(ERR_FORMAT,
                    "%s: one of %lld parts of a model; merge them first (llama-gguf-split --merge)", path,
                    (long long)parts);
    for (i64 i = 0; i < HF_ARCHITECTURES; i++)
        if (gguf_is_text(v, hf_architectures[i].gguf)) return *out = &hf_architectures[i], OK;
    return fail(ERR_FORMAT, "%s: general.architecture is %.*s; there are gpt2, llama, qwen2, qwen3, olmo2",
                path, (int)MIN(s.bytes, 40), s.data);
}

static status describe(const gguf_file *f, const char *path, const hf_architecture **a, json_t *j)
{
    TRY(check_demands(f, path, (*a)->gguf));
    for (i64 i = 0; i < COUNT(key_rows); i++) TRY(read_key(f, path, *a, &key_rows[i], j));
    TRY(check_widths(f, path, *a, j));
    TRY(read_window(f, path, a, j));
    return read_vocab(f, path, "vocab_size", j);
}

status gguf_describe(const gguf_file *f, const char *path, const hf_architecture **a, json_t **out)
{
    TRY(choose(f, path, a));
    json_t *j = json_object();
    if (!j) return fail(ERR_MEMORY, "%s: out of memory", path);
    status s = describe(f, path, a, j);
    if (s)
        json_decref(j);
    else
        *out = j;
    return s;
}

void gguf_keys_of(arena *a, const hf_architecture *h, const json_t *j, gguf_pair *out, i64 *n)
{
    for (i64 i = 0; i < COUNT(key_rows); i++) {
        const char *name = h->gpt2 ? key_rows[i].gpt2 : key_rows[i].json;
        const json_t *v = name ? json_object_get(j, name) : NULL;
        if (!json_is_number(v)) continue;
        out[(*n)++] = (gguf_pair){arena_printf(a, "%s.%s", h->gguf, key_rows[i].gguf),
                                  key_rows[i].what & REAL ? GGUF_REAL(json_number_value(v))
                                                          : GGUF_NUMBER(json_integer_value(v))};
    }
    i64 width = json_integer_value(json_object_get(j, "head_dim"));
    if (h->gpt2 || !width) return;
    out[(*n)++] = (gguf_pair){arena_printf(a, "%s.attention.value_length", h->gguf), GGUF_NUMBER(width)};
    out[(*n)++] = (gguf_pair){arena_printf(a, "%s.rope.dimension_count", h->gguf), GGUF_NUMBER(width)};
}

/* Mistral without a window is llama, and with one llama.cpp has no such architecture; its GPT-2 computes
 * gelu_tanh, whatever is asked. */
static bool narrow(const hf_architecture *a, json_t *j)
{
    if (!strcmp(a->type, "mistral")) return false;
    if (a->gpt2) json_object_set_new(j, "activation_function", json_string("gelu_new"));
    return true;
}

const port_target gguf_target = {"architecture of GGUF", narrow};

/* ---- tensors */

enum { PLAIN, Q, K, V };
static const struct name_row {
    const char *keel, *name; // behind "blocks.N.", "blk.N."
    int kind;
    bool whole; // not of a block
} name_rows[] = {
    {"embedding.weight", "token_embd.weight", PLAIN, true},
    {"position.weight", "position_embd.weight", PLAIN, true},
    {"norm_final.gain", "output_norm.weight", PLAIN, true},
    {"norm_final.bias", "output_norm.bias", PLAIN, true},
    {"head.weight", "output.weight", PLAIN, true},
    {"attention.norm_pre.gain", "attn_norm.weight", PLAIN, false},
    {"attention.norm_pre.bias", "attn_norm.bias", PLAIN, false},
    {"attention.norm_out.gain", "post_attention_norm.weight", PLAIN, false},
    {"attention.norm_q.gain", "attn_q_norm.weight", PLAIN, false},
    {"attention.norm_k.gain", "attn_k_norm.weight", PLAIN, false},
    {"attention.q.weight", "attn_q.weight", Q, false},
    {"attention.k.weight", "attn_k.weight", K, false},
    {"attention.v.weight", "attn_v.weight", V, false},
    {"attention.q.bias", "attn_q.bias", Q, false},
    {"attention.k.bias", "attn_k.bias", K, false},
    {"attention.v.bias", "attn_v.bias", V, false},
    {"attention.o.weight", "attn_output.weight", PLAIN, false},
    {"attention.o.bias", "attn_output.bias", PLAIN, false},
    {"ffn.norm_pre.gain", "ffn_norm.weight", PLAIN, false},
    {"ffn.norm_pre.bias", "ffn_norm.bias", PLAIN, false},
    {"ffn.norm_out.gain", "post_ffw_norm.weight", PLAIN, false},
    {"ffn.gate.weight", "ffn_gate.weight", PLAIN, false},
    {"ffn.up.weight", "ffn_up.weight", PLAIN, false},
    {"ffn.up.bias", "ffn_up.bias", PLAIN, false},
    {"ffn.down.weight", "ffn_down.weight", PLAIN, false},
    {"ffn.down.bias", "ffn_down.bias", PLAIN, false},
};

/* GPT-2's q, k and v are one tensor. */
static void place_part(const port *x, const struct name_row *row, const char **name, gguf_place *p)
{
    if (row->kind == PLAIN) return;
    if (x->a->gpt2) {
        *name = strstr(row->keel, "bias") ? "attn_qkv.bias" : "attn_qkv.weight";
        p->offset = row->kind == Q ? 0 : row->kind == K ? x->query : x->query + (x->wide - x->query) / 2;
        p->rows = x->wide;
    } else if (!strcmp(x->a->gguf, "llama") && row->kind != V)
        p->head = x->query / config_count(x->c, "model.attention.heads");
}

status gguf_place_of(const port *x, const tensor *t, gguf_place *out)
{
    int layer = -1, skip = 0;
    bool block = sscanf(t->path, "blocks.%d.%n", &layer, &skip) == 1 && skip;
    for (i64 i = 0; i < COUNT(name_rows); i++) {
        const struct name_row *row = &name_rows[i];
        const char *name = row->name;
        if (row->whole == block || strcmp(row->keel, t->path + skip) || t->ndim > 2) continue;
        *out = (gguf_place){.n_dims = t->ndim, .rows = t->dim[0], .columns = t->ndim > 1 ? t->dim[1] : 1};
        place_part(x, row, &name, out);
        if (block)
            snprintf(out->name, sizeof out->name, "blk.%d.%s", layer, name);
        else
            snprintf(out->name, sizeof out->name, "%s", name);
        return OK;
    }
    return fail(ERR_CONFIG, "%s: an architecture %s of GGUF has no such tensor", t->path, x->a->gguf);
}

i64 gguf_place_row(const gguf_place *p, i64 row)
{
    if (!p->head) return p->offset + row;
    i64 j = row % p->head, half = p->head / 2;
    return row - j + (j < half ? 2 * j : 2 * (j - half) + 1);
}

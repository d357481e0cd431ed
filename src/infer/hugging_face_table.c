/* The architectures of Hugging Face folders as tables: what a type says, which key of config.json is which
 * key of Keel, which tensor is which parameter. Both pair rotated values as halves (i, i + w/2), so rows of q
 * and k stay where they are; GPT-2 stores its maps transposed, and q, k and v as one. */
#include "infer/hugging_face_parts.h"
#include <stdio.h>
#include <string.h>

#define ROPE "model.position.kind=rope model.ffn.kind=gated model.ffn.activation=silu model.norm.kind=rms "
const hf_architecture hf_architectures[HF_ARCHITECTURES] = {
    {"gpt2", "GPT2LMHeadModel",
     "model.position.kind=learned model.bias=true model.norm.kind=layer model.norm.affine=scale_bias "
     "model.ffn.kind=mlp",
     "gpt2", true, 1e-5},
    {"llama", "LlamaForCausalLM", ROPE "model.norm.preset=pre", "llama", false, 1e-6},
    {"qwen2", "Qwen2ForCausalLM", ROPE "model.norm.preset=pre model.bias=qkv", "qwen2", false, 1e-6},
    {"qwen3", "Qwen3ForCausalLM", ROPE "model.norm.preset=pre_qk", "qwen3", false, 1e-6},
    {"olmo2", "Olmo2ForCausalLM", ROPE "model.norm.preset=olmo2", "olmo2", false, 1e-5},
    {"mistral", "MistralForCausalLM", ROPE "model.norm.preset=pre", "llama", false, 1e-6},
};

const hf_architecture *hf_architecture_named(const char *type)
{
    for (i64 i = 0; i < HF_ARCHITECTURES; i++)
        if (!strcmp(hf_architectures[i].type, type)) return &hf_architectures[i];
    return NULL;
}

/* ---- config.json */

static const struct key_row {
    const char *keel, *key, *gpt2; // NULL: GPT-2 has none
    bool may_lack;
} key_rows[] = {
    {"model.layers", "num_hidden_layers", "n_layer", false},
    {"model.width", "hidden_size", "n_embd", false},
    {"model.vocab", "vocab_size", "vocab_size", false},
    {"model.context", "max_position_embeddings", "n_positions", false},
    {"model.attention.heads", "num_attention_heads", "n_head", false},
    {"model.attention.kv_heads", "num_key_value_heads", NULL, true},
    {"model.attention.head_width", "head_dim", NULL, true},
    {"model.ffn.width", "intermediate_size", "n_inner", true},
};

/* Keys whose other values ask for another computation. Absent and null are as WANTED. */
static const struct demand {
    const char *key, *wanted; // JSON; NULL: only null
} demands[] = {
    {"attention_bias", "false"},      {"mlp_bias", "false"},
    {"use_sliding_window", "false"},  {"rope_scaling", NULL},
    {"quantization_config", NULL},    {"partial_rotary_factor", "1.0"},
    {"scale_attn_weights", "true"},   {"scale_attn_by_inverse_layer_idx", "false"},
    {"add_cross_attention", "false"},
};

static status check_demands(const char *path, const json_t *j)
{
    for (i64 i = 0; i < COUNT(demands); i++) {
        const json_t *x = json_object_get(j, demands[i].key);
        if (!x || json_is_null(x)) continue;
        char *value = json_dumps(x, JSON_ENCODE_ANY | JSON_COMPACT | JSON_SORT_KEYS);
        bool same = value && demands[i].wanted && !strcmp(value, demands[i].wanted);
        status s =
            same ? OK
                 : fail(ERR_FORMAT,
                        "%s: %s is %.80s; Keel computes %s only: such a model would need other code", path,
                        demands[i].key, value ? value : "?", demands[i].wanted ? demands[i].wanted : "null");
        free(value);
        if (s) return s;
    }
    const json_t *rope = json_object_get(j, "rope_parameters"), *kind = json_object_get(rope, "rope_type");
    if (json_is_string(kind) && strcmp(json_string_value(kind), "default"))
        return fail(ERR_FORMAT, "%s: rope_parameters.rope_type is %.40s; Keel computes default only", path,
                    json_string_value(kind));
    const json_t *layers = json_object_get(j, "layer_types"), *one;
    size_t k;
    json_array_foreach(
        layers, k, one) if (!json_is_string(one) ||
                            strcmp(json_string_value(one),
                                   "full_attention")) return fail(ERR_FORMAT,
                                                                  "%s: layer_types[%zu] is not "
                                                                  "\"full_attention\"; Keel imports no other",
                                                                  path, k);
    return OK;
}

enum { MOST_SETTINGS = 40 };
typedef struct settings {
    arena *a;
    const char *item[MOST_SETTINGS];
    i64 n;
} settings;

static status set_count(settings *s, const char *path, const json_t *j, const struct key_row *row, bool gpt2)
{
    const char *key = gpt2 ? row->gpt2 : row->key;
    const json_t *x = key ? json_object_get(j, key) : NULL;
    if (!key) return OK;
    if (!x || json_is_null(x))
        return row->may_lack ? OK
                             : fail(ERR_FORMAT, "%s: there is no %s, which %s needs", path, key, row->keel);
    if (!json_is_integer(x) || json_integer_value(x) < 1)
        return fail(ERR_FORMAT, "%s: %s is not a whole number from 1", path, key);
    s->item[s->n++] = arena_printf(s->a, "%s=%lld", row->keel, (long long)json_integer_value(x));
    return OK;
}

static status set_number(settings *s, const char *path, const char *keel, const char *key, const json_t *x,
                         double otherwise)
{
    if (x && !json_is_null(x) && !json_is_number(x))
        return fail(ERR_FORMAT, "%s: %s is not a number", path, key);
    s->item[s->n++] =
        arena_printf(s->a, "%s=%.9g", keel, json_is_number(x) ? json_number_value(x) : otherwise);
    return OK;
}

static status set_activation(settings *s, const hf_architecture *a, const char *path, const json_t *j)
{
    static const char *const known[][2] = {{"gelu_new", "gelu_tanh"}, {"gelu", "gelu"}, {"relu", "relu"}};
    const json_t *x = json_object_get(j, a->gpt2 ? "activation_function" : "hidden_act");
    const char *name = json_is_string(x) ? json_string_value(x) : a->gpt2 ? "gelu_new" : "silu";
    if (!a->gpt2)
        return strcmp(name, "silu") ? fail(ERR_FORMAT, "%s: hidden_act is %.40s; expected silu", path, name)
                                    : OK;
    for (i64 i = 0; i < COUNT(known); i++)
        if (!strcmp(known[i][0], name))
            return s->item[s->n++] = arena_printf(s->a, "model.ffn.activation=%s", known[i][1]), OK;
    return fail(ERR_FORMAT, "%s: activation_function is %.40s; expected gelu_new, gelu or relu", path, name);
}

static status set_rest(settings *s, const hf_architecture *a, const char *path, const json_t *j)
{
    const json_t *theta = json_object_get(j, "rope_theta"), *tie = json_object_get(j, "tie_word_embeddings");
    const json_t *window = json_object_get(j, "sliding_window");
    const char *eps = a->gpt2 ? "layer_norm_epsilon" : "rms_norm_eps";
    if (!theta) theta = json_object_get(json_object_get(j, "rope_parameters"), "rope_theta");
    TRY(set_number(s, path, "model.norm.eps", eps, json_object_get(j, eps), a->eps));
    if (!a->gpt2) TRY(set_number(s, path, "model.position.base", "rope_theta", theta, 10000));
    s->item[s->n++] = json_is_boolean(tie)
                          ? json_is_true(tie) ? "model.tie_head=true" : "model.tie_head=false"
                      : a->gpt2 ? "model.tie_head=true"
                                : "model.tie_head=false";
    if (a->gpt2 && !json_is_integer(json_object_get(j, "n_inner")))
        s->item[s->n++] =
            arena_printf(s->a, "model.ffn.width=%lld",
                         4 * (long long)MIN(json_integer_value(json_object_get(j, "n_embd")), 1 << 20));
    if (!a->gpt2 && !json_is_integer(json_object_get(j, "intermediate_size")))
        return fail(ERR_FORMAT, "%s: there is no intermediate_size, which model.ffn.width needs", path);
    if (!strcmp(a->type, "mistral") && json_is_integer(window))
        s->item[s->n++] =
            arena_printf(s->a, "model.attention.window=%lld", (long long)json_integer_value(window));
    i64 context = json_integer_value(json_object_get(j, a->gpt2 ? "n_positions" : "max_position_embeddings"));
    if (context > 1 << 20)
        return fail(ERR_FORMAT, "%s: a context of %lld tokens; Keel holds at most %d", path,
                    (long long)context, 1 << 20);
    s->item[s->n++] =
        arena_printf(s->a, "train.batch_tokens=%lld", (long long)(context * MAX(1, 32768 / context)));
    return set_activation(s, a, path, j);
}

status hf_config(const hf_architecture *a, const char *path, const json_t *j, config **out)
{
    settings s = {0};
    TRY(check_demands(path, j));
    TRY(arena_open(&s.a));
    char *rest = arena_strdup(s.a, a->settings), *next;
    for (char *word = strtok_r(rest, " ", &next); word; word = strtok_r(NULL, " ", &next))
        s.item[s.n++] = word;
    status failed = OK;
    for (i64 i = 0; !failed && i < COUNT(key_rows); i++)
        failed = set_count(&s, path, j, &key_rows[i], a->gpt2);
    if (!failed) failed = set_rest(&s, a, path, j);
    if (!failed) failed = wrap(config_load(NULL, s.item, s.n, out), "%s", path);
    arena_close(s.a);
    return failed;
}

json_t *hf_describe(const hf_architecture *a, const config *c, i64 ffn_width, st_dtype type)
{
    const char *dtype = type == ST_F32 ? "float32" : type == ST_F16 ? "float16" : "bfloat16";
    double base = config_number(c, "model.position.base");
    json_t *j = json_pack("{s:[s], s:s, s:b, s:s, s:s}", "architectures", a->class, "model_type", a->type,
                          "tie_word_embeddings", config_flag(c, "model.tie_head"), "torch_dtype", dtype,
                          "dtype", dtype);
    i64 heads = config_count(c, "model.attention.heads"), kv = config_count(c, "model.attention.kv_heads");
    i64 width = config_count(c, "model.attention.head_width");
    for (i64 i = 0; i < COUNT(key_rows); i++) {
        const char *key = a->gpt2 ? key_rows[i].gpt2 : key_rows[i].key;
        i64 n = config_count(c, key_rows[i].keel);
        if (!key) continue;
        if (!strcmp(key_rows[i].keel, "model.ffn.width")) n = ffn_width;
        if (!strcmp(key, "num_key_value_heads") && kv < 0) n = heads;
        if (!strcmp(key, "head_dim") && width < 0) n = config_count(c, "model.width") / heads;
        json_object_set_new(j, key, json_integer(n));
    }
    json_object_set_new(j, a->gpt2 ? "layer_norm_epsilon" : "rms_norm_eps",
                        json_real(config_number(c, "model.norm.eps")));
    if (a->gpt2) {
        const char *f = config_text(c, "model.ffn.activation");
        json_object_set_new(j, "activation_function",
                            json_string(strcmp(f, "gelu") && strcmp(f, "relu") ? "gelu_new" : f));
        return j;
    }
    json_object_set_new(j, "hidden_act", json_string("silu"));
    json_object_set_new(j, "attention_bias", json_false());
    if (!strcmp(a->type, "llama")) json_object_set_new(j, "mlp_bias", json_false());
    if (base > 0) {
        json_object_set_new(j, "rope_theta", json_real(base));
        json_object_set_new(j, "rope_parameters",
                            json_pack("{s:s, s:f}", "rope_type", "default", "rope_theta", base));
    }
    i64 window = config_count(c, "model.attention.window");
    if (!strcmp(a->type, "mistral"))
        json_object_set_new(j, "sliding_window", window > 0 ? json_integer(window) : json_null());
    if (!strncmp(a->type, "qwen", 4)) json_object_set_new(j, "use_sliding_window", json_false());
    return j;
}

/* ---- names */

enum { PLAIN, MAP, Q, K, V };
static const struct name_row {
    const char *keel, *name, *gpt2; // behind "blocks.N.", "model.layers.N.", "h.N."; NULL: there is none
    int kind;                       // of GPT-2's: MAP is transposed; Q, K, V are parts of one
    bool whole;                     // not of a block
} name_rows[] = {
    {"embedding.weight", "model.embed_tokens.weight", "wte.weight", PLAIN, true},
    {"position.weight", NULL, "wpe.weight", PLAIN, true},
    {"norm_final.gain", "model.norm.weight", "ln_f.weight", PLAIN, true},
    {"norm_final.bias", NULL, "ln_f.bias", PLAIN, true},
    {"head.weight", "lm_head.weight", "lm_head.weight", PLAIN, true},
    {"attention.norm_pre.gain", "input_layernorm.weight", "ln_1.weight", PLAIN, false},
    {"attention.norm_pre.bias", NULL, "ln_1.bias", PLAIN, false},
    {"attention.norm_out.gain", "post_attention_layernorm.weight", NULL, PLAIN, false}, // OLMo 2
    {"attention.norm_q.gain", "self_attn.q_norm.weight", NULL, PLAIN, false},
    {"attention.norm_k.gain", "self_attn.k_norm.weight", NULL, PLAIN, false},
    {"attention.q.weight", "self_attn.q_proj.weight", "attn.c_attn.weight", Q, false},
    {"attention.k.weight", "self_attn.k_proj.weight", "attn.c_attn.weight", K, false},
    {"attention.v.weight", "self_attn.v_proj.weight", "attn.c_attn.weight", V, false},
    {"attention.q.bias", "self_attn.q_proj.bias", "attn.c_attn.bias", Q, false},
    {"attention.k.bias", "self_attn.k_proj.bias", "attn.c_attn.bias", K, false},
    {"attention.v.bias", "self_attn.v_proj.bias", "attn.c_attn.bias", V, false},
    {"attention.o.weight", "self_attn.o_proj.weight", "attn.c_proj.weight", MAP, false},
    {"attention.o.bias", NULL, "attn.c_proj.bias", MAP, false},
    {"ffn.norm_pre.gain", "post_attention_layernorm.weight", "ln_2.weight", PLAIN, false},
    {"ffn.norm_pre.bias", NULL, "ln_2.bias", PLAIN, false},
    {"ffn.norm_out.gain", "post_feedforward_layernorm.weight", NULL, PLAIN, false},
    {"ffn.gate.weight", "mlp.gate_proj.weight", NULL, MAP, false},
    {"ffn.up.weight", "mlp.up_proj.weight", "mlp.c_fc.weight", MAP, false},
    {"ffn.up.bias", NULL, "mlp.c_fc.bias", MAP, false},
    {"ffn.down.weight", "mlp.down_proj.weight", "mlp.c_proj.weight", MAP, false},
    {"ffn.down.bias", NULL, "mlp.c_proj.bias", MAP, false},
};

static void place_gpt2(const struct name_row *row, const tensor *t, i64 wide, i64 query, hf_place *p)
{
    i64 rows = t->dim[0];
    if (row->kind == PLAIN) return;
    if (row->kind != MAP) {
        p->offset = row->kind == Q ? 0 : row->kind == K ? query : query + (wide - query) / 2;
        rows = wide;
    }
    p->transposed = t->ndim == 2;
    p->dim[0] = p->transposed ? t->dim[1] : rows;
    p->dim[1] = rows;
}

status hf_place_of(const hf_architecture *a, const tensor *t, i64 wide, i64 query, hf_place *out)
{
    int layer = -1, skip = 0;
    bool block = sscanf(t->path, "blocks.%d.%n", &layer, &skip) == 1 && skip;
    for (i64 i = 0; i < COUNT(name_rows); i++) {
        const struct name_row *row = &name_rows[i];
        const char *name = a->gpt2 ? row->gpt2 : row->name;
        if (row->whole == block || !name || strcmp(row->keel, t->path + skip) || t->ndim > 2) continue;
        *out = (hf_place){.n_dims = t->ndim, .dim = {t->dim[0], t->ndim > 1 ? t->dim[1] : 1}};
        if (block)
            snprintf(out->name, sizeof out->name, a->gpt2 ? "h.%d.%s" : "model.layers.%d.%s", layer, name);
        else
            snprintf(out->name, sizeof out->name, "%s", name);
        if (a->gpt2) place_gpt2(row, t, wide, query, out);
        return OK;
    }
    return fail(ERR_CONFIG, "%s: an architecture %s has no such tensor", t->path, a->type);
}

i64 hf_place_index(const hf_place *p, i64 columns, i64 i)
{
    if (p->n_dims == 1) return p->offset + i;
    return p->transposed ? i % columns * p->dim[1] + p->offset + i / columns : i;
}

/* model_case: small models of several shapes, rows of documents to run them on, and a model made ready to
 * run: as a program, in double, or both, with weights that do not depend on which.
 *
 *     runner r;
 *     runner_open(&r, llama_like, NULL, &(runner_options){.shape = train_shape(&rows), .backward = true});
 *     runner_rows(&r, &rows);
 *     runner_program(&r);  runner_oracle(&r);               // both, on the same weights
 *     ... runner_gradient_error(&r) ...
 *     runner_close(&r);
 */
#pragma once
#include "check.h"
#include "base/random.h"
#include "config/config.h"
#include "graph/interpret.h"
#include "graph/program.h"
#include "model/model.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Bounds that one model needs wider than the others; each says why where it is set. */
typedef struct model_case {
    const char *name, *yaml;
    double bf16_gradient;  // error of the whole gradient in bf16; 0: 0.02
    double micro_gradient; // of a parameter's gradient in micro-batches against one batch; 0: 1e-6
    bool flat_mixes;       // gradients of what streams are read and carried on with nearly cancel
} model_case;
enum { CASE_VOCAB = 61, CASE_CONTEXT = 12, CASE_MOST = 256 };

static const model_case gpt2_like = {
    .name = "gpt2-like",
    .yaml = "model: {layers: 2, width: 32, vocab: 61, context: 12, bias: true, tie_head: true,\n"
            "        position: {kind: learned}, norm: {kind: layer, affine: scale_bias},\n"
            "        attention: {heads: 2}, ffn: {kind: mlp, activation: gelu_tanh, width: 80}}\n"};
static const model_case llama_like = {
    .name = "llama-like",
    .yaml = "model: {layers: 2, width: 32, vocab: 61, context: 12, tie_head: true, norm: {preset: pre_qk},\n"
            "        attention: {heads: 4, kv_heads: 2}, ffn: {width: 48}}\n"};
static const model_case olmo2_like = {
    .name = "olmo2-like",
    .yaml =
        "model: {layers: 2, width: 32, vocab: 61, context: 12, tie_head: false,\n"
        "        norm: {preset: olmo2}, attention: {heads: 4, kv_heads: 2, window: 5}, ffn: {width: 48},\n"
        "        head: {z_loss: 0.01}}\n"};
static const model_case frac_like = { // a layer of dynamic connections and one of static ones
    .name = "frac-like",
    .yaml = "model: {layers: 2, width: 32, vocab: 61, context: 12, residual: {kind: frac},\n"
            "        override: [{layers: 1, residual: {dynamic: false}, norm: {attn: [stream, pre], ffn: "
            "[post]}}],\n"
            "        attention: {heads: 4, kv_heads: 2}, ffn: {width: 48}}\n"};
static const model_case hyper_like = { // dynamic connections, then static ones and an out norm
    .name = "hyper-like",
    .yaml =
        "model: {layers: 2, width: 32, vocab: 61, context: 12, residual: {kind: hyper, streams: 3},\n"
        "        norm: {kind: layer, attn: [out], ffn: [out]},\n"
        "        override: [{layers: 1, residual: {dynamic: false}, norm: {attn: [pre], ffn: [pre, out]}}],\n"
        "        attention: {heads: 4, kv_heads: 2}, ffn: {width: 48}}\n",
    // copies of one stream at first: measured 0.2 of their own size, without it
    .flat_mixes = true};
static const model_case hybrid_like = {
    .name = "hybrid-like",
    .yaml =
        "model: {layers: 2, width: 32, vocab: 61, context: 12, norm: {preset: hybrid_star, context: head},\n"
        "        attention: {heads: 4, kv_heads: 2}, ffn: {width: 48}}\n"};
static const model_case phd_like = { // three copies that see only their own token's
    .name = "phd-like",
    .yaml = "model: {layers: 2, width: 32, vocab: 61, context: 12, repeat: {kind: phd, copies: 3, "
            "positions: expanded},\n"
            "        position: {kind: learned}, attention: {heads: 4, kv_heads: 2}, ffn: {width: 48}}\n"};
static const model_case cswa_like = { // and the copies of a window of tokens, in chunks
    .name = "cswa-like",
    .yaml =
        "model: {layers: 2, width: 32, vocab: 61, context: 12, repeat: {kind: phd, window: 3, chunk: 5},\n"
        "        attention: {heads: 4, kv_heads: 2, window: 7}, ffn: {width: 48}}\n"};
static const model_case sdd_like = { // of ordinary weights: at 0.1 times them differences are too coarse
    .name = "sdd-like",
    .yaml = "model: {layers: 2, width: 32, vocab: 61, context: 12, norm: {preset: sdd},\n"
            "        init: {std_factor: 1},\n"
            "        attention: {heads: 4, kv_heads: 2}, ffn: {width: 48}}\n"};
static const model_case norms_like = { // what a norm can carry; inner kinds
    .name = "norms-like",
    .yaml =
        "model: {layers: 2, width: 32, vocab: 61, context: 12, residual: {skip_scale: 1.3, branch_scale: "
        "convex},\n"
        "        norm: {preset: sandwich, kind: dyt, embedding: scale, affine: scale_bias, gate_rank: 4,\n"
        "               pre_affine: true, depth_scale: inv_sqrt, out_gain: 0.5, inner_kind: layer, q: head,\n"
        "               ffn_hidden: split},\n"
        "        override: [{layers: 1, norm: {kind: crms, attn: [stream, out], inner_kind: l2, v: full,\n"
        "                    ffn_hidden: fused}}],\n"
        "        attention: {heads: 4, kv_heads: 2}, ffn: {width: 48}}\n"};
static const model_case bhyt_like = {
    .name = "bhyt-like",
    .yaml = "model: {layers: 2, width: 32, vocab: 61, context: 12, norm: {preset: bhyt},\n"
            "        override: [{layers: 1, norm: {attn: [pre, post]}}],\n"
            "        attention: {heads: 4, kv_heads: 2}, ffn: {width: 48}}\n"};
static const model_case poly_like = { // PolyCom; poly_relu has a kink, which central differences cannot cross
    .name = "poly-like",
    .yaml = "model: {layers: 2, width: 32, vocab: 61, context: 12, attention: {heads: 4, kv_heads: 2},\n"
            "        ffn: {kind: mlp, activation: poly_norm, width: 48},\n"
            "        override: [{layers: 1, ffn: {order: 4}}]}\n"};
static const model_case moe_like = { // routed and shared experts, every term of the objective
    .name = "moe-like",
    .yaml = "model: {layers: 2, width: 32, vocab: 61, context: 12, attention: {heads: 4, kv_heads: 2},\n"
            "        ffn: {kind: moe, width: 16, experts: 4, top_k: 2, shared: 1, balance_weight: 0.1,\n"
            "              router_z: 0.01}}\n"};
static const model_case moe_bias_like = { // sigmoids, a bias that selects, normed logits; experts with biases
    .name = "moe-bias-like",
    .yaml =
        "model: {layers: 2, width: 32, vocab: 61, context: 12, bias: true,\n"
        "        attention: {heads: 4, kv_heads: 2},\n"
        "        ffn: {kind: moe, width: 16, experts: 5, top_k: 2, router: sigmoid, balance: bias, "
        "logit_norm: "
        "1,\n"
        "              router_z: 0.01},\n"
        "        override: [{layers: 1, ffn: {expert_kind: mlp, activation: gelu, router: softmax_raw}}]}\n",
    // measured: 1.8e-6, a key's bias: a difference of nearly equal terms
    .micro_gradient = 2e-6};
static const model_case over_encoding_like = { // tables smaller than the step's look-ups: rows repeat
    .name = "over-encoding",
    .yaml = "model: {layers: 2, width: 32, vocab: 61, context: 12, tie_head: true, norm: {preset: pre_qk},\n"
            "        embedding: {kind: over_encoding, order: 3, splits: 2, slots: 17},\n"
            "        attention: {heads: 4, kv_heads: 2}, ffn: {width: 48}}\n"};
static const model_case over_tokenized_like = {
    .name = "over-tokenized",
    .yaml = "model: {layers: 2, width: 32, vocab: 61, context: 12, tie_head: false, norm: {preset: pre},\n"
            "        embedding: {kind: over_encoding, order: 2, splits: 2, slots: 40, combine: concat},\n"
            "        head: {predict: 3, predict_kind: mtp, predict_weight: 0.3}, attention: {heads: 2}, ffn: "
            "{width: "
            "48}}\n"};
static const model_case over_decoding_like = {
    .name = "over-decoding",
    .yaml = "model: {layers: 2, width: 32, vocab: 61, context: 12, tie_head: true, norm: {preset: pre},\n"
            "        embedding: {kind: over_encoding, order: 3, splits: 1, slots: 23, combine: normsum},\n"
            "        head: {predict: 3, predict_weight: 0.5}, attention: {heads: 2}, ffn: {width: 48}}\n"};
static const model_case pkm_like = { // a norm of its own, as olmo2 has none before the feed-forward
    .name = "pkm-like",
    .yaml = "model: {layers: 2, width: 32, vocab: 61, context: 12, norm: {preset: olmo2},\n"
            "        attention: {heads: 2}, ffn: {width: 48},\n"
            "        memory: {kind: pkm, spans: [0:0], keys: 5, key_width: 8, value_width: 32, top: 3}}\n",
    // measured: 1.02e-6, the gain of a key's norm, with plain kernels that do not contract products and sums
    .micro_gradient = 1.2e-6};
static const model_case ultramem_like = {
    .name = "ultramem-like",
    .yaml = "model: {layers: 2, width: 32, vocab: 61, context: 12, attention: {heads: 2}, ffn: {width: 48},\n"
            "        memory: {kind: ultramem, spans: [0:1], keys: 5, key_width: 8, value_width: 12, top: 3,\n"
            "                 aux_weight: 0.5, aux_margin: 0.05}}\n"};
static const model_case moe_sdd_like = { // norms of every expert's maps, before the routing weight
    .name = "moe-sdd-like",
    .yaml = "model: {layers: 2, width: 32, vocab: 61, context: 12, norm: {preset: sdd},\n"
            "        init: {std_factor: 1}, attention: {heads: 4, kv_heads: 2},\n"
            "        ffn: {kind: moe, width: 16, experts: 3, top_k: 2, shared: 1, balance_weight: 0.1}}\n",
    // measured: 0.022, where each map of each expert is normed
    .bf16_gradient = 0.025};

static const model_case ultramem_v2_like = { // both layers see parts of one table, which overlap
    .name = "ultramem-v2",
    .yaml = "model: {layers: 2, width: 32, vocab: 61, context: 12, attention: {heads: 2}, ffn: {width: 48},\n"
            "        memory: {kind: ultramem_v2, keys: 4, key_width: 16, value_width: 12, pre_width: 12, "
            "top: 3,\n"
            "                 share_ratio: 0.6}}\n"};

static const model_case sdd_linear_like = { // k alone of q, k, v, which are one product
    .name = "sdd-linear-like",
    .yaml = "model: {layers: 2, width: 32, vocab: 61, context: 12, linear: {kind: sdd, at: [k, o, ffn]},\n"
            "        bias: true, attention: {heads: 4, kv_heads: 2}, ffn: {width: 48}}\n"};
static const model_case mup_like = { // twice its base: scores, tied head and branches are scaled
    .name = "mup-like",
    .yaml = "model: {layers: 2, width: 32, vocab: 61, context: 12, tie_head: true,\n"
            "        attention: {heads: 4, kv_heads: 2}, ffn: {width: 48}}\n"
            "train: {transfer: {kind: mup, base_width: 16, depth_exponent: 0.5}}\n"};
static const model_case model_cases[] = {gpt2_like,
                                         llama_like,
                                         olmo2_like,
                                         frac_like,
                                         hyper_like,
                                         hybrid_like,
                                         phd_like,
                                         cswa_like,
                                         sdd_like,
                                         norms_like,
                                         bhyt_like,
                                         poly_like,
                                         moe_like,
                                         moe_bias_like,
                                         moe_sdd_like,
                                         over_encoding_like,
                                         over_tokenized_like,
                                         over_decoding_like,
                                         pkm_like,
                                         ultramem_like,
                                         ultramem_v2_like,
                                         sdd_linear_like,
                                         mup_like};

static inline config *case_config(model_case m, const char *const *overrides, i64 n)
{
    config *c;
    assert_ok(config_parse(m.name, m.yaml, strlen(m.yaml), overrides, n, &c));
    return c;
}

/* ---- rows */
typedef struct case_rows {
    i64 rows, tokens, n_valid;
    i32 token[CASE_MOST], target[CASE_MOST], start[CASE_MOST], position[CASE_MOST];
} case_rows;

/* Rows of random tokens. STARTS: for each row as many document starts as it has, then -1. */
static inline void rows_make(case_rows *x, i64 rows, i64 tokens, const i32 *starts, u64 seed)
{
    u64 stream = random_stream("model_case");
    *x = (case_rows){.rows = rows, .tokens = tokens};
    assert_true(rows * tokens <= CASE_MOST);
    for (i64 i = 0; i < rows * tokens; i++)
        x->token[i] = (i32)(random_bits(seed, stream, 0, (u64)i) % CASE_VOCAB);
    for (i64 r = 0; r < rows; r++, starts++)
        for (; *starts >= 0; starts++)
            for (i64 t = *starts; t < tokens; t++) x->start[r * tokens + t] = *starts;
    for (i64 i = 0; i < rows * tokens; i++) {
        i64 t = i % tokens;
        bool ends = t + 1 == tokens || x->start[i + 1] != x->start[i];
        x->position[i] = (i32)t - x->start[i];
        x->target[i] = ends ? -1 : x->token[i + 1];
        x->n_valid += !ends;
    }
}

/* Three rows of eleven: several documents, one, and one that starts with a document of one token. */
static inline void rows_mixed(case_rows *x)
{
    rows_make(x, 3, 11, (i32[]){0, 4, 9, -1, 0, -1, 0, 1, 6, -1}, 7);
}

/* ---- a model ready to run */
typedef struct runner_options {
    model_shape shape;
    bool backward, fuse;
    recompute_policy policy;
    int every;
    isa level;
    device *device; // NULL: no program
    bool oracle;
} runner_options;

typedef struct runner {
    arena *arena;
    config *c;
    model m;
    store *s;
    program *p;
    oracle *o;
    i64 rewrites;
} runner;

static inline model_shape case_shape(const case_rows *x, mode mode, dtype act)
{
    return (model_shape){.rows = x->rows,
                         .tokens = x->tokens,
                         .mode = mode,
                         .act = act,
                         .stream = act,
                         .logits = true,
                         .dense_gradients = true};
}

/* Initial weights, and what starts from a constant (gains, biases, connections) away from it, so that every
 * term of a gradient counts. Connections less far: mixtures of streams that are nearly equal could vanish for
 * some token, and a norm of next to nothing is too crooked for differences. */
static inline void runner_weights(store *s)
{
    store_initialize(s, 3);
    for (i64 i = 0; i < s->n_params; i++) {
        u64 stream = random_stream(s->entry[i].path);
        double by = strstr(s->entry[i].path, ".residual.") ? 0.1 : 0.2;
        for (i64 k = 0; k < s->entry[i].count && !(s->entry[i].param.std > 0); k++)
            s->entry[i].master[k] += (float)(by * random_normal(5, stream, 1, (u64)k));
    }
    store_sync(s);
}

/* Indices that ops select stay readable after a run, for runner_hold. */
static inline void runner_keep_indices(runner *r)
{
    for (i64 i = 0; i < r->m.g->n_nodes; i++) {
        const node *n = r->m.g->nodes[i];
        for (int k = 0; k < n->n_out && n->def->flags & OP_SELECTS; k++)
            if (n->out[k] && n->out[k]->dtype == DT_I32) n->out[k]->keep = true;
    }
}

static inline void runner_open(runner *r, model_case m, const char *const *overrides, i64 n,
                               const runner_options *o)
{
    *r = (runner){0};
    assert_ok(arena_open(&r->arena));
    r->c = case_config(m, overrides, n);
    assert_ok(model_build(r->arena, r->c, &o->shape, &r->m));
    if (o->backward) {
        assert_ok(graph_backward(r->m.g, NULL, NULL, 0));
        assert_ok(graph_recompute(r->m.g, o->policy, o->every));
    }
    if (o->fuse) assert_ok(graph_rewrite(r->m.g, &r->rewrites));
    assert_ok(graph_verify(r->m.g));
    assert_ok(store_open(r->arena, r->m.g, o->backward ? STORE_GRADIENTS : 0, &r->s));
    runner_weights(r->s);
    if (o->device && o->oracle) runner_keep_indices(r);
    if (o->device) {
        program_options p = {.device = o->device, .isa = o->level};
        assert_ok(program_open(r->m.g, r->s, &p, &r->p));
    }
    if (!o->oracle) return;
    assert_ok(oracle_open(r->m.g, &r->o));
    for (i64 i = 0; i < r->m.g->n_tensors; i++) {
        const tensor *t = r->m.g->tensors[i];
        for (i64 k = 0; t->role == ROLE_PARAM && k < count(t); k++)
            oracle_data(r->o, t)[k] = store_find(r->s, t->path)->master[k];
    }
}

static inline void runner_close(runner *r)
{
    oracle_close(r->o);
    program_close(r->p);
    store_close(r->s);
    graph_close(r->m.g);
    config_close(r->c);
    arena_close(r->arena);
}

static inline void runner_input(runner *r, const tensor *t, const i32 *from)
{
    for (i64 i = 0; t && i < count(t); i++) {
        if (r->p) ((i32 *)program_data(r->p, t))[i] = from[i];
        if (r->o) oracle_data(r->o, t)[i] = from[i];
    }
}

static inline void runner_rows_counted(runner *r, const case_rows *x, i64 n_valid)
{
    runner_input(r, r->m.tokens, x->token);
    runner_input(r, r->m.position, x->position);
    runner_input(r, r->m.doc_start, x->start);
    runner_input(r, r->m.targets, x->target);
    if (!r->m.inverse_count) return;
    if (r->p) *(float *)program_data(r->p, r->m.inverse_count) = (float)(1 / (double)n_valid);
    if (r->o) *oracle_data(r->o, r->m.inverse_count) = 1 / (double)n_valid;
}
static inline void runner_rows(runner *r, const case_rows *x) { runner_rows_counted(r, x, x->n_valid); }

static inline void runner_program(runner *r)
{
    if (r->s->grad) memset(r->s->grad, 0, (size_t)r->s->elements * sizeof *r->s->grad);
    program_zero_tallies(r->p);
    program_run(r->p, &(step_info){.seed = 1}, PHASE_BACKWARD);
}
/* What the program selected is what the double interpreter takes from now on: scores that rounding brings
 * close may come out in another order. */
static inline void runner_hold(runner *r)
{
    for (i64 i = 0; i < r->m.g->n_nodes; i++) {
        const node *n = r->m.g->nodes[i];
        for (int k = 0; k < n->n_out && n->def->flags & OP_SELECTS; k++) {
            const tensor *t = n->out[k];
            for (i64 j = 0; t && t->dtype == DT_I32 && j < count(t); j++)
                oracle_data(r->o, t)[j] = ((const i32 *)program_data(r->p, t))[j];
        }
    }
    oracle_hold(r->o, true);
}
static inline void runner_oracle(runner *r) { assert_ok(oracle_run(r->o, &(step_info){.seed = 1}, true)); }
static inline double runner_objective(runner *r)
{
    assert_ok(oracle_run(r->o, &(step_info){.seed = 1}, false));
    return *oracle_data(r->o, r->m.objective);
}

static inline const float *runner_logits(const runner *r) { return program_data(r->p, r->m.logits); }
static inline const float *runner_gradient(const runner *r, const char *path)
{
    const stored *e = store_find(r->s, path);
    assert_non_null(e);
    return e->grad;
}

/* ||a - b|| / ||b|| */
static inline double relative_error(const float *a, const double *b, i64 n)
{
    double off = 0, norm = 0;
    for (i64 i = 0; i < n; i++) off += (a[i] - b[i]) * (a[i] - b[i]), norm += b[i] * b[i];
    return sqrt(off) / sqrt(norm);
}
static inline double relative_error_f32(const float *a, const float *b, i64 n)
{
    double off = 0, norm = 0;
    for (i64 i = 0; i < n; i++) off += pow((double)a[i] - b[i], 2), norm += (double)b[i] * b[i];
    return sqrt(off) / sqrt(norm);
}

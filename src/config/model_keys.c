/* The keys of the model block, one table a slot, and the model and norm presets.
 *
 * Sources of the preset shapes: GPT-2, Radford et al. 2019 (124M and 350M as released); llama-135m has the
 * shape of SmolLM-135M (30 x 576, 9 heads, 3 key-value heads); llama-10m is Keel's own small model for CPUs.
 */
#include "config/config.h"

const config_key model_keys[] = {
    {"model.preset", KEY_CHOICE, "none", "none gpt2-124m gpt2-350m llama-10m llama-135m",
     .help = "a known shape; sets the keys listed under Presets, each of which may still be overridden"},
    {"model.layers", KEY_COUNT, "12", .min = 1, .max = 1000, .unit = "blocks", .help = "transformer blocks"},
    {"model.width", KEY_COUNT, "384", .min = 1, .max = 65536, .unit = "values",
     .help = "width of the residual stream"},
    {"model.context", KEY_COUNT, "512", .min = 1, .max = 1 << 20, .unit = "tokens",
     .help = "length of a sequence"},
    {"model.vocab", KEY_COUNT, "auto", "auto", .min = 1, .max = 1 << 24, .unit = "tokens",
     .help = "rows of the embedding; auto: the tokenizer's size"},
    {"model.bias", KEY_CHOICE, "false", "false true qkv",
     .help = "biases in linear maps; qkv: only in the projections to queries, keys and values"},
    {"model.tie_head", KEY_BOOL, "true", .help = "the head shares the embedding's matrix"},
    {"model.dropout", KEY_NUMBER, "0", .max = 0.99, .unit = "probability",
     .help = "dropout after the embedding, attention and feed-forward"},
    {"model.override", KEY_LIST, "[]",
     .help = "keys that differ in some layers: items of {layers, norm / residual / attention / ffn keys}; "
             "later items win"},
    {"model.override[].layers", KEY_LAYERS, "all", "all",
     .help = "the layers an item is for; -1 is the last"},
    {0},
};

const config_key position_keys[] = {
    {"model.position.kind", KEY_CHOICE, "rope", "rope learned none",
     .help = "how positions enter: rotated queries and keys, a learned table, or not at all",
     .source = "rope: Su et al., arXiv:2104.09864"},
    {"model.position.base", KEY_NUMBER, "10000", .min = 1, .max = 1e12,
     .help = "base of the rotation's wavelengths", .source = "arXiv:2104.09864",
     .only = "model.position.kind=rope"},
    {0},
};

const config_key init_keys[] = {
    {"model.init.kind", KEY_CHOICE, "normal", "normal megatron depth mitchell",
     .help =
         "standard deviation of each matrix: normal: one for all; megatron: outputs to the stream divided by "
         "sqrt(2 layers); depth: by sqrt(2 l), l the layer from 1; mitchell: 1/sqrt(inputs), and depth",
     .source = "megatron: Shoeybi et al., arXiv:1909.08053; mitchell: OLMo, arXiv:2402.00838"},
    {"model.init.std", KEY_NUMBER, "auto", "auto", .min = 1e-9, .max = 10, .help = "auto: 1/sqrt(2.5 width)",
     .source = "HybridNorm, arXiv:2503.04598", .only = "model.init.kind=normal megatron depth"},
    {"model.init.std_factor", KEY_NUMBER, "1", .min = 1e-9, .max = 1e3, .help = "multiplies every deviation"},
    {"model.init.truncate", KEY_NUMBER, "3", "none", .min = 0.1, .max = 100, .unit = "deviations",
     .help = "draws beyond this are drawn again"},
    {0},
};

const config_key norm_keys[] = {
    {"model.norm.preset", KEY_CHOICE, "pre", "pre pre_qk post olmo2",
     .help = "a known placement; sets the keys listed under Presets",
     .source = "pre_qk: Henry et al., arXiv:2010.04245; olmo2: arXiv:2501.00656"},
    {"model.norm.kind", KEY_CHOICE, "rms", "rms layer none", .help = "what the norms of the stream compute",
     .source = "rms: Zhang and Sennrich, arXiv:1910.07467; layer: Ba et al., arXiv:1607.06450"},
    {"model.norm.eps", KEY_NUMBER, "1e-5", .max = 1, .help = "added to the mean square inside the root"},
    {"model.norm.affine", KEY_CHOICE, "scale", "scale none scale_bias",
     .help = "what is learned: a gain, nothing, a gain and a bias"},
    {"model.norm.attn", KEY_CHOICES, "pre", "stream pre out post",
     .help = "norms around attention: stream: of the stream itself; pre: of the branch's input; out: of its "
             "output; "
             "post: after the addition"},
    {"model.norm.ffn", KEY_CHOICES, "pre", "stream pre out post", .help = "norms around the feed-forward"},
    {"model.norm.q", KEY_CHOICE, "none", "none head full",
     .help = "norm of the queries, over each head or over the whole width", .source = "arXiv:2010.04245"},
    {"model.norm.k", KEY_CHOICE, "none", "none head full", .help = "norm of the keys",
     .source = "arXiv:2010.04245"},
    {"model.norm.embedding", KEY_BOOL, "false", .help = "a norm after the embedding"},
    {"model.norm.final", KEY_BOOL, "true", .help = "a norm before the head"},
    {0},
};

const config_key linear_keys[] = {
    {"model.linear.kind", KEY_CHOICE, "dense", "dense", .help = "what a linear map is"},
    {0},
};

const config_key residual_keys[] = {
    {"model.residual.kind", KEY_CHOICE, "add", "add", .help = "how a branch joins the stream"},
    {0},
};

const config_key attention_keys[] = {
    {"model.attention.kind", KEY_CHOICE, "softmax", "softmax", .help = "what attention computes",
     .source = "Vaswani et al., arXiv:1706.03762"},
    {"model.attention.heads", KEY_COUNT, "6", .min = 1, .max = 4096, .unit = "heads",
     .help = "heads of queries"},
    {"model.attention.kv_heads", KEY_COUNT, "auto", "auto", .min = 1, .max = 4096, .unit = "heads",
     .help = "heads of keys and values, each shared by heads/kv_heads queries; auto: as many as heads",
     .source = "Ainslie et al., arXiv:2305.13245"},
    {"model.attention.head_width", KEY_COUNT, "auto", "auto", .min = 1, .max = 4096, .unit = "values",
     .help = "auto: width/heads"},
    {"model.attention.window", KEY_COUNT, "none", "none", .min = 1, .max = 1 << 20, .unit = "tokens",
     .help = "a token sees itself and the window-1 tokens before it; none: all before it"},
    {"model.attention.scale", KEY_NUMBER, "inv_sqrt", "inv_sqrt inv", .min = 1e-9, .max = 1e3,
     .help = "factor of the scores: 1/sqrt(head_width), 1/head_width, or a number"},
    {0},
};

const config_key ffn_keys[] = {
    {"model.ffn.kind", KEY_CHOICE, "gated", "gated mlp",
     .help = "gated: W3 (act(W1 x) * W2 x); mlp: W2 act(W1 x)", .source = "gated: Shazeer, arXiv:2002.05202"},
    {"model.ffn.activation", KEY_CHOICE, "silu", "silu gelu gelu_tanh relu",
     .help = "the function between the maps", .source = "gelu: Hendrycks and Gimpel, arXiv:1606.08415"},
    {"model.ffn.width", KEY_COUNT, "auto", "auto", .min = 1, .max = 1 << 20, .unit = "values",
     .help = "inner width; auto: gated: 8/3 width, up to a multiple of 64; mlp: 3/2 of that"},
    {0},
};

const config_key embedding_keys[] = {
    {"model.embedding.kind", KEY_CHOICE, "table", "table", .help = "how a token becomes a vector"},
    {0},
};

const config_key head_keys[] = {
    {"model.head.kind", KEY_CHOICE, "softmax", "softmax", .help = "how a vector becomes probabilities"},
    {"model.head.z_loss", KEY_NUMBER, "0", .max = 1,
     .help = "weight of log(Z)^2 in the loss, Z the softmax's denominator",
     .source = "PaLM, arXiv:2204.02311"},
    {0},
};

const config_preset model_presets[] = {
    {"model.preset", "gpt2-124m",
     "model.layers=12 model.width=768 model.context=1024 model.vocab=50257 model.bias=true "
     "model.tie_head=true "
     "model.position.kind=learned model.init.kind=megatron model.init.std=0.02 model.init.truncate=none "
     "model.norm.kind=layer model.norm.affine=scale_bias model.attention.heads=12 model.ffn.kind=mlp "
     "model.ffn.activation=gelu_tanh model.ffn.width=3072 train.batch_tokens=32Ki train.optimizer.lr=6e-4 "
     "data.vocab=50257"},
    {"model.preset", "gpt2-350m",
     "model.layers=24 model.width=1024 model.context=1024 model.vocab=50257 model.bias=true "
     "model.tie_head=true "
     "model.position.kind=learned model.init.kind=megatron model.init.std=0.02 model.init.truncate=none "
     "model.norm.kind=layer model.norm.affine=scale_bias model.attention.heads=16 model.ffn.kind=mlp "
     "model.ffn.activation=gelu_tanh model.ffn.width=4096 train.batch_tokens=32Ki train.optimizer.lr=3e-4 "
     "data.vocab=50257"},
    {"model.preset", "llama-10m",
     "model.layers=8 model.width=256 model.context=256 model.vocab=16Ki model.tie_head=true "
     "model.attention.heads=4 "
     "model.attention.kv_heads=2 model.ffn.width=704 train.batch_tokens=8Ki train.optimizer.lr=3e-3 "
     "data.vocab=16Ki"},
    {"model.preset", "llama-135m",
     "model.layers=30 model.width=576 model.context=2048 model.vocab=49152 model.tie_head=true "
     "model.attention.heads=9 model.attention.kv_heads=3 model.ffn.width=1536 train.batch_tokens=32Ki "
     "train.optimizer.lr=1e-3 data.vocab=49152"},
    {0},
};

const config_preset norm_presets[] = {
    {"model.norm.preset", "pre",
     "model.norm.attn=[pre] model.norm.ffn=[pre] model.norm.q=none model.norm.k=none "
     "model.norm.embedding=false "
     "model.norm.final=true"},
    {"model.norm.preset", "pre_qk",
     "model.norm.attn=[pre] model.norm.ffn=[pre] model.norm.q=head model.norm.k=head "
     "model.norm.embedding=false "
     "model.norm.final=true"},
    {"model.norm.preset", "post",
     "model.norm.attn=[post] model.norm.ffn=[post] model.norm.q=none model.norm.k=none "
     "model.norm.embedding=false "
     "model.norm.final=false"},
    {"model.norm.preset", "olmo2",
     "model.norm.attn=[out] model.norm.ffn=[out] model.norm.q=full model.norm.k=full "
     "model.norm.embedding=false "
     "model.norm.final=true model.init.kind=normal model.init.std=0.02 model.head.z_loss=1e-5"},
    {0},
};

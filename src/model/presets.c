/* Known shapes: GPT-2 (Radford et al. 2019, 124M and 350M as released), llama-135m (the shape of
 * SmolLM-135M), and llama-10m, Keel's own small model for a few minutes on a CPU. */
#include "config/config.h"

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
     "model.attention.heads=4 model.attention.kv_heads=2 model.ffn.width=704 train.batch_tokens=2Ki "
     "train.optimizer.lr=3e-3 data.vocab=16Ki"},
    {"model.preset", "llama-135m",
     "model.layers=30 model.width=576 model.context=2048 model.vocab=49152 model.tie_head=true "
     "model.attention.heads=9 model.attention.kv_heads=3 model.ffn.width=1536 train.batch_tokens=32Ki "
     "train.optimizer.lr=1e-3 data.vocab=49152"},
    {0},
};

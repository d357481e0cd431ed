#!/bin/sh
# cli_export.sh KEEL: small models of every architecture go out as a folder of Hugging Face's and as a GGUF file and come
# back with the same weights to the bit and the same evaluation; shards; models that no architecture computes; damaged
# folders and files.
set -eu
keel=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export OMP_NUM_THREADS=1 KEEL_REGISTRY="$work/runs.db"
unset KEEL_FAULT
bad=0
complain() {
    echo "$1" >&2
    sed 's/^/    /' out err >&2
    bad=$((bad + 1))
}
expect() {
    want=$1 got=0
    shift
    "$keel" "$@" >out 2>err </dev/null || got=$?
    [ "$got" = "$want" ] || complain "keel $*: exit code $got, expected $want"
}
refused() {
    want=$1 message="keel: $2"
    shift 2
    expect "$want" "$@"
    [ "$(tail -n 1 err)" = "$message" ] || complain "keel $*: not '$message'"
}
awk 'BEGIN {
    all = "the sea is wide and the keel is deep; an old ship goes far out where no wind blows. "; x = 7
    for (i = 0; i < 2000; i++) {
        x = (x * 16807) % 2147483647
        printf "%s%s", substr(all, 1 + x % 60, 4 + int(x / 64) % 17), i % 9 ? " " : "\n\n"
    }
}' >corpus.txt
train() { # NAME MODEL [TRAIN]: a run NAME of that model, a few steps, so that no gain is 1 and no bias 0
    cat >"$1.yaml" <<YAML
model: {layers: 2, width: 32, context: 32, $2}
train: {steps: 6, batch_tokens: 256, precision: f32${3:+, $3}}
data: {train: corpus.txt, vocab: 300, document: blank_line, validation: 10%}
YAML
    expect 0 train "$1.yaml" --out "$1"
}
weights() { ls -d "$1"/step_*/model.safetensors | sort -V | tail -n 1; }

both() { # ARCHITECTURE MODEL
    train "$1" "$2"
    expect 0 export "$1" --out "$1-out"
    grep -q "\"model_type\": \"$1\"" "$1-out/config.json" || complain "$1: exported as something else"
    expect 0 import "$1-out" --out "$1-in"
    cmp -s "$(weights "$1")" "$(weights "$1-in")" || complain "$1: other weights after export and import"
    expect 0 eval perplexity "$1" --json
    grep -o '"loss":[^,]*' out >before
    expect 0 eval perplexity "$1-in" --json --precision f32 --data "$(echo "$1"/data/shards-*)"
    grep -o '"loss":[^,]*' out >after
    cmp -s before after || complain "$1: another loss after export and import"
    cp before loss
    "$keel" generate "$1" --prompt 'the sea' --max-tokens 12 --temperature 0 --precision f32 >before 2>err || complain "$1: generate"
    "$keel" generate "$1-in" --prompt 'the sea' --max-tokens 12 --temperature 0 --precision f32 >after 2>err || complain "$1-in: generate"
    cmp -s before after || complain "$1: generates another text after export and import"
    expect 0 export "$1-in" --out "$1-again"
    for f in config.json model.safetensors tokenizer.json generation_config.json; do
        cmp -s "$1-out/$f" "$1-again/$f" || complain "$1: the second export's $f differs"
    done
}
# the same as a GGUF file
gguf() { # ARCHITECTURE
    expect 0 export "$1" --out "$1.gguf"
    expect 0 import "$1.gguf" --out "$1-gguf"
    cmp -s "$(weights "$1")" "$(weights "$1-gguf")" || complain "$1: other weights after GGUF"
    "$keel" generate "$1-gguf" --prompt 'the sea' --max-tokens 12 --temperature 0 --precision f32 >after 2>err || complain "$1-gguf: generate"
    cmp -s before after || complain "$1: generates another text after GGUF"
    expect 0 eval perplexity "$1-gguf" --json --precision f32 --data "$(echo "$1"/data/shards-*)"
    grep -o '"loss":[^,]*' out >loss-after
    cmp -s loss loss-after || complain "$1: another loss after GGUF"
    expect 0 export "$1-gguf" --to gguf --out "$1-again.gguf"
    cmp -s "$1.gguf" "$1-again.gguf" || complain "$1: the second export to GGUF differs"
    for t in f16 bf16 q8_0 q4_0; do # rounding once more changes nothing
        expect 0 export "$1" --dtype $t --out "$1-$t.gguf"
        expect 0 import "$1-$t.gguf" --out "$1-$t"
        expect 0 export "$1-$t" --dtype $t --out "$1-$t-again.gguf"
        cmp -s "$1-$t.gguf" "$1-$t-again.gguf" || complain "$1: $t is rounded twice"
    done
}
both gpt2 'bias: true, position: {kind: learned}, norm: {kind: layer, affine: scale_bias}, attention: {heads: 2}, ffn: {kind: mlp, activation: gelu_tanh, width: 80}'
gguf gpt2
both llama 'tie_head: false, norm: {eps: 1e-6}, position: {base: 5e5}, attention: {heads: 4, kv_heads: 2}, ffn: {width: 48}'
gguf llama
both qwen2 'bias: qkv, attention: {heads: 4, kv_heads: 2}, ffn: {width: 48}'
gguf qwen2
both qwen3 'norm: {preset: pre_qk}, attention: {heads: 4, kv_heads: 2, head_width: 16}, ffn: {width: 48}'
gguf qwen3
both olmo2 'tie_head: false, norm: {preset: olmo2}, attention: {heads: 4, kv_heads: 2}, ffn: {width: 48}'
gguf olmo2
both mistral 'attention: {heads: 4, kv_heads: 2, window: 7}, ffn: {width: 48}'

# bf16 loses what bf16 does, and no more: exporting what came back changes nothing
expect 0 export llama --dtype bf16 --out half
expect 0 import half --out half-in
expect 0 export half-in --dtype bf16 --out half-again
cmp -s half/model.safetensors half-again/model.safetensors || complain "bf16 is rounded twice"

# f16 too, and the folder says so
expect 0 export llama --dtype f16 --out half16
grep -q '"dtype": "float16"' half16/config.json || complain "f16: config.json says otherwise"
expect 0 import half16 --out half16-in
expect 0 export half16-in --dtype f16 --out half16-again
cmp -s half16/model.safetensors half16-again/model.safetensors || complain "f16 is rounded twice"

# shards and their index
for name in llama gpt2; do
    expect 0 export $name --shard 20k --out $name-shards
    n=$(ls $name-shards/model-*.safetensors | wc -l)
    [ -e $name-shards/model-0000$n-of-0000$n.safetensors ] && [ "$n" -gt 4 ] || complain "$name: $n shards of 20 kB"
    [ ! -e $name-shards/model.safetensors ] || complain "$name: shards and the whole"
    expect 0 import $name-shards --out $name-shards-in
    cmp -s "$(weights $name)" "$(weights $name-shards-in)" || complain "$name: other weights from shards"
done
expect 2 export llama --shard 20k --out x.gguf

# what stands beside the tensors
for line in '"eos_token": "<|endoftext|>"' '"bos_token": null' '"tokenizer_class": "PreTrainedTokenizerFast"' \
    '"model_max_length": 32'; do
    grep -qF "$line" llama-out/tokenizer_config.json || complain "tokenizer_config.json lacks $line"
done
grep -qF '"eos_token_id": 0' llama-out/generation_config.json || complain "generation_config.json lacks the end of text"
grep -qF '"bos_token_id": null' llama-out/config.json || complain "config.json leaves bos_token_id to a class"

# ---- models that no architecture computes
train relu 'attention: {heads: 2}, ffn: {width: 48, activation: relu}'
refused 1 'relu/step_6: no architecture of Hugging Face computes this model; nearest is llama: model.ffn.activation is relu (would have to be silu)' \
    export relu --out x

refused 1 'relu/step_6: no architecture of GGUF computes this model; nearest is llama: model.ffn.activation is relu (would have to be silu)' \
    export relu --out x.gguf
refused 1 'mistral/step_6: no architecture of GGUF computes this model; nearest is llama: model.attention.window is 7 (would have to be none)' \
    export mistral --to gguf --out x
train gelu 'bias: true, position: {kind: learned}, norm: {kind: layer, affine: scale_bias}, attention: {heads: 2}, ffn: {kind: mlp, activation: gelu, width: 80}'
refused 1 'gelu/step_6: no architecture of GGUF computes this model; nearest is gpt2: model.ffn.activation is gelu (would have to be gelu_tanh)' \
    export gelu --out x.gguf
# muP: refused where its factors are in what the model computes, exported where they are in the weights alone
train mup 'tie_head: false, attention: {heads: 2}, ffn: {width: 48}' 'transfer: {kind: mup, base_width: 16}'
refused 1 'mup/step_6: no architecture of Hugging Face computes this model; nearest is llama: train.transfer.kind is mup (would have to be none)' \
    export mup --out x
train mup_plain 'tie_head: false, attention: {heads: 2, head_width: 16}, ffn: {width: 48}' 'transfer: {kind: mup, base_width: 16}'
expect 0 export mup_plain --out mup_plain-out
[ ! -e x ] && [ ! -e x.gguf ] || complain "a refused export leaves a file"
expect 2 export llama --dtype q8_0 --out x
[ "$(head -n 1 err)" = "keel export: --dtype=q8_0: a folder of Hugging Face's holds f32, f16 or bf16; add --to=gguf" ] ||
    complain "q8_0 in a folder"

# OLMo 2 with a tied head: its GGUF holds the head twice, and comes back untied, computing the same
train tied 'norm: {preset: olmo2}, attention: {heads: 4, kv_heads: 2}, ffn: {width: 48}'
expect 0 export tied --out tied.gguf
expect 0 import tied.gguf --out tied-gguf
"$keel" generate tied --prompt 'the sea' --max-tokens 12 --temperature 0 --precision f32 >before 2>err || complain "tied: generate"
"$keel" generate tied-gguf --prompt 'the sea' --max-tokens 12 --temperature 0 --precision f32 >after 2>err || complain "tied-gguf: generate"
cmp -s before after || complain "tied: generates another text after GGUF"

# ---- GGUF files that are damaged or ask for something else
damaged() { # FROM TO MESSAGE: the first FROM in the file becomes TO, of the same length
    rm -rf x
    LC_ALL=C sed "s/$1/$2/" llama.gguf >b.gguf
    refused 1 "b.gguf: $3" import b.gguf --out x
    [ ! -e x ] || complain "a refused import leaves a folder"
}
damaged 'llama\.block_count' 'llama.block_counT' 'there is no key llama.block_count'
damaged 'llama' 'mamba' 'general.architecture is mamba; there are gpt2, llama, qwen2, qwen3, olmo2'
damaged 'tokenizer.ggml.pre' 'tokenizer.ggml.prE' 'there is no string tokenizer.ggml.pre: how its tokenizer cuts text is not known'
damaged 'gpt-2' 'gpt-7' 'tokenizer.ggml.pre is gpt-7, a pre-tokenizer that Keel does not know'
damaged 'attn_q.weight' 'attn_Q.weight' 'there is no tensor blk.0.attn_q.weight'
damaged 'llama.context_length' 'llama.logit_scale...' 'there is no key llama.context_length'
printf GGUF >b.gguf
refused 1 'b.gguf: the version needs 4 bytes at 4, but the file ends after 0; it is truncated' import b.gguf --out x
head -c 100000 llama.gguf >b.gguf
refused 1 'b.gguf: blk.1.ffn_up.weight ends at byte 101152 of a file of 100000; it is truncated' import b.gguf --out x

# what config.json has no key for, though each key it has fits
plain='bias: true, position: {kind: learned}, norm: {kind: layer, affine: scale_bias}'
train shared "$plain, attention: {heads: 2, kv_heads: 1}, ffn: {kind: mlp, activation: gelu_tanh, width: 80}"
refused 1 'shared/step_6: no architecture of Hugging Face computes this model; nearest is gpt2: blocks.0.attention.k.weight is [16, 32] (would have to be [32, 32]), and 7 more' \
    export shared --out x
train narrow "$plain, attention: {heads: 2, head_width: 8}, ffn: {kind: mlp, activation: gelu_tanh, width: 80}"
refused 1 'narrow/step_6: no architecture of Hugging Face computes this model; nearest is gpt2: blocks.0.attention.q.weight is [16, 32] (would have to be [32, 32]), and 13 more' \
    export narrow --out x
train wider 'attention: {heads: 4, kv_heads: 2}, ffn: {width: 48}, override: [{layers: 1, ffn: {width: 64}}]'
refused 1 'wider/step_6: no architecture of Hugging Face computes this model; nearest is llama: blocks.1.ffn.gate.weight is [64, 32] (would have to be [48, 32]), and 2 more' \
    export wider --out x
[ ! -e x ] || complain "a refused export leaves a folder"

# ---- folders that are damaged or ask for something else
broken() { # SED-EXPRESSION MESSAGE
    rm -rf b x
    cp -r llama-out b
    sed -i "$1" b/config.json
    refused 1 "$2" import b --out x
    [ ! -e x ] || complain "a refused import leaves a folder"
}
broken 's/"model_type": "llama"/"model_type": "mamba"/' \
    'b/config.json: model_type is mamba; there are gpt2, llama, qwen2, qwen3, olmo2, mistral'
broken 's/"attention_bias": false/"attention_bias": true/' \
    'b/config.json: attention_bias is true; Keel computes false only: such a model would need other code'
broken 's/"hidden_size": 32/"hidden_size": 64/' \
    'b: model.embed_tokens.weight has another shape than config.json says: expected [300, 64]'
broken 's/"hidden_size": 32/"hidden_size": -1/' 'b/config.json: hidden_size is not a whole number from 1'
broken 's/"num_hidden_layers": 2/"num_hidden_layers": 3/' 'b: there is no tensor model.layers.2.input_layernorm.weight'
broken 's/"num_hidden_layers": 2/"num_hidden_layers": 1/' \
    'b: model.layers.1.input_layernorm.weight (and 8 more) is no tensor of a llama of this config.json'
broken 's/"rope_type": "default"/"rope_type": "llama3"/' \
    'b/config.json: rope_parameters.rope_type is llama3; Keel computes default only'
broken 's/"tie_word_embeddings": false/"rope_scaling": {"factor": 8.0, "rope_type": "llama3"}/' \
    'b/config.json: rope_scaling is {"factor":8.0,"rope_type":"llama3"}; Keel computes null only: such a model would need other code'
broken 's/"mlp_bias": false/"use_sliding_window": true/' \
    'b/config.json: use_sliding_window is true; Keel computes false only: such a model would need other code'
broken 's/"tie_word_embeddings": false/"tie_word_embeddings": true/' \
    'b: lm_head.weight is another tensor than the embedding, which config.json ties it to'
rm -rf b
cp -r llama-out b
printf '{"weight_map": {"model.norm.weight": "../llama-out/model.safetensors"}}' >b/model.safetensors.index.json
refused 1 "b/model.safetensors.index.json: '../llama-out/model.safetensors' is no name of a file in this folder" import b --out x
printf '{"weight_map": {"model.norm.weight": "model.safetensors"}}' >b/model.safetensors.index.json
refused 1 'b/model.safetensors.index.json: weight_map lists 1 tensors, its files hold 21' import b --out x
refused 1 'llama-in is there already; name a new folder' import llama-out --out llama-in
refused 1 'nowhere: no such folder' import nowhere --out x

[ $bad = 0 ]

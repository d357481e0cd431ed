#!/bin/sh
# cli_model.sh KEEL: what a trained model is asked on the command line: `keel eval perplexity` and `keel generate`, with
# models that are missing, damaged or of other data, and a registry that cannot be written.
set -eu
keel=$(realpath "$1")
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
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
    [ ! -s out ] || complain "keel $*: something on stdout"
}
awk 'BEGIN {
    all = "the sea is wide and the keel is deep; an old ship goes far out where no wind blows. "; x = 7
    for (i = 0; i < 4000; i++) {
        x = (x * 16807) % 2147483647
        printf "%s%s", substr(all, 1 + x % 60, 4 + int(x / 64) % 17), i % 9 ? " " : "\n\n"
    }
}' >corpus.txt
cat >tiny.yaml <<'YAML'
model: {layers: 1, width: 32, context: 32, attention: {heads: 2}}
train: {steps: 40, batch_tokens: 512, precision: f32, checkpoint: {every: 20 steps}, evaluate: {every: 20 steps}}
data: {train: corpus.txt, vocab: 300, document: blank_line, validation: 10%}
YAML

# A registry that cannot be written is a warning, once.
: >not-a-folder
got=0
KEEL_REGISTRY=not-a-folder/runs.db "$keel" train tiny.yaml --out run >out 2>err || got=$?
[ $got = 0 ] || complain "training with a registry that cannot be written: exit code $got"
[ "$(grep -c '^warning: ' err)" = 1 ] || complain "not one warning about the registry"
[ ! -s out ] || complain "train without --json prints to stdout"

# ---- eval
expect 0 eval perplexity run
grep -qE '^loss [0-9.]+  perplexity [0-9.]+  bits per byte [0-9.]+  \([0-9]+ validation tokens, run/step_40\)$' out ||
    complain "eval perplexity: not the line expected"
expect 0 eval perplexity run --json
grep -qE '^\{"model":"run/step_40","step":40,"tokens_seen":20480,"tokens":[0-9]+,"bytes":[0-9]+,"loss":[0-9.]+,"perplexity":[0-9.]+,"byte_perplexity":[0-9.]+,"bits_per_byte":[0-9.]+,"loss_stderr":[0-9.]+,"loss_low":[0-9.]+,"loss_high":[0-9.]+,"bits_per_byte_stderr":[0-9.]+,"bits_per_byte_low":[0-9.]+,"bits_per_byte_high":[0-9.]+\}$' out ||
    complain "eval perplexity --json: not the object expected"
# It is what training measured at its last step.
trained=$(sed -n 's/.*"step":40,"val_loss":\([0-9.]*\).*/\1/p' run/metrics.jsonl)
grep -q "\"loss\":$(echo "$trained" | cut -c1-8)" out || complain "eval says another loss than training ($trained)"
expect 0 eval perplexity run/step_20 --split train --tokens 1k
refused 1 "nowhere: no such folder; name a run's folder or one of its step_N" eval perplexity nowhere
refused 1 "run/data holds no checkpoint; train first ('keel train')" eval perplexity run/data
refused 1 "run/data: no folder of shards (it has no manifest.json); make one with 'keel data build'" \
    eval perplexity run --data run/data
sed 's/ship/boot/g; s/wind/rain/g; s/e/o/g' corpus.txt >other.txt
"$keel" train tiny.yaml data.train=other.txt train.steps=1 --out other >out 2>err || complain "the other model"
expect 1 eval perplexity run --data other/data/shards-*
grep -qE '^keel: .*tokenizer' err || complain "shards of another tokenizer: no message"

# ---- generate
expect 0 generate run -p "the keel" -n 12 --seed 3
cp out again
[ -s again ] || complain "generate prints nothing"
expect 0 generate run -p "the keel" -n 12 --seed 3
cmp -s out again || complain "the same seed gives another text"
expect 0 generate run -p "the keel" -n 12 --seed 4
! cmp -s out again || complain "another seed gives the same text"
expect 0 generate run -p "the keel" -n 12 --seed 3 --echo
[ "$(cat out)" = "the keel$(cat again)" ] || complain "--echo: not the prompt and then the text"
expect 0 generate run -p "the keel" -n 12 --seed 3 --json
grep -qE '^\{"prompt":"the keel","completion":".*","prompt_tokens":[0-9]+,"completion_tokens":12,"finish_reason":"length"\}$' out ||
    complain "generate --json: not the object expected"
stop=$(cut -c4-5 again | head -n 1)
expect 0 generate run -p "the keel" -n 12 --seed 3 --stop "$stop"
[ "$(cat out)" = "$(awk -v s="$stop" 'NR == 1 { i = index($0, s); print substr($0, 1, i - 1) }' again)" ] ||
    complain "--stop '$stop': not what comes before it in '$(cat again)'"
expect 0 generate run -p "" -n 3
expect 0 generate run -p "the" -n 100 --json
grep -q '"finish_reason":"\(context full\|end of text\)"' out || complain "a full context: not said"
refused 1 "the prompt has 110 tokens, the model's context room for 31; shorten the prompt" \
    generate run -p "$(head -c 300 corpus.txt)"
refused 1 "nowhere: no such folder; name a run's folder or one of its step_N" generate nowhere
refused 1 "run/data holds no checkpoint; train first ('keel train')" generate run/data
expect 1 generate run --prompt-file nowhere.txt
expect 2 generate run --temperature=-1
expect 2 generate

# ---- damage: named, and the checkpoint before answers; asked for by name it is refused
printf X | dd of=run/step_40/model.safetensors bs=1 seek=3000 conv=notrunc 2>/dev/null
expect 0 generate run -p "the" -n 3
grep -q '^run/step_40/model.safetensors: its checksum is ' err || complain "a damaged checkpoint is not named"
expect 1 generate run/step_40 -p "the" -n 3
grep -q '^keel: run/step_40/model.safetensors: its checksum is ' err || complain "a damaged checkpoint is used"
rm run/step_20/tokenizer.json
expect 1 generate run/step_20 -p "the"
grep -q '^keel: run/step_20/tokenizer.json: ' err || complain "a missing tokenizer is not named"
refused 1 "run: none of its 2 checkpoints is whole; move them away to start from step 0" generate run -p "the"

[ "$bad" = 0 ] || {
    echo "$bad failed" >&2
    exit 1
}

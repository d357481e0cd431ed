#!/bin/sh
# cli_guard.sh KEEL: growing batches, averages of weights, and guards, as `keel train` has them: equal bits after
# resuming, what is logged, refusals with the whole message.
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
    tail -n 9 out err 2>/dev/null | sed 's/^/    /' >&2
    bad=1
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
same() { # A B STEP: model and mean
    for file in "$1/step_$3"/*.safetensors; do
        cmp "$file" "$2/step_$3/$(basename "$file")" || complain "$1 and $2 differ in $(basename "$file") of step $3"
    done
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
train: {steps: 12, batch_tokens: 256, micro_batch: 1, precision: f32, checkpoint: {every: 3 steps}, evaluate: {every: 6 steps}}
data: {train: shards, tokenizer: tokenizer.json}
YAML
expect 0 train tiny.yaml data.train=corpus.txt data.tokenizer=auto data.vocab=300 data.document=blank_line \
    data.validation=10% train.steps=1 --out first
cp -r first/data/shards-* shards
cp first/step_1/tokenizer.json .

# resumed ARGUMENTS...: stopped after a checkpoint by a fault, then resumed: the same bits as in one go
resumed() {
    rm -rf whole parts
    expect 0 train tiny.yaml "$@" --out whole
    got=0
    KEEL_FAULT=rename:${at:-6}:kill "$keel" train tiny.yaml "$@" --out parts >out 2>err </dev/null || got=$?
    [ "$got" = 137 ] || complain "the fault did not kill: $got"
    expect 0 train tiny.yaml "$@" --out parts --resume
    same whole parts "$(basename "$(ls -d whole/step_* | sort -t_ -k2n | tail -n 1)" | cut -d_ -f2)"
}

# ---- the ramp: 2, 4, 6 rows for 192 tokens each (3, 2 and 1 steps), then 8
expect 0 train tiny.yaml train.ramp.start=64 train.ramp.increment=64 train.ramp.tokens=576 --out ramp --json
grep -q '"tokens_seen":2176,' out || complain "ramp: not 3 x 64 + 2 x 128 + 1 x 192 + 6 x 256 tokens"
resumed train.ramp.start=64 train.ramp.increment=64 train.ramp.tokens=576
expect 0 train tiny.yaml train.steps=none train.tokens=1152 train.ramp.start=64 train.ramp.increment=64 \
    train.ramp.tokens=576 --out ramp2 --json
grep -q '"step":8,"tokens_seen":1152,' out || complain "ramp: 1152 tokens are not 8 steps"
refused 1 "command line: train.ramp.start is 48 tokens; it must be a multiple of a micro-batch (1 x 32)" \
    train tiny.yaml train.ramp.start=48 train.ramp.tokens=500 --out x
refused 1 "command line: train.ramp.start is 256 tokens; it must be below train.batch_tokens (256)" \
    train tiny.yaml train.ramp.start=256 train.ramp.tokens=500 --out y
refused 1 "default: train.ramp.tokens is none; say over how many tokens the batch grows" \
    train tiny.yaml train.ramp.start=64 --out z
refused 1 "command line: train.ramp.increment is 128 tokens; from 64 to 256 is no whole number of increments" \
    train tiny.yaml train.ramp.start=64 train.ramp.increment=128 train.ramp.tokens=500 --out w

# ---- averages: logged beside the weights' loss, saved, equal after resuming; training itself is untouched
resumed train.average.kind=ema train.average.decay=0.9
grep -q '^step 12: of the averaged weights [0-9.]*, [0-9.]* bits per byte$' err || complain "ema: no line"
grep -q '"average_val_bits_per_byte"' whole/metrics.jsonl || complain "ema: not in the log"
mv whole ema
resumed train.average.kind=sma train.average.every="2 steps" train.average.last=3
[ "$(ls whole/snapshots | sort | tr '\n' ' ')" = "step_10.safetensors step_12.safetensors step_8.safetensors " ] ||
    complain "sma: not the last three snapshots: $(ls whole/snapshots)"
cmp ema/step_12/model.safetensors whole/step_12/model.safetensors || complain "averaging changes the training"
mv whole sma
resumed train.average.kind=wma train.average.every="2 steps" train.average.last=3
! cmp -s sma/step_12/average.safetensors whole/step_12/average.safetensors || complain "wma is sma"
expect 0 train tiny.yaml train.average.kind=sma train.average.every="12 steps" --out one
[ "$(tail -c 100 one/step_12/average.safetensors | od -c | head -n 1)" = \
    "$(tail -c 100 one/step_12/model.safetensors | od -c | head -n 1)" ] || complain "the mean of one is not that one"
expect 0 eval perplexity sma@average
cp out of_mean
expect 0 eval perplexity sma
! cmp -s out of_mean || complain "eval --average is eval"
expect 0 generate sma@average --prompt "the sea" --max-tokens 4
# what has no mean, as the moduli of hashed n-grams, goes along
expect 0 train tiny.yaml train.steps=2 train.average.kind=ema model.embedding.kind=over_encoding \
    model.embedding.slots=97 --out hashed
expect 0 eval perplexity hashed@average
refused 1 "first/step_1/average.safetensors: this checkpoint holds no average; train with train.average.kind (sma and wma: at the end of the run)" \
    generate first@average --prompt "the sea"

# ---- guards: a stretch of noise in the middle of the text, read in order, is a spike
awk 'BEGIN {
    all = "the sea is wide and the keel is deep; an old ship goes far out where no wind blows. "; x = 7
    for (i = 0; i < 5200; i++) {
        x = (x * 16807) % 2147483647
        if (i > 2600 && i < 3400) printf "%c", 33 + x % 90
        else printf "%s ", substr(all, 1 + x % 60, 4 + int(x / 64) % 17)
    }
}' >noisy.txt
guarded="data.train=noisy.txt data.tokenizer=tokenizer.json data.validation=0 data.order=sequential train.steps=60 train.evaluate.every=none"
# shellcheck disable=SC2086
for action in skip rollback merge; do
    at=18
    resumed $guarded train.guard.spike_sigma=2 train.guard.spike_action=$action
    rm -rf told
    expect 0 train tiny.yaml $guarded train.guard.spike_sigma=2 train.guard.spike_action=$action --out told
    case $action in
    skip) grep -qE '^step [0-9]+: loss [0-9.]+, gradient norm nan: the step is dropped \(train.guard\)$' err || complain "no step dropped" ;;
    rollback) grep -qE '^step [0-9]+: loss [0-9.]+: back to the checkpoint of step [0-9]+ \(train.guard\)$' err || complain "no roll-back told" ;;
    merge) grep -qE '^step [0-9]+: loss [0-9.]+: back to the mean of the 3 checkpoints up to step [0-9]+ \(train.guard\)$' err || complain "no merging told" ;;
    esac
    [ $action = skip ] || grep -q '"rolled_back_from":' told/metrics.jsonl || complain "no roll-back in the log"
done
expect 0 train tiny.yaml $guarded --out without
! grep -q train.guard err || complain "a guard that was not asked for"
# Nothing helps: sigma 0.001 takes every loss above the mean for a spike, and a rising rate makes them all so.
expect 3 train tiny.yaml train.optimizer.lr=30 train.clip=0 train.schedule.kind=constant train.schedule.warmup=100% train.steps=120 \
    train.guard.spike_sigma=0.001 train.guard.spike_action=rollback --out spikes
tail -n 1 err | grep -qE '^keel: step [0-9]+: a loss of [0-9.]+, and more than 10 interventions of train.guard did not help; lower' ||
    complain "spikes: not the message"
expect 3 train tiny.yaml train.optimizer.lr=100 train.clip=0 train.steps=60 train.evaluate.every=none model.norm.kind=none \
    train.schedule.warmup="1 steps" train.guard.nonfinite=skip --out nan
[ "$(grep -c 'the step is dropped (train.guard)$' err)" = 10 ] || complain "not ten steps dropped"
exit $bad

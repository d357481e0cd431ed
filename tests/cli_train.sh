#!/bin/sh
# cli_train.sh KEEL: `keel train`, `eval`, `generate` and `plan` as a user meets them: bad input (whole messages), resuming
# after stops, kills and failing writes, and what a run leaves behind. A model of 44 k parameters on generated text.
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
# expect CODE ARGUMENTS...: runs keel, leaves out and err.
expect() {
    want=$1 got=0
    shift
    "$keel" "$@" >out 2>err </dev/null || got=$?
    [ "$got" = "$want" ] || complain "keel $*: exit code $got, expected $want"
}
# refused CODE MESSAGE ARGUMENTS...: the last line of stderr is the whole message.
refused() {
    want=$1 message="keel: $2"
    shift 2
    expect "$want" "$@"
    [ "$(tail -n 1 err)" = "$message" ] || complain "keel $*: not '$message'"
    [ ! -s out ] || complain "keel $*: something on stdout"
}
same_bits() { # A B STEP: the checkpoints of two runs
    for file in model.safetensors optimizer.safetensors; do
        cmp "$1/step_$3/$file" "$2/step_$3/$file" || complain "$1 and $2 differ in $file of step $3"
    done
}
# The log without what time and speed put into it.
steps_of() { sed 's/,"tokens_per_s":[^}]*//' "$1/metrics.jsonl"; }

awk 'BEGIN {
    all = "the sea is wide and the keel is deep; an old ship goes far out where no wind blows. "; x = 7
    for (i = 0; i < 4000; i++) {
        x = (x * 16807) % 2147483647
        printf "%s%s", substr(all, 1 + x % 60, 4 + int(x / 64) % 17), i % 9 ? " " : "\n\n"
    }
}' >corpus.txt
cat >tiny.yaml <<'YAML'
model: {layers: 1, width: 32, context: 32, attention: {heads: 2}}
train: {steps: 12, batch_tokens: 128, precision: f32, checkpoint: {every: 3 steps}, evaluate: {every: 4 steps}}
data: {train: shards, tokenizer: tokenizer.json}
YAML

# ---- text becomes shards, a tokenizer and a run
expect 0 train tiny.yaml data.train=corpus.txt data.tokenizer=auto data.vocab=300 data.document=blank_line \
    data.validation=10% --out first --json
grep -qE '^\{"run":"[0-9a-f]{16}-1","folder":"first","step":12,"tokens_seen":1536,"seconds":[0-9.e-]+,"val_loss":[0-9.]+,"val_bits_per_byte":[0-9.]+\}$' \
    out || complain "train --json: not the object expected"
cp -r first/data/shards-* shards
cp first/step_12/tokenizer.json .
[ "$(ls first | tr '\n' ' ')" = "config.yaml data given.yaml lock metrics.jsonl step_12 step_8 step_9 summary.json " ] ||
    complain "not the files expected in a run's folder: $(ls first)"
[ "$(grep -c '"val_loss"' first/metrics.jsonl)" = 3 ] || complain "not three evaluations"
grep -q '"status": "done"' first/summary.json || complain "summary.json: not done"
grep -q '^step 8: validation loss [0-9.]*, [0-9.]* bits per byte$' err || complain "no line an evaluation"
! grep -q "$(printf '\r')" err || complain "a progress line although stderr is no terminal"
expect 0 runs list
grep -qE '^[0-9a-f]{16}-1 +done .* 12 .*first' out || complain "the run is not in the registry"

expect 0 train tiny.yaml train.checkpoint.keep=1 "train.checkpoint.milestones=[2 steps, 50%]" --out milestones
[ "$(ls milestones | grep step_ | tr '\n' ' ')" = "step_12 step_2 step_6 " ] || complain "milestones: $(ls milestones)"
expect 0 train tiny.yaml train.steps=2 --profile --out profiled
grep -qE '^op  *calls  *ms  *%  *GFLOP/s  *of peak  *GB/s$' err || complain "--profile: no table"
grep -qE '^attention  *2 ' err || complain "--profile: no row of attention with two calls"
expect 0 train tiny.yaml model.ffn.kind=moe model.ffn.width=16 model.ffn.capacity_factor=1 --out experts
[ "$(grep -cE '"expert_load":[1-8][0-9.]*,"expert_drop":0[0-9.]*' experts/metrics.jsonl)" = 12 ] ||
    complain "experts: no line a step of how even their load is"

# ---- bad input
refused 1 "first holds a run already; go on with it by --resume, or choose another --out" train tiny.yaml --out first
refused 1 "command line: unknown key train.step; did you mean train.steps?" train tiny.yaml train.step=3 --out x
printf 'model:\n  widht: 32\n' >bad.yaml
refused 1 "bad.yaml:2: unknown key model.widht; did you mean model.width?" train bad.yaml --out x
refused 1 "nothere.yaml: No such file or directory" train nothere.yaml --out x
refused 1 "command line: data.train names nowhere, which does not exist" train tiny.yaml data.train=nowhere --out x
refused 1 "default: data.train is empty; name a folder or file of text, or shards" train train.steps=1 --out x
refused 1 "train: no length is given; set one of train.tokens, train.steps, train.epochs, train.time, train.flops (like train.time=\"4 min\")" \
    train data.train=shards --out x
refused 1 "command line: model.attention.heads is 3; it must divide model.width (32), or set head_width" \
    train tiny.yaml model.attention.heads=3 --out x
refused 1 "command line: train.batch_tokens is 100; it must be a multiple of model.context (32)" \
    train tiny.yaml train.batch_tokens=100 --out x
refused 1 "command line: train.micro_batch is 3; it must divide the 4 sequences of a step" \
    train tiny.yaml train.micro_batch=3 --out x
refused 1 "command line: model.vocab is 100, but the tokenizer of shards has 300 tokens; set it to at least that, or to auto" \
    train tiny.yaml model.vocab=100 --out x
mkdir empty
: >empty.txt
refused 1 "empty: no text in this folder (0 files empty, 0 binary, 0 hidden); name a folder with text files" \
    train tiny.yaml data.train=empty data.tokenizer=auto --out x
refused 1 "empty.txt: the file is empty; name a file with text" \
    train tiny.yaml data.train=empty.txt data.tokenizer=auto --out x
refused 1 "shards: its train split has 16867 tokens, a sample needs 20001 (context + 1); give more text, a smaller context or a larger data.validation" \
    train tiny.yaml model.context=20000 train.batch_tokens=20000 --out x
sed 's/"the"/"eht"/' tokenizer.json >other.json
cmp -s tokenizer.json other.json && sed 's/"ea"/"ae"/' tokenizer.json >other.json
expect 1 train tiny.yaml data.tokenizer=other.json --out x
grep -qE '^keel: ' err || complain "another tokenizer: no message"
expect 1 train tiny.yaml model.width=65536 --out x
grep -qE '^keel: the run needs [0-9.]+ [GT]iB of memory, this machine has [0-9.]+ [GMT]iB; lower model.width, model.layers or train.micro_batch, or set train.recompute=block \(.keel plan memory. shows the parts\)$' err ||
    complain "a model beyond memory: not the message expected"
[ ! -e x/config.yaml ] || complain "a refused run left a configuration"
expect 1 plan memory tiny.yaml model.vocab=300 model.width=65536
grep -q '^total  *[0-9.]* [GT]iB$' out || complain "plan memory: no plan although it does not fit"
expect 0 plan memory tiny.yaml model.vocab=300 model.ffn.kind=moe model.ffn.width=64 --json
grep -qE '"parameter_count":[0-9]+,"active_parameter_count":[0-9]+' out || complain "plan memory --json: no active parameters"
expect 0 plan memory tiny.yaml model.vocab=300 model.ffn.kind=moe model.ffn.width=64
grep -q ' of the parameters are active: a token passes through them$' out || complain "plan memory: no active parameters"
expect 0 plan memory tiny.yaml model.vocab=300 --json
grep -qE '^\{"parameters":[0-9]+,.*"total":[0-9]+,' out || complain "plan memory --json: not the object expected"

# ---- resuming
expect 0 train tiny.yaml --out whole --resume # nothing there: starts afresh
grep -q '^whole holds no checkpoint yet: starting afresh$' err || complain "--resume into nothing: not said"
steps_of whole >whole.log
refused 1 "command line: train.optimizer.lr is 0.1, but whole/step_12 was trained with 0.003; give the same, or another --out" \
    train tiny.yaml train.optimizer.lr=0.1 --out whole --resume
refused 1 "command line: train.time is 60 s, but whole/step_12 was trained with none; give the same, or another --out" \
    train tiny.yaml train.time="60 s" --out whole --resume
sed 's/ship/boat/g' corpus.txt >other.txt
expect 1 train tiny.yaml data.train=other.txt --out whole --resume
grep -qE '^keel: whole/step_12 was trained on other data \(hash [0-9a-f]{16}, now [0-9a-f]{16}\); give the same data.train and tokenizer, or another --out$' err ||
    complain "other data: not the message expected"
rm -rf whole/data
expect 0 train whole/config.yaml --out whole --resume # its own resolved configuration; all is done
steps_of whole | cmp - whole.log || complain "resuming a finished run changed its log"

# Half-written and damaged checkpoints are named and the one before is taken.
cp -r whole damaged
rm -rf damaged/step_12/manifest.json
printf X | dd of=damaged/step_9/model.safetensors bs=1 seek=2000 conv=notrunc 2>/dev/null
expect 0 train tiny.yaml --out damaged --resume
grep -q '^damaged/step_12/manifest.json: missing, so the checkpoint was never completed$' err || complain "an unfinished checkpoint is not named"
grep -q '^damaged/step_9/model.safetensors: ' err || complain "a damaged checkpoint is not named"
grep -q '^resuming from damaged/step_8$' err || complain "the checkpoint before is not taken"
same_bits whole damaged 12
steps_of damaged | cmp - whole.log || complain "the log after falling back differs"
rm -rf damaged/step_*/manifest.json
refused 1 "damaged: none of its 3 checkpoints is whole; move them away to start from step 0" \
    train tiny.yaml --out damaged --resume

# A signal saves and leaves with 128 + its number (SIGUSR1: 75, queue me again), from the first step on; SIGKILL at 20 moments of one run.
train_long() { "$keel" train tiny.yaml train.steps=400 train.evaluate.every="100 steps" train.checkpoint.every="7 steps" "$@"; }
train_long --out long >out 2>err || complain "the long run failed"
for signal in TERM:143 INT:130 USR1:75; do
    rm -rf stopped
    "$keel" train tiny.yaml train.steps=1000000 train.checkpoint.every=none train.evaluate.every=none --out stopped \
        >out 2>err &
    pid=$!
    while [ ! -s stopped/metrics.jsonl ] && kill -0 $pid; do sleep 0.02; done
    kill -"${signal%:*}" $pid
    got=0
    wait $pid || got=$?
    [ "$got" = "${signal#*:}" ] || complain "SIG${signal%:*}: exit code $got"
    grep -qE '^keel: stopped at step [0-9]+ of 1000000; the state is saved, go on with --resume$' err ||
        complain "SIG${signal%:*}: not the message expected"
    ls stopped | grep -q '^step_[0-9]*$' || complain "SIG${signal%:*}: nothing was saved"
    grep -q '"status": "stopped"' stopped/summary.json || complain "SIG${signal%:*}: summary.json"
done
"$keel" train tiny.yaml train.time="1 h" model.width=256 train.batch_tokens=4096 --out timed >out 2>err &
pid=$!
while ! grep -q '^timing' err && kill -0 $pid; do sleep 0.02; done
kill -TERM $pid
got=0
wait $pid || got=$?
[ "$got" = 143 ] || complain "SIGTERM while timing: exit code $got"
[ "$(tail -n 1 err)" = "keel: stopped before step 0; there is nothing to save yet" ] || complain "SIGTERM while timing"

# train.time is timed once: a run that died before its first checkpoint goes on with the steps it had.
got=0
KEEL_FAULT=write:8:kill "$keel" train tiny.yaml train.time="1 s" train.checkpoint.every=50% --out hurried >out 2>err || got=$?
[ $got = 137 ] || complain "write:8:kill: exit code $got"
cp hurried/config.yaml hurried.yaml
expect 0 train tiny.yaml train.time="1 s" train.checkpoint.every=50% --out hurried --resume
grep -q '^hurried holds no checkpoint yet: starting afresh$' err || complain "no checkpoint yet: not said"
! grep -q '^timing' err || complain "a resumed run is timed again"
cmp hurried.yaml hurried/config.yaml || complain "a resumed run resolves another configuration"
rm hurried/config.yaml # its checkpoints are a run all the same
refused 1 "hurried holds a run already; go on with it by --resume, or choose another --out" train tiny.yaml --out hurried

kills=0
for moment in $(awk -v seed=$$ 'BEGIN { srand(seed); for (i = 0; i < 20; i++) print 0.05 + 0.5 * rand() }'); do
    # not by the function: the signal would only reach the shell that runs it, and the training would go on
    "$keel" train tiny.yaml train.steps=400 train.evaluate.every="100 steps" train.checkpoint.every="7 steps" \
        --out killed --resume >out 2>err &
    pid=$!
    sleep "$moment"
    kill -KILL $pid 2>/dev/null && kills=$((kills + 1))
    wait $pid 2>/dev/null || true
done
train_long --out killed --resume >out 2>err || complain "the run killed $kills times does not go on"
same_bits long killed 400
steps_of long >long.log
steps_of killed | cmp - long.log || complain "the log of the run killed $kills times differs"

# A failure or a kill at the k-th write, fsync and rename, for every k: what is resumed has the bits of the whole run.
# What is only told (summary.json) may fail with a warning; a k beyond the last leaves no trace at all.
short() { "$keel" train tiny.yaml train.steps=2 train.checkpoint.every="1 steps" train.checkpoint.keep=2 "$@" >out 2>err; }
short --out brief || complain "the short run failed"
steps_of brief >brief.log
for kind in write fsync rename; do
    for how in "" :kill; do
        k=0 through=no
        while [ $through = no ]; do
            k=$((k + 1)) got=0
            rm -rf faulty
            KEEL_FAULT=$kind:$k$how short --out faulty || got=$?
            case $got in
            0) grep -q '^warning: ' err || through=yes ;;
            1) [ "$(grep -c '^keel: ' err)" = 1 ] || complain "$kind:$k: not one line" ;;
            137) [ -n "$how" ] || complain "$kind:$k: killed" ;;
            *) complain "$kind:$k$how: exit code $got" ;;
            esac
            if [ $got != 0 ]; then short --out faulty --resume || complain "$kind:$k$how: does not go on"; fi
            same_bits brief faulty 2
            steps_of faulty | cmp - brief.log || complain "$kind:$k$how: the log differs"
        done
        [ $k -gt 5 ] || complain "$kind$how: only $k of them"
    done
done

[ "$bad" = 0 ] || {
    echo "$bad failed" >&2
    exit 1
}

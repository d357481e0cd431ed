#!/bin/sh
# cli_resume.sh KEEL: everything at once that has a place in a run (a packed mixture, a growing batch, a mean of the weights,
# guards that go back), killed at many writes and renames: what is resumed has the bits, the snapshots and the log of the
# run in one go.
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

awk 'BEGIN {
    all = "the sea is wide and the keel is deep; an old ship goes far out where no wind blows. "; x = 7
    for (i = 0; i < 1500; i++) {
        x = (x * 16807) % 2147483647
        if (i > 500 && i < 700) printf "%c%s", 33 + x % 90, i % 9 ? "" : "\n\n"
        else printf "%s%s", substr(all, 1 + x % 60, 4 + int(x / 64) % 17), i % 9 ? " " : "\n\n"
    }
}' >ship.txt
awk 'BEGIN { for (i = 0; i < 300; i++) printf "the tide %d and the reef %d\n\n", i, i % 7 }' >tide.txt
cat >all.yaml <<'YAML'
model: {layers: 1, width: 32, context: 32, attention: {heads: 2}}
train:
  steps: 45
  batch_tokens: 256
  micro_batch: 1
  precision: f32
  optimizer: {lr: 0.03}
  checkpoint: {every: 4 steps, keep: 2}
  evaluate: {every: 5 steps, tokens: 256}
  ramp: {start: 64, increment: 64, tokens: 600}
  guard: {spike_sigma: 1, spike_action: rollback}
data:
  train: [{path: ship.txt, weight: 3}, {path: tide.txt, weight: 1}]
  document: blank_line
  pack: best_fit
  order: sequential
  validation: 10%
  vocab: 300
YAML
log_of() { sed 's/,"tokens_per_s":[^,}]*//' "$1/metrics.jsonl"; }
steps=45

# killed NAME HOW ARGUMENTS...: the run NAME again, killed as HOW says, then resumed (killed once more on the way, if it is long)
killed() {
    name=$1 how=$2 got=0
    shift 2
    rm -rf parts
    mkdir parts
    cp -r "$name/data" parts
    KEEL_FAULT=$how "$keel" train all.yaml "$@" --out parts >out 2>err </dev/null || got=$?
    [ $got = 137 ] || return 1
    "$keel" train all.yaml "$@" --out parts --resume >out 2>err </dev/null || complain "$name $how: resuming fails"
    for file in "$name/step_$steps"/*.safetensors; do
        cmp "$file" "parts/step_$steps/${file##*/}" || complain "$name $how: ${file##*/} differs"
    done
    [ ! -d "$name/snapshots" ] || [ "$(ls "$name/snapshots")" = "$(ls parts/snapshots)" ] ||
        complain "$name $how: other snapshots: $(echo $(ls parts/snapshots)), not $(echo $(ls "$name/snapshots"))"
    log_of "$name" >whole.log
    log_of parts | cmp whole.log - || complain "$name $how: the log differs"
}

for kind in ema sma wma; do
    set -- train.average.kind=$kind train.average.every="1 steps"
    [ $kind = ema ] || set -- "$@" train.average.last=3
    "$keel" train all.yaml "$@" --out $kind >out 2>err ||
        complain "$kind: fails"
    grep -q 'back to the checkpoint' err || complain "$kind: nothing went back; the test tests less than it says"
    [ "$(grep -c average_val_loss $kind/metrics.jsonl)" -ge 4 ] || complain "$kind: no means were evaluated"
    kills=0
    for k in 9 14 23 31 38 47; do
        if killed $kind write:$((k * 2 + 1)):kill "$@"; then
            kills=$((kills + 1))
        fi
    done
    for k in 3 5 7 9 12 15 19 23 27 31 35 38; do
        if killed $kind rename:$k:kill "$@"; then
            kills=$((kills + 1))
        fi
    done
    [ $kills -ge 6 ] || complain "$kind: only $kills kills"
done
exit $bad

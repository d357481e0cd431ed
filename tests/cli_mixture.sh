#!/bin/sh
# cli_mixture.sh KEEL: `keel train` on weighted sources and packed rows: exact shares, resumed to the bit, refusals.
set -eu
keel=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset KEEL_FAULT
cd "$work"
export OMP_NUM_THREADS=1 KEEL_REGISTRY="$work/runs.db"
bad=0
complain() {
    echo "$1" >&2
    sed 's/^/    /' out err >&2
    bad=1
}
# run CODE ARGUMENTS...: runs keel, leaves out and err.
run() {
    want=$1 got=0
    shift
    "$keel" "$@" >out 2>err </dev/null || got=$?
    [ "$got" = "$want" ] || complain "keel $*: exit code $got, expected $want"
}

awk 'BEGIN { for (i = 0; i < 600; i++) printf "{\"body\": \"the tide %d and the reef %d\"}\n", i, i % 7 }' | gzip >tide.jsonl.gz
awk 'BEGIN { for (i = 0; i < 60; i++) printf "A keel %d holds the mast.\n\n", i }' >keel.txt
cat >mix.yaml <<EOF
model: {layers: 1, width: 32, context: 32, attention: {heads: 2}}
train: {steps: 40, batch_tokens: 256, precision: f32, checkpoint: {every: 10 steps}, evaluate: {tokens: 512}}
data:
  train: [{path: "*.jsonl.gz", weight: 3}, {path: keel.txt, weight: 1}]
  field: body
  document: blank_line
  pack: best_fit
  validation: 5%
  vocab: 400
EOF
run 0 train mix.yaml --out whole
grep -qE '^(keel: )?data.train\[0\], \*.jsonl.gz: [0-9.]+ epochs$' err || complain "no epochs of the first source"
grep -qE '^(keel: )?warning: data.train\[1\], keel.txt: [0-9.]+ epochs; beyond 4, repeated text teaches less and less$' err ||
    complain "no warning about the second source"
[ -n "$(find . -name 'rows-32-1.bin')" ] || complain "no table of rows is kept"

# Its last step lost, and resumed: the same weights to the bit.
cp -r whole half
rm -rf half/step_40
run 0 train mix.yaml --out half --resume
for file in model.safetensors optimizer.safetensors; do
    cmp -s "whole/step_40/$file" "half/step_40/$file" || complain "resumed: $file differs"
done

sed 's/weight: 3/weight: 2/' mix.yaml >other.yaml
run 1 train other.yaml --out whole --resume
grep -q '^keel: .*data.train' err || complain "other weights were taken for the same run"
sed 's/, weight: 3//' mix.yaml >some.yaml
run 1 train some.yaml --out some
grep -q 'data.train gives a weight to 1 of its 2 items; give one to each, or to none$' err || complain "a missing weight"
sed 's/, weight: [31]//g' mix.yaml >none.yaml
run 0 train none.yaml --out none
! grep -q 'epochs' err || complain "a mixture without weights"
exit $bad

#!/bin/sh
# cli_dial.sh KEEL: one number instead of a shape: what `keel train` and `keel plan` say and choose, and that a resumed
# run derives nothing anew.
set -eu
keel=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export OMP_NUM_THREADS=1 KEEL_REGISTRY="$work/runs.db"
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
awk 'BEGIN { for (i = 0; i < 3000; i++) printf "the sea is wide and the keel is deep, said ship %d to ship %d.\n", i % 7, i % 13 }' >corpus.txt
set -- model.context=32 data.train=corpus.txt data.vocab=300 data.document=file train.checkpoint.every="2 steps"
expect 0 train model.size=200k "$@" train.steps=4 --out given
grep -qE '^dial: model.width = 64 \([0-9.]+ k parameters with 300 words; width/layers near 40' err || complain "no width chosen"
grep -qE '^dial: about .* here \(6 N D = ' err || complain "no time predicted"
grep -q '^  size: 200000$' given/config.yaml || complain "the size is not in the resolved file"
# As many tokens as the steps will take, of the batch that is chosen for them: a resumed run derives the same.
grep -qE '^dial: about 128 tokens \(the budget given;' err || complain "other tokens than 4 steps take"
expect 1 train model.size=300k "$@" train.steps=4 --out given --resume
[ "$(tail -n 1 err)" = "keel: command line: model.size is 300000, but given/step_4 was trained with 200000; give the same, or another --out" ] ||
    complain "another size than the run's"
# Compute chooses the size; going on later chooses nothing, whatever the machine measures then.
expect 0 train model.size=auto train.flops=5e12 "$@" --out auto
grep -qE '^dial: 2.04e\+05 parameters \(sqrt\(C/120\)' err || complain "no size chosen"
cp auto/config.yaml before.yaml
expect 0 train model.size=auto train.flops=5e12 "$@" --out auto --resume
cmp before.yaml auto/config.yaml || complain "resuming chose something else"
expect 1 train model.size=auto train.tokens=1M "$@" --out refused
[ "$(tail -n 1 err)" = "keel: command line: model.size is auto, which needs a budget of compute: train.time or train.flops" ] ||
    complain "auto without compute"
expect 0 plan compute model.size=10M --json
grep -q '"parameter_count":98[0-9]*,"active_parameter_count":98[0-9]*,"flops_per_token":6' out || complain "plan compute --json"
expect 0 plan compute model.size=200k model.vocab=300 train.tokens=1G
grep -qE '^dial: train.optimizer.lr = 0.01 \(Step Law, arXiv:2503.04715: .*clamped to 1e-4 .. 1e-2; fitted for 210 M' err ||
    complain "no learning rate chosen"
# muP carries a learning rate from another width: one has to be given.
expect 1 plan compute model.size=200k model.vocab=300 train.tokens=1G train.transfer.kind=mup
[ "$(tail -n 1 err)" = "keel: command line: train.transfer.kind is mup, which carries the learning rate of base_width to this width, and model.size chooses one for this width by Step Law; set train.optimizer.lr" ] ||
    complain "muP with a learning rate by size"
expect 0 plan compute model.size=200k model.vocab=300 train.tokens=1G train.transfer.kind=mup train.optimizer.lr=0.01
expect 0 plan compute model.size=200k model.vocab=300 train.epochs=3
grep -q '^dial: the rates are for 3.58e+06 tokens, 20 a parameter; how many train.epochs are is not known yet$' err ||
    complain "epochs: not the tokens the rates are for"
expect 0 plan compute model.preset=gpt2-124m
grep -q '^tokens  *not known before the data are' out || complain "plan compute without a budget"
exit $bad

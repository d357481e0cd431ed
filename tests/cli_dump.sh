#!/bin/sh
# cli_dump.sh KEEL: `keel dump` on a model that `keel train` just made: what it says, what it writes, what it refuses.
# The numbers are test_dump.c's.
set -eu
keel=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export KEEL_REGISTRY="$work/runs.db" OMP_NUM_THREADS=2
bad=0
complain() {
    echo "$1" >&2
    sed 's/^/    /' out err >&2
    bad=1
}
run() {
    got=0
    "$keel" dump "$@" >out 2>err || got=$?
}
# refused CODE MESSAGE ARGUMENTS...: that exit code, that line on stderr, nothing on stdout, nothing written
refused() {
    want=$1 message=$2
    shift 2
    run "$@"
    [ "$got" = "$want" ] || complain "keel dump $*: exit code $got, expected $want"
    [ ! -s out ] || complain "keel dump $*: something on stdout"
    grep -vE '^(machine|dump): ' err | head -n 1 >first
    [ "$(cat first)" = "$message" ] || complain "keel dump $*: not '$message'"
    [ ! -e bad.st ] || complain "keel dump $*: wrote a file"
}

seq 1 500 | sed 's/$/ the quick brown fox/' >text.txt
cat >tiny.yaml <<'YAML'
model:
  {layers: 1, width: 16, context: 8, vocab: 300, position: {kind: learned}, attention: {heads: 2}, ffn: {width: 16}}
train: {steps: 2, batch_tokens: 32, precision: f32}
data: {train: text.txt, vocab: 257, validation: 1%}
YAML
"$keel" train tiny.yaml --out run >out 2>err || complain "keel train failed"
printf '1 2 3 4\n5 6 7 8\n' >ids

# ---- in double, by the kernels, from a run, from a step, from standard input
run run --tokens ids --out g.st
[ "$got" = 0 ] || complain "dump failed"
grep -qxE 'loss [0-9.]{6,}  objective [0-9.]{6,}  gradients 12' out || complain "no line of loss and objective"
grep -qE '^dump: 2 sequences of 4 tokens, [0-9.]+ KiB$' err || complain "the plan is not told"
head -c 4096 g.st | grep -q '"logits":{"dtype":"F64","shape":\[2,4,300\]' || complain "no logits in double"
head -c 4096 g.st | grep -q '"grad.blocks.0.ffn.down.weight":{"dtype":"F64","shape":\[16,16\]' || complain "no gradient"
cp out first
run run/step_2 --tokens - --out h.st <ids
cmp -s out first || complain "a step and its run give different losses"
cmp -s g.st h.st || complain "a step and its run give different files"
for level in plain v3 v4; do
    for precision in f32 bf16; do
        run run --tokens ids --out k.st --precision $precision --isa $level
        if grep -q "is not on this machine" err; then continue; fi
        [ "$got" = 0 ] || complain "dump --precision=$precision --isa=$level failed"
        grep -q "^machine: .* $level kernels" err || complain "not the kernels of $level"
        head -c 4096 k.st | grep -q '"logits":{"dtype":"F32"' || complain "no logits in f32"
    done
done

# ---- refusals
refused 2 "keel dump: which model? Name a run's folder or one of its step_N" --tokens ids --out bad.st
refused 2 "keel dump: which tokens? --tokens=FILE" run --out bad.st
refused 2 "keel dump: where to? --out=FILE" run --tokens ids
refused 2 "keel dump: --precision=f16: expected f32 or bf16" run --tokens ids --out bad.st --precision f16
refused 1 "keel: nowhere: no such folder; name a run's folder or one of its step_N" nowhere --tokens ids --out bad.st
refused 1 "keel: none: cannot open: No such file or directory" run --tokens none --out bad.st
refused 1 "keel: no/bad.st: cannot create: No such file or directory" run --tokens ids --out no/bad.st
printf '1 2 3\n1 2\n' >ragged
refused 1 "keel: ragged:2: 2 ids, but line 1 has 3; all lines must be of one length" run --tokens ragged --out bad.st
printf '1 2 3\n1 300 3\n' >beyond
refused 1 "keel: beyond:2: id 300 is beyond the model's vocabulary of 300" run --tokens beyond --out bad.st
printf '1 two 3\n' >words
refused 1 "keel: words:1: 'two' is no token id; ids are whole numbers from 0 to 299" run --tokens words --out bad.st
: >nothing
refused 1 "keel: nothing: is empty; write token ids, a sequence a line" run --tokens nothing --out bad.st
printf '1 2 3 4 5 6 7 8 9\n' >long
refused 1 "keel: long:1: 9 ids; the model has positions for 8 (model.context)" run --tokens long --out bad.st
exit $bad

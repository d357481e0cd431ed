#!/bin/sh
# cli_convert.sh KEEL: `keel convert` on a model that `keel train` just made: the loss and the text stay, the folder serves
# eval, generate and another conversion; what is refused, with the whole message.
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
    "$keel" "$@" >out 2>err || got=$?
}
# refused CODE MESSAGE ARGUMENTS...: that exit code, that first line on stderr, nothing on stdout
refused() {
    want=$1 message=$2
    shift 2
    run convert "$@"
    [ "$got" = "$want" ] || complain "keel convert $*: exit code $got, expected $want"
    [ ! -s out ] || complain "keel convert $*: something on stdout"
    [ "$(head -n 1 err)" = "$message" ] || complain "keel convert $*: not '$message'"
}

seq 1 500 | sed 's/$/ the quick brown fox/' >text.txt
cat >layer.yaml <<'YAML'
model:
  {layers: 2, width: 16, context: 16, vocab: 300, attention: {heads: 2}, norm: {kind: layer}}
train: {steps: 30, batch_tokens: 64, precision: f32}
data: {train: text.txt, vocab: 257, validation: 1%}
YAML
"$keel" train layer.yaml --out run >out 2>err || complain "keel train failed"
printf '1 2 3 4\n5 6 7 8\n' >ids

loss() {
    run dump "$1" --tokens ids --out g.st
    [ "$got" = 0 ] || complain "dump of $1 failed"
    sed -n 's/^loss \([0-9.]*\).*/\1/p' out
}
near() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a > 0 && (a - b) ^ 2 < 1e-12) }'; }
before=$(loss run)
run convert run --to=rms --out=rms
[ "$got" = 0 ] || complain "convert to rms failed"
grep -qxE 'rms/step_30  rms  parameters 17872 \(before: 13072\)' out || complain "rms: not that line"
run convert run/step_30 --to crms --out crms
[ "$got" = 0 ] || complain "convert to crms failed"
run convert rms --to=crms --out=again
[ "$got" = 0 ] || complain "convert from rms to crms failed"
for form in rms crms again; do
    near "$before" "$(loss $form)" || complain "$form: the loss is no longer $before"
    run eval perplexity $form
    [ "$got" = 0 ] || complain "eval of $form failed"
    run generate $form --prompt "1 the quick" --max-tokens 8 --temperature 0
    [ "$got" = 0 ] || complain "generate from $form failed"
    cp out text.$form
done
run generate run --prompt "1 the quick" --max-tokens 8 --temperature 0
for form in rms crms again; do
    cmp -s out text.$form || complain "$form goes on with another text"
done

refused 1 "keel: rms is there already; name a new folder" run --to=rms --out=rms
refused 1 "keel: rms/step_30/config.yaml:$(grep -n 'kind: rms' rms/step_30/config.yaml | head -n 1 | cut -d: -f1): model.norm.kind is rms already" \
    rms --to=rms --out=new
refused 1 "keel: nowhere: no such folder; name a run's folder or one of its step_N" nowhere --to=rms --out=new
refused 2 "keel convert: --to=layer: expected rms or crms" run --to=layer --out=new
refused 2 "keel convert: which model? Name a run's folder or one of its step_N" --to=rms --out=new
refused 2 "keel convert: to which form? --to=rms or --to=crms" run --out=new
refused 2 "keel convert: where to? --out=FOLDER" run --to=rms
[ ! -e new ] || complain "a refused conversion left a folder"
exit $bad

#!/bin/sh
# cli_experiment.sh KEEL: `keel lab run` and `report`: an experiment from text to table; what has been run is not run
# again; an interrupted one goes on; a run that fails or diverges is counted; bad experiments are refused.
set -eu
keel=$(realpath "$1")
source=$(pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export KEEL_REGISTRY="$work/runs.db"
bad=0
complain() {
    echo "$1" >&2
    head -n 30 "$work/out" "$work/err" | sed 's/^/    /' >&2
    bad=1
}
# refused CODE MESSAGE ARGUMENTS...
refused() {
    want=$1 message=$2 got=0
    shift 2
    "$keel" lab "$@" >out 2>err || got=$?
    [ "$got" = "$want" ] || complain "keel lab $*: exit code $got, expected $want"
    grep -qF "$message" err || complain "keel lab $*: not '$message'"
}
i=0
while [ $i -lt 400 ]; do
    echo "line $i says $((i * i % 97)) and then $((i * 31 % 89)) words about it"
    i=$((i + 1))
done >text.txt
cat >base.yaml <<'Y'
model: {layers: 1, width: 32, context: 32, attention: {heads: 1}}
train: {steps: 6, batch_tokens: 64, evaluate: {every: 50%, tokens: 500}, checkpoint: {every: none}, schedule: {warmup: 2 steps}}
data: {vocab: 300, validation: 10%, document: "\n"}
Y
cat >e.yaml <<'Y'
title: A test
question: Does it run?
base: base.yaml
arms:
  pre: {}
  sdd: {model.norm.preset: sdd}
  relu: {model.ffn: {kind: mlp, activation: relu}}
baseline: pre
seeds: 2
match: {by: parameters, key: model.ffn.width}
tune: {values: [1e-3, 4e-3]}
Y
"$keel" lab run e.yaml data.train=text.txt --dry-run --out lab >out 2>err || complain "dry run failed"
[ "$(wc -l <out)" = 6 ] || complain "dry run: not 6 runs in the first stage"
"$keel" lab run e.yaml data.train=text.txt --out lab --jobs 2 --threads 1 >out 2>err || complain "lab run failed"
grep -q '^# A test$' out || complain "lab run: no report"
grep -Eq '^\| sdd \| [14]e-3 ! \| [0-9.]+ ± [0-9.]+ \| [-+][0-9.]+ ± [0-9.]+' out || complain "lab run: no row of sdd"
grep -q "^9/9  " err || complain "lab run: not nine runs"
[ "$(wc -l <lab/e/results.jsonl)" = 9 ] || complain "lab run: not nine lines of results"

# ---- again: everything is known, also from the registry when the results are another experiment's
"$keel" lab run e.yaml data.train=text.txt --out lab --threads 1 >out 2>err || complain "second lab run failed"
grep -q "9 runs, 9 known already" err || complain "second lab run: runs again"
sed 's/A test/Another/' e.yaml >f.yaml
"$keel" lab run f.yaml data.train=text.txt --out lab --threads 1 >out 2>err || complain "lab run of the copy failed"
grep -q "9 runs, 9 known already" err || complain "the registry's runs are not used"
grep -q "9 of the runs are another experiment's" out || grep -q "of the runs are another experiment's" out || complain "reuse is not told"

# what dropping each layer costs is known from the results, as the runs are
cat >l.yaml <<'Y'
base: base.yaml
arms: {"a, b": {}, "../ü <c> & \"q\" `x`": {model.ffn.width: 64}}
baseline: a, b
seeds: 2
layers: true
Y
"$keel" lab run l.yaml data.train=text.txt --out lab --threads 1 >out 2>err || complain "lab run with layers failed"
grep -q "What each layer is worth" out || complain "lab run with layers: no table of them"
[ -d "$(echo lab/l/c-q-x-seed-1-*)" ] || complain "lab run: the folder of an arm named by signs"
cp out first
"$keel" lab run l.yaml data.train=text.txt --out "$work/lab" --threads 1 >out 2>err || complain "lab run with layers failed"
grep -q "4 runs, 4 known already" err || complain "lab run with layers: runs again"
cmp -s first out || complain "lab run with layers: another report the second time"

# ---- reports
"$keel" lab report e.yaml --out lab --html page.html --markdown r.md --json >r.json 2>err || complain "lab report failed"
grep -q '<svg' page.html || complain "the page has no curve"
grep -q '"verdict": ' r.json || complain "no verdict in the JSON"
"$keel" lab report e.yaml --results lab/e/results.jsonl --json >out 2>err || complain "lab report --json failed"
head -c 1 out | grep -q '{' || complain "lab report --json: no JSON on stdout"
"$keel" lab report e.yaml --out lab --json=r2.json >out 2>err || complain "lab report --json=FILE failed"
cmp -s r.json r2.json && [ ! -s out ] || complain "lab report --json=FILE: not into the file"
sed '$d' lab/e/results.jsonl >short.jsonl # one run's result is lost
"$keel" lab report e.yaml --results short.jsonl >out 2>err || complain "lab report of a short table failed"
grep -q "runs are missing: the report is not complete" out || complain "a missing run is not told"

# ---- a run that diverges is counted, and its arm loses nothing else
cat >d.yaml <<'Y'
base: base.yaml
arms: {calm: {}, wild: {train.optimizer: {lr: 100, weight_decay: 1}, train.clip: 0, train.schedule.warmup: 0 steps}}
set: {train.steps: 80}
baseline: calm
seeds: 1
Y
"$keel" lab run d.yaml data.train=text.txt --out lab --threads 1 >out 2>err || complain "lab run with a divergence failed"
grep -q "wild: diverged with every seed that was run (1)" out || complain "the divergence is not told"

# ---- interrupted: the same command goes on
cat >s.yaml <<'Y'
base: base.yaml
set: {train.steps: 30000, train.evaluate.every: none, train.checkpoint.every: 1000 steps}
arms: {a: {}, b: {model.ffn.width: 64}}
baseline: a
seeds: 1
Y
"$keel" lab run s.yaml data.train=text.txt --out lab --jobs 2 --threads 1 >out1 2>err1 &
lab=$!
n=0
while [ ! -s "$(echo lab/s/b-*/metrics.jsonl)" ] && [ $n -lt 200 ]; do sleep 0.1 && n=$((n + 1)); done
refused 1 "lab/s: another keel lab run is at work in this folder; wait for it" run s.yaml data.train=text.txt --out lab
kill -TERM $lab
got=0
wait $lab || got=$?
[ $got = 143 ] || complain "an interrupted lab run: exit code $got, expected 143"
grep -q "stopped; the same command goes on" err1 || complain "an interrupted lab run: the message"
grep -q "saved" lab/s/a-*/train.log || complain "an interrupted lab run: the state is not saved"

# a signal to the whole group (Ctrl-C in a terminal, a scheduler) is heard once by each run, which saves
pids_of() { for k in a b; do cat lab/s/$k-*/lock 2>/dev/null; done; }
started() { # both are past their last start, STEPS lines or more
    n=0
    while kill -0 $lab 2>/dev/null && [ $n -lt 200 ]; do
        [ -s "$(echo lab/s/a-*/metrics.jsonl)" ] && [ -s "$(echo lab/s/b-*/metrics.jsonl)" ] && return
        sleep 0.1 && n=$((n + 1))
    done
}
for signal in INT TERM; do
    rm -rf lab/s
    setsid "$keel" lab run s.yaml data.train=text.txt --out lab --jobs 2 --threads 1 train.steps=3000000 >out 2>err &
    lab=$!
    started
    kill -s $signal -- -$lab || complain "no group of the lab run"
    wait $lab || true
    for k in a b; do
        grep -q "the state is saved" lab/s/$k-*/train.log || complain "SIG$signal to the group: $k is not saved"
    done
done
# --again begins anew each time it is said, so it is not the same command that goes on
rm -rf lab/s
"$keel" lab run s.yaml data.train=text.txt --out lab --jobs 2 --threads 1 train.steps=3000000 --again >out 2>err &
lab=$!
started
kill -TERM $lab
wait $lab || true
grep -q "stopped; the same command without --again goes on" err || complain "--again interrupted: the message"
# killed without a word it leaves no run behind
rm -rf lab/s
"$keel" lab run s.yaml data.train=text.txt --out lab --jobs 2 --threads 1 train.steps=3000000 >out 2>err &
lab=$!
started
kill -KILL $lab
wait $lab 2>/dev/null || true
n=0
for pid in $(pids_of); do
    while kill -0 "$pid" 2>/dev/null && [ $n -lt 100 ]; do sleep 0.1 && n=$((n + 1)); done
done
[ $n -lt 100 ] || complain "a killed lab run leaves its runs behind"

# ---- refusals
refused 2 "keel lab run: which experiment? configs/lab has some" run
refused 1 "missing.yaml" run missing.yaml
printf 'base: base.yaml\narms: {a: {}, b: {model.width: 32}}\nbaseline: a\n' >same.yaml
refused 1 "'a, seed 1' and 'b, seed 1' are the same configuration: what varies changes nothing" run same.yaml data.train=text.txt --out lab
printf 'base: base.yaml\narms: {a: {}, b: {train.schedule.warmup: 6 steps}}\nbaseline: a\n' >warm.yaml
refused 1 "arm 'b': the warm-up of 6 steps (train.schedule.warmup) is as long as the run, 6" run warm.yaml data.train=text.txt --out lab
printf 'base: base.yaml\narms: {a: {}, b: {model.residual.kind: hyper, model.norm.preset: post}}\nbaseline: a\n' >clash.yaml
refused 1 "arm 'b': preset post: model.norm.attn has post" run clash.yaml data.train=text.txt --out lab
printf 'base: base.yaml\narms: {a: {}, b: {model.layers: 2}}\nbaseline: a\nmatch: {by: parameters, key: train.steps}\n' >nomatch.yaml
refused 1 "match: train.steps does not change the parameters of arm 'b'; name a key that does" run nomatch.yaml data.train=text.txt --out lab
refused 1 "results.jsonl does not exist; 'keel lab run clash.yaml' makes it, or say --results" report clash.yaml --out lab
refused 2 "expected a number from 1 to 64" run e.yaml --jobs 0
# ---- the committed reports are what the committed results say, and the pages quote them rightly
cd "$source"
for results in docs/results/*.jsonl; do
    name=$(basename "$results" .jsonl)
    "$keel" lab report "configs/lab/$name.yaml" --scale small data.train=demo/gcide.txt --results "$results" \
        >"$work/out" 2>"$work/err" || complain "$results: no report"
    cmp -s "$work/out" "docs/results/$name.md" || complain "docs/results/$name.md is not what $results says"
done
for page in docs/methods.md README.md docs/results/README.md; do
    grep -oE '\[[-+][0-9.]+ ± [0-9.]+\]\([a-z/_]*\.md\)' "$page" | tr -d '[)' | tr ']' ' ' | tr '(' ' ' |
        while read -r mean sign half file; do
            grep -qF -- "$mean $sign $half" "docs/results/$(basename "$file")" ||
                echo "$page: $mean $sign $half does not stand in $file" >&2
        done 2>"$work/err"
    [ ! -s "$work/err" ] || complain "$page quotes a figure that its report does not have"
done
exit $bad

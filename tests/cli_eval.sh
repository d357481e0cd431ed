#!/bin/sh
# cli_eval.sh KEEL: `keel eval` on a model that `keel train` just made: what it prints, and what it refuses. The
# numbers are test_eval.c's.
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
    "$keel" eval "$@" >out 2>err || got=$?
}
ok() {
    run "$@"
    [ "$got" = 0 ] || complain "keel eval $*: exit code $got"
}
# refused CODE MESSAGE ARGUMENTS...: that exit code, that line on stderr, nothing on stdout
refused() {
    want=$1 message=$2
    shift 2
    run "$@"
    [ "$got" = "$want" ] || complain "keel eval $*: exit code $got, expected $want"
    [ ! -s out ] || complain "keel eval $*: something on stdout"
    grep -v '^machine: ' err | head -n 1 >first
    [ "$(cat first)" = "$message" ] || complain "keel eval $*: not '$message'"
}

seq 1 500 | sed 's/$/ the quick brown fox/' >text.txt
cat >tiny.yaml <<'YAML'
model: {layers: 1, width: 16, context: 64, vocab: 300, attention: {heads: 2}, ffn: {width: 16}}
train: {steps: 2, batch_tokens: 128, precision: f32}
data: {train: text.txt, vocab: 257, validation: 5%}
YAML
"$keel" train tiny.yaml --out run >out 2>err || complain "keel train failed"
cat >piqa.jsonl <<'JSON'
{"goal":"the quick","sol1":"brown fox","sol2":"xq zz"}
{"goal":"1 the quick brown","sol1":"zzzz","sol2":"fox"}
{"goal":"2 the","sol1":"quick","sol2":"fox"}
JSON
printf '0\n1\n0\n' >labels
printf '{"text":"the quick brown fox"}\n{"text":"3 the quick"}\n' >lambada.jsonl

# ---- shards, texts
ok perplexity run
grep -qxE 'loss [0-9.]+  perplexity [0-9.]+  bits per byte [0-9.]+  \([0-9]+ validation tokens, run/step_2\)' out ||
    complain "perplexity on shards: not that line"
grep -qE '^\(95 %: loss [0-9.]+ to [0-9.]+, bits per byte [0-9.]+ to [0-9.]+\)$' out || complain "no range"
ok perplexity run --json
grep -qE '"loss_stderr":[-e0-9.]+,"loss_low":[0-9.]+,"loss_high":[0-9.]+,"bits_per_byte_stderr":' out || complain "no error"
grep -q '"byte_perplexity":[0-9.]*,"bits_per_byte"' out || complain "no byte perplexity"
head -c 500 text.txt >short.txt
ok perplexity run --text short.txt --stride 16 --context 32
grep -qE '^bits per byte [0-9.]+  loss [0-9.]+  perplexity [0-9.]+ a token, [0-9.]+ a word, [0-9.]+ a byte$' out ||
    complain "perplexity on a text: not that line"
grep -qE '^\(95 %: loss [0-9.]+ to [0-9.]+, bits per byte [0-9.]+ to [0-9.]+\)$' out || complain "no range of a text"
grep -qE ' words, 500 bytes; [0-9]+ windows of 32, stride 16; run/step_2\)$' out || complain "not that line of counts"
ok perplexity run --text short.txt --json --stride 16 --batch 1
cp out first.json
grep -q '"bytes":500,"words":[0-9]*,"windows":[0-9]*,"context":64,"stride":16,' out || complain "not those fields"
ok perplexity run --text - --json --stride 16 --batch 7 <short.txt
sed 's/"text":"-"/"text":"short.txt"/' out | cmp -s - first.json || complain "the loss depends on the batch"

# ---- layers
ok layers run
grep -qxE 'nothing +[0-9.]+' out || complain "no loss of the whole model"
grep -qxE ' +0 +[0-9.]+ +[+-][0-9.]+' out || complain "no row of block 0"
grep -qxE '\(nats a token; [0-9]+ validation tokens; run/step_2\)' out || complain "no last line"
ok layers run --branches --json --tokens 64
grep -qE '"tokens":128,.*"layers":\[\{"layer":0,"loss":[0-9.]+,"increase":[-e0-9.]+,"loss_without_attention":[0-9.]+,"loss_without_ffn":[0-9.]+\}\]\}$' out ||
    complain "layers: not those fields"

# ---- choices
ok choice run piqa.jsonl --task piqa --labels labels
grep -qE '^acc  +[01]\.[0-9]{5} \+- [0-9.]+  \(95 %: 0\.[0-9]{5} to [01]\.[0-9]{5}\)$' out || complain "no line of acc"
grep -qE '^acc_bytes  +[01]\.' out || complain "no line of acc_bytes"
grep -qxF '(piqa, 3 records, 0 cut to fit; run/step_2)' out || complain "no last line"
for batch in 1 2 7; do
    ok choice run piqa.jsonl --task=piqa --labels=labels --json --batch=$batch
    [ "$batch" = 1 ] && cp out first.json
    cmp -s out first.json || complain "the scores depend on the batch ($batch)"
done
grep -q '"task":"piqa","examples":3,"requests":6,"truncated":0,"acc":' out || complain "not those fields"
ok choice run lambada.jsonl --task lambada --limit 1 --json
grep -q '"examples":1,.*"acc_stderr":null,"acc_low":[0-9.]*,"acc_high":[0-9.]*,"perplexity":[0-9.]*,"perplexity_stderr":null' out ||
    complain "one record: a standard error"
ok choice run lambada.jsonl --task lambada
grep -qE '^perplexity  +[0-9.]+ \+- [0-9.]+$' out || complain "no line of perplexity"

# ---- refusals
refused 2 "keel eval: which task? perplexity MODEL, layers MODEL, or choice MODEL FILE"
refused 2 "keel eval: which task? perplexity MODEL, layers MODEL, or choice MODEL FILE" loss run
refused 2 "keel eval: which model? Name a run's folder or one of its step_N" choice
refused 2 "keel eval: which layout? --task=NAME" choice run piqa.jsonl
refused 2 "keel eval: which records? Name a JSONL file behind the model" choice run --task piqa
refused 2 "keel eval: --task=mmlu: expected one of hellaswag, arc, piqa, lambada, openbookqa, sciq, boolq, winogrande, blimp" \
    choice run piqa.jsonl --task mmlu
refused 2 "keel eval: --stride is not for choice" choice run piqa.jsonl --task piqa --stride 3
refused 2 "keel eval: --branches is not for perplexity" perplexity run --branches
refused 2 "keel eval: --stride is not for layers" layers run --stride 3
refused 2 "keel eval: --limit is not for perplexity" perplexity run --limit 3
refused 2 "keel eval: --tokens is for shards, not for --text" perplexity run --text short.txt --tokens 3
refused 2 "keel eval: --stride needs --text=FILE" perplexity run --stride 3
refused 2 "keel eval: --batch=0: expected a whole number from 1, such as 100 or 10k" perplexity run --batch 0
refused 2 "keel eval: one argument too many: 'more'" perplexity run more
refused 1 "keel: none.jsonl: cannot open: No such file or directory" choice run none.jsonl --task piqa
refused 1 "keel: piqa.jsonl: record 1 has no field 'label'; name the file of labels by --labels" \
    choice run piqa.jsonl --task piqa
refused 1 "keel: piqa.jsonl:1: the record has no field 'text'" choice run piqa.jsonl --task lambada
printf '0\n1\n' >two
refused 1 "keel: two: 2 labels for 3 records" choice run piqa.jsonl --task piqa --labels two
head -n 2 piqa.jsonl >two.jsonl
refused 1 "keel: labels: more labels than the 2 records; is it another split's?" \
    choice run two.jsonl --task piqa --labels labels
ok choice run piqa.jsonl --task piqa --labels labels --limit 2
printf '0\n2\n0\n' >beyond
refused 1 "keel: beyond:2: no label; it must be a whole number from 0 to 1" choice run piqa.jsonl --task piqa --labels beyond
refused 1 "keel: lambada has its answers in its records: no --labels" choice run lambada.jsonl --task lambada --labels two
refused 1 "keel: short.txt: windows of 65 tokens; from 1 to the model's context of 64" \
    perplexity run --text short.txt --context 65
refused 1 "keel: short.txt: a stride of 17 tokens; from 1 to the window's 16" \
    perplexity run --text short.txt --context 16 --stride 17
: >nothing
refused 1 "keel: nothing: the text is empty" perplexity run --text nothing
exit $bad

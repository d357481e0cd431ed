#!/bin/sh
# demo.sh: from a fresh Debian 12 to a language model of your own, in about six minutes on two cores.
#
#     sh scripts/demo.sh                     as root, or as a user with sudo (only for installing packages)
#     DEMO_TIME='20 min' sh scripts/demo.sh  train longer than the 4 minutes of configs/demo.yaml
#
# It installs what is missing, builds build/keel, takes the text of the GNU Collaborative International Dictionary of
# English out of its Debian package, trains a tokenizer and a 10M model on it, measures the model beside a
# Kneser-Ney bigram, lets it define words that do not exist, and writes a report page. The network is used for
# packages only. Everything it makes lies in demo/ and build/; a second run reuses what is there, an interrupted
# training goes on where it stopped; `rm -r demo` starts again.
set -eu
cd "$(dirname "$0")/.."
LC_ALL=C.UTF-8 # decimal points, whatever the user's language
export LC_ALL
demo=demo
keel=build/keel
mkdir -p $demo

# ---- talk: a headline a stage, and how long it took
if [ -t 1 ] && [ "${TERM-dumb}" != dumb ] && [ -z "${NO_COLOR-}" ]; then
    bold=$(printf '\033[1m') plain=$(printf '\033[0m')
else
    bold='' plain=''
fi
stages=7 number=0 began=0
say() { echo "   $*"; }
headline() {
    number=$((number + 1)) began=$(date +%s)
    printf '\n%s%d/%d  %s%s\n' "$bold" "$number" $stages "$*" "$plain"
}
took() { say "($(($(date +%s) - began)) s)"; }
training=''
interrupted() {
    echo
    [ -z "$training" ] || say "Stopped; the training so far is saved. The same command goes on: sh scripts/demo.sh"
    exit 130
}
trap interrupted INT

# ---- reuse: a stage is skipped when its result is there and nothing before it was made anew
anew=''
have() {
    [ -z "$anew" ] && [ -e "$1" ] || return 1
    say "there already: $1"
}
# number_of KEY FILE: the first number under KEY in the JSON of FILE.
number_of() {
    value=$(sed 's/[,{}]/\n/g' "$2" | sed -n "s/^ *\"$1\" *: *\([-+0-9.eE]\{1,\}\) *\$/\1/p" | head -n 1)
    [ -n "$value" ] || {
        echo "demo: no number '$1' in $2" >&2
        exit 1
    }
    echo "$value"
}

headline "Packages and build"
sh scripts/deps.sh build
if ! { cmake -S . -B build && cmake --build build --parallel "$(nproc)"; } >$demo/build.log 2>&1; then
    tail -n 30 $demo/build.log >&2
    echo "demo: the build failed; all of its output is in $demo/build.log" >&2
    exit 1
fi
say "$($keel --version): $keel"
took

headline "Text: a dictionary of English"
if ! have $demo/gcide.txt; then
    anew=1
    sh scripts/text.sh $demo
fi
say "$(($(wc -c <$demo/gcide.txt) / 1000000)) MB; a document an entry (license: $demo/gcide.copyright)"
took

headline "Tokenizer: byte-level BPE, 16,384 tokens"
if ! have $demo/tokenizer.json; then
    anew=1
    $keel tokenizer train --vocab 16Ki --out $demo/tokenizer.json $demo/gcide.txt
fi
took

headline "Shards: the text as tokens"
if ! have $demo/data.done; then
    anew=1
    rm -rf $demo/data $demo/data.done
    $keel data build --tokenizer $demo/tokenizer.json --out $demo/data $demo/gcide.txt
    : >$demo/data.done
fi
took

headline "Training: llama-10m, ${DEMO_TIME-4 min} (Ctrl-C stops; the same command goes on)"
if ! have $demo/run.done; then
    training=1
    if [ -n "$anew" ]; then rm -rf $demo/run; fi
    anew=1
    rm -f $demo/run.done
    # The length is part of a run's identity: whoever goes on gives the same one.
    [ ! -e $demo/time ] || [ ! -e $demo/run ] || DEMO_TIME=$(cat $demo/time)
    set -- configs/demo.yaml data.train=$demo/data --out $demo/run
    [ ! -e $demo/run ] || set -- "$@" --resume
    [ -z "${DEMO_TIME-}" ] || set -- "$@" train.time="$DEMO_TIME"
    if [ -n "${DEMO_TIME-}" ]; then echo "$DEMO_TIME" >$demo/time; else rm -f $demo/time; fi
    $keel train "$@"
    : >$demo/run.done
    training=''
fi
took

# quietly COMMAND...: its talk is kept, and shown when it fails.
quietly() {
    "$@" 2>$demo/talk.log && return
    cat $demo/talk.log >&2
    echo "demo: failed: $*" >&2
    exit 1
}

headline "Measured: bits per byte of text the model never saw (lower is better)"
if ! have $demo/bigram-all.json; then
    anew=1
    say "the model reads the validation text ..."
    quietly $keel eval perplexity $demo/run --json >$demo/model.json
    tokens=$(number_of tokens_seen $demo/model.json)
    say "pairs of tokens are counted ..."
    # the order and the positions of configs/demo.yaml: train.seed.data 1, model.context 256
    quietly $keel data bigram $demo/data --seed 1 --context 256 --tokens "$tokens" --json >$demo/bigram-seen.json
    quietly $keel data bigram $demo/data --context 256 --json >$demo/bigram-all.json.part
    mv $demo/bigram-all.json.part $demo/bigram-all.json
fi
model=$(number_of bits_per_byte $demo/model.json)
seen=$(number_of bits_per_byte $demo/bigram-seen.json)
all=$(number_of bits_per_byte $demo/bigram-all.json)
tokens=$(number_of tokens_seen $demo/model.json)
printf '   %-62s %6.3f\n' "the model, after $tokens tokens" "$model" \
    "Kneser-Ney bigram, counted on the tokens the model saw" "$seen" \
    "Kneser-Ney bigram, counted on all training tokens" "$all"
margin=$(awk -v model="$model" -v seen="$seen" 'BEGIN {printf "%.3f", seen - model}')
reached=$(awk -v model="$model" -v seen="$seen" 'BEGIN {print (seen - model >= 0.1) ? 1 : 0}')
if [ "$reached" = 1 ]; then
    say "The model is $margin below the bigram on the same tokens: it has learned more than pairs."
elif awk -v margin="$margin" 'BEGIN {exit !(margin > 0)}'; then
    say "The model is only $margin below the bigram on the same tokens (goal: 0.1): train it longer."
else
    say "The model is not below the bigram on the same tokens ($margin; goal: 0.1): train it longer."
fi
took

headline "Words that do not exist, defined"
if [ -n "$anew" ] || [ ! -e $demo/report.html ]; then
    rm -f $demo/samples.jsonl $demo/report.html
fi
# An entry of the dictionary: head-word, syllables between backslashes, part of speech; the definition is indented
# by 3. The prompt ends behind the second space: the third one belongs to the next word's token.
define() {
    prompt=$(printf '%s\n  x' "$1")
    set -- $demo/run --prompt "${prompt%x}" --max-tokens 80 --temperature 0.7 --seed 1 --stop '[1913 Webster]'
    quietly $keel generate "$@" --echo >$demo/sample.txt
    sed 's/^/   | /; s/ *$//' $demo/sample.txt
    [ -e $demo/report.html ] || quietly $keel generate "$@" --json >>$demo/samples.jsonl
}
define 'Glimberry \Glim"ber*ry\, n.; pl. {Glimberries}. (Bot.)'
define 'Quorvant \Quor"vant\, a. [L. quorvans, p. pr. See {Quorve}.]'
define 'Untressle \Un*tres"sle\, v. t. [Pref. un- + tressle.]'
if [ ! -e $demo/report.html ]; then
    levels="\"Kneser-Ney bigram, same tokens\": $seen, \"Kneser-Ney bigram, all tokens\": $all"
    # the run's own summary, with what to compare it with put in front
    grep -q '"baselines"' $demo/run/summary.json || sed -i "1s/{/{\"baselines\": {$levels}, /" $demo/run/summary.json
    quietly $keel runs report $demo/run --samples $demo/samples.jsonl --out $demo/report.html
fi
took

cat <<END

${bold}The report with the loss curve:${plain} $demo/report.html

${bold}Next:${plain}
   $keel generate $demo/run --prompt 'Keelson \\Keel"son\\, n.' --max-tokens 120
   $keel train configs/demo.yaml data.train=$demo/data train.time='30 min' --out $demo/longer
   $keel train configs/demo.yaml data.train=FOLDER_OF_YOUR_TEXT train.time='10 min' --out $demo/mine
END
# Four minutes are enough for the goal; who chose another time is told above and has not failed.
[ "$reached" = 1 ] || [ -n "${DEMO_TIME-}" ]

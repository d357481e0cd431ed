#!/bin/sh
# cli_fit.sh KEEL: `keel fit` as a user meets it: a table, the registry, predictions, the page, JSON; bad input with the
# whole message; docs/laws.md has the laws that the program has.
set -eu
keel=$(realpath "$1")
root=$(pwd)
points=$root/configs/laws/step_law.csv
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
expect() { # CODE ARGUMENTS...
    want=$1 got=0
    shift
    "$keel" "$@" >out 2>err </dev/null || got=$?
    [ "$got" = "$want" ] || complain "keel $*: exit code $got, expected $want"
}
refused() { # CODE MESSAGE ARGUMENTS...: that first line on stderr, nothing on stdout
    want=$1 message="keel$2"
    shift 2
    expect "$want" fit "$@"
    [ "$(head -n 1 err)" = "$message" ] || complain "keel fit $*: not '$message'"
    [ ! -s out ] || complain "keel fit $*: something on stdout"
}
has() { grep -qE -- "$1" "$2" || complain "$3: no '$1'"; }

# ---- the published points of Step Law, with the constants published for them
expect 0 fit chinchilla "$points" --huber 0 --bootstrap 100 --predict N=1e9,D=2e10 --predict N=7G,D=1T --optimal 1e20
has '^E +1\.426[56] +95%: ' out "fit chinchilla"
has '^alpha +0\.2373' out "fit chinchilla"
has '^points +17 of 17 rows of .*step_law.csv \(N: params, D: tokens, loss: loss\)$' out "fit chinchilla"
has '^predicted +N=1e\+09, D=2e\+10: loss 2\.2[0-9]+; the law 2\.[0-9]+ to 2\.[0-9]+; one run 2\.[0-9]+ to 2\.[0-9]+$' out "fit chinchilla"
has '^optimal +1e\+20 flops: loss 2\.2[0-9]+ at N 1\.[0-9]+e\+09 \(' out "fit chinchilla"
has '^warning: extrapolated: N is 7e\+09, 6\.52 times the most fitted \(1\.07e\+09\); D is 1e\+12, 10 times the most fitted \(1e\+11\)$' err "fit chinchilla"
! grep -q 'N is 1e+09' err || complain "fit chinchilla: inside of the points, and a warning"

expect 0 fit chinchilla "$points" --bootstrap 20 --json --html page.html --predict N=1e9,D=2e10
has '"law":"chinchilla",.*"alpha":\{"value":0\.132[78]' out "fit --json"
has '"rows":17,"fitted":17,"diverged":0' out "fit --json"
has '20 resamples are too few for intervals of 95%: at least 40' out "fit --bootstrap 20"
has '"predicted":\[\{"at":\{"N":1000000000.0,"D":2e10\},"value":2\.21' out "fit --json"
has '<svg' page.html "fit --html"
[ "$(grep -o '<circle' page.html | wc -l)" = 34 ] || complain "fit --html: not every point is drawn twice"
has 'Loss from parameters and tokens' page.html "fit --html"
! grep -qE 'https?://|<script' page.html || complain "fit --html: the page is not self-contained"
"$keel" fit chinchilla - --bootstrap 20 --json --predict N=1e9,D=2e10 <"$points" >out2 2>err
sed 's/standard input/TABLE/' out2 >a
sed "s|$points|TABLE|" out >b
cmp -s a b || complain "fit: from standard input another result"

# ---- rows that do not count are named
{
    cat "$points"
    echo '300e6,20e9,nan,0.01,128'
    echo '300e6,,2.5,0.01,128'
} >holes.csv
expect 0 fit overtraining holes.csv --bootstrap 0
has '^points +17 of 19 rows of holes.csv' out "fit with holes"
has '^left out +1 diverged \(line 19\), 1 incomplete \(line 20: no tokens\)$' out "fit with holes"
expect 0 fit lr "$points" --where 'params>250e6' --bootstrap 0 --map N=params
has '^points +13 of 13 rows' out "fit --where"

# ---- bad input
refused 2 ": no law 'chincilla'; did you mean 'chinchilla'? There are: chinchilla, chinchilla_tied, allocation, farseer, overtraining, downstream, batch, critical_batch, lr, vocabulary, vocabulary_growth, over_encoding, quantization_error, quantization" chincilla "$points"
refused 2 " fit: which law? 'keel fit --list' names them"
refused 2 " fit: fit to what? Give a table (CSV, JSON, JSON lines), or --registry" chinchilla
refused 2 " fit: both a table and --registry; for a registry's file: --registry=t.csv" chinchilla t.csv --registry
refused 2 " fit: --map: 'loss': expected NAME=VALUE" chinchilla t.csv --map loss
refused 2 " fit: --where: 'a!b': expected COLUMN=VALUE, COLUMN!=VALUE, COLUMN<VALUE or COLUMN>VALUE" chinchilla t.csv --where 'a!b'
refused 2 " fit: --bootstrap=-1: expected a number from 0 to 100000" chinchilla t.csv --bootstrap=-1
refused 2 ": --predict N=1e9: D (training tokens) is missing" chinchilla "$points" --predict N=1e9
refused 2 ": --predict N=1e9,Q=2: the law chinchilla has no input 'Q'; it has N, D" chinchilla "$points" --predict N=1e9,Q=2
refused 2 ": --predict N=0,D=2: N is '0'; expected a number above 0" chinchilla "$points" --predict N=0,D=2
refused 2 ": --optimal much: expected a number of flops, as 1e20" chinchilla "$points" --optimal much --bootstrap 0
refused 1 ": 3 values of N have at least 4 values of D each; the law farseer is determined by at least 4: add runs, or fit chinchilla" farseer "$points"

refused 1 ": $points: none of the 17 rows is as --where asks" chinchilla "$points" --where "loss>9"
head -n 4 "$points" >short.csv
refused 1 ": short.csv: 3 points for the 5 parameters of the law chinchilla; add runs: at least 5, better 15" chinchilla short.csv
refused 1 ": t.csv: cannot open: No such file or directory" chinchilla t.csv

# ---- the registry: parameters and compute follow from the configurations
refused 1 ": the registry of runs: no rows" over_encoding --registry --map m=params
awk 'BEGIN { for (i = 0; i < 3000; i++) printf "the keel is deep and the sea number %d is wide%s", i * 7919 % 1000, i % 9 ? " " : "\n\n" }' >corpus.txt
cat >tiny.yaml <<'YAML'
model: {layers: 1, width: 32, context: 32, attention: {heads: 2}}
train: {steps: 4, batch_tokens: 128, precision: f32}
data: {train: first/data/shards, tokenizer: first/tokenizer.json}
YAML
expect 0 train tiny.yaml data.train=corpus.txt data.tokenizer=auto data.vocab=300 data.document=blank_line data.validation=10% --out first
shards=$(echo first/data/shards-*)
tokenizer=$(echo first/step_*/tokenizer.json | cut -d' ' -f1)
for width in 16 64; do
    expect 0 train tiny.yaml "data.train=$shards" "data.tokenizer=$tokenizer" model.width=$width data.validation=10% --out w$width
done
expect 0 fit over_encoding --registry --map m=params --json --bootstrap 0
has '"source":"the registry of runs","columns":\{"m":"params","loss":"loss"\},"rows":3,"fitted":3' out "fit --registry"
expect 0 fit over_encoding --registry="$KEEL_REGISTRY" --map m=flops,loss=bits_per_byte --where width!=32 --bootstrap 0
has '^points +2 of 2 rows of the registry of runs \(m: flops, loss: bits_per_byte\)$' out "fit --registry --where"

# ---- the page of laws
cd "$root"
"$keel" fit --list | grep -q '^farseer ' || { echo "fit --list: no farseer" >&2; bad=1; }
"$keel" fit --markdown >"$work/laws"
sed -n '/^<!-- keel fit --markdown -->$/,/^<!-- end -->$/p' docs/laws.md | sed '1,2d' | sed '$d' | sed '$d' >"$work/page"
cmp -s "$work/laws" "$work/page" || { echo "docs/laws.md: the laws are out of date: keel fit --markdown" >&2; diff "$work/laws" "$work/page" | head -5 >&2; bad=1; }
exit $bad

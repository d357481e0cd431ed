#!/bin/sh
# cli_lab.sh KEEL: `keel lab matrix`: the grid of common methods has no failure and is the one in docs/methods.md;
# refusals with the whole message.
set -eu
keel=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0
complain() {
    echo "$1" >&2
    head -n 20 "$work/out" "$work/err" | sed 's/^/    /' >&2
    bad=1
}
# refused CODE MESSAGE ARGUMENTS...: that exit code, that first line on stderr, nothing on stdout
refused() {
    want=$1 message=$2 got=0
    shift 2
    "$keel" lab "$@" >"$work/out" 2>"$work/err" || got=$?
    [ "$got" = "$want" ] || complain "keel lab $*: exit code $got, expected $want"
    [ ! -s "$work/out" ] || complain "keel lab $*: something on stdout"
    grep -qxF "$message" "$work/err" || complain "keel lab $*: not '$message'"
}
refused 2 "keel: lab: no 'matrx'; 'keel lab --help' lists what there is" matrx
refused 2 "keel lab matrix: no method 'frak'; 'keel bench method --list' names them" matrix --only frak
refused 2 "keel lab matrix: --part: expected I/N with I from 1 to N, as 1/2" matrix --part 3/2
refused 2 "keel: lab matrix: no pair is left to try" matrix --only frac --only frac_static

"$keel" lab matrix --only frac --only pre_qk --json >"$work/out" 2>"$work/err" || complain "lab matrix of a pair failed"
grep -q '^{"a":"pre_qk","b":"frac","outcome":"ok","reason":"","slope":' "$work/out" || complain "lab matrix: no such pair"
[ "$(wc -l <"$work/out")" = 1 ] || complain "lab matrix of a pair: not one cell"

# ---- schedules: a line each; settings apply to all
"$keel" lab schedules --steps 100 --out "$work/page.html" >"$work/out" 2>"$work/err" || complain "lab schedules failed"
grep -qE '^linear +1.0000 +0.9182 +0.7818 +0.5545 +0.3273 +0.1909 +0.1091 +0.5590$' "$work/out" || complain "lab schedules: linear"
grep -q '<svg' "$work/page.html" || complain "lab schedules: no curve drawn"
"$keel" lab schedules --json train.schedule.warmup="0 steps" >"$work/out" 2>"$work/err" || complain "lab schedules --json failed"
grep -q '^{"name":"linear","mean":0.55045,"at":\[1.0,0.91,0.775,0.55,0.325,0.19,0.1009\]}$' "$work/out" || complain "lab schedules --json"
refused 2 "keel lab schedules: 'wsd': expected KEY=VALUE" schedules wsd

# ---- coord-check: flat with muP, not without; the page; what is refused
cat >"$work/coord.yaml" <<'YAML'
model: {layers: 1, width: 32, context: 16, tie_head: false, attention: {heads: 2}, ffn: {width: 64}, norm: {affine: none}}
train: {optimizer: {lr: 1e-2, weight_decay: 0}}
YAML
"$keel" lab coord-check "$work/coord.yaml" --widths 64,128,256 --seeds 1 --html "$work/coord.html" --threads 1 \
    >"$work/out" 2>"$work/err" || complain "lab coord-check failed"
grep -qE '^none: grows with the width \(steepest: [a-z._]+, \+[0-9.]+; flat is within 0.15\)$' "$work/out" || complain "coord-check: none"
grep -qE '^mup: (flat in|shrinks with) the width \(steepest: [a-z._]+, -0\.[01][0-9]; flat is within 0.15\)$' "$work/out" ||
    complain "coord-check: mup"
grep -q '<svg' "$work/coord.html" || complain "coord-check: no curve drawn"
"$keel" lab coord-check "$work/coord.yaml" --widths 32,64 --steps 2 --json >"$work/out" 2>"$work/err" || complain "coord-check --json failed"
grep -qE '^\{"widths":\[32,64\],"steps":2,"seeds":2,"bound":0.15,"arms":\[\{"transfer":"none","flat":(true|false),"verdict":"' "$work/out" ||
    complain "coord-check --json: not those fields"
refused 2 "keel lab coord-check: --widths=32,x: 'x' is no width; write whole numbers like 32,64,128" coord-check --widths 32,x
refused 2 "keel: lab coord-check: width 32 comes after 64; name widths in ascending order" coord-check "$work/coord.yaml" --widths 64,32
refused 1 "keel: lab coord-check: train.transfer.kind none, width 33: $work/coord.yaml:1: model.attention.heads is 2; it must divide model.width (33), or set head_width" \
    coord-check "$work/coord.yaml" --widths 33,64

"$keel" lab matrix --markdown >"$work/out" 2>"$work/err" || complain "lab matrix: a pair failed"
sed -n '/^<!-- keel lab matrix --markdown -->$/,/^<!-- end -->$/p' docs/methods.md | sed '1d;$d' >"$work/page"
cmp -s "$work/out" "$work/page" || complain "docs/methods.md: the grid is out of date: keel lab matrix --markdown"
exit $bad

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

"$keel" lab matrix --markdown >"$work/out" 2>"$work/err" || complain "lab matrix: a pair failed"
sed -n '/^<!-- keel lab matrix --markdown -->$/,/^<!-- end -->$/p' docs/methods.md | sed '1d;$d' >"$work/page"
cmp -s "$work/out" "$work/page" || complain "docs/methods.md: the grid is out of date: keel lab matrix --markdown"
exit $bad

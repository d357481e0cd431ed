#!/bin/sh
# cli_op.sh KEEL: `keel op list, check, bench, eval` as a user meets them. Numbers of eval are test_op_eval.c's.
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
run() {
    got=0
    "$keel" op "$@" >"$work/out" 2>"$work/err" || got=$?
}
# refused CODE MESSAGE ARGUMENTS...: that exit code, that first line on stderr, nothing on stdout
refused() {
    want=$1 message=$2
    shift 2
    run "$@"
    [ "$got" = "$want" ] || complain "keel op $*: exit code $got, expected $want"
    [ ! -s "$work/out" ] || complain "keel op $*: something on stdout"
    [ "$(head -n 1 "$work/err")" = "$message" ] || complain "keel op $*: not '$message'"
}

# ---- list: a line an op; the page in docs/ is what the table says
run list
grep -qxF 'sum(a [rows, n], b? [rows, n], c? [rows, n], d? [rows, n]) -> y [rows, n]' "$work/out" || complain "list: no line for sum"
grep -q '^rms_norm(x \[rows, n\], gain? \[n/heads\]) -> y \[rows, n\], s \[rows, heads\]; eps=1e-05 heads=1 as_x=0 native=0$' "$work/out" ||
    complain "list: no line for rms_norm"
ops=$(wc -l <"$work/out")
run list --json
[ "$(grep -c '^  "name":' "$work/out")" = "$ops" ] || complain "list --json: not $ops operations"
run list --markdown
[ "$(grep -c '^## ' "$work/out")" = "$ops" ] || complain "list --markdown: not $ops sections"
cmp -s "$work/out" docs/operations.md ||
    complain "docs/operations.md is out of date: keel op list --markdown > docs/operations.md"
refused 2 "keel: op list: --json and --markdown exclude each other" list --json --markdown
refused 2 "keel: no operation 'rms_nrm'; did you mean 'rms_norm'? 'keel op list' lists them" list rms_nrm
refused 2 "keel: op: say what to do; 'keel op --help' lists it"
refused 2 "keel: op: no subcommand 'chek'; 'keel op --help' lists them" chek

# ---- check: one op, one case by label and by line, one level, a line of one's own, a failure
run check sum
[ "$got" = 0 ] && [ "$(wc -l <"$work/out")" = 2 ] || complain "check sum"
run check sum exact --isa plain
grep -qE '^sum +1 +0.0e\+00 +0.0e\+00 ' "$work/out" || complain "check sum exact: exact cases must be equal to the bit"
run check sum "a=5x64 b=5x64 fill=ints f32 bf16 tol=0"
grep -qE '^sum +1 +0.0e\+00 +0.0e\+00 ' "$work/out" || complain "check by the whole line"
run check rms_norm "x=2x8 f32"
grep -qE '^rms_norm +1 .* +-$' "$work/out" || complain "check on a line of one's own"
# a sum of random numbers is not exact in bf16: tol=0 must fail, name itself and how to repeat it
run check sum "a=33x129 b=33x129 bf16 tol=0" --isa plain
[ "$got" = 1 ] || complain "check: exit code $got of a failing case, expected 1"
grep -qE "^sum, case 'given', plain bf16: y: error [0-9.e-]+, limit 0; repeat: keel op check --isa plain sum \"a=33x129 b=33x129 bf16 tol=0\"$" \
    "$work/out" || complain "check: the failure does not say how to repeat it"
[ "$(cat "$work/err")" = "keel: op check: 1 failure; each line names the command that repeats it" ] || complain "check: not one failure"
run check sum "a=33x129 b=33x129 bf16 tol=0" --json
[ "$got" = 1 ] && grep -q '"failed": [1-9]' "$work/out" || complain "check --json of a failing case"
refused 2 "keel: no instruction-set level 'v9'; it must be plain, v3 or v4" check sum --isa v9
refused 2 "keel op check: at most NAME and CASE" check sum exact more
run check accumulate nothing
[ "$got" = 2 ] && [ "$(cat "$work/err")" = "keel: accumulate has no case 'nothing'; it has 'exact'; a case of your own is a line like \"x=5x129 bf16\"" ] ||
    complain "check: an unknown case"

# ---- bench: a row a case and dtype, every format
run bench sum exact
[ "$got" = 0 ] && [ "$(grep -c '^| sum | exact |' "$work/out")" = 2 ] || complain "bench sum exact"
run bench sum exact -o csv
[ "$(wc -l <"$work/out")" = 3 ] && [ "$(tail -n 1 "$work/out" | tr -cd , | wc -c)" = 11 ] || complain "bench -o csv"
run bench sum exact -o json --isa plain
grep -q '"isa": "plain"' "$work/out" && [ "$(grep -c '"median_s"' "$work/out")" = 2 ] || complain "bench -o json"
refused 2 "keel op bench: -o is 'xml'; it must be md, csv or json" bench sum -o xml

# ---- eval: the command line
refused 2 "keel op eval: name an operation; 'keel op list' lists them" eval
refused 2 "keel op eval: give --in FILE and --out FILE" eval sum
refused 2 "keel op eval: --precision is 'f16'; it must be f32 or bf16" eval sum --precision f16
refused 2 "keel op eval: two operations, 'sum' and 'split'; attributes are NAME=VALUE" eval sum split
refused 1 "keel: $work/none: cannot open: No such file or directory" eval sum --in "$work/none" --out "$work/o"
exit $bad

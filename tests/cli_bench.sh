#!/bin/sh
# cli_bench.sh KEEL: `keel bench peak`: one flat JSON object of exactly its keys, refusals with the whole message.
# No figure is judged: only that each is a number above zero.
set -eu
keel=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0
complain() {
    echo "$1" >&2
    sed 's/^/    /' "$work/out" "$work/err" >&2
    bad=1
}

OMP_NUM_THREADS=2 "$keel" bench peak --json 64x96x32 >"$work/out" 2>"$work/err" || complain "bench peak failed"
[ "$(wc -l <"$work/out")" = 1 ] || complain "not one line on stdout"
number='[1-9][0-9.e+]*|0\.[0-9]+'
for key in gemm_f32_gflops gemm_bf16_gflops copy_gbs read_gbs; do
    grep -qE "\"$key\": ($number)[,}]" "$work/out" || complain "no positive $key"
done
grep -qE '"threads": 2, "isa": "(plain|v3|v4)"\}$' "$work/out" || complain "no threads and isa"
[ "$(tr -cd : <"$work/out" | wc -c)" = 6 ] || complain "not six keys"
grep -q 'OMP_NUM_THREADS=2' "$work/err" || complain "the reason for the number of threads is not told"

# refused CODE MESSAGE ARGUMENTS...
refused() {
    want=$1 message=$2 got=0
    shift 2
    "$keel" bench "$@" >"$work/out" 2>"$work/err" || got=$?
    [ "$got" = "$want" ] || complain "keel bench $*: exit code $got, expected $want"
    [ ! -s "$work/out" ] || complain "keel bench $*: something on stdout"
    [ "$(head -n 1 "$work/err")" = "$message" ] || complain "keel bench $*: not '$message'"
}
refused 2 "keel: bench: no measurement 'peek'; 'keel bench --help' lists them" peek
refused 2 "keel bench peak: shape '12x' must be MxNxK, each from 1 to 1048576" peak 12x
refused 2 "keel bench peak: shape '1x0x1' must be MxNxK, each from 1 to 1048576" peak 1x0x1
refused 2 "keel bench peak: --threads is '0'; it must be a number >= 1" peak --threads 0

# ---- bench method: every method has a row; one is timed on a tiny model
tiny="model.layers=2 model.width=64 model.attention.heads=2 model.attention.kv_heads=1 model.ffn.width=64 model.vocab=256"
"$keel" bench method frac hybrid --preset llama-10m --context 32 --pairs 1 --json $tiny >"$work/out" 2>"$work/err" ||
    complain "bench method failed"
[ "$(grep -c '^{"method":"\(frac\|hybrid\)",.*"ratio":[0-9]' "$work/out")" = 2 ] || complain "bench method: not a line a method"
"$keel" bench method frac --preset llama-10m --context 32 --pairs 1 --decode $tiny >"$work/out" 2>"$work/err" ||
    complain "bench method --decode failed"
grep -qE '^frac +a token +[0-9.]+ ms against +[0-9.]+ ms: .*; caches 0.0[0-9] MiB against 0.0[0-9]$' "$work/out" || complain "bench method --decode"
"$keel" bench method frac --preset llama-10m --context 32 --pairs 1 --prefill --json $tiny >"$work/out" 2>"$work/err" ||
    complain "bench method --prefill failed"
grep -q '^{"method":"frac","timed":"prompt","ratio":' "$work/out" || complain "bench method --prefill --json"
"$keel" bench method --list >"$work/out" 2>"$work/err" || complain "bench method --list failed"
grep -qE '^frac +residual +model.residual.kind=frac' "$work/out" || complain "bench method --list: no frac"
refused 2 "keel: bench method: name a method, or --all; --list names them" method
refused 2 "keel: bench method: no method 'frak'; 'keel bench method --list' names them" method frak
refused 2 "keel bench method: --pairs=0: expected a whole number from 1 to 1000" method frac --pairs 0
refused 2 "keel: no instruction-set level 'v9'; it must be plain, v3 or v4" peak --isa v9
got=0
"$keel" bench train model.vocab=1 model.layers=1 model.width=32 model.attention.heads=4 --context 16 --batch 1 \
    >"$work/out" 2>"$work/err" || got=$?
[ "$got" = 2 ] || complain "keel bench train of one word: exit code $got, expected 2"
grep -q '^keel: model.vocab is 1; generated text needs at least 2$' "$work/err" || complain "one word is not refused"
exit $bad

#!/bin/sh
# fuzz.sh: builds every target of tests/fuzz with libFuzzer, AddressSanitizer and UndefinedBehaviorSanitizer, and runs
# each for a while on what it found before.
#
#     sh scripts/fuzz.sh                    60 seconds each
#     sh scripts/fuzz.sh 600                10 minutes each
#     sh scripts/fuzz.sh 60 jsonl packed    only these
#
# Needs clang with libFuzzer: sh scripts/deps.sh fuzz. Inputs that reached something new are kept in build-fuzz/corpus;
# one that crashes a target stays there as crash-..., and running the target on that file repeats it. Closes with
# "N targets, N failed". Environment: KEEL_FUZZ_BUILD (build-fuzz).
set -eu
cd "$(dirname "$0")/.."
seconds=${1-60}
[ $# -eq 0 ] || shift
build=${KEEL_FUZZ_BUILD:-build-fuzz}

say() { echo "fuzz: $*" >&2; }
command -v clang >/dev/null || {
    say "clang is not here: sh scripts/deps.sh fuzz"
    exit 1
}
case $seconds in '' | *[!0-9]*)
    say "usage: sh scripts/fuzz.sh [SECONDS [TARGET...]]"
    exit 2
    ;;
esac

names=$*
[ -n "$names" ] || names=$(for f in tests/fuzz/fuzz_*.c; do basename "$f" .c | sed 's/^fuzz_//'; done)
targets=$(for name in $names; do echo "fuzz_$name"; done)
cmake -S . -B "$build" -DCMAKE_C_COMPILER=clang -DCMAKE_BUILD_TYPE=Release -DCMAKE_C_FLAGS_RELEASE="-O1 -g" \
    -DKEEL_FUZZ=ON >/dev/null
# shellcheck disable=SC2086 # a list of words
cmake --build "$build" -j "$(nproc)" --target $targets >"$build/build.log" 2>&1 || {
    grep -E 'error|undefined' "$build/build.log" | head -n 20 >&2
    say "the build failed: $build/build.log"
    exit 1
}

run=0 failed=0
for name in $names; do
    corpus=$build/corpus/$name
    mkdir -p "$corpus"
    say "$name for $seconds s"
    run=$((run + 1))
    # threads are of no use to a target that takes microseconds
    if ! OMP_NUM_THREADS=1 ASAN_OPTIONS=detect_leaks=1 "$build/fuzz_$name" -max_total_time="$seconds" -timeout=20 \
        -rss_limit_mb=4096 -max_len=65536 -artifact_prefix="$corpus/" -print_final_stats=1 "$corpus" \
        "tests/fuzz/seeds/$name" >"$build/$name.log" 2>&1; then
        failed=$((failed + 1))
        grep -E 'ERROR|SUMMARY|runtime error|artifact_prefix' "$build/$name.log" | head -n 5 >&2
        say "$name failed: $build/$name.log"
    fi
    sed -n 's/^stat::number_of_executed_units: */fuzz:   inputs /p' "$build/$name.log" >&2
done
echo "$run targets, $failed failed"
[ "$failed" = 0 ]

#!/bin/sh
# cli_manners.sh KEEL: what every verb owes its user: data on stdout, talk on stderr, the exit codes of cli.h.
set -eu
keel=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset KEEL_FAULT KEEL_COLOR NO_COLOR OMP_NUM_THREADS
bad=0

# expect CODE ARGUMENTS...: runs keel, leaves $work/out and $work/err.
expect() {
    want=$1
    shift
    got=0
    "$keel" "$@" >"$work/out" 2>"$work/err" </dev/null || got=$?
    [ "$got" = "$want" ] && return
    echo "keel $*: exit code $got, expected $want" >&2
    sed 's/^/    /' "$work/err" >&2
    bad=$((bad + 1))
}
# holds WHAT COMMAND...: counts a failure that says WHAT.
holds() {
    what=$1
    shift
    "$@" && return
    echo "not so: $what" >&2
    sed 's/^/    out: /' "$work/out" >&2
    sed 's/^/    err: /' "$work/err" >&2
    bad=$((bad + 1))
}
said() { [ "$(cat "$work/err")" = "$1" ]; }
empty() { [ ! -s "$1" ]; }
filled() { [ -s "$1" ]; }

expect 2
holds "no verb: nothing on stdout" empty "$work/out"
holds "no verb: the usage on stderr" grep -q '^Usage: keel \[OPTION\] VERB' "$work/err"

for word in --help help; do
    expect 0 "$word"
    holds "keel $word: the usage on stdout" grep -q '^Usage: keel \[OPTION\] VERB' "$work/out"
    holds "keel $word: nothing on stderr" empty "$work/err"
done
expect 0 --version
holds "the version is one line: keel X.Y.Z+DIGEST" grep -qE '^keel [0-9]+\.[0-9]+\.[0-9]+\+[0-9a-f]{10}$' "$work/out"
holds "the version is one line" [ "$(wc -l <"$work/out")" = 1 ]

expect 2 levitate
holds "an unknown verb: the message" said "keel: no verb 'levitate'; 'keel --help' lists them"
holds "an unknown verb: nothing on stdout" empty "$work/out"
expect 2 ""
holds "an empty verb: the message" said "keel: no verb ''; 'keel --help' lists them"

# Every verb of the list explains itself, refuses an unknown option and says which.
verbs=$("$keel" --help | sed -n 's/^  \([a-z][a-z]*\) .*/\1/p')
holds "keel --help lists verbs" [ -n "$verbs" ]
for verb in $verbs; do
    expect 0 "$verb" --help
    holds "keel $verb --help: usage on stdout" grep -q "^Usage: keel $verb" "$work/out"
    holds "keel $verb --help: nothing on stderr" empty "$work/err"
    expect 2 "$verb" --no-such-option-anywhere
    holds "keel $verb, unknown option: nothing on stdout" empty "$work/out"
    holds "keel $verb, unknown option: it is named" grep -q 'no-such-option-anywhere' "$work/err"
done

# A near miss of a verb is answered with the verb (the first of the list, its last letter dropped).
first=$(echo "$verbs" | head -n 1)
near=${first%?}
expect 2 "$near"
holds "a near miss names the verb" \
    said "keel: no verb '$near'; did you mean '$first'? 'keel --help' lists them"

# A fault specification nobody can read is refused before anything is done.
for fault in write write:0 nothing:1; do
    got=0
    KEEL_FAULT=$fault "$keel" --version >"$work/out" 2>"$work/err" || got=$?
    holds "KEEL_FAULT=$fault is refused" [ "$got" != 0 ]
    holds "KEEL_FAULT=$fault is named" grep -q "KEEL_FAULT" "$work/err"
done

# Every verb and part of one that prints data prints it as JSON too; these do not print any, or only what is not data:
# decode writes bytes, reference and matrix a page, op eval a file, help and completion text for people and shells.
without=" tokenizer/decode op/eval help completion "
for verb in $verbs; do
    parts=$("$keel" "$verb" --help | sed -n 's/^  \([a-z][a-z-]*\) .*/\1/p')
    "$keel" "$verb" --help | grep -q "^'keel $verb [A-Z]* --help' explains" || parts=
    for words in ${parts:-.}; do
        [ "$words" = . ] && name=$verb || name=$verb/$words
        case $without in *" $name "*) continue ;; esac
        # shellcheck disable=SC2046 # one or two words
        expect 0 $(echo "$name" | tr / ' ') --help
        holds "keel $name prints JSON" grep -q -- '--json' "$work/out"
    done
done

# The environment stands for options, arguments win, and what it did is said.
export KEEL_REGISTRY="$work/runs.db"
tiny="model.layers=1 model.width=16 model.attention.heads=2 model.vocab=256 train.steps=1"
# shellcheck disable=SC2086 # words
KEEL_JSON=1 expect 0 plan memory $tiny
holds "KEEL_JSON=1 is --json" grep -q '^{"parameters":' "$work/out"
holds "KEEL_JSON=1 is said" grep -qx 'environment: KEEL_JSON stands for --json' "$work/err"
# shellcheck disable=SC2086
KEEL_JSON=0 expect 0 plan memory $tiny
holds "KEEL_JSON=0 is nothing" grep -q '^parameters ' "$work/out"
# shellcheck disable=SC2086
KEEL_THREADS=1 expect 0 plan memory $tiny
holds "KEEL_THREADS=1 is --threads=1" grep -q '^machine: .* 1 thread (as asked for)' "$work/err"
# shellcheck disable=SC2086
KEEL_THREADS=1 KEEL_ISA=v4 expect 0 plan memory $tiny --threads=3 --isa=plain
holds "arguments win over the environment" grep -q '^machine: .* plain kernels, 3 threads' "$work/err"
KEEL_JSON=maybe expect 2 runs list
holds "KEEL_JSON=maybe is refused" \
    said "keel: KEEL_JSON is 'maybe'; it stands for an option without a value and must be 1 or 0"
KEEL_NO_FUSE=yes expect 0 graph --rules
holds "a flag of two words" grep -qx 'environment: KEEL_NO_FUSE stands for --no-fuse' "$work/err"

# Threads: OMP_NUM_THREADS and the affinity mask bound them, and the opening line names what stays idle.
if [ "$(nproc)" -ge 2 ]; then
    # shellcheck disable=SC2086
    OMP_NUM_THREADS=1 expect 0 plan memory $tiny
    holds "idle CPUs are named" \
        grep -qE '^machine: .* 1 thread \(OMP_NUM_THREADS=1\); [0-9]+ of this machine.s [0-9]+ CPUs stay idle$' "$work/err"
    # shellcheck disable=SC2086
    taskset -c 0 "$keel" plan memory $tiny 2>"$work/err" >"$work/out"
    holds "the affinity mask bounds the threads" grep -q ' 1 thread (1 CPU in the affinity mask)' "$work/err"
fi
# shellcheck disable=SC2086
OMP_NUM_THREADS=4000 expect 0 plan memory $tiny
holds "OMP_NUM_THREADS asks for no more than there is" grep -q ', not OMP_NUM_THREADS=4000' "$work/err"

# The registry: KEEL_REGISTRY, else below XDG_DATA_HOME, else below HOME.
unset KEEL_REGISTRY
HOME=$work/home XDG_DATA_HOME=$work/data expect 0 doctor --quick
holds "XDG_DATA_HOME" grep -qx "registry    $work/data/keel/runs.db" "$work/out"
HOME=$work/home XDG_DATA_HOME= expect 0 doctor --quick
holds "HOME" grep -qx "registry    $work/home/.local/share/keel/runs.db" "$work/out"
KEEL_REGISTRY=$work/mine.db expect 0 doctor --quick
holds "KEEL_REGISTRY" grep -qx "registry    $work/mine.db" "$work/out"

# Colour: none into files and pipes; --color and KEEL_COLOR decide otherwise.
escape=$(printf '\033')
expect 2 levitate
holds "no colour into a file" [ "$(grep -c "$escape" "$work/err")" = 0 ]
expect 2 --color=always levitate
holds "--color=always" said "$escape[1;31mkeel:$escape[0m no verb 'levitate'; 'keel --help' lists them"
KEEL_COLOR=always expect 2 --color never levitate
holds "--color never wins over KEEL_COLOR" said "keel: no verb 'levitate'; 'keel --help' lists them"
expect 2 --color=pink --version
holds "--color=pink" said "keel: --color=pink: expected auto, always or never"
KEEL_COLOR=pink expect 2 --version
holds "KEEL_COLOR=pink" said "keel: KEEL_COLOR: --color=pink: expected auto, always or never"
expect 2 --color
holds "--color without a word" said "keel: --color wants auto, always or never"
if command -v script >/dev/null; then # a terminal
    colours() { # colours NAME=VALUE...: escapes in what a terminal gets
        env "$@" script -qec "'$keel' levitate" /dev/null </dev/null 2>/dev/null | grep -c "$escape" || true
    }
    : >"$work/out"
    holds "colour on a terminal" [ "$(colours TERM=xterm)" = 1 ]
    holds "NO_COLOR" [ "$(colours TERM=xterm NO_COLOR=1)" = 0 ]
    holds "an empty NO_COLOR is none" [ "$(colours TERM=xterm NO_COLOR=)" = 1 ]
    holds "TERM=dumb" [ "$(colours TERM=dumb)" = 0 ]
    holds "--color=always over NO_COLOR" [ "$(colours TERM=xterm NO_COLOR=1 KEEL_COLOR=always)" = 1 ]
fi

# What could not be written was not done.
got=0
"$keel" --help >/dev/full 2>"$work/err" || got=$?
: >"$work/out"
holds "a full stdout fails" [ "$got" = 1 ]
holds "a full stdout is said" filled "$work/err"

[ "$bad" = 0 ] || {
    echo "$bad failed" >&2
    exit 1
}

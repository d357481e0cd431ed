#!/bin/sh
# cli_manners.sh KEEL: what every verb owes its user: data on stdout, talk on stderr, the exit codes of cli.h.
set -eu
keel=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset KEEL_FAULT
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
holds "no verb: the usage on stderr" grep -q '^Usage: keel VERB' "$work/err"

for word in --help help; do
    expect 0 "$word"
    holds "keel $word: the usage on stdout" grep -q '^Usage: keel VERB' "$work/out"
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

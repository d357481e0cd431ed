#!/bin/sh
# cli_tokenizer.sh KEEL: `keel tokenizer`: train on a file and on a folder, encode, decode, info, and refusals.
set -eu
keel=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset KEEL_FAULT
bad=0
complain() {
    echo "$1" >&2
    sed 's/^/    /' "$work/out" "$work/err" >&2
    bad=1
}
# run CODE ARGUMENTS...: runs keel tokenizer on what stands in $work/in.
: >"$work/in"
run() {
    want=$1 got=0
    shift
    "$keel" tokenizer "$@" <"$work/in" >"$work/out" 2>"$work/err" || got=$?
    [ "$got" = "$want" ] || complain "keel tokenizer $*: exit code $got, expected $want"
}
says() { [ "$(cat "$work/err")" = "keel: $1" ] || complain "expected: keel: $1"; }
prints() { printf "$1" | cmp -s - "$work/out" || complain "expected on stdout: $1"; }

mkdir -p "$work/corpus/deep"
i=0
while [ $i -lt 200 ]; do
    echo "the quick brown fox jumps over the lazy dog number $i and it's not the dog's fault"
    i=$((i + 1))
done >"$work/corpus/b.txt"
cp "$work/corpus/b.txt" "$work/corpus/deep/a.txt"
echo "zebra zebra zebra zebra" >"$work/corpus/skip.md"

run 0 train --vocab 400 --out "$work/t.json" "$work/corpus"
[ ! -s "$work/out" ] || complain "train: something on stdout"
for word in 'in 2 documents' 'vocabulary 4' 'MB/s' 'bytes a token' 'peak memory' "wrote $work/t.json"; do
    grep -q "$word" "$work/err" || complain "train does not say '$word'"
done
! grep -q zebra "$work/t.json" || complain "train read a file that is no .txt"
run 0 train --vocab=400 --threads 3 --out "$work/t3.json" "$work/corpus/b.txt" "$work/corpus/deep/a.txt"
cmp -s "$work/t.json" "$work/t3.json" || complain "three threads, or files for a folder, give another tokenizer"
run 0 train --vocab 1Ki --special '<a>' --special '<b>' --pattern llama3 --min-frequency 3 -o "$work/s.json" "$work/corpus/skip.md"
grep -q 'no pair is left' "$work/err" || complain "train does not say that it ran out of pairs"

run 0 info "$work/s.json"
head -n 3 "$work/out" | grep -q '^pattern  llama3$' || complain "info: no pattern"
grep -q '^special  1 <b>$' "$work/out" || complain "info: no special token"
run 0 info --json "$work/t.json"
keys='"vocab": [0-9]+, "merges": [0-9]+, "pattern": "gpt2", "hash": "[0-9a-f]{16}"'
grep -qE "^\{$keys, \"added_tokens\": \[\{\"id\": 0, \"content\": \"<\|endoftext\|>\", \"special\": true\}\]\}$" "$work/out" ||
    complain "info --json"

t=$work/t.json
printf 'the fox\n\n\377\376 <|endoftext|>\n' >"$work/in"
cp "$work/in" "$work/text"
run 0 encode --tokenizer "$t"
[ "$(wc -l <"$work/out")" = 1 ] || complain "encode: not one line"
grep -qE '^[1-9][0-9]*( [1-9][0-9]*)*$' "$work/out" || complain "encode: not ids separated by blanks (0 is special)"
cp "$work/out" "$work/in"
run 0 decode --tokenizer "$t"
cmp -s "$work/out" "$work/text" || complain "decode does not give the bytes back"
cp "$work/text" "$work/in"
run 0 encode --tokenizer "$t" --special allowed
grep -q ' 0 ' "$work/out" || complain "encode --special allowed: no special id"
run 1 encode --tokenizer "$t" --special forbid
says "the text holds the special token '<|endoftext|>' at byte 12: allow special tokens, or take them as plain text"
run 2 encode --tokenizer "$t" --special maybe
says "--special=maybe: one of plain, allowed, forbid"

: >"$work/in"
run 0 encode --tokenizer "$t"
prints '\n'
run 0 encode --tokenizer "$t" --lines
prints ''
run 0 decode --tokenizer "$t"
prints ''
printf '!\n\n"#\n' >"$work/in"
run 0 encode --tokenizer "$t" --lines
prints '1\n\n2 3\n'
printf '!\n\n"#' >"$work/in"
run 0 encode --tokenizer "$t" --lines
prints '1\n\n2 3\n'
run 0 encode --tokenizer "$t"
prints '1 199 199 2 3\n'
printf '1\t2\n\n 3' >"$work/in"
run 0 decode --tokenizer "$t"
prints '!"#'

printf '1 2 99999' >"$work/in"
run 1 decode --tokenizer "$t"
vocab=$("$keel" tokenizer info "$t" | sed -n 's/^vocab *//p')
says "standard input, word 3: no token has the id 99999 (the vocabulary has $vocab)"
printf '1 -2' >"$work/in"
run 1 decode --tokenizer "$t"
says "standard input, word 2: no token has the id -2 (the vocabulary has $vocab)"
printf '1 x' >"$work/in"
run 1 decode --tokenizer "$t"
says "standard input, word 2: 'x' is no id"

run 2 train --vocab 400 "$work/corpus"
run 2 train --out "$work/x.json"
run 2 train --vocab many --out "$work/x.json" "$work/corpus"
run 2 encode
run 2 mend
says "keel tokenizer mend: expected train, encode, decode or info"
run 1 train --vocab 100 --out "$work/x.json" "$work/corpus"
says "a vocabulary of 100; it must be 257 (256 bytes + 1 special) to 16777216"
run 1 train --out "$work/x.json" "$work/none.txt"
says "$work/none.txt: cannot open: No such file or directory"
mkdir "$work/empty"
run 1 train --out "$work/x.json" "$work/empty"
says "$work/empty: the folder holds no .txt file"
: >"$work/empty/nothing.txt"
run 1 train --out "$work/x.json" "$work/empty"
says "$work/empty: no text in it"
run 1 train --out "$work/no/x.json" "$work/corpus"
says "$work/no/x.json: cannot create: No such file or directory"
echo '{"model": {"type": "Unigram"}}' >"$work/u.json"
run 1 info "$work/u.json"
says "$work/u.json: model.type 'Unigram' is not supported; byte-level BPE is"
[ ! -e "$work/x.json" ] || complain "a refused training left a file"
[ -z "$(find "$work" -name '*.tmp-*')" ] || complain "temporary files are left"
exit $bad

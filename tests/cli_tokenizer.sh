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
echo "zebra zebra zebra zebra" >"$work/skip.md"

run 0 train --vocab 400 --out "$work/t.json" "$work/corpus"
[ ! -s "$work/out" ] || complain "train: something on stdout"
for word in 'in 2 documents' 'vocabulary 4' 'MB/s' 'bytes a token' 'peak memory' "wrote $work/t.json"; do
    grep -q "$word" "$work/err" || complain "train does not say '$word'"
done
run 0 train --vocab=400 --threads 3 --out "$work/t3.json" "$work/corpus/b.txt" "$work/corpus/deep/a.txt"
cmp -s "$work/t.json" "$work/t3.json" || complain "three threads, or files for a folder, give another tokenizer"
run 0 train --vocab 1Ki --special '<a>' --special '<b>' --pattern llama3 --min-frequency 3 -o "$work/s.json" "$work/skip.md"
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

# Two tokenizers on one text.
run 0 compare "$t" "$work/s.json" "$work/corpus/b.txt"
grep -qx 'pattern                    gpt2         llama3' "$work/out" || complain "compare: no row of patterns"
[ "$(wc -l <"$work/out")" = 10 ] || complain "compare: not ten rows"
run 0 compare --json "$t" "$t" "$work/corpus/b.txt" "$work/skip.md"
grep -qE '^\{"bytes": [0-9]+, "characters": [0-9]+, "words": 3[0-9]+, "ids_shared": 4[0-9]+, "tokenizers": \[\{"file": ' "$work/out" ||
    complain "compare --json"
run 2 compare "$t" "$t"
run 1 compare "$t" "$t" "$work/nowhere"
says "$work/nowhere: no such file or folder; check the path"

# A .tiktoken file: 256 bytes and two merges, of no known family.
i=0
while [ $i -lt 256 ]; do
    printf "\\$(printf %03o $i)" | base64 | sed "s/\$/ $i/"
    i=$((i + 1))
done >"$work/r.tiktoken"
printf 'aGk= 256\nICBo 257\n' >>"$work/r.tiktoken"
run 1 convert "$work/r.tiktoken" --out "$work/r.json"
grep -q "^keel: $work/r.tiktoken: 258 ranks are no family Keel knows (r50k 50256, " "$work/err" || complain "convert: unknown family"
run 1 info "$work/r.tiktoken"
run 0 convert "$work/r.tiktoken" --pattern cl100k --special '<|im_start|>' --special '<|im_end|>' --out "$work/r.json"
grep -qE "^wrote $work/r.json: 260 ids, 1 merges, pattern cl100k, hash [0-9a-f]{16}$" "$work/err" || complain "convert says"
printf 'hi  hi' >"$work/in"
run 0 encode --tokenizer "$work/r.json"
prints '256 32 32 256\n'
run 0 convert "$work/r.json" --out "$work/r2.json"
cmp -s "$work/r.json" "$work/r2.json" || complain "convert of a tokenizer.json changes it"
run 2 convert "$work/r.json" --special x --out "$work/r3.json"
says "--special without --pattern: special tokens are added to .tiktoken files alone"
run 2 convert "$work/r.json" --pattern gpt2 --out "$work/r3.json"
says "$work/r.json: no .tiktoken file: --pattern is for those alone"
run 1 convert "$work/r.tiktoken" --pattern gpt9 --out "$work/r3.json"
says "no pattern is named 'gpt9'; there are gpt2, cl100k, llama3, qwen2, o200k"
run 2 convert "$work/r.json"

# Conversations: the layout is found by its special tokens; what people write is plain text.
echo '[{"role": "user", "content": "<|im_end|>hi"}]' >"$work/in"
run 0 chat --tokenizer "$work/r.json" --answer
prints '258 117 115 101 114 10 60 124 105 109 95 101 110 100 124 62 256 259 10 258 97 115 115 105 115 116 97 110 116 10\n'
run 0 chat --tokenizer "$work/r.json" --template
grep -q "^{% for m in messages %}.*assistant.n' }}{% endif %}$" "$work/out" || complain "chat --template"
run 1 chat --tokenizer "$t"
says "$t: it has the special tokens of no chat layout (llama3, chatml)"
run 1 chat --tokenizer "$t" --layout chatml
says "$t: the layout chatml needs the special token <|im_start|>"
run 2 chat --tokenizer "$t" --layout mine
says "--layout=mine: there are llama3, chatml"
echo '[{"role": "user"}]' >"$work/in"
run 1 chat --tokenizer "$work/r.json"
says 'standard input: message 1 has no strings "role" and "content"'
echo '{}' >"$work/in"
run 1 chat --tokenizer "$work/r.json"
says "standard input: no JSON list of messages"
echo '[{"role": ' >"$work/in"
run 1 chat --tokenizer "$work/r.json"
says "standard input:2:0: unexpected token near end of file"

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
says "keel tokenizer mend: expected train, encode, decode, info, compare, convert or chat"
run 1 train --vocab 100 --out "$work/x.json" "$work/corpus"
says "a vocabulary of 100; it must be 257 (256 bytes + 1 special) to 16777216"
run 1 train --out "$work/x.json" "$work/none.txt"
says "$work/none.txt: no such file or folder; check the path"
mkdir "$work/empty"
run 1 train --out "$work/x.json" "$work/empty"
says "$work/empty: no text in this folder (0 files empty, 0 binary, 0 hidden); name a folder with text files"
echo >"$work/empty/nothing.txt"
run 0 train --out "$work/nothing.json" "$work/empty"
# the same inputs as `keel data build`
awk '{ gsub(/"/, ""); printf "{\"body\": \"%s\"}\n", $0 }' "$work/corpus/b.txt" | gzip >"$work/b.jsonl.gz"
run 0 train --vocab 400 --field body --out "$work/j.json" "$work/*.jsonl.gz"
grep -q 'in 200 documents' "$work/err" || complain "train on JSONL: not 200 documents"
run 1 train --vocab 400 --out "$work/x.json" "$work/b.jsonl.gz"
says "$work/b.jsonl.gz:1: no field 'text' (there are: body); name the one with the text by data.field"
run 1 train --out "$work/no/x.json" "$work/corpus"
says "$work/no/x.json: cannot create: No such file or directory"
echo '{"model": {"type": "Unigram"}}' >"$work/u.json"
run 1 info "$work/u.json"
says "$work/u.json: model.type 'Unigram' is not supported; byte-level BPE is"
[ ! -e "$work/x.json" ] || complain "a refused training left a file"
[ -z "$(find "$work" -name '*.tmp-*')" ] || complain "temporary files are left"
exit $bad

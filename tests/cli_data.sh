#!/bin/sh
# cli_data.sh KEEL: text to shards as a user does it: a corpus of small documents, the round trip back to text, the
# bigram baseline, and every way to go wrong, with the whole line that is printed.
set -eu
keel=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset KEEL_FAULT
cd "$work"
bad=0

# expect CODE ARGUMENTS...: runs keel, leaves out and err.
expect() {
    want=$1
    shift
    got=0
    "$keel" "$@" >out 2>err </dev/null || got=$?
    [ "$got" = "$want" ] && return
    echo "keel $*: exit code $got, expected $want" >&2
    sed 's/^/    /' err >&2
    bad=$((bad + 1))
}
# says LINE: all of stderr is this line, and stdout is empty.
says() {
    [ "$(cat err)" = "keel: $1" ] && [ ! -s out ] && return
    printf 'expected: keel: %s\n     got: ' "$1" >&2
    cat err >&2
    bad=$((bad + 1))
}
holds() {
    what=$1
    shift
    "$@" && return
    echo "not so: $what" >&2
    sed 's/^/    out: /' out >&2
    sed 's/^/    err: /' err >&2
    bad=$((bad + 1))
}

# A dictionary of 30,000 entries over 1 MiB: an entry starts unindented behind a blank line, its text is indented
# and may hold blank lines too.
awk 'BEGIN {
    split("reef keel mast rope wind tide sail deck hull bow", w, " ")
    for (i = 0; i < 30000; i++) {
        printf "%s%d\n   A %s near the %s.\n\n   See %s.\n\n", w[i % 10 + 1], i, w[i % 7 + 1], w[i % 9 + 1], w[int(i / 7) % 10 + 1]
    }
}' >dictionary.txt
mkdir -p corpus/more
for i in 1 2 3 4 5; do head -c "$((i * 3000))" dictionary.txt | tail -c 2000 >"corpus/more/$i.txt"; done
printf 'na\303\257ve, then bytes \377\376 that are no UTF-8, and a NUL \000 among text that goes on and on\n' >corpus/odd.md
printf 'ELF\000\001\002\000\000\000\000' >corpus/program
: >corpus/empty.txt
echo secret >corpus/.hidden

expect 0 tokenizer train --vocab 600 --out tokenizer.json dictionary.txt

# Build, and again: nothing to do. Threads change nothing.
expect 0 data build --tokenizer tokenizer.json --out shards dictionary.txt --threads 1
holds "30,000 documents" awk '{n += $2} END {exit n != 30000}' out
holds "about 1 % held out" awk '/^validation/ {exit !($2 > 200 && $2 < 400)}' out
expect 0 data build --tokenizer tokenizer.json --out shards dictionary.txt
holds "up to date" grep -qx 'shards is up to date: built from the same files in the same way' err
expect 0 data build --tokenizer tokenizer.json --out shards2 dictionary.txt --threads 3
holds "threads change nothing" diff -r shards shards2
expect 0 data info --json shards
holds "info as JSON" grep -q '"vocab": 600,' out
expect 0 data show --document 0 shards
printf 'reef0\n   A reef near the reef.\n\n   See reef.\n' >wanted
holds "the first entry comes back" cmp -s out wanted

# A folder: what is text is taken, the rest counted; the bytes come back whole.
expect 0 data build --tokenizer tokenizer.json --out folder --validation 0 corpus
holds "what was passed over" grep -qx 'passed over: 1 empty, 1 binary, 1 hidden files' err
holds "six documents" grep -q '^train       6 documents' out
expect 0 data show --document 5 folder
holds "any bytes survive" cmp -s out corpus/odd.md
expect 0 data build --tokenizer tokenizer.json --out entries --document 'See' --validation corpus/odd.md dictionary.txt
holds "a string between documents" grep -q '^train       30001 documents' out
holds "validation from a path" grep -q '^validation  1 documents' out

# JSONL in any packing, by pattern; duplicates; what there is to see.
awk 'BEGIN { for (i = 0; i < 400; i++) printf "{\"id\": %d, \"body\": \"entry %d\\nof the reef\"}\n", i, i % 300 }' >records.jsonl
gzip -k records.jsonl
expect 0 data build --tokenizer tokenizer.json --out records --field body --validation 0 'records.jsonl*'
holds "400 records twice" grep -q '^train       800 documents' out
expect 0 data build --tokenizer tokenizer.json --out unique --field body --validation 0 --dedup exact 'records.jsonl*'
holds "300 different ones" grep -q '^train       300 documents' out
holds "duplicates are counted" grep -qx 'dropped: 500 documents that repeat earlier ones' err
expect 0 data show --document 299 unique
holds "a record is its text" [ "$(cat out)" = "$(printf 'entry 299\nof the reef')" ]
expect 0 data inspect --tokenizer tokenizer.json --field body --samples 1 records.jsonl.gz
holds "inspect counts" awk '$1 == "documents" && $2 == 400 || $1 == "repeated" && $2 == 100 || $1 == "longest" {n++} END {exit n != 3}' out
holds "inspect shows a document" grep -q '^records.jsonl.gz:[0-9]*: [0-9]* bytes, [0-9]* tokens$' out
expect 0 data inspect --json --samples 0 records
holds "inspect of shards as JSON" grep -q '^{"files": 1, "documents": 800, .*"samples": \[\]}$' out
expect 1 data build --tokenizer tokenizer.json --out x records.jsonl
says "records.jsonl:1: no field 'text' (there are: id, body); name the one with the text by data.field"
expect 1 data inspect 'records.*.zst'
says "records.*.zst: nothing matches this pattern; check the path"
head -c 300 records.jsonl.gz >cut.jsonl.gz
expect 1 data inspect --field body cut.jsonl.gz
holds "a truncated file is named" grep -q '^keel: cut.jsonl.gz: truncated: it ends within its data, after [0-9]* bytes of text$' err
expect 1 data build --tokenizer tokenizer.json --out x --dedup fuzzy records.jsonl
says "dedup is 'fuzzy'; it must be none, exact or minhash"
expect 2 data inspect

# The baseline: all tokens do better than few; both beat guessing among 600.
expect 0 data bigram --json shards
all=$(sed 's/.*"nats_per_token": \([0-9.]*\).*/\1/' out)
expect 0 data bigram --json --tokens 5000 --seed 1 --context 64 shards
few=$(sed 's/.*"nats_per_token": \([0-9.]*\).*/\1/' out)
holds "all $all < few $few < ln 600" awk "BEGIN {exit !($all > 0 && $all < $few && $few < 6.397)}"

# Wrong in every way, one line each.
expect 1 data build --tokenizer tokenizer.json --out x nowhere
says "nowhere: no such file or folder; check the path"
expect 1 data build --tokenizer nowhere.json --out x dictionary.txt
expect 1 data build --tokenizer tokenizer.json --out x corpus/empty.txt
says "corpus/empty.txt: the file is empty; name a file with text"
expect 1 data build --tokenizer tokenizer.json --out x corpus/program
says "corpus/program: a binary file (NUL bytes, over 5 % of its bytes are no text); unpack it or convert it to UTF-8 text first"
mkdir bare
expect 1 data build --tokenizer tokenizer.json --out x bare
says "bare: no text in this folder (0 files empty, 0 binary, 0 hidden); name a folder with text files"
expect 1 data build --tokenizer tokenizer.json --out x --validation 70% dictionary.txt
says "data.validation is 70%; it must be from 0% to 50% (usual: 1%), or a path"
expect 1 data build --tokenizer tokenizer.json --out shards corpus
says "shards: already holds data built from other files or in another way; name another folder, or replace it with --force"
expect 1 data build --tokenizer tokenizer.json --out corpus dictionary.txt
says "corpus: in the way: a folder with other things in it; name a new folder for the data"
expect 1 data info bare
says "bare: no folder of shards (it has no manifest.json); make one with 'keel data build'"
expect 1 data show --document 30000 shards
expect 1 data bigram --context 1000000 shards
expect 2 data build --tokenizer tokenizer.json dictionary.txt
expect 2 data shave shards
says "data: no task 'shave'; 'keel data --help' lists them"
expect 2 data
expect 0 data build --tokenizer tokenizer.json --out shards --force corpus
holds "nothing half-written is left" sh -c '! ls -d x* *.tmp-* *.old-* 2>/dev/null'

# Damage: a flipped byte, a truncated shard, a shard of another build.
cp -r shards2 damaged
printf '\125' | dd of=damaged/train-00000.bin bs=1 seek=1000 conv=notrunc 2>/dev/null
expect 1 data info damaged
holds "a flipped byte is found" grep -q '^keel: damaged/train-00000.bin: its checksum is .* the file is damaged; build the data again$' err
truncate -s 5000 damaged/train-00000.bin
expect 1 data info damaged
holds "truncation is named" grep -q '^keel: damaged/train-00000.bin: 5000 bytes long, but its header asks for [0-9]*: truncated; build the data again$' err
cp entries/train-00000.bin damaged/train-00000.bin
expect 1 data info damaged
holds "a foreign shard is found" grep -q '^keel: damaged/train-00000.bin: its checksum' err

# A full disk and a kill leave nothing under the final name.
for k in 1 2 3; do
    got=0
    KEEL_FAULT=write:$k "$keel" data build --tokenizer tokenizer.json --out full dictionary.txt >out 2>err || got=$?
    holds "write $k fails with 1" [ "$got" = 1 ]
    holds "write $k leaves nothing" sh -c '! ls -d full* 2>/dev/null'
    KEEL_FAULT=write:$k:kill "$keel" data build --tokenizer tokenizer.json --out killed dictionary.txt >out 2>err || true
    holds "a kill at write $k leaves no folder" [ ! -e killed ]
done

[ "$bad" = 0 ] || echo "$bad failures" >&2
[ "$bad" = 0 ]

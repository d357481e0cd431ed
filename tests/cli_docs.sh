#!/bin/sh
# cli_docs.sh KEEL: docs/cli.md is what the verbs say, and what the other pages tell a reader to do exists.
set -eu
keel=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0
complain() {
    echo "$1" >&2
    bad=1
}

sh scripts/reference.sh "$keel" cli >"$work/cli.md"
cmp -s "$work/cli.md" docs/cli.md || {
    diff docs/cli.md "$work/cli.md" | head -n 20 >&2 || true
    complain "docs/cli.md is out of date: sh scripts/reference.sh"
}
# every verb has its section
verbs=$("$keel" --help | sed -n 's/^  \([a-z][a-z]*\)  .*/\1/p')
[ "$(echo "$verbs" | wc -l)" -ge 10 ] || complain "keel --help lists fewer than 10 verbs"
for verb in $verbs; do
    grep -qxF "## keel $verb" "$work/cli.md" || complain "docs/cli.md: no section for $verb"
done

# in commands that the pages show, only verbs that exist
for page in README.md CONTRIBUTING.md docs/*.md; do
    for verb in $(sed -n 's/^\( *\|.*`\)\(build\/\)\{0,1\}keel \([a-z][a-z]*\) .*/\3/p' "$page" | sort -u); do
        echo "$verbs" | grep -qx "$verb" || complain "$page: 'keel $verb' is no verb"
    done
    # links between the pages, and the sources and scripts they name, are there
    for to in $(grep -o '](\([^)#:]*\)[)#]' "$page" | sed 's/^](//; s/[)#]$//' | sort -u); do
        [ -e "$(dirname "$page")/$to" ] || complain "$page: links to $to, which is not there"
    done
    for file in $(grep -o '`\(src\|tests\|scripts\|configs\|docs\|bench\)/[a-zA-Z0-9_./-]*`' "$page" | tr -d '`' | sort -u); do
        [ -e "$file" ] || complain "$page: names $file, which is not there"
    done
done

# every method stands in the list of methods and in the README's table, and those that pages name are there
"$keel" bench method --list >"$work/methods"
[ "$(grep -c . "$work/methods")" -ge 40 ] || complain "keel bench method --list: fewer than 40 methods"
while read -r name slot setting rest; do
    key=${setting%%=*}
    case $key in # what kind of feed-forward it is says less than what stands between its maps
    model.ffn.kind) for word in $rest; do case $word in model.ffn.activation=*) setting=$word key=${word%%=*} ;; esac done ;;
    esac
    value=${setting#*=}
    case $value in *[!a-z_0-9]* | [0-9]* | true) value=$key ;; esac # a number, a list: the key is the method
    grep -qw -e "$value" -e "${value##*.}" docs/methods.md || complain "docs/methods.md: nothing of $name ($slot): $setting"
    grep '^|' README.md | grep -qF -e "\`$key" -e "\`${key%.*}.*" || complain "README.md: no row for $name: $key"
done <"$work/methods"
for page in README.md docs/*.md; do
    for name in $(grep -o 'keel bench method [a-z][a-z_ ]*' "$page" | sed 's/keel bench method //'); do
        grep -q "^$name " "$work/methods" || complain "$page: 'keel bench method $name' is no method"
    done
done
# each row of the list leads to its section
grep -o '^| \[[^]]*\](#[a-z0-9-]*)' docs/methods.md | sed 's/.*(#//; s/)//' >"$work/rows"
[ "$(grep -c . "$work/rows")" -ge 15 ] || complain "docs/methods.md: the list of methods is not found"
while read -r row; do
    sed -n 's/^## //p' docs/methods.md | tr 'A-Z ' 'a-z-' | tr -cd 'a-z0-9\n-' | grep -qx -e "$row" ||
        complain "docs/methods.md: no section #$row"
done <"$work/rows"

# a test that would not see a stale page would be worth nothing
sed 's/keel train/keel trian/' "$work/cli.md" >"$work/stale.md"
! cmp -s "$work/stale.md" "$work/cli.md" || complain "the page does not mention keel train"
exit $bad

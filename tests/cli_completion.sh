#!/bin/sh
# cli_completion.sh KEEL: bash, as it completes command lines of keel by the script that keel prints; the manual pages;
# and the scripts of zsh and fish where those are installed.
set -eu
keel=$(realpath "$1")
command -v bash >/dev/null || {
    echo "cli_completion: no bash here; skipped" >&2
    exit 77
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
unset KEEL_FAULT
bad=0
complain() {
    echo "$1" >&2
    bad=1
}
mkdir shards runs
: >run.yaml
: >corpus.txt
ln -s "$keel" keel
PATH=$work:$PATH
export PATH

cat >ask.bash <<'END'
# ask.bash LINE: what COMPREPLY holds when the cursor stands behind LINE
source <(keel completion bash)
COMP_WORDBREAKS=$' \t\n"\'><=;|&(:'
COMP_LINE=$1 COMP_POINT=${#1}
_keel
printf '%s\n' "${COMPREPLY[@]}"
END
# completes LINE WORD...: all of these words are candidates behind LINE
completes() {
    typed=$1
    shift
    bash ask.bash "$typed" >got 2>err || complain "bash failed on '$typed': $(cat err)"
    [ ! -s err ] || complain "'$typed': $(cat err)"
    for word; do
        grep -qxF -e "$word" got || complain "'$typed': no '$word' among: $(tr '\n' ' ' <got)"
    done
}
# only LINE WORD...: they are all there are
only() {
    completes "$@"
    shift
    [ "$(grep -c . got || true)" = $# ] || complain "'$typed': more than $#: $(tr '\n' ' ' <got)"
}

completes "keel " train data tokenizer eval op help completion
! grep -q '^-' got || complain "options are offered where none is being typed: $(tr '\n' ' ' <got)"
only "keel tr" train
only "keel -" --help --version --color=
only "keel help t" train tokenizer
only "keel --v" --version
only "keel levitate "
completes "keel data " build inspect info show bigram
only "keel data bu" build
completes "keel op " list check bench eval
completes "keel lab " matrix coord-check
completes "keel lab coord-check --" --json --isa=
completes "keel fit --reg" --registry=
only "keel runs sh" show
only "keel plan " memory compute
only "keel completion z" zsh
# options, of a verb and of the machine below it; values: words to choose from, of long and short options
completes "keel train --" --out= --resume --isa= --threads= --json --help
only "keel train --is" --isa=
only "keel train --isa=" plain v3 v4
only "keel train --isa=v" v3 v4
only "keel train --isa " plain v3 v4
only "keel train -I p" plain
only "keel data build --dedup=m" minhash
only "keel data show --split t" train
only "keel train --no-such="
# configuration keys, a level at a time, and their values
completes "keel train " run.yaml corpus.txt runs model. train. data.
only "keel train mod" model.
completes "keel train model." model.width= model.norm. model.attention.
only "keel train model.norm.ki" model.norm.kind=
completes "keel train model.norm.kind=" rms layer crms none
only "keel train model.norm.kind=r" rms
only "keel train run.yaml train.precision=b" bf16
only "keel train model.tie_head=" true false
only "keel train model.no_such_key="
only "keel train data.train=corp" corpus.txt
only "keel plan memory run.yaml model.wid" model.width=
only "keel config explain model.wid" model.width
# files and folders
only "keel train ru" run.yaml runs
only "keel train --out=ru" runs
only "keel train --out ru" runs
only "keel generate sha" shards
completes "keel data build --tokenizer=x " run.yaml corpus.txt shards
completes "keel tokenizer compare " corpus.txt
completes "keel op check rms_n" rms_norm
completes "keel bench method " hyper frac
only "keel train -- --is"

# every verb and part of the lists is a candidate
for verb in $(keel --help | sed -n '/^  [a-z]/s/^  \([a-z]*\) .*/\1/p'); do
    keel completion candidates -- "$verb" | grep -q "^$verb	" || complain "$verb is not completed"
done
# every option of every --help is a candidate and stands in the manual page
for verb in train generate eval runs bench-train data-build tokenizer-train op-check lab-matrix; do
    words=$(echo "$verb" | tr - ' ')
    # shellcheck disable=SC2086 # one or two words
    for option in $(keel $words --help | grep -o '^ .\{2,5\} --[a-z-]*' | grep -o -- '--[a-z-]*'); do
        keel completion candidates -- $words "$option" | grep -q "^$option\(=\)\{0,1\}	" ||
            [ "$option" = --usage ] || complain "keel $words $option is not completed"
        dashes=$(echo "$option" | sed 's/-/\\\\-/g')
        keel help --man "${words%% *}" | grep -qF "$(echo "$dashes" | sed 's/\\\\/\\/g')" ||
            [ "$option" = --help ] || [ "$option" = --usage ] || complain "keel $words $option: not in the manual page"
    done
done

# messages
keel completion ksh >out 2>err && complain "ksh is no failure"
[ "$(cat err)" = "keel: completion: no shell 'ksh'; it is bash, zsh or fish" ] || complain "ksh: $(cat err)"
keel help --man levitate >out 2>err && complain "help --man levitate is no failure"
[ "$(cat err)" = "keel: no verb 'levitate'; 'keel --help' lists them" ] || complain "help --man: $(cat err)"

# help by both doors
keel data build --help >one
keel help data build >two
cmp -s one two || complain "keel help data build differs from keel data build --help"

# manual pages: all verbs', without a warning
keel help --man --out=man
[ -s man/keel.1 ] || complain "no keel.1"
for verb in $(keel --help | sed -n '/^  [a-z]/s/^  \([a-z]*\) .*/\1/p'); do
    [ -s "man/keel-$verb.1" ] || complain "no manual page of $verb"
    grep -q '^\.SH EXIT STATUS$' "man/keel-$verb.1" || complain "keel-$verb.1 says no exit codes"
done
if command -v groff >/dev/null; then
    for page in man/*.1; do
        groff -man -ww -Tutf8 "$page" >page.txt 2>err || complain "groff fails on $page"
        [ ! -s err ] || complain "$page: $(head -n 3 err)"
        ! grep -q '\\' page.txt || complain "$page: an escape is seen: $(grep '\\' page.txt | head -n 1)"
    done
fi

# the other shells at least read their scripts, and ask for the same
if command -v zsh >/dev/null; then
    keel completion zsh >_keel
    zsh -n _keel || complain "zsh does not read its script"
fi
if command -v fish >/dev/null; then
    keel completion fish >keel.fish
    fish -c 'source keel.fish; complete -C "keel train --is"' >got 2>/dev/null || complain "fish fails"
    grep -q '^--isa=' got || complain "fish: no --isa= among: $(cat got)"
fi
exit $bad

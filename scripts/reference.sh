#!/bin/sh
# reference.sh: writes the reference pages that come from the program itself.
#
#     sh scripts/reference.sh              docs/operations.md, docs/configuration.md, docs/cli.md, by build/keel
#     sh scripts/reference.sh KEEL         by that binary
#     sh scripts/reference.sh KEEL cli     only print docs/cli.md, to standard output (tests/cli_docs.sh)
#
# Run it after a change to an operation, a key or an option, and commit the pages with the change. Tests compare
# the pages with the program: cli_op (operations), cli_config and test_config (configuration), cli_docs (cli).
set -eu
case ${1-} in /* | '') keel=${1:-$(dirname "$0")/../build/keel} ;; *) keel=$(pwd)/$1 ;; esac
[ -x "$keel" ] || {
    echo "reference: no program $keel; build it, or name it: sh scripts/reference.sh KEEL" >&2
    exit 1
}
unset ARGP_HELP_FMT COLUMNS
LC_ALL=C.UTF-8
export LC_ALL

section() { # section LEVEL COMMAND...
    level=$1
    shift
    printf '\n%s %s\n\n```\n' "$level" "keel $*"
    "$keel" "$@" --help
    printf '```\n'
}

# The words of the list in a usage text: "  name   what it does".
words() { sed -n 's/^  \([a-z][a-z-]*\) .*/\1/p'; }

cli() {
    cat <<'END'
# Command line

Written by `sh scripts/reference.sh` from the `--help` of every verb; a test compares this page with the program.

Data goes to standard output, talk to standard error; `--json` where a machine may read. Progress and colours are
shown on a terminal only. `KEEL_FAULT` makes an operation fail (for tests, see [reliability](reliability.md)).

The same pages for `man`, and completion for bash, zsh and fish, are written by the build into `build/man` and
`build/completions`, from the same tables.

```
END
    "$keel" --help
    printf '```\n'
    for verb in $("$keel" --help | words); do
        section '##' "$verb"
        # a verb of several parts says so in its last line
        if "$keel" "$verb" --help | grep -q "^'keel $verb [A-Z]* --help' explains"; then
            for part in $("$keel" "$verb" --help | words); do section '###' "$verb" "$part"; done
        fi
    done
}

if [ "${2-}" = cli ]; then
    cli
    exit
fi
# write PAGE COMMAND...: whole or not at all
write() {
    page=$1
    shift
    "$@" >"$page.part"
    mv "$page.part" "$page"
    echo "wrote $page" >&2
}
docs=$(dirname "$0")/../docs
write "$docs/operations.md" "$keel" op list --markdown
write "$docs/configuration.md" "$keel" config reference
write "$docs/cli.md" cli

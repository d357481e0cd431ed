#!/bin/sh
# grid.sh [KEEL]: writes the grid of methods into docs/methods.md (tests/cli_lab.sh compares it).
set -eu
here=$(dirname "$0")
keel=${1:-$here/../build/keel}
page=$here/../docs/methods.md
table=$(mktemp)
trap 'rm -f "$table"' EXIT
"$keel" lab matrix --markdown >"$table"
awk -v table="$table" '
    /^<!-- keel lab matrix --markdown -->$/ { print; while ((getline line < table) > 0) print line; inside = 1; next }
    /^<!-- end -->$/ { inside = 0 }
    !inside' "$page" >"$page.new"
mv "$page.new" "$page"
echo "wrote $page"

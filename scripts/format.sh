#!/bin/sh
# format.sh: checks that the C sources are laid out as .clang-format says (clang-format 14, the one of Debian 12)
# and that no file under src/ is longer than 800 lines. `sh scripts/format.sh --fix` lays them out.
set -eu
cd "$(dirname "$0")/.."
formatter=
for name in clang-format-14 clang-format; do
    if "$name" --version 2>/dev/null | grep -q 'version 14\.'; then
        formatter=$name
        break
    fi
done
if [ -z "$formatter" ]; then
    echo "format: clang-format 14 is needed (other versions lay out differently): sh scripts/deps.sh test" >&2
    exit 1
fi
sources() {
    for folder in src include tests examples; do
        [ ! -d "$folder" ] || find "$folder" -name '*.[ch]' -type f
    done
}

case ${1-} in
--fix)
    sources | xargs -r "$formatter" -i
    exit
    ;;
"") ;;
*)
    echo "usage: sh scripts/format.sh [--fix]" >&2
    exit 2
    ;;
esac

bad=0
for file in $(sources | sort); do
    "$formatter" "$file" | cmp -s - "$file" && continue
    echo "format: $file is not laid out; run: sh scripts/format.sh --fix" >&2
    bad=$((bad + 1))
done
for file in $(find src -name '*.[ch]' -type f | sort); do
    lines=$(wc -l <"$file")
    [ "$lines" -le 800 ] && continue
    echo "format: $file has $lines lines; 800 at most: give its second subject a file" >&2
    bad=$((bad + 1))
done
[ "$bad" = 0 ] || exit 1
echo "format: $(sources | wc -l) files are laid out" >&2

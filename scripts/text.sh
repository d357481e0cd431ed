#!/bin/sh
# text.sh DIR: DIR/gcide.txt, 40 MB of English that scripts/demo.sh and scripts/lab.sh train on: the GNU Collaborative
# International Dictionary of English out of its Debian package, with its license beside it. Nothing is installed;
# nothing is done when the file is there.
set -eu
[ $# = 1 ] || {
    echo "usage: sh scripts/text.sh DIR" >&2
    exit 2
}
cd "$(dirname "$0")/.."
dir=$1
[ ! -e "$dir/gcide.txt" ] || exit 0
mkdir -p "$dir"
rm -rf "$dir/package"
sh scripts/deps.sh unpack dict-gcide "$dir/package"
# dictzip is gzip with an index: gzip reads it
gzip -dc <"$dir/package/usr/share/dictd/gcide.dict.dz" >"$dir/gcide.txt.part"
mv "$dir/package/usr/share/doc/dict-gcide/copyright" "$dir/gcide.copyright"
rm -rf "$dir/package"
mv "$dir/gcide.txt.part" "$dir/gcide.txt"

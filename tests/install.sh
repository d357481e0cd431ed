#!/bin/sh
# install.sh BUILD SOURCE SANITIZED: what `cmake --install` leaves, as a stranger's program meets it: the files, the
# names the libraries show, the three examples built by pkg-config (shared and static) and by find_package, and run.
# SANITIZED 1: the library was built with the sanitizers, so programs must be too.
set -eu
build=$1 source=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset KEEL_FAULT
export KEEL_REGISTRY="$work/runs.db"
flags=-Wall
[ "$3" = 0 ] || flags="$flags -fsanitize=address,undefined"
bad=0
holds() {
    what=$1
    shift
    "$@" && return
    echo "not so: $what" >&2
    bad=$((bad + 1))
}

# ---- two trees: a prefix, and a prefix below DESTDIR, which must not differ in what they hold
cmake --install "$build" --prefix "$work/opt" >"$work/log"
DESTDIR=$work/root cmake --install "$build" --prefix /opt/keel >"$work/log"
(cd "$work/opt" && find . ! -type d | sort) >"$work/list"
(cd "$work/root/opt/keel" && find . ! -type d | sort) >"$work/list-destdir"
holds "DESTDIR changes nothing but the place" cmp "$work/list" "$work/list-destdir"
holds "nothing is installed outside of the prefix" [ "$(ls "$work/root")$(ls "$work/root/opt")" = optkeel ]
libdir=$(dirname "$(find "$work/opt" -name libkeel.a)")
version=$("$work/opt/bin/keel" --version | sed 's/keel //; s/+.*//')
minor=${version%.*}
for file in "$libdir/libkeel.so" "$libdir/libkeel.so.$minor" "$libdir/libkeel.so.$version" "$libdir/pkgconfig/keel.pc" \
    "$libdir/cmake/keel/keelConfig.cmake" "$libdir/cmake/keel/keelConfigVersion.cmake" \
    "$libdir/cmake/keel/keelTargets.cmake" "$work/opt/include/keel/keel.h" "$work/opt/include/keel/version.h" \
    "$work/opt/share/keel/configs/llama-10m.yaml"; do
    holds "$file is installed" [ -s "$file" ]
done
holds "no file names the tree it was built in" \
    sh -c '! grep -rIl -e "$1" -e "$2/src" -e "$2/include" -e "$2/cmake" "$3"' - "$build" "$source" "$work/opt"

# What `keel` writes of itself while building is installed where it belongs.
for page in "$build"/man/*.1; do
    [ ! -e "$page" ] || holds "$page is installed" [ -s "$work/opt/share/man/man1/$(basename "$page")" ]
done
[ ! -e "$build/completions/keel.bash" ] ||
    holds "bash completion is installed" [ -s "$work/opt/share/bash-completion/completions/keel" ]
[ ! -e "$build/completions/_keel" ] ||
    holds "zsh completion is installed" [ -s "$work/opt/share/zsh/site-functions/_keel" ]
[ ! -e "$build/completions/keel.fish" ] ||
    holds "fish completion is installed" [ -s "$work/opt/share/fish/vendor_completions.d/keel.fish" ]

# ---- names: what the header declares, and nothing else
sed -n 's/^KEEL_API .*[ *]\(keel_[a-z_]*\)(.*/\1/p' "$work/opt/include/keel/keel.h" | sort >"$work/declared"
nm -D --defined-only "$libdir/libkeel.so" | sed 's/.* //' | sort >"$work/shared"
nm -g --defined-only "$libdir/libkeel.a" | sed -n 's/^[0-9a-f]* [A-Z] //p' | sort >"$work/static"
holds "the header declares functions" [ -s "$work/declared" ]
holds "libkeel.so shows what the header declares and nothing else" cmp "$work/declared" "$work/shared"
if [ "$3" = 0 ]; then # the sanitizers add names of their own
    holds "libkeel.a shows the same" cmp "$work/declared" "$work/static"
fi
# State of a process: the counters that tests make faults with, the message for when there is no memory for one, and
# two scratch tables of each thread; the rest are the compiler's. Everything else is in handles.
objdump -t "$libdir/libkeel.so" | awk '$4 ~ /^\.t?(data|bss)$/ && $(NF-1) != 0 {print $NF} $3 ~ /^\.t(data|bss)$/ {print $NF}' |
    sed 's/\..*//' | grep -v '^__\|^completed$' | sort -u | tr '\n' ' ' >"$work/state"
if [ "$3" = 0 ]; then
    holds "no state outside of handles: $(cat "$work/state")" [ "$(cat "$work/state")" = "columns faults no_memory rows " ]
fi
holds "the soname has major and minor" \
    sh -c 'readelf -d "$1" | grep -q "SONAME.*\[libkeel.so.$2\]"' - "$libdir/libkeel.so" "$minor"
# Parts that only the command has (the board, the list of all libraries) must stay out of reach of the library's.
holds "the library needs no HTTP server" \
    sh -c '! readelf -d "$1" | grep -q "NEEDED.*microhttpd"' - "$libdir/libkeel.so"

# ---- the header, as the strictest of its readers: C99, and C++ where there is a compiler
printf '#include <keel/keel.h>\nint main(void) { return keel_version_number() != KEEL_VERSION_NUMBER; }\n' >"$work/a.c"
holds "the header is plain C99" \
    ${CC:-cc} -std=c99 -pedantic -Wall -Wextra -Werror -I"$work/opt/include" -fsyntax-only "$work/a.c"
if command -v c++ >/dev/null; then
    holds "the header is C++" \
        c++ -x c++ -std=c++11 -pedantic -Wall -Wextra -Werror -I"$work/opt/include" -fsyntax-only "$work/a.c"
fi

# ---- the examples by pkg-config, in a tree that was moved after its installation
mv "$work/opt" "$work/moved"
libdir=$work/moved${libdir#"$work/opt"}
export PKG_CONFIG_PATH="$libdir/pkgconfig"
holds "keel.pc has the version" [ "$(pkg-config --modversion keel)" = "$version" ]
for name in train generate score; do
    # shellcheck disable=SC2046,SC2086 # words
    ${CC:-cc} -std=c99 -pedantic -Wextra -Werror $flags -O1 "$source/examples/$name.c" -o "$work/$name" \
        $(pkg-config --cflags --libs keel) -lpthread
done
# the program of the page is one
awk '/^```c$/ {on = 1; next} /^```$/ {on = 0} on' "$source/docs/library.md" >"$work/page.c"
holds "docs/library.md holds a program" grep -q '^int main' "$work/page.c"
# shellcheck disable=SC2046,SC2086
${CC:-cc} -Wextra -Werror $flags "$work/page.c" -o "$work/page" $(pkg-config --cflags --libs keel)
export LD_LIBRARY_PATH="$libdir"
i=0
while [ $i -lt 400 ]; do
    echo "The ship number $i left the harbour and sailed over the sea until the sea had no end."
    echo
    i=$((i + 1))
done >"$work/text.txt"
OMP_NUM_THREADS=1 "$work/train" "$work/text.txt" "$work/run" data.document=blank_line train.steps=20 \
    data.validation=10% >"$work/out" 2>"$work/err" || {
    cat "$work/err" >&2
    exit 1
}
holds "train: steps are told" grep -q '^step 20 of 20: 20480 tokens, loss ' "$work/out"
holds "train: the result" grep -q '^trained: 20 steps, validation loss ' "$work/out"
"$work/generate" "$work/run" "The ship" 12 >"$work/out" 2>"$work/err"
holds "generate: the text begins as asked" grep -q '^The ship' "$work/out"
holds "generate: the facts" grep -q 'context 64, after 20 steps' "$work/err"
"$work/score" "$work/run" "The ship number 7 left the harbour." "Harbour the left 7 number ship the." >"$work/scores"
holds "score: a line a text" [ "$(wc -l <"$work/scores")" = 2 ]
likely=$(sed -n '1s/perplexity \([0-9]*\).*/\1/p' "$work/scores") # the whole part
odd=$(sed -n '2s/perplexity \([0-9]*\).*/\1/p' "$work/scores")
holds "score: what was learned is likelier than its reverse" [ "$likely" -lt "$odd" ]
"$work/page" "$work/run" "The ship" >"$work/out"
holds "the page's program generates" [ -s "$work/out" ]
got=0
"$work/generate" "$work/nowhere" "a" 2>"$work/err" || got=$?
holds "a missing model is an exit code" [ "$got" = 1 ]
holds "and a message" \
    [ "$(cat "$work/err")" = "$work/nowhere: no such folder; name a run's folder or one of its step_N" ]

# ---- the same by find_package, shared and static
unset LD_LIBRARY_PATH
cmake -S "$source/examples" -B "$work/cmake" -DCMAKE_PREFIX_PATH="$work/moved" -DCMAKE_C_FLAGS="$flags" \
    >"$work/log" 2>&1 && cmake --build "$work/cmake" >>"$work/log" 2>&1 || {
    tail -n 30 "$work/log" >&2
    exit 1
}
"$work/cmake/score" "$work/run" "The ship number 7 left the harbour." "Harbour the left 7 number ship the." >"$work/again"
holds "find_package: the same scores" cmp "$work/scores" "$work/again"
if [ "$3" = 0 ]; then
    "$work/cmake/score_static" "$work/run" "The ship number 7 left the harbour." \
        "Harbour the left 7 number ship the." >"$work/again"
    holds "keel::archive: the same scores" cmp "$work/scores" "$work/again"
    holds "keel::archive: libkeel.so is not needed" \
        sh -c '! readelf -d "$1" | grep -q "NEEDED.*libkeel"' - "$work/cmake/score_static"
    # pkg-config --static names what libkeel.a needs; the archive is named itself, since -lkeel prefers libkeel.so
    # shellcheck disable=SC2046
    ${CC:-cc} -Wall -O1 "$source/examples/score.c" -o "$work/score_static" $(pkg-config --cflags keel) \
        "$libdir/libkeel.a" $(pkg-config --static --libs keel | sed 's/-lkeel//') -lpthread
    "$work/score_static" "$work/run" "The ship number 7 left the harbour." "Harbour the left 7 number ship the." \
        >"$work/again"
    holds "pkg-config --static: the same scores" cmp "$work/scores" "$work/again"
fi
cat >"$work/newer.cmake" <<END
cmake_minimum_required(VERSION 3.25)
project(newer LANGUAGES C)
find_package(keel 9.0 REQUIRED)
END
mkdir "$work/newer" && mv "$work/newer.cmake" "$work/newer/CMakeLists.txt"
holds "find_package: a version that is not there is refused" \
    sh -c '! cmake -S "$1" -B "$1/b" -DCMAKE_PREFIX_PATH="$2" >/dev/null 2>&1' - "$work/newer" "$work/moved"
[ "$bad" = 0 ]

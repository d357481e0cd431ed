#!/bin/sh
# deps.sh: the Debian packages Keel needs, in one place.
#
#     sh scripts/deps.sh build              what `cmake -S . -B build && cmake --build build` needs
#     sh scripts/deps.sh test               that, and what the tests and the formatting check need
#     sh scripts/deps.sh bare               what scripts/bare.sh needs on the machine it runs on
#     sh scripts/deps.sh fuzz               what scripts/fuzz.sh needs: a compiler with libFuzzer
#     sh scripts/deps.sh list build         only print the names
#     sh scripts/deps.sh unpack PACKAGE DIR download PACKAGE and unpack it under DIR; nothing is installed
#
# Only what is missing is installed, without questions. When nothing is missing, neither the network nor root is
# needed. Talk goes to stderr.
set -eu

BUILD="gcc libc6-dev make cmake pkg-config
    libcminpack-dev libdnnl-dev libfyaml-dev libjansson-dev libmicrohttpd-dev libpcre2-dev libsqlite3-dev libutf8proc-dev libxxhash-dev
    libzstd-dev zlib1g-dev"
TEST="$BUILD curl libcmocka-dev clang-format-14"
BARE="debootstrap git"
FUZZ="$BUILD clang libclang-rt-14-dev libomp-14-dev"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say() { echo "deps: $*" >&2; }
die() {
    say "$*"
    exit 1
}

# shellcheck disable=SC2086 # unquoted: one line of words
packages() {
    case $1 in
    build) echo $BUILD ;;
    test) echo $TEST ;;
    bare) echo $BARE ;;
    fuzz) echo $FUZZ ;;
    *) die "no list '$1'; there are: build test bare fuzz" ;;
    esac
}

# The words of the list whose package is not installed.
missing() {
    for package; do
        state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
        case " $state" in
        *" installed"*) ;;
        *) echo "$package" ;;
        esac
    done
}

# Runs apt-get as root, by sudo where this is not root. Its talk is kept, and shown when it fails.
apt() {
    if [ "$(id -u)" = 0 ]; then
        set -- env DEBIAN_FRONTEND=noninteractive apt-get "$@"
    elif command -v sudo >/dev/null; then
        set -- sudo env DEBIAN_FRONTEND=noninteractive apt-get "$@"
    else
        die "root is needed for 'apt-get $*': run this as root, or install sudo"
    fi
    "$@" >"$work/log" 2>&1 && return
    tail -n 30 "$work/log" >&2
    die "failed: $*; is there a network, and does apt know a Debian 12 mirror?"
}

install() {
    list=$(packages "$1")
    # shellcheck disable=SC2086 # a list of words
    need=$(missing $list | tr '\n' ' ')
    if [ -z "$need" ]; then
        say "everything for '$1' is installed already"
        return
    fi
    command -v apt-get >/dev/null || die "no apt-get here; Keel is built on Debian 12 (needed: $need)"
    say "installing: $need"
    apt -q update
    # shellcheck disable=SC2086
    apt -q -y -o Dpkg::Use-Pty=0 install --no-install-recommends $need
    # shellcheck disable=SC2086
    left=$(missing $need | tr '\n' ' ')
    [ -z "$left" ] || die "still missing after the installation: $left"
}

# Downloading needs the package lists, not root; a fresh machine has no lists yet.
unpack() {
    package=$1 folder=$2
    mkdir -p "$folder"
    if ! apt-cache show "$package" >/dev/null 2>&1; then
        say "fetching the package lists"
        apt -q update
    fi
    say "downloading $package (unpacked, not installed)"
    (
        cd "$work"
        # apt's download user may not write here: as root, download as root
        if [ "$(id -u)" = 0 ]; then set -- -o APT::Sandbox::User=root; else set --; fi
        apt-get "$@" -qq download "$package" >&2
    ) || die "cannot download $package; is there a network, and does apt know a Debian mirror?"
    dpkg-deb -x "$work"/*.deb "$folder"
}

case ${1-} in
build | test | bare | fuzz) install "$1" ;;
list) packages "${2-build}" | tr ' ' '\n' ;;
unpack)
    [ $# = 3 ] || die "usage: deps.sh unpack PACKAGE DIR"
    unpack "$2" "$3"
    ;;
*)
    say "usage: sh scripts/deps.sh build | test | bare | fuzz | list LIST | unpack PACKAGE DIR"
    exit 2
    ;;
esac

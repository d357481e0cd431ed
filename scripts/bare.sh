#!/bin/sh
# bare.sh: proves that a bare machine is enough. Makes a minimal Debian 12 (debootstrap --variant=minbase: no
# compiler, no make, no cmake), copies the committed tree into it (git archive HEAD) and runs commands there.
#
#     sudo sh scripts/bare.sh                         the demo, the demo again (must reuse), the tests
#     sudo sh scripts/bare.sh 'sh scripts/test.sh'    these commands instead, each a line for sh
#
#     KEEL_BARE=DIR      the root to make and to keep (default: a new folder in /var/tmp, removed at the end)
#     KEEL_MIRROR=URL    the Debian mirror (default: the one this machine's apt uses for bookworm)
#     DEMO_TIME='1 min'  handed to the demo
#
# Packages come the way this machine gets them: its apt sources, apt configuration and keys are copied in. What
# holds a password (/etc/apt/auth.conf*) is not. The mounts live in a mount namespace of their own and the processes
# in a process namespace: both are gone with this script, however it ends.
set -eu
cd "$(dirname "$0")/.."

say() { echo "bare: $*" >&2; }
die() {
    say "$*"
    exit 1
}

# ---- inside the namespaces: bare.sh --inside ROOT COMMAND...
if [ "${1-}" = --inside ]; then
    root=$2
    shift 2
    mount -t proc proc "$root/proc"
    mount -t sysfs -o ro sysfs "$root/sys"
    mount --rbind /dev "$root/dev"
    for command; do
        say "in the bare root: $command"
        began=$(date +%s)
        code=0
        # shellcheck disable=SC2016 # $1 is the inner shell's
        env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
            TERM="${TERM-dumb}" ${DEMO_TIME+DEMO_TIME="$DEMO_TIME"} \
            ${http_proxy+http_proxy="$http_proxy"} ${https_proxy+https_proxy="$https_proxy"} \
            chroot "$root" /bin/sh -c 'cd /keel && eval "$1"' sh "$command" || code=$?
        say "'$command' took $(($(date +%s) - began)) s, exit code $code"
        [ "$code" = 0 ] || exit "$code"
    done
    exit 0
fi

# ---- outside
[ "$(id -u)" = 0 ] || die "making a root folder needs root: sudo sh scripts/bare.sh"
sh scripts/deps.sh bare
[ $# -gt 0 ] || set -- 'sh scripts/demo.sh' 'sh scripts/demo.sh' 'sh scripts/test.sh'

# apt itself reads its sources, in whichever of the two forms they are written.
# shellcheck disable=SC2016 # $(RELEASE) is apt's
mirror=${KEEL_MIRROR-$(apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
    awk '$1 == "bookworm" && $2 == "main" {print $3; exit}')}
[ -n "$mirror" ] || die "apt's sources here name no mirror with bookworm; give one: KEEL_MIRROR=URL sh scripts/bare.sh"

if [ -n "${KEEL_BARE-}" ]; then
    root=$KEEL_BARE
    [ ! -e "$root" ] || die "$root exists; remove it, or name another folder in KEEL_BARE"
    mkdir -p "$root"
else
    root=$(mktemp -d /var/tmp/keel-bare.XXXXXX)
    # --one-file-system: should a mount ever be left, removing stops at it
    trap 'rm -rf --one-file-system "$root"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
fi
chmod 755 "$root"

say "debootstrap bookworm (minbase) into $root"
debootstrap --variant=minbase bookworm "$root" "$mirror" >"$root.log" 2>&1 || {
    tail -n 20 "$root.log" >&2
    rm -f "$root.log"
    die "debootstrap failed"
}
rm -f "$root.log" "$root"/etc/apt/sources.list
for folder in sources.list.d apt.conf.d preferences.d trusted.gpg.d keyrings; do
    [ ! -d "/etc/apt/$folder" ] || cp -RL "/etc/apt/$folder" "$root/etc/apt/"
done
for file in sources.list apt.conf preferences trusted.gpg; do
    [ ! -f "/etc/apt/$file" ] || cp -L "/etc/apt/$file" "$root/etc/apt/"
done
[ ! -d /usr/share/keyrings ] || cp -RL /usr/share/keyrings "$root/usr/share/"
for file in resolv.conf hosts; do
    [ ! -f "/etc/$file" ] || cp -L "/etc/$file" "$root/etc/"
done
for tool in gcc cc make cmake ninja pkg-config; do
    if chroot "$root" /bin/sh -c "command -v $tool" >/dev/null; then die "$tool is in the bare root: not bare"; fi
done
say "$(chroot "$root" dpkg-query -W | wc -l) packages, none of gcc, make, cmake, ninja, pkg-config"

mkdir "$root/keel"
git -c safe.directory="$(pwd)" archive HEAD | tar -x -C "$root/keel"
code=0
unshare --mount --pid --fork --kill-child sh scripts/bare.sh --inside "$root" "$@" || code=$?
[ "$code" = 0 ] || die "failed in the bare root (exit code $code)"
say "everything passed on a bare Debian 12"

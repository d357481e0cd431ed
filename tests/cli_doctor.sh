#!/bin/sh
# cli_doctor.sh KEEL: `keel doctor` names the machine's facts and what stands in the way, and fails only where nothing
# can be trained.
set -eu
keel=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export KEEL_REGISTRY="$work/runs.db"
unset KEEL_FAULT OMP_WAIT_POLICY GOMP_SPINCOUNT OMP_NUM_THREADS TMPDIR
bad=0
complain() {
    echo "$1" >&2
    bad=1
}
has() { grep -q "$2" "$1" || complain "not in $1: $2 in: $(cat "$1")"; }

"$keel" doctor --quick >out 2>err || complain "doctor failed: $(cat err)"
[ ! -s err ] || complain "doctor --quick talks: $(cat err)"
for label in keel processor threads kernels memory disk registry libraries; do has out "^$label  *[^ ]"; done
has out "^libraries   oneDNN [0-9.]*, glibc [0-9.]*"
has out "^registry    $work/runs.db\$"
! grep -q '^gemm' out || complain "--quick measured"
awk 'length > 100' out | grep -v '^registry' >long || true
[ ! -s long ] || complain "lines longer than 100 columns: $(cat long)"

# problems are found: threads that spin, cores left idle
OMP_WAIT_POLICY=active "$keel" doctor --quick >out || complain "a slow machine is no failure"
has out '^slow: threads that wait spin (OMP_WAIT_POLICY=active)'
has out '^   -> unset OMP_WAIT_POLICY'
if [ "$(nproc)" -ge 2 ]; then
    OMP_NUM_THREADS=1 "$keel" doctor --quick >out
    has out '^slow: [0-9]* of the [0-9]* CPUs we may use stay idle (OMP_NUM_THREADS=1)'
    has out '^   -> unset OMP_NUM_THREADS, or give --threads=N'
    taskset -c 0 "$keel" doctor --quick --json >out
    has out '"processors_allowed":1'
    has out '"name":"bound_cores","severity":"note"'
fi
"$keel" doctor --quick --isa=plain --json >out
has out '"isa":"plain"'

# what stops training is said, and the exit code is 1
code=0
if (ulimit -v 8000000 && "$keel" --version) >out 2>err; then # a program with AddressSanitizer does not even start
    (ulimit -v 8000000 && "$keel" doctor --quick >out 2>err) || code=$?
    [ "$code" = 1 ] || complain "a narrow address space: exit code $code"
    has out '^stops: cannot reserve 16 GiB of address space'
    has out '^stops: address space is limited to 7.63 GiB'
    has err '^keel: doctor: 2 problems with which nothing can be trained$'
fi
code=0
OMP_NUM_THREADS=many "$keel" doctor --quick >out 2>err || code=$?
[ "$code" = 1 ] || complain "OMP_NUM_THREADS=many: exit code $code"
has out "^stops: OMP_NUM_THREADS is 'many'"

# JSON: one line, one object, all numbers of the text
"$keel" doctor --json --threads=1 >out 2>err
[ "$(wc -l <out)" = 1 ] || complain "--json is not one line"
for key in version processor isa threads memory_bytes disk tmp libraries problems; do has out "\"$key\":"; done
has out '"threads":1,'
has out '"gemm_f32_gflops":[0-9]'
has out '"copy_gbs":[0-9]'
exit $bad

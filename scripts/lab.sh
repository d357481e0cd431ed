#!/bin/sh
# lab.sh: the ready experiments, from text to reports.
#
#     sh scripts/lab.sh                 all of configs/lab at small scale: within 100 minutes on two cores
#     sh scripts/lab.sh sdd hybrid      only these
#     LAB_SCALE=spec sh scripts/lab.sh sdd
#
# The runs go to runs/lab, the reports to docs/results: NAME.md and NAME.jsonl, a line a run. An interrupted call goes
# on where it stopped; what has been run is not run again.
set -eu
cd "$(dirname "$0")/.."
LC_ALL=C.UTF-8
export LC_ALL
keel=${KEEL-build/keel}
scale=${LAB_SCALE-small}
[ $# -gt 0 ] || set -- hybrid connections activations memory sdd over_encoding over_encoding_mean phd schedules layers transfer
if [ ! -x "$keel" ]; then
    sh scripts/deps.sh build
    cmake -S . -B build >/dev/null
    cmake --build build --parallel "$(nproc)" --target keel >/dev/null
fi
sh scripts/text.sh demo
mkdir -p docs/results
for name; do
    file=configs/lab/$name.yaml
    [ -f "$file" ] || {
        echo "lab: no $file" >&2
        exit 2
    }
    out=docs/results/$name
    [ "$scale" = small ] || out=$out-$scale
    "$keel" lab run "$file" --scale "$scale" data.train=demo/gcide.txt >/dev/null
    cp "runs/lab/$name-$scale/results.jsonl" "$out.jsonl"
    "$keel" lab report "$file" --scale "$scale" data.train=demo/gcide.txt --results "$out.jsonl" --markdown "$out.md" \
        --html "runs/lab/$name-$scale/report.html"
    echo "$out.md"
done

# keel config as a user types it. $1: the binary; run in the source folder.
set -eu
keel=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

same() { # same WANTED GOT
    [ "$1" = "$2" ] || { printf 'wanted: %s\ngot:    %s\n' "$1" "$2" >&2; exit 1; }
}
fails() { # fails CODE MESSAGE ARGUMENTS...
    code=0 wanted=$1 message=$2
    shift 2
    "$keel" "$@" >"$folder/out" 2>"$folder/err" || code=$?
    same "$wanted" "$code"
    same "$message" "$(cat "$folder/err")"
    same "" "$(cat "$folder/out")" # nothing half-printed
}
has() { # has LINE ARGUMENTS...: the output holds that line
    line=$1
    shift
    "$keel" "$@" >"$folder/out"
    grep -qx -- "$line" "$folder/out" || { printf 'no line: %s\n' "$line" >&2; cat "$folder/out" >&2; exit 1; }
}

# resolve: layers, and a file that resolves to itself
printf 'model:\n  preset: llama-10m\ntrain:\n  tokens: 20M\n' >"$folder/run.yaml"
"$keel" config resolve "$folder/run.yaml" model.width=512 train.seed.init=7 >"$folder/resolved.yaml"
has '  width: 512' config resolve "$folder/resolved.yaml"
cmp "$folder/out" "$folder/resolved.yaml"
has '  layers: 8' config resolve "$folder/resolved.yaml"
has '  tokens: 20000000' config resolve "$folder/resolved.yaml"
has '    init: 7' config resolve "$folder/resolved.yaml"
"$keel" config resolve - model.width=512 train.seed.init=7 <"$folder/run.yaml" | cmp - "$folder/resolved.yaml"
has '  steps: 10' config resolve train.steps=10
has '    "where": "preset llama-10m: model.layers"' config resolve --json "$folder/run.yaml"

# explain
has '  Default: 384' config explain model.width
has '  Presets: gpt2-124m: 768; .*' config explain model.width
has '  Only:    with train.schedule.kind: uba or piecewise' config explain train.schedule.phi
has 'model.norm.final  *true .*' config explain model.norm
has 'data.train  *\[\] .*' config explain
has '    "max": 65536.0' config explain --json model.width

# the reference page
"$keel" config reference | cmp - docs/configuration.md

# messages and exit codes
fails 1 "keel: $folder/none.yaml: No such file or directory" config resolve "$folder/none.yaml"
printf 'model:\n\n  widht: 3\n' >"$folder/bad.yaml"
fails 1 "keel: $folder/bad.yaml:3: unknown key model.widht; did you mean model.width?" config resolve "$folder/bad.yaml"
fails 1 "keel: command line: model.width is 'wide'; it must be a whole number from 1 to 65536" \
    config resolve model.width=wide
fails 2 "keel: unknown key model.norm.atn; did you mean model.norm.attn?" config explain model.norm.atn
fails 2 "keel: config: no action 'explian'; there are explain, resolve and reference" config explian
fails 2 "keel: 'b' is not a setting; write key=value, like train.steps=100" config resolve "$folder/run.yaml" b

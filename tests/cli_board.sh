#!/bin/sh
# cli_board.sh KEEL: `keel board` over HTTP: the page is that of the runs and follows them, only 127.0.0.1, only GET,
# nothing of a URL names a file, it ends on a signal. With curl, and in headless Chromium where that is installed.
set -eu
keel=$(realpath "$1")
command -v curl >/dev/null || {
    echo "cli_board: no curl here; skipped" >&2
    exit 77
}
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
export KEEL_REGISTRY="$work/runs.db"
unset KEEL_FAULT http_proxy HTTP_PROXY all_proxy ALL_PROXY
bad=0
complain() {
    echo "$1" >&2
    bad=$((bad + 1))
}
# refused CODE MESSAGE ARGUMENTS...: the whole of stderr, and nothing on stdout
refused() {
    want=$1 message="keel: $2" got=0
    shift 2
    "$keel" board "$@" >out 2>err </dev/null || got=$?
    [ "$got" = "$want" ] || complain "keel board $*: exit code $got, expected $want"
    [ "$(cat err)" = "$message" ] || complain "keel board $*: not '$message' but '$(cat err)'"
    [ ! -s out ] || complain "keel board $*: something on stdout"
}
# answers CODE ARGUMENTS...: of curl; leaves page
answers() {
    want=$1
    shift
    got=$(curl -s -m 20 -o page -w '%{http_code}' "$@") || got="failed ($?)"
    [ "$got" = "$want" ] || complain "curl $*: $got, expected $want"
}

refused 1 "board: no runs yet; 'keel train' adds one, or give a run's folder"
refused 1 "no run 'nowhere' in the registry, by id or by folder; 'keel runs list' shows them" nowhere
refused 2 "board: --port is '65536'; it must be a whole number from 0 to 65535" --port 65536
refused 2 "board: --refresh is '0'; it must be a whole number from 1 to 86400" --refresh 0

mkdir a b
echo '{"step":1,"loss":3.5,"lr":0.1}' >a/metrics.jsonl
echo '{"step":1,"loss":2.5,"lr":0.2}' >b/metrics.jsonl
echo 'model: {width: 64}' >a/config.yaml
echo 'model: {width: 128}' >b/config.yaml
"$keel" board a b --port 0 --refresh 7 >address 2>talk &
server=$!
for _ in $(seq 100); do
    [ -s address ] && break
    sleep 0.1
done
url=$(cat address)
case $url in http://127.0.0.1:*/) ;; *) complain "no address on stdout: '$url'" ;; esac
port=${url##*:} port=${port%/}

answers 200 "$url"
grep -q '<title>2 runs</title>' page || complain "not the page of two runs"
grep -q '<meta http-equiv="refresh" content="7">' page || complain "the page does not load itself again"
grep -q '<tr><td>model.width</td><td>64</td><td>128</td></tr>' page || complain "no table of differences"
! grep -q '<td>4.2500</td>' page || complain "a value before it is there"
echo '{"step":2,"val_loss":4.25}' >>b/metrics.jsonl
answers 200 "$url"
grep -q '<td>4.2500</td>' page || complain "the page does not follow the run"
answers 200 "$url?a=/etc/passwd" # a query changes nothing
grep -q '<title>2 runs</title>' page || complain "a query changed the page"

for path in a/metrics.jsonl ../etc/passwd %2e%2e/etc/passwd /etc/passwd runs.db; do
    answers 404 --path-as-is "$url$path"
    [ "$(cat page)" = "there is only one page here: /" ] || complain "$path: not the answer expected"
done
for method in POST PUT DELETE OPTIONS; do
    answers 405 -X "$method" "$url"
    [ "$(cat page)" = "only GET is answered" ] || complain "$method: not the answer expected"
done
head -c 200000 /dev/zero | answers 405 --data-binary @- "$url"
answers 403 -H 'Host: evil.example' "$url"
[ "$(cat page)" = "this page is for 127.0.0.1 only" ] || complain "a foreign host: not the answer expected"
answers 200 "http://localhost:$port/" --resolve "localhost:$port:127.0.0.1"
if curl -s -m 5 -o page "http://127.0.0.2:$port/"; then complain "it answers on 127.0.0.2 too"; fi
printf 'GARBAGE\r\n\r\n' | curl -s -m 5 "telnet://127.0.0.1:$port" >/dev/null 2>&1 || true
answers 200 "$url"

refused 1 "cannot serve on 127.0.0.1:$port: Address already in use; choose another --port, or 0 for a free one" \
    a --port "$port"

mv b c # a run that goes away is said, and the board goes on
answers 503 "$url"
[ "$(cat page)" = "b: no such folder; give the folder of a run" ] || complain "a missing folder: not the answer expected"
mv c b
answers 200 "$url"

chromium=$(command -v chromium || command -v chromium-browser || true)
if [ -n "$chromium" ]; then
    "$chromium" --headless --no-sandbox --disable-gpu --user-data-dir="$work/chromium" --dump-dom "$url" >dom 2>/dev/null ||
        complain "chromium failed"
    grep -q '<svg viewBox' dom || complain "no chart in what chromium made of the page"
else
    echo "cli_board: no chromium here; that part is skipped" >&2
fi

kill -INT "$server" 2>/dev/null
kill -TERM "$server" 2>/dev/null || true # a shell's background job may ignore SIGINT
code=0
wait "$server" || code=$?
server=
[ "$code" = 0 ] || complain "ended by a signal it has exit code $code"
if curl -s -m 5 -o page "$url"; then complain "it answers after its end"; fi
[ "$bad" = 0 ]

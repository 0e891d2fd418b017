# Starts a server on free ports and asks it; for the scripts that check builds for devices. To be sourced
# with MORTISE (the binary), MODEL and ADAPTERS (directories) set. Needs bash and python3, no toolchain.

WORK=$(mktemp -d)
SERVER=
trap 'stop_server; rm -rf "$WORK"' EXIT

# How long a server may take to start, in tenths of a second.
START_MAX=${START_MAX:-1200}

fail() {
    printf 'FAILED: %s\n' "$*" >&2
    [ -s "$WORK/log" ] && sed 's/^/    /' "$WORK/log" >&2
    exit 1
}

# begin_server FLAGS...: starts a process; its log is $WORK/log, what it prints $WORK/out.
begin_server() {
    rm -rf "$WORK/data"
    mkdir "$WORK/data"
    : >"$WORK/out"
    "$MORTISE" serve --model "$MODEL" --adapter-dir "$ADAPTERS" --data-dir "$WORK/data" \
        --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 "$@" >"$WORK/out" 2>"$WORK/log" &
    SERVER=$!
}

# start_server FLAGS...: and waits until it listens; its address is then $URL.
start_server() {
    begin_server "$@"
    local tenths=0
    until grep -q '^listening on ' "$WORK/out"; do
        kill -0 "$SERVER" 2>/dev/null || { SERVER=; fail "no server came up with: $*"; }
        [ $((tenths += 1)) -le "$START_MAX" ] || fail "the server does not listen with: $*"
        sleep 0.1
    done
    URL=$(sed -n 's/^listening on //p' "$WORK/out")
}

# refuse_start WORDS FLAGS...: the server must end by itself, in error, and say WORDS.
refuse_start() {
    local words=$1 tenths=0 status=0
    shift
    begin_server "$@"
    while kill -0 "$SERVER" 2>/dev/null; do
        [ $((tenths += 1)) -le "$START_MAX" ] || fail "the server runs with: $*"
        grep -q '^listening on ' "$WORK/out" && fail "the server listens with: $*"
        sleep 0.1
    done
    wait "$SERVER" || status=$?
    SERVER=
    [ "$status" = 1 ] || fail "status $status, not 1, with: $*"
    grep -q -- "$words" "$WORK/log" || fail "nothing of '$words' is said with: $*"
    ! grep -q 'panicked' "$WORK/log" || fail "it panicked with: $*"
}

stop_server() {
    [ -n "$SERVER" ] || return 0
    kill "$SERVER" 2>/dev/null || true
    wait "$SERVER" 2>/dev/null || true
    SERVER=
}

# ask MODEL PROMPT TOKENS [JSON]: prints the text of a completion, greedy unless the fields in JSON say
# otherwise.
ask() {
    python3 - "$URL" "$@" <<'PY' || fail "no answer to: $*"
import json, sys, urllib.request
url, model, prompt, tokens, *more = sys.argv[1:]
body = {"model": model, "prompt": prompt, "max_tokens": int(tokens), "temperature": 0, "ignore_eos": True}
body.update(json.loads(more[0]) if more else {})
headers = {"content-type": "application/json"}
request = urllib.request.Request(url + "/v1/completions", json.dumps(body).encode(), headers)
with urllib.request.urlopen(request, timeout=120) as answer:
    found = json.load(answer)
assert found["usage"]["completion_tokens"] == int(tokens), found
print(json.dumps(found["choices"][0]["text"]))
PY
}

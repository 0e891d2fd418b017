#!/usr/bin/env bash
# The server on a device: the demo's model and adapters, asked what they are known to answer.
#
#   benches/cuda/serve.sh path/to/mortise [DEVICE]
#
# It passes if answers are as good as on the CPU, the same seed draws the same text whether the device draws
# or the host, and crowds of requests with all adapters are answered. DEVICE is cuda if not named; with `cpu`
# the script itself can be tried on any machine.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
MORTISE=$(realpath "${1:?the binary}")
MODEL=$root/examples/tiny/model
ADAPTERS=$root/examples/tiny/adapters
. "$root/tests/cuda/server.sh"

start_server --device "${2:-cuda}"
grep -E 'model loaded|the model runs on' "$WORK/log"

# Held-out questions of each adapter, answered exactly.
python3 "$root/examples/tiny/evaluate.py" --url "$URL" --data "$root/examples/tiny" --base model \
    --limit 24 | tee "$WORK/table"
python3 - "$WORK/table" <<'PY' || fail "answers are not what the adapters were trained to give"
import re, sys
rows = [line.split("|")[1:-1] for line in open(sys.argv[1]) if line.startswith("|")]
head, rows = [cell.strip() for cell in rows[0]], rows[2:]
exact = head.index("Adapter exact")
shares = {row[0].strip(): int(re.sub(r"\D", "", row[exact])) for row in rows}
print("exact, in percent:", shares)
sys.exit(not (len(shares) == 4 and all(share >= 85 for share in shares.values())))
PY

# Drawn on the device (plain), and copied to the host (logprobs, penalties).
for more in '{"temperature": 0.9, "seed": 7}' '{"temperature": 1.2, "seed": 8, "top_k": 40, "top_p": 0.9}' \
    '{"temperature": 0.9, "seed": 7, "logprobs": 2}' '{"temperature": 0.8, "seed": 9, "presence_penalty": 0.5}' \
    '{"logit_bias": {"17": -100}}'; do
    first=$(ask model "Once upon a time" 24 "$more")
    again=$(ask model "Once upon a time" 24 "$more")
    echo "$more $first"
    [ "$first" = "$again" ] || fail "another text for the same seed: $again"
done
plain=$(ask model "Once upon a time" 24 '{"temperature": 0.9, "seed": 7}')
with=$(ask model "Once upon a time" 24 '{"temperature": 0.9, "seed": 7, "logprobs": 2}')
[ "$plain" = "$with" ] || fail "the device draws $plain, the host $with"

python3 - "$URL" <<'PY' || fail "requests in company"
import concurrent.futures, json, sys, time, urllib.request
url, names = sys.argv[1], ["model", "contracts", "npc", "support", "wallet-risk"]
def ask(index):
    body = {"model": names[index % 5], "prompt": f"The {index}th of them said", "max_tokens": 64,
            "temperature": 0.7, "seed": index, "ignore_eos": True}
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(url + "/v1/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)["choices"][0]["text"]
for together in [1, 8, 32, 64]:
    began = time.time()
    with concurrent.futures.ThreadPoolExecutor(together) as pool:
        found = list(pool.map(ask, range(64 if together > 1 else 4)))
    print(f"{together} at once: {len(found) * 64 / (time.time() - began):.0f} tokens/s")
PY
stop_server
! grep -E 'panicked|the model failed' "$WORK/log" || fail "the log speaks of failures"
echo PASSED

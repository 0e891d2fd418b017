#!/usr/bin/env bash
# Load runs of guidellm and aiperf against a running server, each from a virtual environment of its
# own, because their requirements differ. Fails if a request fails.
#
#     load.sh guidellm|aiperf URL MODEL TOKENIZER_DIR OUT_DIR
#
# PYTHON_BIN is the folder of the environment's programs, made with `pip install -r guidellm.txt` or
# `-r aiperf.txt`; without it they are looked for on the PATH. ENDPOINT is chat or completions, STREAM
# is true or false, REQUESTS says how many.
set -euo pipefail

[ $# = 5 ] || { sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2; }
tool=$1 url=$2 model=$3 tokenizer=$4 out=$5
bin=${PYTHON_BIN:+$PYTHON_BIN/}
count=${REQUESTS:-24}
case ${ENDPOINT:=chat} in
chat) route=/v1/chat/completions ;;
completions) route=/v1/completions ;;
*) printf 'ENDPOINT is chat or completions, not %s\n' "$ENDPOINT" >&2; exit 2 ;;
esac
case ${STREAM:=true} in
true) streaming=--streaming ;;
false) streaming= ;;
*) printf 'STREAM is true or false, not %s\n' "$STREAM" >&2; exit 2 ;;
esac
mkdir -p "$out"
# Nothing is fetched: tokenizer and prompts are local. aiperf takes a folder for a repository's name
# where it is told to be offline.
[ "$tool" = aiperf ] || export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1

# A guidellm that ends may leave its last request out of its report; what was answered, the server knows.
answered() {
    python3 - "$url" <<'PYTHON'
import sys, urllib.request
lines = urllib.request.urlopen(f"{sys.argv[1]}/metrics").read().decode().splitlines()
print(int(sum(float(l.rsplit(" ", 1)[1]) for l in lines if l.startswith("vllm:request_success_total{"))))
PYTHON
}

failed() { printf '%s: %s\n' "$tool" "$*" >&2; exit 1; }

before=$(answered)
case $tool in
guidellm)
    "${bin}guidellm" run --disable-console-interactive \
        --backend "kind=openai_http,target=$url,model=$model,request_format=$route,stream=$STREAM" \
        --tokenizer "kind=huggingface_auto,model=$tokenizer" \
        --data "kind=synthetic_text,prompt_tokens=32,output_tokens=16" \
        --profile "kind=concurrent,streams=4" \
        --constraint "kind=max_requests,count=$count" \
        --output "kind=json,path=$out/guidellm.json" --output "kind=console"
    python3 - "$out/guidellm.json" <<'PYTHON' || failed "not every request succeeded"
import json, sys
totals = json.load(open(sys.argv[1]))["benchmarks"][0]["metrics"]["request_totals"]
print("guidellm:", totals)
sys.exit(totals["errored"] != 0 or totals["incomplete"] != 0 or totals["successful"] == 0)
PYTHON
    ;;
aiperf)
    "${bin}aiperf" profile --model "$model" --url "$url" --endpoint-type "$ENDPOINT" \
        ${streaming:+"$streaming"} --use-server-token-count --no-gpu-telemetry \
        --tokenizer "$tokenizer" --synthetic-input-tokens-mean 32 --output-tokens-mean 16 \
        --extra-inputs ignore_eos:true --extra-inputs min_tokens:16 \
        --concurrency 4 --request-count "$count" --artifact-dir "$out/aiperf" --ui none
    python3 - "$out/aiperf/profile_export_aiperf.json" "$count" <<'PYTHON' || failed "not every request succeeded"
import json, sys
report = json.load(open(sys.argv[1]))
count = report["request_count"]["avg"]
print("aiperf:", count, "requests, errors:", report.get("error_summary"))
sys.exit(bool(report.get("error_summary")) or count < int(sys.argv[2]))
PYTHON
    ;;
*) failed "not a tool that is known here" ;;
esac
served=$(($(answered) - before))
printf 'the server answered %s requests\n' "$served"
[ "$served" -ge "$count" ] || failed "the server answered $served of $count"

#!/usr/bin/env bash
# One binary for machines with and without a device: proves that MORTISE, built with or without the
# features cuda and nccl, starts on a machine without a driver.
#
#   tests/cuda/start_without_driver.sh target/release/mortise
#
# `device = "auto"` must answer from the CPU, with one line in the log that says why (none in a build
# without CUDA, where nobody expects a device); `device = "cuda"` must refuse to start.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
MORTISE=$(realpath "${1:?the binary to check}")
MODEL=${MODEL:-$root/examples/tiny/model}
ADAPTERS=${ADAPTERS:-$root/examples/tiny/adapters}
. "$(dirname "$0")/server.sh"

if [ -e /proc/driver/nvidia/version ] || [ -e /dev/nvidiactl ]; then
    echo "this machine has a driver: nothing is proved here" >&2
    exit 2
fi

# falls_back LINES FLAGS...: the CPU answers, and so many lines say why.
falls_back() {
    local expected=$1 found
    shift
    start_server "$@"
    ask model "Once upon a time" 8
    stop_server
    found=$(grep -c 'the model runs on the cpu' "$WORK/log" || true)
    [ "$found" = "$expected" ] || fail "$found lines on the device, not $expected, with: $*"
}

refuse_start 'find a device for the model' --device cuda
built=yes lines=1
grep -q 'not built with cuda' "$WORK/log" && built=no lines=0
# The text of the error is one line too, whatever the environment asks of backtraces.
[ "$built" = no ] || grep -q 'there is no driver' "$WORK/log" || fail "the reason is not said"
echo "built with cuda: $built; device=cuda is refused with: $(grep -o 'find a device.*' "$WORK/log" | head -1)"
refuse_start 'find a device for the model' --device cuda --tensor-parallel-size 2
falls_back "$lines" --device auto
grep 'the model runs on the cpu' "$WORK/log" || true
falls_back "$lines" --device auto --tensor-parallel-size 2
falls_back 0 --device cpu
# No library of NVIDIA's is asked for by the dynamic linker.
if command -v readelf >/dev/null && readelf -d "$MORTISE" | grep NEEDED | grep -E 'cuda|cublas|curand|nvrtc|nccl'; then
    fail "a library that only devices need is linked"
fi
echo "bytes: $(stat -c %s "$MORTISE"), gzipped $(gzip -c "$MORTISE" | wc -c)"
echo "PASSED"

#!/usr/bin/env bash
# All checks and measurements on a device, from what pack.sh packed: no toolchain, no network.
#
#   OUT=results benches/cuda/run.sh [SECONDS]
#
# Each part has its log in $OUT; $OUT/summary.txt has a line per part and is printed at the end. Parts that
# would begin behind SECONDS (570 if not named) are left out, and one that runs then is ended: the summary
# says so. Status 0 if all parts passed, 2 where there is no device.
set -uo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
OUT=${OUT:-$root/results}
seconds_max=${1:-570}
bin=$root/bin
mkdir -p "$OUT"
: >"$OUT/summary.txt"
failed=0

[ -x "$bin/mortise" ] || { echo "nothing is packed here: see pack.sh" >&2; exit 1; }
if ! nvidia-smi >"$OUT/device.txt" 2>&1 && [ ! -e /dev/nvidiactl ]; then
    echo "no device on this machine" | tee -a "$OUT/summary.txt"
    exit 2
fi

# The libraries that the binary loads: a toolkit's, or those that Python packages brought.
for folder in /usr/local/cuda/lib64 /usr/local/cuda/targets/x86_64-linux/lib \
    $(python3 -c 'import sys; print("\n".join(path + "/nvidia" for path in sys.path if path))' |
        while read -r base; do ls -d "$base"/cu13/lib "$base"/*/lib 2>/dev/null; done); do
    [ -d "$folder" ] && LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder
done
export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-} MORTISE_TEST_CUDA=1

# part NAME SECONDS COMMAND...: runs it for so long at most.
part() {
    local name=$1 most=$2 left status=0 began=$SECONDS
    shift 2
    left=$((seconds_max - SECONDS))
    if [ "$left" -le 5 ]; then
        echo "$name: left out, no time" >>"$OUT/summary.txt"
        failed=1
        return
    fi
    timeout -k 5 "$((most < left ? most : left))" "$@" >"$OUT/$name.txt" 2>&1 || status=$?
    case $status in
        0) status=passed ;;
        124 | 137) status="ended for want of time" failed=1 ;;
        *) status="FAILED, status $status" failed=1 ;;
    esac
    echo "$name: $status, $((SECONDS - began)) s" | tee -a "$OUT/summary.txt"
}

part kernels 150 "$bin/test-kernels"
# Fixtures are found from where the crate would be.
part models 90 env CARGO_MANIFEST_DIR="$root/host/models" "$bin/test-parity" on_device --nocapture
part server 120 "$root/benches/cuda/serve.sh" "$bin/mortise"
cd "$OUT" || exit 1
part bench-tiny 60 "$bin/bench-models" tiny
part bench-kernels 60 "$bin/bench-kernels"
part bench-1b-f16 180 "$bin/bench-models" 1b f16
part bench-1b-q8_0 180 "$bin/bench-models" 1b q8_0
cat "$OUT/summary.txt"
for table in "$OUT"/bench-*.txt; do grep -H -E '^\||GB/s|in (f16|q8_0)' "$table"; done
exit "$failed"

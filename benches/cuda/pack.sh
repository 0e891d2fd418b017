#!/usr/bin/env bash
# Builds all that is to be checked on a device, and packs it for a machine that has one but no toolchain:
#
#   benches/cuda/pack.sh [ARCHIVE]          # mortise-cuda.tar.gz if not named
#   tar -xzf mortise-cuda.tar.gz && OUT=results mortise-cuda/benches/cuda/run.sh      # over there
#
# Needs what docs/cuda.md says a build needs. FEATURES=cuda leaves NCCL out.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
archive=$(realpath -m "${1:-mortise-cuda.tar.gz}")
features=${FEATURES:-nccl}
bytes_max=$((64 << 20))
cd "$root"

# built COMMAND...: paths of the executables that cargo made, one per line. Symbols are of no use over there.
built() {
    CARGO_PROFILE_RELEASE_DEBUG=0 CARGO_PROFILE_RELEASE_STRIP=symbols \
        cargo "$@" --message-format=json-render-diagnostics | python3 -c '
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable"):
        print(message["target"]["name"], message["executable"])
'
}

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
to=$stage/mortise-cuda
mkdir -p "$to/bin" "$to/host/models" "$to/tests/fixtures" "$to/benches" "$to/examples/tiny"
{
    # Of the same packages in one profile, so that the kernels of the tensor library are compiled once.
    built build --release -p server --features "$features"
    built test --release --no-run -p server -p kernels -p models --features "$features" \
        --lib --test parity --bench cuda --bench device
} | while read -r name path; do
    case $name in
        cuda) name=bench-kernels ;;
        device) name=bench-models ;;
        kernels | parity) name=test-$name ;;
        mortise) ;;
        *) continue ;;
    esac
    cp "$path" "$to/bin/$name"
done
for name in mortise test-kernels test-parity bench-kernels bench-models; do
    [ -x "$to/bin/$name" ] || { echo "cargo built no $name" >&2; exit 1; }
done
cp -r tests/cuda "$to/tests/"
cp -r tests/fixtures/models "$to/tests/fixtures/"
cp -r benches/cuda "$to/benches/"
cp -r examples/tiny/model examples/tiny/adapters examples/tiny/heldout examples/tiny/evaluate.py \
    "$to/examples/tiny/"
tar -C "$stage" -cf - mortise-cuda | gzip -9 >"$archive"
ls -l "$to/bin"
bytes=$(stat -c %s "$archive")
echo "$archive: $bytes bytes"
[ "$bytes" -le "$bytes_max" ] || { echo "more than $bytes_max bytes" >&2; exit 1; }

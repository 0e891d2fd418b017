#!/usr/bin/env bash
# Finds what the builds need beyond a Rust toolchain, and installs what is missing. Idempotent; a
# second run takes a fraction of a second.
set -euo pipefail

say() { printf 'setup: %s\n' "$*" >&2; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null; then sudo "$@"
    else say "need root or sudo to run: $*"; exit 1
    fi
}

install() {
    say "installing $*"
    export DEBIAN_FRONTEND=noninteractive
    as_root apt-get update -qq
    as_root apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

command -v cargo >/dev/null || { say "no cargo: install Rust with rustup first"; exit 1; }

missing=()
command -v cc >/dev/null || missing+=(gcc libc6-dev)
command -v c++ >/dev/null || missing+=(g++)
command -v python3 >/dev/null || missing+=(python3)
# Debian ships venv apart from python3.
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)

# A wasm target: rustup's if it is there or can be added, else Debian's own toolchain.
rustup_wasm() { [ -d "$(rustc --print sysroot)/lib/rustlib/wasm32-unknown-unknown" ]; }
debian_wasm() {
    [ -x /usr/bin/cargo ] && [ -x /usr/bin/rustc ] && command -v wasm-ld-19 >/dev/null &&
        [ -f "$(/usr/bin/rustc --print sysroot)/lib/rustlib/src/rust/library/Cargo.lock" ]
}
add_rustup_wasm() {
    command -v rustup >/dev/null && timeout 120 rustup target add wasm32-unknown-unknown >/dev/null 2>&1
}
rustup_wasm || debian_wasm || add_rustup_wasm ||
    missing+=(rustc-web cargo-web rust-web-src lld-19)

[ ${#missing[@]} = 0 ] || install "${missing[@]}"

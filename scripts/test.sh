#!/usr/bin/env bash
# Usage: scripts/test.sh [CARGO-TEST-ARGS…]
# Installs what the tests need, builds binary, image and guest, and runs every test. A test whose tool is missing fails.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/install-deps.sh all

# Guests and the image's tools are mostly waited for; the compiler works meanwhile. A test makes what is missing by itself.
log=$(mktemp) lab_log=$(mktemp)
lab() {
    images/build.sh --base-only && for variant in debian nobootloader; do
        tests/lab/guest.sh "${V2V_LAB_CACHE:-/var/cache/v2v-pod-lab}/guest-$variant" --variant "$variant" || return
    done && tests/lab/vcenter.sh build && tests/lab/apiserver.sh build
}
lab >"$lab_log" 2>&1 &
lab=$!
trap 'kill "$lab" 2>/dev/null || true; rm -f "$log" "$lab_log"' EXIT

cargo build --release --locked
cargo fmt --all --check
cargo clippy --workspace --all-targets --locked -- -D warnings
wait "$lab" || { cat "$lab_log" >&2; exit 1; }
images/build.sh

status=0
cargo test --workspace --locked --no-fail-fast "$@" 2>&1 | tee "$log" || status=$?
# cargo prints one summary a binary; this is their sum, in the form that CI looks for.
awk '/^test result:/ { passed += $4; failed += $6; skipped += $8 }
    END { printf "\ntotal: %d passed, %d failed, %d skipped\n", passed, failed, skipped }' "$log"
exit "$status"

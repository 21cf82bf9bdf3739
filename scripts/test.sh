#!/usr/bin/env bash
# Usage: scripts/test.sh [CARGO-TEST-ARGS…]
# Installs what the tests need, builds binary, image and guest, and runs every test. A test whose tool is missing fails.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/install-deps.sh all
cargo build --release --locked
images/build.sh
cargo fmt --all --check
cargo clippy --workspace --all-targets --locked -- -D warnings

log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
cargo test --workspace --locked --no-fail-fast "$@" 2>&1 | tee "$log" || status=$?
# cargo prints one summary a binary; this is their sum, in the form that CI looks for.
awk '/^test result:/ { passed += $4; failed += $6; skipped += $8 }
    END { printf "\ntotal: %d passed, %d failed, %d skipped\n", passed, failed, skipped }' "$log"
exit "$status"

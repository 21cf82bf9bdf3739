#!/usr/bin/env bash
# Usage: scripts/bench.sh    (make bench; ROUNDS=N, default 5)
# Installs and builds what is needed, then measures; run it on a machine that does nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install-deps.sh build image lab
cargo build --release --locked
images/build.sh
tests/lab/guest.sh out/bench/guest
python3 benches/overhead.py --rounds "${ROUNDS:-5}" "$PWD/out/bench/guest"

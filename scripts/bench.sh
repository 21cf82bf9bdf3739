#!/usr/bin/env bash
# Usage: scripts/bench.sh [copy] [overhead]    (make bench; both by default)
# copy      v2v-pod copy beside nbdcopy and qemu-img: table, and an SVG plot in benches/results
# overhead  v2v-pod convert beside plain virt-v2v, on the same guest, in turns
# ROUNDS=N (copy: 3, overhead: 5), SIZE=4G, ROWS='nbd-*-dense …'. Run it on a machine that does nothing else;
# the whole takes hours, most of it the peers on the fragmented image.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- copy overhead
scripts/install-deps.sh build image lab
cargo build --release --locked
for what in "$@"; do
    case $what in
    copy)
        args=(--rounds "${ROUNDS:-3}" --size "${SIZE:-4G}")
        read -ra rows <<<"${ROWS:-}"
        for row in "${rows[@]}"; do args+=(--rows "$row"); done
        python3 benches/diskcopy.py "${args[@]}"
        ;;
    overhead)
        images/build.sh
        tests/lab/guest.sh out/bench/guest
        python3 benches/overhead.py --rounds "${ROUNDS:-5}" "$PWD/out/bench/guest"
        ;;
    *) sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done

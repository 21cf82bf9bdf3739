#!/usr/bin/env bash
# Usage: scripts/bench.sh [copy] [overhead] [transports]    (make bench: the first two; make bench-transports)
# copy        v2v-pod copy beside nbdcopy and qemu-img: table, and an SVG plot in benches/results
# overhead    v2v-pod convert beside plain virt-v2v, on the same guest, in turns
# transports  the same disks over HTTPS and VDDK, with a simulated vCenter and a stand-in for VDDK. A real vCenter:
#             URL=vpx://… VM=NAME PASSWORD_FILE=FILE [VDDK_LIBDIR=DIR] [CACERT=FILE | THUMBPRINT=SHA1]
# ROUNDS=N (overhead: 5, others: 3), SIZE=4G (transports: 1G), ROWS='nbd-*-dense …', for transports RTT=0,5,20 DISKS=1,2,4
# too. Run it on a machine that does nothing else; copy and overhead take hours, most of it the peers on the fragmented image.
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
    transports)
        images/build.sh
        args=(--rounds "${ROUNDS:-3}")
        if [ -n "${URL:-}" ]; then
            args+=(--url "$URL" --vm "${VM:?the name of the VM}" --password-file "${PASSWORD_FILE:?a file with the password}")
            args+=(${DISKS:+--disks "$DISKS"} ${CACERT:+--cacert "$CACERT"} ${THUMBPRINT:+--thumbprint "$THUMBPRINT"})
            # Without a VDDK only HTTPS can be measured there.
            [ -n "${VDDK_LIBDIR:-}" ] || args+=(--transports https)
        else
            args+=(--size "${SIZE:-1G}" --rtt "${RTT:-0,5,20}" --disks "${DISKS:-1,2,4}")
        fi
        read -ra rows <<<"${ROWS:-}"
        for row in "${rows[@]}"; do args+=(--rows "$row"); done
        python3 benches/transports.py "${args[@]}"
        ;;
    overhead)
        images/build.sh
        tests/lab/guest.sh out/bench/guest
        python3 benches/overhead.py --rounds "${ROUNDS:-5}" "$PWD/out/bench/guest"
        ;;
    *) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done

#!/usr/bin/env bash
# Usage: tests/lab/boot.sh DISK [--timeout SECONDS] [--log FILE] [--uefi] [--data DISK2]
# Boots a raw image or block device in QEMU on virtio, as KubeVirt would, without writing to it, and waits for a login
# prompt on the serial console. Exit status 0 and the time it took, or 1 and the end of the serial log.
set -euo pipefail

usage() { sed -n '2,4s/^# \{0,1\}//p' "$0" >&2; exit 2; }
disk='' timeout=300 log='' firmware=() extra=()
while [ $# -gt 0 ]; do
    case $1 in
    --timeout) timeout=${2:?}; shift 2 ;;
    --log) log=${2:?}; shift 2 ;;
    --data) extra+=(-drive "file=${2:?},format=raw,if=virtio,snapshot=on"); shift 2 ;;
    --uefi) firmware=(-machine q35 -bios /usr/share/ovmf/OVMF.fd); shift ;;
    -*) usage ;;
    *) disk=$1; shift ;;
    esac
done
[ -e "$disk" ] || usage

tmp=$(mktemp -d)
pid=''
# shellcheck disable=SC2317  # called by the trap
cleanup() {
    [ -z "$pid" ] || kill -KILL "$pid" 2>/dev/null || true
    rm -rf "$tmp"
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP
log=${log:-$tmp/serial.log}
: >"$log"

# /dev/kvm that exists may not work. On a host without vmx or svm it can run the firmware and then hang (seen), so ask for
# the CPU's flag as well as for one instruction really run: out 0xf4, 0 makes QEMU exit with status 1.
accel=tcg
if [ -w /dev/kvm ] && grep -qwE 'vmx|svm' /proc/cpuinfo; then
    printf '\xb0\x00\xe6\xf4\xf4' >"$tmp/probe"
    truncate -s 510 "$tmp/probe"
    printf '\x55\xaa' >>"$tmp/probe"
    timeout 20 qemu-system-x86_64 -accel kvm -nodefaults -display none -device isa-debug-exit,iobase=0xf4,iosize=1 \
        -drive "file=$tmp/probe,format=raw,if=ide,snapshot=on" >/dev/null 2>&1 || { [ $? -eq 1 ] && accel=kvm; }
fi

begin=$(date +%s.%N)
TMPDIR=${TMPDIR:-/var/tmp} qemu-system-x86_64 -accel "$accel" -m 768 -nodefaults -display none -no-reboot \
    "${firmware[@]}" -serial "file:$log" \
    -drive "file=$disk,format=raw,if=virtio,snapshot=on" "${extra[@]}" 2>"$tmp/qemu.err" &
pid=$!
deadline=$((SECONDS + timeout))
while [ $SECONDS -lt $deadline ]; do
    if grep -aq 'login: *$' "$log"; then
        awk -v a="$begin" -v b="$(date +%s.%N)" -v k="$accel" 'BEGIN { printf "login prompt after %.1f s (%s)\n", b - a, k }'
        exit 0
    fi
    kill -0 "$pid" 2>/dev/null && ! grep -aq 'Kernel panic' "$log" || break
    sleep 0.2
done
echo "no login prompt on $disk within ${timeout} s ($accel); end of the serial log:" >&2
tail -c 3000 "$log" >&2
cat "$tmp/qemu.err" >&2
exit 1

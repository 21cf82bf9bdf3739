#!/usr/bin/env bash
# Usage: tests/lab/vddk-stub.sh [--library FILE] [TEST...]
# Proves the VDDK stand-in with the image's own nbdkit and its vddk plugin, in containers without rights. One line per test:
# ok, or FAIL with the end of its output. Exit status 1 when any failed. TEST is a name such as sparse.
#   --library FILE  the stand-in; without it, this tree's is built
#   V2V_IMAGE       the image (default localhost/v2v-pod:latest)
# Commands in single quotes are the containers'.
# shellcheck disable=SC2016
set -euo pipefail
lab=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/lab/podman.sh
. "$lab/podman.sh"

usage() { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
library='' only=()
while [ $# -gt 0 ]; do
    case $1 in
    --library) library=${2:?}; shift 2 ;;
    -*) usage ;;
    *) only+=("$1"); shift ;;
    esac
done
if [ -z "$library" ]; then
    (cd "$lab/../.." && cargo build -q --locked -p vddk-stub)
    library=${CARGO_TARGET_DIR:-$lab/../../target}/debug/libvixDiskLib.so
fi
[ -f "$library" ] || { echo "vddk-stub: no $library" >&2; exit 2; }

tmp=$(mktemp -d "${TMPDIR:-/var/tmp}/vddk-stub.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM HUP

# A distribution as VMware's tarball unpacks, a datastore, and what every container reads first.
mkdir -p "$tmp/vddk/lib64" "$tmp/ds/vm" "$tmp/secret"
cp "$library" "$tmp/vddk/lib64/libvixDiskLib.so.8.0.0"
ln -s libvixDiskLib.so.8.0.0 "$tmp/vddk/lib64/libvixDiskLib.so.8"
ln -s libvixDiskLib.so.8 "$tmp/vddk/lib64/libvixDiskLib.so"
v2v_work_volume "$tmp/work"
password=Pa55-w0rd-of-the-lab
echo "$password" >"$tmp/secret/right"
echo "$password-not" >"$tmp/secret/wrong"
echo descriptor | tee "$tmp/ds/vm/a.vmdk" >"$tmp/ds/vm/odd.vmdk"
# a: holes, data, holes. odd: its last chunk is not whole and holds data. dense: no hole.
truncate -s 64M "$tmp/ds/vm/a-flat.vmdk"
dd if=/dev/urandom of="$tmp/ds/vm/a-flat.vmdk" bs=1M count=20 seek=8 conv=notrunc status=none
truncate -s $((10 * 1024 * 1024 + 100 * 512)) "$tmp/ds/vm/odd-flat.vmdk"
dd if=/dev/urandom of="$tmp/ds/vm/odd-flat.vmdk" bs=512 count=3 seek=$((20480 + 97)) conv=notrunc status=none
dd if=/dev/urandom of="$tmp/ds/vm/dense.vmdk" bs=1M count=8 status=none
chmod -R a+rX "$tmp/vddk" "$tmp/ds" "$tmp/secret"
chmod a+rx "$tmp"
cat >"$tmp/inside.sh" <<'END'
moref=vm-1 password=right thumbprint=aa:bb:cc extra=() disk='[ds] vm/a.vmdk'
# nbdkit with the vddk plugin: plugin OPTIONS…, where a filter's name and parameters or -v and the like may come.
plugin() {
    nbdkit -U - "${options[@]}" vddk libdir=/vddk server=vc user=root "password=+/secret/$password" \
        "thumbprint=$thumbprint" "vm=moref=$moref" transports=file:nbdssl:nbd "${extra[@]}" "$@"
}
options=(-r)
filter=()
# client COMMAND…: with the disk's URI as its last argument.
client() { plugin "$disk" "${filter[@]}" --run "$* \"\$uri\""; }
# copy FILE [NBDCOPY-OPTIONS…]: what is copied is the same as FILE.
copy() {
    local file=$1 out
    shift
    out=$(mktemp /var/tmp/out.XXXXXX)
    plugin "$disk" "${filter[@]}" --run "nbdcopy $* \"\$uri\" $out" && cmp "$out" "$file"
}
END

# settings JSON: beside the library, as everything but the datastore and the login of the lab.
settings() {
    local login='"datastores": {"ds": "/ds"}, "server": "vc", "user": "root", "password_file": "/secret/right",
        "thumbprint": "AA:BB:CC", "moref": "vm-1"'
    echo "{$login${1:+, $1}}" >"$tmp/vddk/stub.json"
    chmod a+r "$tmp/vddk/stub.json"
}
# pod COMMANDS: in a container, for at most $limit seconds; output in $tmp/log. Nothing outlives the container.
pod() {
    v2v_podman_run --entrypoint timeout -v "$tmp/vddk:/vddk:ro" -v "$tmp/ds:/ds:${ds_mode:-ro}" -v "$tmp/secret:/secret:ro" \
        -v "$tmp/work:/var/tmp" -v "$tmp/inside.sh:/inside.sh:ro" -- \
        -k 1 "${limit:-60}" bash -c "set -u; . /inside.sh; $1" >"$tmp/log" 2>&1
}
# pod_fails COMMANDS: they end with an error of their own: neither podman's nor the time limit's.
pod_fails() {
    local status=0
    pod "$1" || status=$?
    case $status in 0 | 124 | 125 | 137) echo "status $status" >>"$tmp/log"; return 1 ;; esac
}
pod_hangs() {
    local status=0
    limit=5 pod "$1" || status=$?
    case $status in 124 | 137) ;; *) echo "status $status" >>"$tmp/log"; return 1 ;; esac
}
logged() { grep -qF -e "$1" "$tmp/log" || { echo "not in the output: $1" >>"$tmp/log"; return 1; }; }

test_dump_plugin() {
    settings
    pod 'nbdkit vddk libdir=/vddk --dump-plugin' || return
    logged vddk_library_version=8 && logged vddk_dll=/vddk/lib64/libvixDiskLib.so.8.0.0 &&
        logged vddk_transport_modes=file:nbdssl:nbd && [ "$(grep -c '^VixDiskLib_.*=1$' "$tmp/log")" -eq 23 ]
}
test_sparse() {
    settings
    pod 'client nbdinfo --map && copy /ds/vm/a-flat.vmdk' || return
    [ "$(awk '{ print $1, $2, $4 }' "$tmp/log" | paste -sd' ')" = \
        '0 8388608 hole,zero 8388608 20971520 data 29360128 37748736 hole,zero' ]
}
test_all_allocated() {
    settings '"sparse": false'
    pod 'client nbdinfo --map && copy /ds/vm/a-flat.vmdk' || return
    [ "$(awk '{ print $1, $2, $4 }' "$tmp/log")" = '0 67108864 data' ]
}
test_dense() {
    settings '"async": "inline"'
    pod 'disk="[ds] vm/dense.vmdk"; copy /ds/vm/dense.vmdk'
}
test_odd_tail() {
    settings
    pod 'disk="[ds] vm/odd.vmdk"; client nbdinfo --map && copy /ds/vm/odd-flat.vmdk' || return
    [ "$(awk 'END { print $1, $2, $4 }' "$tmp/log")" = '10485760 51200 data' ]
}
test_two_at_once() {
    settings
    pod '(disk="[ds] vm/dense.vmdk"; copy /ds/vm/dense.vmdk) & copy /ds/vm/a-flat.vmdk && wait $!'
}
# nbdkit goes to the background before it starts the library; the other way round would leave the library without threads.
test_daemon() {
    settings
    pod 'options=(-r -U /var/tmp/socket -P /var/tmp/pid); plugin "$disk" &&
        nbdcopy "nbd+unix:///?socket=/var/tmp/socket" /var/tmp/out && cmp /var/tmp/out /ds/vm/a-flat.vmdk &&
        kill "$(cat /var/tmp/pid)"'
}
test_write() {
    settings
    cp "$tmp/ds/vm/dense.vmdk" "$tmp/work/source"
    mkdir -p "$tmp/ds/w" && truncate -s 8M "$tmp/ds/w/w.vmdk" && chown -R 107:107 "$tmp/ds/w" || return
    ds_mode=rw pod 'options=(); disk="[ds] w/w.vmdk"; client nbdcopy --flush /var/tmp/source' &&
        cmp "$tmp/work/source" "$tmp/ds/w/w.vmdk"
}
test_thumbprint() {
    settings
    pod_fails 'thumbprint=11:22:33 options=(-r -v); client nbdinfo' &&
        logged 'VixDiskLibVim: Failed to verify SSL certificate: actual thumbprint=AA:BB:CC expected=11:22:33' &&
        logged 'Cannot open disk [ds] vm/a.vmdk. Error 1 (Unknown error) at 7504.' &&
        logged 'error: VixDiskLib_Open: [ds] vm/a.vmdk: Unknown error'
}
test_password() {
    settings
    pod_fails 'password=wrong options=(-r -v); client nbdinfo' &&
        logged 'VixDiskLib_Open: [ds] vm/a.vmdk: Insufficient permissions in the host operating system' || return
    ! grep -qF -e "$password" "$tmp/log" || { echo "the password is in the output" >>"$tmp/log"; return 1; }
    settings '"login_errors": "ConnectEx"'
    pod_fails 'password=wrong; client nbdinfo' && logged 'error: VixDiskLib_ConnectEx: Insufficient permissions'
}
test_vm() {
    settings
    pod_fails 'moref=vm-2; client nbdinfo' && logged 'The virtual machine cannot be found'
}
test_no_such_disk() {
    settings
    pod_fails 'disk="[ds] vm/none.vmdk"; client nbdinfo' && logged 'A file was not found'
}
test_running_vm() {
    settings '"running_vm": true, "snapshot": "snapshot-7"'
    pod_fails 'options=(-r -v); client nbdinfo' &&
        logged 'Cannot open disk [ds] vm/a.vmdk. Error 13 (You do not have access rights to this file) at 7504.' &&
        pod 'extra=(snapshot=snapshot-7); copy /ds/vm/a-flat.vmdk' &&
        pod_fails 'extra=(snapshot=snapshot-8); client nbdinfo' && logged 'The snapshot does not exist'
}
test_nfc_memory() {
    settings '"faults": [{"function": "ReadAsync", "code": 2, "min_bytes": 2097153}]'
    pod_fails 'copy /ds/vm/a-flat.vmdk --request-size=4194304' &&
        logged 'received NFC error 5 from server: Failed to allocate the requested 4194328 bytes' &&
        logged 'Memory allocation failed. Out of memory' &&
        pod 'filter=(--filter=blocksize maxdata=2M); copy /ds/vm/a-flat.vmdk --request-size=4194304'
}
test_connection_lost() {
    settings '"faults": [{"function": "ReadAsync", "code": 14011, "after": 5, "count": 2}]'
    pod_fails 'copy /ds/vm/a-flat.vmdk' && logged 'The connection was lost' &&
        pod 'filter=(--filter=retry retry-delay=1); copy /ds/vm/a-flat.vmdk'
}
test_session_expires() {
    # 20 MiB of data take 4 s, and a session lives 1.5.
    settings '"session_expires_after_ms": 1500, "bandwidth_handle": 5242880'
    pod_fails 'copy /ds/vm/a-flat.vmdk' && logged 'The connection to the host was lost' &&
        pod 'filter=(--filter=retry retry-delay=1 retry-exponential=no); copy /ds/vm/a-flat.vmdk'
}
test_bandwidth() {
    settings '"bandwidth_total": 10485760'
    local begin=$EPOCHREALTIME
    pod 'copy /ds/vm/a-flat.vmdk' || return
    awk -v a="$begin" -v b="$EPOCHREALTIME" 'BEGIN { t = b - a; print t, "s"; exit !(t > 1.9 && t < 10) }' >>"$tmp/log"
}
test_refused() {
    settings '"faults": [{"function": "Open", "code": 14009}]'
    pod_fails 'client nbdinfo' && logged '[NFC ERROR]NfcNewAuthdConnectionEx: Failed to connect' &&
        logged 'error: VixDiskLib_Open: [ds] vm/a.vmdk: The server refused connection'
}
test_licence() {
    settings '"faults": [{"function": "Open", "code": 16064}]'
    pod_fails 'client nbdinfo' && logged 'The host is not licensed for this feature'
}
test_extents_fail() {
    # nbdkit tries a query on every open, and does without extents when that fails. nbdinfo opens twice.
    settings '"faults": [{"function": "QueryAllocatedBlocks", "code": 3, "after": 2}]'
    pod_fails 'client nbdinfo --map' &&
        logged 'VixDiskLib_QueryAllocatedBlocks: One of the parameters was invalid' || return
    settings '"faults": [{"function": "QueryAllocatedBlocks", "code": 6}]'
    pod 'copy /ds/vm/a-flat.vmdk'
}
# Without --run: nbdkit would wait for a client that waits for nbdkit. nbdkit has no other end than the signal then.
test_crash() {
    settings '"crash": "InitEx"'
    local status=0
    pod 'plugin "$disk" -f' || status=$?
    [ $status -eq 139 ] || { echo "status $status" >>"$tmp/log"; return 1; }
    settings '"crash": "ReadAsync"'
    pod_fails 'copy /ds/vm/a-flat.vmdk' && logged 'killed by signal 11'
}
test_hang() {
    settings '"hang": "InitEx"'
    pod_hangs 'plugin "$disk" -f' || return
    settings '"hang": "ReadAsync"'
    pod 'client nbdinfo --size' && pod_hangs 'copy /ds/vm/a-flat.vmdk'
}
test_settings_by_variable() {
    settings
    mv "$tmp/vddk/stub.json" "$tmp/work/other.json"
    pod 'VDDK_STUB_CONFIG=/var/tmp/other.json copy /ds/vm/a-flat.vmdk'
}
test_no_settings() {
    rm -f "$tmp/vddk/stub.json"
    pod_fails 'plugin "$disk" -f' && logged 'no settings: VDDK_STUB_CONFIG is not set'
}

tests=()
while read -r name; do
    if [ ${#only[@]} -eq 0 ] || printf '%s\n' "${only[@]}" | grep -qxF -e "$name"; then tests+=("$name"); fi
done < <(declare -F | sed -n 's/^declare -f test_//p')
[ ${#tests[@]} -gt 0 ] || usage
failed=0
for name in "${tests[@]}"; do
    : >"$tmp/log"
    rm -f "$tmp/work/"*
    if "test_$name"; then
        echo "ok $name"
    else
        echo "FAIL $name"
        tail -15 "$tmp/log" | sed 's/^/    /'
        failed=$((failed + 1))
    fi
done
echo "vddk-stub: $((${#tests[@]} - failed)) passed, $failed failed"
[ $failed -eq 0 ]

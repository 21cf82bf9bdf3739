#!/usr/bin/env bash
# Usage: scripts/demo.sh            (make demo)
#        IMAGE=guest.qcow2 [OUT=dir] scripts/demo.sh
# Installs what it needs, builds the binary and the conversion image, makes a small Debian guest and converts it in the
# unprivileged container: its boot disk onto a block device, its data disk onto a filesystem volume. Then boots the result.
# With IMAGE it converts that image into OUT instead (FORMAT=raw|qcow2|vmdk|vhdx|vpc when the name does not tell).
set -euo pipefail
cd "$(dirname "$0")/.."
export OUT=${OUT:-$PWD/out/demo}

times=()
step() {
    local name=$1 begin=$SECONDS
    shift
    printf '\n==> %s\n' "$name"
    "$@"
    times+=("$(printf '%-34s %4d s' "$name" $((SECONDS - begin)))")
}
summary() {
    printf '\nTime of each step:\n'
    printf '  %s\n' "${times[@]}"
}

step "installing what is missing" scripts/install-deps.sh build image lab
step "building v2v-pod" cargo build --release --locked
step "building the conversion image" images/build.sh
# shellcheck source=tests/lab/podman.sh
. tests/lab/podman.sh

# A bar needs a terminal; without one there are plain lines.
terminal=(-e TERM) format=plain
if [ -t 1 ]; then terminal+=(-t) format=human; fi
if [ -c /dev/kvm ]; then export V2V_KVM=1; fi # v2v-pod finds out whether it works

convert() { v2v_podman_run "${terminal[@]}" "$@"; }

own_image() {
    local source dir name
    source=$(readlink -f "$IMAGE")
    [ -f "$source" ] || { echo "IMAGE=$IMAGE is not a file" >&2; exit 1; }
    mkdir -p "$OUT"
    dir=$(dirname "$source")
    name=$(basename "$source")
    # As the owner of OUT, so that the result is theirs.
    step "converting $name" convert --user "$(stat -c %u:%g "$OUT")" \
        -v "$work:/var/tmp" -v "$dir:/source:ro" -v "$OUT:/out" -- \
        convert -i disk "/source/$name" ${FORMAT:+--format "$FORMAT"} --to /out --log-format "$format"
    summary
    printf '\nThe converted guest is in %s\n' "$OUT"
}

demo_guest() {
    local guest=$OUT/guest
    mkdir -p "$OUT"
    step "making a Debian guest" tests/lab/guest.sh "$guest"
    rm -rf "$OUT/block0.img" "$OUT/disk1"
    v2v_work_volume "$OUT/disk1"
    loop=$(v2v_loop_attach "$OUT/block0.img" 2G)
    step "converting it in the container" convert -v "$work:/var/tmp" -v "$guest:/source:ro" \
        -v "$OUT/disk1:/mnt/disks/disk1" --device "$loop:/dev/block0" -- \
        convert -i disk /source/boot.img /source/data.img --name demo --to /dev/block0 /mnt/disks/disk1 \
        --log-format "$format"
    step "booting the converted disk" tests/lab/boot.sh "$loop"
    step "checking the data disk" check_data "$guest/data.sha256" "$OUT/disk1/disk.img"
    summary
    printf '\nThe converted guest:\n  boot disk  %s (was /dev/block0 in the container)\n  data disk  %s\n  VM         %s\n' \
        "$OUT/block0.img" "$OUT/disk1/disk.img" "$OUT/disk1/demo.yaml"
}

check_data() {
    local want got
    want=$(cut -d' ' -f1 "$1")
    got=$(sha256sum <"$2" | cut -d' ' -f1)
    [ "$want" = "$got" ] || { echo "the data disk differs: $got instead of $want" >&2; exit 1; }
    echo "sha256 $got: identical"
}

work=$(mktemp -d /var/tmp/v2v-demo.XXXXXX) loop=''
cleanup() {
    [ -z "$loop" ] || v2v_loop_detach "$loop"
    rm -rf "$work"
}
trap cleanup EXIT
v2v_work_volume "$work"
if [ -n "${IMAGE:-}" ]; then
    # The folder for temporary files belongs to whom the container runs as.
    mkdir -p "$OUT"
    chown "$(stat -c %u:%g "$OUT")" "$work"
    own_image
else
    demo_guest
fi

# shellcheck shell=bash
# Source this file: runs the conversion image as an unprivileged Kubernetes pod would. Needs root (loop devices, podman).
#   v2v_podman_run [PODMAN-ARGS…] [-- COMMAND…]   see below; -v DIR:/var/tmp gives the work volume (v2v_work_volume DIR)
#   v2v_work_volume DIR                           makes DIR a volume that uid 107 may write
#   v2v_loop_attach FILE [SIZE]                   prints /dev/loopN over FILE (made sparse when absent), open to uid 107
#   v2v_loop_detach /dev/loopN…
#   V2V_IMAGE  default localhost/v2v-pod:latest
#   V2V_NETWORK  podman's --network, default host
#   V2V_KVM=1  passes /dev/kvm on, as a device plugin would

V2V_IMAGE=${V2V_IMAGE:-localhost/v2v-pod:latest}

# podman run with what a restricted pod gets: uid and gid 107, no capability, no new privileges, the engine's default
# seccomp profile, a read-only root, a small tmpfs on /tmp and no other. Arguments before `--` go to podman, those after it
# to the container's entrypoint.
v2v_podman_run() {
    local options=() command=()
    while [ $# -gt 0 ]; do
        if [ "$1" = -- ]; then shift; command=("$@"); break; fi
        options+=("$1")
        shift
    done
    # runc: crun refuses hybrid cgroups. Host network: the container network needs nftables, which CI machines may lack.
    # The limits: podman asks for more than the hard limits of a container host allow, and fails.
    # shellcheck disable=SC2054  # the comma is podman's
    local fixed=(
        --rm --runtime runc --network "${V2V_NETWORK:-host}" --pull never
        --ulimit nofile=1024:1024 --ulimit nproc=4096:4096
        --user 107:107 --cap-drop ALL --security-opt no-new-privileges
        --read-only --read-only-tmpfs=false --tmpfs /tmp:rw,size=64m,mode=1777
    )
    if [ "${V2V_KVM:-}" = 1 ]; then
        # A device plugin's node is 0666 in the container; podman copies the host node's mode.
        chmod 0666 /dev/kvm
        fixed+=(--device /dev/kvm)
    fi
    podman run "${fixed[@]}" "${options[@]}" "$V2V_IMAGE" "${command[@]}"
}

v2v_work_volume() {
    mkdir -p "$1"
    chown 107:107 "$1"
    chmod 0770 "$1" # fsGroup
}

# The node's owner is what containerd does with device_ownership_from_security_context; podman copies it from the host.
v2v_loop_attach() {
    local file=$1 size=${2:-} device
    [ -e "$file" ] || truncate -s "${size:?size of the new file $file}" "$file"
    device=$(losetup --find --show "$file")
    chown 107:107 "$device"
    chmod 0660 "$device"
    echo "$device"
}

v2v_loop_detach() {
    local device
    for device in "$@"; do
        losetup -d "$device" || true
        # devtmpfs keeps the node: give it back, or the next user of this number inherits the owner.
        chown root:root "$device"
        chmod 0600 "$device"
    done
}

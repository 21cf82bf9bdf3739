#!/usr/bin/env bash
# Usage: scripts/install-deps.sh [build] [image] [lab] [all]
# Installs with apt what building (build), making and running the image (image), and the end-to-end tests and the demo (lab)
# need, on Debian 12 or 13, as root. Asks apt only when something is missing, so it may run before every build.
set -euo pipefail

usage() { sed -n '2,4s/^# \{0,1\}//p' "$0" >&2; exit 2; }
say() { printf 'install-deps: %s\n' "$*"; }
die() { printf 'install-deps: %s\n' "$*" >&2; exit 1; }

minimum_rust=1.89 # rust-version in Cargo.toml
minimum_go=1.19 # in tests/lab/vcenter/go.mod; tests/lab/apiserver.sh fetches a newer one when it has to

# libssl: TLS of the NBD client.
build_packages=(gcc libc6-dev libssl-dev make pkg-config git ca-certificates)
# runc: crun refuses the hybrid cgroups of some hosts.
image_packages=(buildah podman runc debootstrap ca-certificates)
# openssh-server, libvirt-daemon: the lab's Xen host (tests/lab/xen-host.sh). strace: faults put into system calls; fdisk, mtools, dosfstools and ovmf: guests made without loop devices; chromium: the live page is tested in a browser;
# nginx: OVAs on a web server.
lab_packages=(qemu-system-x86 qemu-utils nbdkit libnbd-bin debootstrap e2fsprogs fdisk dosfstools mtools ovmf util-linux
    openssl gnutls-bin strace bsdextrautils xfsprogs nbd-server openssh-client openssh-server libvirt-daemon libvirt-clients xxd curl jq python3 libxml2-utils chromium fonts-dejavu-core iproute2 nginx xz-utils)

# shellcheck source=/dev/null
. /etc/os-release
case ${ID:-}:${VERSION_ID:-} in
# Debian's own rustc is too old; the one it builds its browsers with is kept current.
debian:12 | debian:13) rust_packages=(rustc-web cargo-web) clippy=rust-web-clippy rustfmt=rustfmt-web ;;
*) die "this is ${PRETTY_NAME:-an unknown system}; only Debian 12 and 13 are known" ;;
esac

# A toolchain that is there and new enough is used as it is (rustup's cannot live beside Debian's).
add_rust() {
    local version
    version=$(cargo --version 2>/dev/null | awk '{ print $2 }') || true
    if [ -n "$version" ] && dpkg --compare-versions "$version" ge "$minimum_rust"; then
        say "build: cargo $version is on the PATH"
        # A foreign toolchain without clippy or rustfmt still builds; Debian's packages would conflict with it.
        if ! dpkg-query -S "$(readlink -f "$(command -v cargo)")" >/dev/null 2>&1; then
            cargo clippy --version >/dev/null 2>&1 || say "build: this cargo has no clippy (rustup component add clippy)"
            cargo fmt --version >/dev/null 2>&1 || say "build: this cargo has no rustfmt (rustup component add rustfmt)"
            return
        fi
    else
        wanted+=("${rust_packages[@]}")
    fi
    wanted+=("$clippy" "$rustfmt")
}

# For the simulated vCenter and the API server (tests/lab/vcenter.sh, tests/lab/apiserver.sh). Debian 12's Go is new enough; one
# that is there already is used.
add_go() {
    local version
    version=$(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null) || true
    if [ -n "$version" ] && dpkg --compare-versions "${version#go}" ge "$minimum_go"; then
        say "lab: $version is on the PATH"
    else
        wanted+=(golang-go)
    fi
}

[ $# -gt 0 ] || usage
wanted=()
for group in "$@"; do
    case $group in
    build) wanted+=("${build_packages[@]}"); add_rust ;;
    image) wanted+=("${image_packages[@]}") ;;
    lab) wanted+=("${lab_packages[@]}"); add_go ;;
    all) wanted+=("${build_packages[@]}" "${image_packages[@]}" "${lab_packages[@]}"); add_rust; add_go ;;
    *) usage ;;
    esac
done

missing=()
for package in $(printf '%s\n' "${wanted[@]}" | sort -u); do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
    say "$*: all there"
    exit 0
fi

[ "$(id -u)" = 0 ] || die "must be root to install: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
say "$*: missing ${missing[*]}"
say "reading the package lists"
apt-get update -qq || die "apt-get update failed: is the package mirror reachable?"
# Name what the mirror does not have, all of it, before anything is installed.
unknown=()
for package in "${missing[@]}"; do
    candidate=$(apt-cache policy "$package" | awk '/Candidate:/ { print $2 }')
    if [ -z "$candidate" ] || [ "$candidate" = '(none)' ]; then unknown+=("$package"); fi
done
[ ${#unknown[@]} -eq 0 ] || die "apt does not know: ${unknown[*]} (Debian ${VERSION_ID}, component main, with updates and security)"
say "installing ${#missing[@]} packages"
log=$(mktemp)
# A machine that is to build and test does not become a server by it: no package starts its services, now or at its next start.
policy=/usr/sbin/policy-rc.d mark='# made by install-deps.sh of v2v-pod' made=''
# One of ours that an interrupted run has left is no administrator's.
if [ ! -e "$policy" ] || grep -qxF "$mark" "$policy"; then
    made=$policy
    printf '#!/bin/sh\n%s\nexit 101\n' "$mark" >"$policy"
    chmod 755 "$policy"
fi
# What was enabled before, the administrator wants.
services=(ssh.service ssh.socket nginx.service nbd-server.service libvirtd.service libvirtd.socket libvirtd-ro.socket
    libvirtd-admin.socket virtlogd.socket virtlockd.socket libvirt-guests.service
    podman.service podman.socket podman-restart.service podman-auto-update.service podman-auto-update.timer)
enabled() {
    local service
    command -v systemctl >/dev/null || return 0
    for service in "${services[@]}"; do
        if systemctl is-enabled --quiet "$service" 2>/dev/null; then echo "$service"; fi
    done
}
before=$(enabled)
finish() {
    local service
    for service in $(enabled | grep -vxF "${before:-none}"); do
        systemctl disable --quiet "$service" || say "$service stays enabled: systemctl disable $service"
    done
    rm -f "$log" ${made:+"$made"}
}
trap finish EXIT
apt-get install -qq -y --no-install-recommends "${missing[@]}" >"$log" 2>&1 || {
    tail -20 "$log" >&2
    die "apt-get install failed (above) for: ${missing[*]}"
}
say "$*: done"

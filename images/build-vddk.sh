#!/usr/bin/env bash
# Usage: images/build-vddk.sh VDDK
# Builds the sidecar image localhost/v2v-pod-vddk:latest from your own VDDK: VMware's archive
# (VMware-vix-disklib-8.0.3-….x86_64.tar.gz) or the folder that it unpacks to. VDDK is proprietary: do not publish the image.
#   IMAGE    the name of the result (default localhost/v2v-pod-vddk:latest)
#   PROGRAM  a statically linked vddk-sidecar (default: built here)
set -euo pipefail

usage() { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
say() { printf 'build-vddk: %s\n' "$*" >&2; }
[ $# = 1 ] && [ "${1#-}" = "$1" ] || usage
vddk=$1
here=$(cd "$(dirname "$0")" && pwd)
IMAGE=${IMAGE:-localhost/v2v-pod-vddk:latest}
name=vmware-vix-disklib-distrib
target=x86_64-unknown-linux-gnu
command -v buildah >/dev/null || { say "buildah is missing: scripts/install-deps.sh image"; exit 1; }

context=$(mktemp -d "${TMPDIR:-/var/tmp}/build-vddk.XXXXXX")
trap 'rm -rf "$context"' EXIT
if [ -d "$vddk" ]; then
    mkdir "$context/$name"
    cp -a "$vddk/." "$context/$name/"
elif [ -f "$vddk" ]; then
    say "unpacking $vddk"
    tar -C "$context" --no-same-owner -xf "$vddk" || { say "$vddk is no tar archive"; exit 1; }
    [ -d "$context/$name" ] || { say "$vddk holds no folder $name: is this VMware's archive of VDDK for Linux?"; exit 1; }
else
    say "$vddk: no such file or folder"
    exit 1
fi

# The sidecar reads it as another user.
chmod -R u+w,a+rX "$context/$name"

if [ -n "${PROGRAM:-}" ]; then
    cp "$PROGRAM" "$context/vddk-sidecar"
else
    say "building vddk-sidecar"
    RUSTFLAGS='-C target-feature=+crt-static' cargo build --quiet --release --locked --manifest-path "$here/../Cargo.toml" \
        --target "$target" --package vddk-sidecar --bin vddk-sidecar
    cp "$here/../target/$target/release/vddk-sidecar" "$context/"
fi
# What is wrong with the tree is better known now than in the pod. The sidecar repairs lost links when it installs, so an
# installation is what has to work.
mkdir "$context/opt"
"$context/vddk-sidecar" install --from "$context/$name" --to "$context/opt" >&2
rm -rf "$context/opt"
buildah bud --quiet --isolation chroot --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 --pull-never --format oci \
    --file "$here/Containerfile.vddk" --tag "$IMAGE" "$context" >/dev/null
say "built $IMAGE"

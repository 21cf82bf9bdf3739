#!/usr/bin/env bash
# Usage: images/build-controller.sh
# Builds the controller's image localhost/v2v-controller-lite:latest with buildah; asks no registry.
#   BINARY  the program (default target/release/controller-lite)
#   IMAGE   the name of the result (default localhost/v2v-controller-lite:latest)
set -euo pipefail

usage() { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2; }
say() { printf 'build-controller: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }
[ $# = 0 ] || usage
here=$(cd "$(dirname "$0")" && pwd)
BINARY=${BINARY:-$here/../target/release/controller-lite}
IMAGE=${IMAGE:-localhost/v2v-controller-lite:latest}
bundle=/etc/ssl/certs/ca-certificates.crt
command -v buildah >/dev/null || die "buildah is missing: scripts/install-deps.sh image"
[ -x "$BINARY" ] || die "$BINARY is missing: build it first (cargo build --release)"
[ -s "$bundle" ] || die "$bundle is missing: scripts/install-deps.sh image"

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
root=$context/root
mkdir -p "$root/usr/bin" "$root/etc/ssl/certs"
cp "$BINARY" "$root/usr/bin/controller-lite"
cp -L "$bundle" "$root/$bundle"
# The loader and the libraries, where the program looks for them. glibc asks for names itself, without modules of nsswitch.
libraries=$(ldd "$BINARY") || die "$BINARY: ldd cannot say which libraries it needs"
! grep 'not found' <<<"$libraries" >&2 || die "$BINARY: a library is missing on this machine (above)"
while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
done < <(grep -o '/[^ ]*' <<<"$libraries")
chmod -R a+rX "$root"
buildah bud --quiet --isolation chroot --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 --pull-never --format oci \
    --file "$here/Containerfile.controller" --tag "$IMAGE" "$context" >/dev/null
say "built $IMAGE"

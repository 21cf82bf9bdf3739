#!/usr/bin/env bash
# Usage: images/build.sh [--base-only | --print-base]
# Builds localhost/v2v-pod:latest with buildah, as root, on Debian 12 or 13; works without a container registry.
#   BASE_IMAGE  the Debian 13 image to start from (default debian:trixie-slim; "none" = do not ask a registry)
#   BINARY      the entrypoint's binary (default target/release/v2v-pod); vddk-sidecar is taken from beside it
#   IMAGE       the name of the result (default localhost/v2v-pod:latest)
#   BUILD_LOG   a file for the output of debootstrap and apt (default standard error)
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
IMAGE=${IMAGE:-localhost/v2v-pod:latest}
BASE_IMAGE=${BASE_IMAGE:-debian:trixie-slim}
BINARY=${BINARY:-$here/../target/release/v2v-pod}
BOOTSTRAPPED=localhost/v2v-pod-debian:trixie
# Cached under the recipe's hash: the same recipe is never built twice, a changed one is never mistaken for the old.
hash=$(cat "$here/Containerfile.base" "$here/install-tools.sh" | sha256sum | cut -c1-12)
BASE=localhost/v2v-pod-base:$hash

# Where the tools' own output goes. Not /dev/stderr by name: opening that truncates a log file.
if [ -n "${BUILD_LOG:-}" ]; then exec 3>"$BUILD_LOG"; else exec 3>&2; fi
# Debian 13's buildah asks for a million files, which a root without CAP_SYS_RESOURCE is refused.
limits=(--ulimit nofile=1024:1024 --ulimit nproc=4096:4096)
say() { printf '[%4ds] %s\n' "$SECONDS" "$*" >&2; }
have() { buildah images --quiet "$1" >/dev/null 2>&1; }

# The machine's own mirror and keyring: what apt on this host trusts and reaches is what debootstrap can use.
# shellcheck disable=SC2016  # apt's own placeholders
debian_mirror() {
    apt-get indextargets --format '$(SITE) $(ORIGIN) $(LABEL)' 2>/dev/null |
        awk '$2 == "Debian" && $3 == "Debian" { print $1; exit }'
}
# shellcheck disable=SC2016
security_mirror() {
    apt-get indextargets --format '$(SITE) $(LABEL)' 2>/dev/null | awk '$2 == "Debian-Security" { print $1; exit }'
}

bootstrap_debian() {
    local ctr root mirror security
    mirror=$(debian_mirror)
    security=$(security_mirror)
    [ -n "$mirror" ] || { say "no Debian mirror in apt's sources on this host"; exit 1; }
    ctr=$(buildah from scratch)
    # shellcheck disable=SC2064  # the name must be fixed now
    trap "buildah rm $ctr >/dev/null 2>&1 || true" EXIT
    root=$(buildah mount "$ctr")
    debootstrap --variant=minbase --include=ca-certificates \
        --keyring=/usr/share/keyrings/debian-archive-keyring.gpg trixie "$root" "$mirror" >&3 2>&1
    {
        printf 'Types: deb\nURIs: %s\nSuites: trixie trixie-updates\nComponents: main\n' "$mirror"
        printf 'Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n'
        [ -z "$security" ] ||
            printf '\nTypes: deb\nURIs: %s\nSuites: trixie-security\nComponents: main\nSigned-By: %s\n' \
                "$security" /usr/share/keyrings/debian-archive-keyring.gpg
    } >"$root/etc/apt/sources.list.d/debian.sources"
    rm -f "$root"/etc/apt/sources.list "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*_*
    buildah umount "$ctr" >/dev/null
    buildah commit --quiet "$ctr" "$BOOTSTRAPPED" >/dev/null
    buildah rm "$ctr" >/dev/null
    trap - EXIT
}

build_base() {
    local from=$BASE_IMAGE
    if [ "$from" != none ] && timeout 20 buildah pull --quiet "$from" >/dev/null 2>&1; then
        say "base: $from"
    else
        from=$BOOTSTRAPPED
        if have "$from"; then
            say "base: $from, made earlier"
        else
            say "base: no registry answers; debootstrap makes $from"
            bootstrap_debian
        fi
    fi
    say "installing the tools (minutes)"
    # chroot isolation needs no OCI runtime, no cgroups and no network set-up of the build host.
    buildah bud --isolation chroot "${limits[@]}" --pull-never --format oci --build-arg "BASE_IMAGE=$from" \
        --file "$here/Containerfile.base" --tag "$BASE" "$here" >&3 2>&1
    say "base done: $BASE"
}

case ${1:-} in
--print-base) echo "$BASE"; exit 0 ;;
--base-only | '') ;;
*) sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
command -v buildah >/dev/null || { say "buildah is missing: scripts/install-deps.sh image"; exit 1; }

if have "$BASE"; then say "base cached: $BASE"; else build_base; fi
[ "${1:-}" = --base-only ] && exit 0

[ -x "$BINARY" ] || { say "$BINARY is missing: build it first (cargo build --release)"; exit 1; }
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
cp "$BINARY" "$context/v2v-pod"
sidecar=$(dirname "$BINARY")/vddk-sidecar
[ -x "$sidecar" ] || { say "$sidecar is missing: build it first (cargo build --release)"; exit 1; }
cp "$sidecar" "$context/"
buildah bud --quiet --isolation chroot "${limits[@]}" --pull-never --format oci --build-arg "BASE_IMAGE=$BASE" \
    --file "$here/Containerfile" --tag "$IMAGE" "$context" >/dev/null
say "built $IMAGE"

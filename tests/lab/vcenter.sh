#!/usr/bin/env bash
# Usage: tests/lab/vcenter.sh build
# Builds the lab's vCenter, tests/lab/vcenter, and prints the path of the program; does nothing more when these very sources
# are built already. Needs Go 1.19 or newer on the PATH (Debian's golang-go) and, the first time, the Go module proxy.
#   V2V_LAB_CACHE  where programs are kept (default /var/cache/v2v-pod-lab)
set -euo pipefail

usage() { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2; }
say() { printf 'vcenter: %s\n' "$*" >&2; }
[ "$*" = build ] || usage

minimum_go=1.19 # in go.mod too: the library's newest version that Debian 12's Go compiles
cache=${V2V_LAB_CACHE:-/var/cache/v2v-pod-lab}
cd "$(dirname "$0")/vcenter"
key=$(find . -name "*.go" ! -name "*_test.go" -o -name "go.*" | sort | xargs sha256sum | sha256sum | cut -c1-16)
program=$cache/vclab-$key
if [ -x "$program" ]; then
    echo "$program"
    exit 0
fi

version=$(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null) || version=''
if [ -z "$version" ] || ! printf '%s\n' "go$minimum_go" "${version%% *}" | sort -CV; then
    say "Go $minimum_go is needed (found: ${version:-none}); run scripts/install-deps.sh lab"
    exit 1
fi
mkdir -p "$cache"
# One build at a time: tests run in parallel and share the cache.
exec 9>"$cache/vclab.lock"
flock 9
if [ ! -x "$program" ]; then
    say "building with $version"
    export HOME="${HOME:-/root}" # of Go's own caches
    # Without cgo no C compiler is needed, and the program runs anywhere. go.sum has the hashes of all that is fetched.
    CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS='-mod=readonly -trimpath -buildvcs=false' GOSUMDB=off nice go build -o "$program.new" . >&2
    mv "$program.new" "$program"
    say "done in $SECONDS s"
fi
echo "$program"

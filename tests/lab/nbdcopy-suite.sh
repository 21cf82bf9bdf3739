#!/usr/bin/env bash
# Usage: tests/lab/nbdcopy-suite.sh [--baseline] PROGRAM [TEST...]
# Runs libnbd's own tests of nbdcopy (copy/*.sh of its source) with PROGRAM under the name nbdcopy. One line per test:
# ok, skip or FAIL with the end of its output. Exit status 1 when any failed. TEST is a name such as copy-sparse.
#   --baseline     runs what fails with the real nbdcopy too; what fails with both counts as skipped (an old nbdkit or nbdcopy)
#   V2V_LAB_CACHE  the tests, downloaded once as Debian's source package (default /var/cache/v2v-pod-lab)
set -euo pipefail

usage() { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
say() { printf 'nbdcopy-suite: %s\n' "$*" >&2; }
baseline='' program='' only=()
while [ $# -gt 0 ]; do
    case $1 in
    --baseline) baseline=1; shift ;;
    -*) usage ;;
    *) if [ -z "$program" ]; then program=$1; else only+=("$(basename "$1" .sh)"); fi; shift ;;
    esac
done
[ -n "$program" ] || usage
if [ ! -f "$program" ] || [ ! -x "$program" ]; then say "$program: not a program"; exit 2; fi

real=/usr/bin/nbdcopy
[ -x "$real" ] || { say "no $real (Debian's libnbd-bin)"; exit 2; }
suite=trixie
limit=120 # seconds a test may take
cache=${V2V_LAB_CACHE:-/var/cache/v2v-pod-lab}/libnbd
source=$cache/$suite

tmp=$(mktemp -d "${TMPDIR:-/var/tmp}/nbdcopy-suite.XXXXXX")
pid=''
cleanup() {
    [ -z "$pid" ] || kill -KILL -- "-$pid" 2>/dev/null || true
    rm -rf "$tmp"
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

# Leaves the tests in $source. Nothing of this machine's apt is changed: the lists and the package go to $tmp.
download() {
    local codename mirror tarball
    # The machine's own mirror: where apt has this very release from, without its updates and security.
    # shellcheck source=/dev/null
    codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
    # shellcheck disable=SC2016  # apt's own placeholders
    mirror=$(apt-get indextargets --format '$(CREATED_BY) $(RELEASE) $(COMPONENT) $(REPO_URI)' |
        awk -v c="$codename" '$1 == "Packages" && $2 == c && $3 == "main" && !m { m = $4 } END { print m }')
    [ -n "$mirror" ] || { say "no mirror of Debian $codename in apt's sources on this host"; return 1; }
    mkdir -p "$tmp/apt/lists/partial" "$tmp/apt/cache/archives/partial" "$tmp/apt/sources.d"
    echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$tmp/apt/sources.list"
    # #clear: the hooks after an update are about the machine's own lists.
    cat >"$tmp/apt/apt.conf" <<END
Dir::Etc::SourceList "$tmp/apt/sources.list";
Dir::Etc::SourceParts "$tmp/apt/sources.d";
Dir::State::Lists "$tmp/apt/lists";
Dir::Cache "$tmp/apt/cache";
APT::Sandbox::User "root";
#clear APT::Update;
END
    say "downloading the source of $suite's libnbd"
    (
        cd "$tmp/apt" &&
            apt-get -qq -c apt.conf -o APT::Update::Error-Mode=any update &&
            apt-get -qq -c apt.conf source --download-only libnbd
    ) >"$tmp/apt.log" 2>&1 || { tail -15 "$tmp/apt.log" >&2; say "the download failed"; return 1; }
    tarball=$(find "$tmp/apt" -maxdepth 1 -name 'libnbd_*.orig.tar.*' ! -name '*.asc')
    rm -rf "$source.new"
    mkdir "$source.new"
    tar -xf "$tarball" -C "$source.new" --strip-components 1 --no-same-owner --wildcards \
        'libnbd-*/copy/*.sh' 'libnbd-*/tests/functions.sh.in'
    basename "${tarball%.orig.*}" >"$source.new/package"
    mv "$source.new" "$source"
}

mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
[ -d "$source" ] || download
exec 9>&-

tests=()
for file in "$source"/copy/*.sh; do
    name=$(basename "$file" .sh)
    if [ ${#only[@]} -eq 0 ] || printf '%s\n' "${only[@]}" | grep -qxF -e "$name"; then tests+=("$name"); fi
done
for name in "${only[@]}"; do
    [ -f "$source/copy/$name.sh" ] || { say "no test $name in $(cat "$source/package")"; exit 2; }
done

mkdir "$tmp/program" "$tmp/real"
ln -s "$(realpath "$program")" "$tmp/program/nbdcopy"
ln -s "$real" "$tmp/real/nbdcopy"
EXPECTED_VERSION=$("$real" --version | awk 'NR == 1 { print $2 }')
PSKTOOL=$(command -v psktool || true)
export EXPECTED_VERSION PSKTOOL VG='' LC_ALL=C

# run program|real NAME: the test's exit status; its output in $tmp/log.
run() {
    local status=0
    rm -rf "$tmp/tree"
    mkdir -p "$tmp/tree/tests"
    cp -r "$source/copy" "$tmp/tree/copy"
    # @QEMU_NBD@ becomes qemu-nbd, to be found on the PATH.
    sed -E -e "s|@abs_top_srcdir@|$tmp/tree|" -e ':a; s/(@[A-Z]+(-[A-Z]+)*)_/\1-/; ta; s/@([A-Z-]+)@/\L\1/' \
        "$source/tests/functions.sh.in" >"$tmp/tree/tests/functions.sh"
    # timeout makes a process group of its own: what the test leaves running in it dies with it.
    (cd "$tmp/tree/copy" && PATH=$tmp/$1:$PATH exec timeout -k 10 "$limit" "./$2.sh") </dev/null >"$tmp/log" 2>&1 &
    pid=$!
    wait "$pid" 2>/dev/null || status=$?
    kill -KILL -- "-$pid" 2>/dev/null || true
    pid=''
    case $status in 124 | 137) echo "no end after $limit s" >>"$tmp/log" ;; esac
    return "$status"
}

passed=0 failed=0 skipped=0 both=0
for name in "${tests[@]}"; do
    status=0
    run program "$name" || status=$?
    case $status in
    0) echo "ok $name"; passed=$((passed + 1)) ;;
    77)
        reason=$(sed -n "/run cleanup hooks/d; s|^\./$name\.sh: ||p" "$tmp/log" | head -1)
        echo "skip $name: ${reason:-no reason given}"
        skipped=$((skipped + 1))
        ;;
    *)
        cp "$tmp/log" "$tmp/log.program"
        status=0
        if [ -n "$baseline" ]; then run real "$name" || status=$?; fi
        case $status in
        0 | 77) echo "FAIL $name"; failed=$((failed + 1)) ;;
        *) echo "FAIL (real nbdcopy fails too) $name"; skipped=$((skipped + 1)) both=$((both + 1)) ;;
        esac
        tail -15 "$tmp/log.program" | sed 's/^/    /'
        ;;
    esac
done
[ $both -eq 0 ] || echo "skipped: the real nbdcopy fails here too: $both"
echo "nbdcopy suite: $passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]

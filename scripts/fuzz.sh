#!/usr/bin/env bash
# Usage: scripts/fuzz.sh [SECONDS] [TARGET…]
# Fuzzes the targets of datapath/fuzz (all of them) for SECONDS each (30), from a copy of their corpora. Installs cargo-fuzz
# when it is missing. A crash ends it with status 1 and names the input, kept with the log in out/fuzz/TARGET/.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() { sed -n '2,4s/^# \{0,1\}//p' "$0" >&2; exit 2; }
say() { printf 'fuzz: %s\n' "$*"; }
die() { printf 'fuzz: %s\n' "$*" >&2; exit 1; }

seconds=${1:-30}
case $seconds in '' | *[!0-9]*) usage ;; esac
if [ $# -gt 0 ]; then shift; fi
repo=$PWD
cd datapath/fuzz
known=(corpus/*/)
known=("${known[@]%/}")
known=("${known[@]##*/}")
if [ $# -gt 0 ]; then targets=("$@"); else targets=("${known[@]}"); fi
for target in "${targets[@]}"; do
    [ -d "corpus/$target" ] || die "there is no target $target, only: ${known[*]}"
done

command -v c++ >/dev/null || die "libFuzzer needs a C++ compiler (apt-get install g++)"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$repo/target/fuzz}
if ! cargo fuzz --version >/dev/null 2>&1; then
    say "installing cargo-fuzz"
    cargo install --locked cargo-fuzz
fi
# cargo fuzz itself has no --locked.
cargo metadata --locked --format-version 1 >/dev/null || die "datapath/fuzz/Cargo.lock does not fit datapath/Cargo.toml"

# Its flags for the compiler are unstable; a stable compiler takes them when told to.
case $(rustc --version) in *nightly*) ;; *) export RUSTC_BOOTSTRAP=1 ;; esac
# Rustup's toolchains have AddressSanitizer, Debian's do not.
sanitizer=none
if compgen -G "$(rustc --print target-libdir)/librustc*_rt.asan.a" >/dev/null; then sanitizer=address; fi
# Freed memory that it keeps aside counts as the target's.
export ASAN_OPTIONS=quarantine_size_mb=32:${ASAN_OPTIONS:-}
say "sanitizer: $sanitizer"
cargo fuzz build --fuzz-dir . --sanitizer "$sanitizer"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for target in "${targets[@]}"; do
    say "$target: $seconds s"
    crashes=$repo/out/fuzz/$target
    mkdir -p "$crashes"
    cp -r "corpus/$target" "$work/$target"
    touch "$work/begin"
    cargo fuzz run --fuzz-dir . --sanitizer "$sanitizer" "$target" "$work/$target" -- \
        "-artifact_prefix=$crashes/" "-max_total_time=$seconds" -max_len=4096 -timeout=10 \
        -malloc_limit_mb=64 -rss_limit_mb=512 -print_final_stats=1 >"$work/$target.log" 2>&1 || {
        cp "$work/$target.log" "$crashes/log"
        grep -m1 -A3 -E 'panicked at|ERROR: ' "$work/$target.log" >&2 || tail -20 "$work/$target.log" >&2
        die "$target failed on $(find "$crashes" -name '*-*' -newer "$work/begin" -print -quit)"
    }
    grep -E '^#[0-9]+.*(INITED|DONE)|^stat::(number_of_executed_units|average_exec_per_sec|peak_rss_mb)' "$work/$target.log"
done
say "no crash"

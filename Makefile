# `make demo` and `make test` install what they need (Debian 12 or 13, as root) and do everything.

.PHONY: demo test check bench image deny clean

demo:
	scripts/demo.sh

test:
	scripts/test.sh

# The quick loop: formatting, lints, unit and property tests.
check:
	scripts/install-deps.sh build
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo test --workspace --lib --bins --locked

image:
	scripts/install-deps.sh build image
	cargo build --release --locked
	images/build.sh

# v2v-pod convert beside plain virt-v2v, on the same guest, in turns.
bench:
	scripts/bench.sh

# Licences, sources and doubled versions of the dependencies.
deny:
	command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	cargo deny check bans licenses sources

clean:
	cargo clean
	rm -rf out

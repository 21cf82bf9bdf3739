# `make demo` and `make test` install what they need (Debian 12 or 13, as root) and do everything.

.PHONY: demo test check bench bench-transports fuzz image deny clean

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
	images/build-controller.sh

# v2v-pod copy beside nbdcopy and qemu-img, and v2v-pod convert beside plain virt-v2v, in turns. Takes hours;
# `scripts/bench.sh copy`, ROWS and SIZE take less.
bench:
	scripts/bench.sh

# The same disks over HTTPS and VDDK, with a simulated vCenter and round trips of 0, 5 and 20 ms. About an hour; ROUNDS,
# SIZE, RTT, DISKS and ROWS take less. With a real vCenter: URL=… VM=… PASSWORD_FILE=… VDDK_LIBDIR=…, see docs/operations.md.
bench-transports:
	scripts/bench.sh transports

# The parsers of what servers send, with cargo-fuzz; 30 seconds each.
fuzz:
	scripts/fuzz.sh

# Licences, sources and doubled versions of the dependencies.
deny:
	command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	cargo deny check bans licenses sources

clean:
	cargo clean
	rm -rf out

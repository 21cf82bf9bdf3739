//! Conformance harness: runs the built `v2v-pod` against recorded runs of Forklift's own entrypoint.
//!
//! A case (`tests/data/conformance/*.json`) gives an environment, volumes and files, and what the
//! reference did with them: the commands it ran, links, files, HTTP answers, exit code. For each
//! case the harness builds a bare root directory, enters it with private mount, PID and network
//! namespaces, runs the pod as PID 1 there with recording stand-ins for the tools, and compares.
//!
//! Rooms: `cases` (what is recorded), `chroot` and `loopdev` (the world of one run), `inside` (the
//! process that runs in the namespaces), `standins` (the tools), `http` (a small client), `argv`
//! (when two command lines are the same), `differences` (where we differ on purpose), `compare`
//! (expected against seen), `invariants` (what holds in every case), `suite` (all cases, in parallel, and the report).
//!
//! For tests of TLS, here and in `entrypoint`: `pki` (certificates of any shape), `tls` (servers that present them). For OVAs: `ova`.
//!
//! What is checked beyond the recording, for every case: no child gets a `V2V_*` variable or a
//! secret, in its environment or on its command line; no secret in the pod's output; port 8080 is
//! closed while any tool runs; overlays are in place exactly while the guest is changed, and gone
//! afterwards.

// Test code: a broken assumption has to stop the run, with the place where it broke.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::missing_panics_doc)]

pub mod argv;
pub mod cases;
pub mod chroot;
pub mod compare;
pub mod copy;
pub mod differences;
pub mod e2e;
pub mod http;
pub mod inside;
pub mod invariants;
pub mod libvirt;
pub mod loopdev;
pub mod ova;
pub mod pki;
pub mod records;
pub mod standins;
pub mod suite;
pub mod tls;
pub mod xml;

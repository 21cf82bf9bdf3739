//! `ova::open` with the real tools: OVAs that tar, gzip, xz, python and qemu-img made, nginx, curl, nbdkit.

// Test code: a broken assumption has to stop the run, with the place where it broke.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod lab;
mod local;
mod remote;

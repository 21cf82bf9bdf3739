//! A stand-in for VMware's `libvixDiskLib.so.8`, for tests only.
//!
//! It exports the 23 functions that nbdkit's vddk plugin needs, and serves local files as the disks of a pretended VM.
//! A settings file says what it serves, what it expects of the client and which faults it shows; see README.md.
//! Users load it by its path, as they would load VDDK. Nothing here is shipped in an image.

// The library is called what VMware calls it.
#![allow(non_snake_case)]

pub mod bucket;
pub mod codes;
pub mod extents;
pub mod faults;
pub mod names;
pub mod settings;

mod abi;
mod disk;
mod exports;
mod library;
mod log;
mod memory;
mod pool;
mod session;
mod sys;

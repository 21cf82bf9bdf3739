//! Disks of a source as NBD servers on sockets of the run's folder: nbdkit for a vCenter or an ESXi host, over HTTPS and
//! over VDDK, qemu-nbd for images. `bench` and pods that copy first read them; nothing is ever written through them.

pub mod children;
pub mod lines;
pub mod secrets;
pub mod vm;

use clap::ValueEnum;
use std::fmt;

/// A way of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// nbdkit-curl
    Https,
    /// nbdkit-vddk
    Vddk,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Https => "https",
            Self::Vddk => "vddk",
        })
    }
}

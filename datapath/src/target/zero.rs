//! Zeroing a part of a file or block device, by the cheapest way that works there.
//!
//! A way that the target does not support is not tried again; one that fails for another reason is
//! followed by the next, every time: some drivers can punch a hole here and not there. The last way is
//! writing zeroes, and only its errors count.

use crate::sys;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};

/// The ways, as bits of what is not supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// `FALLOC_FL_PUNCH_HOLE`: becomes a hole; on a block device the space is given back.
    Punch = 1,
    /// `FALLOC_FL_ZERO_RANGE`: stays allocated.
    ZeroRange = 2,
    /// `BLKZEROOUT`: block devices, always zero.
    BlkZeroOut = 4,
}

/// What was learned about a target.
#[derive(Debug, Default)]
pub struct Zeroer {
    unsupported: AtomicU8,
}

impl Zeroer {
    /// Zeroes by a way other than writing. `false` when none worked and the range is as it was, or
    /// partly zeroed.
    pub fn zero(&self, file: &File, offset: u64, length: u64, allocate: bool) -> bool {
        let ways: &[Way] = if allocate {
            &[Way::ZeroRange, Way::BlkZeroOut]
        } else {
            &[Way::Punch, Way::ZeroRange, Way::BlkZeroOut]
        };
        ways.iter().any(|way| self.attempt(*way, file, offset, length))
    }

    fn attempt(&self, way: Way, file: &File, offset: u64, length: u64) -> bool {
        if self.unsupported.load(Ordering::Relaxed) & way as u8 != 0 {
            return false;
        }
        match perform(way, file, offset, length) {
            Ok(()) => true,
            Err(e) => {
                if is_unsupported(&e) {
                    self.unsupported.fetch_or(way as u8, Ordering::Relaxed);
                }
                tracing::debug!(?way, offset, length, error = %e, "zeroing falls back");
                false
            }
        }
    }
}

fn perform(way: Way, file: &File, offset: u64, length: u64) -> io::Result<()> {
    let flags = match way {
        Way::Punch => FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE,
        Way::ZeroRange => {
            FallocateFlags::FALLOC_FL_ZERO_RANGE | FallocateFlags::FALLOC_FL_KEEP_SIZE
        }
        Way::BlkZeroOut => return sys::zero_out(file, offset, length),
    };
    let number =
        |n: u64| i64::try_from(n).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    loop {
        match fallocate(file, flags, number(offset)?, number(length)?) {
            Err(Errno::EINTR) => {}
            other => return other.map_err(Into::into),
        }
    }
}

fn is_unsupported(e: &io::Error) -> bool {
    let code = e.raw_os_error();
    [libc::EOPNOTSUPP, libc::ENOSYS, libc::ENOTTY, libc::ENODEV].iter().any(|c| code == Some(*c))
}

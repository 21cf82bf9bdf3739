//! The calls that neither `std` nor `nix` wraps safely: block device ioctls, cloning, and reads that do
//! not wait for the disk. The only `unsafe` of this crate.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

mod raw {
    nix::ioctl_read_bad!(blksszget, 0x1268, libc::c_int);
    nix::ioctl_write_ptr_bad!(blkzeroout, 0x127f, [u64; 2]);
    nix::ioctl_write_int_bad!(ficlone, 0x4004_9409);
}

/// Logical sector size of a block device, in bytes (`BLKSSZGET`).
pub fn sector_size(device: &File) -> io::Result<u32> {
    let mut size: libc::c_int = 0;
    // SAFETY: BLKSSZGET writes one int through the pointer, which is valid for the call.
    unsafe { raw::blksszget(device.as_raw_fd(), &raw mut size) }?;
    u32::try_from(size).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Writes zeroes to a block device by the kernel (`BLKZEROOUT`); both numbers in bytes, multiples of
/// the sector.
pub fn zero_out(device: &File, offset: u64, length: u64) -> io::Result<()> {
    let range = [offset, length];
    // SAFETY: BLKZEROOUT reads two u64 through the pointer, which is valid for the call.
    unsafe { raw::blkzeroout(device.as_raw_fd(), &raw const range) }?;
    Ok(())
}

/// Makes `target` share the content of `source` (`FICLONE`).
pub fn clone_file(source: &File, target: &File) -> io::Result<()> {
    // SAFETY: FICLONE takes a descriptor by value and touches no memory of ours.
    unsafe { raw::ficlone(target.as_raw_fd(), source.as_raw_fd()) }?;
    Ok(())
}

/// Reads what is in the page cache, without waiting for the disk (`RWF_NOWAIT`). Returns the bytes
/// read, 0 when the first page is not there.
pub fn read_cached(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let offset = i64::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: the vector describes `buffer`, which is borrowed mutably for the whole call.
    let n =
        unsafe { libc::preadv2(file.as_raw_fd(), &raw const vector, 1, offset, libc::RWF_NOWAIT) };
    match usize::try_from(n) {
        Ok(n) => Ok(n),
        Err(_) => match io::Error::last_os_error() {
            e if e.kind() == io::ErrorKind::WouldBlock => Ok(0),
            e => Err(e),
        },
    }
}

/// Starts writing a range of dirty pages out, or, with `wait`, does so and waits.
pub fn write_out(file: &File, offset: u64, length: u64, wait: bool) -> io::Result<()> {
    let mut flags = libc::SYNC_FILE_RANGE_WRITE;
    if wait {
        flags |= libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    }
    let number =
        |n: u64| i64::try_from(n).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let (offset, length) = (number(offset)?, number(length)?);
    // SAFETY: integer arguments only.
    let status = unsafe { libc::sync_file_range(file.as_raw_fd(), offset, length, flags) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Asks for huge pages behind memory that was not touched yet. The disk then gets few long pieces
/// instead of many single pages. A kernel without them is no error.
pub fn want_huge_pages(memory: &mut [u8]) {
    if let Some(start) = std::ptr::NonNull::new(memory.as_mut_ptr().cast()) {
        // SAFETY: the range is borrowed mutably, and MADV_HUGEPAGE changes no content.
        let _ = unsafe {
            nix::sys::mman::madvise(start, memory.len(), nix::sys::mman::MmapAdvise::MADV_HUGEPAGE)
        };
    }
}

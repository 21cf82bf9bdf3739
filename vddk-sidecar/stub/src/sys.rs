//! The few calls of the system that the standard library does not have.

#![allow(unsafe_code)] // libc

use std::ffi::{CStr, OsStr, c_void};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Where the next data begins (`data`) or ends, at or after `offset`. `None`: there is no more data.
pub fn seek(file: &File, offset: u64, data: bool) -> io::Result<Option<u64>> {
    let whence = if data { libc::SEEK_DATA } else { libc::SEEK_HOLE };
    let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open as long as `file` is; reads are by pread and do not mind the file's position.
    let found = unsafe { libc::lseek(file.as_raw_fd(), offset, whence) };
    match u64::try_from(found) {
        Ok(found) => Ok(Some(found)),
        Err(_) => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
            error => Err(error),
        },
    }
}

/// The file this library was loaded from.
pub fn own_path() -> Option<PathBuf> {
    let mut info = libc::Dl_info {
        dli_fname: std::ptr::null(),
        dli_fbase: std::ptr::null_mut(),
        dli_sname: std::ptr::null(),
        dli_saddr: std::ptr::null_mut(),
    };
    let inside = own_path as fn() -> Option<PathBuf> as *const c_void;
    // SAFETY: dladdr takes any address and fills `info` or returns 0.
    if unsafe { libc::dladdr(inside, &raw mut info) } == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: the loader's own name of a loaded object, kept as long as it is loaded; copied at once.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    Some(PathBuf::from(OsStr::from_bytes(name.to_bytes())))
}

/// Ends the process as a bad pointer would.
pub fn crash() -> ! {
    // SAFETY: plain system calls. The default action first: a handler could return.
    unsafe {
        libc::signal(libc::SIGSEGV, libc::SIG_DFL);
        libc::raise(libc::SIGSEGV);
    }
    std::process::abort()
}

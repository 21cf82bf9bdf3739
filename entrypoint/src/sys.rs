//! The one module with `unsafe`: what has to happen between fork and exec.

#![allow(unsafe_code)]

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::ffi::{CStr, CString};
use std::os::fd::RawFd;
use tokio::process::Command;

/// Arranges that the child keeps `inherit` open across exec (all our descriptors are
/// close-on-exec) and that the kernel sends it SIGTERM when we die, even by SIGKILL: a converter
/// that outlives its supervisor would go on writing to volumes that the next run believes are its
/// own.
///
/// The signal follows the *thread* that forked, so commands are started from the main thread only;
/// the runtime is single-threaded for that reason.
///
/// `mount` is a folder and the one that it covers, for the child alone.
pub fn prepare_child(
    command: &mut Command,
    inherit: Option<RawFd>,
    mount: Option<(CString, CString)>,
) {
    let parent = std::process::id();
    let hook = move || {
        if let Some((folder, over)) = &mount {
            cover(folder, over)?;
        }
        if let Some(fd) = inherit {
            // SAFETY: fcntl with integer arguments touches no memory of ours, and the descriptor
            // is open in the child: it was duplicated by fork.
            if unsafe { libc::fcntl(fd, libc::F_SETFD, 0) } == -1 {
                return Err(std::io::Error::last_os_error());
            }
        }
        die_with(parent)
    };
    // SAFETY: the hook runs between fork and exec and calls only async-signal-safe functions
    // (fcntl, prctl, getppid, unshare, mount); it allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(hook);
    }
}

/// In the child: a mount namespace of its own, in which one folder covers another. Async-signal-safe: the texts were made
/// before the fork.
fn cover(folder: &CStr, over: &CStr) -> std::io::Result<()> {
    let none: Option<&CStr> = None;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(none, c"/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some(folder), over, none, MsFlags::MS_BIND, none)?;
    Ok(())
}

/// In the child: SIGTERM when the parent dies. Async-signal-safe.
fn die_with(parent: u32) -> std::io::Result<()> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGTERM)?;
    // The parent may have died before the prctl took effect.
    if u32::try_from(nix::unistd::getppid().as_raw()) != Ok(parent) {
        return Err(std::io::Error::from_raw_os_error(libc::ESRCH));
    }
    Ok(())
}

/// Gives the child one of our descriptors under a number of its own, and ties it to our life.
pub fn give_descriptor(command: &mut Command, ours: RawFd, theirs: RawFd) {
    let parent = std::process::id();
    let hook = move || {
        // SAFETY: dup2 and fcntl with integer arguments touch no memory; `ours` is open in the child.
        let given = unsafe {
            if ours == theirs {
                libc::fcntl(ours, libc::F_SETFD, 0)
            } else {
                libc::dup2(ours, theirs)
            }
        };
        if given == -1 {
            return Err(std::io::Error::last_os_error());
        }
        die_with(parent)
    };
    // SAFETY: as for `prepare_child`: only async-signal-safe calls between fork and exec.
    unsafe {
        command.pre_exec(hook);
    }
}

/// A descriptor that whoever started us opened for us, such as `--progress=3`.
pub fn inherited(fd: RawFd) -> std::io::Result<std::fs::File> {
    // SAFETY: F_DUPFD_CLOEXEC takes integers; it fails when the descriptor is not open.
    let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
    if copy == -1 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: `copy` was just made and belongs to nobody else.
    Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(copy) })
}

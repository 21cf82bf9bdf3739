//! The one module with `unsafe`: what has to happen between fork and exec.

#![allow(unsafe_code)]

use std::os::fd::RawFd;
use tokio::process::Command;

/// Arranges that the child keeps `inherit` open across exec (all our descriptors are
/// close-on-exec) and that the kernel sends it SIGTERM when we die, even by SIGKILL: a converter
/// that outlives its supervisor would go on writing to volumes that the next run believes are its
/// own.
///
/// The signal follows the *thread* that forked, so commands are started from the main thread only;
/// the runtime is single-threaded for that reason.
pub fn prepare_child(command: &mut Command, inherit: Option<RawFd>) {
    let parent = std::process::id();
    let hook = move || {
        if let Some(fd) = inherit {
            // SAFETY: fcntl with integer arguments touches no memory of ours, and the descriptor
            // is open in the child: it was duplicated by fork.
            if unsafe { libc::fcntl(fd, libc::F_SETFD, 0) } == -1 {
                return Err(std::io::Error::last_os_error());
            }
        }
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGTERM)?;
        // The parent may have died before the prctl took effect.
        if u32::try_from(nix::unistd::getppid().as_raw()) != Ok(parent) {
            return Err(std::io::Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(())
    };
    // SAFETY: the hook runs between fork and exec and calls only async-signal-safe functions
    // (fcntl, prctl, getppid); it allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(hook);
    }
}

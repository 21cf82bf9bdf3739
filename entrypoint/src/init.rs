//! The duties of process 1: start the real run as a child, pass signals on, reap every orphan.
//!
//! libguestfs and libvirt hang when nobody reaps their orphans, and a container has no init of its
//! own. The reaper is a process apart, so that it can never take a child away from the supervisor.

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::io;
use std::process::Command;

/// Set in the environment of the child, so that it does not start another.
const MARK: &str = "V2V_POD_UNDER_INIT";

/// True when this process is the first of its container.
pub fn is_needed() -> bool {
    std::process::id() == 1 && std::env::var_os(MARK).is_none()
}

/// Runs this program again as a child, with the same arguments; returns its exit code.
pub fn run() -> io::Result<u8> {
    let signals = signals();
    signals.thread_block()?;
    let child = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(MARK, "1")
        .spawn()?;
    let main = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
    loop {
        match signals.wait()? {
            Signal::SIGCHLD => {
                if let Some(code) = reap(main) {
                    return Ok(code);
                }
            }
            other => {
                // The child may have ended just now; its SIGCHLD comes next.
                let _ = kill(main, other);
            }
        }
    }
}

/// For the run under process 1: a blocked signal stays blocked across fork and exec, and one that is
/// blocked never reaches a handler, nor the tools.
pub fn unblock_signals() -> io::Result<()> {
    Ok(signals().thread_unblock()?)
}

fn signals() -> SigSet {
    [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
    ]
    .into_iter()
    .collect()
}

/// Reaps all that have ended; the exit code of `main` once it is among them.
fn reap(main: Pid) -> Option<u8> {
    let mut code = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) if pid == main => {
                code = u8::try_from(status).ok().or(Some(1));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == main => {
                code = u8::try_from(128 + signal as i32).ok().or(Some(1));
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return code,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return code.or(Some(1)),
        }
    }
}

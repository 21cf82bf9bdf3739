//! The child as a process: started, listened to, ended. Whatever it or its descendants do (close or keep the pipes, flood
//! them, hang, leave their process group), nothing here waits longer than it was told to.

use super::parent::Settings;
use super::{CHILD, Order, Word};
use crate::library::Found;
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Lines of the library's log that are kept, and characters of a line.
const LOG_LINES: usize = 30;
const LOG_LINE: usize = 1000;
/// More than any word of ours takes.
const LONGEST_WORD: u64 = 1 << 16;
const WORDS: usize = 64;
/// For what is still in the log's pipe when the child has ended.
const LAST_LINES: Duration = Duration::from_millis(500);
/// For exit handlers, when all that matters is known.
const LEAVE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(5);

/// Starts it and gives it its order.
pub(super) fn start(settings: &Settings, found: &Found, order: &Order) -> std::io::Result<Child> {
    let order = serde_json::to_vec(order)?;
    let mut child = Command::new(&settings.helper)
        .arg(CHILD)
        .env_clear()
        .env("LD_LIBRARY_PATH", &found.folder)
        .env("HOME", &settings.tmp)
        .env("TMPDIR", &settings.tmp)
        .env("LC_ALL", "C.UTF-8")
        .current_dir(&settings.tmp)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A child that ends without reading is judged by its end.
        let _ = stdin.write_all(&order);
    }
    Ok(child)
}

/// What it says. Lines that are not ours are passed over.
pub(super) fn words_of(stdout: impl Read + Send + 'static) -> Receiver<Word> {
    let (send, receive) = sync_channel(WORDS);
    thread::spawn(move || {
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        while reader.by_ref().take(LONGEST_WORD).read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            if let Ok(word) = serde_json::from_slice(&line)
                && send.send(word).is_err()
            {
                break;
            }
            line.clear();
        }
    });
    receive
}

/// The last lines of its standard error, in bounded memory.
pub(super) struct Tail {
    lines: Arc<Mutex<VecDeque<String>>>,
    end: Receiver<()>,
}

impl Tail {
    /// Begins to read.
    pub(super) fn start(stderr: ChildStderr) -> Self {
        let lines = Arc::new(Mutex::new(VecDeque::new()));
        let (send, end) = channel();
        let kept = Arc::downgrade(&lines);
        thread::spawn(move || {
            let mut reader = BufReader::new(stderr);
            let mut line = Vec::new();
            while reader
                .by_ref()
                .take(LONGEST_WORD)
                .read_until(b'\n', &mut line)
                .is_ok_and(|n| n > 0)
            {
                // Nobody reads on when the tail is gone; a daemon that writes on gets a broken pipe.
                let Some(lines) = kept.upgrade() else { break };
                keep(&mut lines.lock().unwrap_or_else(PoisonError::into_inner), &line);
                line.clear();
            }
            drop(send);
        });
        Self { lines, end }
    }

    /// The lines, once the pipe has ended; a daemon may have it open for ever.
    pub(super) fn finish(self) -> Vec<String> {
        // Nothing is ever sent: the other side is dropped at the end. Without that, what has come so far has to do.
        let _: Result<(), RecvTimeoutError> = self.end.recv_timeout(LAST_LINES);
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.drain(..).collect()
    }
}

fn keep(lines: &mut VecDeque<String>, line: &[u8]) {
    let text = String::from_utf8_lossy(line);
    let text: String = text.trim_end().chars().filter(|c| !c.is_control()).take(LOG_LINE).collect();
    if !text.is_empty() {
        lines.push_back(text);
    }
    if lines.len() > LOG_LINES {
        lines.pop_front();
    }
}

/// How it ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    /// By itself, or killed by us.
    pub(super) by_itself: bool,
    /// Its status.
    pub(super) status: Option<ExitStatus>,
}

/// Waits until `deadline`, and for a moment in any case; then ends the child and its whole group.
pub(super) fn end(child: &mut Child, deadline: Instant) -> End {
    let deadline = deadline.max(Instant::now() + LEAVE);
    let pid = i32::try_from(child.id()).map(Pid::from_raw);
    let mut by_itself = false;
    while let Ok(pid) = pid
        && !by_itself
        && Instant::now() < deadline
    {
        by_itself = has_ended(pid);
        if !by_itself {
            thread::sleep(PAUSE);
        }
    }
    // Before it is waited for, so that the number of its group is still its own. Already gone is as good.
    if let Ok(pid) = pid {
        let _ = killpg(pid, Signal::SIGKILL);
    }
    End { by_itself, status: child.wait().ok() }
}

fn has_ended(pid: Pid) -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    match waitid(Id::Pid(pid), flags) {
        Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => false,
        Ok(_) | Err(_) => true,
    }
}

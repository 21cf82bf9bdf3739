//! Runs one tool to its end: own process group, cleaned environment, output read without ever
//! blocking on anybody, signals passed on, nothing left behind.
//!
//! Called by the flow and by preflight, from the main thread (see [`crate::sys`]). It knows how to
//! run a tool, never what its output means.

pub mod lines;
pub mod stop;

use crate::progress::MachineMessage;
use crate::toolbox::Overlay;
use lines::{End, Lines};
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use std::ffi::CString;
use std::ffi::OsString;
use std::future::pending;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use stop::{Stop, StopCause};
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep_until};

/// After a tool has ended, its children may hold the pipes; they get this long to let go.
const LINGER: Duration = Duration::from_secs(2);
/// As large as a pipe is by default, so one read empties it.
const READ_BYTES: usize = 64 << 10;

/// Why a tool could not be run.
#[derive(Debug, Error)]
pub enum RunError {
    /// It could not be started.
    #[error("cannot start {program}")]
    Spawn {
        /// Which.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel gave no pipe, or waiting failed.
    #[error("cannot supervise {program}")]
    Supervise {
        /// Which.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What a tool is started with.
#[derive(Debug)]
pub struct Spec<'a> {
    /// Path of the program.
    pub program: &'a Path,
    /// The whole environment of the child.
    pub env: &'a [(OsString, OsString)],
    /// Working folder.
    pub dir: &'a Path,
    /// Between the signal and SIGKILL.
    pub grace: Duration,
    /// Open a pipe for machine-readable messages.
    pub messages: bool,
    /// Seen in the place of the system's certificates; needs the right to mount.
    pub certificates: Option<&'a Overlay>,
}

/// Something the tool said.
#[derive(Debug)]
pub enum Heard<'a> {
    /// A piece of stdout or stderr, which share one pipe so that their order is kept.
    Output(&'a str, End),
    /// A machine-readable message.
    Message(MachineMessage),
}

/// How it ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit status.
    pub status: ExitStatus,
    /// Set when it was made to stop.
    pub stopped: Option<StopCause>,
}

/// Runs the tool with the arguments that `args` makes (it is given the descriptor for messages),
/// and tells `heard` everything the tool says. When `stop` is set the tool gets that signal, and
/// SIGKILL after the grace period or at a second signal.
pub async fn run(
    spec: &Spec<'_>,
    args: impl FnOnce(Option<RawFd>) -> Vec<OsString>,
    stop: &Stop,
    mut heard: impl FnMut(Heard<'_>),
) -> Result<Ended, RunError> {
    let supervise =
        |source: io::Error| RunError::Supervise { program: spec.program.to_owned(), source };
    let (output, output_end) = pipe().map_err(supervise)?;
    let messages = spec.messages.then(pipe).transpose().map_err(supervise)?;
    let (messages, message_end) = messages.unzip();
    let argv = args(message_end.as_ref().map(AsRawFd::as_raw_fd));
    let child = spawn(spec, argv, output_end, message_end.as_ref())?;
    // Our copies of the write ends are closed now: the pipes end when the tool's do.
    drop(message_end);
    let mut session = Session::new(child, output, messages, spec.grace);
    session.until_exit(stop, &mut heard).await.map_err(supervise)?;
    session.drain(&mut heard).await;
    let status = session.status.ok_or_else(|| supervise(io::ErrorKind::Other.into()))?;
    Ok(Ended { status, stopped: session.stopped })
}

fn pipe() -> io::Result<(Receiver, OwnedFd)> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    Ok((Receiver::from_owned_fd(read)?, write))
}

fn spawn(
    spec: &Spec<'_>,
    argv: Vec<OsString>,
    output: OwnedFd,
    messages: Option<&OwnedFd>,
) -> Result<Child, RunError> {
    let failed = |source| RunError::Spawn { program: spec.program.to_owned(), source };
    #[allow(clippy::disallowed_methods)] // this is the supervisor
    let mut command = Command::new(spec.program);
    command
        .args(argv)
        .env_clear()
        .envs(spec.env.iter().map(|(k, v)| (k, v)))
        .current_dir(spec.dir)
        .process_group(0)
        .kill_on_drop(true)
        .stdin(Stdio::null())
        .stdout(output.try_clone().map_err(failed)?)
        .stderr(output);
    let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other);
    let mount = spec.certificates.map(|c| Ok((text(&c.folder)?, text(&c.over)?))).transpose();
    let mount = mount.map_err(failed)?;
    crate::sys::prepare_child(&mut command, messages.map(AsRawFd::as_raw_fd), mount);
    command.spawn().map_err(failed)
}

struct Session {
    child: Child,
    group: Option<Pid>,
    output: Option<Receiver>,
    messages: Option<Receiver>,
    output_lines: Lines,
    message_lines: Lines,
    grace: Duration,
    kill_at: Option<Instant>,
    stopped: Option<StopCause>,
    status: Option<ExitStatus>,
}

impl Session {
    fn new(child: Child, output: Receiver, messages: Option<Receiver>, grace: Duration) -> Self {
        let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        Self {
            child,
            group,
            output: Some(output),
            messages,
            output_lines: Lines::default(),
            message_lines: Lines::default(),
            grace,
            kill_at: None,
            stopped: None,
            status: None,
        }
    }

    async fn until_exit(
        &mut self,
        stop: &Stop,
        heard: &mut impl FnMut(Heard<'_>),
    ) -> io::Result<()> {
        let mut stop = stop.clone();
        let (mut output, mut messages) = (vec![0; READ_BYTES], vec![0; READ_BYTES]);
        while self.status.is_none() {
            tokio::select! {
                n = read(&mut self.output, &mut output) => self.heard_output(&output[..n], heard),
                n = read(&mut self.messages, &mut messages) => self.heard_messages(&messages[..n], heard),
                status = self.child.wait() => self.status = Some(status?),
                cause = stop.next() => self.pass_on(cause),
                () = at(self.kill_at) => self.kill_group(),
            }
        }
        Ok(())
    }

    /// Reads what is left. Children of the tool that still hold a pipe are killed after a while:
    /// the tool is gone, nobody waits for them.
    async fn drain(&mut self, heard: &mut impl FnMut(Heard<'_>)) {
        let mut buffer = vec![0; READ_BYTES];
        let mut other = vec![0; READ_BYTES];
        let mut deadline = Instant::now() + LINGER;
        let mut killed = false;
        while self.output.is_some() || self.messages.is_some() {
            tokio::select! {
                n = read(&mut self.output, &mut buffer) => self.heard_output(&buffer[..n], heard),
                n = read(&mut self.messages, &mut other) => self.heard_messages(&other[..n], heard),
                () = sleep_until(deadline) => {
                    if killed {
                        break;
                    }
                    self.kill_group();
                    killed = true;
                    deadline = Instant::now() + LINGER;
                }
            }
        }
        self.output_lines.finish(|text, end| heard(Heard::Output(text, end)));
        self.message_lines.finish(|text, _| hear_message(text, heard));
        self.kill_group();
    }

    fn heard_output(&mut self, bytes: &[u8], heard: &mut impl FnMut(Heard<'_>)) {
        self.output_lines.push(bytes, |text, end| heard(Heard::Output(text, end)));
    }

    fn heard_messages(&mut self, bytes: &[u8], heard: &mut impl FnMut(Heard<'_>)) {
        self.message_lines.push(bytes, |text, _| hear_message(text, heard));
    }

    /// First signal: to the tool alone, which then takes its own children down in order. A second
    /// one: no more patience.
    fn pass_on(&mut self, cause: StopCause) {
        if self.stopped.is_some() {
            self.kill_group();
            return;
        }
        if let Some(pid) = self.group {
            // It may have ended just now; then there is nothing to stop.
            let _ = kill(pid, cause.signal());
        }
        self.stopped = Some(cause);
        self.kill_at = Some(Instant::now() + self.grace);
    }

    fn kill_group(&mut self) {
        self.kill_at = None;
        if let Some(group) = self.group {
            // ESRCH: nobody is left in it, which is what we want.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

fn hear_message(text: &str, heard: &mut impl FnMut(Heard<'_>)) {
    match MachineMessage::parse(text) {
        Some(message) => heard(Heard::Message(message)),
        None => heard(Heard::Output(text, End::Newline)),
    }
}

/// Reads some bytes; forgets the pipe at its end. Never ready without a pipe.
async fn read(pipe: &mut Option<Receiver>, buffer: &mut [u8]) -> usize {
    let Some(open) = pipe else { return pending().await };
    match open.read(buffer).await {
        Ok(n) if n > 0 => n,
        _ => {
            *pipe = None;
            0
        }
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

/// Output of a short call that only asks something: at most 1 MiB of it, at most `limit` long.
/// `None` when it could not be started or took too long.
pub async fn ask(spec: &Spec<'_>, args: &[&str], limit: Duration) -> Option<(ExitStatus, String)> {
    const MAX: usize = 1 << 20;
    let stop = Stop::default();
    let mut text = String::new();
    let argv = args.iter().map(OsString::from).collect();
    let run = run(
        spec,
        |_| argv,
        &stop,
        |heard| {
            if let Heard::Output(line, end) = heard
                && text.len() + line.len() < MAX
            {
                text.push_str(line);
                if end != lines::End::Cut {
                    text.push('\n');
                }
            }
        },
    );
    let ended = tokio::time::timeout(limit, run).await.ok()?.ok()?;
    Some((ended.status, text))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

//! Servers of disks while something is done with them: started, waited for, heard, ended.

use crate::classify::Evidence;
use crate::failure::{Class, Failure};
use crate::supervise::stop::{Stop, StopCause};
use crate::supervise::{self, Ended, Heard, Spec};
use crate::toolbox::Toolbox;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// A login at a slow vCenter takes seconds.
const START_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);
const GRACE: Duration = Duration::from_secs(10);
/// What a failure may need for its explanation.
const LAST_LINES: usize = 5;

/// A program with its arguments.
#[derive(Debug, Clone)]
pub struct Line {
    /// Where it is.
    pub program: PathBuf,
    /// Without the program.
    pub args: Vec<String>,
}

/// Hears every line of the children.
pub type Ear = Arc<dyn Fn(&str) + Send + Sync>;

/// A server, and the file that is there when it serves.
#[derive(Debug, Clone)]
pub struct ServerLine {
    /// nbdkit or qemu-nbd.
    pub line: Line,
    /// Written by it when it listens.
    pub pidfile: PathBuf,
}

/// How a child ended, and the end of what it said.
pub struct Finished {
    name: String,
    ended: Result<Ended, String>,
    evidence: Evidence,
    last: VecDeque<String>,
}

impl Finished {
    /// Whether it did.
    pub fn failed(&self) -> bool {
        !self.ended.as_ref().is_ok_and(|e| e.status.success())
    }

    /// Why it failed.
    pub fn failure(&self) -> Failure {
        let how = match &self.ended {
            Ok(ended) => ended.status.to_string(),
            Err(why) => why.clone(),
        };
        let last: Vec<&str> = self.last.iter().map(String::as_str).collect();
        let known = self.evidence.failure(&self.name, &how);
        // What is not known by its words is a failure to read or write.
        let class = if known.class == Class::Conversion { Class::Io } else { known.class };
        Failure::new(class, format!("{} failed: {how}: {}", self.name, last.join(" | ")))
    }
}

/// Runs children with one environment in one folder.
pub struct Children<'a> {
    /// The environment.
    pub toolbox: &'a Toolbox,
    /// Working folder.
    pub dir: &'a Path,
    /// Says when to stop.
    pub stop: &'a Stop,
    /// Hears what they say.
    pub ear: Option<Ear>,
}

impl Children<'_> {
    /// Starts a child; it is killed when the set is dropped.
    pub fn spawn(&self, set: &mut JoinSet<Finished>, line: &Line, stop: &Stop) {
        let (line, stop, ear) = (line.clone(), stop.clone(), self.ear.clone());
        let (env, dir) = (self.toolbox.env(), self.dir.to_owned());
        let certificates = self.toolbox.certificates().cloned();
        let name = line.program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        set.spawn(async move {
            let spec = Spec {
                program: &line.program,
                env: &env,
                dir: &dir,
                grace: GRACE,
                messages: false,
                certificates: certificates.as_ref(),
            };
            let argv: Vec<OsString> = line.args.iter().map(OsString::from).collect();
            let (mut evidence, mut last) = (Evidence::default(), VecDeque::new());
            let heard = |heard: Heard<'_>| {
                let Heard::Output(text, _) = heard else { return };
                if let Some(ear) = &ear {
                    ear(text);
                }
                evidence.line(&name, text);
                if last.len() == LAST_LINES {
                    last.pop_front();
                }
                last.push_back(crate::classify::redact_urls(text));
            };
            let ended = supervise::run(&spec, |_| argv, &stop, heard).await;
            let ended = ended.map_err(|e| datapath::error_chain(&e));
            Finished { name, ended, evidence, last }
        });
    }

    /// With the servers running, does `work`; then ends them.
    pub async fn with_servers<T>(
        &self,
        servers: &[ServerLine],
        work: impl AsyncFnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let (mut set, end) = (JoinSet::new(), Stop::default());
        for server in servers {
            self.spawn(&mut set, &server.line, &end);
        }
        let started = self.until_started(&mut set, servers).await;
        let result = match started {
            Ok(()) => work().await,
            Err(failure) => Err(failure),
        };
        end.set(StopCause::Terminate);
        let mut told: Option<Failure> = None;
        while let Some(finished) = set.join_next().await {
            let Ok(finished) = finished else { continue };
            // One that ended by itself is the reason why its copier failed, and knows why.
            if finished.ended.as_ref().is_ok_and(|e| e.stopped.is_none()) || result.is_err() {
                told.get_or_insert(finished.failure());
            }
        }
        match (result, told) {
            (Err(failure), Some(server))
                if self.stop.cause().is_none() && may_be_the_servers(failure.class) =>
            {
                let message = format!("{failure}; {}", server.message);
                Err(if server.class == Class::Io {
                    failure.with_message(message)
                } else {
                    server.with_message(message)
                })
            }
            (result, _) => result,
        }
    }

    async fn until_started(
        &self,
        set: &mut JoinSet<Finished>,
        servers: &[ServerLine],
    ) -> Result<(), Failure> {
        let begin = Instant::now();
        let missing = || servers.iter().find(|s| !s.pidfile.exists());
        while missing().is_some() {
            if let Some(cause) = self.stop.cause() {
                return Err(cause.failure());
            }
            if let Some(Ok(finished)) = set.try_join_next() {
                return Err(finished.failure());
            }
            if begin.elapsed() > START_LIMIT {
                let message = format!(
                    "the server of a disk does not start within {} s",
                    START_LIMIT.as_secs()
                );
                return Err(Failure::new(Class::Network, message));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}

/// A volume that is too small or full is no server's fault, whatever it said.
fn may_be_the_servers(class: Class) -> bool {
    !matches!(class, Class::Volume | Class::NoSpace | Class::Integrity | Class::Config)
}

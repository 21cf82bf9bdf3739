//! Serves a file of a web server to qemu while virt-v2v runs: one nbdkit for each.

use super::place::hide_queries;
use crate::failure::{Class, Failure};
use crate::guest::image::ImageInfo;
use crate::supervise::stop::Stop;
use crate::supervise::{self, Heard, Spec};
use crate::tool_run;
use crate::toolbox::Toolbox;
use serde_json::json;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// It only has to make a socket; a busy node takes its time.
const START_LIMIT: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// A compressed VMDK is read in pieces of some 30 KiB, each of which would be a request to the server. The cache asks for
/// more at once, and keeps it in a temporary file of at most this size.
const CACHE: [&str; 3] = ["cache-min-block-size=1M", "cache-max-size=128M", "cache-on-read=true"];
/// For what breaks and comes back: the single request soon, and the opening, which the filter retry leaves out; then, with
/// a new connection, after 2 s, 4 s, 8 s …, a minute in all.
const RETRY: [&str; 4] =
    ["retry-request-retries=3", "retry-request-delay=1", "retries=5", "retry-delay=2"];

/// A server on a socket; ends when dropped.
#[derive(Debug)]
pub struct Nbdkit {
    task: JoinHandle<()>,
}

impl Nbdkit {
    /// Starts it with this plugin and its settings, and waits until it listens on the socket.
    pub async fn start(
        toolbox: &Toolbox,
        plugin: Vec<String>,
        socket: &Path,
    ) -> Result<Self, Failure> {
        let program = toolbox.find("nbdkit").ok_or_else(|| tool_run::missing("nbdkit"))?;
        let words = ["--foreground", "--readonly", "--exit-with-parent", "--unix"];
        let filters = ["--filter=cache", "--filter=retry", "--filter=retry-request", "--pidfile"];
        // It is written when the socket is there. A connection to see whether it is would be an error in nbdkit's log.
        let ready = socket.with_extension("pid");
        let mut argv: Vec<OsString> = words.iter().map(OsString::from).collect();
        argv.push(socket.into());
        argv.extend(filters.iter().map(OsString::from));
        argv.push(ready.clone().into());
        argv.extend(plugin.into_iter().map(OsString::from));
        argv.extend(CACHE.iter().chain(&RETRY).map(OsString::from));
        let last = Arc::new(Mutex::new(String::new()));
        let task = tokio::spawn(run(program, toolbox.env(), argv, Arc::clone(&last)));
        let server = Self { task };
        let begin = Instant::now();
        while !ready.exists() {
            if server.task.is_finished() || begin.elapsed() > START_LIMIT {
                let last = last.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let message = format!("nbdkit cannot serve the OVA's file: {last}");
                server.task.abort();
                return Err(Failure::new(Class::Tool, message)
                    .advise("use the v2v-pod image, or install nbdkit with its curl plugin and its filters cache, retry and retry-request"));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(server)
    }
}

impl Drop for Nbdkit {
    /// The supervisor's child is killed with it.
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How long the file is that is served there, by qemu.
pub async fn size(toolbox: &Toolbox, socket: &Path) -> Result<u64, Failure> {
    let server = json!({"type": "unix", "path": socket.to_string_lossy()});
    let file = json!({"driver": "nbd", "export": "", "server": server});
    let image = format!("json:{}", json!({"driver": "raw", "file": file}));
    let answer = toolbox.ask("qemu-img", &["info", "--output=json", &image], START_LIMIT).await;
    let missing = || Failure::new(Class::Tool, "qemu-img is not installed or does not answer");
    let (_, text) = answer.ok_or_else(missing)?;
    let failed = |_| {
        Failure::new(
            Class::Network,
            format!("nbdkit does not serve the OVA's file: {}", text.trim()),
        )
    };
    Ok(ImageInfo::from_output(&text).map_err(failed)?.virtual_size)
}

async fn run(
    program: PathBuf,
    env: Vec<(OsString, OsString)>,
    argv: Vec<OsString>,
    last: Arc<Mutex<String>>,
) {
    let spec = Spec {
        program: &program,
        env: &env,
        dir: Path::new("/"),
        grace: Duration::from_secs(1),
        messages: false,
        certificates: None,
    };
    let stop = Stop::default();
    let ended = supervise::run(
        &spec,
        |_| argv,
        &stop,
        |heard| {
            if let Heard::Output(line, _) = heard {
                // It names the address, whose query may be a signature.
                let line = hide_queries(line);
                tracing::warn!(tool = "nbdkit", "{line}");
                *last.lock().unwrap_or_else(PoisonError::into_inner) = line;
            }
        },
    );
    match ended.await {
        Ok(ended) => {
            tracing::error!(tool = "nbdkit", status = %ended.status, "nbdkit has ended before the conversion");
        }
        Err(e) => tracing::error!(tool = "nbdkit", "{}", datapath::error_chain(&e)),
    }
}

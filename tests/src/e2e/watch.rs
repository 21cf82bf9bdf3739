//! What others see of a pod while it runs: a controller that scrapes metrics and waits for the
//! result, a viewer on the live page, and somebody who looks for a secret where none may be.

use super::pod::Ports;
use super::process::Namespace;
use crate::http;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Shorter than the copy of a small disk.
const INTERVAL: Duration = Duration::from_millis(100);

/// Everything that was seen until the pod ended.
#[derive(Debug, Default)]
pub struct Seen {
    /// Phases in order, from `/state`.
    pub phases: Vec<String>,
    /// Percents of each disk in order, as Forklift's controller reads them from the metrics.
    pub percents: BTreeMap<String, Vec<String>>,
    /// How often metrics came.
    pub scrapes: usize,
    /// The phase in which the result's port answered for the first time.
    pub result_open_in: Option<String>,
    /// The tools that ran.
    pub tools: BTreeSet<String>,
    /// Where the secret was, and `V2V_` variables in a tool's environment.
    pub leaks: BTreeSet<String>,
}

/// A watch that goes on until it is ended.
#[derive(Debug)]
pub struct Watch {
    ended: Arc<AtomicBool>,
    result_is_open: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

impl Watch {
    /// Starts to look.
    pub fn start(ports: Ports, namespace: Namespace, secret: &str) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let result_is_open = Arc::new(AtomicBool::new(false));
        let (end, secret) = (ended.clone(), secret.to_owned());
        let is_open = result_is_open.clone();
        let thread = std::thread::spawn(move || {
            let mut seen = Seen::default();
            while !end.load(Ordering::Relaxed) {
                seen.look(ports, &namespace, &secret);
                is_open.store(seen.result_open_in.is_some(), Ordering::Relaxed);
                std::thread::sleep(INTERVAL);
            }
            seen
        });
        Self { ended, result_is_open, thread }
    }

    /// Whether the result's port has answered.
    pub fn has_seen_the_result(&self) -> bool {
        self.result_is_open.load(Ordering::Relaxed)
    }

    /// Ends it.
    pub fn end(self) -> Seen {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

impl Seen {
    fn look(&mut self, ports: Ports, namespace: &Namespace, secret: &str) {
        let result_is_open = http::is_open(ports.result);
        let state = http::request(ports.live, "GET", "/state").body;
        let metrics = http::request(ports.metrics, "GET", "/metrics").body;
        self.secret_in("/state", state.as_bytes(), secret);
        self.secret_in("/metrics", metrics.as_bytes(), secret);
        if let Some(phase) = phase_of(&state) {
            // Asked after the port: a phase that lets it be open cannot have begun in between.
            if result_is_open && self.result_open_in.is_none() {
                self.result_open_in = Some(phase.clone());
            }
            if self.phases.last() != Some(&phase) {
                self.phases.push(phase);
            }
        }
        self.scrapes += usize::from(!metrics.is_empty());
        for (disk, percent) in forklift_progress(&metrics) {
            let all = self.percents.entry(disk).or_default();
            if all.last() != Some(&percent) {
                all.push(percent);
            }
        }
        for process in namespace.processes() {
            let place = format!("arguments of {}", process.name);
            self.secret_in(&place, &process.arguments, secret);
            self.secret_in(
                &format!("environment of {}", process.name),
                &process.environment,
                secret,
            );
            if process.is_ours() {
                continue;
            }
            for variable in process.variables().filter(|v| v.starts_with("V2V_")) {
                self.leaks.insert(format!("{variable} in the environment of {}", process.name));
            }
            self.tools.insert(process.name);
        }
    }

    fn secret_in(&mut self, place: &str, bytes: &[u8], secret: &str) {
        if contains(bytes, secret.as_bytes()) {
            self.leaks.insert(format!("the secret in the {place}"));
        }
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|w| w == part)
}

fn phase_of(state: &str) -> Option<String> {
    let state: Value = serde_json::from_str(state).ok()?;
    state["phase"].as_str().map(str::to_owned)
}

/// Forklift's `v2v_disk_transfers\{disk_id="(\d+)"\} (\d{1,3}\.?\d*)`: what it captures, each time.
pub fn forklift_progress(metrics: &str) -> Vec<(String, String)> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let one = |text: &str| {
        let id = &text[..digits(text)];
        let rest = text[id.len()..].strip_prefix("\"} ")?;
        let whole = digits(rest).min(3);
        let point = whole + usize::from(rest[whole..].starts_with('.'));
        let number = &rest[..point + digits(&rest[point..])];
        (!id.is_empty() && whole > 0).then(|| (id.to_owned(), number.to_owned()))
    };
    metrics.split("v2v_disk_transfers{disk_id=\"").skip(1).filter_map(one).collect()
}

/// A viewer of the live page's event stream.
#[derive(Debug)]
pub struct Viewer(JoinHandle<Vec<Value>>);

impl Viewer {
    /// Connects, and reads until the pod ends the stream.
    pub fn connect(ports: Ports) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", ports.live)).unwrap();
        stream.write_all(b"GET /events HTTP/1.1\r\nHost: pod\r\n\r\n").unwrap();
        Self(std::thread::spawn(move || {
            let lines = BufReader::new(stream).lines().map_while(Result::ok);
            let frames = lines.filter_map(|l| serde_json::from_str(l.strip_prefix("data: ")?).ok());
            frames.collect()
        }))
    }

    /// The states that came, when the stream has ended.
    pub fn frames(self) -> Vec<Value> {
        self.0.join().unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::forklift_progress;

    #[test]
    fn progress_is_read_as_forklift_reads_it() {
        let read = |text| forklift_progress(text);
        let pair = |id: &str, number: &str| (id.to_owned(), number.to_owned());
        assert_eq!(
            read(
                "# HELP x\nv2v_disk_transfers{disk_id=\"1\"} 37\nv2v_disk_transfers{disk_id=\"12\"} 99.5\n"
            ),
            [pair("1", "37"), pair("12", "99.5")]
        );
        assert_eq!(read("v2v_disk_transfers{disk_id=\"1\"} 1e+02"), [pair("1", "1")]);
        assert_eq!(read("v2v_disk_transfers{disk_id=\"1\",vm=\"x\"} 5"), []);
        assert_eq!(read("v2v_disk_transfers{disk_id=\"\"} 5"), []);
    }
}

//! A gate between a controller and the API server: at each of its writes a test may hold it, do
//! something of its own first, or kill it when the write is done and not answered.

use crate::lab::{Controller, Room};
use openssl::ssl::{SslConnector, SslMethod, SslStream, SslVerifyMode};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// When a hook is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// The API server has not seen the write.
    Before,
    /// It has done it, and the controller does not know.
    Done,
}

/// What happens then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    Go,
    /// SIGKILL to the controller, which gets no answer.
    Kill,
}

/// Called for each write but those of the Lease, as `POST pods wave-web`, `PATCH plans/status wave`,
/// or `POST events Converted`.
type Hook = dyn Fn(When, &str) -> Then + Send + Sync;

/// A gate for the controllers of one namespace.
pub struct Gate {
    kubeconfig: PathBuf,
    victim: Arc<AtomicU32>,
    writes: Arc<Mutex<Vec<String>>>,
}

impl Gate {
    pub fn new(room: &Room, hook: impl Fn(When, &str) -> Then + Send + Sync + 'static) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let direct = Controller::kubeconfig(room.server, &room.namespace);
        let mut config: Value =
            serde_json::from_str(&std::fs::read_to_string(direct).unwrap()).unwrap();
        config["clusters"][0]["cluster"] = json!({ "server": format!("http://127.0.0.1:{port}") });
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let kubeconfig = room.server.dir().join(format!("gate-{number}.kubeconfig"));
        std::fs::write(&kubeconfig, config.to_string()).unwrap();
        let to = room.server.url.trim_start_matches("https://").to_owned();
        let (victim, writes) = (Arc::new(AtomicU32::new(0)), Arc::new(Mutex::new(Vec::new())));
        let passage = Arc::new(Passage {
            to,
            victim: victim.clone(),
            writes: writes.clone(),
            hook: Box::new(hook),
        });
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let passage = passage.clone();
                // A connection that breaks is the controller's business.
                std::thread::spawn(move || passage.serve(stream));
            }
        });
        Self { kubeconfig, victim, writes }
    }

    /// Starts a controller behind it, which is the one that is killed.
    pub fn controller(&self, room: &Room, more: &[&str]) -> Controller {
        let controller =
            Controller::start_with(&self.kubeconfig, room.server, &room.namespace, more);
        self.victim.store(controller.id(), Ordering::SeqCst);
        controller
    }

    /// All writes so far, each with the status of its answer: `201 POST pods wave-web`.
    pub fn writes(&self) -> Vec<String> {
        self.writes.lock().unwrap().clone()
    }
}

struct Passage {
    to: String,
    victim: Arc<AtomicU32>,
    writes: Arc<Mutex<Vec<String>>>,
    hook: Box<Hook>,
}

impl Passage {
    fn serve(&self, stream: TcpStream) -> Option<()> {
        let mut connector = SslConnector::builder(SslMethod::tls()).ok()?;
        connector.set_verify(SslVerifyMode::NONE);
        let there = TcpStream::connect(&self.to).ok()?;
        let there = connector.build().connect("127.0.0.1", there).ok()?;
        let mut there = BufReader::new(there);
        let mut here = BufReader::new(stream);
        loop {
            let (head, length) = head(&mut here)?;
            let mut body = vec![0; length.unwrap_or(0)];
            here.read_exact(&mut body).ok()?;
            let write = write_of(&head, &body);
            if let Some(write) = &write {
                self.ask(When::Before, write)?;
            }
            let upstream = there.get_mut();
            upstream.write_all(head.as_bytes()).ok()?;
            upstream.write_all(&body).ok()?;
            upstream.flush().ok()?;
            let (answer, length) = self::head(&mut there)?;
            if let Some(write) = &write {
                let code = answer.split(' ').nth(1)?;
                self.writes.lock().unwrap().push(format!("{code} {write}"));
                self.ask(When::Done, write)?;
            }
            let client = here.get_mut();
            client.write_all(answer.as_bytes()).ok()?;
            match length {
                Some(length) => {
                    let mut body = vec![0; length];
                    there.read_exact(&mut body).ok()?;
                    client.write_all(&body).ok()?;
                }
                None => chunks(&mut there, client)?,
            }
        }
    }

    /// `None` when the connection is to end.
    fn ask(&self, when: When, write: &str) -> Option<()> {
        match (self.hook)(when, write) {
            Then::Go => Some(()),
            Then::Kill => {
                let pid = i32::try_from(self.victim.load(Ordering::SeqCst)).unwrap();
                let _ = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
                None
            }
        }
    }
}

/// The head of a request or an answer, and the length of what follows when it says one.
fn head(from: &mut impl std::io::BufRead) -> Option<(String, Option<usize>)> {
    let (mut head, mut length) = (String::new(), None);
    loop {
        let begin = head.len();
        if from.read_line(&mut head).ok()? == 0 {
            return None;
        }
        let line = head[begin..].trim_end().to_ascii_lowercase();
        if let Some(n) = line.strip_prefix("content-length:") {
            length = n.trim().parse().ok();
        }
        if line.is_empty() {
            return Some((head, length));
        }
    }
}

/// Passes on chunks as they come, since a watch has no end.
fn chunks(there: &mut BufReader<SslStream<TcpStream>>, client: &mut TcpStream) -> Option<()> {
    loop {
        let mut line = String::new();
        there.read_line(&mut line).ok().filter(|n| *n > 0)?;
        let size = usize::from_str_radix(line.trim(), 16).ok()?;
        let mut chunk = vec![0; size + 2];
        there.read_exact(&mut chunk).ok()?;
        client.write_all(line.as_bytes()).ok()?;
        client.write_all(&chunk).ok()?;
        if size == 0 {
            return Some(());
        }
    }
}

/// `None` for a read, and for the Lease.
fn write_of(head: &str, body: &[u8]) -> Option<String> {
    let mut words = head.split(' ');
    let (verb, path) = (words.next()?, words.next()?);
    let (_, rest) = path.split('?').next()?.split_once("/namespaces/")?;
    let mut parts = rest.split('/').skip(1);
    let resource = parts.next()?;
    if verb == "GET" || resource == "leases" {
        return None;
    }
    if verb == "POST" {
        let object: Value = serde_json::from_slice(body).ok()?;
        let name = object["reason"].as_str().or(object["metadata"]["name"].as_str())?;
        return Some(format!("POST {resource} {name}"));
    }
    let name = parts.next()?;
    let sub = parts.next().map(|sub| format!("/{sub}")).unwrap_or_default();
    Some(format!("{verb} {resource}{sub} {name}"))
}

//! Asks a conversion pod: its result (`docs/contract.md`, port 8080) and its state (port 2113).

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A pod answers at once, or it is not there.
const CONNECT: Duration = Duration::from_secs(3);
/// For a whole answer.
const ANSWER: Duration = Duration::from_secs(20);
/// The most that is read of an answer: a VM's description has some KiB.
const MAX_BYTES: usize = 4 << 20;

/// A pod was asked in vain.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection.
    #[error("the pod cannot be reached at {0}: is a NetworkPolicy in between?")]
    Connect(SocketAddr, #[source] std::io::Error),
    /// No whole answer.
    #[error("the pod at {at}{path} gave no answer")]
    Answer {
        /// Where.
        at: SocketAddr,
        /// What was asked for.
        path: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A wrong answer.
    #[error("the pod at {at}{path} answered {status}: {text}")]
    Status {
        /// Where.
        at: SocketAddr,
        /// What was asked for.
        path: &'static str,
        /// HTTP's code.
        status: u16,
        /// Its words.
        text: String,
    },
}

/// Whether something listens there: the result is complete. That nothing does yet is what the pod's
/// own kernel says; where nobody says anything, the pod would never be ready.
pub async fn is_open(ip: IpAddr, port: u16) -> Result<bool, Error> {
    match connect(SocketAddr::new(ip, port)).await {
        Ok(_) => Ok(true),
        Err(Error::Connect(_, why)) if why.kind() == ErrorKind::ConnectionRefused => Ok(false),
        Err(error) => Err(error),
    }
}

async fn connect(at: SocketAddr) -> Result<TcpStream, Error> {
    let stream = timeout(CONNECT, TcpStream::connect(at)).await.unwrap_or_else(|_| Err(late()));
    stream.map_err(|source| Error::Connect(at, source))
}

fn late() -> std::io::Error {
    std::io::Error::from(ErrorKind::TimedOut)
}

/// Asks for a page; empty when there is none (204).
pub async fn get(ip: IpAddr, port: u16, path: &'static str) -> Result<String, Error> {
    ask(Method::GET, SocketAddr::new(ip, port), path).await
}

/// Ends the pod. The answer may be cut off by the end.
pub async fn shutdown(ip: IpAddr, port: u16) -> Result<(), Error> {
    match ask(Method::POST, SocketAddr::new(ip, port), "/shutdown").await {
        Ok(_) | Err(Error::Answer { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

async fn ask(method: Method, at: SocketAddr, path: &'static str) -> Result<String, Error> {
    let stream = connect(at).await?;
    let answer = timeout(ANSWER, exchange(stream, method, at, path)).await;
    let (status, text) = answer
        .unwrap_or_else(|_| Err(late().into()))
        .map_err(|source| Error::Answer { at, path, source })?;
    if (200..300).contains(&status) {
        return Ok(text);
    }
    let text = text.chars().take(200).collect();
    Err(Error::Status { at, path, status, text })
}

type Boxed = Box<dyn std::error::Error + Send + Sync>;

async fn exchange(
    stream: TcpStream,
    method: Method,
    at: SocketAddr,
    path: &str,
) -> Result<(u16, String), Boxed> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", at.to_string())
        .header("connection", "close")
        .body(Empty::new())?;
    let talk = async {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_BYTES).collect().await?.to_bytes();
        Ok::<_, Boxed>((status, String::from_utf8(body.to_vec())?))
    };
    // The connection is driven here, so that nothing is left running.
    tokio::pin!(talk, connection);
    tokio::select! {
        answer = &mut talk => answer,
        _ = &mut connection => talk.await,
    }
}

/// How far the copy is, as the live page's `/state` has it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Progress {
    /// The phase.
    #[serde(default)]
    pub phase: Option<String>,
    /// By disk.
    #[serde(default)]
    pub disks: Vec<DiskProgress>,
}

/// How far a disk is.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct DiskProgress {
    /// Bytes that are dealt with.
    #[serde(default)]
    pub done_bytes: u64,
    /// Bytes per second.
    #[serde(default)]
    pub rate_bytes_per_second: f64,
}

/// How far the pod is; `None` when it does not say.
pub async fn progress(ip: IpAddr, port: u16) -> Option<Progress> {
    let text = get(ip, port, "/state").await.ok()?;
    serde_json::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    /// Serves one answer, and says what was asked.
    fn server(answer: &'static str) -> (u16, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind((HERE, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = [0; 1000];
            let read = stream.read(&mut buffer).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&buffer[..read]).into_owned()
        });
        (port, asked)
    }

    #[tokio::test]
    async fn pages_are_read() {
        let (port, asked) = server("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc");
        assert_eq!(get(HERE, port, "/vm").await.unwrap(), "abc");
        assert!(asked.join().unwrap().starts_with("GET /vm HTTP/1.1\r\n"));
        let (port, _asked) = server("HTTP/1.1 500 X\r\ncontent-length: 2\r\n\r\nno");
        assert!(matches!(get(HERE, port, "/vm").await, Err(Error::Status { status: 500, .. })));
        let (port, _asked) = server("HTTP/1.1 200 OK\r\ncontent-length: 30\r\n\r\nabc");
        assert!(matches!(get(HERE, port, "/vm").await, Err(Error::Answer { .. })));
    }

    #[tokio::test]
    async fn an_end_without_an_answer_is_an_end() {
        let (port, asked) = server("");
        shutdown(HERE, port).await.unwrap();
        assert!(asked.join().unwrap().starts_with("POST /shutdown"));
        assert!(!is_open(HERE, port).await.unwrap());
        assert!(matches!(shutdown(HERE, port).await, Err(Error::Connect(..))));
    }

    #[tokio::test]
    async fn a_pod_that_cannot_be_reached_is_not_one_that_is_not_ready() {
        let listener = TcpListener::bind((HERE, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(is_open(HERE, port).await.unwrap());
        drop(listener);
        assert!(!is_open(HERE, port).await.unwrap());
        // No host has this address: the kernel says so at once.
        let error = is_open(std::net::Ipv4Addr::BROADCAST.into(), 8080).await.unwrap_err();
        let said =
            "the pod cannot be reached at 255.255.255.255:8080: is a NetworkPolicy in between?";
        assert_eq!(error.to_string(), said);
    }
}

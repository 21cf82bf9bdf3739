//! A TCP connection and a TLS handshake on it, each within its time.

use super::endpoint::Endpoint;
use super::greeting::{self, Greeting, HEAD_BYTES};
use openssl::error::ErrorStack;
use openssl::ssl::Ssl;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_openssl::SslStream;
use url::Host;

/// The rest of a line comes with its beginning, or not at all.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How long a server may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// To be found by name, and then for each of its addresses to accept the connection.
    pub connect: Duration,
    /// For the TLS handshake.
    pub handshake: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), handshake: Duration::from_secs(15) }
    }
}

/// Where a connection stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Asking for the addresses of a name.
    Resolve,
    /// TLS, after TCP.
    Handshake,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolve => "resolving the name",
            Self::Handshake => "the TLS handshake",
        })
    }
}

/// Why there is no TLS connection.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The name has no address.
    #[error("the host name {host} cannot be resolved")]
    Resolve {
        /// The name.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// None of the addresses answered.
    #[error("{endpoint} cannot be reached: {attempts}")]
    Unreachable {
        /// The server.
        endpoint: Endpoint,
        /// Each address and what came of it.
        attempts: String,
    },
    /// Too slow.
    #[error("{endpoint} did not answer within {seconds} s in {step}")]
    Stalled {
        /// The server.
        endpoint: Endpoint,
        /// Where.
        step: Step,
        /// How long was waited.
        seconds: f64,
    },
    /// Closed without a word.
    #[error("{} closed the connection before the TLS handshake was done", .endpoint.at(.address.ip()))]
    Closed {
        /// The server.
        endpoint: Endpoint,
        /// Its address.
        address: SocketAddr,
    },
    /// It speaks something else.
    #[error("{} does not speak TLS: it answers {answer:?}", .endpoint.at(.address.ip()))]
    NotTls {
        /// The server.
        endpoint: Endpoint,
        /// Its address.
        address: SocketAddr,
        /// The first line of its answer.
        answer: String,
    },
    /// Neither TLS 1.2 nor 1.3.
    #[error("{} offers only {offered}; TLS 1.2 is the oldest that is accepted", .endpoint.at(.address.ip()))]
    TooOld {
        /// The server.
        endpoint: Endpoint,
        /// Its address.
        address: SocketAddr,
        /// What it offers, as far as known.
        offered: &'static str,
    },
    /// TLS, but no agreement.
    #[error("the TLS handshake with {} failed", .endpoint.at(.address.ip()))]
    Handshake {
        /// The server.
        endpoint: Endpoint,
        /// Its address.
        address: SocketAddr,
        /// OpenSSL's reason.
        source: openssl::ssl::Error,
    },
    /// Its certificate cannot be read.
    #[error("{} presents no certificate that can be read", .endpoint.at(.address.ip()))]
    Certificate {
        /// The server.
        endpoint: Endpoint,
        /// Its address.
        address: SocketAddr,
        /// OpenSSL's reason, when it has one.
        source: Option<ErrorStack>,
    },
    /// OpenSSL itself.
    #[error("TLS cannot be set up")]
    Setup(#[from] ErrorStack),
}

/// Connects to the first address that accepts.
pub(super) async fn dial(
    endpoint: &Endpoint,
    limits: &Limits,
) -> Result<(TcpStream, SocketAddr), ConnectError> {
    let mut attempts = Vec::new();
    for address in resolve(endpoint, limits.connect).await? {
        match timeout(limits.connect, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok((stream, address)),
            Ok(Err(e)) => attempts.push(format!("{address}: {e}")),
            Err(_) => {
                let seconds = limits.connect.as_secs_f64();
                attempts.push(format!("{address}: no answer within {seconds} s"));
            }
        }
    }
    if attempts.is_empty() {
        attempts.push("the name has no address".to_owned());
    }
    Err(ConnectError::Unreachable { endpoint: endpoint.clone(), attempts: attempts.join("; ") })
}

async fn resolve(endpoint: &Endpoint, limit: Duration) -> Result<Vec<SocketAddr>, ConnectError> {
    if let Some(ip) = endpoint.ip() {
        return Ok(vec![SocketAddr::new(ip, endpoint.port)]);
    }
    let Host::Domain(name) = &endpoint.host else { return Ok(Vec::new()) };
    match timeout(limit, lookup_host((name.as_str(), endpoint.port))).await {
        Ok(Ok(addresses)) => Ok(addresses.collect()),
        Ok(Err(source)) => Err(ConnectError::Resolve { host: name.clone(), source }),
        Err(_) => Err(ConnectError::Stalled {
            endpoint: endpoint.clone(),
            step: Step::Resolve,
            seconds: limit.as_secs_f64(),
        }),
    }
}

/// Speaks TLS on a connection.
pub(super) async fn handshake(
    endpoint: &Endpoint,
    stream: TcpStream,
    address: SocketAddr,
    ssl: Ssl,
    limit: Duration,
) -> Result<SslStream<Tap>, ConnectError> {
    let tap = Tap { stream, head: Vec::with_capacity(HEAD_BYTES) };
    let mut tls = SslStream::new(ssl, tap)?;
    let outcome = timeout(limit, Pin::new(&mut tls).connect()).await;
    let source = match outcome {
        Ok(Ok(())) => return Ok(tls),
        Ok(Err(e)) => Some(e),
        Err(_) => None,
    };
    let endpoint = endpoint.clone();
    if matches!(greeting::read(&tls.get_ref().head), Greeting::NotTls(_)) {
        tls.get_mut().read_line().await;
    }
    Err(match (greeting::read(&tls.get_ref().head), source) {
        (Greeting::NotTls(answer), _) => ConnectError::NotTls { endpoint, address, answer },
        (_, None) => {
            let seconds = limit.as_secs_f64();
            ConnectError::Stalled { endpoint, step: Step::Handshake, seconds }
        }
        (Greeting::TooOld(version), Some(_)) => {
            let offered = version.unwrap_or("versions of TLS before 1.2");
            ConnectError::TooOld { endpoint, address, offered }
        }
        (Greeting::Nothing, Some(_)) => ConnectError::Closed { endpoint, address },
        (Greeting::Tls, Some(source)) => ConnectError::Handshake { endpoint, address, source },
    })
}

/// Remembers the first bytes that came.
pub(super) struct Tap {
    stream: TcpStream,
    head: Vec<u8>,
}

impl Tap {
    /// OpenSSL stops reading where it sees that this is not TLS; people want to see the rest.
    async fn read_line(&mut self) {
        let mut more = [0; HEAD_BYTES];
        let reading = timeout(LAST_WORDS, AsyncReadExt::read(self, &mut more));
        // What there is, is in the head.
        let _ = reading.await;
    }
}

impl AsyncRead for Tap {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        let room = HEAD_BYTES - self.head.len();
        let new = buf.filled().get(before..).unwrap_or_default();
        self.head.extend_from_slice(&new[..new.len().min(room)]);
        result
    }
}

impl AsyncWrite for Tap {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

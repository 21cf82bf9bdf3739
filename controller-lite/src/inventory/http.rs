//! One connection to a server, verified, within time limits: made when it is needed, made again when it is gone.

use super::error::Error;
use super::server::Server;
use super::trust::Trust;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, COOKIE, HOST, SET_COOKIE};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use openssl::ssl::SslConnector;
use openssl::x509::X509VerifyResult;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_openssl::SslStream;
use url::Host;

/// How long a server may take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// For its name, then for each of its addresses to accept, then for the handshake.
    pub connect: Duration,
    /// For a reply: a busy vCenter takes its time with a page of VMs.
    pub call: Duration,
    /// For all of it.
    pub total: Duration,
    /// Objects to a page.
    pub page: u32,
    /// Before each further attempt when it cannot be reached.
    pub waits: Vec<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            call: Duration::from_secs(120),
            total: Duration::from_secs(600),
            page: 100,
            waits: [1, 2, 5].map(Duration::from_secs).to_vec(),
        }
    }
}

/// The path of VMware's SOAP.
const PATH: &str = "/sdk";
/// The oldest version that has all that is asked for; newer servers speak it too.
const VERSION: &str = "\"urn:vim25/6.5\"";
const SESSION: &str = "vmware_soap_session=";
/// A page of 100 VMs is some megabytes.
const MOST_BYTES: usize = 256 << 20;

/// A connection to be.
pub(super) struct Http {
    server: Server,
    trust: Trust,
    connector: SslConnector,
    limits: Limits,
    open: Option<Open>,
    /// The session.
    cookie: Option<String>,
}

struct Open {
    sender: SendRequest<Full<Bytes>>,
    /// hyper's end of it; ends when dropped.
    _driver: JoinSet<()>,
}

/// What came back.
pub(super) struct Reply {
    pub status: StatusCode,
    pub text: String,
}

impl Http {
    pub fn new(server: &Server, trust: &Trust, limits: &Limits) -> Result<Self, Error> {
        let connector = trust.connector()?;
        let (server, trust, limits) = (server.clone(), trust.clone(), limits.clone());
        Ok(Self { server, trust, connector, limits, open: None, cookie: None })
    }

    pub fn server(&self) -> String {
        self.server.to_string()
    }

    /// Forgets the session.
    pub fn forget(&mut self) {
        self.cookie = None;
    }

    /// Calls the server; a connection that cannot be made, or breaks, is made again. Every call here may be made twice.
    pub async fn post(&mut self, call: &'static str, body: &str) -> Result<Reply, Error> {
        for wait in self.limits.waits.clone() {
            match self.once(call, body).await {
                Err(
                    e
                    @ (Error::Unreachable { .. } | Error::Handshake { .. } | Error::Broken { .. }),
                ) => {
                    tracing::info!(error = %e, wait_s = wait.as_secs_f64(), "the source is asked again");
                }
                result => return result,
            }
            tokio::time::sleep(wait).await;
        }
        self.once(call, body).await
    }

    async fn once(&mut self, call: &'static str, body: &str) -> Result<Reply, Error> {
        let mut open = match self.alive().await {
            Some(open) => open,
            None => self.connect().await?,
        };
        let slow =
            |_| Error::Slow { server: self.server(), call, seconds: self.limits.call.as_secs() };
        let reply = timeout(self.limits.call, self.exchange(&mut open, call, body))
            .await
            .map_err(slow)??;
        let (reply, cookie) = reply;
        self.open = Some(open);
        if cookie.is_some() {
            self.cookie = cookie;
        }
        Ok(reply)
    }

    /// The connection of the last call, if the server has kept it.
    async fn alive(&mut self) -> Option<Open> {
        let mut open = self.open.take()?;
        open.sender.ready().await.ok()?;
        Some(open)
    }

    async fn exchange(
        &self,
        open: &mut Open,
        call: &'static str,
        body: &str,
    ) -> Result<(Reply, Option<String>), Error> {
        let broken = |reason: String| Error::Broken { server: self.server(), call, reason };
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(PATH)
            .header(HOST, self.server())
            .header(CONTENT_TYPE, "text/xml; charset=utf-8")
            .header("SOAPAction", VERSION);
        if let Some(cookie) = &self.cookie {
            request = request.header(COOKIE, cookie);
        }
        let request = request
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
            .map_err(|e| broken(e.to_string()))?;
        let response = open.sender.send_request(request).await.map_err(|e| broken(chain(&e)))?;
        let (head, body) = response.into_parts();
        let cookie =
            head.headers.get_all(SET_COOKIE).iter().find_map(|c| session(c.to_str().ok()?));
        let body = Limited::new(body, MOST_BYTES).collect().await;
        let bytes = body.map_err(|e| broken(chain(e.as_ref())))?.to_bytes();
        let text = String::from_utf8(bytes.into()).map_err(|_| Error::Reply {
            server: self.server(),
            call,
            reason: "it is not UTF-8".to_owned(),
        })?;
        Ok((Reply { status: head.status, text }, cookie))
    }

    async fn connect(&self) -> Result<Open, Error> {
        let limit = self.limits.connect;
        let stream = self.dial().await?;
        let name = match &self.server.host {
            Host::Domain(name) => name.clone(),
            Host::Ipv4(ip) => ip.to_string(),
            Host::Ipv6(ip) => ip.to_string(),
        };
        let ssl = self.trust.configure(&self.connector)?.into_ssl(&name)?;
        let mut tls = SslStream::new(ssl, stream)?;
        let done = timeout(limit, Pin::new(&mut tls).connect()).await;
        let done = done.map_err(|_| Error::Slow {
            server: self.server(),
            call: "the TLS handshake",
            seconds: limit.as_secs(),
        })?;
        if let Err(e) = done {
            let result = tls.ssl().verify_result();
            return Err(if result == X509VerifyResult::OK {
                Error::Handshake { server: self.server(), reason: chain(&e) }
            } else {
                let reason = result.error_string().to_owned();
                Error::NotVerified { server: self.server(), reason }
            });
        }
        self.trust.admit(&self.server, tls.ssl().peer_certificate().as_deref())?;
        let failed = |e: hyper::Error| Error::Broken {
            server: self.server(),
            call: "the first request",
            reason: chain(&e),
        };
        let (sender, connection) = handshake(TokioIo::new(tls)).await.map_err(failed)?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // Its error is the request's, too.
            let _ = connection.await;
        });
        Ok(Open { sender, _driver: driver })
    }

    async fn dial(&self) -> Result<TcpStream, Error> {
        let limit = self.limits.connect;
        let port = self.server.port;
        let late = || format!("no answer within {} s", limit.as_secs());
        let mut attempts = Vec::new();
        let addresses = match &self.server.host {
            Host::Ipv4(ip) => vec![SocketAddr::from((*ip, port))],
            Host::Ipv6(ip) => vec![SocketAddr::from((*ip, port))],
            Host::Domain(name) => match timeout(limit, lookup_host((name.as_str(), port))).await {
                Ok(Ok(found)) => found.collect(),
                Ok(Err(e)) => {
                    attempts.push(format!("its name cannot be resolved: {e}"));
                    Vec::new()
                }
                Err(_) => {
                    attempts.push(format!("its name: {}", late()));
                    Vec::new()
                }
            },
        };
        for address in addresses {
            match timeout(limit, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(e)) => attempts.push(format!("{address}: {e}")),
                Err(_) => attempts.push(format!("{address}: {}", late())),
            }
        }
        Err(Error::Unreachable { server: self.server(), attempts: attempts.join("; ") })
    }
}

/// The session's cookie, as it is to be sent back.
fn session(header: &str) -> Option<String> {
    let pair = header.split(';').next()?.trim();
    pair.starts_with(SESSION).then(|| pair.to_owned())
}

/// An error with its causes.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = error.source();
    }
    text
}

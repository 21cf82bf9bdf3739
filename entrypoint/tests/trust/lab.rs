//! A folder, a CA, and servers under it.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;
use v2v_pod::failure::{Class, Failure};
use v2v_pod::trust::{Endpoint, Fingerprint, Limits, Trust, TrustError, Trusted, check};
use v2v_pod_tests::pki::{Identity, Key, Spec};
use v2v_pod_tests::tls::TlsServer;

pub const LIMITS: Limits =
    Limits { connect: Duration::from_secs(20), handshake: Duration::from_secs(20) };
pub const LOCAL: Spec<'_> = Spec {
    common_name: "vc",
    dns: &["localhost"],
    ips: &["127.0.0.1"],
    from_days: -1,
    until_days: 30,
    key: Key::Ec,
    ca: false,
    for_clients: false,
};

/// A folder, a CA in it, and how to get at its servers.
pub struct Lab {
    pub dir: TempDir,
    pub root: Identity,
}

impl Lab {
    pub fn new() -> Self {
        let root = Identity::self_signed(&Spec::authority("root"));
        Self { dir: TempDir::new().unwrap(), root }
    }

    pub fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    pub fn serve(&self, identity: &Identity) -> TlsServer {
        TlsServer::openssl(self.dir.path(), identity, &[])
    }

    /// Trust in the root alone.
    pub fn ca(&self) -> Trust {
        ca(self.file("root.pem", &self.root.pem()))
    }

    /// Serves a certificate of this shape under the root, and checks it by the CA.
    pub async fn by_ca(&self, host: &str, spec: &Spec<'_>) -> Result<Trusted, TrustError> {
        let server = self.serve(&self.root.issue(spec));
        checked(&self.ca(), &at(host, server.address)).await
    }

    /// Serves a certificate of this shape under the root, and checks it by its thumbprint.
    pub async fn pinned(&self, host: &str, spec: &Spec<'_>) -> Trusted {
        let identity = self.root.issue(spec);
        let server = self.serve(&identity);
        let pin = Trust::Thumbprint(Fingerprint::of_sha1(&identity.der()));
        checked(&pin, &at(host, server.address)).await.unwrap()
    }
}

pub fn ca(file: PathBuf) -> Trust {
    Trust::Ca { file: Some(file), pin: None }
}

pub fn at(host: &str, address: SocketAddr) -> Endpoint {
    format!("{host}:{}", address.port()).parse().unwrap()
}

pub async fn checked(trust: &Trust, endpoint: &Endpoint) -> Result<Trusted, TrustError> {
    check(trust, endpoint, None, &LIMITS).await
}

#[track_caller]
pub fn failed(result: Result<Trusted, TrustError>, class: Class, parts: &[&str]) -> Failure {
    let failure = Failure::from(result.unwrap_err());
    let text = format!("{}\n{}", failure.message, failure.advice);
    assert_eq!(failure.class, class, "{text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
    failure
}

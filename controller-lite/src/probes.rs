//! What the kubelet asks: whether this process still does its tasks. One that waits for the lease is
//! as ready as the leader, or a new version would never take over from an old one.

use axum::Router;
use axum::routing::get;
use std::convert::Infallible;
use std::net::{Ipv4Addr, Ipv6Addr};
use tokio::net::TcpListener;

/// The port cannot be had.
#[derive(Debug, thiserror::Error)]
#[error(
    "port {port} for the kubelet's probes cannot be listened on; choose another one, or 0 for none"
)]
pub struct Error {
    port: u16,
    #[source]
    source: std::io::Error,
}

/// Listens on all addresses, IPv6 where the node has it. Port 0 is none.
pub async fn listen(port: u16) -> Result<Option<TcpListener>, Error> {
    if port == 0 {
        return Ok(None);
    }
    let listener = match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await,
    };
    listener.map(Some).map_err(|source| Error { port, source })
}

/// Answers until it is dropped.
pub async fn serve(listener: Option<TcpListener>) -> Infallible {
    if let Some(listener) = listener {
        let app = Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(|| async { "ok\n" }));
        // Errors of single connections do not end it.
        let _ = axum::serve(listener, app).await;
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    /// A port that is free now.
    async fn free() -> u16 {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).await;
        let v4 = || TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0));
        let listener = if let Ok(listener) = listener { listener } else { v4().await.unwrap() };
        listener.local_addr().unwrap().port()
    }

    #[tokio::test]
    async fn the_kubelet_gets_an_answer_over_ipv4_and_ipv6() {
        let listener = listen(free().await).await.unwrap();
        let address = listener.as_ref().unwrap().local_addr().unwrap();
        let v4 = ("127.0.0.1", address.port());
        let server = tokio::spawn(serve(listener));
        for (path, expected) in [("/healthz", "200"), ("/readyz", "200"), ("/", "404")] {
            let mut stream = TcpStream::connect(v4).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {expected}")), "{path}: {answer}");
        }
        if address.is_ipv6() {
            TcpStream::connect(("::1", address.port())).await.unwrap();
        }
        server.abort();
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_said_and_port_0_is_none() {
        let port = free().await;
        let _held = listen(port).await.unwrap();
        let error = listen(port).await.unwrap_err();
        assert!(error.to_string().contains(&format!("port {port} for the kubelet's probes")));
        assert!(listen(0).await.unwrap().is_none());
    }
}

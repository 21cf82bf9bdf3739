//! How the HTTP sinks start and stop: one loop for metrics, result and live page.

use axum::Router;
use std::future::{Future, IntoFuture};
use std::io;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// Serves `router` until `stop` resolves. Then no connection is accepted any more, idle ones are
/// closed, and answers under way have `grace` to be delivered.
///
/// Cancel safe: dropping the future stops the server in the same way, without the wait.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()>,
    grace: Duration,
) -> io::Result<()> {
    let (tell, told) = oneshot::channel::<()>();
    let server = axum::serve(listener, router)
        .with_graceful_shutdown(async {
            let _ = told.await;
        })
        .into_future();
    tokio::pin!(server);
    tokio::select! {
        ended = &mut server => return ended,
        () = stop => {}
    }
    let _ = tell.send(());
    // A peer that keeps half a request open must not keep the pod alive: after the grace its
    // connection is left to end with the runtime.
    tokio::time::timeout(grace, server).await.unwrap_or(Ok(()))
}

#[cfg(test)]
pub(super) mod testing {
    //! A raw HTTP client: the contract is about exact bytes, which client libraries tidy up.

    use std::future::Future;
    use std::net::SocketAddr;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    /// Runs a test on the kind of runtime that the program uses, for at most 20 s.
    pub(in crate::sinks) fn run<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(async { tokio::time::timeout(Duration::from_secs(20), test).await.unwrap() })
    }

    /// A listener on a free loopback port.
    pub(in crate::sinks) async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// Sends one request and reads until the server closes: (head, body).
    pub(in crate::sinks) async fn request(
        to: SocketAddr,
        method: &str,
        path: &str,
    ) -> (String, String) {
        let mut stream = TcpStream::connect(to).await.unwrap();
        let text = format!("{method} {path} HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n");
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (format!("{head}\r\n"), body.to_owned())
    }

    /// The value of a header in a head from [`request`].
    pub(in crate::sinks) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
        head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// The status code of a head from [`request`].
    pub(in crate::sinks) fn status(head: &str) -> u16 {
        head.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

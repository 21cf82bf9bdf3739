use super::super::http::testing::{header, listener, request, run, status};
use super::*;
use std::net::SocketAddr;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const YAML: &str = "apiVersion: kubevirt.io/v1\nkind: VirtualMachine\n";
const XML: &str = "<?xml version='1.0'?>\n<v2v-inspection/>\n";

/// A folder of this test's own, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("v2vpod-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn nothing() -> ResultFiles {
    ResultFiles { yaml: None, in_place: false, inspection: "/nonexistent".into(), warnings: vec![] }
}

/// (status, content type, body) of each request, asked of a server over `files`.
fn answers(files: ResultFiles, requests: &[(&str, &str)]) -> Vec<(u16, Option<String>, String)> {
    run(async {
        let (listener, address) = listener().await;
        let mut seen = Vec::new();
        let client = async {
            for (method, path) in requests {
                let (head, body) = request(address, method, path).await;
                let content_type = header(&head, "content-type").map(str::to_owned);
                seen.push((status(&head), content_type, body));
            }
        };
        assert_eq!(serve(listener, files, client).await.unwrap(), ShutdownCause::Cancelled);
        seen
    })
}

fn answer(status: u16, content_type: &str, body: &str) -> (u16, Option<String>, String) {
    let content_type = (!content_type.is_empty()).then(|| content_type.to_owned());
    (status, content_type, body.to_owned())
}

#[test]
fn http_local_migration_default() {
    let folder = Folder::new("default");
    let files = ResultFiles {
        yaml: Some(folder.file("vm.yaml", YAML)),
        inspection: folder.file("inspection.xml", XML),
        ..nothing()
    };
    let requests = [
        ("GET", "/vm"),
        ("GET", "/inspection"),
        ("GET", "/warnings"),
        ("POST", "/vm"),
        ("PUT", "/inspection?x=1"),
        ("GET", "/"),
        ("DELETE", "/vm/"),
        ("HEAD", "/vm"),
    ];
    let expected = [
        answer(200, "text/yaml", YAML),
        answer(200, "application/xml", XML),
        answer(204, "application/json", ""),
        answer(200, "text/yaml", YAML),
        answer(200, "application/xml", XML),
        answer(404, "text/plain; charset=utf-8", "404 page not found\n"),
        answer(404, "text/plain; charset=utf-8", "404 page not found\n"),
        answer(200, "text/yaml", ""),
    ];
    assert_eq!(answers(files, &requests), expected);
}

#[test]
fn http_customize_warning() {
    let warning = Warning { reason: "CustomizationFailed".into(), message: "a \"b\"".into() };
    let files = ResultFiles { warnings: vec![warning], ..nothing() };
    let json = r#"[{"reason":"CustomizationFailed","message":"a \"b\""}]"#;
    assert_eq!(answers(files, &[("GET", "/warnings")]), [answer(200, "application/json", json)]);
}

#[test]
fn http_inplace_disk_no_yaml() {
    let files = ResultFiles { in_place: true, ..nothing() };
    assert_eq!(
        answers(files, &[("GET", "/vm"), ("POST", "/vm")]),
        [answer(204, "", ""), answer(204, "", "")]
    );
}

#[test]
fn missing_files_are_said() {
    let text = "text/plain; charset=utf-8";
    let requests = [("GET", "/vm"), ("GET", "/inspection")];
    assert_eq!(
        answers(nothing(), &requests),
        [
            answer(500, text, "YAML file path is empty\n"),
            answer(500, text, "open /nonexistent: No such file or directory (os error 2)\n"),
        ]
    );
    let files = ResultFiles { yaml: Some("/nonexistent.yaml".into()), ..nothing() };
    let expected = [answer(500, text, "Error reading YAML file\n")];
    assert_eq!(answers(files, &requests[..1]), expected);
}

/// Serves, runs `client`, and says why and when (after the client's start) the server stopped.
fn stopped_by<C: Future<Output = ()>>(
    client: impl FnOnce(SocketAddr) -> C,
) -> (ShutdownCause, Duration) {
    run(async {
        let (listener, address) = listener().await;
        let server = serve(listener, nothing(), std::future::pending());
        let began = Instant::now();
        let stopped = async { (server.await.unwrap(), began.elapsed()) };
        let ((), stopped) = tokio::join!(client(address), stopped);
        stopped
    })
}

#[test]
fn shutdown_is_answered_before_the_server_stops() {
    let (cause, took) = stopped_by(|address| async move {
        let (head, body) = request(address, "POST", "/shutdown").await;
        assert_eq!((status(&head), body.as_str()), (204, ""));
    });
    assert_eq!(cause, ShutdownCause::Requested);
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn shutdown_closes_a_keep_alive_connection_at_once() {
    let (cause, took) = stopped_by(|address| async move {
        let mut idle = TcpStream::connect(address).await.unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        // Two requests on one connection, as Go's client does; the last one with a body.
        let mut answer = [0u8; 4096];
        stream.write_all(b"GET /warnings HTTP/1.1\r\nHost: pod\r\n\r\n").await.unwrap();
        let n = stream.read(&mut answer).await.unwrap();
        assert!(answer[..n].starts_with(b"HTTP/1.1 204 No Content\r\n"));
        let shutdown = b"POST /shutdown HTTP/1.1\r\nHost: pod\r\nContent-Length: 2\r\n\r\n{}";
        stream.write_all(shutdown).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 204 No Content\r\n"), "{answer}");
        assert_eq!(idle.read(&mut [0]).await.unwrap(), 0);
    });
    assert_eq!(cause, ShutdownCause::Requested);
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn half_a_request_delays_the_shutdown_by_the_grace_at_most() {
    let (cause, took) = stopped_by(|address| async move {
        let mut half = TcpStream::connect(address).await.unwrap();
        half.write_all(b"GET /vm HTTP/1.1\r\nHo").await.unwrap();
        // The server has read the half when it has answered a later connection.
        request(address, "GET", "/warnings").await;
        request(address, "POST", "/shutdown").await;
        tokio::time::sleep(GRACE + Duration::from_millis(500)).await;
        drop(half);
    });
    assert_eq!(cause, ShutdownCause::Requested);
    assert!(took < GRACE + Duration::from_secs(1), "{took:?}");
}

//! A plain HTTP/1.1 client for one request at a time. Lives here, and not in a crate, because it must run in
//! a process that may start no threads (see `inside`) and has to report half an answer as what it is.

use crate::records::HttpSeen;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(10);

/// Whether something listens on the port of the loopback interface.
pub fn is_open(port: u16) -> bool {
    connect(port).is_ok()
}

/// Sends one request and reads the answer until the server closes.
pub fn request(port: u16, method: &str, path: &str) -> HttpSeen {
    let mut seen = HttpSeen {
        request: format!("{method} {path}"),
        status: None,
        content_type: None,
        body: String::new(),
        error: None,
    };
    match exchange(port, method, path).and_then(|raw| parse(&raw)) {
        Ok((status, content_type, body)) => {
            seen.status = Some(status);
            seen.content_type = content_type;
            seen.body = body;
        }
        Err(error) => seen.error = Some(error),
    }
    seen
}

fn connect(port: u16) -> std::io::Result<TcpStream> {
    TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), LIMIT)
}

fn exchange(port: u16, method: &str, path: &str) -> Result<Vec<u8>, String> {
    let mut stream = connect(port).map_err(|e| format!("connect: {e}"))?;
    stream.set_read_timeout(Some(LIMIT)).map_err(|e| e.to_string())?;
    let length = if method == "POST" { "Content-Length: 0\r\n" } else { "" };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n{length}\r\n"
    );
    stream.write_all(head.as_bytes()).map_err(|e| format!("send: {e}"))?;
    let mut raw = Vec::new();
    match stream.read_to_end(&mut raw) {
        // A reset after a complete answer is not held against the server.
        Err(e) if e.kind() != ErrorKind::ConnectionReset || raw.is_empty() => {
            Err(format!("receive: {e}"))
        }
        _ if raw.is_empty() => Err("closed without an answer".to_owned()),
        _ => Ok(raw),
    }
}

fn parse(raw: &[u8]) -> Result<(u16, Option<String>, String), String> {
    let text = String::from_utf8_lossy(raw);
    let (head, body) = text.split_once("\r\n\r\n").ok_or("no end of headers")?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|l| l.split(' ').nth(1)).and_then(|s| s.parse().ok());
    let status = status.ok_or_else(|| format!("no status line: {head}"))?;
    let headers: Vec<_> = lines.filter_map(|l| l.split_once(':')).collect();
    let header = |name: &str| {
        headers.iter().find(|(k, _)| k.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim().to_owned())
    };
    let body = if header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
        unchunk(body)?
    } else {
        if let Some(length) = header("content-length").and_then(|v| v.parse::<usize>().ok())
            && length != body.len()
        {
            return Err(format!("{} bytes of a body of {length}", body.len()));
        }
        body.to_owned()
    };
    Ok((status, header("content-type"), body))
}

fn unchunk(mut rest: &str) -> Result<String, String> {
    let mut body = String::new();
    loop {
        let (size, tail) = rest.split_once("\r\n").ok_or("chunked body ends early")?;
        let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16)
            .map_err(|e| format!("chunk size {size}: {e}"))?;
        if size == 0 {
            return Ok(body);
        }
        body.push_str(tail.get(..size).ok_or("chunk ends early")?);
        rest = tail.get(size + 2..).ok_or("chunk ends early")?;
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn reads_both_body_framings() {
        let plain = b"HTTP/1.1 200 OK\r\nContent-Type: text/yaml\r\nContent-Length: 3\r\n\r\na: ";
        assert_eq!(parse(plain).unwrap(), (200, Some("text/yaml".into()), "a: ".into()));
        let chunked =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n";
        assert_eq!(parse(chunked).unwrap(), (200, None, "abcd".into()));
    }

    #[test]
    fn half_a_body_is_an_error() {
        assert!(parse(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc").is_err());
    }
}

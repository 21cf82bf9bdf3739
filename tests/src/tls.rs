//! TLS servers: those of OpenSSL and `GnuTLS` with a given identity, and some that misbehave.

use crate::pki::{Files, Identity};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// A server that does not listen by then never will.
const STARTUP: Duration = Duration::from_secs(20);

/// A TLS server in a process of its own, killed when dropped.
#[derive(Debug)]
pub struct TlsServer {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl TlsServer {
    /// `openssl s_server` on 127.0.0.1.
    pub fn openssl(dir: &Path, identity: &Identity, options: &[&str]) -> Self {
        Self::openssl_at("127.0.0.1", dir, identity, options)
    }

    /// `openssl s_server` on this address (IPv6 in brackets).
    pub fn openssl_at(ip: &str, dir: &Path, identity: &Identity, options: &[&str]) -> Self {
        let files = identity.write(dir, "openssl");
        let mut command = Command::new("openssl");
        command.args(["s_server", "-www", "-accept", &format!("{ip}:0"), "-cert"]);
        command.arg(&files.certificate).arg("-key").arg(&files.key);
        if !identity.intermediates.is_empty() {
            command.arg("-cert_chain").arg(&files.chain);
        }
        let family = if ip.starts_with('[') { "-6" } else { "-4" };
        command.arg(family).args(options);
        let (child, line) = started(command, |line| line.starts_with("ACCEPT "));
        let address = line.trim_start_matches("ACCEPT ").trim().parse();
        Self { child, address: address.unwrap_or_else(|e| panic!("{line}: {e}")) }
    }

    /// `gnutls-serv` on 127.0.0.1, with a priority string.
    pub fn gnutls(dir: &Path, identity: &Identity, priority: &str) -> Self {
        let Files { certificate, key, chain } = identity.write(dir, "gnutls");
        let mut all = std::fs::read(&certificate).unwrap();
        all.extend(std::fs::read(&chain).unwrap());
        std::fs::write(&certificate, all).unwrap();
        // It cannot choose a port itself. Nobody else takes this one in between: the kernel hands
        // out others first.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new("gnutls-serv");
        command.args(["--http", "--port", &address.port().to_string(), "--priority", priority]);
        command.arg("--x509certfile").arg(certificate).arg("--x509keyfile").arg(key);
        let (child, _) = started(command, |line| line.contains("listening on IPv4"));
        Self { child, address }
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a server and waits for the line that says that it listens; reads on after it.
fn started(mut command: Command, listens: fn(&str) -> bool) -> (Child, String) {
    let shown = format!("{command:?}");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{shown}: {e}"));
    let (tell, lines) = mpsc::channel();
    let streams: [Box<dyn Read + Send>; 2] =
        [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
    for stream in streams {
        let tell = tell.clone();
        thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
    }
    drop(tell);
    let mut said = Vec::new();
    loop {
        match lines.recv_timeout(STARTUP) {
            Ok(line) if listens(&line) => return (child, line),
            Ok(line) => said.push(line),
            Err(e) => {
                let _ = child.kill();
                let _ = child.wait();
                panic!("{shown} does not listen ({e}): {said:?}");
            }
        }
    }
}

/// A server on 127.0.0.1 that accepts, says this, and then closes, or waits for the client to.
pub fn plain(greeting: &'static [u8], then_close: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.write_all(greeting);
            if !then_close {
                let _ = stream.read_to_end(&mut Vec::new());
            }
        }
    });
    address
}

/// An address where nobody listens.
pub fn refused() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

//! TLS with nbdkit: certificates made here, and pre-shared keys.

use crate::content::{Image, SIZE};
use crate::peer::{Peer, free_port, run};
use crate::{client, source, there_and_back, timed};
use std::path::Path;
use std::sync::LazyLock;
use tempfile::TempDir;

/// `good` and `other` have authorities of their own; both folders have certificates of server and client.
static CERTIFICATES: LazyLock<TempDir> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    for name in ["good", "other"] {
        let folder = dir.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        make_certificates(&folder);
    }
    dir
});

fn make_certificates(dir: &Path) {
    let file = |name: &str| dir.join(name).display().to_string();
    let (ca, ca_key) = (file("ca-cert.pem"), file("ca-key.pem"));
    let new = ["req", "-x509", "-nodes", "-days", "2", "-newkey", "ec"];
    let new = [&new[..], &["-pkeyopt", "ec_paramgen_curve:P-256"]].concat();
    run("openssl", &[&new[..], &["-subj", "/CN=ca", "-keyout", &ca_key, "-out", &ca]].concat());
    for who in ["server", "client"] {
        let (cert, key) = (file(&format!("{who}-cert.pem")), file(&format!("{who}-key.pem")));
        let names = ["-subj", "/CN=localhost", "-addext", "basicConstraints=CA:FALSE", "-addext"];
        let names = [&names[..], &["subjectAltName=DNS:localhost,IP:127.0.0.1"]].concat();
        let files = ["-CA", &ca, "-CAkey", &ca_key, "-keyout", &key, "-out", &cert];
        run("openssl", &[&new[..], &names, &files].concat());
    }
}

/// A folder of certificates.
fn folder(name: &str) -> String {
    CERTIFICATES.path().join(name).display().to_string()
}

/// An nbdkit that takes nothing but TLS.
fn nbdkit(more: &[&str]) -> Peer {
    let certificates = format!("--tls-certificates={}", folder("good"));
    let size = SIZE.to_string();
    Peer::nbdkit(&[&["--tls=require", &certificates], more, &["memory", &size]].concat())
}

fn uri(peer: &Peer, parameters: &str) -> String {
    format!("nbds+unix:///?socket={}&{parameters}", peer.socket())
}

async fn refusal(uri: &str) -> String {
    datapath::error_chain(&source(uri).await.unwrap_err())
}

#[test]
fn certificates_over_a_unix_socket_work() {
    timed(async {
        let peer = nbdkit(&[]);
        let uri = uri(&peer, &format!("tls-certificates={}", folder("good")));
        there_and_back(&uri, &Image::new().path).await;
    });
}

#[test]
fn certificates_over_a_port_work() {
    timed(async {
        let port = free_port();
        let certificates = format!("--tls-certificates={}", folder("good"));
        let size = SIZE.to_string();
        let _peer = Peer::nbdkit_tcp(port, &["--tls=require", &certificates, "memory", &size]);
        for host in ["127.0.0.1", "localhost"] {
            let uri = format!("nbds://{host}:{port}/?tls-certificates={}", folder("good"));
            there_and_back(&uri, &Image::new().path).await;
        }
    });
}

#[test]
fn a_client_certificate_is_given_when_the_server_wants_one() {
    timed(async {
        let peer = nbdkit(&["--tls-verify-peer"]);
        let with = uri(&peer, &format!("tls-certificates={}", folder("good")));
        there_and_back(&with, &Image::new().path).await;
        // With TLS 1.3 the client learns of the refusal only after its own half of the handshake.
        let without = refusal(&uri(&peer, "tls-verify-peer=false")).await;
        assert!(without.contains("certificate") || without.contains("lost"), "{without}");
        let other = uri(&peer, &format!("tls-certificates={}", folder("other")));
        assert!(refusal(&other).await.contains("certificate verify failed"));
    });
}

#[test]
fn a_certificate_of_an_unknown_authority_is_refused() {
    timed(async {
        let peer = nbdkit(&[]);
        let other = format!("tls-certificates={}", folder("other"));
        for parameters in ["", "tls-verify-peer=true", &other] {
            let e = refusal(&uri(&peer, parameters)).await;
            assert!(e.contains("certificate verify failed"), "{parameters}: {e}");
        }
    });
}

#[test]
fn a_certificate_for_another_name_is_refused_and_a_name_can_be_given() {
    timed(async {
        let peer = nbdkit(&[]);
        let good = format!("tls-certificates={}", folder("good"));
        let e = refusal(&uri(&peer, &format!("{good}&tls-hostname=example.org"))).await;
        assert!(e.contains("certificate verify failed"), "{e}");
        let named = uri(&peer, &format!("{good}&tls-hostname=127.0.0.1"));
        assert_eq!(client(&source(&named).await.unwrap()).size(), SIZE);
    });
}

#[test]
fn verification_can_be_switched_off() {
    timed(async {
        let peer = nbdkit(&[]);
        let uri = uri(&peer, "tls-verify-peer=false");
        there_and_back(&uri, &Image::new().path).await;
    });
}

#[test]
fn a_server_that_wants_tls_says_so_to_a_plain_client() {
    timed(async {
        let peer = nbdkit(&[]);
        let e = refusal(&peer.uri()).await;
        assert!(e.contains("nbds://"), "{e}");
    });
}

#[test]
fn a_server_without_tls_is_never_used_in_the_clear() {
    timed(async {
        let peer = Peer::nbdkit(&["--tls=off", "memory", "1M"]);
        let e = refusal(&uri(&peer, "tls-verify-peer=false")).await;
        assert!(e.contains("refused TLS"), "{e}");
    });
}

#[test]
fn certificates_that_are_not_there_are_named() {
    timed(async {
        let peer = nbdkit(&[]);
        let e = refusal(&uri(&peer, "tls-certificates=/nowhere")).await;
        assert!(e.contains("/nowhere/ca-cert.pem"), "{e}");
    });
}

const ALICE: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const MALLORY: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";

/// A file of keys.
fn keys(dir: &TempDir, name: &str, text: &str) -> String {
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn a_pre_shared_key_works_and_a_wrong_one_does_not() {
    timed(async {
        let dir = tempfile::tempdir().unwrap();
        let right = keys(&dir, "right", &format!("bob:abcd\nalice:{ALICE}\n"));
        let wrong = keys(&dir, "wrong", &format!("alice:{MALLORY}\nmallory:{ALICE}\n"));
        let server = format!("--tls-psk={right}");
        let size = SIZE.to_string();
        let peer = Peer::nbdkit(&["--tls=require", &server, "memory", &size]);
        let uri = |user: &str, file: &str| {
            format!("nbds+unix://{user}@/?socket={}&tls-psk-file={file}", peer.socket())
        };
        there_and_back(&uri("alice", &right), &Image::new().path).await;
        for (user, file) in [("alice", &wrong), ("mallory", &wrong)] {
            let e = refusal(&uri(user, file)).await;
            assert!(e.contains("TLS") && !e.contains(MALLORY) && !e.contains(ALICE), "{user}: {e}");
        }
        let nobody = refusal(&uri("carol", &right)).await;
        assert!(nobody.contains("no key for \"carol\""), "{nobody}");
    });
}

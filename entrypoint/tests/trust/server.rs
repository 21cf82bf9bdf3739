//! Addresses, versions of TLS, and servers that misbehave.

use crate::lab::{LIMITS, LOCAL, Lab, at, checked, failed};
use std::time::{Duration, Instant};
use v2v_pod::failure::Class;
use v2v_pod::trust::{Endpoint, Fingerprint, Limits, Trust, check};
use v2v_pod_tests::pki::{Key, Spec};
use v2v_pod_tests::tls::{TlsServer, plain, refused};

#[tokio::test]
async fn ipv6() {
    let lab = Lab::new();
    let identity = lab.root.issue(&Spec { ips: &["::1"], ..LOCAL });
    let server = TlsServer::openssl_at("[::1]", lab.dir.path(), &identity, &[]);
    let peer = checked(&lab.ca(), &at("[::1]", server.address)).await.unwrap().peer.unwrap();
    assert_eq!(peer.address, server.address);
    assert_eq!(peer.names, ["localhost", "::1"]);
    let identity = lab.root.issue(&LOCAL);
    let server = TlsServer::openssl_at("[::1]", lab.dir.path(), &identity, &[]);
    failed(
        checked(&lab.ca(), &at("[::1]", server.address)).await,
        Class::Trust,
        &["not for [::1]"],
    );
}

#[tokio::test]
async fn versions_and_kinds_of_keys() {
    let lab = Lab::new();
    for key in [Key::Ec, Key::Rsa(2048)] {
        let identity = lab.root.issue(&Spec { key, ..LOCAL });
        for (option, priority, version) in [
            ("-tls1_2", "NORMAL:-VERS-ALL:+VERS-TLS1.2", "TLSv1.2"),
            ("-tls1_3", "NORMAL:-VERS-ALL:+VERS-TLS1.3", "TLSv1.3"),
        ] {
            let openssl = TlsServer::openssl(lab.dir.path(), &identity, &[option]);
            let gnutls = TlsServer::gnutls(lab.dir.path(), &identity, priority);
            for server in [openssl, gnutls] {
                let trusted = checked(&lab.ca(), &at("127.0.0.1", server.address)).await.unwrap();
                let peer = trusted.peer.unwrap();
                assert_eq!((peer.tls, peer.is_verified()), (version, true), "{key:?}");
            }
        }
    }
}

#[tokio::test]
async fn old_versions_are_named() {
    let lab = Lab::new();
    let identity = lab.root.issue(&Spec { key: Key::Rsa(2048), ..LOCAL });
    let old = ["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"];
    let openssl = TlsServer::openssl(lab.dir.path(), &identity, &old);
    let gnutls = TlsServer::gnutls(lab.dir.path(), &identity, "NORMAL:-VERS-ALL:+VERS-TLS1.1");
    for server in [openssl, gnutls] {
        for trust in [lab.ca(), Trust::Thumbprint(Fingerprint::of_sha1(&identity.der()))] {
            let result = checked(&trust, &at("127.0.0.1", server.address)).await;
            let failure = failed(result, Class::Network, &["offers only", "enable TLS 1.2"]);
            assert!(
                failure.message.contains("before 1.2") || failure.message.contains("TLS 1.1"),
                "{failure}"
            );
        }
    }
}

#[tokio::test]
async fn servers_that_do_not_speak_tls() {
    let lab = Lab::new();
    let endpoint = at("127.0.0.1", plain(b"HTTP/1.1 400 Bad Request\r\n\r\n", false));
    let parts = ["does not speak TLS: it answers \"HTTP/1.1 400 Bad Request\"", "right port?"];
    failed(checked(&lab.ca(), &endpoint).await, Class::Network, &parts);
    let endpoint = at("127.0.0.1", plain(b"220 VMware Authentication Daemon\r\n", false));
    let trust = Trust::Thumbprint(Fingerprint::of_sha1(b""));
    failed(checked(&trust, &endpoint).await, Class::Network, &["220 VMware"]);
    let endpoint = at("127.0.0.1", plain(b"", true));
    failed(checked(&lab.ca(), &endpoint).await, Class::Network, &["closed the connection"]);
}

#[tokio::test]
async fn a_server_that_stalls_is_not_waited_for() {
    let limits = Limits { handshake: Duration::from_millis(300), ..LIMITS };
    // Silent, and silent in the middle of a record.
    for greeting in [&b""[..], &b"\x16\x03\x03\x00\x99\x02"[..]] {
        let endpoint = at("localhost", plain(greeting, false));
        let begun = Instant::now();
        let trust = Trust::Thumbprint(Fingerprint::of_sha1(b""));
        let result = check(&trust, &endpoint, None, &limits).await;
        failed(result, Class::Network, &["did not answer within 0.3 s in the TLS handshake"]);
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}

#[tokio::test]
async fn servers_that_are_not_there() {
    let lab = Lab::new();
    let endpoint = at("localhost", refused());
    let parts = ["cannot be reached: ", "127.0.0.1:", "Connection refused", "firewall"];
    failed(checked(&lab.ca(), &endpoint).await, Class::Network, &parts);
    let endpoint: Endpoint = "vcenter.invalid".parse().unwrap();
    failed(
        checked(&lab.ca(), &endpoint).await,
        Class::Network,
        &["vcenter.invalid cannot be resolved"],
    );
}

//! Trust against real TLS servers: `openssl s_server` and `gnutls-serv`, with certificates of every
//! shape, and servers that misbehave. Names that do not resolve here are `localhost`.

// clippy.toml allows these in `#[test]` functions only; here everything is test code.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use v2v_pod::failure::{Class, Failure};
use v2v_pod::trust::{
    Anchors, Endpoint, Fingerprint, Limits, Trust, TrustError, Trusted, Verification, check, verify,
};
use v2v_pod_tests::pki::{Identity, Key, Spec};
use v2v_pod_tests::tls::{TlsServer, plain, refused};

const LIMITS: Limits =
    Limits { connect: Duration::from_secs(20), handshake: Duration::from_secs(20) };
const LOCAL: Spec<'_> = Spec {
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
struct Lab {
    dir: TempDir,
    root: Identity,
}

impl Lab {
    fn new() -> Self {
        let root = Identity::self_signed(&Spec::authority("root"));
        Self { dir: TempDir::new().unwrap(), root }
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn serve(&self, identity: &Identity) -> TlsServer {
        TlsServer::openssl(self.dir.path(), identity, &[])
    }

    /// Trust in the root alone.
    fn ca(&self) -> Trust {
        ca(self.file("root.pem", &self.root.pem()))
    }

    /// Serves a certificate of this shape under the root, and checks it by the CA.
    async fn by_ca(&self, host: &str, spec: &Spec<'_>) -> Result<Trusted, TrustError> {
        let server = self.serve(&self.root.issue(spec));
        checked(&self.ca(), &at(host, server.address)).await
    }

    /// Serves a certificate of this shape under the root, and checks it by its thumbprint.
    async fn pinned(&self, host: &str, spec: &Spec<'_>) -> Trusted {
        let identity = self.root.issue(spec);
        let server = self.serve(&identity);
        let pin = Trust::Thumbprint(Fingerprint::of_sha1(&identity.der()));
        checked(&pin, &at(host, server.address)).await.unwrap()
    }
}

fn ca(file: PathBuf) -> Trust {
    Trust::Ca { file: Some(file), pin: None }
}

fn at(host: &str, address: SocketAddr) -> Endpoint {
    format!("{host}:{}", address.port()).parse().unwrap()
}

async fn checked(trust: &Trust, endpoint: &Endpoint) -> Result<Trusted, TrustError> {
    check(trust, endpoint, None, &LIMITS).await
}

#[track_caller]
fn failed(result: Result<Trusted, TrustError>, class: Class, parts: &[&str]) -> Failure {
    let failure = Failure::from(result.unwrap_err());
    let text = format!("{}\n{}", failure.message, failure.advice);
    assert_eq!(failure.class, class, "{text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
    failure
}

#[tokio::test]
async fn a_private_ca_vouches_through_an_intermediate() {
    let lab = Lab::new();
    let identity = lab.root.issue(&Spec::authority("intermediate")).issue(&LOCAL);
    let server = lab.serve(&identity);
    let trusted = checked(&lab.ca(), &at("localhost", server.address)).await.unwrap();
    let peer = trusted.peer.unwrap();
    assert!(peer.is_verified() && !peer.self_signed);
    assert_eq!((peer.chain.len(), peer.leaf()), (2, &identity.der()[..]));
    assert_eq!(trusted.thumbprint, Some(Fingerprint::of_sha1(&identity.der())));
    assert_eq!(peer.sha256, Fingerprint::of_sha256(&identity.der()));
    assert_eq!(peer.names, ["localhost", "127.0.0.1"]);
    assert_eq!(
        (peer.subject.as_str(), peer.issuer.as_str()),
        ("O=v2v-pod tests, CN=vc", "O=v2v-pod tests, CN=intermediate")
    );
    assert_eq!(
        (trusted.https_problem, trusted.anchor_pem, trusted.warnings.len()),
        (None, None, 0)
    );
}

#[tokio::test]
async fn another_ca_does_not_vouch() {
    let lab = Lab::new();
    let server = lab.serve(&lab.root.issue(&LOCAL));
    let other = Identity::self_signed(&Spec::authority("other")).pem();
    let result =
        checked(&ca(lab.file("other.pem", &other)), &at("localhost", server.address)).await;
    let parts = [
        "CN=other",
        "its issuer O=v2v-pod tests, CN=root is not a trusted one",
        "/certs/download.zip",
        "console",
    ];
    failed(result, Class::Trust, &parts);
    // The same name with another key: what an attacker would make.
    let twin = Identity::self_signed(&Spec::authority("root")).pem();
    let result = checked(&ca(lab.file("twin.pem", &twin)), &at("localhost", server.address)).await;
    failed(result, Class::Trust, &["does not verify"]);
}

#[tokio::test]
async fn a_missing_intermediate_is_an_unknown_issuer() {
    let lab = Lab::new();
    let mut identity = lab.root.issue(&Spec::authority("intermediate")).issue(&LOCAL);
    let intermediate = identity.intermediates.remove(0);
    let server = lab.serve(&identity);
    let endpoint = at("localhost", server.address);
    failed(
        checked(&lab.ca(), &endpoint).await,
        Class::Trust,
        &["CN=intermediate is not a trusted"],
    );
    let file = lab.file("intermediate.pem", &intermediate.to_pem().unwrap());
    assert!(checked(&ca(file), &endpoint).await.is_ok());
}

#[tokio::test]
async fn a_self_signed_certificate_is_its_own_anchor() {
    let lab = Lab::new();
    let identity = Identity::self_signed(&LOCAL);
    let server = lab.serve(&identity);
    let endpoint = at("localhost", server.address);
    let thumbprint = Fingerprint::of_sha1(&identity.der()).to_string();
    for trust in [lab.ca(), Trust::Ca { file: None, pin: None }] {
        let parts = ["self-signed", "as cacert, or its thumbprint", &thumbprint, "console"];
        failed(checked(&trust, &endpoint).await, Class::Trust, &parts);
    }
    // PEM between other text, and DER.
    let pem = [b"# vCenter\n", &lab.root.pem()[..], b"\nand\n", &identity.pem()].concat();
    for file in [lab.file("both.pem", &pem), lab.file("leaf.der", &identity.der())] {
        let peer = checked(&ca(file), &endpoint).await.unwrap().peer.unwrap();
        assert!(peer.is_verified() && peer.self_signed);
    }
    // Not self-signed, and nothing above it is known.
    let leaf = lab.root.issue(&LOCAL);
    let server = lab.serve(&leaf);
    let file = lab.file("leaf.pem", &leaf.pem());
    assert!(checked(&ca(file), &at("localhost", server.address)).await.is_ok());
}

#[tokio::test]
async fn dates_are_looked_at() {
    let lab = Lab::new();
    let expired = Spec { from_days: -40, until_days: -12, ..LOCAL };
    let early = Spec { from_days: 3, ..LOCAL };
    let result = lab.by_ca("localhost", &expired).await;
    failed(
        result,
        Class::Trust,
        &["it expired on 20", "(12 days ago)", "renew the certificate on the server"],
    );
    failed(
        lab.by_ca("localhost", &early).await,
        Class::Trust,
        &["valid only from", "(in ", "clock"],
    );
    for (spec, part) in [(expired, "expired on"), (early, "valid only from")] {
        let trusted = lab.pinned("localhost", &spec).await;
        let problem = trusted.https_problem.unwrap();
        assert!(problem.contains(part) && !problem.contains("names"), "{problem}");
    }
}

#[tokio::test]
async fn an_expired_ca_is_told_from_an_expired_server() {
    let spec = Spec { from_days: -40, until_days: -5, ..Spec::authority("old root") };
    let lab = Lab { root: Identity::self_signed(&spec), ..Lab::new() };
    let result = lab.by_ca("localhost", &LOCAL).await;
    failed(
        result,
        Class::Trust,
        &[
            "the CA certificate O=v2v-pod tests, CN=old root expired",
            "(5 days ago)",
            "instead of the expired",
        ],
    );
}

#[tokio::test]
async fn names_and_addresses_must_match() {
    let lab = Lab::new();
    let named = Spec { ips: &[], dns: &["vc.example.com", "*.lab.example.com"], ..LOCAL };
    for host in ["localhost", "127.0.0.1"] {
        let result = lab.by_ca(host, &named).await;
        let parts = [
            &format!("not for {host}, but for vc.example.com, *.lab"),
            "name the server as its certificate does",
        ];
        failed(result, Class::Trust, &parts);
        let problem = lab.pinned(host, &named).await.https_problem.unwrap();
        assert!(problem.contains(&format!("not for {host}")), "{problem}");
    }
    assert!(lab.by_ca("127.0.0.1", &LOCAL).await.unwrap().peer.unwrap().is_verified());
    assert_eq!(lab.pinned("127.0.0.1", &LOCAL).await.https_problem, None);
    // An address in the place of a name is not an address.
    let text = Spec { ips: &[], dns: &["127.0.0.1"], ..LOCAL };
    failed(lab.by_ca("127.0.0.1", &text).await, Class::Trust, &["not for 127.0.0.1"]);
}

#[tokio::test]
async fn all_that_is_wrong_is_said_at_once() {
    let lab = Lab::new();
    let spec = Spec { until_days: -12, from_days: -40, dns: &["other"], ips: &[], ..LOCAL };
    let server = lab.serve(&Identity::self_signed(&spec));
    let result = checked(&lab.ca(), &at("localhost", server.address)).await;
    failed(
        result,
        Class::Trust,
        &["self-signed", "expired on", "not for localhost, but for other"],
    );
}

#[tokio::test]
async fn a_common_name_counts_alone_only() {
    let lab = Lab::new();
    let alone = Spec { common_name: "localhost", dns: &[], ips: &[], ..LOCAL };
    let peer = lab.by_ca("localhost", &alone).await.unwrap().peer.unwrap();
    assert_eq!(peer.names, ["localhost"]);
    let beside = Spec { dns: &["other"], ..alone };
    failed(lab.by_ca("localhost", &beside).await, Class::Trust, &["but for other\n"]);
    let none = Spec { common_name: "", ..alone };
    failed(lab.by_ca("localhost", &none).await, Class::Trust, &["but for no name at all"]);
}

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
async fn certificates_for_clients_and_weak_keys_do_not_verify() {
    let lab = Lab::new();
    let clients = Spec { for_clients: true, ..LOCAL };
    failed(lab.by_ca("localhost", &clients).await, Class::Trust, &["not meant for servers"]);
    let problem = lab.pinned("localhost", &clients).await.https_problem.unwrap();
    assert!(problem.contains("not meant for servers"), "{problem}");
    // s_server refuses a short key at OpenSSL's own level, so it is told to lower it.
    let identity = lab.root.issue(&Spec { key: Key::Rsa(1024), ..LOCAL });
    let options = ["-cipher", "DEFAULT:@SECLEVEL=0"];
    let server = TlsServer::openssl(lab.dir.path(), &identity, &options);
    let endpoint = at("localhost", server.address);
    failed(checked(&lab.ca(), &endpoint).await, Class::Trust, &["too weak", "longer key"]);
    let pin = Trust::Thumbprint(Fingerprint::of_sha256(&identity.der()));
    let problem = checked(&pin, &endpoint).await.unwrap().https_problem.unwrap();
    assert!(problem.contains("too weak"), "{problem}");
}

#[tokio::test]
async fn a_thumbprint_of_either_kind_is_enough() {
    let lab = Lab::new();
    let identity = Identity::self_signed(&LOCAL);
    let server = lab.serve(&identity);
    let sha1 = Fingerprint::of_sha1(&identity.der());
    for pin in [sha1, Fingerprint::of_sha256(&identity.der())] {
        let trusted =
            checked(&Trust::Thumbprint(pin), &at("localhost", server.address)).await.unwrap();
        assert_eq!((trusted.thumbprint, trusted.https_problem), (Some(sha1), None));
        assert_eq!(trusted.anchor_pem, Some(identity.pem()));
        assert_eq!(trusted.peer.unwrap().verification, Verification::None);
    }
}

#[tokio::test]
async fn a_wrong_thumbprint_shows_both_and_who() {
    let lab = Lab::new();
    let identity = lab.root.issue(&Spec::authority("intermediate")).issue(&LOCAL);
    let server = lab.serve(&identity);
    let endpoint = at("localhost", server.address);
    let address = "(127.0.0.1) ";
    for (pin, presented) in [
        (Fingerprint::of_sha1(b"x"), Fingerprint::of_sha1(&identity.der())),
        (Fingerprint::of_sha256(b"x"), Fingerprint::of_sha256(&identity.der())),
    ] {
        let (expected, presented) =
            (format!("expected {} {pin}", pin.kind()), format!("presented {presented}"));
        let parts =
            [&expected, &presented, "localhost:", address, "CN=vc", "somebody may be between"];
        failed(checked(&Trust::Thumbprint(pin), &endpoint).await, Class::Trust, &parts);
    }
    let pin = Fingerprint::of_sha1(&identity.intermediates[0].to_der().unwrap());
    let parts = ["that of the CA O=v2v-pod tests, CN=intermediate, not of the server", "cacert"];
    failed(checked(&Trust::Thumbprint(pin), &endpoint).await, Class::Trust, &parts);
}

#[tokio::test]
async fn the_thumbprint_of_the_esxi_host_is_recognized() {
    let lab = Lab::new();
    let (vcenter, esxi) = (lab.root.issue(&LOCAL), Identity::self_signed(&LOCAL));
    let (server, other) = (lab.serve(&vcenter), lab.serve(&esxi));
    let (endpoint, esxi_host) = (at("127.0.0.1", server.address), at("localhost", other.address));
    let pin = Fingerprint::of_sha1(&esxi.der());
    let name = format!("that of the ESXi host {esxi_host}, and 127.0.0.1's is needed");
    let parts = [&name, "give the thumbprint of 127.0.0.1"];
    let by_ca = Trust::Ca { file: Some(lab.file("root.pem", &lab.root.pem())), pin: Some(pin) };
    for trust in [Trust::Thumbprint(pin), by_ca] {
        failed(check(&trust, &endpoint, Some(&esxi_host), &LIMITS).await, Class::Trust, &parts);
    }
    // An ESXi host that cannot be asked, or has another one too, does not change the answer.
    let trust = Trust::Thumbprint(Fingerprint::of_sha1(b"x"));
    for other in [at("127.0.0.1", refused()), esxi_host] {
        let result = check(&trust, &endpoint, Some(&other), &LIMITS).await;
        assert!(!failed(result, Class::Trust, &[]).message.contains("ESXi"));
    }
}

#[tokio::test]
async fn a_pin_beside_a_ca_must_match_as_well() {
    let lab = Lab::new();
    let identity = lab.root.issue(&LOCAL);
    let server = lab.serve(&identity);
    let endpoint = at("localhost", server.address);
    let file = Some(lab.file("root.pem", &lab.root.pem()));
    let with = |pin| Trust::Ca { file: file.clone(), pin: Some(pin) };
    let right = Fingerprint::of_sha256(&identity.der());
    assert!(checked(&with(right), &endpoint).await.is_ok());
    let parts = ["is valid under the CA file", "expected SHA-1", "presented", "renewed"];
    failed(checked(&with(Fingerprint::of_sha1(b"x")), &endpoint).await, Class::Trust, &parts);
    // The right pin does not make up for a wrong CA.
    let other = lab.file("other.pem", &Identity::self_signed(&Spec::authority("other")).pem());
    let trust = Trust::Ca { file: Some(other), pin: Some(right) };
    failed(checked(&trust, &endpoint).await, Class::Trust, &["does not verify"]);
}

#[tokio::test]
async fn insecure_is_said_and_asks_only_when_it_must() {
    let lab = Lab::new();
    let identity =
        Identity::self_signed(&Spec { dns: &["other"], ips: &[], until_days: 0, ..LOCAL });
    let server = lab.serve(&identity);
    let endpoint = at("localhost", server.address);
    let sha1 = Fingerprint::of_sha1(&identity.der());
    let insecure = |thumbprint| Trust::Insecure { thumbprint };
    for given in [None, Some(Fingerprint::of_sha256(&identity.der()))] {
        let trusted = checked(&insecure(given), &endpoint).await.unwrap();
        assert_eq!((trusted.thumbprint, trusted.peer.is_some()), (Some(sha1), true));
        assert!(trusted.warnings[0].contains("not verified") && trusted.warnings.len() == 1);
    }
    let nowhere = at("127.0.0.1", refused());
    let pin = Fingerprint::of_sha1(b"x");
    let trusted = checked(&insecure(Some(pin)), &nowhere).await.unwrap();
    assert_eq!((trusted.thumbprint, trusted.peer, trusted.warnings.len()), (Some(pin), None, 1));
    let trusted = checked(&insecure(None), &nowhere).await.unwrap();
    assert_eq!(trusted.thumbprint, None);
    assert!(trusted.warnings[1].contains("Connection refused"), "{:?}", trusted.warnings);
    let result = checked(&insecure(Some(Fingerprint::of_sha256(b"x"))), &endpoint).await;
    failed(result, Class::Trust, &["expected SHA-256"]);
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

#[tokio::test]
async fn a_useless_ca_file_is_named_before_anybody_is_asked() {
    let lab = Lab::new();
    let key = lab.root.key.private_key_to_pem_pkcs8().unwrap();
    let mut damaged = lab.root.pem();
    damaged[60] = b'!';
    for (content, part) in [
        (&b"\n"[..], "is empty"),
        (b"hello", "neither PEM nor DER"),
        (&key, "but a private key"),
        (b"-----BEGIN PKCS7-----\nMA==\n-----END PKCS7-----\n", "PKCS #7"),
        (&damaged, "cannot be read"),
    ] {
        let file = lab.file("bad.pem", content);
        let result = checked(&ca(file.clone()), &at("127.0.0.1", refused())).await;
        failed(result, Class::Config, &[&file.display().to_string(), part, "in PEM"]);
    }
    let result = checked(&ca("/nonexistent/ca".into()), &at("127.0.0.1", refused())).await;
    failed(result, Class::Config, &["/nonexistent/ca cannot be read", "No such file"]);
}

/// What the anchor is for: curl, as libvirt and nbdkit use it, agrees with us.
#[tokio::test]
async fn curl_trusts_the_pinned_certificate_where_we_say_so() {
    let lab = Lab::new();
    let expired = Spec { from_days: -40, until_days: -12, ..LOCAL };
    let named = Spec { dns: &["other"], ips: &[], ..LOCAL };
    let clients = Spec { for_clients: true, ..LOCAL };
    let authority = Spec { ca: true, common_name: "localhost", dns: &[], ips: &[], ..LOCAL };
    for (spec, good) in
        [(LOCAL, true), (authority, false), (expired, false), (named, false), (clients, false)]
    {
        for identity in [Identity::self_signed(&spec), lab.root.issue(&spec)] {
            let server = lab.serve(&identity);
            let endpoint = at("localhost", server.address);
            let pin = Trust::Thumbprint(Fingerprint::of_sha1(&identity.der()));
            let trusted = checked(&pin, &endpoint).await.unwrap();
            let file = lab.file("anchor.pem", &trusted.anchor_pem.unwrap());
            let output = Command::new("curl")
                .args([
                    "-sS",
                    "-4",
                    "--noproxy",
                    "*",
                    "--max-time",
                    "20",
                    "-o",
                    "/dev/null",
                    "--cacert",
                ])
                .arg(&file)
                .arg(format!("https://{endpoint}/"))
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(
                (output.status.success(), trusted.https_problem.is_none()),
                (good, good),
                "{spec:?}: {said}"
            );
        }
    }
}

#[tokio::test]
async fn the_system_s_anchors_are_used() {
    let lab = Lab::new();
    let server = lab.serve(&lab.root.issue(&LOCAL));
    let peer = verify(&at("localhost", server.address), &Anchors::System, &LIMITS).await.unwrap();
    assert!(matches!(peer.verification, Verification::Failed(_)));
}

/// The built command against one server.
fn command(lab: &Lab, args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_v2v-pod"));
    let output = command
        .arg("thumbprint")
        .args(args)
        .envs(env.iter().copied())
        .current_dir(lab.dir.path())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_command_shows_what_there_is() {
    let lab = Lab::new();
    let identity = lab.root.issue(&Spec { from_days: -40, until_days: -12, ..LOCAL });
    let server = lab.serve(&identity);
    let endpoint = at("localhost", server.address).to_string();
    let sha1 = Fingerprint::of_sha1(&identity.der()).to_string();
    let sha256 = Fingerprint::of_sha256(&identity.der()).to_string();
    let (code, out, err) = command(&lab, &[&endpoint], &[]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    for part in [
        &sha1,
        &sha256,
        "CN=vc",
        "CN=root",
        "EXPIRED 12 days ago",
        "localhost, 127.0.0.1",
        "TLSv1.3",
        "NO, not with the CA certificates of this system",
        "- its issuer",
    ] {
        assert!(out.contains(part), "{part:?} is not in:\n{out}");
    }
    lab.file("root.pem", &lab.root.pem());
    let url = format!("vpx://admin%40x@{endpoint}/DC/esxi1");
    let (code, out, _) = command(&lab, &[&url, "--cacert", "root.pem", "--json"], &[]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &json["sha1"], &json["verified"], &json["expired"]),
        (Some(0), &sha1.into(), &false.into(), &true.into())
    );
    assert_eq!(json["problems"].as_array().unwrap().len(), 1, "{json}");
}

#[test]
fn the_command_says_when_it_verifies_and_when_it_fails() {
    let lab = Lab::new();
    let server = lab.serve(&lab.root.issue(&LOCAL));
    let endpoint = at("localhost", server.address).to_string();
    let root = lab.file("root.pem", &lab.root.pem()).display().to_string();
    // By file, and by what OpenSSL calls the system's.
    let (code, out, _) = command(&lab, &[&endpoint, "--cacert", &root], &[]);
    assert!(code == Some(0) && out.contains("yes, with the CA file"), "{out}");
    let (code, out, _) = command(&lab, &[&endpoint], &[("SSL_CERT_FILE", &root)]);
    assert!(
        code == Some(0) && out.contains("yes, with the CA certificates of this system"),
        "{out}"
    );
    lab.file("empty", b"");
    let closed = refused().to_string();
    for (args, expected, part) in [
        (&[closed.as_str()][..], 23, "Connection refused"),
        (&[&endpoint, "--cacert", "empty"], 64, "empty is empty"),
        (&["a b"], 2, "neither a host name nor an address"),
        (&[&endpoint, "--timeout", "0"], 2, "--timeout"),
    ] {
        let (code, out, err) = command(&lab, args, &[]);
        assert_eq!((code, out.as_str()), (Some(expected), ""), "{err}");
        assert!(err.contains(part), "{err}");
    }
}

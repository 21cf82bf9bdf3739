//! Certificates of every shape against CA files.

use crate::lab::{LIMITS, LOCAL, Lab, at, ca, checked, failed};
use v2v_pod::failure::Class;
use v2v_pod::trust::{Anchors, Fingerprint, Trust, Verification, verify};
use v2v_pod_tests::pki::{Identity, Key, Spec};
use v2v_pod_tests::tls::{TlsServer, refused};

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

#[tokio::test]
async fn the_system_s_anchors_are_used() {
    let lab = Lab::new();
    let server = lab.serve(&lab.root.issue(&LOCAL));
    let peer = verify(&at("localhost", server.address), &Anchors::System, &LIMITS).await.unwrap();
    assert!(matches!(peer.verification, Verification::Failed(_)));
}

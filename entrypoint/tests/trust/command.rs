//! `v2v-pod thumbprint`, as built.

use crate::lab::{LOCAL, Lab, at};
use std::process::Command;
use v2v_pod::trust::Fingerprint;
use v2v_pod_tests::pki::Spec;
use v2v_pod_tests::tls::refused;

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

//! Thumbprints, and no verification at all.

use crate::lab::{LIMITS, LOCAL, Lab, at, checked, failed};
use std::process::Command;
use v2v_pod::failure::Class;
use v2v_pod::trust::{Fingerprint, Trust, Verification, check};
use v2v_pod_tests::pki::{Identity, Spec};
use v2v_pod_tests::tls::refused;

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

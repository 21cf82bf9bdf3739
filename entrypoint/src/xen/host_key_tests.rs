use super::*;
use proptest::prelude::*;

// A key of no host, with the fingerprint that ssh-keygen -l shows for it.
const ED25519: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIDcWuHrHUsYyaubb8AKTumQzYbxzhnBrlFJ7ijhn67QF";
const PRINT: &str = "SHA256:pfNsQTs/EYL7Aecby096DCDkFSbqlhtRmH8tYP6b9rY";

fn url() -> XenUrl {
    XenUrl::parse("xen+ssh://root@127.0.0.1:18999/", None).unwrap()
}

fn scanned() -> Vec<HostKey> {
    keys(&format!(
        "# 127.0.0.1:18999 SSH-2.0-OpenSSH_9.2p1\n[127.0.0.1]:18999 ssh-ed25519 {ED25519}\n\
         [127.0.0.1]:18999 ssh-ed25519 {ED25519}\n[127.0.0.1]:18999 ssh-rsa {ED25519}\n@revoked x ssh-ed25519 {ED25519}\n"
    ))
}

#[test]
fn fingerprints_are_those_of_openssh() {
    let keys = scanned();
    assert_eq!(keys.len(), 1, "a key of another kind than it says is none: {keys:?}");
    assert_eq!(shown(&keys), format!("{PRINT} (ssh-ed25519)"));
    assert_eq!(known_hosts(&url(), &keys), format!("[127.0.0.1]:18999 ssh-ed25519 {ED25519}\n"));
}

#[test]
fn a_pin_narrows_what_is_presented() {
    let right: Fingerprint = PRINT.parse().unwrap();
    let wrong = Fingerprint::of_sha256(b"another");
    assert_eq!(pinned(&url(), scanned(), right, None).unwrap(), scanned());
    let e = pinned(&url(), scanned(), wrong, None).unwrap_err();
    assert!(e.class == Class::Trust && e.message.contains(PRINT), "{e}");
    assert!(pinned(&url(), scanned(), right, Some(&scanned())).is_ok());
    let e = pinned(&url(), scanned(), right, Some(&[])).unwrap_err();
    assert!(e.message.contains("not in the given known_hosts"), "{e}");
}

#[test]
fn what_is_given_decides() {
    let (pin, file) = (Some(Fingerprint::of_sha256(b"x")), Some(Path::new("/k")));
    let rule = |mode, unverified, pin, file| Rule::of(mode, unverified, pin, file);
    let known = Rule::KnownHosts("/k".into());
    assert_eq!(rule(TrustMode::Auto, false, None, file), Ok(known.clone()));
    assert_eq!(rule(TrustMode::Ca, true, pin, file), Ok(known));
    let both = Rule::Pin(pin.unwrap(), Some("/k".into()));
    assert_eq!(rule(TrustMode::Auto, false, pin, file), Ok(both));
    assert_eq!(rule(TrustMode::Thumbprint, true, pin, file), Ok(Rule::Pin(pin.unwrap(), None)));
    assert_eq!(rule(TrustMode::Auto, true, pin, file), Ok(Rule::Insecure));
    assert_eq!(rule(TrustMode::Insecure, false, None, None), Ok(Rule::Insecure));
    for (mode, pin, file) in [
        (TrustMode::Auto, None, None),
        (TrustMode::Ca, pin, None),
        (TrustMode::Thumbprint, None, file),
    ] {
        assert_eq!(rule(mode, false, pin, file).unwrap_err().class, Class::Trust);
    }
    let sha1 = Some(Fingerprint::of_sha1(b"x"));
    assert_eq!(rule(TrustMode::Auto, false, sha1, None).unwrap_err().class, Class::Config);
}

proptest! {
    #[test]
    fn whatever_a_host_says_becomes_whole_lines(text in "(\\PC{0,20}[ \n]){0,20}") {
        let found = keys(&text);
        let written = known_hosts(&url(), &found);
        prop_assert_eq!(written.lines().count(), found.len());
        prop_assert_eq!(keys(&written), found);
    }

    #[test]
    fn any_base64_is_taken_or_left(blob in proptest::collection::vec(any::<u8>(), 0..60)) {
        let text = openssl::base64::encode_block(&blob);
        let found = keys(&format!("h ssh-ed25519 {text}\n"));
        prop_assert_eq!(found.len(), usize::from(blob.starts_with(b"\0\0\0\x0bssh-ed25519")));
    }
}

//! What Kubernetes accepts as a name or a label's value.
//!
//! Owns the rules and the nearest acceptable form of a name from another hypervisor, which may
//! hold anything. It knows nothing of what is named.

pub use v2v_args::rfc1123;

/// The longest value of a Kubernetes label.
const LABEL_MAX: usize = 63;
/// The longest name of most Kubernetes objects.
const SUBDOMAIN_MAX: usize = 253;

/// RFC 1123 subdomain: labels joined by dots. (In Kubernetes a part may exceed 63.)
pub(super) fn is_subdomain(name: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    name.len() <= SUBDOMAIN_MAX
        && name.split('.').all(|part| match part.as_bytes() {
            [] => false,
            bytes @ ([only] | [only, ..]) => {
                alphanumeric(*only)
                    && bytes.last().copied().is_some_and(alphanumeric)
                    && bytes.iter().all(|b| alphanumeric(*b) || *b == b'-')
            }
        })
}

/// `text` as a label's value, which is not as narrow as a name.
pub(super) fn label_value(text: &str) -> Option<String> {
    let kept = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let mut value: String = text.chars().map(|c| if kept(c) { c } else { '-' }).collect();
    value.truncate(LABEL_MAX);
    let value = value.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    (!value.is_empty()).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_become_rfc_1123_labels() {
        for (name, label) in [
            ("web01", Some("web01")),
            ("a--b", Some("a--b")),
            ("Web Server_01.example.com", Some("web-server-01-example-com")),
            ("VM (old)  #2", Some("vm-old-2")),
            ("-x-", Some("x")),
            ("Überserver", Some("berserver")),
            ("сервер", None),
            ("", None),
        ] {
            assert_eq!(rfc1123(name).as_deref(), label, "{name}");
        }
        let long = format!("{}-{}", "a".repeat(62), "b".repeat(9));
        assert_eq!(rfc1123(&long).unwrap(), "a".repeat(62));
        assert_eq!(label_value("opensuse15.6 (x)!").as_deref(), Some("opensuse15.6--x"));
        assert_eq!(label_value("__"), None);
    }

    #[test]
    fn subdomains_are_labels_joined_by_dots() {
        for name in ["", ".", "a..b", "-a", "a-.b"] {
            assert!(!is_subdomain(name), "{name}");
        }
        assert!(is_subdomain("a.b-c.0"));
    }

    proptest! {
        #[test]
        fn a_label_is_valid_and_stays_as_it_is(name in "\\PC{0,100}") {
            if let Some(label) = rfc1123(&name) {
                prop_assert!(label.len() <= 63 && is_subdomain(&label) && !label.contains('.'));
                prop_assert_eq!(rfc1123(&label), Some(label));
            }
        }
    }
}

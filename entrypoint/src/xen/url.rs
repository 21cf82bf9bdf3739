//! `xen+ssh://user@host[:port]/[?parameters]`. Pure.

use crate::failure::{Class, Failure};
use crate::vsphere::access;
use crate::vsphere::query::Query;
use percent_encoding::percent_decode_str;

/// How such a URL begins.
pub const SCHEME: &str = "xen+ssh://";
const SSH_PORT: u16 = 22;
const EXAMPLE: &str = "write it like xen+ssh://root@xen.example.com/";
/// Parameters of libvirt's that would go past our checks, and what to use for them.
const REFUSED: [(&str, &str); 5] = [
    ("command", "the program is always ssh"),
    ("keyfile", "give the key in the secret (ssh-privatekey), or with --identity"),
    ("known_hosts", "give the file in the secret (known_hosts), or with --known-hosts"),
    ("known_hosts_verify", "set V2V_trust (--trust)"),
    ("sshauth", "what is given decides: a key, a password, or both"),
];

/// A Xen host and who we are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XenUrl {
    /// For libvirt and virt-v2v.
    pub url: String,
    /// Login name.
    pub user: String,
    /// Name or IPv4 address.
    pub host: String,
    /// Of sshd.
    pub port: u16,
    /// `no_verify=1` was in it.
    pub unverified: bool,
}

impl XenUrl {
    /// Whether this is for us.
    pub fn is_one(url: &str) -> bool {
        url.get(..SCHEME.len()).is_some_and(|s| s.eq_ignore_ascii_case(SCHEME))
    }

    /// Takes it apart. `user` is for a URL that names none.
    pub fn parse(text: &str, user: Option<&str>) -> Result<Self, Failure> {
        let wrong = |what: &str, advice: &str| {
            Err(Failure::new(Class::Config, format!("the URL of the Xen host: {what}"))
                .advise(advice))
        };
        let mut query = Query::of(text);
        for (name, instead) in REFUSED {
            if !query.values(name).is_empty() {
                return wrong(&format!("the parameter {name} is not taken"), instead);
            }
        }
        let unverified = access::no_verify(&query)?;
        // Verification is ours; and a terminal, which `no_tty` is about, there is none.
        query.remove("no_verify");
        query.remove("no_tty");
        let url = query.url();
        let Ok(parsed) = ::url::Url::parse(&url) else { return wrong("it is no URL", EXAMPLE) };
        if !Self::is_one(&url) {
            return wrong("only xen+ssh:// can be read", EXAMPLE);
        }
        if parsed.password().is_some() {
            return wrong(
                "it holds a password, which every process here could see",
                "take it out of the URL and give it as a file (secretKey, --password-file)",
            );
        }
        let host = parsed.host_str().unwrap_or_default().to_owned();
        if host.starts_with('[') {
            return wrong(
                "an IPv6 address, which virt-v2v hands to nbdkit with its brackets",
                "give the host a name",
            );
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if host.is_empty() || host.starts_with('-') || !host.chars().all(plain) {
            return wrong("it names no host, or one that cannot be", EXAMPLE);
        }
        let named = percent_decode_str(parsed.username()).decode_utf8_lossy().into_owned();
        let (user, url) = match (named.as_str(), user.map(str::trim).filter(|u| !u.is_empty())) {
            ("", None) => return wrong("it names no user", EXAMPLE),
            ("", Some(user)) => {
                let mut with_user = parsed.clone();
                if with_user.set_username(user).is_err() {
                    return wrong("it can have no user", EXAMPLE);
                }
                (user.to_owned(), with_user.to_string())
            }
            _ => (named, url),
        };
        if user.starts_with('-') || user.chars().any(char::is_control) {
            return wrong("its user cannot be", EXAMPLE);
        }
        let port = parsed.port().unwrap_or(SSH_PORT);
        if port == 0 {
            return wrong("port 0 is none", EXAMPLE);
        }
        Ok(Self { url, user, host, port, unverified })
    }

    /// As `known_hosts` names the host.
    pub fn known_name(&self) -> String {
        if self.port == SSH_PORT {
            self.host.clone()
        } else {
            format!("[{}]:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> XenUrl {
        XenUrl::parse(text, Some("from-secret")).unwrap()
    }

    #[test]
    fn user_host_and_port() {
        let url = parsed("xen+ssh://root@xen.example.com/");
        assert_eq!((url.user.as_str(), url.known_name().as_str()), ("root", "xen.example.com"));
        let url = parsed("xen+ssh://a%40b@10.0.0.1:2222/?name=test:///f");
        assert_eq!((url.user.as_str(), url.known_name().as_str()), ("a@b", "[10.0.0.1]:2222"));
        assert_eq!(url.url, "xen+ssh://a%40b@10.0.0.1:2222/?name=test:///f");
        let url = parsed("xen+ssh://xen:22/");
        assert_eq!(
            (url.user.as_str(), url.url.as_str()),
            ("from-secret", "xen+ssh://from-secret@xen:22/")
        );
    }

    #[test]
    fn verification_is_ours_alone() {
        let url = parsed("xen+ssh://root@xen/?no%5Fverify=1&no_tty=1&mode=legacy");
        assert!(url.unverified);
        assert_eq!(url.url, "xen+ssh://root@xen/?mode=legacy");
        for (name, _) in REFUSED {
            let e = XenUrl::parse(&format!("xen+ssh://root@xen/?x=1&{name}=/x"), None).unwrap_err();
            assert!(e.class == Class::Config && e.message.contains(name), "{e}");
        }
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (text, what) in [
            ("xen+ssh://xen/", "no user"),
            ("xen+ssh://root:hunter2@xen/", "password"),
            ("xen+ssh://root@[::1]/", "IPv6"),
            ("xen+ssh:///", "no host"),
            ("xen+ssh://root@-oProxyCommand=x/", "no host"),
            ("xen+ssh://-x@xen/", "user"),
            ("xen+tcp://root@xen/", "only xen+ssh://"),
            ("xen+ssh", "no URL"),
            ("xen+ssh://root@xen:0/", "port 0"),
        ] {
            let e = XenUrl::parse(text, None).unwrap_err();
            assert!(e.class == Class::Config && e.message.contains(what), "{text}: {e}");
            assert!(!e.message.contains("hunter2"));
        }
    }

    proptest! {
        #[test]
        fn nothing_is_taken_for_an_option(text in "xen\\+ssh://\\PC{0,30}@?\\PC{0,30}") {
            if let Ok(url) = XenUrl::parse(&text, None) {
                prop_assert!(!url.host.starts_with('-') && !url.user.starts_with('-'));
                prop_assert!(url.host.chars().all(|c| c.is_ascii() && !c.is_ascii_whitespace()));
                prop_assert!(!url.user.contains('\n'));
            }
        }
    }
}

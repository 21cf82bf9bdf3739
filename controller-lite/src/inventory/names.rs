//! Names as the server has them, as people type them, and as libvirt's URL wants them. Pure.
//!
//! A server keeps `%`, `/` and `\` in a name as `%25`, `%2f` and `%5c`. A part of libvirt's path is the name as the server has
//! it, percent-encoded once more.

use super::model::{ServerKind, SourceVm};
use super::server::Server;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// All but RFC 3986's unreserved characters.
const QUOTED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// As people type it.
pub fn typed(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(at) = rest.find('%') {
        text.push_str(&rest[..at]);
        let (plain, length) = match rest.get(at + 1..at + 3).map(str::to_ascii_lowercase).as_deref()
        {
            Some("25") => ('%', 3),
            Some("2f") => ('/', 3),
            Some("5c") => ('\\', 3),
            _ => ('%', 1),
        };
        text.push(plain);
        rest = &rest[at + length..];
    }
    text.push_str(rest);
    text
}

/// libvirt's URL of the host that has the VM, for `V2V_libvirtURL`: `vpx://user@vc/DC/Cluster/host`, or `esx://user@host` when
/// the server is the host. Trust does not belong into it: the pod adds `no_verify` itself.
pub fn libvirt_url(server: &Server, kind: ServerKind, user: &str, vm: &SourceVm) -> String {
    match kind {
        ServerKind::Esxi => esx_url(server, user),
        ServerKind::VCenter => {
            let mut url = base("vpx", server, user);
            for part in &vm.host.path {
                url.push('/');
                url.extend(utf8_percent_encode(part, QUOTED));
            }
            url
        }
    }
}

/// libvirt's URL of a host asked by itself, with credentials of its own.
pub fn esx_url(server: &Server, user: &str) -> String {
    base("esx", server, user)
}

fn base(scheme: &str, server: &Server, user: &str) -> String {
    let user = utf8_percent_encode(user, QUOTED);
    let port = server.port;
    match port {
        443 => format!("{scheme}://{user}@{}", server.host),
        _ => format!("{scheme}://{user}@{}:{port}", server.host),
    }
}

#[cfg(test)]
mod tests {
    use super::super::vm::tests::a_vm;
    use super::*;
    use percent_encoding::percent_decode_str;
    use proptest::prelude::*;

    /// What the server makes of a typed name.
    fn kept(name: &str) -> String {
        name.replace('%', "%25").replace('/', "%2f").replace('\\', "%5c")
    }

    fn server(url: &str) -> Server {
        url.parse().unwrap()
    }

    #[test]
    fn a_url_is_what_the_lab_and_libvirt_take() {
        let mut vm = a_vm();
        vm.host.path = ["a%2fb 1%25", "racks", "C", "h"].map(str::to_owned).to_vec();
        let url = libvirt_url(
            &server("https://vc.example.com"),
            ServerKind::VCenter,
            "administrator@vsphere.local",
            &vm,
        );
        assert_eq!(
            url,
            "vpx://administrator%40vsphere.local@vc.example.com/a%252fb%201%2525/racks/C/h"
        );
        let url = libvirt_url(&server("esx://[::1]:8443"), ServerKind::Esxi, r"LAB\root", &vm);
        assert_eq!(url, r"esx://LAB%5Croot@[::1]:8443");
    }

    #[test]
    fn only_three_characters_are_encoded() {
        assert_eq!(typed("a%2Fb%5c%25 %20 %zz %"), r"a/b\% %20 %zz %");
        assert_eq!(typed("%252f"), "%2f");
        assert_eq!(typed("%é2"), "%é2");
    }

    proptest! {
        #[test]
        fn every_name_comes_back(name in "\\PC{0,40}") {
            prop_assert_eq!(typed(&kept(&name)), name);
        }

        #[test]
        fn no_text_is_too_odd(name in any::<String>()) {
            prop_assert!(typed(&name).len() <= name.len());
        }

        #[test]
        fn a_path_has_the_names_in_it(
            parts in prop::collection::vec("\\PC{1,20}", 3..6), user in "\\PC{1,20}"
        ) {
            let mut vm = a_vm();
            vm.host.path = parts.iter().map(|p| kept(p)).collect();
            let text = libvirt_url(&server("vpx://vc:8443"), ServerKind::VCenter, &user, &vm);
            let url = url::Url::parse(&text).unwrap();
            prop_assert_eq!(url.port(), Some(8443));
            prop_assert!(url.query().is_none() && url.fragment().is_none());
            let decoded = |t: &str| percent_decode_str(t).decode_utf8().unwrap().into_owned();
            prop_assert_eq!(decoded(url.username()), user);
            // The text itself: url takes . and .. for steps.
            let path = text.splitn(4, '/').nth(3).unwrap();
            let back: Vec<String> = path.split('/').map(|p| typed(&decoded(p))).collect();
            prop_assert_eq!(back, parts);
        }
    }
}

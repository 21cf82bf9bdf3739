//! What the pod asked the source's libvirt, and how it identified itself. The reference uses the library; ours
//! runs `virsh -c URI dumpxml NAME` with the credentials in an auth file and nowhere else.

use crate::cases::LibvirtConnect;
use crate::records::Call;
use std::collections::BTreeMap;

/// Problems of the pod's `virsh` calls, each a sentence.
pub fn problems(calls: &[&Call], connect: &LibvirtConnect, guest: Option<&str>) -> Vec<String> {
    let mut problems = Vec::new();
    if calls.is_empty() {
        problems.push("virsh was never run".to_owned());
    }
    for call in calls {
        let (uri, rest) = split(&call.argv);
        if uri != Some(connect.uri.as_str()) {
            problems.push(format!("connects to {uri:?}, not {:?}", connect.uri));
        }
        if !rest.contains(&"dumpxml") {
            problems.push(format!("does not ask for the domain: {rest:?}"));
        }
        if let Some(guest) = guest
            && !rest.contains(&guest)
        {
            problems.push(format!("does not name the guest {guest:?}: {rest:?}"));
        }
        let words = call.argv.iter().chain(call.env.values());
        for word in words {
            if word.contains(&connect.passphrase) || word.contains(&connect.authname) {
                problems.push(format!("credentials in argv or environment: {word:?}"));
            }
        }
        match &call.auth_file {
            None => problems.push("no LIBVIRT_AUTH_FILE".to_owned()),
            Some(text) => {
                let found = credentials(text, &connect.uri);
                let wanted = (connect.authname.clone(), connect.passphrase.clone());
                if found.as_ref() != Some(&wanted) {
                    problems.push(format!(
                        "auth file gives libvirt {found:?}, not {wanted:?}:\n{text}"
                    ));
                }
            }
        }
    }
    problems
}

/// URI of the connection, and the other words.
fn split(argv: &[String]) -> (Option<&str>, Vec<&str>) {
    let mut uri = None;
    let mut rest = Vec::new();
    let mut words = argv.iter().skip(1).map(String::as_str);
    while let Some(word) = words.next() {
        if matches!(word, "-c" | "--connect") {
            uri = words.next();
        } else if let Some(value) = word.strip_prefix("--connect=") {
            uri = Some(value);
        } else if let Some(value) = word.strip_prefix("--domain=") {
            rest.push(value);
        } else {
            rest.push(word);
        }
    }
    (uri, rest)
}

/// User and password as libvirt's ESX driver finds them for vpx:// and esx:// (service `esx` for both): group
/// `auth-esx-HOST`, else `auth-esx-default`, names a `credentials-NAME` group.
fn credentials(text: &str, uri: &str) -> Option<(String, String)> {
    let groups = groups(text);
    let host = host(uri);
    let auth =
        groups.get(&format!("auth-esx-{host}")).or_else(|| groups.get("auth-esx-default"))?;
    let group = groups.get(&format!("credentials-{}", auth.get("credentials")?))?;
    Some((group.get("username")?.clone(), group.get("password")?.clone()))
}

fn host(uri: &str) -> &str {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match host.strip_prefix('[').and_then(|h| h.split_once(']')) {
        Some((ipv6, _)) => ipv6,
        None => host.split(':').next().unwrap_or_default(),
    }
}

fn groups(text: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut groups: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        let line = line.trim_start();
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.trim_end().strip_suffix(']')) {
            name.clone_into(&mut current);
            groups.entry(current.clone()).or_default();
        } else if let Some((key, value)) = line.split_once('=') {
            groups
                .entry(current.clone())
                .or_default()
                .insert(key.trim().to_owned(), value.to_owned());
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::{credentials, host};

    #[test]
    fn finds_credentials_as_libvirt_does() {
        let text =
            "[credentials-x]\nusername=a@b\npassword=s=c\n[auth-esx-h.example]\ncredentials=x\n";
        let uri = "vpx://a%40b@h.example/DC?no_verify=1";
        assert_eq!(credentials(text, uri), Some(("a@b".into(), "s=c".into())));
        assert_eq!(credentials(text, "vpx://other/DC"), None);
        assert_eq!(host("esx://root@[fd00::10]?no_verify=1"), "fd00::10");
    }
}

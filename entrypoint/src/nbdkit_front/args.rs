//! nbdkit's command line: where the plugin and its parameters are among the options (nbdkit server/options.h).

use super::Edits;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Long options whose value may be the next word.
#[rustfmt::skip] // a table
const LONG_WITH_VALUE: [&str; 23] = [
    "debug", "export", "export-name", "exportname", "filter", "group", "ip-addr", "ipaddr", "keepalive", "log",
    "mask-handshake", "name", "pid-file", "pidfile", "port", "run", "selinux-label", "threads", "tls",
    "tls-certificates", "tls-psk", "unix", "user",
];
/// Short ones.
const SHORT_WITH_VALUE: &[u8] = b"DegiPptuU";
/// Calls that serve nothing.
const QUESTIONS: [&str; 5] = ["--dump-plugin", "--dump-config", "--help", "--version", "-V"];

/// The arguments (without the program) as they are to be. Pure.
pub fn edit(arguments: Vec<OsString>, edits: &Edits) -> Vec<OsString> {
    let words = words(&arguments);
    let is_question = arguments.iter().any(|a| QUESTIONS.iter().any(|q| a == q));
    let (Some((&plugin, parameters)), false) = (words.split_first(), is_question) else {
        return arguments;
    };
    let mut edited = arguments.clone();
    let mut added = Vec::new();
    if is_plugin(&arguments[plugin], "ssh")
        && let Some(ssh) = &edits.ssh
    {
        let identity = ssh.identity.as_ref().map(|path| ("identity", path));
        let all = [("config", &ssh.config), ("known-hosts", &ssh.known_hosts)];
        for (key, path) in all.into_iter().chain(identity) {
            if !parameters.iter().any(|p| value(&arguments[*p], key).is_some()) {
                added.push(parameter(key, path.as_os_str()));
            }
        }
    }
    if is_plugin(&arguments[plugin], "curl")
        && let Some(every) = edits.cookie_renew
        && parameters.iter().any(|p| value(&arguments[*p], "cookie-script").is_some())
    {
        let key = "cookie-script-renew";
        let fresh = parameter(key, OsStr::new(&every.as_secs().max(1).to_string()));
        let said: Vec<usize> =
            parameters.iter().copied().filter(|p| value(&arguments[*p], key).is_some()).collect();
        for at in &said {
            edited[*at].clone_from(&fresh);
        }
        if said.is_empty() {
            added.push(fresh);
        }
    }
    // Right after the last parameter, where no option can take one for its value.
    let end = words.last().map_or(edited.len(), |last| last + 1);
    edited.splice(end..end, added);
    edited
}

/// Where the words are that are neither options nor their values: the plugin, then its parameters.
fn words(arguments: &[OsString]) -> Vec<usize> {
    let mut words = Vec::new();
    let mut at = 0;
    while let Some(argument) = arguments.get(at) {
        let bytes = argument.as_bytes();
        if bytes == b"--" {
            words.extend(at + 1..arguments.len());
            break;
        }
        if let Some(long) = bytes.strip_prefix(b"--") {
            at += usize::from(takes_next(long));
        } else if bytes.len() > 1 && bytes[0] == b'-' {
            // `-fp 10809`: the first that takes a value takes what is left, or the next word.
            let takes = bytes[1..].iter().position(|c| SHORT_WITH_VALUE.contains(c));
            at += usize::from(takes.is_some_and(|n| n + 2 == bytes.len()));
        } else {
            words.push(at);
        }
        at += 1;
    }
    words
}

fn takes_next(long: &[u8]) -> bool {
    LONG_WITH_VALUE.iter().any(|name| name.as_bytes() == long)
}

/// By its short name, or by that of its file.
fn is_plugin(word: &OsStr, name: &str) -> bool {
    let file = word.as_bytes().rsplit(|b| *b == b'/').next().unwrap_or_default();
    word == name || file == format!("nbdkit-{name}-plugin.so").as_bytes()
}

fn value<'a>(parameter: &'a OsStr, key: &str) -> Option<&'a [u8]> {
    parameter.as_bytes().strip_prefix(key.as_bytes())?.strip_prefix(b"=")
}

fn parameter(key: &str, value: &OsStr) -> OsString {
    let mut bytes = format!("{key}=").into_bytes();
    bytes.extend_from_slice(value.as_bytes());
    OsString::from_vec(bytes)
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;

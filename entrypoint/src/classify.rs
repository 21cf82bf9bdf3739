//! From what the tools said to why they failed. Pure.
//!
//! virt-v2v exits with 1 whatever went wrong, so the class comes from its text. Its own error
//! message decides; only when that one is generic do the errors of nbdkit, libguestfs and the
//! others count, since a verbose log is full of errors that are none.

use crate::classify_rules::{ECHOES, GENERIC, RULES};
use crate::failure::{Class, Failure};
use std::collections::VecDeque;

/// Lines of helpers that are kept; the cause is near the end.
const KEPT_LINES: usize = 60;

/// How the lines of errors begin that helpers print when they really fail.
const ERROR_STARTS: [&str; 12] = [
    "nbdkit: ",
    "nbdcopy: ",
    "nbdinfo: ",
    "qemu-nbd: ",
    "qemu-img: ",
    "libguestfs: error: ",
    "supermin: ",
    "error: ",
    "curl: ",
    "libvirt: ",
    "qemu-system",
    "ssh: ",
];

/// Remembers what may explain a failure, in bounded memory.
#[derive(Debug, Default)]
pub struct Evidence {
    errors: VecDeque<String>,
    helpers: VecDeque<String>,
}

impl Evidence {
    /// An error message of the tool itself (machine-readable).
    pub fn error(&mut self, text: &str) {
        keep(&mut self.errors, text);
    }

    /// A line of the output.
    pub fn line(&mut self, tool: &str, line: &str) {
        if let Some(text) = line.strip_prefix(tool).and_then(|l| l.strip_prefix(": error: ")) {
            if !self.errors.iter().any(|e| e == text) {
                self.error(text);
            }
        } else if is_helper_error(line) {
            keep(&mut self.helpers, line);
        }
    }

    /// The failure of `tool`, which ended as `how` says (`exit status 1`).
    pub fn failure(&self, tool: &str, how: &str) -> Failure {
        let Some(own) = self.errors.back() else {
            return self.blame_helpers().unwrap_or_else(|| {
                Failure::new(Class::Conversion, format!("{tool} failed: {how}"))
            });
        };
        let generic = GENERIC.iter().any(|g| own.to_lowercase().contains(g));
        let class = class_of(own);
        if let (true, Some(cause)) = (generic || class.is_none(), self.blame_helpers()) {
            return Failure { message: format!("{} ({})", cause.message, one_line(own)), ..cause };
        }
        Failure::new(class.unwrap_or(Class::Conversion), one_line(own))
    }

    /// What a helper said, the last first, when its lines begin like this.
    pub fn of_helper(&self, start: &str) -> impl Iterator<Item = (Option<Class>, &str)> {
        let lines = self.helpers.iter().rev().filter(move |l| l.starts_with(start));
        lines.map(|l| (class_of(l), l.as_str()))
    }

    fn blame_helpers(&self) -> Option<Failure> {
        let (class, line) = self.helpers.iter().rev().find_map(|l| Some((class_of(l)?, l)))?;
        Some(Failure::new(class, one_line(line)))
    }
}

fn keep(lines: &mut VecDeque<String>, line: &str) {
    if lines.len() == KEPT_LINES {
        lines.pop_front();
    }
    lines.push_back(line.chars().take(2000).collect());
}

fn is_helper_error(line: &str) -> bool {
    let failing = || {
        let lower = line.to_lowercase();
        ["error", "fail", "cannot", "could not", "denied", "refused", "no space", "panic"]
            .iter()
            .any(|w| lower.contains(w))
    };
    !line.contains(": debug: ")
        && !ECHOES.iter().any(|e| line.contains(e))
        && ERROR_STARTS.iter().any(|s| line.starts_with(s))
        && failing()
}

fn class_of(text: &str) -> Option<Class> {
    let lower = text.to_lowercase();
    RULES.iter().find(|(_, words)| words.iter().any(|w| lower.contains(w))).map(|(class, _)| *class)
}

/// Without line breaks, and without a password that somebody put into a URL.
fn one_line(text: &str) -> String {
    let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
    redact_urls(&joined)
}

/// `scheme://user:secret@host` becomes `scheme://user:***@host`.
pub fn redact_urls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (head, tail) = rest.split_at(at + 3);
        out.push_str(head);
        let authority = tail.find(|c: char| c == '/' || c.is_whitespace()).unwrap_or(tail.len());
        let (authority, after) = tail.split_at(authority);
        match authority
            .rsplit_once('@')
            .and_then(|(user, host)| Some((user.split_once(':')?.0, host)))
        {
            Some((user, host)) => {
                out.push_str(user);
                out.push_str(":***@");
                out.push_str(host);
            }
            None => out.push_str(authority),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
#[path = "classify_tests.rs"]
mod tests;

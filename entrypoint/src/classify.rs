//! From what the tools said to why they failed. Pure.
//!
//! virt-v2v exits with 1 whatever went wrong, so the class comes from its text. Its own error
//! message decides; only when that one is generic do the errors of nbdkit, libguestfs and the
//! others count, since a verbose log is full of errors that are none.

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

/// One rule: a class, and texts of which one must be in the (lower-case) line.
type Rule = (Class, &'static [&'static str]);

/// The first rule that matches wins, so the precise ones stand before the general ones.
const RULES: &[Rule] = &[
    (
        Class::Auth,
        &[
            "incorrect username or password",
            "incorrect user name or password",
            "cannot complete login",
            "authentication failed",
            "login failed",
            "response code said error: 401",
            "error: 401",
            "permission denied (publickey",
            "permission denied, please try again",
            "invalid user name or password",
            "wrong password",
        ],
    ),
    (
        Class::Trust,
        &[
            "thumbprint",
            "ssl certificate problem",
            "certificate verify failed",
            "self-signed certificate",
            "self signed certificate",
            "certificate cannot be authenticated",
            "host key verification failed",
            "certificate has expired",
            "no alternative certificate subject name",
            "does not match target host name",
            "certificate subject name",
        ],
    ),
    (
        Class::NoSpace,
        &[
            "no space left on device",
            "insufficient free space in the conversion server",
            "disk quota exceeded",
            "tmpdir is low on space",
        ],
    ),
    (Class::Volume, &["destination size", "is smaller than source size"]),
    (
        Class::SourceBusy,
        &[
            "powered on",
            "is running or paused",
            "guest is running",
            "domain is running",
            "must be shut down",
            "is another process using the image",
            "failed to get \"write\" lock",
            "failed to get shared \"write\" lock",
            "you do not have access rights to this file",
            "object is locked",
            "being used by another process",
        ],
    ),
    (
        Class::NoBootLoader,
        &[
            "no bootloader detected",
            "no bootloader",
            "no boot loader",
            "bootloader could not",
            "grub2 configuration file was found",
            "grub configuration",
            "no grub",
        ],
    ),
    (
        Class::NoOperatingSystem,
        &[
            "no root device found",
            "no operating system",
            "inspection could not detect the source guest",
            "virt-v2v did not find any operating system",
        ],
    ),
    (
        Class::Encrypted,
        &["could not find key to open luks", "luks", "bitlocker", "clevis", "encrypted"],
    ),
    (
        Class::GuestFilesystem,
        &[
            "hibernated",
            "fast startup",
            "unsafe state",
            "inconsistent state",
            "wrong fs type",
            "structure needs cleaning",
            "mounted read-only",
            "not enough free space for conversion on filesystem",
            "not enough available inodes",
            "file system is damaged",
            "filesystem is corrupt",
            "metadata corruption",
            "superblock",
        ],
    ),
    (
        Class::UnsupportedGuest,
        &[
            "unable to convert this guest type",
            "conversion of this guest type",
            "is not supported",
            "unsupported guest",
            "no installed kernels",
            "no kernels",
            "no installed kernel",
            "multi-boot operating systems",
            "unknown guest",
        ],
    ),
    (
        Class::Network,
        &[
            "could not resolve host",
            "couldn't resolve host",
            "unable to resolve address",
            "name or service not known",
            "temporary failure in name resolution",
            "connection refused",
            "no route to host",
            "network is unreachable",
            "timed out",
            "timeout was reached",
            "connection reset by peer",
            "could not connect",
            "couldn't connect",
            "failed to connect to",
            "unable to connect to server",
            "broken pipe",
            "nbd_clientopen",
        ],
    ),
    (
        Class::NotFound,
        &[
            "domain not found",
            "no domain with matching",
            "could not find datacenter",
            "could not find compute resource",
            "could not find host system",
            "could not find '",
            "could not find \"",
            "404 not found",
            "error: 404",
            "url not found",
            "failed to get domain",
            "no such file or directory",
            "does not exist",
            "cannot find the path",
            "file not found",
        ],
    ),
    (
        Class::Memory,
        &["out of memory", "cannot allocate memory", "failed to allocate the requested"],
    ),
    (
        Class::Vddk,
        &[
            "vixdisklib",
            "libvixdisklib",
            "nbdkit: vddk",
            "nbdkit vddk plugin",
            "vddk library",
            "vddk libdir",
            "vddk",
        ],
    ),
    (
        Class::Appliance,
        &[
            "guestfs_launch failed",
            "guestfs_launch",
            "supermin",
            "appliance",
            "passt exited",
            "qemu-system",
            "qemu exited",
            "kernel panic",
            "could not create appliance",
        ],
    ),
    (
        Class::Tool,
        &[
            "unrecognized option",
            "unrecognised option",
            "unknown option",
            "command not found",
            "not installed or not available",
        ],
    ),
    (
        Class::Config,
        &[
            "output guest name",
            "rfc1123",
            "rfc 1123",
            "'-on name'",
            "use ‘-on’",
            "invalid argument of",
            "is not a valid",
            "unknown filter",
            "expecting",
        ],
    ),
    (
        Class::Io,
        &[
            "input/output error",
            "read failed",
            "write failed",
            "read error",
            "write error",
            "nbd_pread",
            "bad sector",
            "device or resource busy",
        ],
    ),
];

/// Messages of virt-v2v that name no cause; the helpers' errors are then asked.
const GENERIC: [&str; 6] = [
    "nbdkit did not start up",
    "exited with non-zero",
    "nbdcopy exited",
    "external command",
    "libguestfs error: guestfs_launch",
    "qemu-nbd did not start up",
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
    !line.contains(": debug: ") && ERROR_STARTS.iter().any(|s| line.starts_with(s)) && failing()
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn class(errors: &[&str], lines: &[&str]) -> Class {
        let mut evidence = Evidence::default();
        for e in errors {
            evidence.error(e);
        }
        for l in lines {
            evidence.line("virt-v2v", l);
        }
        evidence.failure("virt-v2v", "exit status 1").class
    }

    #[test]
    fn known_errors_have_their_class() {
        let known = [
            ("vcenter: incorrect username or password", Class::Auth),
            (
                "insufficient free space in the conversion server temporary directory /var/tmp (97 MB).",
                Class::NoSpace,
            ),
            ("source domain is running or paused", Class::SourceBusy),
            ("no bootloader detected", Class::NoBootLoader),
            (
                "inspection could not detect the source guest (or physical machine) operating system.",
                Class::NoOperatingSystem,
            ),
            (
                "virt-v2v is unable to convert this guest type (linux/distro=arch)",
                Class::UnsupportedGuest,
            ),
            (
                "exception: libvirt: VIR_ERR_NO_DOMAIN: VIR_FROM_ESX: Domain not found: No domain with name 'x'",
                Class::NotFound,
            ),
            (
                "unable to mount the disk image for writing. This has probably happened because Windows Hibernation or Fast Startup is being used in this guest.",
                Class::GuestFilesystem,
            ),
            ("Could not find key to open LUKS encrypted /dev/sda2.", Class::Encrypted),
            ("some new trouble", Class::Conversion),
        ];
        for (text, want) in known {
            assert_eq!(class(&[text], &[]), want, "{text}");
        }
    }

    #[test]
    fn a_generic_error_is_explained_by_the_helper() {
        let generic = ["nbdkit did not start up.  See previous debugging messages for problems."];
        let curl = "nbdkit: curl[1]: error: problem doing HEAD request to fetch size of URL [https://h/]: SSL peer certificate or SSH remote key was not OK: SSL certificate problem: unable to get local issuer certificate";
        assert_eq!(
            class(&generic, &["nbdkit: debug: error: no space left on device", curl]),
            Class::Trust
        );
        assert_eq!(
            class(
                &generic,
                &["nbdkit: error: /opt/x/lib64/libvixDiskLib.so.8: cannot open shared object file"]
            ),
            Class::Vddk
        );
        assert_eq!(
            class(
                &["nbdcopy exited with non-zero error code 1"],
                &["nbdcopy: write at offset 1: No space left on device (error)"]
            ),
            Class::NoSpace
        );
        assert_eq!(
            class(
                &[],
                &["nbdkit: vddk[1]: error: VixDiskLib_ConnectEx: thumbprint does not match"]
            ),
            Class::Trust
        );
    }

    #[test]
    fn the_own_error_beats_the_noise_of_a_verbose_log() {
        let noise =
            ["libguestfs: error: mount: wrong fs type", "nbdkit: error: connection refused"];
        assert_eq!(class(&["no bootloader detected"], &noise), Class::NoBootLoader);
    }

    #[test]
    fn the_human_error_line_serves_without_machine_messages() {
        assert_eq!(class(&[], &["virt-v2v: error: no bootloader detected"]), Class::NoBootLoader);
    }

    #[test]
    fn passwords_in_urls_are_not_repeated() {
        assert_eq!(
            redact_urls("at esx://root:se@cret@h/x and http://h/"),
            "at esx://root:***@h/x and http://h/"
        );
    }

    proptest! {
        #[test]
        fn any_text_is_classified(errors in prop::collection::vec("\\PC{0,60}", 0..3), lines in prop::collection::vec("(nbdkit: )?\\PC{0,60}", 0..9)) {
            let e: Vec<&str> = errors.iter().map(String::as_str).collect();
            let l: Vec<&str> = lines.iter().map(String::as_str).collect();
            class(&e, &l);
        }

        #[test]
        fn redaction_never_panics_and_keeps_plain_text(text in "\\PC{0,60}(://\\PC{0,30})?") {
            let out = redact_urls(&text);
            if !text.contains("://") {
                prop_assert_eq!(out, text);
            }
        }
    }
}

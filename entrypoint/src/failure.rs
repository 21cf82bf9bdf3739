//! Why a run failed: the classes, their exit codes, and the one JSON line for Kubernetes.
//!
//! Every error of the run becomes a [`Failure`] at the place where it is noticed; the flow hands
//! the first one up and `main` turns it into the exit code. The table of codes in
//! `docs/contract.md` is checked against [`Class::ALL`] by a test.

use serde::Serialize;
use std::fmt;

/// Kubernetes keeps this much of a termination message; longer ones lose their end.
pub const TERMINATION_MESSAGE_BYTES: usize = 4096;

/// What kind of failure it was. Decides the exit code and the advice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// A mistake on the command line.
    Usage,
    /// Settings that make no sense.
    Config,
    /// A volume is missing, too small, unreadable, or their number is wrong.
    Volume,
    /// The source refused the user or the password.
    Auth,
    /// The certificate or its thumbprint is not the expected one.
    Trust,
    /// A host could not be reached, or the connection broke.
    Network,
    /// The VM, the disk, the file or the datacenter is not there.
    NotFound,
    /// A disk or a temporary folder is full.
    NoSpace,
    /// virt-v2v does not know this guest or cannot convert it.
    UnsupportedGuest,
    /// The guest has no boot loader that virt-v2v knows.
    NoBootLoader,
    /// The disk has no operating system.
    NoOperatingSystem,
    /// The disk is encrypted and no key fits.
    Encrypted,
    /// The guest's file system is dirty, hibernated or damaged.
    GuestFilesystem,
    /// The VM is running, or its disk is locked.
    SourceBusy,
    /// VDDK is missing, unloadable or failed.
    Vddk,
    /// The libguestfs appliance did not start.
    Appliance,
    /// A tool is missing or lacks a needed feature.
    Tool,
    /// Reading the source or writing the target failed.
    Io,
    /// A target does not hold what was read from the source.
    Integrity,
    /// The kernel killed a tool for want of memory, or memory ran out.
    Memory,
    /// The conversion finished, the inspection did not.
    Inspection,
    /// virt-v2v failed in a way we do not know.
    Conversion,
    /// Stopped by SIGTERM.
    Terminated,
    /// Stopped by SIGINT.
    Interrupted,
    /// A defect of v2v-pod.
    Internal,
}

impl Class {
    /// Every class, in the order of the table in `docs/contract.md`.
    pub const ALL: [Class; 25] = [
        Class::Usage,
        Class::Config,
        Class::Volume,
        Class::Auth,
        Class::Trust,
        Class::Network,
        Class::NotFound,
        Class::NoSpace,
        Class::UnsupportedGuest,
        Class::NoBootLoader,
        Class::NoOperatingSystem,
        Class::Encrypted,
        Class::GuestFilesystem,
        Class::SourceBusy,
        Class::Vddk,
        Class::Appliance,
        Class::Tool,
        Class::Io,
        Class::Integrity,
        Class::Memory,
        Class::Inspection,
        Class::Conversion,
        Class::Terminated,
        Class::Interrupted,
        Class::Internal,
    ];

    #[allow(clippy::too_many_lines)] // a table
    fn row(self) -> (u8, &'static str, &'static str) {
        match self {
            // The code of Go's `flag` package, which Forklift's pod has for a bad command line.
            Class::Usage => (2, "usage", "see `v2v-pod --help` for commands and settings"),
            Class::Config => (64, "config", "correct the named setting and start again"),
            Class::Volume => (
                20,
                "volume",
                "give one volume per source disk, numbered from 0 without a gap, each at least as large as its disk",
            ),
            Class::Auth => (
                21,
                "auth",
                "check the user name in the URL and the password in the secret (secretKey)",
            ),
            Class::Trust => (
                22,
                "trust",
                "check the thumbprint or CA certificate against the one the server presents; an ESXi host's differs from its vCenter's",
            ),
            Class::Network => (
                23,
                "network",
                "check that the pod can reach the source (name resolution, firewall; ports 443 and 902) and start again",
            ),
            Class::NotFound => (
                24,
                "not-found",
                "check the VM's name, the datacenter path in the URL and the disk path",
            ),
            Class::NoSpace => (
                25,
                "no-space",
                "give larger volumes, or more temporary space on the work volume (/var/tmp)",
            ),
            Class::UnsupportedGuest => (
                26,
                "unsupported-guest",
                "see virt-v2v's list of supported guests; the message names what it found",
            ),
            Class::NoBootLoader => (
                27,
                "no-boot-loader",
                "install a boot loader (GRUB, systemd-boot) in the guest before the conversion",
            ),
            Class::NoOperatingSystem => (
                28,
                "no-operating-system",
                "check that the first disk is the boot disk and that V2V_RootDisk names the root file system",
            ),
            Class::Encrypted => (
                29,
                "encrypted",
                "give the disk's passphrase as a file in /etc/luks, or set V2V_NBDE_CLEVIS",
            ),
            Class::GuestFilesystem => (
                30,
                "guest-filesystem",
                "shut the guest down cleanly (no hibernation, no fast startup), check its file systems, and start again",
            ),
            Class::SourceBusy => (
                31,
                "source-busy",
                "power the VM off and make sure no backup or snapshot task holds its disks",
            ),
            Class::Vddk => (
                32,
                "vddk",
                "check the VDDK volume at /opt/vmware-vix-disklib-distrib, or leave it out to use HTTPS",
            ),
            Class::Appliance => (
                33,
                "appliance",
                "run `v2v-pod preflight` in this image on this node: it starts the appliance and shows why it fails",
            ),
            Class::Tool => (34, "tool", "use the v2v-pod image, or install the named tool"),
            Class::Io => (
                35,
                "io",
                "check the health of the source datastore and of the target volumes, then start again",
            ),
            Class::Integrity => (
                38,
                "integrity",
                "get an OVA that is not what its manifest says once more; for a target, check the volume's storage and copy the disk again",
            ),
            Class::Memory => (
                36,
                "memory",
                "raise the pod's memory limit, or set V2V_memSize for a larger appliance",
            ),
            Class::Inspection => (
                37,
                "inspection",
                "the disks are converted; the reason why they cannot be inspected is in the log",
            ),
            Class::Conversion => (
                40,
                "conversion",
                "read the last lines of the log; with them, ask on the virt-v2v list",
            ),
            Class::Terminated => (
                143,
                "terminated",
                "the pod was told to stop; start it again, nothing needs cleaning",
            ),
            Class::Interrupted => (130, "interrupted", "start it again, nothing needs cleaning"),
            Class::Internal => {
                (70, "internal", "this is a defect of v2v-pod: please report it with the log")
            }
        }
    }

    /// The process exit code; distinct per class, never 0.
    pub fn exit_code(self) -> u8 {
        self.row().0
    }

    /// The word used in the termination message, in metrics and in the documentation.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// What an operator can do about it, when nothing more precise is known.
    pub fn advice(self) -> &'static str {
        self.row().2
    }
}

/// A failed run: the class, what happened, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The kind.
    pub class: Class,
    /// One line: what failed, naming the thing.
    pub message: String,
    /// One line: what to try.
    pub advice: String,
    /// The same run, tried again later, may well succeed.
    pub passing: bool,
}

impl Failure {
    /// A failure with the class's own advice.
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), advice: class.advice().to_owned(), passing: false }
    }

    /// The same failure with more precise advice.
    #[must_use]
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = advice.into();
        self
    }

    /// The same failure as one that may pass.
    #[must_use]
    pub fn may_pass(mut self) -> Self {
        self.passing = true;
        self
    }

    /// The same failure in other words.
    #[must_use]
    pub fn with_message(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }

    /// The one line for `/dev/termination-log`: JSON, at most 4 KiB, always with class and code.
    pub fn termination_message(&self) -> String {
        let mut message = self.message.as_str();
        loop {
            let line = serde_json::to_string(&TerminationMessage {
                outcome: "failed",
                class: self.class.name(),
                exit_code: self.class.exit_code(),
                message,
                advice: &self.advice,
                passing: self.passing || self.class == Class::Network,
            })
            .unwrap_or_default();
            if line.len() <= TERMINATION_MESSAGE_BYTES || message.is_empty() {
                return line;
            }
            message = shorten(message, message.len() * 3 / 4);
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// The one line for `/dev/termination-log` after a success.
pub fn success_message(transport: &str, trust: &str, warnings: usize) -> String {
    #[derive(Serialize)]
    struct Success<'a> {
        outcome: &'a str,
        transport: &'a str,
        trust: &'a str,
        warnings: usize,
    }
    serde_json::to_string(&Success { outcome: "succeeded", transport, trust, warnings })
        .unwrap_or_default()
}

#[derive(Serialize)]
struct TerminationMessage<'a> {
    outcome: &'a str,
    class: &'a str,
    exit_code: u8,
    message: &'a str,
    advice: &'a str,
    /// The same run may succeed later, as it is.
    passing: bool,
}

/// At most `max` bytes of `text`, cut at a character boundary.
fn shorten(text: &str, max: usize) -> &str {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn exit_codes_and_names_are_distinct_and_never_zero() {
        let codes: HashSet<u8> = Class::ALL.iter().map(|c| c.exit_code()).collect();
        let names: HashSet<&str> = Class::ALL.iter().map(|c| c.name()).collect();
        assert_eq!((codes.len(), names.len()), (Class::ALL.len(), Class::ALL.len()));
        assert!(!codes.contains(&0) && !codes.contains(&1));
    }

    #[test]
    fn the_contract_documents_every_class() {
        let contract = include_str!("../../docs/contract.md");
        for class in Class::ALL {
            let row = format!("| {} | `{}` |", class.exit_code(), class.name());
            assert!(contract.contains(&row), "docs/contract.md lacks the row: {row}");
        }
    }

    proptest! {
        #[test]
        fn termination_messages_are_one_short_json_line(text in "\\PC{0,6000}") {
            let line = Failure::new(Class::Io, format!("{text}\n\u{1}")).termination_message();
            prop_assert!(line.len() <= TERMINATION_MESSAGE_BYTES);
            prop_assert!(!line.contains('\n'));
            let v: serde_json::Value = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(v["exit_code"].as_u64(), Some(35));
        }
    }
}

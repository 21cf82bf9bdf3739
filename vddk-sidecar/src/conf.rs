//! VDDK's own configuration file (`name=value` lines): what is unknown or misspelt in it is named. VDDK says nothing
//! about such lines and goes on without them. Pure.

use std::fmt;

/// A known setting.
#[derive(Debug)]
struct Key {
    name: &'static str,
    number: bool,
}

const fn number(name: &'static str) -> Key {
    Key { name, number: true }
}

const fn text(name: &'static str) -> Key {
    Key { name, number: false }
}

/// Source: VMware's programming guide, "Initialize Virtual Disk API"; the two of nfcAio from the release notes.
const KEYS: [Key; 24] = [
    text("tmpDirectory"),
    number("vixDiskLib.transport.LogLevel"),
    text("vixDiskLib.transport.san.denyList"),
    text("vixDiskLib.transport.san.allowList"),
    text("vixDiskLib.transport.san.blacklist"),
    text("vixDiskLib.transport.san.whitelist"),
    number("vixDiskLib.transport.hotadd.NoNfcSession"),
    number("vixDiskLib.disklib.EnableCache"),
    number("vixDiskLib.linuxSSL.verifyCertificates"),
    text("vixDiskLib.ssl.enableSslFIPS"),
    number("vixDiskLib.nfc.AcceptTimeoutMs"),
    number("vixDiskLib.nfc.RequestTimeoutMs"),
    number("vixDiskLib.nfc.ReadTimeoutMs"),
    number("vixDiskLib.nfc.WriteTimeoutMs"),
    number("vixDiskLib.nfcFssrvr.TimeoutMs"),
    number("vixDiskLib.nfcFssrvrWrite.TimeoutMs"),
    number("vixDiskLib.nfc.LogLevel"),
    number("vixDiskLib.nfcAio.Session.BufSizeIn64KB"),
    number("vixDiskLib.nfcAio.Session.BufCount"),
    text("vixDiskLib.phoneHome.EnablePhoneHome"),
    text("vixDiskLib.phoneHome.ProductName"),
    text("vixDiskLib.phoneHome.ProductVersion"),
    text("log.fileName"),
    text("log.fileLevel"),
];
/// Names this alike are taken for a slip.
const ALIKE: f64 = 0.9;

/// Something in the file that has no effect, or not the one that was meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// From 1.
    pub line: usize,
    /// What.
    pub problem: Slip,
}

/// What can be wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Slip {
    /// Neither empty, comment, nor `name=value`.
    NoAssignment(String),
    /// A name that VDDK does not know.
    Unknown {
        /// As written.
        name: String,
        /// The known name that is nearest, when one is near.
        meant: Option<&'static str>,
    },
    /// A value that should be a number.
    NoNumber {
        /// The setting.
        name: &'static str,
        /// As written.
        value: String,
    },
    /// The same name again; the last one counts.
    Twice(&'static str),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        match &self.problem {
            Slip::NoAssignment(text) => write!(f, "{text:?} is not of the form name=value"),
            Slip::Unknown { name, meant: Some(meant) } => {
                write!(f, "{name} is not a setting of VDDK and has no effect; {meant} is one")
            }
            Slip::Unknown { name, meant: None } => {
                write!(f, "{name} is not a known setting of VDDK and has probably no effect")
            }
            Slip::NoNumber { name, value } => write!(f, "{name} takes a number, not {value:?}"),
            Slip::Twice(name) => write!(f, "{name} is set a second time"),
        }
    }
}

/// Looks through the file's text. Names are compared without regard to case, as VDDK does it.
pub fn check(content: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for (index, line) in content.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut find = |problem| findings.push(Finding { line: index + 1, problem });
        let Some((name, value)) = line.split_once('=') else {
            find(Slip::NoAssignment(shorten(line)));
            continue;
        };
        let (name, value) = (name.trim(), value.trim().trim_matches('"'));
        match KEYS.iter().find(|k| k.name.eq_ignore_ascii_case(name)) {
            None => find(Slip::Unknown { name: shorten(name), meant: nearest(name) }),
            Some(key) => {
                if key.number && value.parse::<u32>().is_err() {
                    find(Slip::NoNumber { name: key.name, value: shorten(value) });
                }
                if seen.contains(&key.name) {
                    find(Slip::Twice(key.name));
                }
                seen.push(key.name);
            }
        }
    }
    findings
}

fn shorten(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

fn nearest(name: &str) -> Option<&'static str> {
    let name = name.to_lowercase();
    KEYS.iter()
        .map(|k| (strsim::jaro_winkler(&name, &k.name.to_lowercase()), k.name))
        .filter(|(alike, _)| *alike >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forklifts_own_file_is_clean() {
        let text = "VixDiskLib.nfcAio.Session.BufSizeIn64KB=16\nvixDiskLib.nfcAio.Session.BufCount=4\n\n# x\ntmpDirectory = \"/tmp/x\"\n";
        assert_eq!(check(text), []);
    }

    #[test]
    fn slips_are_named() {
        let text = "vixDiskLib.nfcAio.Session.BufSizeIn64K=16\nfoo=1\nwhat\nvixDiskLib.nfc.ReadTimeoutMs=1m\nvixdisklib.nfc.readtimeoutms=5\n";
        let found: Vec<String> = check(text).iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), 5, "{found:?}");
        assert!(
            found[0].contains("line 1") && found[0].contains("BufSizeIn64KB is one"),
            "{}",
            found[0]
        );
        assert!(found[1].contains("foo is not a known"));
        assert!(found[2].contains("\"what\" is not of the form"));
        assert!(found[3].contains("takes a number, not \"1m\""));
        assert!(found[4].contains("a second time"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_taken(text in "\\PC*") { let _ = check(&text); }
    }
}

//! What nbdkit's VDDK plugin says while virt-v2v runs: failures that will not pass end the run at once, instead of after
//! the minute of nbdkit's retry filter; a host without memory for large requests gets smaller ones. Pure.

use crate::failure::{Class, Failure};
use std::time::{Duration, Instant};
use vddk_sidecar::vix::error::{Code, Kind, Nature, by_text, in_line};

/// What a line means for the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It will not pass.
    Fatal(Failure),
    /// The ESXi host has no NFC memory for requests of this size.
    HostMemory,
    /// It may pass; nbdkit tries again.
    Passing(&'static Code),
}

/// What nbdkit calls a request that `ReadAsync` took and did not fulfil.
const ASYNC: &str = "asynchronous read failed: ";

/// The library's log explains the error that follows it, not one of hours later: it also logs what it gets over by itself.
const HINT_LASTS: Duration = Duration::from_secs(5);
/// Asked for only to find out whether it works.
const PROBE: &str = "VixDiskLib_QueryAllocatedBlocks";

/// Follows the lines of one tool.
#[derive(Debug, Default)]
pub struct Watch {
    /// From the library's own log, which comes before nbdkit's error and is more precise.
    hint: Option<(&'static Code, Instant)>,
    thumbprint: Option<(String, Instant)>,
    passing: Option<(&'static Code, String)>,
}

impl Watch {
    /// Takes a line of the tool's output, with the time at which it came.
    pub fn line(&mut self, line: &str, now: Instant) -> Option<Verdict> {
        if !["ixDiskLib", "Nfc", ASYNC].iter().any(|w| line.contains(w)) {
            return None;
        }
        if let Some(call) = failed_call(line) {
            return self.failed(call, now);
        }
        if line.contains("Failed to verify SSL certificate") {
            self.thumbprint = Some((line.to_owned(), now));
        }
        let memory = by_text(line).filter(|c| c.kind == Kind::HostMemory);
        if let Some(code) =
            memory.or_else(|| in_line(line)).filter(|c| c.code != 1 && !line.contains(PROBE))
        {
            self.hint = Some((code, now));
        }
        memory.map(|_| Verdict::HostMemory)
    }

    /// The last failure that could have passed and may be why the tool failed.
    pub fn passing(&self) -> Option<Failure> {
        let (code, call) = self.passing.as_ref()?;
        Some(failure(code, call).may_pass())
    }

    fn failed(&mut self, call: &str, now: Instant) -> Option<Verdict> {
        let fresh = |at: Instant| now.saturating_duration_since(at) < HINT_LASTS;
        let hint = self.hint.take().filter(|(_, at)| fresh(*at)).map(|(code, _)| code);
        if let Some((line, _)) = self.thumbprint.take().filter(|(_, at)| fresh(*at)) {
            return Some(Verdict::Fatal(wrong_thumbprint(&line)));
        }
        let code = by_text(call).or(hint)?;
        match code.nature {
            Nature::Fatal if self.may_be_the_outage(code) => Some(Verdict::Passing(code)),
            Nature::Fatal => Some(Verdict::Fatal(failure(code, call))),
            Nature::Unknown => None,
            Nature::Passing => {
                self.passing = Some((code, call.to_owned()));
                let memory = code.kind == Kind::HostMemory;
                Some(if memory { Verdict::HostMemory } else { Verdict::Passing(code) })
            }
        }
    }

    /// After a lost connection the disk may still be locked by the old one, and a server that starts refuses logins: nbdkit's
    /// own minute is worth more than a run of hours.
    fn may_be_the_outage(&self, code: &Code) -> bool {
        let lost = self.passing.as_ref().is_some_and(|(c, _)| c.kind == Kind::Network);
        lost && matches!(code.kind, Kind::Busy | Kind::Auth | Kind::Permission | Kind::Name)
    }
}

/// `nbdkit: vddk[1]: error: VixDiskLib_Open: [ds] a.vmdk: text` and `nbdkit: error: command 5: asynchronous read failed:
/// text`, from the call on. Threads cut each other's lines, so the beginning may be missing.
fn failed_call(line: &str) -> Option<&str> {
    if line.contains("debug:") {
        return None;
    }
    if let Some(at) = line.find(ASYNC).filter(|_| line.contains("error: ")) {
        return line.get(at..);
    }
    let at = line.find("error: VixDiskLib_")? + "error: ".len();
    line.get(at..).filter(|call| !call.starts_with(PROBE))
}

fn wrong_thumbprint(line: &str) -> Failure {
    let value = |name: &str| {
        let (_, rest) = line.split_once(name)?;
        let end = rest.find(|c: char| !c.is_ascii_hexdigit() && c != ':').unwrap_or(rest.len());
        rest.get(..end).filter(|v| !v.is_empty())
    };
    let message = match (value("expected="), value("actual thumbprint=")) {
        (Some(expected), Some(actual)) => format!(
            "the server's certificate has the thumbprint {actual}, and {expected} was expected (VDDK)"
        ),
        _ => "the server's certificate is not the one whose thumbprint was given (VDDK)".to_owned(),
    };
    Failure::new(Class::Trust, message)
}

/// The failure that a code stands for.
pub fn failure(code: &Code, call: &str) -> Failure {
    let text = call.split_whitespace().collect::<Vec<_>>().join(" ");
    let message = format!("VDDK: {text} (error {}, {})", code.code, code.name);
    Failure::new(class(code.kind), message).advise(code.remedy)
}

/// Which class of ours a kind of theirs is.
pub fn class(kind: Kind) -> Class {
    match kind {
        Kind::Network | Kind::Name => Class::Network,
        Kind::Auth | Kind::Permission => Class::Auth,
        Kind::Busy => Class::SourceBusy,
        Kind::NotFound => Class::NotFound,
        Kind::Encrypted => Class::Encrypted,
        Kind::Disk => Class::Io,
        Kind::HostMemory | Kind::Unsupported | Kind::Other => Class::Vddk,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "nbdkit: vddk[1]: debug: VixDiskLib: VixDiskLib_OpenEx: Cannot open disk [ds] a.vmdk. Error 13 (You do not have access rights to this file) at 4818.";

    fn fatal(watch: &mut Watch, line: &str) -> Failure {
        match watch.line(line, Instant::now()) {
            Some(Verdict::Fatal(failure)) => failure,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_will_not_pass_is_fatal_at_nbdkits_own_error_only() {
        let mut watch = Watch::default();
        assert_eq!(
            watch.line(LOG, Instant::now()),
            None,
            "the library's log alone decides nothing"
        );
        let failure = fatal(
            &mut watch,
            "nbdkit: vddk[1]: error: VixDiskLib_Open: [ds] a.vmdk: You do not have access rights to this file",
        );
        assert_eq!(failure.class, Class::SourceBusy);
        assert!(failure.message.contains("[ds] a.vmdk") && failure.message.contains("error 13"));
        assert!(failure.advice.contains("snapshot"));
    }

    #[test]
    fn a_text_that_nobody_knows_is_explained_by_the_log_before_it() {
        let mut watch = Watch::default();
        watch.line(LOG, Instant::now());
        assert_eq!(
            fatal(&mut watch, "nbdkit: vddk[1]: error: VixDiskLib_Open: [ds] a.vmdk: Kein Zugriff")
                .class,
            Class::SourceBusy
        );
        assert_eq!(
            watch.line(
                "nbdkit: vddk[1]: error: VixDiskLib_Open: [ds] a.vmdk: Kein Zugriff",
                Instant::now()
            ),
            None,
            "a hint counts once"
        );
    }

    #[test]
    fn a_wrong_thumbprint_is_named_with_both() {
        let mut watch = Watch::default();
        watch.line("nbdkit: vddk[1]: debug: VixDiskLibVim: Failed to verify SSL certificate: actual thumbprint=AA:BB, expected=CC:DD.", Instant::now());
        let failure =
            fatal(&mut watch, "nbdkit: vddk[1]: error: VixDiskLib_ConnectEx: Unknown error");
        assert_eq!(failure.class, Class::Trust);
        assert!(failure.message.contains("thumbprint AA:BB, and CC:DD"), "{failure}");
    }

    #[test]
    fn memory_of_the_host_asks_for_smaller_requests_and_a_lost_connection_for_patience() {
        let mut watch = Watch::default();
        let nfc = "nbdkit: vddk[3]: debug: NfcFssrvrProcessErrorMsg: received NFC error 5 from server: Failed to allocate the requested 2097176 bytes";
        assert_eq!(watch.line(nfc, Instant::now()), Some(Verdict::HostMemory));
        let lost = "nbdkit: error: command 402: asynchronous read failed: The connection was lost";
        assert!(
            matches!(watch.line(lost, Instant::now()), Some(Verdict::Passing(c)) if c.code == 14011)
        );
        assert_eq!(watch.passing().unwrap().class, Class::Network);
        let query = "nbdkit: vddk[1]: error: VixDiskLib_QueryAllocatedBlocks: You do not have access rights to this file";
        assert_eq!(watch.line(query, Instant::now()), None);
    }

    #[test]
    fn an_old_hint_or_one_of_a_probe_explains_nothing() {
        let (mut watch, begin) = (Watch::default(), Instant::now());
        let unknown = "nbdkit: error: command 5: asynchronous read failed: Unknown error";
        watch.line(LOG, begin);
        assert_eq!(watch.line(unknown, begin + Duration::from_secs(60)), None);
        let probe = "nbdkit: vddk[1]: debug: VixDiskLib: VixDiskLib_QueryAllocatedBlocks: Error 6 (The operation is not supported) at 1.";
        watch.line(probe, begin);
        assert_eq!(watch.line(unknown, begin), None);
        let print = "nbdkit: vddk[1]: debug: VixDiskLibVim: Failed to verify SSL certificate: x";
        watch.line(print, begin);
        assert_eq!(watch.line(unknown, begin + Duration::from_secs(60)), None);
    }

    #[test]
    fn a_disk_that_is_locked_after_a_lost_connection_may_be_free_again_soon() {
        let (mut watch, now) = (Watch::default(), Instant::now());
        let locked =
            "nbdkit: vddk[1]: error: VixDiskLib_Open: [ds] a.vmdk: The file is already in use";
        let lost = "nbdkit: error: command 402: asynchronous read failed: The connection was lost";
        watch.line(lost, now);
        assert!(matches!(watch.line(locked, now), Some(Verdict::Passing(c)) if c.code == 15));
        assert_eq!(watch.passing().unwrap().class, Class::Network, "the cause is what came first");
        assert_eq!(fatal(&mut Watch::default(), locked).class, Class::SourceBusy);
    }

    proptest::proptest! {
        #[test]
        fn any_line_is_taken(line in "\\PC*") {
            let _ = Watch::default().line(&format!("nbdkit: vddk[1]: error: VixDiskLib_Read{line}"), Instant::now());
            let _ = Watch::default().line(&format!("VixDiskLib Failed to verify SSL certificate{line}"), Instant::now());
        }
    }
}

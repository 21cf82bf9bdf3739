//! Decides which calls fail.

use crate::codes::VixError;
use crate::settings::{Fault, Function, When};
use std::sync::{Mutex, PoisonError};

/// A call, as far as faults look at it. Calls without data have no bytes.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// The function called.
    pub function: Function,
    /// In the call or in its completion.
    pub at: When,
    /// Where the request begins, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub bytes: u64,
}

/// The faults of the settings with what they have seen so far. One for the process.
#[derive(Debug)]
pub struct Faults(Mutex<Vec<Seen>>);

#[derive(Debug)]
struct Seen {
    fault: Fault,
    calls: u64,
    failed: u64,
    /// The part of a failure that has built up; see `Seen::fails`.
    owed: f64,
}

impl Faults {
    /// None of these has happened yet.
    pub fn new(faults: &[Fault]) -> Self {
        let seen = |fault: &Fault| Seen { fault: fault.clone(), calls: 0, failed: 0, owed: 0.0 };
        Self(Mutex::new(faults.iter().map(seen).collect()))
    }

    /// The code with which this call fails. The first fault in the file that applies decides.
    pub fn next(&self, call: Call) -> Option<VixError> {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        faults.iter_mut().find_map(|seen| seen.fails(call).then_some(seen.fault.code))
    }
}

impl Seen {
    fn fails(&mut self, call: Call) -> bool {
        let fault = &self.fault;
        let asynchronous = matches!(call.function, Function::ReadAsync | Function::WriteAsync);
        let touches = |[from, to]: [u64; 2]| call.offset < to && call.offset + call.bytes > from;
        if fault.function != call.function
            || (asynchronous && fault.at != call.at)
            || call.bytes < fault.min_bytes
            || !fault.range.is_none_or(touches)
        {
            return false;
        }
        self.calls += 1;
        if self.calls <= fault.after || fault.count.is_some_and(|count| self.failed >= count) {
            return false;
        }
        // Evenly spread and the same in every run: a rate of 0.25 fails every fourth call.
        self.owed += fault.rate.unwrap_or(1.0);
        if self.owed < 1.0 {
            return false;
        }
        self.owed -= 1.0;
        self.failed += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(faults: &Faults, offset: u64, bytes: u64) -> bool {
        let call = Call { function: Function::ReadAsync, at: When::Completion, offset, bytes };
        faults.next(call).is_some()
    }

    fn faults(text: &str) -> Faults {
        Faults::new(&[serde_json::from_str(text).unwrap()])
    }

    #[test]
    fn after_and_count() {
        let faults = faults(r#"{"function": "ReadAsync", "code": 2, "after": 2, "count": 1}"#);
        let seen: Vec<bool> = (0..5).map(|_| fails(&faults, 0, 512)).collect();
        assert_eq!(seen, [false, false, true, false, false]);
    }

    #[test]
    fn only_big_requests() {
        let faults = faults(r#"{"function": "ReadAsync", "code": 2, "min_bytes": 1024}"#);
        assert!(!fails(&faults, 0, 1023));
        assert!(fails(&faults, 0, 1024));
    }

    #[test]
    fn only_in_a_range() {
        let faults = faults(r#"{"function": "ReadAsync", "code": 2, "range": [1024, 2048]}"#);
        assert!(!fails(&faults, 0, 1024));
        assert!(fails(&faults, 512, 1024));
        assert!(fails(&faults, 1536, 4096));
        assert!(!fails(&faults, 2048, 512));
    }

    #[test]
    fn a_part_of_the_calls() {
        let faults = faults(r#"{"function": "ReadAsync", "code": 2, "rate": 0.25}"#);
        assert_eq!((0..100).filter(|_| fails(&faults, 0, 512)).count(), 25);
    }

    #[test]
    fn others_do_not_count() {
        let faults = faults(r#"{"function": "Open", "code": 13}"#);
        assert!(!fails(&faults, 0, 512));
        let open = Call { function: Function::Open, at: When::Call, offset: 0, bytes: 0 };
        assert_eq!(faults.next(open), Some(13));
    }
}

//! What is to be done next for one VM. Pure.
//!
//! [`next`] looks at the objects of a VM and at what the Plan's status remembers, and answers
//! with the new status and with steps, each of which may be done any number of times. It never
//! counts on a step of an earlier round having been done, or on its status having been written.

mod machine;
mod seen;
mod turn;

pub use seen::{MachineState, PodState, Record, Seen, SourceState, VolumeState};
pub use turn::{Candidate, admit};

use super::failure::Failure;
use crate::api::plan::VmPhase;
use crate::objects::event::Told;

/// Seconds between two looks at a VM that is being worked on.
const LOOK: u64 = 10;
/// Seconds between two looks at what only a person can change.
const LOOK_AGAIN: u64 = 60;
/// The longest wait between two tries, in seconds.
const RETRY_MAX: u64 = 600;

/// A VM that is in the way.
const OTHER_VM: &str = "a VirtualMachine of this name is there already and was not made by this Plan; rename or delete it";

/// One thing to do. All can be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make the volume of this disk.
    MakeVolume(usize),
    /// Make the volume of the journals.
    MakeJournal,
    /// Remove it: nothing is to be resumed any more.
    DropJournal,
    /// Start this try.
    MakePod(u32),
    /// Fetch the result and make the `VirtualMachine` of it.
    MakeMachine,
    /// Tell the pod that its result was taken.
    Release,
    /// Remove a pod that failed.
    DeletePod,
    /// Let the VM own this disk's volume.
    Own(usize),
    /// Give the VM its run strategy.
    HandOver,
    /// Tell people.
    Tell(Told),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What the status is to remember.
    pub record: Record,
    /// In this order; when one fails, the others wait for the next round.
    pub steps: Vec<Step>,
    /// Seconds until the next look; `None` when nothing more will happen.
    pub again_s: Option<u64>,
}

/// What does not change during a Plan.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Tries after the first one.
    pub retries: u32,
    /// Seconds before the second try; doubled with each further one.
    pub retry_delay_s: u64,
    /// Seconds since 1970.
    pub now: i64,
}

/// The next steps for a VM.
pub fn next(seen: &Seen, rules: Rules) -> Decision {
    let mut record = seen.record.clone();
    if matches!(record.phase, VmPhase::Succeeded | VmPhase::Failed) {
        return Decision { record, steps: Vec::new(), again_s: None };
    }
    // The pod says which try it is: a status that was not written is made up for.
    record.attempts = record.attempts.max(seen.pod.attempt().unwrap_or(0));
    let begun = (record.attempts > seen.record.attempts).then(|| {
        let note = format!("try {} begins", record.attempts);
        tell("ConversionStarted", &note, false, record.attempts)
    });
    let mut decision = decide(Round { seen, rules, record });
    decision.steps.splice(0..0, begun);
    decision
}

fn decide(round: Round<'_>) -> Decision {
    let seen = round.seen;
    if let Some(decision) = round.gone() {
        return decision;
    }
    if round.is_blocked() && seen.pod == PodState::Missing && round.record.attempts == 0 {
        return round
            .failed("config", &format!("{OTHER_VM}, or use another targetName in a new Plan"));
    }
    if let PodState::Foreign(name) = &seen.pod {
        let what = format!("a pod {name} is there already and was not made by this Plan");
        return round
            .failed("config", &format!("{what}; delete it, or use another name in a new Plan"));
    }
    match seen.machine {
        MachineState::Made | MachineState::HandedOver => round.finish(),
        MachineState::Missing | MachineState::Foreign => round.convert(),
    }
}

struct Round<'a> {
    seen: &'a Seen,
    rules: Rules,
    record: Record,
}

impl Round<'_> {
    /// Whether somebody else's VM has the name.
    fn is_blocked(&self) -> bool {
        self.seen.machine == MachineState::Foreign
    }

    fn convert(self) -> Decision {
        if let Some(decision) = self.preflight() {
            return decision;
        }
        match &self.seen.pod {
            PodState::Missing | PodState::Foreign(_) => self.start(),
            PodState::Leaving => {
                let phase = self.record.phase;
                self.wait(phase, None)
            }
            PodState::Waiting(..) | PodState::Running(_) | PodState::Serving(_)
                if self.is_blocked() =>
            {
                self.wait(VmPhase::Converting, Some(format!("{OTHER_VM}: it is looked at again")))
            }
            PodState::Waiting(_, why) => {
                let why = format!("the pod waits: {why}");
                self.wait(VmPhase::Converting, Some(why))
            }
            PodState::Running(_) => {
                self.wait(VmPhase::Converting, Some("the guest is being converted".to_owned()))
            }
            PodState::Unreachable(_, why) => self.wait(VmPhase::Converting, Some(why.clone())),
            // The phase follows when the VM is seen.
            PodState::Serving(_) => {
                let what = "the disks are converted; the VM is made";
                let decision = self.wait(VmPhase::Converting, Some(what.to_owned()));
                Decision { steps: vec![Step::MakeMachine], again_s: Some(1), ..decision }
            }
            // Somebody else ended it: what it found is lost.
            PodState::Succeeded(attempt, at) => {
                let message =
                    "the pod ended before its result was fetched; the guest is converted again";
                self.lost(*attempt, &Failure::passing("result", message, *at))
            }
            PodState::Failed(attempt, failure) => self.lost(*attempt, failure),
        }
    }

    /// Until the guest is known nothing is made.
    fn preflight(&self) -> Option<Decision> {
        let (message, class, again) = match &self.seen.source {
            SourceState::Known => return None,
            // What is known already needs no source: the objects are there.
            _ if self.seen.pod != PodState::Missing => return None,
            SourceState::Changed(why) => return Some(self.failed(&why.class, &why.to_string())),
            SourceState::Looking(what) => (what.clone(), None, LOOK),
            SourceState::Wrong(failure) => {
                (failure.to_string(), Some(failure.class.clone()), LOOK_AGAIN)
            }
        };
        let told = class.is_some() && self.record.message.as_ref() != Some(&message);
        let steps = told.then(|| tell("PreflightFailed", &message, true, self.record.attempts));
        let record = Record {
            phase: VmPhase::Preflight,
            class,
            message: Some(message),
            ..self.record.clone()
        };
        Some(Decision { record, steps: steps.into_iter().collect(), again_s: Some(again) })
    }

    /// There is no pod.
    fn start(self) -> Decision {
        if let Some(wait) = self
            .record
            .retry_at
            .and_then(|at| u64::try_from(at - self.rules.now).ok())
            .filter(|s| *s > 0)
        {
            return Decision { again_s: Some(wait), record: self.record, steps: Vec::new() };
        }
        if self.record.attempts > self.rules.retries {
            let what = format!("the pod of try {} is gone without a word", self.record.attempts);
            return self.failed(
                "lost",
                &format!(
                    "{what}; look for the eviction or deletion of the pod, and make a new Plan"
                ),
            );
        }
        if self.is_blocked() {
            let message = format!("{OTHER_VM}: it is looked at again");
            let decision = self.wait(VmPhase::Retrying, Some(message));
            return Decision { again_s: Some(LOOK_AGAIN), ..decision };
        }
        if !self.seen.admitted {
            let phase =
                if self.record.attempts == 0 { VmPhase::Pending } else { VmPhase::Retrying };
            return self.wait(phase, Some("waits for its turn (spec.limits)".to_owned()));
        }
        if let Some(decision) = self.volumes() {
            return decision;
        }
        let attempt = self.record.attempts + 1;
        let note = format!("try {attempt} begins");
        let steps = vec![Step::MakePod(attempt)];
        // The phase follows when the pod is seen: until then this try does not count.
        let phase = if attempt == 1 { VmPhase::Volumes } else { VmPhase::Retrying };
        let record = Record { phase, message: Some(note), ..self.record };
        Decision { record, steps, again_s: Some(LOOK) }
    }

    fn volumes(&self) -> Option<Decision> {
        let states = || self.seen.volumes.iter().chain(&self.seen.journal);
        let foreign = states().find_map(|state| match state {
            VolumeState::Foreign(name) => Some(name),
            _ => None,
        });
        if let Some(name) = foreign {
            let what = format!("a volume {name} is there already and was not made by this Plan");
            return Some(self.failed(
                "config",
                &format!("{what}; rename or delete it, or use another targetName in a new Plan"),
            ));
        }
        let disks = self.seen.volumes.iter().enumerate();
        let missing = disks.filter(|(_, state)| **state == VolumeState::Missing);
        let mut steps: Vec<Step> = missing.map(|(index, _)| Step::MakeVolume(index)).collect();
        steps
            .extend((self.seen.journal == Some(VolumeState::Missing)).then_some(Step::MakeJournal));
        let pending = states().find_map(|state| match state {
            VolumeState::Pending(why) => Some(why.clone()),
            VolumeState::Leaving(name) => Some(format!("claim {name} is being deleted")),
            _ => None,
        });
        if steps.is_empty() && pending.is_none() {
            return None;
        }
        let message = pending.unwrap_or_else(|| "volumes are made".to_owned());
        let again = if steps.is_empty() { LOOK } else { 1 };
        let record =
            Record { phase: VmPhase::Volumes, message: Some(message), ..self.record.clone() };
        Some(Decision { record, steps, again_s: Some(again) })
    }

    /// The pod ended without a VM.
    fn lost(self, attempt: u32, failure: &Failure) -> Decision {
        if !failure.may_pass || attempt > self.rules.retries {
            return self.failed(&failure.class, &failure.to_string());
        }
        let delay = delay_s(self.rules.retry_delay_s, attempt);
        let at = failure.at.saturating_add_unsigned(delay);
        let is_known = self.record.phase == VmPhase::Retrying && self.record.retry_at == Some(at);
        let wait = u64::try_from(at - self.rules.now).unwrap_or(0);
        if is_known && wait == 0 {
            // Its status has been written, so the pod is not needed any more.
            return Decision {
                record: self.record,
                steps: vec![Step::DeletePod],
                again_s: Some(1),
            };
        }
        let note = format!("try {attempt} failed ({}): {failure}", failure.class);
        let steps = if is_known {
            Vec::new()
        } else {
            vec![tell("ConversionFailed", &note, true, attempt)]
        };
        let record = Record {
            phase: VmPhase::Retrying,
            retry_at: Some(at),
            class: Some(failure.class.clone()),
            message: Some(note),
            ..self.record
        };
        Decision { record, steps, again_s: Some(wait.clamp(1, LOOK_AGAIN)) }
    }

    fn creating(&self, message: &str, steps: Vec<Step>) -> Decision {
        let again = if steps.is_empty() { 2 } else { 1 };
        let mut decision = self.wait(VmPhase::CreatingVm, Some(message.to_owned()));
        (decision.steps, decision.again_s) = (steps, Some(again));
        decision
    }

    fn wait(&self, phase: VmPhase, message: Option<String>) -> Decision {
        let mut record = Record { phase, ..self.record.clone() };
        if let Some(message) = message {
            record.message = Some(message);
        }
        if matches!(phase, VmPhase::Converting | VmPhase::CreatingVm) {
            (record.retry_at, record.class) = (None, None);
        }
        Decision { record, steps: Vec::new(), again_s: Some(LOOK) }
    }

    fn failed(&self, class: &str, message: &str) -> Decision {
        let record = Record {
            phase: VmPhase::Failed,
            retry_at: None,
            class: Some(class.to_owned()),
            message: Some(message.to_owned()),
            attempts: self.record.attempts,
        };
        let told = tell("Failed", &format!("{class}: {message}"), true, record.attempts);
        Decision { record, steps: vec![told], again_s: None }
    }
}

/// Seconds between the end of try `attempt` and the next one.
fn delay_s(first: u64, attempt: u32) -> u64 {
    first.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(RETRY_MAX)
}

fn tell(reason: &'static str, note: &str, warning: bool, attempt: u32) -> Step {
    Step::Tell(Told { reason, note: note.to_owned(), warning, attempt })
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;

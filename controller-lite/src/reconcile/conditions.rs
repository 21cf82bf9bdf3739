//! Conditions of Plans and VMs, for programs: `kubectl wait --for=condition=Succeeded plan/NAME`. Pure.

use crate::api::plan::{PlanPhase, VmPhase, VmStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// The longest message of a condition that is ours; the API takes 32768.
const MESSAGE_MAX: usize = 1024;

/// What is said by a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Its type.
    pub of: &'static str,
    /// `None`: nobody knows.
    pub is: Option<bool>,
    /// A word for programs.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
}

/// A condition as the API has it. `old` are the ones before: a time changes with its status alone.
pub fn condition(
    old: &[Condition],
    said: Said,
    generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    let status = match said.is {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let before = old.iter().find(|c| c.type_ == said.of).filter(|c| c.status == status);
    Condition {
        type_: said.of.to_owned(),
        status: status.to_owned(),
        reason: said.reason,
        message: said.message.chars().take(MESSAGE_MAX).collect(),
        observed_generation: generation,
        last_transition_time: before.map_or(Time(now), |c| c.last_transition_time.clone()),
    }
}

/// A class of failure as a reason: `no-space` is `NoSpace`.
pub fn reason(class: &str) -> String {
    let word = |word: &str| -> String {
        let mut letters = word.chars().filter(char::is_ascii_alphanumeric);
        let first = letters.next().map(|first| first.to_ascii_uppercase());
        first.into_iter().chain(letters).collect()
    };
    let all: String = class.split(['-', '_', ' ']).map(word).collect();
    if all.starts_with(|c: char| c.is_ascii_alphabetic()) { all } else { "Failed".to_owned() }
}

/// Of a VM: `Ready` (found at the source, and fit for the Plan), `Converted` (its disks are), `Succeeded`, `Failed`.
pub fn of_vm(vm: &VmStatus, now: Timestamp) -> Vec<Condition> {
    use VmPhase::{
        Converting, CreatingVm, Failed, Pending, Preflight, Retrying, Succeeded, Volumes,
    };
    let message = vm.message.clone().unwrap_or_default();
    let failed = || vm.class.as_deref().map_or_else(|| "Failed".to_owned(), reason);
    let going = || format!("{:?}", vm.phase);
    let ready = match vm.phase {
        Preflight if vm.class.is_some() => (Some(false), failed(), message.clone()),
        Preflight => (None, going(), message.clone()),
        Pending if vm.disks.is_empty() => (None, going(), message.clone()),
        Failed if vm.start_time == vm.end_time && vm.attempts == 0 => {
            (Some(false), failed(), message.clone())
        }
        Pending | Volumes | Converting | Retrying | CreatingVm | Succeeded | Failed => {
            (Some(true), "Found".to_owned(), "found at the source, and fit for the Plan".to_owned())
        }
    };
    let converted = match vm.phase {
        CreatingVm | Succeeded => {
            (Some(true), "Converted".to_owned(), "the disks are converted".to_owned())
        }
        Failed | Retrying => (Some(false), failed(), message.clone()),
        Pending | Preflight | Volumes | Converting => (Some(false), going(), message.clone()),
    };
    let end = |phase: VmPhase| {
        let reason = if vm.phase == Failed { failed() } else { going() };
        (Some(vm.phase == phase), reason, message.clone())
    };
    let all = [
        ("Ready", ready),
        ("Converted", converted),
        ("Succeeded", end(Succeeded)),
        ("Failed", end(Failed)),
    ];
    made(&vm.conditions, all, None, now)
}

/// Of a Plan: `Ready` (all of its VMs are, or were), `Succeeded`, `Failed`. `waiting` is a VM that somebody has to
/// do something about.
pub fn of_plan(
    old: &[Condition],
    phase: PlanPhase,
    message: &str,
    waiting: Option<&VmStatus>,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let going = || format!("{phase:?}");
    let ready = match waiting {
        Some(vm) => {
            (Some(false), vm.class.as_deref().map_or_else(going, reason), message.to_owned())
        }
        None => (Some(true), going(), message.to_owned()),
    };
    let end = |end: PlanPhase| (Some(phase == end), going(), message.to_owned());
    let all = [
        ("Ready", ready),
        ("Succeeded", end(PlanPhase::Succeeded)),
        ("Failed", end(PlanPhase::Failed)),
    ];
    made(old, all, generation, now)
}

type Words = (Option<bool>, String, String);

fn made<const N: usize>(
    old: &[Condition],
    all: [(&'static str, Words); N],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let one = |(of, (is, reason, message))| {
        condition(old, Said { of, is, reason, message }, generation, now)
    };
    all.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn status(conditions: &[Condition]) -> Vec<(&str, &str, &str)> {
        conditions.iter().map(|c| (&*c.type_, &*c.status, &*c.reason)).collect()
    }

    fn vm(phase: VmPhase, class: Option<&str>) -> VmStatus {
        VmStatus { phase, class: class.map(str::to_owned), ..VmStatus::default() }
    }

    #[test]
    fn a_vm_says_how_far_it_is() {
        let now = Timestamp::UNIX_EPOCH;
        let of = |vm: &VmStatus| {
            of_vm(vm, now).into_iter().map(|c| (c.type_, c.status, c.reason)).collect::<Vec<_>>()
        };
        let words = |all: [(&str, &str, &str); 4]| {
            all.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())).to_vec()
        };
        assert_eq!(
            of(&vm(VmPhase::Preflight, Some("no-space"))),
            words([
                ("Ready", "False", "NoSpace"),
                ("Converted", "False", "Preflight"),
                ("Succeeded", "False", "Preflight"),
                ("Failed", "False", "Preflight"),
            ])
        );
        assert_eq!(
            of(&vm(VmPhase::Succeeded, None)),
            words([
                ("Ready", "True", "Found"),
                ("Converted", "True", "Converted"),
                ("Succeeded", "True", "Succeeded"),
                ("Failed", "False", "Succeeded"),
            ])
        );
        let failed = VmStatus { attempts: 1, ..vm(VmPhase::Failed, Some("auth")) };
        assert_eq!(
            of(&failed),
            words([
                ("Ready", "True", "Found"),
                ("Converted", "False", "Auth"),
                ("Succeeded", "False", "Auth"),
                ("Failed", "True", "Auth"),
            ])
        );
    }

    #[test]
    fn a_time_changes_with_its_status() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let of =
            |old: &[Condition], phase, second| of_plan(old, phase, "x", None, Some(2), at(second));
        let first = of(&[], PlanPhase::Pending, 1);
        let second = of(&first, PlanPhase::Running, 2);
        assert!(second.iter().all(|c| c.last_transition_time.0 == at(1)));
        assert_eq!(second[1].reason, "Running");
        let third = of(&second, PlanPhase::Succeeded, 3);
        let times: Vec<i64> = third.iter().map(|c| c.last_transition_time.0.as_second()).collect();
        assert_eq!(times, [1, 3, 1]);
        assert_eq!(
            status(&third),
            [
                ("Ready", "True", "Succeeded"),
                ("Succeeded", "True", "Succeeded"),
                ("Failed", "False", "Succeeded"),
            ]
        );
        // An unchanged status is no write.
        assert_eq!(of(&third, PlanPhase::Succeeded, 9), third);
    }

    #[test]
    fn a_plan_whose_vm_waits_for_somebody_is_not_ready() {
        let waiting = vm(VmPhase::Preflight, Some("not-found"));
        let all =
            of_plan(&[], PlanPhase::Pending, "web: x", Some(&waiting), None, Timestamp::UNIX_EPOCH);
        assert_eq!((&*all[0].status, &*all[0].reason), ("False", "NotFound"));
        assert_eq!(all[0].message, "web: x");
    }

    proptest! {
        /// What the API takes as a reason.
        #[test]
        fn any_class_is_a_reason(class in ".{0,30}") {
            let reason = reason(&class);
            prop_assert!(reason.starts_with(|c: char| c.is_ascii_alphabetic()));
            prop_assert!(reason.chars().all(|c| c.is_ascii_alphanumeric()));
        }
    }
}

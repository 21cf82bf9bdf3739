//! What a decision is made from. Pure.

use crate::api::plan::VmPhase;
use crate::reconcile::failure::Failure;

/// What the Plan's status remembers of a VM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// How far it is.
    pub phase: VmPhase,
    /// How many pods were started.
    pub attempts: u32,
    /// When the next one starts, in seconds since 1970; in phase `Retrying`.
    pub retry_at: Option<i64>,
    /// Class of the last failure.
    pub class: Option<String>,
    /// What goes on, or what failed and what to do.
    pub message: Option<String>,
}

/// All that was seen of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What the status remembers.
    pub record: Record,
    /// Whether it is its turn, see [`admit`].
    pub admitted: bool,
    /// What is known of the guest at the source.
    pub source: SourceState,
    /// Its volumes, by disk; empty while the source is not known.
    pub volumes: Vec<VolumeState>,
    /// The volume of its journals, where the Plan wants one.
    pub journal: Option<VolumeState>,
    /// Its pod.
    pub pod: PodState,
    /// Its `VirtualMachine`.
    pub machine: MachineState,
}

/// What is known of the guest at the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceState {
    /// Disks and sizes.
    Known,
    /// It is being looked at.
    Looking(String),
    /// Something is wrong, there or in the Plan. Nothing was made, and somebody can mend it.
    Wrong(Failure),
    /// The guest is not what its volumes were made for.
    Changed(Failure),
}

/// One volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeState {
    /// Not made yet.
    Missing,
    /// Made, and not usable yet.
    Pending(String),
    /// It is being deleted.
    Leaving(String),
    /// The pod may have it.
    Usable,
    /// The VM that is there owns it.
    HandedOver,
    /// A VM got it once that is not there any more, or another VM owns it: no pod may have it.
    Taken(String),
    /// Somebody else's claim has the name.
    Foreign(String),
}

/// The pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodState {
    /// None.
    Missing,
    /// Somebody else's pod has the name.
    Foreign(String),
    /// It is being deleted.
    Leaving,
    /// It does not run yet.
    Waiting(u32, String),
    /// It runs; this is its attempt.
    Running(u32),
    /// It runs, and the controller cannot ask it.
    Unreachable(u32, String),
    /// It runs, and serves its result: the disks are converted and durable.
    Serving(u32),
    /// It ended well, then (in seconds since 1970).
    Succeeded(u32, i64),
    /// It failed.
    Failed(u32, Failure),
}

impl PodState {
    /// Whether it takes up a place.
    pub fn is_active(&self) -> bool {
        matches!(
            self,
            Self::Leaving
                | Self::Waiting(..)
                | Self::Running(_)
                | Self::Unreachable(..)
                | Self::Serving(_)
        )
    }

    pub(super) fn attempt(&self) -> Option<u32> {
        match self {
            Self::Waiting(n, _)
            | Self::Running(n)
            | Self::Unreachable(n, _)
            | Self::Serving(n)
            | Self::Succeeded(n, _)
            | Self::Failed(n, _) => Some(*n),
            Self::Missing | Self::Foreign(_) | Self::Leaving => None,
        }
    }
}

/// The `VirtualMachine`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MachineState {
    /// None.
    Missing,
    /// Somebody else's VM has the name.
    Foreign,
    /// Made from a result; stopped, and not the user's yet.
    Made,
    /// The user's.
    HandedOver,
}

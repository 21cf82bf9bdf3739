//! Once there is a VM, or was one. Pure.

use super::{Decision, MachineState, PodState, Record, Round, Step, VolumeState, tell};
use crate::api::plan::VmPhase;

impl Round<'_> {
    /// The VM is there: the pod goes, and then the user gets it.
    pub(super) fn finish(self) -> Decision {
        match &self.seen.pod {
            // It holds the volumes until it has ended.
            PodState::Serving(_) => {
                self.creating("the VM is made; the pod ends", vec![Step::Release])
            }
            PodState::Running(_) | PodState::Waiting(..) | PodState::Leaving => {
                self.creating("the VM is made; the pod ends", Vec::new())
            }
            PodState::Unreachable(_, why) => self.creating(why, Vec::new()),
            PodState::Missing
            | PodState::Foreign(_)
            | PodState::Succeeded(..)
            | PodState::Failed(..) => self.give(),
        }
    }

    fn give(self) -> Decision {
        let is_made = self.seen.machine == MachineState::Made;
        if is_made && self.record.phase != VmPhase::CreatingVm {
            // It must be remembered that there was a VM before the user has it: see `gone`.
            return self.creating("the VM gets its volumes", Vec::new());
        }
        if let Some(decision) = self.hindered().filter(|_| is_made) {
            return decision;
        }
        // What the user has done with the volumes of a VM that is his is his business.
        let is_left = |state: &VolumeState| match state {
            VolumeState::Usable | VolumeState::Taken(_) => true,
            VolumeState::Pending(_) => is_made,
            _ => false,
        };
        let left = self.seen.volumes.iter().enumerate().filter(|(_, state)| is_left(state));
        let mut steps: Vec<Step> = left.map(|(index, _)| Step::Own(index)).collect();
        if is_made {
            steps.push(Step::HandOver);
        } else if matches!(self.seen.journal, Some(VolumeState::Usable | VolumeState::Pending(_))) {
            steps.push(Step::DropJournal);
        }
        if !steps.is_empty() {
            return self.creating("the VM gets its volumes", steps);
        }
        let note = "converted; the VM owns its volumes";
        let mut record = Record { phase: VmPhase::Succeeded, ..self.record };
        (record.class, record.retry_at) = (None, None);
        record.message = Some(note.to_owned());
        let told = tell("Converted", note, false, record.attempts);
        Decision { record, steps: vec![told], again_s: None }
    }

    /// A volume without which the VM that was made is none.
    fn hindered(&self) -> Option<Decision> {
        self.seen.volumes.iter().enumerate().find_map(|(index, state)| match state {
            VolumeState::Leaving(name) => {
                let what = format!("the VM waits: claim {name} is being deleted");
                Some(self.creating(&what, Vec::new()))
            }
            VolumeState::Missing | VolumeState::Foreign(_) => {
                let what = format!("the volume of disk {index} is gone since it was converted");
                Some(self.failed("volume", &format!("{what}; delete the VM, and make a new Plan")))
            }
            VolumeState::Pending(_)
            | VolumeState::Usable
            | VolumeState::HandedOver
            | VolumeState::Taken(_) => None,
        })
    }

    /// There was a VM, or there is another one on its volumes: nothing is converted again, since that
    /// would write over what may be in use.
    pub(super) fn gone(&self) -> Option<Decision> {
        let here = matches!(self.seen.machine, MachineState::Made | MachineState::HandedOver);
        if here || self.seen.pod.is_active() {
            return None;
        }
        let taken = self.seen.volumes.iter().enumerate().find_map(|(index, state)| match state {
            VolumeState::Taken(name) => Some(name.clone()),
            VolumeState::HandedOver => Some(format!("of disk {index}")),
            _ => None,
        });
        if let Some(name) = taken {
            let what =
                format!("the volume {name} was handed over to a VM, so it is not written again");
            let advice = "keep it, or convert the guest by a new Plan of another name";
            return Some(self.failed("volume", &format!("{what}; {advice}")));
        }
        (self.record.phase == VmPhase::CreatingVm).then(|| {
            let what = "the VM was made and is gone, so the guest is not converted again";
            self.failed("lost", &format!("{what}; look for who deleted it, and make a new Plan"))
        })
    }
}

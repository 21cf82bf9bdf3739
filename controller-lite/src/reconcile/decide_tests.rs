use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

const RULES: Rules = Rules { retries: 2, retry_delay_s: 30, now: 1000 };

fn seen() -> Seen {
    Seen {
        record: Record::default(),
        admitted: true,
        source: SourceState::Known,
        volumes: vec![VolumeState::Usable, VolumeState::Usable],
        journal: None,
        pod: PodState::Missing,
        machine: MachineState::Missing,
    }
}

fn steps(seen: &Seen) -> Vec<Step> {
    let all = next(seen, RULES).steps;
    all.into_iter().filter(|step| !matches!(step, Step::Tell(_))).collect()
}

fn phase(seen: &Seen) -> VmPhase {
    next(seen, RULES).record.phase
}

#[test]
fn volumes_then_pod() {
    let mut vm = seen();
    vm.volumes = vec![VolumeState::Missing, VolumeState::Pending("Bound?".into())];
    assert_eq!((steps(&vm), phase(&vm)), (vec![Step::MakeVolume(0)], VmPhase::Volumes));
    vm.volumes[0] = VolumeState::Usable;
    assert_eq!((steps(&vm), phase(&vm)), (vec![], VmPhase::Volumes));
    vm.volumes[1] = VolumeState::Usable;
    assert_eq!(steps(&vm), [Step::MakePod(1)]);
    vm.admitted = false;
    assert_eq!((steps(&vm), phase(&vm)), (vec![], VmPhase::Pending));
}

#[test]
fn the_vm_is_handed_over_after_its_pod_has_ended() {
    let mut vm = seen();
    vm.pod = PodState::Serving(1);
    assert_eq!((steps(&vm), phase(&vm)), (vec![Step::MakeMachine], VmPhase::Converting));
    vm.machine = MachineState::Made;
    assert_eq!((steps(&vm), phase(&vm)), (vec![Step::Release], VmPhase::CreatingVm));
    vm.pod = PodState::Running(1);
    assert_eq!(steps(&vm), []);
    vm.pod = PodState::Succeeded(1, 0);
    // First it is written down that there is a VM.
    assert_eq!((steps(&vm), phase(&vm)), (vec![], VmPhase::CreatingVm));
    vm.record.phase = VmPhase::CreatingVm;
    assert_eq!(steps(&vm), [Step::Own(0), Step::Own(1), Step::HandOver]);
    vm.volumes = vec![VolumeState::HandedOver; 2];
    assert_eq!(steps(&vm), [Step::HandOver]);
    vm.machine = MachineState::HandedOver;
    assert_eq!((steps(&vm), phase(&vm)), (vec![], VmPhase::Succeeded));
}

#[test]
fn a_journal_is_there_from_the_first_pod_to_the_hand_over() {
    let mut vm = seen();
    vm.journal = Some(VolumeState::Missing);
    assert_eq!((steps(&vm), phase(&vm)), (vec![Step::MakeJournal], VmPhase::Volumes));
    vm.journal = Some(VolumeState::Leaving("j".into()));
    assert_eq!((steps(&vm), phase(&vm)), (vec![], VmPhase::Volumes));
    vm.journal = Some(VolumeState::Usable);
    assert_eq!(steps(&vm), [Step::MakePod(1)]);
    vm.pod = PodState::Failed(1, Failure::passing("network", "gone", 900));
    vm.record = next(&vm, RULES).record;
    assert_eq!(steps(&vm), [Step::DeletePod]);
    vm.pod = PodState::Missing;
    assert_eq!(steps(&vm), [Step::MakePod(2)]);

    (vm.machine, vm.pod) = (MachineState::Made, PodState::Succeeded(2, 0));
    vm.record.phase = VmPhase::CreatingVm;
    vm.volumes = vec![VolumeState::HandedOver; 2];
    assert_eq!(steps(&vm), [Step::HandOver]);
    vm.machine = MachineState::HandedOver;
    assert_eq!((steps(&vm), phase(&vm)), (vec![Step::DropJournal], VmPhase::CreatingVm));
    // Somebody may hold it: the VM does not wait for that.
    for gone in [VolumeState::Leaving("j".into()), VolumeState::Missing] {
        vm.journal = Some(gone);
        assert_eq!((steps(&vm), phase(&vm)), (vec![], VmPhase::Succeeded));
    }
}

#[test]
fn what_was_made_of_a_result_is_kept_whatever_became_of_the_pod() {
    let mut vm = seen();
    vm.machine = MachineState::Made;
    vm.record.phase = VmPhase::CreatingVm;
    for pod in [PodState::Missing, PodState::Failed(1, Failure::passing("lost", "x", 0))] {
        vm.pod = pod;
        assert_eq!(steps(&vm), [Step::Own(0), Step::Own(1), Step::HandOver]);
    }
}

#[test]
fn a_failure_that_may_pass_is_tried_again_later() {
    let mut vm = seen();
    vm.pod = PodState::Failed(2, Failure::passing("network", "gone", 990));
    let decision = next(&vm, RULES);
    let record = &decision.record;
    assert_eq!(
        (record.phase, record.attempts, record.retry_at),
        (VmPhase::Retrying, 2, Some(1050))
    );
    assert_eq!(record.class.as_deref(), Some("network"));
    assert_eq!(steps(&vm), []);
    // Told once, and the pod stays until the status is known to be written.
    vm.record = decision.record;
    assert_eq!(next(&vm, RULES).steps, []);
    let later = Rules { now: 1050, ..RULES };
    assert_eq!(next(&vm, later).steps, [Step::DeletePod]);
    vm.record.retry_at = None;
    assert!(!next(&vm, later).steps.contains(&Step::DeletePod));
    vm.record.retry_at = Some(1050);
    vm.pod = PodState::Missing;
    assert_eq!(next(&vm, RULES).steps, []);
    assert!(next(&vm, later).steps.contains(&Step::MakePod(3)));
}

#[test]
fn some_failures_are_final() {
    let mut vm = seen();
    vm.pod = PodState::Failed(1, Failure::lasting("auth", "no", "look"));
    let record = next(&vm, RULES).record;
    assert_eq!(record.phase, VmPhase::Failed);
    assert_eq!(record.message.as_deref(), Some("no; look"));
    vm.pod = PodState::Failed(3, Failure::passing("network", "gone", 0));
    assert_eq!(phase(&vm), VmPhase::Failed);
    vm = seen();
    vm.record = Record { phase: VmPhase::Converting, attempts: 3, ..Record::default() };
    assert_eq!(phase(&vm), VmPhase::Failed);
}

#[test]
fn what_others_made_is_left_alone() {
    let foreign = |change: fn(&mut Seen)| {
        let mut vm = seen();
        change(&mut vm);
        assert_eq!((steps(&vm), phase(&vm)), (vec![], VmPhase::Failed));
    };
    foreign(|vm| vm.machine = MachineState::Foreign);
    foreign(|vm| vm.pod = PodState::Foreign("p".into()));
    foreign(|vm| vm.volumes[1] = VolumeState::Foreign("v".into()));
    foreign(|vm| vm.journal = Some(VolumeState::Foreign("j".into())));
}

#[test]
fn another_vm_of_the_name_is_waited_for_once_a_pod_was_there() {
    let mut vm = seen();
    (vm.machine, vm.record.attempts) = (MachineState::Foreign, 1);
    let waits = |vm: &Seen, phase| {
        let decision = next(vm, RULES);
        assert_eq!((decision.record.phase, decision.steps), (phase, vec![]), "{vm:?}");
        assert!(decision.record.message.unwrap().contains("rename or delete it"));
        assert!(decision.again_s.is_some());
    };
    for pod in [PodState::Waiting(1, String::new()), PodState::Running(1), PodState::Serving(1)] {
        vm.pod = pod;
        waits(&vm, VmPhase::Converting);
    }
    vm.pod = PodState::Missing;
    vm.record = Record { phase: VmPhase::Converting, attempts: 1, ..Record::default() };
    waits(&vm, VmPhase::Retrying);
    vm.machine = MachineState::Missing;
    assert_eq!(steps(&vm), [Step::MakePod(2)]);
}

/// However it is found: making the pod may have been the last thing that a controller did.
#[test]
fn that_a_try_has_begun_is_told_until_the_status_knows() {
    let failure = Failure::lasting("auth", "no", "yes");
    for pod in [
        PodState::Waiting(2, String::new()),
        PodState::Serving(2),
        PodState::Succeeded(2, 0),
        PodState::Failed(2, failure),
    ] {
        let mut vm = Seen { pod, ..seen() };
        let told = |vm: &Seen| {
            let steps = next(vm, RULES).steps;
            steps.into_iter().any(
                |step| matches!(step, Step::Tell(told) if told.reason == "ConversionStarted" && told.attempt == 2),
            )
        };
        vm.record.attempts = 1;
        assert!(told(&vm), "{vm:?}");
        vm.record = next(&vm, RULES).record;
        assert!(!told(&vm), "{vm:?}");
    }
}

#[test]
fn a_volume_that_a_vm_got_is_never_written_again() {
    for state in [VolumeState::HandedOver, VolumeState::Taken("v".into())] {
        for machine in [MachineState::Missing, MachineState::Foreign] {
            for pod in [PodState::Missing, PodState::Succeeded(1, 0)] {
                let mut vm = seen();
                vm.record = Record { phase: VmPhase::CreatingVm, attempts: 1, ..Record::default() };
                (vm.volumes[1], vm.machine, vm.pod) = (state.clone(), machine, pod);
                let decision = next(&vm, RULES);
                assert_eq!((steps(&vm), phase(&vm)), (vec![], VmPhase::Failed));
                assert_eq!(decision.record.class.as_deref(), Some("volume"));
            }
        }
    }
}

#[test]
fn a_pod_that_cannot_be_asked_is_told_and_kept() {
    let mut vm = seen();
    vm.record.attempts = 1;
    vm.pod = PodState::Unreachable(1, "cannot be reached".into());
    assert!(vm.pod.is_active());
    for machine in [MachineState::Missing, MachineState::Made] {
        vm.machine = machine;
        let decision = next(&vm, RULES);
        assert_eq!(decision.record.message.as_deref(), Some("cannot be reached"));
        assert_eq!((decision.record.attempts, decision.steps), (1, vec![]));
    }
}

#[test]
fn a_vm_gets_all_of_its_volumes_or_none() {
    let mut vm = seen();
    vm.record.phase = VmPhase::CreatingVm;
    vm.machine = MachineState::Made;
    vm.volumes[1] = VolumeState::Leaving("v".into());
    assert_eq!((steps(&vm), phase(&vm)), (vec![], VmPhase::CreatingVm));
    vm.volumes[1] = VolumeState::Missing;
    assert_eq!((steps(&vm), phase(&vm)), (vec![], VmPhase::Failed));
    // The user may do with his VM what he wants.
    vm.machine = MachineState::HandedOver;
    vm.volumes[0] = VolumeState::HandedOver;
    assert_eq!((steps(&vm), phase(&vm)), (vec![], VmPhase::Succeeded));
}

#[test]
fn a_guest_that_changed_ends_it_until_there_is_a_vm() {
    let mut vm = seen();
    vm.source = SourceState::Changed(Failure::lasting("config", "disks changed", "x"));
    assert_eq!(phase(&vm), VmPhase::Failed);
    assert_eq!(next(&vm, RULES).record.class.as_deref(), Some("config"));
    assert_eq!(steps(&vm), []);
    vm.machine = MachineState::Made;
    assert_eq!(phase(&vm), VmPhase::CreatingVm);
}

#[test]
fn trouble_at_the_source_waits_and_is_told_once() {
    let mut vm = seen();
    vm.source = SourceState::Wrong(Failure::lasting("auth", "no", "look"));
    let decision = next(&vm, RULES);
    assert_eq!((decision.record.phase, decision.steps.len()), (VmPhase::Preflight, 1));
    vm.record = decision.record;
    assert_eq!(next(&vm, RULES).steps, []);
    // Not while a pod is at work.
    vm.pod = PodState::Running(1);
    assert_eq!(phase(&vm), VmPhase::Converting);
}

#[test]
fn waits_double() {
    assert_eq!([1, 2, 3, 9].map(|n| delay_s(30, n)), [30, 60, 120, 600]);
}

/// What may happen beside the controller, or to it.
#[derive(Debug, Clone, Copy)]
enum Happens {
    Time,
    Volume,
    PodRuns,
    PodServes,
    PodFails(bool),
    PodVanishes,
    PodSucceeds,
    /// Somebody deletes the VM; its volumes stay, or go along.
    MachineVanishes(bool),
    /// Somebody else's VM has the name, or has it no more.
    MachineForeign(bool),
    VolumeVanishes,
    /// The controller is killed after so many steps of this round; its status is written or not.
    Killed(usize, bool),
}

fn happenings() -> impl Strategy<Value = Vec<Happens>> {
    let one = prop_oneof![
        Just(Happens::Time),
        Just(Happens::Volume),
        Just(Happens::PodRuns),
        Just(Happens::PodServes),
        any::<bool>().prop_map(Happens::PodFails),
        Just(Happens::PodVanishes),
        Just(Happens::PodSucceeds),
        any::<bool>().prop_map(Happens::MachineVanishes),
        any::<bool>().prop_map(Happens::MachineForeign),
        Just(Happens::VolumeVanishes),
        (0..4_usize, any::<bool>()).prop_map(|(n, status)| Happens::Killed(n, status)),
    ];
    vec(one, 0..60)
}

/// A cluster with one VM.
struct World {
    seen: Seen,
    now: i64,
    pods: u32,
    /// A VM got a volume, or was handed over.
    given: bool,
}

impl World {
    fn new() -> Self {
        let volumes = vec![VolumeState::Missing; 2];
        let journal = Some(VolumeState::Missing);
        Self { seen: Seen { volumes, journal, ..seen() }, now: 0, pods: 0, given: false }
    }

    fn rules(&self) -> Rules {
        Rules { now: self.now, ..RULES }
    }

    fn happens(&mut self, what: Happens) {
        let pod = self.seen.pod.clone();
        let attempt = pod.attempt().unwrap_or(0);
        match (what, pod) {
            (Happens::Time, _) => self.now += 40,
            (Happens::Volume, _) => {
                for volume in self.seen.volumes.iter_mut().chain(&mut self.seen.journal) {
                    if matches!(volume, VolumeState::Pending(_)) {
                        *volume = VolumeState::Usable;
                    }
                }
            }
            (Happens::PodRuns, PodState::Waiting(..)) => self.seen.pod = PodState::Running(attempt),
            (Happens::PodServes, PodState::Running(_)) => {
                self.seen.pod = PodState::Serving(attempt);
            }
            (Happens::PodFails(passing), PodState::Running(_) | PodState::Serving(_)) => {
                let failure =
                    Failure { may_pass: passing, ..Failure::passing("network", "gone", self.now) };
                self.seen.pod = PodState::Failed(attempt, failure);
            }
            (Happens::PodVanishes, _) => self.seen.pod = PodState::Missing,
            (Happens::PodSucceeds, PodState::Serving(_)) => {
                self.seen.pod = PodState::Succeeded(attempt, self.now);
            }
            (Happens::MachineVanishes(orphan), _) => self.machine_vanishes(orphan),
            (Happens::MachineForeign(true), _) if self.seen.machine == MachineState::Missing => {
                self.seen.machine = MachineState::Foreign;
            }
            (Happens::MachineForeign(false), _) if self.seen.machine == MachineState::Foreign => {
                self.seen.machine = MachineState::Missing;
            }
            (Happens::VolumeVanishes, pod) if !pod.is_active() => {
                self.seen.volumes[0] = VolumeState::Missing;
            }
            _ => {}
        }
    }

    fn machine_vanishes(&mut self, orphan: bool) {
        if !matches!(self.seen.machine, MachineState::Made | MachineState::HandedOver) {
            return;
        }
        self.seen.machine = MachineState::Missing;
        for volume in self.seen.volumes.iter_mut().filter(|v| **v == VolumeState::HandedOver) {
            *volume = if orphan { VolumeState::Taken("v".into()) } else { VolumeState::Missing };
        }
    }

    /// One step; the checks are what must hold in every world.
    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::MakeVolume(n) => self.seen.volumes[*n] = VolumeState::Pending(String::new()),
            Step::MakeJournal => self.seen.journal = Some(VolumeState::Pending(String::new())),
            Step::DropJournal => {
                prop_assert_eq!(self.seen.machine, MachineState::HandedOver, "a copy is lost");
                self.seen.journal = Some(VolumeState::Missing);
            }
            Step::MakePod(attempt) => {
                prop_assert_eq!(&self.seen.pod, &PodState::Missing, "a second pod");
                prop_assert!(!self.given, "a pod after the hand-over");
                prop_assert!(*attempt <= RULES.retries + 1, "try {}", attempt);
                let mut all = self.seen.volumes.iter().chain(&self.seen.journal);
                prop_assert!(all.all(|v| *v == VolumeState::Usable));
                prop_assert_eq!(self.seen.machine, MachineState::Missing);
                self.pods += 1;
                self.seen.pod = PodState::Waiting(*attempt, String::new());
            }
            Step::MakeMachine => {
                prop_assert!(matches!(self.seen.pod, PodState::Serving(_)));
                self.seen.machine = MachineState::Made;
            }
            Step::Release => {
                prop_assert_eq!(self.seen.machine, MachineState::Made, "the result would be lost");
                self.happens(Happens::PodSucceeds);
            }
            Step::DeletePod => {
                prop_assert!(matches!(
                    self.seen.pod,
                    PodState::Failed(..) | PodState::Succeeded(..)
                ));
                self.seen.pod = PodState::Missing;
            }
            Step::Own(n) => {
                prop_assert!(
                    !self.seen.pod.is_active() && self.seen.machine == MachineState::Made
                        || self.seen.machine == MachineState::HandedOver
                );
                self.given = true;
                self.seen.volumes[*n] = VolumeState::HandedOver;
            }
            Step::HandOver => {
                prop_assert!(!self.seen.pod.is_active(), "the VM would share its volumes");
                self.given = true;
                self.seen.machine = MachineState::HandedOver;
            }
            Step::Tell(_) => {}
        }
        Ok(())
    }

    fn round(&mut self, steps: usize, status: bool) -> Result<(), TestCaseError> {
        let decision = next(&self.seen, self.rules());
        prop_assert_eq!(&decision, &next(&self.seen, self.rules()));
        for step in decision.steps.iter().take(steps) {
            self.step(step)?;
        }
        if status {
            self.seen.record = decision.record;
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever happens, and wherever the controller is killed, the rules hold.
    #[test]
    fn killed_anywhere_the_rules_hold(happenings in happenings()) {
        let mut world = World::new();
        for what in happenings {
            match what {
                Happens::Killed(steps, status) => world.round(steps, status)?,
                other => {
                    world.happens(other);
                    world.round(usize::MAX, true)?;
                }
            }
        }
        // And when all goes well from now on, it ends.
        for _ in 0..40 {
            for good in [
                Happens::Time,
                Happens::MachineForeign(false),
                Happens::Volume,
                Happens::PodRuns,
                Happens::PodServes,
            ] {
                world.happens(good);
                world.round(usize::MAX, true)?;
            }
        }
        let phase = world.seen.record.phase;
        prop_assert!(matches!(phase, VmPhase::Succeeded | VmPhase::Failed), "{:?}", world.seen);
        if phase == VmPhase::Succeeded {
            prop_assert!(world.given);
            prop_assert_eq!(&world.seen.journal, &Some(VolumeState::Missing));
        }
        // An end is an end.
        let end = next(&world.seen, world.rules());
        prop_assert!(end.steps.is_empty() && end.again_s.is_none());
    }

    #[test]
    fn places_are_limited(
        candidates in vec((any::<bool>(), any::<bool>(), 0..3_u8), 0..12),
        vms in 1..5_usize, per_host in 1..3_usize,
    ) {
        let candidates: Vec<Candidate> = candidates.into_iter().map(|(active, waits, host)| Candidate {
            active, waits, host: (host > 0).then(|| format!("esx{host}")),
        }).collect();
        let places = admit(&candidates, vms, per_host);
        let has = |wanted: &dyn Fn(&Candidate) -> bool| {
            candidates.iter().zip(&places).filter(|(c, has)| **has && wanted(c)).count()
        };
        let active = candidates.iter().filter(|c| c.active).count();
        prop_assert!(has(&|_| true) <= vms.max(active));
        prop_assert_eq!(has(&|c| c.active), active);
        for host in ["esx1", "esx2"] {
            let on = |c: &Candidate| c.host.as_deref() == Some(host);
            let before = candidates.iter().filter(|c| c.active && on(c)).count();
            prop_assert!(has(&on) <= per_host.max(before));
        }
        // Nobody waits beside a free place, unless its host is full.
        for (candidate, place) in candidates.iter().zip(&places) {
            if candidate.waits && !candidate.active && !place && has(&|_| true) < vms {
                prop_assert!(has(&|c| c.host == candidate.host) >= per_host);
            }
        }
    }
}

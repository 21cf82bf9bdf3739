//! What goes with a Plan that is deleted. Pure.
//!
//! What is handed over stays: VMs, and volumes that a VM got once, whatever became of that VM. So
//! do volumes that somebody else owns or uses. The rest goes in an order in which nothing is taken
//! away from somebody who uses it: pods, then VMs that nobody got yet, then volumes.

/// What is left of a Plan's objects, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Left {
    /// Pods; `true` when they are being deleted already.
    pub pods: Vec<(String, bool)>,
    /// VMs: their state.
    pub machines: Vec<(String, Machine)>,
    /// Volumes.
    pub volumes: Vec<Volume>,
}

/// A VM of the Plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// Not handed over.
    Made,
    /// Not handed over, and being deleted.
    Leaving,
    /// The user's.
    HandedOver,
}

/// A volume of the Plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Whether it is, or may be, somebody else's: it stays.
    pub kept: bool,
    /// Whether it is being deleted.
    pub leaving: bool,
}

/// What is to be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cleanup {
    /// Delete these pods; look again.
    Pods(Vec<String>),
    /// Delete these VMs; look again.
    Machines(Vec<String>),
    /// Delete these volumes; look again.
    Volumes(Vec<String>),
    /// All is gone but this.
    Done {
        /// VMs that stay.
        machines: Vec<String>,
        /// Volumes that stay.
        volumes: Vec<String>,
    },
}

/// The next thing to clean up. An empty list means to wait for what is being deleted.
pub fn next(left: &Left) -> Cleanup {
    if !left.pods.is_empty() {
        let staying = left.pods.iter().filter(|(_, leaving)| !leaving);
        return Cleanup::Pods(staying.map(|(name, _)| name.clone()).collect());
    }
    let of = |wanted: &[Machine]| -> Vec<String> {
        let some = left.machines.iter().filter(|(_, state)| wanted.contains(state));
        some.map(|(name, _)| name.clone()).collect()
    };
    if !of(&[Machine::Made, Machine::Leaving]).is_empty() {
        return Cleanup::Machines(of(&[Machine::Made]));
    }
    let kept = of(&[Machine::HandedOver]);
    let mut going = left.volumes.iter().filter(|v| !v.kept).peekable();
    if going.peek().is_some() {
        let now = going.filter(|v| !v.leaving);
        return Cleanup::Volumes(now.map(|v| v.name.clone()).collect());
    }
    let volumes = left.volumes.iter().map(|v| v.name.clone()).collect();
    Cleanup::Done { machines: kept, volumes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn volume(name: &str, kept: bool) -> Volume {
        Volume { name: name.into(), kept, leaving: false }
    }

    #[test]
    fn pods_go_first_and_what_is_handed_over_stays() {
        let mut left = Left {
            pods: vec![("p".into(), false)],
            machines: vec![("a".into(), Machine::HandedOver), ("b".into(), Machine::Made)],
            volumes: vec![volume("a0", true), volume("b0", false), volume("c0", false)],
        };
        assert_eq!(next(&left), Cleanup::Pods(vec!["p".into()]));
        left.pods[0].1 = true;
        assert_eq!(next(&left), Cleanup::Pods(vec![]));
        left.pods.clear();
        assert_eq!(next(&left), Cleanup::Machines(vec!["b".into()]));
        left.machines.pop();
        assert_eq!(next(&left), Cleanup::Volumes(vec!["b0".into(), "c0".into()]));
        left.volumes.truncate(1);
        let done = Cleanup::Done { machines: vec!["a".into()], volumes: vec!["a0".into()] };
        assert_eq!(next(&left), done);
    }

    prop_compose! {
        fn any_left()(pods in vec(any::<bool>(), 0..3), machines in vec(0..3_u8, 0..3),
                      volumes in vec(any::<(bool, bool)>(), 0..5)) -> Left {
            let state = |n: u8| [Machine::Made, Machine::Leaving, Machine::HandedOver][usize::from(n)];
            Left {
                pods: pods.into_iter().enumerate().map(|(n, l)| (format!("p{n}"), l)).collect(),
                machines: machines.into_iter().enumerate().map(|(n, m)| (format!("m{n}"), state(m))).collect(),
                volumes: volumes.into_iter().enumerate().map(|(n, (kept, leaving))| Volume {
                    name: format!("v{n}"), kept, leaving,
                }).collect(),
            }
        }
    }

    proptest! {
        /// Done again and again it ends, and takes nothing that is somebody's.
        #[test]
        fn it_ends_and_keeps_what_is_handed_over(left in any_left()) {
            let (mut now, before) = (left.clone(), left);
            let mine = |vm: &str| before.machines.contains(&(vm.to_owned(), Machine::HandedOver));
            for _ in 0..8 {
                match next(&now) {
                    Cleanup::Pods(_) => now.pods.clear(),
                    Cleanup::Machines(gone) => {
                        prop_assert!(gone.iter().all(|vm| !mine(vm)));
                        now.machines.retain(|(_, m)| *m == Machine::HandedOver);
                    }
                    Cleanup::Volumes(gone) => {
                        let taken = |v: &Volume| gone.contains(&v.name) || v.leaving;
                        prop_assert!(gone.iter().all(|n| before.volumes.iter().any(|v| v.name == *n && !v.kept)));
                        now.volumes.retain(|v| !taken(v) || v.kept);
                    }
                    Cleanup::Done { machines, volumes } => {
                        prop_assert!(machines.iter().all(|vm| mine(vm)));
                        prop_assert_eq!(volumes.len(), now.volumes.len());
                        return Ok(());
                    }
                }
            }
            prop_assert!(false, "does not end: {:?}", now);
        }
    }
}

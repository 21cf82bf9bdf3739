//! Which VM a Plan means. What libvirt or virt-v2v would take wrongly in silence is an error here. Pure.

use super::model::{Inventory, SourceVm, Unreadable};
use thiserror::Error;

/// What a Plan says of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Its name, as people type it.
    Name(String),
    /// Its BIOS UUID.
    Uuid(String),
    /// Its reference, `vm-21`.
    Moref(String),
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => write!(f, "the name {name:?}"),
            Self::Uuid(uuid) => write!(f, "the UUID {uuid}"),
            Self::Moref(moref) => write!(f, "the reference {moref}"),
        }
    }
}

/// Why no VM is the one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChoiceError {
    /// None fits.
    #[error("no VM has {wanted}; {hint}")]
    None {
        /// What was asked for.
        wanted: String,
        /// One that nearly fits, or what there is.
        hint: String,
    },
    /// More than one fits.
    #[error("{count} VMs have {wanted}: {which}; give the moref of the one that is meant")]
    Several {
        /// How many.
        count: usize,
        /// What was asked for.
        wanted: String,
        /// Their references, and where they are.
        which: String,
    },
    /// libvirt asks for a VM's description by its UUID.
    #[error(
        "several VMs have the BIOS UUID {uuid}, and libvirt gives the disks of any of them: {which}; give the copies a UUID of their own (uuid.bios in the VM's settings)"
    )]
    SharedUuid {
        /// The UUID.
        uuid: String,
        /// The VMs.
        which: String,
    },
    /// It is there, but nothing is known of it.
    #[error("the VM with {wanted} ({moref}) cannot be converted: {reason}")]
    Unreadable {
        /// What was asked for.
        wanted: String,
        /// The VM.
        moref: String,
        /// Why.
        reason: String,
    },
    /// It is no VM.
    #[error("{name:?} ({moref}) is a template; make it a VM, or a VM of it, first")]
    Template {
        /// Its name.
        name: String,
        /// Its reference.
        moref: String,
    },
}

/// More of them are counted, not named.
const SHOWN: usize = 8;

/// The VM that is meant.
pub fn choose<'a>(inventory: &'a Inventory, wanted: &Wanted) -> Result<&'a SourceVm, ChoiceError> {
    let fits = |vm: &&SourceVm| match wanted {
        Wanted::Name(name) => vm.name == *name,
        Wanted::Uuid(uuid) => vm.uuid.eq_ignore_ascii_case(uuid.trim()),
        Wanted::Moref(moref) => vm.moref == *moref,
    };
    let found: Vec<&SourceVm> = inventory.vms.iter().filter(fits).collect();
    let vm = match found.as_slice() {
        [] => return Err(none(inventory, wanted)),
        [one] => *one,
        several => {
            return Err(ChoiceError::Several {
                count: several.len(),
                wanted: wanted.to_string(),
                which: short(several.iter().map(|vm| place(vm))),
            });
        }
    };
    if vm.template {
        return Err(ChoiceError::Template { name: vm.name.clone(), moref: vm.moref.clone() });
    }
    // libvirt looks a UUID up in the datacenter of its URL.
    let twins = inventory
        .vms
        .iter()
        .filter(|other| other.uuid == vm.uuid && other.host.datacenter == vm.host.datacenter);
    let twins: Vec<&SourceVm> = twins.collect();
    if twins.len() > 1 {
        let which = short(twins.iter().map(|vm| format!("{:?} {}", vm.name, place(vm))));
        return Err(ChoiceError::SharedUuid { uuid: vm.uuid.clone(), which });
    }
    Ok(vm)
}

fn none(inventory: &Inventory, wanted: &Wanted) -> ChoiceError {
    let hidden = |vm: &&Unreadable| match wanted {
        Wanted::Name(name) => vm.name == *name,
        Wanted::Moref(moref) => vm.moref == *moref,
        Wanted::Uuid(_) => false,
    };
    if let Some(Unreadable { moref, reason, .. }) = inventory.unreadable.iter().find(hidden) {
        let (moref, reason) = (moref.clone(), reason.clone());
        return ChoiceError::Unreadable { wanted: wanted.to_string(), moref, reason };
    }
    ChoiceError::None { wanted: wanted.to_string(), hint: hint(inventory, wanted) }
}

fn hint(inventory: &Inventory, wanted: &Wanted) -> String {
    let near = match wanted {
        Wanted::Name(name) => {
            let bare = |text: &str| text.trim().to_lowercase();
            inventory.vms.iter().find(|vm| bare(&vm.name) == bare(name))
        }
        _ => None,
    };
    if let Some(vm) = near {
        return format!("there is {:?}: case and blanks count", vm.name);
    }
    let all = inventory.vms.len() + inventory.unreadable.len();
    if all == 0 {
        return "the user sees no VM at all: give it at least the role Read-only on what it is to see".to_owned();
    }
    match wanted {
        Wanted::Name(_) => {
            let mut names: Vec<&str> = inventory.vms.iter().map(|vm| vm.name.as_str()).collect();
            names.sort_unstable();
            format!("there are {}", short(names.into_iter().map(|n| format!("{n:?}"))))
        }
        Wanted::Uuid(_) => format!(
            "none of the {all} that the user sees; the BIOS UUID is meant (config.uuid, not instanceUuid)"
        ),
        Wanted::Moref(_) => format!(
            "none of the {all} that the user sees; a VM that is registered again has another"
        ),
    }
}

/// `vm-21 in DC, folder prod/web`.
fn place(vm: &SourceVm) -> String {
    let datacenter = super::names::typed(&vm.host.datacenter);
    if vm.folder.is_empty() {
        return format!("{} in {datacenter}", vm.moref);
    }
    format!("{} in {datacenter}, folder {}", vm.moref, vm.folder.join("/"))
}

/// The first of them, and how many more.
fn short(texts: impl Iterator<Item = String>) -> String {
    let mut texts: Vec<String> = texts.collect();
    let more = texts.len().saturating_sub(SHOWN);
    texts.truncate(SHOWN);
    if more > 0 {
        texts.push(format!("{more} more"));
    }
    texts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::super::model::ServerKind;
    use super::super::vm::tests::a_vm;
    use super::*;

    fn vm(name: &str, uuid: &str, moref: &str) -> SourceVm {
        SourceVm { name: name.to_owned(), uuid: uuid.to_owned(), moref: moref.to_owned(), ..a_vm() }
    }

    fn an_inventory() -> Inventory {
        let mut vms = vec![
            vm("web", "aa", "vm-1"),
            vm("twin", "bb", "vm-2"),
            vm("twin", "cc", "vm-3"),
            vm("copy1", "dd", "vm-4"),
            vm("copy2", "dd", "vm-5"),
            vm("old", "ee", "vm-6"),
            vm("far", "aa", "vm-7"),
        ];
        vms[2].folder = vec!["prod".to_owned(), "x".to_owned()];
        vms[5].template = true;
        vms[6].host.datacenter = "Other".to_owned();
        let unreadable = vec![Unreadable {
            moref: "vm-9".to_owned(),
            name: "lost".to_owned(),
            reason: "it is orphaned".to_owned(),
        }];
        Inventory { product: String::new(), kind: ServerKind::VCenter, vms, unreadable }
    }

    fn error(wanted: &Wanted) -> String {
        choose(&an_inventory(), wanted).unwrap_err().to_string()
    }

    fn name(text: &str) -> Wanted {
        Wanted::Name(text.to_owned())
    }

    #[test]
    fn one_is_chosen() {
        let inventory = an_inventory();
        for wanted in [name("web"), Wanted::Moref("vm-1".to_owned())] {
            assert_eq!(choose(&inventory, &wanted).unwrap().moref, "vm-1", "{wanted}");
        }
        let twin = Wanted::Uuid("CC".to_owned());
        assert_eq!(choose(&inventory, &twin).unwrap().moref, "vm-3");
    }

    #[test]
    fn several_are_listed() {
        let text = error(&name("twin"));
        assert!(
            text.contains("vm-2 in DC") && text.contains("vm-3 in DC, folder prod/x"),
            "{text}"
        );
        let text = error(&Wanted::Uuid("aa".to_owned()));
        assert!(text.contains("vm-1 in DC") && text.contains("vm-7 in Other"), "{text}");
    }

    #[test]
    fn copies_with_one_uuid_are_refused_in_one_datacenter() {
        let text = error(&name("copy1"));
        assert!(text.contains("\"copy2\" vm-5"), "{text}");
        assert!(choose(&an_inventory(), &name("far")).is_ok());
    }

    #[test]
    fn none_has_a_hint() {
        assert!(error(&name("Web ")).contains("there is \"web\""));
        assert!(error(&name("x")).contains("\"copy1\"; \"copy2\"; \"far\""));
        assert!(error(&name("lost")).contains("orphaned"));
        assert!(error(&name("old")).contains("template"));
        assert!(error(&Wanted::Moref("vm-99".to_owned())).contains("none of the 8"));
        assert!(error(&Wanted::Uuid("x".to_owned())).contains("instanceUuid"));
        let mut empty = an_inventory();
        empty.vms.clear();
        empty.unreadable.clear();
        let text = choose(&empty, &name("web")).unwrap_err().to_string();
        assert!(text.contains("Read-only"), "{text}");
    }
}

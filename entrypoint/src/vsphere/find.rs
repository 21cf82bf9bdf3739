//! Finds the VM at its server before anything else is done: which one is meant, whether it is off, how many disks it has.

use super::access::{Access, Anchors};
use super::anchors;
use super::choose::{self, Described, Listed, Wanted};
use super::virsh::{Login, Virsh};
use crate::failure::{Class, Failure};
use crate::preflight::Report;
use crate::toolbox::Toolbox;
use std::path::Path;
use std::time::Duration;

const CHECK: &str = "source";
/// Of VMs with one name, so many are described.
const MOST: usize = 32;
/// Before another try after a network error.
const WAITS: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(5)];

/// A VM that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vm {
    /// BIOS UUID, in small letters.
    pub uuid: String,
    /// Its name.
    pub name: String,
    /// libvirt would not find it, or not it alone, by the name that was given.
    pub by_uuid: bool,
    /// Hard disks.
    pub disks: usize,
}

/// What is asked.
#[derive(Debug)]
pub struct Question<'a> {
    /// The server, which passed.
    pub access: &'a Access,
    /// Who asks; its URL is the server's.
    pub login: Login<'a>,
    /// Which VM.
    pub wanted: Wanted<'a>,
    /// A running VM is as good.
    pub may_run: bool,
}

/// `None` when it was not found, which is in the report, or when the server could not be asked, which is only noted: virt-v2v
/// will ask it in its own way.
pub async fn find(
    question: &Question<'_>,
    toolbox: &Toolbox,
    run_dir: &Path,
    report: &mut Report,
) -> Option<Vm> {
    match look(question, toolbox, run_dir).await {
        Ok(Some(vm)) => {
            report.ok(CHECK, format!("VM {:?} with {} disk(s)", question.wanted.name, vm.disks));
            Some(vm)
        }
        Ok(None) => {
            tracing::info!("the server lists no VMs; virt-v2v looks for itself");
            None
        }
        // Whatever this could not find out: another VM than the one that is meant stops virt-v2v (`domain_watch`).
        Err(failure) if certain(failure.class) => {
            report.problem(CHECK, failure);
            None
        }
        Err(failure) => {
            let message = format!("the VM was not looked for beforehand: {}", failure.message);
            report.note(CHECK, message, "none is needed if the conversion goes on");
            None
        }
    }
}

/// virt-v2v would end with the same.
fn certain(class: Class) -> bool {
    matches!(
        class,
        Class::Auth | Class::Trust | Class::NotFound | Class::Config | Class::SourceBusy
    )
}

async fn look(
    question: &Question<'_>,
    toolbox: &Toolbox,
    run_dir: &Path,
) -> Result<Option<Vm>, Failure> {
    let mut toolbox = toolbox.clone();
    if let Some(file) = anchors::file(&question.access.anchors, run_dir)? {
        anchors::narrow(&mut toolbox, &file, run_dir)?;
    } else if question.access.anchors == Anchors::System {
        anchors::widen();
    }
    let virsh = Virsh::new(&question.login, &toolbox, run_dir)?;
    let list = choose::listed(&patient(&virsh, &["list", "--all", "--uuid", "--name"]).await?);
    if list.is_empty() {
        return Ok(None);
    }
    let wanted = &question.wanted;
    let found = choose::candidates(&list, wanted)?;
    if found.len() > MOST {
        let message = format!("{} VMs have the name {:?}", found.len(), wanted.name);
        return Err(Failure::new(Class::NotFound, message).advise("give the VM's UUID"));
    }
    let all = if found.is_empty() {
        vec![elsewhere(&virsh, &list, wanted).await?]
    } else {
        describe(question, &virsh, &found).await?
    };
    let vm = choose::decide(&all, wanted)?;
    if vm.active && !question.may_run {
        let message = format!("the VM {:?} is running or suspended", wanted.name);
        return Err(Failure::new(Class::SourceBusy, message)
            .advise("shut the VM down (a suspended one must be started first): its disks change while it runs"));
    }
    Ok(Some(Vm {
        uuid: vm.uuid.clone(),
        name: vm.name.clone(),
        by_uuid: all.len() > 1 || vm.name != wanted.name,
        disks: vm.disks,
    }))
}

/// All of them: one that cannot be read may be the one that is meant.
async fn describe(
    question: &Question<'_>,
    virsh: &Virsh<'_>,
    found: &[&Listed],
) -> Result<Vec<Described>, Failure> {
    let mut all = Vec::new();
    for vm in found {
        let xml = patient(virsh, &["dumpxml", &vm.uuid]).await?;
        let Some(described) = choose::described(&xml) else {
            let message = format!("libvirt's description of {:?} ({}) is no XML", vm.name, vm.uuid);
            let class = if found.len() > 1 { Class::NotFound } else { Class::Io };
            return Err(
                Failure::new(class, message).advise("look for odd characters in the VM's notes")
            );
        };
        choose::check_name(vm, &described, &question.wanted)?;
        all.push(described);
    }
    Ok(all)
}

/// A UUID is looked for in the whole datacenter, while the list is that of one host.
async fn elsewhere(
    virsh: &Virsh<'_>,
    list: &[Listed],
    wanted: &Wanted<'_>,
) -> Result<Described, Failure> {
    let missing = || choose::missing(list, wanted);
    let uuid = choose::uuid_of(wanted).ok_or_else(missing)?;
    match patient(virsh, &["dumpxml", uuid]).await {
        // virsh takes what it does not find as a UUID for a name.
        Ok(xml) => choose::described(&xml)
            .filter(|vm| vm.uuid.eq_ignore_ascii_case(uuid))
            .ok_or_else(missing),
        Err(failure) if failure.class == Class::NotFound => Err(missing()),
        Err(failure) => Err(failure),
    }
}

/// What is only unreachable is asked again.
async fn patient(virsh: &Virsh<'_>, words: &[&str]) -> Result<String, Failure> {
    for wait in WAITS {
        match virsh.ask(words).await {
            Err(failure) if failure.class == Class::Network => {
                tracing::info!("{failure}; trying again in {} s", wait.as_secs());
            }
            result => return result,
        }
        tokio::time::sleep(wait).await;
    }
    virsh.ask(words).await
}

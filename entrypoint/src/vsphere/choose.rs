//! Which of a server's VMs is meant. libvirt takes the first of several with one name, and the disks of either of two with one
//! BIOS UUID, both in silence; here that is an error which names them. Pure.

use crate::failure::{Class, Failure};
use roxmltree::{Document, Node};

/// What the user said of the VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// Its name, or its UUID where a name may be one.
    pub name: &'a str,
    /// Its BIOS UUID.
    pub uuid: Option<&'a str>,
    /// Its reference, `vm-21`.
    pub moref: Option<&'a str>,
}

/// A VM in the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// BIOS UUID.
    pub uuid: String,
    /// Name, as people see it.
    pub name: String,
}

/// What its description says of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// BIOS UUID.
    pub uuid: String,
    /// Name, to the last blank.
    pub name: String,
    /// Reference, which only vCenter's and ESXi's VMs have.
    pub moref: Option<String>,
    /// It is running or suspended.
    pub active: bool,
    /// Hard disks.
    pub disks: usize,
}

/// Length of a UUID as text.
const UUID: usize = 36;
const OWN_UUID: &str = "give the copies a UUID of their own (uuid.bios in the VM's settings)";
/// More of them are counted, not named.
const SHOWN: usize = 8;

/// The answer to `virsh list --all --uuid --name`; what else libvirt says is passed over.
pub fn listed(text: &str) -> Vec<Listed> {
    let vm = |line: &str| {
        let (uuid, name) = line.split_at_checked(UUID)?;
        let is_uuid = is_uuid(uuid);
        // It pads with spaces.
        let name = name.strip_prefix(' ')?.trim_end_matches(' ');
        is_uuid.then(|| Listed { uuid: uuid.to_ascii_lowercase(), name: name.to_owned() })
    };
    text.lines().filter_map(vm).collect()
}

fn is_uuid(text: &str) -> bool {
    text.len() == UUID
        && text.bytes().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}

/// The answer to `virsh dumpxml`.
pub fn described(xml: &str) -> Option<Described> {
    // Warnings may stand before the document and after it.
    let start = xml.find("<domain")?;
    let end = xml.rfind("</domain>")? + "</domain>".len();
    let document = Document::parse(xml.get(start..end)?).ok()?;
    let root = document.root_element();
    let text = |name: &str| {
        let is_it = |n: &Node<'_, '_>| n.tag_name().name() == name;
        root.children().find(is_it)?.text().map(str::to_owned)
    };
    Some(Described {
        uuid: text("uuid")?.trim().to_ascii_lowercase(),
        name: text("name")?,
        moref: text("moref").map(|t| t.trim().to_owned()),
        active: root.attribute("id").is_some(),
        disks: crate::guest::domain_xml::disk_files(xml.get(start..end)?).ok()?.len(),
    })
}

/// The VMs that may be meant: no two with one UUID, and none where only another host of the datacenter may have it.
pub fn candidates<'a>(list: &'a [Listed], wanted: &Wanted<'_>) -> Result<Vec<&'a Listed>, Failure> {
    let is = |vm: &&Listed| match wanted.uuid {
        Some(uuid) => vm.uuid.eq_ignore_ascii_case(uuid),
        None => {
            vm.name == wanted.name.trim_end_matches(' ')
                || vm.uuid.eq_ignore_ascii_case(wanted.name)
        }
    };
    let found: Vec<&Listed> = list.iter().filter(is).collect();
    let twin = |vm: &&&Listed| list.iter().filter(|other| other.uuid == vm.uuid).count() > 1;
    if let Some(vm) = found.iter().find(twin) {
        let names = list.iter().filter(|o| o.uuid == vm.uuid).map(|o| o.name.as_str());
        let message = format!(
            "several VMs have the BIOS UUID {}, and libvirt gives the disks of any of them: {}",
            vm.uuid,
            short(names.collect())
        );
        return Err(Failure::new(Class::NotFound, message).advise(OWN_UUID));
    }
    Ok(found)
}

/// The UUID that is asked for, as one or as a name.
pub fn uuid_of<'a>(wanted: &Wanted<'a>) -> Option<&'a str> {
    wanted.uuid.or(Some(wanted.name).filter(|name| is_uuid(name)))
}

/// The failure for a VM that is not there.
pub fn missing(list: &[Listed], wanted: &Wanted<'_>) -> Failure {
    let what = match wanted.uuid {
        Some(uuid) => format!("no VM has the UUID {uuid}"),
        None => format!("no VM has the name {:?}", wanted.name),
    };
    let mut names: Vec<&str> = list.iter().map(|vm| vm.name.as_str()).collect();
    names.sort_unstable();
    let same = names.iter().find(|n| n.trim().to_lowercase() == wanted.name.trim().to_lowercase());
    let message = match same.filter(|_| wanted.uuid.is_none()) {
        Some(near) => format!("{what}; there is {near:?}"),
        None => format!("{what} at this host; there are {}", short(names)),
    };
    Failure::new(Class::NotFound, message).advise(
        "check the name, which is case-sensitive, and that the URL names the datacenter and host where the VM is registered",
    )
}

/// The first names, and how many more.
fn short(names: Vec<&str>) -> String {
    let more = names.len().saturating_sub(SHOWN);
    let mut text: Vec<String> = names.into_iter().take(SHOWN).map(|n| format!("{n:?}")).collect();
    if more > 0 {
        text.push(format!("{more} more"));
    }
    text.join(", ")
}

/// The failure when libvirt describes another VM than the one in its list: it looks for a UUID in the whole datacenter.
pub fn check_name(
    listed: &Listed,
    described: &Described,
    wanted: &Wanted<'_>,
) -> Result<(), Failure> {
    let is_referred = wanted.moref.is_some() && wanted.moref == described.moref.as_deref();
    // The list has the inventory's name, the description that of the .vmx file, which may lag behind.
    if is_referred || described.name.trim_end_matches(' ') == listed.name {
        return Ok(());
    }
    let message = format!(
        "several VMs have the BIOS UUID {}, and libvirt gives the disks of any of them: {:?}, {:?}",
        listed.uuid, listed.name, described.name
    );
    Err(Failure::new(Class::NotFound, message).advise(
        "give the copies a UUID of their own (uuid.bios in the VM's settings); if it is one VM, with an older name in its .vmx file, set V2V_vmMoref (convert: --moref)",
    ))
}

/// The one that is meant, of the described candidates.
pub fn decide<'a>(found: &'a [Described], wanted: &Wanted<'_>) -> Result<&'a Described, Failure> {
    let fits = |vm: &&Described| match (wanted.moref, vm.moref.as_deref()) {
        (Some(meant), Some(is)) => meant == is,
        _ => true,
    };
    let mut fitting: Vec<&Described> = found.iter().filter(fits).collect();
    // Names may differ in blanks at their end, which the list does not show.
    if fitting.len() > 1 && fitting.iter().any(|vm| vm.name == wanted.name) {
        fitting.retain(|vm| vm.name == wanted.name);
    }
    let show = |vms: &mut dyn Iterator<Item = &Described>| {
        let all: Vec<String> = vms
            .map(|vm| format!("{} ({})", vm.moref.as_deref().unwrap_or("no reference"), vm.uuid))
            .collect();
        all.join(", ")
    };
    let name = wanted.uuid.unwrap_or(wanted.name);
    match (fitting.as_slice(), wanted.moref) {
        ([one], _) => Ok(one),
        ([], Some(moref)) => {
            let others = show(&mut found.iter());
            let message = format!("the VM {name:?} is not {moref}; there is {others}");
            Err(Failure::new(Class::NotFound, message)
                .advise("set V2V_vmMoref (convert: --moref) to its reference, or leave it out"))
        }
        (several, _) => {
            let message = format!(
                "{} VMs have the name {name:?}: {}",
                several.len(),
                show(&mut several.iter().copied())
            );
            Err(Failure::new(Class::NotFound, message).advise(
                "set V2V_vmMoref or V2V_vmUUID to the one that is meant (convert: --moref, or the UUID for the name)",
            ))
        }
    }
}

#[cfg(test)]
#[path = "choose_tests.rs"]
mod tests;

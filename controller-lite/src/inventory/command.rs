//! `controller-lite inventory`: what the controller sees of a vCenter or an ESXi host, for people and scripts.

use super::choose::{ChoiceError, Wanted, choose};
use super::error::Error;
use super::http::Limits;
use super::model::{Inventory, Power, SourceVm};
use super::names::libvirt_url;
use super::server::Server;
use super::trust::{Thumbprint, Trust};
use super::vsphere::{Password, Source, inventory};
use clap::Args;
use serde_json::json;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The subcommand's options.
#[derive(Debug, Args)]
#[command(long_about = HELP)]
pub struct InventoryArgs {
    /// URL of the server, of the scheme https, vpx or esx
    #[arg(long)]
    url: Server,
    /// Who logs in
    #[arg(long)]
    user: String,
    /// File with the password
    #[arg(long, value_name = "FILE")]
    password_file: PathBuf,
    /// File with CA certificates in PEM, instead of the system's
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The certificate's thumbprint, SHA-1 or SHA-256
    #[arg(long)]
    thumbprint: Option<Thumbprint>,
    /// Believe any server
    #[arg(long, conflicts_with_all = ["ca", "thumbprint"])]
    insecure: bool,
    /// Only the VM that a Plan with this name would mean
    #[arg(long, group = "vm")]
    name: Option<String>,
    /// The same by BIOS UUID
    #[arg(long, group = "vm")]
    uuid: Option<String>,
    /// The same by reference, vm-21
    #[arg(long, group = "vm")]
    moref: Option<String>,
    /// Print all that is known, as JSON
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Shows the VMs of a vCenter or an ESXi host as the controller sees them: what a Plan may name, the disks in virt-v2v's order,
what stands in the way of a conversion.

Examples:
  controller-lite inventory --url https://vcenter.example.com --user administrator@vsphere.local --password-file pw
  controller-lite inventory --url esx://esx1.example.com --user root --password-file pw --thumbprint AA:BB:… --json";

const GIB: u64 = 1 << 30;

/// Why it prints nothing.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// There is no inventory.
    #[error(transparent)]
    Inventory(#[from] Error),
    /// There is no such VM.
    #[error(transparent)]
    Choice(#[from] ChoiceError),
}

impl CommandError {
    /// One line of what to do, where the error does not say it.
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Inventory(e) => Some(e.advice()),
            Self::Choice(_) => None,
        }
    }
}

impl InventoryArgs {
    fn wanted(&self) -> Option<Wanted> {
        let name = self.name.clone().map(Wanted::Name);
        let uuid = self.uuid.clone().map(Wanted::Uuid);
        name.or(uuid).or(self.moref.clone().map(Wanted::Moref))
    }
}

/// What the subcommand prints.
pub async fn run(args: &InventoryArgs) -> Result<String, CommandError> {
    let text = |path: &Path| {
        let path_text = path.display().to_string();
        std::fs::read_to_string(path).map_err(|source| Error::File { path: path_text, source })
    };
    let trust = if args.insecure {
        Trust::Insecure
    } else {
        let pem = args.ca.as_deref().map(text).transpose()?;
        Trust::auto(pem.map(String::into_bytes), args.thumbprint)
    };
    let source = Source {
        server: args.url.clone(),
        trust,
        user: args.user.clone(),
        password: Password::new(&text(&args.password_file)?),
    };
    let mut inventory = inventory(&source, &Limits::default()).await?;
    if let Some(wanted) = args.wanted() {
        inventory.vms = vec![choose(&inventory, &wanted)?.clone()];
        inventory.unreadable.clear();
    }
    Ok(if args.json { as_json(&inventory, &source) } else { as_table(&inventory) })
}

fn as_json(inventory: &Inventory, source: &Source) -> String {
    let mut value = json!(inventory);
    let urls = inventory
        .vms
        .iter()
        .map(|vm| json!(libvirt_url(&source.server, inventory.kind, &source.user, vm)));
    for (vm, url) in value["vms"].as_array_mut().into_iter().flatten().zip(urls) {
        vm["libvirtUrl"] = url;
    }
    format!("{value:#}\n")
}

fn as_table(inventory: &Inventory) -> String {
    let mut rows = vec![
        ["NAME", "MOREF", "POWER", "CPUS", "MEMORY", "DISKS", "HOST", "FOLDER", "NOTES"]
            .map(str::to_owned),
    ];
    rows.extend(inventory.vms.iter().map(row));
    for vm in &inventory.unreadable {
        let mut row: [String; 9] = Default::default();
        row[0].clone_from(&vm.name);
        row[1].clone_from(&vm.moref);
        row[8].clone_from(&vm.reason);
        rows.push(row);
    }
    let width = |i: usize| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..9).map(width).collect();
    let mut out = format!("{}\n", inventory.product);
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        out += super::soap::printable(line.trim_end()).as_str();
        out.push('\n');
    }
    out
}

fn row(vm: &SourceVm) -> [String; 9] {
    let bytes: u64 = vm.disks.iter().map(|d| d.capacity_bytes).sum();
    let power = match vm.power {
        Power::Off => "off",
        Power::On => "on",
        Power::Suspended => "suspended",
    };
    [
        vm.name.clone(),
        vm.moref.clone(),
        power.to_owned(),
        vm.cpus.to_string(),
        gib(vm.memory_bytes),
        format!("{}, {}", vm.disks.len(), gib(bytes)),
        vm.host.name.clone(),
        vm.folder.join("/"),
        notes(vm).join("; "),
    ]
}

fn gib(bytes: u64) -> String {
    // Tenths, rounded up: what is not nothing must not look like it.
    let tenths = (u128::from(bytes) * 10).div_ceil(u128::from(GIB));
    format!("{}.{} GiB", tenths / 10, tenths % 10)
}

fn notes(vm: &SourceVm) -> Vec<String> {
    let mut notes = Vec::new();
    if vm.template {
        notes.push("template".to_owned());
    }
    if vm.snapshots {
        notes.push("has snapshots".to_owned());
    }
    for disk in vm.disks.iter().filter(|d| !d.seen) {
        notes.push(format!("virt-v2v does not see {}:{}", disk.controller, disk.unit));
    }
    for disk in vm.disks.iter().filter(|d| d.raw_device) {
        notes.push(format!("{}:{} is a raw device", disk.controller, disk.unit));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::super::model::{Bus, ServerKind, Unreadable};
    use super::super::vm::tests::a_vm;
    use super::*;

    #[test]
    fn a_table_has_a_row_for_each() {
        let mut vm = a_vm();
        vm.snapshots = true;
        vm.disks[0].controller.bus = Bus::Nvme;
        vm.disks[0].seen = false;
        vm.name = "a\u{1b}[2Jb".to_owned();
        let unreadable = vec![Unreadable {
            moref: "vm-9".to_owned(),
            name: "lost".to_owned(),
            reason: "it is orphaned".to_owned(),
        }];
        let inventory = Inventory {
            product: "VMware vCenter Server 8".to_owned(),
            kind: ServerKind::VCenter,
            vms: vec![vm],
            unreadable,
        };
        let table = as_table(&inventory);
        assert_eq!(table.lines().count(), 4);
        assert!(table.contains("has snapshots; virt-v2v does not see nvme0:0"), "{table}");
        assert!(table.contains("1, 0.1 GiB") && table.contains("it is orphaned"), "{table}");
        assert!(!table.contains('\u{1b}'), "{table}");
    }
}

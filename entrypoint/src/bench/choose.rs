//! Which disks of the VM are read. Pure.

use crate::failure::{Class, Failure};
use crate::serve_disks::vm::Vm;

impl Vm {
    /// Those that are asked for, by number from 1 or by name; all when none is.
    pub fn choose(&self, wanted: &[String]) -> Result<Vec<String>, Failure> {
        if wanted.is_empty() {
            return Ok(self.disks.clone());
        }
        let find = |wish: &String| {
            let number = wish.parse::<usize>().ok().and_then(|n| n.checked_sub(1));
            let by_number = number.and_then(|n| self.disks.get(n));
            by_number.or_else(|| self.disks.iter().find(|d| *d == wish)).cloned().ok_or_else(|| {
                let all: Vec<String> =
                    self.disks.iter().enumerate().map(|(n, d)| format!("{} {d}", n + 1)).collect();
                let message = format!("--disk {wish}: the VM has {}", all.join(", "));
                Failure::new(Class::Config, message).advise("give a number or a name of these")
            })
        };
        let mut chosen: Vec<String> = Vec::new();
        for wish in wanted {
            let disk = find(wish)?;
            if !chosen.contains(&disk) {
                chosen.push(disk);
            }
        }
        Ok(chosen)
    }
}

/// What the VM must be like.
pub fn check(vm: &Vm, name: &str) -> Result<(), Failure> {
    let Some(disk) = vm.in_snapshot() else { return Ok(()) };
    let message = format!("the VM {name} has snapshots ({disk})");
    Err(Failure::new(Class::Config, message).advise(
        "choose a VM without: HTTPS would read another state than VDDK, so they cannot be compared",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(disks: &[&str]) -> Vm {
        Vm {
            uuid: String::new(),
            moref: "vm-7".to_owned(),
            datacenter: "DC".to_owned(),
            disks: disks.iter().map(|d| (*d).to_owned()).collect(),
        }
    }

    #[test]
    fn disks_are_chosen_by_number_and_name() {
        let vm = vm(&["[ds 1] web/a.vmdk", "[ds 1] web/b-1.vmdk"]);
        assert_eq!(vm.choose(&[]).unwrap(), vm.disks);
        let chosen = vm.choose(&["2".into(), "[ds 1] web/b-1.vmdk".into()]).unwrap();
        assert_eq!(chosen, ["[ds 1] web/b-1.vmdk"]);
        for unknown in ["0", "3", "a.vmdk", ""] {
            let failure = vm.choose(&[unknown.to_owned()]).unwrap_err();
            assert!(failure.message.contains("1 [ds 1] web/a.vmdk, 2 "), "{failure}");
        }
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        assert!(check(&vm(&["[ds] web/a-1.vmdk"]), "web").is_ok());
        let failure = check(&vm(&["[ds] web/a-000002.vmdk"]), "web").unwrap_err();
        assert!(failure.message.contains("has snapshots"), "{failure}");
    }
}

//! The description of the converted VM: found, or made from virt-v2v's libvirt XML.

use crate::failure::{Class, Failure};
use crate::guest::inspection::parse_inspection;
use crate::guest::vm_yaml::{VmOptions, parse_domain, rfc1123, virtual_machine_yaml};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use v2v_args::sanitize_slash;

/// virt-v2v's YAML: the one with the VM's name, else the first by name, as Forklift's pod takes it.
pub fn find_yaml(work: &Path, name: &str) -> Option<PathBuf> {
    let own = work.join(format!("{}.yaml", sanitize_slash(name)));
    if own.is_file() {
        return Some(own);
    }
    let mut all: Vec<PathBuf> = fs::read_dir(work)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|x| x == "yaml"))
        .collect();
    all.sort();
    all.into_iter().next()
}

/// Makes the KubeVirt YAML out of `-o local`'s XML. Claims are named `<vm>-disk-<i>` when none are
/// given.
pub fn make_yaml(
    domain_xml: &Path,
    inspection_xml: Option<&Path>,
    vm_name: &str,
    claims: &[String],
    disks: usize,
) -> Result<String, Failure> {
    let failed = |text: String| {
        Failure::new(
            Class::Inspection,
            format!("the disks are converted, but the VM cannot be described: {text}"),
        )
        .advise("write the VirtualMachine by hand, or report this with the libvirt XML")
    };
    let read = |path: &Path| {
        fs::read_to_string(path).map_err(|e| failed(format!("{}: {e}", path.display())))
    };
    let domain = parse_domain(&read(domain_xml)?).map_err(|e| failed(e.to_string()))?;
    let inspection = match inspection_xml {
        Some(path) => Some(parse_inspection(&read(path)?).map_err(|e| failed(e.to_string()))?),
        None => None,
    };
    let name = rfc1123(vm_name).ok_or_else(|| {
        failed(format!("{vm_name:?} has no character that a Kubernetes name may have"))
    })?;
    let claim_names = if claims.is_empty() {
        // A name leaves room for the suffix within a label's 63 characters.
        let stem: String = name.chars().take(50).collect();
        (0..disks).map(|i| format!("{}-disk-{i}", stem.trim_end_matches('-'))).collect()
    } else {
        claims.to_vec()
    };
    virtual_machine_yaml(&domain, inspection.as_ref(), &VmOptions { name, claim_names })
        .map_err(|e| failed(e.to_string()))
}

/// Writes a file so that it is there, whole, after a crash.
pub fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let failed = |e: std::io::Error| {
        Failure::new(Class::NoSpace, format!("cannot write {}: {e}", path.display()))
    };
    let dir = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::NamedTempFile::new_in(dir).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    // Results are for others to read; the temporary file is private.
    let mode = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o644);
    file.as_file().set_permissions(mode).map_err(failed)?;
    file.persist(path).map_err(|e| failed(e.error))?;
    File::open(dir).and_then(|d| d.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_yaml_comes_before_the_first() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(find_yaml(dir.path(), "vm"), None);
        for name in ["b.yaml", "a.yaml", "c.txt"] {
            fs::write(dir.path().join(name), b"x").unwrap();
        }
        assert_eq!(find_yaml(dir.path(), "vm"), Some(dir.path().join("a.yaml")));
        write_durably(&dir.path().join("v_m.yaml"), b"x").unwrap();
        assert_eq!(find_yaml(dir.path(), "v/m"), Some(dir.path().join("v_m.yaml")));
    }
}

//! A VM with snapshots over HTTPS: virt-v2v 2.6 asks for the newest disk, is told 404, and then silently reads the disk as it
//! was before the first snapshot. What was written since would be lost. Seen in what virt-v2v prints with `-v`. Pure.

use crate::failure::{Class, Failure};

/// Follows the lines of virt-v2v.
#[derive(Debug, Default)]
pub struct Snapshots {
    /// What will be asked for when a disk of a snapshot is not there.
    fallbacks: Vec<String>,
}

impl Snapshots {
    /// Takes a line; the failure once virt-v2v has turned to the older disk.
    pub fn line(&mut self, line: &str) -> Option<Failure> {
        let path = asked_for(line)?;
        if self.fallbacks.iter().any(|f| f == path) {
            return Some(failure(path));
        }
        self.fallbacks.extend(without_number(path));
        None
    }
}

/// For a disk whose newest state HTTPS cannot read.
pub fn failure(path: &str) -> Failure {
    let message = format!(
        "the VM has snapshots, and over HTTPS {path} would be read as it was before the first of them"
    );
    Failure::new(Class::SourceBusy, message).advise(
        "delete the VM's snapshots (consolidate its disks), or use VDDK, which reads the newest state",
    )
}

/// The path in `'curl' … --head … 'https://host/folder/web/web-000002-flat.vmdk?dcPath=…'`.
fn asked_for(line: &str) -> Option<&str> {
    if !line.starts_with("'curl' ") || !line.contains(" --head ") {
        return None;
    }
    let (_, rest) = line.split_once("/folder/")?;
    rest.split('?').next().filter(|p| p.ends_with(FLAT))
}

const FLAT: &str = "-flat.vmdk";
/// `-000001`.
const NUMBER: usize = 7;

fn without_number(path: &str) -> Option<String> {
    let stem = path.strip_suffix(FLAT)?;
    let (base, number) = stem.split_at_checked(stem.len().checked_sub(NUMBER)?)?;
    let digits = number.strip_prefix('-')?;
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| format!("{base}{FLAT}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(path: &str) -> String {
        format!(
            "'curl' -q --max-redirs '5' --globoff --head --silent --user <hidden> 'https://vc/folder/{path}?dcPath=DC&dsName=ds'"
        )
    }

    #[test]
    fn the_second_question_is_the_failure() {
        let mut s = Snapshots::default();
        assert_eq!(s.line(&head("web/web-000002-flat.vmdk")), None);
        assert_eq!(s.line(&head("web/data-flat.vmdk")), None);
        let failure = s.line(&head("web/web-flat.vmdk")).unwrap();
        assert!(
            failure.class == Class::SourceBusy && failure.message.contains("web/web-flat.vmdk")
        );
    }

    #[test]
    fn a_disk_that_is_only_named_like_one_passes() {
        let mut s = Snapshots::default();
        assert_eq!(s.line(&head("web/web-000002-flat.vmdk")), None);
        assert_eq!(s.line(&head("web/other-flat.vmdk")), None);
        assert_eq!(s.line("  <source file='[ds] web/web-flat.vmdk'/>"), None);
        for odd in ["é-flat.vmdk", "-flat.vmdk", "x"] {
            assert_eq!(s.line(&head(odd)), None, "{odd}");
        }
    }
}

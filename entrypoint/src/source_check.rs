//! Measures the source's disks while virt-v2v has them open, before anything is written.
//!
//! virt-v2v offers every source disk, whatever its kind, as an NBD export on a Unix socket in its
//! temporary folder. Between "Opening the source" and "Setting up the destination" the conversion
//! runs, which takes far longer than asking for the sizes.

use crate::toolbox::Toolbox;
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One question; a VDDK server may take a while to open the disk again.
const LIMIT: Duration = Duration::from_secs(60);

/// The message after which the sockets are there.
pub const OPENING: &str = "Opening the source";

#[derive(Deserialize)]
struct Answer {
    exports: Vec<Export>,
}

#[derive(Deserialize)]
struct Export {
    #[serde(rename = "export-size")]
    size: u64,
}

/// Sizes in bytes in disk order; `None` when they cannot be had (no `nbdinfo`, an older or newer
/// virt-v2v with other sockets): the sizes are then checked later, by the copier.
pub async fn sizes(toolbox: &Toolbox, tmp: &Path) -> Option<Vec<u64>> {
    let sockets = input_sockets(tmp);
    let mut sizes = Vec::new();
    for socket in &sockets {
        let uri = format!("nbd+unix:///?socket={}", socket.display());
        let (status, text) = toolbox.ask("nbdinfo", &["--json", "--list", &uri], LIMIT).await?;
        let answer: Answer = serde_json::from_str(&text).ok().filter(|_| status.success())?;
        sizes.extend(answer.exports.iter().map(|e| e.size));
    }
    (!sizes.is_empty()).then_some(sizes)
}

/// `<tmp>/v2v.XXXXXX/inN`, by number.
fn input_sockets(tmp: &Path) -> Vec<PathBuf> {
    let mut found: Vec<(usize, PathBuf)> = fs::read_dir(tmp)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().starts_with("v2v."))
        .flat_map(|e| fs::read_dir(e.path()).into_iter().flatten().flatten())
        .filter_map(|e| {
            let number = e.file_name().to_str()?.strip_prefix("in")?.parse().ok()?;
            Some((number, e.path()))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_come_in_disk_order() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("v2v.abcdef");
        fs::create_dir(&dir).unwrap();
        for name in ["in10", "in2", "in0", "out0", "input", "convert"] {
            fs::write(dir.join(name), b"").unwrap();
        }
        assert_eq!(input_sockets(tmp.path()), ["in0", "in2", "in10"].map(|n| dir.join(n)));
    }
}

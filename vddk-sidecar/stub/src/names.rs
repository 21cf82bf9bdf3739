//! From a disk's name, `[datastore] folder/disk.vmdk`, to the file that holds it.

use crate::codes::{FILE_NAME_INVALID, FILE_NOT_FOUND, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The datastore and the path in it.
pub fn parse(name: &str) -> Option<(&str, &str)> {
    let (datastore, path) = name.strip_prefix('[')?.split_once(']')?;
    let path = path.trim_start();
    (!path.is_empty()).then_some((datastore, path))
}

/// The file of a disk: `x-flat.vmdk` where there is one, as on an ESXi host, else `x.vmdk` itself. Both are raw.
pub fn find(datastores: &BTreeMap<String, PathBuf>, name: &str) -> Result<PathBuf> {
    let (datastore, path) = parse(name).ok_or(FILE_NAME_INVALID)?;
    let directory = datastores.get(datastore).ok_or(FILE_NOT_FOUND)?;
    let file = directory.join(path.trim_start_matches('/'));
    if let Some(flat) = flat(&file).filter(|flat| flat.exists()) {
        return Ok(flat);
    }
    if file.exists() { Ok(file) } else { Err(FILE_NOT_FOUND) }
}

fn flat(file: &Path) -> Option<PathBuf> {
    let stem = file.file_name()?.to_str()?.strip_suffix(".vmdk")?;
    Some(file.with_file_name(format!("{stem}-flat.vmdk")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split() {
        assert_eq!(parse("[ds 1 (3)] vm/a b.vmdk"), Some(("ds 1 (3)", "vm/a b.vmdk")));
        assert_eq!(parse("[ds]x.vmdk"), Some(("ds", "x.vmdk")));
        assert_eq!(parse("/tmp/x.vmdk"), None);
        assert_eq!(parse("[ds] "), None);
        assert_eq!(parse("[ds"), None);
    }

    #[test]
    fn the_flat_file_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        let stores = BTreeMap::from([("ds".to_owned(), dir.path().to_owned())]);
        std::fs::create_dir(dir.path().join("vm")).unwrap();
        let plain = dir.path().join("vm/a.vmdk");
        assert_eq!(find(&stores, "[ds] vm/a.vmdk"), Err(FILE_NOT_FOUND));
        std::fs::write(&plain, "descriptor").unwrap();
        assert_eq!(find(&stores, "[ds] vm/a.vmdk"), Ok(plain));
        let flat = dir.path().join("vm/a-flat.vmdk");
        std::fs::write(&flat, "data").unwrap();
        assert_eq!(find(&stores, "[ds] vm/a.vmdk"), Ok(flat));
        assert_eq!(find(&stores, "[other] vm/a.vmdk"), Err(FILE_NOT_FOUND));
        assert_eq!(find(&stores, "vm/a.vmdk"), Err(FILE_NAME_INVALID));
    }
}

//! This program under the names of tools: links to it in a private folder at the head of the tools' PATH. What such a
//! link needs to know stands in a file beside it, since not every tool hands its environment on (libvirt does not).

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

/// Whether `program`, the first word of a command line, is this tool.
pub fn is_name(program: Option<&OsString>, tool: &str) -> bool {
    program.is_some_and(|p| Path::new(p).file_name().is_some_and(|n| n == tool))
}

/// Makes the folder, if need be, and the link in it.
pub fn link(folder: &Path, tool: &str) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let link = folder.join(tool);
    match std::fs::remove_file(&link) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => symlink(std::env::current_exe()?, link),
    }
}

/// Writes a file that nobody else may read, in the place of an older one.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path)?.write_all(bytes)
}

/// The folder of the link that we were called by: the first in PATH in which the tool is this program.
pub fn folder(tool: &str) -> Option<PathBuf> {
    in_path(tool, true).and_then(|p| p.parent().map(Path::to_owned))
}

/// The first tool of this name in PATH that is not this program.
pub fn real(tool: &str) -> Option<PathBuf> {
    in_path(tool, false)
}

fn in_path(tool: &str, ours: bool) -> Option<PathBuf> {
    let me = std::fs::metadata("/proc/self/exe").ok()?;
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(tool)).find(|p| {
        std::fs::metadata(p)
            .is_ok_and(|m| m.is_file() && ((m.dev(), m.ino()) == (me.dev(), me.ino())) == ours)
    })
}

/// Becomes the real tool; comes back only with the reason why not.
#[allow(clippy::disallowed_methods)] // it takes our place, nothing is left to supervise it
pub fn become_real(tool: &str, arguments: &[OsString], variables: &[(&str, OsString)]) -> String {
    let Some(program) = real(tool) else {
        return format!("this call is for the real {tool}, which is not installed");
    };
    let mut command = std::process::Command::new(&program);
    command.arg0(tool).args(arguments).envs(variables.iter().map(|(k, v)| (k, v)));
    let error = command.exec();
    format!("{}: {error}", program.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_name_is_that_of_the_file() {
        let name = |text: &str| is_name(Some(&OsString::from(text)), "ssh");
        assert!(name("ssh") && name("/run/x/front/ssh"));
        assert!(!name("ssh-askpass") && !name("/ssh/nbdkit") && !is_name(None, "ssh"));
    }

    #[test]
    fn links_are_made_anew_and_files_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("front");
        link(&folder, "nbdkit").unwrap();
        link(&folder, "nbdkit").unwrap();
        assert_eq!(
            std::fs::read_link(folder.join("nbdkit")).unwrap(),
            std::env::current_exe().unwrap()
        );
        let file = folder.join("x.json");
        std::fs::write(&file, b"old and readable").unwrap();
        write_private(&file, b"new").unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"new");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}

//! Real block devices for `/dev/blockN`: loop devices over small sparse files, kept in a pool for the life of the
//! test process. The kernel frees them when the process ends, however it ends: each is detached at once after it
//! was opened, which takes effect when the last descriptor closes.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

/// One loop device.
#[derive(Debug)]
pub struct LoopDevice {
    /// Its device number, for mknod.
    pub number: u64,
    _open: File,
}

/// Free devices, and whether making one has failed (then regular files are used, and said).
#[derive(Debug, Default)]
pub struct Pool {
    free: Mutex<Vec<LoopDevice>>,
    broken: Mutex<Option<String>>,
}

impl Pool {
    /// A device for one case; none when the machine has none to give. Give it back with [`Pool::put`].
    pub fn take(&self, bytes: u64) -> Option<LoopDevice> {
        if let Some(device) = self.free.lock().unwrap().pop() {
            return Some(device);
        }
        let mut broken = self.broken.lock().unwrap();
        if broken.is_some() {
            return None;
        }
        match attach(bytes) {
            Ok(device) => Some(device),
            Err(error) => {
                eprintln!("conformance: no loop devices, /dev/blockN are regular files: {error}");
                *broken = Some(error);
                None
            }
        }
    }

    /// Gives devices back.
    pub fn put(&self, devices: Vec<LoopDevice>) {
        self.free.lock().unwrap().extend(devices);
    }
}

fn attach(bytes: u64) -> Result<LoopDevice, String> {
    let file = tempfile::NamedTempFile::new().map_err(|e| e.to_string())?;
    file.as_file().set_len(bytes).map_err(|e| e.to_string())?;
    // losetup finds a free device and takes it in two steps; another process may come between.
    let mut tries = 0;
    let node = loop {
        match losetup(&["--find", "--show", &file.path().display().to_string()]) {
            Err(e) if tries == 5 => return Err(e),
            Err(_) => tries += 1,
            Ok(node) => break node,
        }
    };
    let open = File::open(Path::new(&node)).map_err(|e| format!("{node}: {e}"))?;
    losetup(&["--detach", &node])?;
    let number = open.metadata().map_err(|e| e.to_string())?.rdev();
    Ok(LoopDevice { number, _open: open })
}

fn losetup(args: &[&str]) -> Result<String, String> {
    let output =
        Command::new("losetup").args(args).output().map_err(|e| format!("losetup: {e}"))?;
    if !output.status.success() {
        return Err(format!("losetup: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

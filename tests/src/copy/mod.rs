//! Helpers for the tests of `v2v-pod copy`: images, places to copy onto, servers, and the command itself.

pub mod places;
pub mod preload;

use serde_json::Value;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// One MiB.
pub const MIB: u64 = 1 << 20;
/// Nothing here takes this long.
pub const LONG: Duration = Duration::from_secs(120);

/// Bytes that do not repeat and hold no zero block; the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(length);
    out
}

/// An image of `size` bytes with data, holes, written zeroes and small pieces, at odd places too.
pub fn mixed_image(path: &Path, size: u64) {
    let file = File::create(path).unwrap();
    file.set_len(size).unwrap();
    let mut at = 0;
    let mut turn = 0;
    while at < size {
        let length = match turn % 6 {
            0 => 3 * MIB,    // data
            1 => 5 * MIB,    // hole
            2 => 700_001,    // data of an odd length
            3 => MIB,        // written zeroes
            4 => 4096,       // a small piece
            _ => 200 * 1024, // a small hole
        };
        let length = length.min(size - at);
        let bytes = usize::try_from(length).unwrap();
        match turn % 6 {
            0 | 2 | 4 => file.write_all_at(&noise(turn + 1, bytes), at).unwrap(),
            3 => file.write_all_at(&vec![0; bytes], at).unwrap(),
            _ => {}
        }
        at += length;
        turn += 1;
    }
    // The last bytes are data, so that a lost tail is seen.
    file.write_all_at(&noise(99, 777), size - 777).unwrap();
}

/// An image that is data all through.
pub fn dense_image(path: &Path, size: u64) {
    let mut file = File::create(path).unwrap();
    for n in 0..size / MIB {
        file.write_all(&noise(n + 1000, usize::try_from(MIB).unwrap())).unwrap();
    }
    file.sync_all().unwrap();
}

/// Panics at the first difference between an image and the beginning of a target.
pub fn assert_same(image: &Path, target: &Path) {
    let (mut wanted, mut found) = (File::open(image).unwrap(), File::open(target).unwrap());
    let size = wanted.metadata().unwrap().len();
    let (mut original, mut copied) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut at = 0;
    while at < size {
        let n = usize::try_from((size - at).min(MIB)).unwrap();
        wanted.read_exact(&mut original[..n]).unwrap();
        found
            .read_exact(&mut copied[..n])
            .unwrap_or_else(|e| panic!("{}: {e} at {at}", target.display()));
        if let Some(first) = original[..n].iter().zip(&copied[..n]).position(|(p, q)| p != q) {
            panic!(
                "{} differs from {} at {}",
                target.display(),
                image.display(),
                at + first as u64
            );
        }
        at += n as u64;
    }
}

/// Size of a file or device.
pub fn size_of(path: &Path) -> u64 {
    File::open(path).unwrap().seek(SeekFrom::End(0)).unwrap()
}

/// The program under test.
pub fn pod_binary() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    // target/PROFILE/deps/TEST
    crate::suite::pod_binary(&test.parent().unwrap().with_file_name("v2v-standin"))
}

/// `v2v-pod copy …`, ready to be run.
pub fn copy(args: &[&dyn AsRef<std::ffi::OsStr>]) -> Command {
    let mut command = Command::new(pod_binary());
    command.arg("copy").args(args.iter().map(|a| (*a).as_ref())).stdin(Stdio::null());
    command
}

/// What a run came to.
#[derive(Debug)]
pub struct Ran {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard error.
    pub err: String,
    /// The last JSON line, null without `--json`.
    pub result: Value,
}

impl Ran {
    /// A counter of the first disk.
    pub fn disk(&self, field: &str) -> u64 {
        self.result["disks"][0][field].as_u64().unwrap_or_else(|| panic!("no {field}: {self:?}"))
    }

    /// Panics unless it went well.
    #[must_use]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// Panics unless it failed with this code and said this.
    pub fn failed(&self, code: i32, text: &str) {
        assert!(
            self.code == Some(code) && self.err.contains(text),
            "wanted {code} {text:?}: {self:?}"
        );
    }
}

/// Runs to the end.
pub fn run(command: &mut Command) -> Ran {
    ran(&command.output().unwrap())
}

/// What an ended process came to.
pub fn ran(output: &Output) -> Ran {
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = out.lines().last().and_then(|l| serde_json::from_str(l).ok());
    Ran {
        code: output.status.code(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
        result: last.unwrap_or(Value::Null),
    }
}

/// Waits for something, or panics.
pub fn until(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < LONG, "{what}: not within {LONG:?}");
        sleep(Duration::from_millis(20));
    }
}

/// A server that ends with its test.
#[derive(Debug)]
pub struct Server {
    child: Child,
    socket: PathBuf,
}

impl Server {
    /// Starts nbdkit on a socket in `dir`.
    pub fn nbdkit(dir: &Path, name: &str, args: &[&str]) -> Self {
        let socket = dir.join(name);
        let _ = fs::remove_file(&socket);
        let child = Command::new("nbdkit")
            .args(["-f", "--exit-with-parent", "-U"])
            .arg(&socket)
            .args(args)
            .stdin(Stdio::null())
            .spawn()
            .expect("needs nbdkit: run scripts/install-deps.sh lab");
        let server = Self { child, socket };
        until("nbdkit listens", || server.socket.exists());
        server
    }

    /// Its URI.
    pub fn uri(&self) -> String {
        format!("nbd+unix:///?socket={}", self.socket.display())
    }

    /// Ends it at once, as a crash would.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

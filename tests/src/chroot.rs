//! Builds the root directory of one run: a bare system with nothing but the pod, the libraries it is linked to,
//! the stand-ins, and what the case says. No shell, no coreutils: the pod needs none, and none can stand in for
//! something that is missing.

use crate::cases::{Case, FileSpec};
use crate::loopdev::{LoopDevice, Pool};
use crate::records::{Drive, HARNESS, POD, SCRIPT, Script, TOOL};
use crate::standins::TOOLS;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Size of every volume.
pub const DISK_BYTES: u64 = 64 << 20;
/// `PATH` of the pod: without `/usr/libexec`, where virt-v2v-in-place is. The reference image adds it; the pod
/// must find the tool without.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// `HOME` of the pod, as in the reference image.
pub const HOME: &str = "/home/qemu";
/// Limit of one case.
const TIMEOUT_S: u64 = 60;

const DIRS: &[&str] = &[
    "/dev",
    "/etc/pki/tls/certs",
    "/home/qemu",
    "/opt",
    "/proc",
    "/run",
    "/tmp",
    "/usr/bin",
    "/usr/libexec",
    "/var/tmp",
    HARNESS,
];

/// VDDK's folder in the pod. A case that has it means a usable one: our stand-in is put there.
const VDDK: &str = "/opt/vmware-vix-disklib-distrib";

/// The binaries of a run.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// v2v-pod.
    pub pod: PathBuf,
    /// `vddk-sidecar`, which v2v-pod expects beside itself.
    pub sidecar: PathBuf,
    /// The stand-in for VDDK's library.
    pub vddk: PathBuf,
    /// `v2v-standin`.
    pub standin: PathBuf,
    /// What they are linked to.
    pub libraries: Vec<PathBuf>,
}

impl Binaries {
    /// Finds out what the two are linked to.
    pub fn new(pod: PathBuf, standin: PathBuf) -> Self {
        // `cargo test` leaves a library of another package in `deps`, or builds only what its own package needs.
        let beside = |name: &str| {
            let release = pod.with_file_name("../release").join(name);
            let places = [pod.with_file_name(name), pod.with_file_name("deps").join(name), release];
            let found = places.into_iter().find(|p| p.is_file());
            found.and_then(|p| p.canonicalize().ok()).unwrap_or_else(|| {
                panic!("there is no {name} for {}: run cargo build --release", pod.display())
            })
        };
        let (sidecar, vddk) = (beside("vddk-sidecar"), beside("libvixDiskLib.so"));
        let mut libraries = BTreeSet::new();
        for binary in [&pod, &standin, &sidecar, &vddk] {
            let output = Command::new("ldd").arg(binary).output().expect("ldd");
            let text = String::from_utf8_lossy(&output.stdout);
            // `libc.so.6 => /lib/…/libc.so.6 (0x…)`, or the loader's path alone.
            libraries
                .extend(text.split_whitespace().filter(|w| w.starts_with('/')).map(PathBuf::from));
        }
        Self { pod, sidecar, vddk, standin, libraries: libraries.into_iter().collect() }
    }
}

/// The world of one run.
#[derive(Debug)]
pub struct Root {
    /// The root directory; goes away with this.
    pub dir: TempDir,
    /// File for `v2v-standin drive`.
    pub drive: PathBuf,
    /// Block devices in use.
    pub devices: Vec<LoopDevice>,
}

impl Root {
    /// A path of the run, seen from outside.
    pub fn outside(&self, path: &str) -> PathBuf {
        outside(self.dir.path(), path)
    }
}

fn outside(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// Builds it. `json`: virt-v2v heeds `--machine-readable`.
pub fn build(case: &Case, binaries: &Binaries, pool: &Pool, json: bool) -> Root {
    let dir = tempfile::Builder::new().prefix("v2v-conformance-").tempdir().unwrap();
    let root = dir.path();
    for dir in DIRS.iter().copied().chain(case.dirs.iter().map(String::as_str)) {
        fs::create_dir_all(outside(root, dir)).unwrap();
    }
    base_files(root, case);
    for (path, file) in &case.files {
        put(root, path, file);
    }
    let vddk = case.dirs.iter().any(|d| d.starts_with(VDDK));
    if vddk {
        text(root, &format!("{VDDK}/stub.json"), "{}");
    }
    let mut devices = Vec::new();
    let mut blocks = Vec::new();
    for disk in &case.disks {
        if disk.starts_with("/dev/") {
            let device = pool.take(DISK_BYTES);
            blocks.push((disk.clone(), device.as_ref().map(|d| d.number)));
            devices.extend(device);
        } else {
            text(root, disk, "");
            File::options()
                .write(true)
                .open(outside(root, disk))
                .unwrap()
                .set_len(DISK_BYTES)
                .unwrap();
        }
    }
    let mut binds =
        vec![(binaries.pod.clone(), POD.to_owned()), (binaries.standin.clone(), TOOL.to_owned())];
    binds.extend(TOOLS.iter().map(|t| (binaries.standin.clone(), (*t).to_owned())));
    binds.push((binaries.sidecar.clone(), format!("{}/vddk-sidecar", parent(POD))));
    if vddk {
        binds.push((binaries.vddk.clone(), format!("{VDDK}/lib64/libvixDiskLib.so.8")));
    }
    binds.extend(binaries.libraries.iter().map(|l| (l.clone(), l.display().to_string())));
    for (_, inside) in &binds {
        text(root, inside, "");
    }
    let mut env = case.env.clone();
    env.entry("PATH".into()).or_insert_with(|| PATH.into());
    env.entry("HOME".into()).or_insert_with(|| HOME.into());
    let drive = Drive {
        root: root.to_owned(),
        binds,
        blocks,
        flags: case.flags.clone(),
        env,
        http: case.http.clone(),
        steps: case.steps.clone(),
        files: case.expect_files.keys().cloned().collect(),
        timeout_s: TIMEOUT_S,
    };
    let drive_file = outside(root, HARNESS).join("drive.json");
    fs::write(&drive_file, serde_json::to_string(&drive).unwrap()).unwrap();
    let script = serde_json::to_string(&script(case, json)).unwrap();
    text(root, SCRIPT, &script);
    Root { drive: drive_file, devices, dir }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn script(case: &Case, json: bool) -> Script {
    Script {
        rc: case.behaviour.rc.clone(),
        os: case.behaviour.os.clone().unwrap_or_else(|| "linux".into()),
        fstrim: os_release_id(case) == "rhel",
        vm_name: case.env.get("V2V_vmName").cloned().unwrap_or_default(),
        domain_xml: case.domain_xml.clone(),
        steps: case.steps.iter().map(|s| s.stdin.clone()).collect(),
        json,
    }
}

fn os_release_id(case: &Case) -> &str {
    case.os_release_id.as_deref().unwrap_or("rhel")
}

fn base_files(root: &Path, case: &Case) {
    let id = os_release_id(case);
    text(root, "/etc/os-release", &format!("NAME=\"{id}\"\nID=\"{id}\"\nVERSION_ID=\"10.0\"\n"));
    text(root, "/etc/passwd", &format!("root:x:0:0:root:{HOME}:/sbin/nologin\n"));
    text(root, "/etc/group", "root:x:0:\n");
    text(root, "/etc/hosts", "127.0.0.1 localhost\n");
    text(root, "/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n");
    text(root, "/etc/pki/tls/certs/ca-bundle.crt.bak", "");
}

fn put(root: &Path, path: &str, file: &FileSpec) {
    match file {
        FileSpec::Text(content) => text(root, path, content),
        FileSpec::Link { symlink } => {
            let path = outside(root, path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(symlink, path).unwrap();
        }
    }
}

fn text(root: &Path, path: &str, content: &str) {
    let path = outside(root, path);
    let parent = path.parent().unwrap();
    fs::create_dir_all(parent).unwrap();
    // We are root on the host: a link in a case must not lead out of the run's directory.
    let real = parent.canonicalize().unwrap();
    assert!(real.starts_with(root.canonicalize().unwrap()), "{} leads out", path.display());
    fs::write(path, content).unwrap();
}

//! A vCenter with a guest on it, a CA of its own, and a VDDK (the stand-in) for its disks.

use super::lab::{free_port, lab, root, said};
use super::pod::{Pod, Request};
use super::volume::{Scratch, must};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// The password of every [`Place`]; tests look for it where none may be.
pub const PASSWORD: &str = "hunter2 Zq7xK-must-not-be-seen";
/// Who may log in.
pub const USER: &str = "administrator@vsphere.local";
/// Where the datastore is in the pod, for the stand-in.
pub const STORE: &str = "/datastore";
/// VDDK's folder.
pub const DISTRIB: &str = "vmware-vix-disklib-distrib";
/// In the line with which it says that it listens.
const READY: &str = "\"url\"";

/// A running vCenter; ends when dropped.
#[derive(Debug)]
pub struct VCenter {
    dir: TempDir,
    child: Child,
    /// Its port, on every address of this machine.
    pub port: u16,
    /// SHA-1 of its certificate.
    pub thumbprint: String,
    stats: String,
}

impl VCenter {
    /// Starts one whose password is this, with the lab's guest as VM `web`.
    pub fn start(password: &str) -> Self {
        Self::start_as(password, |_| {})
    }

    /// The same with changes to `vclab`'s configuration.
    pub fn start_as(password: &str, change: impl FnOnce(&mut Value)) -> Self {
        let dir = tempfile::Builder::new().prefix("v2v-vcenter.").tempdir_in("/var/tmp").unwrap();
        let store = dir.path().join("store/web");
        fs::create_dir_all(&store).unwrap();
        for name in ["boot", "data"] {
            let flat = store.join(format!("{name}-flat.vmdk"));
            let image = lab().guest.join(format!("{name}.img"));
            // A symbolic link would lead out of what the pod sees.
            if fs::hard_link(&image, &flat).is_err() {
                must(Command::new("cp").arg("--sparse=always").arg(&image).arg(&flat));
            }
        }
        // For VMs that are never converted; two VMs cannot have the same disk.
        for name in ["other", "older", "twin1", "twin2", "copy1", "copy2", "single"] {
            let folder = dir.path().join("store").join(name);
            fs::create_dir_all(&folder).unwrap();
            for disk in ["disk", "disk1", "disk2"] {
                let flat = folder.join(format!("{disk}-flat.vmdk"));
                File::create(flat).unwrap().set_len(1 << 20).unwrap();
            }
        }
        certificates(dir.path());
        let port = free_port();
        let mut config = json!({
            "mode": "vpx", "listen": format!("127.0.0.1:{port}"),
            "certificate": "server.pem", "key": "server.key", "user": USER, "password": password,
            "datacenter": "DC", "cluster": "Cluster", "host": "esx1.example.com",
            "datastores": [{"name": "ds 1", "directory": "store"}],
            "vms": [{
                "name": "web", "uuid": "42000000-1111-2222-3333-444455556666",
                "nics": [{"network": "VM Network", "mac": "00:50:56:aa:bb:01"}],
                "disks": [{"path": "[ds 1] web/boot.vmdk"}, {"path": "[ds 1] web/data.vmdk"}],
            }],
        });
        change(&mut config);
        let file = dir.path().join("lab.json");
        fs::write(&file, config.to_string()).unwrap();
        let log = File::create(dir.path().join("log")).unwrap();
        let mut child = Command::new(program())
            .arg("--config")
            .arg(&file)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let log = fs::read_to_string(dir.path().join("log")).unwrap_or_default();
        assert!(line.contains(READY), "the vCenter does not start: {line}{log}");
        let ready: Value = serde_json::from_str(&line).unwrap();
        let thumbprint = ready["thumbprint"].as_str().unwrap().to_owned();
        let stats = ready["stats"].as_str().unwrap().to_owned();
        Self { dir, child, port, thumbprint, stats }
    }

    /// For `V2V_libvirtURL`; `host` is `localhost` or `127.0.0.1`.
    pub fn url(&self, host: &str, query: &str) -> String {
        format!(
            "vpx://administrator%40vsphere.local@{host}:{}/DC/Cluster/esx1.example.com{query}",
            self.port
        )
    }

    /// The certificate of its CA.
    pub fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Its own certificate.
    pub fn certificate(&self) -> PathBuf {
        self.dir.path().join("server.pem")
    }

    /// What has happened to it so far: requests, sessions, faults.
    pub fn stats(&self) -> Value {
        let text = must(Command::new("curl").args(["-fsS", &self.stats]));
        serde_json::from_str(&text).unwrap()
    }

    /// The folder behind its datastore.
    pub fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// What the stand-in for VDDK must know to serve this vCenter's disks.
    pub fn stub_settings(&self, password: &str) -> Value {
        json!({
            "datastores": {"ds 1": format!("{STORE}")}, "server": "localhost", "user": USER,
            "password": password, "thumbprint": self.thumbprint,
        })
    }
}

/// For [`VCenter::start_as`]: a single host, whose user is `root`.
pub fn esx(config: &mut Value) {
    let config = config.as_object_mut().unwrap();
    config.insert("mode".to_owned(), json!("esx"));
    config.insert("user".to_owned(), json!("root"));
    for key in ["datacenter", "cluster", "host"] {
        config.remove(key);
    }
}

impl Drop for VCenter {
    fn drop(&mut self) {
        // It removes its own temporary files.
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid),
                nix::sys::signal::Signal::SIGTERM,
            );
        }
        let _ = self.child.wait();
    }
}

fn program() -> PathBuf {
    let output = Command::new(root().join("tests/lab/vcenter.sh")).arg("build").output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}

/// A CA and a certificate of it for `localhost` and 127.0.0.1.
fn certificates(dir: &Path) {
    let script = r#"
        key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }
        key ca.key; key server.key
        openssl req -x509 -new -key ca.key -subj '/CN=v2v lab CA' -days 30 -out ca.pem
        openssl req -new -key server.key -subj '/CN=vcenter.lab' -out server.csr
        printf 'subjectAltName=DNS:localhost,DNS:vcenter.lab,IP:127.0.0.1\n' >names
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -days 30 -extfile names -out server.pem
    "#;
    let output = Command::new("bash").args(["-euc", script]).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

/// A tree as VMware's archive has it, with the stand-in as its library.
pub fn vddk_tree(dir: &Path, settings: &Value) -> PathBuf {
    let library = root().join("target/release/libvixDiskLib.so");
    assert!(library.is_file(), "{} is missing; run cargo build --release", library.display());
    let tree = dir.join(DISTRIB);
    let lib64 = tree.join("lib64");
    fs::create_dir_all(&lib64).unwrap();
    fs::copy(library, lib64.join("libvixDiskLib.so.8.0.3")).unwrap();
    symlink("libvixDiskLib.so.8.0.3", lib64.join("libvixDiskLib.so.8")).unwrap();
    symlink("libvixDiskLib.so.8", lib64.join("libvixDiskLib.so")).unwrap();
    fs::write(tree.join("stub.json"), settings.to_string()).unwrap();
    tree
}

/// A vCenter, a place for the pod, and VDDK in its volume.
#[derive(Debug)]
pub struct Place {
    /// The server.
    pub vcenter: VCenter,
    /// Volumes, secrets, the work volume.
    pub scratch: Scratch,
    /// The volume with VDDK.
    pub opt: PathBuf,
}

impl Place {
    /// VDDK's stand-in behaves as the vCenter's disks do, and as `more` says.
    pub fn new(more: &Value) -> Self {
        let place = Self::with(VCenter::start(PASSWORD));
        let mut settings = place.vcenter.stub_settings(PASSWORD);
        for (key, value) in more.as_object().into_iter().flatten() {
            settings[key] = value.clone();
        }
        vddk_tree(&place.opt, &settings);
        must(Command::new("chown").args(["-R", "107:107"]).arg(&place.opt));
        place
    }

    /// Without VDDK.
    pub fn with(vcenter: VCenter) -> Self {
        let scratch = Scratch::new();
        let secrets = scratch.folder("secrets");
        // With the line feed that editors leave.
        fs::write(secrets.join("secretKey"), format!("{PASSWORD}\n")).unwrap();
        fs::write(secrets.join("accessKeyId"), USER).unwrap();
        for name in ["work", "disk0", "disk1"] {
            scratch.folder(name);
        }
        let opt = scratch.folder("opt");
        Self { vcenter, scratch, opt }
    }

    /// The work volume.
    pub fn work(&self) -> PathBuf {
        self.scratch.path("work")
    }

    /// As Forklift makes it: block and filesystem volumes come from the caller.
    pub fn pod(&self, url: &str) -> Request {
        Request::new(&self.work())
            .mount_read_only(&self.scratch.path("secrets"), "/etc/secret")
            .mount(&self.opt, "/opt")
            .mount_read_only(&self.vcenter.store(), STORE)
            .envs(&[
                ("V2V_source", "vSphere"),
                ("V2V_vmName", "web"),
                ("V2V_libvirtURL", url),
                ("V2V_secretKey", PASSWORD),
                ("LOCAL_MIGRATION", "false"),
                ("V2V_sourceRetries", "0"),
            ])
    }

    /// Onto two filesystem volumes, which a failing run leaves empty.
    pub fn failing(&self, url: &str) -> Request {
        self.pod(url).folder(0, &self.scratch.path("disk0")).folder(1, &self.scratch.path("disk1"))
    }

    /// The secret has the CA.
    pub fn give_ca(&self) {
        fs::copy(self.vcenter.ca(), self.scratch.path("secrets/cacert")).unwrap();
    }

    /// Nothing was written to the volumes.
    pub fn untouched(&self, pod: &mut Pod) {
        for disk in ["disk0", "disk1"] {
            let image = self.scratch.path(disk).join("disk.img");
            let bytes = fs::metadata(&image).map_or(0, |m| m.len());
            pod.check(bytes == 0, format_args!("{} has {bytes} bytes", image.display()));
        }
    }
}

/// The line of the log that says what is converted, how, and whom it trusts.
pub fn described(pod: &mut Pod) -> Value {
    let lines = pod.lines();
    lines.into_iter().find(|l| l["message"] == "conversion described").unwrap_or_default()
}

/// Runs a shell script in the conversion image, as the pod's user.
pub fn in_image(options: &[&str], script: &str) -> (bool, String) {
    let mut words = vec!["v2v_podman_run", "--entrypoint", "bash"];
    words.extend(options);
    words.extend(["--", "-c", script]);
    let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
    let output = super::lab::podman_sh(&words).output().unwrap();
    (output.status.success(), said(&output))
}

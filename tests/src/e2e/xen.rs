//! A Xen host over SSH (`tests/lab/xen-host.sh`): a real sshd, a real libvirtd, the lab's guest on its file system.

use super::lab::{free_port, lab, root};
use super::pod::{Pod, Request};
use super::volume::{Scratch, must};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// root's, there.
pub const PASSWORD: &str = "xen lab p4ss word";
/// Where the host has its disks.
const IMAGES: &str = "/var/lib/libvirt/images";

const OLD: &str = "KexAlgorithms diffie-hellman-group14-sha1,diffie-hellman-group1-sha1;HostKeyAlgorithms ssh-rsa;MACs hmac-sha1;Ciphers aes128-ctr";

/// A running host; gone when dropped.
#[derive(Debug)]
pub struct XenHost {
    dir: PathBuf,
    child: Child,
    /// Of its sshd, on 127.0.0.1.
    pub port: u16,
}

impl XenHost {
    /// Its VMs: `web` with the lab's guest, and some that cannot be read.
    /// `old` is its sshd when it offers only what one of 2007 has.
    pub fn start(scratch: &Scratch, old: bool) -> Self {
        let dir = scratch.path("xen");
        fs::create_dir_all(dir.join("images")).unwrap();
        if old {
            let key = dir.join("host_key");
            must(Command::new("ssh-keygen").args(["-q", "-t", "rsa", "-N", "", "-f"]).arg(key));
        }
        for disk in ["boot.img", "data.img"] {
            let image = lab().guest.join(disk);
            // The guest is only read; another file system cannot have a link.
            let linked = fs::hard_link(&image, dir.join("images").join(disk));
            if linked.is_err() {
                let to = dir.join("images").join(disk);
                must(Command::new("cp").arg("--sparse=always").args([image, to]));
            }
        }
        File::create(dir.join("images/empty.img")).unwrap();
        fs::write(dir.join("password"), PASSWORD).unwrap();
        fs::write(dir.join("domains.xml"), domains()).unwrap();
        let port = free_port();
        let mut child = Command::new(root().join("tests/lab/xen-host.sh"))
            .arg(&dir)
            .arg(port.to_string())
            .env("XEN_SSHD_OPTIONS", if old { OLD } else { "" })
            .stdout(Stdio::piped())
            .stderr(File::create(dir.join("host.log")).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let host = Self { dir, child, port };
        assert_eq!(line.trim(), "ready", "the Xen host does not start: {}", host.said());
        host
    }

    /// For `V2V_libvirtURL`.
    pub fn url(&self) -> String {
        format!("xen+ssh://root@127.0.0.1:{}/?name=test:///etc/libvirt/domains.xml", self.port)
    }

    /// A file of its folder: `known_hosts`, `id`, `host_key.pub`, `sshd.log`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The fingerprint of a public key, as OpenSSH shows it.
    pub fn fingerprint(&self, key: &str) -> String {
        let said = must(Command::new("ssh-keygen").arg("-lf").arg(self.file(key)));
        said.split(' ').nth(1).unwrap().to_owned()
    }

    /// Goes away, connections and all.
    pub fn stop(&mut self) {
        // SIGKILL: all that runs in its namespaces ends with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn said(&self) -> String {
        let logs = ["host.log", "sshd.log", "libvirtd.log"].map(|log| self.file(log));
        logs.iter().map(|log| fs::read_to_string(log).unwrap_or_default()).collect()
    }
}

impl Drop for XenHost {
    fn drop(&mut self) {
        self.stop();
    }
}

/// For libvirt's test driver; 5 is "shut off", and without it a domain runs.
fn domains() -> String {
    const NAMESPACE: &str = "xmlns:test='http://libvirt.org/schemas/domain/test/1.0'";
    let file = |name: &str, format: &str, target: &str| {
        format!(
            "<disk type='file' device='disk'><driver name='tap' type='{format}'/><source file='{IMAGES}/{name}'/><target dev='{target}' bus='ide'/></disk>"
        )
    };
    let vms = [
        ("web", 5, file("boot.img", "raw", "hda") + &file("data.img", "raw", "hdb")),
        ("data", 5, file("data.img", "raw", "hda")),
        ("running", 1, file("boot.img", "raw", "hda")),
        ("gone", 5, file("boot.img", "raw", "hda") + &file("deleted.img", "raw", "hdb")),
        ("empty", 5, file("empty.img", "raw", "hda") + &file("data.img", "raw", "hdb")),
        ("qcow2", 5, file("boot.img", "qcow2", "hda")),
        ("lvm", 5, "<disk type='block' device='disk'><source dev='/dev/vg/web'/><target dev='hda' bus='ide'/></disk>".to_owned()),
    ];
    let mut text = String::from("<node>");
    for (number, (name, state, disks)) in vms.into_iter().enumerate() {
        write!(
            text,
            "<domain type='test' {NAMESPACE}><test:runstate>{state}</test:runstate><name>{name}</name><uuid>6a0a7a2e-0000-4000-8000-00000000000{number}</uuid><memory>1048576</memory><vcpu>1</vcpu><os><type arch='x86_64'>hvm</type></os><devices>{disks}<disk type='file' device='cdrom'><target dev='hdc' bus='ide'/></disk><interface type='bridge'><mac address='00:16:3e:aa:bb:01'/><source bridge='xenbr0'/></interface></devices></domain>"
        )
        .unwrap();
    }
    text + "</node>"
}

/// A host, and a place for a pod that reads from it.
#[derive(Debug)]
pub struct Place {
    /// The host.
    pub host: XenHost,
    /// Volumes, secrets, the work volume.
    pub scratch: Scratch,
}

impl Place {
    /// The secret has the password and the host's key.
    pub fn new() -> Self {
        Self::with(false)
    }

    /// The same with an old host.
    pub fn old() -> Self {
        Self::with(true)
    }

    fn with(old: bool) -> Self {
        let scratch = Scratch::new();
        let host = XenHost::start(&scratch, old);
        for name in ["secrets", "work", "disk0", "disk1"] {
            scratch.folder(name);
        }
        let place = Self { host, scratch };
        place.give("secretKey", &format!("{PASSWORD}\n"));
        place.give("known_hosts", &fs::read_to_string(place.host.file("known_hosts")).unwrap());
        place
    }

    /// A file of the secret.
    pub fn give(&self, name: &str, text: &str) {
        fs::write(self.scratch.path("secrets").join(name), text).unwrap();
    }

    /// No longer one.
    pub fn take(&self, name: &str) {
        fs::remove_file(self.scratch.path("secrets").join(name)).unwrap();
    }

    /// A pod with the secret.
    pub fn pod(&self) -> Request {
        Request::new(&self.scratch.path("work"))
            .mount_read_only(&self.scratch.path("secrets"), "/etc/secret")
            .envs(&[
                ("V2V_source", "xen"),
                ("V2V_vmName", "web"),
                ("V2V_libvirtURL", &self.host.url()),
                ("V2V_secretKey", PASSWORD),
                ("LOCAL_MIGRATION", "false"),
                ("V2V_sourceRetries", "0"),
            ])
    }

    /// The same onto two filesystem volumes, which a failing run leaves empty, and with an appliance that costs nothing.
    pub fn failing(&self) -> Request {
        self.pod()
            .folder(0, &self.scratch.path("disk0"))
            .folder(1, &self.scratch.path("disk1"))
            .env("LIBGUESTFS_HV", "/bin/false")
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

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

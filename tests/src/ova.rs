//! OVAs made by the tools that make them (tar, gzip, qemu-img, python's zipfile), and a web server (nginx) that has them.

use crate::pki::{Identity, Spec};
use std::fmt::Write as _;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Who may read below `/private/`.
pub const USER: &str = "keeper";
/// His password; tests look for it where none may be.
pub const PASSWORD: &str = "hunter2 \"Zq7xK\\must-not-be-seen";

/// A disk of an OVA.
#[derive(Debug, Clone, Copy)]
pub struct OvfDisk<'a> {
    /// As the description names it.
    pub href: &'a str,
    /// Bytes, as the guest sees it.
    pub capacity: u64,
    /// Further attributes of its `File`.
    pub attributes: &'a str,
}

impl<'a> OvfDisk<'a> {
    /// One in this file.
    pub fn new(href: &'a str, capacity: u64) -> Self {
        Self { href, capacity, attributes: "" }
    }
}

/// The description of a guest with these disks on a SCSI controller and one NIC.
pub fn ovf(name: &str, disks: &[OvfDisk<'_>]) -> String {
    let (mut references, mut section, mut items) = (String::new(), String::new(), String::new());
    for (i, disk) in disks.iter().enumerate() {
        let OvfDisk { href, capacity, attributes } = disk;
        let _ = write!(references, r#"<File ovf:href="{href}" ovf:id="file{i}" {attributes}/>"#);
        let _ = write!(
            section,
            r#"<Disk ovf:capacity="{capacity}" ovf:diskId="vmdisk{i}" ovf:fileRef="file{i}" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>"#
        );
        let _ = write!(
            items,
            "<Item><rasd:AddressOnParent>{i}</rasd:AddressOnParent><rasd:ElementName>disk{i}</rasd:ElementName><rasd:HostResource>ovf:/disk/vmdisk{i}</rasd:HostResource><rasd:InstanceID>{}</rasd:InstanceID><rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>",
            10 + i
        );
    }
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData">
<References>{references}</References>
<DiskSection><Info>Disks</Info>{section}</DiskSection>
<NetworkSection><Info>Networks</Info><Network ovf:name="VM Network"/></NetworkSection>
<VirtualSystem ovf:id="{name}"><Info>A guest</Info><Name>{name}</Name>
<OperatingSystemSection ovf:id="94"><Info>Linux</Info></OperatingSystemSection>
<VirtualHardwareSection><Info>Hardware</Info>
<Item><rasd:ElementName>2 CPUs</rasd:ElementName><rasd:InstanceID>1</rasd:InstanceID><rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>2</rasd:VirtualQuantity></Item>
<Item><rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits><rasd:ElementName>Memory</rasd:ElementName><rasd:InstanceID>2</rasd:InstanceID><rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>1024</rasd:VirtualQuantity></Item>
<Item><rasd:Address>0</rasd:Address><rasd:ElementName>SCSI</rasd:ElementName><rasd:InstanceID>3</rasd:InstanceID><rasd:ResourceSubType>VirtualSCSI</rasd:ResourceSubType><rasd:ResourceType>6</rasd:ResourceType></Item>
<Item><rasd:Address>00:50:56:aa:bb:0a</rasd:Address><rasd:Connection>VM Network</rasd:Connection><rasd:ElementName>NIC</rasd:ElementName><rasd:InstanceID>4</rasd:InstanceID><rasd:ResourceSubType>VmxNet3</rasd:ResourceSubType><rasd:ResourceType>10</rasd:ResourceType></Item>
{items}</VirtualHardwareSection></VirtualSystem></Envelope>
"#
    )
}

/// Runs a program that has to succeed.
#[track_caller]
pub fn must(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Writes the image as VMware's tools export disks.
pub fn stream_optimized(raw: &Path, vmdk: &Path) {
    let args = ["convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized"];
    must(Command::new("qemu-img").args(args).args([raw, vmdk]));
}

/// Makes a tar archive of these files of a folder.
pub fn tar(dir: &Path, form: &str, ova: &Path, files: &[&str]) {
    let mut command = Command::new("tar");
    command.arg("-C").arg(dir).arg(format!("--format={form}")).arg("-cf").arg(ova).args(files);
    must(&mut command);
}

/// Writes the manifest of these files.
pub fn manifest(dir: &Path, name: &str, algorithm: &str, files: &[&str]) {
    let mut text = String::new();
    for file in files {
        let tool = format!("{}sum", algorithm.to_lowercase());
        let sum = must(Command::new(tool).arg(dir.join(file)));
        let sum = sum.split_whitespace().next().unwrap_or_default().to_owned();
        let _ = writeln!(text, "{algorithm}({file})= {sum}");
    }
    fs::write(dir.join(name), text).unwrap();
}

/// nginx with a certificate of a CA of its own; ends when dropped. Below `/private/` it wants [`USER`] and [`PASSWORD`], and
/// below `/whole/` it serves no ranges; below `/moved/` it leads to the file, and below `/bucket/` it denies what is not there, as
/// an object store does. All show what is in [`Web::dir`].
#[derive(Debug)]
pub struct Web {
    top: TempDir,
    child: Child,
    /// On every address of this machine.
    pub port: u16,
}

impl Web {
    /// Starts one on this port.
    pub fn start(port: u16) -> Self {
        let top = tempfile::Builder::new().prefix("v2v-web.").tempdir_in("/var/tmp").unwrap();
        let at = |name: &str| top.path().join(name);
        fs::create_dir(at("files")).unwrap();
        let root = Identity::self_signed(&Spec::authority("OVA root"));
        fs::write(at("ca.pem"), root.pem()).unwrap();
        let names = Spec { ips: &["127.0.0.1"], ..Spec::server(&["localhost"]) };
        let server = root.issue(&names).write(top.path(), "server");
        fs::write(at("users"), format!("{USER}:{{PLAIN}}{PASSWORD}\n")).unwrap();
        let mut temporary = String::new();
        for name in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            let _ = writeln!(temporary, "{name}_temp_path {};", at(name).display());
        }
        let files = at("files");
        let files = files.display();
        let config = format!(
            "daemon off;\nmaster_process off;\npid {pid};\nerror_log {errors};\nevents {{}}\n\
             http {{\n{temporary}log_format plain '$status $body_bytes_sent $request';\naccess_log {log} plain;\n\
             server {{\nlisten {port} ssl;\nssl_certificate {certificate};\nssl_certificate_key {key};\n\
             location / {{ root {files}; }}\n\
             location /private/ {{ alias {files}/; auth_basic x; auth_basic_user_file {users}; }}\n\
             location /whole/ {{ alias {files}/; max_ranges 0; }}\n\
             location /moved/ {{ rewrite ^/moved/(.*)$ /$1 redirect; }}\n\
             location /bucket/ {{ alias {files}/; error_page 404 = @denied; }}\n\
             location @denied {{ return 403; }}\n}}\n}}\n",
            pid = at("pid").display(),
            errors = at("errors").display(),
            log = at("log").display(),
            certificate = server.certificate.display(),
            key = server.key.display(),
            users = at("users").display(),
        );
        fs::write(at("nginx.conf"), config).unwrap();
        let child = Command::new("nginx")
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .arg("-c")
            .arg(at("nginx.conf"))
            .stdin(Stdio::null())
            .stderr(fs::File::create(at("stderr")).unwrap())
            .spawn()
            .unwrap_or_else(|e| panic!("nginx: {e}; run scripts/install-deps.sh lab"));
        let mut web = Self { top, child, port };
        let begin = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = web.child.try_wait().unwrap().is_some();
            let said = fs::read_to_string(web.top.path().join("stderr")).unwrap_or_default();
            assert!(!ended && begin.elapsed() < Duration::from_secs(20), "nginx: {said}");
            std::thread::sleep(Duration::from_millis(20));
        }
        web
    }

    /// Starts one on any port.
    pub fn anywhere() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self::start(port)
    }

    /// What it serves.
    pub fn dir(&self) -> PathBuf {
        self.top.path().join("files")
    }

    /// The certificate of its CA.
    pub fn ca(&self) -> PathBuf {
        self.top.path().join("ca.pem")
    }

    /// Its own certificate.
    pub fn certificate(&self) -> PathBuf {
        self.top.path().join("server.crt")
    }

    /// The address of a file.
    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}/{path}", self.port)
    }

    /// Bytes of content that it has sent so far for what has this in its path.
    pub fn sent(&self, path: &str) -> u64 {
        let log = fs::read_to_string(self.top.path().join("log")).unwrap_or_default();
        let lines = log.lines().filter(|l| l.contains(path));
        lines.filter_map(|l| l.split(' ').nth(1)?.parse::<u64>().ok()).sum()
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

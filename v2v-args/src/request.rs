//! The requests and their argument lists (without the program's own name).

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Keys for encrypted guests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Keys {
    /// None given.
    #[default]
    None,
    /// Ask the network-bound servers that the guest is enrolled with.
    Clevis,
    /// One passphrase per file.
    Files(Vec<PathBuf>),
}

/// Options that all the tools share.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Common {
    /// `--root`: `first`, or a device of the guest.
    pub root: String,
    /// `--memsize` in MB.
    pub memsize_mb: Option<u32>,
    /// `--smp`.
    pub smp: Option<u32>,
    /// `--mac`, once per entry.
    pub macs: Vec<String>,
    /// `--key`.
    pub keys: Keys,
}

/// VDDK as the transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vddk {
    /// Folder that holds `lib64/libvixDiskLib.so*`.
    pub libdir: PathBuf,
    /// SHA-1 thumbprint of the server; left out when unknown, an empty one would be taken as given.
    pub thumbprint: Option<String>,
    /// VDDK's own configuration file.
    pub config: Option<PathBuf>,
    /// Ways of reading that VDDK may use, `file:nbdssl:nbd`.
    pub transports: Option<String>,
    /// HTTPS port of the server, where it is not 443.
    pub port: Option<u16>,
}

/// A guest that libvirt knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibvirtInput {
    /// `-ic`.
    pub url: String,
    /// `-ip`: file with the password in its first line.
    pub password_file: Option<PathBuf>,
    /// Name of the guest.
    pub vm: String,
    /// `--hostname` to set in the guest.
    pub hostname: Option<String>,
    /// VDDK instead of the default transport.
    pub vddk: Option<Vddk>,
}

/// Where the guest comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// `-i libvirt`.
    Libvirt(LibvirtInput),
    /// `-i ova`.
    Ova(PathBuf),
    /// `-i disk`, all of one format; without a format virt-v2v probes.
    Disks {
        /// `-if`.
        format: Option<String>,
        /// Absolute paths.
        paths: Vec<PathBuf>,
    },
    /// `-i libvirtxml`.
    LibvirtXml(PathBuf),
}

/// `-o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputMode {
    /// Disks and a libvirt XML.
    Local,
    /// Disks and a KubeVirt YAML.
    Kubevirt,
}

/// Where the result goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Kind of metadata written beside the disks.
    pub mode: OutputMode,
    /// Folder with the links.
    pub dir: PathBuf,
    /// `-on`; the source's own name when absent.
    pub name: Option<String>,
}

/// A run of virt-v2v.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Convert {
    /// Source.
    pub input: Input,
    /// Target.
    pub output: Output,
    /// Shared options; Forklift gives none to OVA sources.
    pub common: Option<Common>,
    /// Verbatim further options.
    pub extra: Vec<String>,
    /// `-v -x`: debugging output of virt-v2v, nbdkit and the appliance. Costs a few per cent.
    pub verbose: bool,
    /// Descriptor for the JSON messages.
    pub machine_readable_fd: Option<i32>,
}

/// Source of an in-place conversion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InPlaceInput {
    /// A domain whose disks are the links.
    LibvirtXml(PathBuf),
    /// The links alone. `raw` tells that they are the volumes themselves: the format is then given,
    /// a guest must not choose it by what it wrote into its first sector.
    Disks {
        /// The links, in disk order.
        links: Vec<PathBuf>,
        /// The links point at raw volumes, not at overlays of ours.
        raw: bool,
    },
}

/// A run of virt-v2v-in-place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InPlace {
    /// Source and target.
    pub input: InPlaceInput,
    /// Shared options.
    pub common: Common,
    /// `--no-fstrim`.
    pub no_fstrim: bool,
    /// Verbatim further options.
    pub extra: Vec<String>,
    /// Descriptor for the JSON messages.
    pub machine_readable_fd: Option<i32>,
}

/// A run of virt-v2v-inspector on the converted volumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspect {
    /// `-O`.
    pub output: PathBuf,
    /// The links, in disk order.
    pub links: Vec<PathBuf>,
    /// Shared options.
    pub common: Common,
    /// `--no-fstrim`.
    pub no_fstrim: bool,
    /// Verbatim further options.
    pub extra: Vec<String>,
    /// Descriptor for the JSON messages.
    pub machine_readable_fd: Option<i32>,
}

/// A run of virt-v2v-inspector on the source itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteInspect {
    /// The guest.
    pub source: LibvirtInput,
    /// VMDK paths, one per disk.
    pub disks: Vec<String>,
    /// Shared options.
    pub common: Common,
    /// `--no-fstrim`.
    pub no_fstrim: bool,
    /// Verbatim further options, placed before the guest's name.
    pub extra: Vec<String>,
    /// Descriptor for the JSON messages.
    pub machine_readable_fd: Option<i32>,
}

/// An argument list under construction.
struct Argv(Vec<OsString>);

impl Argv {
    /// Begins with `-v -x`, as Forklift's pod does: the log is what remains of a failed run.
    fn verbose(machine_readable_fd: Option<i32>) -> Self {
        let mut argv = Self::quiet(machine_readable_fd);
        argv.0.splice(0..0, ["-v".into(), "-x".into()]);
        argv
    }

    fn quiet(machine_readable_fd: Option<i32>) -> Self {
        let mut argv = Self(Vec::new());
        if let Some(fd) = machine_readable_fd {
            argv.word(format!("--machine-readable=fd:{fd}"));
        }
        argv
    }

    fn word(&mut self, word: impl AsRef<OsStr>) {
        self.0.push(word.as_ref().to_owned());
    }

    fn words<T: AsRef<OsStr>>(&mut self, words: impl IntoIterator<Item = T>) {
        self.0.extend(words.into_iter().map(|w| w.as_ref().to_owned()));
    }

    fn option(&mut self, name: &str, value: impl AsRef<OsStr>) {
        self.word(name);
        self.word(value);
    }

    /// `NAME KEY=PATH`, for paths of any bytes.
    fn key_path(&mut self, name: &str, key: &str, path: &Path) {
        let mut value = OsString::from(key);
        value.push(path);
        self.option(name, value);
    }

    fn common(&mut self, common: &Common) {
        self.option("--root", &common.root);
        if let Some(mb) = common.memsize_mb {
            self.option("--memsize", mb.to_string());
        }
        if let Some(n) = common.smp {
            self.option("--smp", n.to_string());
        }
        for mac in &common.macs {
            self.option("--mac", mac);
        }
        match &common.keys {
            Keys::None => {}
            Keys::Clevis => self.option("--key", "all:clevis"),
            Keys::Files(files) => {
                for file in files {
                    self.key_path("--key", "all:file:", file);
                }
            }
        }
    }

    fn libvirt(&mut self, source: &LibvirtInput) {
        self.option("-i", "libvirt");
        self.option("-ic", &source.url);
        if let Some(file) = &source.password_file {
            self.option("-ip", file);
        }
        if let Some(hostname) = &source.hostname {
            self.option("--hostname", hostname);
        }
    }

    fn vddk(&mut self, vddk: &Vddk) {
        self.option("-it", "vddk");
        self.key_path("-io", "vddk-libdir=", &vddk.libdir);
        if let Some(thumbprint) = &vddk.thumbprint {
            self.option("-io", format!("vddk-thumbprint={thumbprint}"));
        }
        if let Some(config) = &vddk.config {
            self.key_path("-io", "vddk-config=", config);
        }
        if let Some(transports) = &vddk.transports {
            self.option("-io", format!("vddk-transports={transports}"));
        }
        if let Some(port) = vddk.port {
            self.option("-io", format!("vddk-port={port}"));
        }
    }

    fn no_fstrim(&mut self, wanted: bool) {
        if wanted {
            self.word("--no-fstrim");
        }
    }
}

impl Convert {
    /// Arguments for `virt-v2v`.
    pub fn argv(&self) -> Vec<OsString> {
        let begin = if self.verbose { Argv::verbose } else { Argv::quiet };
        let mut argv = begin(self.machine_readable_fd);
        let mode = match self.output.mode {
            OutputMode::Local => "local",
            OutputMode::Kubevirt => "kubevirt",
        };
        argv.option("-o", mode);
        argv.option("-os", &self.output.dir);
        if let Some(name) = &self.output.name {
            argv.option("-on", name);
        }
        match &self.input {
            Input::Libvirt(source) => argv.libvirt(source),
            Input::Ova(_) => argv.option("-i", "ova"),
            Input::LibvirtXml(_) => argv.option("-i", "libvirtxml"),
            Input::Disks { format, .. } => {
                argv.option("-i", "disk");
                if let Some(format) = format {
                    argv.option("-if", format);
                }
            }
        }
        if let Some(common) = &self.common {
            argv.common(common);
        }
        argv.words(&self.extra);
        match &self.input {
            Input::Libvirt(source) => {
                if let Some(vddk) = &source.vddk {
                    argv.vddk(vddk);
                }
                argv.option("--", &source.vm);
            }
            Input::Ova(path) | Input::LibvirtXml(path) => argv.word(path),
            Input::Disks { paths, .. } => argv.words(paths),
        }
        argv.0
    }
}

impl InPlace {
    /// Arguments for `virt-v2v-in-place`.
    pub fn argv(&self) -> Vec<OsString> {
        let mut argv = Argv::verbose(self.machine_readable_fd);
        match &self.input {
            InPlaceInput::LibvirtXml(_) => argv.option("-i", "libvirtxml"),
            InPlaceInput::Disks { raw, .. } => {
                argv.option("-i", "disk");
                if *raw {
                    argv.option("-if", "raw");
                }
            }
        }
        argv.common(&self.common);
        argv.no_fstrim(self.no_fstrim);
        argv.words(&self.extra);
        match &self.input {
            InPlaceInput::LibvirtXml(path) => argv.word(path),
            InPlaceInput::Disks { links, .. } => argv.words(links),
        }
        argv.0
    }
}

impl Inspect {
    /// Arguments for `virt-v2v-inspector`.
    pub fn argv(&self) -> Vec<OsString> {
        let mut argv = Argv::verbose(self.machine_readable_fd);
        argv.option("-if", "raw");
        argv.option("-i", "disk");
        argv.option("-O", &self.output);
        argv.common(&self.common);
        argv.no_fstrim(self.no_fstrim);
        argv.words(&self.extra);
        argv.words(&self.links);
        argv.0
    }
}

impl RemoteInspect {
    /// Arguments for `virt-v2v-inspector`.
    pub fn argv(&self) -> Vec<OsString> {
        let mut argv = Argv::verbose(self.machine_readable_fd);
        for disk in &self.disks {
            argv.option("-io", format!("vddk-file={disk}"));
        }
        argv.libvirt(&self.source);
        argv.common(&self.common);
        if let Some(vddk) = &self.source.vddk {
            argv.vddk(vddk);
        }
        argv.no_fstrim(self.no_fstrim);
        argv.words(&self.extra);
        argv.option("--", &self.source.vm);
        argv.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(argv: &[OsString]) -> Vec<&str> {
        argv.iter().map(|a| a.to_str().unwrap()).collect()
    }

    fn vsphere(vddk: Option<Vddk>) -> LibvirtInput {
        LibvirtInput {
            url: "vpx://u@h/DC/esx?no_verify=1".into(),
            password_file: Some("/etc/secret/secretKey".into()),
            vm: "-rf".into(),
            hostname: None,
            vddk,
        }
    }

    fn common() -> Common {
        Common { root: "first".into(), ..Common::default() }
    }

    #[test]
    fn a_guest_named_like_an_option_stays_a_name() {
        let argv = Convert {
            input: Input::Libvirt(vsphere(None)),
            output: Output { mode: OutputMode::Kubevirt, dir: "/w".into(), name: Some("n".into()) },
            common: Some(common()),
            extra: vec!["--parallel".into(), "2".into()],
            verbose: true,
            machine_readable_fd: Some(3),
        }
        .argv();
        assert_eq!(
            strings(&argv),
            [
                "-v",
                "-x",
                "--machine-readable=fd:3",
                "-o",
                "kubevirt",
                "-os",
                "/w",
                "-on",
                "n",
                "-i",
                "libvirt",
                "-ic",
                "vpx://u@h/DC/esx?no_verify=1",
                "-ip",
                "/etc/secret/secretKey",
                "--root",
                "first",
                "--parallel",
                "2",
                "--",
                "-rf"
            ]
        );
    }

    #[test]
    fn an_unknown_thumbprint_is_left_out() {
        let vddk = Vddk {
            libdir: "/opt/v".into(),
            thumbprint: None,
            config: Some("/c".into()),
            transports: Some("nbd".into()),
            port: Some(8443),
        };
        let argv = RemoteInspect {
            source: vsphere(Some(vddk)),
            disks: vec!["[ds 1] a b.vmdk".into()],
            common: common(),
            no_fstrim: true,
            extra: vec!["--insp".into()],
            machine_readable_fd: None,
        }
        .argv();
        let argv = strings(&argv);
        assert!(!argv.iter().any(|a| a.contains("thumbprint")));
        assert_eq!(argv[argv.len() - 3..], ["--insp", "--", "-rf"]);
        assert!(argv.contains(&"vddk-file=[ds 1] a b.vmdk"));
    }

    #[test]
    fn raw_volumes_are_never_probed() {
        let disks = |raw| InPlace {
            input: InPlaceInput::Disks { links: vec!["/w/x-sda".into()], raw },
            common: common(),
            no_fstrim: false,
            extra: vec![],
            machine_readable_fd: None,
        };
        assert_eq!(
            strings(&disks(true).argv()),
            ["-v", "-x", "-i", "disk", "-if", "raw", "--root", "first", "/w/x-sda"]
        );
        assert!(!strings(&disks(false).argv()).contains(&"-if"));
    }

    #[test]
    fn keys_and_sizes_come_in_order() {
        let common = Common {
            root: "/dev/sda2".into(),
            memsize_mb: Some(8192),
            smp: Some(8),
            macs: vec!["m1".into(), "m2".into()],
            keys: Keys::Files(vec!["/etc/luks/k1".into(), "/etc/luks/k2".into()]),
        };
        let argv = Inspect {
            output: "/w/i.xml".into(),
            links: vec!["/w/x-sda".into(), "/w/x-sdb".into()],
            common,
            no_fstrim: true,
            extra: vec![],
            machine_readable_fd: None,
        }
        .argv();
        assert_eq!(
            strings(&argv)[8..],
            [
                "--root",
                "/dev/sda2",
                "--memsize",
                "8192",
                "--smp",
                "8",
                "--mac",
                "m1",
                "--mac",
                "m2",
                "--key",
                "all:file:/etc/luks/k1",
                "--key",
                "all:file:/etc/luks/k2",
                "--no-fstrim",
                "/w/x-sda",
                "/w/x-sdb"
            ]
        );
    }
}

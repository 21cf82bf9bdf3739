//! The command line: subcommands for people, and everything else as pod mode.

use crate::bench::BenchCommand;
use crate::config::pod::{LogFormat, SOURCE_RETRIES, log_format};
use crate::config::settings::SETTINGS;
use crate::copy::args::{COPY_HELP, CopyArgs};
use crate::copy::rate::RateArgs;
use crate::grant::{Copier, CopySettings};
use crate::guest::image::ImageFormat;
use crate::ova::Verify;
use crate::trust::Fingerprint;
use crate::trust::command::{THUMBPRINT_HELP, ThumbprintArgs};
use crate::vddk::command::VddkCommand;
use crate::vsphere::access::TrustMode;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use std::fmt::Write as _;
use std::num::NonZeroU32;
use std::path::PathBuf;

const ABOUT: &str =
    "Converts a VM into a guest that boots from Kubernetes volumes, by supervising virt-v2v.";

const LONG_ABOUT: &str = "\
Converts a VM into a guest that boots from Kubernetes volumes, by supervising virt-v2v.

Without a subcommand it is the entrypoint of a conversion pod: everything comes from the
environment (the contract of Forklift's virt-v2v image; see docs/contract.md).

Examples:
  v2v-pod convert -i disk web.qcow2 --to /srv/out
      convert an image into the folder /srv/out
  v2v-pod convert -i disk boot.img data.img --to /dev/vg/boot /mnt/disks/disk1
      two disks, onto a block device and a filesystem volume
  v2v-pod copy nbd://server/disk /dev/vg/disk --verify
      copy a disk as it is, and compare
  v2v-pod preflight
      check this pod or machine: volumes, secrets, tools, appliance, KVM
  v2v-pod source -source ova -vm-name web -disk-path web.ova
      show the disks and NICs of a guest, as JSON
  v2v-pod thumbprint vcenter.example.com
      show the server's certificate, and whether it verifies
  V2V_source=ova V2V_vmName=web V2V_diskPath=/ova/web.ova v2v-pod
      pod mode, onto /dev/block0 … or /mnt/disks/disk0 …";

/// What the user wants.
#[derive(Debug)]
pub enum Invocation {
    /// Pod mode with these flags.
    Pod(Vec<String>),
    /// A subcommand.
    Command(Command),
}

#[derive(Debug, Parser)]
#[command(name = "v2v-pod", version, about = ABOUT, long_about = LONG_ABOUT, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Convert a guest here and now, onto a folder or devices
    #[command(long_about = CONVERT_HELP)]
    Convert(Box<ConvertArgs>),
    /// Copy disks, quickly and resumably, without converting anything
    #[command(long_about = COPY_HELP)]
    Copy(Box<CopyArgs>),
    /// Find everything that would make a conversion fail, all at once
    #[command(long_about = PREFLIGHT_HELP)]
    Preflight {
        /// Print the findings as JSON
        #[arg(long)]
        json: bool,
    },
    /// Say what the guest of a pod's settings is: its disks and NICs, as JSON
    #[command(long_about = SOURCE_HELP)]
    Source(SourceArgs),
    /// Look at VMware's VDDK: is it usable here?
    #[command(subcommand)]
    Vddk(VddkCommand),
    /// Measure what a site's network and servers are good for
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Show the certificate of vCenter or an ESXi host, and whether it verifies
    #[command(long_about = THUMBPRINT_HELP)]
    Thumbprint(ThumbprintArgs),
}

const PREFLIGHT_HELP: &str = "\
Finds everything that would make a conversion fail, all at once, each with what to do: volumes
present, opened and large enough; free temporary space; secret files; tools and their features; the
libguestfs appliance is started; KVM is tried by running a virtual machine with it.

In a pod (V2V_source or V2V_inPlace set) it checks for that job, elsewhere the machine alone.
Exits with 0 when there is no problem, else with the code of the first one.

Examples:
  v2v-pod preflight
  v2v-pod preflight --json | jq '.findings[] | select(.verdict == \"problem\")'";

const SOURCE_HELP: &str = "\
Says what the guest of a pod's settings is, before there are volumes for it: its disks and NICs in
virt-v2v's order, as one JSON document. The settings are those of pod mode (`v2v-pod --help`), by
environment or flag; the source (ova, hyperv or xen) is opened with the checks of a conversion. A
disk that is compressed is unpacked for it in TMPDIR (/var/tmp).

The same goes as one line to /dev/termination-log (V2V_terminationLog), or why it failed: this is
how a controller asks. The exit codes are those of pod mode.

Examples:
  V2V_source=ova V2V_vmName=web V2V_diskPath=/ova/web.ova v2v-pod source
  v2v-pod source -source hyperv -vm-name web -disk-path /disks/boot.vhdx,/disks/data.vhdx
  v2v-pod source -source xen -vm-name web -libvirt-url xen+ssh://root@xen1/ -secret-key secret/secretKey
  v2v-pod source -source ova -vm-name web -disk-path web.ova | jq '[.disks[].bytes] | add'";

/// `v2v-pod source`.
#[derive(Debug, Args)]
pub struct SourceArgs {
    /// Settings of pod mode, such as -source ova
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "-FLAG VALUE")]
    pub flags: Vec<String>,
}

const CONVERT_HELP: &str = "\
Converts a guest with virt-v2v onto a folder, devices or image files. The source is only read.

Targets (--to), in the order of the source's disks:
  a folder, given once    each disk becomes FOLDER/NAME-sda, FOLDER/NAME-sdb …
  one target for each disk  a block device; an image file; or a folder, which gets disk.img

Beside the disks the result has NAME.yaml (a KubeVirt VirtualMachine), NAME.xml (libvirt) and
NAME.log (all that virt-v2v said); they go to the first folder of --to, or to --out.

Examples:
  v2v-pod convert -i disk web.qcow2 --to /srv/out
  v2v-pod convert -i disk boot.img data.img --to /dev/vg/boot /mnt/disks/disk1 --name web
  v2v-pod convert -i ova appliance.ova --to /srv/out
  v2v-pod convert -i ova https://me@files.example.com/web.ova -ip password.txt --to /srv/out
  v2v-pod convert -i libvirt -ic vpx://admin@vcenter/DC/esx1 -ip password.txt web --to /srv/out
  v2v-pod convert -i libvirt -ic xen+ssh://root@xen1/ --identity id_ed25519 --known-hosts known_hosts web --to /srv/out
  v2v-pod convert -i libvirtxml web.xml --to /srv/out";

/// Kind of source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InputKind {
    /// Disk images or devices
    Disk,
    /// An OVA: a file, a folder, or an http(s) URL
    Ova,
    /// A guest of the libvirt at -ic
    Libvirt,
    /// A libvirt domain XML file
    Libvirtxml,
}

/// Metadata of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputKind {
    /// libvirt XML by virt-v2v, KubeVirt YAML by v2v-pod
    Local,
    /// KubeVirt YAML by virt-v2v
    Kubevirt,
}

/// `v2v-pod convert`.
#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools)] // flags
pub struct ConvertArgs {
    /// Kind of source
    #[arg(short = 'i', value_name = "KIND", default_value = "disk")]
    pub input: InputKind,
    /// Source: disks, the OVA, the guest's name, or the XML file
    #[arg(required = true, value_name = "SOURCE")]
    pub sources: Vec<String>,
    /// Targets: a folder, or one device, image file or folder for each disk
    #[arg(long, required = true, num_args = 1.., value_name = "DIR|DEVICE")]
    pub to: Vec<PathBuf>,
    /// Name of the converted guest (default: from the source)
    #[arg(
        long,
        value_name = "NAME",
        help = "Name of the converted guest (default: from the source) [also: -on]"
    )]
    pub name: Option<String>,
    /// Format of the source disks: raw, qcow2, vmdk, vhdx, vpc or vdi (default: probed safely)
    #[arg(
        long,
        value_name = "FORMAT",
        help = "Format of the source disks: raw, qcow2, vmdk, vhdx, vpc, vdi (default: probed) [also: -if]"
    )]
    pub format: Option<ImageFormat>,
    /// Accept source images that refer to other files (backing files, extents elsewhere)
    #[arg(long)]
    pub allow_backing: bool,
    /// Accept image files whose virtual size is larger than the room on their file system
    #[arg(long)]
    pub thin: bool,
    /// Compare an OVA with the checksums of its manifest
    #[arg(long, value_enum, default_value = "auto", value_name = "WHEN")]
    pub ova_verify: Verify,
    /// libvirt URL of the source [also: -ic]
    #[arg(long = "ic", value_name = "URL")]
    pub libvirt_url: Option<String>,
    /// File with the password in its first line [also: -ip]
    #[arg(long = "ip", visible_alias = "password-file", value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Reference of the VM (vm-21), where several have its name
    #[arg(long, value_name = "MOREF")]
    pub moref: Option<String>,
    /// Over HTTPS: seconds after which the session at the server is begun anew (virt-v2v: 1500)
    #[arg(long, value_name = "SECONDS")]
    pub cookie_renew: Option<NonZeroU32>,
    /// Transport: vddk or ssh [also: -it]
    #[arg(long = "it", value_name = "TRANSPORT")]
    pub transport: Option<String>,
    /// Option of the transport, may be repeated [also: -io]
    #[arg(long = "io", value_name = "KEY=VALUE")]
    pub transport_options: Vec<String>,
    /// Metadata of the result
    #[arg(short = 'o', value_name = "KIND", default_value = "local")]
    pub output: OutputKind,
    /// Folder for the metadata (default: the first folder of --to, else the current one)
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Also run virt-v2v-inspector on the result; takes about as long as the conversion again
    #[arg(long)]
    pub inspect: bool,
    /// PVC name for a disk in the YAML, once for each disk (default: NAME-disk-0 …)
    #[arg(long = "claim", value_name = "NAME")]
    pub claims: Vec<String>,
    /// Root file system to convert: first, single, or a device of the guest
    #[arg(long, default_value = "first", value_name = "ROOT")]
    pub root: String,
    /// Static address or network of a NIC, may be repeated (virt-v2v --mac)
    #[arg(long, value_name = "MAC:…")]
    pub mac: Vec<String>,
    /// Who copies the disks: v2v-pod, or libnbd's nbdcopy
    #[arg(long, value_enum, default_value = "v2v-pod", value_name = "COPIER")]
    pub copier: Copier,
    /// Bandwidth.
    #[command(flatten)]
    pub rate: RateArgs,
    /// Read the targets back and compare them with what was read
    #[arg(long)]
    pub verify: bool,
    /// How a vCenter, ESXi or Xen host or a web server proves itself (Xen: ca means --known-hosts)
    #[arg(long, value_enum, default_value = "auto", value_name = "MODE")]
    pub trust: TrustMode,
    /// CA certificates for it (default: the system's)
    #[arg(long, value_name = "FILE")]
    pub cacert: Option<PathBuf>,
    /// SHA-1 or SHA-256 thumbprint of its certificate; of a Xen host's key SHA256:…
    #[arg(long, value_name = "AA:BB:…")]
    pub thumbprint: Option<Fingerprint>,
    /// Host keys that a Xen host may have
    #[arg(long, value_name = "FILE")]
    pub known_hosts: Option<PathBuf>,
    /// Private key for a Xen host
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// Also the SHA-1 algorithms of an old Xen host's sshd
    #[arg(long)]
    pub ssh_legacy: bool,
    /// New starts of virt-v2v after a failure of the source that may pass
    #[arg(long, default_value_t = SOURCE_RETRIES, value_name = "NUMBER")]
    pub source_retries: u32,
    /// Files with passphrases of encrypted disks
    #[arg(long = "key-file", value_name = "FILE")]
    pub key_files: Vec<PathBuf>,
    /// Log: auto, json, human or plain
    #[arg(long, default_value = "auto", value_name = "FORMAT", value_parser = parse_log_format)]
    pub log_format: LogFormat,
    /// Let virt-v2v trace what it does, and show everything it prints
    #[arg(long, short)]
    pub verbose: bool,
    /// Port for the live page; 0 is off
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    pub live_port: u16,
    /// Port for Prometheus metrics; 0 is off
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    pub metrics_port: u16,
    /// Seconds between SIGTERM and SIGKILL of the tools
    #[arg(long, default_value_t = 20, value_name = "SECONDS")]
    pub grace: u16,
    /// Further options for virt-v2v
    #[arg(last = true, value_name = "VIRT-V2V-OPTION")]
    pub extra: Vec<String>,
}

impl ConvertArgs {
    /// How the disks are copied.
    pub fn copy_settings(&self) -> CopySettings {
        CopySettings { copier: self.copier, rate: self.rate.source(), verify: self.verify }
    }
}

fn parse_log_format(text: &str) -> Result<LogFormat, String> {
    log_format(text).ok_or_else(|| "it must be auto, json, human or plain".to_owned())
}

/// Decides what the arguments (without the program) mean. Errors and help are clap's.
pub fn parse(args: &[String]) -> Result<Invocation, clap::Error> {
    let for_people = args.first().is_some_and(|first| {
        matches!(first.as_str(), "help" | "-h" | "-help" | "--help" | "-V" | "--version")
            || !first.starts_with('-')
    });
    if !for_people {
        return Ok(Invocation::Pod(args.to_vec()));
    }
    let mut words = vec!["v2v-pod".to_owned()];
    match args {
        // Flags of pod mode have a syntax of their own.
        [first, flags @ ..] if first == "source" => {
            let is_help = |flag: &String| matches!(flag.as_str(), "-h" | "-help" | "--help");
            if !flags.iter().any(is_help) {
                let flags = flags.to_vec();
                return Ok(Invocation::Command(Command::Source(SourceArgs { flags })));
            }
            words.extend([first.clone(), "--help".to_owned()]);
        }
        _ => words.extend(args.iter().map(|a| virt_v2v_spelling(a))),
    }
    let matches = Cli::command().after_long_help(settings_help()).try_get_matches_from(words)?;
    Cli::from_arg_matches(&matches).map(|cli| Invocation::Command(cli.command))
}

/// virt-v2v writes long options with one dash; the ones shared with it are accepted like that.
fn virt_v2v_spelling(arg: &str) -> String {
    match arg {
        "-ic" | "-ip" | "-it" | "-io" => format!("-{arg}"),
        "-if" => "--format".to_owned(),
        "-on" => "--name".to_owned(),
        "-help" => "--help".to_owned(),
        other => other.to_owned(),
    }
}

/// The settings of pod mode, for `--help`.
fn settings_help() -> String {
    let mut text = String::from("Settings of pod mode (environment variable, flag):\n");
    for s in SETTINGS {
        let flag = if s.flag.is_empty() { String::new() } else { format!("--{}", s.flag) };
        let _ = writeln!(text, "  {:<34} {flag}\n      {}", s.env, s.help);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Result<Invocation, clap::Error> {
        parse(&args.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>())
    }

    fn convert(args: &[&str]) -> ConvertArgs {
        match parsed(args).unwrap() {
            Invocation::Command(Command::Convert(c)) => *c,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_alone_are_pod_mode() {
        assert!(matches!(parsed(&[]), Ok(Invocation::Pod(a)) if a.is_empty()));
        assert!(matches!(parsed(&["-vm-name", "x"]), Ok(Invocation::Pod(a)) if a.len() == 2));
        assert!(parsed(&["nonsense"]).is_err());
        let source = parsed(&["source", "-vm-name", "x", "--source=ova"]);
        assert!(
            matches!(source, Ok(Invocation::Command(Command::Source(s))) if s.flags.len() == 3)
        );
    }

    #[test]
    fn targets_follow_sources() {
        let c = convert(&[
            "convert",
            "-i",
            "disk",
            "a.img",
            "b.img",
            "--to",
            "/dev/x",
            "/mnt/d",
            "-on",
            "n",
            "-if",
            "raw",
            "--",
            "--parallel",
            "2",
        ]);
        assert_eq!((c.sources.len(), c.to.len(), c.name.as_deref()), (2, 2, Some("n")));
        assert_eq!((c.format, c.extra.len()), (Some(ImageFormat::Raw), 2));
        let c = convert(&[
            "convert",
            "-i",
            "libvirt",
            "-ic",
            "qemu:///system",
            "vm",
            "--to",
            "/out",
            "--to",
            "/out2",
        ]);
        assert_eq!((c.libvirt_url.as_deref(), c.to.len()), (Some("qemu:///system"), 2));
    }

    #[test]
    fn help_teaches_at_each_level() {
        for args in [
            &["--help"][..],
            &["convert", "--help"],
            &["copy", "--help"],
            &["preflight", "--help"],
            &["source", "--help"],
            &["source", "-source", "ova", "-help"],
            &["thumbprint", "--help"],
            &["bench", "transports", "--help"],
        ] {
            let text = parsed(args).unwrap_err().to_string();
            assert!(text.contains("Examples:"), "{text}");
        }
        assert!(parsed(&["--help"]).unwrap_err().to_string().contains("V2V_libvirtURL"));
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }
}

//! The settings of pod mode by name: environment variable, flag, kind and help.
//!
//! One table feeds parsing, `--help` and the check of `docs/contract.md`.

use super::ConfigError;
use super::goflags;
use std::collections::BTreeMap;

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// Go's `strconv.ParseBool`.
    Bool,
}

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Environment variable; empty when there is only a flag.
    pub env: &'static str,
    /// Flag, without dashes; empty when there is only a variable.
    pub flag: &'static str,
    /// How its value is written.
    pub kind: Kind,
    /// One line for `--help`.
    pub help: &'static str,
}

const fn text(env: &'static str, flag: &'static str, help: &'static str) -> Setting {
    Setting { env, flag, kind: Kind::Text, help }
}

const fn boolean(env: &'static str, flag: &'static str, help: &'static str) -> Setting {
    Setting { env, flag, kind: Kind::Bool, help }
}

/// Every setting of pod mode. The first block is Forklift's, the second is ours.
pub const SETTINGS: &[Setting] = &[
    text("V2V_source", "source", "vSphere, ova, hyperv or xen"),
    text("V2V_vmName", "vm-name", "name of the VM at the source"),
    text("V2V_NewName", "new-vm-name", "name of the converted VM (RFC 1123)"),
    text("V2V_libvirtURL", "libvirt-url", "vpx://…, esx://… or xen+ssh://… of the source"),
    text(
        "V2V_fingerprint",
        "fingerprint",
        "thumbprint of the server (xen: SHA256:… of the host key)",
    ),
    text(
        "V2V_diskPath",
        "disk-path",
        "ova: path or URL of the OVA; hyperv: disks, separated by commas",
    ),
    boolean("V2V_inPlace", "in-place", "convert disks that are already on the volumes"),
    text("V2V_RootDisk", "root-disk", "root file system to convert (default: first)"),
    text("V2V_staticIPs", "static-ips", "MAC:ip:IP,GATEWAY,PREFIX[,DNS…], joined by _"),
    text(
        "V2V_multipleIPsPerNic",
        "multiple-ips-per-nic",
        "accepted; guest customisation is not built",
    ),
    text("V2V_HOSTNAME", "hostname", "host name to set in the guest (vSphere)"),
    boolean("V2V_NBDE_CLEVIS", "nbde-clevis", "unlock encrypted disks with clevis"),
    text("V2V_extra_args", "", "JSON array: further options for virt-v2v and virt-v2v-in-place"),
    text("V2V_inspector_extra_args", "", "JSON array: further options for virt-v2v-inspector"),
    text("V2V_memSize", "memsize", "memory of the appliance in MB"),
    text("V2V_smp", "smp", "virtual CPUs of the appliance"),
    boolean(
        "LOCAL_MIGRATION",
        "local-migration",
        "serve the result on :8080 until /shutdown (default: true)",
    ),
    boolean("V2V_remoteInspection", "remote-inspection", "only inspect the source"),
    text("VIRTIO_WIN", "virtio-win-legacy-drivers", "ISO with the Windows drivers"),
    boolean(
        "V2V_vsphereVmwareDriverRemoval",
        "vsphere-vmware-driver-removal",
        "accepted; guest customisation is not built",
    ),
    boolean(
        "V2V_windowsRegistryNetworkConfig",
        "windows-registry-network-config",
        "accepted; guest customisation is not built",
    ),
    boolean(
        "V2V_waitForGuestReboot",
        "wait-for-guest-reboot",
        "accepted; guest customisation is not built",
    ),
    boolean("V2V_xfsCompatibility", "xfs-compatibility", "never pass --no-fstrim"),
    boolean("V2V_xfsRepairIgnore", "", "let the appliance go on after xfs_repair fails"),
    boolean(
        "V2V_overlayEnabled",
        "overlay-enabled",
        "in place: convert on an overlay, commit on success (default: true)",
    ),
    text("", "access-key", "file with the user name (default: /etc/secret/accessKeyId)"),
    text("", "secret-key", "file with the password (default: /etc/secret/secretKey)"),
    text("", "luks-dir", "folder with passphrases (default: /etc/luks)"),
    text("", "dynamic-scripts-dir", "folder with guest scripts (default: /mnt/dynamic_scripts)"),
    text("", "work-dir", "folder for links and results (default: /var/tmp/v2v)"),
    text("", "vddk-lib-dir", "VDDK (default: /opt/vmware-vix-disklib-distrib)"),
    text("", "vddk-conf-file", "VDDK settings (default: /mnt/vddk-conf/vddk-config-file)"),
    text("", "inspection-output-file", "default: /var/tmp/v2v/inspection.xml"),
    text("", "libvirt-domain-file", "default: /tmp/input.xml"),
    text("V2V_output", "output", "ours: kubevirt (default) or local"),
    text(
        "V2V_claimNames",
        "claim-names",
        "ours: JSON array: PVC names for the VM made with V2V_output=local",
    ),
    text("V2V_logFormat", "log-format", "ours: auto (default), json, human or plain"),
    text(
        "V2V_terminationLog",
        "termination-log",
        "ours: where the failure goes (default: /dev/termination-log, if it exists)",
    ),
    text("V2V_metricsPort", "metrics-port", "ours: default 2112; 0 turns it off"),
    text("V2V_livePort", "live-port", "ours: progress page, default 2113; 0 turns it off"),
    text("V2V_resultPort", "result-port", "ours: default 8080"),
    text(
        "V2V_gracePeriod",
        "grace-period",
        "ours: seconds between SIGTERM and SIGKILL of the tools (default: 20)",
    ),
    text("V2V_copier", "copier", "ours: who copies the disks: v2v-pod (default) or nbdcopy"),
    text("V2V_rate", "rate", "ours: most bytes per second for all disks together, e.g. 200MiB/s"),
    text("V2V_rateFile", "rate-file", "ours: file with that rate, read again when it changes"),
    boolean("V2V_verifyCopy", "verify-copy", "ours: read the volumes back and compare"),
    text(
        "V2V_vmUUID",
        "vm-uuid",
        "ours: BIOS UUID of the VM, where several have its name (vSphere)",
    ),
    text(
        "V2V_vmMoref",
        "vm-moref",
        "ours: reference of the VM (vm-21), where several have its name; another is refused (vSphere)",
    ),
    text(
        "V2V_cookieRenew",
        "cookie-renew",
        "ours: seconds after which a session is begun anew over HTTPS (virt-v2v: 1500)",
    ),
    text(
        "V2V_ovaVerify",
        "ova-verify",
        "ours: compare with the manifest: auto (default), always or never (ova)",
    ),
    text("V2V_transport", "transport", "ours: auto (default), vddk or https, for vSphere"),
    text(
        "V2V_trust",
        "trust",
        "ours: auto (default), ca, thumbprint or insecure, for vSphere, xen and OVAs at https URLs",
    ),
    boolean("V2V_sshLegacy", "ssh-legacy", "ours: xen: also the SHA-1 algorithms of old hosts"),
    text(
        "V2V_sourceRetries",
        "source-retries",
        "ours: new starts after a failure of the source that may pass (default: 2)",
    ),
    boolean(
        "V2V_copyFirst",
        "copy-first",
        "ours: copy the disks first, then convert them on the volumes; a later try resumes the copy",
    ),
    text(
        "V2V_journalDir",
        "journal-dir",
        "ours: copy first: folder that outlives the pod, for the journals; default: the work folder",
    ),
    text("V2V_preflight", "preflight", "ours: quick (default) or full (also starts the appliance)"),
];

/// Go's `strconv.ParseBool`.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// The raw values: flags win over the environment, empty values count as absent.
#[derive(Debug, Clone, Default)]
pub struct Values {
    flags: BTreeMap<&'static str, String>,
    env: BTreeMap<String, String>,
}

impl Values {
    /// Takes the command line (without the program) and the environment.
    pub fn new(args: &[String], env: BTreeMap<String, String>) -> Result<Self, ConfigError> {
        Ok(Self { flags: goflags::parse(args)?, env })
    }

    /// The value of the setting with this variable or flag name.
    pub fn get(&self, name: &str) -> Option<&str> {
        let setting = SETTINGS.iter().find(|s| s.env == name || s.flag == name)?;
        let flag = self.flags.get(setting.flag).filter(|_| !setting.flag.is_empty());
        let env = self.env.get(setting.env).filter(|_| !setting.env.is_empty());
        flag.or(env).map(String::as_str).filter(|v| !v.is_empty())
    }

    /// Variables whose name starts with `prefix`, with the rest of the name.
    pub fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.env.iter().filter_map(move |(k, v)| Some((k.strip_prefix(prefix)?, v.as_str())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contract_documents_every_setting() {
        let contract = include_str!("../../../docs/contract.md");
        for s in SETTINGS {
            for name in [s.env, s.flag] {
                assert!(
                    contract.contains(&format!("`{name}`")) || name.is_empty(),
                    "docs/contract.md lacks `{name}`"
                );
            }
        }
    }

    #[test]
    fn a_flag_beats_the_variable_and_empty_is_absent() {
        let env = BTreeMap::from([
            ("V2V_vmName".to_owned(), "env".to_owned()),
            ("V2V_source".to_owned(), String::new()),
        ]);
        let values = Values::new(&["-vm-name".into(), "flag".into()], env).unwrap();
        assert_eq!(values.get("V2V_vmName"), Some("flag"));
        assert_eq!(values.get("V2V_source"), None);
    }
}

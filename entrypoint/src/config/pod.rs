//! Pod mode: Forklift's contract as types. Mistakes that the contract forgives become notes, which
//! the run logs as warnings; the others are errors before anything happens.

use super::ConfigError;
pub use super::copy_first::CopyFirst;
use super::settings::{Values, parse_bool};
pub use super::vsphere::VSphere;
use super::xen::Xen;
use crate::copy::rate::RateSource;
use crate::grant::CopySettings;
use crate::ova::Wanted;
use datapath::units::Rate;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;
use v2v_args::OutputMode;

/// Where Forklift's controller asks for the result.
const RESULT_PORT: NonZeroU16 = NonZeroU16::MIN.saturating_add(8079);

/// After 15 and 30 seconds, on top of the minute that nbdkit waits each time.
pub const SOURCE_RETRIES: u32 = 2;

/// Where a cold conversion reads from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// vCenter or ESXi.
    VSphere(VSphere),
    /// An OVA file or folder, or one on a web server.
    Ova(Wanted),
    /// Disk images of Hyper-V.
    HyperV(Vec<PathBuf>),
    /// A Xen host, over SSH.
    Xen(Xen),
}

/// What the pod is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// virt-v2v copies and converts.
    Convert(Source),
    /// The disks are on the volumes; convert them there.
    InPlace {
        /// The domain is fetched from here; `None` converts the bare disks.
        vsphere: Option<VSphere>,
        /// Convert on an overlay and commit it when all went well.
        overlay: bool,
    },
    /// The disks are copied first, then converted where they are.
    CopyFirst(CopyFirst),
    /// Only inspect the source, over VDDK paths.
    RemoteInspect {
        /// Source.
        vsphere: VSphere,
        /// VMDK paths in order. That there is one is checked when they are used: the contract makes
        /// the certificate link first.
        disks: Vec<String>,
    },
}

impl Job {
    /// The server, if there is one.
    pub fn vsphere(&self) -> Option<&VSphere> {
        match self {
            Self::Convert(Source::VSphere(vsphere)) | Self::RemoteInspect { vsphere, .. } => {
                Some(vsphere)
            }
            Self::InPlace { vsphere, .. } => vsphere.as_ref(),
            Self::CopyFirst(job) => job.vsphere(),
            Self::Convert(_) => None,
        }
    }
}

/// Options for every tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestOptions {
    /// `--root`.
    pub root: String,
    /// Appliance memory.
    pub memsize_mb: Option<u32>,
    /// Appliance CPUs.
    pub smp: Option<u32>,
    /// `V2V_staticIPs`, one entry per NIC.
    pub static_ips: Vec<String>,
    /// `--key all:clevis`.
    pub clevis: bool,
    /// Never pass `--no-fstrim`.
    pub xfs_compatibility: bool,
    /// Append `xfs_repair_ignore=1` to the appliance's kernel command line.
    pub xfs_repair_ignore: bool,
    /// Further options for virt-v2v(-in-place).
    pub extra: Vec<String>,
    /// Further options for the inspector.
    pub inspector_extra: Vec<String>,
    /// `VIRTIO_WIN`.
    pub virtio_win: Option<PathBuf>,
}

/// Files and folders of the contract.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // each is described in the table of settings
pub struct Paths {
    pub work_dir: PathBuf,
    pub access_key: PathBuf,
    pub secret_key: PathBuf,
    pub luks_dir: PathBuf,
    pub dynamic_scripts: PathBuf,
    pub vddk_libdir: PathBuf,
    pub vddk_config: PathBuf,
    pub inspection: PathBuf,
    pub domain_xml: PathBuf,
    pub journals: Option<PathBuf>,
}

/// Ports; 0 turns metrics or the live page off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Ports {
    pub metrics: u16,
    pub live: u16,
    pub result: u16,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Human on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// One JSON object per line.
    Json,
    /// Bars and short lines.
    Human,
    /// Short lines without bars.
    Plain,
}

/// How much preflight does at the start of a conversion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PreflightDepth {
    /// All but starting the appliance, which virt-v2v itself does before it writes anything.
    #[default]
    Quick,
    /// Everything.
    Full,
}

/// Settings of ours that say how to run, not what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// Ports.
    pub ports: Ports,
    /// Log format.
    pub log_format: LogFormat,
    /// Explicit path of the termination message.
    pub termination_log: Option<PathBuf>,
    /// Between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// Depth of preflight.
    pub preflight: PreflightDepth,
    /// How disks are copied.
    pub copy: CopySettings,
    /// How often virt-v2v is started again after a failure of the source that may pass.
    pub source_retries: u32,
}

/// Everything that pod mode needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodConfig {
    /// What to do.
    pub job: Job,
    /// Name at the source; may be empty in place.
    pub vm_name: String,
    /// Name of the result.
    pub new_name: Option<String>,
    /// Metadata of the result.
    pub output: OutputMode,
    /// PVC names for the VM of `local`; made from the VM's name when empty.
    pub claim_names: Vec<String>,
    /// Serve the result and wait for `/shutdown`.
    pub local_migration: bool,
    /// Options for every tool.
    pub guest: GuestOptions,
    /// Files.
    pub paths: Paths,
    /// How to run.
    pub runtime: Runtime,
    /// Variables that ask for guest customisation, which is not built.
    pub skipped: Vec<&'static str>,
    /// Forgiven mistakes, for the log.
    pub notes: Vec<String>,
}

impl PodConfig {
    /// The name that links carry: the new one, else the source's.
    pub fn link_name(&self) -> &str {
        self.new_name.as_deref().unwrap_or(&self.vm_name)
    }

    /// Parses and checks. Touches no file.
    pub fn parse(values: &Values) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(values);
        let job = reader.job()?;
        let output = match job {
            Job::CopyFirst(_) => reader.output_of_copy_first()?,
            _ => reader.output()?,
        };
        Ok(Self {
            job,
            vm_name: reader.text("V2V_vmName").unwrap_or_default(),
            new_name: reader.text("V2V_NewName"),
            output,
            claim_names: reader.json_list("V2V_claimNames"),
            local_migration: reader.boolean("LOCAL_MIGRATION", true),
            guest: reader.guest(),
            paths: reader.paths(),
            runtime: reader.runtime()?,
            skipped: reader.skipped(),
            notes: reader.notes,
        })
    }
}

pub(super) struct Reader<'a> {
    pub(super) values: &'a Values,
    notes: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(values: &'a Values) -> Self {
        Self { values, notes: Vec::new() }
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.values.get(name).map(str::to_owned)
    }

    pub(super) fn required(
        &self,
        variable: &'static str,
        source_kind: &'static str,
    ) -> Result<String, ConfigError> {
        self.text(variable).ok_or(ConfigError::Missing { variable, source_kind })
    }

    fn boolean(&mut self, name: &str, default: bool) -> bool {
        let Some(text) = self.values.get(name) else { return default };
        parse_bool(text).unwrap_or_else(|| {
            self.notes
                .push(format!("{name} is {text:?}, neither true nor false; {default} is used"));
            default
        })
    }

    fn positive(&mut self, name: &str) -> Option<u32> {
        let text = self.values.get(name)?;
        let Ok(n) = text.parse::<i64>() else {
            self.notes.push(format!("{name} is {text:?}, not a number; it is ignored"));
            return None;
        };
        u32::try_from(n).ok().filter(|n| *n > 0)
    }

    fn json_list(&mut self, name: &str) -> Vec<String> {
        let Some(text) = self.values.get(name) else { return Vec::new() };
        serde_json::from_str(text).unwrap_or_else(|e| {
            self.notes.push(format!("{name} is not a JSON array of strings ({e}); it is ignored"));
            Vec::new()
        })
    }

    fn job(&mut self) -> Result<Job, ConfigError> {
        let job = self.plain_job()?;
        if !self.copies_first()? {
            return Ok(job);
        }
        let overlay = self.boolean("V2V_overlayEnabled", true);
        CopyFirst::instead_of(job, overlay).map(Job::CopyFirst)
    }

    fn plain_job(&mut self) -> Result<Job, ConfigError> {
        if self.boolean("V2V_inPlace", false) {
            let vsphere = self.text("V2V_libvirtURL").map(|url| self.vsphere(url)).transpose()?;
            return Ok(Job::InPlace { vsphere, overlay: self.boolean("V2V_overlayEnabled", true) });
        }
        let source = self.source()?;
        if !self.boolean("V2V_remoteInspection", false) {
            return Ok(Job::Convert(source));
        }
        let Source::VSphere(vsphere) = source else {
            return Err(ConfigError::BadValue {
                variable: "V2V_source",
                value: self.text("V2V_source").unwrap_or_default(),
                allowed: "vSphere for remote inspection",
            });
        };
        Ok(Job::RemoteInspect { vsphere, disks: self.remote_disks() })
    }

    fn source(&self) -> Result<Source, ConfigError> {
        match self.values.get("V2V_source").unwrap_or_default() {
            "vSphere" => {
                let url = self.required("V2V_libvirtURL", "vSphere")?;
                if url::Url::parse(&url).is_err() {
                    // Where a password ends cannot be told in what is no URL.
                    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
                    let value = format!("{scheme}://...");
                    return Err(ConfigError::BadValue {
                        variable: "V2V_libvirtURL",
                        value,
                        allowed: "a URL such as vpx://user@vcenter/DC/host",
                    });
                }
                self.required("V2V_vmName", "vSphere")?;
                Ok(Source::VSphere(self.vsphere(url)?))
            }
            "ova" => {
                let place = self.required("V2V_diskPath", "ova")?;
                self.required("V2V_vmName", "ova")?;
                Ok(Source::Ova(self.ova(&place)?))
            }
            "hyperv" => {
                let list = self.required("V2V_diskPath", "hyperv")?;
                self.required("V2V_vmName", "hyperv")?;
                let paths: Vec<PathBuf> = list
                    .split(',')
                    .map(str::trim)
                    .filter(|p| !p.is_empty())
                    .map(PathBuf::from)
                    .collect();
                if paths.is_empty() {
                    return Err(ConfigError::NoDisks { variable: "V2V_diskPath" });
                }
                Ok(Source::HyperV(paths))
            }
            "xen" => Ok(Source::Xen(self.xen()?)),
            "" => Err(ConfigError::NoSource),
            other => Err(ConfigError::BadSource(other.to_owned())),
        }
    }

    fn skipped(&mut self) -> Vec<&'static str> {
        let mut skipped = Vec::new();
        for name in [
            "V2V_vsphereVmwareDriverRemoval",
            "V2V_windowsRegistryNetworkConfig",
            "V2V_waitForGuestReboot",
        ] {
            if self.boolean(name, false) {
                skipped.push(name);
            }
        }
        // virt-v2v alone has the option.
        if self.values.get("V2V_HOSTNAME").is_some() && self.copies_first() == Ok(true) {
            skipped.push("V2V_HOSTNAME");
        }
        // Any text counts as true here.
        if self.values.get("V2V_multipleIPsPerNic").is_some() {
            skipped.push("V2V_multipleIPsPerNic");
        }
        skipped
    }

    /// `V2V_remoteInspectDisk_<N>`, sorted by N; a bad N counts as 0, as the reference does.
    fn remote_disks(&self) -> Vec<String> {
        let mut disks: Vec<(u64, &str)> = self
            .values
            .with_prefix("V2V_remoteInspectDisk_")
            .map(|(n, path)| (n.parse().unwrap_or(0), path))
            .filter(|(_, path)| !path.is_empty())
            .collect();
        disks.sort_by_key(|(n, _)| *n);
        disks.into_iter().map(|(_, path)| path.to_owned()).collect()
    }

    fn output(&self) -> Result<OutputMode, ConfigError> {
        match self.values.get("V2V_output") {
            None | Some("kubevirt") => Ok(OutputMode::Kubevirt),
            Some("local") => Ok(OutputMode::Local),
            Some(other) => Err(ConfigError::BadValue {
                variable: "V2V_output",
                value: other.to_owned(),
                allowed: "kubevirt or local",
            }),
        }
    }

    fn guest(&mut self) -> GuestOptions {
        let static_ips = self.values.get("V2V_staticIPs").unwrap_or_default();
        GuestOptions {
            root: self.text("V2V_RootDisk").unwrap_or_else(|| "first".to_owned()),
            memsize_mb: self.positive("V2V_memSize"),
            smp: self.positive("V2V_smp"),
            static_ips: static_ips
                .split('_')
                .filter(|s| !s.is_empty())
                .map(str::to_owned)
                .collect(),
            clevis: self.boolean("V2V_NBDE_CLEVIS", false),
            xfs_compatibility: self.boolean("V2V_xfsCompatibility", false),
            xfs_repair_ignore: self.boolean("V2V_xfsRepairIgnore", false),
            extra: self.json_list("V2V_extra_args"),
            inspector_extra: self.json_list("V2V_inspector_extra_args"),
            virtio_win: self.text("VIRTIO_WIN").map(PathBuf::from),
        }
    }

    fn paths(&self) -> Paths {
        let path =
            |flag: &str, default: &str| PathBuf::from(self.values.get(flag).unwrap_or(default));
        Paths {
            work_dir: path("work-dir", "/var/tmp/v2v"),
            access_key: path("access-key", "/etc/secret/accessKeyId"),
            secret_key: path("secret-key", "/etc/secret/secretKey"),
            luks_dir: path("luks-dir", "/etc/luks"),
            dynamic_scripts: path("dynamic-scripts-dir", "/mnt/dynamic_scripts"),
            vddk_libdir: path("vddk-lib-dir", "/opt/vmware-vix-disklib-distrib"),
            vddk_config: path("vddk-conf-file", "/mnt/vddk-conf/vddk-config-file"),
            inspection: path("inspection-output-file", "/var/tmp/v2v/inspection.xml"),
            domain_xml: path("libvirt-domain-file", "/tmp/input.xml"),
            journals: self.text("V2V_journalDir").map(PathBuf::from),
        }
    }

    fn runtime(&self) -> Result<Runtime, ConfigError> {
        Ok(Runtime {
            ports: Ports {
                metrics: self.number("V2V_metricsPort", 2112, "a port number, or 0")?,
                live: self.number("V2V_livePort", 2113, "a port number, or 0")?,
                result: self
                    .number::<NonZeroU16>(
                        "V2V_resultPort",
                        RESULT_PORT,
                        "a port number from 1 to 65535",
                    )?
                    .get(),
            },
            log_format: self.choice("V2V_logFormat", "auto, json, human or plain", log_format)?,
            termination_log: self.text("V2V_terminationLog").map(PathBuf::from),
            grace: Duration::from_secs(
                self.number::<u16>("V2V_gracePeriod", 20, "a number of seconds")?.into(),
            ),
            preflight: self.choice("V2V_preflight", "quick or full", preflight_depth)?,
            copy: self.copy()?,
            source_retries: self.number("V2V_sourceRetries", SOURCE_RETRIES, "a number, or 0")?,
        })
    }

    fn copy(&self) -> Result<CopySettings, ConfigError> {
        let rate = "a rate such as 200MiB/s, or 0 for no limit";
        let fixed =
            self.values.get("V2V_rate").map(|_| self.number("V2V_rate", Rate::UNLIMITED, rate));
        let file = self.text("V2V_rateFile").map(|f| RateSource::File(f.into()));
        Ok(CopySettings {
            copier: self.choice("V2V_copier", "v2v-pod or nbdcopy", value_of)?,
            // The file can be changed while it runs, so it wins.
            rate: file.or(fixed.transpose()?.map(RateSource::Fixed)),
            verify: self.choice("V2V_verifyCopy", "true or false", parse_bool)?,
        })
    }

    pub(super) fn number<T: std::str::FromStr>(
        &self,
        variable: &'static str,
        default: T,
        allowed: &'static str,
    ) -> Result<T, ConfigError> {
        let Some(text) = self.values.get(variable) else { return Ok(default) };
        text.parse().map_err(|_| ConfigError::BadValue {
            variable,
            value: text.to_owned(),
            allowed,
        })
    }

    pub(super) fn choice<T: Default>(
        &self,
        variable: &'static str,
        allowed: &'static str,
        parse: fn(&str) -> Option<T>,
    ) -> Result<T, ConfigError> {
        let Some(text) = self.values.get(variable) else { return Ok(T::default()) };
        parse(text).ok_or_else(|| ConfigError::BadValue {
            variable,
            value: text.to_owned(),
            allowed,
        })
    }
}

/// A value of an enumeration that clap knows by name.
pub(super) fn value_of<T: clap::ValueEnum>(text: &str) -> Option<T> {
    T::from_str(text, false).ok()
}

/// `--log-format`.
pub fn log_format(text: &str) -> Option<LogFormat> {
    match text {
        "auto" => Some(LogFormat::Auto),
        "json" => Some(LogFormat::Json),
        "human" => Some(LogFormat::Human),
        "plain" => Some(LogFormat::Plain),
        _ => None,
    }
}

fn preflight_depth(text: &str) -> Option<PreflightDepth> {
    match text {
        "quick" => Some(PreflightDepth::Quick),
        "full" => Some(PreflightDepth::Full),
        _ => None,
    }
}

#[cfg(test)]
#[path = "pod_tests.rs"]
mod tests;

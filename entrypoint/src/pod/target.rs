//! The description of a VM that is converted in place, where v2v-pod makes it (`V2V_output=local`): the file that
//! `virt-v2v -o local` would have written, `<work-dir>/<name>.xml`. It is there before the commit begins, so that
//! a run that only finishes a commit has it too.

use super::Pod;
use crate::config::pod::{Job, PodConfig};
use crate::event::{Event, Warning};
use crate::failure::{Class, Failure};
use crate::guest::capabilities::Capabilities;
use crate::guest::disks_domain::disks_domain;
use crate::guest::domain_info::{DomainInfo, parse_domain};
use crate::guest::image::ImageFormat;
use crate::guest::inspection::parse_inspection;
use crate::guest::target_domain::target_domain;
use crate::guest::vm_yaml::rfc1123;
use crate::preflight::Report;
use crate::tool_ear::Findings;
use crate::vm_result::write_durably;
use std::fs;
use std::path::PathBuf;
use std::sync::PoisonError;
use v2v_args::{OutputMode, sanitize_slash};

/// A VM whose conversion is about to begin.
pub(super) struct Target {
    path: PathBuf,
    name: String,
    source: DomainInfo,
    disks: Vec<PathBuf>,
    /// For the run of the tool.
    pub findings: Findings,
}

/// A VM that cannot be named afterwards is not converted.
pub(super) fn check_name(config: &PodConfig, report: &mut Report) {
    let described =
        config.output == OutputMode::Local && !matches!(config.job, Job::RemoteInspect { .. });
    let name = config.link_name();
    if described && rfc1123(name).is_none() {
        let message =
            format!("{name:?} has no character that the name of a VirtualMachine may have");
        report.problem(
            "name",
            Failure::new(Class::Config, message)
                .advise("set V2V_NewName to a name with letters a-z or digits"),
        );
    }
}

impl Pod<'_> {
    fn target_path(&self) -> PathBuf {
        let name = sanitize_slash(self.config.link_name());
        self.config.paths.work_dir.join(format!("{name}.xml"))
    }

    /// Reads the source's domain, where there is one, before anything is converted. `None` when no description
    /// is asked for.
    pub(super) fn target(&self, domain: Option<&str>) -> Result<Option<Target>, Failure> {
        if self.config.output != OutputMode::Local {
            return Ok(None);
        }
        let failed = |error: String| {
            let message = format!("the domain of {}: {error}", self.config.vm_name);
            Failure::new(Class::Config, message)
        };
        let disks = self.ready.volumes.links().to_vec();
        let made_up;
        let xml = if let Some(xml) = domain {
            xml
        } else {
            let raw: Vec<_> = disks.iter().map(|p| (p.clone(), ImageFormat::Raw)).collect();
            made_up = disks_domain(&raw).map_err(|e| failed(e.to_string()))?;
            &made_up
        };
        Ok(Some(Target {
            path: self.target_path(),
            name: self.config.link_name().to_owned(),
            source: parse_domain(xml).map_err(|e| failed(e.to_string()))?,
            disks,
            findings: Findings::default(),
        }))
    }

    /// Makes the description after all, from what most likely boots, if virt-v2v did not say what it did.
    pub(super) async fn assume_target(&self) -> Result<(), Failure> {
        if self.target_path().is_file() {
            return Ok(());
        }
        let domain = match self.config.job.vsphere() {
            Some(vsphere) => Some(self.fetch_domain(vsphere).await.map_err(|failure| {
                let message =
                    format!("the disks are converted, but the VM cannot be described: {failure}");
                failure.with_message(message)
            })?),
            None => None,
        };
        let Some(target) = self.target(domain.as_deref())? else { return Ok(()) };
        let inspection = fs::read_to_string(&self.config.paths.inspection).ok();
        let inspection = inspection.and_then(|xml| parse_inspection(&xml).ok());
        let guest = Capabilities::assumed(inspection.as_ref());
        let message = format!(
            "virt-v2v did not say which drivers the guest has; the VM gets {} disks and {} network interfaces: \
             if it does not boot, try others",
            guest.block.name(),
            guest.net.name(),
        );
        // Its log line is a warning too.
        let warning = Warning { reason: "GuestHardwareAssumed".to_owned(), message };
        self.runner.bus.emit(&Event::Warned(warning));
        target.write(&guest)
    }
}

impl Target {
    /// Writes the description, if the tool has said enough.
    pub(super) fn describe(&self) -> Result<(), Failure> {
        let guest = self.findings.lock().unwrap_or_else(PoisonError::into_inner).capabilities();
        match guest {
            Some(guest) => self.write(&guest),
            None => Ok(()),
        }
    }

    fn write(&self, guest: &Capabilities) -> Result<(), Failure> {
        let xml = target_domain(&self.name, &self.source, guest, &self.disks).map_err(|e| {
            Failure::new(Class::Config, format!("the VM {} cannot be described: {e}", self.name))
        })?;
        write_durably(&self.path, xml.as_bytes())
    }
}

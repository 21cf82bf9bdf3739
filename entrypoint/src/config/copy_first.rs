//! The settings of a job that copies the disks first, which are all ours.

use super::ConfigError;
use super::pod::{Job, Reader, Source, VSphere};
use super::settings::parse_bool;
use std::path::PathBuf;
use v2v_args::OutputMode;

/// The disks are copied, with journals, and then converted where they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyFirst {
    /// Where the disks are.
    pub from: From,
    /// Convert on an overlay and commit it when all went well.
    pub overlay: bool,
}

/// Where disks can be copied from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// vCenter or ESXi.
    VSphere(VSphere),
    /// Disk images.
    Images(Vec<PathBuf>),
}

impl CopyFirst {
    /// In place of this job.
    pub(super) fn instead_of(job: Job, overlay: bool) -> Result<Self, ConfigError> {
        let refuse = |what, instead| Err(ConfigError::CopyFirst { what, instead });
        let from = match job {
            Job::Convert(Source::VSphere(vsphere)) => From::VSphere(vsphere),
            Job::Convert(Source::HyperV(paths)) => From::Images(paths),
            Job::Convert(Source::Ova(_)) => return refuse("from an OVA", ""),
            Job::Convert(Source::Xen(_)) => return refuse("from a Xen host", ""),
            Job::InPlace { .. } => {
                return refuse("where they are on the volumes already", ", or V2V_inPlace");
            }
            Job::RemoteInspect { .. } => {
                return refuse("where they are only inspected", ", or V2V_remoteInspection");
            }
            Job::CopyFirst(job) => return Ok(job),
        };
        Ok(Self { from, overlay })
    }

    /// The server, if there is one.
    pub fn vsphere(&self) -> Option<&VSphere> {
        match &self.from {
            From::VSphere(vsphere) => Some(vsphere),
            From::Images(_) => None,
        }
    }
}

impl Reader<'_> {
    /// Whether the disks are to be copied first.
    pub(super) fn copies_first(&self) -> Result<bool, ConfigError> {
        self.choice("V2V_copyFirst", "true or false", parse_bool)
    }

    /// virt-v2v-in-place describes no VM, so v2v-pod does.
    pub(super) fn output_of_copy_first(&self) -> Result<OutputMode, ConfigError> {
        match self.values.get("V2V_output") {
            None | Some("local") => Ok(OutputMode::Local),
            Some(other) => Err(ConfigError::BadValue {
                variable: "V2V_output",
                value: other.to_owned(),
                allowed: "local with V2V_copyFirst, which is its default",
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pod::PodConfig;
    use super::super::settings::Values;
    use super::*;
    use std::collections::BTreeMap;

    fn parse(more: &[(&str, &str)]) -> Result<PodConfig, ConfigError> {
        let all = [("V2V_copyFirst", "true"), ("V2V_vmName", "web")];
        let env: BTreeMap<String, String> = all
            .iter()
            .chain(more)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        PodConfig::parse(&Values::new(&[], env).unwrap())
    }

    const VSPHERE: [(&str, &str); 2] =
        [("V2V_source", "vSphere"), ("V2V_libvirtURL", "vpx://u@vc/DC/h")];
    const IMAGES: [(&str, &str); 2] = [("V2V_source", "hyperv"), ("V2V_diskPath", "/a,/b")];

    #[test]
    fn vms_of_vsphere_and_images_are_copied_first() {
        let config = parse(&VSPHERE).unwrap();
        let Job::CopyFirst(job) = &config.job else { panic!("another job") };
        assert_eq!(job.vsphere().unwrap().url, "vpx://u@vc/DC/h");
        assert!(job.overlay && config.paths.journals.is_none() && config.job.vsphere().is_some());
        assert_eq!(config.output, OutputMode::Local);
        let more = [("V2V_journalDir", "/journal"), ("V2V_overlayEnabled", "false")];
        let config = parse(&[&IMAGES[..], &more[..]].concat()).unwrap();
        let Job::CopyFirst(job) = config.job else { panic!("another job") };
        assert_eq!(job.from, From::Images(vec!["/a".into(), "/b".into()]));
        assert!(!job.overlay && config.paths.journals == Some("/journal".into()));
    }

    #[test]
    fn without_the_setting_nothing_is_copied_first() {
        for value in ["", "false"] {
            let config = parse(&[&IMAGES[..], &[("V2V_copyFirst", value)][..]].concat()).unwrap();
            assert!(matches!(config.job, Job::Convert(Source::HyperV(_))));
            assert_eq!(config.output, OutputMode::Kubevirt);
        }
    }

    #[test]
    fn what_cannot_be_copied_first_is_told_to_leave_the_setting_out() {
        let ova = [("V2V_source", "ova"), ("V2V_diskPath", "/a.ova")];
        let xen = [("V2V_source", "xen"), ("V2V_libvirtURL", "xen+ssh://u@h/")];
        let inspect = [&VSPHERE[..], &[("V2V_remoteInspection", "1")][..]].concat();
        for (env, word) in [
            (&ova[..], "an OVA"),
            (&xen[..], "a Xen host"),
            (&[("V2V_inPlace", "1")][..], "V2V_inPlace"),
            (&inspect[..], "V2V_remoteInspection"),
        ] {
            let error = parse(env).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(word) && text.contains("leave V2V_copyFirst out"), "{text}");
            assert!(!error.is_usage());
        }
        for wrong in [("V2V_copyFirst", "yes"), ("V2V_output", "kubevirt")] {
            let error = parse(&[&IMAGES[..], &[wrong][..]].concat()).unwrap_err();
            assert!(error.to_string().contains(wrong.1), "{error}");
        }
    }
}

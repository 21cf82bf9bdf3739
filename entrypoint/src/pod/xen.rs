//! A Xen host as the pod's source: the secret's files, and the disks against the volumes.

use super::Pod;
use super::check::Dirs;
use crate::config::pod::{Job, PodConfig, Source};
use crate::event::Warning;
use crate::failure::{Class, Failure};
use crate::preflight::Report;
use crate::toolbox::Toolbox;
use crate::volumes::{self, Volumes};
use crate::xen::check::{self, Given, Guest};
use crate::xen::secrets::Secrets;
use v2v_args::LibvirtInput;

/// Checks the source, where it is one; the tools are set up for it.
pub(super) async fn check(
    config: &PodConfig,
    toolbox: &mut Toolbox,
    dirs: &Dirs<'_>,
    volumes: Option<&Volumes>,
    report: &mut Report,
) -> Option<Guest> {
    let guest = find(config, toolbox, dirs, report).await?;
    let volumes = volumes?;
    let count = guest.sizes.len();
    if volumes.map.len() == count {
        let problems = volumes.check_sizes(&guest.sizes);
        if !problems.is_empty() {
            report.problem("source", volumes::failure(&problems));
        }
    } else {
        let problem = volumes.map.count_error(count);
        report.problem("source", Failure::new(Class::Volume, problem.to_string()));
    }
    Some(guest)
}

/// Finds the guest and opens its disks.
pub(super) async fn find(
    config: &PodConfig,
    toolbox: &mut Toolbox,
    dirs: &Dirs<'_>,
    report: &mut Report,
) -> Option<Guest> {
    let Job::Convert(Source::Xen(xen)) = &config.job else { return None };
    let secrets = Secrets::find(&config.paths.access_key, &config.paths.secret_key);
    let given = Given {
        url: xen.url.clone(),
        user: secrets.user,
        vm: config.vm_name.clone(),
        mode: xen.trust,
        pin: xen.fingerprint,
        known_hosts: secrets.known_hosts,
        identity: secrets.identity,
        password: secrets.password,
        legacy: xen.legacy,
    };
    check::check(&given, toolbox, dirs.run, report).await
}

/// What belongs into the result.
pub(super) fn warnings(guest: &Guest) -> impl Iterator<Item = Warning> {
    guest
        .warnings
        .iter()
        .map(|message| Warning { reason: "ServerNotVerified".to_owned(), message: message.clone() })
}

impl Pod<'_> {
    /// For virt-v2v.
    pub(super) fn xen_input(&self, url: &str) -> LibvirtInput {
        let guest = self.ready.xen.as_ref();
        LibvirtInput {
            url: guest.map_or(url, |g| g.url.as_str()).to_owned(),
            password_file: guest.and_then(|g| g.password.clone()),
            vm: self.config.vm_name.clone(),
            hostname: None,
            vddk: None,
        }
    }
}

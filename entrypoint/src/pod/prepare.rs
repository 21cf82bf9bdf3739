//! Links and small files that the tools expect. Everything can be made again after a crash.

use super::Pod;
use super::in_place::COMMIT_MARK;
use crate::config::pod::{PodConfig, VSphere};
use crate::event::{Event, Warning};
use crate::failure::{Class, Failure};
use crate::links;
use crate::nbdkit_front::{self, Edits};
use crate::toolbox::Toolbox;
use crate::vsphere::access::{self, Anchors};
use crate::vsphere::anchors::{self, CA_LINK, SYSTEM_CA};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use v2v_args::{Common, Keys, sanitize_slash};

/// Variables that the configuration adds to the tools' environment.
pub fn set_tool_variables(config: &PodConfig, toolbox: &mut Toolbox) {
    if config.guest.xfs_repair_ignore {
        toolbox.append("LIBGUESTFS_APPEND", " ", "xfs_repair_ignore=1");
    }
    if let Some(iso) = &config.guest.virtio_win {
        if config.job.vsphere().is_some() && !iso.exists() {
            tracing::warn!(path = %iso.display(), "VIRTIO_WIN does not exist; the tools run without it");
        } else {
            toolbox.set("VIRTIO_WIN", iso.as_os_str());
        }
    }
}

impl Pod<'_> {
    /// The Prepare phase.
    pub(super) fn prepare(&mut self) -> Result<(), Failure> {
        let paths = &self.config.paths;
        fs::create_dir_all(&paths.work_dir).map_err(|e| {
            Failure::new(
                Class::Config,
                format!("cannot make the work folder {}: {e}", paths.work_dir.display()),
            )
        })?;
        self.remove_old_results();
        self.link_ca()?;
        self.edit_nbdkit()?;
        self.ready
            .volumes
            .link(&paths.work_dir, self.config.link_name())
            .map_err(|e| Failure::new(Class::Config, e.to_string()))?;
        self.write_static_ips()?;
        self.warn_of_scripts();
        self.warn_of_skipped_settings();
        self.common = Common {
            root: self.config.guest.root.clone(),
            memsize_mb: self.config.guest.memsize_mb,
            smp: self.config.guest.smp,
            macs: self.config.guest.static_ips.clone(),
            keys: if self.config.guest.clevis { Keys::Clevis } else { luks_keys(&paths.luks_dir) },
        };
        Ok(())
    }

    /// A result of an earlier run must not be taken for this one's.
    fn remove_old_results(&self) {
        let work = &self.config.paths.work_dir;
        let name = sanitize_slash(self.config.link_name());
        let mut old = vec![self.config.paths.inspection.clone(), work.join(format!("{name}.yaml"))];
        // The description of a VM whose commit is to be finished is as good as it was.
        if !work.join(COMMIT_MARK).exists() {
            old.push(work.join(format!("{name}.xml")));
        }
        for path in old {
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), error = %e, "cannot remove an earlier result");
                }
                _ => {}
            }
        }
    }

    /// Forklift's URLs say `cacert=/opt/ca-bundle.crt`, and in our image the system's own list of CAs leads there: what this
    /// link leads to is what libvirt, nbdkit and curl trust.
    fn link_ca(&mut self) -> Result<(), Failure> {
        let Some(server) = &self.ready.server else { return Ok(()) };
        let own = anchors::file(&server.access.anchors, self.run_dir)?;
        let given = self.config.paths.secret_key.with_file_name("cacert");
        let target = match &own {
            Some(file) => file.clone(),
            // Nothing is verified, and the link is only the contract's.
            None if server.access.anchors == Anchors::None && given.exists() => given,
            None => PathBuf::from(SYSTEM_CA),
        };
        if let Err(e) = links::point(Path::new(CA_LINK), &target) {
            tracing::warn!(error = %e, "no link to the CA certificates; the URL names them instead");
            self.ca = Some(target);
        }
        match &own {
            Some(file) => anchors::narrow(&mut self.runner.toolbox, file, self.run_dir),
            None => Ok(()),
        }
    }

    /// virt-v2v has no option for what is set here.
    fn edit_nbdkit(&mut self) -> Result<(), Failure> {
        let cookie_renew = self.config.job.vsphere().and_then(|v| v.cookie_renew);
        let edits = Edits { cookie_renew, ..Edits::default() };
        edits.install(&self.run_dir.join(nbdkit_front::FOLDER), &mut self.runner.toolbox).map_err(
            |e| Failure::new(Class::NoSpace, format!("cannot make a link for nbdkit: {e}")),
        )
    }

    /// The URL of the source, as the trust setting wants it and with the CA where it really is.
    pub(super) fn url(&self, vsphere: &VSphere) -> String {
        let url = self.ready.server.as_ref().map_or(&vsphere.url, |s| &s.access.url);
        match &self.ca {
            Some(ca) => access::with_ca(url, Path::new(CA_LINK), ca),
            None => url.clone(),
        }
    }

    fn write_static_ips(&self) -> Result<(), Failure> {
        if self.config.guest.static_ips.is_empty() {
            return Ok(());
        }
        let path = self.config.paths.work_dir.join("macToIP");
        let text = self.config.guest.static_ips.join("\n") + "\n";
        fs::write(&path, text).map_err(|e| {
            Failure::new(Class::NoSpace, format!("cannot write {}: {e}", path.display()))
        })
    }

    /// Guest customisation belongs to Forklift's own scripts; what was asked of it is named.
    fn warn_of_skipped_settings(&self) {
        if self.config.skipped.is_empty() {
            return;
        }
        self.runner.bus.emit(&Event::Warned(Warning {
            reason: "CustomizationSkipped".to_owned(),
            message: format!(
                "{} had no effect: v2v-pod does not customise guests yet",
                self.config.skipped.join(", ")
            ),
        }));
    }

    fn warn_of_scripts(&self) {
        let dir = &self.config.paths.dynamic_scripts;
        let scripts = fs::read_dir(dir).into_iter().flatten().flatten().filter(|e| {
            let name = e.file_name();
            let name = name.to_string_lossy();
            name.contains("_linux_run")
                || name.contains("_linux_firstboot")
                || name.contains("_win_firstboot")
        });
        let count = scripts.count();
        if count > 0 {
            self.runner.bus.emit(&Event::Warned(Warning {
                reason: "CustomizationSkipped".to_owned(),
                message: format!(
                    "{count} script(s) in {} are not run: v2v-pod does not customise guests yet",
                    dir.display()
                ),
            }));
        }
    }
}

/// The passphrase files, by name; Kubernetes' own `..data` entries are left out.
fn luks_keys(dir: &Path) -> Keys {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|e| !e.file_name().to_string_lossy().starts_with(".."))
        .map(|e| e.path())
        .filter(|p| p.is_file())
        .collect();
    files.sort();
    if files.is_empty() { Keys::None } else { Keys::Files(files) }
}

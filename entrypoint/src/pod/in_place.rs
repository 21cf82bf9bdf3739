//! Converting disks that are already on the volumes.
//!
//! virt-v2v-in-place has no overlay of its own: a failure would leave a disk that neither boots nor
//! can be converted again. So it works on a qcow2 overlay over each volume, which is committed when
//! all went well and thrown away otherwise.
//!
//! A commit cannot be undone, and over several disks it is not atomic. So it is not interrupted,
//! and a mark in the work folder says that it has begun: a run that finds the mark finishes the
//! commit, which may be repeated at will, instead of converting half-committed disks.

use super::Pod;
use crate::config::pod::VSphere;
use crate::failure::{Class, Failure};
use crate::guest::domain_xml::{DiskLink, rewrite_domain};
use crate::guest::image::ImageFormat;
use crate::links;
use crate::supervise::stop::Stop;
use crate::tool_run::{Runner, Tool};
use crate::vm_result;
use crate::volumes::Volumes;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use v2v_args::{InPlace, InPlaceInput};

/// Its presence in the work folder means: the overlays there are to be committed.
pub(super) const COMMIT_MARK: &str = "commit-has-begun";
const QEMU_IMG: Tool = Tool { name: "qemu-img", messages: false, class: Class::Io, copies: false };

impl Pod<'_> {
    /// The Convert phase of an in-place job.
    pub(super) async fn convert_in_place(
        &self,
        vsphere: Option<&VSphere>,
        overlay: bool,
    ) -> Result<(), Failure> {
        let overlays: Vec<PathBuf> =
            self.links().iter().map(|l| with_suffix(l, ".qcow2")).collect();
        let mark = self.config.paths.work_dir.join(COMMIT_MARK);
        if let Ok(marked) = fs::read_to_string(&mark) {
            if marked != self.mark_text() {
                let message =
                    format!("{} belongs to another VM or other volumes:\n{marked}", mark.display());
                return Err(Failure::new(Class::Config, message)
                    .advise("finish that run first, or remove the mark and its overlays if they are of no use"));
            }
            tracing::warn!(
                "an earlier run was stopped while it committed its overlays; the commit is finished"
            );
            return self.commit(&overlays, &mark).await;
        }
        let domain = match vsphere {
            Some(vsphere) => Some(self.fetch_domain(vsphere).await?),
            None => None,
        };
        if !overlay {
            self.forget_copy()?;
            return self.run_in_place(domain.as_deref(), ImageFormat::Raw).await;
        }
        if let Err(failure) = self.convert_on_overlays(&overlays, domain.as_deref()).await {
            self.discard(&overlays);
            return Err(failure);
        }
        if let Some(cause) = self.runner.stop.cause() {
            self.discard(&overlays);
            return Err(cause.failure());
        }
        vm_result::write_durably(&mark, self.mark_text().as_bytes())?;
        self.commit(&overlays, &mark).await
    }

    /// Whose commit it is: the VM's name, and each link with its volume.
    fn mark_text(&self) -> String {
        let lines = self.links().iter().zip(self.ready.volumes.names());
        let lines = lines.map(|(link, volume)| format!("{} {volume}\n", link.display()));
        format!("{}\n{}", self.config.vm_name, lines.collect::<String>())
    }

    fn links(&self) -> &[PathBuf] {
        self.ready.volumes.links()
    }

    async fn convert_on_overlays(
        &self,
        overlays: &[PathBuf],
        domain: Option<&str>,
    ) -> Result<(), Failure> {
        for (overlay, volume) in overlays.iter().zip(self.ready.volumes.map.volumes()) {
            let args: [&Path; 8] = [
                "create".as_ref(),
                "-f".as_ref(),
                "qcow2".as_ref(),
                "-b".as_ref(),
                volume.path(),
                "-F".as_ref(),
                "raw".as_ref(),
                overlay,
            ];
            self.qemu_img(&args).await?;
        }
        for (link, overlay) in self.links().iter().zip(overlays) {
            links::point(link, overlay).map_err(|e| Failure::new(Class::Config, e.to_string()))?;
        }
        self.run_in_place(domain, ImageFormat::Qcow2).await
    }

    /// Writes the changes into the volumes, whatever signals come. An overlay that could not be
    /// committed is kept, so that nothing of the conversion is lost.
    async fn commit(&self, overlays: &[PathBuf], mark: &Path) -> Result<(), Failure> {
        self.forget_copy()?;
        let undisturbed = Runner { stop: Stop::default(), ..self.runner.clone() };
        for overlay in overlays.iter().filter(|o| o.exists()) {
            let argv = vec!["commit".into(), overlay.clone().into()];
            undisturbed.run(QEMU_IMG, None, |_| argv.clone()).await.map_err(|f| {
                let message = format!(
                    "the conversion succeeded, but {} could not be committed: {f}",
                    overlay.display()
                );
                f.with_message(message)
                    .advise("remove the cause and start again with the same work folder: the commit is then finished")
            })?;
        }
        self.ready.volumes.sync()?;
        self.discard(overlays);
        fs::remove_file(mark)
            .map_err(|e| Failure::new(Class::Io, format!("cannot remove {}: {e}", mark.display())))
    }

    /// Removes the overlays and points the links at the volumes again.
    fn discard(&self, overlays: &[PathBuf]) {
        for ((link, overlay), volume) in
            self.links().iter().zip(overlays).zip(self.ready.volumes.map.volumes())
        {
            if let Err(e) = links::point(link, volume.path()) {
                tracing::warn!(error = %e, "link not restored");
            }
            if let Err(e) = fs::remove_file(overlay)
                && e.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(overlay = %overlay.display(), error = %e, "overlay not removed");
            }
        }
    }

    async fn run_in_place(&self, domain: Option<&str>, format: ImageFormat) -> Result<(), Failure> {
        let input = match domain {
            Some(xml) => InPlaceInput::LibvirtXml(self.write_domain(xml, format)?),
            None => InPlaceInput::Disks {
                links: self.links().to_vec(),
                raw: format == ImageFormat::Raw,
            },
        };
        let mut request = InPlace {
            input,
            common: self.common.clone(),
            no_fstrim: self.ready.main_no_fstrim,
            extra: self.config.guest.extra.clone(),
            machine_readable_fd: None,
        };
        let argv = |fd| {
            request.machine_readable_fd = fd;
            request.argv()
        };
        let target = self.target(domain)?;
        let findings = target.as_ref().map(|t| t.findings.clone());
        let runner = Runner { findings, ..self.runner.clone() };
        runner.run(self.ready.main, None::<&Volumes>, argv).await?;
        target.map_or(Ok(()), |target| target.describe())
    }

    fn write_domain(&self, xml: &str, format: ImageFormat) -> Result<PathBuf, Failure> {
        let links: Vec<DiskLink> =
            self.links().iter().map(|path| DiskLink { path: path.clone(), format }).collect();
        let domain = rewrite_domain(xml, &links).map_err(|e| {
            Failure::new(Class::Config, format!("the domain of {}: {e}", self.config.vm_name))
        })?;
        if domain.disks_in_source != self.links().len() {
            tracing::warn!(
                source_disks = domain.disks_in_source,
                volumes = self.links().len(),
                "the source has another number of disks than there are volumes; only those with a volume are converted"
            );
        }
        let path = self.config.paths.domain_xml.clone();
        fs::write(&path, domain.xml).map_err(|e| {
            Failure::new(Class::NoSpace, format!("cannot write {}: {e}", path.display()))
        })?;
        Ok(path)
    }

    async fn qemu_img(&self, args: &[&Path]) -> Result<(), Failure> {
        let argv: Vec<OsString> = args.iter().map(|a| a.as_os_str().to_owned()).collect();
        self.runner.run(QEMU_IMG, None, |_| argv.clone()).await
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

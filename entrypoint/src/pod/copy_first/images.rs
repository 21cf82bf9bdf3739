//! Images as sources: raw ones are read as they are, others through qemu-nbd in the format that the project's rules
//! decide.

use super::{Identity, Origin, Readable};
use crate::copy_first::identity;
use crate::failure::{Class, Failure};
use crate::guest::image::ImageFormat;
use crate::pod::Pod;
use crate::serve_disks::children::{Line, ServerLine};
use crate::serve_disks::lines::{Files, qemu_nbd};
use crate::sources::measure::{Image, Measured, measure_all};
use crate::tool_run;
use crate::toolbox::Toolbox;
use std::path::PathBuf;

/// What the images are; one that refers to other files is refused.
pub async fn measure(toolbox: &Toolbox, paths: &[PathBuf]) -> Result<Vec<Measured>, Failure> {
    let images: Vec<Image> =
        paths.iter().map(|path| Image { path: path.clone(), format: None }).collect();
    let measured = measure_all(toolbox, &images, false).await?;
    let served = measured.iter().any(|image| image.format != ImageFormat::Raw);
    if served && toolbox.find("qemu-nbd").is_none() {
        return Err(tool_run::missing("qemu-nbd"));
    }
    Ok(measured)
}

impl Pod<'_> {
    pub(super) async fn images(
        &self,
        paths: &[PathBuf],
        files: &Files,
    ) -> Result<Vec<Origin>, Failure> {
        let measured = measure(&self.runner.toolbox, paths).await?;
        measured.iter().enumerate().map(|(number, m)| self.image(m, files, number)).collect()
    }

    fn image(&self, image: &Measured, files: &Files, number: usize) -> Result<Origin, Failure> {
        let told = identity::of_files(&image.files).map_err(|e| {
            Failure::new(Class::Io, format!("{} cannot be looked at: {e}", image.path.display()))
        })?;
        let from = if image.format == ImageFormat::Raw {
            Readable::File(image.path.clone())
        } else {
            let toolbox = &self.runner.toolbox;
            let program = toolbox.find("qemu-nbd").ok_or_else(|| tool_run::missing("qemu-nbd"))?;
            let args = qemu_nbd(&image.path, image.format, files, number);
            let line = Line { program, args };
            let pidfile = files.pidfile(number);
            Readable::Server(ServerLine { line, pidfile }, files.socket(number))
        };
        Ok(Origin { from, identity: told.map_or(Identity::Engine, Identity::Told) })
    }
}

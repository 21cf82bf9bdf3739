//! `v2v-pod source`: what the guest of a pod's settings is, before there are volumes for it. Whoever makes the volumes
//! asks with this. The source is opened with the checks of the conversion itself.

use super::check::Dirs;
use super::{make_run_dir, ova, temp_base, xen};
use crate::config::copy_first::{CopyFirst, From};
use crate::config::pod::{Job, PodConfig, Source};
use crate::failure::{Class, Failure};
use crate::ova::{Place, Wanted};
use crate::preflight::Report;
use crate::sources::answer::{Answer, Disk};
use crate::sources::measure::{self, Image};
use crate::supervise::stop::Stop;
use crate::toolbox::Toolbox;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const CHECK: &str = "source";

/// Looks; the report has what was found on the way.
pub async fn look(
    config: &PodConfig,
    env: &BTreeMap<String, String>,
    mut stop: Stop,
    report: &mut Report,
) -> Result<Answer, Failure> {
    let base = temp_base(env);
    let run_dir = make_run_dir(&base)?;
    let mut toolbox = Toolbox::new(env, &run_dir, &base);
    let dirs = Dirs { base: &base, run: run_dir.path() };
    let answer = tokio::select! {
        answer = ask(config, &mut toolbox, &dirs, report) => answer,
        cause = stop.next() => return Err(cause.failure()),
    };
    let nothing = || Failure::new(Class::Internal, "no problem was found, but no guest either");
    answer.ok_or_else(|| report.failure().unwrap_or_else(nothing))
}

async fn ask(
    config: &PodConfig,
    toolbox: &mut Toolbox,
    dirs: &Dirs<'_>,
    report: &mut Report,
) -> Option<Answer> {
    let asked = match &config.job {
        Job::Convert(Source::Xen(_)) => {
            let guest = xen::find(config, toolbox, dirs, report).await?;
            let named = guest.sizes.into_iter().zip(guest.paths);
            let disks = named.map(|(bytes, path)| Disk { bytes, name: Some(path) }).collect();
            let (name, uuid) = (Some(guest.name), guest.uuid);
            return Some(Answer { name, uuid, disks, nics: guest.nics });
        }
        Job::Convert(Source::Ova(wanted)) => match ova::login(config, wanted) {
            Ok(login) => crate::ova::look(&rooted(wanted), &login, toolbox, dirs.run, report).await,
            Err(failure) => Err(failure),
        },
        Job::Convert(Source::HyperV(paths))
        | Job::CopyFirst(CopyFirst { from: From::Images(paths), .. }) => {
            images(config, toolbox, paths).await
        }
        Job::Convert(Source::VSphere(_))
        | Job::CopyFirst(CopyFirst { from: From::VSphere(_), .. })
        | Job::InPlace { .. }
        | Job::RemoteInspect { .. } => {
            let message = "`v2v-pod source` looks at the sources ova, hyperv and xen alone";
            Err(Failure::new(Class::Config, message)
                .advise("a VM of vSphere is in the inventory of its server: ask there"))
        }
    };
    asked.map_err(|failure| report.problem(CHECK, failure)).ok()
}

/// Tools run in a folder of their own, and a person may write a relative path.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn rooted(wanted: &Wanted) -> Wanted {
    let place = match &wanted.place {
        Place::Local(path) => Place::Local(absolute(path)),
        Place::Url(url) => Place::Url(url.clone()),
    };
    Wanted { place, ..wanted.clone() }
}

async fn images(
    config: &PodConfig,
    toolbox: &Toolbox,
    paths: &[PathBuf],
) -> Result<Answer, Failure> {
    let images: Vec<Image> =
        paths.iter().map(|path| Image { path: absolute(path), format: None }).collect();
    let measured = measure::measure_all(toolbox, &images, false).await.map_err(|failure| {
        match failure.class {
            Class::Config => failure.advise(super::check::IMAGES),
            _ => failure,
        }
    })?;
    measure::require_one_format(&measured)?;
    let disks = measured
        .into_iter()
        .map(|image| Disk { bytes: image.size, name: Some(image.path.display().to_string()) });
    let (name, nics) = (Some(config.vm_name.clone()), Vec::new());
    Ok(Answer { name, uuid: None, disks: disks.collect(), nics })
}

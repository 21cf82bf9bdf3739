//! The OVA of a pod: opened before anything is written, and compared with the volumes.

use super::check::{Dirs, given_ca};
use crate::config::pod::PodConfig;
use crate::event::Warning;
use crate::failure::{Class, Failure};
use crate::ova::{self, Login, Place, Wanted};
use crate::preflight::Report;
use crate::secret;
use crate::sources;
use crate::toolbox::Toolbox;
use crate::volumes::{self, Volumes};

const CHECK: &str = "source";

/// Opens it. One that is not there is only noted: virt-v2v says precisely what is wrong.
pub async fn check(
    config: &PodConfig,
    wanted: &Wanted,
    (toolbox, dirs): (&Toolbox, &Dirs<'_>),
    volumes: Option<&Volumes>,
    report: &mut Report,
) -> Option<ova::Source> {
    if let Place::Local(path) = &wanted.place
        && !path.exists()
    {
        let advice = "check V2V_diskPath and the mount of the OVA volume";
        report.note(CHECK, sources::not_found(path), advice);
        return None;
    }
    let source = match login(config, wanted) {
        Ok(login) => ova::open(wanted, &login, toolbox, dirs.run, report).await,
        Err(failure) => Err(failure),
    };
    let source = match source {
        Ok(source) => source,
        Err(failure) => {
            report.problem(CHECK, failure);
            return None;
        }
    };
    let problems = volumes.map(|v| v.check_sizes(&source.sizes)).unwrap_or_default();
    if !problems.is_empty() {
        report.problem(CHECK, volumes::failure(&problems));
    }
    Some(source)
}

/// A server may want none; then there is no secret either.
fn login(config: &PodConfig, wanted: &Wanted) -> Result<Login, Failure> {
    if matches!(wanted.place, Place::Local(_)) {
        return Ok(Login::default());
    }
    let paths = &config.paths;
    let user = paths.access_key.exists().then(|| secret::read(&paths.access_key, "user name"));
    let user = user.transpose()?;
    let password_file = paths.secret_key.exists().then(|| paths.secret_key.clone());
    if user.is_some() && password_file.is_none() {
        let message = format!(
            "there is a user name in {}, but no password in {}",
            paths.access_key.display(),
            paths.secret_key.display()
        );
        return Err(Failure::new(Class::Config, message));
    }
    Ok(Login { user, password_file, ca: given_ca(config) })
}

/// For the result: what came from a server that was not verified.
pub fn warnings(source: &ova::Source) -> impl Iterator<Item = Warning> {
    let warning = |message: &String| Warning {
        reason: "ServerNotVerified".to_owned(),
        message: message.clone(),
    };
    source.warnings.iter().map(warning)
}

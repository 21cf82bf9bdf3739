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
use std::path::Path;

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
        && is_absent(path)
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

/// Whether there is nothing. What cannot be looked at (no permission, a stale mount) may be there.
fn is_absent(path: &Path) -> bool {
    matches!(path.try_exists(), Ok(false))
}

/// Whether virt-v2v would name the guest after something else than the VM: what the OVA says, or the file that it reads.
pub fn is_named_otherwise(name: Option<&str>, vm_name: &str) -> bool {
    name != Some(vm_name)
}

/// A server may want none; then there is no secret either.
pub(super) fn login(config: &PodConfig, wanted: &Wanted) -> Result<Login, Failure> {
    if matches!(wanted.place, Place::Local(_)) {
        return Ok(Login::default());
    }
    let paths = &config.paths;
    let user = present(&paths.access_key)?.then(|| secret::read(&paths.access_key, "user name"));
    let user = user.transpose()?;
    let password_file = present(&paths.secret_key)?.then(|| paths.secret_key.clone());
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

/// One that cannot be looked at is not taken for one that was not given.
fn present(secret: &Path) -> Result<bool, Failure> {
    secret.try_exists().map_err(|e| {
        Failure::new(Class::Config, format!("{} cannot be read: {e}", secret.display()))
            .advise("check the mount of the secret and its permissions")
    })
}

/// For the result: what came from a server that was not verified.
pub fn warnings(source: &ova::Source) -> impl Iterator<Item = Warning> {
    let warning = |message: &String| Warning {
        reason: "ServerNotVerified".to_owned(),
        message: message.clone(),
    };
    source.warnings.iter().map(warning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_looked_at_is_not_absent() {
        let dir = tempfile::tempdir().unwrap();
        let (none, circle) = (dir.path().join("none"), dir.path().join("circle"));
        std::os::unix::fs::symlink(&circle, &circle).unwrap();
        assert!(is_absent(&none) && !is_absent(dir.path()) && !is_absent(&circle));
        assert!(!present(&none).unwrap() && present(dir.path()).unwrap());
        assert_eq!(present(&circle).unwrap_err().class, Class::Config);
    }

    #[test]
    fn a_guest_without_a_name_gets_the_one_of_the_vm() {
        assert!(is_named_otherwise(None, "web") && is_named_otherwise(Some("db"), "web"));
        assert!(!is_named_otherwise(Some("web"), "web"));
    }
}

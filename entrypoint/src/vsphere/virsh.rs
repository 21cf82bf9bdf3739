//! Questions to libvirt, asked by `virsh` in a process of its own. The credentials go into an authentication file in the run's
//! private folder, never onto a command line or into an environment.

use crate::classify::Evidence;
use crate::failure::{Class, Failure};
use crate::secret;
use crate::tool_run;
use crate::toolbox::Toolbox;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A vCenter with thousands of VMs takes a while to list them.
const LIMIT: Duration = Duration::from_secs(180);

/// Who asks.
#[derive(Debug)]
pub struct Login<'a> {
    /// The URL for libvirt.
    pub url: &'a str,
    /// File with the user name, where the URL has none.
    pub user_file: Option<&'a Path>,
    /// File with the password.
    pub password_file: &'a Path,
}

/// The file that `LIBVIRT_AUTH_FILE` names; it is gone when this is dropped.
#[derive(Debug)]
pub struct AuthFile(PathBuf);

impl AuthFile {
    /// Writes one into a folder that is ours alone.
    pub fn write(login: &Login<'_>, dir: &Path) -> Result<Self, Failure> {
        let password = key_file_value(&secret::read(login.password_file, "password")?);
        let user = match login.user_file {
            Some(file) => {
                format!("username={}\n", key_file_value(&secret::read(file, "user name")?))
            }
            None => String::new(),
        };
        let host = url::Url::parse(login.url)
            .ok()
            .and_then(|u| u.host_str().map(|h| h.trim_matches(['[', ']']).to_owned()))
            .unwrap_or_default();
        let path = dir.join("libvirt-auth");
        let text = format!(
            "[credentials-source]\n{user}password={password}\n\n[auth-esx-{host}]\ncredentials=source\n\n[auth-vpx-{host}]\ncredentials=source\n"
        );
        let failed = |e: std::io::Error| {
            Failure::new(Class::NoSpace, format!("cannot write {}: {e}", path.display()))
        };
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        let this = Self(path.clone());
        file.write_all(text.as_bytes()).map_err(failed)?;
        Ok(this)
    }

    /// For `LIBVIRT_AUTH_FILE`.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for AuthFile {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_file(&self.0) {
            tracing::warn!(error = %e, "the authentication file was not removed");
        }
    }
}

/// As libvirt (`GLib`'s key files) reads it back: a backslash begins an escape, blanks at the beginning are skipped.
fn key_file_value(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('\t', "\\t");
    let rest = escaped.trim_start_matches(' ');
    "\\s".repeat(escaped.len() - rest.len()) + rest
}

/// A libvirt that may be asked.
#[derive(Debug)]
pub struct Virsh<'a> {
    url: &'a str,
    toolbox: Toolbox,
    /// Its file must live as long as the toolbox is used.
    _auth: AuthFile,
}

impl<'a> Virsh<'a> {
    /// `dir` is the run's private folder.
    pub fn new(login: &Login<'a>, toolbox: &Toolbox, dir: &Path) -> Result<Self, Failure> {
        let auth = AuthFile::write(login, dir)?;
        let mut toolbox = toolbox.clone();
        toolbox.set("LIBVIRT_AUTH_FILE", auth.path());
        Ok(Self { url: login.url, toolbox, _auth: auth })
    }

    /// What it prints.
    pub async fn ask(&self, words: &[&str]) -> Result<String, Failure> {
        let mut args = vec!["-c", self.url];
        args.extend(words);
        if self.toolbox.find("virsh").is_none() {
            return Err(tool_run::missing("virsh"));
        }
        let what = words.first().copied().unwrap_or_default();
        let Some((status, text)) = self.toolbox.ask("virsh", &args, LIMIT).await else {
            let message = format!("virsh {what} gave no answer within {} s", LIMIT.as_secs());
            return Err(Failure::new(Class::Network, message));
        };
        if status.success() {
            return Ok(text);
        }
        let mut evidence = Evidence::default();
        for line in text.lines() {
            // The first of its errors says only that it could not connect.
            match line.strip_prefix("error: ") {
                Some(error) if !error.starts_with("failed to ") => evidence.error(error),
                _ => evidence.line("virsh", line),
            }
        }
        Err(evidence.failure("virsh", &status.to_string()))
    }
}

/// The domain in what virsh said. stdout and stderr share a pipe: warnings may stand before the document
/// and behind it.
pub fn document(said: &str) -> &str {
    const END: &str = "</domain>";
    let start = said.find("<domain").unwrap_or(0);
    let end = said.rfind(END).map_or(said.len(), |at| at + END.len());
    said.get(start..end).filter(|found| !found.is_empty()).unwrap_or(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_around_the_document_are_cut_off() {
        let xml = "<domain type='vmware'>\n  <name>web</name>\n</domain>";
        let warned = format!("warning: <x>\n{xml}\nerror: y\n");
        for said in [xml.to_owned(), format!("{xml}\n\n"), warned] {
            assert_eq!(document(&said), xml);
        }
        for other in ["", "no XML", "</domain><domain"] {
            assert_eq!(document(other), other);
        }
    }

    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_value_is_read_back_as_it_is() {
        for (plain, written) in [
            ("hunter2", "hunter2"),
            (r"Corp\nas7", r"Corp\\nas7"),
            ("  two [x] #;=", r"\s\stwo [x] #;="),
            ("a\tb c", r"a\tb c"),
        ] {
            assert_eq!(key_file_value(plain), written);
        }
    }

    #[test]
    fn the_file_is_ours_alone_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        let (user, password) = (dir.path().join("user"), dir.path().join("password"));
        fs::write(&user, "root").unwrap();
        fs::write(&password, "hunter2\n").unwrap();
        let url = "esx://root@[::1]:8443/";
        let login = Login { url, user_file: Some(&user), password_file: &password };
        let auth = AuthFile::write(&login, dir.path()).unwrap();
        let path = auth.path().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.contains("[auth-esx-::1]") && text.contains("username=root\npassword=hunter2\n")
        );
        drop(auth);
        assert!(!path.exists());
        let login = Login { user_file: None, ..login };
        let auth = AuthFile::write(&login, dir.path()).unwrap();
        assert!(!fs::read_to_string(auth.path()).unwrap().contains("username"));
    }
}

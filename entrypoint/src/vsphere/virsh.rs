//! Questions to vCenter or an ESXi host by way of `virsh`.
//!
//! It runs in a process of its own. The credentials go into an authentication file in the run's private
//! folder, never onto a command line or into an environment, and the file is removed with the answer.

use crate::classify::Evidence;
use crate::failure::{Class, Failure};
use crate::supervise::lines::End;
use crate::supervise::stop::Stop;
use crate::supervise::{self, Heard, Spec};
use crate::tool_run;
use crate::toolbox::Toolbox;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Who asks.
pub struct Login {
    /// User name.
    pub user: String,
    /// Password.
    pub password: String,
}

/// Asks with these.
#[derive(Debug)]
pub struct Virsh<'a> {
    /// Programs and environment.
    pub toolbox: &'a Toolbox,
    /// Working folder.
    pub dir: &'a Path,
    /// The run's private folder.
    pub private: &'a Path,
    /// Between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// Says when to stop.
    pub stop: &'a Stop,
}

impl Virsh<'_> {
    /// The domain of the VM with this name, as libvirt gives it.
    pub async fn dump_xml(&self, url: &str, login: &Login, vm: &str) -> Result<String, Failure> {
        let auth = self.write_auth_file(url, login)?;
        let result = self.ask(url, vm, &auth).await;
        if let Err(e) = fs::remove_file(&auth) {
            tracing::warn!(error = %e, "the authentication file was not removed");
        }
        let xml = result?;
        check_name(&xml, vm)?;
        Ok(xml)
    }

    async fn ask(&self, url: &str, vm: &str, auth: &Path) -> Result<String, Failure> {
        let program = self.toolbox.find("virsh").ok_or_else(|| tool_run::missing("virsh"))?;
        let mut toolbox = self.toolbox.clone();
        toolbox.set("LIBVIRT_AUTH_FILE", auth);
        let env = toolbox.env();
        let spec = Spec {
            program: &program,
            env: &env,
            dir: self.dir,
            grace: self.grace,
            messages: false,
            certificates: self.toolbox.certificates(),
        };
        let mut argv: Vec<OsString> = vec!["-c".into(), url.into(), "dumpxml".into()];
        if vm.starts_with('-') {
            argv.push("--domain".into());
        }
        argv.push(vm.into());
        let (mut xml, mut evidence) = (String::new(), Evidence::default());
        let ended = supervise::run(
            &spec,
            |_| argv,
            self.stop,
            |heard| {
                let Heard::Output(line, end) = heard else { return };
                evidence.line("virsh", line);
                xml.push_str(line);
                if end != End::Cut {
                    xml.push('\n');
                }
            },
        )
        .await
        .map_err(|e| Failure::new(Class::Tool, e.to_string()))?;
        if let Some(cause) = ended.stopped {
            return Err(cause.failure());
        }
        if !ended.status.success() {
            let failure = evidence.failure("virsh", &ended.status.to_string());
            return Err(Failure {
                message: format!("cannot read the VM {vm}: {failure}"),
                ..failure
            });
        }
        Ok(document(&xml).to_owned())
    }

    fn write_auth_file(&self, url: &str, login: &Login) -> Result<PathBuf, Failure> {
        let Login { user, password } = login;
        let host = url::Url::parse(url)
            .ok()
            .and_then(|u| u.host_str().map(|h| h.trim_matches(['[', ']']).to_owned()))
            .unwrap_or_default();
        let path = self.private.join("libvirt-auth");
        let text = format!(
            "[credentials-source]\nusername={user}\npassword={password}\n\n[auth-esx-{host}]\ncredentials=source\n\n[auth-vpx-{host}]\ncredentials=source\n"
        );
        write_private(&path, &text)?;
        Ok(path)
    }
}

/// The domain in what virsh said. stdout and stderr share a pipe: warnings may stand before the document
/// and behind it.
fn document(said: &str) -> &str {
    const END: &str = "</domain>";
    let start = said.find("<domain").unwrap_or(0);
    let end = said.rfind(END).map_or(said.len(), |at| at + END.len());
    said.get(start..end).filter(|found| !found.is_empty()).unwrap_or(said)
}

/// A file for nobody else.
pub fn write_private(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |e: std::io::Error| {
        Failure::new(Class::NoSpace, format!("cannot write {}: {e}", path.display()))
    };
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path).and_then(|mut file| file.write_all(text.as_bytes())).map_err(failed)
}

/// virsh takes a number for an ID and a UUID for itself: make sure that it is the VM we mean.
fn check_name(xml: &str, vm: &str) -> Result<(), Failure> {
    let document = roxmltree::Document::parse(xml)
        .map_err(|e| Failure::new(Class::Io, format!("the domain of {vm} is no XML: {e}")))?;
    let mut names = document.root_element().children().filter(|n| n.has_tag_name("name"));
    match names.find_map(|n| n.text()) {
        Some(name) if name != vm => {
            let message = format!("asked for the VM {vm}, libvirt gave {name}");
            Err(Failure::new(Class::NotFound, message))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_around_the_document_are_cut_off() {
        let xml = "<domain type='vmware'>\n  <name>web</name>\n</domain>";
        for said in
            [xml.to_owned(), format!("{xml}\n\n"), format!("warning: <x>\n{xml}\nerror: y\n")]
        {
            assert_eq!(document(&said), xml);
        }
        for other in ["", "no XML", "</domain><domain"] {
            assert_eq!(document(other), other);
        }
        check_name(xml, "web").unwrap();
        assert_eq!(check_name(xml, "42").unwrap_err().class, Class::NotFound);
        assert_eq!(check_name("no XML", "web").unwrap_err().class, Class::Io);
    }
}

//! Fetches the libvirt domain of a VM, for in-place conversion.
//!
//! `virsh` does it in a process of its own. The credentials go into an authentication file in the
//! run's private folder, never onto a command line or into an environment.

use super::Pod;
use crate::classify::Evidence;
use crate::config::pod::VSphere;
use crate::failure::{Class, Failure};
use crate::secret;
use crate::supervise::lines::End;
use crate::supervise::{self, Heard, Spec};
use crate::tool_run;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

impl Pod<'_> {
    /// The domain XML as libvirt gives it.
    pub(super) async fn fetch_domain(&self, vsphere: &VSphere) -> Result<String, Failure> {
        let auth = self.write_auth_file(vsphere)?;
        let result = self.dump_xml(vsphere, &auth).await;
        if let Err(e) = fs::remove_file(&auth) {
            tracing::warn!(error = %e, "the authentication file was not removed");
        }
        result
    }

    async fn dump_xml(&self, vsphere: &VSphere, auth: &PathBuf) -> Result<String, Failure> {
        let runner = &self.runner;
        let program = runner.toolbox.find("virsh").ok_or_else(|| tool_run::missing("virsh"))?;
        let mut toolbox = runner.toolbox.clone();
        toolbox.set("LIBVIRT_AUTH_FILE", auth);
        let env = toolbox.env();
        let spec = Spec {
            program: &program,
            env: &env,
            dir: &runner.tmp,
            grace: runner.grace,
            messages: false,
            certificates: runner.toolbox.certificates(),
        };
        let mut argv: Vec<OsString> = vec!["-c".into(), self.url(vsphere).into(), "dumpxml".into()];
        if self.config.vm_name.starts_with('-') {
            argv.push("--domain".into());
        }
        argv.push(self.config.vm_name.clone().into());
        let (mut xml, mut evidence) = (String::new(), Evidence::default());
        let ended = supervise::run(
            &spec,
            |_| argv,
            &runner.stop,
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
                message: format!("cannot read the VM {}: {failure}", self.config.vm_name),
                ..failure
            });
        }
        // stdout and stderr share a pipe: warnings may stand before the document.
        let start = xml.find('<').unwrap_or(0);
        let xml = xml.split_off(start);
        self.check_name(&xml)?;
        Ok(xml)
    }

    /// virsh takes a number for an ID and a UUID for itself: make sure that it is the VM we mean.
    fn check_name(&self, xml: &str) -> Result<(), Failure> {
        let document = roxmltree::Document::parse(xml).map_err(|e| {
            Failure::new(Class::Io, format!("the domain of {} is no XML: {e}", self.config.vm_name))
        })?;
        let mut names = document.root_element().children().filter(|n| n.has_tag_name("name"));
        match names.find_map(|n| n.text()) {
            Some(name) if name != self.config.vm_name => Err(Failure::new(
                Class::NotFound,
                format!("asked for the VM {}, libvirt gave {name}", self.config.vm_name),
            )),
            _ => Ok(()),
        }
    }

    fn write_auth_file(&self, vsphere: &VSphere) -> Result<PathBuf, Failure> {
        let paths = &self.config.paths;
        let user = secret::read(&paths.access_key, "user name")?;
        let password = secret::read(&paths.secret_key, "password")?;
        let host = url::Url::parse(&vsphere.url)
            .ok()
            .and_then(|u| u.host_str().map(|h| h.trim_matches(['[', ']']).to_owned()))
            .unwrap_or_default();
        let path = self.run_dir.join("libvirt-auth");
        let text = format!(
            "[credentials-source]\nusername={user}\npassword={password}\n\n[auth-esx-{host}]\ncredentials=source\n\n[auth-vpx-{host}]\ncredentials=source\n"
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
        file.write_all(text.as_bytes()).map_err(failed)?;
        Ok(path)
    }
}

//! Fetches the libvirt domain of a VM, for conversions on the volumes.

use super::Pod;
use crate::config::pod::{Job, VSphere};
use crate::failure::{Class, Failure};
use crate::vsphere::virsh::{self, Login, Virsh};

impl Pod<'_> {
    /// The domain XML as libvirt gives it.
    pub(super) async fn fetch_domain(&self, vsphere: &VSphere) -> Result<String, Failure> {
        if let Some(xml) = self.domain.get() {
            return Ok(xml.clone());
        }
        let paths = &self.config.paths;
        let url = self.url(vsphere);
        let first = matches!(self.config.job, Job::CopyFirst(_));
        let named = first && self.ready.server.as_ref().is_some_and(|s| s.access.names_user());
        let login = Login {
            url: &url,
            user_file: (!named).then_some(&paths.access_key),
            password_file: &paths.secret_key,
        };
        let libvirt = Virsh::new(&login, &self.runner.toolbox, self.run_dir)?;
        // In place it is the contract's name alone.
        let name = if first { self.vm(vsphere) } else { self.config.vm_name.as_str() };
        let words: &[&str] =
            if name.starts_with('-') { &["dumpxml", "--domain", name] } else { &["dumpxml", name] };
        let mut stop = self.runner.stop.clone();
        let xml = tokio::select! {
            xml = libvirt.ask(words) => xml,
            cause = stop.next() => return Err(cause.failure()),
        };
        let said = xml.map_err(|failure| Failure {
            message: format!("cannot read the VM {name}: {}", failure.message),
            ..failure
        })?;
        let xml = virsh::document(&said).to_owned();
        if first {
            let meant = super::meant_by(vsphere, self.config, self.found());
            if let Some(failure) = meant.other(&xml) {
                return Err(failure);
            }
        } else {
            self.check_name(&xml)?;
        }
        // Only one of them is ever read.
        let _ = self.domain.set(xml.clone());
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
}

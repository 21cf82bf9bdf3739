//! Fetches the libvirt domain of a VM, for in-place conversion.

use super::Pod;
use crate::config::pod::VSphere;
use crate::failure::{Class, Failure};
use crate::vsphere::virsh::{Login, Virsh};

impl Pod<'_> {
    /// The domain XML as libvirt gives it.
    pub(super) async fn fetch_domain(&self, vsphere: &VSphere) -> Result<String, Failure> {
        let paths = &self.config.paths;
        let url = self.url(vsphere);
        let login = Login {
            url: &url,
            user_file: Some(&paths.access_key),
            password_file: &paths.secret_key,
        };
        let virsh = Virsh::new(&login, &self.runner.toolbox, self.run_dir)?;
        let name = self.config.vm_name.as_str();
        let words: &[&str] =
            if name.starts_with('-') { &["dumpxml", "--domain", name] } else { &["dumpxml", name] };
        let mut stop = self.runner.stop.clone();
        let xml = tokio::select! {
            xml = virsh.ask(words) => xml,
            cause = stop.next() => return Err(cause.failure()),
        };
        let mut xml = xml.map_err(|failure| Failure {
            message: format!("cannot read the VM {name}: {}", failure.message),
            ..failure
        })?;
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
}

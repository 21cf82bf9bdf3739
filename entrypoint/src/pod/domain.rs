//! Fetches the libvirt domain of a VM, for in-place conversion.

use super::Pod;
use crate::config::pod::VSphere;
use crate::failure::Failure;
use crate::secret;
use crate::vsphere::virsh::{Login, Virsh};

impl Pod<'_> {
    /// The domain XML as libvirt gives it.
    pub(super) async fn fetch_domain(&self, vsphere: &VSphere) -> Result<String, Failure> {
        let paths = &self.config.paths;
        let login = Login {
            user: secret::read(&paths.access_key, "user name")?,
            password: secret::read(&paths.secret_key, "password")?,
        };
        let virsh = Virsh {
            toolbox: &self.runner.toolbox,
            dir: &self.runner.tmp,
            private: self.run_dir,
            grace: self.runner.grace,
            stop: &self.runner.stop,
        };
        virsh.dump_xml(&self.url(vsphere), &login, &self.config.vm_name).await
    }
}

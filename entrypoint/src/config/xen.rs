//! The settings of a Xen source. Touches no file.

use super::ConfigError;
use super::pod::Reader;
use super::settings::parse_bool;
use crate::trust::Fingerprint;
use crate::vsphere::access::TrustMode;

/// A VM on a Xen host; its name is that of the pod's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xen {
    /// `xen+ssh://user@host/`
    pub url: String,
    /// Fingerprint of the host key, when given.
    pub fingerprint: Option<Fingerprint>,
    /// How the host proves itself.
    pub trust: TrustMode,
    /// Algorithms of old hosts are allowed.
    pub legacy: bool,
}

impl Reader<'_> {
    /// From `V2V_libvirtURL`, `V2V_fingerprint`, `V2V_trust` and `V2V_sshLegacy`; `V2V_vmName` must be there.
    pub(super) fn xen(&self) -> Result<Xen, ConfigError> {
        let url = self.required("V2V_libvirtURL", "xen")?;
        self.required("V2V_vmName", "xen")?;
        let legacy = self.values.get("V2V_sshLegacy").map_or(Ok(false), |text| {
            parse_bool(text).ok_or_else(|| ConfigError::BadValue {
                variable: "V2V_sshLegacy",
                value: text.to_owned(),
                allowed: "true or false",
            })
        })?;
        Ok(Xen { url, fingerprint: self.fingerprint()?, trust: self.trust()?, legacy })
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::Values;
    use super::*;
    use std::collections::BTreeMap;

    fn read(settings: &[(&str, &str)]) -> Result<Xen, ConfigError> {
        let env: BTreeMap<String, String> =
            settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Reader::new(&Values::new(&[], env).unwrap()).xen()
    }

    const URL: (&str, &str) = ("V2V_libvirtURL", "xen+ssh://root@xen/");
    const VM: (&str, &str) = ("V2V_vmName", "web");

    #[test]
    fn a_source_needs_a_url_and_a_name() {
        let pin = "SHA256:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0";
        let xen = read(&[URL, VM, ("V2V_fingerprint", pin), ("V2V_trust", "insecure")]).unwrap();
        assert_eq!(xen.trust, TrustMode::Insecure);
        assert_eq!(xen.fingerprint, Some(Fingerprint::of_sha256(b"abc")));
        let plain = read(&[URL, VM]).unwrap();
        assert!(plain.trust == TrustMode::Auto && !plain.legacy);
        assert!(read(&[URL, VM, ("V2V_sshLegacy", "1")]).unwrap().legacy);
        assert!(matches!(
            read(&[URL, VM, ("V2V_sshLegacy", "yes")]),
            Err(ConfigError::BadValue { .. })
        ));
        assert!(matches!(read(&[VM]), Err(ConfigError::Missing { .. })));
        assert!(matches!(read(&[URL]), Err(ConfigError::Missing { .. })));
        assert!(matches!(
            read(&[URL, VM, ("V2V_trust", "always")]),
            Err(ConfigError::BadValue { .. })
        ));
        assert!(matches!(
            read(&[URL, VM, ("V2V_fingerprint", "SHA256:x")]),
            Err(ConfigError::Thumbprint { .. })
        ));
    }
}

//! The settings of a Xen source. Touches no file.

use super::ConfigError;
use super::settings::{Values, parse_bool};
use crate::trust::Fingerprint;
use crate::vsphere::access::TrustMode;
use clap::ValueEnum;

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

impl Xen {
    /// From `V2V_libvirtURL`, `V2V_fingerprint`, `V2V_trust` and `V2V_sshLegacy`; `V2V_vmName` must be there.
    pub fn read(values: &Values) -> Result<Self, ConfigError> {
        let required = |variable| {
            values.get(variable).ok_or(ConfigError::Missing { variable, source_kind: "xen" })
        };
        let url = required("V2V_libvirtURL")?.to_owned();
        required("V2V_vmName")?;
        let fingerprint = values.get("V2V_fingerprint").map(str::parse).transpose();
        let fingerprint = fingerprint
            .map_err(|source| ConfigError::Thumbprint { variable: "V2V_fingerprint", source })?;
        let trust = values.get("V2V_trust").map_or(Ok(TrustMode::Auto), |text| {
            TrustMode::from_str(text, false).map_err(|_| ConfigError::BadValue {
                variable: "V2V_trust",
                value: text.to_owned(),
                allowed: "auto, ca, thumbprint or insecure",
            })
        })?;
        let legacy = values.get("V2V_sshLegacy").map_or(Ok(false), |text| {
            parse_bool(text).ok_or_else(|| ConfigError::BadValue {
                variable: "V2V_sshLegacy",
                value: text.to_owned(),
                allowed: "true or false",
            })
        })?;
        Ok(Self { url, fingerprint, trust, legacy })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn read(settings: &[(&str, &str)]) -> Result<Xen, ConfigError> {
        let env: BTreeMap<String, String> =
            settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Xen::read(&Values::new(&[], env).unwrap())
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

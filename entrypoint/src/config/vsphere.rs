//! The settings of a VM that libvirt reaches.

use super::ConfigError;
use super::pod::{Reader, value_of};
use crate::trust::Fingerprint;
use crate::vsphere::access::TrustMode;
use crate::vsphere::transport::Wish;
use std::num::NonZeroU32;
use std::time::Duration;

/// A VM that libvirt reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VSphere {
    /// `vpx://` or `esx://`.
    pub url: String,
    /// Thumbprint of the server, when given.
    pub fingerprint: Option<Fingerprint>,
    /// How the server proves itself.
    pub trust: TrustMode,
    /// Which way the data comes.
    pub transport: Wish,
    /// BIOS UUID of the VM, where the name is not enough.
    pub vm_uuid: Option<String>,
    /// Reference of the VM, where the name is not enough.
    pub vm_moref: Option<String>,
    /// How often the session is begun anew over HTTPS; `None` leaves it to virt-v2v.
    pub cookie_renew: Option<Duration>,
    /// Host name to set in the guest.
    pub hostname: Option<String>,
}

impl Reader<'_> {
    /// With this URL.
    pub(super) fn vsphere(&self, url: String) -> Result<VSphere, ConfigError> {
        Ok(VSphere {
            url,
            fingerprint: self.fingerprint()?,
            trust: self.trust()?,
            transport: self.choice("V2V_transport", "auto, vddk or https", value_of)?,
            vm_uuid: self.uuid()?,
            vm_moref: self.text("V2V_vmMoref"),
            cookie_renew: self.cookie_renew()?,
            hostname: self.text("V2V_HOSTNAME"),
        })
    }

    /// For an OVA on a web server as well.
    pub(super) fn trust(&self) -> Result<TrustMode, ConfigError> {
        self.choice("V2V_trust", "auto, ca, thumbprint or insecure", value_of)
    }

    /// Likewise.
    pub(super) fn fingerprint(&self) -> Result<Option<Fingerprint>, ConfigError> {
        let variable = "V2V_fingerprint";
        let parsed = self.values.get(variable).map(str::parse).transpose();
        parsed.map_err(|source| ConfigError::Thumbprint { variable, source })
    }

    fn cookie_renew(&self) -> Result<Option<Duration>, ConfigError> {
        let Some(text) = self.text("V2V_cookieRenew") else { return Ok(None) };
        let seconds: Option<NonZeroU32> = text.parse().ok();
        seconds.map(|s| Some(Duration::from_secs(s.get().into()))).ok_or(ConfigError::BadValue {
            variable: "V2V_cookieRenew",
            value: text,
            allowed: "seconds, at least 1",
        })
    }

    fn uuid(&self) -> Result<Option<String>, ConfigError> {
        let Some(text) = self.text("V2V_vmUUID") else { return Ok(None) };
        let groups: Vec<usize> = text.split('-').map(str::len).collect();
        let hex = text.chars().all(|c| c == '-' || c.is_ascii_hexdigit());
        if hex && groups == [8, 4, 4, 4, 12] {
            return Ok(Some(text));
        }
        Err(ConfigError::BadValue {
            variable: "V2V_vmUUID",
            value: text,
            allowed: "a UUID such as 42000000-1111-2222-3333-444455556666",
        })
    }
}

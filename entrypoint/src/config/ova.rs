//! The settings of an OVA.

use super::ConfigError;
use super::pod::{Reader, value_of};
use crate::ova::Wanted;

impl Reader<'_> {
    /// At this place.
    pub(super) fn ova(&self, place: &str) -> Result<Wanted, ConfigError> {
        Ok(Wanted {
            place: place.parse().map_err(ConfigError::Ova)?,
            verify: self.choice("V2V_ovaVerify", "auto, always or never", value_of)?,
            trust: self.trust()?,
            thumbprint: self.fingerprint()?,
        })
    }
}

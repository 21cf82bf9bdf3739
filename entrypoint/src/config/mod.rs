//! Configuration: environment and flags in, types that cannot be wrong out.
//!
//! Read once at the start. Nothing after this module looks at the environment.

pub mod copy_first;
pub mod goflags;
mod ova;
pub mod pod;
pub mod settings;
mod vsphere;
pub mod xen;

use thiserror::Error;

/// Why a configuration was refused. Every variant names the input.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// A flag that does not exist.
    #[error("unknown flag {0}; `v2v-pod --help` lists the settings")]
    UnknownFlag(String),
    /// A flag without its value.
    #[error("flag {0} needs a value")]
    FlagWithoutValue(String),
    /// A boolean flag with something else.
    #[error("flag {flag} takes true or false, not {value:?}")]
    BadBooleanFlag {
        /// The flag.
        flag: String,
        /// What was given.
        value: String,
    },
    /// A word that is no flag.
    #[error("unexpected argument {0:?}; `v2v-pod --help` lists commands and settings")]
    UnexpectedArgument(String),
    /// A required variable is absent or empty.
    #[error("{variable} is not set; it is required for source {source_kind}")]
    Missing {
        /// The variable.
        variable: &'static str,
        /// The source that needs it.
        source_kind: &'static str,
    },
    /// Nothing says what to do.
    #[error(
        "V2V_source is not set; it must be vSphere, ova, hyperv or xen (without a subcommand this is a \
         pod's entrypoint: see `v2v-pod --help`)"
    )]
    NoSource,
    /// `V2V_source` is something else.
    #[error("V2V_source is {0:?}; it must be exactly vSphere, ova, hyperv or xen")]
    BadSource(String),
    /// A list that must not be empty is empty.
    #[error("{variable} names no disk")]
    NoDisks {
        /// The variable.
        variable: &'static str,
    },
    /// A value outside what it may be.
    #[error("{variable} is {value:?}; it must be {allowed}")]
    BadValue {
        /// The variable.
        variable: &'static str,
        /// What was given.
        value: String,
        /// What it may be.
        allowed: &'static str,
    },
    /// Disks of this job cannot be copied first.
    #[error(
        "V2V_copyFirst is set, but disks cannot be copied first {what}: leave V2V_copyFirst out{instead}"
    )]
    CopyFirst {
        /// Which job it is.
        what: &'static str,
        /// What could be meant.
        instead: &'static str,
    },
    /// A thumbprint that is none.
    #[error("{variable}: {source}")]
    Thumbprint {
        /// The variable.
        variable: &'static str,
        /// What is wrong with it.
        source: crate::trust::FingerprintError,
    },
    /// A place of an OVA that is none.
    #[error("V2V_diskPath: {0}")]
    Ova(crate::ova::PlaceError),
}

impl ConfigError {
    /// True for mistakes on the command line, which exit with 2 as Forklift's pod does.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::UnknownFlag(_)
                | Self::FlagWithoutValue(_)
                | Self::BadBooleanFlag { .. }
                | Self::UnexpectedArgument(_)
        )
    }
}

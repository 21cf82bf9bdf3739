//! Grants: how the copier that virt-v2v starts (v2v-pod under the name `nbdcopy`) and the supervisor
//! that started virt-v2v talk. JSON lines over a Unix socket; the copier speaks first.
//!
//! ```text
//! copier -> {"hello":{"source":"nbd+unix:…/in0","target":"nbd+unix:…/out0"}}
//! copier <- {"grant":{"disk":0,"target":"/dev/block0","verify":false}}    or {"refuse":"why"}
//! copier -> {"take":4194304}          copier <- {"given":4194304}          (bandwidth, as often as needed)
//! copier <- {"requests":262144}       at any time: read no more than this at once
//! copier -> {"progress":{…}}          every half second
//! copier -> {"done":{…}}              the disk is durable        or {"failed":{…}}
//! ```

pub mod server;

use crate::copy::rate::RateSource;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Tells the copier where the socket is.
pub const SOCKET_VARIABLE: &str = "NBDCOPY_GRANTS";

/// From the copier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FromCopier {
    /// First line: what virt-v2v asked to be copied.
    Hello {
        /// URI of the source.
        source: String,
        /// URI of the target.
        target: String,
    },
    /// May so many bytes be moved?
    Take(u64),
    /// How far it is.
    Progress(Counts),
    /// The disk is durable.
    Done(Counts),
    /// It failed.
    Failed {
        /// Name of the class.
        class: String,
        /// What.
        message: String,
        /// What to do.
        advice: String,
    },
}

/// Counters of a disk, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Size of the disk.
    pub size: u64,
    /// Dealt with.
    pub done: u64,
    /// Read and written.
    pub copied: u64,
    /// Compared.
    pub verified: u64,
    /// Requests that were repeated.
    pub retries: u64,
}

/// To the copier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ToCopier {
    /// Go.
    Grant {
        /// Index of the disk.
        disk: usize,
        /// The volume behind the target, `None`: write to the target as named.
        target: Option<PathBuf>,
        /// Read the target back and compare.
        verify: bool,
    },
    /// Do not.
    Refuse(String),
    /// So many bytes may be moved.
    Given(u64),
    /// Read no more bytes than this in one request: the source has no memory for more.
    Requests(u64),
}

/// Which program copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Copier {
    /// Ours.
    #[default]
    #[value(name = "v2v-pod")]
    V2vPod,
    /// libnbd's nbdcopy.
    Nbdcopy,
}

/// How disks are copied in a conversion.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CopySettings {
    /// By which program.
    pub copier: Copier,
    /// Most bytes per second for all disks together.
    pub rate: Option<RateSource>,
    /// Compare the volumes with what was read.
    pub verify: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_look_as_documented() {
        let line = |m: &FromCopier| serde_json::to_string(m).unwrap();
        let hello = FromCopier::Hello { source: "a".into(), target: "b".into() };
        assert_eq!(line(&hello), r#"{"hello":{"source":"a","target":"b"}}"#);
        assert_eq!(line(&FromCopier::Take(5)), r#"{"take":5}"#);
        let grant = r#"{"grant":{"disk":0,"target":"/dev/block0","verify":false}}"#;
        assert!(matches!(
            serde_json::from_str(grant),
            Ok(ToCopier::Grant { disk: 0, target: Some(_), .. })
        ));
    }
}

//! Tries a VDDK out in a throw-away process: found, complete, loadable, initialised, and with a server given also
//! connected, a disk opened and its first sector read. Whatever the library does there (crash, hang, exit), this
//! process only hears of it.

mod child;
mod parent;
mod report;
mod run;
mod verdict;

pub use child::child_main;
pub use parent::{NO_MANIFEST, Settings, probe};
pub use report::{Connected, Problem, ProblemKind, Report, Step};

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The subcommand of the helper program.
pub const CHILD: &str = "probe-child";

/// What the child is to do; it comes on its standard input, since it may contain a password.
#[derive(Clone, Serialize, Deserialize)]
pub struct Order {
    /// The library.
    pub library: PathBuf,
    /// Given to `InitEx`.
    pub libdir: PathBuf,
    /// VDDK's configuration file.
    pub conf: Option<PathBuf>,
    /// Also connect.
    pub connect: Option<Connect>,
}

/// A disk on a server.
#[derive(Clone, Serialize, Deserialize)]
pub struct Connect {
    /// Host name or address.
    pub server: String,
    /// HTTPS port.
    pub port: u16,
    /// Port of the data; `None`: 902.
    pub nfc_port: Option<u16>,
    /// User.
    pub user: String,
    /// Password.
    pub password: String,
    /// SHA-1, `AA:BB:…`.
    pub thumbprint: Option<String>,
    /// Reference of the VM, `vm-16`.
    pub vm: String,
    /// `[datastore] folder/disk.vmdk`.
    pub disk: String,
    /// Reference of a snapshot.
    pub snapshot: Option<String>,
    /// `file:nbdssl:nbd`.
    pub transports: Option<String>,
}

impl std::fmt::Debug for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Order")
            .field("library", &self.library)
            .field("connect", &self.connect)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Connect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connect")
            .field("server", &self.server)
            .field("disk", &self.disk)
            .finish_non_exhaustive()
    }
}

/// From the child, one JSON line each.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    /// Begins this step.
    Step(Step),
    /// The transport modes.
    Modes(String),
    /// The disk was read.
    Connected(Connected),
    /// A step failed.
    Failed {
        /// In which function, for a call.
        function: Option<String>,
        /// VIX code, for a call.
        code: Option<u16>,
        /// The library's own words.
        text: String,
        /// Functions that are missing.
        symbols: Vec<String>,
    },
    /// All done.
    Done,
}

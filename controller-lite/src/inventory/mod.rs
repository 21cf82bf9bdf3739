//! The inventory of a source: which VMs it has, where they are, what they are made of.
//!
//! [`vsphere`] asks a vCenter or an ESXi host, [`choose`] finds the VM that a Plan means, [`names`] has libvirt's URL for it,
//! [`command`] is the subcommand.
//! Nothing here changes anything at the source, and nothing here knows Kubernetes.

pub mod choose;
pub mod command;
pub mod error;
pub mod http;
pub mod model;
pub mod names;
pub mod server;
mod soap;
mod tree;
pub mod trust;
mod vm;
pub mod vsphere;

pub use choose::{ChoiceError, Wanted, choose};
pub use error::{Class, Error};
pub use http::Limits;
pub use model::*;
pub use names::{esx_url, libvirt_url};
pub use server::Server;
pub use trust::{Thumbprint, ThumbprintError, Trust};
#[cfg(test)]
pub(crate) use vm::tests::a_vm;
pub use vsphere::{Password, Source, inventory};

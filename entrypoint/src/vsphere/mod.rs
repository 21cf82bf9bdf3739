//! vCenter and ESXi as sources: whom to trust, and which way the data comes.

pub mod access;
pub mod anchors;
pub mod choose;
pub mod domain_watch;
pub mod find;
pub mod query;
pub mod snapshots;
pub mod transport;
pub mod virsh;

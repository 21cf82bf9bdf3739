//! VMware's VDDK (the Virtual Disk Development Kit) as an optional, proprietary part: put into a shared volume by a
//! sidecar ([`install`]), found ([`library`]), loaded and tried in a process of its own ([`probe`]). Nothing of
//! VDDK's is part of this crate; its interface is described in [`vix`].

pub mod conf;
pub mod elf;
pub mod install;
pub mod library;
pub mod manifest;
pub mod probe;
pub mod repair;
pub mod tree;
pub mod vix;

/// The folder's name in VMware's archive, in the sidecar image, and in the volume.
pub const DISTRIB: &str = "vmware-vix-disklib-distrib";

//! What the guest is: its definition, its operating system and its source images.
//!
//! Pure text in, typed values or text out; nothing here opens a file or starts a program. The
//! phases call it: *Prepare* rewrites the domain XML for an in-place conversion and decides the
//! format of local images, *Inspect* reads what virt-v2v-inspector found, and *Serve* hands out
//! the `VirtualMachine` built here. All input is treated as hostile: it comes from another
//! hypervisor, or from the guest's own disks.

#![allow(clippy::doc_markdown, reason = "KubeVirt and VMware are products, not items of code")]

pub mod capabilities;
pub mod disks_domain;
pub mod domain_disks;
pub mod domain_info;
pub mod domain_xml;
pub mod image;
pub mod inspection;
mod kube_name;
pub mod target_domain;
pub mod vm_yaml;
pub mod vmdk;
mod xml;

//! A guest on a Xen host, over SSH: `xen+ssh://user@host/`. virt-v2v reads the domain through libvirt, whose transport is
//! the program `ssh`, and the disks with nbdkit's `ssh` plugin, which is libssh. Both know of passwords, keys and host keys
//! in ways of their own; here they get one and the same, checked before anything is written.
//!
//! [`url`] and [`host_key`], [`domain`] and [`said`] are pure; [`config`] writes what the tools read; [`front`] is v2v-pod
//! under the names `ssh` and `ssh-askpass`; [`host`] asks for
//! host keys, [`check`] does the preflight.

pub mod check;
pub mod config;
pub mod domain;
pub mod front;
pub mod host;
pub mod host_key;
pub mod said;
pub mod secrets;
pub mod url;

//! A minimal controller: Provider and Plan in, volumes, conversion pods and KubeVirt VMs out.

pub mod inventory;

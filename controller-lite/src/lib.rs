//! A minimal controller: `Provider` and `Plan` in, volumes, conversion pods and KubeVirt VMs out.

pub mod api;
pub mod crds;
pub mod inventory;
pub mod objects;
pub mod probes;
pub mod reconcile;

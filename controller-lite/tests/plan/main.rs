//! The controller on a real API server. What runs beside it in a cluster (kubelet, CDI) the tests
//! do themselves, with `kubectl`; `podman` runs the pod that the controller made for real.

// Helpers of tests are not seen as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod crash;
mod gate;
mod journal;
mod kubelet;
mod lab;
mod leader;
mod meddling;
mod namespace;
mod podman;
mod provider;
mod sources;
mod story;
mod strict;
mod trouble;
mod vsphere;

//! End-to-end lab: the real image, run as an unprivileged pod, on real volumes and real guests.
//!
//! The tests are in `tests/tests/e2e`. They need root, podman, QEMU and loop devices; where one
//! is missing they fail and say how to install it. How a pod is started is written once, in
//! `tests/lab/podman.sh`, which this module calls.
//!
//! Rooms: `lab` (what all tests share: image, guests, turns, ports), `volume` (block devices and
//! folders), `pod` (one container), `process` (what runs in it), `watch` (what a controller and a
//! viewer see while it runs), `vcenter` (a simulated vCenter that serves real disks, and VDDK's stand-in),
//! `xen` (a host reached over SSH),
//! `apiserver` (a real Kubernetes API server), `forklift` (its controller, as far as a pod sees it).

pub mod apiserver;
pub mod forklift;
pub mod lab;
pub mod pod;
pub mod process;
pub mod vcenter;
pub mod volume;
pub mod watch;
pub mod xen;

//! From what a Plan asks for to running VMs.
//!
//! `decide`, `failure` and `cleanup` are pure: from what was seen to what is to be done. The rest
//! looks at the API server and does it. Nothing is remembered between two rounds but what the
//! API server has, so a controller that is killed anywhere goes on where it was.

pub mod cleanup;
pub mod decide;
pub mod failure;

//! From what a Plan asks for to running VMs.
//!
//! `decide`, `failure`, `guest`, `measure`, `cleanup` and `keep` are pure: from what was seen to what is to
//! be done. The rest looks at the API server and does it. Nothing is remembered between two rounds
//! but what the API server has, so a controller that is killed anywhere goes on where it was.

pub mod act;
pub mod admission;
pub mod cleanup;
pub mod cluster;
pub mod conditions;
pub mod decide;
pub mod deleted;
pub mod elsewhere;
pub mod failure;
pub mod guest;
pub mod keep;
pub mod lease;
pub mod measure;
pub mod observe;
pub mod plan;
pub mod pod_http;
pub mod provider;
pub mod run;
pub mod source;
pub mod status;
pub mod vsphere;

use crate::api::plan::Plan;
use crate::objects::size::Overhead;
use cluster::Cluster;

/// What all rounds share.
pub struct Context {
    /// The cluster.
    pub cluster: Cluster,
    /// Name of this controller, in events.
    pub instance: String,
    /// Image of the conversion pods.
    pub image: String,
    /// Of filesystem volumes.
    pub overhead: Overhead,
    /// Of Providers of type vsphere.
    pub inventories: vsphere::Inventories,
    /// Before the second try.
    pub retry_delay_s: u64,
}

impl Context {
    /// The conversion image of a Plan.
    pub fn image<'a>(&'a self, plan: &'a Plan) -> &'a str {
        plan.image(&self.image)
    }
}

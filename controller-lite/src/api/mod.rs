//! The API: what an operator writes (`Provider`, `Plan`) and what the controller answers (their
//! status). Types alone; nothing here talks to anyone. What the schema refuses (types, CEL rules)
//! never reaches the controller; what only the source or the cluster can tell is preflight's.

pub mod plan;
mod plan_status;
pub mod provider;

pub use plan::{Plan, PlanSpec, PlanStatus};
pub use provider::{Provider, ProviderSpec, ProviderStatus};

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// The API group of all our kinds, and the prefix of our labels, annotations and finalizers.
pub const GROUP: &str = "conversion.v2v-pod.dev";

/// The name of an object of a known kind in the same namespace.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NameRef {
    /// Name of the object, in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

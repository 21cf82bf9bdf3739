//! A namespace that does not admit the controller (`deploy/rbac.yaml`). That is for people to change,
//! so it is said where they look, and looked at again from time to time.

use super::cluster::{Cluster, Error};
use super::observe::Objects;
use super::status;
use crate::api::plan::{Plan, PlanPhase, PlanStatus};
use kube::runtime::controller::Action;
use std::time::Duration;

const AGAIN: Duration = Duration::from_secs(15);

/// The objects of a Plan; or what the controller does instead of reading them.
pub async fn objects(
    cluster: &Cluster,
    plan: &Plan,
    namespace: &str,
    uid: &str,
) -> Result<Result<Objects, Action>, Error> {
    match Objects::read(cluster, namespace, uid).await {
        Ok(objects) => Ok(Ok(objects)),
        // Nothing was made, so nothing stands in the way of its deletion.
        Err(error) if error.is_forbidden() && leaves_unused(plan) => Ok(Ok(Objects::default())),
        Err(error) if error.is_forbidden() => {
            status::write(cluster, plan, &waiting(plan, namespace)).await?;
            Ok(Err(Action::requeue(AGAIN)))
        }
        Err(error) => Err(error),
    }
}

fn leaves_unused(plan: &Plan) -> bool {
    let begun = plan.status.as_ref().is_some_and(|status| status.start_time.is_some());
    plan.metadata.deletion_timestamp.is_some() && !begun
}

fn waiting(plan: &Plan, namespace: &str) -> PlanStatus {
    let old = plan.status.clone().unwrap_or_default();
    let message = format!(
        "the controller is not admitted to namespace {namespace}: kubectl create rolebinding controller-lite \
         -n {namespace} --clusterrole=controller-lite-namespace --serviceaccount=v2v-pod-system:controller-lite"
    );
    PlanStatus {
        phase: old.phase.or(Some(PlanPhase::Pending)),
        message: Some(message),
        observed_generation: plan.metadata.generation,
        ..old
    }
}

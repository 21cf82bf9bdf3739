//! A namespace that does not admit the controller (`deploy/rbac.yaml`). That is for people to change,
//! so it is said where they look, and looked at again from time to time.

use super::cluster::{Cluster, Error, find};
use super::observe::Objects;
use super::status;
use crate::api::plan::{Plan, PlanPhase, PlanStatus};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::Api;
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
        // What was made goes with the namespace. The binding that admitted us may have gone first, and
        // the Plan must not keep the namespace from going.
        Err(error)
            if error.is_forbidden()
                && plan.metadata.deletion_timestamp.is_some()
                && goes(cluster, namespace).await? =>
        {
            Ok(Ok(Objects::default()))
        }
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

/// Whether a namespace is being deleted, or is gone.
async fn goes(cluster: &Cluster, namespace: &str) -> Result<bool, Error> {
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let found = find(&namespaces, namespace, "namespace").await?;
    Ok(found.is_none_or(|namespace| {
        let phase = namespace.status.and_then(|status| status.phase);
        namespace.metadata.deletion_timestamp.is_some() || phase.as_deref() == Some("Terminating")
    }))
}

/// What somebody who may has to do.
pub fn advice(namespace: &str) -> String {
    format!(
        "the controller is not admitted to namespace {namespace}: kubectl create rolebinding controller-lite \
         -n {namespace} --clusterrole=controller-lite-namespace --serviceaccount=v2v-pod-system:controller-lite"
    )
}

fn waiting(plan: &Plan, namespace: &str) -> PlanStatus {
    let old = plan.status.clone().unwrap_or_default();
    PlanStatus {
        phase: old.phase.or(Some(PlanPhase::Pending)),
        message: Some(advice(namespace)),
        observed_generation: plan.metadata.generation,
        ..old
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    /// Answers like an API server that lets the controller read namespaces, and nothing in them.
    fn forbidding(namespace: Option<Value>) -> Cluster {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let first = lines.next().unwrap().unwrap();
                lines.map_while(Result::ok).take_while(|line| !line.is_empty()).for_each(drop);
                let no = |code: u16, reason: &str| {
                    json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure",
                        "message": reason, "reason": reason, "code": code })
                };
                let (code, body) = match &namespace {
                    _ if !first.starts_with("GET /api/v1/namespaces/lab ") => {
                        (403, no(403, "Forbidden"))
                    }
                    Some(found) => (200, found.clone()),
                    None => (404, no(404, "NotFound")),
                };
                let body = body.to_string();
                let head = format!(
                    "HTTP/1.1 {code} X\r\ncontent-type: application/json\r\n\
                     content-length: {}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
            }
        });
        let config = kube::Config::new(url.parse().unwrap());
        Cluster { client: kube::Client::try_from(config).unwrap() }
    }

    fn begun(deleted: bool) -> Plan {
        let mut plan: Plan = serde_json::from_value(json!({
            "apiVersion": "conversion.v2v-pod.dev/v1alpha1", "kind": "Plan",
            "metadata": { "name": "p", "namespace": "lab", "uid": "u" },
            "spec": { "providerRef": { "name": "x" }, "vms": [{ "name": "web" }] },
            "status": { "startTime": "2026-01-01T00:00:00Z" },
        }))
        .unwrap();
        let at = plan.status.as_ref().unwrap().start_time.clone();
        plan.metadata.deletion_timestamp = at.filter(|_| deleted);
        plan
    }

    #[tokio::test]
    async fn a_plan_does_not_hold_up_its_namespace() {
        let active = json!({ "metadata": { "name": "lab" }, "status": { "phase": "Active" } });
        let leaving =
            json!({ "metadata": { "name": "lab" }, "status": { "phase": "Terminating" } });
        for (namespace, deleted, lets_go) in [
            (Some(leaving.clone()), true, true),
            (None, true, true),
            (Some(active), true, false),
            (Some(leaving), false, false),
        ] {
            let cluster = forbidding(namespace.clone());
            let seen = objects(&cluster, &begun(deleted), "lab", "u").await;
            assert_eq!(matches!(seen, Ok(Ok(_))), lets_go, "{namespace:?} {deleted}");
        }
    }
}

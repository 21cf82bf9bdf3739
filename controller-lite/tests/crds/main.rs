//! The CRDs on a real API server: every rule with what it lets through and what it refuses, what
//! cannot be changed, defaults, printer columns, and that the files in `deploy/` are the current ones.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod columns;
mod docs;
mod plan;
mod provider;

use kube::api::{DynamicObject, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use v2v_pod_tests::e2e::apiserver::ApiServer;

/// A client of the shared server, as its administrator.
async fn client() -> Client {
    let file = Kubeconfig::read_from(&ApiServer::shared().kubeconfig).unwrap();
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

/// Objects of one of our kinds, as JSON: tests write what the types would not let them.
async fn api(kind: &str, namespace: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk(controller_lite::api::GROUP, "v1alpha1", kind);
    Api::namespaced_with(client().await, namespace, &ApiResource::from_gvk(&kind))
}

fn object(kind: &str, name: &str, spec: &Value) -> DynamicObject {
    let api_version = format!("{}/v1alpha1", controller_lite::api::GROUP);
    serde_json::from_value(json!({
        "apiVersion": api_version, "kind": kind, "metadata": {"name": name}, "spec": spec,
    }))
    .unwrap()
}

/// What a case changes in a spec: a path, and the value there; null takes it away.
type Change = (&'static str, Value);

fn changed(spec: &Value, changes: &[Change]) -> Value {
    let mut spec = spec.clone();
    for (path, value) in changes {
        let (parent, key) = path.rsplit_once('/').unwrap();
        let parent = spec.pointer_mut(parent).unwrap_or_else(|| panic!("{path}: no such place"));
        match (parent, value) {
            (Value::Array(list), _) => list[key.parse::<usize>().unwrap()] = value.clone(),
            (parent, Value::Null) => drop(parent.as_object_mut().unwrap().remove(key)),
            (parent, _) => parent[key] = value.clone(),
        }
    }
    spec
}

/// Asks the server about each; nothing is stored. `None` is: accepted; else it must be refused with these words.
async fn judge(kind: &str, base: &Value, cases: &[(&[Change], Option<&str>)]) {
    let objects = api(kind, "default").await;
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let mut wrong = Vec::new();
    for (changes, expected) in cases {
        let created = objects.create(&dry, &object(kind, "x", &changed(base, changes))).await;
        match (created, expected) {
            (Ok(_), None) => {}
            (Err(kube::Error::Api(status)), Some(words)) if status.message.contains(words) => {}
            (Ok(_), Some(words)) => {
                wrong.push(format!("{changes:?}: accepted, not refused: {words}"));
            }
            (Err(error), expected) => wrong.push(format!("{changes:?}: {error}, not {expected:?}")),
        }
    }
    assert!(wrong.is_empty(), "{kind}:\n{}", wrong.join("\n"));
}

#[test]
fn deploy_has_the_crds_that_the_program_prints() {
    let path = v2v_pod_tests::e2e::lab::root().join("deploy/crds.yaml");
    let file = std::fs::read_to_string(path).unwrap();
    let printed = controller_lite::crds::yaml().unwrap();
    assert!(file == printed, "deploy/crds.yaml is old: controller-lite crds >deploy/crds.yaml");
}

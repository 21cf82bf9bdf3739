//! `kubectl apply -k deploy/` on a real API server, and what the controller may then do there with a
//! token of its service account: what it does, and nothing else.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use std::sync::LazyLock;
use v2v_pod_tests::e2e::apiserver::ApiServer;

const NAMESPACE: &str = "v2v-pod-system";
const ACCOUNT: &str = "controller-lite";
/// Admits the controller, as docs/operations.md says.
const ADMITTED: &str = "vms";
/// Does not.
const OTHER: &str = "other";

/// A server that has seen nothing but `deploy/`, and one namespace that admits the controller.
static SERVER: LazyLock<ApiServer> = LazyLock::new(|| {
    let server = ApiServer::bare();
    let applied = server.kubectl(&["apply", "-k", "deploy/"]);
    assert!(applied.success && !applied.said.contains("Warning"), "{}", applied.said);
    for namespace in [ADMITTED, OTHER] {
        server.kubectl(&["create", "namespace", namespace]).ok();
        let literals = ["--from-literal=accessKeyId=root", "--from-literal=secretKey=x"];
        let secret = ["create", "secret", "generic", "vcenter", "-n", namespace];
        server.kubectl(&[&secret[..], &literals[..]].concat()).ok();
    }
    let account = format!("--serviceaccount={NAMESPACE}:{ACCOUNT}");
    let role = "--clusterrole=controller-lite-namespace";
    server.kubectl(&["create", "rolebinding", ACCOUNT, "-n", ADMITTED, role, &account]).ok();
    server
});

/// The controller's own client.
async fn controller() -> Client {
    let file = Kubeconfig::read_from(SERVER.kubeconfig_of(NAMESPACE, ACCOUNT)).unwrap();
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

/// Where a right is.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
enum Where {
    Nowhere,
    Admitted,
    Everywhere,
}
use Where::{Admitted, Everywhere, Nowhere};

/// All that can be done with what the controller knows of: verbs it has everywhere, in admitted
/// namespaces, and the rest of the world's verbs nowhere.
const RIGHTS: &[(&str, &str, &[&str], &[&str])] = &[
    ("conversion.v2v-pod.dev", "plans", &["get", "list", "watch", "patch"], &[]),
    ("conversion.v2v-pod.dev", "plans/status", &["patch"], &[]),
    ("conversion.v2v-pod.dev", "plans/finalizers", &["update"], &[]),
    ("conversion.v2v-pod.dev", "providers", &["get", "list", "watch"], &[]),
    ("conversion.v2v-pod.dev", "providers/status", &["patch"], &[]),
    ("", "pods", &["list", "watch"], &["get", "create", "delete"]),
    ("", "nodes", &["list"], &[]),
    ("", "namespaces", &["get"], &[]),
    ("", "secrets", &[], &["get"]),
    ("", "persistentvolumeclaims", &[], &["get", "list", "create", "patch", "delete"]),
    ("cdi.kubevirt.io", "datavolumes", &[], &["get", "list", "create", "patch", "delete"]),
    ("kubevirt.io", "virtualmachines", &[], &["get", "list", "create", "patch", "delete"]),
    ("kubevirt.io", "virtualmachines/finalizers", &[], &["update"]),
    ("events.k8s.io", "events", &[], &["create"]),
    // What would lead further.
    ("", "pods/exec", &[], &[]),
    ("", "pods/ephemeralcontainers", &[], &[]),
    ("", "pods/log", &[], &[]),
    ("", "serviceaccounts/token", &[], &[]),
    ("", "serviceaccounts", &[], &[]),
    ("", "configmaps", &[], &[]),
    ("", "persistentvolumes", &[], &[]),
    ("", "nodes/proxy", &[], &[]),
    ("apps", "deployments", &[], &[]),
    ("rbac.authorization.k8s.io", "rolebindings", &[], &[]),
    ("rbac.authorization.k8s.io", "clusterrolebindings", &[], &[]),
    ("apiextensions.k8s.io", "customresourcedefinitions", &[], &[]),
    ("coordination.k8s.io", "leases", &[], &[]),
    ("*", "*", &[], &[]),
];
const VERBS: [&str; 10] = [
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "bind",
    "*",
];

async fn may(client: &Client, namespace: &str, group: &str, resource: &str, verb: &str) -> bool {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let text = |text: &str| Some(text.to_owned());
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                namespace: text(namespace),
                group: text(group),
                resource: text(resource),
                subresource: text(subresource),
                verb: text(verb),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    reviews.create(&PostParams::default(), &review).await.unwrap().status.unwrap().allowed
}

#[tokio::test]
async fn the_controller_may_do_what_it_does_and_nothing_else() {
    let client = controller().await;
    let mut wrong = Vec::new();
    for (group, resource, everywhere, admitted) in RIGHTS {
        for verb in VERBS {
            let expected = match verb {
                verb if everywhere.contains(&verb) => Everywhere,
                verb if admitted.contains(&verb) => Admitted,
                _ => Nowhere,
            };
            for (namespace, least) in [(ADMITTED, Admitted), (OTHER, Everywhere)] {
                let allowed = may(&client, namespace, group, resource, verb).await;
                if allowed != (expected >= least) {
                    wrong.push(format!("{verb} {resource}.{group} in {namespace}: {allowed}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn it_leads_by_one_lease_in_its_own_namespace() {
    let client = controller().await;
    let kubeconfig = SERVER.kubeconfig_of(NAMESPACE, ACCOUNT);
    let as_controller = ["--kubeconfig", kubeconfig.to_str().unwrap(), "-n", NAMESPACE];
    let lease = |name: &str| {
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}})
            .to_string()
    };
    let run = |args: &[&str], input: &str| {
        SERVER.kubectl_with(&[&as_controller[..], args].concat(), input)
    };
    run(&["create", "-f", "-"], &lease(ACCOUNT)).ok();
    run(&["replace", "-f", "-"], &lease(ACCOUNT)).ok();
    SERVER.kubectl_with(&["create", "-n", NAMESPACE, "-f", "-"], &lease("of-another")).ok();
    let said = run(&["get", "lease", "of-another"], "").refused();
    assert!(said.contains("forbidden"), "{said}");
    for verb in ["delete", "list", "watch", "patch"] {
        assert!(!may(&client, NAMESPACE, "coordination.k8s.io", "leases", verb).await, "{verb}");
    }
}

#[tokio::test]
async fn a_secret_is_read_by_name_where_the_namespace_admits_it() {
    let kubeconfig = SERVER.kubeconfig_of(NAMESPACE, ACCOUNT);
    let get = |namespace: &str, what: &[&str]| {
        let first = ["--kubeconfig", kubeconfig.to_str().unwrap(), "-n", namespace, "get"];
        SERVER.kubectl(&[&first[..], what].concat())
    };
    get(ADMITTED, &["secret", "vcenter"]).ok();
    let all = get(ADMITTED, &["secrets"]).refused();
    let other = get(OTHER, &["secret", "vcenter"]).refused();
    let own = get(NAMESPACE, &["secret", "vcenter"]).refused();
    assert!(
        [&all, &other, &own].iter().all(|said| said.contains("forbidden")),
        "{all}{other}{own}"
    );
}

#[test]
fn what_is_applied_stays_and_its_pod_passes_the_restricted_standard() {
    let again = SERVER.kubectl(&["apply", "-k", "deploy/"]).ok();
    let changed: Vec<&str> = again.lines().filter(|l| !l.ends_with(" unchanged")).collect();
    assert!(changed.is_empty(), "{changed:?}");
    // The server's own PodSecurity plugin judges, by the label of the namespace.
    let deployment =
        SERVER.kubectl(&["get", "-n", NAMESPACE, "deploy", ACCOUNT, "-o", "json"]).json();
    let pod = |change: &dyn Fn(&mut Value)| {
        let mut pod = deployment["spec"]["template"].clone();
        pod["apiVersion"] = json!("v1");
        pod["kind"] = json!("Pod");
        pod["metadata"]["name"] = json!("tried");
        change(&mut pod);
        let create = ["create", "--dry-run=server", "-n", NAMESPACE, "-f", "-"];
        SERVER.kubectl_with(&create, &pod.to_string())
    };
    pod(&|_| {}).ok();
    let said = pod(&|pod| pod["spec"]["containers"][0]["securityContext"] = json!({})).refused();
    assert!(said.contains("violates PodSecurity \"restricted:latest\""), "{said}");
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], json!(true));
}

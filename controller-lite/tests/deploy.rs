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
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;
use std::time::{Duration, Instant};
use v2v_pod_tests::e2e::apiserver::ApiServer;
use v2v_pod_tests::e2e::lab::{free_port, root, said};

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
    ("conversion.v2v-pod.dev", "plans/finalizers", &[], &[]),
    ("conversion.v2v-pod.dev", "providers", &["get", "list", "watch"], &[]),
    ("conversion.v2v-pod.dev", "providers/status", &["patch"], &[]),
    ("", "pods", &["list", "watch"], &["get", "create", "delete"]),
    ("", "nodes", &["list"], &[]),
    ("", "namespaces", &["get"], &[]),
    ("", "secrets", &[], &["get"]),
    ("", "persistentvolumeclaims", &[], &["get", "list", "create", "patch", "delete"]),
    ("cdi.kubevirt.io", "datavolumes", &[], &["list", "create", "patch", "delete"]),
    ("kubevirt.io", "virtualmachines", &[], &["get", "list", "create", "patch", "delete"]),
    ("kubevirt.io", "virtualmachines/finalizers", &[], &[]),
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

const IMAGE: &str = "localhost/v2v-controller-lite:test";

/// The image in podman, as the Deployment has it: its user, arguments and security context.
struct Controller {
    name: String,
    probes: u16,
}

impl Controller {
    fn start(kubeconfig: &Path) -> Self {
        let built = Command::new(root().join("images/build-controller.sh"))
            .env("BINARY", env!("CARGO_BIN_EXE_controller-lite"))
            .env("IMAGE", IMAGE)
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", said(&built));
        let deployment =
            SERVER.kubectl(&["get", "-n", NAMESPACE, "deploy", ACCOUNT, "-o", "json"]).json();
        let args = deployment["spec"]["template"]["spec"]["containers"][0]["args"].clone();
        let args: Vec<String> = serde_json::from_value(args).unwrap();
        let (name, probes) = (format!("v2v-controller-{}", std::process::id()), free_port());
        let mount = format!("{}:/kubeconfig:ro", kubeconfig.display());
        // For the container's user, as a projected token is.
        must(Command::new("chown").arg("65532").arg(kubeconfig));
        must(
            Command::new("podman")
                .args([
                    "run",
                    "--detach",
                    "--name",
                    &name,
                    "--runtime",
                    "runc",
                    "--network",
                    "host",
                    "--pull",
                    "never",
                ])
                .args([
                    "--ulimit",
                    "nofile=1024:1024",
                    "--ulimit",
                    "nproc=4096:4096",
                    "--read-only",
                ])
                .args(["--read-only-tmpfs=false", "--user", "65532:65532", "--cap-drop", "ALL"])
                .args([
                    "--security-opt",
                    "no-new-privileges",
                    "-v",
                    &mount,
                    "-e",
                    "KUBECONFIG=/kubeconfig",
                    IMAGE,
                ])
                .args(args.iter().map(|a| {
                    a.replace("$(POD_NAMESPACE)", NAMESPACE).replace("$(POD_NAME)", "one")
                }))
                .arg(format!("--probes-port={probes}")),
        );
        Self { name, probes }
    }

    fn log(&self) -> String {
        said(&Command::new("podman").args(["logs", &self.name]).output().unwrap())
    }

    /// Waits for something; the log is said when it does not happen.
    fn wait(&self, what: &str, mut happened: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !happened() {
            assert!(begun.elapsed() < Duration::from_secs(90), "not {what}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(300));
        }
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        let _ = Command::new("podman").args(["rm", "--force", "--time", "5", &self.name]).output();
    }
}

fn must(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", said(&output));
}

#[test]
fn the_image_works_with_these_rights() {
    SERVER.kubectl(&["apply", "--server-side", "-f", "tests/lab/crds"]).ok();
    let wait = ["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"];
    SERVER.kubectl(&wait).ok();
    let controller = Controller::start(&SERVER.kubeconfig_of(NAMESPACE, ACCOUNT));
    let probe = format!("http://127.0.0.1:{}/readyz", controller.probes);
    let answers = || Command::new("curl").args(["-fsS", &probe]).output().unwrap().status.success();
    controller.wait("ready", answers);
    let holder =
        ["get", "lease", "-n", NAMESPACE, ACCOUNT, "-o", "jsonpath={.spec.holderIdentity}"];
    controller.wait("leading", || SERVER.kubectl(&holder).stdout == "one");

    let objects = r"
        {apiVersion: conversion.v2v-pod.dev/v1alpha1, kind: Provider, metadata: {name: files}, spec: {type: disk, sourceVolume: {claimName: exports}}}
        ---
        {apiVersion: conversion.v2v-pod.dev/v1alpha1, kind: Plan, metadata: {name: p}, spec: {providerRef: {name: files}, vms: [{name: web, paths: [web.qcow2]}]}}
    ";
    let objects: String = objects.lines().map(|line| line.trim().to_owned() + "\n").collect();
    SERVER.kubectl_with(&["apply", "-n", ADMITTED, "-f", "-"], &objects).ok();
    let pods = ["get", "pods", "-n", ADMITTED, "-l", "conversion.v2v-pod.dev/plan=p", "-o", "name"];
    controller.wait("a pod made", || SERVER.kubectl(&pods).stdout.contains("pod/"));
    SERVER.kubectl(&["delete", "plan", "-n", ADMITTED, "p", "--timeout=60s"]).ok();
    not_admitted_yet(&controller, &objects);

    let refused = SERVER.refused_to(NAMESPACE, ACCOUNT, ADMITTED);
    assert!(refused.is_empty(), "{refused:#?}\n{}", controller.log());
}

/// The same in a namespace that does not admit the controller: the Plan says so, can be deleted,
/// and goes on when the namespace does.
fn not_admitted_yet(controller: &Controller, objects: &str) {
    let namespace = "late";
    SERVER.kubectl(&["create", "namespace", namespace]).ok();
    let make = || SERVER.kubectl_with(&["apply", "-n", namespace, "-f", "-"], objects).ok();
    let message =
        ["get", "plan", "-n", namespace, "p", "-o", "jsonpath={.status.phase}: {.status.message}"];
    make();
    controller
        .wait("said", || SERVER.kubectl(&message).stdout.contains("kubectl create rolebinding"));
    SERVER.kubectl(&["delete", "plan", "-n", namespace, "p", "--timeout=60s"]).ok();
    make();
    controller
        .wait("said", || SERVER.kubectl(&message).stdout.contains("kubectl create rolebinding"));
    // As the message has it.
    let said = SERVER.kubectl(&message).ok();
    let (phase, command) = said.split_once(": ").unwrap();
    assert_eq!(phase, "Pending");
    let command = command.split_once("kubectl ").unwrap().1;
    SERVER.kubectl(&command.split(' ').collect::<Vec<_>>()).ok();
    let pods = ["get", "pods", "-n", namespace, "-o", "name"];
    controller.wait("a pod made", || SERVER.kubectl(&pods).stdout.contains("pod/"));
    SERVER.kubectl(&["delete", "plan", "-n", namespace, "p", "--timeout=60s"]).ok();
}

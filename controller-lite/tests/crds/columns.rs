//! What `kubectl` shows of our kinds.

use super::{ApiServer, api, object};
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

/// The columns of one line, without the age.
fn row(text: &str, line: usize) -> Vec<&str> {
    let words: Vec<&str> = text.lines().nth(line).unwrap_or_default().split_whitespace().collect();
    words[..words.len() - 1].to_vec()
}

#[tokio::test]
async fn kubectl_shows_what_matters() {
    let server = ApiServer::shared();
    let namespace = server.namespace();
    let get = |what: &str| server.kubectl(&["get", "-n", &namespace, what]).ok();

    let providers = api("Provider", &namespace).await;
    let spec =
        json!({"type": "vsphere", "url": "https://vc.example.com", "secretRef": {"name": "vc"}});
    providers.create(&PostParams::default(), &object("Provider", "vc", &spec)).await.unwrap();
    let ready = json!({"type": "Ready", "status": "True", "reason": "Answers", "message": "312 VMs",
        "lastTransitionTime": "2026-12-01T00:00:00Z"});
    let status = Patch::Merge(json!({"status": {"vms": 312, "conditions": [ready]}}));
    providers.patch_status("vc", &PatchParams::default(), &status).await.unwrap();
    let shown = get("v2vprovider");
    assert_eq!(row(&shown, 0), ["NAME", "TYPE", "URL", "READY", "VMS"]);
    assert_eq!(row(&shown, 1), ["vc", "vsphere", "https://vc.example.com", "True", "312"]);

    let plans = api("Plan", &namespace).await;
    let spec = json!({"providerRef": {"name": "vc"}, "vms": [{"name": "web"}, {"name": "db"}]});
    plans.create(&PostParams::default(), &object("Plan", "first", &spec)).await.unwrap();
    let status = json!({"phase": "Running", "total": 2, "succeeded": 1, "failed": 0, "message": "db is copied",
        "vms": [{"name": "db", "phase": "Converting", "attempts": 1, "disks": [{"index": 0, "bytes": 4_294_967_296_u64}]}]});
    let patch = Patch::Merge(json!({"status": status}));
    plans.patch_status("first", &PatchParams::default(), &patch).await.unwrap();
    let shown = get("v2vplan");
    assert_eq!(row(&shown, 0), ["NAME", "PROVIDER", "PHASE", "VMS", "DONE", "FAILED"]);
    assert_eq!(row(&shown, 1), ["first", "vc", "Running", "2", "1", "0"]);

    let both = get("v2v");
    assert!(both.contains("provider.conversion.v2v-pod.dev/vc"), "{both}");
    assert!(both.contains("plan.conversion.v2v-pod.dev/first"), "{both}");
    let wide = server.kubectl(&["get", "-n", &namespace, "v2vplan", "-o", "wide"]).ok();
    assert!(wide.contains("db is copied"), "{wide}");
    let explained = server.kubectl(&["explain", "plan.spec.vms.paths"]).ok();
    assert!(explained.contains("for `disk` the disks in their order"), "{explained}");
}

#[test]
fn the_crds_are_taken_without_a_warning() {
    let server = ApiServer::shared();
    let said =
        server.kubectl(&["apply", "--server-side", "--dry-run=server", "-f", "deploy/crds.yaml"]);
    assert!(said.success && !said.said.contains("Warning"), "{}", said.said);
}

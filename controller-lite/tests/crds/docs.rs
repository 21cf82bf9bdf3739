//! The worked example of docs/operations.md is taken by the server as it stands there.

use super::ApiServer;
use v2v_pod_tests::e2e::lab::root;

#[test]
fn the_example_of_the_manual_is_valid() {
    let server = ApiServer::shared();
    let manual = std::fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let section = manual.split("\n## ").find(|s| s.starts_with("With the controller")).unwrap();
    let blocks = section.split("```yaml\n").skip(1);
    let yaml: Vec<&str> = blocks.map(|block| block.split("```").next().unwrap()).collect();
    server.kubectl(&["create", "namespace", "vms"]).ok();
    let applied =
        server.kubectl_with(&["apply", "--validate=strict", "-f", "-"], &yaml.join("---\n")).ok();
    for made in [
        "secret/vcenter",
        "/vcenter",
        "/first",
        "/files",
        "/from-files",
        "/ovas",
        "/from-ova",
        "/xen1",
        "/from-xen",
    ] {
        assert!(applied.contains(&format!("{made} created")), "{made}: {applied}");
    }
    // The command for the events of a Plan.
    let event = serde_json::json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e", "namespace": "vms"},
        "regarding": {"apiVersion": "conversion.v2v-pod.dev/v1alpha1", "kind": "Plan", "name": "first", "namespace": "vms"},
        "action": "Convert", "reason": "Tried", "note": "web: a note", "type": "Normal",
        "eventTime": "2026-12-01T00:00:00.000000Z", "reportingController": "x", "reportingInstance": "x",
    });
    server.kubectl_with(&["create", "-f", "-"], &event.to_string()).ok();
    let command = section.lines().find_map(|line| line.strip_prefix("$ kubectl events ")).unwrap();
    let words: Vec<&str> = ["events"].into_iter().chain(command.split(' ')).collect();
    let shown = server.kubectl(&words).ok();
    assert!(shown.contains("web: a note"), "{shown}");
}

//! The worked example of docs/operations.md is taken by the server as it stands there, and its commands
//! do what it says.

use super::ApiServer;
use v2v_pod_tests::e2e::lab::root;

/// The commands of the section's shell blocks that call `kubectl`, in order; lines that go on are one.
fn commands(section: &str) -> Vec<String> {
    let blocks = section.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap());
    let lines = blocks.flat_map(|block| {
        let whole = block.replace("\\\n", " ");
        whole.lines().map(str::to_owned).collect::<Vec<_>>()
    });
    lines.filter(|line| line.starts_with("kubectl ")).collect()
}

#[test]
fn the_example_of_the_manual_is_valid() {
    let server = ApiServer::shared();
    let manual = std::fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let section = manual.split("\n## ").find(|s| s.starts_with("With the controller")).unwrap();
    let blocks = section.split("```yaml\n").skip(1);
    let yaml: Vec<&str> = blocks.map(|block| block.split("```").next().unwrap()).collect();
    let commands = commands(section);
    let typed: Vec<&str> =
        commands.iter().map(|command| &command[..24.min(command.len())]).collect();
    assert_eq!(
        typed,
        ["kubectl apply -k deploy/", "kubectl create namespace", "kubectl create rolebindi"],
    );
    for command in &commands {
        server.shell(command).ok();
    }
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
    let shown = server.shell("kubectl get plan,provider -n vms").ok();
    for named in ["plan.conversion.v2v-pod.dev/first", "provider.conversion.v2v-pod.dev/vcenter"] {
        assert!(shown.contains(named), "{shown}");
    }
    let explained = server.shell("kubectl explain plan.spec").ok();
    for field in ["providerRef", "storageMap", "networkMap", "runStrategy", "limits"] {
        assert!(explained.contains(field), "{explained}");
    }
    // The commands by which somebody looks; the one for the events of a Plan has something to show.
    let event = serde_json::json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e", "namespace": "vms"},
        "regarding": {"apiVersion": "conversion.v2v-pod.dev/v1alpha1", "kind": "Plan", "name": "first", "namespace": "vms"},
        "action": "Convert", "reason": "Tried", "note": "web: a note", "type": "Normal",
        "eventTime": "2026-12-01T00:00:00.000000Z", "reportingController": "x", "reportingInstance": "x",
    });
    server.kubectl_with(&["create", "-f", "-"], &event.to_string()).ok();
    let looks: Vec<&str> = section.lines().filter_map(|line| line.strip_prefix("$ ")).collect();
    assert!(looks.len() >= 3 && looks.iter().all(|look| look.starts_with("kubectl ")), "{looks:?}");
    let shown: String = looks.iter().map(|look| server.shell(look).ok()).collect();
    assert!(shown.contains("web: a note") && shown.contains("first"), "{shown}");
}

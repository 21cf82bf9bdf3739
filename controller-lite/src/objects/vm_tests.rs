use super::super::origin;
use super::*;

const YAML: &str = r"
apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata:
  name: other
  labels: {app: other, libguestfs.org/osinfo: debian12, evil: label}
  annotations: {evil: annotation}
spec:
  runStrategy: Always
  dataVolumeTemplates: [{metadata: {name: evil}}]
  template:
    metadata: {labels: {kubevirt.io/domain: other}}
    spec:
      architecture: amd64
      nodeSelector: {evil: node}
      domain:
        cpu: {model: Nehalem, numa: {guestMappingPassthrough: {}}, sockets: 1, cores: 2, threads: 1}
        firmware: {bootloader: {bios: {}}, kernelBoot: {container: {image: evil}}}
        memory: {guest: 2048Mi}
        devices:
          hostDevices: [{name: evil, deviceName: vendor/gpu}]
          disks:
          - {name: disk-0, disk: {bus: virtio}}
          - {name: disk-1, bootOrder: 1, disk: {bus: sata}}
          interfaces:
          - {name: net-0, model: virtio, macAddress: '00:50:56:aa:00:01', masquerade: {}}
          - {name: net-1, model: e1000, macAddress: '00:50:56:aa:00:02', bridge: {}}
      networks: [{name: net-0, pod: {}}, {name: net-1, multus: {networkName: evil}}]
      volumes:
      - {name: disk-0, secret: {secretName: evil}}
      - {name: disk-1, persistentVolumeClaim: {claimName: evil}}
";

fn facts() -> Facts {
    let nic = |mac: &str, network: &str| NicFacts {
        mac: Some(mac.into()),
        network: Some(network.into()),
    };
    Facts {
        uuid: Some("4216A2B0-0000-4000-8000-000000000001".into()),
        nics: vec![nic("00:50:56:AA:00:01", "VM Network"), nic("00:50:56:aa:00:02", "DMZ")],
    }
}

fn build_with(networks: &NetworkMap, facts: &Facts, claims: usize) -> Result<Value, Error> {
    let claims: Vec<String> = (0..claims).map(|n| format!("c{n}")).collect();
    let machine = Machine {
        origin: &origin(),
        claims: &claims,
        networks,
        facts,
        outcome: &crate::objects::outcome::Outcome::default(),
        run_strategy: "Always",
    };
    machine.build(YAML)
}

fn to_dmz() -> NetworkMap {
    NetworkMap {
        entries: vec![("DMZ".into(), Network::Multus("net/dmz".into()))],
        default: Some(Network::Pod),
    }
}

#[test]
fn disks_networks_and_names_are_ours() {
    let vm = build_with(&to_dmz(), &facts(), 2).unwrap();
    let spec = &vm["spec"]["template"]["spec"];
    assert_eq!(
        spec["volumes"],
        json!([
            { "name": "disk-0", "persistentVolumeClaim": { "claimName": "c0" } },
            { "name": "disk-1", "persistentVolumeClaim": { "claimName": "c1" } },
        ])
    );
    let devices = &spec["domain"]["devices"];
    assert_eq!(
        devices["disks"],
        json!([
            { "name": "disk-0", "disk": { "bus": "virtio" } },
            { "name": "disk-1", "disk": { "bus": "sata" }, "bootOrder": 1 },
        ])
    );
    assert_eq!(devices["interfaces"][1]["bridge"], json!({}));
    assert_eq!(devices["interfaces"][1]["model"], "e1000");
    assert_eq!(
        spec["networks"],
        json!([
            { "name": "net-0", "pod": {} },
            { "name": "net-1", "multus": { "networkName": "net/dmz" } },
        ])
    );
    assert_eq!(
        spec["domain"]["firmware"],
        json!({ "bootloader": { "bios": {} }, "uuid": "4216a2b0-0000-4000-8000-000000000001" })
    );
    assert_eq!(vm["metadata"]["labels"]["libguestfs.org/osinfo"], "debian12");
}

#[test]
fn a_guest_cannot_reach_for_more() {
    let vm = build_with(&to_dmz(), &facts(), 2).unwrap().to_string();
    assert!(!vm.contains("evil") && !vm.contains("numa"), "{vm}");
}

#[test]
fn it_does_not_run_before_it_is_handed_over() {
    let vm = build_with(&to_dmz(), &facts(), 2).unwrap();
    assert_eq!(vm["spec"]["runStrategy"], "Halted");
    assert_eq!(vm["metadata"]["annotations"][ANNOTATION_PENDING], "Always");
    // It outlives the Plan.
    assert_eq!(vm["metadata"].get("ownerReferences"), None);
    let patch = hand_over("Always", "7");
    assert_eq!(patch["spec"]["runStrategy"], "Always");
    assert!(patch["metadata"]["annotations"][ANNOTATION_PENDING].is_null());
}

#[test]
fn what_does_not_fit_is_refused() {
    let wrong = build_with(&to_dmz(), &facts(), 3);
    assert!(matches!(wrong, Err(Error::Disks { described: 2, claims: 3 })));
    let all_pod = NetworkMap { entries: vec![], default: Some(Network::Pod) };
    assert!(matches!(build_with(&all_pod, &facts(), 2), Err(Error::TwoPodNetworks(0, 1))));
}

#[test]
fn without_a_map_one_nic_is_on_the_pod_network() {
    let vm = build_with(&NetworkMap::default(), &Facts::default(), 2).unwrap();
    let spec = &vm["spec"]["template"]["spec"];
    assert_eq!(spec["networks"], json!([{ "name": "net-0", "pod": {} }]));
    let none = NetworkMap { entries: vec![], default: Some(Network::Ignored) };
    let vm = build_with(&none, &Facts::default(), 2).unwrap();
    let devices = &vm["spec"]["template"]["spec"]["domain"]["devices"];
    assert_eq!(devices["autoattachPodInterface"], false);
    assert_eq!(devices.get("interfaces"), None);
}

#[test]
fn facts_go_through_an_annotation() {
    assert_eq!(Facts::of_text(&facts().to_text()), facts());
    assert_eq!(Facts::of_text("{"), Facts::default());
}

#[test]
fn nics_without_an_address_are_matched_by_their_order() {
    let nic = |mac: Option<&str>, network: Option<&str>| NicFacts {
        mac: mac.map(str::to_owned),
        network: network.map(str::to_owned),
    };
    let targets = |nics: Vec<NicFacts>, yaml: &str| {
        let facts = Facts { uuid: None, nics };
        let claims = ["a".to_owned(), "b".to_owned()];
        let machine = Machine {
            origin: &origin(),
            claims: &claims,
            networks: &to_dmz(),
            facts: &facts,
            outcome: &crate::objects::outcome::Outcome::default(),
            run_strategy: "Halted",
        };
        let vm = machine.build(yaml).unwrap();
        let networks = vm["spec"]["template"]["spec"]["networks"].as_array().unwrap().clone();
        let target = |n: &Value| n["multus"]["networkName"].as_str().unwrap_or("pod").to_owned();
        networks.iter().map(target).collect::<Vec<_>>()
    };
    let ova = YAML
        .replace(", macAddress: '00:50:56:aa:00:01'", "")
        .replace(", macAddress: '00:50:56:aa:00:02'", "");
    let in_order = |a, b| vec![nic(None, Some(a)), nic(None, Some(b))];
    assert_eq!(targets(in_order("DMZ", "LAN"), &ova), ["net/dmz", "pod"]);
    assert_eq!(targets(in_order("LAN", "DMZ"), &ova), ["pod", "net/dmz"]);
    // The address may be in one of both alone.
    let said = vec![nic(Some("00:50:56:aa:00:02"), Some("DMZ")), nic(None, Some("LAN"))];
    assert_eq!(targets(said, &ova), ["net/dmz", "pod"]);
    assert_eq!(targets(in_order("LAN", "DMZ"), YAML), ["pod", "net/dmz"]);
    // An address beats the order.
    let turned = vec![
        nic(Some("00:50:56:aa:00:02"), Some("DMZ")),
        nic(Some("00:50:56:aa:00:01"), Some("LAN")),
    ];
    assert_eq!(targets(turned, YAML), ["pod", "net/dmz"]);
}

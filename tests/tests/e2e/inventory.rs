//! The controller's inventory of a vCenter and of an ESXi host, beside what libvirt, as virt-v2v uses it, makes of them.

use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use v2v_pod_tests::e2e::apiserver::ApiServer;
use v2v_pod_tests::e2e::lab::{free_port, lab, root, said, turn};
use v2v_pod_tests::e2e::pod::SHORT;
use v2v_pod_tests::e2e::vcenter::{PASSWORD, USER, VCenter, in_image};
use v2v_pod_tests::e2e::volume::must;

/// More than two pages of them.
const MANY: usize = 230;

/// As built with the binary under test.
fn controller() -> PathBuf {
    let release = root().join("target/release");
    let beside = std::env::var_os("BINARY")
        .and_then(|b| PathBuf::from(b).parent().map(|d| d.join("controller-lite")));
    let found = [beside, Some(release.join("controller-lite"))].into_iter().flatten();
    let found = found.into_iter().find(|p| p.is_file());
    found.expect("controller-lite is missing; run cargo build beside BINARY")
}

/// Somebody who asks.
struct Asker(TempDir);

impl Asker {
    fn new(password: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("password"), format!("{password}\n")).unwrap();
        Self(dir)
    }

    fn spawn(&self, url: &str, more: &[&str]) -> Child {
        let mut command = Command::new(controller());
        command.args(["inventory", "--url", url, "--user", USER, "--password-file"]);
        command.arg(self.0.path().join("password")).args(more);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn ask(&self, url: &str, more: &[&str]) -> Output {
        let output = self.spawn(url, more).wait_with_output().unwrap();
        assert!(!said(&output).contains(PASSWORD), "{}", said(&output));
        output
    }

    fn json(&self, url: &str, more: &[&str]) -> Value {
        let output = self.ask(url, &[more, &["--json"]].concat());
        assert!(output.status.success(), "{}", said(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn fails(&self, url: &str, more: &[&str], words: &[&str]) {
        let output = self.ask(url, more);
        let text = said(&output);
        assert!(!output.status.success() && output.stdout.is_empty(), "{text}");
        for word in words {
            assert!(text.contains(word), "{word}: {text}");
        }
    }
}

fn uuid(n: usize) -> String {
    format!("42000000-1111-2222-3333-{n:012x}")
}

/// Two datacenters, a cluster with two hosts in folders, a host by itself, and odd names everywhere.
fn two_datacenters(config: &mut Value) {
    config["datacenter_folder"] = json!(["Euro/pe"]);
    config["datacenter"] = json!("DC 1%");
    config["host_folder"] = json!(["racks"]);
    config["cluster"] = json!(r"C\1");
    config["more_hosts"] = json!([
        {"datacenter_folder": ["Euro/pe"], "datacenter": "DC 1%", "host_folder": ["racks"], "cluster": r"C\1", "host": "esx2"},
        {"datacenter": "DC2", "host": "alone"},
    ]);
    let disk = |path: &str, place: &str, controller: &str| json!({"path": format!("[ds 1] {path}.vmdk"), "place": place, "controller": controller});
    let vms = config["vms"].as_array_mut().unwrap();
    vms.push(json!({
        "name": "many disks", "uuid": uuid(1),
        "nics": [{"network": "a/b 1%", "mac": "00:50:56:aa:bb:03"}, {"network": "VM Network", "mac": "00:50:56:aa:bb:02"}],
        "disks": [
            disk("other/disk", "nvme0:0", "nvme"), disk("other/disk1", "ide1:0", "ide"), disk("other/disk2", "sata0:5", "sata"),
            disk("older/disk", "scsi0:1", "pvscsi"), disk("older/disk1", "scsi1:0", "lsilogic"), disk("older/disk2", "scsi0:0", "pvscsi"),
            disk("twin1/disk", "scsi0:20", "pvscsi"), disk("twin1/disk1", "scsi0:10", "pvscsi"), disk("twin1/disk2", "ide0:1", "ide"),
            disk("twin2/disk", "scsi1:2", "lsilogic"), disk("twin2/disk1", "scsi0:9", "pvscsi"),
        ],
    }));
    vms.push(json!({
        "name": r"a/b 1%\+é", "uuid": uuid(2), "host": "esx2", "folder": ["prod", "x/y"], "firmware": "efi", "cpus": 4, "memory_mib": 4096,
        "disks": [{"path": "[ds 1] copy1/disk.vmdk"}],
    }));
    for (n, host, folder, power) in
        [(3, "esx2", "one", "off"), (4, "esx2", "two", "suspended"), (5, "alone", "three", "on")]
    {
        vms.push(json!({
            "name": "twin", "uuid": uuid(n), "host": host, "folder": [folder], "power": power, "vmx": format!("[ds 1] v{n}/twin.vmx"),
            "disks": [{"path": format!("[ds 1] copy2/disk{}.vmdk", ["", "1", "2"][n - 3])}],
            "snapshots": if n == 3 { json!([{"name": "before"}]) } else { json!([]) },
        }));
    }
}

/// The name, the files of the disks and the cards' addresses in libvirt's description.
fn described(xml: &str) -> (String, Vec<String>, Vec<String>) {
    let document = roxmltree::Document::parse(xml).unwrap();
    let of = |device: &'static str, child: &'static str, attribute: &'static str| {
        let devices = document.descendants().filter(move |n| n.has_tag_name(device));
        let children =
            devices.flat_map(move |d| d.children().filter(move |c| c.has_tag_name(child)));
        children.filter_map(move |c| c.attribute(attribute)).map(str::to_owned).collect()
    };
    let name = document.root_element().children().find(|n| n.has_tag_name("name"));
    let name = name.and_then(|n| n.text()).unwrap_or_default().to_owned();
    (name, of("disk", "source", "file"), of("interface", "mac", "address"))
}

#[test]
fn disks_names_and_urls_are_libvirts() {
    let (_lab, _turn) = (lab(), turn());
    let vcenter = VCenter::start_as(PASSWORD, two_datacenters);
    let url = format!("https://localhost:{}", vcenter.port);
    let ca = vcenter.ca().display().to_string();
    let asker = Asker::new(PASSWORD);
    let inventory = asker.json(&url, &["--ca", &ca]);
    let vms = inventory["vms"].as_array().unwrap();
    assert_eq!((vms.len(), &inventory["unreadable"]), (6, &json!([])));

    let auth = asker.0.path().join("auth");
    let group = |kind| format!("[auth-{kind}-localhost]\ncredentials=lab\n");
    let text = format!(
        "[credentials-lab]\nusername={USER}\npassword={PASSWORD}\n{}{}",
        group("esx"),
        group("vpx")
    );
    fs::write(&auth, text).unwrap();
    let mut script = String::from("export LIBVIRT_AUTH_FILE=/auth\n");
    for vm in vms {
        let (url, uuid) = (vm["libvirtUrl"].as_str().unwrap(), vm["uuid"].as_str().unwrap());
        let ask =
            format!("virsh -q -c '{url}?no_verify=1' dumpxml {uuid} 2>/tmp/err || cat /tmp/err");
        script.extend([ask.as_str(), "\necho =====\n"]);
    }
    must(Command::new("chmod").arg("644").arg(&auth));
    let (ok, all) = in_image(&["-v", &format!("{}:/auth:ro", auth.display())], &script);
    assert!(ok, "{all}");
    for (vm, xml) in vms.iter().zip(all.split("=====")) {
        assert!(xml.contains("</domain>"), "{vm:#}\n{xml}");
        let (name, disks, macs) = described(xml.trim());
        assert_eq!(vm["name"], name);
        let seen = vm["disks"].as_array().unwrap().iter().filter(|d| d["seen"] == true);
        let paths: Vec<&str> = seen.map(|d| d["path"].as_str().unwrap()).collect();
        assert_eq!(paths, disks, "{vm:#}\n{xml}");
        let nics = vm["nics"].as_array().unwrap().iter();
        let nics: Vec<&str> = nics.map(|n| n["mac"].as_str().unwrap()).collect();
        assert_eq!(nics, macs, "{xml}");
    }

    let many = &vms[1];
    let order: Vec<String> = many["disks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| {
            format!(
                "{}{}:{}",
                d["controller"]["bus"].as_str().unwrap(),
                d["controller"]["number"],
                d["unit"]
            )
        })
        .collect();
    let expected =
        "scsi0:0 scsi0:1 scsi0:9 scsi0:10 scsi0:20 scsi1:0 scsi1:2 sata0:5 ide0:1 ide1:0 nvme0:0";
    assert_eq!(order.join(" "), expected);
    assert_eq!(many["nics"][0]["network"], "a/b 1%");
    let odd = &vms[2];
    assert_eq!((&odd["name"], &odd["folder"]), (&json!(r"a/b 1%\+é"), &json!(["prod", "x/y"])));
    assert_eq!(
        (&odd["cpus"], &odd["memoryBytes"], &odd["firmware"]),
        (&json!(4), &json!(4u64 << 30), &json!("efi"))
    );
    let states: Vec<&Value> = vms.iter().map(|vm| &vm["power"]).collect();
    assert_eq!(states, ["off", "off", "off", "off", "suspended", "on"]);
    assert_eq!((&vms[3]["snapshots"], &vms[4]["snapshots"]), (&json!(true), &json!(false)));

    let (moref, third) = (vms[3]["moref"].as_str().unwrap(), vms[5]["moref"].as_str().unwrap());
    let with = |words: &[&'static str]| [&["--ca", &ca], words].concat();
    asker.fails(
        &url,
        &with(&["--name", "twin"]),
        &["3 VMs have", moref, third, "folder two", "in DC2, folder three"],
    );
    asker.fails(&url, &with(&["--name", "Many disks"]), &["there is \"many disks\""]);
    asker.fails(&url, &with(&["--moref", "vm-1"]), &["no VM has the reference vm-1"]);
    let one = asker.json(&url, &["--ca", &ca, "--uuid", &uuid(5)]);
    assert_eq!(one["vms"], json!([vms[5]]));
}

#[test]
fn whom_it_believes_and_who_is_let_in() {
    let (_lab, _turn) = (lab(), turn());
    let vcenter = VCenter::start(PASSWORD);
    let url = format!("vpx://localhost:{}/DC/Cluster/esx1.example.com", vcenter.port);
    let asker = Asker::new(PASSWORD);
    let certificate = vcenter.certificate();
    let sha256 = must(
        Command::new("openssl")
            .args(["x509", "-noout", "-fingerprint", "-sha256", "-in"])
            .arg(&certificate),
    );
    let sha256 = sha256.trim().rsplit('=').next().unwrap().to_owned();
    let ca = vcenter.ca().display().to_string();
    let leaf = certificate.display().to_string();
    for good in [
        &["--ca", &ca][..],
        &["--ca", &leaf],
        &["--thumbprint", &vcenter.thumbprint],
        &["--thumbprint", &sha256],
        &["--ca", &ca, "--thumbprint", &sha256],
        &["--insecure"],
    ] {
        let inventory = asker.json(&url, good);
        assert_eq!(inventory["vms"][0]["name"], "web", "{good:?}");
    }
    let other = format!("AA{}", &vcenter.thumbprint[2..]);
    let logins = vcenter.stats()["sessions_made"].clone();
    let requests = vcenter.stats()["requests"]["soap"].clone();
    asker.fails(&url, &[], &["does not verify"]);
    asker.fails(&url, &["--thumbprint", &other], &[&vcenter.thumbprint, &other]);
    asker.fails(&url, &["--ca", &ca, "--thumbprint", &other], &[&other]);
    // A name of this machine that is not in the certificate.
    let named = url.replace("localhost", "[::ffff:127.0.0.1]");
    asker.fails(&named, &["--ca", &ca], &["does not verify"]);
    assert_eq!(
        vcenter.stats()["requests"]["soap"],
        requests,
        "nothing is sent to one that is not believed"
    );
    assert_eq!(vcenter.stats()["sessions_made"], logins);

    let wrong = Asker::new("not the password");
    wrong.fails(&url, &["--ca", &ca], &["incorrect user name or password", "accessKeyId"]);
    asker.fails("https://user:hunter2@localhost", &[], &["password"]);
    let ended = asker.ask("https://localhost:1", &["--insecure"]);
    assert!(said(&ended).contains("Connection refused"), "{}", said(&ended));
}

#[test]
fn thousands_come_in_pages_and_an_ended_session_is_begun_again() {
    let (_lab, _turn) = (lab(), turn());
    let asker = Asker::new(PASSWORD);
    // The port it will listen on; the question comes before the answer can.
    let port = free_port();
    let url = format!("https://127.0.0.1:{port}");
    let mut early = None;
    let vcenter = VCenter::start_as(PASSWORD, |config| {
        config["listen"] = json!(format!("127.0.0.1:{port}"));
        let vms = config["vms"].as_array_mut().unwrap();
        vms.extend((0..MANY).map(|n| json!({"name": format!("vm {n}"), "uuid": uuid(n)})));
        // In the middle of the pages: version, login, a view and a page of folders, its end, a view, two pages.
        config["faults"] = json!({"end_session_at": 8});
        early = Some(asker.spawn(&url, &["--insecure", "--json"]));
    });
    let output = early.unwrap().wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let inventory: Value = serde_json::from_slice(&output.stdout).unwrap();
    let vms = inventory["vms"].as_array().unwrap();
    let mut names: Vec<&str> = vms.iter().map(|vm| vm["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!((vms.len(), names.len()), (MANY + 1, MANY + 1));
    let stats = vcenter.stats();
    assert_eq!(
        (&stats["sessions_made"], &stats["not_authenticated"]),
        (&json!(2), &json!(1)),
        "{stats}"
    );
}

#[test]
fn an_esxi_host_answers_too() {
    let (_lab, _turn) = (lab(), turn());
    let host = VCenter::start_as(PASSWORD, |config| {
        config["mode"] = json!("esx");
        for key in ["datacenter", "cluster", "host"] {
            config.as_object_mut().unwrap().remove(key);
        }
    });
    let asker = Asker::new(PASSWORD);
    let url = format!("esx://root@localhost:{}", host.port);
    let inventory = asker.json(&url, &["--thumbprint", &host.thumbprint]);
    assert_eq!(inventory["kind"], "esxi");
    let web = &inventory["vms"][0];
    let paths = [&web["disks"][0]["path"], &web["disks"][1]["path"]];
    assert_eq!(paths, ["[ds 1] web/boot.vmdk", "[ds 1] web/data.vmdk"]);
    let user = USER.replace('@', "%40");
    assert_eq!(web["libvirtUrl"], format!("esx://{user}@localhost:{}", host.port));
    let table = asker.ask(&url, &["--insecure"]);
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(table.contains("web") && table.contains("NAME"), "{table}");
}

/// A namespace of the API server, with a controller that looks at it.
struct Room<'a> {
    server: &'a ApiServer,
    namespace: String,
    controller: Child,
}

impl<'a> Room<'a> {
    fn new(server: &'a ApiServer) -> Self {
        let namespace = server.namespace();
        let controller = Command::new(controller())
            .args(["run", "--watch", &namespace, "--lease-namespace", &namespace])
            .env("KUBECONFIG", &server.kubeconfig)
            .stdin(Stdio::null())
            .stdout(fs::File::create(server.dir().join("controller.log")).unwrap())
            .spawn()
            .unwrap();
        Self { server, namespace, controller }
    }

    fn kubectl(&self, args: &[&str], input: &Value) -> String {
        let args = [&["-n", &self.namespace], args].concat();
        self.server.kubectl_with(&args, &input.to_string()).ok()
    }

    fn apply(&self, object: &Value) {
        self.kubectl(&["apply", "--validate=strict", "-f", "-"], object);
    }

    fn until(&self, kind: &str, name: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let begin = Instant::now();
        loop {
            let text = self
                .kubectl(&["get", kind, name, "-o", "json", "--ignore-not-found"], &Value::Null);
            let object = serde_json::from_str(&text).unwrap_or_default();
            if is_so(&object) {
                return object;
            }
            let log = || fs::read_to_string(self.server.dir().join("controller.log"));
            assert!(begin.elapsed() < SHORT, "{kind} {name}: {object:#}\n{}", log().unwrap());
            sleep(Duration::from_millis(200));
        }
    }

    /// The Plan, when this is the class of this VM.
    fn until_class(&self, plan: &str, vm: usize, class: &str) -> String {
        let plan = self.until("plan", plan, |p| p["status"]["vms"][vm]["class"] == class);
        plan["status"]["vms"][vm]["message"].as_str().unwrap().to_owned()
    }

    /// As CDI: a volume is there.
    fn provision(&self, name: &str) -> Value {
        let made = self.until("datavolume", name, Value::is_object);
        let owner = json!({
            "apiVersion": "cdi.kubevirt.io/v1beta1", "kind": "DataVolume", "name": name, "uid": made["metadata"]["uid"], "controller": true,
        });
        self.apply(&json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "ownerReferences": [owner]},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": made["spec"]["storage"]["resources"], "volumeMode": "Filesystem"},
        }));
        let status = json!({"status": {"phase": "Succeeded"}}).to_string();
        let patch = ["patch", "datavolume", name, "--type=merge", "-p", &status];
        self.server
            .kubectl(&[&["-n", &self.namespace], &patch[..], &["--subresource=status"]].concat())
            .ok();
        made
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        let _ = self.controller.kill();
        let _ = self.controller.wait();
    }
}

#[test]
fn a_plan_for_vms_of_a_vcenter_gets_volumes_and_a_pod() {
    let (_lab, _turn) = (lab(), turn());
    let vcenter = VCenter::start_as(PASSWORD, two_datacenters);
    let server = ApiServer::start();
    let room = Room::new(&server);
    let begin = Instant::now();
    for (name, password) in [("vc", PASSWORD), ("wrong", "not the password")] {
        room.apply(&json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
            "stringData": {"accessKeyId": USER, "secretKey": password, "cacert": fs::read_to_string(vcenter.ca()).unwrap()},
        }));
        let esx2 = json!({"name": "esx2", "url": "esx://10.1.2.3", "secretRef": {"name": "esx2"}, "thumbprint": vcenter.thumbprint});
        room.apply(&json!({
            "apiVersion": "conversion.v2v-pod.dev/v1alpha1", "kind": "Provider", "metadata": {"name": name},
            "spec": {
                "type": "vsphere", "url": format!("https://localhost:{}/sdk", vcenter.port), "secretRef": {"name": name}, "hosts": [esx2],
            },
        }));
    }
    room.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "esx2"}, "stringData": {"accessKeyId": "root", "secretKey": PASSWORD},
    }));
    let plan = |name: &str, provider: &str, vms: Value| {
        room.apply(&json!({
            "apiVersion": "conversion.v2v-pod.dev/v1alpha1", "kind": "Plan", "metadata": {"name": name},
            "spec": {
                "providerRef": {"name": provider}, "vms": vms, "limits": {"vms": 9, "perHost": 9},
                "storageMap": {"entries": [{"datastore": "ds 1", "storageClass": "fast"}]}, "networkMap": {"default": {"pod": {}}},
            },
        }));
    };
    plan("bad", "wrong", json!([{"name": "web"}, {"name": "x"}]));
    let vms = json!([
        {"uuid": uuid(2), "targetName": "odd"}, {"name": "twin"}, {"name": "many disks", "targetName": "many"},
        {"uuid": uuid(5), "targetName": "busy"}, {"name": "web"},
    ]);
    plan("good", "vc", vms);

    let twin = room.until_class("good", 1, "not-found");
    assert!(twin.contains("3 VMs have") && twin.contains("folder two"), "{twin}");
    let many = room.until_class("good", 2, "config");
    assert!(many.contains("nvme0:0"), "{many}");
    room.until_class("good", 3, "source-busy");
    for vm in [0, 1] {
        let refused = room.until_class("bad", vm, "auth");
        assert!(refused.contains("incorrect user name or password"), "{refused}");
    }
    // vCenter locks out who tries too often.
    assert_eq!(vcenter.stats()["logins_failed"], 1);

    let boot = room.provision("good-web-disk-0");
    assert_eq!(boot["spec"]["storage"]["resources"]["requests"]["storage"], "1536Mi");
    assert_eq!(boot["spec"]["storage"]["storageClassName"], "fast");
    room.provision("good-web-disk-1");
    room.provision("good-odd-disk-0");
    let user = USER.replace('@', "%40");
    let path = "Euro%252fpe/DC%201%2525/racks/C%255c1/esx1.example.com";
    let by_vcenter = format!("vpx://{user}@localhost:{}/{path}", vcenter.port);
    for (vm, host, url, secret) in [
        ("web", "esx1.example.com", by_vcenter.as_str(), "vc"),
        ("odd", "esx2", "esx://root@10.1.2.3", "esx2"),
    ] {
        let pod = room.until("pod", &format!("good-{vm}"), Value::is_object);
        let env = pod["spec"]["containers"][0]["env"].as_array().unwrap();
        let of = |name: &str| {
            let found = env.iter().find(|e| e["name"] == name);
            found.unwrap_or_else(|| panic!("{name}: {env:#?}"))["value"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        assert_eq!(of("V2V_libvirtURL"), url);
        assert!(of("V2V_vmUUID").starts_with("42000000-1111-2222-3333-"), "{env:#?}");
        let volumes = pod["spec"]["volumes"].as_array().unwrap();
        assert!(volumes.iter().any(|v| v["secret"]["secretName"] == secret), "{volumes:#?}");
        let status = room.until("plan", "good", |p| p["status"]["vms"].is_array());
        let vms = status["status"]["vms"].as_array().unwrap();
        assert!(vms.iter().any(|s| s["name"] == vm && s["host"] == host), "{vms:#?}");
    }
    // Not once for each VM and round, but for each minute.
    let made = vcenter.stats()["sessions_made"].as_u64().unwrap();
    assert!(made <= 1 + begin.elapsed().as_secs() / 60, "{made} logins");
    let log = fs::read_to_string(server.dir().join("controller.log")).unwrap();
    assert!(!log.contains(PASSWORD) && !log.contains("not the password"), "{log}");
}

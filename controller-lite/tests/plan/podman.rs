//! One whole conversion: the pods that the controller makes are run by podman, from the very Pod
//! objects, and their end is told to the API server.

use crate::lab::{Controller, Room, address, ended};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use v2v_pod_tests::e2e::lab::{lab, root, turn};
use v2v_pod_tests::e2e::pod::{LONG, Pod, Request, SHORT};
use v2v_pod_tests::e2e::volume::{Block, Scratch, must};
use v2v_pod_tests::http;

/// What a claim is on this machine.
enum Place {
    Block(Block),
    Folder(PathBuf),
    ReadOnly(PathBuf),
}

/// As the kubelet: from a Pod to a container.
struct Kubelet<'a> {
    scratch: &'a Scratch,
    claims: HashMap<String, Place>,
}

impl Kubelet<'_> {
    fn start(&self, pod: &Value) -> Pod {
        let spec = &pod["spec"];
        let main = &spec["containers"][0];
        // `v2v_podman_run` runs as a restricted pod does; the object must ask for no more and no less.
        assert_eq!(spec["securityContext"]["runAsUser"], 107);
        assert_eq!(main["securityContext"]["readOnlyRootFilesystem"], true);
        assert_eq!(main["securityContext"]["capabilities"], json!({ "drop": ["ALL"] }));
        let name = pod["metadata"]["name"].as_str().unwrap();
        let work = self.scratch.folder(&format!("{name}-work"));
        let mut request = Request::new(&work);
        let end = self.scratch.path(&format!("{name}-end"));
        fs::write(&end, "").unwrap();
        must(Command::new("chown").arg("107:107").arg(&end));
        let said_at = main["terminationMessagePath"].as_str().unwrap();
        request = request.mount(&end, said_at).env("V2V_terminationLog", said_at);
        for variable in list(&main["env"]) {
            let value = variable["value"].as_str().unwrap().replace("$$(", "$(");
            request = request.env(variable["name"].as_str().unwrap(), &value);
        }
        for mount in list(&main["volumeMounts"]).iter().chain(list(&main["volumeDevices"])) {
            request = self.mount(request, spec, mount, name);
        }
        if let Some(program) = main["command"][0].as_str() {
            request = request.option("--entrypoint", program);
            let words = list(&main["command"])[1..].iter().chain(list(&main["args"]));
            let words: Vec<&str> = words.map(|word| word.as_str().unwrap()).collect();
            request = request.command(&words);
        }
        request.start()
    }

    fn mount(&self, request: Request, spec: &Value, mount: &Value, pod: &str) -> Request {
        let volume = list(&spec["volumes"]).iter().find(|v| v["name"] == mount["name"]).unwrap();
        let inside = mount["mountPath"].as_str().or(mount["devicePath"].as_str()).unwrap();
        // Request and v2v_podman_run have these.
        if ["/var/tmp", "/tmp"].contains(&inside) {
            assert!(volume["emptyDir"].is_object());
            return request;
        }
        if volume["emptyDir"].is_object() {
            let name = format!("{pod}-{}", volume["name"].as_str().unwrap());
            return request.mount(&self.scratch.folder(&name), inside);
        }
        match &self.claims[volume["persistentVolumeClaim"]["claimName"].as_str().unwrap()] {
            Place::Block(block) => {
                request.option("--device", format!("{}:{inside}", block.node.display()))
            }
            Place::Folder(folder) => request.mount(folder, inside),
            Place::ReadOnly(folder) => {
                assert_eq!(mount["readOnly"], true);
                request.mount_read_only(folder, inside)
            }
        }
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Passes connections to an address of the pod on to a port of this machine, which a container on
/// the host's network has instead.
fn relay(ip: Ipv4Addr, port: u16, to: u16) {
    let listener = TcpListener::bind((ip, port)).unwrap();
    std::thread::spawn(move || {
        for mut here in listener.incoming().flatten() {
            let Ok(mut there) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)) else { continue };
            let (mut back, mut forth) = (there.try_clone().unwrap(), here.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut forth, &mut there));
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut back, &mut here);
                let _ = here.shutdown(std::net::Shutdown::Both);
            });
        }
    });
}

fn end_of(pod: &mut Pod, end: &Path) -> Value {
    let code = pod.exit_code(LONG);
    let said = fs::read_to_string(end).unwrap();
    let errors = pod.errors();
    pod.check(!said.is_empty(), format_args!("it leaves a message; {errors}"));
    ended(if code == 0 { "Succeeded" } else { "Failed" }, code, &said)
}

#[test]
fn a_guest_becomes_a_vm() {
    let (lab, _turn) = (lab(), turn());
    let (room, scratch) = (Room::new(), Scratch::new());
    let image = std::env::var("V2V_IMAGE").unwrap_or("localhost/v2v-pod:latest".to_owned());
    let _controller = Controller::start(room.server, &room.namespace, &["--image", &image]);
    let mut kubelet = Kubelet { scratch: &scratch, claims: HashMap::new() };
    kubelet.claims.insert("images".to_owned(), Place::ReadOnly(lab.guest.clone()));
    room.apply(&json!({
        "apiVersion": "conversion.v2v-pod.dev/v1alpha1", "kind": "Plan",
        "metadata": { "name": "wave" },
        "spec": {
            "providerRef": { "name": "files" },
            "vms": [{ "name": "web", "paths": ["boot.img", "data.img"] }],
            "storageMap": { "entries": [
                { "disk": { "index": 0 }, "volumeMode": "Block" },
                { "disk": { "index": 1 }, "volumeMode": "Filesystem" },
            ] },
            "runStrategy": "Always",
        },
    }));

    let pod = room.until("pod", "wave-web-measure", Value::is_object);
    assert_eq!(pod["spec"]["containers"][0]["image"], image);
    let mut measure = kubelet.start(&pod);
    let end = end_of(&mut measure, &scratch.path("wave-web-measure-end"));
    room.set_status("pod", "wave-web-measure", &end);

    let asked = room.provision("wave-web-disk-0")["spec"]["storage"]["resources"].clone();
    assert_eq!(asked["requests"]["storage"], "1536Mi");
    room.provision("wave-web-disk-1");
    kubelet
        .claims
        .insert("wave-web-disk-0".to_owned(), Place::Block(scratch.block("disk0", 1536 << 20)));
    kubelet.claims.insert("wave-web-disk-1".to_owned(), Place::Folder(scratch.folder("disk1")));
    let object = room.until("pod", "wave-web", Value::is_object);
    let mut pod = kubelet.start(&object);
    pod.first_process();
    let (ip, ports) = (address(), pod.ports);
    relay(ip, 2113, ports.live);
    room.runs("wave-web", ip);
    let copied = |plan: &Value| plan["status"]["vms"][0]["disks"][0]["copied"].as_u64() > Some(0);
    pod.until("the copy is in the Plan's status", LONG, |_| copied(&room.get("plan", "wave")));
    pod.until("the result is served", LONG, |_| http::is_open(ports.result));
    relay(ip, 8080, ports.result);
    // The controller takes the result and ends the pod.
    pod.ends_with(0, SHORT);
    room.set_status("pod", "wave-web", &end_of(&mut pod, &scratch.path("wave-web-end")));

    room.until_vm("wave", "web", "Succeeded");
    let vm = room.get("virtualmachine", "web");
    assert_eq!(vm["spec"]["runStrategy"], "Always");
    assert_eq!(vm["metadata"]["labels"]["libguestfs.org/osinfo"], "debian12");
    let disks = &vm["spec"]["template"]["spec"]["domain"]["devices"]["disks"];
    assert_eq!((list(disks).len(), &disks[0]["bootOrder"]), (2, &json!(1)), "{vm:#}");
    let wanted = fs::read_to_string(lab.guest.join("data.sha256")).unwrap();
    let data = must(Command::new("sha256sum").arg(scratch.path("disk1/disk.img")));
    assert_eq!(data.split(' ').next(), wanted.split(' ').next());
    let Place::Block(boot) = &kubelet.claims["wave-web-disk-0"] else { panic!("a device") };
    must(Command::new(root().join("tests/lab/boot.sh")).arg(&boot.node).args(["--timeout", "600"]));
}

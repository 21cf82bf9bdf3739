//! As the kubelet: podman runs the pods that the controller makes, from the very Pod objects, and
//! their end is told to the API server.

use crate::lab::{Room, address, ended_now};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use v2v_pod_tests::e2e::pod::{LONG, Pod, Request, SHORT};
use v2v_pod_tests::e2e::volume::{Block, Scratch, must};
use v2v_pod_tests::http;

/// What a claim is on this machine.
pub enum Place {
    Block(Block),
    Folder(PathBuf),
    ReadOnly(PathBuf),
}

/// As the kubelet: from a Pod to a container.
pub struct Kubelet<'a> {
    pub scratch: &'a Scratch,
    pub claims: HashMap<String, Place>,
    /// Folders of the Secrets.
    pub secrets: HashMap<String, PathBuf>,
    /// What the lab adds to values of settings.
    pub more: Vec<(&'static str, &'static str)>,
    /// What the lab shows to every pod beside its volumes.
    pub beside: Vec<(PathBuf, &'static str)>,
}

impl<'a> Kubelet<'a> {
    pub fn new(scratch: &'a Scratch) -> Self {
        let (claims, secrets) = (HashMap::new(), HashMap::new());
        Self { scratch, claims, secrets, more: Vec::new(), beside: Vec::new() }
    }

    pub fn claim(&mut self, name: &str, place: Place) {
        self.claims.insert(name.to_owned(), place);
    }

    /// A Secret as the API server has it, in a folder as the kubelet lays it out for fsGroup 107.
    pub fn secret(&mut self, room: &Room, name: &str) {
        let folder = self.scratch.path(&format!("secret-{name}"));
        fs::create_dir_all(folder.join("..now")).unwrap();
        symlink("..now", folder.join("..data")).unwrap();
        for (key, value) in room.get("secret", name)["data"].as_object().unwrap() {
            let bytes = openssl::base64::decode_block(value.as_str().unwrap()).unwrap();
            fs::write(folder.join("..now").join(key), bytes).unwrap();
            symlink(Path::new("..data").join(key), folder.join(key)).unwrap();
        }
        let script = "chown root:107 \"$1\"/..now/* && chmod 0440 \"$1\"/..now/*";
        must(Command::new("bash").args(["-c", script, "bash"]).arg(&folder));
        self.secrets.insert(name.to_owned(), folder);
    }

    /// The pod of this name runs to its end, which the API server is told; its termination message.
    pub fn run(&self, room: &Room, name: &str) -> Value {
        let object = room.until("pod", name, Value::is_object);
        let mut pod = self.start(&object);
        let end = self.end_of(&mut pod, name);
        room.set_status("pod", name, &end);
        let said = &end["containerStatuses"][0]["state"]["terminated"]["message"];
        serde_json::from_str(said.as_str().unwrap()).unwrap()
    }

    /// The conversion pod of VM `vm` of Plan `plan` runs until the controller has its result.
    pub fn convert(&self, room: &Room, plan: &str, vm: &str) -> Pod {
        let name = format!("{plan}-{vm}");
        let object = room.until("pod", &name, Value::is_object);
        let mut pod = self.start(&object);
        pod.first_process();
        let (ip, ports) = (address(), pod.ports);
        relay(ip, 2113, ports.live);
        room.runs(&name, ip);
        let copied =
            |plan: &Value| plan["status"]["vms"][0]["disks"][0]["copied"].as_u64() > Some(0);
        pod.until("the copy is in the Plan's status", LONG, |_| copied(&room.get("plan", plan)));
        pod.until("the result is served", LONG, |_| http::is_open(ports.result));
        relay(ip, 8080, ports.result);
        // The controller takes the result and ends the pod.
        pod.ends_with(0, SHORT);
        room.set_status("pod", &name, &self.end_of(&mut pod, &name));
        room.until_vm(plan, vm, "Succeeded");
        pod
    }

    fn end_of(&self, pod: &mut Pod, name: &str) -> Value {
        let code = pod.exit_code(LONG);
        let said = fs::read_to_string(self.scratch.path(&format!("{name}-end"))).unwrap();
        let errors = pod.errors();
        pod.check(!said.is_empty(), format_args!("it leaves a message; {errors}"));
        ended_now(if code == 0 { "Succeeded" } else { "Failed" }, code, &said)
    }

    /// Its init containers run to their end, then its container starts.
    pub fn start(&self, pod: &Value) -> Pod {
        let spec = &pod["spec"];
        let main = &spec["containers"][0];
        // `v2v_podman_run` runs as a restricted pod does; the object must ask for no more and no less.
        assert_eq!(spec["securityContext"]["runAsUser"], 107);
        assert_eq!(main["securityContext"]["readOnlyRootFilesystem"], true);
        assert_eq!(main["securityContext"]["capabilities"], json!({ "drop": ["ALL"] }));
        let name = pod["metadata"]["name"].as_str().unwrap();
        for container in list(&spec["initContainers"]) {
            self.prepare(container, spec, name);
        }
        let work = self.scratch.folder(&format!("{name}-work"));
        let mut request = Request::new(&work);
        let end = self.scratch.path(&format!("{name}-end"));
        fs::write(&end, "").unwrap();
        must(Command::new("chown").arg("107:107").arg(&end));
        let said_at = main["terminationMessagePath"].as_str().unwrap();
        request = request.mount(&end, said_at).env("V2V_terminationLog", said_at);
        for variable in list(&main["env"]) {
            let name = variable["name"].as_str().unwrap();
            let mut value = variable["value"].as_str().unwrap().replace("$$(", "$(");
            value.extend(self.more.iter().filter(|(of, _)| *of == name).map(|(_, more)| *more));
            request = request.env(name, &value);
        }
        for mount in list(&main["volumeMounts"]).iter().chain(list(&main["volumeDevices"])) {
            request = self.mount(request, spec, mount, name);
        }
        for (folder, inside) in &self.beside {
            request = request.mount_read_only(folder, inside);
        }
        assert!(main["command"].is_null(), "the image knows its program");
        let words: Vec<&str> = list(&main["args"]).iter().map(|w| w.as_str().unwrap()).collect();
        request.command(&words).start()
    }

    /// An init container, with the rights that the object gives to it.
    fn prepare(&self, container: &Value, spec: &Value, pod: &str) {
        let rights = &container["securityContext"];
        assert_eq!(rights["allowPrivilegeEscalation"], false);
        assert_eq!(rights["capabilities"], json!({ "drop": ["ALL"] }));
        let mut command = Command::new("podman");
        command.args(["run", "--rm", "--runtime", "runc", "--network", "none", "--pull", "never"]);
        command.args(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"]);
        command.args(["--user", "107:107", "--cap-drop", "ALL"]);
        command.args(["--security-opt", "no-new-privileges"]);
        for mount in list(&container["volumeMounts"]) {
            let volume =
                list(&spec["volumes"]).iter().find(|v| v["name"] == mount["name"]).unwrap();
            assert!(volume["emptyDir"].is_object(), "{volume}");
            let folder = self.empty(pod, volume);
            let inside = mount["mountPath"].as_str().unwrap();
            command.args(["-v", &format!("{}:{inside}", folder.display())]);
        }
        assert!(container["command"].is_null() && container["args"].is_null());
        must(command.arg(container["image"].as_str().unwrap()));
    }

    fn empty(&self, pod: &str, volume: &Value) -> PathBuf {
        self.scratch.folder(&format!("{pod}-{}", volume["name"].as_str().unwrap()))
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
            return request.mount(&self.empty(pod, volume), inside);
        }
        if let Some(secret) = volume["secret"]["secretName"].as_str() {
            assert_eq!(mount["readOnly"], true);
            return request.mount_read_only(&self.secrets[secret], inside);
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

pub fn list(value: &Value) -> &[Value] {
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

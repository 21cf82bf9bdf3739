//! A controller, and what it needs around it.

use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use v2v_pod_tests::e2e::apiserver::ApiServer;

/// For anything: it is long only on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A controller; killed when dropped.
pub struct Controller {
    child: Child,
    log: PathBuf,
}

impl Controller {
    /// Starts one that looks at one namespace.
    pub fn start(server: &ApiServer, namespace: &str, more: &[&str]) -> Self {
        Self::start_with(&Self::kubeconfig(server, namespace), server, namespace, more)
    }

    /// The same, with its Lease in another namespace.
    pub fn start_from(home: &str, server: &ApiServer, namespace: &str, more: &[&str]) -> Self {
        let kubeconfig = server.kubeconfig_of_controller(&[home, namespace]);
        let watch = ["--watch", namespace, "--lease-namespace", home];
        Self::spawn(&kubeconfig, server, &[&watch, more].concat())
    }

    /// The same with another kubeconfig.
    pub fn start_with(
        kubeconfig: &Path,
        server: &ApiServer,
        namespace: &str,
        more: &[&str],
    ) -> Self {
        let watch = ["--watch", namespace, "--lease-namespace", namespace];
        Self::spawn(kubeconfig, server, &[&watch, more].concat())
    }

    fn spawn(kubeconfig: &Path, server: &ApiServer, args: &[&str]) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let log = server.dir().join(format!("controller-{number}.log"));
        let child = Command::new(env!("CARGO_BIN_EXE_controller-lite"))
            .args(["run", "--probes-port", "0"])
            .args(args)
            .env("KUBECONFIG", kubeconfig)
            .stdin(Stdio::null())
            .stdout(File::create(&log).unwrap())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        Self { child, log }
    }

    /// With the rights that `deploy/` gives to the controller and no others; made once for a namespace.
    pub fn kubeconfig(server: &ApiServer, namespace: &str) -> PathBuf {
        let kept = server.dir().join(format!("controller-in-{namespace}.kubeconfig"));
        if !kept.exists() {
            std::fs::rename(server.kubeconfig_of_controller(&[namespace]), &kept).unwrap();
        }
        kept
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// What it said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.end();
    }

    /// SIGTERM; its exit code.
    pub fn stop(mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        self.child.wait().unwrap().code()
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!(
                "--- the controller's log\n{}",
                lines[lines.len().saturating_sub(40)..].join("\n")
            );
        }
    }
}

/// A namespace with a Provider of type `disk`.
pub struct Room {
    pub server: &'static ApiServer,
    pub namespace: String,
}

impl Room {
    /// With the shared server, which has the CRDs of CDI and KubeVirt.
    pub fn new() -> Self {
        Self::on(ApiServer::shared())
    }

    /// With this server.
    pub fn on(server: &'static ApiServer) -> Self {
        let room = Self { server, namespace: server.namespace() };
        room.apply(&json!({
            "apiVersion": "conversion.v2v-pod.dev/v1alpha1", "kind": "Provider",
            "metadata": { "name": "files" },
            "spec": { "type": "disk", "sourceVolume": { "claimName": "images" } },
        }));
        room
    }

    /// `kubectl` in the namespace.
    pub fn kubectl(&self, args: &[&str]) -> v2v_pod_tests::e2e::apiserver::Kubectl {
        self.server.kubectl(&[&["-n", &self.namespace], args].concat())
    }

    pub fn apply(&self, object: &Value) {
        let args = ["-n", &self.namespace, "apply", "--validate=strict", "-f", "-"];
        self.server.kubectl_with(&args, &object.to_string()).ok();
    }

    /// A Plan for these VMs, each with this many disks; `more` is merged into the spec.
    pub fn plan(&self, name: &str, vms: &[(&str, usize)], more: &Value) {
        let vm = |(name, disks): &(&str, usize)| {
            let paths: Vec<String> = (0..*disks).map(|n| format!("{name}/{n}.img")).collect();
            json!({ "name": name, "paths": paths })
        };
        let mut spec = json!({
            "providerRef": { "name": "files" },
            "vms": vms.iter().map(vm).collect::<Vec<_>>(),
        });
        for (key, value) in more.as_object().unwrap() {
            spec[key] = value.clone();
        }
        self.apply(&json!({
            "apiVersion": "conversion.v2v-pod.dev/v1alpha1", "kind": "Plan",
            "metadata": { "name": name }, "spec": spec,
        }));
    }

    /// An object, or null.
    pub fn get(&self, kind: &str, name: &str) -> Value {
        let text = self.kubectl(&["get", kind, name, "-o", "json", "--ignore-not-found"]).ok();
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// All of a kind.
    pub fn list(&self, kind: &str) -> Vec<Value> {
        let all = self.kubectl(&["get", kind, "-o", "json"]).json();
        all["items"].as_array().unwrap().clone()
    }

    /// Waits for an object to be so; returns it.
    #[track_caller]
    pub fn until(&self, kind: &str, name: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let begin = Instant::now();
        loop {
            let object = self.get(kind, name);
            if is_so(&object) {
                return object;
            }
            if begin.elapsed() > PATIENCE {
                let plans = self.list("plans");
                panic!("not in time: {kind} {name}: {object:#}\nplans: {plans:#?}");
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The status of a VM of a Plan.
    #[track_caller]
    pub fn until_vm(&self, plan: &str, vm: &str, phase: &str) -> Value {
        let of = |plan: &Value| {
            let vms = plan["status"]["vms"].as_array().cloned().unwrap_or_default();
            vms.into_iter().find(|v| v["name"] == vm).unwrap_or_default()
        };
        of(&self.until("plan", plan, |plan| of(plan)["phase"] == phase))
    }

    /// Waits until it is not there any more.
    #[track_caller]
    pub fn until_gone(&self, kind: &str, name: &str) {
        self.until(kind, name, Value::is_null);
    }

    /// Writes a status, as its owner would.
    pub fn set_status(&self, kind: &str, name: &str, status: &Value) {
        let patch = json!({ "status": status }).to_string();
        let args = ["patch", kind, name, "--subresource=status", "--type=merge", "-p", &patch];
        self.kubectl(&args).ok();
    }

    /// As the kubelet: the pod that measures has ended.
    pub fn measured(&self, plan: &str, vm: &str, sizes: &[u64]) {
        let name = format!("{plan}-{vm}-measure");
        self.until("pod", &name, Value::is_object);
        let disks: Vec<Value> = sizes.iter().map(|bytes| json!({ "bytes": bytes })).collect();
        let said = json!({ "disks": disks, "nics": [] }).to_string();
        self.set_status("pod", &name, &ended("Succeeded", 0, &said));
    }

    /// As CDI: makes the claim of a `DataVolume`.
    pub fn provision(&self, name: &str) -> Value {
        let made = self.until("datavolume", name, Value::is_object);
        let storage = &made["spec"]["storage"];
        let claim = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {
                "name": name,
                "ownerReferences": [{
                    "apiVersion": "cdi.kubevirt.io/v1beta1", "kind": "DataVolume", "name": name,
                    "uid": made["metadata"]["uid"], "controller": true,
                }],
            },
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": storage["resources"],
                "volumeMode": storage["volumeMode"].as_str().unwrap_or("Filesystem"),
            },
        });
        self.apply(&claim);
        let status = json!({ "status": { "phase": "Succeeded" } });
        // The CRD may or may not have a status of its own.
        let patch = status.to_string();
        if !self
            .kubectl(&[
                "patch",
                "datavolume",
                name,
                "--subresource=status",
                "--type=merge",
                "-p",
                &patch,
            ])
            .success
        {
            self.kubectl(&["patch", "datavolume", name, "--type=merge", "-p", &patch]).ok();
        }
        made
    }

    /// As the kubelet: the pod runs at this address.
    pub fn runs(&self, name: &str, ip: Ipv4Addr) {
        let ip = ip.to_string();
        self.set_status(
            "pod",
            name,
            &json!({
                "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }],
            }),
        );
    }

    /// Reasons of the events, sorted.
    pub fn reasons(&self) -> Vec<String> {
        let mut reasons: Vec<String> = self
            .list("events.events.k8s.io")
            .iter()
            .map(|e| e["reason"].as_str().unwrap().to_owned())
            .collect();
        reasons.sort();
        reasons
    }
}

/// A pod's status at its end.
pub fn ended(phase: &str, code: i32, message: &str) -> Value {
    json!({ "phase": phase, "containerStatuses": [{
        "name": "virt-v2v", "image": "v2v-pod", "imageID": "", "ready": false, "restartCount": 0,
        "state": { "terminated": {
            "exitCode": code, "message": message, "reason": "Completed",
            "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:01Z",
        } },
    }] })
}

/// The same of a pod that ends now: a failure of a pod that measures is told for a minute.
pub fn ended_now(phase: &str, code: i32, message: &str) -> Value {
    let mut status = ended(phase, code, message);
    let now = Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]).output().unwrap().stdout;
    status["containerStatuses"][0]["state"]["terminated"]["finishedAt"] =
        json!(String::from_utf8(now).unwrap().trim());
    status
}

/// An address of this machine that nobody else uses.
pub fn address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [high, low] = u16::try_from(std::process::id() % 60_000).unwrap().to_be_bytes();
    Ipv4Addr::new(127, high.max(1), low, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The answers of a pod at one of its ports.
pub struct Answers {
    asked: Arc<Mutex<Vec<String>>>,
}

impl Answers {
    /// Answers there until the process ends; `None` is 404.
    pub fn at(ip: Ipv4Addr, port: u16, answer: fn(&str) -> Option<String>) -> Self {
        let listener = TcpListener::bind((ip, port)).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let list = asked.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut buffer = [0; 2000];
                let read = stream.read(&mut buffer).unwrap_or(0);
                let request = String::from_utf8_lossy(&buffer[..read]).into_owned();
                let mut words = request.split(' ');
                let (Some(method), Some(path)) = (words.next(), words.next()) else { continue };
                list.lock().unwrap().push(format!("{method} {path}"));
                let (status, body) = match answer(path) {
                    Some(body) => ("200 OK", body),
                    None => ("404 Not Found", String::new()),
                };
                let length = body.len();
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
                );
            }
        });
        Self { asked }
    }

    /// What it was asked.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// Waits until it was asked this.
    #[track_caller]
    pub fn until_asked(&self, what: &str) {
        let begin = Instant::now();
        while !self.asked().iter().any(|a| a == what) {
            assert!(begin.elapsed() < PATIENCE, "not asked {what}, but {:?}", self.asked());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The result of a guest with two disks, as v2v-pod serves it.
pub fn two_disks(path: &str) -> Option<String> {
    match path {
        "/vm" => Some(VM.to_owned()),
        "/warnings" => {
            Some(r#"[{"reason":"ServerNotVerified","message":"it was not asked"}]"#.to_owned())
        }
        "/inspection" => Some(INSPECTION.to_owned()),
        "/shutdown" => Some(String::new()),
        _ => None,
    }
}

const INSPECTION: &str = "<v2v-inspection><operatingsystem><name>linux</name><osinfo>debian12</osinfo>\
    <product_name>Debian\n 12</product_name></operatingsystem></v2v-inspection>";

/// Of a guest with one disk, and nothing to warn of.
pub fn one_disk(path: &str) -> Option<String> {
    match path {
        "/vm" => Some(VM.replace("\n          - {name: disk-1, disk: {bus: sata}}", "")),
        "/warnings" | "/shutdown" => Some(String::new()),
        _ => None,
    }
}

const VM: &str = r"apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata:
  name: web
  labels: {app: web, libguestfs.org/osinfo: debian12}
spec:
  runStrategy: Halted
  template:
    metadata: {labels: {kubevirt.io/domain: web}}
    spec:
      architecture: amd64
      domain:
        clock: {utc: {}}
        cpu: {sockets: 1, cores: 2, threads: 1}
        features: {acpi: {}, apic: {}}
        firmware: {bootloader: {bios: {}}}
        machine: {type: q35}
        memory: {guest: 2048Mi}
        devices:
          disks:
          - {name: disk-0, bootOrder: 1, disk: {bus: virtio}}
          - {name: disk-1, disk: {bus: sata}}
          inputs: [{name: tablet, type: tablet, bus: usb}]
          interfaces: [{name: net-0, model: virtio, masquerade: {}}]
          rng: {}
      networks: [{name: net-0, pod: {}}]
      volumes: []
";

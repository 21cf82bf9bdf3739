//! A real Kubernetes API server with our CRDs and those of CDI and KubeVirt; `tests/lab/apiserver.sh`
//! builds and runs it. No controller runs beside it: what those would do, a test does itself.

use super::lab::{root, said};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};

/// The CRDs of others; ours are in `deploy/crds.yaml`.
const OTHERS: &str = "tests/lab/crds";

/// A running server with data of its own; ends when dropped, or with this process.
#[derive(Debug)]
pub struct ApiServer {
    child: Child,
    /// A kubeconfig of its administrator.
    pub kubeconfig: PathBuf,
    /// Where it listens.
    pub url: String,
    bin: PathBuf,
}

impl ApiServer {
    /// Starts one, with all CRDs established.
    pub fn start() -> Self {
        let server = Self::bare();
        server.kubectl(&["apply", "--server-side", "-f", "deploy/crds.yaml", "-f", OTHERS]).ok();
        server
            .kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"])
            .ok();
        server
    }

    /// Starts one as it comes, without any CRD.
    pub fn bare() -> Self {
        let mut child = Command::new(root().join("tests/lab/apiserver.sh"))
            .arg("run")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|e| {
            panic!("tests/lab/apiserver.sh run says {line:?}: {e} (its errors are above)")
        });
        let text = |key: &str| ready[key].as_str().unwrap().to_owned();
        let (kubeconfig, url, bin) = (text("kubeconfig").into(), text("url"), text("bin").into());
        Self { child, kubeconfig, url, bin }
    }

    /// The one that all tests of a program share. Each works in a [`Self::namespace`] of its own.
    pub fn shared() -> &'static Self {
        // When it does not start, all of them fail at once.
        static SERVER: LazyLock<ApiServer> = LazyLock::new(ApiServer::start);
        &SERVER
    }

    /// A new namespace.
    pub fn namespace(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.kubectl(&["create", "namespace", &name]).ok();
        name
    }

    /// `kubectl` as the administrator, in the top folder of the repository.
    pub fn kubectl(&self, args: &[&str]) -> Kubectl {
        self.kubectl_with(args, "")
    }

    /// The same with something on its standard input, for `-f -`.
    pub fn kubectl_with(&self, args: &[&str], input: &str) -> Kubectl {
        let mut child = Command::new(self.bin.join("kubectl"))
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(args)
            .current_dir(root())
            // It keeps what it knows of a server, by its address.
            .env("KUBECACHEDIR", self.dir().join("kubectl"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        Kubectl {
            command: args.join(" "),
            success: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            said: said(&output),
        }
    }

    /// A script of the manual, as the administrator types it in the top folder of the repository.
    pub fn shell(&self, script: &str) -> Kubectl {
        let path = std::env::var("PATH").unwrap();
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", script])
            .current_dir(root())
            .env("PATH", format!("{}:{path}", self.bin.display()))
            .env("KUBECONFIG", &self.kubeconfig)
            .env("KUBECACHEDIR", self.dir().join("kubectl"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Kubectl {
            command: script.to_owned(),
            success: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            said: said(&output),
        }
    }

    /// A kubeconfig with the rights that `deploy/` gives to the controller, in these namespaces, which
    /// admit it; its Lease is in the first of them.
    pub fn kubeconfig_of_controller(&self, namespaces: &[&str]) -> PathBuf {
        // Two that create the same thing at the same time would disturb each other.
        static TURN: Mutex<()> = Mutex::new(());
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let (system, name) = ("v2v-pod-system", "controller-lite");
        self.kubectl(&["apply", "-f", "deploy/namespace.yaml", "-f", "deploy/rbac.yaml"]).ok();
        let bind = |namespace: &str, binding: &str, role: &str| {
            let account = format!("--serviceaccount={system}:{name}");
            let create = ["create", "rolebinding", binding, "-n", namespace, role, &account];
            let manifest =
                self.kubectl(&[&create[..], &["--dry-run=client", "-o", "yaml"]].concat()).ok();
            self.kubectl_with(&["apply", "-f", "-"], &manifest).ok();
        };
        for namespace in namespaces {
            bind(namespace, name, "--clusterrole=controller-lite-namespace");
        }
        // A cluster has one Lease, in the controller's own namespace; here each test has its own.
        let role = self.kubectl(&["get", "role", "-n", system, name, "-o", "json"]).json();
        let rules = json!({
            "apiVersion": role["apiVersion"], "kind": role["kind"], "rules": role["rules"],
            "metadata": {"name": "leader", "namespace": namespaces[0]},
        });
        self.kubectl_with(&["apply", "-f", "-"], &rules.to_string()).ok();
        bind(namespaces[0], "leader", "--role=leader");
        self.kubeconfig_of(system, name)
    }

    /// A kubeconfig of a service account, with a token as the kubelet would give to its pods.
    pub fn kubeconfig_of(&self, namespace: &str, service_account: &str) -> PathBuf {
        // Tests run in parallel: a file for each.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let token = self.kubectl(&["create", "token", "-n", namespace, service_account]).ok();
        let ca = self
            .kubectl(&[
                "config",
                "view",
                "--raw",
                "--output",
                "jsonpath={.clusters[0].cluster.certificate-authority-data}",
            ])
            .ok();
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "lab",
            "clusters": [{"name": "lab", "cluster": {"server": self.url, "certificate-authority-data": ca}}],
            "users": [{"name": service_account, "user": {"token": token.trim()}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": service_account}}],
        });
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = self.dir().join(format!("{service_account}-{number}.kubeconfig"));
        fs::write(&path, config.to_string()).unwrap();
        path
    }

    /// The requests of a service account's program so far, as the server's audit has them: `verb`,
    /// `requestURI`, `objectRef`, `responseStatus.code` and more. `kubectl` does not count.
    pub fn requests_of(&self, namespace: &str, service_account: &str) -> Vec<Value> {
        let user = format!("system:serviceaccount:{namespace}:{service_account}");
        let log = fs::read_to_string(self.dir().join("audit.log")).unwrap_or_default();
        let lines = log.lines().filter_map(|line| serde_json::from_str(line).ok());
        let by_hand = |agent: &Value| agent.as_str().is_some_and(|a| a.starts_with("kubectl"));
        lines
            .filter(|r: &Value| r["user"]["username"] == user && !by_hand(&r["userAgent"]))
            .collect()
    }

    /// Those of them that RBAC did not let through, in one namespace.
    pub fn refused_to(&self, namespace: &str, service_account: &str, there: &str) -> Vec<String> {
        let requests = self.requests_of(namespace, service_account).into_iter();
        requests
            .filter(|r| r["responseStatus"]["code"] == 403 && r["objectRef"]["namespace"] == there)
            .map(|r| format!("{} {}", r["verb"], r["requestURI"]))
            .collect()
    }

    /// Its temporary folder.
    pub fn dir(&self) -> &Path {
        self.kubeconfig.parent().unwrap()
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        let log = fs::read_to_string(self.dir().join("apiserver.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(50)..].join("\n")
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        // The end of its standard input is what it waits for.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// What `kubectl` did.
#[derive(Debug)]
pub struct Kubectl {
    command: String,
    /// Whether it succeeded.
    pub success: bool,
    /// Its standard output.
    pub stdout: String,
    /// All that it printed.
    pub said: String,
}

impl Kubectl {
    /// Its standard output. It must have succeeded.
    pub fn ok(self) -> String {
        assert!(self.success, "kubectl {}: {}", self.command, self.said);
        self.stdout
    }

    /// All that it printed. It must have failed.
    pub fn refused(self) -> String {
        assert!(!self.success, "kubectl {} was not refused: {}", self.command, self.said);
        self.said
    }

    /// Its standard output, which must be JSON. It must have succeeded.
    pub fn json(self) -> Value {
        let command = self.command.clone();
        serde_json::from_str(&self.ok()).unwrap_or_else(|e| panic!("kubectl {command}: {e}"))
    }
}

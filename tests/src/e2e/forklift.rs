//! Forklift's plan controller with one conversion pod: the pod that its builder makes, what it asks
//! the pod, how it reads the answers, and what it takes for done (its code of 2026-08; nothing of it is
//! copied).

use super::pod::{Pod, Request};
use super::watch::forklift_progress;
use crate::http;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// It looks every few seconds; oftener here, so that the copy of a small disk is seen.
const POLL: Duration = Duration::from_millis(200);
/// Where its builder shows a plugin that some VDDK images have, and ours has not.
const NFC_PLUGIN: &str = "nbdkit-nfc-plugin.so";

/// The pod of a VM of vSphere, but for volumes. Beside it the test may add what only the lab needs.
/// `opt` is the volume that the init container has filled.
pub fn vsphere_pod(work: &Path, secret: &Path, opt: &Path, variables: &[(&str, &str)]) -> Request {
    // The kubelet makes a folder for the `subPath` of a file that is not there.
    let plugin = opt.join(NFC_PLUGIN);
    let _ = fs::create_dir(&plugin);
    let mut request = Request::with_writable_root(work)
        // runAsUser without runAsGroup: the group is the image's; fsGroup comes beside it.
        .option("--user", "107")
        .option("--group-add", "107")
        .mount_read_only(secret, "/etc/secret")
        .mount(opt, "/opt")
        .mount(&plugin, &format!("/usr/lib64/nbdkit/plugins/{NFC_PLUGIN}"));
    // envFrom, with the prefix V2V_: every key of the Secret, the password too.
    for entry in fs::read_dir(secret).unwrap().flatten() {
        let (name, value) = (entry.file_name(), fs::read_to_string(entry.path()).unwrap());
        request = request.env(&format!("V2V_{}", name.to_string_lossy()), &value);
    }
    request
        .env("V2V_source", "vSphere")
        .envs(variables)
        .env("V2V_extra_args", "[]")
        .env("V2V_inspector_extra_args", "[]")
        .env("LOCAL_MIGRATION", "true")
}

/// What came of a pod.
#[derive(Debug, Default)]
pub struct Driven {
    /// Requests to :8080, in order.
    pub requests: Vec<String>,
    /// What became of each disk's task, in percent; by number, from 1.
    pub progress: BTreeMap<u32, Vec<f64>>,
    /// Index of the disk that boots.
    pub boot_disk: Option<usize>,
    /// Name of the operating system.
    pub system: Option<String>,
    /// Of the pod.
    pub exit_code: i32,
}

/// Looks at the pod again and again, until it has ended. Panics where Forklift's controller would fail
/// the migration or go round in circles.
pub fn drive(pod: &mut Pod, limit: Duration) -> Driven {
    let (begin, mut driven) = (Instant::now(), Driven::default());
    while !pod.has_ended() {
        pod.check(begin.elapsed() < limit, "the pod ends in time");
        driven.scrape(pod);
        if driven.requests.is_empty() && http::is_open(pod.ports.result) {
            driven.take_result(pod);
        }
        std::thread::sleep(POLL);
    }
    // The pod's phase is all that says whether it went well.
    driven.exit_code = pod.exit_code(POLL);
    driven
}

impl Driven {
    /// A failure is only logged there.
    fn scrape(&mut self, pod: &Pod) {
        let metrics = http::request(pod.ports.metrics, "GET", "/metrics").body;
        for (disk, percent) in forklift_progress(&metrics) {
            let seen = self.progress.entry(disk.parse().unwrap()).or_default();
            let percent: f64 = percent.parse().unwrap();
            if seen.last() != Some(&percent) {
                seen.push(percent);
            }
        }
    }

    /// Any answer is acted on, at once and once: nobody asks again.
    fn take_result(&mut self, pod: &mut Pod) {
        let vm = self.ask(pod, "GET", "/vm");
        let vm: Value = serde_saphyr::from_str(&vm).unwrap_or_default();
        pod.check(vm["kind"] == "VirtualMachine", format_args!("/vm is a VM: {vm}"));
        let disks = &vm["spec"]["template"]["spec"]["domain"]["devices"]["disks"];
        let boots = |disk: &Value| disk["bootOrder"] == 1;
        self.boot_disk = disks.as_array().and_then(|all| all.iter().position(boots));
        let inspection = self.ask(pod, "GET", "/inspection");
        self.system = roxmltree::Document::parse(&inspection).ok().and_then(|document| {
            let system = document.descendants().find(|n| n.has_tag_name("operatingsystem"))?;
            let osinfo = system.children().find(|n| n.has_tag_name("osinfo"))?;
            osinfo.text().map(str::to_owned)
        });
        let warnings = self.ask(pod, "GET", "/warnings");
        let list = || serde_json::from_str::<Vec<Value>>(&warnings);
        pod.check(warnings.is_empty() || list().is_ok(), format_args!("/warnings: {warnings}"));
        self.ask(pod, "POST", "/shutdown");
    }

    fn ask(&mut self, pod: &mut Pod, method: &str, path: &str) -> String {
        let answer = http::request(pod.ports.result, method, path);
        self.requests.push(answer.request.clone());
        pod.check(answer.error.is_none(), format_args!("{path} is answered: {answer:?}"));
        answer.body
    }
}

//! The conversion pod: what `docs/contract.md` says of settings, mounts and ports, and nothing
//! that a namespace under the `restricted` Pod Security Standard would refuse.

use super::journal::JOURNAL_FOLDER;
use super::source::{SOURCE_FOLDER, Source};
use super::vm::Facts;
use super::volume::Mode;
use super::{ANNOTATION_FACTS, LABEL_ATTEMPT, LABEL_ROLE, Origin};
use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, Container, ContainerPort, EmptyDirVolumeSource, EnvVar,
    PersistentVolumeClaimVolumeSource, Pod, PodAffinityTerm, PodAntiAffinity, PodSecurityContext,
    PodSpec, ResourceRequirements, SeccompProfile, SecretVolumeSource, SecurityContext, Volume,
    VolumeDevice, VolumeMount, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::collections::BTreeMap;

/// Name of the container that converts.
pub const CONTAINER: &str = "virt-v2v";
/// Port of the result, by its name in the pod.
pub const PORT_RESULT: &str = "result";
/// Port of the live page and its state.
pub const PORT_LIVE: &str = "live";
/// What a KVM device is called where KubeVirt offers it.
pub const KVM: &str = "devices.kubevirt.io/kvm";
/// Value of the role label.
pub const ROLE: &str = "conversion";
/// Of a pod that only looks how large disks are.
pub const ROLE_MEASURE: &str = "measure";

/// qemu in the image: the user whom the volumes belong to.
const USER: i64 = 107;
/// Longer than v2v-pod's own 20 s for its tools.
const GRACE_SECONDS: i64 = 60;

/// One volume as the cluster has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The claim.
    pub claim: String,
    /// Its mode.
    pub mode: Mode,
}

/// All that a pod is made of.
#[derive(Debug, Clone)]
pub struct Conversion<'a> {
    /// For which VM.
    pub origin: &'a Origin,
    /// Which try, from 1.
    pub attempt: u32,
    /// The conversion image.
    pub image: &'a str,
    /// Where the guest is.
    pub source: &'a Source,
    /// Secret with user and password.
    pub secret: Option<&'a str>,
    /// The volumes, in virt-v2v's order.
    pub disks: &'a [Disk],
    /// Claim of the journals, where the disks are copied first.
    pub journal: Option<&'a str>,
    /// Image of the VDDK sidecar.
    pub vddk_image: Option<&'a str>,
    /// Whether a node offers a KVM device.
    pub kvm: bool,
    /// Instead of [`default_resources`].
    pub resources: Option<&'a ResourceRequirements>,
    /// What the VM object needs to know later.
    pub facts: &'a Facts,
}

impl Conversion<'_> {
    /// The pod.
    pub fn pod(&self) -> Pod {
        let mut metadata = self.origin.metadata(self.origin.pod_name());
        let labels = metadata.labels.get_or_insert_default();
        labels.insert(LABEL_ROLE.to_owned(), ROLE.to_owned());
        labels.insert(LABEL_ATTEMPT.to_owned(), self.attempt.to_string());
        metadata.annotations =
            Some([(ANNOTATION_FACTS.to_owned(), self.facts.to_text())].into_iter().collect());
        Pod { metadata, spec: Some(self.spec()), status: None }
    }

    fn spec(&self) -> PodSpec {
        PodSpec {
            containers: vec![self.container()],
            init_containers: self.vddk_image.map(|image| vec![sidecar(image)]),
            volumes: Some(self.volumes()),
            restart_policy: Some("Never".to_owned()),
            termination_grace_period_seconds: Some(GRACE_SECONDS),
            // It talks to the source alone: neither to the API server nor to services.
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: Some(USER),
                run_as_group: Some(USER),
                fs_group: Some(USER),
                fs_group_change_policy: Some("OnRootMismatch".to_owned()),
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".to_owned(),
                    localhost_profile: None,
                }),
                ..PodSecurityContext::default()
            }),
            affinity: Some(apart()),
            ..PodSpec::default()
        }
    }

    fn container(&self) -> Container {
        let mut resources = self.resources.cloned().unwrap_or_else(default_resources);
        if self.kvm {
            let one = || Quantity("1".to_owned());
            resources.requests.get_or_insert_default().insert(KVM.to_owned(), one());
            resources.limits.get_or_insert_default().insert(KVM.to_owned(), one());
        }
        let port = |name: &str, port| ContainerPort {
            name: Some(name.to_owned()),
            container_port: port,
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        };
        Container {
            name: CONTAINER.to_owned(),
            image: Some(self.image.to_owned()),
            image_pull_policy: Some("IfNotPresent".to_owned()),
            env: Some(self.env()),
            ports: Some(vec![
                port("metrics", 2112),
                port(PORT_LIVE, 2113),
                port(PORT_RESULT, 8080),
            ]),
            resources: Some(resources),
            security_context: Some(no_rights(true)),
            termination_message_path: Some("/dev/termination-log".to_owned()),
            termination_message_policy: Some("File".to_owned()),
            volume_devices: Some(self.devices()).filter(|d| !d.is_empty()),
            volume_mounts: Some(self.mounts()),
            ..Container::default()
        }
    }

    fn env(&self) -> Vec<EnvVar> {
        let claims: Vec<&str> = self.disks.iter().map(|d| d.claim.as_str()).collect();
        let mut env = self.source_env();
        let more = [
            ("V2V_NewName", self.origin.vm.clone()),
            // v2v-pod's own description of the VM: an API server takes it as it is.
            ("V2V_output", "local".to_owned()),
            ("V2V_claimNames", serde_json::json!(claims).to_string()),
            ("LOCAL_MIGRATION", "true".to_owned()),
        ];
        env.extend(more.map(variable));
        env.extend(self.journal.iter().flat_map(|_| {
            let folder = JOURNAL_FOLDER.to_owned();
            [("V2V_copyFirst", "true".to_owned()), ("V2V_journalDir", folder)].map(variable)
        }));
        env
    }

    /// What of the settings says where the guest is.
    pub fn source_env(&self) -> Vec<EnvVar> {
        self.source.env().into_iter().map(variable).collect()
    }

    fn devices(&self) -> Vec<VolumeDevice> {
        let of = |(index, disk): (usize, &Disk)| {
            (disk.mode == Mode::Block).then(|| VolumeDevice {
                name: disk_name(index),
                device_path: format!("/dev/block{index}"),
            })
        };
        self.disks.iter().enumerate().filter_map(of).collect()
    }

    fn mounts(&self) -> Vec<VolumeMount> {
        let mount = |name: &str, path: &str, read_only| VolumeMount {
            name: name.to_owned(),
            mount_path: path.to_owned(),
            read_only: Some(read_only),
            ..VolumeMount::default()
        };
        // /opt for VDDK and for the link to the trusted certificates.
        let mut mounts = vec![
            mount("work", "/var/tmp", false),
            mount("tmp", "/tmp", false),
            mount("opt", "/opt", false),
        ];
        mounts.extend(self.secret.map(|_| mount("secret", "/etc/secret", true)));
        mounts.extend(self.source.claim().map(|_| mount("source", SOURCE_FOLDER, true)));
        mounts.extend(self.journal.map(|_| mount("journal", JOURNAL_FOLDER, false)));
        let files = self.disks.iter().enumerate().filter(|(_, d)| d.mode == Mode::Filesystem);
        mounts.extend(
            files.map(|(i, _)| mount(&disk_name(i), &format!("/mnt/disks/disk{i}"), false)),
        );
        mounts
    }

    fn volumes(&self) -> Vec<Volume> {
        let empty = |name: &str, limit: Option<&str>| Volume {
            name: name.to_owned(),
            empty_dir: Some(EmptyDirVolumeSource {
                medium: None,
                size_limit: limit.map(|l| Quantity(l.to_owned())),
            }),
            ..Volume::default()
        };
        let claim = |name: String, claim: &str, read_only: bool| Volume {
            name,
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim.to_owned(),
                read_only: read_only.then_some(true),
            }),
            ..Volume::default()
        };
        let mut volumes = vec![empty("work", None), empty("tmp", Some("64Mi")), empty("opt", None)];
        volumes.extend(self.secret.map(|name| Volume {
            name: "secret".to_owned(),
            secret: Some(SecretVolumeSource {
                secret_name: Some(name.to_owned()),
                default_mode: Some(0o440),
                ..SecretVolumeSource::default()
            }),
            ..Volume::default()
        }));
        volumes.extend(self.source.claim().map(|name| claim("source".to_owned(), name, true)));
        volumes.extend(self.journal.map(|name| claim("journal".to_owned(), name, false)));
        let disks = self.disks.iter().enumerate();
        volumes.extend(disks.map(|(index, disk)| claim(disk_name(index), &disk.claim, false)));
        volumes
    }
}

fn variable((name, value): (&str, String)) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        // `$(X)` is Kubernetes' own substitution, and `$$` its escape.
        value: Some(value.replace("$(", "$$(")),
        value_from: None,
    }
}

fn disk_name(index: usize) -> String {
    format!("disk{index}")
}

/// What a container gets that may do nothing.
fn no_rights(read_only_root: bool) -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(read_only_root),
        capabilities: Some(Capabilities { add: None, drop: Some(vec!["ALL".to_owned()]) }),
        ..SecurityContext::default()
    }
}

/// Installs VDDK into /opt. A sidecar made for Forklift copies there as well.
fn sidecar(image: &str) -> Container {
    Container {
        name: "vddk".to_owned(),
        image: Some(image.to_owned()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        resources: Some(requirements(
            [("cpu", "100m"), ("memory", "150Mi")],
            [("cpu", "1"), ("memory", "500Mi")],
        )),
        security_context: Some(no_rights(false)),
        volume_mounts: Some(vec![VolumeMount {
            name: "opt".to_owned(),
            mount_path: "/opt".to_owned(),
            ..VolumeMount::default()
        }]),
        ..Container::default()
    }
}

/// What Forklift asks for, and room for virt-v2v's overlays on the node.
fn default_resources() -> ResourceRequirements {
    let mut resources =
        requirements([("cpu", "1"), ("memory", "1Gi")], [("cpu", "4"), ("memory", "8Gi")]);
    let room = ("ephemeral-storage".to_owned(), Quantity("2Gi".to_owned()));
    resources.requests.get_or_insert_default().extend([room]);
    resources
}

fn requirements(requests: [(&str, &str); 2], limits: [(&str, &str); 2]) -> ResourceRequirements {
    let quantities = |of: [(&str, &str); 2]| -> BTreeMap<String, Quantity> {
        of.into_iter().map(|(name, n)| (name.to_owned(), Quantity(n.to_owned()))).collect()
    };
    ResourceRequirements {
        claims: None,
        requests: Some(quantities(requests)),
        limits: Some(quantities(limits)),
    }
}

/// Rather not two conversions on one node: each keeps a core and the network busy.
fn apart() -> Affinity {
    let role = [(LABEL_ROLE.to_owned(), ROLE.to_owned())];
    let term = PodAffinityTerm {
        topology_key: "kubernetes.io/hostname".to_owned(),
        label_selector: Some(LabelSelector {
            match_labels: Some(role.into()),
            match_expressions: None,
        }),
        namespace_selector: Some(LabelSelector::default()),
        ..PodAffinityTerm::default()
    };
    Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![
                WeightedPodAffinityTerm { weight: 100, pod_affinity_term: term },
            ]),
            required_during_scheduling_ignored_during_execution: None,
        }),
        ..Affinity::default()
    }
}

#[cfg(test)]
#[path = "pod_tests.rs"]
mod tests;

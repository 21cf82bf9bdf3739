//! `Provider`: where VMs come from, and how the source proves itself.

#![allow(clippy::duplicated_attributes, reason = "printer columns are told by the same words")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::NameRef;

/// 20 (SHA-1) or 32 (SHA-256) pairs of hexadecimal digits with colons, as `v2v-pod thumbprint` prints.
macro_rules! thumbprint_rule {
    () => {
        Rule::new("self.matches('^([0-9A-Fa-f]{2}:){19}([0-9A-Fa-f]{2}|([0-9A-Fa-f]{2}:){12}[0-9A-Fa-f]{2})$')")
            .message("a thumbprint is 20 (SHA-1) or 32 (SHA-256) pairs of hexadecimal digits with colons between them, as `v2v-pod thumbprint` prints it")
    };
}

/// A place where VMs are read from.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[kube(
    group = "conversion.v2v-pod.dev",
    version = "v1alpha1",
    kind = "Provider",
    doc = "A place where VMs are read from: a vCenter or ESXi host, a Xen host, or a volume with OVAs or disk images.",
    namespaced,
    status = "ProviderStatus",
    derive = "PartialEq",
    shortname = "v2vprovider",
    category = "v2v",
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
    printcolumn(name = "URL", type_ = "string", json_path = ".spec.url"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(name = "VMs", type_ = "integer", json_path = ".status.vms"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(self.type in ['vsphere', 'xen']) || has(self.url)")
        .message("url is required for the types vsphere and xen")
        .field_path(".url"),
    validation = Rule::new("!(self.type in ['vsphere', 'xen']) || has(self.secretRef)")
        .message("secretRef is required for the types vsphere and xen: a Secret with accessKeyId and secretKey")
        .field_path(".secretRef"),
    validation = Rule::new("!has(self.url) || self.type != 'vsphere' || self.url.matches('^https://[^/@?#]+(/sdk)?/?$')")
        .message("for the type vsphere url is https://HOST[:PORT][/sdk] of the vCenter or ESXi host, without a user: user and password are in the Secret")
        .field_path(".url"),
    validation = Rule::new("!has(self.url) || self.type != 'xen' || self.url.matches('^xen[+]ssh://([^/@:?#]+@)?[^/@?#]+/?$')")
        .message("for the type xen url is xen+ssh://[USER@]HOST[:PORT], without a password: that, or an SSH key, is in the Secret")
        .field_path(".url"),
    validation = Rule::new("!(self.type in ['ova', 'disk']) || has(self.sourceVolume)")
        .message("sourceVolume is required for the types ova and disk: the PVC with the files")
        .field_path(".sourceVolume"),
    validation = Rule::new("!(self.type in ['ova', 'disk']) || !(has(self.url) || has(self.secretRef))")
        .message("the types ova and disk have files in sourceVolume, neither url nor secretRef"),
    validation = Rule::new("self.type in ['ova', 'disk'] || !has(self.sourceVolume)")
        .message("sourceVolume is for the types ova and disk alone")
        .field_path(".sourceVolume"),
    validation = Rule::new("self.type == 'vsphere' || !(has(self.vddkImage) || has(self.hosts))")
        .message("vddkImage and hosts are for the type vsphere alone"),
    validation = Rule::new("self.type == 'vsphere' || self.trust.mode == 'auto' && !has(self.trust.thumbprint)")
        .message("trust is for the type vsphere alone; a Xen host is known by known_hosts in the Secret")
        .field_path(".trust"),
    validation = Rule::new("self.type == 'xen' || !has(self.sshLegacy)")
        .message("sshLegacy is for the type xen alone")
        .field_path(".sshLegacy"),
)]
pub struct ProviderSpec {
    /// Kind of source. Cannot be changed.
    #[serde(rename = "type")]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("the type of a Provider cannot be changed: make another Provider"))]
    pub kind: SourceKind,

    /// Where the source is: `https://HOST[:PORT][/sdk]` of a vCenter or ESXi host, or
    /// `xen+ssh://[USER@]HOST`. Without a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub url: Option<String>,

    /// Secret in this namespace with `accessKeyId` (user) and `secretKey` (password); optionally
    /// `cacert` (PEM, of the vCenter), and for Xen `known_hosts` and `id_rsa`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<NameRef>,

    /// How the source proves itself.
    #[serde(default)]
    pub trust: Trust,

    /// Image with the VDDK library, which is the fast way to read disks from vSphere. Without it
    /// disks are read over HTTPS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub vddk_image: Option<String>,

    /// ESXi hosts that disks are read from directly, instead of through the vCenter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub hosts: Option<Vec<HostSpec>>,

    /// Whether a Xen host may have an old sshd, which knows only algorithms with SHA-1; they are weak.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_legacy: Option<bool>,

    /// Volume with the files, for the types `ova` and `disk`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_volume: Option<SourceVolume>,
}

/// Kind of source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// A vCenter or an ESXi host.
    #[default]
    Vsphere,
    /// OVA files on a volume.
    Ova,
    /// A Xen host, over SSH.
    Xen,
    /// Disk images on a volume.
    Disk,
}

/// How the source proves itself.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.mode != 'thumbprint' || has(self.thumbprint)")
    .message("with mode thumbprint the thumbprint is required: `v2v-pod thumbprint HOST` shows it")
    .field_path(".thumbprint"))]
pub struct Trust {
    /// `auto`: by the CA when the Secret has a `cacert`, else by the thumbprint when there is
    /// one, else by the system's CAs.
    #[serde(default)]
    pub mode: TrustMode,
    /// SHA-1 or SHA-256 of the server's certificate, `AA:BB:…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 95))]
    #[x_kube(validation = thumbprint_rule!())]
    pub thumbprint: Option<String>,
}

/// What is verified of the server's certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TrustMode {
    /// Decided by what there is.
    #[default]
    Auto,
    /// Chain and host name.
    Ca,
    /// The thumbprint alone.
    Thumbprint,
    /// Nothing.
    Insecure,
}

/// An ESXi host that disks are read from directly.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HostSpec {
    /// The host's name in the vCenter's inventory.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Where the host is: `esx://HOST[:PORT]`, without a user.
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new("self.matches('^esx://[^/@?#]+/?$')")
        .message("the url of a host is esx://HOST[:PORT], without a user: user and password are in the Secret"))]
    pub url: String,
    /// Secret in this namespace with the host's own `accessKeyId` and `secretKey`.
    pub secret_ref: NameRef,
    /// SHA-1 or SHA-256 of the host's certificate, which differs from the vCenter's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 95))]
    #[x_kube(validation = thumbprint_rule!())]
    pub thumbprint: Option<String>,
}

/// A volume with OVAs or disk images.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceVolume {
    /// PVC in this namespace.
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: String,
    /// Mount it read-only, which is enough: nothing is written to a source.
    #[serde(default = "yes")]
    pub read_only: bool,
}

fn yes() -> bool {
    true
}

/// What the controller found.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProviderStatus {
    /// `Ready`. vsphere: the source answers, and user and password are right; xen: the Secret has what a pod needs;
    /// ova and disk: the volume is there. `Unknown` where nobody can tell yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How many VMs the source has, as far as the user may see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vms: Option<u32>,
}

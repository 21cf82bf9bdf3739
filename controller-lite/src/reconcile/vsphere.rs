//! VMs of vSphere: the inventory of a Provider, fetched when a VM is looked for and kept for a moment, since the VMs of a Plan
//! are looked for one after the other. What is kept is only a saving: without it, it is fetched again.

use super::Context;
use super::cluster::{Error, find};
use super::failure::Failure;
use super::guest::{Guest, GuestDisk, word};
use crate::api::plan::{Plan, PlanVm, Transport, VmSelector};
use crate::api::provider::{HostSpec, Provider, TrustMode};
use crate::inventory::{
    self as inv, Class, Inventory, Limits, Password, Power, Server, SourceVm, Trust, Wanted,
};
use crate::objects::source::{Source, VSphere};
use crate::objects::vm::{Facts, NicFacts};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::{Api, ResourceExt};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// An inventory younger than this will do.
const FRESH: Duration = Duration::from_secs(60);
/// A refused password is not tried again before: vCenter locks users out after a few. A changed Secret is another one.
const REFUSED: Duration = Duration::from_secs(300);

const CREDENTIALS: &str = "make it with accessKeyId (user) and secretKey (password)";

/// What was fetched lately, by Provider.
#[derive(Default)]
pub struct Inventories(Mutex<HashMap<(String, String), Arc<Slot>>>);

/// One Provider's; whoever comes while it is being fetched waits for it.
type Slot = tokio::sync::Mutex<Option<Kept>>;

struct Kept {
    /// Of the Provider and its Secret.
    version: String,
    at: Instant,
    result: Result<Arc<Fetched>, Failure>,
}

impl Kept {
    fn holds(&self, version: &str) -> bool {
        let limit = match &self.result {
            Err(failure) if failure.class == "auth" => REFUSED,
            _ => FRESH,
        };
        self.version == version && self.at.elapsed() < limit
    }
}

/// An inventory, and who asked whom for it.
struct Fetched {
    inventory: Inventory,
    server: Server,
    user: String,
}

impl Inventories {
    fn slot(&self, provider: &Provider) -> Arc<Slot> {
        let key = (provider.namespace().unwrap_or_default(), provider.name_any());
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(key).or_default())
    }
}

/// What a source has, in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// As it calls itself.
    pub product: String,
    /// VMs.
    pub vms: usize,
    /// VMs that the user may not see enough of.
    pub unreadable: usize,
}

/// Asks a Provider for all it has.
pub async fn survey(
    context: &Context,
    provider: &Provider,
) -> Result<Result<Survey, Failure>, Error> {
    let fetched = fetched(context, provider).await?;
    Ok(fetched.map(|fetched| Survey {
        product: fetched.inventory.product.clone(),
        vms: fetched.inventory.vms.len(),
        unreadable: fetched.inventory.unreadable.len(),
    }))
}

/// Its inventory, of a moment ago at most.
async fn fetched(
    context: &Context,
    provider: &Provider,
) -> Result<Result<Arc<Fetched>, Failure>, Error> {
    let namespace = provider.namespace().unwrap_or_default();
    let name = provider.spec.secret_ref.as_ref().map(|s| s.name.clone()).unwrap_or_default();
    let secrets: Api<Secret> = Api::namespaced(context.cluster.client.clone(), &namespace);
    let Some(secret) = find(&secrets, &name, "Secret").await? else {
        return Ok(Err(no_secret(&name, &namespace)));
    };
    let version = version(provider, &secret);
    let slot = context.inventories.slot(provider);
    let mut kept = slot.lock().await;
    let known = kept.as_ref().filter(|k| k.holds(&version)).map(|k| k.result.clone());
    let result = if let Some(result) = known {
        result
    } else {
        let result = fetch(provider, &secret).await.map(Arc::new);
        *kept = Some(Kept { version, at: Instant::now(), result: result.clone() });
        result
    };
    Ok(result)
}

/// The VM, as its Provider describes it.
pub async fn look(
    context: &Context,
    plan: &Plan,
    provider: &Provider,
    vm: &PlanVm,
) -> Result<Result<Guest, Failure>, Error> {
    let namespace = provider.namespace().unwrap_or_default();
    let secrets: Api<Secret> = Api::namespaced(context.cluster.client.clone(), &namespace);
    let result = fetched(context, provider).await?;
    let mut guest = match result.and_then(|fetched| guest(&fetched, plan, provider, vm)) {
        Ok(guest) => guest,
        Err(failure) => return Ok(Err(failure)),
    };
    let named = |host: &&HostSpec| guest.host.as_ref() == Some(&host.name);
    let Some(host) = provider.spec.hosts.iter().flatten().find(named) else {
        return Ok(Ok(guest));
    };
    let name = &host.secret_ref.name;
    Ok(match find(&secrets, name, "Secret").await? {
        None => Err(no_secret(name, &namespace)),
        Some(secret) => by_host(&mut guest, provider, host, &secret).map(|()| guest),
    })
}

/// Of a Provider and its Secret. With their UIDs: one that was deleted and made anew is another one,
/// whose generation begins at 1 again.
fn version(provider: &Provider, secret: &Secret) -> String {
    format!(
        "{}/{}/{}/{}",
        provider.uid().unwrap_or_default(),
        provider.metadata.generation.unwrap_or_default(),
        secret.uid().unwrap_or_default(),
        secret.resource_version().unwrap_or_default()
    )
}

fn no_secret(name: &str, namespace: &str) -> Failure {
    let message = format!("there is no Secret {name} in namespace {namespace}");
    Failure::lasting("config", message, CREDENTIALS)
}

async fn fetch(provider: &Provider, secret: &Secret) -> Result<Fetched, Failure> {
    let source = source(provider, secret)?;
    let inventory = inv::inventory(&source, &Limits::default()).await.map_err(|e| of_source(&e))?;
    tracing::info!(
        provider = provider.name_any(),
        vms = inventory.vms.len(),
        unreadable = inventory.unreadable.len(),
        product = inventory.product,
        "the source was asked for its VMs"
    );
    Ok(Fetched { inventory, server: source.server, user: source.user })
}

/// Where to ask, as whom.
fn source(provider: &Provider, secret: &Secret) -> Result<inv::Source, Failure> {
    let server = provider.spec.url.as_deref().unwrap_or_default();
    let server: Server = server.parse().map_err(|e| of_source(&e))?;
    let pem = secret.data.as_ref().and_then(|data| data.get("cacert")).map(|pem| pem.0.clone());
    let pem = pem.filter(|pem| !pem.trim_ascii().is_empty());
    let trust = &provider.spec.trust;
    let pin = trust.thumbprint.as_deref().map(str::parse).transpose();
    let pin = pin.map_err(|e: inv::ThumbprintError| {
        Failure::lasting("config", e.to_string(), "correct spec.trust.thumbprint")
    })?;
    let trust = match (trust.mode, pin) {
        (TrustMode::Insecure, _) => Trust::Insecure,
        (TrustMode::Ca, _) => Trust::Ca { pem, pin: None },
        (TrustMode::Thumbprint, Some(pin)) => Trust::Thumbprint(pin),
        (TrustMode::Auto | TrustMode::Thumbprint, pin) => Trust::auto(pem, pin),
    };
    Ok(inv::Source {
        server,
        trust,
        user: needed(secret, "accessKeyId")?.trim().to_owned(),
        password: Password::new(&needed(secret, "secretKey")?),
    })
}

/// What a Secret must have.
fn needed(secret: &Secret, key: &str) -> Result<String, Failure> {
    let bytes = secret.data.as_ref().and_then(|data| data.get(key));
    match bytes.map(|bytes| String::from_utf8(bytes.0.clone())) {
        Some(Ok(text)) if !text.trim_ascii().is_empty() => Ok(text),
        found => {
            let what = if found.is_none() { "has no" } else { "has an unusable" };
            let message = format!("the Secret {} {what} {key}", secret.name_any());
            Err(Failure::lasting("config", message, CREDENTIALS))
        }
    }
}

/// Reads the VM from its host, with the host's own credentials. The host has its own references of VMs, and its own
/// certificate. Pure.
fn by_host(
    guest: &mut Guest,
    provider: &Provider,
    host: &HostSpec,
    secret: &Secret,
) -> Result<(), Failure> {
    let Source::VSphere(vm) = &mut guest.source else { return Ok(()) };
    let server: Server = host.url.parse().map_err(|e| of_source(&e))?;
    vm.url = inv::esx_url(&server, needed(secret, "accessKeyId")?.trim());
    needed(secret, "secretKey")?;
    vm.moref = None;
    vm.trust = word(&match (provider.spec.trust.mode, &host.thumbprint) {
        (TrustMode::Insecure, _) => TrustMode::Insecure,
        (_, Some(_)) => TrustMode::Thumbprint,
        // By the `cacert` in the host's Secret, or the system's CAs.
        (_, None) => TrustMode::Ca,
    });
    vm.thumbprint.clone_from(&host.thumbprint);
    guest.secret = Some(host.secret_ref.name.clone());
    Ok(())
}

/// In the words of the pod's contract.
fn of_source(error: &inv::Error) -> Failure {
    let class = match error.class() {
        Class::Config => "config",
        Class::Auth => "auth",
        Class::Trust => "trust",
        Class::Network => "network",
        Class::Server => "internal",
    };
    Failure {
        may_pass: error.class() == Class::Network,
        at: Timestamp::now().as_second(),
        ..Failure::lasting(class, error.to_string(), error.advice())
    }
}

/// The VM that the Plan means, if it can be converted as it is. Pure.
fn guest(
    fetched: &Fetched,
    plan: &Plan,
    provider: &Provider,
    vm: &PlanVm,
) -> Result<Guest, Failure> {
    let wanted = match vm.selector() {
        Some(VmSelector::Name(name)) => Wanted::Name(name.to_owned()),
        Some(VmSelector::Uuid(uuid)) => Wanted::Uuid(uuid.to_owned()),
        Some(VmSelector::Moref(moref)) => Wanted::Moref(moref.to_owned()),
        None => {
            let advice = "give its name, uuid or moref";
            return Err(Failure::lasting("config", "the VM is not said", advice));
        }
    };
    let found = inv::choose(&fetched.inventory, &wanted).map_err(|e| {
        let advice = "correct the VM in the Plan, or mend it at the source";
        Failure::lasting("not-found", e.to_string(), advice)
    })?;
    obstacle(found)?;
    let by_https = match plan.spec.transport {
        Transport::Https => true,
        Transport::Auto => provider.spec.vddk_image.is_none(),
        Transport::Vddk => false,
    };
    if by_https && found.snapshots && found.disks.iter().any(|d| !d.independent) {
        // virt-v2v would read it in silence; the pod notices, but only after it has begun.
        let message = "the VM has snapshots, and over HTTPS its disks would be read as they were before the first of them";
        let advice =
            "delete the VM's snapshots (consolidate its disks), or give the Provider a vddkImage";
        return Err(Failure::lasting("source-busy", message, advice));
    }
    Ok(Guest {
        source: Source::VSphere(VSphere {
            url: inv::libvirt_url(&fetched.server, fetched.inventory.kind, &fetched.user, found),
            name: found.name.clone(),
            uuid: Some(found.uuid.clone()),
            moref: Some(found.moref.clone()),
            trust: word(&provider.spec.trust.mode),
            thumbprint: provider.spec.trust.thumbprint.clone(),
            transport: word(&plan.spec.transport),
        }),
        disks: found.disks.iter().map(disk).collect(),
        facts: Facts { uuid: Some(found.uuid.clone()), nics: nics(found) },
        host: Some(found.host.name.clone()),
        secret: None,
    })
}

fn disk(disk: &inv::SourceDisk) -> GuestDisk {
    GuestDisk { bytes: disk.capacity_bytes, datastore: Some(disk.datastore.clone()) }
}

/// Those by which libvirt's description can be matched.
fn nics(vm: &SourceVm) -> Vec<NicFacts> {
    let nic = |nic: &inv::SourceNic| {
        let network = nic.network.clone().unwrap_or_default();
        Some(NicFacts { mac: Some(nic.mac.clone()?), network: Some(network) })
    };
    vm.nics.iter().filter_map(nic).collect()
}

/// Why the VM cannot be converted as it is.
fn obstacle(vm: &SourceVm) -> Result<(), Failure> {
    if vm.power != Power::Off {
        let how = if vm.power == Power::On { "runs" } else { "is suspended" };
        let message = format!("the VM {:?} {how}", vm.name);
        let advice =
            "shut it down (a suspended one must be started first): its disks change while it runs";
        return Err(Failure::lasting("source-busy", message, advice));
    }
    if let Some(disk) = vm.disks.iter().find(|d| !d.seen) {
        let message = format!(
            "the disk {} of the VM is {}:{}, which virt-v2v does not see",
            disk.path, disk.controller, disk.unit
        );
        let advice = "move it to a SCSI or SATA controller";
        return Err(Failure::lasting("config", message, advice));
    }
    Ok(())
}

#[cfg(test)]
#[path = "vsphere_tests.rs"]
mod tests;

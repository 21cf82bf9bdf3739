//! Does one step. Each can be done again at any time.

use super::cluster::{self, Asked, create, delete};
use super::decide::Step;
use super::guest::{self, Guest};
use super::observe::{self, Volume};
use super::{Context, pod_http};
use crate::api::plan::Plan;
use crate::api::provider::Provider;
use crate::objects::event::{self, Told};
use crate::objects::journal;
use crate::objects::outcome::Outcome;
use crate::objects::pod::{Conversion, Disk, PORT_RESULT};
use crate::objects::vm::{Facts, Machine, hand_over, owner};
use crate::objects::volume::{Mode, Volume as NewVolume};
use crate::objects::{
    ANNOTATION_FACTS, ANNOTATION_HANDED_OVER, ANNOTATION_PENDING, MANAGER, Origin,
};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};
use std::net::IpAddr;

/// A step could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    /// The pod.
    #[error(transparent)]
    Pod(#[from] pod_http::Error),
    /// Its result.
    #[error(transparent)]
    Machine(#[from] crate::objects::vm::Error),
    /// Something that the step needs is gone since it was decided on; the next round sees that.
    #[error("{0} is not there any more")]
    Gone(&'static str),
    /// Somebody else has the name.
    #[error(
        "a DataVolume {0} is there already and was not made by this Plan; rename or delete it, or use \
         another targetName in a new Plan"
    )]
    Foreign(String),
    /// What was built is no object; a defect.
    #[error("an object could not be built: {0}")]
    Object(#[from] serde_json::Error),
}

/// What steps need of a VM.
pub struct Subject<'a> {
    /// The Plan.
    pub plan: &'a Plan,
    /// Its Provider.
    pub provider: Option<&'a Provider>,
    /// Which VM.
    pub origin: &'a Origin,
    /// The guest, while its source is known.
    pub guest: Option<&'a Guest>,
    /// Its volumes.
    pub volumes: &'a [Volume],
    /// The claim of its journals.
    pub journal: Option<&'a PersistentVolumeClaim>,
    /// Its pod.
    pub pod: Option<&'a Pod>,
    /// Its VM.
    pub machine: Option<&'a DynamicObject>,
}

impl Subject<'_> {
    /// Does it.
    pub async fn step(&self, context: &Context, step: &Step) -> Result<(), Error> {
        match step {
            Step::MakeVolume(index) => self.make_volume(context, *index).await,
            Step::MakeJournal => self.make_journal(context).await,
            Step::DropJournal => match self.journal {
                Some(claim) => {
                    let claims = context.cluster.claims(&self.origin.namespace);
                    Ok(delete(&claims, claim, "claim").await?)
                }
                None => Ok(()),
            },
            Step::MakePod(attempt) => self.make_pod(context, *attempt).await,
            Step::MakeMachine => self.make_machine(context).await,
            Step::Release => {
                let (ip, port) = self.result()?;
                Ok(pod_http::shutdown(ip, port).await?)
            }
            Step::DeletePod => match self.pod {
                Some(pod) => {
                    let pods = context.cluster.pods(&self.origin.namespace);
                    Ok(delete(&pods, pod, "pod").await?)
                }
                None => Ok(()),
            },
            Step::Own(index) => self.own(context, *index).await,
            Step::HandOver => self.hand_over(context).await,
            Step::Tell(told) => {
                self.tell(context, told).await;
                Ok(())
            }
        }
    }

    /// As well as it can be: the work goes on without it.
    async fn tell(&self, context: &Context, told: &Told) {
        let event = event::event(self.origin, told, Timestamp::now(), &context.instance);
        let events = context.cluster.events(&self.origin.plan_namespace);
        if let Err(error) = create(&events, &event, "event").await {
            tracing::warn!(%error, reason = told.reason, note = told.note, "an event could not be made");
        }
    }

    async fn make_volume(&self, context: &Context, index: usize) -> Result<(), Error> {
        let disk = self.guest.and_then(|g| g.disks.get(index)).ok_or(Error::Gone("the disk"))?;
        let map = &self.plan.spec.storage_map;
        let placement = guest::placement(map, &self.origin.vm, index, disk);
        let volume =
            NewVolume { origin: self.origin, index, disk_bytes: disk.bytes, placement: &placement };
        let namespace = &self.origin.namespace;
        if context.cluster.has("cdi.kubevirt.io/v1beta1", "datavolumes").await? {
            let object: DynamicObject = serde_json::from_value(volume.data_volume())?;
            let api = context.cluster.data_volumes(namespace);
            create(&api, &object, "DataVolume").await?;
            // Of somebody else's, which has the name, nothing else would tell before its claim is there.
            let found = cluster::named(&api, &object.name_any(), "DataVolume").await?;
            if found.is_some_and(|found| !self.origin.made(found.metadata.labels.as_ref())) {
                return Err(Error::Foreign(object.name_any()));
            }
        } else {
            let claim = volume.claim(context.overhead);
            create(&context.cluster.claims(namespace), &claim, "claim").await?;
        }
        Ok(())
    }

    async fn make_journal(&self, context: &Context) -> Result<(), Error> {
        let map = &self.plan.spec.storage_map;
        let class = map.journal_storage_class.as_ref().or(map.default.storage_class.as_ref());
        let claim = journal::claim(self.origin, class.map(String::as_str));
        let claims = context.cluster.claims(&self.origin.namespace);
        Ok(create(&claims, &claim, "claim").await?)
    }

    async fn make_pod(&self, context: &Context, attempt: u32) -> Result<(), Error> {
        let guest = self.guest.ok_or(Error::Gone("the guest"))?;
        let provider = self.provider.ok_or(Error::Gone("the Provider"))?;
        let disk = |volume: &Volume| {
            let claim = volume.claim.as_ref().ok_or(Error::Gone("a claim"))?;
            Ok(Disk { claim: claim.name_any(), mode: Mode::of(claim) })
        };
        let disks = self.volumes.iter().map(disk).collect::<Result<Vec<_>, Error>>()?;
        let secret = guest.secret.clone().or_else(|| guest::secret(provider));
        let journal = self.journal.map(ResourceExt::name_any);
        let conversion = Conversion {
            origin: self.origin,
            attempt,
            image: context.image(self.plan),
            source: &guest.source,
            secret: secret.as_deref(),
            disks: &disks,
            journal: journal.as_deref(),
            vddk_image: provider.spec.vddk_image.as_deref(),
            kvm: context.cluster.offers_kvm().await,
            resources: self.plan.spec.resources.as_ref(),
            facts: &guest.facts,
        };
        let pods = context.cluster.pods(&self.origin.namespace);
        Ok(create(&pods, &conversion.pod(), "pod").await?)
    }

    fn result(&self) -> Result<(IpAddr, u16), Error> {
        let of = |pod: &Pod| observe::address(pod).zip(observe::port(pod, PORT_RESULT));
        self.pod.and_then(of).ok_or(Error::Gone("the pod's result"))
    }

    async fn make_machine(&self, context: &Context) -> Result<(), Error> {
        let (ip, port) = self.result()?;
        let yaml = pod_http::get(ip, port, "/vm").await?;
        // Told before the VM is made: after that nobody asks for them again.
        let warnings = pod_http::get(ip, port, "/warnings").await?;
        let outcome = Outcome::of_pod(&inspection(ip, port).await?, &warnings);
        for note in outcome.warnings.clone() {
            let told = Told { reason: "ConversionWarning", note, warning: true, attempt: 0 };
            self.tell(context, &told).await;
        }
        let facts = self.pod.and_then(|pod| pod.annotations().get(ANNOTATION_FACTS));
        let facts = facts.map_or_else(Facts::default, |text| Facts::of_text(text));
        let claims: Vec<String> =
            (0..self.volumes.len()).map(|index| self.origin.claim_name(index)).collect();
        let machine = Machine {
            origin: self.origin,
            claims: &claims,
            networks: &guest::networks(self.plan),
            facts: &facts,
            outcome: &outcome,
            run_strategy: &guest::word(&self.plan.spec.run_strategy),
        };
        let object: DynamicObject = serde_json::from_value(machine.build(&yaml)?)?;
        let machines = context.cluster.machines(&self.origin.namespace);
        Ok(create(&machines, &object, "VirtualMachine").await?)
    }

    /// The VM becomes the owner of the claim, beside CDI's object if there is one, and of that.
    /// Both are marked in the same write.
    async fn own(&self, context: &Context, index: usize) -> Result<(), Error> {
        let volume = self.volumes.get(index).ok_or(Error::Gone("the volume"))?;
        let machine = self.machine.ok_or(Error::Gone("the VM"))?;
        let uid = machine.uid().ok_or(Error::Gone("the VM"))?;
        let vm = owner(&machine.name_any(), &uid);
        let namespace = &self.origin.namespace;
        if let Some(data_volume) = &volume.data_volume {
            let patch = handed_over(&data_volume.metadata, &self.origin.plan_uid, &uid, &vm);
            let api = context.cluster.data_volumes(namespace);
            let name = data_volume.name_any();
            api.patch(&name, &params(), &Patch::Merge(patch))
                .await
                .asked(format!("handing over DataVolume {name}"))?;
        }
        let claim = volume.claim.as_ref().ok_or(Error::Gone("the claim"))?;
        let patch = handed_over(&claim.metadata, &self.origin.plan_uid, &uid, &vm);
        let name = claim.name_any();
        let api = context.cluster.claims(namespace);
        api.patch(&name, &params(), &Patch::Merge(patch))
            .await
            .asked(format!("handing over claim {name}"))?;
        Ok(())
    }

    async fn hand_over(&self, context: &Context) -> Result<(), Error> {
        let machine = self.machine.ok_or(Error::Gone("the VM"))?;
        let version = machine.resource_version().ok_or(Error::Gone("the VM"))?;
        let strategy =
            machine.annotations().get(ANNOTATION_PENDING).ok_or(Error::Gone("the VM"))?;
        let patch = hand_over(strategy, &version);
        let name = machine.name_any();
        let api = context.cluster.machines(&self.origin.namespace);
        api.patch(&name, &params(), &Patch::Merge(patch))
            .await
            .asked(format!("handing over VirtualMachine {name}"))?;
        Ok(())
    }
}

/// The pod's `/inspection`; without one, or with an odd one, the VM is made as well.
async fn inspection(ip: IpAddr, port: u16) -> Result<String, pod_http::Error> {
    match pod_http::get(ip, port, "/inspection").await {
        Err(pod_http::Error::Status { .. } | pod_http::Error::Answer { .. }) => Ok(String::new()),
        answer => answer,
    }
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() }
}

/// A volume goes from the Plan to the VM, and is marked. It is of the version that was seen: of a
/// later one it is refused.
fn handed_over(meta: &ObjectMeta, plan_uid: &str, vm_uid: &str, vm: &Value) -> Value {
    let others = meta.owner_references.iter().flatten();
    let others = others.filter(|o| o.uid != plan_uid && o.uid != vm_uid);
    let owners: Vec<Value> = others.map(|o| json!(o)).chain([vm.clone()]).collect();
    json!({ "metadata": {
        "resourceVersion": meta.resource_version,
        "ownerReferences": owners,
        "annotations": { ANNOTATION_HANDED_OVER: vm_uid },
    } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_event_that_cannot_be_made_stops_nothing() {
        // Nobody listens there.
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let client = kube::Client::try_from(config).unwrap();
        let context = Context {
            cluster: cluster::Cluster { client },
            instance: String::new(),
            image: String::new(),
            overhead: crate::objects::size::Overhead::DEFAULT,
            inventories: crate::reconcile::vsphere::Inventories::default(),
            retry_delay_s: 1,
        };
        let plan = json!({
            "apiVersion": "conversion.v2v-pod.dev/v1alpha1", "kind": "Plan",
            "metadata": { "name": "wave1" }, "spec": { "providerRef": { "name": "p" }, "vms": [] },
        });
        let (plan, origin) = (serde_json::from_value(plan).unwrap(), crate::objects::origin());
        let subject = Subject {
            plan: &plan,
            provider: None,
            origin: &origin,
            guest: None,
            volumes: &[],
            journal: None,
            pod: None,
            machine: None,
        };
        let told = Told { reason: "Converted", note: String::new(), warning: false, attempt: 1 };
        subject.step(&context, &Step::Tell(told)).await.unwrap();
        let error = subject.step(&context, &Step::Own(0)).await.unwrap_err();
        assert!(matches!(error, Error::Gone(_)));
    }

    #[test]
    fn a_volume_that_is_handed_over_is_marked_in_the_same_write() {
        let of = |kind: &str, uid: &str| json!({ "apiVersion": "v1", "kind": kind, "name": "x", "uid": uid });
        let meta = json!({ "resourceVersion": "7", "ownerReferences":
            [of("Plan", "p"), of("DataVolume", "d"), of("VirtualMachine", "v"), of("Other", "o")] });
        let vm = owner("web01", "v");
        let patch = handed_over(&serde_json::from_value(meta).unwrap(), "p", "v", &vm);
        let meta = &patch["metadata"];
        assert_eq!(meta["annotations"], json!({ ANNOTATION_HANDED_OVER: "v" }));
        assert_eq!(meta["ownerReferences"], json!([of("DataVolume", "d"), of("Other", "o"), vm]));
        assert_eq!(meta["resourceVersion"], "7");
    }
}

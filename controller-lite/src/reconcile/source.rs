//! Finds a VM at its source, as far as that can be done from here.

use super::cluster::{Error, create, delete, find};
use super::decide::SourceState;
use super::failure::Failure;
use super::guest::{self, Guest, Looked};
use super::measure::{Measured, Places};
use super::{Context, elsewhere, measure, vsphere};
use crate::api::plan::{Plan, PlanVm};
use crate::api::provider::{Provider, SourceKind};
use crate::objects::Origin;
use crate::objects::pod::Conversion;
use crate::objects::vm::Facts;
use k8s_openapi::jiff::Timestamp;

/// Where is looked, and for whom.
#[derive(Clone, Copy)]
pub struct Look<'a> {
    /// What all rounds share.
    pub context: &'a Context,
    /// The Plan.
    pub plan: &'a Plan,
    /// Its Provider.
    pub provider: &'a Provider,
    /// For pods that look.
    pub places: &'a Places,
}

/// What is known of a VM. `recorded` is what the status has of an earlier look.
pub async fn look(
    look: Look<'_>,
    vm: &PlanVm,
    recorded: Option<&Looked>,
) -> Result<(SourceState, Option<Guest>), Error> {
    let Look { context, plan, provider, .. } = look;
    let wrong = |failure: Failure| Ok((SourceState::Wrong(failure), None));
    let Some(origin) = guest::origin(plan, vm) else {
        return wrong(Failure::lasting("config", "the VM has no name", "give it a targetName"));
    };
    let found = match provider.spec.kind {
        SourceKind::Disk | SourceKind::Ova | SourceKind::Xen => {
            measured(&look, vm, &origin, recorded).await?
        }
        SourceKind::Vsphere => vsphere::look(context, plan, provider, vm)
            .await?
            .map(|guest| Found::Guest(Box::new(guest))),
    };
    Ok(match found {
        Ok(Found::Guest(guest)) => match guest::misfit(&guest, &guest::networks(plan)) {
            None => match secret(context, provider, &origin, &guest).await? {
                None => (SourceState::Known, Some(*guest)),
                Some(failure) => (SourceState::Wrong(failure), None),
            },
            Some(failure) => (SourceState::Wrong(failure), None),
        },
        Ok(Found::Looking(what)) => (SourceState::Looking(what), None),
        Err(failure) => (SourceState::Wrong(failure), None),
    })
}

/// Why the pod may not have the Secret that it needs.
async fn secret(
    context: &Context,
    provider: &Provider,
    origin: &Origin,
    guest: &Guest,
) -> Result<Option<Failure>, Error> {
    match guest.secret.clone().or_else(|| guest::secret(provider)) {
        Some(name) => elsewhere::secret(&context.cluster, origin, &name).await,
        None => Ok(None),
    }
}

/// What a look at the source gave.
enum Found {
    Guest(Box<Guest>),
    /// Nothing yet.
    Looking(String),
}

/// Files on a volume, or a Xen host, which only a pod can see.
async fn measured(
    look: &Look<'_>,
    vm: &PlanVm,
    origin: &Origin,
    recorded: Option<&Looked>,
) -> Result<Result<Found, Failure>, Error> {
    let Look { context, plan, provider, places } = look;
    let looking = |what: &str| Ok(Ok(Found::Looking(what.to_owned())));
    let source = match guest::source(provider, vm) {
        Ok(source) => source,
        Err(failure) => return Ok(Err(failure)),
    };
    let guest = |looked: &Looked| {
        guest::of_looked(source.clone(), looked).map(|guest| Found::Guest(Box::new(guest)))
    };
    if let Some(looked) = recorded {
        return Ok(guest(looked));
    }
    let secret = guest::secret(provider);
    if let Some(name) = &secret
        && let Some(failure) = elsewhere::secret(&context.cluster, origin, name).await?
    {
        return Ok(Err(failure));
    }
    let conversion = Conversion {
        origin,
        attempt: 1,
        image: context.image(plan),
        source: &source,
        secret: secret.as_deref(),
        disks: &[],
        journal: None,
        vddk_image: None,
        kvm: false,
        resources: plan.spec.resources.as_ref(),
        facts: &Facts::default(),
    };
    let wanted = measure::pod(&conversion);
    let (pods, name) = (context.cluster.pods(&origin.namespace), measure::pod_name(origin));
    let Some(pod) = find(&pods, &name, "pod").await? else {
        if !places.take() {
            return looking("waits until other VMs of the Plan were looked at");
        }
        create(&pods, &wanted, "pod").await?;
        return looking("the source is looked at");
    };
    if !origin.made(pod.metadata.labels.as_ref()) {
        let message = format!("a pod {name} is there already and was not made by this Plan");
        return Ok(Err(Failure::lasting("config", message, "delete it")));
    }
    let since = plan.metadata.creation_timestamp.as_ref().map(|time| time.0.as_second());
    match measure::look(&pod, &wanted, since, Timestamp::now().as_second()) {
        Measured::Found(looked) => Ok(guest(&looked)),
        Measured::Waits(why) => looking(&why),
        Measured::Wrong(failure) => Ok(Err(measure::for_plans(failure, &source))),
        Measured::Stale => {
            delete(&pods, &pod, "pod").await?;
            looking("the source is looked at anew")
        }
    }
}

/// Removes what was needed for looking, once what it found is in the status.
pub async fn forget(context: &Context, origin: &Origin) -> Result<(), Error> {
    let pods = context.cluster.pods(&origin.namespace);
    let pod = find(&pods, &measure::pod_name(origin), "pod").await?;
    match pod.filter(|pod| origin.made(pod.metadata.labels.as_ref())) {
        Some(pod) => delete(&pods, &pod, "pod").await,
        None => Ok(()),
    }
}

//! Finds a VM at its source, as far as that can be done from here.

use super::cluster::{Error, create, delete, find};
use super::decide::SourceState;
use super::failure::Failure;
use super::guest::{self, Guest};
use super::measure::Measured;
use super::{Context, elsewhere, measure, vsphere};
use crate::api::plan::{Plan, PlanVm};
use crate::api::provider::{Provider, SourceKind};
use crate::objects::Origin;
use crate::objects::pod::Conversion;
use crate::objects::source::{FilePath, Source};
use crate::objects::vm::Facts;
use k8s_openapi::jiff::Timestamp;

/// What is known of a VM. `recorded` are the sizes that the status has from an earlier look.
pub async fn look(
    context: &Context,
    plan: &Plan,
    provider: &Provider,
    vm: &PlanVm,
    recorded: &[u64],
) -> Result<(SourceState, Option<Guest>), Error> {
    let wrong = |failure: Failure| Ok((SourceState::Wrong(failure), None));
    let Some(origin) = guest::origin(plan, vm) else {
        return wrong(Failure::lasting("config", "the VM has no name", "give it a targetName"));
    };
    let found = match provider.spec.kind {
        SourceKind::Disk => disks(context, plan, provider, vm, &origin, recorded).await?,
        SourceKind::Vsphere => vsphere::look(context, plan, provider, vm)
            .await?
            .map(|guest| Found::Guest(Box::new(guest))),
        SourceKind::Ova | SourceKind::Xen => Err(not_yet(provider.spec.kind)),
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

/// What this version cannot find out.
fn not_yet(kind: SourceKind) -> Failure {
    let message = format!(
        "the disks of a VM of a Provider of type {} cannot be found out by this version",
        guest::word(&kind)
    );
    Failure::lasting(
        "config",
        message,
        "run the pod by hand (docs/operations.md), or use the type disk",
    )
}

/// What a look at the source gave.
enum Found {
    Guest(Box<Guest>),
    /// Nothing yet.
    Looking(String),
}

/// Images on a volume, which only a pod can see.
async fn disks(
    context: &Context,
    plan: &Plan,
    provider: &Provider,
    vm: &PlanVm,
    origin: &Origin,
    recorded: &[u64],
) -> Result<Result<Found, Failure>, Error> {
    let looking = |what: String| Ok(Ok(Found::Looking(what)));
    let pods = context.cluster.pods(&origin.namespace);
    let name = measure::pod_name(origin);
    if !recorded.is_empty() {
        return Ok(
            guest::of_disks(provider, vm, recorded).map(|guest| Found::Guest(Box::new(guest)))
        );
    }
    let (paths, claim) = match (guest::paths(vm), guest::source_claim(provider)) {
        (Ok(paths), Ok(claim)) => (paths, claim),
        (Err(failure), _) | (_, Err(failure)) => return Ok(Err(failure)),
    };
    let inside: Vec<String> = paths.iter().map(FilePath::in_pod).collect();
    let source = Source::Disk { claim, paths, name: String::new() };
    let conversion = Conversion {
        origin,
        attempt: 1,
        image: context.image(plan),
        source: &source,
        secret: None,
        disks: &[],
        journal: None,
        vddk_image: None,
        kvm: false,
        resources: plan.spec.resources.as_ref(),
        facts: &Facts::default(),
    };
    let wanted = measure::pod(&conversion, &inside);
    let Some(pod) = find(&pods, &name, "pod").await? else {
        create(&pods, &wanted, "pod").await?;
        return looking("the disks are measured".to_owned());
    };
    if !origin.made(pod.metadata.labels.as_ref()) {
        let message = format!("a pod {name} is there already and was not made by this Plan");
        return Ok(Err(Failure::lasting("config", message, "delete it")));
    }
    match measure::look(&pod, &wanted, Timestamp::now().as_second()) {
        Measured::Sizes(sizes) => {
            Ok(guest::of_disks(provider, vm, &sizes).map(|guest| Found::Guest(Box::new(guest))))
        }
        Measured::Waits(why) => looking(why),
        Measured::Wrong(failure) => Ok(Err(failure)),
        Measured::Stale => {
            delete(&pods, &pod, "pod").await?;
            looking("the disks are measured anew".to_owned())
        }
    }
}

/// Removes what was needed for looking, once the sizes are in the status.
pub async fn forget(context: &Context, origin: &Origin) -> Result<(), Error> {
    let pods = context.cluster.pods(&origin.namespace);
    let pod = find(&pods, &measure::pod_name(origin), "pod").await?;
    match pod.filter(|pod| origin.made(pod.metadata.labels.as_ref())) {
        Some(pod) => delete(&pods, &pod, "pod").await,
        None => Ok(()),
    }
}

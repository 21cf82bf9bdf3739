//! A Plan that is deleted: does what `cleanup` says, and then lets it go.

use super::cleanup::{self, Cleanup, Left};
use super::cluster::{self, delete};
use super::observe::Objects;
use super::plan::{FINALIZER, said, set_finalizers};
use super::{Context, admission};
use crate::api::plan::Plan;
use crate::objects::Origin;
use crate::objects::event::Told;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::DynamicObject;
use kube::runtime::controller::Action;
use std::time::Duration;

/// A Plan is deleted.
pub async fn clean_up(context: &Context, plan: &Plan) -> Result<Action, cluster::Error> {
    if !plan.finalizers().iter().any(|f| f == FINALIZER) {
        return Ok(Action::await_change());
    }
    let target = plan.target_namespace().unwrap_or_default();
    let uid = plan.uid().unwrap_or_default();
    let objects = match admission::objects(&context.cluster, plan, &target, &uid).await? {
        Ok(objects) => objects,
        Err(later) => return Ok(later),
    };
    let cluster = &context.cluster;
    match cleanup::next(&left(&objects)) {
        Cleanup::Pods(names) => {
            for pod in objects.pods.iter().filter(|p| names.contains(&p.name_any())) {
                delete(&cluster.pods(&target), pod, "pod").await?;
            }
        }
        Cleanup::Machines(names) => {
            for vm in objects.machines.iter().filter(|m| names.contains(&m.name_any())) {
                delete(&cluster.machines(&target), vm, "VirtualMachine").await?;
            }
        }
        Cleanup::Volumes(names) => {
            for volume in objects.data_volumes.iter().filter(|v| names.contains(&v.name_any())) {
                delete(&cluster.data_volumes(&target), volume, "DataVolume").await?;
            }
            for claim in objects.claims.iter().filter(|c| names.contains(&c.name_any())) {
                delete(&cluster.claims(&target), claim, "claim").await?;
            }
        }
        Cleanup::Done { machines, volumes } => {
            tell_what_is_left(context, plan, &machines, &volumes).await?;
            let rest = plan.finalizers().iter().filter(|f| *f != FINALIZER).cloned();
            set_finalizers(context, plan, &rest.collect::<Vec<_>>()).await?;
            return Ok(Action::await_change());
        }
    }
    Ok(Action::requeue(Duration::from_secs(1)))
}

fn left(objects: &Objects) -> Left {
    let leaving = |meta: &kube::core::ObjectMeta| meta.deletion_timestamp.is_some();
    let machine = |vm: &DynamicObject| {
        let pending = vm.annotations().contains_key(crate::objects::ANNOTATION_PENDING);
        match (pending, leaving(&vm.metadata)) {
            (true, true) => cleanup::Machine::Leaving,
            (true, false) => cleanup::Machine::Made,
            (false, _) => cleanup::Machine::HandedOver,
        }
    };
    let volume = |meta: &kube::core::ObjectMeta| {
        let owners = meta.owner_references.iter().flatten();
        let vm = owners.filter(|o| o.kind == "VirtualMachine").map(|o| o.name.clone()).next();
        let name = meta.name.clone().unwrap_or_default();
        cleanup::Volume { name, owner: vm, leaving: leaving(meta) }
    };
    let mut volumes: Vec<_> = objects.claims.iter().map(|c| volume(&c.metadata)).collect();
    for data_volume in objects.data_volumes.iter().map(|v| volume(&v.metadata)) {
        if !volumes.iter().any(|v| v.name == data_volume.name) {
            volumes.push(data_volume);
        }
    }
    Left {
        pods: objects.pods.iter().map(|p| (p.name_any(), leaving(&p.metadata))).collect(),
        machines: objects.machines.iter().map(|m| (m.name_any(), machine(m))).collect(),
        volumes,
    }
}

async fn tell_what_is_left(
    context: &Context,
    plan: &Plan,
    machines: &[String],
    volumes: &[String],
) -> Result<(), cluster::Error> {
    let list =
        |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(" ") };
    let note =
        format!("deleted; it leaves the VMs {} with the volumes {}", list(machines), list(volumes));
    tracing::info!(
        plan = plan.name_any(),
        machines = list(machines),
        volumes = list(volumes),
        "a Plan is deleted; this stays"
    );
    let origin = Origin {
        plan: plan.name_any(),
        plan_namespace: plan.namespace().unwrap_or_default(),
        plan_uid: plan.uid().unwrap_or_default(),
        namespace: plan.target_namespace().unwrap_or_default(),
        vm: "plan".to_owned(),
    };
    let told = Told { reason: "PlanDeleted", note, warning: false, attempt: 0 };
    let event = crate::objects::event::event(&origin, &told, Timestamp::now(), &context.instance);
    let events = context.cluster.events(&origin.plan_namespace);
    // A namespace that is being deleted takes no events.
    if let Err(error) = cluster::create(&events, &event, "event").await {
        tracing::warn!(error = said(&error), "an event could not be made");
    }
    Ok(())
}

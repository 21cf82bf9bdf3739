//! A Plan that is deleted: does what `cleanup` says, and then lets it go.

use super::cleanup::{self, Cleanup, Left};
use super::cluster::{self, Asked, delete};
use super::observe::Objects;
use super::plan::{FINALIZER, said, set_finalizers};
use super::{Context, admission, keep};
use crate::api::plan::Plan;
use crate::objects::Origin;
use crate::objects::event::Told;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::ObjectMeta;
use kube::runtime::controller::Action;
use serde_json::json;
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
    let mut left = left(&objects, &uid);
    if matches!(cleanup::next(&left), Cleanup::Volumes(_)) {
        keep_what_is_used(context, &target, &mut left).await?;
    }
    match cleanup::next(&left) {
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
            release(context, &target, &uid, &objects).await?;
            tell_what_is_left(context, plan, &machines, &volumes).await?;
            let rest = plan.finalizers().iter().filter(|f| *f != FINALIZER).cloned();
            set_finalizers(context, plan, &rest.collect::<Vec<_>>()).await?;
            return Ok(Action::await_change());
        }
    }
    Ok(Action::requeue(Duration::from_secs(1)))
}

/// Somebody's pod or VM may have a volume of which nothing else says so.
async fn keep_what_is_used(
    context: &Context,
    namespace: &str,
    left: &mut Left,
) -> Result<(), cluster::Error> {
    let pods = cluster::all(&context.cluster.pods(namespace), "pods").await?;
    let machines = context.cluster.machines(namespace);
    let machines = cluster::all(&machines, "VirtualMachines").await?;
    for volume in left.volumes.iter_mut().filter(|v| !v.kept) {
        volume.kept = pods.iter().any(|pod| keep::pod_has(pod, &volume.name))
            || machines.iter().any(|vm| keep::machine_has(vm, &volume.name));
    }
    Ok(())
}

/// What stays must not go as the Plan's own.
async fn release(
    context: &Context,
    namespace: &str,
    uid: &str,
    objects: &Objects,
) -> Result<(), cluster::Error> {
    let patch = |meta: &ObjectMeta| {
        let owners = keep::without_plan(meta, uid)?;
        let meta = json!({ "resourceVersion": meta.resource_version, "ownerReferences": owners });
        Some(Patch::Merge(json!({ "metadata": meta })))
    };
    let params = PatchParams::default();
    for volume in &objects.data_volumes {
        let (Some(patch), name) = (patch(&volume.metadata), volume.name_any()) else { continue };
        let api = context.cluster.data_volumes(namespace);
        api.patch(&name, &params, &patch).await.asked(format!("releasing DataVolume {name}"))?;
    }
    for claim in &objects.claims {
        let (Some(patch), name) = (patch(&claim.metadata), claim.name_any()) else { continue };
        let api = context.cluster.claims(namespace);
        api.patch(&name, &params, &patch).await.asked(format!("releasing claim {name}"))?;
    }
    Ok(())
}

fn left(objects: &Objects, uid: &str) -> Left {
    let leaving = |meta: &ObjectMeta| meta.deletion_timestamp.is_some();
    let machine = |vm: &DynamicObject| {
        let pending = vm.annotations().contains_key(crate::objects::ANNOTATION_PENDING);
        match (pending, leaving(&vm.metadata)) {
            (true, true) => cleanup::Machine::Leaving,
            (true, false) => cleanup::Machine::Made,
            (false, _) => cleanup::Machine::HandedOver,
        }
    };
    let ours: Vec<String> = objects.data_volumes.iter().filter_map(ResourceExt::uid).collect();
    let metas = objects.claims.iter().map(|c| &c.metadata);
    let metas = metas.chain(objects.data_volumes.iter().map(|v| &v.metadata));
    let mut volumes: Vec<cleanup::Volume> = Vec::new();
    for meta in metas {
        let name = meta.name.clone().unwrap_or_default();
        let kept = keep::is_taken(meta, uid, &ours);
        // A claim and CDI's object of its name are one volume: neither goes when one stays.
        match volumes.iter_mut().find(|v| v.name == name) {
            Some(known) => {
                known.kept |= kept;
                known.leaving &= leaving(meta);
            }
            None => volumes.push(cleanup::Volume { name, kept, leaving: leaving(meta) }),
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
    let note = format!(
        "deleted; it leaves the VMs {}, and the volumes {}, which a VM got or somebody owns or uses",
        list(machines),
        list(volumes)
    );
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::{ANNOTATION_HANDED_OVER, origin};

    #[test]
    fn a_claim_and_its_data_volume_are_one_volume() {
        let meta = |uid: &str, owner: Option<&str>, marked: bool| {
            let owner = owner
                .map(|uid| json!({ "apiVersion": "v1", "kind": "x", "name": "x", "uid": uid }));
            let marks = if marked { json!({ ANNOTATION_HANDED_OVER: "vm" }) } else { json!({}) };
            json!({ "metadata": { "name": "v0", "uid": uid, "labels": origin().labels(),
                "annotations": marks, "ownerReferences": owner.as_slice() } })
        };
        let of = |claim, data_volume| {
            let objects = Objects {
                claims: vec![serde_json::from_value(claim).unwrap()],
                data_volumes: vec![serde_json::from_value(data_volume).unwrap()],
                ..Objects::default()
            };
            left(&objects, &origin().plan_uid)
        };
        let plan = origin().plan_uid;
        let ours = of(meta("c", Some("d"), false), meta("d", Some(&plan), false));
        assert_eq!(cleanup::next(&ours), Cleanup::Volumes(vec!["v0".into()]));
        // The VM was orphaned: nothing but the marks says that it was there.
        let done = Cleanup::Done { machines: vec![], volumes: vec!["v0".into()] };
        let marked = of(meta("c", Some("d"), true), meta("d", None, true));
        assert_eq!(cleanup::next(&marked), done);
        assert_eq!(
            cleanup::next(&of(meta("c", Some("d"), true), meta("d", Some(&plan), false))),
            done
        );
        assert_eq!(
            cleanup::next(&of(meta("c", Some("other"), false), meta("d", None, false))),
            done
        );
    }
}

//! One round for one Plan: look, decide, do, write down.

use super::act::{self, Subject};
use super::cluster::{self, Asked, find};
use super::decide::{self, Candidate, Decision, MachineState, PodState, Rules, Seen, SourceState};
use super::failure::Failure;
use super::guest::{self, Guest};
use super::measure::Places;
use super::observe::{self, Objects, Volume};
use super::source::Look;
use super::{Context, admission, deleted, elsewhere, pod_http, source, status};
use crate::api::plan::{Plan, PlanVm, Strategy, VmPhase, VmStatus};
use crate::api::provider::{Provider, SourceKind};
use crate::objects::Origin;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::runtime::controller::Action;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// Keeps a Plan until what it made is cleaned up.
pub const FINALIZER: &str = "conversion.v2v-pod.dev/cleanup";
/// Seconds until a step that failed is done again.
const AFTER_ERROR: u64 = 5;

/// One round.
pub async fn reconcile(plan: Arc<Plan>, context: Arc<Context>) -> Result<Action, cluster::Error> {
    let (Some(namespace), name) = (plan.namespace(), plan.name_any()) else {
        return Ok(Action::await_change());
    };
    // The watch may be behind our own last write, and nothing is remembered here.
    let plans = context.cluster.plans(&namespace);
    let Some(plan) = find(&plans, &name, "Plan").await? else { return Ok(Action::await_change()) };
    if plan.metadata.deletion_timestamp.is_some() {
        return deleted::clean_up(&context, &plan).await;
    }
    if !plan.finalizers().iter().any(|f| f == FINALIZER) {
        let mut all = plan.finalizers().to_vec();
        all.push(FINALIZER.to_owned());
        set_finalizers(&context, &plan, &all).await?;
        return Ok(Action::requeue(Duration::ZERO));
    }
    let vms = statuses(&plan);
    let is_done = |vm: &VmStatus| matches!(vm.phase, VmPhase::Succeeded | VmPhase::Failed);
    if vms.iter().all(is_done) && plan.status.as_ref().is_some_and(|s| s.end_time.is_some()) {
        return Ok(Action::await_change());
    }
    match round(&context, &plan, vms).await {
        Ok(action) => Ok(action),
        Err(error) => {
            // Such as a namespace that does not admit the controller: only a person can mend it.
            let mut new = plan.status.clone().unwrap_or_default();
            new.message = Some(said(&error));
            status::write(&context.cluster, &plan, &new).await?;
            Err(error)
        }
    }
}

/// Looks at everything, and goes on.
async fn round(
    context: &Context,
    plan: &Plan,
    vms: Vec<VmStatus>,
) -> Result<Action, cluster::Error> {
    let namespace = plan.namespace().unwrap_or_default();
    let provider_name = &plan.spec.provider_ref.name;
    let providers = context.cluster.providers(&namespace);
    let provider = find(&providers, provider_name, "Provider").await?;
    let target = plan.target_namespace().unwrap_or_default();
    let uid = plan.uid().unwrap_or_default();
    let objects = match admission::objects(&context.cluster, plan, &target, &uid).await? {
        Ok(objects) => objects,
        Err(later) => return Ok(later),
    };
    let obstacle = obstacle(context, plan, &target, provider.as_ref()).await?;
    let mut rounds = Vec::new();
    let places = Places::beside(&objects.pods, plan.spec.limits.vms as usize);
    for (vm, status) in plan.spec.vms.iter().zip(vms) {
        let Some(origin) = guest::origin(plan, vm) else { continue };
        let view =
            Survey { context, plan, objects: &objects, obstacle: &obstacle, places: &places };
        rounds.push(view.look(provider.as_ref(), vm, origin, status).await?);
    }
    go(context, plan, provider.as_ref(), rounds).await
}

/// What stands in the way of every VM of the Plan.
async fn obstacle(
    context: &Context,
    plan: &Plan,
    target: &str,
    provider: Option<&Provider>,
) -> Result<Option<Failure>, cluster::Error> {
    let Some(provider) = provider else {
        let own = plan.namespace().unwrap_or_default();
        let message =
            format!("there is no Provider {} in namespace {own}", plan.spec.provider_ref.name);
        return Ok(Some(Failure::lasting(
            "not-found",
            message,
            "make it, or correct spec.providerRef",
        )));
    };
    if let Some(failure) = guest::unfit_strategy(plan, provider) {
        return Ok(Some(failure));
    }
    if !context.cluster.has("kubevirt.io/v1", "virtualmachines").await? {
        let message = "the cluster has no VirtualMachines of kubevirt.io/v1";
        return Ok(Some(Failure::lasting("config", message, "install KubeVirt")));
    }
    elsewhere::obstacle(&context.cluster, plan, target, provider).await
}

/// Whether what the status knows of disks may be about other paths than the Plan has now.
fn is_measured_before_a_change(plan: &Plan) -> bool {
    plan.status.as_ref().is_some_and(|status| {
        status.start_time.is_none() && status.observed_generation != plan.metadata.generation
    })
}

/// The status of each VM of the Plan, in its order.
fn statuses(plan: &Plan) -> Vec<VmStatus> {
    let known = plan.status.as_ref().map(|s| s.vms.as_slice()).unwrap_or_default();
    let of = |vm: &PlanVm| {
        let name = vm.target_name().unwrap_or_default();
        let status = known.iter().find(|status| status.name == name).cloned();
        status.unwrap_or_else(|| VmStatus { name: name.to_owned(), ..VmStatus::default() })
    };
    plan.spec.vms.iter().map(of).collect()
}

/// One VM in this round.
struct Round {
    origin: Origin,
    status: VmStatus,
    seen: Seen,
    guest: Option<Guest>,
    volumes: Vec<Volume>,
    journal: Option<PersistentVolumeClaim>,
    pod: Option<Pod>,
    machine: Option<DynamicObject>,
    progress: Option<pod_http::Progress>,
}

struct Survey<'a> {
    context: &'a Context,
    plan: &'a Plan,
    objects: &'a Objects,
    obstacle: &'a Option<Failure>,
    places: &'a Places,
}

impl Survey<'_> {
    async fn look(
        &self,
        provider: Option<&Provider>,
        vm: &PlanVm,
        origin: Origin,
        mut status: VmStatus,
    ) -> Result<Round, cluster::Error> {
        let cluster = &self.context.cluster;
        let record = status::record(&status);
        let is_done = matches!(record.phase, VmPhase::Succeeded | VmPhase::Failed);
        let pod = find(&cluster.pods(&origin.namespace), &origin.pod_name(), "pod").await?;
        let now = Timestamp::now().as_second();
        let pod_state = if is_done {
            PodState::Missing
        } else {
            observe::pod_state(&origin, pod.as_ref(), now).await
        };
        let machines = cluster.machines(&origin.namespace);
        let machine = find(&machines, &origin.vm, "VirtualMachine").await?;
        let machine_state = observe::machine_state(&origin, machine.as_ref());
        if let Some(outcome) = observe::outcome(&origin, machine.as_ref()).filter(|_| !is_done) {
            status::with_outcome(&mut status, outcome);
        }
        if is_measured_before_a_change(self.plan) && self.objects.volumes_of(&origin.vm) == 0 {
            (status.disks, status.nics, status.uuid) = (Vec::new(), Vec::new(), None);
        }
        let recorded = status::looked(&status);
        let (mut source, guest) = match (self.obstacle, provider) {
            _ if is_done || pod_state != PodState::Missing => (SourceState::Known, None),
            (None, Some(provider)) => {
                let Self { context, plan, places, .. } = self;
                source::look(Look { context, plan, provider, places }, vm, recorded.as_ref())
                    .await?
            }
            (Some(failure), _) => (SourceState::Wrong(failure.clone()), None),
            (None, None) => (SourceState::Looking("the Provider is read".to_owned()), None),
        };
        if let Some(guest) = &guest {
            let sizes: Vec<u64> = guest.disks.iter().map(|d| d.bytes).collect();
            let made = self.objects.volumes_of(&origin.vm);
            let claim = |index| origin.claim_name(index);
            if let Err(failure) = status::with_disks(&mut status, &sizes, made, claim) {
                source = SourceState::Changed(failure);
            }
            status.host.clone_from(&guest.host);
            status::with_facts(&mut status, &guest.facts);
        }
        let count = guest.as_ref().map_or(0, |g| g.disks.len());
        let count = count.max(status.disks.len()).max(self.objects.volumes_of(&origin.vm));
        let (mut volumes, mut states) = (Vec::new(), Vec::new());
        let uid = machine.as_ref().and_then(ResourceExt::uid);
        for index in 0..count {
            let (volume, state) =
                observe::volume(cluster, self.objects, &origin, index, uid.as_deref()).await?;
            volumes.push(volume);
            states.push(state);
        }
        let (journal, journal_state) = match self.plan.spec.strategy {
            Strategy::CopyFirst => {
                let (claim, state) = observe::journal(cluster, self.objects, &origin).await?;
                (claim, Some(state))
            }
            Strategy::Cold => (None, None),
        };
        let progress = match (&pod_state, &pod) {
            (PodState::Running(_), Some(pod)) => observe::progress(pod).await,
            _ => None,
        };
        if let Some(progress) = &progress {
            status::with_progress(&mut status, progress);
        }
        let seen = Seen {
            record,
            admitted: false,
            source,
            volumes: states,
            journal: journal_state,
            pod: pod_state,
            machine: machine_state,
        };
        Ok(Round { origin, status, seen, guest, volumes, journal, pod, machine, progress })
    }
}

impl Round {
    fn candidate(&self, now: i64) -> Candidate {
        let record = &self.seen.record;
        let done = matches!(record.phase, VmPhase::Succeeded | VmPhase::Failed);
        Candidate {
            active: !done && self.seen.pod.is_active(),
            waits: !done
                && self.seen.pod == PodState::Missing
                && self.seen.source == SourceState::Known
                && record.retry_at.is_none_or(|at| at <= now),
            host: self.status.host.clone(),
        }
    }
}

/// Decides for all VMs, does it, and writes the status.
async fn go(
    context: &Context,
    plan: &Plan,
    provider: Option<&Provider>,
    mut rounds: Vec<Round>,
) -> Result<Action, cluster::Error> {
    let now = Timestamp::now();
    let limits = &plan.spec.limits;
    let candidates: Vec<Candidate> = rounds.iter().map(|r| r.candidate(now.as_second())).collect();
    let places = decide::admit(&candidates, limits.vms as usize, limits.per_host as usize);
    let rules = Rules {
        retries: plan.spec.retries,
        retry_delay_s: context.retry_delay_s,
        now: now.as_second(),
    };
    let mut decisions: Vec<Decision> = Vec::new();
    for (round, admitted) in rounds.iter_mut().zip(places) {
        round.seen.admitted = admitted;
        let mut decision = decide::next(&round.seen, rules);
        let shown = round.seen.machine != MachineState::Foreign;
        if let (true, Some(progress), VmPhase::Converting) =
            (shown, &round.progress, decision.record.phase)
        {
            let phase = progress.phase.as_deref().unwrap_or("begins");
            decision.record.message = Some(format!("the pod is in phase {phase}"));
        }
        decisions.push(decision);
    }
    let written = |decisions: &[Decision]| {
        let vms = rounds.iter().zip(decisions);
        let vms = vms.map(|(round, d)| status::with_record(&round.status, &d.record, now));
        status::summary(plan, vms.collect(), now)
    };
    let before = written(&decisions);
    let mut known = plan.clone();
    if plan.status.as_ref().and_then(|s| s.start_time.as_ref()) != before.start_time.as_ref() {
        // From here on the spec is fixed; so before the first object is made.
        known = status::write(&context.cluster, plan, &before).await?;
    }
    for (round, decision) in rounds.iter().zip(&mut decisions) {
        if let Err(error) = steps(context, plan, provider, round, decision).await {
            tracing::warn!(
                plan = plan.name_any(),
                vm = round.origin.vm,
                error = said(&error),
                "a step failed"
            );
            decision.record.message = Some(said(&error));
            if !matches!(decision.record.phase, VmPhase::CreatingVm) {
                decision.record.phase = round.seen.record.phase;
            }
            decision.again_s = Some(AFTER_ERROR);
        }
    }
    status::write(&context.cluster, &known, &written(&decisions)).await?;
    let again = decisions.iter().filter_map(|d| d.again_s).min();
    Ok(again.map_or_else(Action::await_change, |s| Action::requeue(Duration::from_secs(s))))
}

async fn steps(
    context: &Context,
    plan: &Plan,
    provider: Option<&Provider>,
    round: &Round,
    decision: &Decision,
) -> Result<(), act::Error> {
    let subject = Subject {
        plan,
        provider,
        origin: &round.origin,
        guest: round.guest.as_ref(),
        volumes: &round.volumes,
        journal: round.journal.as_ref(),
        pod: round.pod.as_ref(),
        machine: round.machine.as_ref(),
    };
    for step in &decision.steps {
        tracing::info!(plan = plan.name_any(), vm = round.origin.vm, step = ?step, "step");
        subject.step(context, step).await?;
    }
    // What was found is in the status that this round began with.
    let measured = provider.is_some_and(|p| p.spec.kind != SourceKind::Vsphere)
        && plan.status.as_ref().is_some_and(|s| {
            s.vms.iter().any(|v| v.name == round.origin.vm && !v.disks.is_empty())
        });
    if measured && matches!(decision.record.phase, VmPhase::Pending | VmPhase::Volumes) {
        source::forget(context, &round.origin).await?;
    }
    Ok(())
}

/// An error with its causes.
pub(super) fn said(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

pub(super) async fn set_finalizers(
    context: &Context,
    plan: &Plan,
    all: &[String],
) -> Result<(), cluster::Error> {
    let (name, namespace) = (plan.name_any(), plan.namespace().unwrap_or_default());
    let patch = json!({
        "metadata": { "resourceVersion": plan.resource_version(), "finalizers": all },
    });
    let plans = context.cluster.plans(&namespace);
    plans
        .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .asked(format!("changing the finalizers of Plan {namespace}/{name}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_a_plan_that_was_corrected_are_not_believed() {
        let plan = |status: serde_json::Value| -> Plan {
            serde_json::from_value(json!({
                "apiVersion": "conversion.v2v-pod.dev/v1alpha1", "kind": "Plan",
                "metadata": { "name": "p", "namespace": "lab", "generation": 2 },
                "spec": { "providerRef": { "name": "x" }, "vms": [{ "name": "web" }] },
                "status": status,
            }))
            .unwrap()
        };
        let changed = |status| is_measured_before_a_change(&plan(status));
        assert!(changed(json!({ "observedGeneration": 1 })));
        assert!(!changed(json!({ "observedGeneration": 2 })));
        // From its start on VMs and paths are fixed.
        let begun = json!({ "observedGeneration": 1, "startTime": "2026-01-01T00:00:00Z" });
        assert!(!changed(begun));
    }
}

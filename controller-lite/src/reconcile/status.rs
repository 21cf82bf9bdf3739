//! The Plan's status: what it remembers of a VM, and how it is written. Pure but for the writing.

use super::cluster::{Asked, Cluster, Error};
use super::conditions;
use super::decide::Record;
use super::failure::Failure;
use super::guest::Looked;
use super::pod_http::Progress;
use crate::api::plan::{DiskStatus, NicStatus, Plan, PlanPhase, PlanStatus, VmPhase, VmStatus};
use crate::objects::outcome::Outcome;
use crate::objects::vm::{Facts, NicFacts};
use crate::objects::{GROUP, MANAGER};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;

/// The longest message.
const MESSAGE_MAX: usize = 1024;

/// What the status remembers.
pub fn record(status: &VmStatus) -> Record {
    Record {
        phase: status.phase,
        attempts: status.attempts,
        retry_at: status.retry_time.as_ref().map(|time| time.0.as_second()),
        class: status.class.clone(),
        message: status.message.clone(),
    }
}

/// The status with what was decided.
pub fn with_record(status: &VmStatus, record: &Record, now: Timestamp) -> VmStatus {
    let mut new = status.clone();
    new.phase = record.phase;
    new.attempts = record.attempts;
    new.class.clone_from(&record.class);
    new.message = record.message.as_deref().map(cut);
    new.retry_time = record.retry_at.and_then(|at| Timestamp::from_second(at).ok()).map(Time);
    let begun = !matches!(record.phase, VmPhase::Pending | VmPhase::Preflight);
    if begun && new.start_time.is_none() {
        new.start_time = Some(Time(now));
    }
    let ended = matches!(record.phase, VmPhase::Succeeded | VmPhase::Failed);
    new.end_time = ended.then(|| new.end_time.take().unwrap_or(Time(now)));
    if record.phase == VmPhase::Succeeded {
        for disk in &mut new.disks {
            (disk.copied, disk.rate) = (disk.bytes, None);
        }
    }
    new.conditions = conditions::of_vm(&new, now);
    new
}

fn cut(text: &str) -> String {
    text.chars().take(MESSAGE_MAX).collect()
}

/// The disks, as soon as they are known. Once there are volumes, of which `made` says how many, they
/// must be those that the volumes were made for.
pub fn with_disks(
    status: &mut VmStatus,
    sizes: &[u64],
    made: usize,
    claim: impl Fn(usize) -> String,
) -> Result<(), Failure> {
    let recorded: Vec<u64> = status.disks.iter().filter_map(|d| d.bytes).collect();
    if made > sizes.len() || (made > 0 && !recorded.is_empty() && recorded != sizes) {
        let before = if recorded.is_empty() { format!("{made}") } else { list(&recorded) };
        let message = format!(
            "the VM's disks changed at the source after volumes were made for them: {before} before, \
             {} now",
            list(sizes)
        );
        let advice = "delete the Plan, which removes the volumes, and make another one";
        return Err(Failure::lasting("config", message, advice));
    }
    status.disks.retain(|disk| (disk.index as usize) < sizes.len());
    for (number, bytes) in sizes.iter().enumerate() {
        let index = u32::try_from(number).unwrap_or(u32::MAX);
        match status.disks.iter_mut().find(|d| d.index == index) {
            Some(disk) => disk.bytes = Some(*bytes),
            None => status.disks.push(DiskStatus {
                index,
                claim_name: Some(claim(number)),
                bytes: Some(*bytes),
                ..DiskStatus::default()
            }),
        }
    }
    Ok(())
}

/// What an earlier look found, where there was one.
pub fn looked(status: &VmStatus) -> Option<Looked> {
    let sizes: Vec<u64> = status.disks.iter().filter_map(|d| d.bytes).collect();
    let nic = |nic: &NicStatus| NicFacts { mac: nic.mac.clone(), network: nic.network.clone() };
    let nics = status.nics.iter().map(nic).collect();
    let uuid = status.uuid.clone();
    (!sizes.is_empty()).then_some(Looked { uuid, sizes, nics })
}

/// What else the VM object needs, as the status keeps it.
pub fn with_facts(status: &mut VmStatus, facts: &Facts) {
    let nic = |nic: &NicFacts| NicStatus { mac: nic.mac.clone(), network: nic.network.clone() };
    status.nics = facts.nics.iter().map(nic).collect();
    status.uuid.clone_from(&facts.uuid);
}

fn list(sizes: &[u64]) -> String {
    let each: Vec<String> = sizes.iter().map(ToString::to_string).collect();
    format!("{} ({} bytes)", sizes.len(), each.join(", "))
}

/// What the conversion said, which is kept on the VM.
pub fn with_outcome(status: &mut VmStatus, outcome: Outcome) {
    status.guest = outcome.guest;
    status.warnings = outcome.warnings;
    status.warning_count = Some(outcome.warning_count).filter(|count| *count > 0);
}

/// How far the copy is.
pub fn with_progress(status: &mut VmStatus, progress: &Progress) {
    for (disk, now) in status.disks.iter_mut().zip(&progress.disks) {
        disk.copied = Some(now.done_bytes);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let rate = now.rate_bytes_per_second.clamp(0.0, 1e15) as u64;
        let is_done = disk.bytes.is_some_and(|bytes| now.done_bytes >= bytes);
        disk.rate = Some(rate).filter(|rate| *rate > 0 && !is_done);
    }
}

/// The Plan's own lines, from its VMs.
pub fn summary(plan: &Plan, vms: Vec<VmStatus>, now: Timestamp) -> PlanStatus {
    let old = plan.status.clone().unwrap_or_default();
    let count = |wanted: VmPhase| vms.iter().filter(|vm| vm.phase == wanted).count();
    let (succeeded, failed) = (count(VmPhase::Succeeded), count(VmPhase::Failed));
    let begun = vms.iter().any(|vm| vm.start_time.is_some());
    let phase = match () {
        () if succeeded == vms.len() => PlanPhase::Succeeded,
        () if succeeded + failed == vms.len() => PlanPhase::Failed,
        () if begun => PlanPhase::Running,
        () => PlanPhase::Pending,
    };
    let waiting = vms.iter().find(|vm| vm.phase == VmPhase::Preflight && vm.class.is_some());
    let message = match phase {
        PlanPhase::Succeeded => "all VMs are converted".to_owned(),
        PlanPhase::Failed => format!("{failed} of {} VMs failed; see status.vms", vms.len()),
        PlanPhase::Running | PlanPhase::Pending => match waiting {
            Some(vm) => format!("{}: {}", vm.name, vm.message.as_deref().unwrap_or_default()),
            None => format!("{} of {} VMs are done", succeeded + failed, vms.len()),
        },
    };
    let ended = matches!(phase, PlanPhase::Succeeded | PlanPhase::Failed);
    let generation = plan.metadata.generation;
    let conditions =
        conditions::of_plan(&old.conditions, phase, &message, waiting, generation, now);
    let number = |n: usize| u32::try_from(n).ok();
    PlanStatus {
        phase: Some(phase),
        message: Some(cut(&message)),
        conditions,
        observed_generation: generation,
        start_time: old.start_time.or_else(|| begun.then_some(Time(now))),
        end_time: ended.then(|| old.end_time.unwrap_or(Time(now))),
        total: number(vms.len()),
        succeeded: number(succeeded),
        failed: number(failed),
        vms,
    }
}

/// Writes it, unless it says the same as before. Over a Plan that was changed since it was read, or
/// made anew, it is not written: that Plan is looked at again. Returns the Plan as it is then.
pub async fn write(cluster: &Cluster, plan: &Plan, status: &PlanStatus) -> Result<Plan, Error> {
    if plan.status.as_ref() == Some(status) {
        return Ok(plan.clone());
    }
    let (name, namespace) = (plan.name_any(), plan.namespace().unwrap_or_default());
    let patch = json!({
        "apiVersion": format!("{GROUP}/v1alpha1"),
        "kind": "Plan",
        "metadata": { "name": name, "resourceVersion": plan.resource_version() },
        "status": status,
    });
    let params = PatchParams::apply(MANAGER).force();
    let plans = cluster.plans(&namespace);
    plans
        .patch_status(&name, &params, &Patch::Apply(patch))
        .await
        .asked(format!("writing the status of Plan {namespace}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(phase: VmPhase) -> VmStatus {
        let record = Record { phase, ..Record::default() };
        with_record(&VmStatus::default(), &record, Timestamp::UNIX_EPOCH)
    }

    fn phase(vms: &[VmPhase]) -> Option<PlanPhase> {
        let vms = vms.iter().map(|phase| status(*phase)).collect();
        summary(&Plan::new("p", crate::api::PlanSpec::default()), vms, Timestamp::UNIX_EPOCH).phase
    }

    #[test]
    fn a_plan_is_what_its_vms_are() {
        use VmPhase::{Converting, Failed, Pending, Preflight, Succeeded};
        assert_eq!(phase(&[Pending, Preflight]), Some(PlanPhase::Pending));
        assert_eq!(phase(&[Pending, Converting]), Some(PlanPhase::Running));
        assert_eq!(phase(&[Pending, Succeeded]), Some(PlanPhase::Running));
        assert_eq!(phase(&[Succeeded, Succeeded]), Some(PlanPhase::Succeeded));
        assert_eq!(phase(&[Failed, Succeeded]), Some(PlanPhase::Failed));
    }

    #[test]
    fn a_record_comes_back_as_it_was() {
        let record = Record {
            phase: VmPhase::Retrying,
            attempts: 2,
            retry_at: Some(1000),
            class: Some("network".into()),
            message: Some("x".into()),
        };
        let status = with_record(&VmStatus::default(), &record, Timestamp::UNIX_EPOCH);
        assert_eq!(super::record(&status), record);
    }

    #[test]
    fn disks_follow_the_guest_until_there_are_volumes() {
        let mut status = VmStatus::default();
        let mut see = |sizes: &[u64], made| {
            let seen = with_disks(&mut status, sizes, made, |index| format!("c{index}"));
            let known: Vec<u64> = status.disks.iter().filter_map(|d| d.bytes).collect();
            (seen.map_err(|failure| failure.class), known)
        };
        assert_eq!(see(&[10, 20], 0), (Ok(()), vec![10, 20]));
        assert_eq!(see(&[10], 0), (Ok(()), vec![10]));
        assert_eq!(see(&[10, 30], 0), (Ok(()), vec![10, 30]));
        // One of two is made.
        assert_eq!(see(&[10, 30], 1), (Ok(()), vec![10, 30]));
        for changed in [&[10][..], &[10, 31], &[10, 30, 40]] {
            assert_eq!(see(changed, 2), (Err("config".to_owned()), vec![10, 30]));
        }
    }

    #[test]
    fn what_was_found_comes_back_as_it_was() {
        let mut status = VmStatus::default();
        assert_eq!(looked(&status), None);
        let nic = |network: &str| NicFacts { mac: None, network: Some(network.into()) };
        let nics = vec![nic("LAN"), NicFacts::default()];
        let found = Looked { uuid: Some("u".into()), sizes: vec![10, 20], nics: nics.clone() };
        with_disks(&mut status, &found.sizes, 0, |_| String::new()).unwrap();
        with_facts(&mut status, &Facts { uuid: Some("u".into()), nics });
        let kept: VmStatus = serde_json::from_value(json!(status)).unwrap();
        assert_eq!(looked(&kept), Some(found));
    }

    #[test]
    fn volumes_whose_disks_were_not_recorded_are_counted() {
        let see = |sizes: &[u64], made| {
            with_disks(&mut VmStatus::default(), sizes, made, |_| String::new()).is_ok()
        };
        assert!(see(&[10, 20], 1));
        assert!(!see(&[10], 2));
    }
}

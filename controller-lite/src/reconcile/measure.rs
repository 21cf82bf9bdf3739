//! What a guest is that only a pod can look at, in files on a volume or on a Xen host: a short pod runs
//! `v2v-pod source`, and leaves the answer as its termination message. Pure; the pod is run by `source`.

use super::failure::{self, Failure};
use super::guest::Looked;
use super::observe;
use crate::objects::pod::{Conversion, ROLE_MEASURE};
use crate::objects::source::Source;
use crate::objects::vm::NicFacts;
use crate::objects::{ANNOTATION_DIGEST, LABEL_ROLE, Origin, name};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::ResourceExt;
use serde::Deserialize;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The subcommand of `v2v-pod`.
const SUBCOMMAND: &str = "source";

/// Seconds that a failure is shown at least before the pod is made anew: it may have been mended.
const LOOK_AGAIN: i64 = 60;
/// At most.
const LOOK_AGAIN_MAX: i64 = 600;
/// Of the time that the Plan has waited already, a failure is shown for one part in so many: the
/// longer it lasts, the less often a host is asked.
const LOOK_AGAIN_PART: i64 = 8;

/// Pods of a Plan that look at the same time.
const AT_ONCE: usize = 4;

/// What a pod that measures says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Measured {
    /// What it found.
    Found(Looked),
    /// It has not ended; what it is at.
    Waits(String),
    /// It failed.
    Wrong(Failure),
    /// It was made for something else than is wanted now, or failed a while ago.
    Stale,
}

/// How many more pods of a Plan may look now.
#[derive(Debug)]
pub struct Places(AtomicUsize);

impl Places {
    /// Beside these pods of the Plan. A Plan that converts fewer at the same time looks at fewer, too.
    pub fn beside(pods: &[Pod], limit: usize) -> Self {
        let looks = |pod: &&Pod| {
            let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
            pod.labels().get(LABEL_ROLE).is_some_and(|role| role == ROLE_MEASURE)
                && !matches!(phase, Some("Succeeded" | "Failed"))
        };
        let busy = pods.iter().filter(looks).count();
        Self(AtomicUsize::new(AT_ONCE.min(limit.max(1)).saturating_sub(busy)))
    }

    /// Takes one, if there is one.
    pub fn take(&self) -> bool {
        let less = |free: usize| free.checked_sub(1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

/// The same failure with advice for whoever writes Plans: the pod's own speaks of its settings.
pub fn for_plans(failure: Failure, source: &Source) -> Failure {
    let advice = match (source, failure.class.as_str()) {
        (Source::Ova { .. } | Source::Disk { .. }, "not-found") => {
            "correct spec.vms[].paths, or the files on the Provider's volume"
        }
        (Source::Xen { .. }, "trust") => {
            "put the host's key into the Provider's Secret as known_hosts, after you have compared it \
             with /etc/ssh/ssh_host_*_key.pub on the host"
        }
        (Source::Xen { .. }, "auth") => {
            "check the user in the Provider's url, and password or key in its Secret"
        }
        _ => return failure,
    };
    Failure { advice: Some(advice.to_owned()), ..failure }
}

/// Name of the pod.
pub fn pod_name(origin: &Origin) -> String {
    name::joined(&[&origin.plan, &origin.vm, "measure"])
}

/// The pod: the conversion's own, with a subcommand and without volumes to write to.
pub fn pod(conversion: &Conversion<'_>) -> Pod {
    let source = Conversion {
        disks: &[],
        journal: None,
        vddk_image: None,
        kvm: false,
        ..conversion.clone()
    };
    let mut pod = source.pod();
    pod.metadata.name = Some(pod_name(conversion.origin));
    pod.metadata
        .labels
        .get_or_insert_default()
        .insert(LABEL_ROLE.to_owned(), ROLE_MEASURE.to_owned());
    let Some(spec) = pod.spec.as_mut() else { return pod };
    spec.affinity = None;
    for container in &mut spec.containers {
        container.args = Some(vec![SUBCOMMAND.to_owned()]);
        container.env = Some(source.source_env());
        container.ports = None;
    }
    // Of all of it: paths and claim, and what a pod may wait for, such as its image.
    let text = serde_json::to_string(spec).unwrap_or_default();
    let digest = (ANNOTATION_DIGEST.to_owned(), name::digest(&text, 16));
    pod.metadata.annotations.get_or_insert_default().extend([digest]);
    pod
}

/// What the pod `found` says, where one like `wanted` would be made now, for a Plan that was made `since`.
pub fn look(found: &Pod, wanted: &Pod, since: Option<i64>, now: i64) -> Measured {
    let name = found.name_any();
    if found.metadata.deletion_timestamp.is_some() {
        return Measured::Waits(format!("pod {name} ends, and the source is looked at anew"));
    }
    if found.annotations().get(ANNOTATION_DIGEST) != wanted.annotations().get(ANNOTATION_DIGEST) {
        return Measured::Stale;
    }
    let empty = PodStatus::default();
    let status = found.status.as_ref().unwrap_or(&empty);
    match answer(found, now) {
        Some(Ok(looked)) => Measured::Found(looked),
        Some(Err(failure)) => {
            let ended = observe::ended_at(status).or_else(|| observe::created(found));
            let shown_for = look_again_after(since.map_or(0, |at| now.saturating_sub(at)));
            let is_old = ended.is_some_and(|at| now.saturating_sub(at) >= shown_for);
            if is_old { Measured::Stale } else { Measured::Wrong(failure) }
        }
        None if status.phase.as_deref() == Some("Running") => {
            Measured::Waits("the source is looked at".to_owned())
        }
        None => {
            let why = observe::waits_for(status);
            Measured::Waits(format!("the source is looked at; pod {name} waits: {why}"))
        }
    }
}

fn look_again_after(waited: i64) -> i64 {
    (waited / LOOK_AGAIN_PART).clamp(LOOK_AGAIN, LOOK_AGAIN_MAX)
}

/// The answer of `v2v-pod source`, as far as it is needed.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    uuid: Option<String>,
    disks: Vec<Disk>,
    #[serde(default)]
    nics: Vec<NicFacts>,
}

#[derive(Deserialize)]
struct Disk {
    bytes: u64,
}

/// What the pod said, once it has ended.
fn answer(pod: &Pod, now: i64) -> Option<Result<Looked, Failure>> {
    let status = pod.status.as_ref()?;
    match status.phase.as_deref() {
        Some("Succeeded") => {}
        Some("Failed") => return Some(Err(failure::of_pod(pod, now))),
        _ => return None,
    }
    let mut ends = status.container_statuses.iter().flatten();
    let end = ends.find_map(|c| c.state.as_ref()?.terminated.as_ref());
    let said = end.and_then(|end| end.message.as_deref()).unwrap_or_default().trim();
    let read = serde_json::from_str::<Answer>(said).ok().filter(|a| !a.disks.is_empty());
    Some(read.map_or_else(
        || {
            let message = format!("the source was looked at, but that is no answer: {said:?}");
            let advice = "use the conversion image of the controller's own version";
            Err(Failure::lasting("result", message, advice))
        },
        |Answer { uuid, disks, nics }| {
            let uuid = uuid.filter(|text| is_uuid(text));
            Ok(Looked { uuid, sizes: disks.iter().map(|disk| disk.bytes).collect(), nics })
        },
    ))
}

/// It goes into the VM, so it can be nothing else.
fn is_uuid(text: &str) -> bool {
    text.split('-').map(str::len).eq([8, 4, 4, 4, 12])
        && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::vm::Facts;
    use serde_json::json;

    fn ended(phase: &str, message: &str) -> Pod {
        serde_json::from_value(json!({ "status": { "phase": phase, "containerStatuses": [{
            "name": "virt-v2v", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": { "terminated": {
                "exitCode": i32::from(phase == "Failed"), "message": message,
            } },
        }] } }))
        .unwrap()
    }

    const SAID: &str = r#"{"name":"web","uuid":"6a0a7a2e-0000-4000-8000-00000000000a","disks":[{"bytes":10,"name":"a"},{"bytes":20}],
        "nics":[{"mac":"00:16:3e:00:00:01","network":"LAN"},{}]}"#;

    fn looked() -> Looked {
        let lan = NicFacts { mac: Some("00:16:3e:00:00:01".into()), network: Some("LAN".into()) };
        Looked {
            uuid: Some("6a0a7a2e-0000-4000-8000-00000000000a".into()),
            sizes: vec![10, 20],
            nics: vec![lan, NicFacts::default()],
        }
    }

    #[test]
    fn an_answer_has_disks_and_nics() {
        assert_eq!(answer(&ended("Succeeded", SAID), 0), Some(Ok(looked())));
        assert_eq!(answer(&ended("Running", SAID), 0), None);
        let other = SAID.replace("6a0a7a2e-", "$(x)-");
        let other = answer(&ended("Succeeded", &other), 0).unwrap().unwrap();
        assert_eq!(other, Looked { uuid: None, ..looked() });
        for said in ["x", "", "10\n20", r#"{"disks":[]}"#, r#"{"disks":[{"bytes":-1}]}"#] {
            let failure = answer(&ended("Succeeded", said), 0).unwrap().unwrap_err();
            assert_eq!((failure.class.as_str(), failure.may_pass), ("result", false), "{said}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_answer_is_taken(said in "\\PC{0,200}") {
            proptest::prop_assert!(answer(&ended("Succeeded", &said), 0).is_some());
        }
    }

    #[test]
    fn a_failure_has_the_class_that_the_pod_gave_it() {
        let said =
            r#"{"class":"auth","exit_code":21,"message":"no","advice":"look","passing":false}"#;
        let mut pod = ended("Failed", said);
        let failure = answer(&pod, 0).unwrap().unwrap_err();
        assert_eq!((failure.class.as_str(), failure.may_pass), ("auth", false));
        let said_by_a_plan = |class: &str, source: &Source| {
            let failure = Failure::lasting(class, "m", "V2V_x");
            for_plans(failure, source).advice.unwrap()
        };
        let path = crate::objects::source::FilePath::parse("a.ova").unwrap();
        let ova = Source::Ova { claim: "c".into(), path, name: "web".into() };
        assert!(said_by_a_plan("not-found", &ova).contains("spec.vms[].paths"));
        assert_eq!(said_by_a_plan("config", &ova), "V2V_x");
        pod = ended("Failed", "");
        assert_eq!(answer(&pod, 0).unwrap().unwrap_err().class, "lost");
    }

    #[test]
    fn few_look_at_the_same_time() {
        let measuring = |phase: &str| {
            let mut pod = ended(phase, "");
            pod.metadata.labels = Some([(LABEL_ROLE.into(), ROLE_MEASURE.into())].into());
            pod
        };
        let free = |pods: &[Pod], limit| {
            let places = Places::beside(pods, limit);
            (0..10).filter(|_| places.take()).count()
        };
        let pods = [measuring("Running"), measuring("Failed"), ended("Running", "")];
        assert_eq!((free(&[], 20), free(&[], 2), free(&[], 0)), (AT_ONCE, 2, 1));
        assert_eq!((free(&pods, 20), free(&pods, 1)), (AT_ONCE - 1, 0));
    }

    fn wanted(image: &str, claim: &str, path: &str) -> Pod {
        let paths = vec![crate::objects::source::FilePath::parse(path).unwrap()];
        let conversion = Conversion {
            origin: &crate::objects::origin(),
            attempt: 1,
            image,
            source: &Source::Disk { claim: claim.into(), paths, name: "$(web)".into() },
            secret: None,
            disks: &[crate::objects::pod::Disk {
                claim: "c".into(),
                mode: crate::objects::volume::Mode::Block,
            }],
            journal: Some("journals"),
            vddk_image: Some("vddk"),
            kvm: true,
            resources: None,
            facts: &Facts::default(),
        };
        pod(&conversion)
    }

    #[test]
    fn the_pod_gets_the_source_and_no_volume() {
        let pod = json!(wanted("v2v", "exports", "a"));
        let main = &pod["spec"]["containers"][0];
        assert_eq!(main["args"], json!(["source"]));
        assert_eq!(
            main["env"],
            json!([
                { "name": "V2V_source", "value": "hyperv" },
                { "name": "V2V_vmName", "value": "$$(web)" },
                { "name": "V2V_diskPath", "value": "/source/a" },
            ])
        );
        assert!(main["volumeDevices"].is_null() && pod["spec"]["initContainers"].is_null());
        let text = pod.to_string();
        assert!(text.contains(r#"{"claimName":"exports","readOnly":true}"#), "{text}");
        assert!(
            !["kubevirt.io/kvm", r#""claimName":"c""#, "journal"]
                .iter()
                .any(|part| text.contains(part)),
            "{text}"
        );
    }

    #[test]
    fn a_pod_that_waits_says_why() {
        let wanted = wanted("v2v", "exports", "a");
        let mut found = wanted.clone();
        let unscheduled = json!({ "phase": "Pending", "conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "persistentvolumeclaim \"exports\" not found",
        }] });
        found.status = Some(serde_json::from_value(unscheduled).unwrap());
        let Measured::Waits(why) = look(&found, &wanted, None, 0) else { panic!() };
        assert!(why.ends_with("persistentvolumeclaim \"exports\" not found"), "{why}");
    }

    #[test]
    fn a_pod_is_made_anew_for_other_words_or_after_a_failure() {
        let first = wanted("v2v", "exports", "a");
        let mut found = first.clone();
        let mut status = ended("Succeeded", SAID).status;
        found.status.clone_from(&status);
        assert_eq!(look(&found, &first, None, 0), Measured::Found(looked()));
        for other in [
            wanted("v2v", "exports", "b"),
            wanted("v2v", "images", "a"),
            wanted("v3v", "exports", "a"),
        ] {
            assert_eq!(look(&found, &other, None, 0), Measured::Stale);
        }
        status.as_mut().unwrap().phase = Some("Failed".to_owned());
        found.status = status;
        let at = "2026-01-01T00:00:00Z";
        found.metadata.creation_timestamp = Some(serde_json::from_value(json!(at)).unwrap());
        let failed = found.metadata.creation_timestamp.as_ref().unwrap().0.as_second();
        let after = |seconds, since| look(&found, &first, since, failed + seconds);
        assert!(matches!(after(59, Some(failed)), Measured::Wrong(_)));
        assert_eq!(after(60, Some(failed)), Measured::Stale);
        // The longer it lasts, the less often: of a Plan that is an hour old, and of one of last year.
        assert!(matches!(after(449, Some(failed - 3600)), Measured::Wrong(_)));
        assert_eq!(after(600, Some(failed - 30_000_000)), Measured::Stale);
        assert!(matches!(after(599, Some(failed - 30_000_000)), Measured::Wrong(_)));
    }
}

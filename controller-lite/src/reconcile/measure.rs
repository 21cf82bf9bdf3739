//! How large disk images on a volume are: a short pod that mounts the volume asks qemu-img, and
//! leaves the sizes as its termination message. Pure; the pod is run by `source`.

use super::failure::Failure;
use super::observe;
use crate::objects::pod::{Conversion, ROLE_MEASURE};
use crate::objects::{ANNOTATION_DIGEST, LABEL_ROLE, Origin, name};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::ResourceExt;

/// One line with a size for each path; the first file that is none ends it. The names come as
/// arguments, so that the shell does not read them.
const SCRIPT: &str = r#"
for file do
    size=$(qemu-img info --output=json "$file" | sed -n 's/^    "virtual-size": \([0-9][0-9]*\),*$/\1/p')
    if [ -z "$size" ]; then
        { echo "$file is no disk image that can be read:"; qemu-img info "$file" 2>&1; } | head -c 2000 >/dev/termination-log
        exit 1
    fi
    echo "$size"
done >/tmp/sizes && cat /tmp/sizes >/dev/termination-log
"#;

/// Seconds that a failure is shown before the pod is made anew: the files may have been mended.
const LOOK_AGAIN: i64 = 60;

/// What a pod that measures says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Measured {
    /// Sizes, by path.
    Sizes(Vec<u64>),
    /// It has not ended; what it is at.
    Waits(String),
    /// It failed.
    Wrong(Failure),
    /// It was made for something else than is wanted now, or failed a while ago.
    Stale,
}

/// Name of the pod.
pub fn pod_name(origin: &Origin) -> String {
    name::joined(&[&origin.plan, &origin.vm, "measure"])
}

/// The pod: the conversion's own, with another program and without volumes to write to.
pub fn pod(conversion: &Conversion<'_>, paths: &[String]) -> Pod {
    let mut pod = conversion.pod();
    pod.metadata.name = Some(pod_name(conversion.origin));
    pod.metadata
        .labels
        .get_or_insert_default()
        .insert(LABEL_ROLE.to_owned(), ROLE_MEASURE.to_owned());
    let Some(spec) = pod.spec.as_mut() else { return pod };
    spec.affinity = None;
    spec.init_containers = None;
    for container in &mut spec.containers {
        let words = ["/bin/sh", "-c", SCRIPT, "measure"].map(str::to_owned);
        container.command = Some(words.to_vec());
        container.args = Some(paths.iter().map(|path| path.replace("$(", "$$(")).collect());
        container.env = None;
        container.ports = None;
    }
    // Of all of it: paths and claim, and what a pod may wait for, such as its image.
    let text = serde_json::to_string(spec).unwrap_or_default();
    let digest = (ANNOTATION_DIGEST.to_owned(), name::digest(&text, 16));
    pod.metadata.annotations.get_or_insert_default().extend([digest]);
    pod
}

/// What the pod `found` says, where one like `wanted` would be made now.
pub fn look(found: &Pod, wanted: &Pod, now: i64) -> Measured {
    let name = found.name_any();
    if found.metadata.deletion_timestamp.is_some() {
        return Measured::Waits(format!("pod {name} ends, and the disks are measured anew"));
    }
    if found.annotations().get(ANNOTATION_DIGEST) != wanted.annotations().get(ANNOTATION_DIGEST) {
        return Measured::Stale;
    }
    let empty = PodStatus::default();
    let status = found.status.as_ref().unwrap_or(&empty);
    match sizes(found) {
        Some(Ok(sizes)) => Measured::Sizes(sizes),
        Some(Err(failure)) => {
            let ended = observe::ended_at(status).or_else(|| observe::created(found));
            let is_old = ended.is_some_and(|at| now.saturating_sub(at) >= LOOK_AGAIN);
            if is_old { Measured::Stale } else { Measured::Wrong(failure) }
        }
        None if status.phase.as_deref() == Some("Running") => {
            Measured::Waits("the disks are measured".to_owned())
        }
        None => {
            let why = observe::waits_for(status);
            Measured::Waits(format!("the disks are measured; pod {name} waits: {why}"))
        }
    }
}

/// What the pod said, once it has ended.
fn sizes(pod: &Pod) -> Option<Result<Vec<u64>, Failure>> {
    let status = pod.status.as_ref()?;
    let phase = status.phase.as_deref();
    let end = status
        .container_statuses
        .iter()
        .flatten()
        .find_map(|c| c.state.as_ref()?.terminated.as_ref());
    let said = end.and_then(|end| end.message.as_deref()).unwrap_or_default().trim();
    let failed = |message: &str| {
        let advice = "correct spec.vms[].paths, or the files on the Provider's volume";
        Some(Err(Failure::lasting("not-found", message, advice)))
    };
    match phase {
        Some("Succeeded") => match said.lines().map(str::parse).collect::<Result<Vec<u64>, _>>() {
            Ok(sizes) if !sizes.is_empty() => Some(Ok(sizes)),
            _ => failed(&format!("the disks were measured, but not as sizes: {said:?}")),
        },
        Some("Failed") if said.is_empty() => {
            failed("the disks could not be measured; the pod said nothing")
        }
        Some("Failed") => failed(said),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::source::Source;
    use crate::objects::vm::Facts;
    use serde_json::json;

    fn ended(phase: &str, message: &str) -> Pod {
        serde_json::from_value(json!({ "status": { "phase": phase, "containerStatuses": [{
            "name": "virt-v2v", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": { "terminated": { "exitCode": 0, "message": message } },
        }] } }))
        .unwrap()
    }

    #[test]
    fn sizes_are_lines() {
        assert_eq!(sizes(&ended("Succeeded", "10\n20\n")), Some(Ok(vec![10, 20])));
        assert_eq!(sizes(&ended("Running", "10\n")), None);
        for (phase, said) in
            [("Succeeded", "x"), ("Succeeded", ""), ("Failed", "no"), ("Failed", "")]
        {
            assert!(sizes(&ended(phase, said)).unwrap().is_err(), "{phase} {said}");
        }
    }

    fn wanted(image: &str, claim: &str, path: &str) -> Pod {
        let conversion = Conversion {
            origin: &crate::objects::origin(),
            attempt: 1,
            image,
            source: &Source::Disk { claim: claim.into(), paths: vec![], name: String::new() },
            secret: None,
            disks: &[],
            journal: None,
            vddk_image: None,
            kvm: false,
            resources: None,
            facts: &Facts::default(),
        };
        pod(&conversion, &[path.to_owned()])
    }

    #[test]
    fn a_pod_that_waits_says_why() {
        let wanted = wanted("v2v", "exports", "/source/a");
        let mut found = wanted.clone();
        let unscheduled = json!({ "phase": "Pending", "conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "persistentvolumeclaim \"exports\" not found",
        }] });
        found.status = Some(serde_json::from_value(unscheduled).unwrap());
        let Measured::Waits(why) = look(&found, &wanted, 0) else { panic!() };
        assert!(why.ends_with("persistentvolumeclaim \"exports\" not found"), "{why}");
    }

    #[test]
    fn a_pod_is_made_anew_for_other_words_or_after_a_failure() {
        let first = wanted("v2v", "exports", "/source/a");
        let mut found = first.clone();
        let mut status = ended("Succeeded", "10\n").status;
        found.status.clone_from(&status);
        assert_eq!(look(&found, &first, 0), Measured::Sizes(vec![10]));
        for other in [
            wanted("v2v", "exports", "/source/b"),
            wanted("v2v", "images", "/source/a"),
            wanted("v3v", "exports", "/source/a"),
        ] {
            assert_eq!(look(&found, &other, 0), Measured::Stale);
        }
        status.as_mut().unwrap().phase = Some("Failed".to_owned());
        found.status = status;
        let at = "2026-01-01T00:00:00Z";
        found.metadata.creation_timestamp = Some(serde_json::from_value(json!(at)).unwrap());
        let failed = found.metadata.creation_timestamp.as_ref().unwrap().0.as_second();
        assert!(matches!(look(&found, &first, failed + 59), Measured::Wrong(_)));
        assert_eq!(look(&found, &first, failed + 60), Measured::Stale);
    }
}

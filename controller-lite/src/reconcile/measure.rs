//! How large disk images on a volume are: a short pod that mounts the volume asks qemu-img, and
//! leaves the sizes as its termination message. Pure; the pod is run by `source`.

use super::failure::Failure;
use crate::objects::pod::{Conversion, ROLE_MEASURE};
use crate::objects::{LABEL_ROLE, Origin, name};
use k8s_openapi::api::core::v1::Pod;

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
    pod
}

/// What the pod said, once it has ended.
pub fn sizes(pod: &Pod) -> Option<Result<Vec<u64>, Failure>> {
    let status = pod.status.as_ref()?;
    let phase = status.phase.as_deref();
    let end = status
        .container_statuses
        .iter()
        .flatten()
        .find_map(|c| c.state.as_ref()?.terminated.as_ref());
    let said = end.and_then(|end| end.message.as_deref()).unwrap_or_default().trim();
    let failed = |message: &str| {
        let advice =
            "correct spec.vms[].paths in a new Plan, or the files on the Provider's volume";
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
}

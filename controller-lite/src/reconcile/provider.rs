//! What is said of a Provider: whether its VMs can be read, as far as the controller can tell without a pod.

use super::cluster::{self, Asked, find};
use super::conditions::{Said, condition, reason};
use super::failure::Failure;
use super::{Context, vsphere};
use crate::api::provider::{Provider, ProviderStatus, SourceKind};
use crate::objects::{GROUP, MANAGER};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// Until a Provider that is ready is looked at again; of a large vCenter that is a long list.
const READY: Duration = Duration::from_secs(600);
/// Until one that is not: a Secret that was corrected is seen by then. The same password is not tried so soon.
const NOT_READY: Duration = Duration::from_secs(30);

/// Names in a Secret for SSH, see `docs/contract.md`.
const KEYS: [&str; 6] =
    ["secretKey", "ssh-privatekey", "sshprivatekey", "id_ed25519", "id_ecdsa", "id_rsa"];
const KNOWN_HOSTS: [&str; 2] = ["known_hosts", "knownhosts"];

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    /// As a condition.
    is: Option<bool>,
    reason: String,
    message: String,
    /// Where a list of them can be had.
    vms: Option<u32>,
}

impl Finding {
    fn ready(reason: &str, message: String) -> Self {
        Self { is: Some(true), reason: reason.to_owned(), message, vms: None }
    }

    fn unknown(reason: &str, message: String) -> Self {
        Self { is: None, reason: reason.to_owned(), message, vms: None }
    }

    fn wrong(failure: &Failure) -> Self {
        let (reason, message) = (reason(&failure.class), failure.to_string());
        Self { is: Some(false), reason, message, vms: None }
    }
}

/// One look.
pub async fn reconcile(
    provider: Arc<Provider>,
    context: Arc<Context>,
) -> Result<Action, cluster::Error> {
    let (Some(namespace), name) = (provider.namespace(), provider.name_any()) else {
        return Ok(Action::await_change());
    };
    let providers = context.cluster.providers(&namespace);
    let found = find(&providers, &name, "Provider").await?;
    let Some(provider) = found.filter(|p| p.metadata.deletion_timestamp.is_none()) else {
        return Ok(Action::await_change());
    };
    let finding = match look(&context, &provider, &namespace).await {
        Ok(finding) => finding,
        Err(error) if error.is_forbidden() => {
            Finding::unknown("NotAdmitted", super::admission::advice(&namespace))
        }
        Err(error) => return Err(error),
    };
    let again = if finding.is == Some(true) { READY } else { NOT_READY };
    let status = status(&provider, finding, Timestamp::now());
    if provider.status.as_ref() != Some(&status) {
        let patch = json!({
            "apiVersion": format!("{GROUP}/v1alpha1"), "kind": "Provider",
            // As of a Plan: not onto one that was changed or made anew meanwhile, which is looked at again.
            "metadata": { "name": name, "resourceVersion": provider.resource_version() },
            "status": status,
        });
        let params = PatchParams::apply(MANAGER).force();
        providers
            .patch_status(&name, &params, &Patch::Apply(patch))
            .await
            .asked(format!("writing the status of Provider {namespace}/{name}"))?;
    }
    Ok(Action::requeue(again))
}

async fn look(
    context: &Context,
    provider: &Provider,
    namespace: &str,
) -> Result<Finding, cluster::Error> {
    Ok(match provider.spec.kind {
        SourceKind::Vsphere => match vsphere::survey(context, provider).await? {
            Ok(survey) => of_survey(&survey),
            Err(failure) => Finding::wrong(&failure),
        },
        SourceKind::Disk | SourceKind::Ova => {
            let name = provider.spec.source_volume.as_ref().map(|v| v.claim_name.as_str());
            let name = name.unwrap_or_default();
            let claim = find(&context.cluster.claims(namespace), name, "claim").await?;
            of_claim(name, claim.as_ref())
        }
        SourceKind::Xen => {
            let name = provider.spec.secret_ref.as_ref().map(|s| s.name.as_str());
            let name = name.unwrap_or_default();
            let secrets: Api<Secret> = Api::namespaced(context.cluster.client.clone(), namespace);
            of_secret(name, find(&secrets, name, "Secret").await?.as_ref())
        }
    })
}

fn of_survey(survey: &vsphere::Survey) -> Finding {
    let vsphere::Survey { product, vms, unreadable } = survey;
    let message = match unreadable {
        0 => format!("{product}: {vms} VMs"),
        n => format!(
            "{product}: {vms} VMs, and {n} more of which the user may not see enough; \
             `controller-lite inventory` says why"
        ),
    };
    Finding { vms: u32::try_from(*vms).ok(), ..Finding::ready("Answered", message) }
}

fn of_claim(name: &str, claim: Option<&PersistentVolumeClaim>) -> Finding {
    let Some(claim) = claim else {
        let message =
            format!("there is no PersistentVolumeClaim {name} in the Provider's namespace");
        let advice = "make it, or correct spec.sourceVolume";
        return Finding::wrong(&Failure::lasting("not-found", message, advice));
    };
    if claim.meta().deletion_timestamp.is_some() {
        let message = format!("PersistentVolumeClaim {name} is being deleted");
        return Finding::wrong(&Failure::lasting("volume", message, "correct spec.sourceVolume"));
    }
    match claim.status.as_ref().and_then(|s| s.phase.as_deref()) {
        Some("Bound") => {
            let message =
                format!("PersistentVolumeClaim {name} is bound; a Plan's pod looks into it");
            Finding::ready("Bound", message)
        }
        Some("Lost") => {
            let message = format!("PersistentVolumeClaim {name} has lost its volume");
            Finding::wrong(&Failure::lasting("volume", message, "correct spec.sourceVolume"))
        }
        _ => Finding::unknown(
            "NotBound",
            format!(
                "PersistentVolumeClaim {name} is not bound; where its class waits for a pod, the first Plan's pod binds it"
            ),
        ),
    }
}

fn of_secret(name: &str, secret: Option<&Secret>) -> Finding {
    let lacks = |message: String, advice: &str| {
        Finding::wrong(&Failure::lasting("config", message, advice))
    };
    let Some(secret) = secret else {
        let message = format!("there is no Secret {name} in the Provider's namespace");
        return lacks(
            message,
            "make it with known_hosts, and with secretKey (password) or ssh-privatekey",
        );
    };
    let has = |names: &[&str]| {
        let data = secret.data.iter().flatten();
        let mut filled = data.filter(|(_, bytes)| !bytes.0.trim_ascii().is_empty());
        filled.any(|(key, _)| names.contains(&key.as_str()))
    };
    if !has(&KEYS) {
        let message = format!("the Secret {name} has neither a password nor a private key");
        return lacks(
            message,
            "add secretKey (password) or ssh-privatekey (key without passphrase)",
        );
    }
    if !has(&KNOWN_HOSTS) {
        let message = format!("the Secret {name} has no known_hosts");
        return lacks(
            message,
            "add the host's keys, as ssh-keyscan prints them, once you have compared them",
        );
    }
    let message =
        format!("the Secret {name} has what a Plan's pod needs; the host is asked by that pod");
    Finding::ready("Configured", message)
}

fn status(provider: &Provider, finding: Finding, now: Timestamp) -> ProviderStatus {
    let old = provider.status.clone().unwrap_or_default();
    let generation = provider.metadata.generation;
    let Finding { is, reason, message, vms } = finding;
    let said = Said { of: "Ready", is, reason, message };
    ProviderStatus {
        conditions: vec![condition(&old.conditions, said, generation, now)],
        observed_generation: generation,
        vms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn said(finding: &Finding) -> (Option<bool>, &str) {
        (finding.is, &finding.reason)
    }

    #[test]
    fn a_claim_is_there_and_bound() {
        let claim = |meta: Value, phase: &str| -> PersistentVolumeClaim {
            serde_json::from_value(json!({ "metadata": meta, "status": { "phase": phase } }))
                .unwrap()
        };
        let of = |meta: Value, phase| of_claim("c", Some(&claim(meta, phase)));
        assert_eq!(said(&of_claim("c", None)), (Some(false), "NotFound"));
        assert_eq!(said(&of(json!({}), "Bound")), (Some(true), "Bound"));
        assert_eq!(said(&of(json!({}), "Pending")), (None, "NotBound"));
        assert_eq!(said(&of(json!({}), "Lost")), (Some(false), "Volume"));
        let leaving = json!({ "deletionTimestamp": "2026-01-01T00:00:00Z" });
        assert_eq!(said(&of(leaving, "Bound")), (Some(false), "Volume"));
    }

    #[test]
    fn a_secret_has_what_a_pod_needs() {
        let of = |keys: &[&str]| {
            // "x", in base64.
            let data: serde_json::Map<String, Value> =
                keys.iter().map(|key| ((*key).to_owned(), json!("eA=="))).collect();
            let secret = serde_json::from_value(json!({ "metadata": {}, "data": data })).unwrap();
            of_secret("xen1", Some(&secret))
        };
        assert_eq!(said(&of_secret("xen1", None)), (Some(false), "Config"));
        assert_eq!(said(&of(&["secretKey", "known_hosts"])), (Some(true), "Configured"));
        assert_eq!(said(&of(&["id_rsa", "knownhosts"])), (Some(true), "Configured"));
        assert!(of(&["secretKey"]).message.contains("no known_hosts"));
        assert!(of(&["accessKeyId", "known_hosts"]).message.contains("neither a password"));
        let empty =
            json!({ "metadata": {}, "data": { "secretKey": "Cg==", "known_hosts": "eA==" } });
        let empty: Secret = serde_json::from_value(empty).unwrap();
        assert_eq!(of_secret("xen1", Some(&empty)).is, Some(false));
    }

    #[test]
    fn a_list_that_is_not_whole_says_so() {
        let survey =
            |unreadable| vsphere::Survey { product: "vCenter 8".into(), vms: 3, unreadable };
        let whole = of_survey(&survey(0));
        assert_eq!(
            (whole.is, whole.vms, &*whole.message),
            (Some(true), Some(3), "vCenter 8: 3 VMs")
        );
        assert!(of_survey(&survey(2)).message.contains("2 more"));
    }

    #[test]
    fn the_status_is_about_the_spec_that_was_read() {
        let provider = |status: Value| -> Provider {
            serde_json::from_value(json!({
                "apiVersion": "conversion.v2v-pod.dev/v1alpha1", "kind": "Provider",
                "metadata": { "name": "x", "generation": 4 }, "spec": { "type": "disk" },
                "status": status,
            }))
            .unwrap()
        };
        let at = |second| Timestamp::from_second(second).unwrap();
        let ready = || Finding::ready("Bound", "x".into());
        let first = status(&provider(json!({})), ready(), at(1));
        assert_eq!(first.observed_generation, Some(4));
        let again = status(&provider(json!(first)), ready(), at(2));
        assert_eq!(again, first, "nothing to write");
        let wrong = Finding::wrong(&Failure::lasting("auth", "no", "look"));
        let wrong = status(&provider(json!(first)), wrong, at(3));
        let condition = &wrong.conditions[0];
        assert_eq!((&*condition.status, &*condition.reason), ("False", "Auth"));
        assert_eq!((&*condition.message, condition.last_transition_time.0), ("no; look", at(3)));
    }
}

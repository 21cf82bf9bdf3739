//! Plans that make VMs in another namespace. Whoever may make Plans here must not reach there through
//! the controller: neither run an image of theirs beside that namespace's volumes and Secrets, nor
//! name any of these that was not put there for them.

use super::cluster::{Cluster, Error, find};
use super::failure::Failure;
use crate::api::plan::Plan;
use crate::api::provider::Provider;
use crate::objects::Origin;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::ResourceExt;
use kube::api::Api;

/// On a namespace: from which others Plans may make VMs in it; names with commas, or `*`.
pub const ANNOTATION_ACCEPTS: &str = "conversion.v2v-pod.dev/accept-plans-from";
/// On a namespace: which images of VDDK sidecars pods of such Plans may run in it, with commas.
pub const ANNOTATION_VDDK: &str = "conversion.v2v-pod.dev/accept-vddk-images";
/// On a Secret: the other namespace whose Plans' pods may have it.
pub const LABEL_FOR: &str = "conversion.v2v-pod.dev/for-plans-from";

/// What stands in the way of every VM of a Plan that makes them in `target`.
pub async fn obstacle(
    cluster: &Cluster,
    plan: &Plan,
    target: &str,
    provider: &Provider,
) -> Result<Option<Failure>, Error> {
    if !plan.is_elsewhere() {
        return Ok(None);
    }
    let own = plan.namespace().unwrap_or_default();
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let found = find(&namespaces, target, "namespace").await?;
    Ok(not_accepted(found.as_ref(), target, &own)
        .or_else(|| foreign_hands(plan, provider))
        .or_else(|| foreign_library(found.as_ref(), target, provider)))
}

fn not_accepted(namespace: Option<&Namespace>, target: &str, own: &str) -> Option<Failure> {
    let accepts = namespace.and_then(|n| n.annotations().get(ANNOTATION_ACCEPTS));
    let accepts =
        accepts.is_some_and(|a| a.split(',').any(|name| [own, "*"].contains(&name.trim())));
    (!accepts).then(|| {
        let message = format!("namespace {target} takes no Plans from namespace {own}");
        let advice = format!(
            "annotate it with {ANNOTATION_ACCEPTS}={own}, or leave out spec.targetNamespace"
        );
        Failure::lasting("config", message, &advice)
    })
}

/// What the author of a Plan or a Provider may say in the own namespace alone.
fn foreign_hands(plan: &Plan, provider: &Provider) -> Option<Failure> {
    if plan.spec.image.is_some() {
        let message = "spec.image is not used in another namespace";
        let advice = "leave it out: the pods get the controller's image; or leave out \
                      spec.targetNamespace";
        return Some(Failure::lasting("config", message, advice));
    }
    provider.spec.source_volume.as_ref().map(|volume| {
        let message = format!(
            "the Provider's sourceVolume {} is in the Provider's namespace, and pods in another \
             one cannot mount it",
            volume.claim_name
        );
        let advice = "leave out spec.targetNamespace, or make Plan, Provider and volume there";
        Failure::lasting("config", message, advice)
    })
}

/// The sidecar's library is loaded beside the namespace's Secret.
fn foreign_library(
    namespace: Option<&Namespace>,
    target: &str,
    provider: &Provider,
) -> Option<Failure> {
    let image = provider.spec.vddk_image.as_deref()?;
    let accepts = namespace.and_then(|n| n.annotations().get(ANNOTATION_VDDK));
    let accepts = accepts.is_some_and(|a| a.split(',').any(|name| name.trim() == image));
    (!accepts).then(|| {
        let message = format!("namespace {target} does not take the Provider's vddkImage {image}");
        let advice = format!(
            "annotate it with {ANNOTATION_VDDK}={image}, or use a Provider without vddkImage, \
             which reads over HTTPS"
        );
        Failure::lasting("config", message, &advice)
    })
}

/// Whether the pod may have this Secret of the namespace it is made in.
pub async fn secret(
    cluster: &Cluster,
    origin: &Origin,
    name: &str,
) -> Result<Option<Failure>, Error> {
    if origin.namespace == origin.plan_namespace {
        return Ok(None);
    }
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), &origin.namespace);
    let found = find(&secrets, name, "Secret").await?;
    Ok(not_for_us(found.as_ref(), origin, name))
}

fn not_for_us(secret: Option<&Secret>, origin: &Origin, name: &str) -> Option<Failure> {
    let (own, target) = (&origin.plan_namespace, &origin.namespace);
    let label = format!("{LABEL_FOR}={own}");
    let Some(secret) = secret else {
        let message = format!("the pod needs the Secret {name} in namespace {target} as well");
        let advice = format!("copy it there, with the label {label}");
        return Some(Failure::lasting("config", message, &advice));
    };
    if secret.labels().get(LABEL_FOR) == Some(own) {
        return None;
    }
    let message =
        format!("the Secret {name} in namespace {target} is not for Plans of namespace {own}");
    let advice = format!("if it is meant: kubectl label secret {name} -n {target} {label}");
    Some(Failure::lasting("config", message, &advice))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects;
    use serde_json::{Value, json};

    fn plan(spec: &Value) -> Plan {
        let mut spec = spec.clone();
        spec["providerRef"] = json!({ "name": "x" });
        spec["vms"] = json!([{ "name": "web01" }]);
        serde_json::from_value(json!({
            "apiVersion": "conversion.v2v-pod.dev/v1alpha1", "kind": "Plan",
            "metadata": { "name": "p", "namespace": "lab", "uid": "u" }, "spec": spec,
        }))
        .unwrap()
    }

    fn provider(spec: &Value) -> Provider {
        serde_json::from_value(json!({
            "apiVersion": "conversion.v2v-pod.dev/v1alpha1", "kind": "Provider",
            "metadata": { "name": "x", "namespace": "lab" }, "spec": spec,
        }))
        .unwrap()
    }

    #[test]
    fn neither_image_nor_volume_of_the_author_goes_elsewhere() {
        let vsphere = provider(&json!({ "type": "vsphere" }));
        let files = provider(&json!({ "type": "disk", "sourceVolume": { "claimName": "data" } }));
        let there = json!({ "targetNamespace": "prod" });
        assert_eq!(foreign_hands(&plan(&there), &vsphere), None);
        let said = foreign_hands(&plan(&there), &files).unwrap().to_string();
        assert!(said.contains("sourceVolume data"), "{said}");
        let image = json!({ "targetNamespace": "prod", "image": "evil" });
        let said = foreign_hands(&plan(&image), &vsphere).unwrap().to_string();
        assert!(said.contains("spec.image is not used"), "{said}");
        // Whatever was refused when: a pod elsewhere never gets it.
        assert_eq!(plan(&image).image("default"), "default");
        assert_eq!(plan(&json!({ "image": "own" })).image("default"), "own");
        let here = json!({ "targetNamespace": "lab", "image": "own" });
        assert_eq!(plan(&here).image("default"), "own");
    }

    #[test]
    fn a_namespace_says_which_library_is_loaded_in_it() {
        let namespace = |images: &str| -> Namespace {
            let notes = json!({ ANNOTATION_ACCEPTS: "lab", ANNOTATION_VDDK: images });
            serde_json::from_value(json!({ "metadata": { "annotations": notes } })).unwrap()
        };
        let vddk = provider(&json!({ "type": "vsphere", "vddkImage": "vddk:8" }));
        let refused = |images: &str| foreign_library(Some(&namespace(images)), "prod", &vddk);
        assert_eq!(refused("vddk:7, vddk:8"), None);
        for images in ["", "vddk:8.0", "*"] {
            let said = refused(images).unwrap().to_string();
            assert!(said.contains("accept-vddk-images=vddk:8"), "{said}");
        }
        assert!(foreign_library(None, "prod", &vddk).is_some());
        assert_eq!(foreign_library(None, "prod", &provider(&json!({ "type": "vsphere" }))), None);
    }

    #[test]
    fn a_secret_says_for_whom_it_is() {
        let origin = Origin { namespace: "prod".to_owned(), ..objects::origin() };
        let secret = |labels: Value| -> Secret {
            serde_json::from_value(json!({ "metadata": { "labels": labels } })).unwrap()
        };
        let refused = |secret: Option<&Secret>| not_for_us(secret, &origin, "esx");
        assert_eq!(refused(Some(&secret(json!({ LABEL_FOR: "lab" })))), None);
        for labels in [json!({}), json!({ LABEL_FOR: "*" }), json!({ LABEL_FOR: "other" })] {
            let said = refused(Some(&secret(labels))).unwrap().to_string();
            assert!(said.ends_with(
                "kubectl label secret esx -n prod conversion.v2v-pod.dev/for-plans-from=lab"
            ));
        }
        assert!(refused(None).unwrap().to_string().contains("copy it there"));
    }

    #[test]
    fn a_namespace_says_whose_plans_it_takes() {
        let namespace = |accepts: &str| -> Namespace {
            let notes = json!({ ANNOTATION_ACCEPTS: accepts });
            serde_json::from_value(json!({ "metadata": { "annotations": notes } })).unwrap()
        };
        assert_eq!(not_accepted(Some(&namespace("a, lab")), "prod", "lab"), None);
        assert_eq!(not_accepted(Some(&namespace("*")), "prod", "lab"), None);
        assert!(not_accepted(Some(&namespace("labs")), "prod", "lab").is_some());
        assert!(not_accepted(None, "prod", "lab").is_some());
    }
}

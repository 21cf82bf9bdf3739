//! The API server: typed access, and what its answers mean.

use crate::api::plan::Plan;
use crate::api::provider::Provider;
use crate::objects::pod::KVM;
use crate::objects::{LABEL_PLAN_UID, MANAGER};
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod};
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, PostParams, Preconditions};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// The API server said no.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {}", said(.source))]
pub struct Error {
    /// What was asked for.
    pub what: String,
    /// Its answer.
    #[source]
    pub source: Box<kube::Error>,
}

impl Error {
    /// RBAC does not let the controller.
    pub fn is_forbidden(&self) -> bool {
        code(&self.source) == Some(403)
    }
}

/// The API server's own words, which name the field.
fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Names what was asked for.
pub trait Asked<T> {
    /// Names it.
    fn asked(self, what: impl Into<String>) -> Result<T, Error>;
}

impl<T> Asked<T> for Result<T, kube::Error> {
    fn asked(self, what: impl Into<String>) -> Result<T, Error> {
        self.map_err(|source| Error { what: what.into(), source: Box::new(source) })
    }
}

/// HTTP's code of a refusal.
fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// One cluster.
#[derive(Clone)]
pub struct Cluster {
    /// The connection.
    pub client: Client,
}

impl Cluster {
    /// Pods.
    pub fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Claims.
    pub fn claims(&self, namespace: &str) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Plans.
    pub fn plans(&self, namespace: &str) -> Api<Plan> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Providers.
    pub fn providers(&self, namespace: &str) -> Api<Provider> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Events.
    pub fn events(&self, namespace: &str) -> Api<Event> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// CDI's `DataVolumes`.
    pub fn data_volumes(&self, namespace: &str) -> Api<DynamicObject> {
        let gvk = GroupVersionKind::gvk("cdi.kubevirt.io", "v1beta1", "DataVolume");
        let resource = ApiResource::from_gvk_with_plural(&gvk, "datavolumes");
        Api::namespaced_with(self.client.clone(), namespace, &resource)
    }

    /// KubeVirt's `VirtualMachines`.
    pub fn machines(&self, namespace: &str) -> Api<DynamicObject> {
        let gvk = GroupVersionKind::gvk("kubevirt.io", "v1", "VirtualMachine");
        let resource = ApiResource::from_gvk_with_plural(&gvk, "virtualmachines");
        Api::namespaced_with(self.client.clone(), namespace, &resource)
    }

    /// Whether the cluster has this kind of object.
    pub async fn has(&self, group_version: &str, plural: &str) -> Result<bool, Error> {
        match self.client.list_api_group_resources(group_version).await {
            Ok(list) => Ok(list.resources.iter().any(|r| r.name == plural)),
            Err(error) if code(&error) == Some(404) => Ok(false),
            Err(error) => Err(error).asked(format!("asking for {group_version}")),
        }
    }

    /// Whether a node offers KVM. A controller that may not look at nodes takes it for no.
    pub async fn offers_kvm(&self) -> bool {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let Ok(nodes) = nodes.list(&ListParams::default()).await else { return false };
        nodes.iter().any(|node| {
            let offered = node.status.as_ref().and_then(|s| s.allocatable.as_ref());
            offered.and_then(|o| o.get(KVM)).is_some_and(|q| q.0 != "0")
        })
    }
}

/// The objects of a Plan, of one kind. None where the kind is not there.
pub async fn of_plan<K>(api: &Api<K>, uid: &str, what: &str) -> Result<Vec<K>, Error>
where
    K: Clone + DeserializeOwned + Debug,
{
    let of = ListParams::default().labels(&format!("{LABEL_PLAN_UID}={uid}"));
    match api.list(&of).await {
        Ok(list) => Ok(list.items),
        Err(error) if code(&error) == Some(404) => Ok(Vec::new()),
        Err(error) => Err(error).asked(format!("listing {what}")),
    }
}

/// All objects of a namespace, of one kind. None where the kind is not there.
pub async fn all<K>(api: &Api<K>, what: &str) -> Result<Vec<K>, Error>
where
    K: Clone + DeserializeOwned + Debug,
{
    match api.list(&ListParams::default()).await {
        Ok(list) => Ok(list.items),
        Err(error) if code(&error) == Some(404) => Ok(Vec::new()),
        Err(error) => Err(error).asked(format!("listing {what}")),
    }
}

/// An object by its name, where only lists may be asked for.
pub async fn named<K>(api: &Api<K>, name: &str, what: &str) -> Result<Option<K>, Error>
where
    K: Clone + DeserializeOwned + Debug,
{
    let of = ListParams::default().fields(&format!("metadata.name={name}"));
    let list = api.list(&of).await.asked(format!("looking for {what} {name}"))?;
    Ok(list.items.into_iter().next())
}

/// Makes an object unless there is one of that name. Whose that is, the next look says: an object
/// of somebody else is never written to.
pub async fn create<K>(api: &Api<K>, object: &K, what: &str) -> Result<(), Error>
where
    K: Clone + DeserializeOwned + Serialize + Debug + Resource,
{
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    match api.create(&params, object).await {
        Ok(_) => Ok(()),
        Err(error) if code(&error) == Some(409) => Ok(()),
        Err(error) => Err(error).asked(format!("making {what} {}", object.name_any())),
    }
}

/// Deletes exactly this object, not another one of its name.
pub async fn delete<K>(api: &Api<K>, object: &K, what: &str) -> Result<(), Error>
where
    K: Clone + DeserializeOwned + Debug + Resource,
{
    let name = object.name_any();
    let preconditions = Some(Preconditions { uid: object.uid(), resource_version: None });
    let params = DeleteParams { preconditions, ..DeleteParams::background() };
    match api.delete(&name, &params).await {
        Ok(_) => Ok(()),
        Err(error) if matches!(code(&error), Some(404 | 409)) => Ok(()),
        Err(error) => Err(error).asked(format!("deleting {what} {name}")),
    }
}

/// An object, if it and its kind are there.
pub async fn find<K>(api: &Api<K>, name: &str, what: &str) -> Result<Option<K>, Error>
where
    K: Clone + DeserializeOwned + Debug,
{
    match api.get(name).await {
        Ok(object) => Ok(Some(object)),
        // A kind that is not there is answered with another text than an object that is not.
        Err(error) if code(&error) == Some(404) => Ok(None),
        Err(error) => Err(error).asked(format!("reading {what} {name}")),
    }
}

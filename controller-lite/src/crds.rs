//! The CRDs of our kinds, as they are installed. Pure.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt as _;

use crate::api::{Plan, Provider};

/// Both CRDs.
pub fn all() -> Vec<CustomResourceDefinition> {
    let mut crds = vec![Provider::crd(), Plan::crd()];
    for version in crds.iter_mut().flat_map(|crd| &mut crd.spec.versions) {
        if let Some(schema) = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut()) {
            tidy(schema);
        }
    }
    crds
}

/// Both CRDs as YAML documents, for `kubectl apply`.
pub fn yaml() -> Result<String, serde_saphyr::ser::Error> {
    all()
        .iter()
        .try_fold(String::new(), |text, crd| Ok(text + "---\n" + &serde_saphyr::to_string(crd)?))
}

/// Kubernetes' syntax of a quantity (`4Gi`, `500m`).
const QUANTITY: &str =
    r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$";

/// What the derived schema says in a way that the API server does not know or that nobody wants:
/// unsigned formats (it warns about each; a minimum says the same), and null for what is optional
/// (a null is then dropped as if it were not there, so that no rule has to think of it). And what it
/// does not say: what a quantity is; nothing else here is a number or a string.
fn tidy(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    if schema.x_kubernetes_int_or_string == Some(true) {
        schema.pattern = Some(QUANTITY.to_owned());
    }
    if schema.format.as_deref().is_some_and(|format| format.starts_with("uint")) {
        schema.format = Some("int64".to_owned());
        schema.minimum = schema.minimum.or(Some(0.0));
    }
    for property in schema.properties.iter_mut().flat_map(|p| p.values_mut()) {
        tidy(property);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = schema.additional_properties.as_mut() {
        tidy(values);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = schema.items.as_mut() {
        tidy(items);
    }
}

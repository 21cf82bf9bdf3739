//! `controller-lite run`: waits to be the leader, then works until it is told to stop.

use super::cluster::Cluster;
use super::lease::Election;
use super::{Context, plan, provider};
use crate::api::plan::Plan;
use crate::api::provider::Provider;
use crate::objects::size::Overhead;
use crate::objects::{LABEL_PLAN, LABEL_PLAN_NAMESPACE, LABEL_PLAN_UID};
use crate::probes;
use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::controller::{Action, Config};
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::{Controller, PredicateConfig, WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Plans at once.
const PLANS: u16 = 4;
/// After an error of the API server.
const AFTER_ERROR: Duration = Duration::from_secs(5);

/// What the controller is started with. The cluster is the one of its service account, or of
/// `KUBECONFIG`.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Image of the conversion pods, unless a Plan names another one
    #[arg(long, value_name = "IMAGE", default_value = "localhost/v2v-pod:latest")]
    pub image: String,
    /// Look at the Plans of this namespace only; without it, at all
    #[arg(long, value_name = "NAMESPACE")]
    pub watch: Option<String>,
    /// Namespace of the Lease by which one of several controllers is chosen
    #[arg(long, value_name = "NAMESPACE", default_value = "v2v-pod")]
    pub lease_namespace: String,
    /// Name of that Lease
    #[arg(long, value_name = "NAME", default_value = "controller-lite")]
    pub lease_name: String,
    /// Name of this controller among them; default: host name and process
    #[arg(long, value_name = "NAME")]
    pub identity: Option<String>,
    /// Part of a filesystem volume that its file system takes, in percent (0 to 50); used where CDI is
    /// not installed
    #[arg(long, value_name = "PERCENT", default_value = "10", value_parser = overhead)]
    pub filesystem_overhead: Overhead,
    /// Port for the kubelet's probes, /healthz and /readyz; 0 is none
    #[arg(long, value_name = "PORT", default_value = "8081")]
    pub probes_port: u16,
    /// Seconds before a failed conversion is tried again; doubled with each further try, up to 600
    #[arg(long, value_name = "SECONDS", default_value = "30")]
    pub retry_delay: u64,
}

fn overhead(text: &str) -> Result<Overhead, String> {
    let percent = text.parse().map_err(|_| "not a whole number".to_owned())?;
    Overhead::from_percent(percent).ok_or_else(|| "more than half of the volume".to_owned())
}

/// Why the controller ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No cluster.
    #[error("no cluster: set KUBECONFIG, or run in a pod with a service account")]
    NoCluster(#[source] Box<kube::Error>),
    /// The kubelet could not ask.
    #[error(transparent)]
    Probes(#[from] probes::Error),
    /// The system.
    #[error("signals cannot be waited for")]
    Signals(#[source] std::io::Error),
    /// Another controller may be at work.
    #[error("the lease is lost; start again")]
    LeaseLost,
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(options: Options) -> Result<(), Error> {
    let client = Client::try_default().await.map_err(|e| Error::NoCluster(Box::new(e)))?;
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let process = std::process::id();
    let instance = options.identity.clone().unwrap_or_else(|| format!("{}-{process}", host.trim()));
    let mut term = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    let mut int = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
    let stop = async move {
        tokio::select! { _ = term.recv() => (), _ = int.recv() => () }
    };
    tokio::pin!(stop);
    let probes = probes::serve(probes::listen(options.probes_port).await?);
    tokio::pin!(probes);
    let namespace = &options.lease_namespace;
    let mut election = Election::new(client.clone(), namespace, &options.lease_name, &instance);
    tracing::info!(
        instance,
        lease = format!("{namespace}/{}", options.lease_name),
        "waits for the lease"
    );
    tokio::select! {
        () = election.win() => (),
        never = &mut probes => match never {},
        () = &mut stop => return Ok(()),
    }
    tracing::info!(instance, "leads");
    let context = Arc::new(Context {
        cluster: Cluster { client: client.clone() },
        instance,
        image: options.image.clone(),
        overhead: options.filesystem_overhead,
        inventories: super::vsphere::Inventories::default(),
        retry_delay_s: options.retry_delay,
    });
    // Whichever ends first ends the others: nothing is done without the lease.
    let result = tokio::select! {
        () = work(client, &options, context) => Ok(()),
        () = election.keep() => Err(Error::LeaseLost),
        never = &mut probes => match never {},
        () = &mut stop => Ok(()),
    };
    if result.is_ok()
        && let Err(error) = election.give_back().await
    {
        tracing::warn!(%error, "the lease could not be given back");
    }
    result
}

async fn work(client: Client, options: &Options, context: Arc<Context>) {
    let providers = look_at_providers(client.clone(), options, Arc::clone(&context));
    tokio::join!(work_on_plans(client, options, context), providers);
}

async fn look_at_providers(client: Client, options: &Options, context: Arc<Context>) {
    let providers: Api<Provider> = match &options.watch {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let (reader, writer) = reflector::store();
    let seen = watcher(providers, watcher::Config::default()).default_backoff().reflect(writer);
    let seen = seen
        .applied_objects()
        .predicate_filter(|p: &Provider| Some(asked(p)), PredicateConfig::default());
    Controller::for_stream(seen, reader)
        .with_config(Config::default().concurrency(PLANS))
        .run(provider::reconcile, |_, error, _| on_error(error), context)
        .for_each(async |result| {
            if let Err(error) = result {
                tracing::debug!(%error, "a look at a Provider failed");
            }
        })
        .await;
}

async fn work_on_plans(client: Client, options: &Options, context: Arc<Context>) {
    let plans: Api<Plan> = match &options.watch {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    // Pods may be in another namespace than their Plan.
    let pods: Api<Pod> = Api::all(client);
    let ours = watcher::Config::default().labels(LABEL_PLAN_UID);
    let (reader, writer) = reflector::store();
    let seen = watcher(plans, watcher::Config::default()).default_backoff().reflect(writer);
    let seen = seen
        .applied_objects()
        .predicate_filter(|plan: &Plan| Some(asked(plan)), PredicateConfig::default());
    Controller::for_stream(seen, reader)
        .watches(pods, ours, |pod| plan_of(&pod))
        .with_config(Config::default().concurrency(PLANS))
        .run(plan::reconcile, |_, error, _| on_error(error), context)
        .for_each(async |result| match result {
            Ok((plan, _)) => tracing::debug!(plan = plan.name, "a round is done"),
            Err(error) => tracing::debug!(%error, "a round failed"),
        })
        .await;
}

/// What people change of an object, and not its status, which is our own: a round that ended with writing
/// it would begin the next one at once.
fn asked<K: Resource>(object: &K) -> u64 {
    let meta = object.meta();
    let mut hasher = DefaultHasher::new();
    meta.generation.hash(&mut hasher);
    meta.deletion_timestamp.as_ref().map(|time| time.0).hash(&mut hasher);
    (&meta.finalizers, &meta.labels, &meta.annotations).hash(&mut hasher);
    hasher.finish()
}

fn plan_of(pod: &Pod) -> Option<ObjectRef<Plan>> {
    let label = |name: &str| pod.labels().get(name);
    Some(ObjectRef::new(label(LABEL_PLAN)?).within(label(LABEL_PLAN_NAMESPACE)?))
}

fn on_error(error: &super::cluster::Error) -> Action {
    tracing::warn!(%error, "a round failed");
    Action::requeue(AFTER_ERROR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn its_own_status_is_no_reason_for_a_round() {
        let of = |part: &str, value: Value| {
            let mut plan = json!({
                "apiVersion": "conversion.v2v-pod.dev/v1alpha1", "kind": "Plan",
                "metadata": { "name": "wave", "generation": 1, "resourceVersion": "1" },
                "spec": { "providerRef": { "name": "p" }, "vms": [] },
                "status": { "message": "a" },
            });
            *plan.pointer_mut(part).unwrap() = value;
            asked::<Plan>(&serde_json::from_value(plan).unwrap())
        };
        let before = of("/status/message", json!("a"));
        assert_eq!(of("/status/message", json!("b")), before);
        let meta = |key: &str, value: Value| {
            let mut meta = json!({ "name": "wave", "generation": 1, "resourceVersion": "2" });
            meta[key] = value;
            of("/metadata", meta)
        };
        assert_eq!(meta("resourceVersion", json!("3")), before);
        for (key, value) in [
            ("generation", json!(2)),
            ("deletionTimestamp", json!("2026-01-01T00:00:00Z")),
            ("finalizers", json!(["a/b"])),
            ("labels", json!({ "a": "b" })),
            ("annotations", json!({ "look": "again" })),
        ] {
            assert_ne!(meta(key, value), before, "{key}");
        }
    }
}

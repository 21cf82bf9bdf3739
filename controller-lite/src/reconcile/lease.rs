//! Leader election by a Lease: of several controllers one works, the others wait.
//!
//! Own code, because the known crates for it are built on earlier versions of kube. A holder is
//! taken for dead when its Lease has not changed for its duration by our own clock, so that clocks
//! of nodes need not agree. Whoever cannot renew in time stops working at once.

use super::cluster::{Asked, Error, find};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// How long a Lease holds without being renewed.
const DURATION: Duration = Duration::from_secs(15);
/// The holder stops before the others may take over.
const HOLD: Duration = Duration::from_secs(12);
/// How often it is renewed.
const RENEW: Duration = Duration::from_secs(4);

/// A place in the election.
pub struct Election {
    leases: Api<Lease>,
    name: String,
    me: String,
    /// The Lease as it was last seen to change, and when.
    seen: Option<(Option<String>, Instant)>,
}

impl Election {
    /// A place in it, under a name that nobody else has.
    pub fn new(client: Client, namespace: &str, name: &str, me: &str) -> Self {
        let leases = Api::namespaced(client, namespace);
        Self { leases, name: name.to_owned(), me: me.to_owned(), seen: None }
    }

    /// Waits until it is won.
    pub async fn win(&mut self) {
        loop {
            match self.attempt().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "the lease could not be asked for"),
            }
            sleep(RENEW / 2).await;
        }
    }

    /// Keeps it; returns when it is lost.
    pub async fn keep(&mut self) {
        let mut held = Instant::now();
        while held.elapsed() < HOLD {
            sleep(RENEW).await;
            let left = HOLD.saturating_sub(held.elapsed());
            // Counted from before the request, since it may have been written at any time after.
            let asked = Instant::now();
            match timeout(left, self.attempt()).await {
                Ok(Ok(true)) => held = asked,
                Ok(Ok(false)) => return,
                Ok(Err(error)) => tracing::warn!(%error, "the lease could not be renewed"),
                Err(_) => tracing::warn!("the lease could not be renewed in time"),
            }
        }
    }

    /// Gives it back, so that nobody has to wait.
    pub async fn give_back(&self) -> Result<(), Error> {
        let lease = find(&self.leases, &self.name, "lease").await?;
        let Some(mut lease) = lease.filter(|l| holder(l) == Some(&self.me)) else { return Ok(()) };
        lease.spec.get_or_insert_default().holder_identity = None;
        self.write(&lease).await.map(|_| ())
    }

    /// Takes or renews it if that may be; whether it is ours now.
    async fn attempt(&mut self) -> Result<bool, Error> {
        let now = MicroTime(Timestamp::now());
        let Some(mut lease) = find(&self.leases, &self.name, "lease").await? else {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.spec(None, &now)) };
            return ours(self.leases.create(&PostParams::default(), &lease).await, "making");
        };
        let version = lease.resource_version();
        let since = match &self.seen {
            Some((seen, since)) if *seen == version => *since,
            _ => Instant::now(),
        };
        self.seen = Some((version, since));
        let other = holder(&lease).is_some_and(|holder| holder != &self.me);
        if other && since.elapsed() < DURATION {
            return Ok(false);
        }
        lease.spec = Some(self.spec(lease.spec.as_ref(), &now));
        self.write(&lease).await
    }

    fn spec(&self, before: Option<&LeaseSpec>, now: &MicroTime) -> LeaseSpec {
        let mine = before.filter(|b| b.holder_identity.as_ref() == Some(&self.me));
        let changes = before.and_then(|b| b.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: mine.and_then(|m| m.acquire_time.clone()).or_else(|| Some(now.clone())),
            renew_time: Some(now.clone()),
            lease_transitions: Some(if mine.is_some() {
                changes
            } else {
                changes.saturating_add(1)
            }),
            ..LeaseSpec::default()
        }
    }

    /// Writes it unless somebody else was quicker: its version goes with it.
    async fn write(&self, lease: &Lease) -> Result<bool, Error> {
        ours(self.leases.replace(&self.name, &PostParams::default(), lease).await, "writing")
    }
}

/// A conflict means that somebody else was quicker; what else goes wrong is an error.
fn ours(written: Result<Lease, kube::Error>, what: &str) -> Result<bool, Error> {
    match written {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error).asked(format!("{what} the lease")),
    }
}

fn holder(lease: &Lease) -> Option<&String> {
    lease.spec.as_ref()?.holder_identity.as_ref().filter(|holder| !holder.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    #[test]
    fn only_a_conflict_is_no_error() {
        let refused = |code| {
            let status = Status { code, ..Status::failure("no", "why") };
            ours(Err(kube::Error::Api(Box::new(status))), "making")
        };
        assert!(!refused(409).unwrap());
        assert!(refused(403).unwrap_err().to_string().starts_with("making the lease"));
        assert!(ours(Ok(Lease::default()), "making").unwrap());
    }
}

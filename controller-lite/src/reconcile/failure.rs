//! Why a pod failed, and whether another try may help. Pure.

use crate::objects::pod::CONTAINER;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod, PodStatus};
use serde::Deserialize;
use std::fmt;

/// Classes of the pod's contract that another try may not meet again. What v2v-pod itself calls
/// passing is tried again whatever its class.
const PASSING: [&str; 7] =
    ["network", "io", "memory", "appliance", "terminated", "interrupted", "internal"];

/// Why something failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// A word of the contract's table, or `evicted`, `lost`, `result`.
    pub class: String,
    /// What happened.
    pub message: String,
    /// What to do.
    pub advice: Option<String>,
    /// Whether the same may succeed later.
    pub may_pass: bool,
    /// When, in seconds since 1970.
    pub at: i64,
}

impl Failure {
    /// One that may not happen again.
    pub fn passing(class: &str, message: &str, at: i64) -> Self {
        Self {
            class: class.to_owned(),
            message: message.to_owned(),
            advice: None,
            may_pass: true,
            at,
        }
    }

    /// One that stays until somebody does something.
    pub fn lasting(class: &str, message: impl Into<String>, advice: &str) -> Self {
        Self {
            class: class.to_owned(),
            message: message.into(),
            advice: Some(advice.to_owned()),
            may_pass: false,
            at: 0,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.advice {
            Some(advice) => write!(f, "; {advice}"),
            None => Ok(()),
        }
    }
}

/// The pod's termination message.
#[derive(Deserialize)]
struct Said {
    class: String,
    message: String,
    #[serde(default)]
    advice: Option<String>,
    #[serde(default)]
    passing: bool,
}

/// Why a pod in phase `Failed` failed. `now` stands for a time that nobody wrote down.
pub fn of_pod(pod: &Pod, now: i64) -> Failure {
    let empty = PodStatus::default();
    let status = pod.status.as_ref().unwrap_or(&empty);
    let ended = |of: &Option<Vec<_>>, name: Option<&str>| -> Option<ContainerStateTerminated> {
        let mut all = of.iter().flatten();
        let of = |c: &k8s_openapi::api::core::v1::ContainerStatus| {
            let wanted = name.is_none_or(|n| c.name == n);
            let terminated = c.state.as_ref().and_then(|s| s.terminated.clone());
            terminated.filter(|t| wanted && t.exit_code != 0)
        };
        all.find_map(of)
    };
    if let Some(end) = ended(&status.container_statuses, Some(CONTAINER)) {
        return of_container(&end, status, now);
    }
    if let Some(end) = ended(&status.init_container_statuses, None) {
        let words = end.message.as_deref().map_or("", str::trim);
        let message = format!("VDDK was not installed (exit code {}): {words}", end.exit_code);
        let mut failure =
            Failure::passing("vddk", message.trim_end_matches([':', ' ']), at(&end, now));
        failure.advice = Some(
            "look at the log of the container `vddk`, and at the Provider's vddkImage".to_owned(),
        );
        return failure;
    }
    of_nobody(status, now)
}

/// The node or the cluster ended it.
fn of_nobody(status: &PodStatus, now: i64) -> Failure {
    let reason = status.reason.as_deref().unwrap_or("it was not said why");
    let message = status.message.as_deref().unwrap_or("no container ended by itself");
    let class = if reason == "Evicted" { "evicted" } else { "lost" };
    let since = status.conditions.iter().flatten().filter_map(|c| c.last_transition_time.as_ref());
    // The same failure must have the same time whenever it is looked at.
    let at = since.map(|time| time.0.as_second()).max();
    let begun = status.start_time.as_ref().map(|time| time.0.as_second());
    Failure::passing(class, &format!("{reason}: {message}"), at.or(begun).unwrap_or(now))
}

fn of_container(end: &ContainerStateTerminated, status: &PodStatus, now: i64) -> Failure {
    let at = at(end, now);
    let said = end.message.as_deref().and_then(|m| serde_json::from_str::<Said>(m.trim()).ok());
    if let Some(said) = said {
        let may_pass = said.passing || PASSING.contains(&said.class.as_str());
        let Said { class, message, advice, .. } = said;
        return Failure { class, message, advice, may_pass, at };
    }
    let code = end.exit_code;
    if status.reason.as_deref() == Some("Evicted") {
        return Failure { at, ..of_nobody(status, now) };
    }
    if end.reason.as_deref() == Some("OOMKilled") || code == 137 {
        let mut failure =
            Failure::passing("memory", &format!("the pod was killed (exit code {code})"), at);
        failure.advice = Some("raise the memory limit in the Plan's resources".to_owned());
        return failure;
    }
    let reason = end.reason.as_deref().unwrap_or("Error");
    let message = format!("the pod ended with exit code {code} ({reason}) without a message");
    let mut failure = Failure::passing("lost", &message, at);
    failure.advice = Some("look at its log".to_owned());
    failure
}

fn at(end: &ContainerStateTerminated, now: i64) -> i64 {
    end.finished_at.as_ref().map_or(now, |time| time.0.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn failed(terminated: &Value) -> Failure {
        let status = json!({ "phase": "Failed", "containerStatuses": [{
            "name": "virt-v2v", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": { "terminated": terminated },
        }] });
        of_pod(&serde_json::from_value(json!({ "status": status })).unwrap(), 7)
    }

    #[test]
    fn the_termination_message_decides() {
        let end = |message: &str| json!({ "exitCode": 21, "message": message, "finishedAt": "2026-11-01T00:00:10Z" });
        let auth = failed(&end(
            r#"{"class":"auth","exit_code":21,"message":"no","advice":"look","passing":false}"#,
        ));
        assert_eq!((auth.class.as_str(), auth.may_pass, auth.at), ("auth", false, 1_793_491_210));
        assert_eq!(auth.to_string(), "no; look");
        let nfc = failed(&end(r#"{"class":"vddk","message":"no memory","passing":true}"#));
        assert!(nfc.may_pass);
        let network = failed(&end(r#"{"class":"network","message":"gone","passing":false}"#));
        assert!(network.may_pass);
    }

    #[test]
    fn who_was_killed_has_no_message() {
        let killed = failed(&json!({ "exitCode": 137, "reason": "OOMKilled" }));
        assert_eq!((killed.class.as_str(), killed.may_pass, killed.at), ("memory", true, 7));
        assert_eq!(failed(&json!({ "exitCode": 1, "message": "{" })).class, "lost");
    }

    #[test]
    fn eviction_and_the_sidecar() {
        let of = |status: Value| {
            of_pod(&serde_json::from_value(json!({ "status": status })).unwrap(), 7)
        };
        let evicted =
            of(json!({ "phase": "Failed", "reason": "Evicted", "message": "disk pressure" }));
        assert_eq!((evicted.class.as_str(), evicted.may_pass), ("evicted", true));
        let vddk = of(json!({ "phase": "Failed", "initContainerStatuses": [{
            "name": "vddk", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": { "terminated": { "exitCode": 3, "message": "no room" } },
        }] }));
        assert_eq!(vddk.class, "vddk");
        assert!(vddk.message.contains("no room"), "{vddk}");
        assert_eq!(of(json!({})).class, "lost");
    }

    proptest! {
        #[test]
        fn any_message_is_taken(message in "\\PC{0,200}", code in 1_i32..=255) {
            let failure = failed(&json!({ "exitCode": code, "message": message }));
            prop_assert!(!failure.class.is_empty());
        }
    }
}

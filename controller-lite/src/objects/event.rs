//! Events that tell the story of a VM (events.k8s.io/v1).
//!
//! An event's name follows from what it says, so telling the same thing twice is one event,
//! whoever was killed in between.

use super::{GROUP, MANAGER, Origin, name};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;

/// The longest note that the API takes.
const NOTE_MAX: usize = 1024;

/// What happened to a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// A word for programs, such as `ConversionFailed`.
    pub reason: &'static str,
    /// A sentence for people.
    pub note: String,
    /// Whether somebody should look at it.
    pub warning: bool,
    /// In which try it happened; the same reason in another one is another event.
    pub attempt: u32,
}

/// The event, about the Plan and in its namespace.
pub fn event(origin: &Origin, told: &Told, now: Timestamp, instance: &str) -> Event {
    let identity =
        format!("{}/{}/{}/{}/{}", origin.plan_uid, origin.vm, told.reason, told.attempt, told.note);
    let mut note = format!("{}: {}", origin.vm, told.note);
    if note.len() > NOTE_MAX {
        let end = (0..=NOTE_MAX - 3).rev().find(|at| note.is_char_boundary(*at)).unwrap_or(0);
        note.truncate(end);
        note.push('…');
    }
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{}", origin.pod_name(), name::digest(&identity, 16))),
            namespace: Some(origin.plan_namespace.clone()),
            ..ObjectMeta::default()
        },
        regarding: Some(ObjectReference {
            api_version: Some(format!("{GROUP}/v1alpha1")),
            kind: Some("Plan".to_owned()),
            name: Some(origin.plan.clone()),
            namespace: Some(origin.plan_namespace.clone()),
            uid: Some(origin.plan_uid.clone()),
            ..ObjectReference::default()
        }),
        action: Some("Convert".to_owned()),
        reason: Some(told.reason.to_owned()),
        note: Some(note),
        type_: Some(if told.warning { "Warning" } else { "Normal" }.to_owned()),
        event_time: Some(MicroTime(now)),
        reporting_controller: Some(format!("{GROUP}/{MANAGER}")),
        reporting_instance: Some(instance.chars().take(128).collect()),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::origin;
    use super::*;

    fn told(note: &str, attempt: u32) -> Told {
        Told { reason: "ConversionFailed", note: note.to_owned(), warning: true, attempt }
    }

    #[test]
    fn the_same_thing_is_one_event_whenever_it_is_told() {
        let name = |told: &Told, at| {
            let now = Timestamp::from_second(at).unwrap();
            event(&origin(), told, now, "a").metadata.name
        };
        assert_eq!(name(&told("x", 1), 1), name(&told("x", 1), 2));
        assert_ne!(name(&told("x", 1), 1), name(&told("x", 2), 1));
    }

    #[test]
    fn a_long_note_is_cut_at_a_character() {
        let note = event(&origin(), &told(&"ü".repeat(2000), 1), Timestamp::UNIX_EPOCH, "a").note;
        let note = note.unwrap();
        assert!(note.len() <= NOTE_MAX && note.ends_with("ü…"), "{}", note.len());
    }
}

//! The live page: one HTML file, the state as JSON, and the state as Server-Sent Events.
//!
//! Read-only and without secrets: what the page shows is in the pod's log as well. Each client
//! takes the newest state whenever it has room for one, so a slow client misses states instead of
//! making anybody wait.

use super::{http, totals};
use crate::bus::{self, Bus};
use crate::event::{Phase, Snapshot, UnixMs};
use axum::Router;
use axum::extract::State;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, RETRY_AFTER,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderName, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_stream::Stream;

/// How many event streams are served at once; each costs a socket and a few renderings a second.
pub const MAX_STREAMS: usize = 32;

/// Shortest time between two states on one stream: at most four a second.
const MIN_INTERVAL: Duration = Duration::from_millis(250);

/// A comment is sent on a stream that was silent this long, so that proxies keep it open.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// At the end, streams have this long to take the final state; longer than [`MIN_INTERVAL`].
const GRACE: Duration = Duration::from_secs(1);

const PAGE: &str = include_str!("live.html");

/// The page is one file and talks to this server only. Names and messages come from the guest;
/// the policy is the second line of defence after `textContent`.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// On every answer: nothing is cached, nothing is guessed, nothing is told to other sites.
const HEADERS: [(HeaderName, &str); 3] = [
    (CACHE_CONTROL, "no-store"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
];

/// Serves the page until `cancel` resolves; cancel it after the final state was emitted.
pub async fn serve(
    listener: TcpListener,
    bus: Bus,
    cancel: impl Future<Output = ()>,
) -> io::Result<()> {
    http::serve(listener, router(bus, KEEP_ALIVE), cancel, GRACE).await
}

fn router(bus: Bus, keep_alive: Duration) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/state", get(state))
        .route("/events", get(events))
        .with_state(Shared { bus, places: Arc::new(Semaphore::new(MAX_STREAMS)), keep_alive })
}

/// The state as the page reads it: the snapshot, and what follows from it and the time.
pub fn state_json(snapshot: &Snapshot, now: UnixMs) -> String {
    let durations = totals::phase_durations_ms(snapshot, now)
        .into_iter()
        .map(|(phase, ms)| PhaseDuration { phase, ms })
        .collect();
    let seconds_left = snapshot.disks.iter().map(crate::event::DiskState::seconds_left).collect();
    let state = LiveState {
        version: env!("CARGO_PKG_VERSION"),
        now_ms: now,
        phase: snapshot.phase(),
        elapsed_ms: totals::elapsed_ms(snapshot, now),
        durations,
        seconds_left,
        total: totals::total(&snapshot.disks),
        snapshot,
    };
    // Every part is a plain struct with string keys: this cannot fail.
    serde_json::to_string(&state).unwrap_or_default()
}

#[derive(Serialize)]
struct LiveState<'a> {
    version: &'static str,
    now_ms: UnixMs,
    phase: Option<Phase>,
    elapsed_ms: u64,
    durations: Vec<PhaseDuration>,
    /// By disk index, beside `disks`.
    seconds_left: Vec<Option<u64>>,
    total: totals::Total,
    #[serde(flatten)]
    snapshot: &'a Snapshot,
}

#[derive(Serialize)]
struct PhaseDuration {
    phase: Phase,
    ms: u64,
}

#[derive(Clone)]
struct Shared {
    bus: Bus,
    places: Arc<Semaphore>,
    keep_alive: Duration,
}

#[allow(clippy::unused_async)] // axum's handlers are async
async fn page() -> Response {
    let headers = [(CONTENT_TYPE, "text/html; charset=utf-8"), (CONTENT_SECURITY_POLICY, POLICY)];
    (HEADERS, headers, PAGE).into_response()
}

#[allow(clippy::unused_async)] // axum's handlers are async
async fn state(State(shared): State<Shared>) -> Response {
    let json = state_json(&shared.bus.snapshot(), bus::now_ms());
    (HEADERS, [(CONTENT_TYPE, "application/json")], json).into_response()
}

#[allow(clippy::unused_async)] // axum's handlers are async
async fn events(State(shared): State<Shared>) -> Response {
    let Ok(place) = shared.places.try_acquire_owned() else {
        let text = format!("{MAX_STREAMS} viewers are connected already; /state still answers\n");
        return (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "5")], text).into_response();
    };
    let feed = Feed {
        changes: shared.bus.subscribe(),
        bus: shared.bus,
        not_before: None,
        ended: false,
        _place: place,
    };
    let keep_alive = KeepAlive::new().interval(shared.keep_alive).text("keep-alive");
    (HEADERS, Sse::new(States(Box::pin(feed.next()))).keep_alive(keep_alive)).into_response()
}

/// What one event stream needs to know between two states.
struct Feed {
    bus: Bus,
    changes: watch::Receiver<u64>,
    /// When the next state may be sent; `None` before the first.
    not_before: Option<Instant>,
    ended: bool,
    _place: OwnedSemaphorePermit,
}

impl Feed {
    /// The next state that this client should see; `None` after the final one.
    async fn next(mut self) -> Option<(Event, Feed)> {
        if self.ended {
            return None;
        }
        if let Some(not_before) = self.not_before {
            tokio::time::sleep_until(not_before).await;
            self.changes.changed().await.ok()?;
        }
        // Seen before it is read: a change in between is sent once more, never lost.
        self.changes.mark_unchanged();
        let snapshot = self.bus.snapshot();
        self.ended = snapshot.exit_code.is_some();
        self.not_before = Some(Instant::now() + MIN_INTERVAL);
        Some((Event::default().data(state_json(&snapshot, bus::now_ms())), self))
    }
}

/// The future that makes the next event and the feed after it.
type NextState = Pin<Box<dyn Future<Output = Option<(Event, Feed)>> + Send>>;

/// A [`Feed`] as a stream. It is polled when the client's socket has room: nothing is queued.
struct States(NextState);

impl Stream for States {
    type Item = Result<Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll(context).map(|next| {
            let (event, feed) = next?;
            self.0 = Box::pin(feed.next());
            Some(Ok(event))
        })
    }
}

#[cfg(test)]
#[path = "live_tests.rs"]
mod tests;

//! The result server on port 8080: what Forklift's controller fetches when the run is complete.
//!
//! Started only then, and stopped by the controller's `/shutdown`. Paths, status codes, content
//! types and bodies are those of Forklift's own server (`pkg/virt-v2v/server/server.go`), which
//! looks at the path only: every method is answered alike.

use super::http;
use crate::event::Warning;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Notify;

/// How long open connections may take to end after `/shutdown` or a cancel.
const GRACE: Duration = Duration::from_secs(2);

/// How much of a body sent to `/shutdown` is read, and for how long.
const DRAIN_BYTES: usize = 64 * 1024;
const DRAIN: Duration = Duration::from_millis(500);

/// What the run has to offer.
#[derive(Debug, Clone)]
pub struct ResultFiles {
    /// The VM's YAML that virt-v2v wrote; read at each request.
    pub yaml: Option<PathBuf>,
    /// The guest was converted in place: no YAML is no error then.
    pub in_place: bool,
    /// What virt-v2v-inspector wrote; read at each request.
    pub inspection: PathBuf,
    /// Warnings for the plan's conditions.
    pub warnings: Vec<Warning>,
}

/// Why the server stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutdownCause {
    /// The controller asked for it and has been answered.
    Requested,
    /// The caller cancelled it.
    Cancelled,
}

#[derive(Clone)]
struct Shared {
    files: Arc<ResultFiles>,
    shutdown: Arc<Notify>,
}

/// Serves the result until `/shutdown` has been answered, or `cancel` resolves.
///
/// The answer to `/shutdown` is on its way to the peer when this returns, so the process may exit
/// at once. Errors: those of the listening socket.
pub async fn serve(
    listener: TcpListener,
    files: ResultFiles,
    cancel: impl Future<Output = ()>,
) -> io::Result<ShutdownCause> {
    let shutdown = Arc::new(Notify::new());
    let router = Router::new()
        .route("/vm", any(vm))
        .route("/inspection", any(inspection))
        .route("/warnings", any(warnings))
        .route("/shutdown", any(shut_down))
        .fallback(not_found)
        .with_state(Shared { files: Arc::new(files), shutdown: shutdown.clone() });
    let mut cause = ShutdownCause::Cancelled;
    let stop = async {
        tokio::select! {
            () = shutdown.notified() => cause = ShutdownCause::Requested,
            () = cancel => {}
        }
    };
    http::serve(listener, router, stop, GRACE).await?;
    Ok(cause)
}

async fn vm(State(shared): State<Shared>) -> Response {
    let Some(path) = &shared.files.yaml else {
        if shared.files.in_place {
            return StatusCode::NO_CONTENT.into_response();
        }
        return failure("YAML file path is empty");
    };
    match tokio::fs::read(path).await {
        Ok(yaml) => typed(StatusCode::OK, "text/yaml", yaml),
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "cannot read the result's YAML");
            failure("Error reading YAML file")
        }
    }
}

async fn inspection(State(shared): State<Shared>) -> Response {
    let path = &shared.files.inspection;
    match tokio::fs::read(path).await {
        Ok(xml) => typed(StatusCode::OK, "application/xml", xml),
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "cannot read the inspection");
            failure(&format!("open {}: {error}", path.display()))
        }
    }
}

#[allow(clippy::unused_async)] // axum's handlers are async
async fn warnings(State(shared): State<Shared>) -> Response {
    let warnings = &shared.files.warnings;
    if warnings.is_empty() {
        return typed(StatusCode::NO_CONTENT, "application/json", Body::empty());
    }
    match serde_json::to_vec(warnings) {
        Ok(json) => typed(StatusCode::OK, "application/json", json),
        Err(_) => failure("Error marshaling warnings"),
    }
}

async fn shut_down(State(shared): State<Shared>, request: Request) -> Response {
    // Closing a socket with unread data resets it, and a reset can overtake the answer: read what
    // the peer sent first. Whether that succeeds makes no difference.
    let _ = tokio::time::timeout(DRAIN, to_bytes(request.into_body(), DRAIN_BYTES)).await;
    tracing::info!("the controller has fetched the result and asks for the shutdown");
    // The permit is kept until the server's loop looks at it, and the graceful stop that follows
    // waits for this answer.
    shared.shutdown.notify_one();
    StatusCode::NO_CONTENT.into_response()
}

#[allow(clippy::unused_async)] // axum's handlers are async
async fn not_found() -> Response {
    error(StatusCode::NOT_FOUND, "404 page not found")
}

fn failure(message: &str) -> Response {
    error(StatusCode::INTERNAL_SERVER_ERROR, message)
}

/// As Go's `http.Error`: plain text with a line end.
fn error(status: StatusCode, message: &str) -> Response {
    let headers =
        [(CONTENT_TYPE, "text/plain; charset=utf-8"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (status, headers, format!("{message}\n")).into_response()
}

fn typed(status: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response {
    (status, [(CONTENT_TYPE, content_type)], body.into()).into_response()
}

#[cfg(test)]
#[path = "result_tests.rs"]
mod tests;

//! What shows a run to the outside: metrics, the result server, the live page, the terminal.
//!
//! Every sink reads [`Snapshot`](crate::event::Snapshot)s from the [`Bus`](crate::bus::Bus) when it
//! is ready, or the finished result's files; none can slow the run down, and none changes it.
//! Listeners are bound by the caller, so that a taken port is a failure of the run's start and not
//! of a background task.

mod http;
pub mod human;
pub mod live;
pub mod metrics;
pub mod plain;
pub mod result;
pub mod terminal;
pub mod totals;

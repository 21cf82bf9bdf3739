//! Moves disk images: quickly, in bounded memory, resumably, and never calling done what is not durable.
//!
//! It knows sources and targets (files, block devices, NBD servers) and nothing of virt-v2v or pods.
//! [`engine::copy_disk`] copies one disk; whoever calls it opens the places, runs several disks, and
//! shows the [`progress`].

pub mod buffer;
mod chunk;
pub mod engine;
pub mod error;
pub mod extent;
mod hashes;
pub mod journal;
mod ledger;
pub mod nbd;
pub mod place;
pub mod plan;
pub mod progress;
pub mod ranges;
pub mod rate;
pub mod retry;
pub mod source;
pub mod stream;
mod sys;
pub mod target;
pub mod units;
mod verify;

pub use error::CopyError;

/// An error and its causes in one line.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        let more = e.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = e.source();
    }
    text
}

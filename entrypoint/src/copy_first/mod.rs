//! Copying the disks before they are converted: several at once with the data path's engine, each with a journal that
//! outlives the pod, so that a later try goes on where this one was stopped.
//!
//! A journal is believed only for the content that it was written for ([`identity`]), and it is there only as long as the
//! volumes hold that content: whoever changes them removes the journals first ([`journals`]).

pub mod identity;
pub mod journals;
pub mod listener;
pub mod transfer;
pub mod volume;

//! `VixDiskLib`'s C interface, as far as nbdkit and the prober use it.

pub mod api;
mod callback;
pub mod error;
pub mod types;

/// The functions that nbdkit's plugin needs, without their common prefix `VixDiskLib_`.
/// Source: nbdkit 1.45.1, plugins/vddk/vddk-stubs.h.
pub const SYMBOLS: [&str; 23] = [
    "InitEx",
    "Exit",
    "ListTransportModes",
    "GetErrorText",
    "FreeErrorText",
    "FreeConnectParams",
    "ConnectEx",
    "Open",
    "GetTransportMode",
    "Close",
    "Disconnect",
    "GetInfo",
    "FreeInfo",
    "Read",
    "Write",
    "Create",
    "Flush",
    "ReadAsync",
    "WriteAsync",
    "Wait",
    "QueryAllocatedBlocks",
    "FreeBlockList",
    "AllocateConnectParams",
];

/// Prefix of every function's name.
pub const PREFIX: &str = "VixDiskLib_";

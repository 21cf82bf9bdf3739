//! Whether the server is the one that is meant: by a CA, by a thumbprint, or unasked.

pub mod endpoint;
pub mod fingerprint;
pub mod moment;

pub use endpoint::{Endpoint, EndpointError};
pub use fingerprint::{Fingerprint, FingerprintError};

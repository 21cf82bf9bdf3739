//! What is to be run: typed requests, turned into the argument lists of virt-v2v,
//! virt-v2v-in-place and virt-v2v-inspector, and the features those tools say they have.
//!
//! Pure: no I/O, no async. The entrypoint and the controller build the requests; nothing here
//! decides *whether* something is run. The order of the options is the one Forklift's pod uses, so
//! that two logs can be laid side by side.

mod features;
mod names;
mod request;

pub use features::{Features, HelpAnswer};
pub use names::{disk_link_name, drive_name, rfc1123, sanitize_slash};
pub use request::{
    Common, Convert, InPlace, InPlaceInput, Input, Inspect, Keys, LibvirtInput, Output, OutputMode,
    RemoteInspect, Vddk,
};

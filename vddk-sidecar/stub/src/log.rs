//! Lines to the callbacks the client gave to `InitEx`.

#![allow(unsafe_code)] // calls C function pointers

use crate::abi::{LogFn, VaList};
use crate::codes::{
    HOST_CONNECTION_LOST, NETWORK_CONN_REFUSED, OUT_OF_MEMORY, TCP_CONN_LOST, VixError, text,
};
use std::ffi::CString;

/// The client's three callbacks; each may be missing.
#[derive(Clone, Copy, Default)]
pub struct Log {
    pub info: Option<LogFn>,
    pub warn: Option<LogFn>,
    pub panic: Option<LogFn>,
}

impl Log {
    /// A line of the library's log.
    pub fn info(&self, line: &str) {
        send(self.info, line);
    }

    /// A line that nbdkit shows as an error.
    pub fn warn(&self, line: &str) {
        send(self.warn, line);
    }

    /// A line for what makes the library unusable.
    pub fn panic(&self, line: &str) {
        send(self.panic, line);
    }

    /// What VDDK logs about its connection to the ESXi host when that is the reason for `error`.
    pub fn nfc(&self, error: VixError, bytes: u64, server: Option<&str>) {
        match error {
            // The server's buffer has a header of 24 bytes before the data.
            OUT_OF_MEMORY => self.warn(&format!(
                "[NFC ERROR] NfcFssrvrProcessErrorMsg: received NFC error 5 from server: Failed to allocate the requested \
                 {} bytes",
                bytes + 24
            )),
            NETWORK_CONN_REFUSED => {
                let server = server.unwrap_or("server");
                self.info(&format!("CnxOpenTCPSocket: Cannot connect to server {server}:902: Connection refused"));
                self.warn(&format!(
                    "[NFC ERROR]NfcNewAuthdConnectionEx: Failed to connect: Failed to connect to server {server}:902"
                ));
                self.info("VixDiskLib: Detected DiskLib error 2338 (NBD_ERR_NETWORK_CONNECT).");
            }
            TCP_CONN_LOST | HOST_CONNECTION_LOST => {
                self.warn("[NFC ERROR]NfcNetTcpWrite: bWritten: -1");
                self.warn("[NFC ERROR]NfcNet_Send: requested 264, sent only -1 bytes");
            }
            _ => {}
        }
    }

    /// The two lines VDDK ends a failed open with. The numbers at the end are lines of its source, from a log of 8.0.
    pub fn cannot_open(&self, path: &str, error: VixError) {
        let text = text(error);
        self.info(&format!(
            "VixDiskLib: VixDiskLib_OpenEx: Cannot open disk {path}. Error {error} ({text}) at 7426."
        ));
        self.info(&format!(
            "VixDiskLib: VixDiskLib_Open: Cannot open disk {path}. Error {error} ({text}) at 7504."
        ));
    }
}

fn send(function: Option<LogFn>, line: &str) {
    let Some(function) = function else { return };
    // The callback gets a format: what looks like a directive in a name must not be one.
    let mut format: Vec<u8> = line.replace('%', "%%").into_bytes();
    format.retain(|&byte| byte != 0);
    format.push(b'\n');
    let Ok(format) = CString::new(format) else { return };
    let mut args = VaList::empty();
    // SAFETY: the client gave this function for this purpose; both pointers outlive the call, and no directive in the
    // format reads from the empty list.
    unsafe { function(format.as_ptr(), &raw mut args) };
}

//! VIX error codes: what they mean here, whether they pass, and what to do. Pure.

use super::types::VixError;
use serde::Serialize;

/// Whether trying again may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Nature {
    /// It may pass.
    Passing,
    /// It will not pass by itself.
    Fatal,
    /// Nobody knows.
    Unknown,
}

/// What kind of remedy is needed; coarser than the codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The ESXi host has no memory for more or larger requests.
    HostMemory,
    /// The server or the network between.
    Network,
    /// The name of the server does not resolve.
    Name,
    /// User name or password.
    Auth,
    /// A privilege or a licence.
    Permission,
    /// The disk or VM is in use.
    Busy,
    /// VM, disk or snapshot does not exist.
    NotFound,
    /// An encrypted disk.
    Encrypted,
    /// The disk itself is damaged, or reading it failed.
    Disk,
    /// What was asked for does not exist in this library.
    Unsupported,
    /// All others.
    Other,
}

/// One code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// The number.
    pub code: u16,
    /// The name in VMware's header, without `VIX_E_`.
    pub name: &'static str,
    /// Whether it passes.
    pub nature: Nature,
    /// What kind of thing it is.
    pub kind: Kind,
    /// What an operator can do.
    pub remedy: &'static str,
}

/// The code in a result.
pub fn code_of(error: VixError) -> u16 {
    (error & 0xffff) as u16
}

/// What is known about a code.
pub fn lookup(code: u16) -> Option<&'static Code> {
    CODES.iter().find(|c| c.code == code)
}

/// The codes named in a line of VDDK's or nbdkit's, such as
/// `Error 13 (You do not have access rights to this file) at 4818.`
pub fn in_line(line: &str) -> Option<&'static Code> {
    let mut rest = line;
    while let Some(at) = rest.find("rror ") {
        rest = rest.get(at + 5..)?;
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        let after = rest.get(digits.len()..)?;
        let bracket =
            after.trim_start_matches([' ', ':']).starts_with('(') || after.starts_with(':');
        if let (true, Some(code)) = (bracket, digits.parse().ok().and_then(lookup)) {
            return Some(code);
        }
    }
    None
}

/// The code whose text, as the library gives it, ends an error line of nbdkit
/// (`nbdkit: vddk[1]: error: VixDiskLib_Open: [ds] a.vmdk: You do not have access rights to this file`).
pub fn by_text(line: &str) -> Option<&'static Code> {
    let lower = line.to_lowercase();
    TEXTS.iter().find(|(text, _)| lower.contains(text)).and_then(|(_, code)| lookup(*code))
}

use Kind::{
    Auth, Busy, Disk, Encrypted, HostMemory, Name, Network, NotFound, Other, Permission,
    Unsupported,
};
use Nature::{Fatal, Passing, Unknown};

const fn code(
    code: u16,
    name: &'static str,
    nature: Nature,
    kind: Kind,
    remedy: &'static str,
) -> Code {
    Code { code, name, nature, kind, remedy }
}

const NFC_MEMORY: &str = "the ESXi host has no NFC memory left: copy fewer disks of this host at a time, or raise maxMemory of nfcsvc in its hostd configuration";
const PORT_902: &str = "check that the pod reaches TCP port 902 of the ESXi host that runs the VM, and 443 of the server";
const RIGHTS: &str = "power the VM off, or open a snapshot of it; else give the user the privileges for virtual disk access";
const LOGIN: &str = "check user name and password in the secret";
const PASSWORD_OR_ROLE: &str = "a wrong user name or password ends like this: check the secret; if they are right, give the user a role with VirtualMachine.Provisioning.GetVmFiles (Allow disk access) and Global.DisableMethods and EnableMethods on the VM";
const VM: &str = "check the VM's reference (moref) and that the user may see it";
const SNAPSHOT: &str =
    "check the snapshot's reference, or make the disk dependent (not independent)";
const INDEPENDENT: &str = "independent disks cannot be read through a snapshot: make the disk dependent, or convert over HTTPS with the VM powered off";
const AGAIN: &str = "nothing if it passes; otherwise see the server's log";
const BUG: &str = "report this with the log of the run (VDDK was called wrongly)";

/// Numbers and names: VMware's header; grouping: ours. See docs/operations.md.
#[rustfmt::skip] // a table
pub const CODES: &[Code] = &[
    code(1, "FAIL", Unknown, Other, "VDDK gives no reason; the usual ones are a wrong thumbprint, an independent disk, or a version of VDDK that does not fit the server's"),
    code(2, "OUT_OF_MEMORY", Passing, HostMemory, NFC_MEMORY),
    code(3, "INVALID_ARG", Fatal, Other, BUG),
    code(4, "FILE_NOT_FOUND", Fatal, NotFound, "check the disk's path and that the datastore is mounted on the host"),
    code(5, "OBJECT_IS_BUSY", Passing, Busy, AGAIN),
    code(6, "NOT_SUPPORTED", Fatal, Unsupported, "use a version of VDDK that fits the server's, or convert over HTTPS"),
    code(7, "FILE_ERROR", Unknown, Disk, "see the ESXi host's log for the datastore"),
    code(8, "DISK_FULL", Fatal, Disk, "free space on the datastore"),
    code(11, "FILE_READ_ONLY", Fatal, Disk, BUG),
    code(13, "FILE_ACCESS_ERROR", Fatal, Busy, RIGHTS),
    code(15, "FILE_ALREADY_LOCKED", Fatal, Busy, "power the VM off, end what has locked the disk (a backup?), or open a snapshot"),
    code(23, "ALREADY_EXISTS", Fatal, Other, BUG),
    code(26, "HOST_NOT_CONNECTED", Passing, Network, "check that the ESXi host is connected to its vCenter"),
    code(31, "OPERATION_ALREADY_IN_PROGRESS", Passing, Busy, AGAIN),
    code(35, "AUTHENTICATION_FAIL", Fatal, Auth, LOGIN),
    code(36, "HOST_CONNECTION_LOST", Passing, Network, PORT_902),
    code(1000, "INVALID_HANDLE", Fatal, Other, BUG),
    code(3014, "HOST_USER_PERMISSIONS", Fatal, Permission, PASSWORD_OR_ROLE),
    code(3015, "GUEST_USER_PERMISSIONS", Fatal, Auth, LOGIN),
    code(4000, "VM_NOT_FOUND", Fatal, NotFound, VM),
    code(13003, "SNAPSHOT_NOTFOUND", Fatal, NotFound, SNAPSHOT),
    code(13016, "SNAPSHOT_INDEPENDENTDISK", Fatal, Unsupported, INDEPENDENT),
    code(14003, "HOST_DISK_INVALID_VALUE", Fatal, Other, BUG),
    code(14004, "HOST_DISK_SECTORSIZE", Fatal, Other, BUG),
    code(14005, "HOST_FILE_ERROR_EOF", Fatal, Disk, "the disk is shorter than its description says: check it with vmkfstools -x check"),
    code(14006, "HOST_NETBLKDEV_HANDSHAKE", Passing, Network, "check the versions of VDDK and ESXi, and what stands between (a proxy?)"),
    code(14007, "HOST_SOCKET_CREATION_ERROR", Passing, Network, PORT_902),
    code(14008, "HOST_SERVER_NOT_FOUND", Fatal, Name, "the name of the vCenter or of the ESXi host does not resolve in the pod: give the cluster's DNS both names"),
    code(14009, "HOST_NETWORK_CONN_REFUSED", Passing, Network, PORT_902),
    code(14010, "HOST_TCP_SOCKET_ERROR", Passing, Network, PORT_902),
    code(14011, "HOST_TCP_CONN_LOST", Passing, Network, PORT_902),
    code(14014, "HOST_SERVER_SHUTDOWN", Passing, Network, "the ESXi host is shutting down: wait until it is back"),
    code(14015, "HOST_SERVER_NOT_AVAILABLE", Passing, Network, "the ESXi host does not answer: check its state"),
    code(16000, "DISK_INVAL", Fatal, Disk, "the disk is damaged or of a kind VDDK does not know"),
    code(16001, "DISK_NOINIT", Fatal, Other, BUG),
    code(16002, "DISK_NOIO", Unknown, Disk, "see the ESXi host's log for the datastore"),
    code(16003, "DISK_PARTIALCHAIN", Fatal, Disk, "a file of the disk's snapshot chain is missing: consolidate the VM's disks"),
    code(16006, "DISK_NEEDSREPAIR", Fatal, Disk, "repair the disk with vmkfstools -x repair"),
    code(16007, "DISK_OUTOFRANGE", Fatal, Disk, BUG),
    code(16008, "DISK_CID_MISMATCH", Fatal, Disk, "the snapshot chain does not fit together: consolidate the VM's disks"),
    code(16014, "DISK_NEEDKEY", Fatal, Encrypted, "the disk is encrypted by vSphere: decrypt the VM first"),
    code(16052, "DISK_KEY_NOTFOUND", Fatal, Encrypted, "the disk is encrypted by vSphere: decrypt the VM first"),
    code(16053, "DISK_SUBSYSTEM_INIT_FAIL", Fatal, Unsupported, "a plugin of VDDK could not be loaded: is the tree complete? (v2v-pod vddk probe)"),
    code(16054, "DISK_INVALID_CONNECTION", Passing, Network, "the session has ended; a new connection is made"),
    code(16063, "DISK_INVALIDDISK", Fatal, Disk, "the disk is damaged or of a kind VDDK does not know"),
    code(16064, "DISK_NOLICENSE", Fatal, Permission, "the ESXi host's licence does not allow the storage APIs (free ESXi): convert over HTTPS"),
    code(16065, "DISK_NODEVICE", Fatal, NotFound, "check the disk's path and that the datastore is mounted on the host"),
    code(16067, "DISK_CAPACITY_MISMATCH", Fatal, Disk, "the snapshot chain does not fit together: consolidate the VM's disks"),
    code(18000, "CANNOT_CONNECT_TO_HOST", Passing, Network, "check that the server is up and that the pod reaches its port 443"),
    code(18002, "INVALID_HOSTNAME", Fatal, Name, "check the server's name in the URL"),
];

/// What the library says for a code, in lower case; the precise ones first.
#[rustfmt::skip] // a table
const TEXTS: &[(&str, u16)] = &[
    ("failed to allocate the requested", 2),
    ("memory allocation failed. out of memory", 2),
    ("one of the parameters was invalid", 3),
    ("a file was not found", 4),
    ("the handle is executing another function", 5),
    ("a file access error occurred on the host", 7),
    ("the disk is full. data has not been saved", 8),
    ("the file is write-protected", 11),
    ("you do not have access rights to this file", 13),
    ("the file is already in use", 15),
    ("unable to connect to the host", 26),
    ("authentication for encrypted virtual machine failed", 35),
    ("the connection to the host was lost", 36),
    ("not a valid vix object", 1000),
    ("insufficient permissions in the host operating system", 3014),
    ("insufficient permissions in host operating system", 3014),
    ("insufficient permissions in guest operating system", 3015),
    ("incorrect user name or password", 3014),
    ("the virtual machine cannot be found", 4000),
    ("the snapshot does not exist", 13003),
    ("virtual machines with independent disks", 13016),
    ("read beyond the end of file", 14005),
    ("error in protocol", 14006),
    ("unable to create a socket", 14007),
    ("the specified server could not be contacted", 14008),
    ("the server refused connection", 14009),
    ("there was an error in communication", 14010),
    ("a tcp socket error", 14010),
    ("tcp connection lost", 14011),
    ("the connection was lost", 14011),
    ("the server is shutting down", 14014),
    ("the server is not available", 14015),
    ("has not been initialized", 16001),
    ("the specified virtual disk needs repair", 16006),
    ("area of the virtual disk that is out of bounds", 16007),
    ("required keys were not provided", 16014),
    ("key is not found in the disk database", 16052),
    ("required subsystems failed to initialize", 16053),
    ("invalid connection handle", 16054),
    ("the specified file is not a virtual disk", 16063),
    ("the host is not licensed for this feature", 16064),
    ("the device does not exist", 16065),
    ("cannot connect to the host", 18000),
    ("cannot connect to host", 18000),
    ("malformed hostname parameter", 18002),
    ("the operation is not supported", 6),
    ("the operation is already in progress", 31),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_found_in_lines() {
        let line = "VixDiskLib: VixDiskLib_OpenEx: Cannot open disk [ds] a.vmdk. Error 13 (You do not have access rights to this file) at 1234.";
        assert_eq!(in_line(line).unwrap().code, 13);
        assert_eq!(in_line("Error 18000: cannot").unwrap().code, 18000);
        assert_eq!(in_line("Error 1 (Unknown error) then Error 2 (x)").unwrap().code, 1);
        for no in
            ["Error 99 (x)", "rror ", "Error", "Error 13", "NFC error 5 from server", "error: 13"]
        {
            assert_eq!(in_line(no), None, "{no}");
        }
    }

    #[test]
    fn texts_lead_to_codes() {
        let line = "nbdkit: vddk[2]: error: VixDiskLib_Open: [ds] x.vmdk: You do not have access rights to this file";
        assert_eq!(by_text(line).unwrap().kind, Kind::Busy);
        let nfc = "nbdkit: debug: VixDiskLib: NfcFssrvrProcessErrorMsg: received NFC error 5 from server: Failed to allocate the requested 24117272 bytes";
        assert_eq!(by_text(nfc).unwrap().kind, Kind::HostMemory);
        assert_eq!(by_text("all is well"), None);
    }

    #[test]
    fn the_table_is_sorted_and_complete() {
        assert!(CODES.windows(2).all(|w| w[0].code < w[1].code));
        assert!(
            TEXTS
                .iter()
                .all(|(text, code)| lookup(*code).is_some() && *text == text.to_lowercase())
        );
        let passing = [2, 5, 26, 36, 14009, 14010, 14011, 14014, 14015, 18000];
        assert!(passing.iter().all(|c| lookup(*c).unwrap().nature == Nature::Passing));
        let fatal = [3, 6, 13, 35, 3014, 4000, 13003, 13016, 14008, 16064];
        assert!(fatal.iter().all(|c| lookup(*c).unwrap().nature == Nature::Fatal));
    }
}

//! Error codes of the VIX family and their texts, as VDDK's own documentation lists them (doc/errors/errors.html of
//! 6.7; 14014 and 14015 are newer and their texts are a guess). VDDK's logs show the texts without the full stop.

/// What every function of the library returns. The code is in the lower 16 bits.
pub type VixError = u64;
/// A result whose error is a code from this module.
pub type Result<T> = std::result::Result<T, VixError>;

/// Success.
pub const OK: VixError = 0;
/// The one code for everything VDDK has no other for.
pub const FAIL: VixError = 1;
/// Out of memory: in practice, the NFC server's.
pub const OUT_OF_MEMORY: VixError = 2;
/// A bad argument.
pub const INVALID_ARG: VixError = 3;
/// No such disk.
pub const FILE_NOT_FOUND: VixError = 4;
/// Two threads inside what admits one.
pub const OBJECT_IS_BUSY: VixError = 5;
/// Not supported.
pub const NOT_SUPPORTED: VixError = 6;
/// Input or output failed.
pub const FILE_ERROR: VixError = 7;
/// A write to a disk that was opened for reading.
pub const FILE_READ_ONLY: VixError = 11;
/// No right to open: among others, the disk of a running VM without a snapshot.
pub const FILE_ACCESS_ERROR: VixError = 13;
/// A name that is no name of a disk.
pub const FILE_NAME_INVALID: VixError = 22;
/// The server is gone.
pub const HOST_CONNECTION_LOST: VixError = 36;
/// Not a handle of this library.
pub const INVALID_HANDLE: VixError = 1000;
/// No rights: also what a wrong password gives.
pub const HOST_USER_PERMISSIONS: VixError = 3014;
/// No such VM.
pub const VM_NOT_FOUND: VixError = 4000;
/// No such snapshot.
pub const SNAPSHOT_NOTFOUND: VixError = 13003;
/// The NFC port refuses.
pub const NETWORK_CONN_REFUSED: VixError = 14009;
/// The NFC connection broke.
pub const TCP_CONN_LOST: VixError = 14011;
/// A call before `InitEx`.
pub const NOINIT: VixError = 16001;
/// Beyond the end of the disk.
pub const OUTOFRANGE: VixError = 16007;
/// Not a connection of this library.
pub const INVALID_CONNECTION: VixError = 16054;
/// An asynchronous call was accepted: its success.
pub const ASYNC: VixError = 25000;
/// `Read` and `ReadAsync` on one handle.
pub const ASYNC_MIXEDMODE: VixError = 26000;

/// The text of a code; upper bits are ignored.
pub fn text(error: VixError) -> &'static str {
    match error & 0xFFFF {
        0 => "The operation was successful",
        2 => "Memory allocation failed. Out of memory",
        3 => "One of the parameters was invalid",
        4 => "A file was not found",
        5 => "This function cannot be performed because the handle is executing another function",
        6 => "The operation is not supported",
        7 => "A file access error occurred on the host or guest operating system",
        8 => {
            "An error occurred while writing a file; the disk is full. Data has not been saved. Free some disk space and \
             try again"
        }
        10 => "The operation was canceled",
        11 => "The file is write-protected",
        12 => "The file already exists",
        13 => "You do not have access rights to this file",
        15 => "The file is already in use",
        22 => "The file name is not valid",
        23 => "Already exists",
        26 => "Unable to connect to the host",
        31 => "The operation is already in progress",
        32 => "This operation is not supported with the current license",
        35 => "Authentication for encrypted virtual machine failed",
        36 => "The connection to the host was lost",
        1000 => "The handle is not a valid VIX object",
        3014 => "Insufficient permissions in the host operating system",
        4000 => "The virtual machine cannot be found",
        13003 => "The snapshot does not exist",
        13016 => "Cannot take snapshots of powered on virtual machines with independent disks",
        14003 => "The specified device is not a valid physical disk device",
        14004 => "The disk sector size check failed",
        14005 => "Read beyond the end of file",
        14006 => "Error in protocol",
        14007 => "Unable to create a socket",
        14008 => "The specified server could not be contacted",
        14009 => "The server refused connection",
        14010 => "There was an error in communication",
        14011 => "The connection was lost",
        14014 => "The server is shutting down",
        14015 => "The server is not available",
        16000 => "One of the parameters supplied is invalid",
        16001 => "The disk library has not been initialized",
        16002 => "The called function requires the virtual disk to be opened for I/O",
        16003 => {
            "The called function cannot be performed on partial chains. Open the parent virtual disk"
        }
        16006 => "The specified virtual disk needs repair",
        16007 => "You have requested access to an area of the virtual disk that is out of bounds",
        16014 => "One or more required keys were not provided",
        16052 => "The specified key is not found in the disk database",
        16053 => "One or more required subsystems failed to initialize",
        16054 => "Invalid connection handle",
        16063 => "The specified file is not a virtual disk",
        16064 => "The host is not licensed for this feature",
        16065 => "The device does not exist",
        16067 => "The parent virtual disk's capacity is not the same as child's capacity",
        18000 => "Cannot connect to the host",
        18002 => {
            "Malformed hostname parameter. For the given service provider, the hostname must be a URL in the form \
             https://<hostname>:<port>/sdk"
        }
        26000 => "Synchronous and asynchronous I/O on the same disk handle is not allowed",
        _ => "Unknown error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_found_by_the_lower_bits() {
        assert_eq!(text(FILE_ACCESS_ERROR), "You do not have access rights to this file");
        assert_eq!(
            text(0xABCD_0000_0000_0000 | NETWORK_CONN_REFUSED),
            "The server refused connection"
        );
        assert_eq!(text(FAIL), "Unknown error");
        assert_eq!(text(9999), "Unknown error");
    }
}

//! The texts by which failures are told apart; see [`crate::classify`].

use crate::failure::Class;

/// One rule: a class, and texts of which one must be in the (lower-case) line.
pub type Rule = (Class, &'static [&'static str]);

/// The first rule that matches wins, so the precise ones stand before the general ones.
#[rustfmt::skip] // a table
pub const RULES: &[Rule] = &[
    (Class::Auth, &[
        "incorrect username or password", "incorrect user name or password",
        "cannot complete login", "authentication failed", "login failed",
        "response code said error: 401", "error: 401", "permission denied (",
        "all possible authentication methods failed", "sftp server: permission denied",
        "permission denied, please try again", "invalid user name or password",
        "wrong password",
    ]),
    (Class::Trust, &[
        "thumbprint", "ssl certificate problem", "certificate verify failed",
        "self-signed certificate", "self signed certificate",
        "certificate cannot be authenticated", "host key verification failed",
        "host key for server", "host key is unknown",
        "certificate has expired", "no alternative certificate subject name",
        "does not match target host name", "certificate subject name", "ssl peer certificate",
        "server verification failed", "certificate signer not trusted",
    ]),
    (Class::Integrity, &["corrupt ova", "does not match manifest"]),
    (Class::NoSpace, &[
        "no space left on device", "insufficient free space in the conversion server",
        "disk quota exceeded", "tmpdir is low on space",
    ]),
    (Class::Volume, &["destination size", "is smaller than source size"]),
    (Class::SourceBusy, &[
        "powered on", "is running or paused", "guest is running", "domain is running",
        "must be shut down", "is another process using the image",
        "failed to get \"write\" lock", "failed to get shared \"write\" lock",
        "you do not have access rights to this file", "object is locked",
        "being used by another process",
    ]),
    (Class::NoBootLoader, &[
        "no bootloader detected", "no bootloader", "no boot loader", "bootloader could not",
        "grub2 configuration file was found", "grub configuration", "no grub",
    ]),
    (Class::NoOperatingSystem, &[
        "no root device found", "no operating system",
        "inspection could not detect the source guest",
        "virt-v2v did not find any operating system",
    ]),
    (Class::Encrypted, &[
        "could not find key to open luks", "luks", "bitlocker", "clevis", "encrypted",
    ]),
    (Class::GuestFilesystem, &[
        "hibernated", "fast startup", "unsafe state", "inconsistent state", "wrong fs type",
        "structure needs cleaning", "mounted read-only",
        "not enough free space for conversion on filesystem", "not enough available inodes",
        "file system is damaged", "filesystem is corrupt", "metadata corruption",
        "superblock",
    ]),
    (Class::UnsupportedGuest, &[
        "unable to convert this guest type", "conversion of this guest type",
        "is not supported", "unsupported guest", "no installed kernels", "no kernels",
        "no installed kernel", "multi-boot operating systems", "unknown guest",
    ]),
    (Class::Vddk, &["libvixdisklib"]),
    (Class::Appliance, &["could not create appliance", "guestfs_launch"]),
    (Class::Network, &[
        "could not resolve host", "couldn't resolve host", "unable to resolve address",
        "name or service not known", "temporary failure in name resolution",
        "connection refused", "no route to host", "network is unreachable", "timed out",
        "timeout was reached", "connection reset by peer", "could not connect",
        "couldn't connect", "failed to connect to", "unable to connect to server",
        "broken pipe", "socket error", "failed to connect to remote host", "nbd_clientopen", "ssl connect error", "handshake failed",
        "non-properly terminated", "transferred a partial file",
    ]),
    (Class::NotFound, &[
        "domain not found", "no domain with matching", "could not find datacenter",
        "could not find compute resource", "could not find host system", "could not find '",
        "could not find \"", "404 not found", "error: 404", "url not found",
        "failed to get domain", "sftp server: no such file", "no such file or directory", "does not exist",
        "cannot find the path", "file not found", "http response code 404",
    ]),
    (Class::Memory, &[
        "out of memory", "cannot allocate memory", "failed to allocate the requested",
    ]),
    (Class::Vddk, &[
        "vixdisklib", "libvixdisklib", "nbdkit: vddk", "nbdkit vddk plugin", "vddk library",
        "vddk libdir", "vddk",
    ]),
    (Class::Appliance, &[
        "guestfs_launch failed", "guestfs_launch", "supermin", "appliance", "passt exited",
        "qemu-system", "qemu exited", "kernel panic", "could not create appliance",
    ]),
    (Class::Tool, &[
        "unrecognized option", "unrecognised option", "unknown option", "command not found",
        "not installed or not available",
    ]),
    (Class::Config, &[
        "does not specify a host system", "does not specify a compute resource",
        "path has to specify the datacenter", "ends with an excess item",
        "to be a vcenter/vpx host but found", "to be an esx(i) host but found",
        "output guest name", "rfc1123", "rfc 1123", "'-on name'", "use ‘-on’",
        "invalid argument of", "is not a valid", "unknown filter",
    ]),
    (Class::Io, &[
        "input/output error", "read failed", "write failed", "read error", "write error",
        "nbd_pread", "bad sector", "device or resource busy",
    ]),
];

/// Messages of virt-v2v that name no cause; the helpers' errors are then asked.
pub const GENERIC: [&str; 8] = [
    "nbdkit did not start up",
    "exited with non-zero",
    "nbdcopy exited",
    "nbdcopy command failed",
    "see earlier error messages",
    "external command",
    "libguestfs error: guestfs_launch",
    "qemu-nbd did not start up",
];

/// Errors of nbdkit that say no more than that its client has gone: a consequence of the failure,
/// printed after its cause, or before it, as the threads go (nbdkit server/protocol.c). Threads
/// also cut each other's lines, so that what stands before these words may be missing.
pub const ECHOES: [&str; 6] = [
    "write reply: ",
    "write data: ",
    "write error data: ",
    "write error reply: ",
    "read request: ",
    "read data: ",
];

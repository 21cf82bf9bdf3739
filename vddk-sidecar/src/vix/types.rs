//! Types of the C interface. Layouts: nbdkit 1.45.1, plugins/vddk/vddk-structs.h, x86-64.

use libc::{c_char, c_int, c_long, c_void};

/// A result; the code is in the low 16 bits.
pub type VixError = u64;
/// Success.
pub const VIX_OK: VixError = 0;
/// Success of the asynchronous calls: the completion comes later.
pub const VIX_ASYNC: VixError = 25000;
/// Bytes of a sector; all offsets and lengths are in sectors.
pub const SECTOR: usize = 512;
/// Flag of Open.
pub const OPEN_READ_ONLY: u32 = 4;
/// User name and password.
pub const CRED_UID: c_int = 1;
/// The disk belongs to a VM, named in `vmx_spec`.
pub const SPEC_VMX: c_int = 0;

/// A connection, owned by the library.
pub type Connection = *mut c_void;
/// An open disk, owned by the library.
pub type Handle = *mut c_void;
/// `void (const char *fmt, va_list args)`. A `va_list` parameter is a pointer on x86-64.
pub type LogFn = unsafe extern "C" fn(*const c_char, *mut c_void);
/// Called from a thread of the library when a request is done.
pub type CompletionFn = unsafe extern "C" fn(*mut c_void, VixError);

/// How to connect. Allocated by the library, which may know a larger one.
#[repr(C)]
#[derive(Debug)]
pub struct ConnectParams {
    /// `moref=vm-16`.
    pub vmx_spec: *mut c_char,
    /// Host name or address.
    pub server_name: *mut c_char,
    /// SHA-1 of the server's certificate, `AA:BB:…`.
    pub thumb_print: *mut c_char,
    /// Not used.
    pub reserved1: c_long,
    /// [`CRED_UID`].
    pub cred_type: c_int,
    /// With [`CRED_UID`]: user name, password. A union whose largest member has three pointers.
    pub creds: [*mut c_char; 3],
    /// HTTPS port.
    pub port: u32,
    /// Port of the data, 902.
    pub nfc_host_port: u32,
    /// Not used.
    pub reserved3: *mut c_char,
    /// Not used.
    pub reserved4: [c_char; 8],
    /// Not used.
    pub reserved5: *mut c_void,
    /// Not used: the union of [`ConnectParams::spec_type`] other than [`SPEC_VMX`].
    pub spec: [*mut c_char; 3],
    /// [`SPEC_VMX`].
    pub spec_type: c_int,
}

/// Geometry.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Geometry {
    /// Cylinders.
    pub cylinders: u32,
    /// Heads.
    pub heads: u32,
    /// Sectors.
    pub sectors: u32,
}

/// About a disk; the two sector sizes at the end exist since 7.0 only and are left out here.
#[repr(C)]
#[derive(Debug)]
pub struct Info {
    /// As the BIOS sees it.
    pub bios: Geometry,
    /// As it is.
    pub physical: Geometry,
    /// In sectors.
    pub capacity: u64,
    /// IDE, SCSI …
    pub adapter_type: c_int,
    /// Files in the chain.
    pub links: c_int,
    /// Where the parent might be.
    pub parent_hint: *mut c_char,
    /// Or NULL.
    pub uuid: *mut c_char,
}

const _: () = {
    use std::mem::{offset_of, size_of};
    assert!(size_of::<ConnectParams>() == 128);
    assert!(offset_of!(ConnectParams, creds) == 40 && offset_of!(ConnectParams, port) == 64);
    assert!(offset_of!(ConnectParams, spec) == 96 && offset_of!(ConnectParams, spec_type) == 120);
    assert!(offset_of!(Info, capacity) == 24 && offset_of!(Info, uuid) == 48);
};

//! The types VDDK's callers share with it, laid out as its C headers lay them out on x86-64.

use crate::codes::VixError;
use std::ffi::{c_char, c_int, c_long, c_void};
use std::mem::{offset_of, size_of};

/// Bytes in a sector of the API.
pub const SECTOR: u64 = 512;
pub const OPEN_READ_ONLY: u32 = 4;
pub const CRED_UID: c_int = 1;
pub const CRED_SESSIONID: c_int = 2;

/// `void (*)(const char *fmt, va_list args)`.
pub type LogFn = unsafe extern "C" fn(*const c_char, *mut VaList);
/// `void (*)(void *data, VixError result)`.
pub type CompletionFn = unsafe extern "C" fn(*mut c_void, VixError);

/// A `va_list` that holds no argument. As a parameter a `va_list` is a pointer to this on both machines below.
#[repr(C)]
#[cfg(target_arch = "x86_64")]
pub struct VaList {
    gp_offset: u32,
    fp_offset: u32,
    overflow_arg_area: *mut c_void,
    reg_save_area: *mut c_void,
}

#[cfg(target_arch = "x86_64")]
impl VaList {
    /// The offsets are those of a list whose register arguments are used up (6 × 8 and that + 8 × 16 bytes), so that no
    /// reader would touch the register save area. Nobody reads: the format has no directive.
    pub fn empty() -> Self {
        let none = std::ptr::null_mut();
        Self { gp_offset: 48, fp_offset: 176, overflow_arg_area: none, reg_save_area: none }
    }
}

/// A `va_list` that holds no argument: AAPCS64's five fields, where zero offsets mean "all on the stack".
#[repr(C)]
#[cfg(not(target_arch = "x86_64"))]
pub struct VaList([u64; 4]);

#[cfg(not(target_arch = "x86_64"))]
impl VaList {
    pub fn empty() -> Self {
        Self([0; 4])
    }
}

/// `VixDiskLibConnectParams`. `creds` is a union: the user's `{userName, password}`, or the session's
/// `{cookie, userName, key}`.
#[repr(C)]
pub struct ConnectParams {
    pub vmx_spec: *mut c_char,
    pub server_name: *mut c_char,
    pub thumb_print: *mut c_char,
    pub reserved1: c_long,
    pub cred_type: c_int,
    pub creds: [*mut c_char; 3],
    pub port: u32,
    pub nfc_host_port: u32,
    pub reserved3: *mut c_char,
    pub reserved4: [c_char; 8],
    pub reserved5: *mut c_void,
    pub spec: [*mut c_char; 3],
    pub spec_type: c_int,
}

const _: () = assert!(size_of::<ConnectParams>() == 128);
const _: () = assert!(offset_of!(ConnectParams, cred_type) == 32);
const _: () = assert!(offset_of!(ConnectParams, creds) == 40);
const _: () = assert!(offset_of!(ConnectParams, port) == 64);
const _: () = assert!(offset_of!(ConnectParams, reserved5) == 88);
const _: () = assert!(offset_of!(ConnectParams, spec_type) == 120);

/// `VixDiskLibGeometry`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Geometry {
    pub cylinders: u32,
    pub heads: u32,
    pub sectors: u32,
}

/// `VixDiskLibInfo`, with the sector sizes that VDDK 7 added.
#[repr(C)]
pub struct Info {
    pub bios_geo: Geometry,
    pub phys_geo: Geometry,
    pub capacity: u64,
    pub adapter_type: c_int,
    pub num_links: c_int,
    pub parent_file_name_hint: *mut c_char,
    pub uuid: *mut c_char,
    pub logical_sector_size: u32,
    pub physical_sector_size: u32,
}

const _: () = assert!(size_of::<Info>() == 64);
const _: () = assert!(offset_of!(Info, capacity) == 24);
const _: () = assert!(offset_of!(Info, uuid) == 48);

/// `VixDiskLibBlock`, in sectors.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    pub offset: u64,
    pub length: u64,
}

/// `VixDiskLibBlockList` up to its first block.
#[repr(C)]
pub struct BlockList {
    pub count: u32,
    pub blocks: [Block; 0],
}

const _: () = assert!(size_of::<BlockList>() == 8 && offset_of!(BlockList, blocks) == 8);

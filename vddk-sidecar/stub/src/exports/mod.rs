//! The functions nbdkit and other users of VDDK call. Each reads its C arguments and leaves the rest to safe code.

#![allow(unsafe_code)] // the C interface: raw pointers and exported names

mod io;

use crate::abi::{CRED_SESSIONID, CRED_UID, ConnectParams, Info, LogFn, OPEN_READ_ONLY};
use crate::codes::{self, INVALID_ARG, NOT_SUPPORTED, Result, VixError};
use crate::disk::Disk;
use crate::library::{self, code, enter};
use crate::log::Log;
use crate::memory;
use crate::session::{self, Client};
use crate::settings::Function;
use std::ffi::{c_char, c_void};
use std::path::PathBuf;

type Connection = *mut c_void;
type Handle = *mut c_void;

/// Gives the client a number that it takes for a pointer.
fn handle(id: usize) -> *mut c_void {
    std::ptr::without_provenance_mut(id)
}

#[unsafe(export_name = "VixDiskLib_InitEx")]
unsafe extern "C" fn init_ex(
    _major: u32,
    _minor: u32,
    log: Option<LogFn>,
    warn: Option<LogFn>,
    panic: Option<LogFn>,
    lib_dir: *const c_char,
    _config_file: *const c_char,
) -> VixError {
    // SAFETY: NULL or a string, by the interface.
    let lib_dir = unsafe { memory::text(lib_dir) }.map(PathBuf::from);
    code(library::init(Log { info: log, warn, panic }, lib_dir.as_deref()))
}

#[unsafe(export_name = "VixDiskLib_Exit")]
extern "C" fn exit() {
    library::exit();
}

/// The string lives until `Exit`; before `InitEx` nothing is known.
#[unsafe(export_name = "VixDiskLib_ListTransportModes")]
extern "C" fn list_transport_modes() -> *const c_char {
    enter(Function::ListTransportModes)
        .map_or(c"".as_ptr(), |library| library.transport_modes.as_ptr())
}

#[unsafe(export_name = "VixDiskLib_GetErrorText")]
extern "C" fn get_error_text(error: VixError, _locale: *const c_char) -> *mut c_char {
    // Texts exist before InitEx, too.
    let _ = enter(Function::GetErrorText);
    memory::give_string(codes::text(error))
}

#[unsafe(export_name = "VixDiskLib_FreeErrorText")]
unsafe extern "C" fn free_error_text(text: *mut c_char) {
    // SAFETY: NULL or from GetErrorText, by the interface.
    unsafe { memory::free_string(text) };
}

#[unsafe(export_name = "VixDiskLib_AllocateConnectParams")]
extern "C" fn allocate_connect_params() -> *mut ConnectParams {
    let _ = enter(Function::AllocateConnectParams);
    memory::give_params()
}

#[unsafe(export_name = "VixDiskLib_FreeConnectParams")]
unsafe extern "C" fn free_connect_params(params: *mut ConnectParams) {
    let _ = enter(Function::FreeConnectParams);
    // SAFETY: NULL or from AllocateConnectParams, by the interface.
    unsafe { memory::free_params(params) };
}

#[unsafe(export_name = "VixDiskLib_ConnectEx")]
unsafe extern "C" fn connect_ex(
    params: *const ConnectParams,
    read_only: c_char,
    snapshot: *const c_char,
    transports: *const c_char,
    out: *mut Connection,
) -> VixError {
    // SAFETY: the interface's own contract, passed on.
    code(unsafe { connect(params, read_only != 0, snapshot, transports, out) })
}

/// # Safety
/// Pointers are NULL or what the interface says; those in `params` too.
unsafe fn connect(
    params: *const ConnectParams,
    read_only: bool,
    snapshot: *const c_char,
    transports: *const c_char,
    out: *mut Connection,
) -> Result<()> {
    let library = enter(Function::ConnectEx)?;
    library.check_fork(Function::ConnectEx)?;
    if params.is_null() || out.is_null() {
        return Err(INVALID_ARG);
    }
    // SAFETY: not NULL; parameters and strings by this function's contract.
    let client = unsafe { client(&*params, read_only, snapshot, transports) }?;
    library.call(Function::ConnectEx)?;
    let connection = session::connect(&library.settings, &library.log, &client)?;
    // SAFETY: not NULL, and a place for a pointer by this function's contract.
    unsafe { out.write(handle(library.add_connection(connection))) };
    Ok(())
}

/// # Safety
/// All strings are NULL or strings.
unsafe fn client(
    params: &ConnectParams,
    read_only: bool,
    snapshot: *const c_char,
    transports: *const c_char,
) -> Result<Client> {
    let [first, second, third] = params.creds;
    let (by_cookie, user, password) = match params.cred_type {
        CRED_SESSIONID => (true, second, third),
        // Nothing was filled in: what is missing is reported later.
        0 | CRED_UID => (false, first, second),
        _ => return Err(NOT_SUPPORTED),
    };
    // SAFETY: by this function's contract.
    unsafe {
        Ok(Client {
            spec: memory::text(params.vmx_spec),
            server: memory::text(params.server_name),
            thumbprint: memory::text(params.thumb_print),
            user: memory::text(user),
            password: memory::bytes(password),
            by_cookie,
            cookie: if by_cookie { memory::bytes(first) } else { None },
            snapshot: memory::text(snapshot),
            transports: memory::text(transports),
            read_only,
        })
    }
}

#[unsafe(export_name = "VixDiskLib_Disconnect")]
extern "C" fn disconnect(connection: Connection) -> VixError {
    let disconnect = || {
        let library = enter(Function::Disconnect)?;
        library.call(Function::Disconnect)?;
        library.remove_connection(connection.addr())
    };
    code(disconnect())
}

#[unsafe(export_name = "VixDiskLib_Open")]
unsafe extern "C" fn open(
    connection: Connection,
    path: *const c_char,
    flags: u32,
    out: *mut Handle,
) -> VixError {
    // SAFETY: NULL or a string, by the interface.
    let path = unsafe { memory::text(path) };
    let open = || {
        let library = enter(Function::Open)?;
        library.check_fork(Function::Open)?;
        let path = path.ok_or(INVALID_ARG)?;
        let connection = library.connection(connection.addr())?;
        if out.is_null() {
            return Err(INVALID_ARG);
        }
        library.log.info("VixDiskLib: VixDiskLib_OpenEx: Open a disk.");
        let opened = library.exclusive(Function::Open, || {
            library.call(Function::Open)?;
            connection.may_open(&library.settings, &library.log)?;
            Disk::open(&library, connection, &path, flags & OPEN_READ_ONLY != 0)
        });
        opened.map_or_else(
            |error| {
                library.log.cannot_open(&path, error);
                Err(error)
            },
            |disk| Ok(library.add_disk(disk)),
        )
    };
    let opened = open();
    if let Ok(id) = opened {
        // SAFETY: not NULL, and a place for a pointer by the interface.
        unsafe { out.write(handle(id)) };
    }
    code(opened.map(drop))
}

#[unsafe(export_name = "VixDiskLib_Close")]
extern "C" fn close(disk: Handle) -> VixError {
    let close = || {
        let library = enter(Function::Close)?;
        library.call(Function::Close)?;
        library.exclusive(Function::Close, || {
            let disk = library.remove_disk(disk.addr())?;
            let outstanding = disk.pool.outstanding();
            if outstanding > 0 {
                library.log.warn(&format!(
                    "VixDiskLib stub: Close with {outstanding} requests under way; waiting for them."
                ));
                disk.pool.wait();
            }
            Ok(())
        })
    };
    code(close())
}

/// The string lives until `Close`.
#[unsafe(export_name = "VixDiskLib_GetTransportMode")]
extern "C" fn get_transport_mode(disk: Handle) -> *const c_char {
    let mode = || Ok(enter(Function::GetTransportMode)?.disk(disk.addr())?.transport.as_ptr());
    let mode: Result<*const c_char> = mode();
    mode.unwrap_or(std::ptr::null())
}

#[unsafe(export_name = "VixDiskLib_GetInfo")]
unsafe extern "C" fn get_info(disk: Handle, out: *mut *mut Info) -> VixError {
    let info = || {
        let library = enter(Function::GetInfo)?;
        let disk = library.disk(disk.addr())?;
        disk.connection.alive(&library.log)?;
        library.call(Function::GetInfo)?;
        if out.is_null() {
            return Err(INVALID_ARG);
        }
        Ok(io::info(&library.settings, disk.capacity))
    };
    let info = info();
    code(info.map(|info| {
        // SAFETY: not NULL, and a place for a pointer by the interface.
        unsafe { out.write(memory::give_info(info)) };
    }))
}

#[unsafe(export_name = "VixDiskLib_FreeInfo")]
unsafe extern "C" fn free_info(info: *mut Info) {
    let _ = enter(Function::FreeInfo);
    // SAFETY: NULL or from GetInfo, by the interface.
    unsafe { memory::free_info(info) };
}

#[unsafe(export_name = "VixDiskLib_Create")]
extern "C" fn create(
    _connection: Connection,
    _path: *const c_char,
    _params: *const c_void,
    _progress: *const c_void,
    _data: *mut c_void,
) -> VixError {
    let create = || {
        enter(Function::Create)?.call(Function::Create)?;
        Err(NOT_SUPPORTED)
    };
    code(create())
}

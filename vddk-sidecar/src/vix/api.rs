//! The library, loaded: with [`super::callback`] the only `unsafe` of this
//! crate. Only ever used in a process of its own (see [`crate::probe`]):
//! VDDK brings its own OpenSSL and C++ runtime, starts threads, and may crash.

#![allow(unsafe_code)]

use super::callback::{Completion, completed, log};
use super::types::{
    CRED_UID, CompletionFn, ConnectParams, Connection, Handle, Info, LogFn, OPEN_READ_ONLY, SECTOR,
    SPEC_VMX, VIX_ASYNC, VIX_OK, VixError,
};
use super::{PREFIX, SYMBOLS, error};
use libc::{c_char, c_void};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use std::ffi::{CStr, CString};
use std::mem::ManuallyDrop;
use std::path::Path;
use std::ptr;

/// Version of the interface that is asked for; nbdkit asks for the same.
const INTERFACE: (u32, u32) = (6, 5);

/// Bytes that are kept of a text of the library's.
const LONGEST_TEXT: usize = 1000;

type GetErrorText = unsafe extern "C" fn(VixError, *const c_char) -> *mut c_char;
type InitEx = unsafe extern "C" fn(
    u32,
    u32,
    Option<LogFn>,
    Option<LogFn>,
    Option<LogFn>,
    *const c_char,
    *const c_char,
) -> VixError;
type ConnectEx = unsafe extern "C" fn(
    *const ConnectParams,
    c_char,
    *const c_char,
    *const c_char,
    *mut Connection,
) -> VixError;

/// Why it could not be loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// `dlopen` refused.
    #[error("{0}")]
    Open(String),
    /// Functions are missing.
    #[error("functions are missing: {}", .0.join(" "))]
    Symbols(Vec<String>),
}

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("VixDiskLib_{function}: error {code} ({text})")]
pub struct CallError {
    /// Without prefix.
    pub function: &'static str,
    /// The code.
    pub code: u16,
    /// What the library says about it.
    pub text: String,
}

/// Where to connect to, and which disk to open there.
#[derive(Debug, Clone)]
pub struct Remote<'a> {
    /// Host name or address.
    pub server: &'a str,
    /// HTTPS port.
    pub port: u32,
    /// Port of the data; 0: as the library has it.
    pub nfc_port: u32,
    /// User.
    pub user: &'a str,
    /// Password.
    pub password: &'a str,
    /// SHA-1, `AA:BB:…`.
    pub thumbprint: Option<&'a str>,
    /// `moref=vm-16`.
    pub vm: &'a str,
    /// Reference of a snapshot.
    pub snapshot: Option<&'a str>,
    /// `file:nbdssl:nbd`.
    pub transports: Option<&'a str>,
}

/// A connection of this library. It keeps the parameters: nbdkit gives them back after `Disconnect` only, so a library
/// may look at them until then.
#[derive(Debug)]
pub struct Link {
    connection: Connection,
    params: *mut ConnectParams,
    _texts: Vec<CString>,
}

/// An open disk of this library.
#[derive(Debug, Clone, Copy)]
pub struct Disk(Handle);

/// The library with its functions found.
#[derive(Debug)]
pub struct Api {
    /// Never unloaded: its threads outlive every call.
    library: ManuallyDrop<Library>,
}

impl Api {
    /// Loads the library and looks for all functions.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        // SAFETY: this runs the library's constructors. The process exists for nothing else and holds nothing they
        // could damage; a crash is the result that the parent looks for.
        let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) };
        let library = ManuallyDrop::new(library.map_err(|e| LoadError::Open(reason(&e)))?);
        let api = Self { library };
        let missing: Vec<String> = SYMBOLS
            .iter()
            .filter(|name| !api.has(name))
            .map(|name| format!("{PREFIX}{name}"))
            .collect();
        if missing.is_empty() { Ok(api) } else { Err(LoadError::Symbols(missing)) }
    }

    fn has(&self, name: &str) -> bool {
        // SAFETY: the symbol is only looked for, never called or read through this type.
        unsafe { self.library.get::<*const c_void>(format!("{PREFIX}{name}").as_bytes()) }.is_ok()
    }

    /// A function by its name.
    ///
    /// # Safety
    /// `F` must be the type of the function of that name.
    unsafe fn function<F: Copy>(&self, name: &'static str) -> Result<F, CallError> {
        // SAFETY: the caller vouches for the type.
        let symbol = unsafe { self.library.get::<F>(format!("{PREFIX}{name}").as_bytes()) };
        symbol.map(|f| *f).map_err(|e| CallError { function: name, code: 0, text: reason(&e) })
    }

    fn check(&self, function: &'static str, error: VixError) -> Result<(), CallError> {
        if error == VIX_OK { Ok(()) } else { Err(self.failed(function, error)) }
    }

    fn failed(&self, function: &'static str, vix: VixError) -> CallError {
        let text = self.error_text(vix).unwrap_or_else(|_| "no text".to_owned());
        CallError { function, code: error::code_of(vix), text }
    }

    fn error_text(&self, error: VixError) -> Result<String, CallError> {
        // SAFETY: signatures as in `types`; the text is copied before it is given back.
        unsafe {
            let get: GetErrorText = self.function("GetErrorText")?;
            let free: unsafe extern "C" fn(*mut c_char) = self.function("FreeErrorText")?;
            let text = get(error, ptr::null());
            if text.is_null() {
                return Ok("no text".to_owned());
            }
            let copy = copy(text);
            free(text);
            Ok(copy)
        }
    }

    /// Initialises the library; once in a process.
    pub fn init(&self, libdir: &Path, conf: Option<&Path>) -> Result<(), CallError> {
        let libdir = c_path(libdir, "InitEx")?;
        let conf = conf.map(|c| c_path(c, "InitEx")).transpose()?;
        let conf = conf.as_ref().map_or(ptr::null(), |c| c.as_ptr());
        let (major, minor) = INTERFACE;
        let log: Option<LogFn> = Some(log);
        // SAFETY: the texts live until the call is back; the callback lives as long as the process.
        let error = unsafe {
            let init: InitEx = self.function("InitEx")?;
            init(major, minor, log, log, log, libdir.as_ptr(), conf)
        };
        self.check("InitEx", error)
    }

    /// `file:nbdssl:nbd`.
    pub fn transport_modes(&self) -> Result<String, CallError> {
        // SAFETY: the text belongs to the library and is copied.
        unsafe {
            let list: unsafe extern "C" fn() -> *const c_char =
                self.function("ListTransportModes")?;
            Ok(copy(list()))
        }
    }

    /// Connects, for reading only.
    pub fn connect(&self, remote: &Remote<'_>) -> Result<Link, CallError> {
        let name = "ConnectEx";
        let texts = [remote.vm, remote.server, remote.user, remote.password];
        let texts = texts.map(|t| c_text(t, name));
        let [vm, server, user, password] = texts;
        let (vm, server, user, password) = (vm?, server?, user?, password?);
        let optional = |t: Option<&str>| t.map(|t| c_text(t, name)).transpose();
        let thumbprint = optional(remote.thumbprint)?;
        let snapshot = optional(remote.snapshot)?;
        let transports = optional(remote.transports)?;
        let or_null = |t: &Option<CString>| t.as_ref().map_or(ptr::null(), |t| t.as_ptr());
        let mut connection: Connection = ptr::null_mut();
        let params;
        // SAFETY: the structure is allocated by the library, so it is at least as large as ours, whose layout is its
        // beginning; it and the texts live as long as the connection.
        let error = unsafe {
            let allocate: unsafe extern "C" fn() -> *mut ConnectParams =
                self.function("AllocateConnectParams")?;
            let connect: ConnectEx = self.function(name)?;
            params = allocate();
            if params.is_null() {
                return Err(self.failed("AllocateConnectParams", 2));
            }
            (*params).spec_type = SPEC_VMX;
            (*params).vmx_spec = vm.as_ptr().cast_mut();
            (*params).server_name = server.as_ptr().cast_mut();
            (*params).thumb_print = or_null(&thumbprint).cast_mut();
            (*params).cred_type = CRED_UID;
            (*params).creds =
                [user.as_ptr().cast_mut(), password.as_ptr().cast_mut(), ptr::null_mut()];
            (*params).port = remote.port;
            (*params).nfc_host_port = remote.nfc_port;
            connect(params, 1, or_null(&snapshot), or_null(&transports), &raw mut connection)
        };
        let optional = [thumbprint, snapshot, transports].into_iter().flatten();
        let texts = [vm, server, user, password].into_iter().chain(optional).collect();
        let link = Link { connection, params, _texts: texts };
        if let Err(failed) = self.check(name, error) {
            self.free_params(&link)?;
            return Err(failed);
        }
        Ok(link)
    }

    fn free_params(&self, link: &Link) -> Result<(), CallError> {
        // SAFETY: allocated by the library and not used again; what is ours in it is taken out first, since the library
        // must not free it.
        unsafe {
            let free: unsafe extern "C" fn(*mut ConnectParams) =
                self.function("FreeConnectParams")?;
            let params = link.params;
            (*params).vmx_spec = ptr::null_mut();
            (*params).server_name = ptr::null_mut();
            (*params).thumb_print = ptr::null_mut();
            (*params).creds = [ptr::null_mut(); 3];
            free(params);
        }
        Ok(())
    }

    /// Opens a disk, for reading only.
    pub fn open(&self, link: &Link, disk: &str) -> Result<Disk, CallError> {
        let path = c_text(disk, "Open")?;
        let mut handle: Handle = ptr::null_mut();
        // SAFETY: `connection` comes from `connect`; the text lives until the call is back.
        let error = unsafe {
            let open: unsafe extern "C" fn(
                Connection,
                *const c_char,
                u32,
                *mut Handle,
            ) -> VixError = self.function("Open")?;
            open(link.connection, path.as_ptr(), OPEN_READ_ONLY, &raw mut handle)
        };
        self.check("Open", error).map(|()| Disk(handle))
    }

    /// The transport of an open disk.
    pub fn transport(&self, disk: Disk) -> Result<String, CallError> {
        // SAFETY: `handle` comes from `open`; the text belongs to the library and is copied.
        unsafe {
            let get: unsafe extern "C" fn(Handle) -> *const c_char =
                self.function("GetTransportMode")?;
            Ok(copy(get(disk.0)))
        }
    }

    /// Size of an open disk, in sectors.
    pub fn capacity(&self, disk: Disk) -> Result<u64, CallError> {
        let mut info: *mut Info = ptr::null_mut();
        // SAFETY: `handle` comes from `open`; the structure is read before it is given back.
        unsafe {
            let get: unsafe extern "C" fn(Handle, *mut *mut Info) -> VixError =
                self.function("GetInfo")?;
            let free: unsafe extern "C" fn(*mut Info) = self.function("FreeInfo")?;
            self.check("GetInfo", get(disk.0, &raw mut info))?;
            if info.is_null() {
                return Err(self.failed("GetInfo", 1));
            }
            let capacity = (*info).capacity;
            free(info);
            Ok(capacity)
        }
    }

    /// Reads the first sector asynchronously and waits for it.
    pub fn read_first_sector(&self, disk: Disk) -> Result<[u8; SECTOR], CallError> {
        type ReadAsync =
            unsafe extern "C" fn(Handle, u64, u64, *mut u8, CompletionFn, *mut c_void) -> VixError;
        // On the heap and never freed on failure: a late completion must find them.
        let buffer = Box::leak(Box::new([0u8; SECTOR]));
        let done: &'static Completion = Box::leak(Box::new(Completion::default()));
        let data = ptr::from_ref(done).cast_mut().cast();
        // SAFETY: buffer and completion live as long as the process.
        let error = unsafe {
            let read: ReadAsync = self.function("ReadAsync")?;
            read(disk.0, 0, 1, buffer.as_mut_ptr(), completed, data)
        };
        let pending = error::code_of(error) == error::code_of(VIX_ASYNC);
        if !pending && error != VIX_OK {
            return Err(self.failed("ReadAsync", error));
        }
        let error = if pending { done.wait() } else { VIX_OK };
        self.check("ReadAsync", error).map(|()| *buffer)
    }

    /// Closes the disk, the connection and the library.
    pub fn finish(&self, link: Option<Link>, disk: Option<Disk>) -> Result<(), CallError> {
        type OneArgument = unsafe extern "C" fn(*mut c_void) -> VixError;
        // SAFETY: both come from this library and are not used again.
        unsafe {
            if let Some(disk) = disk {
                let close: OneArgument = self.function("Close")?;
                self.check("Close", close(disk.0))?;
            }
            if let Some(link) = link {
                let disconnect: OneArgument = self.function("Disconnect")?;
                self.check("Disconnect", disconnect(link.connection))?;
                self.free_params(&link)?;
            }
            let exit: unsafe extern "C" fn() = self.function("Exit")?;
            exit();
        }
        Ok(())
    }
}

/// A text of the library's: its beginning, without control characters. Empty for NULL.
///
/// # Safety
/// NULL, or a pointer to a text that ends with a NUL.
unsafe fn copy(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not NULL; the caller vouches for the rest.
    let bytes = unsafe { CStr::from_ptr(text) }.to_bytes();
    let bytes = bytes.get(..LONGEST_TEXT).unwrap_or(bytes);
    String::from_utf8_lossy(bytes).chars().filter(|c| !c.is_control()).collect()
}

/// `dlerror`'s text is in the error's source.
fn reason(error: &libloading::Error) -> String {
    let source = std::error::Error::source(error).map(ToString::to_string);
    source.unwrap_or_else(|| error.to_string())
}

fn c_text(text: &str, function: &'static str) -> Result<CString, CallError> {
    CString::new(text).map_err(|_| CallError {
        function,
        code: 0,
        text: "a parameter contains a NUL".to_owned(),
    })
}

fn c_path(path: &Path, function: &'static str) -> Result<CString, CallError> {
    c_text(&path.to_string_lossy(), function)
}
